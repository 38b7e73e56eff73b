//! One connection: its socket, what waits for it, and which output elements its TCP has acknowledged.
//!
//! In: bytes and elements in order. Out: what to write, how many elements are drained.
//! Owns: the socket. Never: keeps a buffer while idle; copies what the socket takes at once.
//!
//! ```text
//!  Connecting (dialled) ──► Handshake (TLS from the first byte) ──► Opening ──► Live ──► Closing ──► gone
//!                     └───► Opening (plain TCP) ──────────────────►      │
//!  A WebSocket client has Greeting (its HTTP request) before Opening; whoever gets another answer than the upgrade is Answered.
//!  Opening: the link has been asked for an id.   Live: has one; STARTTLS happens inside Live.
//!  Closing: the last bytes are out or waiting; we wait for their acknowledgement, not for input.
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Instant;

use mio::net::TcpStream;
use proto::frame::{CloseReason, ConnId, Dial, ListenerKind, Transport};

use crate::tls::Tls;
use crate::websocket::WebSocket;

/// Where a connection is in the event-loop threads: thread, generation and slot. Also its mio token, so an event
/// for an earlier connection in the same slot is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(u64);

impl Key {
    /// Tokens of this thread number are no connections.
    pub const NO_THREAD: u8 = 0xFF;

    /// Puts one together; of the generation 24 bits are kept.
    pub fn new(thread: u8, generation: u32, slot: u32) -> Self {
        Self(u64::from(thread) << 56 | u64::from(generation & 0xFF_FFFF) << 32 | u64::from(slot))
    }

    /// A token that is no connection's.
    pub const fn special(n: usize) -> mio::Token {
        mio::Token((Self::NO_THREAD as usize) << 56 | n)
    }

    /// The thread that holds it.
    pub fn thread(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The slot in that thread.
    pub fn slot(self) -> usize {
        (self.0 & 0xFFFF_FFFF) as usize
    }

    /// As mio token.
    pub fn token(self) -> mio::Token {
        mio::Token(self.0 as usize)
    }

    /// From a mio token.
    pub fn from_token(token: mio::Token) -> Self {
        Self(token.0 as u64)
    }
}

/// The stage of a connection; see the drawing above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Dialled, TCP not up yet.
    Connecting,
    /// TLS from the first byte, not done; the link does not know the connection.
    Handshake,
    /// A WebSocket listener's: the request is still to come; the link does not know the connection.
    Greeting,
    /// Its request was answered in HTTP: to be closed, and the link does not know of it.
    Answered,
    /// The link has been asked.
    Opening,
    /// The link knows it.
    Live,
    /// To be closed once its last bytes are acknowledged.
    Closing,
}

/// Progress of the admission of a TLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Nothing has been read yet.
    NotAsked,
    /// In line.
    Waiting,
    /// Counted among the handshakes under way.
    Admitted,
    /// Over.
    Done,
}

/// TLS of a connection and what belongs to it.
pub struct ConnTls {
    /// The machine.
    pub tls: Tls,
    /// Whether the handshake may go on.
    pub admission: Admission,
    /// Plaintext the link has no room for yet; no heap when empty.
    pub held: Vec<u8>,
    /// close_notify came.
    pub peer_closed: bool,
}

impl ConnTls {
    /// A handshake not begun.
    pub fn new(tls: Tls) -> Box<Self> {
        Box::new(Self {
            tls,
            admission: Admission::NotAsked,
            held: Vec::new(),
            peer_closed: false,
        })
    }
}

/// What a dialled connection must remember until it is open, and its name for a later STARTTLS.
pub struct Dialled {
    /// The order.
    pub dial: Dial,
    /// Addresses not tried yet.
    pub left: Vec<SocketAddr>,
}

/// An element that ends at a byte of the socket's stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    end: u64,
    /// The first is 1, so that no mark at all needs no room of its own.
    element: NonZeroU64,
}

/// Which elements end where in the byte stream, until they are acknowledged. The first is kept in place: a connection that
/// answers one at a time needs no heap.
#[derive(Default, Debug)]
pub struct Marks {
    first: Option<Mark>,
    /// Those after `first`; present only while there are any.
    #[expect(
        clippy::box_collection,
        reason = "three words less in each of many idle connections"
    )]
    rest: Option<Box<VecDeque<Mark>>>,
    drained: u64,
    /// Where the last drained element ends.
    drained_end: u64,
}

impl Marks {
    /// The element with this number ends at this byte.
    pub fn push(&mut self, end: u64, element: u64) {
        let Some(element) = NonZeroU64::new(element) else {
            return;
        };
        let mark = Mark { end, element };
        if self.first.is_none() {
            self.first = Some(mark);
        } else {
            self.rest.get_or_insert_default().push_back(mark);
        }
    }

    /// So many bytes of the stream are acknowledged. `Some`: that many elements are drained, more than last time.
    pub fn acknowledge(&mut self, bytes: u64) -> Option<u64> {
        let before = self.drained;
        while let Some(mark) = self.first
            && mark.end <= bytes
        {
            self.drained = mark.element.get();
            self.drained_end = mark.end;
            self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
            if self.first.is_none() {
                self.rest = None;
            }
        }
        (self.drained > before).then_some(self.drained)
    }

    /// Nothing outstanding.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes, of so many in the stream, that the link has not been told of as drained; 0 if no element is among them.
    pub fn untold(&self, queued: u64) -> u64 {
        match self.first {
            Some(_) => queued.saturating_sub(self.drained_end),
            None => 0,
        }
    }
}

/// Bytes that wait for the socket. Copied out of the link's buffer, which they would keep alive whole.
#[derive(Default, Debug)]
pub struct Backlog {
    bytes: Vec<u8>,
    start: usize,
}

impl Backlog {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Nothing waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Appends.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The socket took so many. Frees the memory when empty, moves what is left when more than half is gone.
    pub fn take(&mut self, n: usize) {
        self.start += n;
        if self.start == self.bytes.len() {
            *self = Self::default();
        } else if self.start > self.bytes.len() / 2 && self.start > 16 * 1024 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// No item.
pub const NONE: u32 = u32::MAX;

/// One connection. An idle one is this struct and, with TLS, what rustls keeps.
pub struct Conn {
    /// The socket.
    pub socket: TcpStream,
    /// Its key.
    pub key: Key,
    /// Its id on the link; meaningless before Live.
    pub id: ConnId,
    /// The far end.
    pub peer: SocketAddr,
    /// Kind of stream.
    pub kind: ListenerKind,
    /// What carries it.
    pub transport: Transport,
    /// Where it is in its life.
    pub stage: Stage,
    /// The kernel may have more to read (edge-triggered: it will not say so again).
    pub readable: bool,
    /// The far end has shut its side: read until the end shows.
    pub half_closed: bool,
    /// Writing failed: nothing more is written; what was received before is still read.
    pub broken: bool,
    /// The server has given it a Note.
    pub noted: bool,
    /// Counted by the gate.
    pub counted: bool,
    /// Its listener asks for a client certificate, ordered or not.
    pub request_certificate: bool,
    /// In the list of those with elements outstanding.
    pub watched: bool,
    /// In the list of those the link hears of before the next tick.
    pub hurried: bool,
    /// In the list of those with output in this turn.
    pub dirty: bool,
    /// In the list of those to read on without a new event.
    pub in_again: bool,
    /// Close after this turn's output.
    pub close_after: Option<CloseReason>,
    /// Both sides: our FIN is sent.
    pub shut: bool,
    /// Input bytes handed to the link.
    pub input_total: u64,
    /// Input bytes it may get to.
    pub input_limit: u64,
    /// Bytes of the socket's stream so far, those in the backlog included.
    pub queued: u64,
    /// Elements not acknowledged.
    pub marks: Marks,
    /// What the socket did not take.
    pub backlog: Option<Box<Backlog>>,
    /// TLS.
    pub tls: Option<Box<ConnTls>>,
    /// WebSocket.
    pub websocket: Option<Box<WebSocket>>,
    /// Only for dialled ones.
    pub dialled: Option<Box<Dialled>>,
    /// First and last item of this turn's output.
    pub turn: (u32, u32),
    /// For Closing: when we stop waiting.
    pub linger: Option<Instant>,
}

impl Conn {
    /// Bytes waiting for the socket.
    pub fn backlog_len(&self) -> usize {
        self.backlog.as_ref().map_or(0, |b| b.len())
    }

    /// Only its last bytes are waited for.
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing | Stage::Answered)
    }

    /// Bytes the kernel has taken.
    pub fn sent(&self) -> u64 {
        self.queued - self.backlog_len() as u64
    }

    /// Bytes of output that the link takes for outstanding.
    pub fn untold(&self) -> u64 {
        self.marks.untold(self.queued)
    }

    /// Room for input.
    pub fn room(&self) -> usize {
        usize::try_from(self.input_limit.saturating_sub(self.input_total)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_parts() {
        for (thread, generation, slot) in
            [(0, 0, 0), (3, 0xFF_FFFF, 7), (0xFE, 0x1_00_00_01, u32::MAX)]
        {
            let key = Key::from_token(Key::new(thread, generation, slot).token());
            assert_eq!((key.thread(), key.slot()), (thread, slot as usize));
        }
        assert_eq!(Key::new(1, 0x0100_0002, 5), Key::new(1, 2, 5));
        assert_ne!(Key::new(1, 1, 5), Key::new(1, 2, 5));
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 200, "{}", size_of::<Conn>());
    }

    #[test]
    fn elements_drain_when_their_last_byte_is_acknowledged() {
        let mut marks = Marks::default();
        for (end, element) in [(10, 1), (25, 2), (25, 3), (400, 9)] {
            marks.push(end, element);
        }
        let rows = [
            (0, None),
            (9, None),
            (10, Some(1)),
            (24, None),
            (399, Some(3)),
            (399, None),
            (400, Some(9)),
        ];
        for (bytes, want) in rows {
            assert_eq!(marks.acknowledge(bytes), want, "{bytes}");
        }
        assert!(marks.is_empty());
        assert_eq!(marks.untold(450), 0, "what is no element is not waited for");
        marks.push(500, 10);
        assert_eq!(
            marks.untold(600),
            200,
            "from the end of the last that drained"
        );
        assert_eq!(marks.acknowledge(500), Some(10));
        for n in 0..100 {
            marks.push(1000 + n, 11 + n);
        }
        assert_eq!(marks.acknowledge(2000), Some(110));
        assert!(marks.rest.is_none(), "an idle connection keeps no queue");
        assert!(size_of::<Marks>() <= 40, "{}", size_of::<Marks>());
    }

    #[test]
    fn a_backlog_keeps_order_and_frees_its_memory() {
        let mut backlog = Backlog::default();
        let all: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut got = Vec::new();
        for piece in all.chunks(7_001) {
            backlog.push(piece);
            let n = backlog.len().min(5_000);
            got.extend_from_slice(&backlog.bytes()[..n]);
            backlog.take(n);
        }
        while !backlog.is_empty() {
            let n = backlog.len().min(3_333);
            got.extend_from_slice(&backlog.bytes()[..n]);
            backlog.take(n);
        }
        assert_eq!(got, all);
        assert_eq!(backlog.bytes.capacity(), 0);
    }
}
