//! What the fuzz targets of the link do with their data. Nothing may panic, and what is asserted here must hold whatever
//! the other end sends. `proto/tests/fuzz.rs` runs the same on stable.

use bytes::{Bytes, BytesMut};
use proto::codec::{decode, encode};
use proto::frame::*;
use proto::limits::*;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::time::{Duration, Instant};

const MUX: BootId = BootId([1; 16]);
const SERVER: BootId = BootId([2; 16]);

/// Choices out of the data; zeros when it has run out.
struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn bytes(&mut self, most: usize) -> Bytes {
        let n = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(n);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }

    /// Mostly small, sometimes very large.
    fn count(&mut self) -> u64 {
        match self.byte() {
            255 => COUNT_MAX,
            254 => INPUT_WINDOW_MAX,
            253 => INPUT_WINDOW_INITIAL,
            n => n.into(),
        }
    }

    fn conn(&mut self) -> ConnId {
        ConnId(self.below(6).into())
    }

    fn stored(&mut self) -> Option<StoredId> {
        (self.below(2) == 1).then(|| StoredId(self.byte().into()))
    }

    fn open(&mut self) -> Open {
        Open {
            kind: ListenerKind::C2s,
            transport: if self.below(4) == 0 {
                Transport::Tls
            } else {
                Transport::Tcp
            },
            peer: ([192, 0, 2, 1], 4000).into(),
            local: ([192, 0, 2, 2], 5222).into(),
            tls: (self.below(4) == 0).then(TlsFacts::default),
            dial: (self.below(8) == 0).then(|| self.below(4).into()),
        }
    }

    fn taken(&mut self) -> Option<u64> {
        (self.below(2) == 1).then(|| self.count())
    }

    /// Any frame, about few connections and with small numbers, so that it often fits the state.
    fn frame(&mut self) -> Frame {
        let name = || "n".to_owned();
        let frame_bytes_max = FRAME_BYTES_MIN;
        let version = PROTOCOL_VERSION;
        let store = StoreId([self.below(2); 16]);
        let bytes = || Bytes::from_static(b"<x/>");
        match self.below(24) {
            0 => {
                let taken = self.taken().map(|taken| (SERVER, taken));
                Frame::Hello(Hello {
                    version,
                    role: Role::Mux,
                    name: name(),
                    frame_bytes_max,
                    boot: MUX,
                    store: None,
                    taken,
                })
            }
            1 => Frame::Welcome(Welcome {
                version,
                name: name(),
                frame_bytes_max,
                boot: SERVER,
                store,
                taken: self.taken(),
            }),
            2 => Frame::Ack(self.count()),
            3 => Frame::Ping(self.count()),
            4 => Frame::Pong(self.count()),
            5 => Frame::Drain,
            6 => Frame::Open(self.conn(), self.open()),
            7 | 8 => {
                let (conn, message_end) = (self.conn(), self.below(2) == 1);
                let least = usize::from(!message_end);
                let bytes = Bytes::from(vec![b'x'; usize::from(self.byte()) * 100 + least]);
                Frame::Input(conn, Input { bytes, message_end })
            }
            9 | 10 => {
                let (conn, last, stanza) = (self.conn(), self.below(4) != 0, self.below(2) == 1);
                Frame::Output(
                    conn,
                    Output {
                        bytes: bytes(),
                        last,
                        stanza,
                        stored: self.stored(),
                    },
                )
            }
            11 => {
                let targets = (0..=self.below(4))
                    .map(|_| FanoutTarget {
                        conn: self.conn(),
                        insert: self.bytes(20),
                        stored: self.stored(),
                    })
                    .collect();
                Frame::Fanout(Fanout {
                    prefix: bytes(),
                    suffix: bytes(),
                    stanza: self.below(4) != 0,
                    targets,
                })
            }
            12 | 13 => {
                let marks = Marks {
                    settled_bytes: self.count(),
                    settled_stanzas: self.count(),
                    forget_stanzas: self.count(),
                    input_bytes_max: self.count(),
                };
                Frame::Marks(self.conn(), marks)
            }
            14 => Frame::Drained(self.conn(), self.count()),
            15 => Frame::StartTls(
                self.conn(),
                StartTls {
                    last: bytes(),
                    request_client_certificate: false,
                },
            ),
            16 => Frame::Secured(self.conn(), TlsFacts::default()),
            17 => Frame::Note(self.conn(), NoteKey([self.below(2); 16])),
            18 => Frame::Dial(Dial {
                dial: self.below(4).into(),
                kind: ListenerKind::S2s,
                target: DialTarget::Srv(name()),
                tls: DialTls::Plain,
                server_name: name(),
            }),
            19 if self.below(2) == 1 => Frame::Refused(name()),
            19 => Frame::DialFailed(self.below(4).into(), String::new()),
            20 => {
                let last = if self.below(2) == 1 {
                    bytes()
                } else {
                    Bytes::new()
                };
                Frame::Close(
                    self.conn(),
                    Close {
                        last,
                        reason: CloseReason::Normal,
                    },
                )
            }
            21 => {
                let held = (0..self.below(4))
                    .map(|_| HeldStored {
                        id: StoredId(1),
                        element: self.count(),
                        stanza: self.count(),
                    })
                    .collect();
                let resume = Resume {
                    note: (self.below(2) == 1).then_some(NoteKey([0; 16])),
                    open: self.open(),
                    settled_bytes: self.count(),
                    settled_stanzas: self.count(),
                    elements: self.count(),
                    stanzas: self.count(),
                    drained: self.count(),
                    held,
                    closed: (self.below(4) == 0).then_some(CloseReason::Normal),
                };
                Frame::Resume(self.conn(), resume)
            }
            22 => Frame::ResumeEnd,
            _ => Frame::Admin(bytes()),
        }
    }

    /// Bytes from the other end: a frame, or anything.
    fn wire(&mut self) -> BytesMut {
        if self.below(16) == 0 {
            return BytesMut::from(&self.bytes(64)[..]);
        }
        let mut bytes = BytesMut::new();
        // An address or a number the encoder refuses is no frame.
        let _ = encode(&self.frame(), &mut bytes);
        bytes
    }
}

/// Any bytes, in pieces of any size: frames come out the same, and go back to the same bytes.
pub fn link_decoder(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else {
        return;
    };
    let mut whole = BytesMut::from(data);
    let mut frames = Vec::new();
    let result = loop {
        let before = whole.clone();
        match decode(&mut whole, FRAME_BYTES_MIN) {
            Ok(Some(frame)) => {
                let mut again = BytesMut::new();
                encode(&frame, &mut again).expect("what was decoded can be encoded");
                assert_eq!(&before[..before.len() - whole.len()], &again[..]);
                frames.push(frame);
            }
            other => break other,
        }
    };
    let mut pieces = BytesMut::new();
    let mut again = Vec::new();
    let mut piecewise = Ok(None);
    for piece in data.chunks(usize::from(*piece) + 1) {
        pieces.extend_from_slice(piece);
        loop {
            piecewise = decode(&mut pieces, FRAME_BYTES_MIN);
            let Ok(Some(frame)) = &mut piecewise else {
                break;
            };
            again.push(frame.clone());
        }
        if piecewise.is_err() {
            break;
        }
    }
    assert_eq!((frames, result), (again, piecewise));
}

/// A mux with clients that do anything, and a server that sends anything.
pub fn mux_side(data: &[u8]) {
    let mut data = Data(data);
    let mut now = Instant::now();
    let mut config = MuxSideConfig::new("m", MUX);
    config.conn_count_max = 4;
    config.retained_bytes_max = 50_000;
    config.unsettled_bytes_max = 40_000;
    let bound = config.unsettled_bytes_max + config.conn_count_max * INPUT_WINDOW_INITIAL as usize;
    let mut side = MuxSide::new(now, config);
    let mut link = BytesMut::new();
    while !data.0.is_empty() {
        match data.below(16) {
            0 => {
                side.handle_link_up(now);
                link.clear();
                // Most servers answer well at first.
                if data.below(4) != 0 {
                    let (version, frame_bytes_max) = (PROTOCOL_VERSION, FRAME_BYTES_MIN);
                    let (name, taken) = ("s".to_owned(), data.taken());
                    let welcome = Welcome {
                        version,
                        name,
                        frame_bytes_max,
                        boot: SERVER,
                        store: StoreId([0; 16]),
                        taken,
                    };
                    encode(&Frame::Welcome(welcome), &mut link).expect("within limits");
                }
            }
            1 => side.handle_link_down(now),
            2 => {
                let _ = side.open(now, data.open());
            }
            3 | 4 => {
                let conn = data.conn();
                let room = side.input_room(conn);
                let bytes = vec![b'x'; room.min(usize::from(data.byte()) * 64)];
                side.input(now, conn, &bytes, data.below(2) == 1);
            }
            5 => side.drained(now, data.conn(), data.count()),
            6 => side.closed(now, data.conn(), CloseReason::Normal),
            7 => side.secured(now, data.conn(), TlsFacts::default()),
            8 => side.dial_failed(now, data.below(4).into(), "x\0y"),
            9 => {
                now += Duration::from_secs(data.byte().into());
                side.handle_timeout(now);
            }
            _ => link.extend_from_slice(&data.wire()),
        }
        if side.handle_link_bytes(now, &mut link).is_err() {
            assert!(!side.is_link_up());
            link.clear();
        }
        while let Some(bytes) = side.poll_link_output() {
            assert!(!bytes.is_empty());
        }
        while let Some(event) = side.poll_event() {
            if let MuxEvent::Output { bytes, element, .. } = event {
                assert!(!bytes.is_empty() && element > 0);
            }
        }
        assert!(side.conn_count() <= 4 && side.unsettled_bytes() <= bound);
        assert!(
            side.poll_timeout()
                .is_none_or(|due| due + Duration::from_secs(300) > now)
        );
    }
}

/// A server whose sessions do anything, and a mux that sends anything.
pub fn server_side(data: &[u8]) {
    let mut data = Data(data);
    let mut now = Instant::now();
    let mut config = ServerSideConfig::new("s", SERVER, StoreId([0; 16]), Role::Mux);
    config.conn_count_max = 4;
    config.retained_bytes_max = 50_000;
    let mut link = BytesMut::new();
    let hello = |taken| Hello {
        version: PROTOCOL_VERSION,
        role: Role::Mux,
        name: "m".into(),
        frame_bytes_max: FRAME_BYTES_MIN,
        boot: MUX,
        store: None,
        taken,
    };
    let _ = read_hello(&mut data.wire());
    let mut side = ServerSide::accept(now, config, hello(None)).expect("a good Hello");
    if data.below(4) != 0 {
        encode(&Frame::ResumeEnd, &mut link).expect("no fields");
    }
    while !data.0.is_empty() {
        match data.below(16) {
            0 => {
                link.clear();
                let taken = data.taken().map(|taken| (SERVER, taken));
                let _ = side.handle_hello(now, hello(taken));
                if data.below(4) != 0 {
                    encode(&Frame::ResumeEnd, &mut link).expect("no fields");
                }
            }
            1 => side.handle_down(now),
            2..=5 => {
                let frame = data.frame();
                let _ = if data.below(2) == 1 {
                    side.send_tracked(frame)
                } else {
                    side.send(frame)
                };
            }
            6 => {
                now += Duration::from_secs(data.byte().into());
                side.handle_timeout(now);
            }
            _ => link.extend_from_slice(&data.wire()),
        }
        if side.handle_bytes(now, &mut link).is_err() {
            assert!(!side.is_up() && side.conn_count() == 0);
            link.clear();
        }
        while let Some(bytes) = side.poll_output() {
            assert!(!bytes.is_empty());
        }
        while let Some(event) = side.poll_event() {
            if let ServerEvent::Input(_, input) = event {
                assert!(!input.bytes.is_empty() || input.message_end);
            }
        }
        assert!(side.conn_count() <= 4 && side.unsent_bytes() <= side.retained_bytes());
    }
}
