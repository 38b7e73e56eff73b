//! People, groups and passwords of an LDAP directory: OpenLDAP, Active Directory, and their relatives.
//!
//! In: questions of the site. Out: what the directory says.
//! Owns: connections to its servers. Nothing of what they said: that is `cached`'s.
//! Never: says "nobody" where a server did not answer, refused, or does not know the search base; binds with an empty password;
//! follows a referral; logs a password.
//!
//! ```text
//!   config    what we are told            dn, filter, entry   the texts of LDAP
//!   people    entries → people            groups, sweep       entries → groups
//!   link, pool  connections                crate::servers     which server
//!   scram     keys in entries             write               new entries, passwords
//! ```

pub mod config;
mod dn;
mod entry;
mod explain;
pub mod filter;
mod groups;
mod link;
mod people;
mod pool;
mod scram;
mod sweep;
mod write;

pub use crate::tls::read_ca;

use crate::backend::{
    Abilities, Backend, ExplainStep, Person, Photo, Registered, Registration, SearchAnswer,
    SearchQuery, Sweep,
};
use crate::servers::Servers;
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};
use config::LdapConfig;
use entry::Entry;
use ldap3::Scope;
use link::{Dialer, Fault, Query, code};
use pool::{Manner, Pool};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::ScramHash;

/// Entries asked for where one is expected: enough to see that there are two, also where a server counts similar names as equal.
const MATCHES_MAX: u32 = 20;

/// Notes for the administrator that are said once each; a stranger may cause more.
const NOTES_MAX: usize = 200;

/// Longest time an answer about nobody is held back to take as long as one about somebody.
const PACE_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub struct LdapDirectory {
    config: LdapConfig,
    servers: Arc<Servers>,
    searching: Pool,
    checking: Pool,
    /// What has been said already.
    notes: Mutex<HashSet<String>>,
    /// How long a check of a password takes, lately.
    pace: Mutex<Option<Duration>>,
    /// People of the last sweep.
    swept: AtomicUsize,
    /// Why the last sweep that found people found no groups.
    groups_refused: Mutex<Option<String>>,
}

impl std::fmt::Debug for LdapDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LdapDirectory({:?})", self.config.name)
    }
}

/// An entry, and whose it is.
struct Match {
    entry: Entry,
    jid: BareJid,
}

impl LdapDirectory {
    /// Connects to nothing yet: a server may start before its directory.
    ///
    /// # Errors
    /// The CA's certificates are of no use.
    pub fn new(config: LdapConfig) -> Result<Self, String> {
        let dialer = Arc::new(Dialer::new(&config)?);
        let names = config.hosts.iter().map(config::HostConfig::to_string);
        let servers = Servers::new(&config.name, names, &pool::WORDS);
        let pool = |service| Pool::new(servers.clone(), dialer.clone(), service, &config);
        Ok(LdapDirectory {
            searching: pool(true),
            checking: pool(false),
            servers,
            config,
            notes: Mutex::new(HashSet::new()),
            pace: Mutex::new(None),
            swept: AtomicUsize::new(0),
            groups_refused: Mutex::new(None),
        })
    }

    /// What it was made from: a reload makes a new one only if this has changed.
    pub fn config(&self) -> &LdapConfig {
        &self.config
    }

    /// Tells the administrator something once.
    fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX && notes.insert(text.clone()) {
            tracing::warn!(directory = self.config.name, "{text}");
        }
    }

    fn heard_referrals(&self, count: usize) {
        if count > 0 {
            let text = "the directory refers to other servers for a part of the tree; referrals are not followed";
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.insert(text.to_owned()) {
                tracing::info!(directory = self.config.name, "{text}");
            }
        }
    }

    /// Entries under all bases that fit a filter, at most `MATCHES_MAX` of each.
    fn find(
        &self,
        filter: &str,
        attributes: &[String],
    ) -> Result<(Vec<Entry>, usize), DirectoryError> {
        let ((entries, referrals), host) = self.searching.ask(Manner::Again, |link| {
            let (mut entries, mut referrals) = (Vec::new(), 0);
            for base in &self.config.bases {
                let query = Query {
                    base: base.clone(),
                    scope: Scope::Subtree,
                    filter: filter.to_owned(),
                    attributes: attributes.to_vec(),
                };
                let found = link.search(&query, Some(MATCHES_MAX))?;
                entries.extend(found.entries);
                referrals += found.referrals;
            }
            Ok((entries, referrals))
        })?;
        self.heard_referrals(referrals);
        Ok((distinct(entries), host))
    }

    /// The one of these that has an address; several are none, and a note.
    fn only(
        &self,
        mut entries: Vec<(Entry, BareJid)>,
        what: &dyn std::fmt::Display,
    ) -> Option<Match> {
        if entries.len() > 1 {
            let names: Vec<&str> = entries.iter().map(|(e, _)| e.dn.as_str()).collect();
            self.note(format!(
                "{what} fits {} entries and is nobody's: {}",
                names.len(),
                names.join("; ")
            ));
            return None;
        }
        let (entry, jid) = entries.pop()?;
        Some(Match { entry, jid })
    }

    fn by_login(
        &self,
        login: &LoginName,
        attributes: &[String],
    ) -> Result<Option<Match>, DirectoryError> {
        let (entries, _) = self.find(&self.config.login_filter(login), attributes)?;
        let mut people = Vec::new();
        for entry in entries
            .into_iter()
            .filter(|e| !e.dn.is_empty() && self.config.is_of(e, login))
        {
            match self.config.jid_of(&entry, login.domain()) {
                Ok(jid) => people.push((entry, jid)),
                Err(why) => self.note(format!(
                    "{} can have no address at {}: {} {why}",
                    entry.dn,
                    login.domain(),
                    self.config.jid
                )),
            }
        }
        self.prefer_named(&mut people, login);
        Ok(self.only(people, &format_args!("the login name {login}")))
    }

    fn prefer_named(&self, people: &mut Vec<(Entry, BareJid)>, login: &LoginName) {
        let named = |(entry, _): &(Entry, BareJid)| self.config.is_named(entry, login);
        if people.len() > 1 && people.iter().any(named) {
            people.retain(named);
        }
    }

    fn by_jid(
        &self,
        jid: &BareJid,
        attributes: &[String],
    ) -> Result<Option<Match>, DirectoryError> {
        let Some(filter) = self.config.jid_filter(jid) else {
            return Ok(None);
        };
        let (entries, _) = self.find(&filter, attributes)?;
        let own = |entry: Entry| {
            let found = self.config.jid_of(&entry, jid.domainpart()).ok()?;
            (found == *jid).then_some((entry, found))
        };
        let people = entries.into_iter().filter_map(own).collect();
        Ok(self.only(people, &format_args!("the address {}", jid.as_str())))
    }

    /// Whether the filter of the configuration says that the entry's owner may not log in.
    fn is_filtered(&self, entry: &Entry) -> Result<bool, DirectoryError> {
        let Some(filter) = &self.config.disabled_filter else {
            return Ok(false);
        };
        let query = Query {
            base: entry.dn.clone(),
            scope: Scope::Base,
            filter: filter.clone(),
            attributes: vec!["1.1".to_owned()],
        };
        let (found, _) = self
            .searching
            .ask(Manner::Again, |link| link.search(&query, Some(1)))?;
        Ok(!found.entries.is_empty())
    }

    fn person_of(&self, found: &Match) -> Result<Person, DirectoryError> {
        let mut person = self
            .config
            .person(&found.entry, found.jid.clone(), SystemTime::now());
        person.disabled = person.disabled || self.is_filtered(&found.entry)?;
        Ok(person)
    }

    fn login_attributes(&self) -> Vec<String> {
        let mut attributes = self.config.person_attributes();
        attributes.extend(self.config.scram_attribute.clone());
        attributes
    }

    /// Asks a server whether a password is an entry's.
    fn bind(&self, dn: &str, password: &str) -> Result<Verdict, DirectoryError> {
        let began = Instant::now();
        let (result, host) = self.checking.ask(Manner::Again, |link| {
            let result = link.bind(dn, password)?;
            match verdict(result.rc, &result.text) {
                Some(verdict) => Ok(verdict),
                // Some servers say so before they look at the password.
                None if result.rc == code::UNWILLING_TO_PERFORM => {
                    Ok(Verdict::Unwilling(result.text.clone()))
                }
                None => Err(link::refused("checking a password", &result)),
            }
        })?;
        tracing::debug!(
            directory = self.config.name,
            server = self.servers.name(host),
            dn,
            ?result,
            "a password was checked"
        );
        if matches!(result, Verdict::Right | Verdict::Wrong) {
            self.keep_pace(began.elapsed());
        }
        Ok(result)
    }

    fn keep_pace(&self, took: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = Some(match *pace {
            // One in eight: a single slow answer does not hold up strangers for long.
            Some(before) => (before * 7 + took) / 8,
            None => took,
        });
    }

    /// Does for nobody what is done for somebody: asks a server about a name that is none, and takes as long. The server finds
    /// no password to compare, and with a slow hash that would be heard.
    fn check_nobody(&self, password: &str) -> Result<PasswordAnswer, DirectoryError> {
        let began = Instant::now();
        let mut random = [0; 8];
        let _ = getrandom::fill(&mut random);
        let base = self.config.bases.first().map_or("", String::as_str);
        let dn = format!("cn=nobody-{:016x},{base}", u64::from_le_bytes(random));
        self.checking
            .ask(Manner::Again, |link| link.bind(&dn, password))?;
        let pace = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = pace.and_then(|pace| pace.min(PACE_MAX).checked_sub(began.elapsed())) {
            std::thread::sleep(left);
        }
        Ok(PasswordAnswer::Wrong)
    }

    fn check_match(
        &self,
        found: Match,
        password: &str,
    ) -> Result<(PasswordAnswer, Option<Person>), DirectoryError> {
        let keys = self
            .config
            .scram_attribute
            .as_ref()
            .map(|a| scram::keys(&found.entry, a));
        let verdict = match keys.as_deref().and_then(<[_]>::first) {
            Some(keys) => {
                let began = Instant::now();
                let right = keys.matches(password);
                self.keep_pace(began.elapsed());
                if right {
                    Verdict::Right
                } else {
                    Verdict::Wrong
                }
            }
            None => self.bind(&found.entry.dn, password)?,
        };
        let jid = found.jid.clone();
        let answer = match verdict {
            Verdict::Wrong => PasswordAnswer::Wrong,
            Verdict::RightBut(but, why) => {
                tracing::info!(
                    directory = self.config.name,
                    account = jid.as_str(),
                    reason = why,
                    "log-in refused"
                );
                match but {
                    But::Expired if !self.person_of(&found)?.disabled => {
                        PasswordAnswer::Expired(jid)
                    }
                    _ => PasswordAnswer::Disabled(jid),
                }
            }
            Verdict::Right => {
                let person = self.person_of(&found)?;
                let answer = match person.disabled {
                    true => PasswordAnswer::Disabled(jid),
                    false => PasswordAnswer::Right(jid),
                };
                return Ok((answer, Some(person)));
            }
            Verdict::Unwilling(_) if self.person_of(&found)?.disabled => PasswordAnswer::Wrong,
            Verdict::Unwilling(text) => {
                return Err(self
                    .servers
                    .unavailable(format!("it is unwilling to check a password: {text:?}")));
            }
        };
        Ok((answer, None))
    }
}

/// Whose fault it is that a right password does not help.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum But {
    /// The account is not to log in.
    Account,
    /// The password is too old.
    Expired,
}

/// What a server says of a password.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Right,
    /// Right, but it does not help, and why.
    RightBut(But, &'static str),
    Wrong,
    /// It does not say.
    Unwilling(String),
}

/// What a result of a bind means. `None`: nothing about the password.
fn verdict(result: u32, text: &str) -> Option<Verdict> {
    match result {
        code::SUCCESS => Some(Verdict::Right),
        code::INVALID_CREDENTIALS => Some(active_directory(text).unwrap_or(Verdict::Wrong)),
        // No password at all, and locked by a policy.
        code::INAPPROPRIATE_AUTHENTICATION | code::CONSTRAINT_VIOLATION => Some(Verdict::Wrong),
        _ => None,
    }
}

/// Active Directory says in the text why a right password does not help: `... data 533, v1db1`. (775, locked, it says whether or
/// not the password is right.)
fn active_directory(text: &str) -> Option<Verdict> {
    let (_, rest) = text.split_once(", data ")?;
    let (but, why) = match rest.split(',').next()?.trim() {
        "530" => (But::Account, "not at this hour"),
        "531" => (But::Account, "not from this workstation"),
        "532" => (But::Expired, "the password has expired"),
        "533" => (But::Account, "the account is disabled"),
        "701" => (But::Account, "the account has expired"),
        "773" => (But::Expired, "the password must be changed first"),
        _ => return None,
    };
    Some(Verdict::RightBut(but, why))
}

/// Each entry once: bases may lie within each other.
fn distinct(entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::new();
    entries
        .into_iter()
        .filter(|e| seen.insert(dn::canonical(&e.dn).unwrap_or_else(|| e.dn.clone())))
        .collect()
}

impl Backend for LdapDirectory {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            scram: self.config.scram_attribute.is_some(),
            password: true,
            search: true,
            sweep: true,
            register: self.config.register.is_some(),
            photo: !self.config.attributes.photo.is_empty(),
        }
    }

    fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError> {
        let found = self.by_login(login, &self.config.person_attributes())?;
        found.map(|found| self.person_of(&found)).transpose()
    }

    fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        let found = self.by_jid(jid, &self.config.person_attributes())?;
        found.map(|found| self.person_of(&found)).transpose()
    }

    fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError> {
        self.check_person(login, password).map(|(answer, _)| answer)
    }

    fn check_person(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<(PasswordAnswer, Option<Person>), DirectoryError> {
        if password.is_empty() {
            return Ok((PasswordAnswer::Wrong, None));
        }
        match self.by_login(login, &self.login_attributes())? {
            Some(found) => self.check_match(found, password),
            None => Ok((self.check_nobody(password)?, None)),
        }
    }

    fn scram_keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, DirectoryError> {
        let Some(attribute) = &self.config.scram_attribute else {
            return Ok(KeysAnswer::None);
        };
        let Some(found) = self.by_login(login, &self.login_attributes())? else {
            return Ok(KeysAnswer::None);
        };
        let Some(keys) = scram::keys_for(&found.entry, attribute, hash) else {
            return Ok(KeysAnswer::None);
        };
        let person = self.person_of(&found)?;
        Ok(if person.disabled {
            KeysAnswer::Disabled(person.jid, keys)
        } else {
            KeysAnswer::Found(person.jid, keys)
        })
    }

    fn photo(&self, jid: &BareJid) -> Result<Option<Photo>, DirectoryError> {
        if self.config.attributes.photo.is_empty() {
            return Ok(None);
        }
        let mut attributes = self.config.attributes.photo.clone();
        attributes.push(self.config.jid.clone());
        let found = self.by_jid(jid, &attributes)?;
        Ok(found.and_then(|found| self.config.photo_of(&found.entry)))
    }

    fn search(
        &self,
        domain: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<SearchAnswer, DirectoryError> {
        let filter = self.config.search_filter(domain, query);
        let attributes = self.config.person_attributes();
        // A few more than wanted: disabled people are left out of them.
        let wanted = u32::try_from(limit)
            .unwrap_or(u32::MAX)
            .saturating_add(MATCHES_MAX);
        let ((entries, mut more, referrals), _) = self.searching.ask(Manner::Again, |link| {
            let (mut entries, mut more, mut referrals) = (Vec::new(), false, 0);
            for base in &self.config.bases {
                let query = Query {
                    base: base.clone(),
                    scope: Scope::Subtree,
                    filter: filter.clone(),
                    attributes: attributes.clone(),
                };
                let found = link.search(&query, Some(wanted))?;
                entries.extend(found.entries);
                more |= found.more;
                referrals += found.referrals;
            }
            Ok((entries, more, referrals))
        })?;
        self.heard_referrals(referrals);
        let filtered = self.filtered(entries.len())?;
        let now = SystemTime::now();
        let mut people: Vec<Person> = Vec::new();
        for entry in distinct(entries) {
            let Ok(jid) = self.config.jid_of(&entry, domain) else {
                continue;
            };
            let hidden = filtered.contains(&dn::canonical(&entry.dn).unwrap_or_default());
            let person = self.config.person(&entry, jid, now);
            if !person.disabled && !hidden && !people.iter().any(|p| p.jid == person.jid) {
                people.push(person);
            }
        }
        more |= people.len() > limit;
        people.truncate(limit);
        Ok(SearchAnswer { people, more })
    }

    fn sweep(&self) -> Result<Sweep, DirectoryError> {
        self.swept_now()
    }

    fn register(&self, registration: &Registration) -> Result<Registered, DirectoryError> {
        self.registered(registration)
    }

    fn change_password(&self, jid: &BareJid, password: &str) -> Result<Registered, DirectoryError> {
        self.password_changed(jid, password)
    }

    fn servers(&self) -> Vec<(String, bool)> {
        self.servers.states()
    }

    fn flush(&self, jid: Option<&BareJid>) {
        if jid.is_none() {
            self.searching.clear();
            self.checking.clear();
        }
    }

    fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        self.explained(login, password)
    }
}

impl LdapDirectory {
    /// Names of the entries that the filter of the configuration disables; asked only if there is somebody to apply it to.
    fn filtered(&self, people: usize) -> Result<HashSet<String>, DirectoryError> {
        if people == 0 || self.config.disabled_filter.is_none() {
            return Ok(HashSet::new());
        }
        let until = Instant::now() + self.config.sweep_timeout;
        let (filtered, _) = self
            .searching
            .ask(Manner::AgainLong, |link| self.filtered_entries(link, until))?;
        Ok(filtered)
    }

    fn filtered_entries(
        &self,
        link: &mut link::Link,
        until: Instant,
    ) -> Result<HashSet<String>, Fault> {
        let mut names = HashSet::new();
        if let Some(disabled) = &self.config.disabled_filter {
            for base in &self.config.bases {
                let query = Query {
                    base: base.clone(),
                    scope: Scope::Subtree,
                    filter: filter::all([&self.config.user_filter, disabled]),
                    attributes: vec!["1.1".to_owned()],
                };
                let found = link.search_all(&query, self.config.page_size, until)?;
                names.extend(found.entries.iter().filter_map(|e| dn::canonical(&e.dn)));
            }
        }
        Ok(names)
    }

    /// A server that gives people and no groups: said once, and again when it is over. It is up.
    fn remember_groups(&self, refused: Option<&str>) {
        let mut before = self
            .groups_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (before.as_deref(), refused) {
            (None, Some(reason)) => tracing::warn!(
                directory = self.config.name,
                reason,
                "the directory gives no groups: they stay as they were, and people log in (see `group_base` and `group_filter`)"
            ),
            (Some(_), None) => {
                tracing::info!(
                    directory = self.config.name,
                    "the directory gives groups again"
                );
            }
            _ => {}
        }
        *before = refused.map(str::to_owned);
    }

    /// For an administrator who asks about somebody.
    fn groups_fault(&self) -> Option<String> {
        let refused = self.groups_refused.lock();
        let why = refused.unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(format!(
            "not known, see `group_base` and `group_filter`: {why}"
        ))
    }

    fn remember_sweep(&self, people: usize) -> Result<(), DirectoryError> {
        let before = self.swept.load(Ordering::Relaxed);
        if people == 0 && before > 0 {
            return Err(self.servers.unavailable(format!(
                "it has nobody, where there were {before}: taken for an outage"
            )));
        }
        self.swept.store(people, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Product;

    #[test]
    fn results_of_binds_are_verdicts_or_outages() {
        let ad = |data: &str| {
            format!(
                "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data {data}, v3839"
            )
        };
        for (result, text, expected) in [
            (0, String::new(), Some(Verdict::Right)),
            (49, String::new(), Some(Verdict::Wrong)),
            (49, ad("52e"), Some(Verdict::Wrong)),
            (49, ad("525"), Some(Verdict::Wrong)),
            (49, ad("775"), Some(Verdict::Wrong)),
            (
                49,
                ad("533"),
                Some(Verdict::RightBut(But::Account, "the account is disabled")),
            ),
            (
                49,
                ad("701"),
                Some(Verdict::RightBut(But::Account, "the account has expired")),
            ),
            (
                49,
                ad("532"),
                Some(Verdict::RightBut(But::Expired, "the password has expired")),
            ),
            (
                49,
                ad("773"),
                Some(Verdict::RightBut(
                    But::Expired,
                    "the password must be changed first",
                )),
            ),
            (48, String::new(), Some(Verdict::Wrong)),
            (
                19,
                "Exceed password retry limit".into(),
                Some(Verdict::Wrong),
            ),
            (10, String::new(), None),
            (32, String::new(), None),
            (51, String::new(), None),
            (52, String::new(), None),
            (53, String::new(), None),
            (13, String::new(), None),
        ] {
            assert_eq!(verdict(result, &text), expected, "{result} {text}");
        }
    }

    fn nowhere() -> LdapDirectory {
        // Nothing listens on port 1 of loopback.
        LdapDirectory::new(LdapConfig {
            hosts: vec![config::HostConfig {
                host: "127.0.0.1".into(),
                port: 1,
                tls: config::Tls::None,
            }],
            bases: vec!["dc=x".into()],
            ..LdapConfig::usual("corp", Product::Ldap)
        })
        .unwrap()
    }

    #[test]
    fn an_outage_is_never_nobody() {
        let directory = nowhere();
        let login = LoginName::new("romeo", "x.example").unwrap();
        let jid = BareJid::parse("romeo@x.example").unwrap();
        assert!(directory.resolve(&login).is_err());
        assert!(directory.person(&jid).is_err());
        assert!(directory.check_password(&login, "pencil").is_err());
        assert!(directory.sweep().is_err());
        assert!(
            directory
                .search("x.example", &SearchQuery::default(), 10)
                .is_err()
        );
        assert!(directory.photo(&jid).is_err());
        // What needs no answer.
        assert_eq!(
            directory.check_password(&login, ""),
            Ok(PasswordAnswer::Wrong)
        );
        assert_eq!(
            directory.scram_keys(&login, ScramHash::Sha256),
            Ok(KeysAnswer::None)
        );
        assert_eq!(
            directory.person(&BareJid::parse("x.example").unwrap()),
            Ok(None)
        );
    }

    #[test]
    fn passwords_are_not_printed() {
        let directory = nowhere();
        let mut config = directory.config().clone();
        config.bind_password = config::Secret("hush-hush".into());
        assert!(!format!("{config:?} {directory:?}").contains("hush"));
    }
}
