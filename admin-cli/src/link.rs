//! The connection to a server's admin door: TLS 1.3 from anywhere, with a certificate or an account's password, or its Unix
//! socket on the same host.

use crate::config::AdminConfig;
use bytes::BytesMut;
use proto::admin_side::AdminSide;
use proto::frame::BootId;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xmpp::scram::client::{ClientBinding, ScramClient};
use xmpp::scram::{BindingType, ScramHash};

/// How long the server may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take for an answer: an import of passwords is work.
const ANSWER: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug)]
pub enum LinkError {
    /// The server says no.
    Refused {
        /// Its word for why.
        code: String,
        /// Its sentence.
        text: String,
    },
    /// It cannot be reached, or does not take us for an administrator.
    Unreachable(String),
    /// There is no password to log in with.
    NoPassword(String),
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// An open connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    side: AdminSide,
    input: BytesMut,
    replies: VecDeque<bytes::Bytes>,
    next: u64,
    address: String,
}

fn unreachable(address: &str, e: impl std::fmt::Display) -> LinkError {
    LinkError::Unreachable(format!("the server at {address} cannot be reached: {e}"))
}

impl Connection {
    /// Dials, greets, and logs in if the configuration names an account; `password` is asked for only then.
    pub fn dial(
        config: &AdminConfig,
        password: impl FnOnce(&str) -> Result<String, LinkError>,
    ) -> Result<Self, LinkError> {
        let address = config.address.clone();
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = unix(path).map_err(|e| unreachable(&address, e))?;
            return Self::greet(Box::new(stream), address);
        }
        // Asked for first: the server does not wait long for who is slow with it.
        let login = match &config.user {
            Some(user) => Some((user, password(user)?)),
            None => None,
        };
        let stream = tls(config).map_err(|e| unreachable(&address, e))?;
        let Some((user, password)) = login else {
            return Self::greet(Box::new(stream), address);
        };
        let binding = stream
            .conn
            .export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", None)
            .map_err(|e| unreachable(&address, e))?;
        Self::greet(Box::new(stream), address)?.log_in(user, &password, binding)
    }

    fn greet(stream: Box<dyn Stream>, address: String) -> Result<Self, LinkError> {
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).map_err(|e| unreachable(&address, e))?;
        let side = AdminSide::new(Instant::now(), "imadmin", BootId(boot));
        let mut this = Self {
            stream,
            side,
            input: BytesMut::new(),
            replies: VecDeque::new(),
            next: 1,
            address,
        };
        while this.side.server().is_none() {
            this.write()?;
            this.read()?;
        }
        Ok(this)
    }

    /// SCRAM inside the frames, bound to this TLS session (proto/LINK.md §8). Where the account's directory has no keys for it, the
    /// server asks for the password itself. It gets it: the certificate it has shown in the handshake is of our own CA and in
    /// its name, or there would be no connection ([`tls`] trusts nothing else and cannot be told to).
    fn log_in(mut self, user: &str, password: &str, binding: Vec<u8>) -> Result<Self, LinkError> {
        let mut nonce = [0; 18];
        getrandom::fill(&mut nonce).map_err(|e| unreachable(&self.address, e))?;
        let nonce: String = nonce.iter().map(|b| format!("{b:02x}")).collect();
        let binding = ClientBinding::Bind(BindingType::TlsExporter, binding);
        let hash = ScramHash::Sha256;
        let mut client = ScramClient::new(hash, user, password, None, binding, &nonce);
        let first = json!({"mechanism": "SCRAM-SHA-256-PLUS", "message": client.first_message()});
        let challenge = self.exchange(&json!({"auth": first}))?;
        let last = client
            .handle_challenge(challenge["auth"].as_str().unwrap_or_default())
            .map_err(|e| unreachable(&self.address, e))?;
        let done = match self.exchange(&json!({"auth": {"message": last}})) {
            Err(LinkError::Refused { code, .. }) if code == "password-wanted" => {
                let message = format!("\0{user}\0{password}");
                self.exchange(&json!({"auth": {"mechanism": "PLAIN", "message": message}}))?;
                return Ok(self);
            }
            done => done?,
        };
        // It knows the account's secrets, so it is the server.
        client
            .handle_success(done["auth"].as_str().unwrap_or_default())
            .map_err(|e| unreachable(&self.address, e))?;
        Ok(self)
    }

    /// Asks one question and waits for its answer: what stands under `ok`.
    pub fn ask(&mut self, command: &str, args: &Value) -> Result<Value, LinkError> {
        self.exchange(&json!({"command": command, "args": args}))
    }

    fn exchange(&mut self, request: &Value) -> Result<Value, LinkError> {
        let mut request = request.clone();
        request["id"] = json!(self.next);
        self.next += 1;
        self.side
            .send(request.to_string().into())
            .map_err(|e| unreachable(&self.address, e))?;
        self.write()?;
        let reply = loop {
            match self.replies.pop_front() {
                Some(reply) => break reply,
                None => {
                    self.read()?;
                    self.write()?;
                }
            }
        };
        let mut reply: Value =
            serde_json::from_slice(&reply).map_err(|e| unreachable(&self.address, e))?;
        if let Some(error) = reply.get("error") {
            let text = error["text"]
                .as_str()
                .unwrap_or("refused without a reason")
                .to_owned();
            let code = error["code"].as_str().unwrap_or_default().to_owned();
            return Err(LinkError::Refused { code, text });
        }
        Ok(reply["ok"].take())
    }

    fn write(&mut self) -> Result<(), LinkError> {
        while let Some(bytes) = self.side.poll_output() {
            self.stream.write_all(&bytes).map_err(|e| self.broken(&e))?;
        }
        self.stream.flush().map_err(|e| self.broken(&e))
    }

    /// In words an administrator can use: what TLS and the kernel say of a server that hangs up is no help.
    fn broken(&self, e: &std::io::Error) -> LinkError {
        match e.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                self.hung_up()
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => unreachable(
                &self.address,
                format_args!("no answer for {} s", ANSWER.as_secs()),
            ),
            _ => unreachable(&self.address, e),
        }
    }

    fn hung_up(&self) -> LinkError {
        let why = "it has closed the connection (is this certificate an administrator's?)";
        unreachable(&self.address, why)
    }

    fn read(&mut self) -> Result<(), LinkError> {
        let mut scratch = [0; 64 * 1024];
        let n = loop {
            match self.stream.read(&mut scratch) {
                // Stopped by ^Z and continued: that interrupts sockets that have a timeout (signal(7)).
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|e| self.broken(&e))?,
            }
        };
        if n == 0 {
            return Err(self.hung_up());
        }
        self.input.extend_from_slice(&scratch[..n]);
        let replies = self
            .side
            .handle_bytes(Instant::now(), &mut self.input)
            .map_err(|e| unreachable(&self.address, e))?;
        self.replies.extend(replies);
        Ok(())
    }
}

fn unix(path: &str) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

fn tls(config: &AdminConfig) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let file = |path: &Option<PathBuf>, what: &str| {
        path.clone().ok_or_else(|| {
            anyhow::anyhow!("admin.toml has no `{what}`, and the address is not a Unix socket")
        })
    };
    let ca = file(&config.ca, "ca")?;
    let mut roots = RootCertStore::empty();
    for cert in certificates(&ca)? {
        roots.add(cert)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let tls = if config.user.is_some() {
        tls.with_no_client_auth()
    } else {
        let (cert, key) = (file(&config.cert, "cert")?, file(&config.key, "key")?);
        let key = PrivateKeyDer::from_pem_file(&key)
            .map_err(|e| anyhow::anyhow!("{}: {e}", key.display()))?;
        tls.with_client_auth_cert(certificates(&cert)?, key)?
    };
    let name = ServerName::try_from(format!("{}.server.isthmus", config.server))?;
    let addresses: Vec<_> = config.address.to_socket_addrs()?.collect();
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(CONNECT))?;
                stream.set_nodelay(true)?;
                let mut stream =
                    StreamOwned::new(ClientConnection::new(Arc::new(tls), name)?, stream);
                while stream.conn.is_handshaking() {
                    let step = stream.conn.complete_io(&mut stream.sock);
                    step.map_err(|e| match e.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                            anyhow::anyhow!("no answer for {} s", CONNECT.as_secs())
                        }
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => anyhow::anyhow!(
                            "it has closed the connection (is it the port of [admin] in imserver.toml?)"
                        ),
                        _ => e.into(),
                    })?;
                }
                stream.sock.set_read_timeout(Some(ANSWER))?;
                return Ok(stream);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no such host"), Into::into))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = |e: rustls_pki_types::pem::Error| anyhow::anyhow!("{}: {e}", path.display());
    CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)
}
