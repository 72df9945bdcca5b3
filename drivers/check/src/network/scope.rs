//! How much may happen, and how much of it may go wrong.

use std::time::Duration;

use antiphon::codes::Code;
use antiphon::session::Transport;

/// At most so many nodes have a network.
pub const NODES_MAX: usize = 4;

/// What may happen in a [`Network`](crate::Network), counted. Whatever is counted may happen at any moment, and need
/// not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// What carries the frames.
    pub transport: Transport,
    /// Bodies of the ops that each node's app appends, in order; at most 255 a node.
    pub appends: Vec<Vec<Vec<u8>>>,
    /// Times that an app waits for its acknowledgements, in all.
    pub waits: u8,
    /// Frames of datagrams that are lost, doubled, overtaken or damaged, in all.
    pub mishaps: u8,
    /// Which of these happen.
    pub mishap_kinds: MishapKinds,
    /// Frames under way in one direction of a datagram link. What would be more is lost.
    pub under_way: usize,
    /// Frames with ops that a reliable transport skips against its promise, each with others behind it.
    pub skips: u8,
    /// Links that are cut. Each end notices by itself.
    pub cuts: u8,
    /// Links that go dead without a word, so that only silence tells.
    pub hangs: u8,
    /// Processes that end, before or after the write under way.
    pub crashes: u8,
    /// Losses of power, which leave any part of what was not synced.
    pub power_losses: u8,
    /// Writes that fail, carried out or not.
    pub failures: u8,
    /// Timers that go off while something may still go wrong.
    pub timers: u8,
    /// How far a clock goes meanwhile. Beyond, silence would end sessions.
    pub patience: Duration,
    /// Codes with which documents may be closed.
    pub closings: Vec<Code>,
    /// New ids that replicas take, in all.
    pub renewals: u8,
    /// Whether the disks do not fit each other at first: then what a peer says by positions need not be so.
    pub unfit: bool,
    /// Whether two nodes are the same replica: then ops come under one's id that it did not author.
    pub copies: bool,
    /// Whether it is well if both ends of a link report a fork.
    pub forks: bool,
}

/// What happens to frames of datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MishapKinds {
    /// They are lost.
    pub drop: bool,
    /// They come twice.
    pub duplicate: bool,
    /// They are overtaken by one that is so many places behind, or fewer.
    pub reorder: u8,
    /// They come with a bit flipped.
    pub corrupt: bool,
}

impl MishapKinds {
    /// All kinds.
    pub const ALL: Self = Self { drop: true, duplicate: true, reorder: 2, corrupt: true };
}

impl Scope {
    /// Links of this transport on which nothing happens at all.
    pub const fn quiet(transport: Transport) -> Self {
        Self {
            transport,
            appends: Vec::new(),
            waits: 0,
            mishaps: 0,
            mishap_kinds: MishapKinds::ALL,
            under_way: 16,
            skips: 0,
            cuts: 0,
            hangs: 0,
            crashes: 0,
            power_losses: 0,
            failures: 0,
            timers: 0,
            patience: Duration::from_secs(8),
            closings: Vec::new(),
            renewals: 0,
            unfit: false,
            copies: false,
            forks: false,
        }
    }
}

/// What of a scope has not happened yet.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Left {
    pub(super) appends: [u8; NODES_MAX],
    pub(super) waits: u8,
    pub(super) mishaps: u8,
    pub(super) skips: u8,
    pub(super) cuts: u8,
    pub(super) hangs: u8,
    pub(super) crashes: u8,
    pub(super) power_losses: u8,
    pub(super) failures: u8,
    pub(super) timers: u8,
    pub(super) renewals: u8,
}

impl Left {
    pub(super) fn of(scope: &Scope) -> Self {
        let appends = std::array::from_fn(|node| scope.appends.get(node).map_or(0, |bodies| bodies.len() as u8));
        let Scope { waits, mishaps, skips, cuts, hangs, crashes, power_losses, failures, timers, renewals, .. } =
            *scope;
        Self { appends, waits, mishaps, skips, cuts, hangs, crashes, power_losses, failures, timers, renewals }
    }
}
