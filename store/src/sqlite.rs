//! The embedded engine: `log.db`, `index.db`, `state.db` and the session files of one directory.
//!
//! ```text
//! shards -> writer thread -> log.db (append)  -> tail (memory) -> index thread -> index.db
//!                        \-> state.db                \                              /
//!                                                     `------ readers ------------'
//! ```
//! In: a directory. Out: a writer, readers, a session store. Owns: the lock file, the background
//! threads. Never: shares a connection between threads.

mod background;
mod backup;
mod blocks;
mod index;
mod keys;
mod log;
mod open;
mod origins;
mod reader;
mod record;
mod shared;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod tokens;
mod words;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use self::background::{checkpoint_thread, index_thread};
use self::index::{FLOOR, INDEX, IndexView, Indexer};
use self::log::{LOG, LOG_ID, ORIGIN_FLOOR};
use self::open::Db;
use self::origins::Origins;
use self::reader::SqliteReader;
use self::shared::{FOLD_AT_ROWS, Shared, Work, lock};
use self::state::{STATE, StateReader, StateWriter};
use self::tail::{Body, Tail, TailRow};
use self::writer::SqliteWriter;
use crate::StoreError;
use crate::position::PositionKey;
use crate::sessions::FileSessions;
use crate::traits::{Engine, Reader, SessionStore, Writer};
use crate::types::StoreId;

/// Keys in meta of `state.db`.
const STORE_ID: &str = "store_id";
const SECRET: &str = "secret";
const EPOCH: &str = "epoch";

/// Names of the store and secrets made with it.
struct Identity {
    store_id: StoreId,
    position_secret: [u8; 16],
    login_secret: [u8; 32],
}

/// An open store on disk. Dropping it ends the background threads; drop the writer before.
pub struct SqliteEngine {
    dir: PathBuf,
    identity: Identity,
    shared: Arc<Shared>,
    /// For the epoch only.
    state: Mutex<Db>,
    /// Origins and their floor, read at the start, until the writer takes them.
    start: Mutex<Option<(Origins, u64)>>,
    sessions_given: AtomicBool,
    threads: Vec<JoinHandle<()>>,
    /// Held while the store is open: one process per directory.
    _lock: File,
}

impl std::fmt::Debug for SqliteEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteEngine")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn lock_dir(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| io_error(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error(&path, &error)),
    }
}

fn random<const N: usize>(path: &Path) -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Io {
        path: path.to_owned(),
        reason: format!("no random numbers: {e}"),
    })?;
    Ok(bytes)
}

impl Identity {
    fn load(state: &Db) -> Result<Self, StoreError> {
        let secret = match state.meta_blob(SECRET)? {
            Some(secret) => secret,
            None => {
                let secret: [u8; 48] = random(&state.path)?;
                state.execute("BEGIN IMMEDIATE")?;
                state.set_meta(STORE_ID, random::<16>(&state.path)?)?;
                state.set_meta(SECRET, secret)?;
                state.execute("COMMIT")?;
                secret.to_vec()
            }
        };
        let damaged = || StoreError::Corrupt {
            path: state.path.clone(),
            reason: "the identity is damaged".into(),
        };
        let store_id = state
            .meta_blob(STORE_ID)?
            .and_then(|id| id.try_into().ok())
            .ok_or_else(damaged)?;
        let secret: [u8; 48] = secret.try_into().map_err(|_| damaged())?;
        let (position_secret, login_secret) = secret.split_at(16);
        Ok(Identity {
            store_id: StoreId(store_id),
            position_secret: position_secret.try_into().map_err(|_| damaged())?,
            login_secret: login_secret.try_into().map_err(|_| damaged())?,
        })
    }
}

/// Opens the index; one that is damaged, missing or of another log is made anew, to be filled from
/// the log.
fn open_index(dir: &Path, log_id: &[u8], last: u64) -> Result<Db, StoreError> {
    let why = match INDEX
        .open(dir)
        .and_then(|db| Ok((db.meta_blob(LOG_ID)?, db.meta_number(FLOOR)?, db)))
    {
        Ok((Some(id), floor, db)) if id == log_id && floor <= last => return Ok(db),
        Ok((None, 0, db)) => {
            db.set_meta(LOG_ID, log_id)?;
            return Ok(db);
        }
        Ok(_) => "it does not belong to this log".to_owned(),
        Err(error @ StoreError::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::warn!(why, "the index of messages is made again from the log");
    let path = INDEX.path(dir);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error(&path, &e)),
        }
    }
    let db = INDEX.open(dir)?;
    db.set_meta(LOG_ID, log_id)?;
    Ok(db)
}

impl SqliteEngine {
    /// Opens the store in a directory, made if need be.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if a process has it open, [`StoreError::Newer`] if a newer version wrote
    /// it, [`StoreError::Corrupt`] if a file is damaged, [`StoreError::Io`] if the directory cannot be
    /// used. Time: independent of what is stored, unless the index must be rebuilt.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| io_error(dir, &e))?;
        let lock_file = lock_dir(dir)?;
        let state = STATE.open(dir)?;
        let identity = Identity::load(&state)?;
        let log_db = LOG.open(dir)?;
        let log_id = match log_db.meta_blob(LOG_ID)? {
            Some(id) => id,
            None => {
                let id: [u8; 16] = random(&log_db.path)?;
                log_db.set_meta(LOG_ID, id)?;
                id.to_vec()
            }
        };
        let last = log::last_position(&log_db)?;
        let index_db = open_index(dir, &log_id, last)?;
        let floor = index_db.meta_number(FLOOR)?;
        let shared = Arc::new(Shared::new(Tail::new(floor + 1)));
        lock(&shared.sweep)
            .queue
            .extend(index::dead_ranges(&index_db)?);
        let mut indexer = Indexer::new(shared.clone(), index_db, LOG.connect_reader(dir)?);
        let origin_floor = log_db.meta_number(ORIGIN_FLOOR)?;
        let origins = read_tail(&shared, &mut indexer, &log_db, floor, origin_floor)?;

        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|e| io_error(dir, &e))
        };
        let (of_index, of_checkpoint) = (shared.clone(), shared.clone());
        let checkpoint_state = STATE.connect(dir)?;
        let threads = vec![
            spawn(
                "store-index",
                Box::new(move || index_thread(of_index, indexer)),
            )?,
            spawn(
                "store-checkpoint",
                Box::new(move || checkpoint_thread(of_checkpoint, log_db, checkpoint_state)),
            )?,
        ];
        Ok(SqliteEngine {
            dir: dir.to_owned(),
            identity,
            shared,
            state: Mutex::new(state),
            start: Mutex::new(Some((origins, origin_floor))),
            sessions_given: AtomicBool::new(false),
            threads,
            _lock: lock_file,
        })
    }

    /// Waits until every row committed so far is in the index file. A server has no need of it; tests
    /// do, to see what lies on the other side of the index thread.
    pub fn fold_all(&self) -> Result<(), StoreError> {
        self.fold_keeping(0)
    }

    /// The same for all but the newest `keep` rows.
    pub fn fold_keeping(&self, keep: u64) -> Result<(), StoreError> {
        let to = lock(&self.shared.tail).end().saturating_sub(1 + keep);
        loop {
            if let Some(failure) = lock(&self.shared.index_failure).clone() {
                return Err(failure);
            }
            if lock(&self.shared.tail).base() > to {
                return Ok(());
            }
            self.shared.ask(Work::FoldTo(to));
            let tail = lock(&self.shared.tail);
            if tail.base() <= to {
                drop(
                    self.shared
                        .room
                        .wait_timeout(tail, Duration::from_millis(10)),
                );
            }
        }
    }

    /// Copies the open store into a new or empty directory while it goes on; see [`verify`](Self::verify).
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        backup::backup(&self.dir, to)
    }

    /// Checks every page of a store that no process has open.
    pub fn verify(dir: &Path) -> Result<(), StoreError> {
        let _lock = lock_dir(dir)?;
        backup::verify(dir)
    }

    /// Gives the store of a directory that no process has open a new id: what muxes hold of the
    /// store it was copied from does not fit it (DESIGN section 3).
    pub fn restored(dir: &Path) -> Result<StoreId, StoreError> {
        let _lock = lock_dir(dir)?;
        let state = STATE.open(dir)?;
        Identity::load(&state)?;
        let id = random(&state.path)?;
        state.set_meta(STORE_ID, id)?;
        Ok(StoreId(id))
    }

    fn view(&self) -> Result<IndexView, StoreError> {
        Ok(IndexView {
            shared: self.shared.clone(),
            index: INDEX.connect_reader(&self.dir)?,
        })
    }

    fn sqlite_writer(&self) -> Result<SqliteWriter, StoreError> {
        let (log, state) = (LOG.connect(&self.dir)?, STATE.connect(&self.dir)?);
        let view = self.view()?;
        let in_use = || StoreError::InUse {
            path: self.dir.clone(),
        };
        let (origins, floor) = lock(&self.start).take().ok_or_else(in_use)?;
        Ok(SqliteWriter::new(
            self.shared.clone(),
            log,
            StateWriter::new(state, self.shared.revoked.clone()),
            view,
            origins,
            floor,
        ))
    }
}

/// Brings what the index does not have into the tail (folding on the way if it is much: the index is
/// being rebuilt), and the live origins into memory.
fn read_tail(
    shared: &Arc<Shared>,
    indexer: &mut Indexer,
    log_db: &Db,
    floor: u64,
    origin_floor: u64,
) -> Result<Origins, StoreError> {
    let mut origins = Origins::default();
    // An index that is made anew starts from the first row there is.
    let mut from = if floor == 0 {
        0
    } else {
        origin_floor.min(floor + 1)
    };
    loop {
        let rows = log::read_back(log_db, from, origin_floor, &mut origins)?;
        let Some(newest) = rows.last().map(|row| row.position) else {
            return Ok(origins);
        };
        from = newest + 1;
        for log::ReadRow { position, row } in rows {
            let (end, held) = {
                let tail = lock(&shared.tail);
                (tail.end(), tail.len())
            };
            if position < end {
                continue;
            }
            // Rows deleted since leave holes, when an index is rebuilt.
            let hole = position - end;
            if hole > 1_024 || held >= FOLD_AT_ROWS {
                indexer.fold_to(end - 1)?;
            }
            if hole > 1_024 {
                indexer.skip_to(position)?;
            }
            let mut tail = lock(&shared.tail);
            while tail.end() < position {
                tail.push(TailRow::new(Body::Gone, 0, 0));
            }
            tail.push(row);
        }
    }
}

impl Drop for SqliteEngine {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a background thread of the store panicked");
            }
        }
        // One file each, without a WAL beside it, if this is the last connection.
        for database in [&LOG, &STATE, &INDEX] {
            if let Err(error) = database.connect(&self.dir).and_then(|db| db.checkpoint()) {
                tracing::debug!(%error, "no last checkpoint");
            }
        }
    }
}

impl Engine for SqliteEngine {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(self.sqlite_writer()?))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let state = StateReader::new(STATE.connect_reader(&self.dir)?);
        Ok(Box::new(SqliteReader::new(
            self.view()?,
            LOG.connect_reader(&self.dir)?,
            state,
        )))
    }

    fn session_store(&self) -> Result<Box<dyn SessionStore>, StoreError> {
        if self.sessions_given.swap(true, Ordering::AcqRel) {
            return Err(StoreError::InUse {
                path: self.dir.clone(),
            });
        }
        Ok(Box::new(FileSessions::open(&self.dir.join("sessions"))?))
    }

    fn store_id(&self) -> StoreId {
        self.identity.store_id
    }

    fn next_epoch(&self) -> Result<u32, StoreError> {
        let state = lock(&self.state);
        let epoch = state.meta_number(EPOCH)? + 1;
        state.set_meta(EPOCH, epoch as i64)?;
        Ok(epoch as u32)
    }

    fn position_key(&self) -> PositionKey {
        PositionKey::new(self.identity.position_secret)
    }

    fn login_secret(&self) -> [u8; 32] {
        self.identity.login_secret
    }
}
