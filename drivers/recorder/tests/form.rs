//! The form of an event is what it was: who changes it, changes the number of the format too.

mod common;

use antiphon::codes::Code;
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::{Body, Cursor, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::replica::{Input, LinkId, Options};
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Reply, Staged, StoredDocument};
use antiphon::timeline::TimelineRecord;
use antiphon::wire::Access;
use antiphon::wire::control::Schema;
use antiphon::wire::varint::take_varint;
use antiphon::{Instant, Machine};
use antiphon_recorder::{FORMAT, Memory};
use bytes::Bytes;
use common::*;
use xxhash_rust::xxh3::xxh3_64;

/// An input of each kind, with something in each of its fields.
fn inputs() -> Vec<Input> {
    let document: antiphon::op::DocumentId = "notes@draft/eu".parse().expect("a good name");
    let link = LINK;
    let author = ReplicaId([3; 16]);
    let timeline = Timeline::new(0x1122);
    let ticket = postcard::from_bytes(&[9]).expect("a ticket is a number");
    let entry = |body, origin| Entry { op: Op { id: OpId { author, seq: 5 }, body }, chain: Chain(6), origin };
    let id = SnapshotId { bytes: 1000, head_bytes: 25, hash: [8; 16] };
    let stored = StoredDocument {
        heads: Heads::from_iter([(author, Head { seq: 5, chain: Chain(6) })]),
        timelines: vec![TimelineRecord { open: 1, timeline, begins: 2 }],
        forgotten: 3,
        horizon: 4,
        tail: 50,
        aside: Some((1, 2)),
        snapshot: Some(id),
        staged: Some(Staged { id, bytes: 700 }),
    };
    let replies = [
        Reply::Document(stored),
        Reply::Cursor(Some(Cursor { timeline, position: 8 })),
        Reply::Entries(vec![
            entry(Body::Bytes(Bytes::from_static(b"read")), Some(Origin(timeline.0))),
            entry(Body::Blank(BodyHash(7)), None),
        ]),
        Reply::Compared(Comparison::new(4)),
        Reply::Chains(vec![Some(Chain(1)), None]),
        Reply::Snapshot(Bytes::from_static(b"folded")),
        Reply::Written,
    ];
    let schema = Some(Schema { name: String::from("text"), version: 2 });
    let mut inputs = vec![
        Input::Connected { link, transport: DATAGRAM, token: Some(Bytes::from_static(b"secret")), upstream: true },
        Input::Disconnected { link: LinkId(1000) },
        Input::Received { link: LinkId(1000), frame: Bytes::from_static(b"frame") },
        Input::Writable { link, bytes: 70_000 },
        Input::Timer,
        Input::Open { document: document.clone(), options: Options { schema, ..Options::default() } },
        Input::Close { document: document.clone() },
        Input::Append { document: document.clone(), bodies: vec![vec![5; 40].into(), vec![5; 40].into()] },
        Input::ImmediateAck { document: document.clone(), link },
        Input::Answer { ticket, answer: Ok(Access::Write) },
        Input::Answer { ticket, answer: Err((Code::FORBIDDEN, String::from("no"))) },
        Input::Reset { document: document.clone(), link },
        Input::Compact { document, position: 9, body: Bytes::from_static(b"folded") },
        Input::Disconnect { link, code: Code::SHUTDOWN, reason: String::from("bye"), retry_after: Some(5) },
        Input::Storage { ticket, reply: Err(String::from("full")) },
    ];
    inputs.extend(replies.map(|reply| Input::Storage { ticket, reply: Ok(reply) }));
    inputs
}

#[test]
fn the_form_is_that_of_this_format() {
    let memory = Memory::new(1 << 20);
    let mut end = End::new(1, memory.clone(), false);
    for (index, input) in inputs().into_iter().enumerate() {
        let _ = end.replica.handle(Instant::from_millis(index as u64), input);
    }
    end.replica.finish();
    let segment = memory.segments().remove(0);
    let records = records(&segment);
    assert_eq!(records.len(), inputs().len() + 1);
    let hash = records[..inputs().len()].iter().fold(0, |hash: u64, record| {
        let mut rest = segment.slice(record.clone());
        let len = take_varint(&mut rest).expect("a length") as usize;
        hash.rotate_left(7) ^ xxh3_64(&rest[9..len]) // without the digest: it is the machine's
    });
    assert_eq!(
        (FORMAT, hash),
        (2, 1_515_124_876_921_821_431),
        "the form of an input has changed: raise FORMAT, and write the new hash here"
    );
}
