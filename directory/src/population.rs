//! Everybody and every group of the directories that can be swept: one immutable object that every shard holds.
//!
//! In: sweeps. Out: who is in which group with whom, and who is affected by a change.
//! Owns: names and memberships. Never: changes; a sweep makes a new one, which shares with the old what is as before.
//!
//! A group is one object however many rosters show it. What an account sees of it is worked out when it is asked for.

pub mod history;

use crate::backend::{Sweep, SweptPerson};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use xmpp::jid::BareJid;

/// A group of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The directory it is from, by its name in the configuration.
    pub directory: Arc<str>,
    /// Its name in policies.
    pub name: Arc<str>,
    /// As rosters show it.
    pub title: Arc<str>,
    /// Its members show in each other's rosters.
    pub in_rosters: bool,
    /// Sorted, each once.
    pub members: Arc<[BareJid]>,
}

/// A person of a sweep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// As shown in lists.
    pub name: Option<Arc<str>>,
    /// Log-in is refused.
    pub disabled: bool,
}

/// Which directories that can be swept the domains have: whoever is asked for groups must know whether these have been read at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept(BTreeMap<String, Vec<Arc<str>>>);

impl Swept {
    /// Domains, each with the names of its directories.
    pub fn new(domains: impl IntoIterator<Item = (String, Vec<Arc<str>>)>) -> Self {
        Self(domains.into_iter().collect())
    }

    fn of(&self, domain: &str) -> &[Arc<str>] {
        self.0.get(domain).map_or(&[], Vec::as_slice)
    }

    fn has(&self, directory: &str) -> bool {
        self.0.values().flatten().any(|d| **d == *directory)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Population {
    /// Those of which there has been a sweep.
    directories: HashSet<Arc<str>>,
    groups: Vec<Arc<Group>>,
    /// What each group shows, as a number.
    digests: Vec<u64>,
    people: HashMap<BareJid, Member>,
    memberships: HashMap<BareJid, Box<[u32]>>,
}

/// What is different from the population before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// Accounts whose groups, or whose groups' members, or the name of one of those, have changed: what their roster shows may
    /// be different.
    pub affected: HashSet<BareJid>,
    /// Accounts that may no longer log in: gone, or disabled.
    pub lost: HashSet<BareJid>,
    /// Groups in rosters that show something different, by directory and name.
    pub groups: HashMap<GroupKey, GroupDifference>,
}

/// A group's directory and its name there.
pub type GroupKey = (Arc<str>, Arc<str>);

/// What is different in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDifference {
    /// As it was. `None`: it is new.
    pub before: Option<Arc<Group>>,
    /// As it is. `None`: it is gone.
    pub after: Option<Arc<Group>>,
    /// Members who came or went, or are shown differently. Sorted, each once.
    pub contacts: Box<[BareJid]>,
}

impl Group {
    /// What it is found by.
    pub fn key(&self) -> GroupKey {
        (self.directory.clone(), self.name.clone())
    }

    /// Whether somebody is a member.
    pub fn has(&self, jid: &BareJid) -> bool {
        self.members.binary_search(jid).is_ok()
    }
}

impl Difference {
    /// Nothing is different.
    pub fn is_empty(&self) -> bool {
        self.affected.is_empty() && self.lost.is_empty()
    }
}

impl Population {
    /// From the last sweep of each directory, by the directory's name. An address in several is the first one's.
    pub fn new(sweeps: &BTreeMap<Arc<str>, Sweep>, before: &Population) -> Self {
        let mut population = Population {
            directories: sweeps.keys().cloned().collect(),
            ..Population::default()
        };
        for sweep in sweeps.values() {
            for SweptPerson {
                jid,
                name,
                disabled,
                ..
            } in &sweep.people
            {
                let member = || {
                    let known = before.people.get(jid).and_then(|m| m.name.clone());
                    let name = name.as_deref().map(|name| match known {
                        Some(known) if *known == *name => known,
                        _ => Arc::from(name),
                    });
                    Member {
                        name,
                        disabled: *disabled,
                    }
                };
                population.people.entry(jid.clone()).or_insert_with(member);
            }
        }
        let old: HashMap<(&str, &str), &Arc<Group>> = before
            .groups
            .iter()
            .map(|g| ((&*g.directory, &*g.name), g))
            .collect();
        for (directory, sweep) in sweeps {
            for group in &sweep.groups {
                let mut members = group.members.clone();
                members.sort_unstable();
                members.dedup();
                let title = group.title.as_deref().unwrap_or(&group.name);
                let same = old.get(&(&**directory, group.name.as_str())).filter(|o| {
                    *o.title == *title && o.in_rosters == group.in_rosters && *o.members == *members
                });
                population.groups.push(match same {
                    Some(same) => Arc::clone(same),
                    None => Arc::new(Group {
                        directory: directory.clone(),
                        name: Arc::from(group.name.as_str()),
                        title: Arc::from(title),
                        in_rosters: group.in_rosters,
                        members: members.into(),
                    }),
                });
            }
        }
        population.index();
        population
    }

    /// Makes of groups and people what is found by them.
    fn index(&mut self) {
        let mut memberships: HashMap<BareJid, Vec<u32>> = HashMap::new();
        for (n, group) in (0..).zip(&self.groups) {
            for member in group.members.iter() {
                memberships.entry(member.clone()).or_default().push(n);
            }
        }
        self.memberships = memberships
            .into_iter()
            .map(|(jid, groups)| (jid, groups.into_boxed_slice()))
            .collect();
        self.digests = self.groups.iter().map(|g| self.digest(g)).collect();
    }

    /// The same as long as the group shows the same.
    fn digest(&self, group: &Group) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&group.directory, &group.name, &group.title).hash(&mut hasher);
        for jid in group.members.iter() {
            if let Some(member) = self.people.get(jid).filter(|m| !m.disabled) {
                (jid.as_str(), &member.name).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Every group.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// How many people.
    pub fn people(&self) -> usize {
        self.people.len()
    }

    /// Everybody, in no order.
    pub fn everybody(&self) -> impl Iterator<Item = (&BareJid, &Member)> {
        self.people.iter()
    }

    /// Somebody. `None`: in no swept directory, which says nothing about accounts of other directories.
    pub fn member(&self, jid: &BareJid) -> Option<&Member> {
        self.people.get(jid)
    }

    /// The groups somebody is in.
    pub fn groups_of(&self, jid: &BareJid) -> impl Iterator<Item = &Arc<Group>> {
        self.memberships
            .get(jid)
            .into_iter()
            .flatten()
            .filter_map(|n| self.groups.get(*n as usize))
    }

    /// Whether somebody is in the group a policy names: `name`, or `directory:name`. `None`: a directory of their domain that may have
    /// it has never been swept.
    pub fn membership(&self, jid: &BareJid, group: &str, swept: &Swept) -> Option<bool> {
        let (directory, name) = self.qualified(group, swept);
        let of = |d: &str| directory.is_none_or(|wanted| *wanted == *d);
        if self
            .groups_of(jid)
            .any(|g| of(&g.directory) && *g.name == *name)
        {
            return Some(true);
        }
        let mut own = swept.of(jid.domainpart()).iter().filter(|d| of(d));
        own.all(|d| self.directories.contains(d)).then_some(false)
    }

    /// A group by the name a policy or an administrator uses.
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        let (directory, name) = self.qualified(name, &Swept::default());
        let of = |d: &str| directory.is_none_or(|wanted| *wanted == *d);
        self.groups
            .iter()
            .find(|g| of(&g.directory) && *g.name == *name)
    }

    /// The directory and the name in it. What stands before the colon is a directory wherever there is one of that name: else whoever
    /// makes a group `corp:admins` in another directory would have the rights of `admins` in `corp`.
    fn qualified<'n>(&self, name: &'n str, swept: &Swept) -> (Option<&'n str>, &'n str) {
        match name.split_once(':') {
            Some((directory, rest))
                if self.directories.contains(directory) || swept.has(directory) =>
            {
                (Some(directory), rest)
            }
            _ => (None, name),
        }
    }

    /// What the groups of an account put into its roster: each contact once, with the titles of the groups they share, sorted
    /// by address. Disabled people are left out.
    pub fn contacts_of(&self, jid: &BareJid) -> Vec<(&BareJid, &Member, Vec<&Arc<str>>)> {
        let mut contacts: BTreeMap<&BareJid, (&Member, Vec<&Arc<str>>)> = BTreeMap::new();
        for group in self.groups_of(jid).filter(|g| g.in_rosters) {
            for other in group.members.iter().filter(|m| *m != jid) {
                if let Some(member) = self.people.get(other).filter(|m| !m.disabled) {
                    let entry = contacts.entry(other).or_insert((member, Vec::new()));
                    if !entry.1.contains(&&group.title) {
                        entry.1.push(&group.title);
                    }
                }
            }
        }
        contacts
            .into_iter()
            .map(|(jid, (member, groups))| (jid, member, groups))
            .collect()
    }

    /// A number that is the same as long as the groups put the same into the account's roster, also after a restart of this
    /// version of the program. `None`: no group puts anything there. `marks` are facts about a group that count as well.
    ///
    /// It costs a step per group, not per member.
    pub fn fingerprint_of(&self, jid: &BareJid, marks: impl Fn(&Group) -> u64) -> Option<u64> {
        let shown: Vec<(u64, u64)> = self
            .memberships
            .get(jid)?
            .iter()
            .filter_map(|n| {
                Some((
                    self.groups.get(*n as usize)?,
                    *self.digests.get(*n as usize)?,
                ))
            })
            .filter(|(group, _)| group.in_rosters)
            .map(|(group, digest)| (digest, marks(group)))
            .collect();
        let mut hasher = DefaultHasher::new();
        shown.hash(&mut hasher);
        (!shown.is_empty()).then(|| hasher.finish())
    }

    /// What is different from the one before.
    pub fn difference(&self, before: &Population) -> Difference {
        let mut difference = Difference::default();
        let mut touched: Vec<&Arc<Group>> = Vec::new();
        let mut changed: HashSet<&BareJid> = HashSet::new();
        let ours: HashSet<*const Group> = self.groups.iter().map(Arc::as_ptr).collect();
        let theirs: HashSet<*const Group> = before.groups.iter().map(Arc::as_ptr).collect();
        touched.extend(
            self.groups
                .iter()
                .filter(|g| !theirs.contains(&Arc::as_ptr(g))),
        );
        touched.extend(
            before
                .groups
                .iter()
                .filter(|g| !ours.contains(&Arc::as_ptr(g))),
        );
        for group in touched.into_iter().filter(|g| g.in_rosters) {
            difference.affected.extend(group.members.iter().cloned());
        }
        for (jid, member) in &before.people {
            let now = self.people.get(jid);
            if !member.disabled && now.is_none_or(|now| now.disabled) {
                difference.lost.insert(jid.clone());
            }
            if now != Some(member) {
                changed.insert(jid);
                self.all_who_see(jid, &mut difference.affected);
                before.all_who_see(jid, &mut difference.affected);
            }
        }
        for jid in self
            .people
            .keys()
            .filter(|j| !before.people.contains_key(*j))
        {
            changed.insert(jid);
            self.all_who_see(jid, &mut difference.affected);
        }
        difference.groups = self.group_differences(before, &changed);
        difference
    }

    fn group_differences(
        &self,
        before: &Population,
        changed: &HashSet<&BareJid>,
    ) -> HashMap<GroupKey, GroupDifference> {
        type Shown = Option<Arc<Group>>;
        let mut different: HashMap<GroupKey, GroupDifference> = HashMap::new();
        let in_rosters = |p: &Population| -> HashMap<GroupKey, Arc<Group>> {
            let shown = p.groups.iter().filter(|g| g.in_rosters);
            shown.map(|g| (g.key(), Arc::clone(g))).collect()
        };
        let (old, mut new) = (in_rosters(before), in_rosters(self));
        let pairs = old.into_iter().map(|(key, group)| {
            let after = new.remove(&key);
            (key, Some(group), after)
        });
        let mut pairs: Vec<(GroupKey, Shown, Shown)> = pairs.collect();
        pairs.extend(new.into_iter().map(|(key, group)| (key, None, Some(group))));
        for (key, before, after) in pairs {
            let same = matches!((&before, &after), (Some(b), Some(a)) if Arc::ptr_eq(b, a));
            if same && changed.is_empty() {
                continue;
            }
            let mut contacts: Vec<BareJid> = Vec::new();
            for (one, other) in [(&before, &after), (&after, &before)] {
                let members = one.iter().flat_map(|g| g.members.iter());
                contacts.extend(
                    members
                        .filter(|m| changed.contains(m) || other.as_ref().is_none_or(|g| !g.has(m)))
                        .cloned(),
                );
            }
            if !same || !contacts.is_empty() {
                contacts.sort_unstable();
                contacts.dedup();
                let contacts = contacts.into();
                different.insert(
                    key,
                    GroupDifference {
                        before,
                        after,
                        contacts,
                    },
                );
            }
        }
        different
    }

    fn all_who_see(&self, jid: &BareJid, all: &mut HashSet<BareJid>) {
        for group in self.groups_of(jid).filter(|g| g.in_rosters) {
            all.extend(group.members.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::SweptGroup;

    fn jid(name: &str) -> BareJid {
        BareJid::parse(&format!("{name}@x.example")).unwrap()
    }

    fn sweep(people: &[(&str, Option<&str>, bool)], groups: &[(&str, bool, &[&str])]) -> Sweep {
        Sweep {
            people: people
                .iter()
                .map(|(name, shown, disabled)| SweptPerson {
                    jid: jid(name),
                    name: shown.map(str::to_owned),
                    disabled: *disabled,
                    id: None,
                })
                .collect(),
            groups: groups
                .iter()
                .map(|(name, in_rosters, members)| SweptGroup {
                    name: (*name).to_owned(),
                    title: None,
                    in_rosters: *in_rosters,
                    members: members.iter().map(|m| jid(m)).collect(),
                })
                .collect(),
            groups_unknown: None,
        }
    }

    fn population(sweep: Sweep, before: &Population) -> Population {
        Population::new(&BTreeMap::from([(Arc::from("corp"), sweep)]), before)
    }

    const PEOPLE: &[(&str, Option<&str>, bool)] = &[
        ("ann", Some("Ann"), false),
        ("bob", None, false),
        ("cyd", Some("Cyd"), false),
        ("old", Some("Old"), true),
    ];

    /// Whoever may make groups in one directory has no rights of a group of another.
    #[test]
    fn a_name_with_a_directory_is_of_that_directory_alone() {
        let ann = |name: &str| Sweep {
            people: Vec::new(),
            groups: vec![SweptGroup {
                name: name.into(),
                title: None,
                in_rosters: false,
                members: vec![jid("ann")],
            }],
            groups_unknown: None,
        };
        let sweeps = BTreeMap::from([
            (Arc::from("branch"), ann("corp:admins")),
            (Arc::from("corp"), ann("staff")),
        ]);
        let p = Population::new(&sweeps, &Population::default());
        let is_in = |group: &str| p.membership(&jid("ann"), group, &Swept::default());
        assert_eq!(is_in("corp:admins"), Some(false));
        assert_eq!(is_in("branch:corp:admins"), Some(true));
        assert_eq!(is_in("corp:staff"), Some(true));
        assert_eq!(is_in("branch:staff"), Some(false));
        assert!(p.group("corp:admins").is_none() && p.group("branch:corp:admins").is_some());
    }

    #[test]
    fn a_directory_that_was_never_swept_has_no_empty_groups() {
        let domain = jid("ann").domainpart().to_owned();
        let swept = Swept::new([
            (domain, vec![Arc::from("corp"), Arc::from("new")]),
            ("y.example".to_owned(), vec![Arc::from("other")]),
        ]);
        let none = Population::default();
        let only_corp = BTreeMap::from([(Arc::from("corp"), Sweep::default())]);
        let corp = Population::new(&only_corp, &none);
        for (population, group, expected) in [
            (&none, "staff", None),
            (&corp, "staff", None),
            (&corp, "corp:staff", Some(false)),
            (&corp, "new:staff", None),
            // Nobody of this domain is in a group of that directory.
            (&none, "other:staff", Some(false)),
        ] {
            let found = population.membership(&jid("ann"), group, &swept);
            assert_eq!(found, expected, "{group}");
        }
    }

    #[test]
    fn contacts_are_the_enabled_others_of_ones_groups_each_once() {
        let sales: &[&str] = &["bob", "ann", "old", "ann"];
        let all: &[&str] = &["ann", "bob", "cyd", "ghost"];
        let p = population(
            sweep(
                PEOPLE,
                &[
                    ("Sales team", true, sales),
                    ("all", true, all),
                    ("secret", false, all),
                ],
            ),
            &Population::default(),
        );
        let seen: Vec<(String, Vec<String>)> = p
            .contacts_of(&jid("ann"))
            .into_iter()
            .map(|(j, _, g)| (j.to_string(), g.iter().map(|g| g.to_string()).collect()))
            .collect();
        assert_eq!(
            seen,
            [
                (
                    "bob@x.example".into(),
                    vec!["Sales team".to_owned(), "all".into()]
                ),
                ("cyd@x.example".into(), vec!["all".into()]),
            ]
        );
        let is_in = |who: &str, group: &str| p.membership(&jid(who), group, &Swept::default());
        assert_eq!(is_in("ann", "secret"), Some(true));
        assert_eq!(is_in("ann", "corp:secret"), Some(true));
        assert_eq!(is_in("ann", "other:secret"), Some(false));
        assert_eq!(is_in("old", "all"), Some(false));
        assert!(p.contacts_of(&jid("nobody")).is_empty());
    }

    #[test]
    fn what_has_not_changed_is_shared_and_affects_nobody() {
        let groups: &[(&str, bool, &[&str])] = &[("a", true, &["ann", "bob"])];
        let p = population(sweep(PEOPLE, groups), &Population::default());
        let q = population(sweep(PEOPLE, groups), &p);
        assert!(Arc::ptr_eq(&p.groups()[0], &q.groups()[0]));
        assert!(q.difference(&p).is_empty());
        let mark = |_: &Group| 0;
        assert_eq!(
            p.fingerprint_of(&jid("ann"), mark),
            q.fingerprint_of(&jid("ann"), mark)
        );
        assert_ne!(
            p.fingerprint_of(&jid("ann"), mark),
            p.fingerprint_of(&jid("ann"), |_| 1)
        );
        assert_eq!(p.fingerprint_of(&jid("cyd"), mark), None);
    }

    /// Group, and whom its members see come, go or change.
    fn differing(difference: &Difference) -> BTreeMap<String, Vec<String>> {
        difference
            .groups
            .iter()
            .map(|((_, name), d)| {
                let contacts = d.contacts.iter().map(|c| c.localpart().unwrap().to_owned());
                (name.to_string(), contacts.collect())
            })
            .collect()
    }

    #[test]
    fn a_change_affects_those_who_see_it() {
        let p = population(
            sweep(
                PEOPLE,
                &[
                    ("a", true, &["ann", "bob"]),
                    ("b", true, &["cyd"]),
                    ("quiet", false, &["old"]),
                ],
            ),
            &Population::default(),
        );
        let set = |names: &[&str]| names.iter().map(|n| jid(n)).collect::<HashSet<_>>();
        // Bob moves from a to b.
        let q = population(
            sweep(
                PEOPLE,
                &[
                    ("a", true, &["ann"]),
                    ("b", true, &["cyd", "bob"]),
                    ("quiet", false, &["ann"]),
                ],
            ),
            &p,
        );
        let d = q.difference(&p);
        assert_eq!(d.affected, set(&["ann", "bob", "cyd"]));
        assert!(d.lost.is_empty());
        let bob = vec!["bob".to_owned()];
        assert_eq!(
            differing(&d),
            BTreeMap::from([("a".to_owned(), bob.clone()), ("b".to_owned(), bob.clone())])
        );
        // Ann gets another name, Cyd is disabled, Bob is gone.
        let people = &[("ann", Some("Anne"), false), ("cyd", Some("Cyd"), true)];
        let r = population(
            sweep(
                people,
                &[("a", true, &["ann"]), ("b", true, &["cyd", "bob"])],
            ),
            &q,
        );
        let d = r.difference(&q);
        assert_eq!(d.affected, set(&["ann", "bob", "cyd"]));
        assert_eq!(d.lost, set(&["bob", "cyd"]));
        let of = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            differing(&d),
            BTreeMap::from([
                ("a".to_owned(), of(&["ann"])),
                ("b".to_owned(), of(&["bob", "cyd"]))
            ])
        );
        // A title is of no member, but everybody sees it.
        let mut sweep = sweep(
            people,
            &[("a", true, &["ann"]), ("b", true, &["cyd", "bob"])],
        );
        sweep.groups[0].title = Some("A team".to_owned());
        let d = population(sweep, &r).difference(&r);
        assert_eq!(differing(&d), BTreeMap::from([("a".to_owned(), of(&[]))]));
        assert_eq!(d.affected, set(&["ann"]));
    }
}
