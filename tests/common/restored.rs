//! A client that was restored from a backup, and what is told of restores, forks and resets.

use std::collections::BTreeSet;

use antiphon::codes::Code;
use antiphon::replica::{Authority, Config, Event, Input, Options};
use antiphon::storage::{Continuity, Identity, Storage};
use antiphon::wire::{Durability, Message};
use antiphon_memory::Disk;
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Crash, Medium, NodeId, PathId};

use super::{MILLISECOND, SECOND, bodies_on, converge, count, doc, set_on};

pub fn options(authority: Authority) -> Options {
    Options { authority, ..Options::default() }
}

/// Salvage goes in many small pieces.
pub fn config() -> Config {
    Config { read_max: 100, ..Config::default() }
}

pub fn medium() -> Medium {
    Medium::reliable(5 * MILLISECOND).upstream()
}

pub fn datagrams() -> Medium {
    Medium::datagram(Faults { latency: 5 * MILLISECOND, jitter: 3 * MILLISECOND, ..Faults::NONE }).upstream()
}

pub fn renewals(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Renewed { .. }))
}

pub fn mended(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Mended { .. }))
}

pub fn orphans(world: &World, node: NodeId) -> Vec<Vec<u8>> {
    let bodies = world.events(node).filter_map(|event| match event {
        Event::Orphaned { ops, .. } => Some(ops.iter().filter_map(|op| op.body.bytes().map(|body| body.to_vec()))),
        _ => None,
    });
    bodies.flatten().collect()
}

pub fn bodies(bodies: &[&str]) -> BTreeSet<Vec<u8>> {
    bodies.iter().map(|body| body.as_bytes().to_vec()).collect()
}

/// The codes with which documents were closed on reliable paths.
pub fn closes(world: &World) -> Vec<Code> {
    let messages = world.transcript().iter().filter_map(|sent| Message::decode(&sent.frame).ok());
    messages.filter_map(|message| if let Message::Close(end) = message { Some(end.code) } else { None }).collect()
}

/// Who a replica is, as its disk has it.
pub fn identity(disk: &Disk) -> Identity {
    disk.backup().open().expect("a copy has no holder").identity().expect("the disk works").expect("it was opened")
}

/// Ops that a restored client makes before anyone notices: fewer than it has lost, as many, and more.
pub const NEW: [&str; 4] = ["w", "x", "y", "z"];

/// A client whose backup is some ops old, and a server, its authority, that knows them.
pub struct Restored {
    pub world: World,
    pub client: NodeId,
    pub server: NodeId,
    pub path: PathId,
    pub backup: Disk,
}

/// What everybody had when the backup was made, and what the backup lacks.
pub const KEPT: [&str; 3] = ["a", "b", "server's first"];
pub const LOST: [&str; 3] = ["d", "e", "server's second"];

impl Restored {
    /// Up to the moment before the backup is put in place of the disk.
    pub fn new(medium: Medium, client_options: Options) -> Self {
        Self::on(Durability::Commit, medium, client_options)
    }

    pub fn on(promise: Durability, medium: Medium, client_options: Options) -> Self {
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
    pub fn forked(medium: Medium, client_options: Options, new: &[&'static str]) -> Self {
        Self::new(medium, client_options).fork(new)
    }

    pub fn fork(self, new: &[&'static str]) -> Self {
        let mut this = self;
        this.put_back(false, Continuity::Proven);
        new.iter().for_each(|body| this.world.append(this.client, &doc(), *body));
        this
    }

    /// The backup takes the place of the disk of a client that was stopped or has died, and the client starts offline.
    pub fn put_back(&mut self, stopped: bool, continuity: Continuity) {
        let Self { world, client, path, backup, .. } = self;
        world.cut(*path, true);
        if stopped {
            world.stop(*client);
        } else {
            world.crash(*client, Crash::Kill);
        }
        world.replace_disk(*client, backup.backup());
        world.start(*client, continuity);
    }

    pub fn nodes(&self) -> [NodeId; 2] {
        [self.client, self.server]
    }

    /// The app resets the document, if it is connected.
    pub fn reset(&mut self) {
        let Some(link) = self.world.link(self.path, self.client) else { return };
        if self.world.replica(self.client).and_then(|replica| replica.session(link)?.peer()).is_some() {
            self.world.input(self.client, Input::Reset { document: doc(), link });
            self.world.settle();
        }
    }

    /// Both hold all of the story, and these.
    #[track_caller]
    pub fn ends_with(&mut self, new: &[&str]) {
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
