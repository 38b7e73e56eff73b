//! What the writer, the index thread, the checkpoint thread and the readers of one store share.
//!
//! Locks are held for microseconds, never across a disk access (but for the gate, which exists for
//! that), and never two at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::tail::Tail;
use crate::StoreError;

/// The index thread is woken when the tail holds this many rows; 80 bytes each.
pub(crate) const FOLD_AT_ROWS: usize = 65_536;

/// A fold leaves this many rows in the tail, so that rows acknowledged soon never reach the index.
pub(crate) const FOLD_KEEP_ROWS: usize = 32_768;

/// With this many rows in the tail the writer waits for the index thread: some 30 MB.
pub(crate) const TAIL_ROWS_MAX: usize = 262_144;

/// Locks, whatever a panicking thread left: the values are changed in steps that each keep them whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Dead rows on their way out of `log.db`.
#[derive(Default)]
pub(crate) struct Sweep {
    /// (first, last) still to be deleted, in the order their death was recorded, with the key of the
    /// record in `index.db`.
    pub queue: VecDeque<DeadRange>,
    /// Keys of ranges that are gone: their records may be deleted.
    pub done: Vec<u64>,
}

/// See [`Sweep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadRange {
    pub key: u64,
    pub first: u64,
    pub last: u64,
}

/// What the background threads have been asked to do.
#[derive(Default)]
struct Asked {
    fold: bool,
    fold_to: Option<u64>,
    checkpoint: bool,
    stop: bool,
}

/// Which background thread waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Fold, if the tail is long.
    Fold,
    /// Fold up to a position.
    FoldTo(u64),
    Checkpoint,
}

/// Why a background thread woke up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    Asked,
    AskedToFold(u64),
    Tick,
    Stop,
}

pub(crate) struct Shared {
    pub tail: Mutex<Tail>,
    /// The index thread has let go of rows.
    pub room: Condvar,
    pub sweep: Mutex<Sweep>,
    /// Why the index thread cannot work, while it cannot.
    pub index_failure: Mutex<Option<StoreError>>,
    /// See [`Reader::revocations`](crate::Reader::revocations).
    pub revoked: Arc<AtomicU64>,
    asked: Mutex<Asked>,
    wake: Condvar,
    gate: Mutex<()>,
    gate_wanted: AtomicBool,
    gate_free: Condvar,
}

impl Shared {
    pub fn new(tail: Tail) -> Self {
        Shared {
            tail: Mutex::new(tail),
            room: Condvar::new(),
            sweep: Mutex::default(),
            index_failure: Mutex::default(),
            revoked: Arc::default(),
            asked: Mutex::default(),
            wake: Condvar::new(),
            gate: Mutex::new(()),
            gate_wanted: AtomicBool::new(false),
            gate_free: Condvar::new(),
        }
    }

    /// Wakes a background thread.
    pub fn ask(&self, work: Work) {
        let mut asked = lock(&self.asked);
        match work {
            Work::Fold => asked.fold = true,
            Work::FoldTo(to) => asked.fold_to = asked.fold_to.max(Some(to)),
            Work::Checkpoint => asked.checkpoint = true,
        }
        self.wake.notify_all();
    }

    /// Tells the background threads to end.
    pub fn stop(&self) {
        lock(&self.asked).stop = true;
        self.wake.notify_all();
        self.room.notify_all();
    }

    pub fn stopping(&self) -> bool {
        lock(&self.asked).stop
    }

    /// Waits until asked, told to stop, or `tick` has passed.
    pub fn wait(&self, work: Work, tick: Duration) -> Woken {
        let until = Instant::now() + tick;
        let mut asked = lock(&self.asked);
        loop {
            let flag = if work == Work::Checkpoint {
                &mut asked.checkpoint
            } else {
                &mut asked.fold
            };
            if std::mem::take(flag) {
                return Woken::Asked;
            }
            if work != Work::Checkpoint
                && let Some(to) = asked.fold_to.take()
            {
                return Woken::AskedToFold(to);
            }
            if asked.stop {
                return Woken::Stop;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::Tick;
            }
            asked = match self.wake.wait_timeout(asked, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The writer's way into a transaction; waits while the checkpoint thread finishes a WAL.
    pub fn enter_gate(&self) -> MutexGuard<'_, ()> {
        let mut guard = lock(&self.gate);
        while self.gate_wanted.load(Ordering::Acquire) {
            guard = self
                .gate_free
                .wait(guard)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        guard
    }

    /// Runs `work` while no transaction is open in `log.db` or `state.db`.
    pub fn with_gate_closed<T>(&self, work: impl FnOnce() -> T) -> T {
        self.gate_wanted.store(true, Ordering::Release);
        let guard = lock(&self.gate);
        let result = work();
        self.gate_wanted.store(false, Ordering::Release);
        drop(guard);
        self.gate_free.notify_all();
        result
    }
}
