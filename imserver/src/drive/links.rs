//! The link loop: the one thread that reads and writes the sockets of muxes.
//!
//! In: sockets, commands of the shards. Out: sockets, events for the shards.
//! Owns: `Links`, the transports under them.
//! Never: parses what a client says; waits for a shard.

use super::muffle::{self, Muffle};
use super::queue::Outbox;
use super::tls;
use crate::event::{Event, LinkCommand, LinkId, ShardId};
use crate::linkset::{HelloError, Identity, Links, MuxInfo};
use bytes::{Buf, Bytes, BytesMut};
use crossbeam_channel::Receiver;
use foldhash::HashMap;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use proto::frame::Role;
use proto::server_side::{read_hello, refusal};
use rustls::{ServerConfig, ServerConnection};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// Commands of one turn of one shard.
#[derive(Debug)]
pub struct LinkBatch {
    /// Whose.
    pub shard: ShardId,
    /// In order.
    pub commands: Vec<LinkCommand>,
}

/// Asked of the link loop by the rest of the server.
#[derive(Debug)]
pub enum Ask {
    /// A transport from a mux inside this process.
    Embedded(std::os::unix::net::UnixStream, Identity),
    /// `mux list`.
    List(crossbeam_channel::Sender<Vec<MuxInfo>>),
    /// Tell every mux that this server goes away, and stop.
    Stop,
}

/// Who may link, as the configuration says. Replaced by a reload.
pub type Permits = Arc<RwLock<Vec<Identity>>>;

const WAKER: Token = Token(0);
const TCP: usize = 1;
/// First token of transports.
const FIRST: usize = 64;

/// Transports that have not said Hello: at most so many, for at most so long. Only holders of a certificate of our CA get past.
const GREETING_MAX: usize = 64;
const GREETING_TIME: Duration = Duration::from_secs(10);

/// Bytes handed to a socket ahead of what it takes.
const WRITE_AHEAD: usize = 1 << 20;

/// Bytes read from one link before the others get a turn.
const READ_TURN: usize = 4 << 20;

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }
    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Transport {
    socket: Socket,
    tls: Option<Box<ServerConnection>>,
    link: Option<LinkId>,
    /// From the embedding process: the identity is known without a certificate.
    identity: Option<Identity>,
    since: Instant,
    input: BytesMut,
    output: VecDeque<Bytes>,
    output_bytes: usize,
    peer: String,
    /// Another mux of its name is connected.
    twin: bool,
}

/// See the module.
pub struct LinkLoop {
    poll: Poll,
    doors: Vec<Door>,
    tls: Option<Arc<ServerConfig>>,
    permits: Permits,
    links: Links,
    transports: HashMap<usize, Transport>,
    by_link: HashMap<LinkId, usize>,
    next_token: usize,
    commands: Receiver<LinkBatch>,
    asks: Receiver<Ask>,
    shards: Vec<Outbox<Vec<Event>>>,
    scratch: Vec<u8>,
    /// Refusals of strangers, of whom there may be any number.
    strangers: Muffle,
    /// Refusals of muxes because another of the name is connected: they try again every few seconds, for as long as it is.
    twins: Muffle,
    /// Refusals of other holders of a certificate of ours.
    refused: Muffle,
}

impl std::fmt::Debug for LinkLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkLoop")
            .field("transports", &self.transports.len())
            .finish_non_exhaustive()
    }
}

/// What the link loop is made of.
pub struct LinkLoopConfig {
    /// Bound TCP doors.
    pub tcp: Vec<std::net::TcpListener>,
    /// Bound Unix door.
    pub unix: Option<std::os::unix::net::UnixListener>,
    /// TLS of the TCP doors.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may link.
    pub permits: Permits,
    /// The links.
    pub links: Links,
    /// From the shards.
    pub commands: Receiver<LinkBatch>,
    /// From the rest of the server.
    pub asks: Receiver<Ask>,
    /// To the shards.
    pub shards: Vec<Outbox<Vec<Event>>>,
}

impl std::fmt::Debug for LinkLoopConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkLoopConfig")
    }
}

impl LinkLoop {
    /// Registers everything. The waker wakes the loop for commands and asks.
    pub fn new(config: LinkLoopConfig) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut doors = Vec::new();
        for listener in config.tcp {
            listener.set_nonblocking(true)?;
            doors.push(Door::Tcp(TcpListener::from_std(listener)));
        }
        if let Some(listener) = config.unix {
            listener.set_nonblocking(true)?;
            doors.push(Door::Unix(UnixListener::from_std(listener)));
        }
        for (n, door) in doors.iter_mut().enumerate() {
            let token = Token(TCP + n);
            match door {
                Door::Tcp(l) => poll.registry().register(l, token, Interest::READABLE)?,
                Door::Unix(l) => poll.registry().register(l, token, Interest::READABLE)?,
            }
        }
        let this = Self {
            poll,
            doors,
            tls: config.tls,
            permits: config.permits,
            links: config.links,
            transports: HashMap::default(),
            by_link: HashMap::default(),
            next_token: FIRST,
            commands: config.commands,
            asks: config.asks,
            shards: config.shards,
            scratch: vec![0; 256 * 1024],
            strangers: Muffle::new(muffle::FEW),
            twins: Muffle::new(muffle::FEW),
            refused: Muffle::new(muffle::SOME),
        };
        Ok((this, waker))
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let now = Instant::now();
            let mut wait = self
                .links
                .poll_timeout()
                .map_or(Duration::from_millis(500), |t| {
                    t.saturating_duration_since(now)
                });
            wait = wait.min(Duration::from_millis(500));
            if !self.hand_events() || !self.commands.is_empty() {
                wait = wait.min(Duration::from_millis(1));
            }
            if let Err(e) = self.poll.poll(&mut events, Some(wait))
                && e.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(error = %e, "polling the links failed");
                return;
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(n) if n < FIRST => self.accept(n - TCP, now),
                    Token(n) => self.ready(n, event.is_readable(), event.is_writable(), now),
                }
            }
            self.take_commands();
            for (link, error) in self.links.handle_timeout(now) {
                tracing::warn!(link = link.0, error = %error, "link lost");
                self.close_link(link, now);
            }
            self.expire_greetings(now);
            self.twins.handle_timeout(now, more_refused);
            self.refused.handle_timeout(now, more_refused);
            self.strangers.handle_timeout(now, more_strangers);
            self.hand_events();
            let tokens: Vec<usize> = self.transports.keys().copied().collect();
            for token in tokens {
                self.write(token, now);
            }
            while let Ok(ask) = self.asks.try_recv() {
                match ask {
                    Ask::List(reply) => {
                        let _ = reply.try_send(self.links.list());
                    }
                    Ask::Embedded(stream, identity) => {
                        if stream.set_nonblocking(true).is_ok() {
                            self.add(
                                Socket::Unix(UnixStream::from_std(stream)),
                                None,
                                Some(identity),
                                "embedded".into(),
                            );
                        }
                    }
                    Ask::Stop => return,
                }
            }
        }
    }

    fn take_commands(&mut self) {
        for _ in 0..super::queue::BATCHES_MAX {
            let Ok(batch) = self.commands.try_recv() else {
                break;
            };
            for command in batch.commands {
                self.links.command(batch.shard, command);
            }
        }
    }

    /// True when nothing is kept back.
    fn hand_events(&mut self) -> bool {
        let mut clear = true;
        let events = self.links.take_events();
        if !events.is_empty() {
            let mut batches: Vec<Vec<Event>> = self.shards.iter().map(|_| Vec::new()).collect();
            for (shard, event) in events {
                batches[usize::from(shard.0)].push(event);
            }
            for (outbox, batch) in self.shards.iter_mut().zip(batches) {
                if !batch.is_empty() {
                    outbox.send(batch);
                }
            }
        }
        for outbox in &mut self.shards {
            clear &= outbox.retry();
        }
        clear
    }

    fn accept(&mut self, door: usize, now: Instant) {
        loop {
            let accepted = match &self.doors[door] {
                Door::Tcp(l) => l.accept().map(|(s, a)| {
                    // Small frames must not wait; a socket that refuses the option still works.
                    let _ = s.set_nodelay(true);
                    (Socket::Tcp(s), a.to_string(), true)
                }),
                Door::Unix(l) => l
                    .accept()
                    .map(|(s, _)| (Socket::Unix(s), "unix".to_owned(), false)),
            };
            let (socket, peer, needs_tls) = match accepted {
                Ok(a) => a,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a link failed");
                    return;
                }
            };
            let greeting = self
                .transports
                .values()
                .filter(|t| t.link.is_none())
                .count();
            if greeting >= GREETING_MAX {
                tracing::debug!(peer, "too many links that have not said who they are");
                continue;
            }
            let tls = match (needs_tls, &self.tls) {
                (false, _) => None,
                (true, Some(config)) => match ServerConnection::new(config.clone()) {
                    Ok(mut c) => {
                        c.set_buffer_limit(None);
                        Some(Box::new(c))
                    }
                    Err(_) => continue,
                },
                (true, None) => continue,
            };
            let token = self.add(socket, tls, None, peer);
            self.ready(token, true, true, now);
        }
    }

    fn add(
        &mut self,
        mut socket: Socket,
        tls: Option<Box<ServerConnection>>,
        identity: Option<Identity>,
        peer: String,
    ) -> usize {
        let token = self.next_token;
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = match &mut socket {
            Socket::Tcp(s) => self.poll.registry().register(s, Token(token), interest),
            Socket::Unix(s) => self.poll.registry().register(s, Token(token), interest),
        };
        if let Err(e) = registered {
            tracing::error!(error = %e, "a link could not be polled");
        }
        let transport = Transport {
            socket,
            tls,
            link: None,
            identity,
            since: Instant::now(),
            input: BytesMut::new(),
            output: VecDeque::new(),
            output_bytes: 0,
            peer,
            twin: false,
        };
        self.transports.insert(token, transport);
        token
    }

    fn ready(&mut self, token: usize, readable: bool, writable: bool, now: Instant) {
        if readable && let Err(reason) = self.read(token, now) {
            self.close(token, now, &reason);
            return;
        }
        if writable {
            self.write(token, now);
        }
    }

    /// Reads until the socket has no more. `Err`: why the transport must go.
    fn read(&mut self, token: usize, now: Instant) -> Result<(), String> {
        let mut turn = 0;
        loop {
            let Some(t) = self.transports.get_mut(&token) else {
                return Ok(());
            };
            let got = match read_some(t, &mut self.scratch) {
                Ok(0) => return Err(if t.link.is_some() { ENDED } else { NOT_GREETED }.into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.to_string()),
            };
            turn += got;
            self.take_input(token, now)?;
            if turn > READ_TURN {
                // Let the others have a turn: what is handled goes to the shards first.
                self.hand_events();
                turn = 0;
            }
        }
    }

    fn take_input(&mut self, token: usize, now: Instant) -> Result<(), String> {
        let Some(t) = self.transports.get_mut(&token) else {
            return Ok(());
        };
        if let Some(link) = t.link {
            return self
                .links
                .handle_bytes(now, link, &mut t.input)
                .map_err(|e| e.to_string());
        }
        let Some(hello) = read_hello(&mut t.input).map_err(|e| e.to_string())? else {
            return Ok(());
        };
        let identity = self.identity(token, &hello.name)?;
        // A process that was killed and started again must not find itself alive: the end of its earlier transport may have come,
        // and not been read.
        for rival in self.links.rivals(&hello) {
            if let Some(old) = self.by_link.get(&rival).copied() {
                self.ready(old, true, false, now);
            }
        }
        let link = match self.links.hello(now, identity, hello) {
            Ok(link) => link,
            Err(HelloError::Taken(holder)) => return Err(self.refuse(token, holder)),
            Err(e) => return Err(e.to_string()),
        };
        if let Some(old) = self.by_link.insert(link, token) {
            // The newer transport of the same boot replaces the older one.
            self.transports.remove(&old);
        }
        let t = self.transports.get_mut(&token).expect("still there");
        t.link = Some(link);
        if t.input.is_empty() {
            return Ok(());
        }
        self.links
            .handle_bytes(now, link, &mut t.input)
            .map_err(|e| e.to_string())
    }

    /// Tells a mux that another of its name is connected. Returns what is wrong, for our log.
    fn refuse(&mut self, token: usize, holder: LinkId) -> String {
        let from = self
            .by_link
            .get(&holder)
            .and_then(|token| self.transports.get(token))
            .map_or("nowhere", |t| t.peer.as_str());
        let name = self.links.name(holder);
        let reason = format!(
            "another mux named `{name}` is connected, from {from}: each mux needs a name and a certificate of its own"
        );
        if let Some(t) = self.transports.get_mut(&token) {
            t.twin = true;
            t.output.push_back(refusal(&reason));
            // It has at least a kernel buffer free; if it does not read, it will ask again.
            let _ = write_some(t);
        }
        reason
    }

    fn identity(&self, token: usize, hello_name: &str) -> Result<Identity, String> {
        let t = self.transports.get(&token).expect("the caller has it");
        if let Some(identity) = &t.identity {
            return Ok(identity.clone());
        }
        let name = match &t.tls {
            None => hello_name.to_owned(),
            Some(tls) => {
                let cert = tls
                    .peer_certificates()
                    .and_then(|c| c.first())
                    .ok_or("no certificate")?;
                match tls::identity(cert) {
                    Some((Role::Mux, name)) => name,
                    Some((role, name)) => {
                        return Err(format!(
                            "certificate of `{name}` is for role {role:?}, not mux"
                        ));
                    }
                    None => return Err("certificate names no role".into()),
                }
            }
        };
        let permits = self
            .permits
            .read()
            .map_err(|_| "the table of muxes is broken".to_owned())?;
        permits
            .iter()
            .find(|p| p.name == name)
            .cloned()
            .ok_or_else(|| format!("mux `{name}` is not in imserver.toml"))
    }

    fn write(&mut self, token: usize, now: Instant) {
        if let Err(e) = self.try_write(token) {
            self.close(token, now, &e.to_string());
        }
    }

    fn try_write(&mut self, token: usize) -> io::Result<()> {
        loop {
            let Some(t) = self.transports.get_mut(&token) else {
                return Ok(());
            };
            if let Some(link) = t.link {
                while t.output_bytes < WRITE_AHEAD {
                    let Some(bytes) = self.links.poll_output(link) else {
                        break;
                    };
                    t.output_bytes += bytes.len();
                    t.output.push_back(bytes);
                }
            }
            if !write_some(t)? {
                return Ok(());
            }
        }
    }

    fn close_link(&mut self, link: LinkId, now: Instant) {
        if let Some(token) = self.by_link.get(&link).copied() {
            self.close(token, now, "given up");
        }
    }

    fn close(&mut self, token: usize, now: Instant, reason: &str) {
        let Some(t) = self.transports.remove(&token) else {
            return;
        };
        match t.link {
            Some(link) => {
                tracing::warn!(link = link.0, peer = %t.peer, reason, "link down");
                if self.by_link.get(&link) == Some(&token) {
                    self.by_link.remove(&link);
                    self.links.handle_down(now, link);
                }
            }
            None => {
                // The handshake asks for a certificate of our CA; before that, it may be anybody.
                let known = t.tls.is_none_or(|tls| tls.peer_certificates().is_some());
                let admitted = if t.twin {
                    self.twins.admits(now, more_refused)
                } else if known {
                    self.refused.admits(now, more_refused)
                } else {
                    self.strangers.admits(now, more_strangers)
                };
                if admitted {
                    tracing::warn!(peer = %t.peer, reason, "link refused");
                } else {
                    tracing::debug!(peer = %t.peer, reason, "link refused");
                }
            }
        }
    }

    fn expire_greetings(&mut self, now: Instant) {
        let late: Vec<usize> = self
            .transports
            .iter()
            .filter(|(_, t)| {
                t.link.is_none()
                    && t.identity.is_none()
                    && now.duration_since(t.since) > GREETING_TIME
            })
            .map(|(&n, _)| n)
            .collect();
        for token in late {
            self.close(token, now, "said nothing");
        }
    }
}

/// Why a link is gone whose other end has closed it.
const ENDED: &str = "closed by the other end";
/// The same before it said who it is: with TLS it has most likely refused us, and only it knows why.
const NOT_GREETED: &str = "closed by the other end before it said who it is: see the log of that mux (does its mux.toml have our name and CA?)";

fn more_refused(n: u64, seconds: u64) {
    tracing::warn!("link refused, of muxes: and {n} more in the last {seconds} s");
}

fn more_strangers(n: u64, seconds: u64) {
    tracing::warn!("link refused, of strangers: and {n} more in the last {seconds} s");
}

/// One read from the socket, through TLS if there is any, appended to `input`. As `Read::read`; with TLS a count of 1 may stand
/// for records that carried no data yet.
fn read_some(t: &mut Transport, scratch: &mut [u8]) -> io::Result<usize> {
    let Some(tls) = &mut t.tls else {
        let n = t.socket.read(scratch)?;
        t.input.extend_from_slice(&scratch[..n]);
        return Ok(n);
    };
    let n = tls.read_tls(&mut t.socket)?;
    if n == 0 {
        return Ok(0);
    }
    tls.process_new_packets()
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    loop {
        match tls.reader().read(scratch) {
            Ok(0) => return Ok(0),
            Ok(n) => t.input.extend_from_slice(&scratch[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(n),
            Err(e) => return Err(e),
        }
    }
}

/// Writes what is queued. True: all of it is out and something was written.
fn write_some(t: &mut Transport) -> io::Result<bool> {
    if let Some(tls) = &mut t.tls {
        // What TLS still held counts: once it is out, the caller must look for more, or it would wait for the next event.
        let any = !t.output.is_empty() || tls.wants_write();
        for bytes in t.output.drain(..) {
            tls.writer().write_all(&bytes)?;
        }
        t.output_bytes = 0;
        while tls.wants_write() {
            match tls.write_tls(&mut t.socket) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // What TLS holds counts as handed out, so that no more is taken from the link.
                    t.output_bytes = WRITE_AHEAD;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        return Ok(any);
    }
    let any = !t.output.is_empty();
    while !t.output.is_empty() {
        let slices: Vec<io::IoSlice<'_>> = t
            .output
            .iter()
            .take(64)
            .map(|b| io::IoSlice::new(b))
            .collect();
        match t.socket.write_vectored(&slices) {
            Ok(mut n) => {
                t.output_bytes -= n;
                while n > 0 {
                    let front = t.output.front_mut().expect("written bytes were queued");
                    let step = n.min(front.len());
                    front.advance(step);
                    n -= step;
                    if front.is_empty() {
                        t.output.pop_front();
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(any)
}
