//! EXTERNAL (RFC 4422 appendix A, RFC 6120 §6.3.4, XEP-0178 §2): the client is whom its certificate names.
//!
//! In: names of a certificate that was verified, an authorization identity. Out: whom to look up, and which of the accounts
//! found it is.
//! Never: takes a name of one kind for one of another: an e-mail address is no XMPP address, but a login name that a
//! directory knows or does not.

use super::{Failure, LoginName, Named};
use crate::jid::BareJid;

/// Accounts one certificate may name in one domain. A person with more than a few is unusual; each is a look-up.
pub const IDENTITIES_MAX: usize = 16;

/// Somebody to look up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// By address.
    Account(BareJid),
    /// By what they log in with.
    Login(LoginName),
}

/// A name that a certificate gives its owner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CertificateName {
    /// An `id-on-xmppAddr` of the subjectAltName (RFC 6120 §13.7.1.4): an XMPP address.
    XmppAddr(String),
    /// What the site takes for a login name: an `rfc822Name`, the common name.
    Login(String),
}

/// Whom the names may mean on a stream of this domain, each once. Empty: EXTERNAL is of no use to the client.
pub fn identities(names: &[CertificateName], domain: &str) -> Vec<Identity> {
    let mut out: Vec<Identity> = Vec::new();
    for name in names {
        let identity = match name {
            CertificateName::XmppAddr(text) => BareJid::parse(text)
                .ok()
                .filter(|jid| jid.localpart().is_some() && jid.domainpart() == domain)
                .map(Identity::Account),
            CertificateName::Login(text) => LoginName::new(text, domain).ok().map(Identity::Login),
        };
        if let Some(identity) = identity
            && !out.contains(&identity)
            && out.len() < IDENTITIES_MAX
        {
            out.push(identity);
        }
    }
    out
}

/// The client's message: whom it wants to act as, or nothing.
pub(super) fn authzid(message: &[u8]) -> Result<Option<String>, Failure> {
    match std::str::from_utf8(message) {
        Ok(text) if text.contains('\0') => Err(Failure::MalformedRequest),
        Ok(text) => Ok(Some(text.to_owned()).filter(|t| !t.is_empty())),
        Err(_) => Err(Failure::MalformedRequest),
    }
}

/// Those that have to be looked up: with an authorization identity, of the addresses only that one.
pub(super) fn wanted(
    identities: Vec<Identity>,
    authzid: Option<&str>,
) -> Result<Vec<Identity>, Failure> {
    let Some(authzid) = authzid else {
        return Ok(identities);
    };
    // XEP-0178 §2: an identity that the certificate does not give.
    let authzid = BareJid::parse(authzid).map_err(|_| Failure::InvalidAuthzid)?;
    let may_be = |identity: &Identity| match identity {
        Identity::Account(jid) => *jid == authzid,
        Identity::Login(_) => true,
    };
    let wanted: Vec<Identity> = identities.into_iter().filter(may_be).collect();
    if wanted.is_empty() {
        return Err(Failure::InvalidAuthzid);
    }
    Ok(wanted)
}

/// Which of the accounts that exist the client is: the one it wants to be, or the only one.
pub(super) fn choose(found: Vec<Named>, authzid: Option<&str>) -> Result<Named, Failure> {
    let mut found = found;
    found.sort_by(|a, b| a.account.as_str().cmp(b.account.as_str()));
    found.dedup_by(|a, b| a.account == b.account);
    if found.is_empty() {
        return Err(Failure::NotAuthorized);
    }
    match authzid {
        Some(authzid) => {
            let authzid = BareJid::parse(authzid).map_err(|_| Failure::InvalidAuthzid)?;
            let named = found.into_iter().find(|n| n.account == authzid);
            named.ok_or(Failure::InvalidAuthzid)
        }
        // With more than one the client has to say which.
        None if found.len() > 1 => Err(Failure::InvalidAuthzid),
        None => found.pop().ok_or(Failure::NotAuthorized),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    #[test]
    fn names_and_whom_they_mean_in_a_domain() {
        let xmpp = |text: &str| CertificateName::XmppAddr(text.to_owned());
        let login = |text: &str| CertificateName::Login(text.to_owned());
        let account = |text: &str| Identity::Account(jid(text));
        let named = |text: &str| Identity::Login(LoginName::new(text, "verona.lit").unwrap());
        for (names, expected) in [
            (vec![], vec![]),
            (
                vec![xmpp("romeo@verona.lit")],
                vec![account("romeo@verona.lit")],
            ),
            (
                vec![xmpp("ROMEO@Verona.lit"), xmpp("romeo@verona.lit")],
                vec![account("romeo@verona.lit")],
            ),
            (
                vec![xmpp("romeo@mantua.lit"), xmpp("romeo@verona.lit")],
                vec![account("romeo@verona.lit")],
            ),
            (
                vec![
                    xmpp("verona.lit"),
                    xmpp("romeo@verona.lit/orchard"),
                    xmpp("romeo\0@verona.lit"),
                    xmpp("romeo@verona.lit\0.evil.lit"),
                    xmpp(""),
                    xmpp("@verona.lit"),
                ],
                vec![],
            ),
            (
                vec![login("Romeo Montague"), login(""), login("a\0b")],
                vec![named("Romeo Montague")],
            ),
            (
                vec![login("romeo@mail.verona.lit")],
                vec![named("romeo@mail.verona.lit")],
            ),
        ] {
            assert_eq!(identities(&names, "verona.lit"), expected, "{names:?}");
        }
        let many: Vec<_> = (0..1000)
            .map(|n| xmpp(&format!("u{n}@verona.lit")))
            .collect();
        assert_eq!(identities(&many, "verona.lit").len(), IDENTITIES_MAX);
    }

    #[test]
    fn which_account_it_is() {
        let named = |text: &str| Named {
            account: jid(text),
            disabled: false,
        };
        let (romeo, roger) = (named("romeo@verona.lit"), named("roger@verona.lit"));
        for (found, authzid, expected) in [
            (vec![], None, Err(Failure::NotAuthorized)),
            (
                vec![],
                Some("romeo@verona.lit"),
                Err(Failure::NotAuthorized),
            ),
            (vec![romeo.clone()], None, Ok(romeo.clone())),
            (vec![romeo.clone(), romeo.clone()], None, Ok(romeo.clone())),
            (
                vec![romeo.clone()],
                Some("ROMEO@verona.lit"),
                Ok(romeo.clone()),
            ),
            (
                vec![romeo.clone()],
                Some("roger@verona.lit"),
                Err(Failure::InvalidAuthzid),
            ),
            (
                vec![romeo.clone()],
                Some("romeo@verona.lit/x"),
                Err(Failure::InvalidAuthzid),
            ),
            (
                vec![romeo.clone(), roger.clone()],
                None,
                Err(Failure::InvalidAuthzid),
            ),
            (
                vec![romeo, roger.clone()],
                Some("roger@verona.lit"),
                Ok(roger),
            ),
        ] {
            assert_eq!(
                choose(found.clone(), authzid),
                expected,
                "{found:?} {authzid:?}"
            );
        }
    }

    #[test]
    fn an_address_that_is_wanted_is_the_only_one_looked_up() {
        let all = vec![
            Identity::Account(jid("romeo@verona.lit")),
            Identity::Account(jid("roger@verona.lit")),
        ];
        assert_eq!(wanted(all.clone(), None), Ok(all.clone()));
        assert_eq!(
            wanted(all.clone(), Some("roger@verona.lit")),
            Ok(all[1..].to_vec())
        );
        for authzid in ["juliet@verona.lit", "@", "roger@verona.lit/x", "verona.lit"] {
            assert_eq!(
                wanted(all.clone(), Some(authzid)),
                Err(Failure::InvalidAuthzid)
            );
        }
        let login = vec![Identity::Login(
            LoginName::new("Romeo", "verona.lit").unwrap(),
        )];
        assert_eq!(wanted(login.clone(), Some("romeo@verona.lit")), Ok(login));
        assert_eq!(authzid(b"a\0b"), Err(Failure::MalformedRequest));
        assert_eq!(authzid(b"\xff"), Err(Failure::MalformedRequest));
        assert_eq!(authzid(b""), Ok(None));
    }
}
