//! Unix sockets that are to be listened on: what stands in the way of one.

use super::reader::{Reader, Written};
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The path of a socket, from the directory of the configuration.
pub(super) fn check(
    reader: &mut Reader,
    base: &Path,
    value: &Option<Written<String>>,
) -> Option<PathBuf> {
    let written = value.as_ref()?;
    let path = base.join(&written.value);
    if let Err(why) = usable(&path) {
        reader.wrong(&written.at, why);
    }
    Some(path)
}

/// Says in one sentence why no socket can stand there. One that an earlier run left is not in the way.
///
/// # Errors
/// The path is too long, or something else is there.
pub fn usable(path: &Path) -> Result<(), String> {
    if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
        let len = path.as_os_str().len();
        return Err(format!(
            "{}: is too long for a socket: {len} bytes, and 107 are the most",
            path.display()
        ));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(format!(
            "{}: is there already and is no socket; it is left as it is",
            path.display()
        )),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(format!("{}: cannot be looked at: {e}", path.display()))
        }
        _ => Ok(()),
    }
}
