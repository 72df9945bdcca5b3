//! The session's clocks: what it waits for, and until when.

use core::time::Duration;

use crate::time::Instant;

/// Why a session wants to be woken.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Timer {
    /// The handshake must be finished.
    Handshake,
    /// Hello, or what the peer has not confirmed, goes out again (datagrams only).
    Repeat,
    /// Acknowledgements that were held back go out.
    Ack,
    /// Missing ranges are asked for (datagrams only).
    Rewind,
    /// What was sent and not received is sent again (datagrams only).
    Retransmit,
    /// Nothing was heard for a while: ask.
    Ping,
    /// Nothing was heard for too long: give up.
    Silence,
}

const COUNT: usize = Timer::Silence as usize + 1;

/// When each timer is due. Setting one again replaces it; there is nothing to cancel but an entry.
#[derive(Clone, Debug, Hash)]
pub(super) struct Timers([Instant; COUNT]);

/// When a timer is due that is not set: the earliest of them is looked for after each input.
const NEVER: Instant = Instant::from_micros(u64::MAX);

impl Timers {
    pub(super) const fn new() -> Self {
        Self([NEVER; COUNT])
    }

    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }

    /// Sets the timer unless it is due earlier anyway.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.0[timer as usize];
        *slot = at.min(*slot);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = NEVER;
    }

    /// Whether the timer is due at `now`; if so, it is stopped.
    pub(super) fn fired(&mut self, timer: Timer, now: Instant) -> bool {
        let slot = &mut self.0[timer as usize];
        let due = *slot <= now;
        if due {
            *slot = NEVER;
        }
        due
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.into_iter().min().filter(|at| *at != NEVER)
    }
}

/// The smoothed round trip time and the wait for a retransmission, after RFC 6298.
#[derive(Clone, Debug, Hash)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
}

/// The wait before the round trip is known.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The shortest and the longest wait.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(4));

impl RoundTrip {
    pub(super) const fn new() -> Self {
        Self { smoothed: None, variation: Duration::ZERO }
    }

    pub(super) fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(rtt), rtt / 2),
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// How long to wait for an answer that the peer may hold back for `delay`, after `tries` that had none.
    pub(super) fn wait(&self, delay: Duration, tries: u32) -> Duration {
        let wait = self.smoothed.map_or(FIRST_WAIT, |smoothed| smoothed + 4 * self.variation + delay);
        wait.max(WAIT.0).saturating_mul(1 << tries.min(8)).min(WAIT.1)
    }
}
