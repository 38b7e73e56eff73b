//! Groups of the directories on a shard: what a change of them does to the accounts that are online here.
//!
//! In: populations. Out: presence for who may see it now and could not, and the other way round; roster pushes.
//! Owns: the view of groups that everything here decides by, and which roster pushes accounts are still owed.
//! Never: keeps what an account sees of its groups; loads an entity for presence. A roster push needs the account's own item
//! of the contact, so for that one is loaded, a few at a time.
//!
//! Each shard speaks for its own accounts only, in the order of its events, so it does not matter that another gets a
//! population later. Who is lost is told at once that the account has gone, before anything is said by the new groups. Who is
//! new is probed, and a probe that knows of a newer population than the shard it comes to waits there for that population: what
//! is answered then is followed by all later presence.

use super::user::Queued;
use super::{Shard, presence};
use crate::event::*;
use crate::groups::{Changed, Shown, View, crossed};
use crate::roster::{self, GroupPart, Seen};
use crate::session::OutKind;
use crate::settings::Settings;
use bytes::Bytes;
use directory::population::{Difference, Group, Population};
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xmpp::jid::{BareJid, FullJid, Jid};

/// Roster pushes of groups made in one turn; the rest waits for the next tick. A turn of so many takes about 10 ms.
const PUSHES_MAX: usize = 5_000;
/// Accounts loaded at a time for what they are owed: the readers of the store have others to serve.
const LOADS_MAX: usize = 64;
/// Most contacts an account is pushed for one change; of more it hears with its next roster get. Nobody waits for ten thousand
/// pushes, and while they wait they take memory.
const OWED_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Groups {
    /// What everything is decided by.
    pub(super) view: View,
    /// The populations before, for a while after a restart: who was a member then may not have heard of the end of a session.
    before: Vec<Arc<Population>>,
    /// And who was said again to be gone: a member by a population that is still to come may have to hear it, too.
    gone: BTreeSet<FullJid>,
    known: Known,
    /// Probes that know of more than this shard.
    early: Vec<Probing>,
    /// Roster pushes to be made: the contacts that look different.
    owed: BTreeMap<BareJid, Owed>,
    /// How many of them are being loaded.
    loading: usize,
}

#[derive(Debug, Default)]
struct Owed {
    contacts: BTreeSet<BareJid>,
    /// So many that nothing is pushed, and no version the client gets is one to go on from.
    too_many: bool,
    /// The account is being loaded for them.
    loading: bool,
}

impl Groups {
    pub(super) fn new(population: Arc<Population>, presence_max: usize) -> Self {
        Self {
            view: View::new(population, presence_max),
            before: Vec::new(),
            gone: BTreeSet::new(),
            known: Known::default(),
            early: Vec::new(),
            owed: BTreeMap::new(),
            loading: 0,
        }
    }

    /// How much the shard knows.
    pub(super) fn known(&self) -> Known {
        self.known
    }
}

impl Shard {
    /// The directories have been swept, and something is different.
    pub(super) fn population(&mut self, population: Arc<Population>, difference: &Difference) {
        let presence_max = self.groups.view.presence_max();
        self.groups.known.populations += 1;
        if self.orphans_until_ms != 0 {
            let before = self.groups.view.population().clone();
            self.groups.before.push(before);
        }
        self.regroup(View::new(population, presence_max), difference);
        for jid in self.groups.gone.clone() {
            if difference.affected.contains(&jid.bare()) {
                self.say_gone_again(&jid);
            }
        }
    }

    /// After a restart: somebody is gone who may have been there for members of any population that is told again. False: that was
    /// known.
    pub(super) fn remember_gone(&mut self, jid: &FullJid) -> bool {
        !self.restarted() || self.groups.gone.insert(jid.clone())
    }

    /// New settings.
    pub(super) fn reconfigured(&mut self, settings: Arc<Settings>) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.end_strange_components();
        self.privileges_changed(&before);
        self.groups.known.settings += 1;
        let (was, is) = (
            self.groups.view.presence_max(),
            self.settings.group_presence_max,
        );
        let population = self.groups.view.population().clone();
        let difference = crossed(&population, was, is);
        self.regroup(View::new(population, is), &difference);
    }

    fn regroup(&mut self, view: View, difference: &Difference) {
        let before = std::mem::replace(&mut self.groups.view, view);
        for account in self.affected(difference) {
            let changed = self.groups.view.changed(&before, difference, &account);
            if !changed.is_empty() {
                self.regroup_presence(&account, &changed);
                self.owe(&account, changed);
            }
        }
        self.push_owed();
        let known = self.groups.known;
        let early = std::mem::take(&mut self.groups.early);
        let (due, early) = early.into_iter().partition(|p| known.covers(p.known));
        self.groups.early = early;
        let due: Vec<Probing> = due;
        due.into_iter().for_each(|probe| self.probes(probe));
    }

    /// Accounts online here that may see something different, in the same order in every run.
    fn affected(&self, difference: &Difference) -> Vec<BareJid> {
        let online = |jid: &BareJid| self.users.get(jid).is_some_and(|u| !u.sessions.is_empty());
        let affected = &difference.affected;
        let mut accounts: Vec<BareJid> = if affected.len() < self.users.len() {
            affected.iter().filter(|j| online(j)).cloned().collect()
        } else {
            let users = self.users.keys();
            users
                .filter(|j| affected.contains(*j) && online(j))
                .cloned()
                .collect()
        };
        accounts.sort_unstable();
        accounts
    }

    /// Who cannot see the account any more is told that it has gone; who can be seen now is probed.
    fn regroup_presence(&mut self, account: &BareJid, changed: &[Changed]) {
        let slots = self.available_sessions(account);
        let unrecorded = self.perhaps_available_sessions(account);
        if slots.is_empty() && unrecorded.is_empty() {
            return;
        }
        let flows = |shown: &Option<Shown>| shown.as_ref().is_some_and(|s| s.presence);
        let with = |was: bool, is: bool| {
            changed
                .iter()
                .filter(move |c| flows(&c.before) == was && flows(&c.after) == is)
                .map(|c| &c.contact)
        };
        let audience = self.users.get(account).and_then(|u| u.audience.as_ref());
        let unknown = audience.is_none();
        let lost =
            with(true, false).filter(|c| audience.is_none_or(|a| a.binary_search(c).is_err()));
        let lost = self.by_home(lost);
        if !lost.is_empty() {
            for &slot in slots.iter().chain(&unrecorded) {
                let Some(jid) = self.session(slot).bound().map(|b| b.jid.clone()) else {
                    continue;
                };
                self.fan(&presence::unavailable(&jid), lost.clone(), Vec::new());
            }
            if unknown && !slots.is_empty() {
                // Some of them may be subscribed: whoever is hears it again when that is known.
                self.load(account);
                for &slot in &slots {
                    let generation = self.generation(slot);
                    let Some(jid) = self.session(slot).bound().map(|b| b.jid.clone()) else {
                        continue;
                    };
                    self.queue_for(account, Queued::Rebroadcast(slot, generation, jid));
                }
            }
        }
        if slots.is_empty() {
            return;
        }
        let mut gained: Vec<(ShardId, Vec<BareJid>)> =
            self.by_home(with(false, true)).into_iter().collect();
        gained.sort_by_key(|(s, _)| *s);
        for (shard, members) in gained {
            let probing = Probing {
                from: Jid::Bare(account.clone()),
                targets: Vec::new(),
                groups: Vec::new(),
                members,
                known: self.groups.known,
            };
            self.tell(shard, ShardMsg::Probe(Box::new(probing)));
        }
    }

    /// Contacts by the shard they are at home on.
    pub(super) fn by_home<'c>(
        &self,
        contacts: impl Iterator<Item = &'c BareJid>,
    ) -> HashMap<ShardId, Vec<BareJid>> {
        let mut per_shard: HashMap<ShardId, Vec<BareJid>> = HashMap::default();
        for contact in contacts.filter(|c| self.settings.reaches(c.domainpart())) {
            per_shard
                .entry(self.home(contact))
                .or_default()
                .push(contact.clone());
        }
        per_shard
    }

    /// Sessions of the account that have said that they are available.
    pub(super) fn available_sessions(&self, account: &BareJid) -> Vec<u32> {
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        let available = |slot: &u32| {
            let session = self.sessions.get(*slot as usize);
            session
                .and_then(|s| s.bound())
                .is_some_and(|b| b.presence.is_some())
        };
        slots
            .unwrap_or_default()
            .into_iter()
            .filter(available)
            .collect()
    }

    /// After a restart: sessions without presence on record, which may have said one that was heard before it was written down. It comes
    /// again from their mux, but then goes to those alone who may see it now.
    fn perhaps_available_sessions(&self, account: &BareJid) -> Vec<u32> {
        let restarted = self.restarted();
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        let perhaps = |slot: &u32| {
            let session = self.sessions.get(*slot as usize);
            session.is_some_and(|s| {
                restarted
                    && s.perhaps_available(restarted)
                    && s.bound().is_some_and(|b| b.presence.is_none())
            })
        };
        slots
            .unwrap_or_default()
            .into_iter()
            .filter(perhaps)
            .collect()
    }

    /// `other` gets the presence of `account`, as a subscriber or as a member of a group.
    pub(super) fn sees(&self, account: &BareJid, other: &BareJid) -> bool {
        let audience = self.users.get(account).and_then(|u| u.audience.as_ref());
        audience.is_some_and(|a| a.binary_search(other).is_ok())
            || self.groups.view.shares_presence(account, other)
    }

    /// Whether a shard that knew so much has to be waited for. If so, the probe is kept.
    pub(super) fn too_early(&mut self, probe: Probing) -> Option<Probing> {
        if self.groups.known.covers(probe.known) {
            return Some(probe);
        }
        self.groups.early.push(probe);
        None
    }

    /// Groups to whose members presence goes. `everybody`: also those who were members before the restart.
    pub(super) fn groups_of(&self, account: &BareJid, everybody: bool) -> Vec<Arc<Group>> {
        let mut groups = self.groups.view.presence_groups(account);
        for before in self.groups.before.iter().filter(|_| everybody) {
            let before = View::new(before.clone(), self.groups.view.presence_max());
            groups.extend(before.presence_groups(account));
        }
        groups
    }

    /// Nobody is left who was told of the run before.
    pub(super) fn forget_population_before(&mut self) {
        self.groups.before = Vec::new();
        self.groups.gone = BTreeSet::new();
    }

    // ---- rosters ----------------------------------------------------------------------------------------

    /// How much of the groups the account's clients know when they get this.
    pub(super) fn group_part(&self, account: &BareJid) -> GroupPart {
        if self.groups.owed.contains_key(account) {
            GroupPart::Partial
        } else {
            GroupPart::of(self.groups.view.fingerprint(account))
        }
    }

    /// Sessions of the account that get roster pushes.
    pub(super) fn interested_sessions(&self, account: &BareJid) -> Vec<u32> {
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        let interested = |slot: &u32| {
            let session = self.sessions.get(*slot as usize);
            session
                .and_then(|s| s.bound())
                .is_some_and(|b| b.interested.is_some() && b.ready)
        };
        slots
            .unwrap_or_default()
            .into_iter()
            .filter(interested)
            .collect()
    }

    fn owe(&mut self, account: &BareJid, changed: Vec<Changed>) {
        if self.interested_sessions(account).is_empty() {
            return;
        }
        let owed = self.groups.owed.entry(account.clone()).or_default();
        owed.contacts.extend(changed.into_iter().map(|c| c.contact));
        owed.too_many |= owed.contacts.len() > OWED_MAX;
        if owed.too_many {
            owed.contacts.clear();
        }
    }

    /// A question for the roster comes again after a restart. Its client may have heard the answer of the run before, and take this one
    /// for a second of the same; groups have changed since, and when that was told the session was not known to be interested.
    pub(super) fn owe_again(&mut self, account: &BareJid) {
        let population = self.groups.view.population().clone();
        for before in self.groups.before.clone() {
            let difference = population.difference(&before);
            let before = View::new(before, self.groups.view.presence_max());
            let changed = self.groups.view.changed(&before, &difference, account);
            if !changed.is_empty() {
                self.owe(account, changed);
            }
        }
        self.push_owed();
    }

    /// Makes the pushes that can be made now, and loads who must be loaded for more.
    pub(super) fn push_owed(&mut self) {
        let mut room = PUSHES_MAX;
        let accounts: Vec<BareJid> = self.groups.owed.keys().cloned().collect();
        for account in accounts {
            if self.has_roster(&account) || self.interested_sessions(&account).is_empty() {
                self.push_owed_to(&account, &mut room);
            } else if self.groups.loading < LOADS_MAX
                && self
                    .groups
                    .owed
                    .get(&account)
                    .is_some_and(|o| !o.loading && !o.too_many)
            {
                self.load_owed(&account);
            }
            if room == 0 {
                break;
            }
        }
    }

    /// The account has been loaded, or could not be.
    pub(super) fn owed_is_loaded(&mut self, account: &BareJid) {
        let Some(owed) = self.groups.owed.get_mut(account) else {
            return;
        };
        let for_this = std::mem::take(&mut owed.loading);
        if for_this {
            self.groups.loading -= 1;
        }
        if !self.has_roster(account) {
            return self.load_next_owed();
        }
        let mut room = PUSHES_MAX;
        self.push_owed_to(account, &mut room);
        let durable = self.durable;
        if for_this
            && !self.groups.owed.contains_key(account)
            && let Some(user) = self.users.get_mut(account)
            && user.last_write <= durable
        {
            user.roster = None;
        }
        self.load_next_owed();
    }

    fn load_next_owed(&mut self) {
        if self.groups.loading >= LOADS_MAX {
            return;
        }
        let mut waiting = self
            .groups
            .owed
            .iter()
            .filter(|(_, o)| !o.loading && !o.too_many);
        let next = waiting.find(|(account, _)| !self.has_roster(account));
        if let Some(account) = next.map(|(account, _)| account.clone()) {
            self.load_owed(&account);
        }
    }

    fn load_owed(&mut self, account: &BareJid) {
        if let Some(owed) = self.groups.owed.get_mut(account) {
            owed.loading = true;
            self.groups.loading += 1;
            self.load(account);
        }
    }

    /// Pushes as many as there is room for. The last has the version with which the client knows everything.
    fn push_owed_to(&mut self, account: &BareJid, room: &mut usize) {
        let slots = self.interested_sessions(account);
        let Some(mut owed) = self.groups.owed.remove(account) else {
            return;
        };
        if slots.is_empty() {
            self.groups.loading -= usize::from(owed.loading);
            return;
        }
        let settings = self.settings.clone();
        while let Some(contact) = owed.contacts.pop_first() {
            if *room == 0 {
                owed.contacts.insert(contact);
                break;
            }
            let part = match owed.contacts.is_empty() {
                true => GroupPart::of(self.groups.view.fingerprint(account)),
                false => GroupPart::Partial,
            };
            let push = |shard: &Self, slot: u32| -> Option<Bytes> {
                let user = shard.users.get(account)?;
                let roster = user.roster.as_ref()?;
                let shown = shard.groups.view.shown(account, &contact);
                let seen = Seen {
                    item: roster.item(&contact),
                    shown: shown.as_ref(),
                };
                let bound = shard.sessions.get(slot as usize)?.bound()?;
                let version = roster.version();
                let id = format!(
                    "group-{:x}-{:x}",
                    shard.groups.known.populations,
                    owed.contacts.len()
                );
                Some(roster::push(
                    &id,
                    bound.jid.as_str(),
                    version,
                    part,
                    &contact,
                    seen,
                ))
            };
            let pushes: Vec<(u32, Bytes)> = slots
                .iter()
                .filter_map(|&slot| Some((slot, push(self, slot)?)))
                .collect();
            let fits = pushes.iter().all(|(slot, bytes)| {
                let session = self.sessions.get(*slot as usize);
                session.is_none_or(|s| s.has_room(bytes.len(), &settings))
            });
            if !fits {
                owed.contacts.insert(contact);
                break;
            }
            for (slot, bytes) in pushes {
                self.send(slot, bytes, OutKind::PUSH);
            }
            *room -= 1;
        }
        if owed.too_many || !owed.contacts.is_empty() {
            self.groups.owed.insert(account.clone(), owed);
        } else {
            self.groups.loading -= usize::from(owed.loading);
        }
    }
}
