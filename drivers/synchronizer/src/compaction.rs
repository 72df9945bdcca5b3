//! When a document is compacted, by its authority.

use std::time::Duration;

use antiphon_node::Error;

use crate::synchronizer::Bound;

/// When a snapshot takes the place of a document's ops: as soon as those since the last one take `bytes_min`, and `factor`
/// times what the last one took. So a document never takes much more than that of its store's size, and what is
/// written is written again once in `factor` times at most.
///
/// A document in which there is anything that no store can have written is not compacted, lest one of another kind is lost
/// that was taken for a store's: see [`malformed`](crate::Statistics::malformed).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compaction {
    /// Bytes of bodies. Default: 64 KiB.
    pub bytes_min: u64,
    /// Default: 4.
    pub factor: u64,
    /// Deletions that are older than this are forgotten where they outnumber what is left of a table: see
    /// [`Store::sweep`](antiphon::store::Store::sweep). A replica that was away for longer may find that what it wrote
    /// meanwhile to such a table came too late; so the app must say how long that is. Default: `None`, never.
    pub forget_after: Option<Duration>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { bytes_min: 64 << 10, factor: 4, forget_after: None }
    }
}

/// What there is of a document.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Since {
    /// Bytes of the last snapshot.
    pub(crate) snapshot: u64,
    /// Bytes of the bodies since.
    pub(crate) bytes: u64,
    /// Old deletions were forgotten, for the snapshot that is due.
    is_swept: bool,
    /// Something in the document is none of a store's: a snapshot of the store would not stand for that.
    pub(crate) is_foreign: bool,
}

impl Since {
    /// Since a snapshot of so many bytes was made.
    pub(crate) fn snapshot(bytes: u64) -> Self {
        Self { snapshot: bytes, ..Self::default() }
    }
}

/// Compacts the document, of which everything before `tail` is in the store, if it is time.
pub(crate) fn compact(bound: &Bound, when: Compaction, since: &mut Since, tail: u64) -> Result<(), Error> {
    if since.is_foreign || since.bytes < when.bytes_min.max(when.factor.saturating_mul(since.snapshot)) {
        return Ok(());
    }
    if let Some(age) = when.forget_after.filter(|_| !std::mem::replace(&mut since.is_swept, true)) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let before = bound.store.now().saturating_sub(age);
        // It is an op like others; where it would be too large, the deletions stay.
        let _ = bound.store.change(|inner| inner.mirror.sweep(before));
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
            *since = Since::snapshot(bytes);
            bound.state().statistics.compactions += 1;
            Ok(())
        }
        // Not now: there is another try when more has come.
        Err(Error::Misuse(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
