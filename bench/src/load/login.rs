//! Log-ins per second: connect, authenticate, bind, end the stream; the next account takes the place.

use super::{Cost, Processes};
use crate::client::{Target, Way};
use crate::fleet::{Fleet, Turn};
use crate::histogram::{Histogram, Percentiles};
use anyhow::bail;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What came out.
#[derive(Clone, Serialize, Default, Debug)]
pub struct LoginResult {
    /// Sessions bound per second.
    pub per_s: f64,
    /// Server CPU milliseconds per log-in.
    pub cpu_ms_each: f64,
    /// From connect to bound.
    pub latency: Percentiles,
    /// Cost in all.
    pub cost: Cost,
}

/// How long it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Over and over, for so many seconds after one of warm-up.
    Seconds(f64),
    /// Every account once, from the first on.
    Once,
}

/// Logs accounts 0 to `accounts` - 1 in, `at_once` at a time.
pub fn run(
    target: Target,
    processes: &Processes,
    accounts: usize,
    at_once: usize,
    length: Length,
) -> anyhow::Result<LoginResult> {
    let mut fleet = Fleet::new(target)?;
    let mut turns = Vec::new();
    let mut started_at = vec![Instant::now(); at_once];
    let mut next = 0;
    for (slot, at) in started_at.iter_mut().enumerate() {
        *at = Instant::now();
        fleet.connect(slot, next % accounts)?;
        next += 1;
    }
    let start = Instant::now();
    let (warm_up, seconds) = match length {
        Length::Seconds(seconds) => (Duration::from_secs(1), Duration::from_secs_f64(seconds)),
        Length::Once => (Duration::ZERO, Duration::MAX),
    };
    // Who has neither token nor stream yet gets them by the first log-in, which is not what is measured.
    let prepares = !matches!(fleet.target.way, Way::Rfc6120 | Way::Sasl2);
    let once = matches!(length, Length::Once);
    let mut measured = once.then(|| (start, processes.read()));
    let mut latency = Histogram::new();
    let mut last = Instant::now();
    loop {
        fleet.turn(Duration::from_millis(50), &mut turns)?;
        for turn in turns.drain(..) {
            match turn {
                Turn::Ready(slot) => {
                    last = Instant::now();
                    if measured.is_some() {
                        latency.record((last - started_at[slot]).as_nanos() as u64);
                    }
                    fleet.close(slot);
                    if once && next >= accounts {
                        continue;
                    }
                    started_at[slot] = last;
                    fleet.connect(slot, next % accounts)?;
                    next += 1;
                }
                Turn::Input(slot) => fleet.discard(slot),
                Turn::Ended(slot, why) => bail!("log-in {slot} failed: {why}"),
            }
        }
        if last.elapsed() > Duration::from_secs(30) {
            bail!("no log-in for 30 s");
        }
        let elapsed = start.elapsed();
        match &measured {
            None if prepares && next < accounts + 2 * at_once => {}
            None if elapsed >= warm_up => measured = Some((Instant::now(), processes.read())),
            Some((since, reading))
                if since.elapsed() >= seconds || once && latency.len() >= accounts as u64 =>
            {
                let cost = processes.since(reading);
                let count = latency.len() as f64;
                if fleet.derivations() > 8 {
                    bail!(
                        "{} PBKDF2 derivations: the accounts do not share a salt, so this measured the generator",
                        fleet.derivations()
                    );
                }
                if prepares && (fleet.shortened() as u64) < latency.len() {
                    bail!(
                        "only {} of {} log-ins were by token or resumption",
                        fleet.shortened(),
                        latency.len()
                    );
                }
                return Ok(LoginResult {
                    per_s: count / since.elapsed().as_secs_f64(),
                    cpu_ms_each: cost.cpu_s * 1e3 / count,
                    latency: latency.percentiles(),
                    cost,
                });
            }
            _ => {}
        }
    }
}
