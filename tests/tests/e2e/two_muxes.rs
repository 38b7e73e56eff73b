//! Two muxes and one imserver: users on different muxes chat; each mux holds one connection, and lets in whom it may.

use isthmus_tests::client::{Account, Client, Endpoint, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::wait;
use std::process::Command;
use std::time::{Duration, Instant};

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

/// A front end that is configured for one domain lets nobody of another in, with whatever password (DESIGN §3: a stolen
/// front-end key exposes the clients of that front end and nobody else).
#[test]
fn a_mux_is_held_to_its_domains() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.set("imserver.toml", "[[mux]]", "domains", "[\"localhost\"]")
        .unwrap();
    site.init_second_mux("west").unwrap();
    let file = site.path().join("imserver.toml");
    // The section of the second mux is the last one.
    let written = std::fs::read_to_string(&file).unwrap();
    let more = "domains = [\"other.example\"]\n\n[[domain]]\nname = \"other.example\"\n";
    std::fs::write(&file, format!("{written}{more}")).unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    site.start_second_mux().unwrap();
    let list = site.scratch("people");
    std::fs::write(
        &list,
        "person@localhost person-password\nperson@other.example person-password\n",
    )
    .unwrap();
    run(site.imadmin(["user", "import"]).arg(&list)).unwrap();

    let person = Account::new("person");
    let of = |domain: &str, mut endpoint: Endpoint| {
        endpoint.domain = domain.into();
        endpoint
    };
    let first = site.endpoint(Transport::Plain);
    let second = site.second_endpoint(Transport::Plain);
    Client::login(&of("localhost", first.clone()), &person, None).unwrap();
    let mut within = Client::login(&of("other.example", second.clone()), &person, None).unwrap();
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        for endpoint in [
            of("other.example", first.clone()),
            of("localhost", second.clone()),
        ] {
            let mut client = Client::open(&endpoint).unwrap();
            let outcome = client
                .sasl(&person, &Sasl::Mechanism(mechanism.into()))
                .unwrap();
            assert_eq!(outcome.name, "failure", "{}: {outcome}", endpoint.domain);
        }
    }

    // A reload counts for links made from then on; who is in stays in.
    site.edit("imserver.toml", "[\"other.example\"]", "[\"localhost\"]")
        .unwrap();
    run(Command::new("kill").args(["-HUP", &site.server().pid().to_string()])).unwrap();
    wait::until_true(wait::PATIENCE, "the reload is logged", || {
        site.server().log().contains("reload: ")
    });
    within.ping().unwrap();
    site.second_mux().kill();
    site.start_second_mux().unwrap();
    Client::login(&of("localhost", second.clone()), &person, None).unwrap();
    let mut client = Client::open(&of("other.example", second)).unwrap();
    let outcome = client.sasl(&person, &Sasl::Best).unwrap();
    assert_eq!(outcome.name, "failure", "{outcome}");
}

/// Two processes with one name and one certificate: the first keeps its clients and the second is told why it gets none, until
/// the first is gone; and a mux that was killed is let in again at once.
#[test]
fn a_copy_of_a_mux_is_refused_while_the_mux_lives() {
    let person = Account::new("person");
    let mut site = Site::init(&Plan::default()).unwrap();
    site.init_twin().unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(std::slice::from_ref(&person)).unwrap();
    site.await_clients().unwrap();
    let mut client = Client::login(&site.endpoint(Transport::Plain), &person, None).unwrap();
    client.ping().unwrap();

    site.start_second_mux_only().unwrap();
    wait::until_true(Duration::from_secs(30), "the copy knows why", || {
        let log = site.second_mux().log();
        log.contains("another mux named `mux1` is connected, from 127.0.0.1:")
    });
    client.ping().unwrap();
    let log = site.server().log();
    let refused: Vec<&str> = log.lines().filter(|l| l.contains("link refused")).collect();
    assert!(refused[0].contains(" WARN "), "{refused:?}");
    let addresses = refused[0].matches("127.0.0.1:").count();
    assert_eq!(addresses, 2, "both addresses: {refused:?}");
    assert_eq!(log.matches("mux linked").count(), 1, "{log}");

    site.kill_mux();
    let second = site.second_endpoint(Transport::Plain);
    let mut other = wait::until(Duration::from_secs(30), || {
        Client::login(&second, &person, Some("other")).ok()
    })
    .expect("the copy is let in when the first is gone");
    other.ping().unwrap();
    site.second_mux().kill();

    // A name is held for ten seconds by whoever is silent; the dead are not silent, they are gone.
    let begun = Instant::now();
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    Client::login(&site.endpoint(Transport::Plain), &person, None).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}
