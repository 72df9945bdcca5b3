//! Snapshots: how their bytes stand in the database, in rows of which never more than one is in memory at a time.

use antiphon::heads::Heads;
use antiphon::op::DocumentId;
use antiphon::snapshot::{Inspection, SnapshotId};
use antiphon::storage::Staged;
use bytes::Bytes;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::reading;
use crate::seal::{Key, seal, unseal};

/// The most bytes of a snapshot in one row.
const ROW_BYTES: usize = 64 << 10;

/// A snapshot that is here, or of which the beginning is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Kept {
    /// What its rows go by. It stays the same when what was staged is installed.
    pub(crate) number: u64,
    pub(crate) id: SnapshotId,
    /// How many of its bytes are here.
    pub(crate) bytes: u64,
}

impl Kept {
    pub(crate) fn staged(self) -> Staged {
        Staged { id: self.id, bytes: self.bytes }
    }
}

/// The number for another snapshot.
pub(crate) fn next_number(connection: &Connection) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached("SELECT ifnull(max(number), 0) + 1 FROM snapshot")?;
    Ok(statement.query_row([], |row| row.get::<_, i64>(0))? as u64)
}

/// Writes bytes of a snapshot, the first of which belongs at `start`.
pub(crate) fn put(connection: &Connection, number: u64, start: u64, bytes: &[u8]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO snapshot (number, start, bytes) VALUES (?1, ?2, ?3)")?;
    // An empty row at the beginning: the number is taken before there are bytes.
    let nothing = (start == 0 && bytes.is_empty()).then_some(bytes);
    let pieces = bytes.chunks(ROW_BYTES).chain(nothing);
    for (start, piece) in (start..).step_by(ROW_BYTES).zip(pieces) {
        let value = seal(Key::Snapshot(number, start), piece.to_vec());
        statement.execute((number as i64, start as i64, value))?;
    }
    Ok(())
}

/// Deletes all bytes of a snapshot.
pub(crate) fn drop(connection: &Connection, number: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("DELETE FROM snapshot WHERE number = ?1")?;
    statement.execute([number as i64]).map(|_| ())
}

/// Bytes of a document's snapshot from `offset` on, at most `max`; none if it has another one.
pub(crate) fn read(
    connection: &Connection,
    document: &DocumentId,
    id: SnapshotId,
    offset: u64,
    max: u64,
) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    let found = reading::find(connection, document)?;
    if let Some(kept) = found.and_then(|found| found.record.snapshot).filter(|kept| kept.id == id) {
        let to = kept.bytes.min(offset.saturating_add(max));
        each(connection, kept, offset, to, |piece| bytes.extend_from_slice(piece))?;
    }
    Ok(bytes.into())
}

/// What a snapshot stands for; `None`: it is not whole, or not what it should be.
pub(crate) fn inspect(connection: &Connection, kept: Kept) -> Result<Option<Heads>, Fault> {
    let mut inspection = Inspection::new(kept.id);
    each(connection, kept, 0, kept.bytes, |piece| inspection.update(piece))?;
    Ok(inspection.finish().ok())
}

/// Shows the bytes from one offset to before another, piece by piece.
fn each(connection: &Connection, kept: Kept, from: u64, to: u64, mut show: impl FnMut(&[u8])) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT start, bytes FROM snapshot
        WHERE number = ?1 AND start >= (SELECT max(start) FROM snapshot WHERE number = ?1 AND start <= ?2)
        ORDER BY start",
    )?;
    let mut offset = from;
    let mut rows = statement.query((kept.number as i64, from.min(to) as i64))?;
    while offset < to {
        let Some(row) = rows.next()? else { return Fault::damaged("bytes of a snapshot are missing") };
        let (start, piece) = piece(row, kept.number)?;
        let Some(rest) = offset.checked_sub(start).and_then(|skipped| piece.get(skipped as usize..)) else {
            return Fault::damaged("bytes of a snapshot are missing");
        };
        let shown = &rest[..rest.len().min((to - offset) as usize)];
        show(shown);
        offset += shown.len() as u64;
    }
    Ok(())
}

/// Where a row's bytes begin, and the bytes.
fn piece<'a>(row: &'a Row<'_>, number: u64) -> Result<(u64, &'a [u8]), Fault> {
    let start = row.get::<_, i64>(0)? as u64;
    let sealed = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    match unseal(Key::Snapshot(number, start), sealed) {
        Some(piece) => Ok((start, piece)),
        None => Fault::damaged("the seal of a snapshot is broken"),
    }
}
