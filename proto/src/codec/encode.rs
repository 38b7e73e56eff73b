//! Frames to bytes.

use super::*;
use crate::limits::*;
use bytes::{BufMut, BytesMut};
use std::net::{IpAddr, SocketAddr};

/// Appends `frame` to `out`. On an error `out` is as before.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        Frame::Output(conn, output) => {
            limit(
                !output.bytes.is_empty() && output.bytes.len() <= PART_BYTES_MAX,
                "PART_BYTES_MAX",
            )?;
            encode_output(
                *conn,
                &output.bytes,
                output.last,
                output.stanza,
                output.stored,
                out,
            );
            Ok(())
        }
        Frame::Input(conn, input) => {
            limit(
                (!input.bytes.is_empty() || input.message_end)
                    && input.bytes.len() <= PART_BYTES_MAX,
                "PART_BYTES_MAX",
            )?;
            encode_input(*conn, &input.bytes, input.message_end, out);
            Ok(())
        }
        Frame::Marks(conn, marks) => {
            encode_marks(*conn, marks, out);
            Ok(())
        }
        other => framed(kind_of(other), out, |out| payload(other, out)),
    }
}

/// One part of an element. `bytes` is 1 to `PART_BYTES_MAX` long.
pub fn encode_output(
    conn: ConnId,
    bytes: &[u8],
    last: bool,
    stanza: bool,
    stored: Option<StoredId>,
    out: &mut BytesMut,
) {
    let mut head = [0u8; LENGTH_BYTES + 1 + 8 + 1 + 8];
    let head_len = if stored.is_some() {
        head.len()
    } else {
        head.len() - 8
    };
    let length = (head_len - LENGTH_BYTES + bytes.len()) as u32;
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind::OUTPUT;
    head[5..13].copy_from_slice(&conn.0.to_be_bytes());
    head[13] = flag(last, LAST) | flag(stanza, STANZA) | flag(stored.is_some(), STORED);
    if let Some(StoredId(id)) = stored {
        head[14..22].copy_from_slice(&id.to_be_bytes());
    }
    out.reserve(head_len + bytes.len());
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(bytes);
}

/// Bytes of a client. `bytes` is 1 to `PART_BYTES_MAX` long.
pub fn encode_input(conn: ConnId, bytes: &[u8], message_end: bool, out: &mut BytesMut) {
    let mut head = [0u8; LENGTH_BYTES + 1 + 8 + 1];
    let length = (head.len() - LENGTH_BYTES + bytes.len()) as u32;
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind::INPUT;
    head[5..13].copy_from_slice(&conn.0.to_be_bytes());
    head[13] = flag(message_end, MESSAGE_END);
    out.reserve(head.len() + bytes.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(bytes);
}

/// Settled and Window.
pub fn encode_marks(conn: ConnId, marks: &Marks, out: &mut BytesMut) {
    let mut frame = [0u8; LENGTH_BYTES + 1 + 8 + 32];
    frame[..4].copy_from_slice(&((1 + 8 + 32) as u32).to_be_bytes());
    frame[4] = kind::MARKS;
    frame[5..13].copy_from_slice(&conn.0.to_be_bytes());
    frame[13..21].copy_from_slice(&marks.settled_bytes.to_be_bytes());
    frame[21..29].copy_from_slice(&marks.settled_stanzas.to_be_bytes());
    frame[29..37].copy_from_slice(&marks.forget_stanzas.to_be_bytes());
    frame[37..45].copy_from_slice(&marks.input_bytes_max.to_be_bytes());
    out.extend_from_slice(&frame);
}

/// One Resume, with its Open as `encode_open` wrote it.
#[allow(clippy::too_many_arguments)]
pub(crate) fn encode_resume(
    conn: ConnId,
    resume: &ResumeHead<'_>,
    open: &[u8],
    out: &mut BytesMut,
) {
    let written = framed(kind::RESUME, out, |out| {
        out.put_u64(conn.0);
        put_resume(resume, out)?;
        out.extend_from_slice(open);
        Ok(())
    });
    written.expect("the mux side keeps no more than HELD_STORED_MAX ids");
}

/// Everything of a Resume but its Open.
pub(crate) struct ResumeHead<'a> {
    pub note: Option<NoteKey>,
    pub settled_bytes: u64,
    pub settled_stanzas: u64,
    pub elements: u64,
    pub stanzas: u64,
    pub drained: u64,
    pub held: (&'a [HeldStored], &'a [HeldStored]),
    pub closed: Option<CloseReason>,
}

/// The payload of an Open, without conn: also how a mux keeps it.
pub(crate) fn encode_open(open: &Open) -> Result<Box<[u8]>, EncodeError> {
    let mut out = BytesMut::with_capacity(64);
    put_open(open, &mut out)?;
    Ok(out[..].into())
}

/// One Fanout frame out of targets whose number and size were checked by the caller.
pub(crate) fn encode_fanout(
    prefix: &[u8],
    suffix: &[u8],
    stanza: bool,
    targets: &[FanoutTarget],
    out: &mut BytesMut,
) {
    let written = framed(kind::FANOUT, out, |out| {
        put_fanout(prefix, suffix, stanza, targets, out).map_err(|_| EncodeError(""))
    });
    written.expect("the caller checked number and size of the targets");
}

/// Bytes one target takes in a Fanout frame.
pub(crate) fn fanout_target_bytes(target: &FanoutTarget) -> usize {
    TARGET_BYTES_MIN + if target.stored.is_some() { 8 } else { 0 } + target.insert.len()
}

/// Bytes of a Fanout frame before prefix, suffix and targets.
pub(crate) const FANOUT_HEAD_BYTES: usize = 1 + 1 + 4 + 4 + 2;

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn limit(within: bool, limit: &'static str) -> Result<(), EncodeError> {
    if within {
        Ok(())
    } else {
        Err(EncodeError(limit))
    }
}

/// Writes length and kind around what `write` writes; takes all back if it fails.
fn framed(
    kind: u8,
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    let result = write(out);
    let length = out.len() - start - LENGTH_BYTES;
    if let Err(error) = result {
        out.truncate(start);
        return Err(error);
    }
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(())
}

fn payload(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        Frame::Hello(hello) => put_hello(hello, out)?,
        Frame::Welcome(welcome) => put_welcome(welcome, out)?,
        Frame::Refused(reason) => put_reason(reason, out)?,
        Frame::Ack(n) | Frame::Ping(n) | Frame::Pong(n) => out.put_u64(*n),
        Frame::Drain | Frame::ResumeEnd => {}
        Frame::Open(conn, open) => {
            out.put_u64(conn.0);
            put_open(open, out)?;
        }
        Frame::Fanout(f) => put_fanout(&f.prefix, &f.suffix, f.stanza, &f.targets, out)?,
        Frame::Drained(conn, elements) => {
            out.put_u64(conn.0);
            out.put_u64(*elements);
        }
        Frame::StartTls(conn, start_tls) => {
            limit(start_tls.last.len() <= LAST_BYTES_MAX, "LAST_BYTES_MAX")?;
            out.put_u64(conn.0);
            out.put_u8(flag(
                start_tls.request_client_certificate,
                CLIENT_CERTIFICATE,
            ));
            out.extend_from_slice(&start_tls.last);
        }
        Frame::Secured(conn, facts) => {
            out.put_u64(conn.0);
            put_tls_facts(facts, out)?;
        }
        Frame::Note(conn, key) => {
            out.put_u64(conn.0);
            out.extend_from_slice(&key.0);
        }
        Frame::Dial(dial) => put_dial(dial, out)?,
        Frame::DialFailed(dial, reason) => {
            out.put_u64(*dial);
            put_reason(reason, out)?;
        }
        Frame::Close(conn, close) => {
            limit(close.last.len() <= LAST_BYTES_MAX, "LAST_BYTES_MAX")?;
            out.put_u64(conn.0);
            out.put_u8(close_reason_code(close.reason));
            out.extend_from_slice(&close.last);
        }
        Frame::Resume(conn, resume) => {
            out.put_u64(conn.0);
            let head = ResumeHead {
                note: resume.note,
                settled_bytes: resume.settled_bytes,
                settled_stanzas: resume.settled_stanzas,
                elements: resume.elements,
                stanzas: resume.stanzas,
                drained: resume.drained,
                held: (&resume.held, &[]),
                closed: resume.closed,
            };
            put_resume(&head, out)?;
            put_open(&resume.open, out)?;
        }
        Frame::Admin(bytes) => {
            limit(
                !bytes.is_empty() && bytes.len() < FRAME_BYTES_MIN as usize,
                "FRAME_BYTES_MIN",
            )?;
            out.extend_from_slice(bytes);
        }
        Frame::Input(..) | Frame::Output(..) | Frame::Marks(..) => {
            unreachable!("encode has written these")
        }
    }
    Ok(())
}

fn put_name(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    limit(
        name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control),
        "NAME_BYTES_MAX",
    )?;
    out.put_u8(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn put_nonempty_name(name: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    limit(!name.is_empty(), "NAME_BYTES_MAX")?;
    put_name(name, out)
}

fn put_hello(hello: &Hello, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(hello.version);
    out.put_u8(match hello.role {
        Role::Mux => 1,
        Role::Peer => 2,
        Role::Service => 3,
        Role::Admin => 4,
    });
    out.put_u32(hello.frame_bytes_max);
    out.extend_from_slice(&hello.boot.0);
    put_nonempty_name(&hello.name, out)?;
    out.put_u8(flag(hello.store.is_some(), HAS_STORE) | flag(hello.taken.is_some(), HAS_TAKEN));
    if let Some(store) = hello.store {
        out.extend_from_slice(&store.0);
    }
    if let Some((boot, taken)) = hello.taken {
        out.extend_from_slice(&boot.0);
        out.put_u64(taken);
    }
    Ok(())
}

/// One line for a log, up to the end of the frame.
fn put_reason(reason: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    let fits = reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control);
    limit(fits, "REASON_BYTES_MAX")?;
    out.extend_from_slice(reason.as_bytes());
    Ok(())
}

fn put_welcome(welcome: &Welcome, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(welcome.version);
    out.put_u32(welcome.frame_bytes_max);
    out.extend_from_slice(&welcome.boot.0);
    put_nonempty_name(&welcome.name, out)?;
    out.extend_from_slice(&welcome.store.0);
    out.put_u8(flag(welcome.taken.is_some(), HAS_TAKEN));
    if let Some(taken) = welcome.taken {
        out.put_u64(taken);
    }
    Ok(())
}

fn put_listener_kind(kind: ListenerKind, out: &mut BytesMut) {
    out.put_u8(match kind {
        ListenerKind::C2s => 1,
        ListenerKind::S2s => 2,
        ListenerKind::Component => 3,
    });
}

fn put_address(address: SocketAddr, out: &mut BytesMut) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.put_u16(address.port());
}

fn put_open(open: &Open, out: &mut BytesMut) -> Result<(), EncodeError> {
    put_listener_kind(open.kind, out);
    out.put_u8(match open.transport {
        Transport::Tcp => 1,
        Transport::Tls => 2,
        Transport::WebSocket => 3,
        Transport::WebSocketTls => 4,
    });
    put_address(open.peer, out);
    put_address(open.local, out);
    out.put_u8(flag(open.tls.is_some(), HAS_TLS) | flag(open.dial.is_some(), HAS_DIAL));
    if let Some(dial) = open.dial {
        out.put_u64(dial);
    }
    if let Some(tls) = &open.tls {
        put_tls_facts(tls, out)?;
    }
    Ok(())
}

fn put_tls_facts(facts: &TlsFacts, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u16(facts.version);
    out.put_u16(facts.cipher_suite);
    let verified = matches!(facts.client_certificate, Some((_, true)));
    out.put_u8(
        flag(facts.sni.is_some(), SNI)
            | flag(facts.alpn.is_some(), ALPN)
            | flag(facts.exporter.is_some(), EXPORTER)
            | flag(facts.server_end_point.is_some(), END_POINT)
            | flag(facts.client_certificate.is_some(), CERTIFICATE)
            | flag(verified, VERIFIED),
    );
    if let Some(sni) = &facts.sni {
        put_name(sni, out)?;
    }
    if let Some(alpn) = &facts.alpn {
        put_name(alpn, out)?;
    }
    if let Some(exporter) = &facts.exporter {
        out.extend_from_slice(exporter);
    }
    if let Some(end_point) = &facts.server_end_point {
        limit(
            end_point.len() <= SERVER_END_POINT_BYTES_MAX,
            "SERVER_END_POINT_BYTES_MAX",
        )?;
        out.put_u8(end_point.len() as u8);
        out.extend_from_slice(end_point);
    }
    if let Some((certificate, _)) = &facts.client_certificate {
        limit(
            certificate.len() <= CERTIFICATE_BYTES_MAX,
            "CERTIFICATE_BYTES_MAX",
        )?;
        out.put_u16(certificate.len() as u16);
        out.extend_from_slice(certificate);
    }
    Ok(())
}

fn put_fanout(
    prefix: &[u8],
    suffix: &[u8],
    stanza: bool,
    targets: &[FanoutTarget],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    limit(
        !targets.is_empty() && targets.len() <= FANOUT_TARGETS_MAX,
        "FANOUT_TARGETS_MAX",
    )?;
    let targets_bytes: usize = targets.iter().map(fanout_target_bytes).sum();
    let length = FANOUT_HEAD_BYTES + prefix.len() + suffix.len() + targets_bytes;
    limit(length <= FRAME_BYTES_MIN as usize, "FRAME_BYTES_MIN")?;
    out.put_u8(flag(stanza, STANZA));
    out.put_u32(prefix.len() as u32);
    out.put_u32(suffix.len() as u32);
    out.put_u16(targets.len() as u16);
    out.extend_from_slice(prefix);
    out.extend_from_slice(suffix);
    for target in targets {
        limit(
            target.insert.len() <= usize::from(u16::MAX),
            "FRAME_BYTES_MIN",
        )?;
        out.put_u64(target.conn.0);
        out.put_u8(flag(target.stored.is_some(), STORED));
        if let Some(StoredId(id)) = target.stored {
            out.put_u64(id);
        }
        out.put_u16(target.insert.len() as u16);
        out.extend_from_slice(&target.insert);
    }
    Ok(())
}

fn put_dial(dial: &Dial, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u64(dial.dial);
    put_listener_kind(dial.kind, out);
    out.put_u8(match dial.tls {
        DialTls::Plain => 1,
        DialTls::Direct => 2,
    });
    match &dial.target {
        DialTarget::Host(host, port) => {
            out.put_u8(1);
            out.put_u16(*port);
            put_nonempty_name(host, out)?;
        }
        DialTarget::Srv(name) => {
            out.put_u8(2);
            put_nonempty_name(name, out)?;
        }
    }
    put_nonempty_name(&dial.server_name, out)
}

/// The byte of a `CloseReason` on the wire.
pub(crate) fn close_reason_code(reason: CloseReason) -> u8 {
    match reason {
        CloseReason::Normal => 1,
        CloseReason::SocketError => 2,
        CloseReason::TlsError => 3,
        CloseReason::PolicyViolation => 4,
        CloseReason::SlowClient => 5,
        CloseReason::Limit => 6,
        CloseReason::Shutdown => 7,
        CloseReason::NotResumable => 8,
        CloseReason::Replaced => 9,
    }
}

fn put_resume(resume: &ResumeHead<'_>, out: &mut BytesMut) -> Result<(), EncodeError> {
    let count = resume.held.0.len() + resume.held.1.len();
    limit(count <= HELD_STORED_MAX, "HELD_STORED_MAX")?;
    out.put_u8(flag(resume.note.is_some(), HAS_NOTE) | flag(resume.closed.is_some(), HAS_CLOSED));
    if let Some(note) = resume.note {
        out.extend_from_slice(&note.0);
    }
    if let Some(reason) = resume.closed {
        out.put_u8(close_reason_code(reason));
    }
    out.put_u64(resume.settled_bytes);
    out.put_u64(resume.settled_stanzas);
    out.put_u64(resume.elements);
    out.put_u64(resume.stanzas);
    out.put_u64(resume.drained);
    out.put_u16(count as u16);
    for held in resume.held.0.iter().chain(resume.held.1) {
        out.put_u64(held.id.0);
        out.put_u64(held.element);
        out.put_u64(held.stanza);
    }
    Ok(())
}
