//! A part of a store, at any level: as the command line names it, as JSON, and whether it is there.

use antiphon::op::DocumentId;
use antiphon::store::{Pattern, Store, Transaction, WriteError};
use serde_json::{Map, Value as Tree};

use super::shown_name;
use crate::error::Failure;

/// Which part of a store is meant; with nothing, all of it.
#[derive(clap::Args, Debug)]
pub(crate) struct PartArguments {
    /// The table
    #[arg(value_name = "TABLE", allow_negative_numbers = true)]
    table: Option<String>,
    /// The row
    #[arg(value_name = "ROW", allow_negative_numbers = true)]
    row: Option<String>,
    /// The cell
    #[arg(value_name = "CELL", allow_negative_numbers = true)]
    cell: Option<String>,
    /// All tables, without the values
    #[arg(long, conflicts_with_all = ["table", "value", "values"])]
    tables: bool,
    /// The value of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["table", "values"], allow_negative_numbers = true)]
    value: Option<String>,
    /// All values, without the tables
    #[arg(long, conflicts_with = "table")]
    values: bool,
}

/// A part of a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part<'a> {
    Everything,
    Tables,
    Table(&'a str),
    Row(&'a str, &'a str),
    Cell(&'a str, &'a str, &'a str),
    Values,
    Value(&'a str),
}

impl PartArguments {
    pub(crate) fn part(&self) -> Part<'_> {
        let Self { table, row, cell, tables, value, values } = self;
        match (table.as_deref(), row.as_deref(), cell.as_deref(), value.as_deref()) {
            (Some(table), Some(row), Some(cell), _) => Part::Cell(table, row, cell),
            (Some(table), Some(row), None, _) => Part::Row(table, row),
            (Some(table), ..) => Part::Table(table),
            (None, .., Some(value)) => Part::Value(value),
            (None, ..) if *tables => Part::Tables,
            (None, ..) if *values => Part::Values,
            (None, ..) => Part::Everything,
        }
    }
}

impl Part<'_> {
    /// Changes in this part.
    pub(crate) fn pattern(self) -> Pattern {
        match self {
            Self::Everything => Pattern::Everything,
            Self::Tables => Pattern::cells(None, None, None),
            Self::Table(table) => Pattern::cells(Some(table), None, None),
            Self::Row(table, row) => Pattern::cells(Some(table), Some(row), None),
            Self::Cell(table, row, cell) => Pattern::cells(Some(table), Some(row), Some(cell)),
            Self::Values => Pattern::values(None),
            Self::Value(name) => Pattern::values(Some(name)),
        }
    }

    /// Fails, with what there is instead, if this is not in the store. Everything, all tables and all values always are.
    pub(crate) fn demand(self, store: &Store, document: &DocumentId) -> Result<(), Failure> {
        let (table, row, cell) = match self {
            Self::Everything | Self::Tables | Self::Values => return Ok(()),
            Self::Value(name) => {
                return match store.value(name) {
                    Some(_) => Ok(()),
                    None => Err(unknown("value", name, &document.to_string(), store.values().map(|(name, _)| name))),
                };
            }
            Self::Table(table) => (table, None, None),
            Self::Row(table, row) => (table, Some(row), None),
            Self::Cell(table, row, cell) => (table, Some(row), Some(cell)),
        };
        let Some(found) = store.table(table) else {
            return Err(unknown("table", table, &document.to_string(), store.tables().map(|table| table.name())));
        };
        let Some(row) = row else { return Ok(()) };
        let table = shown_name(table);
        let Some(found) = found.row(row) else {
            let at = format!("table {table} of {document}");
            return Err(unknown("row", row, &at, found.rows().map(|row| row.name())));
        };
        let Some(cell) = cell.filter(|cell| found.cell(cell).is_none()) else { return Ok(()) };
        let at = format!("row {} of table {table} of {document}", shown_name(row));
        Err(unknown("cell", cell, &at, found.cells().map(|(name, _)| name)))
    }

    /// This part as JSON: of the store `{"tables":…,"values":…}`, and so on down to the content of a cell.
    pub(crate) fn to_json(self, store: &Store) -> Tree {
        let tree = match self {
            Self::Everything => Some(store.to_json()),
            Self::Tables => {
                Some(Tree::Object(store.tables().map(|table| (table.name().into(), table.to_json())).collect()))
            }
            Self::Table(table) => store.table(table).map(|table| table.to_json()),
            Self::Row(table, row) => store.row(table, row).map(|row| row.to_json()),
            Self::Cell(table, row, cell) => store.cell(table, row, cell).map(Tree::from),
            Self::Values => Some(Tree::Object(
                store.values().map(|(name, value)| (name.into(), value.into())).collect::<Map<_, _>>(),
            )),
            Self::Value(name) => store.value(name).map(Tree::from),
        };
        tree.unwrap_or_default()
    }

    /// Deletes it, and says how many cells and values that were.
    pub(crate) fn delete(self, transaction: &mut Transaction<'_>) -> Result<u64, WriteError> {
        let count = self.count(transaction);
        match self {
            Self::Everything => transaction.delete_tables().and_then(|()| transaction.delete_values()),
            Self::Tables => transaction.delete_tables(),
            Self::Table(table) => transaction.delete_table(table),
            Self::Row(table, row) => transaction.delete_row(table, row),
            Self::Cell(table, row, cell) => transaction.delete_cell(table, row, cell),
            Self::Values => transaction.delete_values(),
            Self::Value(name) => transaction.delete_value(name),
        }?;
        Ok(count as u64)
    }

    /// How many cells and values it has.
    fn count(self, store: &Store) -> usize {
        let in_tables = || store.tables().flat_map(|table| table.rows()).map(|row| row.cells().count()).sum::<usize>();
        match self {
            Self::Everything => in_tables() + store.values().count(),
            Self::Tables => in_tables(),
            Self::Table(table) => {
                store.table(table).map_or(0, |table| table.rows().map(|row| row.cells().count()).sum())
            }
            Self::Row(table, row) => store.row(table, row).map_or(0, |row| row.cells().count()),
            Self::Cell(table, row, cell) => store.cell(table, row, cell).iter().count(),
            Self::Values => store.values().count(),
            Self::Value(name) => store.value(name).iter().count(),
        }
    }
}

/// How many names a remedy gives.
const NAMED_MAX: usize = 8;

fn unknown<'n>(what: &str, name: &str, place: &str, names: impl Iterator<Item = &'n str>) -> Failure {
    let (code, error) = match what {
        "table" => ("unknown_table", "table"),
        "row" => ("unknown_row", "row"),
        "cell" => ("unknown_cell", "cell"),
        _ => ("unknown_value", "value"),
    };
    let error = format!("there is no {error} {} in {place}", shown_name(name));
    let mut names = names.map(shown_name);
    let named: Vec<_> = names.by_ref().take(NAMED_MAX).collect();
    let more = match names.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let remedy = match named.is_empty() {
        true => format!("there is no {what} at all: `antiphon set` makes them"),
        false => format!("name one that is there: {}{more}", named.join(", ")),
    };
    Failure::new(code, error, remedy)
}
