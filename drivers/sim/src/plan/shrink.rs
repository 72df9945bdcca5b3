//! Plans that break a law are made smaller, as long as they break the same law: fewer nodes, steps and faults, and weaker
//! ones; not one that could be left out is left in the end.

use std::cell::Cell;
use std::time::Duration;

use super::{PathName, Plan, PlanOf, PlannedFrame};
use crate::clock::Clock;
use crate::laws::{Law, Laws, Scene, Violation};
use crate::link::{Burst, Fate, Faults};
use crate::node::{Action, Node};
use crate::run::run_with;
use crate::world::{Happening, Pace, Tamper};

use super::Deed;

/// A plan that was made smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk<S, A> {
    /// It.
    pub plan: Plan<S, A>,
    /// How it breaks the law.
    pub violation: Violation,
    /// How many plans were run to find it.
    pub runs: usize,
}

/// Makes a plan smaller that breaks a law that holds of all such nodes, by running at most `runs_max` others; `None` if it
/// breaks none.
pub fn shrink<N: Node>(plan: &PlanOf<N>, runs_max: usize) -> Option<Shrunk<N::Setup, N::Action>> {
    shrink_with::<N>(plan, runs_max, Laws::of_nodes)
}

/// The same with these laws.
pub fn shrink_with<N: Node>(
    plan: &PlanOf<N>,
    runs_max: usize,
    laws: impl Fn() -> Laws<N>,
) -> Option<Shrunk<N::Setup, N::Action>> {
    let report = run_with::<N>(plan, laws());
    let violation = report.outcome.err()?;
    let first = violation.clone();
    let mut judge = |plan: &PlanOf<N>| match run_with::<N>(plan, laws()).outcome {
        Err(violation) if violation.law == first.law => Some(violation),
        _ => None,
    };
    let mut search = Search::<N> { best: plan.clone(), violation, runs: 1, runs_max, judge: &mut judge };
    search.cut_off(report.took);
    loop {
        let before = search.best.clone();
        search.pass();
        if search.best == before || search.is_over() {
            break;
        }
    }
    Some(Shrunk { plan: search.best, violation: search.violation, runs: search.runs })
}

/// The plans that are a step smaller than this one, those with the most left out first: for whoever searches in another
/// way, as quickcheck does.
pub fn smaller<N: Node>(plan: &PlanOf<N>) -> Vec<PlanOf<N>> {
    let mut found = Vec::new();
    let mut judge = |plan: &PlanOf<N>| {
        found.push(plan.clone());
        None
    };
    let violation = Violation::of("none", "");
    Search::<N> { best: plan.clone(), violation, runs: 0, runs_max: usize::MAX, judge: &mut judge }.pass();
    found
}

/// A search for smaller plans.
struct Search<'a, N: Node> {
    best: PlanOf<N>,
    violation: Violation,
    runs: usize,
    runs_max: usize,
    /// How a plan breaks the law, if it does.
    judge: &'a mut dyn FnMut(&PlanOf<N>) -> Option<Violation>,
}

impl<N: Node> Search<'_, N> {
    /// Tries every way to make the plan smaller.
    fn pass(&mut self) {
        self.leave_out_nodes();
        self.leave_out_steps();
        self.simplify_paths();
        self.name_frames();
        self.leave_out_frames();
        self.simplify_nodes();
        self.simplify_actions();
        self.hurry();
    }

    fn is_over(&self) -> bool {
        self.runs >= self.runs_max
    }

    /// Runs a plan; if it breaks the same law, it is the best there is.
    fn attempt(&mut self, plan: PlanOf<N>) -> bool {
        if self.is_over() || plan == self.best {
            return false;
        }
        self.runs += 1;
        let Some(violation) = (self.judge)(&plan) else { return false };
        (self.best, self.violation) = (plan, violation);
        true
    }

    /// The same after a change.
    fn attempt_with(&mut self, change: impl FnOnce(&mut PlanOf<N>)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.attempt(plan)
    }

    /// Leaves out what can be left out of a list, in large pieces first.
    fn leave_out<T: Clone>(&mut self, list: fn(&mut PlanOf<N>) -> &mut Vec<T>) {
        let mut piece = list(&mut self.best.clone()).len();
        while piece > 0 && !self.is_over() {
            let mut from = 0;
            while from < list(&mut self.best.clone()).len() {
                let left_out = self.attempt_with(|plan| {
                    let list = list(plan);
                    let to = (from + piece).min(list.len());
                    list.drain(from..to);
                });
                if !left_out {
                    from += piece;
                }
            }
            piece /= 2;
        }
    }

    /// What comes after the law was broken does not matter.
    fn cut_off(&mut self, end: Duration) {
        if end < self.best.heal {
            self.attempt_with(|plan| {
                plan.steps.retain(|step| step.at <= end);
                plan.heal = end + Duration::from_millis(1);
            });
        }
    }

    fn leave_out_nodes(&mut self) {
        for name in self.best.nodes.iter().map(|node| node.name).collect::<Vec<_>>() {
            self.attempt_with(|plan| {
                plan.nodes.retain(|node| node.name != name);
                plan.paths.retain(|path| path.name.0 != name && path.name.1 != name);
                plan.steps.retain(|step| !step.deed.nodes().contains(&name));
                plan.frames.retain(|frame| frame.path.0 != name && frame.path.1 != name);
            });
        }
        for name in self.best.paths.iter().map(|path| path.name).collect::<Vec<_>>() {
            self.attempt_with(|plan| {
                plan.paths.retain(|path| path.name != name);
                plan.steps.retain(|step| step.deed.path() != Some(name));
                plan.frames.retain(|frame| frame.path != name);
            });
        }
    }

    fn leave_out_steps(&mut self) {
        self.leave_out(|plan| &mut plan.steps);
    }

    fn leave_out_frames(&mut self) {
        self.leave_out(|plan| &mut plan.frames);
    }

    /// Weaker faults.
    fn simplify_paths(&mut self) {
        let weaker: [fn(&mut Faults); 11] = [
            |faults| *faults = Faults { latency: faults.latency, ..faults.healed() },
            |faults| faults.loss = Faults::NONE.loss,
            |faults| faults.burst = Burst::NONE,
            |faults| faults.duplicate = Faults::NONE.duplicate,
            |faults| (faults.reorder, faults.reorder_delay) = (Faults::NONE.reorder, Duration::ZERO),
            |faults| faults.corrupt = Faults::NONE.corrupt,
            |faults| (faults.bandwidth, faults.queue) = (0, 0),
            |faults| faults.mtu = 0,
            |faults| faults.jitter = Duration::ZERO,
            |faults| faults.latency = Duration::from_millis(1).min(faults.latency),
            |faults| faults.latency = Duration::from_millis(faults.latency.as_millis() as u64 / 2),
        ];
        for index in 0..self.best.paths.len() {
            for weaken in weaker {
                self.attempt_with(|plan| weaken(&mut plan.paths[index].medium.faults));
            }
            self.attempt_with(|plan| plan.paths[index].medium.upstream = false);
        }
    }

    /// In place of dice, the frames themselves that were lost, doubled, held back or damaged: then all but those that matter
    /// can be left out.
    fn name_frames(&mut self) {
        let dicey = |faults: &Faults| *faults != Faults { ..faults.healed() };
        if !self.best.paths.iter().any(|path| dicey(&path.medium.faults)) {
            return;
        }
        let found = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        run_with::<N>(&self.best, Laws::these(Vec::new()).and(Fates { found: found.clone() }));
        self.runs += 1;
        let found = found.take();
        self.attempt_with(|plan| {
            let names: Vec<PathName> = plan.paths.iter().map(|path| path.name).collect();
            for (path, index, fate) in found {
                let name = names[path];
                let delay = plan.paths[path].medium.faults.reorder_delay;
                let known = plan.frames.iter().any(|frame| (frame.path, frame.index) == (name, index));
                if let (Some(tamper), false) = (tamper_of(&fate, delay), known) {
                    plan.frames.push(PlannedFrame { path: name, index, tamper });
                }
            }
            for path in &mut plan.paths {
                let faults = &mut path.medium.faults;
                *faults = Faults { jitter: faults.jitter, ..faults.healed() };
            }
        });
    }

    /// Nodes that are set up as usual, word by word.
    fn simplify_nodes(&mut self) {
        for index in 0..self.best.nodes.len() {
            self.attempt_with(|plan| plan.nodes[index].clock = Clock::default());
            self.attempt_with(|plan| plan.nodes[index].pace = Pace::default());
            let longest = self.best.nodes[index].pace.most;
            self.attempt_with(|plan| plan.nodes[index].pace = Pace::of(longest));
            let words: Vec<_> = self.best.nodes[index].setup.to_string().split(' ').map(str::to_owned).collect();
            let left_out = Cell::new(0);
            for word in 0..words.len() {
                let fewer: Vec<_> = self.best.nodes[index].setup.to_string().split(' ').map(str::to_owned).collect();
                let at = word - left_out.get();
                let text: Vec<_> =
                    fewer.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, w)| w.as_str()).collect();
                if let Ok(setup) = text.join(" ").parse::<N::Setup>()
                    && self.attempt_with(|plan| plan.nodes[index].setup = setup)
                {
                    left_out.set(left_out.get() + 1);
                }
            }
        }
    }

    fn simplify_actions(&mut self) {
        for index in 0..self.best.steps.len() {
            while let Some(Deed::Act(_, action)) = self.best.steps.get(index).map(|step| &step.deed) {
                let simpler = action.simpler();
                let found = simpler.into_iter().any(|action| {
                    self.attempt_with(|plan| {
                        if let Deed::Act(_, old) = &mut plan.steps[index].deed {
                            *old = action;
                        }
                    })
                });
                if !found {
                    break;
                }
            }
        }
    }

    /// Less time between the steps, and rounder numbers.
    fn hurry(&mut self) {
        for unit in [1000, 100, 10] {
            let unit = Duration::from_millis(unit);
            self.attempt_with(|plan| {
                plan.steps.iter_mut().for_each(|step| step.at = round_down(step.at, unit));
                let last = plan.steps.last().map_or(Duration::ZERO, |step| step.at);
                plan.heal = last.max(round_down(plan.heal, unit));
            });
            for index in 0..self.best.steps.len() {
                let (at, before) = (self.best.steps[index].at, index.checked_sub(1));
                let least = before.map_or(Duration::ZERO, |before| self.best.steps[before].at);
                let rounder = round_down(at, unit).max(least);
                if rounder < at {
                    self.attempt_with(|plan| plan.steps[index].at = rounder);
                }
            }
        }
        let last = self.best.steps.last().map_or(Duration::ZERO, |step| step.at);
        if last < self.best.heal {
            self.attempt_with(|plan| plan.heal = last);
        }
    }
}

fn round_down(time: Duration, unit: Duration) -> Duration {
    Duration::from_micros((time.as_micros() / unit.as_micros() * unit.as_micros()) as u64)
}

/// What does to a frame as the dice did.
fn tamper_of(fate: &Fate, delay: Duration) -> Option<Tamper> {
    match fate {
        Fate { lost: Some(_), .. } => Some(Tamper::Drop),
        Fate { duplicated: true, .. } => Some(Tamper::Duplicate),
        Fate { copies: [first, _], .. } if first.held_back => Some(Tamper::Delay(delay)),
        Fate { copies: [first, _], .. } => first.flipped_bit.map(Tamper::Flip),
    }
}

/// Notes what became of frames, by the number of their path.
struct Fates {
    found: std::rc::Rc<std::cell::RefCell<Vec<(usize, u64, Fate)>>>,
}

impl<N: Node> Law<N> for Fates {
    fn name(&self) -> &'static str {
        "fates"
    }

    fn check(&mut self, _: &Scene<'_, N>, happening: &Happening<N>) -> Result<(), String> {
        if let Happening::Sent { path, index, fate, .. } = happening {
            let eventful = fate.lost.is_some_and(|loss| loss != crate::link::Loss::Cut) || fate.duplicated;
            let copy = &fate.copies[0];
            if eventful || copy.held_back || copy.flipped_bit.is_some() {
                self.found.borrow_mut().push((path.index(), *index, *fate));
            }
        }
        Ok(())
    }
}
