//! CPU and time per append and acknowledgement: `cargo run --release -p isthmus-store --example speed
//! [DIR]`. Batches of 1,000 messages of 300 bytes, acknowledged three batches later; CPU is read from
//! the kernel per thread, so the background threads are counted too.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use std::time::{Duration, Instant};
use store::sqlite::SqliteEngine;
use store::{Account, Append, Engine, Origin, PutMode, Write, Written};
use xmpp::jid::BareJid;
use xmpp::scram::{ScramHash, ScramKeys};

const BATCH: u64 = 1_000;

/// CPU nanoseconds of the calling thread, and of all threads.
fn cpu() -> (u64, u64) {
    let first = |path: &str| -> u64 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let all = tasks
        .map(|task| first(&format!("{}/schedstat", task.unwrap().path().display())))
        .sum();
    (first("/proc/thread-self/schedstat"), all)
}

struct Figures {
    commit: Vec<Duration>,
    append_cpu: u64,
    ack_cpu: u64,
    all_cpu: u64,
}

fn run(dir: &std::path::Path, archive: bool, batches: u64, owners: u64) -> Figures {
    let engine = SqliteEngine::open(dir).unwrap();
    let mut writer = engine.writer().unwrap();
    let jids: Vec<BareJid> = (0..owners)
        .map(|n| BareJid::parse(&format!("user{n}@example.com")).unwrap())
        .collect();
    let payload = Bytes::from(vec![b'x'; 300]);
    let mut figures = Figures {
        commit: Vec::new(),
        append_cpu: 0,
        ack_cpu: 0,
        all_cpu: 0,
    };
    let mut unacknowledged: std::collections::VecDeque<Vec<(usize, u64)>> = Default::default();
    let all_before = cpu().1;
    let mut number = 0;
    for batch in 0..batches {
        let writes: Vec<Write> = (0..BATCH)
            .map(|_| {
                number += 1;
                let owner = jids[(number * 7 % owners) as usize].clone();
                let peer = jids[(number * 7 % owners + 1) as usize % jids.len()].clone();
                let origin = Some(Origin {
                    session: number % owners,
                    stanza: number,
                    hash: number,
                });
                Write::Append(Append {
                    owner,
                    peer,
                    origin,
                    archive,
                    pending: true,
                    time_ms: 1_700_000_000_000 + number,
                    outgoing: false,
                    payload: payload.clone(),
                    text: None,
                })
            })
            .collect();
        let (started, before) = (Instant::now(), cpu().0);
        let written = writer.commit(&writes).unwrap();
        figures.append_cpu += cpu().0 - before;
        figures.commit.push(started.elapsed());
        let position = |written: &Written| {
            if let Written::Stored { position } = written {
                *position
            } else {
                0
            }
        };
        let first = number - BATCH + 1;
        unacknowledged.push_back(
            (first..)
                .zip(&written)
                .map(|(n, w)| ((n * 7 % owners) as usize, position(w)))
                .collect(),
        );
        if unacknowledged.len() > 3 {
            let rows = unacknowledged.pop_front().unwrap();
            let mut acks: Vec<Write> = rows
                .iter()
                .map(|(owner, position)| Write::Ack {
                    owner: jids[*owner].clone(),
                    positions: vec![*position],
                })
                .collect();
            let before_stanza = batch.saturating_sub(3) * BATCH;
            acks.extend((0..owners.min(1_000)).map(|n| Write::ForgetOrigins {
                session: (before_stanza + n) % owners,
                up_to_stanza: before_stanza,
            }));
            let before = cpu().0;
            writer.commit(&acks).unwrap();
            figures.ack_cpu += cpu().0 - before;
        }
    }
    figures.all_cpu = cpu().1 - all_before;
    figures
}

fn report(name: &str, mut figures: Figures, dir: &std::path::Path) {
    figures.commit.sort();
    let messages = figures.commit.len() as f64 * BATCH as f64;
    let us = |ns: u64| ns as f64 / 1_000.0 / messages;
    let at = |share: f64| {
        figures.commit[(figures.commit.len() as f64 * share) as usize].as_secs_f64() * 1e3
    };
    println!(
        "{name}: writer CPU us per append {:.2}, per ack {:.2}; all threads (with making the load) per message {:.2}; commit ms p50 {:.2} p99 {:.2} max {:.2}",
        us(figures.append_cpu),
        us(figures.ack_cpu),
        us(figures.all_cpu),
        at(0.5),
        at(0.99),
        figures.commit.last().unwrap().as_secs_f64() * 1e3,
    );
    for name in ["log.db", "log.db-wal", "index.db", "index.db-wal"] {
        let bytes = std::fs::metadata(dir.join(name)).map_or(0, |facts| facts.len());
        print!("  {name} {:.1} MB", bytes as f64 / 1e6);
    }
    println!();
}

fn accounts(dir: &std::path::Path) {
    let engine = SqliteEngine::open(dir).unwrap();
    let mut writer = engine.writer().unwrap();
    let key = |hash: ScramHash| ScramKeys {
        hash,
        salt: vec![1; 16],
        iterations: 10_000,
        stored_key: vec![2; hash.output_bytes()],
        server_key: vec![3; hash.output_bytes()],
    };
    let started = Instant::now();
    for batch in 0..100 {
        let writes: Vec<Write> = (0..1_000)
            .map(|n| Write::AccountPut {
                account: Account {
                    jid: BareJid::parse(&format!("import{}@example.com", batch * 1_000 + n))
                        .unwrap(),
                    keys: ScramHash::ALL.into_iter().map(key).collect(),
                    disabled: false,
                    created_ms: 0,
                },
                mode: PutMode::Create,
            })
            .collect();
        writer.commit(&writes).unwrap();
    }
    println!(
        "import of 100,000 accounts: {:.2} s",
        started.elapsed().as_secs_f64()
    );
    let mut reader = engine.reader().unwrap();
    let started = Instant::now();
    for n in 0..10_000 {
        reader
            .user(&BareJid::parse(&format!("import{}@example.com", n * 7)).unwrap())
            .unwrap()
            .unwrap();
    }
    println!(
        "load of a user: {:.1} us",
        started.elapsed().as_secs_f64() * 1e6 / 10_000.0
    );
}

fn sessions(dir: &std::path::Path) {
    let engine = SqliteEngine::open(dir).unwrap();
    let mut sessions = engine.session_store().unwrap();
    let mut spent = 0;
    for round in 0..1_000_u64 {
        let records: Vec<(u64, Option<Bytes>)> = (0..1_000)
            .map(|n| {
                (
                    (round * 1_000 + n) % 50_000,
                    Some(Bytes::from(vec![7; 120])),
                )
            })
            .collect();
        let before = cpu().0;
        sessions.put(&records).unwrap();
        spent += cpu().0 - before;
    }
    println!(
        "session store: {:.3} ms CPU per put of 1,000 records of 120 bytes",
        spent as f64 / 1e6 / 1_000.0
    );
    let started = Instant::now();
    println!(
        "  load of {}: {:.1} ms",
        sessions.load().unwrap().len(),
        started.elapsed().as_secs_f64() * 1e3
    );
}

fn main() {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, Into::into);
    let dir = dir.join(format!("store-speed-{}", std::process::id()));
    for (name, archive, owners) in [
        ("archive off", false, 2_000),
        ("archive on", true, 2_000),
        ("archive on, 100,000 owners", true, 100_000),
    ] {
        let sub = dir.join(name.replace([' ', ','], "-"));
        for round in ["first", "then"] {
            report(
                &format!("{name}, {round} 400,000"),
                run(&sub, archive, 400, owners),
                &sub,
            );
        }
        let started = Instant::now();
        drop(SqliteEngine::open(&sub).unwrap());
        println!(
            "  open and close: {:.0} ms",
            started.elapsed().as_secs_f64() * 1e3
        );
    }
    accounts(&dir.join("accounts"));
    sessions(&dir.join("sessions"));
    std::fs::remove_dir_all(&dir).unwrap();
}
