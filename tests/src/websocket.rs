//! WebSocket as the client of the tests speaks it: frames by hand, and what is said on TCP as messages.
//!
//! In: bytes of the server; text as scripts and tests have it for TCP. Out: items of the stream, each from a message that
//! was parsed by itself, so that an element which leans on a header it does not have is noticed; frames.

use crate::xml::{Attr, Item, NS_CLIENT, NS_STREAM, StreamReader, Xml};
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{Read, Write};

/// RFC 7395 §3.3.
pub const NS_FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

const MASK: [u8; 4] = [0x9A, 0x01, 0xFE, 0x5C];

/// A client's frame; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ ..126 => out.push(0x80 | len as u8),
        len @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// A request that is good.
pub fn request(host: &str) -> String {
    format!(
        "GET /xmpp-websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The head of the answer.
pub fn read_head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("no HTTP response")?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

/// The handshake.
pub fn upgrade(stream: &mut (impl Read + Write), host: &str) -> Result<()> {
    stream.write_all(request(host).as_bytes())?;
    stream.flush()?;
    let head = read_head(stream)?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
    // A proxy may write the names of headers in its own way.
    let has = |name: &str, value: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
    };
    ensure!(
        has("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            && has("Sec-WebSocket-Protocol", "xmpp"),
        "{head}"
    );
    Ok(())
}

/// Frames of the server, as they come.
#[derive(Default)]
pub struct Frames {
    unread: Vec<u8>,
    /// The status of the server's Close frame.
    pub close_status: Option<u16>,
    /// To be sent: pongs, and the answer to Close.
    pub replies: Vec<u8>,
    /// Pings that came.
    pub pings: usize,
}

impl Frames {
    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next item; `None`: more bytes are needed.
    pub fn poll(&mut self) -> Result<Option<Item>> {
        while let Some((first, payload)) = self.next_frame()? {
            match first {
                0x81 => return item(std::str::from_utf8(&payload)?).map(Some),
                0x89 => {
                    self.pings += 1;
                    self.replies.extend(frame(0x8A, &payload));
                }
                0x8A => {}
                0x88 => {
                    ensure!(payload.len() == 2, "a Close without a status");
                    self.close_status = Some(u16::from_be_bytes([payload[0], payload[1]]));
                    self.replies.extend(frame(0x88, &payload));
                }
                other => bail!("a frame that begins with {other:#x}"),
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let [first, second, rest @ ..] = &self.unread[..] else {
            return Ok(None);
        };
        ensure!(second & 0x80 == 0, "the server masks");
        let (len, at) = match (second, rest) {
            (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [a @ .., _]) if a.len() >= 7 => {
                let len = u64::from_be_bytes(rest[..8].try_into()?);
                (usize::try_from(len)?, 10)
            }
            (126 | 127, _) => return Ok(None),
            (len, _) => (usize::from(*len), 2),
        };
        if self.unread.len() < at + len {
            return Ok(None);
        }
        let first = *first;
        let payload = self.unread[at..at + len].to_vec();
        self.unread.drain(..at + len);
        Ok(Some((first, payload)))
    }
}

/// A message, read by itself.
fn item(message: &str) -> Result<Item> {
    let mut reader = StreamReader::new();
    // Nothing is declared outside of it.
    reader.push(b"<alone>");
    reader.push(message.as_bytes());
    reader.push(b"</alone>");
    let mut found = None;
    loop {
        match reader.poll().with_context(|| message.to_owned())? {
            Some(Item::Header(_)) => {}
            Some(Item::Element(element)) if found.is_none() => found = Some(element),
            Some(Item::Element(_)) => bail!("two elements in one message: {message}"),
            Some(Item::End) => break,
            None => bail!("half an element in a message: {message}"),
        }
    }
    let element = found.with_context(|| format!("no element in a message: {message:?}"))?;
    ensure!(!element.ns.is_empty(), "no namespace: {message}");
    Ok(match (element.ns.as_str(), element.name.as_str()) {
        (NS_FRAMING, "open") => Item::Header(Xml {
            ns: NS_STREAM.into(),
            name: "stream".into(),
            ..element
        }),
        (NS_FRAMING, "close") => Item::End,
        (NS_FRAMING, _) => bail!("unknown framing: {message}"),
        _ => Item::Element(element),
    })
}

/// What is said on TCP, as messages: each top-level element one, with its namespace; a stream header becomes `<open/>`, the end
/// of the stream `<close/>`. What is no XML goes out as it is.
pub fn messages(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    if let Some(begin) = rest.find("<stream:stream ")
        && matches!(rest[..begin].trim(), "" | "<?xml version='1.0'?>")
        && let Some(end) = tag_end(&rest[begin..])
        && let Some(open) = open_of(&rest[begin..begin + end])
    {
        out.push(open);
        rest = &rest[begin + end..];
    }
    while !rest.trim().is_empty() {
        if let Some(after) = rest.trim_start().strip_prefix("</stream:stream>") {
            out.push(format!("<close xmlns='{NS_FRAMING}'/>"));
            rest = after;
            continue;
        }
        let end = element_end(rest).unwrap_or(rest.len());
        out.push(declared(rest[..end].trim()));
        rest = &rest[end..];
    }
    out
}

/// The usual header as `<open/>`; `None`: it is an unusual one.
fn open_of(header: &str) -> Option<String> {
    let whole = format!("{}/>", header.strip_suffix('>')?);
    let header = Xml::parse(&whole).ok()?;
    let usual = whole.contains(&format!("xmlns:stream='{NS_STREAM}'"))
        && whole.contains(&format!(" xmlns='{NS_CLIENT}'"));
    if !usual {
        return None;
    }
    let mut open = format!("<open xmlns='{NS_FRAMING}'");
    for Attr { ns, name, value } in &header.attrs {
        let prefix = if ns.is_empty() { "" } else { "xml:" };
        open += &format!(" {prefix}{name}='{}'", crate::xml::escape(value));
    }
    Some(open + "/>")
}

/// The element with the namespaces it would have had from the header.
fn declared(element: &str) -> String {
    let Some(end) = tag_end(element) else {
        return element.to_owned();
    };
    let tag = &element[..end];
    let name_end = tag
        .find(|c: char| c.is_whitespace() || c == '/' || c == '>')
        .unwrap_or(end);
    let add = match tag.starts_with("<stream:") {
        true if !tag.contains("xmlns:stream=") => format!(" xmlns:stream='{NS_STREAM}'"),
        false if !tag.contains(" xmlns=") && !tag[1..].starts_with(['/', '!', '?']) => {
            format!(" xmlns='{NS_CLIENT}'")
        }
        _ => String::new(),
    };
    format!("{}{add}{}", &element[..name_end], &element[name_end..])
}

/// Behind the `>` of the tag at the beginning.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, '>') => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Behind the first element; `None`: there is no whole one.
fn element_end(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = text.find('<')?;
    loop {
        let rest = &text[at..];
        let end = match rest.strip_prefix("<![CDATA[") {
            Some(_) => rest.find("]]>")? + 3,
            None => tag_end(rest)?,
        };
        if rest.starts_with("</") {
            depth = depth.checked_sub(1)?;
        } else if !rest.starts_with("<!") && !rest.starts_with("<?") && !rest[..end].ends_with("/>")
        {
            depth += 1;
        }
        at += end;
        if depth == 0 {
            return Some(at);
        }
        at += text[at..].find('<')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_on_tcp_as_messages() {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='a' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='{NS_STREAM}'>"
        );
        let rows: Vec<(String, Vec<String>)> = vec![
            (
                header,
                vec![format!(
                    "<open xmlns='{NS_FRAMING}' to='a' version='1.0' xml:lang='en'/>"
                )],
            ),
            (
                " <a x='>'><a/></a>\n<b xmlns='urn:b'>t</b> ".into(),
                vec![
                    "<a xmlns='jabber:client' x='>'><a/></a>".into(),
                    "<b xmlns='urn:b'>t</b>".into(),
                ],
            ),
            (
                "<presence/></stream:stream>".into(),
                vec![
                    "<presence xmlns='jabber:client'/>".into(),
                    format!("<close xmlns='{NS_FRAMING}'/>"),
                ],
            ),
            ("<!-- x -->".into(), vec!["<!-- x -->".into()]),
            ("<a><b>".into(), vec!["<a xmlns='jabber:client'><b>".into()]),
            ("no XML".into(), vec!["no XML".into()]),
        ];
        for (text, want) in rows {
            assert_eq!(messages(&text), want, "{text}");
        }
    }
}
