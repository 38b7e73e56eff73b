//! What a server offers to those who log in.

use crate::scram::{FakeKeys, ScramHash};

/// What a server offers. One object for all negotiations.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Domains served, and what each offers.
    pub domains: Vec<DomainOffer>,
    /// SASL is offered without TLS too.
    pub plaintext: bool,
    /// Failed attempts of one stream (RFC 6120 §6.4.5: at least 2).
    pub attempts_max: usize,
    /// Keys for users who do not exist.
    pub fake: FakeKeys,
    /// Domains where strangers may make themselves accounts (XEP-0077).
    pub register: Vec<String>,
    /// Tokens are given out (XEP-0484).
    pub tokens: bool,
    /// Requests of XEP-0077 that one stream may make before log-in.
    pub register_requests_max: usize,
}

/// One domain. Mechanisms differ by domain, because what its directories can do differs: a password that only a directory
/// can check is no good for SCRAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainOffer {
    /// Prepared.
    pub name: String,
    /// Its mechanisms.
    pub mechanisms: Mechanisms,
}

/// SASL mechanisms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mechanisms {
    /// EXTERNAL, to clients whose certificate names somebody of the domain.
    pub external: bool,
    /// GSSAPI.
    pub gssapi: bool,
    /// SCRAM, the strongest first.
    pub scram: Vec<ScramHash>,
    /// PLAIN.
    pub plain: bool,
    /// Accounts of the domain can be given keys of hashes that they lack (XEP-0480): they are in a store that takes some.
    pub upgrades: bool,
}

impl Offer {
    /// These mechanisms for every domain.
    pub fn alike(domains: &[String], mechanisms: &Mechanisms) -> Vec<DomainOffer> {
        let offer = |name: &String| DomainOffer {
            name: name.clone(),
            mechanisms: mechanisms.clone(),
        };
        domains.iter().map(offer).collect()
    }

    /// What a domain offers; `None`: it is not served.
    pub fn mechanisms(&self, domain: &str) -> Option<&Mechanisms> {
        let offer = self.domains.iter().find(|d| d.name == domain);
        offer.map(|d| &d.mechanisms)
    }

    pub(super) fn first_domain(&self) -> Option<&str> {
        self.domains.first().map(|d| d.name.as_str())
    }
}
