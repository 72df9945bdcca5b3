//! How a bare session is recorded: what it is made of, which of its inputs have bodies, and where its token is.
//!
//! ```
//! use antiphon::op::{ReplicaId, Timeline};
//! use antiphon::session::{Config, Input, Local};
//! use antiphon::{Instant, Machine, Session};
//! use antiphon_recorder::session::Setup;
//! use antiphon_recorder::{Memory, Recorder, Trace};
//!
//! // In earnest the bits are the system's.
//! let (replica, timeline) = (ReplicaId([1; 16]), Timeline::new(1));
//! let local = Local { replica, timeline, previous: None, nonce: 7, token: Some("a secret".into()) };
//! let setup = Setup { now: Instant::ZERO, config: Config::default(), local };
//! let memory = Memory::new(1 << 20);
//! let mut session: Recorder<Session> = Recorder::new(setup, memory.clone(), Default::default());
//! assert!(session.poll().is_some(), "its Hello");
//! session.handle(Instant::from_millis(3), Input::Timer)?;
//! session.finish();
//!
//! let trace = Trace::read(memory.segments())?;
//! let setup = trace.runs[0].setup::<Session>()?;
//! assert_eq!(setup.local.token, Some("********".into()));
//! assert!(trace.runs[0].replay::<Session>()?.all(|step| !step.differs()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod transcript;

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};

use antiphon::digest::Canonical;
use antiphon::log::{Author, Chunk};
use antiphon::op::ReplicaId;
use antiphon::session::{Config, Input, Live, Local, Output, Transport};
use antiphon::wire::Packed;
use antiphon::{Instant, Session};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::line::Line;
use crate::recorder::Recordable;
use crate::tokens::{From, Link, may_have_token, starred};
use crate::told::Told;
use crate::trace::Run;
use crate::written::{Strands, join_frame, put_entries_together, redacted_frame, split_frame, take_entries};

pub use transcript::Transcript;

/// What a session is made of: the arguments of [`Session::new`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Setup {
    /// When the link came up.
    pub now: Instant,
    /// How it behaves.
    pub config: Config,
    /// Who this end is.
    pub local: Local,
}

/// An input without its bodies.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Written {
    /// As it is; but frames received end before their bodies.
    Input(Input),
    /// Entries of the log.
    Loaded {
        /// The document.
        number: u32,
        /// The position of the first entry.
        from: u64,
        /// The entries.
        entries: Strands,
        /// The numbers of their authors.
        authors: BTreeMap<ReplicaId, Author>,
    },
}

/// A frame that a session sent, with empty bodies.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sent(pub Bytes);

impl std::convert::From<Sent> for Output {
    fn from(Sent(frame): Sent) -> Self {
        Self::Transmit(frame)
    }
}

/// The Hellos of a session's link, once it is known what that is.
#[derive(Clone, Debug, Default)]
pub struct Hellos(Option<Link>);

impl Hellos {
    /// The input without secrets, and with `then` done to frames of which bodies are a part.
    fn censored(&mut self, input: &Input, mut then: impl FnMut(Bytes) -> Bytes) -> Input {
        match (input, &mut self.0) {
            (Input::Received(frame), Some(link)) => Input::Received(link.frame(From::Peer, frame, then)),
            (Input::Received(_), None) => Input::Received(Bytes::new()), // nothing is written before the setup is
            (Input::Advance { number, tail, digest, held, live: Some(Live::Packed(packed)) }, _) => {
                let then = |packed: &Packed| Packed { frame: then(packed.frame.clone()), ..packed.clone() };
                let live = Some(Live::Packed(packed.iter().map(then).collect()));
                Input::Advance { number: *number, tail: *tail, digest: *digest, held: *held, live }
            }
            _ => input.clone(),
        }
    }
}

impl Recordable for Session {
    const NAME: &'static str = "session";
    type Setup = Setup;
    type Written = Written;
    type Kept = Sent;
    type Censor = Hellos;

    fn make(Setup { now, config, local }: Setup) -> Self {
        Self::new(now, config, local)
    }

    fn censored(hellos: &mut Hellos, setup: &Setup) -> Setup {
        hellos.0 = Some(Link::new(setup.config.transport));
        let token = starred(setup.local.token.as_ref());
        Setup { local: Local { token, ..setup.local.clone() }, ..setup.clone() }
    }

    fn write(hellos: &mut Hellos, input: &Input, left_out: Option<&mut u64>) -> (Written, Vec<Bytes>) {
        match (input, left_out) {
            (Input::Loaded { number, chunk: Chunk { from, entries, authors } }, left_out) => {
                let (entries, bodies) = take_entries(entries, left_out);
                (Written::Loaded { number: *number, from: *from, entries, authors: authors.clone() }, bodies)
            }
            (Input::SnapshotRead { number, bytes }, Some(left_out)) => {
                *left_out += bytes.len() as u64;
                (Written::Input(Input::SnapshotRead { number: *number, bytes: Bytes::new() }), Vec::new())
            }
            (_, Some(left_out)) => {
                let redacted = hellos.censored(input, |frame| redacted_frame(frame, left_out));
                (Written::Input(redacted), Vec::new())
            }
            (Input::Received(_), None) => {
                let mut input = hellos.censored(input, |frame| frame);
                let bodies = if let Input::Received(frame) = &mut input { split_frame(frame) } else { Vec::new() };
                (Written::Input(input), bodies)
            }
            (_, None) => (Written::Input(input.clone()), Vec::new()),
        }
    }

    fn read(written: Written, bodies: Vec<Bytes>) -> Option<Input> {
        match written {
            Written::Input(Input::Received(frame)) => Some(Input::Received(join_frame(frame, &bodies)?)),
            Written::Input(input) => bodies.is_empty().then_some(input),
            Written::Loaded { number, from, entries, authors } => {
                let chunk = Chunk { from, entries: put_entries_together(entries, bodies)?, authors };
                Some(Input::Loaded { number, chunk })
            }
        }
    }

    fn digest(hellos: &mut Hellos, output: &Output, digest: &mut Canonical) {
        match (output, &mut hellos.0) {
            (Output::Transmit(frame), Some(link)) if may_have_token(frame) => {
                digest.write_u64(xxh3_64(&link.frame(From::Us, frame, |bare| bare)));
            }
            (Output::Transmit(frame), _) => digest.write_u64(xxh3_64(frame)),
            (Output::Authenticate { replica, timeline, token }, _) => {
                (replica, timeline, starred(token.as_ref())).hash(digest);
            }
            _ => output.hash(digest),
        }
    }

    fn kept(hellos: &mut Hellos, output: &Output) -> Option<Sent> {
        let Output::Transmit(frame) = output else { return None };
        Some(Sent(hellos.0.as_mut()?.frame(From::Us, frame, |bare| redacted_frame(bare, &mut 0))))
    }
}

impl Told for Session {
    type Transcript = Transcript;

    fn transcript(run: &Run) -> Transcript {
        Transcript::new(run.made_of::<Self>().map_or(Transport::Reliable, |setup| setup.config.transport))
    }

    fn tell_input(transcript: &mut Transcript, input: &Input) -> Line {
        transcript.input(input)
    }

    fn tell_output(transcript: &mut Transcript, output: &Output) -> Line {
        transcript.output(output)
    }
}
