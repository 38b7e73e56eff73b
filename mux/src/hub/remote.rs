//! Threads that hold connections, and the link thread's view of each.
//!
//! In: batches of orders. Out: batches of reports, one per turn. Owns: the threads, their queues and wakers.
//! Never: wakes a thread that is awake anyway.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::{Events, Poll, Waker};

use super::{EVENTS, WAKER};
use crate::config::Config;
use crate::conn::Key;
use crate::conns::{ConnSet, Shared};
use crate::orders::{Order, Reports};

/// Batches in one queue. One turn makes one batch, so this is how many turns one side may be behind.
const BATCHES: usize = 64;
/// Orders that wait beyond a full queue before the link is not read any more.
const ORDERS_WAITING: usize = 16 * 1024;
/// How soon a full queue is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Wakes a thread once until it has looked.
struct Bell {
    rung: AtomicBool,
    waker: Arc<Waker>,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A waker fails only with its thread gone.
            let _ = self.waker.wake();
        }
    }

    /// To be called before looking into the queue: what comes after rings again.
    fn heard(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

/// One thread with connections, seen from the link's thread.
pub(super) struct Remote {
    batch: Vec<Order>,
    orders: Sender<Vec<Order>>,
    bell: Arc<Bell>,
    /// The link thread's, shared by all.
    up: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Remote {
    pub(super) fn push(&mut self, order: Order) {
        self.batch.push(order);
    }

    /// The end of a turn.
    pub(super) fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.orders.try_send(std::mem::take(&mut self.batch)) {
            Ok(()) => self.bell.ring(),
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.batch = batch;
                self.bell.ring();
            }
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        !self.batch.is_empty()
    }

    pub(super) fn is_far_behind(&self) -> bool {
        self.batch.len() > ORDERS_WAITING
    }

    /// The link's thread is about to look for reports.
    pub(super) fn heard(&self) {
        self.up.heard();
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.orders);
        // It must see that the queue is closed even if it has been rung before.
        let _ = self.bell.waker.wake();
        let _ = self.thread.join();
    }
}

/// Starts `threads - 1` threads.
pub(super) fn start(
    now: Instant,
    config: &Config,
    shared: &Arc<Shared>,
    waker: &Arc<Waker>,
) -> io::Result<(Vec<Remote>, Receiver<Reports>)> {
    let count = config.threads - 1;
    let (reports, received) = bounded(BATCHES);
    let up = Arc::new(Bell {
        rung: AtomicBool::new(false),
        waker: waker.clone(),
    });
    let mut remotes = Vec::new();
    for n in 0..count {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(false),
            waker: Arc::new(Waker::new(poll.registry(), WAKER)?),
        });
        let registry = poll.registry().try_clone()?;
        let set = ConnSet::new(
            now,
            n as u8,
            count,
            registry,
            shared.clone(),
            config.limits.clone(),
        );
        let (orders, inbox) = bounded(BATCHES);
        let worker = Worker {
            poll,
            set,
            inbox,
            bell: bell.clone(),
            reports: reports.clone(),
            up: up.clone(),
            batch: Reports::default(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("mux-conns-{n}"))
            .spawn(move || worker.run())?;
        remotes.push(Remote {
            batch: Vec::new(),
            orders,
            bell,
            up: up.clone(),
            thread,
        });
    }
    Ok((remotes, received))
}

struct Worker {
    poll: Poll,
    set: ConnSet,
    inbox: Receiver<Vec<Order>>,
    bell: Arc<Bell>,
    reports: Sender<Reports>,
    up: Arc<Bell>,
    /// Reports not sent yet.
    batch: Reports,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = Instant::now();
            let retry = (!self.batch.reports.is_empty()).then_some(now + RETRY);
            let until = [self.set.poll_timeout(now), retry]
                .into_iter()
                .flatten()
                .min();
            if let Err(error) = self
                .poll
                .poll(&mut events, until.map(|t| t.saturating_duration_since(now)))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a connections thread ends");
                return;
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    token => {
                        self.set
                            .handle_ready(now, Key::from_token(token), event, &mut self.batch)
                    }
                }
            }
            self.bell.heard();
            loop {
                match self.inbox.try_recv() {
                    Ok(orders) => {
                        for order in orders {
                            self.set.apply(now, order, &mut self.batch);
                        }
                    }
                    Err(crossbeam_channel::TryRecvError::Empty) => break,
                    Err(crossbeam_channel::TryRecvError::Disconnected) => return,
                }
            }
            self.set.handle_again(now, &mut self.batch);
            self.set.handle_timeout(now, &mut self.batch);
            self.set.flush(now, &mut self.batch);
            self.send();
        }
    }

    fn send(&mut self) {
        if self.batch.reports.is_empty() {
            return;
        }
        match self.reports.try_send(std::mem::take(&mut self.batch)) {
            Ok(()) => self.up.ring(),
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.batch = batch;
                self.up.ring();
            }
        }
    }
}
