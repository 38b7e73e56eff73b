//! The name somebody logs in with, which is not yet an address: a directory says whose it is.
//!
//! Never: holds a NUL or more than [`LOGIN_NAME_BYTES_MAX`] bytes.

use super::Failure;
use crate::jid::BareJid;
use crate::scram::saslprep;
use std::fmt;

/// Longest login name, in bytes after SASLprep: that of a localpart (RFC 6122 §2.3), which a name often is. An e-mail address is
/// shorter (RFC 5321 §4.5.3.1).
pub const LOGIN_NAME_BYTES_MAX: usize = 1_023;

/// An authentication identity, and the domain of the stream it was said on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoginName {
    name: String,
    domain: String,
}

impl LoginName {
    /// `authcid` as the client wrote it; `domain`: of the stream, prepared.
    ///
    /// # Errors
    /// `malformed-request` if it is empty; `not-authorized` for what cannot be a name (RFC 4013), because it is nobody's.
    pub fn new(authcid: &str, domain: &str) -> Result<Self, Failure> {
        if authcid.is_empty() {
            return Err(Failure::MalformedRequest);
        }
        let name = saslprep(authcid).map_err(|_| Failure::NotAuthorized)?;
        // SASLprep prohibits control characters; that no NUL reaches a directory does not hang on its tables.
        if name.is_empty() || name.len() > LOGIN_NAME_BYTES_MAX || name.contains('\0') {
            return Err(Failure::NotAuthorized);
        }
        Ok(Self {
            name: name.into_owned(),
            domain: domain.to_owned(),
        })
    }

    /// The name, prepared by SASLprep. May hold `@`: an e-mail address, a userPrincipalName.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The domain of the stream.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The account it names where names are localparts: `romeo`, or `romeo@verona.lit` on a stream of `verona.lit`. `None`:
    /// it can be no account of this domain.
    pub fn account(&self) -> Option<BareJid> {
        let account = if self.name.contains('@') {
            // Not with a resource, which an account has not.
            BareJid::parse(&self.name)
        } else {
            BareJid::from_parts(Some(&self.name), &self.domain)
        };
        account
            .ok()
            .filter(|a| a.localpart().is_some() && a.domainpart() == self.domain)
    }

    /// The same text for all spellings that are the same account where names are localparts, so that made-up keys do not
    /// differ where genuine ones would not.
    pub(super) fn folded(&self) -> String {
        match self.account() {
            Some(account) => account.as_str().to_owned(),
            None => format!("{}@{}", self.name.to_lowercase(), self.domain),
        }
    }
}

impl fmt::Display for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.name, self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_accounts() {
        for (authcid, name, account) in [
            ("romeo", "romeo", Some("romeo@verona.lit")),
            ("ROMEO", "ROMEO", Some("romeo@verona.lit")),
            (
                "romeo@verona.lit",
                "romeo@verona.lit",
                Some("romeo@verona.lit"),
            ),
            (
                "Romeo@VERONA.lit",
                "Romeo@VERONA.lit",
                Some("romeo@verona.lit"),
            ),
            // Soft hyphens are mapped to nothing, other spaces to a space (RFC 4013 §2.1).
            ("ro\u{ad}meo", "romeo", Some("romeo@verona.lit")),
            ("ro\u{a0}meo", "ro meo", None),
            ("romeo@mantua.lit", "romeo@mantua.lit", None),
            ("romeo@verona.lit/x", "romeo@verona.lit/x", None),
            ("romeo/x", "romeo/x", None),
            ("@verona.lit", "@verona.lit", None),
            ("romeo@", "romeo@", None),
            ("romeo@@verona.lit", "romeo@@verona.lit", None),
            (
                "CAPULET\\romeo",
                "CAPULET\\romeo",
                Some("capulet\\romeo@verona.lit"),
            ),
            ("*)(uid=*", "*)(uid=*", Some("*)(uid=*@verona.lit")),
        ] {
            let login = LoginName::new(authcid, "verona.lit").unwrap();
            assert_eq!(login.name(), name);
            assert_eq!(
                login.account().as_ref().map(BareJid::as_str),
                account,
                "{authcid}"
            );
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = "x".repeat(LOGIN_NAME_BYTES_MAX + 1);
        for (authcid, failure) in [
            ("", Failure::MalformedRequest),
            ("a\0b", Failure::NotAuthorized),
            ("\u{ad}", Failure::NotAuthorized),
            ("a\u{7}", Failure::NotAuthorized),
            ("a\u{202e}b", Failure::NotAuthorized),
            (&long, Failure::NotAuthorized),
        ] {
            assert_eq!(
                LoginName::new(authcid, "verona.lit"),
                Err(failure),
                "{authcid:?}"
            );
        }
        assert!(LoginName::new(&long[1..], "verona.lit").is_ok());
    }

    #[test]
    fn spellings_of_one_account_fold_to_one() {
        let folded = |name: &str| LoginName::new(name, "verona.lit").unwrap().folded();
        assert_eq!(folded("NOBODY"), folded("nobody@verona.lit"));
        assert_eq!(folded("No Body"), folded("no body"));
        assert_ne!(folded("nobody@mantua.lit"), folded("nobody@verona.lit"));
    }
}
