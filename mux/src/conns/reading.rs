//! Reading: socket → (TLS) → link, no more than the link has room for.
//!
//! In: readiness. Out: `Above::input`. Owns: nothing. Never: reads past the room given; hands a byte read after
//! StartTls to the link undeciphered; reads again after a short read (edge-triggered: more is another event).

use std::io::{ErrorKind, Read as _};
use std::time::Instant;

use proto::frame::CloseReason;

use super::{Above, ConnSet, PARTIAL_ROOM, READ_BYTES, READS_PER_TURN, websocket};
use crate::conn::{Admission, Conn, ConnTls, Stage};
use crate::metrics;
use crate::tls::TlsEvent;

/// What one read led to.
pub(super) enum Got {
    /// More may be there.
    Full,
    /// The socket is empty.
    Empty,
    /// It must wait: for room, for the link's answer, for its handshake's turn.
    Blocked,
    /// It is over.
    End(CloseReason),
    /// It was ended already; its slot is not ours any more.
    Gone,
}

impl ConnSet {
    /// Reads what there is, up to a turn's share.
    pub(super) fn read(&mut self, now: Instant, slot: usize, above: &mut impl Above) {
        // What a client says next acknowledges what it has got before, and the server hears it in this order.
        self.tell_drained(now, slot, above);
        for _ in 0..READS_PER_TURN {
            if !self.slots[slot].readable {
                return;
            }
            let got = if self.slots[slot].is_closing() {
                self.discard(slot)
            } else if self.slots[slot].tls.is_some() {
                self.read_tls(now, slot, above)
            } else {
                self.read_plain(now, slot, above)
            };
            match got {
                Got::Full => {}
                // A far end that has shut its side is read until the end shows.
                Got::Empty if self.slots[slot].half_closed => {}
                Got::Empty => {
                    self.slots[slot].readable = false;
                    return;
                }
                Got::Blocked | Got::Gone => return,
                Got::End(reason) => {
                    let conn = &self.slots[slot];
                    let reason = if conn.is_closing() {
                        conn.close_after.unwrap_or(reason)
                    } else {
                        reason
                    };
                    return self.end(now, slot, reason, above);
                }
            }
        }
        self.read_again(slot);
    }

    /// What a closing connection still sends is of no use, but left unread it would make the kernel reset the connection.
    fn discard(&mut self, slot: usize) -> Got {
        let conn = &mut self.slots[slot];
        match conn.socket.read(&mut self.scratch[..READ_BYTES]) {
            Ok(0) => Got::End(CloseReason::Normal),
            Ok(n) if n < READ_BYTES => Got::Empty,
            Ok(_) => Got::Full,
            Err(e) => on_error(conn, &e),
        }
    }

    fn read_plain(&mut self, now: Instant, slot: usize, above: &mut impl Above) -> Got {
        let conn = &mut self.slots[slot];
        if conn.stage == Stage::Greeting {
            return self.read_greeting(now, slot, above);
        }
        if conn.stage != Stage::Live {
            return Got::Blocked;
        }
        if !make_room(now, conn, above) {
            return Got::Blocked;
        }
        let want = conn.room().min(READ_BYTES);
        match conn.socket.read(&mut self.scratch[..want]) {
            Ok(0) => Got::End(CloseReason::Normal),
            Ok(n) => {
                metrics::add(&self.shared.metrics.bytes_in, n as u64);
                let taken = deliver(now, conn, &self.scratch[..n], &mut self.plain, above);
                debug_assert_eq!(taken, n, "no more was read than there is room for");
                self.after_frames(now, slot);
                if n < want { Got::Empty } else { Got::Full }
            }
            Err(e) => on_error(conn, &e),
        }
    }

    /// A WebSocket client without TLS says what it wants.
    fn read_greeting(&mut self, now: Instant, slot: usize, above: &mut impl Above) -> Got {
        let conn = &mut self.slots[slot];
        let n = match conn.socket.read(&mut self.scratch[..READ_BYTES]) {
            Ok(0) => return Got::End(CloseReason::Normal),
            Ok(n) => n,
            Err(e) => return on_error(conn, &e),
        };
        metrics::add(&self.shared.metrics.bytes_in, n as u64);
        let scratch = std::mem::take(&mut self.scratch);
        let got = self.greeted(now, slot, &scratch[..n], above);
        self.scratch = scratch;
        got
    }

    fn read_tls(&mut self, now: Instant, slot: usize, above: &mut impl Above) -> Got {
        if self.slots[slot].stage == Stage::Opening || !self.admit(now, slot) {
            return Got::Blocked;
        }
        let conn = &mut self.slots[slot];
        let Some(mut state) = conn.tls.take() else {
            return Got::Blocked;
        };
        let held = std::mem::take(&mut state.held);
        if !held.is_empty() {
            if conn.stage == Stage::Greeting {
                conn.tls = Some(state);
                return match self.greeted(now, slot, &held, above) {
                    // The rest may be in the socket.
                    Got::Empty => Got::Full,
                    got => got,
                };
            }
            let taken = deliver(now, conn, &held, &mut self.plain, above);
            state.held = held[taken..].to_vec();
            let blocked = !state.held.is_empty();
            conn.tls = Some(state);
            self.after_frames(now, slot);
            return if blocked { Got::Blocked } else { Got::Full };
        }
        if state.peer_closed {
            conn.tls = Some(state);
            return Got::End(CloseReason::Normal);
        }
        let before = state.tls.put_partial(&mut self.scratch);
        debug_assert!(
            before <= PARTIAL_ROOM,
            "the partial record is limited to this"
        );
        let got = match conn
            .socket
            .read(&mut self.scratch[before..before + READ_BYTES])
        {
            Ok(0) => Got::End(end_of(&state)),
            Ok(n) => {
                metrics::add(&self.shared.metrics.bytes_in, n as u64);
                let full = n == READ_BYTES;
                return self.decipher(now, slot, state, before + n, full, above);
            }
            Err(e) => on_error(conn, &e),
        };
        self.slots[slot].tls = Some(state);
        got
    }

    fn decipher(
        &mut self,
        now: Instant,
        slot: usize,
        mut state: Box<ConnTls>,
        len: usize,
        full: bool,
        above: &mut impl Above,
    ) -> Got {
        let conn = &mut self.slots[slot];
        let mut cipher = std::mem::take(&mut self.cipher);
        cipher.clear();
        let plain = &mut self.plain;
        let mut secured = None;
        let was_live = conn.stage == Stage::Live;
        // The end of a handshake and the first bytes after it may come in one step, and then the bytes before the word that TLS
        // is up: they wait for it, or the server takes them for plaintext (LINK.md, injection).
        let mut announced = !state.tls.is_handshaking();
        let ConnTls {
            tls,
            held,
            peer_closed,
            ..
        } = &mut *state;
        let result = tls.handle_bytes(&mut self.scratch[..len], &mut cipher, |event| match event {
            TlsEvent::Secured(facts) if was_live => {
                above.secured(now, conn.id, facts);
                secured = Some(None);
                announced = true;
            }
            TlsEvent::Secured(facts) => secured = Some(Some(facts)),
            TlsEvent::Plain(bytes) => {
                let given = if announced && held.is_empty() {
                    deliver(now, conn, bytes, plain, above)
                } else {
                    0
                };
                held.extend_from_slice(&bytes[given..]);
            }
            TlsEvent::PeerClosed => *peer_closed = true,
        });
        let peer_closed = state.peer_closed;
        let held = !state.held.is_empty();
        if secured.is_some() && state.admission == Admission::Admitted {
            state.admission = Admission::Done;
            self.handshake_over(true);
        }
        self.slots[slot].tls = Some(state);
        self.send_raw(now, slot, &cipher);
        cipher.clear();
        self.cipher = cipher;
        if let Err(error) = result {
            tracing::debug!(peer = %self.slots[slot].peer, %error, "TLS failed");
            return Got::End(CloseReason::TlsError);
        }
        if let Some(Some(facts)) = secured {
            let conn = &mut self.slots[slot];
            if let Some(greeting) = conn.websocket.as_mut().and_then(|w| w.greeting.as_mut()) {
                greeting.facts = Some(facts);
                conn.stage = Stage::Greeting;
                return Got::Full;
            }
            let key = self.slots[slot].key;
            self.open(now, slot, Some(facts), above);
            if self.find(key).is_none() {
                // Refused: `open` has ended it. The caller must not touch the slot.
                return Got::Gone;
            }
        }
        self.after_frames(now, slot);
        if held || peer_closed {
            // Look at what is held, or at the end, before anything more is read.
            return Got::Full;
        }
        if full { Got::Full } else { Got::Empty }
    }
}

/// True if at least one byte may be read.
pub(super) fn make_room(now: Instant, conn: &mut Conn, above: &mut impl Above) -> bool {
    if conn.room() == 0
        && let Some(more) = above.want_room(now, conn.key, conn.id, conn.input_total)
    {
        conn.input_limit = conn.input_total + more;
    }
    conn.room() > 0
}

/// Hands bytes within the room to the link.
pub(super) fn give(
    now: Instant,
    conn: &mut Conn,
    bytes: &[u8],
    message_end: bool,
    above: &mut impl Above,
) {
    conn.input_total += bytes.len() as u64;
    if let Some(more) = above.input(now, conn.id, bytes, message_end) {
        conn.input_limit = conn.input_total + more;
    }
}

/// Hands as many bytes to the link as there is room for; returns how many. `scratch` is for frames (see `websocket`).
fn deliver(
    now: Instant,
    conn: &mut Conn,
    bytes: &[u8],
    scratch: &mut Vec<u8>,
    above: &mut impl Above,
) -> usize {
    if conn.websocket.is_some() {
        return websocket::deliver(now, conn, bytes, scratch, above);
    }
    let mut given = 0;
    while conn.stage == Stage::Live && given < bytes.len() && make_room(now, conn, above) {
        let n = conn.room().min(bytes.len() - given);
        give(now, conn, &bytes[given..given + n], false, above);
        given += n;
    }
    given
}

/// End of the socket: in order after close_notify or outside a handshake (many clients leave close_notify out;
/// XMPP says the end of the stream itself).
fn end_of(state: &ConnTls) -> CloseReason {
    if state.tls.is_handshaking() {
        CloseReason::TlsError
    } else {
        CloseReason::Normal
    }
}

fn on_error(conn: &mut Conn, error: &std::io::Error) -> Got {
    match error.kind() {
        ErrorKind::Interrupted => Got::Full,
        ErrorKind::WouldBlock if conn.broken => Got::End(CloseReason::SocketError),
        ErrorKind::WouldBlock => {
            conn.half_closed = false;
            Got::Empty
        }
        _ => Got::End(CloseReason::SocketError),
    }
}
