//! The two system calls that tests need and std does not offer.

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

/// Raises the limit of open files to what the system allows, for this process and those it starts; returns it.
#[allow(unsafe_code, reason = "setrlimit(2) has no safe wrapper in std")]
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only touch `limit`, which outlives them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}
