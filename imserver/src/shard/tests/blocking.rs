//! Members of a group who block each other, and what a full list, a report, and a disk that refuses do.

use super::groups::{Office, with};
use super::*;
use crate::session::record::Record;

fn bare(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).expect("an address")
}

/// Ann, Bob and Cyd share a group; Dan is to read reports.
fn office() -> Office {
    let settings = Settings {
        blocklist_items_max: 3,
        reports_to: [("localhost".to_owned(), vec![bare("dan")])].into(),
        ..Settings::default()
    };
    Office::new(&[("a", "ann bob cyd")], settings)
}

fn change(office: &mut Office, who: &str, kind: &str, items: &[&str]) -> Vec<String> {
    let items: String = items.iter().map(|i| format!("<item jid='{i}'/>")).collect();
    office.says(
        who,
        &format!("<iq type='set' id='b'><{kind} xmlns='urn:xmpp:blocking'>{items}</{kind}></iq>"),
    )
}

#[test]
fn members_of_a_group_are_hidden_from_each_other_and_shown_again() {
    let mut office = office();
    let given = change(&mut office, "ann", "block", &["bob@localhost"]);
    assert_eq!(with(&given, "type='unavailable'"), ["bob"], "{given:?}");
    // Neither hears of the other, and Cyd of both.
    let given = office.says("ann", "<presence ><show>away</show></presence>");
    assert_eq!(with(&given, "<show>away"), ["ann", "cyd"], "{given:?}");
    let given = office.says("bob", "<presence ><show>dnd</show></presence>");
    assert_eq!(with(&given, "<show>dnd"), ["bob", "cyd"], "{given:?}");
    // A group gives a subscription when one is asked for, but not here.
    let given = office.says("bob", "<presence to='ann@localhost' type='subscribe'/>");
    assert!(with(&given, "type='subscribed'").is_empty(), "{given:?}");
    assert!(
        with(&given, "").iter().all(|who| *who == "bob"),
        "{given:?}"
    );
    let given = change(&mut office, "ann", "unblock", &["bob@localhost"]);
    assert_eq!(with(&given, "<show>away"), ["bob"], "{given:?}");
    assert_eq!(with(&given, "<show>dnd"), ["ann"], "{given:?}");
}

#[test]
fn who_blocks_somebody_and_leaves_at_once_is_gone_for_them() {
    let mut office = office();
    let block = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></block></iq>";
    // Both are read before the disk has the first: no session is left to hide.
    let given = office.says("ann", &format!("{block}</stream:stream>"));
    assert_eq!(
        with(&given, "type='unavailable'"),
        ["bob", "cyd"],
        "{given:?}"
    );
}

/// One answer of the disk brings the end of a block and a message before it, behind which the news of the block waits.
#[test]
fn who_is_shown_again_hears_of_it_after_that_they_were_hidden() {
    let mut office = office();
    let change = |kind: &str| {
        format!(
            "<iq type='set' id='b'><{kind} xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></{kind}></iq>"
        )
    };
    office.hears("ann", &change("block"));
    office.hears(
        "cyd",
        "<message type='chat' to='bob@localhost'><body>hi</body></message>",
    );
    office.hears("ann", &change("unblock"));
    let writes = office.shard.flush(NOW).writes;
    let results = writes.iter().map(|write| match write {
        Write::Store(store::Write::Append(_)) => store::Written::Stored { position: 9 },
        _ => store::Written::Done,
    });
    let mut results: Vec<store::Written> = results.collect();
    assert!(matches!(
        results[..3],
        [
            store::Written::Done,
            store::Written::Stored { .. },
            store::Written::Done
        ]
    ));
    let (block, rest) = (office.written, results.split_off(1));
    office.written += writes.len() as u64;
    for (first, results) in [(block, results), (block + 1, rest)] {
        office.shard.handle(NOW, Event::Durable { first, results });
    }
    let given = office.settle();
    let of_ann = |line: &&String| {
        line.starts_with("bob: <presence") && line.contains("from='ann@localhost/x'")
    };
    let heard: Vec<&String> = given.iter().filter(of_ann).collect();
    let gone: Vec<bool> = heard.iter().map(|l| l.contains("unavailable")).collect();
    assert_eq!(gone, [true, false], "{given:?}");
}

/// After a kill a session gets what its record says is waiting for it.
#[test]
fn what_waits_of_somebody_is_not_on_record_any_more_when_they_are_blocked() {
    let mut office = office();
    office.says("ann", "<c:inactive xmlns:c='urn:xmpp:csi:0'/>");
    for name in ["bob", "cyd"] {
        let given = office.says(name, "<presence ><show>away</show></presence>");
        assert!(!with(&given, "<show>away").contains(&"ann"), "{given:?}");
    }
    let block = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></block></iq>";
    office.hears("ann", block);
    let writes = office.shard.flush(NOW).writes;
    let records = writes.iter().filter_map(|write| match write {
        Write::Session(_, Some(bytes)) => Record::decode(bytes.clone()),
        _ => None,
    });
    let waits: Vec<String> = records
        .filter_map(|r| r.inactive)
        .flat_map(|(_, presence)| presence.into_iter().map(|(from, _)| from.to_string()))
        .collect();
    assert_eq!(waits, ["cyd@localhost/x"]);
    let list = |w: &Write| matches!(w, Write::Store(store::Write::Blocklist { .. }));
    let record = |w: &Write| matches!(w, Write::Session(..));
    assert!(writes.iter().position(record) < writes.iter().position(list));
}

#[test]
fn who_is_unavailable_when_a_block_ends_reads_later_what_had_waited() {
    let mut office = office();
    change(&mut office, "ann", "block", &["bob@localhost"]);
    office.says("ann", "<presence type='unavailable'/>");
    let slot = office
        .shard
        .slot_of(super::groups::key(0))
        .expect("connected");
    // It was available while messages of Bob waited, and went by them.
    office
        .shard
        .session(slot)
        .bound_mut()
        .expect("bound")
        .cursor = 7;
    office.shard.user(&bare("ann")).pending = 1;
    change(&mut office, "ann", "unblock", &["bob@localhost"]);
    let bound = office.shard.session(slot).bound().expect("bound");
    assert_eq!(bound.cursor, 0);
}

#[test]
fn one_resource_is_blocked_alone() {
    let mut office = office();
    let given = change(&mut office, "ann", "block", &["bob@localhost/y"]);
    assert!(with(&given, "type='unavailable'").is_empty(), "{given:?}");
    let given = change(&mut office, "ann", "block", &["bob@localhost/x"]);
    assert_eq!(with(&given, "type='unavailable'"), ["bob"], "{given:?}");
    let given = office.says("ann", "<presence ><show>away</show></presence>");
    assert_eq!(with(&given, "<show>away"), ["ann", "cyd"], "{given:?}");
}

#[test]
fn a_domain_of_ours_is_everybody_there_but_the_server() {
    let mut office = office();
    let given = change(&mut office, "ann", "block", &["localhost"]);
    assert_eq!(
        with(&given, "type='unavailable'"),
        ["bob", "cyd"],
        "{given:?}"
    );
    let given = office.says(
        "ann",
        "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
    let given = change(&mut office, "ann", "unblock", &[]);
    assert_eq!(with(&given, "from='ann@localhost/x'").len(), 2, "{given:?}");
}

#[test]
fn a_list_is_full_at_its_limit() {
    let mut office = office();
    let given = change(&mut office, "ann", "block", &["a@x", "b@x", "c@x"]);
    assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
    let given = change(&mut office, "ann", "block", &["d@x"]);
    assert_eq!(with(&given, "policy-violation"), ["ann"], "{given:?}");
    // What is on it may be said again, and less is always taken.
    let given = change(&mut office, "ann", "block", &["c@x"]);
    assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
    change(&mut office, "ann", "unblock", &["a@x"]);
    let given = change(&mut office, "ann", "block", &["d@x"]);
    assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
}

#[test]
fn reports_are_passed_on_so_many_in_an_hour() {
    let mut office = office();
    let mut stored = 0;
    // Who has said too much keeps nobody from being heard.
    for (n, who) in ["ann"; 150].into_iter().chain(["cyd"]).enumerate() {
        let report = "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:abuse'/>";
        let xml = format!(
            "<iq type='set' id='r{n}'><block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'>{report}</item></block></iq>"
        );
        let before = office.shard.status.stored;
        let given = office.says(who, &xml);
        assert_eq!(with(&given, "type='result'"), [who], "{given:?}");
        stored += office.shard.status.stored - before;
    }
    assert_eq!(stored, 10 + 1);
}

#[test]
fn what_the_disk_refuses_is_read_again() {
    let mut office = office();
    let xml = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></block></iq>";
    let given = office.says_refused("ann", xml);
    assert_eq!(with(&given, "resource-constraint"), ["ann"], "{given:?}");
    assert!(with(&given, "unavailable").is_empty(), "{given:?}");
    // Bob was passed by meanwhile, and is shown how Ann is.
    assert_eq!(with(&given, "from='ann@localhost/x'"), ["bob"], "{given:?}");
    let given = office.says("ann", "<presence ><show>xa</show></presence>");
    let told = with(&given, "<show>xa");
    assert_eq!(told, ["ann", "bob", "cyd"], "{given:?}");
    let get = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    let given = office.says("ann", get);
    assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
    assert!(with(&given, "<item").is_empty(), "{given:?}");
    let given = office.says("bob", "<message type='chat' to='ann@localhost/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
    assert_eq!(with(&given, "chatstates"), ["ann"], "{given:?}");
}

/// Or a disk that refuses the block would make a ghost, and a list of who is not blocked.
#[test]
fn before_a_block_is_on_disk_it_is_not_listed_and_hides_no_end() {
    let mut office = office();
    let xml = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></block></iq>";
    office.hears("ann", xml);
    office.hears("bob", "<presence ><show>xa</show></presence>");
    office.hears("bob", "<presence type='unavailable'/>");
    let get = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    office.hears("ann", get);
    let given = office.settle_refused();
    assert!(!with(&given, "<show>xa").contains(&"ann"), "{given:?}");
    assert!(with(&given, "type='unavailable'").contains(&"ann"));
    assert_eq!(with(&given, "<blocklist"), ["ann"], "{given:?}");
    assert!(with(&given, "<item").is_empty(), "{given:?}");
}

#[test]
fn an_unblock_that_the_disk_refuses_has_not_been() {
    let mut office = office();
    change(&mut office, "ann", "block", &["bob@localhost"]);
    let xml = "<iq type='set' id='b'><unblock xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></unblock></iq>";
    office.hears("ann", xml);
    // It counted at once.
    office.hears("ann", "<presence ><show>xa</show></presence>");
    let given = office.settle_refused();
    let heard: Vec<&String> = given.iter().filter(|l| l.starts_with("bob: ")).collect();
    assert_eq!(heard.len(), 2, "{given:?}");
    assert!(heard[0].contains("<show>xa") && heard[1].contains("type='unavailable'"));
    let given = office.says("ann", "<presence ><show>dnd</show></presence>");
    assert_eq!(with(&given, "<show>dnd"), ["ann", "cyd"], "{given:?}");
}

#[test]
fn a_notice_that_waits_for_one_member_of_a_group_is_told_to_that_one_alone() {
    let mut office = office();
    for n in [1, 2] {
        let slot = office
            .shard
            .slot_of(super::groups::key(n))
            .expect("connected");
        let bound = office.shard.session(slot).bound_mut().expect("bound");
        let interests = crate::caps::Interests::new(["mood"].into_iter());
        bound.caps = crate::caps::Caps::Known(Arc::new(interests), None);
    }
    // Whom Bob has blocked is to be read first.
    office.shard.user(&bare("bob")).knows_blocked = false;
    let fan = Arc::new(EventFan {
        from: bare("ann"),
        node: "mood".into(),
        prefix: "<message from='ann@localhost'".into(),
        suffix: "><event/></message>".into(),
        groups: office.shard.groups_of(&bare("ann"), false),
        outcasts: Default::default(),
        but: Default::default(),
    });
    office.shard.event_fan(&fan, &[]);
    let given = office.settle();
    let mut heard = with(&given, "<event/>");
    heard.sort_unstable();
    assert_eq!(heard, ["bob", "cyd"], "{given:?}");
}
