//! Tokens to log in with (XEP-0484), as they are kept.

use std::collections::{HashMap, VecDeque};
use xmpp::jid::BareJid;
use xmpp::sasl::{ClientId, TokenMechanism};

/// Owners of whom it is remembered when they were last revoked something: more than can be while one client logs in. Beyond it no
/// token is given out that was granted before the oldest of these.
const REVOCATIONS_MAX: usize = 65_536;

/// A token that was given to one client of an account. With its secret anybody is that client: it is kept as it is, because the
/// proof is made of it. A client has one that it uses, and maybe a newer one that it has not used yet.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginToken {
    /// Whose it is.
    pub client: ClientId,
    /// What it is good for.
    pub mechanism: TokenMechanism,
    /// The secret.
    pub secret: String,
    /// When it was made: its name among the client's.
    pub issued_ms: u64,
    /// From when on it is good for nothing.
    pub expires_ms: u64,
    /// The client has logged in with it.
    pub used: bool,
    /// The client's program, as it says.
    pub software: Option<String>,
    /// What that runs on, as it says.
    pub device: Option<String>,
}

impl std::fmt::Debug for LoginToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginToken")
            .field("client", &self.client)
            .field("mechanism", &self.mechanism.name())
            .field("issued_ms", &self.issued_ms)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// A change of the tokens of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenChange {
    /// A new one. Those of the client that it has not used go; so do those that are too old, and all of the clients that have had
    /// none for longest, beyond `clients_max`. It is refused if anything was revoked of the owner since it was granted: then it might
    /// outlive what it was granted for.
    Issue {
        /// It.
        token: LoginToken,
        /// Clients of an account that may have some.
        clients_max: usize,
        /// What [`Reader::revocations`](crate::Reader::revocations) said before it was asked whether the client may have it.
        revocations: u64,
    },
    /// The client has logged in with this one: it is not without, so its older ones go.
    Used {
        /// The client.
        client: ClientId,
        /// Which.
        issued_ms: u64,
    },
    /// Those of a client, or of all clients, are good for nothing any more.
    Revoke {
        /// The client; `None`: all.
        client: Option<ClientId>,
        /// All but this one, by when it was made.
        but: Option<u64>,
    },
}

/// Applies a change to all the tokens of one account: what every engine does.
pub(crate) fn apply(tokens: &mut Vec<LoginToken>, change: &TokenChange) {
    match change {
        TokenChange::Issue {
            token, clients_max, ..
        } => {
            tokens.retain(|t| t.expires_ms > token.issued_ms);
            tokens.retain(|t| t.client != token.client || t.used && t.issued_ms != token.issued_ms);
            tokens.push(token.clone());
            let mut newest: Vec<(u64, ClientId)> = Vec::new();
            for t in tokens.iter() {
                match newest.iter_mut().find(|(_, client)| *client == t.client) {
                    Some((issued_ms, _)) => *issued_ms = t.issued_ms.max(*issued_ms),
                    None => newest.push((t.issued_ms, t.client)),
                }
            }
            newest.sort_unstable_by(|a, b| b.cmp(a));
            let kept: Vec<_> = newest.into_iter().take(*clients_max).collect();
            tokens.retain(|t| kept.iter().any(|(_, client)| *client == t.client));
        }
        TokenChange::Used { client, issued_ms } => {
            if let Some(used) = tokens
                .iter_mut()
                .find(|t| t.client == *client && t.issued_ms == *issued_ms)
            {
                used.used = true;
                tokens.retain(|t| t.client != *client || t.issued_ms >= *issued_ms);
            }
        }
        TokenChange::Revoke { client, but } => {
            let goes = |t: &LoginToken| client.is_none_or(|client| t.client == client);
            tokens.retain(|t| !goes(t) || *but == Some(t.issued_ms));
        }
    }
}

/// What was taken away from whom since the store was opened: passwords, tokens, the right to log in, accounts. A log-in that is under
/// way meanwhile does not outlive the process, so neither need this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revocations {
    count: u64,
    last: HashMap<BareJid, u64>,
    /// The same in order; one that is not the owner's last any more says nothing.
    order: VecDeque<(u64, BareJid)>,
    /// What came up to here is not remembered one by one.
    forgotten: u64,
}

impl Revocations {
    /// Of this owner something is.
    pub fn note(&mut self, owner: &BareJid) {
        self.count += 1;
        self.last.insert(owner.clone(), self.count);
        self.order.push_back((self.count, owner.clone()));
        while self.order.len() > REVOCATIONS_MAX
            && let Some((n, owner)) = self.order.pop_front()
        {
            self.forgotten = n;
            if self.last.get(&owner) == Some(&n) {
                self.last.remove(&owner);
            }
        }
    }

    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether something may have been revoked of this owner since there were so many.
    pub fn since(&self, owner: &BareJid, count: u64) -> bool {
        count < self.forgotten || self.last.get(owner).is_some_and(|last| *last > count)
    }

    /// What a change of tokens means to it. True: it must not be carried out.
    pub fn take(&mut self, owner: &BareJid, change: &TokenChange) -> bool {
        match change {
            TokenChange::Issue { revocations, .. } => self.since(owner, *revocations),
            TokenChange::Used { .. } => false,
            TokenChange::Revoke { .. } => {
                self.note(owner);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_of_revocations_is_taken_for_revoked() {
        let owner = |n: usize| BareJid::parse(&format!("u{n}@x.example")).unwrap();
        let mut all = Revocations::default();
        all.note(&owner(0));
        assert!(all.since(&owner(0), 0) && !all.since(&owner(0), 1) && !all.since(&owner(1), 0));
        for n in 1..=REVOCATIONS_MAX {
            all.note(&owner(n % 2 + 1));
        }
        assert_eq!(all.order.len(), REVOCATIONS_MAX);
        assert_eq!(all.last.len(), 2);
        // The first of all is out: nobody knows any more whose it was.
        assert!(all.since(&owner(0), 0) && all.since(&owner(9), 0));
        assert!(!all.since(&owner(0), 1) && all.since(&owner(1), 1));
    }
}
