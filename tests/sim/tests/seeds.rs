//! What `make test` runs of the simulation: some seeds of everything, the same seed twice, and each way to break it.

use sim::{Break, Options, Scenario, run};

/// Seeds of every run; `make sim` runs 10,000.
const SEEDS: u64 = 300;

/// A break must be caught within so many seeds.
const BREAK_SEEDS: u64 = 150;

#[test]
fn seeds_are_clean() {
    for seed in 1..=SEEDS {
        let outcome = run(
            seed,
            &Options {
                keep: true,
                ..Options::default()
            },
        );
        assert!(
            outcome.failures.is_empty(),
            "seed {seed} ({}): {:#?}\n{}",
            outcome.scenario.name(),
            outcome.failures,
            outcome.lines.join("\n"),
        );
    }
}

/// Seeds that found a defect once, and which.
const FOUND: [(u64, &str); 7] = [
    (
        757,
        "what a session was owed when it became unavailable waited for its end",
    ),
    (
        10_411,
        "presence of a session that had ended came again after that of its successor",
    ),
    (
        10_878,
        "an <a/> under way to a session that another log-in had replaced",
    ),
    (
        21_225,
        "a flood took a message from the other resource before its shard knew that it was on disk",
    ),
    (22_865, "the same"),
    (
        22_591,
        "what one session had acknowledged and another's mux had not taken was forgotten by a kill",
    ),
    (
        14_870,
        "a flood to one of two sessions was taken to have reached its mux",
    ),
];

/// The same, of those with clients that publish and block.
const FOUND_SINCE: [(u64, &str); 5] = [
    (
        120,
        "who blocked somebody and left at once stayed available for them",
    ),
    (
        2_893,
        "what a blocked sender had sent before was passed by for ever by who was unavailable when the block ended",
    ),
    (4_029, "the same"),
    (
        5_491,
        "a notice that waited for one member of a group was told to all of them once more",
    ),
    (
        34_469,
        "what a client had sent before it went was dropped when it logged in anew while its account was being loaded",
    ),
];

#[test]
fn seeds_that_found_something_are_clean() {
    // The first were found before clients published or blocked.
    let found = FOUND.map(|(seed, what)| (seed, what, true));
    let since = FOUND_SINCE.map(|(seed, what)| (seed, what, false));
    for (seed, what, plain) in found.into_iter().chain(since) {
        let options = Options {
            plain,
            ..Options::default()
        };
        let outcome = run(seed, &options);
        assert!(
            outcome.failures.is_empty(),
            "seed {seed} ({what}): {:#?}",
            outcome.failures
        );
    }
}

#[test]
fn every_scenario_does_what_it_is_for() {
    for scenario in Scenario::ALL {
        let options = Options {
            scenario: Some(scenario),
            ..Options::default()
        };
        let outcomes: Vec<_> = (1..=10).map(|seed| run(seed, &options)).collect();
        let messages: usize = outcomes.iter().map(|o| o.messages).sum();
        let deliveries: usize = outcomes.iter().map(|o| o.deliveries).sum();
        assert!(
            messages > 200 && deliveries > 150,
            "{}: {messages} messages, {deliveries} deliveries",
            scenario.name()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=40 {
        let first = run(seed, &Options::default());
        let second = run(
            seed,
            &Options {
                keep: true,
                ..Options::default()
            },
        );
        assert_eq!(
            first.hash,
            second.hash,
            "seed {seed} ({})",
            first.scenario.name()
        );
        assert_eq!(first.events, second.events, "seed {seed}");
    }
}

#[test]
fn what_is_broken_on_purpose_is_caught() {
    for broken in Break::ALL {
        let options = Options {
            broken: Some(broken),
            ..Options::default()
        };
        let caught = (1..=BREAK_SEEDS).find(|&seed| !run(seed, &options).failures.is_empty());
        assert!(
            caught.is_some(),
            "{} was not noticed in {BREAK_SEEDS} seeds",
            broken.name()
        );
    }
}
