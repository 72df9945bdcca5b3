//! Laws: what must hold whatever happens, each an object of its own, asked after everything that happens.

use std::fmt;

use crate::coverage::Coverage;
use crate::node::Node;
use crate::world::{Happening, World};

/// What those who watch a world have in common, so that each need not find it out for itself.
pub trait Ledger<N: Node>: Default {
    /// Notes something that has happened.
    ///
    /// # Errors
    /// If it can't be: then a law is broken that all others build upon.
    fn note(&mut self, world: &World<N>, happening: &Happening<N>) -> Result<(), Violation>;

    /// What is still to come before all are in step, now that everything has healed.
    ///
    /// # Errors
    /// If something is.
    fn rest(&self, world: &World<N>) -> Result<(), String>;

    /// How many ops were written, and durable somewhere.
    fn ops(&self) -> u64 {
        0
    }

    /// What was reached.
    fn coverage(&self) -> Coverage {
        Coverage::default()
    }
}

/// For nodes of which nothing need be known, and that are always in step.
impl<N: Node> Ledger<N> for () {
    fn note(&mut self, _: &World<N>, _: &Happening<N>) -> Result<(), Violation> {
        Ok(())
    }

    fn rest(&self, _: &World<N>) -> Result<(), String> {
        Ok(())
    }
}

/// Something that must hold. It is told everything that happens, in order; what it looks at in the world is as it is after
/// the whole event.
pub trait Law<N: Node> {
    /// What it is called: a word or two that stay the same.
    fn name(&self) -> &'static str;

    /// Whether it still holds, now that this has happened.
    ///
    /// # Errors
    /// If it does not: how it is broken.
    fn check(&mut self, scene: &Scene<'_, N>, happening: &Happening<N>) -> Result<(), String>;

    /// Whether it holds at the end, when everything has healed and all are in step.
    ///
    /// # Errors
    /// If it does not: how it is broken.
    fn at_rest(&mut self, scene: &Scene<'_, N>) -> Result<(), String> {
        let _ = scene;
        Ok(())
    }
}

/// What laws look at.
pub struct Scene<'a, N: Node> {
    /// The world, after the event.
    pub world: &'a World<N>,
    /// What is known of it. Of the event, everything is noted up to what a law is asked about.
    pub ledger: &'a N::Ledger,
}

/// A law that is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which.
    pub law: &'static str,
    /// How.
    pub what: String,
}

impl Violation {
    /// A law that is broken in this way.
    pub fn of(law: &'static str, what: impl Into<String>) -> Self {
        Self { law, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// All laws of a world, and what is known of it.
pub struct Laws<N: Node> {
    ledger: N::Ledger,
    laws: Vec<Box<dyn Law<N>>>,
    happenings: Vec<Happening<N>>,
}

impl<N: Node> Laws<N> {
    /// Those that hold of all such nodes.
    pub fn of_nodes() -> Self {
        Self::these(N::laws())
    }

    /// Only these.
    pub fn these(laws: Vec<Box<dyn Law<N>>>) -> Self {
        Self { ledger: N::Ledger::default(), laws, happenings: Vec::new() }
    }

    /// One more.
    #[must_use]
    pub fn and(mut self, law: impl Law<N> + 'static) -> Self {
        self.laws.push(Box::new(law));
        self
    }

    /// What is known of the world.
    pub fn ledger(&self) -> &N::Ledger {
        &self.ledger
    }

    /// Asks all laws about everything that has happened since they were last asked. The world must be
    /// [watched](World::watch) from its beginning.
    ///
    /// # Errors
    /// If one is broken.
    pub fn check(&mut self, world: &mut World<N>) -> Result<(), Violation> {
        self.hear(world);
        self.judge(world)
    }

    /// Takes over what has happened since the last call.
    pub(crate) fn hear(&mut self, world: &mut World<N>) {
        self.happenings.clear();
        world.swap_happenings(&mut self.happenings);
    }

    /// What was heard and is to be judged.
    pub(crate) fn heard(&self) -> &[Happening<N>] {
        &self.happenings
    }

    /// Asks all laws about what was heard.
    pub(crate) fn judge(&mut self, world: &World<N>) -> Result<(), Violation> {
        for happening in &self.happenings {
            self.ledger.note(world, happening)?;
            let scene = Scene { world, ledger: &self.ledger };
            for law in &mut self.laws {
                law.check(&scene, happening).map_err(|what| Violation { law: law.name(), what })?;
            }
        }
        Ok(())
    }

    /// What is still to come before all are in step.
    ///
    /// # Errors
    /// If something is.
    pub fn rest(&self, world: &World<N>) -> Result<(), String> {
        self.ledger.rest(world)
    }

    /// Asks all laws whether they hold at the end.
    ///
    /// # Errors
    /// If one is broken.
    pub fn at_rest(&mut self, world: &World<N>) -> Result<(), Violation> {
        let scene = Scene { world, ledger: &self.ledger };
        for law in &mut self.laws {
            law.at_rest(&scene).map_err(|what| Violation { law: law.name(), what })?;
        }
        Ok(())
    }
}
