//! Keeps tokens out of traces, so that the machine does not notice.
//!
//! A token is in the Hello of whoever shows it. There it gives way to as many stars, so that all lengths stay; and as
//! Welcome has a hash over both Hellos, by which short tokens could be guessed, and which would no longer fit, that
//! becomes what it would have been over the Hellos with stars. A machine that is run again is made to say Hello with
//! stars, and computes the same.

use antiphon::session::Transport;
use antiphon::wire::varint::take_varint;
use antiphon::wire::{Hello, Malformed, Message, Tag, Welcome};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const RELIABLE: u8 = 0x13;

/// What stands for each byte of a token.
const STAR: u8 = b'*';

/// Hellos of peers that are remembered on a datagram link, where there may be several: the last ones used.
const PEERS_MAX: usize = 16;

/// The token that is written instead.
pub(crate) fn starred(token: Option<&Bytes>) -> Option<Bytes> {
    token.map(|token| vec![STAR; token.len()].into())
}

/// Whether a token, or a hash over one, can be in a frame that we send: in Hello and Welcome, the first two kinds.
pub(crate) fn may_have_token(frame: &Bytes) -> bool {
    frame.first().is_some_and(|kind| *kind <= WELCOME)
}

/// One link, and the Hellos on it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    datagram: bool,
    own: Option<Greeting>,
    /// The one used last comes first.
    peers: Vec<Greeting>,
}

/// A Hello.
#[derive(Clone, Copy, Debug)]
struct Greeting {
    nonce: u64,
    /// What the hash of its frame is with stars, less what it is.
    difference: u64,
}

/// Who sent a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum From {
    Us,
    Peer,
}

impl Link {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { datagram: matches!(transport, Transport::Datagram { .. }), own: None, peers: Vec::new() }
    }

    /// The frame without secrets, after what `then` does with the message in it.
    pub(crate) fn frame(&mut self, from: From, frame: &Bytes, then: impl FnOnce(Bytes) -> Bytes) -> Bytes {
        if !self.datagram {
            return then(self.bare(from, frame));
        }
        let Some((tag, bare)) = self.unseal(from, frame) else {
            // Damaged, or not of this session: the session drops it too. It could be a Hello.
            return vec![0; frame.len()].into();
        };
        let censored = then(self.bare(from, &bare));
        if censored == bare { frame.clone() } else { tag.seal(&censored) }
    }

    fn unseal(&mut self, from: From, frame: &Bytes) -> Option<(Tag, Bytes)> {
        if frame.first() == Some(&HELLO)
            && let Some(bare) = Tag::NONE.unseal(frame)
        {
            return Some((Tag::NONE, bare));
        }
        let own = self.own?.nonce;
        let found = self.peers.iter().enumerate().find_map(|(index, peer)| {
            let tag = if from == From::Us { Tag::new(own, peer.nonce) } else { Tag::new(peer.nonce, own) };
            let tag = tag.turned(tag.turn_of(frame)?);
            Some((index, tag, tag.unseal(frame)?))
        });
        let (index, tag, bare) = found?;
        self.peers[..=index].rotate_right(1);
        Some((tag, bare))
    }

    /// A frame without what a datagram adds.
    fn bare(&mut self, from: From, frame: &Bytes) -> Bytes {
        match frame.first() {
            Some(&HELLO) => {
                let (censored, greeting) = star(frame);
                greeting.into_iter().for_each(|greeting| self.greeted(from, greeting));
                censored
            }
            Some(&WELCOME) => match (Message::decode(frame), self.own, self.peers.first()) {
                (Ok(Message::Welcome(welcome)), Some(own), Some(peer)) => {
                    let hellos = welcome.hellos.wrapping_add(own.difference).wrapping_add(peer.difference);
                    Message::Welcome(Welcome { hellos, ..welcome }).encode()
                }
                _ => frame.clone(),
            },
            Some(&RELIABLE) => star_inner(frame),
            _ => frame.clone(),
        }
    }

    fn greeted(&mut self, from: From, greeting: Greeting) {
        match from {
            From::Us => _ = self.own.get_or_insert(greeting),
            From::Peer if self.peers.iter().any(|known| known.nonce == greeting.nonce) => {}
            From::Peer => {
                // Before all others: on a reliable link it is the only one that counts, and nothing else is there yet.
                self.peers.insert(0, greeting);
                self.peers.truncate(PEERS_MAX);
            }
        }
    }
}

/// A frame that begins as a Hello, with stars. If it is none, nothing of it is left but its length and what is wrong with
/// it.
fn star(frame: &Bytes) -> (Bytes, Option<Greeting>) {
    match Message::decode(frame) {
        Ok(Message::Hello(hello)) => {
            let nonce = hello.nonce;
            let Some(token) = starred(hello.token.as_ref()) else {
                return (frame.clone(), Some(Greeting { nonce, difference: 0 }));
            };
            let censored = Message::Hello(Hello { token: Some(token), ..hello }).encode();
            let difference = xxh3_64(&censored).wrapping_sub(xxh3_64(frame));
            (censored, Some(Greeting { nonce, difference }))
        }
        Err(Malformed::Trailing) => {
            let hello = postcard::take_from_bytes::<Hello>(&frame[1..]).ok();
            let hello = hello.map(|(hello, _)| Hello { token: starred(hello.token.as_ref()), ..hello });
            let mut censored = hello.map_or_else(Vec::new, |hello| Message::Hello(hello).encode().into());
            censored.resize(frame.len(), 0);
            (censored.into(), None)
        }
        // Numbers without an end are no Hello either.
        _ => ([vec![HELLO], vec![0xff; frame.len() - 1]].concat().into(), None),
    }
}

/// A Hello has no place in a Reliable message, and ends the session: but it may be there.
fn star_inner(frame: &Bytes) -> Bytes {
    let mut inner = frame.clone();
    while inner.first() == Some(&RELIABLE) {
        let _ = inner.split_to(1);
        if take_varint(&mut inner).is_err() {
            return frame.clone();
        }
    }
    if inner.first() != Some(&HELLO) {
        return frame.clone();
    }
    let outer = frame.len() - inner.len();
    [&frame[..outer], &star(&inner).0].concat().into()
}
