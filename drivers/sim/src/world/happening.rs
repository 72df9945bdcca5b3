//! What happens in a world, for those who watch.

use antiphon::replica::LinkId;
use bytes::Bytes;

use super::{DiskState, NodeId, PathId};
use crate::clock::Clock;
use crate::link::{Fate, Faults};
use crate::node::{Disk, Node};

/// Something that has happened.
pub enum Happening<N: Node> {
    /// A process has started.
    Started {
        /// Where.
        node: NodeId,
    },
    /// A process is gone.
    Down {
        /// Where.
        node: NodeId,
        /// How.
        how: Down,
        /// How many writes are lost.
        lost: usize,
        /// Whether its disk had been asked for something and not answered.
        unfinished: bool,
    },
    /// Another disk was put into a node that is down: a backup, or a copy of another node's.
    Replaced {
        /// Where.
        node: NodeId,
    },
    /// A disk has lost its last writes under a process, or without one.
    TailLost {
        /// Whose.
        node: NodeId,
        /// How many.
        lost: usize,
    },
    /// A link came up at a node.
    Connected {
        /// Where.
        node: NodeId,
        /// Its number there.
        link: LinkId,
        /// The path.
        path: PathId,
    },
    /// A link is gone at a node, by its own will or not.
    Disconnected {
        /// Where.
        node: NodeId,
        /// Its number.
        link: LinkId,
    },
    /// A node has sent a frame.
    Sent {
        /// Which.
        node: NodeId,
        /// On which path.
        path: PathId,
        /// The number of the frame on its path, both ends counted.
        index: u64,
        /// What it was.
        frame: Bytes,
        /// What becomes of it.
        fate: Fate,
    },
    /// A frame has come to a node.
    Arrived {
        /// Which.
        node: NodeId,
        /// By which link.
        link: LinkId,
        /// On which path.
        path: PathId,
        /// Its number there, as it was told when the frame was [sent](Happening::Sent).
        index: u64,
    },
    /// A frame has come to a node that is not connected there any longer, or not yet.
    Unheard {
        /// Where.
        node: NodeId,
        /// On which path.
        path: PathId,
        /// Its number there.
        index: u64,
    },
    /// A path has gone down, and both ends are told.
    Parted {
        /// Which.
        path: PathId,
    },
    /// What these ends of a path send is lost from now on, and nobody is told.
    Cut {
        /// Which.
        path: PathId,
        /// Whether what the first and the second end send is lost, earlier cuts included.
        sides: [bool; 2],
    },
    /// A path that was down or cut is whole again.
    Mended {
        /// Which.
        path: PathId,
    },
    /// A path has other faults from now on.
    Faults {
        /// Which.
        path: PathId,
        /// What its frames suffer.
        faults: Faults,
    },
    /// A process does nothing from now on, as if its machine were asleep.
    Paused {
        /// Where.
        node: NodeId,
    },
    /// A process goes on.
    Resumed {
        /// Where.
        node: NodeId,
    },
    /// A node's clocks were set.
    ClockSet {
        /// Where.
        node: NodeId,
        /// What they show.
        clock: Clock,
    },
    /// A backup was made of a node's disk.
    BackedUp {
        /// Whose.
        node: NodeId,
    },
    /// A disk is another from now on.
    DiskSet {
        /// Whose.
        node: NodeId,
        /// What it is like.
        state: DiskState,
    },
    /// A disk has done as it was asked.
    Done {
        /// Whose.
        node: NodeId,
        /// What.
        request: <N::Disk as Disk>::Request,
        /// Whether the node is told so; if not, it is told that it failed.
        told: bool,
    },
    /// A disk has not done as it was asked, and the node is told so.
    Failed {
        /// Whose.
        node: NodeId,
    },
    /// A disk had to refuse what the node asked.
    Refused {
        /// Whose.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A user has done something.
    Acted {
        /// Where.
        node: NodeId,
        /// What.
        action: N::Action,
        /// The number of the step.
        step: u64,
    },
    /// A node has told something.
    Told {
        /// Which.
        node: NodeId,
        /// What.
        event: N::Event,
    },
    /// A node has dealt with an input, and wants nothing more: what must hold after every event holds now.
    Settled {
        /// Which.
        node: NodeId,
        /// Whether the input was that its deadline had come.
        timer: bool,
    },
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Down {
    /// In order.
    Stopped,
    /// Without warning.
    Killed,
    /// With its machine.
    PowerLost,
}
