//! The tokenizer: one pass over the bytes of one top-level element, stopping and going on at any
//! byte.
//!
//! In: the bytes of the element so far, always from its first byte.
//! Out: its length once it is complete, and the spans of its parts; or what is wrong with it.
//! Owns: the place where it stopped, the open elements, the declarations in force.
//! Never: copies or unescapes what is not a namespace name; accepts a DTD, processing instruction,
//! comment or entity beyond the five of XML (RFC 6120 §11.1).
//!
//! ```text
//! Markup --name--> TagName --> InTag --/--> Slash --> (element closed)
//!   ^  \--/--> EndName --> EndTail    | ^
//!   |  \--!--> CDataStart --> CData   | +------------------------+
//!   |                                 +--> AttrName --> Equals --> Quote --> Value
//!   +-- Content <-- (every tag and CDATA section leads here while an element is open)
//! ```

mod chars;
mod names;

pub(crate) use chars::{char_fault, is_space};

use crate::element::{AttrSpan, ChildSpan, Element, NsRef, Spans};
use crate::error::StreamError;
use crate::node::escape_into;
use crate::ns;
use crate::stream::{Limits, StreamNamespaces};
use bytes::Bytes;
use chars::{attribute_value, cdata, text};
use names::{Name, NameScan};
use std::cell::Cell;

/// What is wrong with the peer's bytes, and a few words for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) error: StreamError,
    pub(crate) detail: &'static str,
}

impl Fault {
    pub(crate) const fn new(error: StreamError, detail: &'static str) -> Fault {
        Fault { error, detail }
    }

    pub(crate) const fn malformed(detail: &'static str) -> Fault {
        Fault::new(StreamError::NotWellFormed, detail)
    }

    pub(crate) const fn limit(detail: &'static str) -> Fault {
        Fault::new(StreamError::PolicyViolation, detail)
    }
}

/// How far the tokenizer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The element goes on beyond the bytes given.
    More,
    /// The element is complete; its length in bytes.
    Done(usize),
}

/// Which declarations stand outside of the element.
#[derive(Clone, Copy)]
pub(crate) enum Inherited<'a> {
    /// None (a WebSocket message).
    Nothing,
    /// None, and only the first start tag is wanted: it is a stream header.
    HeaderItself,
    /// Those of a stream header.
    Header(&'a StreamNamespaces),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Character data.
    Content,
    /// At a `<`.
    #[default]
    Markup,
    /// In the name of a start tag.
    TagName,
    /// In a start tag, outside of attributes.
    InTag,
    /// After the `/` of an empty-element tag.
    Slash,
    /// In the name of an attribute.
    AttrName,
    /// Before the `=`.
    Equals,
    /// Before the opening quote.
    Quote,
    /// In an attribute value.
    Value,
    /// In the name of an end tag.
    EndName,
    /// After the name of an end tag.
    EndTail,
    /// In `<![CDATA[`.
    CDataStart,
    /// In a CDATA section.
    CData,
}

/// An open element.
#[derive(Clone, Copy, Debug)]
struct Open {
    name: u32,
    name_len: u16,
    /// Declarations in force outside of it.
    outer_bindings: u16,
}

/// A namespace declaration in force. An empty prefix is the default.
#[derive(Clone, Copy, Debug)]
struct Binding {
    prefix: u32,
    prefix_len: u16,
    ns: NsRef,
}

/// See the description of the module. All offsets count from the first byte of the element.
#[derive(Debug, Default)]
pub(crate) struct Tokenizer {
    state: State,
    /// Everything before was looked at.
    pos: usize,
    name: NameScan,
    /// The `<` of the current tag.
    tag_start: usize,
    /// The name of the current start tag.
    tag_name: Name,
    /// White space was seen since the last attribute.
    spaced: bool,
    quote: u8,
    /// The current attribute value begins here.
    value_start: usize,
    value_escaped: bool,
    attr_name: Name,
    attrs: Vec<AttrSpan>,
    open: Vec<Open>,
    bindings: Vec<Binding>,
    /// Prefixes of the stream header that the element uses: index (0: `stream`) and name.
    inherited: Vec<(usize, NsRef)>,
    top_is_empty: bool,
    spans: Spans,
}

thread_local! {
    /// One tokenizer at rest per thread, so that an idle stream needs none and a busy thread
    /// allocates none.
    static SPARE: Cell<Option<Box<Tokenizer>>> = const { Cell::new(None) };
}

/// A tokenizer that grew beyond this (open elements, attributes, declarations) is not kept.
const SPARE_ENTRIES_MAX: usize = 256;

impl Tokenizer {
    /// A tokenizer at the beginning of an element.
    pub(crate) fn spare() -> Box<Tokenizer> {
        SPARE
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Gives a tokenizer back that is no longer needed.
    pub(crate) fn recycle(mut self: Box<Self>) {
        let largest = self
            .attrs
            .capacity()
            .max(self.open.capacity())
            .max(self.bindings.capacity());
        if largest > SPARE_ENTRIES_MAX {
            return;
        }
        self.state = State::Markup;
        self.pos = 0;
        self.top_is_empty = false;
        self.attrs.clear();
        self.open.clear();
        self.bindings.clear();
        self.inherited.clear();
        self.spans.attrs.clear();
        self.spans.children.clear();
        self.spans.decoded.clear();
        // A thread that is ending needs none.
        let _ = SPARE.try_with(|spare| spare.set(Some(self)));
    }

    /// Goes on where the last call stopped. `buf` is the element from its first byte, now with
    /// more bytes.
    pub(crate) fn run(
        &mut self,
        buf: &[u8],
        limits: &Limits,
        inherited: Inherited<'_>,
    ) -> Result<Step, Fault> {
        let mut i = self.pos;
        loop {
            // Each arm goes on with the next state, or breaks where the bytes end.
            match self.state {
                State::Content => {
                    i = text(buf, i)?;
                    if buf.get(i) != Some(&b'<') {
                        break;
                    }
                    self.state = State::Markup;
                }
                State::Markup => {
                    let Some(&next) = buf.get(i + 1) else { break };
                    self.tag_start = i;
                    match next {
                        b'/' => {
                            i += 2;
                            self.state = State::EndName;
                        }
                        b'!' => self.state = State::CDataStart,
                        b'?' => {
                            return Err(Fault::new(
                                StreamError::RestrictedXml,
                                "processing instruction",
                            ));
                        }
                        _ => {
                            i += 1;
                            self.name.begin(i);
                            self.attrs.clear();
                            self.state = State::TagName;
                        }
                    }
                }
                State::TagName => {
                    let Some(name) = self.name.run(buf, &mut i)? else {
                        break;
                    };
                    self.tag_name = name;
                    self.spaced = false;
                    self.state = State::InTag;
                }
                State::InTag => {
                    let start = i;
                    i = skip_space(buf, i);
                    self.spaced |= i > start;
                    let Some(&next) = buf.get(i) else { break };
                    match next {
                        b'>' => {
                            i += 1;
                            if self.finish_tag(buf, i, false, limits, inherited)? {
                                return Ok(Step::Done(i));
                            }
                        }
                        b'/' => {
                            i += 1;
                            self.state = State::Slash;
                        }
                        _ if !self.spaced => {
                            return Err(Fault::malformed("no space before an attribute"));
                        }
                        _ if self.attrs.len() >= usize::from(limits.attributes_max) => {
                            return Err(Fault::limit("too many attributes"));
                        }
                        _ => {
                            self.name.begin(i);
                            self.state = State::AttrName;
                        }
                    }
                }
                State::Slash => {
                    let Some(&next) = buf.get(i) else { break };
                    if next != b'>' {
                        return Err(Fault::malformed("`/` inside a tag"));
                    }
                    i += 1;
                    if self.finish_tag(buf, i, true, limits, inherited)? {
                        return Ok(Step::Done(i));
                    }
                }
                State::AttrName => {
                    let Some(name) = self.name.run(buf, &mut i)? else {
                        break;
                    };
                    self.attr_name = name;
                    self.state = State::Equals;
                }
                State::Equals => {
                    i = skip_space(buf, i);
                    let Some(&next) = buf.get(i) else { break };
                    if next != b'=' {
                        return Err(Fault::malformed("attribute without value"));
                    }
                    i += 1;
                    self.state = State::Quote;
                }
                State::Quote => {
                    i = skip_space(buf, i);
                    let Some(&next) = buf.get(i) else { break };
                    if !matches!(next, b'\'' | b'"') {
                        return Err(Fault::malformed("attribute value without quotes"));
                    }
                    i += 1;
                    self.quote = next;
                    self.value_start = i;
                    self.value_escaped = false;
                    self.state = State::Value;
                }
                State::Value => {
                    i = attribute_value(buf, i, self.quote, &mut self.value_escaped)?;
                    if buf.get(i) != Some(&self.quote) {
                        break;
                    }
                    self.push_attr(buf, i);
                    i += 1;
                    self.spaced = false;
                    self.state = State::InTag;
                }
                State::EndName => {
                    let open = *self
                        .open
                        .last()
                        .expect("an end tag is read inside an element only");
                    let expected =
                        &buf[open.name as usize..open.name as usize + usize::from(open.name_len)];
                    let rest = &expected[i - self.tag_start - 2..];
                    let n = rest.len().min(buf.len() - i);
                    if buf[i..i + n] != rest[..n] {
                        return Err(Fault::malformed("end tag does not match"));
                    }
                    i += n;
                    if n < rest.len() {
                        break;
                    }
                    self.state = State::EndTail;
                }
                State::EndTail => {
                    i = skip_space(buf, i);
                    let Some(&next) = buf.get(i) else { break };
                    if next != b'>' {
                        return Err(Fault::malformed("end tag does not match"));
                    }
                    i += 1;
                    if self.close(i) {
                        return Ok(Step::Done(i));
                    }
                }
                State::CDataStart => {
                    const START: &[u8] = b"<![CDATA[";
                    let have = &buf[self.tag_start..buf.len().min(self.tag_start + START.len())];
                    if have != &START[..have.len()] {
                        return Err(Fault::new(StreamError::RestrictedXml, "comment or DTD"));
                    }
                    if have.len() < START.len() {
                        break;
                    }
                    i = self.tag_start + START.len();
                    self.state = State::CData;
                }
                State::CData => match cdata(buf, i)? {
                    (end, true) => {
                        i = end;
                        self.state = State::Content;
                    }
                    (end, false) => {
                        i = end;
                        break;
                    }
                },
            }
        }
        self.pos = i;
        Ok(Step::More)
    }

    fn push_attr(&mut self, buf: &[u8], value_end: usize) {
        let Name { start, len, local } = self.attr_name;
        let mut value_len = (value_end - self.value_start) as u32;
        if self.value_escaped {
            value_len |= AttrSpan::ESCAPED;
        }
        let name = &buf[start as usize..start as usize + usize::from(len)];
        if name == b"xmlns" || name.starts_with(b"xmlns:") {
            value_len |= AttrSpan::XMLNS;
        }
        self.attrs.push(AttrSpan {
            name: start,
            name_len: len,
            local,
            value: self.value_start as u32,
            value_len,
        });
    }

    /// A start tag is complete. True: so is the whole element.
    fn finish_tag(
        &mut self,
        buf: &[u8],
        end: usize,
        empty: bool,
        limits: &Limits,
        inherited: Inherited<'_>,
    ) -> Result<bool, Fault> {
        let depth = self.open.len();
        if depth >= usize::from(limits.depth_max) {
            return Err(Fault::limit("elements nested too deep"));
        }
        let outer_bindings = self.bindings.len();
        if !self.attrs.is_empty() {
            self.check_attrs(buf, limits, inherited)?;
        }
        let Name { start, len, local } = self.tag_name;
        let prefix = &buf[start as usize..start as usize + usize::from(local).saturating_sub(1)];
        let ns = self.resolve(buf, prefix, inherited)?;
        match depth {
            0 => self.begin_top(buf, ns, end, empty, inherited)?,
            1 => self.spans.children.push(ChildSpan {
                start: self.tag_start as u32,
                end: end as u32,
                name_len: len,
                local,
                ns,
            }),
            _ => {}
        }
        self.state = State::Content;
        if empty {
            self.bindings.truncate(outer_bindings);
            return Ok(depth == 0);
        }
        self.open.push(Open {
            name: start,
            name_len: len,
            outer_bindings: outer_bindings as u16,
        });
        Ok(matches!(inherited, Inherited::HeaderItself))
    }

    fn begin_top(
        &mut self,
        buf: &[u8],
        ns: NsRef,
        end: usize,
        empty: bool,
        inherited: Inherited<'_>,
    ) -> Result<(), Fault> {
        let spans = &mut self.spans;
        spans.name_len = self.tag_name.len;
        spans.local = self.tag_name.local;
        spans.ns = Some(ns);
        spans.content_start = end as u32;
        spans.content_end = end as u32;
        spans.attrs.extend_from_slice(&self.attrs);
        self.top_is_empty = empty;
        let content_ns = match inherited {
            Inherited::HeaderItself => return Ok(()),
            Inherited::Header(namespaces) => namespaces.content_ns().as_str(),
            Inherited::Nothing => ns::CLIENT,
        };
        let in_ns =
            |name: &str| ns.bytes(buf, Default::default(), &spans.decoded) == name.as_bytes();
        // It would be waited for until the stream ends (RFC 6120 §4.3.3, §4.9.3.24).
        let local = &buf[self.tag_name.start as usize..][..usize::from(self.tag_name.len)]
            [usize::from(spans.local)..];
        if !matches!(inherited, Inherited::Nothing) && local == b"stream" && in_ns(ns::STREAMS) {
            return Err(Fault::new(
                StreamError::UnsupportedStanzaType,
                "a stream header inside the stream",
            ));
        }
        // A stanza goes to streams of other content namespaces as it is, so its own must be the
        // default one (RFC 6120 §4.8.5).
        if spans.local > 0 && in_ns(content_ns) {
            return Err(Fault::new(
                StreamError::BadNamespacePrefix,
                "stanza with a prefix",
            ));
        }
        Ok(())
    }

    /// An end tag is complete. True: so is the whole element.
    fn close(&mut self, end: usize) -> bool {
        let open = self
            .open
            .pop()
            .expect("an end tag is read inside an element only");
        self.bindings.truncate(usize::from(open.outer_bindings));
        self.state = State::Content;
        match self.open.len() {
            0 => {
                self.spans.content_end = self.tag_start as u32;
                return true;
            }
            1 => {
                if let Some(child) = self.spans.children.last_mut() {
                    child.end = end as u32;
                }
            }
            _ => {}
        }
        false
    }

    /// Whether the element is a lone empty-element tag.
    pub(crate) fn top_is_empty(&self) -> bool {
        self.top_is_empty
    }

    /// The namespace of the complete element.
    pub(crate) fn top_ns(&self, raw: &[u8]) -> String {
        let ns = self.spans.ns.unwrap_or(NsRef::NONE);
        String::from_utf8_lossy(ns.bytes(raw, Default::default(), &self.spans.decoded)).into_owned()
    }

    /// The complete element, made self-contained.
    pub(crate) fn element(&mut self, raw: Bytes, namespaces: &StreamNamespaces) -> Element {
        let raw = if self.inherited.is_empty() {
            raw
        } else {
            self.redeclare(&raw, namespaces)
        };
        Element::from_spans(raw, &mut self.spans, namespaces)
    }

    /// Declares the prefixes in the top tag that were declared in the stream header only.
    fn redeclare(&mut self, raw: &[u8], namespaces: &StreamNamespaces) -> Bytes {
        let at = 1 + usize::from(self.spans.name_len);
        let mut out = Vec::with_capacity(raw.len() + 64);
        out.extend_from_slice(&raw[..at]);
        let mut declared = Vec::new();
        for &(index, _) in &self.inherited {
            let (prefix, namespace) = inherited_prefix(namespaces, index);
            let name = out.len() + 1;
            out.extend_from_slice(b" xmlns:");
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(b"='");
            let value = out.len();
            escape_into(&mut out, namespace);
            let value_len = (out.len() - value) as u32 | AttrSpan::XMLNS | AttrSpan::ESCAPED;
            out.push(b'\'');
            declared.push(AttrSpan {
                name: name as u32,
                name_len: (b"xmlns:".len() + prefix.len()) as u16,
                local: b"xmlns:".len() as u16,
                value: value as u32,
                value_len,
            });
        }
        let (from, by) = (at as u32, (out.len() - at) as u32);
        out.extend_from_slice(&raw[at..]);
        let spans = &mut self.spans;
        for attr in &mut spans.attrs {
            attr.name += by;
            attr.value += by;
        }
        spans.attrs.extend(declared);
        for child in &mut spans.children {
            child.start += by;
            child.end += by;
            child.ns.shift(from, by);
        }
        if let Some(ns) = &mut spans.ns {
            ns.shift(from, by);
        }
        spans.content_start += by;
        spans.content_end += by;
        Bytes::from(out)
    }
}

/// The prefix of a stream header with that index, and its namespace name.
fn inherited_prefix(namespaces: &StreamNamespaces, index: usize) -> (&str, &str) {
    match index.checked_sub(1) {
        None => ("stream", ns::STREAMS),
        Some(i) => {
            let (prefix, namespace) = &namespaces.prefixes()[i];
            (prefix, namespace)
        }
    }
}

fn skip_space(buf: &[u8], mut i: usize) -> usize {
    while buf.get(i).is_some_and(|&b| is_space(b)) {
        i += 1;
    }
    i
}
