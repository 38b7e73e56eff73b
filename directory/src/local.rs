//! Accounts in the store.
//!
//! Never: tells by its time whether somebody exists. A wrong password and an unknown name both cost
//! one PBKDF2 with the iterations new accounts get; an account whose keys were imported with another
//! count, or for SHA-512 only, costs what it costs.

use store::{Account, Reader};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{self, FakeKeys, ITERATIONS_DEFAULT, ScramHash, ScramKeys};

use crate::{Directory, DirectoryError, KeysAnswer, PasswordAnswer, Person};

/// Cheapest first: a password is checked against the keys of the first hash the account has. The keys
/// made for unknown users are of the first.
const CHECK_ORDER: [ScramHash; 3] = [ScramHash::Sha256, ScramHash::Sha1, ScramHash::Sha512];

/// See the module.
pub struct LocalDirectory {
    reader: Box<dyn Reader>,
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
            reader,
            fake: FakeKeys::new([0; 32], iterations),
        }
    }

    /// Here a login name is a localpart, or the whole address. What can be no address is nobody's.
    fn account(&mut self, login: &LoginName) -> Result<Option<Account>, DirectoryError> {
        match login.account() {
            Some(jid) => Ok(self.reader.account(&jid)?),
            None => Ok(None),
        }
    }
}

fn keys_to_check(keys: &[ScramKeys]) -> Option<&ScramKeys> {
    CHECK_ORDER
        .iter()
        .find_map(|hash| keys.iter().find(|key| key.hash == *hash))
}

impl Directory for LocalDirectory {
    fn lookup(&mut self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
        let account = self.reader.account(jid)?;
        Ok(account.map(|account| Person {
            jid: account.jid,
            disabled: account.disabled,
        }))
    }

    fn scram_keys(
        &mut self,
        login: &LoginName,
        hash: ScramHash,
    ) -> Result<KeysAnswer, DirectoryError> {
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
        &mut self,
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
        let (_model, mut directory) = directory();
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
        let (_model, mut directory) = directory();
        let mut keys = |name: &str, hash| directory.scram_keys(&login(name), hash).unwrap();
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
                .lookup(&jid("gone@x.example"))
                .unwrap()
                .is_some_and(|person| person.disabled)
        );
        assert_eq!(directory.lookup(&jid("nobody@x.example")), Ok(None));
    }

    #[test]
    fn an_outage_is_never_no_such_user() {
        let (model, mut directory) = directory();
        model.kill();
        let romeo = jid("romeo@x.example");
        assert!(matches!(
            directory.lookup(&romeo),
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
        let (_model, mut directory) = directory();
        let mut fastest = |name: &str| {
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
