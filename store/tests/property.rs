//! Random operations on the model and on SQLite: the same answers, the same rows, whatever is folded,
//! swept, killed or rebuilt in between.

#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{jid, remove_index};
use proptest::prelude::*;
use std::collections::BTreeMap;
use store::model::Model;
use store::sqlite::SqliteEngine;
use store::{Append, ArchiveQuery, Engine, Origin, StoredRow, Write, Writer, Written};

const OWNERS: [&str; 3] = ["a@x.example", "b@x.example", "c@y.example"];
const PEERS: [&str; 3] = ["p@x.example", "q@x.example", "a@x.example"];

#[derive(Clone, Debug)]
enum Op {
    Append {
        owner: usize,
        peer: usize,
        origin: Option<(u64, u64)>,
        archive: bool,
        pending: bool,
        time: u64,
    },
    /// Every nth of the positions stored so far, clearing for this owner whether or not they are its.
    Clear {
        owner: usize,
        nth: usize,
        offset: usize,
        drop: bool,
    },
    Forget {
        session: u64,
        stanza: Option<u64>,
    },
    Commit,
    Fold {
        keep: u64,
    },
    Maintain,
    Restart,
    Rebuild,
}

fn op() -> impl Strategy<Value = Op> {
    let append = (
        0..3_usize,
        0..3_usize,
        prop::option::of((1..4_u64, 1..30_u64)),
        any::<bool>(),
        any::<bool>(),
        0..100_u64,
    )
        .prop_map(|(owner, peer, origin, archive, pending, time)| Op::Append {
            owner,
            peer,
            origin,
            archive,
            pending,
            time,
        });
    let clear = (
        0..3_usize,
        1..6_usize,
        0..6_usize,
        prop::bool::weighted(0.2),
    )
        .prop_map(|(owner, nth, offset, drop)| Op::Clear {
            owner,
            nth,
            offset,
            drop,
        });
    let forget = (1..4_u64, prop::option::of(1..30_u64))
        .prop_map(|(session, stanza)| Op::Forget { session, stanza });
    prop_oneof![
        60 => append,
        8 => clear,
        2 => forget,
        12 => Just(Op::Commit),
        6 => (0..25_u64).prop_map(|keep| Op::Fold { keep: keep.saturating_sub(8) }),
        4 => Just(Op::Maintain),
        1 => Just(Op::Restart),
        1 => Just(Op::Rebuild),
    ]
}

/// Both engines, and which position of the one is which of the other.
struct Pair {
    dir: tempfile::TempDir,
    model: Model,
    engine: Option<SqliteEngine>,
    writers: Option<[Box<dyn Writer>; 2]>,
    /// Model position -> SQLite position, for every row ever stored.
    positions: BTreeMap<u64, u64>,
    batches: [Vec<Write>; 2],
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::new();
        let engine = SqliteEngine::open(dir.path()).unwrap();
        let writers = Some([model.writer().unwrap(), engine.writer().unwrap()]);
        let (positions, batches) = (BTreeMap::new(), [Vec::new(), Vec::new()]);
        Pair {
            dir,
            model,
            engine: Some(engine),
            writers,
            positions,
            batches,
        }
    }

    fn engine(&self) -> &SqliteEngine {
        self.engine.as_ref().unwrap()
    }

    fn step(&mut self, op: &Op, number: usize) {
        match op {
            Op::Append {
                owner,
                peer,
                origin,
                archive,
                pending,
                time,
            } => {
                let append = Append {
                    owner: jid(OWNERS[*owner]),
                    peer: jid(PEERS[*peer]),
                    origin: origin.map(|(session, stanza)| Origin {
                        session,
                        stanza,
                        hash: stanza % 7,
                    }),
                    archive: *archive,
                    pending: *pending,
                    time_ms: 1_000 + time,
                    outgoing: *peer == 0,
                    payload: Bytes::from(format!("<m{number}/>")),
                    text: None,
                };
                for batch in &mut self.batches {
                    batch.push(Write::Append(append.clone()));
                }
            }
            Op::Clear {
                owner,
                nth,
                offset,
                drop,
            } => {
                let chosen = || self.positions.iter().skip(*offset).step_by(*nth);
                let positions = [
                    chosen().map(|pair| *pair.0).collect(),
                    chosen().map(|pair| *pair.1).collect(),
                ];
                for (batch, positions) in self.batches.iter_mut().zip(positions) {
                    let owner = jid(OWNERS[*owner]);
                    batch.push(if *drop {
                        Write::Drop { owner, positions }
                    } else {
                        Write::Ack { owner, positions }
                    });
                }
            }
            Op::Forget { session, stanza } => {
                let session = *session;
                for batch in &mut self.batches {
                    batch.push(match stanza {
                        Some(up_to_stanza) => Write::ForgetOrigins {
                            session,
                            up_to_stanza: *up_to_stanza,
                        },
                        None => Write::ForgetSession { session },
                    });
                }
            }
            Op::Commit => self.commit(),
            Op::Fold { keep } => self.engine().fold_keeping(*keep).unwrap(),
            Op::Maintain => {
                let [_, writer] = self.writers.as_mut().unwrap();
                while writer.maintain().unwrap() {}
            }
            Op::Restart | Op::Rebuild => self.restart(matches!(op, Op::Rebuild)),
        }
    }

    fn commit(&mut self) {
        let [model, disk] = self.writers.as_mut().unwrap();
        let on_model = model.commit(&self.batches[0]).unwrap();
        let on_disk = disk.commit(&self.batches[1]).unwrap();
        for pair in on_model.into_iter().zip(on_disk) {
            match pair {
                (Written::Stored { position }, Written::Stored { position: other }) => {
                    self.positions.insert(position, other);
                }
                (
                    Written::Replayed { position, pending },
                    Written::Replayed {
                        position: other,
                        pending: other_pending,
                    },
                ) => {
                    assert_eq!(self.positions.get(&position), Some(&other));
                    assert_eq!(pending, other_pending);
                }
                (model, disk) => assert_eq!(model, disk),
            }
        }
        self.batches = [Vec::new(), Vec::new()];
        self.compare();
    }

    fn restart(&mut self, rebuild: bool) {
        // Forgetting is in memory only: after a kill SQLite may still know what the model has
        // forgotten, which is allowed but would make the answers differ.
        for batch in &mut self.batches {
            batch.push(Write::RetainSessions { sessions: vec![] });
        }
        self.commit();
        self.writers = None;
        self.engine = None;
        self.model.kill();
        if rebuild {
            remove_index(self.dir.path());
        }
        self.engine = Some(SqliteEngine::open(self.dir.path()).unwrap());
        self.writers = Some([
            self.model.writer().unwrap(),
            self.engine().writer().unwrap(),
        ]);
        for batch in &mut self.batches {
            batch.push(Write::RetainSessions { sessions: vec![] });
        }
        self.commit();
    }

    fn compare(&self) {
        let mut model = self.model.reader().unwrap();
        let mut disk = self.engine().reader().unwrap();
        let same = |on_model: Vec<StoredRow>, on_disk: Vec<StoredRow>| {
            let on_model: Vec<StoredRow> = on_model
                .into_iter()
                .map(|row| StoredRow {
                    position: self.positions[&row.position],
                    ..row
                })
                .collect();
            assert_eq!(on_model, on_disk);
        };
        for owner in OWNERS.map(jid) {
            same(
                model.pending(&owner, 0, 1_000).unwrap(),
                disk.pending(&owner, 0, 1_000).unwrap(),
            );
            let middle = self
                .positions
                .iter()
                .nth(self.positions.len() / 2)
                .map_or((0, 0), |pair| (*pair.0, *pair.1));
            same(
                model.pending(&owner, middle.0, 3).unwrap(),
                disk.pending(&owner, middle.1, 3).unwrap(),
            );
            for peer in [None, Some(jid(PEERS[1]))] {
                for last in [false, true] {
                    for limit in [2, 1_000] {
                        let all = ArchiveQuery {
                            peer: peer.clone(),
                            last,
                            ..ArchiveQuery::new(owner.clone(), limit)
                        };
                        let mut both = |query: &dyn Fn(u64) -> ArchiveQuery| {
                            same(
                                model.archive(&query(middle.0)).unwrap(),
                                disk.archive(&query(middle.1)).unwrap(),
                            );
                        };
                        both(&|_| all.clone());
                        both(&|middle| ArchiveQuery {
                            after: Some(middle),
                            ..all.clone()
                        });
                        both(&|middle| ArchiveQuery {
                            before: Some(middle),
                            ..all.clone()
                        });
                        both(&|_| ArchiveQuery {
                            start_ms: Some(1_030),
                            end_ms: Some(1_060),
                            ..all.clone()
                        });
                    }
                }
            }
            assert_eq!(
                model.user_data(&owner).unwrap().pending,
                disk.user_data(&owner).unwrap().pending
            );
            for (on_model, on_disk) in &self.positions {
                let (one, two) = (
                    model.row(&owner, *on_model).unwrap(),
                    disk.row(&owner, *on_disk).unwrap(),
                );
                same(one.into_iter().collect(), two.into_iter().collect());
            }
        }
        assert_eq!(
            model.counts().unwrap().pending,
            disk.counts().unwrap().pending
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn model_and_sqlite_agree(ops in prop::collection::vec(op(), 1..250)) {
        let mut pair = Pair::new();
        for (number, op) in ops.iter().enumerate() {
            pair.step(op, number);
        }
        pair.commit();
        pair.restart(false);
        pair.restart(true);
    }
}
