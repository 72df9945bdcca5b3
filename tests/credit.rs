//! Credit: a slow reader bounds what both ends hold, and holds up nobody else.

mod common;

use std::collections::BTreeSet;

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Options};
use antiphon::rng::Rng;
use antiphon::session::{self, Transport};
use antiphon::wire::{Access, Limits, Message};
use bytes::Bytes;
use common::rig::*;
use common::*;

const WINDOW: u64 = 16 << 10;
const CREDIT: u64 = 64 << 10;
const TAIL: u64 = 8 << 10;
const READ: u64 = 8 << 10;
const FRAME: u64 = 4 << 10;

/// Small limits, so that a few thousand ops are many times what may be held; storages that stall stay whole for hours.
fn small() -> Config {
    let limits =
        Limits { frame: FRAME as u32, window: WINDOW as u32, credit: CREDIT as u32, op: 1 << 20, ..Limits::default() };
    Config {
        session: session::Config { limits, ..session::Config::default() },
        tail_max: TAIL,
        read_max: READ,
        write_deadline: SECOND * 36_000,
        ..Config::default()
    }
}

/// Two replicas that have these documents open and in step; the second, the reader, for this access.
fn joined(config: &Config, documents: &[DocumentId], transport: Transport, access: Access) -> (Rig, usize) {
    let mut rig = Rig::new(7);
    for access in [Access::Write, access] {
        let end = rig.add(config.clone());
        for document in documents {
            rig.open_with(end, document, Options { access, ..Options::default() });
        }
    }
    let wire = rig.join(0, 1, transport);
    rig.run_for(SECOND);
    assert!(rig.session(wire, 0).is_live());
    (rig, wire)
}

fn numbered_documents(count: usize) -> Vec<DocumentId> {
    (0..count).map(|number| document(&format!("document-{number:03}"))).collect()
}

/// Nothing in memory but what the stated bounds allow: at the sender its tail and the batch that the app appends; at the
/// receiver its tail, and what it granted.
fn assert_bounds(rig: &Rig, wire: usize, batch: u64) {
    let (sent, _) = rig.session(wire, 0).under_way();
    let (_, taken) = rig.session(wire, 1).under_way();
    assert!(sent <= CREDIT && taken <= CREDIT, "under way: {sent} sent, {taken} taken");
    let loaded = rig.ends[0].replica.documents_loaded() as u64;
    let (sender, receiver) = (rig.ends[0].replica.memory_cost(), rig.ends[1].replica.memory_cost());
    assert!(sender <= loaded * TAIL + batch, "the sender holds {sender}");
    assert!(receiver <= loaded * TAIL + taken, "the receiver holds {receiver}, of which it granted {taken}");
}

#[test]
fn a_stalled_disk_bounds_what_both_ends_hold() {
    // One that only reads has nothing to say but its acknowledgements.
    [Access::Read, Access::Write].into_iter().for_each(stalled_disk);
}

fn stalled_disk(access: Access) {
    let (mut rig, wire) = joined(&small(), &[doc()], Transport::Reliable, access);
    let before = rig.session(wire, 0).stats().bytes_sent;
    rig.ends[1].stalled.insert(doc());
    let mut look = |rig: &mut Rig| {
        assert_bounds(rig, wire, 10 * 132);
        let (sent, taken) = (rig.session(wire, 0).under_way().0, rig.session(wire, 1).under_way().1);
        assert!(sent <= WINDOW && taken <= WINDOW, "one document: {sent} sent, {taken} taken");
    };
    for number in 0..500 {
        rig.append(0, &doc(), numbered(number * 10..(number + 1) * 10, 100));
        rig.run_until(MILLISECOND * 10, &mut look, |_| false);
    }
    let sent = rig.session(wire, 0).stats().bytes_sent - before;
    assert!(sent < WINDOW, "{sent} bytes went to a reader that can't write");
    assert!(sent > WINDOW / 2, "the window is used");
    assert_eq!((rig.tail(0, &doc()), rig.tail(1, &doc())), (5000, 0));
    rig.ends[1].stalled.clear();
    assert!(rig.run_until(SECOND * 10, &mut look, |rig| rig.same(0, 1, &doc())));
    assert_eq!(rig.tail(1, &doc()), 5000);
}

#[test]
fn a_transport_without_room_bounds_what_is_sent() {
    let (mut rig, wire) = joined(&small(), &[doc()], Transport::Reliable, Access::Write);
    const ROOM: u64 = 2 * FRAME;
    rig.wires[wire].capacity[0] = Some(ROOM);
    rig.wires[wire].paused[0] = true;
    rig.tell_room(wire, 0);
    // Control messages need no room; there are few, and all are small.
    const CONTROL: u64 = 256;
    let mut look = |rig: &mut Rig| {
        assert_bounds(rig, wire, 10 * 132);
        let queued: u64 = rig.wires[wire].queues[0].iter().map(|frame| frame.len() as u64).sum();
        assert!(queued <= ROOM + CONTROL, "{queued} bytes wait for a transport that has room for {ROOM}");
    };
    for number in 0..500 {
        rig.append(0, &doc(), numbered(number * 10..(number + 1) * 10, 100));
        rig.run_until(MILLISECOND, &mut look, |_| false);
    }
    assert_eq!(rig.tail(1, &doc()), 0);
    // The reader takes a frame now and then.
    for _ in 0..20 {
        rig.deliver(wire, 0);
        rig.run_until(MILLISECOND, &mut look, |_| false);
    }
    assert!((1..5000).contains(&rig.tail(1, &doc())), "it goes on as there is room");
    rig.wires[wire].paused[0] = false;
    assert!(rig.run_until(SECOND * 10, &mut look, |rig| rig.same(0, 1, &doc())));
}

#[test]
fn the_parts_of_a_large_op_keep_to_the_window() {
    let (mut rig, wire) = joined(&small(), &[doc()], Transport::Reliable, Access::Write);
    rig.wires[wire].paused[0] = true;
    rig.append(0, &doc(), [Bytes::from(vec![1; 1 << 20])]);
    let mut look = |rig: &mut Rig| {
        let queued: u64 = rig.wires[wire].queues[0].iter().map(|frame| frame.len() as u64).sum();
        assert!(queued <= WINDOW + FRAME, "{queued} bytes of one op are under way");
    };
    while !rig.run_until(MILLISECOND * 30, &mut look, |rig| rig.tail(1, &doc()) == 1) {
        assert!(rig.deliver(wire, 0), "the next part is under way");
    }
}

/// What is outstanding is worked out from the frames alone, and compared with what the peer last said.
#[test]
fn never_more_is_outstanding_than_was_granted() {
    for seed in 0..20 {
        let mut dice = Rng::new(seed);
        let documents = numbered_documents(5);
        let mut rig = Rig::new(seed);
        for _ in 0..2 {
            let end = rig.add(small());
            documents.iter().for_each(|document| rig.open(end, document));
        }
        let wire = rig.join(0, 1, Transport::Reliable);
        rig.wires[wire].trace = Some(Vec::new());
        let mut model = CreditModel::new(small().session.limits);
        let mut look = |rig: &mut Rig| model.check(rig.wires[wire].trace.as_ref().expect("it is kept"), 0);
        rig.run_until(SECOND, &mut look, |_| false);
        let mut number = 0;
        for _ in 0..300 {
            let document = &documents[dice.below(5) as usize];
            match dice.below(10) {
                0..=5 => {
                    let (count, len) = match dice.below(10) {
                        0 => (1, 1 + dice.below(3 * WINDOW)), // alone, or in parts
                        1..=3 => (100, 100),
                        _ => (1 + dice.below(10), dice.below(500)),
                    };
                    rig.append(0, document, numbered(number..number + count, len as usize));
                    number += count;
                }
                6 => _ = rig.ends[1].stalled.insert(document.clone()),
                7 => _ = rig.ends[1].stalled.remove(document),
                8 => rig.wires[wire].paused[1] ^= true,
                _ => _ = rig.run_until(MILLISECOND * dice.below(50) as u32, &mut look, |_| false),
            }
            rig.settle_with(&mut look);
        }
        rig.ends[1].stalled.clear();
        rig.wires[wire].paused[1] = false;
        let done = rig.run_until(SECOND * 60, &mut look, |rig| documents.iter().all(|id| rig.same(0, 1, id)));
        assert!(done, "seed {seed}: everything arrives in the end");
        assert!(rig.endings(0).is_empty() && rig.endings(1).is_empty(), "seed {seed}: nobody called it too much");
        assert!(
            model.most.0 > WINDOW / 2 && model.most.1 > CREDIT / 2,
            "seed {seed}: credit is used: {:?}",
            model.most
        );
    }
}

#[test]
fn stuck_documents_hold_up_no_others() {
    let documents = numbered_documents(8);
    let mut config = small();
    // The window of a document is all that the link may have: only its share keeps it from taking all.
    config.session.limits.window = CREDIT as u32;
    let (mut rig, wire) = joined(&config, &documents, Transport::Reliable, Access::Write);
    let (stuck, others) = documents.split_at(3);
    rig.ends[1].stalled.extend(stuck.iter().cloned());
    let mut look = |rig: &mut Rig| assert_bounds(rig, wire, 8 * 100 * 132);
    for round in 0..30 {
        for document in stuck.iter().chain(others) {
            rig.append(0, document, numbered(round * 100..(round + 1) * 100, 100));
        }
        rig.settle_with(&mut look);
    }
    let done = rig.run_until(SECOND * 20, &mut look, |rig| others.iter().all(|document| rig.same(0, 1, document)));
    assert!(done, "the others are complete while three are stuck");
    assert!(stuck.iter().all(|document| rig.tail(1, document) == 0));
    rig.ends[1].stalled.clear();
    let done = rig.run_until(SECOND * 20, &mut look, |rig| stuck.iter().all(|document| rig.same(0, 1, document)));
    assert!(done, "those that were stuck are complete later");
}

#[test]
fn hundreds_of_documents_that_wait_for_one_credit_all_get_their_turn() {
    let documents = numbered_documents(300);
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let (mut rig, wire) = joined(&small(), &documents, transport, Access::Write);
        // Some of them are stuck at the reader for ever, and keep their share.
        rig.ends[1].stalled.extend(documents.iter().step_by(100).cloned());
        rig.wires[wire].trace = Some(Vec::new());
        for document in &documents {
            rig.append(0, document, numbered(0..20, 1000));
        }
        let moving = |index: usize| !index.is_multiple_of(100);
        let complete = |rig: &Rig| {
            let mut moving = documents.iter().enumerate().filter(|(index, _)| moving(*index));
            moving.all(|(_, document)| rig.same(0, 1, document))
        };
        // Nothing takes time but the delay of acknowledgements: who is forgotten would wait for a timer.
        let done = rig.run_until(SECOND * 10, &mut |_| {}, complete);
        assert!(done, "{transport:?}: not all were served");
        let asked = rig.wires[wire].trace.iter().flatten().filter(|traced| match traced {
            Traced::Sent(0, frame) => matches!(unwrapped(frame, transport), Message::Ping(ping) if ping.blocked),
            _ => false,
        });
        assert!(transport != Transport::Reliable || asked.count() == 0, "nobody had to ask for credit");
    }
}

#[test]
fn a_backlog_waits_for_no_timer() {
    for transport in [Transport::Reliable, Transport::Datagram { mtu: 1200 }] {
        let mut rig = Rig::new(5);
        let [writer, reader] = [(); 2].map(|()| rig.add(Config::default()));
        rig.open(writer, &doc());
        rig.open(reader, &doc());
        rig.append(writer, &doc(), numbered(0..10_000, 1000));
        rig.settle();
        rig.join(writer, reader, transport);
        let begun = rig.now;
        // Forty windows over a path that takes no time. An acknowledgement that waited would cost 25 ms each time.
        assert!(rig.run_until(SECOND * 10, &mut |_| {}, |rig| rig.same(writer, reader, &doc())));
        assert!(rig.now.since(begun) <= 100 * MILLISECOND, "{transport:?}: {:?}", rig.now.since(begun));
    }
}

#[test]
fn a_backlog_does_not_hold_up_a_small_document() {
    // The backlog has the lower number, so that it would always come first.
    let (huge, small_one) = (document("a-huge"), document("b-small"));
    // Windows and reads are wide: only turns keep the backlog from taking all that the transport takes.
    let limits = Limits { frame: FRAME as u32, ..Limits::default() };
    let session = session::Config { limits, ..session::Config::default() };
    let config = Config { session, read_max: 1 << 20, ..small() };
    let mut rig = Rig::new(3);
    for _ in 0..2 {
        let end = rig.add(config.clone());
        rig.open(end, &huge);
        rig.open(end, &small_one);
    }
    rig.settle();
    rig.append(0, &huge, numbered(0..20_000, 100));
    rig.settle();
    let wire = rig.join(0, 1, Transport::Reliable);
    // Two frames fit the transport, so that what waits, waits in the session.
    rig.wires[wire].capacity[0] = Some(2 * FRAME);
    rig.wires[wire].paused[0] = true;
    rig.tell_room(wire, 0);
    let step = |rig: &mut Rig| {
        rig.deliver(wire, 0);
        rig.run_until(MILLISECOND, &mut |_| {}, |_| false);
    };
    (0..30).for_each(|_| step(&mut rig));
    assert!((1..20_000).contains(&rig.tail(1, &huge)), "the backlog is on its way");
    for number in 0..20 {
        let before = rig.tail(1, &huge);
        rig.append(0, &small_one, numbered(number..number + 1, 1000)); // no room for it at once
        let mut ahead = 0;
        while rig.tail(1, &small_one) == number {
            let next = rig.wires[wire].queues[0].front().map(Message::decode);
            ahead += usize::from(matches!(next, Some(Ok(Message::Changes(_)))));
            step(&mut rig);
        }
        // What the transport had taken, and a turn of the backlog's while the op was read and before it came.
        assert!(ahead <= 5, "op {number} of the small document was the {ahead}th frame to come");
        assert!(rig.tail(1, &huge) < 20_000 && rig.tail(1, &huge) >= before, "the backlog goes on beside it");
    }
}

#[test]
fn a_thousand_sessions_cost_one_encoding() {
    const READERS: usize = 1000;
    let mut rig = Rig::new(11);
    let hub = rig.add(Config::default());
    rig.open(hub, &doc());
    for _ in 0..READERS {
        let reader = rig.add(Config::default());
        rig.open(reader, &doc());
        rig.join(hub, reader, Transport::Reliable);
    }
    rig.run_for(SECOND);
    let mut expected = 0;
    for (batch, (ops, len)) in [(1, 20), (10, 20), (100, 200)].into_iter().enumerate() {
        rig.wires.iter_mut().for_each(|wire| wire.trace = Some(Vec::new()));
        let before = rig.ends[hub].replica.stats();
        rig.append(hub, &doc(), numbered(expected..expected + ops, len));
        expected += ops;
        rig.settle();
        let after = rig.ends[hub].replica.stats();
        assert_eq!((after.packed - before.packed, after.batches - before.batches), (1, 1), "batch {batch}");
        let frames = rig.wires.iter().map(|wire| {
            let trace = wire.trace.as_ref().expect("it is kept");
            let changes = trace.iter().filter_map(|traced| match traced {
                Traced::Sent(0, frame) if matches!(Message::decode(frame), Ok(Message::Changes(_))) => Some(frame),
                _ => None,
            });
            changes.cloned().collect::<Vec<Bytes>>()
        });
        let frames: Vec<_> = frames.collect();
        assert!(
            frames.iter().all(|some| some.len() == 1 && some[0] == frames[0][0]),
            "batch {batch}: all got the same"
        );
        // Not only equal: the very same memory.
        let places: BTreeSet<_> = frames.iter().map(|frames| frames[0].as_ptr()).collect();
        assert_eq!(places.len(), 1, "batch {batch} was copied");
    }
    rig.run_for(SECOND);
    assert!((1..=READERS).all(|reader| rig.tail(reader, &doc()) == expected));
}

#[test]
fn a_document_larger_than_memory_is_served_piece_by_piece() {
    let mut rig = Rig::new(13);
    let first = rig.add(small());
    rig.open(first, &doc());
    rig.settle();
    for batch in 0..40 {
        rig.append(first, &doc(), numbered(batch * 1000..(batch + 1) * 1000, 100));
        rig.settle();
    }
    let second = rig.add(small());
    rig.open(second, &doc());
    let wire = rig.join(first, second, Transport::Reliable);
    let cost = 40_000 * 132;
    assert!(cost > 300 * (TAIL + READ), "the document is much larger than what may be in memory");
    let mut look = |rig: &mut Rig| {
        let held = rig.ends[first].replica.memory_cost();
        assert!(held <= TAIL, "the sender holds {held}");
        let taken = rig.ends[second].replica.memory_cost();
        assert!(taken <= TAIL + WINDOW, "the receiver holds {taken}");
    };
    assert!(rig.run_until(SECOND * 60, &mut look, |rig| rig.same(first, second, &doc())));
    assert_eq!(rig.tail(second, &doc()), 40_000);
    assert!(rig.ends[first].read_cost_max <= READ, "pieces of {}", rig.ends[first].read_cost_max);
    let reads = rig.ends[first].replica.stats().reads;
    assert!((cost / READ..=cost / READ * 5 / 4).contains(&reads), "{reads} reads: each entry was read about once");
    assert!(rig.session(wire, 0).stats().bytes_sent < cost, "and sent once");
}

#[test]
fn equal_reads_are_shared() {
    let reads_for = |readers: usize| {
        let mut rig = Rig::new(17);
        let hub = rig.add(small());
        rig.open(hub, &doc());
        rig.settle();
        rig.append(hub, &doc(), numbered(0..5000, 100));
        rig.settle();
        for _ in 0..readers {
            let reader = rig.add(small());
            rig.open(reader, &doc());
            rig.join(hub, reader, Transport::Reliable);
        }
        assert!(rig.run_until(SECOND * 60, &mut |_| {}, |rig| (1..=readers).all(|end| rig.same(hub, end, &doc()))));
        rig.ends[hub].replica.stats().reads
    };
    let (one, twenty) = (reads_for(1), reads_for(20));
    assert!(one >= 5000 * 132 / READ, "{one} reads for one reader");
    assert!(twenty <= one * 2, "{one} reads for one reader, {twenty} for twenty that go the same way");
}

/// Nothing is unreceived then, so that only the sender's question brings the lost statement back.
#[test]
fn a_lost_window_update_is_asked_for() {
    let transport = Transport::Datagram { mtu: 1200 };
    let (mut rig, wire) = joined(&small(), &[doc()], transport, Access::Read);
    rig.ends[1].stalled.insert(doc());
    rig.append(0, &doc(), numbered(0..1000, 100));
    rig.run_for(SECOND);
    assert_eq!(rig.session(wire, 0).under_way().0, 0, "everything that was sent was received");
    // The disk goes on, and what the reader says about it is lost.
    rig.wires[wire].loses = Some(Box::new(|side, _| side == 1));
    rig.ends[1].stalled.clear();
    rig.settle();
    rig.run_for(MILLISECOND * 100);
    let stood_at = rig.tail(1, &doc());
    assert!((1..1000).contains(&stood_at), "the window is closed, as far as the sender knows");
    rig.wires[wire].loses = None;
    assert!(rig.run_until(SECOND * 5, &mut |_| {}, |rig| rig.same(0, 1, &doc())), "it opens again");
}

/// A closed window is asked about once a timeout, not with every chance.
#[test]
fn a_blocked_sender_asks_seldom() {
    let transport = Transport::Datagram { mtu: 1200 };
    let (mut rig, wire) = joined(&small(), &[doc()], transport, Access::Read);
    rig.ends[1].stalled.insert(doc());
    rig.append(0, &doc(), numbered(0..1000, 100));
    rig.run_for(SECOND);
    let before = rig.session(wire, 0).stats().frames_sent;
    rig.run_for(SECOND * 10);
    let asked = rig.session(wire, 0).stats().frames_sent - before;
    assert!((1..=1000).contains(&asked), "{asked} questions in ten seconds");
    assert!(!rig.ends[0].events.iter().any(|event| matches!(event, Event::Disconnected { .. })));
}

/// Each session is granted something, and what one brought stays when it goes.
#[test]
fn many_writers_don_t_fill_the_memory_while_the_disk_stalls() {
    const WAITING: u64 = 100 << 10;
    let mut rig = Rig::new(8);
    let keeper = rig.add(Config { waiting_max: WAITING, ..small() });
    rig.open(keeper, &doc());
    let writers: Vec<_> = (0..40).map(|_| rig.add(small())).collect();
    for writer in &writers {
        rig.open(*writer, &doc());
        rig.join(*writer, keeper, Transport::Reliable);
    }
    rig.run_for(SECOND);
    rig.ends[keeper].stalled.insert(doc());
    for writer in &writers {
        rig.append(*writer, &doc(), numbered(0..32, 1000));
    }
    rig.run_for(10 * SECOND);
    let cost = rig.ends[keeper].replica.memory_cost();
    assert!((WAITING..WAITING + 2 * WINDOW + TAIL).contains(&cost), "{cost}");
    assert!(rig.endings(keeper).is_empty(), "sessions go on, for other documents");
    // Those who were refused are taken up again as soon as the disk works.
    rig.ends[keeper].stalled.clear();
    rig.run_for(10 * SECOND);
    assert_eq!(rig.tail(keeper, &doc()), 40 * 32);
    assert!(writers.iter().all(|writer| rig.same(keeper, *writer, &doc())));
}
