//! Recordings run again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use antiphon::digest::Canonical;

use crate::events::{Event, Events};
use crate::format::Outcome;
use crate::recorder::{Recordable, close_digest, digest_output};
use crate::trace::{NotReplayable, Run};

/// An event, and what the machine made of it now.
#[derive(Debug)]
pub struct Step<M: Recordable> {
    /// The event.
    pub event: Event<M::Input, M::Kept>,
    /// What the machine put out.
    pub outputs: Vec<M::Output>,
    /// What came of it now. If that is not [`Event::outcome`], nothing after this is replayed.
    pub outcome: Outcome,
}

impl<M: Recordable> Step<M> {
    /// Whether the machine did something else than when it was recorded.
    pub fn differs(&self) -> bool {
        self.outcome != self.event.outcome
    }
}

/// A recording that is run again, event by event, up to the first that differs.
#[derive(Debug)]
pub struct Replay<'a, M: Recordable> {
    /// `None` when it has panicked, or differed.
    machine: Option<M>,
    digest: Canonical,
    censor: M::Censor,
    events: Events<'a, M>,
}

impl Run {
    /// Makes the machine anew, and gives it what it was given then.
    ///
    /// # Errors
    /// Why that can't be, if so.
    pub fn replay<M: Recordable>(&self) -> Result<Replay<'_, M>, NotReplayable> {
        let setup = self.setup::<M>()?;
        Ok(Replay {
            machine: Some(M::make(setup)),
            digest: Canonical::default(),
            censor: M::Censor::default(),
            events: self.events(),
        })
    }
}

impl<'a, M: Recordable> Replay<'a, M> {
    /// What is left of the recording: after the last step, the events that were not replayed, and how it ends.
    pub fn into_events(self) -> Events<'a, M> {
        self.events
    }
}

impl<M: Recordable> Iterator for Replay<'_, M> {
    type Item = Step<M>;

    fn next(&mut self) -> Option<Step<M>> {
        let machine = self.machine.as_mut()?;
        let event = self.events.next()?;
        let (at, input) = (event.at, event.input.clone());
        let mut outputs = Vec::new();
        let (digest, censor) = (&mut self.digest, &mut self.censor);
        digest.reset();
        // A machine that panicked then will do so again; and a trace that was made up may lie to it.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut drain = |machine: &mut M| {
                while let Some(output) = machine.poll() {
                    digest_output::<M>(digest, censor, &output);
                    outputs.push(output);
                }
            };
            drain(machine); // what it put out as soon as it was made
            let result = machine.handle(at, input);
            drain(machine);
            close_digest(digest, &result, machine.deadline())
        }));
        let outcome = ran.map_or(Outcome::Panicked, Outcome::Digest);
        let step = Step { event, outputs, outcome };
        if step.differs() || outcome == Outcome::Panicked {
            self.machine = None;
        }
        Some(step)
    }
}
