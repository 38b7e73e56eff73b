//! XMPP over WebSocket (RFC 7395): what an element must have to stand alone in a message.
//!
//! In: elements as a TCP stream would carry them, our own or checked ones. Out: the same, self-contained.
//! Owns: nothing. Never: looks behind the first tag; frames bytes (the mux does, RFC 6455).

use crate::element::AttrScan;
use crate::node::escape_into;
use crate::ns;
use bytes::Bytes;

/// The end of a stream (RFC 7395 §3.6).
pub const CLOSE: &[u8] = b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>";

/// The end of a stream that is to go on elsewhere (RFC 7395 §3.6.1). Whoever came by TLS must not be sent to a `ws:` address.
pub fn close_see_other_uri(uri: &str) -> Bytes {
    let mut out = Vec::with_capacity(96 + uri.len());
    out.extend_from_slice(b"<close xmlns='");
    out.extend_from_slice(ns::FRAMING.as_bytes());
    out.extend_from_slice(b"' see-other-uri='");
    escape_into(&mut out, uri);
    out.extend_from_slice(b"'/>");
    Bytes::from(out)
}

/// An element as one message: what it takes from the stream header of a TCP stream, it declares itself (RFC 7395 §3.3.3).
pub fn message(element: &Bytes) -> Bytes {
    let mut scan = AttrScan::new(element);
    let name = scan.tag_name();
    let at = 1 + name.len();
    let declares = |scan: &mut AttrScan<'_>, name: &[u8]| scan.any(|attr| attr.name == name);
    let missing = match name.starts_with(b"stream:") {
        true if !declares(&mut scan, b"xmlns:stream") => STREAM_NS,
        false if !declares(&mut scan, b"xmlns") => CLIENT_NS,
        _ => return element.clone(),
    };
    insert(element, at, missing)
}

/// The same for the beginning of a stanza: its name and perhaps some attributes, not its default namespace.
pub fn beginning(prefix: &Bytes) -> Bytes {
    let name = prefix.iter().position(|&b| b == b' ');
    insert(prefix, name.unwrap_or(prefix.len()), CLIENT_NS)
}

/// What [`beginning`] and, for a stanza, [`message`] add.
pub const ADDED_BYTES: usize = CLIENT_NS.len();

const CLIENT_NS: &[u8] = b" xmlns='jabber:client'";
const STREAM_NS: &[u8] = b" xmlns:stream='http://etherx.jabber.org/streams'";

fn insert(bytes: &[u8], at: usize, what: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + what.len());
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(what);
    out.extend_from_slice(&bytes[at..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;
    use crate::error::StreamError;

    #[test]
    fn what_a_message_adds() {
        let rows = [
            ("<presence/>", "<presence xmlns='jabber:client'/>"),
            (
                "<message to='a@b'><body>x</body></message>",
                "<message xmlns='jabber:client' to='a@b'><body>x</body></message>",
            ),
            (
                "<iq\nid='1'></iq>",
                "<iq xmlns='jabber:client'\nid='1'></iq>",
            ),
            // Attributes that only look like declarations.
            (
                "<iq id=\" xmlns='x'\" xmlns:a='urn:a'/>",
                "<iq xmlns='jabber:client' id=\" xmlns='x'\" xmlns:a='urn:a'/>",
            ),
            (
                "<stream:features><a xmlns='urn:a'/></stream:features>",
                "<stream:features xmlns:stream='http://etherx.jabber.org/streams'><a xmlns='urn:a'/></stream:features>",
            ),
        ];
        for (element, want) in rows {
            let got = message(&Bytes::from_static(element.as_bytes()));
            assert_eq!(got, want, "{element}");
            // What is complete stays as it is.
            assert_eq!(message(&got), want);
        }
        for complete in ["<r xmlns='urn:xmpp:sm:3'/>", "<open xmlns=\"urn:x\"/>"] {
            assert_eq!(message(&Bytes::from_static(complete.as_bytes())), complete);
        }
        assert_eq!(
            beginning(&Bytes::from_static(b"<presence")),
            "<presence xmlns='jabber:client'"
        );
        assert_eq!(
            beginning(&Bytes::from_static(b"<presence from='a'")),
            "<presence xmlns='jabber:client' from='a'"
        );
    }

    #[test]
    fn ends_and_errors_stand_alone() {
        let elsewhere = close_see_other_uri("wss://b.example/?a=1&b='2'");
        let error = message(&StreamError::Conflict.to_bytes(Some("x")));
        for (bytes, name) in [
            (Bytes::from_static(CLOSE), "close"),
            (elsewhere.clone(), "close"),
            (error, "stream:error"),
        ] {
            let element = Element::parse(bytes).expect("whole");
            assert_eq!(element.qualified_name(), name.as_bytes());
        }
        let element = Element::parse(elsewhere).expect("whole");
        let uri = element.attr("see-other-uri");
        assert_eq!(uri.as_deref(), Some("wss://b.example/?a=1&b='2'"));
    }
}
