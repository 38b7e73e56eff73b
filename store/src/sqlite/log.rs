//! `log.db`: the append-only log, one row per message in commit order, and reading it back.

use rusqlite::OptionalExtension;
use xmpp::jid::BareJid;

use super::open::{Database, Db};
use super::origins::Origins;
use super::record::{self, Message, Record};
use super::tail::{Body, Clear, TailRow};
use crate::StoreError;

/// The file and its schema. Pages of 8 KiB hold some twenty messages: measured, 12 % less CPU per
/// message than 4 KiB, checkpoint included.
pub(crate) const LOG: Database = Database {
    name: "log.db",
    page_bytes: 8_192,
    migrations: &["
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE log (position INTEGER PRIMARY KEY, row BLOB NOT NULL);
    ", "
        -- From here on rows may say what text they are found by: an older version would take that for the stanza.
    "],
};

/// Adds a row.
pub(crate) const INSERT: &str = "INSERT INTO log VALUES (?, ?)";

/// Key in meta: at a start, origins are read from this position on. Rows below may be deleted.
pub(crate) const ORIGIN_FLOOR: &str = "origin_floor";

/// Key in meta of `log.db` and `index.db`: they belong together.
pub(crate) const LOG_ID: &str = "log_id";

/// Rows read at a time when the log is read back.
pub(crate) const READ_ROWS: usize = 8_192;

fn damaged(db: &Db, position: i64) -> StoreError {
    StoreError::Corrupt {
        path: db.path.clone(),
        reason: format!("row {position} cannot be read"),
    }
}

/// The last position written; 0 for an empty log.
pub(crate) fn last_position(db: &Db) -> Result<u64, StoreError> {
    let sql = "SELECT max(position) FROM log";
    let mut statement = db.conn.prepare_cached(sql).map_err(|e| db.error(e))?;
    let last: Option<i64> = statement
        .query_row([], |row| row.get(0))
        .map_err(|e| db.error(e))?;
    Ok(last.unwrap_or(0) as u64)
}

/// Calls `take` with the message at a position, if there is one.
pub(crate) fn with_message<T>(
    db: &Db,
    position: u64,
    take: impl FnOnce(&Message<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    let mut statement = db
        .conn
        .prepare_cached("SELECT row FROM log WHERE position = ?")
        .map_err(|e| db.error(e))?;
    let mut take = Some(take);
    let found = statement
        .query_row([position as i64], |row| {
            let blob = row.get_ref(0)?.as_blob().unwrap_or_default();
            Ok(match (record::decode(blob), take.take()) {
                (Some(Record::Message(message)), Some(take)) => Ok(Some(take(&message))),
                (Some(_), _) => Ok(None),
                (None, _) => Err(damaged(db, position as i64)),
            })
        })
        .optional()
        .map_err(|e| db.error(e))?;
    found.transpose().map(Option::flatten)
}

/// Length of the row at a position, if there is one: the message and some dozens of bytes. Its bytes are not read.
pub(crate) fn row_bytes(db: &Db, position: u64) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT length(row) FROM log WHERE position = ?";
    let mut statement = db.conn.prepare_cached(sql).map_err(|e| db.error(e))?;
    let found: Option<i64> = statement
        .query_row([position as i64], |row| row.get(0))
        .optional()
        .map_err(|e| db.error(e))?;
    Ok(found.map(|length| length as u64))
}

/// A row read back for the tail.
pub(crate) struct ReadRow {
    pub position: u64,
    pub row: TailRow,
}

/// Reads up to `READ_ROWS` rows from a position on: their origins into `origins` (if the row is at or
/// above `origin_floor`), the rows themselves returned.
pub(crate) fn read_back(
    db: &Db,
    from: u64,
    origin_floor: u64,
    origins: &mut Origins,
) -> Result<Vec<ReadRow>, StoreError> {
    let error = |e| db.error(e);
    let sql = "SELECT position, row FROM log WHERE position >= ? ORDER BY position LIMIT ?";
    let mut statement = db.conn.prepare_cached(sql).map_err(error)?;
    let mut rows = statement
        .query((from as i64, READ_ROWS as i64))
        .map_err(error)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(error)? {
        let position: i64 = row.get(0).map_err(error)?;
        let blob = row
            .get_ref(1)
            .map_err(error)?
            .as_blob()
            .map_err(|_| damaged(db, position))?;
        let record = record::decode(blob).ok_or_else(|| damaged(db, position))?;
        let origins = (position as u64 >= origin_floor).then_some(&mut *origins);
        let row =
            tail_row(record, position as u64, origins).ok_or_else(|| damaged(db, position))?;
        found.push(ReadRow {
            position: position as u64,
            row,
        });
    }
    Ok(found)
}

fn tail_row(record: Record<'_>, position: u64, origins: Option<&mut Origins>) -> Option<TailRow> {
    Some(match record {
        Record::Message(message) => {
            let (owner, peer) = (
                BareJid::parse(message.owner).ok()?,
                BareJid::parse(message.peer).ok()?,
            );
            if let (Some(origin), Some(origins)) = (message.origin, origins) {
                origins.insert(origin, owner.clone(), position, position);
            }
            TailRow::new(
                Body::Message { owner, peer },
                message.time_ms,
                message.flags,
            )
        }
        Record::Clear(clears) => {
            let clears = clears.into_iter().map(|clear| {
                let owner = BareJid::parse(clear.owner).ok()?;
                Some(Clear {
                    owner,
                    drop: clear.drop,
                    positions: clear.positions,
                })
            });
            TailRow::new(
                Body::Clear(clears.collect::<Option<Vec<_>>>()?.into()),
                0,
                0,
            )
        }
        Record::Origins(carried) => {
            if let Some(origins) = origins {
                for carried in carried {
                    let owner = BareJid::parse(carried.owner).ok()?;
                    origins.insert(carried.origin, owner, carried.position, position);
                }
            }
            TailRow::new(Body::Origins, 0, 0)
        }
    })
}
