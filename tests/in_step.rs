//! Who is told that it is in step holds nothing that its peer does not hold.

mod common;

use antiphon::replica::{Config, Event, Options};
use antiphon::session::Transport;
use antiphon_sim::World;
use antiphon_sim::world::{Medium, Tamper};
use common::rig::Rig;
use common::*;

/// Two replicas that hold nothing are joined, and the first appends when so many frames have come.
fn append_after(frames: usize) {
    let mut rig = Rig::new(1);
    let ends = [(); 2].map(|()| rig.add(Config::default()));
    for end in ends {
        rig.open(end, &doc());
        rig.settle();
    }
    let wire = rig.join(ends[0], ends[1], Transport::Reliable);
    rig.wires[wire].paused = [true; 2];
    for _ in 0..frames {
        let _ = rig.deliver(wire, 0) || rig.deliver(wire, 1);
    }
    rig.settle();
    rig.append(ends[0], &doc(), ["meanwhile".into()]);
    rig.settle();
    rig.ends.iter_mut().for_each(|end| end.events.clear());
    while rig.deliver(wire, 0) || rig.deliver(wire, 1) {
        for (here, there) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let told = rig.ends[here].events.drain(..).any(|event| matches!(event, Event::InStep { .. }));
            let held = rig.ops(there, &doc());
            let all = rig.ops(here, &doc()).iter().all(|op| held.contains(op));
            assert!(all || !told, "after {frames} frames {here} is told, and holds what {there} does not");
        }
        rig.settle();
    }
    rig.wires[wire].paused = [false; 2];
    rig.run_for(SECOND);
    for end in ends {
        assert!(rig.ends[end].events.iter().any(|event| matches!(event, Event::InStep { .. })), "in the end they are");
    }
    assert!(rig.same(ends[0], ends[1], &doc()));
}

#[test]
fn what_becomes_durable_between_the_opens_is_not_held_by_the_peer_yet() {
    (0..12).for_each(append_after);
}

#[test]
fn whichever_frame_is_lost_both_ends_hear_that_they_are_in_step() {
    for lost in 0..40 {
        let mut world = World::new(7);
        let nodes = [(); 2].map(|()| world.add(Config::default()));
        for node in nodes {
            world.open(node, &doc(), Options::default());
        }
        let path = world.join(nodes[0], nodes[1], Medium::datagram(FAULTLESS));
        world.tamper(path, lost, Tamper::Drop);
        world.run_for(SECOND);
        nodes.iter().for_each(|node| world.append(*node, &doc(), format!("{}", node.index())));
        world.run_for(5 * SECOND);
        for node in nodes {
            let told = world.events(node).filter_map(|event| match event {
                Event::InStep { digest, .. } => Some(*digest),
                _ => None,
            });
            assert_eq!(told.last(), Some(digest_on(world.disk(node), &doc())), "{node} without frame {lost}");
        }
        assert!(same_on_disks(&world, &nodes, &doc()));
    }
}
