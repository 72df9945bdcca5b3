//! Wires: connections come and go, and frames travel.

use std::time::Duration;

use antiphon::codes::Retry;
use antiphon::replica::LinkId;
use antiphon::retry::Backoff;
use antiphon::{Instant, Machine};
use bytes::Bytes;

use super::paths::Path;
use super::{Happening, NodeId, PathId, Side, Tamper, What, World};
use crate::link::{self, Fate, Link, Loss};
use crate::node::{Input, Node};

/// What carries frames between two ends.
pub(super) struct Wire {
    pub(super) path: PathId,
    /// The links by which the frames of each side travel to the other.
    pub(super) links: [Link; 2],
    /// The number that it has at each end that is connected.
    ends: [Option<LinkId>; 2],
    /// When the other end hears that this one has closed it.
    closes: [Option<Instant>; 2],
    timers: [Option<Instant>; 2],
}

/// Where a link belongs.
#[derive(Clone, Copy)]
pub(super) struct LinkEnd {
    pub(super) path: PathId,
    pub(super) wire: u32,
    pub(super) side: Side,
}

const RECONNECT_BASE: Duration = Duration::from_millis(100);
const RECONNECT_CAP: Duration = Duration::from_secs(5);
const RECONNECT_NOW: Duration = Duration::from_millis(1);

/// How long an end waits before it connects again, longer with each failure.
pub(super) fn reconnect() -> Backoff {
    Backoff::new(RECONNECT_BASE, RECONNECT_CAP)
}

impl<N: Node> World<N> {
    /// The number that a path has at the end of `node`, while it is connected.
    pub fn link(&self, path: PathId, node: NodeId) -> Option<LinkId> {
        let path = &self.paths[path.index()];
        let side = path.ends.iter().position(|end| *end == node)?;
        path.wires.iter().rev().find_map(|wire| self.wires[*wire as usize].as_ref()?.ends[side])
    }

    /// How many links a node has on a path: more than one while it does not know that the earlier ones are gone.
    pub fn links_on(&self, path: PathId, node: NodeId) -> usize {
        let path = &self.paths[path.index()];
        let Some(side) = path.ends.iter().position(|end| *end == node) else { return 0 };
        let wires = path.wires.iter().filter_map(|wire| self.wires[*wire as usize].as_ref());
        wires.filter(|wire| wire.ends[side].is_some()).count()
    }

    /// The path of a link that is or was connected, and the node at its other end.
    pub fn peer_of(&self, link: LinkId) -> Option<(PathId, NodeId)> {
        let LinkEnd { path, side, .. } = *self.links.get(usize::try_from(link.0).ok()?)?;
        Some((path, self.paths[path.index()].ends[1 - side]))
    }

    // ---------------------------------------------------------------------------------------- connecting

    /// Both ends of a path connect, if they are not.
    pub(super) fn connect(&mut self, path: PathId) {
        self.dial(path, 0);
        if self.paths[path.index()].medium.is_datagram() {
            self.dial(path, 1);
        }
    }

    /// An end of a path connects, if it is not connected and can be.
    fn dial(&mut self, path: PathId, side: Side) {
        let Path { medium, ends, cut, down, .. } = &self.paths[path.index()];
        let (datagram, node, peer, open) = (medium.is_datagram(), ends[side], ends[1 - side], *cut == [false; 2]);
        let connected = self.link(path, node).is_some();
        if *down || connected || !self.is_up(node) {
            return;
        }
        if datagram {
            let wire = self.paths[path.index()].wires[0];
            self.bring_up(wire, side);
        } else if open && self.is_up(peer) {
            let wire = self.new_wire(path);
            [0, 1].into_iter().for_each(|side| self.bring_up(wire, side));
        } else {
            self.dial_later(path, side, Retry::Later);
        }
    }

    pub(super) fn new_wire(&mut self, path: PathId) -> u32 {
        let wire = self.wires.len() as u32;
        let state = &mut self.paths[path.index()];
        let links = [0, 1].map(|side| Link::new(state.faults(side), state.rng.fork()));
        state.wires.push(wire);
        self.wires.push(Some(Wire { path, links, ends: [None; 2], closes: [None; 2], timers: [None; 2] }));
        wire
    }

    fn bring_up(&mut self, wire: u32, side: Side) {
        let link = LinkId(self.links.len() as u64);
        let Some(state) = &mut self.wires[wire as usize] else { return };
        state.ends[side] = Some(link);
        let path = state.path;
        self.links.push(LinkEnd { path, wire, side });
        let Path { medium, ends, dials, .. } = &mut self.paths[path.index()];
        dials[side] = None;
        let (node, transport, upstream) = (ends[side], medium.transport, medium.upstream && side == 0);
        self.happened(Happening::Connected { node, link, path });
        self.feed(node, Input::Connected { link, transport, upstream });
    }

    fn dial_later(&mut self, path: PathId, side: Side, retry: Retry) {
        let Path { medium, backoff, rng, dials, .. } = &mut self.paths[path.index()];
        if side == 1 && !medium.is_datagram() {
            return; // the other end connects
        }
        let wait = match retry {
            Retry::Now => RECONNECT_NOW,
            Retry::Later | Retry::Never => backoff[side].fail(rng),
        };
        let at = self.now + wait;
        dials[side] = Some(at);
        self.enter(at, What::Dial(path, side));
    }

    pub(super) fn dial_due(&mut self, path: PathId, side: Side, at: Instant) {
        if self.paths[path.index()].dials[side] == Some(at) {
            self.paths[path.index()].dials[side] = None;
            self.dial(path, side);
        }
    }

    // ---------------------------------------------------------------------------------------- disconnecting

    /// Where a link belongs, while it is connected.
    pub(super) fn end_of(&self, link: LinkId) -> Option<LinkEnd> {
        let end = *self.links.get(usize::try_from(link.0).ok()?)?;
        let connected = self.wires[end.wire as usize].as_ref()?.ends[end.side] == Some(link);
        connected.then_some(end)
    }

    pub(super) fn established(&mut self, link: LinkId) {
        if let Some(LinkEnd { path, side, .. }) = self.end_of(link) {
            self.paths[path.index()].backoff[side].reset();
        }
    }

    /// A node has closed a link: the other end hears what is still in flight, and then of that.
    pub(super) fn closed(&mut self, node: NodeId, link: LinkId, retry: Retry) {
        let Some(LinkEnd { wire, side, .. }) = self.end_of(link) else { return };
        self.happened(Happening::Disconnected { node, link });
        let Some(path) = self.close_end(wire, side, true) else { return };
        self.dial_later(path, side, retry);
    }

    /// Closes an end of a wire; the other learns of it on a reliable path, if `noticed`.
    fn close_end(&mut self, wire: u32, side: Side, noticed: bool) -> Option<PathId> {
        let state = self.wires[wire as usize].as_mut()?;
        state.ends[side] = None;
        let path = state.path;
        let medium = &self.paths[path.index()].medium;
        if medium.is_datagram() {
            return Some(path);
        }
        if state.ends == [None; 2] {
            self.drop_wire(wire);
        } else if noticed {
            let last = state.links[side].last_due().unwrap_or(self.now);
            state.closes[side] = Some(last.max(self.now + medium.faults.latency));
            self.arm_wire(wire, side);
        }
        Some(path)
    }

    fn drop_wire(&mut self, wire: u32) {
        let Some(state) = self.wires[wire as usize].take() else { return };
        let path = &mut self.paths[state.path.index()];
        path.counters.iter_mut().zip(&state.links).for_each(|(total, link)| total.add(link.counters()));
        path.wires.retain(|other| *other != wire);
    }

    /// Both ends that are up learn that the path is gone.
    pub(super) fn disconnect(&mut self, path: PathId) {
        for wire in self.paths[path.index()].wires.clone() {
            for side in [0, 1] {
                self.hang_up(wire, side);
                if let Some(wire) = &mut self.wires[wire as usize] {
                    wire.links[side].clear();
                }
            }
        }
    }

    /// An end of a wire learns that the link is gone.
    fn hang_up(&mut self, wire: u32, side: Side) {
        let link = self.wires[wire as usize].as_ref().and_then(|wire| wire.ends[side]);
        let Some(link) = link else { return };
        let Some(path) = self.close_end(wire, side, false) else { return };
        let node = self.paths[path.index()].ends[side];
        self.happened(Happening::Disconnected { node, link });
        self.feed(node, Input::Disconnected { link });
        self.dial_later(path, side, Retry::Later);
    }

    /// A node is down: its ends of wires are gone.
    pub(super) fn drop_ends_of(&mut self, node: NodeId, noticed: bool) {
        for path in self.slots[node.index()].paths.clone() {
            let side = usize::from(self.paths[path.index()].ends[1] == node);
            self.paths[path.index()].dials[side] = None;
            for wire in self.paths[path.index()].wires.clone() {
                let link = self.wires[wire as usize].as_ref().and_then(|wire| wire.ends[side]);
                if let Some(link) = link {
                    self.close_end(wire, side, noticed);
                    self.happened(Happening::Disconnected { node, link });
                }
            }
        }
    }

    // ---------------------------------------------------------------------------------------- frames

    /// Sends a frame, or what becomes of it on a path that tampers with some.
    pub(super) fn send(&mut self, node: NodeId, path: PathId, wire: u32, side: Side, frame: Bytes) {
        let state = &mut self.paths[path.index()];
        let index = state.sent;
        state.sent += 1;
        let tamper = if state.tampers.is_empty() { None } else { state.tampers.remove(&index) };
        if tamper == Some(Tamper::Swap) {
            state.swapped[side] = Some((index, frame));
            return;
        }
        let swapped = state.swapped[side].take();
        let swapped = swapped.map(|(index, frame)| (index, frame, None));
        for (index, frame, tamper) in [Some((index, frame, tamper)), swapped].into_iter().flatten() {
            let Some(wire) = &mut self.wires[wire as usize] else { return };
            let bits = 8 * frame.len().max(1) as u64;
            let change = |fate: &mut Fate| match tamper {
                None | Some(Tamper::Swap) => {}
                Some(Tamper::Drop) => fate.lost = Some(Loss::Chance),
                Some(Tamper::Duplicate) => fate.duplicated = true,
                Some(Tamper::Delay(time)) => fate.copies[0].jitter += time,
                Some(Tamper::Flip(bit)) => fate.copies[0].flipped_bit = Some(bit % bits),
            };
            let fate = wire.links[side].send(self.now, index, frame.clone(), change);
            self.happened(Happening::Sent { node, path, index, frame, fate });
        }
        self.arm_wire(wire, side);
    }

    /// Sees to it that the frames of a side are delivered when they are due.
    pub(super) fn arm_wire(&mut self, wire: u32, side: Side) {
        let Some(state) = &mut self.wires[wire as usize] else { return };
        let due = state.links[side].due();
        let Some(at) = due.into_iter().chain(state.closes[side]).min() else { return };
        let at = at.max(self.now);
        if state.timers[side].is_none_or(|timer| at < timer) {
            state.timers[side] = Some(at);
            self.enter(at, What::Wire(wire, side));
        }
    }

    pub(super) fn wire_due(&mut self, wire: u32, side: Side, at: Instant) {
        let Some(state) = &mut self.wires[wire as usize] else { return };
        if state.timers[side] != Some(at) {
            return;
        }
        state.timers[side] = None;
        let path = state.path;
        let Ok(()) = state.links[side].handle(at, link::Input::Timer);
        if let Some((index, frame)) = state.links[side].arrived() {
            let node = self.paths[path.index()].ends[1 - side];
            match state.ends[1 - side] {
                Some(link) => {
                    self.happened(Happening::Arrived { node, link, path, index });
                    self.feed(node, Input::Received { link, frame });
                }
                None => {
                    self.happened(Happening::Unheard { node, path, index });
                    self.reject(wire, 1 - side);
                }
            }
            return self.arm_wire(wire, side); // the next one is an event of its own
        }
        let closes = self.wires[wire as usize].as_ref().and_then(|wire| wire.closes[side]);
        if closes.is_some_and(|closes| closes <= at) {
            self.wires[wire as usize].iter_mut().for_each(|wire| wire.closes[side] = None);
            if !self.paths[path.index()].faults(side).cut {
                self.hang_up(wire, 1 - side);
            }
        }
        self.arm_wire(wire, side);
    }

    /// A frame came to an end that is not connected: on a reliable path, a machine that is up says so.
    fn reject(&mut self, wire: u32, side: Side) {
        let Some(state) = &mut self.wires[wire as usize] else { return };
        let Path { medium, ends, .. } = &self.paths[state.path.index()];
        let up = self.slots[ends[side].index()].up.is_some();
        if up && !medium.is_datagram() && state.closes[side].is_none() {
            state.closes[side] = Some(self.now + medium.faults.latency);
            self.arm_wire(wire, side);
        }
    }
}
