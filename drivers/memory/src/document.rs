//! What stands on a simulated disk, and how the last writes are taken back.

use std::collections::BTreeMap;
use std::mem;

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::snapshot::{Inspection, Snapshot, SnapshotId};
use antiphon::storage::{Batch, Identity, Staged, StoredDocument, Transaction, from_on};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;

use crate::storage::StorageError;

/// All that a disk holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) identity: Option<Identity>,
    /// Where each document stands in `slots`.
    index: BTreeMap<DocumentId, usize>,
    slots: Vec<Document>,
}

/// One document: what the storage trait tells of it, and the entries with an index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) state: StoredDocument,
    /// Position by position, from the horizon on.
    pub(crate) entries: Vec<Entry>,
    /// What stands below the horizon.
    snapshot: Option<Snapshot>,
    /// The pieces of the snapshot that is coming.
    staged: Vec<Bytes>,
    /// Place by place, from 0, until the last of them is dealt with.
    pub(crate) aside: Vec<Entry>,
    pub(crate) cursors: BTreeMap<ReplicaId, Cursor>,
    /// Of each author, the positions of its ops: first that of the first one above the horizon.
    positions: BTreeMap<ReplicaId, Vec<u64>>,
}

/// How to take a write back. Kept while the write is not synced, so that a loss of power costs what was lost and not a
/// copy of the disk at each sync.
#[derive(Debug)]
pub(crate) enum Undo {
    Identity(Option<Identity>),
    /// The last of the documents was made.
    Made(DocumentId),
    /// A document was reset or compacted, or a snapshot installed: this is what it was.
    Replaced(usize, Box<Document>),
    /// A piece of a snapshot came: what was staged before, and the pieces that it took the place of.
    Staged(usize, Option<Staged>, Option<Vec<Bytes>>),
    Append(usize, Before),
}

/// What an append changed and the entries themselves don't tell.
#[derive(Debug)]
pub(crate) struct Before {
    tail: u64,
    /// As they were, if one began.
    timelines: Option<Vec<TimelineRecord>>,
    cursors: Vec<(ReplicaId, Option<Cursor>)>,
    salvage: Option<Box<Salvage>>,
}

#[derive(Debug)]
struct Salvage {
    aside: Option<(u64, u64)>,
    dropped: Vec<Entry>,
}

impl Contents {
    /// Carries a write out. If it is refused, nothing has changed.
    pub(crate) fn write(&mut self, transaction: &Transaction) -> Result<Undo, StorageError> {
        match transaction {
            Transaction::Identity(identity) => Ok(Undo::Identity(self.identity.replace(identity.clone()))),
            Transaction::Append(batch) => match self.index.get(&batch.document) {
                Some(&slot) => Ok(Undo::Append(slot, self.slots[slot].append(batch)?)),
                None => {
                    let mut document = Document::default();
                    document.append(batch)?;
                    Ok(self.make(&batch.document, document))
                }
            },
            Transaction::Reset { document, timeline } => self.replace(document, |before| Ok(before.reset(*timeline))),
            Transaction::Compact { document, horizon, body } => {
                self.replace(document, |before| before.compact(document, *horizon, body))
            }
            Transaction::Install { document, timeline } => {
                self.replace(document, |before| before.install(document, *timeline))
            }
            Transaction::Stage { document: id, id: snapshot, offset, bytes } => match self.index.get(id) {
                Some(&slot) => {
                    let (before, pieces) = self.slots[slot].stage(id, *snapshot, *offset, bytes)?;
                    Ok(Undo::Staged(slot, before, pieces))
                }
                None => {
                    let mut document = Document::default();
                    document.stage(id, *snapshot, *offset, bytes)?;
                    Ok(self.make(id, document))
                }
            },
        }
    }

    fn replace(
        &mut self,
        id: &DocumentId,
        change: impl FnOnce(&Document) -> Result<Document, StorageError>,
    ) -> Result<Undo, StorageError> {
        match self.index.get(id) {
            Some(&slot) => {
                let after = change(&self.slots[slot])?;
                Ok(Undo::Replaced(slot, Box::new(mem::replace(&mut self.slots[slot], after))))
            }
            None => {
                let document = change(&Document::default())?;
                Ok(self.make(id, document))
            }
        }
    }

    fn make(&mut self, id: &DocumentId, document: Document) -> Undo {
        self.index.insert(id.clone(), self.slots.len());
        self.slots.push(document);
        Undo::Made(id.clone())
    }

    pub(crate) fn document(&self, id: &DocumentId) -> Option<&Document> {
        self.index.get(id).map(|slot| &self.slots[*slot])
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &DocumentId> {
        self.index.keys()
    }

    /// Takes back the newest write that was not taken back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Identity(identity) => self.identity = identity,
            Undo::Made(id) => {
                self.index.remove(&id);
                self.slots.pop();
            }
            Undo::Replaced(slot, document) => self.slots[slot] = *document,
            Undo::Staged(slot, before, pieces) => self.slots[slot].unstage(before, pieces),
            Undo::Append(slot, before) => self.slots[slot].undo(before),
        }
    }
}

impl Document {
    fn append(&mut self, batch: &Batch) -> Result<Before, StorageError> {
        let tail = self.state.tail;
        if !batch.goes_on(tail, self.state.timelines.last()) {
            let (document, position) = (batch.document.clone(), batch.position);
            return Err(StorageError::WrongPosition { document, position, tail });
        }
        for entry in &batch.entries {
            if let Err(refused) = self.push(&batch.document, entry) {
                self.truncate(tail);
                return Err(refused);
            }
        }
        let begins = batch.timeline.is_some_and(|record| self.state.timelines.last() != Some(&record));
        let timelines = begins.then(|| self.state.timelines.clone());
        let aside = self.state.aside;
        self.state.append(batch);
        let cursors = batch.cursors.iter().map(|(peer, cursor)| (*peer, self.cursors.insert(*peer, *cursor))).collect();
        let salvage = batch.salvaged.map(|_| {
            let done = self.state.aside.is_none();
            Box::new(Salvage { aside, dropped: if done { mem::take(&mut self.aside) } else { Vec::new() } })
        });
        Ok(Before { tail, timelines, cursors, salvage })
    }

    /// Appends an entry that is its author's next. The state does not tell of it yet.
    fn push(&mut self, document: &DocumentId, entry: &Entry) -> Result<(), StorageError> {
        let id = entry.op.id;
        let next = self.head(id.author).then(entry.op.body.hash());
        if id.seq != next.seq {
            return Err(StorageError::NotNext { document: document.clone(), id, next: next.seq });
        }
        if entry.chain != next.chain {
            return Err(StorageError::WrongChain { document: document.clone(), id });
        }
        let position = self.state.horizon + self.entries.len() as u64;
        self.positions.entry(id.author).or_default().push(position);
        self.entries.push(entry.clone());
        Ok(())
    }

    /// Where the entry at a position stands.
    fn index(&self, position: u64) -> usize {
        (position - self.state.horizon) as usize
    }

    /// Takes the entries from `tail` on away.
    fn truncate(&mut self, tail: u64) {
        for entry in self.entries.split_off(self.index(tail)).iter().rev() {
            if let Some(positions) = self.positions.get_mut(&entry.op.id.author) {
                positions.pop();
            }
        }
        self.positions.retain(|_, positions| !positions.is_empty());
    }

    fn undo(&mut self, before: Before) {
        let Before { tail, timelines, cursors, salvage } = before;
        let authors: Vec<_> = self.entries[self.index(tail)..].iter().map(|entry| entry.op.id.author).collect();
        self.truncate(tail);
        for author in authors {
            let head = self.head(author);
            self.state.heads.set(author, head);
        }
        self.state.tail = tail;
        if let Some(timelines) = timelines {
            self.state.timelines = timelines;
        }
        for (peer, cursor) in cursors.into_iter().rev() {
            match cursor {
                Some(cursor) => self.cursors.insert(peer, cursor),
                None => self.cursors.remove(&peer),
            };
        }
        if let Some(salvage) = salvage {
            self.state.aside = salvage.aside;
            if self.aside.is_empty() {
                self.aside = salvage.dropped;
            }
        }
    }

    fn reset(&self, timeline: TimelineRecord) -> Self {
        let from = self.state.aside.map_or(0, |(from, _)| from);
        let (dealt_with, left) = self.aside.split_at(from as usize);
        let aside = dealt_with.iter().chain(&self.entries).chain(left).cloned().collect();
        Self { state: self.state.reset(timeline), aside, ..Self::default() }
    }

    // ---------------------------------------------------------------------------------------- snapshots

    fn compact(&self, id: &DocumentId, horizon: u64, body: &Bytes) -> Result<Self, StorageError> {
        if horizon <= self.state.horizon || horizon > self.state.tail {
            return Err(StorageError::WrongHorizon { document: id.clone(), horizon, tail: self.state.tail });
        }
        let (below, above) = self.entries.split_at(self.index(horizon));
        let mut heads = self.base();
        heads.extend(below);
        let snapshot = Snapshot::new(heads, body.clone());
        let mut after = Self { entries: above.to_vec(), positions: BTreeMap::new(), ..self.clone() };
        for (position, entry) in (horizon..).zip(above) {
            after.positions.entry(entry.op.id.author).or_default().push(position);
        }
        (after.state.horizon, after.state.snapshot) = (horizon, Some(snapshot.id()));
        after.snapshot = Some(snapshot);
        Ok(after)
    }

    /// What was staged before, and the pieces of it that are gone.
    fn stage(
        &mut self,
        document: &DocumentId,
        id: SnapshotId,
        offset: u64,
        bytes: &Bytes,
    ) -> Result<(Option<Staged>, Option<Vec<Bytes>>), StorageError> {
        let before = self.state.staged;
        let staged = before.filter(|staged| staged.id == id).map_or(0, |staged| staged.bytes);
        let to = offset + bytes.len() as u64;
        if offset > 0 && offset != staged || to > id.bytes {
            return Err(StorageError::WrongOffset { document: document.clone(), offset, staged });
        }
        let pieces = (offset == 0).then(|| mem::take(&mut self.staged));
        self.staged.push(bytes.clone());
        self.state.staged = Some(Staged { id, bytes: to });
        Ok((before, pieces))
    }

    fn unstage(&mut self, before: Option<Staged>, pieces: Option<Vec<Bytes>>) {
        self.state.staged = before;
        match pieces {
            Some(pieces) => self.staged = pieces,
            None => _ = self.staged.pop(),
        }
    }

    fn install(&self, document: &DocumentId, timeline: TimelineRecord) -> Result<Self, StorageError> {
        let spoiled = || StorageError::BadSnapshot { document: document.clone() };
        let Staged { id, .. } = self.state.staged.ok_or_else(spoiled)?;
        let mut inspection = Inspection::new(id);
        self.staged.iter().for_each(|piece| inspection.update(piece));
        let heads = inspection.finish().map_err(|_| spoiled())?;
        if !heads.cover(&self.base()) {
            return Err(spoiled());
        }
        let body = self.staged.concat().split_off(id.head_bytes as usize);
        let snapshot = Some(Snapshot::new(heads.clone(), body.into()));
        Ok(Self { state: self.state.install(timeline, heads), snapshot, ..self.reset(timeline) })
    }

    pub(crate) fn snapshot(&self, id: SnapshotId, offset: u64, max: u64) -> Bytes {
        let snapshot = self.snapshot.as_ref().filter(|snapshot| snapshot.id() == id);
        snapshot.map(|snapshot| snapshot.read(offset, max)).unwrap_or_default()
    }

    // ---------------------------------------------------------------------------------------- looking things up

    pub(crate) fn read(&self, from: u64, max_cost: u64) -> Vec<Entry> {
        match from.checked_sub(self.state.horizon) {
            Some(from) => from_on(&self.entries, from, max_cost),
            None => Vec::new(), // that exists only in the snapshot
        }
    }

    /// The heads at the horizon.
    fn base(&self) -> Heads {
        self.snapshot.as_ref().map(|snapshot| snapshot.heads().clone()).unwrap_or_default()
    }

    fn base_head(&self, author: ReplicaId) -> Head {
        self.snapshot.as_ref().map_or(Head::NONE, |snapshot| snapshot.heads().get(author))
    }

    fn head(&self, author: ReplicaId) -> Head {
        let base = self.base_head(author);
        let positions = self.positions.get(&author).map_or(&[][..], Vec::as_slice);
        let Some(last) = positions.last() else { return base };
        Head { seq: base.seq + positions.len() as u64, chain: self.entries[self.index(*last)].chain }
    }

    pub(crate) fn chain(&self, id: OpId) -> Option<Chain> {
        let base = self.base_head(id.author);
        if id.seq == base.seq {
            return (id.seq > 0).then_some(base.chain);
        }
        let index = usize::try_from(id.seq.checked_sub(base.seq + 1)?).ok()?;
        let position = self.positions.get(&id.author)?.get(index)?;
        Some(self.entries[self.index(*position)].chain)
    }

    /// By the index: linear in the authors, not in the log.
    pub(crate) fn compare(&self, heads: &Heads) -> Comparison {
        let mut comparison = Comparison::new(self.state.tail);
        for (author, positions) in &self.positions {
            let theirs = heads.get(*author);
            let base = self.base_head(*author);
            let above = theirs.seq > base.seq;
            if above && self.chain(OpId { author: *author, seq: theirs.seq }).is_some_and(|chain| chain != theirs.chain)
            {
                comparison.forks.push(*author);
            }
            let lacking = usize::try_from(theirs.seq.saturating_sub(base.seq)).ok();
            if let Some(first_lacking) = lacking.and_then(|index| positions.get(index)) {
                comparison.from = comparison.from.min(*first_lacking);
            }
        }
        comparison.scan_snapshot(&self.base(), heads);
        comparison
    }
}
