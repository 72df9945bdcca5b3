//! The bytes of a trace: headers, records, and bodies that are written once.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use antiphon::wire::varint::{put_varint, take_bytes, take_varint};
use bytes::{Buf, Bytes};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

/// What every segment of every format begins with.
pub(crate) const MAGIC: &[u8; 8] = b"antiph\0t";
/// The format that is written and read. It changes when any of this does, or the form of an input.
pub const FORMAT: u16 = 2;

/// The largest header that is read. A setup has a configuration and some ids.
pub(crate) const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Bodies shorter than this are written each time: naming an earlier one would save nothing.
const BODY_BYTES_MIN: usize = 32;
/// How many bodies of a segment can be named again: the newest, mostly.
const BODIES_MAX: usize = 16_384;

/// What a segment begins with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Header {
    /// The name of the recorded machine: [`Recordable::NAME`](crate::Recordable::NAME).
    pub machine: String,
    /// The version of antiphon that recorded it.
    pub version: String,
    /// Which recording of its directory it is, from 1.
    pub run: u64,
    /// When the recording began, in milliseconds since 1970.
    pub began: u64,
    /// Which segment of the recording it is, from 0.
    pub segment: u64,
    /// The number of its first event: how many the recording had before.
    pub first: u64,
    /// When the last of those happened, in microseconds of the machine's time.
    pub at: u64,
    /// What bodies say was left out.
    pub redacted: bool,
    /// What the machine was made of, in postcard's encoding.
    pub(crate) setup: Bytes,
}

/// What came of an input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The digest of its outputs, of whether it was misuse, and of the deadline after it. In a redacted trace: 0.
    Digest(u64),
    /// The machine panicked.
    Panicked,
}

/// An input as it is written: without its bodies, which are beside it.
pub(crate) struct Payload<'a, I> {
    pub(crate) input: &'a I,
    pub(crate) bodies: &'a [Bytes],
    pub(crate) left_out: u64,
}

/// A record as it is read.
pub(crate) enum Record<I, K> {
    Event {
        outcome: Outcome,
        since: u64,
        left_out: u64,
        bodies: Vec<Bytes>,
        input: I,
        kept: Vec<K>,
    },
    /// The recording goes on in the next segment.
    Continued,
    /// The recording ended in order.
    Finished,
}

/// Why a record can't be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bad {
    /// The bytes end before it does.
    Torn,
    /// The bytes are not those that were written.
    Damaged,
}

const EVENT: u8 = 0;
const PANICKED: u8 = 1;
const CONTINUED: u8 = 2;
const FINISHED: u8 = 3;

// -------------------------------------------------------------------------------------------- headers

impl Header {
    /// The first bytes of its segment.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        put(&mut content, self);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        put_varint(&mut out, content.len() as u64);
        let checksum = xxh3_64(&content) as u32;
        out.extend_from_slice(&content);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Takes the header from the front of what follows magic and format.
    pub(crate) fn take(bytes: &mut Bytes) -> Result<Self, Bad> {
        let len = take_varint(bytes).map_err(|_| Bad::Torn)?;
        if len > HEADER_BYTES_MAX {
            return Err(Bad::Damaged);
        }
        let content = take_bytes(bytes, len).map_err(|_| Bad::Torn)?;
        let checksum = bytes.try_get_u32_le().map_err(|_| Bad::Torn)?;
        if checksum != xxh3_64(&content) as u32 {
            return Err(Bad::Damaged);
        }
        get(&content).ok_or(Bad::Damaged)
    }
}

// -------------------------------------------------------------------------------------------- records

/// Writes the payloads of records, and remembers the bodies of the segment.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bodies: Known,
}

/// Bytes before the parts of an event's payload that are known only when it is over.
const OUTCOME_BYTES: usize = 1 + 8;

impl Encoder {
    /// A segment begins: nothing of those before can be named.
    pub(crate) fn clear(&mut self) {
        self.bodies.clear();
    }

    /// The payload of an event whose outcome is not known.
    pub(crate) fn event<I: Serialize>(&mut self, out: &mut Vec<u8>, since: u64, written: &Payload<'_, I>) {
        out.clear();
        out.resize(OUTCOME_BYTES, 0);
        put_varint(out, since);
        put_varint(out, written.left_out);
        put_varint(out, written.bodies.len() as u64);
        written.bodies.iter().for_each(|body| self.bodies.put(out, body));
        put(out, written.input);
    }
}

/// Fills in what came of an event.
pub(crate) fn settle(payload: &mut [u8], outcome: Outcome) {
    let (tag, digest) = match outcome {
        Outcome::Digest(digest) => (EVENT, digest),
        Outcome::Panicked => (PANICKED, 0),
    };
    payload[0] = tag;
    payload[1..OUTCOME_BYTES].copy_from_slice(&digest.to_le_bytes());
}

/// The payload of the last record of a segment.
pub(crate) fn last(out: &mut Vec<u8>, continued: bool) {
    out.clear();
    out.push(if continued { CONTINUED } else { FINISHED });
}

/// What follows the payload of a record: over its place in the recording as well, so that none can stand in for another.
pub(crate) fn checksum(payload: &[u8], number: u64) -> u32 {
    xxh3_64_with_seed(payload, number) as u32
}

/// Reads the records of a segment, and remembers its bodies.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bodies: Vec<Bytes>,
}

impl Decoder {
    /// Takes the record with this number from the front; what is there after an error is not to be read.
    pub(crate) fn take<I, K>(&mut self, bytes: &mut Bytes, number: u64) -> Result<Record<I, K>, Bad>
    where
        I: for<'de> Deserialize<'de>,
        K: for<'de> Deserialize<'de>,
    {
        let len = take_varint(bytes).map_err(|_| Bad::Torn)?;
        let payload = take_bytes(bytes, len).map_err(|_| Bad::Torn)?;
        let found = bytes.try_get_u32_le().map_err(|_| Bad::Torn)?;
        if found != checksum(&payload, number) {
            return Err(Bad::Damaged);
        }
        self.payload(payload).ok_or(Bad::Damaged)
    }

    fn payload<I, K>(&mut self, mut payload: Bytes) -> Option<Record<I, K>>
    where
        I: for<'de> Deserialize<'de>,
        K: for<'de> Deserialize<'de>,
    {
        let tag = payload.try_get_u8().ok()?;
        match tag {
            CONTINUED => return payload.is_empty().then_some(Record::Continued),
            FINISHED => return payload.is_empty().then_some(Record::Finished),
            EVENT | PANICKED => {}
            _ => return None,
        }
        let digest = payload.try_get_u64_le().ok()?;
        let outcome = if tag == EVENT { Outcome::Digest(digest) } else { Outcome::Panicked };
        let (since, left_out) = (take_varint(&mut payload).ok()?, take_varint(&mut payload).ok()?);
        let count = take_varint(&mut payload).ok()?;
        if count > payload.len() as u64 {
            return None; // each takes a byte at least
        }
        let bodies: Option<Vec<_>> = (0..count).map(|_| self.body(&mut payload)).collect();
        let bodies = bodies?;
        let (input, rest) = postcard::take_from_bytes(&payload).ok()?;
        let kept = if rest.is_empty() { Vec::new() } else { get(rest)? };
        Some(Record::Event { outcome, since, left_out, bodies, input, kept })
    }

    fn body(&mut self, payload: &mut Bytes) -> Option<Bytes> {
        let mark = take_varint(payload).ok()?;
        if mark & 1 == 1 {
            let back = usize::try_from(mark >> 1).ok()?;
            return self.bodies.get(self.bodies.len().checked_sub(back)?).cloned();
        }
        let body = take_bytes(payload, mark >> 1).ok()?;
        if body.len() >= BODY_BYTES_MIN {
            self.bodies.push(body.clone());
        }
        Some(body)
    }
}

/// The bodies of a segment that can be named: by how many such bodies ago they were written.
#[derive(Debug, Default)]
struct Known {
    /// Which of all a body was, in the place that its hash gives it, if no other came there since; and the hash. The body
    /// itself is not held: that would keep the frames of peers in memory.
    places: Vec<(u64, u128)>,
    written: u64,
    /// So that nobody can make bodies of the same hash.
    seed: u64,
}

impl Known {
    /// A segment begins.
    fn clear(&mut self) {
        self.places.clear();
        self.written = 0;
        self.seed = RandomState::new().build_hasher().finish();
    }

    /// Writes a body: twice its length and itself, or, if it was written, twice how long ago, and one.
    fn put(&mut self, out: &mut Vec<u8>, body: &Bytes) {
        if body.len() >= BODY_BYTES_MIN {
            self.places.resize(BODIES_MAX, (0, 0));
            let hash = xxh3_128_with_seed(body, self.seed);
            let place = &mut self.places[hash as usize % BODIES_MAX];
            if place.1 == hash {
                return put_varint(out, (self.written - place.0) << 1 | 1);
            }
            *place = (self.written, hash);
            self.written += 1;
        }
        put_varint(out, (body.len() as u64) << 1);
        out.extend_from_slice(body);
    }
}

// -------------------------------------------------------------------------------------------- values

/// Writes a value as postcard does.
pub(crate) fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    struct Append<'a>(&'a mut Vec<u8>);

    impl Flavor for Append<'_> {
        type Output = ();

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }

        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }

    let written = postcard::serialize_with_flavor(value, Append(out));
    debug_assert!(written.is_ok(), "inputs and setups have nothing that postcard can't write");
}

/// The value that exactly these bytes stand for.
pub(crate) fn get<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}
