//! Fast 64- and 128-bit hashes (XXH3) for bodies, chains, heads and states. They catch accidents, not forgers.

use core::fmt;
use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// The hash of an op's body. A blank keeps it in place of the body.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BodyHash(pub u64);

impl BodyHash {
    /// The hash of `body`.
    pub fn of(body: &[u8]) -> Self {
        Self(xxh3_64(body))
    }
}

/// The running hash over one author's bodies in one document, from seq 1 on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Chain(pub u64);

impl Chain {
    /// The chain before an author's first op.
    pub const EMPTY: Self = Self(0);

    /// The chain with one more body.
    #[must_use]
    pub fn then(self, body: BodyHash) -> Self {
        Self(xxh3_64_with_seed(&body.0.to_le_bytes(), self.0))
    }
}

/// The canonical 128-bit digest of a state: the same on every machine, for states that behave alike.
///
/// All containers in the core are ordered, so deriving `Hash` gives one sequence of values a state; here they are
/// written with a fixed width and byte order.
pub fn state_digest(state: &impl Hash) -> u128 {
    let mut hasher = Canonical::default();
    state.hash(&mut hasher);
    hasher.0.digest128()
}

/// A hasher that comes to the same on every machine, for values whose containers are ordered: one after the other, as
/// many as there are.
#[derive(Clone, Default)]
pub struct Canonical(Xxh3);

impl Canonical {
    /// Forgets what it was given.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Canonical").field(&self.0.digest()).finish()
    }
}

macro_rules! little_endian {
    ($($method:ident: $number:ty as $wide:ty),*) => {
        $(fn $method(&mut self, i: $number) { self.0.update(&(i as $wide).to_le_bytes()); })*
    };
}

impl Hasher for Canonical {
    fn finish(&self) -> u64 {
        self.0.digest()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    little_endian!(write_u8: u8 as u8, write_u16: u16 as u16, write_u32: u32 as u32, write_u64: u64 as u64,
        write_u128: u128 as u128, write_usize: usize as u64, write_isize: isize as i64);
}
