//! The archive index: positions of an owner's rows in blocks of differences, about five bytes a row,
//! one list for everything and one per peer. A busy pair costs one row of the table per fold, not
//! one per message.

use rusqlite::OptionalExtension;

use super::open::Db;
use super::record::{Cursor, put_number, put_signed};
use crate::StoreError;

/// A block is ended when it is longer than this.
const BLOCK_BYTES: usize = 1_024;

/// One archived row in one list (`peer` 0: the list of everything).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub owner: i64,
    pub peer: i64,
    pub position: u64,
    pub time_ms: u64,
}

/// Position and time of one row in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub position: u64,
    pub time_ms: u64,
}

struct Builder {
    first: u64,
    last: Item,
    bytes: Vec<u8>,
}

impl Builder {
    fn new(first: u64) -> Self {
        Builder {
            first,
            last: Item {
                position: first,
                time_ms: 0,
            },
            bytes: Vec::new(),
        }
    }

    fn resume(first: u64, bytes: Vec<u8>) -> Option<Self> {
        let last = *decode(first, &bytes)?.last()?;
        Some(Builder { first, last, bytes })
    }

    fn push(&mut self, item: Item) {
        put_number(&mut self.bytes, item.position - self.last.position);
        put_signed(
            &mut self.bytes,
            item.time_ms.wrapping_sub(self.last.time_ms) as i64,
        );
        self.last = item;
    }
}

/// The rows of a block, ascending by position; None if the bytes are not a block.
pub(crate) fn decode(first: u64, block: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::with_capacity(block.len() / 4);
    let mut cursor = Cursor::new(block);
    let mut item = Item {
        position: first,
        time_ms: 0,
    };
    while !cursor.is_empty() {
        item.position = item.position.checked_add(cursor.number()?)?;
        item.time_ms = item.time_ms.wrapping_add(cursor.signed()? as u64);
        items.push(item);
    }
    Some(items)
}

pub(crate) fn damaged(db: &Db) -> StoreError {
    StoreError::Corrupt {
        path: db.path.clone(),
        reason: "a block of the archive index cannot be read".into(),
    }
}

fn execute(db: &Db, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
    let mut statement = db.conn.prepare_cached(sql).map_err(|e| db.error(e))?;
    statement.execute(params).map(drop).map_err(|e| db.error(e))
}

fn put(db: &Db, owner: i64, peer: i64, first: u64, block: &[u8]) -> Result<(), StoreError> {
    execute(
        db,
        "INSERT OR REPLACE INTO archive VALUES (?, ?, ?, ?)",
        (owner, peer, first as i64, block),
    )
}

/// The last block of a list that starts at or below a position.
pub(crate) fn block_at(
    db: &Db,
    owner: i64,
    peer: i64,
    position: u64,
) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let sql = "SELECT first, block FROM archive WHERE owner = ? AND peer = ? AND first <= ?
               ORDER BY first DESC LIMIT 1";
    let mut statement = db.conn.prepare_cached(sql).map_err(|e| db.error(e))?;
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
    statement
        .query_row((owner, peer, position), row)
        .optional()
        .map_err(|e| db.error(e))
}

/// The first block of a list that starts above a position.
pub(crate) fn block_after(
    db: &Db,
    owner: i64,
    peer: i64,
    position: u64,
) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let sql = "SELECT first, block FROM archive WHERE owner = ? AND peer = ? AND first > ?
               ORDER BY first LIMIT 1";
    let mut statement = db.conn.prepare_cached(sql).map_err(|e| db.error(e))?;
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
    statement
        .query_row((owner, peer, position), row)
        .optional()
        .map_err(|e| db.error(e))
}

/// Adds entries, all later than what their lists hold.
pub(crate) fn append(db: &Db, entries: &mut [Entry]) -> Result<(), StoreError> {
    entries.sort_unstable();
    for list in entries.chunk_by(|a, b| (a.owner, a.peer) == (b.owner, b.peer)) {
        let (owner, peer) = (list[0].owner, list[0].peer);
        let mut builder = match block_at(db, owner, peer, u64::MAX)? {
            Some((first, block)) if block.len() < BLOCK_BYTES => {
                Builder::resume(first, block).ok_or_else(|| damaged(db))?
            }
            _ => Builder::new(list[0].position),
        };
        for entry in list {
            if builder.bytes.len() >= BLOCK_BYTES {
                put(db, owner, peer, builder.first, &builder.bytes)?;
                builder = Builder::new(entry.position);
            }
            builder.push(Item {
                position: entry.position,
                time_ms: entry.time_ms,
            });
        }
        put(db, owner, peer, builder.first, &builder.bytes)?;
    }
    Ok(())
}

/// Removes entries (their times do not matter); returns those that were there.
pub(crate) fn remove(db: &Db, entries: &mut Vec<Entry>) -> Result<Vec<Entry>, StoreError> {
    entries.sort_unstable();
    entries.dedup();
    let mut removed = Vec::new();
    let mut rest = &entries[..];
    while let Some(entry) = rest.first() {
        let (owner, peer) = (entry.owner, entry.peer);
        let Some((first, block)) = block_at(db, owner, peer, entry.position)? else {
            rest = &rest[1..];
            continue;
        };
        let items = decode(first, &block).ok_or_else(|| damaged(db))?;
        let last = items.last().map_or(first, |item| item.position);
        // All entries that fall into this block at once.
        let same =
            |other: &&Entry| (other.owner, other.peer) == (owner, peer) && other.position <= last;
        let count = rest.iter().take_while(same).count().max(1);
        let (here, later) = rest.split_at(count);
        rest = later;
        let gone = |item: &Item| {
            here.binary_search_by_key(&item.position, |entry| entry.position)
                .is_ok()
        };
        removed.extend(items.iter().filter(|item| gone(item)).map(|item| Entry {
            position: item.position,
            ..*entry
        }));
        let mut kept = items.iter().filter(|item| !gone(item)).peekable();
        execute(
            db,
            "DELETE FROM archive WHERE owner = ? AND peer = ? AND first = ?",
            (owner, peer, first as i64),
        )?;
        if let Some(next) = kept.peek() {
            let mut builder = Builder::new(next.position);
            kept.for_each(|item| builder.push(*item));
            put(db, owner, peer, builder.first, &builder.bytes)?;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::index::INDEX;

    fn all(db: &Db, owner: i64, peer: i64) -> Vec<u64> {
        let mut found = Vec::new();
        let mut after = 0;
        while let Some((first, block)) = block_after(db, owner, peer, after).unwrap() {
            found.extend(
                decode(first, &block)
                    .unwrap()
                    .iter()
                    .map(|item| item.position),
            );
            after = first;
        }
        found
    }

    #[test]
    fn what_is_appended_is_found_and_what_is_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let db = INDEX.open(dir.path()).unwrap();
        let entry = |position: u64| Entry {
            owner: 1,
            peer: 2,
            position,
            time_ms: 1_700_000_000_000 + position * 7,
        };
        for batch in 0..10 {
            let mut entries: Vec<Entry> =
                (batch * 100 + 1..=batch * 100 + 100).map(entry).collect();
            entries.push(Entry {
                owner: 1,
                peer: 3,
                position: batch * 100 + 50,
                time_ms: 0,
            });
            append(&db, &mut entries).unwrap();
        }
        assert_eq!(all(&db, 1, 2), (1..=1_000).collect::<Vec<_>>());
        assert_eq!(all(&db, 1, 3).len(), 10);
        let (first, block) = block_at(&db, 1, 2, 500).unwrap().unwrap();
        let item = decode(first, &block)
            .unwrap()
            .into_iter()
            .find(|item| item.position == 500)
            .unwrap();
        assert_eq!(item.time_ms, entry(500).time_ms);
        let mut gone: Vec<Entry> = (1..=1_000).filter(|p| p % 3 != 0).map(entry).collect();
        gone.push(entry(5_000));
        assert_eq!(remove(&db, &mut gone).unwrap().len(), 667);
        assert_eq!(
            all(&db, 1, 2),
            (1..=1_000).filter(|p| p % 3 == 0).collect::<Vec<_>>()
        );
        remove(&db, &mut (1..=1_000).map(entry).collect()).unwrap();
        assert_eq!(all(&db, 1, 2), []);
        assert_eq!(all(&db, 1, 3).len(), 10);
    }
}
