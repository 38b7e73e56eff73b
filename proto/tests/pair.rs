//! A mux and a server on virtual time, with clients and a durable store modelled around them, from a seed: links cut in
//! the middle of a frame, either process killed, elements settled late. What the clients sent is settled exactly once and
//! in order; stored output reaches each client exactly once, whole and in order.

#[path = "pair/world.rs"]
mod world;

use world::{Faults, World};

/// More seeds: `PROTO_SEEDS=10000 cargo test -p isthmus-proto --test pair`.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("PROTO_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(150);
    match std::env::var("PROTO_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn run(faults: Faults) {
    for seed in seeds() {
        // The seed of a failure stands in the last line before the panic.
        println!("seed {seed} of {faults:?}");
        let mut world = World::new(seed, faults);
        for _ in 0..600 {
            world.step();
        }
        world.settle_down();
        world.check_all_arrived();
    }
}

#[test]
fn without_faults_everything_arrives() {
    run(Faults::default());
}

#[test]
fn a_cut_link_goes_on_and_nobody_notices() {
    run(Faults {
        cut: 20,
        ..Faults::default()
    });
}

#[test]
fn a_killed_server_loses_no_client_and_nothing_twice() {
    run(Faults {
        kill_server: 15,
        ..Faults::default()
    });
}

#[test]
fn a_killed_mux_takes_only_its_clients() {
    run(Faults {
        kill_mux: 8,
        ..Faults::default()
    });
}

#[test]
fn long_outages_end_what_they_must() {
    run(Faults {
        cut: 10,
        long_outage: 5,
        ..Faults::default()
    });
}

#[test]
fn a_full_retention_falls_back_to_resume() {
    run(Faults {
        cut: 20,
        tight: true,
        ..Faults::default()
    });
}

#[test]
fn another_store_gets_none_of_the_old_connections() {
    run(Faults {
        kill_server: 10,
        other_store: 5,
        ..Faults::default()
    });
}

#[test]
fn everything_at_once() {
    run(Faults {
        cut: 15,
        kill_server: 8,
        kill_mux: 3,
        long_outage: 2,
        other_store: 1,
        tight: false,
    });
}
