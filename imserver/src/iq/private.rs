//! Private XML storage, XEP-0049: elements that a client keeps with its account, and only its account reads.
//!
//! Bookmarks (XEP-0048) are kept as items of a node (`pubsub::bookmarks`), and only shown here (XEP-0411).
//!
//! An element is found again by its name and namespace. An empty one without attributes says as much as none, so it is removed, and
//! what was never stored is answered with such a one.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait};
use crate::pubsub::answer;
use crate::pubsub::ask::Ask;
use crate::pubsub::bookmarks::{List, OLD, STORAGE, Stored, Wanted};
use bytes::Bytes;
use store::PrivateElement;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::BareJid;
use xmpp::node::Node;
use xmpp::ns;

/// XEP-0049.
pub const PRIVATE: Extension = Extension {
    name: "query",
    ns: ns::PRIVATE,
    server_features: &[ns::PRIVATE],
    account_features: &[ns::PRIVATE],
    get: Some(get),
    set: Some(set),
};

/// Elements of one set: clients send one; there may be several of one namespace (§2.3).
const ELEMENTS_MAX: usize = 16;

/// Which element is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// Whose.
    pub owner: BareJid,
    /// Its local name.
    pub name: String,
    /// Its namespace.
    pub ns: String,
}

/// What is to be said of it if it is not the sender's own (§3).
fn refused(request: &Request<'_>) -> Option<IqOutcome> {
    match request.target {
        Target::Server => Some(UNAVAILABLE),
        Target::Account { own: false, .. } => Some(IqOutcome::Error(StanzaError::Forbidden, None)),
        Target::Account { own: true, .. } => None,
    }
}

/// §3: "scoped by its own namespace".
fn scoped(element: &Node) -> bool {
    !element.ns().is_empty() && element.ns() != ns::PRIVATE
}

/// §3: without a child it is a `bad-request`. One is asked for at a time.
fn get(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    let query = query.tree();
    let mut wanted = query.children();
    match (wanted.next(), wanted.next()) {
        (None, _) => IqOutcome::Error(StanzaError::BadRequest, None),
        (Some(element), None) if element.is(STORAGE, OLD) => IqOutcome::Read(Wait::Bookmarks(
            request.from.bare(),
            Box::new(Wanted::Private),
        )),
        (Some(element), None) if scoped(element) => IqOutcome::Read(Wait::Private(Key {
            owner: request.from.bare(),
            name: element.name().to_owned(),
            ns: element.ns().to_owned(),
        })),
        _ => IqOutcome::Error(
            StanzaError::NotAcceptable,
            Some("Ask for one element, of a namespace of its own"),
        ),
    }
}

/// §2.3: `not-acceptable` without an element, or with one that has no namespace of its own, or with several namespaces. What is too
/// long is refused with `policy-violation`, whole.
fn set(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    let query = query.tree();
    let Some(first) = query.children().next() else {
        return IqOutcome::Error(StanzaError::NotAcceptable, None);
    };
    let mut elements: Vec<PrivateElement> = Vec::new();
    for element in query.children() {
        let again = elements.iter().any(|e| e.name == element.name());
        if !scoped(element) || element.ns() != first.ns() || again || elements.len() == ELEMENTS_MAX
        {
            return IqOutcome::Error(
                StanzaError::NotAcceptable,
                Some("Store at most 16 elements of one namespace of their own, each name once"),
            );
        }
        let xml = element.to_bytes("");
        if xml.len() > request.context.private_element_bytes_max {
            return IqOutcome::Error(
                StanzaError::PolicyViolation,
                Some("the element is too long"),
            );
        }
        let empty = element.content().is_empty() && element.attrs().is_empty();
        elements.push(PrivateElement {
            name: element.name().to_owned(),
            ns: element.ns().to_owned(),
            xml: (!empty).then_some(xml),
        });
    }
    if let (Some(storage), None) = (query.children().next(), query.children().nth(1))
        && storage.is(STORAGE, OLD)
    {
        return store_bookmarks(request, storage, Wanted::SetPrivate);
    }
    IqOutcome::WritePrivate {
        elements,
        reply: request.result(None),
    }
}

/// What is stored, or an empty element of that name.
pub fn found(request: &Request<'_>, key: &Key, stored: Option<&Bytes>) -> IqOutcome {
    // What was stored was checked when it came; what the store has spoiled is not passed on.
    let element = match stored.map(|xml| Node::parse(xml, "")).transpose() {
        Ok(stored) => stored.unwrap_or_else(|| Node::new(key.name.clone(), key.ns.clone())),
        Err(_) => return IqOutcome::Error(StanzaError::InternalServerError, None),
    };
    request.reply(Node::new("query", ns::PRIVATE).with_child(element))
}

/// A list of bookmarks is to be stored: what there is must be seen first.
pub fn store_bookmarks(
    request: &Request<'_>,
    storage: &Node,
    wanted: impl FnOnce(List) -> Wanted,
) -> IqOutcome {
    match List::of(storage, request.context.pubsub.items_max) {
        Ok(list) => IqOutcome::Read(Wait::Bookmarks(request.from.bare(), Box::new(wanted(list)))),
        Err(refusal) => IqOutcome::Refuse(Box::new(refusal)),
    }
}

/// What there is has been seen.
pub fn bookmarks(request: &Request<'_>, wanted: &Wanted, stored: &Stored) -> IqOutcome {
    let replaced = |list: &List, reply| {
        let new = stored.replaced(list.clone(), reply);
        IqOutcome::Pubsub(Box::new(Ask::Bookmarks(Box::new(new))))
    };
    match wanted {
        Wanted::Private => {
            request.reply(Node::new("query", ns::PRIVATE).with_child(stored.storage()))
        }
        Wanted::Item if stored.is_empty() => IqOutcome::Error(StanzaError::ItemNotFound, None),
        Wanted::Item => request.reply(stored.item()),
        Wanted::SetPrivate(list) => replaced(list, None),
        Wanted::Publish(id, list) => replaced(list, Some(answer::published(OLD, id))),
    }
}
