//! The thread of one shard: takes batches of events, lets the shard handle them, hands on its effects.
//!
//! Never: goes on with a shard that has panicked.

use super::links::LinkBatch;
use super::lookups::{Lookups, ReadJob};
use super::queue::Outbox;
use super::writer::WriteBatch;
use crate::admin::adhoc::Outcome;
use crate::event::{
    AdminReply, CommandJob, ConnKey, Effects, Event, Now, Read, SessionId, ShardId, ShardMsg, Write,
};
use crate::shard::Shard;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xmpp::error::StanzaError;

/// How soon a shard tries again to send what did not fit.
const RETRY: Duration = Duration::from_millis(1);

/// How long the last write of a failed shard may take: what is before it in the writer's queue, and a slow disk. The process
/// ends without it if it takes longer; then the worst is another start.
const LAST_WRITE: Duration = Duration::from_secs(5);

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
    pub reads: Outbox<ReadJob>,
    /// Those for what takes long.
    pub slow_reads: Outbox<ReadJob>,
    /// Directories.
    pub looks: Lookups,
    /// Answers of directories that were there at once: events of the next turn.
    pub answers: Vec<Event>,
    /// Replies to administrators.
    pub admin: Sender<AdminReply>,
    /// The worker of ad-hoc commands.
    pub commands: Sender<CommandJob>,
    /// Number of the last write handed on.
    pub written: u64,
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlets")
    }
}

/// What is driven: a [`Shard`], or what a test puts in its place.
pub trait Driven {
    /// See [`Shard::handle`].
    fn handle(&mut self, now: Now, event: Event);
    /// See [`Shard::handle_timeout`].
    fn handle_timeout(&mut self, now: Now);
    /// See [`Shard::poll_timeout`].
    fn poll_timeout(&self) -> u64;
    /// See [`Shard::give_credit`].
    fn give_credit(&mut self, yes: bool);
    /// See [`Shard::flush`].
    fn flush(&mut self, now: Now) -> Effects;
    /// See [`Shard::name_of`].
    fn name_of(&self, key: ConnKey) -> Option<SessionId>;
}

impl Driven for Shard {
    fn handle(&mut self, now: Now, event: Event) {
        Shard::handle(self, now, event);
    }

    fn handle_timeout(&mut self, now: Now) {
        Shard::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> u64 {
        Shard::poll_timeout(self)
    }

    fn give_credit(&mut self, yes: bool) {
        Shard::give_credit(self, yes);
    }

    fn flush(&mut self, now: Now) -> Effects {
        Shard::flush(self, now)
    }

    fn name_of(&self, key: ConnKey) -> Option<SessionId> {
        Shard::name_of(self, key)
    }
}

/// The shard has panicked: a defect of ours, and its state cannot be trusted.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    /// The session whose input did it, if that is known.
    culprit: Option<SessionId>,
}

/// Runs until every sender of events is gone, or `Stop`.
///
/// When the shard panics, the process ends as by `kill -9`: what is accepted is on disk, muxes keep their clients, and whoever
/// supervises us starts us again. The session whose input did it is struck out first, or it would do it again.
pub fn run(
    id: ShardId,
    mut shard: impl Driven,
    events: &Receiver<Vec<Event>>,
    mut outlets: Outlets,
) {
    if let Err(Failed { culprit }) = turns(id, &mut shard, events, &mut outlets) {
        tracing::error!(shard = id.0, session = ?culprit, "a shard has failed (a defect of this program): the server ends and can be started again");
        if let Some(name) = culprit {
            outlets.strike_out(id, name, events, LAST_WRITE);
        }
        std::process::abort();
    }
}

fn turns(
    id: ShardId,
    shard: &mut impl Driven,
    events: &Receiver<Vec<Event>>,
    outlets: &mut Outlets,
) -> Result<(), Failed> {
    let clock = super::clock::Clock::new();
    loop {
        let now = clock.now();
        let clear = outlets.retry();
        let due = Duration::from_millis(shard.poll_timeout().saturating_sub(now.mono_ms).max(1));
        let answers = std::mem::take(&mut outlets.answers);
        let wait = match (answers.is_empty(), clear) {
            (false, _) => Duration::ZERO,
            (true, true) => due,
            (true, false) => due.min(RETRY),
        };
        for event in answers {
            catch_unwind(AssertUnwindSafe(|| shard.handle(now, event)))
                .map_err(|_| Failed { culprit: None })?;
        }
        let mut taken = 0;
        let mut closed = false;
        match events.recv_timeout(wait) {
            Ok(batch) => {
                let now = clock.now();
                let mut next = Some(batch);
                while let Some(batch) = next {
                    taken += batch.len();
                    for event in batch {
                        // Asked before: a shard that fails half-way may have taken the session out already.
                        let culprit = culprit(shard, &event);
                        catch_unwind(AssertUnwindSafe(|| shard.handle(now, event)))
                            .map_err(|_| Failed { culprit })?;
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
        outlets.hand_on(id, turn.map_err(|_| Failed { culprit: None })?);
        if closed {
            return Ok(());
        }
    }
}

/// The session that caused an event: that of its connection, or the sender of what another shard hands over.
fn culprit(shard: &impl Driven, event: &Event) -> Option<SessionId> {
    match event {
        Event::Shard(ShardMsg::Stanza(routed)) => routed.origin.map(|o| SessionId(o.session)),
        _ => crate::linkset::key_of(event).and_then(|key| shard.name_of(key)),
    }
}

impl Outlets {
    /// Takes a session out of the session store, and waits until that is written. Other events find nobody any more.
    fn strike_out(
        &mut self,
        id: ShardId,
        name: SessionId,
        events: &Receiver<Vec<Event>>,
        patience: Duration,
    ) {
        let until = Instant::now() + patience;
        self.write(id, vec![Write::Session(name, None)]);
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let wait = if self.writer.retry() {
                left
            } else {
                left.min(RETRY)
            };
            match events.recv_timeout(wait) {
                Ok(batch) if batch.iter().any(|e| self.is_last(e)) => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// It answers the last write there was.
    fn is_last(&self, event: &Event) -> bool {
        matches!(event, Event::Durable { first, results }
            if first + results.len() as u64 > self.written)
    }

    fn write(&mut self, shard: ShardId, writes: Vec<Write>) {
        self.written += writes.len() as u64;
        self.writer.send(WriteBatch { shard, writes });
    }

    fn hand_on(&mut self, id: ShardId, effects: Effects) {
        if !effects.writes.is_empty() {
            self.write(id, effects.writes);
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
            let outbox = match read {
                Read::Archive(_) | Read::ArchiveEnds(_) | Read::LastItems(_) => {
                    &mut self.slow_reads
                }
                _ => &mut self.reads,
            };
            outbox.send(ReadJob(id, tag, read));
        }
        for (tag, look) in effects.looks {
            self.answers.extend(self.looks.ask(id, tag, look));
        }
        for job in effects.commands {
            if let Err(refused) = self.commands.try_send(job) {
                let text = "too many commands are waiting; try again".to_owned();
                let outcome = Outcome::Error(StanzaError::ResourceConstraint, None, text);
                let request = refused.into_inner().request;
                self.answers.push(Event::Command(request, outcome));
            }
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
        let mut clear = self.links.retry() & self.writer.retry() & self.reads.retry();
        clear &= self.slow_reads.retry();
        for s in &mut self.shards {
            clear &= s.retry();
        }
        clear
    }

    fn is_long(&self) -> bool {
        self.links.is_long()
            || self.writer.is_long()
            || self.reads.is_long()
            || self.slow_reads.is_long()
            || self.shards.iter().any(Outbox::is_long)
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::queue;
    use super::*;
    use crate::event::LinkId;
    use proto::frame::{ConnId, Input};
    use std::os::unix::process::ExitStatusExt as _;

    const CONN: ConnKey = ConnKey {
        link: LinkId(1),
        conn: ConnId(2),
    };

    /// Fails at any input, and by then knows nobody any more; otherwise writes a record at every turn.
    #[derive(Default)]
    struct Frail {
        failed: bool,
    }

    impl Driven for Frail {
        fn handle(&mut self, _: Now, event: Event) {
            self.failed = true;
            assert!(
                !matches!(event, Event::Input(..) | Event::Shard(_)),
                "as planned"
            );
        }

        fn handle_timeout(&mut self, _: Now) {
            panic!("as planned");
        }

        fn poll_timeout(&self) -> u64 {
            u64::MAX
        }

        fn give_credit(&mut self, _: bool) {}

        fn flush(&mut self, _: Now) -> Effects {
            Effects {
                writes: vec![Write::Session(SessionId(1), Some(Default::default()))],
                ..Effects::default()
            }
        }

        fn name_of(&self, key: ConnKey) -> Option<SessionId> {
            (key == CONN && !self.failed).then_some(SessionId(77))
        }
    }

    struct Bench {
        outlets: Outlets,
        writes: Receiver<WriteBatch>,
        to_shard: Sender<Vec<Event>>,
        events: Receiver<Vec<Event>>,
        _poll: mio::Poll,
    }

    fn bench() -> Bench {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (writer, writes) = queue();
        let (to_shard, events) = queue();
        let outlets = Outlets {
            links: Outbox::new(queue().0),
            waker: Arc::new(waker),
            shards: Vec::new(),
            writer: Outbox::new(writer),
            reads: Outbox::new(queue().0),
            slow_reads: Outbox::new(queue().0),
            looks: Lookups::default(),
            answers: Vec::new(),
            admin: crossbeam_channel::bounded(1).0,
            commands: crossbeam_channel::bounded(1).0,
            written: 0,
        };
        Bench {
            outlets,
            writes,
            to_shard,
            events,
            _poll: poll,
        }
    }

    fn input() -> Event {
        let input = Input {
            bytes: Default::default(),
            message_end: false,
        };
        Event::Input(CONN, input)
    }

    fn foreign() -> Event {
        let jid = |s| xmpp::jid::Jid::parse(s).expect("a JID");
        Event::Shard(ShardMsg::Stanza(Box::new(crate::event::Routed {
            kind: crate::routing::StanzaKind::Message(crate::routing::MessageType::Chat),
            from: jid("a@localhost/x"),
            to: jid("b@localhost"),
            bytes: Default::default(),
            retention: crate::routing::Retention::Drop,
            origin: Some(store::Origin {
                session: 78,
                stanza: 1,
                hash: 0,
            }),
            copies: false,
            token: None,
        })))
    }

    #[test]
    fn the_session_that_made_a_shard_fail_is_found() {
        for (event, culprit) in [
            (input(), Some(SessionId(77))),
            (foreign(), Some(SessionId(78))),
        ] {
            let mut b = bench();
            b.to_shard.send(vec![event]).expect("room");
            let failed = turns(ShardId(0), &mut Frail::default(), &b.events, &mut b.outlets);
            assert_eq!(failed, Err(Failed { culprit }));
            assert!(b.writes.try_recv().is_err(), "half a turn was handed on");
        }
    }

    #[test]
    fn it_is_struck_out_once_the_writer_says_so() {
        let mut b = bench();
        b.outlets.written = 4;
        let (writes, to_shard) = (b.writes, b.to_shard);
        let writer = std::thread::spawn(move || {
            let batch = writes.recv().expect("the last write");
            let answer = |first, n| {
                let results = vec![store::Written::Done; n];
                vec![Event::Durable { first, results }]
            };
            // An earlier one does not count.
            to_shard.send(answer(3, 2)).expect("room");
            to_shard.send(answer(5, 1)).expect("room");
            (batch, to_shard)
        });
        // Within any patience: the answer ends the wait.
        let patience = Duration::from_secs(3_600);
        b.outlets
            .strike_out(ShardId(0), SessionId(77), &b.events, patience);
        let (batch, _to_shard) = writer.join().expect("no panic");
        assert!(
            matches!(batch.writes[..], [Write::Session(SessionId(77), None)]),
            "{batch:?}"
        );
        assert!(b.events.is_empty(), "it did not wait for its own answer");
    }

    #[test]
    fn a_writer_that_is_stuck_does_not_keep_the_process() {
        let mut b = bench();
        b.outlets.strike_out(
            ShardId(0),
            SessionId(77),
            &b.events,
            Duration::from_millis(20),
        );
        assert_eq!(b.writes.len(), 1);
    }

    /// The test runs itself as another process: there the shard fails.
    #[test]
    fn the_process_ends_when_a_shard_fails() {
        const CHILD: &str = "ISTHMUS_FRAIL_SHARD";
        const NAME: &str = "drive::shards::tests::the_process_ends_when_a_shard_fails";
        if std::env::var_os(CHILD).is_some() {
            let b = bench();
            b.to_shard.send(vec![input()]).expect("room");
            // The writer is gone, so nothing is waited for.
            drop((b.writes, b.to_shard));
            run(ShardId(0), Frail::default(), &b.events, b.outlets);
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args([NAME, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("it starts");
        assert_eq!(
            child.status.signal(),
            Some(signal_hook::consts::SIGABRT),
            "{child:?}"
        );
    }
}
