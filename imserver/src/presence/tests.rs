//! Presence as tables: priorities, plans, the directed list, probes.

use super::*;
use xmpp::element::Element;

fn element(xml: &str) -> Element {
    Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("well-formed")
}

fn jid(s: &str) -> Jid {
    Jid::parse(s).expect("an address")
}

#[test]
fn priorities_are_bytes() {
    let good = [
        ("<presence/>", 0),
        (
            "<presence><show>away</show><status>out</status></presence>",
            0,
        ),
        ("<presence><priority>0</priority></presence>", 0),
        ("<presence><priority>127</priority></presence>", 127),
        ("<presence><priority>-128</priority></presence>", -128),
        ("<presence><priority>+5</priority></presence>", 5),
        ("<presence><priority> 7\n</priority></presence>", 7),
        (
            "<presence><priority xmlns='urn:other'>x</priority></presence>",
            0,
        ),
    ];
    for (xml, expected) in good {
        assert_eq!(priority(&element(xml)), Ok(expected), "{xml}");
    }
    let bad = [
        "<presence><priority>128</priority></presence>",
        "<presence><priority>-129</priority></presence>",
        "<presence><priority>99999999999999999999</priority></presence>",
        "<presence><priority/></presence>",
        "<presence><priority> </priority></presence>",
        "<presence><priority>high</priority></presence>",
        "<presence><priority>1.5</priority></presence>",
        "<presence><priority>1 2</priority></presence>",
        "<presence><priority>--1</priority></presence>",
        "<presence><priority>١</priority></presence>",
        "<presence><priority>1</priority><priority>1</priority></presence>",
    ];
    for xml in bad {
        assert_eq!(
            priority(&element(xml)),
            Err(StanzaError::BadRequest),
            "{xml}"
        );
    }
}

/// Plans by what they do: a subscribers, s siblings, e echo, f farewell, p probe, b siblings' presence back, r requests,
/// q our own requests again, m messages.
fn letters(plan: Plan) -> String {
    let Plan {
        audience,
        siblings,
        echo,
        farewell,
        probe,
        siblings_presence,
        requests,
        ask_again,
        flood,
    } = plan;
    [
        (audience, 'a'),
        (siblings, 's'),
        (echo, 'e'),
        (farewell, 'f'),
        (probe, 'p'),
        (siblings_presence, 'b'),
        (requests, 'r'),
        (ask_again, 'q'),
        (flood, 'm'),
    ]
    .into_iter()
    .filter_map(|(on, letter)| on.then_some(letter))
    .collect()
}

#[test]
fn broadcast_presence_has_a_plan() {
    let rows = [
        ("§4.2.2 initial", None, Said::Available(0), "asepbrqm"),
        ("§4.2.2 initial", None, Said::Available(127), "asepbrqm"),
        (
            "§4.2.2, XEP-0160 §2: negative takes no messages",
            None,
            Said::Available(-1),
            "asepbrq",
        ),
        ("§4.4.2 later", Some(0), Said::Available(0), "ase"),
        ("§4.4.2 later", Some(5), Said::Available(-1), "ase"),
        ("§4.4.2 later", Some(-1), Said::Available(-5), "ase"),
        (
            "XEP-0160 §2: from negative to not",
            Some(-1),
            Said::Available(0),
            "asem",
        ),
        ("§4.5.2 graceful", Some(0), Said::Unavailable, "asef"),
        ("§4.5.2 graceful", Some(-1), Said::Unavailable, "asef"),
        ("§4.5.2 ungraceful", Some(0), Said::Lost, "asf"),
        ("§4.6.3 case 3", None, Said::Unavailable, "f"),
        ("§4.6.3 case 3", None, Said::Lost, "f"),
    ];
    for (section, before, said, expected) in rows {
        assert_eq!(
            letters(on_broadcast(before, said)),
            expected,
            "{section}: {before:?} {said:?}"
        );
    }
}

#[test]
fn directed_presence_is_noted_bounded_and_struck_out() {
    let mut list = Directed::default();
    // §4.6.3 case 1: a subscriber hears everything anyway.
    assert_eq!(list.available(&jid("sub@example.org"), true, 2), Ok(()));
    assert!(list.entries().is_empty());
    // Cases 2 and 3.
    assert_eq!(
        list.available(&jid("room@muc.example.org/me"), false, 2),
        Ok(())
    );
    assert_eq!(
        list.available(&jid("room@muc.example.org/me"), false, 2),
        Ok(())
    );
    assert_eq!(list.available(&jid("friend@example.org"), false, 2), Ok(()));
    assert_eq!(list.entries().len(), 2);
    assert_eq!(
        list.available(&jid("third@example.org"), false, 2),
        Err(StanzaError::ResourceConstraint)
    );
    // Already there is no new one.
    assert_eq!(list.available(&jid("friend@example.org"), false, 2), Ok(()));
    // Who has it may ask; so may the room's other occupants.
    assert!(list.knows(&jid("room@muc.example.org/other")));
    assert!(list.knows(&jid("room@muc.example.org")));
    assert!(list.knows(&jid("friend@example.org/phone")));
    assert!(!list.knows(&jid("third@example.org")));
    // §4.6.2: only exactly that entity is struck out; another occupant that leaves is not us.
    list.unavailable(&jid("room@muc.example.org/other"));
    assert_eq!(list.entries().len(), 2);
    list.unavailable(&jid("room@muc.example.org/me"));
    list.unavailable(&jid("room@muc.example.org/me"));
    assert_eq!(list.entries(), [jid("friend@example.org")]);
}

#[test]
fn farewell_goes_once_to_each() {
    let entries = || {
        Directed::new(vec![
            jid("b@example.org/x"),
            jid("a@example.org"),
            jid("a@example.org"),
        ])
    };
    assert_eq!(
        entries().entries(),
        [jid("a@example.org"), jid("b@example.org/x")]
    );
    let subscriber = |j: &BareJid| j.as_str() == "b@example.org";
    // The broadcast reaches b; but only if there is one.
    let mut list = entries();
    assert_eq!(list.farewell(true, subscriber), [jid("a@example.org")]);
    assert!(list.entries().is_empty());
    assert_eq!(entries().farewell(false, subscriber).len(), 2);
    assert_eq!(Directed::default().farewell(true, |_| false), []);
}

#[test]
fn probes_are_answered_by_section_4_3_2() {
    use ProbeAnswer::*;
    let account = |available| Probed::Account { available };
    let resource = |available, directed| Probed::Resource {
        available,
        directed,
    };
    // exists, subscribed, local
    let rows = [
        ("§8.5.1 a", (false, false, false), account(false), Nothing),
        (
            "§8.5.1 a",
            (false, true, true),
            resource(false, false),
            Nothing,
        ),
        ("rule 1", (true, false, false), account(true), Unsubscribed),
        ("rule 1", (true, false, false), account(false), Unsubscribed),
        ("rule 1", (true, false, true), account(true), Unsubscribed),
        (
            "rule 1, full JID",
            (true, false, false),
            resource(true, false),
            Unsubscribed,
        ),
        (
            "rule 1, full JID",
            (true, false, false),
            resource(false, false),
            Unsubscribed,
        ),
        ("rule 3", (true, true, false), account(false), Unavailable),
        (
            "rule 3, SHOULD only",
            (true, true, true),
            account(false),
            Nothing,
        ),
        ("rule 4", (true, true, false), account(true), Each),
        ("rule 4", (true, true, true), account(true), Each),
        ("full JID", (true, true, false), resource(true, false), Mere),
        ("full JID", (true, true, true), resource(true, true), Mere),
        (
            "full JID",
            (true, true, false),
            resource(false, false),
            Unavailable,
        ),
        (
            "full JID",
            (true, true, true),
            resource(false, false),
            Unavailable,
        ),
        ("§4.6.6", (true, false, false), resource(true, true), Mere),
        (
            "§4.6.6, not available to others",
            (true, false, false),
            resource(false, true),
            Mere,
        ),
        (
            "§4.6.6, not available to others",
            (true, true, false),
            resource(false, true),
            Mere,
        ),
    ];
    for (section, (account_exists, subscribed, local), about, expected) in rows {
        let probe = Probe {
            account_exists,
            subscribed,
            local,
            about,
        };
        assert_eq!(answer_probe(probe), expected, "{section}: {probe:?}");
    }
}

#[test]
fn stanzas_are_well_formed_whatever_the_address() {
    assert_eq!(
        stanza(
            Some("unsubscribed"),
            Some("p&1'"),
            "a@example.org",
            "b@example.org"
        ),
        "<presence type='unsubscribed' id='p&amp;1&apos;' from='a@example.org' to='b@example.org'/>"
    );
    assert_eq!(
        stanza(None, None, "a@example.org/r", "b@example.org"),
        "<presence from='a@example.org/r' to='b@example.org'/>"
    );
    let full = FullJid::parse("a@example.org/it's <me>").expect("an address");
    let (prefix, suffix) = unavailable(&full);
    let whole = [&prefix[..], b" to='b@example.org'", &suffix[..]].concat();
    let parsed = Element::parse(Bytes::from(whole)).expect("well-formed");
    assert_eq!(parsed.attr("from").as_deref(), Some(full.as_str()));
    assert_eq!(parsed.attr("to").as_deref(), Some("b@example.org"));
    assert_eq!(parsed.attr("type").as_deref(), Some("unavailable"));
}
