//! Connections from load balancers that have not yet said whose they are: each waits here until its PROXY header has come.
//!
//! On the link's thread, like accepting: the limits per address are there, and want the client's address, not the
//! balancer's. The header is looked at in the kernel's buffer and taken out of it exactly, so whoever gets the connection next
//! finds the client's first byte, be it TLS or not, and knows nothing of balancers.
//!
//! In: accepted sockets, readiness, `now`. Out: the same sockets with the client's address, admitted by the gate.
//! Owns: sockets, until then. Never: reads a byte behind the header; keeps bytes; waits longer than `proxy_header_s`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::gate::{Gate, RefusedBy};
use crate::listen::Accepted;
use crate::metrics::{self, Metrics};
use crate::proxy::{self, HEADER_BYTES_MAX, Header};

struct Guest {
    accepted: Accepted,
    /// Tells it from an earlier one in the same slot.
    number: u64,
}

/// What the bytes so far say.
enum Look {
    Wait,
    Header(Header),
    /// The far end has gone without a word, as checks of a balancer do.
    Gone,
    Bad(String),
}

/// See the module.
pub struct Lobby {
    registry: Registry,
    first_token: usize,
    guests: Slab<Guest>,
    ends: VecDeque<(Instant, usize, u64)>,
    next_number: u64,
    /// The operator was told of a bad header.
    warned: bool,
}

impl Lobby {
    /// Nobody in; sockets get tokens from `first_token` on.
    pub fn new(registry: Registry, first_token: usize) -> Self {
        Self {
            registry,
            first_token,
            guests: Slab::new(),
            ends: VecDeque::new(),
            next_number: 0,
            warned: false,
        }
    }

    /// Takes a connection the gate has let in without an address; its header may take so long.
    pub fn add(&mut self, now: Instant, accepted: Accepted, patience: Duration, gate: &mut Gate) {
        let number = self.next_number;
        self.next_number += 1;
        let slot = self.guests.insert(Guest { accepted, number });
        let token = Token(self.first_token + slot);
        let socket = &mut self.guests[slot].accepted.socket;
        match self.registry.register(socket, token, Interest::READABLE) {
            Ok(()) => self.ends.push_back((now + patience, slot, number)),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be watched");
                self.guests.remove(slot);
                gate.leave_unnamed();
            }
        }
    }

    /// A socket is ready. Returns it if its header is whole and its client may come in.
    pub fn handle_ready(
        &mut self,
        event: &mio::event::Event,
        gate: &mut Gate,
        metrics: &Metrics,
    ) -> Option<Accepted> {
        let slot = event.token().0.checked_sub(self.first_token)?;
        let guest = self.guests.get_mut(slot)?;
        let ended = event.is_read_closed() || event.is_error();
        match look(&mut guest.accepted, ended) {
            Look::Wait => None,
            Look::Header(header) => self.introduce(slot, header, gate, metrics),
            Look::Gone => {
                self.send_away(slot, gate);
                None
            }
            Look::Bad(why) => {
                self.refuse(slot, &why, gate, metrics);
                None
            }
        }
    }

    fn introduce(
        &mut self,
        slot: usize,
        header: Header,
        gate: &mut Gate,
        metrics: &Metrics,
    ) -> Option<Accepted> {
        let mut accepted = self.guests.remove(slot).accepted;
        if let Err(error) = self.registry.deregister(&mut accepted.socket) {
            tracing::warn!(%error, "a connection cannot be handed on");
            gate.leave_unnamed();
            return None;
        }
        let balancer = accepted.peer;
        accepted.peer = header.client.unwrap_or(balancer);
        accepted.unnamed = false;
        match gate.name(accepted.peer.ip()) {
            Ok(()) => {
                tracing::debug!(peer = %accepted.peer, %balancer, "client behind a balancer");
                Some(accepted)
            }
            Err(RefusedBy::Address | RefusedBy::Total) => {
                metrics::add(&metrics.refused_address, 1);
                gate.leave_unnamed();
                None
            }
        }
    }

    fn send_away(&mut self, slot: usize, gate: &mut Gate) {
        self.guests.remove(slot);
        gate.leave_unnamed();
    }

    /// A balancer that is set up wrongly does this for each of its clients: one line.
    fn refuse(&mut self, slot: usize, why: &str, gate: &mut Gate, metrics: &Metrics) {
        let balancer = self.guests[slot].accepted.peer;
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(%balancer, why, "no valid PROXY header: closed (further ones: debug)");
        } else {
            tracing::debug!(%balancer, why, "no valid PROXY header: closed");
        }
        metrics::add(&metrics.refused_proxy, 1);
        self.send_away(slot, gate);
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.front().map(|(at, ..)| *at)
    }

    /// Sends away those whose time is over.
    pub fn handle_timeout(&mut self, now: Instant, gate: &mut Gate, metrics: &Metrics) {
        while let Some((at, slot, number)) = self.ends.front().copied()
            && at <= now
        {
            self.ends.pop_front();
            if self.guests.get(slot).is_some_and(|g| g.number == number) {
                self.refuse(slot, "not whole in time", gate, metrics);
            }
        }
        if self.ends.is_empty() {
            self.ends.shrink_to(1024);
            self.guests.shrink_to_fit();
        }
    }

    /// Sends everybody away: the process ends.
    pub fn close(&mut self, gate: &mut Gate) {
        for _ in self.guests.drain() {
            gate.leave_unnamed();
        }
        self.ends.clear();
    }
}

/// Looks at what is there without taking it; takes a whole header, and nothing else.
fn look(accepted: &mut Accepted, ended: bool) -> Look {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let seen = loop {
        match accepted.socket.peek(&mut bytes) {
            Ok(0) => return Look::Gone,
            Ok(n) => break &bytes[..n],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Look::Wait,
            Err(_) => return Look::Gone,
        }
    };
    match proxy::parse(seen) {
        Ok(Some(header)) => match take(accepted, header.bytes) {
            Ok(()) => Look::Header(header),
            Err(error) => Look::Bad(error.to_string()),
        },
        Ok(None) if ended => Look::Bad("ends in the middle".into()),
        Ok(None) => Look::Wait,
        Err(why) => Look::Bad(why.to_string()),
    }
}

fn take(accepted: &mut Accepted, bytes: usize) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES_MAX];
    accepted.socket.read_exact(&mut header[..bytes])
}
