//! The mux's whole half of the link: greeting, numbered frames, and the table of connections with what
//! must outlive a server (unsettled input, counts, stored ids).
//!
//! In: link bytes, `now`, what happened on the client sockets. Out: link bytes, `MuxEvent`s, a deadline.
//! Owns: the truth about every connection of this mux. Never: looks into what clients send; reads a clock.

mod conn;
mod room;
mod take;

use crate::codec;
use crate::frame::*;
use crate::limits;
use crate::link::{Link, LinkError, Phase, shrink_if_empty};
use bytes::{Bytes, BytesMut};
use conn::{Active, Conn, Spare, TlsState, push_close, push_input};
use room::{Room, Starved};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// What a mux must know to run its half.
#[derive(Clone, Debug)]
pub struct MuxSideConfig {
    /// The mux's configured name.
    pub name: String,
    /// This run of the mux.
    pub boot: BootId,
    /// How long clients are kept without a server (`server_lost_s`).
    pub server_lost: Duration,
    /// Connections at most, closed ones that the server has not let go included.
    pub conn_count_max: usize,
    /// Unsettled input over all connections, bytes: a quarter of it of those who have not logged in. Beyond it everybody may hold a
    /// short element, and what they had been told.
    pub unsettled_bytes_max: usize,
    /// Frames sent and not acknowledged, bytes.
    pub retained_bytes_max: usize,
}

impl MuxSideConfig {
    /// The defaults of `limits` for a mux of this name and run.
    pub fn new(name: impl Into<String>, boot: BootId) -> Self {
        Self {
            name: name.into(),
            boot,
            server_lost: limits::SERVER_LOST,
            conn_count_max: limits::CONN_COUNT_MAX,
            unsettled_bytes_max: limits::UNSETTLED_BYTES_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
        }
    }
}

/// What the mux must do. Drain with `poll_event` after every call that takes `now`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MuxEvent {
    /// Whether new clients may be accepted (`open` works). False at start; false again at once when the link is lost.
    Accepting(bool),
    /// Write these bytes to the client: one whole element.
    Output {
        /// The connection.
        conn: ConnId,
        /// The element, whole.
        bytes: Bytes,
        /// Its number among the output elements of the connection (the first is 1): what `drained` counts.
        element: u64,
    },
    /// Write `last` as plain bytes, then hand every byte read from now on to TLS. Answer with `secured` or `closed`.
    StartTls {
        /// The connection.
        conn: ConnId,
        /// The last plain bytes.
        last: Bytes,
        /// The number of the element that `last` is.
        element: u64,
        /// Ask the client for a certificate.
        request_client_certificate: bool,
    },
    /// More input may be read from this client: until its total input bytes reach `limit`. Sent after `input` or
    /// `input_room` had said 0, and when the room told last has shrunk to less than half of what there is now.
    InputRoom {
        /// The connection.
        conn: ConnId,
        /// Total input bytes since the connection was opened up to which may be read.
        limit: u64,
    },
    /// Open a connection; answer with `open` (its `dial` set) or `dial_failed`.
    Dial(Dial),
    /// Write `last`, flush, shut TLS down, close the socket, then call `drained` (if it grew) and `closed`. Nothing comes
    /// for this connection any more.
    Close {
        /// The connection.
        conn: ConnId,
        /// Last bytes for the client, may be empty.
        last: Bytes,
        /// The number of the element that `last` is (the count so far if `last` is empty).
        element: u64,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// Close the socket at once and forget the connection; `closed` need not be called.
    Forget {
        /// The connection.
        conn: ConnId,
        /// Why: the server was lost too long (Shutdown), another store came back or the server died
        /// in the midst of StartTls (NotResumable), input past its limit
        /// (Limit), more stored stanzas unacknowledged than `limits::HELD_STORED_MAX` (SlowClient).
        reason: CloseReason,
    },
    /// The server will go away; use another for new connections.
    Drain,
    /// The link is up: the server's name, and whether it went on where it stopped (else Resume was sent).
    LinkUp {
        /// The server's configured name.
        server: String,
        /// The link goes on where it stopped.
        continued: bool,
    },
    /// Close the link's transport now and dial again; `handle_link_down` need not be called (but may).
    LinkFailed(LinkError),
}

/// Why `open` refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No link to a server, or the connections of an earlier server are not all resumed yet.
    #[error("no server")]
    NotAccepting,
    /// `conn_count_max` reached.
    #[error("too many connections")]
    Full,
    /// `Open::dial` names no Dial that is open: the server that asked is gone.
    #[error("dial not known")]
    DialUnknown,
    /// A field of Open passes its limit (an oversized client certificate) or is not plain text.
    #[error("open too long")]
    TooLong,
}

type Table = HashMap<ConnId, Box<Conn>, foldhash::fast::RandomState>;

/// What this mux last heard of a server.
#[derive(Clone, Copy)]
struct KnownServer {
    boot: BootId,
    store: StoreId,
}

/// An element whose last part has not come yet.
struct Partial {
    conn: ConnId,
    stanza: bool,
    stored: Option<StoredId>,
    bytes: BytesMut,
}

/// See the module.
pub struct MuxSide {
    config: MuxSideConfig,
    link: Link,
    /// The server the link may go on with. None: the next link is built anew by Resume.
    server: Option<KnownServer>,
    /// The store our connections belong to.
    store: Option<StoreId>,
    /// Raised each time both ends begin to count anew: a connection of an older generation is not known to the server, and
    /// what happens to it is told by its Resume.
    generation: u32,
    /// Connections to be resumed, in order of id. Some even if none is left and ResumeEnd is to be sent.
    resuming: Option<std::vec::IntoIter<ConnId>>,
    accepting: bool,
    conns: Table,
    /// Emptied boxes, so that a busy connection does not go to the allocator for each message.
    spare: Spare,
    next_id: u64,
    partial: Option<Partial>,
    dials: HashSet<u64>,
    room: Room,
    /// Connections that have credit but found `unsettled_bytes_max` in their way.
    starved: Starved,
    /// When the clients are given up, while there is no server.
    lost_due: Option<Instant>,
    events: VecDeque<MuxEvent>,
    forgotten: std::vec::IntoIter<ConnId>,
    forgotten_reason: CloseReason,
}

/// Boxes kept in `spare`.
const SPARE_MAX: usize = 256;
/// A spare box keeps buffers up to this size.
const SPARE_BYTES_MAX: usize = 4096;
/// Starved connections looked at in vain per look.
const STARVED_MISSES_MAX: usize = 4;

impl MuxSide {
    /// A mux without link and without connections.
    pub fn new(now: Instant, config: MuxSideConfig) -> Self {
        Self {
            config,
            link: Link::new(now),
            server: None,
            store: None,
            generation: 0,
            resuming: None,
            accepting: false,
            conns: Table::default(),
            spare: Vec::new(),
            next_id: 1,
            partial: None,
            dials: HashSet::new(),
            room: Room::default(),
            starved: Starved::default(),
            lost_due: None,
            events: VecDeque::new(),
            forgotten: Vec::new().into_iter(),
            forgotten_reason: CloseReason::Shutdown,
        }
    }

    // ---- the link's transport ----

    /// A transport (TCP, then TLS, or Unix) to the server is ready: Hello goes out. An older transport is forgotten.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.handle_link_down(now);
        let hello = Hello {
            version: limits::PROTOCOL_VERSION,
            role: Role::Mux,
            name: self.config.name.clone(),
            frame_bytes_max: limits::FRAME_BYTES_MIN,
            boot: self.config.boot,
            store: self.store,
            taken: self.server.map(|server| (server.boot, self.link.taken())),
        };
        self.link.handle_up(now, &Frame::Hello(hello));
    }

    /// Bytes read from the transport; whole frames are taken out of `bytes`, the rest of one stays. Use a fresh buffer
    /// for a fresh transport. On an error close the transport and dial again later.
    pub fn handle_link_bytes(
        &mut self,
        now: Instant,
        bytes: &mut BytesMut,
    ) -> Result<(), LinkError> {
        if self.link.phase() == Phase::Down {
            // The caller has not seen `LinkFailed` yet.
            bytes.clear();
            return Ok(());
        }
        let result = self.take_frames(now, bytes);
        match &result {
            Ok(()) => self.resume_more(),
            Err(_) => self.fail(now),
        }
        result
    }

    /// The transport is gone. Clients stay.
    pub fn handle_link_down(&mut self, now: Instant) {
        self.link.handle_down();
        self.set_accepting(false);
        if self.lost_due.is_none() {
            self.lost_due = Some(now + self.config.server_lost);
        }
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Err(error) = self.link.handle_timeout(now) {
            self.handle_link_down(now);
            self.events.push_back(MuxEvent::LinkFailed(error));
        }
        if self.lost_due.is_some_and(|due| now >= due) {
            self.lost_due = None;
            self.start_over();
            self.forget_all(CloseReason::Shutdown);
        }
        self.wake_starved();
    }

    /// When to call `handle_timeout`, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.link.poll_timeout(), self.lost_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next bytes for the transport, large and contiguous, or None. Ask again only for what can soon be written:
    /// what was handed out counts as sent.
    pub fn poll_link_output(&mut self) -> Option<Bytes> {
        self.link.poll_output()
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            shrink_if_empty(&mut self.events);
        }
        event.or_else(|| {
            self.forgotten.next().map(|conn| MuxEvent::Forget {
                conn,
                reason: self.forgotten_reason,
            })
        })
    }

    // ---- the client sockets ----

    /// A client (or a dialled host) is connected.
    pub fn open(&mut self, now: Instant, open: Open) -> Result<ConnId, Refused> {
        if !self.accepting {
            return Err(Refused::NotAccepting);
        }
        if self.conns.len() >= self.config.conn_count_max {
            return Err(Refused::Full);
        }
        if open.dial.is_some_and(|dial| !self.dials.contains(&dial)) {
            return Err(Refused::DialUnknown);
        }
        let encoded = codec::encode_open(&open).map_err(|_| Refused::TooLong)?;
        let tls = match open.transport {
            Transport::Tcp if open.tls.is_none() => TlsState::Plain,
            _ => TlsState::Final,
        };
        if let Some(dial) = open.dial {
            self.dials.remove(&dial);
        }
        let id = ConnId(self.next_id);
        self.next_id += 1;
        self.conns
            .insert(id, Box::new(Conn::new(encoded, tls, self.generation)));
        self.push(now, &Frame::Open(id, open));
        Ok(id)
    }

    /// Bytes read from a client (after TLS, after WebSocket unwrapping), in order. `message_end`: the last of them, or of those
    /// before if there are none, ends a WebSocket message. (A message without any bytes is nothing: leave it out.) Returns how many more may be read; at 0 stop reading until
    /// `InputRoom`. Every limit ever told stays good; input past it closes the connection (`Forget`, Limit).
    pub fn input(&mut self, now: Instant, conn: ConnId, bytes: &[u8], message_end: bool) -> usize {
        let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.is_over()) else {
            return 0;
        };
        if state.input_bytes + bytes.len() as u64 > state.input_bytes_max {
            self.end(now, conn, CloseReason::Limit);
            return 0;
        }
        if !bytes.is_empty() || message_end {
            let before = state.weight();
            state.keep_input(&mut self.spare, bytes, message_end);
            self.room
                .changed(state.is_session(), before, state.weight());
            if state.generation == self.generation {
                push_input(&mut self.link, conn, bytes, message_end);
                self.check_retained(now);
            }
        }
        self.input_room(conn)
    }

    /// How many bytes may be read from this client now. At 0 an `InputRoom` will follow.
    pub fn input_room(&mut self, conn: ConnId) -> usize {
        let bound = self.config.unsettled_bytes_max;
        let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.is_over()) else {
            return 0;
        };
        let limit = self.room.limit(state, bound).max(state.told_limit);
        state.told_limit = limit;
        if limit == state.input_bytes && limit < state.input_bytes_max && !state.starved {
            state.starved = true;
            self.starved.of(state.is_session()).push_back(conn);
        }
        (limit - state.input_bytes) as usize
    }

    /// TLS is up on a connection that got `StartTls`.
    pub fn secured(&mut self, now: Instant, conn: ConnId, facts: TlsFacts) {
        let Some(state) = self
            .conns
            .get_mut(&conn)
            .filter(|state| state.tls == TlsState::Asked)
        else {
            return;
        };
        let mut open = codec::decode_open(&state.open).expect("this mux encoded it");
        open.tls = Some(facts);
        let Ok(encoded) = codec::encode_open(&open) else {
            // A certificate past its limit: the facts cannot be told, so the connection cannot be had.
            self.end(now, conn, CloseReason::TlsError);
            return;
        };
        state.open = encoded;
        state.tls = TlsState::Final;
        if state.generation == self.generation && state.closed.is_none() {
            let facts = open.tls.take().expect("set above");
            self.push(now, &Frame::Secured(conn, facts));
        }
    }

    /// The client's TCP has acknowledged the last byte of so many output elements, in total.
    pub fn drained(&mut self, now: Instant, conn: ConnId, elements: u64) {
        let Some(state) = self
            .conns
            .get_mut(&conn)
            .filter(|state| state.closed.is_none())
        else {
            return;
        };
        let elements = elements.min(state.elements);
        if elements > state.drained {
            state.drained = elements;
            if state.generation == self.generation {
                self.push(now, &Frame::Drained(conn, elements));
            }
        }
    }

    /// The socket is closed; call `drained` before, if it grew.
    pub fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let Some(state) = self
            .conns
            .get_mut(&conn)
            .filter(|state| state.closed.is_none())
        else {
            return;
        };
        state.closed = Some(reason);
        let known = state.generation == self.generation;
        // Both have sent Close; or no server will ever know of it.
        let over = if known {
            state.server_closed
        } else {
            state.told_note().is_none()
        };
        if known {
            push_close(&mut self.link, conn, reason);
        }
        if over {
            self.remove(conn);
        }
        self.check_retained(now);
    }

    /// A Dial failed.
    pub fn dial_failed(&mut self, now: Instant, dial: u64, reason: &str) {
        if self.dials.remove(&dial) {
            self.push(now, &Frame::DialFailed(dial, codec::log_text(reason)));
        }
    }

    /// This mux is going away: tell the server.
    pub fn drain(&mut self, now: Instant) {
        if self.server.is_some() {
            self.push(now, &Frame::Drain);
        }
    }

    // ---- for metrics ----

    /// Connections known, closed ones that the server has not let go included.
    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    /// Unsettled input over all connections, as it counts toward `unsettled_bytes_max`.
    pub fn unsettled_bytes(&self) -> usize {
        self.room.bytes()
    }

    /// Bytes of frames that were not acknowledged yet.
    pub fn retained_bytes(&self) -> usize {
        self.link.retained_bytes()
    }

    /// Bytes of frames not handed out by `poll_link_output` yet.
    pub fn unsent_bytes(&self) -> usize {
        self.link.unsent_bytes()
    }

    /// Welcome was received on the transport of now.
    pub fn is_link_up(&self) -> bool {
        self.link.phase() == Phase::Up
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &MuxSideConfig {
        &self.config
    }

    // ---- room for input ----

    /// Says that there is room again, if the caller needs to hear it. False: there is none by our own bound.
    fn tell_room(&mut self, conn: ConnId) -> bool {
        let bound = self.config.unsettled_bytes_max;
        let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.is_over()) else {
            return true;
        };
        let limit = self.room.limit(state, bound);
        let told_room = state.told_limit.saturating_sub(state.input_bytes);
        let room = limit - state.input_bytes;
        if room > 0 && (state.told_limit > 0 || state.starved) && room / 2 >= told_room {
            state.told_limit = limit;
            self.events.push_back(MuxEvent::InputRoom { conn, limit });
        }
        room > 0 || limit == state.input_bytes_max
    }

    /// Lets the connections go on that our own bound had stopped.
    fn wake_starved(&mut self) {
        for sessions in [true, false] {
            let mut misses = 0;
            while misses < STARVED_MISSES_MAX
                && let Some(conn) = self.starved.of(sessions).pop_front()
            {
                let woken = self.tell_room(conn);
                match self.conns.get_mut(&conn) {
                    Some(state) if woken => state.starved = false,
                    Some(_) => {
                        self.starved.of(sessions).push_back(conn);
                        misses += 1;
                    }
                    None => {}
                }
            }
        }
    }

    // ---- the table ----

    /// Ends a connection of our own accord: the server hears Close, the caller Forget.
    fn end(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let told = self.conns.get(&conn).is_none_or(|state| state.told_close);
        if !told {
            self.events.push_back(MuxEvent::Forget { conn, reason });
        }
        self.closed(now, conn, reason);
    }

    fn remove(&mut self, conn: ConnId) {
        if let Some(mut state) = self.conns.remove(&conn) {
            self.room.left(&state);
            if let Some(active) = state.active.take() {
                self.recycle(active);
            }
            self.wake_starved();
        }
    }

    fn recycle(&mut self, mut active: Box<Active>) {
        active.unsettled.clear();
        active.message_ends.clear();
        active.held.clear();
        let small = active.unsettled.capacity() <= SPARE_BYTES_MAX
            && active.held.capacity() * size_of::<HeldStored>() <= SPARE_BYTES_MAX
            && active.message_ends.capacity() * size_of::<u64>() <= SPARE_BYTES_MAX;
        if small && self.spare.len() < SPARE_MAX {
            self.spare.push(active);
        }
    }

    /// Gives up every connection: no server will ever know them again.
    fn forget_all(&mut self, reason: CloseReason) {
        let mut ids: Vec<ConnId> = self.forgotten.by_ref().collect();
        ids.extend(
            self.conns
                .iter()
                .filter(|(_, state)| state.closed.is_none())
                .map(|(id, _)| *id),
        );
        ids.sort_unstable();
        self.forgotten = ids.into_iter();
        self.forgotten_reason = reason;
        self.conns = Table::default();
        self.starved = Starved::default();
        self.room = Room::default();
        self.store = None;
    }

    // ---- the link's state ----

    fn push(&mut self, now: Instant, frame: &Frame) {
        self.link
            .push_frame(frame)
            .expect("every field was checked when it came in");
        self.check_retained(now);
    }

    /// Resumes connections while the server keeps up.
    fn resume_more(&mut self) {
        if self.link.phase() != Phase::Up {
            return;
        }
        while let Some(ids) = &mut self.resuming {
            if self.link.retained_bytes() >= limits::RESUME_AHEAD_BYTES {
                return;
            }
            let Some(id) = ids.next() else {
                self.resuming = None;
                self.link
                    .push_frame(&Frame::ResumeEnd)
                    .expect("ResumeEnd has no fields");
                break;
            };
            match self.conns.get_mut(&id) {
                Some(state) if state.closed.is_some() && state.told_note().is_none() => {
                    self.remove(id)
                }
                // Its negotiation died with the server that had begun it.
                Some(state) if state.tls == TlsState::Asked && state.closed.is_none() => {
                    if !state.told_close {
                        let reason = CloseReason::NotResumable;
                        self.events.push_back(MuxEvent::Forget { conn: id, reason });
                    }
                    self.remove(id);
                }
                Some(state) => state.resume(id, &mut self.link, self.generation),
                None => {}
            }
        }
        self.set_accepting(true);
    }

    /// The link cannot go on where it stopped: nothing said on it counts any more.
    fn start_over(&mut self) {
        self.server = None;
        self.generation = self.generation.wrapping_add(1);
        self.link.reset_counts();
        self.resuming = None;
        self.partial = None;
        self.dials.clear();
    }

    /// The server broke the protocol: the transport is to be closed, and the next link is built anew.
    fn fail(&mut self, now: Instant) {
        self.handle_link_down(now);
        self.start_over();
    }

    fn check_retained(&mut self, now: Instant) {
        if self.link.retained_bytes() > self.config.retained_bytes_max {
            if self.link.phase() != Phase::Down {
                self.events
                    .push_back(MuxEvent::LinkFailed(LinkError::RetainedFull));
            }
            self.fail(now);
        }
    }

    fn set_accepting(&mut self, accepting: bool) {
        if self.accepting != accepting {
            self.accepting = accepting;
            self.events.push_back(MuxEvent::Accepting(accepting));
        }
    }
}
