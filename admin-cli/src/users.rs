//! `user import`: a file of any length, in requests of bounded size.
//!
//! A line that cannot even be sent (not UTF-8, too long) is a problem of that line; the others go on.

use crate::link::Connection;
use crate::{Failure, output};
use serde_json::{Value, json};
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
    };
    let sent = import.file(&mut *input, file);
    let Import {
        mut problems,
        loaded,
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
    fn the_longest_line_still_fits_into_a_frame() {
        // In JSON a control character is six bytes.
        let line = json!([u64::MAX, "\u{1}".repeat(LINE_BYTES_MAX as usize)]).to_string();
        assert!(line.len() <= BYTES, "{}", line.len());
    }
}
