//! What the fuzz targets of WebSocket do with their data. `mux/tests/websocket_fuzz.rs` runs the same on stable.

use crate::frame::{CONTROL_BYTES_MAX, Decoder, Event, FRAME_BYTES_MAX, Violation};
use crate::handshake::{Answer, HEAD_BYTES_MAX, Policy, respond};

/// All that came of bytes in pieces: payload, with the counts at which messages end, control frames, and how it went.
#[derive(Default, PartialEq, Eq, Debug)]
struct Seen {
    payload: Vec<u8>,
    ends: Vec<usize>,
    pings: Vec<Vec<u8>>,
    close: Option<Option<u16>>,
    violation: Option<Violation>,
}

fn decode(data: &[u8], mut next: impl FnMut() -> usize) -> Seen {
    let mut decoder = Decoder::default();
    let mut scratch = Vec::new();
    let mut seen = Seen::default();
    let mut rest = data;
    while !rest.is_empty() && seen.violation.is_none() {
        let (piece, after) = rest.split_at(next().clamp(1, rest.len()));
        rest = after;
        let before = seen.payload.len();
        let result = decoder.handle_bytes(piece, &mut scratch, |event| {
            assert!(seen.close.is_none(), "nothing follows a Close");
            match event {
                Event::Data { bytes, end } => {
                    assert!(end || !bytes.is_empty());
                    seen.payload.extend_from_slice(bytes);
                    if end {
                        seen.ends.push(seen.payload.len());
                    }
                }
                Event::Ping(bytes) => {
                    assert!(bytes.len() <= CONTROL_BYTES_MAX);
                    seen.pings.push(bytes.to_vec());
                }
                Event::Close(status) => seen.close = Some(status),
            }
        });
        // The credit of the link is spent by what is read.
        assert!(seen.payload.len() - before <= piece.len());
        assert!(scratch.capacity() as u64 <= FRAME_BYTES_MAX);
        seen.violation = result.err();
    }
    seen
}

/// Frames mean the same however they are cut, payload is never more than what was read, and every message is UTF-8.
pub fn frames(data: &[u8]) {
    let whole = decode(data, || usize::MAX);
    let mut sizes = data.iter().cycle().map(|b| usize::from(b % 23));
    for mut other in [
        decode(data, || 1),
        decode(data, || sizes.next().unwrap_or(1)),
    ] {
        if whole.violation.is_some() {
            // What of the last message had been passed on before it was seen to be bad does depend on the cuts.
            let end = whole.ends.last().copied().unwrap_or(0);
            other.payload.truncate(end);
            other.payload.extend_from_slice(&whole.payload[end..]);
        }
        assert_eq!(other, whole);
    }
    let mut from = 0;
    for &end in &whole.ends {
        assert!(end > from, "an empty message is not told");
        assert!(std::str::from_utf8(&whole.payload[from..end]).is_ok());
        from = end;
    }
    if let Err(error) = std::str::from_utf8(&whole.payload[from..]) {
        // A character may be cut where the data ends.
        assert!(error.error_len().is_none());
    }
}

/// What is said of a request is never taken back when more of it comes, and every answer is one response.
pub fn request(data: &[u8]) {
    let policy = Policy {
        origins: vec!["https://chat.example.net".into()],
        any_origin: false,
        host_meta: vec!["wss://example.org/xmpp-websocket".into()],
    };
    let data = &data[..data.len().min(HEAD_BYTES_MAX + 1)];
    let mut n = 0;
    let answer = loop {
        match respond(&data[..n], &policy) {
            Answer::Wait if n == data.len() => {
                assert!(n < HEAD_BYTES_MAX, "that many bytes are enough to know");
                return;
            }
            Answer::Wait => {}
            answer => break answer,
        }
        n += 1;
    };
    match answer {
        Answer::Upgrade(key) => {
            assert!(data[..n].ends_with(b"\n\r\n") || data[..n].ends_with(b"\n\n"));
            assert_eq!(key.as_bytes().len(), 24);
        }
        Answer::Http(text) | Answer::Foreign { text, .. } => {
            let (head, body) = text.split_once("\r\n\r\n").expect("a response");
            assert!(head.starts_with("HTTP/1.1 ") && !head.contains("\n\n"));
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(!head.starts_with("HTTP/1.1 101 "));
            // An answer that is final does not change with what follows.
            assert!(!matches!(
                respond(data, &policy),
                Answer::Wait | Answer::Upgrade(_)
            ));
        }
        Answer::Wait => unreachable!("not broken off with"),
    }
}
