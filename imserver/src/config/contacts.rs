//! Contact addresses of a domain as they are written in `[[domain]]`: URIs of those who answer for it (XEP-0157).

use super::file::{DomainFile, File};
use super::reader::Reader;
use crate::settings::{Contact, Contacts};
use std::collections::HashMap;
use xmpp::jid::{BareJid, Jid};

/// Addresses of one kind: people are told how to reach somebody, not everybody.
const ADDRESSES_MAX: usize = 20;
/// Bytes of an address: all of them are in every answer of the domain about itself.
const ADDRESS_BYTES_MAX: usize = 1_000;

/// The keys of a domain, by the field of the form that each fills.
fn kinds(
    section: &DomainFile,
) -> [(
    &'static str,
    &Option<super::reader::Written<super::reader::Strings>>,
); 7] {
    [
        ("abuse-addresses", &section.abuse_addresses),
        ("admin-addresses", &section.admin_addresses),
        ("feedback-addresses", &section.feedback_addresses),
        ("sales-addresses", &section.sales_addresses),
        ("security-addresses", &section.security_addresses),
        ("status-addresses", &section.status_addresses),
        ("support-addresses", &section.support_addresses),
    ]
}

/// Those of every domain that has any.
pub(super) fn contacts(reader: &mut Reader, file: &File) -> Contacts {
    let mut out = Contacts::new();
    for section in &file.domain {
        let mut of_domain = Vec::new();
        for (field, written) in kinds(section) {
            let Some(written) = written else { continue };
            let addresses = &written.value.0;
            if addresses.len() > ADDRESSES_MAX {
                reader.wrong(
                    &written.at,
                    format!("has more than {ADDRESSES_MAX} addresses"),
                );
            }
            for (n, address) in addresses.iter().enumerate() {
                if let Err(why) = check(address) {
                    reader.wrong(&written.at, format!("{address:?} {why}"));
                }
                if addresses[..n].contains(address) {
                    reader.wrong(&written.at, format!("{address:?} is listed twice"));
                }
            }
            if !addresses.is_empty() {
                let addresses = addresses.clone();
                of_domain.push(Contact { field, addresses });
            }
        }
        let name = section.name.as_ref();
        let name = name.and_then(|name| crate::policy::domain(&name.value));
        if let (Some(name), false) = (name, of_domain.is_empty()) {
            out.insert(name, of_domain);
        }
    }
    out
}

/// Accounts of ours that are told of reports, by the domain whose people make them.
pub(super) fn reports_to(
    reader: &mut Reader,
    file: &File,
    domains: &[String],
) -> HashMap<String, Vec<BareJid>> {
    let mut out = HashMap::new();
    for section in &file.domain {
        let Some(written) = &section.reports_to else {
            continue;
        };
        let addresses = &written.value.0;
        if addresses.len() > ADDRESSES_MAX {
            reader.wrong(
                &written.at,
                format!("has more than {ADDRESSES_MAX} addresses"),
            );
        }
        let mut accounts: Vec<BareJid> = Vec::new();
        for address in addresses {
            match BareJid::parse(address) {
                Ok(jid) if accounts.contains(&jid) => {
                    reader.wrong(&written.at, format!("{address:?} is listed twice"));
                }
                Ok(jid) if jid.localpart().is_some() && serves(domains, &jid) => accounts.push(jid),
                _ => reader.wrong(
                    &written.at,
                    format!("{address:?} is no account of this server: admin@example.org is one"),
                ),
            }
        }
        let name = section.name.as_ref();
        if let Some(name) = name.and_then(|name| crate::policy::domain(&name.value)) {
            out.insert(name, accounts);
        }
    }
    out
}

fn serves(domains: &[String], jid: &BareJid) -> bool {
    domains.iter().any(|d| d == jid.domainpart())
}

/// Whether it is a URI (RFC 3986 §3) that a client can open.
fn check(address: &str) -> Result<(), &'static str> {
    let scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = address
        .split_once(':')
        .filter(|(s, rest)| scheme(s) && !rest.is_empty())
        .ok_or(
            "is no URI: mailto:abuse@example.org, xmpp:admin@example.org or https://... is one",
        )?;
    if address.len() > ADDRESS_BYTES_MAX {
        return Err("is too long");
    }
    if !address
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
    {
        return Err("has characters that must be written as %XX in a URI");
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "mailto" if !path.contains('@') => Err("is not of the form mailto:name@domain"),
        // RFC 5122: what is escaped is for the client to read.
        "xmpp" if !path.contains('%') && Jid::parse(path).is_err() => {
            Err("is not of the form xmpp:name@domain")
        }
        "http" | "https" if !path.starts_with("//") || path.len() == 2 => {
            Err("is not of the form https://host/...")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn contact_addresses_are_uris() {
        for good in [
            "mailto:abuse@example.org",
            "mailto:abuse@example.org?subject=x%20y",
            "xmpp:admin@example.org",
            "xmpp:admins@example.org?message",
            "xmpp:n%C3%A4he@example.org",
            "https://example.org/support",
            "tel:+49-30-1234",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("https://example.org/{}", "x".repeat(1_000));
        for (bad, why) in [
            ("abuse@example.org", "is no URI"),
            ("", "is no URI"),
            ("mailto:", "is no URI"),
            ("1mail:a@b", "is no URI"),
            ("mailto:abuse", "is not of the form mailto:"),
            ("xmpp:@example.org", "is not of the form xmpp:"),
            ("https:example.org", "is not of the form https:"),
            ("https://", "is not of the form https:"),
            ("https://example.org/a b", "has characters"),
            ("https://ex\u{e4}mple.org/", "has characters"),
            (&long, "is too long"),
        ] {
            let error = check(bad).expect_err(bad);
            assert!(error.starts_with(why), "{bad}: {error}");
        }
    }
}
