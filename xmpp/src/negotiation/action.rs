//! What a negotiation wants done, and the answers it gets.

use super::sasl2::{Bind2, UsedToken};
use crate::element::Element;
use crate::error::StreamError;
use crate::jid::BareJid;
use crate::sasl::{Failure, GssapiAsk, Identity, LoginName, Named, TokenAsk};
use crate::scram::{ScramHash, ScramKeys};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// What is to be done, in order. `Debug` does not print passwords.
pub enum Action {
    /// Send this: header, features, SASL element.
    Send(Bytes),
    /// Send these last plain bytes, then switch to TLS and call [`super::Negotiation::secured`].
    StartTls {
        /// The bytes.
        last: Bytes,
        /// A certificate of the client would be of use: EXTERNAL is offered.
        want_certificate: bool,
    },
    /// The stream is restarted: the parser expects a header.
    Restart,
    /// Find the keys, then call [`super::Negotiation::keys`].
    LookScram(LoginName, ScramHash),
    /// Check the password, then call [`super::Negotiation::password`].
    LookPassword(LoginName, String),
    /// Find out which of these exist, then call [`super::Negotiation::accounts`].
    LookAccounts(Vec<Identity>),
    /// Let GSS-API look at this, then call [`super::Negotiation::gssapi`].
    LookGssapi(GssapiAsk),
    /// Check the proof, then call [`super::Negotiation::token`].
    LookToken(TokenAsk),
    /// An IQ of XEP-0077 of somebody who has no account. It is answered by the caller; the negotiation goes on where it was.
    Register {
        /// The IQ.
        element: Box<Element>,
        /// The domain of the stream.
        domain: String,
    },
    /// A component of this domain has proved who it is (XEP-0114). It is told so when it is bound.
    Component(String),
    /// Logged in as this account. What follows is the account's.
    Authenticated(BareJid),
    /// Bind a resource: the one wanted, or one of the server's making. Then [`super::bind_result`] or [`super::bind_error`].
    Bind {
        /// As the client wrote it.
        resource: Option<String>,
        /// The IQ.
        id: String,
    },
    /// Bind a resource with a log-in of SASL 2. Then [`super::Negotiation::bound`] or [`super::Negotiation::bind_inline_refused`].
    BindInline(Box<Bind2>),
    /// A log-in of SASL 2 is done and no resource was asked for: say [`super::Negotiation::logged_in`].
    LoggedIn,
    /// Go on with the session of this SM-ID (XEP-0198 §5); or [`super::Negotiation::resume_refused`].
    Resume {
        /// The SM-ID, as the client says it.
        previd: String,
        /// Stanzas it has, modulo 2^32.
        h: u32,
    },
    /// The account gets these keys beside those it has, if it still has them: [`super::Negotiation::keys_added`] when they are on disk.
    AddKeys {
        /// By which the client has logged in.
        beside: Arc<ScramKeys>,
        /// Of another hash.
        keys: Box<ScramKeys>,
    },
    /// A log-in has failed; for the counters, and for the operator.
    Failed(Box<FailedLogin>),
    /// End the stream with this error. Everything else stops.
    Close(StreamError),
    /// The client has ended the stream.
    End,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Self::StartTls { .. } => f.write_str("StartTls"),
            Self::Restart => f.write_str("Restart"),
            Self::LookScram(login, hash) => write!(f, "LookScram({login:?}, {hash})"),
            Self::LookPassword(login, _) => write!(f, "LookPassword({login:?}, ..)"),
            Self::LookAccounts(all) => write!(f, "LookAccounts({all:?})"),
            Self::LookGssapi(_) => f.write_str("LookGssapi(..)"),
            Self::LookToken(ask) => write!(f, "LookToken({ask:?})"),
            Self::BindInline(bind) => write!(f, "BindInline({bind:?})"),
            Self::AddKeys { keys, .. } => write!(f, "AddKeys({keys:?})"),
            Self::LoggedIn => f.write_str("LoggedIn"),
            // There may be a password in it.
            Self::Register { domain, .. } => write!(f, "Register({domain}, ..)"),
            Self::Component(domain) => write!(f, "Component({domain})"),
            Self::Authenticated(account) => write!(f, "Authenticated({account:?})"),
            Self::Bind { resource, id } => write!(f, "Bind({resource:?}, {id:?})"),
            Self::Resume { h, .. } => write!(f, "Resume(.., {h})"),
            Self::Failed(failed) => write!(f, "Failed({failed:?})"),
            Self::Close(error) => write!(f, "Close({error:?})"),
            Self::End => f.write_str("End"),
        }
    }
}

/// A log-in that has failed. Both texts are the client's own, up to some hundred bytes long, and may hold anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailedLogin {
    /// Who the client says it is; the domain it wants, where it has not come further. `None`: it has not said so.
    pub name: Option<String>,
    /// The mechanism it has chosen. Empty: it has not come so far.
    pub mechanism: String,
    /// Why.
    pub why: LoginFailure,
}

/// Why a log-in has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginFailure {
    /// The client has opened a stream to a domain that is not served.
    #[default]
    NotServed,
    /// The client was told this.
    Sasl(Failure),
    /// The account is in order and so was the proof, but it may not log in (here). The client was told that it is disabled.
    Refused,
}

/// Characters of a mechanism's name that are passed on: the longest have 20 (RFC 4422 §3.1).
pub(super) const MECHANISM_CHARS_MAX: usize = 25;

/// What the directory says of the keys for a login name. The account is the one the directory says the name belongs to.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Here they are.
    Found(BareJid, Arc<ScramKeys>),
    /// No such account, or none of this hash: answered like a wrong password.
    None,
    /// The account may not log in. Told only to who knows the password.
    Disabled(BareJid, Arc<ScramKeys>),
    /// The directory does not answer.
    TemporaryFailure,
}

/// What the directory says of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordCheck {
    /// Right, and the account is this.
    Right(BareJid),
    /// Wrong, or no such account.
    Wrong,
    /// Right, but this account may not log in.
    Disabled(BareJid),
    /// Right, but too old to be good for anything; the account may log in.
    Expired(BareJid),
    /// The directory does not answer.
    TemporaryFailure,
}

/// Which of the people asked about exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// These.
    Found(Vec<Named>),
    /// The directory does not answer.
    TemporaryFailure,
}

/// What became of a token's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenCheck {
    /// It is right.
    Right {
        /// Whose it is.
        named: Named,
        /// The server's proof.
        proof: Vec<u8>,
        /// Which token.
        used: UsedToken,
    },
    /// There is no such token, or no such account.
    Wrong,
    /// It was right, and is too old.
    Expired,
    /// The directory does not answer.
    TemporaryFailure,
}
