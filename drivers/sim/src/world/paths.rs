//! Paths: who is joined with whom, what frames suffer there, cables that are cut and mended.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon::retry::Backoff;
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::{Instant, Machine};
use bytes::Bytes;

use super::wires::reconnect;
use super::{Happening, NodeId, PathId, Side, World};
use crate::link::{self, Counters, Faults};
use crate::node::Node;

/// What a path is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Medium {
    /// What its frames suffer, in both directions.
    pub faults: Faults,
    /// What its sessions are told that it is. Faults other than latency and bandwidth need a datagram.
    pub transport: Transport,
    /// The second node of the path is the authority of documents opened so by the first.
    pub upstream: bool,
}

impl Medium {
    /// A path that loses nothing and keeps the order, with this latency in each direction.
    pub fn reliable(latency: Duration) -> Self {
        let faults = Faults { latency, ..Faults::RELIABLE };
        Self { faults, transport: Transport::Reliable, upstream: false }
    }

    /// A path of datagrams of up to 1,200 bytes.
    pub fn datagram(faults: Faults) -> Self {
        Self { faults, transport: Transport::Datagram { mtu: 1200 }, upstream: false }
    }

    /// The same path, with the second node as the authority for the first.
    #[must_use]
    pub fn upstream(self) -> Self {
        Self { upstream: true, ..self }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self.transport, Transport::Datagram { .. })
    }
}

/// What is done to one frame, whatever the path's faults do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Tamper {
    /// It never arrives.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives so much later.
    Delay(Duration),
    /// The next frame from the same end goes before it. If there is none, it never arrives.
    Swap,
    /// This bit of it, counted from the first and over again, is another.
    Flip(u64),
}

/// A path between two nodes. Datagrams have no connection: each end has a session when it likes, and one wire serves them
/// all. On a reliable path each connection is a wire of its own; the first end makes them. While one end does not know
/// that its connection is gone, there may be two.
pub(super) struct Path {
    pub(super) id: PathId,
    pub(super) medium: Medium,
    pub(super) ends: [NodeId; 2],
    /// Which side's frames are lost, silently.
    pub(super) cut: [bool; 2],
    /// Whether nothing connects.
    pub(super) down: bool,
    pub(super) wires: Vec<u32>,
    pub(super) rng: Rng,
    pub(super) backoff: [Backoff; 2],
    /// When each end connects again.
    pub(super) dials: [Option<Instant>; 2],
    /// Of the wires that are gone.
    pub(super) counters: [Counters; 2],
    /// How many frames were sent on it, and what is to be done to some of them.
    pub(super) sent: u64,
    pub(super) tampers: BTreeMap<u64, Tamper>,
    /// Frames of each side that wait for the next one to go first.
    pub(super) swapped: [Option<(u64, Bytes)>; 2],
}

impl Path {
    pub(super) fn faults(&self, side: Side) -> Faults {
        Faults { cut: self.medium.faults.cut || self.cut[side], ..self.medium.faults }
    }
}

impl<N: Node> World<N> {
    /// Joins two nodes by a path, which is connected whenever both are up, and again after each end.
    pub fn join(&mut self, first: NodeId, second: NodeId, medium: Medium) -> PathId {
        let name = self.paths.len() as u64;
        let path = self.lay(name, first, second, medium);
        self.connect(path);
        self.settle();
        path
    }

    /// The same without connecting it. `name` tells it from others when the dice are made.
    pub(crate) fn lay(&mut self, name: u64, first: NodeId, second: NodeId, medium: Medium) -> PathId {
        let path = PathId { index: self.paths.len() as u32, ends: (first.name(), second.name()) };
        let rng = self.dice(2, name);
        self.paths.push(Path {
            id: path,
            medium,
            ends: [first, second],
            cut: [false; 2],
            down: false,
            wires: Vec::new(),
            rng,
            backoff: [(); 2].map(|()| reconnect()),
            dials: [None; 2],
            counters: [Counters::default(); 2],
            sent: 0,
            tampers: BTreeMap::new(),
            swapped: [None, None],
        });
        self.slots[first.index()].paths.push(path);
        self.slots[second.index()].paths.push(path);
        if medium.is_datagram() {
            self.new_wire(path);
        }
        path
    }

    /// The nodes that a path joins.
    pub fn ends(&self, path: PathId) -> [NodeId; 2] {
        self.paths[path.index()].ends
    }

    /// What a path is.
    pub fn medium(&self, path: PathId) -> Medium {
        self.paths[path.index()].medium
    }

    // ---------------------------------------------------------------------------------------- faults

    /// Takes a path down: what is in flight is lost, both ends learn of it if `noticed`, and nothing connects.
    pub fn cut(&mut self, path: PathId, noticed: bool) {
        if noticed {
            self.take_path_down(path);
        } else {
            self.cut_silently(path, [true; 2]);
        }
        self.settle();
    }

    /// Takes a path down and tells both ends; what is due then is still to be done.
    pub(crate) fn take_path_down(&mut self, path: PathId) {
        self.paths[path.index()].down = true;
        self.happened(Happening::Parted { path });
        self.disconnect(path);
    }

    /// From now on until the path is mended, what these ends of it send is lost, and nobody is told.
    pub fn cut_silently(&mut self, path: PathId, sides: [bool; 2]) {
        let cut = &mut self.paths[path.index()].cut;
        *cut = [cut[0] | sides[0], cut[1] | sides[1]];
        let sides = *cut;
        self.happened(Happening::Cut { path, sides });
        self.apply(path);
    }

    /// Brings a path up again.
    pub fn mend(&mut self, path: PathId) {
        self.repair(path);
        self.settle();
    }

    /// The same, and what is due then is still to be done.
    pub(crate) fn repair(&mut self, path: PathId) {
        let state = &mut self.paths[path.index()];
        let was_cut = std::mem::take(&mut state.cut) != [false; 2];
        let was_down = std::mem::take(&mut state.down);
        if was_cut || was_down {
            self.happened(Happening::Mended { path });
        }
        let state = &self.paths[path.index()];
        if was_cut && !state.medium.is_datagram() {
            self.disconnect(path); // no reliable transport survives a hole
        }
        self.apply(path);
        if was_cut || was_down {
            self.connect(path);
        }
    }

    /// Gives a path other faults.
    pub fn set_faults(&mut self, path: PathId, faults: Faults) {
        self.paths[path.index()].medium.faults = faults;
        self.happened(Happening::Faults { path, faults });
        self.apply(path);
    }

    fn apply(&mut self, path: PathId) {
        for index in 0..self.paths[path.index()].wires.len() {
            let wire = self.paths[path.index()].wires[index];
            for side in [0, 1] {
                let faults = self.paths[path.index()].faults(side);
                if let Some(wire) = &mut self.wires[wire as usize] {
                    let Ok(()) = wire.links[side].handle(self.now, link::Input::Faults(faults));
                }
                self.arm_wire(wire, side);
            }
        }
    }

    /// Does this to a frame that is yet to be sent on a path; 0 is the next one, whichever end sends it.
    pub fn tamper(&mut self, path: PathId, index: u64, tamper: Tamper) {
        let path = &mut self.paths[path.index()];
        path.tampers.insert(path.sent + index, tamper);
    }

    /// What a path did so far with the frames of each side.
    pub fn counters(&self, path: PathId) -> [Counters; 2] {
        let path = &self.paths[path.index()];
        let mut total = path.counters;
        for wire in path.wires.iter().filter_map(|wire| self.wires[*wire as usize].as_ref()) {
            total.iter_mut().zip(&wire.links).for_each(|(total, link)| total.add(link.counters()));
        }
        total
    }
}
