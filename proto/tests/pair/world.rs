//! The model around the two ends. Clients write elements `<conn nonce>:<n>;`, the server commits each and answers it with
//! a stored stanza `o<n>;`; in between it sends things it does not store (`u<n>;`), some of them long, some by Fanout.

use bytes::{Bytes, BytesMut};
use proto::frame::*;
use proto::limits;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{SendError, ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Chances in 1000 per step.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub cut: u64,
    pub kill_server: u64,
    pub kill_mux: u64,
    pub long_outage: u64,
    pub other_store: u64,
    /// Small bounds on what is retained.
    pub tight: bool,
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, in_1000: u64) -> bool {
        self.below(1000) < in_1000
    }

    fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.next().to_be_bytes());
        key[8..].copy_from_slice(&self.next().to_be_bytes());
        key
    }
}

/// A client and its socket at the mux.
struct Client {
    /// Bytes it has written that the mux has not read.
    unread: BytesMut,
    /// Elements it has written.
    written: u64,
    /// Stored stanzas received.
    stored: u64,
    /// Last number of what is not stored.
    unstored: u64,
    /// Elements received, and those its TCP has acknowledged.
    elements: u64,
    drained: u64,
    /// It has asked for TLS and says nothing until it has it.
    waits: bool,
    start_tls: bool,
    wants_close: bool,
    /// The mux was told to close it.
    closing: bool,
    gone: bool,
}

/// What survives a killed server.
#[derive(Default)]
struct Session {
    /// Number of elements committed.
    committed: u64,
    settled_bytes: u64,
    /// For each stored stanza whether its acknowledgement is on disk; ids are 1 and up.
    acked: Vec<bool>,
    ended: bool,
    client: u64,
}

struct Sent {
    element: u64,
    stanza: u64,
    stored: Option<StoredId>,
}

/// What dies with a server.
#[derive(Default)]
struct ServerConn {
    note: Option<NoteKey>,
    buf: BytesMut,
    /// Elements parsed and not committed: their lengths.
    parsed: Vec<usize>,
    settled_bytes: u64,
    settled_stanzas: u64,
    elements: u64,
    stanzas: u64,
    drained: u64,
    sent: Vec<Sent>,
    forget: u64,
    unstored: u64,
    tls_asked: bool,
    tls_done: bool,
    mux_closed: bool,
    /// We have sent Close; what was on its way still comes.
    over: bool,
    marks_due: bool,
    /// Stored stanzas to be sent, in order: a server does not write faster than the link takes.
    queue: VecDeque<u64>,
}

/// One TCP connection; `dead` is seen by each end when it looks.
#[derive(Default)]
struct Wire {
    to_server: BytesMut,
    to_mux: BytesMut,
    dead: bool,
}

pub struct World {
    rng: Rng,
    faults: Faults,
    quiet: bool,
    now: Instant,
    transport: Option<Wire>,
    mux_sees: bool,
    server_sees: bool,
    mux: MuxSide,
    mux_in: BytesMut,
    redial_at: Instant,
    accepting: bool,
    clients: BTreeMap<u64, Client>,
    server: Option<ServerSide>,
    server_boot: BootId,
    server_in: BytesMut,
    server_back_at: Option<Instant>,
    conns: BTreeMap<u64, ServerConn>,
    store: StoreId,
    sessions: BTreeMap<[u8; 16], Session>,
    /// Something not stored may be missing.
    unstored_lost: bool,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let now = Instant::now();
        let server_boot = BootId(rng.key());
        let store = StoreId(rng.key());
        let mux = new_mux(&mut rng, now, faults);
        Self {
            rng,
            faults,
            quiet: false,
            now,
            transport: None,
            mux_sees: false,
            server_sees: false,
            mux,
            mux_in: BytesMut::new(),
            redial_at: now,
            accepting: false,
            clients: BTreeMap::new(),
            server: None,
            server_boot,
            server_in: BytesMut::new(),
            server_back_at: None,
            conns: BTreeMap::new(),
            store,
            sessions: BTreeMap::new(),
            unstored_lost: false,
        }
    }

    // ---- time and faults ----

    pub fn step(&mut self) {
        let outage = !self.mux_sees && self.now + Duration::from_secs(15) < self.redial_at;
        let longest = if outage { 20_000 } else { 120 };
        self.now += Duration::from_millis(self.rng.below(longest));
        if !self.quiet {
            self.faults();
        }
        self.timeouts();
        self.dial();
        self.clients_act();
        self.server_acts();
        self.move_bytes();
    }

    fn faults(&mut self) {
        let faults = self.faults;
        if self.rng.chance(faults.cut) {
            self.cut();
            self.redial_at = self.now + Duration::from_millis(self.rng.below(5000));
        }
        if self.rng.chance(faults.long_outage) {
            self.cut();
            let seconds = 20 + self.rng.below(300);
            self.redial_at = self.now + Duration::from_secs(seconds);
        }
        if self.rng.chance(faults.kill_server) && self.server_back_at.is_none() {
            self.kill_server();
        }
        if self.rng.chance(faults.other_store) {
            self.kill_server();
            self.store = StoreId(self.rng.key());
            self.sessions.clear();
        }
        if self.rng.chance(faults.kill_mux) {
            self.cut();
            self.unstored_lost = true;
            self.mux = new_mux(&mut self.rng, self.now, faults);
            self.mux_sees = false;
            self.accepting = false;
            for client in self.clients.values_mut() {
                client.gone = true;
            }
            self.clients.clear();
        }
    }

    /// Cuts the link; some of what was on its way arrives all the same.
    fn cut(&mut self) {
        self.move_bytes();
        if let Some(transport) = &mut self.transport {
            transport.dead = true;
        }
    }

    fn kill_server(&mut self) {
        self.cut();
        self.server = None;
        self.server_sees = false;
        self.server_in.clear();
        self.conns.clear();
        self.server_boot = BootId(self.rng.key());
        self.unstored_lost = true;
        self.server_back_at = Some(self.now + Duration::from_millis(self.rng.below(8000)));
    }

    fn timeouts(&mut self) {
        if self.mux.poll_timeout().is_some_and(|due| due <= self.now) {
            self.mux.handle_timeout(self.now);
        }
        self.mux_events();
        if let Some(server) = &mut self.server {
            if server.poll_timeout().is_some_and(|due| due <= self.now) {
                server.handle_timeout(self.now);
            }
            self.server_events();
        }
        // Either end sees a dead transport some time after its death.
        if self
            .transport
            .as_ref()
            .is_some_and(|transport| transport.dead)
        {
            if self.mux_sees && self.rng.chance(500) {
                self.mux_sees = false;
                self.mux.handle_link_down(self.now);
                self.mux_events();
            }
            if self.server_sees && self.rng.chance(200) {
                self.server_sees = false;
                if let Some(server) = &mut self.server {
                    server.handle_down(self.now);
                }
            }
        }
    }

    fn dial(&mut self) {
        if let Some(at) = self.server_back_at {
            if self.now < at {
                return;
            }
            self.server_back_at = None;
        }
        if !self.mux_sees && self.now >= self.redial_at {
            self.transport = Some(Wire::default());
            self.mux_in = BytesMut::new();
            self.mux_sees = true;
            self.server_sees = false;
            self.mux.handle_link_up(self.now);
            self.server_in = BytesMut::new();
        }
    }

    // ---- the link ----

    fn move_bytes(&mut self) {
        let Some(transport) = &mut self.transport else {
            return;
        };
        if transport.dead {
            return;
        }
        if self.mux_sees {
            while transport.to_server.len() < 100_000
                && let Some(bytes) = self.mux.poll_link_output()
            {
                transport.to_server.extend_from_slice(&bytes);
            }
        }
        if self.server_sees
            && let Some(server) = &mut self.server
        {
            while transport.to_mux.len() < 100_000
                && let Some(bytes) = server.poll_output()
            {
                transport.to_mux.extend_from_slice(&bytes);
            }
        }
        for to_server in [true, false] {
            let Some(transport) = self.transport.as_mut().filter(|transport| !transport.dead)
            else {
                return;
            };
            let pipe = if to_server {
                &mut transport.to_server
            } else {
                &mut transport.to_mux
            };
            let most = if self.quiet {
                1 << 30
            } else {
                1 << self.rng.below(18)
            };
            let n = (self.rng.below(most) as usize + 1).min(pipe.len());
            let bytes = pipe.split_to(n);
            if to_server {
                self.server_reads(&bytes)
            } else {
                self.mux_reads(&bytes)
            }
        }
    }

    fn mux_reads(&mut self, bytes: &[u8]) {
        if self.mux_sees {
            self.mux_in.extend_from_slice(bytes);
            self.mux
                .handle_link_bytes(self.now, &mut self.mux_in)
                .expect("the server keeps the protocol");
            self.mux_events();
        }
    }

    fn server_reads(&mut self, bytes: &[u8]) {
        if self.server_back_at.is_some() {
            return;
        }
        self.server_in.extend_from_slice(bytes);
        if !self.server_sees {
            let Some(hello) = read_hello(&mut self.server_in).expect("the mux keeps the protocol")
            else {
                return;
            };
            match &mut self.server {
                Some(server) if server.peer().1 == hello.boot => {
                    server.handle_hello(self.now, hello).expect("a good Hello");
                }
                _ => {
                    // Another boot of the mux: the connections of the one before are lost.
                    self.lose_conns();
                    let mut config =
                        ServerSideConfig::new("server", self.server_boot, self.store, Role::Mux);
                    if self.faults.tight {
                        config.retained_bytes_max = 20_000;
                    }
                    self.server =
                        Some(ServerSide::accept(self.now, config, hello).expect("a good Hello"));
                }
            }
            self.server_sees = true;
        }
        if let Some(server) = &mut self.server {
            server
                .handle_bytes(self.now, &mut self.server_in)
                .expect("the mux keeps the protocol");
            self.server_events();
        }
    }

    // ---- the mux's sockets ----

    fn mux_events(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                MuxEvent::Accepting(accepting) => self.accepting = accepting,
                MuxEvent::Output {
                    conn,
                    bytes,
                    element,
                } => self.client_receives(conn, &bytes, element),
                MuxEvent::StartTls { conn, element, .. } => {
                    let client = self.clients.get_mut(&conn.0).expect("known");
                    client.elements += 1;
                    assert_eq!(client.elements, element);
                    client.start_tls = true;
                }
                MuxEvent::InputRoom { .. } | MuxEvent::LinkUp { .. } | MuxEvent::Drain => {}
                MuxEvent::Dial(dial) => self.mux.dial_failed(self.now, dial.dial, "no such\nhost"),
                MuxEvent::Close { conn, .. } => {
                    self.clients.get_mut(&conn.0).expect("known").closing = true
                }
                MuxEvent::Forget { conn, .. } => {
                    self.clients.remove(&conn.0).expect("known");
                }
                MuxEvent::LinkFailed(_) => {
                    self.mux_sees = false;
                    if let Some(transport) = &mut self.transport {
                        transport.dead = true;
                    }
                }
            }
        }
    }

    fn client_receives(&mut self, conn: ConnId, bytes: &[u8], element: u64) {
        let client = self
            .clients
            .get_mut(&conn.0)
            .expect("output for a socket that is open");
        client.elements += 1;
        assert_eq!(client.elements, element, "elements are counted alike");
        assert_eq!(bytes.last(), Some(&b';'), "elements are whole");
        let text = std::str::from_utf8(bytes).expect("text");
        let number: u64 = text[1..]
            .trim_end_matches(';')
            .trim_end_matches('.')
            .parse()
            .expect("number");
        match bytes[0] {
            b'o' => {
                client.stored += 1;
                assert_eq!(
                    number, client.stored,
                    "stored stanzas arrive once and in order"
                );
            }
            b'u' => {
                assert!(
                    number > client.unstored,
                    "nothing arrives twice or out of order"
                );
                assert!(
                    self.unstored_lost || number == client.unstored + 1,
                    "nothing is lost with a link"
                );
                client.unstored = number;
            }
            other => panic!("kind {other}"),
        }
    }

    fn clients_act(&mut self) {
        if self.accepting && !self.quiet && self.clients.len() < 6 && self.rng.chance(200) {
            self.connect();
        }
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            let conn = ConnId(id);
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            if client.closing || client.wants_close {
                // The mux flushes, reports what was drained, and closes.
                let (elements, reason) = (client.elements, CloseReason::Normal);
                self.mux.drained(self.now, conn, elements);
                self.mux.closed(self.now, conn, reason);
                self.clients.remove(&id);
                self.mux_events();
                continue;
            }
            if client.start_tls && self.rng.chance(500) {
                client.start_tls = false;
                client.waits = false;
                let facts = TlsFacts {
                    version: 0x0304,
                    exporter: Some([7; 32]),
                    ..TlsFacts::default()
                };
                self.mux.secured(self.now, conn, facts);
            }
            if !self.quiet && !client.waits && self.rng.chance(300) {
                let text = format!("{id}:{};", client.written);
                client.written += 1;
                client.unread.extend_from_slice(text.as_bytes());
                if self.rng.chance(30) {
                    client.unread.extend_from_slice(&[b' '; 9000]);
                }
            }
            if !self.quiet && self.rng.chance(4) {
                client.wants_close = true;
            }
            let room = self.mux.input_room(conn);
            let read = room
                .min(client.unread.len())
                .min(self.rng.below(12_000) as usize);
            if !client.start_tls && read > 0 {
                let bytes = client.unread.split_to(read);
                let ended = self.rng.chance(300);
                self.mux.input(self.now, conn, &bytes, ended);
            }
            if client.drained < client.elements && self.rng.chance(400) {
                client.drained += 1 + self.rng.below(client.elements - client.drained);
                self.mux.drained(self.now, conn, client.drained);
            }
        }
        self.mux_events();
    }

    fn connect(&mut self) {
        let open = Open {
            kind: ListenerKind::C2s,
            transport: Transport::Tcp,
            peer: address(40_000),
            local: address(5222),
            tls: None,
            dial: None,
        };
        let conn = self.mux.open(self.now, open).expect("it accepts");
        let client = Client {
            unread: BytesMut::new(),
            written: 0,
            stored: 0,
            unstored: 0,
            elements: 0,
            drained: 0,
            waits: false,
            start_tls: false,
            wants_close: false,
            closing: false,
            gone: false,
        };
        assert!(
            self.clients.insert(conn.0, client).is_none(),
            "ids are never used again"
        );
    }

    // ---- the server's sessions ----

    fn server_events(&mut self) {
        while let Some(event) = self.server.as_mut().and_then(ServerSide::poll_event) {
            match event {
                ServerEvent::Up { continued } => {
                    if !continued && !self.conns.is_empty() {
                        self.conns.clear();
                        self.unstored_lost = true;
                    }
                }
                ServerEvent::Opened(id, _) => {
                    self.conns.insert(id.0, ServerConn::default());
                }
                ServerEvent::Resumed(id, resume) => self.resumed(id, *resume),
                ServerEvent::Input(id, input) => {
                    let conn = self.conns.get_mut(&id.0).expect("known");
                    if !conn.over {
                        conn.buf.extend_from_slice(&input.bytes);
                        parse(conn);
                    }
                }
                ServerEvent::Secured(id, facts) => {
                    assert_eq!(facts.version, 0x0304);
                    let conn = self.conns.get_mut(&id.0).expect("known");
                    assert!(conn.tls_asked || conn.over);
                    conn.tls_done = true;
                }
                ServerEvent::Drained(id, elements) => self.acknowledged(id, elements),
                ServerEvent::Closed(id, _) => {
                    self.conns.get_mut(&id.0).expect("known").mux_closed = true;
                }
                ServerEvent::Taken(id, stored) => {
                    // The mux has it, or had closed the connection before.
                    let client = self.clients.get(&id.0);
                    assert!(client.is_none_or(|client| client.stored >= stored.0 || client.gone));
                }
                ServerEvent::SettledTaken {
                    conn,
                    settled_stanzas,
                } => {
                    let known = self.conns.get(&conn.0);
                    assert!(
                        known.is_none_or(|known| known.note.is_none()
                            || settled_stanzas <= known.settled_stanzas)
                    );
                }
                ServerEvent::DialFailed(_, reason) => assert_eq!(reason, "no such host"),
                ServerEvent::Injected(id) => panic!("nobody injects into {id:?}"),
                ServerEvent::ResumeEnd | ServerEvent::Drain => {}
                ServerEvent::Admin(_) => panic!("not an administrator"),
                ServerEvent::Down(_) => {
                    self.server_sees = false;
                    if let Some(transport) = &mut self.transport {
                        transport.dead = true;
                    }
                    if let Some(server) = &mut self.server {
                        server.handle_down(self.now);
                    }
                }
                ServerEvent::Lost => {
                    self.lose_conns();
                    self.server = None;
                    return;
                }
            }
        }
    }

    /// The mux is lost: its sessions end.
    fn lose_conns(&mut self) {
        for session in self.sessions.values_mut() {
            session.ended = true;
        }
        self.conns.clear();
    }

    fn resumed(&mut self, id: ConnId, resume: Resume) {
        let mut conn = ServerConn {
            note: resume.note,
            settled_bytes: resume.settled_bytes,
            settled_stanzas: resume.settled_stanzas,
            elements: resume.elements,
            stanzas: resume.stanzas,
            tls_asked: resume.open.tls.is_some(),
            tls_done: resume.open.tls.is_some(),
            ..ServerConn::default()
        };
        // Numbers of what is not stored go on above any that an earlier server can have sent.
        conn.unstored = self.clients.get(&id.0).map_or(0, |client| client.unstored) + 1_000_000;
        let session = resume.note.and_then(|note| self.sessions.get_mut(&note.0));
        let Some(session) = session.filter(|session| !session.ended && session.client == id.0)
        else {
            // Not resumable. What it had sent and was not settled is not our affair.
            self.send(Frame::Close(
                id,
                Close {
                    last: Bytes::new(),
                    reason: CloseReason::NotResumable,
                },
            ));
            self.conns.insert(
                id.0,
                ServerConn {
                    over: true,
                    ..ServerConn::default()
                },
            );
            return;
        };
        assert!(
            resume.settled_bytes <= session.settled_bytes,
            "settled was said before it was on disk"
        );
        conn.settled_bytes = resume.settled_bytes;
        conn.settled_stanzas = resume.settled_stanzas;
        for held in &resume.held {
            conn.sent.push(Sent {
                element: held.element,
                stanza: held.stanza,
                stored: Some(held.id),
            });
        }
        let held: Vec<StoredId> = resume.held.iter().map(|held| held.id).collect();
        let missing: Vec<u64> = (1..=session.acked.len() as u64)
            .filter(|n| !session.acked[*n as usize - 1] && !held.contains(&StoredId(*n)))
            .collect();
        conn.drained = 0;
        self.conns.insert(id.0, conn);
        self.acknowledged(id, resume.drained);
        self.conns
            .get_mut(&id.0)
            .expect("inserted above")
            .queue
            .extend(missing);
    }

    fn acknowledged(&mut self, id: ConnId, elements: u64) {
        let conn = self.conns.get_mut(&id.0).expect("known");
        assert!(elements >= conn.drained);
        conn.drained = elements;
        let Some(session) = conn.note.and_then(|note| self.sessions.get_mut(&note.0)) else {
            return;
        };
        conn.sent.retain(|sent| {
            if sent.element > elements {
                return true;
            }
            if let Some(stored) = sent.stored {
                session.acked[stored.0 as usize - 1] = true;
            }
            conn.forget = conn.forget.max(sent.stanza);
            false
        });
        conn.marks_due = true;
    }

    fn server_acts(&mut self) {
        if self.server.is_none() {
            return;
        }
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            let conn = ConnId(id);
            self.send_queue(conn);
            let state = self.conns.get_mut(&id).expect("listed");
            let idle = state.parsed.is_empty();
            if state.mux_closed && (idle || self.rng.chance(300)) {
                // The connection ends, and with it the session.
                if let Some(session) = state.note.and_then(|note| self.sessions.get_mut(&note.0)) {
                    session.ended = true;
                }
                self.send(Frame::Close(
                    conn,
                    Close {
                        last: Bytes::new(),
                        reason: CloseReason::Normal,
                    },
                ));
                self.conns.remove(&id);
                continue;
            }
            if !idle && (self.quiet || self.rng.chance(300)) {
                self.commit(conn);
            } else if state.marks_due && (self.quiet || self.rng.chance(300)) {
                self.send_marks(conn);
            }
            if !self.quiet && self.rng.chance(100) {
                self.send_unstored(conn);
            }
            if !self.quiet && self.rng.chance(2) {
                let last = Bytes::from_static(b"</stream:stream>");
                self.send(Frame::Close(
                    conn,
                    Close {
                        last,
                        reason: CloseReason::PolicyViolation,
                    },
                ));
                if let Some(state) = self.conns.remove(&id)
                    && let Some(session) =
                        state.note.and_then(|note| self.sessions.get_mut(&note.0))
                {
                    session.ended = true;
                }
                self.conns.insert(
                    id,
                    ServerConn {
                        over: true,
                        ..ServerConn::default()
                    },
                );
            }
        }
        if !self.quiet && self.rng.chance(30) {
            self.send_fanout();
        }
        if !self.quiet && self.rng.chance(10) {
            let dial = Dial {
                dial: self.rng.next(),
                kind: ListenerKind::S2s,
                target: DialTarget::Srv("example.org".into()),
                tls: DialTls::Plain,
                server_name: "example.org".into(),
            };
            self.send(Frame::Dial(dial));
        }
    }

    /// Makes the elements parsed so far durable, answers each with a stored stanza, then says so.
    fn commit(&mut self, id: ConnId) {
        let new_key = self.rng.key();
        let state = self.conns.get_mut(&id.0).expect("known");
        let mut answers = Vec::new();
        let mut first = false;
        for len in std::mem::take(&mut state.parsed) {
            let bytes = state.buf.split_to(len);
            let text = std::str::from_utf8(&bytes).expect("text").trim_start();
            let (client, number) = text.trim_end_matches(';').split_once(':').expect("element");
            assert_eq!(client, id.0.to_string(), "input of another client");
            let number: u64 = number.parse().expect("number");
            let key = *state.note.get_or_insert_with(|| {
                first = true;
                NoteKey(new_key)
            });
            let session = self.sessions.entry(key.0).or_default();
            session.client = id.0;
            state.settled_bytes += len as u64;
            state.settled_stanzas += 1;
            if state.settled_bytes <= session.settled_bytes {
                // Settled before a kill, and the mux had not heard: recognised by its number, not done again.
                assert!(number < session.committed);
                continue;
            }
            assert_eq!(
                number, session.committed,
                "every element is settled once and in order"
            );
            session.committed += 1;
            session.settled_bytes = state.settled_bytes;
            session.acked.push(false);
            answers.push(session.acked.len() as u64);
        }
        if first {
            let key = state.note.expect("set above");
            self.send(Frame::Note(id, key));
        }
        self.conns
            .get_mut(&id.0)
            .expect("known")
            .queue
            .extend(answers);
        self.send_queue(id);
        self.send_marks(id);
    }

    fn send_marks(&mut self, id: ConnId) {
        let state = self.conns.get_mut(&id.0).expect("known");
        state.marks_due = false;
        let marks = Marks {
            settled_bytes: state.settled_bytes,
            settled_stanzas: state.settled_stanzas,
            forget_stanzas: state.forget,
            input_bytes_max: state.settled_bytes + limits::INPUT_WINDOW_INITIAL + 10_000,
        };
        self.send(Frame::Marks(id, marks));
    }

    fn send_queue(&mut self, id: ConnId) {
        while self.server.as_ref().expect("up").retained_bytes() < 10_000
            && let Some(n) = self.conns.get_mut(&id.0).expect("known").queue.pop_front()
        {
            self.send_stored(id, n);
        }
    }

    fn send_stored(&mut self, id: ConnId, n: u64) {
        let state = self.conns.get_mut(&id.0).expect("known");
        let dots = if !self.rng.chance(20) {
            0
        } else if self.faults.tight {
            5_000
        } else {
            150_000
        };
        let bytes = Bytes::from(format!("o{n}{};", ".".repeat(dots)));
        let output = Output {
            bytes,
            last: true,
            stanza: true,
            stored: Some(StoredId(n)),
        };
        if self
            .server
            .as_mut()
            .expect("up")
            .send_tracked(Frame::Output(id, output))
            .is_ok()
        {
            state.elements += 1;
            state.stanzas += 1;
            let stored = Some(StoredId(n));
            state.sent.push(Sent {
                element: state.elements,
                stanza: state.stanzas,
                stored,
            });
        }
    }

    fn send_unstored(&mut self, id: ConnId) {
        let state = self.conns.get_mut(&id.0).expect("known");
        if state.settled_bytes > 0 && !state.tls_asked && self.rng.chance(100) {
            let last = Bytes::from_static(b"<proceed/>");
            let start_tls = StartTls {
                last,
                request_client_certificate: false,
            };
            // Only while nothing is on its way, as in a negotiation.
            let quiet = self
                .clients
                .get(&id.0)
                .is_some_and(|client| client.unread.is_empty());
            let all_read = self.clients.get(&id.0).is_some_and(|client| {
                state.parsed.is_empty()
                    && state.buf.is_empty()
                    && client.written == state.settled_stanzas
            });
            if quiet
                && all_read
                && self
                    .server
                    .as_mut()
                    .expect("up")
                    .send(Frame::StartTls(id, start_tls))
                    .is_ok()
            {
                state.tls_asked = true;
                state.elements += 1;
                self.clients.get_mut(&id.0).expect("checked").waits = true;
            }
            return;
        }
        let bytes = Bytes::from(format!("u{};", state.unstored + 1));
        let output = Output {
            bytes,
            last: true,
            stanza: false,
            stored: None,
        };
        if self
            .server
            .as_mut()
            .expect("up")
            .send(Frame::Output(id, output))
            .is_ok()
        {
            state.unstored += 1;
            state.elements += 1;
        }
    }

    fn send_fanout(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        let mut targets = Vec::new();
        for (id, state) in &mut self.conns {
            // What the server's half would leave out must not be counted here.
            targets.push(FanoutTarget {
                conn: ConnId(*id),
                insert: Bytes::from((state.unstored + 1).to_string()),
                stored: None,
            });
        }
        let dots = if self.rng.chance(100) { 70_000 } else { 100 };
        let fanout = Fanout {
            prefix: Bytes::from_static(b"u"),
            suffix: Bytes::from(format!("{};", ".".repeat(dots))),
            stanza: true,
            targets,
        };
        let reached: Vec<u64> = fanout
            .targets
            .iter()
            .map(|target| target.conn.0)
            .filter(|id| server.is_open(ConnId(*id)))
            .collect();
        if fanout.targets.is_empty() || server.send_tracked(Frame::Fanout(fanout)).is_err() {
            return;
        }
        for id in reached {
            let state = self.conns.get_mut(&id).expect("listed");
            state.unstored += 1;
            state.elements += 1;
            state.stanzas += 1;
            state.sent.push(Sent {
                element: state.elements,
                stanza: state.stanzas,
                stored: None,
            });
        }
    }

    fn send(&mut self, frame: Frame) {
        match self.server.as_mut().expect("up").send_tracked(frame) {
            Ok(()) | Err(SendError::Gone) => {}
            Err(error) => panic!("{error}"),
        }
    }

    // ---- the end ----

    /// No more faults and nothing new: everything on its way arrives.
    pub fn settle_down(&mut self) {
        self.quiet = true;
        for _ in 0..400 {
            self.step();
        }
    }

    pub fn check_all_arrived(&self) {
        let server = self.server.as_ref().expect("the server is back");
        assert!(server.is_up() && self.mux.is_link_up());
        assert_eq!(server.conn_count(), self.mux.conn_count());
        assert!(
            server.retained_bytes() == 0 && self.mux.retained_bytes() == 0,
            "everything is acknowledged"
        );
        for (id, client) in &self.clients {
            let state = &self.conns[id];
            assert_eq!(
                state.settled_stanzas, client.written,
                "client {id}: everything it wrote is settled"
            );
            let Some(note) = state.note else { continue };
            let session = &self.sessions[&note.0];
            assert_eq!(session.committed, client.written);
            assert_eq!(
                client.stored,
                session.acked.len() as u64,
                "client {id}: every stored stanza arrived"
            );
        }
    }
}

fn new_mux(rng: &mut Rng, now: Instant, faults: Faults) -> MuxSide {
    let mut config = MuxSideConfig::new("mux", BootId(rng.key()));
    if faults.tight {
        config.retained_bytes_max = 5_000;
        config.unsettled_bytes_max = 200_000;
    }
    MuxSide::new(now, config)
}

/// Finds whole elements in what has come.
fn parse(conn: &mut ServerConn) {
    let done: usize = conn.parsed.iter().sum();
    let mut at = done;
    for (i, byte) in conn.buf.iter().enumerate().skip(done) {
        if *byte == b';' {
            conn.parsed.push(i + 1 - at);
            at = i + 1;
        }
    }
}
