//! The storage in memory passes the conformance suite; and each case of it notices a storage that has a defect.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use antiphon::digest::Chain;
use antiphon::heads::Heads;
use antiphon::log::Comparison;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::rng::Rng;
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Batch, Continuity, Identity, Reply, Request, Storage, StoredDocument, Transaction};
use antiphon::timeline::{Opens, TimelineRecord};
use antiphon_conformance::Harness;
use antiphon_memory::{Disk, MemoryStorage, StorageError};
use bytes::Bytes;

#[test]
fn conforms() {
    antiphon_conformance::all(&mut Memory::default());
}

#[test]
fn every_case_notices_its_defects() {
    let mut unnoticed: BTreeSet<_> = antiphon_conformance::cases::<Memory>().iter().map(|case| case.name).collect();
    for (defect, name) in DEFECTS {
        let case = antiphon_conformance::cases::<Memory>().into_iter().find(|case| case.name == name);
        let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
        let mut harness = Memory { defect: Some(defect), ..Memory::default() };
        let passed = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut harness))).is_ok();
        assert!(!passed, "{name} does not notice {defect:?}");
        unnoticed.remove(name);
    }
    assert!(unnoticed.is_empty(), "no defect was tried on {unnoticed:?}");
}

#[test]
#[should_panic(expected = "entries_come_back: ")]
fn the_case_that_fails_is_named() {
    antiphon_conformance::all(&mut Memory { defect: Some(Defect::OriginsLost), ..Memory::default() });
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Defect {
    IdentityInvented,
    IdentityWrittenOnce,
    OpensNotWritten,
    BrokenContinuityIgnored,
    SecondHolderLetIn,
    MadeByLooking,
    Unordered,
    OriginsLost,
    EmptyBodiesBlanked,
    ReadsTooMuch,
    LargeEntriesSkipped,
    TimelinesLost,
    LoneCursorsLost,
    CursorsBeforeEntries,
    PositionIgnored,
    TimelineIgnored,
    SeqIgnored,
    ChainsInvented,
    ForksMissed,
    ComparedByTail,
    WritesNotExecuted,
    GroupsEndWithARefusal,
    GroupsReadFirst,
    CursorsOutliveReset,
    AsideReversed,
    SalvageIgnored,
    NamesFolded,
    SyncIgnored,
    ReadsBelowTheHorizon,
    SnapshotsReadTooMuch,
    SnapshotsConfused,
    ChainsAtTheHorizonLost,
    SnapshotsNotCompared,
    WrongHorizonsIgnored,
    GapsIgnored,
    FirstPieceKept,
    SpoiledIgnored,
    AsideDroppedByInstall,
    CursorsOutliveInstall,
    StagingOutlivesReset,
    InstalledInSteps,
    CompactionsNotSynced,
}

const DEFECTS: [(Defect, &str); 53] = [
    (Defect::IdentityInvented, "identity_is_empty_at_first"),
    (Defect::IdentityWrittenOnce, "identity_is_kept"),
    (Defect::OpensNotWritten, "opens_are_counted"),
    (Defect::BrokenContinuityIgnored, "a_broken_continuity_renews"),
    (Defect::SecondHolderLetIn, "a_second_holder_is_refused"),
    (Defect::MadeByLooking, "unknown_documents_are_empty"),
    (Defect::Unordered, "documents_are_listed_in_order"),
    (Defect::OriginsLost, "entries_come_back"),
    (Defect::EmptyBodiesBlanked, "entries_come_back"),
    (Defect::ReadsTooMuch, "reads_keep_to_their_limit"),
    (Defect::LargeEntriesSkipped, "reads_keep_to_their_limit"),
    (Defect::TimelinesLost, "state_is_kept"),
    (Defect::LoneCursorsLost, "cursors_are_kept_without_entries"),
    (Defect::CursorsBeforeEntries, "cursors_come_with_their_entries"),
    (Defect::PositionIgnored, "the_wrong_position_is_refused"),
    (Defect::TimelineIgnored, "the_wrong_timeline_is_refused"),
    (Defect::SeqIgnored, "entries_that_are_not_next_are_refused"),
    (Defect::ChainsInvented, "chains_are_found"),
    (Defect::ForksMissed, "comparing_agrees_with_a_scan"),
    (Defect::ComparedByTail, "comparing_agrees_with_a_scan"),
    (Defect::WritesNotExecuted, "requests_agree_with_methods"),
    (Defect::GroupsEndWithARefusal, "a_refused_write_leaves_its_group"),
    (Defect::GroupsReadFirst, "groups_agree_with_single_requests"),
    (Defect::CursorsOutliveReset, "a_reset_puts_aside"),
    (Defect::CursorsOutliveReset, "random_writes_add_up"),
    (Defect::AsideReversed, "a_reset_puts_aside"),
    (Defect::AsideReversed, "resets_keep_the_order"),
    (Defect::SalvageIgnored, "salvage_ends_in_a_drop"),
    (Defect::NamesFolded, "documents_are_independent"),
    (Defect::SalvageIgnored, "random_writes_add_up"),
    (Defect::SyncIgnored, "a_crash_leaves_a_prefix"),
    (Defect::CursorsBeforeEntries, "a_crash_leaves_a_prefix"),
    (Defect::ReadsBelowTheHorizon, "a_compaction_drops_what_is_below"),
    (Defect::ReadsBelowTheHorizon, "random_writes_add_up"),
    (Defect::SnapshotsReadTooMuch, "snapshots_are_read_in_pieces"),
    (Defect::SnapshotsConfused, "snapshots_are_read_in_pieces"),
    (Defect::ChainsAtTheHorizonLost, "chains_at_the_horizon_are_found"),
    (Defect::SnapshotsNotCompared, "heads_at_the_horizon_are_compared"),
    (Defect::SnapshotsNotCompared, "comparing_agrees_with_a_scan"),
    (Defect::WrongHorizonsIgnored, "wrong_horizons_are_refused"),
    (Defect::GapsIgnored, "staging_goes_on"),
    (Defect::FirstPieceKept, "staging_goes_on"),
    (Defect::SpoiledIgnored, "spoiled_snapshots_are_refused"),
    (Defect::AsideDroppedByInstall, "an_install_starts_anew"),
    (Defect::AsideDroppedByInstall, "random_writes_add_up"),
    (Defect::CursorsOutliveInstall, "an_install_starts_anew"),
    (Defect::CursorsOutliveInstall, "random_writes_add_up"),
    (Defect::StagingOutlivesReset, "a_reset_drops_snapshots"),
    (Defect::StagingOutlivesReset, "random_writes_add_up"),
    (Defect::SyncIgnored, "a_crash_amid_snapshots_leaves_a_prefix"),
    (Defect::InstalledInSteps, "a_crash_amid_snapshots_leaves_a_prefix"),
    (Defect::CompactionsNotSynced, "a_crash_amid_snapshots_leaves_a_prefix"),
    (Defect::CompactionsNotSynced, "a_compaction_is_synced"),
];

#[derive(Default)]
struct Memory {
    /// How much of what was not synced the next crash leaves.
    keep: usize,
    defect: Option<Defect>,
}

impl Memory {
    fn defective(&self, inner: MemoryStorage) -> Defective {
        Defective { inner, defect: self.defect, cursors: BTreeMap::new(), staged: Vec::new(), before: None }
    }
}

impl Harness for Memory {
    type Storage = Defective;

    fn fresh(&mut self) -> Defective {
        self.defective(Disk::new().open().expect("it is new"))
    }

    fn reopen(&mut self, storage: Defective) -> Defective {
        let disk = storage.inner.disk().clone();
        drop(storage);
        self.defective(disk.open().unwrap_or_else(|held| panic!("{held}")))
    }

    fn crash(&mut self, storage: Defective) -> Option<Defective> {
        let before = storage.before.as_ref().filter(|_| storage.has(Defect::CompactionsNotSynced));
        let disk = before.unwrap_or(storage.inner.disk());
        disk.lose_power(self.keep);
        self.keep = (self.keep + 3) % 7;
        Some(self.defective(disk.open().unwrap_or_else(|held| panic!("{held}"))))
    }

    fn second_is_refused(&mut self, storage: &mut Defective) -> Option<bool> {
        Some(storage.inner.disk().open().is_err() && self.defect != Some(Defect::SecondHolderLetIn))
    }
}

/// A storage that does one thing wrong, or none.
struct Defective {
    inner: MemoryStorage,
    defect: Option<Defect>,
    cursors: BTreeMap<(DocumentId, ReplicaId), Cursor>,
    /// What was staged of the document that something was staged of last.
    staged: Vec<Transaction>,
    /// What there was before the last compaction.
    before: Option<Disk>,
}

impl Defective {
    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    fn id(&self, document: &DocumentId) -> DocumentId {
        if !self.has(Defect::NamesFolded) {
            return document.clone();
        }
        document.as_str().to_lowercase().parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The batch as this storage understands it.
    fn distort(&mut self, batch: &Batch) -> Result<Batch, StorageError> {
        let mut batch = Batch { document: self.id(&batch.document), ..batch.clone() };
        let StoredDocument { tail, mut heads, timelines, .. } = self.inner.document(&batch.document)?;
        match self.defect {
            Some(Defect::EmptyBodiesBlanked) => {
                for entry in &mut batch.entries {
                    if entry.op.body.wire_len() == 0 {
                        entry.op.body = antiphon::op::Body::Blank(entry.op.body.hash());
                    }
                }
            }
            Some(Defect::TimelinesLost) => batch.timeline = None,
            Some(Defect::LoneCursorsLost) if batch.entries.is_empty() => batch.cursors.clear(),
            Some(Defect::CursorsBeforeEntries) => {
                let (entries, cursors) = (Vec::new(), std::mem::take(&mut batch.cursors));
                let before = Batch { entries, cursors, timeline: None, salvaged: None, ..batch.clone() };
                self.inner.write(&Transaction::Append(before.into()))?;
            }
            Some(Defect::PositionIgnored) => batch.position = tail,
            Some(Defect::TimelineIgnored) if !batch.goes_on(tail, timelines.last()) => batch.timeline = None,
            Some(Defect::SeqIgnored) => {
                for entry in &mut batch.entries {
                    let head = heads.get(entry.op.id.author).then(entry.op.body.hash());
                    heads.set(entry.op.id.author, head);
                    (entry.op.id.seq, entry.chain) = (head.seq, head.chain);
                }
            }
            Some(Defect::SalvageIgnored) => batch.salvaged = None,
            _ => {}
        }
        Ok(batch)
    }

    fn install(&mut self, document: &DocumentId, timeline: TimelineRecord) -> Result<(), StorageError> {
        if self.has(Defect::InstalledInSteps) {
            self.inner.write(&Transaction::Reset { document: document.clone(), timeline })?;
            self.stage_again(true)?;
        }
        let cursors: Vec<_> = self.cursors.iter().filter(|((id, _), _)| id == document).collect();
        let cursors = cursors.into_iter().map(|((_, peer), cursor)| (*peer, *cursor)).collect();
        let installed = self.inner.write(&Transaction::Install { document: document.clone(), timeline });
        let StoredDocument { tail, aside, .. } = self.inner.document(document)?;
        let after = Batch {
            document: document.clone(),
            position: tail,
            entries: Vec::new(),
            cursors: if self.has(Defect::CursorsOutliveInstall) { cursors } else { Vec::new() },
            timeline: None,
            salvaged: aside.map(|(_, to)| to).filter(|_| self.has(Defect::AsideDroppedByInstall)),
        };
        if installed.is_ok() && after.salvaged.is_some() | !after.cursors.is_empty() {
            self.inner.write(&Transaction::Append(after.into()))?;
        }
        if self.has(Defect::SpoiledIgnored) { Ok(()) } else { installed }
    }

    fn stage_again(&mut self, again: bool) -> Result<(), StorageError> {
        self.staged.iter().filter(|_| again).try_for_each(|piece| self.inner.write(piece))
    }
}

impl Storage for Defective {
    type Error = StorageError;

    fn identity(&mut self) -> Result<Option<Identity>, StorageError> {
        let invented = Identity {
            replica: ReplicaId::default(),
            former: Vec::new(),
            opens: Opens::first(antiphon::op::Timeline::new(1)),
        };
        let identity = self.inner.identity()?;
        Ok(if self.has(Defect::IdentityInvented) { identity.or(Some(invented)) } else { identity })
    }

    fn documents(&mut self) -> Result<Vec<DocumentId>, StorageError> {
        let mut documents = self.inner.documents()?;
        if self.has(Defect::Unordered) {
            documents.reverse();
        }
        Ok(documents)
    }

    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, StorageError> {
        let id = self.id(document);
        let state = self.inner.document(&id)?;
        if self.has(Defect::MadeByLooking) {
            let (entries, cursors) = (Vec::new(), Vec::new());
            let batch = Batch { document: id, position: state.tail, entries, cursors, timeline: None, salvaged: None };
            self.inner.write(&Transaction::Append(batch.into()))?;
        }
        Ok(state)
    }

    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, StorageError> {
        let id = self.id(document);
        let cursor = self.inner.cursor(&id, peer)?;
        let outlived = self.cursors.get(&(id, peer)).copied();
        Ok(if self.has(Defect::CursorsOutliveReset) { cursor.or(outlived) } else { cursor })
    }

    fn snapshot(
        &mut self,
        document: &DocumentId,
        id: SnapshotId,
        offset: u64,
        max: u64,
    ) -> Result<Bytes, StorageError> {
        let extra = if self.has(Defect::SnapshotsReadTooMuch) { 1 } else { 0 };
        let document = self.id(document);
        let its = self.inner.document(&document)?.snapshot.filter(|_| self.has(Defect::SnapshotsConfused));
        self.inner.snapshot(&document, its.unwrap_or(id), offset, max.saturating_add(extra))
    }

    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, StorageError> {
        let extra = if self.has(Defect::ReadsTooMuch) { 20 } else { 0 };
        let id = self.id(document);
        let horizon = if self.has(Defect::ReadsBelowTheHorizon) { self.inner.document(&id)?.horizon } else { 0 };
        let mut entries = self.inner.read(&id, from.max(horizon), max_cost.saturating_add(extra))?;
        if self.has(Defect::OriginsLost) {
            entries.iter_mut().for_each(|entry| entry.origin = None);
        }
        if self.has(Defect::LargeEntriesSkipped) {
            entries.retain(|entry| entry.op.cost() <= max_cost);
        }
        Ok(entries)
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, StorageError> {
        let mut entries = self.inner.read_aside(&self.id(document), from, max_cost)?;
        if self.has(Defect::AsideReversed) {
            entries.reverse();
        }
        Ok(entries)
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, StorageError> {
        let name = self.id(document);
        let chain = self.inner.chain(&name, id)?;
        if self.has(Defect::ChainsAtTheHorizonLost) {
            let horizon = self.inner.document(&name)?.horizon;
            let above = self.inner.read(&name, horizon, u64::MAX)?;
            return Ok(chain.filter(|_| above.iter().any(|entry| entry.op.id == id)));
        }
        Ok(if self.has(Defect::ChainsInvented) { chain.or(Some(Chain::EMPTY)) } else { chain })
    }

    fn compare(&mut self, document: &DocumentId, heads: &Heads) -> Result<Comparison, StorageError> {
        let id = self.id(document);
        let Comparison { mut from, mut forks, .. } = self.inner.compare(&id, heads)?;
        if self.has(Defect::ForksMissed) {
            forks.clear();
        }
        if self.has(Defect::SnapshotsNotCompared) {
            from = from.max(self.inner.document(&id)?.horizon);
        }
        if self.has(Defect::ComparedByTail) {
            from = self.inner.document(&id)?.tail;
        }
        Ok(Comparison { from, forks })
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), StorageError> {
        match transaction {
            Transaction::Identity(_) if self.has(Defect::IdentityWrittenOnce) && self.identity()?.is_some() => Ok(()),
            Transaction::Identity(_) => self.inner.write(transaction),
            Transaction::Append(batch) => {
                let batch = self.distort(batch)?;
                for (peer, cursor) in &batch.cursors {
                    self.cursors.insert((batch.document.clone(), *peer), *cursor);
                }
                self.inner.write(&Transaction::Append(batch.into()))
            }
            Transaction::Reset { document, timeline } => {
                let document = self.id(document);
                let staged = self.inner.document(&document)?.staged;
                self.inner.write(&Transaction::Reset { document, timeline: *timeline })?;
                self.stage_again(staged.is_some() && self.has(Defect::StagingOutlivesReset))
            }
            Transaction::Compact { .. } => {
                self.before = Some(self.inner.disk().backup());
                let written = self.inner.write(transaction);
                if self.has(Defect::WrongHorizonsIgnored) { Ok(()) } else { written }
            }
            Transaction::Stage { document, id, offset, .. } => {
                let staged = self.inner.document(document)?.staged;
                if self.has(Defect::FirstPieceKept) && staged.is_some_and(|staged| staged.id != *id) {
                    return Ok(());
                }
                let written = self.inner.write(transaction);
                if written.is_ok() {
                    self.staged.retain(|piece| *offset > 0 && piece.document() == Some(document));
                    self.staged.push(transaction.clone());
                }
                if self.has(Defect::GapsIgnored) { Ok(()) } else { written }
            }
            Transaction::Install { document, timeline } => self.install(document, *timeline),
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if self.has(Defect::SyncIgnored) { Ok(()) } else { self.inner.sync() }
    }

    fn execute(&mut self, request: &Request) -> Result<Reply, StorageError> {
        // What the trait provides calls the methods above, and these only differ with other defects.
        match request {
            Request::Write(_) if self.has(Defect::WritesNotExecuted) => Ok(Reply::Written),
            _ => self.inner.execute(request),
        }
    }

    fn execute_all(&mut self, requests: &[Request]) -> Vec<Result<Reply, StorageError>> {
        let is_write = |request: &Request| matches!(request, Request::Write(_));
        let mut order: Vec<_> = (0..requests.len()).collect();
        if self.has(Defect::GroupsReadFirst) {
            order.sort_by_key(|index| is_write(&requests[*index]));
        }
        let mut outcomes: BTreeMap<usize, Result<Reply, StorageError>> = BTreeMap::new();
        for index in order {
            let ended = self.has(Defect::GroupsEndWithARefusal) && outcomes.values().any(Result::is_err);
            let outcome = if ended { Err(StorageError::Failed) } else { self.execute(&requests[index]) };
            outcomes.insert(index, outcome);
        }
        outcomes.into_values().collect()
    }

    fn open(&mut self, continuity: Continuity, entropy: &mut Rng) -> Result<Identity, StorageError> {
        let ignored = self.has(Defect::BrokenContinuityIgnored);
        let continuity = if ignored { Continuity::Proven } else { continuity };
        let identity = Identity::reopen(self.identity()?, continuity, entropy);
        if !self.has(Defect::OpensNotWritten) {
            self.inner.write(&Transaction::Identity(identity.clone()))?;
        }
        self.sync()?;
        Ok(identity)
    }
}
