//! One client connection as the core sees it: what came in and is not settled, what went out and is not acknowledged.
//!
//! In: bytes, acknowledgements. Out: elements for the shard to act on, frames for the link.
//! Owns: the stream parser, the counters of DESIGN §3 (Marks, Drained), the list of stored stanzas sent and not
//! acknowledged (idea 5), the stream management counts of XEP-0198.
//! Never: decides where a stanza goes; touches the state of an account.

pub mod asked;
mod bound;
pub mod csi;
mod output;
pub mod record;
pub mod resumption;

pub use bound::{Available, Behind, Bound, Flood};

use crate::event::{ConnKey, LinkCommand, Now, SessionId};
use crate::settings::Settings;
use bytes::Bytes;
use proto::frame::{Close, CloseReason, Frame, Marks, Open, Output, StoredId};
use proto::limits::HELD_STORED_MAX;
use std::collections::VecDeque;
use xmpp::jid::BareJid;
use xmpp::negotiation::Negotiation;
use xmpp::stream::StreamParser;

/// How long a client that has acknowledged less than it was sent is left alone, ms.
const ASK_AGAIN_MS: u64 = 5_000;

/// An input element taken from the stream and not yet settled.
#[derive(Debug)]
struct InElement {
    /// Its number (the first element of a session is 1).
    number: u64,
    /// Input bytes of the connection up to its end.
    end: u64,
    /// It counts for XEP-0198.
    stanza: bool,
    /// How many things must be durable and answered before it is settled.
    waiting: u32,
    /// When it was taken.
    since_ms: u64,
    /// It is an `<r/>`: answered when all before it is settled.
    ack_request: bool,
}

/// A stored stanza sent to the client and not acknowledged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unacked {
    /// Output element number.
    pub element: u64,
    /// Output stanza number.
    pub stanza: u64,
    /// Position in the store.
    pub position: u64,
}

impl Unacked {
    /// Sent on a connection that is no more.
    pub fn of_before(position: u64) -> Self {
        Self {
            element: u64::MAX,
            stanza: u64::MAX,
            position,
        }
    }
}

/// Stream management (XEP-0198) of one session.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamManagement {
    /// Settled input stanzas when it was enabled: `h` counts from here. On a connection that goes on with a stream of before: less
    /// than zero by what had come there; so both bases wrap.
    pub in_base: u64,
    /// Output stanzas when it was enabled. It wraps too.
    pub out_base: u64,
    /// Output stanzas of this connection when it came into force on it.
    pub began_out: u64,
    /// Number of the output element that is `<enabled/>` or `<resumed/>`.
    pub enabled_element: u64,
    /// That element is `<resumed/>`.
    pub continued: bool,
    /// Output stanzas the client has acknowledged, counted like `stanzas_out`.
    pub acked: u64,
    /// When we asked with `<r/>` and have had no answer.
    pub requested_ms: Option<u64>,
    /// Output stanzas when we last asked, and when that was: the same is not asked again at once.
    pub asked_stanzas: u64,
    /// See `asked_stanzas`.
    pub asked_ms: u64,
}

/// Where a session is in its life.
#[derive(Debug)]
pub enum Stage {
    /// Stream, TLS, SASL, bind.
    Negotiating(Box<Negotiation>),
    /// Logged in.
    Bound(Box<Bound>),
    /// The end: Close is sent when all input is settled.
    Closing {
        /// What the client gets with it: the error, and the end of the stream. Over WebSocket each part is a message, so that
        /// only the last of them goes out with Close.
        last: Vec<Bytes>,
        /// Why.
        reason: CloseReason,
        /// Close has been sent.
        sent: bool,
    },
}

impl Stage {
    /// Nothing any more.
    pub fn closed() -> Self {
        Self::Closing {
            last: Vec::new(),
            reason: CloseReason::Normal,
            sent: true,
        }
    }
}

/// An ended session that may still hold messages: whose, and which connection of which mux it was.
#[derive(Debug)]
pub struct Holding {
    /// The account.
    pub account: BareJid,
    /// The mux.
    pub mux: std::sync::Arc<str>,
    /// The mux's id of the connection.
    pub conn: u64,
    /// Its record in the session store, which says what it has acknowledged.
    pub record: record::Record,
    /// The mux has told everything: it holds nothing any more, but something it has acknowledged is not on disk yet.
    pub released: bool,
}

/// A session on its way to another shard: the whole of it.
#[derive(Debug)]
pub struct Travel {
    /// The session.
    pub session: Session,
}

/// What a client has read of its archive.
#[derive(Debug, Clone, Copy)]
struct ArchiveRead {
    up_to: u64,
    element: u64,
    stanza: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// Its connection; `None`: an orphan, whose mux is lost or has not come back yet.
    pub key: Option<ConnKey>,
    /// Facts of the connection.
    pub open: Box<Open>,
    /// The parser.
    pub parser: StreamParser,
    /// Bytes that came before log-in.
    pub bytes_before_login: u64,
    /// Where it is in its life.
    pub stage: Stage,
    /// When it came, or last did something (mono ms).
    pub active_ms: u64,
    /// When it was opened (mono ms).
    pub opened_ms: u64,
    /// We have asked whether it lives (mono ms).
    pub asked_ms: Option<u64>,
    /// The mux has sent Close.
    pub mux_closed: bool,
    /// With this reason, while what the client had sent before is still to be taken.
    pub close_reason: Option<CloseReason>,
    /// StartTls has been sent and Secured has not come: any input is an injection.
    pub switching_tls: bool,
    /// A part of an element has come, and the rest has not, since then (mono ms); 0: nothing is waited for.
    pub unfinished_since_ms: u64,
    /// Its last element waits for the directory or for its account to be loaded: parsing stops until then, so that
    /// nothing overtakes it.
    pub paused: bool,
    /// The record in the session store is older than the session; these elements wait for it.
    pub record_awaited: Vec<u64>,
    /// The element being handled right now: it waits for nobody else yet.
    in_hand: Option<u64>,
    /// The mux that holds the connection.
    pub mux: std::sync::Arc<crate::event::MuxPermit>,
    /// Its name, once it has one; outlives `Bound`.
    pub name: Option<SessionId>,
    /// Origins up to this stanza are forgotten.
    pub origins_forgotten: u64,
    /// It was brought back after a restart: elements may come that were handled before.
    pub resumed: bool,
    /// It had ended before the restart: what it had taken, up to this byte of its input, is taken again, then it ends again.
    pub ended_before: Option<u64>,
    /// It has read its archive up to a position; the answer that says so is behind this element and this stanza of output.
    archive_read: Option<ArchiveRead>,
    /// In `Shard::dirty`.
    pub dirty: bool,
    /// The client has acknowledged something that is not on disk yet.
    pub ack_pending: bool,
    /// What it has acknowledged and could not be cleared is not as its record says.
    pub acks_unrecorded: bool,
    /// Stream management.
    pub sm: Option<StreamManagement>,
    /// Its client is inactive (XEP-0352).
    pub inactive: Option<Box<csi::Inactive>>,
    /// Its stream can be resumed.
    pub resumption: Option<Box<resumption::Resumption>>,
    /// Stanzas that came on connections before this one: origins count on through resumption.
    pub origin_base: u64,
    /// Output held back: of a session whose mux has not come back yet after a restart; and between `<enable/>` and
    /// `<enabled/>`, because both ends count stanzas from there (XEP-0198 §3), so none may be on its way in between.
    held_back: Option<Vec<(Bytes, OutKind)>>,
    held_back_bytes: usize,
    /// It has ended, but what it held is not routed again yet: the mux may still tell that the client has it.
    pub holds_for: Option<Box<Holding>>,

    input_base: u64,
    next_element: u64,
    stanzas_in: u64,
    unsettled: VecDeque<InElement>,
    settled_bytes: u64,
    settled_frozen: bool,
    settled_stanzas: u64,
    marks: Marks,

    elements_out: u64,
    stanzas_out: u64,
    drained: u64,
    outstanding: VecDeque<(u64, u32)>,
    outstanding_bytes: usize,
    /// When the oldest outstanding element was sent (mono ms).
    stuck_since_ms: u64,
    /// Stored stanzas sent and not acknowledged, oldest first.
    pub unacked: VecDeque<Unacked>,
    /// Acknowledged by this client, but the mark stays until the other sessions it went to are safe.
    uncleared: Vec<Unacked>,
    /// Output stanzas whose acknowledgement is on disk.
    forget_stanzas: u64,
    /// Numbers of the stored stanzas that the mux remembers, because it has not been told to forget them.
    in_mux: VecDeque<u64>,
    /// Acknowledgement writes under way: (write number, output stanza number they cover, last `<a/>` they carry out).
    acks_in_flight: VecDeque<(u64, u64, u64)>,
    /// Input elements `<a/>` whose acknowledgements are not on disk.
    ack_elements: VecDeque<u64>,
}

impl Session {
    /// A connection that has just been opened.
    pub fn new(
        key: ConnKey,
        open: Box<Open>,
        parser: StreamParser,
        negotiation: Box<Negotiation>,
        now: Now,
    ) -> Self {
        Self::build(
            Some(key),
            open,
            parser,
            Stage::Negotiating(negotiation),
            now,
        )
    }

    /// A session found in the session store after a restart, without its connection.
    pub fn orphan(
        open: Box<Open>,
        parser: StreamParser,
        bound: Box<Bound>,
        sm: Option<StreamManagement>,
        now: Now,
    ) -> Self {
        let mut session = Self::build(None, open, parser, Stage::Bound(bound), now);
        session.sm = sm;
        session.hold_back();
        session
    }

    fn build(
        key: Option<ConnKey>,
        open: Box<Open>,
        parser: StreamParser,
        stage: Stage,
        now: Now,
    ) -> Self {
        Self {
            key,
            open,
            parser,
            bytes_before_login: 0,
            stage,
            active_ms: now.mono_ms,
            opened_ms: now.mono_ms,
            asked_ms: None,
            mux_closed: false,
            close_reason: None,
            switching_tls: false,
            unfinished_since_ms: 0,
            paused: false,
            record_awaited: Vec::new(),
            in_hand: None,
            mux: std::sync::Arc::default(),
            name: None,
            origins_forgotten: 0,
            resumed: false,
            ended_before: None,
            archive_read: None,
            dirty: false,
            ack_pending: false,
            acks_unrecorded: false,
            sm: None,
            inactive: None,
            resumption: None,
            origin_base: 0,
            held_back: None,
            held_back_bytes: 0,
            holds_for: None,
            input_base: 0,
            next_element: 1,
            stanzas_in: 0,
            unsettled: VecDeque::new(),
            settled_bytes: 0,
            settled_frozen: false,
            settled_stanzas: 0,
            marks: Marks::default(),
            elements_out: 0,
            stanzas_out: 0,
            drained: 0,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            stuck_since_ms: 0,
            unacked: VecDeque::new(),
            uncleared: Vec::new(),
            forget_stanzas: 0,
            in_mux: VecDeque::new(),
            acks_in_flight: VecDeque::new(),
            ack_elements: VecDeque::new(),
        }
    }

    /// Its stream is one of WebSocket messages (RFC 7395).
    pub fn is_framed(&self) -> bool {
        self.parser.namespaces().is_framed()
    }

    /// What is said on it crosses no network in the clear: by TLS, or because the mux takes WebSockets without it only from this
    /// host, and from whom the operator has said that they have TLS in front.
    pub fn is_encrypted(&self) -> bool {
        self.open.tls.is_some() || self.is_framed()
    }

    /// Takes bytes of the client.
    pub fn push_input(&mut self, input: proto::frame::Input) {
        self.parser.push(input.bytes);
        if input.message_end {
            self.parser.end_message();
        }
    }

    /// The bound part, if there is one.
    pub fn bound(&self) -> Option<&Bound> {
        match &self.stage {
            Stage::Bound(b) => Some(b),
            _ => None,
        }
    }

    /// It is, or was, this connection of this mux.
    pub fn is_conn_of(&self, mux: &str, conn: u64) -> bool {
        match (self.bound(), &self.holds_for) {
            (Some(b), _) => *b.mux == *mux && b.conn == conn,
            (None, Some(h)) => *h.mux == *mux && h.conn == conn,
            (None, None) => false,
        }
    }

    /// It has logged in by SASL 2, and what was asked for with that is still to be done.
    pub fn is_inline(&self) -> bool {
        matches!(&self.stage, Stage::Negotiating(n) if n.is_inline())
    }

    /// The same, to change it.
    pub fn bound_mut(&mut self) -> Option<&mut Bound> {
        match &mut self.stage {
            Stage::Bound(b) => Some(b),
            _ => None,
        }
    }

    // ---- input ------------------------------------------------------------------------------------------

    /// Shortly after a restart: it is still to be resumed, or has just been, and may have been available: its presence was not written,
    /// and will come again. Meanwhile it hears who goes.
    pub fn perhaps_available(&self, restarted: bool) -> bool {
        self.key.is_none() && !self.is_detached() || restarted && self.resumed
    }

    /// Takes over the counts of a Resume. `parser` starts between two elements.
    ///
    /// True: the mux has not taken an answer that the record counts as given. The question comes again; nothing may go out
    /// before the record says so, or after another restart the count of elements would look as if the answer were among them.
    pub fn resume(&mut self, key: ConnKey, r: &proto::frame::Resume) -> bool {
        self.key = Some(key);
        self.resumed = true;
        self.input_base = r.settled_bytes;
        self.settled_bytes = r.settled_bytes;
        self.settled_stanzas = r.settled_stanzas;
        self.stanzas_in = r.settled_stanzas;
        self.elements_out = r.elements;
        self.stanzas_out = r.stanzas;
        self.drained = r.drained;
        self.marks = Marks {
            settled_bytes: r.settled_bytes,
            settled_stanzas: r.settled_stanzas,
            ..Marks::default()
        };
        let held = r.held.iter().map(|h| Unacked {
            element: h.element,
            stanza: h.stanza,
            position: h.id.0,
        });
        let acked = self.uncleared_positions();
        let (uncleared, unacked) = held.partition::<Vec<_>, _>(|u| acked.contains(&u.position));
        // What was acknowledged on a connection before this one, the mux does not hold.
        let before = acked
            .iter()
            .filter(|p| !uncleared.iter().any(|u| u.position == **p));
        let before = before.map(|&position| Unacked::of_before(position));
        self.uncleared = before.chain(uncleared.iter().copied()).collect();
        self.unacked = unacked.into();
        self.forget_stanzas = r
            .held
            .first()
            .map_or(r.stanzas, |h| h.stanza.saturating_sub(1));
        self.in_mux = r.held.iter().map(|h| h.stanza).collect();
        // The mux has not taken <enabled/>: nothing is counted yet, and <enable/> will come again.
        let sm = self
            .sm
            .filter(|sm| sm.continued || sm.enabled_element <= r.elements);
        let lost_sm = std::mem::replace(&mut self.sm, sm).is_some() && sm.is_none();
        let lost_roster = self.forget_lost_roster(r.elements);
        if let Some(sm) = &mut self.sm {
            sm.acked = sm.acked.max(sm.began_out).min(self.stanzas_out);
            sm.requested_ms = None;
            sm.asked_stanzas = 0;
        }
        if lost_sm {
            self.resumption = None;
        }
        self.count_lost();
        self.forget_taken_unsent();
        if self
            .resumption
            .as_ref()
            .is_some_and(|r| r.resumer.is_some())
        {
            self.begin_keeping();
        }
        lost_sm || lost_roster
    }

    /// The mux has not taken the whole answer to the question for the roster: the question will come again, and what is pushed
    /// before would leave the client with the newest version of a roster it does not have.
    fn forget_lost_roster(&mut self, elements: u64) -> bool {
        let lost = self
            .bound_mut()
            .and_then(|b| b.interested.take_if(|answer| *answer > elements))
            .is_some();
        if lost && let Some(held) = &mut self.held_back {
            held.retain(|(_, kind)| !kind.push);
            self.held_back_bytes = held.iter().map(|(bytes, _)| bytes.len()).sum();
        }
        lost
    }

    /// The parser has been made anew at this point of the input (stream restart, TLS): its count starts at zero.
    pub fn rebase_input(&mut self) {
        self.input_base = self.taken_bytes();
    }

    /// Bytes of input (since the connection began) taken from the parser.
    pub fn taken_bytes(&self) -> u64 {
        self.input_base + self.parser.consumed()
    }

    /// All elements that were there have been taken. What is left is the beginning of one, of which there was something at `begun`
    /// (mono ms; 0: no).
    pub fn note_unfinished(&mut self, begun: u64, now: Now) {
        if self.parser.buffered() > 0 {
            self.unfinished_since_ms = if begun > 0 { begun } else { now.mono_ms.max(1) };
        }
    }

    /// How long the rest of an element is waited for, ms.
    pub fn unfinished_ms(&self, now: Now) -> Option<u64> {
        let since = self.unfinished_since_ms;
        (since != 0).then(|| now.mono_ms.saturating_sub(since))
    }

    /// A session that had ended before a restart has taken all again that it had taken then.
    pub fn has_taken_its_last(&self) -> bool {
        self.ended_before
            .is_some_and(|input| self.taken_bytes() >= input)
    }

    /// Registers the element the parser has just given. Returns its number. It waits for one thing: the shard's own handling
    /// (ended with [`Session::done`]).
    pub fn begin_element(&mut self, stanza: bool, now: Now) -> u64 {
        let number = self.next_element;
        self.next_element += 1;
        if stanza {
            self.stanzas_in += 1;
        }
        self.unsettled.push_back(InElement {
            number,
            end: self.taken_bytes(),
            stanza,
            waiting: 1,
            since_ms: now.mono_ms,
            ack_request: false,
        });
        self.active_ms = now.mono_ms;
        self.asked_ms = None;
        self.in_hand = Some(number);
        number
    }

    /// Number of the stanza last begun on this connection: the first is 1.
    pub fn stanza_number(&self) -> u64 {
        self.stanzas_in
    }

    /// Its number in the whole life of the session.
    pub fn origin_stanza(&self) -> u64 {
        self.origin_base + self.stanzas_in
    }

    /// Number of the element last begun.
    pub fn last_element(&self) -> u64 {
        self.next_element - 1
    }

    /// The element waits for one thing more.
    pub fn hold(&mut self, number: u64) {
        if let Some(e) = self.element_mut(number) {
            e.waiting += 1;
        }
    }

    /// The element is an `<r/>`.
    pub fn mark_ack_request(&mut self, number: u64) {
        if let Some(e) = self.element_mut(number) {
            e.ack_request = true;
        }
    }

    /// One thing the element waited for is done.
    pub fn done(&mut self, number: u64) {
        if let Some(e) = self.element_mut(number) {
            e.waiting = e.waiting.saturating_sub(1);
        }
    }

    fn element_mut(&mut self, number: u64) -> Option<&mut InElement> {
        let first = self.unsettled.front()?.number;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.unsettled.get_mut(at)
    }

    /// How long the oldest unsettled element has waited, ms.
    pub fn oldest_unsettled_ms(&self, now: Now) -> Option<u64> {
        self.unsettled
            .front()
            .map(|e| now.mono_ms.saturating_sub(e.since_ms))
    }

    /// Everything taken from the client so far is settled.
    pub fn all_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// The element in hand has been dealt with, or others see to it now.
    pub fn put_down(&mut self) {
        self.in_hand = None;
    }

    /// The session ends: the element that ended it, or waited for its account or the directory, will not be answered.
    pub fn forget_waits(&mut self) {
        let paused = std::mem::take(&mut self.paused).then(|| self.last_element());
        if let Some(number) = self.in_hand.take().or(paused) {
            self.done(number);
        }
    }

    /// Settles what waits for nothing; answers `<r/>` on the way.
    pub fn settle(&mut self, now: Now, out: &mut Vec<LinkCommand>) {
        while let Some(e) = self.unsettled.front() {
            if e.waiting > 0 {
                return;
            }
            let e = self.unsettled.pop_front().expect("front was there");
            self.settled_bytes = e.end;
            if e.stanza {
                self.settled_stanzas += 1;
            }
            if e.ack_request {
                self.send_ack(now, out);
            }
        }
        if !self.settled_frozen {
            self.settled_bytes = self.taken_bytes();
        }
        if self.unsettled.capacity() > 16 {
            self.unsettled.shrink_to(0);
        }
    }

    /// What is read from now on is not taken: it is never settled.
    pub fn freeze_settled(&mut self) {
        self.settled_frozen = true;
    }

    /// `h` of XEP-0198 §4: settled stanzas since stream management was enabled, modulo 2^32.
    pub fn handled(&self) -> u32 {
        self.handled_total() as u32
    }

    /// The same, not cut.
    pub fn handled_total(&self) -> u64 {
        let base = self.sm.map_or(0, |sm| sm.in_base);
        self.settled_stanzas.wrapping_sub(base)
    }

    fn send_ack(&mut self, now: Now, out: &mut Vec<LinkCommand>) {
        let a = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled());
        self.send(Bytes::from(a), OutKind::NONZA, now, out);
    }

    /// Sends Marks if anything in them has changed, and Close if everything is settled and the end has come.
    /// Returns true when the connection is over on both ends.
    pub fn flush(&mut self, settings: &Settings, credit: bool, out: &mut Vec<LinkCommand>) -> bool {
        self.dirty = false;
        self.send_marks(settings, credit, out);
        let Some(key) = self.key else { return false };
        let settled = self.unsettled.is_empty();
        let acks_under_way = self.acks_under_way();
        if let Stage::Closing { last, reason, sent } = &mut self.stage
            && settled
        {
            // The mux forgets what this client had, so that must be on disk. Whom we throw out does not wait for a disk.
            let patient = self.mux_closed || *reason == CloseReason::Normal;
            if patient && acks_under_way {
                return false;
            }
            if !*sent {
                *sent = true;
                let close = Close {
                    last: last.pop().unwrap_or_default(),
                    reason: *reason,
                };
                for bytes in std::mem::take(last) {
                    let frame = Frame::Output(key.conn, nonza(bytes));
                    out.push(LinkCommand::Frame {
                        link: key.link,
                        frame,
                        track: false,
                    });
                }
                out.push(LinkCommand::Frame {
                    link: key.link,
                    frame: Frame::Close(key.conn, close),
                    track: false,
                });
            }
            return self.mux_closed;
        }
        false
    }

    /// Sends Marks if anything in them has changed.
    pub fn send_marks(&mut self, settings: &Settings, credit: bool, out: &mut Vec<LinkCommand>) {
        let Some(key) = self.key else { return };
        // Answers that are still in memory here: until they are out, or on record, the mux must keep what they answer.
        let holds = self.is_away() || self.held_back.as_ref().is_some_and(|h| !h.is_empty());
        let (settled_bytes, settled_stanzas) = match holds {
            true => (self.marks.settled_bytes, self.marks.settled_stanzas),
            false => (self.settled_bytes, self.settled_stanzas),
        };
        let window = match self.stage {
            Stage::Negotiating(_) => settings.input_window_before_login(),
            _ => settings.input_window(),
        };
        let marks = Marks {
            settled_bytes,
            settled_stanzas,
            forget_stanzas: self.forget_stanzas.max(self.marks.forget_stanzas),
            input_bytes_max: if credit {
                (settled_bytes + window).max(self.marks.input_bytes_max)
            } else {
                self.marks.input_bytes_max
            },
        };
        // The window alone is worth a frame only when it has moved a good part of itself.
        let moved = marks.settled_bytes != self.marks.settled_bytes
            || marks.forget_stanzas != self.marks.forget_stanzas
            || marks.input_bytes_max != self.marks.input_bytes_max;
        if moved {
            self.marks = marks;
            let track = self.name.is_some();
            out.push(LinkCommand::Frame {
                link: key.link,
                frame: Frame::Marks(key.conn, marks),
                track,
            });
            while self
                .in_mux
                .front()
                .is_some_and(|&s| s <= marks.forget_stanzas)
            {
                self.in_mux.pop_front();
            }
            if self.in_mux.is_empty() && self.in_mux.capacity() > 8 {
                self.in_mux.shrink_to(0);
            }
        }
    }

    /// It may be sent one more stored stanza. A mux remembers those that the client has not acknowledged and those whose
    /// acknowledgement is not on disk yet, and ends a connection with more than `HELD_STORED_MAX` of them.
    pub fn may_hold_more(&self, unacknowledged_max: usize) -> bool {
        let waiting = self.waiting_stored();
        self.unacked.len() + waiting < unacknowledged_max
            && self.in_mux.len() + waiting < HELD_STORED_MAX
    }

    /// It may be sent a page of them.
    pub fn may_hold_page(&self, unacknowledged_max: usize) -> bool {
        let waiting = self.waiting_stored();
        self.unacked.len() + waiting < unacknowledged_max / 2
            && self.in_mux.len() + waiting < HELD_STORED_MAX / 2
    }
}

/// An element that is nothing but bytes.
fn nonza(bytes: Bytes) -> Output {
    Output {
        bytes,
        last: true,
        stanza: false,
        stored: None,
    }
}

/// What an output element is.
#[derive(Debug, Clone, Copy)]
pub struct OutKind {
    /// Counts for XEP-0198.
    pub stanza: bool,
    /// Position in the store.
    pub stored: Option<u64>,
    /// Tell when the mux has taken it.
    pub track: bool,
    /// A roster push, which nobody wants who has no roster.
    pub push: bool,
}

impl OutKind {
    /// Stream header, SASL, acknowledgements...
    pub const NONZA: Self = Self {
        stanza: false,
        stored: None,
        track: false,
        push: false,
    };
    /// A stanza that is not stored.
    pub const STANZA: Self = Self {
        stanza: true,
        stored: None,
        track: false,
        push: false,
    };
    /// A roster push.
    pub const PUSH: Self = Self {
        push: true,
        ..Self::STANZA
    };

    /// A stored stanza.
    pub fn stored(position: u64) -> Self {
        Self {
            stanza: true,
            stored: Some(position),
            ..Self::STANZA
        }
    }
}
