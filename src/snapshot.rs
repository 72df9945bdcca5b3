//! Snapshots: what stands for all ops below a document's horizon.
//!
//! A snapshot is the heads that it stands for and a body, opaque bytes of the app's that mean the same as the ops. Both are
//! kept, sent and hashed as one run of bytes: first the heads, author by author (id, seq as varint, chain), then the body.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::heads::Heads;
use crate::op::Op;
use crate::wire::control::{pack_heads, unpack_heads};

/// Which snapshot, and how large it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SnapshotId {
    /// All its bytes.
    pub bytes: u64,
    /// How many of them, at the beginning, are the heads.
    pub head_bytes: u32,
    /// A hash over all of them.
    pub hash: [u8; 16],
}

/// A snapshot in memory.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Snapshot {
    id: SnapshotId,
    heads: Heads,
    head: Bytes,
    body: Bytes,
}

impl Snapshot {
    /// What stands for everything that `heads` cover.
    pub fn new(heads: Heads, body: Bytes) -> Self {
        let (head, ..) = pack_heads(heads.iter(), usize::MAX);
        let mut hasher = Xxh3::new();
        hasher.update(&head);
        hasher.update(&body);
        let bytes = (head.len() + body.len()) as u64;
        let id = SnapshotId { bytes, head_bytes: head.len() as u32, hash: hasher.digest128().to_le_bytes() };
        Self { id, heads, head, body }
    }

    /// Which it is.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// What it stands for.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// What the app made of it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its bytes from `offset` on: at least one and at most `max`, none beyond the end.
    pub fn read(&self, offset: u64, max: u64) -> Bytes {
        let (part, offset) = match offset.checked_sub(self.head.len() as u64) {
            Some(offset) => (&self.body, offset),
            None => (&self.head, offset),
        };
        let from = usize::try_from(offset).map_or(part.len(), |offset| offset.min(part.len()));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        part.slice(from..part.len().min(from.saturating_add(max)))
    }
}

/// Reads the bytes of a snapshot that came in pieces, and finds out whether they are what they should be. Of the bytes it
/// keeps the heads.
#[derive(Clone)]
pub struct Inspection {
    id: SnapshotId,
    read: u64,
    head: Vec<u8>,
    hasher: Xxh3,
}

impl Inspection {
    /// Nothing is read yet.
    pub fn new(id: SnapshotId) -> Self {
        Self { id, read: 0, head: Vec::new(), hasher: Xxh3::new() }
    }

    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        let lacking = (self.id.head_bytes as usize).saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(lacking)]);
        self.hasher.update(piece);
        self.read += piece.len() as u64;
    }

    /// Everything is read: the heads.
    ///
    /// # Errors
    /// If the bytes are not those of the snapshot, or what stands first is no heads.
    pub fn finish(self) -> Result<Heads, Spoiled> {
        let whole = self.read == self.id.bytes && self.head.len() == self.id.head_bytes as usize;
        if !whole || self.hasher.digest128().to_le_bytes() != self.id.hash {
            return Err(Spoiled);
        }
        let (mut heads, mut last) = (Heads::new(), None);
        unpack_heads(self.head.into(), &mut heads, &mut last).map_err(|_| Spoiled)?;
        Ok(heads)
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection").field("id", &self.id).field("read", &self.read).finish_non_exhaustive()
    }
}

/// Makes snapshots of documents whose ops it understands: see [`Storage::compact`](crate::storage::Storage::compact). That of
/// [stores](crate::store) is the [`Store`](crate::store::Store).
pub trait Compactor {
    /// Why something is not to be understood.
    type Error: fmt::Display;

    /// Begins with the body of the snapshot that the document has.
    ///
    /// # Errors
    /// If it is none of its own.
    fn load(&mut self, body: &[u8]) -> Result<(), Self::Error>;

    /// Takes in the document's next op.
    ///
    /// # Errors
    /// If it is none of those that such documents are made of. Nothing is compacted then.
    fn fold(&mut self, op: &Op) -> Result<(), Self::Error>;

    /// What stands for everything that was taken in: the body of the new snapshot.
    fn finish(&mut self) -> Bytes;
}

/// The bytes that came are not those of the snapshot that was to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spoiled;

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes that came are not those of the snapshot: it must be taken again")
    }
}

impl core::error::Error for Spoiled {}
