//! `sim --first N --seeds N`: runs seeds, prints what fails and how to see it again.

use clap::Parser;
use sim::{Break, Options, Scenario};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates servers, muxes and clients, one run per seed.
#[derive(Parser, Debug)]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Only this mix of faults: calm, cuts, kills, muxes, vanish, disk, tight, resources, storm.
    #[arg(long)]
    scenario: Option<String>,
    /// Break it on purpose: drop-ack, forget-held, early-answer, lose-origins, skip-records, lose-presence, settle-early, lose-groups, lose-resend,
    /// lose-lists, lose-items, lose-notices.
    #[arg(long = "break")]
    broken: Option<String>,
    /// Nobody publishes or blocks: seeds are as they were before clients did.
    #[arg(long)]
    plain: bool,
    /// Print everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Threads, each with its own seeds.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 5)]
    failures: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let options = Options {
        scenario: match &arguments.scenario {
            Some(name) => Some(
                Scenario::from_name(name).ok_or_else(|| anyhow::anyhow!("no scenario `{name}`"))?,
            ),
            None => None,
        },
        broken: match &arguments.broken {
            Some(name) => {
                Some(Break::from_name(name).ok_or_else(|| anyhow::anyhow!("no break `{name}`"))?)
            }
            None => None,
        },
        plain: arguments.plain,
        keep: arguments.verbose,
        print: arguments.verbose,
    };
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(arguments.first));
    let end = arguments.first + arguments.seeds;
    let totals = Arc::new(Mutex::new(Totals::default()));
    let mut threads = Vec::new();
    for _ in 0..arguments.threads.max(1) {
        let (next, totals, options) = (next.clone(), totals.clone(), options.clone());
        let failures_max = arguments.failures;
        threads.push(std::thread::spawn(move || {
            work(&next, end, &totals, &options, failures_max)
        }));
    }
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a run panicked; its seed is in the line above"))?;
    }
    let totals = totals
        .lock()
        .map_err(|_| anyhow::anyhow!("a run panicked"))?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} failed, {} messages, {} deliveries, {} events, {:.1} s, {:.0} seeds/s; {:?}",
        totals.seeds,
        totals.failed,
        totals.messages,
        totals.deliveries,
        totals.events,
        seconds,
        totals.seeds as f64 / seconds,
        totals.scenarios,
    );
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: u64,
    messages: usize,
    deliveries: usize,
    events: u64,
    scenarios: BTreeMap<&'static str, u64>,
}

fn work(next: &AtomicU64, end: u64, totals: &Mutex<Totals>, options: &Options, failures_max: u64) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = match std::panic::catch_unwind(|| sim::run(seed, options)) {
            Ok(outcome) => outcome,
            Err(panic) => {
                println!("seed {seed} panicked");
                std::panic::resume_unwind(panic);
            }
        };
        let Ok(mut totals) = totals.lock() else {
            return;
        };
        totals.seeds += 1;
        totals.messages += outcome.messages;
        totals.deliveries += outcome.deliveries;
        totals.events += outcome.events;
        *totals.scenarios.entry(outcome.scenario.name()).or_default() += 1;
        if !outcome.failures.is_empty() {
            totals.failed += 1;
            // Once more, with notes.
            let again = if options.keep {
                outcome
            } else {
                sim::run(
                    seed,
                    &Options {
                        keep: true,
                        ..options.clone()
                    },
                )
            };
            println!("seed {seed} ({}) failed:", again.scenario.name());
            if !options.print {
                again.lines.iter().for_each(|line| println!("  {line}"));
            }
            again
                .failures
                .iter()
                .for_each(|failure| println!("  FAILED: {failure}"));
            let broken = options
                .broken
                .map(|b| format!(" --break {}", b.name()))
                .unwrap_or_default();
            let scenario = options
                .scenario
                .map(|s| format!(" --scenario {}", s.name()))
                .unwrap_or_default();
            let plain = if options.plain { " --plain" } else { "" };
            println!("  again: sim --first {seed} --seeds 1{scenario}{broken}{plain} --verbose");
            if totals.failed >= failures_max {
                next.store(end, Ordering::Relaxed);
            }
        }
    }
}
