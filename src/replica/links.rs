//! Links: sessions come and go.

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Admission, Alarm, Asked, Event, LinkId, Misuse, Opened, Output, Question, Replica};
use crate::codes::Code;
use crate::machine::Machine;
use crate::op::{Cursor, DocumentId, ReplicaId};
use crate::session::{self, By, Ending, Local, Session, Transport};
use crate::storage::Request;
use crate::time::Instant;
use crate::wire::control::Schema;
use crate::wire::{Access, Durability};

/// One link and what is open on it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) upstream: bool,
    /// When it wants to be woken, as it stands among the alarms.
    pub(super) alarm: Option<Instant>,
    /// The documents that are, or are to be, open on it; each knows how far that is.
    pub(super) attached: BTreeSet<DocumentId>,
    /// The documents about which the host was asked and has not answered.
    pub(super) asking: BTreeSet<DocumentId>,
    /// Whether its session may have outputs.
    busy: bool,
    /// How often its peer had a cursor beyond the tail of one of our logs.
    pub(super) tails_lost: u32,
}

/// Two live sessions of one replica: the older one is asked for a sign of life, and the newer one waits.
#[derive(Clone, Debug, Hash)]
pub(super) struct Contest {
    newer: LinkId,
    until: Instant,
    /// The older one has given its sign.
    alive: bool,
}

impl Link {
    /// Whether it is stored how far the peer's logs are held. A peer that keeps nothing comes back as another replica:
    /// its cursors would serve nobody, and stay for ever. An upstream is no passer-by, whatever it keeps.
    pub(super) fn keeps_cursors(&self) -> bool {
        self.upstream || self.session.peer_durability().is_some_and(|durability| durability > Durability::Memory)
    }

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
        let (alarm, attached, asking, busy, tails_lost) = (None, BTreeSet::new(), BTreeSet::new(), true, 0);
        let full = self.links.len() >= self.config.sessions_max;
        self.links.insert(link, Box::new(Link { session, upstream, alarm, attached, asking, busy, tails_lost }));
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
        self.asked.drop_where(|asked| matches!(asked, Asked::Peer(of) | Asked::Document(of, _) if *of == link));
        if let Some(at) = state.alarm {
            self.alarms.remove(&(at, Alarm::Session(link)));
        }
        for document in &state.attached {
            if let Some(state) = self.documents.get_mut(document) {
                state.forget_link(link);
            }
            self.snapshot_cut(document, link);
            self.idle_check(document);
        }
        // A newer session that waited for this one to show life goes ahead.
        self.replace(link);
        self.contests.retain(|_, contest| contest.newer != link);
        true
    }

    pub(super) fn received(&mut self, link: LinkId, frame: Bytes) {
        self.session_input(link, session::Input::Received(frame));
        let Some(contest) = self.contests.get_mut(&link) else { return };
        contest.alive = true;
        // The peer may see two live sessions of ours. If both ends refused the other at once, neither would hear of it: the
        // one with the greater id waits for the other's word.
        let session = self.links.get(&contest.newer).map(|state| &state.session);
        if session.is_some_and(|session| session.peer() > Some(session.replica())) {
            self.refuse_copy(link);
        }
    }

    // ---------------------------------------------------------------------------------------- sessions

    pub(super) fn session_input(&mut self, link: LinkId, input: session::Input) {
        if let Some(state) = self.links.get_mut(&link) {
            state.input(self.now, link, input, &mut self.busy);
        }
    }

    /// An input for the session that has opened `document`, if it still has it open.
    pub(super) fn session_input_for(
        &mut self,
        document: &DocumentId,
        opened: Opened,
        input: impl FnOnce(u32) -> session::Input,
    ) {
        let link = opened.link;
        if let Some(number) = self.number_on(link, document)
            && self.opened_on(link, document) == Some(opened)
        {
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
            session::Output::Take { number, origin, timeline, from: _, to, ops } => {
                self.take(link, number, origin, Cursor { timeline, position: to }, ops);
            }
            session::Output::Load { number, from, max_cost } => self.load(link, number, from, max_cost),
            session::Output::Compare { number, heads } => {
                let Some(document) = self.numbers.get(&number).cloned() else { return };
                let Some(opened) = self.opened_on(link, &document) else { return };
                let asked = Asked::Compare(document.clone(), opened);
                self.request_read(asked, Request::Compare { document, heads });
            }
            session::Output::ReadSnapshot { number, id, offset, max } => {
                self.read_snapshot(link, number, id, offset, max);
            }
            session::Output::TakeSnapshot { number, offset, bytes } => self.take_snapshot(link, number, offset, bytes),
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
            session::Event::Opened { number, own } => {
                if !self.refuse_empty_source(link, number) {
                    self.check_own(link, number, own);
                }
            }
            session::Event::Acknowledged { number, acked } => {
                if let Some(document) = self.numbers.get(&number).cloned() {
                    self.event(Event::Acknowledged { link, document, position: acked });
                }
            }
            session::Event::InStep { number } => self.in_step(link, number),
            session::Event::SnapshotOffered { number, snapshot } => self.snapshot_offered(link, number, snapshot),
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
                return self.contest(older, link);
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

    fn contest(&mut self, older: LinkId, newer: LinkId) {
        match self.contests.entry(older) {
            Entry::Vacant(contest) => {
                let until = self.now + self.config.contest_max;
                contest.insert(Contest { newer, until, alive: false });
                self.alarms.insert((until, Alarm::Contest(older)));
            }
            Entry::Occupied(mut contest) => {
                let third = core::mem::replace(&mut contest.get_mut().newer, newer);
                let newer_here = || (Code::REPLACED, String::from("a newer session of this replica is here"));
                let why = if contest.get().alive { copy() } else { newer_here() };
                self.admit(third, Err(why));
            }
        }
    }

    /// Perhaps the older session of a contest had its time.
    pub(super) fn on_contest_alarm(&mut self, older: LinkId) {
        match self.contests.get(&older) {
            Some(contest) if contest.until > self.now => {} // another began meanwhile
            Some(Contest { alive: true, .. }) => self.refuse_copy(older),
            _ => self.replace(older),
        }
    }

    /// The older session is alive: whoever waits for that is a copy.
    fn refuse_copy(&mut self, older: LinkId) {
        if let Some(Contest { newer, .. }) = self.contests.remove(&older) {
            self.admit(newer, Err(copy()));
        }
    }

    /// The older session showed no life in time, or is gone: the newer one goes ahead.
    fn replace(&mut self, older: LinkId) {
        let Some(Contest { newer: link, .. }) = self.contests.remove(&older) else { return };
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

    /// Asks the host whether a peer may have a document, unless it is at that.
    fn ask_for(&mut self, link: LinkId, document: DocumentId, access: Access, schema: Option<Schema>) {
        let asking_max = self.config.session.limits.documents as usize;
        let Some(state) = self.links.get_mut(&link).filter(|state| state.session.has_accepted()) else { return };
        let Some(replica) = state.session.peer() else { return };
        if state.asking.len() >= asking_max {
            let reason = String::from("the host has not decided about so many documents");
            return self.deny(link, &document, Code::TOO_MANY_DOCUMENTS, reason);
        }
        if state.asking.insert(document.clone()) {
            let question = Question::Document { link, replica, document: document.clone(), access, schema };
            self.ask(Asked::Document(link, document), question);
        }
    }

    /// The host has decided about a document, which the peer or the app may have closed meanwhile.
    pub(super) fn decided(&mut self, link: LinkId, document: &DocumentId, answer: Result<Access, (Code, String)>) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.asking.remove(document);
        let wanted = self.documents.get(document).is_some_and(|document| document.is_wanted());
        match answer {
            Ok(grant) if wanted || state.session.is_waiting(document) => self.grant(link, document, grant),
            Ok(_) => {}
            Err((code, reason)) => self.deny(link, document, code, reason),
        }
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
}

/// Why a copy is refused.
fn copy() -> (Code, String) {
    (Code::CLONE, String::from("a live session has this replica id"))
}
