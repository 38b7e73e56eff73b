//! Items, versions, requests: as sequences of changes and what a client sees of them.

use super::*;
use crate::subscription::{Kind, Step, inbound, outbound};
use xmpp::element::Element;
use xmpp::node::Node;
use xmpp::ns;

const NOW: u64 = 1_700_000_000_000;

fn bare(s: &str) -> BareJid {
    BareJid::parse(s).expect("an address")
}

fn limits(items_max: usize) -> Limits {
    Limits {
        items_max,
        bytes_max: 1 << 20,
    }
}

fn put(roster: &mut Roster, contact: &str, name: &str, now: u64) -> Change {
    roster
        .put(
            &bare(contact),
            Some(name.to_owned()),
            Vec::new(),
            limits(1000),
            now,
        )
        .expect("there is room")
}

/// Of an account without groups.
fn fetch(roster: &Roster, ver: Option<&str>, id: &str, to: &str) -> Fetched {
    roster.fetch(ver, id, to, GroupPart::None, Vec::new)
}

/// Contacts and what is shown of them, from a result or a push.
fn shown(stanza: &Bytes) -> (Option<String>, Vec<String>) {
    let iq = Element::parse(stanza.clone()).expect("well-formed");
    let Some(query) = iq.child("query", ns::ROSTER) else {
        return (None, Vec::new());
    };
    let query = query.tree();
    let item = |i: &Node| {
        let attr = |name: &str| i.attr(name).unwrap_or("-").to_owned();
        let groups: Vec<_> = i.children().map(|g| g.text().into_owned()).collect();
        format!(
            "{} {} {} {} {} [{}]",
            attr("jid"),
            attr("name"),
            attr("subscription"),
            attr("ask"),
            attr("approved"),
            groups.join(",")
        )
    };
    (
        query.attr("ver").map(str::to_owned),
        query.children().map(item).collect(),
    )
}

#[test]
fn a_roster_shows_what_was_set() {
    let mut roster = Roster::default();
    roster
        .put(
            &bare("b@example.org"),
            Some("B & <b>".into()),
            vec!["Work".into(), "Ü".into()],
            limits(10),
            NOW,
        )
        .expect("room");
    roster
        .put(&bare("a@example.org"), None, Vec::new(), limits(10), NOW)
        .expect("room");
    roster.apply(&bare("a@example.org"), State::NoneOut, None, NOW);
    roster.apply(&bare("c@example.org"), State::NonePre, None, NOW);
    roster.apply(&bare("d@example.org"), State::NoneIn, None, NOW);
    let (ver, items) = shown(&fetch(&roster, None, "r1", "u@example.org/x").result);
    assert_eq!(ver, Some(roster.version().to_string()));
    assert_eq!(
        items,
        [
            "a@example.org - none subscribe - []",
            "b@example.org B & <b> none - - [Work,Ü]",
            "c@example.org - none - true []",
        ]
    );
}

#[test]
fn an_update_keeps_the_subscription() {
    let mut roster = Roster::default();
    roster.apply(&bare("a@example.org"), State::FromOut, None, NOW);
    let change = roster
        .put(
            &bare("a@example.org"),
            Some("A".into()),
            vec!["G".into()],
            limits(10),
            NOW,
        )
        .expect("room");
    let push = change.push("p1", "u@example.org/x", GroupPart::None, None);
    assert_eq!(shown(&push).1, ["a@example.org A from subscribe - [G]"]);
    let iq = Element::parse(push).expect("well-formed");
    assert_eq!(
        ["type", "id", "to", "from"].map(|a| iq.attr(a).map(|v| v.into_owned())),
        [
            Some("set".to_owned()),
            Some("p1".to_owned()),
            Some("u@example.org/x".to_owned()),
            None
        ]
    );
    // And a change of state keeps name and groups.
    let applied = roster.apply(&bare("a@example.org"), State::Both, None, NOW);
    assert_eq!(
        shown(
            &applied
                .change
                .expect("shows")
                .push("p2", "u@example.org/x", GroupPart::None, None)
        )
        .1,
        ["a@example.org A both - - [G]"]
    );
}

#[test]
fn versions_only_grow_and_follow_the_clock() {
    let mut roster = Roster::default();
    assert_eq!(put(&mut roster, "a@example.org", "1", NOW).version, NOW);
    assert_eq!(put(&mut roster, "a@example.org", "2", NOW).version, NOW + 1);
    assert_eq!(
        put(&mut roster, "a@example.org", "3", NOW - 5_000_000).version,
        NOW + 2
    );
    assert_eq!(
        put(&mut roster, "a@example.org", "4", NOW + 60_000).version,
        NOW + 60_000
    );
}

#[test]
fn a_client_gets_what_it_missed() {
    let mut roster = Roster::default();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        put(&mut roster, &format!("{name}@example.org"), name, NOW);
    }
    let known = roster.version().to_string();
    let to = "u@example.org/x";
    // §2.6.3: nothing has changed: an empty result, no pushes.
    let fetched = fetch(&roster, Some(&known), "r", to);
    assert_eq!(
        fetched.result,
        "<iq type='result' id='r' to='u@example.org/x'/>"
    );
    assert_eq!(fetched.missed, []);
    // One changed twice, one removed, one added: each once, oldest first.
    put(&mut roster, "b@example.org", "B", NOW);
    put(&mut roster, "i@example.org", "I", NOW);
    put(&mut roster, "b@example.org", "BB", NOW);
    roster
        .remove(&bare("c@example.org"), NOW)
        .expect("is there");
    let fetched = fetch(&roster, Some(&known), "r", to);
    assert_eq!(shown(&fetched.result), (None, vec![]));
    let missed: Vec<_> = fetched
        .missed
        .iter()
        .map(|c| shown(&c.push("p", to, GroupPart::None, None)))
        .collect();
    assert_eq!(
        missed
            .iter()
            .flat_map(|(_, items)| items.clone())
            .collect::<Vec<_>>(),
        [
            "i@example.org I none - - []",
            "b@example.org BB none - - []",
            "c@example.org - remove - - []",
        ]
    );
    assert!(
        missed.is_sorted_by_key(|(ver, _)| ver.clone()),
        "versions in order"
    );
    assert_eq!(
        missed.last().expect("three").0,
        Some(roster.version().to_string())
    );
    // Halfway: only what came after.
    let halfway = fetched.missed[1].version.to_string();
    assert_eq!(fetch(&roster, Some(&halfway), "r", to).missed.len(), 1);
}

#[test]
fn a_client_too_far_behind_gets_everything() {
    let mut roster = Roster::default();
    for name in ["a", "b", "c"] {
        put(&mut roster, &format!("{name}@example.org"), name, NOW);
    }
    let to = "u@example.org/x";
    let whole =
        |roster: &Roster, ver: Option<&str>| shown(&fetch(roster, ver, "r", to).result).0.is_some();
    assert!(whole(&roster, None), "knows of no versions");
    assert!(whole(&roster, Some("")), "§2.6.2: has nothing cached");
    assert!(whole(&roster, Some("ver14")), "not one of ours");
    assert!(whole(&roster, Some("-1")));
    assert!(whole(&roster, Some("99999999999999999999999")));
    assert!(whole(&roster, Some("0")), "everything has changed since");
    assert!(
        whole(&roster, Some(&(roster.version() + 1).to_string())),
        "from the future: another store"
    );
    assert!(!whole(&roster, Some(&roster.version().to_string())));
    // A reload forgets removals, so an older version than the one loaded is not good enough.
    let older = roster.version().to_string();
    roster
        .remove(&bare("a@example.org"), NOW)
        .expect("is there");
    assert!(!whole(&roster, Some(&older)));
    let data = UserData {
        roster_version: roster.version(),
        roster: roster.items().to_vec(),
        ..UserData::default()
    };
    let reloaded = Roster::new(data);
    assert!(whole(&reloaded, Some(&older)));
    assert!(!whole(&reloaded, Some(&reloaded.version().to_string())));
}

#[test]
fn removals_are_remembered_up_to_a_bound() {
    let mut roster = Roster::default();
    for n in 0..400 {
        roster
            .put(
                &bare(&format!("c{n:03}@example.org")),
                None,
                Vec::new(),
                limits(1000),
                NOW,
            )
            .expect("room");
    }
    let start = roster.version().to_string();
    for n in 0..REMOVALS_MAX {
        roster
            .remove(&bare(&format!("c{n:03}@example.org")), NOW)
            .expect("is there");
    }
    let to = "u@example.org/x";
    assert_eq!(
        fetch(&roster, Some(&start), "r", to).missed.len(),
        REMOVALS_MAX
    );
    roster
        .remove(&bare("c399@example.org"), NOW)
        .expect("is there");
    let fetched = fetch(&roster, Some(&start), "r", to);
    assert_eq!(fetched.missed, []);
    assert_eq!(shown(&fetched.result).1.len(), 400 - REMOVALS_MAX - 1);
    // Added again: no longer a removal.
    let known = roster.version().to_string();
    put(&mut roster, "c399@example.org", "back", NOW);
    roster
        .remove(&bare("c399@example.org"), NOW)
        .expect("is there");
    put(&mut roster, "c399@example.org", "again", NOW);
    let missed = fetch(&roster, Some(&known), "r", to).missed;
    assert_eq!(missed.len(), 1);
    assert!(missed[0].item.is_some());
}

#[test]
fn a_full_roster_takes_updates_only() {
    let mut roster = Roster::default();
    roster
        .put(&bare("a@example.org"), None, Vec::new(), limits(1), NOW)
        .expect("room");
    let before = roster.clone();
    assert_eq!(
        roster.put(&bare("b@example.org"), None, Vec::new(), limits(1), NOW),
        Err(StanzaError::ResourceConstraint)
    );
    assert_eq!(roster, before);
    assert!(!roster.has_room_for(&bare("b@example.org"), limits(1)));
    assert!(roster.has_room_for(&bare("a@example.org"), limits(1)));
    roster
        .put(
            &bare("a@example.org"),
            Some("A".into()),
            Vec::new(),
            limits(1),
            NOW,
        )
        .expect("an update");
}

#[test]
fn a_roster_is_bounded_in_bytes() {
    let jid = |n: usize| bare(&format!("c{n}@example.org"));
    let long = |len: usize| vec!["&".repeat(len)];
    let limits = Limits {
        items_max: 100,
        bytes_max: 10_000,
    };
    let mut roster = Roster::default();
    for n in 0..3 {
        // As it is sent: 3,000 bytes each.
        let groups = long(600);
        roster
            .put(&jid(n), None, groups, limits, NOW)
            .expect("room");
    }
    let before = roster.clone();
    let full = Err(StanzaError::ResourceConstraint);
    assert_eq!(roster.put(&jid(3), None, long(600), limits, NOW), full);
    assert_eq!(roster.put(&jid(2), None, long(900), limits, NOW), full);
    assert_eq!(roster, before);
    let small = Limits {
        bytes_max: 5_000,
        ..limits
    };
    // The limit was lowered: what is there stays, and may become shorter.
    assert!(!roster.has_room_for(&jid(3), small) && roster.has_room_for(&jid(2), small));
    roster
        .put(&jid(2), None, long(500), small, NOW)
        .expect("shorter");
    roster.apply(&jid(2), State::NoneOut, None, NOW);
    roster.remove(&jid(0), NOW).expect("is there");
    roster.remove(&jid(1), NOW).expect("is there");
    roster
        .put(&jid(3), None, long(100), small, NOW)
        .expect("room");
    // What was added and taken away is what a loaded one counts.
    let loaded = Roster::new(UserData {
        disabled: false,
        created_ms: 0,
        roster_version: roster.version,
        roster: roster.items.clone(),
        requests: Vec::new(),
        pending: 0,
        pending_bytes: 0,
        ..Default::default()
    });
    assert_eq!(loaded.bytes, roster.bytes);
}

#[test]
fn removal_of_a_stranger_is_item_not_found() {
    let mut roster = Roster::default();
    roster.apply(&bare("d@example.org"), State::NoneIn, None, NOW);
    for contact in ["a@example.org", "d@example.org"] {
        assert_eq!(
            roster.remove(&bare(contact), NOW).err(),
            Some(StanzaError::ItemNotFound),
            "{contact}"
        );
    }
    assert_eq!(roster.state(&bare("d@example.org")), State::NoneIn);
}

/// §2.5.2, and the request of the contact goes with the item.
#[test]
fn removal_takes_the_request_along() {
    let (mut roster, a) = (Roster::default(), bare("a@example.org"));
    roster.apply(
        &a,
        State::ToIn,
        Some(&Bytes::from_static(b"<presence type='subscribe'/>")),
        NOW,
    );
    let (outcome, applied) = roster.remove(&a, NOW + 1).expect("is there");
    assert_eq!(
        outcome.steps,
        [
            Step::Push,
            Step::Send(Kind::Unsubscribe),
            Step::Send(Kind::Unsubscribed)
        ]
    );
    assert_eq!(roster.state(&a), State::None);
    let owner = bare("u@example.org");
    assert_eq!(
        applied.writes(&owner, &a),
        [
            store::Write::Roster {
                owner: owner.clone(),
                version: NOW + 1,
                put: None,
                remove: Some(a.clone())
            },
            store::Write::SubscriptionRequest {
                owner: owner.clone(),
                from: a.clone(),
                stanza: None
            },
        ]
    );
}

/// Whatever `subscription` decides, the roster holds it: state in, state out, a change exactly where a push is asked for.
#[test]
fn every_outcome_is_held() {
    let contact = bare("a@example.org");
    for before in State::ALL {
        for kind in Kind::ALL {
            for outcome in [outbound(before, kind), inbound(before, kind)] {
                let mut roster = Roster::default();
                roster.apply(&contact, before, None, NOW);
                assert_eq!(roster.state(&contact), before);
                let version = roster.version();
                let applied = roster.apply(&contact, outcome.state, None, NOW);
                assert_eq!(
                    roster.state(&contact),
                    outcome.state,
                    "{kind:?} in {before:?}"
                );
                assert_eq!(
                    applied.change.is_some(),
                    outcome.steps.contains(&Step::Push),
                    "{kind:?} in {before:?}"
                );
                assert_eq!(roster.version() > version, applied.change.is_some());
                assert_eq!(
                    applied.request.map(|r| r.is_some()),
                    (before.pending_in() != outcome.state.pending_in())
                        .then_some(outcome.state.pending_in())
                );
                assert_eq!(roster.audience().count(), usize::from(outcome.state.from()));
                assert_eq!(roster.probed().count(), usize::from(outcome.state.to()));
                assert_eq!(roster.asked().count(), usize::from(outcome.state.ask()));
            }
        }
    }
}

#[test]
fn a_request_is_kept_whole_but_not_for_ever_long() {
    let mut roster = Roster::default();
    let short = Bytes::from_static(
        b"<presence type='subscribe' from='a@example.org'><status>hi</status></presence>",
    );
    assert_eq!(
        roster
            .apply(&bare("a@example.org"), State::NoneIn, Some(&short), NOW)
            .request,
        Some(Some(short.clone()))
    );
    let long = Bytes::from(format!(
        "<presence type='subscribe'><status>{}</status></presence>",
        "x".repeat(REQUEST_BYTES_MAX)
    ));
    let kept = roster
        .apply(&bare("b@example.org"), State::NoneIn, Some(&long), NOW)
        .request;
    assert_eq!(
        kept,
        Some(Some(Bytes::from_static(
            b"<presence type='subscribe' from='b@example.org'/>"
        )))
    );
    // A second one of the same contact is not kept beside the first.
    assert_eq!(
        roster.apply(&bare("a@example.org"), State::NoneIn, Some(&long), NOW),
        Applied::default()
    );
    assert_eq!(roster.requests()[0].stanza, short);
    // No item comes of it, and no version (§3.1.3, security warning; §2.6.3).
    assert_eq!((roster.items().len(), roster.version()), (0, 0));
}

#[test]
fn strangers_cannot_fill_it_with_requests() {
    let mut roster = Roster::default();
    for n in 0..REQUESTS_MAX {
        assert!(
            roster
                .apply(
                    &bare(&format!("c{n}@example.org")),
                    State::NoneIn,
                    None,
                    NOW
                )
                .request
                .is_some()
        );
    }
    assert_eq!(
        roster.apply(&bare("late@example.org"), State::NoneIn, None, NOW),
        Applied::default()
    );
    assert_eq!(roster.requests().len(), REQUESTS_MAX);
}

// ---- contacts of groups ---------------------------------------------------------------------------------

fn by_group(name: Option<&str>, titles: &[&str], presence: bool) -> Shown {
    Shown {
        name: name.map(Into::into),
        titles: titles.iter().map(|t| (*t).into()).collect(),
        presence,
    }
}

fn own(name: Option<&str>, subscription: store::Subscription, groups: &[&str]) -> RosterItem {
    RosterItem {
        jid: bare("b@example.org"),
        name: name.map(str::to_owned),
        subscription,
        ask: subscription == store::Subscription::None,
        approved: false,
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        version: 1,
    }
}

#[test]
fn a_contact_is_what_the_account_says_and_what_groups_add() {
    use store::Subscription::{Both, None as No, To};
    let sales = by_group(Some("Bob B."), &["Sales"], true);
    let crowd = by_group(Some("Bob B."), &["All"], false);
    let nameless = by_group(None, &["Sales", "Mine"], true);
    #[rustfmt::skip]
    let rows = [
        (None, Some(&sales), "b@example.org Bob B. both - - [Sales]"),
        (None, Some(&crowd), "b@example.org Bob B. none - - [All]"),
        (None, Some(&nameless), "b@example.org - both - - [Sales,Mine]"),
        (None, None, "b@example.org - remove - - []"),
        (Some(own(Some("Bobby"), To, &["Mine"])), Some(&sales), "b@example.org Bobby both - - [Mine,Sales]"),
        (Some(own(None, To, &[])), Some(&sales), "b@example.org Bob B. both - - [Sales]"),
        (Some(own(Some("Bobby"), No, &["Mine"])), Some(&nameless), "b@example.org Bobby both - - [Mine,Sales]"),
        (Some(own(Some("Bobby"), No, &[])), Some(&crowd), "b@example.org Bobby none subscribe - [All]"),
        (Some(own(None, To, &[])), Some(&crowd), "b@example.org Bob B. to - - [All]"),
        (Some(own(Some("Bobby"), Both, &["Mine"])), None, "b@example.org Bobby both - - [Mine]"),
    ];
    for (item, groups, expected) in rows {
        let change = Change {
            jid: bare("b@example.org"),
            item,
            version: 7,
        };
        let push = change.push("p", "u@example.org/x", GroupPart::Whole(0xab), groups);
        let (ver, items) = shown(&push);
        assert_eq!(items, [expected]);
        assert_eq!(ver.as_deref(), Some("7-00000000000000ab"));
    }
}

#[test]
fn a_whole_roster_has_each_contact_once_in_order() {
    let mut roster = Roster::default();
    put(&mut roster, "b@example.org", "Bobby", NOW);
    put(&mut roster, "d@example.org", "Dora", NOW);
    let contacts = [
        bare("a@example.org"),
        bare("b@example.org"),
        bare("e@example.org"),
    ];
    let sales = by_group(Some("From the directory"), &["Sales"], true);
    let contacts = || contacts.iter().map(|c| (c, sales.clone())).collect();
    let to = "u@example.org/x";
    let (ver, items) = shown(
        &roster
            .fetch(None, "r", to, GroupPart::Whole(5), contacts)
            .result,
    );
    assert_eq!(
        items,
        [
            "a@example.org From the directory both - - [Sales]",
            "b@example.org Bobby both - - [Sales]",
            "d@example.org Dora none - - []",
            "e@example.org From the directory both - - [Sales]",
        ]
    );
    let ver = ver.expect("a version");
    assert!(ver.ends_with("-0000000000000005"), "{ver}");
}

#[test]
fn a_version_covers_both_parts() {
    let mut roster = Roster::default();
    put(&mut roster, "b@example.org", "Bobby", NOW);
    let known = roster.version();
    let to = "u@example.org/x";
    let part = GroupPart::Whole(5);
    let asked = |roster: &Roster, ver: &str, part: GroupPart| {
        let fetched = roster.fetch(Some(ver), "r", to, part, Vec::new);
        (shown(&fetched.result).0.is_some(), fetched.missed.len())
    };
    let ver = part.version(known);
    assert_eq!(
        asked(&roster, &ver, part),
        (false, 0),
        "nothing has changed"
    );
    assert_eq!(asked(&roster, &ver, GroupPart::Whole(6)), (true, 0));
    assert_eq!(
        asked(&roster, &ver, GroupPart::None),
        (true, 0),
        "no groups any more"
    );
    assert_eq!(
        asked(&roster, &known.to_string(), part),
        (true, 0),
        "from before there were groups"
    );
    for never in [
        GroupPart::Partial.version(known),
        format!("{known}-x"),
        "-".into(),
        "-5".into(),
    ] {
        assert_eq!(asked(&roster, &never, part), (true, 0), "{never}");
    }
    put(&mut roster, "b@example.org", "Bob", NOW + 1);
    assert_eq!(
        asked(&roster, &ver, part),
        (false, 1),
        "the account's own part alone"
    );
}

#[test]
fn a_client_sends_back_what_groups_have_added_and_it_is_not_kept() {
    let sales = by_group(Some("Bob B."), &["Sales", "All"], true);
    let groups = |all: &[&str]| all.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>();
    #[rustfmt::skip]
    let rows = [
        (Some("Bob B."), groups(&["Sales", "All"]), None, groups(&[])),
        (Some("Bobby"), groups(&["Sales", "Mine"]), Some("Bobby"), groups(&["Mine"])),
        (None, groups(&["Mine"]), None, groups(&["Mine"])),
        (None, groups(&[]), None, groups(&[])),
    ];
    for (name, sent, kept_name, kept) in rows {
        let (name, sent) = own_part(&sales, name.map(str::to_owned), sent);
        assert_eq!((name.as_deref(), sent), (kept_name, kept));
    }
}
