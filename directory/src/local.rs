//! Accounts in the store.
//!
//! Never: tells by its time whether somebody exists. A wrong password and an unknown name both cost
//! one PBKDF2 with the iterations new accounts get; an account whose keys were imported with another
//! count, or for SHA-512 only, costs what it costs.

use std::sync::{Arc, Mutex, PoisonError};
use store::{Account, AccountEntry, PutMode, Reader, Write, WriteError, Written};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{self, FakeKeys, ITERATIONS_DEFAULT, ScramHash, ScramKeys};

use crate::backend::{
    Abilities, Backend, ExplainStep, Person, Photo, Profile, Registered, Registration,
    SearchAnswer, SearchQuery,
};
use crate::{DeriveError, DirectoryError, KeysAnswer, PasswordAnswer, derive_account};

/// Its name in configurations: every server has it.
pub const NAME: &str = "local";

/// Cheapest first: a password is checked against the keys of the first hash the account has. The keys
/// made for unknown users are of the first.
const CHECK_ORDER: [ScramHash; 3] = [ScramHash::Sha256, ScramHash::Sha1, ScramHash::Sha512];

/// Accounts read at a time in a search.
const SEARCH_PAGE: usize = 64;

/// Accounts looked at in one search: disabled ones are passed over, and there may be many.
const SEARCH_ACCOUNTS_MAX: usize = 4_096;

/// Who makes changes to accounts durable: the store has one writer, and it is not ours.
pub trait AccountWriter: Send + Sync {
    /// Commits these writes and returns what became of each. May block, for a bounded time.
    ///
    /// # Errors
    /// In words: the writer does not answer, and nobody knows whether they were carried out.
    fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>, String>;
    /// Leaves them to the writer and waits for nothing. False: it has no time for them now.
    fn hand_over(&self, writes: Vec<Write>) -> bool;
}

/// See the module.
pub struct LocalDirectory {
    /// Held for the time of a read, never for that of a PBKDF2.
    reader: Mutex<Box<dyn Reader>>,
    fake: FakeKeys,
    iterations: u32,
    writer: Option<Arc<dyn AccountWriter>>,
}

impl std::fmt::Debug for LocalDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalDirectory")
    }
}

impl LocalDirectory {
    /// Over a reader of its own.
    pub fn new(reader: Box<dyn Reader>) -> Self {
        Self::with_iterations(reader, ITERATIONS_DEFAULT)
    }

    /// The same, where new accounts get `iterations` of PBKDF2: unknown users must cost as much.
    pub fn with_iterations(reader: Box<dyn Reader>, iterations: u32) -> Self {
        // These keys are only ever worked on, never shown, so their secret is none.
        LocalDirectory {
            reader: Mutex::new(reader),
            fake: FakeKeys::new([0; 32], iterations),
            iterations,
            writer: None,
        }
    }

    /// The same, which can also make accounts and change passwords.
    pub fn writing(mut self, writer: Arc<dyn AccountWriter>) -> Self {
        self.writer = Some(writer);
        self
    }

    /// The password of an account is known, and right: keys are made of it for hashes that there are none of, from an import of one
    /// hash, say. The log-in does not hang on it: a store that has no time for them gets them at the next one.
    fn complete(&self, account: &Account, known: &ScramKeys, password: &str) {
        let lacks = |hash: &ScramHash| account.keys.iter().all(|k| k.hash != *hash);
        let lacking: Vec<ScramHash> = ScramHash::UPGRADES.into_iter().filter(lacks).collect();
        let Some(writer) = self.writer.as_ref().filter(|_| !lacking.is_empty()) else {
            return;
        };
        // What cannot be made (no randomness) is not made now.
        let Ok(keys) = derive_account(password, self.iterations, &lacking) else {
            return;
        };
        writer.hand_over(vec![Write::AccountKeysAdd {
            jid: account.jid.clone(),
            beside: known.clone(),
            keys,
        }]);
    }

    fn change(&self, write: Write) -> Result<Registered, DirectoryError> {
        let Some(writer) = &self.writer else {
            return Ok(Registered::NotHere);
        };
        let written = writer
            .write(vec![write])
            .map_err(|reason| DirectoryError::Unavailable {
                directory: NAME.into(),
                reason,
            })?;
        match written.into_iter().next() {
            Some(Written::Failed(WriteError::Exists)) => Ok(Registered::Exists),
            Some(Written::Failed(WriteError::NotFound)) => Ok(Registered::NotHere),
            Some(Written::Failed(WriteError::Store(e))) => Err((*e).clone().into()),
            _ => Ok(Registered::Done),
        }
    }

    /// Keys of a new password, or why it cannot be one.
    fn keys(&self, password: &str) -> Result<Result<Vec<ScramKeys>, Registered>, DirectoryError> {
        match derive_account(password, self.iterations, &ScramHash::ALL) {
            Ok(keys) => Ok(Ok(keys)),
            Err(e @ DeriveError::Password(_)) => Ok(Err(Registered::Refused(e.to_string()))),
            Err(e @ DeriveError::Random) => Err(DirectoryError::Unavailable {
                directory: NAME.into(),
                reason: e.to_string(),
            }),
        }
    }

    fn page(
        &self,
        domain: &str,
        after: Option<&BareJid>,
    ) -> Result<Vec<AccountEntry>, DirectoryError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reader.accounts(Some(domain), after, SEARCH_PAGE)?)
    }

    /// Enabled accounts of the domain whose localpart begins so, in order, one more than `limit` at most.
    fn beginning_with(
        &self,
        domain: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<BareJid>, DirectoryError> {
        let mut found = Vec::new();
        let mut after = None;
        if !prefix.is_empty() {
            // Prepared, as localparts are; what can be no localpart begins none.
            let Ok(first) = BareJid::from_parts(Some(prefix), domain) else {
                return Ok(found);
            };
            // The list goes on after an address, so the one that is the prefix itself is asked for.
            found.extend(self.stored(&first)?.filter(|a| !a.disabled).map(|a| a.jid));
            after = Some(first);
        }
        let prefix = after
            .as_ref()
            .and_then(BareJid::localpart)
            .unwrap_or("")
            .to_owned();
        for _ in 0..SEARCH_ACCOUNTS_MAX / SEARCH_PAGE {
            let page = self.page(domain, after.as_ref())?;
            for entry in &page {
                let fits = entry
                    .jid
                    .localpart()
                    .is_some_and(|l| l.starts_with(&prefix));
                if !fits || found.len() > limit {
                    return Ok(found);
                }
                if !entry.disabled {
                    found.push(entry.jid.clone());
                }
            }
            if page.len() < SEARCH_PAGE {
                break;
            }
            after = page.last().map(|entry| entry.jid.clone());
        }
        Ok(found)
    }

    fn stored(&self, jid: &BareJid) -> Result<Option<Account>, DirectoryError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // One without keys is of somebody whose password is elsewhere: in a chain another back end decides about them.
        Ok(reader.account(jid)?.filter(|a| !a.keys.is_empty()))
    }

    /// Here a login name is a localpart, or the whole address. What can be no address is nobody's.
    fn account(&self, login: &LoginName) -> Result<Option<Account>, DirectoryError> {
        login.account().map_or(Ok(None), |jid| self.stored(&jid))
    }
}

fn person(account: Account) -> Person {
    Person {
        reference: format!("account {}", account.jid.as_str()),
        jid: account.jid,
        disabled: account.disabled,
        profile: Profile::default(),
    }
}

/// The localpart that all words of a search are about, if one account can fit them: an account here has no other name than
/// its address, and no spaces in it. `Some(None)`: nothing is asked of the address. `None`: nobody fits.
fn wanted<'q>(domain: &str, query: &'q SearchQuery) -> Option<Option<(&'q str, bool)>> {
    let given =
        |field: &'q Option<String>| field.as_deref().map(str::trim).filter(|f| !f.is_empty());
    let elsewhere = [&query.given_name, &query.family_name, &query.mail];
    // Local accounts have none of these, and `*` is anything, but not nothing.
    if elsewhere.into_iter().any(|field| given(field).is_some()) {
        return None;
    }
    let mut wanted: Option<(&str, bool)> = None;
    for word in [&query.any, &query.nickname].into_iter().filter_map(given) {
        let (text, prefix) = match word.strip_suffix('*') {
            Some(text) => (text, true),
            None => (word, false),
        };
        // The whole address is as good.
        let text = match text.split_once('@') {
            Some((local, d)) if d.eq_ignore_ascii_case(domain) && !prefix => local,
            Some(_) => return None,
            None => text,
        };
        if wanted.is_some_and(|other| other != (text, prefix)) {
            return None;
        }
        wanted = Some((text, prefix));
    }
    Some(wanted)
}

fn keys_to_check(keys: &[ScramKeys]) -> Option<&ScramKeys> {
    CHECK_ORDER
        .iter()
        .find_map(|hash| keys.iter().find(|key| key.hash == *hash))
}

impl Backend for LocalDirectory {
    fn name(&self) -> &str {
        NAME
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            scram: true,
            password: true,
            search: true,
            sweep: false,
            register: self.writer.is_some(),
            photo: false,
        }
    }

    fn search(
        &self,
        domain: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<SearchAnswer, DirectoryError> {
        let found = match wanted(domain, query) {
            None => Vec::new(),
            Some(None) => self.beginning_with(domain, "", limit)?,
            Some(Some((prefix, true))) => self.beginning_with(domain, prefix, limit)?,
            Some(Some((name, false))) => match BareJid::from_parts(Some(name), domain) {
                Ok(jid) => self
                    .stored(&jid)?
                    .filter(|a| !a.disabled)
                    .map(|a| a.jid)
                    .into_iter()
                    .collect(),
                Err(_) => Vec::new(),
            },
        };
        let more = found.len() > limit;
        let people = found.into_iter().take(limit).map(|jid| Person {
            reference: format!("account {}", jid.as_str()),
            jid,
            disabled: false,
            profile: Profile::default(),
        });
        Ok(SearchAnswer {
            people: people.collect(),
            more,
        })
    }

    fn register(&self, registration: &Registration) -> Result<Registered, DirectoryError> {
        if self.writer.is_none() {
            return Ok(Registered::NotHere);
        }
        // Before the work of PBKDF2; the write decides.
        if self.stored(&registration.jid)?.is_some() {
            return Ok(Registered::Exists);
        }
        let keys = match self.keys(&registration.password)? {
            Ok(keys) => keys,
            Err(refused) => return Ok(refused),
        };
        let account = Account {
            jid: registration.jid.clone(),
            keys,
            disabled: false,
            created_ms: now_unix_ms(),
        };
        self.change(Write::AccountPut {
            account,
            mode: PutMode::Create,
        })
    }

    fn change_password(&self, jid: &BareJid, password: &str) -> Result<Registered, DirectoryError> {
        if self.writer.is_none() {
            return Ok(Registered::NotHere);
        }
        match self.keys(password)? {
            Ok(keys) => self.change(Write::AccountKeys {
                jid: jid.clone(),
                keys,
            }),
            Err(refused) => Ok(refused),
        }
    }

    fn remove(&self, jid: &BareJid) -> Result<Registered, DirectoryError> {
        self.change(Write::AccountDelete { jid: jid.clone() })
    }

    fn photo_at_hand(&self, _: &BareJid) -> Option<Option<Photo>> {
        Some(None)
    }

    fn resolve(&self, login: &LoginName) -> Result<Option<Person>, DirectoryError> {
        Ok(self.account(login)?.map(person))
    }

    fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        Ok(self.stored(jid)?.map(person))
    }

    fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
        // A read of our own store: microseconds. If that fails, whoever may wait asks again and gets the error.
        self.person(jid).ok()
    }

    fn explain(&self, login: &LoginName, password: Option<&str>) -> Vec<ExplainStep> {
        let step = |what: &str, answer: String| ExplainStep::new(what, answer);
        let account = match self.account(login) {
            Ok(account) => account,
            Err(error) => return vec![step("account", error.to_string())],
        };
        let Some(account) = account else {
            return vec![step("account", format!("none for the login name {login}"))];
        };
        let hashes: Vec<&str> = account.keys.iter().map(|k| k.hash.mechanism()).collect();
        let mut steps = vec![
            step("account", account.jid.as_str().to_owned()),
            step("mechanisms", hashes.join(" ")),
        ];
        if account.disabled {
            steps.push(step("disabled", "by `imadmin user disable`".into()).failing(true));
        }
        if let Some(password) = password {
            let (answer, good) = match self.check_password(login, password) {
                Ok(
                    PasswordAnswer::Right(_)
                    | PasswordAnswer::Disabled(_)
                    | PasswordAnswer::Expired(_),
                ) => ("right".into(), true),
                Ok(PasswordAnswer::Wrong) => ("wrong".into(), false),
                Err(error) => (error.to_string(), false),
            };
            steps.push(step("password", answer).failing(!good));
        }
        steps
    }

    fn scram_keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, DirectoryError> {
        let Some(account) = self.account(login)? else {
            return Ok(KeysAnswer::None);
        };
        let keys = account.keys.into_iter().find(|keys| keys.hash == hash);
        Ok(match keys {
            Some(keys) if account.disabled => KeysAnswer::Disabled(account.jid, keys),
            Some(keys) => KeysAnswer::Found(account.jid, keys),
            None => KeysAnswer::None,
        })
    }

    fn check_password(
        &self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError> {
        if password.is_empty() {
            return Ok(PasswordAnswer::Wrong);
        }
        let account = self.account(login)?;
        let keys = account
            .as_ref()
            .and_then(|account| keys_to_check(&account.keys));
        let right = scram::check_password(keys, &self.fake, login.name(), password);
        if let (true, Some(account), Some(known)) = (right, &account, keys)
            && !account.disabled
        {
            self.complete(account, known, password);
        }
        Ok(match account {
            Some(account) if right && account.disabled => PasswordAnswer::Disabled(account.jid),
            Some(account) if right => PasswordAnswer::Right(account.jid),
            _ => PasswordAnswer::Wrong,
        })
    }
}

fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |t| t.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::model::Model;
    use store::{Engine, Writer};

    const ITERATIONS: u32 = 20_000;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn login(name: &str) -> LoginName {
        LoginName::new(name, "x.example").unwrap()
    }

    fn put(
        writer: &mut dyn Writer,
        name: &str,
        password: &str,
        hashes: &[ScramHash],
        disabled: bool,
    ) {
        let keys = derive_account(password, ITERATIONS, hashes).unwrap();
        let account = Account {
            jid: jid(name),
            keys,
            disabled,
            created_ms: 0,
        };
        writer
            .commit(&[Write::AccountPut {
                account,
                mode: PutMode::Create,
            }])
            .unwrap();
    }

    fn directory() -> (Model, LocalDirectory) {
        let model = Model::new();
        let mut writer = model.writer().unwrap();
        put(
            &mut *writer,
            "romeo@x.example",
            "pencil",
            &ScramHash::ALL,
            false,
        );
        put(
            &mut *writer,
            "old@x.example",
            "pencil",
            &[ScramHash::Sha1],
            false,
        );
        put(
            &mut *writer,
            "gone@x.example",
            "pencil",
            &ScramHash::ALL,
            true,
        );
        let directory = LocalDirectory::with_iterations(model.reader().unwrap(), ITERATIONS);
        (model, directory)
    }

    #[test]
    fn passwords_are_right_wrong_or_of_a_disabled_account() {
        let (_model, directory) = directory();
        let right = |name| PasswordAnswer::Right(jid(name));
        for (name, password, expected) in [
            ("romeo", "pencil", right("romeo@x.example")),
            ("ROMEO", "pencil", right("romeo@x.example")),
            ("romeo@x.example", "pencil", right("romeo@x.example")),
            ("romeo@x.example", "Pencil", PasswordAnswer::Wrong),
            ("romeo@x.example", "", PasswordAnswer::Wrong),
            ("romeo@x.example", "\u{7}", PasswordAnswer::Wrong),
            ("romeo@y.example", "pencil", PasswordAnswer::Wrong),
            ("old", "pencil", right("old@x.example")),
            ("romeo/x", "pencil", PasswordAnswer::Wrong),
            ("romeo@x.example/x", "pencil", PasswordAnswer::Wrong),
            (
                "gone",
                "pencil",
                PasswordAnswer::Disabled(jid("gone@x.example")),
            ),
            ("gone@x.example", "wrong", PasswordAnswer::Wrong),
            ("nobody@x.example", "pencil", PasswordAnswer::Wrong),
            ("nobody@x.example", "", PasswordAnswer::Wrong),
        ] {
            assert_eq!(
                directory.check_password(&login(name), password),
                Ok(expected),
                "{name} {password:?}"
            );
        }
    }

    #[test]
    fn keys_are_found_by_hash() {
        let (_model, directory) = directory();
        let keys = |name: &str, hash| directory.scram_keys(&login(name), hash).unwrap();
        assert!(
            matches!(keys("romeo@x.example", ScramHash::Sha512), KeysAnswer::Found(_, keys) if keys.matches("pencil"))
        );
        assert!(matches!(
            keys("gone@x.example", ScramHash::Sha1),
            KeysAnswer::Disabled(..)
        ));
        assert_eq!(keys("old@x.example", ScramHash::Sha256), KeysAnswer::None);
        assert_eq!(
            keys("nobody@x.example", ScramHash::Sha256),
            KeysAnswer::None
        );
        assert!(
            directory
                .person(&jid("gone@x.example"))
                .unwrap()
                .is_some_and(|person| person.disabled)
        );
        assert_eq!(directory.person(&jid("nobody@x.example")), Ok(None));
    }

    /// The store's writer, as the server gives it.
    struct Direct(Mutex<Box<dyn Writer>>);

    impl AccountWriter for Direct {
        fn write(&self, writes: Vec<Write>) -> Result<Vec<Written>, String> {
            let mut writer = self.0.lock().unwrap();
            writer.commit(&writes).map_err(|e| e.to_string())
        }

        fn hand_over(&self, writes: Vec<Write>) -> bool {
            self.write(writes).is_ok()
        }
    }

    fn writing() -> (Model, LocalDirectory) {
        let model = Model::new();
        let mut writer = model.writer().unwrap();
        for name in ["juliet", "julia", "romeo", "rosalind", "jul", "zed"] {
            let name = format!("{name}@x.example");
            put(&mut *writer, &name, "pencil", &[ScramHash::Sha256], false);
        }
        put(
            &mut *writer,
            "julius@x.example",
            "pencil",
            &[ScramHash::Sha256],
            true,
        );
        put(
            &mut *writer,
            "juliet@y.example",
            "pencil",
            &[ScramHash::Sha256],
            false,
        );
        let reader = model.reader().unwrap();
        let directory = LocalDirectory::with_iterations(reader, ITERATIONS)
            .writing(Arc::new(Direct(Mutex::new(writer))));
        (model, directory)
    }

    #[test]
    fn a_right_password_brings_the_keys_that_are_lacking() {
        let (model, directory) = writing();
        let mut reader = model.reader().unwrap();
        let mut hashes = |name: &str| -> Vec<ScramHash> {
            let account = reader.account(&jid(name)).unwrap().unwrap();
            let mut all: Vec<_> = account.keys.iter().map(|k| k.hash).collect();
            all.sort();
            all
        };
        let check = |name, password| directory.check_password(&login(name), password).unwrap();
        // Wrong, or of somebody who may not log in.
        assert_eq!(check("romeo", "pen"), PasswordAnswer::Wrong);
        assert!(matches!(
            check("julius", "pencil"),
            PasswordAnswer::Disabled(_)
        ));
        assert_eq!(hashes("romeo@x.example"), [ScramHash::Sha256]);
        assert_eq!(hashes("julius@x.example"), [ScramHash::Sha256]);
        for _ in 0..2 {
            let right = PasswordAnswer::Right(jid("romeo@x.example"));
            assert_eq!(check("romeo", "pencil"), right);
            let both = [ScramHash::Sha256, ScramHash::Sha512];
            assert_eq!(hashes("romeo@x.example"), both);
        }
        let keys = directory.scram_keys(&login("romeo"), ScramHash::Sha512);
        let Ok(KeysAnswer::Found(_, keys)) = keys else {
            panic!("{keys:?}");
        };
        assert!(keys.matches("pencil"));
    }

    #[test]
    fn accounts_are_found_by_the_beginning_of_their_names() {
        let (_model, directory) = writing();
        let search = |any: &str, nickname: &str, mail: &str, limit| {
            let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
            let query = SearchQuery {
                any: text(any),
                nickname: text(nickname),
                mail: text(mail),
                ..SearchQuery::default()
            };
            let answer = directory.search("x.example", &query, limit).unwrap();
            let people = answer.people.into_iter();
            let names: Vec<String> = people
                .map(|p| p.jid.localpart().unwrap().to_owned())
                .collect();
            (names.join(" "), answer.more)
        };
        for (any, nickname, mail, limit, found, more) in [
            ("jul*", "", "", 10, "jul julia juliet", false),
            ("", "JUL*", "", 10, "jul julia juliet", false),
            ("jul*", "jul*", "", 10, "jul julia juliet", false),
            ("jul*", "rom*", "", 10, "", false),
            ("jul*", "", "", 2, "jul julia", true),
            ("jul*", "", "", 3, "jul julia juliet", false),
            ("*", "", "", 2, "jul julia", true),
            (
                "*",
                "",
                "",
                10,
                "jul julia juliet romeo rosalind zed",
                false,
            ),
            ("jul", "", "", 10, "jul", false),
            ("Juliet", "", "", 10, "juliet", false),
            ("juliet@x.example", "", "", 10, "juliet", false),
            ("juliet@y.example", "", "", 10, "", false),
            ("julius", "", "", 10, "", false),
            ("zz*", "", "", 10, "", false),
            // No field but the address is there to be searched.
            ("", "", "jul*", 10, "", false),
            ("jul*", "", "x*", 10, "", false),
            // What can be no name finds nobody and breaks nothing.
            ("j*l*", "", "", 10, "", false),
            ("jul**", "", "", 10, "", false),
            ("*)(uid=*", "", "", 10, "", false),
            ("jul%", "", "", 10, "", false),
            ("jul_et", "", "", 10, "", false),
            ("jul' OR '1'='1", "", "", 10, "", false),
            ("\0*", "", "", 10, "", false),
            ("jul iet", "", "", 10, "", false),
            ("@x.example", "", "", 10, "", false),
        ] {
            let expected = (found.to_owned(), more);
            let row = format!("{any:?} {nickname:?} {mail:?}");
            assert_eq!(search(any, nickname, mail, limit), expected, "{row}");
        }
    }

    #[test]
    fn a_search_passes_over_disabled_accounts_and_ends() {
        let model = Model::new();
        let mut writer = model.writer().unwrap();
        for n in 0..3 * SEARCH_PAGE {
            let name = format!("a{n:04}@x.example");
            put(&mut *writer, &name, "p", &[], n + 2 < 3 * SEARCH_PAGE);
        }
        let directory = LocalDirectory::new(model.reader().unwrap());
        let query = SearchQuery {
            any: Some("a*".into()),
            ..SearchQuery::default()
        };
        let answer = directory.search("x.example", &query, 1).unwrap();
        assert_eq!((answer.people.len(), answer.more), (1, true));
        model.kill();
        assert!(directory.search("x.example", &query, 1).is_err());
    }

    #[test]
    fn accounts_are_made_changed_and_removed_where_there_is_a_writer() {
        let (_model, directory) = writing();
        let wanted = |name: &str, password: &str| Registration {
            jid: jid(name),
            password: password.into(),
            name: None,
            mail: None,
        };
        let right = |name: &str, password: &str| {
            let answer = directory.check_password(&login(name), password).unwrap();
            answer == PasswordAnswer::Right(jid(&format!("{name}@x.example")))
        };
        let register = |name: &str, password: &str| directory.register(&wanted(name, password));
        assert_eq!(register("nurse@x.example", "pencil"), Ok(Registered::Done));
        assert!(right("nurse", "pencil"));
        assert_eq!(register("nurse@x.example", "other"), Ok(Registered::Exists));
        assert!(right("nurse", "pencil"));
        assert!(matches!(
            register("tybalt@x.example", "bell\u{7}"),
            Ok(Registered::Refused(_))
        ));
        let nurse = jid("nurse@x.example");
        assert_eq!(
            directory.change_password(&nurse, "eraser"),
            Ok(Registered::Done)
        );
        assert!(right("nurse", "eraser") && !right("nurse", "pencil"));
        assert_eq!(directory.remove(&nurse), Ok(Registered::Done));
        assert_eq!(directory.remove(&nurse), Ok(Registered::NotHere));
        assert_eq!(
            directory.change_password(&nurse, "eraser"),
            Ok(Registered::NotHere)
        );
        assert_eq!(directory.person(&nurse), Ok(None));

        let (_model, reading) = self::directory();
        assert!(directory.abilities().register && !reading.abilities().register);
        assert_eq!(
            reading.register(&wanted("a@x.example", "p")),
            Ok(Registered::NotHere)
        );
        assert_eq!(
            reading.remove(&jid("romeo@x.example")),
            Ok(Registered::NotHere)
        );
    }

    #[test]
    fn an_outage_is_never_no_such_user() {
        let (model, directory) = directory();
        model.kill();
        let romeo = jid("romeo@x.example");
        assert!(matches!(
            directory.person(&romeo),
            Err(DirectoryError::Store(_))
        ));
        assert!(matches!(
            directory.scram_keys(&login("romeo"), ScramHash::Sha1),
            Err(DirectoryError::Store(_))
        ));
        assert!(matches!(
            directory.check_password(&login("romeo"), "pencil"),
            Err(DirectoryError::Store(_))
        ));
    }

    #[test]
    fn an_unknown_user_costs_as_much_as_a_wrong_password() {
        let (_model, directory) = directory();
        let fastest = |name: &str| {
            let name = login(name);
            let time = |_| {
                let started = std::time::Instant::now();
                let _ = directory.check_password(&name, "wrong");
                started.elapsed()
            };
            (0..7).map(time).min().unwrap().as_secs_f64()
        };
        let (known, unknown) = (fastest("romeo@x.example"), fastest("nobody@x.example"));
        // The work is the same; a machine under load makes either slower, never one of them free.
        assert!(
            unknown > known / 3.0 && unknown < known * 3.0,
            "known {known} s, unknown {unknown} s"
        );
    }
}
