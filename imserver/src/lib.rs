//! The core server: links, sessions, shards, entities. Its doors speak only frames.
//!
//! The path of a stanza: `linkset` -> `session` -> `shard` -> `drive::writer` -> `shard` -> `linkset`.
//! `routing`, `subscription`, `roster`, `groups`, `blocking`, `presence`, `caps`, `pubsub`, `iq` decide and know nothing of shards;
//! `shard` carries out; `drive` is threads and sockets.

pub mod admin;
pub mod archive;
pub mod blocking;
pub mod caps;
pub mod carbons;
pub mod certificate;
pub mod config;
pub mod drive;
pub mod event;
pub mod failures;
pub mod groups;
pub mod iq;
pub mod linkset;
pub mod notices;
pub mod policy;
pub mod presence;
pub mod privileges;
pub mod pubsub;
pub mod push;
pub mod registrations;
pub mod roster;
pub mod routing;
pub mod session;
pub mod settings;
pub mod shard;
pub mod subscription;
