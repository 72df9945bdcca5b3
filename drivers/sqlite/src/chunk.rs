//! Chunks: how entries stand in the database, some two hundred small ones to a row.
//!
//! A chunk is a row of about a page: a layout (who authored what, and how long the bodies are), then the bodies. Seqs
//! and chains are not stored but counted up from the authors' heads before the chunk. A body that is too large for a
//! chunk stands apart, in pieces; the layout has its length and hash, so that nobody needs it to know its chain.

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::Head;
use antiphon::op::{Body, Entry, OP_OVERHEAD, OpId, Origin, ReplicaId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::seal::{Key, SEAL_BYTES, seal, unseal};

/// What a chunk may take. With it, a row just fits a page of [`PAGE_BYTES`](crate::schema::PAGE_BYTES).
pub(crate) const CHUNK_BYTES: usize = 4000;

/// The longest body within a chunk; a longer one stands apart.
pub(crate) const BODY_WITHIN_MAX: usize = CHUNK_BYTES - ENTRY_OVERHEAD_MAX;

/// The most that an entry takes beyond its body: a new author, a new origin, a run, a body that stands apart, the
/// lengths of the four lists, and the seal.
const ENTRY_OVERHEAD_MAX: usize = (16 + 10 + 10) + 11 + 9 + 16 + 12 + SEAL_BYTES;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Layout {
    /// Who authored, each with its head before the chunk.
    authors: Vec<(ReplicaId, Head)>,
    origins: Vec<Option<Origin>>,
    runs: Vec<Run>,
    bodies: Vec<Stored>,
}

/// Entries of one author that came the same way and stand together.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Run {
    author: u32,
    origin: u32,
    count: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Stored {
    /// After the layout, this long.
    Within(u32),
    Blank(BodyHash),
    /// In pieces of its own.
    Apart(u32, BodyHash),
}

/// A chunk that is being filled.
#[derive(Debug)]
pub(crate) struct Filling {
    /// The position of its first entry.
    pub(crate) first: u64,
    layout: Layout,
    bodies: Vec<u8>,
    /// At least what it takes.
    size: usize,
}

impl Filling {
    /// An empty chunk.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, layout: Layout::default(), bodies: Vec::new(), size: 12 + SEAL_BYTES }
    }

    /// A stored chunk, to be filled further. `None` if it is damaged.
    pub(crate) fn resume(key: u64, first: u64, sealed: &[u8]) -> Option<Self> {
        let (layout, bodies) = postcard::take_from_bytes::<Layout>(unseal(Key::Chunk(key), sealed)?).ok()?;
        // The lists may come to need longer lengths.
        let size = sealed.len() + 8;
        layout.fits(bodies.len()).then(|| Self { first, layout, bodies: bodies.to_vec(), size })
    }

    /// The position after the last entry.
    pub(crate) fn tail(&self) -> u64 {
        self.first + self.layout.bodies.len() as u64
    }

    /// Takes an entry whose author's head before it is `before`, unless there is no room for it.
    pub(crate) fn push(&mut self, entry: &Entry, before: Head, hash: BodyHash) -> bool {
        let author = entry.op.id.author;
        let layout = &mut self.layout;
        let last = layout.runs.last();
        let same = last.filter(|run| {
            layout.authors[run.author as usize].0 == author && layout.origins[run.origin as usize] == entry.origin
        });
        let known = match same {
            Some(run) => (Some(run.author as usize), Some(run.origin as usize)),
            None => (
                layout.authors.iter().position(|(known, _)| *known == author),
                layout.origins.iter().position(|known| *known == entry.origin),
            ),
        };
        let stored = match &entry.op.body {
            Body::Bytes(bytes) if bytes.len() <= BODY_WITHIN_MAX => Stored::Within(bytes.len() as u32),
            Body::Bytes(bytes) => Stored::Apart(bytes.len() as u32, hash),
            Body::Blank(hash) => Stored::Blank(*hash),
        };
        let body = match stored {
            Stored::Within(len) => 3 + len as usize,
            Stored::Blank(_) | Stored::Apart(..) => 16,
        };
        let needed = body
            + if same.is_some() { 1 } else { 9 }
            + if known.0.is_some() { 0 } else { 16 + 10 + 10 }
            + if known.1.is_some() { 0 } else { 11 };
        if self.size + needed > CHUNK_BYTES && !layout.bodies.is_empty() {
            return false;
        }
        self.size += needed;
        if let (true, Some(run)) = (same.is_some(), layout.runs.last_mut()) {
            run.count += 1;
        } else {
            let author = known.0.unwrap_or_else(|| {
                layout.authors.push((author, before));
                layout.authors.len() - 1
            });
            let origin = known.1.unwrap_or_else(|| {
                layout.origins.push(entry.origin);
                layout.origins.len() - 1
            });
            layout.runs.push(Run { author: author as u32, origin: origin as u32, count: 1 });
        }
        layout.bodies.push(stored);
        if let (Stored::Within(_), Body::Bytes(bytes)) = (stored, &entry.op.body) {
            self.bodies.extend_from_slice(bytes);
        }
        true
    }

    /// The chunk as it is stored under `key`.
    pub(crate) fn finish(&self, key: u64) -> Vec<u8> {
        let value = Vec::with_capacity(self.size + SEAL_BYTES);
        // Into memory, of types that have a length: nothing can fail.
        let mut value = postcard::to_extend(&self.layout, value).unwrap_or_default();
        value.extend_from_slice(&self.bodies);
        seal(Key::Chunk(key), value)
    }
}

/// A stored chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    layout: Layout,
    bodies: Bytes,
}

/// An entry as it stands in a chunk.
#[derive(Clone, Debug)]
pub(crate) struct StoredEntry {
    pub(crate) id: OpId,
    pub(crate) chain: Chain,
    pub(crate) origin: Option<Origin>,
    pub(crate) body: StoredBody,
}

#[derive(Clone, Debug)]
pub(crate) enum StoredBody {
    Here(Body),
    /// In pieces: its length and hash.
    Apart(u32, BodyHash),
}

impl StoredEntry {
    /// What [`Op::cost`](antiphon::op::Op::cost) will be.
    pub(crate) fn cost(&self) -> u64 {
        match &self.body {
            StoredBody::Here(body) => body.wire_len() as u64 + OP_OVERHEAD,
            StoredBody::Apart(len, _) => u64::from(*len) + OP_OVERHEAD,
        }
    }
}

impl Chunk {
    /// The chunk that was stored under `key`. `None` if it is damaged.
    pub(crate) fn open(key: u64, sealed: &[u8]) -> Option<Self> {
        let value = Bytes::copy_from_slice(unseal(Key::Chunk(key), sealed)?);
        let (layout, bodies) = postcard::take_from_bytes::<Layout>(&value).ok()?;
        let bodies = value.slice_ref(bodies);
        layout.fits(bodies.len()).then_some(Self { layout, bodies })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.layout.bodies.len() as u64
    }

    /// Who authored, each with its head before the chunk.
    pub(crate) fn authors(&self) -> &[(ReplicaId, Head)] {
        &self.layout.authors
    }

    /// The entries in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = StoredEntry> {
        let Layout { authors, origins, runs, bodies } = &self.layout;
        let mut heads: Vec<Head> = authors.iter().map(|(_, head)| *head).collect();
        let mut rest = self.bodies.clone();
        let ways = runs.iter().flat_map(|run| (0..run.count).map(|_| (run.author as usize, run.origin as usize)));
        ways.zip(bodies).map(move |((author, origin), stored)| {
            let (body, hash) = match *stored {
                Stored::Within(len) => {
                    let bytes = rest.split_to(len as usize);
                    let hash = BodyHash::of(&bytes);
                    (StoredBody::Here(Body::Bytes(bytes)), hash)
                }
                Stored::Blank(hash) => (StoredBody::Here(Body::Blank(hash)), hash),
                Stored::Apart(len, hash) => (StoredBody::Apart(len, hash), hash),
            };
            heads[author] = heads[author].then(hash);
            let id = OpId { author: authors[author].0, seq: heads[author].seq };
            StoredEntry { id, chain: heads[author].chain, origin: origins[origin], body }
        })
    }
}

impl Layout {
    /// Whether what it says agrees with itself and with this many bytes of bodies. A seal tells of accidents only.
    fn fits(&self, bytes: usize) -> bool {
        let count: usize = self.runs.iter().map(|run| run.count as usize).sum();
        let within = self.bodies.iter().map(|stored| match stored {
            Stored::Within(len) => *len as usize,
            Stored::Blank(_) | Stored::Apart(..) => 0,
        });
        let known =
            |run: &Run| (run.author as usize) < self.authors.len() && (run.origin as usize) < self.origins.len();
        count == self.bodies.len() && within.sum::<usize>() == bytes && self.runs.iter().all(known)
    }
}
