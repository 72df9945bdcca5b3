//! How far a synchronizer is.

/// What a synchronizer is at.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// It is stopped, or nobody is there to be in step with.
    #[default]
    Idle,
    /// Something is being read from the document, or is to come from a peer.
    Loading,
    /// Something that was written here is not yet durable everywhere.
    Saving,
    /// The store, the document, and all peers that are there hold the same.
    InStep,
}

/// How far it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// What it is at.
    pub phase: Phase,
    /// How many peers have the document open now.
    pub peers: usize,
    /// At least so many ops are to come into the store.
    pub to_load: u64,
    /// So many ops are to become durable here, or at the peer that lacks the most.
    pub to_save: u64,
    /// What is wrong, if something is and is tried again: the disk fails, or a peer has closed the document.
    pub trouble: Option<String>,
}

/// What a synchronizer did since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Statistics {
    /// Ops of the document that were joined to the store, one's own as well, each time they were read.
    pub loads: u64,
    /// Ops that were given to the document.
    pub saves: u64,
    /// Ops among those read that no store can have written. All stores leave them out.
    pub malformed: u64,
    /// How often a snapshot was made of the document.
    pub compactions: u64,
}
