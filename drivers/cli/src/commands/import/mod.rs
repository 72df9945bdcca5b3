//! `antiphon import`: a store takes in what is in a file of JSON or CSV, in transactions of moderate size.

mod csv;
mod json;

use std::fs::File;
use std::path::{Path, PathBuf};

use antiphon::op::DocumentId;
use antiphon::store::{NAME_BYTES_MAX, Transaction, Value, WriteError};
use async_channel::Sender;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish};
use serde::Serialize;

use crate::error::Failure;
use crate::output::Output;
use crate::stores::{self, Opened, Reach};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// FILE.json, of the form {"tables":{TABLE:{ROW:{CELL:VALUE}}},"values":{NAME:VALUE}}; or FILE.csv, whose first line has
    /// the names of the cells, and whose fields are read as `set` reads VALUE; an empty one is no cell
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// For CSV: the table [default: the name of the file]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// For CSV: the column that names the rows, and is no cell [default: they have the numbers of their lines]
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    #[command(flatten)]
    reach: Reach,
}

/// The result.
#[derive(Debug, Serialize)]
struct Imported<'a> {
    document: &'a str,
    rows: u64,
    /// In these rows.
    cells: u64,
    values: u64,
    /// At the server; without one: here.
    durable: bool,
}

/// What is written together, or not at all.
#[derive(Debug)]
enum Unit {
    Row { table: String, row: String, cells: Vec<(String, Value)> },
    Value { name: String, content: Value },
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    rows: u64,
    cells: u64,
    values: u64,
}

/// How a file is read.
#[derive(Debug)]
enum Format<'a> {
    Json,
    Csv { table: &'a str, key: Option<&'a str> },
}

/// Takes what is read; says whether more is wanted.
type Take<'a> = dyn FnMut(Unit) -> bool + 'a;

/// What is written in one transaction, unless a single row is more, and how many of these are read ahead.
const CELLS_MAX: u64 = 4096;
const BYTES_MAX: usize = 256 << 10;
const BATCHES_MAX: usize = 4;

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, file, reach, .. } = arguments;
    let format = arguments.format()?;
    let mut all = Count::default();
    format.read(file, &mut |unit| {
        all.add(&unit);
        true
    })?;
    let late = std::thread::scope(|scope| {
        let (sender, batches) = async_channel::bounded(BATCHES_MAX);
        scope.spawn(move || {
            let mut batch = Batch::new(sender);
            let read = format.read(file, &mut |unit| batch.take(unit));
            batch.end(read);
        });
        // When it is over, the thread ends by itself: nobody takes any more of what it reads.
        stores::run(document, reach, output, async |opened, output| {
            opened.ready_to_write().await?;
            let target = if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
            let bar = ProgressBar::with_draw_target(Some(all.cells + all.values), target);
            let bar = bar.with_finish(ProgressFinish::AndClear);
            while let Ok(batch) = batches.recv().await {
                let batch = batch?;
                write(opened, &batch).await?;
                bar.inc(batch.iter().map(Unit::len).sum());
            }
            drop(bar);
            opened.keep().await
        })
    })?;
    let Count { rows, cells, values } = all;
    if output.is_json() {
        let document = &document.to_string();
        output.object(&Imported { document, rows, cells, values, durable: late.is_none() })?;
    } else {
        let whereabouts = stores::whereabouts(reach, late.is_some());
        let [of_rows, of_cells, of_values] = [(rows, "row"), (cells, "cell"), (values, "value")].map(counted);
        output.line(format!("{document}: {of_rows} of {of_cells} and {of_values} imported, {whereabouts}"))?;
    }
    late.map_or(Ok(()), Err)
}

fn counted((count, name): (u64, &str)) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Writes a batch, as soon as there is room for it.
async fn write(opened: &Opened<'_>, batch: &[Unit]) -> Result<(), Failure> {
    opened.write(|transaction| batch.iter().try_for_each(|unit| unit.write(transaction))).await
}

impl Arguments {
    fn format(&self) -> Result<Format<'_>, Failure> {
        let Self { file, table, key, .. } = self;
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("json") if table.is_none() && key.is_none() => Ok(Format::Json),
            Some("json") => Err(Failure::usage("JSON names its tables and rows", "leave out --table and --key")),
            Some("csv") => {
                let stem = file.file_stem().and_then(|stem| stem.to_str());
                let table = table
                    .as_deref()
                    .or(stem)
                    .ok_or_else(|| Failure::usage("the name of the file is no text", "give --table NAME"))?;
                named("table", table).map_err(|error| Failure::usage(error, "give another --table NAME"))?;
                Ok(Format::Csv { table, key: key.as_deref() })
            }
            _ => {
                let error = format!("{} is neither FILE.json nor FILE.csv", file.display());
                Err(Failure::usage(error, "give it the name of what it is"))
            }
        }
    }
}

impl Format<'_> {
    /// Hands over what is in a file, in its order, for as long as it is wanted.
    fn read(&self, path: &Path, take: &mut Take<'_>) -> Result<(), Failure> {
        let bad = |error: String| Failure::new("input", error, "see that it is a file of JSON or CSV that may be read");
        let unreadable = |error| bad(format!("{} can't be read: {error}", path.display()));
        // A pipe can't be read twice, and to open it might take for ever.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(bad(format!("{} is no file", path.display())));
        }
        let file = File::open(path).map_err(unreadable)?;
        let read = match self {
            Self::Json => json::read(file, take),
            Self::Csv { table, key } => csv::read(file, table, *key, take),
        };
        read.map_err(|Bad { error, remedy }| Failure::new("input", format!("{}: {error}", path.display()), remedy))
    }
}

/// What is wrong with a file.
#[derive(Debug)]
struct Bad {
    error: String,
    remedy: &'static str,
}

/// A name that a store takes.
fn named<'n>(what: &str, name: &'n str) -> Result<&'n str, String> {
    let is_short = name.len() <= NAME_BYTES_MAX;
    if is_short { Ok(name) } else { Err(format!("the name of a {what} has more than {NAME_BYTES_MAX} bytes")) }
}

impl Unit {
    fn write(&self, transaction: &mut Transaction<'_>) -> Result<(), WriteError> {
        match self {
            Self::Row { table, row, cells } => {
                cells.iter().try_for_each(|(cell, value)| transaction.set_cell(table, row, cell, value.clone()))
            }
            Self::Value { name, content } => transaction.set_value(name, content.clone()),
        }
    }

    /// Cells and values.
    fn len(&self) -> u64 {
        match self {
            Self::Row { cells, .. } => cells.len() as u64,
            Self::Value { .. } => 1,
        }
    }

    /// About what it takes as part of an op.
    fn bytes(&self) -> usize {
        let of = |value: &Value| match value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Json(json) => json.as_str().len(),
            _ => 8,
        };
        match self {
            Self::Row { row, cells, .. } => row.len() + cells.iter().map(|(_, value)| of(value)).sum::<usize>(),
            Self::Value { name, content } => name.len() + of(content),
        }
    }
}

impl Count {
    fn add(&mut self, unit: &Unit) {
        match unit {
            Unit::Row { cells, .. } => (self.rows, self.cells) = (self.rows + 1, self.cells + cells.len() as u64),
            Unit::Value { .. } => self.values += 1,
        }
    }
}

/// Units on their way into one transaction.
struct Batch {
    sender: Sender<Result<Vec<Unit>, Failure>>,
    units: Vec<Unit>,
    cells: u64,
    bytes: usize,
}

impl Batch {
    fn new(sender: Sender<Result<Vec<Unit>, Failure>>) -> Self {
        Self { sender, units: Vec::new(), cells: 0, bytes: 0 }
    }

    fn take(&mut self, unit: Unit) -> bool {
        let (cells, bytes) = (unit.len(), unit.bytes());
        let is_full = self.cells + cells > CELLS_MAX || self.bytes + bytes > BYTES_MAX;
        if is_full && !self.units.is_empty() && !self.send() {
            return false;
        }
        (self.cells, self.bytes) = (self.cells + cells, self.bytes + bytes);
        self.units.push(unit);
        true
    }

    fn send(&mut self) -> bool {
        (self.cells, self.bytes) = (0, 0);
        self.sender.send_blocking(Ok(std::mem::take(&mut self.units))).is_ok()
    }

    fn end(mut self, read: Result<(), Failure>) {
        // If nobody takes it, the command has failed elsewhere.
        match read {
            Ok(()) => _ = self.send(),
            Err(failure) => _ = self.sender.send_blocking(Err(failure)),
        }
    }
}
