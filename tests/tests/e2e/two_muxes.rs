//! Two muxes and one imserver: users on different muxes chat; each mux holds one connection.

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use std::process::Command;

#[test]
fn users_on_different_muxes_chat_over_one_connection_each() {
    let people: Vec<Account> = (0..6)
        .map(|n| Account::new(&format!("person{n}")))
        .collect();
    let mut site = Site::init(&Plan {
        plaintext: false,
        ..Plan::default()
    })
    .unwrap();
    site.init_second_mux("west").unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&people).unwrap();
    site.await_clients().unwrap();
    site.start_second_mux().unwrap();
    let mut clients: Vec<Client> = Vec::new();
    for (n, person) in people.iter().enumerate() {
        let transport = if n < 4 {
            Transport::StartTls
        } else {
            Transport::DirectTls
        };
        let endpoint = if n % 2 == 0 {
            site.endpoint(transport)
        } else {
            site.second_endpoint(transport)
        };
        let mut client = Client::login(&endpoint, person, None).unwrap();
        client.available().unwrap();
        clients.push(client);
    }
    // Everybody writes to everybody, by full and by bare JID.
    let jids: Vec<String> = clients.iter().map(|c| c.jid.clone()).collect();
    for (from, client) in clients.iter_mut().enumerate() {
        for (to, jid) in jids.iter().enumerate() {
            let bare = jid.split('/').next().unwrap();
            client.chat(jid, &format!("full {from} to {to}")).unwrap();
            client.chat(bare, &format!("bare {from} to {to}")).unwrap();
        }
    }
    for (to, client) in clients.iter_mut().enumerate() {
        let mut got: Vec<String> = (0..jids.len() * 2)
            .map(|_| client.next_body().unwrap())
            .collect();
        let mut wanted: Vec<String> = (0..jids.len())
            .flat_map(|from| {
                [
                    format!("full {from} to {to}"),
                    format!("bare {from} to {to}"),
                ]
            })
            .collect();
        // Order holds between two entities (RFC 6120 §10.1), not between all.
        for from in 0..jids.len() {
            let of_one: Vec<&String> = got
                .iter()
                .filter(|b| b.contains(&format!(" {from} to")))
                .collect();
            assert_eq!(
                of_one,
                [
                    &format!("full {from} to {to}"),
                    &format!("bare {from} to {to}")
                ]
            );
        }
        got.sort();
        wanted.sort();
        assert_eq!(got, wanted);
    }
    let port = site.address(15230).port();
    let filter = format!("( dport = :{port} )");
    let output = run(Command::new("ss").args(["-Htn", "state", "established", &filter])).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2, "one connection per mux: {lines}");

    let muxes = site.imadmin_json(["mux", "list"]).unwrap().to_string();
    assert!(muxes.contains("west"), "{muxes}");
}
