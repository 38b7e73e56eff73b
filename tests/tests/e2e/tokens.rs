//! Log-in by SASL 2 with tokens (XEP-0388, XEP-0386, XEP-0484), with a client of the world: @xmpp/client gets a token with its password,
//! comes back with it alone, and resumes its stream with it. And what ends a token.

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TRANSPORTS: [(Transport, &str); 3] = [
    (Transport::StartTls, "starttls"),
    (Transport::DirectTls, "direct"),
    (Transport::WebSocketTls, "wss"),
];

/// Runs the client; what it says.
fn client(
    site: &Site,
    (transport, mode): (Transport, &str),
    account: &Account,
    password: &str,
    token: &Path,
) -> String {
    let endpoint = site.endpoint(transport);
    let ca = site.scratch("ca.pem");
    let certificate = Client::open(&endpoint).and_then(|c| c.certificate_pem());
    std::fs::write(&ca, certificate.unwrap()).unwrap();
    let port = match transport {
        Transport::DirectTls => endpoint.direct,
        Transport::WebSocketTls => endpoint.wss,
        _ => endpoint.starttls,
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/xmppjs_tokens.mjs");
    let mut command = Command::new("node");
    command
        .arg("--experimental-websocket")
        .arg(script)
        .args(["localhost", &port.port().to_string(), mode])
        .arg(jid(account))
        .arg(password)
        .arg(token)
        .env("NODE_EXTRA_CA_CERTS", &ca);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("{said}{}", String::from_utf8_lossy(&output.stderr))
}

fn jid(account: &Account) -> String {
    format!("{}@localhost", account.user)
}

fn imadmin(site: &Site, args: &[&str]) -> String {
    let output = run(&mut site.imadmin(args)).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn site() -> (Site, Account) {
    let romeo = Account::new("romeo");
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let site = Site::start(&plan, std::slice::from_ref(&romeo)).unwrap();
    (site, romeo)
}

/// The address a client was given.
fn address(said: &str) -> &str {
    let line = said.lines().find(|l| l.starts_with("ONLINE"));
    line.unwrap_or_else(|| panic!("not online: {said}"))
}

#[test]
fn a_client_comes_back_with_its_token_on_every_transport() {
    let (mut site, romeo) = site();
    for (n, transport) in TRANSPORTS.into_iter().enumerate() {
        let token = site.scratch(&format!("token-{n}"));
        let first = client(&site, transport, &romeo, &romeo.password, &token);
        assert!(token.exists() && first.contains("RESUMED"), "{first}");
        assert!(!first.contains("FORGOTTEN"), "resumed by password: {first}");
        if n == 0 {
            // It is on disk.
            site.kill_server();
            site.start_server().unwrap();
        }
        let second = client(&site, transport, &romeo, "", &token);
        assert!(second.contains("RESUMED"), "{second}");
        // The same client has the same resource.
        assert_eq!(address(&first), address(&second));
    }
}

fn with_token(site: &Site, romeo: &Account) -> PathBuf {
    let token = site.scratch("token");
    let said = client(site, TRANSPORTS[1], romeo, &romeo.password, &token);
    assert!(token.exists(), "{said}");
    token
}

#[test]
fn another_password_and_an_administrator_end_a_token() {
    let (site, romeo) = site();
    // It is shown, without its secret, and revoked.
    let token = with_token(&site, &romeo);
    let secret: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&token).unwrap()).unwrap();
    let shown = imadmin(&site, &["token", "list", &jid(&romeo)]);
    assert!(
        shown.contains("xmpp.js") && shown.contains("HT-SHA-256-NONE"),
        "{shown}"
    );
    assert!(
        !shown.contains(secret["token"].as_str().unwrap()),
        "{shown}"
    );
    imadmin(&site, &["token", "revoke", &jid(&romeo)]);
    let said = client(&site, TRANSPORTS[1], &romeo, "", &token);
    assert!(
        said.contains("FORGOTTEN") && !said.contains("ONLINE"),
        "{said}"
    );

    // A changed password.
    let token = with_token(&site, &romeo);
    let mut passwd = site.imadmin(["user", "passwd", &jid(&romeo), "--password-stdin"]);
    passwd.stdin(Stdio::piped());
    let mut passwd = passwd.spawn().unwrap();
    let line = format!("{}\n", romeo.password);
    passwd
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    assert!(passwd.wait().unwrap().success());
    let said = client(&site, TRANSPORTS[1], &romeo, "", &token);
    assert!(
        said.contains("FORGOTTEN") && !said.contains("ONLINE"),
        "{said}"
    );

    // Who may not log in may not with a token either.
    let token = with_token(&site, &romeo);
    imadmin(&site, &["user", "disable", &jid(&romeo)]);
    let said = client(&site, TRANSPORTS[1], &romeo, "", &token);
    assert!(said.contains("REFUSED account-disabled"), "{said}");
}

#[test]
fn tokens_can_be_turned_off() {
    let (mut site, romeo) = site();
    let token = with_token(&site, &romeo);
    site.set("imserver.toml", "[auth]", "token_days", "0")
        .unwrap();
    site.reload().unwrap();
    let said = client(&site, TRANSPORTS[1], &romeo, "", &token);
    assert!(!said.contains("ONLINE"), "{said}");
    let other = site.scratch("other");
    let said = client(&site, TRANSPORTS[1], &romeo, &romeo.password, &other);
    assert!(said.contains("RESUMED") && !other.exists(), "{said}");
}
