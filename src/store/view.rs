//! Reading: at every level, in the order of names, through the schema if there is one.

use super::Store;
use super::row::{Row, Table};
use super::schema::{Schema, Seen};

use super::value::Value;

/// A table that has a row.
#[derive(Clone, Copy, Debug)]
pub struct TableView<'a> {
    table: &'a Table,
    schema: Option<&'a Schema>,
}

/// A row that has a cell.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    row: &'a Row,
    seen: Seen<'a>,
}

impl Store {
    /// The tables that have a row.
    pub fn tables(&self) -> impl Iterator<Item = TableView<'_>> {
        self.state.tables.values().filter_map(|table| self.view(table))
    }

    /// A table. `None`: it has no row.
    pub fn table(&self, table: &str) -> Option<TableView<'_>> {
        self.view(self.state.tables.get(table)?)
    }

    /// A row of a table. `None`: it has no cell.
    pub fn row(&self, table: &str, row: &str) -> Option<RowView<'_>> {
        self.table(table)?.row(row)
    }

    /// The content of a cell. `None`: it is not there, and has no default.
    pub fn cell(&self, table: &str, row: &str, cell: &str) -> Option<&Value> {
        self.row(table, row)?.cell(cell)
    }

    /// The values, by name.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.seen_values().iter()
    }

    /// The content of a value. `None`: it is not there, and has no default.
    pub fn value(&self, value: &str) -> Option<&Value> {
        self.seen_values().get(value)
    }

    fn seen_values(&self) -> Seen<'_> {
        let cells = self.schema.as_ref().and_then(|schema| schema.cells(None).ok().flatten());
        Seen { row: self.state.values(), cells }
    }

    fn view<'a>(&'a self, table: &'a Table) -> Option<TableView<'a>> {
        let schema = self.schema.as_deref();
        let may_be_seen = schema.is_none_or(|schema| schema.cells(Some(&table.name)).is_ok());
        (table.live > 0 && may_be_seen).then_some(TableView { table, schema })
    }
}

impl<'a> TableView<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        &self.table.name
    }

    /// How many rows have a cell.
    pub fn row_count(self) -> usize {
        self.table.live
    }

    /// The rows that have a cell.
    pub fn rows(self) -> impl Iterator<Item = RowView<'a>> {
        self.table.rows.values().filter_map(move |row| self.view(row))
    }

    /// A row. `None`: it has no cell.
    pub fn row(self, row: &str) -> Option<RowView<'a>> {
        self.view(self.table.rows.get(row)?)
    }

    fn view(self, row: &'a Row) -> Option<RowView<'a>> {
        let cells = self.schema.and_then(|schema| schema.cells(Some(&self.table.name)).ok().flatten());
        row.is_live().then_some(RowView { row, seen: Seen { row: Some(row), cells } })
    }
}

impl<'a> RowView<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        &self.row.name
    }

    /// The cells, by name.
    pub fn cells(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.seen.iter()
    }

    /// The content of a cell. `None`: it is not there, and has no default.
    pub fn cell(self, cell: &str) -> Option<&'a Value> {
        self.seen.get(cell)
    }
}
