//! Reading: documents, entries, and what is found in them without reading all.

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::{Body, Cursor, DocumentId, Entry, OP_OVERHEAD, Op, OpId, ReplicaId};
use antiphon::storage::{Identity, StoredDocument};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, StoredBody, StoredEntry};
use crate::error::Fault;
use crate::seal::{Key, unpack};

/// How many bits of a key are the position; the others are the log.
const POSITION_BITS: u32 = 36;

/// The most entries of a log.
pub(crate) const POSITION_MAX: u64 = (1 << POSITION_BITS) - 1;

/// The last number of a log.
pub(crate) const LOG_MAX: u64 = (1 << (63 - POSITION_BITS)) - 1;

/// The key of what begins at a position of a log.
pub(crate) fn key(log: u64, position: u64) -> u64 {
    log << POSITION_BITS | position
}

/// What is kept of a document besides heads and cursors, which have rows of their own.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) tail: u64,
    /// The position of the last chunk.
    pub(crate) last: u64,
    /// Of the heads: a row that is gone is missed.
    pub(crate) digest: u64,
    pub(crate) forgotten: u64,
    pub(crate) timelines: Vec<TimelineRecord>,
    pub(crate) aside: Option<(u64, u64)>,
    /// The logs that resets have put aside, in order.
    pub(crate) shelves: Vec<Shelf>,
}

/// A log that was put aside.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Shelf {
    pub(crate) log: u64,
    /// The place of its first entry.
    pub(crate) place: u64,
    pub(crate) len: u64,
}

impl Record {
    /// The document as the core knows it, with these heads.
    pub(crate) fn stored(&self, heads: Heads) -> StoredDocument {
        let Self { tail, forgotten, aside, .. } = *self;
        StoredDocument { heads, timelines: self.timelines.clone(), forgotten, horizon: 0, tail, aside }
    }
}

/// A document's log and record.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) log: u64,
    pub(crate) record: Record,
}

/// An author's head, and the chunk that its newest row in the index of runs points to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct HeadRow {
    pub(crate) head: Head,
    pub(crate) chunk: u64,
}

fn log_of(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

fn replica_of(row: &Row<'_>, column: usize) -> rusqlite::Result<ReplicaId> {
    row.get(column).map(ReplicaId)
}

pub(crate) fn identity(connection: &Connection) -> Result<Option<Identity>, Fault> {
    let mut statement = connection.prepare_cached("SELECT identity FROM replica")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let identity = unpack(Key::Identity, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    identity.map(Some).map_or_else(|| Fault::damaged("the identity's seal is broken"), Ok)
}

pub(crate) fn documents(connection: &Connection) -> Result<Vec<DocumentId>, Fault> {
    let mut statement = connection.prepare_cached("SELECT log, name, state FROM document ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut documents = Vec::new();
    while let Some(row) = rows.next()? {
        let name: &str = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        record(row, log_of(row, 0)?, name, 2)?;
        documents.push(name.parse().or_else(|error| Fault::damaged(format_args!("a document's name: {error}")))?);
    }
    Ok(documents)
}

pub(crate) fn find(connection: &Connection, document: &DocumentId) -> Result<Option<Found>, Fault> {
    let mut statement = connection.prepare_cached("SELECT log, state FROM document WHERE name = ?1")?;
    let mut rows = statement.query([document.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let log = log_of(row, 0)?;
    Ok(Some(Found { log, record: record(row, log, document.as_str(), 1)? }))
}

fn record(row: &Row<'_>, log: u64, name: &str, column: usize) -> Result<Record, Fault> {
    let sealed = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    unpack(Key::Document(log, name), sealed)
        .map_or_else(|| Fault::damaged(format_args!("the seal of document {name} is broken")), Ok)
}

/// The state of a document.
pub(crate) fn document(connection: &Connection, document: &DocumentId) -> Result<StoredDocument, Fault> {
    let Some(Found { log, record }) = find(connection, document)? else { return Ok(StoredDocument::default()) };
    let heads = heads(connection, log)?;
    if heads.digest() != record.digest {
        return Fault::damaged(format_args!("heads of document {document} are missing"));
    }
    Ok(record.stored(heads))
}

fn heads(connection: &Connection, log: u64) -> Result<Heads, Fault> {
    let mut statement = connection.prepare_cached("SELECT author, head FROM head WHERE log = ?1")?;
    let mut rows = statement.query([log as i64])?;
    let mut heads = Heads::new();
    while let Some(row) = rows.next()? {
        let author = replica_of(row, 0)?;
        heads.set(author, head_row(row, log, author, 1)?.head);
    }
    Ok(heads)
}

fn head_row(row: &Row<'_>, log: u64, author: ReplicaId, column: usize) -> Result<HeadRow, Fault> {
    let sealed = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    unpack(Key::Head(log, author), sealed).map_or_else(|| Fault::damaged("the seal of a head is broken"), Ok)
}

/// The head of an author, if it has one.
pub(crate) fn head(connection: &Connection, log: u64, author: ReplicaId) -> Result<Option<HeadRow>, Fault> {
    let mut statement = connection.prepare_cached("SELECT head FROM head WHERE log = ?1 AND author = ?2")?;
    let mut rows = statement.query((log as i64, author.0))?;
    rows.next()?.map(|row| head_row(row, log, author, 0)).transpose()
}

pub(crate) fn cursors(connection: &Connection, log: u64) -> Result<Vec<(ReplicaId, Cursor)>, Fault> {
    let mut statement = connection.prepare_cached("SELECT peer, cursor FROM cursor WHERE log = ?1")?;
    let mut rows = statement.query([log as i64])?;
    let mut cursors = Vec::new();
    while let Some(row) = rows.next()? {
        let peer = replica_of(row, 0)?;
        cursors.push((peer, cursor_row(row, log, peer, 1)?));
    }
    Ok(cursors)
}

pub(crate) fn cursor(connection: &Connection, log: u64, peer: ReplicaId) -> Result<Option<Cursor>, Fault> {
    let mut statement = connection.prepare_cached("SELECT cursor FROM cursor WHERE log = ?1 AND peer = ?2")?;
    let mut rows = statement.query((log as i64, peer.0))?;
    rows.next()?.map(|row| cursor_row(row, log, peer, 0)).transpose()
}

fn cursor_row(row: &Row<'_>, log: u64, peer: ReplicaId, column: usize) -> Result<Cursor, Fault> {
    let sealed = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    unpack(Key::Cursor(log, peer), sealed).map_or_else(|| Fault::damaged("the seal of a cursor is broken"), Ok)
}

/// Entries that are being collected.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) entries: Vec<Entry>,
    cost: u64,
    max_cost: u64,
}

impl Collected {
    pub(crate) fn new(max_cost: u64) -> Self {
        Self { entries: Vec::new(), cost: 0, max_cost }
    }

    /// Whether an entry of this cost still fits. The first always does.
    fn admits(&mut self, cost: u64) -> bool {
        self.cost = self.cost.saturating_add(cost);
        self.entries.is_empty() || self.cost <= self.max_cost
    }

    /// Whether not even the smallest entry fits any more.
    fn is_full(&self) -> bool {
        !self.entries.is_empty() && self.cost.saturating_add(OP_OVERHEAD) > self.max_cost
    }
}

/// Collects a log's entries from position `from` on, up to its tail.
pub(crate) fn read(
    connection: &Connection,
    log: u64,
    from: u64,
    tail: u64,
    collected: &mut Collected,
) -> Result<(), Fault> {
    let mut position = from;
    let mut statement = connection.prepare_cached(
        "SELECT key, entries FROM chunk
        WHERE key >= (SELECT max(key) FROM chunk WHERE key <= ?1) AND key <= ?2 ORDER BY key",
    )?;
    let mut rows = statement.query((key(log, from) as i64, key(log, POSITION_MAX) as i64))?;
    while position < tail && !collected.is_full() {
        let row = rows.next()?;
        let chunk = row.map(|row| chunk_row(row, log)).transpose()?;
        let chunk = chunk.filter(|(first, chunk)| (*first..*first + chunk.len()).contains(&position));
        let Some((first, chunk)) = chunk else {
            return Fault::damaged(format_args!("entries from position {position} on are missing"));
        };
        let left = (tail - position) as usize;
        for entry in chunk.entries().skip((position - first) as usize).take(left) {
            if !collected.admits(entry.cost()) {
                return Ok(());
            }
            collected.entries.push(whole(connection, log, position, entry)?);
            position += 1;
        }
    }
    Ok(())
}

/// The position of a chunk, and the chunk.
fn chunk_row(row: &Row<'_>, log: u64) -> Result<(u64, Chunk), Fault> {
    let key = log_of(row, 0)?;
    let chunk = Chunk::open(key, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
    let Some(chunk) = chunk else { return Fault::damaged("the seal of entries is broken") };
    match key.checked_sub(self::key(log, 0)) {
        Some(first) if first <= POSITION_MAX => Ok((first, chunk)),
        _ => Fault::damaged("entries of a document are missing"),
    }
}

/// The entry with its body, wherever that stands.
fn whole(connection: &Connection, log: u64, position: u64, entry: StoredEntry) -> Result<Entry, Fault> {
    let StoredEntry { id, chain, origin, body } = entry;
    let body = match body {
        StoredBody::Here(body) => body,
        StoredBody::Apart(len, hash) => Body::Bytes(pieces(connection, key(log, position), len, hash)?),
    };
    Ok(Entry { op: Op { id, body }, chain, origin })
}

fn pieces(connection: &Connection, key: u64, len: u32, hash: BodyHash) -> Result<Bytes, Fault> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM piece WHERE key = ?1 ORDER BY number")?;
    let mut rows = statement.query([key as i64])?;
    let mut bytes = Vec::with_capacity(len as usize);
    while let Some(row) = rows.next()? {
        let piece = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        if bytes.len() + piece.len() > len as usize {
            break;
        }
        bytes.extend_from_slice(piece);
    }
    if BodyHash::of(&bytes) != hash {
        return Fault::damaged("a body is not the one that was written");
    }
    Ok(bytes.into())
}

/// The entries that resets have put aside, from place `from` on.
pub(crate) fn read_aside(
    connection: &Connection,
    shelves: &[Shelf],
    from: u64,
    collected: &mut Collected,
) -> Result<(), Fault> {
    let mut place = from;
    for shelf in shelves {
        let end = shelf.place + shelf.len;
        if place < end && !collected.is_full() {
            let before = collected.entries.len() as u64;
            read(connection, shelf.log, place.saturating_sub(shelf.place), shelf.len, collected)?;
            place += collected.entries.len() as u64 - before;
            if place < end {
                break;
            }
        }
    }
    Ok(())
}

/// The sealed last chunk of a log.
pub(crate) fn sealed_chunk(connection: &Connection, log: u64, first: u64) -> Result<Vec<u8>, Fault> {
    let mut statement = connection.prepare_cached("SELECT entries FROM chunk WHERE key = ?1")?;
    let sealed = statement.query_row([key(log, first) as i64], |row| row.get(0)).optional()?;
    sealed.map_or_else(|| Fault::damaged("the last entries of a document are missing"), Ok)
}

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

/// The chain at an op, if it is held.
pub(crate) fn chain(connection: &Connection, log: u64, id: OpId) -> Result<Option<Chain>, Fault> {
    match head(connection, log, id.author)? {
        Some(HeadRow { head, .. }) if head.seq == id.seq => Ok(Some(head.chain)),
        Some(HeadRow { head, .. }) if (1..head.seq).contains(&id.seq) => {
            locate(connection, log, id).map(|(_, chain)| Some(chain))
        }
        _ => Ok(None),
    }
}

/// What a peer's heads say about a log: by the index, not by reading it.
pub(crate) fn compare(connection: &Connection, found: &Found, heads: &Heads) -> Result<Comparison, Fault> {
    let Found { log, record } = found;
    let mut comparison = Comparison::new(record.tail);
    for (author, ours) in self::heads(connection, *log)?.iter() {
        let theirs = heads.get(author);
        let common = OpId { author, seq: theirs.seq };
        if chain(connection, *log, common)?.is_some_and(|chain| chain != theirs.chain) {
            comparison.forks.push(author);
        }
        if theirs.seq < ours.seq {
            let (position, _) = locate(connection, *log, OpId { author, seq: theirs.seq + 1 })?;
            comparison.from = comparison.from.min(position);
        }
    }
    Ok(comparison)
}
