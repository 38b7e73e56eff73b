//! What every kind of directory can be asked: one trait, and the facts that come back.
//!
//! In: addresses, login names, passwords, search words. Out: people, groups, right or wrong.
//! Never: an outage as "nobody" or as an empty group: whatever is not a clear answer is a [`DirectoryError`].
//!
//! A back end is shared by the worker threads that ask it; every call may block, but never longer than the back end's own
//! time-outs. What is cached, which back ends a domain has and in which order, is decided above, in `site`.

use crate::cache::CacheStats;
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};
use sha1::Digest as _;
use std::sync::Arc;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::ScramHash;

/// What a directory knows of somebody, apart from the photo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Their address.
    pub jid: BareJid,
    /// Log-in is refused: disabled by the administrator, locked or expired in the directory.
    pub disabled: bool,
    /// Where the back end finds them again: an LDAP distinguished name, say. For logs and `imadmin directory test`.
    pub reference: String,
    /// What others may know of them.
    pub profile: Profile,
}

/// What others may know of somebody: fields of vCards and search results. Absent is `None` or empty, never an empty string.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    /// As shown in lists.
    pub name: Option<String>,
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub family_name: Option<String>,
    /// E-mail addresses, the main one first.
    pub mail: Vec<String>,
    /// Telephone numbers.
    pub phone: Vec<String>,
    /// What they do.
    pub title: Option<String>,
    /// Whom they work for.
    pub organisation: Option<String>,
    /// In which part of it.
    pub unit: Option<String>,
    /// The node their account lives on, where the directory says so.
    pub home: Option<String>,
}

/// A picture of somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Photo {
    /// `image/jpeg`, `image/png`, ... as its first bytes say.
    pub media_type: &'static str,
    /// The picture.
    pub bytes: Arc<[u8]>,
}

/// SHA-1 of a picture, in hexadecimal digits: what it is known by in presence (XEP-0153 §3.1) and as an avatar (XEP-0084).
pub fn photo_hash(bytes: &[u8]) -> String {
    let hash = sha1::Sha1::digest(bytes);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a picture is known by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PhotoId {
    /// As of [`photo_hash`].
    pub sha1: Box<str>,
    /// How many there are.
    pub bytes: usize,
    /// As of [`Photo`].
    pub media_type: &'static str,
}

impl Photo {
    /// What it is known by.
    pub fn id(&self) -> PhotoId {
        PhotoId {
            sha1: photo_hash(&self.bytes).into(),
            bytes: self.bytes.len(),
            media_type: self.media_type,
        }
    }
}

/// What there is for somebody's vCard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    /// Who.
    pub person: Person,
    /// Their picture.
    pub photo: Option<Photo>,
}

/// What people are searched by. Empty fields match everybody; `*` at the end of a word stands for anything, everywhere else it
/// is a character. A query of nothing but empty fields is refused above.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SearchQuery {
    /// In any of the names, the address or the mail address.
    pub any: Option<String>,
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub family_name: Option<String>,
    /// Display name or localpart.
    pub nickname: Option<String>,
    /// Mail address.
    pub mail: Option<String>,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SearchAnswer {
    /// At most as many as were asked for, no disabled ones.
    pub people: Vec<Person>,
    /// There are more.
    pub more: bool,
}

/// Everybody and every group, as one sweep found them. All of it, or an error.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// In any order, each address once.
    pub people: Vec<SweptPerson>,
    /// In any order, each name once.
    pub groups: Vec<SweptGroup>,
    /// The people are known and the groups are not, and why: there are none in `groups`, and that says nothing. Whoever keeps
    /// sweeps leaves the groups as they were.
    pub groups_unknown: Option<String>,
}

/// What a sweep keeps of a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweptPerson {
    /// Their address.
    pub jid: BareJid,
    /// As shown in lists.
    pub name: Option<String>,
    /// Log-in is refused.
    pub disabled: bool,
    /// What their entry is known by for good, whatever it is called: another id at the same address is another person.
    pub id: Option<String>,
}

/// A group and who is in it, nested groups resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweptGroup {
    /// Its name in policies, and in rosters unless it has a title.
    pub name: String,
    /// As rosters show it.
    pub title: Option<String>,
    /// Its members show in each other's rosters.
    pub in_rosters: bool,
    /// Addresses of its members, in any order, each once.
    pub members: Vec<BareJid>,
}

/// What a kind of directory can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Abilities {
    /// It may have SCRAM secrets: SCRAM can be offered.
    pub scram: bool,
    /// It checks passwords.
    pub password: bool,
    /// It finds people by name.
    pub search: bool,
    /// It sweeps: it has groups, and what changes in it is found by comparing.
    pub sweep: bool,
    /// It takes new accounts.
    pub register: bool,
    /// It may have pictures of people.
    pub photo: bool,
}

/// A new account, as somebody wants to have it.
#[derive(Clone, PartialEq, Eq)]
pub struct Registration {
    /// The address wanted.
    pub jid: BareJid,
    /// Never logged.
    pub password: String,
    /// Display name.
    pub name: Option<String>,
    /// Mail address.
    pub mail: Option<String>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({}, ..)", self.jid.as_str())
    }
}

/// What became of a registration or a change of password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Registered {
    /// It is done.
    Done,
    /// The address is taken.
    Exists,
    /// The directory does not want it, and why (password too short, ...): may be shown to the person.
    Refused(String),
    /// This directory takes no such changes.
    NotHere,
}

/// One step of the way from a login name to a verdict, for `imadmin directory test`. No secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExplainStep {
    /// What was asked: `host`, `filter`, `entry`, `attribute mail`, `password`, ...
    pub what: String,
    /// What came of it.
    pub answer: String,
    /// Because of this they cannot log in.
    pub fails: bool,
}

impl ExplainStep {
    /// A step on the way.
    pub fn new(what: impl Into<String>, answer: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            answer: answer.into(),
            fails: false,
        }
    }

    /// The end of the way, if so.
    #[must_use]
    pub fn failing(self, fails: bool) -> Self {
        Self { fails, ..self }
    }
}

/// A directory. See the module.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Who logs in with this name. `None`: nobody. Two entries for one name are nobody, and a warning for the administrator.
    fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError>;

    /// Somebody by address. `None`: there is nobody.
    fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError>;

    /// Checks a password. Never asks an LDAP server with an empty one (RFC 4513 §5.1.2).
    fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError>;

    /// The same, and who they are where that has been learned on the way: then nobody need ask for them again.
    fn check_person(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<(PasswordAnswer, Option<Person>), DirectoryError> {
        Ok((self.check_password(login, password)?, None))
    }

    /// Keys for a SCRAM exchange with this hash.
    fn scram_keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, DirectoryError>;

    /// The picture of somebody. Too large or no picture is none.
    fn photo(&self, jid: &BareJid) -> Result<Option<Photo>, DirectoryError> {
        let _ = jid;
        Ok(None)
    }

    /// What the picture of somebody is known by.
    fn photo_id(&self, jid: &BareJid) -> Result<Option<Arc<PhotoId>>, DirectoryError> {
        Ok(self.photo(jid)?.map(|photo| Arc::new(photo.id())))
    }

    /// Finds people of this domain, at most `limit`.
    fn search(
        &self,
        domain: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<SearchAnswer, DirectoryError> {
        let _ = (domain, query, limit);
        Ok(SearchAnswer::default())
    }

    /// Everybody and every group. Only of those with the ability.
    fn sweep(&self) -> Result<Sweep, DirectoryError> {
        Ok(Sweep::default())
    }

    /// Makes an account.
    fn register(&self, registration: &Registration) -> Result<Registered, DirectoryError> {
        let _ = registration;
        Ok(Registered::NotHere)
    }

    /// Sets another password. The caller has made sure that this is wanted.
    fn change_password(&self, jid: &BareJid, password: &str) -> Result<Registered, DirectoryError> {
        let _ = (jid, password);
        Ok(Registered::NotHere)
    }

    /// Removes an account. Only where it is ours alone: nobody's entry in a directory of the site is ever removed.
    fn remove(&self, jid: &BareJid) -> Result<Registered, DirectoryError> {
        let _ = jid;
        Ok(Registered::NotHere)
    }

    /// The picture of somebody, if that can be said without asking anybody outside this process.
    fn photo_at_hand(&self, jid: &BareJid) -> Option<Option<Photo>> {
        let _ = jid;
        None
    }

    /// Somebody by address, if that can be said without asking anybody outside this process: for callers that must not wait
    /// long. `None`: it would have to be asked.
    fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
        let _ = jid;
        None
    }

    /// Its servers by name, each up or not as the last questions found them.
    fn servers(&self) -> Vec<(String, bool)> {
        Vec::new()
    }

    /// What its caches have done, by what they keep.
    fn cache_stats(&self) -> Vec<(&'static str, CacheStats)> {
        Vec::new()
    }

    /// Forgets what is cached of somebody, or everything.
    fn flush(&self, jid: Option<&BareJid>) {
        let _ = jid;
    }

    /// Says step by step how a login name becomes a person, and with a password whether it is right.
    fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep>;
}
