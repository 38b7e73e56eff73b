//! Frames for tables of misdeeds.
#![allow(dead_code)] // Each table needs its own.

use bytes::{Bytes, BytesMut};
use proto::codec::encode;
use proto::frame::*;
use proto::limits::*;

pub const ONE: ConnId = ConnId(1);
pub const TWO: ConnId = ConnId(2);
pub const STORE: StoreId = StoreId([5; 16]);
pub const SERVER: BootId = BootId([2; 16]);
pub const MUX: BootId = BootId([1; 16]);

pub fn wire(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        encode(frame, &mut bytes).expect("within limits");
    }
    bytes
}

pub fn hello(taken: Option<(BootId, u64)>) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        role: Role::Mux,
        name: "m".into(),
        frame_bytes_max: FRAME_BYTES_MIN,
        boot: MUX,
        store: None,
        taken,
    }
}

pub fn welcome(taken: Option<u64>) -> Welcome {
    Welcome {
        version: PROTOCOL_VERSION,
        name: "s".into(),
        frame_bytes_max: FRAME_BYTES_MIN,
        boot: SERVER,
        store: STORE,
        taken,
    }
}

pub fn open() -> Open {
    Open {
        kind: ListenerKind::C2s,
        transport: Transport::Tcp,
        peer: ([192, 0, 2, 1], 4000).into(),
        local: ([192, 0, 2, 2], 5222).into(),
        tls: None,
        dial: None,
    }
}

pub fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub fn input(conn: ConnId, len: usize) -> Frame {
    Frame::Input(
        conn,
        Input {
            bytes: Bytes::from(vec![b'x'; len]),
            message_end: false,
        },
    )
}

pub fn output(conn: ConnId) -> Frame {
    Frame::Output(
        conn,
        Output {
            bytes: text("<a/>"),
            last: true,
            stanza: true,
            stored: Some(StoredId(7)),
        },
    )
}

pub fn part(conn: ConnId, last: bool, stanza: bool) -> Frame {
    Frame::Output(
        conn,
        Output {
            bytes: text("<a"),
            last,
            stanza,
            stored: None,
        },
    )
}

pub fn close(conn: ConnId) -> Frame {
    Frame::Close(
        conn,
        Close {
            last: Bytes::new(),
            reason: CloseReason::Normal,
        },
    )
}

pub fn start_tls(conn: ConnId) -> Frame {
    Frame::StartTls(
        conn,
        StartTls {
            last: text("<proceed/>"),
            request_client_certificate: false,
        },
    )
}

pub fn secured(conn: ConnId) -> Frame {
    Frame::Secured(
        conn,
        TlsFacts {
            version: 0x0304,
            ..TlsFacts::default()
        },
    )
}

pub fn dial(number: u64) -> Frame {
    Frame::Dial(Dial {
        dial: number,
        kind: ListenerKind::S2s,
        target: DialTarget::Host("h".into(), 5269),
        tls: DialTls::Plain,
        server_name: "h".into(),
    })
}

pub fn resume() -> Resume {
    Resume {
        note: Some(NoteKey([3; 16])),
        open: open(),
        settled_bytes: 100,
        settled_stanzas: 2,
        elements: 5,
        stanzas: 3,
        drained: 4,
        held: vec![HeldStored {
            id: StoredId(9),
            element: 5,
            stanza: 3,
        }],
        closed: None,
    }
}

pub fn fanout(conn: ConnId, stanza: bool, stored: Option<StoredId>) -> Frame {
    let targets = vec![FanoutTarget {
        conn,
        insert: Bytes::new(),
        stored,
    }];
    Frame::Fanout(Fanout {
        prefix: text("<m/>"),
        suffix: Bytes::new(),
        stanza,
        targets,
    })
}

pub fn marks(
    settled_bytes: u64,
    settled_stanzas: u64,
    forget_stanzas: u64,
    input_bytes_max: u64,
) -> Frame {
    Frame::Marks(
        ONE,
        Marks {
            settled_bytes,
            settled_stanzas,
            forget_stanzas,
            input_bytes_max,
        },
    )
}
