//! What a session needs to go on after `kill -9`: its record in the unsynced session store (DESIGN §4).
//!
//! A record is written before the client can know of the session, and again whenever something in it changes. The rest
//! (counts, facts of the connection, unsettled input, stored stanzas held) comes from the mux by Resume.

use super::resumption::{Away, Content, Detached, Resumption, Unsent};
use super::{Available, Bound, Flood, StreamManagement};
use crate::caps::{Caps, Interests, Key};
use crate::event::SessionId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto::frame::NoteKey;
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::jid::{FullJid, Jid};
use xmpp::sasl::ClientId;

/// First byte of every record: the layout below. A record of another layout is ignored (its client logs in again).
const LAYOUT: u8 = 10;

/// A record as it is stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// The session's name.
    pub id: SessionId,
    /// The key the mux holds.
    pub note: NoteKey,
    /// The mux it was given to. Good from nobody else.
    pub mux: String,
    /// The mux's id of the connection. Good for no other.
    pub conn: u64,
    /// Its address.
    pub jid: FullJid,
    /// When it was bound (unix ms).
    pub since_unix_ms: u64,
    /// Namespaces of its stream header.
    pub namespaces: Bytes,
    /// Stream management.
    pub sm: Option<RecordedSm>,
    /// Stanzas that came on connections before this one.
    pub origin_base: u64,
    /// What its client needs to resume it.
    pub resumption: Option<RecordedResumption>,
    /// Has asked for the roster: the number of the element with the last of the answer.
    pub interested: Option<u64>,
    /// Has asked whom its account has blocked.
    pub blocklist_asked: bool,
    /// Its client is inactive: what waits for it and nobody says again, messages and presence.
    pub inactive: Option<Waiting>,
    /// Its presence.
    pub presence: Option<Available>,
    /// What its client's capabilities say that it wants to hear of, if that is known.
    pub caps: Option<RecordedCaps>,
    /// When that last changed (unix ms).
    pub presence_changed_unix_ms: u64,
    /// Since when it takes messages (unix ms); 0: it does not.
    pub taking_since_unix_ms: u64,
    /// Since when it gets copies of messages (unix ms); 0: it does not.
    pub carbons_since_unix_ms: u64,
    /// Which installation of a client it is.
    pub client: Option<ClientId>,
    /// When the session ended (unix ms); kept for a while so that nobody keeps a ghost.
    pub ended_unix_ms: Option<u64>,
    /// It has ended, and had taken the client's input up to this byte; the largest number if the client ended it. After a restart
    /// that much is taken again: its writes may have been lost with the kill.
    pub ended_input: u64,
    /// Positions of messages it has acknowledged whose marks are not cleared yet, because other sessions stand in the way.
    pub acked: Vec<u64>,
    /// Entities that had directed presence.
    pub directed: Vec<Jid>,
}

/// Capabilities in a record: see [`Caps`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCaps {
    /// The hash, if it has been proved.
    pub key: Option<Key>,
    /// What it is interested in.
    pub interests: Arc<Interests>,
}

impl RecordedCaps {
    /// As they stand now.
    pub fn of(caps: &Caps) -> Option<Self> {
        match caps {
            Caps::Known(interests, key) => Some(Self {
                key: key.as_ref().map(|k| (**k).clone()),
                interests: interests.clone(),
            }),
            _ => None,
        }
    }
}

/// Stream management in a record: see [`StreamManagement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedSm {
    /// Where `h` counts from.
    pub in_base: u64,
    /// Where the client's `h` counts from.
    pub out_base: u64,
    /// Output stanzas when it came into force.
    pub began_out: u64,
    /// Number of `<enabled/>` or `<resumed/>`.
    pub enabled_element: u64,
    /// It is `<resumed/>`.
    pub continued: bool,
}

/// Messages, and the newest presence of each sender.
pub type Waiting = (Vec<Bytes>, Vec<(Jid, Bytes)>);

/// Resumption in a record: see [`Resumption`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedResumption {
    /// Half of the SM-ID.
    pub key: [u8; 16],
    /// How long it waits for its client, ms.
    pub max_ms: u64,
    /// It has no connection, since then (unix ms); and its counts.
    pub detached: Option<(u64, Detached)>,
    /// Without a connection: more has come for it since. It cannot be resumed.
    pub stale: bool,
    /// Output stanzas when this was written.
    pub sent: u64,
    /// Without a connection: what the client has not acknowledged. With one: what it must be sent once more.
    pub unsent: VecDeque<Unsent>,
    /// Presence held back: who, and the newest of each.
    pub presence: Vec<(Jid, Bytes)>,
}

impl Record {
    /// When the server that wrote these records was still alive (unix ms): not later than it was killed. What it had said shortly
    /// before that may not have arrived. The time that is now tells nothing: it may have been down for long, and clocks are set.
    pub fn alive_unix_ms(records: &[Record]) -> Option<u64> {
        let touched = |r: &Record| {
            let ended = r.ended_unix_ms.unwrap_or(0);
            r.since_unix_ms.max(r.presence_changed_unix_ms).max(ended)
        };
        records.iter().map(touched).max()
    }

    /// As bytes for the session store.
    pub fn encode(&self) -> Bytes {
        let mut b = BytesMut::with_capacity(160 + self.namespaces.len());
        b.put_u8(LAYOUT);
        b.put_u64(self.id.0);
        b.put_slice(&self.note.0);
        put(&mut b, self.mux.as_bytes());
        b.put_u64(self.conn);
        put(&mut b, self.jid.as_str().as_bytes());
        b.put_u64(self.since_unix_ms);
        put(&mut b, &self.namespaces);
        b.put_u8(u8::from(self.sm.is_some()));
        if let Some(sm) = &self.sm {
            b.put_u64(sm.in_base);
            b.put_u64(sm.out_base);
            b.put_u64(sm.began_out);
            b.put_u64(sm.enabled_element);
            b.put_u8(u8::from(sm.continued));
        }
        b.put_u64(self.origin_base);
        b.put_u8(u8::from(self.resumption.is_some()));
        if let Some(r) = &self.resumption {
            r.encode(&mut b);
        }
        b.put_u8(u8::from(self.interested.is_some()));
        if let Some(element) = self.interested {
            b.put_u64(element);
        }
        b.put_u8(u8::from(self.blocklist_asked));
        b.put_u8(u8::from(self.inactive.is_some()));
        if let Some((messages, presence)) = &self.inactive {
            b.put_u32(messages.len() as u32);
            messages.iter().for_each(|bytes| put(&mut b, bytes));
            put_presence(&mut b, presence);
        }
        b.put_u8(match &self.presence {
            None => 0,
            Some(p) => 1 + u8::from(p.away),
        });
        if let Some(p) = &self.presence {
            b.put_i8(p.priority);
            put(&mut b, &p.prefix);
            put(&mut b, &p.suffix);
        }
        b.put_u8(u8::from(self.caps.is_some()));
        if let Some(caps) = &self.caps {
            put(
                &mut b,
                caps.key
                    .as_ref()
                    .map(Key::to_text)
                    .unwrap_or_default()
                    .as_bytes(),
            );
            b.put_u32(caps.interests.nodes().count() as u32);
            for node in caps.interests.nodes() {
                put(&mut b, node.as_bytes());
            }
        }
        b.put_u64(self.presence_changed_unix_ms);
        b.put_u64(self.taking_since_unix_ms);
        b.put_u64(self.carbons_since_unix_ms);
        b.put_u8(u8::from(self.client.is_some()));
        if let Some(client) = &self.client {
            b.put_slice(&client.0);
        }
        b.put_u64(self.ended_unix_ms.map_or(0, |t| t.max(1)));
        b.put_u64(self.ended_input);
        b.put_u32(self.acked.len() as u32);
        for &position in &self.acked {
            b.put_u64(position);
        }
        b.put_u32(self.directed.len() as u32);
        for jid in &self.directed {
            put(&mut b, jid.as_str().as_bytes());
        }
        b.freeze()
    }

    /// From bytes of the session store. `None`: another layout, or damaged.
    pub fn decode(mut b: Bytes) -> Option<Self> {
        if u8_of(&mut b)? != LAYOUT {
            return None;
        }
        let id = SessionId(u64_of(&mut b)?);
        let note = key(&mut b)?;
        let mux = string(&mut b)?;
        let conn = u64_of(&mut b)?;
        let jid = FullJid::parse(&string(&mut b)?).ok()?;
        let since_unix_ms = u64_of(&mut b)?;
        let namespaces = take(&mut b)?;
        let sm = match u8_of(&mut b)? {
            1 => Some(RecordedSm {
                in_base: u64_of(&mut b)?,
                out_base: u64_of(&mut b)?,
                began_out: u64_of(&mut b)?,
                enabled_element: u64_of(&mut b)?,
                continued: u8_of(&mut b)? == 1,
            }),
            _ => None,
        };
        let origin_base = u64_of(&mut b)?;
        let resumption = match u8_of(&mut b)? {
            1 => Some(RecordedResumption::decode(&mut b)?),
            _ => None,
        };
        let interested = match u8_of(&mut b)? {
            1 => Some(u64_of(&mut b)?),
            _ => None,
        };
        let blocklist_asked = u8_of(&mut b)? == 1;
        let inactive = match u8_of(&mut b)? {
            1 => {
                let count = (b.len() >= 4).then(|| b.get_u32())?;
                let mut messages = Vec::new();
                for _ in 0..count {
                    messages.push(take(&mut b)?);
                }
                Some((messages, presence_of(&mut b)?))
            }
            _ => None,
        };
        let presence = u8_of(&mut b)?;
        let presence = if presence != 0 {
            Some(Available {
                away: presence == 2,
                priority: u8_of(&mut b)? as i8,
                prefix: take(&mut b)?,
                suffix: take(&mut b)?,
            })
        } else {
            None
        };
        let caps = match u8_of(&mut b)? {
            1 => {
                let key = string(&mut b)?;
                let count = (b.len() >= 4).then(|| b.get_u32())?;
                let nodes: Option<Vec<String>> = (0..count).map(|_| string(&mut b)).collect();
                Some(RecordedCaps {
                    key: Key::from_text(&key),
                    interests: Arc::new(Interests::new(nodes?.iter().map(String::as_str))),
                })
            }
            _ => None,
        };
        let presence_changed_unix_ms = u64_of(&mut b)?;
        let taking_since_unix_ms = u64_of(&mut b)?;
        let carbons_since_unix_ms = u64_of(&mut b)?;
        let client = match u8_of(&mut b)? {
            1 => Some(ClientId(key(&mut b)?)),
            _ => None,
        };
        let ended = u64_of(&mut b)?;
        let ended_input = u64_of(&mut b)?;
        let count = (b.len() >= 4).then(|| b.get_u32())?;
        let mut acked = Vec::new();
        for _ in 0..count {
            acked.push(u64_of(&mut b)?);
        }
        let count = (b.len() >= 4).then(|| b.get_u32())?;
        let mut directed = Vec::new();
        for _ in 0..count {
            directed.push(Jid::parse(&string(&mut b)?).ok()?);
        }
        Some(Self {
            id,
            note: NoteKey(note),
            mux,
            conn,
            jid,
            since_unix_ms,
            namespaces,
            sm,
            origin_base,
            resumption,
            interested,
            blocklist_asked,
            inactive,
            presence,
            caps,
            presence_changed_unix_ms,
            taking_since_unix_ms,
            carbons_since_unix_ms,
            client,
            ended_unix_ms: (ended != 0).then_some(ended),
            ended_input,
            acked,
            directed,
        })
    }

    /// The session it describes, without its connection. It has to be resumed before it takes anything.
    pub fn bound(self) -> (Box<Bound>, Option<StreamManagement>) {
        let sm = self.sm.map(|sm| StreamManagement {
            in_base: sm.in_base,
            out_base: sm.out_base,
            began_out: sm.began_out,
            enabled_element: sm.enabled_element,
            continued: sm.continued,
            acked: sm.began_out,
            ..StreamManagement::default()
        });
        let flood = match &self.presence {
            Some(p) if p.priority >= 0 => Flood::Wanted,
            _ => Flood::Off,
        };
        let bound = Bound {
            id: self.id,
            account: self.jid.bare(),
            jid: self.jid,
            note: self.note,
            mux: self.mux.into(),
            conn: self.conn,
            since_unix_ms: self.since_unix_ms,
            claim: 0,
            caps: Caps::None,
            presence: self.presence,
            presence_changed_unix_ms: self.presence_changed_unix_ms,
            interested: self.interested,
            blocklist_asked: self.blocklist_asked,
            directed: crate::presence::Directed::new(self.directed),
            flood,
            cursor: 0,
            taking_since_unix_ms: self.taking_since_unix_ms,
            carbons_since_unix_ms: self.carbons_since_unix_ms,
            client: self.client,
            catching_up: flood == Flood::Wanted,
            reread: None,
            ready: true,
            pings: 0,
            held_presence: Vec::new(),
            asked: Default::default(),
            archive_asks: Vec::new(),
            behind_flood: Vec::new(),
        };
        (Box::new(bound), sm)
    }
}

impl RecordedSm {
    /// As it stands now.
    pub fn of(sm: &StreamManagement) -> Self {
        Self {
            in_base: sm.in_base,
            out_base: sm.out_base,
            began_out: sm.began_out,
            enabled_element: sm.enabled_element,
            continued: sm.continued,
        }
    }
}

impl RecordedResumption {
    fn encode(&self, b: &mut BytesMut) {
        b.put_slice(&self.key);
        b.put_u64(self.max_ms);
        b.put_u8(u8::from(self.detached.is_some()));
        if let Some((since_unix_ms, counts)) = &self.detached {
            b.put_u64(*since_unix_ms);
            b.put_u64(counts.settled_stanzas);
            b.put_u64(counts.stanzas_out);
            b.put_u64(counts.on_wire);
            b.put_u64(counts.acked);
            b.put_u64(counts.lost_up_to);
        }
        b.put_u8(u8::from(self.stale));
        b.put_u64(self.sent);
        put_presence(b, &self.presence);
        b.put_u32(self.unsent.len() as u32);
        for unsent in &self.unsent {
            b.put_u64(unsent.stanza);
            match &unsent.what {
                Content::Stored(position) => {
                    b.put_u8(0);
                    b.put_u64(*position);
                }
                Content::Bytes(bytes) => {
                    b.put_u8(1);
                    put(b, bytes);
                }
            }
        }
    }

    fn decode(b: &mut Bytes) -> Option<Self> {
        let key = key(b)?;
        let max_ms = u64_of(b)?;
        let detached = match u8_of(b)? {
            1 => Some((
                u64_of(b)?,
                Detached {
                    settled_stanzas: u64_of(b)?,
                    stanzas_out: u64_of(b)?,
                    on_wire: u64_of(b)?,
                    acked: u64_of(b)?,
                    lost_up_to: u64_of(b)?,
                },
            )),
            _ => None,
        };
        let stale = u8_of(b)? == 1;
        let sent = u64_of(b)?;
        let presence = presence_of(b)?;
        let count = (b.len() >= 4).then(|| b.get_u32())?;
        let mut unsent = VecDeque::new();
        for _ in 0..count {
            let stanza = u64_of(b)?;
            let what = match u8_of(b)? {
                0 => Content::Stored(u64_of(b)?),
                _ => Content::Bytes(take(b)?),
            };
            unsent.push_back(Unsent { stanza, what });
        }
        Some(Self {
            key,
            max_ms,
            detached,
            stale,
            sent,
            unsent,
            presence,
        })
    }

    /// How long it has waited for its client, ms. Clocks are set, so not less than nothing, and not more than it may.
    pub fn waited_ms(&self, unix_ms: u64) -> u64 {
        let since = self.detached.map_or(unix_ms, |(since, _)| since);
        unix_ms.saturating_sub(since).min(self.max_ms)
    }

    /// As a session has it, but for what is unacknowledged.
    pub fn resumption(&self, now: crate::event::Now) -> Resumption {
        let left_ms = match self.stale {
            true => 0,
            false => self.max_ms - self.waited_ms(now.unix_ms),
        };
        let away = self.detached.map(|(since_unix_ms, _)| Away::Detached {
            due_ms: now.mono_ms + left_ms,
            since_unix_ms,
        });
        let mut resumption = Resumption::new(self.key, self.max_ms, 0);
        resumption.away = away;
        resumption.recorded_stale = self.stale;
        resumption
    }
}

fn key(b: &mut Bytes) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    (b.len() >= 16).then(|| b.copy_to_slice(&mut key))?;
    Some(key)
}

fn put_presence(b: &mut BytesMut, presence: &[(Jid, Bytes)]) {
    b.put_u32(presence.len() as u32);
    for (from, bytes) in presence {
        put(b, from.as_str().as_bytes());
        put(b, bytes);
    }
}

fn presence_of(b: &mut Bytes) -> Option<Vec<(Jid, Bytes)>> {
    let count = (b.len() >= 4).then(|| b.get_u32())?;
    let mut presence = Vec::new();
    for _ in 0..count {
        presence.push((Jid::parse(&string(b)?).ok()?, take(b)?));
    }
    Some(presence)
}

fn put(b: &mut BytesMut, bytes: &[u8]) {
    b.put_u32(bytes.len() as u32);
    b.put_slice(bytes);
}

fn take(b: &mut Bytes) -> Option<Bytes> {
    let len = (b.len() >= 4).then(|| b.get_u32())? as usize;
    (b.len() >= len).then(|| b.split_to(len))
}

fn string(b: &mut Bytes) -> Option<String> {
    String::from_utf8(take(b)?.to_vec()).ok()
}

fn u8_of(b: &mut Bytes) -> Option<u8> {
    (!b.is_empty()).then(|| b.get_u8())
}

fn u64_of(b: &mut Bytes) -> Option<u64> {
    (b.len() >= 8).then(|| b.get_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record {
            id: SessionId(7 << 32 | 9),
            note: NoteKey([3; 16]),
            mux: "mux1".into(),
            conn: 77,
            jid: FullJid::parse("romeo@montague.lit/orchard").expect("a JID"),
            since_unix_ms: 1,
            namespaces: Bytes::from_static(b"ns"),
            sm: Some(RecordedSm {
                in_base: 3,
                out_base: 4,
                began_out: 4,
                enabled_element: 5,
                continued: true,
            }),
            origin_base: 11,
            resumption: Some(RecordedResumption {
                key: [7; 16],
                max_ms: 600_000,
                detached: Some((
                    12,
                    Detached {
                        settled_stanzas: 1,
                        stanzas_out: 9,
                        on_wire: 8,
                        acked: 6,
                        lost_up_to: 5,
                    },
                )),
                stale: true,
                sent: 9,
                presence: vec![(
                    Jid::parse("nurse@capulet.lit/x").expect("a JID"),
                    Bytes::from_static(b"<presence/>"),
                )],
                unsent: VecDeque::from([
                    Unsent {
                        stanza: 8,
                        what: Content::Stored(99),
                    },
                    Unsent {
                        stanza: 9,
                        what: Content::Bytes(Bytes::from_static(b"<iq/>")),
                    },
                ]),
            }),
            interested: Some(9),
            blocklist_asked: true,
            caps: Some(RecordedCaps {
                key: Key::from_text("sha-1.x"),
                interests: Arc::new(Interests::new(["a", "b"].into_iter())),
            }),
            inactive: Some((
                vec![Bytes::from_static(b"<message/>")],
                vec![(
                    Jid::parse("romeo@montague.lit/y").expect("a JID"),
                    Bytes::from_static(b"<presence/>"),
                )],
            )),
            presence: Some(Available {
                priority: -3,
                away: true,
                prefix: Bytes::from_static(b"<p to='"),
                suffix: Bytes::from_static(b"'/>"),
            }),
            presence_changed_unix_ms: 5,
            taking_since_unix_ms: 4,
            carbons_since_unix_ms: 3,
            client: Some(ClientId([9; 16])),
            ended_unix_ms: Some(6),
            ended_input: 77,
            acked: vec![8, 12],
            directed: vec![Jid::parse("nurse@capulet.lit").expect("a JID")],
        }
    }

    #[test]
    fn a_record_survives_the_store() {
        let back = Record::decode(sample().encode()).expect("our own bytes");
        assert_eq!(format!("{back:?}"), format!("{:?}", sample()));
        assert_eq!(back.note, sample().note);
    }

    #[test]
    fn a_cut_or_foreign_record_is_ignored_and_never_panics() {
        let whole = sample().encode();
        for n in 0..whole.len() {
            assert!(Record::decode(whole.slice(..n)).is_none(), "cut at {n}");
        }
        assert!(Record::decode(Bytes::from_static(b"\x09whatever")).is_none());
    }
}
