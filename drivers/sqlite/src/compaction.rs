//! Compaction: a snapshot takes the place of a log's beginning, made here or taken from a peer. Judged and carried out as
//! other [writes](crate::writing) are.

use std::collections::BTreeSet;

use antiphon::heads::{Head, Heads};
use antiphon::op::{DocumentId, ReplicaId};
use antiphon::snapshot::{Snapshot, SnapshotId};
use bytes::Bytes;
use rusqlite::Connection;

use crate::error::{Fault, Refusal};
use crate::reading::{self, Found, Record, Standing, key};
use crate::snapshot::{self, Kept};
use crate::writing::{insert, next_log, put_record, put_standings};

/// The heads of a document as they were at a position that is not below the horizon. Of the log only what stands from
/// there on is read, and no more of it than until each author has been met.
pub(crate) fn heads_at(connection: &Connection, found: &Found, position: u64) -> Result<Heads, Fault> {
    let Found { log, record } = found;
    let mut newest = Vec::new();
    let mut heads = reading::authors(connection, found, |author, standing| newest.push((author, standing.chunk)))?;
    if position >= record.tail {
        return Ok(heads);
    }
    let first = reading::chunk_of(connection, *log, position)?;
    // The others have nothing there or above.
    newest.retain(|(_, chunk)| *chunk >= first);
    let mut unmet: BTreeSet<_> = newest.into_iter().map(|(author, _)| author).collect();
    reading::chunks(connection, *log, first, |begins, chunk| {
        for (author, before) in chunk.authors() {
            if unmet.remove(author) {
                heads.set(*author, *before);
            }
        }
        // In the first one, what stands below the position as well.
        for (_, entry) in (begins..position).zip(chunk.entries()) {
            heads.set(entry.id.author, Head { seq: entry.id.seq, chain: entry.chain });
        }
        !unmet.is_empty()
    })?;
    match unmet.first() {
        None => Ok(heads),
        Some(author) => Fault::damaged(format_args!("ops of {author} are not where its standing says")),
    }
}

/// The rows of a compaction.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    document: &'a DocumentId,
    after: Found,
    /// Those of whom more stands below the horizon now.
    standings: Vec<(ReplicaId, Standing)>,
    kept: Kept,
    snapshot: Snapshot,
    dropped: Option<Kept>,
    /// The position of the first chunk that stays. If the horizon is in its midst, it stays as it is.
    first: u64,
}

impl<'a> Compact<'a> {
    pub(crate) fn plan(
        connection: &Connection,
        document: &'a DocumentId,
        horizon: u64,
        body: &Bytes,
    ) -> Result<Self, Fault> {
        let found = reading::find(connection, document)?;
        let (before, tail) = found.as_ref().map_or((0, 0), |Found { record, .. }| (record.horizon, record.tail));
        let Some(found) = found.filter(|_| before < horizon && horizon <= tail) else {
            let document = document.clone();
            return Err(Fault::Refused(Refusal::WrongHorizon { document, horizon, before, tail }));
        };
        let heads = heads_at(connection, &found, horizon)?;
        let mut standings = Vec::new();
        reading::authors(connection, &found, |author, standing| {
            let base = heads.get(author);
            if base != standing.base {
                standings.push((author, Standing { base, ..standing }));
            }
        })?;
        let first = if horizon < tail { reading::chunk_of(connection, found.log, horizon)? } else { tail };
        let snapshot = Snapshot::new(heads, body.clone());
        let SnapshotId { bytes, .. } = snapshot.id();
        let kept = Kept { number: snapshot::next_number(connection)?, id: snapshot.id(), bytes };
        let dropped = found.record.snapshot;
        let after = Found { record: Record { horizon, snapshot: Some(kept), ..found.record }, ..found };
        Ok(Self { document, after, standings, kept, snapshot, dropped, first })
    }

    pub(crate) fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Found { log, record } = &self.after;
        // What goes makes room for what comes, also where there is no more.
        if let Some(dropped) = self.dropped {
            snapshot::drop(connection, dropped.number)?;
        }
        for (table, from) in [("chunk", self.first), ("piece", record.horizon)] {
            let delete = format!("DELETE FROM {table} WHERE key >= ?1 AND key < ?2");
            connection.prepare_cached(&delete)?.execute((key(*log, 0) as i64, key(*log, from) as i64))?;
        }
        let mut statement = connection.prepare_cached("DELETE FROM run WHERE log = ?1 AND chunk < ?2")?;
        statement.execute((*log as i64, key(*log, self.first) as i64))?;
        put_record(connection, self.document, &self.after)?;
        put_standings(connection, *log, &self.standings)?;
        // First the heads, then the body, which is in memory as the app gave it.
        let head_bytes = u64::from(self.kept.id.head_bytes);
        snapshot::put(connection, self.kept.number, 0, &self.snapshot.read(0, head_bytes))?;
        snapshot::put(connection, self.kept.number, head_bytes, self.snapshot.body())
    }
}

/// The rows of a piece of a snapshot that comes from a peer.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    document: &'a DocumentId,
    is_new: bool,
    after: Found,
    number: u64,
    offset: u64,
    bytes: &'a Bytes,
    dropped: Option<Kept>,
}

impl<'a> Stage<'a> {
    pub(crate) fn plan(
        connection: &Connection,
        document: &'a DocumentId,
        id: SnapshotId,
        offset: u64,
        bytes: &'a Bytes,
    ) -> Result<Self, Fault> {
        let found = reading::find(connection, document)?;
        let is_new = found.is_none();
        let before = found.as_ref().and_then(|found| found.record.staged);
        let begun = before.filter(|kept| kept.id == id && kept.bytes == offset && offset > 0);
        let to = offset.saturating_add(bytes.len() as u64);
        if (offset > 0 && begun.is_none()) || to > id.bytes {
            let staged = before.filter(|kept| kept.id == id).map_or(0, |kept| kept.bytes);
            return Err(Fault::Refused(Refusal::WrongOffset { document: document.clone(), offset, staged }));
        }
        let number = begun.map_or_else(|| snapshot::next_number(connection), |kept| Ok(kept.number))?;
        let mut after = match found {
            Some(found) => found,
            None => Found { log: next_log(connection, document)?, record: Record::default() },
        };
        after.record.staged = Some(Kept { number, id, bytes: to });
        let dropped = before.filter(|_| begun.is_none());
        Ok(Self { document, is_new, after, number, offset, bytes, dropped })
    }

    pub(crate) fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        let put = if self.is_new { insert } else { put_record };
        put(connection, self.document, &self.after)?;
        if let Some(dropped) = self.dropped {
            snapshot::drop(connection, dropped.number)?;
        }
        snapshot::put(connection, self.number, self.offset, self.bytes)
    }
}

/// What the snapshot that is staged stands for, if it may be installed.
pub(crate) fn judge_staged(
    connection: &Connection,
    document: &DocumentId,
    found: Option<&Found>,
) -> Result<Heads, Fault> {
    let refused = || Fault::Refused(Refusal::BadSnapshot { document: document.clone() });
    let found = found.ok_or_else(refused)?;
    let heads = snapshot::inspect(connection, found.record.staged.ok_or_else(refused)?)?.ok_or_else(refused)?;
    let mut covers = true;
    reading::authors(connection, found, |author, Standing { base, .. }| covers &= base.seq <= heads.get(author).seq)?;
    if covers { Ok(heads) } else { Err(refused()) }
}
