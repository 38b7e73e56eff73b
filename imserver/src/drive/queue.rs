//! Bounded queues of batches between threads, with a list at the sender for what does not fit.
//!
//! Never: blocks the sender.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;

/// Batches a queue holds before the sender keeps them itself. A batch is what one loop turn of the sender produced.
pub const BATCHES_MAX: usize = 256;

/// A list longer than this makes a shard stop giving out credit.
pub const BACKLOG_LONG: usize = 64;

/// The sending end.
#[derive(Debug)]
pub struct Outbox<T> {
    tx: Sender<T>,
    backlog: VecDeque<T>,
}

/// A queue of [`BATCHES_MAX`] batches.
pub fn queue<T>() -> (Sender<T>, Receiver<T>) {
    bounded(BATCHES_MAX)
}

impl<T> Outbox<T> {
    /// Sends on this queue.
    pub fn new(tx: Sender<T>) -> Self {
        Self {
            tx,
            backlog: VecDeque::new(),
        }
    }

    /// Sends, or keeps it for [`Outbox::retry`]. A receiver that is gone takes everything.
    pub fn send(&mut self, batch: T) {
        self.backlog.push_back(batch);
        self.retry();
    }

    /// Sends what is kept, as far as it fits. True when nothing is left.
    pub fn retry(&mut self) -> bool {
        while let Some(batch) = self.backlog.pop_front() {
            match self.tx.try_send(batch) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(batch)) => {
                    self.backlog.push_front(batch);
                    return false;
                }
            }
        }
        true
    }

    /// The list is long: the receiver does not keep up.
    pub fn is_long(&self) -> bool {
        self.backlog.len() > BACKLOG_LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_kept_and_goes_in_order() {
        let (tx, rx) = queue();
        let mut out = Outbox::new(tx);
        for n in 0..BATCHES_MAX + BACKLOG_LONG + 2 {
            out.send(n);
        }
        assert!(out.is_long());
        let mut next = 0;
        while let Ok(n) = rx.try_recv() {
            assert_eq!(n, next);
            next += 1;
            out.retry();
        }
        assert_eq!(next, BATCHES_MAX + BACKLOG_LONG + 2);
        assert!(!out.is_long());
    }
}
