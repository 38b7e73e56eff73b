//! The life of a connection on a shard: opened, acknowledged, moved, ended. Log-in is `login`.
//!
//! Owns: the record in the session store of each bound session.
//! Never: sends Close before the last Marks; forgets what a dead client had not acknowledged.

use super::{After, Shard};
use crate::event::*;
use crate::session::record::{Record, RecordedCaps, RecordedSm};
use crate::session::{Flood, Holding, Session, Stage};
use bytes::Bytes;
use proto::frame::CloseReason;
use xmpp::element::Element;
use xmpp::error::StreamError;
use xmpp::jid::BareJid;

impl Shard {
    pub(super) fn token(&self, slot: u32, number: u64) -> Token {
        Token {
            shard: self.id,
            slot,
            generation: self.generation(slot),
            element: number,
        }
    }

    /// The client's TCP has acknowledged output.
    pub(super) fn drained(&mut self, key: ConnKey, elements: u64) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        let now = self.now;
        let mut delivered = Vec::new();
        let session = self.session(slot);
        session.drained(elements, now, &mut delivered);
        self.delivered(slot, &delivered);
        let Some(bound) = self.session(slot).bound() else {
            return;
        };
        if !bound.held_presence.is_empty() && !self.session(slot).is_inactive() {
            self.release_held_presence(slot);
        }
        self.continue_output(slot);
        self.continue_archive(slot);
        if self.session(slot).parser.buffered() > 0 {
            // It may have been full.
            self.parse(slot);
        }
    }

    /// The mux has taken our word that input up to this stanza is settled: it will not come again.
    pub(super) fn settled_taken(&mut self, key: ConnKey, stanzas: u64) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        let session = self.session(slot);
        let up_to_stanza = session.origin_base + stanzas;
        if let Some(name) = session.name
            && up_to_stanza > session.origins_forgotten
        {
            session.origins_forgotten = up_to_stanza;
            self.write(Write::Store(store::Write::ForgetOrigins {
                session: name.0,
                up_to_stanza,
            }));
        }
    }

    /// The mux has closed the connection. What has been taken from it is still settled.
    pub(super) fn conn_closed(&mut self, key: ConnKey, reason: CloseReason) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        let session = self.session(slot);
        session.mux_closed = true;
        if session.is_frozen() {
            // What has not been taken from it comes again on another.
            return self.touch(slot);
        }
        if session.is_resumable() {
            // Answers to what is still to be taken are kept.
            session.begin_keeping();
        }
        if session.bound().is_some() && (session.paused || session.parser.buffered() > 0) {
            // It sent more than has been taken: that comes first. What it did not read does not hold that up any more.
            session.close_reason = Some(reason);
            self.parse(slot);
            return;
        }
        self.lose_connection(slot, None, reason);
    }

    /// The connection now belongs to this shard.
    pub(super) fn adopt(&mut self, key: ConnKey, session: Session) {
        debug_assert_eq!(session.key, Some(key));
        if matches!(session.stage, Stage::Negotiating(_)) {
            self.negotiating += 1;
        }
        let slot = self.insert_session(session);
        self.session(slot).dirty = false;
        self.touch(slot);
        self.adopted_component(slot);
        if self.session(slot).is_inline() {
            self.go_inline(slot);
        } else {
            self.parse(slot);
        }
    }

    /// Gives the connection to the shard that is its user's home.
    pub(super) fn rehome(&mut self, slot: u32, to: ShardId) {
        // Marks and answers so far belong before the move.
        let settings = self.settings.clone();
        let credit = self.credit;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("the caller has it");
        session.flush(&settings, credit, &mut self.fx.links);
        let session = self.remove_session(slot);
        let key = session.key.expect("only connections log in");
        self.gone.insert(key);
        self.fx.links.push(LinkCommand::Rehome {
            key,
            to,
            travel: Box::new(crate::session::Travel { session }),
        });
    }

    /// Ends a session: the client is told why (if it is not known to be gone), and gets Close when all it sent is settled.
    pub(super) fn end_session(
        &mut self,
        slot: u32,
        error: Option<StreamError>,
        reason: CloseReason,
    ) {
        self.end_session_with(slot, error.map(|e| e.to_bytes(None)), reason);
    }

    /// The same with a stream error of the caller's making.
    pub(super) fn end_session_with(
        &mut self,
        slot: u32,
        error: Option<Bytes>,
        reason: CloseReason,
    ) {
        if matches!(self.session(slot).stage, Stage::Closing { .. }) {
            self.touch(slot);
            return;
        }
        if matches!(self.session(slot).stage, Stage::Negotiating(_)) {
            self.negotiating = self.negotiating.saturating_sub(1);
        }
        if self.session(slot).bound().is_some() {
            match reason {
                CloseReason::Replaced => self.take_last(slot),
                _ => self.send_paused(slot),
            }
            let by_client =
                error.is_none() && (reason == CloseReason::Normal || self.session(slot).mux_closed);
            self.end_bound(slot, by_client);
        }
        let header = self.missing_header(slot, error.is_some());
        let session = self.session(slot);
        session.close(header, error, reason);
        session.forget_waits();
        if session.holds_for.is_some() && session.sm.is_some() {
            // What has come and was not taken yet may acknowledge something too.
            self.last_words(slot, None);
        }
        self.settle(slot);
    }

    /// The account's part of the end: others are told, what it held is routed again, its record is kept for a while.
    fn end_bound(&mut self, slot: u32, by_client: bool) {
        if self.awaited(slot) {
            self.deny_unrecorded(slot);
        }
        self.end_resumption(slot);
        self.say_gone(slot);
        // What it has acknowledged is written, and its Close waits for that.
        let account = self.account_of(slot).expect("the caller has seen it");
        self.flush_user_acks(&account);
        self.await_acks(slot);
        let now = self.now;
        let mut record = self.record(slot);
        record.ended_unix_ms = Some(now.unix_ms);
        record.ended_input = match by_client {
            true => u64::MAX,
            false => self.session(slot).taken_bytes(),
        };
        record.presence = None;
        self.write(Write::Session(record.id, Some(record.encode())));
        self.ended.push_back((
            now.mono_ms + self.settings.mux_lost.as_millis() as u64,
            record.id,
        ));
        self.has_gone(&account);
        if let Some(user) = self.users.get_mut(&account) {
            user.sessions.retain(|&s| s != slot);
            user.used_ms = now.mono_ms;
        }
        let awaited = self.awaited(slot);
        let bound = self
            .session(slot)
            .bound_mut()
            .expect("the caller has seen it");
        bound.catching_up = false;
        // What it had not read yet may be there for it alone.
        let unread =
            matches!(bound.flood, Flood::Wanted | Flood::Reading).then(|| bound.cursor + 1);
        self.hold_for_mux(slot, &account, record, awaited);
        // Only now: the others read nothing while this one holds something.
        if let Some(from) = unread {
            self.reread(&account, from);
        }
        self.resume_clearing(&account);
    }

    /// Left by an earlier run: its mux will bring it back, or say that it has nothing more to bring.
    fn awaited(&self, slot: u32) -> bool {
        self.sessions
            .get(slot as usize)
            .filter(|s| s.key.is_none())
            .and_then(|s| s.bound())
            .is_some_and(|b| self.notes.contains_key(&b.note.0))
    }

    /// What an ended session held stays with it until its mux has told everything about it.
    fn hold_for_mux(&mut self, slot: u32, account: &BareJid, record: Record, awaited: bool) {
        let session = self.session(slot);
        let session_holds = session.holds_for.is_some();
        let acks_under_way = session.acks_under_way();
        let may_tell = session.key.is_some() && !session.mux_closed;
        let holds = self.users.get(account).is_some_and(|u| {
            u.assigned
                .values()
                .any(|a| a.holders.iter().any(|h| h.slot == slot))
        });
        if session_holds {
            // It had ended before: its mux has brought it back, or is awaited.
            return;
        }
        let may_hold = awaited || may_tell && holds;
        if may_hold || acks_under_way {
            // The mux says what the client's TCP has acknowledged before it says that the connection is closed: only then
            // is known what must be routed again.
            let holding = Holding {
                account: account.clone(),
                mux: record.mux.as_str().into(),
                conn: record.conn,
                record,
                released: !may_hold,
            };
            self.session(slot).holds_for = Some(Box::new(holding));
            self.user(account).closing.push(slot);
        }
        if !may_hold {
            self.release_held(slot, account);
        }
    }

    /// The mux has told everything about an ended session: what it held and nobody has is routed again.
    pub(super) fn release_closing(&mut self, slot: u32) {
        let Some(holding) = self.session(slot).holds_for.as_mut() else {
            return;
        };
        if std::mem::replace(&mut holding.released, true) {
            return;
        }
        let account = holding.account.clone();
        self.release_held(slot, &account);
        self.flush_user_acks(&account);
        self.await_acks(slot);
        self.end_holding(slot);
        self.floods_of(&account);
    }

    /// Nothing of an ended session is left to be told or written: its account forgets it.
    pub(super) fn end_holding(&mut self, slot: u32) {
        let session = self.session(slot);
        if session.acks_under_way() {
            return;
        }
        if let Some(holding) = session.holds_for.take_if(|h| h.released) {
            self.user(&holding.account).closing.retain(|&s| s != slot);
            self.touch(slot);
        }
    }

    /// The record of a bound session as it is now.
    pub(super) fn record(&self, slot: u32) -> Record {
        let session = self.sessions.get(slot as usize).expect("the caller has it");
        let bound = session.bound().expect("only bound sessions have records");
        self.without_blocked(Record {
            id: bound.id,
            note: bound.note,
            mux: bound.mux.to_string(),
            conn: bound.conn,
            jid: bound.jid.clone(),
            since_unix_ms: bound.since_unix_ms,
            namespaces: session.parser.namespaces().to_bytes().into(),
            sm: session.sm.as_ref().map(RecordedSm::of),
            origin_base: session.origin_base,
            resumption: session.recorded_resumption(self.now.unix_ms),
            interested: bound.interested,
            blocklist_asked: bound.blocklist_asked,
            inactive: (session.inactive.as_ref()).map(|i| (i.recorded(), session.held_presence())),
            presence: bound.presence.clone(),
            caps: RecordedCaps::of(&bound.caps),
            presence_changed_unix_ms: bound.presence_changed_unix_ms,
            taking_since_unix_ms: bound.taking_since_unix_ms,
            carbons_since_unix_ms: bound.carbons_since_unix_ms,
            client: bound.client,
            ended_unix_ms: None,
            ended_input: 0,
            acked: session.uncleared_positions(),
            directed: bound.directed.entries().to_vec(),
        })
    }

    /// Writes the record as it is now. Returns the number of the write.
    pub(super) fn write_record(&mut self, slot: u32) -> u64 {
        if self.session(slot).holds_for.is_some() {
            // Brought back to be ended again: whatever its last elements change, another restart must not take it for alive.
            return self.write_ended_record(slot).unwrap_or(self.write_number);
        }
        let handed_over = self.record_handed_over(slot);
        let record = handed_over.unwrap_or_else(|| self.record(slot));
        self.write(Write::Session(record.id, Some(record.encode())))
    }

    /// Writes the record of a session that had ended, with what it has acknowledged. `None`: it has had its time, is deleted,
    /// and stays so.
    pub(super) fn write_ended_record(&mut self, slot: u32) -> Option<u64> {
        let session = self.session(slot);
        let acked = session.uncleared_positions();
        let record = &mut session.holds_for.as_mut()?.record;
        record.acked = acked;
        let (id, bytes) = (record.id, record.encode());
        let kept = self.ended.iter().any(|&(_, ended)| ended == id);
        kept.then(|| self.write(Write::Session(id, Some(bytes))))
    }

    /// The element changed something that the record must know: it waits for the record, which is written once at the end of
    /// the turn, however many elements changed it.
    pub(super) fn await_record(&mut self, slot: u32, number: u64) {
        let session = self.session(slot);
        session.hold(number);
        session.record_awaited.push(number);
        self.touch(slot);
    }

    /// Writes the record if it is older than the session.
    pub(super) fn flush_record(&mut self, slot: u32) {
        let awaited = match self.sessions.get_mut(slot as usize) {
            Some(session) if !session.record_awaited.is_empty() => {
                std::mem::take(&mut session.record_awaited)
            }
            _ => return,
        };
        let write = match self.session(slot).bound() {
            Some(_) => self.write_record(slot),
            None => self.write_number,
        };
        for number in awaited {
            let token = self.token(slot, number);
            if write > self.durable {
                self.after(write, After::Token(token));
            } else {
                self.token_done(token);
            }
        }
    }

    /// An element that had to wait for its account's roster.
    pub(super) fn take_again(&mut self, slot: u32, number: u64, element: Element) {
        self.client_stanza(slot, number, element);
    }

    /// The bound session is known to the store: the mux and the client may know of it.
    pub(super) fn bound_durable(&mut self, slot: u32, result: Bytes, number: u64, failed: bool) {
        if self.session(slot).key.is_none() {
            return;
        }
        if failed {
            self.end_session(
                slot,
                Some(StreamError::ResourceConstraint),
                CloseReason::Limit,
            );
            return;
        }
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        bound.ready = true;
        let component = bound.is_component();
        self.give_note(slot);
        match component {
            true => self.component_is_bound(slot, result),
            false => self.send_stanza(slot, result),
        }
        let session = self.session(slot);
        session.paused = false;
        session.done(number);
        self.parse(slot);
    }
}
