//! Storage: what a replica asks of a disk, as values, and the trait that drivers implement.
//!
//! The core never waits for a disk. A [`Replica`](crate::Replica) puts out [`Request`]s with tickets; whoever drives it
//! lets a [`Storage`] carry them out, here or on another thread, and hands the [`Reply`] back.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Chain;
use crate::heads::{Head, Heads};
use crate::log::Comparison;
use crate::op::{Cursor, DocumentId, Entry, OpId, ReplicaId, Timeline};
use crate::rng::Rng;
use crate::snapshot::{Compactor, SnapshotId};
use crate::timeline::{Opens, TIMELINES_MAX, TimelineRecord};

/// Who a replica is: kept over restarts where continuity is proven.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Identity {
    /// The incarnation.
    pub replica: ReplicaId,
    /// The incarnations before, oldest first: what they authored is this replica's own. The last 64 are kept.
    pub former: Vec<ReplicaId>,
    /// The times that it was opened.
    pub opens: Opens,
}

/// Whether what a storage holds is surely what its last user left there.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Continuity {
    /// The same storage on the same machine, and closed in order, or not rebooted since, or synced before every send.
    Proven,
    /// It may be a restored backup, a copy, or have lost its last writes.
    Broken,
}

/// How many of its former incarnations a replica remembers.
const FORMER_MAX: usize = 64;

impl Identity {
    /// Gives the replica a new id. What was authored under the old one stays what it is.
    pub fn renew(&mut self, replica: ReplicaId) {
        self.former.push(core::mem::replace(&mut self.replica, replica));
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
    }

    /// Whether what this author wrote is this replica's own.
    pub fn is_own(&self, author: ReplicaId) -> bool {
        author == self.replica || self.former.contains(&author)
    }

    /// The identity for the next open: a new timeline in any case, a new replica id unless continuity is proven.
    ///
    /// `entropy` must come from the system, not from anything stored: what was copied must not draw the same ids.
    pub fn reopen(stored: Option<Self>, continuity: Continuity, entropy: &mut Rng) -> Self {
        let replica = ReplicaId(entropy.bytes16());
        let timeline = Timeline::new(entropy.next_u64());
        match stored {
            None => Self { replica, former: Vec::new(), opens: Opens::first(timeline) },
            Some(mut identity) => {
                identity.opens.reopen(timeline);
                if continuity == Continuity::Broken {
                    identity.renew(replica);
                }
                identity
            }
        }
    }
}

/// A document as it stands in storage.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct StoredDocument {
    /// What is held, per author.
    pub heads: Heads,
    /// The timelines in which the document grew, oldest first; the last 64 suffice.
    pub timelines: Vec<TimelineRecord>,
    /// The replica's open at the document's last reset; 0: none.
    pub forgotten: u64,
    /// The first position that entries exist for: what stood below exists only in the snapshot.
    pub horizon: u64,
    /// The position after the last entry.
    pub tail: u64,
    /// The places of the entries that a reset put aside and that are not dealt with: from, to.
    pub aside: Option<(u64, u64)>,
    /// What stands for the entries below the horizon, if that is not 0.
    pub snapshot: Option<SnapshotId>,
    /// A snapshot that is coming from a peer.
    pub staged: Option<Staged>,
}

/// A snapshot of which some bytes are here.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Staged {
    /// Which.
    pub id: SnapshotId,
    /// How many of its bytes, from the first one on.
    pub bytes: u64,
}

/// Entries, cursors and a timeline that become durable together.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Batch {
    /// The document.
    pub document: DocumentId,
    /// The position of the first entry. It must be the tail.
    pub position: u64,
    /// The entries.
    pub entries: Vec<Entry>,
    /// How far the logs of peers are held with these entries.
    pub cursors: Vec<(ReplicaId, Cursor)>,
    /// The timeline in which the entries get their positions: the document's newest, or one that begins with them.
    pub timeline: Option<TimelineRecord>,
    /// Entries put aside by a reset are dealt with below this place. At their end they are dropped.
    pub salvaged: Option<u64>,
}

impl Batch {
    /// The position after the last entry.
    pub fn tail(&self) -> u64 {
        self.position + self.entries.len() as u64
    }

    /// Whether it goes to this tail, in the newest timeline or in one that begins there. A batch that does not was made when
    /// the storage held what it has lost since: positions mean something else now.
    pub fn goes_on(&self, tail: u64, newest: Option<&TimelineRecord>) -> bool {
        let fits = |record: &TimelineRecord| record.begins == tail || newest == Some(record);
        self.position == tail && self.timeline.as_ref().is_none_or(fits)
    }
}

/// A write. Each is durable whole or not at all, and never without those before it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Transaction {
    /// The replica's identity.
    Identity(Identity),
    /// More of a document. Refused if it does not [go on](Batch::goes_on) there.
    Append(Arc<Batch>),
    /// A document starts anew: its entries are put aside, before those that were and are not dealt with, for ops of theirs
    /// may follow on those; heads, timelines and cursors are gone; `timeline`, which begins at 0, is its only one.
    Reset {
        /// The document.
        document: DocumentId,
        /// Its new timeline.
        timeline: TimelineRecord,
    },
    /// A snapshot takes the place of all entries below `horizon`; it stands for the [heads there](Storage::heads_at).
    /// It is [synced](Storage::sync) with all before it, whatever the storage promises: what a snapshot stands for exists
    /// nowhere else. Refused if `horizon` is not above the one before, or beyond the tail.
    Compact {
        /// The document.
        document: DocumentId,
        /// The new horizon.
        horizon: u64,
        /// The snapshot's body.
        body: Bytes,
    },
    /// More of a snapshot that comes from a peer. Refused if `offset` is not what is staged of it; with an offset of 0,
    /// what is staged of any is dropped.
    Stage {
        /// The document.
        document: DocumentId,
        /// Which snapshot.
        id: SnapshotId,
        /// Where the bytes belong.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A document starts anew, as by a reset, from the snapshot that is staged: that is its heads and its horizon, which is 1,
    /// for the snapshot takes position 0. Refused if the staged bytes are not those of the snapshot, or if it does not cover
    /// the document's own, which can't be put aside.
    Install {
        /// The document.
        document: DocumentId,
        /// Its new timeline.
        timeline: TimelineRecord,
    },
}

impl Transaction {
    /// The document that it changes; the identity belongs to none.
    pub fn document(&self) -> Option<&DocumentId> {
        match self {
            Self::Identity(_) => None,
            Self::Append(batch) => Some(&batch.document),
            Self::Reset { document, .. }
            | Self::Compact { document, .. }
            | Self::Stage { document, .. }
            | Self::Install { document, .. } => Some(document),
        }
    }
}

/// What a replica asks of its storage.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Request {
    /// The state of a document; an unknown one is empty.
    Open(DocumentId),
    /// How far a peer's log is held.
    Cursor {
        /// The document.
        document: DocumentId,
        /// The peer.
        peer: ReplicaId,
    },
    /// Entries.
    Read {
        /// The document.
        document: DocumentId,
        /// The position of the first one.
        from: u64,
        /// What they may cost together, if they are more than one.
        max_cost: u64,
    },
    /// Entries that a reset put aside.
    ReadAside {
        /// The document.
        document: DocumentId,
        /// The place of the first one.
        from: u64,
        /// What they may cost together, if they are more than one.
        max_cost: u64,
    },
    /// What a peer's heads say about the log.
    Compare {
        /// The document.
        document: DocumentId,
        /// The heads.
        heads: Arc<Heads>,
    },
    /// The chains at these ops.
    Chains {
        /// The document.
        document: DocumentId,
        /// The ops.
        ids: Vec<OpId>,
    },
    /// Bytes of a snapshot.
    Snapshot {
        /// The document.
        document: DocumentId,
        /// Which snapshot.
        id: SnapshotId,
        /// The first one.
        offset: u64,
        /// How many there may be.
        max: u64,
    },
    /// A write.
    Write(Transaction),
}

/// What a storage answers.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Reply {
    /// To [`Request::Open`].
    Document(StoredDocument),
    /// To [`Request::Cursor`].
    Cursor(Option<Cursor>),
    /// To [`Request::Read`] and [`Request::ReadAside`]: the entries from there on, none beyond the end.
    Entries(Vec<Entry>),
    /// To [`Request::Compare`].
    Compared(Comparison),
    /// To [`Request::Chains`]: one an id; `None` for ops that are not held, and those below the horizon but for the last of
    /// each author.
    Chains(Vec<Option<Chain>>),
    /// To [`Request::Snapshot`]: at least one byte; none beyond the end, or if the document has another snapshot.
    Snapshot(Bytes),
    /// To [`Request::Write`]: it is as durable as the storage promises.
    Written,
}

/// A place that keeps documents.
///
/// Writes are prefix-consistent: after a crash, what is left is what some prefix of them made. Entries are only ever
/// inserted. A storage refuses a second holder and a format newer than its own. The crate `antiphon-conformance` has a
/// suite that checks an implementation.
pub trait Storage {
    /// What can go wrong.
    type Error: core::fmt::Display;

    /// Who the replica is, if it was ever opened.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn identity(&mut self) -> Result<Option<Identity>, Self::Error>;

    /// All documents, in order.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn documents(&mut self) -> Result<Vec<DocumentId>, Self::Error>;

    /// The state of a document; an unknown one is empty.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, Self::Error>;

    /// How far a peer's log of a document is held.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, Self::Error>;

    /// Entries from position `from` on, of at most `max_cost` but at least one; none beyond the tail.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Self::Error>;

    /// The same of the entries that a reset put aside.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Self::Error>;

    /// The chain at an op, if it is held, and not below the horizon; but there too at each author's last op.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, Self::Error>;

    /// Bytes of a snapshot from `offset` on: at least one and at most `max`; none beyond the end, or if the document's is
    /// another one by now.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn snapshot(&mut self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Self::Error>;

    /// The heads of the document as they were at a position that is not below the horizon or beyond the tail. This default
    /// reads the log from there on.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn heads_at(&mut self, document: &DocumentId, position: u64) -> Result<Heads, Self::Error> {
        const PIECE: u64 = 1 << 20;
        let mut heads = self.document(document)?.heads;
        let (mut later, mut from) = (BTreeSet::new(), position);
        loop {
            let entries = self.read(document, from, PIECE)?;
            if entries.is_empty() {
                return Ok(heads);
            }
            from += entries.len() as u64;
            for OpId { author, seq } in entries.iter().map(|entry| entry.op.id) {
                if later.insert(author) {
                    let before = OpId { author, seq: seq - 1 };
                    let chain = self.chain(document, before)?.unwrap_or(Chain::EMPTY);
                    heads.set(author, Head { seq: before.seq, chain });
                }
            }
        }
    }

    /// Writes.
    ///
    /// # Errors
    /// If it was not written, or may not have been. The storage then still is what it was, or what the write makes it.
    fn write(&mut self, transaction: &Transaction) -> Result<(), Self::Error>;

    /// Makes everything written so far survive a loss of power.
    ///
    /// # Errors
    /// If that is not sure.
    fn sync(&mut self) -> Result<(), Self::Error>;

    /// The first position whose op is not covered by `heads`, the tail if all are, 0 if that is below the horizon; and the
    /// authors of whom `heads` has another history. This default reads the whole log; an index does better.
    ///
    /// # Errors
    /// If the storage can't be read.
    fn compare(&mut self, document: &DocumentId, heads: &Heads) -> Result<Comparison, Self::Error> {
        const PIECE: u64 = 1 << 20;
        let horizon = self.document(document)?.horizon;
        let mut comparison = Comparison::new(horizon);
        if horizon > 0 {
            comparison.scan_snapshot(&self.heads_at(document, horizon)?, heads);
        }
        let mut from = horizon;
        loop {
            let entries = self.read(document, from, PIECE)?;
            if entries.is_empty() {
                return Ok(comparison);
            }
            comparison.scan(from, entries.iter(), heads);
            from += entries.len() as u64;
        }
    }

    /// Compacts a document, of which this replica is the authority: lets `compactor` fold everything below `horizon`, and puts
    /// what comes of it in the place of that. Of the ops only some are in memory at a time; the snapshot is, whole. While a
    /// [`Replica`](crate::Replica) uses the storage, [`Input::Compact`](crate::replica::Input::Compact) is the way.
    ///
    /// # Errors
    /// If the storage can't be read or written, `horizon` is not above the one before or is beyond the tail, or the
    /// compactor does not understand what it is given. Nothing has changed then.
    fn compact<C: Compactor>(
        &mut self,
        document: &DocumentId,
        horizon: u64,
        mut compactor: C,
    ) -> Result<(), CompactError<Self::Error, C::Error>>
    where
        Self: Sized,
    {
        const PIECE: u64 = 1 << 20;
        let StoredDocument { horizon: mut from, snapshot, .. } =
            self.document(document).map_err(CompactError::Storage)?;
        if let Some(id) = snapshot {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < id.bytes {
                let piece = self.snapshot(document, id, bytes.len() as u64, PIECE).map_err(CompactError::Storage)?;
                if piece.is_empty() {
                    break; // the compactor finds it too short
                }
                bytes.extend_from_slice(&piece);
            }
            let body = bytes.get(id.head_bytes as usize..).unwrap_or_default();
            compactor.load(body).map_err(CompactError::Snapshot)?;
        }
        while from < horizon {
            let entries = self.read(document, from, PIECE).map_err(CompactError::Storage)?;
            if entries.is_empty() {
                break; // beyond the tail: the write is refused
            }
            for (position, entry) in (from..horizon).zip(&entries) {
                compactor.fold(&entry.op).map_err(|error| CompactError::Op { position, error })?;
            }
            from += entries.len() as u64;
        }
        let (document, body) = (document.clone(), compactor.finish());
        self.write(&Transaction::Compact { document, horizon, body }).map_err(CompactError::Storage)
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// Those of the operation.
    fn execute(&mut self, request: &Request) -> Result<Reply, Self::Error> {
        Ok(match request {
            Request::Open(document) => Reply::Document(self.document(document)?),
            Request::Cursor { document, peer } => Reply::Cursor(self.cursor(document, *peer)?),
            Request::Read { document, from, max_cost } => Reply::Entries(self.read(document, *from, *max_cost)?),
            Request::ReadAside { document, from, max_cost } => {
                Reply::Entries(self.read_aside(document, *from, *max_cost)?)
            }
            Request::Compare { document, heads } => Reply::Compared(self.compare(document, heads)?),
            Request::Chains { document, ids } => {
                Reply::Chains(ids.iter().map(|id| self.chain(document, *id)).collect::<Result<_, _>>()?)
            }
            Request::Snapshot { document, id, offset, max } => {
                Reply::Snapshot(self.snapshot(document, *id, *offset, *max)?)
            }
            Request::Write(transaction) => {
                self.write(transaction)?;
                Reply::Written
            }
        })
    }

    /// Carries out requests in their order, and makes the writes among them durable together where that costs less than
    /// one by one. Each has its own outcome: if one write is refused, those after it are still tried.
    fn execute_all(&mut self, requests: &[Request]) -> Vec<Result<Reply, Self::Error>> {
        requests.iter().map(|request| self.execute(request)).collect()
    }

    /// Opens the storage for a replica: the next [`Identity`], written and synced.
    ///
    /// # Errors
    /// If the storage can't be read or written.
    fn open(&mut self, continuity: Continuity, entropy: &mut Rng) -> Result<Identity, Self::Error> {
        let identity = Identity::reopen(self.identity()?, continuity, entropy);
        self.write(&Transaction::Identity(identity.clone()))?;
        self.sync()?;
        Ok(identity)
    }
}

/// Why a document was not [compacted](Storage::compact).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CompactError<S, C> {
    /// The storage failed, or refused.
    Storage(S),
    /// The compactor does not understand the snapshot that there is.
    Snapshot(C),
    /// The compactor does not understand an op.
    Op {
        /// Where it stands.
        position: u64,
        /// Why.
        error: C,
    },
}

impl<S: fmt::Display, C: fmt::Display> fmt::Display for CompactError<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => write!(f, "{error}"),
            Self::Snapshot(error) => write!(f, "the snapshot can't be folded: {error}"),
            Self::Op { position, error } => write!(f, "the op at position {position} can't be folded: {error}"),
        }
    }
}

impl<S: fmt::Debug + fmt::Display, C: fmt::Debug + fmt::Display> core::error::Error for CompactError<S, C> {}

impl StoredDocument {
    /// The state after `batch`. Every storage that keeps the state next to the entries derives it so.
    pub fn append(&mut self, batch: &Batch) {
        self.heads.extend(&batch.entries);
        self.tail = batch.tail();
        self.timelines.extend(batch.timeline.filter(|record| self.timelines.last() != Some(record)));
        let excess = self.timelines.len().saturating_sub(TIMELINES_MAX);
        self.timelines.drain(..excess);
        if let (Some(place), Some((from, to))) = (batch.salvaged, self.aside) {
            self.aside = Some((from.max(place), to)).filter(|(from, to)| from < to);
        }
    }

    /// The state after a reset.
    #[must_use]
    pub fn reset(&self, timeline: TimelineRecord) -> Self {
        let (from, to) = self.aside.unwrap_or((0, 0));
        let aside = Some((from, to + (self.tail - self.horizon))).filter(|(from, to)| from < to);
        Self { timelines: [timeline].into(), forgotten: timeline.open, aside, ..Self::default() }
    }

    /// The state after the snapshot that is staged was installed, which stands for these heads.
    #[must_use]
    pub fn install(&self, timeline: TimelineRecord, heads: Heads) -> Self {
        let snapshot = self.staged.map(|staged| staged.id);
        Self { heads, horizon: 1, tail: 1, snapshot, ..self.reset(timeline) }
    }
}

/// What [`Storage::read`] answers where entries are a list: those from `from` on that cost at most `max_cost` together, and at
/// least one.
pub fn from_on(entries: &[Entry], from: u64, max_cost: u64) -> Vec<Entry> {
    let from = usize::try_from(from).map_or(entries.len(), |from| from.min(entries.len()));
    let mut cost: u64 = 0;
    let fitting = entries[from..].iter().take_while(|entry| {
        let first = cost == 0;
        cost = cost.saturating_add(entry.op.cost());
        first || cost <= max_cost
    });
    fitting.cloned().collect()
}
