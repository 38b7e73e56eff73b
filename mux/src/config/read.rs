//! Reading TOML so that every mistake is found in one go, each with its line.
//!
//! `serde` stops at the first error. Here a table is taken apart by hand: each reader takes a key out,
//! notes what is wrong with it and goes on with a default; keys nobody took are unknown.
//!
//! In: the text of one file, and if wanted the files it names. Out: values and [`Mistake`]s.
//! Owns: nothing. Never: decides what a key means.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::syntax;

/// One mistake in a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; 0 if the whole file is meant.
    pub line: usize,
    /// What is wrong, one sentence without the key's place.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.text),
            n => write!(f, "{}:{}: {}", self.file.display(), n, self.text),
        }
    }
}

/// The file being read and the mistakes found so far.
pub struct Source<'a> {
    text: &'a str,
    file: &'a Path,
    with_files: bool,
    mistakes: Vec<Mistake>,
}

impl<'a> Source<'a> {
    /// A source with no mistakes yet.
    pub fn new(text: &'a str, file: &'a Path) -> Self {
        Self {
            text,
            file,
            with_files: false,
            mistakes: Vec::new(),
        }
    }

    /// The files that this one names are looked at too.
    pub fn with_files(mut self) -> Self {
        self.with_files = true;
        self
    }

    /// The file that is read.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// Looks at a file that is named here, if that is wanted. What is wrong with it is a mistake of the line that names it.
    pub fn look<T>(
        &mut self,
        named: &Spanned<PathBuf>,
        look: impl FnOnce(&Path) -> Result<T, String>,
    ) -> Option<T> {
        if !self.with_files {
            return None;
        }
        look(named.as_ref())
            .map_err(|why| self.mistake(named.span(), why))
            .ok()
    }

    /// Parses the file; syntax errors are noted, what could be understood is returned.
    pub fn parse(&mut self) -> Spanned<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let errors = errors.iter().map(|e| (e.message(), e.span()));
        for found in syntax::mistakes(self.text, errors) {
            let text = match found.key.is_empty() {
                true => found.text,
                false => format!("`{}` {}", found.key, found.text),
            };
            self.mistakes.push(Mistake {
                file: self.file.to_owned(),
                line: found.line,
                text,
            });
        }
        table
    }

    /// Notes a mistake at a place in the text.
    pub fn mistake(&mut self, span: Range<usize>, text: impl Into<String>) {
        let upto = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + upto.iter().filter(|b| **b == b'\n').count();
        self.mistakes.push(Mistake {
            file: self.file.to_owned(),
            line,
            text: text.into(),
        });
    }

    /// Another reader of the same file has noted what was noted so far.
    pub fn forget(&mut self) {
        self.mistakes.clear();
    }

    /// How many so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// Nothing wrong so far.
    pub fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// The mistakes, in the order of their lines.
    pub fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|m| m.line);
        self.mistakes
    }
}

/// One table, being taken apart.
pub struct Reader<'t, 'i> {
    path: String,
    span: Range<usize>,
    left: Vec<(
        &'t Spanned<toml::de::DeString<'i>>,
        &'t Spanned<DeValue<'i>>,
    )>,
}

impl<'t, 'i> Reader<'t, 'i> {
    /// Starts on a table; `path` names it in messages ("" for the top).
    pub fn new(path: impl Into<String>, span: Range<usize>, table: &'t DeTable<'i>) -> Self {
        Self {
            path: path.into(),
            span,
            left: table.iter().collect(),
        }
    }

    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Takes a key out, whatever its type.
    pub fn take(&mut self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        let at = self
            .left
            .iter()
            .position(|(k, _)| k.as_ref().as_ref() == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// A string with its place.
    pub fn string(&mut self, source: &mut Source<'_>, key: &str) -> Option<Spanned<String>> {
        let value = self.take(key)?;
        match value.as_ref().as_str() {
            Some(s) if !s.is_empty() => Some(Spanned::new(value.span(), s.to_owned())),
            Some(_) => {
                source.mistake(value.span(), format!("`{}` is empty", self.name(key)));
                None
            }
            None => {
                self.wrong_type(source, key, value, "a string");
                None
            }
        }
    }

    /// A string that must be there.
    pub fn required_string(
        &mut self,
        source: &mut Source<'_>,
        key: &str,
    ) -> Option<Spanned<String>> {
        if !self.left.iter().any(|(k, _)| k.as_ref().as_ref() == key) {
            self.missing(source, key);
            return None;
        }
        self.string(source, key)
    }

    /// Notes that a key is missing.
    pub fn missing(&self, source: &mut Source<'_>, key: &str) {
        source.mistake(
            self.span.clone(),
            format!("`{}` is missing", self.name(key)),
        );
    }

    /// A list of strings, each with its place.
    pub fn strings(&mut self, source: &mut Source<'_>, key: &str) -> Option<Vec<Spanned<String>>> {
        let value = self.take(key)?;
        let Some(array) = value.as_ref().as_array() else {
            self.wrong_type(source, key, value, "a list of strings");
            return None;
        };
        let mut out = Vec::new();
        for item in array.iter() {
            match item.as_ref().as_str() {
                Some(s) => out.push(Spanned::new(item.span(), s.to_owned())),
                None => self.wrong_type(source, key, item, "a list of strings"),
            }
        }
        Some(out)
    }

    /// One string, or a list of at least one; each with its place.
    pub fn one_or_more(
        &mut self,
        source: &mut Source<'_>,
        key: &str,
    ) -> Option<Vec<Spanned<String>>> {
        let at = self
            .left
            .iter()
            .find(|(k, _)| k.as_ref().as_ref() == key)?
            .1;
        if at.as_ref().as_str().is_some() {
            return self.string(source, key).map(|one| vec![one]);
        }
        let all = self.strings(source, key)?;
        if all.is_empty() {
            source.mistake(at.span(), format!("`{}` is empty", self.name(key)));
        }
        for one in all.iter().filter(|s| s.as_ref().is_empty()) {
            source.mistake(one.span(), format!("`{}` is empty", self.name(key)));
        }
        Some(all)
    }

    /// A whole number within a range, else the default.
    pub fn number(
        &mut self,
        source: &mut Source<'_>,
        key: &str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(value) = self.take(key) else {
            return default;
        };
        let Some(integer) = value.as_ref().as_integer() else {
            self.wrong_type(source, key, value, "a whole number");
            return default;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(n) if n >= i128::from(*range.start()) && n <= i128::from(*range.end()) => n as u64,
            _ => {
                let (lo, hi) = (range.start(), range.end());
                let text = format!(
                    "`{}` must be a whole number from {lo} to {hi}",
                    self.name(key)
                );
                source.mistake(value.span(), text);
                default
            }
        }
    }

    /// A boolean, else the default.
    pub fn boolean(&mut self, source: &mut Source<'_>, key: &str, default: bool) -> bool {
        let Some(value) = self.take(key) else {
            return default;
        };
        value.as_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(source, key, value, "true or false");
            default
        })
    }

    /// A table inside this one.
    pub fn table(&mut self, source: &mut Source<'_>, key: &str) -> Option<Reader<'t, 'i>> {
        let value = self.take(key)?;
        match value.as_ref().as_table() {
            Some(table) => Some(Reader::new(self.name(key), value.span(), table)),
            None => {
                self.wrong_type(source, key, value, "a table");
                None
            }
        }
    }

    /// An array of tables inside this one (`[[key]]`); empty if absent.
    pub fn tables(&mut self, source: &mut Source<'_>, key: &str) -> Vec<Reader<'t, 'i>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(array) = value.as_ref().as_array() else {
            self.wrong_type(
                source,
                key,
                value,
                &format!("written as [[{}]]", self.name(key)),
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in array.iter() {
            match item.as_ref().as_table() {
                Some(table) => out.push(Reader::new(self.name(key), item.span(), table)),
                None => self.wrong_type(source, key, item, "a table"),
            }
        }
        out
    }

    fn wrong_type(
        &self,
        source: &mut Source<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
    ) {
        let text = format!(
            "`{}` must be {wanted}, not {}",
            self.name(key),
            value.as_ref().type_str()
        );
        source.mistake(value.span(), text);
    }

    /// Whatever was not taken is unknown.
    pub fn finish(self, source: &mut Source<'_>) {
        for (key, _) in &self.left {
            source.mistake(
                key.span(),
                format!("unknown key `{}`", self.name(key.as_ref().as_ref())),
            );
        }
    }
}
