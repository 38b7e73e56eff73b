//! The link protocol between a multiplexor (`mux`) and a core server (`imserver`), sans I/O.
//!
//! Bytes and `now` go in; bytes, events and a deadline come out. Nothing here opens a socket, reads a
//! clock or knows XMPP. `LINK.md` beside this crate describes the wire so that a second mux can be
//! written in another language.
//!
//! ```text
//!   client sockets -> MuxSide -- Link ==bytes== Link -- ServerSide -> sessions
//!                        |________ codec, frame ________|
//! ```

pub mod admin_side;
pub mod codec;
pub mod frame;
pub mod limits;
pub mod link;
pub mod mux_side;
pub mod server_side;
