//! The deterministic simulation: one server, two muxes, a model of the store and a dozen clients in one thread on
//! virtual time, from a seed. Links are cut, processes killed, disks refuse; every accepted message must arrive once
//! and in order, nobody may be disconnected by a kill, no ghost may remain. Clients also publish, and block one another, in two of five
//! seeds each: what was answered is on disk, who should hear of it does, who is blocked is not heard.
//!
//! Real code under test: `imserver::shard`, `imserver::linkset`, `proto::mux_side`, `proto::server_side`,
//! `store::model`. Replaced: threads (by queues with drawn delays), sockets, disks, the directory.
//!
//! Read in this order: `world` (time and faults), `server`, `muxes`, `client`, `oracle` (what must be true), and beside it `archive`,
//! `blocks`, `groups`, `published`.

#![allow(
    clippy::wrong_self_convention,
    reason = "`to_mux` says where something goes, not what it becomes"
)]

mod archive;
mod blocks;
mod breaks;
mod client;
mod groups;
mod muxes;
mod oracle;
mod published;
mod rng;
mod scenario;
mod server;
mod trace;
mod world;

pub use breaks::Break;
pub use scenario::Scenario;
pub use world::{Options, Outcome, run};
