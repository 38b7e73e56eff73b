//! An administrator's log-in with an account's password, inside the frames of role admin: SCRAM-SHA-256-PLUS, bound to the TLS
//! session (RFC 9266), so that it cannot be relayed; and after it PLAIN, for accounts whose directory checks passwords and gives
//! no keys. proto/LINK.md §8 has the messages.
//!
//! ```text
//! First ──client-first──► Challenged ──client-final──► Done(account) | refused
//!                              └─wrong, in a domain whose directory checks passwords─► Wanted ──PLAIN──► Done(account) | refused
//! ```
//! Whether the password itself is wanted hangs on the domain alone, and it is only for an attempt that SCRAM has failed: so it
//! says nothing of the account, and who has keys here does not show the password.
//!
//! In: JSON of a stranger, keys and verdicts of the directory, random bytes. Out: JSON, and who it is.
//! Never: tells an unknown account from a wrong password; answers anything else before; holds up other log-ins while a directory
//! is asked.

use super::Refusal;
use directory::{KeysAnswer, PasswordAnswer};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{ClientFirst, FakeKeys, ScramHash, ScramServer, TlsFacts};

/// The mechanism of everybody who has keys, with the channel bound.
pub const MECHANISM: &str = "SCRAM-SHA-256-PLUS";
/// The mechanism after it, where the directory has no keys: the password itself, inside this TLS.
pub const PASSWORD_MECHANISM: &str = "PLAIN";
/// The code of a reply that asks for it.
pub const PASSWORD_WANTED: &str = "password-wanted";
const HASH: ScramHash = ScramHash::Sha256;

/// Failures of one account, and of one address, in [`WINDOW`], past which the next attempts are not looked at.
const FAILURES_MAX: u32 = 10;
/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(600);
/// Accounts and addresses that are counted at a time. One address can fill ten places in a window, so this takes hundreds of
/// them; then only certificates and the socket get in.
const GUESSERS_MAX: usize = 4_096;

/// Where keys and verdicts come from. May block.
pub trait Keys {
    /// Keys of the account of a login name.
    fn keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, Refusal>;
    /// Keys of who does not exist.
    fn fake(&self) -> &FakeKeys;
    /// A directory of this domain checks passwords itself.
    fn checks_passwords(&self, domain: &str) -> bool;
    /// What it says of one.
    fn check_password(&self, login: &LoginName, password: &str) -> Result<PasswordAnswer, Refusal>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    id: u64,
    auth: Auth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    mechanism: Option<String>,
    message: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The message may be a password.
        write!(f, "Auth({:?}, ..)", self.mechanism)
    }
}

/// What comes of a message.
#[derive(Debug)]
pub enum Step {
    /// Send this and go on.
    Reply(Vec<u8>),
    /// Send this and close.
    Refused(Refused),
    /// Send this: it is this account, which may still lack the right.
    Done(Vec<u8>, BareJid),
}

/// A log-in that came to nothing.
#[derive(Debug)]
pub struct Refused {
    /// What the stranger is sent.
    pub reply: Vec<u8>,
    /// The code in it.
    pub code: &'static str,
    /// Why, for the administrators of this server: more than the stranger is told.
    pub why: String,
}

/// One log-in.
#[derive(Debug)]
pub struct Login {
    address: IpAddr,
    tls: TlsFacts,
    state: State,
    last_id: u64,
    /// As whom, once that has been said.
    claimed: Option<BareJid>,
}

#[derive(Debug)]
enum State {
    First,
    Challenged(Challenged),
    /// SCRAM was wrong; the directory of the account may know more.
    Wanted,
    Over,
}

#[derive(Debug)]
struct Challenged {
    account: BareJid,
    server: Box<ScramServer>,
    /// What is wrong with the account whatever the password is.
    why: Option<&'static str>,
}

/// What a log-in works with.
pub struct Means<'m> {
    /// The directory.
    pub keys: &'m dyn Keys,
    /// What is counted, of all log-ins.
    pub guesses: &'m Mutex<Guesses>,
    /// Random bytes.
    pub random: &'m mut dyn FnMut(&mut [u8]),
}

impl std::fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Means")
    }
}

impl Means<'_> {
    fn guesses(&self) -> std::sync::MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Login {
    /// Of a stranger at this address, with these facts of its TLS session.
    pub fn new(address: IpAddr, tls: TlsFacts) -> Self {
        Self {
            address,
            tls,
            state: State::First,
            last_id: 0,
            claimed: None,
        }
    }

    /// The id of the last message, for a refusal that is decided elsewhere.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// As whom the stranger wants in, once that has been said.
    pub fn claimed(&self) -> Option<&BareJid> {
        self.claimed.as_ref()
    }

    /// Handles one frame.
    pub fn handle(&mut self, now: Instant, json: &[u8], means: &mut Means<'_>) -> Step {
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
            State::First => self.first(now, &message, means),
            State::Challenged(challenged) => self.last(&message, challenged, means),
            State::Wanted => self.password(&message, means),
            State::Over => wrong(message.id, "it goes on after the end"),
        }
    }

    fn first(&mut self, now: Instant, message: &Message, means: &mut Means<'_>) -> Step {
        if message.auth.mechanism.as_deref() != Some(MECHANISM) {
            let text = format!("the mechanism is {MECHANISM}");
            return refused(message.id, "bad-request", &text);
        }
        let text = message.auth.message.as_bytes();
        let Ok(first) = ClientFirst::parse(HASH, true, true, Some(&self.tls), text) else {
            return wrong(
                message.id,
                "its first message is not that of SCRAM over this TLS",
            );
        };
        let account = BareJid::parse(first.username())
            .ok()
            .filter(|a| a.localpart().is_some() && first.authzid().is_none());
        let Some(account) = account else {
            return wrong(message.id, "it names no account");
        };
        self.claimed = Some(account.clone());
        if !means.guesses().admit(now, &account, self.address) {
            let text = "too many failed attempts; wait some minutes, or use a certificate";
            return refused(message.id, "too-many-attempts", text);
        }
        let Ok(login) = LoginName::new(account.as_str(), account.domainpart()) else {
            return wrong(message.id, "it names no account");
        };
        let found = match means.keys.keys(&login, HASH) {
            Ok(found) => found,
            Err(refusal) => {
                means.guesses().forgive(&account, self.address);
                return refused(message.id, refusal.code, &refusal.text);
            }
        };
        let (account, keys, why) = match found {
            KeysAnswer::Found(account, keys) => (account, keys, None),
            KeysAnswer::Disabled(account, keys) => (account, keys, Some("the account is disabled")),
            KeysAnswer::None => {
                let fake = means.keys.fake().keys(HASH, account.as_str());
                (
                    account,
                    fake,
                    Some("there is no such account, or none with keys here"),
                )
            }
        };
        let (server, challenge) = first.challenge(&keys, why.is_none(), means.random);
        self.state = State::Challenged(Challenged {
            account,
            server: Box::new(server),
            why,
        });
        Step::Reply(reply(message.id, &challenge))
    }

    fn last(&mut self, message: &Message, challenged: Challenged, means: &mut Means<'_>) -> Step {
        let Challenged {
            account,
            server,
            why,
        } = challenged;
        match server.finish(message.auth.message.as_bytes()) {
            Ok(last) => self.done(reply(message.id, &last), account, means),
            Err(_) if self.may_be_plain(means) => {
                self.state = State::Wanted;
                let text =
                    "SCRAM has failed, and a directory of this domain checks passwords itself";
                Step::Reply(error(message.id, PASSWORD_WANTED, text))
            }
            Err(_) => wrong(message.id, why.unwrap_or("wrong password")),
        }
    }

    fn may_be_plain(&self, means: &Means<'_>) -> bool {
        self.claimed
            .as_ref()
            .is_some_and(|account| means.keys.checks_passwords(account.domainpart()))
    }

    /// The password of the account that SCRAM was tried for, and of no other.
    fn password(&mut self, message: &Message, means: &mut Means<'_>) -> Step {
        if message.auth.mechanism.as_deref() != Some(PASSWORD_MECHANISM) {
            let text = format!("the mechanism is {PASSWORD_MECHANISM} now");
            return refused(message.id, "bad-request", &text);
        }
        // RFC 4616 §2, without an authorization identity.
        let parts: Vec<&str> = message.auth.message.split('\0').collect();
        let (["", name, password], Some(claimed)) = (parts.as_slice(), self.claimed.clone()) else {
            return wrong(message.id, "its message is not that of PLAIN");
        };
        let same = BareJid::parse(name).is_ok_and(|named| named == claimed);
        let Some(login) = LoginName::new(claimed.as_str(), claimed.domainpart())
            .ok()
            .filter(|_| same && !password.is_empty())
        else {
            return wrong(message.id, "no password, or another account than before");
        };
        match means.keys.check_password(&login, password) {
            Ok(PasswordAnswer::Right(account)) => self.done(reply(message.id, ""), account, means),
            Ok(PasswordAnswer::Wrong) => {
                wrong(message.id, "wrong password, or nobody of this name")
            }
            Ok(PasswordAnswer::Disabled(_)) => wrong(message.id, "the account is disabled"),
            Ok(PasswordAnswer::Expired(_)) => wrong(message.id, "the password has expired"),
            Err(refusal) => {
                means.guesses().forgive(&claimed, self.address);
                refused(message.id, refusal.code, &refusal.text)
            }
        }
    }

    fn done(&self, reply: Vec<u8>, account: BareJid, means: &Means<'_>) -> Step {
        if let Some(claimed) = &self.claimed {
            means.guesses().forgive(claimed, self.address);
        }
        Step::Done(reply, account)
    }
}

fn reply(id: u64, message: &str) -> Vec<u8> {
    json!({"id": id, "ok": {"auth": message}})
        .to_string()
        .into_bytes()
}

fn error(id: u64, code: &'static str, text: &str) -> Vec<u8> {
    let refusal = Refusal::new(code, text);
    json!({"id": id, "error": refusal}).to_string().into_bytes()
}

impl Refused {
    /// The stranger is told the reason.
    pub fn new(id: u64, code: &'static str, text: &str) -> Self {
        Refused {
            reply: error(id, code, text),
            code,
            why: text.to_owned(),
        }
    }
}

fn refused(id: u64, code: &'static str, text: &str) -> Step {
    Step::Refused(Refused::new(id, code, text))
}

/// The same words whatever was wrong; `why` is for our own log.
fn wrong(id: u64, why: &str) -> Step {
    let code = "not-authorized";
    Step::Refused(Refused {
        reply: error(id, code, "wrong account or password"),
        code,
        why: why.to_owned(),
    })
}

/// Failed attempts, by account and by address. One that goes on counts as failed: so many at once are not more than one after
/// the other.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<Guesser, (u32, Instant)>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Guesser {
    Account(BareJid),
    Address(IpAddr),
}

impl Guesses {
    /// Whether an attempt is looked at; it counts as failed then until it is forgiven. The same for accounts that are there and
    /// those that are not.
    pub fn admit(&mut self, now: Instant, account: &BareJid, address: IpAddr) -> bool {
        let may = self.may_try(now, account, address);
        if may {
            for guesser in guessers(account, address) {
                let (failures, since) = self.0.entry(guesser).or_insert((0, now));
                if now.duration_since(*since) >= WINDOW {
                    (*failures, *since) = (0, now);
                }
                *failures += 1;
            }
        }
        may
    }

    fn may_try(&mut self, now: Instant, account: &BareJid, address: IpAddr) -> bool {
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

    /// An attempt was none: the password was right, or nobody could say.
    pub fn forgive(&mut self, account: &BareJid, address: IpAddr) {
        for guesser in guessers(account, address) {
            if let Some((failures, _)) = self.0.get_mut(&guesser) {
                *failures = failures.saturating_sub(1);
                if *failures == 0 {
                    self.0.remove(&guesser);
                }
            }
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
        fn checks_passwords(&self, domain: &str) -> bool {
            domain == "ldap"
        }
        fn check_password(
            &self,
            login: &LoginName,
            password: &str,
        ) -> Result<PasswordAnswer, Refusal> {
            let account = login.account().unwrap();
            Ok(match (account.as_str(), password) {
                ("carol@ldap", "pencil") => PasswordAnswer::Right(account),
                ("gone@ldap", "pencil") => PasswordAnswer::Disabled(account),
                ("old@ldap", "pencil") => PasswordAnswer::Expired(account),
                ("slow@ldap", _) => return Err(Refusal::new("unavailable", "it is away")),
                _ => PasswordAnswer::Wrong,
            })
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
        attempt_with(
            user,
            password,
            exporter,
            guesses,
            now,
            || json!({"mechanism": "PLAIN", "message": format!("\0{user}\0{password}")}),
        )
    }

    fn attempt_with(
        user: &str,
        password: &str,
        exporter: u8,
        guesses: &Mutex<Guesses>,
        now: Instant,
        plain: impl FnOnce() -> Value,
    ) -> String {
        let accounts = Accounts(FakeKeys::new([7; 32], 4_096));
        attempt_at(&accounts, user, password, exporter, guesses, now, plain)
    }

    fn attempt_at(
        keys: &dyn Keys,
        user: &str,
        password: &str,
        exporter: u8,
        guesses: &Mutex<Guesses>,
        now: Instant,
        plain: impl FnOnce() -> Value,
    ) -> String {
        let mut login = Login::new(address(), facts(1));
        let binding = ClientBinding::Bind(BindingType::TlsExporter, vec![exporter; 32]);
        let mut client = ScramClient::new(HASH, user, password, None, binding, "nonce");
        let first =
            json!({"id": 1, "auth": {"mechanism": MECHANISM, "message": client.first_message()}});
        let mut random = |out: &mut [u8]| out.fill(9);
        let mut send = |json: Value| {
            let text = json.to_string();
            let mut means = Means {
                keys,
                guesses,
                random: &mut random,
            };
            login.handle(now, text.as_bytes(), &mut means)
        };
        let value = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        let code = |refused: &Refused| -> String {
            let code = value(&refused.reply)["error"]["code"].clone();
            assert_eq!(code, refused.code);
            refused.code.to_owned()
        };
        let challenge = match send(first) {
            Step::Reply(bytes) => value(&bytes)["ok"]["auth"].as_str().unwrap().to_owned(),
            Step::Refused(refused) => return code(&refused),
            Step::Done(..) => panic!("without a proof"),
        };
        let last = client.handle_challenge(&challenge).unwrap();
        match send(json!({"id": 2, "auth": {"message": last}})) {
            Step::Done(_, account) => return account.as_str().to_owned(),
            Step::Refused(refused) => return code(&refused),
            Step::Reply(bytes) => assert_eq!(value(&bytes)["error"]["code"], PASSWORD_WANTED),
        }
        match send(json!({"id": 3, "auth": plain()})) {
            Step::Done(_, account) => account.as_str().to_owned(),
            Step::Refused(refused) => code(&refused),
            Step::Reply(_) => panic!("a fourth round"),
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
            // The directory of this domain checks passwords and has no keys.
            ("carol@ldap", "pencil", 1, "carol@ldap"),
            ("Carol@LDAP", "pencil", 1, "carol@ldap"),
            ("carol@ldap", "pen", 1, "not-authorized"),
            ("nobody@ldap", "pencil", 1, "not-authorized"),
            ("gone@ldap", "pencil", 1, "not-authorized"),
            ("old@ldap", "pencil", 1, "not-authorized"),
            ("slow@ldap", "pencil", 1, "unavailable"),
        ] {
            let guesses = Mutex::default();
            let found = attempt(user, password, exporter, &guesses, now);
            assert_eq!(found, result, "{user} {password} {exporter}");
        }
    }

    #[test]
    fn a_password_is_taken_only_of_the_account_that_scram_was_tried_for() {
        let plain = |message: &str| json!({"mechanism": "PLAIN", "message": message});
        for (message, result) in [
            (plain("\0carol@ldap\0pencil"), "carol@ldap"),
            (plain("\0carol@x\0pencil"), "not-authorized"),
            (plain("\0nobody@ldap\0pencil"), "not-authorized"),
            (plain("carol@ldap\0carol@ldap\0pencil"), "not-authorized"),
            (plain("\0carol@ldap\0"), "not-authorized"),
            (plain("\0carol@ldap\0pencil\0"), "not-authorized"),
            (plain(""), "not-authorized"),
            (json!({"message": "\0carol@ldap\0pencil"}), "bad-request"),
        ] {
            let guesses = Mutex::default();
            let said = message.to_string();
            let found = attempt_with("carol@ldap", "pencil", 1, &guesses, Instant::now(), || {
                message
            });
            assert_eq!(found, result, "{said}");
        }
    }

    #[test]
    fn guessing_is_bounded_for_accounts_that_are_there_and_for_others() {
        let now = Instant::now();
        for user in ["carol@x", "nobody@x", "carol@ldap", "nobody@ldap"] {
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
        // What is right, or has no answer, counts for nothing.
        let guesses = Mutex::default();
        for _ in 0..FAILURES_MAX {
            attempt("carol@ldap", "pencil", 1, &guesses, now);
            attempt("slow@ldap", "pencil", 1, &guesses, now);
            attempt("slow@x", "pencil", 1, &guesses, now);
        }
        assert!(guesses.into_inner().unwrap().0.is_empty());
        let mut guesses = Guesses::default();
        for n in 0..GUESSERS_MAX {
            let account = BareJid::parse(&format!("a{n}@x")).unwrap();
            let ip = std::net::Ipv4Addr::from_bits(n as u32 / 5);
            guesses.admit(now, &account, ip.into());
        }
        assert!(guesses.0.len() + 2 > GUESSERS_MAX);
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let carol = BareJid::parse("carol@x").unwrap();
        assert!(!guesses.admit(now, &carol, other));
        assert!(guesses.admit(now + WINDOW, &carol, other));
        assert_eq!(guesses.0.len(), 2);
    }

    /// A directory that is stuck holds up those who are in it, and nobody else.
    #[test]
    fn nobody_waits_for_the_directory_of_another() {
        struct Held<'g>(&'g Mutex<Guesses>, FakeKeys);
        impl Held<'_> {
            fn asked(&self) {
                assert!(self.0.try_lock().is_ok(), "others could not log in now");
            }
        }
        impl Keys for Held<'_> {
            fn keys(&self, _: &LoginName, _: ScramHash) -> Result<KeysAnswer, Refusal> {
                self.asked();
                Ok(KeysAnswer::None)
            }
            fn fake(&self) -> &FakeKeys {
                &self.1
            }
            fn checks_passwords(&self, _: &str) -> bool {
                true
            }
            fn check_password(&self, _: &LoginName, _: &str) -> Result<PasswordAnswer, Refusal> {
                self.asked();
                Ok(PasswordAnswer::Wrong)
            }
        }
        let guesses = Mutex::default();
        let held = Held(&guesses, FakeKeys::new([7; 32], 4_096));
        let found = attempt_at(
            &held,
            "slow@x",
            "pencil",
            1,
            &guesses,
            Instant::now(),
            || json!({"mechanism": "PLAIN", "message": "\0slow@x\0pencil"}),
        );
        assert_eq!(found, "not-authorized");
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
            let mut means = Means {
                keys: &accounts,
                guesses: &Mutex::default(),
                random: &mut |out: &mut [u8]| out.fill(9),
            };
            let step = login.handle(Instant::now(), json.as_bytes(), &mut means);
            assert!(matches!(step, Step::Refused(_)), "{json}");
        }
    }
}
