//! A shard: one thread's worth of sessions and entities, as a deterministic state machine.
//!
//! In: `Event`. Out: `Effects`. Owns: the sessions of its connections, the users at home on it.
//! Never: waits, reads a clock, touches the state of another shard; acknowledges or shows a message before the commit
//! that holds it.
//!
//! The order of things within a shard hangs on one queue, that of the room `after`. Whatever must follow a write stands in it under the
//! number of that write, and is carried out when the store says `Durable`.

mod acks;
mod admin;
mod after;
mod approval;
mod archive;
mod blocking;
mod caps;
mod component;
mod conn;
mod copies;
mod csi;
mod flood;
mod groups;
mod iq;
mod login;
mod message;
mod notices;
mod presence;
mod privileged;
mod probes;
mod profiles;
mod pubsub;
mod push;
mod recovery;
mod register;
mod resumption;
mod roster;
mod sasl2;
mod stream;
#[cfg(test)]
mod tests;
mod tick;
mod upgrade;
mod user;

use crate::event::*;
use crate::failures::Failures;
use crate::session::{Session, Unacked};
use crate::settings::Settings;
use after::After;
use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use user::User;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};

/// The shard of an account. The same in every run: a fixed hash of the prepared address.
pub fn home(account: &BareJid, shards: u16) -> ShardId {
    let hash = foldhash::quality::FixedState::with_seed(0x1574).hash_one(account.as_str());
    ShardId((hash % u64::from(shards)) as u16)
}

/// The bare address of a domain.
fn domain_of(jid: &BareJid) -> BareJid {
    BareJid::from_parts(None, jid.domainpart()).expect("a part of an address is prepared")
}

/// Slots of the sessions of one account: nearly always a few.
type SmallSlots = SmallVec<[u32; 4]>;

/// An IQ that waits for a look-up.
#[derive(Debug)]
struct WaitingIq {
    stanza: Box<Routed>,
    element: Box<xmpp::element::Element>,
    since_ms: u64,
    wait: crate::iq::Wait,
    target: crate::iq::Target,
}

/// Draws random bytes: the operating system's generator, or the simulation's.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// See the module.
pub struct Shard {
    id: ShardId,
    shards: u16,
    epoch: u32,
    settings: Arc<Settings>,
    notices: Arc<crate::notices::Notices>,
    random: Random,
    ids: store::PositionKey,
    now: Now,
    /// When it was made (mono ms).
    started_ms: u64,

    // Boxed: a table that doubles in place of many large values costs more than the values.
    sessions: Slab<Box<Session>>,
    generations: Vec<u32>,
    conns: HashMap<ConnKey, u32>,
    /// Sessions found in the store after a restart, by the key their mux holds.
    notes: HashMap<[u8; 16], u32>,
    /// Connections given to other shards, until the link loop has taken note.
    gone: HashSet<ConnKey>,
    users: HashMap<BareJid, Box<User>>,

    next_session: u64,
    write_number: u64,
    durable: u64,
    after: VecDeque<(u64, After)>,
    /// What groups give accounts, as of the last population.
    groups: groups::Groups,
    waiting_iqs: HashMap<u64, WaitingIq>,
    /// Archives that are being read, and for whom.
    archive_reads: archive::Reads,
    /// What hashes of clients' capabilities stand for.
    caps: crate::caps::Table,
    /// Those that somebody is being asked about.
    asking: HashMap<crate::caps::Key, caps::Asking>,
    /// Publish-subscribe nodes of accounts, while in use.
    nodes: HashMap<BareJid, Box<pubsub::Entity>>,
    /// Last items that are being read.
    last_reads: crate::pubsub::last::Reads,
    /// Sessions with an IQ request behind their flood, once for each: since when (mono ms), slot, generation.
    requests_behind: VecDeque<(u64, u32, u32)>,
    /// What accounts have sent and the disk has refused to take: written again by the tick.
    unsaved: Vec<copies::Sent>,
    /// What components do in the name of our people, and hear of them.
    privileged: privileged::Privileged,
    /// Accounts with messages to be told to push services, by when (mono ms).
    push_due: std::collections::BTreeSet<(u64, BareJid)>,
    /// Reports of spam and abuse of the last hour that were passed on: when (mono ms), and whose.
    reports: Vec<(u64, BareJid)>,
    next_iq: u64,
    /// Ended sessions whose records are kept for `mux_lost`: due time, name.
    ended: VecDeque<(u64, SessionId)>,
    /// When records of sessions not resumed since the start are given up (mono ms).
    orphans_until_ms: u64,

    fx: Effects,
    local: VecDeque<ShardMsg>,
    dirty: Vec<u32>,
    dirty_users: Vec<BareJid>,
    status: ShardStatus,
    failures: Failures,
    next_tick_ms: u64,
    sweep_at: usize,
    credit: bool,
    /// Connections that have not logged in.
    negotiating: usize,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

/// What a shard is made of.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Which one.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// The store's epoch of this run: part of the names of its sessions.
    pub epoch: u32,
    /// Limits and switches.
    pub settings: Arc<Settings>,
    /// What the server says to people by itself.
    pub notices: Arc<crate::notices::Notices>,
    /// The population clients have been told of before. After a kill: the last one of which it is certain that they have been.
    pub population: Arc<directory::population::Population>,
    /// Turns positions into ids for clients.
    pub ids: store::PositionKey,
}

impl Shard {
    /// A shard without sessions. Sessions of an earlier run come by [`Shard::restore`].
    pub fn new(config: ShardConfig, random: Random, now: Now) -> Self {
        let groups = groups::Groups::new(config.population, config.settings.group_presence_max);
        Self {
            id: config.id,
            shards: config.shards,
            epoch: config.epoch,
            settings: config.settings,
            notices: config.notices,
            random,
            ids: config.ids,
            now,
            started_ms: now.mono_ms,
            sessions: Slab::new(),
            generations: Vec::new(),
            conns: HashMap::default(),
            notes: HashMap::default(),
            gone: HashSet::default(),
            users: HashMap::default(),
            next_session: 0,
            write_number: 0,
            durable: 0,
            after: VecDeque::new(),
            groups,
            waiting_iqs: HashMap::default(),
            archive_reads: archive::Reads::default(),
            caps: crate::caps::Table::default(),
            asking: HashMap::default(),
            nodes: HashMap::default(),
            last_reads: crate::pubsub::last::Reads::default(),
            requests_behind: VecDeque::new(),
            unsaved: Vec::new(),
            privileged: Default::default(),
            push_due: Default::default(),
            reports: Vec::new(),
            next_iq: 0,
            ended: VecDeque::new(),
            orphans_until_ms: 0,
            fx: Effects::default(),
            local: VecDeque::new(),
            dirty: Vec::new(),
            dirty_users: Vec::new(),
            status: ShardStatus::default(),
            failures: Failures::default(),
            next_tick_ms: now.mono_ms + tick::TICK_MS,
            sweep_at: 0,
            credit: true,
            negotiating: 0,
        }
    }

    /// Takes one event. Effects gather until [`Shard::flush`].
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        if self.is_stray(&event) {
            self.fx.links.push(LinkCommand::Stray(Box::new(event)));
            return;
        }
        match event {
            Event::Opened(key, open, mux) => self.opened(key, open, mux),
            Event::Resumed(key, resume, mux) => self.resumed(key, *resume, &mux),
            Event::Input(key, input) => self.input(key, input),
            Event::Injected(key) => self.injected(key),
            Event::Secured(key, facts) => self.secured(key, *facts),
            Event::Drained(key, n) => self.drained(key, n),
            Event::Closed(key, reason) => self.conn_closed(key, reason),
            Event::Taken(key, id) => self.taken(key, id.0),
            Event::SettledTaken(key, stanzas) => self.settled_taken(key, stanzas),
            Event::Adopt(key, travel) => self.adopt(key, travel.session),
            Event::Rehomed(key) => {
                self.gone.remove(&key);
                self.fx.links.push(LinkCommand::RehomeDone(key));
            }
            Event::ResumeEnd(mux) => self.end_orphans(Some(&mux)),
            Event::LinkLost(link) => self.link_lost(link),
            Event::Durable { first, results } => self.on_durable(first, results),
            Event::Read(tag, result) => self.read_done(tag, result),
            Event::Looked(tag, result, revocations) => self.looked(tag, result, revocations),
            Event::Shard(msg) => self.shard_msg(msg),
            Event::Admin(ask) => self.admin(ask),
            Event::Command(n, outcome) => self.command_done(n, &outcome),
            Event::Reconfigured(settings) => self.reconfigured(settings),
            Event::Population(population, difference) => self.population(population, &difference),
        }
        self.run_local();
    }

    /// Ends a batch of events: marks, acknowledgements and record changes gathered on the way go into the effects,
    /// which are handed over.
    pub fn flush(&mut self, now: Now) -> Effects {
        self.now = now;
        self.flush_users();
        self.flush_sessions();
        std::mem::take(&mut self.fx)
    }

    /// When [`Shard::handle_timeout`] wants to be called (mono ms).
    pub fn poll_timeout(&self) -> u64 {
        self.next_tick_ms
    }

    /// Name of the session on a connection.
    pub fn name_of(&self, key: ConnKey) -> Option<SessionId> {
        let slot = self.slot_of(key)?;
        self.sessions.get(slot as usize)?.name
    }

    /// The connection has been given to another shard, and the link loop may not have noticed yet.
    pub(crate) fn has_given_away(&self, key: ConnKey) -> bool {
        self.gone.contains(&key)
    }

    /// Since when the server runs, seconds.
    fn uptime_s(&self) -> u64 {
        self.now.mono_ms.saturating_sub(self.started_ms) / 1_000
    }

    /// Whether marks that let clients send more are given out: not while a queue of this shard is long.
    pub fn give_credit(&mut self, yes: bool) {
        if yes && !self.credit {
            // What was held back goes out with the next flush.
            let slots: Vec<u32> = self
                .sessions
                .iter()
                .filter(|(_, s)| s.key.is_some())
                .map(|(n, _)| n as u32)
                .collect();
            slots.into_iter().for_each(|slot| self.touch(slot));
        }
        self.credit = yes;
    }

    // ---- addresses --------------------------------------------------------------------------------------

    /// Whether an account of ours has a right.
    fn may(&self, account: &BareJid, right: crate::policy::Right) -> bool {
        self.verdict(account, right).allowed
    }

    fn verdict(&self, account: &BareJid, right: crate::policy::Right) -> crate::policy::Verdict {
        let groups = |group: &str| self.membership(account, group);
        self.settings.policy.test(account, right, &groups)
    }

    /// All rights of an account of ours.
    fn rights(&self, account: &BareJid) -> crate::policy::Rights {
        let groups = |group: &str| self.membership(account, group);
        crate::policy::Rights::of(&self.settings.policy, account, &groups)
    }

    fn membership(&self, account: &BareJid, group: &str) -> Option<bool> {
        let population = self.groups.view.population();
        population.membership(account, group, &self.settings.swept)
    }

    /// A component is one entity, whatever addresses it has.
    fn home(&self, account: &BareJid) -> ShardId {
        match self.settings.component(account.domainpart()) {
            Some(_) if account.localpart().is_some() => home(&domain_of(account), self.shards),
            _ => home(account, self.shards),
        }
    }

    fn generation(&self, slot: u32) -> u32 {
        self.generations.get(slot as usize).copied().unwrap_or(0)
    }

    fn live(&self, slot: u32, generation: u32) -> bool {
        self.generation(slot) == generation && self.sessions.contains(slot as usize)
    }

    fn insert_session(&mut self, session: Session) -> u32 {
        if let Some(key) = session.key {
            let slot = self.sessions.insert(Box::new(session)) as u32;
            self.conns.insert(key, slot);
            self.grow_generations(slot);
            slot
        } else {
            let slot = self.sessions.insert(Box::new(session)) as u32;
            self.grow_generations(slot);
            slot
        }
    }

    fn grow_generations(&mut self, slot: u32) {
        if self.generations.len() <= slot as usize {
            self.generations.resize(slot as usize + 1, 1);
        }
    }

    /// Takes the session out; tokens and answers for it find nobody from now on.
    fn remove_session(&mut self, slot: u32) -> Session {
        let session = *self.sessions.remove(slot as usize);
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
        if let Some(key) = session.key {
            self.conns.remove(&key);
        }
        session
    }

    fn slot_of(&self, key: ConnKey) -> Option<u32> {
        self.conns.get(&key).copied()
    }

    fn session(&mut self, slot: u32) -> &mut Session {
        self.sessions
            .get_mut(slot as usize)
            .expect("slots come from `conns` or were checked with `live`")
    }

    fn touch(&mut self, slot: u32) {
        let session = self.session(slot);
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(slot);
        }
    }

    // ---- messages between shards ------------------------------------------------------------------------

    fn tell(&mut self, to: ShardId, msg: ShardMsg) {
        if to == self.id {
            self.local.push_back(msg);
        } else {
            self.fx.shards.push((to, msg));
        }
    }

    /// Sends a stanza to the entity it is for. The one place that decides where that is.
    fn route(&mut self, stanza: Box<Routed>) {
        let to = stanza.to.bare();
        if !self.settings.reaches(to.domainpart()) {
            self.bounce(stanza, StanzaError::RemoteServerNotFound, None);
        } else {
            self.tell(self.home(&to), ShardMsg::Stanza(stanza));
        }
    }

    fn run_local(&mut self) {
        while let Some(msg) = self.local.pop_front() {
            self.shard_msg(msg);
        }
    }

    fn shard_msg(&mut self, msg: ShardMsg) {
        match msg {
            ShardMsg::Stanza(stanza) => self.stanza(stanza),
            ShardMsg::Done(token) => self.token_done(token),
            ShardMsg::Gone(account) => self.forget_member(&account),
            ShardMsg::Presence(fan, targets) => self.presence_fan(&fan, &targets),
            ShardMsg::Event(fan, targets) => self.event_fan(&fan, &targets),
            ShardMsg::Last(wanted) => self.last_wanted(*wanted),
            ShardMsg::Probe(probe) => self.probes(*probe),
            ShardMsg::List(list) => self.list(*list),
            ShardMsg::Listed(list) => self.listed(*list),
            ShardMsg::Subscription(s) => self.subscription(s),
        }
    }

    /// What the token's element caused is durable and answered.
    fn done(&mut self, token: Option<Token>) {
        if let Some(token) = token {
            if token.shard == self.id {
                self.token_done(token);
            } else {
                self.tell(token.shard, ShardMsg::Done(token));
            }
        }
    }

    fn token_done(&mut self, token: Token) {
        if self.live(token.slot, token.generation) {
            self.session(token.slot).done(token.element);
            self.settle(token.slot);
        }
    }

    fn settle(&mut self, slot: u32) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("checked by the caller");
        session.settle(now, &mut self.fx.links);
        self.touch(slot);
    }

    // ---- the end of a batch -----------------------------------------------------------------------------

    fn flush_sessions(&mut self) {
        // Flushing one session may touch others.
        while let Some(slot) = self.dirty.pop() {
            self.flush_record(slot);
            self.record_waiting(slot);
            let Some(session) = self.sessions.get_mut(slot as usize) else {
                continue;
            };
            if !session.dirty {
                continue;
            }
            if session.is_inline() {
                self.go_on_inline(slot);
            } else if session.holds_for.is_some() {
                self.end_holding(slot);
            }
            let Some(session) = self.sessions.get_mut(slot as usize) else {
                continue;
            };
            if session.is_changing_connection() {
                self.go_on(slot);
            } else if session.goes_stale() {
                self.write_record(slot);
            }
            let Some(session) = self.sessions.get_mut(slot as usize) else {
                continue;
            };
            if !session.unacked.is_empty() || session.keeps_much(false) || session.awaits_archive()
            {
                session.request_ack(false, self.now, &mut self.fx.links);
            }
            let over = session.flush(&self.settings, self.credit, &mut self.fx.links);
            let orphaned_end = session.key.is_none()
                && session.holds_for.is_none()
                && matches!(session.stage, crate::session::Stage::Closing { .. });
            if over {
                let key = session.key;
                // Its origins go with its record: the mux may not have taken our Close, and bring everything again.
                self.remove_session(slot);
                if let Some(key) = key {
                    self.fx.links.push(LinkCommand::Forget(key));
                }
            } else if orphaned_end
                && self
                    .sessions
                    .get(slot as usize)
                    .is_some_and(|s| s.all_settled())
            {
                self.remove_session(slot);
            }
        }
    }

    fn flush_users(&mut self) {
        let dirty = std::mem::take(&mut self.dirty_users);
        for jid in dirty {
            self.flush_user_acks(&jid);
        }
    }

    fn mark_user(&mut self, jid: &BareJid) {
        if let Some(user) = self.users.get_mut(jid)
            && !user.dirty
        {
            user.dirty = true;
            self.dirty_users.push(jid.clone());
        }
    }

    // ---- small helpers for the rooms below --------------------------------------------------------------

    fn send_stanza(&mut self, slot: u32, bytes: Bytes) {
        self.send(slot, bytes, crate::session::OutKind::STANZA);
    }

    fn send_nonza(&mut self, slot: u32, bytes: Bytes) {
        self.send(slot, bytes, crate::session::OutKind::NONZA);
    }

    /// Answers a stanza with an error, to its sender, and settles it. Errors and results are never answered.
    #[expect(clippy::boxed_local, reason = "stanzas travel boxed")]
    fn bounce(&mut self, stanza: Box<Routed>, condition: StanzaError, text: Option<&str>) {
        if let Some(bytes) = crate::routing::error_reply(&stanza.bytes, condition, text)
            && self.settings.reaches(stanza.from.domainpart())
        {
            let reply = Routed {
                kind: stanza.kind.error(),
                from: stanza.to.clone(),
                to: stanza.from.clone(),
                bytes,
                retention: crate::routing::Retention::Drop,
                origin: None,
                copies: false,
                token: stanza.token,
            };
            self.tell(
                self.home(&reply.to.bare()),
                ShardMsg::Stanza(Box::new(reply)),
            );
        } else {
            self.done(stanza.token);
        }
    }

    /// The taking session of this account with this resource.
    fn session_of(&self, to: &Jid) -> Option<u32> {
        let full = to.as_full()?;
        let user = self.users.get(&full.bare())?;
        user.sessions.iter().copied().find(|&slot| {
            self.sessions
                .get(slot as usize)
                .and_then(|s| s.bound())
                .is_some_and(|b| b.ready && b.jid.resourcepart() == full.resourcepart())
        })
    }

    fn delivered(&mut self, slot: u32, delivered: &[Unacked]) {
        if !delivered.is_empty() {
            self.clear_marks(slot, delivered);
        }
    }
}
