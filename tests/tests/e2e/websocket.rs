//! WebSocket: what only this transport has. What it shares with the others is in `scripts.rs`, `bad_inputs.rs`, `bad_logins.rs`
//! and `floods.rs`; frames that are wrong are also in `mux/tests/websocket.rs`.

use super::bad_inputs::{bystander, offender};
use isthmus_tests::client::{Account, Client, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::websocket::{frame, read_head, request};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const BOTH: [Transport; 2] = [Transport::WebSocket, Transport::WebSocketTls];

fn site(embedded: bool) -> Site {
    let plan = Plan {
        plaintext: false,
        embedded,
        ..Plan::default()
    };
    Site::start(&plan, &[offender(), bystander()]).unwrap()
}

/// One element in each message: neither two, nor one in two. Whoever does otherwise is told and sent away.
#[test]
fn a_message_is_one_element() {
    let site = site(false);
    let mut witness = site.login(Transport::StartTls, &bystander()).unwrap();
    witness.available().unwrap();
    let presence = "<presence xmlns='jabber:client'/>";
    let rows: [(&str, Vec<Vec<u8>>); 4] = [
        (
            "two elements in one message",
            vec![frame(0x81, presence.repeat(2).as_bytes())],
        ),
        (
            "an element in two messages",
            vec![
                frame(0x81, &presence.as_bytes()[..9]),
                frame(0x81, &presence.as_bytes()[9..]),
            ],
        ),
        (
            "half an element",
            vec![frame(0x81, b"<message xmlns='jabber:client'>")],
        ),
        (
            "two elements in fragments of one message",
            vec![
                frame(0x01, presence.as_bytes()),
                frame(0x00, presence.as_bytes()),
                frame(0x80, b""),
            ],
        ),
    ];
    for transport in BOTH {
        for (what, frames) in &rows {
            let mut client = site.login(transport, &offender()).unwrap();
            for frame in frames {
                // The first may have been too much.
                let _ = client.write(frame);
            }
            let condition = client.until_closed().unwrap();
            assert_eq!(condition.as_deref(), Some("not-well-formed"), "{what}");
            assert_eq!(client.close_status(), Some(1008), "{what}");
        }
        // A stanza must say its namespace; without one it is none.
        let mut client = site.login(transport, &offender()).unwrap();
        client.send_bytes(b"<presence/>").unwrap();
        let condition = client.until_closed().unwrap();
        assert_eq!(condition.as_deref(), Some("unsupported-stanza-type"));
        // Nor is the end of a TCP stream one here.
        let mut client = site.login(transport, &offender()).unwrap();
        client.send_bytes(b"</stream:stream>").unwrap();
        assert!(client.until_closed().unwrap().is_some());
    }
    witness.ping().unwrap();
}

/// Frames that no client may send end the connection with the status of RFC 6455, and its session with it.
#[test]
fn bad_frames_end_the_session() {
    let site = site(false);
    let mut witness = site.login(Transport::StartTls, &offender()).unwrap();
    witness.available().unwrap();
    let rows: [(&str, Vec<u8>, u16); 7] = [
        ("no mask", b"\x81\x03<a>".to_vec(), 1002),
        (
            "control frame of 126 bytes",
            frame(0x89, &[b'x'; 126]),
            1002,
        ),
        ("control frame in fragments", frame(0x09, b""), 1002),
        ("reserved bit, as of compression", frame(0xC1, b"x"), 1002),
        (
            "binary",
            frame(0x82, b"<presence xmlns='jabber:client'/>"),
            1003,
        ),
        ("not UTF-8", frame(0x81, b"<a>\xC0\xAF</a>"), 1007),
        (
            "2^62 bytes",
            b"\x81\xFF\x40\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            1009,
        ),
    ];
    for transport in BOTH {
        for (what, bytes, status) in &rows {
            let mut client = site.login(transport, &offender()).unwrap();
            client.available().unwrap();
            let jid = client.jid.clone();
            client.write(bytes).unwrap();
            assert_eq!(client.until_closed().unwrap(), None, "{what}");
            assert_eq!(client.close_status(), Some(*status), "{what}");
            witness
                .element_where("that it is gone", |e| {
                    e.attr("from") == Some(&jid) && e.attr("type") == Some("unavailable")
                })
                .unwrap();
        }
    }
}

/// The end, begun by either side: `<close/>` is answered by `<close/>`, then the WebSocket is closed with 1000.
#[test]
fn both_sides_end_in_good_order() {
    let mut site = site(false);
    for transport in BOTH {
        let mut client = site.login(transport, &offender()).unwrap();
        client.send("</stream:stream>").unwrap();
        assert_eq!(client.until_closed().unwrap(), None);
        assert_eq!(client.close_status(), Some(1000));

        // The WebSocket alone is closed by the client: as a connection that is lost.
        let mut client = site.login(transport, &offender()).unwrap();
        client.write(&frame(0x88, b"\x0F\xA1")).unwrap();
        assert_eq!(client.until_closed().unwrap(), None);
        assert_eq!(client.close_status(), Some(4001));

        // The server ends it.
        let resource = Some("one");
        let endpoint = site.endpoint(transport);
        let mut first = Client::login(&endpoint, &offender(), resource).unwrap();
        let _second = Client::login(&endpoint, &offender(), resource).unwrap();
        let condition = first.until_closed().unwrap();
        assert_eq!(condition.as_deref(), Some("conflict"));
        assert_eq!(first.close_status(), Some(1000));
    }
    let mut left = site.login(Transport::WebSocketTls, &bystander()).unwrap();
    site.mux().terminate().unwrap();
    left.until_closed().unwrap();
    assert!(left.close_status().is_some());
}

/// Presence and messages between the transports, in both directions; each sees the other's as its own transport writes them.
#[test]
fn all_transports_talk_to_each_other() {
    let people: Vec<Account> = ["a", "b", "c", "d"].map(Account::new).into();
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let site = Site::start(&plan, &people).unwrap();
    let transports = [
        Transport::StartTls,
        Transport::DirectTls,
        Transport::WebSocket,
        Transport::WebSocketTls,
    ];
    // Several resources of one account hear each other's presence by one Fanout.
    let mut clients: Vec<Client> = transports
        .iter()
        .map(|&transport| {
            let mut client = site.login(transport, &people[0]).unwrap();
            client.available().unwrap();
            client
        })
        .collect();
    for n in 0..clients.len() {
        let jid = clients[n].jid.clone();
        clients[n]
            .send("<presence><status>here</status></presence>")
            .unwrap();
        for client in &mut clients {
            client
                .element_where("its presence", |e| {
                    e.attr("from") == Some(&jid) && e.child("status").is_some()
                })
                .unwrap();
        }
        for m in 0..clients.len() {
            let to = clients[m].jid.clone();
            let body = format!("from {n} to {m} <&> é🦀");
            clients[n].chat(&to, &body).unwrap();
            assert_eq!(clients[m].next_body().unwrap(), body);
        }
    }
    let listed = site.imadmin_json(["session", "list"]).unwrap().to_string();
    for name in ["\"ws\"", "\"wss\""] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
}

/// `kill -9` of the server between two halves of a message: the client notices nothing, and its message arrives once.
#[test]
fn half_a_message_outlives_the_server() {
    let mut site = site(false);
    let mut reader = site.login(Transport::StartTls, &bystander()).unwrap();
    reader.available().unwrap();
    let mut clients: Vec<Client> = BOTH
        .map(|transport| {
            let mut client = site.login(transport, &offender()).unwrap();
            client.available().unwrap();
            client.ping().unwrap();
            client
        })
        .into();
    let text = |n: usize| {
        format!(
            "<message xmlns='jabber:client' type='chat' to='bystander@localhost'><body>whole {n} é</body></message>"
        )
    };
    for (n, client) in clients.iter_mut().enumerate() {
        let text = text(n);
        let middle = text.find("</body>").unwrap() - 1;
        // In the middle of a character.
        client
            .write(&frame(0x01, &text.as_bytes()[..middle]))
            .unwrap();
    }
    site.kill_server();
    for (n, client) in clients.iter_mut().enumerate() {
        let text = text(n);
        let middle = text.find("</body>").unwrap() - 1;
        client
            .write(&frame(0x00, &text.as_bytes()[middle..]))
            .unwrap();
        client.write(&frame(0x80, b"")).unwrap();
    }
    site.start_server().unwrap();
    let mut bodies = [reader.next_body().unwrap(), reader.next_body().unwrap()];
    bodies.sort();
    assert_eq!(bodies, ["whole 0 é", "whole 1 é"]);
    for client in &mut clients {
        client.ping().unwrap();
        client.chat(&reader.jid, "after").unwrap();
        assert_eq!(reader.next_body().unwrap(), "after");
    }
}

/// What the set-up of `imadmin init` answers: the addresses of XEP-0156, and nothing to those who want something else.
#[test]
fn the_set_up_answers_in_http() {
    for embedded in [false, true] {
        let site = site(embedded);
        let ask = |text: &str| {
            let mut tcp = TcpStream::connect(site.address(5280)).unwrap();
            tcp.set_read_timeout(Some(isthmus_tests::wait::PATIENCE))
                .unwrap();
            tcp.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).unwrap();
            answer
        };
        let get = |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let url = format!(
            "wss://localhost:{}/xmpp-websocket",
            5443 + site.port_offset()
        );
        for path in ["/.well-known/host-meta", "/.well-known/host-meta.json"] {
            let answer = get(path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(
                answer.contains("\r\nAccess-Control-Allow-Origin: *\r\n"),
                "{answer}"
            );
            assert!(answer.contains(&url), "{answer}");
        }
        let json = get("/.well-known/host-meta.json");
        let body = json.split_once("\r\n\r\n").unwrap().1;
        let links: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            links["links"][0]["rel"],
            "urn:xmpp:alt-connections:websocket"
        );
        assert_eq!(links["links"][0]["href"], url.as_str());
        let good = request("localhost");
        let rows = [
            (good.replace("Protocol: xmpp", "Protocol: chat"), 400),
            (good.replace("Sec-WebSocket-Protocol: xmpp\r\n", ""), 400),
            (good.replace("Version: 13", "Version: 8"), 426),
            (good.replace("GET", "POST"), 405),
            (
                good.replace("/xmpp-websocket", "/%2e%2e/xmpp-websocket"),
                404,
            ),
            (
                good.replace("Version: 13", "Version: 13\r\nOrigin: https://evil.example"),
                403,
            ),
            (
                good.replace(
                    "Version: 13",
                    &format!("Version: 13\r\nA: {}", "x".repeat(9_000)),
                ),
                431,
            ),
        ];
        for (text, status) in rows {
            let answer = ask(&text);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
        // The pages of the host itself, and of whoever was named: without a restart.
        let mut tcp = TcpStream::connect(site.address(5280)).unwrap();
        let own = good.replace(
            "Version: 13",
            "Version: 13\r\nOrigin: https://localhost:8443",
        );
        tcp.write_all(own.as_bytes()).unwrap();
        assert!(read_head(&mut tcp).unwrap().starts_with("HTTP/1.1 101 "));
        // With channel binding, as on every TLS.
        let sasl = Sasl::Mechanism("SCRAM-SHA-256-PLUS".into());
        let endpoint = site.endpoint(Transport::WebSocketTls);
        let mut client = Client::login_with(&endpoint, &offender(), None, &sasl).unwrap();
        client.ping().unwrap();
    }
}
