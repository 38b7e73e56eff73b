//! What subscribers are told (XEP-0060 §7.1.2, §7.2.2, §8), and who of them.

use super::config::{AccessModel, NotificationType};
use super::node::{Affiliation, Node, Subscription};
use bytes::Bytes;
use std::collections::BTreeSet;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::{self as xml};
use xmpp::ns;

/// Something to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Of which node.
    pub node: String,
    /// The `<event/>`.
    pub event: Bytes,
    /// Type of the message.
    pub kind: NotificationType,
    /// What the node holds is another now: an item read before is out of date.
    pub changes_items: bool,
    /// It was published then (unix ms), and is told late (XEP-0203).
    pub delay_ms: Option<u64>,
    /// To whom.
    pub to: Recipients,
}

/// To whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// Who is interested and may read, and who has subscribed.
    All(Box<Audience>),
    /// One address.
    One(Jid),
}

/// Who may be told of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audience {
    /// Those who have subscribed.
    pub subscribers: BTreeSet<Jid>,
    /// Who may read, as for those who have subscribed.
    pub access: AccessModel,
    /// By presence (XEP-0163 §4): the account itself always, and contacts as far as this says.
    pub contacts: Contacts,
    /// Never these.
    pub outcasts: BTreeSet<BareJid>,
}

/// Contacts who are told by their presence and what their clients are interested in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contacts {
    /// All who get the owner's presence.
    All,
    /// Of these groups.
    Groups(Vec<String>),
    /// These.
    Listed(BTreeSet<BareJid>),
}

impl Audience {
    /// Of a node, now. (What somebody has subscribed to and may not read any more is for who sends it to find out: only they know
    /// of presence and groups.)
    pub fn of(node: &Node) -> Self {
        let with = |wanted: fn(Affiliation) -> bool| {
            let members = node.members.iter();
            let members = members.filter(move |(_, m)| wanted(m.affiliation));
            members.map(|(jid, _)| jid.bare()).collect::<BTreeSet<_>>()
        };
        let subscribed = node.members.iter();
        let subscribed = subscribed.filter(|(_, m)| m.subscription == Subscription::Subscribed);
        let listed = || {
            with(|a| {
                matches!(
                    a,
                    Affiliation::Member | Affiliation::Publisher | Affiliation::Owner
                )
            })
        };
        let contacts = match node.config.access {
            AccessModel::Open | AccessModel::Presence => Contacts::All,
            AccessModel::Roster => Contacts::Groups(node.config.roster_groups.clone()),
            AccessModel::Whitelist | AccessModel::Authorize => Contacts::Listed(listed()),
        };
        Self {
            subscribers: subscribed.map(|(jid, _)| jid.clone()).collect(),
            access: node.config.access,
            contacts,
            outcasts: with(|a| a == Affiliation::Outcast),
        }
    }
}

impl Notice {
    /// To all whom it may concern. `None`: the node tells nobody of anything.
    pub fn to_all(name: &str, node: &Node, inside: &xml::Node) -> Option<Self> {
        node.config.notify.then(|| Self {
            node: name.to_owned(),
            event: event(inside),
            kind: node.config.notification,
            changes_items: inside.name() != "configuration",
            delay_ms: None,
            to: Recipients::All(Box::new(Audience::of(node))),
        })
    }

    /// To one.
    pub fn to_one(name: &str, node: &Node, inside: &xml::Node, to: Jid) -> Self {
        Self {
            node: name.to_owned(),
            event: event(inside),
            kind: node.config.notification,
            changes_items: false,
            delay_ms: None,
            to: Recipients::One(to),
        }
    }
}

/// `<event/>` with something inside.
pub fn event(inside: &xml::Node) -> Bytes {
    let event = xml::Node::new("event", ns::PUBSUB_EVENT);
    event.with_child(inside.clone()).to_bytes(ns::CLIENT)
}

/// `<items/>` with one item.
pub fn item(node: &str, id: &str, payload: Option<&Bytes>) -> xml::Node {
    let item = xml::Node::new("item", ns::PUBSUB_EVENT).with_attr("id", id);
    let item = match payload {
        Some(payload) => item.with_raw(payload.clone()),
        None => item,
    };
    about("items", node).with_child(item)
}

/// `<items/>` with one item that has gone.
pub fn retracted(node: &str, id: &str) -> xml::Node {
    about("items", node).with_child(xml::Node::new("retract", ns::PUBSUB_EVENT).with_attr("id", id))
}

/// `<purge/>`, `<delete/>`, `<configuration/>`, ...
pub fn about(what: &'static str, node: &str) -> xml::Node {
    xml::Node::new(what, ns::PUBSUB_EVENT).with_attr("node", node)
}

/// `<subscription/>`: an owner has changed it (§8.8.4).
pub fn subscription(node: &str, jid: &Jid, subscription: Subscription) -> xml::Node {
    about("subscription", node)
        .with_attr("jid", jid.as_str())
        .with_attr("subscription", subscription.as_str())
}
