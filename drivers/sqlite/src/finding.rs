//! Finding ops by the index of runs, without going through the log: chains, and what a peer lacks.

use antiphon::digest::Chain;
use antiphon::heads::Heads;
use antiphon::log::Comparison;
use antiphon::op::OpId;
use rusqlite::Connection;

use crate::error::Fault;
use crate::reading::{self, Found, Standing, chunk_row};

/// The position and the chain of an op that is held, by the index of runs.
fn locate(connection: &Connection, log: u64, id: OpId) -> Result<(u64, Chain), Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT key, entries FROM chunk WHERE key = (
            SELECT chunk FROM run WHERE log = ?1 AND author = ?2 AND seq <= ?3 ORDER BY seq DESC LIMIT 1)",
    )?;
    let mut rows = statement.query((log as i64, id.author.0, id.seq as i64))?;
    if let Some(row) = rows.next()? {
        let (first, chunk) = chunk_row(row, log)?;
        let found = (first..).zip(chunk.entries()).find(|(_, entry)| entry.id == id);
        if let Some((position, entry)) = found {
            return Ok((position, entry.chain));
        }
    }
    Fault::damaged(format_args!("op {} of {} is not where the index says", id.seq, id.author))
}

/// The chain at an op, if it is held, and not below the horizon; but there too at each author's last op.
pub(crate) fn chain(connection: &Connection, log: u64, id: OpId) -> Result<Option<Chain>, Fault> {
    let standing = reading::standing(connection, log, id.author)?;
    chain_within(connection, log, id, &standing)
}

/// The same, where the author's standing is known.
fn chain_within(connection: &Connection, log: u64, id: OpId, author: &Standing) -> Result<Option<Chain>, Fault> {
    let Standing { head, base, .. } = author;
    if id.seq == 0 || id.seq < base.seq || id.seq > head.seq {
        return Ok(None);
    }
    match [head, base].into_iter().find(|known| known.seq == id.seq) {
        Some(known) => Ok(Some(known.chain)),
        None => locate(connection, log, id).map(|(_, chain)| Some(chain)),
    }
}

/// What a peer's heads say about a log: by the index, not by reading it.
pub(crate) fn compare(connection: &Connection, found: &Found, heads: &Heads) -> Result<Comparison, Fault> {
    let log = found.log;
    let mut comparison = Comparison::new(found.record.tail);
    let mut authors = Vec::new();
    reading::authors(connection, found, |author, standing| authors.push((author, standing)))?;
    for (author, standing) in authors {
        let theirs = heads.get(author);
        let common = OpId { author, seq: theirs.seq };
        if chain_within(connection, log, common, &standing)?.is_some_and(|chain| chain != theirs.chain) {
            comparison.forks.push(author);
        }
        if theirs.seq < standing.base.seq {
            comparison.from = 0;
        } else if theirs.seq < standing.head.seq {
            let (position, _) = locate(connection, log, OpId { author, seq: theirs.seq + 1 })?;
            comparison.from = comparison.from.min(position);
        }
    }
    Ok(comparison)
}
