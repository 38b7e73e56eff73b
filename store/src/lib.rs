//! Persistence: one trait, engines behind it.
//!
//! * [`Writer`]: one thread owns it; `commit` makes a batch of [`Write`]s durable (group commit).
//! * [`Reader`]: one per worker thread; sees every committed row.
//! * [`SessionStore`]: unsynced, survives `kill -9`, discarded after a reboot.
//! * [`Engine`] opens them: [`sqlite::SqliteEngine`] on disk, [`model::Model`] in memory for the
//!   simulation (deterministic, no threads, "kill" keeps what was committed).
//!
//! In: writes from shards, through the one writer thread. Out: positions, rows, accounts.
//! Owns: the files of the data directory. Never: parses a stanza, decides who may do what, or
//! tells a caller "stored" before the bytes are on disk.

pub mod error;
pub mod model;
pub mod position;
mod search;
pub mod sessions;
pub mod sqlite;
mod tokens;
pub mod traits;
pub mod types;

pub use error::StoreError;
pub use position::PositionKey;
pub use tokens::{LoginToken, TokenChange};
pub use traits::{Engine, Reader, SessionStore, Writer};
pub use types::{
    Account, AccountCounts, AccountEntry, Activity, Append, ArchiveQuery, Counts, Origin, Overlay,
    PendingPage, PrivateElement, PubsubChange, PubsubItem, PubsubNode, PubsubPage, PubsubQuery,
    PubsubRange, PushService, PutMode, RosterItem, StoreId, StoredRow, Subscription,
    SubscriptionRequest, Text, UserData, Write, WriteError, Written, subscribed,
};
