//! What accounts publish, with slixmpp's own plug-ins, and OMEMO between real clients.

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::wait;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs a script of `clients/` with two accounts; every line that it is to print must be there.
fn run(script: &str, lines: &[&str]) {
    let (us, partner) = (Account::new("juliet"), Account::new("romeo"));
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let site = Site::start(&plan, &[us.clone(), partner.clone()]).unwrap();
    let endpoint = site.endpoint(Transport::StartTls);
    let looks = Client::login(&endpoint, &partner, None).unwrap();
    let ca = site.scratch("ca.pem");
    std::fs::write(&ca, looks.certificate_pem().unwrap()).unwrap();
    looks.close().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join(".venv/bin/python"));
    command
        .arg(here.join("clients").join(script))
        .args(["localhost", &endpoint.starttls.port().to_string()])
        .args(["juliet@localhost", &us.password])
        .args(["romeo@localhost", &partner.password])
        .arg(&ca);
    let mut process = Proc::start("slixmpp", &mut command, &site.scratch("slixmpp.log")).unwrap();
    let status = wait::until(Duration::from_secs(120), || process.status());
    let log = process.log();
    assert!(status.is_some_and(|s| s.success()), "{log}");
    for line in lines {
        assert!(log.contains(&format!("{line} True")), "{line}: {log}");
    }
}

#[test]
fn slixmpp_publishes_and_hears() {
    let lines = [
        "IDENTITY",
        "TUNE",
        "METADATA",
        "AVATAR",
        "VCARD",
        "BACK",
        "BOOKMARKS",
        "PRIVATE",
        "ITEMS",
        "NODES",
    ];
    run("slixmpp_pep.py", &lines);
}

#[test]
fn devices_with_omemo_read_each_other_and_nobody_else_does() {
    run("slixmpp_omemo_chat.py", &["FIRST", "SECOND", "SECRET"]);
}
