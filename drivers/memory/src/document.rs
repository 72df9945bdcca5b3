//! What stands on a simulated disk, and how the last writes are taken back.

use std::collections::BTreeMap;
use std::mem;

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::storage::{Batch, Identity, StoredDocument, Transaction};
use antiphon::timeline::TimelineRecord;

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
    /// Position by position, from 0: nothing is compacted here.
    pub(crate) entries: Vec<Entry>,
    /// Place by place, from 0, until the last of them is dealt with.
    pub(crate) aside: Vec<Entry>,
    pub(crate) cursors: BTreeMap<ReplicaId, Cursor>,
    /// Of each author, the positions of its ops: that of seq 1 first.
    positions: BTreeMap<ReplicaId, Vec<u64>>,
}

/// How to take a write back. Kept while the write is not synced, so that a loss of power costs what was lost and not a
/// copy of the disk at each sync.
#[derive(Debug)]
pub(crate) enum Undo {
    Identity(Option<Identity>),
    /// The last of the documents was made.
    Made(DocumentId),
    /// A document was reset: this is what it was.
    Reset(usize, Box<Document>),
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
            Transaction::Reset { document: id, timeline } => match self.index.get(id) {
                Some(&slot) => {
                    let after = self.slots[slot].reset(*timeline);
                    Ok(Undo::Reset(slot, Box::new(mem::replace(&mut self.slots[slot], after))))
                }
                None => Ok(self.make(id, Document::default().reset(*timeline))),
            },
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
            Undo::Reset(slot, document) => self.slots[slot] = *document,
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
        let positions = self.positions.entry(id.author).or_default();
        let chain = positions.last().map_or(Chain::EMPTY, |last| self.entries[*last as usize].chain);
        let next = Head { seq: positions.len() as u64, chain }.then(entry.op.body.hash());
        if id.seq != next.seq {
            return Err(StorageError::NotNext { document: document.clone(), id, next: next.seq });
        }
        if entry.chain != next.chain {
            return Err(StorageError::WrongChain { document: document.clone(), id });
        }
        positions.push(self.entries.len() as u64);
        self.entries.push(entry.clone());
        Ok(())
    }

    /// Takes the entries from `tail` on away.
    fn truncate(&mut self, tail: u64) {
        for entry in self.entries.drain(tail as usize..).rev() {
            if let Some(positions) = self.positions.get_mut(&entry.op.id.author) {
                positions.pop();
            }
        }
        self.positions.retain(|_, positions| !positions.is_empty());
    }

    fn undo(&mut self, before: Before) {
        let Before { tail, timelines, cursors, salvage } = before;
        let authors: Vec<_> = self.entries[tail as usize..].iter().map(|entry| entry.op.id.author).collect();
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

    fn head(&self, author: ReplicaId) -> Head {
        let positions = self.positions.get(&author).map_or(&[][..], Vec::as_slice);
        let Some(last) = positions.last() else { return Head::NONE };
        Head { seq: positions.len() as u64, chain: self.entries[*last as usize].chain }
    }

    pub(crate) fn chain(&self, id: OpId) -> Option<Chain> {
        let index = usize::try_from(id.seq.checked_sub(1)?).ok()?;
        let position = self.positions.get(&id.author)?.get(index)?;
        Some(self.entries[*position as usize].chain)
    }

    /// By the index: linear in the authors, not in the log.
    pub(crate) fn compare(&self, heads: &Heads) -> Comparison {
        let mut from = self.state.tail;
        let mut forks = Vec::new();
        for (author, positions) in &self.positions {
            let theirs = heads.get(*author);
            if self.chain(OpId { author: *author, seq: theirs.seq }).is_some_and(|chain| chain != theirs.chain) {
                forks.push(*author);
            }
            if let Some(first_lacking) = usize::try_from(theirs.seq).ok().and_then(|seq| positions.get(seq)) {
                from = from.min(*first_lacking);
            }
        }
        Comparison { from, forks }
    }
}
