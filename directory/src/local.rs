//! Accounts in the store.
//!
//! Never: tells by its time whether somebody exists. A wrong password and an unknown name both cost
//! one PBKDF2 with the iterations new accounts get; an account whose keys were imported with another
//! count, or for SHA-512 only, costs what it costs.

use std::sync::{Mutex, PoisonError};
use store::{Account, Reader};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{self, FakeKeys, ITERATIONS_DEFAULT, ScramHash, ScramKeys};

use crate::backend::{Abilities, Backend, ExplainStep, Person, Profile};
use crate::{DirectoryError, KeysAnswer, PasswordAnswer};

/// Its name in configurations: every server has it.
pub const NAME: &str = "local";

/// Cheapest first: a password is checked against the keys of the first hash the account has. The keys
/// made for unknown users are of the first.
const CHECK_ORDER: [ScramHash; 3] = [ScramHash::Sha256, ScramHash::Sha1, ScramHash::Sha512];

/// See the module.
pub struct LocalDirectory {
    /// Held for the time of a read, never for that of a PBKDF2.
    reader: Mutex<Box<dyn Reader>>,
    fake: FakeKeys,
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
        }
    }

    fn stored(&self, jid: &BareJid) -> Result<Option<Account>, DirectoryError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reader.account(jid)?)
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
            ..Abilities::default()
        }
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
        let step = |what: &str, answer: String| ExplainStep {
            what: what.into(),
            answer,
        };
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
            steps.push(step("disabled", "by `imadmin user disable`".into()));
        }
        if let Some(password) = password {
            let answer = match self.check_password(login, password) {
                Ok(PasswordAnswer::Right(_) | PasswordAnswer::Disabled(_)) => "right".into(),
                Ok(PasswordAnswer::Wrong) => "wrong".into(),
                Err(error) => error.to_string(),
            };
            steps.push(step("password", answer));
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
        Ok(match account {
            Some(account) if right && account.disabled => PasswordAnswer::Disabled(account.jid),
            Some(account) if right => PasswordAnswer::Right(account.jid),
            _ => PasswordAnswer::Wrong,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive_account;
    use store::model::Model;
    use store::{Engine, PutMode, Write, Writer};

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
