//! Bytes to frames. Every length and count is checked against the bytes that are there before anything is allocated.

use super::*;
use crate::limits::*;
use bytes::{Buf, Bytes, BytesMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Takes the next whole frame out of `buf`. None: more bytes are needed (at most `frame_bytes_max` + 4 in all), and
/// nothing was taken. After an error the buffer is of no more use.
pub fn decode(buf: &mut BytesMut, frame_bytes_max: u32) -> Result<Option<Frame>, DecodeError> {
    let Some(length) = buf.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    if length == 0 {
        return Err(DecodeError::Empty);
    }
    if length > frame_bytes_max {
        return Err(DecodeError::TooLong(length));
    }
    let end = LENGTH_BYTES + length as usize;
    if buf.len() < end {
        return Ok(None);
    }
    let mut r = Reader {
        bytes: &buf[..end],
        at: LENGTH_BYTES,
    };
    let kind = r.u8("kind")?;
    let frame = match kind {
        // The four that carry traffic come first, and take their payload out of the buffer.
        kind::INPUT => {
            let conn = r.conn()?;
            let flags = r.flags("Input flags", MESSAGE_END)?;
            // Without bytes: the last of those before ended the message.
            let least = usize::from(flags & MESSAGE_END == 0);
            let len = r.payload("Input bytes", least, PART_BYTES_MAX, "PART_BYTES_MAX")?;
            let bytes = take(buf, end - len, len);
            return Ok(Some(Frame::Input(
                conn,
                Input {
                    bytes,
                    message_end: flags & MESSAGE_END != 0,
                },
            )));
        }
        kind::OUTPUT => {
            let conn = r.conn()?;
            let flags = r.flags("Output flags", LAST | STANZA | STORED)?;
            let stored = r.stored(flags)?;
            let len = r.payload("Output bytes", 1, PART_BYTES_MAX, "PART_BYTES_MAX")?;
            let bytes = take(buf, end - len, len);
            let output = Output {
                bytes,
                last: flags & LAST != 0,
                stanza: flags & STANZA != 0,
                stored,
            };
            return Ok(Some(Frame::Output(conn, output)));
        }
        kind::FANOUT => {
            let at = r.at;
            let payload = take(buf, at, end - at);
            return fanout(payload).map(|fanout| Some(Frame::Fanout(fanout)));
        }
        kind::ADMIN => {
            let len = r.payload("Admin bytes", 1, usize::MAX, "")?;
            return Ok(Some(Frame::Admin(take(buf, end - len, len))));
        }
        kind::START_TLS => {
            let conn = r.conn()?;
            let flags = r.flags("StartTls flags", CLIENT_CERTIFICATE)?;
            let len = r.payload("StartTls last", 0, LAST_BYTES_MAX, "LAST_BYTES_MAX")?;
            let last = take(buf, end - len, len);
            let start_tls = StartTls {
                last,
                request_client_certificate: flags & CLIENT_CERTIFICATE != 0,
            };
            return Ok(Some(Frame::StartTls(conn, start_tls)));
        }
        kind::CLOSE => {
            let conn = r.conn()?;
            let reason = r.close_reason()?;
            let len = r.payload("Close last", 0, LAST_BYTES_MAX, "LAST_BYTES_MAX")?;
            let last = take(buf, end - len, len);
            return Ok(Some(Frame::Close(conn, Close { last, reason })));
        }
        kind::MARKS => Frame::Marks(
            r.conn()?,
            Marks {
                settled_bytes: r.count("settled_bytes")?,
                settled_stanzas: r.count("settled_stanzas")?,
                forget_stanzas: r.count("forget_stanzas")?,
                input_bytes_max: r.count("input_bytes_max")?,
            },
        ),
        kind::DRAINED => Frame::Drained(r.conn()?, r.count("drained")?),
        kind::ACK => Frame::Ack(r.count("Ack")?),
        kind::PING => Frame::Ping(r.u64("Ping")?),
        kind::PONG => Frame::Pong(r.u64("Pong")?),
        kind::DRAIN => Frame::Drain,
        kind::RESUME_END => Frame::ResumeEnd,
        kind::HELLO => Frame::Hello(r.hello()?),
        kind::WELCOME => Frame::Welcome(r.welcome()?),
        kind::OPEN => Frame::Open(r.conn()?, r.open()?),
        kind::SECURED => Frame::Secured(r.conn()?, r.tls_facts()?),
        kind::NOTE => Frame::Note(r.conn()?, NoteKey(r.array("Note")?)),
        kind::DIAL => Frame::Dial(r.dial()?),
        kind::DIAL_FAILED => {
            let dial = r.u64("dial")?;
            let len = r.payload("DialFailed reason", 0, REASON_BYTES_MAX, "REASON_BYTES_MAX")?;
            Frame::DialFailed(dial, r.text("DialFailed reason", len)?)
        }
        kind::REFUSED => {
            let len = r.payload("Refused reason", 0, REASON_BYTES_MAX, "REASON_BYTES_MAX")?;
            Frame::Refused(r.text("Refused reason", len)?)
        }
        kind::RESUME => Frame::Resume(r.conn()?, r.resume()?),
        other => return Err(DecodeError::Kind(other)),
    };
    if r.left() > 0 {
        return Err(DecodeError::Trailing(r.left()));
    }
    buf.advance(end);
    Ok(Some(frame))
}

/// The payload of `len` bytes that begins at `at`, as a slice of the read buffer.
fn take(buf: &mut BytesMut, at: usize, len: usize) -> Bytes {
    buf.advance(at);
    buf.split_to(len).freeze()
}

fn fanout(payload: Bytes) -> Result<Fanout, DecodeError> {
    let mut r = Reader {
        bytes: &payload,
        at: 0,
    };
    let flags = r.flags("Fanout flags", STANZA)?;
    let prefix_len = r.u32("Fanout prefix length")? as usize;
    let suffix_len = r.u32("Fanout suffix length")? as usize;
    let count = usize::from(r.u16("Fanout count")?);
    if count == 0 {
        return Err(DecodeError::Value("Fanout count", 0));
    }
    if count > FANOUT_TARGETS_MAX {
        return Err(DecodeError::Limit("FANOUT_TARGETS_MAX"));
    }
    let prefix = r.range("Fanout prefix", prefix_len)?;
    let suffix = r.range("Fanout suffix", suffix_len)?;
    if r.left() < count * TARGET_BYTES_MIN {
        return Err(DecodeError::Truncated("Fanout targets"));
    }
    let mut expanded = (prefix_len + suffix_len) * count;
    let mut targets = Vec::with_capacity(count);
    for _ in 0..count {
        let conn = r.conn()?;
        let flags = r.flags("Fanout target flags", STORED)?;
        let stored = r.stored(flags)?;
        let insert_len = usize::from(r.u16("Fanout insert length")?);
        let insert = r.range("Fanout insert", insert_len)?;
        expanded += insert_len;
        if prefix_len + suffix_len + insert_len == 0 {
            return Err(DecodeError::Value("Fanout element length", 0));
        }
        targets.push(FanoutTarget {
            conn,
            insert: payload.slice(insert),
            stored,
        });
    }
    if expanded > FANOUT_EXPANDED_BYTES_MAX {
        return Err(DecodeError::Limit("FANOUT_EXPANDED_BYTES_MAX"));
    }
    if r.left() > 0 {
        return Err(DecodeError::Trailing(r.left()));
    }
    let (prefix, suffix) = (payload.slice(prefix), payload.slice(suffix));
    Ok(Fanout {
        prefix,
        suffix,
        stanza: flags & STANZA != 0,
        targets,
    })
}

/// Takes apart what `encode_open` wrote.
pub(crate) fn decode_open(bytes: &[u8]) -> Result<Open, DecodeError> {
    Reader { bytes, at: 0 }.open()
}

/// Fields out of one frame, each read checked against its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn range(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<std::ops::Range<usize>, DecodeError> {
        if len > self.left() {
            return Err(DecodeError::Truncated(field));
        }
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let array = self.bytes[self.at..]
            .first_chunk::<N>()
            .ok_or(DecodeError::Truncated(field))?;
        self.at += N;
        Ok(*array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let value = self.u64(field)?;
        if value > COUNT_MAX {
            Err(DecodeError::Value(field, value))
        } else {
            Ok(value)
        }
    }

    fn conn(&mut self) -> Result<ConnId, DecodeError> {
        Ok(ConnId(self.u64("conn")?))
    }

    fn flags(&mut self, field: &'static str, known: u8) -> Result<u8, DecodeError> {
        let flags = self.u8(field)?;
        if flags & !known != 0 {
            Err(DecodeError::Value(field, flags.into()))
        } else {
            Ok(flags)
        }
    }

    fn stored(&mut self, flags: u8) -> Result<Option<StoredId>, DecodeError> {
        if flags & STORED == 0 {
            Ok(None)
        } else {
            Ok(Some(StoredId(self.u64("stored id")?)))
        }
    }

    /// Length of what is left of the frame, within its limits.
    fn payload(
        &self,
        field: &'static str,
        min: usize,
        max: usize,
        limit: &'static str,
    ) -> Result<usize, DecodeError> {
        let len = self.left();
        if len < min {
            return Err(DecodeError::Truncated(field));
        }
        if len > max {
            Err(DecodeError::Limit(limit))
        } else {
            Ok(len)
        }
    }

    fn text(&mut self, field: &'static str, len: usize) -> Result<String, DecodeError> {
        let range = self.range(field, len)?;
        let text = std::str::from_utf8(&self.bytes[range]).map_err(|_| DecodeError::Text(field))?;
        if text.chars().any(char::is_control) {
            Err(DecodeError::Text(field))
        } else {
            Ok(text.to_owned())
        }
    }

    /// A text with a one-byte length.
    fn name(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let len = self.u8(field)?;
        self.text(field, len.into())
    }

    fn nonempty_name(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let name = self.name(field)?;
        if name.is_empty() {
            Err(DecodeError::Value(field, 0))
        } else {
            Ok(name)
        }
    }

    fn role(&mut self) -> Result<Role, DecodeError> {
        Ok(match self.u8("role")? {
            1 => Role::Mux,
            2 => Role::Peer,
            3 => Role::Service,
            4 => Role::Admin,
            other => return Err(DecodeError::Value("role", other.into())),
        })
    }

    fn version(&mut self) -> Result<u16, DecodeError> {
        let version = self.u16("version")?;
        if version == PROTOCOL_VERSION {
            Ok(version)
        } else {
            Err(DecodeError::Version(version))
        }
    }

    fn frame_bytes_max(&mut self) -> Result<u32, DecodeError> {
        let value = self.u32("frame_bytes_max")?;
        if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&value) {
            Ok(value)
        } else {
            Err(DecodeError::Value("frame_bytes_max", value.into()))
        }
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        let version = self.version()?;
        let role = self.role()?;
        let frame_bytes_max = self.frame_bytes_max()?;
        let boot = BootId(self.array("boot")?);
        let name = self.nonempty_name("name")?;
        let flags = self.flags("Hello flags", HAS_STORE | HAS_TAKEN)?;
        let store = if flags & HAS_STORE == 0 {
            None
        } else {
            Some(StoreId(self.array("store")?))
        };
        let taken = if flags & HAS_TAKEN == 0 {
            None
        } else {
            Some((BootId(self.array("taken boot")?), self.count("taken")?))
        };
        Ok(Hello {
            version,
            role,
            name,
            frame_bytes_max,
            boot,
            store,
            taken,
        })
    }

    fn welcome(&mut self) -> Result<Welcome, DecodeError> {
        let version = self.version()?;
        let frame_bytes_max = self.frame_bytes_max()?;
        let boot = BootId(self.array("boot")?);
        let name = self.nonempty_name("name")?;
        let store = StoreId(self.array("store")?);
        let flags = self.flags("Welcome flags", HAS_TAKEN)?;
        let taken = if flags & HAS_TAKEN == 0 {
            None
        } else {
            Some(self.count("taken")?)
        };
        Ok(Welcome {
            version,
            name,
            frame_bytes_max,
            boot,
            store,
            taken,
        })
    }

    fn listener_kind(&mut self) -> Result<ListenerKind, DecodeError> {
        Ok(match self.u8("listener kind")? {
            1 => ListenerKind::C2s,
            2 => ListenerKind::S2s,
            3 => ListenerKind::Component,
            other => return Err(DecodeError::Value("listener kind", other.into())),
        })
    }

    fn address(&mut self, field: &'static str) -> Result<SocketAddr, DecodeError> {
        let ip = match self.u8(field)? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>(field)?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>(field)?)),
            other => return Err(DecodeError::Value(field, other.into())),
        };
        Ok(SocketAddr::new(ip, self.u16(field)?))
    }

    fn open(&mut self) -> Result<Open, DecodeError> {
        let kind = self.listener_kind()?;
        let transport = match self.u8("transport")? {
            1 => Transport::Tcp,
            2 => Transport::Tls,
            3 => Transport::WebSocket,
            4 => Transport::WebSocketTls,
            other => return Err(DecodeError::Value("transport", other.into())),
        };
        let peer = self.address("peer address")?;
        let local = self.address("local address")?;
        let flags = self.flags("Open flags", HAS_TLS | HAS_DIAL)?;
        let dial = if flags & HAS_DIAL == 0 {
            None
        } else {
            Some(self.u64("dial")?)
        };
        let tls = if flags & HAS_TLS == 0 {
            None
        } else {
            Some(self.tls_facts()?)
        };
        Ok(Open {
            kind,
            transport,
            peer,
            local,
            tls,
            dial,
        })
    }

    fn tls_facts(&mut self) -> Result<TlsFacts, DecodeError> {
        let version = self.u16("TLS version")?;
        let cipher_suite = self.u16("TLS cipher suite")?;
        let flags = self.flags(
            "TLS flags",
            SNI | ALPN | EXPORTER | END_POINT | CERTIFICATE | VERIFIED,
        )?;
        if flags & VERIFIED != 0 && flags & CERTIFICATE == 0 {
            return Err(DecodeError::Value("TLS flags", flags.into()));
        }
        let sni = if flags & SNI == 0 {
            None
        } else {
            Some(self.name("SNI")?)
        };
        let alpn = if flags & ALPN == 0 {
            None
        } else {
            Some(self.name("ALPN")?)
        };
        let exporter = if flags & EXPORTER == 0 {
            None
        } else {
            Some(self.array("TLS exporter")?)
        };
        let server_end_point = if flags & END_POINT == 0 {
            None
        } else {
            let len = self.u8("TLS end point length")?.into();
            if len > SERVER_END_POINT_BYTES_MAX {
                return Err(DecodeError::Limit("SERVER_END_POINT_BYTES_MAX"));
            }
            let range = self.range("TLS end point", len)?;
            Some(Bytes::copy_from_slice(&self.bytes[range]))
        };
        let client_certificate = if flags & CERTIFICATE == 0 {
            None
        } else {
            let len = self.u16("certificate length")?.into();
            if len > CERTIFICATE_BYTES_MAX {
                return Err(DecodeError::Limit("CERTIFICATE_BYTES_MAX"));
            }
            let range = self.range("certificate", len)?;
            Some((
                Bytes::copy_from_slice(&self.bytes[range]),
                flags & VERIFIED != 0,
            ))
        };
        Ok(TlsFacts {
            version,
            cipher_suite,
            sni,
            alpn,
            exporter,
            server_end_point,
            client_certificate,
        })
    }

    fn dial(&mut self) -> Result<Dial, DecodeError> {
        let dial = self.u64("dial")?;
        let kind = self.listener_kind()?;
        let tls = match self.u8("dial TLS")? {
            1 => DialTls::Plain,
            2 => DialTls::Direct,
            other => return Err(DecodeError::Value("dial TLS", other.into())),
        };
        let target = match self.u8("dial target")? {
            1 => {
                let port = self.u16("dial port")?;
                DialTarget::Host(self.nonempty_name("dial host")?, port)
            }
            2 => DialTarget::Srv(self.nonempty_name("dial name")?),
            other => return Err(DecodeError::Value("dial target", other.into())),
        };
        let server_name = self.nonempty_name("server name")?;
        Ok(Dial {
            dial,
            kind,
            target,
            tls,
            server_name,
        })
    }

    fn close_reason(&mut self) -> Result<CloseReason, DecodeError> {
        Ok(match self.u8("reason")? {
            1 => CloseReason::Normal,
            2 => CloseReason::SocketError,
            3 => CloseReason::TlsError,
            4 => CloseReason::PolicyViolation,
            5 => CloseReason::SlowClient,
            6 => CloseReason::Limit,
            7 => CloseReason::Shutdown,
            8 => CloseReason::NotResumable,
            9 => CloseReason::Replaced,
            other => return Err(DecodeError::Value("reason", other.into())),
        })
    }

    fn resume(&mut self) -> Result<Resume, DecodeError> {
        let flags = self.flags("Resume flags", HAS_NOTE | HAS_CLOSED)?;
        let note = if flags & HAS_NOTE == 0 {
            None
        } else {
            Some(NoteKey(self.array("Note")?))
        };
        let closed = if flags & HAS_CLOSED == 0 {
            None
        } else {
            Some(self.close_reason()?)
        };
        let settled_bytes = self.count("settled_bytes")?;
        let settled_stanzas = self.count("settled_stanzas")?;
        let elements = self.count("elements")?;
        let stanzas = self.count("stanzas")?;
        let drained = self.count("drained")?;
        let count = usize::from(self.u16("held count")?);
        if count > HELD_STORED_MAX {
            return Err(DecodeError::Limit("HELD_STORED_MAX"));
        }
        if self.left() < count * HELD_BYTES {
            return Err(DecodeError::Truncated("held ids"));
        }
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            let id = StoredId(self.u64("held id")?);
            held.push(HeldStored {
                id,
                element: self.count("held element")?,
                stanza: self.count("held stanza")?,
            });
        }
        let open = self.open()?;
        Ok(Resume {
            note,
            open,
            settled_bytes,
            settled_stanzas,
            elements,
            stanzas,
            drained,
            held,
            closed,
        })
    }
}
