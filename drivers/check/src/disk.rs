//! A disk as a value: what a state of the world holds of it can be cloned and hashed.

use std::collections::BTreeMap;
use std::fmt;

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Heads, Judgement};
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::storage::{Batch, Identity, Storage, StoredDocument, Transaction, from_on};

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
    /// Position by position, from 0.
    entries: Vec<Entry>,
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

    /// The entries of a document's log.
    pub fn entries(&self, document: &DocumentId) -> &[Entry] {
        self.look(document).map_or(&[], |document| &document.entries)
    }

    /// What is held of a document, per author.
    pub fn heads(&self, document: &DocumentId) -> Heads {
        self.look(document).map_or_else(Heads::new, |document| document.state.heads.clone())
    }

    /// The chain at an op, if it stands in the log.
    pub fn chain_at(&self, document: &DocumentId, id: OpId) -> Option<Chain> {
        self.entries(document).iter().find(|entry| entry.op.id == id).map(|entry| entry.chain)
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
                let from = document.state.aside.map_or(0, |(from, _)| from as usize);
                document.aside.splice(from..from, document.entries.drain(..));
                document.state = document.state.reset(*timeline);
                document.cursors.clear();
            }
        }
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
        Ok(self.look(document).map(|document| from_on(&document.entries, from, max_cost)).unwrap_or_default())
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Refused> {
        Ok(self.look(document).map(|document| from_on(&document.aside, from, max_cost)).unwrap_or_default())
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, Refused> {
        Ok(self.chain_at(document, id))
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), Refused> {
        self.contents.write(transaction)?;
        if let Some(journal) = &mut self.journal {
            journal.writes.push(transaction.clone());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Refused> {
        if let Some(journal) = &mut self.journal {
            **journal = Journal { base: self.contents.clone(), writes: Vec::new() };
        }
        Ok(())
    }
}
