//! The model around the two ends. Clients write elements `<conn nonce>:<n>;`, the server commits each and answers it with
//! a stored stanza `o<n>;`; in between it sends things it does not store (`u<n>;`), some of them long, some by Fanout.

#[path = "sessions.rs"]
mod sessions;

use bytes::BytesMut;
use proto::frame::*;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{ServerSide, ServerSideConfig, read_hello};
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
            assert!(
                session.acked.iter().all(|acked| *acked),
                "client {id}: and was acknowledged"
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
