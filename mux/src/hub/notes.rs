//! Which connections get a Note in bytes about to be given to `MuxSide`: it keeps Notes without an event, and the
//! limits of connections that have not logged in need to know.
//!
//! In: link bytes. Out: connection ids. Owns: nothing. Never: checks anything (`MuxSide` does, right after).

use bytes::BytesMut;
use proto::codec::{LENGTH_BYTES, decode, kind};
use proto::frame::{ConnId, Frame};
use proto::limits::FRAME_BYTES_MAX;

/// Calls `f` for each whole Note frame. Other frames cost one look at their head.
pub fn each(mut bytes: &[u8], mut f: impl FnMut(ConnId)) {
    while let Some((head, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_be_bytes(*head);
        if length == 0 || length > FRAME_BYTES_MAX || rest.len() < length as usize {
            return;
        }
        let end = LENGTH_BYTES + length as usize;
        if rest[0] == kind::NOTE
            && let Ok(Some(Frame::Note(conn, _))) =
                decode(&mut BytesMut::from(&bytes[..end]), FRAME_BYTES_MAX)
        {
            f(conn);
        }
        bytes = &bytes[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::codec::encode;
    use proto::frame::{Marks, NoteKey};

    #[test]
    fn notes_are_found_among_other_frames_and_only_when_whole() {
        let mut bytes = BytesMut::new();
        for n in 1..=3 {
            encode(&Frame::Marks(ConnId(n), Marks::default()), &mut bytes).expect("encodes");
            encode(&Frame::Note(ConnId(n), NoteKey([n as u8; 16])), &mut bytes).expect("encodes");
            encode(&Frame::Ping(n), &mut bytes).expect("encodes");
        }
        for len in 0..=bytes.len() {
            let mut found = Vec::new();
            each(&bytes[..len], |conn| found.push(conn.0));
            assert!(
                found.iter().copied().eq(1..=found.len() as u64),
                "{len}: {found:?}"
            );
            if len == bytes.len() {
                assert_eq!(found.len(), 3);
            }
        }
        each(&[0xFF; 64], |_| panic!("no frame"));
        each(&[0, 0, 0, 0, kind::NOTE], |_| panic!("no frame"));
        each(&[0, 0, 0, 2, kind::NOTE, 1], |_| panic!("a broken Note"));
    }
}
