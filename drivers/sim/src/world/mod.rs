//! A world in virtual time: nodes on simulated disks, joined by paths of lossy links.
//!
//! Nothing here reads a clock or the system's randomness: a world made of the same seed and driven by the same calls
//! does the same, to the last byte. Whatever is due stands in one agenda, ordered by time and then by when it was
//! entered, so that two things due at the same moment have an order too.

mod disks;
mod happening;
mod nodes;
mod paths;
mod wires;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use antiphon::Instant;
use antiphon::digest::BodyHash;
use antiphon::replica::LinkId;
use antiphon::rng::Rng;
use bytes::Bytes;

use crate::node::{Disk, Node};
use crate::replica::{Idle, ReplicaNode};

pub use crate::node::Crash;
pub use disks::{DiskState, Pace};
pub use happening::{Down, Happening};
pub use paths::{Medium, Tamper};

use nodes::Slot;
use paths::Path;
use wires::{LinkEnd, Wire};

/// A node of a world, whether it is up or not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId {
    index: u32,
    name: u32,
}

/// A path between two nodes of a world.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathId {
    index: u32,
    ends: (u32, u32),
}

impl NodeId {
    pub(crate) fn of(index: usize, name: u32) -> Self {
        Self { index: index as u32, name }
    }

    /// Its place among all nodes, in the order in which they were added.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// What a plan calls it; its place, where there is none.
    pub fn name(self) -> u32 {
        self.name
    }
}

impl PathId {
    /// Its place among all paths, in the order in which they were laid.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.name)
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}-{}", self.ends.0, self.ends.1)
    }
}

/// Nodes, disks and paths, and the time.
pub struct World<N: Node = ReplicaNode<Idle>> {
    now: Instant,
    seed: u64,
    agenda: BinaryHeap<Reverse<Due>>,
    entered: u64,
    slots: Vec<Slot<N>>,
    paths: Vec<Path>,
    wires: Vec<Option<Wire>>,
    /// Where each link number belongs that was ever given out.
    links: Vec<LinkEnd>,
    watched: bool,
    happenings: Vec<Happening<N>>,
    transcript: Option<Vec<Sent>>,
    events: u64,
    /// Events since the time last moved.
    at_once: u64,
    trace: Trace,
}

/// The end of a path: 0 is the node that was named first.
pub(crate) type Side = usize;

/// Something that is due: when, entered as which, and what.
type Due = (Instant, u64, What);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum What {
    /// A node's timer.
    Timer(NodeId),
    /// A node's disk.
    Disk(NodeId),
    /// Frames of a side of a wire, or their end.
    Wire(u32, Side),
    /// A side of a path connects.
    Dial(PathId, Side),
    /// A node that slept hears the next of what came meanwhile.
    Wake(NodeId),
}

/// A frame that a node sent, in a transcript.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// Who.
    pub from: NodeId,
    /// On which path.
    pub path: PathId,
    /// What, as it went: with the trailer of a datagram.
    pub frame: Bytes,
}

/// A running hash over everything that happens.
#[derive(Clone, Copy, Debug, Default)]
struct Trace(u64);

impl Trace {
    fn note(&mut self, words: [u64; 2]) {
        for word in words {
            // The multiplier of SplitMix64; the rotation brings what it pushed up down again.
            self.0 = (self.0 ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29);
        }
    }
}

impl<N: Node> World<N> {
    /// An empty world of such nodes, whose randomness all comes from `seed`.
    pub fn of(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            seed,
            agenda: BinaryHeap::new(),
            entered: 0,
            slots: Vec::new(),
            paths: Vec::new(),
            wires: Vec::new(),
            links: Vec::new(),
            watched: false,
            happenings: Vec::new(),
            transcript: None,
            events: 0,
            at_once: 0,
            trace: Trace::default(),
        }
    }

    /// A generator for one of the things in the world: it stays what it is when others are added or left out.
    fn dice(&self, kind: u64, name: u64) -> Rng {
        let mut trace = Trace(self.seed);
        trace.note([kind, name]);
        Rng::new(trace.0)
    }

    /// Keeps what happens in each step for [`happenings`](Self::happenings); what nodes tell is not kept for later then.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// What has happened since the last call.
    pub fn happenings(&mut self) -> std::vec::Drain<'_, Happening<N>> {
        self.happenings.drain(..)
    }

    /// Hands what has happened over, in exchange for an empty list that is used from now on.
    pub(crate) fn swap_happenings(&mut self, happenings: &mut Vec<Happening<N>>) {
        std::mem::swap(&mut self.happenings, happenings);
    }

    fn happened(&mut self, happening: Happening<N>) {
        if self.watched {
            self.happenings.push(happening);
        } else if let Happening::Told { node, event } = happening {
            self.slots[node.index()].events.push((self.now, event));
        }
    }

    /// Keeps every frame that is sent from now on.
    pub fn record(&mut self) {
        self.transcript.get_or_insert_default();
    }

    /// The frames that were kept.
    pub fn transcript(&self) -> &[Sent] {
        self.transcript.as_deref().unwrap_or_default()
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many inputs nodes were handed so far.
    pub fn event_count(&self) -> u64 {
        self.events
    }

    /// How many of them since the time last moved.
    pub fn event_count_at_once(&self) -> u64 {
        self.at_once
    }

    /// A hash over everything that has happened so far. Equal worlds that were driven by equal calls have equal ones.
    pub fn trace_hash(&self) -> u64 {
        self.trace.0
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.slots.iter().map(|slot| slot.id)
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = PathId> {
        self.paths.iter().map(|path| path.id)
    }

    // ---------------------------------------------------------------------------------------- time

    fn enter(&mut self, at: Instant, what: What) {
        self.entered += 1;
        self.agenda.push(Reverse((at, self.entered, what)));
    }

    /// When something is next due.
    pub fn next_at(&self) -> Option<Instant> {
        self.agenda.peek().map(|Reverse((at, ..))| *at)
    }

    /// Goes to the next thing that is due, if that is not after `end`, and does it. False if nothing is.
    pub fn step(&mut self, end: Instant) -> bool {
        if self.next_at().is_none_or(|at| at > end) {
            return false;
        }
        let Some(Reverse((at, _, what))) = self.agenda.pop() else { return false };
        self.go_to(at);
        match what {
            What::Timer(node) => self.timer_due(node, at),
            What::Disk(node) => self.disk_due(node, at),
            What::Wire(wire, side) => self.wire_due(wire, side, at),
            What::Dial(path, side) => self.dial_due(path, side, at),
            What::Wake(node) => self.wake(node),
        }
        true
    }

    fn go_to(&mut self, at: Instant) {
        if at > self.now {
            self.now = at;
            self.at_once = 0;
        }
    }

    /// Carries out everything that is due now, until nothing is.
    pub fn settle(&mut self) {
        while self.step(self.now) {}
    }

    /// Lets `duration` go by.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_to(self.now + duration);
    }

    /// Lets the time go by until `end`.
    pub fn run_to(&mut self, end: Instant) {
        while self.step(end) {}
        self.go_to(end);
    }

    /// Runs until `done`, at most for `duration`; says whether it was. It is asked whenever the time has moved.
    pub fn run_until(&mut self, duration: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + duration;
        self.settle();
        while !done(self) {
            if !self.step(end) {
                self.go_to(end);
                return done(self);
            }
            self.settle();
        }
        true
    }

    // ---------------------------------------------------------------------------------------- inputs and outputs

    /// Hands an input to a node that is up, and does what it wants done.
    fn feed(&mut self, node: NodeId, input: NodeInput<N>) {
        let slot = &mut self.slots[node.index()];
        if slot.up.is_none() {
            return;
        }
        if slot.paused || !slot.deferred.is_empty() {
            slot.deferred.push_back(input);
            return;
        }
        self.hand(node, input);
    }

    /// The same, whatever waits.
    fn hand(&mut self, node: NodeId, input: NodeInput<N>) {
        let slot = &mut self.slots[node.index()];
        let Some(up) = &mut slot.up else { return };
        self.events += 1;
        self.at_once += 1;
        self.trace.note([self.now.as_micros(), u64::from(node.index)]);
        let timer = matches!(input, crate::node::Input::Timer);
        if let Err(misuse) = up.handle(slot.clock.monotonic(self.now), input) {
            panic!("the world uses nodes as it should: {misuse}");
        }
        self.carry_out(node, timer);
    }

    /// Does what a node wants done, perhaps because its deadline had come.
    fn carry_out(&mut self, node: NodeId, timer: bool) {
        use crate::node::Output;
        while let Some(output) = self.slots[node.index()].up.as_mut().and_then(|up| up.poll()) {
            match output {
                Output::Transmit { link, frame } => self.transmit(node, link, frame),
                Output::Disconnect { link, retry } => self.closed(node, link, retry),
                Output::Established { link } => self.established(link),
                Output::Disk(request) => self.asked(node, request),
                Output::Event(event) => self.happened(Happening::Told { node, event }),
            }
        }
        self.arm_timer(node);
        self.happened(Happening::Settled { node, timer });
    }

    fn transmit(&mut self, node: NodeId, link: LinkId, frame: Bytes) {
        let Some(LinkEnd { path, wire, side }) = self.end_of(link) else { return };
        self.trace.note([link.0 << 32 | frame.len() as u64, BodyHash::of(&frame).0]);
        if let Some(transcript) = &mut self.transcript {
            transcript.push(Sent { at: self.now, from: node, path, frame: frame.clone() });
        }
        self.send(node, path, wire, side, frame);
    }
}

impl<N: Node> fmt::Debug for World<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, paths) = (self.slots.len(), self.paths.len());
        f.debug_struct("World").field("now", &self.now).field("nodes", &nodes).field("paths", &paths).finish()
    }
}

/// What a node of such a world is handed.
type NodeInput<N> = crate::node::Input<<N as Node>::Action, <<N as Node>::Disk as Disk>::Reply>;
