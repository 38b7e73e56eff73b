//! LINK.md is the description another implementation is written from: its examples are what the codec writes, it names
//! every frame, and its numbers are those of `limits`.

use bytes::{Bytes, BytesMut};
use proto::codec::{decode, encode, kind, name};
use proto::frame::*;
use proto::limits;
use std::collections::BTreeMap;

const LINK_MD: &str = include_str!("../LINK.md");

fn examples() -> Vec<(&'static str, Frame)> {
    let conn = ConnId(7);
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let boot = BootId(*b"mux boot 16bytes");
    let server = BootId(*b"srv boot 16bytes");
    let store = StoreId(*b"store id 16bytes");
    let facts = TlsFacts {
        version: 0x0304,
        cipher_suite: 0x1301,
        sni: Some("example.org".into()),
        alpn: Some("xmpp-client".into()),
        exporter: Some([0xee; 32]),
        server_end_point: None,
        client_certificate: None,
    };
    let open = Open {
        kind: ListenerKind::C2s,
        transport: Transport::Tcp,
        peer: ([192, 0, 2, 1], 50000).into(),
        local: ([192, 0, 2, 2], 5222).into(),
        tls: None,
        dial: None,
    };
    let frame_bytes_max = limits::FRAME_BYTES_MIN;
    let version = limits::PROTOCOL_VERSION;
    let hello = |store, taken| {
        let (role, name) = (Role::Mux, "m1".into());
        Frame::Hello(Hello {
            version,
            role,
            name,
            frame_bytes_max,
            boot,
            store,
            taken,
        })
    };
    let welcome = |taken| {
        Frame::Welcome(Welcome {
            version,
            name: "s1".into(),
            frame_bytes_max,
            boot: server,
            store,
            taken,
        })
    };
    let target = |conn, insert, stored| FanoutTarget {
        conn: ConnId(conn),
        insert: text(insert),
        stored,
    };
    vec![
        ("hello-first", hello(None, None)),
        ("hello-again", hello(Some(store), Some((server, 3)))),
        ("welcome-anew", welcome(None)),
        ("welcome-goes-on", welcome(Some(12))),
        (
            "refused",
            Frame::Refused("another mux named `m1` is connected".into()),
        ),
        ("ack", Frame::Ack(12)),
        ("ping", Frame::Ping(1)),
        ("pong", Frame::Pong(1)),
        ("drain", Frame::Drain),
        ("open", Frame::Open(conn, open.clone())),
        (
            "input",
            Frame::Input(
                conn,
                Input {
                    bytes: text("<presence/>"),
                    message_end: false,
                },
            ),
        ),
        (
            "message-end",
            Frame::Input(
                conn,
                Input {
                    bytes: text(""),
                    message_end: true,
                },
            ),
        ),
        (
            "output",
            Frame::Output(
                conn,
                Output {
                    bytes: text("<message/>"),
                    last: true,
                    stanza: true,
                    stored: Some(StoredId(0x1234)),
                },
            ),
        ),
        (
            "output-first-part",
            Frame::Output(
                conn,
                Output {
                    bytes: text("<stream:fea"),
                    last: false,
                    stanza: false,
                    stored: None,
                },
            ),
        ),
        (
            "fanout",
            Frame::Fanout(Fanout {
                prefix: text("<message to='"),
                suffix: text("'/>"),
                stanza: true,
                targets: vec![
                    target(7, "a@b/c", None),
                    target(9, "d@b/e", Some(StoredId(5))),
                ],
            }),
        ),
        (
            "marks",
            Frame::Marks(
                conn,
                Marks {
                    settled_bytes: 300,
                    settled_stanzas: 1,
                    forget_stanzas: 2,
                    input_bytes_max: 65836,
                },
            ),
        ),
        ("drained", Frame::Drained(conn, 4)),
        (
            "start-tls",
            Frame::StartTls(
                conn,
                StartTls {
                    last: text("<proceed/>"),
                    request_client_certificate: true,
                },
            ),
        ),
        ("secured", Frame::Secured(conn, facts)),
        ("note", Frame::Note(conn, NoteKey(*b"note key 16bytes"))),
        (
            "dial",
            Frame::Dial(Dial {
                dial: 1,
                kind: ListenerKind::S2s,
                target: DialTarget::Srv("example.net".into()),
                tls: DialTls::Plain,
                server_name: "example.net".into(),
            }),
        ),
        ("dial-failed", Frame::DialFailed(1, "refused".into())),
        (
            "close",
            Frame::Close(
                conn,
                Close {
                    last: Bytes::new(),
                    reason: CloseReason::Normal,
                },
            ),
        ),
        (
            "resume",
            Frame::Resume(
                conn,
                Resume {
                    note: Some(NoteKey(*b"note key 16bytes")),
                    open,
                    settled_bytes: 300,
                    settled_stanzas: 1,
                    elements: 9,
                    stanzas: 4,
                    drained: 8,
                    held: vec![HeldStored {
                        id: StoredId(0x1234),
                        element: 9,
                        stanza: 4,
                    }],
                    closed: None,
                },
            ),
        ),
        ("resume-end", Frame::ResumeEnd),
        (
            "admin",
            Frame::Admin(text("{\"id\":1,\"command\":\"status\"}")),
        ),
    ]
}

/// The blocks "```hex NAME" of LINK.md, bytes only: what stands after `;` is for the reader.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    for block in LINK_MD.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a block has lines");
        let body = rest.split("```").next().expect("a block ends");
        let digits: String = body
            .lines()
            .flat_map(|line| line.split(';').next())
            .flat_map(|bytes| bytes.chars().filter(|c| !c.is_whitespace()))
            .collect();
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hex"));
        assert!(
            blocks.insert(name.trim(), bytes.collect()).is_none(),
            "{name} twice"
        );
    }
    blocks
}

#[test]
fn the_examples_are_what_the_codec_writes() {
    let mut blocks = blocks();
    for (name, frame) in examples() {
        let mut bytes = BytesMut::new();
        encode(&frame, &mut bytes).expect("within limits");
        let written = blocks
            .remove(name)
            .unwrap_or_else(|| panic!("no example {name}: {:02x?}", &bytes[..]));
        assert_eq!(
            written,
            bytes,
            "{name}: the codec writes {:02x?}",
            &bytes[..]
        );
        assert_eq!(
            decode(&mut bytes, limits::FRAME_BYTES_MIN).unwrap(),
            Some(frame)
        );
    }
    assert!(
        blocks.is_empty(),
        "examples of nothing: {:?}",
        blocks.keys()
    );
}

#[test]
fn every_frame_and_number_is_described() {
    for kind in (0..=u8::MAX).filter(|kind| name(*kind) != "unknown") {
        let row = format!("| `{kind:02x}` | {} |", name(kind));
        assert!(LINK_MD.contains(&row), "no row {row}");
        let numbered = kind >= kind::FIRST_NUMBERED;
        assert_eq!(
            numbered,
            !matches!(
                name(kind),
                "Hello" | "Welcome" | "Refused" | "Ack" | "Ping" | "Pong"
            )
        );
    }
    let numbers = [
        ("PROTOCOL_VERSION", u64::from(limits::PROTOCOL_VERSION)),
        ("FRAME_BYTES_MIN", limits::FRAME_BYTES_MIN.into()),
        ("FRAME_BYTES_MAX", limits::FRAME_BYTES_MAX.into()),
        ("PART_BYTES_MAX", limits::PART_BYTES_MAX as u64),
        (
            "OUTPUT_ELEMENT_BYTES_MAX",
            limits::OUTPUT_ELEMENT_BYTES_MAX as u64,
        ),
        ("LAST_BYTES_MAX", limits::LAST_BYTES_MAX as u64),
        ("FANOUT_TARGETS_MAX", limits::FANOUT_TARGETS_MAX as u64),
        (
            "FANOUT_EXPANDED_BYTES_MAX",
            limits::FANOUT_EXPANDED_BYTES_MAX as u64,
        ),
        ("HELD_STORED_MAX", limits::HELD_STORED_MAX as u64),
        ("INPUT_WINDOW_INITIAL", limits::INPUT_WINDOW_INITIAL),
        ("INPUT_WINDOW_MAX", limits::INPUT_WINDOW_MAX),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
        (
            "SERVER_END_POINT_BYTES_MAX",
            limits::SERVER_END_POINT_BYTES_MAX as u64,
        ),
        (
            "CERTIFICATE_BYTES_MAX",
            limits::CERTIFICATE_BYTES_MAX as u64,
        ),
        ("REASON_BYTES_MAX", limits::REASON_BYTES_MAX as u64),
        ("DIALS_MAX", limits::DIALS_MAX as u64),
        ("COUNT_MAX", limits::COUNT_MAX),
        ("PING_IDLE", limits::PING_IDLE.as_secs()),
        ("NAME_HELD", limits::NAME_HELD.as_secs()),
        ("LINK_DEAD", limits::LINK_DEAD.as_secs()),
        ("WELCOME_WAIT", limits::WELCOME_WAIT.as_secs()),
    ];
    for (name, value) in numbers {
        assert!(
            LINK_MD.contains(&format!("| `{name}` | {value} |")),
            "| `{name}` | {value} |"
        );
    }
}
