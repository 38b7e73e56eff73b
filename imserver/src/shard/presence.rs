//! Presence on its way: from a session to those who may see it (RFC 6121 §4).
//!
//! A broadcast crosses as one message per shard, and leaves as one Fanout per link.
//! Never: loads an entity for presence or a probe of somebody who is not online.

use super::pubsub::to_attribute;
use super::user::{Gone, Queued};
use super::{After, Shard};
use crate::blocking::Blocklist;
use crate::caps::Claim;
use crate::event::*;
use crate::presence::{self, Said};
use crate::pubsub::avatar::is_stamp;
use crate::routing::{PresenceType, Retention, StanzaKind};
use crate::session::resumption::Kept;
use crate::session::{Available, Flood, OutKind, csi};
use bytes::{BufMut, Bytes, BytesMut};
use directory::population::Group;
use foldhash::HashMap;
use proto::frame::{CloseReason, FanoutTarget};
use std::sync::Arc;
use xmpp::element::Element;
use xmpp::error::{StanzaError, StreamError};
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::node::escape_into;
use xmpp::stanza::{Direction, Rewrite, is_reserved};

/// Presence held back for one session while its output window is full: senders, newest stanza each. Of bytes it may be an output
/// window more.
pub(super) const HELD_PRESENCE_MAX: usize = 5_000;

impl Shard {
    /// A session's own presence stanza.
    pub(super) fn client_presence(
        &mut self,
        slot: u32,
        number: u64,
        element: Element,
        kind: StanzaKind,
        to: Option<Jid>,
    ) {
        let StanzaKind::Presence(presence_type) = kind else {
            return;
        };
        match (presence_type, to) {
            (PresenceType::Available | PresenceType::Unavailable, None) => {
                self.say(slot, number, element, presence_type)
            }
            (PresenceType::Available | PresenceType::Unavailable, Some(to)) => {
                self.directed(slot, number, &element, presence_type, to);
            }
            (PresenceType::Subscription(kind), Some(to)) => {
                self.client_subscription(slot, number, element, kind, &to)
            }
            (PresenceType::Subscription(_), None) => {
                self.refuse(slot, number, &element, StanzaError::BadRequest)
            }
            (PresenceType::Probe, Some(to)) => self.own_probe(slot, number, element, to),
            (PresenceType::Error, Some(to)) => {
                self.send_on(slot, number, &element, kind, Some(to), Retention::Drop);
            }
            (PresenceType::Probe | PresenceType::Error, None) => self.session(slot).done(number),
        }
    }

    /// Presence without `to`: the session says how it is to everybody who may know.
    fn say(&mut self, slot: u32, number: u64, element: Element, presence_type: PresenceType) {
        if self.session(slot).ended_before.is_some() {
            // Its end has been said since, and another session may have its name by now.
            return self.session(slot).done(number);
        }
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let before = bound.presence.as_ref().map(|p| p.priority);
        let said = match presence_type {
            PresenceType::Available => match presence::priority(&element) {
                Ok(priority) => Said::Available(priority),
                Err(condition) => return self.refuse(slot, number, &element, condition),
            },
            _ => Said::Unavailable,
        };
        let account = bound.account.clone();
        let plan = presence::on_broadcast(before, said);
        let needs_roster = plan.probe
            || self
                .users
                .get(&account)
                .is_none_or(|u| u.audience.is_none());
        if needs_roster && !self.has_roster(&account) {
            self.pause_for_roster(slot, number, element);
            return;
        }
        let settings = self.settings.clone();
        let ours = |by: &str| settings.speaks_for(by);
        let now = self.now;
        let away = presence::is_away(&element);
        let stamp = match said {
            Said::Available(_) => self.photo_stamp(&account, &element),
            _ => None,
        };
        let bound = self.session(slot).bound_mut().expect("checked above");
        let (prefix, suffix) = Rewrite::new(&element)
            .set("from", bound.jid.as_str())
            .remove("to")
            .cut(|child| {
                is_reserved(Direction::FromClient, child, ours)
                    || stamp.is_some() && is_stamp(child)
            })
            .append(stamp.as_deref().unwrap_or_default())
            .finish_split();
        bound.presence = match said {
            Said::Available(priority) => Some(Available {
                priority,
                away,
                prefix: prefix.clone(),
                suffix: suffix.clone(),
            }),
            _ => None,
        };
        bound.presence_changed_unix_ms = now.unix_ms;
        let mut caught_up = false;
        let mut gives_up = None;
        if !bound.takes_messages() {
            let owed = matches!(bound.flood, Flood::Wanted | Flood::Reading);
            gives_up = owed.then_some(bound.cursor + 1);
            bound.flood = Flood::Off;
            bound.taking_since_unix_ms = 0;
            caught_up = std::mem::take(&mut bound.catching_up);
        } else if bound.taking_since_unix_ms == 0 {
            bound.taking_since_unix_ms = now.unix_ms;
        }
        let claim = bound.presence.as_ref().and(Claim::of(&element));
        let available = bound.presence.is_some();
        let gone = Gone {
            jid: bound.jid.clone(),
            prefix,
            suffix,
            available: bound.presence.is_some(),
        };
        if !available {
            self.forget_presence(slot);
        }
        self.carry_out_plan(slot, &account, &plan, &gone, before.is_some());
        if available {
            self.take_claim(slot, claim, before.is_none());
        }
        if available {
            self.ask_for_photo(&account, before.is_none());
        }
        self.await_record(slot, number);
        self.session(slot).done(number);
        if plan.flood {
            self.greet(slot, &account);
        }
        if let Some(from) = gives_up {
            self.release_owed(slot, &account, from);
            self.release_behind_flood(slot);
        }
        if caught_up {
            self.resume_clearing(&account);
        }
    }

    pub(super) fn carry_out_plan(
        &mut self,
        slot: u32,
        account: &BareJid,
        plan: &presence::Plan,
        said: &Gone,
        was_available: bool,
    ) {
        if plan.audience {
            self.broadcast(said);
            self.tell_watchers(said, !was_available);
        }
        let to_account = to_attribute(account.as_str());
        let own = join(&said.prefix, &to_account, &said.suffix);
        let siblings = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for sibling in siblings {
            let available = self
                .session(sibling)
                .bound()
                .and_then(|b| b.presence.clone());
            if sibling == slot {
                if plan.echo {
                    self.give_presence(slot, &Jid::Full(said.jid.clone()), own.clone());
                }
            } else if available.is_none()
                && plan.siblings
                && !said.available
                && self.was_perhaps_available(sibling)
            {
                self.give_presence(sibling, &Jid::Full(said.jid.clone()), own.clone());
            } else if let Some(other) = available {
                if plan.siblings {
                    self.give_presence(sibling, &Jid::Full(said.jid.clone()), own.clone());
                }
                // What it was given just now may have been more than it may leave untaken: then it is gone.
                let from = self.session(sibling).bound().map(|b| b.jid.clone());
                if plan.siblings_presence
                    && let Some(from) = from
                {
                    self.give_presence(
                        slot,
                        &Jid::Full(from),
                        join(&other.prefix, &to_account, &other.suffix),
                    );
                }
            }
        }
        if plan.farewell {
            self.farewell(slot, said, was_available);
        }
        if plan.probe {
            self.probe_contacts(slot, account);
        }
        if plan.requests {
            let requests: Vec<Bytes> = self
                .users
                .get(account)
                .and_then(|u| u.roster.as_ref())
                .map(|r| r.requests().iter())
                .unwrap_or_default()
                .filter(|q| !self.blocks(account, &Jid::Bare(q.from.clone())))
                .map(|q| q.stanza.clone())
                .collect();
            for stanza in requests {
                self.send_stanza(slot, stanza);
            }
        }
        if plan.flood {
            self.start_flood(slot);
        }
    }

    /// Everybody who gets the account's presence, a message per shard.
    pub(super) fn broadcast(&mut self, said: &Gone) {
        self.broadcast_to(said, false);
    }

    /// The same, `everybody`: also who was in its groups before the restart.
    pub(super) fn broadcast_to(&mut self, said: &Gone, everybody: bool) {
        let account = said.jid.bare();
        let Some(audience) = self.users.get(&account).and_then(|u| u.audience.as_ref()) else {
            return;
        };
        let list = self.kept_from(&account, said.available);
        let blocked = |c: &&BareJid| list.blocks(&account, &Jid::Bare((*c).clone()));
        let per_shard = self.by_home(audience.iter().filter(|c| list.is_empty() || !blocked(c)));
        let groups = self.groups_of(&account, everybody);
        self.fan(said, per_shard, groups);
    }

    /// Those of them whom `only` names, but not those whom `but` does.
    pub(super) fn fan_to_some(&mut self, said: &Gone, but: Blocklist, only: Option<Blocklist>) {
        let account = said.jid.bare();
        let Some(audience) = self.users.get(&account).and_then(|u| u.audience.as_ref()) else {
            return;
        };
        let named = |c: &&BareJid| only.as_ref().is_none_or(|o| o.touches(&account, c));
        let per_shard = self.by_home(audience.iter().filter(named));
        let groups = self.groups_of(&account, false);
        self.fan_but(said, per_shard, groups, but, only);
    }

    /// To contacts by the shard they are at home on, and to the members of groups wherever they are; not to whom the account has
    /// blocked.
    pub(super) fn fan(
        &mut self,
        said: &Gone,
        per_shard: HashMap<ShardId, Vec<BareJid>>,
        groups: Vec<Arc<Group>>,
    ) {
        let but = self.kept_from(&said.jid.bare(), said.available);
        self.fan_but(said, per_shard, groups, but, None);
    }

    fn fan_but(
        &mut self,
        said: &Gone,
        mut per_shard: HashMap<ShardId, Vec<BareJid>>,
        groups: Vec<Arc<Group>>,
        but: Blocklist,
        only: Option<Blocklist>,
    ) {
        if !groups.is_empty() {
            for shard in (0..self.shards).map(ShardId) {
                per_shard.entry(shard).or_default();
            }
        }
        let fan = Arc::new(PresenceFan {
            from: said.jid.clone(),
            prefix: said.prefix.clone(),
            suffix: said.suffix.clone(),
            available: said.available,
            groups,
            but,
            only,
        });
        let mut shards: Vec<(ShardId, Vec<BareJid>)> = per_shard.into_iter().collect();
        shards.sort_by_key(|(s, _)| *s);
        for (shard, targets) in shards {
            self.tell(shard, ShardMsg::Presence(fan.clone(), targets));
        }
    }

    /// The presence (or absence) of each available resource of the account, for one contact. Who sees it as a member of a group
    /// still does when a subscription ends.
    pub(super) fn show_to(&mut self, account: &BareJid, contact: &BareJid, available: bool) {
        if !self.settings.reaches(contact.domainpart())
            || !available && self.groups.view.shares_presence(account, contact)
        {
            return;
        }
        let slots = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for slot in slots {
            let Some(bound) = self.session(slot).bound() else {
                continue;
            };
            let Some(presence) = &bound.presence else {
                continue;
            };
            let said = if available {
                said(&bound.jid, presence)
            } else {
                unavailable(&bound.jid)
            };
            let per_shard = std::iter::once((self.home(contact), vec![contact.clone()])).collect();
            self.fan(&said, per_shard, Vec::new());
        }
    }

    fn farewell(&mut self, slot: u32, said: &Gone, was_available: bool) {
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        let mut directed = std::mem::take(&mut bound.directed);
        let account = bound.account.clone();
        for to in directed.farewell(was_available, |j| self.sees(&account, j)) {
            self.send_presence(
                &said.jid,
                to,
                &said.prefix,
                &said.suffix,
                PresenceType::Unavailable,
            );
        }
    }

    pub(super) fn send_presence(
        &mut self,
        from: &FullJid,
        to: Jid,
        prefix: &Bytes,
        suffix: &Bytes,
        presence_type: PresenceType,
    ) {
        if !self.settings.reaches(to.domainpart()) {
            return;
        }
        let stanza = Routed {
            kind: StanzaKind::Presence(presence_type),
            from: Jid::Full(from.clone()),
            bytes: join(prefix, &to_attribute(to.as_str()), suffix),
            to,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: None,
        };
        self.tell(
            self.home(&stanza.to.bare()),
            ShardMsg::Stanza(Box::new(stanza)),
        );
    }

    /// Directed presence (RFC 6121 §4.6).
    fn directed(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        presence_type: PresenceType,
        to: Jid,
    ) {
        let max = self.settings.directed_presence_max;
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let account = bound.account.clone();
        let reached = bound.presence.is_some() && self.sees(&account, &to.bare());
        let bound = self.session(slot).bound_mut().expect("checked above");
        let before = bound.directed.entries().len();
        if presence_type == PresenceType::Available {
            if let Err(condition) = bound.directed.available(&to, reached, max) {
                return self.refuse(slot, number, element, condition);
            }
        } else {
            bound.directed.unavailable(&to);
        }
        if bound.directed.entries().len() != before {
            self.await_record(slot, number);
        }
        self.send_on(
            slot,
            number,
            element,
            StanzaKind::Presence(presence_type),
            Some(to),
            Retention::Drop,
        );
    }

    // ---- arriving ---------------------------------------------------------------------------------------

    /// Presence of one for many at home here: one Fanout per link.
    pub(super) fn presence_fan(&mut self, fan: &Arc<PresenceFan>, targets: &[BareJid]) {
        self.fan_to_components(fan, targets);
        let targets = self.with_members(&fan.from.bare(), targets, &fan.groups);
        self.presence_fan_to(fan, &targets);
    }

    /// Presence of one for these.
    pub(super) fn presence_fan_to(&mut self, fan: &Arc<PresenceFan>, targets: &[&BareJid]) {
        let mut ready: Vec<&BareJid> = Vec::with_capacity(targets.len());
        for &target in targets {
            let durable = self.durable;
            let Some(user) = self.users.get_mut(target).filter(|u| u.hears(durable)) else {
                continue;
            };
            // It never overtakes what came before it: a probe's answer, or a message (RFC 6120 §10.1).
            if user.loading.is_some() {
                self.queue_for(target, Queued::Fan(fan.clone()));
                continue;
            }
            if !user.knows_blocked && self.somebody_hears(target) {
                self.load(target);
                self.queue_for(target, Queued::Fan(fan.clone()));
                continue;
            }
            let Some(user) = self.users.get_mut(target) else {
                continue;
            };
            if user.last_write > self.durable {
                user.last_write = self.write_number;
                self.after(self.write_number, After::Fan(fan.clone(), target.clone()));
                continue;
            }
            ready.push(target);
        }
        self.fan_out(fan, &ready);
    }

    /// Some session of the account is given presence now. After a restart what it has blocked is to be read first.
    pub(super) fn somebody_hears(&self, account: &BareJid) -> bool {
        let restarted = self.restarted();
        let slots = self.users.get(account).map(|u| u.sessions.iter());
        let sessions = slots
            .unwrap_or_default()
            .filter_map(|&s| self.sessions.get(s as usize));
        let mut hears = sessions.map(|s| {
            s.bound().is_some_and(|b| b.presence.is_some()) || s.perhaps_available(restarted)
        });
        hears.any(|hears| hears)
    }

    /// Contacts at home here, and the members of groups who are online here: each once.
    pub(super) fn with_members<'t>(
        &self,
        from: &BareJid,
        targets: &'t [BareJid],
        groups: &'t [Arc<Group>],
    ) -> Vec<&'t BareJid> {
        let mut all: Vec<&BareJid> = targets.iter().collect();
        if groups.is_empty() {
            return all;
        }
        let online = |m: &BareJid| self.users.get(m).is_some_and(|u| u.hears(self.durable));
        for group in groups {
            let members = group.members.iter().filter(|m| *m != from && online(m));
            all.extend(members.filter(|m| self.groups.view.is_contact(m)));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Nothing stands before it any more.
    pub(super) fn fan_out(&mut self, fan: &PresenceFan, targets: &[&BareJid]) {
        let now = self.now;
        let settings = self.settings.clone();
        let restarted = self.restarted();
        // For each link those on TCP, and those on WebSocket, who get it with its namespace.
        let mut per_link: HashMap<(LinkId, bool), Vec<FanoutTarget>> = HashMap::default();
        for &target in targets {
            let Some(user) = self.users.get(target) else {
                continue;
            };
            let from = || Jid::Full(fan.from.clone());
            if !user.blocked.is_empty() && self.keeps_out(target, &from(), fan.available) {
                continue;
            }
            let insert = to_attribute(target.as_str());
            let len = fan.prefix.len() + insert.len() + fan.suffix.len();
            for slot in user.sessions.clone() {
                let session = self
                    .sessions
                    .get_mut(slot as usize)
                    .expect("users know only live slots");
                let may_hear = !fan.available && session.perhaps_available(restarted);
                if session.bound().is_none_or(|b| {
                    b.presence.is_none() && !may_hear || !b.ready || fan.passes_by(&b.jid)
                }) {
                    continue;
                }
                // One that fits does not overtake one that did not.
                let nothing_held = session.bound().is_some_and(|b| b.held_presence.is_empty());
                if let Some(key) = session.key
                    && nothing_held
                    && session.has_room(len, &settings)
                    && !session.holds_back()
                    && !session.is_away()
                    && !session.is_inactive()
                {
                    session.count_out(len, OutKind::STANZA, now);
                    session
                        .keep(|| Kept::Of(fan.prefix.clone(), insert.clone(), fan.suffix.clone()));
                    let group = (key.link, session.is_framed());
                    per_link.entry(group).or_default().push(FanoutTarget {
                        conn: key.conn,
                        insert: insert.clone(),
                        stored: None,
                    });
                    self.status.stanzas_out += 1;
                } else {
                    let bytes = join(&fan.prefix, &insert, &fan.suffix);
                    self.give_presence(slot, &Jid::Full(fan.from.clone()), bytes);
                }
            }
        }
        self.fanouts(&fan.prefix, &fan.suffix, per_link);
    }

    fn was_perhaps_available(&mut self, slot: u32) -> bool {
        let restarted = self.restarted();
        self.session(slot).perhaps_available(restarted)
    }

    /// One presence stanza for one session. Toward a slow client the newest of each sender is kept.
    pub(super) fn give_presence(&mut self, slot: u32, from: &Jid, bytes: Bytes) {
        let settings = self.settings.clone();
        let session = self.session(slot);
        // For a client that is away only the newest counts.
        let room = session.has_room(bytes.len(), &settings) && !session.is_away();
        let inactive = session.is_inactive() && settings.inactive_held_max > 0;
        let Some(bound) = session.bound_mut() else {
            return;
        };
        // An inactive one waits for what it has said itself, and for nobody else.
        let own = bound.jid.as_str() == from.as_str();
        if room && inactive && own {
            return self.send_now(slot, bytes, OutKind::STANZA);
        }
        let waits = inactive && csi::presence_waits(&bytes);
        if room && !waits && (bound.held_presence.is_empty() || inactive) {
            self.send_stanza(slot, bytes);
            return;
        }
        self.presence_waits(slot);
        let session = self.session(slot);
        session.mark_unrecorded();
        self.touch(slot);
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        let held = &mut bound.held_presence;
        let at = held.iter().position(|(f, _)| f == from);
        let others = held.iter().enumerate().filter(|(n, _)| Some(*n) != at);
        let others: usize = others.map(|(_, (_, b))| b.len()).sum();
        // One goes in whatever its size, as into the window itself.
        let fits = others == 0 || others + bytes.len() <= settings.output_window_bytes;
        match at {
            Some(at) if fits => held[at].1 = bytes,
            None if fits && held.len() < HELD_PRESENCE_MAX => held.push((from.clone(), bytes)),
            // Or any stranger could have the session ended.
            _ if !self.expects_presence(slot, &from.bare()) => tracing::debug!(
                from = from.as_str(),
                "presence of a stranger was dropped: the client is behind with its output"
            ),
            _ => self.end_session(
                slot,
                Some(StreamError::ResourceConstraint),
                CloseReason::SlowClient,
            ),
        }
    }

    /// The account of this session hears of this one's presence without being told by it directly; or that is not known.
    fn expects_presence(&self, slot: u32, contact: &BareJid) -> bool {
        let session = self.sessions.get(slot as usize);
        let Some(bound) = session.and_then(|s| s.bound()) else {
            return false;
        };
        let roster = self
            .users
            .get(&bound.account)
            .and_then(|u| u.roster.as_ref());
        let by_roster = roster.is_none_or(|r| r.sees(contact));
        let by_group = self.groups.view.shown(&bound.account, contact);
        by_roster || bound.account == *contact || by_group.is_some_and(|shown| shown.presence)
    }

    /// The client has taken output: what was held back goes, as far as there is room.
    pub(super) fn release_held_presence(&mut self, slot: u32) {
        let settings = self.settings.clone();
        loop {
            let session = self.session(slot);
            let Some(len) = session
                .bound()
                .and_then(|b| b.held_presence.first())
                .map(|(_, b)| b.len())
            else {
                return;
            };
            if !session.has_room(len, &settings) || session.is_away() {
                return;
            }
            let (_, bytes) = session
                .bound_mut()
                .expect("just seen")
                .held_presence
                .remove(0);
            self.send_stanza(slot, bytes);
        }
    }

    // ---- the end of a session ---------------------------------------------------------------------------

    /// Tells everybody that a session is gone. Called while it is still bound.
    pub(super) fn say_gone(&mut self, slot: u32) {
        self.refuse_behind_flood(slot);
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        let before = bound.presence.take().map(|p| p.priority);
        let said = unavailable(&bound.jid);
        let account = bound.account.clone();
        let plan = presence::on_broadcast(before, Said::Lost);
        if plan.audience
            && self
                .users
                .get(&account)
                .is_some_and(|u| u.audience.is_none())
        {
            self.load(&account);
            self.queue_for(
                &account,
                Queued::Unavailable(Box::new(Gone {
                    jid: said.jid.clone(),
                    prefix: said.prefix.clone(),
                    suffix: said.suffix.clone(),
                    available: said.available,
                })),
            );
        }
        self.carry_out_plan(slot, &account, &plan, &said, before.is_some());
    }

    /// Says the presence of a restored session again.
    pub(super) fn say_again(&mut self, slot: u32) {
        let Some(bound) = self.session(slot).bound() else {
            return;
        };
        let said = match &bound.presence {
            Some(p) => said(&bound.jid, p),
            None => unavailable(&bound.jid),
        };
        if !said.available {
            self.remember_gone(&said.jid);
        }
        self.broadcast_to(&said, !said.available);
        self.tell_watchers(&said, true);
        self.tell_siblings(&said);
    }

    /// The account's other available sessions hear it too.
    pub(super) fn tell_siblings(&mut self, said: &Gone) {
        let account = said.jid.bare();
        let own = join(&said.prefix, &to_attribute(account.as_str()), &said.suffix);
        let slots = self
            .users
            .get(&account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for slot in slots {
            let may_hear = !said.available && self.was_perhaps_available(slot);
            let hears = self
                .session(slot)
                .bound()
                .is_some_and(|b| (b.presence.is_some() || may_hear) && b.jid != said.jid);
            if hears {
                self.give_presence(slot, &Jid::Full(said.jid.clone()), own.clone());
            }
        }
    }
}

/// What a session has said last.
pub(super) fn said(jid: &FullJid, presence: &Available) -> Gone {
    Gone {
        jid: jid.clone(),
        prefix: presence.prefix.clone(),
        suffix: presence.suffix.clone(),
        available: true,
    }
}

/// `unavailable` said by the server, in two parts.
pub(super) fn unavailable(jid: &FullJid) -> Gone {
    let mut prefix = Vec::with_capacity(48 + jid.as_str().len());
    prefix.extend_from_slice(b"<presence type='unavailable' from='");
    escape_into(&mut prefix, jid.as_str());
    prefix.push(b'\'');
    Gone {
        jid: jid.clone(),
        prefix: prefix.into(),
        suffix: Bytes::from_static(b"/>"),
        available: false,
    }
}

fn join(prefix: &Bytes, insert: &Bytes, suffix: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(prefix.len() + insert.len() + suffix.len());
    out.put_slice(prefix);
    out.put_slice(insert);
    out.put_slice(suffix);
    out.freeze()
}
