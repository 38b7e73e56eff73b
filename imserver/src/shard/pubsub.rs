//! Publish-subscribe nodes of accounts (XEP-0163), carried out: loading them, storing what changes, telling who hears of it.
//! `crate::pubsub` decides.
//!
//! In: requests to accounts at home here; notices of other shards for who is online here.
//! Out: reads, writes, answers; a notice as one message per shard, and one Fanout per link.
//! Owns: the nodes of accounts while they are in use, without their items. Nobody's are loaded by presence.
//! Never: answers or tells anybody before the commit; asks the store for items while an earlier change of the same account is not
//! on disk.

use super::iq::context;
use super::user::Queued;
use super::{After, Shard};
use crate::event::*;
use crate::iq::known::{Known, is_known};
use crate::iq::{self, Request, Target, Wait};
use crate::pubsub::config::{AccessModel, NotificationType};
use crate::pubsub::decide::{Also, Change, Plan, Service, decide};
use crate::pubsub::event::{Audience, Contacts, Notice, Recipients, event, item};
use crate::pubsub::node::{Node, Nodes, Who};
use crate::pubsub::{LastFor, Refusal, ask::Ask};
use crate::routing::StanzaKind;
use crate::session::OutKind;
use crate::session::resumption::Kept;
use crate::settings::Settings;
use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use proto::frame::{Fanout, FanoutTarget, Frame};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{PubsubChange, PubsubQuery, PubsubRange, WriteError, Written};
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::escape_into;
use xmpp::ns;
use xmpp::stream::framing;

/// Nodes unused for so long are forgotten; they are read again in a millisecond.
const IDLE_MS: u64 = 60_000;

/// Requests that wait for the nodes of one account.
const WAITING_MAX: usize = 1_000;

/// The nodes of one account.
#[derive(Debug)]
pub(super) struct Entity {
    /// `None`: not loaded.
    nodes: Option<Nodes>,
    /// Since when a load is under way (mono ms).
    loading_ms: Option<u64>,
    /// What waits for it.
    waiting: Vec<Waiting>,
    /// Last use (mono ms).
    used_ms: u64,
    /// Number of the last write.
    last_write: u64,
    /// What the owner has been asked.
    pub(super) asked: super::approval::Asked,
}

/// A request to an account.
#[derive(Debug)]
pub(super) struct Waiting {
    /// On its way: the answer goes back to its sender.
    pub stanza: Box<Routed>,
    /// The IQ.
    pub element: Box<Element>,
    /// Who is asked.
    pub target: Target,
    /// What.
    pub ask: Ask,
    /// It may have been carried out before the server was killed.
    pub again: bool,
}

/// What waits for a write of nodes.
#[derive(Debug)]
pub(super) enum AfterNodes {
    /// The write is this change: answer it.
    Stored(Waiting, Box<Change>),
    /// The write of what is stored beside them, for this change.
    Also(Waiting, Box<Change>),
    /// This may be read, for the IQ that waits under this number.
    Read(u64, Box<Read>),
    /// So may nodes.
    Load(BareJid),
}

impl Shard {
    /// A request to the nodes of an account at home here.
    pub(super) fn ask_nodes(&mut self, waiting: Waiting) {
        let owner = waiting.stanza.to.bare();
        let now = self.now.mono_ms;
        let entity = self.nodes.entry(owner.clone()).or_insert_with(|| {
            Box::new(Entity {
                nodes: None,
                loading_ms: None,
                waiting: Vec::new(),
                used_ms: now,
                last_write: 0,
                asked: Default::default(),
            })
        });
        entity.used_ms = now;
        if entity.nodes.is_some() {
            return self.ask_loaded(&owner, waiting);
        }
        if entity.waiting.len() >= WAITING_MAX {
            let text = "The account has too many requests waiting; try again";
            return self.bounce(waiting.stanza, StanzaError::ResourceConstraint, Some(text));
        }
        entity.waiting.push(waiting);
        self.load_nodes(&owner);
    }

    fn load_nodes(&mut self, owner: &BareJid) {
        let (now, durable, write) = (self.now.mono_ms, self.durable, self.write_number);
        let Some(entity) = self.nodes.get_mut(owner) else {
            return;
        };
        if entity.loading_ms.is_some() {
            return;
        }
        entity.loading_ms = Some(now);
        // They have been changed, and the disk has not said yet what came of it.
        if entity.last_write > durable {
            return self.after(
                write,
                After::Nodes(Box::new(AfterNodes::Load(owner.clone()))),
            );
        }
        let read = Read::Nodes(owner.clone());
        self.fx.reads.push((ReadTag::Nodes(owner.clone()), read));
    }

    pub(super) fn nodes_read(&mut self, owner: &BareJid, result: ReadResult) {
        let Some(entity) = self.nodes.get_mut(owner) else {
            return;
        };
        if entity.loading_ms.take().is_none() {
            return;
        }
        let waiting = std::mem::take(&mut entity.waiting);
        let ReadResult::Nodes(stored) = result else {
            return self.refuse_waiting(waiting);
        };
        let nodes = stored.iter().map(|n| (n.node.clone(), Node::load(n)));
        entity.nodes = Some(nodes.collect());
        for waiting in waiting {
            self.ask_nodes(waiting);
            self.run_local();
        }
    }

    /// The account is no more: what it had is not there for who has its address next.
    pub(super) fn forget_nodes(&mut self, owner: &BareJid) {
        if let Some(entity) = self.nodes.get_mut(owner) {
            (entity.nodes, entity.loading_ms) = (None, None);
            entity.asked = Default::default();
            let waiting = std::mem::take(&mut entity.waiting);
            self.refuse_waiting(waiting);
        }
    }

    /// An account is no more: nodes that had given it something are read again.
    pub(super) fn forget_member(&mut self, account: &BareJid) {
        let mut had: Vec<BareJid> = Vec::new();
        for (owner, entity) in &self.nodes {
            let nodes = entity.nodes.iter().flat_map(Nodes::values);
            let mut members = nodes.flat_map(|node| node.members.keys());
            // One that is being read may have been read before.
            if entity.loading_ms.is_some() || members.any(|jid| jid.bare() == *account) {
                had.push(owner.clone());
            }
        }
        had.sort_unstable();
        for owner in had {
            if let Some(entity) = self.nodes.get_mut(&owner) {
                (entity.nodes, entity.loading_ms) = (None, None);
                if !entity.waiting.is_empty() {
                    self.load_nodes(&owner);
                }
            }
        }
    }

    fn refuse_waiting(&mut self, waiting: Vec<Waiting>) {
        let text = "The account could not be loaded in time; try again";
        for waiting in waiting {
            self.bounce(waiting.stanza, StanzaError::ResourceConstraint, Some(text));
        }
    }

    /// Forgets who has not been asked for long; what has waited for too long is answered.
    pub(super) fn sweep_nodes(&mut self) {
        let (now, durable) = (self.now.mono_ms, self.durable);
        let settle_max = self.settings.settle_max.as_millis() as u64;
        let mut late = Vec::new();
        self.nodes.retain(|owner, entity| {
            let overdue = |since: u64| now.saturating_sub(since) > settle_max;
            if entity.loading_ms.is_some_and(overdue) {
                late.push(owner.clone());
            }
            let unused = now.saturating_sub(entity.used_ms) > IDLE_MS;
            let busy = entity.loading_ms.is_some() || entity.last_write > durable;
            !unused || busy
        });
        late.sort_unstable();
        for owner in late {
            if let Some(entity) = self.nodes.get_mut(&owner) {
                entity.loading_ms = None;
                let waiting = std::mem::take(&mut entity.waiting);
                self.refuse_waiting(waiting);
            }
        }
    }

    fn ask_loaded(&mut self, owner: &BareJid, waiting: Waiting) {
        let who = waiting.stanza.from.bare();
        let own = who == *owner;
        let by_groups = |node: &Node| node.config.access == AccessModel::Roster;
        let entity = self.nodes.get(owner).and_then(|e| e.nodes.as_ref());
        let Some(nodes) = entity else {
            return;
        };
        let unknown = nodes.values().any(by_groups) && !self.has_roster(owner);
        if !own && unknown || self.must_know_owner(owner, &waiting) {
            self.load(owner);
            return self.queue_for(owner, Queued::Stanza(waiting.stanza));
        }
        let groups = match own {
            true => Vec::new(),
            false => self.roster_groups(owner, &who),
        };
        let from = waiting.stanza.from.clone();
        let who = Who {
            jid: &from,
            presence: own || self.sees(owner, &who),
            groups: &groups,
        };
        let limits = iq::pubsub::limits(&self.settings);
        let fresh_id = fresh_id(&waiting.stanza);
        let service = Service {
            owner,
            limits,
            now_ms: self.now.unix_ms,
            again: waiting.again,
            fresh_id: &fresh_id,
        };
        let entity = self.nodes.get_mut(owner).and_then(|e| e.nodes.as_mut());
        let Some(nodes) = entity else {
            return;
        };
        let absent = |node: &str| is_known(node) && !nodes.contains_key(node);
        let absent = match &waiting.ask {
            Ask::Items(items) if absent(&items.node) => Some(items.clone()),
            _ => None,
        };
        let plan = decide(&service, nodes, &who, waiting.ask.clone());
        let otherwise = match &plan {
            Plan::Refuse(refusal) => Some(refusal.clone()),
            Plan::Hidden => Some(Refusal::new(iq::pubsub::HIDDEN)),
            _ => None,
        };
        if let (Some(items), Some(otherwise)) = (absent, otherwise) {
            let known = Known {
                owner: owner.clone(),
                items,
                otherwise,
            };
            let wait = Wait::Known(Box::new(known));
            return self.iq_waits(waiting.stanza, *waiting.element, wait, waiting.target);
        }
        self.carry_out_nodes(owner, waiting, plan);
    }

    fn carry_out_nodes(&mut self, owner: &BareJid, waiting: Waiting, plan: Plan) {
        match plan {
            Plan::Reply(payload) => self.answer_nodes(waiting, Ok(payload)),
            Plan::Refuse(refusal) => self.answer_nodes(waiting, Err(refusal)),
            Plan::Hidden => {
                let refusal = Refusal::new(iq::pubsub::HIDDEN);
                self.answer_nodes(waiting, Err(refusal));
            }
            Plan::Describe => {
                let settings = self.settings.clone();
                let bytes = iq::disco::describe(&self.request(&waiting, &settings));
                self.reply(waiting.stanza, bytes);
            }
            Plan::Read(reading) => {
                let wait = Wait::Items(Box::new(reading));
                self.iq_waits(waiting.stanza, *waiting.element, wait, waiting.target);
            }
            Plan::Change(change) if change.changes.is_empty() => self.store_also(waiting, change),
            Plan::Change(change) => {
                let id = fresh_id(&waiting.stanza);
                self.ask_owner(
                    owner,
                    &waiting,
                    &id,
                    &change.changes,
                    change.request.as_ref(),
                );
                let write = self.write(Write::Store(store::Write::Pubsub {
                    owner: owner.clone(),
                    changes: change.changes.clone(),
                    bytes_max: self.settings.pubsub_bytes_max,
                }));
                if let Some(entity) = self.nodes.get_mut(owner) {
                    entity.last_write = write;
                }
                let after = AfterNodes::Stored(waiting, change);
                self.after(write, After::Nodes(Box::new(after)));
            }
        }
    }

    /// Reads something of an account's nodes, after what has been changed of them.
    pub(super) fn read_nodes(&mut self, owner: &BareJid, n: u64, read: Read) {
        let behind = self.nodes.get(owner).map_or(0, |e| e.last_write);
        if behind > self.durable {
            let after = AfterNodes::Read(n, Box::new(read));
            return self.after(self.write_number, After::Nodes(Box::new(after)));
        }
        self.fx.reads.push((ReadTag::Iq(n), read));
    }

    /// What is stored beside the nodes, after them.
    fn store_also(&mut self, waiting: Waiting, change: Box<Change>) {
        let owner = waiting.stanza.to.bare();
        let write = match &change.also {
            None => return self.answer_nodes(waiting, Ok(change.reply)),
            Some(Also::VCard(xml)) => store::Write::VCard {
                owner: owner.clone(),
                xml: xml.clone(),
            },
            Some(Also::Private(element)) => store::Write::Private {
                owner: owner.clone(),
                elements: vec![element.clone()],
                bytes_max: self.settings.private_bytes_max,
            },
        };
        let write = self.write(Write::Store(write));
        // What is read next is read after this, too.
        if let Some(entity) = self.nodes.get_mut(&owner) {
            entity.last_write = write;
        }
        let after = AfterNodes::Also(waiting, change);
        self.after(write, After::Nodes(Box::new(after)));
    }

    /// What a write was waited for.
    pub(super) fn nodes_durable(&mut self, what: AfterNodes, result: Option<&Written>) {
        match what {
            AfterNodes::Read(n, read) => self.fx.reads.push((ReadTag::Iq(n), *read)),
            AfterNodes::Load(owner) => {
                if let Some(entity) = self.nodes.get_mut(&owner) {
                    entity.loading_ms = None;
                    self.load_nodes(&owner);
                }
            }
            AfterNodes::Stored(waiting, change) => match self.stored(&waiting, &change, result) {
                Err(refusal) => self.answer_nodes(waiting, Err(refusal)),
                Ok(()) if change.also.is_some() => self.store_also(waiting, change),
                Ok(()) => self.nodes_stored(waiting, *change),
            },
            AfterNodes::Also(waiting, change) => match self.stored(&waiting, &change, result) {
                Err(refusal) => self.answer_nodes(waiting, Err(refusal)),
                Ok(()) => self.nodes_stored(waiting, *change),
            },
        }
    }

    /// What became of a write.
    fn stored(
        &mut self,
        waiting: &Waiting,
        change: &Change,
        result: Option<&Written>,
    ) -> Result<(), Refusal> {
        let Some(Written::Failed(error)) = result else {
            return Ok(());
        };
        if let Some(entity) = self.nodes.get_mut(&waiting.stanza.to.bare()) {
            // They are not as they were thought to be.
            entity.nodes = None;
        }
        let removes = |c: &PubsubChange| {
            matches!(
                c,
                PubsubChange::Delete { .. } | PubsubChange::Retract { .. }
            )
        };
        let only_removes = change.changes.iter().all(removes);
        Err(match error {
            // It was done before the server was killed.
            WriteError::NotFound if only_removes && waiting.again => return Ok(()),
            WriteError::NotFound if only_removes => Refusal::new(StanzaError::ItemNotFound),
            WriteError::TooMuch => Refusal::saying(
                StanzaError::PolicyViolation,
                "the account keeps as much as it may",
            ),
            // A node that is not there was made in memory only, by a change before this one that the disk has refused.
            _ => Refusal::new(StanzaError::ResourceConstraint),
        })
    }

    fn nodes_stored(&mut self, waiting: Waiting, change: Change) {
        let owner = waiting.stanza.to.bare();
        self.answer_nodes(waiting, Ok(change.reply));
        for notice in change.notices {
            self.notify(&owner, notice);
        }
        self.photo_changed(&owner, &change.changes);
        self.bookmarks_changed(&owner, &change.changes);
        for (node, to) in change.last {
            let query = PubsubQuery {
                owner: owner.clone(),
                node: node.clone(),
                range: PubsubRange::Newest,
                limit: 1,
                bytes_max: 0,
            };
            let read = self.last_reads.begin();
            let tag = ReadTag::Last(owner.clone(), Box::new(LastFor { node, to, read }));
            self.fx.reads.push((tag, Read::Items(Box::new(query))));
        }
    }

    /// The last item for a new subscriber (XEP-0060 §6.1.7).
    pub(super) fn last_read(&mut self, owner: &BareJid, last: LastFor, result: ReadResult) {
        let ReadResult::Items(Some(page)) = result else {
            return;
        };
        let nodes = self.nodes.get(owner).and_then(|e| e.nodes.as_ref());
        let config = nodes.and_then(|n| n.get(&last.node)).map(|n| &n.config);
        let (Some(config), Some(newest)) = (config, page.items.first()) else {
            return;
        };
        if self.last_reads.is_overtaken(last.read, owner, &last.node) {
            return;
        }
        let payload = config.payloads.then_some(&newest.payload);
        let notice = Notice {
            event: event(&item(&last.node, &newest.id, payload)),
            node: last.node,
            kind: config.notification,
            changes_items: false,
            delay_ms: Some(newest.time_ms),
            to: Recipients::One(last.to),
        };
        self.notify(owner, notice);
    }

    /// The question that waits.
    fn request<'a>(&self, waiting: &'a Waiting, settings: &'a Settings) -> Request<'a> {
        let to = &waiting.stanza.to;
        Request {
            element: &waiting.element,
            from: &waiting.stanza.from,
            to: addressed(waiting),
            target: waiting.target,
            context: context(settings, self.now, self.uptime_s(), false, to),
        }
    }

    pub(super) fn answer_nodes(
        &mut self,
        waiting: Waiting,
        answer: Result<Option<xmpp::node::Node>, Refusal>,
    ) {
        let settings = self.settings.clone();
        let request = self.request(&waiting, &settings);
        let bytes = match answer {
            // A message is answered by what comes of it.
            Ok(_) if matches!(waiting.stanza.kind, StanzaKind::Message(_)) => None,
            Ok(payload) => Some(request.result(payload.as_ref())),
            Err(refusal) => request.refused(&refusal),
        };
        match bytes {
            Some(bytes) => self.reply(waiting.stanza, bytes),
            None => self.done(waiting.stanza.token),
        }
    }

    /// Who may read a node that is loaded.
    pub(super) fn access_of(&self, owner: &BareJid, node: &str) -> Option<AccessModel> {
        let nodes = self.nodes.get(owner)?.nodes.as_ref()?;
        nodes.get(node).map(|node| node.config.access)
    }

    /// Groups of the account's roster that somebody is in: its own, and those of the directories.
    fn roster_groups(&self, owner: &BareJid, contact: &BareJid) -> Vec<String> {
        let roster = self.users.get(owner).and_then(|u| u.roster.as_ref());
        let item = roster.and_then(|r| r.item(contact));
        let mut groups = item.map(|i| i.groups.clone()).unwrap_or_default();
        let shown = self.groups.view.shown(owner, contact);
        let titles = shown.iter().flat_map(|s| &s.titles);
        groups.extend(titles.map(|title| title.to_string()));
        groups
    }

    // ---- notices ----------------------------------------------------------------------------------------

    /// Tells who hears of it: one message per shard.
    pub(super) fn notify(&mut self, owner: &BareJid, notice: Notice) {
        let audience = match &notice.to {
            Recipients::One(to) => {
                let targets = vec![subscriber(to)];
                return self.send_event(owner, &notice, targets, Vec::new(), BTreeSet::new());
            }
            Recipients::All(audience) => audience,
        };
        let known = self.users.get(owner).is_some_and(|u| u.audience.is_some());
        let known = known && self.knows_blocked(owner);
        let by_groups = audience.access == AccessModel::Roster;
        if !known || by_groups && !self.has_roster(owner) {
            self.load(owner);
            return self.queue_for(owner, Queued::Notice(Box::new(notice)));
        }
        let mut targets = Vec::new();
        let subscribed = audience.subscribers.iter();
        let subscribed = subscribed.filter(|jid| self.may_hear(owner, audience, &jid.bare()));
        let subscribed: Vec<&Jid> = subscribed.collect();
        let bare = subscribed.iter().filter(|jid| jid.as_full().is_none());
        let bare: HashSet<BareJid> = bare.map(|jid| jid.bare()).collect();
        let whole = |jid: &BareJid| bare.contains(jid);
        for jid in &subscribed {
            // A resource of an account that has subscribed as a whole hears it once.
            if jid.as_full().is_none() || !whole(&jid.bare()) {
                targets.push(subscriber(jid));
            }
        }
        let contacts = self.contacts_of(owner, audience);
        for contact in std::iter::once(owner.clone()).chain(contacts) {
            if !whole(&contact) && !audience.outcasts.contains(&contact) {
                targets.push(EventTarget::Interested(contact));
            }
        }
        let groups = match audience.contacts {
            Contacts::All => self.groups_of(owner, false),
            _ => Vec::new(),
        };
        let outcasts = audience.outcasts.clone();
        if notice.changes_items {
            self.last_reads.told(owner, &notice.node);
        }
        self.send_event(owner, &notice, targets, groups, outcasts);
    }

    /// Contacts who are told by their presence, but for members of groups of the directories where those are told all.
    fn contacts_of(&self, owner: &BareJid, audience: &Audience) -> Vec<BareJid> {
        let user = self.users.get(owner);
        let get_presence = user.and_then(|u| u.audience.as_deref()).unwrap_or_default();
        match &audience.contacts {
            Contacts::All => get_presence.to_vec(),
            Contacts::Listed(listed) => {
                let listed = listed.iter().filter(|jid| self.sees(owner, jid));
                listed.cloned().collect()
            }
            Contacts::Groups(groups) => {
                let view = &self.groups.view;
                let members = view.contacts(owner).into_iter();
                let members = members
                    .filter(|(_, shown)| shown.presence)
                    .map(|(jid, _)| jid);
                let all: BTreeSet<&BareJid> = get_presence.iter().chain(members).collect();
                let in_one = |jid: &&BareJid| {
                    let theirs = self.roster_groups(owner, jid);
                    theirs.iter().any(|g| groups.contains(g))
                };
                all.into_iter().filter(in_one).cloned().collect()
            }
        }
    }

    /// Somebody who has subscribed may still read the node.
    fn may_hear(&self, owner: &BareJid, audience: &Audience, jid: &BareJid) -> bool {
        if jid == owner {
            return true;
        }
        let open = match (audience.access, &audience.contacts) {
            (AccessModel::Open | AccessModel::Authorize, _) => true,
            (AccessModel::Presence, _) => self.sees(owner, jid),
            (_, Contacts::Groups(groups)) => {
                let theirs = self.roster_groups(owner, jid);
                theirs.iter().any(|g| groups.contains(g))
            }
            (_, Contacts::Listed(listed)) => listed.contains(jid),
            (_, Contacts::All) => false,
        };
        open && !audience.outcasts.contains(jid)
    }

    pub(super) fn send_event(
        &mut self,
        owner: &BareJid,
        notice: &Notice,
        targets: Vec<EventTarget>,
        groups: Vec<Arc<directory::population::Group>>,
        outcasts: BTreeSet<BareJid>,
    ) {
        let mut id = [0; 8];
        (self.random)(&mut id);
        let (prefix, suffix) = message(owner, u64::from_be_bytes(id), notice);
        let mut per_shard: std::collections::BTreeMap<ShardId, Vec<EventTarget>> =
            Default::default();
        if !groups.is_empty() {
            per_shard.extend((0..self.shards).map(|n| (ShardId(n), Vec::new())));
        }
        for target in targets {
            let account = target.account();
            if self.settings.serves(account.domainpart()) {
                per_shard
                    .entry(self.home(&account))
                    .or_default()
                    .push(target);
            }
        }
        let fan = Arc::new(EventFan {
            from: owner.clone(),
            node: notice.node.as_str().into(),
            prefix,
            suffix,
            groups,
            outcasts,
            but: self.blocked_by(owner),
        });
        for (shard, targets) in per_shard {
            self.tell(shard, ShardMsg::Event(fan.clone(), targets));
        }
    }

    /// A notice for who is online here.
    pub(super) fn event_fan(&mut self, fan: &Arc<EventFan>, targets: &[EventTarget]) {
        let named: BTreeSet<BareJid> = targets.iter().map(EventTarget::account).collect();
        let members = self.with_members(&fan.from, &[], &fan.groups);
        let members = members
            .into_iter()
            .filter(|m| !named.contains(*m) && !fan.outcasts.contains(*m));
        let members = members.cloned().map(EventTarget::Interested);
        let all: Vec<EventTarget> = targets.iter().cloned().chain(members).collect();
        self.event_to(fan, all);
    }

    /// The same for these alone: who had to be loaded first is one of those whom it was for, and the others have it.
    pub(super) fn event_to(&mut self, fan: &Arc<EventFan>, targets: Vec<EventTarget>) {
        let mut ready = Vec::new();
        for target in targets {
            let account = target.account();
            let (write, durable) = (self.write_number, self.durable);
            let Some(user) = self.users.get(&account).filter(|u| u.hears(durable)) else {
                continue;
            };
            // It never overtakes what came before it (RFC 6120 §10.1).
            let loading = user.loading.is_some();
            let behind = user.last_write > durable;
            // Whether it wants to hear from there is to be read first.
            let unknown = !user.knows_blocked && self.somebody_hears(&account);
            if loading || unknown {
                self.load(&account);
                self.queue_for(&account, Queued::Event(fan.clone(), target));
            } else if behind {
                self.user(&account).last_write = write;
                self.after(write, After::Event(fan.clone(), target));
            } else {
                ready.push(target);
            }
        }
        self.event_out(fan, &ready);
    }

    /// Nothing stands before it any more: one Fanout per link, and kind of framing. What does not fit is dropped: it is not stored.
    pub(super) fn event_out(&mut self, fan: &EventFan, targets: &[EventTarget]) {
        let now = self.now;
        let settings = self.settings.clone();
        let from = Jid::Bare(fan.from.clone());
        let mut per_link: HashMap<(LinkId, bool), Vec<FanoutTarget>> = HashMap::default();
        for target in targets {
            let account = target.account();
            let Some(user) = self.users.get(&account) else {
                continue;
            };
            // XEP-0163 §4.3.3, rule 3; and the other way.
            if user.blocked.blocks(&account, &from) {
                continue;
            }
            for slot in user.sessions.clone() {
                let session = self
                    .sessions
                    .get_mut(slot as usize)
                    .expect("users know only live slots");
                let Some(bound) = session.bound().filter(|b| b.ready && b.presence.is_some())
                else {
                    continue;
                };
                let hears = match target {
                    EventTarget::Interested(_) => bound.is_interested_in(&fan.node),
                    EventTarget::Account(_) => true,
                    EventTarget::Resource(jid) => bound.jid == *jid,
                };
                let blocked = !fan.but.is_empty() && {
                    let to = Jid::Full(bound.jid.clone());
                    fan.but.blocks(&fan.from, &to)
                };
                if !hears || blocked {
                    continue;
                }
                let floods = bound.floods();
                let insert = to_attribute(bound.jid.as_str());
                let len = fan.prefix.len() + insert.len() + fan.suffix.len();
                match session.key {
                    Some(key)
                        if !floods
                            && session.has_room(len, &settings)
                            && !session.holds_back()
                            && !session.is_away()
                            && !session.is_inactive() =>
                    {
                        session.count_out(len, OutKind::STANZA, now);
                        session.keep(|| {
                            Kept::Of(fan.prefix.clone(), insert.clone(), fan.suffix.clone())
                        });
                        let group = (key.link, session.is_framed());
                        per_link.entry(group).or_default().push(FanoutTarget {
                            conn: key.conn,
                            insert,
                            stored: None,
                        });
                        self.status.stanzas_out += 1;
                    }
                    _ => {
                        let parts = [&fan.prefix[..], &insert[..], &fan.suffix[..]];
                        self.give_behind(slot, Bytes::from(parts.concat()));
                    }
                }
                self.touch(slot);
            }
        }
        self.fanouts(&fan.prefix, &fan.suffix, per_link);
    }

    /// One frame for each link and framing, in order.
    pub(super) fn fanouts(
        &mut self,
        prefix: &Bytes,
        suffix: &Bytes,
        per_link: HashMap<(LinkId, bool), Vec<FanoutTarget>>,
    ) {
        let mut links: Vec<_> = per_link.into_iter().collect();
        links.sort_by_key(|(l, _)| *l);
        for ((link, framed), targets) in links {
            let frame = Frame::Fanout(Fanout {
                prefix: match framed {
                    true => framing::beginning(prefix),
                    false => prefix.clone(),
                },
                suffix: suffix.clone(),
                stanza: true,
                targets,
            });
            self.fx.links.push(LinkCommand::Frame {
                link,
                frame,
                track: false,
            });
        }
    }
}

/// The address that the client wrote, if it wrote one: the answer comes from there.
fn addressed(waiting: &Waiting) -> Option<&Jid> {
    let written = waiting.element.attr("to").is_some();
    written.then_some(&waiting.stanza.to)
}

fn subscriber(jid: &Jid) -> EventTarget {
    match jid {
        Jid::Bare(account) => EventTarget::Account(account.clone()),
        Jid::Full(resource) => EventTarget::Resource(resource.clone()),
    }
}

/// An id for an item or node that was given none: the same when the request comes again after a kill.
fn fresh_id(stanza: &Routed) -> String {
    let parts = stanza.origin.map(|o| [o.session, o.stanza, o.hash]);
    let bytes = parts.unwrap_or_default().map(u64::to_be_bytes).concat();
    let (of_origin, of_bytes) = (
        super::stream::hash(&bytes),
        super::stream::hash(&stanza.bytes),
    );
    format!("{of_origin:016x}{of_bytes:016x}")
}

/// The message, up to the value of `to`, and behind it.
fn message(owner: &BareJid, id: u64, notice: &Notice) -> (Bytes, Bytes) {
    let mut prefix = Vec::with_capacity(64 + owner.as_str().len());
    prefix.extend_from_slice(match notice.kind {
        NotificationType::Headline => b"<message type='headline' from='",
        NotificationType::Normal => b"<message from='",
    });
    escape_into(&mut prefix, owner.as_str());
    prefix.extend_from_slice(format!("' id='{id:016x}'").as_bytes());
    let delay = notice.delay_ms.map_or_else(Bytes::new, |delay_ms| {
        let delay = xmpp::node::Node::new("delay", ns::DELAY)
            .with_attr("from", owner.as_str())
            .with_attr("stamp", crate::routing::stamp(delay_ms));
        delay.to_bytes(ns::CLIENT)
    });
    let suffix = [b">", &notice.event[..], &delay[..], b"</message>"].concat();
    (prefix.into(), suffix.into())
}

/// ` to='...'`, as it goes between prefix and suffix.
pub(super) fn to_attribute(to: &str) -> Bytes {
    let mut out = Vec::with_capacity(to.len() + 6);
    out.extend_from_slice(b" to='");
    escape_into(&mut out, to);
    out.push(b'\'');
    out.into()
}
