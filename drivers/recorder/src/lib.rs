//! A flight recorder: what happens to a machine is written down as it happens, and can be run again.
//!
//! A [`Recorder`] is a machine around a machine, under whatever driver. For each input it writes `(now, input, digest of
//! what came of it)`; as machines depend on nothing else, the inputs alone are the whole run. [`Run::replay`] makes the
//! machine anew and compares every digest: the first that differs names the event at which another version, a damaged
//! trace or a fault of the hardware shows. [`Told`] puts events into words.
//!
//! A [`Replica`](antiphon::Replica) is [`Recordable`], and so is a bare [`Session`](antiphon::Session), for who drives
//! sessions by hand; what the latter is made of is in [`session`].
//!
//! ```
//! use antiphon::replica::{Config, Input, Options};
//! use antiphon::rng::Rng;
//! use antiphon::storage::{Continuity, Identity};
//! use antiphon::{Instant, Machine, Replica};
//! use antiphon_recorder::{Memory, Recorder, Setup, Trace};
//!
//! let identity = Identity::reopen(None, Continuity::Proven, &mut Rng::new(1)); // in earnest: the storage's
//! let setup = Setup { config: Config::default(), identity, entropy: [7; 32] };
//! let memory = Memory::new(1 << 20); // in earnest: Ring::new("a directory").open()?
//! let mut replica: Recorder<Replica> = Recorder::new(setup, memory.clone(), Default::default());
//! replica.handle(Instant::ZERO, Input::Open { document: "notes".parse()?, options: Options::default() })?;
//! while replica.poll().is_some() {}
//! replica.finish();
//!
//! let trace = Trace::read(memory.segments())?;
//! let mut steps = trace.runs[0].replay::<Replica>()?;
//! assert!(steps.all(|step| !step.differs()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A recording
//!
//! A recording begins with its machine, and is a sequence of *segments*. In a [`Ring`], a directory, each is a file
//! `RUN-SEGMENT.trace`; recordings follow each other there, one for each time that the process was started. When all
//! together are more than [`Ring::bytes`], the oldest segments are dropped. There are no snapshots of machines: a state
//! that was read from a file would have to be checked in every field before it may run. So a recording that has lost its
//! beginning can be told and drawn, but not replayed, and [says so](NotReplayable::NoBeginning); the ring must hold what
//! is to be replayed.
//!
//! A thread writes what has gathered for 20 ms; a kill takes away no more than that, and what is being written. The
//! machine never waits for it: if the disk is full, or 64 MiB behind, the recording [gives up](Recorder::failure), and
//! the machine goes on.
//!
//! # The format
//!
//! Integers are LEB128 varints where nothing else is said; values are in postcard's encoding. A segment is
//!
//! ```text
//! magic     8 bytes   "antiph", 0, "t"
//! format    2 bytes   little endian: 1
//! header    length, the value `Header`, 4 bytes of checksum
//! records   length, payload, 4 bytes of checksum
//! ```
//!
//! Magic and format stay where they are in all formats: a trace of another one is refused, and never misread. Checksums
//! are the low bits of XXH3-64, for a record with its number as the seed, so that none can stand in for another. The
//! payload of a record is
//!
//! ```text
//! kind      1 byte    0: an event; 1: an event at which the machine panicked; 2: the recording goes on in the next
//!                     segment; 3: it ended in order
//! digest    8 bytes   of what came of the event: XXH3-64 over outputs (with the first event, those before it too), misuse
//!                     and deadline
//! since     microseconds since the event before
//! left out  bytes of bodies that a redacted trace has left out
//! bodies    count, and for each twice its length and its bytes, or twice how many bodies of at least 32 bytes ago it was
//!           written in this segment, and one
//! input     the value `Written`: the input without its bodies
//! kept      in a redacted trace, where there is any: a list of what is kept of the outputs, the frames sent
//! ```
//!
//! # Secrets
//!
//! [Tokens](antiphon::session::Local::token) never get into a trace: as many stars stand for each, in setups, in inputs and in what
//! digests are computed over, and hashes over Hellos are those over Hellos with stars. How long a token was can be seen.
//! Bodies do get into it, and files of a ring can be read by their owner only; with [`Ring::redacted`] bodies are left
//! out, and digests and chains with them; so that it can be drawn, frames sent are in it as those received are. Names of documents, ids, and hashes over whole histories stay.

mod events;
mod format;
mod line;
mod recorder;
mod replay;
mod replica;
mod ring;
pub mod session;
mod sink;
mod tokens;
mod told;
mod trace;
mod transcript;
mod writer;
mod written;

pub use events::{End, Event, Events};
pub use format::{FORMAT, Header, Outcome};
pub use line::Line;
pub use recorder::{Options, Recordable, Recorder};
pub use replay::{Replay, Step};
pub use replica::{Sent, Setup, Tokens};
pub use ring::{BYTES_DEFAULT, BYTES_MIN, Files, Ring, SUFFIX};
pub use sink::{Memory, Sink};
pub use told::Told;
pub use trace::{Error, NotReplayable, Run, Trace};
pub use transcript::Transcript;
pub use written::{Strands, Written};
