//! Opening a database file: settings, numbered migrations, and SQLite's errors told as ours.
//!
//! Never: touches a file that a newer version wrote, or one that is not ours.

use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::StoreError;

/// `PRAGMA application_id` of our files ("Isth").
const APPLICATION_ID: i64 = 0x4973_7468;

/// Largest page cache of a writing connection, KiB.
const WRITER_CACHE_KIB: u32 = 16_384;

/// Largest page cache of a reading connection, KiB: there are many.
const READER_CACHE_KIB: u32 = 512;

/// One database file: its name, page size and the history of its schema.
pub(crate) struct Database {
    /// File name in the data directory.
    pub name: &'static str,
    /// Bytes per page, fixed when the file is made.
    pub page_bytes: u32,
    /// Migration number n (from 1) is at index n-1. Never change one that was released: append.
    pub migrations: &'static [&'static str],
}

/// Turns an error of SQLite into ours. Content of statements is never in it.
pub(crate) fn store_error(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = &error else {
        return match error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => StoreError::Corrupt { path, reason },
            _ => StoreError::Engine { path, reason },
        };
    };
    match failure.code {
        ErrorCode::DiskFull => StoreError::DiskFull { path },
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly => StoreError::Io { path, reason },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            StoreError::Corrupt { path, reason }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::InUse { path },
        _ => StoreError::Engine { path, reason },
    }
}

/// A connection with the path it goes to, for errors.
pub(crate) struct Db {
    pub conn: Connection,
    pub path: PathBuf,
}

impl Db {
    /// For `map_err`.
    pub fn error(&self, error: rusqlite::Error) -> StoreError {
        store_error(&self.path, error)
    }

    /// Runs statements without results.
    pub fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.execute_batch(sql).map_err(|e| self.error(e))
    }

    /// Ends a transaction that may or may not be open, undoing it.
    pub fn rollback(&self) {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    /// Moves what readers do not hold from the WAL to the database file; returns frames in the WAL
    /// and frames moved so far.
    pub fn checkpoint(&self) -> Result<(i64, i64), StoreError> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        self.conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], row)
            .map_err(|e| self.error(e))
    }

    /// Raw bytes of a key in the meta table.
    pub fn meta_blob(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        use rusqlite::OptionalExtension;
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE key = ?")
            .map_err(|e| self.error(e))?;
        statement
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(|e| self.error(e))
    }

    /// A number in the meta table; 0 when absent.
    pub fn meta_number(&self, key: &str) -> Result<u64, StoreError> {
        use rusqlite::OptionalExtension;
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE key = ?")
            .map_err(|e| self.error(e))?;
        let value: Option<i64> = statement
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(|e| self.error(e))?;
        Ok(value.unwrap_or(0) as u64)
    }

    /// Sets a value in the meta table.
    pub fn set_meta(&self, key: &str, value: impl rusqlite::ToSql) -> Result<(), StoreError> {
        let sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value";
        let mut statement = self.conn.prepare_cached(sql).map_err(|e| self.error(e))?;
        statement.execute((key, value)).map_err(|e| self.error(e))?;
        Ok(())
    }
}

impl Database {
    /// Where it is.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name)
    }

    /// Opens for writing, makes the file if need be, and brings its schema up to date. Call once per
    /// process and file before any other connection is made; [`connect`](Self::connect) opens more.
    pub fn open(&self, dir: &Path) -> Result<Db, StoreError> {
        let path = self.path(dir);
        check_size(&path)?;
        let db = self.connect(dir)?;
        let fresh: i64 = db
            .conn
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|e| db.error(e))?;
        let pragma = |name: &str| -> Result<i64, StoreError> {
            db.conn
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
                .map_err(|e| db.error(e))
        };
        let (version, application) = (pragma("user_version")?, pragma("application_id")?);
        if fresh == 0 && version == 0 {
            db.execute(&format!(
                "PRAGMA page_size={}; PRAGMA journal_mode=WAL;",
                self.page_bytes
            ))?;
        } else if application != APPLICATION_ID {
            return Err(StoreError::Corrupt {
                path,
                reason: "a SQLite database of some other program".into(),
            });
        }
        db.execute("PRAGMA journal_mode=WAL")?;
        migrate(&db, version, self.migrations)?;
        Ok(db)
    }

    /// A further writing connection to a file that has been opened.
    pub fn connect(&self, dir: &Path) -> Result<Db, StoreError> {
        let path = self.path(dir);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(|e| store_error(&path, e))?;
        let db = Db { conn, path };
        db.conn
            .busy_timeout(Duration::from_secs(5))
            .map_err(|e| db.error(e))?;
        db.execute(&format!(
            "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=-{WRITER_CACHE_KIB};
             PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
        ))?;
        Ok(db)
    }

    /// A reading connection for one thread.
    pub fn connect_reader(&self, dir: &Path) -> Result<Db, StoreError> {
        let path = self.path(dir);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(|e| store_error(&path, e))?;
        let db = Db { conn, path };
        db.conn
            .busy_timeout(Duration::from_secs(5))
            .map_err(|e| db.error(e))?;
        db.conn.set_prepared_statement_cache_capacity(64);
        db.execute(&format!(
            "PRAGMA query_only=ON; PRAGMA cache_size=-{READER_CACHE_KIB}; PRAGMA trusted_schema=OFF;"
        ))?;
        Ok(db)
    }
}

/// A file cut to nothing would be taken for a new one; one cut inside its first page gives a message
/// that helps nobody.
fn check_size(path: &Path) -> Result<(), StoreError> {
    let io = |e: std::io::Error| StoreError::Io {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io(e)),
        Ok(facts) if facts.len() >= 512 => check_page_count(path, facts.len()),
        Ok(facts) if facts.len() == 0 && !has_wal(path) => Ok(()),
        Ok(facts) => Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: format!("cut off at {} bytes", facts.len()),
        }),
    }
}

/// The header of a database says how many pages it has. (With a WAL beside it some may be there only:
/// SQLite then finds out for itself.)
fn check_page_count(path: &Path, length: u64) -> Result<(), StoreError> {
    use std::io::Read;
    if has_wal(path) {
        return Ok(());
    }
    let mut header = [0; 100];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(|e| StoreError::Io {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    let page_bytes = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        bytes => bytes,
    };
    let pages = u64::from(u32::from_be_bytes([
        header[28], header[29], header[30], header[31],
    ]));
    if header.starts_with(b"SQLite format 3\0") && pages * page_bytes > length {
        let reason = format!("cut off at {length} of {} bytes", pages * page_bytes);
        return Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason,
        });
    }
    Ok(())
}

fn has_wal(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(Path::new(&name)).is_ok_and(|facts| facts.len() > 0)
}

/// Runs the migrations the file has not seen, each with its number in one transaction.
fn migrate(db: &Db, version: i64, migrations: &[&str]) -> Result<(), StoreError> {
    let known = migrations.len() as i64;
    if version > known || version < 0 {
        return Err(StoreError::Newer {
            path: db.path.clone(),
            found: version,
            known,
        });
    }
    for (number, sql) in (1..).zip(migrations).skip(version as usize) {
        let run = db.execute(&format!(
            "BEGIN IMMEDIATE; {sql}; PRAGMA user_version={number}; PRAGMA application_id={APPLICATION_ID}; COMMIT;"
        ));
        if run.is_err() {
            db.rollback();
            return run;
        }
        tracing::debug!(
            file = db.path.display().to_string(),
            schema = number,
            "schema migrated"
        );
    }
    Ok(())
}
