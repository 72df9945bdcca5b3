//! What plans are drawn from: how many of what, and how bad.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use antiphon::rng::Ratio;

/// What plans are like that are drawn from seeds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Profile {
    /// How many nodes there are at the beginning.
    pub replicas: u32,
    /// How many documents each has open.
    pub documents: u32,
    /// How many ops are written, in all.
    pub ops: u32,
    /// Who is joined with whom.
    pub topology: Topology,
    /// How many frames are lost. If this and the next three are never, all paths are reliable; else about one in five is,
    /// and the others have datagrams.
    pub loss: Ratio,
    /// How many frames arrive twice.
    pub duplicate: Ratio,
    /// How many frames are held back.
    pub reorder: Ratio,
    /// How many frames are damaged.
    pub corrupt: Ratio,
    /// How often paths are cut.
    pub partitions: u32,
    /// How often nodes go down.
    pub crashes: u32,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            replicas: 3,
            documents: 1,
            ops: 20,
            topology: Topology::Star,
            loss: Ratio::one_in(20),
            duplicate: Ratio::one_in(50),
            reorder: Ratio::one_in(20),
            corrupt: Ratio::one_in(1000),
            partitions: 1,
            crashes: 1,
        }
    }
}

/// Who is joined with whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Topology {
    /// The first two with each other, the next two, and so on.
    Pair,
    /// All with the first.
    Star,
    /// Each with the next.
    Chain,
    /// Each with the next, and the last with the first.
    Ring,
    /// All with all.
    Mesh,
    /// Each with its parent, which has two children: relays below the first.
    Tree,
}

impl Topology {
    /// All of them, with their names.
    pub const ALL: [(&str, Self); 6] = [
        ("pair", Self::Pair),
        ("star", Self::Star),
        ("chain", Self::Chain),
        ("ring", Self::Ring),
        ("mesh", Self::Mesh),
        ("tree", Self::Tree),
    ];

    /// The paths between so many nodes. The second end of each is nearer to the first of all nodes, in star, chain and tree.
    pub fn paths(self, nodes: u32) -> Vec<(u32, u32)> {
        let each = 1..nodes;
        match self {
            Self::Pair => (0..nodes / 2).map(|pair| (2 * pair + 1, 2 * pair)).collect(),
            Self::Star => each.map(|node| (node, 0)).collect(),
            Self::Chain => each.map(|node| (node, node - 1)).collect(),
            Self::Ring if nodes > 2 => each.map(|node| (node, node - 1)).chain([(0, nodes - 1)]).collect(),
            Self::Ring => Self::Chain.paths(nodes),
            Self::Mesh => each.flat_map(|node| (0..node).map(move |other| (node, other))).collect(),
            Self::Tree => each.map(|node| (node, (node - 1) / 2)).collect(),
        }
    }

    /// Whether there is one way, and one only, between any two of so many nodes, so that the first of them can be everyone's
    /// authority, at one or more removes.
    pub fn is_tree(self, nodes: u32) -> bool {
        matches!(self, Self::Star | Self::Chain | Self::Tree) || nodes <= 2
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, topology)| topology == self).map_or("", |(name, _)| name))
    }
}

/// Why a text is no [`Topology`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadTopology;

impl fmt::Display for BadTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topology is pair, star, chain, ring, mesh or tree")
    }
}

impl Error for BadTopology {}

impl FromStr for Topology {
    type Err = BadTopology;

    fn from_str(text: &str) -> Result<Self, BadTopology> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, topology)| *topology).ok_or(BadTopology)
    }
}
