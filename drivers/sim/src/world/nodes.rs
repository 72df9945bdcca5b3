//! Nodes: processes start and end, clocks are wrong.

use std::collections::VecDeque;

use antiphon::rng::Rng;
use antiphon::storage::Continuity;
use antiphon::{Instant, Machine};

use super::{DiskState, Down, Happening, NodeId, NodeInput, Pace, What, World};
use crate::clock::Clock;
use crate::node::{Crash, Disk, Input, Moment, Node, Start};

/// A node: what is there whether its process is up or not, and the process.
pub(super) struct Slot<N: Node> {
    pub(super) id: NodeId,
    pub(super) disk: N::Disk,
    pub(super) backup: Option<N::Disk>,
    pub(super) setup: N::Setup,
    pub(super) up: Option<N>,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) paths: Vec<super::PathId>,
    pub(super) events: Vec<(Instant, N::Event)>,
    /// Inputs that wait until the process goes on.
    pub(super) deferred: VecDeque<NodeInput<N>>,
    pub(super) paused: bool,
    timer: Option<Instant>,
    pub(super) pace: Pace,
    pub(super) state: DiskState,
    pub(super) requests: VecDeque<(Instant, <N::Disk as Disk>::Request)>,
    pub(super) disk_timer: Option<Instant>,
    /// Whether the disk is perhaps not what the last process left there, and whoever starts it can tell.
    pub(super) doubtful: bool,
    starts: u64,
}

impl<N: Node> World<N> {
    /// A new node on this disk, which is not started. `name` tells it from others when the dice are made.
    pub(crate) fn place(&mut self, name: u32, disk: N::Disk, setup: N::Setup) -> NodeId {
        let node = NodeId::of(self.slots.len(), name);
        let rng = self.dice(1, name.into());
        self.slots.push(Slot {
            id: node,
            disk,
            backup: None,
            setup,
            up: None,
            clock: Clock::default(),
            rng,
            paths: Vec::new(),
            events: Vec::new(),
            deferred: VecDeque::new(),
            paused: false,
            timer: None,
            pace: Pace::default(),
            state: DiskState::Works,
            requests: VecDeque::new(),
            disk_timer: None,
            doubtful: false,
            starts: 0,
        });
        node
    }

    /// Starts a node that is down. False if it can't; it stays down then.
    pub fn start(&mut self, node: NodeId, continuity: Continuity) -> bool {
        let started = self.boot(node, continuity);
        self.settle();
        started
    }

    /// The same, and what is due then is still to be done.
    pub(crate) fn boot(&mut self, node: NodeId, continuity: Continuity) -> bool {
        let now = self.moment(node);
        let slot = &mut self.slots[node.index()];
        if slot.up.is_some() {
            return true;
        }
        let mut rng = slot.rng.fork();
        let entropy = std::array::from_fn(|_| rng.next_u64() as u8);
        if matches!(slot.state, DiskState::Fails | DiskState::Full | DiskState::Stalled) {
            return false;
        }
        let Ok(process) = N::start(&mut slot.disk, &slot.setup, Start { now, continuity, entropy }) else {
            return false;
        };
        slot.up = Some(process);
        slot.doubtful = false;
        slot.starts += 1;
        self.trace.note([self.now.as_micros(), 1 << 32 | node.index() as u64]);
        self.happened(Happening::Started { node });
        self.carry_out(node, false);
        for path in self.slots[node.index()].paths.clone() {
            self.connect(path);
        }
        true
    }

    /// What whoever starts a node can know of its disk: it was perhaps set back if the machine lost its power with writes
    /// that were not synced, or another disk was put in.
    pub fn continuity(&self, node: NodeId) -> Continuity {
        if self.slots[node.index()].doubtful { Continuity::Broken } else { Continuity::Proven }
    }

    /// Takes a node down without warning. Its peers notice, as when a system closes the sockets of a process that is gone.
    pub fn crash(&mut self, node: NodeId, how: Crash) {
        self.take_down(node, how, true);
        self.settle();
    }

    /// The same, as when the whole machine is gone: nobody notices but by hearing nothing.
    pub fn vanish(&mut self, node: NodeId, how: Crash) {
        self.take_down(node, how, false);
        self.settle();
    }

    /// The same, and what is due then is still to be done.
    pub(crate) fn take_down(&mut self, node: NodeId, how: Crash, noticed: bool) {
        let slot = &mut self.slots[node.index()];
        let Some(up) = slot.up.take() else { return };
        let unsynced = slot.disk.unsynced();
        let lost = slot.disk.crash(how);
        slot.doubtful |= lost > 0 || unsynced > 0 && how != Crash::Kill;
        let unfinished = !slot.requests.is_empty();
        drop(up); // only now: what it did to the disk when it is dropped must find it gone
        self.forget_process(node);
        self.drop_ends_of(node, noticed);
        let how = if how == Crash::Kill { Down::Killed } else { Down::PowerLost };
        self.went_down(node, how, lost, unfinished);
    }

    fn went_down(&mut self, node: NodeId, how: Down, lost: usize, unfinished: bool) {
        self.trace.note([self.now.as_micros(), 2 << 32 | node.index() as u64]);
        self.happened(Happening::Down { node, how, lost, unfinished });
    }

    fn forget_process(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        slot.requests.clear();
        slot.deferred.clear();
        slot.paused = false;
        (slot.timer, slot.disk_timer) = (None, None);
    }

    /// Takes a node down in order: it says goodbye, and what it wrote is synced.
    pub fn stop(&mut self, node: NodeId) {
        self.shut_down(node);
        self.settle();
    }

    /// The same, and what is due then is still to be done.
    pub(crate) fn shut_down(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        slot.paused = false;
        for input in std::mem::take(&mut slot.deferred) {
            self.hand(node, input);
        }
        self.hand(node, Input::Stop);
        while let Some((_, request)) = self.slots[node.index()].requests.pop_front() {
            self.execute(node, request);
        }
        let slot = &mut self.slots[node.index()];
        if slot.up.take().is_none() {
            return;
        }
        slot.disk.close();
        self.forget_process(node);
        self.drop_ends_of(node, true);
        self.went_down(node, Down::Stopped, 0, false);
    }

    /// Whether a node was ever started.
    pub fn was_up(&self, node: NodeId) -> bool {
        self.slots[node.index()].starts > 0
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.slots[node.index()].up.is_some()
    }

    /// The process of a node, if it is up.
    pub fn process(&self, node: NodeId) -> Option<&N> {
        self.slots[node.index()].up.as_ref()
    }

    /// Does something with the process of a node that is up, and then what it wants done.
    pub(crate) fn with_process<T>(&mut self, node: NodeId, act: impl FnOnce(Instant, &mut N) -> T) -> Option<T> {
        let slot = &mut self.slots[node.index()];
        let done = slot.up.as_mut().map(|up| act(slot.clock.monotonic(self.now), up))?;
        self.events += 1;
        self.trace.note([self.now.as_micros(), 3 << 32 | node.index() as u64]);
        self.carry_out(node, false);
        Some(done)
    }

    /// The user of a node does something. Nothing if it is down.
    pub fn act(&mut self, node: NodeId, action: N::Action, step: u64) {
        if self.slots[node.index()].up.is_none() {
            return;
        }
        let wall = self.moment(node).wall;
        self.happened(Happening::Acted { node, action: action.clone(), step });
        self.feed(node, Input::Act { action, step, wall });
    }

    /// The process of a node does nothing, as if its machine were asleep.
    pub fn pause(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        if slot.up.is_some() && !std::mem::replace(&mut slot.paused, true) {
            self.happened(Happening::Paused { node });
        }
    }

    /// The process of a node goes on, and hears of everything that came meanwhile, one by one.
    pub fn resume(&mut self, node: NodeId) {
        if std::mem::take(&mut self.slots[node.index()].paused) {
            self.happened(Happening::Resumed { node });
            self.enter(self.now, What::Wake(node));
        }
    }

    pub(super) fn wake(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        if slot.paused {
            return;
        }
        if let Some(input) = slot.deferred.pop_front() {
            self.hand(node, input);
            self.enter(self.now, What::Wake(node));
        }
        self.arm_timer(node);
    }

    /// How a node is set up from its next start on.
    pub fn setup_mut(&mut self, node: NodeId) -> &mut N::Setup {
        &mut self.slots[node.index()].setup
    }

    /// What a node told, with the times, unless the world is [watched](Self::watch).
    pub fn told(&self, node: NodeId) -> &[(Instant, N::Event)] {
        &self.slots[node.index()].events
    }

    // ---------------------------------------------------------------------------------------- clocks

    /// Sets a node's clocks. What its process has timed by the monotonic one is timed anew.
    pub fn set_clock(&mut self, node: NodeId, clock: Clock) {
        let slot = &mut self.slots[node.index()];
        if std::mem::replace(&mut slot.clock, clock) != clock {
            self.happened(Happening::ClockSet { node, clock });
        }
        self.arm_timer(node);
    }

    /// A node's clocks.
    pub fn clock(&self, node: NodeId) -> Clock {
        self.slots[node.index()].clock
    }

    fn moment(&self, node: NodeId) -> Moment {
        let clock = self.clock(node);
        Moment { instant: clock.monotonic(self.now), wall: clock.wall(self.now) }
    }

    /// Sees to it that a node is woken at its deadline.
    pub(super) fn arm_timer(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        let Some(deadline) = slot.up.as_ref().filter(|_| !slot.paused).and_then(Machine::deadline) else { return };
        let at = slot.clock.world(deadline).max(self.now);
        if slot.timer.is_none_or(|timer| at < timer) {
            slot.timer = Some(at);
            self.enter(at, What::Timer(node));
        }
    }

    pub(super) fn timer_due(&mut self, node: NodeId, at: Instant) {
        let slot = &mut self.slots[node.index()];
        if slot.timer != Some(at) {
            return; // it was meant for an earlier process, or an earlier deadline has come since
        }
        slot.timer = None;
        let now = slot.clock.monotonic(at);
        let deadline = slot.up.as_ref().and_then(Machine::deadline);
        if deadline.is_some_and(|deadline| deadline <= now) && !slot.paused {
            self.feed(node, Input::Timer);
        } else {
            self.arm_timer(node);
        }
    }
}
