//! Plans: everything that will happen in a run, as a value. A seed makes one, a person can read and change it as text, and
//! it can be made smaller.

mod generate;
mod profile;
mod shrink;
mod text;

use std::time::Duration;

use antiphon::rng::Ratio;
use antiphon::storage::Continuity;

pub use generate::{Place, Source, Workload};
pub use profile::{BadTopology, Profile, Topology};
pub use shrink::{Shrunk, shrink, shrink_with, smaller};
pub use text::BadPlan;
pub(crate) use text::{clock_text, disk_text};

use crate::clock::Clock;
use crate::link::Faults;
use crate::node::Node;
use crate::world::{DiskState, Medium, Pace, Tamper};

/// A plan for a world of such nodes.
pub type PlanOf<N> = Plan<<N as Node>::Setup, <N as Node>::Action>;

/// Everything that will happen in a run: `S` is [`Node::Setup`], `A` is [`Node::Action`].
///
/// First there is chaos: the steps are taken at their times. Then everything heals: faults end, whoever is down starts,
/// and within the budget all must be in step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S, A> {
    /// Fixes what is left to dice while it runs: the fate of frames, ids, how long disks take.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<PlannedNode<S>>,
    /// The paths.
    pub paths: Vec<PlannedPath>,
    /// What happens, in the order of time.
    pub steps: Vec<Step<A>>,
    /// What is done to single frames.
    pub frames: Vec<PlannedFrame>,
    /// When everything heals.
    pub heal: Duration,
    /// What being in step may cost from then on.
    pub budget: Budget,
}

/// Stands for a node in a plan, and keeps doing so when others are left out.
pub type NodeName = u32;

/// Stands for a path in a plan: the nodes at its ends, the first named first.
pub type PathName = (NodeName, NodeName);

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedNode<S> {
    /// What it is called.
    pub name: NodeName,
    /// It is not started at the beginning: a step starts it, or it stays down.
    pub down: bool,
    /// Its clocks.
    pub clock: Clock,
    /// How long its disk takes.
    pub pace: Pace,
    /// How it is set up.
    pub setup: S,
}

/// A path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedPath {
    /// The nodes at its ends.
    pub name: PathName,
    /// What it is.
    pub medium: Medium,
}

/// Something that is done to one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedFrame {
    /// The path.
    pub path: PathName,
    /// The number of the frame on it, from 0, both ends counted.
    pub index: u64,
    /// What is done to it.
    pub tamper: Tamper,
}

/// What being in step may cost, once everything has healed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Virtual time.
    pub time: Duration,
    /// Bytes in the frames that are sent.
    pub bytes: u64,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<A> {
    /// When, since the beginning.
    pub at: Duration,
    /// What.
    pub deed: Deed<A>,
}

/// What is done in a step. A deed that makes no sense when its time comes (a node starts that is up) does nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed<A> {
    /// The user of a node does something.
    Act(NodeName, A),
    /// A node goes down.
    Fall(NodeName, Fall),
    /// A node starts. Without a word of continuity, whoever starts it says what can be known.
    Start(NodeName, Option<Continuity>),
    /// A backup of a node's disk is made.
    BackUp(NodeName),
    /// The backup is put in place of the disk of a node that is down.
    Restore(NodeName),
    /// A copy of the first node's disk is put into the second, which is down.
    Clone(NodeName, NodeName),
    /// A node's disk loses what was not synced, but for this part of it, and the process is told nothing.
    LoseTail(NodeName, Ratio),
    /// A node's disk is like this from now on.
    Disk(NodeName, DiskState),
    /// A node's disk takes this long from now on.
    Pace(NodeName, Pace),
    /// A node's process does nothing, or goes on.
    Pause(NodeName, bool),
    /// A node's clocks are set.
    Clock(NodeName, i64),
    /// What the first or the second end of a path sends is lost, and nobody is told.
    Cut(PathName, [bool; 2]),
    /// A path goes down, and both ends are told.
    Down(PathName),
    /// A path is up again.
    Mend(PathName),
    /// The frames of a path suffer this from now on.
    Faults(PathName, Faults),
}

/// How a node goes down in a plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fall {
    /// In order.
    Stop,
    /// The process ends; its peers are told.
    Kill,
    /// The machine loses its power: of what was not synced this part stays. Nobody is told.
    Power(Ratio),
}

impl<A> Deed<A> {
    /// The nodes that it is about.
    pub fn nodes(&self) -> Vec<NodeName> {
        match self {
            Self::Act(node, _)
            | Self::Fall(node, _)
            | Self::Start(node, _)
            | Self::BackUp(node)
            | Self::Restore(node)
            | Self::LoseTail(node, _)
            | Self::Disk(node, _)
            | Self::Pace(node, _)
            | Self::Pause(node, _)
            | Self::Clock(node, _) => vec![*node],
            Self::Clone(from, to) => vec![*from, *to],
            Self::Cut((first, second), _)
            | Self::Down((first, second))
            | Self::Mend((first, second))
            | Self::Faults((first, second), _) => vec![*first, *second],
        }
    }

    /// The path that it is about.
    pub fn path(&self) -> Option<PathName> {
        match self {
            Self::Cut(path, _) | Self::Down(path) | Self::Mend(path) | Self::Faults(path, _) => Some(*path),
            _ => None,
        }
    }
}
