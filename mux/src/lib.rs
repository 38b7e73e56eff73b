//! The multiplexor: owns sockets, moves bytes, knows no XMPP.

pub mod config;
