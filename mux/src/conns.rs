//! The connections of one event-loop thread.
//!
//! In: readiness of sockets, orders from above, `now`. Out: calls of [`Above`] (the link's half), bytes to sockets.
//! Owns: sockets, TLS states, one set of buffers for all of them, deadlines of connections.
//! Never: parses what clients send; waits; re-arms an event; reads once more only to hear that nothing is left.
//!
//! The turn of a loop: [`ConnSet::handle_ready`] for each event, orders, [`ConnSet::handle_timeout`], then
//! [`ConnSet::flush`], which writes what each connection got in this turn with one call.

mod dial;
mod drained;
mod orders;
mod output;
mod reading;
mod websocket;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use proto::frame::{CloseReason, ConnId, ListenerKind, Open, TlsFacts, Transport};
use slab::Slab;

use crate::config::{LimitsConfig, ListenerTransport, WebSocketConfig};
use crate::conn::{Admission, Conn, ConnTls, Key, Marks, NONE, Stage};
use crate::gate::Bucket;
use crate::listen::Accepted;
use crate::metrics::{self, Metrics};
use crate::tls::certs::Certs;
use crate::websocket::frame::Header;
use crate::websocket::{WebSocket, handshake, status_of};

/// How long a closing connection may take to acknowledge its last bytes.
const LINGER: Duration = Duration::from_secs(5);
/// Age limits are looked at so often: they are seconds long, so a wake-up each for thousands of connections is waste.
const AGE_TICK: Duration = Duration::from_millis(250);
/// What strangers cause is a warning so often at most.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// One read. Longer ones would only move more of a flood per turn.
const READ_BYTES: usize = 32 * 1024;
/// Reads of one connection in a row before the others get their turn.
const READS_PER_TURN: usize = 4;
/// Room in front of a read for the partial record of a connection (see `tls::PARTIAL_BYTES_MAX`).
const PARTIAL_ROOM: usize = 96 * 1024;
/// Buffers of a thread that grew past this for one long element are given back.
const BUFFER_KEPT: usize = 256 * 1024;

/// What the link knows at once about a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Its id, and how many bytes may be read.
    Now(ConnId, u64),
    /// The answer comes by [`ConnSet::opened`] or [`ConnSet::refused`].
    Later,
    /// There is no server for it.
    Refused,
}

/// The link's half as connections see it: direct calls on one thread, batched messages from another.
pub trait Above {
    /// A connection is ready to be opened.
    fn open(&mut self, now: Instant, key: Key, open: Open) -> Opening;
    /// Bytes of a client; `message_end` as `MuxSide::input` has it. Returns how many more may be read, if that is known here.
    fn input(&mut self, now: Instant, conn: ConnId, bytes: &[u8], message_end: bool)
    -> Option<u64>;
    /// The connection has read all it may; `total` is how much that was. Returns how many more may be read, if
    /// known here; else, or at 0, [`ConnSet::set_input_limit`] follows.
    fn want_room(&mut self, now: Instant, key: Key, conn: ConnId, total: u64) -> Option<u64>;
    /// STARTTLS is done.
    fn secured(&mut self, now: Instant, conn: ConnId, facts: TlsFacts);
    /// So many output elements are acknowledged.
    fn drained(&mut self, now: Instant, conn: ConnId, elements: u64);
    /// The connection is over.
    fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason);
    /// A Dial failed.
    fn dial_failed(&mut self, now: Instant, dial: u64, reason: &str);
    /// A connection that the gate counted has logged in.
    fn authenticated(&mut self);
    /// A connection that the gate counted is gone.
    fn left(&mut self, peer: IpAddr, authenticated: bool);
}

/// What all threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Certificates for clients.
    pub certs: Certs,
    /// What is said of WebSocket clients now.
    websocket: RwLock<Arc<WebSocketConfig>>,
    /// When a refused origin was last warned of.
    origin_warned: Mutex<Option<Instant>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// What is said of WebSocket clients now.
    pub fn websocket(&self) -> Arc<WebSocketConfig> {
        self.websocket
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a refused origin is a warning: anybody can cause them, so of those of a minute one is.
    pub fn may_warn_of_origin(&self, now: Instant) -> bool {
        let mut last = self
            .origin_warned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }

    /// The same from now on.
    pub fn set_websocket(&self, config: WebSocketConfig) {
        *self
            .websocket
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// One piece of this turn's output; items of a connection form a list.
struct Item {
    /// Of its WebSocket frame; empty for others.
    header: Header,
    bytes: Bytes,
    /// The element that ends with it.
    element: u64,
    next: u32,
}

struct Handshakes {
    bucket: Bucket,
    active: usize,
    active_max: usize,
    waiting: VecDeque<Key>,
    retry_at: Option<Instant>,
}

/// See the module.
pub struct ConnSet {
    thread: u8,
    registry: Registry,
    shared: Arc<Shared>,
    limits: LimitsConfig,
    slots: Slab<Conn>,
    generation: u32,
    /// Reads go here, behind the partial record.
    scratch: Vec<u8>,
    /// Ciphertext on its way out.
    cipher: Vec<u8>,
    /// Plaintext of one connection's turn, put together for one record.
    plain: Vec<u8>,
    items: Vec<Item>,
    dirty: Vec<Key>,
    again: Vec<Key>,
    watched: Vec<Key>,
    next_tick: Option<Instant>,
    hurried: drained::Hurried,
    next_age: Option<Instant>,
    logins: VecDeque<(Instant, Key)>,
    handshake_ends: VecDeque<(Instant, Key)>,
    pings: VecDeque<(Instant, Key)>,
    handshakes: Handshakes,
    /// Of how many threads with connections this is one: rates are shared out.
    share: usize,
}

impl ConnSet {
    /// No connections yet. `share`: how many such sets there are.
    pub fn new(
        now: Instant,
        thread: u8,
        share: usize,
        registry: Registry,
        shared: Arc<Shared>,
        limits: LimitsConfig,
    ) -> Self {
        let handshakes = Handshakes {
            bucket: Bucket::new(now, limits.handshakes_per_s / share as u64),
            active: 0,
            active_max: (limits.handshakes_max / share).max(1),
            waiting: VecDeque::new(),
            retry_at: None,
        };
        Self {
            thread,
            registry,
            shared,
            limits,
            slots: Slab::new(),
            generation: 0,
            scratch: vec![0; PARTIAL_ROOM + READ_BYTES],
            cipher: Vec::new(),
            plain: Vec::new(),
            items: Vec::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            watched: Vec::new(),
            next_tick: None,
            hurried: drained::Hurried::default(),
            next_age: None,
            logins: VecDeque::new(),
            handshake_ends: VecDeque::new(),
            pings: VecDeque::new(),
            handshakes,
            share,
        }
    }

    /// New limits; those who are in stay.
    pub fn set_limits(&mut self, limits: LimitsConfig) {
        self.handshakes
            .bucket
            .set_rate(limits.handshakes_per_s / self.share as u64);
        self.handshakes.active_max = (limits.handshakes_max / self.share).max(1);
        self.limits = limits;
    }

    /// Takes a connection a listener accepted. The gate has counted it.
    pub fn adopt(&mut self, now: Instant, accepted: Accepted, above: &mut impl Above) {
        let Accepted {
            socket, peer, kind, ..
        } = accepted;
        let transport = match accepted.transport {
            ListenerTransport::Tcp => Transport::Tcp,
            ListenerTransport::Tls => Transport::Tls,
            ListenerTransport::Ws => Transport::WebSocket,
            ListenerTransport::Wss => Transport::WebSocketTls,
        };
        let slot = self.insert(socket, peer, kind, transport);
        self.slots[slot].counted = true;
        self.slots[slot].request_certificate = accepted.request_certificate;
        if accepted.transport.is_websocket() {
            self.slots[slot].websocket = Some(WebSocket::new());
        }
        let key = self.slots[slot].key;
        match transport {
            Transport::WebSocket => {
                self.slots[slot].stage = Stage::Greeting;
                self.handshake_ends
                    .push_back((now + self.limits.handshake, key));
                self.wake_by(now + AGE_TICK);
                if !self.register(slot) {
                    self.end(now, slot, CloseReason::SocketError, above);
                }
            }
            // It would hear nothing else after its handshake; only HTTP has words for it.
            Transport::Tls if accepted.no_server => {
                self.turn_away(now, slot, above);
                if let Some(slot) = self.find(key)
                    && !self.register(slot)
                {
                    self.end(now, slot, CloseReason::SocketError, above);
                }
            }
            Transport::Tls | Transport::WebSocketTls => {
                self.slots[slot].stage = Stage::Handshake;
                if self.begin_tls(now, slot, true, false) && self.register(slot) {
                    return;
                }
                self.end(now, slot, CloseReason::TlsError, above);
            }
            Transport::Tcp => {
                self.open(now, slot, None, above);
                if let Some(slot) = self.find(key)
                    && !self.register(slot)
                {
                    self.end(now, slot, CloseReason::SocketError, above);
                }
            }
        }
    }

    fn insert(
        &mut self,
        socket: TcpStream,
        peer: std::net::SocketAddr,
        kind: ListenerKind,
        transport: Transport,
    ) -> usize {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let key = Key::new(self.thread, self.generation, slot as u32);
        entry.insert(Conn {
            socket,
            key,
            id: ConnId(0),
            peer,
            kind,
            transport,
            stage: Stage::Opening,
            readable: false,
            half_closed: false,
            broken: false,
            noted: false,
            counted: false,
            request_certificate: false,
            watched: false,
            hurried: false,
            dirty: false,
            in_again: false,
            close_after: None,
            shut: false,
            input_total: 0,
            input_limit: 0,
            queued: 0,
            marks: Marks::default(),
            backlog: None,
            tls: None,
            websocket: None,
            dialled: None,
            turn: (NONE, NONE),
            linger: None,
        });
        slot
    }

    fn register(&mut self, slot: usize) -> bool {
        let conn = &mut self.slots[slot];
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut conn.socket, conn.key.token(), both)
            .is_ok()
    }

    fn find(&self, key: Key) -> Option<usize> {
        self.slots
            .get(key.slot())
            .filter(|conn| conn.key == key)
            .map(|_| key.slot())
    }

    /// Asks the link to open the connection.
    fn open(&mut self, now: Instant, slot: usize, facts: Option<TlsFacts>, above: &mut impl Above) {
        let conn = &mut self.slots[slot];
        conn.stage = Stage::Opening;
        let Ok(local) = conn.socket.local_addr() else {
            return self.end(now, slot, CloseReason::SocketError, above);
        };
        let open = Open {
            kind: conn.kind,
            transport: conn.transport,
            peer: conn.peer,
            local,
            tls: facts,
            dial: conn.dialled.as_ref().map(|d| d.dial.dial),
        };
        match above.open(now, conn.key, open) {
            Opening::Now(id, room) => self.live(now, slot, id, room, above),
            Opening::Later => {}
            Opening::Refused => self.turn_away(now, slot, above),
        }
    }

    /// There is no server for the connection. In XMPP only a server could say so: there the end alone is seen, and it is one in
    /// good order, whatever the client has sent meanwhile.
    fn turn_away(&mut self, now: Instant, slot: usize, above: &mut impl Above) {
        metrics::add(&self.shared.metrics.refused_no_server, 1);
        let conn = &mut self.slots[slot];
        if conn.websocket.is_some() {
            self.answer(now, slot, &handshake::no_server());
        } else if conn.dialled.is_some() {
            self.end(now, slot, CloseReason::Limit, above);
        } else {
            conn.close_after = Some(CloseReason::Limit);
            self.linger(now, slot, Stage::Answered);
        }
    }

    fn live(&mut self, now: Instant, slot: usize, id: ConnId, limit: u64, above: &mut impl Above) {
        let conn = &mut self.slots[slot];
        conn.id = id;
        conn.stage = Stage::Live;
        conn.input_limit = limit;
        self.switch_protocols(now, slot);
        let conn = &self.slots[slot];
        if conn.kind != ListenerKind::S2s && conn.counted {
            self.logins.push_back((now + self.limits.login, conn.key));
            self.wake_by(now + AGE_TICK);
        } else if conn.counted && !conn.noted {
            // Servers prove themselves by other means, and get no Note; the login limits are for those who do.
            self.set_noted(self.slots[slot].key, above);
        }
        if self.slots[slot].readable {
            self.read_again(slot);
        }
    }

    /// Starts TLS as the accepting side.
    fn begin_tls(
        &mut self,
        now: Instant,
        slot: usize,
        direct: bool,
        request_certificate: bool,
    ) -> bool {
        let conn = &mut self.slots[slot];
        let Some(configs) = self.shared.certs.current() else {
            return false;
        };
        let request_certificate = request_certificate
            || conn.request_certificate
            || (direct && conn.kind == ListenerKind::S2s);
        let wanted = crate::tls::certs::Wanted {
            kind: conn.kind,
            direct,
            http: conn.websocket.is_some(),
            request_certificate,
        };
        let Ok(tls) = crate::tls::Tls::server(configs.server(wanted)) else {
            return false;
        };
        conn.tls = Some(ConnTls::new(tls));
        self.handshake_ends
            .push_back((now + self.limits.handshake, conn.key));
        self.wake_by(now + AGE_TICK);
        true
    }

    /// Readiness of a socket, as mio says it.
    pub fn handle_ready(
        &mut self,
        now: Instant,
        key: Key,
        event: &mio::event::Event,
        above: &mut impl Above,
    ) {
        let Some(slot) = self.find(key) else { return };
        if self.slots[slot].stage == Stage::Connecting {
            return self.dial_ready(now, slot, above);
        }
        if event.is_writable() && self.slots[slot].backlog.is_some() {
            self.flush_backlog(now, slot);
            self.tell_drained(now, slot, above);
        }
        let conn = &mut self.slots[slot];
        if event.is_read_closed() || event.is_error() {
            conn.half_closed = true;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.readable = true;
            self.read(now, slot, above);
        }
    }

    /// Reads on where a turn's share was used up.
    pub fn handle_again(&mut self, now: Instant, above: &mut impl Above) {
        for key in std::mem::take(&mut self.again) {
            if let Some(slot) = self.find(key) {
                self.slots[slot].in_again = false;
                self.read(now, slot, above);
            }
        }
    }

    fn read_again(&mut self, slot: usize) {
        let conn = &mut self.slots[slot];
        if !conn.in_again {
            conn.in_again = true;
            self.again.push(conn.key);
        }
    }

    /// The latest moment for `handle_timeout`; `Some(now)` if there is reading left.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.again.is_empty() {
            return Some(now);
        }
        let hurried = self.hurried.poll_timeout();
        [
            hurried,
            self.next_tick,
            self.next_age,
            self.handshakes.retry_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant, above: &mut impl Above) {
        if self.hurried.poll_timeout().is_some_and(|t| t <= now) {
            self.hurry(now, above);
        }
        if self.next_tick.is_some_and(|t| t <= now) {
            self.tick(now, above);
        }
        if self.next_age.is_some_and(|t| t <= now) {
            self.ages(now, above);
        }
        if self.handshakes.retry_at.is_some_and(|t| t <= now) {
            self.handshakes.retry_at = None;
            self.admit_waiting(now);
        }
    }

    /// Ages are to be looked at by then.
    fn wake_by(&mut self, at: Instant) {
        self.next_age = Some(self.next_age.map_or(at, |earlier| earlier.min(at)));
    }

    fn ages(&mut self, now: Instant, above: &mut impl Above) {
        while let Some(key) = due(&mut self.logins, now) {
            if let Some(slot) = self.find(key)
                && !self.slots[slot].noted
                && self.slots[slot].stage != Stage::Closing
            {
                metrics::add(&self.shared.metrics.closed_login_age, 1);
                self.end(now, slot, CloseReason::Limit, above);
            }
        }
        while let Some(key) = due(&mut self.handshake_ends, now) {
            let Some(slot) = self.find(key) else { continue };
            let conn = &self.slots[slot];
            let late = conn.stage == Stage::Connecting
                || conn
                    .tls
                    .as_ref()
                    .is_some_and(|t| t.admission != Admission::Done);
            if late && conn.stage == Stage::Connecting {
                self.dial_next(now, slot, "timed out", above);
            } else if conn.stage == Stage::Greeting {
                self.answer(now, slot, &handshake::too_slow());
            } else if late {
                self.end(now, slot, CloseReason::TlsError, above);
            }
        }
        while let Some(key) = due(&mut self.pings, now) {
            self.ping(now, key);
        }
        let queues = [&self.logins, &self.handshake_ends, &self.pings];
        let first = queues.iter().filter_map(|q| Some(q.front()?.0)).min();
        self.next_age = first.map(|at| at.max(now + AGE_TICK));
    }

    /// Ends a connection now: last counts, Closed, socket gone.
    fn end(&mut self, now: Instant, slot: usize, reason: CloseReason, above: &mut impl Above) {
        self.last_frame(slot, status_of(reason));
        if matches!(self.slots[slot].stage, Stage::Live | Stage::Closing) {
            self.report_drained(now, slot, above);
            above.closed(now, self.slots[slot].id, reason);
        } else if let Some(dialled) = self.slots[slot].dialled.take() {
            above.dial_failed(now, dialled.dial.dial, "connection lost before it was open");
        }
        let m = &self.shared.metrics;
        let counter = match reason {
            CloseReason::Normal | CloseReason::Shutdown => &m.closed_normal,
            CloseReason::SocketError => &m.closed_socket,
            CloseReason::TlsError => &m.closed_tls,
            CloseReason::SlowClient => &m.closed_slow,
            _ => &m.closed_server,
        };
        metrics::add(counter, 1);
        self.remove(slot, above);
    }

    /// Takes a connection out without telling the link.
    fn remove(&mut self, slot: usize, above: &mut impl Above) {
        let mut conn = self.slots.remove(slot);
        if conn.counted {
            above.left(conn.peer.ip(), conn.noted);
        }
        if let Some(tls) = &mut conn.tls {
            match tls.admission {
                Admission::Admitted => self.handshake_over(false),
                Admission::Waiting => self.handshakes.waiting.retain(|k| *k != conn.key),
                Admission::NotAsked | Admission::Done => {}
            }
            if !conn.shut && conn.backlog.is_none() {
                self.cipher.clear();
                tls.tls.close_notify(&mut self.cipher);
                // The last word of a socket that is closed anyway.
                let _ = conn.socket.write(&self.cipher);
                self.cipher.clear();
            }
        }
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
        }
    }

    fn handshake_over(&mut self, good: bool) {
        self.handshakes.active = self.handshakes.active.saturating_sub(1);
        metrics::sub(&self.shared.metrics.handshaking, 1);
        let counter = if good {
            &self.shared.metrics.handshakes
        } else {
            &self.shared.metrics.handshakes_failed
        };
        metrics::add(counter, 1);
        if !self.handshakes.waiting.is_empty() {
            // Now is in the past by the time it is looked at: the next turn admits.
            self.handshakes.retry_at.get_or_insert_with(Instant::now);
        }
    }

    /// May this handshake go on? If not it is in line.
    fn admit(&mut self, now: Instant, slot: usize) -> bool {
        let hs = &mut self.handshakes;
        let conn = &mut self.slots[slot];
        let Some(tls) = &mut conn.tls else {
            return true;
        };
        match tls.admission {
            Admission::Admitted | Admission::Done => return true,
            Admission::Waiting => return false,
            Admission::NotAsked => {}
        }
        if hs.waiting.is_empty() && hs.active < hs.active_max {
            match hs.bucket.take(now) {
                Ok(()) => {
                    tls.admission = Admission::Admitted;
                    hs.active += 1;
                    metrics::add(&self.shared.metrics.handshaking, 1);
                    return true;
                }
                Err(until) => hs.retry_at = Some(until),
            }
        }
        tls.admission = Admission::Waiting;
        hs.waiting.push_back(conn.key);
        false
    }

    fn admit_waiting(&mut self, now: Instant) {
        while self.handshakes.active < self.handshakes.active_max {
            let Some(&key) = self.handshakes.waiting.front() else {
                return;
            };
            if let Err(until) = self.handshakes.bucket.take(now) {
                self.handshakes.retry_at = Some(until);
                return;
            }
            self.handshakes.waiting.pop_front();
            if let Some(slot) = self.find(key)
                && let Some(tls) = &mut self.slots[slot].tls
            {
                tls.admission = Admission::Admitted;
                self.handshakes.active += 1;
                metrics::add(&self.shared.metrics.handshaking, 1);
                self.read_again(slot);
            }
        }
    }
}

/// The first of a queue in order of time, if its time has come.
fn due(queue: &mut VecDeque<(Instant, Key)>, now: Instant) -> Option<Key> {
    let (at, key) = *queue.front()?;
    (at <= now).then(|| {
        queue.pop_front();
        key
    })
}
