//! What the configuration says of WebSocket: `[websocket]`, and what a listener with transport "ws" or "wss" may be.
//!
//! In: tables. Out: [`WebSocketConfig`], mistakes. Owns: nothing. Never: lets passwords cross a network in the clear because a
//! line was forgotten.

use std::net::SocketAddr;
use std::time::Duration;

use proto::frame::ListenerKind;

use super::read::{Reader, Source};
use super::{ListenerTransport, seconds};
use crate::websocket::handshake::Policy;

/// What concerns WebSocket clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSocketConfig {
    /// Whose pages may connect, and what `host-meta` says.
    pub policy: Policy,
    /// How often an open connection is sent a Ping; zero: never.
    pub ping: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            ping: Duration::from_secs(50),
        }
    }
}

/// Reads `[websocket]`.
pub(super) fn read(source: &mut Source<'_>, mut reader: Reader<'_, '_>) -> WebSocketConfig {
    let mut policy = Policy::default();
    for origin in reader.strings(source, "origins").unwrap_or_default() {
        let text = origin.as_ref().to_ascii_lowercase();
        match text.as_str() {
            "*" => policy.any_origin = true,
            "null" => policy.origins.push(text),
            _ if is_origin(&text) => policy.origins.push(text),
            _ => source.mistake(
                origin.span(),
                format!(
                    "\"{}\" is no origin, like \"https://chat.example.org\" or \"https://chat.example.org:8443\"; \"*\" is all of them",
                    origin.as_ref()
                ),
            ),
        }
    }
    for url in reader.strings(source, "host_meta").unwrap_or_default() {
        if is_websocket_url(url.as_ref()) {
            policy.host_meta.push(url.into_inner());
        } else {
            let text = format!(
                "\"{}\" is no address of a WebSocket, like \"wss://example.org:5443/xmpp-websocket\"",
                url.as_ref()
            );
            source.mistake(url.span(), text);
        }
    }
    let default = WebSocketConfig::default().ping;
    let ping = seconds(source, &mut reader, "ping_s", 0..=86_400, default);
    reader.finish(source);
    WebSocketConfig { policy, ping }
}

/// Scheme, host and perhaps a port, as browsers write it: no path, no slash at the end.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+' | b'_');
    let host = |b: u8| fine(b) || matches!(b, b':' | b'[' | b']');
    !scheme.is_empty() && scheme.bytes().all(fine) && authority.bytes().all(host)
}

/// It is written into XML and JSON as it is, so nothing in it may need escaping.
fn is_websocket_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("wss://")
        .or_else(|| text.strip_prefix("ws://"));
    let harmless =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'<' | b'>' | b'&' | b'\\');
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(harmless)
    })
}

/// Without TLS of its own a listener trusts whoever connects to have it: that is a program on this host, or one the operator
/// names.
pub(super) fn check_listener(
    source: &mut Source<'_>,
    reader: &Reader<'_, '_>,
    kind: ListenerKind,
    transport: ListenerTransport,
    listen: &[SocketAddr],
    (tls_in_front, request_client_certificate): (bool, bool),
) {
    if tls_in_front && transport != ListenerTransport::Ws {
        let text = "`listener.tls_in_front` is for transport \"ws\" only";
        source.mistake(reader.span(), text);
    }
    if !transport.is_websocket() {
        return;
    }
    if kind != ListenerKind::C2s {
        let text = "a listener with transport \"ws\" or \"wss\" is for clients: kind \"c2s\"";
        source.mistake(reader.span(), text);
    }
    if transport == ListenerTransport::Wss {
        return;
    }
    if request_client_certificate {
        let text =
            "`listener.request_client_certificate` means nothing without TLS: transport \"wss\"";
        source.mistake(reader.span(), text);
    }
    let open = listen.iter().find(|a| !a.ip().is_loopback());
    if let (Some(address), false) = (open, tls_in_front) {
        let text = format!(
            "a listener with transport \"ws\" has no TLS, and {address} is no loopback address: passwords would cross the network \
             in the clear. Use \"wss\", or say `tls_in_front = true` if only a reverse proxy with TLS can reach it"
        );
        source.mistake(reader.span(), text);
    }
}
