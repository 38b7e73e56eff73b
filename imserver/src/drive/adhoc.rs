//! The worker that runs ad-hoc commands of administrators.
//!
//! In: `<command/>` elements of shards. Out: what came of them, as events.
//! Never: runs on a shard; makes a shard wait.

use super::admin::Backend;
use crate::admin::adhoc::Commands;
use crate::event::{CommandJob, Event};
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::time::Instant;

/// Commands that wait for their turn; a shard answers what finds no place with an error.
pub const QUEUE: usize = 64;

/// Runs until every shard is gone.
pub fn run(jobs: &Receiver<CommandJob>, shards: &[Sender<Vec<Event>>], backend: &Arc<Backend>) {
    let mut commands = Commands::default();
    let mut random = |out: &mut [u8]| {
        getrandom::fill(out)
            .expect("the operating system's generator does not fail once it has started");
    };
    for job in jobs {
        let outcome = commands.handle(
            Instant::now(),
            &**backend,
            &job.from,
            &job.domain,
            &job.command,
            &mut random,
        );
        if let Some(shard) = shards.get(usize::from(job.shard.0)) {
            // A shard takes from its queue always, or it is gone.
            let _ = shard.send(vec![Event::Command(job.request, outcome)]);
        }
    }
}
