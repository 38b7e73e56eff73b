//! Acknowledgements of pending messages: marks cleared, told to the disk, to the session's record and to the mux.
//!
//! In: what a client has acknowledged, what a mux has taken, answers of the disk. Out: Ack writes, records, what a mux may forget.
//! Owns: when a mark may be cleared (DESIGN idea 5).
//! Never: tells a mux to forget what is not on disk; forgets what a session had that another is still owed.

use super::{After, Shard};
use crate::event::*;
use crate::session::{Flood, Unacked};
use xmpp::jid::BareJid;

impl Shard {
    /// The client of this session has acknowledged these.
    pub(super) fn clear_marks(&mut self, slot: u32, delivered: &[Unacked]) {
        let Some(account) = self.account_of(slot) else {
            return;
        };
        let up_to = self.clearable_up_to(&account);
        let mut deferred = Vec::new();
        self.push_acknowledged(&account, slot, delivered);
        let Some(user) = self.users.get_mut(&account) else {
            return;
        };
        for &unacked in delivered {
            let Some(assignment) = user.assigned.get_mut(&unacked.position) else {
                continue;
            };
            assignment.acked = true;
            assignment.had.push(slot);
            assignment.holders.retain(|h| h.slot != slot);
            if assignment.may_clear() && unacked.position <= up_to {
                assignment.clearing = true;
                user.acks.push(unacked.position);
            } else if !assignment.clearing {
                deferred.push(unacked);
            }
        }
        let session = self.session(slot);
        for u in deferred {
            session.defer_clearing(u);
        }
        self.session_acks_changed(slot);
        self.mark_user(&account);
    }

    /// Whose messages the session holds.
    pub(super) fn account_of(&mut self, slot: u32) -> Option<BareJid> {
        let session = self.session(slot);
        session
            .bound()
            .map(|b| b.account.clone())
            .or_else(|| session.holds_for.as_ref().map(|h| h.account.clone()))
    }

    /// What the mux may forget is to be worked out again when this batch's acknowledgements are on disk.
    fn session_acks_changed(&mut self, slot: u32) {
        self.session(slot).ack_pending = true;
        self.touch(slot);
    }

    /// The mux has taken a message that went to several sessions.
    pub(super) fn taken(&mut self, key: ConnKey, position: u64) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        if self.session(slot).resumption.is_some() {
            // It is safe with its client only.
            return;
        }
        let Some(account) = self.account_of(slot) else {
            return;
        };
        let up_to = self.clearable_up_to(&account);
        let Some(user) = self.users.get_mut(&account) else {
            return;
        };
        let Some(assignment) = user.assigned.get_mut(&position) else {
            return;
        };
        for h in assignment.holders.iter_mut().filter(|h| h.slot == slot) {
            h.taken = true;
        }
        if assignment.may_clear() && position <= up_to {
            assignment.clearing = true;
            user.acks.push(position);
            self.mark_user(&account);
        }
    }

    /// After a restart: what one session has acknowledged may be owed to another that is still to be resumed, or to read. What all
    /// have read waits for nobody: a session waits for its mux to forget it before it reads on.
    pub(super) fn clearable_up_to(&self, account: &BareJid) -> u64 {
        let Some(user) = self.users.get(account) else {
            return u64::MAX;
        };
        if self.has_orphans(account) {
            return 0;
        }
        let read_by = |&s: &u32| {
            let bound = self.sessions.get(s as usize)?.bound()?;
            bound.catching_up.then_some(bound.cursor)
        };
        user.sessions
            .iter()
            .filter_map(read_by)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Less may stand in the way of clearing than before.
    pub(super) fn resume_clearing(&mut self, account: &BareJid) {
        let up_to = self.clearable_up_to(account);
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        for (&position, assignment) in user.assigned.range_mut(..=up_to) {
            if assignment.may_clear() {
                assignment.clearing = true;
                user.acks.push(position);
            }
        }
        self.mark_user(account);
    }

    /// Writes the acknowledgements of an account gathered in this batch.
    pub(super) fn flush_user_acks(&mut self, account: &BareJid) {
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        user.dirty = false;
        let positions = std::mem::take(&mut user.acks);
        let slots = user.slots();
        if !positions.is_empty() {
            let taken = positions.iter().filter_map(|p| {
                let assignment = user.assigned.get_mut(p)?;
                Some(std::mem::take(&mut assignment.bytes))
            });
            let bytes = taken.sum();
            user.take_pending(positions.len(), bytes);
            let write = self.write(Write::Store(store::Write::Ack {
                owner: account.clone(),
                positions: positions.clone(),
            }));
            self.after(write, After::Cleared(account.clone(), positions));
        }
        // Everything acknowledged up to here is on disk when the last write is.
        for slot in slots {
            self.await_acks(slot);
        }
    }

    /// What the session has acknowledged is on disk when the last write is; what cannot be cleared yet is on its record.
    pub(super) fn await_acks(&mut self, slot: u32) {
        let generation = self.generation(slot);
        let recorded = match self.sessions.get(slot as usize) {
            Some(session) if session.ack_pending => session
                .acks_unrecorded
                .then(|| self.record_acks(slot))
                .flatten(),
            _ => return,
        };
        let write = self.write_number;
        let on_disk = write <= self.durable;
        let session = self.session(slot);
        session.ack_pending = false;
        session.ack_written(write);
        if on_disk {
            session.ack_durable(write);
            self.settle(slot);
            self.room_in_mux(slot);
        } else {
            self.after(
                write,
                After::Acked {
                    slot,
                    generation,
                    write,
                    recorded,
                },
            );
        }
    }

    /// Writes down what the session has acknowledged. Returns the number of the write.
    fn record_acks(&mut self, slot: u32) -> Option<u64> {
        let session = self.session(slot);
        session.acks_unrecorded = false;
        if session.holds_for.is_some() {
            self.write_ended_record(slot)
        } else {
            session.bound()?;
            Some(self.write_record(slot))
        }
    }

    /// The marks are cleared on disk: the positions need not be remembered.
    pub(super) fn cleared_durable(&mut self, account: &BareJid, positions: &[u64], failed: bool) {
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        if failed {
            // The disk did not take it: the marks stay, the muxes forget nothing, and the tick writes it again.
            user.acks.extend_from_slice(positions);
            for slot in user.slots() {
                self.session(slot).acks_failed();
            }
            return;
        }
        for p in positions {
            if let Some(assignment) = user.assigned.get_mut(p) {
                assignment.cleared = true;
            }
        }
        for slot in user.slots() {
            let session = self.session(slot);
            positions.iter().for_each(|&p| session.cleared(p));
        }
        // With what has been acknowledged in this turn and is not written yet: a mux must not forget that.
        self.flush_user_acks(account);
        self.forget_cleared(account);
    }

    /// Forgets messages that are done with, unless a page is under way that was read before.
    pub(super) fn forget_cleared(&mut self, account: &BareJid) {
        let Some(user) = self.users.get(account) else {
            return;
        };
        let reading = user.sessions.iter().any(|&s| {
            self.sessions
                .get(s as usize)
                .and_then(|s| s.bound())
                .is_some_and(|b| b.flood == Flood::Reading)
        });
        if !reading && let Some(user) = self.users.get_mut(account) {
            user.assigned.retain(|_, a| !a.cleared);
        }
    }
}
