//! Data files as rows: JSON objects by line or in one array, or Parquet, whatever a file's name
//! says.

mod json;
mod parquet;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
    sync::Arc,
};

use joust_core::kind_of;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// What a bad row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It ends the reading.
    Fail,
    /// It is left out and counted.
    Skip,
}

/// Rows left out, by reason.
pub type Skipped = BTreeMap<String, usize>;

/// What is wrong with a row, without its contents.
pub(crate) type Problem = String;

/// One row of a data file.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Line of a JSONL file, element of a JSON array or row of a Parquet file, from 1.
    pub line: usize,
    values: Map<String, Value>,
    /// Columns of the file that nobody reads, whose values are not here.
    unread: Arc<Vec<String>>,
}

impl Row {
    /// Returns a column's value; one that is null counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// Returns whether the row has the column, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns a column's value.
    ///
    /// # Errors
    /// A column that is missing or null.
    pub(crate) fn column(&self, name: &str) -> std::result::Result<&Value, Problem> {
        match self.values.get(name) {
            Some(Value::Null) => Err(format!("column {name} is null")),
            Some(value) => Ok(value),
            None => Err(format!("column {name} is missing (columns: {})", self.names())),
        }
    }

    /// Returns a column's text.
    ///
    /// # Errors
    /// A column that is missing or not text.
    pub(crate) fn text(&self, name: &str) -> std::result::Result<&str, Problem> {
        let value = self.column(name)?;
        value.as_str().ok_or_else(|| format!("column {name} is text, found {}", kind_of(value)))
    }

    /// Lists the names of all columns, for messages.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.values.keys().chain(self.unread.iter()).map(String::as_str).collect();
        shorten(&names.join(", "))
    }

    /// Finds a column by name among all of the file.
    pub(crate) fn find(&self, names: &[&'static str]) -> Option<&'static str> {
        let here = |name: &&&str| self.get(name).is_some() || self.unread.iter().any(|unread| unread == **name);
        names.iter().find(here).copied()
    }
}

/// How rows are read: a file, its bad rows, and what was left out so far.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    /// The file.
    pub path: &'a Path,
    /// What a bad row does.
    pub on_error: OnError,
    /// Rows left out.
    pub skipped: Skipped,
}

impl<'a> Reading<'a> {
    /// Begins to read a file.
    pub(crate) fn new(path: &'a Path, on_error: OnError) -> Self {
        Self { path, on_error, skipped: Skipped::new() }
    }

    /// Counts a bad row, or ends the reading with it.
    pub(crate) fn refuse(&mut self, line: usize, problem: Problem) -> Result<()> {
        match self.on_error {
            OnError::Fail => Err(Error::Row { path: self.path.into(), line, problem }),
            OnError::Skip => {
                self.leave_out(problem.split([':', '(', ';', '[']).next().unwrap_or_default().trim());
                Ok(())
            }
        }
    }

    /// Counts a row that is left out for a reason.
    pub(crate) fn leave_out(&mut self, reason: &str) {
        *self.skipped.entry(reason.to_owned()).or_default() += 1;
    }

    /// Reads the file's rows; of Parquet only `columns` are decoded.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a file of no known format, [`Error::Row`] for a row that is not an object (under [`OnError::Skip`] it is
    /// counted instead).
    pub(crate) fn rows(&mut self, columns: &[&str]) -> Result<Vec<Row>> {
        let mut file = File::open(self.path).map_err(Error::io("read", self.path))?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).map_err(Error::io("read", self.path))?;
        if magic == *b"PAR1" || named_parquet(self.path) {
            return parquet::rows(self, file, columns);
        }
        if let Some(format) = foreign(&magic) {
            let reason = format!("it is {format}; save it as UTF-8");
            return Err(Error::Format { path: self.path.into(), format: "JSON", reason });
        }
        file.rewind().map_err(Error::io("read", self.path))?;
        json::rows(self, &mut BufReader::new(file))
    }

    /// Reads the file's rows as something.
    ///
    /// # Errors
    /// As [`Self::rows`], and [`Error::Row`] where `parse` refuses one.
    pub(crate) fn parse<T>(
        &mut self,
        columns: &[&str],
        parse: impl Fn(&Row) -> std::result::Result<T, Problem>,
    ) -> Result<Vec<(usize, T)>> {
        let mut parsed = Vec::new();
        for row in self.rows(columns)? {
            match parse(&row) {
                Ok(value) => parsed.push((row.line, value)),
                Err(problem) => self.refuse(row.line, problem)?,
            }
        }
        Ok(parsed)
    }

    /// Refuses a file that gave nothing; `expected` says what its rows should have.
    ///
    /// # Errors
    /// [`Error::Empty`].
    pub(crate) fn some<T>(self, found: Vec<T>, expected: &'static str) -> Result<(Vec<T>, Skipped)> {
        if found.is_empty() {
            return Err(Error::Empty { path: self.path.into(), skipped: self.skipped.values().sum(), expected });
        }
        Ok((found, self.skipped))
    }
}

fn named_parquet(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["parquet", "pq"].iter().any(|name| extension.eq_ignore_ascii_case(name))
}

/// Names an encoding other than UTF-8, by how a file begins.
fn foreign(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => Some("UTF-16"),
        [0x1f, 0x8b, ..] => Some("compressed by gzip"),
        _ => None,
    }
}

/// Cuts a list of names for a message.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 200 { text.to_owned() } else { text.chars().take(197).collect::<String>() + "..." }
}
