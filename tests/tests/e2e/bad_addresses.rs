//! BAD_INPUTS 8: addresses at the edge, and streams that change their mind about whom they are for.

use super::bad_inputs::{bystander, header, offender, usual};
use isthmus_tests::client::{Client, NS_BIND, NS_TLS, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::xml::NS_STREAM;

fn check(transport: Transport) {
    let mut site = Site::init(&Plan {
        plaintext: transport == Transport::Plain,
        ..Plan::default()
    })
    .unwrap();
    let file = site.path().join("imserver.toml");
    let written = std::fs::read_to_string(&file).unwrap();
    let more = "\n[[domain]]\nname = \"other.example\"\n";
    std::fs::write(&file, written + more).unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[offender(), bystander()]).unwrap();
    site.await_clients().unwrap();
    let endpoint = site.endpoint(transport);

    // A resource of 1023 bytes is the longest there may be (RFC 6122 §2.4).
    let longest = "r".repeat(1023);
    let client = Client::login(&endpoint, &offender(), Some(&longest)).unwrap();
    assert!(client.jid.ends_with(&longest));
    for wrong in [
        "r".repeat(1024),
        "\u{FFFF}".into(),
        "a\u{200B}\u{0007}".into(),
        // Nothing is left of it once it is prepared.
        "\u{AD}".into(),
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

    // An @ and a / within a resource are part of it.
    let odd = "a@b.example/c/@/";
    let mut client = Client::login(&endpoint, &offender(), Some(odd)).unwrap();
    assert_eq!(client.jid, format!("offender@localhost/{odd}"));
    client.available().unwrap();
    let to = client.jid.clone();
    client.chat(&to, "to the odd one").unwrap();
    assert_eq!(client.next_body().unwrap(), "to the odd one");

    // The stream after SASL is for another host: none of ours, another of ours, or none at all.
    for other in ["elsewhere.example", "other.example"] {
        let mut client = Client::open(&endpoint).unwrap();
        let outcome = client.sasl(&offender(), &Sasl::Best).unwrap();
        assert_eq!(outcome.name, "success", "{outcome}");
        client.new_stream();
        client
            .send(std::str::from_utf8(&header(&usual(other))).unwrap())
            .unwrap();
        let condition = client.until_closed().unwrap();
        assert!(condition.is_some(), "{other}");
    }
    // So is the one after STARTTLS: the certificate was shown for the first name.
    if transport == Transport::StartTls {
        let mut client = Client::dial(&endpoint).unwrap();
        client.open_stream().unwrap();
        client
            .send(&format!("<starttls xmlns='{NS_TLS}'/>"))
            .unwrap();
        assert_eq!(client.element().unwrap().name, "proceed");
        client.start_tls().unwrap();
        client.new_stream();
        client
            .send(std::str::from_utf8(&header(&usual("other.example"))).unwrap())
            .unwrap();
        let condition = client.until_closed().unwrap();
        assert_eq!(condition.as_deref(), Some("host-unknown"));
    }
    // It is a host of ours.
    let mut client = Client::dial(&site.endpoint(Transport::Plain)).unwrap();
    client
        .send(std::str::from_utf8(&header(&usual("other.example"))).unwrap())
        .unwrap();
    client.expect_header().unwrap();
    assert_eq!(client.element().unwrap().name, "features");

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
        "a@@localhost",
        "a:b@localhost",
        "a\"b@localhost",
        "a<b@localhost",
        "a@local host",
        "a@lo\u{2100}host",
        "a@\u{2488}com",
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

#[test]
fn addresses_at_the_edge_over_plain_tcp() {
    check(Transport::Plain);
}

#[test]
fn addresses_at_the_edge_over_starttls() {
    check(Transport::StartTls);
}

#[test]
fn addresses_at_the_edge_over_direct_tls() {
    check(Transport::DirectTls);
}
