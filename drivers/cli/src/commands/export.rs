//! `antiphon export`: what a store holds, as JSON or CSV, for `antiphon import` and other programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use antiphon::op::DocumentId;
use antiphon::store::{RowView, Store, TableView, Value};
use serde::{Serialize, Serializer};
use serde_json::Value as Tree;

use super::get::columns;
use crate::error::Failure;
use crate::output::Output;
use crate::stores::{self, Part, Reach, shown_name, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// Where it is written to [default: stdout]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Writes this table alone, as CSV, instead of everything as JSON
    #[arg(long, value_name = "TABLE")]
    csv: Option<String>,
    /// For CSV: the column for the names of the rows
    #[arg(long, value_name = "COLUMN", default_value = "row", requires = "csv")]
    key: String,
    #[command(flatten)]
    reach: Reach,
}

/// The result, when it is in a file.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    document: &'a str,
    file: &'a Path,
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, file, csv, key, reach } = arguments;
    let store = stores::fetch(document, reach, output)?;
    if let Some(table) = csv {
        Part::Table(table).demand(&store, document)?;
        if store.table(table).is_some_and(|table| columns(table).contains(key.as_str())) {
            let error = format!("a cell of table {} has the name {}, too", shown_name(table), shown_name(key));
            return Err(Failure::usage(error, "give --key another name for the column of the rows' names"));
        }
    }
    let write = |out: &mut dyn Write| match csv.as_deref().and_then(|table| store.table(table)) {
        Some(table) => write_csv(table, key, out),
        None => write_json(&store, out),
    };
    let Some(file) = file else { return output.with(write) };
    let written = File::create(file).and_then(|opened| {
        let mut out = BufWriter::new(opened);
        write(&mut out)?;
        Ok(out.into_inner()?.metadata()?.len())
    });
    let bytes = written.map_err(|error| {
        let what = format!("{} can't be written, and is not whole: {error}", file.display());
        Failure::new("export", what, "give a FILE that can be written, where there is room")
    })?;
    if output.is_json() {
        output.object(&Exported { document: &document.to_string(), file, bytes })
    } else {
        output.line(format!("{document}: {bytes} bytes in {}", file.display()))
    }
}

fn write_json(store: &Store, mut out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut out, &Everything { tables: Tables(store), values: Values(store) })?;
    out.write_all(b"\n")
}

/// The inverse of an import: fields are as `set` would take them, and what is not there is empty.
fn write_csv(table: TableView<'_>, key: &str, out: &mut dyn Write) -> io::Result<()> {
    let names = columns(table);
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record([key].into_iter().chain(names.iter().copied()))?;
    for row in table.rows() {
        let cells = names.iter().map(|name| row.cell(name).map_or_else(String::new, text));
        writer.write_record([row.name().to_owned()].into_iter().chain(cells))?;
    }
    writer.flush()
}

/// A store as JSON, of which only a row at a time is held as such.
#[derive(Serialize)]
struct Everything<'a> {
    tables: Tables<'a>,
    values: Values<'a>,
}

struct Tables<'a>(&'a Store);
struct Rows<'a>(TableView<'a>);
struct Cells<'a>(RowView<'a>);
struct Values<'a>(&'a Store);

impl Serialize for Tables<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.tables().map(|table| (table.name(), Rows(table))))
    }
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.rows().map(|row| (row.name(), Cells(row))))
    }
}

impl Serialize for Cells<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.cells().map(content))
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.values().map(content))
    }
}

fn content<'a>((name, value): (&'a str, &'a Value)) -> (&'a str, Tree) {
    (name, value.into())
}
