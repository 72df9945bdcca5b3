//! The laws of replicas: what must hold of them whatever becomes of their networks, disks and processes.

mod authors;
mod bodies;
mod causal;
mod memory;
mod promises;
mod sessions;

use super::{App, Logs, ReplicaNode};
use crate::laws::{Law, Scene};

pub use authors::{Gapless, OneHistory, Refused};
pub use bodies::Bodies;
pub use causal::Causal;
pub use memory::Memory;
pub use promises::{Acknowledged, Cursors, Durable};
pub use sessions::{Frontiers, Honest, InStep};

/// All of them.
pub(super) fn all<A: App>() -> Vec<Box<dyn Law<ReplicaNode<A>>>> {
    vec![
        Box::new(Refused::default()),
        Box::new(Gapless),
        Box::new(OneHistory),
        Box::new(Causal::default()),
        Box::new(Durable),
        Box::new(Acknowledged::default()),
        Box::new(Cursors::default()),
        Box::new(Frontiers::default()),
        Box::new(InStep),
        Box::new(Honest),
        Box::new(Memory::default()),
    ]
}

/// What laws of replicas look at.
type View<'a, A> = Scene<'a, ReplicaNode<A>>;

/// The change that the happening has made to a log: the copy, the number of the document, and the first new position.
fn change<'a, A: App>(scene: &View<'a, A>) -> Option<(&'a super::Copy, super::Change)> {
    let logs: &Logs = scene.ledger;
    let change = logs.change()?;
    Some((logs.copy(change.node, change.document)?, change))
}
