//! Clients that people have on their desks, in the middle of things, with another device of their account and a contact beside them:
//! Gajim under Xvfb (`clients/gajim_day.py` is what it does), and profanity in a terminal (`clients/profanity_day.py`).

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::wait;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs a script of `clients/` with the accounts of two people and an archive; every line that it is to print must be there, and every
/// screenshot must show something.
fn day(script: &str, lines: &[&str], screenshots: &[&str]) {
    let (us, partner) = (Account::new("alice"), Account::new("bob"));
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let mut site = Site::init(&plan).unwrap();
    site.set("imserver.toml", "[archive]", "enabled", "true")
        .unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[us.clone(), partner.clone()]).unwrap();
    site.await_clients().unwrap();
    let endpoint = site.endpoint(Transport::StartTls);
    let looks = Client::login(&endpoint, &partner, None).unwrap();
    let ca = site.scratch("ca.pem");
    std::fs::write(&ca, looks.certificate_pem().unwrap()).unwrap();
    looks.close().unwrap();

    let directory = site.scratch("day");
    std::fs::create_dir(&directory).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join(".venv/bin/python"));
    command
        .arg(here.join("clients").join(script))
        .args(["localhost", &endpoint.starttls.port().to_string()])
        .args(["alice@localhost", &us.password])
        .args(["bob@localhost", &partner.password])
        .args([&ca, &directory]);
    let mut process = Proc::start(script, &mut command, &site.scratch("day.log")).unwrap();
    let status = wait::until(Duration::from_secs(400), || process.status());
    let log = process.log();
    assert!(status.is_some_and(|s| s.success()), "{log}");
    for line in lines {
        assert!(log.contains(&format!("{line} True")), "{line}: {log}");
    }
    for name in screenshots {
        let bytes = std::fs::metadata(directory.join(name)).unwrap().len();
        assert!(bytes > 10_000, "{name} shows nothing: {bytes} bytes");
    }
}

/// What both are to have done at the end.
const DONE: [&str; 9] = [
    "CARBONS",
    "OMEMO-desk",
    "OMEMO-phone",
    "SECRET",
    "AVATAR-SEEN",
    "AVATAR-SET",
    "VCARD",
    "BOOKMARKS",
    "BLOCKED",
];

#[test]
fn gajim_lives_with_another_device_and_a_contact() {
    let lines = [&["HISTORY", "CAUGHT-UP"][..], &DONE].concat();
    day("gajim_day.py", &lines, &["chat.png", "profile.png"]);
}

#[test]
fn profanity_lives_with_another_device_and_a_contact() {
    day("profanity_day.py", &DONE, &[]);
}
