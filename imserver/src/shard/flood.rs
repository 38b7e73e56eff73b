//! The taking of what is pending by a session that has begun to take messages ("flood"), and its giving back.
//!
//! In: a session that takes messages, pages of the store. Out: messages in the order of their positions, then what is not stored.
//! Owns: how far each session has read what is pending.
//! Never: gives a session what another holds; sends more than the client's output window and its mux have room for.

use super::Shard;
use super::user::{Assignment, Holder};
use crate::event::*;
use crate::routing;
use crate::session::{Flood, OutKind};
use xmpp::jid::BareJid;

/// Rows read at once for a session that takes its pending messages.
const FLOOD_PAGE: usize = 100;

impl Shard {
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
        if closing || self.has_orphans(&account) || self.has_settling(&account) {
            return;
        }
        self.session(slot).bound_mut().expect("checked above").flood = Flood::Reading;
        let generation = self.generation(slot);
        if self.users.get(&account).is_some_and(|u| u.nothing_pending) {
            let nothing = store::PendingPage {
                complete: true,
                ..store::PendingPage::default()
            };
            return self.flood_page(slot, generation, Some(nothing));
        }
        let tag = ReadTag::Flood { slot, generation };
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

    /// A session of the account has lost its connection, and what had come over that is not settled: there may be acknowledgements.
    fn has_settling(&self, account: &BareJid) -> bool {
        let sessions = self.users.get(account).map(|u| u.sessions.as_slice());
        let mut sessions = sessions.unwrap_or_default().iter();
        sessions.any(|&slot| {
            let session = self.sessions.get(slot as usize);
            session.is_some_and(|s| s.is_lost() && !s.is_detached())
        })
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
        if self.is_of_blocked(account, &row) {
            // It stays, for when the block ends.
            let bound = self.session(slot).bound_mut().expect("it was bound");
            bound.cursor = bound.cursor.max(position);
            return true;
        }
        let with_absent = self.is_with_the_absent(slot, account, &row);
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
                Some(_) if with_absent => (true, true),
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

    /// Whoever holds it is not there, and may not come back for long: who logs in meanwhile is given it as well, as if those had ended.
    fn is_with_the_absent(&self, slot: u32, account: &BareJid, row: &store::StoredRow) -> bool {
        let user = self.users.get(account);
        let Some(a) = user.and_then(|u| u.assigned.get(&row.position)) else {
            return false;
        };
        let absent = |h: &Holder| {
            let session = self.sessions.get(h.slot as usize);
            session.is_some_and(|s| s.is_detached())
        };
        let only_absent = !a.holders.is_empty() && a.holders.iter().all(absent);
        let to = routing::recipient(&row.payload);
        let for_it = to.is_none_or(|to| match to.as_full() {
            Some(_) => self.session_of(&to) == Some(slot),
            None => true,
        });
        only_absent && !a.acked && !a.copy && !row.outgoing && for_it && !self.is_read(slot, row)
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

    /// Those that take none now have passed by messages that are theirs now: they read them when they take messages again.
    pub(super) fn reread_later(&mut self, account: &BareJid) {
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        for slot in slots.unwrap_or_default() {
            let bound = self.session(slot).bound_mut();
            if let Some(bound) = bound.filter(|b| !b.takes_messages()) {
                bound.cursor = 0;
                if bound.flood == Flood::Reading {
                    bound.reread = Some(1);
                }
            }
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
}
