//! What is wrong with a link, as a value and as text.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use antiphon::rng::Ratio;

use crate::text::{self, bytes_text, duration_text, parse_bytes, parse_duration, parse_ratio};

/// What is wrong with a link. As text, it is words such as
/// `latency=20ms jitter=5ms loss=1/20 burst=1/200:1/4 duplicate=1/50 reorder=1/20 reorder_delay=10ms corrupt=1/1000
/// bandwidth=100kB queue=16kB mtu=1200B cut ordered`, each optional and in any order; a link without faults is the empty
/// text. Durations are whole numbers of `d`, `h`, `s`, `ms`, `us` or `ns`, bytes of `B`, `kB` or `MB`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Faults {
    /// How long every frame takes, at least.
    pub latency: Duration,
    /// How much longer a frame may take: evenly spread from zero to this, both included. Unless the link is ordered,
    /// frames may overtake each other by it.
    pub jitter: Duration,
    /// How many frames never arrive.
    pub loss: Ratio,
    /// Times at which more frames never arrive.
    pub burst: Burst,
    /// How many frames arrive twice. The copies are delayed and corrupted each for itself.
    pub duplicate: Ratio,
    /// How many frames are held back by `reorder_delay`.
    pub reorder: Ratio,
    /// How much later a frame arrives that is held back.
    pub reorder_delay: Duration,
    /// How many frames have one random bit flipped. Empty frames have none to flip.
    pub corrupt: Ratio,
    /// Bytes a second that go through: what comes faster waits. 0: any number.
    pub bandwidth: u64,
    /// Bytes that may wait for the bandwidth; a frame that finds no room never arrives. 0: any number. On an ordered
    /// link nothing is dropped: there it is the sender who waits.
    pub queue: u64,
    /// Bytes of the largest frame that goes through; larger ones never arrive. 0: any size. Not on an ordered link, which
    /// takes frames apart.
    pub mtu: u64,
    /// Nothing passes: what is sent meanwhile is lost, and so is what would be delivered meanwhile. This holds for an
    /// ordered link too. As a reliable transport breaks rather than skip a frame, whoever heals a cut replaces the link.
    pub cut: bool,
    /// A reliable transport: frames arrive once, whole, and in the order in which they were sent. Of the other faults,
    /// only latency, jitter, bandwidth and the cut apply.
    pub ordered: bool,
}

/// Losses that come together, by Gilbert and Elliott: a good and a bad state, and a step between them before each frame.
/// As text, `1/200:1/4` or `1/200:1/4:9/10`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Burst {
    /// How many frames in the good state are the first of a burst.
    pub begin: Ratio,
    /// How many frames in a burst are followed by the good state.
    pub end: Ratio,
    /// How many frames in a burst never arrive; in the good state [`Faults::loss`] counts.
    pub loss: Ratio,
}

impl Burst {
    /// No bursts.
    pub const NONE: Self = Self { begin: Ratio::NEVER, end: Ratio::ALWAYS, loss: Ratio::ALWAYS };
}

impl Faults {
    /// A perfect link: what is sent arrives at once.
    pub const NONE: Self = Self {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: Ratio::NEVER,
        burst: Burst::NONE,
        duplicate: Ratio::NEVER,
        reorder: Ratio::NEVER,
        reorder_delay: Duration::ZERO,
        corrupt: Ratio::NEVER,
        bandwidth: 0,
        queue: 0,
        mtu: 0,
        cut: false,
        ordered: false,
    };

    /// A perfect link that stays in order when latency and jitter are added.
    pub const RELIABLE: Self = Self { ordered: true, ..Self::NONE };

    /// The same link when everything has healed: it takes its time and keeps its order and its bandwidth, and loses,
    /// doubles, holds back and damages nothing.
    #[must_use]
    pub const fn healed(self) -> Self {
        let Self { latency, jitter, bandwidth, ordered, .. } = self;
        Self { latency, jitter, bandwidth, ordered, ..Self::NONE }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.begin, self.end)?;
        if self.loss == Ratio::ALWAYS { Ok(()) } else { write!(f, ":{}", self.loss) }
    }
}

fn parse_burst(text: &str) -> Option<Burst> {
    let mut ratios = text.split(':').map(parse_ratio);
    let (begin, end) = (ratios.next()??, ratios.next()??);
    let loss = ratios.next().unwrap_or(Some(Ratio::ALWAYS))?;
    ratios.next().is_none().then_some(Burst { begin, end, loss })
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = |name, value| (value != Duration::ZERO).then(|| format!("{name}={}", duration_text(value)));
        let ratio = |name, value| (value != Ratio::NEVER).then(|| format!("{name}={value}"));
        let bytes = |name, value| (value != 0).then(|| format!("{name}={}", bytes_text(value)));
        let flag = |name: &str, value: bool| value.then(|| name.to_owned());
        let words = [
            duration("latency", self.latency),
            duration("jitter", self.jitter),
            ratio("loss", self.loss),
            (self.burst != Burst::NONE).then(|| format!("burst={}", self.burst)),
            ratio("duplicate", self.duplicate),
            ratio("reorder", self.reorder),
            duration("reorder_delay", self.reorder_delay),
            ratio("corrupt", self.corrupt),
            bytes("bandwidth", self.bandwidth),
            bytes("queue", self.queue),
            bytes("mtu", self.mtu),
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
            let duration = || value.and_then(parse_duration).ok_or_else(|| bad(text::DURATION));
            let ratio = || value.and_then(parse_ratio).ok_or_else(|| bad(text::RATIO));
            let bytes = || value.and_then(parse_bytes).ok_or_else(|| bad(text::BYTES));
            let flag = || if value.is_none() { Ok(true) } else { Err(bad("the word alone, without a value")) };
            match name {
                "latency" => faults.latency = duration()?,
                "jitter" => faults.jitter = duration()?,
                "loss" => faults.loss = ratio()?,
                "burst" => faults.burst = value.and_then(parse_burst).ok_or_else(|| bad(BURST))?,
                "duplicate" => faults.duplicate = ratio()?,
                "reorder" => faults.reorder = ratio()?,
                "reorder_delay" => faults.reorder_delay = duration()?,
                "corrupt" => faults.corrupt = ratio()?,
                "bandwidth" => faults.bandwidth = bytes()?,
                "queue" => faults.queue = bytes()?,
                "mtu" => faults.mtu = bytes()?,
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

const NAMES: &str = "latency=, jitter=, loss=, burst=, duplicate=, reorder=, reorder_delay=, corrupt=, bandwidth=, \
                     queue=, mtu=, cut or ordered";
const BURST: &str = "how many frames begin a burst and how many end it, for instance 1/200:1/4, and perhaps how many are \
                     lost in it";
