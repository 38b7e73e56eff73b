//! The three things the kernel tells only through `unsafe` calls.
//!
//! In: descriptors. Out: numbers. Owns: nothing. Never: keeps a descriptor, or reads memory it was not given.
#![allow(unsafe_code)] // ioctl, getrlimit and setrlimit have no safe form in std, mio or socket2.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes handed to a TCP socket that its far end has not acknowledged (SIOCOUTQ, tcp(7)). Stays true after
/// a reset: the kernel keeps both sequence numbers until the socket is closed.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut n: libc::c_int = 0;
    // SAFETY: the descriptor is open for the borrow; TIOCOUTQ (the same number as SIOCOUTQ) writes one int
    // through the pointer, which points to one.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut n) };
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n.max(0) as u64)
    }
}

/// Raises the limit of open files to the hard limit and returns it.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write exactly one `rlimit` behind a valid pointer.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return Err(io::Error::last_os_error());
        }
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_client_that_reads_leaves_nothing_unacknowledged_and_one_that_does_not_does() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        server.write_all(b"hello").expect("write");
        client.read_exact(&mut [0; 5]).expect("read");
        while unacknowledged(server.as_fd()).expect("ioctl") > 0 {
            std::thread::yield_now();
        }
        server.set_nonblocking(true).expect("nonblocking");
        let mut total = 0u64;
        while let Ok(n) = server.write(&[7; 65_536]) {
            total += n as u64;
        }
        let left = unacknowledged(server.as_fd()).expect("ioctl");
        assert!(left > 0 && left <= total, "{left} of {total}");
    }

    #[test]
    fn open_files_can_be_asked_for() {
        assert!(raise_open_files().expect("limit") >= 64);
    }
}
