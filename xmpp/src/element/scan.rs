//! Reading again in bytes that the tokenizer has accepted: attributes of a tag, character data.
//! Nothing is checked here, and nothing may be fed here that was not checked.

use super::checked_str;
use std::borrow::Cow;
use std::ops::Range;

/// One attribute as written.
pub(crate) struct RawAttr<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Iterates over the attributes of the start tag at the beginning of checked bytes.
pub(crate) struct AttrScan<'a> {
    raw: &'a [u8],
    pos: usize,
    name_end: usize,
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

impl<'a> AttrScan<'a> {
    /// `raw` begins with the `<` of a start tag.
    pub(crate) fn new(raw: &'a [u8]) -> AttrScan<'a> {
        let name_end = raw
            .iter()
            .position(|&b| is_space(b) || b == b'>' || b == b'/')
            .unwrap_or(raw.len());
        AttrScan {
            raw,
            pos: name_end,
            name_end,
        }
    }

    /// The name of the tag, with prefix.
    pub(crate) fn tag_name(&self) -> &'a [u8] {
        &self.raw[1..self.name_end]
    }

    /// After the last attribute was taken: whether it is an empty-element tag, and the offset
    /// after its `>`.
    pub(crate) fn tag_end(&self) -> (bool, usize) {
        let empty = self.raw.get(self.pos) == Some(&b'/');
        (empty, self.pos + 1 + usize::from(empty))
    }

    /// After the last attribute was taken, where `raw` is exactly one element: its content.
    pub(crate) fn content_range(&self) -> Range<usize> {
        let (empty, start) = self.tag_end();
        let end = if empty {
            start
        } else {
            memchr::memrchr(b'<', self.raw).unwrap_or(start).max(start)
        };
        start..end
    }
}

impl<'a> Iterator for AttrScan<'a> {
    type Item = RawAttr<'a>;

    fn next(&mut self) -> Option<RawAttr<'a>> {
        while is_space(*self.raw.get(self.pos)?) {
            self.pos += 1;
        }
        if matches!(self.raw[self.pos], b'/' | b'>') {
            return None;
        }
        let name_start = self.pos;
        let equals = name_start + memchr::memchr(b'=', &self.raw[name_start..])?;
        let mut name_end = equals;
        while is_space(self.raw[name_end - 1]) {
            name_end -= 1;
        }
        let mut quote_at = equals + 1;
        while is_space(*self.raw.get(quote_at)?) {
            quote_at += 1;
        }
        let value_start = quote_at + 1;
        let value_end =
            value_start + memchr::memchr(self.raw[quote_at], self.raw.get(value_start..)?)?;
        self.pos = value_end + 1;
        Some(RawAttr {
            name: &self.raw[name_start..name_end],
            value: &self.raw[value_start..value_end],
        })
    }
}

/// Replaces references, and normalises line ends (XML §2.11) or, in an attribute value, all
/// white space (§3.3.3).
pub(crate) fn unescape(raw: &str, attribute: bool) -> Cow<'_, str> {
    let special = |b: &u8| matches!(b, b'&' | b'\r') || attribute && matches!(b, b'\t' | b'\n');
    let bytes = raw.as_bytes();
    if !bytes.iter().any(special) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut pos = 0;
    while let Some(offset) = bytes[pos..].iter().position(special) {
        let at = pos + offset;
        out.push_str(&raw[pos..at]);
        pos = at + 1;
        match bytes[at] {
            b'&' => {
                let end = memchr::memchr(b';', &bytes[at..]).map_or(bytes.len(), |n| at + n);
                out.push(reference(&bytes[at + 1..end]).unwrap_or('\u{FFFD}'));
                pos = (end + 1).min(bytes.len());
            }
            b'\r' => {
                out.push(if attribute { ' ' } else { '\n' });
                if bytes.get(pos) == Some(&b'\n') {
                    pos += 1;
                }
            }
            _ => out.push(' '),
        }
    }
    out.push_str(&raw[pos..]);
    Cow::Owned(out)
}

/// The character that a reference stands for, given what is between `&` and `;`. None: not one of
/// the five predefined entities and not a reference to a character that XML allows.
pub(crate) fn reference(name: &[u8]) -> Option<char> {
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"apos" => Some('\''),
        b"quot" => Some('"'),
        [b'#', b'x', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    }
}

fn number(digits: &[u8], radix: u32) -> Option<char> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u32;
    for &b in digits {
        value = value
            .checked_mul(radix)?
            .checked_add(char::from(b).to_digit(radix)?)?;
    }
    char::from_u32(value).filter(|&c| is_xml_char(c))
}

/// XML 1.0 §2.2 `Char`.
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// The character data at depth 0 of checked element content.
pub(crate) fn text_of(raw: &[u8], range: Range<usize>) -> Cow<'_, str> {
    let content = &raw[range];
    let mut out = Cow::Borrowed("");
    let mut depth = 0usize;
    let mut pos = 0;
    while pos < content.len() {
        let at = memchr::memchr(b'<', &content[pos..]).map_or(content.len(), |n| pos + n);
        if depth == 0 && at > pos {
            append(&mut out, unescape(checked_str(&content[pos..at]), false));
        }
        if at == content.len() {
            break;
        }
        let token = Token::at(content, at);
        match token.kind {
            TokenKind::Start => depth += 1,
            TokenKind::Empty => {}
            TokenKind::End => depth = depth.saturating_sub(1),
            TokenKind::CData => {
                if depth == 0 {
                    append(&mut out, normalise_lines(checked_str(token.cdata(content))));
                }
            }
        }
        pos = token.end;
    }
    out
}

fn append<'a>(out: &mut Cow<'a, str>, more: Cow<'a, str>) {
    if out.is_empty() {
        *out = more;
    } else {
        out.to_mut().push_str(&more);
    }
}

/// Line ends only: CDATA has no references.
pub(crate) fn normalise_lines(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\r') {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.replace("\r\n", "\n").replace('\r', "\n"))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    Start,
    Empty,
    End,
    CData,
}

/// One piece of markup in checked content.
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Token {
    /// The markup that begins with the `<` at `start`.
    pub(crate) fn at(content: &[u8], start: usize) -> Token {
        let rest = &content[start..];
        match rest.get(1) {
            Some(b'/') => {
                let len = memchr::memchr(b'>', rest).map_or(rest.len(), |n| n + 1);
                Token {
                    kind: TokenKind::End,
                    start,
                    end: start + len,
                }
            }
            Some(b'!') => {
                let len = memchr::memmem::find(rest, b"]]>").map_or(rest.len(), |n| n + 3);
                Token {
                    kind: TokenKind::CData,
                    start,
                    end: start + len,
                }
            }
            _ => {
                let mut scan = AttrScan::new(rest);
                scan.by_ref().for_each(drop);
                let (empty, len) = scan.tag_end();
                let kind = if empty {
                    TokenKind::Empty
                } else {
                    TokenKind::Start
                };
                Token {
                    kind,
                    start,
                    end: start + len,
                }
            }
        }
    }

    /// The characters of a CDATA section.
    pub(crate) fn cdata<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        &content[self.start + b"<![CDATA[".len()..self.end - b"]]>".len()]
    }
}
