//! The one thread that writes: group commit across all shards.
//!
//! In: batches of writes of the shards. Out: `Durable`, to each shard in the order of its writes.
//! Never: answers before the commit. A disk that refuses fails the batch, not the server.

use super::queue::Outbox;
use crate::event::{Event, ShardId, Write};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{SessionStore, StoreError, WriteError, Writer, Written};

/// Writes in one commit: bounds its latency.
const WRITES_PER_COMMIT: usize = 8_192;

/// How long the queue is empty before housekeeping.
const IDLE: Duration = Duration::from_millis(50);

/// A disk that is all but full takes some writes and refuses others: it takes them again when it has refused none for so long.
const STEADY: Duration = Duration::from_secs(60);

/// Writes of one turn of one shard (or of an administrator's worker).
#[derive(Debug)]
pub struct WriteBatch {
    /// Whose.
    pub shard: ShardId,
    /// In order.
    pub writes: Vec<Write>,
}

/// The stores it writes and where the answers go.
pub struct StoreWriter {
    /// The durable store.
    pub writer: Box<dyn Writer>,
    /// The session store.
    pub sessions: Box<dyn SessionStore>,
    /// One per shard.
    pub shards: Vec<Outbox<Vec<Event>>>,
    /// Direct writes of administrators' workers: each waits for its own answer.
    pub direct: Receiver<DirectWrite>,
}

/// Writes whose sender waits for the results.
#[derive(Debug)]
pub struct DirectWrite {
    /// What.
    pub writes: Vec<store::Write>,
    /// Where the results go.
    pub reply: Sender<Result<Vec<Written>, String>>,
}

/// For who may wait for its own writes: administrators' threads and directory workers.
#[derive(Clone, Debug)]
pub struct DirectWriter(Sender<DirectWrite>);

impl DirectWriter {
    /// How long a place in the queue may take, and then the commit: a disk that needs longer is out of order.
    const QUEUE: Duration = Duration::from_secs(10);
    const COMMIT: Duration = Duration::from_secs(60);

    /// The handle, and the end that the writer has.
    pub fn new() -> (Self, Receiver<DirectWrite>) {
        /// Each waits for its own, so there are no more than threads that write.
        const WAITING_MAX: usize = 64;
        let (tx, rx) = bounded(WAITING_MAX);
        (Self(tx), rx)
    }

    /// Commits these writes. Blocks.
    ///
    /// # Errors
    /// The store does not take them, or not in time.
    pub fn write(&self, writes: Vec<store::Write>) -> Result<Vec<Written>, String> {
        let (tx, rx) = bounded(1);
        let busy = || "the store is busy".to_owned();
        self.0
            .send_timeout(DirectWrite { writes, reply: tx }, Self::QUEUE)
            .map_err(|_| busy())?;
        rx.recv_timeout(Self::COMMIT).map_err(|_| busy())?
    }

    /// Leaves them to the writer and waits for nothing. False: it has no time for them now.
    pub fn hand_over(&self, writes: Vec<store::Write>) -> bool {
        let (reply, _) = bounded(1);
        self.0.try_send(DirectWrite { writes, reply }).is_ok()
    }
}

impl directory::local::AccountWriter for DirectWriter {
    fn write(&self, writes: Vec<store::Write>) -> Result<Vec<Written>, String> {
        DirectWriter::write(self, writes)
    }

    fn hand_over(&self, writes: Vec<store::Write>) -> bool {
        DirectWriter::hand_over(self, writes)
    }
}

impl std::fmt::Debug for StoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreWriter")
    }
}

impl StoreWriter {
    /// Runs until every shard is gone.
    pub fn run(mut self, batches: &Receiver<WriteBatch>) {
        let mut numbers = vec![0u64; self.shards.len()];
        let mut failing = None;
        loop {
            let clear = self.shards.iter_mut().fold(true, |c, s| c & s.retry());
            let mut round = Vec::new();
            let mut count = 0;
            crossbeam_channel::select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => { count += batch.writes.len(); round.push(batch); }
                    Err(_) => return,
                },
                recv(self.direct) -> direct => if let Ok(direct) = direct { self.direct(direct); },
                default(if clear { IDLE } else { Duration::from_millis(1) }) => self.housekeeping(),
            }
            while count < WRITES_PER_COMMIT {
                match batches.recv_timeout(Duration::ZERO) {
                    Ok(batch) => {
                        count += batch.writes.len();
                        round.push(batch);
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            if !round.is_empty() {
                self.commit(round, &mut numbers, &mut failing);
            }
            if let Ok(direct) = self.direct.try_recv() {
                self.direct(direct);
            }
        }
    }

    fn commit(
        &mut self,
        round: Vec<WriteBatch>,
        numbers: &mut [u64],
        failing: &mut Option<Instant>,
    ) {
        let mut records = Vec::new();
        let mut writes = Vec::new();
        // For each batch: its shard, and for each of its writes whether it went to the durable store.
        let mut plan: Vec<(ShardId, Vec<bool>)> = Vec::with_capacity(round.len());
        for batch in round {
            let mut kinds = Vec::with_capacity(batch.writes.len());
            for write in batch.writes {
                match write {
                    Write::Store(w) => {
                        writes.push(w);
                        kinds.push(true);
                    }
                    Write::Session(id, record) => {
                        records.push((id.0, record));
                        kinds.push(false);
                    }
                }
            }
            plan.push((batch.shard, kinds));
        }
        let sessions = if records.is_empty() {
            Ok(())
        } else {
            self.sessions.put(&records)
        };
        let stored = if writes.is_empty() {
            Ok(Vec::new())
        } else {
            self.writer.commit(&writes)
        };
        self.report(&sessions, &stored, failing);
        let session_result = match sessions {
            Ok(()) => Written::Done,
            Err(e) => Written::Failed(WriteError::Store(Arc::new(e))),
        };
        let mut results = match stored {
            Ok(results) => results.into_iter(),
            Err(e) => {
                let e = Arc::new(e);
                vec![Written::Failed(WriteError::Store(e)); writes.len()].into_iter()
            }
        };
        for (shard, kinds) in plan {
            let at = usize::from(shard.0);
            let answers: Vec<Written> = kinds
                .into_iter()
                .map(|durable| {
                    if durable {
                        results.next().expect("one result per write")
                    } else {
                        session_result.clone()
                    }
                })
                .collect();
            let first = numbers[at] + 1;
            numbers[at] += answers.len() as u64;
            self.shards[at].send(vec![Event::Durable {
                first,
                results: answers,
            }]);
        }
    }

    /// One line per change of state.
    fn report(
        &self,
        sessions: &Result<(), StoreError>,
        stored: &Result<Vec<Written>, StoreError>,
        failing: &mut Option<Instant>,
    ) {
        let error = sessions.as_ref().err().or(stored.as_ref().err());
        match state(error.is_some(), Instant::now(), failing) {
            Some(true) => {
                let error = error.map(tracing::field::display);
                tracing::error!(
                    error,
                    "the store refuses writes: messages are answered with resource-constraint until it takes them"
                );
            }
            Some(false) => tracing::info!("the store takes writes again"),
            None => {}
        }
    }

    fn direct(&mut self, direct: DirectWrite) {
        let result = self
            .writer
            .commit(&direct.writes)
            .map_err(|e| e.to_string());
        // Who does not wait any more needs no answer.
        let _ = direct.reply.try_send(result);
    }

    fn housekeeping(&mut self) {
        if let Err(e) = self.writer.maintain() {
            tracing::warn!(error = %e, "housekeeping of the store failed; it will be tried again");
        }
    }
}

/// How the store is now, if that is news. True: it refuses. `failing`: when it last did.
fn state(refused: bool, now: Instant, failing: &mut Option<Instant>) -> Option<bool> {
    match (refused, *failing) {
        (true, before) => {
            *failing = Some(now);
            before.is_none().then_some(true)
        }
        (false, Some(last)) if now.saturating_duration_since(last) >= STEADY => {
            *failing = None;
            Some(false)
        }
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_now_and_then_is_said_once() {
        let begin = Instant::now();
        let mut failing = None;
        let mut at = |s, refused| state(refused, begin + Duration::from_secs(s), &mut failing);
        assert_eq!(at(0, false), None);
        assert_eq!(at(1, true), Some(true));
        for n in 2..100 {
            assert_eq!(at(n, n % 2 == 1), None);
        }
        assert_eq!(at(150, false), None);
        assert_eq!(at(159, false), Some(false));
        assert_eq!(at(160, false), None);
        assert_eq!(at(161, true), Some(true));
    }
}
