//! A mux on loopback and the server's half of its link, played by the test.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, bounded};
use mux::config::{self, Config};
use mux::{LinkTransport, Mux};
use proto::frame::*;
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longer than anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often the mux looks at everybody (`conns::drained`).
pub const DRAIN_TICK: Duration = Duration::from_millis(100);
/// How long one look at the link waits for bytes.
const LOOK: Duration = Duration::from_millis(5);

/// The transport of a link as the test's server sees it; reads must time out after a few milliseconds.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// The server's half of a link.
pub struct Server {
    links: Receiver<Box<dyn Wire>>,
    wire: Option<Box<dyn Wire>>,
    greeted: bool,
    side: Option<ServerSide>,
    boot: BootId,
    store: StoreId,
    bytes: BytesMut,
    events: VecDeque<ServerEvent>,
}

impl Server {
    pub fn new(links: Receiver<Box<dyn Wire>>) -> Self {
        Self {
            links,
            wire: None,
            greeted: false,
            side: None,
            boot: BootId([1; 16]),
            store: StoreId([7; 16]),
            bytes: BytesMut::new(),
            events: VecDeque::new(),
        }
    }

    /// One look at everything.
    pub fn pump(&mut self) {
        let Some(wire) = &mut self.wire else {
            if let Ok(wire) = self.links.recv_timeout(LOOK) {
                self.wire = Some(wire);
                self.greeted = false;
                self.bytes.clear();
            }
            return;
        };
        let mut piece = [0; 65_536];
        match wire.read(&mut piece) {
            Ok(0) => self.cut(),
            Ok(n) => {
                self.bytes.extend_from_slice(&piece[..n]);
                self.take_bytes();
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(_) => self.cut(),
        }
        self.settle_up();
    }

    fn take_bytes(&mut self) {
        let now = Instant::now();
        if !self.greeted {
            let Some(hello) = read_hello(&mut self.bytes).expect("Hello") else {
                return;
            };
            self.greeted = true;
            match &mut self.side {
                Some(side) => side.handle_hello(now, hello).expect("Hello"),
                None => {
                    let config = ServerSideConfig::new("main", self.boot, self.store, Role::Mux);
                    self.side = Some(ServerSide::accept(now, config, hello).expect("Hello"));
                }
            }
        }
        let side = self.side.as_mut().expect("greeted");
        side.handle_bytes(now, &mut self.bytes)
            .expect("the mux keeps the protocol");
    }

    /// Timers, events, output.
    fn settle_up(&mut self) {
        let now = Instant::now();
        let Some(side) = &mut self.side else { return };
        if side.poll_timeout().is_some_and(|t| t <= now) {
            side.handle_timeout(now);
        }
        while let Some(event) = side.poll_event() {
            self.events.push_back(event);
        }
        if let (Some(wire), true) = (&mut self.wire, self.greeted) {
            while let Some(bytes) = side.poll_output() {
                if wire.write_all(&bytes).is_err() {
                    break;
                }
            }
            // A transport that is gone shows at the next read.
            let _ = wire.flush();
        }
    }

    pub fn send(&mut self, frame: Frame) {
        self.side
            .as_mut()
            .expect("up")
            .send(frame)
            .expect("allowed");
        self.settle_up();
    }

    pub fn output(&mut self, conn: ConnId, text: impl Into<Bytes>) {
        self.send(Frame::Output(
            conn,
            Output {
                bytes: text.into(),
                last: true,
                stanza: true,
                stored: None,
            },
        ));
    }

    /// As `output`, for a connection that may have been closed meanwhile.
    pub fn output_if_there(&mut self, conn: ConnId, bytes: impl Into<Bytes>) {
        let frame = Frame::Output(
            conn,
            Output {
                bytes: bytes.into(),
                last: true,
                stanza: true,
                stored: None,
            },
        );
        // Gone is an ordinary race here.
        let _ = self.side.as_mut().expect("up").send(frame);
        self.settle_up();
    }

    /// The mux has closed it.
    pub fn saw_close(&self, conn: ConnId) -> bool {
        self.events
            .iter()
            .any(|e| matches!(e, ServerEvent::Closed(c, _) if *c == conn))
    }

    pub fn close(&mut self, conn: ConnId, last: &'static [u8], reason: CloseReason) {
        self.send(Frame::Close(
            conn,
            Close {
                last: Bytes::from_static(last),
                reason,
            },
        ));
    }

    /// Everything up to here is durable; another window may come.
    pub fn settle(&mut self, conn: ConnId, bytes: u64, stanzas: u64, window: u64) {
        let marks = Marks {
            settled_bytes: bytes,
            settled_stanzas: stanzas,
            forget_stanzas: 0,
            input_bytes_max: bytes + window,
        };
        self.send(Frame::Marks(conn, marks));
    }

    /// Waits for an event; what comes before stays for later.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&ServerEvent) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut seen = 0;
        loop {
            while seen < self.events.len() {
                if let Some(found) = pick(&self.events[seen]) {
                    self.events.remove(seen);
                    return found;
                }
                seen += 1;
            }
            assert!(Instant::now() < until, "no {what}; got {:?}", self.events);
            self.pump();
        }
    }

    /// Looks for a while; nothing of the kind may come.
    pub fn never(&mut self, what: &str, looks: usize, pick: impl Fn(&ServerEvent) -> bool) {
        for _ in 0..looks {
            self.pump();
        }
        assert!(
            !self.events.iter().any(pick),
            "{what} came: {:?}",
            self.events
        );
    }

    pub fn up(&mut self) -> bool {
        self.wait("Up", |e| match e {
            ServerEvent::Up { continued } => Some(*continued),
            _ => None,
        })
    }

    pub fn opened(&mut self) -> (ConnId, Box<Open>) {
        self.wait("Opened", |e| match e {
            ServerEvent::Opened(conn, open) => Some((*conn, open.clone())),
            _ => None,
        })
    }

    /// Collects input of a connection until this many bytes are there.
    pub fn input(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < len {
            let piece = self.wait("Input", |e| match e {
                ServerEvent::Input(c, input) if *c == conn => Some(input.bytes.clone()),
                _ => None,
            });
            got.extend_from_slice(&piece);
        }
        got
    }

    pub fn closed(&mut self, conn: ConnId) -> CloseReason {
        self.wait("Closed", |e| match e {
            ServerEvent::Closed(c, reason) if *c == conn => Some(*reason),
            _ => None,
        })
    }

    pub fn secured(&mut self, conn: ConnId) -> Box<TlsFacts> {
        self.wait("Secured", |e| match e {
            ServerEvent::Secured(c, facts) if *c == conn => Some(facts.clone()),
            _ => None,
        })
    }

    /// Waits until the mux says that so many elements are drained.
    pub fn drained(&mut self, conn: ConnId, elements: u64) {
        self.wait("Drained", |e| match e {
            ServerEvent::Drained(c, n) if *c == conn => (*n >= elements).then_some(()),
            _ => None,
        });
    }

    /// The highest count told so far.
    pub fn drained_so_far(&self, conn: ConnId) -> u64 {
        let counts = self.events.iter().filter_map(|e| match e {
            ServerEvent::Drained(c, n) if *c == conn => Some(*n),
            _ => None,
        });
        counts.max().unwrap_or(0)
    }

    /// How often the mux has told of drained elements, of what is not taken up yet.
    pub fn drained_words(&self, conn: ConnId) -> usize {
        let of_it = |e: &&ServerEvent| matches!(e, ServerEvent::Drained(c, _) if *c == conn);
        self.events.iter().filter(of_it).count()
    }

    /// Waits until the mux has left.
    pub fn until_left(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.wire.is_some() {
            assert!(Instant::now() < until, "the mux stays");
            self.pump();
        }
    }

    /// The transport breaks; the server lives.
    pub fn cut(&mut self) {
        self.wire = None;
        if let Some(side) = &mut self.side {
            side.handle_down(Instant::now());
        }
    }

    /// No server any more: transports are taken and dropped at once.
    pub fn go_away(&mut self) {
        self.cut();
        self.side = None;
        let (_, none) = bounded(0);
        // The mux's next transports find nobody.
        self.links = none;
    }

    /// Bytes that are no frame.
    pub fn write_garbage(&mut self) {
        // The mux may be gone already.
        let _ = self.wire.as_mut().expect("up").write_all(&[0xFF; 64]);
    }

    /// A connection that was resumed without a session.
    pub fn resumed_without_note(&self) -> Option<ConnId> {
        self.events.iter().find_map(|e| match e {
            ServerEvent::Resumed(conn, resume)
                if resume.note.is_none() && resume.closed.is_none() =>
            {
                Some(*conn)
            }
            _ => None,
        })
    }

    /// The server dies with all it knew, and another process serves the same store.
    pub fn restart(&mut self) {
        self.cut();
        self.side = None;
        self.boot = BootId([self.boot.0[0] + 1; 16]);
        self.events.clear();
    }
}

/// A mux with its server.
pub struct Pair {
    pub mux: Mux,
    pub server: Server,
    pub dir: tempfile::TempDir,
}

/// What the tests vary.
pub struct Setup {
    pub threads: usize,
    pub limits: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            threads: 1,
            limits: "",
        }
    }
}

/// Listener 0 is plain, listener 1 direct TLS, certificates for example.org and other.example.
pub fn start(setup: &Setup) -> Pair {
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path(), "example", "example.org");
    write_certificate(dir.path(), "other", "other.example");
    let config = configuration(dir.path(), setup);
    start_from(dir, config)
}

/// As `start`, with a configuration of the test's own.
pub fn start_from(dir: tempfile::TempDir, config: Config) -> Pair {
    let (sender, links) = bounded::<Box<dyn Wire>>(16);
    let connect = move || {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_read_timeout(Some(LOOK))?;
        sender
            .send(Box::new(theirs))
            .map_err(|_| std::io::Error::other("test is over"))?;
        Ok(ours)
    };
    let mux = mux::start(config, LinkTransport::Connect(Box::new(connect))).expect("starts");
    let mut server = Server::new(links);
    assert!(!server.up());
    Pair { mux, server, dir }
}

pub fn configuration(dir: &Path, setup: &Setup) -> Config {
    configuration_from(dir, &configuration_text(setup))
}

pub fn configuration_from(dir: &Path, text: &str) -> Config {
    let file = dir.join("mux.toml");
    std::fs::write(&file, text).expect("write");
    config::load(&file).unwrap_or_else(|all| panic!("{all:?}"))
}

pub fn configuration_text(setup: &Setup) -> String {
    format!(
        r#"
name = "mux1"
threads = {}
[[server]]
name = "main"
address = "unix:link.sock"
[[listener]]
kind = "c2s"
transport = "tcp"
listen = ["127.0.0.1:0"]
[[listener]]
kind = "c2s"
transport = "tls"
listen = ["127.0.0.1:0"]
[[certificate]]
domains = ["example.org"]
chain = "example.pem"
key = "example.key"
[[certificate]]
domains = ["other.example", "*.wild.example"]
chain = "other.pem"
key = "other.key"
[tls]
watch_s = 1
[metrics]
listen = "127.0.0.1:0"
[limits]
{}
"#,
        setup.threads, setup.limits
    )
}

/// Writes NAME.pem and NAME.key.
pub fn write_certificate(dir: &Path, name: &str, domain: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([domain.to_owned()]).expect("certificate");
    std::fs::write(
        dir.join(format!("{name}.key")),
        made.signing_key.serialize_pem(),
    )
    .expect("write");
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).expect("write");
    made.cert.der().clone()
}

pub fn certificate(path: PathBuf) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(path).expect("certificate")
}

impl Pair {
    pub fn plain(&self) -> TcpStream {
        connect(self.mux.addresses()[0])
    }

    /// A plain client and its id.
    pub fn client(&mut self) -> (TcpStream, ConnId) {
        let client = self.plain();
        let port = client.local_addr().expect("addr").port();
        let conn = self.server.wait("Opened", |e| match e {
            ServerEvent::Opened(conn, open) if open.peer.port() == port => Some(*conn),
            _ => None,
        });
        (client, conn)
    }

    pub fn tls_config(&self) -> ClientConfig {
        tls_config(&[
            certificate(self.dir.path().join("example.pem")),
            certificate(self.dir.path().join("other.pem")),
        ])
    }

    pub fn tls_config_any(
        &self,
        verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    }

    pub fn stop(self) {
        self.mux.stop();
        drop(self.server);
        self.mux.join().expect("ends in order");
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket.set_nodelay(true).expect("nodelay");
    socket
}

pub fn tls_config(roots: &[CertificateDer<'static>]) -> ClientConfig {
    tls_config_versions(roots, rustls::ALL_VERSIONS)
}

pub fn tls_config_versions(
    roots: &[CertificateDer<'static>],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).expect("root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth()
}

pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// A client's TLS over a socket, handshake done.
pub fn secure(
    config: ClientConfig,
    socket: TcpStream,
    name: &str,
) -> Result<TlsClient, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("name");
    let conn = ClientConnection::new(Arc::new(config), name).expect("config");
    let mut stream = StreamOwned::new(conn, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

pub fn read_exact(from: &mut impl Read, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    from.read_exact(&mut out).expect("bytes");
    out
}

/// The far end closes; nothing comes before.
pub fn assert_closed(from: &mut impl Read) {
    match from.read(&mut [0; 16]) {
        Ok(0) => {}
        Ok(n) => panic!("{n} bytes instead of the end"),
        Err(e) => assert!(
            matches!(
                e.kind(),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
            ),
            "{e}"
        ),
    }
}
