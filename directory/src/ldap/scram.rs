//! SCRAM keys as directories keep them.
//!
//! In: values of `userPassword` or `authPassword`. Out: keys.
//! Never: prints one.
//!
//! RFC 5803 has `SCRAM-SHA-256$iterations:salt$stored key:server key` in `authPassword` (RFC 3112, blanks allowed around the
//! dollars); in `userPassword` the scheme stands in braces, `{SCRAM-SHA-256}iterations:salt$...` or
//! `{SCRAM-SHA-256}iterations,salt,stored key,server key`.

use super::entry::Entry;
use xmpp::scram::{ScramHash, ScramKeys};

/// Longest value looked at, in bytes: twice what SHA-512 with the longest salt needs.
const VALUE_BYTES_MAX: usize = 1_024;

/// The keys of an entry.
pub(super) fn keys(entry: &Entry, attribute: &str) -> Vec<ScramKeys> {
    entry
        .strings(attribute)
        .filter(|value| value.len() <= VALUE_BYTES_MAX)
        .filter_map(read)
        .collect()
}

/// The keys for one hash.
pub(super) fn keys_for(entry: &Entry, attribute: &str, hash: ScramHash) -> Option<ScramKeys> {
    keys(entry, attribute).into_iter().find(|k| k.hash == hash)
}

fn read(value: &str) -> Option<ScramKeys> {
    let bare: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let text = match bare.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((scheme, rest)) if rest.contains('$') => {
            format!("{}${rest}", scheme.to_ascii_uppercase())
        }
        Some((scheme, rest)) => format!("{{{}}}{rest}", scheme.to_ascii_uppercase()),
        None => bare,
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive_account;
    use crate::ldap::entry::entry;

    #[test]
    fn every_form_is_read_and_other_passwords_are_none() {
        let made = derive_account("pencil", 4_096, &[ScramHash::Sha256]).unwrap();
        let text = made[0].text().to_string();
        let fields: Vec<&str> = text
            .trim_start_matches("{SCRAM-SHA-256}")
            .split(',')
            .collect();
        let rfc = format!("{}:{}${}:{}", fields[0], fields[1], fields[2], fields[3]);
        let spaced = format!(
            "SCRAM-SHA-256 $ {}:{} $ {}:{}",
            fields[0], fields[1], fields[2], fields[3]
        );
        for value in [
            text.clone(),
            format!("SCRAM-SHA-256${rfc}"),
            format!("{{SCRAM-SHA-256}}{rfc}"),
            format!("{{scram-sha-256}}{rfc}"),
            spaced,
        ] {
            let e = entry("cn=a", &[("userPassword", &["{SSHA}abc", &value])]);
            let found = keys_for(&e, "userpassword", ScramHash::Sha256).expect(&value);
            assert!(found.matches("pencil") && !found.matches("Pencil"));
            assert_eq!(keys_for(&e, "userpassword", ScramHash::Sha1), None);
        }
        for value in [
            "",
            "secret",
            "{SSHA}abc",
            "{CRYPT}$6$a$b",
            "{SCRAM-SHA-256}1:2$3:4",
            "{}$",
            "{SCRAM-SHA-256}",
        ] {
            assert_eq!(
                keys(
                    &entry("cn=a", &[("userPassword", &[value])]),
                    "userPassword"
                ),
                []
            );
        }
    }
}
