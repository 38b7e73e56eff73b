//! What the TOML parser has found wrong, in words for an operator: for mux.toml, and for the files of `imserver`.
//!
//! In: the text, the parser's errors. Out: a line, a key if one is meant, a sentence. Owns: nothing.
//! Never: decides whether the text is valid; looks beyond the lines that are needed to say where something stands already.

use std::ops::Range;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Line, from 1; 0: the parser has not said.
    pub line: usize,
    /// Full name of the key; empty: none is meant.
    pub key: String,
    /// What is wrong.
    pub text: String,
}

/// What the parser says of a key, or a table, that is there twice.
const DUPLICATE: &str = "duplicate key";

/// Puts the errors into words. A table that is there twice is one mistake: its keys are not counted again.
pub fn mistakes<'e>(
    text: &str,
    errors: impl Iterator<Item = (&'e str, Option<Range<usize>>)>,
) -> Vec<Found> {
    let lines: Vec<&str> = text.lines().collect();
    let mut again: Vec<usize> = Vec::new();
    let mut out = Vec::new();
    for (message, span) in errors {
        let line = span.as_ref().map_or(0, |span| {
            let upto = &text.as_bytes()[..span.start.min(text.len())];
            1 + upto.iter().filter(|b| **b == b'\n').count()
        });
        let word = span.and_then(|span| text.get(span));
        let (DUPLICATE, Some(word), 1..) = (message, word, line) else {
            out.push(Found {
                line,
                key: String::new(),
                text: format!("not valid TOML: {message}"),
            });
            continue;
        };
        let begin = section_of(&lines, line);
        if begin == line {
            again.push(line);
        } else if again.contains(&begin) {
            continue;
        }
        let (key, first) = place(&lines, line, begin, word);
        let first = first.map_or_else(String::new, |n| {
            format!(": it is there already at line {n}")
        });
        out.push(Found {
            line,
            key,
            text: format!("is there twice{first}"),
        });
    }
    out
}

/// The name of a section that a line begins: `[name]` or `[[name]]`.
fn section(line: &str) -> Option<&str> {
    let line = line.trim();
    let name = line.strip_prefix('[')?.split(']').next()?;
    Some(name.trim_start_matches('[').trim())
        .filter(|name| !name.is_empty() && !name.contains(['=', ',']))
}

/// The line that begins the section in which a line stands; 0: none does.
fn section_of(lines: &[&str], line: usize) -> usize {
    (1..=line)
        .rev()
        .find(|n| section(lines[n - 1]).is_some())
        .unwrap_or(0)
}

/// The key a line gives a value, as it is written.
fn key_of(line: &str) -> Option<&str> {
    line.split_once('=').map(|(key, _)| key.trim())
}

/// The full name of what is there twice, and the line where it was first, if that can be seen.
fn place(lines: &[&str], line: usize, begin: usize, word: &str) -> (String, Option<usize>) {
    if begin == line {
        let name = section(lines[line - 1]).unwrap_or(word);
        let same = |n: &usize| {
            section(lines[n - 1]) == Some(name)
                || (section_of(lines, *n) == 0 && key_of(lines[n - 1]) == Some(name))
        };
        return (name.to_owned(), (1..line).find(same));
    }
    let key = key_of(lines[line - 1]).unwrap_or(word);
    let same = |n: &usize| key_of(lines[n - 1]) == Some(key);
    let name = match begin {
        0 => key.to_owned(),
        _ => format!("{}.{key}", section(lines[begin - 1]).unwrap_or_default()),
    };
    (name, (begin + 1..line).find(same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    #[test]
    fn what_is_there_twice_is_one_mistake_with_both_places() {
        for (text, line, key, first) in [
            (
                "a = 1\n[[domain]]\narchive = true\n[archive]\nenabled = true\n[x]\nk = 1\n[archive]\nenabled = false\n",
                8,
                "archive",
                Some(4),
            ),
            ("[s]\na = 1\n[t]\na = 1\nb = 2\na = 2\n", 6, "t.a", Some(4)),
            ("a = 1\nb = 2\na = 3\n", 3, "a", Some(1)),
            ("[d]\na = 1\n[[d]]\nb = 2\n", 3, "d", Some(1)),
            ("d = 1\n[d]\nx = 1\n", 2, "d", Some(1)),
            ("x = { a = 1,\na = 2 }\n", 2, "a", None),
        ] {
            let (_, errors) = DeTable::parse_recoverable(text);
            let found = mistakes(text, errors.iter().map(|e| (e.message(), e.span())));
            let says = match first {
                Some(n) => format!("is there twice: it is there already at line {n}"),
                None => "is there twice".to_owned(),
            };
            let want = Found {
                line,
                key: key.to_owned(),
                text: says,
            };
            assert_eq!(found, [want], "{text}");
        }
        let text = "a = \n";
        let (_, errors) = DeTable::parse_recoverable(text);
        let found = mistakes(text, errors.iter().map(|e| (e.message(), e.span())));
        assert!(found[0].text.starts_with("not valid TOML: "), "{found:?}");
    }
}
