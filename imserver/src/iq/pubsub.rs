//! Publish and subscribe at an account, XEP-0163 on XEP-0060. What is asked is read here; `crate::pubsub` decides, when the nodes of
//! the account are at hand.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use crate::pubsub::ask::{self, Ask};
use crate::pubsub::decide::FEATURES;
use crate::pubsub::{Limits, Refusal};
use crate::settings::Settings;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::ns;
use xmpp::stanza::{Iq, IqType};

/// XEP-0060 §5, §6, §7.
pub const PUBSUB: Extension = Extension {
    name: "pubsub",
    ns: ns::PUBSUB,
    server_features: &[],
    account_features: FEATURES,
    get: Some(of_anybody),
    set: Some(of_anybody),
};

/// XEP-0060 §8.
pub const OWNER: Extension = Extension {
    name: "pubsub",
    ns: ns::PUBSUB_OWNER,
    server_features: &[],
    account_features: &[],
    get: Some(of_owner),
    set: Some(of_owner),
};

/// Of XEP-0163 (§6.1), beside those of XEP-0060.
pub const PEP_FEATURES: &[&str] = &[
    ns::PUBSUB,
    "http://jabber.org/protocol/pubsub#auto-subscribe",
    "http://jabber.org/protocol/pubsub#filtered-notifications",
];

fn is_set(request: &Request<'_>) -> bool {
    Iq::of(request.element).is_ok_and(|iq| iq.iq_type == IqType::Set)
}

fn of_anybody(request: &Request<'_>, pubsub: Child<'_>) -> IqOutcome {
    if request.target == Target::Server {
        return UNAVAILABLE;
    }
    let set = is_set(request);
    asked(ask::parse(&pubsub.tree(), set, &request.context.pubsub))
}

fn of_owner(request: &Request<'_>, pubsub: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => UNAVAILABLE,
        // Who owns nothing here, and may not know of anybody, gets the answer of nobody.
        Target::Account {
            own: false,
            may_see: false,
        } => UNAVAILABLE,
        Target::Account { .. } => asked(ask::parse_owner(&pubsub.tree(), is_set(request))),
    }
}

fn asked(ask: Result<Ask, Refusal>) -> IqOutcome {
    match ask {
        Ok(ask) => IqOutcome::Pubsub(Box::new(ask)),
        Err(refusal) => IqOutcome::Refuse(Box::new(refusal)),
    }
}

/// What an account may have, by the configuration.
pub fn limits(settings: &Settings) -> Limits {
    Limits {
        nodes_max: settings.pubsub_nodes_max,
        items_max: settings.pubsub_items_max,
        item_bytes_max: settings.pubsub_item_bytes_max,
        bytes_max: settings.pubsub_bytes_max,
        // An answer leaves room for others in what a client may have untaken.
        page_bytes_max: settings.output_window_bytes / 2,
    }
}

/// What is to be said of somebody whose nodes are none of the sender's business.
pub const HIDDEN: StanzaError = StanzaError::ServiceUnavailable;
