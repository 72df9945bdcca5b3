//! The recorder: a machine in a machine, that writes down what goes into it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use antiphon::digest::Canonical;
use antiphon::{Instant, Machine};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::format::{Outcome, Payload};
use crate::sink::Sink;
use crate::writer::Writer;

/// A machine that can be recorded, and made again from what its trace begins with.
///
/// What must be said of one's own machine is its name, its setup, how it is made, and how its inputs are written; the rest
/// is for machines whose inputs have secrets.
pub trait Recordable: Machine<Input: Clone + Serialize + DeserializeOwned, Output: Hash, Misuse: Hash> + Sized {
    /// Its name in the headers of traces. Change it when inputs or setup change their form.
    const NAME: &'static str;

    /// All that it is made of: with the inputs, it determines everything.
    type Setup: Clone + Serialize + DeserializeOwned;

    /// The form in which inputs are written.
    type Written: Serialize + DeserializeOwned;

    /// What a redacted trace keeps of an output, as it can't be computed again; `()` if nothing.
    type Kept: Serialize + DeserializeOwned + Send;

    /// What is remembered of inputs and outputs to keep secrets out of what follows.
    type Censor: Default + fmt::Debug + Send;

    /// The machine at its beginning.
    fn make(setup: Self::Setup) -> Self;

    /// The setup as it is written: without secrets, such that the machine does the same with it. It is asked for before
    /// anything else; in a replay, where no secrets are, it is not.
    fn censored(_censor: &mut Self::Censor, setup: &Self::Setup) -> Self::Setup {
        setup.clone()
    }

    /// The input as it is written: without secrets, such that the machine does the same with it; and its bodies, which
    /// are written once a segment, however often they come. Where something is to be left out, that is what bodies say,
    /// and how many bytes they were is added.
    fn write(censor: &mut Self::Censor, input: &Self::Input, left_out: Option<&mut u64>)
    -> (Self::Written, Vec<Bytes>);

    /// The input that was written so; `None` if none can have been.
    fn read(written: Self::Written, bodies: Vec<Bytes>) -> Option<Self::Input>;

    /// Adds to a digest what the machine would have put out had its inputs been the censored ones. It is told of all
    /// outputs, in order. Of a machine whose inputs were the censored ones, that is what it did put out.
    fn digest(_censor: &mut Self::Censor, output: &Self::Output, digest: &mut Canonical) {
        output.hash(digest);
    }

    /// What a redacted trace keeps of an output: nothing secret, and nothing that bodies say.
    fn kept(_censor: &mut Self::Censor, _output: &Self::Output) -> Option<Self::Kept> {
        None
    }
}

/// What a recording is made with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Leaves out what bodies say. What is recorded so can be told and drawn, but not replayed.
    pub redacted: bool,
    /// When it begins, in milliseconds since 1970 by the wall clock: for people.
    pub began: u64,
}

/// A machine that is recorded, or not: then it costs nothing.
///
/// It is the machine: what goes in and comes out is the same. To look at the machine itself, it is dereferenced.
pub struct Recorder<M: Recordable> {
    machine: M,
    recording: Option<Box<Recording<M>>>,
}

struct Recording<M: Recordable> {
    /// What the machine has put out and nobody has polled.
    outputs: VecDeque<M::Output>,
    censor: M::Censor,
    redacted: bool,
    /// Of what was put out since the last event was over: before the first input there may be something.
    digest: Canonical,
    /// What is kept of it, in a redacted trace.
    kept: Vec<M::Kept>,
    /// `None` when the recording is over.
    writer: Option<Writer>,
    /// What went wrong until then.
    failure: Option<String>,
}

impl<M: Recordable> Recorder<M> {
    /// A machine that is not recorded.
    pub fn idle(machine: M) -> Self {
        Self { machine, recording: None }
    }

    /// Makes a machine, and records it from its first input on.
    pub fn new(setup: M::Setup, sink: impl Sink + 'static, options: Options) -> Self {
        let mut censor = M::Censor::default();
        let writer = Writer::new(M::NAME, &M::censored(&mut censor, &setup), Box::new(sink), options);
        let mut recording = Recording {
            outputs: VecDeque::new(),
            censor,
            redacted: options.redacted,
            digest: Canonical::default(),
            kept: Vec::new(),
            writer: Some(writer),
            failure: None,
        };
        let mut machine = M::make(setup);
        recording.drain(&mut machine);
        Self { machine, recording: Some(Box::new(recording)) }
    }

    /// Ends the recording in order: all of it is where it belongs when this returns, if the disk can be written at all.
    /// The machine goes on.
    pub fn finish(&mut self) {
        if let Some(recording) = &mut self.recording
            && let Some(writer) = recording.writer.take()
        {
            recording.failure = writer.finish();
        }
    }

    /// Why nothing more is recorded, if that failed. The machine is never held up by it.
    pub fn failure(&self) -> Option<String> {
        let recording = self.recording.as_ref()?;
        recording.writer.as_ref().map_or_else(|| recording.failure.clone(), Writer::failure)
    }
}

impl<M: Recordable> Machine for Recorder<M> {
    type Input = M::Input;
    type Output = M::Output;
    type Misuse = M::Misuse;

    fn handle(&mut self, now: Instant, input: M::Input) -> Result<(), M::Misuse> {
        match self.recording.as_deref_mut() {
            Some(recording) if recording.writer.is_some() => recording.handle(&mut self.machine, now, input),
            _ => self.machine.handle(now, input),
        }
    }

    fn poll(&mut self) -> Option<M::Output> {
        let waiting = self.recording.as_deref_mut().and_then(|recording| recording.outputs.pop_front());
        waiting.or_else(|| self.machine.poll())
    }

    fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }
}

impl<M: Recordable> Recording<M> {
    fn handle(&mut self, machine: &mut M, now: Instant, input: M::Input) -> Result<(), M::Misuse> {
        let Some(writer) = &mut self.writer else { return machine.handle(now, input) };
        let mut left_out = 0;
        let (written, bodies) = M::write(&mut self.censor, &input, Some(&mut left_out).filter(|_| self.redacted));
        writer.begin(now, &Payload { input: &written, bodies: &bodies, left_out });
        // The last input of all, if the machine falls over it, is the one that is wanted most.
        let result = match catch_unwind(AssertUnwindSafe(|| machine.handle(now, input))) {
            Ok(result) => result,
            Err(panic) => {
                writer.end_event(Outcome::Panicked);
                self.writer = None;
                resume_unwind(panic)
            }
        };
        self.drain(machine);
        let Some(writer) = &mut self.writer else { return result };
        if self.redacted {
            writer.keep(&self.kept);
            self.kept.clear();
            // A digest would tell bodies that can be guessed.
            writer.end_event(Outcome::Digest(0));
            return result;
        }
        let digest = close_digest(&mut self.digest, &result, machine.deadline());
        self.digest.reset();
        writer.end_event(Outcome::Digest(digest));
        result
    }

    /// Takes what the machine has put out.
    fn drain(&mut self, machine: &mut M) {
        while let Some(output) = machine.poll() {
            if self.redacted {
                self.kept.extend(M::kept(&mut self.censor, &output));
            } else {
                digest_output::<M>(&mut self.digest, &mut self.censor, &output);
            }
            self.outputs.push_back(output);
        }
    }
}

/// One more output.
pub(crate) fn digest_output<M: Recordable>(digest: &mut Canonical, censor: &mut M::Censor, output: &M::Output) {
    digest.write_u8(1);
    M::digest(censor, output, digest);
}

/// The digest of all that came of an input: the outputs that it was told of, whether it was misuse, and when the machine
/// wants to be woken.
pub(crate) fn close_digest<E: Hash>(digest: &mut Canonical, result: &Result<(), E>, deadline: Option<Instant>) -> u64 {
    digest.write_u8(0);
    result.hash(digest);
    deadline.hash(digest);
    digest.finish()
}

impl<M: Recordable> Deref for Recorder<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M: Recordable + fmt::Debug> fmt::Debug for Recorder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.recording.as_ref().is_some_and(|recording| recording.writer.is_some());
        f.debug_struct("Recorder").field("machine", &self.machine).field("records", &records).finish_non_exhaustive()
    }
}
