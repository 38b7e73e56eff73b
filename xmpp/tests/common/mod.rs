//! Runs a parser over bytes in pieces of any size, and the same bytes through `rxml`.
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use rxml::Parse;
use xmpp::error::StreamError;
use xmpp::node::{Content, Node};
use xmpp::stream::{Limits, StreamEvent, StreamHeader, StreamParser};

/// The header of an ordinary client stream.
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='example.com'>";

/// Everything one can see of a stream.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Outcome {
    /// Each event as text, with `consumed()` after it.
    pub events: Vec<(String, u64)>,
    pub header: Option<StreamHeader>,
    pub elements: Vec<xmpp::element::Element>,
    pub ended: bool,
    pub error: Option<StreamError>,
    pub consumed: u64,
    pub buffered: usize,
}

/// Feeds the bytes in pieces of those lengths, in turn.
pub fn run(bytes: &[u8], limits: Limits, pieces: &[usize]) -> Outcome {
    let mut parser = StreamParser::new(limits);
    let mut outcome = Outcome::default();
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    loop {
        loop {
            match parser.poll() {
                Ok(None) => break,
                Ok(Some(event)) => {
                    outcome.events.push((describe(&event), parser.consumed()));
                    match event {
                        StreamEvent::Header(header) => outcome.header = Some(*header),
                        StreamEvent::Element(element) => outcome.elements.push(element),
                        StreamEvent::End => outcome.ended = true,
                    }
                }
                Err(error) => {
                    assert_eq!(parser.poll(), Err(error), "an error is final");
                    assert!(parser.error_detail().is_some());
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        if rest.is_empty() {
            break;
        }
        let n = (*pieces.next().expect("a cycle has no end")).clamp(1, rest.len());
        parser.push(Bytes::copy_from_slice(&rest[..n]));
        rest = &rest[n..];
    }
    outcome.consumed = parser.consumed();
    outcome.buffered = parser.buffered();
    outcome
}

fn describe(event: &StreamEvent) -> String {
    match event {
        StreamEvent::Header(header) => format!("{header:?}"),
        StreamEvent::Element(element) => format!("{} {element:?}", element.ns()),
        StreamEvent::End => "End".to_owned(),
    }
}

/// Whole, one byte at a time, and in uneven pieces: all the same.
pub fn run_every_way(bytes: &[u8], limits: Limits) -> Outcome {
    let whole = run(bytes, limits, &[usize::MAX]);
    for pieces in [&[1][..], &[2], &[3, 1, 7], &[13]] {
        let pieced = run(bytes, limits, pieces);
        assert_eq!(
            pieced,
            whole,
            "pieces {pieces:?} of {}",
            String::from_utf8_lossy(bytes)
        );
    }
    whole
}

/// A tree as text, attributes in order of their names, so that trees of two parsers compare.
pub fn canonical(node: &Node) -> String {
    let attrs = node.attrs().iter().map(|a| {
        let (ns, name) = match a.name.strip_prefix("xml:") {
            Some(name) => (xmpp::ns::XML, name),
            None => (a.ns.as_ref(), a.name.as_ref()),
        };
        format!("{{{ns}}}{name}={:?}", a.value)
    });
    let mut out = start(node.ns(), node.name(), attrs.collect());
    for content in node.content() {
        match content {
            Content::Node(child) => out.push_str(&canonical(child)),
            Content::Text(text) => out.push_str(&format!("{text:?}")),
            Content::Raw(raw) => panic!("a parsed tree has no raw content: {raw:?}"),
        }
    }
    out + ")"
}

fn start(ns: &str, name: &str, mut attrs: Vec<String>) -> String {
    attrs.sort();
    format!("({{{ns}}}{name} {} ", attrs.join(" "))
}

/// What `rxml` makes of a document: the children of its root, or None if it refuses it. The root
/// may stay open.
pub fn oracle(document: &[u8]) -> Option<Vec<String>> {
    let mut parser = rxml::Parser::new();
    let mut rest = document;
    let mut open: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut done = Vec::new();
    loop {
        let event = match parser.parse(&mut rest, false) {
            Ok(Some(event)) => event,
            Ok(None) | Err(rxml::error::EndOrError::NeedMoreData) => return Some(done),
            Err(rxml::error::EndOrError::Error(_)) => return None,
        };
        if let rxml::Event::Text(_, more) = &event {
            text.push_str(more);
            continue;
        }
        if let Some(node) = open.last_mut()
            && !text.is_empty()
        {
            node.push_str(&format!("{text:?}"));
        }
        text.clear();
        match event {
            rxml::Event::StartElement(_, (ns, name), attrs) => {
                let attrs = attrs
                    .into_iter()
                    .map(|((ns, name), value)| format!("{{{ns}}}{name}={value:?}"));
                open.push(start(&ns, &name, attrs.collect()));
            }
            rxml::Event::EndElement(_) => {
                let node = open.pop().expect("balanced") + ")";
                match open.len() {
                    0 => return Some(done),
                    1 => done.push(node),
                    _ => open.last_mut().expect("not empty").push_str(&node),
                }
            }
            rxml::Event::XmlDeclaration(..) | rxml::Event::Text(..) => {}
        }
    }
}
