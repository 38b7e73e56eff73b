//! Small XML trees for tests, read with `rxml` (an implementation of its own, so that the servers'
//! tokenizer is checked against another one), and the comparison that scripts use.

use anyhow::{Context as _, Result, bail};
use rxml::error::EndOrError;
use rxml::{Event, Options, Parse as _, WithOptions as _};
use std::fmt;

/// The content namespace of client streams.
pub const NS_CLIENT: &str = "jabber:client";
/// The namespace of the stream's own elements.
pub const NS_STREAM: &str = "http://etherx.jabber.org/streams";
/// The namespace of the script annotations `scansion:strict` and the like.
pub const NS_SCANSION: &str = "https://matthewwild.co.uk/projects/scansion";

/// An attribute: namespace (empty for most), name, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Namespace URI, empty for an attribute without a prefix.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Value, unescaped.
    pub value: String,
}

/// An element or a text in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A child element.
    Element(Xml),
    /// Character data, never empty.
    Text(String),
}

/// An element with everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Xml {
    /// Namespace URI.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Attributes without namespace declarations.
    pub attrs: Vec<Attr>,
    /// Children in order.
    pub children: Vec<Node>,
}

impl Xml {
    /// The value of an attribute that has no namespace.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attr_ns("", name)
    }

    /// The value of an attribute.
    pub fn attr_ns(&self, ns: &str, name: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|a| a.ns == ns && a.name == name)
            .map(|a| a.value.as_str())
    }

    /// Child elements in order.
    pub fn elements(&self) -> impl Iterator<Item = &Xml> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    /// The first child of that name in any namespace.
    pub fn child(&self, name: &str) -> Option<&Xml> {
        self.elements().find(|e| e.name == name)
    }

    /// Whether this is the element `name` in `ns`.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }

    /// All text directly inside.
    pub fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|node| match node {
                Node::Text(text) => Some(text.as_str()),
                Node::Element(_) => None,
            })
            .collect()
    }

    /// The text of the child `<body/>`.
    pub fn body(&self) -> Option<String> {
        self.child("body").map(Xml::text)
    }

    /// Parses one element; `jabber:client` is the default namespace, `stream:` and `scansion:` are bound.
    pub fn parse(text: &str) -> Result<Xml> {
        let mut all = Xml::parse_many(text)?;
        match all.len() {
            1 => Ok(all.remove(0)),
            n => bail!("expected one element, found {n}: {text}"),
        }
    }

    /// Parses a sequence of elements, as [`Xml::parse`] does for one.
    pub fn parse_many(text: &str) -> Result<Vec<Xml>> {
        Xml::parse_many_in(NS_CLIENT, text)
    }

    /// The same for streams of another content namespace.
    pub fn parse_many_in(content_ns: &str, text: &str) -> Result<Vec<Xml>> {
        let mut parser = StreamReader::new();
        parser.push(
            format!(
                "<all xmlns='{content_ns}' xmlns:stream='{NS_STREAM}' xmlns:scansion='{NS_SCANSION}'>"
            )
            .as_bytes(),
        );
        parser.push(text.as_bytes());
        parser.push(b"</all>");
        let mut all = Vec::new();
        loop {
            match parser.poll().with_context(|| format!("in: {text}"))? {
                Some(Item::Header(_)) => {}
                Some(Item::Element(element)) => all.push(element),
                Some(Item::End) => return Ok(all),
                None => bail!("unfinished XML: {text}"),
            }
        }
    }

    fn write(&self, out: &mut fmt::Formatter<'_>, inherited: &str) -> fmt::Result {
        write!(out, "<{}", self.name)?;
        if self.ns != inherited {
            write!(out, " xmlns='{}'", escape(&self.ns))?;
        }
        for attr in &self.attrs {
            let prefix = match attr.ns.as_str() {
                "" => "",
                rxml::XMLNS_XML => "xml:",
                NS_SCANSION => "scansion:",
                _ => "other:",
            };
            write!(out, " {prefix}{}='{}'", attr.name, escape(&attr.value))?;
        }
        if self.children.is_empty() {
            return out.write_str("/>");
        }
        out.write_str(">")?;
        for node in &self.children {
            match node {
                Node::Element(child) => child.write(out, &self.ns)?,
                Node::Text(text) => out.write_str(&escape(text))?,
            }
        }
        write!(out, "</{}>", self.name)
    }
}

impl fmt::Display for Xml {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(out, NS_CLIENT)
    }
}

/// Escapes text for use between tags or in an attribute with either quote.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// What a stream consists of.
#[derive(Clone, Debug)]
pub enum Item {
    /// The opening tag of the stream (no children).
    Header(Xml),
    /// One first-level element.
    Element(Xml),
    /// The closing tag.
    End,
}

/// Reads one XML stream from bytes as they come.
pub struct StreamReader {
    parser: rxml::Parser,
    unread: Vec<u8>,
    open: Vec<Xml>,
    started: bool,
}

impl Default for StreamReader {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamReader {
    /// A reader that expects an optional XML declaration and a stream header.
    pub fn new() -> Self {
        let options = Options {
            max_token_length: 1 << 20,
            ..Options::default()
        };
        Self {
            parser: rxml::Parser::with_options(options),
            unread: Vec::new(),
            open: Vec::new(),
            started: false,
        }
    }

    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Takes the next complete item, `None` if more bytes are needed.
    pub fn poll(&mut self) -> Result<Option<Item>> {
        loop {
            let mut rest = &self.unread[..];
            let before = rest.len();
            let event = self.parser.parse(&mut rest, false);
            let used = before - rest.len();
            self.unread.drain(..used);
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => bail!("the server sent bad XML: {error}"),
            };
            if let Some(item) = self.take(event) {
                return Ok(Some(item));
            }
        }
    }

    fn take(&mut self, event: Event) -> Option<Item> {
        match event {
            Event::XmlDeclaration(..) => None,
            Event::StartElement(_, (ns, name), attrs) => {
                let element = Xml {
                    ns: ns.to_string(),
                    name: name.to_string(),
                    attrs: attrs
                        .into_iter()
                        .map(|((ns, name), value)| Attr {
                            ns: ns.to_string(),
                            name: name.to_string(),
                            value,
                        })
                        .collect(),
                    children: Vec::new(),
                };
                if self.started {
                    self.open.push(element);
                    None
                } else {
                    self.started = true;
                    Some(Item::Header(element))
                }
            }
            Event::Text(_, text) => {
                // Whitespace between first-level elements is keepalive.
                let parent = self.open.last_mut()?;
                match parent.children.last_mut() {
                    Some(Node::Text(before)) => before.push_str(&text),
                    _ => parent.children.push(Node::Text(text)),
                }
                None
            }
            Event::EndElement(_) => {
                let Some(element) = self.open.pop() else {
                    return Some(Item::End);
                };
                match self.open.last_mut() {
                    Some(parent) => {
                        parent.children.push(Node::Element(element));
                        None
                    }
                    None => Some(Item::Element(element)),
                }
            }
        }
    }
}

/// Compares what a script wants with what came. `Err` says where they differ.
///
/// The wanted top-level element may be incomplete: attributes and children it does not name are
/// allowed. Everything below is compared exactly, except that whitespace around text does not count,
/// children may come in any order, and `{scansion:any}` stands for any value.
/// `scansion:strict='true'` or `'false'` changes this for one element and what is in it.
pub fn matches(wanted: &Xml, got: &Xml) -> Result<(), String> {
    compare(wanted, got, Mode::Top)
}

/// The pattern that stands for any attribute value or text.
pub const ANY: &str = "{scansion:any}";

/// How an element is compared.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// May have more than wanted; its children may not.
    Top,
    /// May have more than wanted, at every depth.
    Open,
    /// Must be as wanted, at every depth.
    Strict,
}

fn compare(wanted: &Xml, got: &Xml, mode: Mode) -> Result<(), String> {
    let mode = match wanted.attr_ns(NS_SCANSION, "strict") {
        Some("true" | "yes") => Mode::Strict,
        Some("false" | "no") => Mode::Open,
        _ => mode,
    };
    let strict = mode == Mode::Strict;
    if wanted.ns != got.ns || wanted.name != got.name {
        return Err(format!(
            "wanted <{} xmlns='{}'>, got <{} xmlns='{}'>",
            wanted.name, wanted.ns, got.name, got.ns
        ));
    }
    for attr in wanted.attrs.iter().filter(|a| a.ns != NS_SCANSION) {
        match got.attr_ns(&attr.ns, &attr.name) {
            Some(value) if value == attr.value || attr.value == ANY => {}
            None if attr.value == "{scansion:none}" => {}
            found => {
                return Err(format!(
                    "<{}>: attribute {} should be '{}', is {found:?}",
                    wanted.name, attr.name, attr.value
                ));
            }
        }
    }
    if strict {
        for attr in &got.attrs {
            if wanted.attr_ns(&attr.ns, &attr.name).is_none() {
                return Err(format!(
                    "<{}>: unexpected attribute {}='{}'",
                    got.name, attr.name, attr.value
                ));
            }
        }
    }
    let (text, got_text) = (wanted.text(), got.text());
    let (text, got_text) = (text.trim(), got_text.trim());
    if text != got_text && text != ANY && (strict || !text.is_empty()) {
        return Err(format!(
            "<{}>: text should be '{text}', is '{got_text}'",
            wanted.name
        ));
    }
    compare_children(wanted, got, mode)
}

fn compare_children(wanted: &Xml, got: &Xml, mode: Mode) -> Result<(), String> {
    let mut left: Vec<&Xml> = got.elements().collect();
    // Whoever names a child means all of it, unless marked otherwise.
    let inner = if mode == Mode::Open {
        Mode::Open
    } else {
        Mode::Strict
    };
    for child in wanted.elements() {
        let mut reasons = Vec::new();
        let found = left
            .iter()
            .position(|candidate| match compare(child, candidate, inner) {
                Ok(()) => true,
                Err(reason) => {
                    if candidate.name == child.name {
                        reasons.push(reason);
                    }
                    false
                }
            });
        match found {
            Some(at) => drop(left.remove(at)),
            None => {
                return Err(format!(
                    "<{}>: no child matches {child}{}",
                    wanted.name,
                    reasons.first().map_or(String::new(), |r| format!(" ({r})"))
                ));
            }
        }
    }
    match left.first() {
        Some(extra) if mode == Mode::Strict => {
            Err(format!("<{}>: unexpected child {extra}", got.name))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, got: &str, same: bool) {
        let result = matches(&Xml::parse(wanted).unwrap(), &Xml::parse(got).unwrap());
        assert_eq!(result.is_ok(), same, "{wanted} ~ {got}: {result:?}");
    }

    #[test]
    fn comparison_is_open_at_the_top_and_exact_below() {
        for (wanted, got, same) in [
            (
                "<presence/>",
                "<presence from='a'><priority>1</priority></presence>",
                true,
            ),
            ("<presence from='b'/>", "<presence from='a'/>", false),
            (
                "<presence type='{scansion:none}'/>",
                "<presence type='unavailable'/>",
                false,
            ),
            ("<presence type='{scansion:none}'/>", "<presence/>", true),
            ("<iq id='{scansion:any}'/>", "<iq id='x'/>", true),
            ("<iq id='{scansion:any}'/>", "<iq/>", false),
            (
                "<message><body>a</body></message>",
                "<message> <body>a</body> </message>",
                true,
            ),
            (
                "<message><body>a</body></message>",
                "<message><body>b</body></message>",
                false,
            ),
            (
                "<message><body/></message>",
                "<message><body>b</body></message>",
                false,
            ),
            (
                "<iq><q xmlns='x'/></iq>",
                "<iq><q xmlns='x' ver='1'/></iq>",
                false,
            ),
            (
                "<iq><q xmlns='x'/></iq>",
                "<iq><q xmlns='x'><item/></q></iq>",
                false,
            ),
            (
                "<iq><q xmlns='x' scansion:strict='false'/></iq>",
                "<iq><q xmlns='x' ver='1'><item/></q></iq>",
                true,
            ),
            (
                "<iq><q xmlns='x'><i j='1'/><i j='2'/></q></iq>",
                "<iq><q xmlns='x'><i j='2'/><i j='1'/></q></iq>",
                true,
            ),
            ("<iq><q xmlns='x'/></iq>", "<iq><q xmlns='y'/></iq>", false),
            (
                "<iq scansion:strict='true'/>",
                "<iq><q xmlns='y'/></iq>",
                false,
            ),
            ("<message to='a'/>", "<presence to='a'/>", false),
        ] {
            check(wanted, got, same);
        }
    }

    #[test]
    fn a_stream_is_read_byte_by_byte() {
        let mut reader = StreamReader::new();
        let mut items = Vec::new();
        for byte in b"<?xml version='1.0'?><s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:client' id='1'> <message><body>a&amp;b</body></message></s:stream>" {
            reader.push(&[*byte]);
            while let Some(item) = reader.poll().unwrap() {
                items.push(item);
            }
        }
        assert!(
            matches!(&items[0], Item::Header(h) if h.is(NS_STREAM, "stream") && h.attr("id") == Some("1"))
        );
        assert!(matches!(&items[1], Item::Element(e) if e.body().unwrap() == "a&b"));
        assert!(matches!(items[2], Item::End));
    }
}
