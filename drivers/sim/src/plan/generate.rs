//! Plans drawn from a seed, or from whatever else gives numbers.

use std::time::Duration;

use antiphon::rng::{Ratio, Rng};
use antiphon::session::Transport;
use antiphon::storage::Continuity;

use super::{Budget, Deed, Fall, NodeName, PathName, Plan, PlanOf, PlannedNode, PlannedPath, Profile, Step, Topology};
use crate::clock::Clock;
use crate::link::{Burst, Faults};
use crate::node::Node;
use crate::world::{DiskState, Medium, Pace};

/// Where decisions come from: dice, or bytes that a fuzzer makes up.
pub trait Source {
    /// A number below `bound`; 0 if that is 0.
    fn below(&mut self, bound: u64) -> u64;

    /// True once in `times`.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A whole number of milliseconds from `least` to before `most`.
    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most.saturating_sub(least)))
    }
}

impl Source for Rng {
    fn below(&mut self, bound: u64) -> u64 {
        Rng::below(self, bound)
    }
}

/// Nodes for which plans can be drawn.
pub trait Workload: Node {
    /// How a node is set up.
    fn draw_setup(source: &mut dyn Source, place: &Place) -> Self::Setup;

    /// Something for its user to do that writes at most so many ops, and how many it writes.
    fn draw_action(source: &mut dyn Source, setup: &Self::Setup, ops: u32) -> (Self::Action, u32);

    /// How many bytes an action writes.
    fn bytes(action: &Self::Action) -> u64;

    /// What else its user does before a moment, and when.
    fn draw_more(
        source: &mut dyn Source,
        place: &Place,
        setup: &Self::Setup,
        until: Duration,
    ) -> Vec<(Duration, Self::Action)> {
        let _ = (source, place, setup, until);
        Vec::new()
    }
}

/// The place of a node in a plan that is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its number.
    pub node: u32,
    /// How many documents there are.
    pub documents: u32,
    /// Whether it is joined with one other and that is all.
    pub leaf: bool,
    /// Whether the first of the nodes is everyone's authority.
    pub authority: bool,
    /// Whether some nodes may only read.
    pub readers: bool,
    /// Whether the authority compacts documents. Then no disk is set back or copied: ops that exist only in a snapshot can't
    /// be told from others of the same author.
    pub compacts: bool,
}

impl Profile {
    /// Another profile for each seed, so that many of them together reach everything: any topology, a few replicas and
    /// documents, mild faults and heavy ones.
    pub fn varied(seed: u64) -> Self {
        // The dice of the plan are others.
        Self::draw_any(&mut Rng::new(seed.rotate_left(32)))
    }

    /// The same, as this source decides.
    pub fn draw_any(source: &mut dyn Source) -> Self {
        let (_, topology) = Topology::ALL[source.below(Topology::ALL.len() as u64) as usize];
        let mut below = |bound: u32| source.below(bound.into()) as u32;
        let replicas = 2 + below(if topology == Topology::Mesh { 3 } else { 5 });
        let (documents, ops) = (1 + below(3), below(31));
        let mut up_to = |most: u32, of: u32| match below(most + 1) {
            0 => Ratio::NEVER,
            few => Ratio::new(few, of).unwrap_or(Ratio::ALWAYS),
        };
        let (loss, duplicate) = (up_to(4, 20), up_to(5, 50));
        let (reorder, corrupt) = (up_to(5, 20), up_to(5, 100));
        let (partitions, crashes) = (below(4), below(5));
        Self { replicas, documents, ops, topology, loss, duplicate, reorder, corrupt, partitions, crashes }
    }

    /// The plan of a seed.
    pub fn plan<N: Workload>(&self, seed: u64) -> PlanOf<N> {
        let mut source = Rng::new(seed);
        let seed = source.next_u64() >> 32;
        self.draw::<N>(seed, &mut source)
    }

    /// A plan that this source decides about; `seed` fixes what is left to dice while it runs.
    pub fn draw<N: Workload>(&self, seed: u64, source: &mut dyn Source) -> PlanOf<N> {
        let names = self.topology.paths(self.replicas);
        let heal = source.millis(800, 5_000);
        let (authority, readers) = (self.topology.is_tree(self.replicas) && source.one_in(2), source.one_in(4));
        let compacts = authority && source.one_in(3);
        let mut places = Vec::new();
        let mut plan =
            Plan { seed, nodes: vec![], paths: vec![], steps: vec![], frames: vec![], heal, budget: Budget::default() };
        for name in 0..self.replicas {
            let leaf = names.iter().filter(|(first, second)| *first == name || *second == name).count() == 1;
            let place = Place { node: name, documents: self.documents, leaf, authority, readers, compacts };
            let setup = N::draw_setup(source, &place);
            places.push(place);
            let (clock, pace) = (draw_clock(source, 6), draw_pace(source));
            plan.nodes.push(PlannedNode { name, down: false, clock, pace, setup });
        }
        plan.paths.extend(names.into_iter().map(|name| PlannedPath { name, medium: self.draw_medium(source) }));

        let mut drawing = Drawing { source, plan, keeps_disks: compacts };
        drawing.ops::<N>(self.ops, &places);
        (0..self.partitions).for_each(|_| drawing.partition());
        (0..self.crashes).for_each(|_| drawing.crash());
        let troubles = u64::from(self.partitions + self.crashes);
        (0..troubles).for_each(|_| drawing.trouble());
        let mut plan = drawing.plan;
        plan.steps.sort_by_key(|step| step.at);
        plan.budget = self.budget::<N>(&plan);
        plan
    }

    fn draw_medium(&self, source: &mut dyn Source) -> Medium {
        let lossless = [self.loss, self.duplicate, self.reorder, self.corrupt].iter().all(|one| *one == Ratio::NEVER);
        let scale = 1 << source.below(7);
        let latency = Duration::from_millis(scale + source.below(scale));
        let jitter = if source.one_in(2) { Duration::ZERO } else { Duration::from_millis(source.below(scale + 1)) };
        // The largest frame must get through before anyone takes the silence for the end.
        let bandwidth = if source.one_in(8) { 50_000 << source.below(5) } else { 0 };
        let timing = Faults { latency, jitter, bandwidth, ..Faults::NONE };
        let (reliable, burst, queue) = (source.one_in(5), source.one_in(8), source.one_in(2));
        let (mtu, black_hole) = (source.below(3), source.one_in(50));
        if lossless || reliable {
            let faults = Faults { ordered: true, ..timing };
            return Medium { faults, transport: Transport::Reliable, upstream: true };
        }
        let end = Ratio::one_in(2 + source.below(8) as u32);
        let burst = if burst { Burst { begin: Ratio::one_in(200), end, loss: Ratio::ALWAYS } } else { Burst::NONE };
        let faults = Faults {
            loss: self.loss,
            burst,
            duplicate: self.duplicate,
            reorder: self.reorder,
            reorder_delay: source.millis(1, 50),
            corrupt: self.corrupt,
            queue: if bandwidth > 0 && queue { 4_000 } else { 0 },
            mtu: if black_hole { 600 } else { 0 },
            ..timing
        };
        let mtu = [1200, 1200, 600][mtu as usize];
        Medium { faults, transport: Transport::Datagram { mtu }, upstream: true }
    }

    /// What being in step may cost. Sessions that hear nothing end, disks that failed and connections are tried again after
    /// at most half a minute, and each of that may have to happen once more at each hop. What was written may have to go
    /// over each path in both directions, more than once where it was lost, or where histories differ.
    fn budget<N: Workload>(&self, plan: &PlanOf<N>) -> Budget {
        const PATH_BYTES: u64 = 100_000;
        /// Beyond so many ops, each may take its time at each hop, where windows are narrow and ways long.
        const OPS_AT_ONCE: u32 = 100;
        const OP_TIME: Duration = Duration::from_millis(200);
        let written = plan.steps.iter().map(|step| match &step.deed {
            Deed::Act(_, action) => N::bytes(action),
            _ => 0,
        });
        let (hops, paths) = (u64::from(self.replicas), plan.paths.len() as u64);
        let many = self.ops.saturating_sub(OPS_AT_ONCE) * hops as u32;
        let time = Duration::from_secs(120 + 30 * hops) + OP_TIME * many;
        Budget { time, bytes: paths * (PATH_BYTES + 8 * written.sum::<u64>()) }
    }
}

fn draw_clock(source: &mut dyn Source, times: u64) -> Clock {
    if !source.one_in(times) {
        return Clock::default();
    }
    let seconds = source.below(7_200) as i64 - 3_600;
    Clock { skew: seconds * 1_000_000, drift: source.below(2_001) as i32 - 1_000 }
}

fn draw_pace(source: &mut dyn Source) -> Pace {
    match source.below(4) {
        0 | 1 => Pace::default(),
        2 => Pace::of(source.millis(1, 5)),
        _ => Pace { least: source.millis(0, 10), most: source.millis(10, 60) },
    }
}

/// A plan that is being drawn.
struct Drawing<'a, S, A> {
    source: &'a mut dyn Source,
    plan: Plan<S, A>,
    /// No disk is set back or copied.
    keeps_disks: bool,
}

impl<S: Clone, A> Drawing<'_, S, A> {
    /// A moment in the chaos.
    fn moment(&mut self) -> Duration {
        self.moment_after(Duration::ZERO)
    }

    fn moment_after(&mut self, from: Duration) -> Duration {
        self.source.millis(from.as_millis() as u64, self.plan.heal.as_millis() as u64)
    }

    fn node(&mut self) -> NodeName {
        let index = self.source.below(self.plan.nodes.len() as u64);
        self.plan.nodes[index as usize].name
    }

    fn path(&mut self) -> Option<PathName> {
        let index = self.source.below(self.plan.paths.len() as u64);
        self.plan.paths.get(index as usize).map(|path| path.name)
    }

    fn step(&mut self, at: Duration, deed: Deed<A>) {
        self.plan.steps.push(Step { at, deed });
    }

    fn ops<N: Workload<Setup = S, Action = A>>(&mut self, ops: u32, places: &[Place]) {
        let mut left = ops;
        while left > 0 && !self.plan.nodes.is_empty() {
            let index = self.source.below(self.plan.nodes.len() as u64) as usize;
            let at = self.moment();
            let PlannedNode { name, setup, .. } = &self.plan.nodes[index];
            let (name, (action, written)) = (*name, N::draw_action(self.source, setup, left));
            left -= written.clamp(1, left);
            self.step(at, Deed::Act(name, action));
        }
        let until = self.plan.heal;
        for (index, place) in places.iter().enumerate() {
            let PlannedNode { name, setup, .. } = &self.plan.nodes[index];
            let (name, more) = (*name, N::draw_more(self.source, place, setup, until));
            more.into_iter().for_each(|(at, action)| self.step(at, Deed::Act(name, action)));
        }
    }

    fn partition(&mut self) {
        let Some(path) = self.path() else { return };
        let from = self.moment();
        let deed = match self.source.below(4) {
            0 => Deed::Down(path),
            1 => Deed::Cut(path, [true, false]),
            2 => Deed::Cut(path, [false, true]),
            _ => Deed::Cut(path, [true; 2]),
        };
        self.step(from, deed);
        let to = self.moment_after(from);
        self.step(to, Deed::Mend(path));
    }

    fn crash(&mut self) {
        let (node, at) = (self.node(), self.moment());
        match self.source.below(12) {
            0 if !self.keeps_disks => self.restored(node, at),
            1 if !self.keeps_disks => self.cloned(node, at),
            kind => {
                let fall = self.fall(kind);
                self.step(at, Deed::Fall(node, fall));
                let again = self.moment_after(at);
                self.step(again, Deed::Start(node, None));
            }
        }
    }

    fn fall(&mut self, kind: u64) -> Fall {
        match kind {
            0..=2 => Fall::Stop,
            3..=6 => Fall::Kill,
            _ => Fall::Power(Ratio::new(self.source.below(5) as u32, 4).unwrap_or(Ratio::NEVER)),
        }
    }

    /// Most of the time whoever starts a node on another disk can tell; a machine that is set back as a whole can't.
    fn continuity(&mut self) -> Option<Continuity> {
        self.source.one_in(3).then_some(Continuity::Proven)
    }

    fn restored(&mut self, node: NodeName, at: Duration) {
        self.step(at, Deed::BackUp(node));
        let later = self.moment_after(at);
        let kind = 2 + self.source.below(8);
        let fall = self.fall(kind);
        self.step(later, Deed::Fall(node, fall));
        self.step(later, Deed::Restore(node));
        let (again, continuity) = (self.moment_after(later), self.continuity());
        self.step(again, Deed::Start(node, continuity));
    }

    fn cloned(&mut self, node: NodeName, at: Duration) {
        let name = self.plan.nodes.iter().map(|node| node.name + 1).max().unwrap_or(0);
        let Some(original) = self.plan.nodes.iter().find(|planned| planned.name == node) else { return };
        let copy = PlannedNode { name, down: true, ..original.clone() };
        // It meets whom its original meets, or its original.
        let mut paths = self.plan.paths.iter().filter(|path| path.name.0 == node || path.name.1 == node);
        let Some(PlannedPath { name: ends, medium }) = paths.next().copied() else { return };
        let peer = if ends.0 == node { ends.1 } else { ends.0 };
        let peer = if self.source.one_in(4) { node } else { peer };
        self.plan.nodes.push(copy);
        self.plan.paths.push(PlannedPath { name: (name, peer), medium });
        self.step(at, Deed::Clone(node, name));
        let continuity = self.continuity();
        self.step(at, Deed::Start(name, continuity));
    }

    /// Something that is no partition and no crash: a disk, a clock or a process that is not at its best.
    fn trouble(&mut self) {
        let (node, from) = (self.node(), self.moment());
        let to = self.moment_after(from);
        match self.source.below(13) {
            12 if !self.keeps_disks => {
                let keep = Ratio::new(self.source.below(4) as u32, 4).unwrap_or(Ratio::NEVER);
                self.step(from, Deed::LoseTail(node, keep));
            }
            0 => self.disk(node, DiskState::Stalled, from, to),
            1 => self.disk(node, DiskState::Fails, from, to),
            2 => self.disk(node, DiskState::Lies, from, to),
            3 => self.disk(node, DiskState::Full, from, to),
            4 => {
                self.step(from, Deed::Pause(node, true));
                self.step(to, Deed::Pause(node, false));
            }
            5 => {
                let clock = draw_clock(self.source, 1);
                self.step(from, Deed::Clock(node, clock.skew));
            }
            6 => {
                let pace = Pace { least: Duration::ZERO, most: self.source.millis(1, 300) };
                self.step(from, Deed::Pace(node, pace));
            }
            _ => {}
        }
    }

    fn disk(&mut self, node: NodeName, state: DiskState, from: Duration, to: Duration) {
        self.step(from, Deed::Disk(node, state));
        self.step(to, Deed::Disk(node, DiskState::Works));
    }
}
