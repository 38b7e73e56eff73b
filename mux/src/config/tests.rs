//! Configuration: what is accepted, and every mistake with its line.

use super::*;

const GOOD: &str = r#"
name = "mux1"
[[server]]
name = "main"
address = "im.example.org:15230"
ca = "link/ca.pem"
cert = "link/mux1.pem"
key = "/keys/mux1.key"
[[listener]]
kind = "c2s"
transport = "tcp"
listen = ["0.0.0.0:5222", "[::]:5222"]
[[listener]]
kind = "c2s"
transport = "tls"
listen = ["127.0.0.1:0"]
[[certificate]]
domains = ["Example.org", "*.example.org"]
chain = "tls/example.pem"
key = "tls/example.key"
[metrics]
listen = "127.0.0.1:15234"
"#;

fn mistakes(text: &str) -> Vec<String> {
    match parse(text, Path::new("/etc/isthmus/mux.toml")) {
        Ok(_) => Vec::new(),
        Err(all) => all
            .iter()
            .map(|m| m.to_string().replace("/etc/isthmus/mux.toml:", ""))
            .collect(),
    }
}

#[test]
fn a_small_file_is_enough() {
    let config = parse(GOOD, Path::new("/etc/isthmus/mux.toml")).expect("good");
    assert_eq!(config.name, "mux1");
    assert_eq!(config.limits, LimitsConfig::default());
    let tls = config.servers[0].tls.as_ref().expect("tls");
    assert_eq!(tls.ca, Path::new("/etc/isthmus/link/ca.pem"));
    assert_eq!(tls.key, Path::new("/keys/mux1.key"));
    assert_eq!(
        config.certificates[0].domains,
        ["example.org", "*.example.org"]
    );
    assert_eq!(config.listeners[0].listen.len(), 2);
}

#[test]
fn the_example_is_whole_and_states_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/mux.toml");
    let config = load(&file).unwrap_or_else(|all| panic!("{all:?}"));
    assert_eq!(config.limits, LimitsConfig::default());
    assert_eq!(config.tcp, TcpConfig::default());
    assert_eq!(config.websocket.ping, WebSocketConfig::default().ping);
    assert_eq!(config.tls.watch, TlsConfig::default().watch);
    let text = std::fs::read_to_string(&file).expect("read");
    for key in [
        "conns_max",
        "conns_per_address_max",
        "exempt",
        "unauthenticated_max",
        "login_s",
        "proxy_header_s",
        "request_client_certificate",
        "proxy_protocol",
        "proxy_from",
        "accepts_per_s",
        "handshakes_per_s",
        "handshakes_max",
        "handshake_s",
        "output_bytes_max",
        "unsettled_bytes_max",
        "server_lost_s",
        "watch_s",
        "tls_in_front",
        "origins",
        "host_meta",
        "ping_s",
        "client_ca",
        "nodelay",
        "keepalive_s",
        "user_timeout_s",
        "threads",
        "filter",
    ] {
        assert!(text.contains(key), "etc/mux.toml does not document {key}");
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"name = "Mux 1"
treads = 4
[[server]]
name = "main"
address = "nowhere"
ca = "a"
cert = "b"
[[listener]]
kind = "c3s"
transport = "udp"
listen = ["5222"]
[limits]
conns_max = -4
login_s = "soon"
exempt = ["here"]
hands = 1
[metrics]
port = 15234
"#;
    let found = mistakes(text);
    let lines: Vec<_> = found
        .iter()
        .map(|m| m.split(':').next().expect("line").to_owned())
        .collect();
    let want = [
        "1", "2", "3", "5", "9", "10", "11", "13", "14", "15", "16", "17", "18",
    ];
    assert_eq!(lines, want, "{found:#?}");
}

#[test]
fn rows_of_single_mistakes() {
    let listen = "listen = [\"127.0.0.1:0\"]";
    let proxy = |more: &str| format!("{listen}\n{more}");
    let (no_from, from_alone, nobody, nowhere, bits) = (
        proxy("proxy_protocol = true"),
        proxy("proxy_from = [\"10.0.0.0/8\"]"),
        proxy("proxy_protocol = true\nproxy_from = []"),
        proxy("proxy_protocol = true\nproxy_from = [\"balancer\"]"),
        proxy("proxy_protocol = true\nproxy_from = [\"10.0.0.1/8\"]"),
    );
    let rows: &[(&str, &str, &str)] = &[
        (
            listen,
            "listen = [\"127.0.0.1:0\"]\nrequest_client_certificate = true",
            "needs `tls.client_ca`",
        ),
        (
            "[metrics]",
            "[tls]\nclient_ca = []\n[metrics]",
            "`tls.client_ca` is empty",
        ),
        (
            "[metrics]",
            "[tls]\nclient_ca = [\"a\", \"\"]\n[metrics]",
            "`tls.client_ca` is empty",
        ),
        (
            "[metrics]",
            "[tls]\nclient_ca = 3\n[metrics]",
            "must be a list of strings",
        ),
        (
            listen,
            "listen = [\"127.0.0.1:5222\", \"[::1]:5222\", \"127.0.0.1:5222\"]",
            "127.0.0.1:5222 is listened on already",
        ),
        (listen, &no_from, "`listener.proxy_from` is missing"),
        (listen, &from_alone, "means nothing without"),
        (listen, &nobody, "names no address"),
        (listen, &nowhere, "\"balancer\" is no address or network"),
        (listen, &bits, "has bits beyond its /8"),
        ("name = \"mux1\"", "", "`name` is missing"),
        (
            "\"im.example.org:15230\"",
            "\"im.example.org:15230\"\ntls = false",
            "loopback addresses only",
        ),
        (
            "domains = [\"Example.org\", \"*.example.org\"]",
            "domains = [\"a\", \"A\"]",
            "has a certificate already",
        ),
        (
            "domains = [\"Example.org\", \"*.example.org\"]",
            "domains = [\"\u{e9}.org\"]",
            "is no domain name",
        ),
        (
            "[metrics]",
            "[log]\nfilter = \"mux=loud\"\n[metrics]",
            "is no filter",
        ),
        ("[metrics]", "[metrics", "not valid TOML"),
        (
            "[[certificate]]",
            "[certificate]",
            "written as [[certificate]]",
        ),
        (
            "[metrics]",
            "[limits]\noutput_bytes_max = 1\n[metrics]",
            "from 65536 to",
        ),
    ];
    for (from, to, want) in rows {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "row {from}");
        let found = mistakes(&text);
        assert!(
            found.iter().any(|m| m.contains(want)),
            "{from} -> {to}: {found:?}"
        );
    }
}

#[test]
fn client_cas_are_one_file_or_several() {
    for (text, want) in [
        ("\"a.pem\"", vec!["/etc/isthmus/a.pem"]),
        (
            "[\"a.pem\", \"/b.pem\"]",
            vec!["/etc/isthmus/a.pem", "/b.pem"],
        ),
    ] {
        let text = format!("{GOOD}[tls]\nclient_ca = {text}\n").replace(
            "[\"127.0.0.1:0\"]",
            "[\"127.0.0.1:0\"]\nrequest_client_certificate = true",
        );
        let config = parse(&text, Path::new("/etc/isthmus/mux.toml")).expect("good");
        let found: Vec<_> = config
            .tls
            .client_ca
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        assert_eq!(found, want);
        let asks: Vec<_> = config
            .listeners
            .iter()
            .map(|l| l.request_client_certificate)
            .collect();
        assert_eq!(asks, [false, true]);
    }
}

#[test]
fn tls_listener_without_certificate_is_a_mistake() {
    let text = GOOD.split("[[certificate]]").next().expect("head");
    let found = mistakes(text);
    assert!(
        found.len() == 1 && found[0].contains("needs a [[certificate]]"),
        "{found:?}"
    );
}

#[test]
fn an_embedded_section_has_no_server_and_keeps_its_lines() {
    let file = Path::new("/x/imserver.toml");
    let text = "[other]\nfoo = 1\n[embedded]\n[[embedded.listener]]\nkind = \"c2s\"\ntransport = \"tcp\"\nlisten = [\"127.0.0.1:0\"]\n";
    let config = parse_section(text, file, "embedded", false)
        .expect("good")
        .expect("there");
    assert_eq!(config.name, "embedded");
    assert!(
        parse_section(text, file, "absent", false)
            .expect("good")
            .is_none()
    );
    let bad = format!("{text}[[embedded.server]]\nname = \"x\"\n");
    let found = parse_section(&bad, file, "embedded", false).expect_err("server is unknown there");
    assert_eq!(found[0].line, 8);
}

#[test]
fn unix_and_plain_loopback_servers_need_no_files() {
    for address in [
        "unix:run/link.sock\"\ntls = true",
        "127.0.0.1:15230\"\ntls = false",
        "[::1]:15230\"\ntls = false",
    ] {
        let text = format!(
            "name = \"m\"\n[[server]]\nname = \"main\"\naddress = \"{address}\n[[listener]]\nkind = \"c2s\"\ntransport = \"tcp\"\nlisten = [\"127.0.0.1:0\"]\n"
        );
        let found = mistakes(&text);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_websocket_listener_without_tls_is_for_this_host() {
    let ws = |lines: &str| {
        GOOD.replace(
            "transport = \"tcp\"\nlisten = [\"0.0.0.0:5222\", \"[::]:5222\"]",
            lines,
        )
    };
    for good in [
        "transport = \"ws\"\nlisten = [\"127.0.0.1:5280\", \"[::1]:5280\"]",
        "transport = \"ws\"\nlisten = [\"10.1.1.1:5280\"]\ntls_in_front = true",
        "transport = \"wss\"\nlisten = [\"0.0.0.0:5443\"]\nrequest_client_certificate = false",
    ] {
        assert_eq!(mistakes(&ws(good)), [""; 0], "{good}");
    }
    let rows = [
        (
            "transport = \"ws\"\nlisten = [\"127.0.0.1:5280\", \"0.0.0.0:5280\"]",
            "no loopback address: passwords would cross the network in the clear",
        ),
        (
            "transport = \"ws\"\nlisten = [\"127.0.0.1:0\"]\nrequest_client_certificate = true",
            "means nothing without TLS",
        ),
        (
            "transport = \"wss\"\nlisten = [\"127.0.0.1:0\"]\ntls_in_front = true",
            "is for transport \"ws\" only",
        ),
        (
            "transport = \"tcp\"\nlisten = [\"127.0.0.1:0\"]\ntls_in_front = true",
            "is for transport \"ws\" only",
        ),
    ];
    for (bad, want) in rows {
        let found = mistakes(&ws(bad));
        assert!(found.iter().any(|m| m.contains(want)), "{bad}: {found:?}");
    }
    let s2s = ws("transport = \"wss\"\nlisten = [\"127.0.0.1:0\"]").replacen("c2s", "s2s", 1);
    assert!(mistakes(&s2s)[0].contains("is for clients"));
    let bare = "name = \"m\"\n[[server]]\nname = \"main\"\naddress = \"unix:a\"\n\
                [[listener]]\nkind = \"c2s\"\ntransport = \"wss\"\nlisten = [\"127.0.0.1:0\"]\n";
    assert!(mistakes(bare)[0].contains("needs a [[certificate]]"));
}

#[test]
fn origins_and_addresses_of_websocket() {
    let with = |lines: &str| format!("{GOOD}[websocket]\n{lines}\n");
    let text = with(
        "origins = [\"https://Chat.example.org\", \"capacitor://localhost\", \"http://[::1]:8080\", \"null\"]\n\
         host_meta = [\"wss://example.org:5443/xmpp-websocket\", \"ws://localhost/x?a=b\"]\nping_s = 0",
    );
    let config = parse(&text, Path::new("/etc/isthmus/mux.toml")).expect("good");
    let policy = &config.websocket.policy;
    assert_eq!(policy.origins[0], "https://chat.example.org");
    assert_eq!((policy.origins.len(), policy.any_origin), (4, false));
    assert_eq!(policy.host_meta.len(), 2);
    assert!(config.websocket.ping.is_zero());
    let all = parse(&with("origins = [\"*\"]"), Path::new("m")).expect("good");
    assert!(all.websocket.policy.any_origin && all.websocket.policy.origins.is_empty());
    for bad in [
        "origins = [\"chat.example.org\"]",
        "origins = [\"https://chat.example.org/\"]",
        "origins = [\"*.example.org\"]",
        "origins = \"*\"",
        "host_meta = [\"https://example.org/\"]",
        "host_meta = [\"wss://\"]",
        "host_meta = [\"wss://a'><b\"]",
        "ping_s = -1",
        "pong_s = 1",
    ] {
        assert_eq!(mistakes(&with(bad)).len(), 1, "{bad}");
    }
}
