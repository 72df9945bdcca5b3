//! `antiphon del`: a cell, a row, a table, a value or all of a store is deleted.

use antiphon::op::DocumentId;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Output;
use crate::stores::{self, PartArguments, Reach};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE; with nothing more, all that it holds is deleted
    #[arg(value_name = "DOC")]
    document: DocumentId,
    #[command(flatten)]
    part: PartArguments,
    #[command(flatten)]
    reach: Reach,
}

/// The result.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    document: &'a str,
    /// Cells and values.
    deleted: u64,
    /// At the server; without one: here.
    durable: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, part, reach } = arguments;
    let part = part.part();
    stores::demand(document, reach)?;
    let (deleted, late) = stores::run(document, reach, output, async |opened, _| {
        opened.ready_to_write().await?;
        opened.store.read(|store| part.demand(store, document))?;
        let deleted = opened.write(|transaction| part.delete(transaction)).await?;
        Ok((deleted, opened.keep().await?))
    })?;
    if output.is_json() {
        let document = &document.to_string();
        output.object(&Deleted { document, deleted, durable: late.is_none() })?;
    } else {
        let what = if deleted == 1 { "cell or value" } else { "cells and values" };
        let whereabouts = stores::whereabouts(reach, late.is_some());
        output.line(format!("{document}: {deleted} {what} deleted, {whereabouts}"))?;
    }
    late.map_or(Ok(()), Err)
}
