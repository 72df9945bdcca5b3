//! The form in which a replica's inputs are written: their bodies beside them, and entries without what follows from
//! others.

use std::collections::BTreeMap;

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::Head;
use antiphon::op::{Body, Entry, Op, OpId, Origin, ReplicaId};
use antiphon::replica::{Input, Ticket};
use antiphon::storage::Reply;
use antiphon::wire::{Changes, Content, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// An input without its bodies.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Written {
    /// As it is; but appends have no bodies, and frames end before theirs.
    Input(Input),
    /// The storage's answer to a read.
    Entries {
        /// The question's.
        ticket: Ticket,
        /// What it read.
        entries: Strands,
    },
}

/// Entries without their bodies, and without what follows from others.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Strands {
    /// The authors of the entries, each once or more.
    strands: Vec<Strand>,
    /// The entries in order: the number of a strand, and how many are its next.
    runs: Vec<(u32, u64)>,
}

/// Entries of one author whose seqs and chains follow from those of the first.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Strand {
    author: ReplicaId,
    origin: Option<Origin>,
    seq: u64,
    chain: Chain,
    /// It is one blank.
    blank: Option<BodyHash>,
}

/// The longest frame that is taken apart into its bodies.
const SPLIT_BYTES_MAX: usize = 1 << 20;
/// The shortest: in a shorter one, no body is worth it.
const SPLIT_BYTES_MIN: usize = 40;

/// An input, and beside it its bodies.
pub(crate) fn take_apart(mut input: Input) -> (Written, Vec<Bytes>) {
    let bodies = match &mut input {
        Input::Append { bodies, .. } => std::mem::take(bodies),
        Input::Received { frame, .. } => split_frame(frame),
        _ => Vec::new(),
    };
    (Written::Input(input), bodies)
}

/// Entries, and beside them their bodies; or none of what these say, but how many bytes that is.
pub(crate) fn take_entries(entries: &[Entry], left_out: Option<&mut u64>) -> (Strands, Vec<Bytes>) {
    let redacted = left_out.is_some();
    let (mut strands, mut runs, mut bodies): (Vec<Strand>, Vec<(u32, u64)>, Vec<Bytes>) = Default::default();
    let mut bytes = 0;
    // Where each author is: the strand, and its last head there.
    let mut authors: BTreeMap<(ReplicaId, Option<Origin>), (u32, Head)> = BTreeMap::new();
    for Entry { op: Op { id, body }, chain, origin } in entries {
        let head = Head { seq: id.seq, chain: *chain };
        let known = authors.get_mut(&(id.author, *origin));
        let blank = match body {
            Body::Bytes(body) => {
                bytes += body.len() as u64;
                bodies.push(if redacted { Bytes::new() } else { body.clone() });
                None
            }
            Body::Blank(hash) => Some(if redacted { BodyHash::default() } else { *hash }),
        };
        // The chains of a redacted trace mean nothing: they would tell bodies that can be guessed.
        let follows = |last: &Head| last.seq + 1 == id.seq && (redacted || last.then(body.hash()) == head);
        match known {
            Some((strand, last)) if blank.is_none() && follows(last) => {
                *last = head;
                match runs.last_mut() {
                    Some((run, count)) if run == strand => *count += 1,
                    _ => runs.push((*strand, 1)),
                }
            }
            _ => {
                let number = strands.len() as u32; // a read has less than 2^32 entries
                let chain = if redacted { Chain::EMPTY } else { *chain };
                strands.push(Strand { author: id.author, origin: *origin, seq: id.seq, chain, blank });
                runs.push((number, 1));
                if blank.is_none() {
                    authors.insert((id.author, *origin), (number, head));
                }
            }
        }
    }
    if let Some(left_out) = left_out {
        *left_out += bytes;
    }
    (Strands { strands, runs }, bodies)
}

/// The input of which these are the parts; `None` if they are those of none.
pub(crate) fn put_together(written: Written, bodies: Vec<Bytes>) -> Option<Input> {
    match written {
        Written::Input(Input::Append { document, .. }) => Some(Input::Append { document, bodies }),
        Written::Input(Input::Received { link, frame }) => {
            Some(Input::Received { link, frame: join_frame(frame, &bodies)? })
        }
        Written::Input(input) => bodies.is_empty().then_some(input),
        Written::Entries { ticket, entries } => {
            Some(Input::Storage { ticket, reply: Ok(Reply::Entries(put_entries_together(entries, bodies)?)) })
        }
    }
}

/// The entries of which these are the parts; `None` if they are those of none.
pub(crate) fn put_entries_together(Strands { strands, runs }: Strands, bodies: Vec<Bytes>) -> Option<Vec<Entry>> {
    let mut bodies = bodies.into_iter();
    let mut heads: Vec<Option<Head>> = vec![None; strands.len()];
    let mut entries = Vec::with_capacity(bodies.len());
    for (number, count) in runs {
        let strand = strands.get(number as usize)?;
        let last = &mut heads[number as usize];
        for _ in 0..count {
            let body = match (strand.blank, &last) {
                (Some(hash), None) => Body::Blank(hash),
                (Some(_), Some(_)) => return None,
                (None, _) => Body::Bytes(bodies.next()?),
            };
            let head = match last {
                None => Head { seq: strand.seq, chain: strand.chain },
                Some(last) if last.seq == u64::MAX => return None,
                Some(last) => last.then(body.hash()),
            };
            *last = Some(head);
            let op = Op { id: OpId { author: strand.author, seq: head.seq }, body };
            entries.push(Entry { op, chain: head.chain, origin: strand.origin });
        }
    }
    bodies.next().is_none().then_some(entries)
}

/// Takes the bodies from the end of a frame.
pub(crate) fn split_frame(frame: &mut Bytes) -> Vec<Bytes> {
    let bodies = bodies_at_end(frame);
    frame.truncate(frame.len() - bodies.iter().map(Bytes::len).sum::<usize>());
    bodies
}

/// The frame that ends with these bodies; `None` if it would have been too long to be split.
pub(crate) fn join_frame(frame: Bytes, bodies: &[Bytes]) -> Option<Bytes> {
    if bodies.is_empty() {
        return Some(frame);
    }
    let bytes = bodies.iter().map(Bytes::len).fold(frame.len(), usize::saturating_add);
    if bytes > SPLIT_BYTES_MAX {
        return None; // one body can be named often
    }
    let mut whole = Vec::with_capacity(bytes);
    whole.extend_from_slice(&frame);
    bodies.iter().for_each(|body| whole.extend_from_slice(body));
    Some(whole.into())
}

/// The bodies that a frame ends with, one after the other.
fn bodies_at_end(frame: &Bytes) -> Vec<Bytes> {
    const CHANGES: std::ops::RangeInclusive<u8> = 0x10..=0x12;
    let splits = (SPLIT_BYTES_MIN..=SPLIT_BYTES_MAX).contains(&frame.len()) && CHANGES.contains(&(frame[0] & 0x1f));
    let Some(Ok(Message::Changes(Changes { content, .. }))) = splits.then(|| Message::decode(frame)) else {
        return Vec::new();
    };
    match content {
        Content::Live { body: Body::Bytes(body), .. } => vec![body],
        Content::Part { piece, .. } => vec![piece],
        Content::Bulk { bodies, .. } if bodies.iter().all(|body| body.bytes().is_some()) => bodies
            .into_iter()
            .filter_map(|body| if let Body::Bytes(bytes) = body { Some(bytes) } else { None })
            .collect(),
        Content::Live { .. } | Content::Bulk { .. } => Vec::new(),
    }
}

/// The frame with empty bodies; of one that can't be read, its kind.
pub(crate) fn redacted_frame(frame: Bytes, left_out: &mut u64) -> Bytes {
    let mut empty = |bytes: &mut Bytes| *left_out += std::mem::take(bytes).len() as u64;
    let message = match Message::decode(&frame) {
        Ok(Message::Changes(mut changes)) => {
            match &mut changes.content {
                Content::Live { body, .. } => empty_body(body, &mut empty),
                Content::Bulk { bodies, .. } => bodies.iter_mut().for_each(|body| empty_body(body, &mut empty)),
                Content::Part { piece, .. } => {
                    empty(piece);
                    *piece = Bytes::from_static(&[0]); // a piece is never empty
                }
            }
            Message::Changes(changes)
        }
        Ok(Message::Snapshot(mut part)) => {
            empty(&mut part.bytes);
            part.id.hash = [0; 16];
            Message::Snapshot(part)
        }
        Ok(Message::Presence(mut presence)) => {
            empty(&mut presence.body);
            Message::Presence(presence)
        }
        Ok(Message::Unknown(kind, mut body)) => {
            empty(&mut body);
            Message::Unknown(kind, body)
        }
        Ok(Message::Reliable(number, inner)) if inner.first() != frame.first() => {
            Message::Reliable(number, redacted_frame(inner, left_out))
        }
        Ok(Message::Reliable(number, mut inner)) => {
            empty(&mut inner); // nobody sends one in another: it is not followed
            Message::Reliable(number, inner)
        }
        Ok(_) => return frame,
        Err(_) => {
            *left_out += frame.len().saturating_sub(1) as u64;
            return frame.slice(..frame.len().min(1));
        }
    };
    message.encode()
}

fn empty_body(body: &mut Body, empty: &mut impl FnMut(&mut Bytes)) {
    match body {
        Body::Bytes(bytes) => empty(bytes),
        Body::Blank(hash) => hash.0 = 0,
    }
}
