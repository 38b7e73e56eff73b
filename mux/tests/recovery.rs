//! A lost link is not a lost process; a lost server is not a lost client.

mod common;

use std::io::{Read as _, Write as _};

use common::{Setup, assert_closed, connect, read_exact, secure, start};
use proto::frame::*;
use proto::server_side::ServerEvent;

fn setups() -> [Setup; 2] {
    [
        Setup::default(),
        Setup {
            threads: 3,
            ..Setup::default()
        },
    ]
}

fn note(n: u8) -> NoteKey {
    NoteKey([n; 16])
}

#[test]
fn a_cut_link_goes_on_where_it_stopped() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        for round in 0..5 {
            client
                .write_all(format!("<in n='{round}'/>").as_bytes())
                .expect("write");
            assert_eq!(
                pair.server.input(conn, 11),
                format!("<in n='{round}'/>").as_bytes()
            );
            pair.server.output(conn, format!("<out n='{round}'/>"));
            pair.server.cut();
            client.write_all(b"<while-cut/>").expect("write");
            assert!(pair.server.up(), "the link goes on");
            assert_eq!(pair.server.input(conn, 12), b"<while-cut/>");
            assert_eq!(
                read_exact(&mut client, 12),
                format!("<out n='{round}'/>").as_bytes()
            );
        }
        pair.server.drained(conn, 5);
        pair.stop();
    }
}

#[test]
fn a_restarted_server_gets_its_sessions_with_their_unsettled_input_and_counts() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        let (mut stranger, untold) = pair.client();
        let mut tls = secure(
            pair.tls_config(),
            connect(pair.mux.addresses()[1]),
            "example.org",
        )
        .expect("handshake");
        let (tls_conn, open) = pair.server.opened();
        pair.server.send(Frame::Note(conn, note(1)));
        pair.server.send(Frame::Note(tls_conn, note(2)));
        // It counts from the element on that tells of it.
        pair.server.output(tls_conn, "<told/>");
        assert_eq!(read_exact(&mut tls, 7), b"<told/>");
        // This one is never told of its session: for the next server it has none.
        pair.server.send(Frame::Note(untold, note(3)));
        client.write_all(b"<settled/><unsettled/>").expect("write");
        assert_eq!(pair.server.input(conn, 22), b"<settled/><unsettled/>");
        pair.server.settle(conn, 10, 1, 10_000);
        pair.server.output(conn, "<one/>");
        assert_eq!(read_exact(&mut client, 6), b"<one/>");
        pair.server.drained(conn, 1);

        pair.server.restart();
        client.write_all(b"<while-dead/>").expect("write");
        assert!(!pair.server.up(), "another server");
        let resumed = |key: NoteKey| {
            move |e: &ServerEvent| match e {
                ServerEvent::Resumed(conn, resume) if resume.note == Some(key) => {
                    Some((*conn, resume.clone()))
                }
                _ => None,
            }
        };
        let (again, resume) = pair.server.wait("Resumed", resumed(note(1)));
        assert_eq!(again, conn);
        assert_eq!(
            (
                resume.settled_bytes,
                resume.settled_stanzas,
                resume.elements,
                resume.drained
            ),
            (10, 1, 1, 1)
        );
        assert_eq!(pair.server.input(conn, 25), b"<unsettled/><while-dead/>");
        let (again, resume) = pair.server.wait("Resumed", resumed(note(2)));
        assert_eq!((again, &resume.open), (tls_conn, &*open));
        // Who had no Note is closed by the mux or listed as closed; the socket ends either way.
        pair.server.wait("ResumeEnd", |e| {
            matches!(e, ServerEvent::ResumeEnd).then_some(())
        });
        if let Some(conn) = pair.server.resumed_without_note() {
            pair.server.close(conn, b"", CloseReason::NotResumable);
        }
        assert_closed(&mut stranger);

        pair.server.output(conn, "<two/>");
        pair.server.output(tls_conn, "<three/>");
        assert_eq!(read_exact(&mut client, 6), b"<two/>");
        assert_eq!(read_exact(&mut tls, 8), b"<three/>");
        tls.write_all(b"<four/>").expect("write");
        assert_eq!(pair.server.input(tls_conn, 7), b"<four/>");
        pair.server.drained(conn, 2);
        pair.stop();
    }
}

#[test]
fn new_clients_wait_while_the_server_restarts() {
    let mut pair = start(&Setup::default());
    pair.server.restart();
    let mut early = pair.plain();
    early.write_all(b"<hello/>").expect("write");
    assert!(!pair.server.up());
    let (conn, _) = pair.server.opened();
    assert_eq!(pair.server.input(conn, 8), b"<hello/>");
    pair.stop();
}

/// Later they are turned away, with an end in good order: a reset would say that something is broken.
#[test]
fn new_clients_of_a_server_that_stays_away_see_the_end() {
    for setup in setups() {
        let mut pair = start(&setup);
        pair.server.go_away();
        for address in [pair.mux.addresses()[0], pair.mux.addresses()[1]] {
            for _ in 0..2 {
                let mut client = common::connect(address);
                client.write_all(&[b'x'; 10_000]).expect("write");
                let read = client.read(&mut [0; 16]);
                assert_eq!(read.expect("an end, no reset"), 0);
            }
        }
        pair.stop();
    }
}

#[test]
fn clients_of_a_server_lost_for_too_long_are_closed() {
    let mut pair = start(&Setup {
        limits: "server_lost_s = 1",
        ..Setup::default()
    });
    let (mut client, conn) = pair.client();
    pair.server.send(Frame::Note(conn, note(1)));
    pair.server.output(conn, "<x/>");
    assert_eq!(read_exact(&mut client, 4), b"<x/>");
    pair.server.go_away();
    assert_closed(&mut client);
    pair.mux.stop();
    pair.mux.join().expect("ends in order");
}

#[test]
fn a_client_that_ends_while_the_link_is_cut_is_reported_when_it_is_back() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        pair.server.output(conn, "<x/>");
        assert_eq!(read_exact(&mut client, 4), b"<x/>");
        pair.server.cut();
        client.write_all(b"<bye/>").expect("write");
        drop(client);
        assert!(pair.server.up());
        assert_eq!(pair.server.input(conn, 6), b"<bye/>");
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn a_server_that_breaks_the_protocol_loses_its_link_and_no_client_is_lost() {
    let mut pair = start(&Setup::default());
    let (mut client, conn) = pair.client();
    pair.server.send(Frame::Note(conn, note(1)));
    pair.server.pump();
    pair.server.write_garbage();
    pair.server.restart();
    assert!(!pair.server.up());
    pair.server.wait("Resumed", |e| {
        matches!(e, ServerEvent::Resumed(c, _) if *c == conn).then_some(())
    });
    pair.server.output(conn, "<still/>");
    assert_eq!(read_exact(&mut client, 8), b"<still/>");
    pair.stop();
}
