//! Attaching: a document is opened on a link, and opened again when what was known of the peer proves wrong.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Asked, Authority, Event, LinkId, Opened, Replica};
use crate::codes::{Code, Retry};
use crate::op::{Cursor, DocumentId, ReplicaId};
use crate::session::{self, By, Opening};
use crate::storage::Request;
use crate::wire::Access;

/// A document on a link.
#[derive(Clone, Debug, Hash)]
pub(super) struct Attached {
    stage: Stage,
    /// What the peer may do.
    grant: Access,
    /// Exchange heads and leave nothing out.
    pub(super) thorough: bool,
    /// What is known of how far the peer's log is held is wrong.
    forget_cursor: bool,
    /// Authors have other histories at the peer: how far its log is held says nothing of what is held.
    pub(super) forked: bool,
    /// How often it was opened again since the two were last in step.
    reopened: u32,
    /// How often of these because they hold different things.
    mismatched: u32,
    /// Which of the replica's openings it is, once it is open.
    opening: u64,
    /// The cursor as it is stored.
    pub(super) stored: Option<Cursor>,
    /// What the peer holds of our ops is being compared with what they are: nothing is sent before, lest ops of one
    /// history are taken for those of another. What was to be sent meanwhile.
    pub(super) checking: Option<Postponed>,
}

/// A session wants entries from a position on, of a certain cost.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Postponed(pub(super) Option<(u64, u64)>);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stage {
    /// The document is being loaded.
    Waiting,
    /// The cursor is being read.
    Cursor,
    /// Open on the session, under this number.
    Open(u32),
}

/// How often a document is opened again on a session before that is given up.
const REOPENED_MAX: u32 = 8;
/// The same, for digests that differ though the heads show no fork.
const MISMATCHED_MAX: u32 = 2;
/// Logs that get a new timeline, and are opened again by everyone, because of one session.
const TAILS_LOST_MAX: u32 = 64;

impl Attached {
    pub(super) fn new(grant: Access) -> Self {
        let (thorough, forget_cursor, forked) = (false, false, false);
        let (reopened, mismatched, opening) = (0, 0, 0);
        Self {
            stage: Stage::Waiting,
            grant,
            thorough,
            forget_cursor,
            forked,
            reopened,
            mismatched,
            opening,
            stored: None,
            checking: None,
        }
    }

    /// The number under which the document is open on the session, if it is.
    pub(super) fn number(&self) -> Option<u32> {
        match self.stage {
            Stage::Open(number) => Some(number),
            Stage::Waiting | Stage::Cursor => None,
        }
    }
}

impl Replica {
    /// Opens a document on a link, as soon as it is loaded.
    pub(super) fn attach(&mut self, link: LinkId, document: &DocumentId, grant: Access) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if !state.session.has_accepted() {
            return;
        }
        state.attached.insert(document.clone());
        let Some(state) = self.documents.get_mut(document) else { return };
        match state.links.get_mut(link) {
            Some(attached) => attached.grant = attached.grant.min(grant),
            None => _ = state.links.insert(link, Attached::new(grant)),
        }
        self.attach_next(link, document);
    }

    /// Goes one step on with a document that is to be open on a link.
    pub(super) fn attach_next(&mut self, link: LinkId, document: &DocumentId) {
        let Some(to) = self.links.get(&link) else { return };
        if to.session.is_closing(document) {
            return; // until the peer has heard of it
        }
        let Some(peer) = to.session.peer() else { return };
        let waiting_max = self.config.waiting_max;
        let Some(state) = self.documents.get_mut(document) else { return };
        let authority = state.options().authority;
        let admitted = state.mending.admits(&to.session, to.upstream, authority);
        let ready = admitted && state.log().is_some() && !state.is_overfull(waiting_max);
        let waiting = |attached: &&mut Attached| attached.stage == Stage::Waiting;
        if let Some(attached) = state.links.get_mut(link).filter(waiting).filter(|_| ready) {
            attached.stage = Stage::Cursor;
            let asked = Asked::Cursor(document.clone(), link);
            self.request(asked, Request::Cursor { document: document.clone(), peer });
        }
    }

    pub(super) fn attach_with(&mut self, document: &DocumentId, link: LinkId, cursor: Option<Cursor>) {
        let Some(state) = self.documents.get_mut(document) else { return };
        let (number, loaded) = (state.number, state.log().is_some());
        let reading = |attached: &&mut Attached| attached.stage == Stage::Cursor;
        let Some(attached) = state.links.get_mut(link).filter(reading) else { return };
        if !loaded {
            attached.stage = Stage::Waiting; // it failed meanwhile
            return;
        }
        attached.stage = Stage::Open(number);
        self.openings += 1;
        attached.opening = self.openings;
        attached.stored = cursor;
        attached.checking = None;
        attached.forked = false;
        let (grant, thorough) = (attached.grant, attached.thorough);
        let forget = core::mem::take(&mut attached.forget_cursor) || thorough;
        let Some(log) = state.log() else { return };
        let opening = Opening {
            number,
            document: document.clone(),
            access: state.options().access,
            grant,
            thorough,
            schema: state.options().schema.clone(),
            history: log.history().clone(),
            horizon: log.horizon(),
            snapshot: log.snapshot(),
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: cursor.filter(|_| !forget),
        };
        self.session_input(link, session::Input::Open(Box::new(opening)));
        self.want_acks(document);
    }

    /// Goes on with all links on which the document is to be open.
    pub(super) fn attach_waiting(&mut self, document: &DocumentId) {
        self.links_of(document).into_iter().for_each(|link| self.attach_next(link, document));
    }

    pub(super) fn attached(&mut self, link: LinkId, document: &DocumentId) -> Option<&mut Attached> {
        self.documents.get_mut(document)?.links.get_mut(link)
    }

    /// The number under which the document is open on the link, if it is.
    pub(super) fn number_on(&self, link: LinkId, document: &DocumentId) -> Option<u32> {
        self.documents.get(document)?.links.get(link)?.number()
    }

    /// The opening in which the document is open on the link, if it is.
    pub(super) fn opened_on(&self, link: LinkId, document: &DocumentId) -> Option<Opened> {
        let attached = self.documents.get(document)?.links.get(link)?;
        attached.number().map(|_| Opened { link, opening: attached.opening })
    }

    /// The links on which the document is, or is to be, open.
    pub(super) fn links_of(&self, document: &DocumentId) -> Vec<LinkId> {
        let links = self.documents.get(document).map(|state| state.links.after(None));
        links.into_iter().flatten().map(|(link, _)| *link).collect()
    }

    /// The document is no longer to be open on the link.
    pub(super) fn detach(&mut self, link: LinkId, document: &DocumentId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.attached.remove(document);
        }
        if let Some(state) = self.documents.get_mut(document) {
            state.forget_link(link);
        }
        self.snapshot_cut(document, link);
    }

    /// Closes the document on all sessions; they are to open it again when it is ready.
    pub(super) fn close_on_all(&mut self, document: &DocumentId, code: Code, reason: &str) {
        for link in self.links_of(document) {
            self.close_on(link, document, code, reason);
        }
    }

    /// Closes the document on a session, if it is open there; it is to open it again when it is ready.
    pub(super) fn close_on(&mut self, link: LinkId, document: &DocumentId, code: Code, reason: &str) {
        let Some(number) = self.wait_on(link, document) else { return };
        self.session_input(link, session::Input::Close { number, code, reason: reason.into() });
    }

    /// The document is not, or no longer, open on the link, and waits to be. Says under which number it was.
    pub(super) fn wait_on(&mut self, link: LinkId, document: &DocumentId) -> Option<u32> {
        let state = self.documents.get_mut(document)?;
        let attached = state.links.get_mut(link)?;
        let number = attached.number();
        attached.stage = Stage::Waiting;
        state.forget_held(link);
        self.snapshot_cut(document, link);
        number
    }

    /// Takes the document off all links.
    pub(super) fn detach_all(&mut self, document: &DocumentId, code: Code, reason: &str) {
        for link in self.links_of(document) {
            self.store_cursor(link, document);
            self.close_on(link, document, code, reason);
            // The peer may have opened it, and this end not yet: whoever opens it again then is not left waiting.
            self.deny(link, document, code, reason.into());
            self.detach(link, document);
        }
    }

    /// Opens the document again on one session, more carefully.
    pub(super) fn reopen_on(&mut self, link: LinkId, document: &DocumentId, code: Code) {
        self.wait_on(link, document);
        let Some(attached) = self.attached(link, document) else { return };
        attached.reopened += u32::from(code != Code::COMPACTED); // which says nothing of what is held
        attached.mismatched += u32::from(code == Code::MISMATCH);
        attached.thorough |= code == Code::MISMATCH || code == Code::SET_BACK;
        attached.forget_cursor |= code == Code::AUTHOR_GAP;
        let hopeless = attached.reopened > REOPENED_MAX || attached.mismatched > MISMATCHED_MAX;
        if hopeless {
            self.detach(link, document);
            let reason = String::from("opening the document again and again did not bring it in step");
            let document = document.clone();
            self.event(Event::Closed { link, document, code: Code::DAMAGED, reason, by: By::Us });
        } else {
            self.attach_next(link, document);
        }
    }

    /// Ops of the peer make no sense with what this end knows: opens the document again from heads.
    pub(super) fn refuse_ops(&mut self, link: LinkId, document: &DocumentId, code: Code) {
        let reason = match code {
            Code::AUTHOR_GAP => "an op came before its author's earlier ones",
            _ => "an op differs from that of the same id here",
        };
        self.close_on(link, document, code, reason);
        self.reopen_on(link, document, code);
    }

    pub(super) fn document_closed(&mut self, link: LinkId, number: u32, code: Code, reason: String, by: By) {
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        if self.number_on(link, &document) != Some(number) {
            return;
        }
        if code == Code::TAIL_LOST && by == By::Us {
            return self.tail_lost(link, &document);
        }
        if code.retry() == Retry::Now {
            return self.reopen_on(link, &document, code);
        }
        self.store_cursor(link, &document);
        self.detach(link, &document);
        self.idle_check(&document);
        self.event(Event::Closed { link, document, code, reason, by });
    }

    /// A peer holds more of a log than the log has.
    pub(super) fn tail_lost(&mut self, link: LinkId, document: &DocumentId) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.tails_lost += 1;
        if state.tails_lost > TAILS_LOST_MAX {
            let (code, reason) = (Code::UNEXPECTED, String::from("too many cursors beyond the tails of logs"));
            return self.session_input(link, session::Input::Goodbye { code, reason, retry_after: None });
        }
        self.close_on_all(document, Code::TAIL_LOST, "the log has lost entries: it gets a new timeline");
        self.begin_timeline(document);
        self.attach_waiting(document);
    }

    pub(super) fn in_step(&mut self, link: LinkId, number: u32) {
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let Some(state) = self.documents.get_mut(&document) else { return };
        if let Some(attached) = state.links.get_mut(link) {
            (attached.reopened, attached.mismatched, attached.thorough) = (0, 0, false);
        }
        let Some(digest) = state.log().map(|log| log.heads().digest()) else { return };
        self.event(Event::InStep { link, document: document.clone(), digest });
        self.salvage_from(&document, link);
    }

    pub(super) fn forked(&mut self, link: LinkId, document: DocumentId, authors: Vec<ReplicaId>) {
        let upstream = self.links.get(&link).is_some_and(|state| state.upstream);
        let authority = self.documents.get(&document).map(|state| state.options().authority);
        let mends = upstream && authority == Some(Authority::Upstream) && !self.peer_only_reads(link, &document);
        let own = self.links.get(&link).is_some_and(|state| authors.contains(&state.session.replica()));
        self.event(Event::Forked { link, document: document.clone(), authors });
        if mends {
            return self.reset(&document, None);
        }
        self.void_cursor(link, &document);
        if own {
            self.renew_for(link);
        }
    }

    // ---------------------------------------------------------------------------------------- cursors

    /// Stores how far the peer's logs are held, where only skips moved that since it was stored.
    pub(super) fn store_cursors(&mut self, link: LinkId) {
        let documents = self.links.get(&link).map(|state| state.attached.clone()).unwrap_or_default();
        documents.iter().for_each(|document| self.store_cursor(link, document));
    }

    /// As long as histories differ, sessions with the peer are to begin with heads, which tell whose: it gets a cursor on
    /// a timeline that nobody remembers.
    fn void_cursor(&mut self, link: LinkId, document: &DocumentId) {
        let Some(attached) = self.attached(link, document) else { return };
        attached.forked = true;
        let Some(state) = self.links.get(&link).filter(|state| state.keeps_cursors()) else { return };
        if let Some(peer) = state.session.peer() {
            let cursor = Cursor { timeline: self.draw_timeline(), position: 0 };
            self.write_cursor(document, peer, cursor);
        }
    }

    pub(super) fn store_cursor(&mut self, link: LinkId, document: &DocumentId) {
        let Some(state) = self.links.get(&link).filter(|state| state.keeps_cursors()) else { return };
        let attached = self.documents.get(document).and_then(|state| state.links.get(link));
        let attached = attached.filter(|attached| !attached.forked);
        let (Some(attached), Some(peer)) = (attached, state.session.peer()) else { return };
        let Some(held) = attached.number().and_then(|number| state.session.held(number)) else { return };
        if attached.stored != Some(held) {
            self.write_cursor(document, peer, held);
        }
    }
}
