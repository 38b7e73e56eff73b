//! The mux's whole half of the link: greeting, numbered frames, and the table of connections with what
//! must outlive a server (unsettled input, counts, stored ids).
//!
//! In: link bytes, `now`, what happened on the client sockets. Out: link bytes, `MuxEvent`s, a deadline.
//! Owns: the truth about every connection of this mux. Never: looks into what clients send; reads a clock.

use crate::frame::*;
use crate::limits;
use crate::link::LinkError;
use bytes::{Bytes, BytesMut};
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
    /// Unsettled input over all connections, bytes. Soft by what is in flight from the sockets: see `input`.
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
    /// More input may be read from this client: until its total input bytes reach `limit`. Sent only after `input` or
    /// `input_room` had said 0, or when the limit has grown by at least half a window.
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
    /// Close the socket at once and forget the connection: the link no longer knows it. Do not call `closed`.
    Forget {
        /// The connection.
        conn: ConnId,
        /// Why: the server was lost too long, or another store came back.
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
    /// A field of Open passes its limit (an oversized client certificate).
    #[error("open too long")]
    TooLong,
}

/// See the module.
pub struct MuxSide {
    config: MuxSideConfig,
}

#[allow(unused_variables)]
impl MuxSide {
    /// A mux without link and without connections. `server_lost` begins to count when a link is lost.
    pub fn new(now: Instant, config: MuxSideConfig) -> Self {
        Self { config }
    }

    // ---- the link's transport ----

    /// A transport (TCP, then TLS, or Unix) to the server is ready: Hello goes out. An older transport is forgotten.
    pub fn handle_link_up(&mut self, now: Instant) {}

    /// Bytes read from the transport; whole frames are taken out of `bytes`, the rest of one stays. Use a fresh buffer
    /// for a fresh transport. On an error close the transport and dial again later.
    pub fn handle_link_bytes(&mut self, now: Instant, bytes: &mut BytesMut) -> Result<(), LinkError> {
        Ok(())
    }

    /// The transport is gone. Clients stay.
    pub fn handle_link_down(&mut self, now: Instant) {}

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// When to call `handle_timeout`, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next bytes for the transport, large and contiguous, or None. Ask again only for what can soon be written:
    /// what was handed out counts as sent.
    pub fn poll_link_output(&mut self) -> Option<Bytes> {
        None
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        None
    }

    // ---- the client sockets ----

    /// A client (or a dialled host) is connected.
    pub fn open(&mut self, now: Instant, open: Open) -> Result<ConnId, Refused> {
        Err(Refused::NotAccepting)
    }

    /// Bytes read from a client (after TLS, after WebSocket unwrapping), in order. `message_end`: the last of them ends
    /// a WebSocket message. Returns how many more may be read; at 0 stop reading until `InputRoom`. Input beyond the limit
    /// last told closes the connection (`MuxEvent::Close`, Limit).
    pub fn input(&mut self, now: Instant, conn: ConnId, bytes: &[u8], message_end: bool) -> usize {
        0
    }

    /// How many bytes may be read from this client now. At 0 an `InputRoom` will follow.
    pub fn input_room(&mut self, conn: ConnId) -> usize {
        0
    }

    /// TLS is up on a connection that got `StartTls`.
    pub fn secured(&mut self, now: Instant, conn: ConnId, facts: TlsFacts) {}

    /// The client's TCP has acknowledged the last byte of so many output elements, in total.
    pub fn drained(&mut self, now: Instant, conn: ConnId, elements: u64) {}

    /// The socket is closed; call `drained` before, if it grew.
    pub fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {}

    /// A Dial failed.
    pub fn dial_failed(&mut self, now: Instant, dial: u64, reason: &str) {}

    /// This mux is going away: tell the server.
    pub fn drain(&mut self, now: Instant) {}

    // ---- for metrics ----

    /// Connections known, closed ones that the server has not let go included.
    pub fn conn_count(&self) -> usize {
        0
    }

    /// Unsettled input bytes over all connections.
    pub fn unsettled_bytes(&self) -> usize {
        0
    }

    /// Bytes of frames that were not acknowledged yet.
    pub fn retained_bytes(&self) -> usize {
        0
    }

    /// Welcome was received on the transport of now.
    pub fn is_link_up(&self) -> bool {
        false
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &MuxSideConfig {
        &self.config
    }
}
