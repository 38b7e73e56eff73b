//! Tokens to log in with (XEP-0484), as they are kept.

use xmpp::sasl::{ClientId, TokenMechanism};

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
    /// none for longest, beyond `clients_max`.
    Issue {
        /// It.
        token: LoginToken,
        /// Clients of an account that may have some.
        clients_max: usize,
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
    },
}

/// Applies a change to all the tokens of one account: what every engine does.
pub(crate) fn apply(tokens: &mut Vec<LoginToken>, change: &TokenChange) {
    match change {
        TokenChange::Issue { token, clients_max } => {
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
        TokenChange::Revoke { client } => {
            tokens.retain(|t| client.is_some_and(|client| t.client != client));
        }
    }
}
