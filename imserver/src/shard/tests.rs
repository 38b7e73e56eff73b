//! A shard alone, without a driver: events in, effects out.

use super::*;
use crate::routing::{MessageType, Retention, StanzaKind};

mod acks;
mod approval;
mod archive;
mod between;
mod blocking;
mod caps;
mod csi;
mod groups;
mod notices;
mod tokens;

const NOW: Now = Now {
    mono_ms: 1_000,
    unix_ms: 1_800_000_000_000,
};

fn shard(settings: Settings) -> Shard {
    let config = ShardConfig {
        id: ShardId(0),
        shards: 1,
        epoch: 1,
        settings: Arc::new(settings),
        notices: Arc::default(),
        population: Arc::default(),
        ids: store::PositionKey::new([1; 16]),
    };
    Shard::new(config, Box::new(|out: &mut [u8]| out.fill(7)), NOW)
}

fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("a JID")
}

/// The `n`th message of somebody whose session is on another shard, to juliet, who is not in memory.
fn message(n: u64, bytes_len: usize) -> Event {
    let frame = "<message from='romeo@localhost/x' to='juliet@localhost'><body></body></message>";
    let fill = "x".repeat(bytes_len.saturating_sub(frame.len()));
    let bytes = frame.replace("<body>", &format!("<body>{fill}"));
    let retention = Retention::Store { archive: false };
    stanza(StanzaKind::Message(MessageType::Chat), bytes, retention, n)
}

/// The `n`th stanza of the same to the same.
fn stanza(kind: StanzaKind, bytes: impl Into<bytes::Bytes>, retention: Retention, n: u64) -> Event {
    Event::Shard(ShardMsg::Stanza(Box::new(Routed {
        kind,
        from: jid("romeo@localhost/x"),
        to: jid("juliet@localhost"),
        bytes: bytes.into(),
        retention,
        origin: Some(store::Origin {
            session: 1,
            stanza: n,
            hash: n,
        }),
        copies: false,
        token: Some(Token {
            shard: ShardId(1),
            slot: 0,
            generation: 1,
            element: n,
        }),
    })))
}

/// What has come of it: reads, messages stored, elements done at once (romeo is not here, so an error for him ends nowhere).
fn outcome(shard: &mut Shard) -> (usize, usize, usize) {
    let effects = shard.flush(NOW);
    let stored = effects
        .writes
        .iter()
        .filter(|w| matches!(w, Write::Store(store::Write::Append(_))))
        .count();
    let done = effects
        .shards
        .iter()
        .filter(|(_, m)| matches!(m, ShardMsg::Done(_)))
        .count();
    (effects.reads.len(), stored, done)
}

fn loaded(shard: &mut Shard) {
    let account = BareJid::parse("juliet@localhost").expect("a JID");
    let data = store::UserData {
        disabled: false,
        created_ms: 0,
        roster_version: 0,
        roster: Vec::new(),
        requests: Vec::new(),
        pending: 0,
        pending_bytes: 0,
        ..store::UserData::default()
    };
    let read = ReadResult::User(Some(Box::new(Loaded {
        data,
        ..Loaded::default()
    })));
    shard.handle(NOW, Event::Read(ReadTag::Load(account), read));
}

#[test]
fn a_burst_to_an_account_that_is_loading_waits_for_it() {
    let mut shard = shard(Settings::default());
    for n in 1..=3_000 {
        shard.handle(NOW, message(n, 200));
    }
    assert_eq!(outcome(&mut shard), (1, 0, 0), "one load, nothing bounced");
    loaded(&mut shard);
    assert_eq!(outcome(&mut shard), (0, 3_000, 0));
}

#[test]
fn what_waits_for_a_load_is_bounded_in_number_and_bytes() {
    for (max, bytes_max, sent, len, fit) in [
        (10, 1 << 20, 15, 200, 10),
        (10_000, 2_000, 15, 200, 10),
        // One that does not fit does not keep out those that do.
        (10_000, 2_000, 1, 2_001, 0),
    ] {
        let mut shard = shard(Settings {
            loading_queue_max: max,
            loading_queue_bytes_max: bytes_max,
            ..Settings::default()
        });
        for n in 1..=sent {
            shard.handle(NOW, message(n, len));
        }
        loaded(&mut shard);
        let (_, stored, _) = outcome(&mut shard);
        assert_eq!(stored, fit, "{max} {bytes_max}");
        shard.handle(NOW, message(99, 200));
        assert_eq!(outcome(&mut shard).1, 1, "there is room again");
    }
}

#[test]
fn a_subscription_that_a_full_queue_cannot_take_is_answered() {
    let juliet = BareJid::parse("juliet@localhost").expect("a JID");
    let here = home(&juliet, 2);
    // Somebody who is at home on the other shard, so that what goes there can be seen.
    let romeo = (0..)
        .map(|n| BareJid::parse(&format!("romeo{n}@localhost")).expect("a JID"))
        .find(|romeo| home(romeo, 2) != here)
        .expect("half of all are");
    let config = ShardConfig {
        id: here,
        shards: 2,
        epoch: 1,
        settings: Arc::new(Settings {
            domains: vec!["localhost".into()],
            loading_queue_max: 0,
            ..Settings::default()
        }),
        notices: Arc::default(),
        population: Arc::default(),
        ids: store::PositionKey::new([1; 16]),
    };
    let mut shard = Shard::new(config, Box::new(|out: &mut [u8]| out.fill(7)), NOW);
    let token = Token {
        shard: home(&romeo, 2),
        slot: 0,
        generation: 1,
        element: 4,
    };
    let bytes = format!("<presence type='subscribe' from='{romeo}' to='{juliet}'/>");
    let ask = Subscription {
        kind: crate::subscription::Kind::Subscribe,
        from: romeo.clone(),
        to: juliet,
        bytes: bytes.into(),
        token: Some(token),
    };
    shard.handle(NOW, Event::Shard(ShardMsg::Subscription(Box::new(ask))));
    let told = shard.flush(NOW).shards;
    let [(to, ShardMsg::Stanza(error))] = &told[..] else {
        panic!("{told:?}");
    };
    let text = String::from_utf8_lossy(&error.bytes);
    assert_eq!((*to, error.token), (home(&romeo, 2), Some(token)));
    assert!(
        text.contains("type='error'") && text.contains("resource-constraint"),
        "{text}"
    );
}

#[test]
fn a_session_name_is_never_used_again() {
    let names = [
        SessionId::new(1, 1),
        SessionId::new(1, u64::from(u32::MAX)),
        SessionId::new(1, u64::from(u32::MAX) + 1),
        SessionId::new(1, (1 << 40) - 1),
        SessionId::new(2, 0),
    ];
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    // As names were made before: smaller, in whatever run.
    let before = SessionId(1 << 32 | u64::from(u32::MAX));
    assert!(before < SessionId::new(2, 0));
}

/// White space has no length that a limit of one element could bound.
#[test]
fn a_stranger_may_send_only_so_much() {
    let mut shard = shard(Settings {
        bytes_before_login_max: 10_000,
        ..Settings::default()
    });
    let key = ConnKey {
        link: LinkId(1),
        conn: proto::frame::ConnId(1),
    };
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 5222));
    let open = proto::frame::Open {
        kind: proto::frame::ListenerKind::C2s,
        transport: proto::frame::Transport::Tcp,
        peer: nowhere,
        local: nowhere,
        tls: None,
        dial: None,
    };
    shard.handle(NOW, Event::Opened(key, Box::new(open), Arc::default()));
    let header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                  xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut closed = |bytes: String| {
        let input = proto::frame::Input {
            bytes: bytes.into(),
            message_end: false,
        };
        shard.handle(NOW, Event::Input(key, input));
        shard.flush(NOW).links.into_iter().find_map(|c| match c {
            LinkCommand::Frame {
                frame: proto::frame::Frame::Close(_, close),
                ..
            } => Some(String::from_utf8_lossy(&close.last).into_owned()),
            _ => None,
        })
    };
    assert_eq!(closed(header.to_owned()), None);
    for _ in 0..9 {
        assert_eq!(closed(" ".repeat(1_000)), None);
    }
    let last = closed(" ".repeat(1_000)).expect("that was too much");
    assert!(last.contains("<policy-violation"), "{last}");
}

/// An inbox is bounded in bytes, too, by what was in it when it was loaded and what has come since.
#[test]
fn an_inbox_with_too_many_bytes_takes_no_more() {
    for (there, len, fit) in [(0, 1_000, 10), (9_500, 1_000, 0), (9_000, 1_000, 1)] {
        let mut shard = shard(Settings {
            pending_bytes_max: 10_000,
            ..Settings::default()
        });
        for n in 1..=12 {
            shard.handle(NOW, message(n, len));
        }
        let account = BareJid::parse("juliet@localhost").expect("a JID");
        let data = store::UserData {
            pending: u64::from(there > 0),
            pending_bytes: there,
            ..store::UserData::default()
        };
        let read = ReadResult::User(Some(Box::new(Loaded {
            data,
            ..Loaded::default()
        })));
        shard.handle(NOW, Event::Read(ReadTag::Load(account), read));
        assert_eq!(outcome(&mut shard).1, fit, "{there}");
    }
}
