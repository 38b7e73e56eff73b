//! Frames, right and wrong, cut in every way.

use super::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(MASKED | len as u8),
        len @ ..65_536 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// What came, in words: payload, `|` where a message ends.
fn run(pieces: &[&[u8]]) -> (String, Result<(), Violation>) {
    let mut decoder = Decoder::default();
    let mut scratch = Vec::new();
    let mut said = String::new();
    for piece in pieces {
        let result = decoder.handle_bytes(piece, &mut scratch, |event| match event {
            Event::Data { bytes, end } => {
                said.push_str(&String::from_utf8_lossy(bytes));
                if end {
                    said.push('|');
                }
            }
            Event::Ping(bytes) => said.push_str(&format!("[ping {}]", bytes.len())),
            Event::Close(status) => said.push_str(&format!("[close {status:?}]")),
        });
        if result.is_err() {
            return (said, result);
        }
    }
    assert_eq!(decoder.control.capacity(), 0);
    (said, Ok(()))
}

#[test]
fn messages_come_out_as_they_went_in_however_they_are_cut() {
    let long = "é".repeat(40_000);
    let all = [
        frame(0x81, b"<a/>"),
        frame(0x01, b"<b"),
        frame(0x89, b"are you there"),
        frame(0x00, b""),
        frame(0x8A, b"yes"),
        frame(0x80, b"/>"),
        // A message that ends with an empty fragment, one of no bytes, one of empty fragments.
        frame(0x01, b"<c/>"),
        frame(0x80, b""),
        frame(0x81, b""),
        frame(0x01, b""),
        frame(0x80, b""),
        frame(0x81, long.as_bytes()),
        frame(0x81, &[b'x'; 126]),
        frame(0x88, b"\x03\xE8bye"),
        // Not looked at.
        b"anything".to_vec(),
    ]
    .concat();
    let want = format!(
        "<a/>|<b[ping 13]/>|<c/>|{long}|{}|[close Some(1000)]",
        "x".repeat(126)
    );
    let (said, result) = run(&[&all]);
    assert_eq!((said, result), (want.clone(), Ok(())));
    for cut in [1, 2, 3, 7, 1000, 40_001] {
        let pieces: Vec<&[u8]> = all.chunks(cut).collect();
        // Characters are cut, too: put together again they are the same.
        let (said, result) = run_bytes(&pieces);
        assert_eq!(
            (String::from_utf8(said).expect("whole"), result),
            (want.clone(), Ok(())),
            "{cut}"
        );
    }
}

/// As `run`, without looking at characters.
fn run_bytes(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Violation>) {
    let mut decoder = Decoder::default();
    let (mut scratch, mut said) = (Vec::new(), Vec::new());
    for piece in pieces {
        let result = decoder.handle_bytes(piece, &mut scratch, |event| match event {
            Event::Data { bytes, end } => {
                said.extend_from_slice(bytes);
                if end {
                    said.push(b'|');
                }
            }
            Event::Ping(bytes) => {
                said.extend_from_slice(format!("[ping {}]", bytes.len()).as_bytes())
            }
            Event::Close(status) => {
                said.extend_from_slice(format!("[close {status:?}]").as_bytes())
            }
        });
        if result.is_err() {
            return (said, result);
        }
    }
    (said, Ok(()))
}

#[test]
fn what_no_client_may_send() {
    let masked = |head: &[u8]| [head, &MASK].concat();
    let rows: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no mask", vec![0x81, 0x01, b'x'], PROTOCOL_ERROR),
        ("first reserved bit", frame(0xC1, b"x"), PROTOCOL_ERROR),
        ("second reserved bit", frame(0xA1, b"x"), PROTOCOL_ERROR),
        ("third reserved bit", frame(0x91, b"x"), PROTOCOL_ERROR),
        ("reserved opcode", frame(0x83, b"x"), PROTOCOL_ERROR),
        ("reserved control opcode", frame(0x8B, b""), PROTOCOL_ERROR),
        ("binary", frame(0x82, b"x"), UNSUPPORTED_DATA),
        ("continuation of nothing", frame(0x80, b"x"), PROTOCOL_ERROR),
        (
            "message in a message",
            [frame(0x01, b"x"), frame(0x81, b"y")].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "continuation after the end",
            [frame(0x81, b"x"), frame(0x80, b"y")].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "ping of 126 bytes",
            frame(0x89, &[b'x'; 126]),
            PROTOCOL_ERROR,
        ),
        ("ping in fragments", frame(0x09, b"x"), PROTOCOL_ERROR),
        ("close of one byte", frame(0x88, b"x"), PROTOCOL_ERROR),
        (
            "close with status 999",
            frame(0x88, b"\x03\xE7"),
            PROTOCOL_ERROR,
        ),
        (
            "close with status 1005",
            frame(0x88, b"\x03\xED"),
            PROTOCOL_ERROR,
        ),
        (
            "close with status 5000",
            frame(0x88, b"\x13\x88"),
            PROTOCOL_ERROR,
        ),
        (
            "close with bad text",
            frame(0x88, b"\x03\xE8\xFF"),
            NOT_UTF_8,
        ),
        (
            "text that is not UTF-8",
            frame(0x81, b"\xC0\xAF"),
            NOT_UTF_8,
        ),
        (
            "text that ends in a character",
            frame(0x81, b"\xE2\x82"),
            NOT_UTF_8,
        ),
        (
            "character broken off by a fragment",
            [frame(0x01, b"\xE2"), frame(0x80, b"x")].concat(),
            NOT_UTF_8,
        ),
        ("a surrogate", frame(0x81, b"\xED\xA0\x80"), NOT_UTF_8),
        (
            "length 2^63",
            masked(b"\x81\xFF\x80\0\0\0\0\0\0\0"),
            PROTOCOL_ERROR,
        ),
        (
            "length 2^63-1",
            masked(b"\x81\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
            TOO_BIG,
        ),
        (
            "length 4 MiB and 1",
            masked(b"\x81\xFF\0\0\0\0\0\x40\0\x01"),
            TOO_BIG,
        ),
        (
            "125 written long",
            masked(b"\x81\xFE\0\x7D"),
            PROTOCOL_ERROR,
        ),
        (
            "65535 written longer",
            masked(b"\x81\xFF\0\0\0\0\0\0\xFF\xFF"),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, status) in rows {
        let (_, result) = run(&[&bytes]);
        assert_eq!(result.expect_err(what).status, status, "{what}");
        // Byte by byte, and with a good message before and after.
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(run(&pieces).1.expect_err(what).status, status, "{what}");
        let after = [frame(0x81, b"<a/>"), bytes, frame(0x81, b"<b/>")].concat();
        let (said, result) = run(&[&after]);
        assert!(
            said.starts_with("<a/>|") && !said.contains("<b/>"),
            "{what}"
        );
        assert!(result.is_err(), "{what}");
    }
}

#[test]
fn characters_may_be_cut_by_fragments() {
    let euro = "€".as_bytes();
    let parts = [
        frame(0x01, &euro[..1]),
        frame(0x00, &euro[1..2]),
        frame(0x80, &euro[2..]),
    ]
    .concat();
    let (said, result) = run_bytes(&[&parts]);
    assert_eq!((said, result), ("€|".as_bytes().to_vec(), Ok(())));
}

#[test]
fn our_frames_can_be_read() {
    for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let header = Header::text(len);
        let bytes = header.bytes();
        assert_eq!(bytes[0], 0x81);
        let got = match bytes[1] {
            126 => u64::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            127 => u64::from_be_bytes(bytes[2..].try_into().expect("eight")),
            short => u64::from(short),
        };
        assert_eq!(got, len as u64);
        assert_eq!(
            bytes.len(),
            [2, 4, 10][usize::from(len > 125) + usize::from(len > 65_535)]
        );
    }
    assert_eq!(close(NORMAL), [0x88, 2, 0x03, 0xE8]);
    let mut out = Vec::new();
    pong(b"hi", &mut out);
    assert_eq!(out, [0x8A, 2, b'h', b'i']);
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Decoder>() <= 72, "{}", size_of::<Decoder>());
}
