//! Ways to break the machinery on purpose, in the harness: each must be caught within few seeds, or the simulation
//! would not notice a server that does the same.

/// One way to break it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// The store answers acknowledgements and does not write them.
    DropAck,
    /// Stored ids that a mux still holds are forgotten when it resumes.
    ForgetHeld,
    /// Writes are answered before they are on disk.
    EarlyAnswer,
    /// A restarted server has forgotten which stanzas it has stored.
    LoseOrigins,
    /// Session records are sometimes not written.
    SkipRecords,
    /// Presence is sometimes lost between two shards.
    LosePresence,
    /// The mux is told that more is settled than is.
    SettleEarly,
    /// A shard is sometimes not told that groups have changed.
    LoseGroups,
    /// What a client must be sent once more is sometimes not there.
    LoseResend,
    /// Changes of a list of who is blocked are answered and sometimes not written.
    LoseLists,
    /// So are published items.
    LoseItems,
    /// A shard is sometimes not told of what was published.
    LoseNotices,
}

impl Break {
    /// All of them.
    pub const ALL: [Break; 12] = [
        Break::DropAck,
        Break::ForgetHeld,
        Break::EarlyAnswer,
        Break::LoseOrigins,
        Break::SkipRecords,
        Break::LosePresence,
        Break::SettleEarly,
        Break::LoseGroups,
        Break::LoseResend,
        Break::LoseLists,
        Break::LoseItems,
        Break::LoseNotices,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DropAck => "drop-ack",
            Self::ForgetHeld => "forget-held",
            Self::EarlyAnswer => "early-answer",
            Self::LoseOrigins => "lose-origins",
            Self::SkipRecords => "skip-records",
            Self::LosePresence => "lose-presence",
            Self::SettleEarly => "settle-early",
            Self::LoseGroups => "lose-groups",
            Self::LoseResend => "lose-resend",
            Self::LoseLists => "lose-lists",
            Self::LoseItems => "lose-items",
            Self::LoseNotices => "lose-notices",
        }
    }

    /// By name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|b| b.name() == name)
    }
}
