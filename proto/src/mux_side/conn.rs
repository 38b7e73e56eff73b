//! What a mux remembers of one connection. A million of these live in one process: an idle plain connection costs about
//! 180 bytes (this struct 128, its Open 24, its place in the table 16 to 39), which a test holds.

use crate::codec::{self, ResumeHead};
use crate::frame::*;
use crate::limits::*;
use crate::link::Link;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;

/// Where TLS stands on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TlsState {
    /// Plain, StartTls possible.
    Plain,
    /// StartTls received, Secured not sent.
    Asked,
    /// TLS is up, or can never come (WebSocket).
    Final,
}

/// What only a connection with something under way needs.
#[derive(Default)]
pub(super) struct Active {
    /// Input from `settled_bytes` to `input_bytes`.
    pub unsettled: BytesMut,
    /// Ends of WebSocket messages within it, as input byte counts.
    pub message_ends: VecDeque<u64>,
    /// Stored stanzas taken and not forgotten, in order.
    pub held: VecDeque<HeldStored>,
}

impl Active {
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty() && self.held.is_empty()
    }

    /// Its weight toward `unsettled_bytes_max`.
    fn weight(&self) -> usize {
        self.unsettled.len() + self.message_ends.len() * size_of::<u64>()
    }
}

/// Emptied boxes, so that a busy connection does not go to the allocator for each message.
#[allow(clippy::vec_box)] // The boxes are what is kept.
pub(super) type Spare = Vec<Box<Active>>;

pub(super) struct Conn {
    /// The Open with the newest TLS facts, as `codec::encode_open` writes it.
    pub open: Box<[u8]>,
    pub active: Option<Box<Active>>,
    /// Input bytes read from the client.
    pub input_bytes: u64,
    pub settled_bytes: u64,
    pub settled_stanzas: u64,
    /// Credit given by the server.
    pub input_bytes_max: u64,
    /// The limit the caller was told last: by `input`, `input_room` or `InputRoom`.
    pub told_limit: u64,
    /// Output elements taken whole, stanzas among them, elements that the client's TCP acknowledged.
    pub elements: u64,
    pub stanzas: u64,
    pub drained: u64,
    pub forget_stanzas: u64,
    /// What the server has given it, and whether an element has come since: the one that tells the client of its session. Without
    /// that the Note does not count, or a client would wait for ever for a word that went down with its server.
    pub note: Option<NoteKey>,
    pub note_told: bool,
    /// The socket is closed: why. Close was sent if the connection is known to the server.
    pub closed: Option<CloseReason>,
    pub tls: TlsState,
    /// The count of the link (see `MuxSide::generation`) that knows this connection.
    pub generation: u32,
    /// The server of this generation has sent Close.
    pub server_closed: bool,
    /// The caller was told to close the socket.
    pub told_close: bool,
    /// Waits in `MuxSide::starved`.
    pub starved: bool,
}

impl Conn {
    pub fn new(open: Box<[u8]>, tls: TlsState, generation: u32) -> Self {
        Self {
            open,
            active: None,
            input_bytes: 0,
            settled_bytes: 0,
            settled_stanzas: 0,
            input_bytes_max: INPUT_WINDOW_INITIAL,
            told_limit: 0,
            elements: 0,
            stanzas: 0,
            drained: 0,
            forget_stanzas: 0,
            note: None,
            note_told: false,
            closed: None,
            tls,
            generation,
            server_closed: false,
            told_close: false,
            starved: false,
        }
    }

    /// The Note, once the client can know of the session.
    pub fn told_note(&self) -> Option<NoteKey> {
        self.note.filter(|_| self.note_told)
    }

    /// Its client has logged in.
    pub fn is_session(&self) -> bool {
        self.note_told
    }

    /// The caller will hear or has heard that this connection is over: no output for it, no input from it.
    pub fn is_over(&self) -> bool {
        self.closed.is_some() || self.told_close
    }

    /// The client has logged in: its session says who it is, and 16 KiB for each would be kept for nothing.
    pub fn forget_certificate(&mut self) {
        let mut open = codec::decode_open(&self.open).expect("this mux encoded it");
        let certificate = open.tls.as_mut().and_then(|t| t.client_certificate.take());
        if certificate.is_some() {
            self.open = codec::encode_open(&open).expect("with more it was encoded before");
        }
    }

    pub fn weight(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.weight())
    }

    /// Keeps input until it is settled.
    pub fn keep_input(&mut self, spare: &mut Spare, bytes: &[u8], message_end: bool) {
        self.input_bytes += bytes.len() as u64;
        if self.input_bytes == self.settled_bytes {
            // An end alone, and all before it is settled: whoever resumes begins there with a new message.
            return;
        }
        let active = self
            .active
            .get_or_insert_with(|| spare.pop().unwrap_or_default());
        active.unsettled.extend_from_slice(bytes);
        if message_end && active.message_ends.back() != Some(&self.input_bytes) {
            active.message_ends.push_back(self.input_bytes);
        }
    }

    /// Forgets input up to a new settled count, checked by the caller.
    pub fn settle(&mut self, settled_bytes: u64) {
        if let Some(active) = &mut self.active {
            active
                .unsettled
                .advance((settled_bytes - self.settled_bytes) as usize);
            while active
                .message_ends
                .front()
                .is_some_and(|end| *end <= settled_bytes)
            {
                active.message_ends.pop_front();
            }
        }
        self.settled_bytes = settled_bytes;
    }

    /// Forgets the stored ids of stanzas numbered up to `stanza`.
    pub fn forget(&mut self, stanza: u64) {
        self.forget_stanzas = stanza;
        if let Some(active) = &mut self.active {
            while active
                .held
                .front()
                .is_some_and(|held| held.stanza <= stanza)
            {
                active.held.pop_front();
            }
        }
    }

    /// Counts one output element and keeps its stored id. False: `HELD_STORED_MAX` would be passed; nothing was counted.
    pub fn count_element(
        &mut self,
        spare: &mut Spare,
        stanza: bool,
        stored: Option<StoredId>,
    ) -> bool {
        if let Some(id) = stored {
            let active = self
                .active
                .get_or_insert_with(|| spare.pop().unwrap_or_default());
            if active.held.len() >= HELD_STORED_MAX {
                return false;
            }
            active.held.push_back(HeldStored {
                id,
                element: self.elements + 1,
                stanza: self.stanzas + 1,
            });
        }
        self.elements += 1;
        self.stanzas += u64::from(stanza);
        true
    }

    /// Tells a server that knows nothing all there is: Resume, the unsettled input, Close.
    pub fn resume(&mut self, conn: ConnId, link: &mut Link, generation: u32) {
        self.generation = generation;
        self.server_closed = false;
        let empty = Active::default();
        let active = self.active.as_deref().unwrap_or(&empty);
        let head = ResumeHead {
            note: self.told_note(),
            settled_bytes: self.settled_bytes,
            settled_stanzas: self.settled_stanzas,
            elements: self.elements,
            stanzas: self.stanzas,
            drained: self.drained,
            held: active.held.as_slices(),
            closed: self.closed,
        };
        let hint = 128 + self.open.len() + active.held.len() * size_of::<HeldStored>();
        link.push(hint, |out| {
            codec::encode_resume(conn, &head, &self.open, out)
        });
        let mut at = self.settled_bytes;
        let mut rest = &active.unsettled[..];
        for &end in &active.message_ends {
            let (message, after) = rest.split_at((end - at) as usize);
            push_input(link, conn, message, true);
            (rest, at) = (after, end);
        }
        if !rest.is_empty() {
            push_input(link, conn, rest, false);
        }
        if let Some(reason) = self.closed {
            push_close(link, conn, reason);
        }
    }
}

/// Sends input in parts, the last of them marked if it ends a message.
pub(super) fn push_input(link: &mut Link, conn: ConnId, bytes: &[u8], message_end: bool) {
    if bytes.is_empty() {
        // Only an end.
        return link.push(32, |out| codec::encode_input(conn, bytes, message_end, out));
    }
    let parts = bytes.chunks(PART_BYTES_MAX);
    let last = parts.len();
    for (number, part) in parts.enumerate() {
        let end = message_end && number + 1 == last;
        link.push(part.len() + 32, |out| {
            codec::encode_input(conn, part, end, out)
        });
    }
}

/// Sends Close.
pub(super) fn push_close(link: &mut Link, conn: ConnId, reason: CloseReason) {
    let close = Frame::Close(
        conn,
        Close {
            last: bytes::Bytes::new(),
            reason,
        },
    );
    link.push_frame(&close)
        .expect("a Close without bytes has no limit");
}
