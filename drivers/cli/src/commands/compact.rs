//! `antiphon compact`: the old ops of a document of stores give way to a snapshot.

use std::path::PathBuf;

use antiphon::op::{DocumentId, Op};
use antiphon::snapshot::Compactor;
use antiphon::storage::{CompactError, Storage};
use antiphon::store::{ClientId, Malformed, Store};
use antiphon_sqlite::{Options, SqliteStorage};
use bytes::Bytes;
use serde::Serialize;

use super::log::unknown;
use crate::error::Failure;
use crate::output::Output;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// The data directory of the document's authority, which is the server; nobody else may be using it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Keeps the ops from this position on
    #[arg(long, value_name = "POSITION")]
    below: Option<u64>,
    /// Leaves out ops that are no transactions of a store, which no store has taken in either
    #[arg(long)]
    skip_foreign: bool,
}

/// The result.
#[derive(Debug, Serialize)]
struct Compacted {
    document: String,
    /// Entries that were folded.
    folded: u64,
    /// Of these, ops that were left out.
    foreign: u64,
    horizon: u64,
    /// Entries that are left.
    left: u64,
    snapshot_bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, data, below, skip_foreign } = arguments;
    let of_data = |error: antiphon_sqlite::Error| Failure::data(data, &error);
    let known = antiphon_sqlite::look(data, antiphon_sqlite::View::documents).map_err(of_data)?;
    if !known.contains(document) {
        return Err(unknown(document, data, &known));
    }
    let mut storage = SqliteStorage::open_directory(data, &Options::default()).map_err(of_data)?;
    let before = storage.document(document).map_err(of_data)?;
    let horizon = below.unwrap_or(before.tail);
    if horizon > before.tail || horizon < before.horizon {
        let what = format!("{document} has entries from position {} to {}", before.horizon, before.tail);
        return Err(Failure::usage(what, "give --below a position of these"));
    }
    let mut stores = Stores { store: Store::new(ClientId::default()), skips: *skip_foreign, foreign: 0 };
    if horizon > before.horizon {
        storage.compact(document, horizon, &mut stores).map_err(|error| match error {
            CompactError::Storage(error) => of_data(error),
            CompactError::Snapshot(error) => {
                let what = format!("{document} has a snapshot that is none of a store: {error}");
                Failure::new("not_a_store", what, "compact it with the app that made it")
            }
            CompactError::Op { position, error } => {
                let what = format!("{document} is no store, or holds what is none: the op at {position}: {error}");
                let remedy = "compact it with its own app; or leave such ops out for ever, with --skip-foreign";
                Failure::new("not_a_store", what, remedy)
            }
        })?;
    }
    let after = storage.document(document).map_err(of_data)?;
    storage.close().map_err(of_data)?;
    let compacted = Compacted {
        document: document.to_string(),
        folded: after.horizon - before.horizon,
        foreign: stores.foreign,
        horizon: after.horizon,
        left: after.tail - after.horizon,
        snapshot_bytes: after.snapshot.map_or(0, |id| id.bytes),
    };
    if output.is_json() {
        return output.object(&compacted);
    }
    let Compacted { folded, foreign, horizon, left, snapshot_bytes, .. } = compacted;
    let out = if foreign == 0 { String::new() } else { format!(", {foreign} of them left out") };
    output.line(format!(
        "{document}: {folded} ops folded{out}; a snapshot of {snapshot_bytes} bytes stands for what is below position \
         {horizon}, and {left} ops are left"
    ))
}

/// Stores, with what is none left out if that is wanted.
struct Stores {
    store: Store,
    skips: bool,
    foreign: u64,
}

impl Compactor for &mut Stores {
    type Error = Malformed;

    fn load(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.store.load(body)
    }

    fn fold(&mut self, op: &Op) -> Result<(), Malformed> {
        let folded = self.store.fold(op);
        if folded.is_err() && self.skips {
            self.foreign += 1;
            return Ok(());
        }
        folded
    }

    fn finish(&mut self) -> Bytes {
        self.store.finish()
    }
}
