//! What is written into a directory: new entries and other passwords. Off unless the configuration wants it.
//!
//! Never: asks twice; leaves an entry behind that has no password; makes the login name of somebody another's as well; sends a password over a connection without TLS to a server
//! on another host (the configuration sees to that).

use super::config::{Product, RegisterConfig};
use super::link::{Fault, Link, Query, code, refused};
use super::pool::Manner;
use super::{LdapDirectory, dn, filter};
use crate::DirectoryError;
use crate::backend::{Registered, Registration};
use ldap3::exop::PasswordModify;
use ldap3::{LdapResult, Mod, Scope};
use std::collections::HashSet;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;

impl LdapDirectory {
    pub(super) fn registered(&self, new: &Registration) -> Result<Registered, DirectoryError> {
        let (Some(config), Some(localpart)) = (&self.config.register, new.jid.localpart()) else {
            return Ok(Registered::NotHere);
        };
        let dn = format!("{}={},{}", config.rdn, dn::escape(localpart), config.base);
        let attributes = self.attributes_of(config, new, localpart);
        let own = [localpart, new.jid.as_str()];
        let domain = new.jid.domainpart();
        let name = self.names_filter(&attributes, domain, |value| own.contains(&value));
        let others = self.names_filter(&attributes, domain, |value| !own.contains(&value));
        let (registered, _) = self.searching.ask(Manner::Once, |link| {
            if self.is_found(link, name.as_deref())? {
                return Ok(Registered::Exists);
            }
            if self.is_found(link, others.as_deref())? {
                return Ok(Registered::Refused(
                    "somebody else logs in with this name or mail address".to_owned(),
                ));
            }
            let added = link.ask(|conn| conn.add(&dn, attributes.clone()))?;
            match added.rc {
                code::SUCCESS => {}
                code::ENTRY_ALREADY_EXISTS => return Ok(Registered::Exists),
                _ => return answer("making an entry", &added),
            }
            match set_password(link, &dn, &new.password) {
                Ok(Registered::Done) => Ok(Registered::Done),
                other => {
                    // An entry that nobody can log in with would only be in the way of the next attempt.
                    let _ = link.ask(|conn| conn.delete(&dn));
                    other
                }
            }
        })?;
        if registered == Registered::Done {
            tracing::info!(
                directory = self.config.name,
                dn,
                account = new.jid.as_str(),
                "a new entry was made"
            );
        }
        Ok(registered)
    }

    /// Finds whoever logs in with a value that the new entry would have as well: a name of two is nobody's, so a stranger who gives
    /// somebody else's mail address would lock them out.
    fn names_filter(
        &self,
        attributes: &[(String, HashSet<String>)],
        domain: &str,
        which: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let login = &self.config.login;
        let is_login = |attribute: &str| login.iter().any(|l| l.eq_ignore_ascii_case(attribute));
        let values = attributes.iter().filter(|(a, _)| is_login(a));
        let taken: Vec<String> = values
            .flat_map(|(_, values)| values)
            .filter(|value| which(value))
            .flat_map(|value| self.name_filters(value, domain))
            .collect();
        (!taken.is_empty()).then(|| filter::all([&self.config.user_filter, &filter::any(taken)]))
    }

    /// Each way in which a log-in with this name would find somebody: with and without the domain.
    fn name_filters(&self, value: &str, domain: &str) -> Vec<String> {
        let equals = |(attribute, value): (&str, String)| filter::equals(attribute, &value);
        match LoginName::new(value, domain) {
            Ok(name) => self
                .config
                .login_values(&name)
                .into_iter()
                .map(equals)
                .collect(),
            Err(_) => {
                let login = self.config.login.iter();
                login.map(|l| filter::equals(l, value)).collect()
            }
        }
    }

    fn is_found(&self, link: &mut Link, filter: Option<&str>) -> Result<bool, Fault> {
        let Some(filter) = filter else {
            return Ok(false);
        };
        for base in &self.config.bases {
            let query = Query {
                base: base.clone(),
                scope: Scope::Subtree,
                filter: filter.to_owned(),
                attributes: vec!["1.1".to_owned()],
            };
            let found = link.search(&query, Some(1))?;
            if found.more || !found.entries.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn attributes_of(
        &self,
        config: &RegisterConfig,
        new: &Registration,
        localpart: &str,
    ) -> Vec<(String, HashSet<String>)> {
        let name = new
            .name
            .as_deref()
            .and_then(super::entry::clean)
            .unwrap_or_else(|| localpart.to_owned());
        // `sn` is required of every person (RFC 4519 §3.12); what of a name it is cannot be known.
        let family = name.rsplit(' ').next().unwrap_or(&name).to_owned();
        let address = new.jid.as_str().to_owned();
        let mail = new
            .mail
            .as_deref()
            .and_then(super::entry::clean)
            .filter(|m| m.contains('@'));
        let jid = match self.config.jid_form {
            super::config::JidForm::Localpart => localpart.to_owned(),
            super::config::JidForm::Address => address,
        };
        let mut attributes: Vec<(String, HashSet<String>)> = vec![
            (
                "objectClass".to_owned(),
                config.classes.iter().cloned().collect(),
            ),
            ("cn".to_owned(), HashSet::from([name.clone()])),
            ("sn".to_owned(), HashSet::from([family])),
        ];
        let mut add = |attribute: &str, value: String| match attributes
            .iter_mut()
            .find(|(a, _)| a.eq_ignore_ascii_case(attribute))
        {
            Some((_, values)) => drop(values.insert(value)),
            None => attributes.push((attribute.to_owned(), HashSet::from([value]))),
        };
        add(&config.rdn, localpart.to_owned());
        add(&self.config.jid, jid);
        if let Some(mail) = mail
            && !self.config.jid.eq_ignore_ascii_case("mail")
        {
            add("mail", mail);
        }
        attributes
    }

    pub(super) fn password_changed(
        &self,
        jid: &BareJid,
        password: &str,
    ) -> Result<Registered, DirectoryError> {
        if !self.config.change_password {
            return Ok(Registered::NotHere);
        }
        if password.is_empty() {
            return Ok(Registered::Refused("an empty password".to_owned()));
        }
        let Some(found) = self.by_jid(jid, &self.config.person_attributes())? else {
            return Ok(Registered::NotHere);
        };
        let dn = found.entry.dn;
        let (registered, _) =
            self.searching
                .ask(Manner::Once, |link| match self.config.product {
                    Product::Ldap => set_password(link, &dn, password),
                    Product::ActiveDirectory => set_unicode_password(link, &dn, password),
                })?;
        Ok(registered)
    }
}

/// RFC 3062: the server hashes it as its administrator wants.
fn set_password(link: &mut Link, dn: &str, password: &str) -> Result<Registered, Fault> {
    let request = PasswordModify {
        user_id: Some(dn),
        old_pass: None,
        new_pass: Some(password),
    };
    let result = link.ask(|conn| conn.extended(request))?.1;
    answer("setting a password", &result)
}

/// [MS-ADTS] §3.1.1.3.1.5: the attribute unicodePwd, in quotes, UTF-16.
fn set_unicode_password(link: &mut Link, dn: &str, password: &str) -> Result<Registered, Fault> {
    let quoted: Vec<u8> = format!("\"{password}\"")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let change = Mod::Replace(b"unicodePwd".to_vec(), HashSet::from([quoted]));
    let result = link.ask(|conn| conn.modify(dn, vec![change]))?;
    answer("setting a password", &result)
}

/// A policy's refusal is for the person to read; anything else is not theirs to mend.
fn answer(doing: &str, result: &LdapResult) -> Result<Registered, Fault> {
    match result.rc {
        code::SUCCESS => Ok(Registered::Done),
        code::CONSTRAINT_VIOLATION | code::UNWILLING_TO_PERFORM => {
            let text = super::entry::clean(&result.text);
            Ok(Registered::Refused(text.unwrap_or_else(|| {
                "the directory does not accept it".to_owned()
            })))
        }
        _ => Err(refused(doing, result)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::LdapConfig;
    use super::*;

    #[test]
    fn a_new_entry_has_what_its_classes_require() {
        let directory = LdapDirectory::new(LdapConfig::usual("corp", Product::Ldap)).unwrap();
        let config = RegisterConfig {
            base: "ou=people,dc=x".into(),
            rdn: "uid".into(),
            classes: vec!["inetOrgPerson".into()],
        };
        let new = |name: Option<&str>, mail: Option<&str>| Registration {
            jid: BareJid::parse("new@x.example").unwrap(),
            password: "pencil".into(),
            name: name.map(str::to_owned),
            mail: mail.map(str::to_owned),
        };
        let of = |new: &Registration, attribute: &str| {
            let all = directory.attributes_of(&config, new, "new");
            assert!(
                !format!("{all:?}").contains("pencil"),
                "the password goes another way"
            );
            all.into_iter()
                .find(|(a, _)| a == attribute)
                .map(|(_, v)| v.into_iter().collect::<Vec<_>>().join(" "))
        };
        let named = new(Some("Ann Bell"), Some("ann@mail.example"));
        assert_eq!(of(&named, "cn").as_deref(), Some("Ann Bell"));
        assert_eq!(of(&named, "sn").as_deref(), Some("Bell"));
        assert_eq!(of(&named, "uid").as_deref(), Some("new"));
        assert_eq!(of(&named, "mail").as_deref(), Some("ann@mail.example"));
        let bare = new(Some("\u{1}"), Some("no address"));
        assert_eq!(of(&bare, "sn").as_deref(), Some("new"));
        assert_eq!(of(&bare, "mail"), None);
    }
}
