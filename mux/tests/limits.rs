//! Counts, rates and ages; dialled connections.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use common::{PATIENCE, Setup, assert_closed, connect, read_exact, secure, start};
use proto::frame::*;
use proto::server_side::ServerEvent;

#[test]
fn more_connections_than_allowed_are_closed_at_once_and_room_is_used_again() {
    for threads in [1, 3] {
        let mut pair = start(&Setup {
            threads,
            limits: "conns_max = 3",
        });
        let mut inside: Vec<_> = (0..3).map(|_| pair.client()).collect();
        assert_closed(&mut pair.plain());
        let (client, conn) = inside.pop().expect("one");
        drop(client);
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        // The count goes down with the Closed the server has just seen.
        let (mut client, conn) = pair.client();
        client.write_all(b"<in/>").expect("write");
        assert_eq!(pair.server.input(conn, 5), b"<in/>");
        pair.stop();
    }
}

#[test]
fn one_address_gets_its_share_only() {
    let mut pair = start(&Setup {
        limits: "conns_per_address_max = 2\nexempt = []",
        ..Setup::default()
    });
    let _inside = [pair.client(), pair.client()];
    assert_closed(&mut pair.plain());
    assert!(
        pair.mux
            .metrics()
            .render()
            .contains("mux_refused_total{reason=\"address\"} 1\n")
    );
    pair.stop();
}

#[test]
fn who_does_not_log_in_is_closed_by_age_and_who_does_stays() {
    for threads in [1, 3] {
        let mut pair = start(&Setup {
            threads,
            limits: "login_s = 1",
        });
        let (mut stays, noted) = pair.client();
        let (mut idle, idle_conn) = pair.client();
        let (mut drips, drip_conn) = pair.client();
        pair.server.send(Frame::Note(noted, NoteKey([1; 16])));
        drips.write_all(b"<stream:stream").expect("write");
        assert_closed(&mut idle);
        assert_eq!(pair.server.closed(idle_conn), CloseReason::Limit);
        assert_eq!(pair.server.closed(drip_conn), CloseReason::Limit);
        assert_closed(&mut drips);
        pair.server.output(noted, "<x/>");
        assert_eq!(read_exact(&mut stays, 4), b"<x/>");
        pair.stop();
    }
}

#[test]
fn too_many_who_have_not_logged_in_keep_others_waiting_not_out() {
    for threads in [1, 3] {
        let mut pair = start(&Setup {
            threads,
            limits: "unauthenticated_max = 2",
        });
        let (_a, first) = pair.client();
        let (_b, _) = pair.client();
        let mut third = pair.plain();
        third.write_all(b"<hello/>").expect("write");
        pair.server
            .never("a third", 20, |e| matches!(e, ServerEvent::Opened(..)));
        pair.server.send(Frame::Note(first, NoteKey([1; 16])));
        let (conn, _) = pair.server.opened();
        assert_eq!(pair.server.input(conn, 8), b"<hello/>");
        pair.stop();
    }
}

#[test]
fn a_low_accept_rate_only_delays() {
    let mut pair = start(&Setup {
        limits: "accepts_per_s = 20",
        ..Setup::default()
    });
    let clients: Vec<_> = (0..10).map(|_| pair.plain()).collect();
    for _ in &clients {
        pair.server.opened();
    }
    pair.stop();
}

#[test]
fn handshakes_beyond_the_limits_wait_their_turn() {
    for threads in [1, 3] {
        let mut pair = start(&Setup {
            threads,
            limits: "handshakes_max = 1\nhandshakes_per_s = 50",
        });
        let address = pair.mux.addresses()[1];
        let config = pair.tls_config();
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let config = config.clone();
                std::thread::spawn(move || {
                    secure(config, connect(address), "example.org").expect("handshake")
                })
            })
            .collect();
        for _ in &clients {
            pair.server.opened();
        }
        for client in clients {
            client.join().expect("client");
        }
        let text = pair.mux.metrics().render();
        assert!(text.contains("mux_tls_handshakes_total 12\n"), "{text}");
        pair.stop();
    }
}

#[test]
fn half_open_handshakes_do_not_keep_others_out_for_long() {
    let mut pair = start(&Setup {
        limits: "handshakes_max = 1\nhandshake_s = 1",
        ..Setup::default()
    });
    let mut hog = connect(pair.mux.addresses()[1]);
    hog.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01])
        .expect("write");
    // The second comes after the first has been read: it answers a plain client that came later.
    let (_plain, _) = pair.client();
    let retry = connect(pair.mux.addresses()[1]);
    assert_closed(&mut hog);
    retry.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // Its own second may be over as well; then it comes again, as clients do.
    let config = pair.tls_config();
    let address = pair.mux.addresses()[1];
    let client = secure(config.clone(), retry, "example.org")
        .or_else(|_| secure(config, connect(address), "example.org"))
        .expect("handshake");
    pair.server.opened();
    drop(client);
    pair.stop();
}

fn dial(number: u64, port: u16, tls: DialTls) -> Frame {
    let target = DialTarget::Host("127.0.0.1".into(), port);
    Frame::Dial(Dial {
        dial: number,
        kind: ListenerKind::S2s,
        target,
        tls,
        server_name: "example.org".into(),
    })
}

fn dial_failed(pair: &mut common::Pair, number: u64) -> String {
    pair.server.wait("DialFailed", |e| match e {
        ServerEvent::DialFailed(n, why) if *n == number => Some(why.clone()),
        _ => None,
    })
}

#[test]
fn dialled_connections_are_opened_with_their_number_and_failures_are_told() {
    for threads in [1, 3] {
        let mut pair = start(&Setup {
            threads,
            ..Setup::default()
        });
        let far = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = far.local_addr().expect("addr").port();
        pair.server.send(dial(5, port, DialTls::Plain));
        let (mut socket, _) = far.accept().expect("dialled");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let (conn, open) = pair.server.opened();
        assert_eq!(
            (open.dial, open.kind, open.transport),
            (Some(5), ListenerKind::S2s, Transport::Tcp)
        );
        pair.server.output(conn, "<stream:stream>");
        assert_eq!(read_exact(&mut socket, 15), b"<stream:stream>");
        socket.write_all(b"<features/>").expect("write");
        assert_eq!(pair.server.input(conn, 11), b"<features/>");

        // A port nobody listens on any more.
        drop(far);
        pair.server.send(dial(6, port, DialTls::Plain));
        let why = dial_failed(&mut pair, 6);
        assert!(why.contains("refused"), "{why}");
        let target = DialTarget::Srv("example.org".into());
        let srv = Dial {
            dial: 7,
            kind: ListenerKind::S2s,
            target,
            tls: DialTls::Plain,
            server_name: "example.org".into(),
        };
        pair.server.send(Frame::Dial(srv));
        assert!(dial_failed(&mut pair, 7).contains("SRV"));
        pair.stop();
    }
}

#[test]
fn a_dialled_connection_can_do_tls_both_ways() {
    let mut pair = start(&Setup::default());
    // The far end is a listener of the same mux: direct TLS for clients has another ALPN, so plain TCP and STARTTLS.
    let port = pair.mux.addresses()[0].port();
    pair.server.send(dial(1, port, DialTls::Plain));
    let (a, open_a) = pair.server.opened();
    let (b, open_b) = pair.server.opened();
    let (dialled, accepted) = if open_a.dial.is_some() {
        (a, b)
    } else {
        (b, a)
    };
    assert_eq!(
        [&open_a, &open_b]
            .iter()
            .filter(|o| o.dial == Some(1))
            .count(),
        1
    );
    let start_tls = |last: &'static [u8]| StartTls {
        last: last.into(),
        request_client_certificate: false,
    };
    pair.server
        .send(Frame::StartTls(accepted, start_tls(b"<proceed/>")));
    assert_eq!(pair.server.input(dialled, 10), b"<proceed/>");
    pair.server.send(Frame::StartTls(dialled, start_tls(b"")));
    let (ours, theirs) = (pair.server.secured(dialled), pair.server.secured(accepted));
    assert_eq!(ours.exporter, theirs.exporter);
    assert!(ours.exporter.is_some());
    assert!(
        matches!(ours.client_certificate, Some((_, false))),
        "their certificate, not verified"
    );
    pair.server.output(dialled, "<over-tls/>");
    assert_eq!(pair.server.input(accepted, 11), b"<over-tls/>");
    pair.server.output(accepted, "<and-back/>");
    assert_eq!(pair.server.input(dialled, 11), b"<and-back/>");
    pair.stop();
}

#[test]
fn a_client_that_resets_is_a_socket_error_and_its_last_input_is_not_lost() {
    let mut pair = start(&Setup::default());
    let (mut client, conn) = pair.client();
    pair.server.output(conn, "<unread/>");
    pair.server.drained(conn, 1);
    client.write_all(b"<last/>").expect("write");
    assert_eq!(pair.server.input(conn, 7), b"<last/>");
    // Closing with unread bytes makes the kernel send a reset.
    drop(client);
    assert_eq!(pair.server.closed(conn), CloseReason::SocketError);
    pair.stop();
}

#[test]
fn limits_can_be_changed_while_running() {
    let mut pair = start(&Setup {
        limits: "conns_max = 1",
        ..Setup::default()
    });
    let (mut first, conn) = pair.client();
    assert_closed(&mut pair.plain());
    let config = common::configuration(
        pair.dir.path(),
        &Setup {
            limits: "conns_max = 2",
            ..Setup::default()
        },
    );
    let said = pair.mux.reload(config);
    assert_eq!(said, [mux::Change::Taken("limits changed".into())]);
    // The reload is taken at the link thread's next turn; a client that is too early is refused and comes again.
    let mut second = loop {
        let mut client = pair.plain();
        client
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .expect("timeout");
        match client.read(&mut [0; 1]) {
            Ok(0) => {}
            _ => break client,
        }
    };
    pair.server.output(conn, "<x/>");
    assert_eq!(read_exact(&mut first, 4), b"<x/>");
    second.write_all(b"<y/>").expect("write");
    let (second_conn, _) = pair.server.opened();
    assert_eq!(pair.server.input(second_conn, 4), b"<y/>");
    pair.stop();
}
