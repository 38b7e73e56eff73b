//! What an inactive client is given when, and what its record has of the rest.

use super::groups::{Office, key, with};
use super::*;
use crate::session::record::Record;

const INACTIVE: &str = "<c:inactive xmlns:c='urn:xmpp:csi:0'/>";
const ACTIVE: &str = "<c:active xmlns:c='urn:xmpp:csi:0'/>";
const BOB: usize = 1;

/// Ann and Bob share presence, and Bob looks away.
fn office(inactive_held_max: usize) -> Office {
    let settings = Settings {
        inactive_held_max,
        ..Settings::default()
    };
    let mut office = Office::new(&[("a", "ann bob cyd")], settings);
    assert!(office.says("bob", INACTIVE).is_empty());
    let slot = office.shard.slot_of(key(BOB)).expect("connected");
    assert!(office.shard.session(slot).all_settled());
    office
}

fn news(item: &str) -> String {
    format!(
        "<message type='headline' to='bob@localhost/x'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'><item id='{item}'/></items></event></message>"
    )
}

fn record(office: &mut Office) -> Record {
    let slot = office.shard.slot_of(key(BOB)).expect("connected");
    office.shard.record(slot)
}

#[test]
fn what_waits_is_bounded_and_then_all_of_it_goes() {
    let mut office = office(3);
    for n in 0..3 {
        assert!(office.says("ann", &news(&format!("i{n}"))).is_empty());
    }
    // News of the same item takes no more room.
    assert!(office.says("ann", &news("i0")).is_empty());
    let given = office.says("ann", &news("i3"));
    let order = ["i1", "i2", "i0", "i3"]
        .map(|id| given.iter().position(|g| g.contains(&format!("'{id}'"))));
    assert_eq!(order, [Some(0), Some(1), Some(2), Some(3)], "{given:?}");
    assert_eq!(given.len(), 4, "{given:?}");
}

#[test]
fn with_a_limit_of_none_nothing_waits() {
    let mut office = office(0);
    assert_eq!(with(&office.says("ann", &news("i")), "'i'"), ["bob"]);
    let given = office.says("ann", "<presence ><show>away</show></presence>");
    assert_eq!(
        with(&given, "<show>away"),
        ["ann", "bob", "cyd"],
        "{given:?}"
    );
}

#[test]
fn what_is_not_said_again_is_on_record() {
    let mut office = office(10);
    office.says("ann", &news("i"));
    office.says("ann", "<message type='chat' to='bob@localhost/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>");
    office.says("cyd", "<presence ><show>away</show></presence>");
    let (messages, presence) = record(&mut office).inactive.expect("inactive");
    assert_eq!(messages.len(), 1, "the chat state is over by then");
    assert!(String::from_utf8_lossy(&messages[0]).contains("'i'"));
    assert_eq!(presence.len(), 1);
    let given = office.says("bob", ACTIVE);
    assert_eq!(given.len(), 3, "{given:?}");
    assert!(record(&mut office).inactive.is_none());
}

#[test]
fn whoever_is_blocked_meanwhile_is_not_heard_of() {
    let mut office = office(10);
    office.says("ann", &news("i"));
    office.says("ann", "<presence ><show>away</show></presence>");
    office.says("cyd", &news("j"));
    let given = office.says("bob", "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='ann@localhost'/></block></iq>");
    // The answer brings what is left.
    assert_eq!(with(&given, "'j'"), ["bob"], "{given:?}");
    assert!(
        given
            .iter()
            .all(|g| !g.starts_with("bob") || !g.contains("from='ann")),
        "{given:?}"
    );
}

/// It does not hear that they go, while it is not available.
#[test]
fn presence_that_waits_is_forgotten_when_the_client_becomes_unavailable() {
    let mut office = office(100);
    let given = office.says("ann", "<presence ><show>away</show></presence>");
    assert!(!with(&given, "<show>away").contains(&"bob"), "{given:?}");
    let given = office.says("bob", "<presence type='unavailable'/>");
    assert!(with(&given, "type='unavailable'").contains(&"bob"));
    assert!(record(&mut office).inactive.expect("inactive").1.is_empty());
    let given = office.says("bob", ACTIVE);
    assert!(given.is_empty(), "{given:?}");
}
