//! Two muxes (their protocol half is the real one), the transports to the server, and the sockets of the clients.
//!
//! Owns: what is in flight: bytes on a transport are lost when it is cut, bytes on a client's TCP arrive in order.
//! Never: gives the server bytes beyond what the mux may read; acknowledges what no client has received.

use crate::world::{Ev, Fault, World};
use bytes::{Bytes, BytesMut};
use imserver::event::LinkId;
use proto::frame::{BootId, CloseReason, ConnId, ListenerKind, Open};
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// One mux: its name stays, its process may be replaced.
pub(crate) struct Mux {
    /// Number of its process.
    pub boot: u32,
    /// `None`: dead.
    pub side: Option<MuxSide>,
    pub conns: BTreeMap<ConnId, usize>,
    pub transport: Option<usize>,
    pub accepting: bool,
    /// No packet gets through to the server.
    pub cut: bool,
    /// Cuts that are not mended yet.
    cuts: u32,
    timer: u64,
    dialling: bool,
}

/// One connection between a mux and the server.
pub(crate) struct Transport {
    pub mux: usize,
    pub boot: u32,
    /// Run of the server it goes to.
    pub run: u32,
    /// Bytes get through.
    pub carries: bool,
    pub server_open: bool,
    mux_open: bool,
    pub link: Option<LinkId>,
    pub server_in: BytesMut,
    mux_in: BytesMut,
    last_to_server: u64,
    last_to_mux: u64,
}

/// One TCP connection of a client.
pub(crate) struct Tcp {
    pub client: usize,
    pub mux: usize,
    pub boot: u32,
    pub conn: Option<ConnId>,
    /// The client's end is open; false also when the client has vanished.
    pub client_open: bool,
    /// The mux's end is open.
    mux_open: bool,
    pub vanished: bool,
    /// The mux has died under it.
    pub mux_died: bool,
    /// Bytes the client has sent, and the mux has taken over.
    pub sent: u64,
    pub arrived: u64,
    /// A WebSocket: the mux tells the server where messages end.
    pub websocket: bool,
    /// Where messages end that the mux has not read yet, as counts of bytes.
    ends: VecDeque<u64>,
    /// What the mux has not read yet.
    inbox: BytesMut,
    fin: Option<CloseReason>,
    /// The server wants it closed: nothing more is read.
    to_close: bool,
    acked: u64,
    told: u64,
    last_to_mux: u64,
    last_to_client: u64,
    last_ack: u64,
    /// Reads slowly.
    slow: bool,
}

impl World {
    pub(crate) fn add_muxes(&mut self) {
        for mux in 0..2 {
            self.muxes.push(Mux {
                boot: 0,
                side: None,
                conns: BTreeMap::new(),
                transport: None,
                accepting: false,
                cut: false,
                cuts: 0,
                timer: u64::MAX,
                dialling: false,
            });
            self.start_mux(mux);
        }
    }

    pub(crate) fn start_mux(&mut self, mux: usize) {
        if self.muxes[mux].side.is_some() {
            return;
        }
        let now = self.instant();
        let mut boot = [0; 16];
        self.rng.fill(&mut boot);
        let side = MuxSide::new(now, MuxSideConfig::new(format!("mux{mux}"), BootId(boot)));
        let m = &mut self.muxes[mux];
        m.boot += 1;
        m.side = Some(side);
        m.accepting = false;
        m.timer = u64::MAX;
        m.dialling = false;
        let number = m.boot;
        self.trace.line(
            self.now_us,
            0x20,
            format_args!("mux{mux} boot {number} starts"),
        );
        self.dial_later(mux, 5_000);
    }

    /// The process dies: clients get a reset, the server sees the link end (or not, if the host died with it).
    pub(crate) fn kill_mux(&mut self, mux: usize) {
        let m = &mut self.muxes[mux];
        if m.side.take().is_none() {
            return;
        }
        m.accepting = false;
        let conns = std::mem::take(&mut m.conns);
        let transport = m.transport.take();
        let boot = m.boot;
        self.trace.line(
            self.now_us,
            0x21,
            format_args!(
                "mux{mux} boot {boot} is killed with {} connections",
                conns.len()
            ),
        );
        if let Some(transport) = transport {
            self.transports[transport].mux_open = false;
            self.break_transport(transport);
            let delay = if self.rng.permille(200) {
                20_000_000
            } else {
                self.rng.delay(5_000)
            };
            self.after(
                delay,
                Ev::LinkGone {
                    transport,
                    at_server: true,
                },
            );
        }
        for tcp in 0..self.tcps.len() {
            if self.tcps[tcp].mux == mux && self.tcps[tcp].boot == boot {
                self.oracle.sessions[tcp].mux_died_us = Some(self.now_us);
                // The last connection that the session went on on, whatever its client has tried since.
                let session = self.oracle.roots[tcp];
                let last = self.oracle.roots.iter().rposition(|&r| r == session);
                if last == Some(tcp) {
                    self.oracle.sessions[session].mux_died_us = Some(self.now_us);
                }
            }
            if self.tcps[tcp].mux == mux && self.tcps[tcp].boot == boot && self.tcps[tcp].mux_open {
                self.tcps[tcp].mux_open = false;
                self.tcps[tcp].mux_died = true;
                self.mux_died(tcp);
                let delay = self.rng.delay(20_000);
                self.after(delay, Ev::ToClientFin { tcp });
            }
        }
        let delay = self.rng.between(20_000, 3_000_000);
        self.after(delay, Ev::Fault(Fault::StartMux { mux }));
    }

    // ---- the transport to the server ------------------------------------------------------------------------

    fn dial_later(&mut self, mux: usize, delay_us: u64) {
        let m = &mut self.muxes[mux];
        if !m.dialling && m.side.is_some() {
            m.dialling = true;
            let boot = m.boot;
            let delay = self.rng.delay(delay_us);
            self.after(delay, Ev::MuxDial { mux, boot });
        }
    }

    pub(crate) fn mux_dial(&mut self, mux: usize, boot: u32) {
        let now = self.instant();
        let m = &mut self.muxes[mux];
        if m.boot != boot || m.side.is_none() {
            return;
        }
        m.dialling = false;
        if m.transport.is_some() {
            return;
        }
        if m.cut || self.server.is_none() {
            self.dial_later(mux, 250_000);
            return;
        }
        let run = self.run;
        let transport = self.transports.len();
        self.transports.push(Transport {
            mux,
            boot,
            run,
            carries: true,
            server_open: true,
            mux_open: true,
            link: None,
            server_in: BytesMut::new(),
            mux_in: BytesMut::new(),
            last_to_server: 0,
            last_to_mux: 0,
        });
        self.trace.line(
            self.now_us,
            transport as u64,
            format_args!("mux{mux} dials: transport {transport}"),
        );
        let m = &mut self.muxes[mux];
        m.transport = Some(transport);
        m.side.as_mut().expect("it lives").handle_link_up(now);
        self.after_mux(mux);
    }

    pub(crate) fn cut(&mut self, mux: usize, silent: bool, for_us: u64) {
        self.muxes[mux].cut = true;
        self.muxes[mux].cuts += 1;
        self.after(for_us, Ev::Fault(Fault::Mend { mux }));
        let open: Vec<usize> = (0..self.transports.len())
            .filter(|&t| self.transports[t].mux == mux && self.transports[t].carries)
            .collect();
        for transport in open {
            self.break_transport(transport);
            if !silent {
                let (a, b) = (self.rng.delay(10_000), self.rng.delay(10_000));
                self.after(
                    a,
                    Ev::LinkGone {
                        transport,
                        at_server: true,
                    },
                );
                self.after(
                    b,
                    Ev::LinkGone {
                        transport,
                        at_server: false,
                    },
                );
            }
        }
    }

    pub(crate) fn mend(&mut self, mux: usize) {
        let m = &mut self.muxes[mux];
        m.cuts = if self.active {
            m.cuts.saturating_sub(1)
        } else {
            0
        };
        m.cut = m.cuts > 0;
    }

    /// Nothing gets through any more; what is in flight is lost.
    pub(crate) fn break_transport(&mut self, transport: usize) {
        self.transports[transport].carries = false;
    }

    /// Bytes onto a transport, in pieces that arrive one after another.
    pub(crate) fn send_on(&mut self, transport: usize, to_server: bool, mut bytes: Bytes) {
        if !self.transports[transport].carries {
            return;
        }
        self.trace.note(bytes.len() as u64);
        while !bytes.is_empty() {
            let piece = if self.rng.permille(250) {
                bytes.split_to(1 + self.rng.index(bytes.len()))
            } else {
                std::mem::take(&mut bytes)
            };
            let delay = self.rng.delay(300);
            let t = &mut self.transports[transport];
            let last = if to_server {
                &mut t.last_to_server
            } else {
                &mut t.last_to_mux
            };
            *last = (self.now_us + delay).max(*last);
            let at = *last;
            self.at(
                at,
                Ev::LinkBytes {
                    transport,
                    to_server,
                    bytes: piece,
                },
            );
        }
    }

    pub(crate) fn link_bytes(&mut self, transport: usize, to_server: bool, bytes: &Bytes) {
        let t = &mut self.transports[transport];
        if !t.carries {
            return;
        }
        if to_server {
            if t.server_open && self.server.as_ref().is_some_and(|s| s.run == t.run) {
                self.server_bytes(transport, bytes);
            }
            return;
        }
        let (mux, boot) = (t.mux, t.boot);
        if !t.mux_open || self.muxes[mux].boot != boot {
            return;
        }
        let now = self.instant();
        let Some(side) = &mut self.muxes[mux].side else {
            return;
        };
        let t = &mut self.transports[transport];
        t.mux_in.extend_from_slice(bytes);
        let result = side.handle_link_bytes(now, &mut t.mux_in);
        if let Err(error) = result {
            self.fail(format!(
                "mux{mux} refuses link bytes of the server: {error}"
            ));
            self.close_at_mux(transport);
        }
        self.after_mux(mux);
    }

    pub(crate) fn link_gone(&mut self, transport: usize, at_server: bool) {
        if at_server {
            self.close_at_server(transport);
        } else {
            self.close_at_mux(transport);
        }
    }

    fn close_at_mux(&mut self, transport: usize) {
        let now = self.instant();
        let t = &mut self.transports[transport];
        if !std::mem::replace(&mut t.mux_open, false) {
            return;
        }
        let (mux, boot) = (t.mux, t.boot);
        self.break_transport(transport);
        let delay = self.rng.delay(5_000);
        self.after(
            delay,
            Ev::LinkGone {
                transport,
                at_server: true,
            },
        );
        let m = &mut self.muxes[mux];
        if m.boot != boot || m.transport != Some(transport) {
            return;
        }
        m.transport = None;
        if let Some(side) = &mut m.side {
            side.handle_link_down(now);
        }
        self.dial_later(mux, 100_000);
        self.after_mux(mux);
    }

    pub(crate) fn mux_timer(&mut self, mux: usize, boot: u32) {
        let (now, now_us) = (self.instant(), self.now_us);
        let m = &mut self.muxes[mux];
        if m.boot != boot || m.timer > now_us {
            return;
        }
        m.timer = u64::MAX;
        if let Some(side) = &mut m.side {
            side.handle_timeout(now);
            self.after_mux(mux);
        }
    }

    /// Does what the mux's half wants done, and sends what it has for the server.
    fn after_mux(&mut self, mux: usize) {
        while let Some(event) = self.muxes[mux].side.as_mut().and_then(MuxSide::poll_event) {
            self.mux_event(mux, event);
        }
        if let Some(transport) = self.muxes[mux].transport {
            while let Some(bytes) = self.muxes[mux]
                .side
                .as_mut()
                .and_then(MuxSide::poll_link_output)
            {
                self.send_on(transport, true, bytes);
            }
        }
        let base = self.base;
        let m = &mut self.muxes[mux];
        let Some(due) = m.side.as_ref().and_then(MuxSide::poll_timeout) else {
            return;
        };
        let at = due.saturating_duration_since(base).as_micros() as u64;
        if at < m.timer {
            m.timer = at;
            let boot = m.boot;
            self.at(at, Ev::MuxTimer { mux, boot });
        }
    }

    fn mux_event(&mut self, mux: usize, event: MuxEvent) {
        match event {
            MuxEvent::Accepting(yes) => self.muxes[mux].accepting = yes,
            MuxEvent::Output {
                conn,
                bytes,
                element,
            } => {
                if let Some(&tcp) = self.muxes[mux].conns.get(&conn) {
                    self.write_client(tcp, bytes, element);
                }
            }
            MuxEvent::InputRoom { conn, .. } => {
                if let Some(&tcp) = self.muxes[mux].conns.get(&conn) {
                    self.read_client(tcp);
                }
            }
            MuxEvent::Close {
                conn,
                last,
                element,
                reason,
            } => {
                self.trace.line(
                    self.now_us,
                    conn.0,
                    format_args!("mux{mux} is to close {conn:?}: {reason:?}"),
                );
                if let Some(&tcp) = self.muxes[mux].conns.get(&conn) {
                    self.tcps[tcp].to_close = true;
                    self.write_client(tcp, last, element);
                    let at = self.tcps[tcp].last_to_client;
                    self.at(at, Ev::ToClientFin { tcp });
                }
            }
            MuxEvent::Forget { conn, reason } => {
                self.trace.line(
                    self.now_us,
                    conn.0,
                    format_args!("mux{mux} forgets {conn:?}: {reason:?}"),
                );
                if let Some(tcp) = self.muxes[mux].conns.remove(&conn) {
                    self.tcps[tcp].mux_open = false;
                    let at = self.tcps[tcp].last_to_client;
                    self.at(at, Ev::ToClientFin { tcp });
                }
            }
            MuxEvent::LinkUp { continued, .. } => {
                self.trace.line(
                    self.now_us,
                    u64::from(continued),
                    format_args!("mux{mux} linked, continued {continued}"),
                );
            }
            MuxEvent::LinkFailed(error) => {
                self.trace.line(
                    self.now_us,
                    0x22,
                    format_args!("mux{mux}: link failed: {error}"),
                );
                if let Some(transport) = self.muxes[mux].transport {
                    self.close_at_mux(transport);
                }
            }
            MuxEvent::StartTls { .. } | MuxEvent::Dial(_) | MuxEvent::Drain => {}
        }
    }

    // ---- the clients' sockets -------------------------------------------------------------------------------

    /// A client connects. The connection is there when `Connected` comes, if the mux accepts.
    pub(crate) fn connect(&mut self, client: usize, mux: usize) -> usize {
        let tcp = self.tcps.len();
        let slow = self.plan.tight && self.rng.permille(300);
        self.tcps.push(Tcp {
            client,
            mux,
            boot: self.muxes[mux].boot,
            conn: None,
            client_open: true,
            mux_open: false,
            vanished: false,
            mux_died: false,
            sent: 0,
            arrived: 0,
            // A third of them, whoever it is.
            websocket: (client + tcp).is_multiple_of(3),
            ends: VecDeque::new(),
            inbox: BytesMut::new(),
            fin: None,
            to_close: false,
            acked: 0,
            told: 0,
            last_to_mux: 0,
            last_to_client: 0,
            last_ack: 0,
            slow,
        });
        let delay = self.rng.delay(400);
        self.after(delay, Ev::Connected { tcp });
        tcp
    }

    pub(crate) fn connected(&mut self, tcp: usize) {
        let now = self.instant();
        let (mux, client) = (self.tcps[tcp].mux, self.tcps[tcp].client);
        let open = Open {
            kind: ListenerKind::C2s,
            transport: match self.tcps[tcp].websocket {
                true => proto::frame::Transport::WebSocket,
                false => proto::frame::Transport::Tcp,
            },
            peer: SocketAddr::from(([192, 0, 2, 1], 1024 + tcp as u16)),
            local: SocketAddr::from(([192, 0, 2, 2], 5222)),
            tls: None,
            dial: None,
        };
        let m = &mut self.muxes[mux];
        let opened = m
            .side
            .as_mut()
            .filter(|_| m.accepting)
            .and_then(|side| side.open(now, open).ok());
        match opened {
            Some(conn) => {
                m.conns.insert(conn, tcp);
                let boot = m.boot;
                let t = &mut self.tcps[tcp];
                t.conn = Some(conn);
                t.boot = boot;
                t.mux_open = true;
                self.oracle.conns.insert((mux, boot, conn.0), tcp);
                self.trace.line(
                    self.now_us,
                    conn.0,
                    format_args!("client {client} is connected to mux{mux} as {conn:?}, tcp {tcp}"),
                );
                self.client_connected(tcp);
                self.after_mux(mux);
            }
            None => {
                self.tcps[tcp].client_open = false;
                self.refused(tcp);
            }
        }
    }

    /// The TCP connection a server's frame speaks of.
    pub(crate) fn tcp_of(&self, mux: usize, boot: u32, conn: ConnId) -> Option<usize> {
        self.oracle.conns.get(&(mux, boot, conn.0)).copied()
    }

    /// Bytes of a client onto its TCP connection.
    pub(crate) fn client_sends(&mut self, tcp: usize, mut bytes: Bytes) {
        let t = &mut self.tcps[tcp];
        t.sent += bytes.len() as u64;
        if t.websocket {
            t.ends.push_back(t.sent);
        }
        while !bytes.is_empty() {
            let piece = if self.rng.permille(150) {
                bytes.split_to(1 + self.rng.index(bytes.len()))
            } else {
                std::mem::take(&mut bytes)
            };
            let delay = self.rng.delay(800);
            let t = &mut self.tcps[tcp];
            t.last_to_mux = (self.now_us + delay).max(t.last_to_mux);
            let at = t.last_to_mux;
            self.at(at, Ev::ToMux { tcp, bytes: piece });
        }
    }

    /// The client closes its end; everything it has sent and acknowledged arrives before.
    pub(crate) fn client_closes(&mut self, tcp: usize, reason: CloseReason) {
        let t = &mut self.tcps[tcp];
        if !std::mem::replace(&mut t.client_open, false) {
            return;
        }
        t.last_to_mux = t.last_to_mux.max(t.last_ack).max(self.now_us);
        let at = t.last_to_mux;
        self.at(at, Ev::ToMuxFin { tcp, reason });
    }

    pub(crate) fn to_mux(&mut self, tcp: usize, bytes: Bytes) {
        self.tcps[tcp].inbox.extend_from_slice(&bytes);
        self.read_client(tcp);
        let mux = self.tcps[tcp].mux;
        self.after_mux(mux);
    }

    /// Reads what the mux may read.
    fn read_client(&mut self, tcp: usize) {
        let now = self.instant();
        let t = &mut self.tcps[tcp];
        let (Some(conn), true) = (t.conn, t.mux_open) else {
            return;
        };
        let m = &mut self.muxes[t.mux];
        let Some(side) = m.side.as_mut().filter(|_| m.boot == t.boot) else {
            return;
        };
        if t.to_close {
            t.inbox.clear();
        }
        while !t.inbox.is_empty() {
            let mut room = side.input_room(conn).min(t.inbox.len());
            if room == 0 {
                return;
            }
            let message = t.ends.front().map(|end| (end - t.arrived) as usize);
            let ends = message.is_some_and(|message| message <= room);
            if let Some(message) = message {
                room = room.min(message);
            }
            let bytes = t.inbox.split_to(room);
            // Now and then the last fragment is empty.
            let alone = ends && t.arrived.is_multiple_of(5);
            side.input(now, conn, &bytes, ends && !alone);
            t.arrived += bytes.len() as u64;
            if ends {
                t.ends.pop_front();
            }
            if alone {
                side.input(now, conn, b"", true);
            }
        }
        if let Some(reason) = t.fin.take() {
            // What was acknowledged is told before the end.
            t.mux_open = false;
            let acked = t.acked;
            side.drained(now, conn, acked);
            side.closed(now, conn, reason);
            m.conns.remove(&conn);
        }
    }

    pub(crate) fn to_mux_fin(&mut self, tcp: usize, reason: CloseReason) {
        let t = &mut self.tcps[tcp];
        if t.mux_open && t.fin.is_none() {
            t.fin = Some(reason);
            if t.vanished {
                t.inbox.clear();
            }
            let mux = t.mux;
            self.read_client(tcp);
            self.after_mux(mux);
        }
    }

    /// One element onto a client's socket.
    fn write_client(&mut self, tcp: usize, bytes: Bytes, element: u64) {
        let typical = if self.tcps[tcp].slow { 150_000 } else { 800 };
        let delay = self.rng.delay(typical);
        let t = &mut self.tcps[tcp];
        if !t.mux_open {
            return;
        }
        t.last_to_client = (self.now_us + delay).max(t.last_to_client);
        let at = t.last_to_client;
        self.at(
            at,
            Ev::ToClient {
                tcp,
                bytes,
                element,
            },
        );
    }

    pub(crate) fn to_client(&mut self, tcp: usize, bytes: Bytes, element: u64) {
        if !self.tcps[tcp].client_open || self.tcps[tcp].vanished {
            return;
        }
        let delay = self.rng.delay(10_000);
        let t = &mut self.tcps[tcp];
        t.last_ack = (self.now_us + delay).max(t.last_ack);
        let at = t.last_ack;
        self.at(at, Ev::Acked { tcp, element });
        self.client_bytes(tcp, bytes);
    }

    pub(crate) fn to_client_fin(&mut self, tcp: usize) {
        let t = &self.tcps[tcp];
        if t.vanished && t.mux_open {
            // Nobody acknowledges: the mux gives the socket up after a while.
            self.after(
                3_000_000,
                Ev::ToMuxFin {
                    tcp,
                    reason: CloseReason::SocketError,
                },
            );
        } else if t.client_open && !t.vanished {
            self.client_closed(tcp);
        }
    }

    /// The client's TCP has acknowledged this element and all before it.
    pub(crate) fn acked(&mut self, tcp: usize, element: u64) {
        let now = self.instant();
        let t = &mut self.tcps[tcp];
        t.acked = t.acked.max(element);
        let (Some(conn), true) = (t.conn, t.mux_open) else {
            return;
        };
        let mux = t.mux;
        if t.acked > t.told {
            t.told = t.acked;
            let told = t.told;
            if let Some(side) = &mut self.muxes[mux].side {
                side.drained(now, conn, told);
            }
            self.after_mux(mux);
        }
    }
}
