//! `kill -9` at random moments: whatever was acknowledged is there, whatever batch was not is there
//! whole or not at all.
//!
//! The test runs its own binary as the victim. The victim prints a line after each commit; the parent
//! kills it after a number of lines, reads what was printed, and looks into the store.

#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{jid, message, origin, stored};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store::sqlite::SqliteEngine;
use store::{Append, Engine, Write, Written};

const DIR: &str = "ISTHMUS_STORE_VICTIM_DIR";
const START: &str = "ISTHMUS_STORE_VICTIM_START";
const BATCH: u64 = 20;
const OWNER: &str = "a@x.example";

/// Not a test but the victim, when the parent says so.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let start: u64 = std::env::var(START).unwrap().parse().unwrap();
    let engine = SqliteEngine::open(&PathBuf::from(dir)).unwrap();
    let mut writer = engine.writer().unwrap();
    let mut sessions = engine.session_store().unwrap();
    let mut out = std::io::stdout();
    for batch in start.. {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let mut writes: Vec<Write> = numbers
            .map(|n| {
                Write::Append(Append {
                    origin: origin(1, n),
                    archive: n % 5 == 0,
                    ..message(OWNER, &n.to_string())
                })
            })
            .collect();
        let version = batch + 1;
        writes.push(Write::Roster {
            owner: jid(OWNER),
            version,
            put: None,
            remove: None,
        });
        let written = writer.commit(&writes).unwrap();
        let positions: Vec<u64> = written[..BATCH as usize].iter().map(stored).collect();
        writeln!(out, "batch {batch} {}", positions[0]).unwrap();
        let odd: Vec<u64> = positions.into_iter().skip(1).step_by(2).collect();
        writer
            .commit(&[Write::Ack {
                owner: jid(OWNER),
                positions: odd,
            }])
            .unwrap();
        writeln!(out, "acked {batch}").unwrap();
        sessions
            .put(&[
                (batch, Some(Bytes::from(vec![7; 300]))),
                (batch.saturating_sub(10), None),
            ])
            .unwrap();
        writeln!(out, "session {batch}").unwrap();
        if batch % 7 == 0 {
            engine.fold_all().unwrap();
        }
        writer.maintain().unwrap();
    }
}

fn start(dir: &Path, batch: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(START, batch.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the victims have said, all lives together.
#[derive(Default)]
struct Said {
    /// Batch -> position of its first message.
    batches: BTreeMap<u64, u64>,
    acked: BTreeSet<u64>,
    session: Option<u64>,
}

impl Said {
    fn line(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        match (words[0], number(1)) {
            ("batch", Some(batch)) => drop(self.batches.insert(batch, number(2).unwrap())),
            ("acked", Some(batch)) => drop(self.acked.insert(batch)),
            ("session", Some(batch)) => self.session = Some(batch),
            _ => return false,
        }
        true
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    let mut next = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for life in 0..12 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let lines = 1 + (random >> 33) % 120;
        let mut child = start(dir.path(), next);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = 0;
        while heard < lines {
            let line = output.next().expect("the victim died by itself").unwrap();
            heard += u64::from(said.line(&line));
        }
        child.kill().unwrap();
        for line in output {
            said.line(&line.unwrap_or_default());
        }
        child.wait().unwrap();
        next = check(dir.path(), &said, life);
    }
    assert!(said.batches.len() > 12);
}

/// Returns the number of the first batch that is not in the store.
fn check(dir: &Path, said: &Said, life: u64) -> u64 {
    let engine = SqliteEngine::open(dir).unwrap();
    let mut reader = engine.reader().unwrap();
    let rows = reader.pending(&jid(OWNER), 0, usize::MAX).unwrap();
    let pending: BTreeSet<u64> = rows
        .iter()
        .map(|row| std::str::from_utf8(&row.payload).unwrap().parse().unwrap())
        .collect();
    assert_eq!(pending.len(), rows.len(), "life {life}: something twice");
    let last = *said.batches.keys().last().unwrap();
    // A batch may be there that nobody heard of, but whole.
    let unheard = pending.range((last + 1) * BATCH..).count() as u64;
    assert!(
        [0, BATCH, BATCH / 2].contains(&unheard),
        "life {life}: {unheard} of a batch"
    );
    let mut writer = engine.writer().unwrap();
    for (batch, first) in &said.batches {
        for n in batch * BATCH..(batch + 1) * BATCH {
            let acked = said.acked.contains(batch) && n % 2 == 1;
            // The acknowledgement of a life's last batch may be on disk though nobody heard of it.
            let unsure = n % 2 == 1 && !acked;
            assert!(
                unsure || pending.contains(&n) != acked,
                "life {life}: message {n}, acknowledged {acked}"
            );
            let position = first + n - batch * BATCH;
            let row = reader.row(&jid(OWNER), position).unwrap();
            assert_eq!(
                row.is_some(),
                pending.contains(&n) || n % 5 == 0,
                "life {life}: row {n}"
            );
        }
    }
    let again = Append {
        origin: origin(1, last * BATCH),
        ..message(OWNER, "again")
    };
    let answer = writer.commit(&[Write::Append(again)]).unwrap();
    assert!(
        matches!(answer[..], [Written::Replayed { position, .. }] if position == said.batches[&last])
    );
    let version = reader.user_data(&jid(OWNER)).unwrap().roster_version;
    assert!(
        version >= said.batches.len() as u64 && version > last,
        "life {life}"
    );
    let mut sessions = engine.session_store().unwrap();
    let records: Vec<u64> = sessions
        .load()
        .unwrap()
        .into_iter()
        .map(|record| record.0)
        .collect();
    if let Some(batch) = said.session {
        assert!(records.contains(&batch), "life {life}: session {batch}");
    }
    assert!(
        records.len() < 20 + life as usize * 11,
        "life {life}: {}",
        records.len()
    );
    last + 1 + u64::from(unheard > 0)
}
