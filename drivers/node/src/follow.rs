//! Reading a document as it grows, at one's own pace.

use antiphon::op::{DocumentId, Entry};
use antiphon::replica::Misuse;
use antiphon::snapshot::SnapshotId;

use crate::error::Error;
use crate::node::Node;

/// What a [`Follow`] yields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Followed {
    /// The next entries.
    Entries {
        /// The position of the first.
        position: u64,
        /// The entries, at least one.
        entries: Vec<Entry>,
    },
    /// What stood below a position exists only in a snapshot, which is to be read in its place.
    Snapshot {
        /// Which: [`Node::snapshot`] gives its bytes.
        id: SnapshotId,
        /// The position of the next entry.
        position: u64,
    },
    /// The log began anew, or lost its end: what was read before is void, and it is read again from position 0.
    Restarted,
}

/// Reads a document, and what is added to it: at the pace of who reads, however slow that is.
#[derive(Debug)]
pub struct Follow {
    node: Node,
    document: DocumentId,
    position: u64,
    restarts: u64,
}

/// What is read at once.
const FOLLOW_COST: u64 = 256 << 10;

impl Follow {
    pub(crate) fn new(node: Node, document: DocumentId, position: u64) -> Self {
        let restarts = node.0.lock().documents.get(&document).map_or(0, |state| state.restarts);
        Self { node, document, position, restarts }
    }

    /// The position of the next entry.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entries; waits for them if there are none yet.
    ///
    /// # Errors
    /// If the document is not open, the storage can't be read, or the node has stopped. The next call goes on.
    pub async fn next(&mut self) -> Result<Followed, Error> {
        loop {
            let changed = self.node.0.changed.listen();
            let (tail, restarts) = {
                let engine = self.node.0.lock();
                engine.serving()?;
                let state = engine.documents.get(&self.document);
                let state = state.ok_or_else(|| Misuse::NotOpen(self.document.clone()))?;
                (state.tail, state.restarts)
            };
            if restarts != self.restarts {
                (self.restarts, self.position) = (restarts, 0);
                return Ok(Followed::Restarted);
            }
            if tail > self.position {
                let entries = self.node.read(&self.document, self.position, FOLLOW_COST).await?;
                if !entries.is_empty() {
                    let position = self.position;
                    self.position += entries.len() as u64;
                    return Ok(Followed::Entries { position, entries });
                }
                let stored = self.node.stored(&self.document).await?;
                if let Some(id) = stored.snapshot.filter(|_| self.position < stored.horizon) {
                    self.position = stored.horizon;
                    return Ok(Followed::Snapshot { id, position: stored.horizon });
                }
            }
            changed.await;
        }
    }
}
