//! Who is in which group, worked out of what one sweep has found.
//!
//! In: people and groups as entries. Out: groups with members, nested ones resolved.
//! Never: I/O; runs for ever on groups that contain each other; lets two groups have one name.

use super::config::GroupsConfig;
use super::dn;
use super::entry::{Entry, clean};
use crate::backend::SweptGroup;
use std::collections::{BTreeMap, HashMap, HashSet};
use xmpp::jid::BareJid;

/// A person of the sweep.
#[derive(Debug)]
pub(super) struct FoundPerson<'e> {
    pub entry: &'e Entry,
    /// One per domain served.
    pub jids: Vec<BareJid>,
}

/// A search that a group says its members are found by (RFC 2255 URL of `memberURL`).
#[derive(Clone, PartialEq, Debug)]
pub(super) struct MemberUrl {
    pub base: String,
    pub scope: ldap3::Scope,
    pub filter: String,
}

/// Reads `ldap:///BASE?ATTRIBUTES?SCOPE?FILTER`. URLs of other servers are none of ours.
pub(super) fn member_url(text: &str) -> Result<MemberUrl, &'static str> {
    let rest = text
        .strip_prefix("ldap:///")
        .ok_or("names a server, which is not followed: it must begin with ldap:///")?;
    let mut parts = rest.splitn(5, '?').map(decoded);
    let base = parts.next().flatten().ok_or("is not encoded well")?;
    let _attributes = parts.next();
    let scope = match parts.next() {
        None => ldap3::Scope::Base,
        Some(scope) => match scope
            .ok_or("is not encoded well")?
            .to_ascii_lowercase()
            .as_str()
        {
            "" | "base" => ldap3::Scope::Base,
            "one" => ldap3::Scope::OneLevel,
            "sub" => ldap3::Scope::Subtree,
            _ => return Err("has an unknown scope"),
        },
    };
    let filter = match parts.next() {
        None => "(objectClass=*)".to_owned(),
        Some(filter) => match filter.ok_or("is not encoded well")? {
            filter if filter.is_empty() => "(objectClass=*)".to_owned(),
            filter if filter.starts_with('(') => filter,
            filter => format!("({filter})"),
        },
    };
    super::filter::check(&filter)?;
    Ok(MemberUrl {
        base,
        scope,
        filter,
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A group of the sweep.
#[derive(Debug)]
pub(super) struct FoundGroup<'e> {
    pub entry: &'e Entry,
    /// Names of entries that the server has found by `memberURL` or in its own way.
    pub found: Vec<String>,
    /// A filter of the configuration says that rosters show it.
    pub in_rosters: bool,
}

/// Whether a name is among names of the configuration.
fn named(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => pattern == name,
        })
}

struct Node<'e> {
    group: &'e FoundGroup<'e>,
    name: String,
    direct: Vec<usize>,
    inner: Vec<usize>,
}

/// Every group with its members. The second list says what an administrator should know.
pub(super) fn resolve(
    config: &GroupsConfig,
    people: &[FoundPerson<'_>],
    groups: &[FoundGroup<'_>],
) -> (Vec<SweptGroup>, Vec<String>) {
    let mut notes = Vec::new();
    let people_by_dn: HashMap<String, usize> = people
        .iter()
        .enumerate()
        .filter_map(|(n, p)| Some((dn::canonical(&p.entry.dn)?, n)))
        .collect();
    let groups_by_dn: HashMap<String, usize> = groups
        .iter()
        .enumerate()
        .filter_map(|(n, g)| Some((dn::canonical(&g.entry.dn)?, n)))
        .collect();
    let by_value = |attribute: &str| {
        let mut map: HashMap<String, Vec<usize>> = HashMap::new();
        for (n, person) in people.iter().enumerate() {
            for value in person.entry.strings(attribute) {
                map.entry(value.to_lowercase()).or_default().push(n);
            }
        }
        map
    };
    let by_uid = if config.member_uid.is_empty() {
        HashMap::new()
    } else {
        by_value("uid")
    };
    let (by_gid, by_primary) = (by_value("gidNumber"), by_value("primaryGroupID"));
    let mut by_member_of: HashMap<String, Vec<usize>> = HashMap::new();
    if let Some(attribute) = &config.member_of {
        for (n, person) in people.iter().enumerate() {
            for name in person.entry.strings(attribute).filter_map(dn::canonical) {
                by_member_of.entry(name).or_default().push(n);
            }
        }
    }

    let names = names(config, groups, &mut notes);
    let mut nodes: Vec<Option<Node<'_>>> = Vec::new();
    for (group, name) in groups.iter().zip(names) {
        let Some(name) = name else {
            nodes.push(None);
            continue;
        };
        let entry = group.entry;
        let (mut direct, mut inner) = (Vec::new(), Vec::new());
        let listed = config.member.iter().flat_map(|a| entry.strings(a));
        for member in listed.chain(group.found.iter().map(String::as_str)) {
            let Some(key) = dn::canonical(member) else {
                continue;
            };
            if let Some(person) = people_by_dn.get(&key) {
                direct.push(*person);
            } else if let Some(group) = groups_by_dn.get(&key) {
                inner.push(*group);
            }
        }
        let mut add = |map: &HashMap<String, Vec<usize>>, value: &str| {
            direct.extend(map.get(&value.to_lowercase()).into_iter().flatten());
        };
        for uid in config.member_uid.iter().flat_map(|a| entry.strings(a)) {
            add(&by_uid, uid);
        }
        for gid in entry.strings("gidNumber").take(1) {
            add(&by_gid, gid);
        }
        for token in entry.strings("primaryGroupToken").take(1) {
            add(&by_primary, token);
        }
        if let Some(key) = dn::canonical(&entry.dn) {
            add(&by_member_of, &key);
        }
        nodes.push(Some(Node {
            group,
            name,
            direct,
            inner,
        }));
    }

    let mut out = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        // Each group once, however they contain each other.
        let mut seen = HashSet::from([n]);
        let mut left = vec![n];
        let mut members: HashSet<usize> = HashSet::new();
        while let Some(at) = left.pop() {
            let Some(Some(at)) = nodes.get(at) else {
                continue;
            };
            members.extend(&at.direct);
            if config.nested {
                left.extend(at.inner.iter().copied().filter(|inner| seen.insert(*inner)));
            }
        }
        let title = config
            .title
            .as_ref()
            .and_then(|a| node.group.entry.texts(a).next());
        out.push(SweptGroup {
            in_rosters: node.group.in_rosters || named(&config.in_rosters, &node.name),
            name: node.name.clone(),
            title: title
                .or_else(|| own_name(config, node.group.entry).filter(|own| *own != node.name)),
            members: members
                .iter()
                .flat_map(|m| people[*m].jids.iter().cloned())
                .collect(),
        });
    }
    (out, notes)
}

fn own_name(config: &GroupsConfig, entry: &Entry) -> Option<String> {
    let mut values: Vec<String> = entry.texts(&config.name).collect();
    if let Some(named) = dn::rdn_value(&entry.dn, &config.name).and_then(|v| clean(&v))
        && values.contains(&named)
    {
        return Some(named);
    }
    values.sort_unstable();
    values.into_iter().next()
}

/// A name for each group, `None` for those without. Groups that would have the same one are called by the whole names of their
/// entries: else whoever can make a group somewhere would get the rights of its namesake.
fn names(
    config: &GroupsConfig,
    groups: &[FoundGroup<'_>],
    notes: &mut Vec<String>,
) -> Vec<Option<String>> {
    let own: Vec<Option<String>> = groups.iter().map(|g| own_name(config, g.entry)).collect();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in own.iter().flatten() {
        *count.entry(name).or_default() += 1;
    }
    for (name, times) in &count {
        if *times > 1 {
            notes.push(format!(
                "{times} groups are called {name:?}: each goes by the whole name of its entry, and a policy for {name:?} fits none"
            ));
        }
    }
    let nameless = own.iter().filter(|name| name.is_none()).count();
    if nameless > 0 {
        notes.push(format!(
            "{nameless} groups have no {} and are left out",
            config.name
        ));
    }
    own.iter()
        .zip(groups)
        .map(|(name, group)| {
            let name = name.as_ref()?;
            Some(if count.get(name.as_str()) == Some(&1) {
                name.clone()
            } else {
                clean(&group.entry.dn)?
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldap::config::Product;
    use crate::ldap::entry::entry;

    fn person(dn: &str, uid: &str, more: &[(&str, &[&str])]) -> (Entry, Vec<BareJid>) {
        let mut attributes: Vec<(&str, &[&str])> = more.to_vec();
        let uids = [uid];
        attributes.push(("uid", &uids));
        let jid = BareJid::parse(&format!("{uid}@x.example")).unwrap();
        (entry(dn, &attributes), vec![jid])
    }

    fn groups_of(
        config: &GroupsConfig,
        people: &[(Entry, Vec<BareJid>)],
        groups: &[Entry],
    ) -> (BTreeMap<String, String>, usize) {
        let people: Vec<_> = people
            .iter()
            .map(|(entry, jids)| FoundPerson {
                entry,
                jids: jids.clone(),
            })
            .collect();
        let groups: Vec<_> = groups
            .iter()
            .map(|entry| FoundGroup {
                entry,
                found: Vec::new(),
                in_rosters: false,
            })
            .collect();
        let (resolved, notes) = resolve(config, &people, &groups);
        let map = resolved
            .into_iter()
            .map(|g| {
                let mut members: Vec<_> = g.members.iter().filter_map(|m| m.localpart()).collect();
                members.sort_unstable();
                (g.name.clone(), members.join(" "))
            })
            .collect();
        (map, notes.len())
    }

    fn people() -> Vec<(Entry, Vec<BareJid>)> {
        vec![
            person("uid=ann,ou=People,dc=x", "ann", &[("gidNumber", &["100"])]),
            person(
                "uid=bob,ou=people,dc=x",
                "bob",
                &[("gidNumber", &["200"]), ("memberOf", &["CN=By them,dc=x"])],
            ),
            person(
                "cn=Capulet\\, Cyd,dc=x",
                "cyd",
                &[("primaryGroupID", &["513"])],
            ),
        ]
    }

    fn check(config: &GroupsConfig, groups: &[Entry], expected: &[(&str, &str)]) {
        let (found, _) = groups_of(config, &people(), groups);
        let expected: BTreeMap<String, String> = expected
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect();
        assert_eq!(found, expected);
    }

    fn usual() -> GroupsConfig {
        GroupsConfig::usual(Product::Ldap, Vec::new())
    }

    #[test]
    fn every_kind_of_group_has_its_members() {
        check(
            &GroupsConfig {
                member_of: Some("memberOf".into()),
                ..usual()
            },
            &[
                entry(
                    "cn=Names,dc=x",
                    &[
                        ("cn", &["Names"]),
                        (
                            "member",
                            &["UID=Ann, OU=people, DC=x", "uid=ghost,dc=x", "no name"],
                        ),
                    ],
                ),
                entry(
                    "cn=u,dc=x",
                    &[
                        ("cn", &["u"]),
                        ("uniqueMember", &["cn=capulet\\2c cyd,dc=x"]),
                    ],
                ),
                entry(
                    "cn=posix,dc=x",
                    &[
                        ("cn", &["posix"]),
                        ("gidNumber", &["200"]),
                        ("memberUid", &["Ann", "ghost", "ann"]),
                    ],
                ),
                entry(
                    "cn=Domain Users,dc=x",
                    &[("cn", &["Domain Users"]), ("primaryGroupToken", &["513"])],
                ),
                entry("cn=by them,dc=x", &[("cn", &["by them"])]),
                entry(
                    "cn=отдел продаж,dc=x",
                    &[
                        ("cn", &["отдел продаж"]),
                        ("member", &["uid=bob,ou=people,dc=x"]),
                    ],
                ),
            ],
            &[
                ("Domain Users", "cyd"),
                ("Names", "ann"),
                ("by them", "bob"),
                ("posix", "ann bob"),
                ("u", "cyd"),
                ("отдел продаж", "bob"),
            ],
        );
    }

    #[test]
    fn groups_in_groups_and_in_circles() {
        let groups = [
            entry(
                "cn=a,dc=x",
                &[
                    ("cn", &["a"]),
                    ("member", &["cn=b,dc=x", "uid=ann,ou=people,dc=x"]),
                ],
            ),
            entry(
                "cn=b,dc=x",
                &[
                    ("cn", &["b"]),
                    (
                        "member",
                        &["cn=c,dc=x", "uid=bob,ou=people,dc=x", "cn=b,dc=x"],
                    ),
                ],
            ),
            entry(
                "cn=c,dc=x",
                &[
                    ("cn", &["c"]),
                    ("member", &["CN=A,dc=x", "cn=Capulet\\, Cyd,dc=x"]),
                ],
            ),
        ];
        check(
            &usual(),
            &groups,
            &[
                ("a", "ann bob cyd"),
                ("b", "ann bob cyd"),
                ("c", "ann bob cyd"),
            ],
        );
        let flat = GroupsConfig {
            nested: false,
            ..usual()
        };
        check(&flat, &groups, &[("a", "ann"), ("b", "bob"), ("c", "cyd")]);
    }

    #[test]
    fn a_deep_chain_of_groups_is_followed_to_its_end() {
        let groups: Vec<Entry> = (0..5_000)
            .map(|n| {
                let (dn, cn) = (format!("cn=g{n},dc=x"), format!("g{n}"));
                let next = if n == 4_999 {
                    "uid=ann,ou=people,dc=x".into()
                } else {
                    format!("cn=g{},dc=x", n + 1)
                };
                entry(&dn, &[("cn", &[&cn]), ("member", &[&next])])
            })
            .take(5_000)
            .collect();
        let (found, _) = groups_of(&usual(), &people(), &groups[..]);
        assert_eq!(found.get("g0").map(String::as_str), Some("ann"));
    }

    #[test]
    fn namesakes_go_by_their_whole_names_and_the_nameless_are_left_out() {
        let groups = [
            entry(
                "cn=admins,dc=x",
                &[("cn", &["admins"]), ("member", &["uid=ann,ou=people,dc=x"])],
            ),
            entry(
                "cn=admins,ou=rogue,dc=x",
                &[("cn", &["admins"]), ("member", &["uid=bob,ou=people,dc=x"])],
            ),
            entry("gidNumber=7,dc=x", &[]),
            entry("cn=two,dc=x", &[("cn", &["eins", "two"])]),
        ];
        let (found, notes) = groups_of(&usual(), &people(), &groups);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [
                ("cn=admins,dc=x".to_owned(), "ann".to_owned()),
                ("cn=admins,ou=rogue,dc=x".into(), "bob".into()),
                ("two".into(), String::new()),
            ]
        );
        assert_eq!(notes, 2);
    }

    #[test]
    fn rosters_show_the_groups_that_are_named() {
        let names = |patterns: &[&str]| {
            let config = GroupsConfig {
                in_rosters: patterns.iter().map(|p| (*p).to_owned()).collect(),
                title: Some("description".into()),
                ..usual()
            };
            let sales = entry(
                "cn=Sales,dc=x",
                &[("cn", &["Sales"]), ("description", &["The Sales"])],
            );
            let team = entry("cn=Sales team,dc=x", &[("cn", &["Sales team"])]);
            let groups = [
                FoundGroup {
                    entry: &sales,
                    found: vec![],
                    in_rosters: false,
                },
                FoundGroup {
                    entry: &team,
                    found: vec![],
                    in_rosters: false,
                },
            ];
            let (resolved, _) = resolve(&config, &[], &groups);
            assert_eq!(resolved[0].title.as_deref(), Some("The Sales"));
            assert_eq!(resolved[1].title, None);
            (resolved[0].in_rosters, resolved[1].in_rosters)
        };
        assert_eq!(names(&["*"]), (true, true));
        assert_eq!(names(&["Sales"]), (true, false));
        assert_eq!(names(&["Sales t*"]), (false, true));
        assert_eq!(names(&[]), (false, false));
    }

    #[test]
    fn urls_of_searches() {
        let url = |base: &str, scope, filter: &str| {
            Ok(MemberUrl {
                base: base.into(),
                scope,
                filter: filter.into(),
            })
        };
        use ldap3::Scope::{Base, OneLevel, Subtree};
        for (text, expected) in [
            (
                "ldap:///dc=x??sub?(title=engineer)",
                url("dc=x", Subtree, "(title=engineer)"),
            ),
            (
                "ldap:///ou=a%20b,dc=x?uid?one?title=e",
                url("ou=a b,dc=x", OneLevel, "(title=e)"),
            ),
            ("ldap:///dc=x", url("dc=x", Base, "(objectClass=*)")),
            (
                "ldap:///dc=x??sub?",
                url("dc=x", Subtree, "(objectClass=*)"),
            ),
        ] {
            assert_eq!(member_url(text), expected, "{text}");
        }
        for bad in [
            "http://x",
            "ldap://other/dc=x",
            "ldap:///dc=%zz",
            "ldap:///dc=x??deep",
            "ldap:///dc=x??sub?(a=b",
        ] {
            assert!(member_url(bad).is_err(), "{bad}");
        }
    }
}
