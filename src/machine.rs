//! The one shape of everything that reacts: inputs in, outputs out, time as an argument.

use crate::time::Instant;

/// A pure, deterministic state machine.
///
/// All work happens in [`handle`](Machine::handle); [`poll`](Machine::poll) only pops what is ready. When the caller
/// polls can't matter: two inputs without a drain between them are legal, and the list of `(now, input)` alone is a
/// complete trace. Recording, replaying, simulating and fuzzing are written once, over this trait.
pub trait Machine {
    /// What happens to the machine.
    type Input;
    /// What the machine wants done.
    type Output;
    /// What the caller did wrong. Nothing has changed when a call returns it.
    type Misuse;

    /// Takes one input. `now` must not be earlier than in the call before; if it is, the later one counts.
    ///
    /// # Errors
    /// When the caller broke a rule of the machine's interface. What peers and disks do wrong is never an error here:
    /// it comes out as an output.
    fn handle(&mut self, now: Instant, input: Self::Input) -> Result<(), Self::Misuse>;

    /// The next thing to do, in order; `None` when all is done.
    #[must_use]
    fn poll(&mut self) -> Option<Self::Output>;

    /// When the machine next wants its timer input, if at all. Early and spurious timers do nothing.
    #[must_use]
    fn deadline(&self) -> Option<Instant>;
}
