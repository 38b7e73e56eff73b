//! The live origins, in the writer's memory: what makes a second write of the same stanza a replay.
//!
//! In: origins of rows as they are written, and what may be forgotten. Out: the position of an
//! origin seen before. Owns: the map. Never: forgets an origin by itself.

use foldhash::HashMap;
use std::collections::VecDeque;
use xmpp::jid::BareJid;

use crate::types::Origin;

/// One origin.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub stanza: u64,
    pub hash: u64,
    /// Position of the first write: the answer to a second.
    pub position: u64,
    /// Position of the log row that tells of this origin after a restart: the message, or a row the
    /// origin was carried to.
    pub told_at: u64,
    pub owner: BareJid,
}

/// All live origins, by session, ascending by stanza.
#[derive(Default)]
pub(crate) struct Origins {
    sessions: HashMap<u64, VecDeque<Entry>>,
    count: usize,
}

impl Origins {
    /// The entry of (session, stanza, owner), whatever its hash.
    pub fn find(&self, session: u64, stanza: u64, owner: &BareJid) -> Option<&Entry> {
        let entries = self.sessions.get(&session)?;
        // Mostly new: greater than the last.
        if entries.back().is_none_or(|last| last.stanza < stanza) {
            return None;
        }
        let from = entries.partition_point(|entry| entry.stanza < stanza);
        entries
            .range(from..)
            .take_while(|entry| entry.stanza == stanza)
            .find(|entry| entry.owner == *owner)
    }

    /// Adds an origin, or replaces the one of the same (session, stanza, owner); returns what was
    /// replaced.
    pub fn insert(
        &mut self,
        origin: Origin,
        owner: BareJid,
        position: u64,
        told_at: u64,
    ) -> Option<Entry> {
        let entry = Entry {
            stanza: origin.stanza,
            hash: origin.hash,
            position,
            told_at,
            owner,
        };
        let entries = self.sessions.entry(origin.session).or_default();
        if entries.back().is_none_or(|last| last.stanza < entry.stanza) {
            entries.push_back(entry);
            self.count += 1;
            return None;
        }
        let from = entries.partition_point(|other| other.stanza < entry.stanza);
        let mut at = from;
        while let Some(other) = entries
            .get_mut(at)
            .filter(|other| other.stanza == entry.stanza)
        {
            if other.owner == entry.owner {
                return Some(std::mem::replace(other, entry));
            }
            at += 1;
        }
        entries.insert(at, entry);
        self.count += 1;
        None
    }

    /// Undoes an `insert` whose transaction failed.
    pub fn undo(&mut self, session: u64, stanza: u64, owner: &BareJid, replaced: Option<Entry>) {
        let Some(entries) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(at) = entries
            .iter()
            .position(|entry| entry.stanza == stanza && entry.owner == *owner)
        else {
            return;
        };
        match replaced {
            Some(entry) => entries[at] = entry,
            None => {
                entries.remove(at);
                self.count -= 1;
                if entries.is_empty() {
                    self.sessions.remove(&session);
                }
            }
        }
    }

    /// Forgets stanzas of a session up to and including one.
    pub fn forget(&mut self, session: u64, up_to_stanza: u64) {
        let Some(entries) = self.sessions.get_mut(&session) else {
            return;
        };
        while entries
            .front()
            .is_some_and(|entry| entry.stanza <= up_to_stanza)
        {
            entries.pop_front();
            self.count -= 1;
        }
        if entries.is_empty() {
            self.sessions.remove(&session);
        }
    }

    /// Forgets a session.
    pub fn forget_session(&mut self, session: u64) {
        if let Some(entries) = self.sessions.remove(&session) {
            self.count -= entries.len();
        }
    }

    /// Forgets every session not in the list.
    pub fn retain(&mut self, sessions: &[u64]) {
        let live: foldhash::HashSet<u64> = sessions.iter().copied().collect();
        self.sessions.retain(|session, _| live.contains(session));
        self.count = self.sessions.values().map(VecDeque::len).sum();
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The lowest log position that must be read at a restart to know all origins; None if there
    /// are none.
    pub fn lowest_told_at(&self) -> Option<u64> {
        self.lowest_told_from(0)
    }

    /// The same, leaving out those told below `from`.
    pub fn lowest_told_from(&self, from: u64) -> Option<u64> {
        self.sessions
            .values()
            .flatten()
            .map(|entry| entry.told_at)
            .filter(|at| *at >= from)
            .min()
    }

    /// Those told below a position, with their session, for carrying.
    pub fn told_below(&self, position: u64) -> Vec<(u64, Entry)> {
        let all = self
            .sessions
            .iter()
            .flat_map(|(session, entries)| entries.iter().map(|entry| (*session, entry)));
        all.filter(|(_, entry)| entry.told_at < position)
            .map(|(session, entry)| (session, entry.clone()))
            .collect()
    }

    /// Those told below `position` are now told by the row at `told_at`.
    pub fn carried(&mut self, position: u64, told_at: u64) {
        for entry in self.sessions.values_mut().flatten() {
            if entry.told_at < position {
                entry.told_at = told_at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    #[test]
    fn finds_by_session_stanza_and_owner_in_any_order_of_insertion() {
        let mut origins = Origins::default();
        for (position, (stanza, owner)) in
            [(5, "a@x"), (3, "a@x"), (5, "b@x"), (4, "a@x"), (5, "c@x")]
                .into_iter()
                .enumerate()
        {
            let origin = Origin {
                session: 1,
                stanza,
                hash: 9,
            };
            assert!(
                origins
                    .insert(origin, jid(owner), position as u64, position as u64)
                    .is_none()
            );
        }
        assert_eq!(origins.len(), 5);
        assert_eq!(origins.find(1, 5, &jid("c@x")).unwrap().position, 4);
        assert_eq!(origins.find(1, 3, &jid("a@x")).unwrap().position, 1);
        assert!(origins.find(1, 3, &jid("b@x")).is_none());
        assert!(origins.find(2, 3, &jid("a@x")).is_none());
        let replaced = origins.insert(
            Origin {
                session: 1,
                stanza: 5,
                hash: 1,
            },
            jid("b@x"),
            77,
            77,
        );
        assert_eq!(replaced.as_ref().unwrap().position, 2);
        origins.undo(1, 5, &jid("b@x"), replaced);
        assert_eq!(origins.find(1, 5, &jid("b@x")).unwrap().hash, 9);
        origins.forget(1, 4);
        assert_eq!(origins.len(), 3);
        assert_eq!(origins.lowest_told_at(), Some(0));
        assert_eq!(origins.told_below(3).len(), 2);
        origins.carried(3, 100);
        assert_eq!(origins.lowest_told_at(), Some(4));
        origins.retain(&[2]);
        assert_eq!((origins.len(), origins.lowest_told_at()), (0, None));
    }
}
