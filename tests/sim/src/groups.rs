//! Groups of a directory that change while everything else goes wrong, and what clients must know of them in the end.
//!
//! Owns: who is in which group, the populations a server has been told of (as the file of a real one, they outlive a kill).
//! Never: asks the server, or the code that it decides by, who shares a group with whom.

use crate::breaks::Break;
use crate::client::{State, bare, sees};
use crate::world::{Ev, World};
use directory::backend::{Sweep, SweptGroup, SweptPerson};
use directory::population::Population;
use directory::population::history::History;
use imserver::event::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Groups of more members give no presence.
pub(crate) const PRESENCE_MAX: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Accounts in each group.
    members: Vec<BTreeSet<usize>>,
    /// Shown name of each account, as a number that changes.
    names: Vec<u64>,
    history: History,
    window_ms: u64,
    /// The server that was killed was alive then.
    alive_ms: u64,
}

impl Groups {
    /// Groups that two accounts share.
    fn common(&self, a: usize, b: usize) -> impl Iterator<Item = (usize, &BTreeSet<usize>)> {
        let both = move |g: &&BTreeSet<usize>| a != b && g.contains(&a) && g.contains(&b);
        let groups = self.members.iter().enumerate();
        groups.filter(move |(_, g)| both(g))
    }

    /// Each hears of the other's presence by a group.
    pub fn presence(&self, a: usize, b: usize) -> bool {
        self.common(a, b).any(|(_, g)| g.len() <= PRESENCE_MAX)
    }

    fn sweep(&self) -> Sweep {
        let people = self
            .names
            .iter()
            .enumerate()
            .map(|(account, name)| SweptPerson {
                jid: bare(account),
                name: Some(format!("n{name}")),
                disabled: false,
                id: None,
            });
        let groups = self
            .members
            .iter()
            .enumerate()
            .map(|(n, members)| SweptGroup {
                name: format!("g{n}"),
                title: None,
                in_rosters: true,
                members: members.iter().map(|&a| bare(a)).collect(),
            });
        Sweep {
            people: people.collect(),
            groups: groups.collect(),
            groups_unknown: None,
        }
    }
}

impl World {
    pub(crate) fn make_groups(&mut self) {
        self.groups.names = vec![0; self.plan.accounts];
        for _ in 0..self.plan.groups {
            let members = (0..self.plan.accounts).filter(|_| self.rng.permille(500));
            let members = members.collect();
            self.groups.members.push(members);
        }
        if self.plan.groups > 0 {
            self.sweep();
        }
    }

    /// The directory is read: what is new is written down, and then told.
    fn sweep(&mut self) -> Arc<Population> {
        let before = self.groups.history.current();
        let sweeps = BTreeMap::from([(Arc::from("sim"), self.groups.sweep())]);
        let population = Arc::new(Population::new(&sweeps, &before));
        let (now, window) = (self.now_us / 1_000, self.groups.window_ms);
        self.groups.history.push(now, window, population.clone());
        let file = self.groups.history.encode();
        self.groups.history = History::decode(&file).expect("our own bytes");
        self.groups.history.current()
    }

    /// Some people come, go, or are called something else.
    pub(crate) fn regroup(&mut self) {
        if !self.active {
            return;
        }
        for _ in 0..self.rng.between(1, 3) {
            let account = self.rng.index(self.plan.accounts);
            if self.rng.permille(150) {
                self.groups.names[account] += 1;
                continue;
            }
            let group = self.rng.index(self.groups.members.len());
            let members = &mut self.groups.members[group];
            if !members.remove(&account) {
                members.insert(account);
            }
        }
        let before = self.groups.history.current();
        let population = self.sweep();
        self.trace.line(
            self.now_us,
            0x20,
            format_args!("groups: {:?}", self.groups.members),
        );
        self.tell_population(&before, &population);
    }

    fn tell_population(&mut self, before: &Arc<Population>, population: &Arc<Population>) {
        let difference = Arc::new(population.difference(before));
        let Some(run) = self.server.as_ref().map(|s| s.run) else {
            return;
        };
        if difference.is_empty() {
            return;
        }
        for shard in 0..usize::from(self.plan.shards) {
            if self.broken == Some(Break::LoseGroups) && self.rng.permille(100) {
                continue;
            }
            let at = self.way(|s| &mut s.shards[shard].from_sweeper);
            let event = Event::Population(population.clone(), difference.clone());
            let events = vec![event];
            self.at(at, Ev::ToShard { run, shard, events });
        }
    }

    /// What a server begins with.
    pub(crate) fn certain_population(
        &mut self,
        alive_ms: u64,
        window: Duration,
    ) -> Arc<Population> {
        self.groups.window_ms = window.as_millis() as u64;
        self.groups.alive_ms = alive_ms;
        self.groups.history.certain(alive_ms, self.groups.window_ms)
    }

    /// And what it tells again.
    pub(crate) fn tell_population_again(&mut self) {
        let (alive, window) = (self.groups.alive_ms, self.groups.window_ms);
        let mut before = self.groups.history.certain(alive, window);
        for population in self.groups.history.uncertain() {
            self.tell_population(&before, &population);
            before = population;
        }
    }

    /// The roster every client knows is what it should be.
    pub(crate) fn check_rosters(&mut self) {
        let mut wrong = Vec::new();
        for (n, client) in self.clients.iter().enumerate() {
            if client.state != State::Online || !client.roster_known {
                continue;
            }
            let own = client.account;
            let expected: BTreeMap<String, String> = (0..self.plan.accounts)
                .filter_map(|other| {
                    let common: Vec<usize> =
                        self.groups.common(own, other).map(|(n, _)| n).collect();
                    let subscription = match (sees(own, other), sees(other, own)) {
                        _ if self.groups.presence(own, other) => "both",
                        (true, true) => "both",
                        (true, false) => "to",
                        (false, true) => "from",
                        (false, false) if common.is_empty() => return None,
                        (false, false) => "none",
                    };
                    let name = match common.is_empty() {
                        true => "-".to_owned(),
                        false => format!("n{}", self.groups.names[other]),
                    };
                    let titles: Vec<String> = common.iter().map(|g| format!("g{g}")).collect();
                    let line = format!("{name} {subscription} [{}]", titles.join(","));
                    Some((bare(other).to_string(), line))
                })
                .collect();
            if client.roster != expected {
                let mut lines = Vec::new();
                for jid in expected
                    .keys()
                    .chain(client.roster.keys())
                    .collect::<BTreeSet<_>>()
                {
                    let (is, should) = (client.roster.get(jid), expected.get(jid));
                    if is != should {
                        lines.push(format!("{jid}: {is:?}, should be {should:?}"));
                    }
                }
                wrong.push(format!(
                    "client {n} knows a wrong roster: {}",
                    lines.join("; ")
                ));
            }
        }
        wrong.into_iter().for_each(|text| self.fail(text));
    }
}
