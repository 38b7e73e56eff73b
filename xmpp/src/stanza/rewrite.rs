//! The bytes of a stanza for its recipient: the top tag rewritten, whole children cut or appended,
//! everything else copied as it came.
//!
//! In: a checked element, new attributes, children to cut, checked bytes to append.
//! Out: the bytes, in one allocation of the exact size.
//! Owns: nothing; it borrows until `finish`.
//! Never: writes `xmlns` for the content namespace, unless asked (`stream::framing` does it for
//! WebSocket); changes what is inside a child.

use crate::element::{Child, Element};
use crate::node::{escape_into, escaped_len};
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Range;

/// Builds outgoing bytes from a received [`Element`].
pub struct Rewrite<'a> {
    element: &'a Element,
    /// Attributes to set (Some) or to leave out (None), by name as written.
    changes: SmallVec<[(&'a str, Option<&'a str>); 6]>,
    /// Ranges of the raw bytes to leave out, ascending.
    cuts: SmallVec<[Range<usize>; 4]>,
    appended: SmallVec<[&'a [u8]; 4]>,
    content_ns: Option<&'a str>,
}

/// What is written, piece by piece: once to count, once to copy.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
    fn put_escaped(&mut self, text: &str);
}

struct Count(usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn put_escaped(&mut self, text: &str) {
        self.0 += escaped_len(text);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn put_escaped(&mut self, text: &str) {
        escape_into(self, text);
    }
}

impl<'a> Rewrite<'a> {
    /// Starts from the element as it is, with the language of the stream header if it has none of
    /// its own (RFC 6120 §8.1.5).
    pub fn new(element: &'a Element) -> Rewrite<'a> {
        let mut changes = SmallVec::new();
        if let Some(lang) = element.inherited_lang()
            && !element
                .attr_spans()
                .iter()
                .any(|a| a.name(element.raw()) == b"xml:lang")
        {
            changes.push(("xml:lang", Some(lang)));
        }
        Rewrite {
            element,
            changes,
            cuts: SmallVec::new(),
            appended: SmallVec::new(),
            content_ns: None,
        }
    }

    /// Sets an attribute of the top tag (`from`, `to`, `id`, `type`, `xml:lang`). The value is
    /// escaped here.
    pub fn set(self, name: &'a str, value: &'a str) -> Self {
        self.change(name, Some(value))
    }

    /// Removes an attribute of the top tag.
    pub fn remove(self, name: &'a str) -> Self {
        self.change(name, None)
    }

    fn change(mut self, name: &'a str, value: Option<&'a str>) -> Self {
        match self.changes.iter_mut().find(|(n, _)| *n == name) {
            Some(change) => change.1 = value,
            None => self.changes.push((name, value)),
        }
        self
    }

    /// Leaves out every first-level child for which the predicate is true. Asked once per child,
    /// here; a second call cuts from what the first left.
    pub fn cut(mut self, predicate: impl FnMut(&Child<'_>) -> bool) -> Self {
        let mut predicate = predicate;
        for child in self.element.children() {
            let range = child.range();
            if predicate(&child)
                && let Err(at) = self.cuts.binary_search_by_key(&range.start, |c| c.start)
            {
                self.cuts.insert(at, range);
            }
        }
        self
    }

    /// Appends bytes after the last child: whole elements, self-contained but for the content
    /// namespace as their default.
    pub fn append(mut self, raw: &'a [u8]) -> Self {
        self.appended.push(raw);
        self
    }

    /// Declares the content namespace in the top tag: the stanza is to stand in an element of another one.
    pub fn with_content_ns(mut self, content_ns: &'a str) -> Self {
        self.content_ns = Some(content_ns);
        self
    }

    /// Whether anything differs from the bytes as received. (A declared content namespace counts:
    /// it is dropped.)
    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty()
            || !self.cuts.is_empty()
            || !self.appended.is_empty()
            || self.content_ns.is_some()
            || self
                .element
                .attr_spans()
                .iter()
                .any(|a| self.drops_xmlns(a.name(self.element.raw())))
    }

    /// The bytes.
    pub fn finish(self) -> Bytes {
        if !self.is_changed() {
            return self.element.raw().clone();
        }
        let mut count = Count(0);
        self.write_head(&mut count);
        self.write_rest(&mut count);
        let mut out = Vec::with_capacity(count.0);
        self.write_head(&mut out);
        self.write_rest(&mut out);
        debug_assert_eq!(out.len(), count.0);
        Bytes::from(out)
    }

    /// The bytes in two parts, to be sent with an attribute between them (` to='...'`, with the
    /// space before it): one payload for many recipients.
    pub fn finish_split(self) -> (Bytes, Bytes) {
        let mut head = Vec::with_capacity(16);
        self.write_head(&mut head);
        let mut count = Count(0);
        self.write_rest(&mut count);
        let mut rest = Vec::with_capacity(count.0);
        self.write_rest(&mut rest);
        (Bytes::from(head), Bytes::from(rest))
    }

    fn write_head(&self, out: &mut impl Sink) {
        out.put(b"<");
        out.put(self.element.qualified_name());
    }

    /// A stanza needs no `xmlns` of its own: its namespace is implied.
    fn drops_xmlns(&self, name: &[u8]) -> bool {
        name == b"xmlns" && self.element.is_in_content_ns()
    }

    fn write_rest(&self, out: &mut impl Sink) {
        let raw: &[u8] = self.element.raw();
        if let Some(content_ns) = self.content_ns {
            out.put(b" xmlns='");
            out.put_escaped(content_ns);
            out.put(b"'");
        }
        for attr in self.element.attr_spans() {
            let name = attr.name(raw);
            if !self.changes.iter().any(|(n, _)| n.as_bytes() == name) && !self.drops_xmlns(name) {
                out.put(b" ");
                out.put(&raw[attr.range()]);
            }
        }
        for (name, value) in &self.changes {
            if let Some(value) = value {
                out.put(b" ");
                out.put(name.as_bytes());
                out.put(b"='");
                out.put_escaped(value);
                out.put(b"'");
            }
        }
        let content = self.element.content_range();
        if content.is_empty() && self.appended.is_empty() {
            out.put(b"/>");
            return;
        }
        out.put(b">");
        let mut done = content.start;
        for cut in &self.cuts {
            out.put(&raw[done..cut.start]);
            done = cut.end;
        }
        out.put(&raw[done..content.end]);
        for raw in &self.appended {
            out.put(raw);
        }
        out.put(b"</");
        out.put(self.element.qualified_name());
        out.put(b">");
    }
}
