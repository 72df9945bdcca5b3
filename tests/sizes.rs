//! Ops of all sizes, from nothing to 32 MiB, alone and beside others; and how few bytes go around them.

mod common;

use std::collections::BTreeMap;

use antiphon::codes::Code;
use antiphon::digest::Chain;
use antiphon::heads::Head;
use antiphon::log::Author;
use antiphon::op::{Body, DocumentId, Op, OpId, ReplicaId};
use antiphon::replica::{Config, Event, Input, Misuse, Options};
use antiphon::rng::{Ratio, Rng};
use antiphon::session::{self, Transport};
use antiphon::storage::{Reply, Request, StoredDocument};
use antiphon::timeline::TimelineRecord;
use antiphon::wire::changes::pack;
use antiphon::wire::{Content, Limits, Message, TRAILER_BYTES};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::Medium;
use bytes::Bytes;
use common::rig::*;
use common::*;

const FRAME: usize = 4 << 10;
const MIB: usize = 1 << 20;

fn config(limits: Limits) -> Config {
    Config { session: session::Config { limits, ..session::Config::default() }, ..Config::default() }
}

fn small_frames() -> Config {
    config(Limits { frame: FRAME as u32, ..Limits::default() })
}

/// Two replicas that have these documents open on one wire.
fn joined(config: &Config, documents: &[DocumentId], transport: Transport) -> (Rig, usize) {
    let mut rig = Rig::new(23);
    for _ in 0..2 {
        let end = rig.add(config.clone());
        documents.iter().for_each(|document| rig.open(end, document));
    }
    let wire = rig.join(0, 1, transport);
    rig.run_for(SECOND);
    assert!(rig.session(wire, 0).is_live());
    (rig, wire)
}

/// A body that looks like no other of its length, and like no shifted copy of itself.
fn body(len: usize) -> Bytes {
    let mut dice = Rng::new(len as u64);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.next_u64().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes.into()
}

fn assert_same_ops(rig: &Rig, document: &DocumentId) {
    let by_author = |end: usize| {
        let mut ops: Vec<Op> = rig.ops(end, document);
        ops.sort_by_key(|op| op.id);
        ops
    };
    assert!(by_author(0) == by_author(1), "{document}: the same ops at both ends, byte by byte");
}

/// All sizes at which something changes: nothing, one byte, and each around the largest frame.
fn sizes(frame: usize) -> Vec<usize> {
    let around = frame.saturating_sub(80)..frame + 20;
    [0, 1, 2, 127, 128].into_iter().chain(around).chain([2 * frame, 3 * frame + 1, 50_000]).collect()
}

#[test]
fn every_size_arrives_one_by_one_and_in_bulk() {
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let frame = if transport == Transport::Reliable { FRAME } else { 1200 };
        let documents = [document("live"), document("bulk")];
        let (mut rig, wire) = joined(&small_frames(), &documents, transport);
        rig.wires[wire].trace = Some(Vec::new());
        for size in sizes(frame) {
            rig.append(0, &documents[0], [body(size)]);
            rig.run_for(MILLISECOND);
        }
        rig.append(0, &documents[1], sizes(frame).into_iter().map(body));
        let done = rig.run_until(SECOND * 20, &mut |_| {}, |rig| documents.iter().all(|id| rig.same(0, 1, id)));
        assert!(done, "{transport:?}");
        documents.iter().for_each(|document| assert_same_ops(&rig, document));
        let trace = rig.wires[wire].trace.as_ref().expect("it is kept");
        let sent = trace.iter().filter_map(|traced| match traced {
            Traced::Sent(0, frame) => Some(frame.len()),
            _ => None,
        });
        let longest = sent.max().expect("frames were sent");
        assert!(longest <= frame, "{transport:?}: a frame of {longest} bytes");
        assert!(longest > frame - 60, "{transport:?}: the room of a frame is used");
    }
}

#[test]
fn thirty_two_mebibytes_arrive_and_others_beside_them() {
    let (big, others) = (document("big"), [document("a"), document("z")]);
    let all = [others[0].clone(), big.clone(), others[1].clone()];
    let (mut rig, _) = joined(&Config::default(), &all, Transport::Reliable);
    rig.append(0, &big, [body(32 * MIB)]);
    let (mut things, mut appended, mut worst) = (0u64, 0u64, 0u64);
    let mut waiting: Vec<(DocumentId, u64, u64)> = Vec::new();
    let mut look = |rig: &mut Rig| {
        things += 1;
        if things.is_multiple_of(20) && rig.tail(1, &big) == 0 {
            appended += 1;
            let document = &others[appended as usize % 2];
            rig.append(appended as usize / 2 % 2, document, [Bytes::from(appended.to_le_bytes().to_vec())]);
            waiting.push((document.clone(), rig.tail(0, document).max(rig.tail(1, document)), things));
        }
        waiting.retain(|(document, tail, since)| {
            let arrived = rig.tail(0, document).min(rig.tail(1, document)) > *tail;
            if arrived {
                worst = worst.max(things - since);
            }
            !arrived
        });
    };
    assert!(rig.run_until(SECOND * 600, &mut look, |rig| rig.same(0, 1, &big)), "the large op arrives");
    println!("beside 32 MiB: {appended} small ops; the slowest came after {worst} frames and answers");
    assert!(appended > 20);
    assert!(rig.run_until(SECOND * 5, &mut |_| {}, |rig| all.iter().all(|document| rig.same(0, 1, document))));
    all.iter().for_each(|document| assert_same_ops(&rig, document));
    assert!(rig.endings(0).is_empty() && rig.endings(1).is_empty());
    assert!(worst < 200, "small ops wait {worst} frames and answers for a large one");
}

/// Others that never pause don't keep a large op from going.
#[test]
fn a_large_op_is_not_starved() {
    let (big, busy) = (document("big"), document("busy"));
    for medium in
        [Medium::reliable(MILLISECOND * 20), Medium::datagram(Faults { latency: MILLISECOND * 20, ..Faults::NONE })]
    {
        let mut world = World::new(29);
        let nodes: Vec<_> = (0..2).map(|_| world.add(Config::default())).collect();
        for node in &nodes {
            world.open(*node, &big, Options::default());
            world.open(*node, &busy, Options::default());
        }
        world.join(nodes[0], nodes[1], medium);
        world.run_for(SECOND);
        let mut arrived = None;
        for number in 0..2000u64 {
            if number == 100 {
                world.append(nodes[0], &big, body(2 * MIB)); // what the others have sent is under way then
            }
            world.append(nodes[0], &busy, number.to_le_bytes().to_vec());
            world.run_for(MILLISECOND * 5);
            if number > 100 && arrived.is_none() && same_on_disks(&world, &nodes, &big) {
                arrived = Some((number - 100) * 5);
            }
        }
        println!("2 MiB beside a busy document took {arrived:?} ms");
        assert!(arrived.is_some_and(|millis| millis < 5000), "{medium:?}: {arrived:?}");
        converge(&mut world, &nodes, &busy, SECOND);
    }
}

#[test]
fn large_ops_cross_a_path_that_loses_frames() {
    let (big, small) = (document("big"), document("small"));
    let faults = Faults {
        latency: MILLISECOND * 10,
        jitter: MILLISECOND * 5,
        loss: Ratio::one_in(20),
        duplicate: Ratio::one_in(50),
        ..Faults::NONE
    };
    let mut world = World::new(31);
    let nodes: Vec<_> = (0..2).map(|_| world.add(Config::default())).collect();
    for node in &nodes {
        world.open(*node, &big, Options::default());
        world.open(*node, &small, Options::default());
    }
    let path = world.join(nodes[0], nodes[1], Medium::datagram(faults));
    world.run_for(SECOND);
    for len in [0, 1, 1199, 1200, 1201, 65_536, MIB] {
        world.append(nodes[0], &big, body(len));
    }
    let mut number = 0u64;
    while !same_on_disks(&world, &nodes, &big) {
        number += 1;
        assert!(number < 2000, "the large ops arrive");
        let (node, text) = (nodes[number as usize % 2], number.to_le_bytes().to_vec());
        world.append(node, &small, text);
        world.run_for(MILLISECOND * 10);
    }
    println!("1 MiB over a path that loses 1 frame in 20: {} ms", number * 10);
    assert_eq!(bodies_on(world.disk(nodes[1]), &big).last().map(Vec::len), Some(MIB));
    converge(&mut world, &nodes, &big, SECOND);
    converge(&mut world, &nodes, &small, SECOND * 5);
    let sent = world.counters(path)[0].bytes;
    println!("{sent} bytes were sent for {} of bodies", MIB + 65_536);
    assert!(sent < 5 * MIB as u64 / 2, "what was not lost is not sent again and again: {sent} bytes");
}

#[test]
fn what_is_over_the_limit_is_refused_at_the_append() {
    let limits = Limits { op: 1000, ..Limits::default() };
    let (mut rig, _) = joined(&config(limits), &[doc()], Transport::Reliable);
    rig.append(0, &doc(), [body(1000)]);
    let bodies = vec![body(5), body(1001)];
    let refused = rig.try_input(0, Input::Append { document: doc(), bodies });
    assert_eq!(refused, Err(Misuse::TooLarge(1000)));
    rig.run_for(SECOND);
    assert!(rig.same(0, 1, &doc()));
    let lens: Vec<_> = rig.ops(1, &doc()).iter().map(|op| op.body.wire_len()).collect();
    assert_eq!(lens, [1000], "of what was refused, nothing was appended");
}

/// A peer whose limit is smaller can't be sent the op: the document is closed there, and everything else goes on.
#[test]
fn an_op_over_the_peers_limit_closes_the_document_and_no_more() {
    for len in [1001, 70_000] {
        let documents = [document("a"), document("b")];
        let mut rig = Rig::new(37);
        for op in [1 << 20, 1000] {
            let end = rig.add(config(Limits { op, ..Limits::default() }));
            documents.iter().for_each(|document| rig.open(end, document));
        }
        rig.join(0, 1, Transport::Reliable);
        rig.run_for(SECOND);
        rig.append(0, &documents[0], [body(len)]);
        rig.append(0, &documents[1], [body(10)]);
        rig.run_for(SECOND * 5);
        assert!(rig.same(0, 1, &documents[1]), "the other document goes on");
        assert_eq!(rig.tail(1, &documents[0]), 0);
        assert!(rig.endings(0).is_empty() && rig.endings(1).is_empty(), "the session goes on");
        let closed = rig.ends[0].events.iter().find_map(|event| match event {
            Event::Closed { document, code, .. } if *document == documents[0] => Some(*code),
            _ => None,
        });
        assert_eq!(closed, Some(Code::OP_TOO_LARGE));
    }
}

// -------------------------------------------------------------------------------------------- bytes around an op

const HIGH: u64 = (1 << 21) + 5;

/// Documents that have grown to more than 2^21 entries since both replicas were started, and are in step.
fn grown(documents: &[DocumentId], transport: Transport) -> (Rig, usize) {
    let mut rig = Rig::new(41);
    for _ in 0..2 {
        let end = rig.add(Config::default());
        let opens = rig.identity(end).opens;
        let record = TimelineRecord { open: opens.count(), timeline: opens.current(), begins: 0 };
        rig.ends[end].answers = Some(Box::new(move |request| match request {
            Request::Open(_) => {
                let heads = [(ReplicaId([9; 16]), Head { seq: HIGH, chain: Chain(3) })].into_iter().collect();
                let (horizon, tail) = (HIGH, HIGH);
                let timelines = vec![record];
                Some(Reply::Document(StoredDocument { heads, timelines, horizon, tail, ..StoredDocument::default() }))
            }
            Request::Write(_) => Some(Reply::Written),
            _ => None,
        }));
        documents.iter().for_each(|document| rig.open(end, document));
    }
    let wire = rig.join(0, 1, transport);
    rig.run_for(SECOND);
    (rig, wire)
}

#[test]
fn few_bytes_go_around_an_op() {
    let documents: Vec<_> = (0..150).map(|number| document(&format!("document-{number:03}"))).collect();
    for (transport, trailer) in [(Transport::Reliable, 0), (Transport::Datagram { mtu: 1200 }, TRAILER_BYTES)] {
        let (mut rig, wire) = grown(&documents, transport);
        let last = &documents[149];
        rig.append(0, last, [body(1)]); // the author is announced with the first op
        rig.settle();
        rig.wires[wire].trace = Some(Vec::new());
        for _ in 0..300 {
            rig.append(0, last, [body(20)]);
            rig.settle();
        }
        rig.append(0, last, (0..1000).map(|_| body(20)));
        rig.settle();
        let (mut live, mut bulk) = (BTreeMap::new(), (0, 0));
        for traced in rig.wires[wire].trace.as_ref().expect("it is kept") {
            let Traced::Sent(0, frame) = traced else { continue };
            match Message::decode(&frame.slice(..frame.len() - trailer)) {
                Ok(Message::Changes(changes)) => match changes.content {
                    Content::Live { body, .. } => *live.entry(frame.len() - body.wire_len()).or_insert(0) += 1,
                    Content::Bulk { bodies, .. } => {
                        let around = frame.len() - bodies.iter().map(Body::wire_len).sum::<usize>();
                        bulk = (bulk.0 + around, bulk.1 + bodies.len());
                    }
                    Content::Part { .. } => unreachable!("nothing is that large"),
                },
                _ => continue,
            }
        }
        println!(
            "{transport:?}: bytes around a live op, and how often: {live:?}; in bulk: {} for {} ops",
            bulk.0, bulk.1
        );
        assert_eq!(live.values().sum::<u64>(), 300);
        assert!(live.keys().all(|around| *around <= 12 + trailer), "{live:?}");
        assert_eq!(bulk.1, 1000);
        assert!(bulk.0 <= 2 * bulk.1, "{bulk:?}");
    }
}

/// The author, too, has written more than 2^21 ops since it got its number.
#[test]
fn few_bytes_go_around_an_op_of_a_busy_author() {
    let author = Author { number: 100, id: ReplicaId([1; 16]), base: 0 };
    let op = |seq: u64| Op { id: OpId { author: author.id, seq }, body: Body::Bytes(body(20)) };
    let ops: Vec<_> = (HIGH..HIGH + 100).map(op).collect();
    let around = |count: usize| {
        let to = |count: usize| HIGH + count as u64;
        let (packed, taken) = pack(150, 0, HIGH, ops[..count].iter(), |_| author, 64 << 10, to).expect("it fits");
        assert_eq!(taken, count);
        packed.frame.len() - 20 * count
    };
    println!("a busy author: {} bytes around a live op, {} in a bulk of 100", around(1), around(100));
    assert!(around(1) <= 12);
    assert!(around(100) <= 200);
}
