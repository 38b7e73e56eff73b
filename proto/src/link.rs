//! What both ends of a link share: numbered frames kept until acknowledged, going on after a lost transport, liveness.
//!
//! In: frames to send, link bytes, `now`. Out: link bytes in large chunks, the other end's frames, a deadline.
//! Owns: the counts of frames in both directions and every frame the other end has not acknowledged.
//! Never: knows a connection; allocates per frame; reads a clock.
//!
//! ```text
//!            handle_up                 greeted
//!   Down ---------------> Greeting ---------------> Up        numbered frames move only while Up;
//!    ^                       |                       |        `push` works in every phase
//!    '-----------------------'-----------------------'
//!                        handle_down
//! ```
//!
//! Numbered frames are written one after another into `buf`, which is cut into chunks. A chunk is what goes to the
//! transport in one write, and the same bytes (shared, not copied) are what is kept until an Ack covers them.

use crate::codec::{self, DecodeError, LENGTH_BYTES};
use crate::frame::{ConnId, Frame, Role};
use crate::limits::*;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::Instant;

/// What the other end of the link did wrong, or the world did to the link. Every one ends the transport. After `Dead` the
/// link may go on with the next transport; after any other it is built anew by Resume.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Bytes that are no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// The other end says it is something its certificate does not allow.
    #[error("the other end says it is a {said:?}, its certificate says {allowed:?}")]
    Role {
        /// What Hello says.
        said: Role,
        /// What the certificate says.
        allowed: Role,
    },
    /// The other end does not take this link now, and says why.
    #[error("refused: {0}")]
    Refused(String),
    /// A frame that this role never sends, or not now.
    #[error("frame {0} in the wrong direction or at the wrong time")]
    Unexpected(&'static str),
    /// A frame for a connection that was never opened or is forgotten.
    #[error("frame {0} for unknown connection {1:?}")]
    UnknownConn(&'static str, ConnId),
    /// A connection id that is not larger than all before it.
    #[error("connection id {0:?} used again")]
    ConnIdReused(ConnId),
    /// A frame for a connection that its sender has closed.
    #[error("frame {0} after Close of {1:?}")]
    AfterClose(&'static str, ConnId),
    /// A counter that goes backwards, or past what was sent.
    #[error("{0} of {1:?} out of range")]
    Count(&'static str, ConnId),
    /// A transition that the state of the connection does not allow.
    #[error("{0} of {1:?} not allowed in its state")]
    State(&'static str, ConnId),
    /// A limit of `limits` (or of the configuration) passed.
    #[error("limit {0} passed")]
    Limit(&'static str),
    /// Ack of frames never sent, or of fewer than before.
    #[error("Ack out of range")]
    Ack,
    /// Hello or Welcome claims frames that were never sent, or a link that cannot go on.
    #[error("greeting claims frames that were never sent")]
    Taken,
    /// Nothing heard for `limits::LINK_DEAD`, or no Welcome for `limits::WELCOME_WAIT`.
    #[error("nothing heard from the other end")]
    Dead,
    /// More than `retained_bytes_max` unacknowledged.
    #[error("the other end does not acknowledge")]
    RetainedFull,
}

/// Where the transport stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Down,
    Greeting,
    Up,
}

/// Whole numbered frames, kept until `end` is acknowledged.
struct Chunk {
    bytes: Bytes,
    /// Number of the last frame in it.
    end: u64,
}

pub(crate) struct Link {
    phase: Phase,
    /// Hello or Welcome: goes out before anything else.
    greeting: Option<Bytes>,
    /// Numbered frames not cut into a chunk yet.
    buf: BytesMut,
    chunks: VecDeque<Chunk>,
    chunks_bytes: usize,
    /// Frames that came before the first chunk (all acknowledged).
    base: u64,
    /// How many chunks of `chunks` this transport has been handed, their bytes, and the number of the last frame among them.
    handed: usize,
    handed_bytes: usize,
    handed_end: u64,
    /// Numbered frames written, and acknowledged by the other end.
    sent: u64,
    acked: u64,
    /// Numbered frames taken of the other end, and how many of them it knows of.
    taken: u64,
    told: u64,
    untold_bytes: usize,
    ack_due: Option<Instant>,
    ack_now: bool,
    ping: bool,
    pong: Option<u64>,
    last_ping: Instant,
    last_heard: Instant,
    greeting_due: Instant,
}

impl Link {
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Down,
            greeting: None,
            buf: BytesMut::new(),
            chunks: VecDeque::new(),
            chunks_bytes: 0,
            base: 0,
            handed: 0,
            handed_bytes: 0,
            handed_end: 0,
            sent: 0,
            acked: 0,
            taken: 0,
            told: 0,
            untold_bytes: 0,
            ack_due: None,
            ack_now: false,
            ping: false,
            pong: None,
            last_ping: now,
            last_heard: now,
            greeting_due: now,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When the other end was last heard.
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Numbered frames written so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Numbered frames of ours the other end has taken.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Numbered frames of the other end taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn retained_bytes(&self) -> usize {
        self.chunks_bytes + self.buf.len()
    }

    pub fn unsent_bytes(&self) -> usize {
        self.chunks_bytes - self.handed_bytes + self.buf.len()
    }

    // ---- transport ----

    /// A fresh transport; `greeting` goes first.
    pub fn handle_up(&mut self, now: Instant, greeting: &Frame) {
        self.handle_down();
        let mut bytes = BytesMut::new();
        codec::encode(greeting, &mut bytes).expect("the names in the configuration were checked");
        self.greeting = Some(bytes.freeze());
        self.phase = Phase::Greeting;
        self.last_heard = now;
        self.last_ping = now;
        self.greeting_due = now + WELCOME_WAIT;
    }

    /// The greeting is done and the link goes on: the other end has taken `taken` of our frames; the rest is sent again.
    pub fn go_on(&mut self, taken: u64) -> Result<(), LinkError> {
        if taken < self.acked || taken > self.sent {
            return Err(LinkError::Taken);
        }
        self.seal();
        self.drop_acked(taken);
        self.cut_front(taken);
        self.handed = 0;
        self.handed_bytes = 0;
        self.handed_end = taken;
        self.phase = Phase::Up;
        Ok(())
    }

    /// The greeting is done and both ends count from zero: nothing sent or taken before counts.
    pub fn start_anew(&mut self) {
        self.reset_counts();
        self.phase = Phase::Up;
    }

    /// Forgets every frame and count. What was sent will not be sent again.
    pub fn reset_counts(&mut self) {
        self.buf = BytesMut::new();
        self.chunks.clear();
        self.chunks_bytes = 0;
        (self.base, self.handed, self.handed_bytes, self.handed_end) = (0, 0, 0, 0);
        (self.sent, self.acked, self.taken, self.told) = (0, 0, 0, 0);
        self.untold_bytes = 0;
        (self.ack_due, self.ack_now) = (None, false);
    }

    /// The transport is gone. Frames stay.
    pub fn handle_down(&mut self) {
        self.phase = Phase::Down;
        self.greeting = None;
        (self.ping, self.pong) = (false, None);
        // The greeting of the next transport tells what was taken.
        (self.told, self.untold_bytes) = (self.taken, 0);
        (self.ack_due, self.ack_now) = (None, false);
    }

    // ---- sending ----

    /// Writes one numbered frame of about `bytes_hint` bytes.
    pub fn push(&mut self, bytes_hint: usize, write: impl FnOnce(&mut BytesMut)) {
        if self.buf.capacity() - self.buf.len() < bytes_hint {
            // Cut first, so that a fresh buffer need not take over what is in the old one.
            self.seal();
            self.buf.reserve(bytes_hint.max(CHUNK_BYTES));
        }
        write(&mut self.buf);
        self.sent += 1;
        if self.buf.len() >= CHUNK_BYTES {
            self.seal();
        }
    }

    /// Writes one numbered frame of the rarer kinds.
    pub fn push_frame(&mut self, frame: &Frame) -> Result<(), codec::EncodeError> {
        let mut result = Ok(());
        let before = self.buf.len();
        self.push(512, |buf| result = codec::encode(frame, buf));
        if result.is_err() {
            debug_assert_eq!(self.buf.len(), before, "encode takes back what it wrote");
            self.sent -= 1;
        }
        result
    }

    /// Cuts what is in `buf` into a chunk.
    fn seal(&mut self) {
        if !self.buf.is_empty() {
            let bytes = self.buf.split().freeze();
            self.retain(bytes);
        }
    }

    fn retain(&mut self, bytes: Bytes) {
        self.chunks_bytes += bytes.len();
        self.chunks.push_back(Chunk {
            bytes,
            end: self.sent,
        });
    }

    /// The next bytes for the transport.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        if self.phase != Phase::Up {
            return None;
        }
        if let Some(chunk) = self.chunks.get(self.handed) {
            self.handed += 1;
            self.handed_bytes += chunk.bytes.len();
            self.handed_end = chunk.end;
            return Some(chunk.bytes.clone());
        }
        let numbered = self.buf.len();
        self.put_control(numbered > 0);
        if self.buf.is_empty() {
            return None;
        }
        let bytes = self.buf.split().freeze();
        if numbered > 0 {
            self.retain(bytes.slice(..numbered));
            self.handed += 1;
            self.handed_bytes += numbered;
            self.handed_end = self.sent;
        }
        Some(bytes)
    }

    /// Appends Ack, Pong and Ping as needed. Behind the numbered frames: an Ack is never seen before a frame that was
    /// written before the acknowledged frames were taken.
    fn put_control(&mut self, other_output: bool) {
        let untold = self.taken - self.told;
        let ack_now =
            self.ack_now || untold >= ACK_FRAMES || self.untold_bytes >= ACK_BYTES as usize;
        let ack = untold > 0 && (other_output || ack_now);
        let frames = [
            ack.then_some(Frame::Ack(self.taken)),
            self.pong.take().map(Frame::Pong),
            std::mem::take(&mut self.ping).then_some(Frame::Ping(self.sent)),
        ];
        for frame in frames.into_iter().flatten() {
            codec::encode(&frame, &mut self.buf).expect("a number has no limit");
        }
        if ack {
            (self.told, self.untold_bytes) = (self.taken, 0);
            (self.ack_due, self.ack_now) = (None, false);
        }
    }

    // ---- taking ----

    /// The next frame that is not the link's own affair, counted as taken if it is numbered.
    pub fn next_frame(
        &mut self,
        now: Instant,
        bytes: &mut BytesMut,
    ) -> Result<Option<Frame>, LinkError> {
        loop {
            let before = bytes.len();
            let Some(frame) = codec::decode(bytes, FRAME_BYTES_MIN)? else {
                return Ok(None);
            };
            self.last_heard = now;
            match frame {
                Frame::Hello(_) | Frame::Welcome(_) => return Ok(Some(frame)),
                Frame::Refused(reason) if self.phase == Phase::Greeting => {
                    return Err(LinkError::Refused(reason));
                }
                Frame::Refused(_) => return Err(LinkError::Unexpected("Refused")),
                _ if self.phase != Phase::Up => {
                    return Err(LinkError::Unexpected(codec::name(codec::kind_of(&frame))));
                }
                Frame::Ack(taken) => self.handle_ack(taken)?,
                Frame::Ping(n) => self.pong = Some(n),
                Frame::Pong(_) => {}
                numbered => {
                    self.taken += 1;
                    self.untold_bytes += before - bytes.len();
                    if self.ack_due.is_none() {
                        self.ack_due = Some(now + ACK_DELAY);
                    }
                    return Ok(Some(numbered));
                }
            }
        }
    }

    fn handle_ack(&mut self, taken: u64) -> Result<(), LinkError> {
        if taken < self.acked || taken > self.handed_end {
            return Err(LinkError::Ack);
        }
        self.drop_acked(taken);
        Ok(())
    }

    /// Lets go of the chunks that `taken` covers.
    fn drop_acked(&mut self, taken: u64) {
        self.acked = taken;
        while let Some(chunk) = self.chunks.front()
            && chunk.end <= taken
        {
            let len = chunk.bytes.len();
            self.base = chunk.end;
            self.chunks_bytes -= len;
            if self.handed > 0 {
                self.handed -= 1;
                self.handed_bytes -= len;
            }
            self.chunks.pop_front();
        }
    }

    /// Cuts the frames up to number `taken` off the first chunk.
    fn cut_front(&mut self, taken: u64) {
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        while self.base < taken {
            let length = chunk
                .bytes
                .first_chunk::<LENGTH_BYTES>()
                .expect("a chunk is whole frames");
            let skip = LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
            chunk.bytes.advance(skip);
            self.chunks_bytes -= skip;
            self.base += 1;
        }
    }

    // ---- time ----

    /// Acts on what is due. An error means that the transport is dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        match self.phase {
            Phase::Down => return Ok(()),
            Phase::Greeting if now >= self.greeting_due => return Err(LinkError::Dead),
            Phase::Greeting => return Ok(()),
            Phase::Up => {}
        }
        if now >= self.last_heard + LINK_DEAD {
            return Err(LinkError::Dead);
        }
        if now >= self.ping_at() {
            self.ping = true;
            self.last_ping = now;
        }
        if self.ack_due.is_some_and(|due| now >= due) {
            self.ack_now = true;
            self.ack_due = None;
        }
        Ok(())
    }

    fn ping_at(&self) -> Instant {
        self.last_heard.max(self.last_ping) + PING_IDLE
    }

    /// The next deadline, if there is a transport.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down => None,
            Phase::Greeting => Some(self.greeting_due),
            Phase::Up => {
                let alive = self.ping_at().min(self.last_heard + LINK_DEAD);
                Some(self.ack_due.map_or(alive, |due| due.min(alive)))
            }
        }
    }
}

/// Gives back the memory of a queue that a burst has grown, once it is empty.
pub(crate) fn shrink_if_empty<T>(queue: &mut VecDeque<T>) {
    const KEPT: usize = 1024;
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
}
