//! Elements, stanza types, replies, errors, rewriting and the table of what only servers say.

use bytes::Bytes;
use std::borrow::Cow;
use xmpp::element::Element;
use xmpp::error::{
    ErrorReply, ErrorType, StanzaError, StreamError, stanza_error, stanza_error_with,
};
use xmpp::node::{Content, Node, escape_into, escaped_len};
use xmpp::ns;
use xmpp::stanza::{
    Direction, Iq, IqType, MessageType, PresenceType, Rewrite, StanzaKind, iq_result, is_reserved,
    presence_priority,
};
use xmpp::stream::framing;

fn element(xml: &str) -> Element {
    Element::parse(Bytes::copy_from_slice(xml.as_bytes())).unwrap_or_else(|e| panic!("{xml}: {e}"))
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8(bytes.as_ref().to_vec()).expect("UTF-8")
}

#[test]
fn an_element_shows_what_routing_needs() {
    let e = element(
        "<message to='a@b' note='1 &lt; 2\n&#10;' x:y='z' xmlns:x='urn:x'>top<body>hi <b>x</b> &amp; <![CDATA[<you>]]></body>\
         <x:data x:by='&quot;'/> end</message>",
    );
    assert!(e.is("message", ns::CLIENT));
    assert_eq!(e.stanza_kind(), Some(StanzaKind::Message));
    assert_eq!(e.attr("to"), Some(Cow::Borrowed("a@b")));
    assert_eq!(e.attr("note").as_deref(), Some("1 < 2 \n"));
    assert_eq!(e.attr("from"), None);
    assert_eq!(e.attrs().count(), 3);
    assert_eq!(e.text(), "top end");
    let body = e.content_child("body").expect("a body");
    assert_eq!(body.text(), "hi  & <you>");
    let data = e.child("data", "urn:x").expect("data");
    assert_eq!(data.attr("x:by").as_deref(), Some("\""));
    assert_eq!(text(data.raw()), "<x:data x:by='&quot;'/>");
    assert_eq!(data.tree().attrs()[0].ns, "urn:x");
    assert_eq!(e.children().len(), 2);
    assert_eq!(
        e.tree()
            .child("body", ns::CLIENT)
            .map(|b| b.text().into_owned())
            .as_deref(),
        Some("hi  & <you>")
    );
    for not_one in ["", "<a/><b/>", "<a/>x", "<a>", "x", "</stream:stream>"] {
        assert!(
            Element::parse(Bytes::from_static(not_one.as_bytes())).is_err(),
            "{not_one}"
        );
    }
}

#[test]
fn a_stanza_is_of_the_content_namespace_only() {
    let kinds = [
        ("<message/>", Some(StanzaKind::Message)),
        ("<presence/>", Some(StanzaKind::Presence)),
        ("<iq/>", Some(StanzaKind::Iq)),
        ("<iq xmlns='jabber:client'/>", Some(StanzaKind::Iq)),
        ("<iq xmlns='jabber&#58;client'/>", Some(StanzaKind::Iq)),
        ("<iq xmlns='jabber:server'/>", None),
        ("<iq xmlns=''/>", None),
        ("<IQ/>", None),
        ("<r xmlns='urn:xmpp:sm:3'/>", None),
    ];
    for (xml, kind) in kinds {
        assert_eq!(element(xml).stanza_kind(), kind, "{xml}");
    }
}

#[test]
fn types_are_read_as_the_rfcs_say() {
    let messages = [
        ("<message/>", MessageType::Normal),
        ("<message type='normal'/>", MessageType::Normal),
        ("<message type='chat'/>", MessageType::Chat),
        ("<message type='groupchat'/>", MessageType::Groupchat),
        ("<message type='headline'/>", MessageType::Headline),
        ("<message type='error'/>", MessageType::Error),
        ("<message type='CHAT'/>", MessageType::Normal),
        ("<message type=''/>", MessageType::Normal),
    ];
    for (xml, expected) in messages {
        assert_eq!(MessageType::of(&element(xml)), expected, "{xml}");
    }
    for name in [
        "unavailable",
        "subscribe",
        "subscribed",
        "unsubscribe",
        "unsubscribed",
        "probe",
        "error",
    ] {
        let presence = element(&format!("<presence type='{name}'/>"));
        assert_eq!(
            PresenceType::of(&presence).map(PresenceType::as_str),
            Ok(Some(name))
        );
    }
    assert_eq!(
        PresenceType::of(&element("<presence/>")),
        Ok(PresenceType::Available)
    );
    for wrong in ["available", "", "Probe"] {
        let presence = element(&format!("<presence type='{wrong}'/>"));
        assert_eq!(PresenceType::of(&presence), Err(StanzaError::BadRequest));
    }
    let priorities = [
        ("", Ok(0)),
        ("<priority>5</priority>", Ok(5)),
        ("<priority> -128\n</priority>", Ok(-128)),
        ("<priority>127</priority>", Ok(127)),
        ("<priority>128</priority>", Err(StanzaError::BadRequest)),
        ("<priority/>", Err(StanzaError::BadRequest)),
        ("<priority>x</priority>", Err(StanzaError::BadRequest)),
        (
            "<priority>1</priority><priority>2</priority>",
            Err(StanzaError::BadRequest),
        ),
        ("<priority xmlns='urn:x'>x</priority>", Ok(0)),
    ];
    for (xml, expected) in priorities {
        assert_eq!(
            presence_priority(&element(&format!("<presence>{xml}</presence>"))),
            expected,
            "{xml}"
        );
    }
}

#[test]
fn an_iq_has_an_id_and_one_child() {
    let valid = [
        (
            "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
            IqType::Get,
            true,
        ),
        ("<iq type='set' id='1'>text <x/></iq>", IqType::Set, true),
        ("<iq type='result' id='1'/>", IqType::Result, false),
        ("<iq type='result' id='1'><x/></iq>", IqType::Result, true),
        ("<iq type='result' id=''/>", IqType::Result, false),
        (
            "<iq type='error' id='1'><x/><error/></iq>",
            IqType::Error,
            false,
        ),
    ];
    for (xml, iq_type, payload) in valid {
        let e = element(xml);
        let iq = Iq::of(&e).unwrap_or_else(|e| panic!("{xml}: {e}"));
        assert_eq!(
            (iq.iq_type, iq.payload.is_some()),
            (iq_type, payload),
            "{xml}"
        );
    }
    let e = element(valid[0].0);
    assert!(Iq::of(&e).expect("valid").payload_is("ping", ns::PING));
    let invalid = [
        "<iq type='get'><x/></iq>",
        "<iq type='get' id=''><x/></iq>",
        "<iq type='get' id='1'/>",
        "<iq type='get' id='1'>text</iq>",
        "<iq type='set' id='1'><x/><y/></iq>",
        "<iq type='result' id='1'><x/><y/></iq>",
        "<iq type='result'/>",
        "<iq id='1'><x/></iq>",
        "<iq type='GET' id='1'><x/></iq>",
        "<iq type='' id='1'><x/></iq>",
    ];
    for xml in invalid {
        assert_eq!(
            Iq::of(&element(xml)).map(|iq| iq.iq_type),
            Err(StanzaError::BadRequest),
            "{xml}"
        );
    }
}

#[test]
fn a_result_answers_its_request() {
    let request = element(
        "<iq type='get' id='&lt;1&gt;' to='b' from='a@b/c'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(
        text(iq_result(&request, None)),
        "<iq type='result' id='&lt;1&gt;' from='b' to='a@b/c'/>"
    );
    let payload = Node::new("query", ns::VERSION)
        .with_child(Node::new("name", ns::VERSION).with_text("Is<thmus"));
    assert_eq!(
        text(iq_result(&request, Some(&payload))),
        "<iq type='result' id='&lt;1&gt;' from='b' to='a@b/c'><query xmlns='jabber:iq:version'><name>Is&lt;thmus</name></query></iq>"
    );
}

#[test]
fn an_error_answers_what_may_be_answered() {
    let message =
        element("<message to='b@c' from='a@b/c' id='7' type='chat'><body>x</body></message>");
    let error = stanza_error(
        &message,
        StanzaError::ServiceUnavailable,
        Some("not <here>"),
    )
    .expect("an answer");
    assert_eq!(
        text(&error),
        "<message type='error' id='7' from='b@c' to='a@b/c'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>not &lt;here&gt;</text></error></message>"
    );
    let reply = ErrorReply {
        from: Some("c"),
        to: Some("a@b"),
        error_type: Some(ErrorType::Wait),
        text: None,
        application: None,
        application_attr: None,
        about: b"<x/>",
    };
    let error = stanza_error_with(
        &element("<presence/>"),
        StanzaError::RemoteServerNotFound,
        reply,
    )
    .expect("an answer");
    assert_eq!(
        text(&error),
        "<presence type='error' from='c' to='a@b'><x/><error type='wait'>\
         <remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
    );
    for condition in StanzaError::ALL {
        let error = element(&text(
            stanza_error(&message, *condition, None).expect("an answer"),
        ));
        let child = error.content_child("error").expect("an error").tree();
        assert!(child.child(condition.as_str(), ns::STANZA_ERRORS).is_some());
        assert_eq!(child.attr("type"), Some(condition.error_type().as_str()));
        assert_eq!(StanzaError::from_name(condition.as_str()), Some(*condition));
        // Never an error for an error: no loop can begin.
        assert_eq!(stanza_error(&error, *condition, None), None);
    }
    for silent in [
        "<iq type='result' id='1'/>",
        "<iq type='error' id='1'/>",
        "<presence type='error'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
    ] {
        assert_eq!(
            stanza_error(&element(silent), StanzaError::BadRequest, None),
            None,
            "{silent}"
        );
    }
    // An IQ of unknown type is answered, or its sender would wait for ever.
    assert!(
        stanza_error(
            &element("<iq type='x' id='1'/>"),
            StanzaError::BadRequest,
            None
        )
        .is_some()
    );
}

#[test]
fn stream_errors_are_elements_of_their_stream() {
    for condition in StreamError::ALL {
        for bytes in [
            condition.to_bytes(None),
            condition.to_bytes(Some("a < b")),
            framing::message(&condition.to_bytes(None)),
        ] {
            let error = Element::parse(bytes).expect("well-formed");
            assert!(error.is("error", ns::STREAMS));
            assert!(error.child(condition.as_str(), ns::STREAM_ERRORS).is_some());
        }
        assert_eq!(StreamError::from_name(condition.as_str()), Some(*condition));
    }
    assert_eq!(
        text(StreamError::see_other_host("[2001:db8::1]:5222")),
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[2001:db8::1]:5222</see-other-host></stream:error>"
    );
    assert_eq!((StreamError::ALL.len(), StanzaError::ALL.len()), (25, 22));
}

#[test]
fn a_rewrite_changes_the_top_tag_and_whole_children_only() {
    type Change = fn(Rewrite<'_>) -> Rewrite<'_>;
    let rows: &[(&str, Change, &str)] = &[
        ("<message/>", |r| r, "<message/>"),
        ("<message xmlns='jabber:client' />", |r| r, "<message/>"),
        (
            "<message  to = 'x' ></message >",
            |r| r.set("from", "a&b"),
            "<message to = 'x' from='a&amp;b'/>",
        ),
        (
            "<message from='evil' to=\"x\">t<b/></message>",
            |r| r.set("from", "me"),
            "<message to=\"x\" from='me'>t<b/></message>",
        ),
        (
            "<message type='chat' to='x'/>",
            |r| r.remove("to").remove("id"),
            "<message type='chat'/>",
        ),
        (
            "<message to='x'/>",
            |r| r.set("to", "y").set("to", "z"),
            "<message to='z'/>",
        ),
        (
            "<message to='x'/>",
            |r| r.set("to", "y").remove("to"),
            "<message/>",
        ),
        (
            "<message><a/>x<b>y<a/></b><a>z</a></message>",
            |r| r.cut(|c| c.name() == "a"),
            "<message>x<b>y<a/></b></message>",
        ),
        (
            "<message><a/></message>",
            |r| r.cut(|_| true),
            "<message></message>",
        ),
        (
            "<message><a/><b/><c/></message>",
            |r| r.cut(|c| c.name() == "c").cut(|c| c.name() != "b"),
            "<message><b/></message>",
        ),
        (
            "<message/>",
            |r| r.append(b"<a/>").append(b"<b/>"),
            "<message><a/><b/></message>",
        ),
        (
            "<message><x/></message>",
            |r| r.append(b"<a/>"),
            "<message><x/><a/></message>",
        ),
        (
            "<message xmlns:p='urn:p' p:q='1'><p:x/></message>",
            |r| r.set("id", "1"),
            "<message xmlns:p='urn:p' p:q='1' id='1'><p:x/></message>",
        ),
        (
            "<message xmlns='jabber:client'><x/></message>",
            |r| r.with_content_ns("jabber:client"),
            "<message xmlns='jabber:client'><x/></message>",
        ),
        (
            "<message a='&lt;&#10;'/>",
            |r| r.set("b", "<\n'\""),
            "<message a='&lt;&#10;' b='&lt;&#10;&apos;&quot;'/>",
        ),
        (
            "<r xmlns='urn:xmpp:sm:3'/>",
            |r| r.set("x", "1"),
            "<r xmlns='urn:xmpp:sm:3' x='1'/>",
        ),
    ];
    for (xml, change, expected) in rows {
        let e = element(xml);
        assert_eq!(text(change(Rewrite::new(&e)).finish()), *expected, "{xml}");
        let (head, rest) = change(Rewrite::new(&e)).finish_split();
        if change(Rewrite::new(&e)).is_changed() {
            assert_eq!(text(&head) + &text(&rest), *expected, "{xml}");
        }
        let inserted = text(&head) + " to-be='x'" + &text(&rest);
        assert_eq!(
            element(&inserted).attr("to-be").as_deref(),
            Some("x"),
            "{inserted}"
        );
    }
}

#[test]
fn a_rewrite_without_change_is_the_bytes_that_came() {
    let e = element("<message to='x'><body>y</body></message>");
    let out = Rewrite::new(&e).finish();
    assert_eq!(out.as_ptr(), e.raw().as_ptr());
}

#[test]
fn a_rewrite_says_the_language_of_the_stream() {
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xml:lang='de'>";
    let mut parser = xmpp::stream::StreamParser::new(xmpp::stream::Limits::AFTER_LOGIN);
    parser.push(Bytes::from(format!(
        "{header}<message/><message xml:lang='en'/>"
    )));
    let mut out = Vec::new();
    while let Some(event) = parser.poll().expect("valid") {
        if let xmpp::stream::StreamEvent::Element(e) = event {
            out.push(text(Rewrite::new(&e).set("to", "x").finish()));
        }
    }
    assert_eq!(
        out,
        [
            "<message xml:lang='de' to='x'/>",
            "<message xml:lang='en' to='x'/>"
        ]
    );
}

#[test]
fn what_only_servers_say_is_cut() {
    use Direction::{FromClient as C, FromComponent as P, FromRemote as R};
    let rows: &[(&str, &[Direction])] = &[
        (
            "<stanza-id xmlns='urn:xmpp:sid:0' by='ours' id='1'/>",
            &[C, R, P],
        ),
        (
            "<stanza-id xmlns='urn:xmpp:sid&#x3a;0' by='our&#x73;' id='1'/>",
            &[C, R, P],
        ),
        (
            "<s:stanza-id xmlns:s='urn:xmpp:sid:0' by='ours' id='1'/>",
            &[C, R, P],
        ),
        ("<stanza-id xmlns='urn:xmpp:sid:0' id='1'/>", &[C, R, P]),
        (
            "<stanza-id xmlns='urn:xmpp:sid:0' by='theirs' id='1'/>",
            &[],
        ),
        ("<origin-id xmlns='urn:xmpp:sid:0' id='1'/>", &[]),
        (
            "<delay xmlns='urn:xmpp:delay' from='ours' stamp='x'/>",
            &[C, R, P],
        ),
        (
            "<delay xmlns='urn:xmpp:delay' from='theirs' stamp='x'/>",
            &[],
        ),
        ("<delay xmlns='urn:xmpp:delay' stamp='x'/>", &[]),
        ("<x xmlns='jabber:x:delay' from='ours'/>", &[C, R, P]),
        ("<x xmlns='jabber:x:data' from='ours'/>", &[]),
        ("<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/>", &[C]),
        ("<hats xmlns='urn:xmpp:hats:0'/>", &[C]),
        ("<result xmlns='urn:xmpp:mam:2'/>", &[C]),
        ("<received xmlns='urn:xmpp:carbons:2'/>", &[C, R, P]),
        ("<sent xmlns='urn:xmpp:carbons:2'/>", &[C, R, P]),
        ("<private xmlns='urn:xmpp:carbons:2'/>", &[]),
        ("<received xmlns='urn:xmpp:receipts'/>", &[]),
        ("<body>x</body>", &[]),
    ];
    for (xml, cut) in rows {
        let e = element(&format!("<message>{xml}</message>"));
        let child = e.children().next().expect("a child");
        for direction in [C, R, P] {
            assert_eq!(
                is_reserved(direction, &child, |a| a == "ours"),
                cut.contains(&direction),
                "{xml} {direction:?}"
            );
        }
    }
    // In any number and order.
    let id = "<stanza-id xmlns='urn:xmpp:sid:0' by='ours' id='1'/>";
    let e = element(&format!("<message>{id}<body/>{}</message>", id.repeat(50)));
    let out = Rewrite::new(&e)
        .cut(|c| is_reserved(C, c, |_| true))
        .finish();
    assert_eq!(text(out), "<message><body/></message>");
}

#[test]
fn a_tree_is_written_as_it_was_built() {
    let node = Node::new("iq", ns::CLIENT)
        .with_attr("type", "result")
        .with_attr("type", "set")
        .with_attr_opt("id", None::<String>)
        .with_attr_opt("to", Some("a'b"))
        .with_children([
            Node::new("query", ns::ROSTER).with_child(Node::new("item", ns::ROSTER)),
            Node::new("x", ""),
        ])
        .with_raw(Bytes::from_static(b"<raw xmlns='urn:r'/>"))
        .with_text("1 < 2\n\r\t\"\u{1}\u{FFFF}");
    let written = text(node.to_bytes(ns::CLIENT));
    assert_eq!(
        written,
        "<iq type='set' to='a&apos;b'><query xmlns='jabber:iq:roster'><item/></query><x xmlns=''/>\
         <raw xmlns='urn:r'/>1 &lt; 2\n&#13;\t\"\u{FFFD}\u{FFFD}</iq>"
    );
    let parsed = Node::parse(written.as_bytes(), ns::CLIENT).expect("well-formed");
    assert_eq!(parsed.children().count(), 3);
    assert_eq!(parsed.text(), "1 < 2\n\r\t\"\u{FFFD}\u{FFFD}");
    assert_eq!(parsed.attr("type"), Some("set"));
    assert!(parsed.child("raw", "urn:r").is_some() && parsed.child("x", "").is_some());
    assert_eq!(Node::parse(&parsed.to_bytes(""), ""), Ok(parsed.clone()));
    assert!(
        parsed
            .content()
            .iter()
            .any(|c| matches!(c, Content::Text(_)))
    );
    let features = Node::new("features", ns::STREAMS).with_child(Node::new("bind", ns::BIND));
    assert_eq!(
        text(features.to_bytes(ns::CLIENT)),
        "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
    );
    let reserved = Node::parse(b"<xml:a xml:b='1'><c/></xml:a>", "urn:x").expect("well-formed");
    assert_eq!(
        text(reserved.to_bytes("urn:x")),
        "<xml:a xml:b='1'><c/></xml:a>"
    );
    for wrong in ["", "text", "<a/><b/>", "<a></x><x></a>", "</x><x>", "<a"] {
        assert!(Node::parse(wrong.as_bytes(), "urn:x").is_err(), "{wrong}");
    }
}

#[test]
fn escaping_counts_as_it_writes() {
    for value in [
        "",
        "plain",
        "<>&'\"",
        "\u{0}\u{1F}\t\r\n",
        "é🦀\u{FFFE}\u{FFFF}\u{FFFD}",
        "a\u{FFFE}b<c",
    ] {
        let mut out = Vec::new();
        escape_into(&mut out, value);
        assert_eq!(out.len(), escaped_len(value), "{value:?}");
        let e = element(&format!("<a b='{}'/>", text(&out)));
        let expected: String = value
            .chars()
            .map(|c| {
                if matches!(c, '\u{0}' | '\u{1F}' | '\u{FFFE}' | '\u{FFFF}') {
                    '\u{FFFD}'
                } else {
                    c
                }
            })
            .collect();
        assert_eq!(e.attr("b").as_deref(), Some(expected.as_str()));
    }
}
