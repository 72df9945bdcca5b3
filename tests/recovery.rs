//! Restored backups, copies and lost tails: each is noticed, each ends in step, nothing that a disk holds is lost, and
//! forks are reported at both ends and mended by a reset from the authority.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, ReplicaId};
use antiphon::replica::{Authority, Config, Event, Input, Options, Salvage};
use antiphon::rng::Rng;
use antiphon::storage::{Batch, Continuity, Storage, Transaction};
use antiphon::wire::{Durability, Message};
use antiphon_memory::{CrashPoint, Disk};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Crash, Medium, NodeId, PathId};
use bytes::Bytes;
use common::*;

fn options(authority: Authority) -> Options {
    Options { authority, ..Options::default() }
}

/// Salvage goes in many small pieces.
fn config() -> Config {
    Config { read_max: 100, ..Config::default() }
}

fn medium() -> Medium {
    Medium::reliable(5 * MILLISECOND).upstream()
}

fn datagrams() -> Medium {
    Medium::datagram(Faults { latency: 5 * MILLISECOND, jitter: 3 * MILLISECOND, ..Faults::NONE }).upstream()
}

fn renewals(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Renewed { .. }))
}

fn mended(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Mended { .. }))
}

fn orphans(world: &World, node: NodeId) -> Vec<Vec<u8>> {
    let bodies = world.events(node).filter_map(|event| match event {
        Event::Orphaned { ops, .. } => Some(ops.iter().filter_map(|op| op.body.bytes().map(|body| body.to_vec()))),
        _ => None,
    });
    bodies.flatten().collect()
}

fn bodies(bodies: &[&str]) -> BTreeSet<Vec<u8>> {
    bodies.iter().map(|body| body.as_bytes().to_vec()).collect()
}

/// The codes with which documents were closed on reliable paths.
fn closes(world: &World) -> Vec<Code> {
    let messages = world.transcript().iter().filter_map(|sent| Message::decode(&sent.frame).ok());
    messages.filter_map(|message| if let Message::Close(end) = message { Some(end.code) } else { None }).collect()
}

/// A client whose backup is some ops old, and a server, its authority, that knows them.
struct Restored {
    world: World,
    client: NodeId,
    server: NodeId,
    path: PathId,
    backup: Disk,
}

/// What everybody had when the backup was made, and what the backup lacks.
const KEPT: [&str; 3] = ["a", "b", "server's first"];
const LOST: [&str; 3] = ["d", "e", "server's second"];

impl Restored {
    /// Up to the moment before the backup is put in place of the disk.
    fn new(medium: Medium, client_options: Options) -> Self {
        Self::on(Durability::Commit, medium, client_options)
    }

    fn on(promise: Durability, medium: Medium, client_options: Options) -> Self {
        let mut world = World::new(3);
        world.record();
        let disk = || Disk::with_promise(promise);
        let [client, server] = [(); 2].map(|()| world.add_on(disk(), config(), Continuity::Proven));
        world.open(client, &doc(), client_options);
        world.open(server, &doc(), options(Authority::Us));
        let path = world.join(client, server, medium);
        let nodes = [client, server];
        let say = |world: &mut World, said: [&'static str; 3]| {
            world.append(client, &doc(), said[0]);
            world.append(client, &doc(), said[1]);
            world.append(server, &doc(), said[2]);
            converge(world, &nodes, &doc(), SECOND);
            world.run_for(SECOND);
        };
        say(&mut world, KEPT);
        let backup = world.disk(client).backup();
        say(&mut world, LOST);
        Self { world, client, server, path, backup }
    }

    /// The backup is in place, nobody has noticed, and the client goes on offline with these ops.
    fn forked(medium: Medium, client_options: Options, new: &[&'static str]) -> Self {
        Self::new(medium, client_options).fork(new)
    }

    fn fork(self, new: &[&'static str]) -> Self {
        let mut this = self;
        let Self { world, client, path, backup, .. } = &mut this;
        world.cut(*path, true);
        world.crash(*client, Crash::Kill);
        world.replace_disk(*client, backup.backup());
        world.start(*client, Continuity::Proven);
        new.iter().for_each(|body| world.append(*client, &doc(), *body));
        this
    }

    fn nodes(&self) -> [NodeId; 2] {
        [self.client, self.server]
    }

    /// The app resets the document, if it is connected.
    fn reset(&mut self) {
        let Some(link) = self.world.link(self.path, self.client) else { return };
        if self.world.replica(self.client).and_then(|replica| replica.session(link)?.peer()).is_some() {
            self.world.input(self.client, Input::Reset { document: doc(), link });
            self.world.settle();
        }
    }

    /// Both hold all of the story, and these.
    #[track_caller]
    fn ends_with(&mut self, new: &[&str]) {
        let nodes = self.nodes();
        let all: BTreeSet<_> = bodies(&KEPT).into_iter().chain(bodies(&LOST)).chain(bodies(new)).collect();
        // In the middle of mending both may hold the same, and not yet all of it.
        self.world.run_until(60 * SECOND, |world| {
            nodes.iter().all(|node| bodies_on(world.disk(*node), &doc()).len() >= all.len())
        });
        self.world.run_for(SECOND);
        converge(&mut self.world, &nodes, &doc(), 10 * SECOND);
        let there = set_on(self.world.disk(self.client), &doc());
        let text =
            |set: Vec<&Vec<u8>>| set.into_iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        let (lost, more): (Vec<String>, Vec<String>) =
            (text(all.difference(&there).collect()), text(there.difference(&all).collect()));
        assert!(lost.is_empty() && more.is_empty(), "lost {lost:?}, surplus {more:?}");
    }
}

// -------------------------------------------------------------------------------------------- restored backups

#[test]
fn a_restored_backup_that_the_driver_notices_takes_its_lost_ops_back() {
    for clean in [true, false] {
        let mut this = Restored::new(medium(), options(Authority::Nobody));
        let Restored { world, client, server, path, backup } = &mut this;
        let before = world.id(*client);
        world.cut(*path, true);
        if clean {
            world.stop(*client);
        } else {
            world.crash(*client, Crash::Kill);
        }
        world.replace_disk(*client, backup.backup());
        world.start(*client, Continuity::Broken);
        assert_ne!(world.id(*client), before, "a replica whose continuity is broken takes a new id");
        world.append(*client, &doc(), "written before anyone could tell");
        world.append(*server, &doc(), "meanwhile");
        world.mend(*path);
        world.run_for(SECOND);
        world.append(*client, &doc(), "after");
        let (client, server) = (*client, *server);
        this.ends_with(&["written before anyone could tell", "meanwhile", "after"]);
        assert_eq!((forks(&this.world, client), forks(&this.world, server)), (0, 0));
        assert_eq!(renewals(&this.world, client), 0, "nothing was left to notice");
    }
}

#[test]
fn a_restored_backup_that_nobody_notices_is_noticed_by_what_the_peer_holds() {
    for medium in [medium(), datagrams()] {
        for clean in [true, false] {
            let mut this = Restored::new(medium, options(Authority::Nobody));
            let Restored { world, client, server, path, backup } = &mut this;
            let before = world.id(*client);
            world.cut(*path, true);
            if clean {
                world.stop(*client);
            } else {
                world.crash(*client, Crash::Kill);
            }
            world.replace_disk(*client, backup.backup());
            world.start(*client, Continuity::Proven);
            assert_eq!(world.id(*client), before);
            world.mend(*path);
            world.run_for(SECOND);
            world.append(*client, &doc(), "after");
            let (client, server) = (*client, *server);
            this.ends_with(&["after"]);
            assert_eq!(renewals(&this.world, client), 1);
            assert_eq!((forks(&this.world, client), forks(&this.world, server)), (0, 0));
            let after = entries_on(this.world.disk(client), &doc()).pop().expect("there are entries");
            assert_eq!(after.op.id.author, this.world.id(client));
            assert_ne!(this.world.id(client), before, "what is new is written under the new id");
            // It stays so over a restart.
            let id = this.world.id(client);
            this.world.crash(client, Crash::Kill);
            this.world.start(client, Continuity::Proven);
            assert_eq!(this.world.id(client), id);
        }
    }
}

#[test]
fn a_server_that_was_restored_gets_back_what_its_clients_hold() {
    let mut world = World::new(4);
    let nodes = [(); 3].map(|()| world.add(config()));
    let [first, server, second] = nodes;
    nodes.iter().for_each(|node| world.open(*node, &doc(), options(Authority::Nobody)));
    for client in [first, second] {
        world.join(client, server, medium());
    }
    let say = |world: &mut World, time: &str| {
        nodes.iter().zip(0..).for_each(|(node, who)| world.append(*node, &doc(), format!("{time} {who}")));
        converge(world, &nodes, &doc(), SECOND);
        world.run_for(SECOND);
    };
    say(&mut world, "kept");
    world.sync(server);
    say(&mut world, "lost");
    world.crash(server, Crash::PowerLoss { keep: 0 });
    assert_eq!(bodies_on(world.disk(server), &doc()).len(), 3);
    world.start(server, Continuity::Proven);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    say(&mut world, "new");
    assert_eq!(set_on(world.disk(server), &doc()).len(), 9);
    assert_eq!(renewals(&world, server), 1);
    assert!(nodes.iter().all(|node| forks(&world, *node) == 0));
}

// -------------------------------------------------------------------------------------------- forks

/// Ops that a restored client makes before anyone notices: fewer than it has lost, as many, and more.
const NEW: [&str; 4] = ["w", "x", "y", "z"];

#[test]
fn a_fork_is_reported_at_both_ends_and_mended_from_the_authority() {
    for medium in [medium(), datagrams()] {
        for count in 1..=NEW.len() {
            for restarted in [false, true] {
                let new = &NEW[..count];
                let mut this = Restored::forked(medium, options(Authority::Upstream), new);
                let Restored { world, client, server, path, .. } = &mut this;
                let (client, server) = (*client, *server);
                let before = world.id(client);
                if restarted {
                    // Own ops are no longer in memory when the peer's word of them comes.
                    world.stop(client);
                    world.start(client, Continuity::Proven);
                }
                // A server that writes slowly is still about what the old session sent when the new one is opened.
                world.set_storage_delay(server, 60 * MILLISECOND);
                world.mend(*path);
                this.ends_with(new);
                let world = &mut this.world;
                world.run_for(10 * SECOND);
                assert!(forks(world, client) > 0, "{count} {restarted}: the client is told");
                assert!(forks(world, server) > 0, "{count} {restarted}: the server is told");
                assert_eq!(mended(world, client), 1);
                assert!(orphans(world, client).is_empty() && orphans(world, server).is_empty());
                assert_eq!(renewals(world, server) + mended(world, server), 0, "the authority stays as it is");
                let old: Vec<_> = entries_on(world.disk(server), &doc())
                    .into_iter()
                    .filter(|entry| entry.op.id.author == before)
                    .collect();
                assert_eq!(old.len(), 4, "{count} {restarted}: nothing of one history was taken for more of the other");
                let me = world.id(client);
                let mine: Vec<_> = entries_on(world.disk(client), &doc())
                    .into_iter()
                    .filter(|entry| entry.op.id.author == me)
                    .collect();
                let anew: Vec<_> = mine.iter().filter_map(|entry| entry.op.body.bytes().cloned()).collect();
                assert_eq!(anew, new, "{count} {restarted}: own ops are appended anew, in their order");
                world.append(client, &doc(), "and on");
                this.ends_with(&[new, &["and on"]].concat());
            }
        }
    }
}

#[test]
fn a_fork_shows_even_where_neither_end_has_anything_to_send() {
    for medium in [medium(), datagrams()] {
        let mut world = World::new(8);
        let nodes = [(); 2].map(|()| world.add(config()));
        let author = ReplicaId([9; 16]);
        let path = world.join(nodes[0], nodes[1], medium);
        for (node, other, body) in [(nodes[0], nodes[1], "one"), (nodes[1], nodes[0], "other")] {
            world.crash(node, Crash::Kill);
            let peer = identity(world.disk(other));
            let op = Op { id: OpId { author, seq: 1 }, body: Body::Bytes(Bytes::from(body)) };
            let chain = Head::NONE.then(op.body.hash()).chain;
            let batch = Batch {
                document: doc(),
                position: 0,
                entries: vec![Entry { op, chain, origin: None }],
                cursors: vec![(peer.replica, Cursor { timeline: peer.opens.current(), position: 1 })],
                timeline: None,
                salvaged: None,
            };
            world.disk(node).open().expect("nobody uses it").write(&Transaction::Append(Arc::new(batch))).unwrap();
        }
        for node in nodes {
            world.start(node, Continuity::Proven);
            world.open(node, &doc(), Options::default());
        }
        world.mend(path);
        world.run_for(5 * SECOND);
        assert!(nodes.iter().all(|node| forks(&world, *node) == 1), "each end believes that the other holds all");
    }
}

#[test]
fn own_ops_of_a_fork_are_handed_over_where_the_app_wants_that() {
    let options = Options { salvage: Salvage::HandOver, ..options(Authority::Upstream) };
    let mut this = Restored::forked(medium(), options, &NEW);
    this.world.mend(this.path);
    this.world.run_for(10 * SECOND);
    this.ends_with(&[]);
    assert_eq!(mended(&this.world, this.client), 1);
    assert_eq!(orphans(&this.world, this.client), NEW.map(|body| body.as_bytes().to_vec()));
}

#[test]
fn without_an_authority_a_fork_stays_until_the_app_resets() {
    for medium in [medium(), datagrams()] {
        let mut this = Restored::forked(medium, options(Authority::Nobody), &NEW[..2]);
        this.world.mend(this.path);
        this.world.run_for(10 * SECOND);
        assert!(forks(&this.world, this.client) > 0 && forks(&this.world, this.server) > 0);
        assert!(!same_on_disks(&this.world, &this.nodes(), &doc()));
        assert_eq!(mended(&this.world, this.client), 0);
        // What has nothing to do with the fork goes on.
        this.world.append(this.client, &doc(), "from the client");
        this.world.append(this.server, &doc(), "from the server");
        this.world.run_for(SECOND);
        for node in this.nodes() {
            let there = set_on(this.world.disk(node), &doc());
            assert!(there.is_superset(&bodies(&["from the client", "from the server"])));
        }
        let quiet = this.world.transcript().len();
        this.world.run_for(5 * SECOND);
        assert!(this.world.transcript().len() - quiet < 20, "a fork that is known is not talked about all the time");
        this.reset();
        this.ends_with(&["w", "x", "from the client", "from the server"]);
        this.world.run_for(SECOND);
        assert_eq!(mended(&this.world, this.client), 1);
    }
}

#[test]
fn a_reset_of_what_is_whole_changes_nothing() {
    let mut this = Restored::new(medium(), options(Authority::Nobody));
    for _ in 0..2 {
        this.reset();
        this.ends_with(&[]);
        this.world.run_for(SECOND);
    }
    assert_eq!(mended(&this.world, this.client), 2);
    assert_eq!(forks(&this.world, this.client), 0);
}

// -------------------------------------------------------------------------------------------- in the middle of mending

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

// -------------------------------------------------------------------------------------------- third replicas

#[test]
fn ops_of_others_that_only_the_mended_replica_holds_survive() {
    let mut this = Restored::new(medium(), options(Authority::Upstream));
    let Restored { world, client, server, path, backup } = &mut this;
    let (client, server, path) = (*client, *server, *path);
    world.cut(path, true);
    world.crash(client, Crash::Kill);
    world.replace_disk(client, backup.backup());
    world.start(client, Continuity::Proven);
    let friend = world.add(config());
    world.open(friend, &doc(), options(Authority::Nobody));
    let beside = world.join(friend, client, Medium::reliable(MILLISECOND));
    (0..5).for_each(|number| world.append(friend, &doc(), format!("friend's {number}")));
    // As many as were lost: the fork shows in the peer's Open, before anything else could bring the friend's ops over.
    ["x", "y"].iter().for_each(|body| world.append(client, &doc(), *body));
    converge(world, &[client, friend], &doc(), SECOND);
    let author = world.id(friend);
    world.cut(beside, true);
    world.crash(friend, Crash::Kill);
    world.mend(path);
    let relayed = ["friend's 0", "friend's 1", "friend's 2", "friend's 3", "friend's 4"];
    this.ends_with(&[&relayed[..], &["x", "y"]].concat());
    let world = &mut this.world;
    assert_eq!(mended(world, client), 1);
    let on_server = entries_on(world.disk(server), &doc());
    let seqs: Vec<_> =
        on_server.iter().filter(|entry| entry.op.id.author == author).map(|entry| entry.op.id.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "they are still their author's");
    // The friend has the forked op of before: it is told, and loses nothing of its own.
    world.start(friend, Continuity::Proven);
    world.mend(beside);
    world.run_for(10 * SECOND);
    assert!(forks(world, friend) > 0 && orphans(world, friend).is_empty());
    let link = world.link(beside, friend).expect("they are connected");
    world.input(friend, Input::Reset { document: doc(), link });
    world.settle();
    converge(world, &[client, server, friend], &doc(), 10 * SECOND);
    world.run_for(SECOND);
    assert_eq!(mended(world, friend), 1);
    let orphans = orphans(world, friend);
    assert_eq!(orphans, [b"x", b"y"], "they have their place under another id, and were not the friend's to move");
    world.append(friend, &doc(), "and on");
    converge(world, &[client, server, friend], &doc(), SECOND);
}

#[test]
fn a_third_replica_that_is_there_all_the_time_brings_nothing_back_and_loses_nothing() {
    for latency in 0..8 {
        for delay in [0, 1, 4] {
            let mut this = Restored::forked(medium(), options(Authority::Upstream), &NEW[..2]);
            let Restored { world, client, path, .. } = &mut this;
            let friend = world.add(config());
            world.open(friend, &doc(), options(Authority::Nobody));
            world.join(friend, *client, Medium::reliable(MILLISECOND * latency));
            let said: Vec<_> = (0..12).map(|number| format!("friend's {number}")).collect();
            said.iter().for_each(|body| world.append(friend, &doc(), body.clone()));
            converge(world, &[*client, friend], &doc(), SECOND);
            world.run_for(SECOND);
            world.set_storage_delay(*client, MILLISECOND * delay);
            world.mend(*path);
            // The friend holds the forked ops, and offers them whenever it may.
            this.ends_with(&NEW[..2].iter().copied().chain(said.iter().map(String::as_str)).collect::<Vec<_>>());
            assert_eq!(mended(&this.world, this.client), 1, "latency {latency}, delay {delay}");
            assert!(orphans(&this.world, this.client).is_empty());
        }
    }
}

#[test]
fn what_is_put_aside_and_comes_from_the_authority_at_the_same_time_is_there_once() {
    for delay in [4, 9] {
        for wait in 0..200 {
            let mut this = Restored::forked(medium(), options(Authority::Upstream), &[]);
            let Restored { world, client, server, path, .. } = &mut this;
            let friend = world.add(config());
            world.open(friend, &doc(), options(Authority::Nobody));
            let beside = world.join(friend, *client, Medium::reliable(MILLISECOND));
            let said: Vec<_> = (0..12).map(|number| format!("friend's {number}")).collect();
            for (number, body) in said.iter().enumerate() {
                world.append(friend, &doc(), body.clone());
                converge(world, &[*client, friend], &doc(), SECOND);
                NEW.get(number).into_iter().for_each(|body| world.append(*client, &doc(), *body));
            }
            world.run_for(SECOND);
            world.cut(beside, true);
            world.set_storage_delay(*client, MILLISECOND * delay);
            world.mend(*path);
            world.run_for(MILLISECOND * 2 * wait);
            // While the client goes through what it has put aside, the authority hears of it from the friend.
            world.join(friend, *server, Medium::reliable(MILLISECOND));
            this.ends_with(&NEW.iter().copied().chain(said.iter().map(String::as_str)).collect::<Vec<_>>());
            assert_eq!(mended(&this.world, this.client), 1, "wait {wait}, delay {delay}");
            assert!(orphans(&this.world, this.client).is_empty(), "wait {wait}, delay {delay}");
        }
    }
}

#[test]
fn a_replica_at_the_authority_sees_nothing_of_a_fork_elsewhere() {
    let mut this = Restored::forked(medium(), options(Authority::Upstream), &NEW);
    let Restored { world, client, server, path, .. } = &mut this;
    let (client, server) = (*client, *server);
    let witness = world.add(config());
    world.open(witness, &doc(), options(Authority::Upstream));
    world.join(witness, server, medium());
    world.append(witness, &doc(), "witness");
    world.run_for(SECOND);
    world.mend(*path);
    this.ends_with(&[&NEW[..], &["witness"]].concat());
    let world = &mut this.world;
    converge(world, &[client, server, witness], &doc(), SECOND);
    assert_eq!((forks(world, witness), renewals(world, witness), mended(world, witness)), (0, 0, 0));
}

// -------------------------------------------------------------------------------------------- copies

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

// -------------------------------------------------------------------------------------------- lost tails

fn identity(disk: &Disk) -> antiphon::storage::Identity {
    disk.backup().open().expect("a copy has no holder").identity().expect("the disk works").expect("it was opened")
}

fn write_cursor(disk: &Disk, document: &DocumentId, of: &Disk, beyond: u64) {
    let (peer, tail) = (identity(of), entries_on(of, document).len() as u64);
    let cursor = Cursor { timeline: peer.opens.current(), position: tail + beyond };
    let mut storage = disk.open().expect("nobody uses it");
    let position = storage.document(document).expect("the disk works").tail;
    let batch = Batch {
        document: document.clone(),
        position,
        entries: Vec::new(),
        cursors: vec![(peer.replica, cursor)],
        timeline: None,
        salvaged: None,
    };
    storage.write(&Transaction::Append(Arc::new(batch))).expect("the disk works");
}

#[test]
fn a_cursor_beyond_the_tail_starts_a_new_timeline_at_once() {
    let mut this = Restored::new(medium(), options(Authority::Nobody));
    let Restored { world, client, server, .. } = &mut this;
    let (client, server) = (*client, *server);
    world.crash(server, Crash::Kill);
    // The server has seen three ops more than the client now has, in the very timeline that the client is in.
    write_cursor(world.disk(server), &doc(), world.disk(client), 3);
    let before = world.transcript().len();
    world.start(server, Continuity::Proven);
    world.run_for(SECOND);
    assert_eq!(closes(world).iter().filter(|code| **code == Code::TAIL_LOST).count(), 2, "said, and answered");
    let timelines: Vec<_> = world.transcript()[before..]
        .iter()
        .filter(|sent| sent.from == client)
        .filter_map(|sent| match Message::decode(&sent.frame) {
            Ok(Message::Open(open)) => Some(open.timelines.map(|own| own.current)),
            _ => None,
        })
        .collect();
    assert!(matches!(timelines[..], [None, Some(_)]), "the next Open is in a timeline of its own: {timelines:?}");
    // Positions that were given out twice would swallow these.
    ["one", "two", "three", "four"].iter().for_each(|body| this.world.append(client, &doc(), *body));
    this.ends_with(&["one", "two", "three", "four"]);
    assert!(!closes(&this.world).contains(&Code::MISMATCH) && !closes(&this.world).contains(&Code::AUTHOR_GAP));
    assert_eq!(forks(&this.world, client) + forks(&this.world, server), 0);
}

#[test]
fn a_cursor_on_a_timeline_that_was_cut_short_counts_up_to_the_cut() {
    let mut world = World::new(6);
    world.record();
    let nodes = [(); 3].map(|()| world.add(config()));
    let [writer, server, reader] = nodes;
    nodes.iter().for_each(|node| world.open(*node, &doc(), Options::default()));
    world.join(writer, server, Medium::reliable(MILLISECOND));
    let path = world.join(reader, server, Medium::reliable(MILLISECOND));
    world.append(writer, &doc(), "kept");
    converge(&mut world, &nodes, &doc(), SECOND);
    world.sync(server);
    world.append(reader, &doc(), "lost at the server");
    world.append(reader, &doc(), "lost there too");
    converge(&mut world, &nodes, &doc(), SECOND);
    world.run_for(SECOND);
    world.cut(path, true);
    world.crash(server, Crash::PowerLoss { keep: 0 });
    assert_eq!(bodies_on(world.disk(server), &doc()).len(), 1);
    // The writer holds the lost ones and gives them back behind what is new at the same positions.
    world.start(server, Continuity::Proven);
    world.append(server, &doc(), "at a position that the reader knows for another op");
    world.append(server, &doc(), "and one more");
    world.run_for(SECOND);
    world.mend(path);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    assert_eq!(set_on(world.disk(reader), &doc()).len(), 5);
    let repairs = closes(&world).iter().filter(|code| [Code::MISMATCH, Code::AUTHOR_GAP].contains(code)).count();
    assert_eq!(repairs, 0, "nobody relied on a position of the lost tail");
}

// -------------------------------------------------------------------------------------------- at random

/// Two clients on a server, for a while also on each other. Each client is restored once, from a backup of some time
/// before, with nobody noticing; networks, disks and processes fail besides.
fn restores(seed: u64) -> usize {
    let mut dice = Rng::new(seed);
    let mut world = World::new(dice.next_u64());
    let server = world.add(config());
    world.open(server, &doc(), options(Authority::Us));
    let clients = [(); 2].map(|()| world.add(config()));
    let medium = if dice.below(2) == 0 { medium() } else { datagrams() };
    let mut paths = Vec::new();
    for client in clients {
        world.open(client, &doc(), options(Authority::Upstream));
        world.set_storage_delay(client, MILLISECOND * dice.below(5) as u32);
        paths.push(world.join(client, server, medium));
    }
    if dice.below(3) == 0 {
        paths.push(world.join(clients[0], clients[1], Medium { upstream: false, ..medium }));
    }
    let mut backups: [Option<Disk>; 2] = [None, None];
    let mut restored = [false; 2];
    for step in 0..60 {
        let who = dice.below(2) as usize;
        let client = clients[who];
        let path = paths[dice.below(paths.len() as u64) as usize];
        match dice.below(16) {
            0..=5 => world.append(client, &doc(), format!("{step} of {who}")),
            6 => world.append(server, &doc(), format!("{step} of the server")),
            7 => world.cut(path, dice.below(2) == 0),
            8 => world.mend(path),
            9 if !restored[who] => backups[who] = Some(world.disk(client).backup()),
            10 => {
                world.crash(client, Crash::Kill);
                if let Some(backup) = backups[who].take().filter(|_| !restored[who]) {
                    world.replace_disk(client, backup);
                    restored[who] = true;
                }
                world.start(client, Continuity::Proven);
            }
            11 => {
                world.crash(server, Crash::Kill);
                world.start(server, Continuity::Proven);
            }
            12 => world.disk(client).fail_next(1),
            _ => world.run_for(MILLISECOND * dice.below(120) as u32),
        }
    }
    let nodes = [server, clients[0], clients[1]];
    for node in nodes {
        world.disk(node).fail_next(0);
        assert!(world.start(node, Continuity::Proven));
    }
    let kept: BTreeSet<_> = nodes.iter().flat_map(|node| bodies_on(world.disk(*node), &doc())).collect();
    paths.iter().for_each(|path| world.mend(*path));
    let whole = |world: &World, node: NodeId| {
        let stored = world.disk(node).backup().open().expect("a copy has no holder").document(&doc());
        stored.expect("the disk works").aside.is_none()
    };
    let done = world.run_until(120 * SECOND, |world| {
        same_on_disks(world, &nodes, &doc()) && nodes.iter().all(|node| whole(world, *node))
    });
    assert!(done, "seed {seed}: not in step");
    world.run_for(5 * SECOND);
    converge(&mut world, &nodes, &doc(), 10 * SECOND);
    let mut all = set_on(world.disk(server), &doc());
    // What a client had of the other one, who came to mean something else by it, is its app's to decide about.
    clients.iter().for_each(|client| all.extend(orphans(&world, *client)));
    assert!(all.is_superset(&kept), "seed {seed}: lost {:?}", kept.difference(&all).collect::<Vec<_>>());
    clients.iter().map(|client| mended(&world, *client)).sum()
}

#[test]
fn restores_at_random_times_end_in_step_with_nothing_lost() {
    let mended: usize = (0..300).map(restores).sum();
    assert!(mended > 20, "{mended} resets: restores do lead to forks");
}
