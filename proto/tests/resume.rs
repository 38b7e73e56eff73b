//! A Resume of more than goes out at once, while the clients go on.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use bytes::{Bytes, BytesMut};
use proto::frame::*;
use proto::limits;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig, Refused};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::collections::BTreeMap;
use std::time::Instant;

fn server(now: Instant, mux: &mut MuxSide, boot: u8, store: u8) -> ServerSide {
    mux.handle_link_up(now);
    let mut bytes = BytesMut::from(&mux.poll_link_output().expect("Hello")[..]);
    let hello = read_hello(&mut bytes).unwrap().unwrap();
    let config = ServerSideConfig::new("s", BootId([boot; 16]), StoreId([store; 16]), Role::Mux);
    ServerSide::accept(now, config, hello).unwrap()
}

/// One turn in each direction, at most `most` bytes from the mux.
fn turn(
    now: Instant,
    mux: &mut MuxSide,
    server: &mut ServerSide,
    mux_in: &mut BytesMut,
    most: usize,
) {
    while let Some(chunk) = server.poll_output() {
        mux_in.extend_from_slice(&chunk);
    }
    mux.handle_link_bytes(now, mux_in).unwrap();
    let mut bytes = BytesMut::new();
    while bytes.len() < most
        && let Some(chunk) = mux.poll_link_output()
    {
        bytes.extend_from_slice(&chunk);
    }
    server.handle_bytes(now, &mut bytes).unwrap();
    assert!(bytes.is_empty(), "chunks are whole frames");
}

fn open(kind: ListenerKind) -> Open {
    let address = ([192, 0, 2, 1], 4000).into();
    Open {
        kind,
        transport: Transport::WebSocket,
        peer: address,
        local: address,
        tls: None,
        dial: None,
    }
}

#[test]
fn a_large_resume_goes_in_pieces_and_misses_nothing_that_happens_meanwhile() {
    const CONNS: u64 = 600;
    let mut now = Instant::now();
    let mut config = MuxSideConfig::new("m", BootId([1; 16]));
    config.retained_bytes_max = 1 << 30;
    let mut mux = MuxSide::new(now, config);
    let mut first = server(now, &mut mux, 2, 9);
    let mut mux_in = BytesMut::new();
    for _ in 0..3 {
        turn(now, &mut mux, &mut first, &mut mux_in, usize::MAX);
    }
    let conns: Vec<ConnId> = (0..CONNS)
        .map(|_| mux.open(now, open(ListenerKind::C2s)).unwrap())
        .collect();
    turn(now, &mut mux, &mut first, &mut mux_in, usize::MAX);
    for conn in &conns {
        // What names the session, and one stored stanza.
        first.send(Frame::Note(*conn, NoteKey([3; 16]))).unwrap();
        let bytes = Bytes::from_static(b"<message/>");
        let stored = Some(StoredId(conn.0));
        first
            .send(Frame::Output(
                *conn,
                Output {
                    bytes,
                    last: true,
                    stanza: true,
                    stored,
                },
            ))
            .unwrap();
    }
    turn(now, &mut mux, &mut first, &mut mux_in, usize::MAX);
    // 15,000 bytes of each are never settled; every message of 1,000 ends.
    let mut said: BTreeMap<ConnId, Vec<u8>> = BTreeMap::new();
    for (i, conn) in conns.iter().enumerate() {
        for n in 0..15u8 {
            let message = vec![b'a' + n + (i % 7) as u8; 1000];
            mux.input(now, *conn, &message, true);
            said.entry(*conn).or_default().extend(message);
        }
    }
    while mux.poll_event().is_some() {}
    drop(first);
    mux.handle_link_down(now);

    let mut second = server(now, &mut mux, 4, 9);
    let mut heard: BTreeMap<ConnId, Vec<u8>> = BTreeMap::new();
    let (mut ends, mut resumed, mut closed, mut drained, mut turns) = (0, 0, Vec::new(), 0, 0);
    let mut ended = false;
    while !ended || turns < 100 {
        turns += 1;
        now += limits::ACK_DELAY;
        second.handle_timeout(now);
        turn(now, &mut mux, &mut second, &mut mux_in, 100_000);
        assert!(
            mux.retained_bytes() < limits::RESUME_AHEAD_BYTES + 100_000,
            "no second copy of everything"
        );
        if resumed < CONNS / 4 {
            assert_eq!(
                mux.open(now, open(ListenerKind::C2s)),
                Err(Refused::NotAccepting)
            );
        }
        // Meanwhile clients speak, take output and go, at both ends of the queue.
        if turns == 2 {
            for conn in [conns[0], conns[599]] {
                mux.input(now, conn, b"more", true);
                said.get_mut(&conn).unwrap().extend(b"more");
                mux.drained(now, conn, 1);
            }
            for conn in [conns[1], conns[598]] {
                mux.closed(now, conn, CloseReason::SocketError);
            }
        }
        while let Some(event) = second.poll_event() {
            match event {
                ServerEvent::Resumed(conn, resume) => {
                    resumed += 1;
                    assert_eq!(
                        resume.held,
                        [HeldStored {
                            id: StoredId(conn.0),
                            element: 1,
                            stanza: 1
                        }]
                    );
                    drained += resume.drained;
                }
                ServerEvent::Input(conn, input) => {
                    heard
                        .entry(conn)
                        .or_default()
                        .extend_from_slice(&input.bytes);
                    ends += u64::from(input.message_end);
                }
                ServerEvent::Closed(conn, reason) => closed.push((conn, reason)),
                ServerEvent::Drained(_, elements) => drained += elements,
                ServerEvent::ResumeEnd => ended = true,
                ServerEvent::Up { continued } => assert!(!continued),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((resumed, ends, drained), (CONNS, CONNS * 15 + 2, 2));
    assert_eq!(said, heard);
    assert_eq!(
        closed,
        [
            (conns[1], CloseReason::SocketError),
            (conns[598], CloseReason::SocketError)
        ]
    );
    assert!(mux.open(now, open(ListenerKind::C2s)).is_ok());

    // Another store: nobody is resumed, everybody is forgotten, once.
    drop(second);
    while mux.poll_event().is_some() {}
    mux.handle_link_down(now);
    let mut third = server(now, &mut mux, 5, 8);
    turn(now, &mut mux, &mut third, &mut BytesMut::new(), usize::MAX);
    let mut forgotten = Vec::new();
    while let Some(event) = mux.poll_event() {
        if let MuxEvent::Forget { conn, reason } = event {
            assert_eq!(reason, CloseReason::NotResumable);
            forgotten.push(conn);
        }
    }
    // All but the two that were closed, and the one opened last.
    assert_eq!(forgotten.len() as u64, CONNS - 2 + 1);
    assert_eq!((mux.conn_count(), mux.unsettled_bytes()), (0, 0));
}

#[test]
fn a_count_whose_welcome_was_lost_is_no_count_to_go_on_from() {
    let now = Instant::now();
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m", BootId([1; 16])));
    let mut first = server(now, &mut mux, 2, 9);
    for _ in 0..3 {
        turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    }
    let conn = mux.open(now, open(ListenerKind::C2s)).unwrap();
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    first.send(Frame::Note(conn, NoteKey([3; 16]))).unwrap();
    for n in 0..3 {
        let bytes = Bytes::from_static(b"<message/>");
        let stored = Some(StoredId(n));
        first
            .send(Frame::Output(
                conn,
                Output {
                    bytes,
                    last: true,
                    stanza: true,
                    stored,
                },
            ))
            .unwrap();
    }
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);

    // The server gives the mux up, and begins anew when it dials; but the transport dies with the Welcome on it. What the
    // server has sent since is in no count the mux knows.
    mux.handle_link_down(now);
    let mut second = server(now, &mut mux, 2, 9);
    for dial in 0..10 {
        let (target, server_name) = (DialTarget::Srv("x".into()), "x".to_owned());
        let tls = DialTls::Plain;
        second
            .send(Frame::Dial(Dial {
                dial,
                kind: ListenerKind::S2s,
                target,
                tls,
                server_name,
            }))
            .unwrap();
    }
    while second.poll_output().is_some() {}
    mux.handle_link_up(now);
    let mut bytes = BytesMut::from(&mux.poll_link_output().unwrap()[..]);
    let hello = read_hello(&mut bytes).unwrap().unwrap();
    assert!(
        hello.taken.is_some(),
        "the mux would go on from the count before"
    );
    second.handle_hello(now, hello).unwrap();
    while let Some(event) = second.poll_event() {
        assert_eq!(event, ServerEvent::Up { continued: false });
    }
    turn(now, &mut mux, &mut second, &mut BytesMut::new(), usize::MAX);
    let events: Vec<ServerEvent> = std::iter::from_fn(|| second.poll_event()).collect();
    assert!(
        matches!(&events[..], [ServerEvent::Resumed(id, _), ServerEvent::ResumeEnd] if *id == conn)
    );
}

#[test]
fn a_client_certificate_is_kept_until_the_client_has_logged_in() {
    let now = Instant::now();
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m", BootId([1; 16])));
    let mut first = server(now, &mut mux, 2, 9);
    for _ in 0..3 {
        turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    }
    let with_certificate = || Open {
        tls: Some(TlsFacts {
            version: 0x0304,
            sni: Some("example.org".into()),
            client_certificate: Some((Bytes::from(vec![7; 2000]), true)),
            ..TlsFacts::default()
        }),
        transport: Transport::Tls,
        ..open(ListenerKind::C2s)
    };
    let (inside, outside) = (
        mux.open(now, with_certificate()).unwrap(),
        mux.open(now, with_certificate()).unwrap(),
    );
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    first.send(Frame::Note(inside, NoteKey([3; 16]))).unwrap();
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    let mut second = server(now, &mut mux, 4, 9);
    turn(now, &mut mux, &mut second, &mut BytesMut::new(), usize::MAX);
    let mut seen = 0;
    while let Some(event) = second.poll_event() {
        if let ServerEvent::Resumed(conn, resume) = event {
            seen += 1;
            let mut want = with_certificate();
            if conn == inside {
                want.tls.as_mut().unwrap().client_certificate = None;
            } else {
                assert_eq!(conn, outside);
            }
            assert_eq!(resume.open, want);
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn a_connection_amid_starttls_goes_with_its_server() {
    let now = Instant::now();
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m", BootId([1; 16])));
    let mut first = server(now, &mut mux, 2, 9);
    for _ in 0..3 {
        turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    }
    let plain = Open {
        transport: Transport::Tcp,
        ..open(ListenerKind::C2s)
    };
    let conn = mux.open(now, plain).unwrap();
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    let last = Bytes::from_static(b"<proceed/>");
    first
        .send(Frame::StartTls(
            conn,
            StartTls {
                last,
                request_client_certificate: false,
            },
        ))
        .unwrap();
    turn(now, &mut mux, &mut first, &mut BytesMut::new(), usize::MAX);
    while mux.poll_event().is_some() {}
    let mut second = server(now, &mut mux, 4, 9);
    turn(now, &mut mux, &mut second, &mut BytesMut::new(), usize::MAX);
    let forget = MuxEvent::Forget {
        conn,
        reason: CloseReason::NotResumable,
    };
    assert!(std::iter::from_fn(|| mux.poll_event()).any(|event| event == forget));
    // The handshake ends meanwhile: nobody hears of it.
    mux.secured(now, conn, TlsFacts::default());
    turn(now, &mut mux, &mut second, &mut BytesMut::new(), usize::MAX);
    assert_eq!((mux.conn_count(), second.conn_count()), (0, 0));
}

/// The end of a message may come after its last byte, also after a server has settled that, or forgotten it.
#[test]
fn ends_of_messages_without_bytes() {
    let mut now = Instant::now();
    let boot = BootId([1; 16]);
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m1", boot));
    let mut mux_in = BytesMut::new();
    let mut first = server(now, &mut mux, 2, 9);
    let take = |mux: &mut MuxSide, side: &mut ServerSide, mux_in: &mut BytesMut, now| {
        for _ in 0..4 {
            turn(now, mux, side, mux_in, usize::MAX);
        }
        let mut heard = Vec::new();
        while let Some(event) = side.poll_event() {
            if let ServerEvent::Input(_, input) = event {
                heard.push((input.bytes, input.message_end));
            }
        }
        heard
    };
    let heard = |pieces: &[(&'static str, bool)]| -> Vec<(Bytes, bool)> {
        let piece = |(text, end): &(&'static str, bool)| (Bytes::from(*text), *end);
        pieces.iter().map(piece).collect()
    };
    take(&mut mux, &mut first, &mut mux_in, now);
    let conn = mux.open(now, open(ListenerKind::C2s)).unwrap();
    take(&mut mux, &mut first, &mut mux_in, now);
    first.send(Frame::Note(conn, NoteKey([3; 16]))).unwrap();
    mux.input(now, conn, b"<a/>", false);
    mux.input(now, conn, b"", true);
    // The same end once more says nothing new.
    mux.input(now, conn, b"", true);
    mux.input(now, conn, b"<b/>", false);
    let all = take(&mut mux, &mut first, &mut mux_in, now);
    let end = ("", true);
    assert_eq!(all, heard(&[("<a/>", false), end, end, ("<b/>", false)]));

    // The next server is told each end with its message.
    drop(first);
    mux.handle_link_down(now);
    let mut second = server(now, &mut mux, 4, 9);
    now += limits::ACK_DELAY;
    let all = take(&mut mux, &mut second, &mut mux_in, now);
    assert_eq!(all, heard(&[("<a/>", true), ("<b/>", false)]));
    let marks = Marks {
        settled_bytes: 8,
        input_bytes_max: 1000,
        ..Marks::default()
    };
    second.send(Frame::Marks(conn, marks)).unwrap();
    take(&mut mux, &mut second, &mut mux_in, now);
    // All is settled when the end comes: whoever resumes has nothing to do with it.
    mux.input(now, conn, b"", true);
    assert_eq!(mux.unsettled_bytes(), 0);
    let all = take(&mut mux, &mut second, &mut mux_in, now);
    assert_eq!(all, heard(&[end]));
    drop(second);
    mux.handle_link_down(now);
    let mut third = server(now, &mut mux, 6, 9);
    mux.input(now, conn, b"<c/>", true);
    let all = take(&mut mux, &mut third, &mut mux_in, now);
    assert_eq!(all, heard(&[("<c/>", true)]));
}
