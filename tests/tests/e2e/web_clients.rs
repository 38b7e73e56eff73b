//! Converse.js in headless Chromium, over WebSocket: two browsers of one person and one of another (`clients/web/converse.mjs` is what they
//! do). They become contacts, chat with carbons and history in step, do not notice that the server is killed, and block.

use isthmus_tests::client::{Account, Transport};
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
    said(&mut browsers, "\nDONE\n");
    for name in ["alice-first.png", "alice-second.png", "bob.png"] {
        let bytes = std::fs::metadata(shots.join(name)).unwrap().len();
        assert!(bytes > 10_000, "{name} shows nothing: {bytes} bytes");
    }
}
