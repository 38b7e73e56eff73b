//! The file of the audit log: one line appended and synced at a time.
//!
//! Owns: the file. Never: leaves half a line; reads, cuts or removes what it has written before.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub struct AuditLog(Mutex<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
}

impl AuditLog {
    /// Opens the file, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be opened for appending: the server does not start without it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = open(path).map_err(|e| {
            anyhow::anyhow!("the audit log {} cannot be opened: {e}", path.display())
        })?;
        Ok(Self(Mutex::new(Open {
            path: path.to_owned(),
            file,
        })))
    }

    /// After a reload. What cannot be opened leaves the old file in use, with a warning.
    pub fn reopen(&self, path: &Path) {
        match open(path) {
            Ok(file) => {
                if let Ok(mut log) = self.0.lock() {
                    *log = Open {
                        path: path.to_owned(),
                        file,
                    };
                }
            }
            Err(e) => {
                tracing::error!(path = %path.display(), error = %e, "the audit log cannot be opened again; the old file stays in use");
            }
        }
    }

    /// Appends a line. When this returns it is on disk, or not in the file at all.
    ///
    /// # Errors
    /// What the disk says.
    pub fn append(&self, line: &str) -> io::Result<()> {
        let Ok(mut log) = self.0.lock() else {
            return Err(io::Error::other("it is broken"));
        };
        let before = log.file.metadata()?.len();
        let written = log
            .file
            .write_all(line.as_bytes())
            .and_then(|()| log.file.sync_data());
        if let Err(e) = written {
            tracing::error!(path = %log.path.display(), error = %e, "the audit log cannot be written");
            // A disk that took half a line takes its length back; if not even that, the next opening ends the line.
            let _ = log.file.set_len(before);
            return Err(e);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // A line that a lost machine left unfinished does not spoil the next one. What is no regular file has no end to look at.
    if file.metadata()?.is_file() && file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_the_file_may_be_moved_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "an unfinished li").unwrap();
        let log = AuditLog::open(&path).unwrap();
        log.append("one\n").unwrap();
        let moved = dir.path().join("audit.log.1");
        std::fs::rename(&path, &moved).unwrap();
        log.append("two\n").unwrap();
        log.reopen(&path);
        log.append("three\n").unwrap();
        let old = std::fs::read_to_string(&moved).unwrap();
        assert_eq!(old, "an unfinished li\none\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A directory cannot be appended to: the old file stays.
        log.reopen(dir.path());
        log.append("four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\nfour\n");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let log = AuditLog::open(Path::new("/dev/full")).unwrap();
        assert!(log.append("one\n").is_err());
    }
}
