//! `imadmin directory test`: every step from a login name to a verdict, for an administrator.
//!
//! Never: a password or a key.

use super::link::Query;
use super::pool::Manner;
use super::{LdapDirectory, Verdict, people, scram};
use crate::backend::ExplainStep;
use ldap3::Scope;
use std::time::{Instant, SystemTime};
use xmpp::sasl::LoginName;

impl LdapDirectory {
    pub(super) fn explained(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        let mut steps = Vec::new();
        let mut step = |what: &str, answer: String| {
            steps.push(ExplainStep {
                what: what.to_owned(),
                answer,
            });
        };
        let filter = self.config.login_filter(login);
        step("login name", login.to_string());
        step("bases", self.config.bases.join("; "));
        step("filter", filter.clone());
        let began = Instant::now();
        let (entries, host) = match self.find(&filter, &self.login_attributes()) {
            Ok(found) => found,
            Err(error) => {
                step("verdict", format!("{error}; logging in fails for now"));
                return steps;
            }
        };
        step(
            "server",
            format!(
                "{}, in {} ms",
                self.servers.name(host),
                began.elapsed().as_millis()
            ),
        );
        let mut fitting = Vec::new();
        for entry in entries {
            step("entry", entry.dn.clone());
            if !self.config.is_of(&entry, login) {
                step(
                    "entry",
                    "another name that the server counts as equal: not this one".to_owned(),
                );
                continue;
            }
            match self.config.jid_of(&entry, login.domain()) {
                Ok(jid) => {
                    step(
                        "address",
                        format!("{} (from {})", jid.as_str(), self.config.jid),
                    );
                    fitting.push((entry, jid));
                }
                Err(why) => step("address", format!("none: {} {why}", self.config.jid)),
            }
        }
        let (entry, jid) = match (fitting.pop(), fitting.len()) {
            (None, _) => {
                step("verdict", "nobody here".to_owned());
                return steps;
            }
            (Some(_), 1..) => {
                step(
                    "verdict",
                    "several entries for one login name: nobody".to_owned(),
                );
                return steps;
            }
            (Some(only), 0) => only,
        };
        let now = SystemTime::now();
        let profile = self.config.person(&entry, jid.clone(), now).profile;
        let fields = [
            ("name", profile.name.into_iter().collect()),
            ("mail", profile.mail),
            ("phone", profile.phone),
            ("title", profile.title.into_iter().collect()),
            ("organisation", profile.organisation.into_iter().collect()),
            ("unit", profile.unit.into_iter().collect()),
            ("home", profile.home.into_iter().collect()),
        ];
        for (field, values) in fields {
            let values: Vec<String> = values;
            let shown = if values.is_empty() {
                "none".to_owned()
            } else {
                values.join(", ")
            };
            step(&format!("attribute {field}"), shown);
        }
        match self.photo_of_dn(&entry.dn) {
            Ok(photo) => step("attribute photo", photo),
            Err(error) => step("attribute photo", error.to_string()),
        }
        if let Some(attribute) = &self.config.scram_attribute {
            let hashes: Vec<&str> = scram::keys(&entry, attribute)
                .iter()
                .map(|k| k.hash.mechanism())
                .collect();
            let shown = if hashes.is_empty() {
                "none".to_owned()
            } else {
                hashes.join(" ")
            };
            step(&format!("keys in {attribute}"), shown);
        }
        let disabled = people::disabled(&entry, now).map(|d| d.why);
        let filtered = self.is_filtered(&entry);
        match (disabled, filtered) {
            (Some(why), _) => step("may log in", format!("no: {why}")),
            (None, Ok(true)) => step("may log in", "no: disabled_filter fits".to_owned()),
            (None, Ok(false)) => step("may log in", "yes".to_owned()),
            (None, Err(error)) => step("may log in", error.to_string()),
        }
        if let Some(password) = password {
            let keys = self
                .config
                .scram_attribute
                .as_ref()
                .and_then(|a| scram::keys(&entry, a).into_iter().next());
            let answer = match keys {
                _ if password.is_empty() => "empty: never right".to_owned(),
                Some(keys) if keys.matches(password) => "right (by SCRAM keys)".to_owned(),
                Some(_) => "wrong (by SCRAM keys)".to_owned(),
                None => match self.bind(&entry.dn, password) {
                    Ok(Verdict::Right) => "right".to_owned(),
                    Ok(Verdict::RightBut(_, why)) => format!("right, but {why}"),
                    Ok(Verdict::Wrong) => "wrong, or the account is locked".to_owned(),
                    Ok(Verdict::Unwilling(text)) => format!("the server does not say: {text:?}"),
                    Err(error) => error.to_string(),
                },
            };
            step("password", answer);
        }
        steps
    }

    fn photo_of_dn(&self, dn: &str) -> Result<String, crate::DirectoryError> {
        let attributes = self.config.attributes.photo.clone();
        if attributes.is_empty() {
            return Ok("none wanted".to_owned());
        }
        let query = Query {
            base: dn.to_owned(),
            scope: Scope::Base,
            filter: super::filter::present("objectClass"),
            attributes: attributes.clone(),
        };
        let (found, _) = self
            .searching
            .ask(Manner::Again, |link| link.search(&query, Some(1)))?;
        let Some(entry) = found.entries.first() else {
            return Ok("none".to_owned());
        };
        let largest = attributes
            .iter()
            .flat_map(|a| entry.values(a))
            .map(Vec::len)
            .max();
        Ok(match (self.config.photo_of(entry), largest) {
            (Some(photo), _) => format!("{}, {} bytes", photo.media_type, photo.bytes.len()),
            (None, Some(bytes)) => format!(
                "not used: {bytes} bytes, of at most {}, or of no known kind",
                self.config.photo_bytes_max
            ),
            (None, None) => "none".to_owned(),
        })
    }
}
