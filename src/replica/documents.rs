//! Documents: loading, the pipeline into the log, failure, and being forgotten when idle.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::fan_out::Sessions;
use super::links::Attached;
use super::{
    Alarm, Asked, Authority, Event, LinkId, Misuse, Options, Output, Reading, Replica, Salvage, Ticket, Tickets,
};
use crate::codes::Code;
use crate::heads::{Head, Judgement};
use crate::log::Log;
use crate::op::{Body, Cursor, DocumentId, Entry, OP_OVERHEAD, Op, OpId, ReplicaId, Timeline};
use crate::retry::Backoff;
use crate::session;
use crate::small::SmallMap;
use crate::storage::{Batch, Request, StoredDocument, Transaction};
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
    state: State,
    /// How the app opened it; `None`: only peers have it open.
    wanted: Option<Options>,
    pipeline: Pipeline,
    /// Bodies that wait until the document is loaded, and their cost.
    waiting: Vec<Bytes>,
    waiting_cost: u64,
    /// After a failure: own bodies that were on their way.
    #[allow(
        clippy::box_collection,
        reason = "idle documents are many, failures few: a pointer is what all of them pay"
    )]
    in_doubt: Option<Box<Vec<(OpId, Bytes)>>>,
    /// How often the storage failed, since it last worked.
    backoff: Option<Box<Backoff>>,
    /// Where the log ended when it was last in memory.
    known_tail: u64,
    alarm: Option<Instant>,
    /// Something was written since the last alarm.
    grew: bool,
    pub(super) mending: super::reset::Mending,
}

#[derive(Clone, Debug, Hash)]
enum State {
    /// The storage was asked for it.
    Loading,
    /// In memory.
    Ready(Box<Log>),
    /// The storage failed; it is asked again at the alarm.
    Failed,
}

/// What is on its way into the log.
#[derive(Clone, Debug, Default, Hash)]
struct Pipeline {
    /// The heads of authors of whom entries are on their way, or were: then they are durable and the same.
    ahead: SmallMap<ReplicaId, Head>,
    entries: Vec<Entry>,
    cost: u64,
    /// How far the peers' logs will be held.
    cursors: SmallMap<ReplicaId, Cursor>,
    /// The same, by session.
    held: SmallMap<LinkId, u64>,
    salvaged: Option<u64>,
    /// Which of the entries were put aside by a reset: they are still there until they are durable here.
    salvage: Range<usize>,
    /// What is being written: nothing more until that is done.
    writing: Option<Writing>,
}

#[derive(Clone, Debug, Hash)]
struct Writing {
    ticket: Ticket,
    batch: Arc<Batch>,
    held: SmallMap<LinkId, u64>,
    /// Which of the entries were put aside by a reset.
    salvage: Range<usize>,
    deadline: Instant,
    cost: u64,
}

impl Pipeline {
    fn is_empty(&self) -> bool {
        let nothing_held = self.cursors.len() == 0 && self.held.len() == 0;
        self.entries.is_empty() && nothing_held && self.salvaged.is_none()
    }

    fn is_idle(&self) -> bool {
        self.is_empty() && self.writing.is_none()
    }

    fn push(&mut self, op: Op, head: Head, origin: Option<Timeline>) {
        let author = op.id.author;
        let head = self.push_run(op, head, origin);
        self.ahead.insert(author, head);
    }

    /// Room for so many entries: no more, since most batches are one op, and many.
    fn reserve(&mut self, entries: usize) {
        if self.entries.is_empty() {
            self.entries = Vec::with_capacity(entries);
        }
    }

    /// The same as `push` without noting the author's new head, which it returns.
    fn push_run(&mut self, op: Op, head: Head, origin: Option<Timeline>) -> Head {
        let head = head.then(op.body.hash());
        self.cost += op.cost();
        self.entries.push(Entry { op, chain: head.chain, origin });
        head
    }

    /// If nothing is on its way, the heads of the log are the truth. A few are kept all the same: they will be needed.
    fn settle(&mut self) {
        const AUTHORS_KEPT: usize = 16;
        if self.ahead.len() > AUTHORS_KEPT && self.is_idle() {
            self.ahead = SmallMap::new();
        }
    }
}

impl Document {
    fn new(number: u32) -> Self {
        Self {
            number,
            links: SmallMap::new(),
            state: State::Loading,
            wanted: None,
            pipeline: Pipeline::default(),
            waiting: Vec::new(),
            waiting_cost: 0,
            in_doubt: None,
            backoff: None,
            known_tail: 0,
            alarm: None,
            grew: false,
            mending: super::reset::Mending::default(),
        }
    }

    pub(super) fn log(&self) -> Option<&Log> {
        match &self.state {
            State::Ready(log) => Some(log),
            State::Loading | State::Failed => None,
        }
    }

    pub(super) fn log_mut(&mut self) -> Option<&mut Log> {
        match &mut self.state {
            State::Ready(log) => Some(log),
            State::Loading | State::Failed => None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether nobody has it open and nothing is under way.
    fn is_idle(&self) -> bool {
        let unused = self.wanted.is_none() && self.links.len() == 0 && self.waiting.is_empty();
        unused && self.pipeline.is_idle() && self.mending.is_idle()
    }

    pub(super) fn options(&self) -> &Options {
        const UNWANTED: Options =
            Options { access: Access::Write, schema: None, authority: Authority::Nobody, salvage: Salvage::Append };
        self.wanted.as_ref().unwrap_or(&UNWANTED)
    }

    /// The author's head with what is on its way.
    pub(super) fn taken_head(&self, author: ReplicaId) -> Head {
        let durable = || self.log().map_or(Head::NONE, |log| log.heads().get(author));
        self.pipeline.ahead.get(author).copied().unwrap_or_else(durable)
    }

    /// Puts the author's next op on its way.
    pub(super) fn push_own(&mut self, op: Op) {
        let head = self.taken_head(op.id.author);
        self.pipeline.push(op, head, None);
    }

    fn push_bodies(&mut self, me: ReplicaId, bodies: Vec<Bytes>) {
        let mut head = self.taken_head(me);
        self.pipeline.reserve(bodies.len());
        for body in bodies {
            let id = OpId { author: me, seq: head.seq + 1 };
            head = self.pipeline.push_run(Op { id, body: Body::Bytes(body) }, head, None);
        }
        self.pipeline.ahead.insert(me, head);
    }

    /// Puts ops on their way that a reset had put aside: all of it below `place` is dealt with by them.
    pub(super) fn push_salvage(&mut self, ops: Vec<Op>, place: u64) {
        let from = self.pipeline.entries.len();
        ops.into_iter().for_each(|op| self.push_own(op));
        self.pipeline.salvage = from..self.pipeline.entries.len();
        self.pipeline.salvaged = Some(place);
    }

    /// Whether an op that is held, the last of its author, is another than this one, as far as memory knows. There a
    /// history forked, and what follows it at the peer must not be taken for what follows it here.
    fn differs(&self, op: &Op) -> bool {
        const LOOKED_AT_MAX: usize = 64;
        let writing = self.pipeline.writing.as_ref().map(|writing| &writing.batch.entries);
        let coming = writing.into_iter().flatten().chain(&self.pipeline.entries);
        let recent = self.log().into_iter().flat_map(Log::entries).chain(coming).rev().take(LOOKED_AT_MAX);
        let held = recent.map(|entry| &entry.op).find(|held| held.id == op.id);
        held.is_some_and(|held| held.body.hash() != op.body.hash())
    }

    /// Whether its alarm, if it has one, is later than `at`.
    fn wakes_after(&self, at: Instant) -> bool {
        self.alarm.is_none_or(|alarm| alarm > at)
    }

    /// Starts writing what has gathered, unless something is being written. Says whether it did: then there must be an
    /// alarm at the deadline.
    fn start_write(
        &mut self,
        id: &DocumentId,
        deadline: Instant,
        asked: &mut Tickets,
        outputs: &mut VecDeque<Output>,
    ) -> bool {
        let State::Ready(log) = &self.state else { return false };
        let pipeline = &mut self.pipeline;
        if pipeline.writing.is_some() || pipeline.is_empty() || self.mending.is_resetting() {
            return false;
        }
        let entries = core::mem::take(&mut pipeline.entries);
        let batch = Arc::new(Batch {
            document: id.clone(),
            position: log.tail(),
            timeline: log.unrecorded().filter(|_| !entries.is_empty()),
            entries,
            cursors: core::mem::take(&mut pipeline.cursors).into_vec(),
            salvaged: pipeline.salvaged.take(),
        });
        let held = core::mem::take(&mut pipeline.held);
        let cost = core::mem::take(&mut pipeline.cost);
        let salvage = core::mem::take(&mut pipeline.salvage);
        let ticket = asked.issue(Asked::Write(id.clone()));
        let request = Request::Write(Transaction::Append(batch.clone()));
        outputs.push_back(Output::Storage { ticket, request });
        pipeline.writing = Some(Writing { ticket, batch, held, salvage, deadline, cost });
        true
    }

    /// Whether something waits for the end of a write.
    fn has_more(&self) -> bool {
        self.mending.is_resetting() || !self.pipeline.is_empty()
    }

    /// The write that is under way, and until when it may be.
    fn write_under_way(&self) -> Option<(Ticket, Instant)> {
        let append = self.pipeline.writing.as_ref().map(|writing| (writing.ticket, writing.deadline));
        append.or(self.mending.writing())
    }

    pub(super) fn is_writing(&self) -> bool {
        self.pipeline.writing.is_some()
    }

    /// Own ops that are not yet being written are authored anew under another id.
    pub(super) fn reauthor(&mut self, before: ReplicaId, after: ReplicaId) {
        self.pipeline.ahead = SmallMap::new();
        for entry in self.pipeline.writing.iter().flat_map(|writing| &writing.batch.entries) {
            let head = Head { seq: entry.op.id.seq, chain: entry.chain };
            self.pipeline.ahead.insert(entry.op.id.author, head);
        }
        self.pipeline.cost = 0;
        for Entry { op, origin, .. } in core::mem::take(&mut self.pipeline.entries) {
            let own = op.id.author == before && origin.is_none();
            let author = if own { after } else { op.id.author };
            let head = self.taken_head(author);
            self.pipeline.push(Op { id: OpId { author, seq: head.seq + 1 }, body: op.body }, head, origin);
        }
    }

    /// Takes back what is not yet being written: own bodies wait, what peers sent will come again, what was salvaged is
    /// still put aside.
    pub(super) fn withdraw(&mut self, me: ReplicaId) {
        let Pipeline { entries, writing, salvage, .. } = core::mem::take(&mut self.pipeline);
        self.pipeline.writing = writing;
        let appended = (0..).zip(entries).filter(|(index, _)| !salvage.contains(index)).map(|(_, entry)| entry);
        let own = appended.filter(|entry| entry.op.id.author == me && entry.origin.is_none());
        for body in own.filter_map(|entry| entry.op.body.bytes().cloned()) {
            self.waiting_cost += body.len() as u64 + OP_OVERHEAD;
            self.waiting.push(body);
        }
    }

    /// The log was put aside as a whole.
    pub(super) fn started_anew(&mut self) {
        self.state = State::Loading;
        self.pipeline = Pipeline::default(); // the heads and cursors in it are those of the old log
        self.known_tail = 0;
    }

    /// What a session has under way is no longer of interest to it.
    pub(super) fn forget_held(&mut self, link: LinkId) {
        self.pipeline.held.remove(link);
        if let Some(writing) = &mut self.pipeline.writing {
            writing.held.remove(link);
        }
    }

    /// Whether the app's appends are on their way: not yet durable, in doubt after a failure, or put aside by a reset.
    pub(super) fn is_appending(&self) -> bool {
        let writing = self.pipeline.writing.iter().flat_map(|writing| &writing.batch.entries);
        let own = self.pipeline.entries.iter().chain(writing).any(|entry| entry.origin.is_none());
        own || !self.waiting.is_empty() || self.in_doubt.is_some() || !self.mending.is_whole()
    }

    pub(super) fn memory_cost(&self) -> u64 {
        let writing = self.pipeline.writing.as_ref().map_or(0, |writing| writing.cost);
        self.log().map_or(0, Log::cost) + self.pipeline.cost + writing + self.waiting_cost
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
                let (heads, tail) = (log.heads().clone(), log.tail());
                self.event(Event::Opened { document: document.clone(), heads, tail });
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
            let number = self.number(document);
            self.documents.insert(document.clone(), Box::new(Document::new(number)));
            self.request(Asked::Load(document.clone()), Request::Open(document.clone()));
        }
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
        let Some(state) = self.documents.get_mut(document) else { return };
        if let Some(log) = state.log() {
            state.known_tail = state.known_tail.max(log.tail());
        }
        state.state = State::Loading;
        self.request(Asked::Load(document.clone()), Request::Open(document.clone()));
    }

    pub(super) fn loaded(&mut self, document: &DocumentId, stored: StoredDocument) {
        let me = self.identity.replica;
        let timeline = self.draw_timeline();
        let opens = self.opens.clone();
        let Some(state) = self.documents.get_mut(document) else { return };
        let StoredDocument { heads, timelines, forgotten, horizon, tail, aside } = stored;
        state.mending.loaded(aside, &timelines);
        let history = History::load(opens, timelines, forgotten, tail);
        let mut log = Log::load(history, heads, horizon, tail);
        if tail < state.known_tail {
            log.begin(timeline); // the storage has lost what peers may know of
        }
        state.known_tail = tail;
        let held = log.heads().clone();
        let seq = held.get(me).seq;
        let opened = Event::Opened { document: document.clone(), heads: held.clone(), tail };
        state.state = State::Ready(Box::new(log));
        let wanted = state.is_wanted();
        if let Some(in_doubt) = state.in_doubt.take() {
            let lost = in_doubt.into_iter().filter(|(id, _)| !held.covers(*id)).map(|(_, body)| body).collect();
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

    // ---------------------------------------------------------------------------------------- the pipeline

    /// Ops that a peer sent.
    pub(super) fn take(&mut self, link: LinkId, number: u32, origin: Timeline, to: u64, ops: Vec<Op>) {
        let deadline = self.now + self.config.write_deadline;
        let Some(document) = self.numbers.get(&number) else { return };
        let Some(peer) = self.links.get(&link).and_then(|state| state.session.peer()) else { return };
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.number != number || state.log().is_none() {
            return;
        }
        state.pipeline.reserve(ops.len());
        // Ops of one author mostly stand together: their head is looked up and noted once.
        let mut run: Option<(ReplicaId, Head)> = None;
        let mut refused = None;
        for op in ops {
            let author = op.id.author;
            let head = match run {
                Some((other, head)) if other == author => head,
                before => {
                    before.into_iter().for_each(|(author, head)| _ = state.pipeline.ahead.insert(author, head));
                    state.taken_head(author)
                }
            };
            let head = match head.judge(op.id.seq) {
                Judgement::Next => state.pipeline.push_run(op, head, Some(origin)),
                Judgement::Duplicate => {
                    self.stats.duplicates += 1;
                    if op.id.seq == head.seq && state.differs(&op) {
                        refused = Some(Code::MISMATCH);
                        break;
                    }
                    head
                }
                Judgement::Gap => {
                    refused = Some(Code::AUTHOR_GAP);
                    break;
                }
            };
            run = Some((author, head));
        }
        run.into_iter().for_each(|(author, head)| _ = state.pipeline.ahead.insert(author, head));
        if let Some(code) = refused {
            let document = document.clone();
            self.refuse_ops(link, &document, code);
            return self.write(&document);
        }
        state.pipeline.held.insert(link, to);
        state.pipeline.cursors.insert(peer, Cursor { timeline: origin, position: to });
        let begun = state.start_write(document, deadline, &mut self.asked, &mut self.outputs);
        if begun && state.wakes_after(deadline) {
            let document = document.clone();
            self.set_document_alarm(&document, deadline);
        }
    }

    /// Writes how far a peer's log is held, with whatever is written next.
    pub(super) fn write_cursor(&mut self, document: &DocumentId, peer: ReplicaId, cursor: Cursor) {
        let Some(state) = self.documents.get_mut(document).filter(|state| state.log().is_some()) else { return };
        if !state.pipeline.cursors.contains(peer) {
            state.pipeline.cursors.insert(peer, cursor);
        }
        self.write(document);
    }

    /// Starts writing what has gathered, unless something is being written.
    pub(super) fn write(&mut self, document: &DocumentId) {
        let deadline = self.now + self.config.write_deadline;
        let Some(state) = self.documents.get_mut(document) else { return };
        let begun = state.start_write(document, deadline, &mut self.asked, &mut self.outputs);
        if begun && state.wakes_after(deadline) {
            self.set_document_alarm(document, deadline);
        }
    }

    /// A batch is durable: shows it to every session and to the app.
    pub(super) fn written(&mut self, document: DocumentId) {
        let is_own = |author| self.identity.is_own(author);
        let Some(state) = self.documents.get_mut(&document) else { return };
        let Some(writing) = state.pipeline.writing.take() else { return };
        let Writing { batch, held, salvage, .. } = writing;
        let State::Ready(log) = &mut state.state else { return };
        let mut own = None;
        let mut foreign = !salvage.is_empty(); // they stood elsewhere when the app heard of them
        for (position, entry) in (batch.position + 1..).zip(&batch.entries) {
            match entry.origin {
                Some(_) => foreign = true,
                None if is_own(entry.op.id.author) => own = Some((entry.op.id, position)),
                None => {}
            }
        }
        log.extend(&batch.entries);
        state.known_tail = log.tail();
        state.grew = true;
        state.pipeline.settle();
        state.backoff = None; // not before: a disk that is full still lets itself be read
        self.stats.batches += 1;
        self.stats.entries += batch.entries.len() as u64;
        let frame_max = self.config.session.limits.frame as usize;
        let mut sessions = Sessions { links: &mut self.links, busy: &mut self.busy, frame_max };
        self.stats.packed += state.fan_out(&batch, &held, self.now, &mut sessions);
        if let Some(log) = state.log_mut() {
            log.trim(self.config.tail_max);
        }
        let salvaged = batch.salvaged;
        let unfinished = (salvaged.is_some() || state.has_more() || state.is_idle()).then(|| document.clone());
        if let Some((id, position)) = own {
            self.outputs.push_back(Output::Event(Event::Applied { document, id, position }));
        }
        if foreign {
            self.outputs.push_back(Output::Event(Event::Received { batch }));
        }
        let Some(document) = unfinished else { return };
        if let Some(place) = salvaged {
            self.salvaged(&document, place);
        }
        self.go_on(&document);
    }

    /// Goes on after a write: with a reset that waited for it, with what has gathered meanwhile, or with being idle.
    fn go_on(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get(document) else { return };
        if state.mending.is_resetting() {
            self.reset_when_quiet(document);
        } else if !state.pipeline.is_empty() {
            self.write(document);
        } else if state.is_idle() {
            self.idle_check(document);
        }
    }

    // ---------------------------------------------------------------------------------------- reading

    /// A session that is behind wants entries: from memory if they are there, else from storage.
    pub(super) fn load(&mut self, link: LinkId, number: u32, from: u64, max_cost: u64) {
        let read_max = self.config.read_max;
        let Some(document) = self.numbers.get(&number).cloned() else { return };
        if self.postpones(link, &document, from, max_cost) {
            return;
        }
        let Some(log) = self.documents.get_mut(&document).and_then(|state| state.log_mut()) else { return };
        if let Some(chunk) = log.read(from, max_cost.min(read_max)) {
            return self.session_input(link, session::Input::Loaded { number, chunk });
        }
        // Sessions that are at the same place share one read.
        let reading = Reading { document: document.clone(), number, from };
        for asked in self.asked.values_mut() {
            if let Asked::Read(other, links) = asked
                && *other == reading
            {
                return links.push(link);
            }
        }
        let request = Request::Read { document, from, max_cost: read_max };
        self.request_read(Asked::Read(reading, [link].into()), request);
    }

    pub(super) fn read_done(&mut self, reading: &Reading, links: Vec<LinkId>, entries: Vec<Entry>) {
        let Reading { document, number, from } = reading;
        if self.numbers.get(number) != Some(document) {
            return; // the log was loaded or reset meanwhile: positions may mean something else
        }
        if entries.is_empty() {
            return self.fail(document, String::from("the storage lacks entries that it was given"));
        }
        let Some(log) = self.documents.get_mut(document).and_then(|state| state.log_mut()) else { return };
        let chunk = log.chunk(*from, entries);
        for link in links {
            let chunk = chunk.clone();
            self.session_input_for(document, link, |number| session::Input::Loaded { number, chunk });
        }
    }

    // ---------------------------------------------------------------------------------------- failure

    /// The storage failed: what is not durable is dropped, and the truth is read again after a while.
    pub(super) fn fail(&mut self, document: &DocumentId, reason: String) {
        let Some(state) = self.documents.get_mut(document) else { return };
        if matches!(state.state, State::Failed) {
            return;
        }
        if let Some((ticket, _)) = state.write_under_way() {
            self.asked.take(ticket);
        }
        let pipeline = core::mem::take(&mut state.pipeline);
        let in_doubt = state.in_doubt.get_or_insert_default();
        let writing = pipeline.writing.as_ref().map(|writing| (&writing.batch.entries, &writing.salvage));
        for (entries, salvage) in writing.into_iter().chain([(&pipeline.entries, &pipeline.salvage)]) {
            let appended =
                (0..).zip(entries).filter(|(index, entry)| entry.origin.is_none() && !salvage.contains(index));
            in_doubt.extend(appended.filter_map(|(_, entry)| Some((entry.op.id, entry.op.body.bytes()?.clone()))));
        }
        if let Some(log) = state.log() {
            state.known_tail = state.known_tail.max(log.tail());
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
        match (&state.state, state.write_under_way()) {
            (State::Failed, _) => self.reload(document),
            (_, Some((_, deadline))) if deadline <= self.now => {
                self.fail(document, String::from("a write took longer than its deadline"));
            }
            (_, Some((_, deadline))) => self.set_document_alarm(document, deadline),
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
    }

    fn forget(&mut self, document: &DocumentId) {
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
