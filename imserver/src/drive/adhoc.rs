//! The threads that run ad-hoc commands of administrators: one for the conversations, which never waits for anything else, and a
//! few for the work.
//!
//! In: `<command/>` elements of shards. Out: what came of them, as events.
//! Never: runs on a shard; makes a shard wait; lets a long command hold up a short one, unless there are [`WORKERS`] long ones.

use super::admin::Backend;
use crate::admin::Refusal;
use crate::admin::adhoc::{Commands, RUNNING_MAX, Reply, Request, Task};
use crate::event::{CommandJob, Event, ShardId};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Commands that wait for their turn; a shard answers what finds no place with an error.
pub const QUEUE: usize = 64;
/// Commands that run at a time: administrators are few, and each asks for one thing after the other.
const WORKERS: usize = 4;
/// With nobody waiting there is nothing to look after but what comes.
const IDLE: Duration = Duration::from_secs(60);

type Finished = (u64, Result<Reply, Refusal>);

/// Starts the threads. They end when every shard is gone.
///
/// # Errors
/// A thread cannot be started.
pub fn start(
    jobs: Receiver<CommandJob>,
    shards: Vec<Sender<Vec<Event>>>,
    backend: Arc<Backend>,
) -> anyhow::Result<()> {
    // There is room for everything that may run.
    let (tasks, work) = bounded(RUNNING_MAX);
    let (finished, results) = bounded(RUNNING_MAX);
    for n in 0..WORKERS {
        let (work, finished, backend) = (work.clone(), finished.clone(), backend.clone());
        let name = format!("adhoc-work-{n}");
        spawn(&name, move || do_tasks(&work, &finished, &backend))?;
    }
    spawn("adhoc", move || {
        converse(&jobs, &tasks, &results, &shards, &backend)
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
        .with_context(|| format!("thread `{name}` cannot be started"))
}

fn do_tasks(work: &Receiver<Task>, finished: &Sender<Finished>, backend: &Arc<Backend>) {
    for task in work {
        let result = catch_unwind(AssertUnwindSafe(|| task.run(&**backend))).unwrap_or_else(|_| {
            let text = "the command has failed (a defect of this program)";
            Err(Refusal::new("unavailable", text))
        });
        if finished.send((task.id, result)).is_err() {
            return;
        }
    }
}

fn converse(
    jobs: &Receiver<CommandJob>,
    tasks: &Sender<Task>,
    results: &Receiver<Finished>,
    shards: &[Sender<Vec<Event>>],
    backend: &Arc<Backend>,
) {
    let mut commands: Commands<(ShardId, u64)> = Commands::default();
    let mut random = |out: &mut [u8]| {
        getrandom::fill(out)
            .expect("the operating system's generator does not fail once it has started");
    };
    loop {
        let due = commands.poll_timeout();
        let wait = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
        crossbeam_channel::select! {
            recv(jobs) -> job => {
                let Ok(job) = job else { return };
                let request = Request {
                    from: &job.from,
                    domain: &job.domain,
                    command: &job.command,
                };
                let asks = (job.shard, job.request);
                commands.handle(Instant::now(), &**backend, asks, &request, &mut random);
            }
            recv(results) -> finished => {
                let Ok((task, result)) = finished else { return };
                commands.finished(Instant::now(), task, result);
            }
            default(wait) => {}
        }
        commands.handle_timeout(Instant::now());
        for task in commands.poll_tasks() {
            // There is room, and the workers are there as long as this thread is.
            let _ = tasks.send(task);
        }
        for ((shard, request), outcome) in commands.poll_answers() {
            if let Some(shard) = shards.get(usize::from(shard.0)) {
                // A shard takes from its queue always, or it is gone.
                let _ = shard.send(vec![Event::Command(request, outcome)]);
            }
        }
    }
}
