//! Messages and other stanzas for an account: stored first, delivered after the commit, marked until acknowledged.
//!
//! Owns: who holds which pending message (DESIGN idea 5), the taking of pending messages by a session ("flood").
//! Never: shows a message before the commit that holds it; gives a session what another holds.

use super::user::{Assignment, Holder, Queued};
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
use xmpp::jid::BareJid;

/// Rows read at once for a session that takes its pending messages.
const FLOOD_PAGE: usize = 100;

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
    pub(super) fn stanza(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        if account.localpart().is_none() {
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
        } else if !known || self.must_know_audience(&stanza, &account) {
            self.load(&account);
            self.queue_for(&account, Queued::Stanza(stanza));
        } else {
            self.stanza_for_user(stanza, &account);
        }
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

    fn store_message(&mut self, stanza: Box<Routed>, account: &BareJid) {
        let archive = self.archives(account, &stanza.from, stanza.retention);
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
            true => self.copy_targets(&account, None).without(&targets),
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
        // make are none of that.
        let owed =
            answer && (matches!(stanza.kind, StanzaKind::Iq(_)) || stanza.token.is_some_and(own));
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
    fn give_request(&mut self, slot: u32, stanza: Box<Routed>) {
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

    // ---- taking pending messages ------------------------------------------------------------------------

    /// The session begins to take what is pending, if it may.
    pub(super) fn start_flood(&mut self, slot: u32) {
        if let Some(bound) = self.session(slot).bound_mut() {
            bound.flood = Flood::Wanted;
        }
        self.continue_flood(slot);
    }

    /// What the client has acknowledged is on disk: the mux is told to forget it now, not at the end of the turn, if a flood waits
    /// for that.
    pub(super) fn room_in_mux(&mut self, slot: u32) {
        let settings = self.settings.clone();
        let credit = self.credit;
        let Some(session) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let waits = session.bound().is_some_and(|b| b.flood == Flood::Wanted);
        if waits || session.is_catching_up_stream() {
            session.send_marks(&settings, credit, &mut self.fx.links);
            self.continue_output(slot);
        }
    }

    /// There may be room for more of what the session is to be sent: what it had not acknowledged on its connection before, then what
    /// is pending.
    pub(super) fn continue_output(&mut self, slot: u32) {
        if self.session(slot).is_catching_up_stream() {
            self.resend(slot);
        }
        self.continue_flood(slot);
    }

    /// Reads the next page, unless a page is under way, other sessions of the account have still to be resumed (what they
    /// hold is not known), or the client has not taken what it got.
    pub(super) fn continue_flood(&mut self, slot: u32) {
        let settings = self.settings.clone();
        let session = self.session(slot);
        let busy = session.outstanding_bytes() > settings.output_window_bytes / 2
            || !session.may_hold_page(settings.unacknowledged_max)
            || session.key.is_none()
            || session.is_away()
            || session.is_catching_up_stream()
            || session.ended_before.is_some()
            // What it knows from its archive does not come again; whether it does it is still to say.
            || session.awaits_archive();
        // What does not fit would be read again.
        let bytes_max = settings
            .output_window_bytes
            .saturating_sub(session.outstanding_bytes());
        let Some(bound) = session.bound() else { return };
        if bound.flood != Flood::Wanted || busy || !bound.ready {
            return;
        }
        let account = bound.account.clone();
        let after = bound.cursor;
        let closing = self.users.get(&account).is_some_and(|u| {
            u.closing.iter().any(|&s| {
                self.sessions
                    .get(s as usize)
                    .and_then(|s| s.holds_for.as_ref())
                    .is_some_and(|h| !h.released)
            })
        });
        if closing || self.has_orphans(&account) {
            return;
        }
        self.session(slot).bound_mut().expect("checked above").flood = Flood::Reading;
        let tag = ReadTag::Flood {
            slot,
            generation: self.generation(slot),
        };
        self.fx.reads.push((
            tag,
            Read::Pending {
                owner: account,
                after,
                limit: FLOOD_PAGE,
                bytes_max,
            },
        ));
    }

    /// A page has come.
    pub(super) fn flood_page(
        &mut self,
        slot: u32,
        generation: u32,
        page: Option<store::PendingPage>,
    ) {
        if !self.live(slot, generation) {
            return;
        }
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        if bound.flood != Flood::Reading {
            return;
        }
        bound.flood = Flood::Wanted;
        if let Some(from) = bound.reread.take() {
            // It was read too early.
            bound.cursor = bound.cursor.min(from - 1);
            self.continue_flood(slot);
            return;
        }
        // The store did not answer: the tick tries again.
        let Some(page) = page else { return };
        let account = bound.account.clone();
        self.take_page(slot, &account, page);
        if self.session(slot).bound().is_some_and(|b| b.catching_up) {
            self.resume_clearing(&account);
        }
        self.forget_cleared(&account);
    }

    fn take_page(&mut self, slot: u32, account: &BareJid, page: store::PendingPage) {
        let complete = page.complete;
        for row in page.rows {
            let user = self.users.get_mut(account).expect("it has a session");
            if user.storing > 0 && row.position > user.last_position {
                // Not given out to those it is for yet: who takes it here would take it from them.
                user.flood_waits = true;
                return;
            }
            if !self.flood_row(slot, account, row) {
                return;
            }
        }
        let last_position = self.users.get(account).map_or(0, |u| u.last_position);
        let session = self.session(slot);
        let bound = session.bound_mut().expect("it was bound");
        if complete && last_position <= bound.cursor {
            self.go_live(slot);
        } else if complete {
            // Committed after the page was read, or held by others: what is left is behind `last_position`.
            self.continue_flood_after(slot, last_position);
        } else {
            self.continue_flood(slot);
        }
    }

    /// The page was short, yet newer messages are known. If all of them are held by others or acknowledged, the session is live;
    /// otherwise there is another page.
    fn continue_flood_after(&mut self, slot: u32, last_position: u64) {
        let bound = self.session(slot).bound().expect("it was bound");
        let (account, cursor) = (bound.account.clone(), bound.cursor);
        let user = self.users.get(&account).expect("it has a session");
        let owed = user
            .assigned
            .range(cursor + 1..)
            .any(|(_, a)| !a.clearing && a.holders.iter().any(|h| h.slot == slot && !h.sent));
        if owed {
            self.continue_flood(slot);
        } else {
            let bound = self.session(slot).bound_mut().expect("it was bound");
            bound.cursor = last_position;
            self.go_live(slot);
        }
    }

    /// Everything stored has been sent.
    fn go_live(&mut self, slot: u32) {
        let bound = self.session(slot).bound_mut().expect("it was bound");
        bound.flood = Flood::Live;
        let account = bound.account.clone();
        let caught_up = std::mem::take(&mut bound.catching_up);
        self.release_behind_flood(slot);
        if caught_up {
            self.resume_clearing(&account);
        }
    }

    /// One row for one session. False: no room, the flood waits.
    fn flood_row(&mut self, slot: u32, account: &BareJid, row: store::StoredRow) -> bool {
        let settings = self.settings.clone();
        let position = row.position;
        let bound = self.session(slot).bound().expect("it was bound");
        let catching_up = bound.catching_up;
        // It was one of those the message went to, or should have gone to, before the restart.
        let was_due = catching_up && bound.was_due(&row);
        // Others may go on to hold it too: then its mark waits for this mux (DESIGN idea 5).
        let several = catching_up
            || self
                .users
                .get(account)
                .is_some_and(|u| u.sessions.len() > 1);
        let (owed, assigned) = {
            let user = self.users.get_mut(account).expect("it has a session");
            // `last_position` stays: what has not been given out to its targets yet may be in this page, and not in theirs.
            match user.assigned.get(&position) {
                None => (true, false),
                Some(Assignment { clearing: true, .. }) => (false, true),
                Some(a) if a.holders.iter().any(|h| h.slot == slot) => {
                    (a.holders.iter().any(|h| h.slot == slot && !h.sent), true)
                }
                Some(a) if was_due && !a.had.contains(&slot) => (true, true),
                Some(a) => (a.holders.is_empty() && !a.acked, false),
            }
        };
        // Nobody's yet, and addressed to another session that is still to read it: that one takes it.
        let for_other = || {
            let to = routing::recipient(&row.payload);
            let other = to
                .and_then(|to| self.session_of(&to))
                .filter(|&s| s != slot);
            let other = other
                .and_then(|s| self.sessions.get(s as usize))
                .and_then(|s| s.bound());
            other.is_some_and(|b| b.takes_messages() && b.cursor < position)
        };
        // From before the restart and before this session: one that was there then takes it, in order.
        let due_to_other = || {
            let sessions = self.users.get(account).map(|u| u.sessions.as_slice());
            let others = sessions.unwrap_or_default().iter().filter(|&&s| s != slot);
            let mut bound = others.filter_map(|&s| self.sessions.get(s as usize)?.bound());
            !was_due && bound.any(|b| b.catching_up && b.cursor < position && b.was_due(&row))
        };
        // What the account has sent is only for those that were to have a copy.
        let owed = owed && (!row.outgoing || assigned || was_due);
        let read = owed && !assigned && !was_due && self.is_read(slot, &row) && !for_other();
        if (read || !owed && row.outgoing) && !assigned && !due_to_other() {
            self.nobody_is_owed(account, position, row.payload.len());
        } else if owed
            && (assigned || was_due || !for_other() && !due_to_other())
            && let Some(bytes) = self.row_for(slot, account, &row)
        {
            let session = self.session(slot);
            if !session.has_room(bytes.len(), &settings)
                || !session.may_hold_more(settings.unacknowledged_max)
            {
                return false;
            }
            let resumable = session.resumption.is_some();
            let holder = Holder {
                slot,
                sent: true,
                taken: !several && !resumable,
            };
            self.hold(account, position, row.payload.len(), row.outgoing, holder);
            self.send(
                slot,
                bytes,
                OutKind {
                    track: several && !resumable,
                    ..OutKind::stored(position)
                },
            );
        }
        let bound = self.session(slot).bound_mut().expect("it was bound");
        bound.cursor = bound.cursor.max(position);
        true
    }

    /// A session has ended: what it held and nobody else has is routed again.
    pub(super) fn release_held(&mut self, slot: u32, account: &BareJid) {
        self.release(slot, account, |_| true);
    }

    /// A session takes no messages any more: what it was owed and has not been sent, and what from this position on was left for
    /// it, is for the others.
    pub(super) fn release_owed(&mut self, slot: u32, account: &BareJid, from: u64) {
        self.release(slot, account, |h| !h.sent);
        self.reread(account, from);
    }

    fn release(&mut self, slot: u32, account: &BareJid, which: fn(&Holder) -> bool) {
        let of_it = |h: &Holder| h.slot == slot && which(h);
        let up_to = self.clearable_up_to(account);
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let mut lowest = None;
        let mut clear = Vec::new();
        for (&position, assignment) in &mut user.assigned {
            if !assignment.holders.iter().any(of_it) {
                continue;
            }
            assignment.holders.retain(|h| !of_it(h));
            if assignment.may_clear() && position <= up_to {
                assignment.clearing = true;
                clear.push(position);
            } else if assignment.holders.is_empty() && !assignment.acked && !assignment.copy {
                lowest.get_or_insert(position);
            } else if assignment.holders.is_empty() && !assignment.acked && position <= up_to {
                assignment.clearing = true;
                clear.push(position);
            }
        }
        user.acks.extend_from_slice(&clear);
        user.assigned
            .retain(|_, a| a.acked || a.clearing || !a.holders.is_empty());
        self.mark_user(account);
        if let Some(position) = lowest {
            self.reread(account, position);
        }
    }

    /// The sessions that take messages read again what is pending from this position on.
    pub(super) fn reread(&mut self, account: &BareJid, from: u64) {
        let slots = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for slot in slots {
            let Some(bound) = self
                .session(slot)
                .bound_mut()
                .filter(|b| b.takes_messages())
            else {
                continue;
            };
            if bound.flood == Flood::Reading {
                bound.reread = Some(bound.reread.map_or(from, |r| r.min(from)));
            } else {
                bound.cursor = bound.cursor.min(from - 1);
                bound.flood = Flood::Wanted;
                self.continue_flood(slot);
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
