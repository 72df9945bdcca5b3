//! `antiphon get`: what a store holds, all of it or a part.

use std::collections::BTreeSet;

use antiphon::op::DocumentId;
use antiphon::store::{RowView, Store, TableView, Value};

use crate::error::Failure;
use crate::output::Align::{Left, Right};
use crate::output::{Output, Table};
use crate::stores::{self, Part, PartArguments, Reach, shown, shown_name, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    #[command(flatten)]
    part: PartArguments,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, part, reach } = arguments;
    let part = part.part();
    let store = stores::fetch(document, reach, output)?;
    part.demand(&store, document)?;
    if output.is_json() { output.object(&part.to_json(&store)) } else { tell(output, &store, part) }
}

/// Tables of what is in a part; a single content as it is.
pub(in crate::commands) fn tell(output: &mut Output, store: &Store, part: Part<'_>) -> Result<(), Failure> {
    match part {
        Part::Everything => {
            tables(output, store)?;
            if store.values().next().is_some() {
                if store.tables().next().is_some() {
                    output.line("")?;
                }
                contents(output, "value", store.values())?;
            }
            if store.is_empty() { output.line("it holds nothing") } else { Ok(()) }
        }
        Part::Tables if store.tables().next().is_none() => output.line("it has no table"),
        Part::Tables => tables(output, store),
        Part::Table(name) => store.table(name).map_or(Ok(()), |found| table(output, found)),
        Part::Row(table, row) => {
            store.row(table, row).map_or(Ok(()), |row: RowView<'_>| contents(output, "cell", row.cells()))
        }
        Part::Values if store.values().next().is_none() => output.line("it has no value"),
        Part::Values => contents(output, "value", store.values()),
        Part::Cell(table, row, cell) => store.cell(table, row, cell).map_or(Ok(()), |value| content(output, value)),
        Part::Value(name) => store.value(name).map_or(Ok(()), |value| content(output, value)),
    }
}

/// For programs as well: a string is all that it is.
fn content(output: &mut Output, value: &Value) -> Result<(), Failure> {
    match value {
        Value::String(text) => output.line(&**text),
        value => output.line(text(value)),
    }
}

fn contents<'a>(
    output: &mut Output,
    what: &str,
    contents: impl Iterator<Item = (&'a str, &'a Value)>,
) -> Result<(), Failure> {
    let mut table = Table::new([(what, Left), ("content", Left)]);
    contents.for_each(|(name, value)| table.row([&shown_name(name), &shown(value)]));
    output.table(&table)
}

fn tables(output: &mut Output, store: &Store) -> Result<(), Failure> {
    for (index, found) in store.tables().enumerate() {
        if index > 0 {
            output.line("")?;
        }
        let rows = if found.row_count() == 1 { "row" } else { "rows" };
        output.line(format!("{}: {} {rows}", shown_name(found.name()), found.row_count()))?;
        table(output, found)?;
    }
    Ok(())
}

/// A line a row, a column for each name that a cell has in any of them.
fn table(output: &mut Output, table: TableView<'_>) -> Result<(), Failure> {
    let names: BTreeSet<_> = columns(table);
    let is_number = |value: &Value| matches!(value, Value::Int(_) | Value::Float(_));
    let align = |name: &&str| {
        let is_right = table.rows().filter_map(|row| row.cell(name)).all(is_number);
        (shown_name(name), if is_right { Right } else { Left })
    };
    let headline = [(String::from("row"), Left)].into_iter().chain(names.iter().map(align));
    let mut shown_table = Table::with(headline);
    for row in table.rows() {
        let cells = names.iter().map(|name| row.cell(name).map_or_else(String::new, shown));
        shown_table.row_of([shown_name(row.name())].into_iter().chain(cells));
    }
    output.table(&shown_table)
}

/// The names of all cells in a table.
pub(super) fn columns(table: TableView<'_>) -> BTreeSet<&str> {
    table.rows().flat_map(|row| row.cells().map(|(name, _)| name)).collect()
}
