//! A disk as a value: what a state of the world holds of it can be cloned and hashed.

use std::collections::BTreeMap;
use std::fmt;

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Heads, Judgement};
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::snapshot::{Inspection, Snapshot, SnapshotId};
use antiphon::storage::{Batch, Identity, Staged, Storage, StoredDocument, Transaction, from_on};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;

/// A storage that is a value. What is written survives the process; a loss of power only what is synced.
#[derive(Clone, Debug, Default, Hash)]
pub struct Disk {
    contents: Contents,
    /// What a loss of power leaves, and the writes since; `None`: each write is synced by itself.
    journal: Option<Box<Journal>>,
}

#[derive(Clone, Debug, Default, Hash)]
struct Journal {
    base: Contents,
    writes: Vec<Transaction>,
}

#[derive(Clone, Debug, Default, Hash)]
struct Contents {
    identity: Option<Identity>,
    documents: BTreeMap<DocumentId, Document>,
}

#[derive(Clone, Debug, Default, Hash)]
struct Document {
    state: StoredDocument,
    /// Position by position, from the horizon on.
    entries: Vec<Entry>,
    /// What stands for those below.
    snapshot: Option<Snapshot>,
    /// The bytes of the snapshot that is coming.
    staged: Vec<u8>,
    /// Place by place, from 0.
    aside: Vec<Entry>,
    cursors: BTreeMap<ReplicaId, Cursor>,
}

impl Disk {
    /// An empty disk on which each write is synced.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk that loses with its power what was not synced.
    pub fn unsynced() -> Self {
        Self { contents: Contents::default(), journal: Some(Box::default()) }
    }

    /// How many writes are not synced.
    pub fn writes_unsynced(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.writes.len())
    }

    /// The power fails: of what is not synced only the first `keep` writes stay.
    pub fn lose_power(&mut self, keep: usize) {
        let Some(journal) = &mut self.journal else { return };
        for write in journal.writes.drain(..).take(keep) {
            // What was carried out once can be carried out again.
            let _ = journal.base.write(&write);
        }
        self.contents = journal.base.clone();
    }

    /// The entries of a document's log, from its horizon on.
    pub fn entries(&self, document: &DocumentId) -> &[Entry] {
        self.look(document).map_or(&[], |document| &document.entries)
    }

    /// What is held of a document, per author.
    pub fn heads(&self, document: &DocumentId) -> Heads {
        self.look(document).map_or_else(Heads::new, |document| document.state.heads.clone())
    }

    /// The chain at an op, if it stands in the log or is its author's last below the horizon.
    pub fn chain_at(&self, document: &DocumentId, id: OpId) -> Option<Chain> {
        let base = self.look(document)?.base().get(id.author);
        let in_snapshot = (id.seq > 0 && id.seq == base.seq).then_some(base.chain);
        let entry = self.entries(document).iter().find(|entry| entry.op.id == id);
        in_snapshot.or(entry.map(|entry| entry.chain))
    }

    /// Whether an op with such a body stands in the log, or was put aside by a reset.
    pub fn holds(&self, document: &DocumentId, body: BodyHash) -> bool {
        let all = self.look(document).into_iter().flat_map(|document| document.entries.iter().chain(&document.aside));
        all.into_iter().any(|entry| entry.op.body.hash() == body)
    }

    /// How far the log of a peer is held.
    pub fn cursor_on(&self, document: &DocumentId, peer: ReplicaId) -> Option<Cursor> {
        self.look(document)?.cursors.get(&peer).copied()
    }

    /// Whose disk it is.
    pub fn owner(&self) -> Option<&Identity> {
        self.contents.identity.as_ref()
    }

    fn look(&self, document: &DocumentId) -> Option<&Document> {
        self.contents.documents.get(document)
    }
}

impl Contents {
    fn write(&mut self, transaction: &Transaction) -> Result<(), Refused> {
        match transaction {
            Transaction::Identity(identity) => self.identity = Some(identity.clone()),
            Transaction::Append(batch) => {
                self.documents.get(&batch.document).unwrap_or(&Document::default()).judge(batch)?;
                self.documents.entry(batch.document.clone()).or_default().append(batch);
            }
            Transaction::Reset { document, timeline } => {
                let document = self.documents.entry(document.clone()).or_default();
                *document = document.reset(*timeline);
            }
            Transaction::Compact { document, horizon, body } => {
                self.change(document, |document| document.compact(*horizon, body))?;
            }
            Transaction::Stage { document, id, offset, bytes } => {
                let piece = Staged { id: *id, bytes: *offset };
                self.change(document, |document| document.stage(piece, bytes))?;
            }
            Transaction::Install { document, timeline } => {
                self.change(document, |document| document.install(*timeline))?;
            }
        }
        Ok(())
    }

    /// Puts what `change` makes of a document in its place.
    fn change(
        &mut self,
        id: &DocumentId,
        change: impl FnOnce(&Document) -> Result<Document, Refused>,
    ) -> Result<(), Refused> {
        let after = change(self.documents.get(id).unwrap_or(&Document::default()))?;
        self.documents.insert(id.clone(), after);
        Ok(())
    }
}

impl Document {
    /// Whether a batch may be appended.
    fn judge(&self, batch: &Batch) -> Result<(), Refused> {
        if !batch.goes_on(self.state.tail, self.state.timelines.last()) {
            return Err(Refused(format!(
                "a batch for position {} does not go on where the tail is {}",
                batch.position, self.state.tail
            )));
        }
        let mut heads = self.state.heads.clone();
        for Entry { op, chain, .. } in &batch.entries {
            let next = heads.get(op.id.author).then(op.body.hash());
            match heads.get(op.id.author).judge(op.id.seq) {
                Judgement::Next if next.chain == *chain => heads.set(op.id.author, next),
                Judgement::Next => return Err(Refused(format!("{:?} with a chain that is not its own", op.id))),
                Judgement::Duplicate => return Err(Refused(format!("{:?}, which is there already", op.id))),
                Judgement::Gap => return Err(Refused(format!("{:?}, which leaves a gap", op.id))),
            }
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch) {
        self.state.append(batch);
        self.entries.extend(batch.entries.iter().cloned());
        self.cursors.extend(batch.cursors.iter().copied());
        if self.state.aside.is_none() {
            self.aside.clear();
        }
    }

    /// The heads at the horizon.
    fn base(&self) -> Heads {
        self.snapshot.as_ref().map(|snapshot| snapshot.heads().clone()).unwrap_or_default()
    }

    fn reset(&self, timeline: TimelineRecord) -> Self {
        let from = self.state.aside.map_or(0, |(from, _)| from as usize);
        let mut aside = self.aside.clone();
        aside.splice(from..from, self.entries.iter().cloned());
        Self { state: self.state.reset(timeline), aside, ..Self::default() }
    }

    fn compact(&self, horizon: u64, body: &Bytes) -> Result<Self, Refused> {
        let StoredDocument { horizon: before, tail, .. } = self.state;
        if horizon <= before || horizon > tail {
            return Err(Refused(format!("horizon {horizon}, where {before} is the one before and {tail} the tail")));
        }
        let (mut after, mut heads) = (self.clone(), self.base());
        heads.extend(after.entries.drain(..(horizon - before) as usize).as_slice());
        let snapshot = Snapshot::new(heads, body.clone());
        (after.state.horizon, after.state.snapshot) = (horizon, Some(snapshot.id()));
        after.snapshot = Some(snapshot);
        Ok(after)
    }

    /// Adds what comes after those bytes of a snapshot.
    fn stage(&self, before: Staged, bytes: &Bytes) -> Result<Self, Refused> {
        let Staged { id, bytes: offset } = before;
        let to = offset.saturating_add(bytes.len() as u64);
        if offset > 0 && self.state.staged != Some(before) || to > id.bytes {
            return Err(Refused(format!("a piece of a snapshot for byte {offset}, which does not follow")));
        }
        let mut after = self.clone();
        after.staged.truncate(offset as usize);
        after.staged.extend_from_slice(bytes);
        after.state.staged = Some(Staged { id, bytes: to });
        Ok(after)
    }

    fn install(&self, timeline: TimelineRecord) -> Result<Self, Refused> {
        let refused = || Refused("a snapshot that is not whole, not what it should be, or not far enough".to_owned());
        let Staged { id, .. } = self.state.staged.ok_or_else(refused)?;
        let mut inspection = Inspection::new(id);
        inspection.update(&self.staged);
        let heads = inspection.finish().ok().filter(|heads| heads.cover(&self.base())).ok_or_else(refused)?;
        let body = Bytes::copy_from_slice(&self.staged[id.head_bytes as usize..]);
        let (state, snapshot) = (self.state.install(timeline, heads.clone()), Some(Snapshot::new(heads, body)));
        Ok(Self { state, snapshot, ..self.reset(timeline) })
    }
}

/// A write that would break a log. Nothing has changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk refused {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Storage for Disk {
    type Error = Refused;

    fn identity(&mut self) -> Result<Option<Identity>, Refused> {
        Ok(self.contents.identity.clone())
    }

    fn documents(&mut self) -> Result<Vec<DocumentId>, Refused> {
        Ok(self.contents.documents.keys().cloned().collect())
    }

    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, Refused> {
        Ok(self.look(document).map(|document| document.state.clone()).unwrap_or_default())
    }

    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, Refused> {
        Ok(self.cursor_on(document, peer))
    }

    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Refused> {
        Ok(self.look(document).map_or_else(Vec::new, |document| match from.checked_sub(document.state.horizon) {
            Some(from) => from_on(&document.entries, from, max_cost),
            None => Vec::new(),
        }))
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Refused> {
        Ok(self.look(document).map(|document| from_on(&document.aside, from, max_cost)).unwrap_or_default())
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, Refused> {
        Ok(self.chain_at(document, id))
    }

    fn snapshot(&mut self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Refused> {
        let snapshot = self.look(document).and_then(|document| document.snapshot.as_ref());
        let snapshot = snapshot.filter(|snapshot| snapshot.id() == id);
        Ok(snapshot.map(|snapshot| snapshot.read(offset, max)).unwrap_or_default())
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), Refused> {
        self.contents.write(transaction)?;
        if let Some(journal) = &mut self.journal {
            journal.writes.push(transaction.clone());
        }
        if matches!(transaction, Transaction::Compact { .. }) { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), Refused> {
        if let Some(journal) = &mut self.journal {
            **journal = Journal { base: self.contents.clone(), writes: Vec::new() };
        }
        Ok(())
    }
}
