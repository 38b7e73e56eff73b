//! What a shard tells of itself: its numbers, and where the sessions are that a restart has found.

use super::{NoteKey, ShardId};

/// Numbers of one shard.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardStatus {
    /// Connections, logged in or not.
    pub conns: u64,
    /// Bound sessions without a connection: they wait for their client, or for their mux.
    pub away: u64,
    /// Bound sessions, those included.
    pub sessions: u64,
    /// Users with state in memory.
    pub users: u64,
    /// Users with a session.
    pub online: u64,
    /// Stanzas taken from clients.
    pub stanzas_in: u64,
    /// Stanzas given to clients.
    pub stanzas_out: u64,
    /// Messages stored.
    pub stored: u64,
    /// Log-ins that succeeded.
    pub logins: u64,
    /// Log-ins that failed.
    pub login_failures: u64,
    /// Streams resumed.
    pub resumptions: u64,
}

/// The key and place of a session a restarted server found in the session store, for the link loop's table of notes.
#[derive(Debug, Clone)]
pub struct NotePlace {
    /// The secret the mux holds.
    pub note: NoteKey,
    /// Where the session's user is at home.
    pub shard: ShardId,
}
