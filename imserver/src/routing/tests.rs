//! RFC 6121 §8 line by line. Each row: section | stanza | to | connected resources | decision.
//!
//! Resources: a number is the priority of an available resource, `~` one that is connected only, `-` alone: none at
//! all; the matching one of a full JID is any of them. `shared` and `stranger` say whether presence is shared.

use super::*;

const ROWS: &str = "
8.2 / RFC 6120 10.3.1 | message chat          | absent   | 0         | store and deliver to non-negative
8.2 / RFC 6120 10.3.1 | message normal        | absent   | ~         | store
8.2 / RFC 6120 10.3.1 | message groupchat     | absent   | 0         | service-unavailable
8.2 / RFC 6120 10.3.1 | message headline      | absent   | 0         | deliver to non-negative
8.2 / RFC 6120 10.3.1 | message error         | absent   | 0         | discard
8.2 / RFC 6120 10.3.2 | presence              | absent   | ~         | broadcast
8.2 / RFC 6120 10.3.2 | presence unavailable  | absent   | 0         | broadcast
8.2 / RFC 6120 10.3.2 | presence subscribe    | absent   | 0         | bad-request
8.2 / RFC 6120 10.3.2 | presence unsubscribed | absent   | 0         | bad-request
8.2 / RFC 6120 10.3.2 | presence probe        | absent   | 0         | discard
8.2 / RFC 6120 10.3.2 | presence error        | absent   | 0         | discard
8.2 / RFC 6120 10.3.3 | iq get                | absent   | ~         | account
8.2 / RFC 6120 10.3.3 | iq set                | absent   | 0         | account
8.2 / RFC 6120 10.3.3 | iq result             | absent   | 0         | answer
8.2 / RFC 6120 10.3.3 | iq error              | absent   | 0         | answer

8.3                   | message chat          | remote   | -         | remote
8.3                   | message error         | remote   | -         | remote
8.3                   | presence              | remote   | -         | remote
8.3                   | presence subscribe    | remote   | -         | remote
8.3                   | iq get                | remote   | -         | remote
8.3                   | iq result             | remote   | -         | remote

8.4                   | message normal        | domain   | -         | service-unavailable
8.4                   | message chat          | domain   | -         | service-unavailable
8.4                   | message groupchat     | domain   | -         | service-unavailable
8.4                   | message headline      | domain   | -         | discard
8.4                   | message error         | domain   | -         | discard
8.4                   | presence              | domain   | -         | discard
8.4                   | presence unavailable  | domain   | -         | discard
8.4                   | presence subscribe    | domain   | -         | discard
8.4                   | presence probe        | domain   | -         | discard
8.4                   | presence error        | domain   | -         | discard
8.4                   | iq get                | domain   | -         | server
8.4                   | iq set                | domain   | -         | server
8.4                   | iq result             | domain   | -         | answer
8.4                   | iq error              | domain   | -         | answer

8.5.1                 | message normal        | nobody   | -         | service-unavailable
8.5.1                 | message chat          | nobody   | -         | service-unavailable
8.5.1                 | message groupchat     | nobody   | -         | service-unavailable
8.5.1                 | message headline      | nobody   | -         | discard
8.5.1                 | message error         | nobody   | -         | discard
8.5.1                 | presence              | nobody   | -         | discard
8.5.1                 | presence unavailable  | nobody   | -         | discard
8.5.1                 | presence subscribe    | nobody   | -         | discard
8.5.1                 | presence subscribed   | nobody   | -         | discard
8.5.1                 | presence unsubscribe  | nobody   | -         | discard
8.5.1                 | presence unsubscribed | nobody   | -         | discard
8.5.1                 | presence probe        | nobody   | -         | discard
8.5.1                 | presence error        | nobody   | -         | discard
8.5.1                 | iq get                | nobody   | -         | service-unavailable
8.5.1                 | iq set                | nobody   | -         | service-unavailable
8.5.1                 | iq result             | nobody   | -         | discard
8.5.1                 | iq error              | nobody   | -         | discard
8.5.1                 | message chat          | nobody/r | -         | service-unavailable
8.5.1                 | message headline      | nobody/r | -         | discard
8.5.1                 | iq get                | nobody/r | -         | service-unavailable
8.5.1                 | iq result             | nobody/r | -         | discard
8.5.1                 | presence              | nobody/r | -         | discard
8.5.1                 | presence subscribe    | nobody/r | -         | discard

8.5.2.1.1 normal      | message normal        | bare     | -1        | store
8.5.2.1.1 normal      | message normal        | bare     | -1 -128   | store
8.5.2.1.1 normal      | message normal        | bare     | 0         | store and deliver to non-negative
8.5.2.1.1 normal      | message normal        | bare     | 5 0 -1 ~  | store and deliver to non-negative
8.5.2.1.1 chat        | message chat          | bare     | -1        | store
8.5.2.1.1 chat        | message chat          | bare     | 0         | store and deliver to non-negative
8.5.2.1.1 chat        | message chat          | bare     | 127 0 -1  | store and deliver to non-negative
8.5.2.1.1 chat        | message chat          | bare     | ~         | store
8.5.2.1.1 groupchat   | message groupchat     | bare     | 0         | service-unavailable
8.5.2.1.1 groupchat   | message groupchat     | bare     | -1        | service-unavailable
8.5.2.1.1 headline    | message headline      | bare     | -1        | discard
8.5.2.1.1 headline    | message headline      | bare     | ~         | discard
8.5.2.1.1 headline    | message headline      | bare     | 0         | deliver to non-negative
8.5.2.1.1 headline    | message headline      | bare     | 5 0 -1    | deliver to non-negative
8.5.2.1.1 error       | message error         | bare     | 0         | discard
8.5.2.1.1 error       | message error         | bare     | -1        | discard
8.5.2.1.2             | presence              | bare     | 0 -1 ~    | deliver to available
8.5.2.1.2             | presence              | bare     | -1        | deliver to available
8.5.2.1.2             | presence              | bare     | ~         | discard
8.5.2.1.2             | presence unavailable  | bare     | 0         | deliver to available
8.5.2.1.2             | presence unavailable  | bare     | ~         | discard
8.5.2.1.2             | presence subscribe    | bare     | 0         | subscription subscribe
8.5.2.1.2             | presence subscribed   | bare     | 0         | subscription subscribed
8.5.2.1.2             | presence unsubscribe  | bare     | ~         | subscription unsubscribe
8.5.2.1.2             | presence unsubscribed | bare     | 0         | subscription unsubscribed
8.5.2.1.2             | presence probe        | bare     | 0         | probe
3.1.2                 | presence error        | bare     | 0         | deliver to available
3.1.2                 | presence error        | bare     | ~         | discard
8.5.2.1.3             | iq get                | bare     | 0         | account
8.5.2.1.3             | iq set                | bare     | 0         | account
8.5.2.1.3             | iq get stranger       | bare     | 0         | account
8.5.2.1.3             | iq result             | bare     | 0         | answer
8.5.2.1.3             | iq error              | bare     | 0         | answer

8.5.2.2.1             | message normal        | bare     | -         | store
8.5.2.2.1             | message chat          | bare     | -         | store
8.5.2.2.1             | message groupchat     | bare     | -         | service-unavailable
8.5.2.2.1             | message headline      | bare     | -         | discard
8.5.2.2.1             | message error         | bare     | -         | discard
8.5.2.2.2             | presence              | bare     | -         | discard
8.5.2.2.2             | presence unavailable  | bare     | -         | discard
8.5.2.2.2             | presence subscribe    | bare     | -         | subscription subscribe
8.5.2.2.2             | presence subscribed   | bare     | -         | subscription subscribed
8.5.2.2.2             | presence unsubscribe  | bare     | -         | subscription unsubscribe
8.5.2.2.2             | presence unsubscribed | bare     | -         | subscription unsubscribed
8.5.2.2.2             | presence probe        | bare     | -         | probe
8.5.2.2.3             | iq get                | bare     | -         | account
8.5.2.2.3             | iq set                | bare     | -         | account
8.5.2.2.3             | iq result             | bare     | -         | answer
8.5.2.2.3             | iq error              | bare     | -         | answer

8.5.3.1 iq            | iq get                | match    | 0         | deliver to match
8.5.3.1 iq            | iq set                | match    | ~         | deliver to match
8.5.3.1 iq            | iq get stranger       | match    | 0         | service-unavailable
8.5.3.1 iq            | iq set stranger       | match    | 0         | service-unavailable
8.5.3.1 iq            | iq result stranger    | match    | 0         | deliver to match
8.5.3.1 iq            | iq error stranger     | match    | ~         | deliver to match
8.5.3.1 message       | message normal        | match    | 0         | store and deliver to match
8.5.3.1 message       | message chat          | match    | 0 5       | store and deliver to match
8.5.3.1 message       | message chat          | match    | -1        | store and deliver to match
8.5.3.1 message       | message chat          | match    | ~         | store and deliver to match
8.5.3.1 message       | message groupchat     | match    | 0         | deliver to match
8.5.3.1 message       | message groupchat     | match    | -1        | deliver to match
8.5.3.1 message       | message headline      | match    | -1        | deliver to match
8.5.3.1 message       | message error         | match    | 0         | deliver to match
8.5.3.1 presence      | presence              | match    | 0         | deliver to match
8.5.3.1 presence      | presence              | match    | ~         | deliver to match
8.5.3.1 presence      | presence unavailable  | match    | -1        | deliver to match
8.5.3.1 presence      | presence error        | match    | 0         | deliver to match
8.5.3.1 presence      | presence subscribe    | match    | 0         | subscription subscribe
8.5.3.1 presence      | presence subscribed   | match    | 0         | subscription subscribed
8.5.3.1 presence      | presence unsubscribe  | match    | 0         | subscription unsubscribe
8.5.3.1 presence      | presence unsubscribed | match    | 0         | subscription unsubscribed
8.5.3.1 presence      | presence probe        | match    | 0         | probe

8.5.3.2.1             | message normal        | no match | 0         | service-unavailable
8.5.3.2.1             | message normal        | no match | -         | service-unavailable
8.5.3.2.1             | message groupchat     | no match | 0         | service-unavailable
8.5.3.2.1             | message groupchat     | no match | -         | service-unavailable
8.5.3.2.1             | message headline      | no match | 0         | discard
8.5.3.2.1             | message headline      | no match | -         | discard
8.5.3.2.1 chat        | message chat          | no match | -         | store
8.5.3.2.1 chat        | message chat          | no match | ~         | store
8.5.3.2.1 chat        | message chat          | no match | -1        | store
8.5.3.2.1 chat        | message chat          | no match | 0         | store and deliver to non-negative
8.5.3.2.1 chat        | message chat          | no match | 7 0 -1    | store and deliver to non-negative
8.5.3.2.1             | message error         | no match | 0         | discard
8.5.3.2.1             | message error         | no match | -         | discard
8.5.3.2.2             | presence              | no match | 0         | discard
8.5.3.2.2             | presence unavailable  | no match | 0         | discard
8.5.3.2.2             | presence error        | no match | 0         | discard
8.5.3.2.2             | presence subscribe    | no match | 0         | subscription subscribe
8.5.3.2.2             | presence subscribed   | no match | 0         | discard
8.5.3.2.2             | presence unsubscribe  | no match | 0         | discard
8.5.3.2.2             | presence unsubscribed | no match | -         | discard
8.5.3.2.2             | presence probe        | no match | 0         | probe
8.5.3.2.3             | iq get                | no match | 0         | service-unavailable
8.5.3.2.3             | iq set                | no match | -         | service-unavailable
RFC 6120 8.2.3        | iq result             | no match | 0         | discard
RFC 6120 8.2.3        | iq error              | no match | -         | discard
";

fn kind(words: &str) -> StanzaKind {
    let mut words = words.split(' ').filter(|w| *w != "stranger");
    let (name, stanza_type) = (words.next().expect("a kind"), words.next());
    match name {
        "message" => StanzaKind::Message(message_type(stanza_type)),
        "presence" => StanzaKind::Presence(match stanza_type {
            None => PresenceType::Available,
            Some("unavailable") => PresenceType::Unavailable,
            Some("probe") => PresenceType::Probe,
            Some("error") => PresenceType::Error,
            Some(kind) => PresenceType::Subscription(subscription_kind(kind)),
        }),
        _ => StanzaKind::Iq(match stanza_type {
            Some("get") => IqType::Get,
            Some("set") => IqType::Set,
            Some("result") => IqType::Result,
            _ => IqType::Error,
        }),
    }
}

fn message_type(name: Option<&str>) -> MessageType {
    match name {
        Some("chat") => MessageType::Chat,
        Some("groupchat") => MessageType::Groupchat,
        Some("headline") => MessageType::Headline,
        Some("error") => MessageType::Error,
        _ => MessageType::Normal,
    }
}

fn subscription_kind(name: &str) -> Kind {
    *Kind::ALL
        .iter()
        .find(|kind| kind.as_str() == name)
        .expect("a kind")
}

fn resources(words: &str) -> Resources {
    Resources::of(
        words
            .split(' ')
            .filter(|w| !w.is_empty() && *w != "-")
            .map(|w| match w {
                "~" => None,
                priority => Some(priority.parse().expect("a priority")),
            }),
    )
}

fn decision(words: &str) -> Decision {
    let deliver = |to: &str, store| {
        let to = match to {
            "match" => Recipients::Match,
            "non-negative" => Recipients::NonNegative,
            "available" => Recipients::Available,
            other => panic!("deliver to {other:?}"),
        };
        Decision::Deliver { to, store }
    };
    match words {
        "store" => Decision::Store,
        "discard" => Decision::Discard,
        "server" => Decision::Server,
        "account" => Decision::Account,
        "answer" => Decision::Answer,
        "probe" => Decision::Probe,
        "broadcast" => Decision::Broadcast,
        "remote" => Decision::Remote,
        _ => {
            if let Some(to) = words.strip_prefix("store and deliver to ") {
                deliver(to, true)
            } else if let Some(to) = words.strip_prefix("deliver to ") {
                deliver(to, false)
            } else if let Some(k) = words.strip_prefix("subscription ") {
                Decision::Subscription(
                    *Kind::ALL
                        .iter()
                        .find(|kind| kind.as_str() == k)
                        .expect("a kind"),
                )
            } else {
                Decision::Error(StanzaError::from_name(words).expect("a condition"))
            }
        }
    }
}

fn situation(stanza: &str, to: &str, connected: &str) -> Situation {
    Situation {
        kind: kind(stanza),
        to: match to {
            "absent" => To::Absent,
            "remote" => To::Remote,
            "domain" => To::Domain,
            "bare" | "nobody" => To::Bare,
            "match" => To::Full { matches: true },
            "no match" | "nobody/r" => To::Full { matches: false },
            other => panic!("to {other:?}"),
        },
        account_exists: !to.starts_with("nobody"),
        resources: resources(connected),
        shares_presence: !stanza.ends_with("stranger"),
        retention: Retention::Store { archive: true },
        rerouted: false,
    }
}

#[test]
fn every_line_of_section_8_holds() {
    let mut rows = 0;
    for row in ROWS.lines().filter(|l| !l.is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, stanza, to, connected, expected] = cells[..] else {
            panic!("five cells: {row}")
        };
        assert_eq!(
            decide(&situation(stanza, to, connected)),
            decision(expected),
            "{row}"
        );
        rows += 1;
    }
    assert!(rows > 140, "{rows} rows");
}

/// Table 1 of RFC 6121 §8.5.4: S silently ignored, E error, O stored, D delivered to the match, M or A delivered to
/// several. Where it allows two, ours is one of them.
const TABLE_1: &str = "
nobody   | -      | S/E | S/E | E   | S
nobody/r | -      | S/E | S/E | S/E | S/E
bare     | -      | O/E | O/E | E   | S
no match | -      | S/E | O/E | S/E | S/E
bare     | -1 -2  | O/E | O/E | E   | S
match    | -1 -2  | D   | D   | D   | D
no match | -1 -2  | S/E | O/E | S/E | S/E
bare     | 0      | A   | A   | E   | A
match    | 0      | D   | D   | D   | D
no match | 0      | S/E | A   | S/E | S/E
bare     | 0 3    | M/A | M/A | E   | A
match    | 0 3    | D   | D/A | D   | D
no match | 0 3    | S/E | M/A | S/E | S/E
";

#[test]
fn the_summary_table_of_8_5_4_holds() {
    for row in TABLE_1.lines().filter(|l| !l.is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for (stanza, allowed) in [
            "message normal",
            "message chat",
            "message groupchat",
            "message headline",
        ]
        .iter()
        .zip(&cells[2..])
        {
            let letter = match decide(&situation(stanza, cells[0], cells[1])) {
                Decision::Discard => "S",
                Decision::Error(StanzaError::ServiceUnavailable) => "E",
                Decision::Store => "O",
                Decision::Deliver {
                    to: Recipients::Match,
                    ..
                } => "D",
                Decision::Deliver {
                    to: Recipients::NonNegative,
                    ..
                } => "A",
                other => panic!("{row}: {stanza}: {other:?}"),
            };
            assert!(
                allowed.split('/').any(|a| a == letter),
                "{row}: {stanza}: {letter}"
            );
        }
    }
}

#[test]
fn a_message_that_may_not_be_kept_is_delivered_or_told_of() {
    let rows = [
        (Retention::Drop, "0", "deliver to non-negative"),
        (Retention::Drop, "-1", "discard"),
        (Retention::Drop, "-", "discard"),
        (Retention::Refuse, "0", "deliver to non-negative"),
        (Retention::Refuse, "-1", "service-unavailable"),
        (Retention::Refuse, "-", "service-unavailable"),
    ];
    for (retention, connected, expected) in rows {
        for stanza in ["message chat", "message normal"] {
            let s = Situation {
                retention,
                ..situation(stanza, "bare", connected)
            };
            assert_eq!(
                decide(&s),
                decision(expected),
                "{stanza} {retention:?} {connected}"
            );
            let s = Situation {
                retention,
                ..situation(stanza, "match", connected)
            };
            assert_eq!(decide(&s), decision("deliver to match"));
        }
    }
}

#[test]
fn an_accepted_message_is_never_bounced() {
    for (connected, expected) in [
        ("-", "store"),
        ("-1", "store"),
        ("~", "store"),
        ("0", "store and deliver to non-negative"),
    ] {
        for stanza in ["message normal", "message chat"] {
            let s = Situation {
                rerouted: true,
                ..situation(stanza, "no match", connected)
            };
            assert_eq!(decide(&s), decision(expected), "{stanza} {connected}");
        }
    }
    let s = Situation {
        rerouted: true,
        ..situation("message normal", "match", "0")
    };
    assert_eq!(decide(&s), decision("store and deliver to match"));
}

/// Whatever comes: an error or a result is never answered, and what is delivered somewhere has somewhere to go.
#[test]
fn no_situation_answers_an_error_or_delivers_to_nobody() {
    let kinds = [
        "message normal",
        "message chat",
        "message groupchat",
        "message headline",
        "message error",
        "presence",
        "presence unavailable",
        "presence subscribe",
        "presence subscribed",
        "presence unsubscribe",
        "presence unsubscribed",
        "presence probe",
        "presence error",
        "iq get",
        "iq set",
        "iq result",
        "iq error",
        "iq get stranger",
        "iq set stranger",
    ];
    let tos = [
        "absent", "domain", "bare", "nobody", "match", "no match", "nobody/r", "remote",
    ];
    for stanza in kinds {
        for to in tos {
            for connected in ["-", "~", "-1", "0", "0 -1 ~", "5 0"] {
                for retention in [
                    Retention::Drop,
                    Retention::Refuse,
                    Retention::Store { archive: false },
                ] {
                    for rerouted in [false, true] {
                        let s = Situation {
                            retention,
                            rerouted,
                            ..situation(stanza, to, connected)
                        };
                        match decide(&s) {
                            Decision::Error(_) => assert!(s.kind.answerable(), "{s:?}"),
                            Decision::Server | Decision::Account => {
                                assert!(s.kind.answerable(), "{s:?}")
                            }
                            Decision::Deliver {
                                to: Recipients::NonNegative,
                                ..
                            } => {
                                assert!(s.resources.non_negative, "{s:?}");
                            }
                            Decision::Deliver {
                                to: Recipients::Available,
                                store,
                            } => {
                                assert!(s.resources.available && !store, "{s:?}");
                            }
                            Decision::Deliver {
                                to: Recipients::Match,
                                ..
                            } => {
                                assert_eq!(s.to, To::Full { matches: true });
                            }
                            Decision::Store => {
                                assert!(s.retention.stores() && s.account_exists, "{s:?}")
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn recipients_are_those_of_the_rfc() {
    for (recipients, priority, matches, included) in [
        (Recipients::NonNegative, Some(0), false, true),
        (Recipients::NonNegative, Some(127), false, true),
        (Recipients::NonNegative, Some(-1), true, false),
        (Recipients::NonNegative, None, true, false),
        (Recipients::Available, Some(-128), false, true),
        (Recipients::Available, None, true, false),
        (Recipients::Match, None, true, true),
        (Recipients::Match, Some(-5), true, true),
        (Recipients::Match, Some(5), false, false),
    ] {
        assert_eq!(
            recipients.include(priority, matches),
            included,
            "{recipients:?} {priority:?} {matches}"
        );
    }
}

fn element(xml: &str) -> Element {
    Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("well-formed")
}

#[test]
fn what_may_be_kept_is_read_off_the_children() {
    use Retention::*;
    const KEEP: Retention = Store { archive: true };
    const PASS: Retention = Store { archive: false };
    let active = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
    let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    let no_store = "<no-store xmlns='urn:xmpp:hints'/>";
    let rows: &[(&str, String, Retention)] = &[
        (
            "XEP-0160 normal",
            "<message><body>hi</body></message>".into(),
            KEEP,
        ),
        (
            "XEP-0160 chat",
            "<message type='chat'><body>hi</body></message>".into(),
            KEEP,
        ),
        (
            "XEP-0160 groupchat",
            "<message type='groupchat'><body>hi</body></message>".into(),
            Drop,
        ),
        (
            "XEP-0160 headline",
            "<message type='headline'><body>hi</body></message>".into(),
            Drop,
        ),
        (
            "XEP-0160 error",
            "<message type='error'><body>hi</body></message>".into(),
            Drop,
        ),
        (
            "XEP-0160 chat state only",
            format!("<message type='chat'>{composing}</message>"),
            Drop,
        ),
        (
            "XEP-0160 chat state only",
            format!("<message type='chat'><thread>t</thread>{composing}</message>"),
            Drop,
        ),
        (
            "XEP-0160 chat state and body",
            format!("<message type='chat'><body>hi</body>{active}</message>"),
            KEEP,
        ),
        (
            "receipt",
            "<message type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>".into(),
            KEEP,
        ),
        (
            "XEP-0333 displayed",
            "<message><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>".into(),
            KEEP,
        ),
        (
            "XEP-0333 markable alone",
            "<message><markable xmlns='urn:xmpp:chat-markers:0'/></message>".into(),
            PASS,
        ),
        (
            "XEP-0444 reactions",
            "<message type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='1'/></message>"
                .into(),
            KEEP,
        ),
        (
            "XEP-0424 retraction",
            "<message type='chat'><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>"
                .into(),
            KEEP,
        ),
        (
            "XEP-0424 retraction, not for the archive",
            "<message><retract xmlns='urn:xmpp:message-retract:1' id='1'/>\
             <no-permanent-store xmlns='urn:xmpp:hints'/></message>"
                .into(),
            PASS,
        ),
        (
            "XEP-0184 request alone",
            "<message><request xmlns='urn:xmpp:receipts'/></message>".into(),
            PASS,
        ),
        (
            "subject",
            "<message><subject>hi</subject></message>".into(),
            PASS,
        ),
        ("nothing", "<message type='chat'/>".into(), Drop),
        (
            "text alone",
            "<message type='chat'>hi</message>".into(),
            Drop,
        ),
        (
            "XEP-0334 no-store",
            format!("<message type='chat'><body>hi</body>{no_store}</message>"),
            Refuse,
        ),
        (
            "XEP-0334 no-store",
            format!("<message><x xmlns='urn:x'/>{no_store}</message>"),
            Drop,
        ),
        (
            "XEP-0334 no-store beats store",
            format!(
                "<message type='chat'><body>hi</body><store xmlns='urn:xmpp:hints'/>{no_store}</message>"
            ),
            Refuse,
        ),
        (
            "XEP-0334 no-permanent-store",
            "<message><body>hi</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>".into(),
            PASS,
        ),
        (
            "XEP-0334 store",
            format!("<message type='chat'>{composing}<store xmlns='urn:xmpp:hints'/></message>"),
            KEEP,
        ),
        (
            "a body of another namespace",
            "<message><body xmlns='urn:x'>hi</body></message>".into(),
            PASS,
        ),
        (
            "no-copy is another matter",
            "<message><body>x</body><no-copy xmlns='urn:xmpp:hints'/></message>".into(),
            KEEP,
        ),
    ];
    for (what, xml, expected) in rows {
        let element = element(xml);
        let kind = MessageType::of(&element);
        assert_eq!(retention(kind, &element), *expected, "{what}: {xml}");
    }
}

#[test]
fn kinds_are_read_off_the_top_tag() {
    let good = [
        ("<message/>", "message normal"),
        ("<message type='normal'/>", "message normal"),
        ("<message type='bogus'/>", "message normal"), // §5.2.2
        ("<message type='chat'/>", "message chat"),
        ("<message type='groupchat'/>", "message groupchat"),
        ("<message type='headline'/>", "message headline"),
        ("<message type='error'/>", "message error"),
        ("<presence/>", "presence"),
        ("<presence type='unavailable'/>", "presence unavailable"),
        ("<presence type='subscribe'/>", "presence subscribe"),
        ("<presence type='subscribed'/>", "presence subscribed"),
        ("<presence type='unsubscribe'/>", "presence unsubscribe"),
        ("<presence type='unsubscribed'/>", "presence unsubscribed"),
        ("<presence type='probe'/>", "presence probe"),
        ("<presence type='error'/>", "presence error"),
        ("<iq type='get' id='1'><x xmlns='urn:x'/></iq>", "iq get"),
        ("<iq type='set' id='1'><x xmlns='urn:x'/></iq>", "iq set"),
        ("<iq type='result' id='1'/>", "iq result"),
        ("<iq type='error' id='1'/>", "iq error"),
    ];
    for (xml, expected) in good {
        assert_eq!(
            StanzaKind::of(&element(xml)),
            Some(Ok(kind(expected))),
            "{xml}"
        );
    }
    // §4.7.1, RFC 6120 §8.2.3, §8.1.3
    for xml in [
        "<presence type='available'/>",
        "<presence type=''/>",
        "<iq id='1'/>",
        "<iq type='ask' id='1'/>",
        "<iq type='get'><x xmlns='urn:x'/></iq>",
        "<iq type='result'/>",
        "<iq type='get' id='1'/>",
        "<iq type='get' id=''><x xmlns='urn:x'/></iq>",
        "<iq type='set' id='1'><x xmlns='urn:x'/><y xmlns='urn:x'/></iq>",
    ] {
        assert_eq!(
            StanzaKind::of(&element(xml)),
            Some(Err(StanzaError::BadRequest)),
            "{xml}"
        );
    }
    for xml in ["<x xmlns='urn:x'/>", "<message xmlns='urn:x'/>"] {
        assert_eq!(StanzaKind::of(&element(xml)), None, "{xml}");
    }
}

#[test]
fn an_error_reply_turns_the_addresses_round_and_is_never_answered() {
    let stanza = Bytes::from_static(b"<message type='chat' id='a&amp;1' from='a@example.org/x' to='b@example.org'><body>hi</body></message>");
    let reply =
        error_reply(&stanza, StanzaError::ServiceUnavailable, None).expect("may be answered");
    let reply = element(std::str::from_utf8(&reply).expect("UTF-8"));
    let attrs = ["type", "id", "from", "to"].map(|name| reply.attr(name).map(|v| v.into_owned()));
    assert_eq!(
        attrs,
        ["error", "a&1", "b@example.org", "a@example.org/x"].map(|v| Some(v.to_owned()))
    );
    assert!(reply.content_child("error").is_some());
    let kinds = ["message", "presence", "iq"];
    for name in kinds {
        let error = Bytes::from(format!(
            "<{name} type='error' id='1' from='a@example.org' to='b@example.org'/>"
        ));
        assert_eq!(
            error_reply(&error, StanzaError::ServiceUnavailable, None),
            None,
            "{name}"
        );
    }
    assert_eq!(
        error_reply(
            &Bytes::from_static(b"<iq type='result' id='1'/>"),
            StanzaError::BadRequest,
            None
        ),
        None
    );
    assert_eq!(
        error_reply(&Bytes::from_static(b"<iq"), StanzaError::BadRequest, None),
        None
    );
    for (kind, error) in [
        ("message chat", "message error"),
        ("presence", "presence error"),
        ("iq set", "iq error"),
    ] {
        assert_eq!(super::tests::kind(kind).error(), super::tests::kind(error));
        assert!(super::tests::kind(kind).answerable() && !super::tests::kind(error).answerable());
    }
}

#[test]
fn a_kept_message_comes_with_the_time_it_was_taken() {
    let rows = [
        (
            "<message from='a@example.org/x' to='b@example.org'><body>hi</body></message>",
            "<message from='a@example.org/x' to='b@example.org'><body>hi</body>\
             <delay xmlns='urn:xmpp:delay' from='example.org' stamp='2002-09-10T23:08:25.007Z'/></message>",
        ),
        (
            "<message to='b@example.org'/>",
            "<message to='b@example.org'>\
             <delay xmlns='urn:xmpp:delay' from='example.org' stamp='2002-09-10T23:08:25.007Z'/></message>",
        ),
    ];
    for (kept, expected) in rows {
        let kept = Bytes::copy_from_slice(kept.as_bytes());
        assert_eq!(
            with_delay(&kept, "example.org", 1_031_699_305_007),
            expected
        );
        assert_eq!(
            recipient(&kept),
            Some(Jid::parse("b@example.org").expect("an address"))
        );
    }
    assert_eq!(
        with_delay(&Bytes::from_static(b"<broken"), "example.org", 0),
        "<broken"
    );
    for unaddressed in ["<message/>", "<message to='@'/>", "<broken"] {
        assert_eq!(
            recipient(&Bytes::copy_from_slice(unaddressed.as_bytes())),
            None,
            "{unaddressed}"
        );
    }
    assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(stamp(u64::MAX), "1970-01-01T00:00:00.615Z");
}
