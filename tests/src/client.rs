//! A scripted XMPP client: blocking, one thread, sends exactly what it is told.
//!
//! In: what a test says, and bytes from the server. Out: bytes, and [`Item`]s read with a deadline.
//! Every wait is for a condition (an element, the end of the stream) and ends after `patience`.

use crate::scram::{Binding, Exchange, Hash};
use crate::websocket::{self, Frames};
use crate::xml::{Item, NS_CLIENT, NS_STREAM, StreamReader, Xml, escape};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// SASL namespace.
pub const NS_SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// STARTTLS namespace.
pub const NS_TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// Resource binding namespace.
pub const NS_BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Stream management namespace (XEP-0198).
pub const NS_SM: &str = "urn:xmpp:sm:3";
/// The content namespace of component streams (XEP-0114).
pub const NS_COMPONENT: &str = "jabber:component:accept";
/// Stream errors (RFC 6120 §4.9.3).
pub const NS_STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP without TLS.
    Plain,
    /// TCP, then TLS by STARTTLS (RFC 6120 §5).
    StartTls,
    /// TLS from the first byte (XEP-0368).
    DirectTls,
    /// WebSocket without TLS (RFC 7395), as behind a reverse proxy.
    WebSocket,
    /// WebSocket over TLS.
    WebSocketTls,
    /// TCP without TLS, and a component's stream (XEP-0114), whose domain is the endpoint's.
    Component,
}

impl Transport {
    /// All of a client's, for tables.
    pub const ALL: [Transport; 5] = [
        Transport::Plain,
        Transport::StartTls,
        Transport::DirectTls,
        Transport::WebSocket,
        Transport::WebSocketTls,
    ];

    /// The default namespace of its streams.
    pub fn content_ns(self) -> &'static str {
        match self {
            Transport::Component => NS_COMPONENT,
            _ => NS_CLIENT,
        }
    }

    /// Messages of WebSocket carry the elements.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::WebSocket | Transport::WebSocketTls)
    }

    fn is_direct_tls(self) -> bool {
        matches!(self, Transport::DirectTls | Transport::WebSocketTls)
    }
}

/// Where and how to reach a server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The XMPP domain.
    pub domain: String,
    /// c2s port with STARTTLS.
    pub starttls: SocketAddr,
    /// c2s port with direct TLS.
    pub direct: SocketAddr,
    /// WebSocket without TLS.
    pub ws: SocketAddr,
    /// WebSocket over TLS.
    pub wss: SocketAddr,
    /// Where components connect, if this server has such a port.
    pub component: SocketAddr,
    /// Which of them, and whether TLS is started.
    pub transport: Transport,
    /// TLS version to insist on; `None` takes what comes.
    pub tls: Option<&'static rustls::SupportedProtocolVersion>,
    /// The client's own certificate and its key (PEM files), if it has one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Local address to connect from, for tests with many clients.
    pub from: Option<Ipv4Addr>,
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// Localpart.
    pub user: String,
    /// Password.
    pub password: String,
}

impl Account {
    /// An account as most tests use it.
    pub fn new(user: &str) -> Account {
        Account {
            user: user.into(),
            password: format!("{user}-password"),
        }
    }
}

/// Which SASL mechanism to use.
#[derive(Clone, Debug, Default)]
pub enum Sasl {
    /// The strongest SCRAM offered without channel binding, PLAIN if there is no SCRAM.
    #[default]
    Best,
    /// This mechanism, with its channel binding if it is a -PLUS one.
    Mechanism(String),
}

enum Io {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
    Gone,
}

/// One connection to a server.
pub struct Client {
    io: Io,
    /// Of a WebSocket.
    frames: Option<Frames>,
    endpoint: Endpoint,
    reader: StreamReader,
    unread: VecDeque<Item>,
    /// How long each wait may take.
    pub patience: Duration,
    /// Full JID once bound.
    pub jid: String,
    /// Features last announced.
    pub features: Xml,
    /// Header last received.
    pub header: Xml,
    closed: bool,
    /// Stanzas received since stream management was enabled here.
    pub handled: u32,
    counting: bool,
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum NoItem {
    /// The deadline passed.
    #[error("nothing came within {0:?}")]
    Timeout(Duration),
    /// The server closed the connection.
    #[error("the server closed the connection: {0}")]
    Closed(String),
    /// What came was not XML.
    #[error("{0:#}")]
    BadXml(anyhow::Error),
}

impl Client {
    /// Connects TCP, and TLS if that comes first. Sends no stream header.
    pub fn dial(endpoint: &Endpoint) -> Result<Client> {
        let target = match endpoint.transport {
            Transport::Plain | Transport::StartTls => endpoint.starttls,
            Transport::DirectTls => endpoint.direct,
            Transport::WebSocket => endpoint.ws,
            Transport::WebSocketTls => endpoint.wss,
            Transport::Component => endpoint.component,
        };
        let tcp =
            connect(target, endpoint.from).with_context(|| format!("connecting to {target}"))?;
        tcp.set_nodelay(true)?;
        let patience = crate::wait::PATIENCE;
        tcp.set_read_timeout(Some(patience))?;
        tcp.set_write_timeout(Some(patience))?;
        let mut client = Client {
            io: Io::Plain(tcp),
            frames: None,
            endpoint: endpoint.clone(),
            reader: StreamReader::new(),
            unread: VecDeque::new(),
            patience,
            jid: String::new(),
            features: Xml::default(),
            header: Xml::default(),
            closed: false,
            handled: 0,
            counting: false,
        };
        if endpoint.transport.is_direct_tls() {
            client.start_tls().context("direct TLS")?;
        }
        if endpoint.transport.is_websocket() {
            match &mut client.io {
                Io::Plain(tcp) => websocket::upgrade(tcp, &endpoint.domain)?,
                Io::Tls(tls) => websocket::upgrade(tls, &endpoint.domain)?,
                Io::Gone => bail!("the connection is gone"),
            }
            client.frames = Some(Frames::default());
        }
        Ok(client)
    }

    /// Connects up to the point where SASL, or a component's handshake, may begin.
    pub fn open(endpoint: &Endpoint) -> Result<Client> {
        let mut client = Client::dial(endpoint)?;
        if endpoint.transport == Transport::Component {
            client.send_header()?;
            client.expect_header()?;
            return Ok(client);
        }
        client.open_stream()?;
        if endpoint.transport == Transport::StartTls {
            ensure!(
                client.features.child("starttls").is_some(),
                "STARTTLS is not offered"
            );
            client.send(&format!("<starttls xmlns='{NS_TLS}'/>"))?;
            let proceed = client.element()?;
            ensure!(proceed.is(NS_TLS, "proceed"), "no <proceed/>: {proceed}");
            client.start_tls().context("STARTTLS")?;
            client.open_stream()?;
        }
        Ok(client)
    }

    /// Logs in with the best mechanism and binds `resource` (the server's choice if `None`).
    pub fn login(endpoint: &Endpoint, account: &Account, resource: Option<&str>) -> Result<Client> {
        Client::login_with(endpoint, account, resource, &Sasl::Best)
    }

    /// Logs in with a chosen mechanism.
    pub fn login_with(
        endpoint: &Endpoint,
        account: &Account,
        resource: Option<&str>,
        sasl: &Sasl,
    ) -> Result<Client> {
        let mut client = Client::open(endpoint)?;
        client
            .authenticate(account, sasl)
            .with_context(|| format!("{} by {sasl:?}", account.user))?;
        client.bind(resource)?;
        Ok(client)
    }

    /// SASL, and the new stream after it.
    pub fn authenticate(&mut self, account: &Account, sasl: &Sasl) -> Result<()> {
        let outcome = self.sasl(account, sasl)?;
        ensure!(outcome.is(NS_SASL, "success"), "not logged in: {outcome}");
        self.open_stream()
    }

    /// A component proves that it knows the secret (XEP-0114 §3).
    pub fn shake_hands(&mut self, secret: &str) -> Result<()> {
        let id = self.header.attr("id").context("no id in the header")?;
        let hash = Hash::Sha1.hash(format!("{id}{secret}").as_bytes());
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.send(&format!("<handshake>{digits}</handshake>"))?;
        let answer = self.element()?;
        ensure!(
            answer.is(NS_COMPONENT, "handshake"),
            "not taken for the component: {answer}"
        );
        self.jid = self.endpoint.domain.clone();
        Ok(())
    }

    /// Binds a resource (RFC 6120 §7); sends the old session request if it is announced as mandatory.
    pub fn bind(&mut self, resource: Option<&str>) -> Result<()> {
        let wish = resource.map_or(String::new(), |r| {
            format!("<resource>{}</resource>", escape(r))
        });
        self.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='{NS_BIND}'>{wish}</bind></iq>"
        ))?;
        let bound = self.element()?;
        ensure!(bound.attr("type") == Some("result"), "not bound: {bound}");
        let jid = bound
            .child("bind")
            .and_then(|b| b.child("jid"))
            .context("no JID bound")?;
        self.jid = jid.text();
        Ok(())
    }

    /// Mechanisms offered, in the server's order.
    pub fn mechanisms(&self) -> Vec<String> {
        self.features
            .child("mechanisms")
            .map(|m| {
                m.elements()
                    .filter(|e| e.name == "mechanism")
                    .map(Xml::text)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// One SASL exchange; the last element is returned, be it success or failure.
    pub fn sasl(&mut self, account: &Account, sasl: &Sasl) -> Result<Xml> {
        let offered = self.mechanisms();
        let mechanism = match sasl {
            Sasl::Mechanism(name) => name.clone(),
            Sasl::Best => ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
                .iter()
                .find(|m| offered.iter().any(|o| o == *m))
                .with_context(|| format!("no mechanism we know: {offered:?}"))?
                .to_string(),
        };
        let auth = |payload: &[u8]| {
            format!(
                "<auth xmlns='{NS_SASL}' mechanism='{mechanism}'>{}</auth>",
                BASE64.encode(payload)
            )
        };
        if mechanism == "PLAIN" {
            self.send(&auth(
                format!("\0{}\0{}", account.user, account.password).as_bytes(),
            ))?;
            return self.element();
        }
        let hash =
            Hash::of_mechanism(&mechanism).with_context(|| format!("{mechanism} is not SCRAM"))?;
        let binding = if mechanism.ends_with("-PLUS") {
            self.channel_binding()?
        } else {
            Binding::No
        };
        let mut exchange = Exchange::new(hash, &account.user, None, binding);
        self.send(&auth(exchange.first().as_bytes()))?;
        let challenge = self.element()?;
        if !challenge.is(NS_SASL, "challenge") {
            return Ok(challenge);
        }
        let server_first = String::from_utf8(BASE64.decode(challenge.text())?)?;
        let last = exchange.last(&server_first, &account.password)?;
        self.send(&format!(
            "<response xmlns='{NS_SASL}'>{}</response>",
            BASE64.encode(last)
        ))?;
        let outcome = self.element()?;
        if outcome.name == "success" {
            exchange.verify(&String::from_utf8(BASE64.decode(outcome.text())?)?)?;
        }
        Ok(outcome)
    }

    /// `tls-exporter` on TLS 1.3, `tls-server-end-point` on TLS 1.2.
    pub fn channel_binding(&self) -> Result<Binding> {
        let Io::Tls(tls) = &self.io else {
            bail!("no TLS, so no channel to bind to")
        };
        if tls.conn.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3) {
            let mut out = vec![0; 32];
            tls.conn
                .export_keying_material(&mut out, b"EXPORTER-Channel-Binding", Some(b""))?;
            return Ok(Binding::Data("tls-exporter", out));
        }
        let chain = tls.conn.peer_certificates().context("no certificate")?;
        // All certificates made here are signed with SHA-256 (RFC 5929 §4.1).
        Ok(Binding::Data(
            "tls-server-end-point",
            Hash::Sha256.hash(&chain[0]),
        ))
    }

    /// Sends a stream header and takes the answer and the features.
    pub fn open_stream(&mut self) -> Result<()> {
        self.send_header()?;
        self.expect_header()?;
        let features = self.element()?;
        ensure!(
            features.is(NS_STREAM, "features"),
            "no features: {features}"
        );
        self.features = features;
        Ok(())
    }

    /// Sends the usual stream header, and expects a new stream from the server.
    pub fn send_header(&mut self) -> Result<()> {
        self.new_stream();
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xml:lang='en' xmlns='{}' xmlns:stream='{NS_STREAM}'>",
            escape(&self.endpoint.domain),
            self.endpoint.transport.content_ns(),
        ))
    }

    /// Expects a new stream from the server; what was read of the old one is forgotten.
    pub fn new_stream(&mut self) {
        self.reader = StreamReader::new();
    }

    /// Takes the server's stream header.
    pub fn expect_header(&mut self) -> Result<()> {
        match self.next_item(self.patience)? {
            Item::Header(header) => {
                ensure!(header.is(NS_STREAM, "stream"), "not a stream: {header}");
                self.header = header;
                Ok(())
            }
            other => bail!("no stream header but {other:?}"),
        }
    }

    /// Switches to TLS as a client.
    pub fn start_tls(&mut self) -> Result<()> {
        let Io::Plain(tcp) = std::mem::replace(&mut self.io, Io::Gone) else {
            bail!("no plain TCP")
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = match self.endpoint.tls {
            Some(version) => vec![version],
            None => vec![&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
        let mut config = match &self.endpoint.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(
                CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?,
                PrivateKeyDer::from_pem_file(key)?,
            )?,
        };
        match self.endpoint.transport {
            Transport::DirectTls => config.alpn_protocols = vec![b"xmpp-client".to_vec()],
            // As browsers have it.
            Transport::WebSocketTls => {
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()]
            }
            _ => {}
        }
        let name = ServerName::try_from(self.endpoint.domain.clone())?;
        let connection = rustls::ClientConnection::new(Arc::new(config), name)?;
        let mut tls = rustls::StreamOwned::new(connection, tcp);
        while tls.conn.is_handshaking() {
            tls.conn
                .complete_io(&mut tls.sock)
                .context("TLS handshake")?;
        }
        self.io = Io::Tls(Box::new(tls));
        Ok(())
    }

    /// The server's certificate as PEM, for clients that want to be told whom to trust.
    pub fn certificate_pem(&self) -> Result<String> {
        let Io::Tls(tls) = &self.io else {
            bail!("no TLS, so no certificate")
        };
        let chain = tls.conn.peer_certificates().context("no certificate")?;
        let text = BASE64.encode(&chain[0]);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|l| std::str::from_utf8(l).expect("base64 is ASCII"))
            .collect();
        Ok(format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        ))
    }

    /// ALPN protocol agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        match &self.io {
            Io::Tls(tls) => tls.conn.alpn_protocol().map(<[u8]>::to_vec),
            _ => None,
        }
    }

    /// Sends text as it is; over WebSocket as messages, see [`websocket::messages`].
    pub fn send(&mut self, text: &str) -> Result<()> {
        if self.frames.is_none() {
            return self.write(text.as_bytes());
        }
        let messages = websocket::messages(text);
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| websocket::frame(0x81, message.as_bytes()))
            .collect();
        self.write(&frames)
    }

    /// Sends bytes as they are; over WebSocket as one message.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match self.frames {
            None => self.write(bytes),
            Some(_) => self.write(&websocket::frame(0x81, bytes)),
        }
    }

    /// Sends one element a byte at a time; over WebSocket, which has frames to cut, so that each byte of the text is a fragment,
    /// if `fragments` is true.
    pub fn send_slowly(&mut self, element: &str, fragments: bool) -> Result<()> {
        let message = match self.frames {
            None => element.to_owned(),
            Some(_) => websocket::messages(element).concat(),
        };
        let wire = match (&self.frames, fragments) {
            (None, _) => message.into_bytes(),
            (Some(_), false) => websocket::frame(0x81, message.as_bytes()),
            // The last one is empty.
            (Some(_), true) => {
                let bytes = message.bytes().enumerate();
                let pieces = bytes.map(|(n, byte)| websocket::frame(u8::from(n == 0), &[byte]));
                let end = websocket::frame(0x80, b"");
                pieces.chain([end]).flatten().collect()
            }
        };
        wire.iter().try_for_each(|&byte| self.write(&[byte]))
    }

    /// The status of the server's Close frame, if it is a WebSocket and that came.
    pub fn close_status(&self) -> Option<u16> {
        self.frames.as_ref()?.close_status
    }

    /// Bytes onto the connection, below any framing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.io {
            Io::Plain(tcp) => tcp.write_all(bytes)?,
            Io::Tls(tls) => {
                tls.write_all(bytes)?;
                tls.flush()?;
            }
            Io::Gone => bail!("the connection is gone"),
        }
        Ok(())
    }

    /// The next item of the stream, within `patience`.
    pub fn next_item(&mut self, patience: Duration) -> Result<Item, NoItem> {
        if let Some(item) = self.unread.pop_front() {
            return Ok(item);
        }
        let deadline = Instant::now() + patience;
        loop {
            let polled = match &mut self.frames {
                None => self.reader.poll(),
                Some(frames) => {
                    let polled = frames.poll();
                    let replies = std::mem::take(&mut frames.replies);
                    if !replies.is_empty() {
                        // The server may have closed already; then reading says so.
                        let _ = self.write(&replies);
                    }
                    polled
                }
            };
            match polled {
                Ok(Some(item)) => {
                    self.count(&item);
                    return Ok(item);
                }
                Ok(None) => {}
                Err(error) => return Err(NoItem::BadXml(error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoItem::Timeout(patience));
            }
            self.read_some(left, patience)?;
        }
    }

    fn read_some(&mut self, left: Duration, patience: Duration) -> Result<(), NoItem> {
        if self.closed {
            return Err(NoItem::Closed("before".into()));
        }
        let mut buffer = [0; 16384];
        let left = left.max(Duration::from_millis(1));
        let read = match &mut self.io {
            Io::Plain(tcp) => {
                tcp.set_read_timeout(Some(left))
                    .expect("a live socket takes a timeout");
                tcp.read(&mut buffer)
            }
            Io::Tls(tls) => {
                tls.sock
                    .set_read_timeout(Some(left))
                    .expect("a live socket takes a timeout");
                tls.read(&mut buffer)
            }
            Io::Gone => return Err(NoItem::Closed("dropped by this client".into())),
        };
        match read {
            Ok(0) => {
                self.closed = true;
                Err(NoItem::Closed("end of file".into()))
            }
            Ok(n) => {
                match &mut self.frames {
                    None => self.reader.push(&buffer[..n]),
                    Some(frames) => frames.push(&buffer[..n]),
                }
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(NoItem::Timeout(patience))
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => {
                self.closed = true;
                Err(NoItem::Closed(e.to_string()))
            }
        }
    }

    fn count(&mut self, item: &Item) {
        let Item::Element(element) = item else { return };
        if element.is(NS_SM, "enabled") {
            self.counting = true;
            self.handled = 0;
        } else if element.is(NS_SM, "resumed") {
            self.counting = true;
        } else if self.counting && element.ns == crate::xml::NS_CLIENT {
            self.handled = self.handled.wrapping_add(1);
        }
    }

    /// Puts an item back, to be read next.
    pub fn unread(&mut self, item: Item) {
        self.unread.push_front(item);
    }

    /// The next element; requests for stream management counts are answered on the way.
    pub fn element(&mut self) -> Result<Xml> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .next_item(left)
                .map_err(|e| anyhow!("{}: {e}", self.jid))?
            {
                Item::Element(e) if e.is(NS_SM, "r") => self.acknowledge()?,
                Item::Element(e) => return Ok(e),
                other => bail!("{}: expected an element, got {other:?}", self.jid),
            }
        }
    }

    /// Tells the server how much was received (XEP-0198 §4).
    pub fn acknowledge(&mut self) -> Result<()> {
        self.send(&format!("<a xmlns='{NS_SM}' h='{}'/>", self.handled))
    }

    /// Reads on until an element satisfies `wanted`; what came before it is lost.
    pub fn element_where(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Xml) -> bool,
    ) -> Result<Xml> {
        let deadline = Instant::now() + self.patience;
        let mut others = Vec::new();
        while Instant::now() < deadline {
            match self.element() {
                Ok(e) if wanted(&e) => return Ok(e),
                Ok(e) => others.push(e.to_string()),
                Err(e) => bail!("waiting for {what}: {e}; before it came {others:#?}"),
            }
        }
        bail!("{what} did not come; instead {others:#?}")
    }

    /// Sends an IQ and waits for its answer; other stanzas that come before it are kept.
    pub fn request(
        &mut self,
        kind: &str,
        id: &str,
        to: Option<&str>,
        payload: &str,
    ) -> Result<Xml> {
        let to = to.map_or(String::new(), |to| format!(" to='{}'", escape(to)));
        self.send(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>"))?;
        let mut kept = Vec::new();
        let answer = loop {
            let e = self
                .element()
                .with_context(|| format!("waiting for the answer to {id}"))?;
            if e.name == "iq"
                && e.attr("id") == Some(id)
                && matches!(e.attr("type"), Some("result" | "error"))
            {
                break e;
            }
            kept.push(e);
        };
        for e in kept.into_iter().rev() {
            self.unread(Item::Element(e));
        }
        Ok(answer)
    }

    /// Asks the server for a ping: everything sent before has been handled when this returns.
    pub fn ping(&mut self) -> Result<()> {
        let answer = self.request("get", "sync", None, "<ping xmlns='urn:xmpp:ping'/>")?;
        ensure!(answer.attr("type").is_some(), "no answer to ping: {answer}");
        Ok(())
    }

    /// Sends initial presence and waits until it comes back.
    pub fn available(&mut self) -> Result<()> {
        self.send("<presence/>")?;
        let own = self.jid.clone();
        self.element_where("own presence", |e| {
            e.name == "presence" && e.attr("from") == Some(&own)
        })?;
        Ok(())
    }

    /// Sends a chat message.
    pub fn chat(&mut self, to: &str, body: &str) -> Result<()> {
        self.send(&format!(
            "<message type='chat' to='{}'><body>{}</body></message>",
            escape(to),
            escape(body)
        ))
    }

    /// A message without a type whose body goes out as it is: its length is what the caller says.
    pub fn chat_raw(&mut self, to: &str, body: &str) -> Result<()> {
        self.send(&format!("<message to='{to}'><body>{body}</body></message>"))
    }

    /// Reads on to the next message with a body and returns that.
    pub fn next_body(&mut self) -> Result<String> {
        let message =
            self.element_where("a message", |e| e.name == "message" && e.body().is_some())?;
        Ok(message.body().expect("just seen"))
    }

    /// Reads to the end of the connection; returns the stream error's condition if there was one.
    pub fn until_closed(&mut self) -> Result<Option<String>> {
        let mut condition = None;
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_item(left) {
                Ok(Item::Element(e)) if e.is(NS_STREAM, "error") => {
                    condition = stream_condition(&e)
                }
                Ok(_) => {}
                Err(NoItem::Closed(_)) => return Ok(condition),
                Err(e @ NoItem::Timeout(_)) => {
                    bail!("the connection stays open ({e}); stream error so far: {condition:?}")
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Ends the stream politely and waits for the server to do the same.
    pub fn close(mut self) -> Result<()> {
        self.send("</stream:stream>")?;
        self.until_closed().map(drop)
    }

    /// Ends the connection without a word (FIN, no closing tag).
    pub fn drop_connection(&mut self) {
        self.io = Io::Gone;
        self.closed = true;
    }

    /// Whether the server still holds the connection, as far as can be seen without waiting.
    pub fn is_open(&mut self) -> bool {
        match self.next_item(Duration::from_millis(1)) {
            Ok(item) => {
                self.unread.push_back(item);
                true
            }
            Err(NoItem::Timeout(_)) => true,
            Err(_) => false,
        }
    }
}

/// The defined condition of a stream error.
pub fn stream_condition(error: &Xml) -> Option<String> {
    error
        .elements()
        .find(|e| e.ns == NS_STREAM_ERRORS && e.name != "text")
        .map(|e| e.name.clone())
}

fn connect(target: SocketAddr, from: Option<Ipv4Addr>) -> Result<TcpStream> {
    let Some(from) = from else {
        return Ok(TcpStream::connect(target)?);
    };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

/// Takes every certificate, but checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
