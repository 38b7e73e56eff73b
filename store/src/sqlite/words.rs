//! Full-text search in `index.db`: an FTS5 table whose terms begin with their owner, so that a question walks what its owner has
//! written and received and nothing else, whatever others have.
//!
//! In: texts of archived rows, as they are folded; words. Out: positions of an owner's rows, in order.
//! Owns: the table `text`. Never: keeps a text: the table is contentless, its row ids are positions.
//!
//! A term is the id of the owner, `_`, and a folded word (`crate::search`). Measured with a million messages of twelve words of 10,000
//! owners: with the owner as a column of its own, which makes a smaller index, a word's beginning is looked up among everybody's
//! words, in a second; so it is in less than a millisecond. Segments are merged later than by default: nearly twice the rows a second,
//! and as quick to ask.

use std::fmt::Write as _;

use super::open::Db;
use crate::StoreError;
use crate::search;

/// The table. Only which rows have a term is kept (`detail=none`), not where and how often; rows can be deleted.
pub(crate) const TABLE: &str = "
    CREATE VIRTUAL TABLE text USING fts5(
        words, content='', contentless_delete=1, detail='none', tokenize=\"ascii tokenchars '_'\"
    );
    INSERT INTO text (text, rank) VALUES ('automerge', 16);
    INSERT INTO text (text, rank) VALUES ('crisismerge', 64);
";

/// The terms of a text, as one document.
fn document(owner: i64, text: &str, out: &mut String) {
    out.clear();
    for word in search::words(text, search::WORDS_MAX) {
        let _ = write!(out, "{owner:x}_{word} ");
    }
}

/// Remembers what a row is found by.
pub(crate) fn insert(
    index: &Db,
    owner: i64,
    position: u64,
    text: &str,
    scratch: &mut String,
) -> Result<(), StoreError> {
    document(owner, text, scratch);
    if scratch.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO text (rowid, words) VALUES (?, ?)";
    let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
    statement
        .execute((position as i64, scratch.as_str()))
        .map(drop)
        .map_err(|e| index.error(e))
}

/// The row is found no more. Nothing happens if it never was.
pub(crate) fn remove(index: &Db, position: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM text WHERE rowid = ?";
    let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
    statement
        .execute([position as i64])
        .map(drop)
        .map_err(|e| index.error(e))
}

/// What FTS5 is asked. Words have only letters and digits, so nothing in them is its syntax.
fn expression(owner: i64, words: &[String]) -> String {
    let mut out = String::new();
    for word in words {
        let and = if out.is_empty() { "" } else { " AND " };
        let star = if search::is_prefix(word) { " *" } else { "" };
        let _ = write!(out, "{and}\"{owner:x}_{word}\"{star}");
    }
    out
}

/// The rows of an owner that have all these words, in one order or the other.
pub(crate) struct Hits {
    expression: String,
    last: bool,
    /// Above this, and below that.
    above: i64,
    below: i64,
}

impl Hits {
    pub fn new(
        owner: i64,
        words: &[String],
        above: Option<u64>,
        below: Option<u64>,
        last: bool,
    ) -> Self {
        let clamp = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
        Hits {
            expression: expression(owner, words),
            last,
            above: above.map_or(0, clamp),
            below: below.map_or(i64::MAX, clamp),
        }
    }

    /// Shows the positions to `take` until it has enough (false). To begin costs most: beginnings of words are gathered then.
    pub fn walk(
        &self,
        index: &Db,
        mut take: impl FnMut(u64) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let sql = match self.last {
            true => {
                "SELECT rowid FROM text WHERE text MATCH ? AND rowid > ? AND rowid < ? ORDER BY rowid DESC"
            }
            false => {
                "SELECT rowid FROM text WHERE text MATCH ? AND rowid > ? AND rowid < ? ORDER BY rowid"
            }
        };
        let error = |e| index.error(e);
        let mut statement = index.conn.prepare_cached(sql).map_err(error)?;
        let values = (self.expression.as_str(), self.above, self.below);
        let mut rows = statement.query(values).map_err(error)?;
        while let Some(row) = rows.next().map_err(error)? {
            let position: i64 = row.get(0).map_err(error)?;
            if !take(position as u64)? {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::index::INDEX;

    fn found(index: &Db, owner: i64, text: &str, last: bool) -> Vec<u64> {
        let words = search::question(text).expect("words");
        let hits = Hits::new(owner, &words, None, None, last);
        let mut all = Vec::new();
        let take = |position| {
            all.push(position);
            Ok(true)
        };
        hits.walk(index, take).unwrap();
        all
    }

    #[test]
    fn rows_are_found_by_their_owner_only_and_until_removed() {
        let dir = tempfile::tempdir().unwrap();
        let index = INDEX.open(dir.path()).unwrap();
        let mut scratch = String::new();
        for position in 1..=1_000 {
            // Owner 1 has every other row; the ids 1, 0x11 and 0x1_ begin alike.
            let owner = [1, 17][position as usize % 2];
            let text = format!("Número {position} of many");
            insert(&index, owner, position, &text, &mut scratch).unwrap();
        }
        insert(&index, 1, 1_001, "!?", &mut scratch).unwrap();
        let of_one: Vec<u64> = (1..=500).map(|n| n * 2).collect();
        assert_eq!(found(&index, 1, "numero", false), of_one);
        let backwards: Vec<u64> = of_one.iter().rev().copied().collect();
        assert_eq!(found(&index, 1, "many NUM", true), backwards);
        assert_eq!(found(&index, 17, "3", false), [3]);
        assert_eq!(
            found(&index, 17, "33", false),
            [33, 331, 333, 335, 337, 339]
        );
        for position in 1..=999 {
            remove(&index, position).unwrap();
        }
        remove(&index, 5_000).unwrap();
        assert_eq!(found(&index, 1, "many", false), [1_000]);
        assert_eq!(found(&index, 17, "many", false), []);
    }
}
