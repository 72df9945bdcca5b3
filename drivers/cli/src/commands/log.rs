//! `antiphon log`: what a data directory holds of a document, without touching it.

use std::path::{Path, PathBuf};

use antiphon::op::{Cursor, DocumentId, ReplicaId};
use antiphon::storage::StoredDocument;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Align::{Left, Right};
use crate::output::{Output, Table};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The document: NAME, or NAME@BRANCH/SCOPE
    #[arg(value_name = "DOC")]
    document: DocumentId,
    /// The data directory, of a server or of another command; it may be in use
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// The result.
#[derive(Debug, Serialize)]
struct Log {
    document: String,
    /// Whose directory it is, as of now.
    replica: Option<String>,
    /// What the heads cover.
    ops: u64,
    /// What stood below this position exists only in a snapshot.
    horizon: u64,
    snapshot_bytes: u64,
    /// The digest of the heads.
    heads: String,
    authors: Vec<Author>,
    timelines: Vec<Timeline>,
    peers: Vec<Peer>,
}

/// An author's head.
#[derive(Debug, Serialize)]
struct Author {
    author: String,
    seq: u64,
    chain: String,
}

/// Positions from `begins` to `ends` were given out in one open of the directory.
#[derive(Debug, Serialize)]
struct Timeline {
    timeline: String,
    open: u64,
    begins: u64,
    ends: u64,
}

/// How far a peer's log is held.
#[derive(Debug, Serialize)]
struct Peer {
    peer: String,
    timeline: String,
    position: u64,
    /// Ops here that the peer is not known to have.
    lag: u64,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { document, data } = arguments;
    let looked = antiphon_sqlite::look(data, |view| {
        Ok((view.documents()?, view.identity()?, view.document(document)?, view.cursors(document)?))
    });
    let (documents, identity, stored, cursors) = looked.map_err(|error| Failure::data(data, &error))?;
    if !documents.contains(document) {
        return Err(unknown(document, data, &documents));
    }
    let replica = identity.map(|identity| identity.replica.to_string());
    let log = Log::of(document, replica, &stored, &cursors);
    if output.is_json() { output.object(&log) } else { log.tell(output) }
}

pub(crate) fn unknown(document: &DocumentId, data: &Path, documents: &[DocumentId]) -> Failure {
    const NAMED_MAX: usize = 8;
    let error = format!("{} holds no document {document}", data.display());
    let named: Vec<_> = documents.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more =
        if documents.len() > NAMED_MAX { format!(" and {} more", documents.len() - NAMED_MAX) } else { "".into() };
    let remedy = match named.is_empty() {
        true => String::from("it holds none: give the --data directory of another replica"),
        false => format!("name one that it holds: {}{more}", named.join(", ")),
    };
    Failure::new("unknown_document", error, remedy)
}

impl Log {
    fn of(
        document: &DocumentId,
        replica: Option<String>,
        stored: &StoredDocument,
        cursors: &[(ReplicaId, Cursor)],
    ) -> Self {
        let StoredDocument { heads, timelines, tail, .. } = stored;
        let authors = heads.iter().map(|(author, head)| Author {
            author: author.to_string(),
            seq: head.seq,
            chain: format!("{:016x}", head.chain.0),
        });
        let ends = timelines.iter().skip(1).map(|next| next.begins).chain([*tail]);
        let timelines = timelines.iter().zip(ends).map(|(record, ends)| Timeline {
            timeline: format!("{:016x}", record.timeline.0),
            open: record.open,
            begins: record.begins,
            ends,
        });
        let peers = cursors.iter().map(|(peer, cursor)| Peer {
            peer: peer.to_string(),
            timeline: format!("{:016x}", cursor.timeline.0),
            position: cursor.position,
            // All that is in the peer's log below its cursor is here too, each op once.
            lag: tail.saturating_sub(cursor.position),
        });
        Self {
            document: document.to_string(),
            replica,
            ops: heads.ops(),
            horizon: stored.horizon,
            snapshot_bytes: stored.snapshot.map_or(0, |id| id.bytes),
            heads: format!("{:016x}", heads.digest()),
            authors: authors.collect(),
            timelines: timelines.collect(),
            peers: peers.collect(),
        }
    }

    fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        let Self { document, replica, ops, heads, .. } = self;
        let whose =
            replica.as_ref().map_or_else(String::new, |replica| format!(", in the directory of replica {replica}"));
        output.line(format!("{document}: {ops} ops, heads {heads}{whose}"))?;
        if self.horizon > 0 {
            let (bytes, horizon) = (self.snapshot_bytes, self.horizon);
            output.line(format!("a snapshot of {bytes} bytes stands for what is below position {horizon}"))?;
        }
        output.line("")?;
        let mut authors = Table::new([("author", Left), ("ops", Right), ("chain", Left)]);
        self.authors.iter().for_each(|Author { author, seq, chain }| authors.row([author, seq, chain]));
        output.table(&authors)?;
        output.line("")?;
        let mut timelines = Table::new([("timeline", Left), ("open", Right), ("begins", Right), ("ends", Right)]);
        for Timeline { timeline, open, begins, ends } in &self.timelines {
            timelines.row([timeline, open, begins, ends]);
        }
        output.table(&timelines)?;
        output.line("")?;
        if self.peers.is_empty() {
            return output.line("no peer yet");
        }
        let mut peers = Table::new([("peer", Left), ("held of its log", Right), ("it lacks at most", Right)]);
        self.peers.iter().for_each(|Peer { peer, position, lag, .. }| peers.row([peer, position, lag]));
        output.table(&peers)
    }
}
