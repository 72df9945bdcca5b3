//! Snapshots: the authority's old ops give way to one, whoever lacks them takes it, and nothing of anybody's is lost.

mod common;

use std::collections::BTreeSet;

use antiphon::codes::Code;
use antiphon::op::Entry;
use antiphon::replica::{Authority, Config, Event, Input, Options};
use antiphon::storage::{Continuity, Storage, StoredDocument};
use antiphon::wire::Message;
use antiphon_memory::{CrashPoint, Disk};
use antiphon_sim::World;
use antiphon_sim::world::{Crash, NodeId, PathId};
use bytes::Bytes;
use common::restored::{datagrams, medium, options, renewals};
use common::*;
use quickcheck::quickcheck;

/// An authority, and a client that is joined with it.
fn two(config: Config) -> (World, NodeId, NodeId, PathId) {
    let mut world = World::new(11);
    let (server, client) = (world.add(Config::default()), world.add(config));
    world.open(server, &doc(), options(Authority::Us));
    world.open(client, &doc(), options(Authority::Upstream));
    let path = world.join(client, server, medium());
    (world, server, client, path)
}

fn append(world: &mut World, node: NodeId, numbers: std::ops::Range<u32>) {
    for number in numbers {
        world.append(node, &doc(), format!("{} {number}", node.index()));
    }
}

/// Lets the snapshot `body` take the place of all that a replica holds.
fn compact(world: &mut World, node: NodeId, body: impl Into<Bytes>) {
    let (_, position) = world.replica(node).and_then(|replica| replica.document(&doc())).expect("it is loaded");
    world.input(node, Input::Compact { document: doc(), position, body: body.into() });
    world.settle();
}

/// A client that was in step, is away, and has written what nobody has seen; and a server that has compacted meanwhile.
fn away(config: Config, body: impl Into<Bytes>) -> (World, NodeId, NodeId, PathId) {
    let (mut world, server, client, path) = two(config);
    append(&mut world, server, 0..5);
    append(&mut world, client, 0..5);
    world.run_for(SECOND);
    world.cut(path, true);
    append(&mut world, client, 5..8);
    world.sync(client);
    append(&mut world, server, 5..8);
    compact(&mut world, server, body);
    (world, server, client, path)
}

fn stored(disk: &Disk) -> StoredDocument {
    disk.backup().open().expect("a copy has no holder").document(&doc()).expect("the disk works")
}

/// The entries that there are, from the horizon on.
fn entries(disk: &Disk) -> Vec<Entry> {
    let from = stored(disk).horizon;
    disk.backup().open().expect("a copy has no holder").read(&doc(), from, u64::MAX).expect("the disk works")
}

fn bodies(disk: &Disk) -> Vec<String> {
    let text = |entry: &Entry| String::from_utf8_lossy(entry.op.body.bytes().expect("no blank")).into_owned();
    entries(disk).iter().map(text).collect()
}

fn snapshot(disk: &Disk) -> Bytes {
    let id = stored(disk).snapshot.expect("there is one");
    let mut storage = disk.backup().open().expect("a copy has no holder");
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < id.bytes {
        bytes.extend(storage.snapshot(&doc(), id, bytes.len() as u64, 1000).expect("the disk works"));
    }
    bytes.split_off(id.head_bytes as usize).into()
}

fn sent(world: &World, kind: impl Fn(&Message) -> bool) -> usize {
    world.transcript().iter().filter(|sent| Message::decode(&sent.frame).is_ok_and(|message| kind(&message))).count()
}

#[test]
fn who_comes_late_takes_the_snapshot_and_what_follows_it() {
    for medium in [medium(), datagrams()] {
        let (mut world, server, _, _) = two(Config::default());
        append(&mut world, server, 0..10);
        compact(&mut world, server, "ten ops");
        append(&mut world, server, 10..13);
        let late = world.add(Config::default());
        world.open(late, &doc(), options(Authority::Upstream));
        world.join(late, server, medium);
        world.run_for(5 * SECOND);
        assert!(same_on_disks(&world, &[server, late], &doc()));
        assert_eq!(snapshot(world.disk(late)), "ten ops");
        assert_eq!(bodies(world.disk(late)), ["0 10", "0 11", "0 12"]);
        let opened = world.events(late).filter(|event| matches!(event, Event::Opened { snapshot: Some(_), .. }));
        assert_eq!(opened.count(), 1, "the app is told that there is a snapshot to begin with");
        world.append(late, &doc(), "and on it goes");
        world.run_for(SECOND);
        assert_eq!(bodies(world.disk(server)).last().map(String::as_str), Some("and on it goes"));
        assert_eq!(in_steps(&world, late) > 0, in_steps(&world, server) > 0);
    }
}

#[test]
fn who_was_in_step_hears_nothing_of_it() {
    let (mut world, server, client, _) = two(Config::default());
    append(&mut world, server, 0..10);
    world.run_for(SECOND);
    world.record();
    compact(&mut world, server, "ten ops");
    world.run_for(SECOND);
    append(&mut world, server, 10..12);
    world.run_for(SECOND);
    assert_eq!(sent(&world, |message| matches!(message, Message::Close(_) | Message::Snapshot(_))), 0);
    assert_eq!((stored(world.disk(server)).horizon, stored(world.disk(client)).horizon), (10, 0));
    assert!(same_on_disks(&world, &[server, client], &doc()));
    assert_eq!(count(&world, server, |event| matches!(event, Event::Compacted { horizon: 10, .. })), 1);
}

#[test]
fn who_returns_from_before_the_horizon_keeps_what_it_wrote() {
    for hand in [false, true] {
        let (mut world, server, client, path) = away(Config::default(), "thirteen ops");
        append(&mut world, server, 8..9);
        if hand {
            compact(&mut world, server, "fourteen ops"); // another one meanwhile
        }
        world.mend(path);
        world.run_for(5 * SECOND);
        assert!(same_on_disks(&world, &[server, client], &doc()));
        let unsent: BTreeSet<_> = (5..8).map(|number| format!("1 {number}")).collect();
        let on_server = bodies(world.disk(server));
        assert_eq!(on_server.iter().filter(|body| unsent.contains(*body)).count(), 3, "each once: {on_server:?}");
        let old = |body: &&String| *body != "0 8" && !unsent.contains(*body);
        assert_eq!(bodies(world.disk(client)).iter().filter(old).count(), 0, "what the snapshot has is not here twice");
        assert_eq!(count(&world, client, |event| matches!(event, Event::Mended { .. })), 1);
        assert_eq!(count(&world, client, |event| matches!(event, Event::Orphaned { .. })), 0);
        append(&mut world, client, 8..9);
        world.run_for(SECOND);
        assert_eq!(bodies(world.disk(server)).last().map(String::as_str), Some("1 8"));
    }
}

#[test]
fn what_is_written_amid_an_install_takes_no_place_of_what_was_put_aside() {
    let (mut world, server, client, path) = away(Config::default(), "thirteen ops");
    let unsent = entries(world.disk(client)).split_off(10);
    world.mend(path);
    for number in 0..60 {
        world.append(client, &doc(), format!("amid it {number}"));
        world.run_for(2 * MILLISECOND);
    }
    world.run_for(5 * SECOND);
    assert!(same_on_disks(&world, &[server, client], &doc()));
    // What is new has a new author: under the old id it would stand where the unsent ops do, and be a fork.
    assert_eq!((forks(&world, client), forks(&world, server), renewals(&world, client)), (0, 0, 1));
    let kept = entries(world.disk(server));
    assert_eq!(kept.len(), unsent.len() + 60);
    for entry in unsent {
        assert!(kept.iter().any(|kept| kept.op == entry.op), "{:?} is another's now", entry.op.id);
    }
}

#[test]
fn a_transfer_that_is_cut_off_goes_on_where_it_was() {
    const SIZE: usize = 1 << 20;
    let mut config = Config::default();
    config.session.limits.window = 64 << 10;
    let (mut world, server, _, _) = two(Config::default());
    append(&mut world, server, 0..1);
    world.run_for(SECOND);
    compact(&mut world, server, vec![7; SIZE]);
    let late = world.add(config);
    world.open(late, &doc(), options(Authority::Upstream));
    let path = world.join(late, server, medium());
    world.record();
    let mut cuts = 0;
    let mut staged = 0;
    while stored(world.disk(late)).horizon == 0 {
        let now = stored(world.disk(late)).staged.map_or(0, |staged| staged.bytes);
        if now >= staged + (200 << 10) {
            world.cut(path, true);
            world.mend(path);
            (staged, cuts) = (now, cuts + 1);
        }
        world.run_for(5 * MILLISECOND);
        let memory = [server, late].map(|node| world.replica(node).expect("it is up").memory_cost());
        assert!(memory.iter().all(|cost| *cost <= 70 << 10), "{memory:?} bytes are in memory");
        assert!(world.now().since(antiphon::Instant::ZERO) < 60 * SECOND, "it gets no further than {now}");
    }
    assert!(cuts >= 4, "it was cut {cuts} times");
    assert_eq!(snapshot(world.disk(late)).len(), SIZE);
    let bytes: usize = world.transcript().iter().map(|sent| sent.frame.len()).sum();
    assert!(bytes < SIZE + cuts * (150 << 10), "{bytes} bytes were sent for {SIZE}");
}

#[test]
fn another_compaction_amid_a_transfer_begins_it_again() {
    let mut config = Config::default();
    config.session.limits.window = 64 << 10;
    let (mut world, server, _, _) = two(Config::default());
    append(&mut world, server, 0..1);
    world.run_for(SECOND);
    compact(&mut world, server, vec![7; 1 << 20]);
    let late = world.add(config);
    world.open(late, &doc(), options(Authority::Upstream));
    world.join(late, server, medium());
    for number in 1..4 {
        world.run_for(50 * MILLISECOND);
        assert_eq!(stored(world.disk(late)).horizon, 0, "it is not there yet");
        append(&mut world, server, number..number + 1);
        compact(&mut world, server, vec![number as u8; 1 << 20]);
    }
    world.run_for(60 * SECOND);
    assert!(same_on_disks(&world, &[server, late], &doc()));
    assert_eq!(snapshot(world.disk(late)), vec![3; 1 << 20]);
    for node in [server, late] {
        assert_eq!(count(&world, node, |event| matches!(event, Event::Closed { .. } | Event::Failed { .. })), 0);
    }
}

#[test]
fn a_crash_anywhere_in_an_install_loses_and_doubles_nothing() {
    for power in [false, true] {
        for (step, point) in (1..14).flat_map(|step| [(step, CrashPoint::Before), (step, CrashPoint::After)]) {
            let mut config = Config::default();
            config.session.limits.window = 700; // some pieces
            let (mut world, server, client, path) = away(config, vec![3; 1500]);
            world.disk(client).crash_at_step(step, point);
            world.mend(path);
            world.run_for(5 * SECOND);
            if world.is_up(client) {
                world.crash(client, Crash::Kill);
            }
            if power {
                world.disk(client).lose_tail(0); // what was not synced
            }
            world.start(client, if power { Continuity::Broken } else { Continuity::Proven });
            world.run_for(60 * SECOND);
            assert!(same_on_disks(&world, &[server, client], &doc()), "power {power}, {point:?} step {step}");
            let unsent = (5..8).map(|number| format!("1 {number}"));
            let kept = bodies(world.disk(server));
            for body in unsent {
                let times = kept.iter().filter(|kept| **kept == body).count();
                assert_eq!(times, 1, "{body} after power {power}, {point:?} step {step}: {kept:?}");
            }
        }
    }
}

#[test]
fn snapshots_are_taken_from_the_authority_only() {
    let (mut world, server, _, _) = two(Config::default());
    append(&mut world, server, 0..3);
    compact(&mut world, server, "three ops");
    let stranger = world.add(Config::default());
    world.open(stranger, &doc(), Options::default());
    world.join(stranger, server, medium());
    world.run_for(5 * SECOND);
    let closed = |event: &Event| matches!(event, Event::Closed { code: Code::BELOW_HORIZON, .. });
    assert_eq!((count(&world, stranger, closed), count(&world, server, closed)), (1, 1), "both apps are told");
    assert_eq!(stored(world.disk(stranger)), StoredDocument::default());
}

#[test]
fn a_snapshot_that_is_too_large_is_refused() {
    let (mut world, server, _, _) = two(Config::default());
    append(&mut world, server, 0..1);
    compact(&mut world, server, vec![1; 1000]);
    let late = world.add(Config { snapshot_max: 1000, ..Config::default() });
    world.open(late, &doc(), options(Authority::Upstream));
    world.join(late, server, medium());
    world.run_for(5 * SECOND);
    assert_eq!(count(&world, late, |event| matches!(event, Event::Closed { code: Code::BELOW_HORIZON, .. })), 1);
}

#[test]
fn relays_pass_snapshots_on() {
    let (mut world, server, relay, _) = two(Config::default());
    append(&mut world, server, 0..4);
    compact(&mut world, server, "four ops");
    let fresh = world.add(Config::default());
    let leaf = world.add(Config::default());
    for node in [fresh, leaf] {
        world.open(node, &doc(), options(Authority::Upstream));
    }
    world.join(fresh, server, medium());
    world.join(leaf, fresh, datagrams());
    world.run_for(10 * SECOND);
    assert!(same_on_disks(&world, &[server, relay, fresh, leaf], &doc()));
    assert_eq!(snapshot(world.disk(leaf)), "four ops");
}

#[test]
fn a_reader_takes_the_snapshot_too() {
    let (mut world, server, _, _) = two(Config::default());
    append(&mut world, server, 0..4);
    compact(&mut world, server, "four ops");
    append(&mut world, server, 4..5);
    let reader = world.add(Config::default());
    let access = antiphon::wire::Access::Read;
    world.open(reader, &doc(), Options { access, ..options(Authority::Upstream) });
    world.join(reader, server, medium());
    world.run_for(5 * SECOND);
    assert_eq!((snapshot(world.disk(reader)), bodies(world.disk(reader))), ("four ops".into(), vec!["0 4".into()]));
}

#[test]
fn only_the_authority_compacts_and_only_what_is_durable() {
    let (mut world, server, client, _) = two(Config::default());
    append(&mut world, server, 0..3);
    world.run_for(SECOND);
    let declined = |world: &mut World, node: NodeId, position: u64| {
        let told = |world: &World| world.told(node).iter().filter(|(_, told)| is_declined(told)).count();
        let before = told(world);
        world.input(node, Input::Compact { document: doc(), position, body: Bytes::new() });
        world.run_for(SECOND);
        told(world) > before
    };
    assert!(declined(&mut world, client, 3), "by one that is not the authority");
    assert!(declined(&mut world, server, 0), "to where nothing is");
    assert!(declined(&mut world, server, 4), "beyond the tail");
    assert!(!declined(&mut world, server, 2));
    assert!(declined(&mut world, server, 2), "to the horizon");
    assert!(!declined(&mut world, server, 3), "a body may be empty");
    assert_eq!(stored(world.disk(server)).horizon, 3);
}

fn is_declined(told: &antiphon_sim::replica::Told) -> bool {
    matches!(told, antiphon_sim::replica::Told::Declined(_))
}

#[test]
fn a_reset_after_a_compaction_takes_the_snapshot_again() {
    let (mut world, server, client, path) = two(Config::default());
    append(&mut world, server, 0..4);
    world.run_for(SECOND);
    compact(&mut world, server, "four ops");
    let link = world.link(path, client).expect("they are connected");
    world.input(client, Input::Reset { document: doc(), link });
    world.run_for(5 * SECOND);
    assert!(same_on_disks(&world, &[server, client], &doc()));
    assert_eq!(snapshot(world.disk(client)), "four ops");
}

quickcheck! {
    /// Wherever it is compacted, what is left and what the snapshot stands for are what there was.
    fn heads_at_a_horizon_are_what_stood_below(ops: Vec<u8>, at: usize) -> bool {
        let mut world = World::new(3);
        let nodes = [(); 3].map(|()| world.add(Config::default()));
        for node in nodes {
            world.open(node, &doc(), options(if node == nodes[0] { Authority::Us } else { Authority::Upstream }));
        }
        nodes[1..].iter().for_each(|node| _ = world.join(*node, nodes[0], medium()));
        for (number, op) in (0..).zip(&ops) {
            world.append(nodes[usize::from(*op) % 3], &doc(), format!("{number}"));
            world.run_for(SECOND);
        }
        let (before, heads) = (entries(world.disk(nodes[0])), stored(world.disk(nodes[0])).heads);
        let position = at as u64 % (before.len() as u64 + 1);
        world.input(nodes[0], Input::Compact { document: doc(), position, body: "s".into() });
        world.run_for(SECOND);
        let after = entries(world.disk(nodes[0]));
        let mut storage = world.disk(nodes[0]).backup().open().expect("a copy has no holder");
        let at_horizon = storage.heads_at(&doc(), position).expect("the disk works");
        let mut below = antiphon::heads::Heads::new();
        below.extend(&before[..position as usize]);
        after[..] == before[position as usize..]
            && at_horizon == below
            && storage.document(&doc()).expect("the disk works").heads == heads
    }
}
