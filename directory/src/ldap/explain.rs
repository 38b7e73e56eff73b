//! `imadmin directory test`: every step from a login name to a verdict, for an administrator.
//!
//! Never: a password or a key.

use super::entry::Entry;
use super::link::Query;
use super::pool::Manner;
use super::{LdapDirectory, Verdict, people, scram};
use crate::backend::ExplainStep;
use ldap3::Scope;
use std::time::{Instant, SystemTime};
use xmpp::sasl::LoginName;

fn joined(texts: &[String], with: &str) -> String {
    match texts.is_empty() {
        true => "none".to_owned(),
        false => texts.join(with),
    }
}

impl LdapDirectory {
    /// Without a verdict: that is made of what all directories of the domain say.
    pub(super) fn explained(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        let step = |what: &str, answer: String| ExplainStep::new(what, answer);
        let filter = self.config.login_filter(login);
        let mut steps = vec![
            step("login name", login.to_string()),
            step("bases", self.config.bases.join("; ")),
            step("filter", filter.clone()),
        ];
        let began = Instant::now();
        let (entries, host) = match self.find(&filter, &self.login_attributes()) {
            Ok(found) => found,
            // Whoever makes the verdict hears of it too.
            Err(_) => return steps,
        };
        let took = format!(
            "{}, in {} ms",
            self.servers.name(host),
            began.elapsed().as_millis()
        );
        steps.push(step("server", took));
        let mut fitting = Vec::new();
        for entry in entries {
            steps.push(step("entry", entry.dn.clone()));
            if !self.config.is_of(&entry, login) {
                let other = "another name that the server counts as equal: not this one";
                steps.push(step("entry", other.to_owned()));
                continue;
            }
            let address = match self.config.jid_of(&entry, login.domain()) {
                Ok(jid) => {
                    let text = format!("{} (from {})", jid.as_str(), self.config.jid);
                    fitting.push((entry, jid));
                    text
                }
                Err(why) => format!("none: {} {why}", self.config.jid),
            };
            steps.push(step("address", address));
        }
        self.prefer_named(&mut fitting, login);
        let (entry, jid) = match (fitting.pop(), fitting.len()) {
            (None, _) => return steps,
            (Some(_), 1..) => {
                let several = "several for one login name: it is nobody's".to_owned();
                steps.push(step("entries", several));
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
            steps.push(step(&format!("attribute {field}"), joined(&values, ", ")));
        }
        let photo = self
            .photo_of_dn(&entry.dn)
            .unwrap_or_else(|error| error.to_string());
        steps.push(step("attribute photo", photo));
        if let Some(attribute) = &self.config.scram_attribute {
            let hashes: Vec<String> = scram::keys(&entry, attribute)
                .iter()
                .map(|k| k.hash.mechanism().to_owned())
                .collect();
            steps.push(step(&format!("keys in {attribute}"), joined(&hashes, " ")));
        }
        let disabled = people::disabled(&entry, now).map(|d| d.why);
        let (may, no) = match (disabled, self.is_filtered(&entry)) {
            (Some(why), _) => (format!("no: {why}"), true),
            (None, Ok(true)) => ("no: disabled_filter fits".to_owned(), true),
            (None, Ok(false)) => ("yes".to_owned(), false),
            (None, Err(error)) => (error.to_string(), true),
        };
        steps.push(step("enabled in the directory", may).failing(no));
        if let Some(password) = password {
            let (answer, good) = self.explained_password(&entry, password);
            steps.push(step("password", answer).failing(!good));
        }
        if let Some(why) = self.groups_fault() {
            steps.push(step("groups of the directory", why));
        }
        steps
    }

    /// In words, and whether it is good for a log-in.
    fn explained_password(&self, entry: &Entry, password: &str) -> (String, bool) {
        let keys = self
            .config
            .scram_attribute
            .as_ref()
            .and_then(|a| scram::keys(entry, a).into_iter().next());
        match keys {
            _ if password.is_empty() => ("empty: never right".to_owned(), false),
            Some(keys) if keys.matches(password) => ("right (by SCRAM keys)".to_owned(), true),
            Some(_) => ("wrong (by SCRAM keys)".to_owned(), false),
            None => match self.bind(&entry.dn, password) {
                Ok(Verdict::Right) => ("right".to_owned(), true),
                Ok(Verdict::RightBut(_, why)) => (format!("right, but {why}"), false),
                Ok(Verdict::Wrong) => ("wrong, or the account is locked".to_owned(), false),
                Ok(Verdict::Unwilling(text)) => {
                    (format!("the server does not say: {text:?}"), false)
                }
                Err(error) => (error.to_string(), false),
            },
        }
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
