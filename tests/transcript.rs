//! Every frame of an exchange on datagrams, one at a time: dropped, doubled, swapped with the next, damaged. The two get
//! in step by themselves, on the same session, and for little more than what the lost frame itself carried.

mod common;

use std::time::Duration;

use antiphon::replica::{Event, Options};
use antiphon_sim::World;
use antiphon_sim::world::{Medium, NodeId, PathId, Sent, Tamper};
use common::*;

/// What tampering with one frame may cost beyond that frame itself, in both directions together and to the end: what asks
/// for it, and what is repeated because an answer did not come. What both hold is a hundred times as much.
const EXTRA_BYTES_MAX: u64 = 384;
/// How long after the script both may take to hold the same, where it takes 20 ms otherwise.
const EXTRA_TIME_MAX: Duration = Duration::from_millis(300);
/// How long the bytes are counted: long enough for all repetitions, too short for the first Ping.
const COUNTED: Duration = Duration::from_secs(9);

/// Two replicas with a history that both hold, about to meet again.
fn apart() -> (World, Vec<NodeId>, PathId) {
    let (mut world, nodes) = world(11, 2);
    nodes.iter().for_each(|node| world.open(*node, &document("other"), Options::default()));
    let path = world.join(nodes[0], nodes[1], Medium::datagram(FAULTLESS));
    world.run_for(SECOND);
    for op in 0..200 {
        nodes.iter().for_each(|node| world.append(*node, &doc(), format!("{node:?} {op:0100}")));
    }
    converge(&mut world, &nodes, &doc(), SECOND);
    world.run_for(SECOND);
    world.cut(path, true);
    nodes.iter().for_each(|node| world.append(*node, &doc(), format!("{node:?} while apart")));
    world.record();
    (world, nodes, path)
}

/// Handshake, catching up by cursor, live ops one at a time and in a burst, one in parts, two documents.
fn script(world: &mut World, nodes: &[NodeId], path: PathId) {
    world.mend(path);
    world.run_for(200 * MILLISECOND);
    for op in 0..3 {
        world.append(nodes[0], &doc(), format!("live {op}"));
        world.run_for(15 * MILLISECOND);
    }
    world.append(nodes[1], &doc(), "an answer");
    world.run_for(50 * MILLISECOND);
    world.append(nodes[1], &doc(), "in parts ".repeat(350));
    world.append(nodes[0], &document("other"), "elsewhere");
    world.run_for(5 * MILLISECOND);
    for op in 0..5 {
        world.append(nodes[0], &doc(), format!("burst {op} {:050}", 0));
    }
    world.run_for(100 * MILLISECOND);
    world.append(nodes[1], &doc(), "the last word");
}

/// The frames of the script, with one frame tampered with.
fn run(tampered: Option<(u64, Tamper)>) -> Vec<Sent> {
    let (mut world, nodes, path) = apart();
    let start = world.now();
    let before = disconnects(&world, nodes[0]) + disconnects(&world, nodes[1]);
    if let Some((index, tamper)) = tampered {
        world.tamper(path, index, tamper);
    }
    script(&mut world, &nodes, path);
    let scripted = world.now();
    for document in [doc(), document("other")] {
        let left = EXTRA_TIME_MAX.saturating_sub(world.now().since(scripted));
        let done = world.run_until(left, |world| same_on_disks(world, &nodes, &document));
        assert!(done, "{tampered:?}: {document} is not in step after {EXTRA_TIME_MAX:?}");
    }
    let left = COUNTED.checked_sub(world.now().since(start)).expect("the script is short");
    world.run_for(left);

    let held = set_on(world.disk(nodes[0]), &doc());
    assert_eq!(held.len(), 400 + 2 + 3 + 1 + 1 + 5 + 1, "{tampered:?}");
    assert_eq!(held, set_on(world.disk(nodes[1]), &doc()), "{tampered:?}");
    for node in &nodes {
        for document in [doc(), document("other")] {
            let digest = digest_on(world.disk(*node), &document);
            let last = world.events(*node).filter_map(|event| match event {
                Event::InStep { document: of, digest, .. } if *of == document => Some(*digest),
                _ => None,
            });
            assert_eq!(last.last(), Some(digest), "{tampered:?}: {node:?} knows that they are in step");
        }
        let closed = |event: &Event| matches!(event, Event::Closed { .. });
        assert_eq!(count(&world, *node, closed), 0, "{tampered:?}");
    }
    let after = disconnects(&world, nodes[0]) + disconnects(&world, nodes[1]);
    assert_eq!(after, before, "{tampered:?}: it heals without a reconnect");
    world.transcript().to_vec()
}

fn bytes(frames: &[Sent]) -> u64 {
    frames.iter().map(|sent| sent.frame.len() as u64).sum()
}

/// Runs the script once for each frame of it, tampering with that one.
fn each(tampers: impl Fn(u64) -> Vec<Tamper>) {
    let plain = run(None);
    let transport = Medium::datagram(FAULTLESS).transport;
    let names: Vec<_> = plain.iter().map(|sent| unwrapped(&sent.frame, transport).name()).collect();
    for name in ["Hello", "Welcome", "Open", "Author", "Changes", "Ack", "Confirm"] {
        assert!(names.contains(&name), "the script has no {name}: {names:?}");
    }
    assert!((40..=60).contains(&plain.len()), "{} frames", plain.len());
    for (index, (sent, name)) in (0..).zip(plain.iter().zip(names)) {
        for tamper in tampers(index) {
            let extra = bytes(&run(Some((index, tamper)))).saturating_sub(bytes(&plain));
            let len = sent.frame.len() as u64;
            assert!(extra <= len + EXTRA_BYTES_MAX, "{tamper:?} of frame {index}, {name} of {len} bytes: {extra} more");
        }
    }
}

#[test]
fn each_frame_dropped() {
    each(|_| vec![Tamper::Drop]);
}

#[test]
fn each_frame_doubled() {
    each(|_| vec![Tamper::Duplicate]);
}

#[test]
fn each_frame_swapped_with_the_next() {
    each(|_| vec![Tamper::Swap]);
}

#[test]
fn each_frame_damaged_by_one_bit() {
    // In its kind, in its trailer, and in places that differ from frame to frame.
    each(|index| [0, u64::MAX, 37 * index + 9, 1001 * index].map(Tamper::Flip).to_vec());
}

#[test]
fn a_frame_lost_from_a_burst_comes_again_after_one_round_trip() {
    let (mut world, nodes, path) = apart();
    world.mend(path);
    world.run_for(SECOND);
    for lost in 0..3 {
        let since = world.transcript().len();
        let start = world.now();
        world.tamper(path, lost, Tamper::Drop);
        (0..6).for_each(|op| world.append(nodes[0], &doc(), format!("{lost} {op}")));
        converge(&mut world, &nodes, &doc(), SECOND);
        // There, the question back, and there again; no timer has a part in it.
        assert_eq!(world.now().since(start), 3 * FAULTLESS.latency);
        world.run_for(SECOND);
        let ops = traffic(&world, since, nodes[0], path, Medium::datagram(FAULTLESS)).ops;
        assert_eq!(ops, 7, "only what was lost is sent again");
    }
}
