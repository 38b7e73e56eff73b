//! What service discovery says of the server and its domains, and that it is so.

use super::*;

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
