//! Whether a client has the token it says (XEP-0484): what the store and the directories say of it.
//!
//! Never: lets in an account that a directory does not know, or that may not log in; takes another time for those.

use crate::event::TokenRules;
use directory::site::Site;
use store::{LoginToken, Reader};
use xmpp::jid::BareJid;
use xmpp::negotiation::{TokenCheck, UsedToken};
use xmpp::sasl::{Named, TokenAsk};

/// Checks a proof. May block.
pub fn check(
    site: &Site,
    reader: &mut dyn Reader,
    ask: &TokenAsk,
    rules: TokenRules,
) -> TokenCheck {
    let person = match site.resolve(&ask.login) {
        Ok(person) => person,
        Err(error) => {
            super::lookups::failed(&error);
            return TokenCheck::TemporaryFailure;
        }
    };
    let owner = person.as_ref().map(|p| p.jid.clone());
    let Some(owner) = owner.or_else(|| nobody(ask)) else {
        return TokenCheck::Wrong;
    };
    let tokens = match reader.tokens(&owner, Some(ask.client)) {
        Ok(tokens) => tokens,
        Err(error) => {
            tracing::warn!(%error, "the store did not answer");
            return TokenCheck::TemporaryFailure;
        }
    };
    match person {
        Some(person) => judge(
            &tokens,
            ask,
            rules,
            Named {
                account: person.jid,
                disabled: person.disabled,
            },
        ),
        None => TokenCheck::Wrong,
    }
}

/// What the tokens of a client come to. `named`: whose they are.
pub fn judge(tokens: &[LoginToken], ask: &TokenAsk, rules: TokenRules, named: Named) -> TokenCheck {
    // A token is good for the mechanism it was made for (XEP-0484 §3.4).
    let mechanism = ask.proof.mechanism;
    let mut good = (tokens.iter())
        .filter(|t| t.mechanism == mechanism)
        .filter_map(|t| Some((t, ask.proof.verify(&t.secret)?)));
    let Some((token, proof)) = good.next() else {
        return TokenCheck::Wrong;
    };
    if token.expires_ms <= rules.now_ms {
        return TokenCheck::Expired;
    }
    TokenCheck::Right {
        named,
        proof,
        used: UsedToken {
            mechanism,
            issued_ms: token.issued_ms,
            known: token.used,
            stale: rules.now_ms.saturating_sub(token.issued_ms) >= rules.stale_ms,
        },
    }
}

/// Whose tokens are looked for where there is nobody of the name: it takes as long.
fn nobody(ask: &TokenAsk) -> Option<BareJid> {
    ask.login
        .account()
        .or_else(|| BareJid::from_parts(Some("nobody"), ask.login.domain()).ok())
}
