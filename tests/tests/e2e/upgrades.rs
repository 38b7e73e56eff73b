//! Accounts with keys of one hash get others (XEP-0480): by a task of the client that logs in by SCRAM, or by its password where it
//! says that.

use isthmus_tests::client::{Account, Client, Endpoint, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::scram::{Hash, import_keys};
use isthmus_tests::upgrade::Upgrade;
use std::time::{Duration, Instant};

/// As an import of another server has it.
fn only_sha_1(user: &str, password: &str) -> Account {
    Account {
        user: user.into(),
        password: import_keys(Hash::Sha1, password, b"salt of another server", 4_096),
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

fn site(accounts: &[Account]) -> Site {
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    Site::start(&plan, accounts).unwrap()
}

/// That it does, on every transport, and after a kill of the server: `scripts/login_upgrade*.scs`.
#[test]
fn who_breaks_off_has_changed_nothing() {
    let site = site(&[only_sha_1("old", "pencil")]);
    let endpoint = site.endpoint(Transport::StartTls);
    let old = knows("old", "pencil");
    let upgrade = Upgrade::from_sha_1(Hash::Sha256);
    assert!(!logs_in(&endpoint, &old, "SCRAM-SHA-256"));
    let mut client = Client::open(&endpoint).unwrap();
    let said = upgrade.log_in(&mut client, &old).unwrap();
    assert_eq!(said.name, "continue");
    client.send("<abort xmlns='urn:xmpp:sasl:2'/>").unwrap();
    let said = client.element().unwrap();
    assert!(
        said.name == "failure" && said.child("aborted").is_some(),
        "{said}"
    );
    let mut client = Client::open(&endpoint).unwrap();
    upgrade.log_in(&mut client, &old).unwrap();
    client.drop_connection();
    assert!(!logs_in(&endpoint, &old, "SCRAM-SHA-256"));

    let mut client = Client::open(&endpoint).unwrap();
    upgrade.connect(&mut client, &old).unwrap();
    assert!(logs_in(&endpoint, &old, "SCRAM-SHA-256"));
    assert!(logs_in(&endpoint, &old, "SCRAM-SHA-1"));
    assert!(!logs_in(&endpoint, &knows("old", "pen"), "SCRAM-SHA-256"));
    // There is nothing left to do.
    let mut client = Client::open(&endpoint).unwrap();
    let said = upgrade.log_in(&mut client, &old).unwrap();
    assert_eq!(said.name, "success");
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
