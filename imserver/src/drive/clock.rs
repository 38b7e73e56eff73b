//! The clock that threads give to shards. Shards read none.

use crate::event::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The clock the shards are given.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at one second, so that differences never run below zero.
    pub fn new() -> Self {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Self {
            start: *START.get_or_init(Instant::now),
        }
    }

    /// The time.
    pub fn now(&self) -> Now {
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64);
        Now {
            mono_ms: self.start.elapsed().as_millis() as u64 + 1_000,
            unix_ms,
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
