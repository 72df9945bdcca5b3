//! The clocks of a node, which are not those of the world.

use antiphon::Instant;

/// What a node's clocks show. Its monotonic clock has an epoch of its own and may run fast or slow; its wall clock shows
/// what it likes, and may jump.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Clock {
    /// Microseconds that the wall clock is ahead of the world's.
    pub skew: i64,
    /// Microseconds in a second by which both clocks run fast (or, below zero, slow).
    pub drift: i32,
}

/// What the wall clock of a node that is right shows when the world begins: microseconds since 1970. It is 2026 then.
pub const WALL_EPOCH: i64 = 1_767_225_600_000_000;

const MILLION: i128 = 1_000_000;

impl Clock {
    /// A clock runs at a tenth of the right speed at least.
    const DRIFT_MIN: i32 = -900_000;

    fn rate(self) -> i128 {
        MILLION + i128::from(self.drift.max(Self::DRIFT_MIN))
    }

    /// What the monotonic clock shows when the world's time is `at`.
    pub fn monotonic(self, at: Instant) -> Instant {
        if self.drift == 0 {
            return at;
        }
        let micros = i128::from(at.as_micros()) * self.rate() / MILLION;
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The first moment of the world at which the monotonic clock shows at least `local`.
    pub fn world(self, local: Instant) -> Instant {
        if self.drift == 0 {
            return local;
        }
        let micros = (i128::from(local.as_micros()) * MILLION + self.rate() - 1) / self.rate();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// What the wall clock shows when the world's time is `at`: microseconds since 1970.
    pub fn wall(self, at: Instant) -> i64 {
        let local = i64::try_from(self.monotonic(at).as_micros()).unwrap_or(i64::MAX);
        WALL_EPOCH.saturating_add(local).saturating_add(self.skew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn a_deadline_is_reached_at_the_moment_that_is_computed_for_it_and_not_before(local: u32, drift: i16) -> bool {
            let clock = Clock { skew: 0, drift: drift.into() };
            let local = Instant::from_micros(local.into());
            let at = clock.world(local);
            let before = Instant::from_micros(at.as_micros().saturating_sub(1));
            clock.monotonic(at) >= local && (at == Instant::ZERO || clock.monotonic(before) < local)
        }
    }
}
