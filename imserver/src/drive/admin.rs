//! The admin doors, and the running server as administrators' commands see it.
//!
//! Owns: a thread per connected administrator (few, and each with a certificate of our CA or access to the socket).
//! Never: lets a mux's certificate in; holds up a shard.

use super::links::Ask;
use super::tls;
use super::writer::DirectWrite;
use crate::admin::{self, Refusal};
use crate::config::Config;
use crate::event::{AdminEvent, AdminReply, Event, SessionId, SessionInfo};
use crate::linkset::MuxInfo;
use crate::shard::home;
use bytes::BytesMut;
use crossbeam_channel::{Receiver, Sender, bounded};
use proto::frame::{BootId, Frame, Role, StoreId};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Engine, Reader};
use xmpp::jid::BareJid;

/// Administrators at a time, by certificate; and as many again by the socket, which strangers cannot reach.
const ADMINS_MAX: usize = 16;
/// Connections that have not shown a certificate yet: in all, and of one address.
const STRANGERS_MAX: usize = 64;
/// So that no address alone takes them all.
const STRANGERS_PER_ADDRESS_MAX: usize = 8;
/// How long they have for it: two round trips on a bad line.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long one may be silent.
const IDLE: Duration = Duration::from_secs(120);
/// How long an answer of the shards or the link loop may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The running server.
pub struct Backend {
    name: String,
    domains: Vec<String>,
    scram_iterations: u32,
    reader: Mutex<Box<dyn Reader>>,
    shards: Vec<Sender<Vec<Event>>>,
    asks: Sender<Ask>,
    waker: Arc<mio::Waker>,
    direct: Sender<DirectWrite>,
    waiting: Arc<Mutex<HashMap<u64, Sender<AdminReply>>>>,
    next: AtomicU64,
    started: Instant,
    store: [u8; 16],
    boot: [u8; 16],
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn unavailable(what: &str) -> Refusal {
    Refusal::new("unavailable", format!("{what}; try again"))
}

fn store_refusal(e: store::StoreError) -> Refusal {
    Refusal::new("unavailable", e.to_string())
}

impl Backend {
    /// Over a running server. Replies of the shards come by `replies`.
    pub fn new(
        config: &Config,
        engine: &Arc<dyn Engine>,
        shards: Vec<Sender<Vec<Event>>>,
        asks: Sender<Ask>,
        waker: Arc<mio::Waker>,
        direct: Sender<DirectWrite>,
        replies: Receiver<AdminReply>,
    ) -> anyhow::Result<Self> {
        let waiting: Arc<Mutex<HashMap<u64, Sender<AdminReply>>>> = Arc::default();
        let table = waiting.clone();
        std::thread::Builder::new()
            .name("admin-replies".into())
            .spawn(move || {
                for reply in replies {
                    let n = match &reply {
                        AdminReply::Sessions(n, _)
                        | AdminReply::Kicked(n, _)
                        | AdminReply::Status(n, _) => *n,
                    };
                    let to = table.lock().ok().and_then(|t| t.get(&n).cloned());
                    if let Some(to) = to {
                        // Who asked may have given up.
                        let _ = to.try_send(reply);
                    }
                }
            })?;
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        Ok(Self {
            name: config.name.clone(),
            domains: config.domains.clone(),
            scram_iterations: config.auth.scram_iterations,
            reader: Mutex::new(engine.reader()?),
            shards,
            asks,
            waker,
            direct,
            waiting,
            next: AtomicU64::new(1),
            started: Instant::now(),
            store: engine.store_id().0,
            boot,
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut dyn Reader) -> Result<T, store::StoreError>,
    ) -> Result<T, Refusal> {
        let mut reader = self
            .reader
            .lock()
            .map_err(|_| unavailable("the store's reader is broken"))?;
        read(reader.as_mut()).map_err(store_refusal)
    }

    /// Asks some shards and gathers their answers.
    fn ask(
        &self,
        shards: &[usize],
        event: impl Fn(u64) -> AdminEvent,
    ) -> Result<Vec<AdminReply>, Refusal> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = bounded(shards.len());
        self.waiting
            .lock()
            .map_err(|_| unavailable("administration is broken"))?
            .insert(n, tx);
        let gathered = shards.iter().try_for_each(|&s| {
            self.shards[s]
                .send_timeout(vec![Event::Admin(event(n))], ANSWER)
                .map_err(|_| unavailable("the server is busy"))
        });
        let replies = gathered.and_then(|()| {
            shards
                .iter()
                .map(|_| {
                    rx.recv_timeout(ANSWER)
                        .map_err(|_| unavailable("the server is busy"))
                })
                .collect()
        });
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.remove(&n);
        }
        replies
    }

    fn all(&self) -> Vec<usize> {
        (0..self.shards.len()).collect()
    }

    fn home(&self, account: &BareJid) -> Vec<usize> {
        vec![usize::from(home(account, self.shards.len() as u16).0)]
    }
}

impl admin::Backend for Backend {
    fn domains(&self) -> Vec<String> {
        self.domains.clone()
    }

    fn scram_iterations(&self) -> u32 {
        self.scram_iterations
    }

    fn salt(&self) -> Vec<u8> {
        let mut salt = vec![0; xmpp::scram::SALT_BYTES];
        getrandom::fill(&mut salt)
            .expect("the operating system's generator does not fail once it has started");
        salt
    }

    fn now_unix_ms(&self) -> u64 {
        super::clock::Clock::new().now().unix_ms
    }

    fn write(&self, writes: Vec<store::Write>) -> Result<Vec<store::Written>, Refusal> {
        let (tx, rx) = bounded(1);
        self.direct
            .send_timeout(DirectWrite { writes, reply: tx }, ANSWER)
            .map_err(|_| unavailable("the store is busy"))?;
        rx.recv_timeout(Duration::from_secs(60))
            .map_err(|_| unavailable("the store is busy"))?
            .map_err(|e| Refusal::new("unavailable", e))
    }

    fn account(&self, jid: &BareJid) -> Result<Option<store::Account>, Refusal> {
        self.read(|r| r.account(jid))
    }

    fn accounts(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<store::AccountEntry>, Refusal> {
        self.read(|r| r.accounts(domain, after, limit))
    }

    fn user(&self, jid: &BareJid) -> Result<Option<store::UserData>, Refusal> {
        self.read(|r| r.user(jid))
    }

    fn rows(&self, jid: &BareJid, limit: usize) -> Result<Vec<u64>, Refusal> {
        self.read(|r| {
            let mut positions: Vec<u64> = r
                .pending(jid, 0, limit)?
                .into_iter()
                .map(|row| row.position)
                .collect();
            if positions.is_empty() {
                let query = store::ArchiveQuery::new(jid.clone(), limit);
                positions.extend(r.archive(&query)?.into_iter().map(|row| row.position));
            }
            Ok(positions)
        })
    }

    fn sessions(
        &self,
        account: Option<&BareJid>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<SessionInfo>, Refusal> {
        let shards = account.map_or_else(|| self.all(), |a| self.home(a));
        let replies = self.ask(&shards, |request| AdminEvent::Sessions {
            request,
            account: account.cloned(),
            after: after.map(SessionId),
            limit,
        })?;
        let mut rows: Vec<SessionInfo> = replies
            .into_iter()
            .flat_map(|r| match r {
                AdminReply::Sessions(_, rows) => rows,
                _ => Vec::new(),
            })
            .collect();
        rows.sort_by_key(|s| s.id);
        rows.truncate(limit);
        Ok(rows)
    }

    fn kick(&self, account: &BareJid, resource: Option<&str>) -> Result<usize, Refusal> {
        let replies = self.ask(&self.home(account), |request| AdminEvent::Kick {
            request,
            account: account.clone(),
            resource: resource.map(str::to_owned),
            text: "ended by an administrator".into(),
        })?;
        Ok(replies
            .iter()
            .map(|r| {
                if let AdminReply::Kicked(_, n) = r {
                    *n
                } else {
                    0
                }
            })
            .sum())
    }

    fn account_removed(&self, account: &BareJid) {
        for s in self.home(account) {
            if self.shards[s]
                .send_timeout(
                    vec![Event::Admin(AdminEvent::AccountRemoved(account.clone()))],
                    ANSWER,
                )
                .is_err()
            {
                tracing::warn!(
                    account = account.as_str(),
                    "sessions of a removed account could not be ended"
                );
            }
        }
    }

    fn muxes(&self) -> Result<Vec<MuxInfo>, Refusal> {
        let (tx, rx) = bounded(1);
        self.asks
            .send_timeout(Ask::List(tx), ANSWER)
            .map_err(|_| unavailable("the link loop is busy"))?;
        // A loop that cannot be woken has ended; then the answer fails to come.
        let _ = self.waker.wake();
        rx.recv_timeout(ANSWER)
            .map_err(|_| unavailable("the link loop is busy"))
    }

    fn status(&self) -> Result<Vec<(&'static str, Value)>, Refusal> {
        let shards = self.ask(&self.all(), |request| AdminEvent::Status { request })?;
        let muxes = self.muxes()?;
        let counts = self.read(|r| r.counts())?;
        let sum = |f: fn(&crate::event::ShardStatus) -> u64| -> u64 {
            shards
                .iter()
                .map(|r| {
                    if let AdminReply::Status(_, s) = r {
                        f(s)
                    } else {
                        0
                    }
                })
                .sum()
        };
        Ok(vec![
            ("server", json!(self.name)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("domains", json!(self.domains.join(" "))),
            ("up seconds", json!(self.started.elapsed().as_secs())),
            ("shards", json!(self.shards.len())),
            ("muxes linked", json!(muxes.iter().filter(|m| m.up).count())),
            ("connections", json!(sum(|s| s.conns))),
            ("sessions", json!(sum(|s| s.sessions))),
            ("users in memory", json!(sum(|s| s.users))),
            ("accounts", json!(counts.accounts)),
            ("messages waiting", json!(counts.pending)),
            ("stanzas in", json!(sum(|s| s.stanzas_in))),
            ("stanzas out", json!(sum(|s| s.stanzas_out))),
            ("messages stored", json!(sum(|s| s.stored))),
            ("log-ins", json!(sum(|s| s.logins))),
            ("failed log-ins", json!(sum(|s| s.login_failures))),
        ])
    }
}

impl super::health::Source for Backend {
    fn metrics(&self) -> String {
        use admin::Backend as _;
        use std::fmt::Write as _;
        let mut out = String::new();
        let Ok(rows) = self.status() else {
            return "isthmus_up 0\n".into();
        };
        out.push_str("isthmus_up 1\n");
        for (name, value) in rows {
            if let Some(n) = value.as_u64() {
                // Writing into a String cannot fail.
                let _ = writeln!(out, "isthmus_{} {n}", name.replace([' ', '-'], "_"));
            }
        }
        out
    }

    fn health(&self) -> Result<(), String> {
        use admin::Backend as _;
        let muxes = self.muxes().map_err(|e| e.text)?;
        if muxes.iter().any(|m| m.up) {
            Ok(())
        } else {
            Err("no mux is linked".into())
        }
    }
}

/// The listeners for administrators.
#[derive(Debug)]
pub struct AdminDoor;

impl AdminDoor {
    /// Starts a thread per listener.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(
        tcp: Vec<TcpListener>,
        unix: Option<UnixListener>,
        tls: Option<Arc<ServerConfig>>,
        backend: &Arc<Backend>,
    ) -> anyhow::Result<()> {
        let (admins, locals) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let strangers: Arc<Strangers> = Arc::default();
        for listener in tcp {
            let (backend, admins, tls) = (backend.clone(), admins.clone(), tls.clone());
            let strangers = strangers.clone();
            std::thread::Builder::new()
                .name("admin-door".into())
                .spawn(move || {
                    for stream in listener.incoming() {
                        let (Ok(stream), Some(tls)) = (stream, tls.clone()) else {
                            std::thread::sleep(Duration::from_millis(100));
                            continue;
                        };
                        let Some(stranger) = stream
                            .peer_addr()
                            .ok()
                            .and_then(|a| Strangers::admit(&strangers, a.ip()))
                        else {
                            continue;
                        };
                        let (backend, admins) = (backend.clone(), admins.clone());
                        let run = move || meet(stream, tls, stranger, &admins, &backend);
                        // Without a thread the connection is dropped, and with it the stranger's place.
                        let _ = std::thread::Builder::new().name("admin".into()).spawn(run);
                    }
                })?;
        }
        if let Some(listener) = unix {
            let (backend, locals) = (backend.clone(), locals.clone());
            std::thread::Builder::new()
                .name("admin-socket".into())
                .spawn(move || {
                    for stream in listener.incoming() {
                        let Ok(stream) = stream else {
                            std::thread::sleep(Duration::from_millis(100));
                            continue;
                        };
                        let backend = backend.clone();
                        guest(&locals, move || {
                            let timeouts = stream
                                .set_read_timeout(Some(IDLE))
                                .and(stream.set_write_timeout(Some(IDLE)));
                            if timeouts.is_ok()
                                && let Err(reason) = serve(stream, "socket", &backend)
                            {
                                tracing::warn!(reason, "administrator's link closed");
                            }
                        });
                    }
                })?;
        }
        Ok(())
    }
}

/// Runs on a thread of its own, if there are not too many.
fn guest(count: &Arc<AtomicUsize>, run: impl FnOnce() + Send + 'static) {
    if count.fetch_add(1, Ordering::SeqCst) >= ADMINS_MAX {
        count.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let ours = count.clone();
    let spawned = std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            run();
            ours.fetch_sub(1, Ordering::SeqCst);
        });
    if spawned.is_err() {
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Connections of the admin door without a certificate, by address.
#[derive(Debug, Default)]
struct Strangers(Mutex<HashMap<IpAddr, usize>>);

/// The place of one of them, given back when dropped.
struct Stranger {
    all: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    fn admit(all: &Arc<Strangers>, address: IpAddr) -> Option<Stranger> {
        let address = customer(address);
        let mut table = all.0.lock().ok()?;
        let total: usize = table.values().sum();
        let ours = table.get(&address).copied().unwrap_or(0);
        if total >= STRANGERS_MAX || ours >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        table.insert(address, ours + 1);
        Some(Stranger {
            all: all.clone(),
            address,
        })
    }
}

/// What is counted: an address, or the /64 that one customer of IPv6 has.
fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Ok(mut table) = self.all.0.lock()
            && let Some(n) = table.get_mut(&self.address)
        {
            *n -= 1;
            if *n == 0 {
                table.remove(&self.address);
            }
        }
    }
}

/// One connection of the TCP door, from the handshake to its end.
fn meet(
    stream: std::net::TcpStream,
    tls: Arc<ServerConfig>,
    stranger: Stranger,
    admins: &AtomicUsize,
    backend: &Backend,
) {
    let (stream, cert) = match secure(stream, tls) {
        Ok(both) => both,
        Err(reason) => {
            // Anybody can cause this; it must not fill the log.
            tracing::debug!(reason, "administrator's handshake failed");
            return;
        }
    };
    drop(stranger);
    let who = match tls::identity(&cert) {
        Some((Role::Admin, name)) => name,
        other => {
            tracing::warn!(
                ?other,
                "a certificate that is no administrator's on the admin port"
            );
            return;
        }
    };
    if admins.fetch_add(1, Ordering::SeqCst) < ADMINS_MAX {
        if let Err(reason) = serve(stream, &who, backend) {
            tracing::warn!(reason, "administrator's link closed");
        }
    } else {
        tracing::warn!(ADMINS_MAX, "too many administrators at a time");
    }
    admins.fetch_sub(1, Ordering::SeqCst);
}

type TlsStream = StreamOwned<ServerConnection, std::net::TcpStream>;

/// A socket that fails once a moment has passed, however slowly bytes come.
struct Until<'a>(&'a mut std::net::TcpStream, Instant);

impl Until<'_> {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.set_read_timeout(self.left()?)?;
        self.0.read(buf)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.set_write_timeout(self.left()?)?;
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// TLS with the certificate of somebody our CA has signed.
fn secure(
    mut stream: std::net::TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(TlsStream, CertificateDer<'static>), String> {
    let mut conn = ServerConnection::new(config).map_err(|e| e.to_string())?;
    let until = Instant::now() + HANDSHAKE;
    while conn.is_handshaking() {
        conn.complete_io(&mut Until(&mut stream, until))
            .map_err(|e| e.to_string())?;
    }
    stream
        .set_read_timeout(Some(IDLE))
        .and(stream.set_write_timeout(Some(IDLE)))
        .map_err(|e| e.to_string())?;
    let cert = conn.peer_certificates().and_then(|c| c.first());
    let cert = cert.ok_or("no certificate")?.clone().into_owned();
    Ok((StreamOwned::new(conn, stream), cert))
}

fn serve(mut stream: impl Read + Write, who: &str, backend: &Backend) -> Result<(), String> {
    let mut input = BytesMut::new();
    let mut scratch = vec![0; 64 * 1024];
    let mut side: Option<ServerSide> = None;
    loop {
        let n = match stream.read(&mut scratch) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e)
                if e.kind() == std::io::ErrorKind::UnexpectedEof
                    || e.kind() == std::io::ErrorKind::ConnectionReset =>
            {
                return Ok(());
            }
            Err(e) => return Err(e.to_string()),
        };
        input.extend_from_slice(&scratch[..n]);
        let now = Instant::now();
        if side.is_none()
            && let Some(hello) = read_hello(&mut input).map_err(|e| e.to_string())?
        {
            let config = ServerSideConfig::new(
                backend.name.clone(),
                BootId(backend.boot),
                StoreId(backend.store),
                Role::Admin,
            );
            side = Some(ServerSide::accept(now, config, hello).map_err(|e| e.to_string())?);
        }
        let Some(side) = &mut side else { continue };
        side.handle_bytes(now, &mut input)
            .map_err(|e| e.to_string())?;
        while let Some(event) = side.poll_event() {
            if let ServerEvent::Admin(json) = event {
                let reply = admin::handle(backend, who, &json);
                side.send(Frame::Admin(reply.into()))
                    .map_err(|e| e.to_string())?;
            }
        }
        while let Some(bytes) = side.poll_output() {
            stream.write_all(&bytes).map_err(|e| e.to_string())?;
        }
        stream.flush().map_err(|e| e.to_string())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn strangers_are_bounded_by_address_and_in_total() {
        let all: Arc<Strangers> = Arc::default();
        let come = |address: &str| Strangers::admit(&all, ip(address));
        let mut one: Vec<_> = (0..STRANGERS_PER_ADDRESS_MAX)
            .map(|n| {
                come(if n % 2 == 0 {
                    "192.0.2.1"
                } else {
                    "::ffff:192.0.2.1"
                })
            })
            .collect();
        assert!(one.iter().all(Option::is_some));
        assert!(come("192.0.2.1").is_none(), "one address has its share");
        assert!(come("192.0.2.2").is_some(), "and no more than that");
        one.pop();
        assert!(come("192.0.2.1").is_some(), "who leaves makes room");

        one.clear();
        let many: Vec<_> = (0..STRANGERS_MAX)
            .map(|n| come(&format!("198.51.100.{}", n / STRANGERS_PER_ADDRESS_MAX)))
            .collect();
        assert!(many.iter().all(Option::is_some));
        assert!(come("203.0.113.1").is_none(), "all places are taken");
        drop(many);
        assert!(all.0.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_customer_of_ipv6_is_one_stranger() {
        let all: Arc<Strangers> = Arc::default();
        let within: Vec<_> = (0..=STRANGERS_PER_ADDRESS_MAX)
            .map(|n| Strangers::admit(&all, ip(&format!("2001:db8::{n:x}"))))
            .collect();
        assert!(
            within[..STRANGERS_PER_ADDRESS_MAX]
                .iter()
                .all(Option::is_some)
        );
        assert!(within[STRANGERS_PER_ADDRESS_MAX].is_none());
        assert!(Strangers::admit(&all, ip("2001:db8:0:1::1")).is_some());
    }

    /// Bytes that come slowly do not put the deadline off.
    #[test]
    fn a_handshake_has_one_deadline() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut slow = std::net::TcpStream::connect(listener.local_addr().expect("bound"))
            .expect("it listens");
        let (mut stream, _) = listener.accept().expect("a connection");
        let drip = std::thread::spawn(move || while slow.write_all(b"x").is_ok() {});
        let until = Instant::now() + Duration::from_millis(50);
        let mut byte = [0; 1];
        let error = loop {
            if let Err(e) = Until(&mut stream, until).read(&mut byte) {
                break e;
            }
            assert!(Instant::now() < until + HANDSHAKE, "it goes on for ever");
        };
        assert!(
            matches!(
                error.kind(),
                std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock
            ),
            "{error:?}"
        );
        assert!(Instant::now() >= until);
        drop(stream);
        drip.join().expect("no panic");
    }
}
