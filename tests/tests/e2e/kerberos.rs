//! Log-in with Kerberos tickets of a real KDC (MIT krb5), and MIT's own client library at the other end.
//!
//! Needs an imserver built with `--features gssapi` and what `install.sh full` installs; `make test-full` sees to both.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isthmus_tests::client::{Account, Client, NS_SASL, Transport};
use isthmus_tests::harness::{Plan, Proc, Site, run};
use isthmus_tests::kerberos::{self, Tokens, auth, condition, exchange};
use isthmus_tests::ports::PortBlock;
use isthmus_tests::slapd::Slapd;
use isthmus_tests::wait;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const REALM: &str = "ISTHMUS.TEST";

/// A KDC with its own database, on a port of its own.
struct Kdc {
    _process: Proc,
    _ports: PortBlock,
    dir: tempfile::TempDir,
}

impl Kdc {
    fn start() -> Result<Kdc> {
        let dir = tempfile::Builder::new().prefix("isthmus-kdc-").tempdir()?;
        let ports = PortBlock::reserve()?;
        let port = 5222 + ports.offset();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(
            path("krb5.conf"),
            format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n rdns = false\n\
                 dns_canonicalize_hostname = false\n udp_preference_limit = 1\n\
                 [realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n\
                 [domain_realm]\n localhost = {REALM}\n"
            ),
        )?;
        std::fs::write(
            path("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\n {REALM} = {{\n  database_name = {}\n  key_stash_file = {}\n }}\n",
                path("principal"),
                path("stash"),
            ),
        )?;
        let create = ["create", "-s", "-r", REALM, "-P", "master"];
        run(kerberos::env(dir.path(), &mut Command::new("kdb5_util")).args(create))?;
        let mut command = Command::new("krb5kdc");
        kerberos::env(dir.path(), &mut command).arg("-n");
        let process = Proc::start("krb5kdc", &mut command, &dir.path().join("krb5kdc.log"))?;
        Ok(Kdc {
            _process: process,
            _ports: ports,
            dir,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn admin(&self, query: &str) -> Result<()> {
        let mut command = Command::new("kadmin.local");
        kerberos::env(self.dir.path(), &mut command).args(["-r", REALM, "-q", query]);
        let output = run(&mut command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!said.contains("while"), "{query}: {said}");
        Ok(())
    }

    /// A principal whose password is its name, and a ticket for it in a cache of its own.
    fn user(&self, name: &str) -> Result<PathBuf> {
        self.admin(&format!("addprinc -pw {name} {name}"))?;
        kerberos::ticket(self.dir.path(), name, name)
    }

    /// A service, its key in this file.
    fn service(&self, name: &str, keytab: &str) -> Result<PathBuf> {
        let path = self.path(keytab);
        self.admin(&format!("addprinc -randkey {name}"))?;
        self.admin(&format!("ktadd -k {} {name}", path.display()))?;
        Ok(path)
    }
}

/// A site that offers GSSAPI.
fn site(kdc: &Kdc, keytab: &Path, offset_s: Option<&str>) -> Result<Site> {
    let mut site = prepared(kdc, keytab, Vec::new())?;
    if let Some(offset) = offset_s {
        site.shift_clock(offset)?;
    }
    site.start_server()?;
    site.add_accounts(&["romeo", "tybalt"].map(Account::new))?;
    site.await_clients()?;
    Ok(site)
}

/// The same, not started. Its processes must know the KDC's realm, not those of this machine.
fn prepared(kdc: &Kdc, keytab: &Path, init: Vec<String>) -> Result<Site> {
    let mut site = Site::init(&Plan {
        embedded: true,
        init,
        ..Plan::default()
    })?;
    let quoted = format!("{:?}", keytab.display().to_string());
    site.set(
        "imserver.toml",
        "[auth]",
        "mechanisms",
        "[\"GSSAPI\", \"SCRAM-SHA-256\", \"PLAIN\"]",
    )?;
    site.set("imserver.toml", "[auth]", "gssapi_keytab", &quoted)?;
    site.set(
        "imserver.toml",
        "[auth]",
        "gssapi_realms",
        &format!("{{ \"{REALM}\" = \"localhost\" }}"),
    )?;
    site.set(
        "imserver.toml",
        "[log]",
        "filter",
        "\"info,imserver::drive::gssapi=debug\"",
    )?;
    site.env("KRB5_CONFIG", kdc.path("krb5.conf"));
    site.env("KRB5RCACHEDIR", kdc.dir.path());
    Ok(site)
}

/// What becomes of a log-in with this ticket.
fn log_in(site: &Site, kdc: &Kdc, cache: &Path) -> String {
    kerberos::log_in(&site.endpoint(Transport::StartTls), kdc.dir.path(), cache).unwrap()
}

#[test]
fn tickets_log_in_and_everything_else_does_not() {
    let kdc = Kdc::start().unwrap();
    let keytab = kdc.service("xmpp/localhost", "krb5.keytab").unwrap();
    // Another service of the host, whose key is in the same file.
    kdc.service("HTTP/localhost", "krb5.keytab").unwrap();
    // One whose key the server has not.
    kdc.service("xmpp/elsewhere", "other.keytab").unwrap();
    let romeo = kdc.user("romeo").unwrap();
    let stranger = kdc.user("stranger").unwrap();
    let admin = kdc.user("romeo/admin").unwrap();
    let mut site = site(&kdc, &keytab, None).unwrap();
    let rows = [
        (&romeo, "xmpp@localhost", "", 1, "success"),
        (&romeo, "xmpp@localhost", "romeo@localhost", 1, "success"),
        (
            &romeo,
            "xmpp@localhost",
            "tybalt@localhost",
            1,
            "invalid-authzid",
        ),
        (&romeo, "xmpp@localhost", "", 4, "not-authorized"),
        (&romeo, "HTTP@localhost", "", 1, "not-authorized"),
        (&romeo, "xmpp@elsewhere", "", 1, "not-authorized"),
        (&stranger, "xmpp@localhost", "", 1, "not-authorized"),
        (&admin, "xmpp@localhost", "", 1, "not-authorized"),
    ];
    let mut replayed = None;
    for transport in [Transport::StartTls, Transport::DirectTls] {
        for (cache, service, authzid, layer, expected) in rows {
            let mut client = Client::open(&site.endpoint(transport)).unwrap();
            assert!(client.mechanisms().contains(&"GSSAPI".to_owned()));
            let mut tokens = Tokens::start(kdc.dir.path(), cache, service, authzid, layer).unwrap();
            let (outcome, said) = exchange(&mut client, &mut tokens).unwrap();
            assert_eq!(condition(&outcome), expected, "{service} {authzid} {layer}");
            if expected == "success" {
                client.open_stream().unwrap();
                client.bind(Some("kerberos")).unwrap();
                assert_eq!(client.jid, "romeo@localhost/kerberos");
                client.available().unwrap();
                client.close().unwrap();
                replayed = Some(said);
            }
        }
    }
    // The same ticket and authenticator once more, as somebody would who had listened.
    let said = replayed.unwrap();
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    client.send(&auth(&said[0])).unwrap();
    assert_eq!(condition(&client.element().unwrap()), "not-authorized");
    wait::until_true(
        Duration::from_secs(10),
        "the log says that it is a replay",
        || site.server().log().to_lowercase().contains("replay"),
    );
    // Messages that are none, out of their order, and an exchange that stops in the middle.
    for message in ["AAAA", "", "YIIBAA==", &BASE64.encode([0x60; 5_000])] {
        let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
        client.send(&auth(message)).unwrap();
        assert_eq!(
            condition(&client.element().unwrap()),
            "not-authorized",
            "{message}"
        );
    }
    // One that is larger than anything may be before log-in.
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    client.send(&auth(&BASE64.encode([0x60; 60_000]))).unwrap();
    assert_eq!(
        client.until_closed().unwrap().as_deref(),
        Some("policy-violation")
    );
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    let mut tokens = Tokens::start(kdc.dir.path(), &romeo, "xmpp@localhost", "", 1).unwrap();
    client.send(&auth(&tokens.message().unwrap())).unwrap();
    assert!(client.element().unwrap().is(NS_SASL, "challenge"));
    client.send(&format!("<abort xmlns='{NS_SASL}'/>")).unwrap();
    assert_eq!(condition(&client.element().unwrap()), "aborted");
    // And then with the password, on the same stream.
    client
        .authenticate(&Account::new("romeo"), &Default::default())
        .unwrap();
    // With a ticket, as with a password.
    run(&mut site.imadmin(["user", "disable", "romeo@localhost"])).unwrap();
    assert_eq!(log_in(&site, &kdc, &romeo), "account-disabled");
    // Taken back by a reload: then it is not offered any more.
    for key in ["gssapi_keytab", "gssapi_realms"] {
        site.edit("imserver.toml", key, &format!("# {key}"))
            .unwrap();
    }
    site.set("imserver.toml", "[auth]", "mechanisms", "[\"PLAIN\"]")
        .unwrap();
    site.reload().unwrap();
    let client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    assert_eq!(client.mechanisms(), ["PLAIN"]);
}

#[test]
fn the_directory_says_whose_a_principal_is() {
    let kdc = Kdc::start().unwrap();
    let mut slapd = Slapd::start(1, 1).unwrap();
    let keytab = kdc.service("xmpp/localhost", "krb5.keytab").unwrap();
    let mut site = prepared(&kdc, &keytab, slapd.init_args().unwrap()).unwrap();
    site.start_server().unwrap();
    site.await_clients().unwrap();
    let mut known = Vec::new();
    for (name, expected) in [
        ("romeo", "success"),
        ("tybalt", "success"),
        ("expired", "account-disabled"),
        ("nobody", "not-authorized"),
        ("rom*", "not-authorized"),
    ] {
        let cache = kdc.user(name).unwrap();
        assert_eq!(log_in(&site, &kdc, &cache), expected, "{name}");
        known.push(cache);
    }
    run(&mut site.imadmin(["user", "disable", "romeo@localhost"])).unwrap();
    assert_eq!(log_in(&site, &kdc, &known[0]), "account-disabled");
    // Nobody is refused because it is away: who is known goes on, and others are told to come again.
    let juliet = kdc.user("juliet").unwrap();
    slapd.kill();
    assert_eq!(log_in(&site, &kdc, &juliet), "temporary-auth-failure");
    slapd.restart().unwrap();
    wait::until_true(Duration::from_secs(60), "it is asked again", || {
        log_in(&site, &kdc, &juliet) == "success"
    });
}

#[test]
fn an_old_ticket_and_a_keytab_that_is_gone_are_told_apart() {
    let kdc = Kdc::start().unwrap();
    let keytab = kdc.service("xmpp/localhost", "krb5.keytab").unwrap();
    let romeo = kdc.user("romeo").unwrap();
    // Tickets are good for a day; for this server they are older.
    let mut site = site(&kdc, &keytab, Some("+3d")).unwrap();
    let log_in = |site: &Site| log_in(site, &kdc, &romeo);
    assert_eq!(log_in(&site), "credentials-expired");
    let away = kdc.path("away.keytab");
    std::fs::rename(&keytab, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(log_in(&site), "temporary-auth-failure");
    }
    let warned = |site: &mut Site| site.server().log().matches("GSSAPI does not work").count();
    assert_eq!(warned(&mut site), 1, "one line at the change");
    // Back, without a reload.
    std::fs::rename(&away, &keytab).unwrap();
    assert_eq!(log_in(&site), "credentials-expired");
    // Nobody else is touched by it.
    Client::login(
        &site.endpoint(Transport::StartTls),
        &Account::new("romeo"),
        None,
    )
    .unwrap();
}
