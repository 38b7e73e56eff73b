//! BAD_INPUTS 5, 6, 7 and 23: SASL, STARTTLS and channel binding done wrong, over plain TCP, STARTTLS, direct TLS and WebSocket.

use super::bad_inputs::{bystander, offender};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isthmus_tests::client::{Client, Endpoint, NS_SASL, NS_TLS, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::scram::{Binding, Exchange, Hash};
use isthmus_tests::xml::{Item, NS_STREAM};

/// One SASL misdeed: what is sent, and the conditions that may come back as `<failure/>`.
type SaslRow = (
    &'static str,
    fn(&mut Client) -> Result<()>,
    &'static [&'static str],
);

fn auth(mechanism: &str, payload: &[u8]) -> String {
    format!(
        "<auth xmlns='{NS_SASL}' mechanism='{mechanism}'>{}</auth>",
        BASE64.encode(payload)
    )
}

fn response(payload: &[u8]) -> String {
    format!(
        "<response xmlns='{NS_SASL}'>{}</response>",
        BASE64.encode(payload)
    )
}

/// Runs SCRAM up to the client's last message, which `spoil` may change.
fn spoilt_scram(client: &mut Client, spoil: fn(String) -> String) -> Result<()> {
    scram_as(client, None, spoil)
}

/// The same, as somebody who wants to act as `authzid`.
fn scram_as(client: &mut Client, authzid: Option<&str>, spoil: fn(String) -> String) -> Result<()> {
    let account = offender();
    let mut exchange = Exchange::new(Hash::Sha256, &account.user, authzid, Binding::No);
    client.send(&auth("SCRAM-SHA-256", exchange.first().as_bytes()))?;
    let challenge = client.element()?;
    ensure!(challenge.name == "challenge", "{challenge}");
    let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
    let last = spoil(exchange.last(&first, &account.password)?);
    client.send(&response(last.as_bytes()))
}

const SASL_ROWS: &[SaslRow] = &[
    (
        "PLAIN for somebody else",
        |c| c.send(&auth("PLAIN", b"bystander\0offender\0offender-password")),
        &["invalid-authzid", "not-authorized"],
    ),
    (
        "PLAIN without NUL",
        |c| c.send(&auth("PLAIN", b"offender")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "PLAIN with an empty password",
        |c| c.send(&auth("PLAIN", b"\0offender\0")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "PLAIN with an empty user",
        |c| c.send(&auth("PLAIN", b"\0\0password")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "PLAIN with a NUL too many",
        |c| c.send(&auth("PLAIN", b"\0offender\0offender-password\0")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "no mechanism",
        |c| c.send(&format!("<auth xmlns='{NS_SASL}'/>")),
        &["invalid-mechanism", "malformed-request"],
    ),
    (
        "unknown mechanism",
        |c| c.send(&auth("DIGEST-MD5", b"")),
        &["invalid-mechanism"],
    ),
    (
        "mechanism that needs TLS, or more of it, than there is",
        |c| {
            let name = if c.mechanisms().iter().any(|m| m.ends_with("-PLUS")) {
                "SCRAM-SHA-3-512-PLUS"
            } else {
                "SCRAM-SHA-256-PLUS"
            };
            c.send(&auth(name, b"p=tls-exporter,,n=offender,r=abcdefghijkl"))
        },
        &["invalid-mechanism"],
    ),
    (
        "mechanism in lower case",
        |c| c.send(&auth("plain", b"\0offender\0offender-password")),
        &["invalid-mechanism"],
    ),
    (
        "response without auth",
        |c| c.send(&response(b"x")),
        &["malformed-request", "not-authorized", "aborted"],
    ),
    (
        "bad base64",
        |c| {
            c.send(&format!(
                "<auth xmlns='{NS_SASL}' mechanism='PLAIN'>a=b</auth>"
            ))
        },
        &["incorrect-encoding"],
    ),
    (
        "SCRAM proof changed",
        |c| spoilt_scram(c, |l| l.replace(",p=", ",p=AAAA")),
        &["not-authorized", "malformed-request"],
    ),
    (
        "SCRAM nonce changed",
        |c| spoilt_scram(c, |l| l.replace(",r=", ",r=x")),
        &["not-authorized", "malformed-request"],
    ),
    (
        "SCRAM binding changed",
        |c| spoilt_scram(c, |l| l.replace("c=biws", "c=eSws")),
        &["not-authorized", "malformed-request"],
    ),
    (
        "SCRAM nonce of the client alone",
        |c| {
            spoilt_scram(c, |l| {
                let nonce = l
                    .split(",r=")
                    .nth(1)
                    .and_then(|r| r.split(',').next())
                    .unwrap_or_default();
                l.replace(nonce, &nonce[..8])
            })
        },
        &["not-authorized", "malformed-request"],
    ),
    (
        "SCRAM with an empty nonce",
        |c| c.send(&auth("SCRAM-SHA-256", b"n,,n=offender,r=")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "SCRAM with an empty user",
        |c| c.send(&auth("SCRAM-SHA-256", b"n,,n=,r=abcdefghijkl")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "SCRAM that is not UTF-8",
        |c| c.send(&auth("SCRAM-SHA-256", b"n,,n=\xFF,r=abcdefghijkl")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "SCRAM without proof",
        |c| spoilt_scram(c, |l| l.split(",p=").next().unwrap_or_default().into()),
        &["malformed-request", "not-authorized"],
    ),
    (
        "SCRAM with an extension that must be known",
        |c| c.send(&auth("SCRAM-SHA-256", b"n,,m=x,n=offender,r=abcdefgh")),
        &["malformed-request", "not-authorized"],
    ),
    (
        "SCRAM for somebody else",
        // Said when the client has proved who it is: it would tell a stranger which address a login name has.
        |c| scram_as(c, Some("bystander@localhost"), |l| l),
        &["invalid-authzid"],
    ),
    (
        "SCRAM for somebody else, with a wrong proof",
        |c| {
            scram_as(c, Some("bystander@localhost"), |l| {
                let proof = l.find(",p=").map_or(l.len(), |at| at + 3);
                format!(
                    "{}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                    &l[..proof]
                )
            })
        },
        &["not-authorized"],
    ),
    (
        "SCRAM bound, by a mechanism that is not",
        |c| {
            c.send(&auth(
                "SCRAM-SHA-256",
                b"p=tls-exporter,,n=offender,r=abcdefghijkl",
            ))
        },
        &["malformed-request", "not-authorized"],
    ),
];

fn check_sasl(transport: Transport) {
    let plan = Plan {
        plaintext: transport == Transport::Plain,
        ..Plan::default()
    };
    let site = Site::start(&plan, &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(transport);
    let mut failures = Vec::new();
    for (name, misdeed, conditions) in SASL_ROWS {
        if let Err(error) = refuse(&endpoint, *misdeed, conditions) {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A `<failure/>` (which may be followed by a good log-in on the same stream) or a stream error.
fn refuse(
    endpoint: &Endpoint,
    misdeed: fn(&mut Client) -> Result<()>,
    conditions: &[&str],
) -> Result<()> {
    let mut client = Client::open(endpoint)?;
    misdeed(&mut client)?;
    let mut answer = client.element()?;
    if answer.name == "challenge" {
        // SCRAM may find out only at its end; a client that goes on must then be refused.
        client.send(&response(b"c=biws,r=x,p=AAAA"))?;
        answer = client.element()?;
    }
    if answer.is(NS_STREAM, "error") {
        return Ok(());
    }
    ensure!(answer.is(NS_SASL, "failure"), "{answer}");
    let condition = answer
        .elements()
        .next()
        .context("no condition")?
        .name
        .clone();
    ensure!(
        conditions.contains(&condition.as_str()),
        "expected one of {conditions:?}, got {condition}"
    );
    client
        .authenticate(&offender(), &Sasl::Best)
        .context("a good log-in after it")?;
    client.bind(None)
}

#[test]
fn bad_sasl_over_plain_tcp() {
    check_sasl(Transport::Plain);
}

#[test]
fn bad_sasl_over_starttls() {
    check_sasl(Transport::StartTls);
}

#[test]
fn bad_sasl_over_direct_tls() {
    check_sasl(Transport::DirectTls);
}

#[test]
fn bad_sasl_over_websocket() {
    check_sasl(Transport::WebSocket);
}

#[test]
fn bad_sasl_over_websocket_and_tls() {
    check_sasl(Transport::WebSocketTls);
}

/// The administrator sees who cannot log in and why, a line each; strangers cannot make it many, and no password is among them.
#[test]
fn failures_are_in_the_log_and_cannot_fill_it() {
    let mut site = Site::start(&Plan::default(), &[offender()]).unwrap();
    let fail = |site: &Site, mechanism, payload: &[u8]| {
        let mut client = Client::open(&site.endpoint(Transport::Plain)).unwrap();
        client.send(&auth(mechanism, payload)).unwrap();
        client.element().unwrap();
    };
    fail(&site, "PLAIN", b"\0offender\0not-this-one");
    fail(&site, "PLAIN", b"\0nobody\nhere\0not-this-one");
    fail(&site, "NOVEL", b"x");
    run(&mut site.imadmin(["user", "disable", "offender@localhost"])).unwrap();
    fail(&site, "PLAIN", b"\0offender\0offender-password");
    let mut elsewhere = site.endpoint(Transport::Plain);
    elsewhere.domain = "elsewhere.example".into();
    assert!(Client::open(&elsewhere).is_err());
    let log = site.server().log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("log-in failed"))
        .collect();
    for (line, words) in lines.iter().zip([
        ["account=\"offender\"", "wrong password, or no such account"],
        [
            "account=\"nobody\\nhere\"",
            "wrong password, or no such account",
        ],
        ["mechanism=\"NOVEL\"", "the mechanism is not offered"],
        ["account=\"offender\"", "the account is disabled"],
        ["account=\"elsewhere.example\"", "the domain is not served"],
    ]) {
        assert!(words.iter().all(|w| line.contains(w)), "{words:?}: {line}");
        assert!(line.contains("address=127.0.0.1"), "{line}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(
        !log.contains("not-this-one") && !log.contains("offender-password"),
        "{log}"
    );

    site.set(
        "imserver.toml",
        "[limits]",
        "login_failures_logged_minute_max",
        "0",
    )
    .unwrap();
    site.reload().unwrap();
    for _ in 0..20 {
        fail(&site, "PLAIN", b"\0offender\0not-this-one");
    }
    let log = site.server().log();
    assert_eq!(log.matches("log-in failed").count(), 5, "{log}");
}

/// Aborts are attempts: who only ever begins is sent away (BAD_INPUTS 7). A second <auth/> is not waited for either, be it within
/// an exchange, after success on the old stream, or once a resource is bound.
fn check_loops(transport: Transport) {
    let plan = Plan {
        plaintext: transport == Transport::Plain,
        ..Plan::default()
    };
    let site = Site::start(&plan, &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(transport);
    let begin = auth("SCRAM-SHA-256", b"n,,n=offender,r=abcdefghijkl");
    let abort = format!("<abort xmlns='{NS_SASL}'/>");

    let mut client = Client::open(&endpoint).unwrap();
    // It may be closed before all of it is sent.
    let _ = client.send(&format!("{begin}{abort}").repeat(100));
    assert_eq!(
        client.until_closed().unwrap().as_deref(),
        Some("policy-violation")
    );

    let mut client = Client::open(&endpoint).unwrap();
    client.send(&format!("{begin}{begin}")).unwrap();
    assert_eq!(
        client.until_closed().unwrap().as_deref(),
        Some("not-authorized"),
        "a second <auth/> within an exchange"
    );

    let mut client = Client::open(&endpoint).unwrap();
    let outcome = client.sasl(&offender(), &Sasl::Best).unwrap();
    assert_eq!(outcome.name, "success", "{outcome}");
    let again = auth("PLAIN", b"\0bystander\0bystander-password");
    client.send(&again).unwrap();
    assert!(
        client.until_closed().unwrap().is_some(),
        "a second <auth/> after success, without a new stream"
    );

    let mut client = Client::open(&endpoint).unwrap();
    client.authenticate(&offender(), &Sasl::Best).unwrap();
    client.send(&again).unwrap();
    assert!(
        client.until_closed().unwrap().is_some(),
        "a second <auth/> on the new stream"
    );

    let mut client = Client::login(&endpoint, &offender(), None).unwrap();
    client.send(&again).unwrap();
    assert!(
        client.until_closed().unwrap().is_some(),
        "a second <auth/> in a session"
    );
    Client::login(&endpoint, &bystander(), None).unwrap();
}

#[test]
fn loops_of_log_in_end_over_plain_tcp() {
    check_loops(Transport::Plain);
}

#[test]
fn loops_of_log_in_end_over_starttls() {
    check_loops(Transport::StartTls);
}

#[test]
fn loops_of_log_in_end_over_direct_tls() {
    check_loops(Transport::DirectTls);
}

#[test]
fn loops_of_log_in_end_over_websocket() {
    check_loops(Transport::WebSocket);
    check_loops(Transport::WebSocketTls);
}

/// What only makes sense with TLS: all in one site.
#[test]
fn tls_rules_are_kept() {
    let site = Site::start(
        &Plan {
            plaintext: false,
            ..Plan::default()
        },
        &[offender(), bystander()],
    )
    .unwrap();
    let plain = site.endpoint(Transport::Plain);
    let starttls = site.endpoint(Transport::StartTls);

    // Before TLS: nothing but STARTTLS is offered, and it is required (RFC 6120 §5.3.1).
    let mut client = Client::dial(&plain).unwrap();
    client.open_stream().unwrap();
    let offered = client
        .features
        .child("starttls")
        .expect("STARTTLS is offered");
    assert!(offered.child("required").is_some(), "{}", client.features);
    assert!(client.mechanisms().is_empty(), "{}", client.features);

    // Log-in without TLS is refused.
    client
        .send(&auth("PLAIN", b"\0offender\0offender-password"))
        .unwrap();
    match client.next_item(client.patience).unwrap() {
        Item::Element(e) if e.is(NS_SASL, "failure") => assert!(
            e.child("encryption-required").is_some() || e.child("invalid-mechanism").is_some(),
            "{e}"
        ),
        Item::Element(e) if e.is(NS_STREAM, "error") => {}
        other => panic!("{other:?}"),
    }

    // Plaintext pipelined behind <starttls/> is an injection (DESIGN §3): the connection ends, and nothing of
    // what was injected is answered.
    let mut client = Client::dial(&plain).unwrap();
    client.open_stream().unwrap();
    client
        .send(&format!("<starttls xmlns='{NS_TLS}'/><iq type='get' id='injected'><ping xmlns='urn:xmpp:ping'/></iq>"))
        .unwrap();
    let refused = match client.element() {
        Ok(e) if e.name == "proceed" => {
            client.start_tls().is_err() || client.open_stream().is_err()
        }
        Ok(e) => e.name == "failure" || e.is(NS_STREAM, "error"),
        Err(_) => true,
    };
    assert!(
        refused,
        "plaintext injected behind <starttls/> was carried into TLS"
    );

    // After TLS it is not offered again, and asking is an error.
    let mut client = Client::open(&starttls).unwrap();
    assert!(
        client.features.child("starttls").is_none(),
        "{}",
        client.features
    );
    client
        .send(&format!("<starttls xmlns='{NS_TLS}'/>"))
        .unwrap();
    let answer = client.element().unwrap();
    assert!(
        answer.is(NS_TLS, "failure") || answer.is(NS_STREAM, "error"),
        "{answer}"
    );

    // Direct TLS agrees on ALPN (XEP-0368).
    let client = Client::open(&site.endpoint(Transport::DirectTls)).unwrap();
    assert_eq!(client.alpn().as_deref(), Some(&b"xmpp-client"[..]));
}

/// SCRAM-PLUS, its downgrade and its forgery (BAD_INPUTS 7), on TLS 1.3 and 1.2.
#[test]
fn channel_binding_binds() {
    let site = Site::start(
        &Plan {
            plaintext: false,
            ..Plan::default()
        },
        &[offender(), bystander()],
    )
    .unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for transport in [
            Transport::StartTls,
            Transport::DirectTls,
            Transport::WebSocketTls,
        ] {
            let endpoint = Endpoint {
                tls: Some(version),
                ..site.endpoint(transport)
            };
            for mechanism in [
                "SCRAM-SHA-1-PLUS",
                "SCRAM-SHA-256-PLUS",
                "SCRAM-SHA-512-PLUS",
            ] {
                let sasl = Sasl::Mechanism(mechanism.into());
                Client::login_with(&endpoint, &offender(), None, &sasl)
                    .with_context(|| format!("{:?} {transport:?}", version.version))
                    .unwrap();
            }
            // XEP-0440: the kinds of binding are announced.
            let mut client = Client::open(&endpoint).unwrap();
            let announced = client
                .features
                .child("sasl-channel-binding")
                .expect("XEP-0440");
            assert!(announced.elements().count() > 0, "{}", client.features);

            // "I could bind, but you do not offer it" is how a stripped -PLUS shows (RFC 5802 §6).
            let exchange = Exchange::new(Hash::Sha256, "offender", None, Binding::NotOffered);
            refused(&mut client, "SCRAM-SHA-256", exchange);

            // Binding data of another channel.
            let mut client = Client::open(&endpoint).unwrap();
            let name = if version.version == rustls::ProtocolVersion::TLSv1_3 {
                "tls-exporter"
            } else {
                "tls-server-end-point"
            };
            let exchange = Exchange::new(
                Hash::Sha256,
                "offender",
                None,
                Binding::Data(name, vec![7; 32]),
            );
            refused(&mut client, "SCRAM-SHA-256-PLUS", exchange);

            // A kind of binding that the server does not know.
            let mut client = Client::open(&endpoint).unwrap();
            let exchange = Exchange::new(
                Hash::Sha256,
                "offender",
                None,
                Binding::Data("tls-unheard-of", vec![7; 32]),
            );
            refused(&mut client, "SCRAM-SHA-256-PLUS", exchange);

            // A -PLUS mechanism without binding.
            let mut client = Client::open(&endpoint).unwrap();
            let exchange = Exchange::new(Hash::Sha256, "offender", None, Binding::No);
            refused(&mut client, "SCRAM-SHA-256-PLUS", exchange);
        }
    }
}

#[track_caller]
fn refused(client: &mut Client, mechanism: &str, mut exchange: Exchange) {
    client
        .send(&auth(mechanism, exchange.first().as_bytes()))
        .unwrap();
    let mut answer = client.element().unwrap();
    if answer.name == "challenge" {
        let first = String::from_utf8(BASE64.decode(answer.text()).unwrap()).unwrap();
        let last = exchange.last(&first, &offender().password).unwrap();
        client.send(&response(last.as_bytes())).unwrap();
        answer = client.element().unwrap();
    }
    assert!(answer.is(NS_SASL, "failure"), "{answer}");
}

/// An unknown user must look like a wrong password (BAD_INPUTS 23): same exchange, stable salt.
#[test]
fn unknown_users_look_like_known_ones() {
    let site = Site::start(&Plan::default(), &[offender()]).unwrap();
    let endpoint = site.endpoint(Transport::Plain);
    let ask = |user: &str| {
        let mut client = Client::open(&endpoint).unwrap();
        let exchange = Exchange::new(Hash::Sha256, user, None, Binding::No);
        client
            .send(&auth("SCRAM-SHA-256", exchange.first().as_bytes()))
            .unwrap();
        let challenge = client.element().unwrap();
        assert_eq!(challenge.name, "challenge", "{challenge}");
        let text = String::from_utf8(BASE64.decode(challenge.text()).unwrap()).unwrap();
        let field = |name: &str| {
            text.split(',')
                .find_map(|f| f.strip_prefix(name))
                .unwrap()
                .to_owned()
        };
        (field("s="), field("i="))
    };
    let (known, unknown) = (ask("offender"), ask("nobody"));
    assert_eq!(known.1, unknown.1, "iteration counts tell users apart");
    assert_eq!(known.0.len(), unknown.0.len(), "salts tell users apart");
    assert_eq!(
        ask("nobody"),
        unknown,
        "a salt that changes tells that there is no user"
    );
    assert_ne!(ask("nobody2").0, unknown.0);
}
