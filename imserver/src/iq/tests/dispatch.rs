//! Who may ask what of whom, and where the answer goes.

use super::*;

/// Every extension at every kind of target: `+` answered, `?` something must be read or done, or the error.
#[test]
fn who_may_ask_what_is_a_table() {
    let rows = [
        // IQ, server, own account, somebody whose presence one gets, a stranger
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            // Of a stranger it hangs on whether there is a node for everybody.
            ["+", "+", "+", "?"],
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items'/>",
            ["+", "?", "?", "?"],
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>",
            ["item-not-found", "?", "?", "?"],
        ),
        (
            "get",
            "<query xmlns='http://jabber.org/protocol/disco#items' node='x'/>",
            ["item-not-found", "?", "?", "?"],
        ),
        (
            "set",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            ["service-unavailable"; 4],
        ),
        (
            "get",
            "<ping xmlns='urn:xmpp:ping'/>",
            ["+", "+", "+", "service-unavailable"],
        ),
        (
            "set",
            "<ping xmlns='urn:xmpp:ping'/>",
            ["service-unavailable"; 4],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:version'/>",
            [
                "+",
                "service-unavailable",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:last'/>",
            ["+", "?", "?", "forbidden"],
        ),
        (
            "get",
            "<time xmlns='urn:xmpp:time'/>",
            [
                "+",
                "service-unavailable",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<vCard xmlns='vcard-temp'/>",
            ["service-unavailable", "?", "?", "?"],
        ),
        (
            "set",
            "<vCard xmlns='vcard-temp'/>",
            ["service-unavailable", "?", "forbidden", "forbidden"],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:private'><a xmlns='x'/></query>",
            ["service-unavailable", "?", "forbidden", "forbidden"],
        ),
        (
            "set",
            "<query xmlns='jabber:iq:private'><a xmlns='x'>1</a></query>",
            ["service-unavailable", "?", "forbidden", "forbidden"],
        ),
        (
            "get",
            "<prefs xmlns='urn:xmpp:mam:2'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<blocklist xmlns='urn:xmpp:blocking'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<prefs xmlns='urn:xmpp:mam:2' default='never'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/></block>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<unblock xmlns='urn:xmpp:blocking'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<enable xmlns='urn:xmpp:push:0' jid='push.example'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<disable xmlns='urn:xmpp:push:0' jid='push.example'/>",
            [
                "service-unavailable",
                "?",
                "forbidden",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='x'/></pubsub>",
            ["service-unavailable", "?", "?", "?"],
        ),
        (
            "set",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='x'/></pubsub>",
            ["service-unavailable", "?", "?", "service-unavailable"],
        ),
        (
            "get",
            "<services xmlns='urn:xmpp:extdisco:2'/>",
            [
                "+",
                "service-unavailable",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<credentials xmlns='urn:xmpp:extdisco:2'/>",
            [
                "bad-request",
                "service-unavailable",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:search'/>",
            [
                "+",
                "service-unavailable",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:register'/>",
            [
                "forbidden",
                "+",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<query xmlns='jabber:iq:register'><remove/></query>",
            [
                "forbidden",
                "?",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "get",
            "<query xmlns='jabber:iq:roster'/>",
            [
                "service-unavailable",
                "?",
                "service-unavailable",
                "service-unavailable",
            ],
        ),
        (
            "set",
            "<query xmlns='jabber:iq:roster'><item jid='a@example.org'/></query>",
            ["service-unavailable", "?", "forbidden", "forbidden"],
        ),
        (
            "set",
            "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>",
            ["+", "+", "service-unavailable", "service-unavailable"],
        ),
        (
            "get",
            "<query xmlns='urn:unknown'/>",
            ["service-unavailable"; 4],
        ),
        (
            "set",
            "<x xmlns='http://jabber.org/protocol/disco#info'/>",
            ["service-unavailable"; 4],
        ),
        // RFC 6120 §8.2.3 rule 5
        ("get", "", ["bad-request"; 4]),
        ("get", "text", ["bad-request"; 4]),
        (
            "set",
            "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>",
            ["bad-request"; 4],
        ),
        // RFC 6120 §8.2.3 rules 3 and 4
        ("result", "", [""; 4]),
        ("result", "<ping xmlns='urn:xmpp:ping'/>", [""; 4]),
        (
            "result",
            "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>",
            [""; 4],
        ),
        ("error", "<ping xmlns='urn:xmpp:ping'/>", [""; 4]),
        (
            "question",
            "<ping xmlns='urn:xmpp:ping'/>",
            ["bad-request"; 4],
        ),
    ];
    for (iq_type, payload, expected) in rows {
        let xml = format!("<iq type='{iq_type}' id='1'>{payload}</iq>");
        for (target, expected) in [Target::Server, OWN, FRIEND, STRANGER]
            .into_iter()
            .zip(expected)
        {
            let got = match ask(target, &xml) {
                IqOutcome::Reply(_) => "+",
                IqOutcome::Error(condition, _) => condition.as_str(),
                IqOutcome::Ignore => "",
                _ => "?",
            };
            assert_eq!(got, expected, "{xml} to {target:?}");
        }
    }
    assert_eq!(
        condition(OWN, "<iq id='1'><ping xmlns='urn:xmpp:ping'/></iq>"),
        Some(StanzaError::BadRequest)
    );
}

#[test]
fn answers_go_back_where_the_question_came_from() {
    let ping = "<iq type='get' id='&lt;1&apos;'><ping xmlns='urn:xmpp:ping'/></iq>";
    for (target, from) in [
        (Target::Server, Some("example.org")),
        (OWN, None),
        (FRIEND, Some("romeo@example.org")),
    ] {
        let reply = reply(target, ping);
        let attrs =
            ["type", "id", "to", "from"].map(|name| reply.attr(name).map(|v| v.into_owned()));
        let expected = [
            Some("result"),
            Some("<1'"),
            Some("juliet@example.org/balcony"),
            from,
        ];
        assert_eq!(attrs, expected.map(|v| v.map(str::to_owned)), "{target:?}");
        assert_eq!(reply.children().count(), 0);
    }
    let asked = Asked::new(STRANGER, ping);
    let error = asked
        .request()
        .error(StanzaError::ServiceUnavailable, None)
        .expect("may be answered");
    let error = Element::parse(error).expect("well-formed");
    assert_eq!(error.attr("type").as_deref(), Some("error"));
    assert_eq!(error.attr("id").as_deref(), Some("<1'"));
    assert_eq!(
        error.attr("to").as_deref(),
        Some("juliet@example.org/balcony")
    );
    assert_eq!(error.attr("from").as_deref(), Some("romeo@example.org"));
    let answer = Asked::new(STRANGER, "<iq type='result' id='1'/>");
    assert_eq!(answer.request().error(StanzaError::BadRequest, None), None);
}
