//! Who is asked what a hash of capabilities means.

use super::groups::{Office, key, with};
use super::*;

const CLAIM: &str = "<presence ><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' \
                     ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/></presence>";

/// Whoever is asked and does not answer is followed by somebody of another account, not by their other clients.
#[test]
fn who_does_not_answer_keeps_others_waiting_once() {
    let mut office = Office::new(&[("a", "ann bob cyd dan")], Settings::default());
    let asked = |given: &[String]| -> Vec<String> {
        with(given, "isthmus-caps-")
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    // Bob's client is one more of Ann's.
    let slot = office.shard.slot_of(key(1)).expect("connected");
    let bound = office.shard.session(slot).bound_mut().expect("bound");
    bound.account = BareJid::parse("ann@localhost").expect("an address");
    assert_eq!(asked(&office.says("ann", CLAIM)), ["ann"]);
    for other in ["bob", "cyd", "dan"] {
        let given = office.says(other, CLAIM);
        assert!(asked(&given).is_empty(), "{given:?}");
    }
    let mut now = NOW;
    for next in ["cyd", "dan", "bob"] {
        now.mono_ms += 6_000;
        office.shard.handle_timeout(now);
        let given = office.settle();
        assert_eq!(asked(&given), [next], "{given:?}");
    }
}
