//! Who lives in a world: a machine with links, a disk and a user.

use std::fmt;
use std::str::FromStr;

use antiphon::codes::Retry;
use antiphon::replica::LinkId;
use antiphon::session::Transport;
use antiphon::storage::Continuity;
use antiphon::{Instant, Machine};
use antiphon_words::EventWords;
use bytes::Bytes;

use crate::laws::{Law, Ledger};

/// A process that lives in a world: any [`Machine`] that takes these inputs and has these outputs.
///
/// The world starts it on its disk, hands it what happens, does what it wants done, and takes it down as it pleases; what
/// the process knew is gone then, and what is on the disk is not.
pub trait Node:
    Machine<
        Input = Input<<Self as Node>::Action, <<Self as Node>::Disk as Disk>::Reply>,
        Output = Output<<<Self as Node>::Disk as Disk>::Request, <Self as Node>::Event>,
        Misuse: fmt::Display,
    > + Sized
{
    /// What survives the process.
    type Disk: Disk;
    /// How the process is set up: what a plan says of it, as text.
    type Setup: Clone + Default + PartialEq + fmt::Debug + fmt::Display + FromStr<Err: fmt::Display>;
    /// What its user does, as text too.
    type Action: Action;
    /// What it tells those who watch.
    type Event;
    /// What those who watch have in common; `()` if they need nothing.
    type Ledger: Ledger<Self>;

    /// An empty disk for a process that is set up so.
    fn disk(setup: &Self::Setup) -> Self::Disk;

    /// Starts the process.
    ///
    /// # Errors
    /// If it can't start: its disk fails, say. It is tried again later.
    fn start(disk: &mut Self::Disk, setup: &Self::Setup, start: Start) -> Result<Self, String>;

    /// What it tells, in words, for those who [draw](crate::picture) a run; nothing where it is not worth a mark.
    fn words(event: &Self::Event) -> Option<EventWords> {
        let _ = event;
        None
    }

    /// What always holds of such nodes. [`Laws`](crate::laws::Laws) of one's own can be added to these.
    fn laws() -> Vec<Box<dyn Law<Self>>>;
}

/// What a user does at a node.
pub trait Action: Clone + PartialEq + fmt::Debug + fmt::Display + FromStr<Err: fmt::Display> {
    /// Simpler actions of the kind, the simplest first: what a plan is made smaller with.
    fn simpler(&self) -> Vec<Self> {
        Vec::new()
    }
}

/// How a process starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The time.
    pub now: Moment,
    /// Whether the disk is surely what the last process left there.
    pub continuity: Continuity,
    /// Random bits, as the system would give.
    pub entropy: [u8; 32],
}

/// What the clocks of a node show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// The monotonic one.
    pub instant: Instant,
    /// The wall clock, which may go back: microseconds since 1970.
    pub wall: i64,
}

/// What happens to a node; `A` is [`Node::Action`], `R` the [`Disk::Reply`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Input<A, R> {
    /// A link came up.
    Connected {
        /// Its number, which is never used again.
        link: LinkId,
        /// What it is.
        transport: Transport,
        /// Whether the path says that the peer is the authority.
        upstream: bool,
    },
    /// A link is gone.
    Disconnected {
        /// Its number.
        link: LinkId,
    },
    /// A frame came.
    Received {
        /// From where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// The deadline has come.
    Timer,
    /// The disk has answered.
    Disk(R),
    /// The user does something.
    Act {
        /// What.
        action: A,
        /// The number of the step in its plan, for whoever needs numbers that differ.
        step: u64,
        /// What the wall clock shows.
        wall: i64,
    },
    /// The process is to end in order: this is its last input but for what the disk still answers.
    Stop,
}

/// What a node wants done; `Q` is [`Disk::Request`], `E` is [`Node::Event`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Output<Q, E> {
    /// Send a frame.
    Transmit {
        /// Where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// Close a link, when everything has been sent.
    Disconnect {
        /// Which.
        link: LinkId,
        /// When to connect again.
        retry: Retry,
    },
    /// A link is of use: the next time it ends, the first wait is short again.
    Established {
        /// Which.
        link: LinkId,
    },
    /// Let the disk do something, after all it was asked before.
    Disk(Q),
    /// Something to tell those who watch.
    Event(E),
}

/// What is left of a node when its process is gone.
pub trait Disk: Sized {
    /// What it is asked.
    type Request;
    /// What it answers.
    type Reply;

    /// Does as asked.
    ///
    /// # Errors
    /// If it does not.
    fn execute(&mut self, request: &Self::Request) -> Result<Self::Reply, Broken>;

    /// The answer when the disk did not do as asked, or does not say so.
    fn failed(request: &Self::Request, reason: &str) -> Self::Reply;

    /// Whether it is asked to write, and not only to read: what a full disk refuses.
    fn is_write(request: &Self::Request) -> bool;

    /// The process is gone without a word. Says how many writes are lost.
    fn crash(&mut self, how: Crash) -> usize;

    /// Of what was not synced only so many writes stay, and the process is there and was told nothing. Says how many writes
    /// are lost.
    fn lose_tail(&mut self, keep: usize) -> usize;

    /// The process has ended in order.
    fn close(&mut self);

    /// How many writes a loss of power could take back.
    fn unsynced(&self) -> usize;

    /// Another disk with all that is on this one: a backup or a clone.
    fn copy(&self) -> Self;
}

/// Why a disk did not do as asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Broken {
    /// It failed, and it is not the asking process that did something wrong.
    Failed(String),
    /// It refused: what it was asked must not be done.
    Refused(String),
    /// The process has no right to the disk any longer: it is as good as dead.
    Gone,
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// The process ends; everything that was written stays.
    Kill,
    /// The machine goes dark; of what was not synced only so many writes stay.
    PowerLoss {
        /// How many.
        keep: usize,
    },
}

/// A node without a disk.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct NoDisk;

/// There is no such thing: what a node without a disk asks of it, what a user does who does nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl FromStr for Never {
    type Err = &'static str;

    fn from_str(_: &str) -> Result<Self, &'static str> {
        Err("the user of such a node does nothing")
    }
}

impl Action for Never {}

impl Disk for NoDisk {
    type Request = Never;
    type Reply = Never;

    fn execute(&mut self, request: &Never) -> Result<Never, Broken> {
        match *request {}
    }

    fn failed(request: &Never, _: &str) -> Never {
        match *request {}
    }

    fn is_write(request: &Never) -> bool {
        match *request {}
    }

    fn crash(&mut self, _: Crash) -> usize {
        0
    }

    fn lose_tail(&mut self, _: usize) -> usize {
        0
    }

    fn close(&mut self) {}

    fn unsynced(&self) -> usize {
        0
    }

    fn copy(&self) -> Self {
        Self
    }
}
