//! What can be explored: states, the actions that lead from one to others, and what must hold.

use std::fmt;

/// Something that starts somewhere and goes on by actions, one of several at a time.
///
/// Everything must be a function of the arguments: the same state has the same digest and the same actions in the same
/// order, and an action leads to the same state each time. A path is kept as numbers of actions and run again to be
/// told.
pub trait Model {
    /// All that decides what can happen from here on.
    type State: Clone;
    /// What happens between two states.
    type Action;

    /// Where it starts.
    fn initial(&self) -> Self::State;

    /// Stands for the state: states with the same digest are taken for the same, and only one of them is explored. So
    /// it must cover all that tells them apart, and should cover no more.
    fn digest(&self, state: &Self::State) -> u128;

    /// What can happen in this state, in a fixed order; at most 65,536 actions.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// What an action that can happen leads to.
    ///
    /// # Errors
    /// The law that the step breaks.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Result<Self::State, Broken>;

    /// What a person reads of an action that can happen in this state.
    fn describe(&self, state: &Self::State, action: &Self::Action) -> String;

    /// Looks at a state by itself.
    ///
    /// # Errors
    /// The law that does not hold in it.
    fn check(&self, state: &Self::State) -> Result<(), Broken> {
        let _ = state;
        Ok(())
    }

    /// How a run goes on from here if nothing goes wrong any more and nobody is left out for ever. From each state it
    /// must reach [`Fair::Reached`]: so deadlocks and livelocks are found. By default there is nothing to reach.
    fn fair(&self, state: &Self::State) -> Fair<Self::Action> {
        let _ = state;
        Fair::Reached
    }
}

/// How a run goes on when nothing goes wrong any more.
#[derive(Clone, Debug)]
pub enum Fair<A> {
    /// It is where it must get to.
    Reached,
    /// By this action.
    Next(A),
    /// It can't, for this reason.
    Stuck(String),
}

/// A law that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// The law, in a few words.
    pub law: &'static str,
    /// How it was broken.
    pub detail: String,
}

impl Broken {
    /// `law` does not hold, as `detail` shows.
    pub fn new(law: &'static str, detail: impl Into<String>) -> Self {
        Self { law, detail: detail.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.detail)
    }
}

impl std::error::Error for Broken {}
