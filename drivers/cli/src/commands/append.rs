//! `antiphon append`: each line of stdin is an op.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use antiphon::op::{DocumentId, Entry, ReplicaId};
use antiphon::replica::Replica;
use antiphon::storage::StoredDocument;
use antiphon::wire::Limits;
use antiphon_node::{Link, Node};
use async_channel::Sender;
use bytes::Bytes;
use futures_lite::future::{block_on, or};
use serde::Serialize;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::error::{Failure, too_late};
use crate::host::{self, Place, Purpose};
use crate::output::Output;
use crate::progress;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// Keeps the ops in this directory, also while there is no connection
    #[arg(long, value_name = "DIR", required_unless_present = "connect")]
    data: Option<PathBuf>,
    /// Brings the ops to this server, and those that earlier calls left in the data directory
    #[arg(long, value_name = "URL")]
    connect: Option<Url>,
    #[command(flatten)]
    access: Access,
    /// How long to wait, when stdin has ended, until everything is durable
    #[arg(long, value_name = "SECONDS", default_value = "30", allow_negative_numbers = true)]
    timeout: Seconds,
    #[command(flatten)]
    record: Record,
}

/// The result.
#[derive(Debug, Serialize)]
struct Appended<'a> {
    document: &'a str,
    /// Lines that are durable here.
    appended: u64,
    /// Those among them that are durable at the server; without one: here.
    durable: u64,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, data, connect, access, timeout, record } = arguments;
    // Before anything is made: a wrong flag leaves nothing behind.
    connect.as_ref().map(|url| host::client(url, access)).transpose()?;
    let mut known = None;
    let outcome = host::run(Place::of(data.as_deref()), Purpose::Command, record, async |node| {
        let before = known.insert(Own::before(node, document).await?);
        node.open_document(document, host::follower())?;
        let link = connect.as_ref().map(|url| host::connect(node, url, access)).transpose()?;
        let work = async {
            read_all(node, document).await?;
            host::within(*timeout, finish(node, link.as_ref(), document)).await.transpose().map_err(Failure::from)
        };
        let broken = async {
            let error = match &link {
                None => node.failure(document).await,
                Some(link) => or(node.failure(document), link.failure(document)).await,
            };
            Err(Failure::from(error))
        };
        let documents = std::slice::from_ref(document);
        let shown = progress::show(output.is_json(), node, link.as_ref(), documents);
        let outcome = or(or(work, broken), shown).await;
        before.author_now = node.inspect(Replica::id);
        before.there = link.as_ref().map_or(u64::MAX, |link| link.position_acknowledged(document));
        if data.is_none() {
            // Memory does not fail, and will be gone.
            let read = async |from| node.read(document, from, READ_COST).await;
            let (appended, durable) = before.since(&node.stored(document).await?, read).await?;
            tell(output, &Appended { document: &document.to_string(), appended, durable }, link.is_some())?;
        }
        match outcome? {
            Some(()) => Ok(()),
            None => Err(not_in_time(link.as_ref(), document, data.is_some())),
        }
    });
    // Also if it failed: what is there is there. A disk that has room again for a moment may have taken more meanwhile.
    if let (Some(known), Some(data)) = (known, data) {
        let looked = antiphon_sqlite::look(data, |view| {
            let read = async |from| view.read(document, from, READ_COST);
            block_on(known.since(&view.document(document)?, read))
        });
        if let Ok((appended, durable)) = looked {
            tell(output, &Appended { document: &document.to_string(), appended, durable }, connect.is_some())?;
        }
    }
    outcome
}

async fn finish(node: &Node, link: Option<&Link>, document: &DocumentId) -> Result<(), antiphon_node::Error> {
    match link {
        None => node.written(document).await,
        Some(link) => link.acknowledged(document).await,
    }
}

fn not_in_time(link: Option<&Link>, document: &DocumentId, kept: bool) -> Failure {
    let trouble = link.and_then(|link| host::trouble(link, document));
    match (link, kept) {
        (None, _) => too_late(document, "was durable here", None, "see what holds the disk up, and call again"),
        (_, true) => {
            let remedy = "call again, with a longer --timeout: what is not there yet is kept in the data directory";
            too_late(document, "was durable at the server", trouble.as_deref(), remedy)
        }
        (_, false) => {
            let remedy = "append what is missing again, and give --data DIR to keep it meanwhile";
            too_late(document, "was durable at the server", trouble.as_deref(), remedy)
        }
    }
}

fn tell(output: &mut Output, appended: &Appended<'_>, connected: bool) -> Result<(), Failure> {
    if output.is_json() {
        return output.object(appended);
    }
    let Appended { document, appended, durable } = appended;
    let place = if connected { "at the server" } else { "here" };
    let ops = if *appended == 1 { "op" } else { "ops" };
    output.line(format!("{document}: {appended} {ops} appended, {durable} durable {place}"))
}

/// What this replica had authored in a document before, and what has become of that.
struct Own {
    author: ReplicaId,
    seq: u64,
    tail: u64,
    /// Changes when the log begins anew.
    forgotten: u64,
    author_now: ReplicaId,
    /// The server holds everything below this position; without one: all.
    there: u64,
}

impl Own {
    async fn before(node: &Node, document: &DocumentId) -> Result<Self, antiphon_node::Error> {
        let (author, stored) = (node.inspect(Replica::id), node.stored(document).await?);
        let seq = stored.heads.get(author).seq;
        let StoredDocument { tail, forgotten, .. } = stored;
        Ok(Self { author, seq, tail, forgotten, author_now: author, there: u64::MAX })
    }

    /// How many more ops are `stored`, and how many of those are durable at the server.
    async fn since<E>(
        &self,
        stored: &StoredDocument,
        read: impl AsyncFn(u64) -> Result<Vec<Entry>, E>,
    ) -> Result<(u64, u64), E> {
        let renewed = if self.author_now == self.author { 0 } else { stored.heads.get(self.author_now).seq };
        let appended = stored.heads.get(self.author).seq.saturating_sub(self.seq) + renewed;
        let mut missing = 0;
        // In a log that began anew since, what was there before has other positions.
        let before = if stored.forgotten == self.forgotten { self.tail } else { stored.horizon };
        let mut position = self.there.max(before);
        while position < stored.tail {
            let entries = read(position).await?;
            position = if entries.is_empty() { stored.tail } else { position + entries.len() as u64 };
            missing += entries.iter().filter(|entry| entry.origin.is_none()).count() as u64;
        }
        Ok((appended, appended.saturating_sub(missing)))
    }
}

/// What is read at once.
const READ_COST: u64 = 1 << 20;

// -------------------------------------------------------------------------------------------- stdin

/// Lines that are appended at once, and their bytes; what a terminal gives is appended line by line.
const LINES_MAX: usize = 4096;
const BYTES_MAX: usize = 256 << 10;
/// Batches that are read ahead.
const BATCHES_MAX: usize = 4;

/// Appends all lines of stdin.
async fn read_all(node: &Node, document: &DocumentId) -> Result<(), Failure> {
    let line_max = Limits::default().op as usize;
    let (sender, batches) = async_channel::bounded(BATCHES_MAX);
    // A thread of its own, for stdin can't be waited for otherwise. It ends with the process if nobody needs it.
    std::thread::spawn(move || {
        if let Err(failure) = read_lines(BufReader::with_capacity(BYTES_MAX, io::stdin()), line_max, &sender) {
            let _ = sender.send_blocking(Err(failure)); // if nobody waits any more, nobody needs it
        }
    });
    while let Ok(batch) = batches.recv().await {
        node.append(document, batch?).await?;
    }
    Ok(())
}

type Batch = Result<Vec<Bytes>, Failure>;

fn read_lines(mut input: BufReader<impl Read>, line_max: usize, batches: &Sender<Batch>) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new("input", format!("stdin can't be read: {error}"), "see where it comes from");
    let mut number = 0;
    loop {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < LINES_MAX && bytes < BYTES_MAX {
            let mut line = Vec::new();
            // One more than a line may have, and its end.
            let read = input.by_ref().take(line_max as u64 + 2).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                break;
            }
            number += 1;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if line.len() > line_max {
                let error = format!("line {number} of stdin has more than {line_max} bytes");
                return Err(Failure::new("op_too_large", error, "split it; the lines before it are appended"));
            }
            bytes += line.len();
            lines.push(Bytes::from(line));
            // What is there is appended before more is waited for.
            if !input.buffer().contains(&b'\n') {
                break;
            }
        }
        if lines.is_empty() || batches.send_blocking(Ok(lines)).is_err() {
            return Ok(());
        }
    }
}
