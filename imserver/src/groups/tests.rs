//! What accounts see by groups, and what changes of it when groups do.

use super::*;
use directory::backend::{Sweep, SweptGroup, SweptPerson};

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@x.example")).expect("an address")
}

/// People as `name` or `-name` (disabled), groups as (name, members), those not for rosters with `.` before the name.
fn population(people: &str, groups: &[(&str, &str)], before: &Population) -> Arc<Population> {
    let people = people.split(' ').map(|p| SweptPerson {
        jid: jid(p.trim_start_matches('-')),
        name: Some(p.trim_start_matches('-').to_uppercase()),
        disabled: p.starts_with('-'),
        id: None,
    });
    let groups = groups.iter().map(|(name, members)| SweptGroup {
        name: (*name).to_owned(),
        title: None,
        in_rosters: !name.starts_with('.'),
        members: members.split(' ').map(jid).collect(),
    });
    let sweep = Sweep {
        people: people.collect(),
        groups: groups.collect(),
        groups_unknown: None,
    };
    let sweeps = BTreeMap::from([(Arc::from("corp"), sweep)]);
    Arc::new(Population::new(&sweeps, before))
}

fn view(people: &str, groups: &[(&str, &str)], before: &View) -> View {
    View::new(population(people, groups, before.population()), 3)
}

fn line(contact: &BareJid, shown: &Shown) -> String {
    let presence = if shown.presence { "" } else { " quiet" };
    let titles = shown.titles.join(",");
    format!(
        "{}{presence} [{titles}]",
        contact.localpart().unwrap_or("?")
    )
}

const PEOPLE: &str = "ann bob cyd dan -old";
const GROUPS: &[(&str, &str)] = &[
    ("team", "ann bob old ghost"),
    ("duo", "ann bob cyd"),
    ("all", "ann bob cyd dan"),
    (".secret", "ann dan"),
];

#[test]
fn each_contact_once_with_all_it_shares() {
    let v = view(PEOPLE, GROUPS, &View::default());
    let rows = [
        (
            "ann",
            vec!["bob [team,duo,all]", "cyd [duo,all]", "dan quiet [all]"],
        ),
        (
            "dan",
            vec!["ann quiet [all]", "bob quiet [all]", "cyd quiet [all]"],
        ),
        ("old", vec![]),
        ("ghost", vec![]),
        ("nobody", vec![]),
    ];
    for (account, expected) in rows {
        let account = jid(account);
        let contacts = v.contacts(&account);
        let lines: Vec<String> = contacts.iter().map(|(c, s)| line(c, s)).collect();
        assert_eq!(lines, expected, "{account}");
        // The whole and the parts agree, and both ways.
        for (contact, shown) in &contacts {
            assert_eq!(v.shown(&account, contact).as_ref(), Some(shown));
            assert!(v.shares_group(&account, contact) && v.shares_group(contact, &account));
            assert_eq!(v.shares_presence(&account, contact), shown.presence);
            assert_eq!(v.shares_presence(contact, &account), shown.presence);
        }
        assert!(!v.shares_group(&account, &account));
    }
    assert!(!v.shares_group(&jid("ann"), &jid("old")));
    let flows = |name: &str| v.presence_groups(&jid(name)).len();
    // "team" has four members, as far as its size goes.
    assert_eq!(
        (flows("ann"), flows("cyd"), flows("dan"), flows("old")),
        (1, 1, 0, 0)
    );
}

/// What each of some accounts sees differently: `+` came, `-` went, `~` looks different.
fn changes(before: &View, after: &View) -> Vec<String> {
    let mut difference = after.population().difference(before.population());
    let crossed = crossed(
        after.population(),
        before.presence_max(),
        after.presence_max(),
    );
    difference.affected.extend(crossed.affected);
    difference.groups.extend(crossed.groups);
    let mut lines = Vec::new();
    for account in ["ann", "bob", "cyd", "dan", "eve", "old"] {
        let changed = after.changed(before, &difference, &jid(account));
        assert!(
            changed.is_empty() || difference.affected.contains(&jid(account)),
            "{account} is not said to be affected"
        );
        // The fingerprint tells a difference wherever there is one.
        let same = before.fingerprint(&jid(account)) == after.fingerprint(&jid(account));
        assert!(changed.is_empty() || !same, "{account} keeps its version");
        // And nothing else is different.
        let all = |v: &View| -> BTreeMap<BareJid, Shown> {
            let contacts = v.contacts(&jid(account)).into_iter();
            contacts.map(|(c, s)| (c.clone(), s)).collect()
        };
        let (mut old, new) = (all(before), all(after));
        for change in &changed {
            assert_eq!(old.remove(&change.contact), change.before);
            if let Some(shown) = &change.after {
                old.insert(change.contact.clone(), shown.clone());
            }
        }
        assert_eq!(old, new, "{account}");
        lines.extend(changed.iter().map(|c| {
            let sign = match (&c.before, &c.after) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            let contact = c.contact.localpart().unwrap_or("?");
            format!("{account} {sign}{contact}")
        }));
    }
    lines
}

#[test]
fn only_what_looks_different_changes() {
    let none = View::default();
    let base = view(
        "ann bob cyd dan",
        &[("a", "ann bob"), ("b", "cyd dan")],
        &none,
    );
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    #[rustfmt::skip]
    let rows: &[Row<'_>] = &[
        ("nothing", "ann bob cyd dan", &[("a", "ann bob"), ("b", "cyd dan")], &[]),
        ("one moves", "ann bob cyd dan", &[("a", "ann"), ("b", "bob cyd dan")],
            &["ann -bob", "bob -ann", "bob +cyd", "bob +dan", "cyd +bob", "dan +bob"]),
        ("one comes", "ann bob cyd dan eve", &[("a", "ann bob eve"), ("b", "cyd dan")],
            &["ann +eve", "bob +eve", "eve +ann", "eve +bob"]),
        ("one is disabled", "ann -bob cyd dan", &[("a", "ann bob"), ("b", "cyd dan")],
            &["ann -bob", "bob -ann"]),
        ("one is gone, the group knows nothing of it", "ann cyd dan", &[("a", "ann bob"), ("b", "cyd dan")],
            &["ann -bob", "bob -ann"]),
        ("a second group for two", "ann bob cyd dan", &[("a", "ann bob"), ("b", "cyd dan"), ("c", "ann bob")],
            &["ann ~bob", "bob ~ann"]),
        ("a group is gone", "ann bob cyd dan", &[("b", "cyd dan")], &["ann -bob", "bob -ann"]),
        ("a group is not for rosters any more", "ann bob cyd dan", &[(".a", "ann bob"), ("b", "cyd dan")],
            &["ann -bob", "bob -ann"]),
        ("too large for presence", "ann bob cyd dan", &[("a", "ann bob cyd dan"), ("b", "cyd dan")],
            &["ann ~bob", "ann +cyd", "ann +dan", "bob ~ann", "bob +cyd", "bob +dan",
              "cyd +ann", "cyd +bob", "cyd ~dan", "dan +ann", "dan +bob", "dan ~cyd"]),
    ];
    for (what, people, groups, expected) in rows {
        let after = view(people, groups, &base);
        assert_eq!(changes(&base, &after), *expected, "{what}");
    }
    // From nothing, and back to it.
    assert_eq!(changes(&none, &base).len(), 4);
    assert_eq!(changes(&base, &none).len(), 4);
}

#[test]
fn another_name_shows_to_those_who_see_it() {
    let base = view(
        "ann bob cyd",
        &[("a", "ann bob"), ("b", "cyd bob")],
        &View::default(),
    );
    let renamed = Sweep {
        people: ["ann", "bob", "cyd"]
            .map(|p| SweptPerson {
                jid: jid(p),
                name: Some(if p == "ann" {
                    "Anne".into()
                } else {
                    p.to_uppercase()
                }),
                disabled: false,
                id: None,
            })
            .into(),
        groups: [("a", ["ann", "bob"]), ("b", ["cyd", "bob"])]
            .map(|(name, members)| SweptGroup {
                name: name.into(),
                title: None,
                in_rosters: true,
                members: members.map(jid).into(),
            })
            .into(),
        groups_unknown: None,
    };
    let sweeps = BTreeMap::from([(Arc::from("corp"), renamed)]);
    let after = View::new(Arc::new(Population::new(&sweeps, base.population())), 3);
    assert_eq!(changes(&base, &after), ["bob ~ann"]);
}

#[test]
fn another_limit_changes_groups_between_the_two() {
    let base = view(
        "ann bob cyd dan",
        &[("a", "ann bob"), ("c", "bob cyd dan")],
        &View::default(),
    );
    let limit = |n| View::new(base.population().clone(), n);
    let three = [
        "bob ~cyd", "bob ~dan", "cyd ~bob", "cyd ~dan", "dan ~bob", "dan ~cyd",
    ];
    assert_eq!(changes(&base, &limit(2)), three);
    assert_eq!(changes(&limit(2), &base), three);
    assert_eq!(changes(&limit(2), &limit(0)), ["ann ~bob", "bob ~ann"]);
    assert!(changes(&base, &limit(1_000)).is_empty());
}
