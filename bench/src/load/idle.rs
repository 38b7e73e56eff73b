//! Memory of idle sessions: log in, say presence, then nothing.

use super::Processes;
use crate::client::Target;
use crate::fleet::Fleet;
use crate::proc;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Resident memory may go on changing (garbage collection, allocators giving pages back) so long after the last log-in.
const SETTLE_MAX: Duration = Duration::from_secs(90);
/// It has settled when it changed by less than 0.5 % in this time.
const STEADY: Duration = Duration::from_secs(10);

/// What came out.
#[derive(Clone, Serialize, Default, Debug)]
pub struct IdleResult {
    /// Sessions.
    pub sessions: usize,
    /// Resident bytes of all server processes before the first log-in.
    pub before_bytes: u64,
    /// With all sessions idle.
    pub after_bytes: u64,
    /// (after - before) / sessions, KiB.
    pub kib_each: f64,
    /// What the second half of the sessions added, KiB each: without what any first session brings with it.
    pub kib_each_second_half: f64,
    /// By process, KiB each.
    pub by_process: Vec<(String, f64)>,
    /// How long all log-ins took, seconds.
    pub log_in_s: f64,
}

/// Logs `sessions` accounts in and waits until memory is steady.
pub fn run(
    target: Target,
    processes: &Processes,
    sessions: usize,
    at_once: usize,
) -> anyhow::Result<IdleResult> {
    let before: Vec<u64> = processes
        .0
        .iter()
        .map(|(_, pid)| proc::usage(*pid).rss_bytes)
        .collect();
    let pids = processes.pids();
    let mut fleet = Fleet::new(target)?;
    let started = Instant::now();
    fleet.log_in_all(sessions / 2, at_once)?;
    let log_in = started.elapsed();
    let half = steady(&mut fleet, &pids)?;
    let started = Instant::now();
    fleet.log_in_more(sessions / 2, sessions, at_once)?;
    let log_in = log_in + started.elapsed();
    let after_bytes = steady(&mut fleet, &pids)?;
    let before_bytes: u64 = before.iter().sum();
    let kib = |bytes: f64, n: usize| bytes / 1024.0 / n as f64;
    let by_process = processes
        .0
        .iter()
        .zip(&before)
        .map(|((name, pid), before)| {
            (
                name.clone(),
                kib(
                    proc::usage(*pid).rss_bytes as f64 - *before as f64,
                    sessions,
                ),
            )
        });
    Ok(IdleResult {
        sessions,
        before_bytes,
        after_bytes,
        kib_each: kib(after_bytes as f64 - before_bytes as f64, sessions),
        kib_each_second_half: kib(after_bytes as f64 - half as f64, sessions - sessions / 2),
        by_process: by_process.collect(),
        log_in_s: log_in.as_secs_f64(),
    })
}

fn steady(fleet: &mut Fleet, pids: &[u32]) -> anyhow::Result<u64> {
    let started = Instant::now();
    let mut reference = proc::usage_of(pids).rss_bytes;
    let mut since = Instant::now();
    loop {
        fleet.settle(Duration::from_millis(500), Duration::from_secs(2))?;
        let now = proc::usage_of(pids).rss_bytes;
        if now.abs_diff(reference) > reference / 200 {
            reference = now;
            since = Instant::now();
        }
        if since.elapsed() > STEADY || started.elapsed() > SETTLE_MAX {
            return Ok(now);
        }
    }
}
