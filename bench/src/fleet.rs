//! All client connections of a run in one event loop.
//!
//! In: "connect account N". Out: which connections became ready, have input, or ended. Owns: connections, the poll, the
//! cache of salted passwords. Never: decides what a ready session says; that is the load's business.

use crate::client::{Conn, Memory, Target};
use anyhow::{Context as _, bail};
use mio::{Events, Interest, Poll, Token};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by SIGINT and SIGTERM: every loop ends at the next turn.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Fails once a signal asked us to stop.
pub fn check_stop() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// How long a run waits for a server that says nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Read buffer, shared by all connections.
const BUFFER_BYTES: usize = 64 * 1024;

/// What happened to a connection.
#[derive(Debug)]
pub enum Turn {
    /// It went through its entrance just now.
    Ready(usize),
    /// A ready session has input.
    Input(usize),
    /// It ended; the slot is empty.
    Ended(usize, String),
}

/// The connections by slot.
pub struct Fleet {
    poll: Poll,
    events: Events,
    /// Where they go.
    pub target: Target,
    conns: Vec<Option<Conn>>,
    memory: Memory,
    buffer: Vec<u8>,
}

impl Fleet {
    /// Without connections.
    pub fn new(target: Target) -> anyhow::Result<Fleet> {
        Ok(Fleet {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            target,
            conns: Vec::new(),
            memory: Memory::default(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Connects an account in a slot.
    pub fn connect(&mut self, slot: usize, user: usize) -> anyhow::Result<()> {
        if self.conns.len() <= slot {
            self.conns.resize_with(slot + 1, || None);
        }
        let mut conn = Conn::connect(&self.target, user)?;
        self.poll.registry().register(
            conn.source(),
            Token(slot),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.conns[slot] = Some(conn);
        Ok(())
    }

    /// The connection in a slot.
    pub fn conn(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot).and_then(Option::as_mut)
    }

    /// Ends a connection: the end of its stream, unless that is to be resumed, then FIN.
    pub fn close(&mut self, slot: usize) {
        if let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) {
            if !self.target.way.resumes() {
                conn.output.extend_from_slice(b"</stream:stream>");
            }
            // The measurement of this session is over; whether its last bytes arrive changes nothing.
            let _ = conn.flush();
            let _ = self.poll.registry().deregister(conn.source());
        }
    }

    /// How often PBKDF2 ran: more than a few means that accounts do not share their salt.
    pub fn derivations(&self) -> usize {
        self.memory.derivations()
    }

    /// How many came by a token, or went on with a stream, instead of what that replaces.
    pub fn shortened(&self) -> usize {
        self.memory.shortened
    }

    /// Waits at most `timeout` and appends what happened to `turns`.
    pub fn turn(&mut self, timeout: Duration, turns: &mut Vec<Turn>) -> anyhow::Result<()> {
        check_stop()?;
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other.context("poll")?,
        }
        for event in &self.events {
            let slot = event.token().0;
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            match drive(
                conn,
                &self.target,
                &mut self.memory,
                &mut self.buffer,
                event.is_readable(),
                event.is_writable(),
            ) {
                Ok(Some(true)) => turns.push(Turn::Ready(slot)),
                Ok(Some(false)) => turns.push(Turn::Input(slot)),
                Ok(None) => {}
                Err(e) => {
                    if let Some(mut conn) = self.conns[slot].take() {
                        let _ = self.poll.registry().deregister(conn.source());
                    }
                    turns.push(Turn::Ended(slot, format!("{e:#}")));
                }
            }
        }
        Ok(())
    }

    /// Connects accounts 0 to `count` - 1 in slots of the same number, at most `at_once` on their way at a time, and
    /// returns when all are ready.
    pub fn log_in_all(&mut self, count: usize, at_once: usize) -> anyhow::Result<()> {
        self.log_in_more(0, count, at_once)
    }

    /// The same for accounts `first` to `count` - 1.
    pub fn log_in_more(
        &mut self,
        first: usize,
        count: usize,
        at_once: usize,
    ) -> anyhow::Result<()> {
        let (mut started, mut ready) = (first, first);
        let mut turns = Vec::new();
        let mut last = Instant::now();
        while ready < count {
            while started < count && started - ready < at_once {
                self.connect(started, started)?;
                started += 1;
            }
            self.turn(Duration::from_millis(100), &mut turns)?;
            for turn in turns.drain(..) {
                match turn {
                    Turn::Ready(_) => {
                        ready += 1;
                        last = Instant::now();
                    }
                    Turn::Input(slot) => self.discard(slot),
                    Turn::Ended(slot, why) => {
                        bail!("account {slot} could not log in ({ready} could): {why}")
                    }
                }
            }
            if last.elapsed() > SILENCE {
                let stuck = self
                    .conns
                    .iter()
                    .flatten()
                    .find(|c| !c.is_ready())
                    .map(Conn::state_name);
                bail!(
                    "no log-in for {SILENCE:?}; {ready} of {count} are in, one waits in {stuck:?}"
                );
            }
        }
        Ok(())
    }

    /// Forgets the input of a session.
    pub fn discard(&mut self, slot: usize) {
        if let Some(conn) = self.conn(slot) {
            conn.input = Vec::new();
        }
    }

    /// Takes and forgets whatever comes, until nothing has come for `quiet`, or `at_most` is over.
    pub fn settle(&mut self, quiet: Duration, at_most: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut last = Instant::now();
        let mut turns = Vec::new();
        while last.elapsed() < quiet && started.elapsed() < at_most {
            self.turn(Duration::from_millis(50), &mut turns)?;
            for turn in turns.drain(..) {
                match turn {
                    Turn::Input(slot) | Turn::Ready(slot) => {
                        self.discard(slot);
                        last = Instant::now();
                    }
                    Turn::Ended(slot, why) => bail!("session {slot} ended: {why}"),
                }
            }
        }
        Ok(())
    }
}

/// Some(true): ready just now. Some(false): ready, with input.
fn drive(
    conn: &mut Conn,
    target: &Target,
    memory: &mut Memory,
    buffer: &mut [u8],
    readable: bool,
    writable: bool,
) -> anyhow::Result<Option<bool>> {
    if writable {
        conn.handle_writable(target)?;
    }
    if !readable {
        return Ok(None);
    }
    let open = conn.handle_readable(buffer)?;
    let was_ready = conn.is_ready();
    if !was_ready {
        conn.handle_login(target, memory)?;
    }
    if !open && (!conn.is_ready() || was_ready) {
        let text = String::from_utf8_lossy(&conn.input[..conn.input.len().min(300)]);
        bail!("closed by the server in {}: {text}", conn.state_name());
    }
    if conn.is_ready() && !was_ready {
        return Ok(Some(true));
    }
    Ok((was_ready && !conn.input.is_empty()).then_some(false))
}
