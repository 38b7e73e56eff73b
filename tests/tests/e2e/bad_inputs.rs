//! BAD_INPUTS lines 1 to 8 and 10, over plain TCP, STARTTLS and direct TLS: the offender gets the right
//! error and is disconnected, nobody else notices, and the logs do not grow with it.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isthmus_tests::client::{Account, Client, Endpoint, NS_BIND, NS_SASL, NS_TLS, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::scram::{Binding, Exchange, Hash};
use isthmus_tests::xml::{Item, NS_STREAM};
use std::fmt::Write as _;

/// How far the offender gets before the bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connected (and TLS up); no header sent.
    Connected,
    /// Features received, not logged in.
    Features,
    /// Logged in and bound.
    Session,
}

struct Row {
    name: &'static str,
    stage: Stage,
    bytes: Vec<u8>,
    /// Stream errors that may come back.
    conditions: &'static [&'static str],
    /// So much was sent that the reset of the connection may overtake the error.
    huge: bool,
}

const RESTRICTED: &[&str] = &["restricted-xml"];
const MALFORMED: &[&str] = &["not-well-formed", "bad-format", "invalid-xml"];
const NAMESPACE: &[&str] = &["bad-namespace-prefix", "not-well-formed", "invalid-xml"];
const ENCODING: &[&str] = &[
    "unsupported-encoding",
    "not-well-formed",
    "bad-format",
    "invalid-xml",
];
const POLICY: &[&str] = &["policy-violation"];
const HEADER: &[&str] = &[
    "invalid-namespace",
    "bad-format",
    "not-well-formed",
    "invalid-xml",
];

fn header(attributes: &str) -> Vec<u8> {
    format!("<?xml version='1.0'?><stream:stream {attributes}>").into_bytes()
}

fn usual(to: &str) -> String {
    format!("to='{to}' version='1.0' xmlns='jabber:client' xmlns:stream='{NS_STREAM}'")
}

/// Headers that are refused.
fn headers() -> Vec<Row> {
    let row = |name, bytes: Vec<u8>, conditions| Row {
        name,
        stage: Stage::Connected,
        bytes,
        conditions,
        huge: false,
    };
    let dtd = |inner: &str| {
        format!(
            "<?xml version='1.0'?>{inner}<stream:stream {}>",
            usual("localhost")
        )
        .into_bytes()
    };
    vec![
        row("doctype", dtd("<!DOCTYPE stream>"), RESTRICTED),
        row(
            "internal entities",
            dtd("<!DOCTYPE s [<!ENTITY a 'b'><!ENTITY c '&a;&a;'>]>"),
            RESTRICTED,
        ),
        row(
            "external entity",
            dtd("<!DOCTYPE s SYSTEM 'file:///etc/passwd'>"),
            RESTRICTED,
        ),
        row(
            "comment before the header",
            dtd("<!-- hello -->"),
            RESTRICTED,
        ),
        row(
            "processing instruction before the header",
            dtd("<?php echo 1 ?>"),
            RESTRICTED,
        ),
        row(
            "UTF-16 announced",
            b"<?xml version='1.0' encoding='UTF-16'?>".to_vec(),
            ENCODING,
        ),
        row(
            "Latin-1 announced",
            b"<?xml version='1.0' encoding='ISO-8859-1'?>".to_vec(),
            ENCODING,
        ),
        row(
            "UTF-16 sent",
            [0xFF, 0xFE, b'<', 0, b's', 0].to_vec(),
            ENCODING,
        ),
        row(
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            MALFORMED,
        ),
        row(
            "not a stream",
            b"<message xmlns='jabber:client'>".to_vec(),
            HEADER,
        ),
        row(
            "wrong stream namespace",
            header(
                "to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='urn:example:streams'",
            ),
            HEADER,
        ),
        row(
            "wrong content namespace",
            header(&format!(
                "to='localhost' version='1.0' xmlns='urn:example:x' xmlns:stream='{NS_STREAM}'"
            )),
            HEADER,
        ),
        row(
            "unknown host",
            header(&usual("elsewhere.example")),
            &["host-unknown"],
        ),
        row(
            "host is no JID",
            header(&usual("a b")),
            &["host-unknown", "improper-addressing"],
        ),
        row(
            "no version",
            header(&format!(
                "to='localhost' xmlns='jabber:client' xmlns:stream='{NS_STREAM}'"
            )),
            &["unsupported-version"],
        ),
        Row {
            huge: true,
            ..row(
                "header of 100 KB",
                header(&format!("a='{}' ", "a".repeat(100_000))),
                POLICY,
            )
        },
        Row {
            huge: true,
            ..row(
                "header never finished",
                format!("<stream:stream {}", " ".repeat(100_000)).into_bytes(),
                POLICY,
            )
        },
    ]
}

/// XML that no stream may carry, with and without log-in.
fn elements(stage: Stage) -> Vec<Row> {
    let row = |name, bytes: &[u8], conditions| Row {
        name,
        stage,
        bytes: bytes.to_vec(),
        conditions,
        huge: false,
    };
    let within = |inner: &[u8]| {
        let mut out = b"<message to='localhost'><body>".to_vec();
        out.extend_from_slice(inner);
        out.extend_from_slice(b"</body></message>");
        out
    };
    let mut rows = vec![
        row("comment", b"<!-- x -->", RESTRICTED),
        row("comment inside", &within(b"<!-- x -->"), RESTRICTED),
        row("processing instruction", b"<?target data?>", RESTRICTED),
        row(
            "processing instruction inside",
            &within(b"<?target data?>"),
            RESTRICTED,
        ),
        row("doctype in mid-stream", b"<!DOCTYPE a>", RESTRICTED),
        row(
            "undeclared entity",
            &within(b"&xxe;"),
            &["restricted-xml", "not-well-formed", "undefined-condition"],
        ),
        row("entity without a name", &within(b"&;"), MALFORMED),
        row("bare ampersand", &within(b"a & b"), MALFORMED),
        row("CDATA outside an element", b"<![CDATA[x]]>", MALFORMED),
        row("end of CDATA in text", &within(b"a ]]> b"), MALFORMED),
        row("text outside an element", b"hello", MALFORMED),
        row(
            "byte order mark in mid-stream",
            "\u{FEFF}<presence/>".as_bytes(),
            MALFORMED,
        ),
        row(
            "second XML declaration",
            b"<?xml version='1.0'?>",
            &[
                "restricted-xml",
                "not-well-formed",
                "bad-format",
                "invalid-xml",
            ],
        ),
        row("overlong UTF-8", &within(b"\xC0\xAF"), ENCODING),
        row(
            "overlong UTF-8 of three bytes",
            &within(b"\xE0\x80\xAF"),
            ENCODING,
        ),
        row("surrogate", &within(b"\xED\xA0\x80"), ENCODING),
        row("truncated UTF-8", &within(b"\xE2\x82"), ENCODING),
        row("beyond Unicode", &within(b"\xF4\x90\x80\x80"), ENCODING),
        row("byte that UTF-8 never has", &within(b"\xFF"), ENCODING),
        row("NUL", &within(b"\x00"), MALFORMED),
        row("control character", &within(b"\x01"), MALFORMED),
        row("U+FFFE", &within("\u{FFFE}".as_bytes()), MALFORMED),
        row("reference to NUL", &within(b"&#0;"), MALFORMED),
        row("reference to U+FFFE", &within(b"&#xFFFE;"), MALFORMED),
        row("reference to a surrogate", &within(b"&#xD800;"), MALFORMED),
        row(
            "reference beyond Unicode",
            &within(b"&#x110000;"),
            MALFORMED,
        ),
        row("undeclared prefix", b"<x:message/>", NAMESPACE),
        row(
            "undeclared prefix on an attribute",
            b"<message x:a='1'/>",
            NAMESPACE,
        ),
        row(
            "prefix undeclared again",
            b"<message xmlns:x=''/>",
            NAMESPACE,
        ),
        row(
            "xml prefix rebound",
            b"<message xmlns:xml='urn:example:x'/>",
            NAMESPACE,
        ),
        row(
            "xmlns prefix declared",
            b"<message xmlns:xmlns='urn:example:x'/>",
            NAMESPACE,
        ),
        row(
            "other prefix for the xml namespace",
            b"<message xmlns:x='http://www.w3.org/XML/1998/namespace'/>",
            NAMESPACE,
        ),
        row("attribute twice", b"<message id='1' id='2'/>", MALFORMED),
        row(
            "attribute twice by expanded name",
            b"<message xmlns:a='urn:example:x' xmlns:b='urn:example:x' a:i='1' b:i='2'/>",
            MALFORMED,
        ),
        row(
            "wrong end tag",
            b"<message><body></message></body>",
            MALFORMED,
        ),
        row(
            "wrong prefix on the end tag",
            b"<a:m xmlns:a='urn:x:y' xmlns:b='urn:x:y'></b:m>",
            MALFORMED,
        ),
        row("attribute without quotes", b"<message id=1/>", MALFORMED),
        row("attribute without value", b"<message id/>", MALFORMED),
        row("less-than in an attribute", b"<message id='<'/>", MALFORMED),
        row(
            "attributes without space",
            b"<message id='1'to='2'/>",
            MALFORMED,
        ),
        row("name that begins with a digit", b"<1message/>", MALFORMED),
        row(
            "colon alone",
            b"<:message/>",
            &[
                "bad-namespace-prefix",
                "not-well-formed",
                "bad-format",
                "invalid-xml",
            ],
        ),
        row(
            "two colons",
            b"<a:b:c/>",
            &[
                "bad-namespace-prefix",
                "not-well-formed",
                "bad-format",
                "invalid-xml",
            ],
        ),
        row("end tag of something else", b"</message>", MALFORMED),
    ];
    let mut huge = |name, bytes: Vec<u8>| {
        rows.push(Row {
            name,
            stage,
            bytes,
            conditions: POLICY,
            huge: true,
        })
    };
    huge("depth of a million", "<a>".repeat(1_000_000).into_bytes());
    let mut attributes = String::from("<message ");
    for n in 0..100_000 {
        let _ = write!(attributes, "a{n}='' ");
    }
    huge("100,000 attributes", attributes.into_bytes());
    let mut declarations = String::from("<message ");
    for n in 0..10_000 {
        let _ = write!(declarations, "xmlns:p{n}='urn:example:{n}' ");
    }
    huge("10,000 namespace declarations", declarations.into_bytes());
    huge(
        "attribute of 10 MB",
        format!("<message id='{}'/>", "a".repeat(10_000_000)).into_bytes(),
    );
    huge(
        "element name of 1 MB",
        format!("<{}", "a".repeat(1_000_000)).into_bytes(),
    );
    if stage == Stage::Features {
        huge(
            "20 KB before log-in",
            format!(
                "<auth xmlns='{NS_SASL}' mechanism='PLAIN'>{}",
                "A".repeat(20_000)
            )
            .into_bytes(),
        );
        huge(
            "initial response of 10 MB",
            format!(
                "<auth xmlns='{NS_SASL}' mechanism='PLAIN'>{}</auth>",
                "A".repeat(10_000_000)
            )
            .into_bytes(),
        );
    } else {
        huge(
            "message of 10 MB",
            format!(
                "<message to='localhost'><body>{}</body></message>",
                "a".repeat(10_000_000)
            )
            .into_bytes(),
        );
    }
    rows
}

fn offender() -> Account {
    Account::new("offender")
}

fn bystander() -> Account {
    Account::new("bystander")
}

/// TCP and TLS as the transport says; the next header is the test's.
fn dial(endpoint: &Endpoint) -> Result<Client> {
    let mut client = Client::dial(endpoint)?;
    if endpoint.transport == Transport::StartTls {
        client.open_stream()?;
        client.send(&format!("<starttls xmlns='{NS_TLS}'/>"))?;
        ensure!(client.element()?.name == "proceed");
        client.start_tls()?;
        client.new_stream();
    }
    Ok(client)
}

fn reach(endpoint: &Endpoint, stage: Stage) -> Result<Client> {
    match stage {
        Stage::Connected => dial(endpoint),
        Stage::Features => Client::open(endpoint),
        Stage::Session => Client::login(endpoint, &offender(), None),
    }
}

fn offend(endpoint: &Endpoint, row: &Row) -> Result<()> {
    let mut client = reach(endpoint, row.stage)?;
    let sent = client.send_bytes(&row.bytes);
    if !row.huge {
        sent?;
    }
    let condition = client.until_closed();
    let condition = if row.huge {
        condition.unwrap_or(None)
    } else {
        condition?
    };
    match condition {
        Some(condition) if row.conditions.contains(&condition.as_str()) => Ok(()),
        None if row.huge => Ok(()),
        other => bail!("expected one of {:?}, got {other:?}", row.conditions),
    }
}

/// Everything over one transport; failures are collected so that one run shows all.
fn check_all(transport: Transport) {
    let plan = Plan {
        plaintext: transport == Transport::Plain,
        ..Plan::default()
    };
    let mut site = Site::start(&plan, &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(transport);
    let mut witness = Client::login(&endpoint, &bystander(), None).unwrap();
    witness.available().unwrap();
    let mut failures = Vec::new();
    let rows: Vec<Row> = headers()
        .into_iter()
        .chain(elements(Stage::Features))
        .chain(elements(Stage::Session))
        .collect();
    let log_before = site.mux().log().len() + site.server().log().len();
    for row in &rows {
        if let Err(error) = offend(&endpoint, row) {
            failures.push(format!("{:?}, {}: {error:#}", row.stage, row.name));
        }
        if let Err(error) = witness.ping() {
            panic!(
                "after {}: the bystander suffers: {error:#}; before it {failures:#?}",
                row.name
            );
        }
    }
    let to = witness.jid.clone();
    witness.chat(&to, "still here").unwrap();
    assert_eq!(witness.next_body().unwrap(), "still here");
    let log_after = site.mux().log().len() + site.server().log().len();
    let per_row = (log_after - log_before) / rows.len();
    assert!(
        per_row < 1000,
        "a stranger writes {per_row} bytes of log per misdeed"
    );
    assert!(
        failures.is_empty(),
        "{} of {} rows: {failures:#?}",
        failures.len(),
        rows.len()
    );
}

#[test]
fn bad_xml_over_plain_tcp() {
    check_all(Transport::Plain);
}

#[test]
fn bad_xml_over_starttls() {
    check_all(Transport::StartTls);
}

#[test]
fn bad_xml_over_direct_tls() {
    check_all(Transport::DirectTls);
}

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
    let account = offender();
    let mut exchange = Exchange::new(Hash::Sha256, &account.user, None, Binding::No);
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
        |c| {
            c.send(&auth(
                "SCRAM-SHA-256",
                b"n,a=bystander,n=offender,r=abcdefghijkl",
            ))
        },
        &["invalid-authzid", "not-authorized"],
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
        for transport in [Transport::StartTls, Transport::DirectTls] {
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

/// BAD_INPUTS 8: addresses at the edge, and the restart of the stream for another host.
#[test]
fn addresses_at_the_edge() {
    let site = Site::start(&Plan::default(), &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(Transport::Plain);

    // A resource of 1023 bytes is the longest there may be (RFC 6122 §2.4).
    let longest = "r".repeat(1023);
    let client = Client::login(&endpoint, &offender(), Some(&longest)).unwrap();
    assert!(client.jid.ends_with(&longest));
    for wrong in [
        "r".repeat(1024),
        "\u{FFFF}".into(),
        "a\u{200B}\u{0007}".into(),
    ] {
        let mut client = Client::open(&endpoint).unwrap();
        client.authenticate(&offender(), &Sasl::Best).unwrap();
        let escaped = isthmus_tests::xml::escape(&wrong);
        let sent = format!(
            "<iq type='set' id='b'><bind xmlns='{NS_BIND}'><resource>{escaped}</resource></bind></iq>"
        );
        client.send(&sent).unwrap();
        let answer = client.element().unwrap();
        let refused = answer.attr("type") == Some("error") || answer.is(NS_STREAM, "error");
        assert!(refused, "{answer}");
    }

    // The stream after SASL is for another host.
    let mut client = Client::open(&endpoint).unwrap();
    let outcome = client.sasl(&offender(), &Sasl::Best).unwrap();
    assert_eq!(outcome.name, "success", "{outcome}");
    client.new_stream();
    client
        .send(std::str::from_utf8(&header(&usual("elsewhere.example"))).unwrap())
        .unwrap();
    assert!(client.until_closed().unwrap().is_some());

    // Addresses that are none.
    let mut client = Client::login(&endpoint, &offender(), None).unwrap();
    let long = format!("{}@localhost", "l".repeat(1024));
    for (n, wrong) in [
        "@localhost",
        "a@",
        "@",
        "/x",
        "a@b@c",
        "a\u{00A0}b@localhost",
        "a@localhost/",
        &long,
    ]
    .iter()
    .enumerate()
    {
        let id = format!("j{n}");
        let escaped = isthmus_tests::xml::escape(wrong);
        client
            .send(&format!(
                "<message to='{escaped}' id='{id}'><body>x</body></message>"
            ))
            .unwrap();
        let answer = client
            .element_where("an error", |e| e.attr("id") == Some(&id))
            .unwrap();
        let error = answer.child("error").unwrap();
        assert!(error.child("jid-malformed").is_some(), "{wrong}: {answer}");
    }
}

/// BAD_INPUTS 11: floods of subscriptions, directed presence and probes end in nothing worse than refusals.
#[test]
fn presence_floods_do_no_harm() {
    let mut site = Site::start(&Plan::default(), &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(Transport::Plain);
    let mut witness = Client::login(&endpoint, &bystander(), None).unwrap();
    witness.available().unwrap();
    let mut client = Client::login(&endpoint, &offender(), None).unwrap();
    client.available().unwrap();
    client.patience *= 4;
    let before = site.server().rss_kib();
    let mut text = String::new();
    for n in 0..20_000 {
        let _ = write!(
            text,
            "<presence to='nobody{n}@localhost/x'/><presence type='probe' to='nobody{n}@localhost'/>"
        );
    }
    for _ in 0..500 {
        text.push_str("<presence type='subscribe' to='bystander@localhost'/><presence type='unsubscribe' to='bystander@localhost'/>");
    }
    // The server may end the session of one who overdoes it; it must not end anything else.
    let outcome = client.send(&text).and_then(|()| client.ping());
    witness.ping().unwrap();
    let after = site.server().rss_kib();
    assert!(
        after < before + 64 * 1024,
        "memory grew from {before} to {after} KiB; offender: {outcome:?}"
    );
}
