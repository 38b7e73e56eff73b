//! Characters: UTF-8 (RFC 3629), `Char` (XML §2.2), name characters (§2.3), character data,
//! attribute values, references. Eight bytes at a time where they are plain ASCII.

use super::Fault;
use crate::element::reference;
use crate::error::StreamError;
use crate::stream::REFERENCE_BYTES_MAX;

/// White space, XML §2.3.
pub(crate) fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

/// Class of bytes that may begin a name without prefix.
pub(super) const NAME_START: u8 = 1;
/// Class of bytes that may stand in a name without prefix.
pub(super) const NAME: u8 = 2;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 128 {
        table[b] = match b as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NAME_START | NAME,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            _ => 0,
        };
        b += 1;
    }
    table
};

#[inline(always)]
pub(super) fn class(b: u8) -> u8 {
    CLASSES[usize::from(b)]
}

/// `NameStartChar` beyond ASCII.
pub(super) fn is_name_start(c: char) -> bool {
    matches!(c,
        '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

/// `NameChar` beyond ASCII.
pub(super) fn is_name_char(c: char) -> bool {
    is_name_start(c) || matches!(c, '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

const BAD_UTF8: Fault = Fault::new(StreamError::UnsupportedEncoding, "not UTF-8");
const BAD_CHAR: Fault = Fault::malformed("forbidden code point");

/// The length of the sequence of two to four bytes at the beginning of `bytes`; None: it is cut
/// off, and right so far.
pub(super) fn sequence(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let (len, second) = match bytes[0] {
        0xC2..=0xDF => (2, 0x80..=0xBF),
        0xE0 => (3, 0xA0..=0xBF),
        0xED => (3, 0x80..=0x9F),
        0xE1..=0xEF => (3, 0x80..=0xBF),
        0xF0 => (4, 0x90..=0xBF),
        0xF1..=0xF3 => (4, 0x80..=0xBF),
        0xF4 => (4, 0x80..=0x8F),
        _ => return Err(BAD_UTF8),
    };
    match bytes.get(1) {
        None => return Ok(None),
        Some(b) if !second.contains(b) => return Err(BAD_UTF8),
        Some(_) => {}
    }
    for n in 2..len {
        match bytes.get(n) {
            None => return Ok(None),
            Some(0x80..=0xBF) => {}
            Some(_) => return Err(BAD_UTF8),
        }
    }
    // U+FFFE and U+FFFF.
    if bytes[0] == 0xEF && bytes[1] == 0xBF && bytes[2] >= 0xBE {
        return Err(BAD_CHAR);
    }
    Ok(Some(len))
}

/// What is wrong with the first character of `bytes`, which is not empty. Some(None): it is cut
/// off. None: nothing.
pub(crate) fn char_fault(bytes: &[u8]) -> Option<Option<Fault>> {
    match bytes[0] {
        b if is_space(b) => None,
        0..0x20 => Some(Some(BAD_CHAR)),
        0x20..0x80 => None,
        _ => match sequence(bytes) {
            Ok(Some(_)) => None,
            Ok(None) => Some(None),
            Err(fault) => Some(Some(fault)),
        },
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The offset of the first byte from `i` on that is A, B, C, a control character or not ASCII.
#[inline(always)]
fn skip_plain<const A: u8, const B: u8, const C: u8>(buf: &[u8], mut i: usize) -> usize {
    while let Some(chunk) = buf.get(i..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The lowest high bit set is exact: a borrow can only disturb bytes above a hit.
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let is = |b: u8| zero(word ^ (ONES * u64::from(b)));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hits = (is(A) | is(B) | is(C) | control | word) & HIGHS;
        if hits != 0 {
            return i + (hits.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while let Some(&b) = buf.get(i) {
        if b == A || b == B || b == C || !(0x20..0x80).contains(&b) {
            break;
        }
        i += 1;
    }
    i
}

/// Skips a run of characters beyond ASCII; stops where one is cut off.
fn skip_wide(buf: &[u8], mut i: usize) -> Result<usize, Fault> {
    while buf.get(i).is_some_and(|&b| b >= 0x80) {
        match sequence(&buf[i..])? {
            Some(n) => i += n,
            None => break,
        }
    }
    Ok(i)
}

/// Skips character data. Stops at a `<`, or where the bytes end or are cut off.
pub(super) fn text(buf: &[u8], mut i: usize) -> Result<usize, Fault> {
    loop {
        i = skip_plain::<b'<', b'&', b'>'>(buf, i);
        let Some(&b) = buf.get(i) else { return Ok(i) };
        match b {
            b'<' => return Ok(i),
            b'>' if i >= 2 && buf[i - 2..i] == *b"]]" => {
                return Err(Fault::malformed("`]]>` in text"));
            }
            b'>' | b'\t' | b'\n' | b'\r' => i += 1,
            b'&' => match skip_reference(buf, i)? {
                Some(end) => i = end,
                None => return Ok(i),
            },
            0x80.. => {
                let end = skip_wide(buf, i)?;
                if end == i {
                    return Ok(i);
                }
                i = end;
            }
            _ => return Err(BAD_CHAR),
        }
    }
}

/// Skips an attribute value. Stops at the closing quote, or where the bytes end or are cut off.
/// Notes whether there was anything to be unescaped.
pub(super) fn attribute_value(
    buf: &[u8],
    mut i: usize,
    quote: u8,
    escaped: &mut bool,
) -> Result<usize, Fault> {
    loop {
        i = match quote {
            b'\'' => skip_plain::<b'\'', b'<', b'&'>(buf, i),
            _ => skip_plain::<b'"', b'<', b'&'>(buf, i),
        };
        let Some(&b) = buf.get(i) else { return Ok(i) };
        match b {
            b'<' => return Err(Fault::malformed("`<` in an attribute value")),
            b'\'' | b'"' => return Ok(i),
            b'\t' | b'\n' | b'\r' => {
                *escaped = true;
                i += 1;
            }
            b'&' => {
                *escaped = true;
                match skip_reference(buf, i)? {
                    Some(end) => i = end,
                    None => return Ok(i),
                }
            }
            0x80.. => {
                let end = skip_wide(buf, i)?;
                if end == i {
                    return Ok(i);
                }
                i = end;
            }
            _ => return Err(BAD_CHAR),
        }
    }
}

/// Skips a CDATA section. True: up to after its `]]>`; false: to where the bytes end or are cut
/// off.
pub(super) fn cdata(buf: &[u8], mut i: usize) -> Result<(usize, bool), Fault> {
    loop {
        i = skip_plain::<b']', b']', b']'>(buf, i);
        let Some(&b) = buf.get(i) else {
            return Ok((i, false));
        };
        match b {
            b']' => match buf[i + 1..] {
                [] | [b']'] => return Ok((i, false)),
                [b']', b'>', ..] => return Ok((i + 3, true)),
                _ => i += 1,
            },
            b'\t' | b'\n' | b'\r' => i += 1,
            0x80.. => {
                let end = skip_wide(buf, i)?;
                if end == i {
                    return Ok((i, false));
                }
                i = end;
            }
            _ => return Err(BAD_CHAR),
        }
    }
}

/// The offset after the reference that begins with the `&` at `i`; None: it is cut off.
///
/// An entity that XML does not predefine is `restricted-xml` (RFC 6120 §11.1); what is no
/// reference at all is `not-well-formed`.
fn skip_reference(buf: &[u8], i: usize) -> Result<Option<usize>, Fault> {
    let malformed = Fault::malformed("malformed reference");
    let number = buf.get(i + 1) == Some(&b'#');
    for (n, &b) in buf[i..].iter().enumerate().skip(1) {
        match b {
            b';' => {
                let name = &buf[i + 1..i + n];
                return match reference(name) {
                    Some(_) => Ok(Some(i + n + 1)),
                    None if number || name.is_empty() => Err(malformed),
                    None => Err(Fault::new(StreamError::RestrictedXml, "entity reference")),
                };
            }
            _ if n + 1 >= REFERENCE_BYTES_MAX => break,
            b'#' if n == 1 => {}
            b'0'..=b'9' | b'-' | b'.' if n == 1 => return Err(malformed),
            _ if class(b) & NAME != 0 || b == b':' || b >= 0x80 => {}
            _ => return Err(malformed),
        }
    }
    if buf.len() - i < REFERENCE_BYTES_MAX {
        return Ok(None);
    }
    Err(if number {
        malformed
    } else {
        Fault::new(StreamError::RestrictedXml, "entity reference")
    })
}
