//! Listeners behind a load balancer: whose address counts, and what becomes of those who say nothing valid.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Pair, Setup, assert_closed, configuration_from, configuration_text, connect,
    read_exact, secure, start_from, write_certificate,
};
use proto::server_side::ServerEvent;

/// As `start`, both listeners behind balancers at these addresses.
fn start(threads: usize, limits: &'static str, from: &str) -> Pair {
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path(), "example", "example.org");
    write_certificate(dir.path(), "other", "other.example");
    let text = configuration_text(&Setup { threads, limits });
    let behind =
        format!("listen = [\"127.0.0.1:0\"]\nproxy_protocol = true\nproxy_from = [{from}]\n[[");
    let text = text.replace("listen = [\"127.0.0.1:0\"]\n[[", &behind);
    assert_eq!(text.matches("proxy_from").count(), 2);
    let config = configuration_from(dir.path(), &text);
    start_from(dir, config)
}

const LOOPBACK: &str = "\"127.0.0.0/8\"";

fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("address");
    let (name, server) = if client.is_ipv4() {
        ("TCP4", "198.51.100.1")
    } else {
        ("TCP6", "2001:db8::1")
    };
    let (ip, port) = (client.ip(), client.port());
    format!("PROXY {name} {ip} {server} {port} 5222\r\n").into_bytes()
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend([command, family]);
    out.extend((block.len() as u16).to_be_bytes());
    out.extend(block);
    out
}

fn v2_of(client: &str, tlvs: &[u8]) -> Vec<u8> {
    let (mut block, family) = match client.parse().expect("address") {
        SocketAddr::V4(a) => ([a.ip().octets(), [198, 51, 100, 1]].concat(), 0x11),
        SocketAddr::V6(a) => ([a.ip().octets(), [0x20; 16]].concat(), 0x21),
    };
    let port = client.parse::<SocketAddr>().expect("address").port();
    block.extend([port.to_be_bytes(), 5222u16.to_be_bytes()].concat());
    block.extend(tlvs);
    v2(0x21, family, &block)
}

fn send(pair: &Pair, listener: usize, bytes: &[u8]) -> TcpStream {
    let mut socket = connect(pair.mux.addresses()[listener]);
    socket.write_all(bytes).expect("write");
    socket
}

fn refused(pair: &Pair, reason: &str) -> u64 {
    let text = pair.mux.metrics().render();
    let name = format!("mux_refused_total{{reason=\"{reason}\"}} ");
    let line = text.lines().find_map(|l| l.strip_prefix(&name));
    line.expect("the counter").parse().expect("a number")
}

#[test]
fn the_server_hears_of_the_client_not_of_the_balancer() {
    for threads in [1, 3] {
        let mut pair = start(threads, "", LOOPBACK);
        let tlvs = [&[0x02, 0, 11][..], b"example.org"].concat();
        let rows = [
            (v1("192.0.2.7:4001"), "192.0.2.7:4001"),
            (v1("[2001:db8::7]:4002"), "[2001:db8::7]:4002"),
            (v2_of("192.0.2.8:4003", &[]), "192.0.2.8:4003"),
            (v2_of("[2001:db8::8]:4004", &tlvs), "[2001:db8::8]:4004"),
            (v2_of("[::ffff:192.0.2.9]:4005", &[]), "192.0.2.9:4005"),
        ];
        for (header, client) in rows {
            // With the client's first bytes right behind it.
            let mut socket = send(&pair, 0, &[&header[..], b"<hello/>"].concat());
            let (conn, open) = pair.server.opened();
            assert_eq!(open.peer, client.parse().expect("address"));
            assert_eq!(pair.server.input(conn, 8), b"<hello/>");
            pair.server.output(conn, "<welcome/>");
            assert_eq!(read_exact(&mut socket, 10), b"<welcome/>");
            socket.write_all(b"<more/>").expect("write");
            assert_eq!(pair.server.input(conn, 7), b"<more/>");

            // Before direct TLS.
            let socket = send(&pair, 1, &header);
            let mut tls = secure(pair.tls_config(), socket, "example.org").expect("handshake");
            let (conn, open) = pair.server.opened();
            assert_eq!(open.peer, client.parse().expect("address"));
            tls.write_all(b"<hello/>").expect("write");
            assert_eq!(pair.server.input(conn, 8), b"<hello/>");
        }
        assert_eq!(refused(&pair, "proxy"), 0);
        pair.stop();
    }
}

#[test]
fn without_an_address_in_the_header_the_sockets_own_is_told() {
    let mut pair = start(1, "", LOOPBACK);
    for header in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[9; 12]),
        v2(0x21, 0x00, &[]),
        v2(0x21, 0x31, &[b'/'; 216]),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 2\r\n".to_vec(),
    ] {
        let socket = send(&pair, 0, &header);
        let (_, open) = pair.server.opened();
        assert_eq!(open.peer, socket.local_addr().expect("address"));
    }
    pair.stop();
}

#[test]
fn a_header_byte_by_byte_is_taken_and_nothing_behind_it_lost() {
    for threads in [1, 3] {
        let mut pair = start(threads, "", LOOPBACK);
        for header in [v1("192.0.2.7:4001"), v2_of("192.0.2.7:4001", &[])] {
            let mut socket = connect(pair.mux.addresses()[0]);
            for byte in &header {
                socket.write_all(&[*byte]).expect("write");
            }
            socket.write_all(b"<x/>").expect("write");
            let (conn, open) = pair.server.opened();
            assert_eq!(open.peer.to_string(), "192.0.2.7:4001");
            assert_eq!(pair.server.input(conn, 4), b"<x/>");
        }
        pair.stop();
    }
}

#[test]
fn whatever_is_no_valid_header_is_closed_without_a_word() {
    let mut pair = start(1, "", LOOPBACK);
    let mut bad: Vec<Vec<u8>> = vec![
        b"<?xml version='1.0'?><stream:stream to='example.org'>".to_vec(),
        vec![0x16, 0x03, 0x01, 0x02, 0x00],
        b"PROXY TCP4 192.0.2.7 192.0.2.8 99999 5222\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.7 192.0.2.8 1 5222\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x11, &[0; 8000]),
        v2(0x21, 0x11, &[1; 13]),
    ];
    // Twice is once too often: it would be the client's first byte.
    let count = bad.len() as u64;
    for listener in [0, 1] {
        for bytes in &mut bad {
            assert_closed(&mut send(&pair, listener, bytes));
        }
    }
    // Half of one, and the end.
    for header in [v1("192.0.2.7:1"), v2_of("192.0.2.7:1", &[])] {
        let mut socket = send(&pair, 0, &header[..header.len() - 1]);
        socket
            .shutdown(std::net::Shutdown::Write)
            .expect("shut down");
        assert_closed(&mut socket);
    }
    assert_eq!(refused(&pair, "proxy"), 2 * count + 2);
    // A check of the balancer that only connects is nothing to count.
    let mut check = connect(pair.mux.addresses()[0]);
    check
        .shutdown(std::net::Shutdown::Write)
        .expect("shut down");
    assert_closed(&mut check);
    assert_eq!(refused(&pair, "proxy"), 2 * count + 2);
    pair.server
        .never("a connection", 5, |e| matches!(e, ServerEvent::Opened(..)));
    let conns = "mux_conns 0\n";
    let until = Instant::now() + PATIENCE;
    while !pair.mux.metrics().render().contains(conns) {
        assert!(Instant::now() < until, "they are still counted");
        std::thread::yield_now();
    }
    pair.stop();
}

#[test]
fn who_is_no_balancer_is_closed_whatever_it_says() {
    let mut pair = start(1, "", "\"127.0.0.2\", \"2001:db8::/32\"");
    for listener in [0, 1] {
        let mut socket = connect(pair.mux.addresses()[listener]);
        // The mux may have closed it already.
        let _ = socket.write_all(&v1("192.0.2.7:1"));
        assert_closed(&mut socket);
    }
    assert_eq!(refused(&pair, "proxy"), 2);
    pair.server
        .never("a connection", 5, |e| matches!(e, ServerEvent::Opened(..)));
    pair.stop();
}

#[test]
fn a_header_that_does_not_end_in_time_is_given_up() {
    let mut pair = start(1, "proxy_header_s = 1\nunauthenticated_max = 4", LOOPBACK);
    let begun = Instant::now();
    let mut silent = connect(pair.mux.addresses()[0]);
    let mut half = send(&pair, 1, &v1("192.0.2.7:1")[..20]);
    let mut drips = connect(pair.mux.addresses()[0]);
    drips
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("timeout");
    let mut header = [b"PROXY UNKNOWN ", &[b'x'; 80][..]].concat().into_iter();
    loop {
        if let Some(byte) = header.next() {
            // Closed shows at the read.
            let _ = drips.write_all(&[byte]);
        }
        match drips.read(&mut [0; 1]) {
            Ok(0) => break,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                assert!(begun.elapsed() < PATIENCE, "it drips on");
            }
            other => {
                assert!(other.is_err(), "{other:?}");
                break;
            }
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "too soon");
    assert_closed(&mut silent);
    assert_closed(&mut half);
    assert_eq!(refused(&pair, "proxy"), 3);
    // Their places are free again.
    let _four: Vec<_> = (0..4)
        .map(|_| {
            let socket = send(&pair, 0, &v1("192.0.2.7:1"));
            pair.server.opened();
            socket
        })
        .collect();
    pair.stop();
}

#[test]
fn limits_per_address_are_the_clients_not_the_balancers() {
    for threads in [1, 3] {
        let mut pair = start(threads, "conns_per_address_max = 2\nexempt = []", LOOPBACK);
        let mut inside = Vec::new();
        for last in 1..=10 {
            for port in 1..=2 {
                inside.push(send(&pair, 0, &v1(&format!("192.0.2.{last}:{port}"))));
                pair.server.opened();
            }
        }
        assert_closed(&mut send(&pair, 0, &v2_of("192.0.2.3:3", &[])));
        assert_closed(&mut send(&pair, 0, &v1("[::ffff:192.0.2.3]:3")));
        assert_eq!(refused(&pair, "address"), 2);
        // Who leaves makes room, for its own address.
        drop(inside.swap_remove(4));
        pair.server.wait("Closed", |e| {
            matches!(e, ServerEvent::Closed(..)).then_some(())
        });
        let until = Instant::now() + PATIENCE;
        loop {
            let socket = send(&pair, 0, &v1("192.0.2.3:4"));
            pair.server.pump();
            let before = refused(&pair, "address");
            let mut probe = socket;
            probe
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("timeout");
            if !matches!(probe.read(&mut [0; 1]), Ok(0)) && refused(&pair, "address") == before {
                break;
            }
            assert!(Instant::now() < until, "no room again");
        }
        let (_, open) = pair.server.opened();
        assert_eq!(open.peer.to_string(), "192.0.2.3:4");
        pair.stop();
    }
}
