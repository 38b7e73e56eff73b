//! Room for unsettled input: how much of it one connection may hold.
//!
//! Owns: the sums that `unsettled_bytes_max` bounds. Who has logged in and who has not are counted apart, so that strangers
//! cannot take the room of sessions.
//! Never: leaves anybody without room for a short element.

use super::conn::Conn;
use crate::frame::ConnId;
use std::collections::VecDeque;

/// One connection may take at most this part of what is left of the half that is shared by need.
const SHARE: usize = 6;

/// Part of the bound that is for those who have not logged in.
const STRANGERS: usize = 4;

/// Everybody may hold so much, whatever others do: a chat message, and what a log-in takes (but for tickets of Kerberos).
const FLOOR_BYTES: usize = 2_048;

/// Room told to a session at once. What was told stays good, so all together may go beyond the bound by so much each.
const STEP_BYTES: u64 = 32 * 1024;

/// The same for a stranger.
const STRANGER_STEP_BYTES: u64 = FLOOR_BYTES as u64;

/// What some connections hold unsettled.
#[derive(Clone, Copy, Debug, Default)]
struct Pool {
    bytes: usize,
    /// Connections that hold anything.
    holders: usize,
}

impl Pool {
    fn change(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after - before;
        self.holders = self.holders + usize::from(after > 0) - usize::from(before > 0);
    }

    /// What one connection may hold. Half of the bound is shared by need: who holds much stops first. The other half is for all
    /// alike who hold anything, so that those who fill the first cannot shut out the rest.
    fn share(&self, bound: usize) -> usize {
        let half = bound / 2;
        let by_need = half.saturating_sub(self.bytes) / SHARE;
        let alike = half / (self.holders + 1);
        let left = bound.saturating_sub(self.bytes);
        by_need.max(alike).min(left).max(FLOOR_BYTES)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    sessions: Pool,
    strangers: Pool,
}

impl Room {
    /// Over all connections.
    pub fn bytes(&self) -> usize {
        self.sessions.bytes + self.strangers.bytes
    }

    /// A connection holds another amount than before.
    pub fn changed(&mut self, session: bool, before: usize, after: usize) {
        self.pool(session).change(before, after);
    }

    /// A connection is gone.
    pub fn left(&mut self, conn: &Conn) {
        self.changed(conn.is_session(), conn.weight(), 0);
    }

    /// A stranger has become a session.
    pub fn logged_in(&mut self, conn: &Conn) {
        self.strangers.change(conn.weight(), 0);
        self.sessions.change(0, conn.weight());
    }

    fn pool(&mut self, session: bool) -> &mut Pool {
        match session {
            true => &mut self.sessions,
            false => &mut self.strangers,
        }
    }

    /// Up to which count of input bytes a connection may be read, by the credit of the server and by this bound. At least what has come.
    pub fn limit(&self, conn: &Conn, bound: usize) -> u64 {
        let (share, step) = match conn.is_session() {
            true => (self.sessions.share(bound - bound / STRANGERS), STEP_BYTES),
            false => (self.strangers.share(bound / STRANGERS), STRANGER_STEP_BYTES),
        };
        let unsettled = conn.input_bytes - conn.settled_bytes;
        let room = (share as u64).saturating_sub(unsettled).min(step);
        conn.input_bytes_max.min(conn.input_bytes + room)
    }
}

/// Connections that have credit but found the bound in their way. Those of one pool do not wait for the other.
#[derive(Debug, Default)]
pub(super) struct Starved {
    sessions: VecDeque<ConnId>,
    strangers: VecDeque<ConnId>,
}

impl Starved {
    /// Those who have logged in, or not.
    pub fn of(&mut self, sessions: bool) -> &mut VecDeque<ConnId> {
        match sessions {
            true => &mut self.sessions,
            false => &mut self.strangers,
        }
    }
}
