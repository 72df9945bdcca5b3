//! A replica's copy of a document: entries in the order in which they were made durable, a stretch of them in memory.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::heads::{Heads, Judgement};
use crate::op::{Body, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use crate::small::SmallMap;
use crate::snapshot::SnapshotId;
use crate::timeline::{History, Opens};

/// The number that stands for an author on the wire, and the seq from which live frames count.
///
/// Numbers are facts of this open of the replica: never reused, announced to a session before first use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Author {
    /// Counted per document, from 0.
    pub number: u32,
    /// Who it is.
    pub id: ReplicaId,
    /// The author's head when the number was given.
    pub base: u64,
}

/// A piece of a log: all entries from position `from` to before `to`, and the authors they need.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Chunk {
    /// The position of the first entry.
    pub from: u64,
    /// The entries, one a position.
    pub entries: Vec<Entry>,
    /// The numbers of their authors.
    pub authors: BTreeMap<ReplicaId, Author>,
}

impl Chunk {
    /// The position after the last entry.
    pub fn to(&self) -> u64 {
        self.from + self.entries.len() as u64
    }
}

/// A document's log in memory: the heads of all of it, and its entries from [`start`](Self::start) on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Log {
    history: History,
    heads: Arc<Heads>,
    horizon: u64,
    snapshot: Option<SnapshotId>,
    start: u64,
    entries: VecDeque<Entry>,
    cost: u64,
    numbers: SmallMap<ReplicaId, Author>,
}

impl Log {
    /// An empty document of a replica with these opens.
    pub fn new(opens: Arc<Opens>) -> Self {
        Self::load(History::load(opens, Vec::new(), 0, 0), Heads::new(), (0, None), 0)
    }

    /// A document whose entries below `tail` are in storage; those below the horizon only as a snapshot.
    pub fn load(
        history: History,
        heads: impl Into<Arc<Heads>>,
        (horizon, snapshot): (u64, Option<SnapshotId>),
        tail: u64,
    ) -> Self {
        let (entries, numbers) = (VecDeque::new(), SmallMap::new());
        Self { history, heads: heads.into(), horizon, snapshot, start: tail, entries, cost: 0, numbers }
    }

    /// The document's timelines.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What is held, per author.
    pub fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }

    /// The first position that entries exist for; below is only the snapshot.
    pub fn horizon(&self) -> u64 {
        self.horizon
    }

    /// The snapshot that stands for the entries below the horizon.
    pub fn snapshot(&self) -> Option<SnapshotId> {
        self.snapshot
    }

    /// The first position whose entry is in memory.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position after the last entry.
    pub fn tail(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// What the entries in memory cost, in bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The entries in memory, from [`start`](Self::start) on.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Makes the author's next op of `body` and appends it.
    pub fn append(&mut self, author: ReplicaId, body: Body) -> OpId {
        let id = OpId { author, seq: self.heads.get(author).seq + 1 };
        self.take(Op { id, body }, None);
        id
    }

    /// Appends `op`, which came from `origin`, if it is its author's next.
    pub fn take(&mut self, op: Op, origin: Option<Origin>) -> Judgement {
        let head = self.heads.get(op.id.author);
        let judgement = head.judge(op.id.seq);
        if judgement == Judgement::Next {
            let chain = head.then(op.body.hash()).chain;
            self.extend(&[Entry { op, chain, origin }]);
        }
        judgement
    }

    /// Appends entries, each its author's next; they, and the current timeline, are durable.
    pub fn extend(&mut self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        self.history.recorded();
        Arc::make_mut(&mut self.heads).extend(entries);
        self.cost += entries.iter().map(|entry| entry.op.cost()).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Gives the document a timeline of its own from the tail on.
    pub fn begin(&mut self, timeline: Timeline) {
        let tail = self.tail();
        self.history.begin(timeline, tail);
    }

    /// The current timeline is durable, though nothing was appended in it.
    pub fn recorded(&mut self) {
        self.history.recorded();
    }

    /// Forgets the oldest entries until those in memory cost at most `cost`.
    pub fn trim(&mut self, cost: u64) {
        while self.cost > cost {
            let Some(entry) = self.entries.pop_front() else { return };
            self.cost -= entry.op.cost();
            self.start += 1;
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// The entries from `from` on that cost at most `max_cost` together, and at least one. `None` if they are not in
    /// memory, or there are none.
    pub fn read(&mut self, from: u64, max_cost: u64) -> Option<Chunk> {
        let first = usize::try_from(from.checked_sub(self.start)?).ok()?;
        let mut cost = 0;
        let fitting = self.entries.range(first.min(self.entries.len())..).take_while(|entry| {
            let fits = cost == 0 || cost + entry.op.cost() <= max_cost;
            cost += entry.op.cost();
            fits
        });
        let entries: Vec<_> = fitting.cloned().collect();
        (!entries.is_empty()).then(|| self.chunk(from, entries))
    }

    /// A chunk of entries of this document that were read elsewhere.
    pub fn chunk(&mut self, from: u64, entries: Vec<Entry>) -> Chunk {
        let mut authors = BTreeMap::new();
        let mut last = None;
        for entry in &entries {
            let id = entry.op.id.author;
            if last != Some(id) {
                authors.insert(id, self.author(id));
                last = Some(id);
            }
        }
        Chunk { from, entries, authors }
    }

    /// The author's number, given now if it has none.
    pub fn author(&mut self, id: ReplicaId) -> Author {
        if let Some(author) = self.numbers.get(id) {
            return *author;
        }
        let author = Author { number: self.numbers.len() as u32, id, base: self.heads.get(id).seq };
        self.numbers.insert(id, author);
        author
    }

    /// The entries below `horizon` exist only as a snapshot from now on.
    pub fn compacted(&mut self, horizon: u64, snapshot: Option<SnapshotId>) {
        (self.horizon, self.snapshot) = (horizon, snapshot);
        while self.start < horizon
            && let Some(entry) = self.entries.pop_front()
        {
            self.cost -= entry.op.cost();
            self.start += 1;
        }
    }

    /// Compares with a peer's heads, if all entries are in memory.
    pub fn compare(&self, heads: &Heads) -> Option<Comparison> {
        (self.start == 0 && self.horizon == 0).then(|| {
            let mut comparison = Comparison::new(0);
            comparison.scan(self.start, self.entries.iter(), heads);
            comparison
        })
    }
}

/// What a peer's heads say about a log.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Comparison {
    /// The first position whose op the peer lacks; the tail if it lacks none, 0 if it lacks some that exist only in the
    /// snapshot.
    pub from: u64,
    /// Authors whose op at the peer's head has another history here: forks.
    pub forks: Vec<ReplicaId>,
}

impl Comparison {
    /// Nothing compared yet; scanning starts at `from`.
    pub fn new(from: u64) -> Self {
        Self { from, forks: Vec::new() }
    }

    /// Looks at what a snapshot stands for, before any entries. Of ops below its last of an author's nothing tells whether
    /// the peer has others.
    pub fn scan_snapshot(&mut self, snapshot: &Heads, heads: &Heads) {
        for (author, head) in snapshot.iter() {
            let theirs = heads.get(author);
            if theirs.seq < head.seq {
                self.from = 0;
            } else if theirs.seq == head.seq && theirs.chain != head.chain {
                self.forks.push(author);
            }
        }
    }

    /// Goes through the next entries of the log, of which the first stands at `position`.
    pub fn scan<'a>(&mut self, position: u64, entries: impl Iterator<Item = &'a Entry>, heads: &Heads) {
        for (position, entry) in (position..).zip(entries) {
            let id = entry.op.id;
            let theirs = heads.get(id.author);
            if id.seq == theirs.seq && entry.chain != theirs.chain {
                self.forks.push(id.author);
            }
            if self.from == position && id.seq <= theirs.seq {
                self.from += 1;
            }
        }
    }
}
