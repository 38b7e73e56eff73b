//! Resumption of a stream by its client (XEP-0198 §5): what a session keeps so that it can go on over another connection.
//!
//! In: what is sent to the client, what it has acknowledged, the loss of its connection. Out: what must be sent once more.
//! Owns: bytes of stanzas that are not stored and not acknowledged (of those that are stored the position is enough).
//! Never: lets a stanza be missed silently: what is not kept any more makes the session one that cannot be resumed from there.

use super::record::RecordedResumption;
use super::{ArchiveRead, OutKind, Session, Stage, StreamManagement, Unacked};
use crate::event::Now;
use bytes::{BufMut, Bytes, BytesMut};
use proto::frame::{CloseReason, NoteKey};
use std::collections::VecDeque;
use xmpp::error::StreamError;
use xmpp::jid::Jid;
use xmpp::stream::{Limits, StreamParser};

/// Bytes kept of stanzas that are not stored and not acknowledged. A client that asks for a large roster and dies before it says
/// that it has it logs in anew.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// What one costs beside its bytes, about.
const KEPT_OVERHEAD_BYTES: usize = 128;
/// With so many bytes kept the client is asked what it has. Less waits for the next message, or for a silence.
const ASK_AT_BYTES: usize = 8 * 1024;

/// A stanza that is not stored, as it went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As it is.
    Whole(Bytes),
    /// One of many: what stands before the `to`, it, and what stands behind. The first and the last are shared.
    Of(Bytes, Bytes, Bytes),
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Of(prefix, insert, suffix) => prefix.len() + insert.len() + suffix.len(),
        }
    }

    /// In one piece.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Of(prefix, insert, suffix) => {
                let mut out = BytesMut::with_capacity(prefix.len() + insert.len() + suffix.len());
                out.put_slice(&prefix);
                out.put_slice(&insert);
                out.put_slice(&suffix);
                out.freeze()
            }
        }
    }
}

/// A stanza that the client has not acknowledged, with its number (as `Session::stanzas_out` counts).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Its number on the connection it was sent on.
    pub stanza: u64,
    /// What it is.
    pub what: Content,
}

/// What must be sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The message at this position.
    Stored(u64),
    /// A stanza that is not stored.
    Bytes(Bytes),
}

/// A connection that wants to go on with this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumer {
    /// Its slot.
    pub slot: u32,
    /// And generation.
    pub generation: u32,
    /// Number of its `<resume/>`.
    pub element: u64,
    /// Stanzas of ours that the client has, modulo 2^32.
    pub h: u32,
    /// Since when it waits (mono ms).
    pub since_ms: u64,
}

/// How far the loss of a connection has been dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Away {
    /// What the client had sent is still to be settled. Then its connection is closed with this error.
    Settling(Option<StreamError>, CloseReason),
    /// The record that says so is under way.
    Recording(Option<StreamError>, CloseReason),
    /// It has no connection.
    Detached {
        /// Its client is given up then (mono ms).
        due_ms: u64,
        /// Since when (unix ms).
        since_unix_ms: u64,
    },
}

/// What a session that can be resumed has beside the others.
#[derive(Debug)]
pub struct Resumption {
    /// Its SM-ID, of which only the client knows.
    pub key: [u8; 16],
    /// How long it waits for its client, ms.
    pub max_ms: u64,
    kept: VecDeque<(u64, Kept)>,
    kept_bytes: usize,
    /// Stanzas up to this one are not kept, or not known: from before it the session cannot be resumed.
    lost_up_to: u64,
    /// Its connection is lost.
    pub away: Option<Away>,
    /// Stanzas that went out before that: those with greater numbers were only kept.
    on_wire: Option<u64>,
    /// Somebody wants to go on with it.
    pub resumer: Option<Resumer>,
    /// It is being given to the resumer, with this key: the record that says so is under way.
    pub handing_over: Option<NoteKey>,
    /// What must be sent once more on the present connection, oldest first; everything else waits behind it.
    pub unsent: VecDeque<Unsent>,
    /// Rows of `unsent` are being read.
    pub reading: bool,
    /// Restored: output stanzas when the mux has taken what was to be sent once more, and the presence behind it.
    all_taken_at: u64,
    /// That presence.
    presence: Vec<(Jid, Bytes)>,
    /// Without a connection: something has come for it that its record does not have.
    pub unrecorded: bool,
    /// The record says so: after a kill now it could not be resumed.
    pub recorded_stale: bool,
}

impl Resumption {
    /// From here on stanzas are kept.
    pub fn new(key: [u8; 16], max_ms: u64, stanzas_out: u64) -> Self {
        Self {
            key,
            max_ms,
            kept: VecDeque::new(),
            kept_bytes: 0,
            lost_up_to: stanzas_out,
            away: None,
            on_wire: None,
            resumer: None,
            handing_over: None,
            unsent: VecDeque::new(),
            reading: false,
            all_taken_at: 0,
            presence: Vec::new(),
            unrecorded: false,
            recorded_stale: false,
        }
    }

    /// Stanzas that had gone out when it lost its connection.
    pub(super) fn on_wire(&self) -> Option<u64> {
        self.on_wire
    }

    /// It waits for its client, without a connection.
    pub fn detached(&self) -> bool {
        matches!(self.away, Some(Away::Detached { .. }))
    }
}

impl Session {
    /// Its client can resume it.
    pub fn is_resumable(&self) -> bool {
        self.resumption.is_some()
            && self.bound().is_some_and(|b| b.ready)
            && self.ended_before.is_none()
            && !self.enabling()
    }

    /// Nothing more is taken from its connection: that is given up, or another one is to have the session.
    pub fn is_frozen(&self) -> bool {
        let frozen = |r: &Resumption| r.away.is_some() || r.resumer.is_some();
        self.resumption.as_deref().is_some_and(frozen)
    }

    /// What is sent to it does not go out, but is kept: it has lost its connection, or is losing it to another one.
    pub fn is_away(&self) -> bool {
        self.resumption
            .as_ref()
            .is_some_and(|r| r.on_wire.is_some())
    }

    /// Its connection is lost and that is still to be dealt with, or another one wants to go on with it.
    pub fn is_changing_connection(&self) -> bool {
        self.resumption.as_ref().is_some_and(|r| {
            r.resumer.is_some() && r.handing_over.is_none()
                || matches!(r.away, Some(Away::Settling(..)))
        })
    }

    /// Its connection is lost: nobody can give it back.
    pub fn is_lost(&self) -> bool {
        self.resumption.as_ref().is_some_and(|r| r.away.is_some())
    }

    /// It has no connection and waits for its client.
    pub fn is_detached(&self) -> bool {
        self.resumption.as_ref().is_some_and(|r| r.detached())
    }

    /// It is being sent what it had not acknowledged on the connection before.
    pub fn is_catching_up_stream(&self) -> bool {
        self.resumption
            .as_ref()
            .is_some_and(|r| !r.unsent.is_empty() || r.reading)
    }

    /// Keeps a stanza that is not stored until it is acknowledged.
    pub fn keep(&mut self, what: impl FnOnce() -> Kept) {
        let number = self.stanzas_out;
        let Some(r) = &mut self.resumption else {
            return;
        };
        let what = what();
        r.kept_bytes += what.len() + KEPT_OVERHEAD_BYTES;
        r.kept.push_back((number, what));
        while r.kept_bytes > KEPT_BYTES_MAX
            && let Some((number, what)) = r.kept.pop_front()
        {
            r.kept_bytes -= what.len() + KEPT_OVERHEAD_BYTES;
            r.lost_up_to = number;
        }
    }

    /// There is room to keep a stanza of this size for a client that is away.
    pub fn has_room_to_keep(&self, len: usize) -> bool {
        self.resumption
            .as_ref()
            .is_some_and(|r| r.kept_bytes + len + KEPT_OVERHEAD_BYTES <= KEPT_BYTES_MAX)
    }

    /// The client has acknowledged up to this stanza.
    pub(super) fn forget_kept(&mut self, acked: u64) {
        let Some(r) = &mut self.resumption else {
            return;
        };
        while let Some((number, what)) = r.kept.front()
            && *number <= acked
        {
            r.kept_bytes -= what.len() + KEPT_OVERHEAD_BYTES;
            r.kept.pop_front();
        }
        if r.kept.is_empty() && r.kept.capacity() > 8 {
            r.kept = VecDeque::new();
        }
    }

    /// So much is kept that the client should be asked what it has; `silent`: anything is.
    pub fn keeps_much(&self, silent: bool) -> bool {
        let acked = self.sm.map_or(0, |sm| sm.acked);
        self.resumption.as_ref().is_some_and(|r| {
            r.kept_bytes > ASK_AT_BYTES || silent && (!r.kept.is_empty() || r.lost_up_to > acked)
        })
    }

    /// The session loses its connection, or is being taken from it: what waited to be sent is kept as if it had been, and so is what
    /// comes from now on.
    pub fn begin_keeping(&mut self) {
        let stanzas_out = self.stanzas_out;
        let Some(r) = &mut self.resumption else {
            return;
        };
        if r.on_wire.is_some() {
            return;
        }
        r.on_wire = Some(stanzas_out);
        r.reading = false;
        for unsent in std::mem::take(&mut r.unsent) {
            match unsent.what {
                Content::Stored(position) => self.log(Bytes::new(), OutKind::stored(position)),
                Content::Bytes(bytes) => self.log(bytes, OutKind::STANZA),
            }
        }
        self.held_back_bytes = 0;
        for (bytes, kind) in self.held_back.take().unwrap_or_default() {
            self.log(bytes, kind);
        }
        // XEP-0352 §5.2: whoever comes back is active.
        if let Some(mut inactive) = self.inactive.take() {
            for (bytes, kind) in inactive.take() {
                self.log(bytes, kind);
            }
        }
    }

    /// It ends: what was only kept counts as never sent, or its mux would be told of more than it was given.
    pub fn stop_keeping(&mut self) -> Option<Box<Resumption>> {
        let r = self.resumption.take()?;
        if let Some(on_wire) = r.on_wire {
            self.stanzas_out = on_wire;
            self.unacked.retain(|u| u.stanza <= on_wire);
        }
        Some(r)
    }

    /// It stays with the connection it has after all.
    pub fn end_keeping(&mut self) {
        let Some(on_wire) = self.resumption.as_mut().and_then(|r| r.on_wire.take()) else {
            return;
        };
        let waiting = self.sent_unacknowledged();
        let waiting = waiting.into_iter().filter(|u| u.stanza > on_wire).collect();
        self.unacked.retain(|u| u.stanza <= on_wire);
        self.stanzas_out = on_wire;
        let Some(r) = &mut self.resumption else {
            return;
        };
        while r.kept.back().is_some_and(|(number, _)| *number > on_wire)
            && let Some((_, what)) = r.kept.pop_back()
        {
            r.kept_bytes -= what.len() + KEPT_OVERHEAD_BYTES;
        }
        r.unsent = waiting;
        self.hold_back();
    }

    /// Counts a stanza as sent that goes out when there is a connection again.
    pub(super) fn log(&mut self, bytes: Bytes, kind: OutKind) {
        if !kind.stanza {
            return;
        }
        self.stanzas_out += 1;
        match kind.stored {
            Some(position) => self.unacked.push_back(Unacked {
                element: self.elements_out,
                stanza: self.stanzas_out,
                position,
            }),
            None => {
                self.keep(|| Kept::Whole(bytes));
                self.mark_unrecorded();
            }
        }
    }

    /// Something has come for a client that is away. Messages that are stored need no record.
    pub fn mark_unrecorded(&mut self) {
        if let Some(r) = self.resumption.as_mut().filter(|r| r.detached()) {
            r.unrecorded = true;
        }
    }

    /// Its record is to say that it is not whole any more.
    pub fn goes_stale(&mut self) -> bool {
        let r = self.resumption.as_mut();
        let r = r.filter(|r| r.unrecorded && r.handing_over.is_none());
        r.is_some_and(|r| !std::mem::replace(&mut r.recorded_stale, true))
    }

    /// Its record is to be made whole.
    pub fn is_to_be_recorded(&mut self) -> bool {
        let Some(r) = &mut self.resumption else {
            return false;
        };
        r.recorded_stale = false;
        std::mem::take(&mut r.unrecorded)
    }

    /// Stanzas that have gone out on the connection.
    pub(super) fn stanzas_on_wire(&self) -> u64 {
        let on_wire = self.resumption.as_ref().and_then(|r| r.on_wire);
        on_wire.unwrap_or(self.stanzas_out)
    }

    /// Stanzas up to this one cannot be sent once more.
    pub fn lost_up_to(&self) -> u64 {
        self.resumption.as_ref().map_or(0, |r| r.lost_up_to)
    }

    /// Everything sent that the client has not acknowledged, in the order sent.
    pub fn sent_unacknowledged(&self) -> VecDeque<Unsent> {
        let stored = self.unacked.iter().map(|u| Unsent {
            stanza: u.stanza,
            what: Content::Stored(u.position),
        });
        let kept = self.resumption.iter().flat_map(|r| &r.kept);
        let kept = kept.map(|(stanza, what)| Unsent {
            stanza: *stanza,
            what: Content::Bytes(what.clone().into_bytes()),
        });
        let mut all: Vec<Unsent> = stored.chain(kept).collect();
        all.sort_by_key(|u| u.stanza);
        all.into()
    }

    /// Everything that has been settled, so far as this session is concerned: nothing of it is under way to the disk.
    pub fn is_quiet(&self) -> bool {
        self.all_settled()
            && !self.paused
            && self.record_awaited.is_empty()
            && !self.acks_under_way()
    }

    /// Stream management as it goes on over the connection of `other`: the next element there is `<resumed/>`.
    pub fn carried_over(&self, other: &Session) -> Option<StreamManagement> {
        let sm = self.sm?;
        let acked = sm.acked.wrapping_sub(sm.out_base);
        Some(StreamManagement {
            in_base: other.settled_stanzas.wrapping_sub(self.handled_total()),
            out_base: other.stanzas_out.wrapping_sub(acked),
            began_out: other.stanzas_out,
            enabled_element: other.elements_out + 1,
            continued: true,
            acked: other.stanzas_out,
            ..StreamManagement::default()
        })
    }

    /// Lets go of the connection, which goes on as one that is closed with this error. Nothing of it is unsettled. `None`: there
    /// is none.
    pub fn give_connection(
        &mut self,
        error: Option<StreamError>,
        reason: CloseReason,
        now: Now,
    ) -> Option<Session> {
        let key = self.key.take()?;
        let mut parser = StreamParser::new(Limits::AFTER_LOGIN);
        parser.resume_after_header(self.parser.namespaces().clone());
        let parser = std::mem::replace(&mut self.parser, parser);
        let closing = Stage::Closing {
            last: self.farewell(Bytes::new(), error.map(|e| e.to_bytes(None))),
            reason,
            sent: false,
        };
        let mut lost = Session::build(Some(key), self.open.clone(), parser, closing, now);
        lost.mux = self.mux.clone();
        lost.mux_closed = std::mem::take(&mut self.mux_closed);
        lost.settled_bytes = self.settled_bytes;
        lost.settled_stanzas = self.settled_stanzas;
        lost.freeze_settled();
        lost.marks = self.marks;
        lost.forget_stanzas = self.forget_stanzas;
        lost.elements_out = self.elements_out;
        lost.stanzas_out = self.stanzas_on_wire();
        lost.drained = self.drained;
        self.close_reason = None;
        self.asked_ms = None;
        self.outstanding = VecDeque::new();
        self.outstanding_bytes = 0;
        self.in_mux = VecDeque::new();
        Some(lost)
    }

    /// Goes on with the connection of `other`, as [`Session::carried_over`] says, and without one of its own. What it must send once
    /// more is now in the resumption's `unsent`; what else it sends is held back. Returns the new number of `other`'s last element.
    pub fn take_connection(&mut self, other: Session) -> u64 {
        let sm = self.carried_over(&other);
        let unsent = numbered(self.sent_unacknowledged(), other.stanzas_out + 1);
        self.origin_base += self.stanzas_in;
        // What it was sent of its archive and has not acknowledged it is sent once more, but what it knows by it is not sure any more.
        self.archive_read = match self.archive_read() {
            Some((up_to, true)) => Some(ArchiveRead {
                up_to,
                element: 0,
                stanza: 0,
            }),
            _ => None,
        };
        self.unacked.clear();
        // What its mux might forget when marks of other sessions are cleared: it has none of it now.
        self.acks_in_flight.clear();
        // Of the connection before: no mux has to be told of them any more.
        for u in &mut self.uncleared {
            *u = Unacked::of_before(u.position);
        }
        for mut element in other.unsettled {
            element.number = self.next_element;
            self.next_element += 1;
            self.unsettled.push_back(element);
        }
        self.sm = sm;
        if let Some(r) = &mut self.resumption {
            **r = Resumption {
                unsent,
                ..Resumption::new(r.key, r.max_ms, other.stanzas_out)
            };
        }
        self.key = other.key;
        self.open = other.open;
        self.parser = other.parser;
        self.bytes_before_login = other.bytes_before_login;
        self.active_ms = other.active_ms;
        self.opened_ms = other.opened_ms;
        self.asked_ms = None;
        self.mux = other.mux;
        self.mux_closed = other.mux_closed;
        self.resumed = false;
        self.input_base = other.input_base;
        self.stanzas_in = other.stanzas_in;
        self.settled_bytes = other.settled_bytes;
        self.settled_stanzas = other.settled_stanzas;
        self.settled_frozen = false;
        self.marks = other.marks;
        self.elements_out = other.elements_out;
        self.stanzas_out = other.stanzas_out;
        self.drained = other.drained;
        self.outstanding = other.outstanding;
        self.outstanding_bytes = other.outstanding_bytes;
        self.stuck_since_ms = other.stuck_since_ms;
        self.forget_stanzas = other.forget_stanzas;
        self.in_mux = other.in_mux;
        self.hold_back();
        self.last_element()
    }

    /// Puts back what a record says of a session that was detached.
    fn restore_detached(
        &mut self,
        r: Resumption,
        counts: Detached,
        unacknowledged: VecDeque<Unsent>,
    ) {
        self.settled_stanzas = counts.settled_stanzas;
        self.stanzas_in = counts.settled_stanzas;
        self.stanzas_out = counts.stanzas_out;
        if let Some(sm) = &mut self.sm {
            sm.acked = counts.acked;
        }
        self.resumption = Some(Box::new(Resumption {
            lost_up_to: if r.recorded_stale {
                u64::MAX
            } else {
                counts.lost_up_to
            },
            on_wire: Some(counts.on_wire),
            ..r
        }));
        self.held_back = None;
        for unsent in unacknowledged {
            self.stanzas_out = unsent.stanza - 1;
            match unsent.what {
                Content::Stored(position) => self.log(Bytes::new(), OutKind::stored(position)),
                Content::Bytes(bytes) => self.log(bytes, OutKind::STANZA),
            }
        }
        self.stanzas_out = counts.stanzas_out;
    }

    /// What its record says of that.
    pub fn recorded_resumption(&self, unix_ms: u64) -> Option<RecordedResumption> {
        let r = self.resumption.as_ref()?;
        let since_unix_ms = match r.away {
            Some(Away::Detached { since_unix_ms, .. }) => Some(since_unix_ms),
            Some(Away::Recording(..)) => Some(unix_ms),
            _ => None,
        };
        let stale = r.recorded_stale;
        // With a connection: what is held back there comes right behind what is sent once more.
        let holds = !stale && (since_unix_ms.is_some() || !r.unsent.is_empty());
        Some(RecordedResumption {
            key: r.key,
            max_ms: r.max_ms,
            detached: since_unix_ms.map(|since| (since, self.detached_counts())),
            stale,
            sent: self.stanzas_out,
            unsent: match since_unix_ms {
                Some(_) if stale => VecDeque::new(),
                Some(_) => self.sent_unacknowledged(),
                None => r.unsent.clone(),
            },
            presence: match holds {
                true => self.held_presence(),
                false => Vec::new(),
            },
        })
    }

    /// Presence held back.
    pub fn held_presence(&self) -> Vec<(Jid, Bytes)> {
        self.bound()
            .map_or_else(Vec::new, |b| b.held_presence.clone())
    }

    /// Puts back what a record says of its resumption. Returns positions that it holds, and its mux, if it has one, does not.
    pub fn restore_resumption(
        &mut self,
        recorded: Option<RecordedResumption>,
        now: Now,
    ) -> Vec<u64> {
        let Some(recorded) = recorded else {
            return Vec::new();
        };
        let stored = recorded.unsent.iter().filter_map(|u| match u.what {
            Content::Stored(position) => Some(position),
            Content::Bytes(_) => None,
        });
        let held = stored.collect();
        let mut r = recorded.resumption(now);
        let waiting = recorded.unsent.len() + recorded.presence.len();
        r.all_taken_at = recorded.sent + waiting as u64;
        match recorded.detached {
            Some((_, counts)) => {
                if let Some(bound) = self.bound_mut() {
                    bound.held_presence = recorded.presence;
                }
                self.restore_detached(r, counts, recorded.unsent);
            }
            None => {
                r.unsent = recorded.unsent;
                r.presence = recorded.presence;
                self.resumption = Some(Box::new(r));
            }
        }
        held
    }

    /// How the counts of a detached session stand.
    pub fn detached_counts(&self) -> Detached {
        Detached {
            settled_stanzas: self.settled_stanzas,
            stanzas_out: self.stanzas_out,
            on_wire: self.stanzas_on_wire(),
            acked: self.sm.map_or(0, |sm| sm.acked),
            lost_up_to: self.lost_up_to(),
        }
    }

    /// After a Resume of the mux: which stanzas of before are still known. What was not stored is lost with the server that was killed;
    /// whoever resumes the session must have acknowledged it.
    pub(super) fn count_lost(&mut self) {
        let mut known = self.stanzas_out;
        for u in self.unacked.iter().rev() {
            if u.stanza != known {
                break;
            }
            known -= 1;
        }
        if let Some(r) = &mut self.resumption {
            r.lost_up_to = known;
        }
    }

    /// After a Resume of the mux: what it has not taken of the stanzas that the session was to be sent once more.
    pub(super) fn forget_taken_unsent(&mut self) {
        let taken = self.stanzas_out;
        let Some(r) = &mut self.resumption else {
            return;
        };
        r.unsent.retain(|u| u.stanza > taken);
        let presence = std::mem::take(&mut r.presence);
        if taken < r.all_taken_at {
            // Before what has been said since the start.
            let before = presence.into_iter().map(|(_, b)| (b, OutKind::STANZA));
            let held = self.held_back.get_or_insert_default();
            held.splice(0..0, before);
            self.held_back_bytes = held.iter().map(|(b, _)| b.len()).sum();
        }
    }
}

/// Counts of a detached session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detached {
    /// Stanzas of the client that are settled.
    pub settled_stanzas: u64,
    /// Stanzas sent to it, or kept as if they had been.
    pub stanzas_out: u64,
    /// Those that had been.
    pub on_wire: u64,
    /// Of those, what it has acknowledged.
    pub acked: u64,
    /// And what cannot be sent once more.
    pub lost_up_to: u64,
}

/// The same with new numbers, from `first` on.
pub fn numbered(unsent: VecDeque<Unsent>, first: u64) -> VecDeque<Unsent> {
    let numbers = first..;
    unsent
        .into_iter()
        .zip(numbers)
        .map(|(u, stanza)| Unsent { stanza, ..u })
        .collect()
}
