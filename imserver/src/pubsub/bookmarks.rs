//! Bookmarks of rooms, kept once and shown in three ways: an item for each room (XEP-0402), and all in one element, as one item
//! (XEP-0048) or in the private XML storage (XEP-0049, XEP-0411).
//!
//! What is kept is the items. An older client that stores its list changes those that are different, and only of those is told.
//! What its list has besides rooms stays in the private storage.

use super::Refusal;
use super::answer;
use super::event;
use bytes::Bytes;
use store::{PrivateElement, PubsubItem, PubsubQuery, PubsubRange, Reader, StoreError};
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;

/// The node with an item for each room.
pub const NODE: &str = "urn:xmpp:bookmarks:1";

/// The node, and the namespace, with all in one.
pub const OLD: &str = "storage:bookmarks";

/// Name of that element.
pub const STORAGE: &str = "storage";

/// The id of the one item.
pub const OLD_ID: &str = "current";

/// A list as an older client stores it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    /// Address of each room, and its bookmark.
    rooms: Vec<(String, Node)>,
    /// What there is besides.
    rest: Vec<Node>,
}

/// What is stored of somebody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// The newest first.
    pub items: Vec<PubsubItem>,
    /// Of the private storage.
    pub private: Option<Bytes>,
}

/// What an older client wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// To read the list, from the private storage.
    Private,
    /// To read it as an item.
    Item,
    /// To store it privately.
    SetPrivate(List),
    /// To publish it, as an item with this id.
    Publish(String, List),
}

impl Wanted {
    /// Something is to be changed.
    pub fn changes(&self) -> bool {
        matches!(self, Self::SetPrivate(_) | Self::Publish(..))
    }
}

/// What is to be changed for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// Items to be published: id and payload.
    pub publish: Vec<(String, Bytes)>,
    /// Items to be retracted.
    pub retract: Vec<String>,
    /// For the private storage.
    pub private: PrivateElement,
    /// The payload of the answer.
    pub reply: Option<Node>,
}

/// Reads what is stored.
///
/// # Errors
/// The store does not answer.
pub fn read(reader: &mut dyn Reader, owner: &BareJid) -> Result<Stored, StoreError> {
    let query = PubsubQuery {
        owner: owner.clone(),
        node: NODE.to_owned(),
        range: PubsubRange::Newest,
        // An account has so many bytes of items, and no more.
        limit: usize::MAX,
        bytes_max: usize::MAX,
    };
    let page = reader.pubsub_items(&query)?;
    Ok(Stored {
        items: page.map(|page| page.items).unwrap_or_default(),
        private: reader.private(owner, STORAGE, OLD)?,
    })
}

impl List {
    /// Of `<storage/>`.
    ///
    /// # Errors
    /// `policy-violation` for more rooms than there may be items.
    pub fn of(storage: &Node, rooms_max: u64) -> Result<Self, Refusal> {
        let mut list = Self::default();
        for child in storage.children() {
            let jid = child.attr("jid").and_then(|jid| Jid::parse(jid).ok());
            match jid.filter(|_| child.is("conference", OLD)) {
                // Of two for one room the last counts.
                Some(jid) => {
                    list.rooms.retain(|(other, _)| other != jid.as_str());
                    list.rooms.push((jid.as_str().to_owned(), to_item(child)));
                }
                None => list.rest.push(child.clone()),
            }
        }
        if list.rooms.len() as u64 > rooms_max {
            let text = format!("At most {rooms_max} rooms can be kept");
            return Err(Refusal::saying(StanzaError::PolicyViolation, text));
        }
        Ok(list)
    }
}

/// `<conference/>` of the list as the payload of an item.
fn to_item(conference: &Node) -> Node {
    let mut item = Node::new("conference", NODE)
        .with_attr_opt("name", conference.attr("name"))
        .with_attr_opt("autojoin", conference.attr("autojoin"));
    let mut extensions = Node::new("extensions", NODE);
    let mut extended = false;
    for child in conference.children() {
        if child.ns() == OLD && matches!(child.name(), "nick" | "password") {
            item =
                item.with_child(Node::new(child.name().to_owned(), NODE).with_text(child.text()));
        } else {
            extensions = extensions.with_child(child.clone());
            extended = true;
        }
    }
    match extended {
        true => item.with_child(extensions),
        false => item,
    }
}

/// And back.
fn to_conference(id: &str, item: &Node) -> Node {
    let mut conference = Node::new("conference", OLD)
        .with_attr("jid", id)
        .with_attr_opt("name", item.attr("name"))
        .with_attr_opt("autojoin", item.attr("autojoin"));
    for child in item.children().filter(|c| c.ns() == NODE) {
        conference = match child.name() {
            "extensions" => conference.with_children(child.children().cloned()),
            name => conference.with_child(Node::new(name.to_owned(), OLD).with_text(child.text())),
        };
    }
    conference
}

/// What the store has spoiled is not shown.
fn payload(item: &PubsubItem) -> Option<Node> {
    let node = Node::parse(&item.payload, "").ok();
    node.filter(|n| n.is("conference", NODE))
}

impl Stored {
    /// The element of the older clients. Rooms in the private storage were put there by something else than a client; they are shown
    /// until the next list is stored.
    pub fn storage(&self) -> Node {
        let rooms = self.items.iter();
        let rooms = rooms.filter_map(|item| Some(to_conference(&item.id, &payload(item)?)));
        let storage = Node::new(STORAGE, OLD).with_children(rooms);
        let private = self
            .private
            .as_ref()
            .and_then(|xml| Node::parse(xml, "").ok());
        let known = |node: &&Node| {
            let jid = node.attr("jid").unwrap_or_default();
            node.is("conference", OLD) && self.items.iter().any(|item| item.id == jid)
        };
        let rest = private.iter().flat_map(Node::children);
        storage.with_children(rest.filter(|n| !known(n)).cloned())
    }

    /// The one item.
    pub fn item(&self) -> Node {
        let item = Node::new("item", xmpp::ns::PUBSUB).with_attr("id", OLD_ID);
        let items = Node::new("items", xmpp::ns::PUBSUB).with_attr("node", OLD);
        answer::pubsub(items.with_child(item.with_child(self.storage())))
    }

    /// What is told of it.
    pub fn event(&self) -> Node {
        event::item(OLD, OLD_ID, Some(&self.storage().to_bytes("")))
    }

    /// There is nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.private.is_none()
    }

    /// What must be changed so that the list is kept. What other clients keep with a room stays, if this one knows nothing of such.
    pub fn replaced(&self, list: List, reply: Option<Node>) -> Replacement {
        let mut publish = Vec::new();
        for (jid, mut room) in list.rooms.iter().cloned() {
            let before = self.items.iter().find(|item| item.id == jid);
            let before = before.and_then(payload);
            let extensions = |n: &Node| n.child("extensions", NODE).cloned();
            if let (None, Some(kept)) = (extensions(&room), before.as_ref().and_then(extensions)) {
                room = room.with_child(kept);
            }
            if before.as_ref() != Some(&room) {
                publish.push((jid, room.to_bytes("")));
            }
        }
        let gone = |item: &&PubsubItem| !list.rooms.iter().any(|(jid, _)| *jid == item.id);
        let retract = self.items.iter().filter(gone).map(|item| item.id.clone());
        let rest = !list.rest.is_empty();
        let rest = rest.then(|| {
            Node::new(STORAGE, OLD)
                .with_children(list.rest)
                .to_bytes("")
        });
        Replacement {
            publish,
            retract: retract.collect(),
            private: PrivateElement {
                name: STORAGE.to_owned(),
                ns: OLD.to_owned(),
                xml: rest,
            },
            reply,
        }
    }
}
