//! `index.db`: who owns which row, filled from the tail in bulk; and the view of index and tail
//! together that every reader has.
//!
//! In: slices of the tail. Out: positions by owner, peer and time; dead ranges, to the writer.
//! Owns: `index.db`. Never: holds what cannot be made again from the log.
//!
//! ```text
//! jid      id <- address
//! pending  position -> owner, archived?      (only rows still pending when they were folded)
//! archive  owner, peer (0: any), first position -> block of (position, time) differences
//! dead     first -> last: ranges of log rows to be deleted
//! times    first position -> last position, least and greatest time of the rows in between
//! text     position -> words of archived rows (see `words`)
//! meta     floor: every log row up to here is folded
//! ```

use foldhash::HashMap;
use rusqlite::OptionalExtension;
use std::sync::Arc;
use xmpp::jid::BareJid;

use super::blocks;
use super::log;
use super::open::{Database, Db};
use super::record::ARCHIVE;
use super::shared::{DeadRange, Shared, lock};
use super::tail::{CHUNK_ROWS, Clear, FoldRow, FoldWork};
use super::words;
use crate::StoreError;

/// The file and its schema.
pub(crate) const INDEX: Database = Database {
    name: "index.db",
    page_bytes: 4_096,
    migrations: &["
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE jid (id INTEGER PRIMARY KEY, jid TEXT NOT NULL UNIQUE);
        CREATE TABLE pending (position INTEGER PRIMARY KEY, owner INTEGER NOT NULL, archive INTEGER NOT NULL);
        CREATE INDEX pending_owner ON pending (owner);
        CREATE TABLE archive (
            owner INTEGER NOT NULL, peer INTEGER NOT NULL, first INTEGER NOT NULL, block BLOB NOT NULL,
            PRIMARY KEY (owner, peer, first)
        ) WITHOUT ROWID;
        CREATE TABLE dead (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
    ", "
        CREATE TABLE times (
            first INTEGER PRIMARY KEY, last INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL
        );
        INSERT INTO times SELECT 0, value, 0, 9223372036854775807 FROM meta WHERE key = 'floor' AND value > 0;
    ", words::TABLE],
};

/// Positions that one row of `times` covers, about: what a query by time may have to look through too much.
const TIMES_SPAN: u64 = 65_536;

/// First and last position of the ranges that have rows of these times, ends included. `None`: there are none.
pub(crate) fn range_of_times(
    index: &Db,
    start: i64,
    end: i64,
) -> Result<Option<(u64, u64)>, StoreError> {
    let sql = "SELECT min(first), max(last) FROM times WHERE high >= ? AND low <= ?";
    let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
    let found: (Option<i64>, Option<i64>) = statement
        .query_row([start, end], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|e| index.error(e))?;
    Ok(match found {
        (Some(first), Some(last)) => Some((first as u64, last as u64)),
        _ => None,
    })
}

/// Key in meta.
pub(crate) const FLOOR: &str = "floor";
/// Key in meta.
pub(crate) const PENDING_COUNT: &str = "pending_count";

/// Addresses whose ids are remembered between folds: some 10 MB.
const IDS_MAX: usize = 131_072;

/// Rows folded in one transaction.
const FOLD_ROWS_MAX: u64 = 131_072;

/// The id of an address in the index.
pub(crate) fn id_of(index: &Db, jid: &BareJid) -> Result<Option<i64>, StoreError> {
    let mut statement = index
        .conn
        .prepare_cached("SELECT id FROM jid WHERE jid = ?")
        .map_err(|e| index.error(e))?;
    statement
        .query_row([jid.as_str()], |row| row.get(0))
        .optional()
        .map_err(|e| index.error(e))
}

/// (owner, archived) of a row in the pending table.
pub(crate) fn pending_row(index: &Db, position: u64) -> Result<Option<(i64, bool)>, StoreError> {
    let sql = "SELECT owner, archive FROM pending WHERE position = ?";
    let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    statement
        .query_row([position as i64], row)
        .optional()
        .map_err(|e| index.error(e))
}

/// Index and tail seen at one moment.
pub(crate) struct IndexView {
    pub shared: Arc<Shared>,
    pub index: Db,
}

impl IndexView {
    /// Runs `read` on one state of the index, given its floor. `read` takes from the tail what lies
    /// above the floor; it returns None if the tail no longer reaches down to it, and is run again.
    pub fn consistent<T>(
        &self,
        mut read: impl FnMut(u64) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            self.index.execute("BEGIN")?;
            let result = self.index.meta_number(FLOOR).and_then(&mut read);
            self.index.rollback();
            if let Some(result) = result? {
                return Ok(result);
            }
        }
    }

    /// Whether the row is this owner's and pending.
    pub fn is_pending(&self, owner: &BareJid, position: u64) -> Result<bool, StoreError> {
        self.consistent(|floor| {
            let indexed = match pending_row(&self.index, position)? {
                Some((id, _)) => id_of(&self.index, owner)? == Some(id),
                None => false,
            };
            let tail = lock(&self.shared.tail);
            if tail.base() > floor + 1 {
                return Ok(None);
            }
            if position > floor {
                return Ok(Some(
                    tail.row(position)
                        .is_some_and(|row| row.pending() && row.is_of(owner)),
                ));
            }
            Ok(Some(indexed && !tail.marks_cleared(position, owner).0))
        })
    }
}

/// The index thread's half: folds the tail into the file.
pub(crate) struct Indexer {
    shared: Arc<Shared>,
    index: Db,
    log: Db,
    ids: HashMap<BareJid, i64>,
}

impl Indexer {
    pub fn new(shared: Arc<Shared>, index: Db, log: Db) -> Self {
        index.conn.set_prepared_statement_cache_capacity(32);
        Indexer {
            shared,
            index,
            log,
            ids: HashMap::default(),
        }
    }

    /// Folds every row up to `to` (a position), in as many transactions as it takes.
    pub fn fold_to(&mut self, to: u64) -> Result<(), StoreError> {
        loop {
            let base = lock(&self.shared.tail).base();
            if to < base {
                return self.forget_swept();
            }
            let step = to.min(base + FOLD_ROWS_MAX - 1);
            self.fold(base, step)?;
            if self.shared.stopping() {
                return Ok(());
            }
        }
    }

    /// Nothing lies between the end of the tail, all folded, and a position: goes on from there.
    pub fn skip_to(&mut self, position: u64) -> Result<(), StoreError> {
        self.index.set_meta(FLOOR, position as i64 - 1)?;
        lock(&self.shared.tail).skip_to(position);
        Ok(())
    }

    fn fold(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        let mut work = FoldWork::default();
        for slice in (from..=to).step_by(CHUNK_ROWS) {
            let end = (slice + CHUNK_ROWS as u64).min(to + 1);
            lock(&self.shared.tail).fold_slice(slice, end, to, &mut work);
        }
        let swept = std::mem::take(&mut lock(&self.shared.sweep).done);
        let dead = match self.write(from, to, &work, &swept) {
            Ok(dead) => dead,
            Err(error) => {
                self.index.rollback();
                self.ids.clear();
                lock(&self.shared.sweep).done.extend(swept);
                return Err(error);
            }
        };
        let ranges = dead.into_iter().map(|(first, last)| DeadRange {
            key: first,
            first,
            last,
        });
        lock(&self.shared.sweep).queue.extend(ranges);
        loop {
            let (chunk, more) = lock(&self.shared.tail).release(to);
            drop(chunk);
            if !more {
                break;
            }
        }
        lock(&self.shared.tail).released(to);
        self.shared.room.notify_all();
        self.index.checkpoint().map(drop)
    }

    /// Deletes the records of ranges that are gone, when no fold does it on its way.
    fn forget_swept(&mut self) -> Result<(), StoreError> {
        let swept = std::mem::take(&mut lock(&self.shared.sweep).done);
        if swept.is_empty() {
            return Ok(());
        }
        let run = self.index.execute("BEGIN IMMEDIATE").and_then(|()| {
            self.delete_swept(&swept)?;
            self.index.execute("COMMIT")
        });
        if run.is_err() {
            self.index.rollback();
            lock(&self.shared.sweep).done.extend(swept);
        }
        run
    }

    fn delete_swept(&self, swept: &[u64]) -> Result<(), StoreError> {
        for key in swept {
            self.run("DELETE FROM dead WHERE first = ?", [*key as i64])?;
        }
        Ok(())
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        let mut statement = self
            .index
            .conn
            .prepare_cached(sql)
            .map_err(|e| self.index.error(e))?;
        statement.execute(params).map_err(|e| self.index.error(e))
    }

    fn write(
        &mut self,
        from: u64,
        to: u64,
        work: &FoldWork,
        swept: &[u64],
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        self.index.execute("BEGIN IMMEDIATE")?;
        self.delete_swept(swept)?;
        let mut pending_count = self.index.meta_number(PENDING_COUNT)? as i64;
        pending_count += self.write_rows(&work.rows)?;
        self.write_times(from, to, &work.rows)?;
        let mut folded = Folded {
            dead: work.dead.clone(),
            pending_removed: 0,
            drops: Vec::new(),
        };
        for (position, clears) in &work.clears {
            let mut keep = false;
            for clear in clears.iter() {
                keep |= self.fold_clear(from, &work.rows, clear, &mut folded)?;
            }
            if !keep {
                folded.dead.push((*position, *position));
            }
        }
        self.fold_drops(&mut folded)?;
        let dead = joined(folded.dead);
        for (first, last) in &dead {
            let sql = "INSERT INTO dead VALUES (?, ?) ON CONFLICT DO UPDATE SET last = max(last, excluded.last)";
            self.run(sql, (*first as i64, *last as i64))?;
        }
        self.index
            .set_meta(PENDING_COUNT, pending_count - folded.pending_removed)?;
        self.index.set_meta(FLOOR, to as i64)?;
        self.index.execute("COMMIT")?;
        Ok(dead)
    }

    /// Adds rows to the pending table and the archive; returns how many are pending.
    fn write_rows(&mut self, rows: &[FoldRow]) -> Result<i64, StoreError> {
        let mut pending = 0;
        let mut entries = Vec::new();
        let mut scratch = String::new();
        for row in rows {
            let owner = self.id(&row.owner)?;
            if row.pending {
                pending += 1;
                self.run(
                    "INSERT INTO pending VALUES (?, ?, ?)",
                    (row.position as i64, owner, row.archive),
                )?;
            }
            if row.text {
                // One that has gone meanwhile has no text any more.
                let text = log::with_message(&self.log, row.position, |message| {
                    let text = message.text.as_ref().map(|text| text.of(message.payload));
                    words::insert(
                        &self.index,
                        owner,
                        row.position,
                        text.unwrap_or_default(),
                        &mut scratch,
                    )
                })?;
                text.transpose()?;
            }
            if row.archive {
                let peer = self.id(&row.peer)?;
                entries.push(blocks::Entry {
                    owner,
                    peer: 0,
                    position: row.position,
                    time_ms: row.time_ms,
                });
                entries.push(blocks::Entry {
                    owner,
                    peer,
                    position: row.position,
                    time_ms: row.time_ms,
                });
            }
        }
        blocks::append(&self.index, &mut entries)?;
        Ok(pending)
    }

    /// Positions `from..=to` have rows of these times.
    fn write_times(&self, from: u64, to: u64, rows: &[FoldRow]) -> Result<(), StoreError> {
        let times = || rows.iter().filter(|row| row.archive).map(|row| row.time_ms);
        let (Some(low), Some(high)) = (times().min(), times().max()) else {
            return Ok(());
        };
        let clamp = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let sql = "UPDATE times SET last = ?1, low = min(low, ?2), high = max(high, ?3)
                   WHERE first = (SELECT max(first) FROM times) AND first > ?4";
        let too_old = to.saturating_sub(TIMES_SPAN);
        let values = (to as i64, clamp(low), clamp(high), too_old as i64);
        if self.run(sql, values)? == 0 {
            let values = (from as i64, to as i64, clamp(low), clamp(high));
            self.run("INSERT INTO times VALUES (?, ?, ?, ?)", values)?;
        }
        Ok(())
    }

    fn id(&mut self, jid: &BareJid) -> Result<i64, StoreError> {
        if let Some(id) = self.ids.get(jid) {
            return Ok(*id);
        }
        let id = match id_of(&self.index, jid)? {
            Some(id) => id,
            None => {
                self.run("INSERT INTO jid (jid) VALUES (?)", [jid.as_str()])?;
                self.index.conn.last_insert_rowid()
            }
        };
        if self.ids.len() >= IDS_MAX {
            self.ids.clear();
        }
        self.ids.insert(jid.to_compact(), id);
        Ok(id)
    }

    /// Carries out one group of a clear row. True if the clear row must stay in the log: it tells of
    /// an archived row that it is no longer pending, which a rebuilt index must learn.
    fn fold_clear(
        &mut self,
        from: u64,
        rows: &[FoldRow],
        clear: &Clear,
        folded: &mut Folded,
    ) -> Result<bool, StoreError> {
        let mut keep = false;
        let owner = self.id(&clear.owner)?;
        for &position in &clear.positions {
            if position >= from {
                // Folded just now with the mark cleared already.
                let row = rows
                    .binary_search_by_key(&position, |row| row.position)
                    .ok()
                    .map(|at| &rows[at]);
                keep |=
                    !clear.drop && row.is_some_and(|row| row.archive && row.owner == clear.owner);
                continue;
            }
            let pending = pending_row(&self.index, position)?.filter(|(of, _)| *of == owner);
            if let Some((_, archive)) = pending {
                self.run("DELETE FROM pending WHERE position = ?", [position as i64])?;
                folded.pending_removed += 1;
                if !archive {
                    folded.dead.push((position, position));
                }
                keep |= archive && !clear.drop;
            }
            if clear.drop {
                self.fold_drop(owner, &clear.owner, position, folded)?;
            }
        }
        Ok(keep)
    }

    fn fold_drop(
        &mut self,
        owner: i64,
        owner_jid: &BareJid,
        position: u64,
        folded: &mut Folded,
    ) -> Result<(), StoreError> {
        let peer = log::with_message(&self.log, position, |message| {
            let archived = message.flags & ARCHIVE != 0 && message.owner == owner_jid.as_str();
            archived
                .then(|| BareJid::parse(message.peer).ok())
                .flatten()
        })?;
        let Some(peer) = peer.flatten() else {
            return Ok(());
        };
        let Some(peer) = id_of(&self.index, &peer)? else {
            return Ok(());
        };
        for peer in [0, peer] {
            folded.drops.push(blocks::Entry {
                owner,
                peer,
                position,
                time_ms: 0,
            });
        }
        Ok(())
    }

    fn fold_drops(&self, folded: &mut Folded) -> Result<(), StoreError> {
        for entry in blocks::remove(&self.index, &mut folded.drops)? {
            if entry.peer == 0 {
                words::remove(&self.index, entry.position)?;
                folded.dead.push((entry.position, entry.position));
            }
        }
        Ok(())
    }
}

/// What clear rows come to.
struct Folded {
    dead: Vec<(u64, u64)>,
    pending_removed: i64,
    drops: Vec<blocks::Entry>,
}

/// Ranges in ascending order, neighbours joined.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if before.1 + 1 >= first => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// Dead ranges left from an earlier run.
pub(crate) fn dead_ranges(index: &Db) -> Result<Vec<DeadRange>, StoreError> {
    let sql = "SELECT first, last FROM dead ORDER BY first";
    let mut statement = index.conn.prepare(sql).map_err(|e| index.error(e))?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
    });
    rows.map_err(|e| index.error(e))?
        .map(|row| {
            row.map(|(first, last)| DeadRange {
                key: first,
                first,
                last,
            })
            .map_err(|e| index.error(e))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn ranges_are_sorted_and_joined() {
        assert_eq!(
            joined(vec![(9, 9), (1, 3), (4, 4), (6, 7), (7, 8)]),
            [(1, 4), (6, 9)]
        );
        assert_eq!(joined(vec![]), []);
    }
}
