//! The one system call that tests need and std does not offer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Moves the calling thread into a network namespace (`/run/netns/NAME`); sockets made from now on live there.
#[allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]
pub fn enter_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call; setns touches no memory of ours.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
