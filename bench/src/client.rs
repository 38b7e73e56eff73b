//! One client connection of the load generator: socket, TLS, and the way to a bound session.
//!
//! In: bytes of the socket. Out: bytes to it; in the end the input of a bound session.
//! Owns: its socket and buffers. Never: parses XML. It looks for the few texts it waits for, because the generator
//! must cost less than the servers it measures.

use anyhow::{Context as _, bail};
use memchr::memmem;
use mio::net::TcpStream;
use rustls::ClientConnection;
use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use xmpp::sasl::token::initiator_message;
use xmpp::scram::client::{ClientBinding, ScramClient, salted_password};
use xmpp::scram::{Digest, ScramHash};

/// The password of every account.
pub const PASSWORD: &str = "bench-password";
/// The resource every session binds.
pub const RESOURCE: &str = "b";
/// Input kept while waiting for one answer after log-in; presence of many contacts may come before it.
const SKIP_BYTES: usize = 64 * 1024;

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const SASL2: &str = "urn:xmpp:sasl:2";

/// How bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Transport {
    /// TCP, nothing else.
    Plain,
    /// TCP, then STARTTLS.
    Starttls,
    /// TLS from the first byte.
    Tls,
}

/// How a client logs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-1.
    ScramSha1,
    /// SCRAM-SHA-256.
    ScramSha256,
}

impl Mechanism {
    fn hash(self) -> Option<ScramHash> {
        match self {
            Mechanism::Plain => None,
            Mechanism::ScramSha1 => Some(ScramHash::Sha1),
            Mechanism::ScramSha256 => Some(ScramHash::Sha256),
        }
    }
}

/// In which way a client comes to its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Way {
    /// RFC 6120: SASL, then binding.
    #[default]
    Rfc6120,
    /// SASL 2 with Bind 2 (XEP-0388, XEP-0386).
    Sasl2,
    /// The same with a token (XEP-0484), which it has from its first log-in.
    Fast,
    /// SASL, then its stream is resumed (XEP-0198); its first time it binds.
    Resume,
    /// With a token, and its stream is resumed in the same go.
    FastResume,
}

impl Way {
    /// Its stream is to be resumed: it is not ended, but dropped.
    pub fn resumes(self) -> bool {
        matches!(self, Way::Resume | Way::FastResume)
    }

    fn by_token(self) -> bool {
        matches!(self, Way::Fast | Way::FastResume)
    }

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Way::Rfc6120 => "SASL and bind",
            Way::Sasl2 => "SASL 2 and Bind 2",
            Way::Fast => "FAST and Bind 2",
            Way::Resume => "SASL and resumption",
            Way::FastResume => "FAST and resumption",
        }
    }
}

/// What clients do between binding and being ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entrance {
    /// Nothing: ready once bound.
    Bind,
    /// Presence, then a ping, whose answer says that the presence has been handled.
    Presence,
    /// The roster first.
    RosterAndPresence,
}

/// Where and how to log in; shared by all connections of a run.
#[derive(Clone)]
pub struct Target {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Domain of the accounts.
    pub domain: String,
    /// How bytes travel.
    pub transport: Transport,
    /// How to log in.
    pub mechanism: Mechanism,
    /// In which way.
    pub way: Way,
    /// What comes after binding.
    pub entrance: Entrance,
    /// Client side TLS, checking nothing.
    pub tls: Arc<rustls::ClientConfig>,
}

/// What clients remember from log-in to log-in.
#[derive(Default)]
pub struct Memory {
    /// Salted passwords by (hash, salt, iterations): accounts share them, so that PBKDF2 runs once and not per log-in.
    salted: HashMap<(ScramHash, Vec<u8>, u32), Digest>,
    /// Tokens, by account.
    tokens: HashMap<usize, String>,
    /// Ids of streams that can be resumed, by account.
    streams: HashMap<usize, String>,
    /// Log-ins by token, and streams resumed.
    pub shortened: usize,
}

impl Memory {
    fn salted(&mut self, hash: ScramHash, salt: &[u8], iterations: u32) -> Digest {
        *self
            .salted
            .entry((hash, salt.to_vec(), iterations))
            .or_insert_with(|| salted_password(hash, PASSWORD, salt, iterations))
    }

    /// How many times PBKDF2 ran.
    pub fn derivations(&self) -> usize {
        self.salted.len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    FeaturesBeforeTls,
    Proceed,
    FeaturesBeforeLogin,
    Challenge,
    Success,
    FeaturesAfterLogin,
    Bound,
    /// SASL 2: success, and the features behind it.
    SuccessWithAll,
    Resumed,
    Enabled,
    Pinged,
    Ready,
}

/// One connection.
pub struct Conn {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    state: State,
    /// Number of the account.
    pub user: usize,
    /// Input not yet looked at.
    pub input: Vec<u8>,
    /// Output not yet taken by TLS or the socket.
    pub output: Vec<u8>,
    scram: Option<Box<ScramClient>>,
}

/// The localpart of an account.
pub fn localpart(user: usize) -> String {
    format!("u{user}")
}

impl Conn {
    /// Starts to connect.
    pub fn connect(target: &Target, user: usize) -> io::Result<Conn> {
        let stream = TcpStream::connect(target.address)?;
        Ok(Conn {
            stream,
            tls: None,
            state: State::Connecting,
            user,
            input: Vec::new(),
            output: Vec::new(),
            scram: None,
        })
    }

    /// For registration with a poll.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Logged in, bound, and through its entrance.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Where it stands, for error messages.
    pub fn state_name(&self) -> String {
        format!("{:?}", self.state)
    }

    /// The socket can be written to: the first time, it is connected.
    pub fn handle_writable(&mut self, target: &Target) -> anyhow::Result<()> {
        if self.state == State::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(error).context("connect");
            }
            if let Err(error) = self.stream.peer_addr() {
                if error.kind() == io::ErrorKind::NotConnected {
                    return Ok(());
                }
                return Err(error).context("connect");
            }
            self.stream.set_nodelay(true)?;
            if target.transport == Transport::Tls {
                self.start_tls(target)?;
            }
            self.header(target);
            self.state = if target.transport == Transport::Starttls {
                State::FeaturesBeforeTls
            } else {
                State::FeaturesBeforeLogin
            };
        }
        self.flush()
    }

    fn start_tls(&mut self, target: &Target) -> anyhow::Result<()> {
        let name =
            rustls_pki_types::ServerName::try_from(target.domain.clone()).context("domain")?;
        let mut tls = ClientConnection::new(target.tls.clone(), name)?;
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    fn header(&mut self, target: &Target) {
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{}' version='1.0'>",
            target.domain
        );
        self.output.extend_from_slice(header.as_bytes());
    }

    /// Reads all there is into `input`. False: the other side has closed.
    pub fn handle_readable(&mut self, buffer: &mut [u8]) -> anyhow::Result<bool> {
        loop {
            if let Some(tls) = &mut self.tls {
                match tls.read_tls(&mut self.stream) {
                    Ok(0) => return Ok(false),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e).context("read"),
                }
                let facts = tls.process_new_packets().context("TLS")?;
                if facts.plaintext_bytes_to_read() > 0 {
                    let mut reader = tls.reader();
                    while let Ok(n) = reader.read(buffer) {
                        if n == 0 {
                            break;
                        }
                        self.input.extend_from_slice(&buffer[..n]);
                    }
                }
                if facts.peer_has_closed() {
                    return Ok(false);
                }
            } else {
                match self.stream.read(buffer) {
                    Ok(0) => return Ok(false),
                    Ok(n) => {
                        self.input.extend_from_slice(&buffer[..n]);
                        // A short read of a stream socket means that it is empty: epoll(7), question 9.
                        if n < buffer.len() {
                            return Ok(true);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e).context("read"),
                }
            }
        }
    }

    /// Hands output to the socket, as much as it takes.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(tls) = &mut self.tls {
            if !self.output.is_empty() {
                tls.writer().write_all(&self.output)?;
                self.output.clear();
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(e).context("write"),
                }
            }
            return Ok(());
        }
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.write(&self.output[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("write"),
            }
        }
        self.output.drain(..written);
        Ok(())
    }

    /// Takes input up to and with the first of `ends`.
    fn take_until(&mut self, ends: &[&[u8]]) -> Option<Vec<u8>> {
        let end = ends
            .iter()
            .filter_map(|e| memmem::find(&self.input, e).map(|at| at + e.len()))
            .min()?;
        let taken = self.input[..end].to_vec();
        self.input.drain(..end);
        Some(taken)
    }

    /// Goes on with the way to a session, as far as the input leads.
    pub fn handle_login(&mut self, target: &Target, memory: &mut Memory) -> anyhow::Result<()> {
        loop {
            let before = self.state;
            self.step(target, memory)?;
            if self.state == before || self.state == State::Ready {
                break;
            }
        }
        if !self.is_ready() {
            for bad in [
                b"<stream:error".as_slice(),
                b"<failure",
                b"</stream:stream>",
            ] {
                if memmem::find(&self.input, bad).is_some() {
                    bail!("{:?}: {}", self.state, String::from_utf8_lossy(&self.input));
                }
            }
        }
        self.flush()
    }

    fn step(&mut self, target: &Target, memory: &mut Memory) -> anyhow::Result<()> {
        match self.state {
            State::Connecting | State::Ready => {}
            State::FeaturesBeforeTls => {
                if self.take_until(&[b"</stream:features>"]).is_some() {
                    self.output
                        .extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                    self.state = State::Proceed;
                }
            }
            State::Proceed => {
                if memmem::find(&self.input, b"<proceed").is_some()
                    && self.take_until(&[b"/>", b"</proceed>"]).is_some()
                {
                    self.flush()?;
                    self.start_tls(target)?;
                    self.header(target);
                    self.state = State::FeaturesBeforeLogin;
                }
            }
            State::FeaturesBeforeLogin => {
                if self.take_until(&[b"</stream:features>"]).is_some() {
                    self.auth(target, memory);
                }
            }
            State::Challenge => {
                if let Some(challenge) = self.take_until(&[b"</challenge>"]) {
                    let challenge = String::from_utf8(base64_decode(inner(&challenge))?)?;
                    let hash = target.mechanism.hash().context("a challenge to PLAIN")?;
                    let scram = self
                        .scram
                        .as_mut()
                        .context("a challenge without an exchange")?;
                    let last = scram.handle_challenge_salted(&challenge, |salt, iterations| {
                        Ok(memory.salted(hash, salt, iterations))
                    })?;
                    let (ns, next) = match target.way {
                        Way::Rfc6120 | Way::Resume => (SASL, State::Success),
                        _ => (SASL2, State::SuccessWithAll),
                    };
                    let response = base64_encode(last.as_bytes());
                    let response = format!("<response xmlns='{ns}'>{response}</response>");
                    self.output.extend_from_slice(response.as_bytes());
                    self.state = next;
                }
            }
            State::Success => {
                if memmem::find(&self.input, b"<success").is_some()
                    && self.take_until(&[b"</success>", b"/>"]).is_some()
                {
                    self.scram = None;
                    self.header(target);
                    self.state = State::FeaturesAfterLogin;
                }
            }
            State::FeaturesAfterLogin => {
                if self.take_until(&[b"</stream:features>"]).is_some() {
                    match memory.streams.get(&self.user) {
                        Some(id) if target.way == Way::Resume => {
                            let resume = resume(id);
                            self.output.extend_from_slice(resume.as_bytes());
                            self.state = State::Resumed;
                        }
                        _ => self.bind(),
                    }
                }
            }
            State::Resumed => {
                if let Some(answer) = self.take_until(&[b"/>", b"</failed>"]) {
                    if memmem::find(&answer, b"<resumed").is_some() {
                        memory.shortened += 1;
                        self.enter(target);
                    } else {
                        self.bind();
                    }
                }
            }
            State::Enabled => {
                if let Some(answer) = self.take_until(&[b"/>"]) {
                    let id = attribute(&answer, b" id=").context("it cannot be resumed")?;
                    memory.streams.insert(self.user, id);
                    self.enter(target);
                }
            }
            State::SuccessWithAll => {
                if memmem::find(&self.input, b"</success>").is_some()
                    && let Some(success) = self.take_until(&[b"</stream:features>"])
                {
                    self.scram = None;
                    if let Some(token) = attribute(&success, b" token=") {
                        memory.tokens.insert(self.user, token);
                    } else if target.way.by_token() {
                        memory.shortened += 1;
                    }
                    if let Some(at) = memmem::find(&success, b"<enabled") {
                        let id = attribute(&success[at..], b" id=").context("no id")?;
                        memory.streams.insert(self.user, id);
                    } else if target.way.resumes() && memmem::find(&success, b"<resumed").is_none()
                    {
                        bail!(
                            "neither resumed nor bound: {}",
                            String::from_utf8_lossy(&success)
                        );
                    }
                    self.enter(target);
                }
            }
            State::Bound => {
                if let Some(result) = self.take_until(&[b"</iq>"]) {
                    if memmem::find(&result, b"<jid>").is_none() {
                        bail!("bind: {}", String::from_utf8_lossy(&result));
                    }
                    if target.way == Way::Resume {
                        let enable = b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
                        self.output.extend_from_slice(enable);
                        self.state = State::Enabled;
                    } else {
                        self.enter(target);
                    }
                }
            }
            State::Pinged => {
                if let Some(at) = memmem::find(&self.input, b"bench-ping") {
                    let rest = &self.input[at..];
                    let end = [b"</iq>".as_slice(), b"/>"]
                        .iter()
                        .filter_map(|e| memmem::find(rest, e).map(|n| at + n + e.len()))
                        .min();
                    if let Some(end) = end {
                        self.input.drain(..end);
                        self.input.shrink_to(0);
                        self.state = State::Ready;
                    }
                } else if self.input.len() > SKIP_BYTES {
                    let cut = self.input.len() - 256;
                    self.input.drain(..cut);
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self) {
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{RESOURCE}</resource></bind></iq>"
        );
        self.output.extend_from_slice(bind.as_bytes());
        self.state = State::Bound;
    }

    fn auth(&mut self, target: &Target, memory: &Memory) {
        let user = localpart(self.user);
        let token = memory.tokens.get(&self.user);
        let (mechanism, initial) = match (token, target.mechanism.hash()) {
            (Some(token), _) if target.way.by_token() => {
                self.state = State::Success;
                ("HT-SHA-256-NONE", initiator_message(&user, token, &[]))
            }
            (_, None) => {
                self.state = State::Success;
                ("PLAIN", format!("\0{user}\0{PASSWORD}").into_bytes())
            }
            (_, Some(hash)) => {
                let mut random = [0; 18];
                getrandom::fill(&mut random).expect("the system has a random source");
                let scram = ScramClient::new(
                    hash,
                    &user,
                    PASSWORD,
                    None,
                    ClientBinding::Unsupported,
                    &base64_encode(&random),
                );
                let first = scram.first_message().into_bytes();
                self.scram = Some(Box::new(scram));
                self.state = State::Challenge;
                (hash.mechanism(), first)
            }
        };
        let initial = base64_encode(&initial);
        let auth = match target.way {
            Way::Rfc6120 | Way::Resume => {
                format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{initial}</auth>")
            }
            way => {
                if self.state == State::Success {
                    self.state = State::SuccessWithAll;
                }
                let fast = match (way.by_token(), token) {
                    (true, Some(_)) => "<fast xmlns='urn:xmpp:fast:0'/>",
                    (true, None) => {
                        "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
                    }
                    (false, _) => "",
                };
                let stream = memory.streams.get(&self.user).filter(|_| way.resumes());
                let resume = stream.map(|id| resume(id)).unwrap_or_default();
                let enable = match way.resumes() {
                    true => "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
                    false => "",
                };
                format!(
                    "<authenticate xmlns='{SASL2}' mechanism='{mechanism}'><initial-response>{initial}</initial-response>\
                     <user-agent id='{user}'/>{fast}{resume}<bind xmlns='urn:xmpp:bind:0'>{enable}</bind></authenticate>"
                )
            }
        };
        self.output.extend_from_slice(auth.as_bytes());
    }

    fn enter(&mut self, target: &Target) {
        if target.entrance == Entrance::Bind {
            self.state = State::Ready;
            return;
        }
        if target.entrance == Entrance::RosterAndPresence {
            self.output.extend_from_slice(
                b"<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>",
            );
        }
        let rest = format!(
            "<presence/><iq type='get' id='bench-ping' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>",
            target.domain
        );
        self.output.extend_from_slice(rest.as_bytes());
        self.state = State::Pinged;
    }
}

/// No stanzas have come before: sessions of these runs do nothing.
fn resume(id: &str) -> String {
    format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")
}

/// The value of the first attribute of that name, which ends in `=`.
fn attribute(bytes: &[u8], name: &[u8]) -> Option<String> {
    let at = memmem::find(bytes, name)? + name.len();
    let quote = *bytes.get(at)?;
    let value = &bytes[at + 1..];
    let end = memchr::memchr(quote, value)?;
    String::from_utf8(value[..end].to_vec()).ok()
}

/// Text of one element without children.
fn inner(element: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b'<', element).unwrap_or(element.len());
    let start = memchr::memrchr(b'>', &element[..end]).map_or(0, |at| at + 1);
    &element[start..end]
}

fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn base64_decode(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .context("base64")
}
