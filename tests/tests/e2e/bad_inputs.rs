//! BAD_INPUTS 1 to 5, over plain TCP, STARTTLS, direct TLS and WebSocket: XML that no stream may carry. The offender gets the right
//! error and is disconnected, nobody else notices, and the logs do not grow with it.

use anyhow::{Result, bail, ensure};
use isthmus_tests::client::{Account, Client, Endpoint, NS_SASL, NS_TLS, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::xml::NS_STREAM;
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

pub(super) fn header(attributes: &str) -> Vec<u8> {
    format!("<?xml version='1.0'?><stream:stream {attributes}>").into_bytes()
}

pub(super) fn usual(to: &str) -> String {
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
        row("CDATA in lower case", &within(b"<![cdata[x]]>"), RESTRICTED),
        row("CDATA with a space", &within(b"<![CDATA [x]]>"), RESTRICTED),
        row(
            "conditional section",
            &within(b"<![INCLUDE[x]]>"),
            RESTRICTED,
        ),
        row(
            "end of CDATA twice",
            &within(b"<![CDATA[x]]>]]>"),
            MALFORMED,
        ),
        row("CDATA in a tag", b"<message <![CDATA[x]]>/>", MALFORMED),
        row("end of CDATA in text", &within(b"a ]]> b"), MALFORMED),
        row("text outside an element", b"hello", MALFORMED),
        row(
            "byte order mark in mid-stream",
            "\u{FEFF}<presence/>".as_bytes(),
            MALFORMED,
        ),
        row("UTF-16 in mid-stream", b"\xFE\xFF\x00<", ENCODING),
        row("UTF-16 without a mark", b"\x00<\x00a\x00/\x00>", MALFORMED),
        row(
            "second stream header",
            b"<stream:stream to='localhost' version='1.0'>",
            &["unsupported-stanza-type"],
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
        row(
            "character broken off by another",
            &within("é".as_bytes().split_at(1).0),
            ENCODING,
        ),
        row("end of a character alone", &within(b"\x80"), ENCODING),
        row("overlong NUL", &within(b"\xC0\x80"), ENCODING),
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
        row(
            "xml prefix taken away",
            b"<message xmlns:xml=''/>",
            NAMESPACE,
        ),
        row(
            "xml namespace as the default",
            b"<message xmlns='http://www.w3.org/XML/1998/namespace'/>",
            NAMESPACE,
        ),
        row(
            "xmlns namespace as the default",
            b"<message xmlns='http://www.w3.org/2000/xmlns/'/>",
            NAMESPACE,
        ),
        row(
            "element with the prefix xmlns",
            b"<xmlns:message/>",
            NAMESPACE,
        ),
        row(
            "prefix of another element",
            b"<message xmlns='jabber:client'><a xmlns:x='urn:example:x'/><x:b/></message>",
            NAMESPACE,
        ),
        row(
            "namespace declared twice",
            b"<message xmlns:a='urn:a' xmlns:a='urn:b'/>",
            MALFORMED,
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
    // Neither XEP-0138 nor TLS compression exists here (BAD_INPUTS 5), nor SASL2 beside SASL (7).
    for (name, bytes) in [
        (
            "compression",
            &b"<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>"[..],
        ),
        (
            "SASL 2 out of place",
            b"<response xmlns='urn:xmpp:sasl:2'>AGEAYg==</response>",
        ),
    ] {
        let conditions: &[&str] = &["not-authorized", "unsupported-stanza-type"];
        rows.push(row(name, bytes, conditions));
    }
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
        "tags of one byte and white space",
        format!("<message{}", "\n".repeat(1_000_000)).into_bytes(),
    );
    huge(
        "CDATA that never ends",
        format!("<message><body><![CDATA[{}", "]".repeat(1_000_000)).into_bytes(),
    );
    huge(
        "end tag of 1 MB",
        format!("<message></message{}", " ".repeat(1_000_000)).into_bytes(),
    );
    huge(
        "element name of 1 MB",
        format!("<{}", "a".repeat(1_000_000)).into_bytes(),
    );
    let long = format!("<message><body>&#x{}1;", "0".repeat(1_000_000));
    rows.push(Row {
        name: "reference of 1 MB",
        stage,
        bytes: long.into_bytes(),
        conditions: MALFORMED,
        huge: true,
    });
    let mut huge = |name, bytes: Vec<u8>| {
        rows.push(Row {
            name,
            stage,
            bytes,
            conditions: POLICY,
            huge: true,
        })
    };
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

pub(super) fn offender() -> Account {
    Account::new("offender")
}

pub(super) fn bystander() -> Account {
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
    let sent = match std::str::from_utf8(&row.bytes) {
        // Over WebSocket a header is an element of another name.
        Ok(text) if row.stage == Stage::Connected => client.send(text),
        _ => client.send_bytes(&row.bytes),
    };
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
        other
            if endpoint.transport.is_websocket() && row.is_refused_as_message(&client, &other) =>
        {
            Ok(())
        }
        other => bail!("expected one of {:?}, got {other:?}", row.conditions),
    }
}

impl Row {
    /// A WebSocket message has an end, and is UTF-8 or none; there is no XML declaration (RFC 7395 §3.3.3).
    fn is_refused_as_message(&self, client: &Client, condition: &Option<String>) -> bool {
        match condition.as_deref() {
            None => {
                client.close_status() == Some(1007) && std::str::from_utf8(&self.bytes).is_err()
            }
            Some("not-well-formed") => true,
            Some("restricted-xml") => self.bytes.starts_with(b"<?xml"),
            Some(_) => false,
        }
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

#[test]
fn bad_xml_over_websocket() {
    check_all(Transport::WebSocket);
}

#[test]
fn bad_xml_over_websocket_and_tls() {
    check_all(Transport::WebSocketTls);
}

/// BAD_INPUTS 3: characters that some parser uses to join a namespace and a name are part of the namespace here, and come out
/// as they went in.
#[test]
fn a_namespace_is_compared_whole() {
    for transport in Transport::ALL {
        let plan = Plan {
            plaintext: transport == Transport::Plain,
            ..Plan::default()
        };
        let site = Site::start(&plan, &[offender()]).unwrap();
        let mut client = Client::login(&site.endpoint(transport), &offender(), None).unwrap();
        client.available().unwrap();
        let to = client.jid.clone();
        for (n, odd) in [
            "}", "{", "|", " ", "^", "&#10;", "\u{FFFD}", ":", "?", "!", "@", "#",
        ]
        .iter()
        .enumerate()
        {
            // Known were it cut before, or joined behind, the odd character.
            for (ns, name) in [
                (format!("urn:xmpp:ping{odd}"), "ping"),
                (format!("urn:xmpp:ping{odd}ping"), "ping"),
                (format!("{odd}urn:xmpp:ping"), "ping"),
            ] {
                let answer = client
                    .request(
                        "get",
                        &format!("n{n}"),
                        None,
                        &format!("<{name} xmlns='{ns}'/>"),
                    )
                    .unwrap();
                assert_eq!(answer.attr("type"), Some("error"), "{ns:?}: {answer}");
                client
                    .send(&format!(
                        "<message to='{to}'><body>x</body><x xmlns='{ns}'/></message>"
                    ))
                    .unwrap();
                let back = client
                    .element_where("it back", |e| e.name == "message")
                    .unwrap();
                let payload = back.child("x").unwrap();
                assert_eq!(payload.ns, ns.replace("&#10;", "\n"), "{transport:?}");
            }
        }
        // Prefixes of one's own for known namespaces are as good as none.
        let answer = client
            .request("get", "p", None, "<p:ping xmlns:p='urn:xmpp:ping'/>")
            .unwrap();
        assert_eq!(answer.attr("type"), Some("result"), "{answer}");
    }
}
