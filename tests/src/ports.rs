//! Port blocks for sites: `imadmin init` takes one offset for all its ports, so a test reserves an
//! offset, under a lock that holds across processes, and checks that every port of it is free.

use anyhow::{Context as _, Result, bail};
use std::fs::{File, OpenOptions};
use std::net::TcpListener;

/// The default ports of a set-up (issue 2), to which the offset is added.
const BASES: [u16; 11] = [
    5222, 5223, 5269, 5280, 5347, 5443, 15230, 15231, 15232, 15233, 15234,
];
/// Offsets are multiples of 100 up to 17,500; all resulting ports lie below the ephemeral range.
const OFFSETS: u16 = 175;

/// A reserved offset; free again when dropped or when the process ends.
pub struct PortBlock {
    offset: u16,
    _lock: File,
}

impl PortBlock {
    /// Reserves an offset whose ports are all free.
    pub fn reserve() -> Result<PortBlock> {
        let dir = std::env::temp_dir().join("isthmus-test-ports");
        std::fs::create_dir_all(&dir)?;
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("the system has a random source");
        let start = u16::from_ne_bytes(random) % OFFSETS;
        for step in 0..OFFSETS {
            // Offset 0 is left to people who run a server by hand.
            let offset = ((start + step) % OFFSETS + 1) * 100;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(dir.join(offset.to_string()))
                .context("port lock file")?;
            if lock.try_lock().is_ok() && all_free(offset) {
                return Ok(PortBlock {
                    offset,
                    _lock: lock,
                });
            }
        }
        bail!("no block of ports is free");
    }

    /// The number for `--port-offset`.
    pub fn offset(&self) -> u16 {
        self.offset
    }
}

fn all_free(offset: u16) -> bool {
    BASES
        .iter()
        .all(|base| TcpListener::bind(("127.0.0.1", base + offset)).is_ok())
}
