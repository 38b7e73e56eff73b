//! The state of one stream between its events.

use super::header::StreamHeader;
use super::limits::{DECLARATION_BYTES_MAX, Limits, STREAM_END_BYTES_MAX};
use super::namespaces::StreamNamespaces;
use crate::element::{ContentNs, Element};
use crate::error::StreamError;
use crate::ns;
use crate::xml::{self, Fault, Inherited, Step, Tokenizer};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// What a stream consists of.
#[derive(Clone, PartialEq, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every event is an element: a box would be an allocation per stanza"
)]
pub enum StreamEvent {
    /// The stream header: the first event, and again after [`StreamParser::reset`].
    Header(Box<StreamHeader>),
    /// A top-level element.
    Element(Element),
    /// The stream is closed; nothing follows.
    End,
}

/// Where in the stream the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Before the header; an XML declaration may come.
    Declaration,
    /// Before the header, after the declaration.
    Header,
    /// Between the header and the end.
    Body,
    /// The header was an empty-element tag: the end comes next, without bytes of its own.
    Closing,
    /// After the end.
    Ended,
    /// After an error, which is repeated for ever.
    Failed(Fault),
}

/// Bytes not consumed yet. At most one of the two is not empty.
#[derive(Debug, Default)]
struct Buffer {
    /// As received, shared with whoever gave it.
    shared: Bytes,
    /// The beginning of something incomplete, copied so that it pins nobody's buffer.
    owned: BytesMut,
    /// `owned` is the rest of a buffer that an element was cut from.
    owned_is_rest: bool,
}

impl Buffer {
    fn as_slice(&self) -> &[u8] {
        if self.owned.is_empty() {
            &self.shared
        } else {
            &self.owned
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if self.as_slice().is_empty() {
            self.shared = bytes;
            return;
        }
        self.keep();
        self.owned.extend_from_slice(&bytes);
    }

    fn advance(&mut self, n: usize) {
        if self.owned.is_empty() {
            self.shared.advance(n);
        } else {
            self.owned.advance(n);
        }
        self.release();
    }

    fn take(&mut self, n: usize) -> Bytes {
        let taken = if self.owned.is_empty() {
            self.shared.split_to(n)
        } else {
            self.owned_is_rest = true;
            self.owned.split_to(n).freeze()
        };
        self.release();
        taken
    }

    /// Lets go of a buffer with nothing in it.
    fn release(&mut self) {
        if self.owned.is_empty() && (self.owned.capacity() > 0 || self.owned_is_rest) {
            self.owned = BytesMut::new();
            self.owned_is_rest = false;
        }
        if self.shared.is_empty() {
            self.shared = Bytes::new();
        }
    }

    /// Copies the rest of a buffer that others share, or that is mostly used up.
    fn keep(&mut self) {
        if !self.shared.is_empty() {
            self.owned = BytesMut::from(&self.shared[..]);
            self.shared = Bytes::new();
        } else if self.owned_is_rest {
            self.owned = BytesMut::from(&self.owned[..]);
        }
        self.owned_is_rest = false;
    }
}

/// Where messages end that have not been consumed yet, as counts of bytes. Nearly always there is one, or none.
#[derive(Debug, Default)]
struct MessageEnds {
    first: Option<u64>,
    #[allow(
        clippy::box_collection,
        reason = "three words less in each of many idle streams"
    )]
    rest: Option<Box<VecDeque<u64>>>,
}

impl MessageEnds {
    fn push(&mut self, end: u64) {
        if self.first.is_none() {
            self.first = Some(end);
        } else {
            self.rest.get_or_insert_default().push_back(end);
        }
    }

    fn pop(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        if self.first.is_none() {
            self.rest = None;
        }
    }
}

/// The parser of one stream, incremental: push what was read, poll until there is nothing more.
#[derive(Debug)]
pub struct StreamParser {
    buffer: Buffer,
    /// The element in progress, which begins at the beginning of `buffer`.
    tokenizer: Option<Box<Tokenizer>>,
    consumed: u64,
    limits: Limits,
    namespaces: StreamNamespaces,
    phase: Phase,
    /// WebSocket: an event came out of the current message.
    message_used: bool,
    /// WebSocket: ends of messages among the bytes not consumed.
    ends: MessageEnds,
}

impl StreamParser {
    /// A parser before the header of a TCP stream.
    pub fn new(limits: Limits) -> StreamParser {
        StreamParser {
            buffer: Buffer::default(),
            tokenizer: None,
            consumed: 0,
            limits: limits.clamped(),
            namespaces: StreamNamespaces::new(ContentNs::Client),
            phase: Phase::Declaration,
            message_used: false,
            ends: MessageEnds::default(),
        }
    }

    /// A parser before the `<open/>` of a WebSocket stream. After the last bytes of each message
    /// call [`StreamParser::end_message`].
    pub fn new_framed(limits: Limits) -> StreamParser {
        StreamParser {
            namespaces: StreamNamespaces::framed(),
            ..StreamParser::new(limits)
        }
    }

    /// Takes bytes that follow those of the last push. After the end of the stream, or an error,
    /// they are dropped.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() && !matches!(self.phase, Phase::Failed(_) | Phase::Ended) {
            self.buffer.push(bytes);
        }
    }

    /// The next event; None: more bytes are needed.
    ///
    /// Errors: the stream error that the bytes deserve (RFC 6120 §4.9.3). It is final: every
    /// later call returns it again.
    pub fn poll(&mut self) -> Result<Option<StreamEvent>, StreamError> {
        match self.poll_inner() {
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => {
                self.buffer.keep();
                Ok(None)
            }
            Err(fault) => {
                self.phase = Phase::Failed(fault);
                self.buffer = Buffer::default();
                self.tokenizer = None;
                self.ends = MessageEnds::default();
                Err(fault.error)
            }
        }
    }

    /// WebSocket: the bytes pushed so far end a message (RFC 7395 §3.3.3). A message that is not exactly one element is
    /// `not-well-formed`, when it is polled.
    pub fn end_message(&mut self) {
        if self.namespaces.is_framed() && !matches!(self.phase, Phase::Failed(_) | Phase::Ended) {
            self.ends
                .push(self.consumed + self.buffer.as_slice().len() as u64);
        }
    }

    /// Bytes of the stream up to the end of the last event, since the parser was made. White space
    /// after it counts once it was seen by `poll`.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Bytes pushed and not consumed yet.
    pub fn buffered(&self) -> usize {
        self.buffer.as_slice().len()
    }

    /// What was wrong, in a few words for the log, after an error.
    pub fn error_detail(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Failed(fault) => Some(fault.detail),
            _ => None,
        }
    }

    /// Expects a new stream header (RFC 6120 §4.3.3). Bytes not consumed yet belong to the new
    /// stream; whoever restarts a stream for TLS must refuse them first.
    pub fn reset(&mut self) {
        self.phase = Phase::Declaration;
        self.tokenizer = None;
        self.namespaces = match self.namespaces.is_framed() {
            true => StreamNamespaces::framed(),
            false => StreamNamespaces::new(ContentNs::Client),
        };
    }

    /// Goes on between two elements of a stream whose header another parser has read.
    pub fn resume_after_header(&mut self, namespaces: StreamNamespaces) {
        self.phase = Phase::Body;
        self.tokenizer = None;
        self.namespaces = namespaces;
    }

    /// The namespaces of the header, as [`StreamParser::resume_after_header`] needs them.
    pub fn namespaces(&self) -> &StreamNamespaces {
        &self.namespaces
    }

    /// Sets the limits, from the next byte on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.clamped();
    }

    fn poll_inner(&mut self) -> Result<Option<StreamEvent>, Fault> {
        loop {
            match self.poll_message()? {
                None if self.message_is_over()? => {}
                event => return Ok(event),
            }
        }
    }

    /// No event is left in what there is of the current message. True: it has come to its end, and the next one begins.
    fn message_is_over(&mut self) -> Result<bool, Fault> {
        if self.ends.first.is_none() || matches!(self.phase, Phase::Ended) {
            return Ok(false);
        }
        if !self.message().is_empty() {
            return Err(Fault::new(
                StreamError::NotWellFormed,
                "a message ends inside an element",
            ));
        }
        self.ends.pop();
        self.message_used = false;
        Ok(true)
    }

    /// What there is of the current message; all there is where there are none.
    fn message(&self) -> &[u8] {
        let data = self.buffer.as_slice();
        match self.ends.first {
            Some(end) => &data[..(end - self.consumed) as usize],
            None => data,
        }
    }

    fn poll_message(&mut self) -> Result<Option<StreamEvent>, Fault> {
        loop {
            match self.phase {
                Phase::Failed(fault) => return Err(fault),
                Phase::Ended => {
                    self.buffer = Buffer::default();
                    self.ends = MessageEnds::default();
                    return Ok(None);
                }
                Phase::Closing => {
                    self.phase = Phase::Ended;
                    return Ok(Some(StreamEvent::End));
                }
                Phase::Declaration | Phase::Header | Phase::Body => {}
            }
            if self.tokenizer.is_none() {
                self.skip_white_space();
                let Some(kind) = self.next_markup()? else {
                    return Ok(None);
                };
                match (self.phase, kind) {
                    (Phase::Declaration, b'?') if !self.namespaces.is_framed() => {
                        let Some(len) = declaration(self.buffer.as_slice())? else {
                            return Ok(None);
                        };
                        self.advance(len);
                        self.phase = Phase::Header;
                        continue;
                    }
                    (_, b'?') => {
                        return Err(Fault::new(
                            StreamError::RestrictedXml,
                            "processing instruction",
                        ));
                    }
                    (_, b'!') => match self.message().get(2) {
                        None => return Ok(None),
                        Some(b'[') => return Err(self.text_between_elements()),
                        Some(_) => {
                            return Err(Fault::new(StreamError::RestrictedXml, "comment or DTD"));
                        }
                    },
                    (Phase::Body, b'/') if !self.namespaces.is_framed() => {
                        return self.stream_end();
                    }
                    (_, b'/') => {
                        return Err(Fault::new(
                            StreamError::NotWellFormed,
                            "end tag without start tag",
                        ));
                    }
                    (Phase::Declaration, _) => self.phase = Phase::Header,
                    _ => {}
                }
                if self.message_used {
                    return Err(Fault::new(
                        StreamError::NotWellFormed,
                        "two elements in one message",
                    ));
                }
            }
            return if matches!(self.phase, Phase::Header) {
                self.poll_header()
            } else {
                self.poll_element()
            };
        }
    }

    fn advance(&mut self, n: usize) {
        self.consumed += n as u64;
        self.buffer.advance(n);
    }

    fn skip_white_space(&mut self) {
        let data = self.message();
        let n = data
            .iter()
            .position(|&b| !xml::is_space(b))
            .unwrap_or(data.len());
        if n > 0 {
            self.advance(n);
        }
    }

    /// The byte after the `<` that must come next between elements.
    fn next_markup(&self) -> Result<Option<u8>, Fault> {
        match *self.message() {
            [] | [b'<'] => Ok(None),
            [b'<', kind, ..] => Ok(Some(kind)),
            ref text => {
                if let Some(fault) = xml::char_fault(text) {
                    return fault.map_or(Ok(None), Err);
                }
                Err(self.text_between_elements())
            }
        }
    }

    /// Before the header it is XML that forbids it, after it XMPP (RFC 6120 §11.7).
    fn text_between_elements(&self) -> Fault {
        let error = match self.phase {
            Phase::Body => StreamError::BadFormat,
            _ => StreamError::NotWellFormed,
        };
        Fault::new(error, "text between elements")
    }

    /// Runs the tokenizer over what there is of the element at the beginning of the buffer.
    fn tokenize(
        &mut self,
        inherited: Inherited<'_>,
    ) -> Result<Option<(usize, Box<Tokenizer>)>, Fault> {
        let mut tokenizer = self.tokenizer.take().unwrap_or_else(Tokenizer::spare);
        let data = self.message();
        let window = data.len().min(self.limits.element_bytes_max as usize);
        match tokenizer.run(&data[..window], &self.limits, inherited)? {
            Step::Done(len) => Ok(Some((len, tokenizer))),
            Step::More if window < data.len() => Err(Fault::new(
                StreamError::PolicyViolation,
                "element too large",
            )),
            Step::More => {
                self.tokenizer = Some(tokenizer);
                Ok(None)
            }
        }
    }

    fn poll_header(&mut self) -> Result<Option<StreamEvent>, Fault> {
        let framed = self.namespaces.is_framed();
        let inherited = if framed {
            Inherited::Nothing
        } else {
            Inherited::HeaderItself
        };
        let Some((len, tokenizer)) = self.tokenize(inherited)? else {
            return Ok(None);
        };
        let tag = self.buffer.take(len);
        self.consumed += len as u64;
        self.message_used = framed;
        let header = StreamHeader::read(&tag, &tokenizer.top_ns(&tag), framed);
        let empty = tokenizer.top_is_empty();
        tokenizer.recycle();
        let header = header.map_err(|(error, detail)| Fault::new(error, detail))?;
        self.namespaces = header.namespaces.clone();
        self.phase = if empty && !framed {
            Phase::Closing
        } else {
            Phase::Body
        };
        Ok(Some(StreamEvent::Header(Box::new(header))))
    }

    fn poll_element(&mut self) -> Result<Option<StreamEvent>, Fault> {
        let namespaces = std::mem::take(&mut self.namespaces);
        let framed = namespaces.is_framed();
        let inherited = if framed {
            Inherited::Nothing
        } else {
            Inherited::Header(&namespaces)
        };
        let done = self.tokenize(inherited);
        let event = done.map(|done| {
            done.map(|(len, mut tokenizer)| {
                let raw = self.buffer.take(len);
                self.consumed += len as u64;
                let element = tokenizer.element(raw, &namespaces);
                tokenizer.recycle();
                element
            })
        });
        self.namespaces = namespaces;
        let Some(element) = event? else {
            return Ok(None);
        };
        self.message_used = framed;
        if framed && element.is("close", ns::FRAMING) {
            self.phase = Phase::Ended;
            return Ok(Some(StreamEvent::End));
        }
        Ok(Some(StreamEvent::Element(element)))
    }

    /// `</stream:stream>`, which begins at the beginning of the buffer.
    fn stream_end(&mut self) -> Result<Option<StreamEvent>, Fault> {
        const TAG: &[u8] = b"</stream:stream";
        let data = self.buffer.as_slice();
        let data = &data[..data.len().min(STREAM_END_BYTES_MAX)];
        let known = data.len().min(TAG.len());
        if data[..known] != TAG[..known] {
            return Err(Fault::new(
                StreamError::NotWellFormed,
                "end tag without start tag",
            ));
        }
        let spaces = data[known..]
            .iter()
            .take_while(|&&b| xml::is_space(b))
            .count();
        match data.get(known + spaces) {
            Some(b'>') => {
                self.advance(known + spaces + 1);
                self.phase = Phase::Ended;
                Ok(Some(StreamEvent::End))
            }
            Some(_) => Err(Fault::new(
                StreamError::NotWellFormed,
                "malformed end of the stream",
            )),
            None if data.len() == STREAM_END_BYTES_MAX => Err(Fault::new(
                StreamError::PolicyViolation,
                "end of the stream too long",
            )),
            None => Ok(None),
        }
    }
}

/// The XML declaration at the beginning of `data`: its length; None: incomplete.
fn declaration(data: &[u8]) -> Result<Option<usize>, Fault> {
    const START: &[u8] = b"<?xml";
    let known = data.len().min(START.len());
    if data[..known] != START[..known] || data.get(START.len()).is_some_and(|&b| !xml::is_space(b))
    {
        return Err(Fault::new(
            StreamError::RestrictedXml,
            "processing instruction",
        ));
    }
    let window = &data[..data.len().min(DECLARATION_BYTES_MAX)];
    let Some(end) = memchr::memmem::find(window, b"?>") else {
        if data.len() >= DECLARATION_BYTES_MAX {
            return Err(Fault::new(
                StreamError::PolicyViolation,
                "XML declaration too long",
            ));
        }
        return Ok(None);
    };
    check_declaration(&data[START.len()..end])?;
    Ok(Some(end + 2))
}

/// What is between `<?xml` and `?>` (XML §2.8): version, then encoding, then standalone.
fn check_declaration(mut rest: &[u8]) -> Result<(), Fault> {
    let malformed = Fault::new(StreamError::NotWellFormed, "malformed XML declaration");
    let mut order = 0;
    loop {
        let spaces = rest.iter().take_while(|&&b| xml::is_space(b)).count();
        rest = &rest[spaces..];
        if rest.is_empty() {
            return if order > 0 { Ok(()) } else { Err(malformed) };
        }
        let name_len = rest.iter().take_while(|b| b.is_ascii_lowercase()).count();
        let (name, after) = rest.split_at(name_len);
        let value_at = after
            .iter()
            .take_while(|&&b| xml::is_space(b) || b == b'=')
            .count();
        if spaces == 0 || after[..value_at].iter().filter(|&&b| b == b'=').count() != 1 {
            return Err(malformed);
        }
        let (quote, value) = match after.get(value_at) {
            Some(&quote @ (b'\'' | b'"')) => (quote, &after[value_at + 1..]),
            _ => return Err(malformed),
        };
        let len = memchr::memchr(quote, value).ok_or(malformed)?;
        rest = &value[len + 1..];
        match (name, order) {
            (b"version", 0) => {
                order = 1;
                if &value[..len] != b"1.0" {
                    return Err(Fault::new(StreamError::NotWellFormed, "not XML 1.0"));
                }
            }
            (b"encoding", 1) => {
                order = 2;
                if !value[..len].eq_ignore_ascii_case(b"utf-8") {
                    return Err(Fault::new(
                        StreamError::UnsupportedEncoding,
                        "declared encoding is not UTF-8",
                    ));
                }
            }
            (b"standalone", 1 | 2) if matches!(&value[..len], b"yes" | b"no") => order = 3,
            _ => return Err(malformed),
        }
    }
}
