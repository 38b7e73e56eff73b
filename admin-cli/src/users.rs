//! `user import`: a file of any length, in requests of bounded size.
//!
//! A line that cannot even be sent (not UTF-8, too long) is a problem of that line; the others go on.

use crate::link::Connection;
use crate::{Failure, output};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// Lines and bytes of one request. The server takes 500 lines; in JSON a byte may become six, and a frame has 128 KiB.
const LINES: usize = 500;
const BYTES: usize = 96 * 1024;
/// Longest line: an address, and three SCRAM secrets, take less than 4 KiB.
const LINE_BYTES_MAX: u64 = 8 * 1024;

/// One line of the file.
enum Line {
    Text(String),
    Problem(String),
}

/// The next line, without its end; memory is bounded whatever the file holds.
fn read_line(input: &mut dyn BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    io::Read::take(&mut *input, LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() as u64 > LINE_BYTES_MAX {
        skip_line(input)?;
        return Ok(Some(Line::Problem(format!(
            "the line is longer than {LINE_BYTES_MAX} bytes"
        ))));
    }
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => Line::Text(text),
        Err(_) => Line::Problem("the line is not UTF-8".into()),
    }))
}

/// Up to and with the next line end.
fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (used, found) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        input.consume(used);
        if found {
            return Ok(());
        }
    }
}

/// Sends the lines; prints those that could not be loaded. Some that could not be: exit code 1.
pub fn import(connection: &mut Connection, file: &Path, json: bool) -> Result<(), Failure> {
    let mut input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let opened =
            File::open(file).map_err(|e| Failure::Usage(format!("{}: {e}", file.display())))?;
        Box::new(BufReader::new(opened))
    };
    let mut import = Import {
        connection,
        batch: Vec::new(),
        problems: Vec::new(),
        loaded: 0,
        incomplete: BTreeMap::new(),
    };
    let sent = import.file(&mut *input, file);
    let Import {
        mut problems,
        loaded,
        incomplete,
        ..
    } = import;
    problems.sort_by_key(|p| p[0].as_u64());
    let count = loaded + problems.len() as u64;
    let bad = problems.len();
    if json {
        println!("{}", json!({"loaded": loaded, "problems": problems}));
    } else {
        if bad > 0 {
            let table = json!({"columns": ["line", "problem"], "rows": problems});
            output::print(&table, false);
        }
        println!("{loaded} of {count} accounts loaded");
    }
    // A client takes the strongest mechanism it is offered, before anybody knows whose secrets are wanted.
    for (mechanisms, count) in incomplete {
        eprintln!(
            "note: {count} lines have secrets for {mechanisms} only. Let auth.mechanisms in imserver.toml offer no other SCRAM, or clients that choose one cannot log in."
        );
    }
    // What was loaded before it broke off stays, and is said above.
    sent?;
    match bad {
        0 => Ok(()),
        1 => Err(Failure::Refused("1 line was not loaded".into())),
        n => Err(Failure::Refused(format!("{n} lines were not loaded"))),
    }
}

struct Import<'c> {
    connection: &'c mut Connection,
    batch: Vec<Value>,
    problems: Vec<Value>,
    loaded: u64,
    /// Lines with secrets for some mechanisms and not for all, by those they are for.
    incomplete: BTreeMap<String, u64>,
}

/// The mechanisms that the secrets of a line are for, if it has secrets and they are not for all.
fn incomplete(line: &str) -> Option<String> {
    const ALL: [&str; 3] = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let secrets = line.split_ascii_whitespace().skip(1);
    let name = |secret: &str| {
        let name = secret.strip_prefix('{').unwrap_or(secret);
        let end = name.find(['}', '$'])?;
        ALL.into_iter().find(|known| *known == &name[..end])
    };
    let has: Vec<&str> = secrets.filter_map(name).collect();
    let has: Vec<&str> = ALL.into_iter().filter(|m| has.contains(m)).collect();
    (!has.is_empty() && has.len() < ALL.len()).then(|| has.join(" and "))
}

impl Import<'_> {
    fn file(&mut self, input: &mut dyn BufRead, file: &Path) -> Result<(), Failure> {
        let (mut number, mut bytes) = (0u64, 0);
        loop {
            number += 1;
            let line = read_line(input)
                .map_err(|e| Failure::Refused(format!("{}: line {number}: {e}", file.display())))?;
            let text = match line {
                None => return self.send(),
                Some(Line::Problem(problem)) => {
                    self.problems.push(json!([number, problem]));
                    continue;
                }
                Some(Line::Text(text)) if text.trim().is_empty() || text.starts_with('#') => {
                    continue;
                }
                Some(Line::Text(text)) => text,
            };
            if let Some(mechanisms) = incomplete(&text) {
                *self.incomplete.entry(mechanisms).or_default() += 1;
            }
            let line = json!([number, text]);
            let length = line.to_string().len() + 1;
            if self.batch.len() == LINES || bytes + length > BYTES {
                self.send()?;
                bytes = 0;
            }
            bytes += length;
            self.batch.push(line);
        }
    }

    fn send(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.batch);
        let count = lines.len();
        let answer = self
            .connection
            .ask("user import", &json!({"lines": lines}))?;
        let problems = answer["rows"].as_array().cloned().unwrap_or_default();
        self.loaded += count.saturating_sub(problems.len()) as u64;
        self.problems.extend(problems);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_spoils_no_other() {
        let long = "x".repeat(100_000);
        let file = format!("one\n{long}\n\ntwo\r\n{long}");
        let mut bytes = file.into_bytes();
        bytes.splice(0..0, *b"\xff\xfe\n");
        let mut input = &bytes[..];
        let mut seen = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            seen.push(match line {
                Line::Text(text) => text,
                Line::Problem(problem) => problem,
            });
        }
        let long = "the line is longer than 8192 bytes";
        assert_eq!(
            seen,
            ["the line is not UTF-8", "one", long, "", "two\r", long]
        );
    }

    #[test]
    fn secrets_for_some_mechanisms_only_are_noticed() {
        for (line, expected) in [
            ("a@x secret", None),
            ("a@x {SCRAM", None),
            ("a@x {SCRAM-SHA-1}4096,aa,bb,cc", Some("SCRAM-SHA-1")),
            ("a@x SCRAM-SHA-256$4096:a$b:c", Some("SCRAM-SHA-256")),
            (
                "a@x {SCRAM-SHA-256}1,a,b,c {SCRAM-SHA-1}1,a,b,c",
                Some("SCRAM-SHA-1 and SCRAM-SHA-256"),
            ),
            (
                "a@x {SCRAM-SHA-512}1,a {SCRAM-SHA-256}1,a {SCRAM-SHA-1}1,a",
                None,
            ),
        ] {
            assert_eq!(incomplete(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn the_longest_line_still_fits_into_a_frame() {
        // In JSON a control character is six bytes.
        let line = json!([u64::MAX, "\u{1}".repeat(LINE_BYTES_MAX as usize)]).to_string();
        assert!(line.len() <= BYTES, "{}", line.len());
    }
}
