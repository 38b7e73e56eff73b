//! A copy of an open store, and a look at a copy before it is trusted.

use std::path::Path;

use super::index::INDEX;
use super::log::{LOG, last_position};
use super::open::{Database, Db};
use super::state::STATE;
use crate::StoreError;

/// Copies `log.db` and `state.db` of an open store into `to`, an empty or new directory. The writer
/// goes on meanwhile. The copy of each file is of one moment; the index is not copied, it is made
/// again at the first start. The copy keeps the store id: give it a new one where it is restored
/// (`restored`).
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let io = |e: std::io::Error| StoreError::Io {
        path: to.to_owned(),
        reason: e.to_string(),
    };
    std::fs::create_dir_all(to).map_err(io)?;
    // The log first: what the state refers to may then be newer than the log, never older.
    for database in [&LOG, &STATE] {
        let target = database.path(to);
        if target.exists() {
            return Err(StoreError::InUse { path: target });
        }
        let source = database.connect_reader(from)?;
        source.execute("PRAGMA query_only=OFF")?;
        let sql = "VACUUM INTO ?";
        source
            .conn
            .execute(sql, [target.to_string_lossy()])
            .map_err(|e| source.error(e))?;
        std::fs::File::open(&target)
            .and_then(|file| file.sync_all())
            .map_err(io)?;
    }
    std::fs::File::open(to)
        .and_then(|dir| dir.sync_all())
        .map_err(io)
}

/// Reads every page of the store in a directory that is not open, and says what is wrong with it.
pub(crate) fn verify(dir: &Path) -> Result<(), StoreError> {
    for database in [&LOG, &STATE, &INDEX] {
        if database.name == INDEX.name && !database.path(dir).exists() {
            continue;
        }
        check(database, dir)?;
    }
    Ok(())
}

fn check(database: &Database, dir: &Path) -> Result<(), StoreError> {
    let path = database.path(dir);
    if !path.exists() {
        return Err(StoreError::Corrupt {
            path,
            reason: "the file is missing".into(),
        });
    }
    let db: Db = database.open(dir)?;
    let verdict: String = db
        .conn
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|e| db.error(e))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt {
            path,
            reason: verdict,
        });
    }
    if database.name == LOG.name {
        last_position(&db)?;
    }
    Ok(())
}
