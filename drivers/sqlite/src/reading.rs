//! Reading: documents, entries, and what is found in them without reading all.

use antiphon::digest::BodyHash;
use antiphon::heads::{Head, Heads};
use antiphon::op::{Body, Cursor, DocumentId, Entry, OP_OVERHEAD, Op, ReplicaId};
use antiphon::storage::{Identity, StoredDocument};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, StoredBody, StoredEntry};
use crate::error::Fault;
use crate::seal::{Key, unpack};
use crate::snapshot::Kept;

/// How many bits of a key are the position; the others are the log.
pub(crate) const POSITION_BITS: u32 = 36;

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
    /// The logs that resets have put aside, in order. What is dealt with of one may have places of those before it.
    pub(crate) shelves: Vec<Shelf>,
    pub(crate) horizon: u64,
    pub(crate) snapshot: Option<Kept>,
    pub(crate) staged: Option<Kept>,
}

/// A log that was put aside.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Shelf {
    pub(crate) log: u64,
    /// The place of its first entry.
    pub(crate) place: u64,
    pub(crate) len: u64,
    /// The position of its first entry: its horizon.
    pub(crate) first: u64,
}

impl Record {
    /// The document as the core knows it, with these heads.
    pub(crate) fn stored(&self, heads: Heads) -> StoredDocument {
        let Self { tail, forgotten, aside, horizon, .. } = *self;
        let (snapshot, staged) = (self.snapshot.map(|kept| kept.id), self.staged.map(Kept::staged));
        StoredDocument { heads, timelines: self.timelines.clone(), forgotten, horizon, tail, aside, snapshot, staged }
    }
}

/// A document's log and record.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) log: u64,
    pub(crate) record: Record,
}

/// How a replica stands to a document, as an author and as a peer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Standing {
    /// What is held of its ops.
    pub(crate) head: Head,
    /// The position of the chunk that its newest row in the index of runs points to.
    pub(crate) chunk: u64,
    /// How far its log is held.
    pub(crate) cursor: Option<Cursor>,
    /// What stands of its ops below the horizon.
    pub(crate) base: Head,
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

fn blob<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

pub(crate) fn identity(connection: &Connection) -> Result<Option<Identity>, Fault> {
    let mut statement = connection.prepare_cached("SELECT identity FROM replica")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    match unpack(Key::Identity, blob(row, 0)?) {
        Some(identity) => Ok(Some(identity)),
        None => Fault::damaged("the seal of the identity is broken"),
    }
}

pub(crate) fn documents(connection: &Connection) -> Result<Vec<DocumentId>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT document.log, value, name FROM document
        LEFT JOIN state ON state.log = document.log AND replica = x'' ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    let mut documents = Vec::new();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        found(row, name)?;
        documents.push(name.parse().or_else(|error| Fault::damaged(format_args!("a document's name: {error}")))?);
    }
    Ok(documents)
}

pub(crate) fn find(connection: &Connection, document: &DocumentId) -> Result<Option<Found>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT document.log, value FROM document
        LEFT JOIN state ON state.log = document.log AND replica = x'' WHERE name = ?1",
    )?;
    let mut rows = statement.query([document.as_str()])?;
    rows.next()?.map(|row| found(row, document.as_str())).transpose()
}

fn found(row: &Row<'_>, name: &str) -> Result<Found, Fault> {
    let log = number(row, 0)?;
    match unpack(Key::Record(log, name), row.get_ref(1)?.as_blob().unwrap_or_default()) {
        Some(record) => Ok(Found { log, record }),
        None => Fault::damaged(format_args!("the record of document {name} is missing, or its seal is broken")),
    }
}

/// The state of a document.
pub(crate) fn document(connection: &Connection, document: &DocumentId) -> Result<StoredDocument, Fault> {
    match find(connection, document)? {
        None => Ok(StoredDocument::default()),
        Some(found) => Ok(found.record.stored(heads(connection, &found)?)),
    }
}

fn heads(connection: &Connection, found: &Found) -> Result<Heads, Fault> {
    authors(connection, found, |_, _| {})
}

/// Shows the standings of all authors, of whom none is missing, and gives their heads.
pub(crate) fn authors(
    connection: &Connection,
    found: &Found,
    mut show: impl FnMut(ReplicaId, Standing),
) -> Result<Heads, Fault> {
    let mut heads = Heads::new();
    standings(connection, found.log, |replica, standing| {
        if standing.head != Head::NONE {
            heads.set(replica, standing.head);
            show(replica, standing);
        }
    })?;
    if heads.digest() != found.record.digest {
        return Fault::damaged("heads of a document are missing");
    }
    Ok(heads)
}

/// Shows the standings of all replicas in a document.
pub(crate) fn standings(
    connection: &Connection,
    log: u64,
    mut show: impl FnMut(ReplicaId, Standing),
) -> Result<(), Fault> {
    let mut statement =
        connection.prepare_cached("SELECT value, replica FROM state WHERE log = ?1 AND replica > x''")?;
    let mut rows = statement.query([log as i64])?;
    while let Some(row) = rows.next()? {
        let replica = row.get(1).map(ReplicaId)?;
        show(replica, unpack_standing(row, log, replica)?);
    }
    Ok(())
}

/// How far the logs of all peers are held in a document.
pub(crate) fn cursors(connection: &Connection, document: &DocumentId) -> Result<Vec<(ReplicaId, Cursor)>, Fault> {
    let mut cursors = Vec::new();
    if let Some(Found { log, .. }) = find(connection, document)? {
        standings(connection, log, |peer, standing| cursors.extend(standing.cursor.map(|cursor| (peer, cursor))))?;
    }
    Ok(cursors)
}

/// The standing of a replica in a document.
pub(crate) fn standing(connection: &Connection, log: u64, replica: ReplicaId) -> Result<Standing, Fault> {
    let mut statement = connection.prepare_cached("SELECT value FROM state WHERE log = ?1 AND replica = ?2")?;
    let mut rows = statement.query((log as i64, replica.0))?;
    rows.next()?.map_or_else(|| Ok(Standing::default()), |row| unpack_standing(row, log, replica))
}

fn unpack_standing(row: &Row<'_>, log: u64, replica: ReplicaId) -> Result<Standing, Fault> {
    unpack(Key::Standing(log, replica), blob(row, 0)?)
        .map_or_else(|| Fault::damaged("the seal of a head or cursor is broken"), Ok)
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

/// A document's entries from position `from` on, of at most `max_cost` but at least one; none below the horizon.
pub(crate) fn entries(
    connection: &Connection,
    document: &DocumentId,
    from: u64,
    max_cost: u64,
) -> Result<Vec<Entry>, Fault> {
    let mut collected = Collected::new(max_cost);
    if let Some(Found { log, record }) = find(connection, document)?
        && from >= record.horizon
    {
        read(connection, log, from, record.tail, &mut collected)?;
    }
    Ok(collected.entries)
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

/// The position of the chunk in which an entry stands that is held.
pub(crate) fn chunk_of(connection: &Connection, log: u64, position: u64) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached("SELECT max(key) FROM chunk WHERE key BETWEEN ?1 AND ?2")?;
    let bounds = (key(log, 0) as i64, key(log, position) as i64);
    let found: Option<i64> = statement.query_row(bounds, |row| row.get(0))?;
    found.map_or_else(
        || Fault::damaged(format_args!("entries from position {position} on are missing")),
        |found| Ok(found as u64 - key(log, 0)),
    )
}

/// Shows a log's chunks from that at position `first` on, as long as that says so.
pub(crate) fn chunks(
    connection: &Connection,
    log: u64,
    first: u64,
    mut show: impl FnMut(u64, &Chunk) -> bool,
) -> Result<(), Fault> {
    let mut statement =
        connection.prepare_cached("SELECT key, entries FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key")?;
    let mut rows = statement.query((key(log, first) as i64, key(log, POSITION_MAX) as i64))?;
    while let Some(row) = rows.next()? {
        let (first, chunk) = chunk_row(row, log)?;
        if !show(first, &chunk) {
            break;
        }
    }
    Ok(())
}

/// The position of a chunk, and the chunk.
pub(crate) fn chunk_row(row: &Row<'_>, log: u64) -> Result<(u64, Chunk), Fault> {
    let key = number(row, 0)?;
    let chunk = Chunk::open(key, blob(row, 1)?);
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
        let piece = blob(row, 0)?;
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
            let from = shelf.first + place.saturating_sub(shelf.place);
            read(connection, shelf.log, from, shelf.first + shelf.len, collected)?;
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
