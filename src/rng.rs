//! Randomness as a value: a small integer generator that is seeded by the driver and forked, never shared.

use core::fmt;
use core::str::FromStr;

/// xoshiro256** by Blackman and Vigna (2018), seeded through SplitMix64. Integers only, so that a seed gives the same
/// run on every machine. Not for secrets.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Rng([u64; 4]);

impl Rng {
    /// A generator whose whole future is fixed by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(core::array::from_fn(|_| split_mix(&mut state)))
    }

    /// A generator from 256 bits, for instance of the system's entropy.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(entropy.chunks_exact(8)) {
            *word = u64::from_le_bytes(core::array::from_fn(|i| chunk[i]));
        }
        if words == [0; 4] {
            return Self::new(0); // the one state that xoshiro can't leave
        }
        let mut rng = Self(words);
        rng.next_u64(); // the first output shows a single word of the seed as it stands
        rng
    }

    /// A generator of its own for a component: drawing from it does not disturb this one.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`, evenly spread; 0 if `bound` is 0. (Lemire's multiply and shift, without the rejection
    /// step: the bias is below `bound / 2^64`.)
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `ratio` of all calls.
    pub fn chance(&mut self, ratio: Ratio) -> bool {
        self.below(u64::from(ratio.denominator)) < u64::from(ratio.numerator)
    }

    /// Sixteen random bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        out[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        out
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A probability as a fraction of whole numbers, written `N/M`: no floating point, so no rounding that differs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ratio {
    numerator: u32,
    denominator: u32,
}

impl Ratio {
    /// Never.
    pub const NEVER: Self = Self { numerator: 0, denominator: 1 };
    /// Always.
    pub const ALWAYS: Self = Self { numerator: 1, denominator: 1 };

    /// `numerator` in `denominator` times; `None` unless `numerator <= denominator` and `denominator > 0`.
    pub const fn new(numerator: u32, denominator: u32) -> Option<Self> {
        if denominator == 0 || numerator > denominator { None } else { Some(Self { numerator, denominator }) }
    }

    /// Once in `denominator` times.
    ///
    /// # Panics
    /// If `denominator` is 0.
    pub const fn one_in(denominator: u32) -> Self {
        assert!(denominator > 0, "a ratio's denominator is at least 1");
        Self { numerator: 1, denominator }
    }

    /// This part of `number`, rounded down.
    pub fn of(self, number: u64) -> u64 {
        (u128::from(number) * u128::from(self.numerator) / u128::from(self.denominator)) as u64
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

/// Why a text is not a [`Ratio`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRatio;

impl fmt::Display for BadRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a ratio is written N/M with whole numbers, N at most M, M at least 1; for instance 1/20")
    }
}

impl core::error::Error for BadRatio {}

impl FromStr for Ratio {
    type Err = BadRatio;

    fn from_str(text: &str) -> Result<Self, BadRatio> {
        let (numerator, denominator) = text.split_once('/').ok_or(BadRatio)?;
        let number = |digits: &str| digits.parse().map_err(|_| BadRatio);
        Self::new(number(numerator)?, number(denominator)?).ok_or(BadRatio)
    }
}
