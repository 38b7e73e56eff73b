//! Distinguished names as text (RFC 4514): read, compared, escaped.
//!
//! In: names as a directory writes them. Out: a form that is equal when the names are.
//! Never: trusts a name to be well formed; what cannot be read is `None`.
//!
//! Attribute values of names are compared without case and with runs of spaces as one, as nearly all attributes used in names
//! are (`caseIgnoreMatch`, RFC 4517 §4.2.11).

/// Longest name looked at, in bytes. OpenLDAP's limit is 8 KiB.
const DN_BYTES_MAX: usize = 8_192;

/// One `type=value`, the value unescaped.
type Ava = (String, String);

/// The parts of a name, the innermost first; each has one `type=value`, or several joined by `+`.
pub(super) fn parse(dn: &str) -> Option<Vec<Vec<Ava>>> {
    if dn.len() > DN_BYTES_MAX {
        return None;
    }
    let mut rdns = Vec::new();
    let mut rdn = Vec::new();
    let mut rest = dn.trim_start_matches(' ');
    if rest.is_empty() {
        return Some(rdns);
    }
    loop {
        let (kind, after) = rest.split_once('=')?;
        let kind = kind.trim_matches(' ');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if kind.is_empty() || !kind.chars().all(plain) {
            return None;
        }
        let (value, separator, after) = value(after)?;
        rdn.push((kind.to_ascii_lowercase(), value));
        if separator != Some('+') {
            rdns.push(std::mem::take(&mut rdn));
        }
        if separator.is_none() {
            return Some(rdns);
        }
        rest = after;
    }
}

/// Reads a value up to an unescaped separator: the value, the separator, the rest.
fn value(text: &str) -> Option<(String, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    let mut bytes: Vec<u8> = Vec::new();
    // Spaces at the end belong to the value only if escaped.
    let mut kept = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | ';' | '+' => {
                bytes.truncate(kept);
                return Some((String::from_utf8(bytes).ok()?, Some(c), &text[at + 1..]));
            }
            '\\' => {
                let (_, first) = chars.next()?;
                match first.to_digit(16) {
                    Some(high) => {
                        let low = chars.next()?.1.to_digit(16)?;
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    None => bytes.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                kept = bytes.len();
            }
            '"' => return None,
            _ => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                if c != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    Some((String::from_utf8(bytes).ok()?, None, ""))
}

/// A form of the name that is the same for every spelling of it.
pub(super) fn canonical(dn: &str) -> Option<String> {
    let mut out = String::with_capacity(dn.len());
    for rdn in parse(dn)? {
        let mut avas: Vec<String> = rdn
            .into_iter()
            .map(|(kind, value)| format!("{kind}={}", escape(&folded(&value))))
            .collect();
        avas.sort_unstable();
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&avas.join("+"));
    }
    Some(out)
}

fn folded(value: &str) -> String {
    let words: Vec<&str> = value.split(' ').filter(|w| !w.is_empty()).collect();
    words.join(" ").to_lowercase()
}

/// The value an attribute has in the innermost part of the name.
pub(super) fn rdn_value(dn: &str, attribute: &str) -> Option<String> {
    let first = parse(dn)?.into_iter().next()?;
    let mut of = first.into_iter();
    of.find(|(kind, _)| kind.eq_ignore_ascii_case(attribute))
        .map(|(_, value)| value)
}

/// Escapes a value for a name (RFC 4514 §2.4).
pub(super) fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (n, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => {
                out.push('\\');
                out.push(c);
            }
            '#' | ' ' if n == 0 => {
                out.push('\\');
                out.push(c);
            }
            ' ' if n == last => out.push_str("\\ "),
            '\0' => out.push_str("\\00"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_equal() {
        for (a, b) in [
            (
                "uid=romeo,ou=People,dc=x,dc=example",
                "UID=Romeo, OU=people , DC=X,DC=EXAMPLE",
            ),
            ("cn=Capulet\\, Juliet,dc=x", "cn=capulet\\2C juliet,dc=x"),
            ("cn=a+sn=b,dc=x", "SN=B+CN=A,dc=x"),
            ("cn=two  words,dc=x", "cn=Two Words;dc=x"),
            (
                "cn=\\d0\\9e\\d1\\82\\d0\\b4\\d0\\b5\\d0\\bb,dc=x",
                "cn=отдел,dc=x",
            ),
            ("cn=a\\ ,dc=x", "cn=a\\20,dc=x"),
            ("", ""),
        ] {
            assert!(canonical(a).is_some(), "{a}");
            assert_eq!(canonical(a), canonical(b), "{a} / {b}");
        }
        for (a, b) in [
            ("cn=a,dc=x", "cn=a,dc=y"),
            ("cn=a\\,dc\\=x", "cn=a,dc=x"),
            ("cn=a+sn=b", "cn=a,sn=b"),
            ("uid=a", "cn=a"),
        ] {
            assert_ne!(canonical(a), canonical(b), "{a} / {b}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for bad in [
            "romeo",
            "=x",
            "cn=a,",
            "cn=a,,dc=x",
            "cn=a\\",
            "cn=a\\2",
            "c n=a",
            "cn=\\ff",
            "cn=\"a\"",
        ] {
            assert_eq!(canonical(bad), None, "{bad}");
        }
        assert_eq!(canonical(&format!("cn={}", "x".repeat(DN_BYTES_MAX))), None);
    }

    #[test]
    fn escaped_values_come_back() {
        for value in [
            "romeo",
            "Capulet, Juliet",
            " a ",
            "#1",
            "a=b",
            "x\\y",
            "\"q\"",
            "<>;+",
            "nul\0nul",
            "ö ж",
            " ",
            "a b",
        ] {
            let dn = format!("cn={},dc=x", escape(value));
            let parsed = parse(&dn).unwrap();
            assert_eq!(parsed.len(), 2, "{dn}");
            assert_eq!(parsed[0], [("cn".to_owned(), value.to_owned())], "{dn}");
            assert_eq!(rdn_value(&dn, "CN").as_deref(), Some(value));
        }
        assert_eq!(rdn_value("cn=a+uid=b,dc=x", "uid").as_deref(), Some("b"));
        assert_eq!(rdn_value("cn=a,uid=b", "uid"), None);
    }
}
