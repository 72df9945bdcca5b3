//! Disks: they take their time, fail, fill, lose their tails, and are replaced.

use std::time::Duration;

use antiphon::Instant;
use antiphon::rng::Rng;

use super::{Happening, NodeId, What, World};
use crate::node::{Broken, Crash, Disk, Input, Node};

/// How long a disk takes for each request: evenly spread between two times.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Pace {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

impl Pace {
    /// Always the same.
    pub const fn of(time: Duration) -> Self {
        Self { least: time, most: time }
    }

    pub(super) fn draw(self, rng: &mut Rng) -> Duration {
        let spread = self.most.saturating_sub(self.least);
        if spread == Duration::ZERO {
            return self.least;
        }
        self.least + Duration::from_micros(rng.below(spread.as_micros() as u64 + 1))
    }
}

/// What a disk is like.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum DiskState {
    /// It works.
    #[default]
    Works,
    /// It does not answer, until it does.
    Stalled,
    /// It does nothing, and says that it failed.
    Fails,
    /// It does as asked, and says that it failed.
    Lies,
    /// It refuses writes.
    Full,
}

impl<N: Node> World<N> {
    /// A node's disk.
    pub fn disk_of(&self, node: NodeId) -> &N::Disk {
        &self.slots[node.index()].disk
    }

    /// Puts another disk into a node that is down.
    ///
    /// # Panics
    /// If it is up.
    pub fn put_disk(&mut self, node: NodeId, disk: N::Disk) {
        let slot = &mut self.slots[node.index()];
        assert!(slot.up.is_none(), "disks are replaced while a node is down");
        slot.disk = disk;
        slot.doubtful = true;
        self.happened(Happening::Replaced { node });
    }

    /// Makes a backup of a node's disk, whether it is up or not.
    pub fn back_up(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        slot.backup = Some(slot.disk.copy());
        self.happened(Happening::BackedUp { node });
    }

    /// Puts the last backup in place of the disk of a node that is down. False if there is none, or it is up.
    pub fn restore(&mut self, node: NodeId) -> bool {
        let slot = &self.slots[node.index()];
        let Some(disk) = slot.backup.as_ref().filter(|_| slot.up.is_none()).map(Disk::copy) else { return false };
        self.put_disk(node, disk);
        true
    }

    /// Of what a node wrote and did not sync only so many writes stay, and its process is told nothing.
    pub fn lose_tail(&mut self, node: NodeId, keep: usize) {
        let slot = &mut self.slots[node.index()];
        let lost = slot.disk.lose_tail(keep);
        slot.doubtful |= lost > 0;
        self.happened(Happening::TailLost { node, lost });
    }

    /// Puts a copy of one node's disk into another node that is down. False if it is up.
    pub fn clone_disk(&mut self, from: NodeId, to: NodeId) -> bool {
        if self.is_up(to) {
            return false;
        }
        let disk = self.slots[from.index()].disk.copy();
        self.put_disk(to, disk);
        true
    }

    /// How long each request to a node's disk takes from now on.
    pub fn set_pace(&mut self, node: NodeId, pace: Pace) {
        self.slots[node.index()].pace = pace;
    }

    /// What a node's disk is like from now on.
    pub fn set_disk_state(&mut self, node: NodeId, state: DiskState) {
        let slot = &mut self.slots[node.index()];
        if std::mem::replace(&mut slot.state, state) != state {
            self.happened(Happening::DiskSet { node, state });
        }
        self.arm_disk(node);
    }

    /// Whether a node's disk has done everything that it was asked, and the node has heard of it.
    pub fn disk_is_idle(&self, node: NodeId) -> bool {
        let slot = &self.slots[node.index()];
        slot.requests.is_empty() && slot.deferred.is_empty()
    }

    /// How many writes a node has made that a loss of power could take back.
    pub fn unsynced(&self, node: NodeId) -> usize {
        self.slots[node.index()].disk.unsynced()
    }

    /// A node has asked its disk.
    pub(super) fn asked(&mut self, node: NodeId, request: <N::Disk as Disk>::Request) {
        let slot = &mut self.slots[node.index()];
        let at = self.now + slot.pace.draw(&mut slot.rng);
        let at = slot.requests.back().map_or(at, |(before, _)| at.max(*before));
        slot.requests.push_back((at, request));
        self.arm_disk(node);
    }

    pub(super) fn arm_disk(&mut self, node: NodeId) {
        let slot = &mut self.slots[node.index()];
        if slot.state == DiskState::Stalled || slot.disk_timer.is_some() {
            return;
        }
        let Some((at, _)) = slot.requests.front() else { return };
        let at = self.now.max(*at);
        slot.disk_timer = Some(at);
        self.enter(at, What::Disk(node));
    }

    pub(super) fn disk_due(&mut self, node: NodeId, at: Instant) {
        let slot = &mut self.slots[node.index()];
        if slot.disk_timer != Some(at) {
            return; // it was an earlier process that had asked
        }
        slot.disk_timer = None;
        if slot.state == DiskState::Stalled {
            return;
        }
        if let Some((_, request)) = slot.requests.pop_front() {
            self.execute(node, request);
        }
        self.arm_disk(node);
    }

    pub(super) fn execute(&mut self, node: NodeId, request: <N::Disk as Disk>::Request) {
        let slot = &mut self.slots[node.index()];
        let refuses = slot.state == DiskState::Full && N::Disk::is_write(&request);
        let (happening, reply) = if slot.state == DiskState::Fails || refuses {
            let reason = if refuses { "the disk is full" } else { "the disk failed" };
            (Happening::Failed { node }, N::Disk::failed(&request, reason))
        } else {
            match slot.disk.execute(&request) {
                Ok(_) if slot.state == DiskState::Lies => {
                    let reply = N::Disk::failed(&request, "the disk does not know whether it failed");
                    (Happening::Done { node, request, told: false }, reply)
                }
                Ok(reply) => (Happening::Done { node, request, told: true }, reply),
                Err(Broken::Failed(reason)) => (Happening::Failed { node }, N::Disk::failed(&request, &reason)),
                Err(Broken::Refused(reason)) => {
                    let reply = N::Disk::failed(&request, &reason);
                    (Happening::Refused { node, reason }, reply)
                }
                // It was told to take the process down at this step.
                Err(Broken::Gone) => return self.take_down(node, Crash::Kill, true),
            }
        };
        self.happened(happening);
        self.feed(node, Input::Disk(reply));
    }
}
