//! `antiphon watch`: what changes in a store, as it does.

use std::path::PathBuf;

use antiphon::op::DocumentId;
use antiphon::store::{CellChange, Value, ValueChange};
use antiphon_synchronizer::{By, Told};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Tree;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::error::Failure;
use crate::output::Output;
use crate::stores::{self, PartArguments, Reach, shown, shown_name};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    #[command(flatten)]
    part: PartArguments,
    /// Keeps the store in this directory, and fetches only what is not there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server that has the store
    #[arg(long, value_name = "URL")]
    connect: Url,
    #[command(flatten)]
    access: Access,
    /// How long it may take to be in step first
    #[arg(long, value_name = "SECONDS", default_value = "30", allow_negative_numbers = true)]
    timeout: Seconds,
    #[command(flatten)]
    record: Record,
}

/// From here on changes are told.
#[derive(Debug, Serialize)]
struct Watching<'a> {
    watching: &'a str,
}

/// What changed.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// In milliseconds since 1970.
    at: u64,
    /// The same, for people.
    time: &'a str,
    /// The replica. Left out: the document was read anew, and the change may be of many.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(flatten)]
    name: Name<'a>,
    /// Left out: it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Tree>,
    /// Left out: it is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Tree>,
}

/// Which cell or value.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Name<'a> {
    Cell { table: &'a str, row: &'a str, cell: &'a str },
    Value { value: &'a str },
}

/// Changes that wait for stdout before the replica waits too.
const WAITING_MAX: usize = 1024;

pub(crate) fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, part, data, connect, access, timeout, record } = arguments;
    let reach = Reach { data, connect: Some(connect), access, timeout, record };
    stores::run(&document, &reach, output, async |opened, output| {
        opened.ready_to_read().await?;
        let (sender, changes) = async_channel::bounded(WAITING_MAX);
        opened.store.listen(part.part().pattern(), move |told| {
            let _ = sender.send_blocking(told.clone()); // it fails when nobody reads any more
        });
        let name = document.to_string();
        match output.is_json() {
            true => output.object(&Watching { watching: &name })?,
            false => output.line(format!("watching {name}"))?,
        }
        output.flush()?;
        while let Ok(told) = changes.recv().await {
            opened.check()?;
            tell(output, &told)?;
            if changes.is_empty() {
                output.flush()?;
            }
        }
        Ok(())
    })
}

fn tell(output: &mut Output, told: &Told) -> Result<(), Failure> {
    let Told { changes, by, at, .. } = told;
    let time = i64::try_from(*at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    let time = time.map_or_else(|| at.to_string(), |time| format!("{time:.3}"));
    let by = match by {
        By::Replica(replica) => Some(replica.to_string()),
        By::Us | By::Document => None,
    };
    let mut line = |name: Name<'_>, old: &Option<Value>, new: &Option<Value>| {
        let by = by.as_deref();
        if output.is_json() {
            let [old, new] = [old, new].map(|value| value.as_ref().map(Tree::from));
            return output.object(&Line { at: *at, time: &time, by, name, old, new });
        }
        let name = match name {
            Name::Cell { table, row, cell } => [table, row, cell].map(shown_name).join(" "),
            Name::Value { value } => format!("--value {}", shown_name(value)),
        };
        let new = new.as_ref().map_or_else(|| String::from("deleted"), |new| format!("= {}", shown(new)));
        let old = old.as_ref().map_or_else(String::new, |old| format!(" (was {})", shown(old)));
        output.line(format!("{time}  {}  {name} {new}{old}", by.unwrap_or("document read anew")))
    };
    for CellChange { table, row, cell, old, new } in &changes.cells {
        line(Name::Cell { table, row, cell }, old, new)?;
    }
    for ValueChange { value, old, new } in &changes.values {
        line(Name::Value { value }, old, new)?;
    }
    Ok(())
}
