//! What the groups of directories give an account: contacts in its roster, and presence without subscription.
//!
//! In: a population, and how large a group may be for presence to flow by it. Out: what an account sees of another.
//! Owns: nothing of an account: a group is one object however many see it, and what one sees of it is worked out when needed.
//! Never: looks at a roster; says that somebody is a contact who cannot see the other.
//!
//! Two accounts share a group if both are in one that is for rosters and neither is disabled, so that everything here holds
//! both ways. In a group of more than `presence_max` members nobody hears of the others' presence by being a member: the
//! contact is shown as without subscription, a probe is answered, and a request for a subscription approved.

use directory::population::{Difference, Group, GroupDifference, Population};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use xmpp::jid::BareJid;

/// What one account sees of another by the groups they share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// As the directory has it.
    pub name: Option<Arc<str>>,
    /// Titles of the groups, each once, in the order of the directories and their groups.
    pub titles: Vec<Arc<str>>,
    /// Presence flows, both ways.
    pub presence: bool,
}

/// A contact that looks different than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// Who.
    pub contact: BareJid,
    /// `None`: they shared no group.
    pub before: Option<Shown>,
    /// `None`: they share none any more.
    pub after: Option<Shown>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct View {
    population: Arc<Population>,
    presence_max: usize,
}

impl View {
    /// Presence flows by groups of at most `presence_max` members.
    pub fn new(population: Arc<Population>, presence_max: usize) -> Self {
        Self {
            population,
            presence_max,
        }
    }

    /// Everybody and every group.
    pub fn population(&self) -> &Arc<Population> {
        &self.population
    }

    /// The limit.
    pub fn presence_max(&self) -> usize {
        self.presence_max
    }

    fn has_presence(&self, group: &Group) -> bool {
        group.members.len() <= self.presence_max
    }

    /// Somebody who can be a contact by groups.
    pub fn is_contact(&self, jid: &BareJid) -> bool {
        self.population.member(jid).is_some_and(|m| !m.disabled)
    }

    fn groups(&self, account: &BareJid) -> impl Iterator<Item = &Arc<Group>> {
        let groups = self.population.groups_of(account);
        groups.filter(|g| g.in_rosters)
    }

    fn common<'v>(
        &'v self,
        account: &BareJid,
        other: &'v BareJid,
    ) -> impl Iterator<Item = &'v Arc<Group>> {
        let both = account != other && self.is_contact(account) && self.is_contact(other);
        self.groups(account).filter(move |g| both && g.has(other))
    }

    /// They share a group.
    pub fn shares_group(&self, account: &BareJid, other: &BareJid) -> bool {
        self.common(account, other).next().is_some()
    }

    /// They share a group by which presence flows.
    pub fn shares_presence(&self, account: &BareJid, other: &BareJid) -> bool {
        self.common(account, other).any(|g| self.has_presence(g))
    }

    /// Groups to whose members the account's presence goes, and who are probed for theirs.
    pub fn presence_groups(&self, account: &BareJid) -> Vec<Arc<Group>> {
        if !self.is_contact(account) {
            return Vec::new();
        }
        let groups = self.groups(account).filter(|g| self.has_presence(g));
        groups.cloned().collect()
    }

    /// What the account sees of one other.
    pub fn shown(&self, account: &BareJid, other: &BareJid) -> Option<Shown> {
        let mut groups = self.common(account, other).peekable();
        groups.peek()?;
        let name = self.population.member(other)?.name.clone();
        let mut shown = Shown {
            name,
            titles: Vec::new(),
            presence: false,
        };
        groups.for_each(|group| self.show(&mut shown, group));
        Some(shown)
    }

    fn show(&self, shown: &mut Shown, group: &Group) {
        if !shown.titles.contains(&group.title) {
            shown.titles.push(group.title.clone());
        }
        shown.presence |= self.has_presence(group);
    }

    /// All that its groups put into the account's roster, each contact once, sorted.
    pub fn contacts(&self, account: &BareJid) -> Vec<(&BareJid, Shown)> {
        let mut contacts: BTreeMap<&BareJid, Shown> = BTreeMap::new();
        if !self.is_contact(account) {
            return Vec::new();
        }
        for group in self.groups(account) {
            for other in group.members.iter().filter(|m| *m != account) {
                let Some(member) = self.population.member(other).filter(|m| !m.disabled) else {
                    continue;
                };
                let shown = contacts.entry(other).or_insert_with(|| Shown {
                    name: member.name.clone(),
                    titles: Vec::new(),
                    presence: false,
                });
                self.show(shown, group);
            }
        }
        contacts.into_iter().collect()
    }

    /// A number that is the same as long as [`View::contacts`] is, and may change without it. `None`: there can be none.
    pub fn fingerprint(&self, account: &BareJid) -> Option<u64> {
        if !self.is_contact(account) {
            return None;
        }
        let marks = |group: &Group| u64::from(self.has_presence(group));
        self.population.fingerprint_of(account, marks)
    }

    /// What the account sees that is different from the view before. `difference` is that of the two populations, and of
    /// [`crossed`] if the limit is another.
    pub fn changed(
        &self,
        before: &View,
        difference: &Difference,
        account: &BareJid,
    ) -> Vec<Changed> {
        let mut candidates: BTreeSet<&BareJid> = BTreeSet::new();
        let itself = before.is_contact(account) != self.is_contact(account);
        let mut seen: HashSet<*const Group> = HashSet::new();
        for group in before.groups(account).chain(self.groups(account)) {
            let Some(different) = difference.groups.get(&group.key()) else {
                if itself && seen.insert(Arc::as_ptr(group)) {
                    candidates.extend(group.members.iter());
                }
                continue;
            };
            if !itself && self.looks_alike(before, different, account) {
                candidates.extend(different.contacts.iter());
            } else {
                for group in [&different.before, &different.after].into_iter().flatten() {
                    if seen.insert(Arc::as_ptr(group)) {
                        candidates.extend(group.members.iter());
                    }
                }
            }
        }
        candidates
            .into_iter()
            .filter_map(|contact| {
                let (was, is) = (before.shown(account, contact), self.shown(account, contact));
                (was != is).then(|| Changed {
                    contact: contact.clone(),
                    before: was,
                    after: is,
                })
            })
            .collect()
    }

    /// For a member before and after, only some contacts of the group can look different.
    fn looks_alike(&self, before: &View, different: &GroupDifference, account: &BareJid) -> bool {
        match (&different.before, &different.after) {
            (Some(was), Some(is)) => {
                was.title == is.title
                    && was.has(account)
                    && is.has(account)
                    && before.has_presence(was) == self.has_presence(is)
            }
            _ => false,
        }
    }
}

/// The difference that another `presence_max` makes: groups of a size between the two.
pub fn crossed(population: &Population, was: usize, is: usize) -> Difference {
    let between = was.min(is)..was.max(is);
    let mut difference = Difference::default();
    let groups = population.groups().iter().filter(|g| g.in_rosters);
    let mut pairs = HashMap::new();
    // A group of `n` flows with a limit of `n` and not with `n - 1`.
    for group in groups
        .filter(|g| between.contains(&(g.members.len().saturating_sub(1))) && !g.members.is_empty())
    {
        difference.affected.extend(group.members.iter().cloned());
        let same = GroupDifference {
            before: Some(Arc::clone(group)),
            after: Some(Arc::clone(group)),
            contacts: Box::default(),
        };
        pairs.insert(group.key(), same);
    }
    difference.groups = pairs;
    difference
}

#[cfg(test)]
mod tests;
