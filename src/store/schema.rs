//! Schemas: what this replica writes, and how it sees what is there.
//!
//! A schema binds what is written here, and is a lens on what is stored. It changes nothing that is stored and never
//! travels: replicas with other schemas, other defaults among them, hold the same content and have the same hash. What
//! came from a peer and does not fit is kept, and seen as if it were not there, until a schema takes it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::row::{Entry, Name, Row};
use super::value::Value;

/// What kinds of values fit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// All.
    #[default]
    Any,
    /// [`Value::Bool`].
    Bool,
    /// [`Value::Int`].
    Int,
    /// [`Value::Float`].
    Float,
    /// [`Value::Int`] and [`Value::Float`].
    Number,
    /// [`Value::String`].
    String,
    /// [`Value::Bytes`].
    Bytes,
    /// [`Value::Json`], an array.
    Array,
    /// [`Value::Json`], an object.
    Object,
}

/// What is done with tables, cells and values that the schema does not name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unknown {
    /// They may be written, and are seen.
    #[default]
    Keep,
    /// They may not be written, and are not seen.
    Refuse,
}

/// What one cell, or one value, may hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Spec {
    kind: Kind,
    nullable: bool,
    required: bool,
    default: Option<Value>,
    allowed: Vec<Value>,
}

impl Spec {
    /// Something of this kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Null fits too.
    #[must_use]
    pub fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// A row that is written here without it is refused, unless there is a default.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// What is seen in a row that is there, where the cell is not. (A value is seen always.)
    #[must_use]
    pub fn or(self, default: impl Into<Value>) -> Self {
        Self { default: Some(default.into()), ..self }
    }

    /// Only these fit, of those that are of the kind.
    #[must_use]
    pub fn one_of<V: Into<Value>>(self, allowed: impl IntoIterator<Item = V>) -> Self {
        Self { allowed: allowed.into_iter().map(Into::into).collect(), ..self }
    }

    fn judge(&self, value: &Value) -> Result<(), Why> {
        let is_of_kind = match (self.kind, value) {
            (_, Value::Null) => return if self.nullable || self.kind == Kind::Any { Ok(()) } else { Err(Why::Kind) },
            (Kind::Any, _) => true,
            (kind, Value::Bool(_)) => kind == Kind::Bool,
            (kind, Value::Int(_)) => matches!(kind, Kind::Int | Kind::Number),
            (kind, Value::Float(_)) => matches!(kind, Kind::Float | Kind::Number),
            (kind, Value::String(_)) => kind == Kind::String,
            (kind, Value::Bytes(_)) => kind == Kind::Bytes,
            (kind, Value::Json(json)) => kind == if json.is_array() { Kind::Array } else { Kind::Object },
        };
        if !is_of_kind {
            Err(Why::Kind)
        } else if !self.allowed.is_empty() && !self.allowed.contains(value) {
            Err(Why::NotAllowed)
        } else {
            Ok(())
        }
    }
}

/// What the cells of a table's rows, or all values, may hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cells {
    specs: BTreeMap<Name, Spec>,
    unknown: Unknown,
}

impl Cells {
    /// Anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the one of this name may hold.
    #[must_use]
    pub fn cell(mut self, name: &str, spec: Spec) -> Self {
        self.specs.insert(name.into(), spec);
        self
    }

    /// What is done with others.
    #[must_use]
    pub fn unknown(self, unknown: Unknown) -> Self {
        Self { unknown, ..self }
    }

    fn judge(&self, name: &str, value: &Value) -> Result<(), Why> {
        match (self.specs.get(name), self.unknown) {
            (Some(spec), _) => spec.judge(value),
            (None, Unknown::Keep) => Ok(()),
            (None, Unknown::Refuse) => Err(Why::Unknown),
        }
    }

    /// The first that a row would have to have.
    pub(super) fn missing(&self, row: &Row) -> Option<&str> {
        let is_missing = |name: &str, spec: &Spec| {
            spec.required && spec.default.is_none() && row.get(name).is_none_or(|entry| entry.content.is_none())
        };
        self.specs.iter().find(|(name, spec)| is_missing(name, spec)).map(|(name, _)| &**name)
    }

    /// What is seen of the content of a cell.
    fn see<'a>(&'a self, name: &str, content: Option<&'a Value>) -> Option<&'a Value> {
        let fitting = content.filter(|value| self.judge(name, value).is_ok());
        fitting.or_else(|| self.specs.get(name)?.default.as_ref())
    }
}

/// Tables and values that are written as they should be. See the [module](super).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Schema {
    tables: BTreeMap<Name, Cells>,
    unknown_tables: Unknown,
    values: Cells,
}

impl Schema {
    /// Anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the cells in the rows of this table may hold.
    #[must_use]
    pub fn table(mut self, name: &str, cells: Cells) -> Self {
        self.tables.insert(name.into(), cells);
        self
    }

    /// What is done with other tables.
    #[must_use]
    pub fn unknown_tables(self, unknown_tables: Unknown) -> Self {
        Self { unknown_tables, ..self }
    }

    /// What the values may hold.
    #[must_use]
    pub fn values(self, values: Cells) -> Self {
        Self { values, ..self }
    }

    /// Whether what it says fits itself.
    pub(super) fn check(&self) -> Result<(), BadSchema> {
        for cells in self.tables.values().chain([&self.values]) {
            for (name, spec) in &cells.specs {
                let all = spec.default.iter().chain(&spec.allowed);
                let stored = |value: &Value| value.clone().checked().is_ok_and(|stored| stored == *value);
                if !all.clone().all(|value| stored(value) && spec.judge(value).is_ok()) {
                    return Err(BadSchema { name: name.clone() });
                }
            }
        }
        Ok(())
    }

    /// What binds the cells of a table, or the values (`None`); an error if it may not be written at all.
    pub(super) fn cells(&self, table: Option<&str>) -> Result<Option<&Cells>, Why> {
        match table {
            None => Ok(Some(&self.values)),
            Some(table) => match (self.tables.get(table), self.unknown_tables) {
                (None, Unknown::Refuse) => Err(Why::Unknown),
                (cells, _) => Ok(cells),
            },
        }
    }

    /// Whether something may be written to a cell of a table, or to a value.
    pub(super) fn judge(&self, table: Option<&str>, name: &str, value: &Value) -> Result<(), Why> {
        self.cells(table)?.map_or(Ok(()), |cells| cells.judge(name, value))
    }
}

/// A row, or the values, as a schema lets it be seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) row: Option<&'a Row>,
    pub(super) cells: Option<&'a Cells>,
}

impl<'a> Seen<'a> {
    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        let content = self.row.and_then(|row| row.get(name)?.content.as_ref());
        match self.cells {
            Some(cells) => cells.see(name, content),
            None => content,
        }
    }

    /// All that is seen, by name.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let mut stored = self.row.map_or(&[][..], Row::entries).iter().peekable();
        let mut defaults = self.cells.into_iter().flat_map(|cells| &cells.specs).peekable();
        core::iter::from_fn(move || {
            loop {
                let next_stored = stored.peek().map(|entry| &*entry.name);
                let next_default = defaults.peek().map(|(name, _)| &***name);
                let name = next_stored.into_iter().chain(next_default).min()?;
                let content =
                    stored.next_if(|entry| *entry.name == *name).and_then(|entry: &Entry| entry.content.as_ref());
                defaults.next_if(|(other, _)| ***other == *name);
                let seen = self.cells.map_or(content, |cells| cells.see(name, content));
                if let Some(value) = seen {
                    return Some((name, value));
                }
            }
        })
    }
}

/// Why something does not fit a schema.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// The schema does not name it, and wants nothing else.
    Unknown,
    /// It is of another kind.
    Kind,
    /// It is none of those that are allowed.
    NotAllowed,
    /// It has to be there.
    Missing,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the schema does not name it",
            Self::Kind => "the schema wants another kind of value",
            Self::NotAllowed => "the schema allows other values only",
            Self::Missing => "the schema requires it",
        })
    }
}

/// A default or an allowed value does not fit what else is said of its cell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadSchema {
    /// The cell or value.
    pub name: Name,
}

impl fmt::Display for BadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the schema has a default or an allowed value for {:?} that does not fit there", self.name)
    }
}

impl core::error::Error for BadSchema {}
