//! What a component may do in other people's names.

use super::*;

/// What a component may do in other people's names is nothing to be guessed.
#[test]
fn privileges_of_components_are_said_clearly() {
    use crate::privileges::{Access, Presence};
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    site.write("bots.secret", "secret\n");
    let secret = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(site.path("bots.secret"), secret).expect("its mode can be set");
    let text = |keys: &str| {
        format!(
            "{SMALL}[[component]]\ndomain = \"bots.example.org\"\nsecret_file = \"bots.secret\"\n{keys}\n"
        )
    };
    let of = |keys: &str| {
        let mut components = site.good(&text(keys)).components;
        components.remove(0).privileges
    };
    assert_eq!(of(""), Default::default());
    let all = of(
        "rosters = \"both\"\nsend_messages = true\npresence = \"roster\"\niq_get = [\"urn:b\", \"urn:a\"]\niq_set = \"urn:b\"",
    );
    assert_eq!((all.roster, all.roster_pushes), (Access::Both, true));
    assert_eq!((all.message, all.presence), (true, Presence::Roster));
    let iq = [
        ("urn:a".to_owned(), Access::Get),
        ("urn:b".to_owned(), Access::Both),
    ];
    assert_eq!(all.iq, iq);
    assert!(!of("rosters = \"get\"\nroster_pushes = false").roster_pushes);
    assert!(!of("rosters = \"set\"").roster_pushes);
    for (keys, want) in [
        (
            "rosters = \"all\"",
            "component.rosters: must be one of \"none\", \"get\", \"set\", \"both\"",
        ),
        (
            "rosters = true",
            "component.rosters: a string is wanted here, not a boolean",
        ),
        (
            "presence = \"managed\"",
            "component.presence: must be one of \"none\", \"managed_entity\", \"roster\"",
        ),
        (
            "presence = \"roster\"",
            "component.presence: \"roster\" needs rosters = \"get\" or \"both\"",
        ),
        (
            "rosters = \"set\"\npresence = \"roster\"",
            "component.presence: \"roster\" needs rosters",
        ),
        (
            "roster_pushes = true",
            "component.roster_pushes: only who may read rosters is told of changes",
        ),
        ("iq_get = [\"\"]", "component.iq_get: \"\" is no namespace"),
        (
            "iq_set = [\"urn:a b\"]",
            "component.iq_set: \"urn:a b\" is no namespace",
        ),
        ("read_rosters = true", "component.read_rosters: unknown key"),
    ] {
        let found = site.mistakes(&text(keys));
        assert!(
            found.len() == 1 && found[0].contains(want),
            "{keys}: {found:?}"
        );
    }
}
