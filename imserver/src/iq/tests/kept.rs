//! What an account has the server keep: a vCard, private elements.

use super::*;
use crate::pubsub::ask::Ask;

#[test]
fn vcards_are_stored_self_contained_and_bounded() {
    let set = |vcard: &str| {
        ask(
            OWN,
            &format!("<iq type='set' id='1' xmlns:v='vcard-temp'>{vcard}</iq>"),
        )
    };
    for vcard in [
        "<vCard xmlns='vcard-temp'><FN>J &amp; R</FN></vCard>",
        "<v:vCard><v:FN>J &amp; R</v:FN></v:vCard>",
    ] {
        let IqOutcome::Pubsub(ask) = set(vcard) else {
            panic!("written")
        };
        let Ask::Card {
            xml: Some(xml),
            photo: None,
        } = *ask
        else {
            panic!("written")
        };
        let stored = Node::parse(&xml, "").expect("self-contained");
        assert!(stored.is("vCard", ns::VCARD));
        assert_eq!(
            stored.child("FN", ns::VCARD).expect("a name").text(),
            "J & R"
        );
    }
    // The photo goes another way; one that is none, or somewhere else, stays.
    for (photo, goes) in [
        ("<TYPE>image/png</TYPE><BINVAL>aGVs\n bG8=</BINVAL>", true),
        ("<TYPE>text/html</TYPE><BINVAL>aGVsbG8=</BINVAL>", false),
        ("<TYPE>image/png</TYPE><BINVAL>%</BINVAL>", false),
        ("<EXTVAL>http://x</EXTVAL>", false),
    ] {
        let outcome = set(&format!(
            "<vCard xmlns='vcard-temp'><PHOTO>{photo}</PHOTO></vCard>"
        ));
        let IqOutcome::Pubsub(ask) = outcome else {
            panic!("written")
        };
        let Ask::Card { xml, photo } = *ask else {
            panic!("written")
        };
        assert_eq!((photo.is_some(), xml.is_none()), (goes, goes));
        if let Some(photo) = photo {
            // SHA-1 of "hello".
            assert_eq!(photo.id, "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d");
        }
    }
    let empty = Ask::Card {
        xml: None,
        photo: None,
    };
    let outcome = set("<vCard xmlns='vcard-temp'/>");
    assert_eq!(outcome, IqOutcome::Pubsub(Box::new(empty)));
    let long = format!(
        "<vCard xmlns='vcard-temp'><FN>{}</FN></vCard>",
        "x".repeat(200)
    );
    assert!(matches!(
        set(&long),
        IqOutcome::Error(StanzaError::PolicyViolation, _)
    ));
}

#[test]
fn private_elements_are_told_apart_and_bounded() {
    let ask = |kind: &str, elements: &str| {
        let query = format!("<query xmlns='jabber:iq:private'>{elements}</query>");
        ask(OWN, &format!("<iq type='{kind}' id='1'>{query}</iq>"))
    };
    let long = format!("<a xmlns='x'>{}</a>", "x".repeat(100));
    let many: String = (0..17).map(|n| format!("<a{n} xmlns='x'/>")).collect();
    let rows = [
        ("get", "", StanzaError::BadRequest),
        ("get", "<a/>", StanzaError::NotAcceptable),
        ("get", "<a xmlns=''/>", StanzaError::NotAcceptable),
        (
            "get",
            "<a xmlns='x'/><a xmlns='y'/>",
            StanzaError::NotAcceptable,
        ),
        ("set", "", StanzaError::NotAcceptable),
        ("set", "text", StanzaError::NotAcceptable),
        ("set", "<a/>", StanzaError::NotAcceptable),
        (
            "set",
            "<a xmlns='x'/><a xmlns='y'/>",
            StanzaError::NotAcceptable,
        ),
        (
            "set",
            "<a xmlns='x'>1</a><a xmlns='x'>2</a>",
            StanzaError::NotAcceptable,
        ),
        ("set", &many, StanzaError::NotAcceptable),
        ("set", &long, StanzaError::PolicyViolation),
    ];
    for (kind, elements, expected) in rows {
        match ask(kind, elements) {
            IqOutcome::Error(condition, _) => assert_eq!(condition, expected, "{elements}"),
            other => panic!("{elements}: {other:?}"),
        }
    }
    let IqOutcome::WritePrivate { elements, .. } = ask(
        "set",
        "<p:a xmlns:p='x'>1</p:a><b xmlns='x'/><c xmlns='x' n='1'/>",
    ) else {
        panic!("written")
    };
    let kept = elements.iter().map(|e| (e.name.as_str(), e.xml.is_some()));
    assert_eq!(
        kept.collect::<Vec<_>>(),
        [("a", true), ("b", false), ("c", true)]
    );
    let stored = elements[0].xml.clone();
    for (stored, text) in [(stored, "1"), (None, "")] {
        let asked = Asked::new(
            OWN,
            "<iq type='get' id='1'><query xmlns='jabber:iq:private'><a xmlns='x'/></query></iq>",
        );
        let IqOutcome::Read(wait) = dispatch(&asked.request()) else {
            panic!("read")
        };
        let IqOutcome::Reply(bytes) = resume(&asked.request(), &wait, &Found::Private(stored))
        else {
            panic!("answered")
        };
        let reply = Element::parse(bytes).expect("well-formed");
        let query = reply.child("query", ns::PRIVATE).expect("a query").tree();
        assert_eq!(query.child("a", "x").expect("the element").text(), text);
    }
}
