//! Seals: every value in the database carries a checksum over itself and over the key that it belongs to.
//!
//! SQLite notices damage only where it makes nonsense of its own structures. With a seal, a flipped bit in a value, or
//! a value under a key that is not its own, is noticed by whoever reads it, before it is believed.

use antiphon::digest::{BodyHash, Chain};
use antiphon::op::ReplicaId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a value belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'a> {
    Identity,
    Record(u64, &'a str),
    Standing(u64, ReplicaId),
    Chunk(u64),
    /// Of a snapshot, the bytes from there on.
    Snapshot(u64, u64),
}

impl Key<'_> {
    fn seed(self) -> Chain {
        let table = |number, log| Chain(number).then(BodyHash(log));
        match self {
            Key::Identity => table(1, 0),
            Key::Record(log, name) => table(2, log).then(BodyHash::of(name.as_bytes())),
            Key::Standing(log, replica) => table(3, log).then(BodyHash::of(&replica.0)),
            Key::Chunk(key) => table(4, key),
            Key::Snapshot(number, start) => table(5, number).then(BodyHash(start)),
        }
    }

    fn checksum(self, value: &[u8]) -> [u8; SEAL_BYTES] {
        self.seed().then(BodyHash::of(value)).0.to_le_bytes()
    }
}

/// Bytes that a seal takes.
pub(crate) const SEAL_BYTES: usize = size_of::<u64>();

/// Puts the seal at the end of `value`.
pub(crate) fn seal(key: Key<'_>, mut value: Vec<u8>) -> Vec<u8> {
    let checksum = key.checksum(&value);
    value.extend_from_slice(&checksum);
    value
}

/// The value without its seal; `None` if the seal is broken.
pub(crate) fn unseal<'a>(key: Key<'_>, sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, checksum) = sealed.split_last_chunk()?;
    (*checksum == key.checksum(value)).then_some(value)
}

/// A value as it is stored.
pub(crate) fn pack(key: Key<'_>, value: &impl Serialize) -> Vec<u8> {
    // Into memory, of types that have a length: nothing can fail.
    seal(key, postcard::to_allocvec(value).unwrap_or_default())
}

/// A stored value; `None` if it is damaged.
pub(crate) fn unpack<T: DeserializeOwned>(key: Key<'_>, sealed: &[u8]) -> Option<T> {
    postcard::from_bytes(unseal(key, sealed)?).ok()
}
