//! The pipeline: what wants to be in a log is judged, gathered, written, and shown when it is durable.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut, Range};

use bytes::Bytes;

use super::documents::{Document, State};
use super::fan_out::Sessions;
use super::{Appending, Asked, Event, LinkId, Output, Replica, Ticket, Tickets};
use crate::codes::Code;
use crate::heads::{Head, Judgement};
use crate::log::Log;
use crate::op::{Body, Cursor, DocumentId, Entry, OP_OVERHEAD, Op, OpId, Origin, ReplicaId};
use crate::small::SmallMap;
use crate::storage::{Batch, Request, Transaction};
use crate::time::Instant;

/// What is on its way into the log.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Pipeline {
    /// The heads of authors of whom entries are on their way, or were: then they are durable and the same.
    pub(super) ahead: SmallMap<ReplicaId, Head>,
    pub(super) entries: Vec<Entry>,
    pub(super) cost: u64,
    /// How far the peers' logs will be held.
    pub(super) cursors: SmallMap<ReplicaId, Cursor>,
    /// The same, by session.
    pub(super) held: SmallMap<LinkId, u64>,
    pub(super) salvaged: Option<u64>,
    /// The log's timeline is to be stored although nothing grows.
    pub(super) timeline: bool,
    /// Which of the entries were put aside by a reset: they are still there until they are durable here.
    pub(super) salvage: Range<usize>,
    /// Links that are to acknowledge at once, when the log has grown to a position.
    pub(super) awaited: BTreeMap<LinkId, u64>,
    /// What is being written: nothing more until that is done.
    pub(super) writing: Option<Writing>,
}

/// A pipeline that is there once something comes, and until the document rests: idle documents are many.
#[derive(Clone, Debug, Default)]
pub(super) struct LazyPipeline(Option<Box<Pipeline>>);

#[derive(Clone, Debug, Hash)]
pub(super) struct Writing {
    pub(super) ticket: Ticket,
    pub(super) batch: Arc<Batch>,
    pub(super) held: SmallMap<LinkId, u64>,
    /// Which of the entries were put aside by a reset.
    pub(super) salvage: Range<usize>,
    pub(super) deadline: Instant,
    pub(super) cost: u64,
}

static NOTHING: Pipeline = Pipeline {
    ahead: SmallMap::new(),
    entries: Vec::new(),
    cost: 0,
    cursors: SmallMap::new(),
    held: SmallMap::new(),
    salvaged: None,
    timeline: false,
    salvage: 0..0,
    awaited: BTreeMap::new(),
    writing: None,
};

impl Deref for LazyPipeline {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for LazyPipeline {
    fn deref_mut(&mut self) -> &mut Pipeline {
        self.0.get_or_insert_default()
    }
}

impl Hash for LazyPipeline {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl LazyPipeline {
    /// Gives back its memory, if nothing is on its way.
    pub(super) fn rest(&mut self) {
        self.0.take_if(|pipeline| pipeline.is_idle() && pipeline.awaited.is_empty());
    }

    fn existing(&mut self) -> Option<&mut Pipeline> {
        self.0.as_deref_mut()
    }
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        let nothing_held = self.cursors.len() == 0 && self.held.len() == 0;
        self.entries.is_empty() && nothing_held && self.salvaged.is_none() && !self.timeline
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.writing.is_none()
    }

    pub(super) fn push(&mut self, op: Op, head: Head, origin: Option<Origin>) {
        let author = op.id.author;
        let head = self.push_run(op, head, origin);
        self.ahead.insert(author, head);
    }

    /// Room for so many entries: no more, since most batches are one op, and many.
    pub(super) fn reserve(&mut self, entries: usize) {
        if self.entries.is_empty() {
            self.entries = Vec::with_capacity(entries);
        }
    }

    /// The same as `push` without noting the author's new head, which it returns.
    pub(super) fn push_run(&mut self, op: Op, head: Head, origin: Option<Origin>) -> Head {
        let head = head.then(op.body.hash());
        self.cost += op.cost();
        self.entries.push(Entry { op, chain: head.chain, origin });
        head
    }

    /// If nothing is on its way, the heads of the log are the truth. A few are kept all the same: they will be needed.
    pub(super) fn settle(&mut self) {
        const AUTHORS_KEPT: usize = 16;
        if self.ahead.len() > AUTHORS_KEPT && self.is_idle() {
            self.ahead = SmallMap::new();
        }
    }
}

impl Document {
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

    pub(super) fn push_bodies(&mut self, me: ReplicaId, bodies: Vec<Bytes>) {
        if bodies.is_empty() {
            return;
        }
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
    pub(super) fn differs(&self, op: &Op) -> bool {
        const LOOKED_AT_MAX: usize = 64;
        let writing = self.pipeline.writing.as_ref().map(|writing| &writing.batch.entries);
        let coming = writing.into_iter().flatten().chain(&self.pipeline.entries);
        let recent = self.log().into_iter().flat_map(Log::entries).chain(coming).rev().take(LOOKED_AT_MAX);
        let held = recent.map(|entry| &entry.op).find(|held| held.id == op.id);
        held.is_some_and(|held| held.body.hash() != op.body.hash())
    }

    /// Starts writing what has gathered, unless something is being written. Says whether it did: then there must be an
    /// alarm at the deadline.
    pub(super) fn start_write(
        &mut self,
        id: &DocumentId,
        deadline: Instant,
        asked: &mut Tickets,
        outputs: &mut VecDeque<Output>,
    ) -> bool {
        let State::Ready(log) = &self.state else { return false };
        let Some(pipeline) = self.pipeline.existing() else { return false };
        if pipeline.writing.is_some() || pipeline.is_empty() || self.mending.is_resetting() {
            return false;
        }
        let entries = core::mem::take(&mut pipeline.entries);
        let grows = core::mem::take(&mut pipeline.timeline) || !entries.is_empty();
        let batch = Arc::new(Batch {
            document: id.clone(),
            position: log.tail(),
            timeline: grows.then(|| log.history().current()),
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

    /// How far a peer's log will be held when what is on its way is written.
    fn cursor_coming(&self, peer: ReplicaId) -> Option<Cursor> {
        let mut writing = self.pipeline.writing.iter().flat_map(|writing| &writing.batch.cursors);
        let writing = || writing.find(|(other, _)| *other == peer).map(|(_, cursor)| *cursor);
        self.pipeline.cursors.get(peer).copied().or_else(writing)
    }

    /// Whether something waits for the end of a write.
    pub(super) fn has_more(&self) -> bool {
        self.mending.is_resetting() || !self.pipeline.is_empty()
    }

    /// The writes that are under way, and until when they may be.
    pub(super) fn writes_under_way(&self) -> impl Iterator<Item = (Ticket, Instant)> {
        let append = self.pipeline.writing.as_ref().map(|writing| (writing.ticket, writing.deadline));
        [append, self.mending.writing(), self.apart].into_iter().flatten()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.pipeline.writing.is_some()
    }

    /// Own ops that are not yet being written are authored anew under another id.
    pub(super) fn reauthor(&mut self, before: ReplicaId, after: ReplicaId) {
        let Some(pipeline) = self.pipeline.existing() else { return };
        pipeline.ahead = SmallMap::new();
        for entry in pipeline.writing.iter().flat_map(|writing| &writing.batch.entries) {
            let head = Head { seq: entry.op.id.seq, chain: entry.chain };
            pipeline.ahead.insert(entry.op.id.author, head);
        }
        pipeline.cost = 0;
        for Entry { op, origin, .. } in core::mem::take(&mut pipeline.entries) {
            let own = op.id.author == before && origin.is_none();
            let author = if own { after } else { op.id.author };
            let head = self.taken_head(author);
            self.pipeline.push(Op { id: OpId { author, seq: head.seq + 1 }, body: op.body }, head, origin);
        }
    }

    /// Takes back what is not yet being written: own bodies wait, what peers sent will come again, what was salvaged is
    /// still put aside.
    pub(super) fn withdraw(&mut self, me: ReplicaId) {
        let Pipeline { entries, writing, salvage, .. } = core::mem::take(&mut *self.pipeline);
        self.pipeline.writing = writing;
        let appended = (0..).zip(entries).filter(|(index, _)| !salvage.contains(index)).map(|(_, entry)| entry);
        let own = appended.filter(|entry| entry.op.id.author == me && entry.origin.is_none());
        for body in own.filter_map(|entry| entry.op.body.bytes().cloned()) {
            self.waiting_cost += body.len() as u64 + OP_OVERHEAD;
            self.waiting.push(body);
        }
    }

    /// The link is gone, or the document is no longer to be open on it.
    pub(super) fn forget_link(&mut self, link: LinkId) {
        self.forget_held(link);
        self.pipeline.existing().into_iter().for_each(|pipeline| _ = pipeline.awaited.remove(&link));
        self.links.remove(link);
    }

    /// What a session has under way is no longer of interest to it.
    pub(super) fn forget_held(&mut self, link: LinkId) {
        let Some(pipeline) = self.pipeline.existing() else { return };
        pipeline.held.remove(link);
        if let Some(writing) = &mut pipeline.writing {
            writing.held.remove(link);
        }
    }

    /// The tail when all that is on its way will be durable.
    pub(super) fn tail_to_be(&self) -> u64 {
        let writing = self.pipeline.writing.as_ref().map_or(0, |writing| writing.batch.entries.len());
        let coming = writing + self.pipeline.entries.len() + self.waiting.len();
        self.log().map_or(0, Log::tail) + coming as u64
    }

    /// What of the app's appends is on its way.
    pub(super) fn appending(&self) -> Appending {
        let own = |entries: &[Entry], salvage: &Range<usize>| {
            let appended = entries.iter().enumerate().filter(|(index, _)| !salvage.contains(index));
            appended.filter(|(_, entry)| entry.origin.is_none()).count()
        };
        let Pipeline { entries, salvage, writing, .. } = &*self.pipeline;
        let writing = writing.as_ref().map_or(0, |writing| own(&writing.batch.entries, &writing.salvage));
        let in_doubt = self.in_doubt.as_ref().map_or(0, |in_doubt| in_doubt.len());
        let bodies = writing + own(entries, salvage) + self.waiting.len() + in_doubt;
        Appending { bodies, aside: !self.mending.is_whole() }
    }
}

impl Replica {
    /// Ops that a peer sent; its log is held up to `cursor` with them.
    pub(super) fn take(&mut self, link: LinkId, number: u32, origin: Origin, cursor: Cursor, ops: Vec<Op>) {
        let deadline = self.now + self.config.write_deadline;
        let Some(document) = self.numbers.get(&number) else { return };
        let Some(from) = self.links.get(&link) else { return };
        let Some(state) = self.documents.get_mut(document) else { return };
        if state.number != number || state.log().is_none() {
            return;
        }
        if state.is_overfull(self.config.waiting_max) {
            // Each session was granted something, and each that comes after it again.
            let document = document.clone();
            return self.close_on(link, &document, Code::STORAGE_FAILED, "the storage does not keep up");
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
        state.pipeline.held.insert(link, cursor.position);
        let forked = state.links.get(link).is_some_and(|attached| attached.forked);
        if let Some(peer) = from.session.peer().filter(|_| from.keeps_cursors() && !forked) {
            state.pipeline.cursors.insert(peer, cursor);
        }
        let begun = state.start_write(document, deadline, &mut self.asked, &mut self.outputs);
        if begun && state.wakes_after(deadline) {
            let document = document.clone();
            self.set_document_alarm(&document, deadline);
        }
    }

    /// Writes how far a peer's log is held, with whatever is written next.
    pub(super) fn write_cursor(&mut self, document: &DocumentId, peer: ReplicaId, cursor: Cursor) {
        let Some(state) = self.documents.get_mut(document).filter(|state| state.log().is_some()) else { return };
        let as_far = |coming: Cursor| coming.timeline == cursor.timeline && coming.position >= cursor.position;
        if state.cursor_coming(peer).is_some_and(as_far) {
            return; // ops that go further are on their way
        }
        state.pipeline.cursors.insert(peer, cursor);
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
        if batch.timeline.is_some() {
            log.recorded();
        }
        log.extend(&batch.entries);
        let was_overfull = state.is_overfull(self.config.waiting_max);
        state.grew = true;
        state.pipeline.settle();
        state.backoff = None; // not before: a disk that is full still lets itself be read
        self.stats.batches += 1;
        self.stats.entries += batch.entries.len() as u64;
        let frame_max = self.config.session.limits.frame as usize;
        let mut sessions = Sessions { links: &mut self.links, busy: &mut self.busy, frame_max };
        self.stats.packed += state.fan_out(&batch, &held, self.now, &mut sessions);
        state.want_acks(self.now, &mut sessions);
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
        if was_overfull {
            self.attach_waiting(&document);
        }
    }

    /// Goes on after a write: with a reset that waited for it, with what has gathered meanwhile, or with being idle.
    pub(super) fn go_on(&mut self, document: &DocumentId) {
        let Some(state) = self.documents.get(document) else { return };
        if state.mending.is_resetting() {
            self.reset_when_quiet(document);
        } else if !state.pipeline.is_empty() {
            self.write(document);
        } else if state.is_idle() {
            self.idle_check(document);
        }
    }
}
