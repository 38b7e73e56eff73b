//! Whose an address is: the entry of a directory that had it last. A name that is given to somebody else gives them nothing of the
//! one before.
//!
//! In: addresses with the ids of their entries, as sweeps find them. Out: what was kept of a former holder is dropped.
//! Owns: the file of who has had which address, also of those who are gone.
//! Never: drops anything because an id is missing, or because most of them are others at once: that is a directory that was
//! loaded anew.

use super::overlay::StoreOverlay;
use super::writer::DirectWriter;
use crate::event::{AdminEvent, Event};
use crate::shard::home;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{Reader, Write};
use xmpp::jid::BareJid;

/// Of so many who are known by id, more than half with another one at a time is a directory that was loaded anew.
const FEW: usize = 4;

/// Rows dropped at once.
const DROP_SLICE: usize = 1_000;

/// See the module.
pub struct Holders {
    file: PathBuf,
    known: BTreeMap<BareJid, Arc<str>>,
    reader: Box<dyn Reader>,
    writer: DirectWriter,
    shards: Vec<Sender<Vec<Event>>>,
    overlay: Arc<StoreOverlay>,
}

impl std::fmt::Debug for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Holders")
    }
}

/// What one look says of ids.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Not known before.
    new: usize,
    /// The address is another entry's now, and whose it was.
    others: Vec<(BareJid, Arc<str>)>,
    /// There were too many of these to believe: their ids are taken over, and nothing is dropped.
    anew: usize,
}

/// Takes the ids over.
fn look(known: &mut BTreeMap<BareJid, Arc<str>>, ids: Vec<(BareJid, String)>) -> Seen {
    let mut seen = Seen::default();
    let mut same = 0;
    for (jid, id) in ids {
        match known.get(&jid) {
            Some(before) if **before == *id => same += 1,
            before => {
                match before {
                    Some(before) => seen.others.push((jid.clone(), before.clone())),
                    None => seen.new += 1,
                }
                known.insert(jid, Arc::from(id));
            }
        }
    }
    if seen.others.len() >= FEW && seen.others.len() > same {
        seen.anew = std::mem::take(&mut seen.others).len();
    }
    seen
}

impl Holders {
    /// As the file has it.
    pub fn new(
        file: PathBuf,
        reader: Box<dyn Reader>,
        writer: DirectWriter,
        shards: Vec<Sender<Vec<Event>>>,
        overlay: Arc<StoreOverlay>,
    ) -> Self {
        Holders {
            overlay,
            known: load(&file),
            file,
            reader,
            writer,
            shards,
        }
    }

    /// These addresses are of entries with these ids now. `has_entry`: whether a directory, asked about that one alone, decides for
    /// an address; `None`: it does not answer.
    pub fn meet(
        &mut self,
        ids: Vec<(BareJid, String)>,
        has_entry: &dyn Fn(&BareJid) -> Option<bool>,
    ) {
        let Seen { new, others, anew } = look(&mut self.known, ids);
        if anew > 0 {
            tracing::warn!(
                people = anew,
                "most people have other ids in the directory: it was loaded anew, and everybody keeps what they have"
            );
        }
        let mut changed = new + anew > 0;
        for (jid, before) in others {
            let done = match has_entry(&jid) {
                // An account in the store that comes before the directory is nobody else's.
                Some(false) => Ok(false),
                Some(true) => self.set_aside(&jid).map(|()| true),
                None => Err("the directory does not answer".to_owned()),
            };
            match done {
                Ok(dropped) => {
                    changed = true;
                    if dropped {
                        tracing::warn!(
                            account = jid.as_str(),
                            "the address is of another entry of the directory than before: contacts, vCard, messages and keys of the former holder are dropped"
                        );
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        account = jid.as_str(),
                        error,
                        "what the former holder of an address left could not be dropped: the next look at the directory tries again"
                    );
                    self.known.insert(jid, before);
                }
            }
        }
        if changed && let Err(error) = save(&self.file, &self.known) {
            tracing::warn!(%error, file = %self.file.display(), "whose addresses are whose could not be kept for the next start");
        }
    }

    fn set_aside(&mut self, jid: &BareJid) -> Result<(), String> {
        // Nobody must be in, or what is in memory would be written again.
        let shard = home(jid, self.shards.len() as u16);
        let data = self.reader.user_data(jid).map_err(|e| e.to_string())?;
        let gone = Event::Admin(AdminEvent::AccountRemoved {
            account: jid.clone(),
            contacts: Some(store::subscribed(&data.roster)),
        });
        let _ = self.shards[usize::from(shard.0)].send(vec![gone]);
        self.writer
            .write(vec![Write::AccountDelete { jid: jid.clone() }])?;
        self.overlay.set_disabled(jid, false);
        loop {
            let positions = self
                .reader
                .some_rows(jid, DROP_SLICE)
                .map_err(|e| e.to_string())?;
            if positions.is_empty() {
                return Ok(());
            }
            let owner = jid.clone();
            self.writer.write(vec![Write::Drop { owner, positions }])?;
        }
    }
}

/// A line each: the address and the id.
fn save(file: &Path, known: &BTreeMap<BareJid, Arc<str>>) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = BufWriter::new(std::fs::File::create(&new)?);
    for (jid, id) in known {
        serde_json::to_writer(&mut out, &(jid.as_str(), &**id))?;
        out.write_all(b"\n")?;
    }
    out.into_inner()?.sync_data()?;
    std::fs::rename(new, file)
}

/// What was kept. Without it everybody is met for the first time, and nobody loses anything.
fn load(file: &Path) -> BTreeMap<BareJid, Arc<str>> {
    let Ok(open) = std::fs::File::open(file) else {
        return BTreeMap::new();
    };
    let line = |line: std::io::Result<String>| {
        let (jid, id): (String, String) = serde_json::from_str(&line.ok()?).ok()?;
        Some((BareJid::parse(&jid).ok()?, Arc::from(id)))
    };
    let known: Option<BTreeMap<_, _>> = BufReader::new(open).lines().map(line).collect();
    known.unwrap_or_else(|| {
        tracing::warn!(file = %file.display(), "whose addresses are whose cannot be read; everybody is met anew");
        BTreeMap::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<(BareJid, String)> {
        let one = |pair: &str| {
            let (name, id) = pair.split_once('=').expect("name=id");
            let jid = BareJid::parse(&format!("{name}@x.example")).expect("a JID");
            (jid, id.to_owned())
        };
        text.split_whitespace().map(one).collect()
    }

    /// Known at last, who is new, who is another, how many were taken over.
    #[test]
    fn another_id_is_another_person_unless_most_are_others() {
        for (before, now, new, others, anew) in [
            ("", "a=1 b=2", 2, "", 0),
            ("a=1 b=2", "a=1 b=2", 0, "", 0),
            ("a=1 b=2", "a=9 b=2", 0, "a", 0),
            // Somebody alone is somebody else; so are some of a few.
            ("a=1", "a=9", 0, "a", 0),
            ("a=1 b=2 c=3", "a=9 b=8 c=7", 0, "a b c", 0),
            // Gone for a while, and then another.
            ("a=1 b=2", "b=2", 0, "", 0),
            ("a=1 b=2 c=3 d=4", "a=9 b=8 c=7 d=6 e=5", 1, "", 4),
            (
                "a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8",
                "a=9 b=9 c=9 d=9 e=5 f=6 g=7 h=8",
                0,
                "a b c d",
                0,
            ),
        ] {
            let mut known = BTreeMap::new();
            look(&mut known, ids(before));
            let seen = look(&mut known, ids(now));
            let found: Vec<&str> = seen
                .others
                .iter()
                .filter_map(|(j, _)| j.localpart())
                .collect();
            assert_eq!(found.join(" "), others, "{before} {now}");
            assert_eq!((seen.new, seen.anew), (new, anew), "{before} {now}");
            for (jid, id) in ids(now) {
                assert_eq!(known[&jid], Arc::from(id));
            }
        }
    }

    #[test]
    fn who_had_an_address_is_kept_for_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("holders");
        assert!(load(&file).is_empty());
        let mut known = BTreeMap::new();
        look(&mut known, ids("a=1 b=\"2\""));
        save(&file, &known).expect("it is written");
        assert_eq!(load(&file), known);
        std::fs::write(&file, "nonsense\n").expect("it is written");
        assert!(load(&file).is_empty());
    }
}
