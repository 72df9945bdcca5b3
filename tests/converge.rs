//! Chaos, then calm: whatever the network, the disks and the processes went through, all replicas end in step.

mod common;

use antiphon::replica::{Config, Options};
use antiphon::rng::{Ratio, Rng};
use antiphon::storage::Continuity;
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Crash, Medium, NodeId, PathId};
use common::*;

/// One seed: a star, chain or triangle of three replicas, and a hundred random things that happen to it.
fn chaos(seed: u64, steps: u64, power: bool) {
    let mut dice = Rng::new(seed);
    let mut world = World::new(dice.next_u64());
    let documents = [document("one"), document("two")];
    let nodes: Vec<NodeId> = (0..3).map(|_| world.add(Config::default())).collect();
    for node in &nodes {
        for document in &documents {
            world.open(*node, document, Options::default());
        }
    }
    let joints: &[(usize, usize)] = match dice.below(3) {
        0 => &[(0, 1), (0, 2)],
        1 => &[(0, 1), (1, 2)],
        _ => &[(0, 1), (1, 2), (0, 2)],
    };
    let faults = Faults {
        latency: MILLISECOND * dice.below(40) as u32,
        jitter: MILLISECOND * dice.below(10) as u32,
        loss: Ratio::new(dice.below(3) as u32, 20).expect("a ratio"),
        duplicate: Ratio::one_in(50),
        reorder: Ratio::one_in(20),
        reorder_delay: MILLISECOND * 15,
        corrupt: Ratio::one_in(100),
        ..Faults::NONE
    };
    let datagram = dice.below(3) > 0;
    let medium = if datagram { Medium::datagram(faults) } else { Medium::reliable(faults.latency) };
    let paths: Vec<PathId> = joints.iter().map(|(a, b)| world.join(nodes[*a], nodes[*b], medium)).collect();
    for step in 0..steps {
        let node = nodes[dice.below(3) as usize];
        let path = paths[dice.below(paths.len() as u64) as usize];
        match dice.below(20) {
            0..=9 => {
                let size = if dice.below(20) == 0 { 3000 } else { 5 };
                let body = format!("{seed}-{step}-{}", "x".repeat(size));
                if world.is_up(node) {
                    world.append(node, &documents[dice.below(2) as usize], body);
                }
            }
            10 => world.cut(path, dice.below(2) == 0),
            11 => world.mend(path),
            12 => world.crash(node, Crash::Kill),
            13 if power => {
                let keep = dice.below(1 + world.disk(node).unsynced() as u64) as usize;
                world.crash(node, Crash::PowerLoss { keep });
            }
            14 => {
                let continuity = if power { Continuity::Broken } else { Continuity::Proven };
                world.start(node, continuity);
            }
            15 => world.disk(node).fail_next(1),
            _ => world.run_for(MILLISECOND * dice.below(300) as u32),
        }
    }
    for node in &nodes {
        world.disk(*node).fail_always(false);
        while !world.start(*node, if power { Continuity::Broken } else { Continuity::Proven }) {}
    }
    for path in &paths {
        world.mend(*path);
        if datagram {
            world.set_faults(*path, Faults { loss: Ratio::NEVER, corrupt: Ratio::NEVER, ..faults });
        }
    }
    for document in &documents {
        let done = world.run_until(SECOND * 120, |world| same_on_disks(world, &nodes, document));
        assert!(done, "seed {seed}: {document} is not in step two minutes after everything healed");
        converge(&mut world, &nodes, document, SECOND);
    }
    for node in &nodes {
        assert_eq!(forks(&world, *node), 0, "seed {seed}: nothing forks without a copy or a loss of power");
    }
}

/// `ANTIPHON_SEEDS=A..B` runs others than the usual ones.
fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("ANTIPHON_SEEDS").ok();
    let range = given.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(0..1000)
}

#[test]
fn chaos_on_networks_disks_and_processes_converges() {
    seeds().for_each(|seed| chaos(seed, 100, false));
}

#[test]
fn chaos_with_losses_of_power_converges() {
    seeds().for_each(|seed| chaos(seed, 100, true));
}
