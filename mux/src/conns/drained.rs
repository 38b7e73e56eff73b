//! What clients have acknowledged: the kernel is asked while an element is outstanding, and the link is told.
//!
//! A server that has much outstanding waits for that word (a page of an archive, an offline flood), and the kernel never says by
//! itself what was acknowledged. So two speeds: everybody is looked at once a tick; whose outstanding bytes are many is looked at
//! whenever it says something, and soon after it was sent something, and the link hears when that is at least half of them.
//!
//! In: time, input. Out: `Above::drained`; the end of closing connections. Owns: the list of those looked at sooner.
//! Never: asks about a client that owes nothing; makes a frame for each of many small elements.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use proto::frame::CloseReason;

use super::{Above, ConnSet};
use crate::conn::{Key, Stage};
use crate::sys;

/// How often acknowledged bytes are asked for, while an element is outstanding anywhere. A recipient's pending
/// mark waits so long; an ioctl per active connection costs a quarter microsecond.
pub const DRAIN_TICK: Duration = Duration::from_millis(100);
/// From so many bytes that the link takes for outstanding a connection is looked at before the next tick: half of the
/// smallest output window a server may have, so none that waits for half of its window to empty waits for a tick. The elements of
/// a chat are far below.
const MUCH_BYTES: u64 = 32 * 1024;
/// The first look at such a connection comes so long after the write: as soon as a loopback or a local network can answer.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// A connection that is looked at before the next tick.
struct Look {
    key: Key,
    at: Instant,
    /// Since the look before. It doubles, so a client far away costs no more than seven looks until the tick is as good.
    wait: Duration,
}

/// Connections with much outstanding. Few at a time: one leaves as soon as half of that is acknowledged, or after a tick.
#[derive(Default)]
pub(super) struct Hurried {
    looks: Vec<Look>,
    next: Option<Instant>,
}

impl Hurried {
    /// When [`ConnSet::hurry`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

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
    pub(super) fn report_drained(
        &mut self,
        now: Instant,
        slot: usize,
        above: &mut impl Above,
    ) -> u64 {
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

    /// Tells the link at once, if much is outstanding and at least half of it is acknowledged.
    pub(super) fn tell_drained(&mut self, now: Instant, slot: usize, above: &mut impl Above) {
        let conn = &mut self.slots[slot];
        let untold = conn.untold();
        if untold < MUCH_BYTES {
            return;
        }
        let Ok(left) = sys::unacknowledged(conn.socket.as_fd()) else {
            return;
        };
        if (left + conn.backlog_len() as u64) * 2 <= untold {
            self.report_drained(now, slot, above);
        }
    }

    /// Something was written: if much is outstanding now, it is looked at soon.
    pub(super) fn hurry_if_much(&mut self, now: Instant, slot: usize) {
        let conn = &mut self.slots[slot];
        if conn.hurried || conn.untold() < MUCH_BYTES {
            return;
        }
        conn.hurried = true;
        let at = now + FIRST_LOOK;
        self.hurried.looks.push(Look {
            key: conn.key,
            at,
            wait: FIRST_LOOK,
        });
        self.hurried.next = Some(self.hurried.next.map_or(at, |t| t.min(at)));
    }

    /// Looks at those with much outstanding whose time has come.
    pub(super) fn hurry(&mut self, now: Instant, above: &mut impl Above) {
        let mut looks = std::mem::take(&mut self.hurried.looks);
        looks.retain_mut(|look| {
            let Some(slot) = self.find(look.key) else {
                return false;
            };
            if look.at > now {
                return true;
            }
            let before = self.slots[slot].untold();
            self.tell_drained(now, slot, above);
            let untold = self.slots[slot].untold();
            look.wait = match untold < before {
                true => FIRST_LOOK,
                false => look.wait * 2,
            };
            look.at = now + look.wait;
            let keep = untold >= MUCH_BYTES && look.wait < DRAIN_TICK;
            self.slots[slot].hurried = keep;
            keep
        });
        self.hurried.next = looks.iter().map(|look| look.at).min();
        self.hurried.looks = looks;
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
