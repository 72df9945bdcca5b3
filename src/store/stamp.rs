//! Stamps: when something was written, by a clock that all replicas share as far as they have heard of each other.

use core::fmt;
use core::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

use crate::op::ReplicaId;

const COUNTER_BITS: u32 = 24;
const CLIENT_BITS: u32 = 30;
/// The latest time that a stamp can hold, in milliseconds since 1970: 42 bits, in the year 2109.
pub const TIME_MAX: u64 = (1 << 42) - 1;
/// The last of a millisecond's stamps.
pub const COUNTER_MAX: u32 = (1 << COUNTER_BITS) - 1;
/// Characters of a stamp as text.
pub const STAMP_CHARS: usize = 16;

/// The letters of a stamp as text, six bits each; in the order of their codes, so that texts sort as stamps do.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// Who wrote, in a stamp: 30 bits. Two replicas that happen to share one, and write in the same millisecond, still
/// converge.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(u32);

impl ClientId {
    /// The highest.
    pub const MAX: Self = Self((1 << CLIENT_BITS) - 1);

    /// The low 30 bits of `bits`.
    pub const fn new(bits: u32) -> Self {
        Self(bits & Self::MAX.0)
    }

    /// The client that a replica is: the low 30 bits of the XXH3 hash of its id. A replica that renews its id is another
    /// client.
    pub fn of(replica: ReplicaId) -> Self {
        Self::new(xxh3_64(&replica.0) as u32)
    }

    /// The 30 bits.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A point in time that no other change has: milliseconds, a counter within the millisecond, and the client, in 96 bits.
///
/// As text it is sixteen letters that sort as the stamps do, the same as TinyBase writes.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Stamp([u32; 3]); // most significant first; 12 bytes, as there is one in every cell

impl Stamp {
    /// Before all others: no change has it.
    pub const ZERO: Self = Self([0; 3]);
    /// After all others.
    pub const MAX: Self = Self([u32::MAX; 3]);

    /// The stamp of these parts. `None`: the time is after [`TIME_MAX`], or the counter above [`COUNTER_MAX`].
    pub const fn new(time: u64, counter: u32, client: ClientId) -> Option<Self> {
        if time > TIME_MAX || counter > COUNTER_MAX {
            return None;
        }
        let bits = (time as u128) << (COUNTER_BITS + CLIENT_BITS) | (counter as u128) << CLIENT_BITS | client.0 as u128;
        Some(Self::from_bits(bits))
    }

    const fn from_bits(bits: u128) -> Self {
        Self([(bits >> 64) as u32, (bits >> 32) as u32, bits as u32])
    }

    fn bits(self) -> u128 {
        self.0.iter().fold(0, |bits, part| bits << 32 | u128::from(*part))
    }

    /// Milliseconds since 1970.
    pub fn time(self) -> u64 {
        (self.bits() >> (COUNTER_BITS + CLIENT_BITS)) as u64
    }

    /// The number within the millisecond.
    pub fn counter(self) -> u32 {
        (self.bits() >> CLIENT_BITS) as u32 & COUNTER_MAX
    }

    /// Who wrote.
    pub fn client(self) -> ClientId {
        ClientId::new(self.0[2])
    }

    /// The first stamp of `client` after this one, whoever it is from.
    ///
    /// # Errors
    /// If there is none: the last counter of the last millisecond is taken.
    pub fn after(self, client: ClientId) -> Result<Self, Exhausted> {
        let (time, counter) = match self.counter() {
            COUNTER_MAX => (self.time() + 1, 0),
            counter => (self.time(), counter + 1),
        };
        Self::new(time, counter, client).ok_or(Exhausted)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; STAMP_CHARS];
        let mut bits = self.bits();
        for letter in text.iter_mut().rev() {
            *letter = ALPHABET[(bits & 63) as usize];
            bits >>= 6;
        }
        text.iter().try_for_each(|letter| fmt::Write::write_char(f, char::from(*letter)))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no stamp: it has not sixteen characters of `-0-9A-Z_a-z`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadStamp;

impl fmt::Display for BadStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stamp has 16 characters of A-Z, a-z, 0-9, '-' and '_'")
    }
}

impl core::error::Error for BadStamp {}

impl FromStr for Stamp {
    type Err = BadStamp;

    fn from_str(text: &str) -> Result<Self, BadStamp> {
        if text.len() != STAMP_CHARS {
            return Err(BadStamp);
        }
        let digit = |letter: u8| ALPHABET.binary_search(&letter).map_err(|_| BadStamp);
        let bits = text.bytes().try_fold(0, |bits, letter| Ok(bits << 6 | digit(letter)? as u128))?;
        Ok(Self::from_bits(bits))
    }
}

/// There is no later stamp: clocks, here or where something was written that this comes after, are at the end of the
/// year 2109. Set the clock right; what is stamped so late can't be written over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exhausted;

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the clock, or what is to be written over, is at the last stamp there is: set the clock right")
    }
}

impl core::error::Error for Exhausted {}

/// A hybrid logical clock: not behind the wall clock, nor behind what was heard of others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// What the next stamp is to be after.
    last: Stamp,
    /// The newest stamp that was ever seen, followed or not.
    newest: Stamp,
}

impl Clock {
    /// The next stamp, at `wall` milliseconds.
    pub(super) fn next(&mut self, wall: u64, client: ClientId) -> Result<Stamp, Exhausted> {
        let first = Stamp::new(wall, 0, client).ok_or(Exhausted);
        self.last = if wall > self.last.time() { first? } else { self.last.after(client)? };
        self.newest = self.newest.max(self.last);
        Ok(self.last)
    }

    /// Whether nothing that was seen has this stamp or a later one.
    pub(super) fn is_fresh(&self, stamp: Stamp) -> bool {
        stamp > self.newest
    }

    /// Goes on where another clock is, if that is ahead.
    pub(super) fn join(&mut self, other: Self) {
        (self.last, self.newest) = (self.last.max(other.last), self.newest.max(other.newest));
    }

    /// Something was written at `wall` with a stamp, here or elsewhere. One that is further ahead than `drift_max`
    /// milliseconds is not followed. Returns how far it is ahead.
    pub(super) fn seen(&mut self, stamp: Stamp, wall: u64, drift_max: u64) -> u64 {
        let ahead = stamp.time().saturating_sub(wall);
        if ahead <= drift_max {
            self.last = self.last.max(stamp);
        }
        self.newest = self.newest.max(stamp);
        ahead
    }
}
