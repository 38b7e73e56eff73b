//! What crosses between the link's thread and the connections' threads, and how a set of connections carries
//! out orders.
//!
//! In and out: [`Order`] down, [`Report`] up. Owns: nothing. Never: waits for a full queue: what does not fit stays in the
//! sender's batch. Upward the input windows bound it, downward the link is not read while a batch is long.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use proto::frame::{CloseReason, ConnId, Dial, Open, TlsFacts};

use crate::config::LimitsConfig;
use crate::conn::Key;
use crate::conns::{Above, ConnSet, Opening};
use crate::listen::Accepted;

/// From the link's thread to a set of connections.
#[derive(Debug)]
pub enum Order {
    /// Take a connection.
    Adopt(Accepted),
    /// Open a connection.
    Dial {
        dial: Dial,
        addresses: Vec<SocketAddr>,
    },
    /// It has an id.
    Opened { key: Key, id: ConnId, room: u64 },
    /// There is no server for it.
    Refused { key: Key },
    /// Bytes for the client.
    Output {
        key: Key,
        bytes: Bytes,
        element: u64,
    },
    /// More may be read.
    InputLimit { key: Key, limit: u64 },
    /// Switch to TLS.
    StartTls {
        key: Key,
        last: Bytes,
        element: u64,
        request_certificate: bool,
    },
    /// It has a Note.
    Noted { key: Key },
    /// Close it.
    Close {
        key: Key,
        last: Bytes,
        element: u64,
        reason: CloseReason,
    },
    /// Close it at once, the link does not know it.
    Forget { key: Key },
    /// New limits.
    Limits(LimitsConfig),
    /// Close all.
    ShutDown,
}

impl ConnSet {
    /// Carries out one order.
    pub fn apply(&mut self, now: Instant, order: Order, above: &mut impl Above) {
        match order {
            Order::Adopt(accepted) => self.adopt(now, accepted, above),
            Order::Dial { dial, addresses } => self.dial(now, dial, addresses, above),
            Order::Opened { key, id, room } => self.opened(now, key, id, room, above),
            Order::Refused { key } => self.refused(now, key, above),
            Order::Output {
                key,
                bytes,
                element,
            } => self.output(key, bytes, element),
            Order::InputLimit { key, limit } => self.set_input_limit(key, limit),
            Order::StartTls {
                key,
                last,
                element,
                request_certificate,
            } => {
                self.start_tls(now, key, last, element, request_certificate, above);
            }
            Order::Noted { key } => self.set_noted(key, above),
            Order::Close {
                key,
                last,
                element,
                reason,
            } => self.close(now, key, last, element, reason, above),
            Order::Forget { key } => self.forget(key, above),
            Order::Limits(limits) => self.set_limits(limits),
            Order::ShutDown => self.shut_down(now, above),
        }
    }
}

/// From a set of connections on another thread to the link's.
#[derive(Debug)]
pub enum Report {
    /// As [`Above::open`].
    Open { key: Key, open: Box<Open> },
    /// As [`Above::input`]; the bytes are the next `len` of the batch.
    Input {
        conn: ConnId,
        len: usize,
        message_end: bool,
    },
    /// As [`Above::want_room`].
    WantRoom { key: Key, conn: ConnId, total: u64 },
    /// As [`Above::secured`].
    Secured { conn: ConnId, facts: Box<TlsFacts> },
    /// As [`Above::drained`].
    Drained { conn: ConnId, elements: u64 },
    /// As [`Above::closed`].
    Closed { conn: ConnId, reason: CloseReason },
    /// As [`Above::dial_failed`].
    DialFailed { dial: u64, reason: String },
    /// As [`Above::authenticated`].
    Authenticated,
    /// As [`Above::left`].
    Left { peer: IpAddr, authenticated: bool },
}

/// A batch of reports: all of one turn of a thread.
#[derive(Debug, Default)]
pub struct Reports {
    /// In order.
    pub reports: Vec<Report>,
    /// Input bytes, in order.
    pub bytes: Vec<u8>,
}

impl Above for Reports {
    fn open(&mut self, _now: Instant, key: Key, open: Open) -> Opening {
        self.reports.push(Report::Open {
            key,
            open: Box::new(open),
        });
        Opening::Later
    }

    fn input(
        &mut self,
        _now: Instant,
        conn: ConnId,
        bytes: &[u8],
        message_end: bool,
    ) -> Option<u64> {
        self.bytes.extend_from_slice(bytes);
        // Reads of one connection in a row are one input, up to the end of a message.
        match self.reports.last_mut() {
            Some(Report::Input {
                conn: last,
                len,
                message_end: end @ false,
            }) if *last == conn => {
                *len += bytes.len();
                *end = message_end;
            }
            _ => self.reports.push(Report::Input {
                conn,
                len: bytes.len(),
                message_end,
            }),
        }
        None
    }

    fn want_room(&mut self, _now: Instant, key: Key, conn: ConnId, total: u64) -> Option<u64> {
        self.reports.push(Report::WantRoom { key, conn, total });
        None
    }

    fn secured(&mut self, _now: Instant, conn: ConnId, facts: TlsFacts) {
        self.reports.push(Report::Secured {
            conn,
            facts: Box::new(facts),
        });
    }

    fn drained(&mut self, _now: Instant, conn: ConnId, elements: u64) {
        self.reports.push(Report::Drained { conn, elements });
    }

    fn closed(&mut self, _now: Instant, conn: ConnId, reason: CloseReason) {
        self.reports.push(Report::Closed { conn, reason });
    }

    fn dial_failed(&mut self, _now: Instant, dial: u64, reason: &str) {
        self.reports.push(Report::DialFailed {
            dial,
            reason: reason.to_owned(),
        });
    }

    fn authenticated(&mut self) {
        self.reports.push(Report::Authenticated);
    }

    fn left(&mut self, peer: IpAddr, authenticated: bool) {
        self.reports.push(Report::Left {
            peer,
            authenticated,
        });
    }
}
