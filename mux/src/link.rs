//! The transport of the link: dialled, with back-off; TCP with mutual TLS, Unix socket, or what the embedding
//! program hands over.
//!
//! In: readiness, `now`. Out: link bytes both ways. Owns: the socket, the back-off, which server is tried.
//! Never: looks into frames (`MuxSide` does); keeps trying a server that is draining while another is configured
//! and no client is left.
//!
//! ```text
//!  Waiting(until) ─► Resolving ─► Connecting ─► Securing ─► Up ─► Waiting
//!        ▲───────────────┴──────────────┴────────────┘
//! ```

use std::collections::VecDeque;
use std::io::{self, BufRead as _, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use socket2::SockRef;

use crate::config::{ServerAddress, ServerConfig};
use crate::tls;

/// First wait after a failure; doubles up to the last. A server that restarts is back within a second.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// DESIGN section 3: retried at least every 5 s.
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// TCP and TLS must be up within this time.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Kernel buffers of a Unix socket, which do not grow by themselves.
const SOCKET_BUFFER: usize = 4 << 20;
/// One read of the link.
const READ_BYTES: usize = 128 * 1024;
/// Reads in one turn before clients get theirs.
const READS_PER_TURN: usize = 8;
/// Bytes handed to the transport and not yet taken by the kernel; past it nothing more is asked of `MuxSide`.
const OUT_BYTES: usize = 512 * 1024;

/// Where the link's transport comes from.
pub enum LinkTransport {
    /// From `[[server]]` of the configuration.
    Dial,
    /// From the program around us (embedded mux): called for each new transport, e.g. to make one `UnixStream::pair` and
    /// give the other end to the server.
    Connect(Box<dyn FnMut() -> io::Result<StdUnixStream> + Send>),
}

impl std::fmt::Debug for LinkTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dial => "Dial",
            Self::Connect(_) => "Connect",
        })
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Wire {
    stream: Stream,
    tls: Option<Box<ClientConnection>>,
    out: VecDeque<Bytes>,
    /// Bytes in `out`, or about how many rustls holds.
    waiting: usize,
    readable: bool,
    writable: bool,
    /// The far end has shut its side: read until the end shows.
    half_closed: bool,
}

enum State {
    Waiting(Instant),
    Resolving,
    Connecting(Wire, Instant),
    Securing(Wire, Instant),
    Up(Wire),
}

/// What the link's owner must do.
#[derive(Debug)]
pub enum LinkStep {
    /// Nothing.
    None,
    /// Look this up and call [`Link::resolved`].
    Resolve(String),
    /// The transport is up.
    Up,
    /// There is none (any more), for this reason.
    Down(String),
}

/// See the module.
pub struct Link {
    transport: LinkTransport,
    servers: Vec<ServerConfig>,
    current: usize,
    registry: Registry,
    token: Token,
    state: State,
    failures: u32,
    scratch: Vec<u8>,
    /// Addresses of the current server not tried yet.
    addresses: VecDeque<SocketAddr>,
}

impl Link {
    /// Not dialled yet; the first `handle_timeout` does.
    pub fn new(
        now: Instant,
        transport: LinkTransport,
        servers: Vec<ServerConfig>,
        registry: Registry,
        token: Token,
    ) -> Self {
        Self {
            transport,
            servers,
            current: 0,
            registry,
            token,
            state: State::Waiting(now),
            failures: 0,
            scratch: vec![0; READ_BYTES],
            addresses: VecDeque::new(),
        }
    }

    /// The transport is there.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// More was there than one turn reads.
    pub fn has_more(&self) -> bool {
        matches!(&self.state, State::Up(wire) if wire.readable)
    }

    /// What the server of now is called in logs.
    pub fn server(&self) -> String {
        match self.servers.get(self.current) {
            Some(ServerConfig {
                address: ServerAddress::Tcp(a),
                name,
                ..
            }) => format!("{name} ({a})"),
            Some(ServerConfig {
                address: ServerAddress::Unix(p),
                name,
                ..
            }) => format!("{name} ({})", p.display()),
            None => "the server in this process".into(),
        }
    }

    /// Is there another server to go to?
    pub fn has_other(&self) -> bool {
        self.servers.len() > 1
    }

    /// Goes to the next server: no client of the current one is left.
    pub fn next_server(&mut self, now: Instant) {
        self.current = (self.current + 1) % self.servers.len().max(1);
        self.addresses.clear();
        self.failures = 0;
        self.state = State::Waiting(now);
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(at) | State::Connecting(_, at) | State::Securing(_, at) => Some(*at),
            State::Resolving | State::Up(_) => None,
        }
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant) -> LinkStep {
        match &self.state {
            State::Waiting(at) if *at <= now => self.begin(now),
            State::Connecting(_, at) | State::Securing(_, at) if *at <= now => {
                self.fail(now, "no answer in time".into())
            }
            _ => LinkStep::None,
        }
    }

    fn begin(&mut self, now: Instant) -> LinkStep {
        if let LinkTransport::Connect(connect) = &mut self.transport {
            let stream = connect().and_then(|s| {
                s.set_nonblocking(true)?;
                Ok(Stream::Unix(UnixStream::from_std(s)))
            });
            return self.connecting(now, stream);
        }
        let Some(server) = self.servers.get(self.current) else {
            return self.fail(now, "no server is configured".into());
        };
        match server.address.clone() {
            ServerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).map(Stream::Unix);
                self.connecting(now, stream)
            }
            ServerAddress::Tcp(host_port) => match self.addresses.pop_front() {
                Some(address) => self.connect_tcp(now, address),
                None => {
                    self.state = State::Resolving;
                    LinkStep::Resolve(host_port)
                }
            },
        }
    }

    /// The answer to `LinkStep::Resolve`.
    pub fn resolved(&mut self, now: Instant, found: Result<Vec<SocketAddr>, String>) -> LinkStep {
        if !matches!(self.state, State::Resolving) {
            return LinkStep::None;
        }
        match found {
            Ok(addresses) => {
                self.addresses = addresses.into();
                match self.addresses.pop_front() {
                    Some(address) => self.connect_tcp(now, address),
                    None => self.fail(now, "the name has no address".into()),
                }
            }
            Err(why) => self.fail(now, why),
        }
    }

    fn connect_tcp(&mut self, now: Instant, address: SocketAddr) -> LinkStep {
        let stream = TcpStream::connect(address).map(|s| {
            let socket = SockRef::from(&s);
            // Only speed, and how soon a dead host is noticed (pings notice too), depend on these. The kernel sizes TCP buffers
            // itself, up to several megabytes; to set them would cap them at wmem_max, a tenth of that.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_keepalive(true);
            Stream::Tcp(s)
        });
        self.connecting(now, stream)
    }

    fn connecting(&mut self, now: Instant, stream: io::Result<Stream>) -> LinkStep {
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = stream.and_then(|mut stream| {
            match &mut stream {
                Stream::Tcp(s) => self.registry.register(s, self.token, both)?,
                Stream::Unix(s) => {
                    let socket = SockRef::from(&*s);
                    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
                    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
                    self.registry.register(s, self.token, both)?;
                }
            }
            Ok(stream)
        });
        match registered {
            Ok(stream) => {
                let wire = Wire {
                    stream,
                    tls: None,
                    out: VecDeque::new(),
                    waiting: 0,
                    readable: false,
                    writable: false,
                    half_closed: false,
                };
                self.state = State::Connecting(wire, now + CONNECT_MAX);
                LinkStep::None
            }
            Err(error) => self.fail(now, error.to_string()),
        }
    }

    /// Readiness, as mio says it.
    pub fn handle_ready(&mut self, now: Instant, event: &mio::event::Event) -> LinkStep {
        if let State::Connecting(wire, _) | State::Securing(wire, _) | State::Up(wire) =
            &mut self.state
        {
            wire.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            wire.half_closed |= event.is_read_closed() || event.is_error();
            wire.writable |= event.is_writable();
        }
        match &mut self.state {
            State::Connecting(..) => self.connected(now),
            State::Securing(..) => self.secure(now),
            _ => LinkStep::None,
        }
    }

    fn connected(&mut self, now: Instant) -> LinkStep {
        let State::Connecting(wire, until) = &mut self.state else {
            return LinkStep::None;
        };
        let (error, done) = match &wire.stream {
            Stream::Tcp(s) => (s.take_error(), s.peer_addr().is_ok()),
            Stream::Unix(s) => (s.take_error(), s.peer_addr().is_ok()),
        };
        match error {
            Ok(None) if done => {}
            Ok(None) => return LinkStep::None,
            Ok(Some(error)) | Err(error) => return self.fail(now, error.to_string()),
        }
        let until = *until;
        let files = self
            .servers
            .get(self.current)
            .and_then(|s| Some((s.tls.as_ref()?, s.name.as_str())));
        let tls = match files {
            None => None,
            Some((files, name)) => {
                // Read anew for each transport: a renewed certificate needs no restart.
                match tls::link::client_config(files).and_then(|c| tls::link::connect(&c, name)) {
                    Ok(conn) => Some(Box::new(conn)),
                    Err(why) => return self.fail(now, why),
                }
            }
        };
        let secure = tls.is_some();
        match std::mem::replace(&mut self.state, State::Resolving) {
            State::Connecting(mut wire, _) => {
                wire.tls = tls;
                self.state = if secure {
                    State::Securing(wire, until)
                } else {
                    State::Up(wire)
                };
            }
            other => self.state = other,
        }
        if secure { self.secure(now) } else { self.up() }
    }

    fn up(&mut self) -> LinkStep {
        self.addresses.clear();
        LinkStep::Up
    }

    /// The greeting worked: the next failure starts with a short wait again.
    pub fn greeted(&mut self) {
        self.failures = 0;
    }

    /// Drives the handshake.
    fn secure(&mut self, now: Instant) -> LinkStep {
        let State::Securing(wire, _) = &mut self.state else {
            return LinkStep::None;
        };
        match wire.handshake(&mut self.scratch) {
            Ok(false) => LinkStep::None,
            Ok(true) => {
                if let State::Securing(wire, _) =
                    std::mem::replace(&mut self.state, State::Resolving)
                {
                    self.state = State::Up(wire);
                }
                self.up()
            }
            Err(error) => self.fail(now, format!("TLS: {error}")),
        }
    }

    /// Closes what there is and waits before the next attempt.
    pub fn fail(&mut self, now: Instant, why: String) -> LinkStep {
        let wait = if self.addresses.is_empty() {
            backoff(self.failures)
        } else {
            Duration::ZERO
        };
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(now + wait);
        LinkStep::Down(why)
    }

    /// Reads what there is into `into`, up to a turn's share. An error ends the transport.
    pub fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let State::Up(wire) = &mut self.state else {
            return Ok(0);
        };
        let before = into.len();
        for _ in 0..READS_PER_TURN {
            if !wire.readable {
                break;
            }
            match wire.stream.read(&mut self.scratch) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "closed by the server",
                    ));
                }
                Ok(n) => {
                    if n < self.scratch.len() && !wire.half_closed {
                        wire.readable = false;
                    }
                    wire.take(&self.scratch[..n], into)?;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    wire.readable = false;
                    wire.half_closed = false;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(into.len() - before)
    }

    /// Writes as much as the kernel takes; `next` gives more as long as there is room. Returns bytes handed over.
    pub fn write(&mut self, mut next: impl FnMut() -> Option<Bytes>) -> io::Result<usize> {
        let State::Up(wire) = &mut self.state else {
            return Ok(0);
        };
        let mut total = 0;
        loop {
            while wire.waiting < OUT_BYTES {
                let Some(bytes) = next() else { break };
                total += bytes.len();
                wire.push(bytes)?;
            }
            if wire.waiting == 0 || !wire.writable || !wire.write_some()? {
                return Ok(total);
            }
        }
    }

    /// Nothing waits for the kernel.
    pub fn is_flushed(&self) -> bool {
        match &self.state {
            State::Up(wire) => wire.waiting == 0,
            _ => true,
        }
    }
}

impl Wire {
    /// Bytes read from the socket, deciphered if there is TLS.
    fn take(&mut self, mut bytes: &[u8], into: &mut BytesMut) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            into.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                let mut reader = tls.reader();
                loop {
                    let n = match reader.fill_buf() {
                        Ok(plain) => {
                            into.extend_from_slice(plain);
                            plain.len()
                        }
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e),
                    };
                    if n == 0 {
                        return Err(io::Error::new(
                            ErrorKind::UnexpectedEof,
                            "closed by the server",
                        ));
                    }
                    reader.consume(n);
                }
            }
            if state.peer_has_closed() {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "closed by the server",
                ));
            }
        }
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.waiting += bytes.len();
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(&bytes),
            None => {
                self.out.push_back(bytes);
                Ok(())
            }
        }
    }

    /// One write. False: the kernel is full.
    fn write_some(&mut self) -> io::Result<bool> {
        let result = match &mut self.tls {
            Some(tls) => tls.write_tls(&mut self.stream),
            None => {
                let mut slices = [IoSlice::new(&[]); 16];
                let mut count = 0;
                for bytes in self.out.iter().take(slices.len()) {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                }
                self.stream.write_vectored(&slices[..count])
            }
        };
        match result {
            Ok(mut n) => {
                if let Some(tls) = &self.tls {
                    // Records are longer than what went in, so the count is of use only as long as rustls holds any.
                    self.waiting = if tls.wants_write() {
                        self.waiting.saturating_sub(n).max(1)
                    } else {
                        0
                    };
                } else {
                    self.waiting -= n;
                    while n > 0 {
                        let Some(front) = self.out.front_mut() else {
                            break;
                        };
                        if n < front.len() {
                            front.advance(n);
                            n = 0;
                        } else {
                            n -= front.len();
                            self.out.pop_front();
                        }
                    }
                }
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(false)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// True: done.
    fn handshake(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        loop {
            let Some(tls) = &mut self.tls else {
                return Ok(true);
            };
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            if !tls.is_handshaking() {
                return Ok(true);
            }
            match self.stream.read(scratch) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "closed by the server",
                    ));
                }
                Ok(n) => {
                    let mut bytes = &scratch[..n];
                    while !bytes.is_empty() {
                        tls.read_tls(&mut bytes)?;
                        tls.process_new_packets().map_err(io::Error::other)?;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(false);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Doubles from the first wait to the last, then takes between half and all of it, so that a hundred muxes do not
/// come back in the same millisecond.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(10))
        .min(BACKOFF_LAST);
    let mut random = [0; 4];
    // Without randomness the wait is only less even.
    let _ = getrandom::fill(&mut random);
    let part =
        u64::from(u32::from_le_bytes(random)) * full.as_micros() as u64 / 2 / u64::from(u32::MAX);
    full / 2 + Duration::from_micros(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_five_seconds_and_is_never_longer() {
        for failures in 0..100 {
            let wait = backoff(failures);
            let full = BACKOFF_FIRST
                .saturating_mul(1 << failures.min(10))
                .min(BACKOFF_LAST);
            assert!(
                wait >= full / 2 && wait <= BACKOFF_LAST,
                "{failures}: {wait:?}"
            );
        }
        assert!(backoff(0) <= BACKOFF_FIRST);
    }
}
