//! The two threads of an open store: one folds the tail into the index, one keeps the WALs short.
//!
//! Never: on the writer's connection, or in its way for longer than a last small checkpoint.

use std::sync::Arc;
use std::time::Duration;

use super::index::Indexer;
use super::open::Db;
use super::shared::{FOLD_AT_ROWS, FOLD_KEEP_ROWS, Shared, Woken, Work, lock};
use crate::StoreError;

/// A row is folded, and if dead becomes deletable, after one to two of these at the latest.
const FOLD_TICK: Duration = Duration::from_secs(20);

/// Checkpoints happen at least this often, so that a copy of the files is nearly whole.
const CHECKPOINT_TICK: Duration = Duration::from_secs(30);

/// When fewer frames than this came during a checkpoint, the next is made with the writer waiting: a
/// few milliseconds.
const FINISH_FRAMES: i64 = 256;

/// Checkpoints tried before the writer has to wait for a longer one.
const CATCH_UP_ROUNDS: usize = 4;

/// A WAL with fewer frames than this in all need not be finished: it is short enough.
const SHORT_FRAMES: i64 = 256;

/// Runs until the store is closed.
pub(crate) fn index_thread(shared: Arc<Shared>, mut indexer: Indexer) {
    let mut at_last_tick = lock(&shared.tail).base();
    loop {
        let end = lock(&shared.tail).end();
        let result = match shared.wait(Work::Fold, FOLD_TICK) {
            Woken::Stop => return,
            Woken::Asked => {
                let (end, rows) = {
                    let tail = lock(&shared.tail);
                    (tail.end(), tail.len())
                };
                if rows < FOLD_AT_ROWS {
                    continue;
                }
                indexer.fold_to(end - 1 - FOLD_KEEP_ROWS as u64)
            }
            Woken::AskedToFold(to) => indexer.fold_to(to),
            Woken::Tick => {
                let result = indexer.fold_to(at_last_tick - 1);
                at_last_tick = end;
                result
            }
        };
        note_failure(&shared, result);
    }
}

/// One warning per change of state.
fn note_failure(shared: &Shared, result: Result<(), StoreError>) {
    let mut failure = lock(&shared.index_failure);
    match (result, &*failure) {
        (Ok(()), None) => {}
        (Ok(()), Some(_)) => {
            tracing::warn!("the index of messages is being written again");
            *failure = None;
        }
        (Err(error), before) => {
            if before.as_ref() != Some(&error) {
                tracing::warn!(%error, "the index of messages cannot be written; rows stay in memory");
            }
            *failure = Some(error);
        }
    }
}

/// Runs until the store is closed.
pub(crate) fn checkpoint_thread(shared: Arc<Shared>, log: Db, state: Db) {
    let mut failed = false;
    loop {
        if shared.wait(Work::Checkpoint, CHECKPOINT_TICK) == Woken::Stop {
            return;
        }
        let result = shorten(&shared, &log).and_then(|()| shorten(&shared, &state));
        if let Err(error) = &result
            && !failed
        {
            tracing::warn!(%error, "the write-ahead log cannot be moved to the database file");
        }
        failed = result.is_err();
    }
}

/// Moves the WAL's content to the file. While the writer goes on this never gets to the end, so the
/// last few frames are moved with the writer waiting; its next transaction then starts the WAL from
/// its beginning.
fn shorten(shared: &Shared, db: &Db) -> Result<(), StoreError> {
    // SQLite answers for the moment a checkpoint begins: what came meanwhile the next one tells.
    let (mut frames, _) = db.checkpoint()?;
    if frames < SHORT_FRAMES {
        return Ok(());
    }
    for _ in 0..CATCH_UP_ROUNDS {
        let (now, _) = db.checkpoint()?;
        if now - frames <= FINISH_FRAMES {
            break;
        }
        frames = now;
    }
    shared.with_gate_closed(|| db.checkpoint()).map(drop)
}
