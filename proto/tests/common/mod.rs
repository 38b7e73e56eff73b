//! What several tests share.

pub mod frames;
