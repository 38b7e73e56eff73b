//! Any frame within its limits.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proto::frame::*;
use proto::limits::*;
use std::net::SocketAddr;

fn bytes(range: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), range).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => bytes(1..300),
        1 => (PART_BYTES_MAX - 3..=PART_BYTES_MAX).prop_map(|len| Bytes::from(vec![b'x'; len])),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.-]{1,40}", "[а-я]{1,40}", "[a-z]{255}"]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_000u64, 0..=COUNT_MAX]
}

fn conn() -> impl Strategy<Value = ConnId> {
    any::<u64>().prop_map(ConnId)
}

fn stored() -> impl Strategy<Value = Option<StoredId>> {
    option::of(any::<u64>().prop_map(StoredId))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

fn listener_kind() -> impl Strategy<Value = ListenerKind> {
    prop::sample::select(vec![
        ListenerKind::C2s,
        ListenerKind::S2s,
        ListenerKind::Component,
    ])
}

fn tls_facts() -> impl Strategy<Value = TlsFacts> {
    (
        any::<u16>(),
        any::<u16>(),
        option::of(name()),
        option::of(name()),
        option::of(any::<[u8; 32]>()),
        option::of(bytes(0..SERVER_END_POINT_BYTES_MAX + 1)),
        option::of((
            prop_oneof![bytes(0..300), bytes(16_000..CERTIFICATE_BYTES_MAX + 1)],
            any::<bool>(),
        )),
    )
        .prop_map(
            |(version, cipher_suite, sni, alpn, exporter, server_end_point, client_certificate)| {
                TlsFacts {
                    version,
                    cipher_suite,
                    sni,
                    alpn,
                    exporter,
                    server_end_point,
                    client_certificate,
                }
            },
        )
}

fn open() -> impl Strategy<Value = Open> {
    let transport = prop::sample::select(vec![
        Transport::Tcp,
        Transport::Tls,
        Transport::WebSocket,
        Transport::WebSocketTls,
    ]);
    (
        listener_kind(),
        transport,
        address(),
        address(),
        option::of(tls_facts()),
        option::of(any::<u64>()),
    )
        .prop_map(|(kind, transport, peer, local, tls, dial)| Open {
            kind,
            transport,
            peer,
            local,
            tls,
            dial,
        })
}

fn close_reason() -> impl Strategy<Value = CloseReason> {
    prop::sample::select(vec![
        CloseReason::Normal,
        CloseReason::SocketError,
        CloseReason::TlsError,
        CloseReason::PolicyViolation,
        CloseReason::SlowClient,
        CloseReason::Limit,
        CloseReason::Shutdown,
        CloseReason::NotResumable,
        CloseReason::Replaced,
    ])
}

fn greeting() -> impl Strategy<Value = Frame> {
    let role = prop::sample::select(vec![Role::Mux, Role::Peer, Role::Service, Role::Admin]);
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    (
        role,
        name(),
        FRAME_BYTES_MIN..=FRAME_BYTES_MAX,
        ids,
        any::<bool>(),
        option::of(count()),
        any::<bool>(),
    )
        .prop_map(
            |(role, name, frame_bytes_max, (boot, store, other), has_store, taken, hello)| {
                let (version, boot, store) = (PROTOCOL_VERSION, BootId(boot), StoreId(store));
                if hello {
                    let taken = taken.map(|taken| (BootId(other), taken));
                    let store = has_store.then_some(store);
                    Frame::Hello(Hello {
                        version,
                        role,
                        name,
                        frame_bytes_max,
                        boot,
                        store,
                        taken,
                    })
                } else {
                    Frame::Welcome(Welcome {
                        version,
                        name,
                        frame_bytes_max,
                        boot,
                        store,
                        taken,
                    })
                }
            },
        )
}

fn fanout() -> impl Strategy<Value = Frame> {
    let target = || {
        (conn(), bytes(0..60), stored()).prop_map(|(conn, insert, stored)| FanoutTarget {
            conn,
            insert,
            stored,
        })
    };
    let targets = prop_oneof![4 => vec(target(), 1..5), 1 => vec(target(), FANOUT_TARGETS_MAX)];
    (bytes(1..500), bytes(0..500), any::<bool>(), targets).prop_map(
        |(prefix, suffix, stanza, targets)| {
            Frame::Fanout(Fanout {
                prefix,
                suffix,
                stanza,
                targets,
            })
        },
    )
}

fn dial() -> impl Strategy<Value = Frame> {
    let target = prop_oneof![
        (name(), any::<u16>()).prop_map(|(host, port)| DialTarget::Host(host, port)),
        name().prop_map(DialTarget::Srv),
    ];
    let tls = prop::sample::select(vec![DialTls::Plain, DialTls::Direct]);
    (any::<u64>(), listener_kind(), target, tls, name()).prop_map(
        |(dial, kind, target, tls, server_name)| {
            Frame::Dial(Dial {
                dial,
                kind,
                target,
                tls,
                server_name,
            })
        },
    )
}

fn resume() -> impl Strategy<Value = Frame> {
    let held = || {
        (any::<u64>(), count(), count()).prop_map(|(id, element, stanza)| HeldStored {
            id: StoredId(id),
            element,
            stanza,
        })
    };
    let held = prop_oneof![4 => vec(held(), 0..5), 1 => vec(held(), HELD_STORED_MAX)];
    let counts = (count(), count(), count(), count(), count());
    (
        conn(),
        option::of(any::<[u8; 16]>()),
        open(),
        counts,
        held,
        option::of(close_reason()),
    )
        .prop_map(
            |(
                conn,
                note,
                open,
                (settled_bytes, settled_stanzas, elements, stanzas, drained),
                held,
                closed,
            )| {
                let note = note.map(NoteKey);
                let resume = Resume {
                    note,
                    open,
                    settled_bytes,
                    settled_stanzas,
                    elements,
                    stanzas,
                    drained,
                    held,
                    closed,
                };
                Frame::Resume(conn, resume)
            },
        )
}

/// Any frame within its limits.
pub fn any_frame() -> impl Strategy<Value = Frame> {
    let marks = (count(), count(), count(), count()).prop_map(|(a, b, c, d)| Marks {
        settled_bytes: a,
        settled_stanzas: b,
        forget_stanzas: c,
        input_bytes_max: d,
    });
    prop_oneof![
        greeting(),
        "[ -~]{0,512}".prop_map(Frame::Refused),
        count().prop_map(Frame::Ack),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        Just(Frame::Drain),
        (conn(), open()).prop_map(|(conn, open)| Frame::Open(conn, open)),
        (conn(), payload(), any::<bool>()).prop_map(|(conn, bytes, message_end)| Frame::Input(
            conn,
            Input { bytes, message_end }
        )),
        conn().prop_map(|conn| Frame::Input(
            conn,
            Input {
                bytes: Bytes::new(),
                message_end: true
            }
        )),
        (conn(), payload(), any::<bool>(), any::<bool>(), stored()).prop_map(
            |(conn, bytes, last, stanza, stored)| Frame::Output(
                conn,
                Output {
                    bytes,
                    last,
                    stanza,
                    stored
                }
            )
        ),
        fanout(),
        (conn(), marks).prop_map(|(conn, marks)| Frame::Marks(conn, marks)),
        (conn(), count()).prop_map(|(conn, elements)| Frame::Drained(conn, elements)),
        (conn(), bytes(0..300), any::<bool>()).prop_map(
            |(conn, last, request_client_certificate)| {
                Frame::StartTls(
                    conn,
                    StartTls {
                        last,
                        request_client_certificate,
                    },
                )
            }
        ),
        (conn(), tls_facts()).prop_map(|(conn, facts)| Frame::Secured(conn, facts)),
        (conn(), any::<[u8; 16]>()).prop_map(|(conn, key)| Frame::Note(conn, NoteKey(key))),
        dial(),
        (any::<u64>(), "[ -~]{0,512}").prop_map(|(dial, reason)| Frame::DialFailed(dial, reason)),
        (conn(), bytes(0..300), close_reason())
            .prop_map(|(conn, last, reason)| Frame::Close(conn, Close { last, reason })),
        resume(),
        Just(Frame::ResumeEnd),
        bytes(1..2000).prop_map(Frame::Admin),
    ]
}
