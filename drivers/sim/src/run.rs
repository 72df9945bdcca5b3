//! Plans are run: chaos first, then everything heals, and all must be in step within a budget.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use antiphon::Instant;
use antiphon::storage::Continuity;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::laws::{Laws, Ledger, Violation};
use crate::link::Counters;
use crate::node::{Crash, Node};
use crate::plan::{Deed, Fall, NodeName, PathName, PlanOf};
use crate::world::{DiskState, Happening, NodeId, PathId, World};

/// What came of running a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Whether all laws held, and all were in step at the end.
    pub outcome: Result<(), Violation>,
    /// The virtual time that all took.
    pub took: Duration,
    /// How long after everything had healed all were in step.
    pub healing: Duration,
    /// Bytes that were sent until then, since everything had healed.
    pub healing_bytes: u64,
    /// Inputs that nodes were handed.
    pub events: u64,
    /// Ops that were written, and durable somewhere.
    pub ops: u64,
    /// How often a node went down that was up, in order or not.
    pub crashes: u64,
    /// What became of frames.
    pub frames: Counters,
    /// A hash over everything that happened.
    pub trace_hash: u64,
    /// What was reached.
    pub coverage: Coverage,
}

/// Events at one moment of virtual time beyond which it does not go on: so many, and more for each path.
const EVENTS_AT_ONCE_MAX: u64 = 100_000;
const EVENTS_AT_ONCE_A_PATH: u64 = 100;
/// How long what was sent before all were in step may still be answered.
const LATE: Duration = Duration::from_secs(5);
/// How long all must stay quiet when they are in step.
const QUIET: Duration = Duration::from_secs(30);
/// What a path may carry in that time: signs of life.
const QUIET_BYTES: u64 = 10_000;

/// Runs a plan, and asks the laws that hold of all such nodes after everything that happens.
pub fn run<N: Node>(plan: &PlanOf<N>) -> Report {
    run_with::<N>(plan, Laws::of_nodes())
}

/// The same with these laws.
pub fn run_with<N: Node>(plan: &PlanOf<N>, laws: Laws<N>) -> Report {
    play(plan, Run::new(plan, laws, None))
}

/// The same, before the eyes of an observer, who changes nothing.
pub fn run_observed<N: Node>(plan: &PlanOf<N>, laws: Laws<N>, observer: &mut dyn Observer<N>) -> Report {
    play(plan, Run::new(plan, laws, Some(observer)))
}

/// Who is shown what happens in a run.
pub trait Observer<N: Node> {
    /// Something has happened. The world is as it is after the whole event, and laws are not asked yet.
    fn saw(&mut self, world: &World<N>, happening: &Happening<N>);
}

fn play<N: Node>(plan: &PlanOf<N>, mut run: Run<'_, N>) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| run.play(plan)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let place = PANICKED_AT.take().map_or_else(String::new, |place| format!("at {place}: "));
        Err(Violation::of("panics", format!("{place}{}", text.unwrap_or("something else than a text"))))
    });
    run.show(); // what led to a panic
    run.report(outcome)
}

thread_local! {
    static PANICKED_AT: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on, whatever panics in this process does so without a word: [`run`] tells of it as of a broken law, and where
/// it happened.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| PANICKED_AT.set(panic.location().map(ToString::to_string))));
}

/// A plan that is being run.
struct Run<'a, N: Node> {
    world: World<N>,
    laws: Laws<N>,
    observer: Option<&'a mut dyn Observer<N>>,
    nodes: BTreeMap<NodeName, NodeId>,
    paths: BTreeMap<PathName, PathId>,
    crashes: u64,
    healed: Option<(Instant, u64)>,
    rested: Option<(Instant, u64)>,
}

impl<'a, N: Node> Run<'a, N> {
    fn new(plan: &PlanOf<N>, laws: Laws<N>, observer: Option<&'a mut dyn Observer<N>>) -> Self {
        let mut world = World::of(plan.seed);
        world.watch();
        let (mut nodes, mut paths) = (BTreeMap::new(), BTreeMap::new());
        for planned in &plan.nodes {
            let node = world.place(planned.name, N::disk(&planned.setup), planned.setup.clone());
            world.set_clock(node, planned.clock);
            world.set_pace(node, planned.pace);
            nodes.insert(planned.name, node);
        }
        for planned in &plan.paths {
            let (first, second) = planned.name;
            if let (Some(first_node), Some(second_node)) = (nodes.get(&first), nodes.get(&second)) {
                let name = u64::from(first) << 32 | u64::from(second);
                paths.insert(planned.name, world.lay(name, *first_node, *second_node, planned.medium));
            }
        }
        for planned in &plan.frames {
            if let Some(path) = paths.get(&planned.path) {
                world.tamper(*path, planned.index, planned.tamper);
            }
        }
        Self { world, laws, observer, nodes, paths, crashes: 0, healed: None, rested: None }
    }

    fn play(&mut self, plan: &PlanOf<N>) -> Result<(), Violation> {
        for planned in plan.nodes.iter().filter(|planned| !planned.down) {
            if let Some(node) = self.nodes.get(&planned.name).copied() {
                let continuity = self.world.continuity(node);
                self.world.boot(node, continuity);
                self.check()?;
            }
        }
        for (number, step) in (0..).zip(&plan.steps).filter(|(_, step)| step.at <= plan.heal) {
            self.advance(Instant::ZERO + step.at)?;
            self.take(&step.deed, number);
            self.check()?;
        }
        self.advance(Instant::ZERO + plan.heal)?;
        self.heal(plan)?;
        self.come_to_rest(plan)
    }

    /// Lets the time go by until `end`, with the laws.
    fn advance(&mut self, end: Instant) -> Result<(), Violation> {
        while self.world.step(end) {
            self.check()?;
        }
        self.world.run_to(end);
        Ok(())
    }

    fn check(&mut self) -> Result<(), Violation> {
        let most = EVENTS_AT_ONCE_MAX + EVENTS_AT_ONCE_A_PATH * self.paths.len() as u64;
        if self.world.event_count_at_once() > most {
            let what = format!("more than {most} events at {}", self.world.now());
            return Err(Violation::of("time goes on", what));
        }
        self.show();
        self.laws.judge(&self.world)
    }

    /// Hears what has happened, and lets the observer see it.
    fn show(&mut self) {
        self.laws.hear(&mut self.world);
        if let Some(observer) = &mut self.observer {
            self.laws.heard().iter().for_each(|happening| observer.saw(&self.world, happening));
        }
    }

    // ---------------------------------------------------------------------------------------- chaos

    fn take(&mut self, deed: &Deed<N::Action>, number: u64) {
        let nodes: Option<Vec<_>> = deed.nodes().iter().map(|name| self.nodes.get(name).copied()).collect();
        let path = deed.path().and_then(|name| self.paths.get(&name).copied());
        // What a plan that was made smaller no longer has, nothing is done to.
        let Some(nodes) = nodes else { return };
        let world = &mut self.world;
        if let Some(path) = path {
            match deed {
                Deed::Cut(_, sides) => world.cut_silently(path, *sides),
                Deed::Down(_) => world.take_path_down(path),
                Deed::Mend(_) => world.repair(path),
                Deed::Faults(_, faults) => world.set_faults(path, *faults),
                _ => {}
            }
        }
        let Some(node) = nodes.first().copied() else { return };
        match deed {
            Deed::Act(_, action) => world.act(node, action.clone(), number),
            Deed::Fall(_, fall) => self.fall(node, *fall),
            Deed::Start(_, continuity) => {
                let continuity = continuity.unwrap_or(world.continuity(node));
                world.boot(node, continuity);
            }
            Deed::BackUp(_) => world.back_up(node),
            Deed::Restore(_) => _ = world.restore(node),
            Deed::Clone(..) => _ = world.clone_disk(node, nodes[1]),
            Deed::LoseTail(_, keep) => {
                let keep = keep.of(world.unsynced(node) as u64) as usize;
                world.lose_tail(node, keep);
            }
            Deed::Disk(_, state) => world.set_disk_state(node, *state),
            Deed::Pace(_, pace) => world.set_pace(node, *pace),
            Deed::Pause(_, true) => world.pause(node),
            Deed::Pause(_, false) => world.resume(node),
            Deed::Clock(_, skew) => {
                // Its monotonic clock must not go back, so only the wall clock jumps.
                let drift = world.clock(node).drift;
                world.set_clock(node, Clock { skew: *skew, drift });
            }
            Deed::Cut(..) | Deed::Down(_) | Deed::Mend(_) | Deed::Faults(..) => {}
        }
    }

    fn fall(&mut self, node: NodeId, fall: Fall) {
        self.crashes += u64::from(self.world.is_up(node));
        match fall {
            Fall::Stop => self.world.shut_down(node),
            Fall::Kill => self.world.take_down(node, Crash::Kill, true),
            Fall::Power(keep) => {
                let keep = keep.of(self.world.unsynced(node) as u64) as usize;
                self.world.take_down(node, Crash::PowerLoss { keep }, false);
            }
        }
    }

    // ---------------------------------------------------------------------------------------- calm

    /// Everything works from now on, and everybody who was ever there is there.
    fn heal(&mut self, plan: &PlanOf<N>) -> Result<(), Violation> {
        for planned in &plan.paths {
            let Some(path) = self.paths.get(&planned.name).copied() else { continue };
            self.world.set_faults(path, planned.medium.faults.healed());
            self.world.repair(path);
            self.check()?;
        }
        for planned in &plan.nodes {
            let Some(node) = self.nodes.get(&planned.name).copied() else { continue };
            self.world.set_disk_state(node, DiskState::Works);
            self.world.set_pace(node, planned.pace);
            self.world.resume(node);
            if self.world.continuity(node) == Continuity::Broken {
                // Its disk has lost something behind its back: that does not heal by itself, and somebody starts it anew.
                self.world.take_down(node, Crash::Kill, true);
            }
            let unused = planned.down && !self.world.was_up(node);
            if !unused && !self.world.is_up(node) {
                let continuity = self.world.continuity(node);
                self.world.boot(node, continuity);
            }
            self.check()?;
        }
        self.healed = Some((self.world.now(), self.bytes()));
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.world.paths().flat_map(|path| self.world.counters(path)).map(|counters| counters.bytes).sum()
    }

    fn come_to_rest(&mut self, plan: &PlanOf<N>) -> Result<(), Violation> {
        let (from, bytes) = (self.world.now(), self.bytes());
        let end = from + plan.budget.time;
        loop {
            let left = self.laws.rest(&self.world);
            if left.is_ok() {
                break;
            }
            if !self.step_or_end(end)? {
                let what = format!("{:?} after everything healed, {}", plan.budget.time, left.unwrap_err());
                return Err(Violation::of("converges", what));
            }
            let sent = self.bytes() - bytes;
            if sent > plan.budget.bytes {
                let what = format!("{sent} bytes were sent since everything healed, and {}", left.unwrap_err());
                return Err(Violation::of("converges", what));
            }
        }
        self.rested = Some((self.world.now(), self.bytes()));
        self.stay_quiet()?;
        self.laws.at_rest(&self.world)
    }

    /// Goes on until the next moment at which something is due; false if that is after `end`.
    fn step_or_end(&mut self, end: Instant) -> Result<bool, Violation> {
        let Some(at) = self.world.next_at().filter(|at| *at <= end) else { return Ok(false) };
        while self.world.step(at) {
            self.check()?;
        }
        Ok(true)
    }

    /// Who is in step has nothing more to say.
    fn stay_quiet(&mut self) -> Result<(), Violation> {
        let late = self.world.now() + LATE;
        self.advance(late)?;
        let before = self.bytes();
        let end = self.world.now() + QUIET;
        self.advance(end)?;
        let sent = self.bytes() - before;
        let bound = QUIET_BYTES * self.paths.len() as u64;
        if sent > bound {
            let what = format!("{sent} bytes were sent in the {QUIET:?} after all were in step, more than {bound}");
            return Err(Violation::of("quiet", what));
        }
        self.laws
            .rest(&self.world)
            .map_err(|left| Violation::of("quiet", format!("all were in step, and {QUIET:?} later {left}")))
    }

    fn report(self, outcome: Result<(), Violation>) -> Report {
        let mut frames = Counters::default();
        self.world.paths().flat_map(|path| self.world.counters(path)).for_each(|counters| frames.add(counters));
        let (healed, rested) = (self.healed.unwrap_or_default(), self.rested.unwrap_or_default());
        Report {
            outcome,
            took: self.world.now().since(Instant::ZERO),
            healing: rested.0.since(healed.0),
            healing_bytes: rested.1.saturating_sub(healed.1),
            events: self.world.event_count(),
            ops: self.laws.ledger().ops(),
            crashes: self.crashes,
            frames,
            trace_hash: self.world.trace_hash(),
            coverage: self.laws.ledger().coverage(),
        }
    }
}
