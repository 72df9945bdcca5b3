//! Worlds of replicas, driven by hand: short words for tests and examples.

use std::time::Duration;

use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{Config, Event, Input, Options, Replica};
use antiphon::storage::{Continuity, Storage};
use antiphon_memory::Disk;
use bytes::Bytes;

use super::{App, Idle, ReplicaDisk, ReplicaNode, Setup, Told};
use crate::world::{DiskState, NodeId, Pace, World};

impl World<ReplicaNode<Idle>> {
    /// An empty world of replicas, whose randomness all comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::of(seed)
    }
}

impl<A: App> World<ReplicaNode<A>> {
    /// A new replica on a disk of its own, which is started.
    pub fn add(&mut self, config: Config) -> NodeId {
        self.add_on(Disk::with_promise(config.session.durability), config, Continuity::Proven)
    }

    /// A replica on this disk, which may hold something, as a restored backup does; it is started.
    pub fn add_on(&mut self, disk: Disk, config: Config, continuity: Continuity) -> NodeId {
        let name = self.nodes().count() as u32;
        let node = self.place(name, ReplicaDisk::on(disk), Setup { config, ..Setup::default() });
        self.start(node, continuity);
        node
    }

    /// Puts another disk into a replica that is down.
    ///
    /// # Panics
    /// If it is up.
    pub fn replace_disk(&mut self, node: NodeId, disk: Disk) {
        self.put_disk(node, ReplicaDisk::on(disk));
    }

    /// A replica's disk.
    pub fn disk(&self, node: NodeId) -> &Disk {
        self.disk_of(node).medium()
    }

    /// A replica, if it is up.
    pub fn replica(&self, node: NodeId) -> Option<&Replica> {
        self.process(node).map(ReplicaNode::replica)
    }

    /// Who a replica is.
    ///
    /// # Panics
    /// If it is down.
    pub fn id(&self, node: NodeId) -> ReplicaId {
        self.replica(node).expect("the replica is up").id()
    }

    /// How long each request to the storage of a replica takes from now on.
    pub fn set_storage_delay(&mut self, node: NodeId, delay: Duration) {
        self.set_pace(node, Pace::of(delay));
    }

    /// Whether a replica's storage answers at all.
    pub fn stall_storage(&mut self, node: NodeId, stalled: bool) {
        self.set_disk_state(node, if stalled { DiskState::Stalled } else { DiskState::Works });
        self.settle();
    }

    /// Makes everything that a replica has written so far survive a loss of power.
    pub fn sync(&mut self, node: NodeId) {
        let _ = self.disk_of(node).read(|storage| storage.sync());
    }

    /// What a replica told its app, since its first start.
    pub fn events(&self, node: NodeId) -> impl Iterator<Item = &Event> {
        self.told(node).iter().filter_map(|(_, told)| match told {
            Told::Event(event) => Some(event),
            Told::Took(_) | Told::Declined(_) => None,
        })
    }

    /// The app of a replica opens a document, now and after each restart.
    pub fn open(&mut self, node: NodeId, document: &DocumentId, options: Options) {
        self.setup_mut(node).documents.insert(document.clone(), options.clone());
        self.input(node, Input::Open { document: document.clone(), options });
        self.settle();
    }

    /// The app of a replica appends one op.
    pub fn append(&mut self, node: NodeId, document: &DocumentId, body: impl Into<Bytes>) {
        let (document, bodies) = (document.clone(), vec![body.into()]);
        self.input(node, Input::Append { document, bodies });
        self.settle();
    }

    /// Any input of the app's for a replica; nothing if it is down.
    pub fn input(&mut self, node: NodeId, input: Input) {
        self.with_process(node, |now, process| process.app_input(now, input));
    }
}
