//! What full-text search costs when messages are written, and how long it takes: `cargo run --release -p isthmus-store --example
//! archive_search [MILLIONS]` (1). A third of the messages is of one owner, in talks with 100 others; the rest of 10,000 more. Each has
//! twelve words of a language with 20,000, some of them in every other message. Pages of 100 from the end.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use std::time::{Duration, Instant};
use store::sqlite::SqliteEngine;
use store::{Append, ArchiveQuery, Engine, Reader, Text, Write};
use xmpp::jid::BareJid;

const BATCH: u64 = 4_096;
const PAGE: usize = 100;
const ROUNDS: u64 = 200;
const WORDS: f64 = 20_000.0;

fn jid(name: &str, n: u64) -> BareJid {
    BareJid::parse(&format!("{name}{n}@example.com")).unwrap()
}

/// Twelve words; the nth word of the language comes as often as 1/n.
fn body(n: u64) -> String {
    let mut seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..12).map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let uniform = (seed % 1_000_000) as f64 / 1_000_000.0;
        format!("wort{}ing", WORDS.powf(uniform) as u64)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn fill(engine: &SqliteEngine, rows: u64, with_text: bool) {
    let mut writer = engine.writer().unwrap();
    for first in (0..rows).step_by(BATCH as usize) {
        let append = |n: u64| {
            let body = body(n);
            let len = body.len() as u32;
            Write::Append(Append {
                owner: if n.is_multiple_of(3) {
                    jid("owner", 0)
                } else {
                    jid("other", n * 7 % 10_000)
                },
                peer: jid("peer", n * 11 % 100),
                origin: None,
                archive: true,
                pending: false,
                time_ms: 1_700_000_000_000 + n * 10,
                outgoing: n.is_multiple_of(2),
                payload: Bytes::from(format!("<message><body>{body}</body></message>")),
                text: with_text.then_some(Text::Part { start: 15, len }),
            })
        };
        let writes: Vec<Write> = (first..(first + BATCH).min(rows)).map(append).collect();
        writer.commit(&writes).unwrap();
    }
    engine.fold_all().unwrap();
}

/// Median and 99th percentile, and rows found in the middle.
fn time(
    reader: &mut dyn Reader,
    query: impl Fn(u64) -> ArchiveQuery,
) -> (Duration, Duration, usize) {
    let mut times: Vec<(Duration, usize)> = (0..ROUNDS)
        .map(|n| {
            let query = query(n);
            let started = Instant::now();
            let page = reader.archive_page(&query, usize::MAX).unwrap();
            (started.elapsed(), page.rows.len())
        })
        .collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    (median.0, times[times.len() * 99 / 100].0, median.1)
}

/// The nth question of a kind.
type Question<'a> = Box<dyn Fn(u64) -> ArchiveQuery + 'a>;

fn main() {
    let millions: u64 = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(1);
    let rows = millions * 1_000_000;
    for with_text in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(dir.path()).unwrap();
        let started = Instant::now();
        fill(&engine, rows, with_text);
        let took = started.elapsed().as_secs_f64();
        let index = std::fs::metadata(dir.path().join("index.db")).unwrap();
        println!(
            "{millions} million messages {} search: {:.0} rows/s written and indexed, index of {} MB",
            if with_text { "with" } else { "without" },
            rows as f64 / took,
            index.len() >> 20
        );
        if !with_text {
            continue;
        }
        let mut reader = engine.reader().unwrap();
        let ask = |owner: BareJid, text: String| ArchiveQuery {
            text: Some(text),
            last: true,
            ..ArchiveQuery::new(owner, PAGE)
        };
        let one = |text: &str| ask(jid("owner", 0), text.to_owned());
        let other = |n: u64, text: &str| ask(jid("other", n * 7 % 10_000), text.to_owned());
        let questions: [(&str, Question<'_>); 8] = [
            (
                "one of many, a common word",
                Box::new(|n| other(n, "wort1ing")),
            ),
            ("a beginning of many words", Box::new(|n| other(n, "wort1"))),
            ("a word nobody says", Box::new(|n| other(n, "wort99999ing"))),
            ("two words", Box::new(|n| other(n, "wort1 wort2"))),
            ("the busy one, a common word", Box::new(|_| one("wort1ing"))),
            (
                "a rare word",
                Box::new(|n| one(&format!("wort{}ing", 10_000 + n))),
            ),
            ("a beginning of many words", Box::new(|_| one("wort1"))),
            (
                "a common word in one talk",
                Box::new(|n| ArchiveQuery {
                    peer: Some(jid("peer", n * 33 % 100)),
                    ..one("wort1ing")
                }),
            ),
        ];
        for (what, query) in &questions {
            let (median, p99, found) = time(reader.as_mut(), query);
            println!("  {what:28} {median:>10.1?} {p99:>10.1?} (p99)   {found} found");
        }
    }
}
