//! One top-level element as received: its bytes, and what routing looks at.
//!
//! In: the bytes of one element and the spans that the tokenizer found in them.
//! Out: name, namespace, attributes, first-level children; a tree when asked.
//! Owns: the bytes (a slice of what was received, no copy).
//! Never: changed; made from bytes that were not checked whole (well-formed, namespace-clean,
//! within limits, self-contained: no prefix is declared outside of it).

mod scan;
mod tree;

pub(crate) use scan::{AttrScan, reference, unescape};

use crate::error::StreamError;
use crate::node::Node;
use crate::ns;
use crate::stanza::StanzaKind;
use crate::stream::{Limits, StreamEvent, StreamNamespaces, StreamParser};
use bytes::Bytes;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The default namespace of a stream (RFC 6120 §4.8.2): what `<message/>` without prefix is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ContentNs {
    /// `jabber:client`.
    #[default]
    Client,
    /// `jabber:server`.
    Server,
    /// `jabber:component:accept`.
    Component,
}

impl ContentNs {
    /// The namespace name.
    pub const fn as_str(self) -> &'static str {
        match self {
            ContentNs::Client => ns::CLIENT,
            ContentNs::Server => ns::SERVER,
            ContentNs::Component => ns::COMPONENT,
        }
    }

    /// The content namespace of that name.
    pub fn from_name(name: &str) -> Option<ContentNs> {
        match name {
            ns::CLIENT => Some(ContentNs::Client),
            ns::SERVER => Some(ContentNs::Server),
            ns::COMPONENT => Some(ContentNs::Component),
            _ => None,
        }
    }
}

/// A namespace name of an element: a span of its raw bytes, or one of a few known ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NsRef {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl NsRef {
    const SPECIAL: u32 = u32::MAX;
    pub(crate) const NONE: NsRef = NsRef {
        start: Self::SPECIAL,
        len: 0,
    };
    pub(crate) const CONTENT: NsRef = NsRef {
        start: Self::SPECIAL,
        len: 1,
    };
    pub(crate) const XML: NsRef = NsRef {
        start: Self::SPECIAL,
        len: 2,
    };
    const DECODED: u32 = 16;

    /// A name that does not stand in the raw bytes as it is.
    pub(crate) fn decoded(index: usize) -> NsRef {
        NsRef {
            start: Self::SPECIAL,
            len: Self::DECODED + index as u32,
        }
    }

    pub(crate) fn bytes<'a>(
        self,
        raw: &'a [u8],
        content: ContentNs,
        decoded: &'a [Box<str>],
    ) -> &'a [u8] {
        if self.start != Self::SPECIAL {
            return &raw[self.start as usize..(self.start + self.len) as usize];
        }
        match self.len {
            0 => b"",
            1 => content.as_str().as_bytes(),
            2 => ns::XML.as_bytes(),
            i => decoded[(i - Self::DECODED) as usize].as_bytes(),
        }
    }

    pub(crate) fn shift(&mut self, from: u32, by: u32) {
        if self.start != Self::SPECIAL && self.start >= from {
            self.start += by;
        }
    }
}

/// Where one attribute stands in the raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AttrSpan {
    pub(crate) name: u32,
    pub(crate) name_len: u16,
    /// Offset of the local name in the name; 0: no prefix.
    pub(crate) local: u16,
    pub(crate) value: u32,
    /// With [`AttrSpan::ESCAPED`] and [`AttrSpan::XMLNS`].
    pub(crate) value_len: u32,
}

impl AttrSpan {
    /// The value has references or white space to be normalised.
    pub(crate) const ESCAPED: u32 = 1 << 31;
    /// The attribute declares a namespace.
    pub(crate) const XMLNS: u32 = 1 << 30;

    pub(crate) fn name<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        &raw[self.name as usize..self.name as usize + usize::from(self.name_len)]
    }

    pub(crate) fn value_range(&self) -> Range<usize> {
        let start = self.value as usize;
        start..start + (self.value_len & !(Self::ESCAPED | Self::XMLNS)) as usize
    }

    pub(crate) fn is_xmlns(&self) -> bool {
        self.value_len & Self::XMLNS != 0
    }

    pub(crate) fn is_escaped(&self) -> bool {
        self.value_len & Self::ESCAPED != 0
    }

    /// From the name to after the closing quote.
    pub(crate) fn range(&self) -> Range<usize> {
        self.name as usize..self.value_range().end + 1
    }
}

/// Where one first-level child stands in the raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChildSpan {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) name_len: u16,
    /// Offset of the local name in the name; 0: no prefix.
    pub(crate) local: u16,
    pub(crate) ns: NsRef,
}

pub(crate) type AttrSpans = SmallVec<[AttrSpan; 6]>;
pub(crate) type ChildSpans = SmallVec<[ChildSpan; 6]>;

/// What the tokenizer knows of a complete top-level element.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// Length of the name of the top tag, which begins at offset 1.
    pub(crate) name_len: u16,
    /// Offset of the local name in the name; 0: no prefix.
    pub(crate) local: u16,
    pub(crate) ns: Option<NsRef>,
    /// After the `>` of the top tag.
    pub(crate) content_start: u32,
    /// At the `<` of the end tag; equal to `content_start` for an empty-element tag.
    pub(crate) content_end: u32,
    pub(crate) attrs: AttrSpans,
    pub(crate) children: ChildSpans,
    pub(crate) decoded: Vec<Box<str>>,
}

/// One top-level element. See the module's description for what holds for every one.
#[derive(Clone)]
pub struct Element {
    raw: Bytes,
    attrs: AttrSpans,
    children: ChildSpans,
    ns: NsRef,
    content_start: u32,
    content_end: u32,
    name_len: u16,
    local: u16,
    content_ns: ContentNs,
    framed: bool,
    /// Namespace names that do not stand in `raw` as they are; nearly always none.
    decoded: Option<Arc<[Box<str>]>>,
    inherited_lang: Option<Arc<str>>,
}

/// Spans lie on character boundaries of bytes that were checked to be UTF-8.
pub(crate) fn checked_str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the tokenizer checked the UTF-8 and cuts at ASCII")
}

impl Element {
    pub(crate) fn from_spans(
        raw: Bytes,
        spans: &mut Spans,
        namespaces: &StreamNamespaces,
    ) -> Element {
        let decoded = std::mem::take(&mut spans.decoded);
        Element {
            raw,
            attrs: std::mem::take(&mut spans.attrs),
            children: std::mem::take(&mut spans.children),
            ns: spans.ns.unwrap_or(NsRef::NONE),
            content_start: spans.content_start,
            content_end: spans.content_end,
            name_len: spans.name_len,
            local: spans.local,
            content_ns: namespaces.content_ns(),
            framed: namespaces.is_framed(),
            decoded: (!decoded.is_empty()).then(|| Arc::from(decoded)),
            inherited_lang: namespaces.shared_lang(),
        }
    }

    /// Parses one element of a `jabber:client` stream from outside a stream (a stored row, a test).
    ///
    /// Errors: whatever the parser of a stream finds wrong; `not-well-formed` too if the bytes are
    /// not exactly one element.
    pub fn parse(raw: Bytes) -> Result<Element, StreamError> {
        Element::parse_in(raw, &StreamNamespaces::new(ContentNs::Client), Limits::NONE)
    }

    /// [`Element::parse`] as on a stream with other namespaces, and with limits.
    pub fn parse_in(
        raw: Bytes,
        namespaces: &StreamNamespaces,
        limits: Limits,
    ) -> Result<Element, StreamError> {
        let mut parser = StreamParser::new(limits);
        parser.resume_after_header(namespaces.clone());
        parser.push(raw);
        match parser.poll()? {
            Some(StreamEvent::Element(element))
                if parser.poll()?.is_none() && parser.buffered() == 0 =>
            {
                Ok(element)
            }
            _ => Err(StreamError::NotWellFormed),
        }
    }

    /// The whole element, from `<` to `>`. A slice of what was received: keeping it keeps the
    /// buffer it came in.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The local name.
    pub fn name(&self) -> &str {
        checked_str(self.name_bytes())
    }

    fn name_bytes(&self) -> &[u8] {
        &self.raw[1 + usize::from(self.local)..1 + usize::from(self.name_len)]
    }

    /// The name as it stands in the tag, with prefix.
    pub(crate) fn qualified_name(&self) -> &[u8] {
        &self.raw[1..1 + usize::from(self.name_len)]
    }

    /// The namespace name; empty: none.
    pub fn ns(&self) -> &str {
        checked_str(self.ns_bytes(self.ns))
    }

    fn ns_bytes(&self, r: NsRef) -> &[u8] {
        r.bytes(
            &self.raw,
            self.content_ns,
            self.decoded.as_deref().unwrap_or(&[]),
        )
    }

    /// Whether this is the element `name` of namespace `ns`.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name_bytes() == name.as_bytes() && self.ns_bytes(self.ns) == ns.as_bytes()
    }

    /// The content namespace of the stream the element came on.
    pub fn content_ns(&self) -> ContentNs {
        self.content_ns
    }

    /// Message, presence or IQ; None for anything else (a nonza, or an unknown element).
    pub fn stanza_kind(&self) -> Option<StanzaKind> {
        let kind = StanzaKind::from_name(self.name_bytes())?;
        self.is_in_content_ns().then_some(kind)
    }

    pub(crate) fn is_in_content_ns(&self) -> bool {
        self.ns == NsRef::CONTENT || self.ns_bytes(self.ns) == self.content_ns.as_str().as_bytes()
    }

    /// The value of an attribute of the top tag, by its name as written (`to`, `xml:lang`).
    pub fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        let attr = self
            .attrs
            .iter()
            .find(|a| a.name(&self.raw) == name.as_bytes())?;
        Some(self.attr_value(attr))
    }

    fn attr_value(&self, attr: &AttrSpan) -> Cow<'_, str> {
        let value = checked_str(&self.raw[attr.value_range()]);
        if attr.is_escaped() {
            unescape(value, true)
        } else {
            Cow::Borrowed(value)
        }
    }

    /// The attributes of the top tag, names as written, without namespace declarations.
    pub fn attrs(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.attrs
            .iter()
            .filter(|a| !a.is_xmlns())
            .map(|a| (checked_str(a.name(&self.raw)), self.attr_value(a)))
    }

    pub(crate) fn attr_spans(&self) -> &[AttrSpan] {
        &self.attrs
    }

    /// The language of the element: its own `xml:lang`, or that of the stream header
    /// (RFC 6120 §4.7.4).
    pub fn lang(&self) -> Option<Cow<'_, str>> {
        self.attr("xml:lang")
            .or_else(|| self.inherited_lang().map(Cow::Borrowed))
    }

    /// The language of the stream header, where the element has none of its own.
    pub fn inherited_lang(&self) -> Option<&str> {
        self.inherited_lang.as_deref()
    }

    /// The first-level children, in order.
    pub fn children(&self) -> impl ExactSizeIterator<Item = Child<'_>> {
        self.children.iter().map(|span| Child {
            element: self,
            span,
        })
    }

    /// The first child `name` of namespace `ns`.
    pub fn child(&self, name: &str, ns: &str) -> Option<Child<'_>> {
        self.children().find(|c| c.is(name, ns))
    }

    /// The first child `name` of the content namespace (`body`, `error`, ...).
    pub fn content_child(&self, name: &str) -> Option<Child<'_>> {
        self.child(name, self.content_ns.as_str())
    }

    /// The character data directly inside the top tag.
    pub fn text(&self) -> Cow<'_, str> {
        scan::text_of(&self.raw, self.content_range())
    }

    /// From after the top tag to before the end tag; empty for `<x/>`.
    pub fn content_range(&self) -> Range<usize> {
        self.content_start as usize..self.content_end as usize
    }

    /// The whole element as a tree.
    pub fn tree(&self) -> Node {
        let default_ns = if self.framed {
            ""
        } else {
            self.content_ns.as_str()
        };
        tree::build(&self.raw, 0..self.raw.len(), default_ns, None)
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Element({})", String::from_utf8_lossy(&self.raw))
    }
}

impl PartialEq for Element {
    /// The same bytes, on streams of the same content namespace.
    fn eq(&self, other: &Element) -> bool {
        self.raw == other.raw && self.content_ns == other.content_ns && self.framed == other.framed
    }
}

/// A first-level child of an [`Element`].
#[derive(Clone, Copy)]
pub struct Child<'a> {
    element: &'a Element,
    span: &'a ChildSpan,
}

impl<'a> Child<'a> {
    /// The local name.
    pub fn name(&self) -> &'a str {
        checked_str(self.name_bytes())
    }

    fn name_bytes(&self) -> &'a [u8] {
        let start = self.span.start as usize + 1;
        &self.element.raw
            [start + usize::from(self.span.local)..start + usize::from(self.span.name_len)]
    }

    /// The namespace name; empty: none.
    pub fn ns(&self) -> &'a str {
        checked_str(self.element.ns_bytes(self.span.ns))
    }

    /// Whether this is the element `name` of namespace `ns`.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name_bytes() == name.as_bytes() && self.element.ns_bytes(self.span.ns) == ns.as_bytes()
    }

    /// Where the child stands in [`Element::raw`], from `<` to `>`.
    pub fn range(&self) -> Range<usize> {
        self.span.start as usize..self.span.end as usize
    }

    /// The bytes of the child. Not self-contained: prefixes and default namespace may be declared
    /// in the top tag.
    pub fn raw(&self) -> &'a [u8] {
        &self.element.raw[self.range()]
    }

    /// The value of an attribute, by its name as written. Scans the tag of the child.
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        AttrScan::new(self.raw())
            .find(|a| a.name == name.as_bytes())
            .map(|a| unescape(checked_str(a.value), true))
    }

    /// The character data directly inside the child.
    pub fn text(&self) -> Cow<'a, str> {
        let raw = self.raw();
        let mut scan = AttrScan::new(raw);
        scan.by_ref().for_each(drop);
        scan::text_of(raw, scan.content_range())
    }

    /// The child as a tree.
    pub fn tree(&self) -> Node {
        let default_ns = if self.element.framed {
            ""
        } else {
            self.element.content_ns.as_str()
        };
        tree::build(
            &self.element.raw,
            self.range(),
            default_ns,
            Some(self.element),
        )
    }
}

impl fmt::Debug for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({})", String::from_utf8_lossy(self.raw()))
    }
}
