//! HAProxy from Debian before a mux: limits and `imadmin session list` see the clients, not HAProxy.

use isthmus_tests::client::{Account, Client, Endpoint, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::ports::PortBlock;
use isthmus_tests::wait;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

/// Ports of a block beside the site's own.
struct Ports(PortBlock);

impl Ports {
    fn at(&self, base: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, base + self.0.offset()))
    }
    /// The mux's listeners behind HAProxy: for STARTTLS, for direct TLS, and for WebSocket without TLS.
    fn listeners(&self) -> [SocketAddr; 3] {
        [self.at(5222), self.at(5223), self.at(5280)]
    }
    /// HAProxy's: version 1 and version 2 to the first, version 2 to the second, and HTTPS, version 2 to the third.
    fn frontends(&self) -> [SocketAddr; 4] {
        [self.at(5269), self.at(15230), self.at(15231), self.at(5443)]
    }
}

fn haproxy(site: &Site, ports: &Ports) -> Proc {
    let [tcp, tls, ws] = ports.listeners();
    let [v1, v2, v2_tls, https] = ports.frontends();
    let pem = site.scratch("https.pem");
    let parts = ["pem", "key"].map(|end| site.path().join(format!("tls/localhost.{end}")));
    fs::write(&pem, parts.map(|p| fs::read_to_string(p).unwrap()).concat()).unwrap();
    let pem = pem.display();
    // Every TLV this HAProxy can send without TLS of its own; its checks say LOCAL.
    let more = "send-proxy-v2 proxy-v2-options unique-id,authority,crc32c check inter 100";
    let text = format!(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n \
         unique-id-format %{{+X}}o\\ %ci:%cp_%Ts_%rt:%pid\n\
         listen v1\n bind {v1}\n server mux {tcp} send-proxy\n\
         listen v2\n bind {v2}\n server mux {tcp} {more}\n\
         listen v2-tls\n bind {v2_tls}\n server mux {tls} {more}\n\
         listen https\n mode http\n timeout tunnel 1h\n bind {https} ssl crt {pem} alpn http/1.1\n \
         server mux {ws} send-proxy-v2\n"
    );
    let file = site.scratch("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Proc::start("haproxy", &mut command, &site.scratch("haproxy.log")).unwrap()
}

#[test]
fn clients_behind_haproxy_keep_their_addresses() {
    let person = Account::new("person");
    let ports = Ports(PortBlock::reserve().unwrap());
    let mut site = Site::init(&Plan::default()).unwrap();
    let [tcp, tls, ws] = ports.listeners();
    let mut config = fs::read_to_string(site.path().join("mux.toml")).unwrap();
    for (transport, address) in [("tcp", tcp), ("tls", tls), ("ws", ws)] {
        config += &format!(
            "\n[[listener]]\nkind = \"c2s\"\ntransport = \"{transport}\"\nlisten = [\"{address}\"]\n\
             proxy_protocol = true\nproxy_from = [\"127.0.0.1\"]\n"
        );
    }
    fs::write(site.path().join("mux.toml"), config).unwrap();
    site.set("mux.toml", "[limits]", "conns_per_address_max", "6")
        .unwrap();
    site.set("mux.toml", "[limits]", "exempt", "[]").unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(std::slice::from_ref(&person)).unwrap();
    site.await_clients().unwrap();
    let _haproxy = haproxy(&site, &ports);

    let [v1, v2, v2_tls, https] = ports.frontends();
    let through = |starttls, transport, last: u8| Endpoint {
        starttls,
        direct: v2_tls,
        wss: https,
        from: Some([127, 0, 0, last].into()),
        ..site.endpoint(transport)
    };
    let rows = [
        ("v1", through(v1, Transport::StartTls, 71)),
        ("v2", through(v2, Transport::StartTls, 72)),
        ("tls", through(v2, Transport::DirectTls, 73)),
        // TLS is HAProxy's, and so is the first half of the handshake.
        ("https", through(v2, Transport::WebSocketTls, 76)),
    ];
    let mut clients: Vec<Client> = Vec::new();
    for (name, endpoint) in &rows {
        let mut last = None;
        let client = wait::until(Duration::from_secs(30), || {
            Client::login(endpoint, &person, Some(name))
                .map_err(|e| last = Some(e))
                .ok()
        });
        clients.push(client.unwrap_or_else(|| panic!("{name}: {last:?}")));
    }
    let listed = site.imadmin_json(["session", "list"]).unwrap();
    let text = listed.to_string();
    for (name, endpoint) in &rows {
        let address = endpoint.from.unwrap().to_string();
        let row = find_row(&listed, &format!("person@localhost/{name}"))
            .unwrap_or_else(|| panic!("{name} is not in {text}"));
        assert!(row.contains(&address), "{name}: {row}");
    }

    // More connections through HAProxy than one address may have, each client within its own number.
    let crowd: Vec<Client> = (80..90)
        .map(|last| Client::open(&through(v1, Transport::Plain, last)).unwrap())
        .collect();
    let mut mine: Vec<Client> = (0..6)
        .map(|_| Client::open(&through(v2, Transport::Plain, 75)).unwrap())
        .collect();
    let one_more = Client::open(&through(v1, Transport::Plain, 75));
    assert!(one_more.is_err(), "a seventh of one address came in");
    drop(crowd);
    mine.pop().unwrap().close().unwrap();

    // Past HAProxy nobody comes in, whatever it says.
    for (from, header) in [(74, "PROXY TCP4 192.0.2.1 192.0.2.2 1 5222\r\n"), (1, "")] {
        let mut past = Client::dial(&through(tcp, Transport::Plain, from)).unwrap();
        let _ = past.send(header);
        let _ = past.send_header();
        past.until_closed().unwrap();
    }
    for client in &mut clients {
        client.ping().unwrap();
    }
}

/// The row of the table in which a value stands, as text.
fn find_row(table: &serde_json::Value, value: &str) -> Option<String> {
    match table {
        serde_json::Value::Array(items) => {
            let here = items.iter().any(|item| item.as_str() == Some(value));
            if here {
                return Some(table.to_string());
            }
            items.iter().find_map(|item| find_row(item, value))
        }
        serde_json::Value::Object(map) => {
            let here = map.values().any(|item| item.as_str() == Some(value));
            if here {
                return Some(table.to_string());
            }
            map.values().find_map(|item| find_row(item, value))
        }
        _ => None,
    }
}
