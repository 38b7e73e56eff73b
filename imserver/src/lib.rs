//! See Cargo.toml.

pub mod iq;
pub mod presence;
pub mod roster;
pub mod routing;
pub mod subscription;
