//! vCards, XEP-0054: one's own to set, anybody's to read (§5: world-readable).

use super::{Extension, Found, IqOutcome, Request, Target, UNAVAILABLE, Wait};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::node::Node;
use xmpp::ns;

/// XEP-0054.
pub const VCARD: Extension = Extension {
    name: "vCard",
    ns: ns::VCARD,
    server_features: &[ns::VCARD],
    account_features: &[ns::VCARD],
    get: Some(get),
    set: Some(set),
};

/// Without `to`, or to one's own or another's bare JID (§3.1, §3.3). The server has none.
fn get(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => UNAVAILABLE,
        Target::Account { .. } => {
            IqOutcome::Read(Wait::VCard(request.to.unwrap_or(request.from).bare()))
        }
    }
}

/// §3.2. An empty one removes it. One that is too long is refused with `policy-violation`, whole.
fn set(request: &Request<'_>, vcard: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => return UNAVAILABLE,
        Target::Account { own: false, .. } => {
            return IqOutcome::Error(StanzaError::Forbidden, None);
        }
        Target::Account { own: true, .. } => {}
    }
    let vcard = vcard.tree();
    let xml = vcard.to_bytes("");
    if xml.len() > request.context.vcard_bytes_max {
        return IqOutcome::Error(StanzaError::PolicyViolation, Some("the vCard is too long"));
    }
    let empty = vcard.children().next().is_none();
    IqOutcome::WriteVCard {
        xml: (!empty).then_some(xml),
        reply: request.result(None),
    }
}

/// §3.1, §3.3: no vCard is `item-not-found` to its owner; to others it looks like no account.
pub fn found(request: &Request<'_>, found: Found) -> IqOutcome {
    match found {
        // It was checked when it came; what the store has spoiled is not passed on.
        Found::Xml(xml) => {
            Node::parse(&xml, ns::VCARD).map_or(UNAVAILABLE, |vcard| request.reply(vcard))
        }
        Found::Nothing if request.own() => IqOutcome::Error(StanzaError::ItemNotFound, None),
        Found::Nothing | Found::NoAccount => UNAVAILABLE,
    }
}
