//! Publish and subscribe at an account, XEP-0163 on XEP-0060. What is asked is read here; `crate::pubsub` decides, when the nodes of
//! the account are at hand.

use super::private::store_bookmarks;
use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait};
use crate::pubsub::ask::{self, Ask};
use crate::pubsub::bookmarks::{self, Wanted};
use crate::pubsub::decide::FEATURES;
use crate::pubsub::{Limits, Refusal};
use crate::settings::Settings;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::form::Form;
use xmpp::node::Node;
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
    // XEP-0292: a node, as any other.
    "urn:ietf:params:xml:ns:vcard-4.0",
    // XEP-0402 §6.3, XEP-0411: bookmarks are the same for all clients.
    "urn:xmpp:bookmarks-conversion:0",
    "urn:xmpp:bookmarks:1#compat",
    "urn:xmpp:bookmarks:1#compat-pep",
    // XEP-0398.
    "urn:xmpp:pep-vcard-conversion:0",
];

fn is_set(request: &Request<'_>) -> bool {
    Iq::of(request.element).is_ok_and(|iq| iq.iq_type == IqType::Set)
}

fn of_anybody(request: &Request<'_>, pubsub: Child<'_>) -> IqOutcome {
    if request.target == Target::Server {
        return UNAVAILABLE;
    }
    let set = is_set(request);
    match ask::parse(&pubsub.tree(), set, &request.context.pubsub) {
        Ok(ask) if request.own() && ask.node() == Some(bookmarks::OLD) => {
            old_bookmarks(request, ask)
        }
        ask => asked(ask),
    }
}

/// The node of all bookmarks in one is not there: what is read from it and published to it are the items of the other
/// (XEP-0402 §6.3).
fn old_bookmarks(request: &Request<'_>, ask: Ask) -> IqOutcome {
    let whitelist = |options: &Form| {
        let access = options.value("pubsub#access_model");
        access.is_none_or(|access| access == "whitelist")
    };
    match ask {
        Ask::Items(_) => {
            IqOutcome::Read(Wait::Bookmarks(request.from.bare(), Box::new(Wanted::Item)))
        }
        Ask::Publish { options, .. } if !options.as_ref().is_none_or(whitelist) => asked(Err(
            Refusal::because(StanzaError::Conflict, "precondition-not-met"),
        )),
        Ask::Publish { id, payload, .. } => {
            let storage = payload.and_then(|p| Node::parse(&p, "").ok());
            match storage.filter(|s| s.is(bookmarks::STORAGE, bookmarks::OLD)) {
                Some(storage) => {
                    let id = id.unwrap_or_else(|| bookmarks::OLD_ID.to_owned());
                    store_bookmarks(request, &storage, |list| Wanted::Publish(id, list))
                }
                None => asked(Err(Refusal::because(
                    StanzaError::BadRequest,
                    "invalid-payload",
                ))),
            }
        }
        ask => asked(Ok(ask)),
    }
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
