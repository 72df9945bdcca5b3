//! Laws of single logs: each author's ops are there from the first on, in order and once, and there is one history of them.

use std::collections::BTreeSet;

use antiphon::digest::Chain;
use antiphon::replica::Event;

use super::{View, change};
use crate::laws::Law;
use crate::replica::{App, ReplicaNode, Told};
use crate::world::{Happening, NodeId};

/// In every log, an author's ops stand in the order of their seqs, from 1 on, without a gap and each once, and their chains
/// are those of their bodies.
pub struct Gapless;

impl<A: App> Law<ReplicaNode<A>> for Gapless {
    fn name(&self) -> &'static str {
        "gapless"
    }

    fn check(&mut self, scene: &View<'_, A>, _: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Some((copy, change)) = change(scene) else { return Ok(()) };
        for (position, item) in (0..).zip(&copy.items).skip(change.from) {
            if copy.position(item.author, item.seq) != Some(position) {
                return Err(format!("{}: op {} of an author stands where another is next", change.node, item.seq));
            }
            let before = copy.position(item.author, item.seq - 1);
            let chain = before.map_or(Chain::EMPTY, |before| copy.items[before as usize].chain);
            if chain.then(item.body) != item.chain {
                return Err(format!("{}: the chain of op {} does not fit those before it", change.node, item.seq));
            }
        }
        Ok(())
    }
}

/// Nobody writes two histories, unless their disk was copied or set back unnoticed; and a fork is told of only where there
/// is one.
pub struct OneHistory;

impl<A: App> Law<ReplicaNode<A>> for OneHistory {
    fn name(&self) -> &'static str {
        "one history"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        if let Some((_, change)) = change(scene)
            && scene.ledger.history(change.document).is_forked()
            && !scene.ledger.was_set_back()
        {
            return Err(format!("{}: an author has two histories, and no disk was copied or set back", change.node));
        }
        let Happening::Told { node, event: Told::Event(Event::Forked { document, authors, .. }) } = happening else {
            return Ok(());
        };
        let history = scene.ledger.document(document).map(|number| scene.ledger.history(number));
        for author in authors {
            let number = scene.ledger.author(*author);
            if !history.zip(number).is_some_and(|(history, number)| history.forked.contains(&number)) {
                return Err(format!("{node} was told that {author} has two histories of {document}; it has not"));
            }
        }
        Ok(())
    }
}

/// A replica asks its disk for nothing that the disk must refuse, unless that has lost writes behind its back.
#[derive(Default)]
pub struct Refused {
    /// Whose disks have lost something, and they don't know it yet.
    deceived: BTreeSet<NodeId>,
}

impl<A: App> Law<ReplicaNode<A>> for Refused {
    fn name(&self) -> &'static str {
        "refused"
    }

    fn check(&mut self, _: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        match happening {
            Happening::TailLost { node, lost: 1.. } => _ = self.deceived.insert(*node),
            Happening::Down { node, .. } => _ = self.deceived.remove(node),
            Happening::Refused { node, reason } if !self.deceived.contains(node) => {
                return Err(format!("{node}: {reason}"));
            }
            _ => {}
        }
        Ok(())
    }
}
