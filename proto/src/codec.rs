//! Frames to bytes and back: length (u32), kind (u8), connection id (u64) where the kind has one, payload; all numbers
//! big-endian. LINK.md has the layout of each.
//!
//! In: a read buffer, or a frame. Out: a frame, or bytes appended to a write buffer.
//! Owns: nothing. Never: allocates by a number the other end wrote without having checked that number against the bytes
//! that are there; copies a payload on decoding (they are slices of the read buffer).

use crate::frame::*;

mod decode;
mod encode;

pub use decode::decode;
pub(crate) use decode::decode_open;
pub(crate) use encode::{
    FANOUT_HEAD_BYTES, ResumeHead, encode_fanout, encode_open, encode_resume, fanout_target_bytes,
};
pub use encode::{encode, encode_input, encode_marks, encode_output};

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;

/// The byte that names each kind of frame. Kinds below `FIRST_NUMBERED` are not numbered.
pub mod kind {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 0x01;
    pub const WELCOME: u8 = 0x02;
    pub const ACK: u8 = 0x03;
    pub const PING: u8 = 0x04;
    pub const PONG: u8 = 0x05;
    pub const REFUSED: u8 = 0x06;
    pub const FIRST_NUMBERED: u8 = 0x10;
    pub const DRAIN: u8 = 0x10;
    pub const OPEN: u8 = 0x11;
    pub const INPUT: u8 = 0x12;
    pub const OUTPUT: u8 = 0x13;
    pub const FANOUT: u8 = 0x14;
    pub const MARKS: u8 = 0x15;
    pub const DRAINED: u8 = 0x16;
    pub const START_TLS: u8 = 0x17;
    pub const SECURED: u8 = 0x18;
    pub const NOTE: u8 = 0x19;
    pub const DIAL: u8 = 0x1a;
    pub const DIAL_FAILED: u8 = 0x1b;
    pub const CLOSE: u8 = 0x1c;
    pub const RESUME: u8 = 0x1d;
    pub const RESUME_END: u8 = 0x1e;
    pub const ADMIN: u8 = 0x1f;
}

// Flag bits. One meaning each, in whatever frame they stand.
const LAST: u8 = 1; // Output
const STANZA: u8 = 2; // Output, Fanout
const STORED: u8 = 4; // Output, Fanout target
const MESSAGE_END: u8 = 1; // Input
const CLIENT_CERTIFICATE: u8 = 1; // StartTls
const HAS_TLS: u8 = 1; // Open
const HAS_DIAL: u8 = 2; // Open
const HAS_NOTE: u8 = 1; // Resume
const HAS_CLOSED: u8 = 2; // Resume
const HAS_STORE: u8 = 1; // Hello
const HAS_TAKEN: u8 = 2; // Hello; Welcome
const SNI: u8 = 1; // TlsFacts
const ALPN: u8 = 2;
const EXPORTER: u8 = 4;
const END_POINT: u8 = 8;
const CERTIFICATE: u8 = 16;
const VERIFIED: u8 = 32;

/// Smallest Fanout target: conn, flags, insert length.
const TARGET_BYTES_MIN: usize = 8 + 1 + 2;
/// One stored id in Resume.
const HELD_BYTES: usize = 24;

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The length field is larger than this end takes.
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
    /// The length field is zero: there is no frame without a kind.
    #[error("frame without a kind")]
    Empty,
    /// No frame has this kind.
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// The frame ends within this field.
    #[error("frame ends within {0}")]
    Truncated(&'static str),
    /// Bytes are left after the last field.
    #[error("{0} bytes left after the last field")]
    Trailing(usize),
    /// A field holds a value it cannot have.
    #[error("{0} cannot be {1}")]
    Value(&'static str, u64),
    /// A text is not UTF-8 or holds control characters.
    #[error("{0} is not plain text")]
    Text(&'static str),
    /// A field passes its limit (a constant of `limits`, named).
    #[error("limit {0} passed")]
    Limit(&'static str),
    /// Hello or Welcome of another version; what follows the version is not read.
    #[error("link protocol version {0}")]
    Version(u16),
}

/// Why a frame cannot be encoded: a field passes a limit (named), or a text has control characters. A defect of the
/// caller; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("limit {0} passed")]
pub struct EncodeError(pub &'static str);

/// What a frame is called in errors and logs.
pub fn name(kind: u8) -> &'static str {
    match kind {
        kind::HELLO => "Hello",
        kind::WELCOME => "Welcome",
        kind::REFUSED => "Refused",
        kind::ACK => "Ack",
        kind::PING => "Ping",
        kind::PONG => "Pong",
        kind::DRAIN => "Drain",
        kind::OPEN => "Open",
        kind::INPUT => "Input",
        kind::OUTPUT => "Output",
        kind::FANOUT => "Fanout",
        kind::MARKS => "Marks",
        kind::DRAINED => "Drained",
        kind::START_TLS => "StartTls",
        kind::SECURED => "Secured",
        kind::NOTE => "Note",
        kind::DIAL => "Dial",
        kind::DIAL_FAILED => "DialFailed",
        kind::CLOSE => "Close",
        kind::RESUME => "Resume",
        kind::RESUME_END => "ResumeEnd",
        kind::ADMIN => "Admin",
        _ => "unknown",
    }
}

/// The kind of a frame.
pub fn kind_of(frame: &Frame) -> u8 {
    match frame {
        Frame::Hello(_) => kind::HELLO,
        Frame::Welcome(_) => kind::WELCOME,
        Frame::Refused(_) => kind::REFUSED,
        Frame::Ack(_) => kind::ACK,
        Frame::Ping(_) => kind::PING,
        Frame::Pong(_) => kind::PONG,
        Frame::Drain => kind::DRAIN,
        Frame::Open(..) => kind::OPEN,
        Frame::Input(..) => kind::INPUT,
        Frame::Output(..) => kind::OUTPUT,
        Frame::Fanout(_) => kind::FANOUT,
        Frame::Marks(..) => kind::MARKS,
        Frame::Drained(..) => kind::DRAINED,
        Frame::StartTls(..) => kind::START_TLS,
        Frame::Secured(..) => kind::SECURED,
        Frame::Note(..) => kind::NOTE,
        Frame::Dial(_) => kind::DIAL,
        Frame::DialFailed(..) => kind::DIAL_FAILED,
        Frame::Close(..) => kind::CLOSE,
        Frame::Resume(..) => kind::RESUME,
        Frame::ResumeEnd => kind::RESUME_END,
        Frame::Admin(_) => kind::ADMIN,
    }
}

/// A reason as DialFailed and Refused may carry it: one line, cut to its limit.
pub(crate) fn log_text(reason: &str) -> String {
    let mut text = String::new();
    for c in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > crate::limits::REASON_BYTES_MAX {
            break;
        }
        text.push(c);
    }
    text
}
