//! The server's half of one link: greeting, numbered frames, and a check of everything the mux says.
//!
//! In: link bytes, `now`, frames to send. Out: link bytes, `ServerEvent`s, a deadline.
//! Owns: what was sent and not acknowledged; per connection the few counts that checks need.
//! Never: acts for a session; trusts a count of the other end; reads a clock.
//!
//! The driver reads the first frame of a new transport with `read_hello`, takes the role and name from the certificate,
//! looks for the `ServerSide` of the same name and boot: there is one -> `handle_hello` (the new transport replaces the
//! older); else -> `accept`.

use crate::frame::*;
use crate::limits;
use crate::link::LinkError;
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};

/// What the server must know to run its half of a link.
#[derive(Clone, Debug)]
pub struct ServerSideConfig {
    /// The server's configured name.
    pub name: String,
    /// This run of the server.
    pub boot: BootId,
    /// The store it serves.
    pub store: StoreId,
    /// What the certificate allows the other end to be.
    pub role: Role,
    /// How long the sessions of a lost mux are kept (`mux_lost_s`).
    pub mux_lost: Duration,
    /// Connections at most.
    pub conn_count_max: usize,
    /// Frames sent and not acknowledged, bytes.
    pub retained_bytes_max: usize,
}

impl ServerSideConfig {
    /// The defaults of `limits`.
    pub fn new(name: impl Into<String>, boot: BootId, store: StoreId, role: Role) -> Self {
        Self {
            name: name.into(),
            boot,
            store,
            role,
            mux_lost: limits::MUX_LOST,
            conn_count_max: limits::CONN_COUNT_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
        }
    }
}

/// What the other end did. Drain with `poll_event` after every call that takes `now`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// The greeting is done. `continued`: the link goes on where it stopped, no session need notice. Else every connection
    /// known from this link before is gone, and `Resumed` events follow until `ResumeEnd`.
    Up {
        /// The link goes on where it stopped.
        continued: bool,
    },
    /// A new connection. It may send `limits::INPUT_WINDOW_INITIAL` bytes before any Marks.
    Opened(ConnId, Box<Open>),
    /// A connection from before; its unsettled input and, if `closed`, its `Closed` follow.
    Resumed(ConnId, Box<Resume>),
    /// Every connection has been resumed.
    ResumeEnd,
    /// Bytes of a client.
    Input(ConnId, Input),
    /// Input that was read before StartTls was carried out came after StartTls was sent: plaintext injection. The input is
    /// dropped; close the connection (DESIGN section 3).
    Injected(ConnId),
    /// TLS is up.
    Secured(ConnId, Box<TlsFacts>),
    /// Output elements the client's TCP has acknowledged, in total.
    Drained(ConnId, u64),
    /// The socket is closed. Settle what is to be settled, then send Close.
    Closed(ConnId, CloseReason),
    /// A Dial failed.
    DialFailed(u64, String),
    /// The mux has taken the Output (or Fanout) that carried this stored id. Only for frames sent by `send_tracked`. An Output
    /// that reached the mux after the client was gone is reported too, always after `Closed`.
    Taken(ConnId, StoredId),
    /// The mux has taken Marks up to here: origins up to `settled_stanzas` may be forgotten. Only for `send_tracked`.
    SettledTaken {
        /// The connection.
        conn: ConnId,
        /// `Marks::settled_stanzas`.
        settled_stanzas: u64,
    },
    /// Role admin: one JSON object.
    Admin(Bytes),
    /// The mux will go away.
    Drain,
    /// The transport is dead (nothing heard, or it does not acknowledge): close it. Nothing else changes yet.
    Down(LinkError),
    /// `mux_lost` is over: every connection of this link is lost. The `ServerSide` is of no more use; drop it.
    Lost,
}

/// Why `send` did not send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The connection is not known (any more), or the mux has closed it, or we have: an ordinary race. Nothing was sent.
    #[error("connection gone")]
    Gone,
    /// The state of the connection does not allow this frame, or this end never sends it: a defect of the caller.
    #[error("frame {0} not allowed now")]
    NotAllowed(&'static str),
    /// A limit of `limits`, named.
    #[error("frame passes limit {0}")]
    TooLong(&'static str),
    /// `mux_lost` is over.
    #[error("link lost")]
    Lost,
}

/// Takes the Hello out of the first bytes of a transport. None: more bytes are needed.
#[allow(unused_variables)]
pub fn read_hello(bytes: &mut BytesMut) -> Result<Option<Hello>, LinkError> {
    Ok(None)
}

/// See the module.
pub struct ServerSide {
    config: ServerSideConfig,
}

#[allow(unused_variables)]
impl ServerSide {
    /// A new link: answers a Hello for whose boot there is no `ServerSide`.
    pub fn accept(now: Instant, config: ServerSideConfig, hello: Hello) -> Result<Self, LinkError> {
        Ok(Self { config })
    }

    /// The same boot has dialled again: the new transport replaces the older one, and the link goes on if it can.
    pub fn handle_hello(&mut self, now: Instant, hello: Hello) -> Result<(), LinkError> {
        Ok(())
    }

    /// Bytes read from the transport; whole frames are taken out of `bytes`, the rest of one stays. On an error close the
    /// transport and write one log line; sessions stay until `Lost`.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &mut BytesMut) -> Result<(), LinkError> {
        Ok(())
    }

    /// The transport is gone. `mux_lost` begins to count.
    pub fn handle_down(&mut self, now: Instant) {}

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// When to call `handle_timeout`, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next bytes for the transport, large and contiguous, or None. Ask again only for what can soon be written.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        None
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        None
    }

    /// Sends a frame. Output is given whole (`last` set) and split here; Fanout may have any number of targets (those gone are
    /// left out). Also works while the transport is down: frames wait for the mux to come back.
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        Ok(())
    }

    /// As `send`, and reports `Taken` for the stored ids of an Output or Fanout, `SettledTaken` for Marks.
    pub fn send_tracked(&mut self, frame: Frame) -> Result<(), SendError> {
        Ok(())
    }

    /// Name and boot of the other end, as in its Hello.
    pub fn peer(&self) -> (&str, BootId) {
        ("", BootId::default())
    }

    /// A transport is up and greeted.
    pub fn is_up(&self) -> bool {
        false
    }

    /// Connections known.
    pub fn conn_count(&self) -> usize {
        0
    }

    /// Bytes of frames not acknowledged yet, those not handed out included.
    pub fn retained_bytes(&self) -> usize {
        0
    }

    /// Bytes of frames not handed out by `poll_output` yet.
    pub fn unsent_bytes(&self) -> usize {
        0
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &ServerSideConfig {
        &self.config
    }
}
