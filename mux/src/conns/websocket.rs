//! WebSocket connections: the handshake, frames in, frames that are no elements out.
//!
//! In: plaintext of a connection, as `reading` has it. Out: the link's bytes with the ends of messages; answers, pongs, Close.
//! Owns: nothing (`crate::websocket` has the decisions). Never: hands on more than the room given; answers Pings that the client
//! does not take; keeps the buffers of the handshake.

use std::io::Write as _;
use std::time::Instant;

use proto::frame::CloseReason;

use super::reading::{Got, give, make_room};
use super::{AGE_TICK, Above, ConnSet};
use crate::conn::{Conn, Key, Stage};
use crate::metrics;
use crate::websocket::frame::{self, Event, NORMAL};
use crate::websocket::handshake::{self, Answer, HEAD_BYTES_MAX};
use crate::websocket::{accept, status_of};

impl ConnSet {
    /// More of a request.
    pub(super) fn greeted(
        &mut self,
        now: Instant,
        slot: usize,
        bytes: &[u8],
        above: &mut impl Above,
    ) -> Got {
        let policy = self.shared.websocket();
        let conn = &mut self.slots[slot];
        let Some(greeting) = conn.websocket.as_mut().and_then(|w| w.greeting.as_mut()) else {
            return Got::Blocked;
        };
        // One byte past the limit is enough to say so.
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(greeting.head.len());
        greeting
            .head
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match handshake::respond(&greeting.head, &policy.policy) {
            Answer::Wait => Got::Empty,
            Answer::Http(text) => {
                metrics::add(&self.shared.metrics.http_answers, 1);
                self.answer(now, slot, &text);
                Got::Full
            }
            Answer::Foreign { text, origin, host } => {
                metrics::add(&self.shared.metrics.http_answers, 1);
                if self.shared.may_warn_of_origin(now) {
                    tracing::warn!(
                        origin,
                        host,
                        "a page was refused with 403: its origin is not that of the Host it asked, nor in `websocket.origins` (a reverse \
                         proxy must hand Host on; further ones in this minute: debug)"
                    );
                } else {
                    tracing::debug!(origin, host, "a page was refused with 403");
                }
                self.answer(now, slot, &text);
                Got::Full
            }
            Answer::Upgrade(key) => {
                greeting.head = Vec::new();
                greeting.key = Some(key);
                let facts = greeting.facts.take();
                let key = conn.key;
                self.open(now, slot, facts, above);
                match self.find(key) {
                    Some(_) => Got::Full,
                    None => Got::Gone,
                }
            }
        }
    }

    /// Answers in HTTP, and closes.
    pub(super) fn answer(&mut self, now: Instant, slot: usize, text: &str) {
        self.say(now, slot, text.as_bytes());
        let conn = &mut self.slots[slot];
        conn.close_after = Some(CloseReason::Normal);
        if let Some(websocket) = &mut conn.websocket {
            websocket.greeting = None;
            websocket.close_sent = true;
        }
        self.linger(now, slot, Stage::Answered);
    }

    /// The link has an id for the connection: the handshake is over.
    pub(super) fn switch_protocols(&mut self, now: Instant, slot: usize) {
        let conn = &mut self.slots[slot];
        let Some(websocket) = &mut conn.websocket else {
            return;
        };
        let Some(key) = websocket.greeting.take().and_then(|greeting| greeting.key) else {
            return;
        };
        let conn = conn.key;
        metrics::add(&self.shared.metrics.upgrades, 1);
        let text = handshake::switching(&accept(&key));
        self.say(now, slot, text.as_bytes());
        self.ping_later(now, conn);
    }

    fn ping_later(&mut self, now: Instant, key: Key) {
        let every = self.shared.websocket().ping;
        if !every.is_zero() {
            self.pings.push_back((now + every, key));
            self.wake_by(now + every.max(AGE_TICK));
        }
    }

    /// Keeps proxies from taking an idle connection for a dead one, and finds out if it is one.
    pub(super) fn ping(&mut self, now: Instant, key: Key) {
        let Some(slot) = self
            .find(key)
            .filter(|s| self.slots[*s].stage == Stage::Live)
        else {
            return;
        };
        if self.slots[slot].backlog.is_none() {
            self.say(now, slot, &frame::PING_FRAME);
        }
        self.ping_later(now, key);
    }

    /// After input: pongs go out, and the end begins if it is time.
    pub(super) fn after_frames(&mut self, now: Instant, slot: usize) {
        let Some(websocket) = &mut self.slots[slot].websocket else {
            return;
        };
        let ending = websocket.ending.take();
        if !websocket.replies.is_empty() {
            let replies = std::mem::take(&mut websocket.replies);
            self.say(now, slot, &replies);
        }
        let Some((status, reason)) = ending else {
            return;
        };
        if self.slots[slot].stage == Stage::Live {
            self.send_close(now, slot, status);
            self.slots[slot].close_after = Some(reason);
            self.linger(now, slot, Stage::Closing);
        }
    }

    /// Our Close frame, once.
    pub(super) fn send_close(&mut self, now: Instant, slot: usize, status: u16) {
        if let Some(websocket) = &mut self.slots[slot].websocket
            && websocket.is_open()
            && !std::mem::replace(&mut websocket.close_sent, true)
        {
            self.say(now, slot, &frame::close(status));
        }
    }

    /// The same for a connection that ends now: the last word of a socket that is closed anyway.
    pub(super) fn last_frame(&mut self, slot: usize, status: u16) {
        let conn = &mut self.slots[slot];
        let Some(websocket) = &mut conn.websocket else {
            return;
        };
        let said = std::mem::replace(&mut websocket.close_sent, true);
        if said || !websocket.is_open() || conn.stage != Stage::Live || conn.backlog.is_some() {
            return;
        }
        self.cipher.clear();
        let close = frame::close(status);
        let sealed = match &mut conn.tls {
            Some(state) => state.tls.encrypt(&close, &mut self.cipher).is_ok(),
            None => {
                self.cipher.extend_from_slice(&close);
                true
            }
        };
        if sealed {
            // Nobody is left to be told that it failed.
            let _ = conn.socket.write(&self.cipher);
        }
        self.cipher.clear();
    }
}

/// Hands frames to the link as far as there is room for them; returns how many bytes of them were taken. `scratch` is for
/// what is unmasked.
pub(super) fn deliver(
    now: Instant,
    conn: &mut Conn,
    bytes: &[u8],
    scratch: &mut Vec<u8>,
    above: &mut impl Above,
) -> usize {
    let Some(mut websocket) = conn.websocket.take() else {
        return 0;
    };
    let mut taken = 0;
    while conn.stage == Stage::Live
        && websocket.ending.is_none()
        && taken < bytes.len()
        && make_room(now, conn, above)
    {
        // Payload is never more than what was read, so the room is enough.
        let n = conn.room().min(bytes.len() - taken);
        let before = conn.input_total;
        let replies = &mut websocket.replies;
        let mut close = None;
        let result = websocket
            .decoder
            .handle_bytes(&bytes[taken..taken + n], scratch, |event| match event {
                Event::Data { bytes, end } => give(now, conn, bytes, end, above),
                // A client that does not take what it has is not given more: of many Pings one may be answered (§5.5.3).
                Event::Ping(_) if conn.backlog.is_some() => {}
                Event::Ping(payload) => frame::pong(payload, replies),
                Event::Close(status) => close = Some(status.unwrap_or(NORMAL)),
            });
        taken += n;
        let payload = (conn.input_total - before) as usize;
        if let Err(violation) = result {
            tracing::debug!(peer = %conn.peer, why = violation.text, "WebSocket");
            websocket.ending = Some((violation.status, CloseReason::PolicyViolation));
        } else if let Some(status) = close {
            websocket.ending = Some((status, CloseReason::Normal));
        } else if !conn.noted && !websocket.count_overhead(n, payload) {
            tracing::debug!(peer = %conn.peer, "too many frames before log-in");
            let reason = CloseReason::Limit;
            websocket.ending = Some((status_of(reason), reason));
        }
    }
    if websocket.ending.is_some() {
        // Nothing behind it counts.
        taken = bytes.len();
    }
    conn.websocket = Some(websocket);
    taken
}
