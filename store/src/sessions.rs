//! The session store: append-only files in the page cache. Never synced, so a record costs a copy
//! into the kernel; the page cache survives `kill -9`, and after a reboot (another boot id) the files
//! are discarded, because then they may hold anything.
//!
//! ```text
//! sessions/00000007.seg   header: magic, boot id | record | record | ...
//! record                  check 4 | length 4 (all ones: deleted) | session 8 | bytes
//! ```
//! In memory: where each live record is, about 32 bytes a session. When more than half of the files
//! is waste, each `put` copies a few live records of the oldest file to the newest; then the oldest
//! goes. So the files stay below twice what is live plus [`SLACK_BYTES`] plus about one file, and no
//! call takes long.
//!
//! Never: syncs, trusts a record whose check is wrong, or keeps bytes in memory.

use bytes::Bytes;
use foldhash::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::traits::SessionStore;

const MAGIC: &[u8; 8] = b"isthsess";
const HEADER_BYTES: u64 = 8 + 40;
const RECORD_HEADER_BYTES: usize = 16;
const DELETED: u32 = u32::MAX;

/// A file is ended at this size.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Waste allowed before compaction starts.
pub const SLACK_BYTES: u64 = 16 << 20;
/// Greatest record: a session's state is a few hundred bytes.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Least bytes looked at by one step of compaction.
const COMPACT_BYTES: usize = 64 << 10;

/// Where a live record is: file number, offset of its header, length of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    segment: u32,
    offset: u32,
    length: u32,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    path: PathBuf,
    file: File,
    /// Bytes that hold whole records.
    length: u64,
}

/// See the module.
#[derive(Debug)]
pub struct FileSessions {
    dir: PathBuf,
    boot: [u8; 40],
    /// Oldest first; the last is written to.
    segments: VecDeque<Segment>,
    places: HashMap<u64, Place>,
    live_bytes: u64,
    total_bytes: u64,
    /// How far the oldest segment has been compacted.
    compacted: u64,
    /// The newest segment may hold half a record that could not be cut off.
    broken: bool,
    buffer: Vec<u8>,
    moves: Vec<(u64, Option<Place>)>,
}

fn io(path: &Path, error: &std::io::Error) -> StoreError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
        _ => StoreError::Io {
            path,
            reason: error.to_string(),
        },
    }
}

/// FNV-1a over words of eight bytes: finds torn records, nothing more.
fn check(session: u64, bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |word: u64| {
        hash = (hash ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23)
    };
    mix(session);
    mix(bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        mix(u64::from_le_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]));
    }
    for byte in words.remainder() {
        mix(u64::from(*byte));
    }
    (hash ^ hash >> 32) as u32
}

/// A record found in a segment.
struct Record<'a> {
    session: u64,
    /// None: deleted.
    bytes: Option<&'a [u8]>,
    /// With its header.
    size: usize,
}

/// The record at the start of `bytes`; None if there is no whole and sound one.
fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let (header, rest) = bytes.split_at_checked(RECORD_HEADER_BYTES)?;
    let sum = u32::from_le_bytes(header[..4].try_into().ok()?);
    let length = u32::from_le_bytes(header[4..8].try_into().ok()?);
    let session = u64::from_le_bytes(header[8..].try_into().ok()?);
    if length == DELETED {
        return (sum == check(session, b"deleted")).then_some(Record {
            session,
            bytes: None,
            size: RECORD_HEADER_BYTES,
        });
    }
    let body = rest.get(..length as usize)?;
    let size = RECORD_HEADER_BYTES + body.len();
    (sum == check(session, body)).then_some(Record {
        session,
        bytes: Some(body),
        size,
    })
}

/// Bytes that hold no sound record, though not because the end of one was not written.
fn is_damaged(bytes: &[u8]) -> bool {
    let Some(length) = bytes.get(4..8) else {
        return false;
    };
    let length = length.try_into().map_or(0, u32::from_le_bytes);
    let body = if length == DELETED {
        0
    } else {
        length as usize
    };
    body > RECORD_BYTES_MAX || bytes.len() >= RECORD_HEADER_BYTES + body
}

fn push(buffer: &mut Vec<u8>, session: u64, bytes: Option<&[u8]>) {
    buffer.extend_from_slice(&check(session, bytes.unwrap_or(b"deleted")).to_le_bytes());
    buffer.extend_from_slice(
        &bytes
            .map_or(DELETED, |bytes| bytes.len() as u32)
            .to_le_bytes(),
    );
    buffer.extend_from_slice(&session.to_le_bytes());
    buffer.extend_from_slice(bytes.unwrap_or_default());
}

fn record_size(place: Place) -> u64 {
    u64::from(place.length) + RECORD_HEADER_BYTES as u64
}

impl FileSessions {
    /// Opens the store in a directory, made if need be; what another boot of the machine left is
    /// removed.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(path).map_err(|e| io(path, &e))?;
        Self::open_in_boot(dir, boot.trim())
    }

    /// The same, told which boot of the machine this is.
    pub fn open_in_boot(dir: &Path, boot: &str) -> Result<Self, StoreError> {
        let mut boot_bytes = [0; 40];
        for (to, from) in boot_bytes.iter_mut().zip(boot.bytes()) {
            *to = from;
        }
        std::fs::create_dir_all(dir).map_err(|e| io(dir, &e))?;
        let mut store = FileSessions {
            dir: dir.to_owned(),
            boot: boot_bytes,
            segments: VecDeque::new(),
            places: HashMap::default(),
            live_bytes: 0,
            total_bytes: 0,
            compacted: HEADER_BYTES,
            broken: false,
            buffer: Vec::new(),
            moves: Vec::new(),
        };
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| io(dir, &e))? {
            let name = entry.map_err(|e| io(dir, &e))?.file_name();
            let number: Option<u32> = name
                .to_str()
                .and_then(|name| name.strip_suffix(".seg"))
                .and_then(|name| name.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        for number in numbers {
            store.read_segment(number)?;
        }
        store.start_segment()?;
        Ok(store)
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}.seg"))
    }

    fn read_segment(&mut self, number: u32) -> Result<(), StoreError> {
        let path = self.segment_path(number);
        let bytes = std::fs::read(&path).map_err(|e| io(&path, &e))?;
        let ours = bytes.starts_with(MAGIC);
        if !ours || !bytes[8..].starts_with(&self.boot) {
            // Of another boot of the machine it is to be expected. A file shorter than its header was begun and not written.
            if !ours && !MAGIC.starts_with(&bytes) {
                tracing::warn!(
                    file = %path.display(),
                    "not a file of the session store: it is removed, and whose sessions were in it must log in again"
                );
            }
            return std::fs::remove_file(&path).map_err(|e| io(&path, &e));
        }
        let mut at = HEADER_BYTES as usize;
        while let Some(record) = parse(&bytes[at..]) {
            let place = record.bytes.map(|bytes| Place {
                segment: number,
                offset: at as u32,
                length: bytes.len() as u32,
            });
            self.place(record.session, place);
            at += record.size;
        }
        if is_damaged(&bytes[at..]) {
            tracing::warn!(
                file = %path.display(),
                at,
                "a record of the session store is damaged: whose sessions stood from there on must log in again"
            );
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| io(&path, &e))?;
        self.segments.push_back(Segment {
            number,
            path,
            file,
            length: at as u64,
        });
        self.total_bytes += at as u64;
        Ok(())
    }

    /// Notes where a session's record is now.
    fn place(&mut self, session: u64, place: Option<Place>) {
        let before = match place {
            Some(place) => {
                self.live_bytes += record_size(place);
                self.places.insert(session, place)
            }
            None => self.places.remove(&session),
        };
        self.live_bytes -= before.map_or(0, record_size);
    }

    fn start_segment(&mut self) -> Result<(), StoreError> {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        let path = self.segment_path(number);
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let mut file = options.map_err(|e| io(&path, &e))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&self.boot);
        if let Err(error) = file.write_all(&header) {
            let _ = std::fs::remove_file(&path);
            return Err(io(&path, &error));
        }
        self.segments.push_back(Segment {
            number,
            path,
            file,
            length: HEADER_BYTES,
        });
        self.total_bytes += HEADER_BYTES;
        self.broken = false;
        Ok(())
    }

    /// Appends what `buffer` holds to the newest segment.
    fn write(&mut self) -> Result<(), StoreError> {
        let Some(segment) = self.segments.back_mut() else {
            return Ok(());
        };
        if let Err(error) = segment.file.write_all_at(&self.buffer, segment.length) {
            self.broken = segment.file.set_len(segment.length).is_err();
            return Err(io(&segment.path, &error));
        }
        segment.length += self.buffer.len() as u64;
        self.total_bytes += self.buffer.len() as u64;
        Ok(())
    }

    fn room_in_segment(&mut self, bytes: u64) -> Result<(), StoreError> {
        let full = |segment: &Segment| {
            segment.length + bytes > SEGMENT_BYTES && segment.length > HEADER_BYTES
        };
        if self.broken || self.segments.back().is_none_or(full) {
            self.start_segment()?;
        }
        Ok(())
    }

    /// Copies live records of the oldest segment to the newest, about `budget` bytes looked at.
    fn compact(&mut self, budget: usize) -> Result<(), StoreError> {
        if self.total_bytes <= 2 * self.live_bytes + SLACK_BYTES {
            return Ok(());
        }
        if self.segments.len() == 1 {
            self.start_segment()?;
        }
        self.room_in_segment((budget + RECORD_BYTES_MAX) as u64)?;
        let (oldest, newest) = (&self.segments[0], &self.segments[self.segments.len() - 1]);
        let left = oldest.length.saturating_sub(self.compacted) as usize;
        let read = |bytes: usize| -> Result<Vec<u8>, StoreError> {
            let mut buffer = vec![0; left.min(bytes)];
            oldest
                .file
                .read_exact_at(&mut buffer, self.compacted)
                .map_err(|e| io(&oldest.path, &e))?;
            Ok(buffer)
        };
        let mut bytes = read(budget)?;
        if parse(&bytes).is_none() && left > budget {
            // A record longer than the budget.
            bytes = read(RECORD_HEADER_BYTES + RECORD_BYTES_MAX)?;
        }
        self.buffer.clear();
        self.moves.clear();
        let mut at = 0;
        while at < budget {
            let Some(record) = parse(&bytes[at..]) else {
                break;
            };
            let offset = (self.compacted + at as u64) as u32;
            let place = self.places.get(&record.session);
            if place.is_some_and(|place| (place.segment, place.offset) == (oldest.number, offset)) {
                let offset = (newest.length + self.buffer.len() as u64) as u32;
                let length = (record.size - RECORD_HEADER_BYTES) as u32;
                self.moves.push((
                    record.session,
                    Some(Place {
                        segment: newest.number,
                        offset,
                        length,
                    }),
                ));
                push(&mut self.buffer, record.session, record.bytes);
            }
            at += record.size;
        }
        let done = at >= left || at == 0;
        self.write()?;
        for (session, place) in std::mem::take(&mut self.moves) {
            self.place(session, place);
        }
        self.compacted += at as u64;
        if done {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), StoreError> {
        self.compacted = HEADER_BYTES;
        let Some(oldest) = self.segments.pop_front() else {
            return Ok(());
        };
        self.total_bytes -= oldest.length;
        std::fs::remove_file(&oldest.path).map_err(|e| io(&oldest.path, &e))
    }

    /// Bytes of all files, for tests and metrics.
    pub fn file_bytes(&self) -> u64 {
        self.total_bytes
    }
}

impl SessionStore for FileSessions {
    fn put(&mut self, records: &[(u64, Option<Bytes>)]) -> Result<(), StoreError> {
        let size = |record: &(u64, Option<Bytes>)| {
            RECORD_HEADER_BYTES + record.1.as_ref().map_or(0, Bytes::len)
        };
        let mut rest = records;
        while !rest.is_empty() {
            // As many as go into one segment; at least one.
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += size(record);
                bytes as u64 <= SEGMENT_BYTES / 2
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.put_some(now)?;
            rest = later;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let mut found = Vec::with_capacity(self.places.len());
        for segment in &self.segments {
            let mut bytes = vec![0; segment.length as usize];
            segment
                .file
                .read_exact_at(&mut bytes, 0)
                .map_err(|e| io(&segment.path, &e))?;
            let mut at = HEADER_BYTES as usize;
            while let Some(record) = parse(&bytes[at..]) {
                let place = self.places.get(&record.session);
                let live = place.is_some_and(|place| {
                    (place.segment, place.offset as usize) == (segment.number, at)
                });
                if let (true, Some(body)) = (live, record.bytes) {
                    found.push((record.session, Bytes::copy_from_slice(body)));
                }
                at += record.size;
            }
        }
        found.sort_unstable_by_key(|record| record.0);
        Ok(found)
    }
}

impl FileSessions {
    fn put_some(&mut self, records: &[(u64, Option<Bytes>)]) -> Result<(), StoreError> {
        let bytes: usize = records
            .iter()
            .map(|record| RECORD_HEADER_BYTES + record.1.as_ref().map_or(0, Bytes::len))
            .sum();
        self.room_in_segment(bytes as u64)?;
        self.buffer.clear();
        self.moves.clear();
        let (number, start) = self
            .segments
            .back()
            .map_or((0, 0), |segment| (segment.number, segment.length));
        for (session, record) in records {
            let length = record.as_ref().map_or(0, Bytes::len);
            if length > RECORD_BYTES_MAX {
                let reason = format!("a session record of {length} bytes is too large");
                return Err(StoreError::Engine {
                    path: self.dir.clone(),
                    reason,
                });
            }
            let offset = (start + self.buffer.len() as u64) as u32;
            let place = record.as_ref().map(|_| Place {
                segment: number,
                offset,
                length: length as u32,
            });
            self.moves.push((*session, place));
            push(&mut self.buffer, *session, record.as_deref());
        }
        self.write()?;
        for (session, place) in std::mem::take(&mut self.moves) {
            self.place(session, place);
        }
        let written = self.buffer.len();
        self.compact((2 * written).max(COMPACT_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn open(dir: &Path) -> FileSessions {
        FileSessions::open_in_boot(dir, "boot-1").unwrap()
    }

    #[test]
    fn damage_is_told_from_a_write_that_was_cut_short() {
        let mut whole = Vec::new();
        push(&mut whole, 7, Some(b"record"));
        for len in 0..whole.len() {
            assert!(!is_damaged(&whole[..len]), "{len}");
        }
        assert!(is_damaged(&[0; 64]), "zeros");
        assert!(is_damaged(b"garbage garbage garbage"));
        whole[20] ^= 1;
        assert!(parse(&whole).is_none() && is_damaged(&whole));
    }

    #[test]
    fn records_outlive_the_process_but_not_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store
            .put(&[
                (2, bytes("two")),
                (1, bytes("one")),
                (3, bytes("three")),
                (2, bytes("zwei")),
            ])
            .unwrap();
        store.put(&[(3, None), (9, None)]).unwrap();
        let expected = vec![(1, Bytes::from("one")), (2, Bytes::from("zwei"))];
        assert_eq!(store.load().unwrap(), expected);
        drop(store);
        let mut store = open(dir.path());
        assert_eq!(store.load().unwrap(), expected);
        drop(store);
        let mut store = FileSessions::open_in_boot(dir.path(), "boot-2").unwrap();
        assert_eq!(store.load().unwrap(), vec![]);
        assert!(FileSessions::open(dir.path()).is_ok());
    }

    #[test]
    fn a_torn_record_is_left_out_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.put(&[(1, bytes("one")), (2, bytes("two"))]).unwrap();
        let path = store.segments[0].path.clone();
        let length = store.segments[0].length;
        drop(store);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
        let mut store = open(dir.path());
        assert_eq!(store.load().unwrap(), vec![(1, Bytes::from("one"))]);
        store.put(&[(2, bytes("again"))]).unwrap();
        drop(store);
        let mut store = open(dir.path());
        assert_eq!(
            store.load().unwrap(),
            vec![(1, Bytes::from("one")), (2, Bytes::from("again"))]
        );
    }

    #[test]
    fn files_stay_bounded_and_compaction_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let steady = Bytes::from(vec![7; 2_000]);
        store
            .put(
                &(1_000..2_000)
                    .map(|session| (session, Some(steady.clone())))
                    .collect::<Vec<_>>(),
            )
            .unwrap();
        for round in 0..600_u64 {
            let records: Vec<_> = (0..200)
                .map(|n| (n, Some(Bytes::from(vec![round as u8; 500 + n as usize]))))
                .collect();
            store.put(&records).unwrap();
            store.put(&[(round % 200, None)]).unwrap();
            assert!(
                store.file_bytes() < 2 * store.live_bytes + SLACK_BYTES + SEGMENT_BYTES + (2 << 20),
                "round {round}"
            );
        }
        let before = store.load().unwrap();
        assert_eq!(before.len(), 1_199);
        assert!(
            before
                .iter()
                .filter(|record| record.0 >= 1_000)
                .all(|record| record.1 == steady)
        );
        assert!(
            before
                .iter()
                .filter(|record| record.0 < 1_000)
                .all(|record| record.1[0] == 599_u64 as u8)
        );
        drop(store);
        assert_eq!(open(dir.path()).load().unwrap(), before);
    }
}
