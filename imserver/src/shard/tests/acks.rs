//! What a client has acknowledged, on its way to disk, when the session ends or the disk refuses.

use super::after::Answers;
use super::*;
use crate::session::record::{Record, RecordedSm};
use proto::frame::{
    CloseReason, ConnId, Frame, HeldStored, ListenerKind, NoteKey, Open, Resume, StoredId,
    Transport,
};
use store::{WriteError, Written};
use xmpp::jid::FullJid;

const POSITION: u64 = 5;

const KEY: ConnKey = ConnKey {
    link: LinkId(1),
    conn: ConnId(7),
};

fn record(acked: Vec<u64>) -> Record {
    Record {
        id: SessionId(9),
        note: NoteKey([3; 16]),
        mux: "m".into(),
        conn: KEY.conn.0,
        jid: FullJid::parse("juliet@localhost/balcony").expect("a JID"),
        since_unix_ms: 1,
        namespaces: Bytes::from_static(b"\x01\0\0\0\0\0\0"),
        sm: None,
        origin_base: 0,
        resumption: None,
        interested: None,
        blocklist_asked: false,
        caps: None,
        inactive: None,
        presence: None,
        presence_changed_unix_ms: 0,
        taking_since_unix_ms: 0,
        carbons_since_unix_ms: 0,
        client: None,
        ended_unix_ms: None,
        ended_input: 0,
        acked,
        directed: Vec::new(),
    }
}

/// A session that a restart has found and its mux has brought back, with one message sent and not drained.
fn resumed(acked: Vec<u64>) -> Shard {
    brought_back(record(acked))
}

fn brought_back(record: Record) -> Shard {
    let mut shard = shard(Settings::default());
    assert_eq!(shard.restore(NOW, vec![record]).len(), 1);
    let nowhere = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    let resume = Resume {
        note: Some(NoteKey([3; 16])),
        open: Open {
            kind: ListenerKind::C2s,
            transport: Transport::Tcp,
            peer: nowhere,
            local: nowhere,
            tls: None,
            dial: None,
        },
        settled_bytes: 100,
        settled_stanzas: 1,
        elements: 4,
        stanzas: 1,
        drained: 3,
        held: vec![HeldStored {
            id: StoredId(POSITION),
            element: 4,
            stanza: 1,
        }],
        closed: None,
    };
    shard.handle(NOW, Event::Resumed(KEY, Box::new(resume), "m".into()));
    shard
}

/// Writes and whether the connection was closed.
fn flushed(shard: &mut Shard) -> (Vec<Write>, bool) {
    let effects = shard.flush(NOW);
    let closed = effects.links.iter().any(|c| {
        matches!(
            c,
            LinkCommand::Frame {
                frame: Frame::Close(..),
                ..
            }
        )
    });
    (effects.writes, closed)
}

fn disk_full() -> Written {
    let path = "log.db".into();
    Written::Failed(WriteError::Store(Arc::new(store::StoreError::DiskFull {
        path,
    })))
}

fn answered(shard: &mut Shard, first: u64, writes: &[Write], refused: bool) {
    let results = writes.iter().map(|w| match w {
        Write::Store(_) if refused => disk_full(),
        _ => Written::Done,
    });
    let results = results.collect();
    shard.handle(NOW, Event::Durable { first, results });
}

fn acked(writes: &[Write]) -> Vec<u64> {
    let mut all = Vec::new();
    for write in writes {
        if let Write::Store(store::Write::Ack { positions, .. }) = write {
            all.extend(positions);
        }
    }
    all
}

#[test]
fn a_connection_is_let_go_when_what_its_client_had_is_on_disk_also_if_the_disk_refuses_at_first() {
    let mut shard = resumed(Vec::new());
    shard.handle(NOW, Event::Drained(KEY, 4));
    shard.handle(NOW, Event::Closed(KEY, CloseReason::SocketError));
    let (writes, closed) = flushed(&mut shard);
    assert_eq!((acked(&writes), closed), (vec![POSITION], false));
    answered(&mut shard, 1, &writes, true);
    let (again, closed) = flushed(&mut shard);
    assert!(
        again.is_empty() && !closed,
        "the mux has to remember it: {again:?}"
    );
    // The tick tries again.
    let later = Now {
        mono_ms: NOW.mono_ms + 5_000,
        ..NOW
    };
    shard.handle_timeout(later);
    let (again, closed) = flushed(&mut shard);
    assert_eq!((acked(&again), closed), (vec![POSITION], false));
    answered(&mut shard, 1 + writes.len() as u64, &again, false);
    assert!(flushed(&mut shard).1, "it is on disk");
    assert_eq!(shard.sessions.len(), 0);
    assert!(shard.users.values().all(|u| u.idle()));
}

#[test]
fn what_was_acknowledged_before_a_kill_and_could_not_be_cleared_is_known_from_the_record() {
    let mut shard = resumed(vec![POSITION]);
    let (writes, _) = flushed(&mut shard);
    assert_eq!(acked(&writes), [POSITION], "nobody stands in the way now");
}

/// Its account is being loaded, its client has closed the connection, and comes again.
#[test]
fn what_a_client_has_sent_last_is_taken_before_its_next_log_in_replaces_it() {
    let sm = RecordedSm {
        in_base: 0,
        out_base: 0,
        began_out: 0,
        enabled_element: 1,
        continued: false,
    };
    let sm = Some(sm);
    let mut shard = brought_back(Record {
        sm,
        ..record(Vec::new())
    });
    let message = |n: u32| {
        format!("<message type='chat' to='juliet@localhost' id='{n}'><body>{n}</body></message>")
    };
    let forged = message(3).replace(" to=", " from='romeo@localhost/x' to=");
    let all = [
        "<presence/>".into(),
        message(1),
        message(2),
        "<message type='chat' to='@'/>".into(),
        "<a xmlns='urn:xmpp:sm:3' h='1'/>".into(),
        forged,
        message(4),
    ];
    let input = proto::frame::Input {
        bytes: all.concat().into(),
        message_end: false,
    };
    shard.handle(NOW, Event::Input(KEY, input));
    shard.handle(NOW, Event::Closed(KEY, CloseReason::Normal));
    let (writes, _) = flushed(&mut shard);
    assert!(acked(&writes).is_empty(), "the presence waits: {writes:?}");
    let slot = shard.slot_of(KEY).expect("it is there");
    let conflict = Some(xmpp::error::StreamError::Conflict);
    shard.end_session(slot, conflict, CloseReason::Replaced);
    let (writes, _) = flushed(&mut shard);
    assert_eq!(acked(&writes), [POSITION]);
    loaded(&mut shard);
    let (writes, _) = flushed(&mut shard);
    let bodies = writes.iter().filter_map(|w| match w {
        Write::Store(store::Write::Append(a)) => {
            let text = String::from_utf8_lossy(&a.payload).into_owned();
            let body = text.split("<body>").nth(1)?;
            Some(body.split('<').next()?.to_owned())
        }
        _ => None,
    });
    // Nothing of what is behind a forgery.
    assert_eq!(bodies.collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn one_refused_write_of_several_is_a_refusal() {
    let results = [disk_full(), Written::Done, Written::Done];
    let answers = Answers {
        first: 7,
        results: &results,
    };
    assert!(answers.failed(7..=8));
    assert!(!answers.failed(8..=9));
    assert!(!answers.failed(3..=6), "answered before");
}
