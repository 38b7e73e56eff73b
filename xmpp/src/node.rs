//! A small owned XML tree, its builder and its writer: for what we answer ourselves and for IQs
//! whose content we must understand. The message path never builds one.
//!
//! The writer cannot produce anything but well-formed, namespace-clean XML; what cannot be said in
//! XML (control characters) becomes U+FFFD.

use crate::element::Element;
use crate::error::StreamError;
use crate::ns;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// An attribute of a [`Node`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAttr {
    /// The name without prefix, except `xml:lang` and other names of the prefix `xml`, which keep
    /// it.
    pub name: Cow<'static, str>,
    /// Empty for an attribute without prefix and for those of the prefix `xml`.
    pub ns: Cow<'static, str>,
    /// Not escaped.
    pub value: String,
}

/// What a [`Node`] contains, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A child element.
    Node(Node),
    /// Character data, not escaped.
    Text(String),
    /// Bytes written as they are: one or more self-contained elements that were checked before.
    Raw(Bytes),
}

/// One element with its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    name: Cow<'static, str>,
    ns: Cow<'static, str>,
    attrs: Vec<NodeAttr>,
    content: Vec<Content>,
}

impl Node {
    /// An empty element. `name` is a local name; `ns` may be empty (no namespace).
    pub fn new(name: impl Into<Cow<'static, str>>, ns: impl Into<Cow<'static, str>>) -> Node {
        Node {
            name: name.into(),
            ns: ns.into(),
            attrs: Vec::new(),
            content: Vec::new(),
        }
    }

    /// Parses one element from outside a stream (a stored vCard, a test). `default_ns` is the
    /// namespace of an element without prefix and without declaration.
    ///
    /// Errors: whatever the parser of a stream finds wrong, or content around the element.
    pub fn parse(xml: &[u8], default_ns: &str) -> Result<Node, StreamError> {
        // An Element knows the content namespaces only; any other default is declared around it.
        let mut wrapped = Vec::with_capacity(xml.len() + default_ns.len() + 32);
        wrapped.extend_from_slice(b"<x xmlns='");
        escape_into(&mut wrapped, default_ns);
        wrapped.extend_from_slice(b"'>");
        wrapped.extend_from_slice(xml);
        wrapped.extend_from_slice(b"</x>");
        let element = Element::parse(Bytes::from(wrapped))?;
        let mut content = element.tree().content.into_iter();
        match (content.next(), content.next()) {
            (Some(Content::Node(node)), None) => Ok(node),
            _ => Err(StreamError::NotWellFormed),
        }
    }

    /// The local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace name; empty: none.
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// Whether this is the element `name` of namespace `ns`.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The value of an attribute without namespace, or of `xml:lang`.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|a| a.ns.is_empty() && a.name == name)
            .map(|a| a.value.as_str())
    }

    /// All attributes, without namespace declarations.
    pub fn attrs(&self) -> &[NodeAttr] {
        &self.attrs
    }

    /// Everything inside, in order.
    pub fn content(&self) -> &[Content] {
        &self.content
    }

    /// The child elements, without [`Content::Raw`].
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.content.iter().filter_map(|c| match c {
            Content::Node(node) => Some(node),
            _ => None,
        })
    }

    /// The first child `name` of namespace `ns`.
    pub fn child(&self, name: &str, ns: &str) -> Option<&Node> {
        self.children().find(|c| c.is(name, ns))
    }

    /// The character data directly inside.
    pub fn text(&self) -> Cow<'_, str> {
        let mut texts = self.content.iter().filter_map(|c| match c {
            Content::Text(text) => Some(text.as_str()),
            _ => None,
        });
        let first = texts.next().unwrap_or("");
        texts.fold(Cow::Borrowed(first), |all, text| all + text)
    }

    /// With an attribute set.
    pub fn with_attr(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Node {
        self.set_attr(name, value);
        self
    }

    /// With an attribute set, if there is a value for it.
    pub fn with_attr_opt(
        self,
        name: impl Into<Cow<'static, str>>,
        value: Option<impl Into<String>>,
    ) -> Node {
        match value {
            Some(value) => self.with_attr(name, value),
            None => self,
        }
    }

    /// With character data appended.
    pub fn with_text(mut self, text: impl Into<String>) -> Node {
        self.content.push(Content::Text(text.into()));
        self
    }

    /// With a child appended.
    pub fn with_child(mut self, child: Node) -> Node {
        self.content.push(Content::Node(child));
        self
    }

    /// With children appended.
    pub fn with_children(mut self, children: impl IntoIterator<Item = Node>) -> Node {
        self.content.extend(children.into_iter().map(Content::Node));
        self
    }

    /// With checked, self-contained bytes appended (see [`Content::Raw`]).
    pub fn with_raw(mut self, raw: Bytes) -> Node {
        self.content.push(Content::Raw(raw));
        self
    }

    /// Sets an attribute without namespace, or `xml:lang`.
    pub fn set_attr(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        debug_assert!(is_writable_name(&name), "attribute name {name:?}");
        match self
            .attrs
            .iter_mut()
            .find(|a| a.ns.is_empty() && a.name == name)
        {
            Some(attr) => attr.value = value,
            None => self.attrs.push(NodeAttr {
                name,
                ns: Cow::Borrowed(""),
                value,
            }),
        }
    }

    /// Appends any content.
    pub fn push(&mut self, content: Content) {
        self.content.push(content);
    }

    /// Appends character data to the last piece, if that is character data too.
    pub(crate) fn append_text(&mut self, text: &str) {
        match self.content.last_mut() {
            Some(Content::Text(last)) => last.push_str(text),
            _ => self.content.push(Content::Text(text.to_owned())),
        }
    }

    pub(crate) fn push_attr(&mut self, attr: NodeAttr) {
        self.attrs.push(attr);
    }

    /// The element as bytes. `default_ns` is the default namespace where it will stand (the
    /// content namespace of the stream for a stanza): it is not declared again.
    pub fn to_bytes(&self, default_ns: &str) -> Bytes {
        let mut out = Vec::with_capacity(256);
        self.write(&mut out, default_ns);
        Bytes::from(out)
    }

    /// Appends the element to `out`; see [`Node::to_bytes`]. An element of the stream namespace
    /// gets the prefix `stream`, which every stream header declares.
    pub fn write(&self, out: &mut Vec<u8>, default_ns: &str) {
        debug_assert!(is_writable_name(&self.name), "element name {:?}", self.name);
        let prefix: &str = match self.ns.as_ref() {
            ns::STREAMS if default_ns != ns::STREAMS => "stream:",
            // May not be declared as a default (Namespaces in XML §3).
            ns::XML => "xml:",
            _ => "",
        };
        let inner_ns: &str = if prefix.is_empty() {
            &self.ns
        } else {
            default_ns
        };
        out.push(b'<');
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        if inner_ns != default_ns {
            attr_into(out, "xmlns", inner_ns);
        }
        for (i, attr) in self.attrs.iter().enumerate() {
            if attr.ns.is_empty() {
                attr_into(out, &attr.name, &attr.value);
            } else {
                attr_into(out, &format!("xmlns:a{i}"), &attr.ns);
                attr_into(out, &format!("a{i}:{}", attr.name), &attr.value);
            }
        }
        if self.content.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for content in &self.content {
            match content {
                Content::Node(node) => node.write(out, inner_ns),
                Content::Text(text) => escape(out, text, Place::Text),
                Content::Raw(raw) => out.extend_from_slice(raw),
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.push(b'>');
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes("")))
    }
}

/// Names in a tree come from the parser or from the program, so a wrong one is our mistake.
fn is_writable_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b"<>&'\"=/".contains(&b))
}

fn attr_into(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_into(out, value);
    out.push(b'\'');
}

/// Where text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In an attribute value, in either quotes.
    Attribute,
    /// In character data: quotes, tabs and line feeds stay as they are.
    Text,
}

/// How one byte is written. None: as it is.
fn escaped(b: u8, place: Place) -> Option<&'static [u8]> {
    Some(match b {
        b'&' => b"&amp;",
        b'<' => b"&lt;",
        b'>' => b"&gt;",
        b'\r' => b"&#13;",
        b'\'' | b'"' | b'\t' | b'\n' if place == Place::Text => return None,
        b'\'' => b"&apos;",
        b'"' => b"&quot;",
        b'\t' => b"&#9;",
        b'\n' => b"&#10;",
        0..=0x1F => "\u{FFFD}".as_bytes(),
        _ => return None,
    })
}

/// Appends text, escaped so that it is right in an attribute value (in either quotes) and in
/// character data.
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    escape(out, text, Place::Attribute);
}

fn escape(out: &mut Vec<u8>, text: &str, place: Place) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let (start, replacement) = match b {
            // U+FFFE and U+FFFF are EF BF BE and EF BF BF.
            0xBE | 0xBF if i >= 2 && bytes[i - 2..i] == [0xEF, 0xBF] => {
                (i - 2, "\u{FFFD}".as_bytes())
            }
            0x3F.. => continue,
            _ => match escaped(b, place) {
                Some(replacement) => (i, replacement),
                None => continue,
            },
        };
        out.extend_from_slice(&bytes[done..start]);
        out.extend_from_slice(replacement);
        done = i + 1;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// How many bytes [`escape_into`] appends.
pub fn escaped_len(text: &str) -> usize {
    let more = |b: &u8| match *b {
        0x3F.. => 0,
        b => escaped(b, Place::Attribute).map_or(0, |replacement| replacement.len() - 1),
    };
    text.len() + text.as_bytes().iter().map(more).sum::<usize>()
}
