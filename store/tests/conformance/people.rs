//! What belongs to somebody: roster, vCard, private elements, lists, services.

use super::*;

conformance! {
    rosters_keep_items_and_versions
    requests_and_vcards_are_kept_and_removed
    private_elements_are_kept_and_bounded
    a_blocking_list_is_kept_and_goes_with_its_account
    push_services_are_kept_and_go_with_their_account
    overlays_are_kept_without_an_account
    activity_is_kept_of_anybody_until_the_account_goes
}

fn rosters_keep_items_and_versions(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let owner = jid("a@x.example");
    let change = |version, put: Option<RosterItem>, remove: Option<&str>| Write::Roster {
        owner: jid("a@x.example"),
        version,
        put,
        remove: remove.map(jid),
    };
    let written = writer
        .commit(&[
            put(account("a@x.example"), PutMode::Create),
            change(1, Some(item("c@x.example", &["Friends", "a\nb", ""])), None),
            change(2, Some(item("b@x.example", &[])), None),
            change(
                3,
                Some(RosterItem {
                    name: None,
                    ..item("d@x.example", &[])
                }),
                None,
            ),
            change(
                4,
                Some(RosterItem {
                    subscription: Subscription::From,
                    ..item("d@x.example", &[])
                }),
                None,
            ),
            change(5, None, Some("b@x.example")),
        ])
        .unwrap();
    assert_eq!(written, vec![Written::Done; 6]);
    drop(writer);
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    let user = reader.user(&owner).unwrap().unwrap();
    assert_eq!(user.roster_version, 5);
    let expected = [
        RosterItem {
            version: 1,
            ..item("c@x.example", &["Friends", "a\nb", ""])
        },
        RosterItem {
            version: 4,
            subscription: Subscription::From,
            ..item("d@x.example", &[])
        },
    ];
    assert_eq!(user.roster, expected);
    assert_eq!(reader.user(&jid("b@x.example")).unwrap(), None);
    assert_eq!(
        reader.user_data(&jid("b@x.example")).unwrap(),
        store::UserData::default()
    );
}

fn requests_and_vcards_are_kept_and_removed(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let request = |from: &str, stanza: Option<&'static str>| Write::SubscriptionRequest {
        owner: jid("a@x.example"),
        from: jid(from),
        stanza: stanza.map(Bytes::from),
    };
    let vcard = |xml: Option<&'static str>| Write::VCard {
        owner: jid("a@x.example"),
        xml: xml.map(Bytes::from),
    };
    writer
        .commit(&[
            put(account("a@x.example"), PutMode::Create),
            request("d@x.example", Some("<presence/>")),
            request("c@x.example", Some("<presence1/>")),
            request("c@x.example", Some("<presence2/>")),
            vcard(Some("<vCard/>")),
            Write::Append(message("a@x.example", "<m/>")),
        ])
        .unwrap();
    let user = reader.user(&jid("a@x.example")).unwrap().unwrap();
    let seen: Vec<(&str, &[u8])> = user
        .requests
        .iter()
        .map(|r| (r.from.as_str(), &r.stanza[..]))
        .collect();
    assert_eq!(
        seen,
        [
            ("c@x.example", &b"<presence2/>"[..]),
            ("d@x.example", b"<presence/>")
        ]
    );
    assert_eq!(user.pending, 1);
    assert_eq!(
        reader.vcard(&jid("a@x.example")).unwrap(),
        Some(Bytes::from("<vCard/>"))
    );
    writer
        .commit(&[
            request("d@x.example", None),
            request("nobody@x.example", None),
            vcard(None),
        ])
        .unwrap();
    assert_eq!(
        reader
            .user(&jid("a@x.example"))
            .unwrap()
            .unwrap()
            .requests
            .len(),
        1
    );
    assert_eq!(reader.vcard(&jid("a@x.example")).unwrap(), None);
}

fn private_elements_are_kept_and_bounded(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let element = |name: &str, ns: &str, xml: Option<&'static str>| store::PrivateElement {
        name: name.to_owned(),
        ns: ns.to_owned(),
        xml: xml.map(Bytes::from),
    };
    // Each has 10 bytes: one of the name, one of the namespace, eight of the element.
    let put = |elements: Vec<store::PrivateElement>| Write::Private {
        owner: jid("a@x.example"),
        elements,
        bytes_max: 20,
    };
    let mut commit = |elements| writer.commit(&[put(elements)]).unwrap().remove(0);
    let too_much = Written::Failed(WriteError::TooMuch);
    let both = vec![
        element("a", "x", Some("<a>12</a>".split_at(8).0)),
        element("a", "y", Some("12345678")),
    ];
    assert_eq!(commit(both), Written::Done);
    // All or nothing, also of one that there is.
    let more = vec![
        element("a", "x", Some("other")),
        element("b", "x", Some("12345678")),
    ];
    assert_eq!(commit(more), too_much);
    let longer = vec![element("a", "x", Some("123456789"))];
    assert_eq!(commit(longer), too_much);
    let mut read = |name: &str, ns: &str| reader.private(&jid("a@x.example"), name, ns).unwrap();
    assert_eq!(read("a", "x"), Some(Bytes::from("<a>12</a")));
    assert_eq!(read("a", "y"), Some(Bytes::from("12345678")));
    assert_eq!(read("b", "x"), None);
    // Replaced by one as long; removed, which makes room.
    assert_eq!(
        commit(vec![element("a", "x", Some("87654321"))]),
        Written::Done
    );
    let instead = vec![
        element("a", "y", None),
        element("b", "x", Some("12345678")),
        element("no", "x", None),
    ];
    assert_eq!(commit(instead), Written::Done);
    assert_eq!(read("a", "x"), Some(Bytes::from("87654321")));
    assert_eq!(read("a", "y"), None);
    assert_eq!(read("b", "x"), Some(Bytes::from("12345678")));
    // Less is always taken, also where a limit has been lowered.
    let less = Write::Private {
        owner: owner.clone(),
        elements: vec![element("b", "x", Some("1"))],
        bytes_max: 1,
    };
    assert_eq!(writer.commit(&[less]).unwrap(), [Written::Done]);
    let delete = [Write::AccountDelete { jid: owner }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert_eq!(read("a", "x"), None);
    let nothing = [Written::Failed(WriteError::NotFound)];
    assert_eq!(writer.commit(&delete).unwrap(), nothing);
}

fn a_blocking_list_is_kept_and_goes_with_its_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let jids = |all: &[&str]| -> Vec<Jid> { all.iter().map(|j| Jid::parse(j).unwrap()).collect() };
    let change = |block: &[&str], unblock: &[&str]| Write::Blocklist {
        owner: jid("a@x.example"),
        block: jids(block),
        unblock: jids(unblock),
    };
    let mut blocked = || reader.user_data(&owner).unwrap().blocked;
    assert!(blocked().is_empty());
    // In an order, each once, whatever its form.
    let first = change(&["y.example", "b@y.example", "b@y.example/r"], &[]);
    let second = change(&["y.example/r", "b@y.example"], &["nobody@y.example"]);
    let written = writer.commit(&[first, second]).unwrap();
    assert_eq!(written, [Written::Done, Written::Done]);
    let mut all = jids(&["y.example", "y.example/r", "b@y.example", "b@y.example/r"]);
    all.sort();
    assert_eq!(blocked(), all);
    let less = change(&["c@y.example"], &["y.example", "b@y.example"]);
    writer.commit(&[less]).unwrap();
    let mut all = jids(&["y.example/r", "b@y.example/r", "c@y.example"]);
    all.sort();
    assert_eq!(blocked(), all);
    let delete = [Write::AccountDelete { jid: owner.clone() }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert!(blocked().is_empty());
    let nothing = [Written::Failed(WriteError::NotFound)];
    assert_eq!(writer.commit(&delete).unwrap(), nothing);
}

fn push_services_are_kept_and_go_with_their_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let service = |node: &str, options: Option<&'static str>| store::PushService {
        service: Jid::parse("push.example").unwrap(),
        node: node.to_owned(),
        resource: "phone".to_owned(),
        options: options.map(Bytes::from),
    };
    let write = |put: Option<store::PushService>, remove: &[&str]| Write::Push {
        owner: jid("a@x.example"),
        put,
        remove: remove
            .iter()
            .map(|node| (Jid::parse("push.example").unwrap(), (*node).to_owned()))
            .collect(),
    };
    let mut push = || reader.user_data(&owner).unwrap().push;
    assert!(push().is_empty());
    let writes = [
        write(Some(service("n", None)), &[]),
        write(Some(service("", Some("<x/>"))), &[]),
        write(Some(service("n", Some("<y/>"))), &["never"]),
    ];
    writer.commit(&writes).unwrap();
    assert_eq!(
        push(),
        [service("", Some("<x/>")), service("n", Some("<y/>"))]
    );
    writer.commit(&[write(None, &[""])]).unwrap();
    assert_eq!(push(), [service("n", Some("<y/>"))]);
    let delete = [Write::AccountDelete { jid: owner.clone() }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert!(push().is_empty());
}

fn overlays_are_kept_without_an_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let (ann, bob) = (jid("ann@x.example"), jid("bob@x.example"));
    let disabled = |jid: &BareJid, disabled| Write::OverlayDisabled {
        jid: jid.clone(),
        disabled,
    };
    let made = |jid: &BareJid, keys: &[ScramKeys]| Write::OverlayKeys {
        jid: jid.clone(),
        keys: keys.to_vec(),
        made_ms: 7,
    };
    let some = [keys(ScramHash::Sha256, 9)];
    let writes = [
        disabled(&bob, true),
        disabled(&ann, true),
        made(&ann, &some),
    ];
    assert!(
        writer
            .commit(&writes)
            .unwrap()
            .iter()
            .all(|w| *w == Written::Done)
    );
    drop(writer);
    store.restart();
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(
        reader.overlay_disabled().unwrap(),
        [ann.clone(), bob.clone()]
    );
    let overlay = reader.overlay(&ann).unwrap();
    assert_eq!(
        (overlay.disabled, &overlay.keys[..], overlay.made_ms),
        (true, &some[..], 7)
    );
    // An account is something else.
    assert_eq!(reader.account(&ann).unwrap(), None);
    assert_eq!(reader.user(&ann).unwrap(), None);
    writer
        .commit(&[
            disabled(&ann, false),
            disabled(&bob, false),
            made(&ann, &[]),
        ])
        .unwrap();
    for jid in [&ann, &bob] {
        assert_eq!(reader.overlay(jid).unwrap(), store::Overlay::default());
    }
    assert!(reader.overlay_disabled().unwrap().is_empty());
}

fn activity_is_kept_of_anybody_until_the_account_goes(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let (ann, bob) = (jid("ann@x.example"), jid("bob@x.example"));
    let facts = |login_ms, logout_ms, greeted_ms, motd| store::Activity {
        login_ms,
        logout_ms,
        greeted_ms,
        motd,
    };
    let activity = |owner: &BareJid, facts| Write::Activity {
        owner: owner.clone(),
        facts,
    };
    writer
        .commit(&[put(account("ann@x.example"), PutMode::Create)])
        .unwrap();
    // What is 0 stays, in a batch with other writes or alone; a clock may go back.
    writer
        .commit(&[activity(&ann, facts(70, 0, 71, 0))])
        .unwrap();
    let card = Write::VCard {
        owner: ann.clone(),
        xml: Some(Bytes::from_static(b"<vCard/>")),
    };
    writer
        .commit(&[activity(&ann, facts(0, 80, 0, 3)), card])
        .unwrap();
    writer
        .commit(&[
            activity(&ann, facts(60, 0, 0, 0)),
            activity(&bob, facts(1, 0, 0, 0)),
        ])
        .unwrap();
    drop(writer);
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(reader.activity(&ann).unwrap(), facts(60, 80, 71, 3));
    let user = reader.user(&ann).unwrap().unwrap();
    assert_eq!(user.activity, facts(60, 80, 71, 3));
    // Bob's account is elsewhere.
    assert_eq!(reader.user(&bob).unwrap(), None);
    assert_eq!(reader.user_data(&bob).unwrap().activity, facts(1, 0, 0, 0));
    assert_eq!(
        reader.activity(&jid("nobody@x.example")).unwrap(),
        store::Activity::default()
    );
    let mut writer = store.engine().writer().unwrap();
    writer
        .commit(&[Write::AccountDelete { jid: ann.clone() }])
        .unwrap();
    assert_eq!(reader.activity(&ann).unwrap(), store::Activity::default());
}
