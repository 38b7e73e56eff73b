//! SASL as the server sees it (RFC 6120 §6, RFC 4422): one exchange of one mechanism, and its failures.
//!
//! In: decoded messages of the client, keys of the account. Out: challenges, the verdict.
//! Never: accepts an identity other than the one authenticated; answers an unknown user differently from a wrong password.

use crate::jid::BareJid;
use crate::scram::{
    BASE64, ClientFirst, FakeKeys, ScramError, ScramHash, ScramKeys, ScramServer, TlsFacts,
};
use base64::Engine as _;
use bytes::Bytes;
use std::fmt;

mod login_name;

pub use login_name::{LOGIN_NAME_BYTES_MAX, LoginName};

/// Longest message of a client, in bytes after base64. SCRAM with the longest names and nonces stays under 4 KiB.
pub const MESSAGE_BYTES_MAX: usize = 6 * 1024;

/// Why a log-in failed, RFC 6120 §6.5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The client has aborted.
    Aborted,
    /// Right password, but the account may not log in.
    AccountDisabled,
    /// The mechanism needs TLS first.
    EncryptionRequired,
    /// Not base64.
    IncorrectEncoding,
    /// The authorization identity is not the account's.
    InvalidAuthzid,
    /// Not offered.
    InvalidMechanism,
    /// Not what the mechanism expects.
    MalformedRequest,
    /// Unknown user or wrong password.
    NotAuthorized,
    /// The directory does not answer.
    TemporaryAuthFailure,
}

impl Failure {
    /// The element.
    pub fn to_bytes(self) -> Bytes {
        let condition = match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        };
        Bytes::from(format!(
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure>"
        ))
    }

    /// It counts as a failed attempt: everything but an outage of ours.
    pub fn counts(self) -> bool {
        self != Self::TemporaryAuthFailure
    }
}

/// What comes next. `Debug` does not print the password.
pub enum Step {
    /// The keys of whose name this is are needed, then [`Exchange::challenge`].
    NeedKeys(LoginName, ScramHash),
    /// This password must be checked, then [`Exchange::authenticated`].
    NeedPassword(LoginName, String),
    /// The client is who it says, and is told this.
    Success(BareJid, String),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedKeys(login, hash) => write!(f, "NeedKeys({login:?}, {hash})"),
            Self::NeedPassword(login, _) => write!(f, "NeedPassword({login:?}, ..)"),
            Self::Success(account, _) => write!(f, "Success({account:?}, ..)"),
        }
    }
}

/// An account a directory has named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// Which.
    pub account: BareJid,
    /// It may not log in: told only to who has proved to be its owner.
    pub disabled: bool,
}

#[derive(Debug)]
enum Mechanism {
    Plain,
    ScramFirst { hash: ScramHash, plus: bool },
    ScramKeys(ClientFirst),
    ScramFinal(ScramServer, Option<Named>),
    Done,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    domain: String,
    plus_offered: bool,
    tls: Option<TlsFacts>,
    login: Option<LoginName>,
    /// Whom the client wants to act as. Checked when the account is known and proved, so that it tells a stranger nothing.
    authzid: Option<String>,
}

impl Exchange {
    /// Of a mechanism that was offered.
    pub fn new(name: &str, domain: String, plus_offered: bool, tls: Option<TlsFacts>) -> Self {
        let (base, plus) = match name.strip_suffix("-PLUS") {
            Some(base) => (base, true),
            None => (name, false),
        };
        let mechanism = match ScramHash::from_mechanism(base) {
            Some(hash) => Mechanism::ScramFirst { hash, plus },
            None => Mechanism::Plain,
        };
        Self {
            mechanism,
            domain,
            plus_offered,
            tls,
            login: None,
            authzid: None,
        }
    }

    /// Handles a message of the client.
    ///
    /// # Errors
    /// The failure to tell it.
    pub fn step(&mut self, message: &[u8]) -> Result<Step, Failure> {
        match std::mem::replace(&mut self.mechanism, Mechanism::Done) {
            Mechanism::Plain => self.plain(message),
            Mechanism::ScramFirst { hash, plus } => self.scram_first(hash, plus, message),
            Mechanism::ScramFinal(server, named) => {
                let last = server.finish(message).map_err(failure)?;
                let account = self.authenticated(named.ok_or(Failure::NotAuthorized)?)?;
                Ok(Step::Success(account, last))
            }
            Mechanism::ScramKeys(_) | Mechanism::Done => Err(Failure::MalformedRequest),
        }
    }

    /// RFC 4616: authzid NUL authcid NUL password.
    fn plain(&mut self, message: &[u8]) -> Result<Step, Failure> {
        let text = std::str::from_utf8(message).map_err(|_| Failure::MalformedRequest)?;
        let mut parts = text.split('\0');
        let (Some(authzid), Some(authcid), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::MalformedRequest);
        };
        let login = self.named(authcid, Some(authzid))?;
        // An empty password is never right, and must not even reach a directory (an LDAP bind would succeed).
        if password.is_empty() {
            return Err(Failure::NotAuthorized);
        }
        Ok(Step::NeedPassword(login, password.to_owned()))
    }

    fn scram_first(
        &mut self,
        hash: ScramHash,
        plus: bool,
        message: &[u8],
    ) -> Result<Step, Failure> {
        let first = ClientFirst::parse(hash, plus, self.plus_offered, self.tls.as_ref(), message)
            .map_err(failure)?;
        let login = self.named(first.username(), first.authzid())?;
        self.mechanism = Mechanism::ScramKeys(first);
        Ok(Step::NeedKeys(login, hash))
    }

    /// The client has said who it is, and whom it wants to act as.
    fn named(&mut self, authcid: &str, authzid: Option<&str>) -> Result<LoginName, Failure> {
        let login = LoginName::new(authcid, &self.domain)?;
        self.login = Some(login.clone());
        self.authzid = authzid.filter(|a| !a.is_empty()).map(str::to_owned);
        Ok(login)
    }

    /// Keys that no password fits, for the name this exchange asks about.
    pub fn fake_keys(&self, fake: &FakeKeys) -> ScramKeys {
        let hash = match &self.mechanism {
            Mechanism::ScramKeys(first) => first.hash(),
            _ => ScramHash::Sha256,
        };
        let user = self.login.as_ref().map(LoginName::folded);
        fake.keys(hash, user.as_deref().unwrap_or_default())
    }

    /// The keys are there: the challenge. `named`: whose they are; `None` if they are made up. An account of another
    /// domain than the stream's is nobody.
    pub fn challenge(
        &mut self,
        keys: &ScramKeys,
        named: Option<Named>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> String {
        match std::mem::replace(&mut self.mechanism, Mechanism::Done) {
            Mechanism::ScramKeys(first) => {
                let named = named.filter(|named| self.may_be(&named.account));
                let (server, challenge) = first.challenge(keys, named.is_some(), random);
                self.mechanism = Mechanism::ScramFinal(server, named);
                challenge
            }
            other => {
                self.mechanism = other;
                String::new()
            }
        }
    }

    /// The client has proved to be the owner of what the directory named. Returns the account it is logged in as.
    ///
    /// # Errors
    /// `not-authorized` for an account outside the stream's domain, `invalid-authzid` if the client wants to be somebody
    /// else (RFC 6120 §6.3.8), `account-disabled`.
    pub fn authenticated(&self, named: Named) -> Result<BareJid, Failure> {
        if !self.may_be(&named.account) {
            return Err(Failure::NotAuthorized);
        }
        if let Some(authzid) = &self.authzid
            && BareJid::parse(authzid).ok().as_ref() != Some(&named.account)
        {
            return Err(Failure::InvalidAuthzid);
        }
        if named.disabled {
            return Err(Failure::AccountDisabled);
        }
        Ok(named.account)
    }

    fn may_be(&self, account: &BareJid) -> bool {
        account.localpart().is_some() && account.domainpart() == self.domain
    }
}

fn failure(e: ScramError) -> Failure {
    match e {
        ScramError::Malformed(_) => Failure::MalformedRequest,
        _ => Failure::NotAuthorized,
    }
}

/// The content of `<auth/>` and `<response/>` (RFC 6120 §6.4.2): `=` stands for an empty message.
///
/// # Errors
/// `incorrect-encoding`; `malformed-request` for what is longer than any mechanism needs.
pub fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    if text == "=" || text.is_empty() {
        return Ok(Vec::new());
    }
    if text.len() > MESSAGE_BYTES_MAX * 4 / 3 + 4 {
        return Err(Failure::MalformedRequest);
    }
    BASE64.decode(text).map_err(|_| Failure::IncorrectEncoding)
}

/// The content of `<challenge/>` and `<success/>`.
pub fn encode(message: &str) -> String {
    BASE64.encode(message)
}
