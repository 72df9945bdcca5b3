//! Nothing is applied past a gap, nothing is acknowledged before it is durable, and a storage that fails is told of
//! precisely: which document, which appends.

mod common;

use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::heads::Judgement;
use antiphon::log::Log;
use antiphon::op::{Body, Cursor, ReplicaId, Timeline};
use antiphon::replica::{Config, Event, Options};
use antiphon::session::{self, Input, Local, Opening, Output};
use antiphon::storage::{Batch, Continuity, Storage, Transaction};
use antiphon::timeline::Opens;
use antiphon::wire::{Access, Content, Message, Point};
use antiphon::{Instant, Session};
use antiphon_memory::{CrashPoint, Disk, Pair};
use antiphon_sim::World;
use antiphon_sim::world::{Medium, NodeId, PathId};
use bytes::Bytes;
use common::restored::identity;
use common::*;

// -------------------------------------------------------------------------------------------- gaps

const NOW: Instant = Instant::from_millis(1);

/// The host of a bare session: one document, in memory.
struct Host(Log);

fn id(side: usize) -> ReplicaId {
    ReplicaId([side as u8 + 1; 16])
}

impl Host {
    fn new(side: usize) -> Self {
        Self(Log::new(Arc::new(Opens::first(Timeline::new(side as u64 + 10)))))
    }

    fn opening(&self) -> Input {
        Input::Open(Box::new(Opening {
            number: 0,
            document: doc(),
            access: Access::Write,
            grant: Access::Write,
            thorough: false,
            schema: None,
            history: self.0.history().clone(),
            horizon: 0,
            snapshot: None,
            tail: self.0.tail(),
            heads: self.0.heads().clone(),
            cursor: None,
        }))
    }

    fn advance(&self, held: u64) -> Input {
        let (tail, digest) = (self.0.tail(), self.0.heads().digest());
        Input::Advance { number: 0, tail, digest, held, live: None }
    }

    fn answer(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Authenticate { .. } => vec![Input::Authenticated(Ok(()))],
            Output::Event(session::Event::PeerOpened { .. }) => vec![self.opening()],
            Output::Load { number, from, max_cost } => {
                let chunk = self.0.read(from, max_cost).expect("all is in memory");
                vec![Input::Loaded { number, chunk }]
            }
            Output::Compare { number, heads } => {
                let comparison = self.0.compare(&heads).expect("all is in memory");
                vec![Input::Compared { number, comparison }]
            }
            Output::Take { origin, to, ops, .. } => {
                for op in ops {
                    assert_eq!(self.0.take(op, Some(origin)), Judgement::Next, "never past a gap, never twice");
                }
                vec![self.advance(to)]
            }
            _ => Vec::new(),
        }
    }
}

fn work(pair: &mut Pair<Session>, hosts: &mut [Host; 2], side: usize) {
    while let Some(output) = pair.poll(side) {
        for input in hosts[side].answer(output) {
            pair.handle(NOW, side, input).expect("hosts do as they should");
        }
    }
}

fn is_changes(frame: &Bytes) -> bool {
    matches!(Message::decode(frame), Ok(Message::Changes(_)))
}

#[test]
fn nothing_is_applied_past_a_gap_and_what_is_missing_is_asked_for_once() {
    const OPS: u64 = 5;
    for lost in 0..OPS - 1 {
        let mut pair = Pair::new([0, 1].map(|side| {
            let (timeline, nonce) = (Timeline::new(side as u64 + 10), side as u64 + 20);
            let local = Local { replica: id(side), timeline, previous: None, nonce, token: None };
            Session::new(Instant::ZERO, session::Config::default(), local)
        }));
        let mut hosts = [Host::new(0), Host::new(1)];
        pair.settle(NOW, |side, output| hosts[side].answer(output)).unwrap();
        pair.handle(NOW, 0, hosts[0].opening()).unwrap();
        pair.settle(NOW, |side, output| hosts[side].answer(output)).unwrap();
        for number in 0..OPS {
            hosts[0].0.append(id(0), Body::Bytes(Bytes::from(vec![number as u8; 20])));
            let advance = hosts[0].advance(0);
            pair.handle(NOW, 0, advance).unwrap();
            work(&mut pair, &mut hosts, 0);
        }
        let frames = pair.frames_to(1);
        let changes: Vec<_> = (0..frames.len()).filter(|index| is_changes(&frames[*index])).collect();
        assert_eq!(changes.len() as u64, OPS, "one frame an op");
        frames.remove(changes[lost as usize]);
        while let Some(frame) = pair.frames_to(1).pop_front() {
            pair.handle(NOW, 1, Input::Received(frame)).unwrap();
            work(&mut pair, &mut hosts, 1);
        }
        assert_eq!(hosts[1].0.tail(), lost, "what came before the gap, and nothing beyond");
        assert_eq!(pair.end(1).taken(0).map(|cursor| cursor.position), Some(lost));
        let rewinds: Vec<_> = pair
            .frames_to(0)
            .iter()
            .filter_map(|frame| match Message::decode(frame) {
                Ok(Message::Rewind(rewind)) => Some((rewind.received, rewind.from, rewind.to)),
                _ => None,
            })
            .collect();
        let gap = Point::at(lost);
        assert_eq!(rewinds, [(gap, gap, None)], "one question, however many frames show the gap");
        pair.settle(NOW, |side, output| hosts[side].answer(output)).unwrap();
        assert_eq!(hosts[1].0.heads(), hosts[0].0.heads(), "the Rewind brings the rest");
    }
}

#[test]
fn an_op_whose_author_has_a_gap_before_it_is_refused_and_heads_bring_the_rest() {
    let mut world = World::new(1);
    let sender = world.add(Config::default());
    world.open(sender, &doc(), Options::default());
    (1..=5).for_each(|number| world.append(sender, &doc(), format!("op {number}")));
    // A cursor that leads, as no replica would write it: the receiver claims to hold two ops that it lacks.
    let disk = Disk::new();
    let identity = world.disk(sender).backup().open().unwrap().identity().unwrap().expect("it was opened");
    let cursor = Cursor { timeline: identity.opens.current(), position: 2 };
    let batch = Batch {
        document: doc(),
        position: 0,
        entries: Vec::new(),
        cursors: vec![(identity.replica, cursor)],
        timeline: None,
        salvaged: None,
    };
    disk.open().unwrap().write(&Transaction::Append(Arc::new(batch))).unwrap();
    let receiver = world.add_on(disk, Config::default(), Continuity::Proven);
    world.open(receiver, &doc(), Options::default());
    world.append(receiver, &doc(), "its own");
    world.record();
    world.join(sender, receiver, Medium::reliable(10 * MILLISECOND));
    converge(&mut world, &[sender, receiver], &doc(), SECOND);
    let from_receiver: Vec<_> = messages(&world, receiver);
    let gap = from_receiver
        .iter()
        .position(|message| matches!(message, Message::Close(end) if end.code == Code::AUTHOR_GAP))
        .expect("the op after the gap was refused");
    let opens: Vec<_> = from_receiver[..gap].iter().filter(|message| matches!(message, Message::Open(_))).collect();
    assert!(matches!(opens[..], [Message::Open(open)] if open.cursor.is_some()), "first it relied on its cursor");
    let after = &from_receiver[gap..];
    assert!(after.iter().any(|message| matches!(message, Message::Open(open) if open.cursor.is_none())));
    assert!(after.iter().any(|message| matches!(message, Message::Heads(_))), "then on its heads");
    let mut seqs = Vec::new();
    for event in world.events(receiver) {
        assert!(!matches!(event, Event::Failed { .. }), "the storage never saw an op past the gap: {event:?}");
        if let Event::Received { batch } = event {
            seqs.extend(batch.entries.iter().filter(|entry| entry.origin.is_some()).map(|entry| entry.op.id.seq));
        }
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
}

/// What a replica said on reliable paths.
fn messages(world: &World, node: NodeId) -> Vec<Message> {
    let sent = world.transcript().iter().filter(|sent| sent.from == node);
    sent.map(|sent| Message::decode(&sent.frame).expect("replicas send messages")).collect()
}

// -------------------------------------------------------------------------------------------- acknowledgements

/// Two replicas on a path without latency to speak of; the first has the ops.
fn pair(seed: u64) -> (World, [NodeId; 2], PathId) {
    let (mut world, nodes) = world(seed, 2);
    world.record();
    let path = world.join(nodes[0], nodes[1], Medium::reliable(MILLISECOND));
    world.run_for(SECOND);
    (world, [nodes[0], nodes[1]], path)
}

/// The highest position that a replica has acknowledged as taken, and as durable.
fn acknowledged(world: &World, node: NodeId) -> (u64, u64) {
    messages(world, node).iter().fold((0, 0), |(received, held), message| match message {
        Message::Ack(ack) => (received.max(ack.received.position), held.max(ack.held)),
        _ => (received, held),
    })
}

#[test]
fn what_a_stalled_storage_has_not_written_is_received_but_not_acknowledged() {
    let (mut world, nodes, _) = pair(2);
    let mut promises = Promises::default();
    world.append(nodes[0], &doc(), "before");
    promises.run_for(&mut world, &nodes, SECOND);
    assert_eq!(acknowledged(&world, nodes[1]), (1, 1));
    world.stall_storage(nodes[1], true);
    for number in 0..10 {
        world.append(nodes[0], &doc(), format!("op {number}"));
        promises.run_for(&mut world, &nodes, 100 * MILLISECOND);
    }
    assert_eq!(acknowledged(&world, nodes[1]), (11, 1), "taken is told at once, held only when it is so");
    assert_eq!(count(&world, nodes[0], |event| matches!(event, Event::Acknowledged { position: 2.., .. })), 0);
    world.stall_storage(nodes[1], false);
    promises.run_for(&mut world, &nodes, SECOND);
    assert_eq!(acknowledged(&world, nodes[1]), (11, 11));
    converge(&mut world, &nodes, &doc(), SECOND);
}

#[test]
fn a_skip_does_not_vouch_for_what_lies_before_it() {
    let (mut world, nodes, _) = pair(10);
    let mut promises = Promises::default();
    world.set_storage_delay(nodes[0], 50 * MILLISECOND);
    world.append(nodes[0], &doc(), "x");
    world.append(nodes[1], &doc(), "y");
    promises.run_for(&mut world, &nodes, 20 * MILLISECOND);
    world.stall_storage(nodes[1], true);
    // The first log is now x, y: x is under way to a storage that stalls, and y is skipped as the receiver's own.
    promises.run_for(&mut world, &nodes, SECOND);
    assert_eq!(acknowledged(&world, nodes[1]), (2, 0), "both are taken, but nothing is durable below y");
    world.stall_storage(nodes[1], false);
    converge(&mut world, &nodes, &doc(), SECOND);
}

#[test]
fn own_ops_travel_only_once_they_are_durable() {
    let (mut world, nodes, _) = pair(3);
    world.stall_storage(nodes[0], true);
    world.append(nodes[0], &doc(), "not yet");
    world.run_for(SECOND);
    let ops = |world: &World| messages(world, nodes[0]).iter().filter(|m| matches!(m, Message::Changes(_))).count();
    assert_eq!(ops(&world), 0, "an op that a crash could still take back would be another op's twin");
    world.stall_storage(nodes[0], false);
    converge(&mut world, &nodes, &doc(), SECOND);
    assert_eq!(ops(&world), 1);
}

#[test]
fn a_write_that_fails_once_is_not_acknowledged_and_comes_again() {
    let (mut world, nodes, _) = pair(4);
    let mut promises = Promises::default();
    world.disk(nodes[1]).fail_next(1);
    world.append(nodes[0], &doc(), "twice sent");
    promises.run_for(&mut world, &nodes, 20 * MILLISECOND);
    assert_eq!(acknowledged(&world, nodes[1]).1, 0);
    assert_eq!(count(&world, nodes[1], |event| matches!(event, Event::Failed { .. })), 1);
    promises.run_for(&mut world, &nodes, SECOND);
    assert_eq!(count(&world, nodes[1], |event| matches!(event, Event::Recovered { .. })), 1);
    assert_eq!(count(&world, nodes[0], |event| matches!(event, Event::Acknowledged { .. })), 1);
    converge(&mut world, &nodes, &doc(), SECOND);
}

#[test]
fn a_storage_that_fails_for_ever_acknowledges_nothing_for_ever() {
    let (mut world, nodes, _) = pair(5);
    let mut promises = Promises::default();
    world.disk(nodes[1]).fail_always(true);
    (0..5).for_each(|number| world.append(nodes[0], &doc(), format!("op {number}")));
    let sent = world.transcript().len();
    promises.run_for(&mut world, &nodes, 600 * SECOND);
    assert_eq!((acknowledged(&world, nodes[1]).1, promises.acknowledgements), (0, 0));
    let failures = count(&world, nodes[1], |event| matches!(event, Event::Failed { .. }));
    assert!((10..60).contains(&failures), "it is tried again with backoff: {failures} times in ten minutes");
    let frames = world.transcript().len() - sent;
    assert!(frames < 60 * 20, "{frames} frames for nothing: the peers do not spin");
    world.disk(nodes[1]).fail_always(false);
    converge(&mut world, &nodes, &doc(), 60 * SECOND);
    world.run_for(SECOND);
    assert_eq!(acknowledged(&world, nodes[1]).1, 5);
}

// -------------------------------------------------------------------------------------------- failures

#[test]
fn a_document_that_cannot_be_written_leaves_the_others_running() {
    let (mut world, nodes) = world(6, 2);
    let (sick, well) = (doc(), document("well"));
    nodes.iter().for_each(|node| world.open(*node, &well, Options::default()));
    world.join(nodes[0], nodes[1], Medium::reliable(MILLISECOND));
    world.run_for(SECOND);
    world.disk(nodes[1]).fail_document(&sick, true);
    for number in 0..20 {
        world.append(nodes[0], &sick, format!("sick {number}"));
        world.append(nodes[0], &well, format!("well {number}"));
        world.append(nodes[1], &well, format!("well too {number}"));
        world.run_for(SECOND);
        assert!(same_on_disks(&world, &nodes, &well), "the other document is in step within a second, every time");
    }
    assert_eq!(bodies_on(world.disk(nodes[1]), &sick).len(), 0);
    let failed = |document: &_| {
        count(&world, nodes[1], |event| matches!(event, Event::Failed { document: failed, .. } if failed == document))
    };
    assert!(failed(&sick) > 0 && failed(&well) == 0);
    assert_eq!(count(&world, nodes[1], |event| matches!(event, Event::Disconnected { .. })), 0);
    world.disk(nodes[1]).fail_document(&sick, false);
    converge(&mut world, &nodes, &sick, 60 * SECOND);
}

/// What a lone replica told its app of its appends, in order.
#[derive(Debug, Eq, PartialEq)]
enum Told {
    Applied(u64),
    Failed,
    Recovered(u64, Vec<Bytes>),
}

fn told(world: &World, node: NodeId) -> Vec<Told> {
    let told = world.events(node).filter_map(|event| match event {
        Event::Applied { id, .. } => Some(Told::Applied(id.seq)),
        Event::Failed { .. } => Some(Told::Failed),
        Event::Recovered { seq, lost, .. } => Some(Told::Recovered(*seq, lost.clone())),
        _ => None,
    });
    told.collect()
}

#[test]
fn after_a_failure_the_app_is_told_which_appends_are_durable_and_which_are_lost() {
    let (mut world, nodes) = world(7, 1);
    let node = nodes[0];
    world.append(node, &doc(), "a");
    world.set_storage_delay(node, MILLISECOND);
    world.disk(node).fail_next(1);
    world.append(node, &doc(), "b"); // being written when the storage fails
    world.append(node, &doc(), "c"); // gathered behind it
    world.run_for(2 * MILLISECOND);
    world.append(node, &doc(), "d"); // after the failure: waits, and may rely on what is lost
    world.run_for(SECOND);
    let lost = ["b", "c", "d"].map(Bytes::from).to_vec();
    assert_eq!(told(&world, node), [Told::Applied(1), Told::Failed, Told::Recovered(1, lost)]);
    world.append(node, &doc(), "e");
    world.run_for(SECOND);
    assert_eq!(told(&world, node).last(), Some(&Told::Applied(2)));
    assert_eq!(bodies_on(world.disk(node), &doc()), [b"a", b"e"]);
}

#[test]
fn what_was_being_written_when_the_replica_got_a_new_id_is_told_too() {
    let (mut world, nodes) = world(9, 2);
    let (node, other) = (nodes[0], nodes[1]);
    let path = world.join(node, other, Medium::reliable(MILLISECOND));
    world.append(node, &doc(), "a");
    world.run_for(SECOND);
    let before = world.replica(node).unwrap().id();
    world.set_storage_delay(node, 100 * MILLISECOND);
    world.append(node, &doc(), "b"); // being written
    world.append(node, &doc(), "c"); // gathered behind it
    // The app gives its history up while that is under way.
    let link = world.link(path, node).expect("they are connected");
    world.input(node, antiphon::replica::Input::Reset { document: doc(), link });
    world.run_for(5 * SECOND);
    let after = world.replica(node).unwrap().id();
    assert_ne!(before, after);
    let applied: Vec<_> = world
        .events(node)
        .filter_map(|event| match event {
            Event::Applied { id, .. } => Some((id.author, id.seq)),
            _ => None,
        })
        .collect();
    assert!(applied.starts_with(&[(before, 1), (before, 2)]) && applied.contains(&(after, 1)), "{applied:?}");
    converge(&mut world, &[node, other], &doc(), 10 * SECOND);
    assert_eq!(bodies_on(world.disk(node), &doc()).len(), 3);
}

#[test]
fn a_write_beyond_its_deadline_is_a_failure_and_its_late_answer_means_nothing() {
    for succeeds in [true, false] {
        let (mut world, nodes) = world(8, 1);
        let node = nodes[0];
        world.append(node, &doc(), "a");
        world.stall_storage(node, true);
        world.append(node, &doc(), "b");
        world.run_for(29 * SECOND);
        assert_eq!(told(&world, node), [Told::Applied(1)]);
        world.run_for(5 * SECOND);
        assert_eq!(told(&world, node), [Told::Applied(1), Told::Failed]);
        // The disk wakes up and carries out what it was told, or fails at it; nobody waits for that answer.
        world.disk(node).fail_next(u64::from(!succeeds));
        world.stall_storage(node, false);
        world.run_for(SECOND);
        let recovered = if succeeds {
            Told::Recovered(2, Vec::new()) // it is there after all
        } else {
            Told::Recovered(1, vec![Bytes::from("b")])
        };
        assert_eq!(told(&world, node), [Told::Applied(1), Told::Failed, recovered]);
        world.append(node, &doc(), "c");
        world.run_for(SECOND);
        let applied = Told::Applied(if succeeds { 3 } else { 2 });
        assert_eq!(told(&world, node).last(), Some(&applied));
        let expected: &[&[u8]] = if succeeds { &[b"a", b"b", b"c"] } else { &[b"a", b"c"] };
        assert_eq!(bodies_on(world.disk(node), &doc()), expected);
    }
}

// -------------------------------------------------------------------------------------------- cursors

/// How many ops a replica sent in frames since `from`.
fn ops_sent(world: &World, node: NodeId, from: usize) -> u64 {
    let sent = world.transcript()[from..].iter().filter(|sent| sent.from == node);
    sent.map(|sent| match Message::decode(&sent.frame) {
        Ok(Message::Changes(changes)) => match changes.content {
            Content::Live { .. } | Content::Part { .. } => 1,
            Content::Bulk { runs, .. } => runs.iter().map(|run| run.count).sum(),
        },
        _ => 0,
    })
    .sum()
}

#[test]
fn a_cursor_is_durable_with_the_ops_that_it_stands_for() {
    const OPS: u64 = 40;
    let mut crashes = 0;
    for step in 1.. {
        let mut crashed = false;
        for point in [CrashPoint::Before, CrashPoint::After] {
            let (mut world, nodes, path) = pair(9);
            world.disk(nodes[1]).crash_at_step(step, point);
            for number in 0..OPS {
                world.append(nodes[0], &doc(), format!("op {number}"));
                world.run_for(MILLISECOND * (number % 3) as u32);
            }
            world.run_for(100 * MILLISECOND);
            if world.is_up(nodes[1]) {
                continue;
            }
            crashed = true;
            world.cut(path, true);
            let author = world.id(nodes[0]);
            let held = bodies_on(world.disk(nodes[1]), &doc()).len() as u64;
            let stored = world.disk(nodes[1]).backup().open().unwrap().cursor(&doc(), author).unwrap();
            assert_eq!(
                stored.map_or(0, |cursor| cursor.position),
                held,
                "step {step} {point:?}: neither leads nor lags"
            );
            let before = world.transcript().len();
            world.start(nodes[1], Continuity::Proven);
            world.mend(path);
            converge(&mut world, &nodes, &doc(), 10 * SECOND);
            world.run_for(SECOND);
            assert_eq!(ops_sent(&world, nodes[0], before), OPS - held, "step {step} {point:?}: what it lacks, no more");
            crashes += 1;
        }
        if !crashed {
            break;
        }
    }
    assert!(crashes > 20, "{crashes} crashes: there were steps to crash at");
}

#[test]
fn a_reset_beyond_its_deadline_is_a_failure_and_is_tried_again() {
    for (succeeds, new_id_written) in [(true, true), (false, true), (true, false), (false, false)] {
        let (mut world, nodes) = world(10, 2);
        let (node, other) = (nodes[0], nodes[1]);
        let path = world.join(node, other, Medium::reliable(MILLISECOND));
        world.append(node, &doc(), "a");
        world.run_for(SECOND);
        let (link, before) = (world.link(path, node).expect("they are connected"), world.id(node));
        world.stall_storage(node, !new_id_written);
        world.set_storage_delay(node, MILLISECOND); // so that the new id is written at one moment and the reset at another
        world.input(node, antiphon::replica::Input::Reset { document: doc(), link });
        if new_id_written {
            let written = |world: &World| identity(world.disk(node)).replica != before;
            assert!(world.run_until(SECOND, written));
            world.stall_storage(node, true);
        }
        world.run_for(29 * SECOND);
        assert!(!told(&world, node).contains(&Told::Failed));
        world.run_for(5 * SECOND);
        assert!(told(&world, node).contains(&Told::Failed), "somebody is told");
        world.disk(node).fail_next(u64::from(!succeeds));
        world.stall_storage(node, false);
        world.append(node, &doc(), "b");
        let mended = |world: &World| world.events(node).any(|event| matches!(event, Event::Mended { .. }));
        assert!(world.run_until(60 * SECOND, mended), "and then it is done");
        converge(&mut world, &nodes, &doc(), 60 * SECOND);
        let mut bodies = bodies_on(world.disk(node), &doc());
        bodies.sort();
        assert_eq!(bodies, [b"a", b"b"]);
    }
}
