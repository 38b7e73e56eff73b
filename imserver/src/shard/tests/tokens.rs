//! A log-in that asks for a token or ends one, when the store takes what it writes and when it refuses.

use super::*;
use proto::frame::{ConnId, Frame, Input, ListenerKind, Open, Transport};
use store::{StoreError, TokenChange, WriteError, Written};
use xmpp::negotiation::{PasswordCheck, TokenCheck, UsedToken};
use xmpp::sasl::{Named, TokenMechanism};

const KEY: ConnKey = ConnKey {
    link: LinkId(1),
    conn: ConnId(7),
};

const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// Revocations when the directory is asked.
const REVOCATIONS: u64 = 41;

fn romeo() -> BareJid {
    BareJid::parse("romeo@localhost").expect("a JID")
}

/// A connection that is being negotiated.
struct Stranger {
    shard: Shard,
    written: u64,
}

impl Stranger {
    fn new() -> Self {
        let mut settings = Settings::default();
        let mut offer = settings.offer.as_ref().clone();
        offer.plaintext = true;
        settings.offer = Arc::new(offer);
        let nowhere = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
        let open = Open {
            kind: ListenerKind::C2s,
            transport: Transport::Tcp,
            peer: nowhere,
            local: nowhere,
            tls: None,
            dial: None,
        };
        let mut shard = shard(settings);
        shard.handle(NOW, Event::Opened(KEY, Box::new(open), Arc::default()));
        let mut it = Self { shard, written: 0 };
        it.says(HEADER);
        it
    }

    fn says(&mut self, xml: &str) -> Effects {
        let input = Input {
            bytes: xml.to_owned().into(),
            message_end: false,
        };
        self.shard.handle(NOW, Event::Input(KEY, input));
        self.shard.flush(NOW)
    }

    /// Logs in with a password, or a token that is known; what it writes about tokens.
    fn logs_in(&mut self, by_token: bool, inside: &str) -> Vec<TokenChange> {
        let (mechanism, initial) = match by_token {
            // romeo, and a proof that the directory takes.
            true => (
                "HT-SHA-256-NONE",
                "cm9tZW8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            ),
            false => ("PLAIN", "AHJvbWVvAHNlY3JldA=="),
        };
        let effects = self.says(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{initial}</initial-response>\
             <user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>{inside}</authenticate>"
        ));
        let [(tag, look)] = &effects.looks[..] else {
            panic!("one question: {:?}", effects.looks);
        };
        let result = match look {
            Look::Password(..) => LookResult::Password(PasswordCheck::Right(romeo())),
            Look::Token(..) => LookResult::Token(TokenCheck::Right {
                named: Named {
                    account: romeo(),
                    disabled: false,
                },
                proof: vec![1; 32],
                used: UsedToken {
                    mechanism: TokenMechanism::Unbound,
                    issued_ms: 17,
                    known: false,
                    stale: true,
                },
            }),
            other => panic!("{other:?}"),
        };
        self.shard
            .handle(NOW, Event::Looked(*tag, result, REVOCATIONS));
        let effects = self.shard.flush(NOW);
        assert_eq!(said(&effects), "", "nothing before it is on disk");
        let changes = effects.writes.iter().map(|write| match write {
            Write::Store(store::Write::Tokens { owner, change }) if *owner == romeo() => {
                change.clone()
            }
            other => panic!("{other:?}"),
        });
        changes.collect()
    }

    /// What it is told when the store has answered so, and everything after is taken.
    fn answered(&mut self, mut results: Vec<Written>) -> String {
        let mut all = String::new();
        while !results.is_empty() {
            let first = self.written + 1;
            self.written += results.len() as u64;
            self.shard.handle(NOW, Event::Durable { first, results });
            let effects = self.shard.flush(NOW);
            all += &said(&effects);
            results = effects.writes.iter().map(|_| Written::Done).collect();
        }
        all
    }
}

fn said(effects: &Effects) -> String {
    let outputs = effects.links.iter().filter_map(|command| match command {
        LinkCommand::Frame {
            frame: Frame::Output(_, output),
            ..
        } => Some(String::from_utf8_lossy(&output.bytes)),
        _ => None,
    });
    outputs.collect()
}

fn disk_full() -> Written {
    Written::Failed(WriteError::Store(Arc::new(StoreError::DiskFull {
        path: "state.db".into(),
    })))
}

const REQUEST: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
const INVALIDATE: &str = "<fast xmlns='urn:xmpp:fast:0' invalidate='true'/>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'/>";

#[test]
fn a_token_is_said_if_the_store_has_it_and_the_log_in_goes_on_without() {
    for inside in [REQUEST.to_owned(), format!("{REQUEST}{BIND}")] {
        for (answer, given) in [
            (Written::Done, true),
            (disk_full(), false),
            (Written::Failed(WriteError::Outdated), false),
        ] {
            let mut romeo = Stranger::new();
            let changes = romeo.logs_in(false, &inside);
            let [TokenChange::Issue { revocations, .. }] = changes[..] else {
                panic!("{changes:?}");
            };
            assert_eq!(revocations, REVOCATIONS);
            let said = romeo.answered(vec![answer.clone()]);
            assert!(said.contains("<success"), "{answer:?} {said}");
            assert_eq!(said.contains("<token "), given, "{answer:?} {said}");
            assert_eq!(said.contains("<bound"), inside.contains(BIND), "{said}");
        }
    }
}

#[test]
fn a_token_that_could_not_be_ended_is_not_said_to_be() {
    for inside in [INVALIDATE.to_owned(), format!("{INVALIDATE}{BIND}")] {
        let mut romeo = Stranger::new();
        let changes = romeo.logs_in(true, &inside);
        assert!(
            matches!(changes[..], [TokenChange::Revoke { but: None, .. }]),
            "{changes:?}"
        );
        let said = romeo.answered(vec![disk_full()]);
        assert!(
            said.contains("<temporary-auth-failure ") && !said.contains("<success"),
            "{said}"
        );
        // It is nobody yet, and may try again.
        let changes = romeo.logs_in(true, &inside);
        romeo.written = 1;
        assert_eq!(changes.len(), 1);
        let said = romeo.answered(vec![Written::Done]);
        assert!(said.contains("<success"), "{said}");
    }
}

#[test]
fn a_token_that_is_ended_may_leave_a_new_one() {
    let mut romeo = Stranger::new();
    let changes = romeo.logs_in(true, &format!("{INVALIDATE}{REQUEST}"));
    let [
        TokenChange::Issue { token, .. },
        TokenChange::Revoke { but, .. },
    ] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!(*but, Some(token.issued_ms));
    let said = romeo.answered(vec![Written::Done, Written::Done]);
    assert!(said.contains(&token.secret), "{said}");
}

#[test]
fn a_used_token_and_the_next_one() {
    for (answers, given) in [
        ([Written::Done, Written::Done], true),
        // It is used again the next time.
        ([disk_full(), disk_full()], false),
    ] {
        let mut romeo = Stranger::new();
        let changes = romeo.logs_in(true, "<fast xmlns='urn:xmpp:fast:0'/>");
        assert!(
            matches!(
                changes[..],
                [
                    TokenChange::Used { issued_ms: 17, .. },
                    TokenChange::Issue { .. }
                ]
            ),
            "{changes:?}"
        );
        let said = romeo.answered(answers.to_vec());
        assert!(said.contains("<success"), "{said}");
        assert_eq!(said.contains("<token "), given, "{said}");
    }
}

/// Of the store one batch, for everything a client does first; of the directory one question.
#[test]
fn a_log_in_reads_once() {
    let mut stranger = Stranger::new();
    let carbons = format!(
        "{REQUEST}<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:carbons:2'/><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
    );
    stranger.logs_in(false, &carbons);
    let mut results = vec![Written::Done];
    let mut reads = Vec::new();
    let begins = "<iq xmlns='jabber:client' type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>\
                  <presence xmlns='jabber:client'/>";
    let mut says = vec![begins.to_owned()];
    let mut said = String::new();
    loop {
        let first = stranger.written + 1;
        stranger.written += results.len() as u64;
        if !results.is_empty() {
            stranger
                .shard
                .handle(NOW, Event::Durable { first, results });
        }
        let mut effects = stranger.shard.flush(NOW);
        said += &self::said(&effects);
        if effects.is_empty()
            && let Some(xml) = says.pop()
        {
            effects = stranger.says(&xml);
            said += &self::said(&effects);
        }
        if effects.is_empty() {
            break;
        }
        assert!(effects.looks.is_empty(), "{:?}", effects.looks);
        results = effects.writes.iter().map(|_| Written::Done).collect();
        for (tag, read) in effects.reads {
            reads.push(format!("{read:?}"));
            let user = match tag {
                ReadTag::Load(_) => Some(Box::<Loaded>::default()),
                _ => None,
            };
            stranger
                .shard
                .handle(NOW, Event::Read(tag, ReadResult::User(user)));
        }
    }
    assert!(
        said.contains("<bound") && said.contains("id='r'") && said.contains("<presence"),
        "{said}"
    );
    assert_eq!(reads.len(), 1, "{reads:?}");
}
