//! The multiplexor: owns sockets, moves bytes, knows no XMPP.

pub mod config;
mod conn;
mod conns;
mod gate;
mod metrics;
mod sys;
mod tls;
