//! Which directories a domain has, and in which order they are asked.
//!
//! In: questions about people of the domains served. Out: answers.
//! Owns: the chains. Never: asks a later back end because an earlier one does not answer: then there is no answer.
//!
//! A back end that knows somebody decides for them; the later ones of the chain are not asked. Who is nobody's is checked by
//! the last one all the same, so that an unknown name costs what a wrong password costs.

use crate::backend::{
    Abilities, Backend, Card, ExplainStep, Person, PhotoId, Registered, Registration, SearchAnswer,
    SearchQuery,
};
use crate::cache::CacheStats;
use crate::population::Swept;
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};
use std::collections::HashMap;
use std::sync::Arc;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{ScramHash, ScramKeys};

/// What is known here of accounts whose directory is elsewhere, and which the directory is not told: that an administrator
/// has disabled them for this service, and SCRAM keys made at a log-in.
pub trait Overlay: Send + Sync + std::fmt::Debug {
    /// The account may not log in here.
    fn is_disabled(&self, jid: &BareJid) -> bool;

    /// Keys made when the password was last right, if the site wants that and they are not too old.
    fn captured_keys(
        &self,
        jid: &BareJid,
        hash: ScramHash,
    ) -> Result<Option<ScramKeys>, DirectoryError>;

    /// The password was right: make keys of it, if the site wants that and there are none that fit.
    fn capture(&self, jid: &BareJid, password: &str);

    /// The password is not what it was: keys made of it are worth nothing.
    fn forget(&self, jid: &BareJid);
}

/// The directories of every domain. See the module.
#[derive(Debug, Default)]
pub struct Site {
    domains: HashMap<String, Vec<Arc<dyn Backend>>>,
    overlay: Option<Arc<dyn Overlay>>,
}

impl Site {
    /// Each domain with its chain, which is not empty.
    pub fn new(
        domains: impl IntoIterator<Item = (String, Vec<Arc<dyn Backend>>)>,
        overlay: Arc<dyn Overlay>,
    ) -> Self {
        Site {
            domains: domains.into_iter().collect(),
            overlay: Some(overlay),
        }
    }

    /// The domains that have directories.
    pub fn domains(&self) -> impl Iterator<Item = &String> {
        self.domains.keys()
    }

    /// Each domain with its chain, and nothing known here beside what the directories say.
    pub fn without_overlay(
        domains: impl IntoIterator<Item = (String, Vec<Arc<dyn Backend>>)>,
    ) -> Self {
        Site {
            domains: domains.into_iter().collect(),
            overlay: None,
        }
    }

    /// The back ends of a domain, in order.
    pub fn chain(&self, domain: &str) -> &[Arc<dyn Backend>] {
        self.domains.get(domain).map_or(&[], Vec::as_slice)
    }

    /// All of the domain's accounts are in the store: no other process is asked about them.
    pub fn is_local(&self, domain: &str) -> bool {
        self.chain(domain)
            .iter()
            .all(|b| b.name() == crate::local::NAME)
    }

    /// Some of the domain's accounts are in the store, or may be. (A domain that is not served has no directories at all.)
    pub fn keeps_accounts(&self, domain: &str) -> bool {
        let chain = self.chain(domain);
        chain.is_empty() || chain.iter().any(|b| b.name() == crate::local::NAME)
    }

    /// Every back end once.
    pub fn backends(&self) -> Vec<&Arc<dyn Backend>> {
        let mut all: Vec<&Arc<dyn Backend>> = Vec::new();
        for backend in self.domains.values().flatten() {
            if !all.iter().any(|known| known.name() == backend.name()) {
                all.push(backend);
            }
        }
        all.sort_by_key(|b| b.name().to_owned());
        all
    }

    /// Which of them can be swept, by domain.
    pub fn swept(&self) -> Swept {
        Swept::new(self.domains.iter().map(|(domain, chain)| {
            let swept = chain.iter().filter(|b| b.abilities().sweep);
            (domain.clone(), swept.map(|b| Arc::from(b.name())).collect())
        }))
    }

    /// What any of the domain's directories can do.
    pub fn abilities(&self, domain: &str) -> Abilities {
        let all = self.chain(domain).iter().map(|b| b.abilities());
        all.fold(Abilities::default(), |a, b| Abilities {
            scram: a.scram || b.scram,
            password: a.password || b.password,
            search: a.search || b.search,
            sweep: a.sweep || b.sweep,
            register: a.register || b.register,
            photo: a.photo || b.photo,
        })
    }

    /// By an administrator of this server.
    fn is_disabled(&self, jid: &BareJid) -> bool {
        self.overlay.as_ref().is_some_and(|o| o.is_disabled(jid))
    }

    fn judged(&self, person: Person) -> Person {
        Person {
            disabled: person.disabled || self.is_disabled(&person.jid),
            ..person
        }
    }

    /// Somebody by address. May block.
    ///
    /// # Errors
    /// A directory does not answer: nobody knows whether they exist.
    pub fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if let Some(person) = backend.person(jid)? {
                return Ok(Some(self.judged(person)));
            }
        }
        Ok(None)
    }

    /// The directory of the site that has an entry for somebody: one that is not ours to remove. May block.
    ///
    /// # Errors
    /// A directory does not answer: nobody knows whether there is one.
    pub fn entry_is_in(&self, jid: &BareJid) -> Result<Option<&str>, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if backend.person(jid)?.is_some() {
                return Ok(backend.abilities().sweep.then(|| backend.name()));
            }
        }
        Ok(None)
    }

    /// Somebody by address, if that can be said at once.
    pub fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
        for backend in self.chain(jid.domainpart()) {
            if let Some(person) = backend.at_hand(jid)? {
                return Some(Some(self.judged(person)));
            }
        }
        Some(None)
    }

    /// Who logs in with this name. May block.
    ///
    /// # Errors
    /// A directory does not answer: nobody knows whether they exist.
    pub fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError> {
        for backend in self.chain(login.domain()) {
            if let Some(person) = backend.resolve(login)? {
                return Ok(Some(self.judged(person)));
            }
        }
        Ok(None)
    }

    /// What there is for somebody's vCard. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn card(&self, jid: &BareJid) -> Result<Option<Card>, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if let Some(person) = backend.person(jid)? {
                // In an outage somebody who is still known is shown without their picture rather than not at all.
                let photo = backend.photo(jid).unwrap_or_default();
                let person = self.judged(person);
                return Ok(Some(Card { person, photo }));
            }
        }
        Ok(None)
    }

    /// The same, if it can be said without asking anybody outside this process.
    pub fn card_at_hand(&self, jid: &BareJid) -> Option<Option<Card>> {
        for backend in self.chain(jid.domainpart()) {
            if let Some(person) = backend.at_hand(jid)? {
                let photo = backend.photo_at_hand(jid)?;
                let person = self.judged(person);
                return Some(Some(Card { person, photo }));
            }
        }
        Some(None)
    }

    /// The back end that decides about a login name: the first that knows it, else the last.
    fn decides(&self, login: &LoginName) -> Result<Option<&Arc<dyn Backend>>, DirectoryError> {
        let chain = self.chain(login.domain());
        let Some((last, earlier)) = chain.split_last() else {
            return Ok(None);
        };
        for backend in earlier {
            if backend.resolve(login)?.is_some() {
                return Ok(Some(backend));
            }
        }
        Ok(Some(last))
    }

    /// Checks a password. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError> {
        let Some(backend) = self.decides(login)? else {
            return Ok(PasswordAnswer::Wrong);
        };
        let answer = backend.check_password(login, password)?;
        Ok(match answer {
            PasswordAnswer::Right(jid) | PasswordAnswer::Expired(jid) if self.is_disabled(&jid) => {
                PasswordAnswer::Disabled(jid)
            }
            PasswordAnswer::Right(jid) => {
                if let Some(overlay) = &self.overlay
                    && !backend.abilities().scram
                {
                    overlay.capture(&jid, password);
                }
                PasswordAnswer::Right(jid)
            }
            other => other,
        })
    }

    /// Keys for a SCRAM exchange. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn scram_keys(
        &self,
        login: &LoginName,
        hash: ScramHash,
    ) -> Result<KeysAnswer, DirectoryError> {
        let Some(backend) = self.decides(login)? else {
            return Ok(KeysAnswer::None);
        };
        let answer = match backend.scram_keys(login, hash)? {
            KeysAnswer::None if !backend.abilities().scram => {
                self.captured(backend.as_ref(), login, hash)?
            }
            answer => answer,
        };
        Ok(match answer {
            KeysAnswer::Found(jid, keys) if self.is_disabled(&jid) => {
                KeysAnswer::Disabled(jid, keys)
            }
            other => other,
        })
    }

    fn captured(
        &self,
        backend: &dyn Backend,
        login: &LoginName,
        hash: ScramHash,
    ) -> Result<KeysAnswer, DirectoryError> {
        let Some(person) = backend.resolve(login)? else {
            return Ok(KeysAnswer::None);
        };
        let keys = match &self.overlay {
            Some(overlay) => overlay.captured_keys(&person.jid, hash)?,
            None => None,
        };
        Ok(match keys {
            Some(keys) if person.disabled => KeysAnswer::Disabled(person.jid, keys),
            Some(keys) => KeysAnswer::Found(person.jid, keys),
            None => KeysAnswer::None,
        })
    }

    /// What the picture of somebody is known by. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn photo_id(&self, jid: &BareJid) -> Result<Option<Arc<PhotoId>>, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if backend.person(jid)?.is_some() {
                return backend.photo_id(jid);
            }
        }
        Ok(None)
    }

    /// Finds people of a domain, disabled ones left out. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn search(
        &self,
        domain: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<SearchAnswer, DirectoryError> {
        let mut all = SearchAnswer::default();
        for backend in self.chain(domain).iter().filter(|b| b.abilities().search) {
            let found = backend.search(domain, query, limit)?;
            all.more |= found.more;
            for person in found.people {
                let person = self.judged(person);
                if !person.disabled && !all.people.iter().any(|p| p.jid == person.jid) {
                    all.people.push(person);
                }
            }
        }
        all.more |= all.people.len() > limit;
        all.people.truncate(limit);
        Ok(all)
    }

    /// Makes an account in the first directory of the domain that takes any. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn register(&self, registration: &Registration) -> Result<Registered, DirectoryError> {
        // Taken anywhere in the chain is taken.
        if self.person(&registration.jid)?.is_some() {
            return Ok(Registered::Exists);
        }
        let chain = self.chain(registration.jid.domainpart());
        match chain.iter().find(|b| b.abilities().register) {
            Some(backend) => backend.register(registration),
            None => Ok(Registered::NotHere),
        }
    }

    /// Sets another password for somebody. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn change_password(
        &self,
        jid: &BareJid,
        password: &str,
    ) -> Result<Registered, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if backend.person(jid)?.is_some() {
                if let Some(overlay) = &self.overlay {
                    overlay.forget(jid);
                }
                return backend.change_password(jid, password);
            }
        }
        Ok(Registered::NotHere)
    }

    /// Removes an account that is ours alone. May block.
    ///
    /// # Errors
    /// A directory does not answer.
    pub fn remove(&self, jid: &BareJid) -> Result<Registered, DirectoryError> {
        for backend in self.chain(jid.domainpart()) {
            if backend.person(jid)?.is_some() {
                return backend.remove(jid);
            }
        }
        Ok(Registered::NotHere)
    }

    /// How a login name becomes a person, back end by back end; the verdict is made of [`Site::resolve`] and of steps that fail.
    pub fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        let mut steps = Vec::new();
        for backend in self.chain(login.domain()) {
            steps.push(ExplainStep::new("directory", backend.name()));
            steps.extend(backend.explain(login, password));
            match backend.resolve(login) {
                Ok(None) => {}
                Ok(Some(person)) => {
                    if self.is_disabled(&person.jid) {
                        let by = "by an administrator of this server (`imadmin user disable`)";
                        steps.push(ExplainStep::new("disabled", by).failing(true));
                    }
                    break;
                }
                // What is asked after this one is not asked now.
                Err(_) => break,
            }
        }
        steps
    }

    /// What the caches have done: back end, what is kept, numbers.
    pub fn cache_stats(&self) -> Vec<(String, &'static str, CacheStats)> {
        let of = |b: &Arc<dyn Backend>| {
            let name = b.name().to_owned();
            let rows = b.cache_stats().into_iter();
            rows.map(move |(what, stats)| (name.clone(), what, stats))
        };
        self.backends().into_iter().flat_map(of).collect()
    }

    /// Forgets what is cached of somebody, or everything.
    pub fn flush(&self, jid: Option<&BareJid>) {
        self.backends().into_iter().for_each(|b| b.flush(jid));
    }
}
