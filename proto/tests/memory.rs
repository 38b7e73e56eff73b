//! What an idle connection costs in memory, and that bounds hold: counted by an allocator that counts.

#![allow(clippy::unwrap_used)]
// Helpers of tests are tests.

// The one way to count is to be the allocator; it only adds up and passes on.
#![allow(unsafe_code)]

use bytes::{Bytes, BytesMut};
use proto::frame::*;
use proto::limits;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::{Duration, Instant};

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocated() -> isize {
    ALLOCATED.load(Ordering::Relaxed)
}

struct Pair {
    now: Instant,
    mux: MuxSide,
    server: ServerSide,
    to_server: BytesMut,
    to_mux: BytesMut,
}

impl Pair {
    fn new(change: impl FnOnce(&mut MuxSideConfig)) -> Self {
        let now = Instant::now();
        let mut config = MuxSideConfig::new("m", BootId([1; 16]));
        change(&mut config);
        let mut mux = MuxSide::new(now, config);
        mux.handle_link_up(now);
        let mut hello = BytesMut::from(&mux.poll_link_output().expect("Hello")[..]);
        let hello = read_hello(&mut hello).unwrap().unwrap();
        let config = ServerSideConfig::new("s", BootId([2; 16]), StoreId([3; 16]), Role::Mux);
        let server = ServerSide::accept(now, config, hello).unwrap();
        let mut pair = Self {
            now,
            mux,
            server,
            to_server: BytesMut::new(),
            to_mux: BytesMut::new(),
        };
        pair.pump();
        pair
    }

    /// Moves bytes until nothing moves; returns what both ends said.
    fn pump(&mut self) -> (Vec<MuxEvent>, Vec<ServerEvent>) {
        let mut events = (Vec::new(), Vec::new());
        for _ in 0..6 {
            self.now += Duration::from_millis(100);
            self.server.handle_timeout(self.now);
            self.mux.handle_timeout(self.now);
            while let Some(chunk) = self.server.poll_output() {
                self.to_mux.extend_from_slice(&chunk);
            }
            self.mux
                .handle_link_bytes(self.now, &mut self.to_mux)
                .unwrap();
            while let Some(chunk) = self.mux.poll_link_output() {
                self.to_server.extend_from_slice(&chunk);
                self.server
                    .handle_bytes(self.now, &mut self.to_server)
                    .unwrap();
            }
            events
                .0
                .extend(std::iter::from_fn(|| self.mux.poll_event()));
            events
                .1
                .extend(std::iter::from_fn(|| self.server.poll_event()));
        }
        (self.to_mux, self.to_server) = (BytesMut::new(), BytesMut::new());
        events
    }

    fn open(&mut self) -> ConnId {
        let open = Open {
            kind: ListenerKind::C2s,
            transport: Transport::Tcp,
            peer: ([192, 0, 2, 1], 4000).into(),
            local: ([192, 0, 2, 2], 5222).into(),
            tls: None,
            dial: None,
        };
        self.mux.open(self.now, open).expect("accepting")
    }
}

/// One test, because the allocator counts for the whole process.
#[test]
fn memory_is_bounded() {
    idle_connections_are_small();
    unsettled_input_is_bounded_and_shared_fairly();
    one_byte_at_a_time_costs_little_more_than_the_bytes();
    a_client_that_acknowledges_nothing_is_closed();
}

fn idle_connections_are_small() {
    // Just past a doubling of the tables: the worst case.
    const CONNS: isize = 115_000;
    let before = allocated();
    let mut pair = Pair::new(|_| {});
    let conns: Vec<ConnId> = (0..CONNS).map(|_| pair.open()).collect();
    pair.pump();
    // Each has spoken once and been answered, then is idle.
    for conn in &conns {
        pair.mux.input(pair.now, *conn, &[b'x'; 500], false);
    }
    pair.pump();
    for conn in &conns {
        let bytes = Bytes::from_static(b"<message/>");
        let output = Output {
            bytes,
            last: true,
            stanza: true,
            stored: Some(StoredId(1)),
        };
        pair.server
            .send_tracked(Frame::Output(*conn, output))
            .unwrap();
        let (settled_bytes, settled_stanzas) = (500, 1);
        let marks = Marks {
            settled_bytes,
            settled_stanzas,
            forget_stanzas: 1,
            input_bytes_max: 20_000,
        };
        pair.server
            .send_tracked(Frame::Marks(*conn, marks))
            .unwrap();
        pair.server
            .send_tracked(Frame::Note(*conn, NoteKey([4; 16])))
            .unwrap();
    }
    pair.pump();
    drop(conns);
    assert_eq!(
        (
            pair.mux.retained_bytes(),
            pair.server.retained_bytes(),
            pair.mux.unsettled_bytes()
        ),
        (0, 0, 0)
    );
    let both = allocated() - before;
    drop(pair.server);
    let mux = allocated() - before;
    println!(
        "an idle connection: mux {} bytes, server {} bytes",
        mux / CONNS,
        (both - mux) / CONNS
    );
    assert!(mux / CONNS <= 200, "mux: {} bytes", mux / CONNS);
    assert!(
        (both - mux) / CONNS <= 150,
        "server: {} bytes",
        (both - mux) / CONNS
    );
}

fn unsettled_input_is_bounded_and_shared_fairly() {
    const MAX: usize = 4_000_000;
    /// What everybody may hold, whatever others do.
    const FLOOR: usize = 2_048;
    let mut pair = Pair::new(|config| config.unsettled_bytes_max = MAX);
    let fill = |pair: &mut Pair, conn: ConnId| {
        while let room @ 1.. = pair.mux.input_room(conn) {
            pair.mux.input(pair.now, conn, &vec![b'x'; room], false);
        }
    };
    let log_in = |pair: &mut Pair| {
        let conn = pair.open();
        pair.pump();
        let note = Frame::Note(conn, NoteKey([5; 16]));
        let bytes = Bytes::from_static(b"<success/>");
        let told = Output {
            bytes,
            last: true,
            stanza: false,
            stored: None,
        };
        let marks = Marks {
            input_bytes_max: 300_000,
            ..Marks::default()
        };
        for frame in [note, Frame::Output(conn, told), Frame::Marks(conn, marks)] {
            pair.server.send_tracked(frame).unwrap();
        }
        pair.pump();
        conn
    };
    let early = log_in(&mut pair);
    // Each fills its window, with an element that never ends.
    let hogs: Vec<ConnId> = (0..500).map(|_| pair.open()).collect();
    for conn in &hogs {
        fill(&mut pair, *conn);
    }
    let held = pair.mux.unsettled_bytes();
    assert!(held <= MAX / 4 + hogs.len() * FLOOR, "{held}");
    let late = pair.open();
    assert_eq!(pair.mux.input_room(late), FLOOR, "a log-in fits");
    // Whoever has logged in, before or now, does not notice.
    for session in [early, log_in(&mut pair)] {
        fill(&mut pair, session);
        let more = pair.mux.unsettled_bytes() - held;
        assert!(more >= 200_000, "a long element has room: {more}");
        pair.mux.closed(pair.now, session, CloseReason::Normal);
    }
    // And if sessions do the same, the rest can say something short.
    let sessions: Vec<ConnId> = (0..100).map(|_| log_in(&mut pair)).collect();
    for conn in &sessions {
        fill(&mut pair, *conn);
    }
    let held = pair.mux.unsettled_bytes();
    assert!(
        held <= MAX + (hogs.len() + sessions.len()) * FLOOR,
        "{held}"
    );
    let last = log_in(&mut pair);
    assert!(pair.mux.input_room(last) >= FLOOR);
    pair.pump();
    // When the hogs go, those who had to wait hear of it.
    let waiting = pair.open();
    let first = pair.mux.input_room(waiting);
    pair.mux.input(pair.now, waiting, &vec![b'x'; first], false);
    assert_eq!(pair.mux.input_room(waiting), 0);
    let mut events = Vec::new();
    for conn in hogs {
        pair.mux.closed(pair.now, conn, CloseReason::Normal);
        events.extend(pair.pump().0);
        let close = Close {
            last: Bytes::new(),
            reason: CloseReason::Normal,
        };
        pair.server.send(Frame::Close(conn, close)).unwrap();
    }
    events.extend(pair.pump().0);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, MuxEvent::InputRoom { conn, .. } if *conn == waiting))
    );
    assert!(pair.mux.input_room(waiting) > 0);
}

fn one_byte_at_a_time_costs_little_more_than_the_bytes() {
    let mut pair = Pair::new(|_| {});
    let conn = pair.open();
    let before = allocated();
    for _ in 0..limits::INPUT_WINDOW_INITIAL {
        pair.mux.input(pair.now, conn, b"<", false);
    }
    pair.pump();
    let held = allocated() - before;
    assert!(
        held < 4 * limits::INPUT_WINDOW_INITIAL as isize + 2 * limits::CHUNK_BYTES as isize,
        "{held}"
    );
    assert_eq!(pair.mux.input_room(conn), 0);
    // Past the window: the caller's defect costs the connection, not the link.
    pair.mux.input(pair.now, conn, b"<", false);
    let (events, _) = pair.pump();
    assert!(events.contains(&MuxEvent::Forget {
        conn,
        reason: CloseReason::Limit
    }));
}

fn a_client_that_acknowledges_nothing_is_closed() {
    let mut pair = Pair::new(|_| {});
    let conn = pair.open();
    pair.pump();
    for id in 0..=limits::HELD_STORED_MAX as u64 {
        let bytes = Bytes::from_static(b"<message/>");
        let output = Output {
            bytes,
            last: true,
            stanza: true,
            stored: Some(StoredId(id)),
        };
        pair.server
            .send_tracked(Frame::Output(conn, output))
            .unwrap();
    }
    let (events, told) = pair.pump();
    assert!(events.contains(&MuxEvent::Forget {
        conn,
        reason: CloseReason::SlowClient
    }));
    // What the mux did not keep is reported taken only after Closed.
    let closed = told
        .iter()
        .position(|event| *event == ServerEvent::Closed(conn, CloseReason::SlowClient));
    let last = told.iter().position(|event| {
        *event == ServerEvent::Taken(conn, StoredId(limits::HELD_STORED_MAX as u64))
    });
    assert!(closed.expect("told") < last.expect("told"));
}
