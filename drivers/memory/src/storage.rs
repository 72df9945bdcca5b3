//! A simulated disk: everything written is visible at once, and durable when it was synced.
//!
//! A [`Disk`] is the medium. It stays when its user is gone, is clean or not, and can be made to fail, to lose what
//! was not synced, or to be copied as a backup is. [`MemoryStorage`] is the right to use it, and there is one at a
//! time.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon::digest::Chain;
use antiphon::heads::Heads;
use antiphon::log::Comparison;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Identity, Storage, StoredDocument, Transaction, from_on};
use antiphon::wire::Durability;
use bytes::Bytes;

use crate::document::{Contents, Document, Undo};

/// The medium of a [`MemoryStorage`]. Clones are the same disk; [`backup`](Self::backup) makes another one.
///
/// Where a *step* is counted, it is a write or a sync, that of closing in order included. Reads don't count, and fail
/// only when the holder is gone.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Medium>>);

/// Which side of a step a crash falls on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CrashPoint {
    /// The step has not happened.
    Before,
    /// The step has happened, but nobody is left to hear of it.
    After,
}

#[derive(Debug)]
struct Medium {
    promise: Durability,
    contents: Contents,
    /// How to take back what was written since the last sync, oldest first.
    unsynced: Vec<Undo>,
    /// The number of the holder, if there is one.
    holder: Option<u64>,
    /// How many holders there were.
    holders: u64,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Faults {
    fail_next: u64,
    fail_always: bool,
    /// Steps until the one that fails.
    fail_at: Option<u64>,
    /// Steps until the one at which the holder vanishes.
    crash_at: Option<(u64, CrashPoint)>,
    /// Documents that can't be written.
    documents: BTreeSet<DocumentId>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk {
    /// An empty disk that promises [`Durability::Commit`]: writes survive the process at once, and a loss of power
    /// when they are synced.
    pub fn new() -> Self {
        Self::with_promise(Durability::Commit)
    }

    /// An empty disk. With [`Durability::Fsync`] each write is synced by itself; with [`Durability::Memory`] a process
    /// that ends takes with it what it has not synced.
    pub fn with_promise(promise: Durability) -> Self {
        Self::holding(promise, Contents::default())
    }

    fn holding(promise: Durability, contents: Contents) -> Self {
        let faults = Faults::default();
        Self(Arc::new(Mutex::new(Medium { promise, contents, unsynced: Vec::new(), holder: None, holders: 0, faults })))
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the disk into use.
    ///
    /// # Errors
    /// If somebody uses it.
    pub fn open(&self) -> Result<MemoryStorage, Held> {
        let mut medium = self.medium();
        if medium.holder.is_some() { Err(Held) } else { Ok(self.hold(&mut medium)) }
    }

    fn hold(&self, medium: &mut Medium) -> MemoryStorage {
        medium.holders += 1;
        medium.holder = Some(medium.holders);
        MemoryStorage(Arc::new(Holder { disk: self.clone(), number: medium.holders }))
    }

    /// Whether somebody uses the disk.
    pub fn is_held(&self) -> bool {
        self.medium().holder.is_some()
    }

    /// What a write survives.
    pub fn promise(&self) -> Durability {
        self.medium().promise
    }

    /// The holder vanishes. What it wrote stays (with [`Durability::Memory`]: what it synced); its handle returns
    /// errors for ever.
    pub fn kill(&self) {
        self.medium().kill();
    }

    /// The holder vanishes, and of the transactions since the last sync only the first `keep` stay.
    pub fn lose_power(&self, keep: usize) {
        let mut medium = self.medium();
        medium.kill();
        medium.lose_all_but(keep);
        // What is found after a loss of power has reached the medium.
        medium.unsynced.clear();
    }

    /// Of the transactions since the last sync only the first `keep` stay, and the holder is there and was told nothing: as
    /// when a disk's cache fails, or another program sets the disk back.
    pub fn lose_tail(&self, keep: usize) {
        self.medium().lose_all_but(keep);
    }

    /// How many transactions were written since the last sync.
    pub fn unsynced(&self) -> usize {
        self.medium().unsynced.len()
    }

    /// Another disk with all that is visible now: a backup to be restored, or a clone. It has no holder and no faults.
    pub fn backup(&self) -> Self {
        let medium = self.medium();
        Self::holding(medium.promise, medium.contents.clone())
    }

    /// The next `steps` steps fail, without effect.
    pub fn fail_next(&self, steps: u64) {
        self.medium().faults.fail_next = steps;
    }

    /// From now on all steps fail, without effect; or none does.
    pub fn fail_always(&self, fail: bool) {
        self.medium().faults.fail_always = fail;
    }

    /// From now on all writes to one document fail, without effect; or none does. The others go on.
    pub fn fail_document(&self, document: &DocumentId, fail: bool) {
        let documents = &mut self.medium().faults.documents;
        if fail {
            documents.insert(document.clone());
        } else {
            documents.remove(document);
        }
    }

    /// The `step`th step from now fails, without effect; 1 is the next.
    pub fn fail_at_step(&self, step: u64) {
        self.medium().faults.fail_at = Some(step);
    }

    /// The holder vanishes at the `step`th step from now, as by [`kill`](Self::kill); 1 is the next. It can't tell on
    /// which side of the step. If it vanishes earlier, there is no crash.
    pub fn crash_at_step(&self, step: u64, point: CrashPoint) {
        self.medium().faults.crash_at = Some((step, point));
    }
}

impl Medium {
    fn kill(&mut self) {
        self.holder = None;
        self.faults.crash_at = None;
        if self.promise == Durability::Memory {
            self.lose_all_but(0);
        }
    }

    fn lose_all_but(&mut self, keep: usize) {
        while self.unsynced.len() > keep
            && let Some(undo) = self.unsynced.pop()
        {
            self.contents.undo(undo);
        }
    }

    /// Does a step, unless it is to fail or the holder is to vanish.
    fn step(&mut self, act: impl FnOnce(&mut Self) -> Result<(), StorageError>) -> Result<(), StorageError> {
        match self.faults.next() {
            None => act(self),
            Some(Fault::Fail) => Err(StorageError::Failed),
            Some(Fault::Crash(point)) => {
                if point == CrashPoint::After {
                    // Whether it was refused, nobody is left to hear.
                    let _ = act(self);
                }
                self.kill();
                Err(StorageError::Gone)
            }
        }
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), StorageError> {
        if transaction.document().is_some_and(|document| self.faults.documents.contains(document)) {
            return Err(StorageError::Failed);
        }
        let undo = self.contents.write(transaction)?;
        if matches!(transaction, Transaction::Compact { .. }) {
            self.unsynced.clear();
        } else if self.promise != Durability::Fsync {
            self.unsynced.push(undo);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.unsynced.clear();
        Ok(())
    }
}

enum Fault {
    Fail,
    Crash(CrashPoint),
}

impl Faults {
    /// Counts a step, and tells what happens to it.
    fn next(&mut self) -> Option<Fault> {
        let failing = self.fail_always || self.fail_next > 0 || self.fail_at == Some(1);
        self.fail_next = self.fail_next.saturating_sub(1);
        self.fail_at = self.fail_at.filter(|steps| *steps > 1).map(|steps| steps - 1);
        if let Some((steps, point)) = self.crash_at.take() {
            if steps <= 1 {
                return Some(Fault::Crash(point));
            }
            self.crash_at = Some((steps - 1, point));
        }
        failing.then_some(Fault::Fail)
    }
}

/// A [`Disk`] in use. Clones are the same holder; dropping the last of them closes the disk in order, which syncs it
/// and frees it for the next.
#[derive(Clone, Debug)]
pub struct MemoryStorage(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    disk: Disk,
    number: u64,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut medium = self.disk.medium();
        if medium.holder == Some(self.number) {
            // Nobody is left who could be told that it failed; what is not synced then may be lost, as ever.
            let _ = medium.step(Medium::sync);
            medium.holder = None;
            medium.faults.crash_at = None;
        }
    }
}

impl MemoryStorage {
    /// An empty disk of its own, for those who don't mean to break it: each write is synced by itself, so that nothing
    /// is kept by which it could be taken back.
    pub fn new() -> Self {
        let disk = Disk::with_promise(Durability::Fsync);
        let mut medium = disk.medium();
        disk.hold(&mut medium)
    }

    /// The disk that this is a holder of.
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    fn medium(&self) -> Result<MutexGuard<'_, Medium>, StorageError> {
        let medium = self.0.disk.medium();
        if medium.holder == Some(self.0.number) { Ok(medium) } else { Err(StorageError::Gone) }
    }

    /// Looks at a document, if there is one.
    fn look<T>(&self, id: &DocumentId, look: impl FnOnce(&Document) -> T) -> Result<Option<T>, StorageError> {
        Ok(self.medium()?.contents.document(id).map(look))
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for MemoryStorage {
    type Error = StorageError;

    fn identity(&mut self) -> Result<Option<Identity>, StorageError> {
        Ok(self.medium()?.contents.identity.clone())
    }

    fn documents(&mut self) -> Result<Vec<DocumentId>, StorageError> {
        Ok(self.medium()?.contents.ids().cloned().collect())
    }

    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, StorageError> {
        Ok(self.look(document, |document| document.state.clone())?.unwrap_or_default())
    }

    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, StorageError> {
        Ok(self.look(document, |document| document.cursors.get(&peer).copied())?.flatten())
    }

    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.look(document, |document| document.read(from, max_cost))?.unwrap_or_default())
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.look(document, |document| from_on(&document.aside, from, max_cost))?.unwrap_or_default())
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, StorageError> {
        Ok(self.look(document, |document| document.chain(id))?.flatten())
    }

    fn snapshot(
        &mut self,
        document: &DocumentId,
        id: SnapshotId,
        offset: u64,
        max: u64,
    ) -> Result<Bytes, StorageError> {
        Ok(self.look(document, |document| document.snapshot(id, offset, max))?.unwrap_or_default())
    }

    fn compare(&mut self, document: &DocumentId, heads: &Heads) -> Result<Comparison, StorageError> {
        Ok(self.look(document, |document| document.compare(heads))?.unwrap_or_default())
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), StorageError> {
        self.medium()?.step(|medium| medium.write(transaction))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.medium()?.step(Medium::sync)
    }
}

/// Somebody uses the disk.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Held;

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk is in use: one holder at a time")
    }
}

impl Error for Held {}

/// Why a storage did not do as it was told. Nothing has changed then.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum StorageError {
    /// The holder was killed, or lost its power. Whether its last write happened is not known.
    Gone,
    /// The disk was told to fail.
    Failed,
    /// A batch that does not go to the tail, or does in another timeline.
    WrongPosition {
        /// The document.
        document: DocumentId,
        /// Where the batch was to go.
        position: u64,
        /// The tail.
        tail: u64,
    },
    /// An op that leaves a gap in its author's, or is there already.
    NotNext {
        /// The document.
        document: DocumentId,
        /// The op.
        id: OpId,
        /// The author's next seq.
        next: u64,
    },
    /// A document is to be compacted to a position that is not above its horizon, or beyond its tail.
    WrongHorizon {
        /// The document.
        document: DocumentId,
        /// The position.
        horizon: u64,
        /// The tail.
        tail: u64,
    },
    /// A piece of a snapshot that does not follow on those before, or goes beyond its end.
    WrongOffset {
        /// The document.
        document: DocumentId,
        /// Where the piece was to go.
        offset: u64,
        /// How many bytes are there.
        staged: u64,
    },
    /// A snapshot that is not whole, is not what it should be, or lacks what the document's own stands for.
    BadSnapshot {
        /// The document.
        document: DocumentId,
    },
    /// An entry whose chain is not that of its author's bodies up to it.
    WrongChain {
        /// The document.
        document: DocumentId,
        /// The op.
        id: OpId,
    },
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("this holder of the disk is gone: it was killed or lost its power"),
            Self::Failed => f.write_str("the disk failed, as it was told to"),
            Self::WrongPosition { document, position, tail } => {
                if position == tail {
                    return write!(
                        f,
                        "{document}: a batch was refused, for its timeline is not that of position {tail}"
                    );
                }
                write!(f, "{document}: a batch for position {position} was refused, for the tail is {tail}")
            }
            Self::NotNext { document, id: OpId { author, seq }, next } => {
                write!(f, "{document}: op {seq} of {author} was refused, for its next is {next}")
            }
            Self::WrongHorizon { document, horizon, tail } => {
                write!(f, "{document}: a snapshot for what is below {horizon} was refused, for the tail is {tail}")
            }
            Self::WrongOffset { document, offset, staged } => {
                write!(f, "{document}: a piece of a snapshot for byte {offset} was refused, for {staged} are there")
            }
            Self::BadSnapshot { document } => {
                write!(f, "{document}: a snapshot was refused, for it is not whole, or not what it should be")
            }
            Self::WrongChain { document, id: OpId { author, seq } } => {
                write!(f, "{document}: op {seq} of {author} was refused, for its chain does not fit those before it")
            }
        }
    }
}

impl Error for StorageError {}
