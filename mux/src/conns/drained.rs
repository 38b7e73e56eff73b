//! What clients have acknowledged: the kernel is asked while an element is outstanding, and the link is told.
//!
//! In: time. Out: `Above::drained`; the end of closing connections. Owns: nothing. Never: asks about a client that owes nothing.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use proto::frame::CloseReason;

use super::{Above, ConnSet};
use crate::conn::Stage;
use crate::sys;

/// How often acknowledged bytes are asked for, while an element is outstanding anywhere. A recipient's pending
/// mark waits so long; an ioctl per active connection costs a quarter microsecond.
pub const DRAIN_TICK: Duration = Duration::from_millis(100);
impl ConnSet {
    /// Asks the kernel what clients have acknowledged.
    pub(super) fn tick(&mut self, now: Instant, above: &mut impl Above) {
        let mut at = 0;
        while at < self.watched.len() {
            let key = self.watched[at];
            let keep = match self.find(key) {
                Some(slot) => self.look(now, slot, above),
                None => false,
            };
            if keep {
                at += 1;
            } else {
                self.watched.swap_remove(at);
                if let Some(slot) = self.find(key) {
                    self.slots[slot].watched = false;
                }
            }
        }
        self.next_tick = (!self.watched.is_empty()).then_some(now + DRAIN_TICK);
    }

    /// True: look again next time.
    pub(super) fn look(&mut self, now: Instant, slot: usize, above: &mut impl Above) -> bool {
        let left = self.report_drained(now, slot, above);
        let conn = &self.slots[slot];
        if conn.is_closing() {
            // A WebSocket client has its own Close to say, and closes then, because we have shut our side.
            let patient = conn.websocket.as_ref().is_some_and(|w| w.awaits_close);
            let done = conn.backlog.is_none() && left == 0 && !patient;
            if done || conn.linger.is_none_or(|t| t <= now) {
                let reason = conn.close_after.unwrap_or(CloseReason::Normal);
                self.end(now, slot, reason, above);
                return false;
            }
            return true;
        }
        !conn.marks.is_empty()
    }

    /// Reports what is newly acknowledged; returns how many bytes are not.
    pub(super) fn report_drained(&mut self, now: Instant, slot: usize, above: &mut impl Above) -> u64 {
        let conn = &mut self.slots[slot];
        let sent = conn.sent();
        // A socket that cannot be asked has acknowledged nothing.
        let left = sys::unacknowledged(conn.socket.as_fd()).unwrap_or(sent);
        // Our FIN counts as one byte there; at worst the last element is reported at the next tick.
        if let Some(elements) = conn.marks.acknowledge(sent.saturating_sub(left))
            && matches!(conn.stage, Stage::Live | Stage::Closing)
        {
            above.drained(now, conn.id, elements);
        }
        left
    }

    pub(super) fn watch(&mut self, now: Instant, slot: usize) {
        let conn = &mut self.slots[slot];
        if !conn.watched {
            conn.watched = true;
            self.watched.push(conn.key);
            self.next_tick.get_or_insert(now + DRAIN_TICK);
        }
    }
}
