//! The vocabulary of the link: every frame, with its fields and their units.
//!
//! Counters are *absolute per connection* (a total since the connection was opened), never
//! differences: a frame that is sent twice says the same thing twice.

use bytes::Bytes;
use std::net::SocketAddr;

/// A connection held by a mux. Never reused within one boot of that mux.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ConnId(pub u64);

/// Names one run of one process: 16 bytes of the OS generator, made at start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BootId(pub [u8; 16]);

/// Names the store a server serves. A restored backup gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StoreId(pub [u8; 16]);

/// The secret that names a session to a restarted server (frame Note). `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NoteKey(pub [u8; 16]);

impl std::fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoteKey(..)")
    }
}

/// The position of a stored stanza in the server's store, as the mux remembers it: 8 opaque bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct StoredId(pub u64);

/// What the dialling end says it is. What it *may* be is decided by its certificate, never by this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// A multiplexor.
    Mux,
    /// Another core server.
    Peer,
    /// A service attached by link (later work).
    Service,
    /// An administrator's tool.
    Admin,
}

/// First frame of the dialling end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// `PROTOCOL_VERSION` of the sender.
    pub version: u16,
    /// What the sender says it is.
    pub role: Role,
    /// The sender's configured name, for logs and `mux list`.
    pub name: String,
    /// Largest frame (bytes after the length field) the sender takes.
    pub frame_bytes_max: u32,
    /// This run of the sender.
    pub boot: BootId,
    /// The store the sender's connections belong to, if it has any from an earlier link.
    pub store: Option<StoreId>,
    /// The boot of the other end the sender last spoke with, and how many numbered frames of it the
    /// sender has taken.
    pub taken: Option<(BootId, u64)>,
}

/// The accepting end's answer to Hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// `PROTOCOL_VERSION` of the sender.
    pub version: u16,
    /// The sender's configured name.
    pub name: String,
    /// Largest frame (bytes after the length field) the sender takes.
    pub frame_bytes_max: u32,
    /// This run of the sender.
    pub boot: BootId,
    /// The store this server serves.
    pub store: StoreId,
    /// `Some(n)`: the link goes on where it stopped, `n` numbered frames of the dialler's boot were
    /// taken. `None`: both ends count from zero and a mux sends Resume for every connection.
    pub taken: Option<u64>,
}

/// Kind of stream a listener accepts or a Dial opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ListenerKind {
    /// Client to server.
    C2s,
    /// Server to server.
    S2s,
    /// XEP-0114 component.
    Component,
}

/// What carries the bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Transport {
    /// Plain TCP (STARTTLS may follow).
    Tcp,
    /// TLS from the first byte (XEP-0368).
    Tls,
    /// WebSocket (RFC 7395), unwrapped by the mux.
    WebSocket,
    /// WebSocket over TLS.
    WebSocketTls,
}

/// What a TLS handshake showed. The server has no other source for any of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFacts {
    /// Protocol version as on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: u16,
    /// IANA cipher suite number.
    pub cipher_suite: u16,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// Application protocol agreed, e.g. `xmpp-client`.
    pub alpn: Option<String>,
    /// RFC 9266 `tls-exporter` channel binding: 32 bytes, TLS 1.3 only.
    pub exporter: Option<[u8; 32]>,
    /// RFC 5929 `tls-server-end-point` channel binding: hash of the certificate sent.
    pub server_end_point: Option<Bytes>,
    /// The client's certificate (DER), if it sent one, and whether the mux verified it against its CAs.
    pub client_certificate: Option<(Bytes, bool)>,
}

/// A new connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Kind of the listener (or Dial) it came through.
    pub kind: ListenerKind,
    /// What carries it.
    pub transport: Transport,
    /// The far end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Facts of TLS, if TLS came before the first byte.
    pub tls: Option<TlsFacts>,
    /// The server's own number of the Dial this answers.
    pub dial: Option<u64>,
}

/// Bytes from the client, mux to server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// The bytes as the transport gave them. Empty only with `message_end`.
    pub bytes: Bytes,
    /// The last byte so far ends a WebSocket message.
    pub message_end: bool,
}

/// One top-level element, stream header or stream end, server to mux. A long one comes in parts that
/// share all fields but `bytes` and `last`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// The bytes (of this part).
    pub bytes: Bytes,
    /// This part is the last of its element. The mux gives the client nothing of an element whose last part it lacks.
    pub last: bool,
    /// The element is a stanza (counted for XEP-0198).
    pub stanza: bool,
    /// The element is stored: its id.
    pub stored: Option<StoredId>,
}

/// One receiver of a Fanout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FanoutTarget {
    /// Who receives.
    pub conn: ConnId,
    /// What goes between prefix and suffix for this one.
    pub insert: Bytes,
    /// The stored id of the element for this one, if any.
    pub stored: Option<StoredId>,
}

/// One payload for many connections: each gets `prefix insert suffix` as one output element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fanout {
    /// What stands before each insert.
    pub prefix: Bytes,
    /// What stands after each insert.
    pub suffix: Bytes,
    /// The element is a stanza.
    pub stanza: bool,
    /// The receivers. At most `limits::FANOUT_TARGETS_MAX` a frame.
    pub targets: Vec<FanoutTarget>,
}

/// Settled and Window in one: absolute marks of one connection, server to mux. Each is monotonic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// Input bytes now durable: the mux forgets them. Always ends between top-level elements.
    pub settled_bytes: u64,
    /// Input stanzas among them.
    pub settled_stanzas: u64,
    /// Output stanzas (count since Open, or carried over by Resume) whose acknowledgement is on disk: the mux
    /// forgets the stored ids of stanzas numbered up to this.
    pub forget_stanzas: u64,
    /// The mux may send input until its total input bytes reach this.
    pub input_bytes_max: u64,
}

/// Order to switch a connection to TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartTls {
    /// The last plain bytes (e.g. `<proceed/>`); counted as one output element that is no stanza.
    pub last: Bytes,
    /// Ask the client for a certificate.
    pub request_client_certificate: bool,
}

/// Order to open a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// The server's number for it, echoed in `Open::dial` or `DialFailed`.
    pub dial: u64,
    /// Kind of stream it is for.
    pub kind: ListenerKind,
    /// Where to.
    pub target: DialTarget,
    /// How.
    pub tls: DialTls,
    /// Name to ask for (SNI) and to verify.
    pub server_name: String,
}

/// Where a Dial goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialTarget {
    /// A host name or address and a port.
    Host(String, u16),
    /// A name to look up `_xmpp-server._tcp` / `_xmpps-server._tcp` for.
    Srv(String),
}

/// TLS policy of a Dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum DialTls {
    /// No TLS at first (STARTTLS may follow by frame).
    Plain,
    /// TLS from the first byte.
    Direct,
}

/// Why a connection ended or is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CloseReason {
    /// The stream was closed in good order, or the client closed its socket.
    Normal,
    /// The socket failed (reset, timed out).
    SocketError,
    /// The TLS handshake or a record failed.
    TlsError,
    /// The client broke the protocol; the server says so.
    PolicyViolation,
    /// The client did not take its output in time.
    SlowClient,
    /// A limit of the mux.
    Limit,
    /// The process is stopping.
    Shutdown,
    /// Resume named a session the server does not know, or a connection without a Note.
    NotResumable,
    /// The connection is replaced by another.
    Replaced,
}

/// End of a connection. The mux forgets it when both ends have sent Close.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    /// Server to mux: the last bytes for the client, counted as one output element if not empty. Mux to server: empty.
    pub last: Bytes,
    /// Why.
    pub reason: CloseReason,
}

/// A stored stanza the mux has taken and not forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldStored {
    /// Its id.
    pub id: StoredId,
    /// Its number among the output elements (the first is 1).
    pub element: u64,
    /// Its number among the output stanzas (the first is 1).
    pub stanza: u64,
}

/// What a mux knows of one connection, for a server that has lost its memory. The unsettled input follows as Data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Key of the session, if the server had given one.
    pub note: Option<NoteKey>,
    /// As first sent, with `tls` holding the newest facts (also those of a later Secured).
    pub open: Open,
    /// Settled input bytes.
    pub settled_bytes: u64,
    /// Settled input stanzas.
    pub settled_stanzas: u64,
    /// Output elements taken, whole.
    pub elements: u64,
    /// Output stanzas among them.
    pub stanzas: u64,
    /// Output elements the client's TCP has acknowledged.
    pub drained: u64,
    /// Stored ids taken and not forgotten, in order of `element`.
    pub held: Vec<HeldStored>,
    /// The mux has sent Close for it (the reason), or will right after its unsettled input.
    pub closed: Option<CloseReason>,
}

/// Every frame. Hello, Welcome, Refused, Ack, Ping, Pong are unnumbered; all others are numbered from 1 in the order sent
/// and kept by the sender until an Ack covers them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Dialling end's greeting.
    Hello(Hello),
    /// Accepting end's greeting.
    Welcome(Welcome),
    /// Instead of Welcome: why the dialler may not link now, for its log. The acceptor closes after it.
    Refused(String),
    /// Numbered frames of the receiver taken over, in total.
    Ack(u64),
    /// Liveness.
    Ping(u64),
    /// Its echo.
    Pong(u64),
    /// "Finish and go elsewhere": the server will go away; a mux with another server uses that for new connections.
    Drain,
    /// mux→server.
    Open(ConnId, Open),
    /// mux→server.
    Input(ConnId, Input),
    /// server→mux.
    Output(ConnId, Output),
    /// server→mux.
    Fanout(Fanout),
    /// server→mux: Settled and Window.
    Marks(ConnId, Marks),
    /// mux→server: output elements the client's TCP has acknowledged, in total.
    Drained(ConnId, u64),
    /// server→mux.
    StartTls(ConnId, StartTls),
    /// mux→server.
    Secured(ConnId, TlsFacts),
    /// server→mux.
    Note(ConnId, NoteKey),
    /// server→mux.
    Dial(Dial),
    /// mux→server: the Dial with this number failed, with a reason for the log.
    DialFailed(u64, String),
    /// Both ways.
    Close(ConnId, Close),
    /// mux→server.
    Resume(ConnId, Resume),
    /// mux→server: every connection has been resumed; what follows is new.
    ResumeEnd,
    /// Both ways on a link of role admin: one request or reply of the administration protocol (JSON, UTF-8).
    Admin(Bytes),
}
