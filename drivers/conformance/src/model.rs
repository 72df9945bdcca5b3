//! What a storage must hold, kept in the plainest way, and random writes to compare it by.

use std::collections::BTreeMap;
use std::mem;

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::rng::{Ratio, Rng};
use antiphon::snapshot::{Inspection, Snapshot, SnapshotId};
use antiphon::storage::{Batch, Continuity, Identity, Staged, Storage, StoredDocument, Transaction};
use antiphon::timeline::{TIMELINES_MAX, TimelineRecord};
use bytes::Bytes;

use crate::done;

/// What a storage must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) identity: Option<Identity>,
    pub(crate) documents: BTreeMap<DocumentId, Held>,
}

/// One document of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) state: StoredDocument,
    /// From the horizon on.
    pub(crate) entries: Vec<Entry>,
    /// What stands for those below.
    pub(crate) snapshot: Option<Snapshot>,
    /// The bytes of the snapshot that is coming.
    staged: Vec<u8>,
    /// From place 0 on.
    pub(crate) aside: Vec<Entry>,
    pub(crate) cursors: BTreeMap<ReplicaId, Cursor>,
}

pub(crate) fn replica(number: u8) -> ReplicaId {
    // Unlike a counter's, these bytes tell the ends of an id apart.
    ReplicaId(std::array::from_fn(|index| number.wrapping_mul(37).wrapping_add(index as u8)))
}

pub(crate) fn timeline(number: u64) -> Timeline {
    // The highest bit is set in some: a storage with signed integers must keep it.
    Timeline::new(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

pub(crate) fn document(text: &str) -> DocumentId {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn body(text: &str) -> Body {
    Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

impl Model {
    /// The document as it must be; empty if it is unknown.
    pub(crate) fn held(&self, document: &DocumentId) -> Held {
        self.documents.get(document).cloned().unwrap_or_default()
    }

    /// A batch of these ops for the tail, each its author's next.
    pub(crate) fn batch(&self, document: &DocumentId, ops: impl IntoIterator<Item = (ReplicaId, Body)>) -> Batch {
        let StoredDocument { mut heads, tail, .. } = self.held(document).state;
        let mut entry = |(author, body): (ReplicaId, Body)| {
            let head = heads.get(author).then(body.hash());
            heads.set(author, head);
            let id = OpId { author, seq: head.seq };
            Entry { op: Op { id, body }, chain: head.chain, origin: None }
        };
        let entries = ops.into_iter().map(&mut entry).collect();
        let document = document.clone();
        Batch { document, position: tail, entries, cursors: Vec::new(), timeline: None, salvaged: None }
    }

    /// Writes to the storage and to the model.
    pub(crate) fn write(&mut self, storage: &mut impl Storage, transaction: &Transaction) {
        done(storage.write(transaction));
        self.note(transaction);
    }

    pub(crate) fn append(&mut self, storage: &mut impl Storage, batch: Batch) {
        self.write(storage, &Transaction::Append(batch.into()));
    }

    pub(crate) fn reset(&mut self, storage: &mut impl Storage, document: &DocumentId, timeline: TimelineRecord) {
        self.write(storage, &Transaction::Reset { document: document.clone(), timeline });
    }

    pub(crate) fn note(&mut self, transaction: &Transaction) {
        match transaction {
            Transaction::Identity(identity) => self.identity = Some(identity.clone()),
            Transaction::Append(batch) => {
                let held = self.documents.entry(batch.document.clone()).or_default();
                held.state.append(batch);
                held.entries.extend(batch.entries.iter().cloned());
                held.cursors.extend(batch.cursors.iter().copied());
                if held.state.aside.is_none() {
                    held.aside.clear();
                }
            }
            Transaction::Reset { document, timeline } => {
                let held = self.documents.entry(document.clone()).or_default();
                let from = held.state.aside.map_or(0, |(from, _)| from as usize);
                held.aside.splice(from..from, held.entries.drain(..));
                *held =
                    Held { state: held.state.reset(*timeline), aside: mem::take(&mut held.aside), ..Held::default() };
            }
            Transaction::Compact { document, horizon, body } => {
                let held = self.documents.entry(document.clone()).or_default();
                let mut heads = held.base();
                heads.extend(held.entries.drain(..(horizon - held.state.horizon) as usize).as_slice());
                let snapshot = Snapshot::new(heads, body.clone());
                (held.state.horizon, held.state.snapshot) = (*horizon, Some(snapshot.id()));
                held.snapshot = Some(snapshot);
            }
            Transaction::Stage { document, id, offset, bytes } => {
                let held = self.documents.entry(document.clone()).or_default();
                held.staged.truncate(*offset as usize);
                held.staged.extend_from_slice(bytes);
                held.state.staged = Some(Staged { id: *id, bytes: held.staged.len() as u64 });
            }
            Transaction::Install { document, timeline } => {
                let held = self.documents.entry(document.clone()).or_default();
                let snapshot = held.ready();
                let heads = snapshot.as_ref().map(|snapshot| snapshot.heads().clone()).unwrap_or_default();
                let from = held.state.aside.map_or(0, |(from, _)| from as usize);
                held.aside.splice(from..from, held.entries.drain(..));
                let (state, aside) = (held.state.install(*timeline, heads), mem::take(&mut held.aside));
                *held = Held { state, aside, snapshot, ..Held::default() };
            }
        }
    }

    /// Demands that the storage holds just this.
    #[track_caller]
    pub(crate) fn check(&self, storage: &mut impl Storage) {
        if let Err(difference) = self.compare(storage) {
            panic!("{difference}");
        }
    }

    /// Whether the storage holds just this, or what is different.
    pub(crate) fn compare(&self, storage: &mut impl Storage) -> Result<(), String> {
        let same = |what: &str, same: bool| if same { Ok(()) } else { Err(format!("{what} is not what was written")) };
        same("the identity", done(storage.identity()) == self.identity)?;
        let listed = done(storage.documents());
        let unlisted = self.documents.iter().find(|(id, held)| held.state.tail > 0 && !listed.contains(id));
        if let Some((id, _)) = unlisted {
            return Err(format!("{id} is not listed"));
        }
        if let Some(id) = listed.iter().find(|id| !self.documents.contains_key(id)) {
            return Err(format!("{id} is listed, but was never written"));
        }
        for (id, held) in &self.documents {
            held.compare(storage, id).map_err(|what| format!("{id}: {what}"))?;
        }
        Ok(())
    }
}

impl Held {
    /// The heads at the horizon.
    pub(crate) fn base(&self) -> Heads {
        self.snapshot.as_ref().map(|snapshot| snapshot.heads().clone()).unwrap_or_default()
    }

    /// The snapshot that is staged, if it may be installed.
    fn ready(&self) -> Option<Snapshot> {
        let mut inspection = Inspection::new(self.state.staged?.id);
        inspection.update(&self.staged);
        let heads = inspection.finish().ok().filter(|heads| heads.cover(&self.base()))?;
        let body = Bytes::copy_from_slice(&self.staged[self.state.staged?.id.head_bytes as usize..]);
        Some(Snapshot::new(heads, body))
    }

    fn compare(&self, storage: &mut impl Storage, id: &DocumentId) -> Result<(), String> {
        let mut state = done(storage.document(id));
        // The newest suffice of the timelines.
        let known = &self.state.timelines;
        let enough = state.timelines.len() >= known.len().min(TIMELINES_MAX);
        if !enough || !known.ends_with(&state.timelines) {
            return Err(format!("the timelines are {:?} and not {known:?}", state.timelines));
        }
        state.timelines.clone_from(known);
        if state != self.state {
            return Err(format!("the state is {state:?} and not {:?}", self.state));
        }
        let horizon = self.state.horizon;
        for below in [0, horizon.saturating_sub(1)].into_iter().filter(|below| *below < horizon) {
            if !done(storage.read(id, below, 1000)).is_empty() {
                return Err(format!("there are entries at {below}, below the horizon {horizon}"));
            }
        }
        let entries = read_all(horizon, |from| done(storage.read(id, from, 1000)))?;
        difference("entry", horizon, &entries, &self.entries)?;
        let snapshot = match self.state.snapshot {
            Some(snapshot) => read_snapshot(storage, id, snapshot, 100)?,
            None => Vec::new(),
        };
        if snapshot != self.snapshot.as_ref().map(bytes_of).unwrap_or_default() {
            return Err(format!("the snapshot is {snapshot:?} and not {:?}", self.snapshot));
        }
        let (from, to) = self.state.aside.unwrap_or((0, 0));
        let aside = read_all(from, |from| done(storage.read_aside(id, from, 1000)))?;
        difference("entry put aside", from, &aside, &self.aside[from as usize..to as usize])?;
        for peer in peers() {
            let (cursor, noted) = (done(storage.cursor(id, peer)), self.cursors.get(&peer).copied());
            if cursor != noted {
                return Err(format!("the cursor of {peer} is {cursor:?} and not {noted:?}"));
            }
        }
        Ok(())
    }
}

/// Reads piece by piece.
pub(crate) fn read_all(from: u64, mut read: impl FnMut(u64) -> Vec<Entry>) -> Result<Vec<Entry>, String> {
    const MANY: usize = 1_000_000;
    let mut entries = Vec::new();
    loop {
        let piece = read(from + entries.len() as u64);
        if piece.is_empty() {
            return Ok(entries);
        }
        entries.extend(piece);
        if entries.len() > MANY {
            return Err("reading does not come to an end".to_owned());
        }
    }
}

/// Reads the bytes of a document's snapshot, at most `max` at a time.
pub(crate) fn read_snapshot(
    storage: &mut impl Storage,
    document: &DocumentId,
    id: SnapshotId,
    max: u64,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let piece = done(storage.snapshot(document, id, bytes.len() as u64, max));
        if piece.is_empty() {
            return Ok(bytes);
        }
        if piece.len() as u64 > max {
            return Err(format!("{} bytes of a snapshot instead of {max}", piece.len()));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// All bytes of a snapshot.
pub(crate) fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let heads = snapshot.read(0, snapshot.id().head_bytes.into());
    [heads, snapshot.body().clone()].concat()
}

fn difference(what: &str, first: u64, found: &[Entry], written: &[Entry]) -> Result<(), String> {
    if found.len() != written.len() {
        return Err(format!("{} times {what} instead of {}", found.len(), written.len()));
    }
    match found.iter().zip(written).position(|(found, written)| found != written) {
        None => Ok(()),
        Some(index) => Err(format!("{what} {} is not what was written", first + index as u64)),
    }
}

/// Whoever has a cursor somewhere.
pub(crate) fn peers() -> [ReplicaId; 4] {
    [100, 101, 102, 103].map(replica)
}

/// The authors of random ops.
pub(crate) fn authors() -> [ReplicaId; 5] {
    [0, 1, 2, 3, 4].map(replica)
}

fn pick(rng: &mut Rng, choices: &[ReplicaId]) -> ReplicaId {
    choices[rng.below(choices.len() as u64) as usize]
}

fn random_body(rng: &mut Rng) -> Body {
    let mut bytes = vec![0; rng.below(40) as usize];
    bytes.fill_with(|| rng.below(256) as u8);
    let body = Body::Bytes(bytes.into());
    if rng.chance(Ratio::one_in(8)) { Body::Blank(body.hash()) } else { body }
}

/// A snapshot that a peer may have: it covers what stands below the horizon, and more.
fn peers_snapshot(held: &Held, number: u64) -> Snapshot {
    let mut heads = held.base();
    for (author, more) in authors().into_iter().zip(0..) {
        let seq = heads.get(author).seq + more * number;
        // The first author's is as it was.
        if more * number > 0 {
            heads.set(author, Head { seq, chain: Chain(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)) });
        }
    }
    Snapshot::new(heads, vec![number as u8; 50 * number as usize].into())
}

/// What comes next of a peer's snapshot, or of another one.
fn next_piece(held: &Held, rng: &mut Rng) -> (SnapshotId, u64, Bytes) {
    let known = (0..4).map(|number| peers_snapshot(held, number));
    let staged = held.state.staged.filter(|_| !rng.chance(Ratio::one_in(8)));
    let going_on = staged.and_then(|staged| Some((known.clone().find(|known| known.id() == staged.id)?, staged.bytes)));
    let (snapshot, offset) = going_on.unwrap_or_else(|| (peers_snapshot(held, rng.below(4)), 0));
    (snapshot.id(), offset, snapshot.read(offset, 1 + rng.below(150)))
}

/// A random write that fits what the model holds.
pub(crate) fn random_write(model: &Model, rng: &mut Rng) -> Transaction {
    let document = document(["a", "b@branch", "c@branch/scope"][rng.below(3) as usize]);
    let open = 1 + rng.below(1000);
    let held = model.held(&document);
    let record = |begins, rng: &mut Rng| TimelineRecord { open, timeline: Timeline::new(rng.next_u64()), begins };
    match rng.below(26) {
        0 => Transaction::Reset { document, timeline: record(0, rng) },
        1 => {
            let stored = model.identity.clone();
            Transaction::Identity(Identity::reopen(stored, Continuity::Proven, rng))
        }
        2 | 3 if held.state.tail > held.state.horizon => {
            let horizon = held.state.horizon + 1 + rng.below(held.state.tail - held.state.horizon);
            Transaction::Compact { document, horizon, body: vec![7; rng.below(200) as usize].into() }
        }
        4..=6 if held.ready().is_some() => Transaction::Install { document, timeline: record(0, rng) },
        4..=8 => {
            let (id, offset, bytes) = next_piece(&held, rng);
            Transaction::Stage { document, id, offset, bytes }
        }
        choice => {
            let count = if choice == 9 { 0 } else { 1 + rng.below(5) };
            let ops: Vec<_> = (0..count).map(|_| (pick(rng, &authors()), random_body(rng))).collect();
            let mut batch = model.batch(&document, ops);
            if rng.chance(Ratio::one_in(2)) {
                let origin = Some(Origin::of(pick(rng, &peers()), Timeline::new(rng.next_u64())));
                batch.entries.iter_mut().for_each(|entry| entry.origin = origin);
            }
            if count == 0 || rng.chance(Ratio::one_in(3)) {
                let cursor = Cursor { timeline: Timeline::new(rng.next_u64()), position: rng.below(1 << 40) };
                batch.cursors.push((pick(rng, &peers()), cursor));
            }
            if rng.chance(Ratio::one_in(5)) {
                batch.timeline = Some(record(batch.position, rng));
            }
            batch.salvaged = held.state.aside.map(|(from, to)| from + rng.below(to - from + 1));
            Transaction::Append(batch.into())
        }
    }
}
