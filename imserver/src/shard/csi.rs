//! Client state indication (XEP-0352) on a shard: what an inactive client is not sent yet, and when it is.
//!
//! In: `<inactive/>` and `<active/>` (or the same said with a log-in), what is sent to a session. Out: what had waited.
//! Never: tells anybody but the server of it (§6); delays what its client has to answer. What may wait, `session/csi` says.
//!
//! A kill loses nothing of it: stored messages are pending until acknowledged, and the rest is on the session's record: news at once,
//! presence before the time is over in which a restarted server says it again.

use super::Shard;
use crate::routing;
use crate::session::csi::{Inactive, Urgency, urgency};
use crate::session::{OutKind, Session};
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StreamError;

impl Shard {
    /// A nonza of the namespace.
    pub(super) fn client_state(&mut self, slot: u32, number: u64, element: &Element) {
        match element.name() {
            "inactive" => self.switch_csi(slot, true),
            "active" => self.switch_csi(slot, false),
            _ => return self.stream_error(slot, StreamError::UnsupportedStanzaType),
        }
        self.await_record(slot, number);
        self.session(slot).done(number);
    }

    /// The client is inactive from now on, or active. Its record must follow.
    pub(super) fn switch_csi(&mut self, slot: u32, inactive: bool) {
        let session = self.session(slot);
        if session.is_away() {
            // Its connection is lost, and this was said on it: whoever comes back is active (§5.2).
            return;
        }
        match (inactive, session.is_inactive()) {
            (true, false) => session.inactive = Some(Box::default()),
            (false, true) => {
                self.release_waiting(slot);
                self.session(slot).inactive = None;
                self.release_held_presence(slot);
            }
            _ => {}
        }
    }

    /// Sends an element, or puts it with what waits.
    pub(super) fn send(&mut self, slot: u32, bytes: Bytes, kind: OutKind) {
        if !self.waits(slot, &bytes, kind) {
            self.send_now(slot, bytes, kind);
        }
    }

    /// The same, past what waits for an inactive client.
    pub(super) fn send_now(&mut self, slot: u32, bytes: Bytes, kind: OutKind) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("checked by the caller");
        session.send(bytes, kind, now, &mut self.fx.links);
        if kind.stanza {
            self.status.stanzas_out += 1;
        }
        self.touch(slot);
    }

    /// Whether a stanza has been put with what waits for the client. If it has not, what waits has gone before it.
    fn waits(&mut self, slot: u32, bytes: &Bytes, kind: OutKind) -> bool {
        let max = self.settings.inactive_held_max;
        let session = self.session(slot);
        if !session.is_inactive() || !kind.stanza {
            return false;
        }
        let urgency = match max {
            0 => Urgency::Goes,
            _ => urgency(bytes),
        };
        let Urgency::Waits(key) = urgency else {
            self.release_waiting(slot);
            return false;
        };
        if let Some(from) = routing::sender(bytes) {
            session.keep_behind_presence(&from);
        }
        let inactive = session.inactive.as_mut().expect("just seen");
        let room = inactive.wait(key, bytes.clone(), kind, max);
        // What nobody says again is on record before long: at the end of this turn.
        self.touch(slot);
        if !room {
            self.release_waiting(slot);
        }
        true
    }

    /// Sends what waits, in order: messages, then presence, as far as there is room for that. The client stays as inactive as it is.
    pub(super) fn release_waiting(&mut self, slot: u32) {
        let session = self.session(slot);
        let Some(inactive) = &mut session.inactive else {
            return;
        };
        for (bytes, kind) in inactive.take() {
            self.send_now(slot, bytes, kind);
        }
        // While it counts as active.
        let inactive = self.session(slot).inactive.take();
        let held = |session: &Session| session.bound().map_or(0, |b| b.held_presence.len());
        let before = held(self.session(slot));
        self.release_held_presence(slot);
        let session = self.session(slot);
        let released = held(session) != before;
        if session.bound().is_some() {
            session.inactive = inactive;
            session
                .inactive
                .iter_mut()
                .for_each(|i| i.presence_unrecorded |= released);
        }
    }

    /// Presence for an inactive client has been merged with what waits: its record follows with the next sweep, sooner than a
    /// restarted server stops saying such presence again.
    pub(super) fn presence_waits(&mut self, slot: u32) {
        if let Some(inactive) = &mut self.session(slot).inactive {
            inactive.presence_unrecorded = true;
        }
    }

    /// The session is not available any more (RFC 6121 §4.5): what it would still be told of others is not true by the time it is, as it
    /// does not hear of their going.
    pub(super) fn forget_presence(&mut self, slot: u32) {
        let session = self.session(slot);
        if let Some(inactive) = &mut session.inactive {
            inactive.forget_presence();
        }
        if let Some(bound) = session.bound_mut() {
            bound.held_presence = Vec::new();
        }
    }

    /// The end of a turn: what waits and nobody says again goes on record.
    pub(super) fn record_waiting(&mut self, slot: u32) {
        let session = self.sessions.get_mut(slot as usize);
        let Some(session) = session.filter(|s| s.bound().is_some_and(|b| b.ready)) else {
            return;
        };
        let unrecorded = |i: &mut Box<Inactive>| std::mem::take(&mut i.unrecorded);
        if session.inactive.as_mut().is_some_and(unrecorded) {
            self.write_record(slot);
        }
    }

    /// The tick: so does presence.
    pub(super) fn record_waiting_presence(&mut self, slot: u32) {
        let unrecorded = |i: &mut Box<Inactive>| std::mem::take(&mut i.presence_unrecorded);
        let session = self.session(slot);
        if session.inactive.as_mut().is_some_and(unrecorded) {
            self.write_record(slot);
        }
    }
}
