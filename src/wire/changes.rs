//! Changes: ranges of a log on the wire. Written and read by hand, so that bodies are sliced and never copied twice.
//!
//! All three kinds start `kind and flags | document | position`. Positions count from where the timeline begins and
//! seqs from the author's base, unless the flag [`ABSOLUTE`] says otherwise.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::varint::{put_varint, take_bytes, take_u32, take_u64_le, take_varint, varint_len};
use super::{Malformed, Point};
use crate::digest::BodyHash;
use crate::log::Author;
use crate::op::{Body, Op, OpId, Origin, ReplicaId};

/// Flag: positions and seqs are written as they are.
pub const ABSOLUTE: u8 = 0x20;
/// Flag of Live: the body is a blank.
pub const BLANK: u8 = 0x80;
/// Kind of one op that ends with the frame.
pub const LIVE: u8 = 0x10;
/// Kind of a range of ops in runs of one author.
pub const BULK: u8 = 0x11;
/// Kind of a piece of one op that is too large for a frame.
pub const PART: u8 = 0x12;

/// A frame of ops, as it came.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Changes {
    /// The sender's number of the document.
    pub document: u32,
    /// Whether positions and seqs are absolute.
    pub absolute: bool,
    /// The first position.
    pub from: u64,
    /// What stands there.
    pub content: Content,
}

/// The three kinds of Changes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Content {
    /// One op.
    Live {
        /// The author's number.
        author: u32,
        /// Its seq.
        seq: u64,
        /// Its body.
        body: Body,
    },
    /// Any number of ops, none for a range in which the receiver needs nothing.
    Bulk {
        /// How many positions the range has; those not in a run hold what the receiver does not need.
        span: u64,
        /// The ops, in runs of one author.
        runs: Vec<Run>,
        /// The bodies of all runs.
        bodies: Vec<Body>,
    },
    /// A piece of one op.
    Part {
        /// The author's number.
        author: u32,
        /// Its seq.
        seq: u64,
        /// Where the piece belongs in the body.
        offset: u32,
        /// Bytes of the whole body.
        total: u32,
        /// The piece.
        piece: Bytes,
    },
}

/// Ops of one author that follow each other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Run {
    /// The author's number.
    pub author: u32,
    /// The seq of the first one.
    pub seq: u64,
    /// How many.
    pub count: u64,
    /// Whether they are blanks.
    pub blank: bool,
}

impl Changes {
    /// Reads what follows the kind byte `kind`.
    pub fn decode(kind: u8, mut bytes: Bytes) -> Result<Self, Malformed> {
        let bytes = &mut bytes;
        let document = take_u32(bytes)?;
        let from = take_varint(bytes)?;
        let content = match kind & !(ABSOLUTE | BLANK) {
            LIVE => {
                let (author, seq) = (take_u32(bytes)?, take_varint(bytes)?);
                let body = if kind & BLANK != 0 { blank(bytes)? } else { Body::Bytes(core::mem::take(bytes)) };
                Content::Live { author, seq, body }
            }
            BULK if kind & BLANK == 0 => Self::decode_bulk(bytes)?,
            PART if kind & BLANK == 0 => {
                let (author, seq) = (take_u32(bytes)?, take_varint(bytes)?);
                let (offset, total) = (take_u32(bytes)?, take_u32(bytes)?);
                let end = u64::from(offset) + bytes.len() as u64;
                if bytes.is_empty() || end > u64::from(total) {
                    return Err(Malformed::Order);
                }
                Content::Part { author, seq, offset, total, piece: core::mem::take(bytes) }
            }
            _ => return Err(Malformed::Kind),
        };
        if !bytes.is_empty() {
            return Err(Malformed::Trailing);
        }
        Ok(Self { document, absolute: kind & ABSOLUTE != 0, from, content })
    }

    fn decode_bulk(bytes: &mut Bytes) -> Result<Content, Malformed> {
        let span = take_varint(bytes)?;
        let run_count = take_varint(bytes)?;
        // Each run takes three bytes at least and each op one: what follows bounds what is allocated.
        if run_count > bytes.len() as u64 / 3 {
            return Err(Malformed::Truncated);
        }
        let mut runs = Vec::with_capacity(run_count as usize);
        let mut ops = 0u64;
        for _ in 0..run_count {
            let (author, seq, count) = (take_u32(bytes)?, take_varint(bytes)?, take_varint(bytes)?);
            let run = Run { author, seq, count: count >> 1, blank: count & 1 == 1 };
            if run.count == 0 || run.seq.checked_add(run.count).is_none() {
                return Err(Malformed::Order);
            }
            ops = ops.saturating_add(run.count);
            runs.push(run);
        }
        if ops > bytes.len() as u64 {
            return Err(Malformed::Truncated);
        }
        if ops > span {
            return Err(Malformed::Order);
        }
        let mut lengths = Vec::with_capacity(ops as usize);
        for run in &runs {
            for _ in 0..run.count {
                lengths.push(if run.blank { None } else { Some(take_varint(bytes)?) });
            }
        }
        let mut bodies = Vec::with_capacity(ops as usize);
        for length in lengths {
            bodies.push(match length {
                Some(length) => Body::Bytes(take_bytes(bytes, length)?),
                None => blank(bytes)?,
            });
        }
        Ok(Content::Bulk { span, runs, bodies })
    }

    /// Appends the whole frame, kind byte included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = if self.absolute { ABSOLUTE } else { 0 };
        let start = |out: &mut Vec<u8>, kind: u8| {
            out.push(kind | flags);
            put_varint(out, u64::from(self.document));
            put_varint(out, self.from);
        };
        match &self.content {
            Content::Live { author, seq, body } => {
                start(out, if body.bytes().is_none() { LIVE | BLANK } else { LIVE });
                put_varint(out, u64::from(*author));
                put_varint(out, *seq);
                put_body(out, body);
            }
            Content::Bulk { span, runs, bodies } => {
                start(out, BULK);
                put_varint(out, *span);
                put_varint(out, runs.len() as u64);
                for run in runs {
                    put_varint(out, u64::from(run.author));
                    put_varint(out, run.seq);
                    put_varint(out, run.count << 1 | u64::from(run.blank));
                }
                bodies.iter().filter_map(Body::bytes).for_each(|body| put_varint(out, body.len() as u64));
                bodies.iter().for_each(|body| put_body(out, body));
            }
            Content::Part { author, seq, offset, total, piece } => {
                start(out, PART);
                put_varint(out, u64::from(*author));
                put_varint(out, *seq);
                put_varint(out, u64::from(*offset));
                put_varint(out, u64::from(*total));
                out.extend_from_slice(piece);
            }
        }
    }
}

fn blank(bytes: &mut Bytes) -> Result<Body, Malformed> {
    Ok(Body::Blank(BodyHash(take_u64_le(bytes)?)))
}

fn put_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::Bytes(bytes) => out.extend_from_slice(bytes),
        Body::Blank(hash) => out.extend_from_slice(&hash.0.to_le_bytes()),
    }
}

/// What a range of a log becomes on the wire. The same bytes serve every session that has the document open.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Packed {
    /// The frame, without what a datagram adds.
    pub frame: Bytes,
    /// The first position.
    pub from: u64,
    /// The position after the last.
    pub to: u64,
    /// What the ops cost in credit.
    pub cost: u64,
    /// The authors that must be announced before.
    pub authors: Vec<Author>,
    /// Where all of the ops came from, if it is the same.
    pub origin: Option<Origin>,
}

/// Packs as many of `ops` as fit `max_bytes`, and says how many: at least one, unless the first alone is too large.
///
/// `author` knows the authors of the ops; `from` is the position where the frame begins, and `to` says where it ends if
/// so many ops go in.
pub fn pack<'a>(
    document: u32,
    begins: u64,
    from: u64,
    ops: impl Iterator<Item = &'a Op> + Clone,
    author: impl FnMut(ReplicaId) -> Author,
    max_bytes: usize,
    to: impl FnOnce(usize) -> u64,
) -> Option<(Packed, usize)> {
    // Kind, document, position, span and the number of runs, at their longest.
    let bytes = 1 + varint_len(u64::from(document)) + 3 * varint_len(u64::MAX);
    let draft = Draft::of(ops.clone(), author, bytes, max_bytes)?;
    let Draft { first, ref rest, count, bytes, cost, .. } = draft;
    let to = to(count);
    let bodies = ops.take(count).map(|op| &op.body);
    let absolute = draft.absolute || from < begins;
    let start = |out: &mut Vec<u8>, kind: u8| {
        out.push(kind | if absolute { ABSOLUTE } else { 0 });
        put_varint(out, u64::from(document));
        put_varint(out, if absolute { from } else { from - begins });
    };
    let put_run = |out: &mut Vec<u8>, (run, author): &(Run, Author)| {
        put_varint(out, u64::from(run.author));
        put_varint(out, if absolute { run.seq } else { run.seq - author.base });
    };
    let mut out = Vec::with_capacity(bytes);
    if (count, to - from) == (1, 1) {
        start(&mut out, if first.0.blank { LIVE | BLANK } else { LIVE });
        put_run(&mut out, &first);
    } else {
        start(&mut out, BULK);
        put_varint(&mut out, to - from);
        put_varint(&mut out, 1 + rest.len() as u64);
        for run in core::iter::once(&first).chain(rest) {
            put_run(&mut out, run);
            put_varint(&mut out, run.0.count << 1 | u64::from(run.0.blank));
        }
        bodies.clone().filter_map(Body::bytes).for_each(|body| put_varint(&mut out, body.len() as u64));
    }
    bodies.for_each(|body| put_body(&mut out, body));
    let mut authors = Vec::from([first.1]);
    if !rest.is_empty() {
        authors.extend(rest.iter().map(|(_, author)| *author));
        authors.sort_unstable_by_key(|author| author.number);
        authors.dedup_by_key(|author| author.number);
    }
    Some((Packed { frame: out.into(), from, to, cost, authors, origin: None }, count))
}

/// Whether a frame is one of changes.
pub fn is_changes(frame: &[u8]) -> bool {
    frame.first().is_some_and(|kind| (LIVE..=PART).contains(&(kind & !(ABSOLUTE | BLANK))))
}

/// [`pack`] reckons with at most so many bytes more than it needs.
pub const PACK_SLACK: usize = 48;

/// What goes into a frame: ops, in runs of one author. Most frames have one run.
struct Draft {
    first: (Run, Author),
    rest: Vec<(Run, Author)>,
    count: usize,
    /// Bytes of the frame at most.
    bytes: usize,
    cost: u64,
    /// Whether an op has a seq from before its author's base.
    absolute: bool,
}

impl Draft {
    /// As many ops as fit, beside what takes `bytes` otherwise.
    fn of<'a>(
        mut ops: impl Iterator<Item = &'a Op>,
        mut author: impl FnMut(ReplicaId) -> Author,
        bytes: usize,
        max_bytes: usize,
    ) -> Option<Self> {
        let body_bytes = |op: &Op| op.body.bytes().map_or(0, |body| varint_len(body.len() as u64)) + op.body.wire_len();
        let run_bytes = |op: &Op, author: &Author| varint_len(u64::from(author.number)) + varint_len(op.id.seq) + 5;
        let run_of = |op: &Op, author: Author| {
            (Run { author: author.number, seq: op.id.seq, count: 1, blank: op.body.bytes().is_none() }, author)
        };
        let op = ops.next()?;
        let first = run_of(op, author(op.id.author));
        let bytes = bytes.saturating_add(run_bytes(op, &first.1) + body_bytes(op));
        let absolute = op.id.seq < first.1.base;
        let mut draft = Self { first, rest: Vec::new(), count: 1, bytes, cost: op.cost(), absolute };
        if bytes > max_bytes {
            return None;
        }
        for op in ops {
            let (run, of) = draft.rest.last_mut().unwrap_or(&mut draft.first);
            let blank = op.body.bytes().is_none();
            let goes_on = of.id == op.id.author && run.seq + run.count == op.id.seq && run.blank == blank;
            let new = (!goes_on).then(|| run_of(op, author(op.id.author)));
            let run_bytes = new.as_ref().map_or(0, |(_, author)| run_bytes(op, author));
            let bytes = draft.bytes.saturating_add(run_bytes + body_bytes(op));
            if bytes > max_bytes {
                break;
            }
            match new {
                None => run.count += 1,
                Some(new) => {
                    draft.absolute |= op.id.seq < new.1.base;
                    draft.rest.push(new);
                }
            }
            (draft.count, draft.bytes, draft.cost) = (draft.count + 1, bytes, draft.cost + op.cost());
        }
        Some(draft)
    }
}

/// One piece of an op that is too large for a frame: as much from `offset` on as fits `max_bytes`, and the place after.
pub fn pack_part(
    document: u32,
    begins: u64,
    from: u64,
    op: &Op,
    author: Author,
    offset: u32,
    max_bytes: usize,
) -> Option<(Packed, Point)> {
    let body = op.body.bytes()?;
    let absolute = from < begins || op.id.seq < author.base;
    let head = 1 + 3 * varint_len(u64::from(u32::MAX)) + 2 * varint_len(u64::MAX) + varint_len(u64::from(document));
    let start = usize::try_from(offset).ok().filter(|start| *start < body.len())?;
    let end = body.len().min(start + max_bytes.saturating_sub(head).max(1));
    let changes = Changes {
        document,
        absolute,
        from: if absolute { from } else { from - begins },
        content: Content::Part {
            author: author.number,
            seq: if absolute { op.id.seq } else { op.id.seq - author.base },
            offset,
            total: u32::try_from(body.len()).ok()?,
            piece: body.slice(start..end),
        },
    };
    let mut out = Vec::with_capacity(head + end - start);
    changes.encode(&mut out);
    let (to, place) = match end == body.len() {
        true => (from + 1, Point::at(from + 1)),
        false => (from, Point { position: from, offset: u32::try_from(end).ok()? }),
    };
    let packed = Packed { frame: out.into(), from, to, cost: op.cost(), authors: [author].into(), origin: None };
    Some((packed, place))
}

/// The ops of Live or Bulk content; `None` if an author's number is not known.
///
/// # Errors
/// If seqs go beyond 64 bits or below 1.
pub fn resolve(
    content: Content,
    absolute: bool,
    author: impl Fn(u32) -> Option<(ReplicaId, u64)>,
) -> Result<Option<Vec<Op>>, Malformed> {
    let seq_of = |seq: u64, base: u64| {
        let seq = if absolute { Some(seq) } else { seq.checked_add(base) };
        seq.filter(|seq| (1..=u64::MAX >> 1).contains(seq)).ok_or(Malformed::Order)
    };
    match content {
        Content::Live { author: number, seq, body } => {
            let Some((author, base)) = author(number) else { return Ok(None) };
            Ok(Some([Op { id: OpId { author, seq: seq_of(seq, base)? }, body }].into()))
        }
        Content::Bulk { runs, bodies, .. } => {
            let mut ops = Vec::with_capacity(bodies.len());
            let mut bodies = bodies.into_iter();
            for run in runs {
                let Some((author, base)) = author(run.author) else { return Ok(None) };
                let first = seq_of(run.seq, base)?;
                seq_of(run.seq + (run.count - 1), base)?;
                let run_bodies = bodies.by_ref().take(run.count as usize);
                ops.extend(run_bodies.zip(first..).map(|(body, seq)| Op { id: OpId { author, seq }, body }));
            }
            Ok(Some(ops))
        }
        Content::Part { .. } => Ok(None),
    }
}
