//! What one client can make the server do to another: say what only the server says, ask who is there, and fill what a slow one
//! has still to take.

use super::groups::{Office, PEOPLE, key, with};
use super::*;
use crate::session::Flood;
use proto::limits::OUTPUT_ELEMENT_BYTES_MAX;

const BOB: usize = 1;

fn bare(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).expect("an address")
}

/// Ann and Bob share presence, the others are strangers.
fn office(output_window_bytes: usize) -> Office {
    let settings = Settings {
        output_window_bytes,
        ..Settings::default()
    };
    Office::new(&[("a", "ann bob")], settings)
}

fn slot(office: &Office, n: usize) -> u32 {
    office.shard.slot_of(key(n)).expect("connected")
}

fn is_bound(office: &mut Office, n: usize) -> bool {
    let slot = slot(office, n);
    office.shard.session(slot).bound().is_some()
}

/// Bob has still to take what is stored for him.
fn flood(office: &mut Office) {
    let slot = slot(office, BOB);
    let bound = office.shard.session(slot).bound_mut().expect("bound");
    bound.flood = Flood::Reading;
}

/// Bob has been sent more than he has taken.
fn fill(office: &mut Office) {
    let slot = slot(office, BOB);
    let roster = format!("<iq type='result' id='r'>{}</iq>", "x".repeat(100_000));
    office.shard.send_stanza(slot, roster.into());
    assert_eq!(office.settle().len(), 1);
}

const QUESTION: &str = "<iq type='get' id='q' to='bob@localhost/x'><q xmlns='urn:example:q'/></iq>";
const CHAT_STATE: &str = "<message type='chat' to='bob@localhost/x'><active xmlns='http://jabber.org/protocol/chatstates'/></message>";

fn is_wait_error(given: &[String]) -> bool {
    matches!(given, [one] if one.starts_with("ann: ") && one.contains("type='error'")
        && one.contains("type='wait'") && one.contains("resource-constraint"))
}

#[test]
fn nobody_speaks_in_the_name_of_an_address_of_ours() {
    let mut office = office(1 << 20);
    for by in [
        "bob@localhost",
        "BOB@LocalHost",
        "ann@localhost",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost/x",
        "cyd@localhost/x",
        "@",
    ] {
        let given = office.says("ann", &format!(
            "<message type='groupchat' to='bob@localhost/x'><body>b</body><stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='F'/>\
             <delay xmlns='urn:xmpp:delay' from='{by}' stamp='2001-01-01T00:00:00Z'/></message>"
        ));
        assert_eq!(
            with(&given, "<body>b</body></message>"),
            ["bob"],
            "{by}: {given:?}"
        );
        let given = office.says(
            "ann",
            &format!("<presence ><stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='F'/></presence>"),
        );
        assert_eq!(with(&given, "<presence"), ["ann", "bob"], "{given:?}");
        assert!(with(&given, "stanza-id").is_empty(), "{by}: {given:?}");
    }
    let elsewhere = "<stanza-id xmlns='urn:xmpp:sid:0' by='room@elsewhere.example' id='1'/>";
    let given = office.says(
        "ann",
        &format!("<message type='groupchat' to='bob@localhost/x'>{elsewhere}</message>"),
    );
    assert_eq!(with(&given, elsewhere), ["bob"], "{given:?}");
    // The one child of an IQ is what it asks.
    let sent = "<sent xmlns='urn:xmpp:carbons:2'/>";
    let given = office.says(
        "ann",
        &format!("<iq type='get' id='q' to='bob@localhost/x'>{sent}</iq>"),
    );
    assert_eq!(with(&given, sent), ["bob"], "{given:?}");
}

#[test]
fn who_shares_presence_is_found_out_before_a_question_is_handed_on() {
    let mut office = office(1 << 20);
    let forget = |office: &mut Office| {
        let bob = office.shard.users.get_mut(&bare("bob")).expect("online");
        (bob.audience, bob.roster) = (None, None);
    };
    forget(&mut office);
    let given = office.says("cyd", QUESTION);
    assert_eq!(with(&given, "service-unavailable"), ["cyd"], "{given:?}");
    assert_eq!(given.len(), 1, "{given:?}");
    forget(&mut office);
    // What comes next waits too.
    let given = office.says("ann", &format!("{QUESTION}{CHAT_STATE}"));
    assert_eq!(with(&given, ""), ["bob", "bob"], "{given:?}");
    assert!(given[0].contains("urn:example:q"), "{given:?}");
}

#[test]
fn a_question_does_not_overtake_stored_messages() {
    let mut office = office(1 << 20);
    flood(&mut office);
    let given = office.says("ann", &format!("{CHAT_STATE}{QUESTION}{CHAT_STATE}"));
    assert!(given.is_empty(), "{given:?}");
    let bob = slot(&office, BOB);
    office.shard.release_behind_flood(bob);
    let given = office.settle();
    assert_eq!(with(&given, ""), ["bob"; 3], "{given:?}");
    assert!(given[1].contains("urn:example:q"), "{given:?}");
    // An answer is not held: who asked has been told that the question is settled.
    let given = office.says("ann", "<iq type='result' id='a' to='bob@localhost/x'/>");
    assert_eq!(with(&given, "id='a'"), ["bob"], "{given:?}");
}

#[test]
fn a_question_behind_a_flood_is_answered_in_any_case() {
    let mut office = office(64 * 1024);
    flood(&mut office);
    // It takes too long.
    assert!(office.says("ann", QUESTION).is_empty());
    for (ms, answered) in [(4_000, false), (7_000, true)] {
        office.shard.handle_timeout(Now {
            mono_ms: NOW.mono_ms + ms,
            ..NOW
        });
        let given = office.settle();
        assert_eq!(is_wait_error(&given), answered, "{given:?}");
        assert_eq!(given.is_empty(), !answered, "{given:?}");
    }
    // There is no room.
    let large = QUESTION.replace("<q ", &format!("<q a='{}' ", "x".repeat(40_000)));
    assert!(office.says("ann", &large).is_empty());
    let given = office.says("ann", &large);
    assert!(is_wait_error(&given), "{given:?}");
    let message = CHAT_STATE.replace("<active ", &format!("<active a='{}' ", "x".repeat(40_000)));
    assert!(office.says("ann", &message).is_empty());
    // The session ends.
    let reason = proto::frame::CloseReason::SocketError;
    office.shard.handle(NOW, Event::Closed(key(BOB), reason));
    let given = office.settle();
    assert_eq!(with(&given, "service-unavailable"), ["ann"], "{given:?}");
}

#[test]
fn nobody_has_a_session_ended_that_is_still_taking_what_it_asked_for() {
    let mut office = office(64 * 1024);
    office.says(
        "bob",
        "<iq type='get' id='a' to='ann@localhost/x'><q xmlns='urn:example:q'/></iq>",
    );
    fill(&mut office);
    assert!(office.says("ann", CHAT_STATE).is_empty());
    let given = office.says("ann", QUESTION);
    assert!(is_wait_error(&given), "{given:?}");
    let error =
        "<message type='error' id='e' to='bob@localhost/x'><error type='cancel'/></message>";
    assert!(office.says("ann", error).is_empty());
    assert!(is_bound(&mut office, BOB));
    // Nobody asked for these.
    office.says("ann", "<iq type='result' id='b' to='bob@localhost/x'/>");
    office.says("cyd", "<iq type='result' id='a' to='bob@localhost/x'/>");
    assert!(is_bound(&mut office, BOB));
    // Whoever asked waits for this one, for ever if it does not come.
    office.says("ann", "<iq type='result' id='a' to='bob@localhost/x'/>");
    assert!(!is_bound(&mut office, BOB));
}

#[test]
fn presence_held_for_a_slow_client_is_bounded_in_bytes() {
    let mut office = office(64 * 1024);
    fill(&mut office);
    let status = "x".repeat(30_000);
    let show = format!("<presence to='bob@localhost/x'><status>{status}</status></presence>");
    // Of strangers it is no loss.
    for name in ["ann", "cyd", "ann", "dan"] {
        assert!(is_bound(&mut office, BOB), "before {name}");
        assert!(with(&office.says(name, &show), &status).is_empty());
    }
    assert!(is_bound(&mut office, BOB));
    let long = show.replace(&status, &"x".repeat(60_000));
    office.says("ann", &long);
    assert!(!is_bound(&mut office, BOB), "of a contact it would be one");
}

#[test]
fn an_answer_longer_than_a_link_carries_is_an_error() {
    let mut office = office(1 << 20);
    let bob = slot(&office, BOB);
    let before = office.shard.session(bob).elements_out();
    let long = "x".repeat(OUTPUT_ELEMENT_BYTES_MAX);
    let answer =
        format!("<iq type='result' id='&gt;>\"' to='bob@localhost/x' from='localhost'>{long}</iq>");
    office.shard.send_stanza(bob, answer.into());
    let given = office.settle();
    let [error] = &given[..] else {
        panic!("{} things", given.len());
    };
    for part in [
        "type='error'",
        "id='&gt;&gt;&quot;'",
        "to='bob@localhost/x'",
        "from='localhost'",
        "resource-constraint",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(office.shard.session(bob).elements_out(), before + 1);
    office
        .shard
        .send_stanza(bob, format!("<message>{long}</message>").into());
    assert!(office.settle().is_empty());
    assert_eq!(office.shard.session(bob).elements_out(), before + 1);
}

#[test]
fn a_probe_does_not_tell_who_is_there() {
    let mut office = office(1 << 20);
    assert_eq!(PEOPLE[2], "cyd");
    let mut answers = Vec::new();
    for name in ["bob", "cyd", "nobody"] {
        let mut probe = |to: &str| {
            let given = office.says("dan", &format!("<presence type='probe' id='p' to='{to}'/>"));
            given
                .iter()
                .map(|g| g.replace(name, "NAME"))
                .collect::<Vec<_>>()
        };
        let bare = probe(&format!("{name}@localhost"));
        assert_eq!(probe(&format!("{name}@localhost/x")), bare);
        answers.push(bare);
    }
    answers.dedup();
    let expected =
        "dan: <presence type='unsubscribed' id='p' from='NAME@localhost' to='dan@localhost'/>";
    assert_eq!(answers, [[expected]]);
    // Who may see him does.
    let given = office.says("ann", "<presence type='probe' to='bob@localhost'/>");
    assert_eq!(with(&given, "from='bob@localhost/x'"), ["ann"], "{given:?}");
}

#[test]
fn directed_presence_reaches_a_resource_that_is_not_available() {
    let mut office = office(1 << 20);
    office.says("bob", "<presence type='unavailable'/>");
    let given = office.says("ann", "<presence to='bob@localhost/x'/>");
    assert_eq!(with(&given, "from='ann@localhost/x'"), ["bob"], "{given:?}");
}
