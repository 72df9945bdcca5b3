//! Documents: what the app does with them, loading, failure, and being forgotten when idle.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::attaching::Attached;
use super::pipeline::LazyPipeline;
use super::snapshots::Incoming;
use super::{Alarm, Asked, Authority, Event, LinkId, Misuse, Options, Replica, Salvage, Ticket};
use crate::codes::Code;
use crate::log::Log;
use crate::op::{DocumentId, OP_OVERHEAD, OpId, Timeline};
use crate::retry::Backoff;
use crate::small::SmallMap;
use crate::storage::{Request, Staged, StoredDocument};
use crate::time::Instant;
use crate::timeline::History;
use crate::wire::Access;

/// One document of a replica.
#[derive(Clone, Debug, Hash)]
pub(super) struct Document {
    /// Changes with each load and each new timeline, so that a number always means the same.
    pub(super) number: u32,
    /// The links on which it is, or is to be, open.
    pub(super) links: SmallMap<LinkId, Attached>,
    pub(super) state: State,
    /// How the app opened it; `None`: only peers have it open.
    pub(super) wanted: Option<Options>,
    pub(super) pipeline: LazyPipeline,
    /// Bodies that wait until the document is loaded, and their cost.
    pub(super) waiting: Vec<Bytes>,
    pub(super) waiting_cost: u64,
    /// After a failure: own bodies that were on their way.
    #[allow(
        clippy::box_collection,
        reason = "idle documents are many, failures few: a pointer is what all of them pay"
    )]
    pub(super) in_doubt: Option<Box<Vec<(OpId, Bytes)>>>,
    /// How often the storage failed, since it last worked.
    pub(super) backoff: Option<Box<Backoff>>,
    /// After a failure: the timeline in which positions were given out, and the tail. Peers may know of both.
    pub(super) known: Option<Box<(Timeline, u64)>>,
    pub(super) alarm: Option<Instant>,
    /// Something was written since the last alarm.
    pub(super) grew: bool,
    pub(super) mending: super::reset::Mending,
    /// What else the storage is at with it, one thing at a time, and until when it may be.
    pub(super) apart: Option<(Ticket, Instant)>,
    /// A snapshot of which some bytes are in storage.
    pub(super) staged: Option<Box<Staged>>,
    /// A snapshot that is being taken.
    pub(super) incoming: Option<Box<Incoming>>,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum State {
    /// The storage was asked for it, by this question: what it answers to one before may be out of date.
    Loading(Ticket),
    /// In memory.
    Ready(Box<Log>),
    /// The storage failed; it is asked again at the alarm.
    Failed,
}

impl Document {
    fn new(number: u32, loading: Ticket) -> Self {
        Self {
            number,
            links: SmallMap::new(),
            state: State::Loading(loading),
            wanted: None,
            pipeline: LazyPipeline::default(),
            waiting: Vec::new(),
            waiting_cost: 0,
            in_doubt: None,
            backoff: None,
            known: None,
            alarm: None,
            grew: false,
            mending: super::reset::Mending::default(),
            apart: None,
            staged: None,
            incoming: None,
        }
    }

    pub(super) fn log(&self) -> Option<&Log> {
        match &self.state {
            State::Ready(log) => Some(log),
            State::Loading(_) | State::Failed => None,
        }
    }

    pub(super) fn log_mut(&mut self) -> Option<&mut Log> {
        match &mut self.state {
            State::Ready(log) => Some(log),
            State::Loading(_) | State::Failed => None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether nobody has it open and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        let unused = self.wanted.is_none() && self.links.len() == 0 && self.waiting.is_empty();
        unused && self.pipeline.is_idle() && self.mending.is_idle() && self.apart.is_none()
    }

    pub(super) fn options(&self) -> &Options {
        const UNWANTED: Options =
            Options { access: Access::Write, schema: None, authority: Authority::Nobody, salvage: Salvage::Append };
        self.wanted.as_ref().unwrap_or(&UNWANTED)
    }

    /// Whether its alarm, if it has one, is later than `at`.
    pub(super) fn wakes_after(&self, at: Instant) -> bool {
        self.alarm.is_none_or(|alarm| alarm > at)
    }

    /// The log was put aside as a whole, and is to be loaded again.
    pub(super) fn started_anew(&mut self) {
        self.pipeline = LazyPipeline::default(); // the heads and cursors in it are those of the old log
        self.known = None;
        (self.apart, self.staged, self.incoming) = (None, None, None);
        self.mending.started_anew();
    }

    /// Whether so much waits for the storage that peers may bring no more.
    pub(super) fn is_overfull(&self, waiting_max: u64) -> bool {
        self.pipeline.cost > waiting_max
    }

    pub(super) fn memory_cost(&self) -> u64 {
        let writing = self.pipeline.writing.as_ref().map_or(0, |writing| writing.cost);
        let incoming = self.incoming.as_deref().map_or(0, Incoming::bytes);
        self.log().map_or(0, Log::cost) + self.pipeline.cost + writing + self.waiting_cost + incoming
    }
}

impl Replica {
    // ---------------------------------------------------------------------------------------- what the app does

    pub(super) fn open(&mut self, document: DocumentId, options: Options) {
        self.take_up(&document);
        let Some(state) = self.documents.get_mut(&document) else { return };
        let first = state.wanted.replace(options).is_none();
        if first {
            if let Some(log) = state.log() {
                let (heads, tail, snapshot) = (log.heads().clone(), log.tail(), log.snapshot());
                self.event(Event::Opened { document: document.clone(), heads, tail, snapshot });
            }
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.offer(link, &document));
        }
    }

    pub(super) fn close(&mut self, document: &DocumentId) -> Result<(), Misuse> {
        let state = self.documents.get_mut(document).filter(|state| state.is_wanted());
        let state = state.ok_or_else(|| Misuse::NotOpen(document.clone()))?;
        state.wanted = None;
        self.detach_all(document, Code::DONE, "the app closed the document");
        self.idle_check(document);
        Ok(())
    }

    pub(super) fn append(&mut self, document: &DocumentId, bodies: Vec<Bytes>) -> Result<(), Misuse> {
        let op_max = self.config.session.limits.op;
        let waiting_max = self.config.waiting_max;
        let me = self.identity.replica;
        let state = self.documents.get_mut(document).filter(|state| state.is_wanted());
        let state = state.ok_or_else(|| Misuse::NotOpen(document.clone()))?;
        if state.options().access == Access::Read {
            return Err(Misuse::ReadOnly(document.clone()));
        }
        if bodies.iter().any(|body| body.len() > op_max as usize) {
            return Err(Misuse::TooLarge(op_max));
        }
        if state.waiting_cost + state.pipeline.cost > waiting_max {
            return Err(Misuse::Full(document.clone()));
        }
        if state.log().is_some() && state.mending.takes_appends() {
            state.push_bodies(me, bodies);
            self.write(document);
        } else {
            state.waiting_cost += bodies.iter().map(|body| body.len() as u64 + OP_OVERHEAD).sum::<u64>();
            state.waiting.extend(bodies);
        }
        Ok(())
    }

    // ---------------------------------------------------------------------------------------- loading

    /// Holds the document from now on; loads it if it is not in memory.
    pub(super) fn take_up(&mut self, document: &DocumentId) {
        if !self.documents.contains_key(document) {
            let (number, loading) = (self.number(document), self.ask_for_log(document));
            self.documents.insert(document.clone(), Box::new(Document::new(number, loading)));
        }
    }

    fn ask_for_log(&mut self, document: &DocumentId) -> Ticket {
        self.request(Asked::Load(document.clone()), Request::Open(document.clone()))
    }

    fn number(&mut self, document: &DocumentId) -> u32 {
        self.next_number += 1;
        self.numbers.insert(self.next_number, document.clone());
        self.next_number
    }

    pub(super) fn renumber(&mut self, document: &DocumentId) {
        let number = self.number(document);
        if let Some(state) = self.documents.get_mut(document) {
            self.numbers.remove(&core::mem::replace(&mut state.number, number));
        }
    }

    /// Asks the storage for the document again.
    pub(super) fn reload(&mut self, document: &DocumentId) {
        self.renumber(document);
        let loading = self.ask_for_log(document);
        if let Some(state) = self.documents.get_mut(document) {
            state.state = State::Loading(loading);
        }
    }

    /// Whether the storage is being asked for the document by this question.
    pub(super) fn is_loading(&self, document: &DocumentId, ticket: Ticket) -> bool {
        let state = self.documents.get(document).map(|state| &state.state);
        matches!(state, Some(State::Loading(loading)) if *loading == ticket)
    }

    pub(super) fn loaded(&mut self, document: &DocumentId, stored: StoredDocument) {
        let me = self.identity.replica;
        let timeline = self.draw_timeline();
        let opens = self.opens.clone();
        let Some(state) = self.documents.get_mut(document) else { return };
        let StoredDocument { heads, timelines, forgotten, horizon, tail, aside, snapshot, staged } = stored;
        // What could not be installed may be spoiled: it is taken again.
        let is_good = !state.mending.refused_install(&timelines);
        state.staged = staged.filter(|_| is_good).map(Box::new);
        state.mending.loaded(aside, &timelines);
        let history = History::load(opens, timelines, forgotten, tail);
        let mut log = Log::load(history, heads, (horizon, snapshot), tail);
        let current = log.history().current().timeline;
        if state.known.take().is_some_and(|known| known.0 != current || known.1 > tail) {
            log.begin(timeline); // the storage has lost what peers may know of
        }
        let held = log.heads().clone();
        let seq = held.get(me).seq;
        let opened = Event::Opened { document: document.clone(), heads: held.clone(), tail, snapshot };
        state.state = State::Ready(Box::new(log));
        let wanted = state.is_wanted();
        if let Some(in_doubt) = state.in_doubt.take() {
            let mut lost: Vec<_> =
                in_doubt.into_iter().filter(|(id, _)| !held.covers(*id)).map(|(_, body)| body).collect();
            if !lost.is_empty() {
                // What was appended later may rely on what is lost.
                lost.append(&mut state.waiting);
                state.waiting_cost = 0;
            }
            self.event(Event::Recovered { document: document.clone(), seq, lost });
        } else if wanted {
            self.event(opened);
        }
        self.reset_when_quiet(document);
        self.append_waiting(document);
        self.attach_waiting(document);
        self.idle_check(document);
    }

    pub(super) fn append_waiting(&mut self, document: &DocumentId) {
        let me = self.identity.replica;
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.log().is_none() || !state.mending.takes_appends() {
            return;
        }
        state.waiting_cost = 0;
        let bodies = core::mem::take(&mut state.waiting);
        state.push_bodies(me, bodies);
        self.write(document);
    }

    // ---------------------------------------------------------------------------------------- failure

    /// The storage failed: what is not durable is dropped, and the truth is read again after a while.
    pub(super) fn fail(&mut self, document: &DocumentId, reason: String) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if matches!(state.state, State::Failed) {
            return;
        }
        for (ticket, _) in state.writes_under_way() {
            self.asked.take(ticket);
        }
        (state.apart, state.incoming) = (None, None);
        let pipeline = core::mem::take(&mut state.pipeline);
        let in_doubt = state.in_doubt.get_or_insert_default();
        let writing = pipeline.writing.as_ref().map(|writing| (&writing.batch.entries, &writing.salvage));
        for (entries, salvage) in writing.into_iter().chain([(&pipeline.entries, &pipeline.salvage)]) {
            let appended =
                (0..).zip(entries).filter(|(index, entry)| entry.origin.is_none() && !salvage.contains(index));
            in_doubt.extend(appended.filter_map(|(_, entry)| Some((entry.op.id, entry.op.body.bytes()?.clone()))));
        }
        if let Some(log) = state.log() {
            state.known = Some(Box::new((log.history().current().timeline, log.tail())));
        }
        state.state = State::Failed;
        let (base, cap) = self.config.retry;
        let backoff = state.backoff.get_or_insert_with(|| Box::new(Backoff::new(base, cap)));
        let wait = backoff.fail(&mut self.rng);
        self.close_on_all(document, Code::STORAGE_FAILED, "the storage failed");
        self.event(Event::Failed { document: document.clone(), reason });
        self.set_document_alarm(document, self.now + wait);
    }

    pub(super) fn begin_timeline(&mut self, document: &DocumentId) {
        let timeline = self.draw_timeline();
        self.renumber(document);
        if let Some(log) = self.documents.get_mut(document).and_then(|state| state.log_mut()) {
            log.begin(timeline);
        }
    }

    // ---------------------------------------------------------------------------------------- alarms

    pub(super) fn set_document_alarm(&mut self, document: &DocumentId, at: Instant) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if !state.wakes_after(at) {
            return; // it will look again then
        }
        if let Some(before) = state.alarm.replace(at) {
            self.alarms.remove(&(before, Alarm::Document(document.clone())));
        }
        self.alarms.insert((at, Alarm::Document(document.clone())));
    }

    pub(super) fn on_document_alarm(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get_mut(document) else { return };
        state.alarm = None;
        let deadline = state.writes_under_way().map(|(_, deadline)| deadline).min();
        match (&state.state, deadline) {
            (State::Failed, _) => self.reload(document),
            (_, Some(deadline)) if deadline <= self.now => {
                self.fail(document, String::from("a write took longer than its deadline"));
            }
            (_, Some(deadline)) => self.set_document_alarm(document, deadline),
            (State::Ready(_), None) if state.mending.is_wanted() => match self.identity_write {
                Some((_, deadline)) if deadline <= self.now => {
                    self.fail(document, String::from("the write of a new id took longer than its deadline"));
                }
                _ => self.reset_when_quiet(document),
            },
            (State::Ready(_), None) if state.is_idle() => self.forget(document),
            (State::Ready(_), None) => self.rest(document),
            _ => {}
        }
    }

    /// Gives back the entries in memory of a document that is open and has not grown for a while.
    fn rest(&mut self, document: &DocumentId) {
        let again = self.now + self.config.idle_max;
        let Some(state) = self.documents.get_mut(document) else { return };
        if core::mem::take(&mut state.grew) {
            return self.set_document_alarm(document, again);
        }
        state.log_mut().into_iter().for_each(|log| log.trim(0));
        state.pipeline.rest();
    }

    /// Forgets a document that is idle; but not a timeline that the storage does not know.
    fn forget(&mut self, document: &DocumentId) {
        if let Some(state) = self.documents.get_mut(document)
            && state.log().is_some_and(|log| log.history().is_begun())
        {
            state.pipeline.timeline = true;
            return self.write(document);
        }
        let Some(state) = self.documents.remove(document) else { return };
        self.numbers.remove(&state.number);
        if let Some(at) = state.alarm {
            self.alarms.remove(&(at, Alarm::Document(document.clone())));
        }
    }

    /// A document that nobody has open is forgotten after a while.
    pub(super) fn idle_check(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get(document).filter(|state| state.is_idle()) else { return };
        if self.documents.len() > self.config.documents_max && state.log().is_some() {
            self.forget(document);
        } else {
            self.set_document_alarm(document, self.now + self.config.idle_max);
        }
    }
}
