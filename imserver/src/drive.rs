//! The threads that drive the core: one link loop, N shards, one store writer, store readers, directory workers,
//! administration, metrics.
//!
//! ```text
//!   muxes ==frames== link loop --events--> shard 0..N --writes--> store writer
//!                        ^                  |  ^  |  \--reads---> readers
//!                        '-----commands-----'  |  '--look-ups---> directory workers
//!                                              '------results-----'
//! ```
//! Every arrow is a bounded queue of batches. Nobody waits on a full one (DESIGN §2): what does not fit stays in a list at the
//! sender ([`queue::Outbox`]), and a shard with a long list gives out no more credit.

pub mod adhoc;
pub mod admin;
pub mod admin_door;
pub mod audit;
pub mod clock;
pub mod directories;
pub mod gssapi;
pub mod health;
pub mod holders;
pub mod known;
pub mod links;
pub mod lookups;
mod muffle;
pub mod overlay;
pub mod people;
pub mod questions;
pub mod queue;
pub mod reload;
pub mod retention;
pub mod server;
pub mod shards;
pub mod sweeper;
pub mod tls;
pub mod tokens;
mod told;
pub mod writer;
