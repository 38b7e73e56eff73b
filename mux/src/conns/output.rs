//! Writing: what a connection got in this turn goes out with one call; what the socket does not take waits.
//!
//! In: this turn's items. Out: bytes to sockets, marks for what to wait for. Owns: nothing.
//! Never: writes part of an element and forgets the rest; keeps a slice of the link's buffer beyond the turn.

use std::io::{ErrorKind, IoSlice, Write as _};
use std::time::Instant;

use proto::frame::CloseReason;

use super::{Above, BUFFER_KEPT, ConnSet, LINGER};
use crate::conn::{Conn, NONE, Stage};
use crate::metrics;
use crate::tls::TlsError;
use crate::websocket::status_of;

/// Slices of one vectored write.
const SLICES: usize = 64;
/// Plaintext put into one TLS record at most (RFC 8446 §5.1).
const RECORD_PLAIN: usize = 16_384;

impl ConnSet {
    /// The end of a turn: writes everything.
    pub fn flush(&mut self, now: Instant, above: &mut impl Above) {
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(slot) = self.find(key) {
                self.flush_one(now, slot, above);
            }
        }
        // Nothing above makes new output: every item is written, in a backlog, or its connection is gone.
        debug_assert!(self.dirty.is_empty());
        self.dirty = dirty;
        self.items.clear();
        for buffer in [&mut self.cipher, &mut self.plain] {
            if buffer.capacity() > BUFFER_KEPT {
                *buffer = Vec::new();
            }
        }
        if self.items.capacity() > BUFFER_KEPT {
            self.items = Vec::new();
        }
    }

    pub(super) fn flush_one(&mut self, now: Instant, slot: usize, above: &mut impl Above) {
        let conn = &mut self.slots[slot];
        conn.dirty = false;
        let first = std::mem::replace(&mut conn.turn, (NONE, NONE)).0;
        if first != NONE && !conn.broken {
            if conn.backlog_len() >= self.limits.output_bytes_max {
                tracing::debug!(peer = %conn.peer, "client does not take its output");
                return self.end(now, slot, CloseReason::SlowClient, above);
            }
            if conn.tls.is_some() {
                self.write_tls(now, slot, first);
            } else if conn.websocket.is_some() {
                self.write_frames(now, slot, first);
            } else {
                self.write_plain(now, slot, first);
            }
            if !self.slots[slot].marks.is_empty() {
                self.watch(now, slot);
                self.hurry_if_much(now, slot);
            }
        }
        if self.slots[slot].close_after.is_some() && self.slots[slot].stage == Stage::Live {
            self.begin_close(now, slot);
        }
    }

    fn write_plain(&mut self, now: Instant, slot: usize, first: u32) {
        let conn = &mut self.slots[slot];
        let mut at = first;
        while at != NONE {
            // Up to SLICES items in one call.
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (mut count, mut total) = (0, 0);
            let start = at;
            while at != NONE && count < SLICES {
                let item = &self.items[at as usize];
                slices[count] = IoSlice::new(&item.bytes);
                count += 1;
                total += item.bytes.len();
                conn.queued += item.bytes.len() as u64;
                conn.marks.push(conn.queued, item.element);
                at = item.next;
            }
            let mut taken = 0;
            if conn.backlog.is_none() && !conn.broken {
                let result = match count {
                    1 => conn.socket.write(&slices[0]),
                    _ => conn.socket.write_vectored(&slices[..count]),
                };
                match result {
                    Ok(n) => taken = n,
                    Err(e) => failed(conn, &e),
                }
            }
            metrics::add(&self.shared.metrics.bytes_out, total as u64);
            if taken < total && !conn.broken {
                let backlog = conn.backlog.get_or_insert_default();
                let mut next = start;
                for _ in 0..count {
                    let item = &self.items[next as usize];
                    let skip = taken.min(item.bytes.len());
                    backlog.push(&item.bytes[skip..]);
                    taken -= skip;
                    next = item.next;
                }
            }
        }
        self.after_write(now, slot);
    }

    /// WebSocket frames without TLS: put together, because headers of their own make poor slices.
    fn write_frames(&mut self, now: Instant, slot: usize, first: u32) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let conn = &mut self.slots[slot];
        let mut at = first;
        while at != NONE {
            let item = &self.items[at as usize];
            plain.extend_from_slice(item.header.bytes());
            plain.extend_from_slice(&item.bytes);
            conn.marks
                .push(conn.queued + plain.len() as u64, item.element);
            at = item.next;
        }
        self.send_raw(now, slot, &plain);
        self.plain = plain;
    }

    fn write_tls(&mut self, now: Instant, slot: usize, first: u32) {
        let mut cipher = std::mem::take(&mut self.cipher);
        cipher.clear();
        let mut plain = std::mem::take(&mut self.plain);
        if self.seal(slot, first, &mut plain, &mut cipher).is_ok() {
            self.send_raw(now, slot, &cipher);
        } else {
            tracing::debug!(peer = %self.slots[slot].peer, "output for a connection whose TLS cannot send");
            self.break_off(slot);
        }
        self.plain = plain;
        self.cipher = cipher;
    }

    /// Puts this turn's elements into as few records as possible. An element is acknowledged when the record with its last
    /// byte is.
    fn seal(
        &mut self,
        slot: usize,
        first: u32,
        plain: &mut Vec<u8>,
        cipher: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let conn = &mut self.slots[slot];
        let Some(state) = &mut conn.tls else {
            return Ok(());
        };
        let (items, marks, base) = (&self.items, &mut conn.marks, conn.queued);
        let mut unmarked = first;
        let mut record = |plain: &mut Vec<u8>, upto: u32| {
            state.tls.encrypt(plain, cipher)?;
            plain.clear();
            while unmarked != upto {
                let item = &items[unmarked as usize];
                marks.push(base + cipher.len() as u64, item.element);
                unmarked = item.next;
            }
            Ok::<(), TlsError>(())
        };
        plain.clear();
        let mut at = first;
        while at != NONE {
            let item = &items[at as usize];
            for mut bytes in [item.header.bytes(), &item.bytes] {
                while plain.len() + bytes.len() > RECORD_PLAIN {
                    let (now, later) = bytes.split_at(RECORD_PLAIN - plain.len());
                    plain.extend_from_slice(now);
                    bytes = later;
                    record(plain, at)?;
                }
                plain.extend_from_slice(bytes);
            }
            at = item.next;
        }
        // Never empty: the loop above leaves at least the last byte of the last element.
        record(plain, NONE)
    }

    /// Writes bytes that are no element, through TLS if there is any, behind what waits.
    pub(super) fn say(&mut self, now: Instant, slot: usize, bytes: &[u8]) {
        let mut cipher = std::mem::take(&mut self.cipher);
        cipher.clear();
        let sealed = match &mut self.slots[slot].tls {
            Some(state) => bytes
                .chunks(RECORD_PLAIN)
                .try_for_each(|piece| state.tls.encrypt(piece, &mut cipher)),
            None => {
                cipher.extend_from_slice(bytes);
                Ok(())
            }
        };
        match sealed {
            Ok(()) => self.send_raw(now, slot, &cipher),
            Err(_) => self.break_off(slot),
        }
        self.cipher = cipher;
    }

    /// Writes bytes as they are, behind what waits.
    pub(super) fn send_raw(&mut self, now: Instant, slot: usize, bytes: &[u8]) {
        let conn = &mut self.slots[slot];
        if bytes.is_empty() || conn.broken {
            return;
        }
        conn.queued += bytes.len() as u64;
        metrics::add(&self.shared.metrics.bytes_out, bytes.len() as u64);
        let mut taken = 0;
        if conn.backlog.is_none() {
            match conn.socket.write(bytes) {
                Ok(n) => taken = n,
                Err(e) => failed(conn, &e),
            }
        }
        if taken < bytes.len() && !conn.broken {
            conn.backlog.get_or_insert_default().push(&bytes[taken..]);
        }
        self.after_write(now, slot);
    }

    /// The socket can take more.
    pub(super) fn flush_backlog(&mut self, now: Instant, slot: usize) {
        let conn = &mut self.slots[slot];
        while let Some(backlog) = &mut conn.backlog {
            match conn.socket.write(backlog.bytes()) {
                Ok(n) => {
                    let short = n < backlog.len();
                    backlog.take(n);
                    if backlog.is_empty() {
                        conn.backlog = None;
                    } else if short {
                        break;
                    }
                }
                Err(e) => {
                    failed(conn, &e);
                    break;
                }
            }
        }
        self.after_write(now, slot);
    }

    /// Bookkeeping after any write.
    fn after_write(&mut self, now: Instant, slot: usize) {
        if self.slots[slot].broken {
            self.break_off(slot);
        }
        let conn = &mut self.slots[slot];
        if conn.is_closing() && conn.backlog.is_none() && !conn.shut {
            conn.shut = true;
            // Fails only if the far end is gone already.
            let _ = conn.socket.shutdown(std::net::Shutdown::Write);
            self.watch(now, slot);
        }
    }

    /// Nothing more can be written. What the client sent before is read to its end, then the connection ends.
    fn break_off(&mut self, slot: usize) {
        let conn = &mut self.slots[slot];
        conn.broken = true;
        conn.readable = true;
        conn.half_closed = true;
        self.read_again(slot);
    }

    fn begin_close(&mut self, now: Instant, slot: usize) {
        let reason = self.slots[slot].close_after.unwrap_or(CloseReason::Normal);
        self.send_close(now, slot, status_of(reason));
        if let Some(websocket) = &mut self.slots[slot].websocket {
            websocket.awaits_close = true;
        }
        self.linger(now, slot, Stage::Closing);
    }

    /// Nothing is said any more; what was said is waited for.
    pub(super) fn linger(&mut self, now: Instant, slot: usize, stage: Stage) {
        let mut cipher = std::mem::take(&mut self.cipher);
        cipher.clear();
        let conn = &mut self.slots[slot];
        conn.stage = stage;
        conn.linger = Some(now + LINGER);
        if let Some(state) = &mut conn.tls {
            state.tls.close_notify(&mut cipher);
        }
        self.send_raw(now, slot, &cipher);
        self.cipher = cipher;
        self.after_write(now, slot);
        self.watch(now, slot);
        if self.slots[slot].readable {
            self.read_again(slot);
        }
    }
}

/// A write failed, or only has to wait.
fn failed(conn: &mut Conn, error: &std::io::Error) {
    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
        tracing::debug!(peer = %conn.peer, %error, "writing failed");
        conn.broken = true;
        conn.backlog = None;
    }
}
