//! Messages and other stanzas for an account: stored first, delivered after the commit, marked until acknowledged.
//!
//! Owns: who holds which pending message (DESIGN idea 5).
//! Never: shows a message before the commit that holds it; gives a session what another holds.

use super::user::{Holder, Queued};
use super::{After, Shard, SmallSlots};
use crate::carbons::Copy;
use crate::event::*;
use crate::routing::{
    self, Decision, IqType, PresenceType, Recipients, Resources, Situation, StanzaKind, To,
};
use crate::session::{Behind, Flood, OutKind};
use bytes::Bytes;
use store::{Append, Written};
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};

/// A committed message on its way to sessions.
pub(super) struct Giving {
    pub position: u64,
    /// Bytes of the row.
    pub len: usize,
    /// It goes to several.
    pub several: bool,
    /// A flood was quicker, for some.
    pub known: bool,
    /// It was sent by the account itself.
    pub copy: bool,
}

impl Shard {
    /// A stanza for an entity at home here.
    pub(super) fn stanza(&mut self, mut stanza: Box<Routed>) {
        let component = self.settings.component(stanza.to.domainpart()).is_some();
        if component {
            // It is one entity, and knows itself which of its addresses are there. The stanza keeps its own.
            stanza.to = Jid::Bare(super::domain_of(&stanza.to.bare()));
            if matches!(stanza.kind, StanzaKind::Presence(_)) {
                return self.presence_for_component(stanza);
            }
        }
        let account = stanza.to.bare();
        if account.localpart().is_none() && !component {
            self.server_stanza(stanza);
            return;
        }
        let known = match self.users.get(&account) {
            Some(user) if user.loading.is_some() => {
                self.queue_for(&account, Queued::Stanza(stanza));
                return;
            }
            Some(user) => user.exists,
            None => false,
        };
        // Presence never loads an entity (DESIGN §4); nothing else can be decided without knowing that there is one.
        if !known && matches!(stanza.kind, StanzaKind::Presence(_)) {
            self.done(stanza.token);
        } else if !known
            || self.must_know_audience(&stanza, &account)
            || self.must_know_wishes(&stanza, &account)
            || self.must_know_sender(&stanza, &account)
        {
            self.load(&account);
            self.queue_for(&account, Queued::Stanza(stanza));
        } else {
            self.stanza_for_user(stanza, &account);
        }
    }

    /// Whether the message is to stay in the account's archive is not known.
    fn must_know_wishes(&self, stanza: &Routed, account: &BareJid) -> bool {
        matches!(stanza.kind, StanzaKind::Message(_))
            && self
                .archives(account, stanza.retention, &stanza.from)
                .is_none()
    }

    /// Who asks must be known to share presence or not (RFC 6121 §8.5.3.1), and of this account that is not known: nobody has been
    /// available since the server was started. Whether it has such a resource makes no difference, or the delay would tell.
    fn must_know_audience(&self, stanza: &Routed, account: &BareJid) -> bool {
        let StanzaKind::Iq(iq_type) = stanza.kind else {
            return false;
        };
        iq_type.is_request()
            && stanza.from.bare_str() != account.as_str()
            && self.users.get(account).is_none_or(|u| u.audience.is_none())
    }

    /// RFC 6121 §8 for an account that is loaded, or has sessions.
    pub(super) fn stanza_for_user(&mut self, stanza: Box<Routed>, account: &BareJid) {
        if account.localpart().is_none() {
            return self.stanza_for_component(stanza, account);
        }
        let gone = stanza.kind == StanzaKind::Presence(PresenceType::Unavailable);
        if self.keeps_out(account, &stanza.from, !gone) {
            return self.stanza_for_nobody(stanza);
        }
        let Some(stanza) = self.take_approval(stanza, account) else {
            return;
        };
        match routing::decide(&self.situation(&stanza, account, true, false)) {
            Decision::Store | Decision::Deliver { store: true, .. } => {
                self.store_message(stanza, account)
            }
            Decision::Discard => self.done(stanza.token),
            Decision::Error(condition) => self.bounce(stanza, condition, None),
            _ => {
                let (write, durable) = (self.write_number, self.durable);
                let behind = self
                    .users
                    .get_mut(account)
                    .filter(|u| u.last_write > durable);
                if let Some(user) = behind {
                    // The queue is in order of writes, so it waits for the last one; and what comes next waits behind it.
                    user.last_write = write;
                    self.after(write, After::Stanza(stanza));
                } else {
                    self.deliver_unstored(stanza);
                }
            }
        }
    }

    /// The stanza is for an account that does not exist.
    pub(super) fn stanza_for_nobody(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        match routing::decide(&self.situation(&stanza, &account, false, false)) {
            Decision::Error(condition) => self.bounce(stanza, condition, None),
            _ => self.done(stanza.token),
        }
    }

    fn situation(
        &self,
        stanza: &Routed,
        account: &BareJid,
        account_exists: bool,
        rerouted: bool,
    ) -> Situation {
        let user = self.users.get(account);
        let mut matches = false;
        let resource = stanza.to.resourcepart();
        let mut shares_presence = stanza.from.bare_str() == account.as_str();
        let priorities = user
            .into_iter()
            .flat_map(|u| u.sessions.iter())
            .filter_map(|&slot| {
                let bound = self.sessions.get(slot as usize)?.bound()?;
                bound.ready.then(|| {
                    if resource == Some(bound.jid.resourcepart()) {
                        matches = true;
                        shares_presence |= bound.directed.knows(&stanza.from);
                    }
                    bound.presence.as_ref().map(|p| p.priority)
                })
            });
        let resources = Resources::of(priorities);
        if matches!(stanza.kind, StanzaKind::Iq(_)) && !shares_presence {
            shares_presence = self.sees(account, &stanza.from.bare());
        }
        let to = match resource {
            Some(_) => To::Full { matches },
            None => To::Bare,
        };
        Situation {
            kind: stanza.kind,
            to,
            account_exists,
            resources,
            shares_presence,
            retention: stanza.retention,
            rerouted,
        }
    }

    pub(super) fn store_message(&mut self, stanza: Box<Routed>, account: &BareJid) {
        let archive = self.archives(account, stanza.retention, &stanza.from) == Some(true);
        let text = self.text_of(account, archive, &stanza.bytes);
        let settings = self.settings.clone();
        let len = stanza.bytes.len();
        let time_ms = self.now.unix_ms;
        let user = self
            .users
            .get_mut(account)
            .expect("the caller has found it");
        if user.pending >= settings.pending_max
            || user.pending_bytes + len as u64 > settings.pending_bytes_max
        {
            self.bounce(
                stanza,
                StanzaError::ResourceConstraint,
                Some("The recipient's inbox is full"),
            );
            return;
        }
        user.add_pending(len);
        user.storing += 1;
        let append = Append {
            owner: account.clone(),
            peer: stanza.from.bare(),
            origin: stanza.origin,
            archive,
            pending: true,
            time_ms,
            outgoing: false,
            payload: stanza.bytes.clone(),
            text,
        };
        let number = self.write(Write::Store(store::Write::Append(append)));
        let user = self
            .users
            .get_mut(account)
            .expect("the caller has found it");
        user.last_write = number;
        user.used_ms = self.now.mono_ms;
        self.status.stored += 1;
        self.after(number, After::Message(stanza, archive));
    }

    /// The write of a message has been answered.
    pub(super) fn message_stored(
        &mut self,
        stanza: Box<Routed>,
        archive: bool,
        result: Option<&Written>,
    ) {
        let account = stanza.to.bare();
        let mut flood_waits = false;
        if let Some(user) = self.users.get_mut(&account) {
            user.storing = user.storing.saturating_sub(1);
            flood_waits = std::mem::take(&mut user.flood_waits);
        }
        match result {
            Some(&Written::Stored { position }) => {
                self.push_message(&account, &stanza, position);
                self.deliver_stored(&stanza, position, archive);
                self.done(stanza.token);
            }
            // Taken before a restart: it is pending, and the floods of this account will find it, or it has been delivered.
            Some(Written::Replayed { .. }) => {
                if let Some(user) = self.users.get_mut(&stanza.to.bare()) {
                    user.take_pending(1, stanza.bytes.len() as u64);
                }
                self.done(stanza.token);
            }
            _ => {
                if let Some(user) = self.users.get_mut(&stanza.to.bare()) {
                    user.take_pending(1, stanza.bytes.len() as u64);
                }
                self.bounce(
                    stanza,
                    StanzaError::ResourceConstraint,
                    Some("The message could not be stored"),
                );
            }
        }
        if flood_waits {
            self.floods_of(&account);
        }
    }

    /// Gives a committed message to the sessions it is for now. Without any it stays pending.
    fn deliver_stored(&mut self, stanza: &Routed, position: u64, archive: bool) {
        let account = stanza.to.bare();
        let Some(user) = self.users.get_mut(&account) else {
            return;
        };
        user.last_position = user.last_position.max(position);
        // A page read for a flood may have been quicker than this answer.
        let known = user.assigned.contains_key(&position);
        let Decision::Deliver { to, .. } =
            routing::decide(&self.situation(stanza, &account, true, true))
        else {
            return;
        };
        let exact = self.session_of(&stanza.to);
        let targets = self.recipients(&account, to, exact);
        let copies = match stanza.copies {
            true => self
                .copy_targets(&account, self.sent_by(stanza))
                .without(&targets),
            false => Default::default(),
        };
        let bytes = match archive {
            true => self.with_id(&account, position, &stanza.bytes),
            false => stanza.bytes.clone(),
        };
        let giving = Giving {
            position,
            len: stanza.bytes.len(),
            several: targets.len() + copies.takers.len() > 1,
            known,
            copy: false,
        };
        for slot in targets {
            self.give_stored(&account, slot, bytes.clone(), exact == Some(slot), &giving);
        }
        for slot in copies.takers {
            self.copy_stored(Copy::Received, &account, slot, &bytes, &giving);
        }
        for slot in copies.others {
            self.copy_unstored(Copy::Received, &account, slot, &bytes);
        }
    }

    /// The session that has sent it, if it is one of the account it is for: it gets no copy (XEP-0280 §8).
    pub(super) fn sent_by(&self, stanza: &Routed) -> Option<SessionId> {
        let own = stanza.from.bare_str() == stanza.to.bare_str();
        let slot = own.then(|| self.session_of(&stanza.from)).flatten()?;
        let bound = self.sessions.get(slot as usize)?.bound()?;
        Some(bound.id)
    }

    pub(super) fn give_stored(
        &mut self,
        account: &BareJid,
        slot: u32,
        bytes: Bytes,
        exact: bool,
        giving: &Giving,
    ) {
        let position = giving.position;
        let settings = self.settings.clone();
        let session = self.session(slot);
        let room = session.has_room(bytes.len(), &settings)
            && session.may_hold_more(settings.unacknowledged_max);
        // Only its client can say that it has the message: its mux may lose the connection, and the session goes on.
        let resumable = session.resumption.is_some();
        let bound = session.bound_mut().expect("targets are bound");
        // A session of full-JID traffic that takes no floods (unavailable, negative priority) is always "live".
        let live = bound.flood == Flood::Live || (exact && bound.flood == Flood::Off);
        if giving.known && position <= bound.cursor {
            return;
        }
        let send = live && room;
        if send {
            if bound.flood == Flood::Live {
                bound.cursor = bound.cursor.max(position);
            }
        } else if bound.flood == Flood::Live {
            bound.flood = Flood::Wanted;
        } else if bound.flood == Flood::Off {
            return;
        }
        let holder = Holder {
            slot,
            sent: send,
            taken: !giving.several && !resumable,
        };
        self.hold(account, position, giving.len, giving.copy, holder);
        if send {
            let kind = OutKind {
                track: giving.several && !resumable,
                ..OutKind::stored(position)
            };
            self.send(slot, bytes, kind);
        }
    }

    /// The session holds (or is owed) the pending message.
    pub(super) fn hold(
        &mut self,
        account: &BareJid,
        position: u64,
        len: usize,
        copy: bool,
        holder: Holder,
    ) {
        let user = self.users.get_mut(account).expect("it has sessions");
        let assignment = user.assigned.entry(position).or_default();
        assignment.bytes = len as u64;
        assignment.copy = copy;
        match assignment
            .holders
            .iter_mut()
            .find(|h| h.slot == holder.slot)
        {
            Some(h) => {
                h.sent |= holder.sent;
                h.taken |= holder.taken;
            }
            None => assignment.holders.push(holder),
        }
    }

    /// The sessions a decision names.
    fn recipients(&self, account: &BareJid, to: Recipients, exact: Option<u32>) -> SmallSlots {
        let Some(user) = self.users.get(account) else {
            return SmallSlots::new();
        };
        user.sessions
            .iter()
            .copied()
            .filter(|&slot| {
                self.sessions
                    .get(slot as usize)
                    .and_then(|s| s.bound())
                    .is_some_and(|b| {
                        b.ready
                            && to.include(
                                b.presence.as_ref().map(|p| p.priority),
                                exact == Some(slot),
                            )
                    })
            })
            .collect()
    }

    /// A stanza that is not stored, to whom it is for now.
    pub(super) fn deliver_unstored(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        if account.localpart().is_none() {
            return self.give_to_component(stanza, &account);
        }
        match routing::decide(&self.situation(&stanza, &account, true, false)) {
            Decision::Deliver { to, .. } => {
                let exact = self.session_of(&stanza.to);
                let slots = self.recipients(&account, to, exact);
                if let (StanzaKind::Iq(IqType::Get | IqType::Set), [slot]) =
                    (stanza.kind, &slots[..])
                {
                    return self.give_request(*slot, stanza);
                }
                for &slot in &slots {
                    self.give_unstored(slot, &stanza);
                }
                if stanza.copies {
                    self.copy_received_unstored(&stanza, &slots);
                }
                self.done(stanza.token);
            }
            Decision::Account => self.account_iq(stanza),
            Decision::Answer => {
                if self.answered_in_name(&account, &stanza) {
                    return;
                }
                self.push_answered(&account, &stanza);
                self.done(stanza.token);
            }
            Decision::Error(condition) => self.bounce(stanza, condition, None),
            Decision::Probe => {
                self.client_probe(&stanza.from, &account);
                self.done(stanza.token);
            }
            _ => self.done(stanza.token),
        }
    }

    /// A stanza that is neither stored nor a request. What does not fit is dropped, or anybody could have a session ended that is
    /// reading something long over a slow line. (A client that does not read at all is ended by the tick.)
    pub(super) fn give_unstored(&mut self, slot: u32, stanza: &Routed) {
        if let StanzaKind::Presence(presence) = stanza.kind {
            // The answer to a probe of ours, for who it was before: it would not hear how that goes on.
            let answer = stanza.token.is_none() && presence == PresenceType::Available;
            let bound = self.session(slot).bound();
            if answer && bound.is_none_or(|b| b.presence.is_none()) {
                return;
            }
            self.give_presence(slot, &stanza.from, stanza.bytes.clone());
            return;
        }
        let settings = self.settings.clone();
        let generation = self.generation(slot);
        // An answer is not held: who it is for has been told that its question is settled.
        let answer = !stanza.kind.answerable();
        let own = |t: Token| t.shard == self.id && (t.slot, t.generation) == (slot, generation);
        // Nor dropped: this client asked, and would wait for ever, or take for sent what was refused. Errors that other clients
        // make are none of that, nor answers to what it has not asked.
        let owed = answer
            && match stanza.kind {
                StanzaKind::Iq(_) => self.has_asked(slot, stanza),
                _ => stanza.token.is_some_and(own),
            };
        let taken = match answer {
            true => {
                let room = self.session(slot).has_room(stanza.bytes.len(), &settings);
                if room {
                    self.send_stanza(slot, stanza.bytes.clone());
                }
                room
            }
            false => self.give_behind(slot, stanza.bytes.clone()),
        };
        if !taken && owed {
            self.end_session(
                slot,
                Some(xmpp::error::StreamError::ResourceConstraint),
                proto::frame::CloseReason::SlowClient,
            );
        } else if !taken {
            tracing::debug!(
                to = stanza.to.as_str(),
                "a message that is not stored was dropped: the client is behind with its output"
            );
        }
    }

    /// An answer is one to something this session has asked. The server only answers what it was asked.
    fn has_asked(&mut self, slot: u32, answer: &Routed) -> bool {
        let ours =
            answer.from.resourcepart().is_none() && self.settings.serves(answer.from.domainpart());
        let bound = self.session(slot).bound_mut();
        let asked = bound
            .map(|b| &mut b.asked)
            .filter(|asked| !asked.is_empty());
        let by_us = asked.is_some_and(|asked| {
            let answer_element = xmpp::element::Element::parse(answer.bytes.clone());
            let id = answer_element
                .ok()
                .and_then(|e| e.attr("id").map(|id| id.into_owned()));
            id.is_some_and(|id| asked.answered(answer.from.as_str(), &id))
        });
        ours || by_us
    }

    /// Something that is not stored, behind what is stored for this session (RFC 6120 §10.1). False: there is no room.
    pub(super) fn give_behind(&mut self, slot: u32, bytes: Bytes) -> bool {
        let settings = self.settings.clone();
        let since_ms = self.now.mono_ms;
        let session = self.session(slot);
        match session.bound_mut().filter(|b| b.floods()) {
            Some(bound) => {
                let room = bound.has_room_behind(bytes.len(), &settings);
                if room {
                    bound.behind_flood.push(Behind {
                        bytes,
                        request: None,
                        since_ms,
                    });
                }
                room
            }
            None => {
                let room = session.has_room(bytes.len(), &settings);
                if room {
                    self.send_stanza(slot, bytes);
                }
                room
            }
        }
    }

    /// An IQ request for a session: behind what is stored for it (RFC 6120 §10.1). It is settled when it is out, and answered
    /// for the session if that takes too long or there is no room.
    pub(super) fn give_request(&mut self, slot: u32, stanza: Box<Routed>) {
        let settings = self.settings.clone();
        let since_ms = self.now.mono_ms;
        let generation = self.generation(slot);
        let session = self.session(slot);
        let room = session.has_room(stanza.bytes.len(), &settings);
        // For a client that is away it waits as long: who asks wants to know.
        let away = session.is_away();
        let Some(bound) = session.bound_mut().filter(|b| away || b.floods()) else {
            if room {
                self.send_stanza(slot, stanza.bytes.clone());
                self.done(stanza.token);
            } else {
                self.bounce_behind(stanza);
            }
            return;
        };
        if bound.has_room_behind(stanza.bytes.len(), &settings) {
            bound.behind_flood.push(Behind {
                bytes: stanza.bytes.clone(),
                request: Some(stanza),
                since_ms,
            });
            self.requests_behind.push_back((since_ms, slot, generation));
        } else {
            self.bounce_behind(stanza);
        }
    }

    fn bounce_behind(&mut self, stanza: Box<Routed>) {
        let text = "The recipient is behind with what it has been sent; try again later";
        self.bounce(stanza, StanzaError::ResourceConstraint, Some(text));
    }

    /// Nothing stored stands before them any more.
    pub(super) fn release_behind_flood(&mut self, slot: u32) {
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        for behind in std::mem::take(&mut bound.behind_flood) {
            self.send_stanza(slot, behind.bytes);
            if let Some(request) = behind.request {
                self.done(request.token);
            }
        }
    }

    /// The session ends: requests that it was not given are answered as if it had not been there (RFC 6121 §8.5.3.2.3).
    pub(super) fn refuse_behind_flood(&mut self, slot: u32) {
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        for behind in std::mem::take(&mut bound.behind_flood) {
            if let Some(request) = behind.request {
                self.bounce(request, StanzaError::ServiceUnavailable, None);
            }
        }
    }

    /// Requests that have waited behind a flood for too long are answered.
    pub(super) fn expire_behind_flood(&mut self) {
        let settle_max = self.settings.settle_max.as_millis() as u64;
        let due = self.now.mono_ms.saturating_sub(settle_max);
        while let Some(&(since_ms, slot, generation)) = self.requests_behind.front() {
            if since_ms >= due {
                break;
            }
            self.requests_behind.pop_front();
            if !self.live(slot, generation) {
                continue;
            }
            let Some(bound) = self.session(slot).bound_mut() else {
                continue;
            };
            let late = |b: &Behind| b.request.is_some() && b.since_ms < due;
            let waiting = std::mem::take(&mut bound.behind_flood);
            let (late, rest) = waiting.into_iter().partition(late);
            bound.behind_flood = rest;
            let late: Vec<Behind> = late;
            for request in late.into_iter().filter_map(|b| b.request) {
                self.bounce_behind(request);
            }
        }
    }

    /// A bounced or generated stanza for the server itself.
    fn server_stanza(&mut self, stanza: Box<Routed>) {
        let domain = stanza.to.bare();
        let situation = Situation {
            to: To::Domain,
            ..self.situation(&stanza, &domain, true, false)
        };
        match routing::decide(&situation) {
            Decision::Server => self.server_iq(stanza),
            Decision::Error(condition) => self.bounce(stanza, condition, None),
            _ => self.done(stanza.token),
        }
    }

    /// The bare or full address, for the queue of a user that is being loaded.
    pub(super) fn fail_queued_stanza(&mut self, stanza: Box<Routed>) {
        self.bounce(
            stanza,
            StanzaError::ResourceConstraint,
            Some("The account could not be loaded in time; try again"),
        );
    }
}
