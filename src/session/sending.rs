//! My log to the peer: `sent >= received >= acked`, and what goes into the next frame.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::outstanding::Outstanding;
use crate::heads::{Head, Heads};
use crate::log::Chunk;
use crate::op::{Entry, Origin, ReplicaId};
use crate::small::SmallMap;
use crate::time::Instant;
use crate::wire::changes::{pack, pack_part};
use crate::wire::{Ack, Changes, Content, Packed, Point, Rewind};

/// One document's way to the peer.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Sending {
    /// Where it started; `None`: that is not known yet.
    pub(super) started: Option<u64>,
    /// The position after my last durable entry.
    pub(super) tail: u64,
    /// Everything before this place was sent, or is not needed and the peer was told so.
    pub(super) sent: Point,
    /// Everything before this position was sent or is not needed; what lies beyond `sent` the peer must still be told.
    pub(super) passed: u64,
    /// Everything before this place was taken by the peer.
    pub(super) received: Point,
    /// Everything before this position is durable at the peer.
    pub(super) acked: u64,
    /// The highest place ever sent.
    top: Point,
    /// Everything below this position is to be acknowledged at once: the peer is asked for it when it was sent.
    pub(super) awaited: Option<u64>,
    /// What may be outstanding beyond `received`.
    pub(super) window: u64,
    pub(super) outstanding: Outstanding,
    /// What the peer holds below `tail_at_open`, where its heads were asked for; and of whom it has another history.
    filter: Option<Arc<Heads>>,
    /// Entries below `tail_at_open` that came from there are the peer's own.
    pub(super) skip_origin: Option<Origin>,
    /// Entries from `tail_at_open` on that came from there came in by this session.
    pub(super) live_origin: Option<Origin>,
    pub(super) tail_at_open: u64,
    staged: Option<Chunk>,
    /// The position that the host was asked to load from.
    loading: Option<u64>,
    /// The ops that went in parts and were not taken whole: by their positions, the bytes of their bodies.
    parts: BTreeMap<u64, u32>,
    /// Ranges that the peer misses, at most [`RESEND_MAX`].
    resend: VecDeque<(Point, Point)>,
    /// After silence: everything from `received` on is sent again, at first one frame, then more with each answer.
    recovery: Option<Recovery>,
    /// One bit an author number that the peer was told: by the number's 64th part, 64 of them.
    announced: SmallMap<u32, u64>,
    /// The number of the newest Ack or Rewind.
    pub(super) acks_seen: u64,
    /// Those up to this one are of an earlier opening.
    pub(super) acks_void: u64,
    /// When the peer last took something, or the first of what it has not was sent.
    pub(super) progress: Instant,
    pub(super) tries: u32,
}

/// Stands in the filter for all ops of an author, also those to come.
const FORKED: u64 = u64::MAX;
/// As many ranges as one peer asks for at once.
const RESEND_MAX: usize = 8;

#[derive(Clone, Debug, Hash)]
struct Recovery {
    next: Point,
    end: Point,
    allowed: u32,
    step: u32,
}

/// What a frame may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) number: u32,
    pub(super) begins: u64,
    /// Bytes of the frame.
    pub(super) bytes: usize,
    /// Cost of new ops.
    pub(super) cost: u64,
    /// Whether one op may cost more, if it goes in parts, or alone.
    pub(super) lone: bool,
    /// Whether nothing of other documents is outstanding.
    pub(super) alone: bool,
    /// Whether an op in parts may begin.
    pub(super) part: bool,
    /// Whether what was sent may be sent again.
    pub(super) repair: bool,
    /// Bytes of the largest body that the peer takes.
    pub(super) op_max: u64,
    /// Bytes of an op in parts that may be under way.
    pub(super) part_window: u64,
}

/// What there is to do for a document.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing.
    Idle,
    /// Nothing, until the peer or the transport gives room.
    Blocked,
    /// Nothing, until nothing of other documents is outstanding.
    Crowded,
    /// The peer does not take the next op.
    TooLarge,
    /// The host must load entries.
    Load { from: u64, max_cost: u64 },
    /// A frame; `end` is the place after it, `fresh` whether it was never sent before.
    Send { packed: Packed, end: Point, fresh: bool, part: bool },
}

impl Sending {
    /// Of a document that was opened at `tail`, by a peer whose last Ack or Rewind was numbered `acks_seen`.
    pub(super) fn new(tail: u64, window: u64, acks_seen: u64) -> Self {
        Self { tail, tail_at_open: tail, window, acks_seen, acks_void: acks_seen, ..Self::default() }
    }

    pub(super) fn start(&mut self, position: u64) {
        let at = Point::at(position);
        (self.sent, self.received, self.top) = (at, at, at);
        (self.passed, self.acked) = (position, position);
        self.started = Some(position);
    }

    /// Whether the peer holds everything that it lacks of my log.
    pub(super) fn is_done(&self) -> bool {
        self.started.is_some() && self.acked == self.tail
    }

    pub(super) fn is_unreceived(&self) -> bool {
        self.started.is_some() && self.received < self.sent
    }

    /// Whether everything that was sent was received, and not all of it is durable there, as far as is known here.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.started.is_some() && self.received == self.sent && self.acked < self.received.position
    }

    /// Something is about to be sent where nothing was under way.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.progress, self.tries) = (now, 0);
    }

    /// Whether there is nothing to look at: everything was passed, and nothing is to be sent again.
    pub(super) fn is_idle(&self) -> bool {
        let passed = self.passed >= self.tail && self.sent.offset == 0;
        self.loading.is_some() || passed && self.resend.is_empty() && self.recovery.is_none()
    }

    /// A range of which the peer must be told that it holds nothing for it.
    pub(super) fn skip(&self) -> Option<(u64, u64)> {
        let pending = self.started.is_some() && self.sent.offset == 0 && self.passed > self.sent.position;
        pending.then_some((self.sent.position, self.passed))
    }

    pub(super) fn skipped(&mut self) {
        self.advance(Point::at(self.passed));
    }

    /// Up to where the peer is to be asked for an acknowledgement now, once: all of it that the peer needs was sent.
    pub(super) fn ask_ack(&mut self) -> Option<u64> {
        let to = self.awaited.take_if(|to| *to <= self.passed && self.sent.offset == 0)?;
        Some(to.min(self.sent.position)).filter(|to| self.acked < *to)
    }

    fn advance(&mut self, to: Point) {
        self.sent = self.sent.max(to);
        self.top = self.top.max(to);
        self.passed = self.passed.max(self.sent.position);
    }

    /// Whether a live frame that begins at `from` is the very next thing to send.
    pub(super) fn is_at(&self, from: u64) -> bool {
        self.started.is_some()
            && self.sent.offset == 0
            && self.passed == from
            && self.staged.is_none()
            && self.loading.is_none()
            && self.resend.is_empty()
            && self.recovery.is_none()
    }

    /// The peer's heads are here: what they cover need not be sent.
    pub(super) fn filter_by(&mut self, heads: Arc<Heads>) {
        let known = self.filter.replace(heads);
        for (author, _) in known.iter().flat_map(|known| known.iter()).filter(|(_, head)| head.seq == FORKED) {
            self.fork(author);
        }
    }

    /// The peer has another history of this author.
    pub(super) fn fork(&mut self, author: ReplicaId) {
        let filter = Arc::make_mut(self.filter.get_or_insert_default());
        let chain = filter.get(author).chain;
        filter.set(author, Head { seq: FORKED, chain });
    }

    /// Whether the peer has another history of this author: ops of one must not be taken for the next ones of the other,
    /// whichever way they go.
    pub(super) fn is_forked(&self, author: ReplicaId) -> bool {
        self.filter.as_ref().is_some_and(|heads| heads.get(author).seq == FORKED)
    }

    fn omits(&self, position: u64, entry: &Entry) -> bool {
        let came_from = |origin: Option<Origin>| origin.is_some() && entry.origin == origin;
        if position >= self.tail_at_open {
            return came_from(self.live_origin) || self.is_forked(entry.op.id.author);
        }
        came_from(self.skip_origin) || self.filter.as_ref().is_some_and(|heads| heads.covers(entry.op.id))
    }

    /// The entries that the host was asked for.
    pub(super) fn loaded(&mut self, chunk: Chunk) -> bool {
        let wanted = self.loading == Some(chunk.from) && !chunk.entries.is_empty();
        if wanted {
            self.loading = None;
            self.staged = Some(chunk);
        }
        wanted
    }

    /// What goes next.
    pub(super) fn step(&mut self, allowance: &Allowance) -> Step {
        if self.started.is_none() || self.loading.is_some() {
            return Step::Idle;
        }
        loop {
            let (at, end, fresh) = match (self.resend.front(), &self.recovery) {
                (Some(&(from, to)), _) => (from, to, false),
                (None, Some(recovery)) if recovery.allowed == 0 => return Step::Blocked,
                (None, Some(recovery)) => (recovery.next, recovery.end, false),
                (None, None) => (self.sent, Point::at(self.tail), true),
            };
            if !fresh && !allowance.repair {
                return Step::Blocked;
            }
            let mut position = if fresh && at.offset == 0 { self.passed } else { at.position };
            if at >= end || position >= self.tail {
                if fresh || !self.finish_resend() {
                    self.staged = None;
                    return Step::Idle;
                }
                continue;
            }
            let Some(chunk) = self.staged.take_if(|chunk| (chunk.from..chunk.to()).contains(&position)) else {
                self.staged = None;
                // An op that has begun in parts is paid for.
                if fresh && at.offset == 0 && allowance.cost == 0 && !allowance.lone {
                    return Step::Blocked;
                }
                self.loading = Some(position);
                return Step::Load {
                    from: position,
                    max_cost: if fresh { allowance.cost } else { allowance.part_window },
                };
            };
            let stop = chunk.to().min(if end.offset > 0 { end.position + 1 } else { end.position });
            let entry_at = |position: u64| &chunk.entries[(position - chunk.from) as usize];
            if at.offset > 0 && self.omits(position, entry_at(position)) {
                // A fork has shown since its first part went: the peer is not to wait for the others.
                self.staged = Some(chunk);
                return self.nothing(Point::at(position), position + 1, fresh, allowance);
            }
            while position < stop && self.omits(position, entry_at(position)) {
                position += 1;
            }
            if fresh {
                self.passed = self.passed.max(position);
            }
            if position == stop {
                if !fresh && position > at.position {
                    self.staged = Some(chunk);
                    return self.nothing(at, position, false, allowance);
                }
                continue;
            }
            let step = self.frame(at, position..stop, fresh, &chunk, allowance);
            let needed = !fresh || self.passed < chunk.to() || self.sent.offset > 0;
            self.staged = needed.then_some(chunk);
            return step;
        }
    }

    /// A range that holds only what the peer does not need: it is told so by a frame without ops.
    fn nothing(&mut self, at: Point, to: u64, fresh: bool, allowance: &Allowance) -> Step {
        let content = Content::Bulk { span: to - at.position, runs: Vec::new(), bodies: Vec::new() };
        let changes = Changes { document: allowance.number, absolute: true, from: at.position, content };
        let mut frame = Vec::new();
        changes.encode(&mut frame);
        let (authors, origin) = (Vec::new(), None);
        let packed = Packed { frame: frame.into(), from: at.position, to, cost: 0, authors, origin };
        let end = Point::at(to);
        self.account(end, fresh, 0, allowance);
        Step::Send { packed, end, fresh, part: false }
    }

    fn frame(
        &mut self,
        at: Point,
        range: core::ops::Range<u64>,
        fresh: bool,
        chunk: &Chunk,
        allowance: &Allowance,
    ) -> Step {
        let index = |position: u64| (position - chunk.from) as usize;
        let entries = &chunk.entries[index(range.start)..index(range.end)];
        let offset = if range.start == at.position { at.offset } else { 0 };
        let first = &entries[0].op;
        if first.body.wire_len() as u64 > allowance.op_max {
            return Step::TooLarge;
        }
        // An op in parts was charged when its first part went.
        let affordable = !fresh || offset > 0 || first.cost() <= allowance.cost;
        if !affordable && !allowance.lone {
            return Step::Blocked;
        }
        // No more than fit the frame and the credit, and one beyond: its position is where the frame ends.
        let (mut kept, mut cost, mut bytes) = (Vec::new(), 0, 0);
        let mut count = 0;
        for (position, entry) in (range.start..).zip(entries) {
            if self.omits(position, entry) {
                continue;
            }
            kept.push((position, entry));
            cost += entry.op.cost();
            bytes += entry.op.body.wire_len();
            let fits = bytes <= allowance.bytes
                && (!fresh || cost <= allowance.cost)
                && entry.op.body.wire_len() as u64 <= allowance.op_max;
            if !fits && count > 0 {
                break;
            }
            count += 1;
        }
        let ops = kept[..count].iter().map(|(_, entry)| &entry.op);
        let author = |id| chunk.authors[&id];
        let to = |count: usize| kept.get(count).map_or(range.end, |(position, _)| *position);
        let whole = if offset == 0 {
            pack(allowance.number, allowance.begins, at.position, ops, author, allowance.bytes, to)
        } else {
            None
        };
        if let Some((packed, _)) = whole {
            if !affordable && !allowance.alone {
                return Step::Crowded;
            }
            let end = Point::at(packed.to);
            self.account(end, fresh, packed.cost, allowance);
            return Step::Send { packed, end, fresh, part: false };
        }
        if range.start > at.position {
            // Parts stand alone: what is omitted before them goes ahead.
            return self.nothing(at, range.start, fresh, allowance);
        }
        let begun = fresh && offset == 0;
        let taken = if self.received.position == range.start { self.received.offset } else { 0 };
        if begun && !allowance.part || u64::from(offset.saturating_sub(taken)) >= allowance.part_window {
            return Step::Blocked;
        }
        let author = chunk.authors[&first.id.author];
        let part = pack_part(allowance.number, allowance.begins, range.start, first, author, offset, allowance.bytes);
        let Some((packed, end)) = part else { return Step::Blocked };
        self.parts.insert(range.start, first.body.wire_len() as u32);
        // At first it is charged what the document may have, so that others go on beside it. The rest comes with the
        // last part, which waits until nothing of theirs is outstanding: then the peer takes the op as a whole.
        let cost = match (fresh, end.offset) {
            (true, 0) => packed.cost.saturating_sub(if begun { 0 } else { self.outstanding.total() }),
            (true, _) if begun => packed.cost.min(allowance.cost),
            _ => 0,
        };
        if end.offset == 0 && cost > allowance.cost && !allowance.alone {
            return Step::Crowded;
        }
        self.account(end, fresh, cost, allowance);
        Step::Send { packed: Packed { cost, ..packed }, end, fresh, part: true }
    }

    fn account(&mut self, end: Point, fresh: bool, cost: u64, allowance: &Allowance) {
        if fresh {
            let to = if end.offset > 0 { end.position + 1 } else { end.position };
            self.outstanding.begin(to, cost, allowance.part_window);
        } else {
            self.resent(end);
        }
        self.advance(end); // also by a repetition: where only parts of an op went, it may say that the rest is not needed
    }

    /// A live frame went out.
    pub(super) fn sent_live(&mut self, packed: &Packed, window: u64) {
        self.outstanding.begin(packed.to, packed.cost, window);
        self.advance(Point::at(packed.to));
    }

    fn resent(&mut self, end: Point) {
        if let Some(range) = self.resend.front_mut() {
            range.0 = range.0.max(end);
        } else if let Some(recovery) = &mut self.recovery {
            recovery.next = recovery.next.max(end);
            recovery.allowed = recovery.allowed.saturating_sub(1);
        }
    }

    fn finish_resend(&mut self) -> bool {
        if self.resend.pop_front().is_some() {
            return true;
        }
        self.recovery.take().is_some()
    }

    /// Takes an acknowledgement. `None` if it says what can't be.
    pub(super) fn acknowledge(&mut self, ack: &Ack, now: Instant) -> Option<()> {
        if ack.number <= self.acks_seen {
            return Some(());
        }
        self.acks_seen = ack.number;
        self.started?;
        if !self.is_place(ack.received) || self.acked.max(ack.held) > ack.received.position {
            return None;
        }
        self.window = ack.window;
        self.acked = self.acked.max(ack.held);
        self.receive(ack.received, now);
        Some(())
    }

    fn receive(&mut self, received: Point, now: Instant) {
        if received > self.received {
            self.begin(now);
            if let Some(recovery) = &mut self.recovery {
                recovery.next = recovery.next.max(received);
                recovery.step = recovery.step.saturating_mul(2);
                recovery.allowed = recovery.step;
            }
        }
        self.received = received;
        while self.parts.first_key_value().is_some_and(|(position, _)| *position < received.position) {
            self.parts.pop_first();
        }
        self.advance(received);
        self.outstanding.finish(received.position);
        while self.resend.front().is_some_and(|(_, to)| *to <= received) {
            self.resend.pop_front();
        }
        if let Some((from, _)) = self.resend.front_mut() {
            *from = (*from).max(received);
        }
        self.recovery.take_if(|recovery| recovery.end <= received);
    }

    /// Takes a Rewind. `None` if it says what can't be.
    pub(super) fn rewind(&mut self, rewind: &Rewind, now: Instant) -> Option<()> {
        if rewind.number <= self.acks_seen || self.started.is_none() {
            return Some(());
        }
        self.acks_seen = rewind.number;
        let to = rewind.to.unwrap_or(self.sent).min(self.sent);
        if !self.is_place(rewind.received) || !self.is_place(rewind.from) || self.acked > rewind.received.position {
            return None;
        }
        if rewind.from.position < self.acked {
            return Some(()); // it is durable there: the Rewind is from before
        }
        self.receive(rewind.received, now);
        self.recovery = None;
        self.progress = now;
        let pending = self.resend.iter().any(|(from, until)| *from <= rewind.from && to <= *until);
        if rewind.from < to && !pending && self.resend.len() < RESEND_MAX {
            self.resend.push_back((rewind.from, to));
        }
        Some(())
    }

    /// Whether frames could begin or end there.
    fn is_place(&self, point: Point) -> bool {
        let in_parts = self.parts.get(&point.position).is_some_and(|total| point.offset < *total);
        point <= self.top && (point.offset == 0 || in_parts)
    }

    /// Nothing was heard of what was sent: starts over at `received`, carefully.
    pub(super) fn recover(&mut self, now: Instant) {
        self.resend.clear();
        let (next, end) = (self.received, self.sent);
        self.recovery = Some(Recovery { next, end, allowed: 1, step: 1 });
        (self.progress, self.tries) = (now, self.tries + 1);
    }

    /// Whether the author's number must still be told; afterwards it counts as told.
    pub(super) fn announce(&mut self, number: u32) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        let told = self.announced.get(word).copied().unwrap_or_default();
        let new = told & bit == 0;
        if new {
            self.announced.insert(word, told | bit);
        }
        new
    }
}
