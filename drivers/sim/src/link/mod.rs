//! One direction of a network path that delays, loses, duplicates, reorders and corrupts what it carries.
//!
//! A path in both directions is two links, which may have different faults: a half-open connection is a pair of which
//! one is cut.

mod fate;
mod faults;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use antiphon::rng::Rng;
use antiphon::{Instant, Machine};
use bytes::Bytes;

pub use fate::{CopyFate, Fate, Loss};
pub use faults::{BadFaults, Burst, Faults};

use fate::Dice;

/// One direction of a path. Its outputs are the frames that arrive.
///
/// Every input first delivers, or loses, all that was due by then, under the faults that were in force until then. So
/// a late timer delays a frame but does not change its fate.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Link {
    faults: Faults,
    dice: Dice,
    now: Instant,
    next_sequence: u64,
    /// Frames by when they arrive and which was sent first, with the numbers that the sender gave them.
    in_flight: BTreeMap<(Instant, u64), (u64, Bytes)>,
    /// When everything that was sent will have gone through the bandwidth.
    through_at: Instant,
    ready: VecDeque<(u64, Bytes)>,
    counters: Counters,
}

/// What happens to a [`Link`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Input {
    /// The sender hands over a frame.
    Frame(Bytes),
    /// The deadline has come.
    Timer,
    /// From now on, these faults. Frames in flight keep the delivery times and damage that they have.
    Faults(Faults),
}

impl Link {
    /// An empty link. `rng` fixes the fate of every frame.
    pub fn new(faults: Faults, rng: Rng) -> Self {
        Self {
            faults,
            dice: Dice::new(rng),
            now: Instant::ZERO,
            next_sequence: 0,
            in_flight: BTreeMap::new(),
            through_at: Instant::ZERO,
            ready: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What the link did so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What is wrong with it.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether nothing is in flight, and nothing has arrived that was not polled.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.ready.is_empty()
    }

    /// When something can next be polled: at once if it can be now.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.ready.is_empty() { self.deadline() } else { Some(self.now) }
    }

    /// When the last frame in flight arrives.
    pub(crate) fn last_due(&self) -> Option<Instant> {
        self.in_flight.last_key_value().map(|(&(at, _), _)| at)
    }

    /// The next frame that has arrived, as by [`poll`](Machine::poll), with its number.
    pub fn arrived(&mut self) -> Option<(u64, Bytes)> {
        self.ready.pop_front()
    }

    /// Everything in flight is gone.
    pub fn clear(&mut self) {
        self.counters.lost += self.in_flight.len() as u64;
        self.in_flight.clear();
    }

    /// The sender hands over a frame, as by [`Input::Frame`]; says what becomes of it, as far as that is decided now.
    /// `change` may have another opinion than the dice, who decide as often as without it. By its `number` it is known
    /// again where it [arrives](Self::arrived).
    pub fn send(&mut self, now: Instant, number: u64, frame: Bytes, change: impl FnOnce(&mut Fate)) -> Fate {
        self.move_on(now);
        self.counters.sent += 1;
        self.counters.bytes += frame.len() as u64;
        let mut fate = self.dice.roll(&self.faults, frame.len());
        change(&mut fate);
        fate.lost = self.refusal(frame.len() as u64).or(fate.lost);
        let refused = matches!(fate.lost, Some(Loss::Cut | Loss::Overflow | Loss::TooLarge));
        let sent_at = if refused { self.now } else { self.through(frame.len() as u64) };
        match fate.lost {
            Some(Loss::Overflow) => self.counters.overflowed += 1,
            Some(Loss::TooLarge) => self.counters.oversized += 1,
            Some(Loss::Burst) => self.counters.in_bursts += 1,
            Some(Loss::Chance | Loss::Cut) | None => {}
        }
        self.counters.lost += u64::from(fate.lost.is_some());
        self.counters.duplicated += u64::from(fate.sent().len() == 2);
        for copy in fate.sent_mut() {
            self.schedule(number, frame.clone(), sent_at, copy);
        }
        self.deliver_due(); // a frame without latency arrives at once
        fate
    }

    /// Why a frame of this size can't go through, whatever the dice say.
    fn refusal(&self, bytes: u64) -> Option<Loss> {
        let Faults { cut, mtu, queue, bandwidth, ordered, .. } = self.faults;
        let waiting = self.through_at.since(self.now).as_micros() * u128::from(bandwidth) / 1_000_000;
        let full = bandwidth > 0 && queue > 0 && waiting + u128::from(bytes) > u128::from(queue);
        match () {
            () if cut => Some(Loss::Cut),
            () if ordered => None,
            () if mtu > 0 && bytes > mtu => Some(Loss::TooLarge),
            () if full => Some(Loss::Overflow),
            () => None,
        }
    }

    /// When a frame of this size is through the bandwidth.
    fn through(&mut self, bytes: u64) -> Instant {
        if self.faults.bandwidth == 0 {
            return self.now;
        }
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000).div_ceil(self.faults.bandwidth));
        self.through_at = self.through_at.max(self.now) + takes;
        self.through_at
    }

    fn schedule(&mut self, number: u64, mut frame: Bytes, sent_at: Instant, fate: &mut CopyFate) {
        let mut deliver_at = sent_at + self.faults.latency + fate.jitter;
        if self.faults.ordered {
            let last = self.in_flight.last_key_value().map(|(&(at, _), _)| at);
            deliver_at = last.map_or(deliver_at, |last| last.max(deliver_at));
        }
        if fate.held_back {
            self.counters.reordered += 1;
            deliver_at = deliver_at + self.faults.reorder_delay;
        }
        if let Some(bit) = fate.flipped_bit {
            self.counters.corrupted += 1;
            frame = flip(&frame, bit);
        }
        fate.due = deliver_at;
        self.in_flight.insert((deliver_at, self.next_sequence), (number, frame));
        self.next_sequence += 1;
    }

    fn deliver_due(&mut self) {
        while let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let frame = entry.remove();
            if self.faults.cut {
                self.counters.lost += 1;
            } else {
                self.counters.delivered += 1;
                self.ready.push_back(frame);
            }
        }
    }

    fn move_on(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.deliver_due();
    }
}

impl Machine for Link {
    type Input = Input;
    type Output = Bytes;
    type Misuse = Infallible;

    fn handle(&mut self, now: Instant, input: Input) -> Result<(), Infallible> {
        match input {
            Input::Frame(frame) => _ = self.send(now, 0, frame, |_| {}),
            Input::Timer => self.move_on(now),
            Input::Faults(faults) => {
                self.move_on(now);
                self.faults = faults;
                self.deliver_due();
            }
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Bytes> {
        self.arrived().map(|(_, frame)| frame)
    }

    fn deadline(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|(&(at, _), _)| at)
    }
}

fn flip(frame: &[u8], bit: u64) -> Bytes {
    let mut damaged = frame.to_vec();
    damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
    damaged.into()
}

/// What a link did. Once nothing is in flight, `sent + duplicated == delivered + lost`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Counters {
    /// Frames that the sender handed over.
    pub sent: u64,
    /// Frames that arrived, copies included.
    pub delivered: u64,
    /// Frames that did not arrive, whatever the reason; copies that a cut caught in flight included.
    pub lost: u64,
    /// Frames among the lost that were lost in bursts.
    pub in_bursts: u64,
    /// Frames among the lost that found the queue full.
    pub overflowed: u64,
    /// Frames among the lost that were too large.
    pub oversized: u64,
    /// Frames that were sent on their way twice.
    pub duplicated: u64,
    /// Frames, copies included, that were held back; whether another overtook them depends on the traffic.
    pub reordered: u64,
    /// Frames, copies included, that had a bit flipped.
    pub corrupted: u64,
    /// Bytes in the frames that the sender handed over: what sending cost, whatever became of it.
    pub bytes: u64,
}

impl Counters {
    /// Adds what another link did.
    pub const fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.in_bursts += other.in_bursts;
        self.overflowed += other.overflowed;
        self.oversized += other.oversized;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.bytes += other.bytes;
    }
}
