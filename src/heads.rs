//! Heads: per author the highest seq held and the chain there. What others call a version vector, with a hash.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::digest::{BodyHash, Chain};
use crate::op::{Entry, OpId, ReplicaId};
use crate::small::SmallMap;

/// How far one author's ops are held, and the chain there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Head {
    /// The highest seq held; all below are held too. 0: none.
    pub seq: u64,
    /// The author's chain at `seq`.
    pub chain: Chain,
}

impl Head {
    /// Nothing of this author.
    pub const NONE: Self = Self { seq: 0, chain: Chain::EMPTY };

    /// The head after the author's next op.
    #[must_use]
    pub fn then(self, body: BodyHash) -> Self {
        Self { seq: self.seq + 1, chain: self.chain.then(body) }
    }

    /// How an op with this `seq` stands to what is held.
    pub fn judge(self, seq: u64) -> Judgement {
        if seq <= self.seq {
            Judgement::Duplicate
        } else if seq == self.seq + 1 {
            Judgement::Next
        } else {
            Judgement::Gap
        }
    }
}

/// How an op stands to the heads of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It is the author's next: apply it.
    Next,
    /// It is held already.
    Duplicate,
    /// Ops of this author are missing before it: it must not be applied.
    Gap,
}

/// All authors' heads in one document, with their digest kept as they grow.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(from = "Vec<(ReplicaId, Head)>", into = "Vec<(ReplicaId, Head)>")]
pub struct Heads {
    authors: SmallMap<ReplicaId, Weighed>,
    digest: u64,
}

/// A head, and what it weighs in the digest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Weighed {
    head: Head,
    weight: u64,
}

impl Heads {
    /// No heads: an empty document.
    pub const fn new() -> Self {
        Self { authors: SmallMap::new(), digest: 0 }
    }

    /// The head of `author`; [`Head::NONE`] if nothing is held.
    pub fn get(&self, author: ReplicaId) -> Head {
        self.authors.get(author).map_or(Head::NONE, |weighed| weighed.head)
    }

    /// Whether the op is held.
    pub fn covers(&self, id: OpId) -> bool {
        id.seq <= self.get(id.author).seq
    }

    /// Whether all that `others` cover is held.
    pub fn cover(&self, others: &Self) -> bool {
        others.iter().all(|(author, head)| head.seq <= self.get(author).seq)
    }

    /// Sets an author's head, whatever it was.
    pub fn set(&mut self, author: ReplicaId, head: Head) {
        let before = if head == Head::NONE {
            self.authors.remove(author)
        } else {
            let weight = weight(author, head);
            self.digest = self.digest.wrapping_add(weight);
            self.authors.insert(author, Weighed { head, weight })
        };
        self.digest = self.digest.wrapping_sub(before.map_or(0, |before| before.weight));
    }

    /// Moves the heads of the authors of `entries`, each of which is its author's next, to the last of them.
    pub fn extend<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) {
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            let author = entry.op.id.author;
            // Ops of one author mostly stand together: the last of them says it all.
            if entries.peek().is_none_or(|next| next.op.id.author != author) {
                self.set(author, Head { seq: entry.op.id.seq, chain: entry.chain });
            }
        }
    }

    /// How many ops they cover.
    pub fn ops(&self) -> u64 {
        self.iter().fold(0, |ops, (_, head)| ops.saturating_add(head.seq))
    }

    /// One hash over all heads. Equal heads have equal digests; the digest of no heads is 0.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The authors in order, with their heads.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, Head)> + '_ {
        self.after(None)
    }

    /// The authors after `author` in order (all, for `None`), with their heads.
    pub fn after(&self, author: Option<ReplicaId>) -> impl Iterator<Item = (ReplicaId, Head)> + '_ {
        self.authors.after(author).map(|(author, weighed)| (*author, weighed.head))
    }

    /// How many authors there are.
    pub fn len(&self) -> usize {
        self.authors.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.authors.len() == 0
    }
}

impl From<Vec<(ReplicaId, Head)>> for Heads {
    fn from(heads: Vec<(ReplicaId, Head)>) -> Self {
        heads.into_iter().collect()
    }
}

impl From<Heads> for Vec<(ReplicaId, Head)> {
    fn from(heads: Heads) -> Self {
        heads.iter().collect()
    }
}

impl FromIterator<(ReplicaId, Head)> for Heads {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, Head)>>(heads: I) -> Self {
        let mut all = Self::new();
        heads.into_iter().for_each(|(author, head)| all.set(author, head));
        all
    }
}

/// The digest is the wrapping sum of these, so it can be kept in constant time an op.
fn weight(author: ReplicaId, head: Head) -> u64 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&author.0);
    bytes[16..24].copy_from_slice(&head.seq.to_le_bytes());
    bytes[24..].copy_from_slice(&head.chain.0.to_le_bytes());
    xxh3_64(&bytes)
}
