//! Traces whose records are the fuzzer's, with checksums that fit: it would never find those.

use antiphon::Instant;
use antiphon::op::{ReplicaId, Timeline};
use antiphon::replica::Config;
use antiphon::rng::Rng;
use antiphon::session::Local;
use antiphon::storage::{Continuity, Identity};
use antiphon::wire::varint::{put_varint, take_varint};
use antiphon_recorder::{Memory, Recordable, Recorder, Setup, session};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of magic and format.
const PROLOGUE_BYTES: usize = 10;
/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 4;

/// What the replica of every framed trace was made of.
pub fn setup() -> Setup {
    let identity = Identity::reopen(None, Continuity::Proven, &mut Rng::new(1));
    Setup { config: Config::default(), identity, entropy: [1; 32] }
}

/// What the session of every framed trace was made of.
pub fn session_setup() -> session::Setup {
    let (replica, timeline) = (ReplicaId([1; 16]), Timeline::new(1));
    let local = Local { replica, timeline, previous: None, nonce: 1, token: None };
    session::Setup { now: Instant::ZERO, config: Default::default(), local }
}

/// The segment of a machine of this setup in which these payloads are the records, each after two bytes of its length.
pub fn framed<M: Recordable>(setup: M::Setup, mut payloads: &[u8]) -> Bytes {
    let memory = Memory::new(u64::MAX);
    drop(Recorder::<M>::new(setup, memory.clone(), Default::default()));
    let empty = memory.segments().remove(0);
    let mut segment = empty[..header_bytes(&empty)].to_vec();
    let mut number = 0;
    while let Some((length, rest)) = payloads.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        payloads = rest;
        put_varint(&mut segment, payload.len() as u64);
        segment.extend_from_slice(payload);
        segment.extend_from_slice(&(xxh3_64_with_seed(payload, number) as u32).to_le_bytes());
        number += 1;
    }
    segment.into()
}

/// The payloads of a segment's records, as [`framed`] takes them.
pub fn unframed(segment: &Bytes) -> Vec<u8> {
    let mut rest = segment.slice(header_bytes(segment)..);
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let length = take_varint(&mut rest).expect("the segment is whole") as usize;
        payloads.extend_from_slice(&u16::try_from(length).expect("the records are small").to_le_bytes());
        payloads.extend_from_slice(&rest[..length]);
        rest = rest.slice(length + CHECKSUM_BYTES..);
    }
    payloads
}

fn header_bytes(segment: &Bytes) -> usize {
    let mut rest = segment.slice(PROLOGUE_BYTES..);
    let length = take_varint(&mut rest).expect("the segment is whole") as usize;
    segment.len() - rest.len() + length + CHECKSUM_BYTES
}
