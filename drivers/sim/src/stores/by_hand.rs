//! Worlds of stores, driven by hand: short words for tests.

use antiphon::op::DocumentId;
use antiphon::store::{Mirror, Transaction, WriteError};

use super::StoreNode;
use crate::world::{NodeId, World};

impl World<StoreNode> {
    /// An empty world of replicas with stores, whose randomness all comes from `seed`.
    pub fn of_stores(seed: u64) -> Self {
        Self::of(seed)
    }

    /// The store of a document that was open when its replica started, if that is up.
    pub fn mirror(&self, node: NodeId, document: &DocumentId) -> Option<&Mirror> {
        Some(self.process(node)?.app().kept(document)?.mirror())
    }

    /// The app of a replica does a transaction at `wall`, in milliseconds since 1970, whatever its clock shows.
    ///
    /// # Errors
    /// Those of `write` and of the commit.
    ///
    /// # Panics
    /// If the replica is down, or did not have the document open when it started.
    pub fn transact(
        &mut self,
        node: NodeId,
        document: &DocumentId,
        wall: u64,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let done = self
            .with_process(node, |now, process| process.with_app(now, |stores| stores.transact(document, wall, write)));
        self.settle();
        done.expect("the replica is up")
    }
}
