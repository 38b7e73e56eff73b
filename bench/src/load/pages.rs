//! Pages of an archive over the wire: one fills it in a talk with another, then the other asks for the last page again and again.
//!
//! In: a server that archives. Out: how long a page takes, and what it costs.
//! Never: counts a page that has not the messages it should have.

use super::{Cost, Processes};
use crate::client::{Target, localpart};
use crate::fleet::{Fleet, Turn};
use crate::histogram::{Histogram, Percentiles};
use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Messages of a page.
const PAGE: usize = 100;
/// Pages that are not counted.
const WARM_UP: usize = 5;
/// Messages on their way while the archive is filled.
const WINDOW: usize = 64;
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// What came out.
#[derive(Clone, Serialize, Default, Debug)]
pub struct PagesResult {
    /// Messages in the archive, at least.
    pub stored: u64,
    /// Of these, messages sent over the wire before, per second.
    pub filled_per_s: f64,
    /// Pages per second, one after another.
    pub per_s: f64,
    /// Server CPU milliseconds per page.
    pub cpu_ms_each: f64,
    /// From the question to the end of the answer.
    pub latency: Percentiles,
    /// Cost of the pages.
    pub cost: Cost,
}

/// Account 0 sends account 1 `messages`; account 1 asks over and over for so many seconds. `stored`: what is in its archive already.
pub fn run(
    target: Target,
    processes: &Processes,
    messages: usize,
    seconds: f64,
    stored: u64,
) -> anyhow::Result<PagesResult> {
    let mut run = Run {
        to: format!("{}@{}", localpart(1), target.domain),
        fleet: Fleet::new(target)?,
        turns: Vec::new(),
    };
    run.fleet.log_in_all(2, 2)?;
    let quiet = Duration::from_millis(300);
    run.fleet.settle(quiet, SILENCE)?;
    let started = Instant::now();
    run.fill(messages)?;
    let filled_per_s = messages as f64 / started.elapsed().as_secs_f64();
    run.fleet.settle(quiet, SILENCE)?;
    let expected = PAGE.min(messages + usize::try_from(stored)?);
    // The first ones warm what is to be warm.
    for n in 0..WARM_UP {
        run.page(n, expected)?;
    }
    let (started, reading) = (Instant::now(), processes.read());
    let mut latency = Histogram::new();
    let mut pages = 0;
    while started.elapsed().as_secs_f64() < seconds {
        let asked = Instant::now();
        run.page(pages, expected)?;
        latency.record(asked.elapsed().as_nanos() as u64);
        pages += 1;
    }
    let cost = processes.since(&reading);
    Ok(PagesResult {
        stored: messages as u64 + stored,
        filled_per_s,
        per_s: pages as f64 / started.elapsed().as_secs_f64(),
        cpu_ms_each: cost.cpu_s * 1e3 / pages as f64,
        latency: latency.percentiles(),
        cost,
    })
}

struct Run {
    fleet: Fleet,
    turns: Vec<Turn>,
    to: String,
}

impl Run {
    fn say(&mut self, slot: usize, text: &str) -> anyhow::Result<()> {
        let conn = self.fleet.conn(slot).context("the session is gone")?;
        conn.output.extend_from_slice(text.as_bytes());
        conn.flush()
    }

    /// Something has come for account 1.
    fn turn(&mut self) -> anyhow::Result<bool> {
        self.fleet
            .turn(Duration::from_millis(50), &mut self.turns)?;
        let mut heard = false;
        for turn in std::mem::take(&mut self.turns) {
            match turn {
                Turn::Input(1) => heard = true,
                Turn::Input(slot) | Turn::Ready(slot) => self.fleet.discard(slot),
                Turn::Ended(slot, why) => bail!("session {slot} ended: {why}"),
            }
        }
        Ok(heard)
    }

    fn fill(&mut self, messages: usize) -> anyhow::Result<()> {
        let body = "x".repeat(100);
        let message = format!(
            "<message to='{}' type='chat'><body>{body}</body></message>",
            self.to
        );
        let end = b"</message>";
        let (mut sent, mut got) = (0, 0);
        let mut last = Instant::now();
        while got < messages {
            while sent < messages && sent - got < WINDOW {
                self.say(0, &message)?;
                sent += 1;
            }
            if self.turn()? {
                last = Instant::now();
                let conn = self.fleet.conn(1).context("the session is gone")?;
                let ends: Vec<usize> = memmem::find_iter(&conn.input, end).collect();
                got += ends.len();
                if let Some(at) = ends.last() {
                    conn.input.drain(..at + end.len());
                }
            }
            ensure!(
                last.elapsed() < SILENCE,
                "no message for {SILENCE:?}: {got} of {messages} came"
            );
        }
        Ok(())
    }

    /// The last page.
    fn page(&mut self, n: usize, expected: usize) -> anyhow::Result<()> {
        let question = format!(
            "<iq type='set' id='page{n}'><query xmlns='urn:xmpp:mam:2' queryid='q{n}'>\
             <set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max><before/></set></query></iq>"
        );
        self.say(1, &question)?;
        let asked = Instant::now();
        loop {
            ensure!(asked.elapsed() < SILENCE, "no page for {SILENCE:?}");
            if !self.turn()? {
                continue;
            }
            let conn = self.fleet.conn(1).context("the session is gone")?;
            let fin = memmem::find(&conn.input, b"<fin");
            let end = fin.and_then(|at| memmem::find(&conn.input[at..], b"</iq>"));
            if end.is_none() {
                let refused = memmem::find(&conn.input, b"type='error'").is_some();
                ensure!(!refused, "{}", String::from_utf8_lossy(&conn.input));
                continue;
            }
            let results = memmem::find_iter(&conn.input, b"<result ").count();
            ensure!(
                results == expected,
                "a page of {results} messages instead of {expected}"
            );
            conn.input = Vec::new();
            return Ok(());
        }
    }
}
