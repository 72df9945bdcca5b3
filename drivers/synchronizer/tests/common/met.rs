//! Stores of which the nodes are linked one way or another, for the cases that TinyBase has.

#![allow(unreachable_pub)] // two topics use it, each a crate of its own

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use antiphon::replica::Replica;
use antiphon::store::{ClientId, Direction, Schema, Store, WriteError};
use antiphon_node::Node;
use antiphon_synchronizer::{Options, Phase, SharedStore, Synchronizer};

use crate::cases::{Linked, Meeting, WALL, Write};
use crate::common::{doc, node, one_way, wait};

/// What links nodes.
pub trait Network {
    /// For a start nobody is linked.
    fn new() -> Self;

    /// Links all, directly or by the first one. Returns how many peers the first has then, and each of the others.
    fn join(&mut self, nodes: &[&Node]) -> (usize, usize);

    /// Nobody is linked any more.
    fn part(&mut self);
}

struct Peer {
    node: Node,
    store: SharedStore,
    synchronizer: Synchronizer,
    clock: Arc<AtomicU64>,
}

/// Stores over a network: linked when they first meet, for what they write before that none of them is to have heard of.
pub struct Met<N> {
    network: N,
    /// How many peers the first and the others have; `None`, while nobody has met.
    peers: Option<(usize, usize)>,
    /// In the order of their clients.
    all: Vec<Peer>,
}

impl<N: Network> Met<N> {
    fn link(&mut self) {
        self.peers = Some(self.network.join(&self.all.iter().map(|peer| &peer.node).collect::<Vec<_>>()));
    }
}

impl<N: Network> Meeting for Met<N> {
    fn of(stores: usize) -> Self {
        let mut nodes: Vec<_> = (0..stores).map(|_| node()).collect();
        nodes.sort_by_key(|node| ClientId::of(node.inspect(Replica::id)));
        let peer = |node: Node| {
            let clock = Arc::new(AtomicU64::new(WALL));
            let client = ClientId::of(node.inspect(Replica::id));
            let store = SharedStore::with_clock(Store::new(client), {
                let clock = clock.clone();
                move || clock.load(Ordering::SeqCst)
            });
            let synchronizer = Synchronizer::new(&store, &node, &doc(), Options::default());
            drop(synchronizer.start());
            Peer { node, store, synchronizer, clock }
        };
        Self { network: N::new(), peers: None, all: nodes.into_iter().map(peer).collect() }
    }

    fn write(&mut self, store: usize, wall: u64, writes: &[Write]) {
        let peer = &self.all[store];
        peer.clock.store(wall, Ordering::SeqCst);
        let written: Result<_, WriteError> =
            peer.store.write(|transaction| writes.iter().try_for_each(|write| write.on(transaction)));
        written.unwrap();
    }

    /// When each has been in step once, all have handed out what they wrote; the second time they have all that.
    fn meet(&mut self) {
        if self.peers.is_none() {
            self.link();
        }
        let (first, others) = self.peers.expect("they are linked");
        for _ in 0..2 {
            for (index, Peer { synchronizer, .. }) in self.all.iter().enumerate() {
                let peers = if index == 0 { first } else { others };
                let all = synchronizer.reaches(|status| status.phase == Phase::InStep && status.peers == peers);
                wait(all).unwrap();
            }
        }
    }

    fn look<T>(&self, store: usize, look: impl FnOnce(&Store) -> T) -> T {
        self.all[store].store.read(look)
    }

    fn len(&self) -> usize {
        self.all.len()
    }
}

impl<N: Network> Linked for Met<N> {
    fn attach(&mut self, store: usize, direction: Direction) {
        let peer = &mut self.all[store];
        peer.synchronizer.stop();
        peer.synchronizer = Synchronizer::new(&peer.store, &peer.node, &doc(), one_way(direction));
        drop(peer.synchronizer.start());
    }

    fn set_schema(&mut self, store: usize, schema: Schema) {
        self.all[store].store.set_schema(Some(schema)).unwrap();
    }

    fn part(&mut self) {
        self.network.part();
        for Peer { synchronizer, .. } in &self.all {
            wait(synchronizer.reaches(|status| status.peers == 0)).unwrap();
        }
    }

    fn join(&mut self) {
        self.link();
    }
}
