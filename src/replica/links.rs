//! Links: sessions come and go, and documents are attached to them.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Admission, Alarm, Asked, Authority, Event, LinkId, Misuse, Output, Question, Replica};
use crate::codes::{Code, Retry};
use crate::machine::Machine;
use crate::op::{Cursor, DocumentId, ReplicaId};
use crate::session::{self, By, Ending, Local, Opening, Session, Transport};
use crate::storage::Request;
use crate::time::Instant;
use crate::wire::Access;
use crate::wire::control::Schema;

/// One link and what is open on it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) upstream: bool,
    /// When it wants to be woken, as it stands among the alarms.
    pub(super) alarm: Option<Instant>,
    /// The documents that are, or are to be, open on it; each knows how far that is.
    pub(super) attached: BTreeSet<DocumentId>,
    /// Whether its session may have outputs.
    busy: bool,
    /// How often its peer had a cursor beyond the tail of one of our logs.
    tails_lost: u32,
}

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
    /// How often it was opened again since the two were last in step.
    reopened: u32,
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
const THOROUGH_MAX: u32 = 2;
/// Logs that get a new timeline, and are opened again by everyone, because of one session.
const TAILS_LOST_MAX: u32 = 64;

impl Attached {
    fn new(grant: Access) -> Self {
        let (thorough, forget_cursor) = (false, false);
        Self { stage: Stage::Waiting, grant, thorough, forget_cursor, reopened: 0, stored: None, checking: None }
    }

    /// The number under which the document is open on the session, if it is.
    pub(super) fn number(&self) -> Option<u32> {
        match self.stage {
            Stage::Open(number) => Some(number),
            Stage::Waiting | Stage::Cursor => None,
        }
    }
}

impl Link {
    /// An input for the session, which may have outputs then: its link is noted in `busy`.
    pub(super) fn input(&mut self, now: Instant, link: LinkId, input: session::Input, busy: &mut VecDeque<LinkId>) {
        let misuse = self.session.handle(now, input);
        // The peer may have closed the document just now; the session's word of it is still to be read.
        debug_assert!(matches!(misuse, Ok(()) | Err(session::Misuse::NotOpen(_))), "{misuse:?}");
        if !core::mem::replace(&mut self.busy, true) {
            busy.push_back(link);
        }
    }
}

impl Replica {
    pub(super) fn connected(
        &mut self,
        link: LinkId,
        transport: Transport,
        token: Option<Bytes>,
        upstream: bool,
    ) -> Result<(), Misuse> {
        if self.links.contains_key(&link) {
            return Err(Misuse::LinkInUse(link));
        }
        let local = Local {
            replica: self.identity.replica,
            timeline: self.opens.current(),
            previous: self.opens.previous(),
            nonce: self.rng.next_u64(),
            token,
        };
        let config = session::Config { transport, ..self.config.session.clone() };
        let session = Session::new(self.now, config, local);
        let (alarm, attached, busy, tails_lost) = (None, BTreeSet::new(), true, 0);
        let full = self.links.len() >= self.config.sessions_max;
        self.links.insert(link, Box::new(Link { session, upstream, alarm, attached, busy, tails_lost }));
        self.busy.push_back(link);
        if full {
            let reason = String::from("too many sessions");
            self.session_input(link, session::Input::Goodbye { code: Code::OVERLOADED, reason, retry_after: None });
        }
        Ok(())
    }

    pub(super) fn disconnected(&mut self, link: LinkId) {
        if self.forget_link(link) {
            self.event(Event::Disconnected { link, ending: None });
        }
    }

    /// Forgets a link, once what its session knows of the peer's logs is on its way to storage.
    fn forget_link(&mut self, link: LinkId) -> bool {
        self.store_cursors(link);
        let Some(state) = self.links.remove(&link) else { return false };
        if let Some(at) = state.alarm {
            self.alarms.remove(&(at, Alarm::Session(link)));
        }
        for document in &state.attached {
            if let Some(state) = self.documents.get_mut(document) {
                state.forget_held(link);
                state.links.remove(link);
            }
            self.idle_check(document);
        }
        // A newer session that waited for this one to show life goes ahead.
        self.contest_over(link);
        self.contests.retain(|_, newer| *newer != link);
        true
    }

    pub(super) fn received(&mut self, link: LinkId, frame: Bytes) {
        self.session_input(link, session::Input::Received(frame));
        // It is alive: whoever waits for that is a copy.
        if let Some(newer) = self.contests.remove(&link) {
            self.admit(newer, Err((Code::CLONE, String::from("a live session has this replica id"))));
        }
    }

    // ---------------------------------------------------------------------------------------- sessions

    pub(super) fn session_input(&mut self, link: LinkId, input: session::Input) {
        if let Some(state) = self.links.get_mut(&link) {
            state.input(self.now, link, input, &mut self.busy);
        }
    }

    /// An input for the session that has `document` open on `link`, if it still has.
    pub(super) fn session_input_for(
        &mut self,
        document: &DocumentId,
        link: LinkId,
        input: impl FnOnce(u32) -> session::Input,
    ) {
        if let Some(number) = self.number_on(link, document) {
            self.session_input(link, input(number));
        }
    }

    /// Deals with what the sessions want, until they want nothing.
    pub(super) fn settle(&mut self) {
        while let Some(link) = self.busy.pop_front() {
            while let Some(output) = self.links.get_mut(&link).and_then(|state| state.session.poll()) {
                self.on_session_output(link, output);
            }
            let Some(state) = self.links.get_mut(&link) else { continue };
            state.busy = false;
            let deadline = state.session.deadline();
            let before = core::mem::replace(&mut state.alarm, deadline);
            if before != deadline {
                if let Some(at) = before {
                    self.alarms.remove(&(at, Alarm::Session(link)));
                }
                self.alarms.extend(deadline.map(|at| (at, Alarm::Session(link))));
            }
        }
    }

    fn on_session_output(&mut self, link: LinkId, output: session::Output) {
        match output {
            session::Output::Transmit(frame) => self.outputs.push_back(Output::Transmit { link, frame }),
            session::Output::Authenticate { replica, timeline, token } => {
                self.authenticate(link, replica, timeline, token);
            }
            session::Output::Take { number, origin, from: _, to, ops } => self.take(link, number, origin, to, ops),
            session::Output::Load { number, from, max_cost } => self.load(link, number, from, max_cost),
            session::Output::Compare { number, heads } => {
                let Some(document) = self.numbers.get(&number).cloned() else { return };
                let asked = Asked::Compare(document.clone(), link);
                self.request_read(asked, Request::Compare { document, heads });
            }
            session::Output::Event(event) => self.on_session_event(link, event),
        }
    }

    fn on_session_event(&mut self, link: LinkId, event: session::Event) {
        match event {
            session::Event::Connected { replica, durability } => {
                self.event(Event::Connected { link, replica, durability });
            }
            session::Event::PeerOpened { document, access, schema } => {
                self.peer_opened(link, document, access, schema);
            }
            session::Event::Opened { number, own } => self.check_own(link, number, own),
            session::Event::Acknowledged { number, acked } => {
                if let Some(document) = self.numbers.get(&number).cloned() {
                    self.event(Event::Acknowledged { link, document, position: acked });
                }
            }
            session::Event::InStep { number } => self.in_step(link, number),
            session::Event::Forked { number, authors } => {
                if let Some(document) = self.numbers.get(&number).cloned() {
                    self.forked(link, document, authors);
                }
            }
            session::Event::DocumentClosed { number, code, reason, by } => {
                self.document_closed(link, number, code, reason, by);
            }
            session::Event::Released { document } => self.attach_next(link, &document),
            session::Event::Closed(ending) => self.session_closed(link, ending),
        }
    }

    fn session_closed(&mut self, link: LinkId, ending: Ending) {
        self.outputs.push_back(Output::Disconnect { link, ending: ending.clone() });
        let copied = ending.code == Code::SAME_REPLICA || ending.code == Code::CLONE && ending.by == By::Peer;
        if copied {
            self.renew_for(link);
        }
        if self.forget_link(link) {
            self.event(Event::Disconnected { link, ending: Some(ending) });
        }
    }

    // ---------------------------------------------------------------------------------------- who may come in

    fn authenticate(&mut self, link: LinkId, replica: ReplicaId, timeline: crate::op::Timeline, token: Option<Bytes>) {
        // Two live sessions of one replica: a reconnect whose old link is not yet known to be dead, or a copy.
        let older: Vec<_> = self
            .links
            .iter()
            .filter(|(id, other)| **id != link && other.session.is_live() && other.session.peer() == Some(replica))
            .map(|(id, other)| (*id, other.session.peer_timeline() == Some(timeline)))
            .collect();
        for (older, same_open) in older {
            if same_open {
                let reason = String::from("a newer session of this replica is here");
                self.session_input(older, session::Input::Goodbye { code: Code::REPLACED, reason, retry_after: None });
            } else {
                if let Some(state) = self.links.get_mut(&older) {
                    state.session.probe();
                    if !core::mem::replace(&mut state.busy, true) {
                        self.busy.push_back(older);
                    }
                }
                let third = self.contests.insert(older, link);
                third.into_iter().for_each(|third| {
                    self.admit(third, Err((Code::REPLACED, String::from("a newer session of this replica is here"))));
                });
                self.alarms.insert((self.now + self.config.contest_max, Alarm::Contest(older)));
                return;
            }
        }
        match self.config.peers {
            Admission::Open => self.admit(link, Ok(())),
            Admission::Ask => self.ask(Asked::Peer(link), Question::Peer { link, replica, token }),
            Admission::Closed => {
                self.admit(link, Err((Code::UNAUTHENTICATED, String::from("nobody may connect here"))));
            }
        }
    }

    /// The older session showed no life in time, or is gone: the newer one goes ahead.
    pub(super) fn contest_over(&mut self, older: LinkId) {
        let Some(link) = self.contests.remove(&older) else { return };
        let reason = String::from("a newer session of this replica is here, and this one gave no sign of life");
        self.session_input(older, session::Input::Goodbye { code: Code::REPLACED, reason, retry_after: None });
        let Some(state) = self.links.get(&link) else { return };
        let (Some(replica), Some(timeline)) = (state.session.peer(), state.session.peer_timeline()) else { return };
        let token = state.session.peer_token();
        // The older session is over now, so that it can't be found again.
        self.authenticate(link, replica, timeline, token);
    }

    pub(super) fn admit(&mut self, link: LinkId, answer: Result<(), (Code, String)>) {
        let Some(state) = self.links.get(&link).filter(|state| state.session.is_asking()) else { return };
        let admitted = answer.is_ok() && state.session.ending().is_none();
        self.session_input(link, session::Input::Authenticated(answer));
        if admitted {
            let wanted: Vec<_> =
                self.documents.iter().filter(|(_, document)| document.is_wanted()).map(|(id, _)| id.clone()).collect();
            wanted.iter().for_each(|document| self.offer(link, document));
        }
    }

    /// Opens on a link what the app has opened, if the host lets the peer have it.
    pub(super) fn offer(&mut self, link: LinkId, document: &DocumentId) {
        let Some(schema) = self.documents.get(document).map(|state| state.options().schema.clone()) else { return };
        if self.links.get(&link).is_none_or(|state| state.session.is_waiting(document)) {
            return; // the peer has opened it: that is asked about
        }
        match self.config.documents {
            Admission::Open | Admission::Closed => self.attach(link, document, Access::Write),
            Admission::Ask => self.ask_for(link, document.clone(), Access::Write, schema),
        }
    }

    fn peer_opened(&mut self, link: LinkId, document: DocumentId, access: Access, schema: Option<Schema>) {
        let wanted = self.documents.get(&document).is_some_and(|document| document.is_wanted());
        match self.config.documents {
            Admission::Open => self.grant(link, &document, Access::Write),
            Admission::Closed if wanted => self.grant(link, &document, Access::Write),
            Admission::Closed => {
                let reason = String::from("the document is not open here");
                self.deny(link, &document, Code::UNKNOWN_DOCUMENT, reason);
            }
            Admission::Ask => self.ask_for(link, document, access, schema),
        }
    }

    /// Asks the host whether a peer may have a document.
    fn ask_for(&mut self, link: LinkId, document: DocumentId, access: Access, schema: Option<Schema>) {
        let Some(state) = self.links.get(&link).filter(|state| state.session.has_accepted()) else { return };
        let Some(replica) = state.session.peer() else { return };
        let question = Question::Document { link, replica, document: document.clone(), access, schema };
        self.ask(Asked::Document(link, document), question);
    }

    pub(super) fn grant(&mut self, link: LinkId, document: &DocumentId, grant: Access) {
        self.take_up(document);
        self.attach(link, document, grant);
    }

    pub(super) fn deny(&mut self, link: LinkId, document: &DocumentId, code: Code, reason: String) {
        let Some(state) = self.links.get(&link) else { return };
        if state.session.is_waiting(document) {
            self.session_input(link, session::Input::Deny { document: document.clone(), code, reason });
        }
    }

    // ---------------------------------------------------------------------------------------- attaching

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
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.session.is_closing(document) {
            return; // until the peer has heard of it
        }
        let (Some(peer), upstream) = (state.session.peer(), state.upstream) else { return };
        let Some(state) = self.documents.get_mut(document) else { return };
        let admitted = state.mending.admits(peer, upstream, state.options().authority);
        let ready = admitted && state.log().is_some();
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
        attached.stored = cursor;
        attached.checking = None;
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
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: cursor.filter(|_| !forget),
        };
        self.session_input(link, session::Input::Open(Box::new(opening)));
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

    /// The links on which the document is, or is to be, open.
    fn links_of(&self, document: &DocumentId) -> Vec<LinkId> {
        let links = self.documents.get(document).map(|state| state.links.after(None));
        links.into_iter().flatten().map(|(link, _)| *link).collect()
    }

    /// The document is no longer to be open on the link.
    fn detach(&mut self, link: LinkId, document: &DocumentId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.attached.remove(document);
        }
        if let Some(state) = self.documents.get_mut(document) {
            state.forget_held(link);
            state.links.remove(link);
        }
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
    fn wait_on(&mut self, link: LinkId, document: &DocumentId) -> Option<u32> {
        let state = self.documents.get_mut(document)?;
        let attached = state.links.get_mut(link)?;
        let number = attached.number();
        attached.stage = Stage::Waiting;
        state.forget_held(link);
        number
    }

    /// Takes the document off all links.
    pub(super) fn detach_all(&mut self, document: &DocumentId, code: Code, reason: &str) {
        for link in self.links_of(document) {
            self.store_cursor(link, document);
            self.close_on(link, document, code, reason);
            self.detach(link, document);
        }
    }

    /// Opens the document again on one session, more carefully.
    pub(super) fn reopen_on(&mut self, link: LinkId, document: &DocumentId, code: Code) {
        self.wait_on(link, document);
        let Some(attached) = self.attached(link, document) else { return };
        attached.reopened += 1;
        attached.thorough |= code == Code::MISMATCH || code == Code::SET_BACK;
        attached.forget_cursor |= code == Code::AUTHOR_GAP;
        let hopeless = attached.reopened > REOPENED_MAX || code == Code::MISMATCH && attached.reopened > THOROUGH_MAX;
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

    fn document_closed(&mut self, link: LinkId, number: u32, code: Code, reason: String, by: By) {
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
    fn tail_lost(&mut self, link: LinkId, document: &DocumentId) {
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

    fn in_step(&mut self, link: LinkId, number: u32) {
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        let Some(state) = self.documents.get_mut(&document) else { return };
        if let Some(attached) = state.links.get_mut(link) {
            (attached.reopened, attached.thorough) = (0, false);
        }
        let Some(digest) = state.log().map(|log| log.heads().digest()) else { return };
        self.event(Event::InStep { link, document: document.clone(), digest });
        self.salvage_from(&document, link);
    }

    fn forked(&mut self, link: LinkId, document: DocumentId, authors: Vec<ReplicaId>) {
        let upstream = self.links.get(&link).is_some_and(|state| state.upstream);
        let mends = self
            .documents
            .get(&document)
            .is_some_and(|state| state.options().authority == Authority::Upstream && upstream);
        let own = self.links.get(&link).is_some_and(|state| authors.contains(&state.session.replica()));
        self.event(Event::Forked { link, document: document.clone(), authors });
        if mends {
            self.reset(&document, None);
        } else if own {
            self.renew_for(link);
        }
    }

    // ---------------------------------------------------------------------------------------- cursors

    /// Stores how far the peer's logs are held, where only skips moved that since it was stored.
    fn store_cursors(&mut self, link: LinkId) {
        let documents = self.links.get(&link).map(|state| state.attached.clone()).unwrap_or_default();
        documents.iter().for_each(|document| self.store_cursor(link, document));
    }

    fn store_cursor(&mut self, link: LinkId, document: &DocumentId) {
        let Some(state) = self.links.get(&link) else { return };
        let attached = self.documents.get(document).and_then(|state| state.links.get(link));
        let (Some(attached), Some(peer)) = (attached, state.session.peer()) else { return };
        let Some(held) = attached.number().and_then(|number| state.session.held(number)) else { return };
        if attached.stored != Some(held) {
            self.write_cursor(document, peer, held);
        }
    }
}
