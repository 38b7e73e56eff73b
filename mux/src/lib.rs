//! The multiplexor: owns client sockets, moves bytes between them and the server's link, knows no XMPP.
//!
//! ```text
//!  socket ─► conns (reading, TLS, WebSocket) ─► hub (MuxSide) ─► link ══ frames ══► imserver
//!  socket ◄─ conns (output, TLS, WebSocket)  ◄─ hub (MuxSide) ◄─ link ◄═ frames ═══╛
//! ```
//!
//! One thread does all of it by default; with more, one drives the link and the others hold connections
//! ([`config::Config::threads`]). The binary `mux` and the mux embedded in `imserver` are the same code: [`start`].

pub mod allocator;
pub mod config;
mod conn;
mod conns;
mod embed;
mod gate;
pub mod http;
mod hub;
mod link;
mod listen;
mod lobby;
mod metrics;
mod orders;
mod proxy;
mod resolve;
mod sys;
mod tls;
mod websocket;

pub use embed::{Change, Mux, StartError, Stopper, start};
pub use link::LinkTransport;
pub use listen::cannot_listen;
pub use metrics::Metrics;
