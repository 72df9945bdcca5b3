//! In the middle of mending a fork: whatever happens to the client, its storage, its app or its link, nothing is lost, and
//! nothing is there twice.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon::replica::{Authority, Config, Event, Input, LinkId, Options};
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::Durability;
use antiphon_memory::CrashPoint;
use antiphon_sim::world::Crash;
use common::restored::*;
use common::rig::*;
use common::*;

/// A client that is mended, with what it may go through meanwhile.
struct Mend {
    this: Restored,
    /// Bodies that the app was told are lost, and so appended again.
    lost: Vec<String>,
    seen: usize,
}

impl Mend {
    fn new() -> Self {
        Self::on(Durability::Commit)
    }

    fn on(promise: Durability) -> Self {
        let mut this = Restored::on(promise, medium(), options(Authority::Upstream)).fork(&NEW);
        this.world.set_storage_delay(this.client, MILLISECOND);
        Self { this, lost: Vec::new(), seen: 0 }
    }

    fn start(&mut self) {
        self.this.world.mend(self.this.path);
    }

    /// Runs until nothing is left to mend; a replica that is down comes up, and what the app is told is lost it appends
    /// again.
    #[track_caller]
    fn finish(&mut self, continuity: Continuity, new: &[&str]) -> u32 {
        let crashes = self.run(continuity, None);
        self.this.ends_with(new);
        crashes
    }

    #[track_caller]
    fn run(&mut self, continuity: Continuity, loss: Option<usize>) -> u32 {
        let mut crashes = 0;
        let client = self.this.client;
        let end = self.this.world.now() + 60 * SECOND;
        while self.this.world.now() < end {
            let seen = self.seen;
            self.this.world.run_until(5 * SECOND, |world| {
                !world.is_up(client)
                    || world.events(client).skip(seen).any(|event| matches!(event, Event::Recovered { .. }))
            });
            let world = &mut self.this.world;
            let events: Vec<_> = world.events(client).skip(seen).cloned().collect();
            self.seen += events.len();
            for event in events {
                if let Event::Recovered { lost, .. } = event {
                    for body in lost {
                        self.lost.push(String::from_utf8_lossy(&body).into_owned());
                        world.append(client, &doc(), body);
                    }
                }
            }
            if !world.is_up(client) {
                crashes += 1;
                if let Some(keep) = loss {
                    world.disk(client).lose_power(keep);
                }
                world.run_for(20 * MILLISECOND);
                assert!(world.start(client, continuity));
            }
        }
        crashes
    }
}

#[test]
fn a_crash_at_any_step_of_mending_loses_and_doubles_nothing() {
    let mut crashes = 0;
    for step in 1.. {
        let before = crashes;
        for point in [CrashPoint::Before, CrashPoint::After] {
            for continuity in [Continuity::Proven, Continuity::Broken] {
                let mut mend = Mend::new();
                mend.this.world.disk(mend.this.client).crash_at_step(step, point);
                mend.start();
                crashes += mend.finish(continuity, &NEW);
            }
        }
        if crashes == before {
            break;
        }
    }
    assert!(crashes >= 24, "{crashes} crashes: the mending has that many steps");
}

/// Plays the mending with a loss of power at each step, each number of writes that survive it in turn.
fn losses_of_power(promise: Durability, continuity: Continuity, mut check: impl FnMut(Restored)) {
    let mut crashes = 0;
    for step in 1.. {
        let before = crashes;
        for keep in 0..=if promise == Durability::Fsync { 0 } else { step as usize } {
            let mut mend = Mend::on(promise);
            mend.this.world.sync(mend.this.client);
            mend.this.world.disk(mend.this.client).crash_at_step(step, CrashPoint::After);
            mend.start();
            crashes += mend.run(continuity, Some(keep));
            check(mend.this);
        }
        if crashes == before {
            break;
        }
    }
    assert!(crashes > 5, "{crashes}");
}

#[test]
fn a_loss_of_power_at_any_step_of_mending_loses_nothing() {
    losses_of_power(Durability::Commit, Continuity::Broken, |this| {
        // What was appended anew, sent and then lost here comes back from there, and is appended anew once more: bodies
        // may be there twice where writes are not synced before they are sent. None is lost.
        let all: BTreeSet<_> = [&KEPT[..], &LOST, &NEW].into_iter().flat_map(bodies).collect();
        for node in this.nodes() {
            assert_eq!(bodies_on(this.world.disk(node), &doc()).into_iter().collect::<BTreeSet<_>>(), all);
        }
        assert!(same_on_disks(&this.world, &this.nodes(), &doc()));
    });
}

#[test]
fn where_every_write_is_synced_a_loss_of_power_amid_mending_doubles_nothing() {
    for continuity in [Continuity::Broken, Continuity::Proven] {
        losses_of_power(Durability::Fsync, continuity, |mut this| this.ends_with(&NEW));
    }
}

#[test]
fn a_storage_that_fails_at_any_step_of_mending_loses_and_doubles_nothing() {
    let mut failures = 0;
    for step in 1..40 {
        let mut mend = Mend::new();
        mend.this.world.disk(mend.this.client).fail_at_step(step);
        mend.start();
        mend.this.world.run_for(11 * MILLISECOND);
        mend.this.world.append(mend.this.client, &doc(), "amid");
        mend.finish(Continuity::Proven, &[&NEW[..], &["amid"]].concat());
        assert!(mend.lost.iter().all(|body| body == "amid"), "{step}: what is put aside is not lost: {:?}", mend.lost);
        assert_eq!(mended(&mend.this.world, mend.this.client), 1, "{step}");
        failures += count(&mend.this.world, mend.this.client, |event| matches!(event, Event::Failed { .. }));
        let id = mend.this.world.id(mend.this.client);
        assert_eq!(
            identity(mend.this.world.disk(mend.this.client)).replica,
            id,
            "{step}: its new id is written in the end"
        );
    }
    assert!(failures > 5, "{failures}");
}

/// What happens at the nth event of mending, for each n until the mending is over.
fn amid(act: impl Fn(&mut Restored), new: &[&str]) {
    for nth in 0.. {
        let mut mend = Mend::new();
        mend.start();
        let mut steps = 0;
        let client = mend.this.client;
        let over = mend.this.world.run_until(10 * SECOND, |world| {
            steps += 1;
            steps > nth || mended(world, client) > 0
        });
        assert!(over, "it comes to an end");
        let is_over = mended(&mend.this.world, client) > 0;
        act(&mut mend.this);
        mend.finish(Continuity::Proven, new);
        if is_over {
            assert!(nth > 20, "mending takes more than {nth} events");
            return;
        }
    }
}

#[test]
fn appends_amid_mending_are_not_lost() {
    let new = [&NEW[..], &["amid", "amid too"]].concat();
    amid(
        |this| {
            this.world.append(this.client, &doc(), "amid");
            this.world.append(this.client, &doc(), "amid too");
            let failed = count(&this.world, this.client, |event| matches!(event, Event::Failed { .. }));
            assert_eq!(failed, 0);
        },
        &new,
    );
}

#[test]
fn ops_of_the_authority_amid_mending_are_not_lost() {
    let new = [&NEW[..], &["amid", "amid too"]].concat();
    amid(
        |this| {
            this.world.append(this.server, &doc(), "amid");
            this.world.run_for(MILLISECOND);
            this.world.append(this.server, &doc(), "amid too");
        },
        &new,
    );
}

#[test]
fn a_reset_amid_mending_loses_and_doubles_nothing() {
    let new = [&NEW[..], &["amid"]].concat();
    // The second time the append is being written when a piece of what was put aside comes to stand behind it.
    for (before, between) in [(Duration::ZERO, Duration::ZERO), (MILLISECOND / 2, MILLISECOND * 7 / 10)] {
        amid(
            |this| {
                this.world.run_for(before);
                this.world.append(this.client, &doc(), "amid");
                this.world.run_for(between);
                this.reset();
            },
            &new,
        );
    }
}

#[test]
fn a_write_under_way_while_two_documents_are_reset_is_not_lost() {
    let mut this = Restored::new(medium(), options(Authority::Nobody));
    let Restored { world, client, server, path, .. } = &mut this;
    let (client, server, second) = (*client, *server, document("second"));
    [client, server].iter().for_each(|node| world.open(*node, &second, Options::default()));
    world.run_for(SECOND);
    world.set_storage_delay(client, 100 * MILLISECOND);
    world.append(client, &doc(), "under way");
    // Both come before the write is done, and each takes a new id.
    for document in [doc(), second] {
        let link = world.link(*path, client).expect("they are connected");
        world.input(client, Input::Reset { document, link });
        world.settle();
        world.run_for(30 * MILLISECOND);
    }
    assert_eq!(renewals(world, client), 2);
    this.ends_with(&["under way"]);
}

#[test]
fn a_reset_that_the_app_wants_survives_a_storage_that_fails() {
    for step in 1..6 {
        let mut this = Restored::forked(medium(), options(Authority::Nobody), &NEW);
        this.world.mend(this.path);
        this.world.run_for(SECOND);
        this.world.set_storage_delay(this.client, MILLISECOND);
        this.world.append(this.client, &doc(), "being written");
        this.world.disk(this.client).fail_at_step(step);
        this.reset();
        this.world.run_for(10 * SECOND);
        assert_eq!(mended(&this.world, this.client), 1, "step {step}");
        let lost = this.world.events(this.client).any(|event| match event {
            Event::Recovered { lost, .. } => !lost.is_empty(),
            _ => false,
        });
        assert_eq!(lost, step == 1, "the app is told of its append, whatever the replica is called by now");
        this.ends_with(&if lost { NEW.to_vec() } else { [&NEW[..], &["being written"]].concat() });
    }
}

#[test]
fn no_log_is_put_aside_before_the_new_id_is_durable() {
    let mut rig = Rig::new(12);
    for end in 0..2 {
        rig.add(Config::default());
        rig.open(end, &doc());
    }
    let wire = rig.join(0, 1, Transport::Reliable);
    rig.append(0, &doc(), numbered(0..3, 20));
    rig.run_for(SECOND);
    let before = rig.identity(0).replica;
    rig.ends[0].disk.fail_next(1);
    rig.input(0, Input::Reset { document: doc(), link: LinkId(wire as u64) });
    let mut look = |rig: &mut Rig| {
        let disk = rig.ends[0].disk.backup();
        let stored = disk.open().expect("a copy has no holder").document(&doc()).expect("the disk works");
        assert!(stored.aside.is_none() || rig.identity(0).replica != before);
    };
    let mended = |rig: &Rig| rig.ends[0].events.iter().any(|event| matches!(event, Event::Mended { .. }));
    assert!(rig.run_until(10 * SECOND, &mut look, mended));
    assert_eq!((rig.tail(0, &doc()), rig.tail(1, &doc())), (3, 3));
}

#[test]
fn an_authority_that_comes_back_as_another_replica_is_known_again() {
    let mut this = Restored::forked(medium(), options(Authority::Nobody), &NEW);
    this.world.mend(this.path);
    this.world.run_for(SECOND);
    this.reset();
    this.world.crash(this.server, Crash::Kill);
    let before = identity(this.world.disk(this.server)).replica;
    assert!(this.world.start(this.server, Continuity::Broken));
    assert_ne!(this.world.id(this.server), before);
    assert_eq!(mended(&this.world, this.client), 0, "it was gone too soon");
    this.world.run_for(30 * SECOND);
    assert_eq!(mended(&this.world, this.client), 1);
    this.ends_with(&NEW);
}

#[test]
fn a_cut_amid_mending_loses_and_doubles_nothing() {
    amid(
        |this| {
            this.world.cut(this.path, true);
            this.world.run_for(100 * MILLISECOND);
            this.world.mend(this.path);
        },
        &NEW,
    );
}

#[test]
fn the_app_hears_of_everything_that_the_new_history_holds() {
    let mut mend = Mend::new();
    mend.start();
    mend.finish(Continuity::Proven, &NEW);
    let client = mend.this.client;
    let mut mirror = BTreeSet::new();
    for event in mend.this.world.events(client) {
        match event {
            Event::Opened { tail: 0, .. } => mirror.clear(),
            Event::Received { batch } => mirror.extend(batch.entries.iter().map(|entry| entry.op.id)),
            _ => {}
        }
    }
    let held: BTreeSet<_> = entries_on(mend.this.world.disk(client), &doc()).iter().map(|entry| entry.op.id).collect();
    assert_eq!(mirror, held, "an app that starts anew where the document does ends with all of it");
}
