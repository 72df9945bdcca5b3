//! What a replica keeps in memory stays within what its configuration says.

use std::collections::BTreeSet;

use antiphon::op::OP_OVERHEAD;
use antiphon::replica::Input;
use antiphon::storage::Request;

use super::View;
use crate::laws::Law;
use crate::replica::reached::without_number;
use crate::replica::{App, ReplicaNode, Told};
use crate::world::{Happening, NodeId};

/// The kind of Close.
const CLOSE: u8 = 0x06;

/// A replica keeps in memory at most the tails of its documents, what its sessions were granted and is not durable, what it
/// reads at once of what a reset put aside, and what its app has appended and is not durable; and no session has more under way than it was granted. A single op may
/// exceed each of these.
#[derive(Default)]
pub struct Memory {
    /// Cost of the largest op that was appended.
    largest: u64,
    /// Cost of everything that each app has appended.
    appended: Vec<u64>,
    /// What the links of each node were granted that are gone, or on which a document was closed, and may have left
    /// something to be written.
    left: Vec<u64>,
    /// Who has read what a reset put aside, to write it again.
    salvages: BTreeSet<NodeId>,
    /// Whether something has happened that can need memory.
    moved: bool,
}

impl Memory {
    fn leave<A: App>(&mut self, scene: &View<'_, A>, node: NodeId, links: u64) {
        self.left.resize(self.left.len().max(node.index() + 1), 0);
        let config = scene.world.process(node).map(ReplicaNode::config);
        let credit = config.map_or(0, |config| config.session.limits.credit);
        self.left[node.index()] += links * (u64::from(credit) + self.largest);
    }
}

impl<A: App> Law<ReplicaNode<A>> for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        match happening {
            Happening::Done { node, request: (_, Request::ReadAside { .. }), .. } => {
                self.moved = true;
                self.salvages.insert(*node);
            }
            Happening::Arrived { .. } | Happening::Done { .. } => self.moved = true,
            Happening::Told { node, event: Told::Took(Input::Append { bodies, .. }) } => {
                self.moved = true;
                self.appended.resize(self.appended.len().max(node.index() + 1), 0);
                for cost in bodies.iter().map(|body| body.len() as u64 + OP_OVERHEAD) {
                    self.largest = self.largest.max(cost);
                    self.appended[node.index()] += cost;
                }
            }
            Happening::Disconnected { node, .. } => self.leave(scene, *node, 1),
            // A document that is closed gives back to its link what it had of it.
            Happening::Sent { node, frame, .. } if without_number(frame).first() == Some(&CLOSE) => {
                self.leave(scene, *node, 1);
            }
            Happening::Settled { node, .. } if std::mem::take(&mut self.moved) => {
                let Some(process) = scene.world.process(*node) else { return Ok(()) };
                let config = process.config();
                let (replica, credit) = (process.replica(), u64::from(config.session.limits.credit));
                let left = self.left.get_mut(node.index());
                let mut granted = left.map_or(0, |left| {
                    *left = if scene.world.disk_is_idle(*node) { 0 } else { *left };
                    *left
                });
                for session in process.links().iter().filter_map(|link| replica.session(*link)) {
                    let (_, undurable) = session.under_way();
                    granted += credit.max(undurable);
                    if undurable > credit + self.largest {
                        return Err(format!("{node} has taken {undurable} on a link that was granted {credit}"));
                    }
                }
                let read_max = if self.salvages.contains(node) { config.read_max + self.largest } else { 0 };
                let tails = replica.documents_loaded() as u64 * (config.tail_max + self.largest + read_max);
                let appended = self.appended.get(node.index()).copied().unwrap_or(0);
                let (cost, bound) = (replica.memory_cost(), tails + granted + appended);
                if cost > bound {
                    return Err(format!("{node} keeps {cost} in memory, more than {bound}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
