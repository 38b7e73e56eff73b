//! Converse.js in headless Chromium, over WebSocket: two browsers of one person and one of another (`clients/web/converse.mjs` is what they
//! do). They become contacts, chat with carbons and history in step, do not notice that the server is killed, block, and see
//! pictures, also of and by a client that publishes them in the new way (`clients/slixmpp_pictures.py`).

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::wait;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn converse_js_chats_in_two_browsers_of_one_person() {
    let (alice, bob) = (Account::new("alice"), Account::new("bob"));
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let mut site = Site::init(&plan).unwrap();
    site.set("imserver.toml", "[archive]", "enabled", "true")
        .unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[alice.clone(), bob.clone()]).unwrap();

    let shots = site.scratch("screenshots");
    std::fs::create_dir(&shots).unwrap();
    let address = site.endpoint(Transport::WebSocketTls).wss;
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/web");
    let mut command = Command::new("node");
    command
        .arg(web.join("converse.mjs"))
        .arg(format!("wss://localhost:{}/xmpp-websocket", address.port()))
        .args([&alice.password, &bob.password])
        .arg(&shots);
    let mut browsers =
        Proc::start("browsers", &mut command, &site.scratch("browsers.log")).unwrap();
    let patience = Duration::from_secs(180);
    let said = |browsers: &mut Proc, what: &str| {
        wait::until(patience, || {
            let over = !browsers.is_running();
            (over || browsers.log().contains(what)).then_some(())
        })
        .unwrap_or_else(|| panic!("no {what:?} within {patience:?}: {}", browsers.log()));
        let log = browsers.log();
        assert!(log.contains(what), "{log}");
    };
    said(&mut browsers, "\nKILL\n");
    site.kill_server();
    site.start_server().unwrap();
    std::fs::write(shots.join("restarted"), "").unwrap();

    said(&mut browsers, "\nPICTURE\n");
    let endpoint = site.endpoint(Transport::StartTls);
    let looks = Client::login(&endpoint, &bob, None).unwrap();
    let ca = site.scratch("ca.pem");
    std::fs::write(&ca, looks.certificate_pem().unwrap()).unwrap();
    looks.close().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join(".venv/bin/python"));
    command
        .arg(here.join("clients/slixmpp_pictures.py"))
        .args(["localhost", &endpoint.starttls.port().to_string()])
        .args(["bob@localhost", &bob.password, "alice@localhost"])
        .arg(&ca);
    let mut camera = Proc::start("slixmpp", &mut command, &site.scratch("camera.log")).unwrap();
    said(&mut browsers, "\nDONE\n");
    let status = wait::until(patience, || camera.status());
    let (log, seen) = (browsers.log(), camera.log());
    assert!(status.is_some_and(|s| s.success()), "{seen}");
    let hash = log.lines().find_map(|line| line.strip_prefix("HASH "));
    let hash = hash.expect("said before DONE");
    assert!(
        seen.contains(&format!("SEEN True {hash}")),
        "{hash}: {seen}"
    );

    let names = ["alice-first", "alice-second", "bob", "bob-pictures"];
    for name in names.map(|name| format!("{name}.png")) {
        let bytes = std::fs::metadata(shots.join(&name)).unwrap().len();
        assert!(bytes > 10_000, "{name} shows nothing: {bytes} bytes");
    }
}
