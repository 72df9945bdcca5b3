//! How a replica is recorded: what it is made of, which of its inputs have bodies, and where tokens are.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use antiphon::Replica;
use antiphon::digest::{Canonical, Chain};
use antiphon::op::{Body, Entry, Op};
use antiphon::replica::{Config, Event, Input, LinkId, Output, Question};
use antiphon::storage::{Batch, Identity, Reply, Request, Transaction};
use antiphon::wire::{Changes, Content, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::recorder::Recordable;
use crate::tokens::{From, Link, starred};

/// What a replica is made of: the arguments of [`Replica::new`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Setup {
    /// How it behaves.
    pub config: Config,
    /// Who it is.
    pub identity: Identity,
    /// What its randomness begins with.
    pub entropy: [u8; 32],
}

/// A frame that a replica sent, with empty bodies.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sent {
    /// Where.
    pub link: LinkId,
    /// The frame.
    pub frame: Bytes,
}

impl std::convert::From<Sent> for Output {
    fn from(Sent { link, frame }: Sent) -> Self {
        Self::Transmit { link, frame }
    }
}

/// The links of a replica, and the Hellos on them.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    links: BTreeMap<LinkId, Link>,
    /// The frame that was sent last, and its hash: most are sent to many.
    sent: (Bytes, u64),
    /// The batch that was written last, and its hash: it is told of when it is.
    written: Option<(Arc<Batch>, u64)>,
}

impl Tokens {
    /// The input without secrets, and a frame after what `then` does with it.
    fn censored(&mut self, input: &Input, then: impl FnOnce(Bytes) -> Bytes) -> Input {
        match input {
            Input::Connected { link, transport, token, upstream } => {
                self.links.entry(*link).or_insert_with(|| Link::new(*transport));
                let token = starred(token.as_ref());
                Input::Connected { link: *link, transport: *transport, token, upstream: *upstream }
            }
            Input::Received { link, frame } => {
                let frame = match self.links.get_mut(link) {
                    Some(state) => state.frame(From::Peer, frame, then),
                    None => Bytes::new(), // of no link: the replica does not look at it
                };
                Input::Received { link: *link, frame }
            }
            Input::Disconnected { link } => {
                self.links.remove(link);
                input.clone()
            }
            _ => input.clone(),
        }
    }
}

impl Tokens {
    /// The hash of a frame that is sent, without secrets.
    fn hash_sent(&mut self, link: LinkId, frame: &Bytes) -> u64 {
        let (last, hash) = &self.sent;
        if (last.as_ptr(), last.len()) == (frame.as_ptr(), frame.len()) {
            return *hash; // it is held, so there is no other in its place
        }
        // Nothing else that we send has a secret in it: Hello and Welcome are the first two kinds.
        if frame.first().is_some_and(|kind| *kind <= 2)
            && let Some(state) = self.links.get_mut(&link)
        {
            return xxh3_64(&state.frame(From::Us, frame, |bare| bare));
        }
        self.sent = (frame.clone(), xxh3_64(frame));
        self.sent.1
    }

    fn hash_batch(&mut self, batch: &Arc<Batch>) -> u64 {
        if let Some((last, hash)) = &self.written
            && Arc::ptr_eq(last, batch)
        {
            return *hash;
        }
        let Batch { document, position, entries, cursors, timeline, salvaged } = &**batch;
        let mut digest = Canonical::default();
        (document, position, entries.len(), cursors, timeline, salvaged).hash(&mut digest);
        for Entry { op: Op { id, body }, chain, origin } in entries {
            // In one piece: there are many.
            let (kind, body) = match body {
                Body::Bytes(bytes) => (0, xxh3_64(bytes)),
                Body::Blank(hash) => (1, hash.0),
            };
            let mut words = [0; 56];
            words[..16].copy_from_slice(&id.author.0);
            let origin = origin.map_or(0, |timeline| timeline.0.get());
            for (word, number) in words[16..].chunks_exact_mut(8).zip([id.seq, kind, body, chain.0, origin]) {
                word.copy_from_slice(&number.to_le_bytes());
            }
            digest.write(&words);
        }
        let hash = digest.finish();
        self.written = Some((batch.clone(), hash));
        hash
    }
}

/// The longest frame that is taken apart into its bodies.
const SPLIT_BYTES_MAX: usize = 1 << 20;
/// The shortest: in a shorter one, no body is worth it.
const SPLIT_BYTES_MIN: usize = 40;

impl Recordable for Replica {
    const NAME: &'static str = "replica";
    type Setup = Setup;
    type Kept = Sent;
    type Censor = Tokens;

    fn make(Setup { config, identity, entropy }: Setup) -> Self {
        Self::new(config, identity, entropy)
    }

    fn censored(tokens: &mut Tokens, input: &Input) -> Input {
        tokens.censored(input, |frame| frame)
    }

    fn redacted(tokens: &mut Tokens, input: &Input, left_out: &mut u64) -> Input {
        let mut of_frame = 0;
        let mut redacted = tokens.censored(input, |frame| redacted_frame(frame, &mut of_frame));
        *left_out += of_frame;
        let mut empty = |bytes: &mut Bytes| *left_out += std::mem::take(bytes).len() as u64;
        match &mut redacted {
            Input::Append { bodies, .. } => bodies.iter_mut().for_each(empty),
            Input::Storage { reply: Ok(Reply::Entries(entries)), .. } => {
                for entry in entries {
                    // The chain tells a body that can be guessed.
                    entry.chain = Chain::EMPTY;
                    empty_body(&mut entry.op.body, &mut empty);
                }
            }
            _ => {}
        }
        redacted
    }

    fn digest(tokens: &mut Tokens, output: &Output, digest: &mut Canonical) {
        match output {
            Output::Transmit { link, frame } => {
                digest.write_u64(link.0);
                digest.write_u64(tokens.hash_sent(*link, frame));
            }
            Output::Ask { ticket, question: Question::Peer { link, replica, token } } => {
                (ticket, link, replica, starred(token.as_ref())).hash(digest);
            }
            Output::Storage { ticket, request: Request::Write(Transaction::Append(batch)) } => {
                (ticket, tokens.hash_batch(batch)).hash(digest);
            }
            Output::Event(Event::Received { batch }) => digest.write_u64(tokens.hash_batch(batch)),
            _ => output.hash(digest),
        }
    }

    fn kept(tokens: &mut Tokens, output: &Output) -> Option<Sent> {
        let Output::Transmit { link, frame } = output else { return None };
        let frame = tokens.links.get_mut(link)?.frame(From::Us, frame, |bare| redacted_frame(bare, &mut 0));
        Some(Sent { link: *link, frame })
    }

    fn take_bodies(input: &mut Input) -> Vec<Bytes> {
        match input {
            Input::Append { bodies, .. } => bodies.iter_mut().map(std::mem::take).collect(),
            Input::Storage { reply: Ok(Reply::Entries(entries)), .. } => entries
                .iter_mut()
                .filter_map(|entry| match &mut entry.op.body {
                    Body::Bytes(bytes) => Some(std::mem::take(bytes)),
                    Body::Blank(_) => None,
                })
                .collect(),
            Input::Received { frame, .. } => {
                let bodies = bodies_at_end(frame);
                frame.truncate(frame.len() - bodies.iter().map(Bytes::len).sum::<usize>());
                bodies
            }
            _ => Vec::new(),
        }
    }

    fn put_bodies(input: &mut Input, bodies: Vec<Bytes>) -> bool {
        let count = bodies.len();
        let mut bodies = bodies.into_iter();
        let mut places = 0;
        let mut put = |place: &mut Bytes| {
            bodies.next().into_iter().for_each(|body| *place = body);
            places += 1;
        };
        match input {
            Input::Append { bodies, .. } => bodies.iter_mut().for_each(put),
            Input::Storage { reply: Ok(Reply::Entries(entries)), .. } => {
                for entry in entries {
                    match &mut entry.op.body {
                        Body::Bytes(bytes) => put(bytes),
                        Body::Blank(_) => {}
                    }
                }
            }
            Input::Received { .. } if count == 0 => {}
            Input::Received { frame, .. } => {
                let bytes = bodies.clone().map(|body| body.len()).fold(frame.len(), usize::saturating_add);
                if bytes > SPLIT_BYTES_MAX {
                    return false; // one body can be named often
                }
                let mut whole = Vec::with_capacity(bytes);
                whole.extend_from_slice(frame);
                bodies.for_each(|body| whole.extend_from_slice(&body));
                *frame = whole.into();
                places = count;
            }
            _ => {}
        }
        places == count
    }
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
        Content::Bulk { bodies, .. } if bodies.iter().all(|body| body.bytes().is_some()) => {
            bodies.into_iter().filter_map(|body| body.bytes().cloned()).collect()
        }
        Content::Live { .. } | Content::Bulk { .. } => Vec::new(),
    }
}

/// The frame with empty bodies; of one that can't be read, its kind.
fn redacted_frame(frame: Bytes, left_out: &mut u64) -> Bytes {
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
        Ok(Message::Reliable(number, inner)) => Message::Reliable(number, redacted_frame(inner, left_out)),
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
