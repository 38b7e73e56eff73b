//! WebSocket (RFC 6455) as far as XMPP needs it (RFC 7395): the handshake and the frames of the accepting side, sans-I/O.
//!
//! Own code, on `httparse` for the request head. The frame code of `tungstenite` is a header parser of thirty lines that checks
//! neither masks, reserved bits nor lengths; its message layer keeps a read buffer for every connection (at least 560 bytes where
//! 64 do) and writes while it reads. Here a payload goes on to the link as it comes, so that the credit of the link bounds
//! messages, too, and an idle connection is a struct.
//!
//! In: bytes of a client. Out: payload with the ends of messages, what to answer. Owns: the state of one connection.
//! Never: keeps payload (but of a control frame that is not whole); allocates by a length that a frame claims; offers
//! compression (no permessage-deflate: a client could make us inflate a bomb); reads XMPP.

pub mod frame;
pub mod handshake;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::frame::{CloseReason, TlsFacts};

use frame::Decoder;
use handshake::Key;

/// Bytes of frame headers, control frames and empty fragments that a connection may send before it has logged in. What a
/// log-in needs is 20 messages with 8 bytes of header; the bytes in them are counted by the server.
const OVERHEAD_BEFORE_LOGIN_MAX: u32 = 16 * 1024;

/// What a connection of a WebSocket listener keeps.
#[derive(Debug, Default)]
pub struct WebSocket {
    /// Frames of the client.
    pub decoder: Decoder,
    /// Until the handshake is over.
    pub greeting: Option<Box<Greeting>>,
    /// Our Close frame is out.
    pub close_sent: bool,
    /// The client's is to be waited for, a while: the end is ours, and in good order.
    pub awaits_close: bool,
    /// Bytes read that were no payload, before log-in.
    pub overhead: u32,
    /// Frames to answer with, after the input at hand; no heap when empty.
    pub replies: Vec<u8>,
    /// The connection is to end with this status.
    pub ending: Option<(u16, CloseReason)>,
}

/// A handshake under way.
#[derive(Debug, Default)]
pub struct Greeting {
    /// The request, as far as it has come.
    pub head: Vec<u8>,
    /// Of the TLS below.
    pub facts: Option<TlsFacts>,
    /// The request is good: it is answered once the link has an id for the connection.
    pub key: Option<Key>,
}

impl WebSocket {
    /// A connection whose client has said nothing.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            greeting: Some(Box::default()),
            ..Self::default()
        })
    }

    /// The handshake is over.
    pub fn is_open(&self) -> bool {
        self.greeting.is_none()
    }

    /// Counts what was read and what of it was payload. False: a stranger sends too much that is no payload.
    pub fn count_overhead(&mut self, read: usize, payload: usize) -> bool {
        let more = read.saturating_sub(payload);
        self.overhead = self
            .overhead
            .saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        self.overhead <= OVERHEAD_BEFORE_LOGIN_MAX
    }
}

/// The status of a Close frame (RFC 6455 §7.4.1) that tells the client why.
pub fn status_of(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::Normal | CloseReason::Replaced => frame::NORMAL,
        CloseReason::Shutdown => frame::GOING_AWAY,
        // "Service restart", registered with IANA: the client shall come again.
        CloseReason::NotResumable => 1012,
        CloseReason::SocketError
        | CloseReason::TlsError
        | CloseReason::PolicyViolation
        | CloseReason::SlowClient
        | CloseReason::Limit => frame::POLICY_VIOLATION,
    }
}

/// The value of `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
pub fn accept(key: &Key) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use handshake::{Answer, Policy, respond, switching};

    #[test]
    fn the_example_of_the_rfc() {
        let request = "GET /xmpp-websocket HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let Answer::Upgrade(key) = respond(request.as_bytes(), &Policy::default()) else {
            panic!("refused");
        };
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let text = switching(&accept(&key));
        assert!(text.starts_with("HTTP/1.1 101 "));
        assert!(text.ends_with("\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"));
        assert!(!text.contains("Sec-WebSocket-Extensions"));
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<WebSocket>() <= 136, "{}", size_of::<WebSocket>());
    }
}
