//! Each misdeed of a server: the link is closed with its exact error, nothing panics, and the next link is built anew.

#[path = "common/build.rs"]
mod build;

use build::*;
use bytes::{Bytes, BytesMut};
use proto::frame::*;
use proto::limits::*;
use proto::link::LinkError;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig, Refused};
use proto::server_side::read_hello;
use std::time::{Duration, Instant};

/// A mux with connection 1 open and ten bytes of its input sent.
fn mux(now: Instant) -> MuxSide {
    let mut side = MuxSide::new(now, MuxSideConfig::new("m", MUX));
    side.handle_link_up(now);
    side.handle_link_bytes(now, &mut wire(&[Frame::Welcome(welcome(None))]))
        .expect("a good Welcome");
    assert_eq!(side.open(now, open()), Ok(ONE));
    assert_eq!(side.input(now, ONE, b"0123456789", false), 2_048);
    while side.poll_link_output().is_some() {}
    while side.poll_event().is_some() {}
    side
}

#[test]
fn each_misdeed_of_a_server_closes_the_link_and_keeps_the_clients() {
    let note = |byte| Frame::Note(ONE, NoteKey([byte; 16]));
    let tls_conn = [start_tls(ONE), start_tls(ONE)];
    let rows: Vec<(Vec<Frame>, LinkError)> = vec![
        (
            vec![Frame::Welcome(welcome(None))],
            LinkError::Unexpected("Welcome"),
        ),
        (
            vec![Frame::Hello(hello(None))],
            LinkError::Unexpected("Hello"),
        ),
        (
            vec![Frame::Refused("too late".into())],
            LinkError::Unexpected("Refused"),
        ),
        (vec![Frame::Ack(4)], LinkError::Ack),
        (vec![Frame::Ack(2), Frame::Ack(1)], LinkError::Ack),
        // a mux's own frames
        (vec![input(ONE, 1)], LinkError::Unexpected("Input")),
        (
            vec![Frame::Open(TWO, open())],
            LinkError::Unexpected("Open"),
        ),
        (
            vec![Frame::Drained(ONE, 0)],
            LinkError::Unexpected("Drained"),
        ),
        (vec![secured(ONE)], LinkError::Unexpected("Secured")),
        (
            vec![Frame::DialFailed(1, String::new())],
            LinkError::Unexpected("DialFailed"),
        ),
        (
            vec![Frame::Resume(ONE, resume())],
            LinkError::Unexpected("Resume"),
        ),
        (vec![Frame::ResumeEnd], LinkError::Unexpected("ResumeEnd")),
        (
            vec![Frame::Admin(text("{}"))],
            LinkError::Unexpected("Admin"),
        ),
        // connections
        (vec![output(TWO)], LinkError::UnknownConn("Output", TWO)),
        (
            vec![fanout(TWO, true, None)],
            LinkError::UnknownConn("Fanout", TWO),
        ),
        (
            vec![Frame::Marks(TWO, Marks::default())],
            LinkError::UnknownConn("Marks", TWO),
        ),
        (
            vec![start_tls(TWO)],
            LinkError::UnknownConn("StartTls", TWO),
        ),
        (
            vec![Frame::Note(TWO, NoteKey([0; 16]))],
            LinkError::UnknownConn("Note", TWO),
        ),
        (vec![close(TWO)], LinkError::UnknownConn("Close", TWO)),
        (
            vec![close(ONE), output(ONE)],
            LinkError::AfterClose("Output", ONE),
        ),
        (
            vec![close(ONE), close(ONE)],
            LinkError::AfterClose("Close", ONE),
        ),
        (
            vec![close(ONE), marks(10, 1, 0, 0)],
            LinkError::AfterClose("Marks", ONE),
        ),
        (
            vec![close(ONE), fanout(ONE, true, None)],
            LinkError::AfterClose("Fanout", ONE),
        ),
        (vec![note(1), note(2)], LinkError::State("Note", ONE)),
        (tls_conn.to_vec(), LinkError::State("StartTls", ONE)),
        (vec![dial(1), dial(1)], LinkError::Unexpected("Dial")),
        (
            (0..=DIALS_MAX as u64).map(dial).collect(),
            LinkError::Limit("DIALS_MAX"),
        ),
        // counts
        (
            vec![marks(11, 0, 0, 0)],
            LinkError::Count("settled_bytes", ONE),
        ),
        (
            vec![marks(10, 11, 0, 0)],
            LinkError::Count("settled_stanzas", ONE),
        ),
        (
            vec![marks(10, 1, 1, 0)],
            LinkError::Count("forget_stanzas", ONE),
        ),
        (
            vec![marks(10, 1, 0, 11 + INPUT_WINDOW_MAX)],
            LinkError::Count("input_bytes_max", ONE),
        ),
        // elements and their parts
        (
            vec![fanout(ONE, false, Some(StoredId(1)))],
            LinkError::State("Fanout", ONE),
        ),
        (
            vec![Frame::Output(
                ONE,
                Output {
                    bytes: text("x"),
                    last: true,
                    stanza: false,
                    stored: Some(StoredId(1)),
                },
            )],
            LinkError::State("Output", ONE),
        ),
        (
            vec![part(ONE, false, true), part(ONE, true, false)],
            LinkError::State("Output", ONE),
        ),
        (
            vec![part(ONE, false, true), note(1)],
            LinkError::Unexpected("Note"),
        ),
        (
            vec![part(ONE, false, true), close(ONE)],
            LinkError::Unexpected("Close"),
        ),
        (
            (0..=OUTPUT_ELEMENT_BYTES_MAX / PART_BYTES_MAX)
                .map(|_| {
                    let bytes = Bytes::from(vec![b'x'; PART_BYTES_MAX]);
                    Frame::Output(
                        ONE,
                        Output {
                            bytes,
                            last: false,
                            stanza: true,
                            stored: None,
                        },
                    )
                })
                .collect(),
            LinkError::Limit("OUTPUT_ELEMENT_BYTES_MAX"),
        ),
    ];
    for (frames, error) in rows {
        let now = Instant::now();
        let mut side = mux(now);
        assert_eq!(
            side.handle_link_bytes(now, &mut wire(&frames)),
            Err(error),
            "{frames:?}"
        );
        assert!(!side.is_link_up());
        assert_eq!(side.conn_count(), 1, "the client stays");
        assert_eq!(side.open(now, open()), Err(Refused::NotAccepting));
        // What is left of the transport says nothing any more, and the next link is built anew.
        assert_eq!(
            side.handle_link_bytes(now, &mut BytesMut::from(&[0xff; 100][..])),
            Ok(())
        );
        side.handle_link_up(now);
        let mut sent = BytesMut::from(&side.poll_link_output().expect("Hello")[..]);
        let hello = read_hello(&mut sent).unwrap().expect("a whole Hello");
        assert_eq!((hello.taken, hello.store), (None, Some(STORE)));
    }
}

#[test]
fn a_bad_welcome_closes_the_link() {
    let now = Instant::now();
    let other = Welcome {
        boot: BootId([9; 16]),
        ..welcome(Some(2))
    };
    let other_store = Welcome {
        store: StoreId([9; 16]),
        ..welcome(Some(2))
    };
    // A link that never was; another boot or store that claims to go on; frames never sent.
    let mut fresh = MuxSide::new(now, MuxSideConfig::new("m", MUX));
    fresh.handle_link_up(now);
    let taken = wire(&[Frame::Welcome(welcome(Some(0)))]);
    assert_eq!(
        fresh.handle_link_bytes(now, &mut taken.clone()),
        Err(LinkError::Taken)
    );
    for bad in [other, other_store, welcome(Some(4))] {
        let mut side = mux(now);
        side.handle_link_up(now);
        assert_eq!(
            side.handle_link_bytes(now, &mut wire(&[Frame::Welcome(bad)])),
            Err(LinkError::Taken)
        );
    }
    let mut side = mux(now);
    side.handle_link_up(now);
    assert_eq!(
        side.handle_link_bytes(now, &mut wire(&[output(ONE)])),
        Err(LinkError::Unexpected("Output")),
        "nothing before Welcome"
    );
}

#[test]
fn a_silent_server_is_dead_and_a_mute_one_is_pinged() {
    let start = Instant::now();
    let mut side = mux(start);
    let mut now = start;
    let mut pings = 0;
    while side.is_link_up() {
        now = side.poll_timeout().expect("a live link has a deadline");
        side.handle_timeout(now);
        while let Some(bytes) = side.poll_link_output() {
            pings += usize::from(bytes[4] == proto::codec::kind::PING);
        }
    }
    assert_eq!((now - start, pings), (LINK_DEAD, 2));
    assert!(
        std::iter::from_fn(|| side.poll_event())
            .any(|event| event == MuxEvent::LinkFailed(LinkError::Dead))
    );
    // Without Welcome.
    side.handle_link_up(now);
    assert_eq!(side.poll_timeout(), Some(now + WELCOME_WAIT));
    side.handle_timeout(now + WELCOME_WAIT);
    assert!(
        std::iter::from_fn(|| side.poll_event())
            .any(|event| event == MuxEvent::LinkFailed(LinkError::Dead))
    );
    // Given up after `server_lost`, counted from the last time there was a server.
    side.handle_timeout(start + LINK_DEAD + SERVER_LOST - Duration::from_millis(1));
    assert_eq!(side.conn_count(), 1);
    side.handle_timeout(start + LINK_DEAD + SERVER_LOST);
    assert_eq!(side.conn_count(), 0);
    let forget = MuxEvent::Forget {
        conn: ONE,
        reason: CloseReason::Shutdown,
    };
    assert!(std::iter::from_fn(|| side.poll_event()).any(|event| event == forget));
    assert_eq!(side.unsettled_bytes(), 0);
}

#[test]
fn a_flood_of_pings_is_answered_once_a_turn() {
    let now = Instant::now();
    let mut side = mux(now);
    let pings: Vec<Frame> = (0..10_000).map(Frame::Ping).collect();
    side.handle_link_bytes(now, &mut wire(&pings)).unwrap();
    assert_eq!(side.poll_link_output().map(|bytes| bytes.len()), Some(13));
    assert_eq!(side.poll_link_output(), None);
}
