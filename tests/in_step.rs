//! Who is told that it is in step holds nothing that its peer does not hold.

mod common;

use antiphon::replica::{Config, Event};
use antiphon::session::Transport;
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
