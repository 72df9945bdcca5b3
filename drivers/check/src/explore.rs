//! The search: breadth first, so that the path to whatever is wrong is a shortest one.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::model::{Broken, Fair, Model};
use crate::seen::{DigestSet, Seen};

/// How far to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Distinct states; what lies beyond is not looked at. At most 2^32 - 1.
    pub states: usize,
    /// Actions of one run without faults. More are a livelock.
    pub fair_steps: usize,
}

impl Default for Limits {
    /// A million states, and from each a run of at most ten thousand actions.
    fn default() -> Self {
        Self { states: 1_000_000, fair_steps: 10_000 }
    }
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Distinct states, each of them checked.
    pub states: usize,
    /// Actions that were tried out from them.
    pub transitions: u64,
    /// Actions on the shortest path to the farthest state.
    pub depth: usize,
    /// States beyond, which only runs without faults lead to.
    pub settling: usize,
    /// Whether there is no other state.
    pub complete: bool,
}

impl Report {
    /// Adds what was seen in another model.
    pub fn add(&mut self, other: &Self) {
        self.complete = other.complete && (self.complete || self.states == 0);
        self.states += other.states;
        self.transitions += other.transitions;
        self.depth = self.depth.max(other.depth);
        self.settling += other.settling;
    }
}

/// A law that does not hold, and a shortest way to see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// What does not hold.
    pub broken: Broken,
    /// The actions from the initial state on.
    pub path: Vec<String>,
    /// How many of them were chosen. Those that follow are a run without faults that should have ended well.
    pub chosen: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        for (index, action) in self.path.iter().enumerate() {
            if index == self.chosen {
                writeln!(f, "      from here on nothing goes wrong any more")?;
            }
            writeln!(f, "{:4}  {action}", index + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// Explores all states that can be reached, or as many as the limits allow, those near the initial one first.
///
/// `progress` hears of what was seen now and then.
///
/// # Errors
/// The first law that is found broken. A panic of the model breaks a law too.
pub fn explore<M: Model>(model: &M, limits: &Limits, progress: impl FnMut(&Report)) -> Result<Report, Box<Violation>> {
    let search = Search { model, limits, seen: Seen::new(), settled: DigestSet::new(), report: Report::default() };
    search.run(progress)
}

struct Search<'a, M: Model> {
    model: &'a M,
    limits: &'a Limits,
    seen: Seen,
    /// States from which a run without faults ends well.
    settled: DigestSet,
    report: Report,
}

/// A law that is broken where a path ends that goes from a state seen before by one more action, or by none, and then
/// by so many without faults.
struct Found {
    broken: Broken,
    from: u32,
    action: Option<u16>,
    fair_steps: usize,
}

impl<M: Model> Search<'_, M> {
    fn run(mut self, progress: impl FnMut(&Report)) -> Result<Report, Box<Violation>> {
        let found = self.search(progress);
        found.map_err(|found| Box::new(self.violation(found)))
    }

    fn search(&mut self, mut progress: impl FnMut(&Report)) -> Result<Report, Found> {
        const TOLD_EVERY: usize = 1 << 14;
        let initial = self.model.initial();
        self.seen.insert(self.model.digest(&initial), None);
        self.look(&initial).map_err(|(broken, fair_steps)| Found { broken, from: 0, action: None, fair_steps })?;
        self.report.states = 1;
        // Of each depth all states come before those of the next.
        let mut waiting = VecDeque::from([(0u32, 0usize, initial)]);
        while let Some((number, depth, state)) = waiting.pop_front() {
            for (index, action) in (0u16..).zip(self.model.actions(&state)) {
                let found = |(broken, fair_steps)| Found { broken, from: number, action: Some(index), fair_steps };
                self.report.transitions += 1;
                let next = guarded(|| self.model.step(&state, &action)).map_err(|broken| found((broken, 0)))?;
                let Some(new) = self.seen.insert(self.model.digest(&next), Some((number, index))) else { continue };
                self.look(&next).map_err(found)?;
                self.report.states += 1;
                self.report.depth = depth + 1;
                if self.report.states.is_multiple_of(TOLD_EVERY) {
                    progress(&self.report);
                }
                if self.report.states >= self.limits.states {
                    return Ok(self.report);
                }
                waiting.push_back((new, depth + 1, next));
            }
        }
        self.report.complete = true;
        Ok(self.report)
    }

    /// Whether all is well with a state, and with how it goes on from there if nothing goes wrong any more. Otherwise,
    /// after how many actions it is not.
    fn look(&mut self, state: &M::State) -> Result<(), (Broken, usize)> {
        guarded(|| self.model.check(state)).map_err(|broken| (broken, 0))?;
        let mut passed = Vec::new();
        let mut state = state.clone();
        loop {
            let digest = self.model.digest(&state);
            if self.settled.contains(digest) {
                break;
            }
            passed.push(digest);
            let steps = passed.len() - 1;
            match self.model.fair(&state) {
                Fair::Reached => break,
                Fair::Stuck(why) => return Err((Broken::new(DEADLOCK, why), steps)),
                Fair::Next(_) if steps >= self.limits.fair_steps => {
                    return Err((Broken::new(LIVELOCK, format!("not even after {steps} actions")), steps));
                }
                Fair::Next(action) => {
                    state = guarded(|| self.model.step(&state, &action)).map_err(|broken| (broken, steps + 1))?;
                    guarded(|| self.model.check(&state)).map_err(|broken| (broken, steps + 1))?;
                }
            }
        }
        for digest in passed {
            self.report.settling += usize::from(self.settled.insert(digest) && !self.seen.contains(digest));
        }
        Ok(())
    }

    /// Runs the path again to tell it.
    fn violation(&self, found: Found) -> Violation {
        let mut choices = self.seen.path(found.from);
        choices.extend(found.action);
        let (mut state, mut path) = (self.model.initial(), Vec::new());
        for choice in &choices {
            let Some(action) = self.model.actions(&state).into_iter().nth(usize::from(*choice)) else { break };
            path.push(self.model.describe(&state, &action));
            let Ok(next) = guarded(|| self.model.step(&state, &action)) else { break };
            state = next;
        }
        let chosen = path.len();
        for _ in 0..found.fair_steps {
            let Fair::Next(action) = self.model.fair(&state) else { break };
            path.push(self.model.describe(&state, &action));
            let Ok(next) = guarded(|| self.model.step(&state, &action)) else { break };
            state = next;
        }
        Violation { broken: found.broken, path, chosen }
    }
}

const DEADLOCK: &str = "whatever happened, all ends well";
const LIVELOCK: &str = "whatever happened, all ends well in time";
const PANIC: &str = "nothing panics";

/// What panics breaks a law, and has a path like any other.
fn guarded<T>(step: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| Err(Broken::new(PANIC, message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
