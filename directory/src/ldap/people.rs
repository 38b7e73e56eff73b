//! From login names and addresses to filters, and from entries to people.
//!
//! In: login names, addresses, entries, the time. Out: filters, people.
//! Never: I/O; takes an entry for somebody because a server found it similar: names are compared again here.

use super::config::{JidForm, LdapConfig};
use super::entry::Entry;
use super::{dn, filter};
use crate::backend::{Person, Photo, Profile, SearchQuery};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::saslprep;

/// Most mail addresses or telephone numbers of one person handed on.
const CONTACTS_MAX: usize = 20;

/// Most words of a search taken one by one.
const WORDS_MAX: usize = 8;

/// Why an entry is nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NoAddress {
    /// The attribute is not there, or not readable.
    Missing,
    /// What it says is no localpart, or no address.
    NotOne(String),
    /// An address of another domain.
    Elsewhere(String),
}

impl std::fmt::Display for NoAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoAddress::Missing => f.write_str("is missing, or the service account may not read it"),
            NoAddress::NotOne(value) => write!(f, "{value:?} cannot be part of an address"),
            NoAddress::Elsewhere(value) => write!(f, "{value} is not of this domain"),
        }
    }
}

/// Why somebody may not log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disabled {
    pub why: String,
    /// Not just for a while after wrong passwords. Sessions end only for lasting reasons: else a stranger who guesses
    /// passwords could end them.
    pub lasting: bool,
}

impl LdapConfig {
    /// The texts a login name is looked for as, with the attribute.
    pub(super) fn login_values<'a>(&'a self, login: &'a LoginName) -> Vec<(&'a str, String)> {
        let name = login.name();
        let local = name
            .rsplit_once('@')
            .filter(|(local, domain)| {
                !local.is_empty() && domain.eq_ignore_ascii_case(login.domain())
            })
            .map(|(local, _)| local);
        let mut values = Vec::new();
        for attribute in &self.login {
            values.push((attribute.as_str(), name.to_owned()));
            if let Some(local) = local {
                values.push((attribute.as_str(), local.to_owned()));
            }
            if self.holds_addresses(attribute) && !name.contains('@') {
                values.push((attribute.as_str(), format!("{name}@{}", login.domain())));
            }
        }
        values
    }

    /// Its values are addresses. A client that is told one sends what stands before the @ (RFC 6120 §6.3.8), so that is looked
    /// for with the domain too.
    fn holds_addresses(&self, attribute: &str) -> bool {
        const ADDRESSES: [&str; 2] = ["mail", "userPrincipalName"];
        ADDRESSES.iter().any(|a| attribute.eq_ignore_ascii_case(a))
            || self.jid_form == JidForm::Address && attribute.eq_ignore_ascii_case(&self.jid)
    }

    /// Whether an entry has the very name that was typed, not only one with the domain added to it. If one has it, it is theirs:
    /// somebody else's mail address takes no login name away.
    pub(super) fn is_named(&self, entry: &Entry, login: &LoginName) -> bool {
        let wanted = folded(login.name());
        let mut texts = self.login.iter().flat_map(|a| entry.texts(a));
        texts.any(|text| folded(&text) == wanted)
    }

    /// Finds whoever logs in with this name.
    pub(super) fn login_filter(&self, login: &LoginName) -> String {
        let values = self.login_values(login);
        let names = values
            .iter()
            .map(|(attribute, value)| filter::equals(attribute, value));
        filter::all([self.user_filter.clone(), filter::any(names)])
    }

    /// Whether an entry that was found is of this name: a server may count `jose` and `josé` as equal. Where none of the
    /// attributes can be read, the server's word is taken.
    pub(super) fn is_of(&self, entry: &Entry, login: &LoginName) -> bool {
        let wanted: Vec<(&str, String)> = self
            .login_values(login)
            .into_iter()
            .map(|(attribute, value)| (attribute, folded(&value)))
            .collect();
        let readable = self.login.iter().any(|a| entry.texts(a).next().is_some());
        !readable
            || wanted.iter().any(|(attribute, value)| {
                entry.texts(attribute).any(|text| folded(&text) == *value)
            })
    }

    /// Finds somebody by address.
    pub(super) fn jid_filter(&self, jid: &BareJid) -> Option<String> {
        let value = match self.jid_form {
            JidForm::Localpart => jid.localpart()?,
            JidForm::Address => jid.as_str(),
        };
        Some(filter::all([
            self.user_filter.clone(),
            filter::equals(&self.jid, value),
        ]))
    }

    /// The address of an entry at a domain.
    pub(super) fn jid_of(&self, entry: &Entry, domain: &str) -> Result<BareJid, NoAddress> {
        let mut values: Vec<String> = entry.texts(&self.jid).collect();
        // The order of values means nothing (RFC 4512 §2.2), and an address must not change by itself: the value in the entry's
        // name comes first, then alphabetically.
        values.sort_unstable();
        if let Some(named) = dn::rdn_value(&entry.dn, &self.jid)
            && let Some(at) = values.iter().position(|v| *v == named)
        {
            let named = values.remove(at);
            values.insert(0, named);
        }
        let mut why = NoAddress::Missing;
        for value in values {
            let jid = match self.jid_form {
                JidForm::Localpart => BareJid::from_parts(Some(&value), domain),
                JidForm::Address => BareJid::parse(&value),
            };
            match jid {
                Ok(jid) if jid.localpart().is_none() => why = NoAddress::NotOne(value),
                Ok(jid) if jid.domainpart() == domain => return Ok(jid.to_compact()),
                Ok(_) => why = NoAddress::Elsewhere(value),
                Err(_) => why = NoAddress::NotOne(value),
            }
        }
        Err(why)
    }

    /// Somebody.
    pub(super) fn person(&self, entry: &Entry, jid: BareJid, now: SystemTime) -> Person {
        Person {
            jid,
            disabled: disabled(entry, now).is_some(),
            reference: entry.dn.clone(),
            profile: self.profile(entry),
        }
    }

    fn profile(&self, entry: &Entry) -> Profile {
        let a = &self.attributes;
        let all = |attributes: &[String]| {
            let mut texts: Vec<String> = Vec::new();
            for text in attributes.iter().flat_map(|a| entry.texts(a)) {
                if texts.len() < CONTACTS_MAX && !texts.contains(&text) {
                    texts.push(text);
                }
            }
            texts
        };
        Profile {
            name: entry.first(&a.name),
            given_name: entry.first(&a.given_name),
            family_name: entry.first(&a.family_name),
            mail: all(&a.mail),
            phone: all(&a.phone),
            title: entry.first(&a.title),
            organisation: entry.first(&a.organisation),
            unit: entry.first(&a.unit),
            home: entry.first(&a.home),
        }
    }

    /// The picture of an entry: none if it is too large or of no known kind.
    pub(super) fn photo_of(&self, entry: &Entry) -> Option<Photo> {
        let values = self.attributes.photo.iter().flat_map(|a| entry.values(a));
        values
            .filter(|bytes| bytes.len() <= self.photo_bytes_max)
            .find_map(|bytes| {
                Some(Photo {
                    media_type: media_type(bytes)?,
                    bytes: Arc::from(bytes.as_slice()),
                })
            })
    }

    /// Finds people of a domain by what others know of them. Every value is escaped; `*` means something only at the end.
    pub(super) fn search_filter(&self, domain: &str, query: &SearchQuery) -> String {
        let a = &self.attributes;
        let own = std::slice::from_ref(&self.jid);
        let mut parts = vec![self.user_filter.clone()];
        parts.push(match self.jid_form {
            JidForm::Localpart => filter::present(&self.jid),
            JidForm::Address => filter::ends(&self.jid, &format!("@{domain}")),
        });
        if let Some(text) = wanted(query.any.as_ref()) {
            let everywhere: Vec<&String> = [&a.name, &a.given_name, &a.family_name, &a.mail]
                .into_iter()
                .flatten()
                .chain(own)
                .collect();
            let whole = one_of(&everywhere, text);
            let words: Vec<&str> = text.split_whitespace().take(WORDS_MAX).collect();
            parts.push(if words.len() > 1 {
                let each = words.iter().map(|word| one_of(&everywhere, word));
                filter::any([whole, filter::all(each)])
            } else {
                whole
            });
        }
        let fields = [
            (&query.given_name, a.given_name.iter().collect::<Vec<_>>()),
            (&query.family_name, a.family_name.iter().collect()),
            (&query.nickname, a.name.iter().chain(own).collect()),
            (&query.mail, a.mail.iter().collect()),
        ];
        for (value, attributes) in fields {
            if let Some(text) = wanted(value.as_ref()) {
                parts.push(one_of(&attributes, text));
            }
        }
        filter::all(parts)
    }
}

fn wanted(text: Option<&String>) -> Option<&str> {
    text.map(|t| t.trim()).filter(|t| !t.is_empty())
}

fn one_of(attributes: &[&String], text: &str) -> String {
    let each = attributes
        .iter()
        .map(|attribute| match text.strip_suffix('*') {
            Some("") => filter::present(attribute),
            Some(start) => filter::begins(attribute, start),
            None => filter::equals(attribute, text),
        });
    filter::any(each)
}

fn folded(text: &str) -> String {
    match saslprep(text) {
        Ok(prepared) => prepared.to_lowercase(),
        Err(_) => text.to_lowercase(),
    }
}

/// The kind of a picture, by its first bytes. Nothing that a browser would take for a document.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("image/webp"),
        _ => None,
    }
}

/// `ADS_UF_ACCOUNTDISABLE` of userAccountControl ([MS-ADTS] §2.2.16).
const UAC_DISABLED: u32 = 0x2;
/// `ADS_UF_LOCKOUT`, in the computed attribute.
const UAC_LOCKED: u32 = 0x10;
/// Seconds from 1601, where Active Directory's time begins, to 1970.
const FILETIME_TO_UNIX_S: u64 = 11_644_473_600;
/// pwdAccountLockedTime of an account that an administrator has locked (draft-behera-ldap-password-policy §5.3.3).
const LOCKED_FOR_GOOD: &str = "000001010000Z";

/// Whether an entry says that its owner may not log in.
pub(super) fn disabled(entry: &Entry, now: SystemTime) -> Option<Disabled> {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let first = |attribute: &str| entry.texts(attribute).next();
    let lasting = |why: &str| {
        Some(Disabled {
            why: why.to_owned(),
            lasting: true,
        })
    };
    // A signed number in the protocol.
    let bits = |attribute: &str| {
        first(attribute)
            .and_then(|text| text.parse::<i64>().ok())
            .map(|n| (n & 0xffff_ffff) as u32)
    };
    if bits("userAccountControl").is_some_and(|n| n & UAC_DISABLED != 0) {
        return lasting("userAccountControl has ACCOUNTDISABLE");
    }
    if let Some(expires) = first("accountExpires").and_then(|t| t.parse::<u64>().ok())
        && expires != 0
        && i64::try_from(expires).is_ok_and(|n| n != i64::MAX)
        && expires / 10_000_000 <= now.saturating_add(FILETIME_TO_UNIX_S)
    {
        return lasting("accountExpires is past");
    }
    // As pam_unix has it: the day itself is already too late, and only a negative number means never.
    if let Some(day) = first("shadowExpire").and_then(|t| t.parse::<i64>().ok())
        && day >= 0
        && now / 86_400 >= day.unsigned_abs()
    {
        return lasting("shadowExpire is past");
    }
    if first("nsAccountLock").is_some_and(|t| t.eq_ignore_ascii_case("true")) {
        return lasting("nsAccountLock is TRUE");
    }
    if let Some(end) = first("pwdEndTime").and_then(|t| generalized_time(&t))
        && end <= now
    {
        return lasting("pwdEndTime is past");
    }
    // Any other time stays in the entry after the lock is over, and how long that takes is in a policy not read here: then the
    // server decides, at the bind.
    if first("pwdAccountLockedTime").as_deref() == Some(LOCKED_FOR_GOOD) {
        return lasting("pwdAccountLockedTime: locked by an administrator");
    }
    if bits("msDS-User-Account-Control-Computed").is_some_and(|n| n & UAC_LOCKED != 0) {
        return Some(Disabled {
            why: "locked after wrong passwords".to_owned(),
            lasting: false,
        });
    }
    None
}

/// Seconds since 1970 of a GeneralizedTime in UTC (RFC 4517 §3.3.13), `YYYYMMDDHHMM[SS[.f]]Z`.
fn generalized_time(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z')?;
    let digits = digits.split(['.', ',']).next()?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 10 | 12 | 14) {
        return None;
    }
    let number = |from: usize, to: usize| {
        digits
            .get(from..to)
            .map_or(Some(0), |t| t.parse::<i64>().ok())
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day
            - 1;
    let seconds =
        (days - 719_468) * 86_400 + number(8, 10)? * 3_600 + number(10, 12)? * 60 + number(12, 14)?;
    u64::try_from(seconds).ok()
}

#[cfg(test)]
#[path = "people_tests.rs"]
mod tests;
