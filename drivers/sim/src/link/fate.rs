//! What becomes of a frame, and the dice that decide it.

use std::time::Duration;

use antiphon::Instant;
use antiphon::rng::Rng;

use super::Faults;

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Fate {
    /// It never arrives, for this reason. What else was decided of it then means nothing.
    pub lost: Option<Loss>,
    /// It arrives twice.
    pub duplicated: bool,
    /// The frame, and its copy if it has one.
    pub copies: [CopyFate; 2],
}

/// Why a frame never arrives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Loss {
    /// [`Faults::cut`].
    Cut,
    /// [`Faults::loss`].
    Chance,
    /// [`Faults::burst`].
    Burst,
    /// [`Faults::queue`] was full.
    Overflow,
    /// It is above [`Faults::mtu`].
    TooLarge,
}

/// What becomes of one copy of a frame.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct CopyFate {
    /// How much longer than the latency it takes.
    pub jitter: Duration,
    /// It is held back by [`Faults::reorder_delay`].
    pub held_back: bool,
    /// This bit of it, counted from the first, is another.
    pub flipped_bit: Option<u64>,
    /// When it arrives, if nothing is cut meanwhile.
    pub due: Instant,
}

impl Fate {
    /// How often it arrives, if nothing is cut meanwhile.
    pub fn arrivals(&self) -> usize {
        if self.lost.is_some() { 0 } else { 1 + usize::from(self.duplicated) }
    }

    /// The copies that are sent on their way.
    pub fn sent(&self) -> &[CopyFate] {
        &self.copies[..self.arrivals()]
    }

    pub(super) fn sent_mut(&mut self) -> &mut [CopyFate] {
        let arrivals = self.arrivals();
        &mut self.copies[..arrivals]
    }
}

/// A generator for each kind of fault. Each is drawn equally often for every frame, whatever becomes of it, so that
/// changing one fault leaves the decisions of the others as they were.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Dice {
    jitter: Rng,
    loss: Rng,
    duplicate: Rng,
    reorder: Rng,
    corrupt: Rng,
    burst: Rng,
    in_burst: bool,
}

impl Dice {
    pub(super) fn new(mut rng: Rng) -> Self {
        Self {
            jitter: rng.fork(),
            loss: rng.fork(),
            duplicate: rng.fork(),
            reorder: rng.fork(),
            corrupt: rng.fork(),
            burst: rng.fork(),
            in_burst: false,
        }
    }

    /// Decides about a frame of this many bytes. What does not befall an ordered link is left out of its fate.
    pub(super) fn roll(&mut self, faults: &Faults, bytes: usize) -> Fate {
        let turns = if self.in_burst { faults.burst.end } else { faults.burst.begin };
        self.in_burst ^= self.burst.chance(turns);
        let lost_in_burst = self.burst.chance(faults.burst.loss) && self.in_burst;
        let by_chance = self.loss.chance(faults.loss);
        let duplicated = self.duplicate.chance(faults.duplicate);
        let copies = [self.roll_copy(faults, bytes), self.roll_copy(faults, bytes)];
        if faults.ordered {
            let copies = copies.map(|copy| CopyFate { jitter: copy.jitter, ..CopyFate::default() });
            return Fate { copies, ..Fate::default() };
        }
        let lost = match (lost_in_burst, by_chance) {
            (true, _) => Some(Loss::Burst),
            (false, true) => Some(Loss::Chance),
            (false, false) => None,
        };
        Fate { lost, duplicated, copies }
    }

    fn roll_copy(&mut self, faults: &Faults, bytes: usize) -> CopyFate {
        let jitter = u64::try_from(faults.jitter.as_micros()).unwrap_or(u64::MAX);
        let corrupted = self.corrupt.chance(faults.corrupt);
        let bit = self.corrupt.below(bytes as u64 * 8);
        CopyFate {
            jitter: Duration::from_micros(self.jitter.below(jitter.saturating_add(1))),
            held_back: self.reorder.chance(faults.reorder),
            flipped_bit: (corrupted && bytes > 0).then_some(bit),
            due: Instant::ZERO, // the link knows
        }
    }
}
