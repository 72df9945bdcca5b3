//! What a machine has to bring so that its recordings can be told.

use antiphon::Machine;

use crate::line::Line;
use crate::recorder::Recordable;
use crate::trace::Run;

/// A machine whose recordings can be told in words.
pub trait Told: Recordable<Kept: Into<<Self as Machine>::Output>> {
    /// What is remembered of what was told: the names that numbers and tickets stand for. It must be shown all inputs and
    /// outputs, in order; where outputs are missing, as in a trace that can't be replayed, some names stay numbers.
    type Transcript: Clone;

    /// Nothing of the recording is told yet.
    fn transcript(run: &Run) -> Self::Transcript;

    /// Something that happened to the machine.
    fn tell_input(transcript: &mut Self::Transcript, input: &Self::Input) -> Line;

    /// Something that the machine wants done.
    fn tell_output(transcript: &mut Self::Transcript, output: &Self::Output) -> Line;
}
