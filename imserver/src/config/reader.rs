//! Reads a TOML file so that every mistake in it is found in one go, each with file, line and key.
//!
//! Deserialising into structs stops at the first mistake; here the syntax tree is walked instead. A section takes its
//! keys one by one; what is left over is unknown, and refused.

use mux::config::syntax;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing wrong with a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Which file.
    pub file: PathBuf,
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// Full name of the key, e.g. `link.listen`; empty for a mistake of syntax.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Everything wrong with the configuration, in the order of the lines. Never empty when it is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Where something stands in the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct At {
    /// Line, from 1.
    pub line: usize,
    /// Full name of the key.
    pub key: String,
}

/// A value as written, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub at: At,
}

/// Collects mistakes while one file is read and checked.
#[derive(Debug)]
pub struct Reader {
    file: PathBuf,
    newlines: Vec<usize>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Parses the text of `file`. Mistakes of syntax are noted, and what could be understood is returned.
    pub fn parse<'i>(file: &Path, text: &'i str) -> (Reader, Table<'i>) {
        let mut reader = Reader {
            file: file.to_owned(),
            newlines: newlines_of(text),
            mistakes: Vec::new(),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        let errors = errors.iter().map(|e| (e.message(), e.span()));
        for mistake in syntax::mistakes(text, errors) {
            reader.note(mistake.line, mistake.key, mistake.text);
        }
        let table = Table {
            at: At {
                line: 1,
                key: String::new(),
            },
            entries: root.into_inner(),
        };
        (reader, table)
    }

    /// The line a span begins on, from 1.
    fn line(&self, span: &Range<usize>) -> usize {
        self.newlines
            .partition_point(|&newline| newline < span.start)
            + 1
    }

    fn note(&mut self, line: usize, key: String, text: String) {
        self.mistakes.push(Mistake {
            file: self.file.clone(),
            line,
            key,
            text,
        });
    }

    /// Notes a mistake.
    pub fn wrong(&mut self, at: &At, text: impl Into<String>) {
        self.note(at.line, at.key.clone(), text.into());
    }

    /// Notes a mistake of a key inside a table, e.g. one that is missing.
    pub fn wrong_in(&mut self, table: &At, key: &str, text: impl Into<String>) {
        self.note(table.line, join(&table.key, key), text.into());
    }

    /// Whether this key has been noted already: a value of the wrong type is not also missing.
    pub fn has_noted(&self, table: &At, key: &str) -> bool {
        let key = join(&table.key, key);
        self.mistakes
            .iter()
            .any(|m| m.key == key && (table.line == 0 || m.line >= table.line))
    }

    /// Notes mistakes of another file, or of a part that another crate has read.
    pub fn adopt(&mut self, others: impl IntoIterator<Item = Mistake>) {
        self.mistakes.extend(others);
    }

    /// The file being read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How many mistakes so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// True while nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Everything noted, in the order of the lines.
    pub fn finish(self) -> Result<(), Mistakes> {
        let Reader {
            file, mut mistakes, ..
        } = self;
        if mistakes.is_empty() {
            return Ok(());
        }
        mistakes.sort_by_key(|m| (m.file != file, m.line));
        Err(Mistakes(mistakes))
    }
}

fn newlines_of(text: &str) -> Vec<usize> {
    text.bytes()
        .enumerate()
        .filter(|(_, b)| *b == b'\n')
        .map(|(n, _)| n)
        .collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A table of the file whose keys are taken one by one.
#[derive(Debug)]
pub struct Table<'i> {
    at: At,
    entries: DeTable<'i>,
}

impl<'i> Table<'i> {
    /// Where the table begins.
    pub fn at(&self) -> &At {
        &self.at
    }

    fn raw(&mut self, reader: &Reader, key: &str) -> Option<(At, Spanned<DeValue<'i>>)> {
        let value = self.entries.remove(key)?;
        let at = At {
            line: reader.line(&value.span()),
            key: join(&self.at.key, key),
        };
        Some((at, value))
    }

    /// Takes a value. Absent: `None`. Of the wrong type: a mistake, and `None`.
    pub fn value<T: FromToml>(&mut self, reader: &mut Reader, key: &str) -> Option<Written<T>> {
        let (at, value) = self.raw(reader, key)?;
        match T::from_toml(value.get_ref()) {
            Ok(value) => Some(Written { value, at }),
            Err(found) => {
                reader.wrong(&at, format!("{} is wanted here, not {found}", T::WANTED));
                None
            }
        }
    }

    /// Takes a sub-table.
    pub fn table(&mut self, reader: &mut Reader, key: &str) -> Option<Table<'i>> {
        let (at, value) = self.raw(reader, key)?;
        match value.into_inner() {
            DeValue::Table(entries) => Some(Table { at, entries }),
            other => {
                reader.wrong(
                    &at,
                    format!(
                        "a section [{}] is wanted here, not {}",
                        at.key,
                        article(other.type_str())
                    ),
                );
                None
            }
        }
    }

    /// Takes an array of tables.
    pub fn tables(&mut self, reader: &mut Reader, key: &str) -> Vec<Table<'i>> {
        let Some((at, value)) = self.raw(reader, key) else {
            return Vec::new();
        };
        let array = match value.into_inner() {
            DeValue::Array(array) => array,
            other => {
                reader.wrong(
                    &at,
                    format!(
                        "sections [[{}]] are wanted here, not {}",
                        at.key,
                        article(other.type_str())
                    ),
                );
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for value in array {
            let at = At {
                line: reader.line(&value.span()),
                key: at.key.clone(),
            };
            match value.into_inner() {
                DeValue::Table(entries) => tables.push(Table { at, entries }),
                other => reader.wrong(
                    &at,
                    format!("a table is wanted here, not {}", article(other.type_str())),
                ),
            }
        }
        tables
    }

    /// Drops a key that another reader takes.
    pub fn leave(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Every key that nobody took is unknown: a mistake each, with the nearest of `known` suggested.
    pub fn finish(self, reader: &mut Reader, known: &[&str]) {
        for (key, _) in self.entries {
            let line = reader.line(&key.span());
            let name = key.into_inner();
            let text = format!("unknown key{}", did_you_mean(&name, known));
            reader.note(line, join(&self.at.key, &name), text);
        }
    }
}

/// The end of a message about an unknown name: the known one that was most likely meant, or nothing.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The known name a writer most likely meant: at most two letters apart.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (distance(name, k), *k))
        .filter(|(d, k)| *d <= 2 && *d < k.len())
        .min()
        .map(|(_, k)| k)
}

/// Levenshtein distance, with two letters exchanged as one step; names of keys are short.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let substituted = above[j] + usize::from(a[i] != b[j]);
            let mut least = substituted.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

fn article(type_name: &str) -> String {
    match type_name {
        "integer" | "array" => format!("an {type_name}"),
        other => format!("a {other}"),
    }
}

/// A type a key can have.
pub trait FromToml: Sized {
    /// For messages: "a string".
    const WANTED: &'static str;
    /// The value, or what was found instead.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
    /// As it is shown when a reload reports a change.
    fn show(&self) -> String;
}

impl FromToml for String {
    const WANTED: &'static str = "a string";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| article(value.type_str()))
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl FromToml for bool {
    const WANTED: &'static str = "true or false";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| article(value.type_str()))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl FromToml for u64 {
    const WANTED: &'static str = "a whole number";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let integer = value
            .as_integer()
            .ok_or_else(|| article(value.type_str()))?;
        u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| integer.to_string())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// An inline table of strings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StringMap(pub BTreeMap<String, String>);

impl FromToml for StringMap {
    const WANTED: &'static str = "a table of strings, such as { \"A\" = \"b\" }";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| article(value.type_str()))?;
        let entries = table.iter().map(|(key, value)| {
            let value = value.get_ref();
            let text = value
                .as_str()
                .ok_or_else(|| format!("a table that holds {}", article(value.type_str())))?;
            Ok((key.get_ref().to_string(), text.to_owned()))
        });
        entries.collect::<Result<_, _>>().map(StringMap)
    }
    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A list of strings; one string counts as a list of one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strings(pub Vec<String>);

impl FromToml for Strings {
    const WANTED: &'static str = "a string or a list of strings";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        if let Some(one) = value.as_str() {
            return Ok(Strings(vec![one.to_owned()]));
        }
        let array = value.as_array().ok_or_else(|| article(value.type_str()))?;
        array
            .iter()
            .map(|item| {
                let item = item.get_ref();
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| format!("a list that holds {}", article(item.type_str())))
            })
            .collect::<Result<_, _>>()
            .map(Strings)
    }
    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested() {
        for (written, known, want) in [
            ("lsiten", &["listen", "socket"][..], Some("listen")),
            ("sockets", &["listen", "socket"], Some("socket")),
            ("colour", &["listen", "socket"], None),
            ("ab", &["cd"], None),
            ("trun", &["stun", "turn"], Some("turn")),
        ] {
            assert_eq!(nearest(written, known), want, "{written}");
        }
    }

    #[test]
    fn what_is_there_twice_is_named_with_the_first_place() {
        let text = "[archive]\nenabled = true\n[archive]\nenabled = false\n";
        let (reader, _) = Reader::parse(Path::new("x.toml"), text);
        assert_eq!(
            reader.finish().expect_err("twice").to_string(),
            "x.toml:3: archive: is there twice: it is there already at line 1"
        );
    }

    #[test]
    fn several_mistakes_of_syntax_come_together() {
        let (reader, table) = Reader::parse(Path::new("x.toml"), "a = \nb = 1\nc = [1, \"x\n");
        drop(table);
        let mistakes = reader.finish().expect_err("the file is broken");
        assert!(mistakes.0.len() >= 2, "{mistakes}");
        assert_eq!(mistakes.0[0].line, 1, "{mistakes}");
        assert!(mistakes.to_string().starts_with("x.toml:1: "), "{mistakes}");
    }
}
