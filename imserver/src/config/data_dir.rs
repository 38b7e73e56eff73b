//! Whether the data directory can be used by whoever runs this: asked before anything is started.
//!
//! In: its path. Out: the first thing that stands in the way, in one sentence with the path.
//! Never: makes, opens or changes anything.

use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::Path;

/// It is there and this user may write it and everything directly in it, or it can be made.
pub(super) fn usable(dir: &Path) -> Result<(), String> {
    match dir.metadata() {
        Ok(meta) if !meta.is_dir() => return Err(format!("{} is no directory", dir.display())),
        Ok(meta) => writable(dir, &meta)?,
        Err(e) if e.kind() == ErrorKind::NotFound => return can_be_made(dir),
        Err(e) => return Err(format!("{} cannot be used: {e}", dir.display())),
    }
    let entries = dir.read_dir();
    let entries = entries.map_err(|e| format!("{} cannot be read: {e}", dir.display()))?;
    for entry in entries.flatten() {
        // What is gone by now is a file of a running server, which has the lock.
        if let Ok(meta) = entry.metadata() {
            writable(&entry.path(), &meta)?;
        }
    }
    Ok(())
}

fn can_be_made(dir: &Path) -> Result<(), String> {
    // A path without a directory is in the working directory.
    let above = dir.ancestors().skip(1).map(|above| match above {
        above if above.as_os_str().is_empty() => Path::new("."),
        above => above,
    });
    for above in above {
        let Ok(meta) = above.metadata() else { continue };
        return writable(above, &meta)
            .map_err(|why| format!("{} cannot be made: {why}", dir.display()));
    }
    Ok(())
}

fn writable(path: &Path, meta: &Metadata) -> Result<(), String> {
    let wanted = match meta.is_dir() {
        true => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        false => Access::READ_OK | Access::WRITE_OK,
    };
    access(path, wanted).map_err(|e| match e {
        Errno::ROFS => format!("{} is on a read-only file system", path.display()),
        Errno::ACCESS => format!("{} is not writable by this user", path.display()),
        other => format!("{} cannot be used: {other}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_must_be_a_directory_and_what_is_not_must_have_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert_eq!(usable(dir.path()), Ok(()));
        assert_eq!(usable(&dir.path().join("new/deep")), Ok(()));
        assert_eq!(
            usable(&file),
            Err(format!("{} is no directory", file.display()))
        );
        let under = file.join("data");
        assert!(usable(&under).is_err());
        assert!(!dir.path().join("new").exists(), "it was only asked");
    }
}
