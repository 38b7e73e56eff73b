//! TLS of one connection: the only module that knows rustls' unbuffered interface.
//!
//! rustls 0.24 will give exporters and the server name directly; until then both are caught on the way
//! by thread-locals ([`capture`]), and whatever changes changes here and in `tls/` only.
//!
//! In: ciphertext as read, plaintext to send. Out: plaintext, ciphertext, [`TlsFacts`] once.
//! Owns: per connection the rustls state and at most one partial record; buffers belong to the thread.
//! Never: touches a socket; keeps a buffer for an idle connection; allows 0-RTT or renegotiation.

mod capture;
pub mod certs;
pub mod link;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use proto::frame::TlsFacts;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SupportedCipherSuite};

use capture::Capture;

/// Most plaintext one record carries (RFC 8446 §5.1).
const RECORD_PLAIN_MAX: usize = 16_384;
/// More than any suite of TLS 1.2 or 1.3 adds to one record (header, nonce, type, tag).
const RECORD_OVERHEAD_MAX: usize = 64;
/// Bytes of unfinished records or handshake messages one connection may make us keep. A record is at most
/// 16 KiB + 2 KiB; rustls takes handshake messages of at most 64 KiB.
const PARTIAL_BYTES_MAX: usize = 96 * 1024;

/// What came out of a piece of ciphertext.
pub enum TlsEvent<'a> {
    /// The handshake is done. Comes once, before any plaintext.
    Secured(TlsFacts),
    /// Plaintext.
    Plain(&'a [u8]),
    /// The far end said close_notify: no plaintext follows.
    PeerClosed,
}

/// Why TLS of a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The far end, or the choice of parameters.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// An unfinished record or message grew past what any honest one needs.
    #[error("unfinished record too long")]
    PartialTooLong,
    /// rustls panicked.
    #[error("rustls panicked")]
    Panicked,
    /// Nothing can be sent any more: it failed before, was closed, or its key is used up.
    #[error("TLS is over")]
    Exhausted,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// TLS state of one connection.
pub struct Tls {
    side: Side,
    /// Ciphertext of a record not yet whole; no heap when empty.
    partial: Vec<u8>,
    /// What is caught during the handshake; gone after it.
    capture: Option<Box<Capture>>,
    peer_closed: bool,
    /// An error came or we said close_notify: rustls must not be asked for anything any more.
    failed: bool,
}

/// A step of the rustls machine that must be acted on outside its borrow.
enum Step {
    Again,
    Idle,
    PeerClosed,
}

impl Tls {
    /// We accepted the connection.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let side = Side::Server(UnbufferedServerConnection::new(config)?);
        Ok(Self::new(side, Capture::default()))
    }

    /// We dialled. Call [`Tls::start`] to get the first bytes.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let sni = name.to_str().into_owned();
        let side = Side::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self::new(
            side,
            Capture {
                sni: Some(sni),
                ..Capture::default()
            },
        ))
    }

    fn new(side: Side, capture: Capture) -> Self {
        Self {
            side,
            partial: Vec::new(),
            capture: Some(Box::new(capture)),
            peer_closed: false,
            failed: false,
        }
    }

    /// True until the handshake is done.
    pub fn is_handshaking(&self) -> bool {
        self.capture.is_some()
    }

    /// How much of `buffer` the partial record takes, after putting it in front. Read behind it, then call
    /// [`Tls::handle_bytes`] with all of it.
    pub fn put_partial(&self, buffer: &mut [u8]) -> usize {
        let n = self.partial.len();
        buffer[..n].copy_from_slice(&self.partial);
        n
    }

    /// First bytes of a dialled connection.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.handle_bytes(&mut [], out, |_| {})
    }

    /// Takes ciphertext (the partial record included), appends ciphertext to send to `out` (also when it
    /// fails: the alert), and hands over what came of it.
    pub fn handle_bytes(
        &mut self,
        mut bytes: &mut [u8],
        out: &mut Vec<u8>,
        mut sink: impl FnMut(TlsEvent<'_>),
    ) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Exhausted);
        }
        let handshaking = self.capture.is_some();
        if let Some(capture) = self.capture.take() {
            capture::put(*capture);
        }
        let result = loop {
            let (discard, step) = self.step(bytes, out, &mut sink, handshaking);
            bytes = &mut bytes[discard..];
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Idle) => break Ok(()),
                Ok(Step::PeerClosed) => {
                    self.peer_closed = true;
                    sink(TlsEvent::PeerClosed);
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        if handshaking {
            // Facts may have been taken in `step`; what is left belongs to a handshake still going on.
            if let Some(capture) = capture::take() {
                self.capture = Some(Box::new(capture));
            }
        }
        if let Err(error) = result {
            if matches!(error, TlsError::Panicked) {
                self.failed = true;
                return Err(error);
            }
            self.flush_alert(bytes, out);
            self.failed = true;
            return Err(error);
        }
        if self.capture.is_some() && !self.core_is_handshaking() {
            self.secured(&mut sink);
        }
        if bytes.is_empty() || self.peer_closed {
            self.partial = Vec::new();
        } else if bytes.len() > PARTIAL_BYTES_MAX {
            return Err(TlsError::PartialTooLong);
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Encrypts whole pieces into `out`, one record per 16 KiB.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Exhausted);
        }
        let mut partial = std::mem::take(&mut self.partial);
        let result = self.write_traffic(&mut partial, out, |writer, out| {
            for piece in plain.chunks(RECORD_PLAIN_MAX) {
                append(out, piece.len() + RECORD_OVERHEAD_MAX, |room| match writer
                    .encrypt(piece, room)
                {
                    Ok(n) => Ok(n),
                    Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
                    Err(EncryptError::EncryptExhausted) => Err(None),
                })
                .ok_or(TlsError::Exhausted)?;
            }
            Ok(())
        });
        self.partial = partial;
        self.failed |= result.is_err();
        result
    }

    /// Appends close_notify, if the handshake got that far.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.is_handshaking() || self.failed {
            return;
        }
        let mut partial = std::mem::take(&mut self.partial);
        // A connection that is closed without a last alert is closed all the same.
        let _ = self.write_traffic(&mut partial, out, |writer, out| {
            append(out, RECORD_OVERHEAD_MAX, |room| {
                match writer.queue_close_notify(room) {
                    Ok(n) => Ok(n),
                    Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
                    Err(EncryptError::EncryptExhausted) => Err(None),
                }
            })
            .ok_or(TlsError::Exhausted)
        });
        self.failed = true;
    }

    fn core_is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(conn) => conn.is_handshaking(),
            Side::Client(conn) => conn.is_handshaking(),
        }
    }

    fn step(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(TlsEvent<'_>),
        handshaking: bool,
    ) -> (usize, Result<Step, TlsError>) {
        // Facts come before plaintext that arrived together with the end of the handshake.
        if handshaking
            && !self.core_is_handshaking()
            && self.capture.is_none()
            && let Some(capture) = capture::take()
        {
            self.capture = Some(Box::new(capture));
            self.secured(sink);
        }
        // A defect in rustls that one client found must not cost all the others their connection.
        match &mut self.side {
            Side::Server(conn) => {
                match catch_unwind(AssertUnwindSafe(move || {
                    let (conn, bytes) = (conn, bytes);
                    conn.process_tls_records(bytes)
                })) {
                    Ok(status) => act(status, out, sink),
                    Err(_) => (0, Err(TlsError::Panicked)),
                }
            }
            Side::Client(conn) => {
                match catch_unwind(AssertUnwindSafe(move || {
                    let (conn, bytes) = (conn, bytes);
                    conn.process_tls_records(bytes)
                })) {
                    Ok(status) => act(status, out, sink),
                    Err(_) => (0, Err(TlsError::Panicked)),
                }
            }
        }
    }

    fn secured(&mut self, sink: &mut impl FnMut(TlsEvent<'_>)) {
        if let Some(capture) = self.capture.take() {
            let facts = self.facts(*capture);
            sink(TlsEvent::Secured(facts));
        }
    }

    fn facts(&self, capture: Capture) -> TlsFacts {
        let (version, suite, alpn, certificates) = match &self.side {
            Side::Server(c) => (
                c.protocol_version(),
                c.negotiated_cipher_suite(),
                c.alpn_protocol(),
                c.peer_certificates(),
            ),
            Side::Client(c) => (
                c.protocol_version(),
                c.negotiated_cipher_suite(),
                c.alpn_protocol(),
                c.peer_certificates(),
            ),
        };
        let exporter = match (suite, &capture.exporter_secret) {
            (Some(SupportedCipherSuite::Tls13(suite)), Some(secret)) => {
                Some(capture::export(suite, secret))
            }
            _ => None,
        };
        TlsFacts {
            version: u16::from(version.unwrap_or(ProtocolVersion::Unknown(0))),
            cipher_suite: suite.map_or(0, |s| u16::from(s.suite())),
            sni: capture.sni.clone(),
            alpn: alpn.map(|a| String::from_utf8_lossy(a).into_owned()),
            exporter,
            server_end_point: capture.server_end_point.clone(),
            client_certificate: certificates
                .and_then(|chain| chain.first())
                .map(|leaf| (Bytes::copy_from_slice(leaf), capture.verified)),
        }
    }

    /// After an error rustls may still have an alert to send. It must not look at another record: it panics if it would
    /// have to send a second alert.
    fn flush_alert(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) {
        while self.has_output() {
            let (_, step) = self.step(bytes, out, &mut |_| {}, false);
            if !matches!(step, Ok(Step::Again)) {
                return;
            }
        }
    }

    fn has_output(&self) -> bool {
        match &self.side {
            Side::Server(conn) => conn.wants_write(),
            Side::Client(conn) => conn.wants_write(),
        }
    }

    fn write_traffic(
        &mut self,
        partial: &mut Vec<u8>,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut dyn Writer, &mut Vec<u8>) -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        match &mut self.side {
            Side::Server(conn) => loop {
                let UnbufferedStatus { discard, state, .. } = conn.process_tls_records(partial);
                match state? {
                    ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                    ConnectionState::TransmitTlsData(data) => data.done(),
                    ConnectionState::WriteTraffic(mut writer) => return write(&mut writer, out),
                    _ => return Err(TlsError::Exhausted),
                }
                partial.drain(..discard);
            },
            Side::Client(conn) => loop {
                let UnbufferedStatus { discard, state, .. } = conn.process_tls_records(partial);
                match state? {
                    ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                    ConnectionState::TransmitTlsData(data) => data.done(),
                    ConnectionState::WriteTraffic(mut writer) => return write(&mut writer, out),
                    _ => return Err(TlsError::Exhausted),
                }
                partial.drain(..discard);
            },
        }
    }
}

/// `WriteTraffic` of either side.
trait Writer {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<D> Writer for rustls::unbuffered::WriteTraffic<'_, D> {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        self.encrypt(plain, out)
    }

    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

/// One state of the machine, acted on.
fn act<D>(
    status: UnbufferedStatus<'_, '_, D>,
    out: &mut Vec<u8>,
    sink: &mut impl FnMut(TlsEvent<'_>),
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus {
        mut discard, state, ..
    } = status;
    let step = match state {
        Err(error) => return (discard, Err(error.into())),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sink(TlsEvent::Plain(record.payload));
                    }
                    Err(error) => return (discard, Err(error.into())),
                }
            }
            Step::Again
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, out);
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::PeerClosed,
        // Early data is never offered, so never read.
        Ok(_) => Step::Idle,
    };
    (discard, Ok(step))
}

fn encode<D>(data: &mut rustls::unbuffered::EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let done = append(out, 4096, |room| match data.encode(room) {
        Ok(n) => Ok(n),
        Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    });
    debug_assert!(done.is_some(), "each chunk is encoded once");
}

/// Lets `fill` write at the end of `out`, giving it more room once if it asks. `None`: it failed for good.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Option<()> {
    let start = out.len();
    out.resize(start + room, 0);
    let filled = match fill(&mut out[start..]) {
        Err(Some(required)) => {
            out.resize(start + required, 0);
            fill(&mut out[start..])
        }
        other => other,
    };
    match filled {
        Ok(n) => {
            out.truncate(start + n);
            Some(())
        }
        Err(_) => {
            out.truncate(start);
            None
        }
    }
}
