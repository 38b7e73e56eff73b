//! The link's thread: drives `MuxSide`, accepts connections, and hands each to a set of connections: its own (one
//! thread in all, no hop) or that of another thread.
//!
//! In: readiness, reports of connections, commands, `now`. Out: orders, link bytes, log lines per change of state.
//! Owns: `MuxSide`, the link, listeners, counts. Never: waits on a queue; writes to a client's socket itself.

mod notes;
mod remote;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crossbeam_channel::Receiver;
use foldhash::fast::RandomState;
use mio::{Events, Poll, Token, Waker};
use proto::frame::{CloseReason, ConnId, Dial, DialTarget, Open, TlsFacts};
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig, Refused};

use crate::config::Config;
use crate::conn::Key;
use crate::conns::{Above, ConnSet, Opening, Shared};
use crate::gate::Gate;
use crate::link::{Link, LinkStep, LinkTransport};
use crate::listen::{Accepted, Listeners};
use crate::lobby::Lobby;
use crate::metrics;
use crate::orders::{Order, Report, Reports};
use crate::resolve::{Asker, Resolver, host_port};
use remote::Remote;

/// Tokens of the link's thread that are no connections: thread number 0xFF in `Key`.
const LINK: Token = Key::special(0);
/// The waker's token, on every thread.
pub(crate) const WAKER: Token = Key::special(1);
const LISTENERS: Token = Key::special(16);
/// Past any number of listeners.
const LOBBY: Token = Key::special(1 << 32);

/// Events taken from the kernel in one go.
pub(crate) const EVENTS: usize = 1024;
/// How long connections may take to go when the process stops.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How long the link may take to carry the last frames after that.
const STOP_LINK_MAX: Duration = Duration::from_secs(1);

/// From outside, through a waker.
#[derive(Debug)]
pub(crate) enum Command {
    /// A new configuration, checked.
    Reload(Box<Config>),
    /// Stop in good order.
    Stop,
}

/// The link's half as connections of this thread see it.
pub(crate) struct Core {
    mux: MuxSide,
    routes: HashMap<ConnId, Key, RandomState>,
    gate: Gate,
    /// Somebody left or logged in: listeners may go on.
    room: bool,
}

impl Above for Core {
    fn open(&mut self, now: Instant, key: Key, open: Open) -> Opening {
        match self.mux.open(now, open) {
            Ok(id) => {
                self.routes.insert(id, key);
                Opening::Now(id, self.mux.input_room(id) as u64)
            }
            Err(why) => {
                if why != Refused::NotAccepting {
                    tracing::debug!(%why, "connection refused");
                }
                Opening::Refused
            }
        }
    }

    fn input(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        message_end: bool,
    ) -> Option<u64> {
        Some(self.mux.input(now, conn, bytes, message_end) as u64)
    }

    fn want_room(&mut self, _now: Instant, _key: Key, conn: ConnId, _total: u64) -> Option<u64> {
        Some(self.mux.input_room(conn) as u64)
    }

    fn secured(&mut self, now: Instant, conn: ConnId, facts: TlsFacts) {
        self.mux.secured(now, conn, facts);
    }

    fn drained(&mut self, now: Instant, conn: ConnId, elements: u64) {
        self.mux.drained(now, conn, elements);
    }

    fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        self.routes.remove(&conn);
        self.mux.closed(now, conn, reason);
    }

    fn dial_failed(&mut self, now: Instant, dial: u64, reason: &str) {
        self.mux.dial_failed(now, dial, reason);
    }

    fn authenticated(&mut self) {
        self.gate.authenticated();
        self.room = true;
    }

    fn left(&mut self, peer: IpAddr, authenticated: bool) {
        self.gate.leave(peer, authenticated);
        self.room = true;
    }
}

/// Where the connections are.
enum Sets {
    /// On this thread.
    Local(Box<ConnSet>),
    /// On others.
    Remote(Vec<Remote>, Receiver<Reports>),
}

/// What is needed to start; everything that can fail for the operator's mistakes has been done.
pub(crate) struct Start {
    pub config: Config,
    pub transport: LinkTransport,
    pub shared: Arc<Shared>,
    pub listeners: Listeners,
    pub poll: Poll,
    pub waker: Arc<Waker>,
    pub commands: Receiver<Command>,
}

/// See the module.
pub(crate) struct Hub {
    config: Config,
    shared: Arc<Shared>,
    poll: Poll,
    commands: Receiver<Command>,
    core: Core,
    sets: Sets,
    next_set: usize,
    link: Link,
    link_in: BytesMut,
    /// Reused from read to read.
    noted: Vec<ConnId>,
    link_was_up: bool,
    /// The last reason the link was down for, so that it is logged once.
    down_reason: Option<String>,
    /// `MuxSide` takes new connections.
    accepting: bool,
    draining: bool,
    listeners: Listeners,
    lobby: Lobby,
    resolver: Resolver,
    steps: VecDeque<LinkStep>,
    stopping: Option<Stopping>,
}

struct Stopping {
    /// Connections are closed by us then.
    conns_until: Instant,
    /// We end then.
    until: Instant,
    closed: bool,
}

impl Hub {
    /// Everything in place, nothing running.
    pub(crate) fn new(now: Instant, start: Start) -> io::Result<Self> {
        let Start {
            config,
            transport,
            shared,
            mut listeners,
            poll,
            waker,
            commands,
        } = start;
        let mut boot = proto::frame::BootId::default();
        getrandom::fill(&mut boot.0).map_err(|e| io::Error::other(e.to_string()))?;
        let mux = MuxSide::new(
            now,
            MuxSideConfig {
                server_lost: config.limits.server_lost,
                unsettled_bytes_max: config.limits.unsettled_bytes_max,
                ..MuxSideConfig::new(config.name.clone(), boot)
            },
        );
        let registry = poll.registry();
        listeners.register(registry, LISTENERS.0)?;
        listeners.set_accepting(now, false);
        let servers = match transport {
            LinkTransport::Dial => config.servers.clone(),
            LinkTransport::Connect(_) => Vec::new(),
        };
        let link = Link::new(now, transport, servers, registry.try_clone()?, LINK);
        let sets = if config.threads == 1 {
            let set = ConnSet::new(
                now,
                0,
                1,
                registry.try_clone()?,
                shared.clone(),
                config.limits.clone(),
            );
            Sets::Local(Box::new(set))
        } else {
            let (remotes, reports) = remote::start(now, &config, &shared, &waker)?;
            Sets::Remote(remotes, reports)
        };
        let gate = Gate::new(now, config.limits.clone());
        let lobby = Lobby::new(registry.try_clone()?, LOBBY.0);
        Ok(Self {
            config,
            shared,
            poll,
            commands,
            core: Core {
                mux,
                routes: HashMap::default(),
                gate,
                room: false,
            },
            sets,
            next_set: 0,
            link,
            link_in: BytesMut::new(),
            noted: Vec::new(),
            link_was_up: false,
            down_reason: None,
            accepting: false,
            draining: false,
            listeners,
            lobby,
            resolver: Resolver::new(waker),
            steps: VecDeque::new(),
            stopping: None,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout(Instant::now());
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            let mut link_ready = self.link.has_more();
            for event in &events {
                match event.token() {
                    LINK => {
                        let step = self.link.handle_ready(now, event);
                        self.steps.push_back(step);
                        link_ready = true;
                    }
                    WAKER => self.woken(now),
                    token if Key::from_token(token).thread() == Key::NO_THREAD => {
                        if token >= LOBBY {
                            self.guest_ready(now, event);
                        } else {
                            self.listeners.handle_ready(token);
                        }
                    }
                    token => {
                        if let Sets::Local(set) = &mut self.sets {
                            set.handle_ready(now, Key::from_token(token), event, &mut self.core);
                        }
                    }
                }
            }
            if link_ready {
                self.read_link(now);
            }
            self.turn(now);
            if self.is_over(now) {
                return Ok(());
            }
        }
    }

    /// The rest of a turn: what is due, what came of it, then all that is to be written.
    fn turn(&mut self, now: Instant) {
        if let Sets::Local(set) = &mut self.sets {
            set.handle_again(now, &mut self.core);
            set.handle_timeout(now, &mut self.core);
        }
        let step = self.link.handle_timeout(now);
        self.steps.push_back(step);
        if self.core.mux.poll_timeout().is_some_and(|t| t <= now) {
            self.core.mux.handle_timeout(now);
        }
        let metrics = &self.shared.metrics;
        self.lobby.handle_timeout(now, &mut self.core.gate, metrics);
        self.take_steps(now);
        self.stop_conns(now);
        self.take_events(now);
        self.accept(now);
        self.take_events(now);
        match &mut self.sets {
            Sets::Local(set) => set.flush(now, &mut self.core),
            Sets::Remote(remotes, _) => {
                for remote in remotes {
                    remote.send();
                }
            }
        }
        self.write_link(now);
        self.take_events(now);
        let m = &self.shared.metrics;
        metrics::set(&m.conns, self.core.gate.conns() as u64);
        metrics::set(
            &m.conns_unauthenticated,
            self.core.gate.unauthenticated() as u64,
        );
        metrics::set(&m.unsettled_bytes, self.core.mux.unsettled_bytes() as u64);
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.link.has_more() && !self.holds() {
            return Some(Duration::ZERO);
        }
        let (set, pending) = match &self.sets {
            Sets::Local(set) => (set.poll_timeout(now), false),
            Sets::Remote(remotes, _) => (None, remotes.iter().any(Remote::is_blocked)),
        };
        let stop = self
            .stopping
            .as_ref()
            .map(|s| if s.closed { s.until } else { s.conns_until });
        let retry = pending.then(|| now + Duration::from_millis(1));
        let all = [
            set,
            stop,
            retry,
            self.link.poll_timeout(),
            self.core.mux.poll_timeout(),
            self.listeners.poll_timeout(now),
            self.lobby.poll_timeout(),
        ];
        all.into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    /// A thread is far behind: the link is not read until it has caught up.
    fn holds(&self) -> bool {
        match &self.sets {
            Sets::Local(_) => false,
            Sets::Remote(remotes, _) => remotes.iter().any(Remote::is_far_behind),
        }
    }

    fn read_link(&mut self, now: Instant) {
        if !self.link.is_up() || self.holds() {
            return;
        }
        let result = self.link.read(&mut self.link_in);
        if let Ok(n) = &result {
            metrics::add(&self.shared.metrics.link_bytes_in, *n as u64);
        }
        let mut noted = std::mem::take(&mut self.noted);
        notes::each(&self.link_in, |conn| noted.push(conn));
        for conn in noted.drain(..) {
            self.order_to(now, conn, |key| Order::Noted { key });
        }
        self.noted = noted;
        if !self.link_in.is_empty()
            && let Err(error) = self.core.mux.handle_link_bytes(now, &mut self.link_in)
        {
            // The server broke the protocol, or said what we are not: one line, close, dial again.
            self.drop_link(now, error.to_string());
            return;
        }
        if let Err(error) = result {
            self.transport_failed(now, &error);
        }
    }

    /// Before the greeting it is the server that has refused us, and TLS 1.3 has no word for why that we would hear in time.
    fn transport_failed(&mut self, now: Instant, error: &io::Error) {
        let why = match self.link_was_up {
            true => error.to_string(),
            false => format!(
                "{error}, before it greeted this mux: see the log of the server (does it list this mux; is this its link port?)"
            ),
        };
        self.drop_link(now, why);
    }

    fn drop_link(&mut self, now: Instant, why: String) {
        let step = self.link.fail(now, why);
        self.steps.push_back(step);
    }

    fn write_link(&mut self, now: Instant) {
        let mux = &mut self.core.mux;
        match self.link.write(|| mux.poll_link_output()) {
            Ok(n) => metrics::add(&self.shared.metrics.link_bytes_out, n as u64),
            Err(error) => {
                // What the server said before it went may explain it.
                self.read_link(now);
                if self.link.is_up() {
                    self.transport_failed(now, &error);
                }
            }
        }
        self.take_steps(now);
    }

    fn take_steps(&mut self, now: Instant) {
        while let Some(step) = self.steps.pop_front() {
            match step {
                LinkStep::None => {}
                LinkStep::Resolve(text) => {
                    let (host, port) = host_port(&text).unwrap_or((&text, 0));
                    if let Some(answer) = self.resolver.ask(Asker::Link, host, port) {
                        let step = self.link.resolved(now, answer.found);
                        self.steps.push_back(step);
                    }
                }
                LinkStep::Up => {
                    self.link_in = BytesMut::new();
                    self.core.mux.handle_link_up(now);
                    // The first bytes may be there already, and edges come once.
                    self.read_link(now);
                }
                LinkStep::Down(why) => self.link_down(now, why),
            }
        }
    }

    fn link_down(&mut self, now: Instant, why: String) {
        self.core.mux.handle_link_down(now);
        metrics::set(&self.shared.metrics.link_up, 0);
        if let Some(stopping) = &mut self.stopping {
            // Nobody is left to say goodbye to the clients.
            stopping.conns_until = now;
            return;
        }
        let lost = std::mem::take(&mut self.link_was_up);
        if lost || self.down_reason.as_ref() != Some(&why) {
            tracing::warn!(
                server = self.link.server(),
                reason = why,
                "no link to the server, trying again"
            );
        }
        self.down_reason = Some(why);
        self.maybe_next_server(now);
    }

    /// Another server may be used once no client of this one is left, and it has been told of the last.
    fn maybe_next_server(&mut self, now: Instant) {
        let wanted = self.draining || self.down_reason.is_some();
        if !wanted
            || !self.link.has_other()
            || self.stopping.is_some()
            || !self.core.routes.is_empty()
        {
            return;
        }
        let mux = &self.core.mux;
        if self.link.is_up() && (mux.conn_count() > 0 || mux.retained_bytes() > 0) {
            return;
        }
        let mut config = self.core.mux.config().clone();
        if getrandom::fill(&mut config.boot.0).is_err() {
            return;
        }
        self.core.mux = MuxSide::new(now, config);
        self.accepting = false;
        self.listeners.set_accepting(now, false);
        metrics::set(&self.shared.metrics.link_up, 0);
        self.draining = false;
        self.down_reason = None;
        self.link_was_up = false;
        self.link.next_server(now);
        tracing::info!(server = self.link.server(), "trying the next server");
    }

    fn accept(&mut self, now: Instant) {
        if std::mem::take(&mut self.core.room) {
            self.listeners.look_again();
        }
        let Self {
            listeners,
            core,
            shared,
            ..
        } = self;
        let mut accepted = Vec::new();
        listeners.accept(now, &mut core.gate, &shared.metrics, |_, one| {
            accepted.push(one)
        });
        for one in accepted {
            if one.unnamed {
                let patience = self.config.limits.proxy_header;
                self.lobby.add(now, one, patience, &mut self.core.gate);
            } else {
                self.adopt(now, one);
            }
        }
    }

    /// Something came from a balancer whose connection is not named yet.
    fn guest_ready(&mut self, now: Instant, event: &mio::event::Event) {
        let metrics = &self.shared.metrics;
        let before = self.core.gate.conns();
        let named = self.lobby.handle_ready(event, &mut self.core.gate, metrics);
        self.core.room |= self.core.gate.conns() < before;
        if let Some(accepted) = named {
            self.adopt(now, accepted);
        }
    }

    /// Gives a connection to the set that will hold it.
    fn adopt(&mut self, now: Instant, accepted: Accepted) {
        match &mut self.sets {
            Sets::Local(set) => set.adopt(now, accepted, &mut self.core),
            Sets::Remote(remotes, _) => {
                self.next_set = (self.next_set + 1) % remotes.len();
                remotes[self.next_set].push(Order::Adopt(accepted));
            }
        }
    }

    fn order(&mut self, now: Instant, thread: usize, order: Order) {
        match &mut self.sets {
            Sets::Local(set) => set.apply(now, order, &mut self.core),
            Sets::Remote(remotes, _) => {
                if let Some(remote) = remotes.get_mut(thread) {
                    remote.push(order);
                }
            }
        }
    }

    fn order_to(&mut self, now: Instant, conn: ConnId, order: impl FnOnce(Key) -> Order) {
        if let Some(&key) = self.core.routes.get(&conn) {
            self.order(now, usize::from(key.thread()), order(key));
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.core.mux.poll_event() {
            match event {
                MuxEvent::Output {
                    conn,
                    bytes,
                    element,
                } => {
                    self.order_to(now, conn, |key| Order::Output {
                        key,
                        bytes,
                        element,
                    });
                }
                MuxEvent::InputRoom { conn, limit } => {
                    self.order_to(now, conn, |key| Order::InputLimit { key, limit });
                }
                MuxEvent::StartTls {
                    conn,
                    last,
                    element,
                    request_client_certificate: request_certificate,
                } => {
                    self.order_to(now, conn, |key| Order::StartTls {
                        key,
                        last,
                        element,
                        request_certificate,
                    });
                }
                MuxEvent::Close {
                    conn,
                    last,
                    element,
                    reason,
                } => {
                    self.order_to(now, conn, |key| Order::Close {
                        key,
                        last,
                        element,
                        reason,
                    });
                }
                MuxEvent::Forget { conn, reason } => {
                    tracing::debug!(conn = conn.0, ?reason, "connection given up");
                    self.order_to(now, conn, |key| Order::Forget { key });
                    self.core.routes.remove(&conn);
                }
                MuxEvent::Dial(dial) => self.dial(now, dial),
                MuxEvent::Accepting(accepting) => {
                    self.accepting = accepting;
                    self.set_accepting(now);
                }
                MuxEvent::Drain => {
                    tracing::info!(
                        server = self.link.server(),
                        "the server is going away: no new clients for it"
                    );
                    self.draining = true;
                    self.set_accepting(now);
                }
                MuxEvent::LinkUp { server, continued } => {
                    self.greeted(&server, continued);
                    self.set_accepting(now);
                }
                MuxEvent::LinkFailed(error) => self.drop_link(now, error.to_string()),
            }
        }
        if self.draining {
            self.maybe_next_server(now);
        }
        if !self.steps.is_empty() {
            self.take_steps(now);
        }
    }

    fn set_accepting(&mut self, now: Instant) {
        let accepting = self.accepting && !self.draining && self.stopping.is_none();
        self.listeners.set_accepting(now, accepting);
    }

    fn greeted(&mut self, server: &str, continued: bool) {
        let clients = self.core.routes.len();
        tracing::info!(server, continued, clients, "link to the server is up");
        self.link.greeted();
        self.link_was_up = true;
        self.down_reason = None;
        self.draining = false;
        metrics::set(&self.shared.metrics.link_up, 1);
        metrics::add(&self.shared.metrics.link_ups, 1);
    }

    fn dial(&mut self, now: Instant, dial: Dial) {
        let number = dial.dial;
        let answer = match dial.target.clone() {
            DialTarget::Host(host, port) => self.resolver.ask(Asker::Dial(dial), &host, port),
            DialTarget::Srv(_) => {
                return self.core.mux.dial_failed(
                    now,
                    number,
                    "this mux does not look up SRV records",
                );
            }
        };
        if let Some(answer) = answer {
            self.answered(now, answer.asker, answer.found);
        }
    }

    fn answered(
        &mut self,
        now: Instant,
        asker: Asker,
        found: Result<Vec<std::net::SocketAddr>, String>,
    ) {
        match (asker, found) {
            (Asker::Link, found) => {
                let step = self.link.resolved(now, found);
                self.steps.push_back(step);
            }
            (Asker::Dial(dial), Ok(addresses)) => {
                let threads = match &self.sets {
                    Sets::Local(_) => 1,
                    Sets::Remote(remotes, _) => remotes.len(),
                };
                self.next_set = (self.next_set + 1) % threads;
                self.order(now, self.next_set, Order::Dial { dial, addresses });
            }
            (Asker::Dial(dial), Err(why)) => self.core.mux.dial_failed(now, dial.dial, &why),
        }
    }

    /// Somebody outside this thread has something.
    fn woken(&mut self, now: Instant) {
        while let Some(answer) = self.resolver.poll() {
            self.answered(now, answer.asker, answer.found);
        }
        if let Sets::Remote(remotes, reports) = &self.sets {
            for remote in remotes {
                remote.heard();
            }
            let batches: Vec<Reports> = reports.try_iter().collect();
            for batch in batches {
                self.take_reports(now, batch);
            }
        }
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => self.stop(now),
                Command::Reload(config) => self.reload(*config),
            }
        }
    }

    fn take_reports(&mut self, now: Instant, batch: Reports) {
        let mut bytes = &batch.bytes[..];
        for report in batch.reports {
            match report {
                Report::Open { key, open } => {
                    let order = match self.core.open(now, key, *open) {
                        Opening::Now(id, room) => Order::Opened { key, id, room },
                        Opening::Later | Opening::Refused => Order::Refused { key },
                    };
                    self.order(now, usize::from(key.thread()), order);
                }
                Report::Input {
                    conn,
                    len,
                    message_end,
                } => {
                    let (these, rest) = bytes.split_at(len);
                    bytes = rest;
                    self.core.mux.input(now, conn, these, message_end);
                }
                Report::WantRoom { key, conn, total } => {
                    let room = self.core.mux.input_room(conn) as u64;
                    if room > 0 {
                        let limit = total + room;
                        self.order(
                            now,
                            usize::from(key.thread()),
                            Order::InputLimit { key, limit },
                        );
                    }
                }
                Report::Secured { conn, facts } => self.core.secured(now, conn, *facts),
                Report::Drained { conn, elements } => self.core.drained(now, conn, elements),
                Report::Closed { conn, reason } => self.core.closed(now, conn, reason),
                Report::DialFailed { dial, reason } => self.core.dial_failed(now, dial, &reason),
                Report::Authenticated => self.core.authenticated(),
                Report::Left {
                    peer,
                    authenticated,
                } => self.core.left(peer, authenticated),
            }
        }
    }

    fn reload(&mut self, config: Config) {
        let old = std::mem::replace(&mut self.config, config);
        if self.config.limits != old.limits {
            self.core.gate.set_limits(self.config.limits.clone());
            let limits = self.config.limits.clone();
            match &mut self.sets {
                Sets::Local(set) => set.set_limits(limits),
                Sets::Remote(remotes, _) => {
                    for remote in remotes {
                        remote.push(Order::Limits(limits.clone()));
                    }
                }
            }
            self.listeners.look_again();
        }
        if self.config.websocket != old.websocket {
            self.shared.set_websocket(self.config.websocket.clone());
        }
        if self.config.tcp != old.tcp {
            self.listeners.set_tcp(&self.config.tcp);
        }
    }

    fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(clients = self.core.routes.len(), "stopping");
        self.listeners.close();
        self.lobby.close(&mut self.core.gate);
        self.core.mux.drain(now);
        let conns_until = if self.link.is_up() {
            now + STOP_MAX
        } else {
            now
        };
        self.stopping = Some(Stopping {
            conns_until,
            until: conns_until + STOP_LINK_MAX,
            closed: false,
        });
    }

    /// While stopping: the server has had its time to say goodbye to its clients.
    fn stop_conns(&mut self, now: Instant) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if stopping.closed || (now < stopping.conns_until && self.core.gate.conns() > 0) {
            return;
        }
        stopping.closed = true;
        stopping.until = now + STOP_LINK_MAX;
        match &mut self.sets {
            Sets::Local(set) => set.shut_down(now, &mut self.core),
            Sets::Remote(remotes, _) => {
                for remote in remotes {
                    remote.push(Order::ShutDown);
                }
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(stopping) = &self.stopping else {
            return false;
        };
        let said = self.core.gate.conns() == 0 && (self.link.is_flushed() || !self.link.is_up());
        stopping.closed && (said || now >= stopping.until)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        metrics::set(&self.shared.metrics.link_up, 0);
        if let Sets::Remote(remotes, _) = &mut self.sets {
            for remote in remotes.drain(..) {
                remote.stop();
            }
        }
        tracing::debug!(
            conns = self.shared.metrics.conns.load(Relaxed),
            "link thread ends"
        );
    }
}
