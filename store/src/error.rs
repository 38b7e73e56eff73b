//! What can go wrong with the store, by whose fault it is.

use std::path::PathBuf;

/// A store failed as a whole (single writes fail with [`WriteError`](crate::WriteError)).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk: refuse with `resource-constraint`, try again later.
    #[error("no room on the disk for {path}")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The disk or file system refused a read or write.
    #[error("{path} could not be read or written: {reason}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not what it should be: restore from a backup (index.db: remove it, it is rebuilt).
    #[error("{path} is damaged or not a database of ours: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by a newer version of the program.
    #[error(
        "{path} has schema {found}, this program knows up to {known}: it was written by a newer version; run that version or restore a backup"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema number in the file.
        found: i64,
        /// Greatest schema number this program knows.
        known: i64,
    },
    /// Another process has the store open, or the one writer has been given out already.
    #[error("{path} is in use by another process or has been opened twice")]
    InUse {
        /// The data directory or file.
        path: PathBuf,
    },
    /// Anything else SQLite says; a bug of ours or of the environment.
    #[error("{path}: {reason}")]
    Engine {
        /// The file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
}

impl StoreError {
    /// The world may mend this by itself (room on the disk, a busy file): answer a temporary error
    /// and try again.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            StoreError::DiskFull { .. } | StoreError::Io { .. } | StoreError::InUse { .. }
        )
    }
}
