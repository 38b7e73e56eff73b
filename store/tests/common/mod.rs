//! Values and engines for the store's tests.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::new_without_default
)] // Each test file uses its own part.

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use store::model::Model;
use store::sqlite::SqliteEngine;
use store::{
    Append, Engine, Origin, PositionKey, Reader, SessionStore, StoreError, StoreId, Write, Writer,
    Written,
};
use xmpp::jid::BareJid;
use xmpp::scram::{ScramHash, ScramKeys};

pub fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

/// A pending message that is not archived.
pub fn message(owner: &str, payload: &str) -> Append {
    Append {
        owner: jid(owner),
        peer: jid("peer@x.example"),
        origin: None,
        archive: false,
        pending: true,
        time_ms: 1_700_000_000_000,
        outgoing: false,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        text: None,
    }
}

pub fn origin(session: u64, stanza: u64) -> Option<Origin> {
    Some(Origin {
        session,
        stanza,
        hash: stanza.wrapping_mul(31),
    })
}

pub fn keys(hash: ScramHash, byte: u8) -> ScramKeys {
    let bytes = hash.output_bytes();
    ScramKeys {
        hash,
        salt: vec![byte; 16],
        iterations: 10_000,
        stored_key: vec![byte; bytes],
        server_key: vec![byte ^ 1; bytes],
    }
}

/// The position of a `Stored` answer.
pub fn stored(written: &Written) -> u64 {
    match written {
        Written::Stored { position } => *position,
        other => panic!("expected Stored, not {other:?}"),
    }
}

/// Commits one append.
pub fn append(writer: &mut dyn Writer, append: Append) -> Written {
    writer
        .commit(&[store::Write::Append(append)])
        .unwrap()
        .remove(0)
}

/// A store that can be killed and started again.
pub trait Fixture {
    fn engine(&self) -> &dyn Engine;
    /// The process dies and a new one starts.
    fn restart(&mut self);
    /// The same, with everything that can be made again removed.
    fn restart_rebuilt(&mut self);
}

pub struct OnModel(pub Model);

impl Fixture for OnModel {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }
    fn restart(&mut self) {
        self.0.kill();
    }
    fn restart_rebuilt(&mut self) {
        self.0.kill();
    }
}

pub struct OnDisk {
    pub dir: tempfile::TempDir,
    pub engine: Option<SqliteEngine>,
}

impl OnDisk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(dir.path()).unwrap();
        OnDisk {
            dir,
            engine: Some(engine),
        }
    }
}

impl Fixture for OnDisk {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_ref().unwrap()
    }
    fn restart(&mut self) {
        self.engine = None;
        self.engine = Some(SqliteEngine::open(self.dir.path()).unwrap());
    }
    fn restart_rebuilt(&mut self) {
        self.engine = None;
        remove_index(self.dir.path());
        self.engine = Some(SqliteEngine::open(self.dir.path()).unwrap());
    }
}

/// SQLite with everything folded into the index and swept after each commit: what a long-running
/// server looks like, in a short test.
pub struct Folding(pub Arc<SqliteEngine>);

impl Folding {
    pub fn open(dir: &Path) -> Self {
        Folding(Arc::new(SqliteEngine::open(dir).unwrap()))
    }
}

struct FoldingWriter {
    engine: Arc<SqliteEngine>,
    writer: Box<dyn Writer>,
}

impl Writer for FoldingWriter {
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Written>, StoreError> {
        let written = self.writer.commit(writes)?;
        self.engine.fold_all()?;
        while self.writer.maintain()? {}
        self.engine.fold_all()?;
        Ok(written)
    }

    fn maintain(&mut self) -> Result<bool, StoreError> {
        self.writer.maintain()
    }
}

impl Engine for Folding {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(FoldingWriter {
            engine: self.0.clone(),
            writer: self.0.writer()?,
        }))
    }
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.0.reader()
    }
    fn session_store(&self) -> Result<Box<dyn SessionStore>, StoreError> {
        self.0.session_store()
    }
    fn store_id(&self) -> StoreId {
        self.0.store_id()
    }
    fn next_epoch(&self) -> Result<u32, StoreError> {
        self.0.next_epoch()
    }
    fn position_key(&self) -> PositionKey {
        self.0.position_key()
    }
    fn login_secret(&self) -> [u8; 32] {
        self.0.login_secret()
    }
}

pub struct OnDiskFolded {
    pub dir: tempfile::TempDir,
    pub engine: Option<Folding>,
}

impl OnDiskFolded {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Some(Folding::open(dir.path()));
        OnDiskFolded { dir, engine }
    }
}

impl Fixture for OnDiskFolded {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_ref().unwrap()
    }
    fn restart(&mut self) {
        self.engine = None;
        self.engine = Some(Folding::open(self.dir.path()));
    }
    fn restart_rebuilt(&mut self) {
        self.engine = None;
        remove_index(self.dir.path());
        self.engine = Some(Folding::open(self.dir.path()));
    }
}

pub fn remove_index(dir: &Path) {
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
}
