//! SASL as the server sees it (RFC 6120 §6, RFC 4422): one exchange of one mechanism, and its failures.
//!
//! In: decoded messages of the client, keys of the account. Out: challenges, the verdict.
//! Never: accepts an identity other than the one authenticated; answers an unknown user differently from a wrong password.

use crate::jid::BareJid;
use crate::scram::{
    BASE64, ClientFirst, FakeKeys, ScramError, ScramHash, ScramKeys, ScramServer, TlsFacts,
};
use base64::Engine as _;
use std::any::Any;
use std::fmt;

pub mod external;
mod login_name;
pub mod token;

pub use external::{CertificateName, Identity};
pub use login_name::{LOGIN_NAME_BYTES_MAX, LoginName};
pub use token::{ClientId, TokenAsk, TokenMechanism, TokenProof};

/// Longest message of a client, in bytes after base64. SCRAM with the longest names and nonces stays under 4 KiB.
pub const MESSAGE_BYTES_MAX: usize = 6 * 1024;

/// The same of GSSAPI: a Kerberos ticket lists the groups of its owner, and Active Directory lets it grow to this size. What
/// an element may have before log-in is the narrower bound unless the operator has widened it.
pub const GSSAPI_MESSAGE_BYTES_MAX: usize = 48_000;

/// Why a log-in failed, RFC 6120 §6.5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The client has aborted.
    Aborted,
    /// Right password, but the account may not log in.
    AccountDisabled,
    /// What the client has shown (a Kerberos ticket, a password that is right) is too old.
    CredentialsExpired,
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
    /// The condition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
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
    /// These must be looked up, then [`Exchange::found`].
    NeedAccounts(Vec<Identity>),
    /// GSS-API must look at this message, then [`Exchange::gssapi`].
    NeedGssapi(GssapiAsk),
    /// This proof must be checked, then [`Exchange::authenticated`].
    NeedToken(TokenAsk),
    /// The client is who it says, and is told this.
    Success(BareJid, String),
}

/// The security context of an exchange, between two of its messages. Opaque here: it belongs to whoever speaks to GSS-API.
pub struct GssapiState(pub Box<dyn Any + Send>);

impl fmt::Debug for GssapiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GssapiState")
    }
}

/// A message for GSS-API (RFC 4752).
#[derive(Debug)]
pub struct GssapiAsk {
    /// Of the stream.
    pub domain: String,
    /// What the client has sent.
    pub message: Vec<u8>,
    /// What was given with the last challenge; `None`: a new exchange.
    pub state: Option<GssapiState>,
}

/// What became of it.
#[derive(Debug)]
pub enum GssapiAnswer {
    /// To the client, whose answer is wanted together with the state.
    Challenge(Vec<u8>, GssapiState),
    /// The client has proved its identity. `None`: it belongs to no account here.
    Authenticated {
        /// The account.
        named: Option<Named>,
        /// Whom the client wants to act as; may be empty.
        authzid: String,
    },
    /// It is over.
    Failed(Failure),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedKeys(login, hash) => write!(f, "NeedKeys({login:?}, {hash})"),
            Self::NeedPassword(login, _) => write!(f, "NeedPassword({login:?}, ..)"),
            Self::NeedAccounts(identities) => write!(f, "NeedAccounts({identities:?})"),
            Self::NeedGssapi(_) => f.write_str("NeedGssapi(..)"),
            Self::NeedToken(ask) => write!(f, "NeedToken({ask:?})"),
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

/// What follows an answer of GSS-API.
#[derive(Debug)]
pub enum GssapiNext {
    /// Send this.
    Challenge(Vec<u8>),
    /// Logged in.
    Success(BareJid),
}

#[derive(Debug)]
enum Mechanism {
    External(Vec<Identity>),
    Gssapi(Option<GssapiState>),
    Plain,
    ScramFirst { hash: ScramHash, plus: bool },
    ScramKeys(ClientFirst),
    ScramFinal(ScramServer, Option<Named>),
    Token(TokenMechanism, ClientId),
    Done,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    mechanism: Mechanism,
    domain: String,
    plus_offered: bool,
    tls: Option<TlsFacts>,
    /// What was offered on this connection, as XEP-0474 §4.1 writes it.
    advertised: String,
    login: Option<LoginName>,
    /// Who the client says it is, as it wrote it; for the operator's eyes.
    claimed: Option<String>,
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
            None if name == "EXTERNAL" => Mechanism::External(Vec::new()),
            None if name == "GSSAPI" => Mechanism::Gssapi(None),
            None => Mechanism::Plain,
        };
        Self {
            mechanism,
            domain,
            plus_offered,
            tls,
            advertised: String::new(),
            login: None,
            claimed: None,
            authzid: None,
        }
    }

    /// Of a token's mechanism, by this client.
    pub fn of_token(
        mechanism: TokenMechanism,
        client: ClientId,
        domain: String,
        tls: Option<TlsFacts>,
    ) -> Self {
        Self {
            mechanism: Mechanism::Token(mechanism, client),
            ..Self::new("", domain, false, tls)
        }
    }

    /// What the client was offered: it is told a hash of it, signed with its password (XEP-0474).
    pub fn advertised(mut self, advertised: String) -> Self {
        self.advertised = advertised;
        self
    }

    /// It has said whom it wants to act as.
    pub fn has_authzid(&self) -> bool {
        self.authzid.is_some()
    }

    /// Who the client says it is: not an address, not checked, and at most [`LOGIN_NAME_BYTES_MAX`] bytes long. `None`: it has
    /// not said so yet.
    pub fn claimed(&self) -> Option<&str> {
        self.claimed.as_deref()
    }

    fn claim(&mut self, name: &str) {
        let mut end = name.len().min(LOGIN_NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        self.claimed = Some(name[..end].to_owned());
    }

    /// The client's certificate, which was verified, names these; for EXTERNAL.
    pub fn certified(mut self, identities: Vec<Identity>) -> Self {
        if let Mechanism::External(all) = &mut self.mechanism {
            *all = identities;
        }
        self
    }

    /// Longest message that the client may send now, in bytes after base64.
    pub fn message_bytes_max(&self) -> usize {
        match self.mechanism {
            Mechanism::Gssapi(_) => GSSAPI_MESSAGE_BYTES_MAX,
            _ => MESSAGE_BYTES_MAX,
        }
    }

    /// Handles a message of the client.
    ///
    /// # Errors
    /// The failure to tell it.
    pub fn step(&mut self, message: &[u8]) -> Result<Step, Failure> {
        match std::mem::replace(&mut self.mechanism, Mechanism::Done) {
            Mechanism::External(identities) => self.external(identities, message),
            Mechanism::Gssapi(state) => Ok(Step::NeedGssapi(GssapiAsk {
                domain: self.domain.clone(),
                message: message.to_vec(),
                state,
            })),
            Mechanism::Plain => self.plain(message),
            Mechanism::ScramFirst { hash, plus } => self.scram_first(hash, plus, message),
            Mechanism::ScramFinal(server, named) => {
                let last = server.finish(message).map_err(failure)?;
                let account = self.authenticated(named.ok_or(Failure::NotAuthorized)?)?;
                Ok(Step::Success(account, last))
            }
            Mechanism::Token(mechanism, client) => {
                let (authcid, proof) = token::parse(mechanism, self.tls.as_ref(), message)?;
                let login = self.named(&authcid, None)?;
                Ok(Step::NeedToken(TokenAsk {
                    login,
                    client,
                    proof,
                }))
            }
            Mechanism::ScramKeys(_) | Mechanism::Done => Err(Failure::MalformedRequest),
        }
    }

    /// RFC 4422 appendix A: the message is the authorization identity, or nothing.
    fn external(&mut self, identities: Vec<Identity>, message: &[u8]) -> Result<Step, Failure> {
        self.authzid = external::authzid(message)?;
        match (self.authzid.clone(), identities.first()) {
            (Some(authzid), _) => self.claim(&authzid),
            (None, Some(Identity::Account(account))) => self.claim(account.as_str()),
            (None, Some(Identity::Login(login))) => self.claim(login.name()),
            (None, None) => {}
        }
        let wanted = external::wanted(identities, self.authzid.as_deref())?;
        Ok(Step::NeedAccounts(wanted))
    }

    /// Those of [`Step::NeedAccounts`] that exist. Returns the account the client is logged in as.
    ///
    /// # Errors
    /// XEP-0178 §2: `not-authorized` if there are none, `invalid-authzid` if it is none of them or not clear which; and as
    /// [`Exchange::authenticated`].
    pub fn found(&self, found: Vec<Named>) -> Result<BareJid, Failure> {
        let found = found.into_iter().filter(|n| self.may_be(&n.account));
        let named = external::choose(found.collect(), self.authzid.as_deref())?;
        self.authenticated(named)
    }

    /// GSS-API has answered: a challenge, or the account the client is logged in as.
    ///
    /// # Errors
    /// The failure to tell it.
    pub fn gssapi(&mut self, answer: GssapiAnswer) -> Result<GssapiNext, Failure> {
        match answer {
            GssapiAnswer::Challenge(challenge, state) => {
                self.mechanism = Mechanism::Gssapi(Some(state));
                Ok(GssapiNext::Challenge(challenge))
            }
            GssapiAnswer::Authenticated { named, authzid } => {
                self.authzid = Some(authzid).filter(|a| !a.is_empty());
                let named = named.ok_or(Failure::NotAuthorized)?;
                self.claim(named.account.as_str());
                self.authenticated(named).map(GssapiNext::Success)
            }
            GssapiAnswer::Failed(failure) => Err(failure),
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
        let first = match self.advertised.is_empty() {
            true => first,
            false => first.offered(&self.advertised),
        };
        let login = self.named(first.username(), first.authzid())?;
        self.mechanism = Mechanism::ScramKeys(first);
        Ok(Step::NeedKeys(login, hash))
    }

    /// The client has said who it is, and whom it wants to act as.
    fn named(&mut self, authcid: &str, authzid: Option<&str>) -> Result<LoginName, Failure> {
        self.claim(authcid);
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
            && !is_own(authzid, &named.account)
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

/// Whether an authorization identity is the account's own: its bare JID (RFC 6120 §6.3.8).
/// COMPAT: clients that make it of the same setting as the authentication identity send the localpart alone.
fn is_own(authzid: &str, account: &BareJid) -> bool {
    let authzid = match authzid.contains('@') {
        true => BareJid::parse(authzid),
        false => BareJid::from_parts(Some(authzid), account.domainpart()),
    };
    authzid.ok().as_ref() == Some(account)
}

/// The content of `<auth/>` and `<response/>` (RFC 6120 §6.4.2): `=` stands for an empty message.
///
/// # Errors
/// `incorrect-encoding`; `malformed-request` for what is longer than `bytes_max`.
pub fn decode(text: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    if text == "=" || text.is_empty() {
        return Ok(Vec::new());
    }
    if text.len() > bytes_max * 4 / 3 + 4 {
        return Err(Failure::MalformedRequest);
    }
    BASE64.decode(text).map_err(|_| Failure::IncorrectEncoding)
}

/// The content of `<challenge/>` and `<success/>`.
pub fn encode(message: impl AsRef<[u8]>) -> String {
    BASE64.encode(message)
}
