//! Cuts the bytes of one XML stream (RFC 6120 §4) into its header, its top-level elements and its
//! end; the same over WebSocket (RFC 7395).
//!
//! In: bytes as they arrive, in any pieces.
//! Out: events; the stream error that the peer's bytes deserve.
//! Owns: the bytes of the element that is not complete yet, the namespaces of the stream header.
//! Never: keeps heap while idle, beyond the namespaces; scans a byte twice; lets an element out
//! that is not well-formed, namespace-clean, within limits and self-contained.

pub mod framing;
mod header;
mod limits;
mod namespaces;
mod parser;

pub use header::{StreamHeader, StreamVersion};
pub use limits::Limits;
pub(crate) use limits::{NAME_BYTES_MAX, REFERENCE_BYTES_MAX};
pub use namespaces::StreamNamespaces;
pub use parser::{StreamEvent, StreamParser};
