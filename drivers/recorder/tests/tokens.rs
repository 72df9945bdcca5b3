//! Tokens are not in traces: not as they are, not in part, not as a hash by which they could be guessed; and what is
//! recorded without them is replayed all the same.

mod common;

use antiphon::op::{ReplicaId, Timeline};
use antiphon::replica::Input;
use antiphon::session::{Stage, Transport};
use antiphon::wire::varint::put_varint;
use antiphon::wire::{Hello, Limits, Message, Tag, Welcome};
use antiphon::{Instant, Machine, Replica};
use antiphon_recorder::{Memory, Outcome, Trace};
use bytes::Bytes;
use common::*;
use xxhash_rust::xxh3::xxh3_64;

const TOKENS: [&str; 2] = ["7f#kQz!v0^TjW-eG4hR", "M2&wXu?8sL~bN+dY6pC1"];

/// So much of a token must not be anywhere.
const PART: usize = 5;

fn assert_absent(bytes: &[u8], token: &str) {
    for part in token.as_bytes().windows(PART) {
        let found = bytes.windows(PART).any(|window| window == part);
        assert!(!found, "{:?} is in the trace", String::from_utf8_lossy(part));
    }
}

fn assert_replays(memory: &Memory) {
    let trace = Trace::read(memory.segments()).expect("it was just written");
    for step in run_of(&trace).replay::<Replica>().expect("it has its beginning") {
        assert!(!step.differs(), "event {}: {:?}", step.event.number, step.event.input);
    }
}

#[test]
fn tokens_of_both_ends_are_in_neither_trace() {
    for transport in [Transport::Reliable, DATAGRAM] {
        let (mut two, memories) = Two::in_memory(transport);
        script(&mut two, TOKENS.map(Some));
        for end in 0..2 {
            let shown: Vec<_> =
                two.ends[end].shown.iter().map(|token| token.as_deref().expect("it is shown")).collect();
            assert_eq!(shown, [TOKENS[1 - end].as_bytes(); 2], "the host sees it");
        }
        for memory in memories {
            let bytes = memory.segments().concat();
            TOKENS.iter().for_each(|token| assert_absent(&bytes, token));
            assert_replays(&memory);
        }
    }
}

/// A recorded replica with one link, and the Hello that it says there.
fn connected(transport: Transport) -> (End, Memory, Hello) {
    let memory = Memory::new(1 << 20);
    let mut end = End::new(1, memory.clone(), false);
    let token = Some(Bytes::from(TOKENS[0]));
    let input = Input::Connected { link: LINK, transport, token, upstream: false };
    end.replica.handle(Instant::ZERO, input).expect("the link is new");
    let frames = end.carry_out(Instant::ZERO);
    let frame = if transport == Transport::Reliable {
        frames[0].clone()
    } else {
        Tag::NONE.unseal(&frames[0]).expect("a Hello")
    };
    let Ok(Message::Hello(hello)) = Message::decode(&frame) else { panic!("it says Hello first") };
    (end, memory, hello)
}

fn hello(nonce: u64) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        replica: ReplicaId([9; 16]),
        timeline: Timeline::new(77),
        previous: None,
        nonce,
        limits: Limits::default(),
        features: 0,
        token: Some(Bytes::from(TOKENS[1])),
        extensions: Bytes::new(),
    }
}

fn received(end: &mut End, frame: Bytes) {
    end.replica.handle(Instant::ZERO, Input::Received { link: LINK, frame }).expect("frames are never misuse");
    end.carry_out(Instant::ZERO);
}

/// Hellos that are none, in every way that the wire knows, end the session for the same reason when they are replayed.
#[test]
fn tokens_of_broken_hellos_are_absent() {
    let whole = Message::Hello(hello(5)).encode();
    let mut in_reliable = vec![0x13];
    put_varint(&mut in_reliable, 300);
    in_reliable.extend_from_slice(&whole);
    let broken = [
        (1..whole.len()).map(|len| whole.slice(..len)).collect::<Vec<_>>(),
        vec![[&whole[..], TOKENS[1].as_bytes()].concat().into(), [&whole[..], &whole[..]].concat().into()],
        vec![in_reliable.clone().into(), [&[0x13, 0][..], &in_reliable].concat().into()],
        // An overlong number, and the token after it.
        vec![[&[0x01, 0x81, 0x00][..], &whole[2..]].concat().into()],
    ];
    for frame in broken.concat() {
        for (transport, seal) in [(Transport::Reliable, false), (DATAGRAM, true), (DATAGRAM, false)] {
            let (mut end, memory, _) = connected(transport);
            received(&mut end, if seal { Tag::NONE.seal(&frame) } else { frame.clone() });
            received(&mut end, if seal { Tag::NONE.seal(&whole) } else { whole.clone() });
            end.replica.finish();
            assert_absent(&memory.segments().concat(), TOKENS[1]);
            assert_replays(&memory);
        }
    }
}

/// With the rest of both Hellos known, a hash over one with a short token would be as good as the token.
#[test]
fn no_hash_over_a_token_is_in_the_trace() {
    for transport in [Transport::Reliable, DATAGRAM] {
        let (mut end, memory, own) = connected(transport);
        let peers = hello(5);
        let hash = |hello: &Hello| xxh3_64(&Message::Hello(hello.clone()).encode());
        let hellos = hash(&own).wrapping_add(hash(&peers));
        let welcome =
            Message::Welcome(Welcome { version: 1, hellos, durability: antiphon::wire::Durability::Commit }).encode();
        let (first, second) = (Message::Hello(peers.clone()).encode(), Tag::new(peers.nonce, own.nonce));
        let datagram = transport != Transport::Reliable;
        received(&mut end, if datagram { Tag::NONE.seal(&first) } else { first });
        received(&mut end, if datagram { second.seal(&welcome) } else { welcome });
        let live = end.replica.session(LINK).expect("it has not ended").stage() == Stage::Live;
        assert!(live, "the Welcome is right");
        end.replica.finish();
        let bytes = memory.segments().concat();
        for secret in [hellos, hash(&own), hash(&peers)] {
            assert!(!bytes.windows(8).any(|window| window == secret.to_le_bytes()));
        }
        assert_replays(&memory);
    }
}

/// On datagrams a peer that begins anew says another Hello, with another token perhaps.
#[test]
fn a_peer_that_begins_anew_is_replayed() {
    let (mut end, memory, own) = connected(DATAGRAM);
    for nonce in 5..30 {
        let token = Some(Bytes::from(format!("{nonce}-{}", TOKENS[1])));
        received(&mut end, Tag::NONE.seal(&Message::Hello(Hello { token, ..hello(nonce) }).encode()));
        let ping = Message::Ping(antiphon::wire::Ping { token: 1, blocked: false }).encode();
        received(&mut end, Tag::new(nonce, own.nonce).seal(&ping));
    }
    end.replica.finish();
    assert_absent(&memory.segments().concat(), TOKENS[1]);
    assert_replays(&memory);
}

/// The digests are over stars too: nothing that is recorded depends on what a token is, but on how long it is.
#[test]
fn two_tokens_of_the_same_length_leave_the_same_trace() {
    let outcomes = |token: &str| {
        let (mut two, memories) = Two::in_memory(Transport::Reliable);
        script(&mut two, [Some(token), None]);
        memories.map(|memory| {
            let trace = Trace::read(memory.segments()).expect("it was just written");
            let outcomes: Vec<Outcome> = run_of(&trace).events::<Replica>().map(|event| event.outcome).collect();
            (outcomes, memory.segments())
        })
    };
    assert!(outcomes("one secret") == outcomes("another 1!"));
    assert!(outcomes("one secret") != outcomes("a longer secret"));
}
