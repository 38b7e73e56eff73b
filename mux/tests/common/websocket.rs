//! A WebSocket client by hand: it may do everything wrong.

use std::io::{Read, Write};

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A request that is good.
pub const REQUEST: &str = "GET /xmpp-websocket HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A client's frame; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(0x80 | len as u8),
        len @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// A text message in one frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// The head of an HTTP response.
pub fn head(from: &mut impl Read) -> String {
    let mut out = Vec::new();
    while !out.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).expect("a response");
        out.push(byte[0]);
    }
    String::from_utf8(out).expect("text")
}

/// The handshake.
pub fn upgrade(stream: &mut (impl Read + Write)) -> String {
    stream.write_all(REQUEST.as_bytes()).expect("write");
    stream.flush().expect("flush");
    let head = head(stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head
}

/// The next frame of the mux: its first byte and its payload.
pub fn next(from: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    from.read_exact(&mut head).expect("a frame");
    assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            from.read_exact(&mut len).expect("a length");
            usize::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            from.read_exact(&mut len).expect("a length");
            u64::from_be_bytes(len) as usize
        }
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    from.read_exact(&mut payload).expect("payload");
    (head[0], payload)
}

/// The status of the Close frame that comes next.
pub fn close_status(from: &mut impl Read) -> u16 {
    let (first, payload) = next(from);
    assert_eq!((first, payload.len()), (0x88, 2), "{payload:?}");
    u16::from_be_bytes([payload[0], payload[1]])
}
