//! What the topics share: short words for worlds of replicas.

#![allow(dead_code, unreachable_pub)] // each topic is a crate of its own and uses some of it

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Options};
use antiphon::storage::Storage;
use antiphon_memory::Disk;
use antiphon_sim::World;
use antiphon_sim::world::NodeId;

/// The document that most tests use.
pub fn doc() -> DocumentId {
    document("doc")
}

pub fn document(name: &str) -> DocumentId {
    name.parse().expect("the name is valid")
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);

/// A world of `count` replicas that have the document open.
pub fn world(seed: u64, count: usize) -> (World, Vec<NodeId>) {
    let mut world = World::new(seed);
    let nodes: Vec<_> = (0..count).map(|_| world.add(Config::default())).collect();
    for node in &nodes {
        world.open(*node, &doc(), Options::default());
    }
    (world, nodes)
}

/// The bodies of a document in the order of its log, as a disk holds them.
pub fn bodies_on(disk: &Disk, document: &DocumentId) -> Vec<Vec<u8>> {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    let mut bodies = Vec::new();
    loop {
        let entries = storage.read(document, bodies.len() as u64, u64::MAX).expect("the disk works");
        if entries.is_empty() {
            return bodies;
        }
        bodies.extend(entries.iter().map(|entry| entry.op.body.bytes().map(|body| body.to_vec()).unwrap_or_default()));
    }
}

/// The set of bodies on a disk; bodies must differ.
pub fn set_on(disk: &Disk, document: &DocumentId) -> BTreeSet<Vec<u8>> {
    let bodies = bodies_on(disk, document);
    let set: BTreeSet<_> = bodies.iter().cloned().collect();
    assert_eq!(set.len(), bodies.len(), "no op is in a log twice");
    set
}

/// The digest of the heads on a disk.
pub fn digest_on(disk: &Disk, document: &DocumentId) -> u64 {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    storage.document(document).expect("the disk works").heads.digest()
}

/// Whether all disks hold the same of a document.
pub fn same_on_disks(world: &World, nodes: &[NodeId], document: &DocumentId) -> bool {
    let mut digests = nodes.iter().map(|node| digest_on(world.disk(*node), document));
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

/// Runs until all disks hold the same, and checks that the ops are the same too.
#[track_caller]
pub fn converge(world: &mut World, nodes: &[NodeId], document: &DocumentId, limit: Duration) {
    let done = world.run_until(limit, |world| same_on_disks(world, nodes, document));
    assert!(done, "not in step after {limit:?}");
    let sets: Vec<_> = nodes.iter().map(|node| set_on(world.disk(*node), document)).collect();
    assert!(sets.windows(2).all(|pair| pair[0] == pair[1]), "equal heads, different ops");
}

/// How often an event of a kind was told.
pub fn count(world: &World, node: NodeId, kind: impl Fn(&Event) -> bool) -> usize {
    world.events(node).filter(|event| kind(event)).count()
}

pub fn in_steps(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::InStep { .. }))
}

pub fn forks(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Forked { .. }))
}
