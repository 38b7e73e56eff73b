//! An administrator's log-in with an account's password: SCRAM-SHA-256-PLUS inside the frames of role admin, bound to the TLS
//! session (RFC 9266), so that it cannot be relayed. proto/LINK.md §8 has the messages.
//!
//! ```text
//! First ──client-first──► Challenged ──client-final──► Done(account) | refused
//! ```
//! In: JSON of a stranger, keys of the directory, random bytes. Out: JSON, and who it is.
//! Never: tells an unknown account from a wrong password; answers anything else before.

use super::Refusal;
use directory::KeysAnswer;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{ClientFirst, FakeKeys, ScramHash, ScramServer, TlsFacts};

/// The one mechanism: what every account's secrets have, with the channel bound.
pub const MECHANISM: &str = "SCRAM-SHA-256-PLUS";
const HASH: ScramHash = ScramHash::Sha256;

/// Failures of one account, and of one address, in [`WINDOW`], past which the next attempts are not looked at.
const FAILURES_MAX: u32 = 10;
/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(600);
/// Accounts and addresses that are counted at a time. One address can fill ten places in a window, so this takes hundreds of
/// them; then only certificates and the socket get in.
const GUESSERS_MAX: usize = 4_096;

/// Where keys come from. May block.
pub trait Keys {
    /// Keys of the account of a login name.
    fn keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, Refusal>;
    /// Keys of who does not exist.
    fn fake(&self) -> &FakeKeys;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    id: u64,
    auth: Auth,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    mechanism: Option<String>,
    message: String,
}

/// What comes of a message.
#[derive(Debug)]
pub enum Step {
    /// Send this and go on.
    Reply(Vec<u8>),
    /// Send this and close.
    Refused(Vec<u8>),
    /// Send this: it is this account, which may still lack the right.
    Done(Vec<u8>, BareJid),
}

/// One log-in.
#[derive(Debug)]
pub struct Login {
    address: IpAddr,
    tls: TlsFacts,
    state: State,
    last_id: u64,
}

#[derive(Debug)]
enum State {
    First,
    Challenged(BareJid, Box<ScramServer>),
    Over,
}

impl Login {
    /// Of a stranger at this address, with these facts of its TLS session.
    pub fn new(address: IpAddr, tls: TlsFacts) -> Self {
        Self {
            address,
            tls,
            state: State::First,
            last_id: 0,
        }
    }

    /// The id of the last message, for a refusal that is decided elsewhere.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Handles one frame.
    pub fn handle(
        &mut self,
        now: Instant,
        json: &[u8],
        keys: &dyn Keys,
        guesses: &Mutex<Guesses>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Step {
        let state = std::mem::replace(&mut self.state, State::Over);
        let message: Message = match serde_json::from_slice(json) {
            Ok(message) => message,
            Err(_) => {
                let text = "no certificate of an administrator, so a log-in comes first";
                return refused(0, "not-authorized", text);
            }
        };
        self.last_id = message.id;
        match state {
            State::First => self.first(now, &message, keys, guesses, random),
            State::Challenged(account, server) => {
                match server.finish(message.auth.message.as_bytes()) {
                    Ok(last) => Step::Done(reply(message.id, &last), account),
                    Err(_) => {
                        locked(guesses).failed(now, &account, self.address);
                        wrong(message.id)
                    }
                }
            }
            State::Over => wrong(message.id),
        }
    }

    fn first(
        &mut self,
        now: Instant,
        message: &Message,
        keys: &dyn Keys,
        guesses: &Mutex<Guesses>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Step {
        if message.auth.mechanism.as_deref() != Some(MECHANISM) {
            let text = format!("the mechanism is {MECHANISM}");
            return refused(message.id, "bad-request", &text);
        }
        let text = message.auth.message.as_bytes();
        let Ok(first) = ClientFirst::parse(HASH, true, true, Some(&self.tls), text) else {
            return wrong(message.id);
        };
        let account = BareJid::parse(first.username())
            .ok()
            .filter(|a| a.localpart().is_some() && first.authzid().is_none());
        let Some(account) = account else {
            return wrong(message.id);
        };
        // Not held while a directory is asked: a slow one is no other administrator's matter.
        if !locked(guesses).may_try(now, &account, self.address) {
            let text = "too many failed attempts; wait some minutes, or use a certificate";
            return refused(message.id, "too-many-attempts", text);
        }
        let Ok(login) = LoginName::new(account.as_str(), account.domainpart()) else {
            return wrong(message.id);
        };
        let found = match keys.keys(&login, HASH) {
            Ok(found) => found,
            Err(refusal) => return refused(message.id, refusal.code, &refusal.text),
        };
        let (account, keys, genuine) = match found {
            KeysAnswer::Found(account, keys) => (account, keys, true),
            KeysAnswer::Disabled(account, keys) => (account, keys, false),
            KeysAnswer::None => {
                let fake = keys.fake().keys(HASH, account.as_str());
                (account, fake, false)
            }
        };
        let (server, challenge) = first.challenge(&keys, genuine, random);
        self.state = State::Challenged(account, Box::new(server));
        Step::Reply(reply(message.id, &challenge))
    }
}

fn reply(id: u64, message: &str) -> Vec<u8> {
    json!({"id": id, "ok": {"auth": message}})
        .to_string()
        .into_bytes()
}

/// The refusal as a frame.
pub fn refused(id: u64, code: &'static str, text: &str) -> Step {
    let refusal = Refusal::new(code, text);
    Step::Refused(json!({"id": id, "error": refusal}).to_string().into_bytes())
}

fn locked(guesses: &Mutex<Guesses>) -> MutexGuard<'_, Guesses> {
    guesses.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong(id: u64) -> Step {
    refused(id, "not-authorized", "wrong account or password")
}

/// Failed attempts, by account and by address.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<Guesser, (u32, Instant)>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Guesser {
    Account(BareJid),
    Address(IpAddr),
}

impl Guesses {
    /// Whether an attempt is looked at. The same for accounts that are there and those that are not.
    pub fn may_try(&mut self, now: Instant, account: &BareJid, address: IpAddr) -> bool {
        if self.0.len() + 2 > GUESSERS_MAX {
            self.0
                .retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
            if self.0.len() + 2 > GUESSERS_MAX {
                return false;
            }
        }
        guessers(account, address).into_iter().all(|guesser| {
            self.0.get(&guesser).is_none_or(|(failures, since)| {
                *failures < FAILURES_MAX || now.duration_since(*since) >= WINDOW
            })
        })
    }

    /// Counts a failure.
    pub fn failed(&mut self, now: Instant, account: &BareJid, address: IpAddr) {
        for guesser in guessers(account, address) {
            let (failures, since) = self.0.entry(guesser).or_insert((0, now));
            if now.duration_since(*since) >= WINDOW {
                (*failures, *since) = (0, now);
            }
            *failures += 1;
        }
    }
}

fn guessers(account: &BareJid, address: IpAddr) -> [Guesser; 2] {
    [Guesser::Account(account.clone()), Guesser::Address(address)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use xmpp::scram::client::{ClientBinding, ScramClient};
    use xmpp::scram::{BindingType, derive};

    struct Accounts(FakeKeys);

    impl Keys for Accounts {
        fn keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, Refusal> {
            let keys = || derive(hash, "pencil", &[1; 16], 4_096).unwrap();
            let account = login.account().unwrap();
            Ok(match account.as_str() {
                "carol@x" => KeysAnswer::Found(account, keys()),
                "gone@x" => KeysAnswer::Disabled(account, keys()),
                "slow@x" => return Err(Refusal::new("unavailable", "the directory is away")),
                _ => KeysAnswer::None,
            })
        }
        fn fake(&self) -> &FakeKeys {
            &self.0
        }
    }

    fn facts(exporter: u8) -> TlsFacts {
        TlsFacts {
            version: 0x0304,
            exporter: Some([exporter; 32]),
            server_end_point: None,
        }
    }

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    /// The code of the refusal, or the account.
    fn attempt(
        user: &str,
        password: &str,
        exporter: u8,
        guesses: &Mutex<Guesses>,
        now: Instant,
    ) -> String {
        let accounts = Accounts(FakeKeys::new([7; 32], 4_096));
        let mut login = Login::new(address(), facts(1));
        let binding = ClientBinding::Bind(BindingType::TlsExporter, vec![exporter; 32]);
        let mut client = ScramClient::new(HASH, user, password, None, binding, "nonce");
        let first =
            json!({"id": 1, "auth": {"mechanism": MECHANISM, "message": client.first_message()}});
        let mut random = |out: &mut [u8]| out.fill(9);
        let mut send = |json: Value| {
            let text = json.to_string();
            login.handle(now, text.as_bytes(), &accounts, guesses, &mut random)
        };
        let code = |bytes: &[u8]| -> String {
            let reply: Value = serde_json::from_slice(bytes).unwrap();
            reply["error"]["code"].as_str().unwrap().to_owned()
        };
        let challenge = match send(first) {
            Step::Reply(bytes) => {
                let reply: Value = serde_json::from_slice(&bytes).unwrap();
                reply["ok"]["auth"].as_str().unwrap().to_owned()
            }
            Step::Refused(bytes) => return code(&bytes),
            Step::Done(..) => panic!("without a proof"),
        };
        let last = client.handle_challenge(&challenge).unwrap();
        match send(json!({"id": 2, "auth": {"message": last}})) {
            Step::Done(_, account) => account.as_str().to_owned(),
            Step::Refused(bytes) => code(&bytes),
            Step::Reply(_) => panic!("a third round"),
        }
    }

    #[test]
    fn only_the_right_password_over_this_very_connection_gets_in() {
        let now = Instant::now();
        for (user, password, exporter, result) in [
            ("carol@x", "pencil", 1, "carol@x"),
            ("Carol@X", "pencil", 1, "carol@x"),
            ("carol@x", "pen", 1, "not-authorized"),
            ("carol@x", "pencil", 2, "not-authorized"),
            ("gone@x", "pencil", 1, "not-authorized"),
            ("nobody@x", "pencil", 1, "not-authorized"),
            ("x", "pencil", 1, "not-authorized"),
            ("slow@x", "pencil", 1, "unavailable"),
        ] {
            let guesses = Mutex::default();
            let found = attempt(user, password, exporter, &guesses, now);
            assert_eq!(found, result, "{user} {password} {exporter}");
        }
    }

    #[test]
    fn guessing_is_bounded_for_accounts_that_are_there_and_for_others() {
        let now = Instant::now();
        for user in ["carol@x", "nobody@x"] {
            let guesses = Mutex::default();
            for _ in 0..FAILURES_MAX {
                assert_eq!(attempt(user, "pen", 1, &guesses, now), "not-authorized");
            }
            assert_eq!(
                attempt(user, "pencil", 1, &guesses, now),
                "too-many-attempts"
            );
            // The address is bounded too.
            assert_eq!(
                attempt("carol@x", "pencil", 1, &guesses, now),
                "too-many-attempts"
            );
            let later = attempt("carol@x", "pencil", 1, &guesses, now + WINDOW);
            assert_eq!(later, "carol@x");
        }
        let mut guesses = Guesses::default();
        for n in 0..GUESSERS_MAX {
            let account = BareJid::parse(&format!("a{n}@x")).unwrap();
            guesses.failed(now, &account, address());
        }
        assert_eq!(guesses.0.len(), GUESSERS_MAX + 1);
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let carol = BareJid::parse("carol@x").unwrap();
        assert!(!guesses.may_try(now, &carol, other));
        assert!(guesses.may_try(now + WINDOW, &carol, other));
        assert!(guesses.0.is_empty());
    }

    /// A directory that is stuck holds up those who are in it, and nobody else.
    #[test]
    fn nobody_waits_for_the_directory_of_another() {
        struct Held<'g>(&'g Mutex<Guesses>, FakeKeys);
        impl Keys for Held<'_> {
            fn keys(&self, _: &LoginName, _: ScramHash) -> Result<KeysAnswer, Refusal> {
                assert!(self.0.try_lock().is_ok(), "others could not log in now");
                Ok(KeysAnswer::None)
            }
            fn fake(&self) -> &FakeKeys {
                &self.1
            }
        }
        let guesses = Mutex::default();
        let held = Held(&guesses, FakeKeys::new([7; 32], 4_096));
        let mut login = Login::new(address(), facts(1));
        let binding = ClientBinding::Bind(BindingType::TlsExporter, vec![1; 32]);
        let client = ScramClient::new(HASH, "slow@x", "pencil", None, binding, "nonce");
        let first =
            json!({"id": 1, "auth": {"mechanism": MECHANISM, "message": client.first_message()}});
        let mut random = |out: &mut [u8]| out.fill(9);
        let first = first.to_string();
        let step = login.handle(
            Instant::now(),
            first.as_bytes(),
            &held,
            &guesses,
            &mut random,
        );
        assert!(matches!(step, Step::Reply(_)));
    }

    #[test]
    fn nothing_but_a_log_in_is_answered_before_it() {
        let accounts = Accounts(FakeKeys::new([7; 32], 4_096));
        for json in [
            r#"{"id":1,"command":"status"}"#,
            r#"{"id":1,"auth":{"mechanism":"PLAIN","message":"x"}}"#,
            r#"{"id":1,"auth":{"mechanism":"SCRAM-SHA-256-PLUS","message":"n,,n=carol@x,r=abc"}}"#,
            r#"{"id":1,"auth":{"mechanism":"SCRAM-SHA-256-PLUS","message":"p=tls-exporter,a=root@x,n=carol@x,r=abc"}}"#,
            "",
        ] {
            let mut login = Login::new(address(), facts(1));
            let guesses = Mutex::default();
            let mut random = |out: &mut [u8]| out.fill(9);
            let step = login.handle(
                Instant::now(),
                json.as_bytes(),
                &accounts,
                &guesses,
                &mut random,
            );
            assert!(matches!(step, Step::Refused(_)), "{json}");
        }
    }
}
