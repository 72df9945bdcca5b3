//! The disk of a replica: a storage in memory that may lose what was not synced.

use antiphon::op::DocumentId;
use antiphon::replica::Ticket;
use antiphon::storage::{Reply, Request, Storage};
use antiphon::wire::Durability;
use antiphon_memory::{Disk, MemoryStorage, StorageError};

use crate::node::{self, Broken, Crash};

/// A [`Disk`], and the right to use it while its replica is up.
#[derive(Debug, Default)]
pub struct ReplicaDisk {
    /// The medium.
    pub(crate) medium: Disk,
    pub(super) storage: Option<MemoryStorage>,
    /// After how many writes everything is synced; 0: only when the replica ends in order.
    pub(super) sync_every: u32,
    writes: u32,
}

impl ReplicaDisk {
    /// A disk that nobody uses.
    pub fn on(medium: Disk) -> Self {
        Self { medium, ..Self::default() }
    }

    /// The medium.
    pub fn medium(&self) -> &Disk {
        &self.medium
    }

    /// The documents on it.
    pub(crate) fn documents(&self) -> Vec<DocumentId> {
        self.read(|storage| storage.documents()).unwrap_or_default()
    }

    /// Reads it, whether it is in use or not.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&mut MemoryStorage) -> Result<T, StorageError>) -> Option<T> {
        let mut storage = match &self.storage {
            Some(storage) => storage.clone(),
            None => self.medium.backup().open().ok()?,
        };
        read(&mut storage).ok()
    }
}

impl node::Disk for ReplicaDisk {
    type Request = (Ticket, Request);
    type Reply = (Ticket, Result<Reply, String>);

    fn execute(&mut self, (ticket, request): &Self::Request) -> Result<Self::Reply, Broken> {
        let storage = self.storage.as_mut().ok_or(Broken::Gone)?;
        let reply = storage.execute(request).map_err(|error| match error {
            StorageError::Gone => Broken::Gone,
            StorageError::Failed => Broken::Failed(error.to_string()),
            StorageError::WrongPosition { .. }
            | StorageError::NotNext { .. }
            | StorageError::WrongChain { .. }
            | StorageError::WrongHorizon { .. }
            | StorageError::WrongOffset { .. }
            | StorageError::BadSnapshot { .. } => Broken::Refused(error.to_string()),
        })?;
        if self.sync_every > 0 && matches!(request, Request::Write(_)) {
            self.writes += 1;
            if self.writes >= self.sync_every {
                self.writes = 0;
                let _ = storage.sync(); // what is not synced then may be lost, as ever
            }
        }
        Ok((*ticket, Ok(reply)))
    }

    fn failed((ticket, _): &Self::Request, reason: &str) -> Self::Reply {
        (*ticket, Err(reason.to_owned()))
    }

    fn is_write((_, request): &Self::Request) -> bool {
        matches!(request, Request::Write(_))
    }

    fn crash(&mut self, how: Crash) -> usize {
        let unsynced = self.medium.unsynced();
        let kept = match how {
            _ if self.medium.promise() == Durability::Memory => 0,
            Crash::Kill => unsynced,
            Crash::PowerLoss { keep } => keep.min(unsynced),
        };
        match how {
            Crash::Kill => self.medium.kill(),
            Crash::PowerLoss { .. } => self.medium.lose_power(kept),
        }
        self.storage = None;
        unsynced - kept
    }

    fn lose_tail(&mut self, keep: usize) -> usize {
        let unsynced = self.medium.unsynced();
        self.medium.lose_tail(keep);
        unsynced.saturating_sub(keep)
    }

    fn close(&mut self) {
        self.storage = None; // whoever drops it closes it in order, which syncs it
    }

    fn unsynced(&self) -> usize {
        self.medium.unsynced()
    }

    fn copy(&self) -> Self {
        Self { medium: self.medium.backup(), sync_every: self.sync_every, ..Self::default() }
    }
}
