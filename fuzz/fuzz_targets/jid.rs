//! Addresses: never panics; what was prepared once does not change, and its parts make it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmpp::jid::{BareJid, Jid};

fuzz_target!(|text: &str| {
    let Ok(jid) = Jid::parse(text) else { return };
    assert_eq!(Jid::parse(jid.as_str()), Ok(jid.clone()));
    let bare = BareJid::from_parts(jid.localpart(), jid.domainpart()).expect("prepared parts");
    assert_eq!(bare, jid.bare());
    if let Some(resource) = jid.resourcepart() {
        assert_eq!(
            Jid::from(bare.with_resource(resource).expect("a prepared part")),
            jid
        );
    }
    assert!(!jid.domainpart().is_empty() && !jid.domainpart().contains(['@', '/', ' ', '<', '&']));
    assert!(
        jid.localpart()
            .is_none_or(|l| !l.is_empty() && !l.contains(['@', '/', ' ', '<', '&', '\'']))
    );
});
