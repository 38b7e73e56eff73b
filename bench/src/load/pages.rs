//! Pages of an archive over the wire: one adds to it in a talk with another, then the other asks for pages again and again: the
//! last one, one from a time on, and the one behind that, by its id, as a client does that reads on.
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
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// Which page is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The last one.
    Last,
    /// The first from a time on, somewhere in what was stored before.
    FromTime,
    /// The one behind an id, somewhere in what was stored before.
    Behind,
}

impl Kind {
    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Last => "last page of 100",
            Kind::FromTime => "page of 100 from a time on",
            Kind::Behind => "page of 100 behind an id",
        }
    }
}

/// What is in the archive before anybody says anything.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stored {
    /// Messages, half of them of account 1.
    pub messages: u64,
    /// The time of the first, in ms since 1970; each of the others is a millisecond later.
    pub first_ms: u64,
}

/// Account 0 sends account 1 `messages`; account 1 asks over and over, for so many seconds each kind of page.
pub fn run(
    target: Target,
    processes: &Processes,
    messages: usize,
    seconds: f64,
    stored: Stored,
) -> anyhow::Result<Vec<(Kind, PagesResult)>> {
    let mut run = Run {
        to: format!("{}@{}", localpart(1), target.domain),
        fleet: Fleet::new(target)?,
        turns: Vec::new(),
        stored,
        asked: 0,
        last: None,
    };
    run.fleet.log_in_all(2, 2)?;
    let quiet = Duration::from_millis(300);
    run.fleet.settle(quiet, SILENCE)?;
    let started = Instant::now();
    run.fill(messages)?;
    let filled_per_s = messages as f64 / started.elapsed().as_secs_f64();
    run.fleet.settle(quiet, SILENCE)?;
    let own = usize::try_from(stored.messages / 2)?;
    let expected = PAGE.min(messages + own);
    // Somewhere in what was stored there must be two pages.
    let kinds: &[Kind] = if own > 4 * PAGE {
        &[Kind::Last, Kind::FromTime, Kind::Behind]
    } else {
        &[Kind::Last]
    };
    let mut results = Vec::new();
    for kind in kinds {
        // The first ones warm what is to be warm.
        for _ in 0..WARM_UP {
            run.page(*kind, expected)?;
        }
        let (started, reading) = (Instant::now(), processes.read());
        let mut latency = Histogram::new();
        let mut pages = 0u32;
        while started.elapsed().as_secs_f64() < seconds {
            let asked = Instant::now();
            run.page(*kind, expected)?;
            latency.record(asked.elapsed().as_nanos() as u64);
            pages += 1;
        }
        let cost = processes.since(&reading);
        results.push((
            *kind,
            PagesResult {
                stored: (messages + own) as u64,
                filled_per_s,
                per_s: f64::from(pages) / started.elapsed().as_secs_f64(),
                cpu_ms_each: cost.cpu_s * 1e3 / f64::from(pages),
                latency: latency.percentiles(),
                cost,
            },
        ));
    }
    Ok(results)
}

struct Run {
    fleet: Fleet,
    turns: Vec<Turn>,
    to: String,
    stored: Stored,
    /// Pages asked for.
    asked: u64,
    /// The id of the last message of the page before.
    last: Option<String>,
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

    /// A time in the first half of what was stored, another each time: in no order, the same in every run.
    fn a_time(&self) -> anyhow::Result<String> {
        let spread = (self.stored.messages / 2).max(1);
        let ms = self.stored.first_ms + self.asked.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)?;
        Ok(time.format(&Rfc3339)?)
    }

    fn page(&mut self, kind: Kind, expected: usize) -> anyhow::Result<()> {
        self.asked += 1;
        let (form, set) = match (kind, self.last.take()) {
            (Kind::Last, _) => (String::new(), "<before/>".to_owned()),
            // Behind the page of before, which was somewhere: many in a row would stay in what is warm, so every tenth goes elsewhere.
            (Kind::Behind, Some(id)) if !self.asked.is_multiple_of(10) => {
                (String::new(), format!("<after>{id}</after>"))
            }
            (Kind::Behind | Kind::FromTime, _) => (
                format!(
                    "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>\
                     <field var='start'><value>{}</value></field></x>",
                    self.a_time()?
                ),
                String::new(),
            ),
        };
        let question = format!(
            "<iq type='set' id='page{n}'><query xmlns='urn:xmpp:mam:2' queryid='q{n}'>{form}\
             <set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{set}</set></query></iq>",
            n = self.asked
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
            let (Some(fin), Some(_)) = (fin, end) else {
                let refused = memmem::find(&conn.input, b"type='error'").is_some();
                ensure!(!refused, "{}", String::from_utf8_lossy(&conn.input));
                continue;
            };
            let results = memmem::find_iter(&conn.input, b"<result ").count();
            ensure!(
                results == expected,
                "a page of {results} messages instead of {expected}"
            );
            let fin = String::from_utf8_lossy(&conn.input[fin..]);
            let last = fin
                .split_once("<last>")
                .and_then(|(_, rest)| rest.split_once("</last>"));
            self.last = Some(last.context("a page without its last id")?.0.to_owned());
            conn.input = Vec::new();
            return Ok(());
        }
    }
}
