//! The newest part of the log in memory: what the index thread has not folded into `index.db` yet.
//!
//! In: rows of each commit, from the writer. Out: rows to fold, to the index thread; rows of an
//! owner and marks cleared, to readers. Owns: the rows from `base` on, and marks cleared on older
//! rows by clear rows not yet folded. Never: holds payloads, or rows below the index's floor for
//! longer than a fold takes.
//!
//! Rows of one owner form a chain from the newest to the oldest, so that a reader walks only its
//! own. Rows live in chunks: dropping the oldest is taking a box off a queue.

use foldhash::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::jid::BareJid;

use super::record::{ARCHIVE, PENDING, TEXT};

/// Rows per chunk: how much one lock hold of the index thread covers.
pub(crate) const CHUNK_ROWS: usize = 4_096;

/// The pending mark was cleared.
const ACKED: u8 = 16;
/// Both marks were cleared.
const DROPPED: u8 = 32;

/// Marks cleared by one write: the row's owner must be `owner`.
#[derive(Clone, Debug)]
pub(crate) struct Clear {
    pub owner: BareJid,
    pub drop: bool,
    pub positions: Vec<u64>,
}

/// What a log row is.
#[derive(Debug)]
pub(crate) enum Body {
    Message {
        owner: BareJid,
        peer: BareJid,
    },
    Clear(Arc<[Clear]>),
    /// Carried origins.
    Origins,
    /// No such row any more (found when an index is rebuilt).
    Gone,
}

/// One log row without its payload.
#[derive(Debug)]
pub(crate) struct TailRow {
    pub body: Body,
    pub time_ms: u64,
    pub flags: u8,
    /// Position of the next older row of the same owner; below `base`: none.
    previous: u64,
    /// Position of the latest clear row that names this row; 0: none.
    cleared_by: u64,
}

impl TailRow {
    pub fn new(body: Body, time_ms: u64, flags: u8) -> Self {
        TailRow {
            body,
            time_ms,
            flags,
            previous: 0,
            cleared_by: 0,
        }
    }

    pub fn pending(&self) -> bool {
        self.flags & (PENDING | ACKED | DROPPED) == PENDING
    }

    /// Whether it is a message of this owner.
    pub fn is_of(&self, jid: &BareJid) -> bool {
        matches!(&self.body, Body::Message { owner, .. } if owner == jid)
    }

    /// Whether it has a text to be found by.
    pub fn has_text(&self) -> bool {
        self.flags & TEXT != 0
    }

    pub fn archived(&self) -> bool {
        self.flags & (ARCHIVE | DROPPED) == ARCHIVE
    }
}

/// A row as a reader gets it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub position: u64,
    pub pending: bool,
}

/// A row to be folded.
#[derive(Debug)]
pub(crate) struct FoldRow {
    pub position: u64,
    pub owner: BareJid,
    pub peer: BareJid,
    pub time_ms: u64,
    pub archive: bool,
    pub pending: bool,
    /// It has a text to be found by.
    pub text: bool,
}

/// What a slice of the tail means for the index.
#[derive(Debug, Default)]
pub(crate) struct FoldWork {
    pub rows: Vec<FoldRow>,
    /// Clear rows with their position, ascending.
    pub clears: Vec<(u64, Arc<[Clear]>)>,
    /// Positions that hold nothing worth keeping, as ascending ranges.
    pub dead: Vec<(u64, u64)>,
}

/// Adds a position to ascending ranges.
pub(crate) fn extend_ranges(ranges: &mut Vec<(u64, u64)>, position: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 + 1 == position => last.1 = position,
        _ => ranges.push((position, position)),
    }
}

/// Marks cleared on a row below `base` by a clear row at `by`.
#[derive(Clone, Copy, Debug)]
struct Cleared {
    by: u64,
    drop: bool,
}

/// See the module.
pub(crate) struct Tail {
    /// Position of the first row held.
    base: u64,
    /// Position after the last row: the next to be written.
    end: u64,
    /// Position of the first slot of the first chunk, at most `base`.
    chunk_base: u64,
    chunks: VecDeque<Vec<TailRow>>,
    /// Newest row of each owner.
    heads: HashMap<BareJid, u64>,
    /// Clear marks for rows below `base`, until the clear row is folded. Keyed with the owner who is
    /// said to be the row's: nobody clears the marks of another.
    cleared: HashMap<(u64, BareJid), Cleared>,
    /// Rows held that are pending.
    pending_count: u64,
}

impl Tail {
    /// An empty tail; the next row is `end`.
    pub fn new(end: u64) -> Self {
        Tail {
            base: end,
            end,
            chunk_base: end,
            chunks: VecDeque::new(),
            heads: HashMap::default(),
            cleared: HashMap::default(),
            pending_count: 0,
        }
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn len(&self) -> usize {
        (self.end - self.base) as usize
    }

    pub fn pending_count(&self) -> u64 {
        self.pending_count
    }

    fn slot(&self, position: u64) -> Option<(usize, usize)> {
        if position < self.base || position >= self.end {
            return None;
        }
        let offset = (position - self.chunk_base) as usize;
        Some((offset / CHUNK_ROWS, offset % CHUNK_ROWS))
    }

    /// The row at a position, if it is held.
    pub fn row(&self, position: u64) -> Option<&TailRow> {
        let (chunk, row) = self.slot(position)?;
        self.chunks.get(chunk)?.get(row)
    }

    fn row_mut(&mut self, position: u64) -> Option<&mut TailRow> {
        let (chunk, row) = self.slot(position)?;
        self.chunks.get_mut(chunk)?.get_mut(row)
    }

    /// Skips positions that hold nothing; only while empty.
    pub fn skip_to(&mut self, position: u64) {
        if self.len() == 0 && position > self.end {
            self.base = position;
            self.end = position;
            self.chunk_base = position;
            self.chunks.clear();
        }
    }

    /// Adds the next row. Marks it clears are applied at once.
    pub fn push(&mut self, mut row: TailRow) {
        let position = self.end;
        match &row.body {
            Body::Message { owner, .. } => {
                match self.heads.get_mut(owner) {
                    Some(head) => row.previous = std::mem::replace(head, position),
                    None => {
                        self.heads.insert(owner.clone(), position);
                    }
                }
                self.pending_count += u64::from(row.pending());
            }
            Body::Clear(clears) => {
                for clear in clears.clone().iter() {
                    self.clear(clear, position);
                }
            }
            Body::Origins | Body::Gone => {}
        }
        if self
            .chunks
            .back()
            .is_none_or(|chunk| chunk.len() == CHUNK_ROWS)
        {
            self.chunks.push_back(Vec::with_capacity(CHUNK_ROWS));
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(row);
        }
        self.end += 1;
    }

    fn clear(&mut self, clear: &Clear, by: u64) {
        for &position in &clear.positions {
            if position < self.base {
                // Whether there is such a row, and whose, is found out by readers and at the fold.
                let key = (position, clear.owner.clone());
                let entry = self
                    .cleared
                    .entry(key)
                    .or_insert(Cleared { by, drop: false });
                *entry = Cleared {
                    by,
                    drop: entry.drop || clear.drop,
                };
                continue;
            }
            let Some(row) = self.row_mut(position) else {
                continue;
            };
            if !row.is_of(&clear.owner) {
                continue;
            }
            let was_pending = row.pending();
            row.flags |= if clear.drop { DROPPED } else { ACKED };
            row.cleared_by = by;
            self.pending_count -= u64::from(was_pending);
        }
    }

    /// What later rows cleared of a row of `owner` that the index holds: (pending mark, both marks).
    pub fn marks_cleared(&self, position: u64, owner: &BareJid) -> (bool, bool) {
        if let Some(row) = self.row(position) {
            return (row.flags & (ACKED | DROPPED) != 0, row.flags & DROPPED != 0);
        }
        self.cleared
            .get(&(position, owner.clone()))
            .map_or((false, false), |cleared| (true, cleared.drop))
    }

    /// Positions below `base` with a mark cleared by rows not yet folded.
    pub fn cleared_positions(&self) -> impl Iterator<Item = &(u64, BareJid)> + '_ {
        self.cleared.keys()
    }

    /// Rows of an owner from `from` on, newest first, that `wanted` takes.
    pub fn rows_of(
        &self,
        owner: &BareJid,
        from: u64,
        mut wanted: impl FnMut(u64, &TailRow, &BareJid) -> bool,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let mut next = self.heads.get(owner).copied().unwrap_or(0);
        while next >= from {
            let Some(row) = self.row(next) else { break };
            if let Body::Message { peer, .. } = &row.body
                && wanted(next, row, peer)
            {
                found.push(Found {
                    position: next,
                    pending: row.pending(),
                });
            }
            next = row.previous;
        }
        found
    }

    /// Adds what rows `from..to` mean for an index whose floor will be `floor` (>= `to` - 1).
    pub fn fold_slice(&self, from: u64, to: u64, floor: u64, work: &mut FoldWork) {
        for position in from..to.min(self.end) {
            let Some(row) = self.row(position) else {
                continue;
            };
            match &row.body {
                Body::Message { owner, peer } => {
                    let archive = row.archived();
                    // An archived row acknowledged by a clear row above the floor is still folded as
                    // pending: that clear row, when its turn comes, must find it, for it is then
                    // known to be needed for a rebuild.
                    let pending = row.pending()
                        || (archive && row.flags & ACKED != 0 && row.cleared_by > floor);
                    if !archive && !pending {
                        extend_ranges(&mut work.dead, position);
                        continue;
                    }
                    let (owner, peer, time_ms) = (owner.clone(), peer.clone(), row.time_ms);
                    let text = archive && row.has_text();
                    work.rows.push(FoldRow {
                        position,
                        owner,
                        peer,
                        time_ms,
                        archive,
                        pending,
                        text,
                    });
                }
                Body::Clear(clears) => work.clears.push((position, clears.clone())),
                Body::Origins => extend_ranges(&mut work.dead, position),
                Body::Gone => {}
            }
        }
    }

    /// Lets go of rows up to the next chunk's end, but not above `floor`; what later rows cleared on
    /// them is remembered. Returns the chunk, to be dropped without the lock, and whether there is
    /// more to let go of.
    pub fn release(&mut self, floor: u64) -> (Option<Vec<TailRow>>, bool) {
        let chunk_end = self.chunk_base + CHUNK_ROWS as u64;
        let to = (floor + 1).min(chunk_end).min(self.end).max(self.base);
        let held = (self.base - self.chunk_base) as usize..(to - self.chunk_base) as usize;
        let rows = self
            .chunks
            .front()
            .and_then(|chunk| chunk.get(held))
            .unwrap_or_default();
        for (position, row) in (self.base..).zip(rows) {
            let Body::Message { owner, .. } = &row.body else {
                continue;
            };
            self.pending_count -= u64::from(row.pending());
            if row.cleared_by > floor {
                let cleared = Cleared {
                    by: row.cleared_by,
                    drop: row.flags & DROPPED != 0,
                };
                self.cleared.insert((position, owner.clone()), cleared);
            }
            if self.heads.get(owner) == Some(&position) {
                self.heads.remove(owner);
            }
        }
        self.base = to;
        let chunk = if self.base == chunk_end {
            self.chunk_base = chunk_end;
            self.chunks.pop_front()
        } else {
            None
        };
        (chunk, self.base <= floor && self.base < self.end)
    }

    /// After the last `release` of a fold: forgets marks cleared by rows that are now folded.
    pub fn released(&mut self, floor: u64) {
        self.cleared.retain(|_, cleared| cleared.by > floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).unwrap()
    }

    fn message(owner: &str, flags: u8) -> TailRow {
        TailRow::new(
            Body::Message {
                owner: jid(owner),
                peer: jid("p@x"),
            },
            1,
            flags,
        )
    }

    fn clear(owner: &str, drop: bool, positions: &[u64]) -> TailRow {
        let clear = Clear {
            owner: jid(owner),
            drop,
            positions: positions.to_vec(),
        };
        TailRow::new(Body::Clear(Arc::new([clear])), 0, 0)
    }

    fn pending_of(tail: &Tail, owner: &str) -> Vec<u64> {
        tail.rows_of(&jid(owner), 0, |_, row, _| row.pending())
            .iter()
            .map(|found| found.position)
            .collect()
    }

    #[test]
    fn rows_chain_by_owner_and_marks_clear_only_for_the_owner() {
        let mut tail = Tail::new(10);
        for owner in ["a@x", "b@x", "a@x", "a@x"] {
            tail.push(message(owner, PENDING));
        }
        assert_eq!(pending_of(&tail, "a@x"), [13, 12, 10]);
        tail.push(clear("b@x", false, &[11, 12, 99]));
        assert_eq!(pending_of(&tail, "a@x"), [13, 12, 10]);
        assert_eq!(pending_of(&tail, "b@x"), []);
        assert_eq!(tail.pending_count(), 3);
        assert_eq!(tail.marks_cleared(11, &jid("b@x")), (true, false));
    }

    #[test]
    fn what_is_cleared_during_a_fold_is_remembered_until_its_row_is_folded() {
        let mut tail = Tail::new(1);
        for _ in 0..3 {
            tail.push(message("a@x", PENDING | ARCHIVE));
        }
        let mut work = FoldWork::default();
        tail.fold_slice(1, 3, 2, &mut work);
        assert_eq!(
            work.rows
                .iter()
                .map(|row| (row.position, row.pending))
                .collect::<Vec<_>>(),
            [(1, true), (2, true)]
        );
        tail.push(clear("a@x", false, &[2]));
        assert!(!tail.release(2).1);
        tail.released(2);
        assert_eq!((tail.base(), tail.len(), tail.pending_count()), (3, 2, 1));
        assert_eq!(tail.marks_cleared(2, &jid("a@x")), (true, false));
        assert_eq!(tail.marks_cleared(1, &jid("a@x")), (false, false));
        tail.release(4);
        tail.released(4);
        assert_eq!(tail.marks_cleared(2, &jid("a@x")), (false, false));
        assert_eq!(tail.len(), 0);
    }

    #[test]
    fn acknowledged_rows_are_dead_and_never_reach_the_index() {
        let mut tail = Tail::new(1);
        for _ in 0..10_000 {
            tail.push(message("a@x", PENDING));
        }
        tail.push(clear("a@x", false, &(1..=10_000).collect::<Vec<_>>()));
        let mut work = FoldWork::default();
        tail.fold_slice(1, 9_001, 9_000, &mut work);
        assert!(work.rows.is_empty());
        assert_eq!(work.dead, [(1, 9_000)]);
        while tail.release(9_000).1 {}
        tail.released(9_000);
        assert_eq!((tail.base(), tail.pending_count()), (9_001, 0));
        tail.push(message("a@x", PENDING));
        assert_eq!(pending_of(&tail, "a@x"), [10_002]);
    }
}
