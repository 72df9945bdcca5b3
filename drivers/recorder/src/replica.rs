//! How a replica is recorded: what it is made of, which of its inputs have bodies, and where tokens are.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use antiphon::Replica;
use antiphon::digest::Canonical;
use antiphon::op::{Body, Entry, Op};
use antiphon::replica::{Config, Event, Input, LinkId, Output, Question};
use antiphon::storage::{Batch, Identity, Reply, Request, Transaction};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::line::Line;
use crate::recorder::Recordable;
use crate::tokens::{From, Link, may_have_token, starred};
use crate::told::Told;
use crate::trace::Run;
use crate::transcript::Transcript;
use crate::written::{Written, put_together, redacted_frame, take_apart, take_entries};

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

/// Frames that are held, so that they are hashed once, and the shortest for which that is worth it.
const SENT_MAX: usize = 16;
const SENT_BYTES_MIN: usize = 512;

/// The links of a replica, and the Hellos on them.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    links: BTreeMap<LinkId, Link>,
    /// The long frames that were sent last, and their hashes, the newest first: most are sent to many, and each link is
    /// sent several in a row.
    sent: VecDeque<(Bytes, u64)>,
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

    /// The hash of a frame that is sent, without secrets.
    fn hash_sent(&mut self, link: LinkId, frame: &Bytes) -> u64 {
        if may_have_token(frame)
            && let Some(state) = self.links.get_mut(&link)
        {
            return xxh3_64(&state.frame(From::Us, frame, |bare| bare));
        }
        if frame.len() < SENT_BYTES_MIN {
            return xxh3_64(frame);
        }
        let same = |(sent, _): &&(Bytes, u64)| (sent.as_ptr(), sent.len()) == (frame.as_ptr(), frame.len());
        if let Some((_, hash)) = self.sent.iter().find(same) {
            return *hash; // it is held, so there is no other in its place
        }
        let hash = xxh3_64(frame);
        self.sent.truncate(SENT_MAX - 1);
        self.sent.push_front((frame.clone(), hash));
        hash
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
            let origin = origin.map_or(0, |origin| origin.0.get());
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

impl Recordable for Replica {
    const NAME: &'static str = "replica";
    type Setup = Setup;
    type Written = Written;
    type Kept = Sent;
    type Censor = Tokens;

    fn make(Setup { config, identity, entropy }: Setup) -> Self {
        Self::new(config, identity, entropy)
    }

    fn write(tokens: &mut Tokens, input: &Input, left_out: Option<&mut u64>) -> (Written, Vec<Bytes>) {
        match (input, left_out) {
            (Input::Storage { ticket, reply: Ok(Reply::Entries(entries)) }, left_out) => {
                let (entries, bodies) = take_entries(entries, left_out);
                (Written::Entries { ticket: *ticket, entries }, bodies)
            }
            (_, None) => take_apart(tokens.censored(input, |frame| frame)),
            (Input::Append { document, bodies }, Some(left_out)) => {
                *left_out += bodies.iter().map(|body| body.len() as u64).sum::<u64>();
                let input = Input::Append { document: document.clone(), bodies: Vec::new() };
                (Written::Input(input), vec![Bytes::new(); bodies.len()])
            }
            (Input::Compact { document, position, body }, Some(left_out)) => {
                *left_out += body.len() as u64;
                let (document, position, body) = (document.clone(), *position, Bytes::new());
                (Written::Input(Input::Compact { document, position, body }), Vec::new())
            }
            (Input::Storage { ticket, reply: Ok(Reply::Snapshot(bytes)) }, Some(left_out)) => {
                *left_out += bytes.len() as u64;
                let reply = Ok(Reply::Snapshot(Bytes::new()));
                (Written::Input(Input::Storage { ticket: *ticket, reply }), Vec::new())
            }
            (_, Some(left_out)) => {
                let redacted = tokens.censored(input, |frame| redacted_frame(frame, left_out));
                (Written::Input(redacted), Vec::new())
            }
        }
    }

    fn read(written: Written, bodies: Vec<Bytes>) -> Option<Input> {
        put_together(written, bodies)
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
}

impl Told for Replica {
    type Transcript = Transcript;

    fn transcript(_: &Run) -> Transcript {
        Transcript::new()
    }

    fn tell_input(transcript: &mut Transcript, input: &Input) -> Line {
        transcript.input(input)
    }

    fn tell_output(transcript: &mut Transcript, output: &Output) -> Line {
        transcript.output(output)
    }
}
