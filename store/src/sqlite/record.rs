//! Rows of `log.db` as bytes: one blob per row, because binding ten columns costs a fifth of the append.
//!
//! ```text
//! message  1 | flags | time | owner len | owner | peer len | peer | [session stanza hash] | [text] | payload
//! text     start + 1 | len           (a part of the payload)
//!          0 | len | bytes           (or its own)
//! clear    2 | { drop? | owner len | owner | count | positions } ...
//! origins  3 | { session | stanza | hash | position | owner len | owner } ...
//! ```
//! Numbers are LEB128, hashes 8 bytes little-endian; positions of a clear row are signed differences.

use crate::types::{Origin, Text};

/// The row is in the archive.
pub(crate) const ARCHIVE: u8 = 1;
/// The row was pending when it was written.
pub(crate) const PENDING: u8 = 2;
/// Sent by the owner.
pub(crate) const OUTGOING: u8 = 4;
/// The row carries an origin.
const ORIGIN: u8 = 8;
/// The row says what text it is found by. (16 and 32 are the tail's.)
pub(crate) const TEXT: u8 = 64;

const MESSAGE: u8 = 1;
const CLEAR: u8 = 2;
const ORIGINS: u8 = 3;

/// A decoded message row; borrows from the blob.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// What it is found by.
    pub text: Option<Text>,
    pub flags: u8,
    pub time_ms: u64,
    pub owner: &'a str,
    pub peer: &'a str,
    pub origin: Option<Origin>,
    pub payload: &'a [u8],
}

/// One group of a clear row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clear<'a> {
    pub drop: bool,
    pub owner: &'a str,
    pub positions: Vec<u64>,
}

/// One carried origin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Carried<'a> {
    pub origin: Origin,
    pub position: u64,
    pub owner: &'a str,
}

/// A decoded row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Message(Message<'a>),
    Clear(Vec<Clear<'a>>),
    Origins(Vec<Carried<'a>>),
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Replaces `out` by the bytes of a message row.
pub(crate) fn encode_message(out: &mut Vec<u8>, message: &Message<'_>) {
    out.clear();
    out.push(MESSAGE);
    let mut flags = message.flags & !(ORIGIN | TEXT);
    for (flag, set) in [
        (ORIGIN, message.origin.is_some()),
        (TEXT, message.text.is_some()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    out.push(flags);
    put_number(out, message.time_ms);
    put_text(out, message.owner);
    put_text(out, message.peer);
    if let Some(origin) = message.origin {
        put_number(out, origin.session);
        put_number(out, origin.stanza);
        out.extend_from_slice(&origin.hash.to_le_bytes());
    }
    match &message.text {
        Some(Text::Part { start, len }) => {
            put_number(out, u64::from(*start) + 1);
            put_number(out, u64::from(*len));
        }
        Some(Text::Apart(text)) => {
            put_number(out, 0);
            put_text(out, text);
        }
        None => {}
    }
    out.extend_from_slice(message.payload);
}

/// Starts a clear row if `out` is empty, and adds a group.
pub(crate) fn encode_clear(out: &mut Vec<u8>, drop: bool, owner: &str, positions: &[u64]) {
    if out.is_empty() {
        out.push(CLEAR);
    }
    out.push(u8::from(drop));
    put_text(out, owner);
    put_number(out, positions.len() as u64);
    let mut previous = 0;
    for &position in positions {
        put_signed(out, position.wrapping_sub(previous) as i64);
        previous = position;
    }
}

/// Starts an origins row if `out` is empty, and adds an origin.
pub(crate) fn encode_carried(out: &mut Vec<u8>, carried: &Carried<'_>) {
    if out.is_empty() {
        out.push(ORIGINS);
    }
    put_number(out, carried.origin.session);
    put_number(out, carried.origin.stanza);
    out.extend_from_slice(&carried.origin.hash.to_le_bytes());
    put_number(out, carried.position);
    put_text(out, carried.owner);
}

/// Reads what the functions above wrote; every step may find the end.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.bytes.split_at_checked(bytes)?;
        self.bytes = rest;
        Some(first)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let bytes = self.number()?;
        std::str::from_utf8(self.take(usize::try_from(bytes).ok()?)?).ok()
    }

    fn origin(&mut self) -> Option<Origin> {
        let (session, stanza) = (self.number()?, self.number()?);
        let hash = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        Some(Origin {
            session,
            stanza,
            hash,
        })
    }

    fn message_text(&mut self) -> Option<Text> {
        Some(match self.number()?.checked_sub(1) {
            Some(start) => Text::Part {
                start: u32::try_from(start).ok()?,
                len: u32::try_from(self.number()?).ok()?,
            },
            None => Text::Apart(self.text()?.to_owned()),
        })
    }

    fn clear(&mut self) -> Option<Clear<'a>> {
        let (drop, owner, count) = (self.byte()? != 0, self.text()?, self.number()?);
        let mut positions = Vec::with_capacity(usize::try_from(count).ok()?.min(self.bytes.len()));
        let mut previous = 0_u64;
        for _ in 0..count {
            previous = previous.wrapping_add(self.signed()? as u64);
            positions.push(previous);
        }
        Some(Clear {
            drop,
            owner,
            positions,
        })
    }
}

/// A row from its blob; None if it is not one of ours.
pub(crate) fn decode(blob: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor::new(blob);
    Some(match cursor.byte()? {
        MESSAGE => {
            let flags = cursor.byte()?;
            let (time_ms, owner, peer) = (cursor.number()?, cursor.text()?, cursor.text()?);
            let origin = if flags & ORIGIN != 0 {
                Some(cursor.origin()?)
            } else {
                None
            };
            let text = match flags & TEXT {
                0 => None,
                _ => Some(cursor.message_text()?),
            };
            Record::Message(Message {
                text,
                flags: flags & !ORIGIN,
                time_ms,
                owner,
                peer,
                origin,
                payload: cursor.bytes,
            })
        }
        CLEAR => {
            let mut clears = Vec::new();
            while !cursor.is_empty() {
                clears.push(cursor.clear()?);
            }
            Record::Clear(clears)
        }
        ORIGINS => {
            let mut origins = Vec::new();
            while !cursor.is_empty() {
                let origin = cursor.origin()?;
                origins.push(Carried {
                    origin,
                    position: cursor.number()?,
                    owner: cursor.text()?,
                });
            }
            Record::Origins(origins)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let mut blob = Vec::new();
        let origin = Origin {
            session: u64::MAX,
            stanza: 7,
            hash: 1 << 63,
        };
        let part = Text::Part { start: 0, len: 300 };
        for (origin, text) in [
            (None, None),
            (Some(origin), None),
            (Some(origin), Some(part)),
            (None, Some(Text::Apart("a & ü".into()))),
        ] {
            let (owner, peer) = ("a@b", "ü@c");
            let found = if text.is_some() { TEXT } else { 0 };
            let message = Message {
                text,
                flags: ARCHIVE | PENDING | found,
                time_ms: 1_700_000_000_000,
                owner,
                peer,
                origin,
                payload: b"<x/>",
            };
            encode_message(&mut blob, &message);
            assert_eq!(decode(&blob), Some(Record::Message(message)));
        }
        blob.clear();
        encode_clear(&mut blob, false, "a@b", &[7, 3, u64::MAX, 9]);
        encode_clear(&mut blob, true, "c", &[]);
        let clears = vec![
            Clear {
                drop: false,
                owner: "a@b",
                positions: vec![7, 3, u64::MAX, 9],
            },
            Clear {
                drop: true,
                owner: "c",
                positions: vec![],
            },
        ];
        assert_eq!(decode(&blob), Some(Record::Clear(clears)));
        blob.clear();
        let carried = Carried {
            origin: Origin {
                session: 1,
                stanza: 2,
                hash: 3,
            },
            position: 4,
            owner: "a@b",
        };
        encode_carried(&mut blob, &carried);
        assert_eq!(decode(&blob), Some(Record::Origins(vec![carried])));
    }

    #[test]
    fn damaged_rows_are_refused_without_panic() {
        let mut blob = Vec::new();
        let origin = Some(Origin {
            session: 1,
            stanza: 2,
            hash: 3,
        });
        let message = Message {
            text: Some(Text::Apart("text".into())),
            flags: 0,
            time_ms: 1 << 40,
            owner: "a@b",
            peer: "c@d",
            origin,
            payload: b"",
        };
        encode_message(&mut blob, &message);
        for cut in 0..blob.len() {
            assert_eq!(decode(&blob[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode(&[9, 9, 9]), None);
        assert_eq!(
            decode(&[
                CLEAR, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
            ]),
            None
        );
        assert_eq!(
            decode(&[CLEAR, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff, 0x7f]),
            None
        );
    }
}
