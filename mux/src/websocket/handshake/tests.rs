//! Requests that are good, and those that are refused.

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request() -> String {
    format!(
        "GET /xmpp-websocket HTTP/1.1\r\nHost: example.org:5443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: xmpp\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn policy() -> Policy {
    Policy {
        origins: vec!["https://chat.example.net".into(), "null".into()],
        any_origin: false,
        host_meta: vec![
            "wss://example.org:5443/xmpp-websocket".into(),
            "wss://b.example.org/x".into(),
        ],
    }
}

/// The number of the response.
fn status(request: &str) -> u16 {
    match respond(request.as_bytes(), &policy()) {
        Answer::Wait => 0,
        Answer::Upgrade(_) => 101,
        Answer::Http(text) | Answer::Foreign { text, .. } => {
            text["HTTP/1.1 ".len()..][..3].parse().expect("a number")
        }
    }
}

#[test]
fn a_request_comes_in_pieces() {
    let whole = request();
    for n in 0..whole.len() {
        assert_eq!(
            respond(&whole.as_bytes()[..n], &policy()),
            Answer::Wait,
            "{n}"
        );
    }
}

#[test]
fn what_clients_may_write_otherwise() {
    let rows = [
        ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        (
            "Connection: Upgrade",
            "connection: keep-alive\r\nConnection: upgrade",
        ),
        ("Protocol: xmpp", "Protocol: mqtt,xmpp"),
        (
            "Protocol: xmpp",
            "Protocol: mqtt\r\nsec-websocket-protocol: xmpp",
        ),
        (
            "Version: 13",
            "Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate",
        ),
        ("xmpp-websocket ", "xmpp-websocket?a=b "),
        ("Version: 13", "Version: 13\r\nContent-Length: 0"),
        ("Version: 13", "Version:13 "),
        // The same host; the ones that were named.
        ("Version: 13", "Version: 13\r\nOrigin: https://example.org"),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: http://EXAMPLE.org:8080",
        ),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: https://chat.example.net",
        ),
        ("Version: 13", "Version: 13\r\nOrigin: null"),
    ];
    for (from, to) in rows {
        assert_eq!(status(&request().replace(from, to)), 101, "{to}");
    }
}

#[test]
fn what_is_refused() {
    let long = format!("Version: 13\r\nCookie: {}", "x".repeat(HEAD_BYTES_MAX));
    let many = format!("Version: 13\r\n{}", "A: b\r\n".repeat(HEADERS_MAX));
    let rows = [
        ("GET", "POST", 405),
        ("GET", "HEAD", 405),
        ("GET", "OPTIONS", 405),
        ("GET", "get", 405),
        ("/xmpp-websocket", "/", 404),
        ("/xmpp-websocket", "/xmpp-websocket/", 404),
        ("/xmpp-websocket", "/xmpp-websocket/../x", 404),
        ("/xmpp-websocket", "/x/%2e%2e/xmpp-websocket", 404),
        ("/xmpp-websocket", "http://example.org/xmpp-websocket", 404),
        ("HTTP/1.1", "HTTP/1.0", 426),
        ("HTTP/1.1", "HTTP/2.0", 400),
        ("HTTP/1.1", "HTTP/0.9", 400),
        ("GET ", "GET  ", 400),
        ("GET ", "\u{16}\u{3}\u{1}", 400),
        ("Host: example.org:5443\r\n", "", 400),
        ("Host: example.org:5443\r\n", "Host:\r\n", 400),
        ("Host:", "Host: a\r\nHost:", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: close", 426),
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        (
            "Version: 13",
            "Version: 13\r\nSec-WebSocket-Version: 13",
            400,
        ),
        ("Sec-WebSocket-Protocol: xmpp\r\n", "", 400),
        ("Protocol: xmpp", "Protocol: mqtt", 400),
        ("Protocol: xmpp", "Protocol: XMPP", 400),
        ("Protocol: xmpp", "Protocol: xmpp2", 400),
        (KEY, "", 400),
        (KEY, "dGhlIHNhbXBsZQ==", 400),
        (KEY, "dGhlIHNhbXBsZSBub25jZQ", 400),
        (KEY, "!GhlIHNhbXBsZSBub25jZQ==", 400),
        ("Version: 13", "Version: 13\r\nContent-Length: 5", 400),
        (
            "Version: 13",
            "Version: 13\r\nTransfer-Encoding: chunked",
            400,
        ),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: https://evil.example",
            403,
        ),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: https://example.org.evil.example",
            403,
        ),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: https://evil.example#example.org",
            403,
        ),
        ("Version: 13", "Version: 13\r\nOrigin: file://", 403),
        ("Version: 13", "Version: 13\r\nOrigin: example.org", 403),
        (
            "Version: 13",
            "Version: 13\r\nOrigin: https://example.org\r\nOrigin: https://evil.example",
            400,
        ),
        ("Version: 13", &long, 431),
        ("Version: 13", &many, 431),
        ("13\r\n\r\n", "13\r\n\r\n<open/>", 400),
        ("13\r\n", "13\r\n folded\r\n", 400),
        ("Host:", "Host :", 400),
    ];
    for (from, to, want) in rows {
        let changed = request().replace(from, to);
        assert_ne!(changed, request(), "{to}");
        assert_eq!(status(&changed), want, "{to}");
    }
    // Never finished.
    assert_eq!(status(&format!("GET /{}", "x".repeat(HEAD_BYTES_MAX))), 431);
    let mut unfinished = request();
    unfinished.truncate(unfinished.len() - 2);
    unfinished.push_str(&"A: b\r\n".repeat(2_000));
    assert_eq!(status(&unfinished), 431);
}

#[test]
fn the_policy_of_origins() {
    let foreign = request().replace("Version: 13", "Version: 13\r\nOrigin: https://evil.example");
    let any = Policy {
        any_origin: true,
        ..Policy::default()
    };
    assert!(matches!(
        respond(foreign.as_bytes(), &any),
        Answer::Upgrade(_)
    ));
    let null = request().replace("Version: 13", "Version: 13\r\nOrigin: null");
    let Answer::Foreign { text, origin, host } = respond(null.as_bytes(), &Policy::default())
    else {
        panic!("let in");
    };
    assert_eq!((&*origin, &*host), ("null", "example.org:5443"));
    assert!(text.contains("`websocket.origins`"), "{text}");
}

#[test]
fn host_meta_is_told_to_everybody() {
    let ask = |path: &str, policy: &Policy| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: example.org\r\nOrigin: https://evil.example\r\n\r\n"
        );
        match respond(request.as_bytes(), policy) {
            Answer::Http(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let xml = ask("/.well-known/host-meta", &policy());
    assert!(xml.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(xml.contains("\r\nAccess-Control-Allow-Origin: *\r\n"));
    assert!(xml.contains("\r\nContent-Type: application/xrd+xml\r\n"));
    assert!(
        xml.contains(
            "<Link rel='urn:xmpp:alt-connections:websocket' href='wss://b.example.org/x'/>"
        )
    );
    let json = ask("/.well-known/host-meta.json?x", &policy());
    assert!(json.contains("\r\nAccess-Control-Allow-Origin: *\r\n"));
    assert!(json.ends_with(
        "\r\n\r\n{\"links\":[{\"rel\":\"urn:xmpp:alt-connections:websocket\",\"href\":\"wss://example.org:5443/xmpp-websocket\"},\
         {\"rel\":\"urn:xmpp:alt-connections:websocket\",\"href\":\"wss://b.example.org/x\"}]}\n"
    ));
    for path in ["/.well-known/host-meta", "/.well-known/host-meta.json"] {
        assert!(ask(path, &Policy::default()).starts_with("HTTP/1.1 404 "));
    }
}

#[test]
fn head_is_get_without_a_body() {
    let ask = |method: &str, path: &str| {
        let text = format!("{method} {path} HTTP/1.1\r\nHost: example.org\r\n\r\n");
        match respond(text.as_bytes(), &policy()) {
            Answer::Http(text) => text,
            other => panic!("{other:?}"),
        }
    };
    for path in [
        "/.well-known/host-meta",
        "/.well-known/host-meta.json",
        "/nothing",
    ] {
        let (get, head) = (ask("GET", path), ask("HEAD", path));
        assert!(
            get.starts_with(&head) && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert!(get.len() > head.len(), "{get}");
    }
    let upgrade = request().replacen("GET", "HEAD", 1);
    let Answer::Http(refused) = respond(upgrade.as_bytes(), &policy()) else {
        panic!("an upgrade is GET");
    };
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET\r\n"));
}
