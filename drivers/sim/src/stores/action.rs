//! What the users of stores do, as values and as text.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::store::{Transaction, Value, WriteError};

use crate::node::Action;
use crate::replica::Write;
use crate::text::{bytes_text, duration_text, parse_bytes, parse_duration};

/// What the user of a store does. As text: `write notes a/b/c=5 a/b/d- :v=300B`, `sweep notes 20ms`, and what the user of
/// any document can do but append: `open notes`, `close notes`, `reset notes`, `compact notes`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deed {
    /// Does a transaction.
    Write {
        /// In the store of which document.
        document: DocumentId,
        /// What, in order.
        edits: Vec<Edit>,
    },
    /// Forgets the deletions that are older.
    Sweep {
        /// In the store of which document.
        document: DocumentId,
        /// How old they may become.
        age: Duration,
    },
    /// Opens, closes, resets or compacts a document. A snapshot is made only where the store is equal to the document.
    Document(Write),
}

/// One change of a transaction. As text: `a/b/c=5` and `a/b/c-` set and delete a cell, `:v=5` and `:v-` a value; `a/b-`
/// deletes a row, `a-` a table, `/-` all tables and `:-` all values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    /// Table, row and cell, or the first of them; of values, `None`.
    path: Vec<String>,
    of_values: bool,
    /// `None`: it is deleted.
    content: Option<Content>,
}

/// What is set: a number, or a string of so many bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// An integer: `5`.
    Number(i64),
    /// A string of this length: `300B`.
    Text(u32),
}

impl Edit {
    /// Sets or deletes a cell, or deletes the row or the table, or with an empty path all tables.
    pub(super) fn of_tables(path: &[&str], content: Option<Content>) -> Self {
        Self { path: path.iter().map(|name| (*name).to_owned()).collect(), of_values: false, content }
    }

    /// Sets or deletes a value; without a name, deletes all values.
    pub(super) fn of_values(name: Option<&str>, content: Option<Content>) -> Self {
        Self { path: name.iter().map(|name| (*name).to_owned()).collect(), of_values: true, content }
    }

    pub(super) fn on(&self, transaction: &mut Transaction<'_>) -> Result<(), WriteError> {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        match (self.of_values, &path[..], self.content) {
            (false, [table, row, cell], Some(content)) => transaction.set_cell(table, row, cell, content.value()),
            (false, [table, row, cell], None) => transaction.delete_cell(table, row, cell),
            (false, [table, row], _) => transaction.delete_row(table, row),
            (false, [table], _) => transaction.delete_table(table),
            (false, ..) => transaction.delete_tables(),
            (true, [value, ..], Some(content)) => transaction.set_value(value, content.value()),
            (true, [value, ..], None) => transaction.delete_value(value),
            (true, [], _) => transaction.delete_values(),
        }
    }

    /// About how many bytes it takes in a body.
    pub(super) fn bytes(&self) -> u64 {
        let content = self.content.map_or(0, |content| match content {
            Content::Number(_) => 10,
            Content::Text(bytes) => u64::from(bytes),
        });
        20 + self.path.iter().map(|name| name.len() as u64).sum::<u64>() + content
    }
}

impl Content {
    fn value(self) -> Value {
        match self {
            Self::Number(number) => number.into(),
            Self::Text(bytes) => "x".repeat(bytes as usize).into(),
        }
    }
}

impl Action for Deed {
    fn simpler(&self) -> Vec<Self> {
        let Self::Write { document, edits } = self else { return Vec::new() };
        let mut simpler = Vec::new();
        for index in 0..edits.len() {
            let mut fewer = edits.clone();
            let edit = fewer.remove(index);
            if !fewer.is_empty() {
                simpler.push(fewer);
            }
            if let Some(Content::Text(_)) = edit.content {
                let mut shorter = edits.clone();
                shorter[index].content = Some(Content::Number(0));
                simpler.push(shorter);
            }
        }
        simpler.into_iter().map(|edits| Self::Write { document: document.clone(), edits }).collect()
    }
}

// -------------------------------------------------------------------------------------------- as text

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { document, edits } => {
                write!(f, "write {document}")?;
                edits.iter().try_for_each(|edit| write!(f, " {edit}"))
            }
            Self::Sweep { document, age } => write!(f, "sweep {document} {}", duration_text(*age)),
            Self::Document(write) => write.fmt(f),
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.join("/");
        match (self.of_values, self.path.is_empty()) {
            (true, _) => write!(f, ":{path}")?,
            (false, true) => f.write_str("/")?,
            (false, false) => f.write_str(&path)?,
        }
        match self.content {
            None => f.write_str("-"),
            Some(Content::Number(number)) => write!(f, "={number}"),
            Some(Content::Text(bytes)) => write!(f, "={}", bytes_text(u64::from(bytes))),
        }
    }
}

/// Why a text is not what the user of a store can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadDeed;

impl fmt::Display for BadDeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an action such as `write notes a/b/c=5 a/b/d- a/b- a- /- :v=300B :v- :-`, `sweep notes 20ms`, `open notes`, \
             `close notes`, `reset notes` or `compact notes`",
        )
    }
}

impl Error for BadDeed {}

impl FromStr for Deed {
    type Err = BadDeed;

    fn from_str(text: &str) -> Result<Self, BadDeed> {
        let words: Vec<_> = text.split_whitespace().collect();
        match words[..] {
            ["write", document, ref edits @ ..] if !edits.is_empty() => Ok(Self::Write {
                document: document.parse().map_err(|_| BadDeed)?,
                edits: edits.iter().map(|edit| edit.parse()).collect::<Result<_, _>>()?,
            }),
            ["sweep", document, age] => Ok(Self::Sweep {
                document: document.parse().map_err(|_| BadDeed)?,
                age: parse_duration(age).ok_or(BadDeed)?,
            }),
            _ => match text.parse() {
                Ok(Write::Append { .. }) | Err(_) => Err(BadDeed),
                Ok(write) => Ok(Self::Document(write)),
            },
        }
    }
}

impl FromStr for Edit {
    type Err = BadDeed;

    fn from_str(text: &str) -> Result<Self, BadDeed> {
        let (path, content) = match text.split_once('=') {
            Some((path, content)) => (path, Some(content.parse()?)),
            None => (text.strip_suffix('-').ok_or(BadDeed)?, None),
        };
        let (of_values, path) = path.strip_prefix(':').map_or((false, path), |name| (true, name));
        let all = if of_values { "" } else { "/" };
        let path: Vec<_> = if path == all { Vec::new() } else { path.split('/').map(str::to_owned).collect() };
        let named = if of_values { path.len() == 1 } else { path.len() == 3 };
        let fits = path.len() <= if of_values { 1 } else { 3 } && (named || content.is_none());
        let plain = |name: &String| !name.is_empty() && name.chars().all(char::is_alphanumeric);
        if fits && path.iter().all(plain) { Ok(Self { path, of_values, content }) } else { Err(BadDeed) }
    }
}

impl FromStr for Content {
    type Err = BadDeed;

    fn from_str(text: &str) -> Result<Self, BadDeed> {
        let number = text.parse().map(Self::Number).ok();
        let bytes = || parse_bytes(text).and_then(|bytes| u32::try_from(bytes).ok()).map(Self::Text);
        number.or_else(bytes).ok_or(BadDeed)
    }
}
