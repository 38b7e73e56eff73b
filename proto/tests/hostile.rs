//! Each misdeed of either end: the link is closed with its exact error, nothing panics, and the next link is built anew.

use bytes::{Bytes, BytesMut};
use proto::codec::{DecodeError, encode};
use proto::frame::*;
use proto::limits::*;
use proto::link::LinkError;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig, Refused};
use proto::server_side::{SendError, ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::time::{Duration, Instant};

const ONE: ConnId = ConnId(1);
const TWO: ConnId = ConnId(2);
const STORE: StoreId = StoreId([5; 16]);
const SERVER: BootId = BootId([2; 16]);
const MUX: BootId = BootId([1; 16]);

fn wire(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        encode(frame, &mut bytes).expect("within limits");
    }
    bytes
}

fn hello(taken: Option<(BootId, u64)>) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        role: Role::Mux,
        name: "m".into(),
        frame_bytes_max: FRAME_BYTES_MIN,
        boot: MUX,
        store: None,
        taken,
    }
}

fn welcome(taken: Option<u64>) -> Welcome {
    Welcome {
        version: PROTOCOL_VERSION,
        name: "s".into(),
        frame_bytes_max: FRAME_BYTES_MIN,
        boot: SERVER,
        store: STORE,
        taken,
    }
}

fn open() -> Open {
    Open {
        kind: ListenerKind::C2s,
        transport: Transport::Tcp,
        peer: ([192, 0, 2, 1], 4000).into(),
        local: ([192, 0, 2, 2], 5222).into(),
        tls: None,
        dial: None,
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn input(conn: ConnId, len: usize) -> Frame {
    Frame::Input(
        conn,
        Input {
            bytes: Bytes::from(vec![b'x'; len]),
            message_end: false,
        },
    )
}

fn output(conn: ConnId) -> Frame {
    Frame::Output(
        conn,
        Output {
            bytes: text("<a/>"),
            last: true,
            stanza: true,
            stored: Some(StoredId(7)),
        },
    )
}

fn part(conn: ConnId, last: bool, stanza: bool) -> Frame {
    Frame::Output(
        conn,
        Output {
            bytes: text("<a"),
            last,
            stanza,
            stored: None,
        },
    )
}

fn close(conn: ConnId) -> Frame {
    Frame::Close(
        conn,
        Close {
            last: Bytes::new(),
            reason: CloseReason::Normal,
        },
    )
}

fn start_tls(conn: ConnId) -> Frame {
    Frame::StartTls(
        conn,
        StartTls {
            last: text("<proceed/>"),
            request_client_certificate: false,
        },
    )
}

fn secured(conn: ConnId) -> Frame {
    Frame::Secured(
        conn,
        TlsFacts {
            version: 0x0304,
            ..TlsFacts::default()
        },
    )
}

fn dial(number: u64) -> Frame {
    Frame::Dial(Dial {
        dial: number,
        kind: ListenerKind::S2s,
        target: DialTarget::Host("h".into(), 5269),
        tls: DialTls::Plain,
        server_name: "h".into(),
    })
}

fn resume() -> Resume {
    Resume {
        note: Some(NoteKey([3; 16])),
        open: open(),
        settled_bytes: 100,
        settled_stanzas: 2,
        elements: 5,
        stanzas: 3,
        drained: 4,
        held: vec![HeldStored {
            id: StoredId(9),
            element: 5,
            stanza: 3,
        }],
        closed: None,
    }
}

fn fanout(conn: ConnId, stanza: bool, stored: Option<StoredId>) -> Frame {
    let targets = vec![FanoutTarget {
        conn,
        insert: Bytes::new(),
        stored,
    }];
    Frame::Fanout(Fanout {
        prefix: text("<m/>"),
        suffix: Bytes::new(),
        stanza,
        targets,
    })
}

fn marks(
    settled_bytes: u64,
    settled_stanzas: u64,
    forget_stanzas: u64,
    input_bytes_max: u64,
) -> Frame {
    Frame::Marks(
        ONE,
        Marks {
            settled_bytes,
            settled_stanzas,
            forget_stanzas,
            input_bytes_max,
        },
    )
}

// ---- a server and a hostile mux -------------------------------------------------------------------

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

// ---- a mux and a hostile server -------------------------------------------------------------------

/// A mux with connection 1 open and ten bytes of its input sent.
fn mux(now: Instant) -> MuxSide {
    let mut side = MuxSide::new(now, MuxSideConfig::new("m", MUX));
    side.handle_link_up(now);
    side.handle_link_bytes(now, &mut wire(&[Frame::Welcome(welcome(None))]))
        .expect("a good Welcome");
    assert_eq!(side.open(now, open()), Ok(ONE));
    assert_eq!(side.input(now, ONE, b"0123456789", false), 16384 - 10);
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
