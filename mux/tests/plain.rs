//! Plain TCP: bytes both ways, order, counts, closing; on one thread and on several.

mod common;

use std::io::{Read as _, Write as _};
use std::time::Instant;

use common::{DRAIN_TICK, Setup, assert_closed, read_exact, start};
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

#[test]
fn bytes_travel_both_ways_in_order_and_are_counted_as_drained() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        client.write_all(b"<stream:stream>").expect("write");
        assert_eq!(pair.server.input(conn, 15), b"<stream:stream>");
        for n in 0..50 {
            pair.server.output(conn, format!("<m n='{n:02}'/>"));
        }
        for n in 0..50 {
            assert_eq!(
                read_exact(&mut client, 11),
                format!("<m n='{n:02}'/>").as_bytes()
            );
        }
        pair.server.drained(conn, 50);
        pair.stop();
    }
}

#[test]
fn open_says_kind_transport_and_both_addresses() {
    let mut pair = start(&Setup::default());
    let client = pair.plain();
    let (_, open) = pair.server.opened();
    assert_eq!(open.peer, client.local_addr().expect("addr"));
    assert_eq!(open.local, pair.mux.addresses()[0]);
    assert_eq!(
        (open.kind, open.transport),
        (ListenerKind::C2s, Transport::Tcp)
    );
    assert_eq!((open.tls, open.dial), (None, None));
    pair.stop();
}

#[test]
fn a_client_that_closes_is_closed_normally_after_its_last_input() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        client.write_all(b"</stream:stream>").expect("write");
        drop(client);
        assert_eq!(pair.server.input(conn, 16), b"</stream:stream>");
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn the_servers_close_delivers_its_last_bytes_and_counts_them() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        pair.server.output(conn, "<a/>");
        pair.server
            .close(conn, b"</stream:stream>", CloseReason::Normal);
        let mut all = String::new();
        client.read_to_string(&mut all).expect("read");
        assert_eq!(all, "<a/></stream:stream>");
        pair.server.drained(conn, 2);
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn no_more_is_read_than_the_window_allows_and_reading_goes_on_with_it() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        let all: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let sent = all.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).expect("write");
            client
        });
        let mut got = pair.server.input(conn, 16_384);
        pair.server.never("input past the window", 20, |e| {
            matches!(e, ServerEvent::Input(..))
        });
        while got.len() < all.len() {
            pair.server.settle(conn, got.len() as u64, 0, 16_384);
            let want = (all.len() - got.len()).min(16_384);
            got.extend(pair.server.input(conn, want));
        }
        assert_eq!(got, all);
        drop(writer.join().expect("writer"));
        assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        pair.stop();
    }
}

#[test]
fn a_long_element_arrives_whole() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        let long: Vec<u8> = (0..9_000_000u32).map(|n| (n % 249) as u8).collect();
        pair.server.output(conn, "<before/>");
        pair.server.output(conn, long.clone());
        let reader = std::thread::spawn(move || read_exact(&mut client, 9 + 9_000_000));
        pair.server.drained(conn, 2);
        assert!(reader.join().expect("reader")[9..] == long);
        pair.stop();
    }
}

#[test]
fn a_client_that_does_not_read_is_not_counted_as_drained_and_is_closed_when_it_is_too_slow() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (slow, conn) = pair.client();
        let (mut other, other_conn) = pair.client();
        let element = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        let mut gone = false;
        while !gone {
            // The link may say Gone at any time once the mux has closed it.
            pair.server.output_if_there(conn, element.clone());
            sent += 1;
            assert!(sent < 2_000, "125 MB for a client that does not read");
            pair.server.pump();
            gone = pair.server.saw_close(conn);
        }
        assert_eq!(pair.server.closed(conn), CloseReason::SlowClient);
        assert!(pair.server.drained_so_far(conn) < sent);
        // Its neighbour has noticed nothing.
        pair.server.output(other_conn, "<m/>");
        assert_eq!(read_exact(&mut other, 4), b"<m/>");
        drop(slow);
        pair.stop();
    }
}

#[test]
fn drained_stops_where_the_client_stops_reading() {
    let mut pair = start(&Setup {
        limits: "output_bytes_max = 67108864",
        ..Setup::default()
    });
    let (client, conn) = pair.client();
    pair.server.output(conn, "<first/>");
    pair.server.drained(conn, 1);
    // Fill the client's receive buffer and ours: far more than loopback buffers, in elements below the backlog limit.
    for _ in 0..120 {
        pair.server.output(conn, vec![b'y'; 64 * 1024]);
        pair.server.pump();
    }
    pair.server.output(conn, "<last/>");
    pair.server.never(
        "the last element drained",
        60,
        |e| matches!(e, ServerEvent::Drained(c, n) if *c == conn && *n >= 122),
    );
    assert!(pair.server.drained_so_far(conn) < 122);
    let mut client = client;
    let reader = std::thread::spawn(move || read_exact(&mut client, 8 + 120 * 64 * 1024 + 7));
    pair.server.drained(conn, 122);
    assert!(reader.join().expect("reader").ends_with(b"yy<last/>"));
    pair.stop();
}

#[test]
fn what_a_client_has_taken_much_of_is_told_before_what_it_says_next() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        for page in 1..=20u64 {
            for _ in 0..60 {
                pair.server.output(conn, [b'p'; 1_000].as_slice());
            }
            let _ = read_exact(&mut client, 60_000);
            client.write_all(b"<next/>").expect("write");
            assert_eq!(pair.server.input(conn, 7), b"<next/>");
            // It came with the input, or before; what a tick in between left may be less than what is much.
            let untold = page * 60 - pair.server.drained_so_far(conn);
            assert!(untold < 33, "{untold}");
        }
        pair.stop();
    }
}

#[test]
fn a_server_that_waits_until_much_is_taken_does_not_wait_for_the_tick() {
    const ROUNDS: u32 = 40;
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        let reader = std::thread::spawn(move || read_exact(&mut client, ROUNDS as usize * 64_000));
        let began = Instant::now();
        for round in 1..=u64::from(ROUNDS) {
            for _ in 0..4 {
                pair.server.output(conn, [b'f'; 16_000].as_slice());
            }
            pair.server.drained(conn, round * 4 - 2);
        }
        let took = began.elapsed();
        assert!(took < DRAIN_TICK * ROUNDS / 2, "{took:?}");
        let _ = reader.join().expect("reader");
        pair.stop();
    }
}

#[test]
fn small_elements_are_not_told_of_one_by_one() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        let began = Instant::now();
        for _ in 0..300 {
            pair.server.output(conn, [b'c'; 200].as_slice());
            let _ = read_exact(&mut client, 200);
            client.write_all(b"<r/>").expect("write");
            assert_eq!(pair.server.input(conn, 4), b"<r/>");
        }
        let ticks = began.elapsed().as_millis() / DRAIN_TICK.as_millis();
        // 60,000 bytes: at most twice 32 KiB on a machine that stands still, else once a tick.
        let told = pair.server.drained_words(conn);
        assert!(told as u128 <= ticks + 2, "{told} in {ticks} ticks");
        pair.server.drained(conn, 300);
        pair.stop();
    }
}

#[test]
fn a_stopping_mux_tells_the_server_and_closes_its_clients() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        pair.mux.stop();
        pair.server
            .wait("Drain", |e| matches!(e, ServerEvent::Drain).then_some(()));
        pair.server
            .close(conn, b"</stream:stream>", CloseReason::Shutdown);
        assert_eq!(read_exact(&mut client, 16), b"</stream:stream>");
        assert_closed(&mut client);
        assert_eq!(pair.server.closed(conn), CloseReason::Shutdown);
        pair.mux.join().expect("ends in order");
    }
}

#[test]
fn a_stopping_mux_does_not_wait_for_a_server_that_says_nothing() {
    let mut pair = start(&Setup::default());
    let (mut client, conn) = pair.client();
    pair.mux.stop();
    assert_eq!(pair.server.closed(conn), CloseReason::Shutdown);
    assert_closed(&mut client);
    pair.mux.join().expect("ends in order");
}
