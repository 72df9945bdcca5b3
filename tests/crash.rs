//! A crash at every single step of every disk: nothing acknowledged is lost, nothing is there twice, nothing forks.
//!
//! One scene is played again and again: two clients on a server, edits online and offline. Each time one replica goes
//! down at another step of its storage, on either side of it, comes up again, and the scene goes on.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon::replica::{Config, Options};
use antiphon::rng::Ratio;
use antiphon::session;
use antiphon::storage::Continuity;
use antiphon::wire::Durability;
use antiphon_memory::{CrashPoint, Disk};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Medium, NodeId, PathId};
use common::*;

/// What a crash does to the disk, after the process is gone.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Nothing: what was written stays.
    Nothing,
    /// Of what was not synced only so many writes stay.
    AllBut(usize),
}

/// Which crash to play.
#[derive(Clone, Copy, Debug)]
struct Crash {
    node: usize,
    step: u64,
    point: CrashPoint,
    loss: Loss,
    /// A second crash, at this step from the restart on.
    again: Option<u64>,
}

/// What a play showed.
#[derive(Debug, Default)]
struct Outcome {
    crashes: u32,
    /// How many writes were not synced when the first crash came.
    unsynced: usize,
    acknowledgements: usize,
}

struct Scene {
    world: World,
    nodes: [NodeId; 3],
    paths: [PathId; 2],
    crash: Option<Crash>,
    promises: Promises,
    /// What was on any disk after a crash: it may not vanish any more.
    kept: BTreeSet<Vec<u8>>,
    outcome: Outcome,
}

impl Scene {
    fn new(medium: Medium, promise: Durability, crash: Option<Crash>) -> Self {
        let mut world = World::new(7);
        let session = session::Config { durability: promise, ..session::Config::default() };
        let config = Config { session, ..Config::default() };
        let nodes = [(); 3].map(|()| world.add_on(Disk::with_promise(promise), config.clone(), Continuity::Proven));
        for node in nodes {
            // Longer than an acknowledgement waits: one that went out before the write would be seen.
            world.set_storage_delay(node, 45 * MILLISECOND);
            world.open(node, &doc(), Options::default());
        }
        let paths = [0, 2].map(|client| world.join(nodes[client], nodes[1], medium));
        world.run_for(SECOND);
        if let Some(Crash { node, step, point, .. }) = crash {
            world.disk(nodes[node]).crash_at_step(step, point);
        }
        let (promises, kept, outcome) = (Promises::default(), BTreeSet::new(), Outcome::default());
        Self { world, nodes, paths, crash, promises, kept, outcome }
    }

    fn append(&mut self, node: usize, body: &str) {
        if self.world.is_up(self.nodes[node]) {
            self.world.append(self.nodes[node], &doc(), body.to_string());
        }
        self.run_for(Duration::ZERO);
    }

    /// Lets time go by; whoever goes down meanwhile comes up again soon.
    fn run_for(&mut self, duration: Duration) {
        let end = self.world.now() + duration;
        let nodes = self.nodes;
        loop {
            let left = end.since(self.world.now());
            if !self.world.run_until(left, |world| nodes.iter().any(|node| !world.is_up(*node))) {
                return;
            }
            let down = nodes.into_iter().find(|node| !self.world.is_up(*node));
            self.crashed(down.expect("somebody is down"));
        }
    }

    fn crashed(&mut self, node: NodeId) {
        let crash = self.crash.expect("nobody goes down without being told to");
        self.outcome.crashes += 1;
        // Whatever was promised is there, whichever step it was.
        self.promises.check(&self.world, &self.nodes);
        let mut continuity = Continuity::Proven;
        if let (Loss::AllBut(keep), 1) = (crash.loss, self.outcome.crashes) {
            self.outcome.unsynced = self.world.disk(node).unsynced();
            self.world.disk(node).lose_power(keep);
            continuity = Continuity::Broken;
        }
        for node in self.nodes {
            self.kept.extend(set_on(self.world.disk(node), &doc()));
        }
        self.world.run_for(80 * MILLISECOND);
        if let (Some(step), 1) = (crash.again, self.outcome.crashes) {
            self.world.disk(node).crash_at_step(step, crash.point);
        }
        while !self.world.start(node, continuity) {
            self.outcome.crashes += 1;
        }
    }

    /// Plays the whole scene.
    fn play(mut self) -> Outcome {
        let crash = self.crash;
        for round in 0..3 {
            self.append(0, &format!("first client {round}"));
            self.run_for(7 * MILLISECOND);
            self.append(2, &format!("second client {round}"));
            self.run_for(3 * MILLISECOND);
            self.append(1, &format!("server {round}"));
            self.append(0, &format!("first client again {round}"));
            self.run_for(140 * MILLISECOND);
        }
        self.world.sync(self.nodes[1]);
        self.world.cut(self.paths[0], true);
        self.append(0, "offline");
        self.append(2, "meanwhile");
        self.run_for(150 * MILLISECOND);
        self.world.sync(self.nodes[0]);
        self.append(0, "still offline");
        self.run_for(150 * MILLISECOND);
        self.world.mend(self.paths[0]);
        self.run_for(600 * MILLISECOND);
        (0..3).for_each(|node| self.append(node, &format!("last of {node}")));
        self.run_for(SECOND);
        let Self { mut world, nodes, mut promises, kept, mut outcome, .. } = self;
        converge(&mut world, &nodes, &doc(), 20 * SECOND);
        if outcome.unsynced == 0 {
            promises.check(&world, &nodes); // where writes were lost, the positions of before mean nothing
        }
        let all = set_on(world.disk(nodes[0]), &doc());
        assert!(all.is_superset(&kept), "{crash:?}: lost {:?}", kept.difference(&all).collect::<Vec<_>>());
        if outcome.crashes > 0 {
            let last = (0..3).map(|node| format!("last of {node}").into_bytes());
            let there = last.filter(|body| all.contains(body)).count();
            assert!(there >= 2, "{crash:?}: only an append that was under way at the crash may be missing");
        }
        for node in nodes {
            assert_eq!(forks(&world, node), 0, "{crash:?}: nothing forks");
        }
        outcome.acknowledgements = promises.acknowledgements;
        outcome
    }
}

fn reliable() -> Medium {
    Medium::reliable(5 * MILLISECOND)
}

fn lossy() -> Medium {
    Medium::datagram(Faults {
        latency: 5 * MILLISECOND,
        jitter: 2 * MILLISECOND,
        loss: Ratio::one_in(10),
        duplicate: Ratio::one_in(20),
        ..Faults::NONE
    })
}

/// Plays the scene with a crash at each step of each node, until there are no more steps. Returns how many crashes.
fn at_every_step(play: impl Fn(usize, u64) -> u32) -> u32 {
    let mut crashes = 0;
    for node in 0..3 {
        for step in 1.. {
            match play(node, step) {
                0 => {
                    assert!(step > 10, "node {node} has only {step} steps");
                    break;
                }
                more => crashes += more,
            }
        }
    }
    crashes
}

#[test]
fn the_scene_without_a_crash_acknowledges_everything() {
    let outcome = Scene::new(reliable(), Durability::Commit, None).play();
    assert_eq!(outcome.crashes, 0);
    assert!(outcome.acknowledgements > 20, "{outcome:?}");
}

#[test]
fn a_crash_at_any_step_loses_and_doubles_nothing() {
    for medium in [reliable(), lossy()] {
        let crashes = at_every_step(|node, step| {
            let play = |point| {
                let crash = Crash { node, step, point, loss: Loss::Nothing, again: None };
                Scene::new(medium, Durability::Commit, Some(crash)).play().crashes
            };
            play(CrashPoint::Before) + play(CrashPoint::After)
        });
        assert!(crashes > 60, "{crashes}");
    }
}

#[test]
fn a_crash_while_coming_up_after_a_crash_loses_and_doubles_nothing() {
    let crashes = at_every_step(|node, step| {
        let play = |(point, again)| {
            let crash = Crash { node, step, point, loss: Loss::Nothing, again: Some(again) };
            Scene::new(reliable(), Durability::Commit, Some(crash)).play().crashes
        };
        let points = [CrashPoint::Before, CrashPoint::After];
        points.into_iter().flat_map(|point| (1..=4).map(move |again| (point, again))).map(play).sum()
    });
    assert!(crashes > 600, "{crashes}");
}

#[test]
fn a_loss_of_power_at_any_step_loses_at_most_what_was_not_synced_and_nowhere_else() {
    let crashes = at_every_step(|node, step| {
        let play = |keep| {
            let crash = Crash { node, step, point: CrashPoint::After, loss: Loss::AllBut(keep), again: None };
            Scene::new(reliable(), Durability::Commit, Some(crash)).play()
        };
        let outcome = play(0);
        (1..=outcome.unsynced).map(|keep| play(keep).crashes).sum::<u32>() + outcome.crashes
    });
    assert!(crashes > 300, "{crashes}");
}

#[test]
fn where_every_write_is_synced_a_loss_of_power_loses_nothing_that_was_promised() {
    let crashes = at_every_step(|node, step| {
        let play = |point| {
            let crash = Crash { node, step, point, loss: Loss::AllBut(0), again: None };
            let outcome = Scene::new(reliable(), Durability::Fsync, Some(crash)).play();
            assert_eq!(outcome.unsynced, 0);
            outcome.crashes
        };
        play(CrashPoint::Before) + play(CrashPoint::After)
    });
    assert!(crashes > 50, "{crashes}");
}
