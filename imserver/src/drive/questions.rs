//! Questions to shards, and their answers: administrators ask, and the sweeper of directories.
//!
//! Owns: who waits for which answer. Never: holds up a shard; waits longer than [`ANSWER`] for one of them.

use crate::event::{AdminEvent, AdminReply, Event};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long an answer of a shard may take.
pub const ANSWER: Duration = Duration::from_secs(10);

type Waiting = Arc<Mutex<HashMap<u64, Sender<AdminReply>>>>;

/// See the module.
#[derive(Debug)]
pub struct Questions {
    shards: Vec<Sender<Vec<Event>>>,
    waiting: Waiting,
    next: AtomicU64,
}

/// A shard has not answered in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

impl Questions {
    /// To these shards, whose answers come by `replies`.
    ///
    /// # Errors
    /// The thread that hands them on cannot be started.
    pub fn start(
        shards: Vec<Sender<Vec<Event>>>,
        replies: Receiver<AdminReply>,
    ) -> anyhow::Result<Arc<Self>> {
        let waiting = Waiting::default();
        let table = waiting.clone();
        std::thread::Builder::new()
            .name("replies".into())
            .spawn(move || {
                for reply in replies {
                    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(to) = table.get(&reply.request()) {
                        // There is room for one of each shard that was asked.
                        let _ = to.try_send(reply);
                    }
                }
            })
            .context("thread `replies` cannot be started")?;
        Ok(Arc::new(Self {
            shards,
            waiting,
            next: AtomicU64::new(1),
        }))
    }

    /// Every shard, by its number.
    pub fn all(&self) -> Vec<usize> {
        (0..self.shards.len()).collect()
    }

    /// Asks some shards and gathers their answers. Blocks.
    ///
    /// # Errors
    /// Not all have answered.
    pub fn ask(
        &self,
        shards: &[usize],
        event: impl Fn(u64) -> AdminEvent,
    ) -> Result<Vec<AdminReply>, Busy> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = bounded(shards.len());
        let table = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        table().insert(n, tx);
        let asked = shards.iter().try_for_each(|&s| {
            let event = vec![Event::Admin(event(n))];
            self.shards[s].send_timeout(event, ANSWER).map_err(|_| Busy)
        });
        let replies = asked.and_then(|()| {
            let one = |_| rx.recv_timeout(ANSWER).map_err(|_| Busy);
            shards.iter().map(one).collect()
        });
        table().remove(&n);
        replies
    }
}
