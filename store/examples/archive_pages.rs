//! How long a page of an archive takes, out of few and of many messages: `cargo run --release -p isthmus-store --example
//! archive_pages [MILLIONS...]` (1 and 10). A third of the messages is of one owner, in talks with 100 others; the rest of
//! 10,000 more. Pages of 100: the first, the last, behind and before a random id, of one talk, and from a random time on.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use std::time::{Duration, Instant};
use store::sqlite::SqliteEngine;
use store::{Append, ArchiveQuery, Engine, Reader, Write};
use xmpp::jid::BareJid;

const BATCH: u64 = 4_096;
const PAGE: usize = 100;
const ROUNDS: u64 = 300;

fn jid(name: &str, n: u64) -> BareJid {
    BareJid::parse(&format!("{name}{n}@example.com")).unwrap()
}

fn fill(engine: &SqliteEngine, rows: u64) {
    let mut writer = engine.writer().unwrap();
    let payload = Bytes::from(vec![b'x'; 200]);
    for first in (0..rows).step_by(BATCH as usize) {
        let append = |n: u64| {
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
                payload: payload.clone(),
                text: None,
            })
        };
        let writes: Vec<Write> = (first..(first + BATCH).min(rows)).map(append).collect();
        writer.commit(&writes).unwrap();
    }
    engine.fold_all().unwrap();
}

/// Median and 99th percentile.
fn time(reader: &mut dyn Reader, query: impl Fn(u64) -> ArchiveQuery) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|n| {
            let query = query(n);
            let started = Instant::now();
            let page = reader.archive_page(&query, usize::MAX).unwrap();
            let took = started.elapsed();
            assert_eq!(page.rows.len(), PAGE, "{query:?}");
            took
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The nth question of a kind.
type Question<'a> = Box<dyn Fn(u64) -> ArchiveQuery + 'a>;

fn main() {
    let mut millions: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    if millions.is_empty() {
        millions = vec![1, 10];
    }
    for millions in millions {
        let rows = millions * 1_000_000;
        let dir = tempfile::tempdir().unwrap();
        let engine = SqliteEngine::open(dir.path()).unwrap();
        let started = Instant::now();
        fill(&engine, rows);
        println!(
            "{millions} million messages, written in {:.0?}",
            started.elapsed()
        );
        let mut reader = engine.reader().unwrap();
        let all = ArchiveQuery::new(jid("owner", 0), PAGE);
        // Far from both ends; never the same page twice.
        let position = |n: u64| Some(rows / 10 + n * (rows * 8 / 10 / ROUNDS));
        let questions: [(&str, Question<'_>); 6] = [
            ("the first", Box::new(|_| all.clone())),
            (
                "the last",
                Box::new(|_| ArchiveQuery {
                    last: true,
                    ..all.clone()
                }),
            ),
            (
                "behind an id",
                Box::new(|n| ArchiveQuery {
                    after: position(n),
                    ..all.clone()
                }),
            ),
            (
                "before an id",
                Box::new(|n| ArchiveQuery {
                    before: position(n),
                    last: true,
                    ..all.clone()
                }),
            ),
            (
                "with one, before an id",
                Box::new(|n| ArchiveQuery {
                    peer: Some(jid("peer", n * 33 % 100)),
                    before: position(n),
                    last: true,
                    ..all.clone()
                }),
            ),
            (
                "from a time on",
                Box::new(|n| ArchiveQuery {
                    start_ms: position(n).map(|p| 1_700_000_000_000 + p * 10),
                    ..all.clone()
                }),
            ),
        ];
        for (what, query) in &questions {
            let (median, p99) = time(reader.as_mut(), query);
            println!("  {what:24} {median:>10.1?} {p99:>10.1?} (p99)");
        }
    }
}
