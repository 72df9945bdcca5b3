//! The log as the app is given it: each entry once, when it is durable, in the order of the log.

use std::collections::{BTreeMap, VecDeque};

use antiphon::op::DocumentId;
use antiphon::replica::Ticket;
use antiphon::storage::{Request, Storage, Transaction};
use antiphon_memory::MemoryStorage;
use bytes::Bytes;

use super::App;

/// Reads the log for an app.
#[derive(Debug)]
pub(super) struct Reader {
    storage: MemoryStorage,
    /// Writes that are under way.
    writes: VecDeque<(Ticket, Transaction)>,
    /// How many entries of each document the app was given.
    given: BTreeMap<DocumentId, u64>,
}

impl Reader {
    pub(super) fn new(storage: MemoryStorage) -> Self {
        Self { storage, writes: VecDeque::new(), given: BTreeMap::new() }
    }

    /// The replica has asked its storage for something.
    pub(super) fn asked(&mut self, ticket: Ticket, request: &Request) {
        if let Request::Write(
            transaction @ (Transaction::Append(_) | Transaction::Reset { .. } | Transaction::Install { .. }),
        ) = request
        {
            self.writes.push_back((ticket, transaction.clone()));
        }
    }

    /// The storage has answered. If it failed, the document is loaded again, and what it holds is read then.
    pub(super) fn answered(&mut self, app: &mut impl App, ticket: Ticket, done: bool) {
        let Some(index) = self.writes.iter().position(|(asked, _)| *asked == ticket) else { return };
        let Some((_, transaction)) = self.writes.remove(index).filter(|_| done) else { return };
        match transaction {
            Transaction::Append(batch) => self.catch_up(app, &batch.document, batch.tail()),
            Transaction::Reset { document, .. } => {
                self.given.insert(document.clone(), 0);
                app.reset(&document);
            }
            Transaction::Install { document, .. } => {
                self.given.insert(document.clone(), 0); // the snapshot is read when the document is loaded
                app.reset(&document);
            }
            Transaction::Identity(_) | Transaction::Compact { .. } | Transaction::Stage { .. } => {}
        }
    }

    /// The app opens a document: it is given all of it again.
    pub(super) fn begin_anew(&mut self, document: &DocumentId) {
        self.given.remove(document);
    }

    /// Gives the app what it was not given, up to a position where the log ends now.
    pub(super) fn catch_up(&mut self, app: &mut impl App, document: &DocumentId, to: u64) {
        let given = self.given.entry(document.clone()).or_default();
        if *given > to {
            *given = 0; // the storage has lost entries behind our back
            app.reset(document);
        }
        if *given == 0
            && let Some((horizon, body)) = snapshot(&mut self.storage, document)
        {
            app.snapshot(document, horizon, &body);
            *given = horizon;
        }
        while *given < to {
            let Ok(entries) = self.storage.read(document, *given, 1 << 20) else { return };
            if entries.is_empty() {
                return;
            }
            for entry in entries.iter().take((to - *given) as usize) {
                app.entry(document, entry);
            }
            *given = (*given + entries.len() as u64).min(to);
        }
    }
}

/// What stands in the place of a document's first entries, and where those that are there begin.
fn snapshot(storage: &mut MemoryStorage, document: &DocumentId) -> Option<(u64, Bytes)> {
    let stored = storage.document(document).ok()?;
    let id = stored.snapshot?;
    let body = storage.snapshot(document, id, u64::from(id.head_bytes), u64::MAX).ok()?;
    Some((stored.horizon, body))
}
