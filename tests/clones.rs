//! One replica id twice: a copy is told from a restart and from a second session, takes a new id, and gets in step.

mod common;

use std::collections::BTreeSet;

use antiphon::codes::Code;
use antiphon::op::Timeline;
use antiphon::replica::{self, Authority, Options};
use antiphon::session::{By, Input, Local, Output, Transport};
use antiphon::storage::Continuity;
use antiphon::{Machine, Session};
use antiphon_memory::Pair;
use antiphon_sim::World;
use antiphon_sim::node::Crash;
use antiphon_sim::world::{Medium, NodeId};
use common::restored::*;
use common::rig::Rig;
use common::sessions::*;
use common::*;

// -------------------------------------------------------------------------------------------- two sessions

#[test]
fn two_ends_with_one_replica_id_do_not_talk() {
    for transport in TRANSPORTS {
        let same = |side: usize| session_of(local(0, side as u64 + 20), transport);
        let (mut pair, mut hosts) = (Pair::new([same(0), same(1)]), hosts());
        run_pair(&mut pair, &mut hosts, NOW, NOW);
        for host in &hosts {
            assert_eq!(host.ending(), Some((Code::SAME_REPLICA, By::Us)));
        }
    }
}

/// A replica and a stranger with a live session: the rig, the wire and the stranger's end of it.
fn met(nonce: u64) -> (Rig, usize, Session) {
    let mut rig = Rig::new(1);
    let end = rig.add(replica::Config::default());
    let wire = rig.stranger(end, Transport::Reliable);
    let mut session = session_of(local(1, nonce), Transport::Reliable);
    talk(&mut rig, wire, &mut session);
    assert!(session.is_live());
    (rig, wire, session)
}

/// Exchanges frames with a peer until neither has any; the peer's host lets everyone in and opens nothing.
fn talk(rig: &mut Rig, wire: usize, peer: &mut Session) {
    loop {
        let (frames, outputs) = drain(peer);
        let asked = outputs.iter().any(|output| matches!(output, Output::Authenticate { .. }));
        if asked {
            peer.handle(rig.now, Input::Authenticated(Ok(()))).unwrap();
        }
        let heard = std::mem::take(&mut rig.wires[wire].queues[0]);
        if frames.is_empty() && heard.is_empty() && !asked {
            return;
        }
        frames.into_iter().for_each(|frame| rig.feed(wire, frame));
        for frame in heard {
            peer.handle(rig.now, Input::Received(frame)).unwrap();
        }
    }
}

/// The wires whose sessions have ended, and how.
fn ended(rig: &Rig) -> Vec<(usize, (Code, By))> {
    let ended = rig.ends[0].events.iter().filter_map(|event| match event {
        replica::Event::Disconnected { link, ending: Some(ending) } => {
            Some((link.0 as usize, (ending.code, ending.by)))
        }
        _ => None,
    });
    ended.collect()
}

#[test]
fn of_two_sessions_of_one_open_the_newer_wins() {
    let (mut rig, older_wire, mut older) = met(30);
    // The peer has reconnected; nobody has noticed that the old link is dead.
    let newer_wire = rig.stranger(0, Transport::Reliable);
    let mut newer = session_of(local(1, 31), Transport::Reliable);
    talk(&mut rig, newer_wire, &mut newer);
    assert!(newer.is_live());
    assert_eq!(ended(&rig), [(older_wire, (Code::REPLACED, By::Us))]);
    talk(&mut rig, older_wire, &mut older);
    assert_eq!(ending(&older), Some((Code::REPLACED, By::Peer)));
}

/// The same replica in a later open than that of [`local`]: a copy, or the same one restarted.
fn later_open(nonce: u64) -> Session {
    let local = Local { timeline: Timeline::new(99), previous: Some(timeline(1)), ..local(1, nonce) };
    session_of(local, Transport::Reliable)
}

#[test]
fn a_copy_of_a_live_replica_is_refused() {
    let (mut rig, older_wire, mut older) = met(30);
    let newer_wire = rig.stranger(0, Transport::Reliable);
    let mut newer = later_open(31);
    talk(&mut rig, newer_wire, &mut newer);
    assert_eq!((newer.is_live(), ending(&newer)), (false, None), "it waits");
    let said = names(&rig.wires[older_wire].queues[0], Transport::Reliable);
    assert_eq!(said, ["Ping"], "the older one is asked whether it lives");
    talk(&mut rig, older_wire, &mut older);
    rig.run_for(5 * SECOND); // for the other's word, if its id is the smaller one
    talk(&mut rig, newer_wire, &mut newer);
    assert_eq!(ending(&newer), Some((Code::CLONE, By::Peer)));
    assert!(older.is_live());
}

#[test]
fn a_replica_that_restarted_gets_in_when_its_old_session_shows_no_life() {
    let (mut rig, older_wire, older) = met(30);
    drop(older);
    let newer_wire = rig.stranger(0, Transport::Reliable);
    let mut newer = later_open(31);
    talk(&mut rig, newer_wire, &mut newer);
    rig.run_for(4 * SECOND);
    assert!(ended(&rig).is_empty(), "the older one may be slow");
    rig.run_for(SECOND);
    talk(&mut rig, newer_wire, &mut newer);
    assert!(newer.is_live());
    assert_eq!(ended(&rig), [(older_wire, (Code::REPLACED, By::Us))]);
}

// -------------------------------------------------------------------------------------------- two disks

#[test]
fn a_replica_that_meets_its_copy_renews_and_both_get_in_step() {
    for medium in [Medium::reliable(5 * MILLISECOND), Medium::datagram(FAULTLESS)] {
        let mut world = World::new(7);
        let one = world.add(replica::Config::default());
        world.open(one, &doc(), Options::default());
        world.append(one, &doc(), "before the copy");
        world.stop(one);
        let copy = world.disk(one).backup();
        world.start(one, Continuity::Proven);
        let other = world.add_on(copy, replica::Config::default(), Continuity::Proven);
        world.open(other, &doc(), Options::default());
        let id = world.id(one);
        assert_eq!(world.id(other), id, "nothing told it that it is a copy");

        world.join(one, other, medium);
        world.run_for(5 * SECOND);
        assert!([one, other].iter().all(|node| world.id(*node) != id), "neither can know that it is not the copy");
        assert_ne!(world.id(one), world.id(other));
        world.append(one, &doc(), "after, by one");
        world.append(other, &doc(), "after, by the other");
        converge(&mut world, &[one, other], &doc(), SECOND);
        assert_eq!(set_on(world.disk(one), &doc()).len(), 3);
    }
}

#[test]
fn a_copy_renews_and_gets_in_step() {
    let mut world = World::new(3);
    let nodes: Vec<_> = (0..2).map(|_| world.add(replica::Config::default())).collect();
    nodes.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    let (hub, original) = (nodes[0], nodes[1]);
    world.append(original, &doc(), "before the copy");
    world.join(original, hub, Medium::reliable(5 * MILLISECOND));
    converge(&mut world, &nodes, &doc(), SECOND);

    let disk = world.disk(original).backup();
    let copy = world.add_on(disk, replica::Config::default(), Continuity::Proven);
    world.open(copy, &doc(), Options::default());
    world.append(copy, &doc(), "by the copy");
    world.append(original, &doc(), "by the original");
    let id = world.id(original);
    world.join(copy, hub, Medium::reliable(5 * MILLISECOND));
    world.run_for(5 * SECOND);
    assert_eq!(world.id(original), id, "the original is left alone");
    assert_ne!(world.id(copy), id);
    let renewed = |event: &replica::Event| matches!(event, replica::Event::Renewed { before, .. } if *before == id);
    assert_eq!(count(&world, copy, renewed), 1);
    let gone = |event: &replica::Event| matches!(event, replica::Event::Disconnected { .. });
    assert_eq!(count(&world, original, gone), 0);
    // Both made an op after the copy was made, with the same id: a fork, and told.
    assert!(forks(&world, copy) > 0 && forks(&world, hub) > 0);
}

#[test]
fn copies_that_come_together_all_take_new_ids() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        let [hub, original] = [(); 2].map(|()| world.add(replica::Config::default()));
        [hub, original].iter().for_each(|node| world.open(*node, &doc(), Options::default()));
        world.join(original, hub, Medium::reliable(5 * MILLISECOND));
        world.run_for(SECOND);
        let copies = [(); 3].map(|()| {
            let disk = world.disk(original).backup();
            let copy = world.add_on(disk, replica::Config::default(), Continuity::Proven);
            world.open(copy, &doc(), Options::default());
            world.join(copy, hub, Medium::reliable(5 * MILLISECOND));
            copy
        });
        world.run_for(20 * SECOND);
        let all = [hub, original, copies[0], copies[1], copies[2]];
        let ids: BTreeSet<_> = all.iter().map(|node| world.id(*node)).collect();
        assert_eq!((ids.len(), renewals(&world, original)), (5, 0));
        all.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("by {who}")));
        converge(&mut world, &all, &doc(), 10 * SECOND);
    }
}

/// The copy has the old id, and remembers the timeline in which the original goes on under a new one: what came by that is
/// not yet the copy's.
#[test]
fn what_the_original_sends_under_a_new_id_its_copy_gets_too() {
    let mut world = World::new(11);
    let [original, hub] = [(); 2].map(|()| world.add(replica::Config::default()));
    [original, hub].iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    world.append(original, &doc(), "before the copy");
    let near = Medium::reliable(5 * MILLISECOND);
    let path = world.join(original, hub, near);
    converge(&mut world, &[original, hub], &doc(), SECOND);
    world.cut(path, true);
    world.run_for(SECOND);

    let disk = world.disk(original).backup();
    let copy = world.add_on(disk, replica::Config::default(), Continuity::Proven);
    world.open(copy, &doc(), Options::default());
    let copied = world.join(copy, hub, near);
    world.run_for(SECOND);
    world.mend(path);
    world.run_for(10 * SECOND);
    assert_ne!(world.id(original), world.id(copy));
    // The copy does not hear of it, and the hub ends before it has stored a cursor on the copy's own timeline.
    world.cut(copied, false);
    world.append(original, &doc(), "under the new id");
    world.run_for(SECOND);
    world.crash(hub, Crash::Kill);
    world.start(hub, Continuity::Proven);
    world.open(hub, &doc(), Options::default());
    world.append(hub, &doc(), "by the hub, that has it");
    world.mend(copied);
    converge(&mut world, &[original, hub, copy], &doc(), 20 * SECOND);
    assert_eq!(bodies_on(world.disk(copy), &doc()), bodies_on(world.disk(hub), &doc()), "each after what it followed");
}

/// Each of two has a live session with a copy of the other, so that both take the other for a copy when they meet.
#[test]
fn two_that_take_each_other_for_copies_do_not_refuse_each_other_for_ever() {
    for medium in [Medium::reliable(50 * MILLISECOND), Medium::datagram(FAULTLESS)] {
        let mut world = World::new(9);
        let originals = [(); 2].map(|()| world.add(replica::Config::default()));
        originals.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
        world.run_for(SECOND);
        let copies = originals.map(|node| {
            let disk = world.disk(node).backup();
            let copy = world.add_on(disk, replica::Config::default(), Continuity::Proven);
            world.open(copy, &doc(), Options::default());
            copy
        });
        let near = Medium::reliable(5 * MILLISECOND);
        world.join(originals[0], copies[1], near);
        world.join(originals[1], copies[0], near);
        world.run_for(SECOND);
        world.join(originals[0], originals[1], medium);
        world.run_for(20 * SECOND);
        let all = [originals, copies].concat();
        let ids: BTreeSet<_> = all.iter().map(|node| world.id(*node)).collect();
        let renewals: usize = all.iter().map(|node| renewals(&world, *node)).sum();
        assert_eq!((ids.len(), renewals), (4, 2));
        all.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("by {who}")));
        converge(&mut world, &all, &doc(), 20 * SECOND);
    }
}

/// Two replicas on copies of one disk, on a server.
fn clones(between: bool, appends: bool, authority: Authority) -> (World, [NodeId; 3]) {
    let mut world = World::new(5);
    let [original, server] = [(); 2].map(|()| world.add(config()));
    world.open(original, &doc(), options(authority));
    world.open(server, &doc(), options(Authority::Us));
    let path = world.join(original, server, medium());
    world.append(original, &doc(), "a");
    converge(&mut world, &[original, server], &doc(), SECOND);
    world.run_for(SECOND);
    world.cut(path, true);
    let disk = world.disk(original).backup();
    let copy = world.add_on(disk, config(), Continuity::Proven);
    world.open(copy, &doc(), options(authority));
    assert_eq!(world.id(original), world.id(copy));
    if appends {
        world.append(original, &doc(), "original");
        world.append(copy, &doc(), "copy");
        world.append(copy, &doc(), "copy too");
    }
    world.mend(path);
    world.run_for(SECOND);
    if between {
        world.join(copy, original, medium());
    } else {
        world.join(copy, server, medium());
    }
    (world, [original, server, copy])
}

#[test]
fn a_copy_beside_the_original_is_noticed_and_takes_a_new_id() {
    for between in [false, true] {
        let (mut world, nodes) = clones(between, false, Authority::Nobody);
        let [original, server, copy] = nodes;
        world.run_for(20 * SECOND);
        assert_ne!(world.id(original), world.id(copy));
        assert_eq!(renewals(&world, copy), 1);
        assert_eq!(renewals(&world, original), usize::from(between), "where they meet, neither knows who was first");
        nodes.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("after {who}")));
        converge(&mut world, &nodes, &doc(), 10 * SECOND);
        assert_eq!(set_on(world.disk(server), &doc()).len(), 4);
        assert!(nodes.iter().all(|node| forks(&world, *node) == 0), "nobody wrote anything as the other");
    }
}

#[test]
fn what_a_copy_wrote_as_the_original_is_a_fork_and_is_mended() {
    let (mut world, nodes) = clones(false, true, Authority::Upstream);
    let [original, server, copy] = nodes;
    converge(&mut world, &nodes, &doc(), 30 * SECOND);
    world.run_for(SECOND);
    assert_eq!(set_on(world.disk(server), &doc()), bodies(&["a", "original", "copy", "copy too"]));
    assert!(forks(&world, copy) > 0 && forks(&world, server) > 0);
    assert_eq!((mended(&world, copy), mended(&world, original), renewals(&world, original)), (1, 0, 0));
    nodes.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("after {who}")));
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    assert_eq!(set_on(world.disk(server), &doc()).len(), 7);
}
