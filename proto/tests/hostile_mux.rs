//! Each misdeed of a mux: the link is closed with its exact error, nothing panics, and the next link is built anew.

#[path = "common/build.rs"]
mod build;

use build::*;
use bytes::BytesMut;
use proto::codec::DecodeError;
use proto::frame::*;
use proto::limits::*;
use proto::link::LinkError;
use proto::server_side::{SendError, ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::time::Instant;

fn server_config() -> ServerSideConfig {
    let mut config = ServerSideConfig::new("s", SERVER, STORE, Role::Mux);
    config.conn_count_max = 3;
    config
}

fn server(now: Instant) -> ServerSide {
    ServerSide::accept(now, server_config(), hello(None)).expect("a good Hello")
}

#[test]
fn each_misdeed_of_a_mux_closes_its_link() {
    let end = Frame::ResumeEnd;
    let one = Frame::Open(ONE, open());
    let held = |element, stanza| {
        let mut resume = resume();
        resume.held[0] = HeldStored {
            id: StoredId(1),
            element,
            stanza,
        };
        Frame::Resume(ONE, resume)
    };
    let changed = |change: fn(&mut Resume)| {
        let mut resume = resume();
        change(&mut resume);
        Frame::Resume(ONE, resume)
    };
    // What the server sends after the first of the frames, the mux's frames, the error.
    let (out, tls, dialled) = ([output(ONE)], [start_tls(ONE)], [dial(1)]);
    let rows: Vec<(&[Frame], Vec<Frame>, LinkError)> = vec![
        (&[], vec![one.clone()], LinkError::Unexpected("Open")),
        (
            &[],
            vec![end.clone(), end.clone()],
            LinkError::Unexpected("ResumeEnd"),
        ),
        (
            &[],
            vec![end.clone(), Frame::Resume(ONE, resume())],
            LinkError::Unexpected("Resume"),
        ),
        (
            &[],
            vec![end.clone(), Frame::Hello(hello(None))],
            LinkError::Unexpected("Hello"),
        ),
        (
            &[],
            vec![end.clone(), Frame::Welcome(welcome(None))],
            LinkError::Unexpected("Welcome"),
        ),
        (
            &[],
            vec![end.clone(), Frame::Admin(text("{}"))],
            LinkError::Unexpected("Admin"),
        ),
        (&[], vec![end.clone(), Frame::Ack(1)], LinkError::Ack),
        // the server's own frames
        (
            &[],
            vec![end.clone(), one.clone(), output(ONE)],
            LinkError::Unexpected("Output"),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), fanout(ONE, true, None)],
            LinkError::Unexpected("Fanout"),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), marks(0, 0, 0, 0)],
            LinkError::Unexpected("Marks"),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), start_tls(ONE)],
            LinkError::Unexpected("StartTls"),
        ),
        (
            &[],
            vec![end.clone(), Frame::Note(ONE, NoteKey([0; 16]))],
            LinkError::Unexpected("Note"),
        ),
        (
            &[],
            vec![end.clone(), dial(1)],
            LinkError::Unexpected("Dial"),
        ),
        // connections
        (
            &[],
            vec![end.clone(), input(ONE, 1)],
            LinkError::UnknownConn("Input", ONE),
        ),
        (
            &[],
            vec![end.clone(), Frame::Drained(ONE, 0)],
            LinkError::UnknownConn("Drained", ONE),
        ),
        (
            &[],
            vec![end.clone(), secured(ONE)],
            LinkError::UnknownConn("Secured", ONE),
        ),
        (
            &[],
            vec![end.clone(), close(ONE)],
            LinkError::UnknownConn("Close", ONE),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), one.clone()],
            LinkError::ConnIdReused(ONE),
        ),
        (
            &[],
            vec![end.clone(), Frame::Open(TWO, open()), one.clone()],
            LinkError::ConnIdReused(ONE),
        ),
        (
            &[],
            [
                vec![end.clone()],
                (1..=4).map(|id| Frame::Open(ConnId(id), open())).collect(),
            ]
            .concat(),
            LinkError::Limit("conn_count_max"),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), close(ONE), input(ONE, 1)],
            LinkError::AfterClose("Input", ONE),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), close(ONE), close(ONE)],
            LinkError::AfterClose("Close", ONE),
        ),
        (
            &[],
            vec![
                end.clone(),
                one.clone(),
                Frame::Close(
                    ONE,
                    Close {
                        last: text("x"),
                        reason: CloseReason::Normal,
                    },
                ),
            ],
            LinkError::State("Close", ONE),
        ),
        // counts and credit
        (
            &[],
            vec![end.clone(), one.clone(), input(ONE, 16385)],
            LinkError::Count("input_bytes", ONE),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), input(ONE, 16384), input(ONE, 1)],
            LinkError::Count("input_bytes", ONE),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), Frame::Drained(ONE, 1)],
            LinkError::Count("drained", ONE),
        ),
        // Dial and TLS
        (
            &[],
            vec![end.clone(), Frame::DialFailed(1, String::new())],
            LinkError::Unexpected("DialFailed"),
        ),
        (
            &[],
            vec![
                end.clone(),
                Frame::Open(
                    ONE,
                    Open {
                        dial: Some(1),
                        ..open()
                    },
                ),
            ],
            LinkError::State("Open", ONE),
        ),
        (
            &[],
            vec![end.clone(), one.clone(), secured(ONE)],
            LinkError::State("Secured", ONE),
        ),
        // Resume
        (&[], vec![held(6, 3)], LinkError::Count("held", ONE)),
        (&[], vec![held(5, 4)], LinkError::Count("held", ONE)),
        (&[], vec![held(0, 0)], LinkError::Count("held", ONE)),
        (&[], vec![held(2, 3)], LinkError::Count("held", ONE)),
        (
            &[],
            vec![changed(|r| r.held.push(r.held[0]))],
            LinkError::Count("held", ONE),
        ),
        (
            &[],
            vec![changed(|r| r.drained = 6)],
            LinkError::Count("drained", ONE),
        ),
        (
            &[],
            vec![changed(|r| r.stanzas = 6)],
            LinkError::Count("stanzas", ONE),
        ),
        (
            &[],
            vec![changed(|r| r.settled_stanzas = 101)],
            LinkError::Count("settled_stanzas", ONE),
        ),
        (
            &[],
            vec![Frame::Resume(TWO, resume()), Frame::Resume(ONE, resume())],
            LinkError::ConnIdReused(ONE),
        ),
        (
            &[],
            [
                vec![Frame::Resume(ONE, resume())],
                (0..65).map(|_| input(ONE, 65536)).collect(),
            ]
            .concat(),
            LinkError::Count("input_bytes", ONE),
        ),
        // after what the server has sent
        (
            &out,
            vec![
                end.clone(),
                one.clone(),
                Frame::Drained(ONE, 1),
                Frame::Drained(ONE, 0),
            ],
            LinkError::Count("drained", ONE),
        ),
        (
            &tls,
            vec![end.clone(), one.clone(), secured(ONE), secured(ONE)],
            LinkError::State("Secured", ONE),
        ),
        (
            &dialled,
            vec![
                end.clone(),
                one.clone(),
                Frame::DialFailed(1, String::new()),
                Frame::DialFailed(1, String::new()),
            ],
            LinkError::Unexpected("DialFailed"),
        ),
    ];
    for (ours, theirs, error) in rows {
        let now = Instant::now();
        let mut side = server(now);
        let split = theirs.len().min(2);
        let mut result = side.handle_bytes(now, &mut wire(&theirs[..split]));
        for frame in ours {
            side.send(frame.clone()).expect("the connection is open");
        }
        while side.poll_output().is_some() {}
        if result.is_ok() {
            result = side.handle_bytes(now, &mut wire(&theirs[split..]));
        }
        assert_eq!(result, Err(error), "{theirs:?}");
        assert!(!side.is_up());
        assert_eq!(side.send(output(ONE)), Err(SendError::Gone));
        // What is left of the transport says nothing any more, and the next link is built anew.
        assert_eq!(
            side.handle_bytes(now, &mut BytesMut::from(&[0xff; 100][..])),
            Ok(())
        );
        side.handle_hello(now, hello(Some((SERVER, 0))))
            .expect("a good Hello");
        while let Some(event) = side.poll_event() {
            if let ServerEvent::Up { continued } = event {
                assert!(!continued);
            }
        }
    }
}

#[test]
fn acks_backwards_or_of_frames_never_handed_out_close_the_link() {
    let now = Instant::now();
    for (acks, error) in [(&[2u64][..], true), (&[1, 0], true), (&[1, 1], false)] {
        let mut side = server(now);
        side.handle_bytes(
            now,
            &mut wire(&[Frame::ResumeEnd, Frame::Open(ONE, open())]),
        )
        .unwrap();
        side.send(output(ONE)).unwrap();
        while side.poll_output().is_some() {}
        // Not handed out yet.
        side.send(output(ONE)).unwrap();
        let acks: Vec<Frame> = acks.iter().map(|n| Frame::Ack(*n)).collect();
        let result = side.handle_bytes(now, &mut wire(&acks));
        assert_eq!(result, if error { Err(LinkError::Ack) } else { Ok(()) });
    }
}

#[test]
fn a_bad_greeting_gets_no_link() {
    let now = Instant::now();
    let role = Hello {
        role: Role::Admin,
        ..hello(None)
    };
    let error = ServerSide::accept(now, server_config(), role).err();
    assert_eq!(
        error,
        Some(LinkError::Role {
            said: Role::Admin,
            allowed: Role::Mux
        })
    );

    let error = read_hello(&mut wire(&[Frame::ResumeEnd]));
    assert_eq!(error, Err(LinkError::Unexpected("ResumeEnd")));
    let mut http = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    assert_eq!(
        read_hello(&mut http),
        Err(LinkError::Malformed(DecodeError::TooLong(0x4745_5420)))
    );
    let mut old = wire(&[Frame::Hello(hello(None))]);
    old[6] = 9;
    let error = read_hello(&mut old).unwrap_err();
    assert_eq!(error, LinkError::Malformed(DecodeError::Version(9)));
    let reply = proto::server_side::version_reply(&server_config(), &error)
        .expect("a Welcome that names our version");
    assert_eq!(&reply[4..7], [2, 0, 1]);

    // Frames taken that were never sent, or fewer than were acknowledged.
    for taken in [2, 0] {
        let mut side = server(now);
        side.handle_bytes(
            now,
            &mut wire(&[Frame::ResumeEnd, Frame::Open(ONE, open())]),
        )
        .unwrap();
        side.send(output(ONE)).unwrap();
        while side.poll_output().is_some() {}
        side.handle_bytes(now, &mut wire(&[Frame::Ack(1)])).unwrap();
        assert_eq!(
            side.handle_hello(now, hello(Some((SERVER, taken)))),
            Err(LinkError::Taken)
        );
    }
}

#[test]
fn plaintext_injected_before_tls_is_told_and_dropped() {
    let now = Instant::now();
    let mut side = server(now);
    side.handle_bytes(
        now,
        &mut wire(&[Frame::ResumeEnd, Frame::Open(ONE, open()), input(ONE, 10)]),
    )
    .unwrap();
    side.send(start_tls(ONE)).unwrap();
    assert_eq!(
        side.send(start_tls(ONE)),
        Err(SendError::NotAllowed("StartTls"))
    );
    side.handle_bytes(
        now,
        &mut wire(&[input(ONE, 1), input(ONE, 1), secured(ONE), input(ONE, 3)]),
    )
    .unwrap();
    let events: Vec<ServerEvent> = std::iter::from_fn(|| side.poll_event()).collect();
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == ServerEvent::Injected(ONE))
            .count(),
        1
    );
    let inputs: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            ServerEvent::Input(_, input) => Some(input.bytes.len()),
            _ => None,
        })
        .collect();
    assert_eq!(inputs, [10, 3]);
}

#[test]
fn the_server_cannot_be_made_to_break_the_protocol_by_its_own_caller() {
    let now = Instant::now();
    let mut side = server(now);
    side.handle_bytes(
        now,
        &mut wire(&[Frame::ResumeEnd, Frame::Open(ONE, open()), input(ONE, 10)]),
    )
    .unwrap();
    side.send(output(ONE)).unwrap();
    let marks_of = |settled, stanzas, forget, max| marks(settled, stanzas, forget, max);
    let rows = [
        (output(TWO), SendError::Gone),
        (close(TWO), SendError::Gone),
        (input(ONE, 1), SendError::NotAllowed("Input")),
        (Frame::Ack(1), SendError::NotAllowed("Ack")),
        (Frame::Admin(text("{}")), SendError::NotAllowed("Admin")),
        (part(ONE, false, true), SendError::NotAllowed("Output")),
        (
            fanout(ONE, false, Some(StoredId(1))),
            SendError::NotAllowed("Fanout"),
        ),
        (marks_of(11, 1, 0, 100), SendError::NotAllowed("Marks")),
        (marks_of(10, 11, 0, 100), SendError::NotAllowed("Marks")),
        (marks_of(10, 1, 2, 100), SendError::NotAllowed("Marks")),
        (
            marks_of(10, 1, 1, 11 + INPUT_WINDOW_MAX),
            SendError::NotAllowed("Marks"),
        ),
        (
            Frame::Close(
                ONE,
                Close {
                    last: vec![0; LAST_BYTES_MAX + 1].into(),
                    reason: CloseReason::Normal,
                },
            ),
            SendError::TooLong("LAST_BYTES_MAX"),
        ),
        (
            Frame::Output(
                ONE,
                Output {
                    bytes: vec![0; OUTPUT_ELEMENT_BYTES_MAX + 1].into(),
                    last: true,
                    stanza: true,
                    stored: None,
                },
            ),
            SendError::TooLong("OUTPUT_ELEMENT_BYTES_MAX"),
        ),
    ];
    for (frame, error) in rows {
        assert_eq!(side.send(frame.clone()), Err(error), "{frame:?}");
    }
    for (frame, again) in [
        (
            Frame::Note(ONE, NoteKey([1; 16])),
            SendError::NotAllowed("Note"),
        ),
        (dial(1), SendError::NotAllowed("Dial")),
        (close(ONE), SendError::Gone),
    ] {
        side.send(frame.clone()).unwrap();
        assert_eq!(side.send(frame), Err(again));
    }
    assert_eq!(side.send(output(ONE)), Err(SendError::Gone));
    side.handle_down(now);
    side.handle_timeout(now + MUX_LOST);
    assert_eq!(side.send(Frame::Drain), Err(SendError::Lost));
}
