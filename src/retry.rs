//! When to try again: exponential backoff with a cap and jitter, as one policy for disks and connections.

use core::time::Duration;

use crate::rng::Rng;

/// Exponential backoff: the nth wait is between half and all of `min(cap, base * 2^(n-1))`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// No failures yet; the first wait is at most `base`, none is over `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// Counts one more failure and says how long to wait.
    pub fn fail(&mut self, rng: &mut Rng) -> Duration {
        let doublings = self.failures.min(30);
        self.failures = self.failures.saturating_add(1);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.cap);
        let half = ceiling / 2;
        let spread = u64::try_from((ceiling - half).as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(rng.below(spread.saturating_add(1)))
    }

    /// Forgets the failures: what was tried has worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}
