//! Ops stand after what their authors had seen, and come from where they were written.

use std::collections::BTreeMap;

use super::{View, change};
use crate::laws::Law;
use crate::replica::logs::{AuthorNumber, Copy, DocumentNumber, Item};
use crate::replica::{App, ReplicaNode};
use crate::world::Happening;

/// In every log, an op stands after all that stood before it in its author's log when it was written; and nobody holds an
/// op that is not, or was not, on its author's disk.
///
/// It needs an app whose bodies all differ: an op that was lost and one that was written since must not be the same.
#[derive(Default)]
pub struct Causal {
    /// By document and author: what each op came after, beyond what the author's op before it came after.
    seen: Vec<Vec<Vec<After>>>,
}

/// The highest seqs of other authors that were new to the author.
type After = Vec<(AuthorNumber, u64)>;

impl Causal {
    fn of(&mut self, document: DocumentNumber, author: AuthorNumber) -> &mut Vec<After> {
        if self.seen.len() <= document {
            self.seen.resize_with(document + 1, Vec::new);
        }
        let authors = &mut self.seen[document];
        if authors.len() <= author {
            authors.resize_with(author + 1, Vec::new);
        }
        &mut authors[author]
    }
}

/// What is new to an author since the op before the one at `position`.
fn new_since_last(copy: &Copy, position: usize) -> After {
    let item = copy.items[position];
    let last = copy.position(item.author, item.seq - 1).map_or(0, |last| last as usize + 1);
    let mut seqs = BTreeMap::new();
    for before in copy.items[last..position].iter().filter(|before| before.author != item.author) {
        seqs.insert(before.author, before.seq);
    }
    seqs.into_iter().collect()
}

impl<A: App> Law<ReplicaNode<A>> for Causal {
    fn name(&self) -> &'static str {
        "causal"
    }

    fn check(&mut self, scene: &View<'_, A>, _: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Some((copy, change)) = change(scene) else { return Ok(()) };
        let forked = scene.ledger.history(change.document).is_forked();
        let elsewhere = |item: Item| {
            let mut others = scene.ledger.copies(change.document).filter(|(node, _)| *node != change.node);
            others.any(|(_, copy)| copy.held(item.author) >= item.seq)
        };
        for position in change.from..copy.items.len() {
            let item = copy.items[position];
            let known = self.of(change.document, item.author);
            match known.get(item.seq as usize - 1) {
                None if item.foreign => {
                    return Err(format!(
                        "{} holds op {} of an author on whose disk it never was",
                        change.node, item.seq
                    ));
                }
                None => known.push(new_since_last(copy, position)),
                // Its author's disk had lost it before anybody else had it, and it was written again.
                Some(_) if !item.foreign && !elsewhere(item) => {
                    known[item.seq as usize - 1] = new_since_last(copy, position);
                }
                // Where histories differ, the same op may have come after different ones; and who holds what stood at a
                // position once is taken to hold what stands there now.
                Some(_) if forked || scene.ledger.is_anyone_deceived(change.document) => {}
                Some(after) => {
                    let early = after.iter().find(|(author, seq)| {
                        copy.position(*author, *seq).is_none_or(|before| before as usize > position)
                    });
                    if let Some((_, seq)) = early {
                        let (node, own) = (change.node, item.seq);
                        return Err(format!("{node} holds op {own} of an author before op {seq} that it came after"));
                    }
                }
            }
        }
        Ok(())
    }
}
