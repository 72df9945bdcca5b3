//! Messages of every kind, drawn at random, with the numbers at which encodings change drawn more often.

use antiphon::codes::Code;
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::snapshot::SnapshotId;
use antiphon::wire::*;
use bytes::Bytes;
use quickcheck::{Arbitrary, Gen};

/// One message that any end may send.
#[derive(Clone, Debug)]
pub(crate) struct Any(pub(crate) Message);

/// One content of Changes.
#[derive(Clone, Debug)]
pub(crate) struct AnyChanges(pub(crate) Changes);

impl Arbitrary for Any {
    fn arbitrary(g: &mut Gen) -> Self {
        let kind = u8::arbitrary(g) % KINDS;
        Self(message(g, kind))
    }
}

impl Arbitrary for AnyChanges {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(changes(g))
    }
}

/// How many kinds [`message`] draws: all of them.
pub(crate) const KINDS: u8 = 23;

/// A message of the `kind`th kind, counted from 0.
pub(crate) fn message(g: &mut Gen, kind: u8) -> Message {
    match kind {
        0 => Message::Hello(Hello {
            version_min: small(g),
            version_max: small(g),
            replica: replica(g),
            timeline: timeline(g),
            previous: bool::arbitrary(g).then(|| timeline(g)),
            nonce: number(g),
            limits: Limits {
                frame: short(g),
                op: short(g),
                window: short(g),
                credit: short(g),
                documents: short(g),
                authors: short(g),
            },
            features: number(g),
            token: bool::arbitrary(g).then(|| bytes(g)),
            extensions: bytes(g),
        }),
        1 => {
            let durability = *g.choose(&[Durability::Memory, Durability::Commit, Durability::Fsync]).unwrap();
            Message::Welcome(Welcome { version: small(g), hellos: number(g), durability })
        }
        2 => Message::Refuse(farewell(g)),
        3 => Message::Open(open(g)),
        4 => Message::Denied(end(g)),
        5 => Message::Close(end(g)),
        6 => Message::Heads(HeadsPart {
            document: short(g),
            offset: short(g),
            last: bool::arbitrary(g),
            heads: bytes(g),
        }),
        7 => {
            let id = SnapshotId { bytes: number(g), head_bytes: short(g), hash: replica(g).0 };
            Message::Snapshot(SnapshotPart { document: short(g), id, offset: number(g), bytes: bytes(g) })
        }
        8 => Message::Author(Announce { document: short(g), number: short(g), author: replica(g), base: number(g) }),
        9 => Message::Ack(Ack {
            document: short(g),
            number: number(g),
            received: point(g),
            held: number(g),
            window: number(g),
            credit: number(g),
            skip: bool::arbitrary(g).then(|| Skip { document: short(g), from: number(g), to: number(g) }),
            level: bool::arbitrary(g).then(|| Level { tail: number(g), digest: number(g) }),
        }),
        10 => Message::Rewind(Rewind {
            document: short(g),
            number: number(g),
            received: point(g),
            from: point(g),
            to: bool::arbitrary(g).then(|| point(g)),
        }),
        11 => Message::Ping(Ping { token: number(g), blocked: bool::arbitrary(g) }),
        12 => Message::Pong(Pong { token: number(g) }),
        13 => Message::Credit(Credit { number: number(g), total: number(g) }),
        14 => Message::Goodbye(farewell(g)),
        15 => Message::Resume(Resume { document: short(g), from: bool::arbitrary(g).then(|| number(g)) }),
        16 => Message::Fork(Fork { document: short(g), authors: bytes(g) }),
        17 => Message::Confirm(Confirm { next: number(g) }),
        18 => Message::Presence(Presence { document: short(g), body: bytes(g) }),
        19 => Message::Reliable(number(g), bytes(g)),
        20 => Message::Unknown(0x41 + u8::arbitrary(g) % 0x3f, bytes(g)),
        21 => Message::ImmediateAck(ImmediateAck { document: short(g), to: number(g) }),
        22 => Message::Changes(changes(g)),
        _ => panic!("there are {KINDS} kinds"),
    }
}

fn open(g: &mut Gen) -> Open {
    let cursor = Cursor { timeline: timeline(g), position: number(g) };
    Open {
        number: short(g),
        document: document(g),
        access: *g.choose(&[Access::Read, Access::Write]).unwrap(),
        thorough: bool::arbitrary(g),
        schema: bool::arbitrary(g).then(|| Schema { name: String::arbitrary(g), version: short(g) }),
        timelines: bool::arbitrary(g)
            .then(|| OwnTimelines { current: timeline(g), previous: bool::arbitrary(g).then(|| timeline(g)) }),
        begins: number(g),
        horizon: number(g),
        tail: number(g),
        digest: number(g),
        cursor: bool::arbitrary(g).then(|| cursor.into()),
        own: Head { seq: number(g), chain: Chain(number(g)) }.into(),
        acks: number(g),
    }
}

fn changes(g: &mut Gen) -> Changes {
    let content = match u8::arbitrary(g) % 3 {
        0 => Content::Live { author: short(g), seq: number(g), body: body(g) },
        1 => {
            let (mut runs, mut bodies) = (Vec::new(), Vec::new());
            for _ in 0..usize::arbitrary(g) % 5 {
                let (count, blank) = (1 + u64::arbitrary(g) % 4, bool::arbitrary(g));
                runs.push(Run { author: short(g), seq: number(g).min(u64::MAX - count), count, blank });
                for _ in 0..count {
                    bodies.push(if blank { Body::Blank(BodyHash(number(g))) } else { Body::Bytes(bytes(g)) });
                }
            }
            let span = (bodies.len() as u64).saturating_add(number(g));
            Content::Bulk { span, runs, bodies }
        }
        _ => {
            let offset = short(g).min(u32::MAX - 1000);
            let piece = Bytes::from([vec![7], Vec::arbitrary(g)].concat());
            let total = (offset + piece.len() as u32).saturating_add(short(g));
            Content::Part { author: short(g), seq: number(g), offset, total, piece }
        }
    };
    Changes { document: short(g), absolute: bool::arbitrary(g), from: number(g), content }
}

fn body(g: &mut Gen) -> Body {
    if bool::arbitrary(g) { Body::Bytes(bytes(g)) } else { Body::Blank(BodyHash(number(g))) }
}

fn farewell(g: &mut Gen) -> Farewell {
    let retry_after = bool::arbitrary(g).then(|| short(g));
    Farewell { code: Code(small(g)), reason: String::arbitrary(g), retry_after }
}

fn end(g: &mut Gen) -> End {
    End { document: document(g), code: Code(small(g)), reason: String::arbitrary(g) }
}

fn document(g: &mut Gen) -> DocumentId {
    let name: String = String::arbitrary(g).chars().filter(|c| *c != '@' && !c.is_control()).take(60).collect();
    let branch = *g.choose(&["main", "draft", "a.b_c-9"]).unwrap();
    let scope = *g.choose(&["global", "eu", "main"]).unwrap();
    DocumentId::new(&format!("n{name}"), branch, scope).unwrap()
}

fn point(g: &mut Gen) -> Point {
    Point { position: number(g), offset: short(g) }
}

fn replica(g: &mut Gen) -> ReplicaId {
    ReplicaId(std::array::from_fn(|_| u8::arbitrary(g)))
}

fn timeline(g: &mut Gen) -> Timeline {
    Timeline::new(number(g))
}

fn bytes(g: &mut Gen) -> Bytes {
    Vec::arbitrary(g).into()
}

fn number(g: &mut Gen) -> u64 {
    let edges = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), 1 << 62, 1 << 63, u64::MAX];
    if bool::arbitrary(g) { *g.choose(&edges).unwrap() } else { u64::arbitrary(g) }
}

fn short(g: &mut Gen) -> u32 {
    number(g) as u32
}

fn small(g: &mut Gen) -> u16 {
    number(g) as u16
}
