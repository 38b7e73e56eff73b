//! What is asked of a service: `<pubsub/>` of both namespaces, read and checked, before any node is looked at.

use super::avatar::Photo;
use super::bookmarks::Replacement;
use super::node::{Affiliation, Subscription};
use super::{ID_BYTES_MAX, IDS_MAX, Limits, MEMBER_CHANGES_MAX, Refusal};
use bytes::Bytes;
use store::PubsubRange;
use xmpp::error::{ErrorType, StanzaError};
use xmpp::form::{Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// §7.1.
    Publish {
        /// Where.
        node: String,
        /// The item's id, if the publisher gives it one.
        id: Option<String>,
        /// The payload, self-contained; `None`: there is none.
        payload: Option<Bytes>,
        /// Preconditions.
        options: Option<Form>,
    },
    /// §7.2.
    Retract {
        /// Where.
        node: String,
        /// Which item.
        id: String,
        /// Subscribers are told, whatever the configuration says.
        notify: bool,
    },
    /// §6.5.
    Items(Items),
    /// §8.1.
    Create {
        /// Its name; `None`: the service is to find one.
        node: Option<String>,
        /// How it is to be.
        config: Option<Form>,
    },
    /// §8.2: the configuration is asked for.
    Configuration(String),
    /// §8.2: it is set; `None`: nothing is to be changed after all.
    Configure(String, Option<Form>),
    /// §8.3.
    Default,
    /// §8.4.
    Delete(String),
    /// §8.5.
    Purge(String),
    /// §6.1.
    Subscribe(String, Jid),
    /// §6.2.
    Unsubscribe(String, Jid),
    /// §5.6: one's own, of one node or of all.
    Subscriptions(Option<String>),
    /// §5.7: one's own.
    Affiliations(Option<String>),
    /// §8.8.1: everybody's.
    Subscribers(String),
    /// §8.8.2.
    SetSubscribers(String, Vec<(Jid, Subscription)>),
    /// §8.6: whether somebody who asks for it may subscribe.
    Approve(String, Jid, bool),
    /// §8.9.1.
    Affiliated(String),
    /// §8.9.2.
    SetAffiliated(String, Vec<(BareJid, Affiliation)>),
    /// A vCard is stored, `None`: removed; and the photo that was in it becomes the avatar, or there is none any more (XEP-0398).
    Card {
        /// What there is besides the photo.
        xml: Option<Bytes>,
        /// The photo.
        photo: Option<Box<Photo>>,
    },
    /// Bookmarks are replaced by those of an older client.
    Bookmarks(Box<Replacement>),
    /// §5.3: `disco#info`, of a node or of the service.
    Info(Option<String>),
    /// §5.2, §5.5: `disco#items`, of a node or of the service.
    Nodes(Option<String>),
}

/// Which items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Items {
    /// Of which node.
    pub node: String,
    /// Which.
    pub range: PubsubRange,
    /// How many.
    pub limit: usize,
    /// By result set management: the answer says where the page is.
    pub rsm: bool,
}

impl Ask {
    /// It changes something, if it is granted.
    pub fn changes(&self) -> bool {
        match self {
            Self::Publish { .. }
            | Self::Retract { .. }
            | Self::Create { .. }
            | Self::Configure(..)
            | Self::Delete(_)
            | Self::Purge(_)
            | Self::Subscribe(..)
            | Self::Unsubscribe(..)
            | Self::SetSubscribers(..)
            | Self::Approve(..)
            | Self::SetAffiliated(..)
            | Self::Card { .. }
            | Self::Bookmarks(_) => true,
            Self::Items(_)
            | Self::Configuration(_)
            | Self::Default
            | Self::Subscriptions(_)
            | Self::Affiliations(_)
            | Self::Subscribers(_)
            | Self::Affiliated(_)
            | Self::Info(_)
            | Self::Nodes(_) => false,
        }
    }

    /// The node it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Publish { node, .. }
            | Self::Retract { node, .. }
            | Self::Items(Items { node, .. })
            | Self::Configuration(node)
            | Self::Configure(node, _)
            | Self::Delete(node)
            | Self::Purge(node)
            | Self::Subscribe(node, _)
            | Self::Unsubscribe(node, _)
            | Self::Subscribers(node)
            | Self::SetSubscribers(node, _)
            | Self::Approve(node, ..)
            | Self::Affiliated(node)
            | Self::SetAffiliated(node, _) => Some(node),
            Self::Create { node, .. }
            | Self::Subscriptions(node)
            | Self::Affiliations(node)
            | Self::Info(node)
            | Self::Nodes(node) => node.as_deref(),
            Self::Default | Self::Card { .. } | Self::Bookmarks(_) => None,
        }
    }
}

fn bad_request() -> Refusal {
    Refusal::new(StanzaError::BadRequest)
}

pub(super) fn id_of(text: &str) -> Result<String, Refusal> {
    if text.len() > ID_BYTES_MAX {
        let text = format!("A name of more than {ID_BYTES_MAX} bytes");
        return Err(Refusal::saying(StanzaError::NotAcceptable, text));
    }
    Ok(text.to_owned())
}

/// The attribute `node`, if there is one that is not empty.
fn node_opt(element: &Node) -> Result<Option<String>, Refusal> {
    let node = element.attr("node").filter(|n| !n.is_empty());
    node.map(id_of).transpose()
}

fn node_of(element: &Node) -> Result<String, Refusal> {
    let missing = || Refusal::because(StanzaError::BadRequest, "nodeid-required");
    node_opt(element)?.ok_or_else(missing)
}

fn form_in(element: &Node, form_type: &str) -> Result<Option<Form>, Refusal> {
    let Some(x) = element.child("x", ns::DATA_FORMS) else {
        return Ok(None);
    };
    let wrong = |text: String| Refusal::saying(StanzaError::BadRequest, text);
    let form = Form::parse(x).map_err(|e| wrong(e.to_string()))?;
    if form.kind != FormType::Cancel && form.form_type() != Some(form_type) {
        return Err(wrong(format!("The form is not for {form_type}")));
    }
    Ok(Some(form))
}

fn yes(value: Option<&str>) -> bool {
    matches!(value, Some("true" | "1"))
}

/// Reads a request of the namespace `pubsub`.
pub fn parse(pubsub: &Node, set: bool, limits: &Limits) -> Result<Ask, Refusal> {
    let mut children = pubsub.children().filter(|c| c.ns() == ns::PUBSUB);
    let first = children.next().ok_or_else(bad_request)?;
    match (first.name(), set) {
        ("publish", true) => publish(pubsub, first, limits),
        ("retract", true) => retract(first),
        ("items", false) => items(pubsub, first, limits).map(Ask::Items),
        ("create", true) => {
            let configure = pubsub.child("configure", ns::PUBSUB);
            let config = configure.map(|c| form_in(c, ns::PUBSUB_NODE_CONFIG));
            Ok(Ask::Create {
                node: node_opt(first)?,
                config: config.transpose()?.flatten(),
            })
        }
        ("subscribe", true) => {
            if pubsub.child("options", ns::PUBSUB).is_some() {
                return Err(Refusal::unsupported("subscription-options"));
            }
            Ok(Ask::Subscribe(node_of(first)?, jid_of(first)?))
        }
        ("unsubscribe", true) => Ok(Ask::Unsubscribe(node_of(first)?, jid_of(first)?)),
        ("subscriptions", false) => Ok(Ask::Subscriptions(node_opt(first)?)),
        ("affiliations", false) => Ok(Ask::Affiliations(node_opt(first)?)),
        ("options", _) => Err(Refusal::unsupported("subscription-options")),
        ("default", false) => Err(Refusal::unsupported("retrieve-default-sub")),
        _ => Err(bad_request()),
    }
}

/// Reads a request of the namespace `pubsub#owner`.
pub fn parse_owner(pubsub: &Node, set: bool) -> Result<Ask, Refusal> {
    let mut children = pubsub.children().filter(|c| c.ns() == ns::PUBSUB_OWNER);
    let first = children.next().ok_or_else(bad_request)?;
    match (first.name(), set) {
        ("configure", false) => Ok(Ask::Configuration(node_of(first)?)),
        ("configure", true) => {
            let node = node_of(first)?;
            let form = form_in(first, ns::PUBSUB_NODE_CONFIG)?.ok_or_else(bad_request)?;
            match form.kind {
                FormType::Cancel => Ok(Ask::Configure(node, None)),
                FormType::Submit => Ok(Ask::Configure(node, Some(form))),
                _ => Err(bad_request()),
            }
        }
        ("default", false) => Ok(Ask::Default),
        ("delete", true) => match first.child("redirect", ns::PUBSUB_OWNER) {
            None => Ok(Ask::Delete(node_of(first)?)),
            Some(_) => Err(Refusal::saying(
                StanzaError::FeatureNotImplemented,
                "Nobody is redirected here",
            )),
        },
        ("purge", true) => Ok(Ask::Purge(node_of(first)?)),
        ("subscriptions", false) => Ok(Ask::Subscribers(node_of(first)?)),
        ("subscriptions", true) => {
            let changes = members(first, "subscription", |jid, subscription| {
                Some((Jid::parse(jid).ok()?, Subscription::of(subscription)?))
            })?;
            Ok(Ask::SetSubscribers(node_of(first)?, changes))
        }
        ("affiliations", false) => Ok(Ask::Affiliated(node_of(first)?)),
        ("affiliations", true) => {
            let changes = members(first, "affiliation", |jid, affiliation| {
                let jid = Jid::parse(jid).ok()?.bare();
                Some((jid, Affiliation::of(affiliation)?))
            })?;
            Ok(Ask::SetAffiliated(node_of(first)?, changes))
        }
        _ => Err(bad_request()),
    }
}

/// §7.1.3: what may be wrong with a publication whatever the node.
fn publish(pubsub: &Node, publish: &Node, limits: &Limits) -> Result<Ask, Refusal> {
    let node = node_of(publish)?;
    let invalid = || Refusal::because(StanzaError::BadRequest, "invalid-payload");
    let mut items = publish.children();
    let item = items.next();
    if items.next().is_some() || item.is_some_and(|i| !i.is("item", ns::PUBSUB)) {
        return Err(invalid());
    }
    let mut payloads = item.into_iter().flat_map(Node::children);
    let payload = payloads.next();
    // It has to say itself what it is: wherever it goes, it stands in another element.
    let no_name = |p: &Node| matches!(p.ns(), "" | ns::PUBSUB);
    if payloads.next().is_some() || payload.is_some_and(no_name) {
        return Err(invalid());
    }
    let payload = payload.map(|p| p.to_bytes(""));
    if payload
        .as_ref()
        .is_some_and(|p| p.len() > limits.item_bytes_max)
    {
        return Err(Refusal::because(
            StanzaError::NotAcceptable,
            "payload-too-big",
        ));
    }
    let options = pubsub.child("publish-options", ns::PUBSUB);
    let options = options.map(|o| form_in(o, ns::PUBSUB_PUBLISH_OPTIONS));
    let id = item.and_then(|i| i.attr("id")).filter(|id| !id.is_empty());
    Ok(Ask::Publish {
        node,
        id: id.map(id_of).transpose()?,
        payload,
        options: options.transpose()?.flatten(),
    })
}

fn retract(retract: &Node) -> Result<Ask, Refusal> {
    let node = node_of(retract)?;
    let required = || Refusal::because(StanzaError::BadRequest, "item-required");
    let mut items = retract.children().filter(|c| c.is("item", ns::PUBSUB));
    let item = items.next().ok_or_else(required)?;
    if items.next().is_some() {
        let text = "Retract one item at a time";
        return Err(Refusal::saying(StanzaError::BadRequest, text));
    }
    let id = item.attr("id").filter(|id| !id.is_empty());
    Ok(Ask::Retract {
        node,
        id: id_of(id.ok_or_else(required)?)?,
        notify: yes(retract.attr("notify")),
    })
}

/// §6.5, and XEP-0059 for pages.
fn items(pubsub: &Node, items: &Node, limits: &Limits) -> Result<Items, Refusal> {
    let node = node_of(items)?;
    if items.attr("subid").is_some() {
        return Err(
            Refusal::because(StanzaError::NotAcceptable, "invalid-subid")
                .of_type(ErrorType::Modify),
        );
    }
    let cap = usize::try_from(limits.items_max).unwrap_or(usize::MAX);
    let mut wanted = Items {
        node,
        range: PubsubRange::Newest,
        limit: cap,
        rsm: false,
    };
    let number = |text: &str| {
        let wrong = || Refusal::saying(StanzaError::BadRequest, "That is no number of items");
        text.trim().parse::<u64>().map_err(|_| wrong())
    };
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(cap);
    let mut ids = Vec::new();
    for item in items.children().filter(|c| c.is("item", ns::PUBSUB)) {
        if ids.len() == IDS_MAX {
            let text = format!("Ask for at most {IDS_MAX} items at once");
            return Err(Refusal::saying(StanzaError::PolicyViolation, text));
        }
        let id = item.attr("id").ok_or_else(bad_request)?;
        ids.push(id_of(id)?);
    }
    if !ids.is_empty() {
        wanted.range = PubsubRange::Ids(ids);
        return Ok(wanted);
    }
    if let Some(max) = items.attr("max_items") {
        wanted.limit = match number(max)? {
            0 => return Err(bad_request()),
            n => count(n),
        };
    }
    let Some(set) = pubsub.child("set", ns::RSM) else {
        return Ok(wanted);
    };
    wanted.rsm = true;
    let text = |name| set.child(name, ns::RSM).map(|n| n.text().trim().to_owned());
    if let Some(max) = text("max") {
        wanted.limit = wanted.limit.min(count(number(&max)?));
    }
    if let Some(index) = text("index") {
        wanted.range = PubsubRange::Index(number(&index)?);
    }
    if let Some(after) = text("after").filter(|a| !a.is_empty()) {
        wanted.range = PubsubRange::After(id_of(&after)?);
    }
    match text("before") {
        None => {}
        Some(before) if before.is_empty() => wanted.range = PubsubRange::Oldest,
        Some(before) => wanted.range = PubsubRange::Before(id_of(&before)?),
    }
    Ok(wanted)
}

/// The attribute `jid` of who is, or is to be, subscribed.
fn jid_of(element: &Node) -> Result<Jid, Refusal> {
    let jid = element
        .attr("jid")
        .ok_or_else(|| Refusal::because(StanzaError::BadRequest, "jid-required"))?;
    Jid::parse(jid).map_err(|_| Refusal::because(StanzaError::BadRequest, "invalid-jid"))
}

fn members<T>(
    list: &Node,
    name: &'static str,
    read: impl Fn(&str, &str) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let mut changes = Vec::new();
    for element in list.children().filter(|c| c.is(name, ns::PUBSUB_OWNER)) {
        if changes.len() == MEMBER_CHANGES_MAX {
            let text = format!("Change at most {MEMBER_CHANGES_MAX} at once");
            return Err(Refusal::saying(StanzaError::PolicyViolation, text));
        }
        let (jid, value) = (element.attr("jid"), element.attr(name));
        let change = jid.zip(value).and_then(|(jid, value)| read(jid, value));
        changes.push(change.ok_or_else(bad_request)?);
    }
    if changes.is_empty() {
        return Err(bad_request());
    }
    Ok(changes)
}
