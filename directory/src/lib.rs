//! Who exists and who may log in.
//!
//! In: addresses, password candidates. Out: facts about people, SCRAM keys, right or wrong.
//! Owns: nothing durable; [`local`] reads the store. Never: on a shard or in the message path (calls
//! block: a read, or milliseconds of PBKDF2), answers an outage with "no such user", logs a secret.
//!
//! ```text
//!   shard ─► worker ─► Site (per domain a chain) ─► Cached ─► a back end: LDAP, IMAP
//!                                              └───────────► local accounts
//!   sweeper ─────────────────────────────────────► Population ─► every shard
//! ```
//! A back end ([`backend::Backend`]) is a file of its own. [`site::Site`] decides which is asked, [`cached::Cached`] keeps
//! what it said, [`population::Population`] is what sweeps have found: groups, names, who is gone.

pub mod backend;
pub mod cache;
pub mod cached;
mod dial;
pub mod gssapi;
mod health;
pub mod imap;
pub mod ldap;
pub mod local;
pub mod password;
pub mod population;
mod servers;
pub mod site;
mod tls;

pub use local::LocalDirectory;
pub use password::{DeriveError, derive_account};

use store::StoreError;
use xmpp::jid::BareJid;
use xmpp::scram::ScramKeys;

/// Why a question has no answer now. Never means that somebody does not exist; the asker answers
/// with a temporary failure (`temporary-auth-failure`, a `wait` error).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The accounts in the store could not be read.
    #[error("the account store did not answer: {0}")]
    Store(#[from] StoreError),
    /// A directory could not be reached, did not answer in time, or gave an answer that says nothing.
    #[error("the directory {directory} has no answer: {reason}")]
    Unavailable {
        /// Its name in the configuration.
        directory: String,
        /// What happened.
        reason: String,
    },
}

/// Keys for a SCRAM exchange, and the account the login name belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeysAnswer {
    /// Here they are.
    Found(BareJid, ScramKeys),
    /// Here they are, but the account may not log in: to be told only to who knows the password.
    Disabled(BareJid, ScramKeys),
    /// No such account, or none with this hash: the exchange goes on with `xmpp::scram::FakeKeys`,
    /// so that it looks like a wrong password.
    None,
}

/// What a password is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PasswordAnswer {
    /// Right: the login name belongs to this account.
    Right(BareJid),
    /// Right, but this account may not log in.
    Disabled(BareJid),
    /// Right, but it has expired, or must be changed before it is good for anything: the account itself may log in.
    Expired(BareJid),
    /// Wrong, or there is no such account: which of the two is not told, by answer or by time.
    Wrong,
}
