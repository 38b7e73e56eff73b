//! Answers to requests (XEP-0060 §5, §6, §8).

use super::ask::Items;
use super::node::{Affiliation, Node, Subscription};
use store::{PubsubPage, PubsubRange};
use xmpp::jid::Jid;
use xmpp::node as xml;
use xmpp::ns;

/// `<pubsub/>` with something inside.
pub fn pubsub(inside: xml::Node) -> xml::Node {
    xml::Node::new("pubsub", ns::PUBSUB).with_child(inside)
}

/// The same for an owner.
pub fn owner(inside: xml::Node) -> xml::Node {
    xml::Node::new("pubsub", ns::PUBSUB_OWNER).with_child(inside)
}

/// §7.1.2: which id an item has got.
pub fn published(node: &str, id: &str) -> xml::Node {
    let item = xml::Node::new("item", ns::PUBSUB).with_attr("id", id);
    let publish = xml::Node::new("publish", ns::PUBSUB).with_attr("node", node);
    pubsub(publish.with_child(item))
}

/// §6.5.2: the items, and where the page is if that was asked for, or if there are more.
pub fn items(asked: &Items, page: &PubsubPage) -> xml::Node {
    let mut items = xml::Node::new("items", ns::PUBSUB).with_attr("node", asked.node.as_str());
    for item in &page.items {
        let node = xml::Node::new("item", ns::PUBSUB).with_attr("id", item.id.as_str());
        items.push(xml::Content::Node(match item.payload.is_empty() {
            true => node,
            false => node.with_raw(item.payload.clone()),
        }));
    }
    let cut = !matches!(asked.range, PubsubRange::Ids(_)) && page.items.len() as u64 != page.count;
    let answer = pubsub(items);
    match asked.rsm || cut {
        true => answer.with_child(set(page)),
        false => answer,
    }
}

/// XEP-0059 §2.
fn set(page: &PubsubPage) -> xml::Node {
    let text = |name: &'static str, text: String| xml::Node::new(name, ns::RSM).with_text(text);
    let mut set = xml::Node::new("set", ns::RSM);
    if let (Some(first), Some(last)) = (page.items.first(), page.items.last()) {
        let first = text("first", first.id.clone()).with_attr("index", page.index.to_string());
        set = set
            .with_child(first)
            .with_child(text("last", last.id.clone()));
    }
    set.with_child(text("count", page.count.to_string()))
}

/// §6.1.2: how somebody is subscribed.
pub fn subscription(node: Option<&str>, jid: &Jid, state: Subscription) -> xml::Node {
    xml::Node::new("subscription", ns::PUBSUB)
        .with_attr_opt("node", node)
        .with_attr("jid", jid.as_str())
        .with_attr("subscription", state.as_str())
}

/// §8.8.1.
pub fn subscribers(name: &str, node: &Node) -> xml::Node {
    let members = node.members.iter();
    let members = members.filter(|(_, m)| m.subscription != Subscription::None);
    let entry = |jid: &Jid, state: Subscription| {
        xml::Node::new("subscription", ns::PUBSUB_OWNER)
            .with_attr("jid", jid.as_str())
            .with_attr("subscription", state.as_str())
    };
    let list = xml::Node::new("subscriptions", ns::PUBSUB_OWNER).with_attr("node", name);
    owner(list.with_children(members.map(|(jid, m)| entry(jid, m.subscription))))
}

/// §8.9.1. The owner of the service owns every node.
pub fn affiliated(name: &str, node: &Node, of: &str) -> xml::Node {
    let entry = |jid: &str, affiliation: Affiliation| {
        xml::Node::new("affiliation", ns::PUBSUB_OWNER)
            .with_attr("jid", jid)
            .with_attr("affiliation", affiliation.as_str())
    };
    let members = node.members.iter();
    let members = members.filter(|(_, m)| m.affiliation != Affiliation::None);
    let list = xml::Node::new("affiliations", ns::PUBSUB_OWNER).with_attr("node", name);
    let list = list.with_child(entry(of, Affiliation::Owner));
    owner(list.with_children(members.map(|(jid, m)| entry(jid.as_str(), m.affiliation))))
}
