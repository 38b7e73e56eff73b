//! The doors for administrators: the admin port and the admin socket.
//!
//! In: sockets. Out: requests of administrators to the backend, and its replies.
//! Owns: a thread per connected administrator (few: each has a certificate of our CA, has logged in with the password of an
//! account that has a right, or may open the socket).
//! Never: lets a mux's certificate in; gives a stranger more than a log-in, or more time than one needs.

use super::admin::Backend;
use super::muffle::{self, Muffle};
use super::tls;
use crate::admin::login::{Guesses, Login, Means, Refused, Step};
use crate::admin::{self, Backend as _, Caller, Door, Refusal, audit};
use crate::policy::Right;
use bytes::BytesMut;
use proto::frame::{BootId, Frame, Role, StoreId};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;

/// Administrators at a time, by the port; and as many again by the socket, which strangers cannot reach.
const ADMINS_MAX: usize = 16;
/// Of these, with the password of one account: else somebody who may do next to nothing could keep all others out.
const ADMINS_PER_ACCOUNT_MAX: usize = 4;
/// Connections that have neither shown a certificate nor logged in: in all, and of one address.
const STRANGERS_MAX: usize = 64;
/// Their threads: more, because who was put out while a directory is asked about them ends only then.
const STRANGER_THREADS_MAX: usize = 256;
/// So that no address alone takes them all.
const STRANGERS_PER_ADDRESS_MAX: usize = 8;
/// How long they have for it: some round trips on a bad line, and a client that computes PBKDF2 slowly.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes of a log-in: a Hello, two messages of SCRAM and one of PLAIN are under 8 KiB.
const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// How long one may be silent.
const IDLE: Duration = Duration::from_secs(120);

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
        let locals = Arc::new(AtomicUsize::new(0));
        let strangers: Arc<Strangers> = Arc::default();
        let shared = Arc::new(Shared {
            backend: backend.clone(),
            admins: Seats::default(),
            guesses: Mutex::default(),
            refusals: Mutex::new(Muffle::new(muffle::FEW)),
        });
        for listener in tcp {
            let (shared, tls, strangers) = (shared.clone(), tls.clone(), strangers.clone());
            std::thread::Builder::new()
                .name("admin-door".into())
                .spawn(move || {
                    loop {
                        let (Ok((stream, peer)), Some(tls)) = (listener.accept(), tls.clone())
                        else {
                            std::thread::sleep(Duration::from_millis(100));
                            continue;
                        };
                        let copy = stream.try_clone().ok();
                        let Some(stranger) = Strangers::admit(&strangers, peer.ip(), copy) else {
                            continue;
                        };
                        let shared = shared.clone();
                        let run = move || meet(stream, peer, tls, stranger, &shared);
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
                        let local = Caller {
                            door: Door::Socket,
                            from: "socket".into(),
                        };
                        guest(&locals, move || {
                            let timeouts = stream
                                .set_read_timeout(Some(IDLE))
                                .and(stream.set_write_timeout(Some(IDLE)));
                            if timeouts.is_ok()
                                && let Err(reason) =
                                    serve(stream, Side::default(), &local, &backend)
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

/// Connections of the admin door of whom it is not known who they are, the oldest first.
#[derive(Debug, Default)]
struct Strangers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    places: VecDeque<Place>,
    /// Those put out too, until their threads have seen it.
    threads: usize,
    next: u64,
}

#[derive(Debug)]
struct Place {
    id: u64,
    address: IpAddr,
    /// The same socket, to end it.
    socket: Option<TcpStream>,
}

/// The place of one of them, given back when dropped.
struct Stranger {
    all: Arc<Strangers>,
    id: u64,
}

impl Strangers {
    /// Where all places are taken the oldest goes: it has had its time, and whoever keeps many connections open and says nothing
    /// must not keep administrators out, who need a moment only.
    fn admit(all: &Arc<Strangers>, address: IpAddr, socket: Option<TcpStream>) -> Option<Stranger> {
        let address = customer(address);
        let mut waiting = all.0.lock().ok()?;
        let ours = waiting.places.iter().filter(|p| p.address == address);
        if ours.count() >= STRANGERS_PER_ADDRESS_MAX || waiting.threads >= STRANGER_THREADS_MAX {
            return None;
        }
        if waiting.places.len() >= STRANGERS_MAX
            && let Some(oldest) = waiting.places.pop_front()
            && let Some(socket) = oldest.socket
        {
            // One that is gone already needs no end.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let id = waiting.next;
        waiting.next += 1;
        waiting.threads += 1;
        waiting.places.push_back(Place {
            id,
            address,
            socket,
        });
        Some(Stranger {
            all: all.clone(),
            id,
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

impl Stranger {
    /// It has shown who it is and nobody puts it out any more. False: somebody has.
    fn leave(self) -> bool {
        let id = self.id;
        let waiting = self.all.0.lock();
        waiting.is_ok_and(|w| w.places.iter().any(|p| p.id == id))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.all.0.lock() {
            waiting.threads -= 1;
            waiting.places.retain(|p| p.id != self.id);
        }
    }
}

/// One connection of the TCP door, from the handshake to its end.
fn meet(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<ServerConfig>,
    stranger: Stranger,
    door: &Shared,
) {
    let until = Instant::now() + HANDSHAKE;
    let (mut stream, cert) = match secure(stream, tls, until) {
        Ok(both) => both,
        Err(reason) => {
            // Anybody can cause this; it must not fill the log.
            tracing::debug!(reason, "administrator's handshake failed");
            return;
        }
    };
    let mut side = Side::default();
    let door_of = match cert.as_ref().map(tls::identity) {
        Some(Some((Role::Admin, name))) => Door::Certificate(name),
        Some(other) => {
            tracing::warn!(
                ?other,
                "a certificate that is no administrator's on the admin port"
            );
            return;
        }
        None => match log_in(&mut stream, &mut side, customer(peer.ip()), door) {
            Ok(Some(account)) => Door::Account(account),
            Ok(None) => return,
            Err(reason) => {
                tracing::debug!(reason, "administrator's log-in failed");
                return;
            }
        },
    };
    if !stranger.leave() || stream.sock.settle().is_err() {
        return;
    }
    let caller = Caller {
        door: door_of,
        from: peer.to_string(),
    };
    let Some(_seat) = Seat::take(&door.admins, &caller.door) else {
        tracing::warn!(
            ADMINS_MAX,
            ADMINS_PER_ACCOUNT_MAX,
            who = caller.who(),
            "too many administrators at a time"
        );
        return;
    };
    if let Err(reason) = serve(stream, side, &caller, &door.backend) {
        tracing::warn!(reason, "administrator's link closed");
    }
}

/// Who is in by the port.
type Seats = Mutex<Vec<Door>>;

/// The place of one of them, given back when dropped.
struct Seat<'s>(&'s Seats, Door);

impl<'s> Seat<'s> {
    fn take(all: &'s Seats, door: &Door) -> Option<Self> {
        let mut taken = all.lock().ok()?;
        let own = taken.iter().filter(|d| *d == door).count();
        let most = match door {
            Door::Account(_) => ADMINS_PER_ACCOUNT_MAX,
            Door::Socket | Door::Certificate(_) => ADMINS_MAX,
        };
        if taken.len() >= ADMINS_MAX || own >= most {
            return None;
        }
        taken.push(door.clone());
        Some(Seat(all, door.clone()))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Ok(mut taken) = self.0.lock()
            && let Some(place) = taken.iter().position(|d| *d == self.1)
        {
            taken.swap_remove(place);
        }
    }
}

/// What the connections of the TCP door share.
struct Shared {
    backend: Arc<Backend>,
    admins: Seats,
    guesses: Mutex<Guesses>,
    /// Log-ins that were refused: whoever reaches the port can cause them.
    refusals: Mutex<Muffle>,
}

impl Shared {
    /// A line for the log and one for the audit log, unless there are too many.
    fn refused(&self, address: IpAddr, claimed: Option<&BareJid>, refused: &Refused) {
        let more = |n, seconds| {
            tracing::warn!("administrators' log-ins refused: and {n} more in the last {seconds} s");
        };
        let admits =
            |mut refusals: std::sync::MutexGuard<'_, Muffle>| refusals.admits(Instant::now(), more);
        let (account, reason) = (claimed.map(BareJid::as_str), &refused.why);
        if !self.refusals.lock().is_ok_and(admits) {
            tracing::debug!(%address, account, reason, "an administrator's log-in was refused");
            return;
        }
        tracing::warn!(%address, account, reason, "an administrator's log-in was refused");
        if let Some(account) = claimed {
            let caller = Caller {
                door: Door::Account(account.clone()),
                from: address.to_string(),
            };
            // Nothing was done that hangs on it; the log has said it, and that the file cannot be written.
            let _ = self.backend.audit(&audit::Record {
                caller: &caller,
                command: "log in",
                args: &serde_json::Map::new(),
                outcome: audit::Outcome::Refused(&Refusal::new(refused.code, reason.as_str())),
            });
        }
    }
}

/// A stranger's log-in. `None`: it was refused, and told so.
fn log_in(
    stream: &mut TlsStream,
    side: &mut Side,
    address: IpAddr,
    door: &Shared,
) -> Result<Option<BareJid>, String> {
    let exporter = stream
        .conn
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None)
        .map_err(|e| e.to_string())?;
    let facts = xmpp::scram::TlsFacts {
        version: 0x0304,
        exporter: Some(exporter),
        server_end_point: None,
    };
    let mut login = Login::new(address, facts);
    let mut random = |out: &mut [u8]| {
        getrandom::fill(out)
            .expect("the operating system's generator does not fail once it has started");
    };
    let mut taken = 0;
    loop {
        let (n, requests) = side.read(stream, &door.backend)?;
        if n == 0 {
            return Err("it has gone away".into());
        }
        taken += n;
        if taken > LOGIN_BYTES_MAX {
            return Err("too many bytes for a log-in".into());
        }
        for request in requests {
            let mut means = Means {
                keys: &*door.backend,
                guesses: &door.guesses,
                random: &mut random,
            };
            match login.handle(Instant::now(), &request, &mut means) {
                Step::Reply(json) => side.send(stream, json)?,
                Step::Refused(refused) => {
                    door.refused(address, login.claimed(), &refused);
                    side.send(stream, refused.reply)?;
                    return Ok(None);
                }
                Step::Done(json, account) => {
                    let caller = Caller {
                        door: Door::Account(account.clone()),
                        from: address.to_string(),
                    };
                    let may = |right: &Right| door.backend.grants(&caller, *right);
                    if Right::ADMINISTRATORS.iter().any(may) {
                        side.send(stream, json)?;
                        return Ok(Some(account));
                    }
                    let text = "the policy gives this account no right of an administrator";
                    let refused = Refused::new(login.last_id(), "forbidden", text);
                    door.refused(address, Some(&account), &refused);
                    side.send(stream, refused.reply)?;
                    return Ok(None);
                }
            }
        }
    }
}

type TlsStream = StreamOwned<ServerConnection, Until>;

/// A socket that fails once a moment has passed, however slowly bytes come; until it is settled.
struct Until {
    sock: TcpStream,
    until: Option<Instant>,
}

impl Until {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        let Some(until) = self.until else {
            return Ok(Some(IDLE));
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }

    /// Whoever it is may take its time now.
    fn settle(&mut self) -> std::io::Result<()> {
        self.until = None;
        self.sock.set_read_timeout(Some(IDLE))?;
        self.sock.set_write_timeout(Some(IDLE))
    }
}

impl Read for Until {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.until.is_some() {
            self.sock.set_read_timeout(self.left()?)?;
        }
        self.sock.read(buf)
    }
}

impl Write for Until {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.until.is_some() {
            self.sock.set_write_timeout(self.left()?)?;
        }
        self.sock.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sock.flush()
    }
}

/// TLS, with the certificate of somebody our CA has signed, or with none.
fn secure(
    sock: TcpStream,
    config: Arc<ServerConfig>,
    until: Instant,
) -> Result<(TlsStream, Option<CertificateDer<'static>>), String> {
    let mut conn = ServerConnection::new(config).map_err(|e| e.to_string())?;
    let mut sock = Until {
        sock,
        until: Some(until),
    };
    while conn.is_handshaking() {
        conn.complete_io(&mut sock).map_err(|e| e.to_string())?;
    }
    let cert = conn.peer_certificates().and_then(|c| c.first());
    let cert = cert.map(|c| c.clone().into_owned());
    Ok((StreamOwned::new(conn, sock), cert))
}

/// Our half of the link of one administrator.
#[derive(Default)]
struct Side {
    input: BytesMut,
    side: Option<ServerSide>,
}

impl Side {
    /// Waits for bytes. How many came (0: the end), and the requests in them.
    fn read(
        &mut self,
        stream: &mut (impl Read + Write),
        backend: &Backend,
    ) -> Result<(usize, Vec<bytes::Bytes>), String> {
        let mut scratch = [0; 16 * 1024];
        let n = loop {
            match stream.read(&mut scratch) {
                Ok(n) => break n,
                Err(e)
                    if e.kind() == std::io::ErrorKind::UnexpectedEof
                        || e.kind() == std::io::ErrorKind::ConnectionReset =>
                {
                    break 0;
                }
                // A signal interrupts sockets that have a timeout (signal(7)).
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        };
        self.input.extend_from_slice(&scratch[..n]);
        let now = Instant::now();
        if self.side.is_none()
            && let Some(hello) = read_hello(&mut self.input).map_err(|e| e.to_string())?
        {
            let config = ServerSideConfig::new(
                backend.name().to_owned(),
                BootId(backend.boot),
                StoreId(backend.store),
                Role::Admin,
            );
            self.side = Some(ServerSide::accept(now, config, hello).map_err(|e| e.to_string())?);
        }
        let mut requests = Vec::new();
        if let Some(side) = &mut self.side {
            side.handle_bytes(now, &mut self.input)
                .map_err(|e| e.to_string())?;
            while let Some(event) = side.poll_event() {
                if let ServerEvent::Admin(json) = event {
                    requests.push(json);
                }
            }
        }
        self.write(stream)?;
        Ok((n, requests))
    }

    fn send(&mut self, stream: &mut impl Write, json: Vec<u8>) -> Result<(), String> {
        let side = self.side.as_mut().ok_or("a reply before the greeting")?;
        side.send(Frame::Admin(json.into()))
            .map_err(|e| e.to_string())?;
        self.write(stream)
    }

    fn write(&mut self, stream: &mut impl Write) -> Result<(), String> {
        while let Some(bytes) = self.side.as_mut().and_then(ServerSide::poll_output) {
            stream.write_all(&bytes).map_err(|e| e.to_string())?;
        }
        stream.flush().map_err(|e| e.to_string())
    }
}

fn serve(
    mut stream: impl Read + Write,
    mut side: Side,
    caller: &Caller,
    backend: &Backend,
) -> Result<(), String> {
    loop {
        let (n, requests) = side.read(&mut stream, backend)?;
        for request in requests {
            let reply = admin::handle(backend, caller, &request);
            side.send(&mut stream, reply)?;
        }
        if n == 0 {
            return Ok(());
        }
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
        let come = |address: &str| Strangers::admit(&all, ip(address), None);
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
        let mut many = VecDeque::from(many);
        // All places are taken: the oldest goes, whoever it is.
        let last = come("203.0.113.1").expect("a place");
        let out = many.pop_front().flatten().expect("it was let in");
        assert!(last.leave() && !out.leave());
        drop(many);
        let waiting = all.0.lock().expect("not poisoned");
        assert!(waiting.places.is_empty() && waiting.threads == 0);
    }

    /// Who was put out and waits for a slow directory still has a thread.
    #[test]
    fn the_threads_of_strangers_are_bounded_too() {
        let all: Arc<Strangers> = Arc::default();
        let come = |n: usize| {
            let address = ip(&format!("198.51.{}.{}", n / 200, n % 200));
            Strangers::admit(&all, address, None)
        };
        let many: Vec<_> = (0..STRANGER_THREADS_MAX).map(come).collect();
        assert!(many.iter().all(Option::is_some) && come(60_000 / 200).is_none());
    }

    #[test]
    fn who_is_put_out_is_cut_off() {
        let all: Arc<Strangers> = Arc::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut client =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("a connection");
        let first = Strangers::admit(&all, ip("192.0.2.1"), Some(socket));
        let others: Vec<_> = (0..STRANGERS_MAX)
            .map(|n| Strangers::admit(&all, ip(&format!("198.51.100.{n}")), None))
            .collect();
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
        drop((first, others));
    }

    #[test]
    fn one_account_does_not_keep_other_administrators_out() {
        let seats = Seats::default();
        let account = |name: &str| {
            Door::Account(xmpp::jid::BareJid::parse(&format!("{name}@x")).expect("an address"))
        };
        let certificate = Door::Certificate("alice".into());
        let mut all: Vec<_> = (0..ADMINS_PER_ACCOUNT_MAX)
            .map(|_| Seat::take(&seats, &account("carol")))
            .collect();
        assert!(all.iter().all(Option::is_some));
        assert!(Seat::take(&seats, &account("carol")).is_none());
        assert!(Seat::take(&seats, &account("dave")).is_some());
        all.pop();
        all.push(Seat::take(&seats, &account("carol")));
        while let Some(seat) = Seat::take(&seats, &certificate) {
            all.push(Some(seat));
        }
        assert!(all.len() == ADMINS_MAX && all.iter().all(Option::is_some));
        drop(all);
        assert!(seats.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_customer_of_ipv6_is_one_stranger() {
        let all: Arc<Strangers> = Arc::default();
        let within: Vec<_> = (0..=STRANGERS_PER_ADDRESS_MAX)
            .map(|n| Strangers::admit(&all, ip(&format!("2001:db8::{n:x}")), None))
            .collect();
        assert!(
            within[..STRANGERS_PER_ADDRESS_MAX]
                .iter()
                .all(Option::is_some)
        );
        assert!(within[STRANGERS_PER_ADDRESS_MAX].is_none());
        assert!(Strangers::admit(&all, ip("2001:db8:0:1::1"), None).is_some());
    }

    /// Bytes that come slowly do not put the deadline off.
    #[test]
    fn a_handshake_has_one_deadline() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut slow = std::net::TcpStream::connect(listener.local_addr().expect("bound"))
            .expect("it listens");
        let (sock, _) = listener.accept().expect("a connection");
        let drip = std::thread::spawn(move || while slow.write_all(b"x").is_ok() {});
        let until = Instant::now() + Duration::from_millis(50);
        let mut stream = Until {
            sock,
            until: Some(until),
        };
        let mut byte = [0; 1];
        let error = loop {
            if let Err(e) = stream.read(&mut byte) {
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
