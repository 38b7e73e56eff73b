//! What the disk and the kernel can do at best: how fast it syncs, and what a relay of bytes costs.

use crate::histogram::{Histogram, Percentiles};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// What came out.
#[derive(Clone, Copy, Serialize, Default, Debug)]
pub struct DiskResult {
    /// Appends of 4 KiB, each followed by fdatasync, per second.
    pub syncs_per_s: f64,
    /// How long each took.
    pub latency: Percentiles,
}

/// Appends and syncs for two seconds in a file in `dir`, into space that exists already, as a WAL does.
pub fn run(dir: &Path) -> anyhow::Result<DiskResult> {
    let path = dir.join(format!("isthmus-bench-sync-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)?;
    // Unlinked at once: it goes away however we end.
    std::fs::remove_file(&path)?;
    let block = [0x5a; 4096];
    for _ in 0..1024 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut latency = Histogram::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        if latency.len().is_multiple_of(1024) {
            file.seek(SeekFrom::Start(0))?;
        }
        let at = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latency.record(at.elapsed().as_nanos() as u64);
    }
    Ok(DiskResult {
        syncs_per_s: latency.len() as f64 / started.elapsed().as_secs_f64(),
        latency: latency.percentiles(),
    })
}
