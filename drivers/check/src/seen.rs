//! Which states were seen, and how they were reached, in about forty bytes a state.

use hashbrown::HashTable;

/// States by their digests, each with the one that it was first reached from.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    nodes: Vec<Node>,
    /// Numbers of nodes, by their digests.
    table: HashTable<u32>,
}

#[derive(Debug)]
struct Node {
    digest: u128,
    parent: u32,
    action: u16,
}

/// The parent of the initial state.
const NONE: u32 = u32::MAX;

impl Seen {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The number of a state that was not seen before.
    pub(crate) fn insert(&mut self, digest: u128, from: Option<(u32, u16)>) -> Option<u32> {
        let Self { nodes, table } = self;
        let number = nodes.len() as u32;
        let same = |other: &u32| nodes[*other as usize].digest == digest;
        let hash_of = |other: &u32| nodes[*other as usize].digest as u64;
        match table.entry(digest as u64, same, hash_of) {
            hashbrown::hash_table::Entry::Occupied(_) => None,
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(number);
                let (parent, action) = from.unwrap_or((NONE, 0));
                nodes.push(Node { digest, parent, action });
                Some(number)
            }
        }
    }

    pub(crate) fn contains(&self, digest: u128) -> bool {
        self.table.find(digest as u64, |other| self.nodes[*other as usize].digest == digest).is_some()
    }

    /// The numbers of the actions from the initial state to this one.
    pub(crate) fn path(&self, number: u32) -> Vec<u16> {
        let mut path = Vec::new();
        let mut node = &self.nodes[number as usize];
        while node.parent != NONE {
            path.push(node.action);
            node = &self.nodes[node.parent as usize];
        }
        path.reverse();
        path
    }
}

/// A set of digests, which are hashes already.
#[derive(Debug, Default)]
pub(crate) struct DigestSet(HashTable<u128>);

impl DigestSet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn contains(&self, digest: u128) -> bool {
        self.0.find(digest as u64, |other| *other == digest).is_some()
    }

    /// Whether it is new.
    pub(crate) fn insert(&mut self, digest: u128) -> bool {
        let new = !self.contains(digest);
        if new {
            self.0.insert_unique(digest as u64, digest, |other| *other as u64);
        }
        new
    }
}
