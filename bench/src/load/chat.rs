//! Chat between pairs of sessions: closed loop (each message is answered by one) and open loop (at a fixed rate).
//!
//! Every body begins with the time at which the message was sent, or, in the open loop, should have been sent: a
//! message that had to wait for its turn in the generator or in a socket counts its waiting too.

use super::{Cost, Processes};
use crate::client::{RESOURCE, Target, localpart};
use crate::fleet::{Fleet, Turn};
use crate::histogram::{Histogram, Percentiles};
use anyhow::bail;
use memchr::memmem;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Bytes of a body.
const BODY_BYTES: usize = 100;
/// Of these, the time in hexadecimal nanoseconds.
const STAMP_BYTES: usize = 16;
/// How long messages on their way are waited for after the last was sent.
const DRAIN: Duration = Duration::from_secs(30);

/// To whom messages are addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Address {
    /// user@domain: the first message of a conversation, and every message of a client with carbons.
    Bare,
    /// user@domain/resource: what RFC 6121 §5.1 advises for the rest of a conversation.
    Full,
}

/// What came out.
#[derive(Clone, Serialize, Default, Debug)]
pub struct ChatResult {
    /// Pairs of sessions.
    pub pairs: usize,
    /// Outstanding per pair (closed loop), or 0.
    pub outstanding: usize,
    /// Messages per second wanted (open loop), or 0.
    pub rate: f64,
    /// Messages delivered while measured.
    pub messages: u64,
    /// Delivered per second.
    pub per_s: f64,
    /// Server CPU seconds per million messages delivered.
    pub cpu_s_per_million: f64,
    /// The same by process.
    pub by_process: Vec<(String, f64)>,
    /// From (intended) sending to receipt.
    pub latency: Percentiles,
    /// Sent and not delivered within the time allowed.
    pub missing: i64,
    /// Cost while measured.
    pub cost: Cost,
}

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Pairs of sessions.
    pub pairs: usize,
    /// Before measuring, seconds.
    pub warm_up_s: f64,
    /// Measuring, seconds.
    pub seconds: f64,
    /// To whom.
    pub address: Address,
}

/// Logged-in pairs, ready for several runs one after another.
pub struct Chat<'a> {
    fleet: Fleet,
    processes: &'a Processes,
    plan: Plan,
    /// By slot: a whole message up to the stamp.
    heads: Vec<Vec<u8>>,
    tail: Vec<u8>,
    clock: Instant,
    turns: Vec<Turn>,
    sent: u64,
    received: u64,
}

impl<'a> Chat<'a> {
    /// Logs all in.
    pub fn log_in(
        target: Target,
        processes: &'a Processes,
        plan: Plan,
    ) -> anyhow::Result<Chat<'a>> {
        let domain = target.domain.clone();
        let mut fleet = Fleet::new(target)?;
        fleet.log_in_all(plan.pairs * 2, 200)?;
        fleet.settle(Duration::from_millis(500), Duration::from_secs(10))?;
        let to = |slot: usize| match plan.address {
            Address::Bare => format!("{}@{domain}", localpart(slot ^ 1)),
            Address::Full => format!("{}@{domain}/{RESOURCE}", localpart(slot ^ 1)),
        };
        let heads = (0..plan.pairs * 2)
            .map(|slot| format!("<message to='{}' type='chat'><body>", to(slot)).into_bytes())
            .collect();
        let tail = [
            vec![b'x'; BODY_BYTES - STAMP_BYTES],
            b"</body></message>".to_vec(),
        ]
        .concat();
        Ok(Chat {
            fleet,
            processes,
            plan,
            heads,
            tail,
            clock: Instant::now(),
            turns: Vec::new(),
            sent: 0,
            received: 0,
        })
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Puts a message into the output of a slot; the caller flushes.
    fn send(&mut self, slot: usize, stamp: u64) {
        let Chat {
            fleet, heads, tail, ..
        } = self;
        if let Some(conn) = fleet.conn(slot) {
            conn.output.extend_from_slice(&heads[slot]);
            conn.output.extend_from_slice(&hex(stamp));
            conn.output.extend_from_slice(tail);
            self.sent += 1;
        }
    }

    /// Counts from zero, unless messages of the run before may still come.
    fn begin(&mut self) -> anyhow::Result<()> {
        if self.sent != self.received {
            bail!(
                "the run before lost {} messages, or they are still on their way",
                self.sent - self.received
            );
        }
        (self.sent, self.received) = (0, 0);
        Ok(())
    }

    fn flush(&mut self, slot: usize) -> anyhow::Result<()> {
        self.fleet.conn(slot).map_or(Ok(()), |conn| conn.flush())
    }

    /// Takes what came; the stamps of whole messages go to `stamps` with their slot.
    fn receive(&mut self, timeout: Duration, stamps: &mut Vec<(usize, u64)>) -> anyhow::Result<()> {
        let mut turns = std::mem::take(&mut self.turns);
        self.fleet.turn(timeout, &mut turns)?;
        for turn in turns.drain(..) {
            match turn {
                Turn::Input(slot) => {
                    if let Some(conn) = self.fleet.conn(slot) {
                        let before = stamps.len();
                        let taken = parse(&conn.input, |stamp| stamps.push((slot, stamp)))?;
                        conn.input.drain(..taken);
                        self.received += (stamps.len() - before) as u64;
                    }
                }
                Turn::Ready(_) => {}
                Turn::Ended(slot, why) => bail!("session {slot} ended: {why}"),
            }
        }
        self.turns = turns;
        Ok(())
    }

    /// Closed loop: `outstanding` messages of each pair are always on their way.
    pub fn closed(&mut self, outstanding: usize) -> anyhow::Result<ChatResult> {
        self.begin()?;
        for pair in 0..self.plan.pairs {
            for n in 0..outstanding {
                let slot = pair * 2 + n % 2;
                let now = self.now();
                self.send(slot, now);
            }
            self.flush(pair * 2)?;
            self.flush(pair * 2 + 1)?;
        }
        let mut meter = Meter::new(self);
        let mut stamps = Vec::new();
        while meter.goes_on(self) {
            self.receive(Duration::from_millis(100), &mut stamps)?;
            let now = self.now();
            // Stamps of one connection follow one another: its answers go out in one write.
            let mut at = 0;
            while at < stamps.len() {
                let slot = stamps[at].0;
                while at < stamps.len() && stamps[at].0 == slot {
                    meter.record(now, stamps[at].1);
                    self.send(slot, now);
                    at += 1;
                }
                self.flush(slot)?;
            }
            stamps.clear();
            self.check_alive(&mut meter)?;
        }
        let mut result = meter.result(self);
        result.missing = self.drain(&mut stamps)?;
        result.outstanding = outstanding;
        Ok(result)
    }

    /// Open loop: `rate` messages per second, whatever happened to those before.
    pub fn open(&mut self, rate: f64) -> anyhow::Result<ChatResult> {
        self.begin()?;
        let slots = self.plan.pairs * 2;
        let interval = 1e9 / rate;
        let begin = self.now();
        let mut number = 0_u64;
        let mut meter = Meter::new(self);
        let mut stamps = Vec::new();
        while meter.goes_on(self) {
            let mut due = begin + (number as f64 * interval) as u64;
            let mut burst = 0;
            while due <= self.now() && burst < 256 {
                // Neighbouring messages go to far-apart pairs.
                let slot = (number as usize).wrapping_mul(7_919) % slots;
                self.send(slot, due);
                self.flush(slot)?;
                number += 1;
                burst += 1;
                due = begin + (number as f64 * interval) as u64;
            }
            let wait = due.saturating_sub(self.now());
            // epoll waits whole milliseconds: for less, the generator spins on its own core.
            let wait = if wait > 2_000_000 {
                Duration::from_nanos(wait - 1_000_000)
            } else {
                Duration::ZERO
            };
            self.receive(wait, &mut stamps)?;
            let now = self.now();
            for (_, stamp) in stamps.drain(..) {
                meter.record(now, stamp);
            }
            self.check_alive(&mut meter)?;
        }
        let mut result = meter.result(self);
        result.missing = self.drain(&mut stamps)?;
        result.rate = rate;
        Ok(result)
    }

    fn check_alive(&self, meter: &mut Meter) -> anyhow::Result<()> {
        if self.received != meter.last_received {
            meter.last_received = self.received;
            meter.last_progress = Instant::now();
        } else if meter.last_progress.elapsed() > DRAIN {
            bail!(
                "nothing was delivered for {DRAIN:?}; {} sent, {} received",
                self.sent,
                self.received
            );
        }
        Ok(())
    }

    /// Waits for what is on its way. Returns how much did not come.
    fn drain(&mut self, stamps: &mut Vec<(usize, u64)>) -> anyhow::Result<i64> {
        let mut last = Instant::now();
        while self.received < self.sent && last.elapsed() < DRAIN {
            let before = self.received;
            self.receive(Duration::from_millis(50), stamps)?;
            stamps.clear();
            if self.received != before {
                last = Instant::now();
            }
        }
        Ok(self.sent as i64 - self.received as i64)
    }
}

/// The part of a run that is measured.
struct Meter {
    started: Instant,
    measuring: Option<(Instant, super::Reading)>,
    latency: Histogram,
    last_received: u64,
    last_progress: Instant,
}

impl Meter {
    fn new(_chat: &Chat<'_>) -> Meter {
        Meter {
            started: Instant::now(),
            measuring: None,
            latency: Histogram::new(),
            last_received: 0,
            last_progress: Instant::now(),
        }
    }

    fn goes_on(&mut self, chat: &Chat<'_>) -> bool {
        match &self.measuring {
            None => {
                if self.started.elapsed().as_secs_f64() >= chat.plan.warm_up_s {
                    self.measuring = Some((Instant::now(), chat.processes.read()));
                }
                true
            }
            Some((since, _)) => since.elapsed().as_secs_f64() < chat.plan.seconds,
        }
    }

    fn record(&mut self, now: u64, stamp: u64) {
        if self.measuring.is_some() {
            self.latency.record(now.saturating_sub(stamp));
        }
    }

    fn result(&self, chat: &Chat<'_>) -> ChatResult {
        let Some((since, reading)) = &self.measuring else {
            return ChatResult::default();
        };
        let cost = chat.processes.since(reading);
        let messages = self.latency.len();
        let millions = messages as f64 / 1e6;
        ChatResult {
            pairs: chat.plan.pairs,
            messages,
            per_s: messages as f64 / since.elapsed().as_secs_f64(),
            cpu_s_per_million: cost.cpu_s / millions,
            by_process: cost
                .by_process
                .iter()
                .map(|(name, s)| (name.clone(), s / millions))
                .collect(),
            latency: self.latency.percentiles(),
            cost,
            ..ChatResult::default()
        }
    }
}

fn hex(value: u64) -> [u8; STAMP_BYTES] {
    let mut text = [0; STAMP_BYTES];
    for (i, byte) in text.iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(value >> (60 - 4 * i)) as usize & 15];
    }
    text
}

fn unhex(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Calls `found` with the stamp of every whole message; returns how many bytes need not be seen again.
fn parse(input: &[u8], mut found: impl FnMut(u64)) -> anyhow::Result<usize> {
    let mut at = 0;
    while let Some(end) = memmem::find(&input[at..], b"</message>") {
        let message = &input[at..at + end];
        at += end + b"</message>".len();
        if memmem::find(message, b"type='error'")
            .or_else(|| memmem::find(message, b"type=\"error\""))
            .is_some()
        {
            bail!("a message came back: {}", String::from_utf8_lossy(message));
        }
        let stamp = memmem::find(message, b"<body>")
            .and_then(|b| message.get(b + 6..b + 6 + STAMP_BYTES))
            .and_then(unhex);
        if let Some(stamp) = stamp {
            found(stamp);
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_whole_and_in_parts() {
        let one = [
            b"<message from='a'><body>".as_slice(),
            &hex(77),
            b"xx</body></message>",
        ]
        .concat();
        let mut seen = Vec::new();
        let input = [one.as_slice(), &one, &one[..30]].concat();
        let taken = parse(&input, |s| seen.push(s)).unwrap();
        assert_eq!((taken, seen), (one.len() * 2, vec![77, 77]));
    }

    #[test]
    fn an_error_ends_the_run() {
        assert!(parse(b"<message type='error'><body>0</body></message>", |_| ()).is_err());
    }
}
