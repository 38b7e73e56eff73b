//! What comes of a request: the tables of XEP-0060 §5 to §8, for nodes of one owner.
//!
//! Nodes in memory are changed at once, so that the next request sees them as they will be; the answer and the notices wait for the
//! store. If the store refuses, the nodes have to be read again.

mod approval;
mod members;

use super::answer;
use super::ask::{Ask, Items};
use super::avatar::{self, Photo};
use super::bookmarks::{self, Replacement};
use super::config::{AccessModel, Config, ITEMS_MAX, SendLast};
use super::event::{self, Notice};
use super::node::{Affiliation, Member, Node, Nodes, Subscription, Who};
use super::{Limits, MEMBERS_MAX, Refusal};
use bytes::Bytes;
use store::{PrivateElement, PubsubChange, PubsubItem, PubsubQuery, PubsubRange};
use xmpp::error::{ErrorType, StanzaError};
use xmpp::form::{Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node as xml;
use xmpp::ns;

/// What of XEP-0060 there is, as `disco#info` has it (§10).
pub const FEATURES: &[&str] = &[
    "http://jabber.org/protocol/pubsub#access-authorize",
    "http://jabber.org/protocol/pubsub#access-open",
    "http://jabber.org/protocol/pubsub#access-presence",
    "http://jabber.org/protocol/pubsub#access-roster",
    "http://jabber.org/protocol/pubsub#access-whitelist",
    "http://jabber.org/protocol/pubsub#auto-create",
    "http://jabber.org/protocol/pubsub#config-node",
    "http://jabber.org/protocol/pubsub#config-node-max",
    "http://jabber.org/protocol/pubsub#create-and-configure",
    "http://jabber.org/protocol/pubsub#create-nodes",
    "http://jabber.org/protocol/pubsub#delete-items",
    "http://jabber.org/protocol/pubsub#delete-nodes",
    "http://jabber.org/protocol/pubsub#instant-nodes",
    "http://jabber.org/protocol/pubsub#item-ids",
    "http://jabber.org/protocol/pubsub#last-published",
    "http://jabber.org/protocol/pubsub#manage-subscriptions",
    "http://jabber.org/protocol/pubsub#member-affiliation",
    "http://jabber.org/protocol/pubsub#meta-data",
    "http://jabber.org/protocol/pubsub#modify-affiliations",
    "http://jabber.org/protocol/pubsub#multi-items",
    "http://jabber.org/protocol/pubsub#outcast-affiliation",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#publish",
    "http://jabber.org/protocol/pubsub#publish-options",
    "http://jabber.org/protocol/pubsub#publisher-affiliation",
    "http://jabber.org/protocol/pubsub#purge-nodes",
    "http://jabber.org/protocol/pubsub#retract-items",
    "http://jabber.org/protocol/pubsub#retrieve-affiliations",
    "http://jabber.org/protocol/pubsub#retrieve-default",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
    "http://jabber.org/protocol/pubsub#rsm",
    "http://jabber.org/protocol/pubsub#subscribe",
    "http://jabber.org/protocol/pubsub#subscription-notifications",
];

/// Whose nodes they are, and what goes for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Owns every node.
    pub owner: &'a BareJid,
    /// What the owner may have.
    pub limits: Limits,
    /// The time (unix ms).
    pub now_ms: u64,
    /// The request may have been carried out before, by a server that was killed since: what is as it should be is done.
    pub again: bool,
    /// Id of an item or node that gets none from who asks. The same when the request comes again.
    pub fresh_id: &'a str,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// The result, with or without a payload.
    Reply(Option<xml::Node>),
    /// The error.
    Refuse(Refusal),
    /// Who asks has no business knowing that there is anybody here.
    Hidden,
    /// The service may be described.
    Describe,
    /// Read this; then see [`Reading::answer`].
    Read(Reading),
    /// Store this.
    Change(Box<Change>),
}

/// A question to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// What is read.
    pub query: PubsubQuery,
    /// By result set management.
    pub rsm: bool,
    /// For `disco#items`.
    pub disco: bool,
}

/// Something to be stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// For the store, all or nothing.
    pub changes: Vec<PubsubChange>,
    /// Then this is the payload of the result,
    pub reply: Option<xml::Node>,
    /// these are told,
    pub notices: Vec<Notice>,
    /// and these addresses are sent the last items of these nodes.
    pub last: Vec<(String, Jid)>,
    /// Before all that, the owner is asked whether this address may subscribe to this node.
    pub request: Option<(String, Jid)>,
    /// Before all that, this is stored too.
    pub also: Option<Also>,
}

/// What is stored of the account beside its nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Also {
    /// Its vCard; `None`: it goes.
    VCard(Option<Bytes>),
    /// An element of the private XML storage.
    Private(PrivateElement),
}

impl From<Refusal> for Plan {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Change> for Plan {
    fn from(change: Change) -> Self {
        Self::Change(Box::new(change))
    }
}

fn not_found() -> Refusal {
    Refusal::new(StanzaError::ItemNotFound)
}

fn forbidden() -> Refusal {
    Refusal::new(StanzaError::Forbidden)
}

/// Decides. `nodes` are as they are to be afterwards.
pub fn decide(service: &Service<'_>, nodes: &mut Nodes, who: &Who<'_>, ask: Ask) -> Plan {
    let service = Request { service, who };
    service
        .decide(nodes, ask)
        .unwrap_or_else(|refusal| service.refuse(nodes, refusal))
}

struct Request<'a> {
    service: &'a Service<'a>,
    who: &'a Who<'a>,
}

impl Request<'_> {
    fn owner(&self) -> &BareJid {
        self.service.owner
    }

    fn is_owner(&self) -> bool {
        self.who.jid.bare_str() == self.owner().as_str()
    }

    /// To a stranger a node that is not there is no sign that there is somebody.
    fn refuse(&self, nodes: &Nodes, refusal: Refusal) -> Plan {
        let stranger = !self.is_owner() && !self.who.presence;
        if stranger && refusal.condition == StanzaError::ItemNotFound && !self.any(nodes) {
            return Plan::Hidden;
        }
        refusal.into()
    }

    fn may_read(&self, node: &Node) -> bool {
        node.check_read(self.owner(), self.who).is_ok()
    }

    fn any(&self, nodes: &Nodes) -> bool {
        nodes.values().any(|node| self.may_read(node))
    }

    fn decide(&self, nodes: &mut Nodes, ask: Ask) -> Result<Plan, Refusal> {
        match ask {
            Ask::Publish {
                node,
                id,
                payload,
                options,
            } => self.publish(nodes, node, id, payload, options.as_ref()),
            Ask::Retract { node, id, notify } => self.retract(nodes, node, id, notify),
            Ask::Items(items) => self.items(nodes, items),
            Ask::Create { node, config } => self.create(nodes, node, config.as_ref()),
            Ask::Configuration(name) => {
                let node = self.owned(nodes, &name)?;
                let configure = xml::Node::new("configure", ns::PUBSUB_OWNER)
                    .with_attr("node", name)
                    .with_child(node.config.form(FormType::Form));
                Ok(Plan::Reply(Some(answer::owner(configure))))
            }
            Ask::Configure(name, form) => self.configure(nodes, name, form.as_ref()),
            Ask::Default => {
                let form = Config::default().form(FormType::Form);
                let default = xml::Node::new("default", ns::PUBSUB_OWNER).with_child(form);
                Ok(Plan::Reply(Some(answer::owner(default))))
            }
            Ask::Delete(name) => self.delete(nodes, name),
            Ask::Purge(name) => self.purge(nodes, name),
            Ask::Subscribe(name, jid) => self.subscribe(nodes, name, jid),
            Ask::Unsubscribe(name, jid) => self.unsubscribe(nodes, name, &jid),
            Ask::Subscriptions(of) => Ok(self.own(nodes, of.as_deref(), "subscriptions")),
            Ask::Affiliations(of) => Ok(self.own(nodes, of.as_deref(), "affiliations")),
            Ask::Subscribers(name) => {
                let node = self.owned(nodes, &name)?;
                Ok(Plan::Reply(Some(answer::subscribers(&name, node))))
            }
            Ask::SetSubscribers(name, changes) => self.set_subscribers(nodes, name, &changes),
            Ask::Approve(name, jid, allow) => self.approve(nodes, name, &jid, allow),
            Ask::Affiliated(name) => {
                let node = self.owned(nodes, &name)?;
                let list = answer::affiliated(&name, node, self.owner().as_str());
                Ok(Plan::Reply(Some(list)))
            }
            Ask::SetAffiliated(name, changes) => self.set_affiliated(nodes, &name, &changes),
            Ask::Card { xml, photo } => self.card(nodes, xml, photo.as_deref()),
            Ask::Bookmarks(new) => self.bookmarks(nodes, *new),
            Ask::Info(None) => Ok(self.describe(nodes)),
            Ask::Info(Some(name)) => self.info(nodes, &name),
            Ask::Nodes(None) => Ok(self.list(nodes)),
            Ask::Nodes(Some(node)) => {
                let items = Items {
                    node,
                    range: PubsubRange::Newest,
                    limit: usize::try_from(self.service.limits.items_max).unwrap_or(usize::MAX),
                    rsm: false,
                };
                match self.items(nodes, items)? {
                    Plan::Read(reading) => Ok(Plan::Read(Reading {
                        disco: true,
                        ..reading
                    })),
                    other => Ok(other),
                }
            }
        }
    }

    /// A node that who asks owns (§8: `forbidden` if not).
    fn owned<'n>(&self, nodes: &'n mut Nodes, name: &str) -> Result<&'n mut Node, Refusal> {
        let node = nodes.get_mut(name).ok_or_else(not_found)?;
        match node.affiliation(self.owner(), &self.who.jid.bare()) {
            Affiliation::Owner => Ok(node),
            _ => Err(forbidden()),
        }
    }

    // ---- nodes ------------------------------------------------------------------------------------------

    /// There may be so many more.
    fn has_room(&self, nodes: &Nodes, more: usize) -> Result<(), Refusal> {
        match nodes.len() + more <= self.service.limits.nodes_max.max(nodes.len()) {
            true => Ok(()),
            false => {
                let text = "There are as many nodes as there may be";
                Err(Refusal::saying(StanzaError::PolicyViolation, text))
            }
        }
    }

    /// A new node. Only the owner of the service makes any.
    fn make<'n>(
        &self,
        nodes: &'n mut Nodes,
        name: &str,
        config: Config,
    ) -> Result<(&'n mut Node, PubsubChange), Refusal> {
        self.has_room(nodes, 1)?;
        let node = Node {
            config,
            created_ms: self.service.now_ms,
            ..Node::default()
        };
        let put = PubsubChange::Put {
            node: name.to_owned(),
            meta: node.meta(),
        };
        Ok((nodes.entry(name.to_owned()).or_insert(node), put))
    }

    /// §8.1.
    fn create(
        &self,
        nodes: &mut Nodes,
        name: Option<String>,
        form: Option<&Form>,
    ) -> Result<Plan, Refusal> {
        if !self.is_owner() {
            return Err(forbidden());
        }
        let named = name.is_some();
        let name = name.unwrap_or_else(|| self.service.fresh_id.to_owned());
        let config = match form {
            None => default_of(&name),
            Some(form) => default_of(&name).with_form(form)?,
        };
        let mut change = Change::default();
        if !named {
            let create = xml::Node::new("create", ns::PUBSUB).with_attr("node", name.as_str());
            change.reply = Some(answer::pubsub(create));
        }
        match nodes.get(&name) {
            Some(node) if self.service.again && node.config == config => {
                return Ok(Plan::Reply(change.reply));
            }
            Some(_) => return Err(Refusal::new(StanzaError::Conflict)),
            None => {}
        }
        let (_, put) = self.make(nodes, &name, config)?;
        change.changes.push(put);
        Ok(change.into())
    }

    /// §8.2.4.
    fn configure(
        &self,
        nodes: &mut Nodes,
        name: String,
        form: Option<&Form>,
    ) -> Result<Plan, Refusal> {
        let cap = self.service.limits.items_max;
        let node = self.owned(nodes, &name)?;
        let Some(form) = form else {
            return Ok(Plan::Reply(None));
        };
        let config = node.config.with_form(form)?;
        if config == node.config {
            return Ok(Plan::Reply(None));
        }
        let trim = config.items_kept(cap) < node.config.items_kept(cap);
        node.config = config;
        let mut change = Change::default();
        change.changes.push(PubsubChange::Put {
            node: name.clone(),
            meta: node.meta(),
        });
        if trim {
            change.changes.push(PubsubChange::Trim {
                node: name.clone(),
                items_max: node.config.items_kept(cap),
            });
        }
        if node.config.notify_config {
            let mut configuration = event::about("configuration", &name);
            if node.config.payloads {
                configuration = configuration.with_child(node.config.form(FormType::Result));
            }
            change
                .notices
                .extend(Notice::to_all(&name, node, &configuration));
        }
        Ok(change.into())
    }

    /// §8.4.
    fn delete(&self, nodes: &mut Nodes, name: String) -> Result<Plan, Refusal> {
        if self.service.again && self.is_owner() && !nodes.contains_key(&name) {
            return Ok(Plan::Reply(None));
        }
        self.owned(nodes, &name)?;
        let node = nodes.remove(&name).ok_or_else(not_found)?;
        let mut change = Change::default();
        if node.config.notify_delete {
            let gone = event::about("delete", &name);
            change.notices.extend(Notice::to_all(&name, &node, &gone));
        }
        change.changes.push(PubsubChange::Delete { node: name });
        Ok(change.into())
    }

    /// §8.5.
    fn purge(&self, nodes: &mut Nodes, name: String) -> Result<Plan, Refusal> {
        let node = self.owned(nodes, &name)?;
        if !node.config.persist {
            return Err(Refusal::unsupported("persistent-items"));
        }
        let mut change = Change::default();
        if node.config.notify_retract {
            let purged = event::about("purge", &name);
            change.notices.extend(Notice::to_all(&name, node, &purged));
        }
        change.changes.push(PubsubChange::Trim {
            node: name,
            items_max: 0,
        });
        Ok(change.into())
    }

    // ---- items ------------------------------------------------------------------------------------------

    /// §7.1.
    fn publish(
        &self,
        nodes: &mut Nodes,
        name: String,
        id: Option<String>,
        payload: Option<Bytes>,
        options: Option<&Form>,
    ) -> Result<Plan, Refusal> {
        let cap = self.service.limits.items_max;
        let mut change = Change::default();
        if let Some(node) = nodes.get(&name) {
            if !node.may_publish(self.owner(), self.who) {
                return Err(forbidden());
            }
            if options.is_some_and(|options| !node.config.meets(options, cap)) {
                return Err(Refusal::because(
                    StanzaError::Conflict,
                    "precondition-not-met",
                ));
            }
        } else {
            // Of others' services nobody makes nodes, by publishing or otherwise.
            if !self.is_owner() {
                return Err(not_found());
            }
            let config = match options {
                None => default_of(&name),
                Some(options) => default_of(&name).with_form(options)?,
            };
            let (_, put) = self.make(nodes, &name, config)?;
            change.changes.push(put);
        }
        let node = nodes.get(&name).ok_or_else(not_found)?;
        let config = &node.config;
        if payload.is_none() && (config.persist || config.payloads) {
            // It is made by what could be published only.
            let error = Refusal::because(StanzaError::BadRequest, "payload-required");
            if !change.changes.is_empty() {
                nodes.remove(&name);
            }
            return Err(error);
        }
        // A node for one item has always the same: who reads it need not look for the newest.
        let id = id.unwrap_or_else(|| match config.items_max {
            1 => "current".to_owned(),
            _ => self.service.fresh_id.to_owned(),
        });
        self.put_item(&mut change, &name, node, &id, payload);
        change.reply = Some(answer::published(&name, &id));
        Ok(change.into())
    }

    /// §7.2. Any publisher may retract any item (§4.1, note to the table).
    fn retract(
        &self,
        nodes: &Nodes,
        name: String,
        id: String,
        notify: bool,
    ) -> Result<Plan, Refusal> {
        let node = nodes.get(&name).ok_or_else(not_found)?;
        let affiliation = node.affiliation(self.owner(), &self.who.jid.bare());
        if !matches!(affiliation, Affiliation::Owner | Affiliation::Publisher) {
            return Err(forbidden());
        }
        if !node.config.persist {
            return Err(Refusal::unsupported("persistent-items"));
        }
        let mut change = Change::default();
        if notify || node.config.notify_retract {
            let gone = event::retracted(&name, &id);
            change.notices.extend(Notice::to_all(&name, node, &gone));
        }
        change
            .changes
            .push(PubsubChange::Retract { node: name, id });
        Ok(change.into())
    }

    /// §6.5.
    fn items(&self, nodes: &Nodes, items: Items) -> Result<Plan, Refusal> {
        let node = nodes.get(&items.node).ok_or_else(not_found)?;
        node.check_read(self.owner(), self.who)?;
        if !node.config.persist {
            return Err(Refusal::unsupported("persistent-items"));
        }
        Ok(Plan::Read(Reading {
            query: PubsubQuery {
                owner: self.owner().clone(),
                node: items.node,
                range: items.range,
                limit: items.limit,
                bytes_max: self.service.limits.page_bytes_max,
            },
            rsm: items.rsm,
            disco: false,
        }))
    }

    // ---- what other protocols have in nodes ---------------------------------------------------------------

    /// The node, made with this configuration if it is not there.
    fn ready<'n>(
        &self,
        nodes: &'n mut Nodes,
        change: &mut Change,
        name: &str,
        config: Config,
    ) -> Result<&'n mut Node, Refusal> {
        if !nodes.contains_key(name) {
            let (_, put) = self.make(nodes, name, config)?;
            change.changes.push(put);
        }
        nodes.get_mut(name).ok_or_else(not_found)
    }

    fn put_item(
        &self,
        change: &mut Change,
        name: &str,
        node: &Node,
        id: &str,
        payload: Option<Bytes>,
    ) {
        let shown = payload.as_ref().filter(|_| node.config.payloads);
        let item = event::item(name, id, shown);
        change.notices.extend(Notice::to_all(name, node, &item));
        let items_max = node.config.items_kept(self.service.limits.items_max);
        if items_max > 0 {
            change.changes.push(PubsubChange::Publish {
                node: name.to_owned(),
                item: PubsubItem {
                    id: id.to_owned(),
                    publisher: self.who.jid.as_str().to_owned(),
                    time_ms: self.service.now_ms,
                    payload: payload.unwrap_or_default(),
                },
                items_max,
            });
        }
    }

    /// XEP-0398 §3.2: a photo is everybody's to see, as vCards are, unless the nodes are there and say otherwise.
    fn card(
        &self,
        nodes: &mut Nodes,
        xml: Option<Bytes>,
        photo: Option<&Photo>,
    ) -> Result<Plan, Refusal> {
        if !self.is_owner() {
            return Err(forbidden());
        }
        let mut change = Change {
            also: Some(Also::VCard(xml)),
            ..Change::default()
        };
        let open = || Config {
            access: AccessModel::Open,
            ..Config::default()
        };
        match photo {
            Some(photo) => {
                if photo.data().len() > self.service.limits.item_bytes_max {
                    let text = "the photo is too long";
                    return Err(Refusal::saying(StanzaError::PolicyViolation, text));
                }
                // Both, or neither is made.
                let missing = [avatar::DATA, avatar::METADATA]
                    .iter()
                    .filter(|name| !nodes.contains_key(**name));
                self.has_room(nodes, missing.count())?;
                let items = [
                    (avatar::DATA, photo.data()),
                    (avatar::METADATA, photo.metadata()),
                ];
                for (name, payload) in items {
                    let node = self.ready(nodes, &mut change, name, open())?;
                    self.put_item(&mut change, name, node, &photo.id, Some(payload));
                }
            }
            None => {
                if let Some(node) = nodes.get(avatar::METADATA) {
                    let id = "current";
                    let none = Some(avatar::none());
                    self.put_item(&mut change, avatar::METADATA, node, id, none);
                }
            }
        }
        Ok(change.into())
    }

    /// XEP-0402 §6.3: what an older client has changed. Only the owner sees bookmarks, whatever the node was before (XEP-0411 §6). One
    /// that a client made for a single item, for it did not say how many there will be, gets room for the others.
    fn bookmarks(&self, nodes: &mut Nodes, new: Replacement) -> Result<Plan, Refusal> {
        if !self.is_owner() {
            return Err(forbidden());
        }
        let name = bookmarks::NODE;
        let mut change = Change {
            reply: new.reply,
            also: Some(Also::Private(new.private)),
            ..Change::default()
        };
        if new.publish.is_empty() && !nodes.contains_key(name) {
            return Ok(change.into());
        }
        let node = self.ready(nodes, &mut change, name, default_of(name))?;
        let narrow = node.config.items_max < ITEMS_MAX;
        if node.config.access != AccessModel::Whitelist || narrow {
            node.config.access = AccessModel::Whitelist;
            if narrow {
                node.config.items_max = ITEMS_MAX;
            }
            change.changes.push(PubsubChange::Put {
                node: name.to_owned(),
                meta: node.meta(),
            });
        }
        // First what goes, or what comes pushes it out, and it is not there to be retracted.
        for id in new.retract {
            let gone = event::retracted(name, &id);
            change.notices.extend(Notice::to_all(name, node, &gone));
            change.changes.push(PubsubChange::Retract {
                node: name.to_owned(),
                id,
            });
        }
        for (id, payload) in new.publish {
            self.put_item(&mut change, name, node, &id, Some(payload));
        }
        Ok(change.into())
    }

    /// What changes nothing needs no store.
    fn stored(&self, change: Change) -> Plan {
        match change.changes.is_empty() {
            true => Plan::Reply(change.reply),
            false => change.into(),
        }
    }

    // ---- discovery --------------------------------------------------------------------------------------

    fn describe(&self, nodes: &Nodes) -> Plan {
        match self.is_owner() || self.who.presence || self.any(nodes) {
            true => Plan::Describe,
            false => Plan::Hidden,
        }
    }

    /// §5.3, §5.4.
    fn info(&self, nodes: &Nodes, name: &str) -> Result<Plan, Refusal> {
        let node = nodes.get(name).ok_or_else(not_found)?;
        node.check_read(self.owner(), self.who)?;
        let identity = xml::Node::new("identity", ns::DISCO_INFO)
            .with_attr("category", "pubsub")
            .with_attr("type", "leaf");
        let feature =
            |var: &'static str| xml::Node::new("feature", ns::DISCO_INFO).with_attr("var", var);
        let created = crate::routing::stamp(node.created_ms);
        let query = xml::Node::new("query", ns::DISCO_INFO)
            .with_attr("node", name)
            .with_child(identity)
            .with_children([ns::DISCO_INFO, ns::DISCO_ITEMS, ns::PUBSUB].map(feature))
            .with_child(node.config.meta_data(self.owner().as_str(), &created));
        Ok(Plan::Reply(Some(query)))
    }

    /// §5.2: only nodes that who asks may read (XEP-0163 §6.2).
    fn list(&self, nodes: &Nodes) -> Plan {
        let readable = nodes.iter().filter(|(_, node)| self.may_read(node));
        let items: Vec<xml::Node> = readable
            .map(|(name, node)| {
                let title = Some(node.config.title.as_str()).filter(|t| !t.is_empty());
                xml::Node::new("item", ns::DISCO_ITEMS)
                    .with_attr("jid", self.owner().as_str())
                    .with_attr("node", name.as_str())
                    .with_attr_opt("name", title)
            })
            .collect();
        if items.is_empty() && !self.is_owner() && !self.who.presence {
            return Plan::Hidden;
        }
        let query = xml::Node::new("query", ns::DISCO_ITEMS).with_children(items);
        Plan::Reply(Some(query))
    }
}

/// The configuration of a node that is made without one. Of bookmarks (XEP-0402 §5): all of them, and for their owner only.
fn default_of(name: &str) -> Config {
    match name {
        bookmarks::NODE => Config {
            access: AccessModel::Whitelist,
            items_max: ITEMS_MAX,
            send_last: SendLast::Never,
            ..Config::default()
        },
        _ => Config::default(),
    }
}

impl Reading {
    /// The answer. `None`: what the page should follow or precede is not there.
    ///
    /// # Errors
    /// `item-not-found`: as above, or none of the items that were asked for is there.
    pub fn answer(&self, page: Option<&store::PubsubPage>) -> Result<xml::Node, Refusal> {
        let page = page.ok_or_else(not_found)?;
        if matches!(self.query.range, PubsubRange::Ids(_)) && page.items.is_empty() {
            return Err(not_found());
        }
        if self.disco {
            let items = page.items.iter().map(|item| {
                xml::Node::new("item", ns::DISCO_ITEMS)
                    .with_attr("jid", self.query.owner.as_str())
                    .with_attr("name", item.id.as_str())
            });
            let query = xml::Node::new("query", ns::DISCO_ITEMS);
            let query = query.with_attr("node", self.query.node.as_str());
            return Ok(query.with_children(items));
        }
        let asked = Items {
            node: self.query.node.clone(),
            range: self.query.range.clone(),
            limit: self.query.limit,
            rsm: self.rsm,
        };
        Ok(answer::items(&asked, page))
    }
}
