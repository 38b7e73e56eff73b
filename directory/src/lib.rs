//! Who exists and who may log in.
//!
//! In: addresses, password candidates. Out: facts about people, SCRAM keys, right or wrong.
//! Owns: nothing durable; [`local`] reads the store. Never: on a shard or in the message path (calls
//! block: a read, or milliseconds of PBKDF2), answers an outage with "no such user", logs a secret.
//!
//! One worker thread owns one [`Directory`]. Other kinds (LDAP, a chain of several per domain) are
//! further implementations of the trait; a chain asks its members in order until one knows the
//! person, and stops with the error when one does not answer: whether a later one may be asked then
//! is a decision of the site, not of the outage.

pub mod local;
pub mod password;

pub use local::LocalDirectory;
pub use password::{DeriveError, derive_account};

use store::StoreError;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{ScramHash, ScramKeys};

/// Why a question has no answer now. Never means that somebody does not exist; the asker answers
/// with a temporary failure (`temporary-auth-failure`, a `wait` error).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The accounts in the store could not be read.
    #[error("the account store did not answer: {0}")]
    Store(#[from] StoreError),
}

/// A person as the directory knows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Their address.
    pub jid: BareJid,
    /// Log-in refused by the administrator.
    pub disabled: bool,
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
    /// Wrong, or there is no such account: which of the two is not told, by answer or by time.
    Wrong,
}

/// Answers questions about people. Owned by one worker thread; every call may block.
pub trait Directory: Send {
    /// Whether somebody exists.
    fn lookup(&mut self, jid: &BareJid) -> Result<Option<Person>, DirectoryError>;
    /// Keys for a SCRAM exchange with this hash. One read, no password work.
    fn scram_keys(
        &mut self,
        login: &LoginName,
        hash: ScramHash,
    ) -> Result<KeysAnswer, DirectoryError>;
    /// Checks a password (SASL PLAIN). An empty one is wrong, whatever is stored: an LDAP server takes
    /// it for an anonymous bind (RFC 4513 §5.1.2).
    fn check_password(
        &mut self,
        login: &LoginName,
        password: &str,
    ) -> Result<PasswordAnswer, DirectoryError>;
}
