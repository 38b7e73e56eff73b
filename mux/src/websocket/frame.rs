//! Frames (RFC 6455 §5): those of a client taken apart, ours put together.
//!
//! ```text
//!   ─► header ──► payload ──┬─ more of the frame ─► payload
//!        ▲                  ├─ end of a fragment ─► header   (the message goes on; control frames may come between)
//!        └──────────────────┴─ FIN ──► end of the message
//! ```
//! In: bytes in any pieces. Out: payload of text messages, unmasked, with their ends; pings; the end.
//! Owns: at most one header and one control frame (125 bytes) that are not whole.
//! Never: keeps payload of messages; passes on what is not UTF-8; lets a payload that was not masked through.

/// Status of a Close frame (RFC 6455 §7.4.1): all is well.
pub const NORMAL: u16 = 1000;
/// The process stops.
pub const GOING_AWAY: u16 = 1001;
/// The client has broken RFC 6455.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A binary message; RFC 7395 §3.2 wants text.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// Text that is not UTF-8.
pub const NOT_UTF_8: u16 = 1007;
/// A rule that is not of RFC 6455.
pub const POLICY_VIOLATION: u16 = 1008;
/// A frame longer than any element may be.
pub const TOO_BIG: u16 = 1009;

/// What a control frame carries at most (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// The longest frame. No element can be longer than the window the link gives (`proto::limits::INPUT_WINDOW_MAX`), so
/// waiting for the rest would lead nowhere.
pub const FRAME_BYTES_MAX: u64 = proto::limits::INPUT_WINDOW_MAX;
/// The longest header: two bytes, length of 8, mask of 4.
const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What came.
#[derive(PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Payload of a message. `end`: with its last byte the message ends; or it ended with the last byte before, if there
    /// are none. A message of no bytes at all is not told.
    Data {
        /// Unmasked.
        bytes: &'a [u8],
        /// The message ends.
        end: bool,
    },
    /// To be answered with the same bytes.
    Ping(&'a [u8]),
    /// The client ends the connection, with this status. Nothing follows.
    Close(Option<u16>),
}

/// What the client did wrong; the connection is failed (§7.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// For our Close frame.
    pub status: u16,
    /// For the log.
    pub text: &'static str,
}

const fn wrong(text: &'static str) -> Violation {
    Violation {
        status: PROTOCOL_ERROR,
        text,
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// In the payload of a frame; `left` bytes of it are to come.
    in_payload: bool,
    left: u64,
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// In a message: its last frame was no final one.
    in_message: bool,
    /// Bytes of the message were passed on.
    told: bool,
    utf8: Utf8,
    /// Payload of a control frame; no heap between them.
    control: Vec<u8>,
    /// A Close frame came, or the client is wrong.
    over: bool,
}

impl Decoder {
    /// Takes bytes as they came. `scratch` is for unmasked ones. After an error or a Close everything else is dropped.
    pub fn handle_bytes(
        &mut self,
        mut bytes: &[u8],
        scratch: &mut Vec<u8>,
        mut sink: impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        while !self.over {
            if !self.in_payload {
                let Some((&byte, rest)) = bytes.split_first() else {
                    return Ok(());
                };
                bytes = rest;
                self.header[usize::from(self.header_len)] = byte;
                self.header_len += 1;
                self.begin().inspect_err(|_| self.over = true)?;
                continue;
            }
            let n = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if n == 0 && self.left > 0 {
                return Ok(());
            }
            let (these, rest) = bytes.split_at(n);
            bytes = rest;
            scratch.clear();
            scratch.extend_from_slice(these);
            self.unmask(scratch);
            self.left -= n as u64;
            self.payload(scratch, &mut sink)
                .inspect_err(|_| self.over = true)?;
        }
        Ok(())
    }

    /// Looks at the header so far.
    fn begin(&mut self) -> Result<(), Violation> {
        let header = &self.header[..usize::from(self.header_len)];
        let &[first, ref rest @ ..] = header else {
            return Ok(());
        };
        let (fin, opcode) = (first & FIN != 0, first & 0x0F);
        if first & RESERVED != 0 {
            return Err(wrong("a reserved bit is set"));
        }
        match opcode {
            CONTINUATION if !self.in_message => return Err(wrong("a continuation of nothing")),
            TEXT | BINARY if self.in_message => {
                return Err(wrong("a message inside a message"));
            }
            BINARY => {
                return Err(Violation {
                    status: UNSUPPORTED_DATA,
                    text: "a binary message",
                });
            }
            CLOSE | PING | PONG if !fin => return Err(wrong("a control frame in fragments")),
            CONTINUATION | TEXT | CLOSE | PING | PONG => {}
            _ => return Err(wrong("a reserved opcode")),
        }
        let &[second, ref rest @ ..] = rest else {
            return Ok(());
        };
        if second & MASKED == 0 {
            return Err(wrong("a frame without a mask"));
        }
        let short = second & !MASKED;
        if opcode >= CLOSE && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(wrong("a control frame too long"));
        }
        let length_len = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, mask)) = rest.split_at_checked(length_len) else {
            return Ok(());
        };
        let (length, least) = match *length {
            [a, b] => (u64::from(u16::from_be_bytes([a, b])), 126),
            [a, b, c, d, e, f, g, h] => {
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 1 << u16::BITS)
            }
            _ => (u64::from(short), 0),
        };
        if length < least || length > i64::MAX as u64 {
            return Err(wrong("a length written wrongly"));
        }
        if length > FRAME_BYTES_MAX {
            return Err(Violation {
                status: TOO_BIG,
                text: "a frame too long",
            });
        }
        let Ok(mask) = <[u8; 4]>::try_from(mask) else {
            return Ok(());
        };
        (self.header_len, self.in_payload) = (0, true);
        (self.left, self.mask, self.fin, self.opcode) = (length, mask, fin, opcode);
        if opcode < CLOSE {
            self.in_message = true;
        }
        Ok(())
    }

    fn unmask(&mut self, bytes: &mut [u8]) {
        let mask = self.mask;
        let mut words = bytes.chunks_exact_mut(4);
        for word in &mut words {
            for (byte, mask) in word.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        let rest = words.into_remainder();
        for (byte, mask) in rest.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        let used = rest.len();
        self.mask.rotate_left(used);
    }

    fn payload(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        let last = self.left == 0;
        self.in_payload = !last;
        if self.opcode >= CLOSE {
            return self.control(bytes, last, sink);
        }
        let end = last && self.fin;
        if !self.utf8.check(bytes) || (end && !self.utf8.is_whole()) {
            return Err(Violation {
                status: NOT_UTF_8,
                text: "text that is not UTF-8",
            });
        }
        self.told |= !bytes.is_empty();
        if !bytes.is_empty() || (end && self.told) {
            sink(Event::Data { bytes, end });
        }
        if end {
            (self.in_message, self.told) = (false, false);
        }
        Ok(())
    }

    fn control(
        &mut self,
        bytes: &[u8],
        last: bool,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        self.control.extend_from_slice(bytes);
        if !last {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            PING => sink(Event::Ping(&payload)),
            CLOSE => {
                self.over = true;
                sink(Event::Close(status(&payload)?));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The status in a Close frame of a client (§5.5.1, §7.4).
fn status(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let [a, b, reason @ ..] = payload else {
        return match payload {
            [] => Ok(None),
            _ => Err(wrong("a status of one byte")),
        };
    };
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation {
            status: NOT_UTF_8,
            text: "a reason that is not UTF-8",
        });
    }
    match u16::from_be_bytes([*a, *b]) {
        status @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(status)),
        _ => Err(wrong("a status that is none")),
    }
}

/// Text that comes in pieces.
#[derive(Debug, Default)]
struct Utf8 {
    /// The beginning of a character.
    pending: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// False: it is no UTF-8, whatever follows.
    fn check(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            self.pending[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.pending[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else {
            return true;
        };
        if error.error_len().is_some() {
            return false;
        }
        let rest = &bytes[error.valid_up_to()..];
        self.pending[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
        true
    }

    fn is_whole(&self) -> bool {
        self.len == 0
    }
}

/// The header of a frame of ours: not masked (§5.1), one frame for each message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// Of a text message.
    pub fn text(len: usize) -> Self {
        let mut header = Self::default();
        let bytes = &mut header.bytes;
        bytes[0] = FIN | TEXT;
        header.len = match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..126), _) => {
                bytes[1] = short;
                2
            }
            (_, Ok(len)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
                10
            }
        };
        header
    }

    /// As it goes out. Empty by default.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A Close frame.
pub fn close(status: u16) -> [u8; 4] {
    let [a, b] = status.to_be_bytes();
    [FIN | CLOSE, 2, a, b]
}

/// A Ping.
pub const PING_FRAME: [u8; 2] = [FIN | PING, 0];

/// Appends the Pong that answers a Ping.
pub fn pong(ping: &[u8], out: &mut Vec<u8>) {
    debug_assert!(ping.len() <= CONTROL_BYTES_MAX, "the decoder sees to that");
    out.extend_from_slice(&[FIN | PONG, ping.len() as u8]);
    out.extend_from_slice(ping);
}

#[cfg(test)]
#[path = "frame/tests.rs"]
mod tests;
