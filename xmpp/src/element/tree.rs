//! An owned tree from checked bytes: namespaces are resolved again, nothing else is checked.

use super::scan::{AttrScan, Token, TokenKind, normalise_lines, unescape};
use super::{Element, checked_str};
use crate::node::{Content, Node, NodeAttr};
use crate::ns;
use std::borrow::Cow;
use std::ops::Range;

/// A declaration in scope: prefix (empty: the default) and namespace name.
struct Binding<'a> {
    prefix: &'a [u8],
    ns: Cow<'a, str>,
}

/// The tree of the element at `range` of `raw`. `parent`: the element whose top tag may declare
/// prefixes for it.
pub(super) fn build(
    raw: &[u8],
    range: Range<usize>,
    default_ns: &str,
    parent: Option<&Element>,
) -> Node {
    let mut scope: Vec<Binding<'_>> = vec![Binding {
        prefix: b"",
        ns: Cow::Borrowed(default_ns),
    }];
    if let Some(parent) = parent {
        declare(&mut scope, AttrScan::new(&parent.raw));
    }
    // Open elements, each with the length of the scope outside of it.
    let mut open: Vec<(Node, usize)> = Vec::new();
    let content = &raw[range];
    let mut pos = 0;
    loop {
        let at = memchr::memchr(b'<', &content[pos..]).map_or(content.len(), |n| pos + n);
        if let Some((node, _)) = open.last_mut()
            && at > pos
        {
            push_text(node, &unescape(checked_str(&content[pos..at]), false));
        }
        assert!(at < content.len(), "a checked element has its end tag");
        let token = Token::at(content, at);
        pos = token.end;
        let closed = match token.kind {
            TokenKind::Start | TokenKind::Empty => {
                let outer = scope.len();
                declare(&mut scope, AttrScan::new(&content[at..]));
                let node = start_tag(&content[at..], &scope);
                open.push((node, outer));
                token.kind == TokenKind::Empty
            }
            TokenKind::End => true,
            TokenKind::CData => {
                if let Some((node, _)) = open.last_mut() {
                    push_text(node, &normalise_lines(checked_str(token.cdata(content))));
                }
                false
            }
        };
        if closed {
            let (node, outer) = open.pop().expect("a checked element has balanced tags");
            scope.truncate(outer);
            match open.last_mut() {
                Some((parent, _)) => parent.push(Content::Node(node)),
                None => return node,
            }
        }
    }
}

fn declare<'a>(scope: &mut Vec<Binding<'a>>, attrs: AttrScan<'a>) {
    for attr in attrs {
        let prefix: &[u8] = match attr.name {
            b"xmlns" => b"",
            name => match name.strip_prefix(b"xmlns:") {
                Some(prefix) => prefix,
                None => continue,
            },
        };
        scope.push(Binding {
            prefix,
            ns: unescape(checked_str(attr.value), true),
        });
    }
}

fn resolve(scope: &[Binding<'_>], prefix: &[u8]) -> Cow<'static, str> {
    if prefix == b"xml" {
        return Cow::Borrowed(ns::XML);
    }
    let binding = scope.iter().rev().find(|b| b.prefix == prefix);
    binding.map_or(Cow::Borrowed(""), |b| Cow::Owned(b.ns.to_string()))
}

fn split_name(name: &[u8]) -> (&[u8], &str) {
    match memchr::memchr(b':', name) {
        Some(colon) => (&name[..colon], checked_str(&name[colon + 1..])),
        None => (b"", checked_str(name)),
    }
}

fn start_tag(tag: &[u8], scope: &[Binding<'_>]) -> Node {
    let scan = AttrScan::new(tag);
    let (prefix, local) = split_name(scan.tag_name());
    let mut node = Node::new(local.to_owned(), resolve(scope, prefix));
    for attr in scan {
        if attr.name == b"xmlns" || attr.name.starts_with(b"xmlns:") {
            continue;
        }
        let value = unescape(checked_str(attr.value), true).into_owned();
        let (prefix, local) = split_name(attr.name);
        let (name, ns) = match prefix {
            b"" => (local.to_owned(), Cow::Borrowed("")),
            b"xml" => (format!("xml:{local}"), Cow::Borrowed("")),
            _ => (local.to_owned(), resolve(scope, prefix)),
        };
        node.push_attr(NodeAttr {
            name: Cow::Owned(name),
            ns,
            value,
        });
    }
    node
}

fn push_text(node: &mut Node, text: &str) {
    if !text.is_empty() {
        node.append_text(text);
    }
}
