//! Preparation of the parts of an address: nodeprep, nameprep and resourceprep over the tables of
//! RFC 3454, each with an ASCII fast path.
//!
//! Two choices are those of Prosody and ejabberd, so that we agree with them on who is who:
//! code points that were unassigned in Unicode 3.2 (emoji) pass, and it is stringprep, not PRECIS.
//! One is ours: what preparation would change a second time is refused, so a prepared address is
//! always equal to itself after another trip over the wire.

use super::{JidError, PART_BYTES_MAX};
use std::borrow::Cow;
use std::net::Ipv6Addr;
use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// ASCII that may stand in a localpart and that nodeprep leaves as it is: visible, not upper case,
/// none of `"&'/:<>@` (RFC 6122 §2.3).
pub(super) const LOCALPART_AS_IS: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0x21;
    while b < 0x7F {
        table[b] = !matches!(
            b as u8,
            b'A'..=b'Z' | b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@'
        );
        b += 1;
    }
    table
};

/// ASCII that may stand in a prepared domainpart. The underscore is not a host name's, but
/// private networks have it.
const DOMAINPART_AS_IS: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = matches!(b as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        b += 1;
    }
    table
};

/// Whether an ASCII domain is prepared already: no empty label, no trailing dot, nothing that
/// could be an A-label.
pub(super) fn is_prepared_domain(domain: &[u8]) -> bool {
    if domain.is_empty() || domain.len() > PART_BYTES_MAX {
        return false;
    }
    let mut previous = b'.';
    for (i, &b) in domain.iter().enumerate() {
        if !DOMAINPART_AS_IS[usize::from(b)] || (b == b'.' && previous == b'.') {
            return false;
        }
        if previous == b'.' && b == b'x' && domain[i..].starts_with(b"xn--") {
            return false;
        }
        previous = b;
    }
    previous != b'.'
}

/// Whether a string has code points that Unicode 3.2 did not have: allowed in addresses we look
/// up, better refused in names of accounts we create (RFC 3454 §7).
pub fn has_unassigned(s: &str) -> bool {
    !s.is_ascii() && s.chars().any(tables::unassigned_code_point)
}

/// Prepares a localpart (nodeprep, RFC 6122 §A).
pub fn prep_localpart(s: &str) -> Result<Cow<'_, str>, JidError> {
    if s.is_empty() {
        return Err(JidError::EmptyLocalpart);
    }
    if s.len() > PART_BYTES_MAX * 4 {
        return Err(JidError::TooLong);
    }
    let prepared = if s.bytes().all(|b| LOCALPART_AS_IS[usize::from(b)]) {
        Cow::Borrowed(s)
    } else if s.is_ascii() {
        let lower = s.to_ascii_lowercase();
        if !lower.bytes().all(|b| LOCALPART_AS_IS[usize::from(b)]) {
            return Err(JidError::InvalidLocalpart);
        }
        Cow::Owned(lower)
    } else {
        let forbidden = |c: char| {
            tables::ascii_space_character(c)
                || matches!(c, '"' | '&' | '\'' | '/' | ':' | '<' | '>' | '@')
                || is_prohibited(c)
        };
        Cow::Owned(stable(s, fold_nfkc, forbidden).ok_or(JidError::InvalidLocalpart)?)
    };
    check_len(prepared, JidError::EmptyLocalpart)
}

/// Prepares a resourcepart (resourceprep, RFC 6122 §B).
pub fn prep_resourcepart(s: &str) -> Result<Cow<'_, str>, JidError> {
    if s.is_empty() {
        return Err(JidError::EmptyResourcepart);
    }
    if s.len() > PART_BYTES_MAX * 4 {
        return Err(JidError::TooLong);
    }
    let prepared = if s.bytes().all(|b| matches!(b, b' '..=b'~')) {
        Cow::Borrowed(s)
    } else {
        Cow::Owned(stable(s, nfkc, is_prohibited).ok_or(JidError::InvalidResourcepart)?)
    };
    check_len(prepared, JidError::EmptyResourcepart)
}

/// Prepares a domainpart: an IPv6 address in brackets, an IPv4 address, or a domain name
/// (nameprep, RFC 3491; A-labels become U-labels as ToUnicode of RFC 3490 §4.2 does; a trailing
/// dot is dropped, RFC 7622 §3.2).
pub fn prep_domainpart(s: &str) -> Result<Cow<'_, str>, JidError> {
    if is_prepared_domain(s.as_bytes()) {
        return Ok(Cow::Borrowed(s));
    }
    if s.is_empty() {
        return Err(JidError::EmptyDomainpart);
    }
    if s.len() > PART_BYTES_MAX * 4 {
        return Err(JidError::TooLong);
    }
    if let Some(literal) = s.strip_prefix('[') {
        let address = literal
            .strip_suffix(']')
            .and_then(|a| a.parse::<Ipv6Addr>().ok());
        return address
            .map(|a| Cow::Owned(format!("[{a}]")))
            .ok_or(JidError::InvalidDomainpart);
    }
    let mut name = if s.is_ascii() {
        s.to_ascii_lowercase()
    } else {
        prep_name(s)?
    };
    if name.ends_with('.') {
        name.pop();
    }
    if name.is_empty() {
        return Err(JidError::EmptyDomainpart);
    }
    // After NFKC a fullwidth `@` or `/`, or a sign such as U+2100, is plain ASCII: refused here.
    // So is a full stop that NFKC has made of something else (U+FE12): read again it would be a dot.
    let valid = |label: &str| {
        !label.is_empty()
            && !label.contains(['\u{3002}', '\u{FF0E}', '\u{FF61}'])
            && label
                .bytes()
                .all(|b| b >= 0x80 || DOMAINPART_AS_IS[usize::from(b)])
    };
    if !name.split('.').all(valid) {
        return Err(JidError::InvalidDomainpart);
    }
    if name.starts_with("xn--") || name.contains(".xn--") {
        let labels: Vec<Cow<'_, str>> = name.split('.').map(label_to_unicode).collect();
        name = labels.join(".");
    }
    check_len(Cow::Owned(name), JidError::EmptyDomainpart)
}

/// Nameprep of a whole name, label by label (the rules on text direction are per label). The
/// ideographic full stops separate labels too (RFC 3490 §3.1).
fn prep_name(s: &str) -> Result<String, JidError> {
    let mut out = String::with_capacity(s.len());
    for (i, label) in s
        .split(['.', '\u{3002}', '\u{FF0E}', '\u{FF61}'])
        .enumerate()
    {
        if i > 0 {
            out.push('.');
        }
        out.push_str(&prep_label(label).ok_or(JidError::InvalidDomainpart)?);
    }
    Ok(out)
}

fn prep_label(label: &str) -> Option<String> {
    stable(label, fold_nfkc, |c| c == '.' || is_prohibited(c))
}

/// ToUnicode (RFC 3490 §4.2): decodes an A-label if that can be undone; else it stays as it is.
fn label_to_unicode(label: &str) -> Cow<'_, str> {
    let decoded = label
        .strip_prefix("xn--")
        .and_then(idna::punycode::decode_to_string);
    match decoded {
        Some(text)
            if !text.is_ascii()
                && prep_label(&text).as_deref() == Some(&text)
                && text
                    .bytes()
                    .all(|b| b >= 0x80 || (b != b'.' && DOMAINPART_AS_IS[usize::from(b)]))
                && idna::punycode::encode_str(&text).as_deref() == Some(&label[4..]) =>
        {
            Cow::Owned(text)
        }
        _ => Cow::Borrowed(label),
    }
}

fn check_len(s: Cow<'_, str>, empty: JidError) -> Result<Cow<'_, str>, JidError> {
    match s.len() {
        0 => Err(empty),
        1..=PART_BYTES_MAX => Ok(s),
        _ => Err(JidError::TooLong),
    }
}

/// Maps, then checks for prohibited characters and text direction, then makes sure that mapping
/// again changes nothing. None: not allowed.
fn stable(s: &str, map: fn(&str) -> String, forbidden: impl Fn(char) -> bool) -> Option<String> {
    let mapped = map(s);
    if mapped.chars().any(forbidden) || !direction_is_allowed(&mapped) || map(&mapped) != mapped {
        return None;
    }
    Some(mapped)
}

/// Tables B.1 and B.2, then NFKC.
fn fold_nfkc(s: &str) -> String {
    s.chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .flat_map(tables::case_fold_for_nfkc)
        .nfkc()
        .collect()
}

/// Table B.1, then NFKC.
fn nfkc(s: &str) -> String {
    s.chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .nfkc()
        .collect()
}

/// Tables C.1.2 and C.2 to C.9, common to the three profiles.
fn is_prohibited(c: char) -> bool {
    tables::non_ascii_space_character(c)
        || tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::surrogate_code(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}

/// RFC 3454 §6.
fn direction_is_allowed(s: &str) -> bool {
    if !s.chars().any(tables::bidi_r_or_al) {
        return true;
    }
    !s.chars().any(tables::bidi_l)
        && s.chars().next().is_some_and(tables::bidi_r_or_al)
        && s.chars().next_back().is_some_and(tables::bidi_r_or_al)
}
