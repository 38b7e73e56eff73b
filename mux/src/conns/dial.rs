//! Connections we open on the server's order.
//!
//! In: a Dial and its addresses. Out: Open, or why not. Owns: nothing. Never: looks names up (`resolve` does).

use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use proto::frame::{Dial, DialTls, Transport};
use rustls::pki_types::ServerName;

use super::{AGE_TICK, Above, ConnSet};
use crate::conn::{Admission, ConnTls, Dialled, Stage};
use crate::metrics;
use crate::tls::Tls;

impl ConnSet {
    /// Tries the addresses in turn.
    pub fn dial(
        &mut self,
        now: Instant,
        dial: Dial,
        mut addresses: Vec<SocketAddr>,
        above: &mut impl Above,
    ) {
        addresses.reverse();
        self.dial_one(
            now,
            Dialled {
                dial,
                left: addresses,
            },
            "no address",
            above,
        );
    }

    fn dial_one(&mut self, now: Instant, mut dialled: Dialled, why: &str, above: &mut impl Above) {
        let mut why = why.to_owned();
        while let Some(address) = dialled.left.pop() {
            let socket = match TcpStream::connect(address) {
                Ok(socket) => socket,
                Err(error) => {
                    why = format!("{address}: {error}");
                    continue;
                }
            };
            let transport = match dialled.dial.tls {
                DialTls::Plain => Transport::Tcp,
                DialTls::Direct => Transport::Tls,
            };
            let slot = self.insert(socket, address, dialled.dial.kind, transport);
            let conn = &mut self.slots[slot];
            conn.stage = Stage::Connecting;
            conn.dialled = Some(Box::new(dialled));
            self.handshake_ends
                .push_back((now + self.limits.handshake, conn.key));
            self.wake_by(now + AGE_TICK);
            if !self.register(slot) {
                self.dial_next(now, slot, "cannot be watched", above);
            }
            return;
        }
        above.dial_failed(now, dialled.dial.dial, &why);
    }

    /// This address has failed: the next one.
    pub(super) fn dial_next(
        &mut self,
        now: Instant,
        slot: usize,
        why: &str,
        above: &mut impl Above,
    ) {
        let why = format!("{}: {why}", self.slots[slot].peer);
        let dialled = self.slots[slot].dialled.take();
        self.remove(slot, above);
        if let Some(dialled) = dialled {
            self.dial_one(now, *dialled, &why, above);
        }
    }

    /// The socket of a dialled connection is ready for something: it is connected, or has failed.
    pub(super) fn dial_ready(&mut self, now: Instant, slot: usize, above: &mut impl Above) {
        let conn = &mut self.slots[slot];
        if let Ok(Some(error)) = conn.socket.take_error() {
            return self.dial_next(now, slot, &error.to_string(), above);
        }
        if conn.socket.peer_addr().is_err() {
            return;
        }
        // Only speed depends on it.
        let _ = conn.socket.set_nodelay(true);
        conn.readable = true;
        if conn.transport != Transport::Tls {
            return self.open(now, slot, None, above);
        }
        conn.stage = Stage::Handshake;
        if !self.begin_tls_dialled(now, slot) {
            self.dial_next(now, slot, "TLS cannot begin", above);
        }
    }

    /// Starts TLS as the dialling side.
    pub(super) fn begin_tls_dialled(&mut self, now: Instant, slot: usize) -> bool {
        let conn = &mut self.slots[slot];
        let (Some(dialled), Some(configs)) = (&conn.dialled, self.shared.certs.current()) else {
            return false;
        };
        let Ok(name) = ServerName::try_from(dialled.dial.server_name.clone()) else {
            return false;
        };
        let direct = dialled.dial.tls == DialTls::Direct;
        let Ok(mut tls) = Tls::client(configs.client(direct), name) else {
            return false;
        };
        let mut first = Vec::new();
        if tls.start(&mut first).is_err() {
            return false;
        }
        let mut state = ConnTls::new(tls);
        state.admission = Admission::Admitted;
        conn.tls = Some(state);
        self.handshakes.active += 1;
        metrics::add(&self.shared.metrics.handshaking, 1);
        self.handshake_ends
            .push_back((now + self.limits.handshake, self.slots[slot].key));
        self.wake_by(now + AGE_TICK);
        self.send_raw(now, slot, &first);
        true
    }
}
