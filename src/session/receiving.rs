//! The peer's log to me: `taken >= held`, what came too early, and what the peer must be told.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::outstanding::Outstanding;
use crate::op::{Body, Op, ReplicaId};
use crate::small::SmallMap;
use crate::time::Instant;
use crate::wire::changes::resolve;
use crate::wire::{Changes, Content, Malformed, Point};
use core::time::Duration;

/// One document's way from the peer.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Receiving {
    /// Everything before this place was handed upward; `None`: where the peer starts is not known yet.
    pub(super) taken: Option<Point>,
    /// Everything before this position is durable here.
    pub(super) held: u64,
    /// What was taken and is not durable.
    pub(super) undurable: Outstanding,
    /// What the peer's numbers of authors stand for, and from where their seqs count.
    authors: SmallMap<u32, (ReplicaId, u64)>,
    /// The op at `taken` of which parts were taken.
    assembly: Option<Box<Assembly>>,
    /// Frames beyond a gap, or with authors not known yet, by where they begin.
    parked: BTreeMap<Point, Parked>,
    parked_bytes: u64,
    /// Cost taken since the last acknowledgement, and cost made durable since: both are news for a peer that waits, the
    /// first that it may forget, the second that it may send.
    pub(super) unacknowledged: u64,
    /// The peer waits for the acknowledgement of everything below this position.
    pub(super) awaited: u64,
    /// Missing ranges that were asked for, and when.
    asked: BTreeMap<Point, Instant>,
}

/// An op that comes in parts. All of them must be of the same op.
#[derive(Clone, Debug, Hash)]
struct Assembly {
    author: u32,
    seq: u64,
    total: u32,
    body: BytesMut,
}

#[derive(Clone, Debug, Hash)]
struct Parked {
    end: Point,
    changes: Changes,
    bytes: u64,
}

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its ops, and the positions that they, and what was left out around them, stand for.
    Ops { from: u64, to: u64, ops: Vec<Op>, cost: u64 },
    /// A part of an op that is not yet whole.
    Part,
    /// It was taken before.
    Duplicate,
    /// Something is missing before it.
    Early,
    /// It may not be: an op is too large.
    TooLarge,
    /// It is more than was granted.
    Excess,
}

/// What a session takes at most of one document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) begins: u64,
    pub(super) window: u64,
    pub(super) op: u64,
    /// Whether frames that come too early are kept.
    pub(super) park: bool,
    /// What more may be taken on the link.
    pub(super) link: u64,
}

/// Positions above this are refused, so that sums of them can't overflow.
pub(super) const POSITION_MAX: u64 = u64::MAX >> 2;

impl Receiving {
    pub(super) fn start(&mut self, position: u64) {
        self.taken = Some(Point::at(position));
        self.held = position;
    }

    /// Whether everything that was taken is durable, and nothing is known to be missing.
    pub(super) fn is_level(&self) -> bool {
        self.taken == Some(Point::at(self.held)) && self.parked.is_empty()
    }

    /// Whether parts of an op were taken, and not all.
    pub(super) fn is_assembling(&self) -> bool {
        self.taken.is_some_and(|taken| taken.offset > 0)
    }

    /// Whether everything that the peer waits for is durable, and it was not told.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited > 0 && self.held >= self.awaited
    }

    /// The peer is told how far this is.
    pub(super) fn acknowledged(&mut self) {
        self.unacknowledged = 0;
        if self.is_awaited() {
            self.awaited = 0;
        }
    }

    pub(super) fn window(&self, bounds: u64) -> u64 {
        bounds.saturating_sub(self.undurable.total())
    }

    /// Notes what an author's number stands for. False if there are too many, or it was told otherwise before.
    pub(super) fn announce(&mut self, number: u32, author: ReplicaId, base: u64, authors_max: u32) -> bool {
        let full = self.authors.len() >= authors_max as usize;
        match self.authors.get(number) {
            Some(known) => *known == (author, base),
            None if full || base > POSITION_MAX => false,
            None => self.authors.insert(number, (author, base)).is_none(),
        }
    }

    /// Takes a frame of changes.
    pub(super) fn take(&mut self, changes: Changes, bounds: &Bounds) -> Result<Taken, Malformed> {
        let Some(taken) = self.taken else { return Ok(Taken::Early) };
        let (start, end) = range(&changes, bounds.begins)?;
        if end <= taken {
            return Ok(Taken::Duplicate);
        }
        let known = match &changes.content {
            Content::Live { author, .. } | Content::Part { author, .. } => self.authors.contains(*author),
            Content::Bulk { runs, .. } => runs.iter().all(|run| self.authors.contains(run.author)),
        };
        if !known && !bounds.park {
            return Err(Malformed::Order); // on a reliable link authors are announced before
        }
        if start > taken || !known {
            self.park(start, end, changes, bounds);
            return Ok(Taken::Early);
        }
        if let Content::Part { .. } = changes.content {
            return self.take_part(taken, start, end, changes, bounds);
        }
        let Some(ops) = resolve(changes.content, changes.absolute, |number| self.authors.get(number).copied())? else {
            return Ok(Taken::Early);
        };
        let cost: u64 = ops.iter().map(Op::cost).sum();
        if ops.iter().any(|op| op.body.wire_len() as u64 > bounds.op) {
            return Ok(Taken::TooLarge);
        }
        if !self.grants(cost, ops.len(), bounds) {
            return Ok(Taken::Excess);
        }
        Ok(self.advance(taken.position, end, ops, cost, bounds))
    }

    /// Whether so much may be taken: within the window, or one op alone when nothing else of the document waits.
    fn grants(&self, cost: u64, ops: usize, bounds: &Bounds) -> bool {
        let within = self.undurable.total() + cost <= bounds.window && cost <= bounds.link;
        within || ops <= 1 && self.undurable.total() == 0 && bounds.link > 0
    }

    fn advance(&mut self, from: u64, end: Point, ops: Vec<Op>, cost: u64, bounds: &Bounds) -> Taken {
        let to = end.position;
        self.taken = Some(end);
        self.assembly = None;
        self.undurable.begin(to, cost, bounds.window);
        self.unacknowledged += cost;
        Taken::Ops { from, to, ops, cost }
    }

    fn take_part(
        &mut self,
        taken: Point,
        start: Point,
        end: Point,
        changes: Changes,
        bounds: &Bounds,
    ) -> Result<Taken, Malformed> {
        let Content::Part { author, seq, offset: _, total, piece } = changes.content else {
            return Err(Malformed::Kind);
        };
        if u64::from(total) > bounds.op {
            return Ok(Taken::TooLarge);
        }
        if taken.offset == 0 && !self.grants(u64::from(total), 1, bounds) {
            return Ok(Taken::Excess);
        }
        let known = if start.position == taken.position { taken.offset - start.offset } else { 0 };
        let piece = piece.get(known as usize..).ok_or(Malformed::Order)?;
        let fresh = || Box::new(Assembly { author, seq, total, body: BytesMut::new() });
        let assembly = self.assembly.get_or_insert_with(fresh);
        if (assembly.author, assembly.seq, assembly.total) != (author, seq, total) {
            return Err(Malformed::Order);
        }
        assembly.body.extend_from_slice(piece);
        self.unacknowledged += piece.len() as u64;
        if end.offset > 0 {
            self.taken = Some(end);
            return Ok(Taken::Part);
        }
        if assembly.body.len() != total as usize {
            return Err(Malformed::Order);
        }
        let body = Body::Bytes(assembly.body.split().freeze());
        let live = Content::Live { author, seq, body };
        let ops = resolve(live, changes.absolute, |number| self.authors.get(number).copied())?.unwrap_or_default();
        let cost = ops.iter().map(Op::cost).sum();
        Ok(self.advance(taken.position, end, ops, cost, bounds))
    }

    fn park(&mut self, start: Point, end: Point, changes: Changes, bounds: &Bounds) {
        let bytes = cost_of(&changes.content);
        if bounds.park && self.parked_bytes + bytes <= bounds.window && !self.parked.contains_key(&start) {
            self.parked_bytes += bytes;
            self.parked.insert(start, Parked { end, changes, bytes });
        }
    }

    /// The next frame that was too early and now may not be. Those that have come otherwise meanwhile are forgotten.
    pub(super) fn unpark(&mut self) -> Option<Changes> {
        let taken = self.taken?;
        while let Some(parked) = self.parked.first_entry().filter(|parked| *parked.key() <= taken) {
            let parked = parked.remove();
            self.parked_bytes -= parked.bytes;
            if parked.end > taken {
                return Some(parked.changes);
            }
        }
        None
    }

    /// The range `[from, to)` of the peer's log holds nothing for me. False if something is missing before it.
    pub(super) fn skip(&mut self, from: u64, to: u64) -> bool {
        let Some(taken) = self.taken else { return false };
        if Point::at(from) > taken || to > POSITION_MAX {
            return false;
        }
        if Point::at(to) > taken {
            self.taken = Some(Point::at(to));
            self.assembly = None;
            self.settle();
        }
        true
    }

    /// Everything below `position` is durable.
    pub(super) fn persisted(&mut self, position: u64) -> u64 {
        self.held = self.held.max(position);
        let released = self.undurable.finish(self.held);
        self.unacknowledged += released;
        self.settle();
        released
    }

    /// What only skips needs no persisting.
    fn settle(&mut self) {
        if let Some(taken) = self.taken
            && self.undurable.is_empty()
        {
            self.held = self.held.max(taken.position);
        }
    }

    /// Missing ranges before frames that are parked, if those are many enough or old enough to say that what is
    /// missing is lost and not only late. At most one question a range and `wait`.
    pub(super) fn missing(&mut self, now: Instant, wait: Duration, patient: bool) -> Vec<(Point, Point)> {
        let Some(mut at) = self.taken else { return Vec::new() };
        self.forget_asked(at);
        let mut missing = Vec::new();
        let mut beyond = self.parked.len();
        for (from, parked) in &self.parked {
            let late = !patient || beyond >= REORDERED_FRAMES;
            let asked = self.asked.get(&at).is_some_and(|asked| now.since(*asked) < wait);
            if *from > at && late && !asked && missing.len() < MISSING_MAX {
                missing.push((at, *from));
            }
            at = at.max(parked.end);
            beyond -= 1;
        }
        for (from, _) in &missing {
            self.asked.insert(*from, now);
        }
        missing
    }

    /// Whether everything from `taken` on should be asked for: once a gap, however many frames show it.
    pub(super) fn ask_once(&mut self, taken: Point, now: Instant) -> bool {
        self.forget_asked(taken);
        self.asked.insert(taken, now).is_none()
    }

    /// What was asked for before `taken` has come.
    fn forget_asked(&mut self, taken: Point) {
        while self.asked.first_key_value().is_some_and(|(from, _)| *from < taken) {
            self.asked.pop_first();
        }
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }
}

/// A range is taken for lost when so many frames beyond it have arrived (TCP's three duplicate acknowledgements).
const REORDERED_FRAMES: usize = 3;
/// How many missing ranges of one document are asked for at once.
const MISSING_MAX: usize = 8;

/// The places where a frame begins and ends.
fn range(changes: &Changes, begins: u64) -> Result<(Point, Point), Malformed> {
    let from = if changes.absolute { changes.from } else { changes.from.saturating_add(begins) };
    let (start, end) = match &changes.content {
        Content::Live { .. } => (Point::at(from), Point::at(from.saturating_add(1))),
        Content::Bulk { span, .. } => (Point::at(from), Point::at(from.saturating_add(*span))),
        Content::Part { offset, total, piece, .. } => {
            let end = offset + piece.len() as u32;
            let after =
                if end == *total { Point::at(from.saturating_add(1)) } else { Point { position: from, offset: end } };
            (Point { position: from, offset: *offset }, after)
        }
    };
    if end.position > POSITION_MAX { Err(Malformed::Order) } else { Ok((start, end)) }
}

fn cost_of(content: &Content) -> u64 {
    const FRAME: u64 = 64;
    let bodies = |bodies: &[Body]| bodies.iter().map(|body| body.wire_len() as u64 + crate::op::OP_OVERHEAD).sum();
    FRAME
        + match content {
            Content::Live { body, .. } => bodies(core::slice::from_ref(body)),
            Content::Bulk { bodies: all, .. } => bodies(all),
            Content::Part { piece, .. } => piece.len() as u64,
        }
}
