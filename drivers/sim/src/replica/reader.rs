//! The log as the app is given it: each entry once, when it is durable, in the order of the log.

use std::collections::{BTreeMap, VecDeque};

use antiphon::op::DocumentId;
use antiphon::replica::Ticket;
use antiphon::storage::{Request, Storage, Transaction};
use antiphon_memory::MemoryStorage;

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
                self.given.insert(document.clone(), 1); // the snapshot's
                app.reset(&document);
            }
            Transaction::Identity(_) | Transaction::Compact { .. } | Transaction::Stage { .. } => {}
        }
    }

    /// Gives the app what it was not given, up to a position where the log ends now.
    pub(super) fn catch_up(&mut self, app: &mut impl App, document: &DocumentId, to: u64) {
        let given = self.given.entry(document.clone()).or_default();
        if *given > to {
            *given = 0; // the storage has lost entries behind our back
            app.reset(document);
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
