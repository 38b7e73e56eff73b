//! Accounts with keys of one hash get others (XEP-0480): by a task of the client that logs in by SCRAM, or by its password where it
//! says that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isthmus_tests::client::{Account, Client, Endpoint, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::scram::{Binding, Exchange, Hash};
use isthmus_tests::xml::Xml;
use std::time::{Duration, Instant};

const TRANSPORTS: [Transport; 3] = [
    Transport::StartTls,
    Transport::DirectTls,
    Transport::WebSocketTls,
];

/// As an import of another server has it.
fn only_sha_1(user: &str, password: &str) -> Account {
    let (hash, salt) = (Hash::Sha1, b"salt of another server");
    let salted = hash.salted_password(password, salt, 4_096);
    let stored = hash.hash(&hash.sign(&salted, b"Client Key"));
    let server = hash.sign(&salted, b"Server Key");
    let parts = [&salt[..], &stored, &server].map(|p| BASE64.encode(p));
    let secret = format!("{{SCRAM-SHA-1}}4096,{}", parts.join(","));
    Account {
        user: user.into(),
        password: secret,
    }
}

fn knows(user: &str, password: &str) -> Account {
    Account {
        user: user.into(),
        password: password.into(),
    }
}

fn logs_in(endpoint: &Endpoint, account: &Account, mechanism: &str) -> bool {
    let mut client = Client::open(endpoint).unwrap();
    let said = client.sasl(account, &Sasl::Mechanism(mechanism.into()));
    said.unwrap().name == "success"
}

/// Logs in by SCRAM-SHA-1 and SASL 2 and wants keys of SHA-256; what is said when the password is proved.
fn wants_upgrade(client: &mut Client, account: &Account) -> Xml {
    let mut exchange = Exchange::new(Hash::Sha1, &account.user, None, Binding::No);
    let initial = BASE64.encode(exchange.first());
    client
        .send(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'>\
             <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>\
             <initial-response>{initial}</initial-response><bind xmlns='urn:xmpp:bind:0'/></authenticate>"
        ))
        .unwrap();
    let challenge = client.element().unwrap();
    let first = String::from_utf8(BASE64.decode(challenge.text()).unwrap()).unwrap();
    let last = exchange.last(&first, &account.password).unwrap();
    client
        .send(&format!(
            "<response xmlns='urn:xmpp:sasl:2'>{}</response>",
            BASE64.encode(last)
        ))
        .unwrap();
    let said = client.element().unwrap();
    let data = said.child("additional-data").unwrap().text();
    let proof = String::from_utf8(BASE64.decode(data).unwrap()).unwrap();
    exchange.verify(&proof).unwrap();
    said
}

/// Goes on with the task; up to the salt, or to its end.
fn does_the_task(client: &mut Client, password: &str) -> Xml {
    client
        .send("<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>")
        .unwrap();
    let data = client.element().unwrap();
    let salt = data.child("salt").unwrap();
    let iterations = salt.attr("iterations").unwrap().parse().unwrap();
    let bytes = BASE64.decode(salt.text()).unwrap();
    let salted = Hash::Sha256.salted_password(password, &bytes, iterations);
    client
        .send(&format!(
            "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>{}</hash></task-data>",
            BASE64.encode(salted)
        ))
        .unwrap();
    client.element().unwrap()
}

fn site(accounts: &[Account]) -> Site {
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    Site::start(&plan, accounts).unwrap()
}

#[test]
fn a_client_makes_the_keys_that_its_account_lacks_on_every_transport() {
    let names: Vec<String> = (0..TRANSPORTS.len()).map(|n| format!("old{n}")).collect();
    let stored: Vec<Account> = names.iter().map(|n| only_sha_1(n, "pencil")).collect();
    let mut site = site(&stored);
    for (n, transport) in TRANSPORTS.into_iter().enumerate() {
        let endpoint = site.endpoint(transport);
        let old = knows(&names[n], "pencil");
        assert!(!logs_in(&endpoint, &old, "SCRAM-SHA-256"));
        // Who breaks off has changed nothing.
        let mut client = Client::open(&endpoint).unwrap();
        assert_eq!(wants_upgrade(&mut client, &old).name, "continue");
        client.send("<abort xmlns='urn:xmpp:sasl:2'/>").unwrap();
        let said = client.element().unwrap();
        assert!(
            said.name == "failure" && said.child("aborted").is_some(),
            "{said}"
        );
        let mut client = Client::open(&endpoint).unwrap();
        wants_upgrade(&mut client, &old);
        client.drop_connection();
        assert!(!logs_in(&endpoint, &old, "SCRAM-SHA-256"));

        let mut client = Client::open(&endpoint).unwrap();
        let said = wants_upgrade(&mut client, &old);
        let task = said.child("tasks").and_then(|t| t.child("task"));
        assert_eq!(task.unwrap().text(), "UPGR-SCRAM-SHA-256", "{said}");
        let said = does_the_task(&mut client, "pencil");
        assert!(
            said.name == "success" && said.child("bound").is_some(),
            "{said}"
        );
        if n == 0 {
            // It is on disk.
            site.kill_server();
            site.start_server().unwrap();
        }
        let endpoint = site.endpoint(transport);
        assert!(logs_in(&endpoint, &old, "SCRAM-SHA-256"));
        assert!(logs_in(&endpoint, &old, "SCRAM-SHA-1"));
        assert!(!logs_in(
            &endpoint,
            &knows(&names[n], "pen"),
            "SCRAM-SHA-256"
        ));
        // There is nothing left to do.
        let mut client = Client::open(&endpoint).unwrap();
        assert_eq!(wants_upgrade(&mut client, &old).name, "success");
    }
}

#[test]
fn the_password_itself_brings_the_keys_that_are_lacking() {
    let site = site(&[only_sha_1("old", "pencil")]);
    let endpoint = site.endpoint(Transport::DirectTls);
    let old = knows("old", "pencil");
    assert!(!logs_in(&endpoint, &old, "SCRAM-SHA-512"));
    assert!(logs_in(&endpoint, &old, "PLAIN"));
    // The log-in does not wait for the disk.
    let begin = Instant::now();
    while !logs_in(&endpoint, &old, "SCRAM-SHA-512") {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
        assert!(logs_in(&endpoint, &old, mechanism), "{mechanism}");
    }
}
