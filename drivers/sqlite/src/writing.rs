//! Writing: judged first, by reading alone, and only then carried out. So a write that is refused has changed nothing,
//! and one that fails half-way has failed for a reason that is not its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use antiphon::heads::{Head, Heads};
use antiphon::op::{DocumentId, OpId, ReplicaId};
use antiphon::storage::{Batch, Identity, Transaction};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;
use rusqlite::Connection;

use crate::chunk::{BODY_WITHIN_MAX, Filling};
use crate::compaction::{self, Compact, Stage};
use crate::error::{Fault, Refusal};
use crate::reading::{self, Found, LOG_MAX, POSITION_BITS, POSITION_MAX, Record, Shelf, Standing, key};
use crate::seal::{Key, pack};
use crate::snapshot::{self, Kept};

/// The largest piece of a body that stands apart. This much of it is in memory a second time when it is written.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Rows to write.
#[derive(Debug)]
pub(crate) enum Plan<'a> {
    Identity(&'a Identity),
    Append(Box<Append<'a>>),
    Anew(Box<Anew<'a>>),
    Compact(Box<Compact<'a>>),
    Stage(Box<Stage<'a>>),
}

/// The rows of a batch.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    document: &'a DocumentId,
    is_new: bool,
    after: Found,
    standings: Vec<(ReplicaId, Standing)>,
    chunks: Vec<Filling>,
    /// Rows of the index of runs: whose ops, from which on, are in which chunk.
    runs: Vec<(OpId, u64)>,
    /// Bodies that stand apart, by position.
    apart: Vec<(u64, &'a Bytes)>,
    /// Logs that were put aside and are dealt with.
    dropped: Vec<Shelf>,
}

/// Judges a write.
pub(crate) fn plan<'a>(connection: &Connection, transaction: &'a Transaction) -> Result<Plan<'a>, Fault> {
    match transaction {
        Transaction::Identity(identity) => Ok(Plan::Identity(identity)),
        Transaction::Append(batch) => Ok(Plan::Append(plan_append(connection, batch)?.into())),
        Transaction::Reset { document, timeline } => {
            let found = reading::find(connection, document)?;
            Ok(Plan::Anew(Anew::plan(connection, document, found, *timeline, None)?.into()))
        }
        Transaction::Install { document, timeline } => {
            let found = reading::find(connection, document)?;
            let installed = Some(compaction::judge_staged(connection, document, found.as_ref())?);
            Ok(Plan::Anew(Anew::plan(connection, document, found, *timeline, installed)?.into()))
        }
        Transaction::Compact { document, horizon, body } => {
            Ok(Plan::Compact(Compact::plan(connection, document, *horizon, body)?.into()))
        }
        Transaction::Stage { document, id, offset, bytes } => {
            Ok(Plan::Stage(Stage::plan(connection, document, *id, *offset, bytes)?.into()))
        }
    }
}

fn plan_append<'a>(connection: &Connection, batch: &'a Batch) -> Result<Append<'a>, Fault> {
    let document = &batch.document;
    let found = reading::find(connection, document)?;
    let is_new = found.is_none();
    let Found { log, mut record } = match found {
        Some(found) => found,
        None => Found { log: next_log(connection, document)?, record: Record::default() },
    };
    if !batch.goes_on(record.tail, record.timelines.last()) {
        let (document, position, tail) = (document.clone(), batch.position, record.tail);
        return Err(Fault::Refused(Refusal::WrongPosition { document, position, tail }));
    }
    if batch.tail() > POSITION_MAX {
        return Err(Fault::Refused(Refusal::Uncountable { document: document.clone() }));
    }

    let mut replicas = Replicas { connection, log, known: BTreeMap::new() };
    for (peer, cursor) in &batch.cursors {
        replicas.get(*peer)?.now.cursor = Some(*cursor);
    }
    let (mut chunks, mut runs, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    if record.tail > record.horizon && !batch.entries.is_empty() {
        let sealed = reading::sealed_chunk(connection, log, record.last)?;
        let last = Filling::resume(key(log, record.last), record.last, &sealed);
        match last.filter(|last| last.tail() == record.tail) {
            Some(last) => chunks.push(last),
            None => return Fault::damaged(format_args!("the last entries of document {document} are not to be read")),
        }
    }
    for (position, entry) in (batch.position..).zip(&batch.entries) {
        let hash = entry.op.body.hash();
        let author = replicas.get(entry.op.id.author)?;
        let (before, next) = (author.now.head, author.now.head.then(hash));
        judge(document, entry.op.id, Head { seq: entry.op.id.seq, chain: entry.chain }, next)?;
        if !chunks.last_mut().is_some_and(|chunk| chunk.push(entry, before, hash)) {
            let mut chunk = Filling::new(position);
            chunk.push(entry, before, hash);
            chunks.push(chunk);
        }
        let chunk = chunks.last().map_or(position, |chunk| chunk.first);
        if before == Head::NONE || author.now.chunk != chunk {
            runs.push((entry.op.id, chunk));
        }
        (author.now.head, author.now.chunk) = (next, chunk);
        if let Some(bytes) = entry.op.body.bytes().filter(|bytes| bytes.len() > BODY_WITHIN_MAX) {
            apart.push((position, bytes));
        }
    }
    // The chunk that was the last may have had no room.
    chunks.retain(|chunk| chunk.tail() > batch.position);

    let before: Heads = replicas.known.iter().map(|(author, known)| (*author, known.before)).collect();
    let mut state = record.stored(before.clone());
    state.append(batch);
    record.digest = record.digest.wrapping_sub(before.digest()).wrapping_add(state.heads.digest());
    record.last = chunks.last().map_or(record.last, |chunk| chunk.first);
    (record.tail, record.timelines, record.aside) = (state.tail, state.timelines, state.aside);
    let dropped = if record.aside.is_none() { std::mem::take(&mut record.shelves) } else { Vec::new() };
    let standings = replicas.known.into_iter().map(|(replica, known)| (replica, known.now)).collect();
    let after = Found { log, record };
    Ok(Append { document, is_new, after, standings, chunks, runs, apart, dropped })
}

/// Whether an op, with its seq and chain, is its author's `next`.
fn judge(document: &DocumentId, id: OpId, op: Head, next: Head) -> Result<(), Fault> {
    let document = || document.clone();
    if op.seq != next.seq {
        return Err(Fault::Refused(Refusal::NotNext { document: document(), id, next: next.seq }));
    }
    if op.chain != next.chain {
        return Err(Fault::Refused(Refusal::WrongChain { document: document(), id }));
    }
    Ok(())
}

/// The replicas that a batch has to do with.
struct Replicas<'c> {
    connection: &'c Connection,
    log: u64,
    known: BTreeMap<ReplicaId, Known>,
}

struct Known {
    before: Head,
    now: Standing,
}

impl Replicas<'_> {
    fn get(&mut self, replica: ReplicaId) -> Result<&mut Known, Fault> {
        match self.known.entry(replica) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let now = reading::standing(self.connection, self.log, replica)?;
                Ok(unknown.insert(Known { before: now.head, now }))
            }
        }
    }
}

/// The rows of a document that starts anew: empty, or from a snapshot.
#[derive(Debug)]
pub(crate) struct Anew<'a> {
    document: &'a DocumentId,
    before: Option<u64>,
    after: Found,
    standings: Vec<(ReplicaId, Standing)>,
    /// Snapshots that are gone.
    dropped: Vec<Kept>,
}

impl<'a> Anew<'a> {
    fn plan(
        connection: &Connection,
        document: &'a DocumentId,
        found: Option<Found>,
        timeline: TimelineRecord,
        installed: Option<Heads>,
    ) -> Result<Self, Fault> {
        let before = found.as_ref().map(|found| found.log);
        let (log, record) = found.map_or((0, Record::default()), |found| (found.log, found.record));
        let mut shelves = record.shelves.clone();
        let len = record.tail - record.horizon;
        if len > 0 {
            let place = record.aside.map_or(0, |(from, _)| from);
            shelves.iter_mut().for_each(|shelf| shelf.place += len);
            shelves.insert(0, Shelf { log, place, len, first: record.horizon });
        }
        let state = record.stored(Heads::new());
        let (state, kept, dropped) = match installed {
            None => (state.reset(timeline), None, [record.snapshot, record.staged]),
            Some(heads) => (state.install(timeline, heads), record.staged, [record.snapshot, None]),
        };
        let standing = |(author, head)| (author, Standing { head, base: head, ..Standing::default() });
        let record = Record {
            tail: state.tail,
            digest: state.heads.digest(),
            forgotten: state.forgotten,
            timelines: state.timelines,
            aside: state.aside,
            shelves,
            horizon: state.horizon,
            snapshot: kept,
            ..Record::default()
        };
        Ok(Self {
            document,
            before,
            after: Found { log: next_log(connection, document)?, record },
            standings: state.heads.iter().map(standing).collect(),
            dropped: dropped.into_iter().flatten().collect(),
        })
    }

    fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(before) = self.before {
            for table in ["state", "run", "document"] {
                let mut statement = connection.prepare_cached(&format!("DELETE FROM {table} WHERE log = ?1"))?;
                statement.execute([before as i64])?;
            }
        }
        insert(connection, self.document, &self.after)?;
        put_standings(connection, self.after.log, &self.standings)?;
        self.dropped.iter().try_for_each(|kept| snapshot::drop(connection, kept.number))
    }
}

/// The number for another log: above those of all documents, and of what is put aside.
pub(crate) fn next_log(connection: &Connection, document: &DocumentId) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT max(ifnull((SELECT max(log) FROM document), 0), ifnull((SELECT max(key) FROM chunk) >> ?1, 0))",
    )?;
    let last: i64 = statement.query_row([POSITION_BITS], |row| row.get(0))?;
    let next = last as u64 + 1;
    if next > LOG_MAX {
        return Err(Fault::Refused(Refusal::Uncountable { document: document.clone() }));
    }
    Ok(next)
}

impl Plan<'_> {
    /// Writes the rows.
    pub(crate) fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Identity(identity) => {
                let mut statement =
                    connection.prepare_cached("INSERT OR REPLACE INTO replica (id, identity) VALUES (1, ?1)")?;
                statement.execute([pack(Key::Identity, identity)]).map(drop)
            }
            Self::Append(append) => append.carry_out(connection),
            Self::Anew(anew) => anew.carry_out(connection),
            Self::Compact(compact) => compact.carry_out(connection),
            Self::Stage(stage) => stage.carry_out(connection),
        }
    }
}

pub(crate) fn insert(connection: &Connection, document: &DocumentId, found: &Found) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO document (log, name) VALUES (?1, ?2)")?;
    statement.execute((found.log as i64, document.as_str()))?;
    put_record(connection, document, found)
}

pub(crate) fn put_record(connection: &Connection, document: &DocumentId, found: &Found) -> rusqlite::Result<()> {
    let Found { log, record } = found;
    put_state(connection, *log, &[], pack(Key::Record(*log, document.as_str()), record))
}

pub(crate) fn put_standings(
    connection: &Connection,
    log: u64,
    standings: &[(ReplicaId, Standing)],
) -> rusqlite::Result<()> {
    standings.iter().try_for_each(|(replica, standing)| {
        put_state(connection, log, &replica.0, pack(Key::Standing(log, *replica), standing))
    })
}

fn put_state(connection: &Connection, log: u64, replica: &[u8], value: Vec<u8>) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO state (log, replica, value) VALUES (?1, ?2, ?3)")?;
    statement.execute((log as i64, replica, value)).map(drop)
}

impl Append<'_> {
    fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        let log = self.after.log;
        if self.is_new {
            insert(connection, self.document, &self.after)?;
        } else {
            put_record(connection, self.document, &self.after)?;
        }
        put_standings(connection, log, &self.standings)?;
        for chunk in &self.chunks {
            let key = key(log, chunk.first);
            let mut statement =
                connection.prepare_cached("INSERT OR REPLACE INTO chunk (key, entries) VALUES (?1, ?2)")?;
            statement.execute((key as i64, chunk.finish(key)))?;
        }
        for (id, chunk) in &self.runs {
            let mut statement =
                connection.prepare_cached("INSERT INTO run (log, author, seq, chunk) VALUES (?1, ?2, ?3, ?4)")?;
            statement.execute((log as i64, id.author.0, id.seq as i64, key(log, *chunk) as i64))?;
        }
        for (position, bytes) in &self.apart {
            let mut statement =
                connection.prepare_cached("INSERT INTO piece (key, number, bytes) VALUES (?1, ?2, ?3)")?;
            for (number, piece) in (0_i64..).zip(bytes.chunks(PIECE_BYTES)) {
                statement.execute((key(log, *position) as i64, number, piece))?;
            }
        }
        for shelf in &self.dropped {
            for table in ["chunk", "piece"] {
                let delete = format!("DELETE FROM {table} WHERE key BETWEEN ?1 AND ?2");
                let mut statement = connection.prepare_cached(&delete)?;
                statement.execute((key(shelf.log, 0) as i64, key(shelf.log, POSITION_MAX) as i64))?;
            }
        }
        Ok(())
    }
}
