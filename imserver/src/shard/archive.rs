//! Pages of an archive on their way to the session that has asked (XEP-0313). What a page is, `crate::archive` decides.
//!
//! In: questions, pages from a reader. Out: results in order, then the answer.
//! Owns: what reading the archive means for pending messages (DESIGN §4).
//! Never: sends more than the client's output window has room for; clears a mark before the client has acknowledged that it has
//! the message, or an answer from which it knows that there is more.
//!
//! A pending message in a page is held by the session like one that was delivered. A client that has read to the end of its archive
//! gets no flood of what is older: those marks are cleared when it has acknowledged the answer, and not before.

use super::user::Holder;
use super::{After, Shard, WaitingIq};
use crate::archive::{self, Answer, Ask, Page};
use crate::event::*;
use crate::iq::Wait;
use crate::routing;
use crate::session::OutKind;
use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use store::StoredRow;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;

/// Bytes of the output window that a page leaves free: for the answer that ends it.
const ANSWER_BYTES: usize = 4_096;

/// Pages that are being read: one at a time for a session, so that nobody's questions keep others from theirs.
#[derive(Default)]
pub(super) struct Reads {
    /// The slot each question under way came from.
    slots: HashMap<u64, u32>,
    /// Slots with one under way.
    busy: HashSet<u32>,
}

impl Shard {
    /// A question is asked when what its client, and others, had said before is on disk: it is in the answer.
    pub(super) fn ask_archive(&mut self, n: u64) {
        if self.write_number > self.durable {
            self.after(self.write_number, After::Archive(n));
        } else {
            self.read_archive(n);
        }
    }

    /// Reads a page for a question that waits, if its client has taken most of what it was sent, and no other is being read for
    /// it; else when that is so.
    pub(super) fn read_archive(&mut self, n: u64) {
        let Some(waiting) = self.waiting_iqs.get(&n) else {
            return;
        };
        let (Wait::Archive(ask), Some(token)) = (&waiting.wait, waiting.stanza.token) else {
            return;
        };
        let mut ask = ask.clone();
        let window = self.settings.output_window_bytes;
        let Some(outstanding) = self.outstanding_of(token) else {
            return self.never_mind(n);
        };
        if outstanding > window / 2 || self.archive_reads.busy.contains(&token.slot) {
            return self.wait_for_turn(token.slot, n);
        }
        // Half, because short messages grow by as much again when they are wrapped.
        ask.bytes_max = ((window - outstanding) / 2).max(1);
        ask.decode(&self.ids);
        self.archive_reads.busy.insert(token.slot);
        self.archive_reads.slots.insert(n, token.slot);
        self.fx.reads.push((ReadTag::Iq(n), Read::Archive(ask)));
    }

    /// Bytes that a session has not taken yet, if it is still there.
    fn outstanding_of(&self, token: Token) -> Option<usize> {
        let session = self.sessions.get(token.slot as usize);
        let session = session.filter(|_| self.live(token.slot, token.generation))?;
        session.bound().map(|_| session.outstanding_bytes())
    }

    fn wait_for_turn(&mut self, slot: u32, n: u64) {
        if let Some(bound) = self.session(slot).bound_mut() {
            bound.archive_asks.push(n);
        }
    }

    /// Who has asked is gone, or going.
    fn never_mind(&mut self, n: u64) {
        if let Some(waiting) = self.waiting_iqs.remove(&n) {
            self.done(waiting.stanza.token);
        }
    }

    /// A reader has answered this question, if it was one: the next of its session is read.
    pub(super) fn archive_read_done(&mut self, n: u64) {
        let Some(slot) = self.archive_reads.slots.remove(&n) else {
            return;
        };
        self.archive_reads.busy.remove(&slot);
        if self.sessions.contains(slot as usize) {
            self.continue_archive(slot);
        }
    }

    /// The client has taken something, or an answer: questions that waited for that go on.
    pub(super) fn continue_archive(&mut self, slot: u32) {
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        for n in std::mem::take(&mut bound.archive_asks) {
            self.read_archive(n);
        }
    }

    /// A reader has answered.
    pub(super) fn archive_answer(&mut self, n: u64, answer: Answer) {
        let Some(waiting) = self.waiting_iqs.remove(&n) else {
            // Answered in the meantime, with an error.
            return;
        };
        let text = match answer {
            Answer::Page(page) => return self.send_page(n, waiting, page),
            Answer::Ends(ends) => {
                let node = archive::metadata(&self.ids, ends.as_deref());
                return self.archive_reply(waiting, &node);
            }
            Answer::NotFound => (
                StanzaError::ItemNotFound,
                "There is no message with this id",
            ),
            Answer::TooMuch => (
                StanzaError::ResourceConstraint,
                "Too many messages would have to be looked at; ask for a shorter time",
            ),
        };
        self.bounce(waiting.stanza, text.0, Some(text.1));
    }

    fn archive_reply(&mut self, waiting: WaitingIq, payload: &Node) {
        let to = waiting.element.attr("to").is_some();
        let to = to.then(|| waiting.stanza.to.as_str());
        let from = waiting.stanza.from.as_str();
        let bytes = xmpp::stanza::iq_result_with(&waiting.element, to, Some(from), Some(payload));
        self.reply(waiting.stanza, bytes);
    }

    fn send_page(&mut self, n: u64, waiting: WaitingIq, page: Page) {
        let (Wait::Archive(ask), Some(token), Jid::Full(to)) =
            (&waiting.wait, waiting.stanza.token, &waiting.stanza.from)
        else {
            return self.done(waiting.stanza.token);
        };
        let Some(outstanding) = self.outstanding_of(token) else {
            return self.done(waiting.stanza.token);
        };
        let window = self.settings.output_window_bytes;
        let ids = &self.ids;
        let mut results: Vec<(StoredRow, Bytes)> = (page.rows.into_iter())
            .filter_map(|row| Some((archive::result(ids, ask, to, &row)?, row)))
            .map(|(bytes, row)| (row, bytes))
            .collect();
        let room = window.saturating_sub(outstanding + ANSWER_BYTES);
        let fit = fitting(&results, ask, room, outstanding == 0);
        if fit == 0 && !results.is_empty() {
            // It was sent something else meanwhile.
            self.wait_for_turn(token.slot, n);
            self.waiting_iqs.insert(n, waiting);
            return;
        }
        let cut = fit < results.len();
        match ask.last {
            true => drop(results.drain(..results.len() - fit)),
            false => results.truncate(fit),
        }
        let complete = page.complete && !cut;
        let ends = results.first().zip(results.last());
        let ends = ends.map(|(first, last)| (first.0.position, last.0.position));
        if ask.flip {
            results.reverse();
        }
        let account = ask.owner.clone();
        let read_up_to = page.read_up_to.filter(|_| !cut || ask.last);
        for (row, bytes) in results {
            self.send_result(token.slot, &account, &row, bytes);
        }
        if let Some(up_to) = read_up_to {
            self.session(token.slot).has_read_archive(up_to);
            self.touch(token.slot);
        }
        let fin = archive::fin(&self.ids, ends, complete);
        self.archive_reply(waiting, &fin);
    }

    /// One row. If it is pending and nobody's, it is this session's now.
    fn send_result(&mut self, slot: u32, account: &BareJid, row: &StoredRow, bytes: Bytes) {
        let mut kind = OutKind::STANZA;
        if row.pending && self.may_take(slot, account, row) {
            let several = self
                .users
                .get(account)
                .is_some_and(|u| u.sessions.len() > 1);
            let resumable = self.session(slot).resumption.is_some();
            let holder = Holder {
                slot,
                sent: true,
                taken: !several && !resumable,
            };
            self.hold(account, row.position, row.payload.len(), false, holder);
            kind = OutKind {
                track: several && !resumable,
                ..OutKind::stored(row.position)
            };
        }
        self.send(slot, bytes, kind);
    }

    /// Whether a pending row may become one that this session holds: nobody else does, nobody else is to have it, and what is known
    /// of it is known for sure.
    fn may_take(&mut self, slot: u32, account: &BareJid, row: &StoredRow) -> bool {
        let unacknowledged_max = self.settings.unacknowledged_max;
        let restoring = self.has_orphans(account);
        let Some(user) = self.users.get(account) else {
            return false;
        };
        let on_its_way = user.storing > 0 && row.position > user.last_position;
        let catching_up = user.sessions.iter().any(|&s| {
            let session = self.sessions.get(s as usize);
            session
                .and_then(|s| s.bound())
                .is_some_and(|b| b.catching_up)
        });
        let nobodys = !user.assigned.contains_key(&row.position);
        let for_other = routing::recipient(&row.payload)
            .and_then(|to| self.session_of(&to))
            .is_some_and(|s| s != slot);
        nobodys
            && !row.outgoing
            && !on_its_way
            && !restoring
            && !catching_up
            && !for_other
            && self.session(slot).may_hold_more(unacknowledged_max)
    }

    /// The client knows this archived row, or where to find it.
    pub(super) fn is_read(&self, slot: u32, row: &StoredRow) -> bool {
        let session = self.sessions.get(slot as usize);
        let read = session.and_then(|s| s.archive_read());
        row.archive && read.is_some_and(|(up_to, known)| known && row.position <= up_to)
    }
}

/// How many of the results may be sent: from the first, or from the last. One always, to a client that has taken everything.
fn fitting(results: &[(StoredRow, Bytes)], ask: &Ask, room: usize, empty: bool) -> usize {
    let mut sizes: Vec<usize> = results.iter().map(|(_, bytes)| bytes.len()).collect();
    if ask.last {
        sizes.reverse();
    }
    let mut sum = 0;
    let fit = sizes.iter().take_while(|&&len| {
        sum += len;
        sum <= room
    });
    fit.count().max(usize::from(empty && !sizes.is_empty()))
}
