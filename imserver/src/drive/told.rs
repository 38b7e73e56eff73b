//! The file of what clients may have been told of groups, so that a restarted server tells what is different and nothing else.
//!
//! In: populations, before anybody is told of them. Out: what shards begin with, and what they are told again.
//! Owns: the file. Never: syncs it: it is for what survives the process, not the machine (DESIGN section 4).

use directory::population::Population;
use directory::population::history::History;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// In the data directory.
const FILE: &str = "population.told";

/// See the module.
#[derive(Clone, Debug)]
pub struct Told {
    history: History,
    file: PathBuf,
    window_ms: u64,
}

impl Told {
    /// Reads the file; nothing if there is none or it is not whole: then clients are told everything. What was told within `window`
    /// before a restart may not have arrived.
    pub fn load(data_dir: &Path, window: Duration) -> Self {
        let file = data_dir.join(FILE);
        let history = match std::fs::read(&file) {
            Ok(bytes) => History::decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(file = %file.display(), "what clients were told of groups cannot be read; they are told all of it");
                History::default()
            }),
            Err(_) => History::default(),
        };
        Self {
            history,
            file,
            window_ms: window.as_millis() as u64,
        }
    }

    /// What every client has been told of by a server that was alive then.
    pub fn certain(&mut self, alive_unix_ms: u64) -> Arc<Population> {
        self.history.certain(alive_unix_ms, self.window_ms)
    }

    /// What is to be told again after that, one after the other.
    pub fn uncertain(&self) -> Vec<Arc<Population>> {
        self.history.uncertain()
    }

    /// The newest.
    pub fn current(&self) -> Arc<Population> {
        self.history.current()
    }

    /// Is about to be told.
    pub fn push(&mut self, now_unix_ms: u64, population: Arc<Population>) {
        self.history.push(now_unix_ms, self.window_ms, population);
        let new = self.file.with_extension("new");
        let written = std::fs::write(&new, self.history.encode());
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &self.file)) {
            tracing::warn!(%error, file = %self.file.display(), "what clients are told of groups could not be kept for the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use directory::backend::{Sweep, SweptPerson};
    use std::collections::BTreeMap;
    use xmpp::jid::BareJid;

    fn population(name: &str) -> Arc<Population> {
        let person = SweptPerson {
            jid: BareJid::parse(name).expect("a JID"),
            name: None,
            disabled: false,
            id: None,
        };
        let sweep = Sweep {
            people: vec![person],
            groups: Vec::new(),
            groups_unknown: None,
        };
        let sweeps = BTreeMap::from([(Arc::from("corp"), sweep)]);
        Arc::new(Population::new(&sweeps, &Population::default()))
    }

    #[test]
    fn a_restart_begins_with_what_is_certain_and_tells_the_rest() {
        let dir = tempfile::tempdir().expect("a directory");
        let load = || Told::load(dir.path(), Duration::from_secs(30));
        let knows =
            |p: &Population, name: &str| p.member(&BareJid::parse(name).expect("a JID")).is_some();
        let mut told = load();
        assert_eq!(told.certain(1_000).people(), 0);
        told.push(1_000, population("a@x.example"));
        told.push(90_000, population("b@x.example"));
        let mut soon = load();
        assert!(knows(&soon.certain(100_000), "a@x.example"));
        assert!(knows(&soon.uncertain()[0], "b@x.example"));
        let mut late = load();
        assert!(knows(&late.certain(200_000), "b@x.example"));
        assert!(late.uncertain().is_empty() && knows(&late.current(), "b@x.example"));
        std::fs::write(dir.path().join(FILE), "nonsense").expect("it can be written");
        assert_eq!(load().current().people(), 0);
    }
}
