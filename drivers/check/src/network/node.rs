//! What stands at the ends of links: whatever has sessions and a disk.

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use antiphon::Instant;
use antiphon::codes::Code;
use antiphon::op::{Cursor, DocumentId, OpId, ReplicaId};
use antiphon::rng::Rng;
use antiphon::session::Ending;
use antiphon::storage::Batch;
use antiphon::wire::Point;
use bytes::Bytes;

use crate::disk::Disk;
use crate::model::Broken;

/// One participant of a [`Network`](crate::Network), up or down, with its disk and its clock.
///
/// It does at once whatever needs nobody else. Its clock stands still but for [`Stimulus::Timer`]: what a moment is to
/// one node it need not be to another.
pub trait Node: Clone + Hash {
    /// Something happens to it. What it did about it goes into `effects`, in order.
    fn handle(&mut self, stimulus: Stimulus, effects: &mut Vec<Effect>);

    /// Whether it runs.
    fn is_up(&self) -> bool;

    /// When it wants to be woken, if it runs.
    fn deadline(&self) -> Option<Instant>;

    /// Whether its disk has something to carry out, which takes a step.
    fn writes(&self) -> bool;

    /// Whether its app was asked something and has not answered.
    fn is_asked(&self) -> bool {
        false
    }

    /// Its disk, as it is now.
    fn disk(&self) -> &Disk;

    /// The id under which it authors now, if it runs.
    fn author(&self) -> Option<ReplicaId>;

    /// How far it durably holds the log of the peer on a link, if the document is open with it.
    fn held(&self, link: usize) -> Option<(ReplicaId, Cursor)>;

    /// The digest of the heads at which the session on a link was last told that both ends are in step.
    fn in_step(&self, link: usize) -> Option<u64>;

    /// Whether a fork was reported on a link.
    fn is_forked(&self, link: usize) -> bool;

    /// Whether it has something to do that needs nobody else but its disk, or was appended and is on its way.
    fn is_busy(&self) -> bool;
}

/// What happens to a node.
#[derive(Clone, Debug, Hash)]
pub enum Stimulus {
    /// Its process starts.
    Start,
    /// Its process ends, and perhaps more.
    Crash(Crash),
    /// A link is up.
    Connect {
        /// Which.
        link: usize,
        /// Whether the peer is the authority of the document.
        upstream: bool,
    },
    /// A link is gone.
    Disconnect {
        /// Which.
        link: usize,
    },
    /// A frame comes.
    Receive {
        /// On which link.
        link: usize,
        /// The frame, with a datagram's trailer.
        frame: Bytes,
    },
    /// Its clock moves on to its deadline.
    Timer,
    /// Its app appends an op.
    Append(Bytes),
    /// Its app answers the oldest question, and lets the peer in.
    Answer,
    /// Its app waits for the acknowledgement of all it has appended.
    Wait,
    /// Its disk is done with the oldest of what it was to carry out.
    Written(Outcome),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Crash {
    /// What was written stays.
    Kill,
    /// The write under way is carried out, and nobody is left to hear of it.
    KillAfterWrite,
    /// Of the writes that are not synced only so many stay.
    PowerLoss(usize),
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// It is carried out.
    Done,
    /// It is not, and the disk says so.
    Failed,
    /// The disk says that it failed, and it was carried out.
    Doubtful,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It sends a frame.
    Transmit {
        /// On which link.
        link: usize,
        /// The frame, with a datagram's trailer.
        frame: Bytes,
    },
    /// Its session on a link is over, and not because the link is gone.
    Ended {
        /// Which link.
        link: usize,
        /// How it ended.
        ending: Ending,
    },
    /// It closes the document on a link, or answers that. The network reads this off its frames.
    Closed(Code),
    /// It acknowledges. The network reads this off its frames.
    Acknowledges {
        /// On which link.
        link: usize,
        /// Everything of the peer's log before this place was taken.
        received: Point,
        /// Everything of it below this position is durable.
        held: u64,
        /// Whether it says nothing else.
        plain: bool,
    },
    /// It was told that its log is durable at the peer below a position.
    Acknowledged {
        /// On which link.
        link: usize,
        /// The position.
        position: u64,
    },
    /// It was told that it and the peer hold the same.
    InStep {
        /// On which link.
        link: usize,
    },
    /// Its app was told that an op is durable.
    Applied(OpId),
    /// Its disk carried out an append.
    Wrote(Arc<Batch>),
    /// A peer sent it an op that it had authored itself and still holds.
    Echo(OpId),
    /// It took a new replica id.
    Renewed,
    /// It sees by itself that a law is broken.
    Broken(Broken),
}

/// The one document of a network.
pub fn document() -> DocumentId {
    static DOCUMENT: LazyLock<DocumentId> = LazyLock::new(|| "notes".parse().expect("it is a name"));
    DOCUMENT.clone()
}

/// What a node draws at its `open`th start: never the same again, and the same in every run.
pub(crate) fn entropy(node: usize, open: u64) -> Rng {
    Rng::new((node as u64 + 1) << 32 | open)
}
