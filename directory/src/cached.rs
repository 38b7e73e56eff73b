//! A back end whose answers are kept: what stands between the server and an LDAP directory.
//!
//! In: questions. Out: answers of the back end, fresh or in an outage stale.
//! Owns: the caches of one back end, and, where the site wants it, verifiers of passwords that were right.
//! Never: answers a password from a cache while the back end answers; keeps a password.

use crate::backend::{
    Abilities, Backend, ExplainStep, Person, Photo, PhotoId, Registered, Registration,
    SearchAnswer, SearchQuery, Sweep,
};
use crate::cache::{Cache, CacheConfig, CacheStats};
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};
use moka::sync::Cache as Moka;
use std::sync::Arc;
use std::time::Duration;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{ScramHash, ScramKeys};

/// Photos are large: so many people are kept for one photo.
const PEOPLE_PER_PHOTO: u64 = 200;

/// PBKDF2 rounds of a verifier. It lives in memory for hours at most.
const VERIFIER_ITERATIONS: u32 = 10_000;

/// A password that was right: whose, and how to recognise it.
#[derive(Clone)]
struct Verifier {
    account: BareJid,
    keys: Arc<ScramKeys>,
}

/// See the module.
pub struct Cached<B> {
    backend: B,
    /// Who somebody is, is kept.
    keeps_people: bool,
    people: Cache<BareJid, Arc<Person>>,
    logins: Cache<LoginName, Arc<Person>>,
    photos: Cache<BareJid, Photo>,
    photo_ids: Cache<BareJid, Arc<PhotoId>>,
    verifiers: Option<Moka<LoginName, Verifier>>,
}

impl<B: Backend> std::fmt::Debug for Cached<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cached({:?})", self.backend)
    }
}

impl<B: Backend> Cached<B> {
    /// Keeps the answers of this back end.
    pub fn new(backend: B, config: CacheConfig) -> Self {
        let photos = CacheConfig {
            entries_max: (config.entries_max / PEOPLE_PER_PHOTO).max(1),
            ..config
        };
        Cached {
            backend,
            keeps_people: true,
            people: Cache::new(config),
            logins: Cache::new(config),
            photos: Cache::new(photos),
            photo_ids: Cache::new(config),
            verifiers: (config.password > Duration::ZERO).then(|| {
                Moka::builder()
                    .max_capacity(config.entries_max)
                    .time_to_live(config.password)
                    .support_invalidation_closures()
                    .build()
            }),
        }
    }

    /// Keeps only verifiers of passwords, for a back end that knows its people from our own store.
    pub fn passwords_only(backend: B, config: CacheConfig) -> Self {
        Cached {
            keeps_people: false,
            ..Self::new(backend, config)
        }
    }

    /// Remembers how to recognise a password that was right, until the next outage or the end of its time.
    fn remember(&self, login: &LoginName, account: &BareJid, password: &str) {
        let Some(verifiers) = &self.verifiers else {
            return;
        };
        let known = verifiers.get(login);
        let fits = |v: &Verifier| v.account == *account && v.keys.matches(password);
        if known.as_ref().is_some_and(fits) {
            // Its time begins anew: the directory has just said that it is right.
            if let Some(known) = known {
                verifiers.insert(login.clone(), known);
            }
            return;
        }
        let keys = crate::derive_account(password, VERIFIER_ITERATIONS, &[ScramHash::Sha256]).ok();
        if let Some(keys) = keys.and_then(|mut keys| keys.pop()) {
            verifiers.insert(
                login.clone(),
                Verifier {
                    account: account.clone(),
                    keys: Arc::new(keys),
                },
            );
        }
    }

    /// In an outage: whether this password was right not long ago.
    fn recognise(&self, login: &LoginName, password: &str) -> Option<PasswordAnswer> {
        let verifier = self.verifiers.as_ref()?.get(login)?;
        verifier
            .keys
            .matches(password)
            .then_some(PasswordAnswer::Right(verifier.account))
    }

    fn forget_password(&self, login: &LoginName) {
        if let Some(verifiers) = &self.verifiers {
            verifiers.invalidate(login);
        }
    }
}

fn owned(person: Option<Arc<Person>>) -> Option<Person> {
    person.map(Arc::unwrap_or_clone)
}

impl<B: Backend> Backend for Cached<B> {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn abilities(&self) -> Abilities {
        self.backend.abilities()
    }

    fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError> {
        if !self.keeps_people {
            return self.backend.resolve(login);
        }
        let ask = || {
            let person = self.backend.resolve(login)?.map(Arc::new);
            if let Some(person) = &person {
                self.people.put(person.jid.clone(), Some(person.clone()));
            }
            Ok(person)
        };
        self.logins.get(login, ask).map(owned)
    }

    fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        if !self.keeps_people {
            return self.backend.person(jid);
        }
        let ask = || Ok(self.backend.person(jid)?.map(Arc::new));
        self.people.get(jid, ask).map(owned)
    }

    fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError> {
        if password.is_empty() {
            return Ok(PasswordAnswer::Wrong);
        }
        match self.backend.check_person(login, password) {
            Ok((PasswordAnswer::Right(account), person)) => {
                // Whoever logs in is loaded next: one search for both.
                if let Some(person) = person.filter(|_| self.keeps_people) {
                    self.people.put(account.clone(), Some(Arc::new(person)));
                }
                self.remember(login, &account, password);
                Ok(PasswordAnswer::Right(account))
            }
            Ok((answer, _)) => {
                if let PasswordAnswer::Disabled(_) | PasswordAnswer::Expired(_) = answer {
                    self.forget_password(login);
                } else if self.recognise(login, password).is_some() {
                    // It was right and is not any more. (A wrong guess of a stranger forgets nothing.)
                    self.forget_password(login);
                }
                Ok(answer)
            }
            Err(error) => self.recognise(login, password).ok_or(error),
        }
    }

    fn scram_keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, DirectoryError> {
        self.backend.scram_keys(login, hash)
    }

    fn photo(&self, jid: &BareJid) -> Result<Option<Photo>, DirectoryError> {
        let ask = || {
            let photo = self.backend.photo(jid)?;
            let id = photo.as_ref().map(|photo| Arc::new(photo.id()));
            self.photo_ids.put(jid.clone(), id);
            Ok(photo)
        };
        self.photos.get(jid, ask)
    }

    /// The picture itself is not kept for this: there is room for few, and everybody who logs in would drive out one.
    fn photo_id(&self, jid: &BareJid) -> Result<Option<Arc<PhotoId>>, DirectoryError> {
        self.photo_ids.get(jid, || self.backend.photo_id(jid))
    }

    fn search(
        &self,
        domain: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<SearchAnswer, DirectoryError> {
        self.backend.search(domain, query, limit)
    }

    fn sweep(&self) -> Result<Sweep, DirectoryError> {
        let sweep = self.backend.sweep()?;
        self.people.sweep();
        self.logins.sweep();
        self.photos.sweep();
        self.photo_ids.sweep();
        Ok(sweep)
    }

    fn register(&self, registration: &Registration) -> Result<Registered, DirectoryError> {
        let answer = self.backend.register(registration);
        self.flush(Some(&registration.jid));
        answer
    }

    fn change_password(&self, jid: &BareJid, password: &str) -> Result<Registered, DirectoryError> {
        let answer = self.backend.change_password(jid, password);
        self.flush(Some(jid));
        answer
    }

    fn remove(&self, jid: &BareJid) -> Result<Registered, DirectoryError> {
        let answer = self.backend.remove(jid);
        self.flush(Some(jid));
        answer
    }

    fn photo_at_hand(&self, jid: &BareJid) -> Option<Option<Photo>> {
        self.photos.fresh(jid)
    }

    fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
        if !self.keeps_people {
            return self.backend.at_hand(jid);
        }
        self.people.fresh(jid).map(owned)
    }

    fn servers(&self) -> Vec<(String, bool)> {
        self.backend.servers()
    }

    fn cache_stats(&self) -> Vec<(&'static str, CacheStats)> {
        if !self.keeps_people {
            return Vec::new();
        }
        vec![
            ("people", self.people.stats()),
            ("login names", self.logins.stats()),
            ("photos", self.photos.stats()),
            ("photo hashes", self.photo_ids.stats()),
        ]
    }

    fn flush(&self, jid: Option<&BareJid>) {
        match jid {
            Some(jid) => {
                self.people.forget(jid);
                self.photos.forget(jid);
                self.photo_ids.forget(jid);
                // Which login names are theirs is not known here; there are few of them and they come back at once.
                self.logins.clear();
                if let Some(verifiers) = &self.verifiers {
                    let jid = jid.clone();
                    // It fails only where the cache was built without support for it, and then nothing is kept longer than
                    // its time.
                    let _ = verifiers.invalidate_entries_if(move |_, v| v.account == jid);
                }
            }
            None => {
                self.people.clear();
                self.logins.clear();
                self.photos.clear();
                self.photo_ids.clear();
                if let Some(verifiers) = &self.verifiers {
                    verifiers.invalidate_all();
                }
            }
        }
        self.backend.flush(jid);
    }

    fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        self.backend.explain(login, password)
    }
}
