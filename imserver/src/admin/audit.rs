//! What is written down of an administrator's command: who, from where, what, and what came of it. Never a secret.

use super::{Caller, Refusal};
use serde_json::{Map, Value, json};

/// Longest text of one argument, characters: an alert may be long, and the log is for reading.
const ARGUMENT_CHARS_MAX: usize = 500;

/// Arguments that are never written down.
const SECRET: [&str; 2] = ["password", "lines"];

/// How far a command has come.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It will run now: a line before anything changes.
    Begun,
    /// It is done.
    Done,
    /// It was refused, or failed.
    Refused(&'a Refusal),
}

/// One line of the audit log.
#[derive(Debug)]
pub struct Record<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The command's name.
    pub command: &'a str,
    /// Its arguments, secrets and all.
    pub args: &'a Map<String, Value>,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

impl Record<'_> {
    /// The line, with its end.
    pub fn line(&self, now_unix_ms: u64) -> String {
        let mut line = json!({
            "time": super::commands::stamp(now_unix_ms),
            "who": self.caller.who(),
            "from": self.caller.from,
            "command": self.command,
            "args": shown(self.args),
        });
        match self.outcome {
            Outcome::Begun => line["result"] = json!("begun"),
            Outcome::Done => line["result"] = json!("done"),
            Outcome::Refused(refusal) => {
                line["result"] = json!(refusal.code);
                line["text"] = json!(short(&refusal.text));
            }
        }
        format!("{line}\n")
    }
}

/// Arguments as they may be written down: without passwords and long lists.
pub fn shown(args: &Map<String, Value>) -> Map<String, Value> {
    args.iter()
        .filter(|(_, v)| !v.is_null())
        .map(|(key, value)| {
            let value = match value {
                Value::Array(list) if SECRET.contains(&key.as_str()) => {
                    json!(format!("({} not shown)", list.len()))
                }
                _ if SECRET.contains(&key.as_str()) => json!("(not shown)"),
                Value::String(text) => json!(short(text)),
                Value::Bool(_) | Value::Number(_) => value.clone(),
                other => json!(short(&other.to_string())),
            };
            (short(key), value)
        })
        .collect()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(ARGUMENT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
