//! `antiphon sync`: documents in step with a server, both ways.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use antiphon::heads::Heads;
use antiphon::op::{DocumentId, ReplicaId};
use antiphon_node::{Link, LinkState};
use futures_lite::future::or;
use serde::Serialize;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::error::{Failure, too_late};
use crate::host::{self, Place, Purpose};
use crate::output::Align::{Left, Right};
use crate::output::{Output, Table};
use crate::progress;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The documents: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC", required = true)]
    documents: Vec<DocumentId>,
    /// The data directory; without it, this only shows whether the server can be reached, and what it has
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server
    #[arg(long, value_name = "URL")]
    connect: Url,
    #[command(flatten)]
    access: Access,
    /// How long it may take until all are in step
    #[arg(long, value_name = "SECONDS", default_value = "30", allow_negative_numbers = true)]
    timeout: Seconds,
    #[command(flatten)]
    record: Record,
}

/// The result.
#[derive(Debug, Serialize)]
struct Synced {
    documents: Vec<SyncedDocument>,
}

#[derive(Debug, Serialize)]
struct SyncedDocument {
    document: String,
    /// Ops that the server has got from here.
    sent: u64,
    /// Ops that were got from the server.
    received: u64,
    in_step: bool,
    /// The digest of the heads.
    heads: String,
}

/// How a document stands in the data directory.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// What the heads cover, a snapshot's ops among it.
    ops: u64,
    heads: u64,
    /// How far the logs of peers are held.
    cursors: BTreeMap<ReplicaId, u64>,
}

impl Standing {
    fn of(heads: &Heads) -> Self {
        Self { ops: heads.ops(), heads: heads.digest(), cursors: BTreeMap::new() }
    }
}

/// How it went.
#[derive(Debug)]
struct Outcome {
    server: Option<ReplicaId>,
    /// One a document.
    in_step: Vec<Result<Standing, Failure>>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { documents, data, connect, access, timeout, record } = arguments;
    let mut documents = documents.clone();
    documents.sort();
    documents.dedup();
    // Before anything is made: a wrong flag leaves nothing behind.
    host::client(connect, access)?;
    let before = standings(data.as_deref(), &documents)?;
    let place = Place::of(data.as_deref());
    let outcome = host::run(place, Purpose::Command, record, async |node| {
        for document in &documents {
            node.open_document(document, host::follower())?;
        }
        let link = host::connect(node, connect, access)?;
        let work = async {
            let begun = Instant::now();
            let mut in_step = Vec::new();
            for document in &documents {
                let left = Seconds(timeout.0.saturating_sub(begun.elapsed()));
                in_step.push(match host::within(left, link.in_step(document)).await {
                    Some(Ok((heads, _))) => Ok(Standing::of(&heads)),
                    Some(Err(error)) => Err(error.into()),
                    None => Err(not_in_time(&link, document)),
                });
            }
            let server = match link.state() {
                LinkState::Live { replica, .. } => Some(replica),
                _ => None,
            };
            Outcome { server, in_step }
        };
        Ok(or(work, progress::show(output.is_json(), node, Some(&link), &documents)).await)
    })?;
    let after = standings(data.as_deref(), &documents)?;
    let mut synced = Synced { documents: Vec::new() };
    let mut failure = None;
    for (index, (document, reached)) in documents.iter().zip(outcome.in_step).enumerate() {
        let in_step = reached.is_ok();
        let (now, failed) = (reached.as_ref().ok().cloned(), reached.err());
        failure = failure.or(failed);
        // What is in the directory counts; without one: what was in memory.
        let after = data.as_ref().map(|_| after[index].clone()).or(now).unwrap_or_default();
        synced.documents.push(compare(document, &before[index], &after, outcome.server, in_step));
    }
    tell(output, &synced)?;
    failure.map_or(Ok(()), Err)
}

fn not_in_time(link: &Link, document: &DocumentId) -> Failure {
    let remedy = "see whether the server runs, and call again, with a longer --timeout";
    too_late(document, "was in step with the server", host::trouble(link, document).as_deref(), remedy)
}

/// What the directory tells about both ends: the server's log has grown by what it got from here, by what was got from
/// there, and by nothing else that is not here.
fn compare(
    document: &DocumentId,
    before: &Standing,
    after: &Standing,
    server: Option<ReplicaId>,
    in_step: bool,
) -> SyncedDocument {
    let cursor = |standing: &Standing| server.and_then(|server| standing.cursors.get(&server).copied()).unwrap_or(0);
    let received = after.ops.saturating_sub(before.ops);
    let grown = cursor(after).saturating_sub(cursor(before));
    SyncedDocument {
        document: document.to_string(),
        sent: grown.saturating_sub(received),
        received,
        in_step,
        heads: format!("{:016x}", after.heads),
    }
}

/// How the documents stand in a directory, in their order.
fn standings(data: Option<&Path>, documents: &[DocumentId]) -> Result<Vec<Standing>, Failure> {
    let nothing = vec![Standing::default(); documents.len()];
    let Some(data) = data.filter(|data| data.join(antiphon_sqlite::DATABASE_NAME).exists()) else { return Ok(nothing) };
    let looked = antiphon_sqlite::look(data, |view| {
        let standing = |document| {
            let (stored, cursors) = (view.document(document)?, view.cursors(document)?);
            let cursors = cursors.into_iter().map(|(peer, cursor)| (peer, cursor.position)).collect();
            Ok(Standing { cursors, ..Standing::of(&stored.heads) })
        };
        documents.iter().map(standing).collect()
    });
    looked.map_err(|error| Failure::data(data, &error))
}

fn tell(output: &mut Output, synced: &Synced) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(synced);
    }
    let headline = [("document", Left), ("sent", Right), ("received", Right), ("in step", Left), ("heads", Left)];
    let mut table = Table::new(headline);
    for SyncedDocument { document, sent, received, in_step, heads } in &synced.documents {
        table.row([document, sent, received, if *in_step { &"yes" } else { &"no" }, heads]);
    }
    output.table(&table)
}
