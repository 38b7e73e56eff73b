//! WebSocket clients of a mux: handshake, frames, ends, and what goes wrong, on one thread and on two.

mod common;
#[path = "common/websocket.rs"]
mod websocket;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::*;
use proto::frame::*;
use proto::server_side::ServerEvent;
use websocket::{close_status, frame, head, next, text, upgrade};

/// Listener 0 has no TLS, listener 1 has; others as in `common`.
fn start_ws(threads: usize, limits: &'static str, more: &str) -> Pair {
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path(), "example", "example.org");
    write_certificate(dir.path(), "other", "other.example");
    let text = configuration_text(&Setup { threads, limits })
        .replace("transport = \"tcp\"", "transport = \"ws\"")
        .replace("transport = \"tls\"", "transport = \"wss\"");
    let config = configuration_from(dir.path(), &format!("{text}\n{more}"));
    start_from(dir, config)
}

/// A client that has shaken hands, and its id.
fn client(pair: &mut Pair) -> (TcpStream, ConnId) {
    let mut socket = pair.plain();
    upgrade(&mut socket);
    let port = socket.local_addr().expect("addr").port();
    let conn = pair.server.wait("Opened", |e| match e {
        ServerEvent::Opened(conn, open) if open.peer.port() == port => Some(*conn),
        _ => None,
    });
    (socket, conn)
}

/// Input up to this many messages: each with whether it has ended.
fn messages(pair: &mut Pair, conn: ConnId, count: usize) -> Vec<String> {
    let (mut all, mut last) = (Vec::new(), Vec::new());
    while all.len() < count {
        let input = pair.server.wait("Input", |e| match e {
            ServerEvent::Input(c, input) if *c == conn => Some(input.clone()),
            _ => None,
        });
        last.extend_from_slice(&input.bytes);
        if input.message_end {
            all.push(String::from_utf8(std::mem::take(&mut last)).expect("text"));
        }
    }
    assert!(last.is_empty());
    all
}

#[test]
fn messages_go_both_ways() {
    for threads in [1, 2] {
        let mut pair = start_ws(threads, "", "");
        let (mut socket, conn) = client(&mut pair);
        let long = "y".repeat(5_000);
        let sent = [
            text("<open/>"),
            frame(0x01, b"<a>"),
            frame(0x89, b"still there?"),
            frame(0x00, b"x</a"),
            frame(0x80, b">"),
            frame(0x01, b"<b/>"),
            frame(0x80, b""),
            text(""),
            text(&long),
        ]
        .concat();
        for piece in sent.chunks(999) {
            socket.write_all(piece).expect("write");
        }
        assert_eq!(next(&mut socket), (0x8A, b"still there?".to_vec()));
        let want = ["<open/>", "<a>x</a>", "<b/>", &long];
        assert_eq!(messages(&mut pair, conn, 4), want);
        let huge = "z".repeat(100_000);
        for out in ["<c/>", &huge, &long] {
            pair.server.output(conn, out.to_owned());
        }
        for out in ["<c/>", &huge, &long] {
            assert_eq!(next(&mut socket), (0x81, out.as_bytes().to_vec()));
        }
        // Drained counts elements, not frames.
        pair.server.drained(conn, 3);
        pair.server.close(conn, b"<close/>", CloseReason::Normal);
        assert_eq!(next(&mut socket), (0x81, b"<close/>".to_vec()));
        assert_eq!(close_status(&mut socket), 1000);
        socket.write_all(&frame(0x88, b"\x03\xE8")).expect("write");
        assert_closed(&mut socket);
        drop(socket);
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn over_tls_the_facts_come_with_open() {
    for threads in [1, 2] {
        let mut pair = start_ws(threads, "", "");
        let mut config = pair.tls_config();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let socket = connect(pair.mux.addresses()[1]);
        let mut tls = secure(config, socket, "example.org").expect("TLS");
        upgrade(&mut tls);
        let (conn, open) = pair.server.opened();
        assert_eq!(open.transport, Transport::WebSocketTls);
        let facts = open.tls.as_ref().expect("facts");
        assert_eq!(facts.alpn.as_deref(), Some("http/1.1"));
        assert_eq!(facts.sni.as_deref(), Some("example.org"));
        assert!(facts.exporter.is_some());
        let sent = [text("<a/>"), frame(0x89, b"x"), text("<b/>")].concat();
        tls.write_all(&sent).expect("write");
        assert_eq!(messages(&mut pair, conn, 2), ["<a/>", "<b/>"]);
        assert_eq!(next(&mut tls), (0x8A, b"x".to_vec()));
        let long = "z".repeat(70_000);
        pair.server.output(conn, long.clone());
        assert_eq!(next(&mut tls), (0x81, long.into_bytes()));
        // The client ends it.
        tls.write_all(&frame(0x88, b"\x0F\xA0bye")).expect("write");
        assert_eq!(close_status(&mut tls), 4000);
        assert_closed(&mut tls);
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn what_is_no_upgrade_is_answered_and_not_opened() {
    let more = "[websocket]\nhost_meta = [\"wss://example.org/xmpp-websocket\"]\n";
    for threads in [1, 2] {
        let mut pair = start_ws(threads, "", more);
        let rows = [
            (
                "GET /.well-known/host-meta HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 200 ",
            ),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 "),
            ("<?xml version='1.0'?><stream:stream>", "HTTP/1.1 400 "),
        ];
        for (request, want) in rows {
            let mut plain = pair.plain();
            plain.write_all(request.as_bytes()).expect("write");
            let mut answer = String::new();
            plain.read_to_string(&mut answer).expect("read");
            assert!(answer.starts_with(want), "{answer}");
            let socket = connect(pair.mux.addresses()[1]);
            let mut tls = secure(pair.tls_config(), socket, "example.org").expect("TLS");
            tls.write_all(request.as_bytes()).expect("write");
            let mut answer = String::new();
            tls.read_to_string(&mut answer).expect("close_notify comes");
            assert!(answer.starts_with(want), "{answer}");
        }
        // An element behind the request is not taken for one.
        let mut plain = pair.plain();
        let both = [websocket::REQUEST.as_bytes(), &text("<a/>")].concat();
        plain.write_all(&both).expect("write");
        assert!(head(&mut plain).starts_with("HTTP/1.1 400 "));
        pair.server
            .never("Opened", 20, |e| matches!(e, ServerEvent::Opened(..)));
        pair.stop();
    }
}

#[test]
fn a_request_has_its_time() {
    let mut pair = start_ws(1, "handshake_s = 1", "");
    let mut silent = pair.plain();
    let mut slow = pair.plain();
    slow.write_all(b"GET /xmpp-websocket HTT").expect("write");
    let socket = connect(pair.mux.addresses()[1]);
    let mut tls = secure(pair.tls_config(), socket, "example.org").expect("TLS");
    tls.write_all(b"GET").expect("write");
    assert!(head(&mut silent).starts_with("HTTP/1.1 408 "));
    assert!(head(&mut slow).starts_with("HTTP/1.1 408 "));
    assert!(head(&mut tls).starts_with("HTTP/1.1 408 "));
    // A whole one has no such time, but that of a log-in.
    let (mut socket, conn) = client(&mut pair);
    pair.server
        .never("Closed", 300, |e| matches!(e, ServerEvent::Closed(..)));
    socket.write_all(&text("<a/>")).expect("write");
    assert_eq!(messages(&mut pair, conn, 1), ["<a/>"]);
    pair.stop();
}

#[test]
fn strangers_have_only_so_much_time_and_so_many_frames() {
    let mut pair = start_ws(1, "login_s = 1", "");
    let (mut socket, conn) = client(&mut pair);
    assert_eq!(close_status(&mut socket), 1008);
    assert_eq!(pair.server.closed(conn), CloseReason::Limit);
    pair.stop();

    let mut pair = start_ws(1, "", "");
    let (mut socket, conn) = client(&mut pair);
    // 16 KiB of Pings without payload.
    let flood = frame(0x89, b"").repeat(16 * 1024 / 6 + 1);
    socket.write_all(&flood).expect("write");
    let mut pongs = 0;
    let status = loop {
        match next(&mut socket) {
            (0x8A, payload) => {
                assert!(payload.is_empty());
                pongs += 1;
            }
            (0x88, payload) => break payload,
            other => panic!("{other:?}"),
        }
    };
    assert!(pongs <= 16 * 1024 / 6 + 1);
    assert_eq!(status, 1008u16.to_be_bytes());
    assert_eq!(pair.server.closed(conn), CloseReason::Limit);
    // Who has logged in may.
    let (mut socket, conn) = client(&mut pair);
    pair.server.send(Frame::Note(conn, NoteKey([5; 16])));
    pair.server.output(conn, "<a/>");
    assert_eq!(next(&mut socket).1, b"<a/>");
    socket.write_all(&flood).expect("write");
    socket.write_all(&text("<b/>")).expect("write");
    assert_eq!(messages(&mut pair, conn, 1), ["<b/>"]);
    pair.stop();
}

#[test]
fn bad_frames_end_the_connection_and_say_why() {
    let mut pair = start_ws(1, "", "");
    let rows: [(&str, Vec<u8>, u16); 9] = [
        ("no mask", b"\x81\x01x".to_vec(), 1002),
        ("reserved bit", frame(0xC1, b"<a/>"), 1002),
        ("reserved opcode", frame(0x83, b"<a/>"), 1002),
        (
            "control frame of 126 bytes",
            frame(0x89, &[b'x'; 126]),
            1002,
        ),
        ("control frame in fragments", frame(0x09, b"x"), 1002),
        ("binary", frame(0x82, b"<a/>"), 1003),
        ("not UTF-8", frame(0x81, b"<a>\xFF</a>"), 1007),
        ("2^63 bytes", b"\x81\xFF\x80\0\0\0\0\0\0\0".to_vec(), 1002),
        ("2^62 bytes", b"\x81\xFF\x40\0\0\0\0\0\0\0".to_vec(), 1009),
    ];
    for (what, bytes, want) in rows {
        let (mut socket, conn) = client(&mut pair);
        socket.write_all(&text("<before/>")).expect("write");
        socket.write_all(&bytes).expect("write");
        socket.write_all(&text("<after/>")).expect("write");
        assert_eq!(close_status(&mut socket), want, "{what}");
        assert_closed(&mut socket);
        drop(socket);
        assert_eq!(messages(&mut pair, conn, 1), ["<before/>"], "{what}");
        assert_eq!(
            pair.server.closed(conn),
            CloseReason::PolicyViolation,
            "{what}"
        );
        pair.server.never(
            "more input",
            3,
            |e| matches!(e, ServerEvent::Input(c, _) if *c == conn),
        );
    }
    pair.stop();
}

#[test]
fn an_idle_connection_is_pinged() {
    let mut pair = start_ws(2, "", "[websocket]\nping_s = 1\n");
    let (mut socket, conn) = client(&mut pair);
    for _ in 0..2 {
        assert_eq!(next(&mut socket), (0x89, Vec::new()));
        socket.write_all(&frame(0x8A, b"")).expect("write");
    }
    pair.server.output(conn, "<a/>");
    while next(&mut socket).1 != b"<a/>" {}
    pair.stop();
}

#[test]
fn input_waits_for_room_and_a_new_server_gets_whole_messages() {
    for threads in [1, 2] {
        let mut pair = start_ws(threads, "", "");
        let (mut socket, conn) = client(&mut pair);
        pair.server.send(Frame::Note(conn, NoteKey([9; 16])));
        let first = format!("<a>{}</a>", "x".repeat(9_000));
        let second = format!("<b>{}</b>", "y".repeat(9_000));
        socket.write_all(&text(&first)).expect("write");
        socket.write_all(&text(&second)).expect("write");
        // The window is 16 KiB: the second comes up to there.
        let mut got = 0;
        while got < 16_384 {
            got += pair.server.wait("Input", |e| match e {
                ServerEvent::Input(c, input) if *c == conn => Some(input.bytes.len()),
                _ => None,
            });
        }
        pair.server.restart();
        assert!(!pair.server.up());
        let resume = pair.server.wait("Resumed", |e| match e {
            ServerEvent::Resumed(c, resume) if *c == conn => Some(resume.clone()),
            _ => None,
        });
        assert_eq!(resume.open.transport, Transport::WebSocket);
        pair.server.settle(conn, first.len() as u64, 1, 100_000);
        assert_eq!(messages(&mut pair, conn, 2), [first, second]);
        pair.server.output(conn, "<c/>");
        assert_eq!(next(&mut socket), (0x81, b"<c/>".to_vec()));
        pair.stop();
    }
}

#[test]
fn a_mux_that_stops_says_so() {
    let mut pair = start_ws(1, "", "");
    let (mut socket, _) = client(&mut pair);
    pair.mux.stop();
    let reader = std::thread::spawn(move || {
        let status = close_status(&mut socket);
        assert_closed(&mut socket);
        status
    });
    pair.server.until_left();
    pair.mux.join().expect("ends in order");
    assert_eq!(reader.join().expect("no panic"), 1001);
}

#[test]
fn without_a_server_clients_are_told() {
    // A second connection arrives while the link is being greeted anew: it waits, or is told.
    let mut pair = start_ws(1, "", "");
    let (_first, _) = client(&mut pair);
    // Accepted while there is a server, asked for when there is none.
    let mut late = pair.plain();
    late.write_all(b"GET /xmpp-websocket HTTP/1.1\r\n")
        .expect("write");
    for _ in 0..20 {
        pair.server.pump();
    }
    pair.server.go_away();
    wait_link_down(&pair);
    let rest = websocket::REQUEST.split_once("\r\n").expect("lines").1;
    late.write_all(rest.as_bytes()).expect("write");
    assert!(head(&mut late).starts_with("HTTP/1.1 503 "));
    pair.stop();
}

/// An outage that lasts: what the mux knows by itself is answered, and who wants a server hears in HTTP that there is none.
#[test]
fn after_a_while_without_a_server_http_is_answered() {
    let more = "[websocket]\nhost_meta = [\"wss://example.org/xmpp-websocket\"]\n";
    for threads in [1, 2] {
        let mut pair = start_ws(threads, "", more);
        pair.server.go_away();
        wait_link_down(&pair);
        for (request, want) in [
            (
                "GET /.well-known/host-meta.json HTTP/1.1\r\nHost: x\r\n\r\n",
                ["HTTP/1.1 200 ", "wss://example.org/xmpp-websocket"],
            ),
            (websocket::REQUEST, ["HTTP/1.1 503 ", "\r\nRetry-After: "]),
        ] {
            let mut plain = pair.plain();
            plain.write_all(request.as_bytes()).expect("write");
            let mut answer = String::new();
            plain.read_to_string(&mut answer).expect("read");
            assert!(want.iter().all(|part| answer.contains(part)), "{answer}");
            let socket = connect(pair.mux.addresses()[1]);
            let mut tls = secure(pair.tls_config(), socket, "example.org").expect("TLS");
            tls.write_all(request.as_bytes()).expect("write");
            let mut answer = String::new();
            tls.read_to_string(&mut answer).expect("close_notify comes");
            assert!(want.iter().all(|part| answer.contains(part)), "{answer}");
        }
        pair.stop();
    }
}

fn wait_link_down(pair: &Pair) {
    use std::sync::atomic::Ordering::Relaxed;
    let until = std::time::Instant::now() + PATIENCE;
    while pair.mux.metrics().link_up.load(Relaxed) != 0 {
        assert!(std::time::Instant::now() < until, "the link stays up");
        std::thread::yield_now();
    }
}
