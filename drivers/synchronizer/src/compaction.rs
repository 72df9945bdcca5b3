//! When a document is compacted, by its authority.

use antiphon_node::Error;

use crate::synchronizer::Bound;

/// When a snapshot takes the place of a document's ops: as soon as those since the last one take `bytes_min`, and `factor`
/// times what the last one took. So a document never takes much more than that of its store's size, and what is
/// written is written again once in `factor` times at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compaction {
    /// Bytes of bodies. Default: 64 KiB.
    pub bytes_min: u64,
    /// Default: 4.
    pub factor: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { bytes_min: 64 << 10, factor: 4 }
    }
}

/// What there is of a document.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Since {
    /// Bytes of the last snapshot.
    pub(crate) snapshot: u64,
    /// Bytes of the bodies since.
    pub(crate) bytes: u64,
}

/// Compacts the document, of which everything before `tail` is in the store, if it is time.
pub(crate) fn compact(bound: &Bound, when: Compaction, since: &mut Since, tail: u64) -> Result<(), Error> {
    if since.bytes < when.bytes_min.max(when.factor.saturating_mul(since.snapshot)) {
        return Ok(());
    }
    let snapshot = {
        let mirror = &bound.store.lock().mirror;
        // What is not in the document yet must not be in what stands for it.
        if !mirror.is_equal() {
            return Ok(());
        }
        mirror.store().snapshot()
    };
    let bytes = snapshot.len() as u64;
    match bound.node.compact(&bound.document, tail, snapshot) {
        Ok(()) => {
            *since = Since { snapshot: bytes, bytes: 0 };
            bound.state().statistics.compactions += 1;
            Ok(())
        }
        // Not now: there is another try when more has come.
        Err(Error::Misuse(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
