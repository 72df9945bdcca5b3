//! `antiphon tail`: prints a document, and what is added to it.

use std::path::PathBuf;

use antiphon::op::{Body, DocumentId, Entry};
use antiphon_node::{Follow, Followed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_lite::future::or;
use serde::Serialize;
use tracing::warn;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::error::{Failure, too_late};
use crate::host::{self, Place, Purpose};
use crate::output::Output;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// Keeps the document in this directory, and fetches only what is not there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server that has the document
    #[arg(long, value_name = "URL")]
    connect: Url,
    #[command(flatten)]
    access: Access,
    /// Goes on with what is added, and connects again when the connection is lost
    #[arg(long)]
    follow: bool,
    /// The position of the first op that is printed
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// How long it may take to be in step with the server; of no meaning with --follow
    #[arg(long, value_name = "SECONDS", default_value = "30", allow_negative_numbers = true)]
    timeout: Seconds,
    #[command(flatten)]
    record: Record,
}

/// An op.
#[derive(Debug, Serialize)]
struct Line<'a> {
    document: &'a str,
    position: u64,
    author: String,
    seq: u64,
    #[serde(flatten)]
    body: Shown<'a>,
}

/// A body, as JSON can have it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shown<'a> {
    Body(&'a str),
    BodyBase64(String),
    /// The body is gone: it was voided.
    BodyHash(String),
}

impl<'a> Shown<'a> {
    fn of(body: &'a Body) -> Self {
        match body {
            Body::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Self::Body(text),
                Err(_) => Self::BodyBase64(BASE64.encode(bytes)),
            },
            Body::Blank(hash) => Self::BodyHash(format!("{:016x}", hash.0)),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, data, connect, access, follow, from, timeout, record } = arguments;
    // Before anything is made: a wrong flag leaves nothing behind.
    host::client(connect, access)?;
    host::run(Place::of(data.as_deref()), Purpose::Command, record, async |node| {
        node.open_document(document, host::follower())?;
        let link = host::connect(node, connect, access)?;
        let mut printer = Printer { output, document, entries: node.follow(document, *from), from: *from };
        if *follow {
            let broken = async { Err(link.failure(document).await.into()) };
            return or(printer.print(u64::MAX), broken).await;
        }
        let in_step = async { Ok(host::within(*timeout, link.in_step(document)).await.transpose()?) };
        let printed = async { printer.print(u64::MAX).await.map(|()| None) };
        match or(printed, in_step).await? {
            Some((_, tail)) => printer.print(tail).await,
            None => {
                let remedy = "see whether the server runs, and call again, with a longer --timeout";
                Err(too_late(
                    document,
                    "was in step with the server",
                    host::trouble(&link, document).as_deref(),
                    remedy,
                ))
            }
        }
    })
}

struct Printer<'a> {
    output: &'a mut Output,
    document: &'a DocumentId,
    entries: Follow,
    /// What is before this position is not printed.
    from: u64,
}

impl Printer<'_> {
    /// Prints what there is, and then what comes, up to position `to`.
    async fn print(&mut self, to: u64) -> Result<(), Failure> {
        while self.entries.position() < to {
            match self.entries.next().await? {
                Followed::Entries { position, entries } => {
                    let fresh = (position..).zip(&entries).filter(|(position, _)| *position >= self.from);
                    for (position, entry) in fresh {
                        line(self.output, self.document, position, entry)?;
                    }
                    self.output.flush()?;
                }
                Followed::Snapshot { id, position } => {
                    warn!(document = %self.document, "what stood below position {position} exists only in a snapshot of {} bytes", id.bytes);
                }
                Followed::Restarted => warn!(document = %self.document, "it began anew, and is printed again"),
            }
        }
        Ok(())
    }
}

fn line(output: &mut Output, document: &DocumentId, position: u64, entry: &Entry) -> Result<(), Failure> {
    let id = entry.op.id;
    if output.is_json() {
        let (author, body) = (id.author.to_string(), Shown::of(&entry.op.body));
        return output.object(&Line { document: &document.to_string(), position, author, seq: id.seq, body });
    }
    match &entry.op.body {
        Body::Bytes(bytes) => output.line(bytes),
        Body::Blank(_) => Ok(()), // there is nothing to be shown
    }
}
