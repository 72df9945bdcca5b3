//! `antiphon set`: one cell, or one value, of a store.

use antiphon::op::DocumentId;
use antiphon::store::Value;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Output;
use crate::stores::{self, Reach};

#[derive(clap::Args, Debug)]
#[command(override_usage = "antiphon set [OPTIONS] <DOC> <TABLE> <ROW> <CELL> <VALUE>\n       \
    antiphon set [OPTIONS] <DOC> --value <NAME> <VALUE>")]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// The table
    #[arg(value_name = "TABLE", required_unless_present = "value", allow_negative_numbers = true)]
    table: Option<String>,
    /// The row
    #[arg(value_name = "ROW", required_unless_present = "value", allow_negative_numbers = true)]
    row: Option<String>,
    /// The cell
    #[arg(value_name = "CELL", required_unless_present = "value", allow_negative_numbers = true)]
    cell: Option<String>,
    /// What it is to hold: JSON if it is, else a string; so are whole numbers that 64 bits don't hold
    #[arg(value_name = "VALUE", required_unless_present = "value", allow_negative_numbers = true)]
    content: Option<String>,
    /// Sets a value, which is in no table
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], conflicts_with = "table", allow_negative_numbers = true)]
    value: Option<Vec<String>>,
    #[command(flatten)]
    reach: Reach,
}

/// The result.
#[derive(Debug, Serialize)]
struct Set<'a> {
    document: &'a str,
    /// 1, or 0 if it held that already.
    changed: u64,
    /// At the server; without one: here.
    durable: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, table, row, cell, content, value, reach } = arguments;
    let (place, name, content) = match (table, row, cell, content, value.as_deref()) {
        (Some(table), Some(row), Some(cell), Some(content), _) => (Some((table, row)), cell, content),
        (.., Some([name, content])) => (None, name, content),
        _ => return Err(Failure::usage("there is nothing to set", "give TABLE ROW CELL VALUE, or --value NAME VALUE")),
    };
    let content: Value = stores::parse(content).map_err(|error| {
        Failure::usage(format!("the VALUE can't be in a cell: {error}"), "divide it, or give what a cell can hold")
    })?;
    let (changed, late) = stores::run(document, reach, output, async |opened, _| {
        opened.ready_to_write().await?;
        let changed = opened.write(|transaction| match place {
            Some((table, row)) => {
                let changed = transaction.cell(table, row, name) != Some(&content);
                transaction.set_cell(table, row, name, content.clone()).map(|()| changed)
            }
            None => {
                let changed = transaction.value(name) != Some(&content);
                transaction.set_value(name, content.clone()).map(|()| changed)
            }
        });
        Ok((u64::from(changed.await?), opened.keep().await?))
    })?;
    let set = Set { document: &document.to_string(), changed, durable: late.is_none() };
    if output.is_json() {
        output.object(&set)?;
    } else {
        let what = if changed == 1 { "set" } else { "held that already" };
        output.line(format!("{document}: {what}, {}", stores::whereabouts(reach, late.is_some())))?;
    }
    late.map_or(Ok(()), Err)
}
