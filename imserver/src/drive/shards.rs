//! The thread of one shard: takes batches of events, lets the shard handle them, hands on its effects.

use super::links::LinkBatch;
use super::lookups::Job;
use super::queue::Outbox;
use super::writer::WriteBatch;
use crate::event::{AdminReply, Effects, Event, SessionId, ShardId, Write};
use crate::shard::Shard;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How soon a shard tries again to send what did not fit.
const RETRY: Duration = Duration::from_millis(1);

/// How long the last write of a failed shard may take.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// Events handled before effects are handed on: bounds latency under load.
const EVENTS_PER_TURN: usize = 4_096;

/// To where the effects of a shard go.
pub struct Outlets {
    /// The link loop, and what wakes it.
    pub links: Outbox<LinkBatch>,
    /// Wakes the link loop.
    pub waker: Arc<mio::Waker>,
    /// The other shards, by number (its own place is never used).
    pub shards: Vec<Outbox<Vec<Event>>>,
    /// The store's writer.
    pub writer: Outbox<WriteBatch>,
    /// Store readers.
    pub reads: Outbox<Job>,
    /// Directory workers.
    pub looks: Outbox<Job>,
    /// Replies to administrators.
    pub admin: Sender<AdminReply>,
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlets")
    }
}

/// Runs until every sender of events is gone, or `Stop`.
pub fn run(id: ShardId, mut shard: Shard, events: &Receiver<Vec<Event>>, mut outlets: Outlets) {
    let clock = super::clock::Clock::new();
    loop {
        let now = clock.now();
        let clear = outlets.retry();
        let due = Duration::from_millis(shard.poll_timeout().saturating_sub(now.mono_ms).max(1));
        let wait = if clear { due } else { due.min(RETRY) };
        let mut taken = 0;
        let mut closed = false;
        match events.recv_timeout(wait) {
            Ok(batch) => {
                let now = clock.now();
                let mut next = Some(batch);
                while let Some(batch) = next {
                    taken += batch.len();
                    for event in batch {
                        let key = crate::linkset::key_of(&event);
                        let handled = catch_unwind(AssertUnwindSafe(|| shard.handle(now, event)));
                        if handled.is_err() {
                            outlets.give_up(id, key.and_then(|k| shard.name_of(k)));
                        }
                    }
                    next = if taken < EVENTS_PER_TURN {
                        events.try_recv().ok()
                    } else {
                        None
                    };
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => closed = true,
        }
        let now = clock.now();
        let credit = !outlets.is_long();
        let turn = catch_unwind(AssertUnwindSafe(|| {
            if now.mono_ms >= shard.poll_timeout() {
                shard.handle_timeout(now);
            }
            shard.give_credit(credit);
            shard.flush(now)
        }));
        match turn {
            Ok(effects) => outlets.hand_on(id, effects),
            Err(_) => outlets.give_up(id, None),
        }
        if closed {
            return;
        }
    }
}

impl Outlets {
    /// The shard has failed at an event: a defect of ours. Its state cannot be trusted, so the process ends as by `kill -9`; what
    /// is accepted is on disk, muxes keep their clients, and whoever supervises us starts us again. The session whose input did
    /// it is struck out first, or it would do it again.
    fn give_up(&mut self, id: ShardId, culprit: Option<SessionId>) -> ! {
        tracing::error!(shard = id.0, session = ?culprit, "a shard has failed (a defect of this program): the server ends and can be started again");
        if let Some(name) = culprit {
            self.writer.send(WriteBatch {
                shard: id,
                writes: vec![Write::Session(name, None)],
            });
            std::thread::sleep(LAST_WRITE);
        }
        std::process::abort();
    }

    fn hand_on(&mut self, id: ShardId, effects: Effects) {
        if !effects.writes.is_empty() {
            self.writer.send(WriteBatch {
                shard: id,
                writes: effects.writes,
            });
        }
        if !effects.shards.is_empty() {
            let mut per_shard: Vec<Vec<Event>> = self.shards.iter().map(|_| Vec::new()).collect();
            for (to, msg) in effects.shards {
                per_shard[usize::from(to.0)].push(Event::Shard(msg));
            }
            for (outbox, events) in self.shards.iter_mut().zip(per_shard) {
                if !events.is_empty() {
                    outbox.send(events);
                }
            }
        }
        for (tag, read) in effects.reads {
            self.reads.send(Job::Read(id, tag, read));
        }
        for (tag, look) in effects.looks {
            self.looks.send(Job::Look(id, tag, look));
        }
        for reply in effects.admin {
            // An administrator who has gone away needs no answer.
            let _ = self.admin.try_send(reply);
        }
        if !effects.links.is_empty() {
            self.links.send(LinkBatch {
                shard: id,
                commands: effects.links,
            });
            // The poll only fails when the link loop is gone, and then the process is ending.
            let _ = self.waker.wake();
        }
    }

    fn retry(&mut self) -> bool {
        let mut clear =
            self.links.retry() & self.writer.retry() & self.reads.retry() & self.looks.retry();
        for s in &mut self.shards {
            clear &= s.retry();
        }
        clear
    }

    fn is_long(&self) -> bool {
        self.links.is_long()
            || self.writer.is_long()
            || self.reads.is_long()
            || self.looks.is_long()
            || self.shards.iter().any(Outbox::is_long)
    }
}
