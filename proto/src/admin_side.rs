//! The administrator's half of a link of role admin: greeting, then one JSON object a frame in both directions.
//!
//! In: link bytes, `now`, requests. Out: link bytes, replies, a deadline. Never: goes on after a lost transport; a tool
//! dials, asks and ends.

use crate::codec;
use crate::frame::*;
use crate::limits;
use crate::link::{Link, LinkError, Phase};
use bytes::{Bytes, BytesMut};
use std::time::Instant;

/// See the module.
pub struct AdminSide {
    link: Link,
    server: Option<Welcome>,
}

impl AdminSide {
    /// The transport is ready: Hello goes out. `name` is for the server's log; `boot` is random.
    ///
    /// # Panics
    /// If `name` is empty, longer than `limits::NAME_BYTES_MAX` or has control characters.
    pub fn new(now: Instant, name: impl Into<String>, boot: BootId) -> Self {
        let hello = Hello {
            version: limits::PROTOCOL_VERSION,
            role: Role::Admin,
            name: name.into(),
            frame_bytes_max: limits::FRAME_BYTES_MIN,
            boot,
            store: None,
            taken: None,
        };
        let mut link = Link::new(now);
        link.handle_up(now, &Frame::Hello(hello));
        Self { link, server: None }
    }

    /// Takes whole frames out of `bytes`; returns the JSON objects among them, in order.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &mut BytesMut,
    ) -> Result<Vec<Bytes>, LinkError> {
        let mut replies = Vec::new();
        while let Some(frame) = self.link.next_frame(now, bytes)? {
            match frame {
                Frame::Admin(json) => replies.push(json),
                Frame::Welcome(welcome) if self.link.phase() == Phase::Greeting => {
                    if welcome.taken.is_some() {
                        return Err(LinkError::Taken);
                    }
                    self.link.start_anew();
                    self.server = Some(welcome);
                }
                Frame::Drain => {}
                other => return Err(LinkError::Unexpected(codec::name(codec::kind_of(&other)))),
            }
        }
        Ok(replies)
    }

    /// Sends one JSON object, once the server has said Welcome (before it, requests are lost).
    pub fn send(&mut self, json: Bytes) -> Result<(), codec::EncodeError> {
        self.link.push_frame(&Frame::Admin(json))
    }

    /// The server's Welcome, once it has come.
    pub fn server(&self) -> Option<&Welcome> {
        self.server.as_ref()
    }

    /// The next bytes for the transport.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.link.poll_output()
    }

    /// When to call `handle_timeout`, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// Acts on what is due. An error: the server is dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        self.link.handle_timeout(now)
    }
}
