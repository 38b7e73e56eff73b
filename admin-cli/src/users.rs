//! `user import`: a file of any length, in requests of bounded size.

use crate::link::Connection;
use crate::{Failure, output};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Lines and bytes of one request: well under the largest frame.
const LINES: usize = 2_000;
const BYTES: usize = 96 * 1024;

/// Sends the lines; prints those that could not be loaded. Some that could not be: exit code 1.
pub fn import(connection: &mut Connection, file: &Path, json: bool) -> Result<(), Failure> {
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let opened = File::open(file).map_err(|e| Failure::Usage(format!("{}: {e}", file.display())))?;
        Box::new(BufReader::new(opened))
    };
    let mut problems: Vec<Value> = Vec::new();
    let mut batch: Vec<Value> = Vec::new();
    let mut bytes = 0;
    let mut count = 0u64;
    for (n, line) in input.lines().enumerate() {
        let line = line.map_err(|e| Failure::Usage(format!("{}: line {}: {e}", file.display(), n + 1)))?;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        count += 1;
        bytes += line.len() + 32;
        batch.push(json!([n + 1, line]));
        if batch.len() >= LINES || bytes >= BYTES {
            send(connection, &mut batch, &mut problems)?;
            bytes = 0;
        }
    }
    send(connection, &mut batch, &mut problems)?;
    let loaded = count - problems.len() as u64;
    if json {
        println!("{}", json!({"loaded": loaded, "problems": problems}));
    } else {
        if !problems.is_empty() {
            output::print(&json!({"columns": ["line", "problem"], "rows": problems}), false);
        }
        println!("{loaded} of {count} accounts loaded");
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Refused(format!("{} lines were not loaded", problems.len()))) }
}

fn send(connection: &mut Connection, batch: &mut Vec<Value>, problems: &mut Vec<Value>) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    let answer = connection.ask("user import", &json!({"lines": std::mem::take(batch)}))?;
    problems.extend(answer["rows"].as_array().into_iter().flatten().cloned());
    Ok(())
}
