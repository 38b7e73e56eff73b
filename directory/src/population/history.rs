//! The populations that clients may have been told of, kept over a restart.
//!
//! In: each new population, before anybody is told of it. Out: bytes for a file, and what a restarted server begins with.
//! Owns: the populations of the last while. Never: opens the file; trusts what was in it.
//!
//! A restarted server holds sessions whose clients know the groups as they were. It begins with the population from before, so
//! that only what is different is told, also while the directory does not answer. What was told in the last moments before
//! the end may not have arrived: so a server that ended within `window` of a change begins with the population before that
//! change, and tells the difference again; of several changes, one after the other, because a client may know any of them.

use super::{Group, Member, Population};
use std::sync::Arc;
use xmpp::jid::BareJid;

/// Most populations kept. A window is a minute or less, and sweeps are further apart than seconds; of more, the oldest go.
const ENTRIES_MAX: usize = 16;

/// First bytes of the file: what it is, and its version.
const MAGIC: &[u8; 8] = b"ISTHPOP1";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Since when (unix ms), oldest first. Never empty but at the very first start.
    entries: Vec<(u64, Arc<Population>)>,
}

impl History {
    /// The newest.
    pub fn current(&self) -> Arc<Population> {
        self.entries
            .last()
            .map(|(_, p)| Arc::clone(p))
            .unwrap_or_default()
    }

    /// There is a new one. To be saved before anybody is told of it.
    pub fn push(&mut self, now_unix_ms: u64, window_ms: u64, population: Arc<Population>) {
        self.entries.push((now_unix_ms, population));
        self.forget(now_unix_ms, window_ms);
    }

    /// What a restarted server begins with: all clients have certainly been told of it, if of nothing later.
    pub fn certain(&mut self, now_unix_ms: u64, window_ms: u64) -> Arc<Population> {
        self.forget(now_unix_ms, window_ms);
        self.entries
            .first()
            .map(|(_, p)| Arc::clone(p))
            .unwrap_or_default()
    }

    /// What it tells then, one after the other.
    pub fn uncertain(&self) -> Vec<Arc<Population>> {
        let later = self.entries.iter().skip(1);
        later.map(|(_, p)| Arc::clone(p)).collect()
    }

    /// A population is of no use when the next one has been told for as long as that takes. A clock that was set back keeps it.
    fn forget(&mut self, now_unix_ms: u64, window_ms: u64) {
        let told = |next: u64| next.saturating_add(window_ms) < now_unix_ms;
        while self.entries.len() > ENTRIES_MAX
            || self.entries.get(1).is_some_and(|(since, _)| told(*since))
        {
            self.entries.remove(0);
        }
    }

    /// For the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_len(&mut out, self.entries.len());
        for (since, population) in &self.entries {
            out.extend_from_slice(&since.to_be_bytes());
            encode_population(&mut out, population);
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum.to_be_bytes());
        out
    }

    /// From the file. `None`: it is none of ours, or not whole.
    pub fn decode(file: &[u8]) -> Option<Self> {
        let (body, sum) = file.split_last_chunk::<8>()?;
        if checksum(body) != u64::from_be_bytes(*sum) {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let mut entries: Vec<(u64, Arc<Population>)> = Vec::new();
        for _ in 0..take_len(&mut rest)? {
            let (since, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            let before = entries.last().map(|(_, p)| Arc::clone(p));
            let population = decode_population(&mut rest, before.as_deref())?;
            entries.push((u64::from_be_bytes(*since), Arc::new(population)));
        }
        rest.is_empty().then_some(Self { entries })
    }
}

fn encode_population(out: &mut Vec<u8>, population: &Population) {
    put_len(out, population.groups.len());
    for group in &population.groups {
        put(out, &group.directory);
        put(out, &group.name);
        put(out, &group.title);
        out.push(u8::from(group.in_rosters));
        put_len(out, group.members.len());
        group.members.iter().for_each(|m| put(out, m.as_str()));
    }
    put_len(out, population.people.len());
    for (jid, member) in &population.people {
        put(out, jid.as_str());
        out.push(u8::from(member.disabled) << 1 | u8::from(member.name.is_some()));
        put(out, member.name.as_deref().unwrap_or_default());
    }
}

/// Groups that are as in `before` are the same objects.
fn decode_population(rest: &mut &[u8], before: Option<&Population>) -> Option<Population> {
    let mut population = Population::default();
    for _ in 0..take_len(rest)? {
        let (directory, name, title) = (take(rest)?.into(), take(rest)?.into(), take(rest)?.into());
        let in_rosters = take_flag(rest)? == 1;
        let members: Option<Vec<BareJid>> = (0..take_len(rest)?).map(|_| take_jid(rest)).collect();
        let mut members = members?;
        members.sort_unstable();
        let group = Group {
            directory,
            name,
            title,
            in_rosters,
            members: members.into(),
        };
        let same = before.and_then(|p| p.groups.iter().find(|g| ***g == group));
        let group = same.map_or_else(|| Arc::new(group), Arc::clone);
        population.directories.insert(group.directory.clone());
        population.groups.push(group);
    }
    for _ in 0..take_len(rest)? {
        let jid = take_jid(rest)?;
        let flags = take_flag(rest)?;
        let name = take(rest)?;
        let member = Member {
            name: (flags & 1 == 1).then(|| Arc::from(name)),
            disabled: flags & 2 == 2,
        };
        population.people.insert(jid, member);
    }
    population.index();
    Some(population)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u64).to_be_bytes());
}

fn put(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Nothing is allocated by it: what is counted must be there.
fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let (len, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    usize::try_from(u64::from_be_bytes(*len)).ok()
}

fn take<'f>(rest: &mut &'f [u8]) -> Option<&'f str> {
    let len = take_len(rest)?;
    let (text, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

fn take_jid(rest: &mut &[u8]) -> Option<BareJid> {
    BareJid::parse(take(rest)?).ok()
}

fn take_flag(rest: &mut &[u8]) -> Option<u8> {
    let (flag, tail) = rest.split_first()?;
    *rest = tail;
    Some(*flag)
}

/// FNV-1a: after a power failure a file may be there and not be whole.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(
        groups: &[(&str, &[&str])],
        people: &[(&str, Option<&str>, bool)],
    ) -> Arc<Population> {
        let jid = |name: &str| BareJid::parse(&format!("{name}@x.example")).unwrap();
        let mut population = Population::default();
        for (name, members) in groups {
            population.groups.push(Arc::new(Group {
                directory: "corp".into(),
                name: (*name).into(),
                title: format!("{name} & co").into(),
                in_rosters: *name != "quiet",
                members: members.iter().map(|m| jid(m)).collect(),
            }));
        }
        for (name, shown, disabled) in people {
            let member = Member {
                name: shown.map(Arc::from),
                disabled: *disabled,
            };
            population.people.insert(jid(name), member);
        }
        population.index();
        Arc::new(population)
    }

    fn first() -> Arc<Population> {
        let people: &[(&str, Option<&str>, bool)] =
            &[("ann", Some("Ann Ä."), false), ("bob", None, true)];
        population(&[("a", &["ann", "bob"]), ("quiet", &[])], people)
    }

    #[test]
    fn a_file_brings_back_what_was_there() {
        let mut history = History::default();
        let second = population(
            &[("a", &["ann", "bob"]), ("b", &["ann"])],
            &[("ann", None, false)],
        );
        for (n, p) in [first(), population(&[], &[]), second]
            .into_iter()
            .enumerate()
        {
            history.push(1_000 + n as u64, 30_000, p);
        }
        let mut back = History::decode(&history.encode()).expect("our own bytes");
        let (old, new) = (back.certain(1_500, 30_000), back.current());
        assert_eq!(back.uncertain().len(), 2);
        assert_eq!(*old.groups()[0], *first().groups()[0]);
        assert_eq!(old.people, first().people);
        assert_eq!(old.groups()[0], new.groups()[0]);
        let difference = new.difference(&old);
        assert_eq!(
            difference,
            history
                .current()
                .difference(&history.certain(1_500, 30_000))
        );
        assert!(!difference.is_empty());
    }

    #[test]
    fn only_what_may_not_have_arrived_is_told_again() {
        let mut history = History::default();
        assert!(history.certain(0, 30).groups().is_empty());
        let (a, b) = (first(), population(&[("b", &["ann"])], &[]));
        history.push(1_000, 30, a.clone());
        assert!(
            Arc::ptr_eq(&history.certain(1_001, 30), &a),
            "there was none before"
        );
        history.push(2_000, 30, b.clone());
        assert!(Arc::ptr_eq(&history.certain(2_030, 30), &a));
        assert!(Arc::ptr_eq(&history.current(), &b));
        assert!(Arc::ptr_eq(&history.certain(2_031, 30), &b));
        let mut back = History::decode(&history.encode()).expect("our own bytes");
        assert_eq!(back.certain(9_000, 30).groups(), b.groups());
        assert!(History::decode(&History::default().encode()).is_some());
    }

    #[test]
    fn a_cut_or_changed_file_is_none() {
        let mut history = History::default();
        history.push(1, 30, first());
        let file = history.encode();
        for n in 0..file.len() {
            assert!(History::decode(&file[..n]).is_none(), "cut at {n}");
            let mut changed = file.clone();
            changed[n] ^= 1;
            assert!(History::decode(&changed).is_none(), "changed at {n}");
        }
        // A whole file that says too much of itself.
        let mut long = MAGIC.to_vec();
        put_len(&mut long, usize::MAX);
        let sum = checksum(&long);
        long.extend_from_slice(&sum.to_be_bytes());
        assert!(History::decode(&long).is_none());
    }
}
