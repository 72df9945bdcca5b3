//! Snapshots: the authority's entries below a horizon give way to one, and who lacks them takes it.
//!
//! An authority's app makes a snapshot of what it made of a document up to some position, and hands it in. A replica to
//! which one is offered stages it piece by piece, each durable before the next is asked for, and then rebuilds the document
//! from it, as by a reset: its entries are put aside, and what the snapshot and the authority do not have of them is
//! appended again.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::{Asked, Authority, Event, LinkId, Misuse, Opened, Replica, Ticket};
use crate::codes::Code;
use crate::op::DocumentId;
use crate::session::{self, By};
use crate::snapshot::SnapshotId;
use crate::storage::{Request, Staged, StoredDocument, Transaction};
use crate::time::Instant;
use crate::wire::control::HEAD_BYTES_MAX;

/// A snapshot that is being taken.
#[derive(Clone, Debug, Hash)]
pub(super) struct Incoming {
    from: Opened,
    id: SnapshotId,
    /// The bytes before this one are durable.
    staged: u64,
    /// What came of the piece that was asked for, and where that ends.
    piece: Vec<Bytes>,
    to: u64,
}

impl Incoming {
    /// Whether it comes by this link.
    pub(super) fn is_from(&self, link: LinkId) -> bool {
        self.from.link == link
    }

    /// What of it is in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.piece.iter().map(|part| part.len() as u64).sum()
    }

    fn is_whole(&self) -> bool {
        self.staged == self.id.bytes
    }
}

impl Replica {
    // ---------------------------------------------------------------------------------------- the authority

    pub(super) fn compact(&mut self, document: &DocumentId, position: u64, body: Bytes) -> Result<(), Misuse> {
        let deadline = self.now + self.config.write_deadline;
        let state = self.documents.get_mut(document).filter(|state| state.is_wanted());
        let state = state.ok_or_else(|| Misuse::NotOpen(document.clone()))?;
        if state.options().authority != Authority::Us {
            return Err(Misuse::NotAuthority(document.clone()));
        }
        let fits = state.log().is_some_and(|log| log.horizon() < position && position <= log.tail());
        if !fits || !state.mending.is_whole() || state.apart.is_some() {
            return Err(Misuse::NotToCompact(document.clone(), position));
        }
        let number = state.number;
        let transaction = Transaction::Compact { document: document.clone(), horizon: position, body };
        let ticket = self.request(Asked::Compact(document.clone(), number), Request::Write(transaction));
        self.wait_apart(document, ticket, deadline);
        Ok(())
    }

    /// The snapshot is durable: asks the storage which it is.
    pub(super) fn compact_done(&mut self, document: DocumentId, number: u32, ticket: Ticket) {
        let Some(state) = self.documents.get_mut(&document) else { return };
        let done = state.apart.take_if(|(apart, _)| *apart == ticket).is_some();
        if done && state.number == number {
            let deadline = self.now + self.config.write_deadline;
            let ticket = self.request(Asked::Horizon(document.clone(), number), Request::Open(document.clone()));
            self.wait_apart(&document, ticket, deadline);
        }
    }

    /// The horizon has moved. Sessions that have not sent what lies below open the document again, to send the snapshot.
    pub(super) fn horizon_moved(
        &mut self,
        document: &DocumentId,
        number: u32,
        ticket: Ticket,
        stored: &StoredDocument,
    ) {
        let Some(state) = self.documents.get_mut(document) else { return };
        let done = state.apart.take_if(|(apart, _)| *apart == ticket).is_some();
        if !done || state.number != number {
            return;
        }
        let Some(log) = state.log_mut() else { return };
        log.compacted(stored.horizon, stored.snapshot);
        let horizon = stored.horizon;
        for link in self.links_of(document) {
            let session = self.links.get(&link).map(|state| &state.session);
            let frontiers = session.and_then(|session| session.frontiers(number));
            if frontiers.is_none_or(|frontiers| frontiers.received.position < horizon) {
                self.close_on(link, document, Code::COMPACTED, "what is to be sent exists only in a snapshot now");
            }
        }
        self.event(Event::Compacted { document: document.clone(), horizon });
        self.attach_waiting(document);
    }

    /// What a session was to send exists only in the snapshot now, or will in a moment.
    pub(super) fn reopen_compacted(&mut self, document: &DocumentId, opened: Opened) {
        if self.opened_on(opened.link, document) == Some(opened) {
            self.close_on(opened.link, document, Code::COMPACTED, "what is to be sent exists only in a snapshot now");
        }
    }

    /// A session sends the snapshot.
    pub(super) fn read_snapshot(&mut self, link: LinkId, number: u32, id: SnapshotId, offset: u64, max: u64) {
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let Some(opened) = self.opened_on(link, &document) else { return };
        let asked = Asked::Snapshot(document.clone(), opened);
        self.request_read(asked, Request::Snapshot { document, id, offset, max });
    }

    pub(super) fn snapshot_read(&mut self, document: &DocumentId, opened: Opened, bytes: Bytes) {
        let compacts = self.documents.get(document).is_some_and(|state| state.apart.is_some());
        if !bytes.is_empty() || !compacts {
            let read = |number| session::Input::SnapshotRead { number, bytes };
            self.session_input_for(document, opened, read);
        } // else another takes its place: the document is opened again, to send that
    }

    // ---------------------------------------------------------------------------------------- who takes one

    pub(super) fn snapshot_offered(&mut self, link: LinkId, number: u32, id: SnapshotId) {
        let limits = self.config.session.limits;
        let upstream = self.links.get(&link).is_some_and(|state| state.upstream);
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let (Some(from), Some(state)) = (self.opened_on(link, &document), self.documents.get_mut(&document)) else {
            return;
        };
        let heads_fit = id.head_bytes as usize <= limits.authors as usize * HEAD_BYTES_MAX;
        let authority = state.options().authority;
        if !upstream && authority == Authority::Upstream && self.links.values().any(|other| other.upstream) {
            return; // it comes from the authority, sooner or later
        }
        // Who has no app that wants the document passes on what its upstream has.
        let reason = if !upstream || authority != Authority::Upstream && state.is_wanted() {
            Some("snapshots are taken from the document's authority only")
        } else if id.bytes > self.config.snapshot_max || !heads_fit || u64::from(id.head_bytes) > id.bytes {
            Some("the snapshot is larger than this end takes")
        } else {
            None
        };
        if let Some(reason) = reason {
            let (code, reason) = (Code::BELOW_HORIZON, String::from(reason));
            self.close_on(link, &document, code, &reason);
            self.detach(link, &document);
            self.idle_check(&document);
            return self.event(Event::Closed { link, document, code, reason, by: By::Us });
        }
        let staged = state.staged.as_deref().filter(|staged| staged.id == id).map_or(0, |staged| staged.bytes);
        state.incoming = Some(Box::new(Incoming { from, id, staged, piece: Vec::new(), to: staged }));
        self.take_more(&document);
    }

    /// Asks for the next piece of the snapshot that is being taken, or installs it.
    fn take_more(&mut self, document: &DocumentId) {
        let window = self.config.session.limits.window;
        let Some(incoming) = self.documents.get_mut(document).and_then(|state| state.incoming.as_deref_mut()) else {
            return;
        };
        if incoming.is_whole() {
            let link = incoming.from.link;
            return self.install(document, link);
        }
        let (from, offset) = (incoming.from, incoming.staged);
        incoming.to = (offset + u64::from(window)).min(incoming.id.bytes);
        let want = |number| session::Input::WantSnapshot { number, offset, bytes: window };
        self.session_input_for(document, from, want);
    }

    /// Bytes of the snapshot are here: writes the piece when it is whole.
    pub(super) fn take_snapshot(&mut self, link: LinkId, number: u32, offset: u64, bytes: Bytes) {
        let deadline = self.now + self.config.write_deadline;
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let opened = self.opened_on(link, &document);
        let incoming = self.documents.get_mut(&document).and_then(|state| state.incoming.as_deref_mut());
        let Some(incoming) = incoming.filter(|incoming| Some(incoming.from) == opened) else { return };
        let to = offset + bytes.len() as u64;
        incoming.piece.push(bytes);
        if to < incoming.to {
            return;
        }
        let (id, offset) = (incoming.id, incoming.staged);
        let mut piece = BytesMut::with_capacity((to - offset) as usize);
        incoming.piece.drain(..).for_each(|part| piece.extend_from_slice(&part));
        let staged = Staged { id, bytes: to };
        let transaction = Transaction::Stage { document: document.clone(), id, offset, bytes: piece.freeze() };
        let ticket = self.request(Asked::Stage(document.clone(), staged), Request::Write(transaction));
        self.wait_apart(&document, ticket, deadline);
    }

    pub(super) fn stage_done(&mut self, document: &DocumentId, staged: Staged, ticket: Ticket) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.apart.take_if(|(apart, _)| *apart == ticket).is_none() {
            return; // the document was reset meanwhile
        }
        state.staged = Some(Box::new(staged));
        if let Some(incoming) = state.incoming.as_deref_mut().filter(|incoming| incoming.id == staged.id) {
            incoming.staged = staged.bytes;
            self.take_more(document);
        }
    }

    /// Something other than an append is under way.
    fn wait_apart(&mut self, document: &DocumentId, ticket: Ticket, deadline: Instant) {
        if let Some(state) = self.documents.get_mut(document) {
            state.apart = Some((ticket, deadline));
        }
        self.set_document_alarm(document, deadline);
    }

    /// The link by which a snapshot came is gone, or the document is not open there any more. Another that offers one is
    /// to do so again.
    pub(super) fn snapshot_cut(&mut self, document: &DocumentId, link: LinkId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.incoming.take_if(|incoming| incoming.is_from(link)).is_none() {
            return;
        }
        for other in self.links_of(document) {
            let session = self.links.get(&other).map(|state| &state.session);
            let number = self.number_on(other, document);
            if session.zip(number).is_some_and(|(session, number)| session.is_offered_snapshot(number)) {
                self.close_on(other, document, Code::COMPACTED, "the snapshot is taken from here now");
                self.attach_next(other, document);
            }
        }
    }
}
