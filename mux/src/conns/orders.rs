//! What the link orders about a connection. Orders for one that is gone are ordinary races and do nothing.
//!
//! In: keys and orders. Out: this turn's output, stages. Owns: nothing. Never: writes at once (the turn's end does).

use std::time::Instant;

use bytes::Bytes;
use proto::frame::{CloseReason, ConnId};

use super::{AGE_TICK, Above, ConnSet, Item};
use crate::conn::{Key, NONE, Stage};
use crate::websocket::frame::{GOING_AWAY, Header};

impl ConnSet {
    /// The link has given the connection its id, and says up to how many input bytes may be read.
    pub fn opened(
        &mut self,
        now: Instant,
        key: Key,
        id: ConnId,
        limit: u64,
        above: &mut impl Above,
    ) {
        match self.find(key) {
            Some(slot) if self.slots[slot].stage == Stage::Opening => {
                self.live(now, slot, id, limit, above)
            }
            // It ended while the link answered.
            _ => above.closed(now, id, CloseReason::SocketError),
        }
    }

    /// The link has refused the connection.
    pub fn refused(&mut self, now: Instant, key: Key, above: &mut impl Above) {
        if let Some(slot) = self.find(key) {
            self.turn_away(now, slot, above);
        }
    }

    /// Output: goes out at the end of the turn.
    pub fn output(&mut self, key: Key, bytes: Bytes, element: u64) {
        let Some(slot) = self.find(key) else { return };
        let conn = &mut self.slots[slot];
        if conn.stage != Stage::Live || conn.close_after.is_some() || conn.broken {
            return;
        }
        let at = self.items.len() as u32;
        let header = match conn.websocket {
            Some(_) => Header::text(bytes.len()),
            None => Header::default(),
        };
        self.items.push(Item {
            header,
            bytes,
            element,
            next: NONE,
        });
        if conn.turn.0 == NONE {
            conn.turn = (at, at);
        } else {
            self.items[conn.turn.1 as usize].next = at;
            conn.turn.1 = at;
        }
        self.soil(slot);
    }

    /// In the list for the end of the turn.
    pub(super) fn soil(&mut self, slot: usize) {
        let conn = &mut self.slots[slot];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(conn.key);
        }
    }

    /// More may be read, up to this total.
    pub fn set_input_limit(&mut self, key: Key, limit: u64) {
        let Some(slot) = self.find(key) else { return };
        let conn = &mut self.slots[slot];
        conn.input_limit = conn.input_limit.max(limit);
        if conn.readable {
            self.read_again(slot);
        }
    }

    /// `last` goes out plain, every byte read from now on goes to TLS.
    pub fn start_tls(
        &mut self,
        now: Instant,
        key: Key,
        last: Bytes,
        element: u64,
        request_certificate: bool,
        above: &mut impl Above,
    ) {
        let Some(slot) = self.find(key) else { return };
        if self.slots[slot].stage != Stage::Live || self.slots[slot].tls.is_some() {
            return;
        }
        self.output(key, last, element);
        // The plain bytes must be on their way before the connection has a TLS state.
        self.flush_one(now, slot, above);
        let Some(slot) = self.find(key) else { return };
        let good = if self.slots[slot].dialled.is_some() {
            self.begin_tls_dialled(now, slot)
        } else {
            self.begin_tls(now, slot, false, request_certificate)
        };
        if !good {
            tracing::warn!("STARTTLS ordered, but there is no certificate");
            return self.end(now, slot, CloseReason::TlsError, above);
        }
        if self.slots[slot].readable {
            self.read_again(slot);
        }
    }

    /// `last` goes out; once it is acknowledged (or after a while) the connection is closed.
    pub fn close(
        &mut self,
        now: Instant,
        key: Key,
        last: Bytes,
        element: u64,
        reason: CloseReason,
        above: &mut impl Above,
    ) {
        let Some(slot) = self.find(key) else { return };
        if self.slots[slot].stage != Stage::Live {
            return;
        }
        let handshaking = self.slots[slot]
            .tls
            .as_ref()
            .is_some_and(|t| t.tls.is_handshaking());
        if handshaking {
            // In mid-handshake there is no way to say anything.
            return self.end(now, slot, reason, above);
        }
        if !last.is_empty() {
            self.output(key, last, element);
        }
        self.slots[slot].close_after = Some(reason);
        self.soil(slot);
    }

    /// The link does not know the connection any more.
    pub fn forget(&mut self, key: Key, above: &mut impl Above) {
        if let Some(slot) = self.find(key) {
            self.last_frame(slot, GOING_AWAY);
            self.remove(slot, above);
        }
    }

    /// The server has given the connection its Note: it has logged in.
    pub fn set_noted(&mut self, key: Key, above: &mut impl Above) {
        let Some(slot) = self.find(key) else { return };
        let conn = &mut self.slots[slot];
        if !conn.noted {
            conn.noted = true;
            if conn.counted {
                above.authenticated();
            }
        }
    }

    /// The process ends: every connection is closed.
    pub fn shut_down(&mut self, now: Instant, above: &mut impl Above) {
        let keys: Vec<Key> = self.slots.iter().map(|(_, conn)| conn.key).collect();
        for key in keys {
            if let Some(slot) = self.find(key) {
                self.flush_one(now, slot, above);
            }
            if let Some(slot) = self.find(key) {
                self.end(now, slot, CloseReason::Shutdown, above);
            }
        }
        self.wake_by(now + AGE_TICK);
    }
}
