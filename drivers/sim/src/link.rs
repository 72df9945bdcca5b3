//! One direction of a network path that delays, loses, duplicates, reorders and corrupts what it carries.
//!
//! A path in both directions is two links, which may have different faults: a half-open connection is a pair of which
//! one is cut.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use antiphon::rng::{Ratio, Rng};
use antiphon::{Instant, Machine};
use bytes::Bytes;

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
    in_flight: BTreeMap<(Instant, u64), Bytes>,
    ready: VecDeque<Bytes>,
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
            ready: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What the link did so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    fn send(&mut self, frame: Bytes) {
        let fate = self.dice.roll(&self.faults, &frame);
        self.counters.sent += 1;
        self.counters.bytes += frame.len() as u64;
        let faulty = !self.faults.ordered;
        if self.faults.cut || faulty && fate.lost {
            self.counters.lost += 1;
            return;
        }
        let duplicated = faulty && fate.duplicated;
        self.counters.duplicated += u64::from(duplicated);
        for copy in fate.copies.into_iter().take(1 + usize::from(duplicated)) {
            self.schedule(frame.clone(), copy);
        }
    }

    fn schedule(&mut self, mut frame: Bytes, fate: CopyFate) {
        let mut deliver_at = self.now + self.faults.latency + fate.jitter;
        if self.faults.ordered {
            let last = self.in_flight.last_key_value().map(|(&(at, _), _)| at);
            deliver_at = last.map_or(deliver_at, |last| last.max(deliver_at));
        } else {
            if fate.held_back {
                self.counters.reordered += 1;
                deliver_at = deliver_at + self.faults.reorder_delay;
            }
            if let Some(bit) = fate.flipped_bit {
                self.counters.corrupted += 1;
                frame = flip(&frame, bit);
            }
        }
        self.in_flight.insert((deliver_at, self.next_sequence), frame);
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
}

impl Machine for Link {
    type Input = Input;
    type Output = Bytes;
    type Misuse = Infallible;

    fn handle(&mut self, now: Instant, input: Input) -> Result<(), Infallible> {
        self.now = self.now.max(now);
        self.deliver_due();
        match input {
            Input::Frame(frame) => self.send(frame),
            Input::Timer => {}
            Input::Faults(faults) => self.faults = faults,
        }
        self.deliver_due(); // a frame without latency arrives at once
        Ok(())
    }

    fn poll(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|(&(at, _), _)| at)
    }
}

pub(crate) fn flip(frame: &[u8], bit: u64) -> Bytes {
    let mut damaged = frame.to_vec();
    damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
    damaged.into()
}

/// A generator for each kind of fault. Each is drawn equally often for every frame, whatever becomes of it, so that
/// changing one fault leaves the decisions of the others as they were.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Dice {
    jitter: Rng,
    loss: Rng,
    duplicate: Rng,
    reorder: Rng,
    corrupt: Rng,
}

struct Fate {
    lost: bool,
    duplicated: bool,
    copies: [CopyFate; 2],
}

struct CopyFate {
    jitter: Duration,
    held_back: bool,
    flipped_bit: Option<u64>,
}

impl Dice {
    fn new(mut rng: Rng) -> Self {
        Self { jitter: rng.fork(), loss: rng.fork(), duplicate: rng.fork(), reorder: rng.fork(), corrupt: rng.fork() }
    }

    fn roll(&mut self, faults: &Faults, frame: &[u8]) -> Fate {
        Fate {
            lost: self.loss.chance(faults.loss),
            duplicated: self.duplicate.chance(faults.duplicate),
            copies: [self.roll_copy(faults, frame), self.roll_copy(faults, frame)],
        }
    }

    fn roll_copy(&mut self, faults: &Faults, frame: &[u8]) -> CopyFate {
        let jitter = u64::try_from(faults.jitter.as_micros()).unwrap_or(u64::MAX);
        let corrupted = self.corrupt.chance(faults.corrupt);
        let bit = self.corrupt.below(frame.len() as u64 * 8);
        CopyFate {
            jitter: Duration::from_micros(self.jitter.below(jitter.saturating_add(1))),
            held_back: self.reorder.chance(faults.reorder),
            flipped_bit: (corrupted && !frame.is_empty()).then_some(bit),
        }
    }
}

/// What a link did. Once nothing is in flight, `sent + duplicated == delivered + lost`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Counters {
    /// Frames that the sender handed over.
    pub sent: u64,
    /// Frames that arrived, copies included.
    pub delivered: u64,
    /// Frames that did not arrive, by loss or by a cut; copies that a cut caught in flight included.
    pub lost: u64,
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
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.bytes += other.bytes;
    }
}

/// What is wrong with a link. As text, it is words such as
/// `latency=20ms jitter=5ms loss=1/20 duplicate=1/50 reorder=1/20 reorder_delay=10ms corrupt=1/1000 cut ordered`,
/// each optional and in any order; a link without faults is the empty text. Durations are whole numbers of `s`, `ms`,
/// `us` or `ns`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Faults {
    /// How long every frame takes, at least.
    pub latency: Duration,
    /// How much longer a frame may take: evenly spread from zero to this, both included. Unless the link is ordered,
    /// frames may overtake each other by it.
    pub jitter: Duration,
    /// How many frames never arrive.
    pub loss: Ratio,
    /// How many frames arrive twice. The copies are delayed and corrupted each for itself.
    pub duplicate: Ratio,
    /// How many frames are held back by `reorder_delay`.
    pub reorder: Ratio,
    /// How much later a frame arrives that is held back.
    pub reorder_delay: Duration,
    /// How many frames have one random bit flipped. Empty frames have none to flip.
    pub corrupt: Ratio,
    /// Nothing passes: what is sent meanwhile is lost, and so is what would be delivered meanwhile. This holds for an
    /// ordered link too. As a reliable transport breaks rather than skip a frame, whoever heals a cut replaces the link.
    pub cut: bool,
    /// A reliable transport: frames arrive once, whole, and in the order in which they were sent. Of the other faults,
    /// only latency, jitter and the cut apply.
    pub ordered: bool,
}

impl Faults {
    /// A perfect link: what is sent arrives at once.
    pub const NONE: Self = Self {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: Ratio::NEVER,
        duplicate: Ratio::NEVER,
        reorder: Ratio::NEVER,
        reorder_delay: Duration::ZERO,
        corrupt: Ratio::NEVER,
        cut: false,
        ordered: false,
    };

    /// A perfect link that stays in order when latency and jitter are added.
    pub const RELIABLE: Self = Self { ordered: true, ..Self::NONE };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = |name, value| (value != Duration::ZERO).then(|| format!("{name}={}", duration_text(value)));
        let ratio = |name, value| (value != Ratio::NEVER).then(|| format!("{name}={value}"));
        let flag = |name: &str, value: bool| value.then(|| name.to_owned());
        let words = [
            duration("latency", self.latency),
            duration("jitter", self.jitter),
            ratio("loss", self.loss),
            ratio("duplicate", self.duplicate),
            ratio("reorder", self.reorder),
            duration("reorder_delay", self.reorder_delay),
            ratio("corrupt", self.corrupt),
            flag("cut", self.cut),
            flag("ordered", self.ordered),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl FromStr for Faults {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, BadFaults> {
        let mut faults = Self::NONE;
        let mut seen = Vec::new();
        for word in text.split_whitespace() {
            let bad = |expected| BadFaults { word: word.to_owned(), expected };
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let duration = || value.and_then(parse_duration).ok_or_else(|| bad(DURATION));
            let ratio = || value.and_then(|value| value.parse().ok()).ok_or_else(|| bad(RATIO));
            let flag = || if value.is_none() { Ok(true) } else { Err(bad("the word alone, without a value")) };
            match name {
                "latency" => faults.latency = duration()?,
                "jitter" => faults.jitter = duration()?,
                "loss" => faults.loss = ratio()?,
                "duplicate" => faults.duplicate = ratio()?,
                "reorder" => faults.reorder = ratio()?,
                "reorder_delay" => faults.reorder_delay = duration()?,
                "corrupt" => faults.corrupt = ratio()?,
                "cut" => faults.cut = flag()?,
                "ordered" => faults.ordered = flag()?,
                _ => return Err(bad(NAMES)),
            }
            if seen.contains(&name) {
                return Err(bad("each fault at most once"));
            }
            seen.push(name);
        }
        Ok(faults)
    }
}

/// Why a text is not [`Faults`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadFaults {
    word: String,
    expected: &'static str,
}

impl fmt::Display for BadFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong fault {:?}: expected {}", self.word, self.expected)
    }
}

impl Error for BadFaults {}

const NAMES: &str = "latency=, jitter=, loss=, duplicate=, reorder=, reorder_delay=, corrupt=, cut or ordered";
const DURATION: &str = "a whole number of s, ms, us or ns after `=`; for instance 20ms";
const RATIO: &str = "N/M after `=`, with whole numbers, N at most M, M at least 1; for instance 1/20";
const UNITS: [(&str, u128); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, scale) = UNITS.into_iter().find(|(_, scale)| nanos.is_multiple_of(*scale)).unwrap_or(("ns", 1));
    format!("{}{unit}", nanos / scale)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let nanos = digits.parse::<u128>().ok()?.checked_mul(scale)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}
