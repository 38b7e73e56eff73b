//! Listening sockets and the accept loop.
//!
//! They live on the link's thread, not one per thread by SO_REUSEPORT: accepting is rare beside messages and
//! one hop then costs nothing; all limits are in one place; a busy thread starves no backlog of its own; and
//! a second mux started by mistake is told that the port is taken instead of silently sharing it.
//!
//! Without a server new clients wait in the kernel's backlog for [`GRACE`], so that a restart of the server shows
//! nobody an error; after that they are let in as ever and turned away in good order (`conns`), so that they go to another address.
//!
//! A listener behind load balancers takes connections from those only, and its sockets still have to say whose they are
//! (the PROXY header, read in `lobby`).
//!
//! In: readiness, `now`, the gate's word. Out: sockets with their listener. Owns: listening sockets, one spare descriptor.
//! Never: spins when descriptors run out.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use proto::frame::ListenerKind;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::{ListenerConfig, ListenerTransport, Network, TcpConfig};
use crate::gate::{Gate, RefusedBy, Wait};
use crate::metrics::{self, Metrics};

/// How long new clients wait for a server that went away.
pub const GRACE: Duration = Duration::from_secs(5);
/// Pause when descriptors have run out, or accepting fails for another reason of this host.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
/// How often a full house is looked at again (it is also when somebody leaves).
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted in one turn, before the others' messages.
const ACCEPTS_PER_TURN: usize = 64;
/// The kernel's queue of connections not accepted; it may cut this to net.core.somaxconn.
const BACKLOG: i32 = 4096;

struct Listener {
    socket: TcpListener,
    kind: ListenerKind,
    transport: ListenerTransport,
    /// The balancers in front of it.
    proxy_from: Option<Vec<Network>>,
    request_certificate: bool,
    /// Somebody else was told apart from them, and the operator told so.
    warned: bool,
    /// The kernel may have connections (edge-triggered).
    ready: bool,
}

impl Listener {
    /// May this address connect? Everybody may to a listener without balancers. The operator who has forgotten one of them
    /// finds out from the log; strangers add one line to it.
    fn may_connect(&mut self, peer: SocketAddr) -> bool {
        let Some(from) = &self.proxy_from else {
            return true;
        };
        if from.iter().any(|network| network.contains(peer.ip())) {
            return true;
        }
        if !std::mem::replace(&mut self.warned, true) {
            let listener = self.socket.local_addr().ok();
            tracing::warn!(
                %peer,
                ?listener,
                "a connection past the load balancer was closed: the address is not in `proxy_from` (further ones: debug)"
            );
        } else {
            tracing::debug!(%peer, "not in `proxy_from`");
        }
        false
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub socket: TcpStream,
    /// The far end.
    pub peer: SocketAddr,
    /// Kind of its listener.
    pub kind: ListenerKind,
    /// What its listener carries.
    pub transport: ListenerTransport,
    /// Ask for a certificate at the handshake, whoever orders it.
    pub request_certificate: bool,
    /// There was no server for it, and none for a while: no handshake is worth its price.
    pub no_server: bool,
    /// The gate has it for no address: `peer` is a balancer, whose PROXY header says more.
    pub unnamed: bool,
}

/// See the module.
pub struct Listeners {
    list: Vec<Listener>,
    first_token: usize,
    paused_until: Option<Instant>,
    /// Since when there is no server.
    no_server_since: Option<Instant>,
    /// Given up for a moment when descriptors run out, to be able to refuse the client that waits.
    spare: Option<File>,
    out_of_files: bool,
}

impl Listeners {
    /// Binds everything. Errors are one sentence each, which names the address.
    pub fn bind(configs: &[ListenerConfig], tcp: &TcpConfig) -> Result<Self, Vec<String>> {
        let mut list = Vec::new();
        let mut wrong = Vec::new();
        for config in configs {
            for address in &config.listen {
                let socket = match bind(*address, tcp) {
                    Ok(socket) => socket,
                    Err(error) => {
                        wrong.push(cannot_listen(*address, &error));
                        continue;
                    }
                };
                list.push(Listener {
                    socket,
                    kind: config.kind,
                    transport: config.transport,
                    proxy_from: config.proxy_from.clone(),
                    request_certificate: config.request_client_certificate,
                    warned: false,
                    ready: true,
                });
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let spare = File::open("/dev/null").ok();
        Ok(Self {
            list,
            first_token: 0,
            paused_until: None,
            no_server_since: None,
            spare,
            out_of_files: false,
        })
    }

    /// Watches all, with tokens from `first` on.
    pub fn register(&mut self, registry: &Registry, first: usize) -> io::Result<()> {
        self.first_token = first;
        for (n, listener) in self.list.iter_mut().enumerate() {
            registry.register(&mut listener.socket, Token(first + n), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Where they listen, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.list
            .iter()
            .filter_map(|l| l.socket.local_addr().ok())
            .collect()
    }

    /// New socket options, for connections accepted from now on.
    pub fn set_tcp(&self, tcp: &TcpConfig) {
        for listener in &self.list {
            if let Err(error) = set_options(&SockRef::from(&listener.socket), tcp) {
                tracing::warn!(%error, "socket options of a listener cannot be set");
            }
        }
    }

    /// A listener is ready.
    pub fn handle_ready(&mut self, token: Token) {
        if let Some(listener) = self.list.get_mut(token.0 - self.first_token) {
            listener.ready = true;
        }
    }

    /// Whether there is a server for new connections.
    pub fn set_accepting(&mut self, now: Instant, accepting: bool) {
        self.no_server_since = match (accepting, self.no_server_since) {
            (true, _) => None,
            (false, since) => since.or(Some(now)),
        };
    }

    /// Somebody left or logged in: a full house may have room.
    pub fn look_again(&mut self) {
        if !self.out_of_files {
            self.paused_until = None;
        }
    }

    /// When to call `accept` again without an event.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.list.iter().any(|l| l.ready) {
            return None;
        }
        let grace = self
            .no_server_since
            .map(|since| since + GRACE)
            .filter(|t| *t > now);
        Some(
            [self.paused_until, grace]
                .into_iter()
                .flatten()
                .max()
                .unwrap_or(now),
        )
    }

    /// Closes the listening sockets.
    pub fn close(&mut self) {
        self.list.clear();
    }

    /// Accepts what may come in, up to a turn's share.
    pub fn accept(
        &mut self,
        now: Instant,
        gate: &mut Gate,
        metrics: &Metrics,
        mut sink: impl FnMut(&mut Gate, Accepted),
    ) {
        if self.paused_until.is_some_and(|t| t > now) {
            return;
        }
        self.paused_until = None;
        let no_server = match self.no_server_since {
            None => false,
            Some(since) if now >= since + GRACE => true,
            Some(_) => return,
        };
        let mut left = ACCEPTS_PER_TURN;
        for n in 0..self.list.len() {
            while self.list[n].ready && left > 0 {
                left -= 1;
                if let Err(wait) = gate.may_accept(now) {
                    metrics::add(&metrics.accept_pauses, 1);
                    self.paused_until = Some(match wait {
                        Wait::Until(at) => at,
                        Wait::Unauthenticated => now + FULL_PAUSE,
                    });
                    return;
                }
                let listener = &mut self.list[n];
                let (socket, peer) = match listener.socket.accept() {
                    Ok(accepted) => accepted,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                        break;
                    }
                    Err(error) if gone_before_accepted(&error) => continue,
                    Err(error) => return self.accept_failed(now, n, &error, metrics),
                };
                if self.out_of_files {
                    self.out_of_files = false;
                    tracing::warn!("file descriptors are available again");
                }
                if !listener.may_connect(peer) {
                    metrics::add(&metrics.refused_proxy, 1);
                    continue;
                }
                let (kind, transport) = (listener.kind, listener.transport);
                let request_certificate = listener.request_certificate;
                let unnamed = listener.proxy_from.is_some();
                let admitted = if unnamed {
                    gate.enter()
                } else {
                    gate.admit(peer.ip())
                };
                match admitted {
                    Ok(()) => {
                        metrics::add(&metrics.accepted, 1);
                        sink(
                            gate,
                            Accepted {
                                socket,
                                peer,
                                kind,
                                transport,
                                request_certificate,
                                no_server,
                                unnamed,
                            },
                        );
                    }
                    Err(RefusedBy::Total) => metrics::add(&metrics.refused_total, 1),
                    Err(RefusedBy::Address) => metrics::add(&metrics.refused_address, 1),
                }
            }
        }
    }

    fn accept_failed(&mut self, now: Instant, n: usize, error: &io::Error, metrics: &Metrics) {
        self.paused_until = Some(now + FAILED_PAUSE);
        metrics::add(&metrics.accept_pauses, 1);
        let out = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if !out {
            tracing::warn!(%error, "accepting failed");
            return;
        }
        if !self.out_of_files {
            self.out_of_files = true;
            tracing::warn!(
                "out of file descriptors: new clients are refused (raise LimitNOFILE or lower limits.conns_max)"
            );
        }
        // With the spare descriptor the one who waits is at least told to go elsewhere.
        drop(self.spare.take());
        if self.list[n].socket.accept().is_ok() {
            metrics::add(&metrics.refused_no_files, 1);
        }
        self.spare = File::open("/dev/null").ok();
    }
}

/// accept(2): errors of a connection that ended before it was accepted.
fn gone_before_accepted(error: &io::Error) -> bool {
    use libc::{
        ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN, ENETUNREACH, ENONET, ENOPROTOOPT,
        EOPNOTSUPP, EPROTO,
    };
    const GONE: [i32; 10] = [
        ECONNABORTED,
        EHOSTDOWN,
        EHOSTUNREACH,
        EINTR,
        ENETDOWN,
        ENETUNREACH,
        ENONET,
        ENOPROTOOPT,
        EOPNOTSUPP,
        EPROTO,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| GONE.contains(&code))
}

fn bind(address: SocketAddr, tcp: &TcpConfig) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] may both be listed, on every host alike.
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket), tcp)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Linux hands these on to accepted sockets (tcp(7)), which saves four calls per connection.
fn set_options(socket: &SockRef<'_>, tcp: &TcpConfig) -> io::Result<()> {
    socket.set_tcp_nodelay(tcp.nodelay)?;
    socket.set_keepalive(!tcp.keepalive.is_zero())?;
    if !tcp.keepalive.is_zero() {
        let probe = (tcp.keepalive / 4).clamp(Duration::from_secs(1), Duration::from_secs(75));
        let keepalive = TcpKeepalive::new()
            .with_time(tcp.keepalive)
            .with_interval(probe)
            .with_retries(4);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout((!tcp.user_timeout.is_zero()).then_some(tcp.user_timeout))
}

/// Why nobody can be listened for there, in the operator's words; `imserver` says it the same way of its doors.
pub fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("cannot listen on {address}: another program has this port")
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "cannot listen on {address}: not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {address}: this host does not have the address")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}
