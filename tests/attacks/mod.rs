//! What a peer can do that no honest one does: what it sends, when, and what comes of it.

use antiphon::codes::Code;
use antiphon::op::{Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::snapshot::SnapshotId;
use antiphon::wire::changes::{ABSOLUTE, BULK, LIVE, PART};
use antiphon::wire::control::Schema;
use antiphon::wire::*;
use bytes::Bytes;

use crate::common::crafted::*;
use crate::common::victim::Stage::{self, Fresh, Greeted, Heads, Live, Opened};
use crate::common::victim::{OWN_OPS, limits};
use crate::common::{doc, document};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The session ends.
    Ends(Code),
    /// The document is closed or refused, and the session goes on.
    Closes(Code),
    /// It does no harm.
    Lives,
}

use Fate::{Closes, Ends, Lives};

/// Its name, how far the honest part goes, what is sent then, and the end of it.
pub(crate) type Attack = (&'static str, Stage, Vec<Bytes>, Fate);

pub(crate) fn attacks() -> Vec<Attack> {
    let topics = [
        handshake(),
        live_session(),
        lengths(),
        openings(),
        heads_and_forks(),
        authors(),
        ops(),
        parts(),
        acknowledgements(),
        rewinds(),
        unknown_kinds(),
    ];
    topics.concat()
}

const MAX: u64 = u64::MAX;
const MALFORMED: Fate = Ends(Code::MALFORMED);
const UNEXPECTED: Fate = Ends(Code::UNEXPECTED);
const OVERSIZED: Fate = Ends(Code::OVERSIZED);
const OVERRUN: Fate = Ends(Code::OVERRUN);

fn other() -> DocumentId {
    document("other")
}

fn absolute(kind: u8) -> u8 {
    kind | ABSOLUTE
}

/// Before anything, and with nothing but Hello said.
fn handshake() -> Vec<Attack> {
    let short_hello = hello(limits()).slice(..20);
    let long_hello = Bytes::from([&hello(limits())[..], &[0]].concat());
    vec![
        ("nothing at all", Fresh, vec![Bytes::new()], MALFORMED),
        ("garbage first", Fresh, vec![Bytes::from_static(&[0xff; 40])], MALFORMED),
        ("HTTP", Fresh, vec![Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")], UNEXPECTED), // 'G' is optional, but no way to begin
        ("a Hello that is cut off", Fresh, vec![short_hello], MALFORMED),
        ("a Hello that goes on", Fresh, vec![long_hello], MALFORMED),
        ("a Ping before Hello", Fresh, vec![ping(1)], UNEXPECTED),
        ("an Open before Hello", Fresh, vec![open(OURS, &doc(), |_| {})], UNEXPECTED),
        ("changes before Hello", Fresh, vec![live(0, 1, b"x")], UNEXPECTED),
        ("Welcome before Hello", Fresh, vec![welcome()], UNEXPECTED),
        ("a Hello too large", Fresh, vec![hello_with(|hello| hello.token = Some(vec![0; 9 << 10].into()))], OVERSIZED),
        ("frames that nothing fits in", Fresh, vec![hello(Limits { frame: 100, ..limits() })], OVERSIZED),
        ("what may be ignored, before Hello", Fresh, vec![Bytes::from(vec![0x41; 6 << 10]); 3], UNEXPECTED),
        ("Hello twice", Greeted, vec![hello(limits())], UNEXPECTED),
        ("a Welcome of others", Greeted, vec![welcome()], UNEXPECTED),
        ("changes before Welcome", Greeted, vec![live(0, 1, b"x")], UNEXPECTED),
        ("an Ack before Welcome", Greeted, vec![ack(1, 0, 0)], UNEXPECTED),
        ("a Rewind before Welcome", Greeted, vec![rewind(1, 0, Point::at(0), None)], UNEXPECTED),
        ("Credit before Welcome", Greeted, vec![credit(1, 1)], UNEXPECTED),
        ("Opens before Welcome", Greeted, vec![open(OURS, &doc(), |_| {})], Lives),
    ]
}

/// In a live session with nothing open.
fn live_session() -> Vec<Attack> {
    vec![
        ("Hello again", Live, vec![hello(limits())], UNEXPECTED),
        ("Welcome again", Live, vec![welcome()], UNEXPECTED),
        ("a frame over the limit", Live, vec![Bytes::from(vec![0x41; 9 << 10])], OVERSIZED),
        ("what only datagrams need", Live, vec![Message::Reliable(0, ping(1)).encode()], UNEXPECTED),
        ("a confirmation", Live, vec![Message::Confirm(Confirm { next: 0 }).encode()], UNEXPECTED),
        ("a Pong that was not asked for", Live, vec![pong(9)], Lives),
        ("Goodbye", Live, vec![Message::Goodbye(farewell()).encode()], Ends(Code::SHUTDOWN)),
        ("Refuse when all is well", Live, vec![Message::Refuse(farewell()).encode()], Ends(Code::SHUTDOWN)),
        ("presence", Live, vec![Message::Presence(Presence { document: 3, body: Bytes::new() }).encode()], Lives),
        ("Close of what is not open", Live, vec![close(&other())], Lives),
        ("Denied of what is not asked", Live, vec![Message::Denied(end(&other())).encode()], Lives),
        ("changes of what is not open", Live, vec![live(0, 1, b"x")], Lives),
        ("an author of what is not open", Live, vec![author(OURS, 0, stranger(), MAX)], Lives),
        ("an Ack of what is not open", Live, vec![ack_with(MAX, MAX, MAX, |ack| ack.document = u32::MAX)], Lives),
        ("absurd credit", Live, vec![credit(MAX, MAX), credit(1, 0)], Lives),
    ]
}

/// Lengths and counts that nothing stands behind.
fn lengths() -> Vec<Attack> {
    vec![
        ("a string of 2^63 bytes", Live, vec![raw(0x04, &[7, 1 << 63], b"doc")], MALFORMED),
        ("a name of 256 bytes", Live, vec![raw(0x06, &[256], &[b'a'; 300])], MALFORMED),
        ("a list of 2^40 heads", Live, vec![raw(0x07, &[7, 0, 1, 1 << 40], &[1; 40])], MALFORMED),
        ("2^60 runs", Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1 << 60], &[1; 40])], MALFORMED),
        ("a run of 2^60 ops", Opened, vec![raw(absolute(BULK), &[7, 0, MAX, 1, 0, 1, 1 << 61], &[1; 40])], MALFORMED),
        (
            "runs of 2^63 ops in sum",
            Opened,
            vec![raw(absolute(BULK), &[7, 0, MAX, 2, 0, 1, MAX - 1, 0, 1, MAX - 1], &[1; 40])],
            MALFORMED,
        ),
        ("a body of 2^63 bytes", Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 2, 1 << 63], b"x")], MALFORMED),
        ("more ops than positions", Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 4, 0, 0], b"")], MALFORMED),
        ("a run of no ops", Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 0], b"")], MALFORMED),
        ("an overlong varint", Opened, vec![Bytes::from_static(&[LIVE, 0x87, 0x00, 0, 0, 0])], MALFORMED),
        (
            "a varint of 11 bytes",
            Opened,
            vec![Bytes::from_static(&[LIVE, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])],
            MALFORMED,
        ),
        ("a document beyond 32 bits", Opened, vec![raw(LIVE, &[1 << 32, 0, 0, 0], b"")], MALFORMED),
        ("a blank without a hash", Opened, vec![raw(absolute(LIVE) | 0x80, &[7, 0, 0, 1], b"123")], MALFORMED),
    ]
}

/// Documents and where their logs start.
fn openings() -> Vec<Attack> {
    vec![
        ("one document twice", Opened, vec![open(9, &doc(), |_| {})], UNEXPECTED),
        ("one number for two documents", Opened, vec![open(OURS, &other(), |_| {})], UNEXPECTED),
        ("a log that begins after its tail", Live, vec![open(OURS, &doc(), |open| open.begins = 1)], UNEXPECTED),
        ("a horizon beyond the tail", Live, vec![open(OURS, &doc(), |open| open.horizon = 1)], UNEXPECTED),
        ("a log without end", Live, vec![open(OURS, &doc(), |open| open.tail = MAX)], UNEXPECTED),
        (
            "a schema's name without end",
            Live,
            vec![open(OURS, &doc(), |open| open.schema = Some(Schema { name: "x".repeat(300), version: 1 }))],
            OVERSIZED,
        ),
        (
            "a cursor beyond everything",
            Live,
            vec![open(OURS, &doc(), |open| {
                open.cursor = Some(Cursor { timeline: Timeline::new(3), position: MAX }.into())
            })],
            Lives,
        ),
        (
            "acknowledgements from the end of numbers",
            Live,
            vec![open(OURS, &doc(), |open| open.acks = MAX), ack(1, 9, 9)],
            Lives,
        ),
        ("a start that is known", Opened, vec![resume(OURS, Some(0))], UNEXPECTED),
        ("a start of another", Opened, vec![resume(1000, Some(0))], Lives),
        ("a start beyond everything", Live, vec![open(OURS, &doc(), |_| {}), resume(OURS, Some(MAX))], UNEXPECTED),
        ("a snapshot without end", Heads, vec![snapshot(MAX, 0, b"")], Closes(Code::BELOW_HORIZON)),
        ("a snapshot that is all heads", Heads, vec![snapshot(9, 0, b"")], Closes(Code::BELOW_HORIZON)),
        ("a snapshot of which nothing is lacking", Opened, vec![snapshot(9, 0, b"")], UNEXPECTED),
        ("a snapshot that was not asked for", Heads, vec![snapshot(9, 0, b"x")], UNEXPECTED),
        ("a snapshot of what is in step", Live, vec![snapshot(9, 0, b"")], Lives),
        ("a wish for what was not offered", Opened, vec![wanted(0, u32::MAX)], UNEXPECTED),
        ("a wish for nothing", Opened, vec![wanted(MAX, 0)], UNEXPECTED),
    ]
}

/// Heads, and forks that are claimed.
fn heads_and_forks() -> Vec<Attack> {
    vec![
        ("heads that nobody asked for", Opened, vec![heads(0, true, &[(stranger(), 1)])], UNEXPECTED),
        (
            "heads out of order",
            Heads,
            vec![heads(0, false, &[(replica_number(2), 1), (replica_number(1), 1)])],
            MALFORMED,
        ),
        (
            "heads out of order across parts",
            Heads,
            vec![heads(0, false, &[(replica_number(2), 1)]), heads(1, true, &[(replica_number(1), 1)])],
            MALFORMED,
        ),
        (
            "one author twice",
            Heads,
            vec![heads(0, false, &[(replica_number(2), 1), (replica_number(2), 2)])],
            MALFORMED,
        ),
        ("a head of nothing", Heads, vec![heads(0, true, &[(replica_number(2), 0)])], MALFORMED),
        ("heads that leave out", Heads, vec![heads(5, true, &[(replica_number(2), 1)])], MALFORMED),
        (
            "heads cut off",
            Heads,
            vec![
                Message::Heads(HeadsPart { document: OURS, offset: 0, last: true, heads: vec![1; 20].into() }).encode(),
            ],
            MALFORMED,
        ),
        (
            "heads after the last",
            Heads,
            vec![heads(0, true, &[(stranger(), 1)]), heads(1, true, &[(stranger(), 1)])],
            UNEXPECTED,
        ),
        (
            "more than the authors that we take",
            Heads,
            vec![heads(0, true, &(0..33).map(|number| (replica_number(number), 1)).collect::<Vec<_>>())],
            OVERSIZED,
        ),
        (
            "heads far beyond what there is",
            Heads,
            vec![heads(0, true, &[(ReplicaId([1; 16]), MAX), (stranger(), MAX)])],
            Lives,
        ),
        ("forks in ragged bytes", Opened, vec![fork(17)], MALFORMED),
        ("a fork of nobody", Opened, vec![fork(0)], MALFORMED),
        ("a fork of strangers", Opened, vec![fork(32)], Lives),
    ]
}

/// Numbers for authors.
fn authors() -> Vec<Attack> {
    vec![
        ("two authors under one number", Opened, vec![author(OURS, 0, replica_number(5), 0)], OVERSIZED),
        ("an author told twice in the same way", Opened, vec![author(OURS, 0, stranger(), 0)], Lives),
        ("a base beyond everything", Opened, vec![author(OURS, 1, replica_number(5), MAX)], OVERSIZED),
        (
            "too many authors",
            Opened,
            (0..40).map(|number| author(OURS, number + 1, replica_number(number.into()), 0)).collect(),
            OVERSIZED,
        ),
    ]
}

/// Seqs and positions of ops.
fn ops() -> Vec<Attack> {
    vec![
        ("an author that was never told", Opened, vec![raw(absolute(LIVE), &[7, 0, 3, 1], b"x")], MALFORMED),
        ("seq 0", Opened, vec![live(0, 0, b"x")], MALFORMED),
        ("seq 2^64-1", Opened, vec![live(0, MAX, b"x")], MALFORMED),
        ("seq 2^63", Opened, vec![live(0, 1 << 63, b"x")], MALFORMED),
        ("a run past the last seq", Opened, vec![raw(absolute(BULK), &[7, 0, 2, 1, 0, MAX, 4, 0, 0], b"")], MALFORMED),
        (
            "a relative seq past the last",
            Opened,
            vec![author(OURS, 1, replica_number(5), 1 << 61), raw(LIVE, &[7, 0, 1, MAX], b"x")],
            MALFORMED,
        ),
        ("position 2^64-1", Opened, vec![live(MAX, 1, b"x")], MALFORMED),
        ("a span of 2^64-1", Opened, vec![nothing(1, MAX)], MALFORMED),
        ("a span of 2^61", Opened, vec![nothing(0, 1 << 61)], Lives),
        ("a gap", Opened, vec![live(5, 1, b"x"), live(1 << 60, 2, b"x")], Lives),
        ("a duplicate", Opened, vec![live(0, 1, b"x"), live(0, 1, b"x"), live(0, 1, b"y"), nothing(0, 1)], Lives),
        ("an author's gap", Opened, vec![live(0, 5, b"x")], Closes(Code::AUTHOR_GAP)),
        (
            "an op in the name of another",
            Opened,
            vec![author(OURS, 1, replica_number(5), 0), raw(absolute(LIVE), &[7, 0, 1, 1], b"x")],
            Lives,
        ),
        ("an op over the limit", Opened, vec![part(OURS, 0, 0, (64 << 10) + 1, 100)], OVERRUN),
        ("an op of 4 GiB", Opened, vec![part(OURS, 0, 0, u32::MAX, 100)], OVERRUN),
    ]
}

/// Ops in parts.
fn parts() -> Vec<Attack> {
    vec![
        ("a part beyond its op", Opened, vec![raw(absolute(PART), &[7, 0, 0, 1, 50, 60], &[1; 20])], MALFORMED),
        ("an empty part", Opened, vec![raw(absolute(PART), &[7, 0, 0, 1, 0, 60], b"")], MALFORMED),
        ("a part that leaves out", Opened, vec![part(OURS, 0, 10, 100, 10)], Lives),
        (
            "parts of two documents at once",
            Opened,
            vec![
                open(8, &other(), |_| {}),
                author(8, 0, stranger(), 0),
                part(OURS, 0, 0, 100, 10),
                part(8, 0, 0, 100, 10),
            ],
            OVERRUN,
        ),
        (
            "an op that grows on its way",
            Opened,
            vec![part(OURS, 0, 0, 100, 10), part(OURS, 0, 10, 60 << 10, 10)],
            MALFORMED,
        ),
        (
            "an op that shrinks on its way",
            Opened,
            vec![part(OURS, 0, 0, 100, 10), part(OURS, 0, 10, 20, 10)],
            MALFORMED,
        ),
        (
            "a part past another op",
            Opened,
            vec![part(OURS, 0, 0, 100, 10), live(0, 1, b"x"), part(OURS, 0, 10, 100, 90)],
            Lives,
        ),
        (
            "a part with a skip in between",
            Opened,
            vec![part(OURS, 0, 0, 100, 10), nothing(0, 5), part(OURS, 0, 10, 100, 90), live(5, 1, b"x")],
            Lives,
        ),
    ]
}

/// Acknowledgements, and what comes with them.
fn acknowledgements() -> Vec<Attack> {
    vec![
        ("an Ack of what was never sent", Opened, vec![ack(1, OWN_OPS + 1, 0)], UNEXPECTED),
        ("an Ack from the end of positions", Opened, vec![ack(1, MAX, MAX)], UNEXPECTED),
        (
            "an Ack of half an op that went whole",
            Opened,
            vec![ack_with(1, 0, 0, |ack| ack.received.offset = u32::MAX)],
            UNEXPECTED,
        ),
        ("durable before it was taken", Opened, vec![ack(1, 1, 2)], UNEXPECTED),
        ("no more received than long ago", Opened, vec![ack(1, 3, 1), ack(2, 1, 0)], Lives),
        ("durable, and then not received", Opened, vec![ack(1, 3, 2), ack(2, 1, 0)], UNEXPECTED),
        ("acknowledgements that are old", Opened, vec![ack(2, 3, 3), ack(1, 9, 9), ack(2, 9, 9)], Lives),
        (
            "windows beyond everything",
            Opened,
            vec![ack_with(1, 3, 3, |ack| (ack.window, ack.credit) = (MAX, MAX))],
            Lives,
        ),
        (
            "a skip that goes back",
            Opened,
            vec![ack_with(1, 3, 3, |ack| ack.skip = Some(Skip { document: OURS, from: 0, to: 0 }))],
            Lives,
        ),
        (
            "a skip beyond everything",
            Opened,
            vec![ack_with(1, 3, 3, |ack| ack.skip = Some(Skip { document: OURS, from: 0, to: MAX }))],
            Lives,
        ),
        (
            "a level that is none",
            Opened,
            vec![ack_with(1, 3, 3, |ack| ack.level = Some(Level { tail: MAX, digest: 3 }))],
            Lives,
        ),
        (
            "a level that differs",
            Opened,
            vec![ack_with(1, 3, 3, |ack| ack.level = Some(Level { tail: 0, digest: 3 }))],
            Closes(Code::MISMATCH),
        ),
    ]
}

/// Requests to send again.
fn rewinds() -> Vec<Attack> {
    vec![
        ("a Rewind beyond what was sent", Opened, vec![rewind(1, 9, Point::at(9), None)], UNEXPECTED),
        (
            "a Rewind to the end of positions",
            Opened,
            vec![rewind(1, 0, Point { position: MAX, offset: u32::MAX }, None)],
            UNEXPECTED,
        ),
        ("a Rewind of an empty range", Opened, vec![rewind(1, 0, Point::at(2), Some(Point::at(1)))], Lives),
        ("a Rewind past what was sent", Opened, vec![rewind(1, 0, Point::at(0), Some(Point::at(MAX)))], Lives),
        (
            "a Rewind into the middle of an op",
            Opened,
            vec![rewind(1, 0, Point { position: 1, offset: 10 }, None)],
            UNEXPECTED,
        ),
        (
            "a Rewind past the end of an op",
            Opened,
            vec![rewind(1, 0, Point { position: 1, offset: 1000 }, None)],
            UNEXPECTED,
        ),
        (
            "a Rewind that says what was durable is not received",
            Opened,
            vec![ack(1, 3, 2), rewind(2, 1, Point::at(2), None)],
            UNEXPECTED,
        ),
        ("Rewinds of what is durable", Opened, vec![ack(1, 3, 3), rewind(2, 3, Point::at(0), None)], Lives),
    ]
}

/// Kinds that this version does not know, with something behind.
fn unknown_kinds() -> Vec<Attack> {
    let sent = |kind| vec![raw(kind, &[1, 2, 3], b"more")];
    let unknown = |kind: &u8| Message::decode(&Bytes::from(vec![*kind])) == Err(Malformed::Kind);
    let required = (0x00..=0xff).filter(unknown);
    let required = required.map(|kind| ("an unknown kind that must be known", Live, sent(kind), MALFORMED));
    let optional = (0x41..0x80).map(|kind| ("an unknown kind that may be", Live, sent(kind), Lives));
    required.chain(optional).collect()
}

fn snapshot(size: u64, offset: u64, bytes: &'static [u8]) -> Bytes {
    let id = SnapshotId { bytes: size, head_bytes: u32::MAX, hash: [7; 16] };
    Message::Snapshot(SnapshotPart { document: OURS, id, offset, bytes: Bytes::from_static(bytes) }).encode()
}

fn wanted(offset: u64, bytes: u32) -> Bytes {
    Message::SnapshotWanted(SnapshotWanted { document: OURS, offset, bytes }).encode()
}
