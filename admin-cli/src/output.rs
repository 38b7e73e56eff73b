//! Answers as a person or a script reads them.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Prints an answer: a sentence, or a table without borders.
pub fn print(answer: &Value, json: bool) {
    if json {
        println!("{answer}");
        return;
    }
    if let Some(text) = answer.get("text").and_then(Value::as_str) {
        println!("{text}");
        return;
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if let Some(columns) = answer["columns"].as_array() {
        table.set_header(columns.iter().map(cell));
    }
    for row in answer["rows"].as_array().into_iter().flatten() {
        table.add_row(row.as_array().into_iter().flatten().map(cell));
    }
    for line in table.to_string().lines() {
        println!("{}", line.trim_end());
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "-".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
