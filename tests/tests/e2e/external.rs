//! Log-in with client certificates (SASL EXTERNAL, XEP-0178), made by openssl as a site's CA would make them.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isthmus_tests::client::{Account, Client, Endpoint, NS_SASL, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A CA in a directory.
struct Ca<'d> {
    dir: &'d Path,
    name: &'static str,
}

impl Ca<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}", self.name))
    }

    fn openssl(&self, args: &[&str], files: &[(&str, &Path)]) {
        let mut command = Command::new("openssl");
        command.args(args);
        for (option, file) in files {
            command.arg(option).arg(file);
        }
        run(&mut command).unwrap();
    }

    fn make<'d>(dir: &'d Path, name: &'static str) -> Ca<'d> {
        let ca = Ca { dir, name };
        let args =
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=CA";
        let args: Vec<&str> = args.split(' ').collect();
        ca.openssl(
            &args,
            &[
                ("-keyout", &ca.file("ca.key")),
                ("-out", &ca.file("ca.pem")),
            ],
        );
        ca
    }

    /// A certificate for a client: common name, and what else it is called (openssl's words for a subjectAltName).
    fn issue(&self, name: &str, common_name: &str, called: &str) -> (PathBuf, PathBuf) {
        let (key, request, certificate, more) = (
            self.file(&format!("{name}.key")),
            self.file(&format!("{name}.csr")),
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.ext")),
        );
        let subject = format!("/CN={common_name}");
        let args = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj";
        let mut args: Vec<&str> = args.split(' ').collect();
        args.push(&subject);
        self.openssl(&args, &[("-keyout", &key), ("-out", &request)]);
        let mut text = "extendedKeyUsage=clientAuth\n".to_owned();
        if !called.is_empty() {
            text += &format!("subjectAltName={called}\n");
        }
        std::fs::write(&more, text).unwrap();
        self.openssl(
            &["x509", "-req", "-days", "30"],
            &[
                ("-in", &request),
                ("-CA", &self.file("ca.pem")),
                ("-CAkey", &self.file("ca.key")),
                ("-extfile", &more),
                ("-out", &certificate),
            ],
        );
        (certificate, key)
    }
}

fn xmpp(addresses: &[&str]) -> String {
    let all = addresses
        .iter()
        .map(|a| format!("otherName:1.3.6.1.5.5.7.8.5;UTF8:{a}"));
    all.collect::<Vec<_>>().join(",")
}

fn site(ca: &Ca<'_>, embedded: bool, mapping: &str, trusted: bool) -> Site {
    let mut site = Site::init(&Plan {
        embedded,
        ..Plan::default()
    })
    .unwrap();
    let client_ca = format!("{:?}", ca.file("ca.pem").display().to_string());
    let (file, tls) = match embedded {
        true => ("imserver.toml", "[embedded_mux.tls]"),
        false => ("mux.toml", "[tls]"),
    };
    let mechanisms = "[\"EXTERNAL\", \"SCRAM-SHA-256\", \"PLAIN\"]";
    site.set("imserver.toml", "[auth]", "mechanisms", mechanisms)
        .unwrap();
    let mapping = format!("{mapping:?}");
    site.set("imserver.toml", "[auth]", "certificate_mapping", &mapping)
        .unwrap();
    site.set(file, tls, "client_ca", &client_ca).unwrap();
    // STARTTLS asks because the server says so; direct TLS comes before.
    let direct = "transport = \"tls\"";
    site.edit(
        file,
        direct,
        &format!("{direct}\nrequest_client_certificate = true"),
    )
    .unwrap();
    if trusted && !embedded {
        site.set(
            "imserver.toml",
            "[[mux]]",
            "trust_client_certificates",
            "true",
        )
        .unwrap();
    }
    site.start_server().unwrap();
    if !embedded {
        site.start_mux().unwrap();
    }
    site.add_accounts(&["romeo", "roger"].map(Account::new))
        .unwrap();
    site.await_clients().unwrap();
    site
}

fn with(endpoint: Endpoint, identity: &(PathBuf, PathBuf)) -> Endpoint {
    Endpoint {
        identity: Some(identity.clone()),
        ..endpoint
    }
}

/// The name of the failure, or of the account that is logged in; `-` if EXTERNAL is not even offered.
fn external(endpoint: &Endpoint, authzid: &str) -> Result<String> {
    let mut client = Client::open(endpoint)?;
    if !client.mechanisms().contains(&"EXTERNAL".to_owned()) {
        return Ok("-".into());
    }
    let message = match authzid {
        "" => "=".to_owned(),
        text => BASE64.encode(text),
    };
    client.send(&format!(
        "<auth xmlns='{NS_SASL}' mechanism='EXTERNAL'>{message}</auth>"
    ))?;
    let outcome = client.element()?;
    if let Some(condition) = outcome.elements().next() {
        return Ok(condition.name.clone());
    }
    client.open_stream()?;
    client.bind(Some("x"))?;
    let account = client.jid.trim_end_matches("/x").to_owned();
    client.close()?;
    Ok(account)
}

#[test]
fn a_certificate_logs_in_whom_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::make(dir.path(), "site"), Ca::make(dir.path(), "other"));
    let romeo = ca.issue("romeo", "Romeo Montague", &xmpp(&["romeo@localhost"]));
    let both = ca.issue(
        "both",
        "Both",
        &xmpp(&["romeo@localhost", "roger@localhost"]),
    );
    let nobody = ca.issue("nobody", "Nobody", &xmpp(&["nobody@localhost"]));
    let elsewhere = ca.issue("elsewhere", "X", &xmpp(&["romeo@example.org"]));
    let nameless = ca.issue("nameless", "romeo@localhost", "");
    let mail = ca.issue("mail", "romeo", "email:romeo@localhost");
    let forged = other.issue("forged", "Romeo Montague", &xmpp(&["romeo@localhost"]));
    let rows = [
        (&romeo, "", "romeo@localhost"),
        (&romeo, "romeo@localhost", "romeo@localhost"),
        (&romeo, "roger@localhost", "invalid-authzid"),
        (&both, "", "invalid-authzid"),
        (&both, "roger@localhost", "roger@localhost"),
        (&both, "juliet@localhost", "invalid-authzid"),
        (&nobody, "", "not-authorized"),
        (&elsewhere, "", "-"),
        (&nameless, "", "-"),
        (&mail, "", "-"),
        (&forged, "", "-"),
    ];
    for embedded in [false, true] {
        let site = site(&ca, embedded, "xmpp_addr", true);
        for transport in [Transport::StartTls, Transport::DirectTls] {
            for (identity, authzid, expected) in rows {
                let endpoint = with(site.endpoint(transport), identity);
                let found = external(&endpoint, authzid).unwrap();
                let certificate = identity.0.display();
                assert_eq!(
                    found, expected,
                    "{certificate} {authzid:?} {transport:?} {embedded}"
                );
            }
            // Without one, or with one that is of no use, a password does.
            Client::login(&site.endpoint(transport), &Account::new("romeo"), None).unwrap();
            let endpoint = with(site.endpoint(transport), &forged);
            Client::login(&endpoint, &Account::new("romeo"), None).unwrap();
        }
    }
}

#[test]
fn other_names_of_a_certificate_are_login_names_where_the_site_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::make(dir.path(), "site");
    let romeo = ca.issue("romeo", "romeo", "email:roger@localhost");
    for (mapping, expected) in [("cn", "romeo@localhost"), ("mail", "roger@localhost")] {
        let site = site(&ca, true, mapping, true);
        let endpoint = with(site.endpoint(Transport::StartTls), &romeo);
        assert_eq!(external(&endpoint, "").unwrap(), expected, "{mapping}");
        assert_eq!(
            external(&endpoint, "juliet@localhost").unwrap(),
            "invalid-authzid"
        );
    }
}

#[test]
fn the_word_of_a_mux_that_is_not_trusted_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::make(dir.path(), "site");
    let romeo = ca.issue("romeo", "romeo", &xmpp(&["romeo@localhost"]));
    let site = site(&ca, false, "xmpp_addr", false);
    for transport in [Transport::StartTls, Transport::DirectTls] {
        assert_eq!(
            external(&with(site.endpoint(transport), &romeo), "").unwrap(),
            "-"
        );
    }
}
