//! IQs and their answers, as rows of XML.

use super::*;
use crate::pubsub::ask::Ask;
use roster::Set;
use xmpp::ns;

pub(super) const OWN: Target = Target::Account {
    own: true,
    may_see: true,
};
const FRIEND: Target = Target::Account {
    own: false,
    may_see: true,
};
const STRANGER: Target = Target::Account {
    own: false,
    may_see: false,
};

/// A site whose one domain can be searched, and takes registrations.
static PEOPLE: std::sync::LazyLock<People> = std::sync::LazyLock::new(|| People {
    search_domains: vec!["example.org".into()],
    register_domains: vec!["example.org".into()],
    ..People::default()
});

/// Of its other domain.
pub(super) static CONTACTS: std::sync::LazyLock<Contacts> = std::sync::LazyLock::new(|| {
    let contact = |field, addresses: &[&str]| crate::settings::Contact {
        field,
        addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
    };
    let contacts = vec![
        contact(
            "abuse-addresses",
            &["mailto:abuse@verona.example", "xmpp:a@verona.example"],
        ),
        contact("support-addresses", &["https://verona.example/?a=1&b=2"]),
    ];
    Contacts::from([("verona.example".to_owned(), contacts)])
});

static SERVICES: std::sync::LazyLock<Vec<ExternalService>> = std::sync::LazyLock::new(|| {
    let service = |kind: &str, port, transport, secret: Option<&str>| ExternalService {
        kind: kind.to_owned(),
        host: "turn.example.org".to_owned(),
        port,
        transport,
        label: None,
        secret: secret.map(|s| crate::event::Secret(s.to_owned())),
        credentials_s: 3_600,
    };
    vec![
        service("stun", 3478, "udp", None),
        service("turn", 3478, "udp", Some("north")),
        service("turn", 3479, "tcp", Some("south")),
    ]
});

pub(super) struct Asked {
    element: Element,
    from: Jid,
    to: Option<Jid>,
    target: Target,
}

impl Asked {
    pub(super) fn new(target: Target, xml: &str) -> Self {
        Self {
            element: Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("well-formed"),
            from: Jid::parse("juliet@example.org/balcony").expect("an address"),
            to: match target {
                Target::Server => Some("example.org"),
                Target::Account { own: true, .. } => None,
                Target::Account { .. } => Some("romeo@example.org"),
            }
            .map(|to| Jid::parse(to).expect("an address")),
            target,
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            element: &self.element,
            from: &self.from,
            to: self.to.as_ref(),
            target: self.target,
            context: Context {
                rights: crate::policy::Rights::NONE,
                services: &[],
                archive: true,
                archive_page_max: 50,
                archive_search: true,
                archive_prefs_jids_max: 3,
                vcard_bytes_max: 200,
                private_element_bytes_max: 100,
                blocklist_items_max: 3,
                uptime_s: 17,
                pubsub: super::pubsub::limits(&crate::settings::Settings::default()),
                now_unix_ms: 1_163_959_115_999,
                people: &PEOPLE,
                contacts: &CONTACTS,
                external_services: &SERVICES,
                ours: true,
                secure: true,
            },
        }
    }
}

pub(super) fn ask(target: Target, xml: &str) -> IqOutcome {
    dispatch(&Asked::new(target, xml).request())
}

fn reply(target: Target, xml: &str) -> Element {
    match ask(target, xml) {
        IqOutcome::Reply(bytes) => Element::parse(bytes).expect("well-formed"),
        other => panic!("{xml}: {other:?}"),
    }
}

fn condition(target: Target, xml: &str) -> Option<StanzaError> {
    match ask(target, xml) {
        IqOutcome::Error(condition, _) => Some(condition),
        _ => None,
    }
}

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

/// The list is what the table has; a change here is a change of what we announce, and must be meant.
#[test]
fn the_server_announces_what_it_does() {
    let info = reply(
        Target::Server,
        "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    let query = info.child("query", ns::DISCO_INFO).expect("a query").tree();
    let identity = query
        .child("identity", ns::DISCO_INFO)
        .expect("an identity");
    assert_eq!(
        (identity.attr("category"), identity.attr("type")),
        (Some("server"), Some("im"))
    );
    let features: Vec<_> = query.children().filter_map(|c| c.attr("var")).collect();
    assert_eq!(
        features,
        [
            "http://jabber.org/protocol/disco#info",
            "http://jabber.org/protocol/disco#items",
            "jabber:iq:last",
            "jabber:iq:private",
            "jabber:iq:register",
            "jabber:iq:roster",
            "jabber:iq:search",
            "jabber:iq:version",
            "msgoffline",
            "urn:xmpp:blocking",
            "urn:xmpp:carbons:2",
            "urn:xmpp:extdisco:2",
            "urn:xmpp:ping",
            "urn:xmpp:reporting:1",
            "urn:xmpp:time",
            "vcard-temp",
        ]
    );
    let info = reply(
        OWN,
        "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    let query = info.child("query", ns::DISCO_INFO).expect("a query").tree();
    let identity = query
        .child("identity", ns::DISCO_INFO)
        .expect("an identity");
    assert_eq!(
        (identity.attr("category"), identity.attr("type")),
        (Some("account"), Some("registered"))
    );
    let features: Vec<_> = query.children().filter_map(|c| c.attr("var")).collect();
    assert_eq!(
        features,
        [
            "http://jabber.org/protocol/disco#info",
            "http://jabber.org/protocol/disco#items",
            "http://jabber.org/protocol/pubsub",
            "http://jabber.org/protocol/pubsub#access-authorize",
            "http://jabber.org/protocol/pubsub#access-open",
            "http://jabber.org/protocol/pubsub#access-presence",
            "http://jabber.org/protocol/pubsub#access-roster",
            "http://jabber.org/protocol/pubsub#access-whitelist",
            "http://jabber.org/protocol/pubsub#auto-create",
            "http://jabber.org/protocol/pubsub#auto-subscribe",
            "http://jabber.org/protocol/pubsub#config-node",
            "http://jabber.org/protocol/pubsub#config-node-max",
            "http://jabber.org/protocol/pubsub#create-and-configure",
            "http://jabber.org/protocol/pubsub#create-nodes",
            "http://jabber.org/protocol/pubsub#delete-items",
            "http://jabber.org/protocol/pubsub#delete-nodes",
            "http://jabber.org/protocol/pubsub#filtered-notifications",
            "http://jabber.org/protocol/pubsub#instant-nodes",
            "http://jabber.org/protocol/pubsub#item-ids",
            "http://jabber.org/protocol/pubsub#last-published",
            "http://jabber.org/protocol/pubsub#manage-subscriptions",
            "http://jabber.org/protocol/pubsub#member-affiliation",
            "http://jabber.org/protocol/pubsub#meta-data",
            "http://jabber.org/protocol/pubsub#modify-affiliations",
            "http://jabber.org/protocol/pubsub#multi-items",
            "http://jabber.org/protocol/pubsub#outcast-affiliation",
            "http://jabber.org/protocol/pubsub#persistent-items",
            "http://jabber.org/protocol/pubsub#publish",
            "http://jabber.org/protocol/pubsub#publish-options",
            "http://jabber.org/protocol/pubsub#publisher-affiliation",
            "http://jabber.org/protocol/pubsub#purge-nodes",
            "http://jabber.org/protocol/pubsub#retract-items",
            "http://jabber.org/protocol/pubsub#retrieve-affiliations",
            "http://jabber.org/protocol/pubsub#retrieve-default",
            "http://jabber.org/protocol/pubsub#retrieve-items",
            "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
            "http://jabber.org/protocol/pubsub#rsm",
            "http://jabber.org/protocol/pubsub#subscribe",
            "http://jabber.org/protocol/pubsub#subscription-notifications",
            "jabber:iq:last",
            "jabber:iq:private",
            "urn:ietf:params:xml:ns:vcard-4.0",
            "urn:xmpp:bookmarks-conversion:0",
            "urn:xmpp:bookmarks:1#compat",
            "urn:xmpp:bookmarks:1#compat-pep",
            "urn:xmpp:fulltext:0",
            "urn:xmpp:mam:2",
            "urn:xmpp:mam:2#extended",
            "urn:xmpp:pep-vcard-conversion:0",
            "urn:xmpp:ping",
            "urn:xmpp:push:0",
            "urn:xmpp:sid:0",
            "vcard-temp",
        ]
    );
}

/// Whatever is announced for a target is answered there, and no two extensions claim the same element.
#[test]
fn features_and_handlers_agree() {
    let mut claimed = std::collections::HashSet::new();
    for e in EXTENSIONS {
        assert!(claimed.insert((e.name, e.ns)), "{} {} twice", e.name, e.ns);
        assert!(e.get.is_some() || e.set.is_some());
        for (target, features) in [
            (Target::Server, e.server_features),
            (OWN, e.account_features),
        ] {
            // The roster is announced by the server and lives in the account.
            if features.is_empty()
                || e.ns == ns::ROSTER
                // Announced by the server for accounts themselves.
                || (e.ns == ns::REGISTER && target == Target::Server)
                || (e.ns == ns::VCARD && target == Target::Server)
                || (e.ns == ns::PRIVATE && target == Target::Server)
                || e.ns == ns::BLOCKING
                // They are of type set.
                || e.get.is_none()
            {
                continue;
            }
            let xml = format!("<iq type='get' id='1'><{} xmlns='{}'/></iq>", e.name, e.ns);
            assert_ne!(
                condition(target, &xml),
                Some(StanzaError::ServiceUnavailable),
                "{xml} to {target:?}"
            );
        }
    }
}

#[test]
fn services_are_listed_by_the_server_alone() {
    let services = [
        Service {
            jid: "rooms.example.org".into(),
            name: Some("Rooms & more".into()),
        },
        Service {
            jid: "news.example.org".into(),
            name: None,
        },
    ];
    let xml = "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>";
    let asked = Asked::new(Target::Server, xml);
    let mut request = asked.request();
    request.context.services = &services;
    let IqOutcome::Reply(bytes) = dispatch(&request) else {
        panic!("answered")
    };
    let query = Element::parse(bytes)
        .expect("well-formed")
        .child("query", ns::DISCO_ITEMS)
        .expect("a query")
        .tree();
    assert_eq!(query.children().count(), 2);
    let first = query.children().next().expect("two");
    assert_eq!(
        (first.attr("jid"), first.attr("name")),
        (Some("rooms.example.org"), Some("Rooms & more"))
    );
    // An account lists its nodes, and has to look for them.
    assert!(matches!(ask(OWN, xml), IqOutcome::Pubsub(_)));
}

#[test]
fn version_and_time_tell_what_they_should() {
    let version = reply(
        Target::Server,
        "<iq type='get' id='1'><query xmlns='jabber:iq:version'/></iq>",
    );
    let query = version.child("query", ns::VERSION).expect("a query").tree();
    assert_eq!(
        query.child("name", ns::VERSION).expect("a name").text(),
        "Isthmus"
    );
    assert!(query.child("version", ns::VERSION).is_some());
    assert!(query.child("os", ns::VERSION).is_none());
    let time = reply(
        Target::Server,
        "<iq type='get' id='1'><time xmlns='urn:xmpp:time'/></iq>",
    );
    let time = time.child("time", "urn:xmpp:time").expect("a time").tree();
    assert_eq!(
        time.child("utc", "urn:xmpp:time").expect("utc").text(),
        "2006-11-19T17:58:35.999Z"
    );
    assert_eq!(
        time.child("tzo", "urn:xmpp:time").expect("tzo").text(),
        "+00:00"
    );
}

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

#[test]
fn a_domain_says_how_its_people_are_reached() {
    let xml = "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    let form = |asked: &Asked| {
        let IqOutcome::Reply(bytes) = dispatch(&asked.request()) else {
            panic!("answered")
        };
        let reply = Element::parse(bytes).expect("well-formed");
        let query = reply
            .child("query", ns::DISCO_INFO)
            .expect("a query")
            .tree();
        let x = query.child("x", ns::DATA_FORMS);
        x.map(|x| xmpp::form::Form::parse(x).expect("a form"))
    };
    // Another domain has none, and accounts of the domain say nothing of it.
    assert_eq!(form(&Asked::new(Target::Server, xml)), None);
    let of = |target, to| Asked {
        to: Some(Jid::parse(to).expect("an address")),
        ..Asked::new(target, xml)
    };
    assert_eq!(form(&of(FRIEND, "romeo@verona.example")), None);
    let form = form(&of(Target::Server, "verona.example")).expect("a form");
    assert_eq!(
        form.form_type(),
        Some("http://jabber.org/network/serverinfo")
    );
    assert_eq!(form.values("abuse-addresses").len(), 2);
    assert_eq!(
        form.values("support-addresses"),
        ["https://verona.example/?a=1&b=2"]
    );
    assert_eq!(form.fields.len(), 3);
}

#[test]
fn external_services_come_with_credentials_that_end() {
    let get = |payload: &str| format!("<iq type='get' id='1'>{payload}</iq>");
    let services = |payload: &str| -> Vec<Node> {
        let reply = reply(Target::Server, &get(payload));
        let answer = reply.children().next().expect("a payload").tree();
        answer.children().cloned().collect()
    };
    let all = services("<services xmlns='urn:xmpp:extdisco:2'/>");
    let attrs = |n: &Node, names: &[&str]| -> Vec<String> {
        let values = names.iter().map(|name| n.attr(name).unwrap_or("-"));
        values.map(str::to_owned).collect()
    };
    let place = ["type", "host", "port", "transport"];
    let secret = ["restricted", "expires", "username"];
    assert_eq!(all.len(), 3);
    assert_eq!(
        attrs(&all[0], &place),
        ["stun", "turn.example.org", "3478", "udp"]
    );
    assert_eq!(attrs(&all[0], &secret), ["-", "-", "-"]);
    assert_eq!(
        attrs(&all[2], &secret),
        ["true", "2006-11-19T18:58:35.000Z", "1163962715:juliet"]
    );
    assert_ne!(all[1].attr("password"), all[2].attr("password"));
    let turn = services("<services xmlns='urn:xmpp:extdisco:2' type='turn'/>");
    assert_eq!(turn, all[1..]);
    assert!(services("<services xmlns='urn:xmpp:extdisco:2' type='ftp'/>").is_empty());

    let asked = |attrs: &str| {
        format!("<credentials xmlns='urn:xmpp:extdisco:2'><service {attrs}/></credentials>")
    };
    let turn = "host='turn.example.org' type='turn'";
    assert_eq!(services(&asked(turn)), all[1..]);
    assert_eq!(services(&asked(&format!("{turn} port='3479'"))), all[2..]);
    for (attrs, expected) in [
        ("host='turn.example.org'", StanzaError::BadRequest),
        ("host='other' type='turn'", StanzaError::ItemNotFound),
        // It needs none.
        (
            "host='turn.example.org' type='stun'",
            StanzaError::ItemNotFound,
        ),
    ] {
        let got = condition(Target::Server, &get(&asked(attrs)));
        assert_eq!(got, Some(expected), "{attrs}");
    }
    // Strangers get no credentials; a server without services does not know the question.
    let strange = Asked::new(
        Target::Server,
        &get("<services xmlns='urn:xmpp:extdisco:2'/>"),
    );
    let request = strange.request();
    for (ours, external_services, expected) in [
        (false, &SERVICES[..], StanzaError::Forbidden),
        (true, &[][..], StanzaError::ServiceUnavailable),
    ] {
        let request = Request {
            context: Context {
                ours,
                external_services,
                ..request.context
            },
            ..request
        };
        assert_eq!(dispatch(&request), IqOutcome::Error(expected, None));
    }
}

fn roster_set(query: &str) -> Result<Set, StanzaError> {
    match ask(
        OWN,
        &format!("<iq type='set' id='1'><query xmlns='jabber:iq:roster'>{query}</query></iq>"),
    ) {
        IqOutcome::RosterSet(set) => Ok(set),
        IqOutcome::Error(condition, _) => Err(condition),
        other => panic!("{other:?}"),
    }
}

#[test]
fn roster_sets_in_order_are_taken() {
    let put = |name: Option<&str>, groups: &[&str]| {
        Ok(Set::Put {
            jid: BareJid::parse("nurse@example.org").expect("an address"),
            name: name.map(str::to_owned),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        })
    };
    let remove = Ok(Set::Remove {
        jid: BareJid::parse("nurse@example.org").expect("an address"),
    });
    let longest = "n".repeat(roster::NAME_BYTES_MAX);
    let groups: Vec<String> = (0..roster::GROUPS_MAX).map(|n| n.to_string()).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let many: String = groups
        .iter()
        .map(|g| format!("<group>{g}</group>"))
        .collect();
    let rows = [
        ("<item jid='nurse@example.org'/>".to_owned(), put(None, &[])),
        ("<item jid='Nurse@EXAMPLE.org' name=''/>".to_owned(), put(None, &[])),
        (
            "<item jid='nurse@example.org' name='Nurse &amp; co'><group>Servants</group><group>a</group></item>".to_owned(),
            put(Some("Nurse & co"), &["Servants", "a"]),
        ),
        // §2.1.2: the server's to say.
        ("<item jid='nurse@example.org' subscription='both' ask='subscribe' approved='true'/>".to_owned(), put(None, &[])),
        ("<item jid='nurse@example.org' subscription='bogus'/>".to_owned(), put(None, &[])),
        // Groups that differ in case differ (resourceprep).
        ("<item jid='nurse@example.org'><group>A</group><group>a</group></item>".to_owned(), put(None, &["A", "a"])),
        // What is not ours is not looked at.
        ("<item jid='nurse@example.org'><x xmlns='urn:x'/><group xmlns='urn:x'/></item>".to_owned(), put(None, &[])),
        ("<x xmlns='urn:x'/><item jid='nurse@example.org'/>".to_owned(), put(None, &[])),
        (format!("<item jid='nurse@example.org' name='{longest}'/>"), put(Some(&longest), &[])),
        (format!("<item jid='nurse@example.org'>{many}</item>"), put(None, &groups)),
        ("<item jid='nurse@example.org' subscription='remove'/>".to_owned(), remove.clone()),
        ("<item jid='nurse@example.org' subscription='remove'><group/></item>".to_owned(), remove),
        // An old server might have let one's own address in: it can be taken out.
        (
            "<item jid='juliet@example.org' subscription='remove'/>".to_owned(),
            Ok(Set::Remove { jid: BareJid::parse("juliet@example.org").expect("an address") }),
        ),
    ];
    for (query, expected) in rows {
        assert_eq!(roster_set(&query), expected, "{query}");
    }
}

#[test]
fn roster_sets_out_of_order_get_the_error_of_2_3_3() {
    use StanzaError::*;
    let too_long = "n".repeat(roster::NAME_BYTES_MAX + 1);
    let many: String = (0..=roster::GROUPS_MAX)
        .map(|n| format!("<group>{n}</group>"))
        .collect();
    let rows = [
        (String::new(), BadRequest),
        ("<x xmlns='urn:x'/>".into(), BadRequest),
        (
            "<item jid='a@example.org'/><item jid='b@example.org'/>".into(),
            BadRequest,
        ),
        (
            "<item jid='a@example.org' subscription='remove'/><item jid='b@example.org'/>".into(),
            BadRequest,
        ),
        ("<item name='nobody'/>".into(), BadRequest),
        ("<item jid='a@example.org/resource'/>".into(), BadRequest),
        ("<item jid='a@b@c'/>".into(), JidMalformed),
        ("<item jid=''/>".into(), JidMalformed),
        ("<item jid='@example.org'/>".into(), JidMalformed),
        ("<item jid='juliet@example.org'/>".into(), NotAllowed),
        (
            "<item jid='a@example.org'><group>A</group><group>A</group></item>".into(),
            BadRequest,
        ),
        (
            "<item jid='a@example.org'><group/></item>".into(),
            NotAcceptable,
        ),
        (
            "<item jid='a@example.org'><group></group></item>".into(),
            NotAcceptable,
        ),
        (
            "<item jid='a@example.org'><group>A</group><group/></item>".into(),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org' name='{too_long}'/>"),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org'><group>{too_long}</group></item>"),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org'>{many}</item>"),
            NotAcceptable,
        ),
    ];
    for (query, expected) in rows {
        assert_eq!(roster_set(&query), Err(expected), "{query}");
    }
}

#[test]
fn roster_gets_carry_their_version() {
    let get = |query: &str| ask(OWN, &format!("<iq type='get' id='1'>{query}</iq>"));
    for (query, ver) in [
        ("<query xmlns='jabber:iq:roster'/>", None),
        ("<query xmlns='jabber:iq:roster' ver=''/>", Some("")),
        (
            "<query xmlns='jabber:iq:roster' ver='ver14'/>",
            Some("ver14"),
        ),
    ] {
        assert_eq!(
            get(query),
            IqOutcome::RosterGet {
                ver: ver.map(str::to_owned)
            },
            "{query}"
        );
    }
    let with_item = "<query xmlns='jabber:iq:roster'><item jid='a@example.org'/></query>";
    assert!(matches!(
        get(with_item),
        IqOutcome::Error(StanzaError::BadRequest, _)
    ));
}
