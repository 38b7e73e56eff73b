//! Frames there and back, and bytes that are no frames.

mod common;

use bytes::{Bytes, BytesMut};
use common::frames::any_frame;
use proptest::prelude::*;
use proto::codec::{self, DecodeError, decode, encode};
use proto::frame::*;
use proto::limits::*;

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes).expect("within limits");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_frame_comes_back_as_it_went(frame in any_frame()) {
        let mut bytes = encoded(&frame);
        let length = bytes.len();
        prop_assert!(length <= FRAME_BYTES_MIN as usize + codec::LENGTH_BYTES);
        bytes.extend_from_slice(b"next");
        let back = decode(&mut bytes, FRAME_BYTES_MIN).unwrap().unwrap();
        prop_assert_eq!(&back, &frame);
        prop_assert_eq!(&bytes[..], b"next");
    }

    #[test]
    fn a_part_of_a_frame_is_no_frame_yet(frame in any_frame(), cut in any::<prop::sample::Index>()) {
        let whole = encoded(&frame);
        let mut part = BytesMut::from(&whole[..cut.index(whole.len())]);
        let before = part.clone();
        prop_assert_eq!(decode(&mut part, FRAME_BYTES_MIN), Ok(None));
        prop_assert_eq!(part, before);
    }

    #[test]
    fn a_frame_cut_short_under_a_true_length_is_an_error_or_another_frame(
        frame in any_frame(),
        cut in any::<prop::sample::Index>(),
    ) {
        // The length field is made to fit what is left: no field may be read past the end.
        let whole = encoded(&frame);
        let keep = 5 + cut.index(whole.len() - 4);
        let mut part = BytesMut::from(&whole[..keep.min(whole.len())]);
        let length = (part.len() - 4) as u32;
        part[..4].copy_from_slice(&length.to_be_bytes());
        if let Ok(Some(other)) = decode(&mut part, FRAME_BYTES_MIN) {
            prop_assert_eq!(codec::kind_of(&other), codec::kind_of(&frame));
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        frame in any_frame(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        // There is one way to write each frame: nothing can hide in unused bits.
        let mut bytes = encoded(&frame);
        let len = bytes.len();
        for (at, value) in flips {
            bytes[4 + at.index(len - 4)] ^= value;
        }
        let before = bytes.clone();
        if let Ok(Some(other)) = decode(&mut bytes, FRAME_BYTES_MIN) {
            prop_assert_eq!(encoded(&other), before);
        }
    }
}

/// A frame of this kind with this payload.
fn raw(kind: u8, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&(payload.len() as u32 + 1).to_be_bytes());
    bytes.extend_from_slice(&[kind]);
    bytes.extend_from_slice(payload);
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hex"))
        .collect()
}

#[test]
fn bytes_that_are_no_frame_are_refused_exactly() {
    use DecodeError::*;
    const CONN: &str = "0000000000000001";
    // A mux called "m" with the smallest frame_bytes_max.
    const HELLO: &str = "0001 01 00020000 00112233445566778899aabbccddeeff 01 6d";
    let huge = "f".repeat(2 * 70_000);
    let rows: &[(u8, String, DecodeError)] = &[
        (0x00, "".into(), Kind(0)),
        (0x07, "".into(), Kind(7)),
        (0x20, "".into(), Kind(0x20)),
        (0xff, CONN.into(), Kind(0xff)),
        // Hello
        (0x01, "".into(), Truncated("version")),
        (0x01, "0002".into(), Version(2)),
        (0x01, "0000 00".into(), Version(0)),
        (0x01, "0001 00".into(), Value("role", 0)),
        (0x01, "0001 05".into(), Value("role", 5)),
        (
            0x01,
            "0001 01 0001ffff".into(),
            Value("frame_bytes_max", 0x1ffff),
        ),
        (
            0x01,
            "0001 01 ffffffff".into(),
            Value("frame_bytes_max", 0xffff_ffff),
        ),
        (0x01, HELLO.into(), Truncated("Hello flags")),
        (0x01, format!("{HELLO} 04"), Value("Hello flags", 4)),
        (0x01, format!("{HELLO} 01 0011"), Truncated("store")),
        (0x01, format!("{HELLO} 00 00"), Trailing(1)),
        (0x01, HELLO.replace("01 6d", "00 00"), Value("name", 0)),
        (0x01, HELLO.replace("01 6d", "01 0a"), Text("name")),
        (0x01, HELLO.replace("01 6d", "01 ff"), Text("name")),
        (0x01, HELLO.replace("01 6d", "05 6d"), Truncated("name")),
        // Welcome
        (0x02, "0003".into(), Version(3)),
        // unnumbered
        (0x03, "00000000000000".into(), Truncated("Ack")),
        (0x03, "8000000000000000".into(), Value("Ack", 1 << 63)),
        (0x04, "000000000000000000".into(), Trailing(1)),
        (0x10, "00".into(), Trailing(1)),
        // Open
        (0x11, format!("{CONN} 04"), Value("listener kind", 4)),
        (0x11, format!("{CONN} 01 00"), Value("transport", 0)),
        (0x11, format!("{CONN} 01 01 05"), Value("peer address", 5)),
        (
            0x11,
            format!("{CONN} 01 01 04 c000"),
            Truncated("peer address"),
        ),
        (
            0x11,
            format!("{CONN} 01 01 04c0000201 1000 06"),
            Truncated("local address"),
        ),
        (
            0x11,
            format!("{CONN} 01 01 04c0000201 1000 04c0000201 1466 08"),
            Value("Open flags", 8),
        ),
        (
            0x11,
            format!("{CONN} 01 01 04c0000201 1000 04c0000201 1466 02 00"),
            Truncated("dial"),
        ),
        (
            0x11,
            format!("{CONN} 01 01 04c0000201 1000 04c0000201 1466 00 00"),
            Trailing(1),
        ),
        // Secured: TLS facts
        (
            0x18,
            format!("{CONN} 0304 1301 40"),
            Value("TLS flags", 0x40),
        ),
        (
            0x18,
            format!("{CONN} 0304 1301 20"),
            Value("TLS flags", 0x20),
        ),
        (0x18, format!("{CONN} 0304 1301 01 02 78"), Truncated("SNI")),
        (0x18, format!("{CONN} 0304 1301 01 02 780a"), Text("SNI")),
        (
            0x18,
            format!("{CONN} 0304 1301 04 00"),
            Truncated("TLS exporter"),
        ),
        (
            0x18,
            format!("{CONN} 0304 1301 08 41"),
            Limit("SERVER_END_POINT_BYTES_MAX"),
        ),
        (
            0x18,
            format!("{CONN} 0304 1301 10 4001"),
            Limit("CERTIFICATE_BYTES_MAX"),
        ),
        (
            0x18,
            format!("{CONN} 0304 1301 10 0002 30"),
            Truncated("certificate"),
        ),
        // Input, Output
        (0x12, CONN[..14].into(), Truncated("conn")),
        (0x12, CONN.into(), Truncated("Input flags")),
        (0x12, format!("{CONN} 02 78"), Value("Input flags", 2)),
        (0x12, format!("{CONN} 00"), Truncated("Input bytes")),
        (0x12, format!("{CONN} 01 {huge}"), Limit("PART_BYTES_MAX")),
        (0x13, format!("{CONN} 08 78"), Value("Output flags", 8)),
        (0x13, format!("{CONN} 01"), Truncated("Output bytes")),
        (
            0x13,
            format!("{CONN} 07 00000000000000"),
            Truncated("stored id"),
        ),
        (
            0x13,
            format!("{CONN} 07 0000000000000001"),
            Truncated("Output bytes"),
        ),
        (0x13, format!("{CONN} 00 {huge}"), Limit("PART_BYTES_MAX")),
        // Fanout
        (
            0x14,
            "01 00000001 00000000 0001 78".into(),
            Value("Fanout flags", 1),
        ),
        (
            0x14,
            "00 00000001 00000000 0000 78".into(),
            Value("Fanout count", 0),
        ),
        (
            0x14,
            "00 00000001 00000000 0401 78".into(),
            Limit("FANOUT_TARGETS_MAX"),
        ),
        (
            0x14,
            "00 ffffffff 00000000 0001 78".into(),
            Truncated("Fanout prefix"),
        ),
        (
            0x14,
            "00 00000001 ffffffff 0001 78".into(),
            Truncated("Fanout suffix"),
        ),
        (
            0x14,
            "00 00000001 00000000 0400 78".into(),
            Truncated("Fanout targets"),
        ),
        (
            0x14,
            format!("00 00000001 00000000 0001 78 {CONN} 01 0000"),
            Value("Fanout target flags", 1),
        ),
        (
            0x14,
            format!("00 00000001 00000000 0001 78 {CONN} 00 0001"),
            Truncated("Fanout insert"),
        ),
        (
            0x14,
            format!("00 00000000 00000000 0001 {CONN} 00 0000"),
            Value("Fanout element length", 0),
        ),
        (
            0x14,
            format!("00 00000001 00000000 0001 78 {CONN} 00 0000 00"),
            Trailing(1),
        ),
        (
            0x14,
            format!(
                "00 00010000 00000000 0080 {} {}",
                "78".repeat(65536),
                format!("{CONN}000000").repeat(128)
            ),
            Limit("FANOUT_EXPANDED_BYTES_MAX"),
        ),
        // Marks, Drained
        (
            0x15,
            format!("{CONN} {}", "00".repeat(31)),
            Truncated("input_bytes_max"),
        ),
        (0x15, format!("{CONN} {}", "00".repeat(33)), Trailing(1)),
        (
            0x15,
            format!("{CONN} 4000000000000001 {}", "00".repeat(24)),
            Value("settled_bytes", COUNT_MAX + 1),
        ),
        (
            0x16,
            format!("{CONN} ffffffffffffffff"),
            Value("drained", u64::MAX),
        ),
        // StartTls, Note
        (0x17, format!("{CONN} 02"), Value("StartTls flags", 2)),
        (
            0x17,
            format!("{CONN} 00 {}", "78".repeat(LAST_BYTES_MAX + 1)),
            Limit("LAST_BYTES_MAX"),
        ),
        (
            0x19,
            format!("{CONN} {}", "00".repeat(15)),
            Truncated("Note"),
        ),
        (0x19, format!("{CONN} {}", "00".repeat(17)), Trailing(1)),
        // Dial
        (0x1a, format!("{CONN} 02 03"), Value("dial TLS", 3)),
        (0x1a, format!("{CONN} 02 01 03"), Value("dial target", 3)),
        (0x1a, format!("{CONN} 02 01 02 00"), Value("dial name", 0)),
        (
            0x1a,
            format!("{CONN} 02 01 01 1495 00"),
            Value("dial host", 0),
        ),
        (
            0x1a,
            format!("{CONN} 02 01 02 01 78"),
            Truncated("server name"),
        ),
        (0x1b, format!("{CONN} 0d0a"), Text("DialFailed reason")),
        (
            0x1b,
            format!("{CONN} {}", "78".repeat(REASON_BYTES_MAX + 1)),
            Limit("REASON_BYTES_MAX"),
        ),
        // Refused
        (0x06, "0a".into(), Text("Refused reason")),
        (
            0x06,
            "78".repeat(REASON_BYTES_MAX + 1),
            Limit("REASON_BYTES_MAX"),
        ),
        // Close
        (0x1c, format!("{CONN} 00"), Value("reason", 0)),
        (0x1c, format!("{CONN} 0a"), Value("reason", 10)),
        (
            0x1c,
            format!("{CONN} 01 {}", "78".repeat(LAST_BYTES_MAX + 1)),
            Limit("LAST_BYTES_MAX"),
        ),
        // Resume
        (0x1d, format!("{CONN} 04"), Value("Resume flags", 4)),
        (0x1d, format!("{CONN} 01 00"), Truncated("Note")),
        (0x1d, format!("{CONN} 02 00"), Value("reason", 0)),
        (
            0x1d,
            format!("{CONN} 00 {} 1001", "00".repeat(40)),
            Limit("HELD_STORED_MAX"),
        ),
        (
            0x1d,
            format!("{CONN} 00 {} 1000 00", "00".repeat(40)),
            Truncated("held ids"),
        ),
        (
            0x1d,
            format!("{CONN} 00 {} 0000", "00".repeat(40)),
            Truncated("listener kind"),
        ),
        (0x1e, "00".into(), Trailing(1)),
        (0x1f, "".into(), Truncated("Admin bytes")),
    ];
    for (kind, payload, error) in rows {
        let payload = hex(payload);
        let mut bytes = raw(*kind, &payload);
        // Longer than an honest frame may be: these rows are about the fields.
        assert_eq!(
            decode(&mut bytes, FRAME_BYTES_MAX),
            Err(*error),
            "kind {kind:#04x}, {payload:02x?}"
        );
    }
}

#[test]
fn a_length_is_judged_before_anything_is_read_or_allocated() {
    let mut bytes = BytesMut::from(&[0u8, 0, 0, 0][..]);
    assert_eq!(decode(&mut bytes, FRAME_BYTES_MIN), Err(DecodeError::Empty));
    for length in [FRAME_BYTES_MIN + 1, 0x4745_5420, u32::MAX] {
        let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
        assert_eq!(
            decode(&mut bytes, FRAME_BYTES_MIN),
            Err(DecodeError::TooLong(length))
        );
    }
    let mut bytes = BytesMut::from(&FRAME_BYTES_MIN.to_be_bytes()[..]);
    assert_eq!(decode(&mut bytes, FRAME_BYTES_MIN), Ok(None));
    assert!(bytes.capacity() < 100, "the claim alone allocates nothing");
}

#[test]
fn a_payload_is_a_slice_of_the_read_buffer() {
    let frame = Frame::Input(
        ConnId(1),
        Input {
            bytes: Bytes::from(vec![b'x'; 1000]),
            message_end: false,
        },
    );
    let mut bytes = encoded(&frame);
    let range = bytes.as_ptr_range();
    let Frame::Input(_, input) = decode(&mut bytes, FRAME_BYTES_MIN).unwrap().unwrap() else {
        panic!()
    };
    assert!(range.contains(&input.bytes.as_ptr()));
}

#[test]
fn what_passes_a_limit_is_not_encoded() {
    let conn = ConnId(1);
    let long = |n: usize| Bytes::from(vec![b'x'; n]);
    let open = |tls: TlsFacts| {
        let address = ([127, 0, 0, 1], 1).into();
        let transport = Transport::Tls;
        Open {
            kind: ListenerKind::C2s,
            transport,
            peer: address,
            local: address,
            tls: Some(tls),
            dial: None,
        }
    };
    let facts = TlsFacts::default;
    let rows = [
        (
            Frame::Output(
                conn,
                Output {
                    bytes: long(PART_BYTES_MAX + 1),
                    last: true,
                    stanza: true,
                    stored: None,
                },
            ),
            "PART_BYTES_MAX",
        ),
        (
            Frame::Output(
                conn,
                Output {
                    bytes: long(0),
                    last: true,
                    stanza: true,
                    stored: None,
                },
            ),
            "PART_BYTES_MAX",
        ),
        (
            Frame::Input(
                conn,
                Input {
                    bytes: long(PART_BYTES_MAX + 1),
                    message_end: true,
                },
            ),
            "PART_BYTES_MAX",
        ),
        (
            Frame::Close(
                conn,
                Close {
                    last: long(LAST_BYTES_MAX + 1),
                    reason: CloseReason::Normal,
                },
            ),
            "LAST_BYTES_MAX",
        ),
        (
            Frame::StartTls(
                conn,
                StartTls {
                    last: long(LAST_BYTES_MAX + 1),
                    request_client_certificate: true,
                },
            ),
            "LAST_BYTES_MAX",
        ),
        (
            Frame::DialFailed(1, "x".repeat(REASON_BYTES_MAX + 1)),
            "REASON_BYTES_MAX",
        ),
        (Frame::DialFailed(1, "a\nb".into()), "REASON_BYTES_MAX"),
        (
            Frame::Open(
                conn,
                open(TlsFacts {
                    sni: Some("x".repeat(256)),
                    ..facts()
                }),
            ),
            "NAME_BYTES_MAX",
        ),
        (
            Frame::Open(
                conn,
                open(TlsFacts {
                    alpn: Some("\u{7f}".into()),
                    ..facts()
                }),
            ),
            "NAME_BYTES_MAX",
        ),
        (
            Frame::Open(
                conn,
                open(TlsFacts {
                    server_end_point: Some(long(65)),
                    ..facts()
                }),
            ),
            "SERVER_END_POINT_BYTES_MAX",
        ),
        (
            Frame::Secured(
                conn,
                TlsFacts {
                    client_certificate: Some((long(CERTIFICATE_BYTES_MAX + 1), true)),
                    ..facts()
                },
            ),
            "CERTIFICATE_BYTES_MAX",
        ),
        (
            Frame::Fanout(Fanout {
                prefix: long(1),
                suffix: long(1),
                stanza: true,
                targets: vec![],
            }),
            "FANOUT_TARGETS_MAX",
        ),
        (
            Frame::Admin(long(FRAME_BYTES_MIN as usize)),
            "FRAME_BYTES_MIN",
        ),
    ];
    for (frame, limit) in rows {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(encode(&frame, &mut out), Err(codec::EncodeError(limit)));
        assert_eq!(&out[..], b"before");
    }
}
