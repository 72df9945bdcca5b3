//! What apps wrote is neither lost nor doubled.

use std::collections::{BTreeMap, BTreeSet};

use antiphon::digest::BodyHash;
use antiphon::replica::{Event, Input};

use super::{View, change};
use crate::laws::Law;
use crate::replica::logs::{DocumentNumber, Item};
use crate::replica::{App, Copy, ReplicaNode, Told};
use crate::world::{Happening, NodeId};

/// Every body that an app wrote stands at most once in each log, whatever op it is the body of; and one that was ever
/// durable is not lost, unless every disk that held it was set back, or an app was handed it: then both may be.
///
/// It needs an app whose bodies all differ.
#[derive(Default)]
pub struct Bodies {
    /// What is in the logs, and put aside, by node and document.
    held: BTreeMap<(NodeId, DocumentNumber), Held>,
    /// On how many disks each body is.
    disks: BTreeMap<(DocumentNumber, u64), u32>,
    /// Bodies that are nowhere any more, with good reason.
    excused: BTreeSet<(DocumentNumber, u64)>,
    /// Whether what does not fit where a history is forked may be written again twice: a disk was copied, so that two
    /// replicas take the ops of one for their own; or one has lost what it had written again, and others have it.
    doubles: bool,
    /// Bodies that an app has appended and that are not yet durable there.
    pending: BTreeMap<NodeId, BTreeSet<u64>>,
}

#[derive(Default)]
struct Held {
    epoch: u32,
    /// Whether anything was written while something was put aside: it may be that, under another id.
    salvages: bool,
    log: BTreeSet<u64>,
    aside: BTreeSet<u64>,
}

impl Bodies {
    /// Whether a body that no app was handed stands in a log twice. One that was handed over may have been to several apps,
    /// each of which has written it again.
    fn stands_twice(&self, document: DocumentNumber, items: &[Item]) -> bool {
        let mut seen = BTreeSet::new();
        let mut bodies = items.iter().map(|item| item.body.0);
        bodies.any(|body| !seen.insert(body) && !self.excused.contains(&(document, body)))
    }

    /// The log of a node is another one, or what was put aside is gone: counts anew what is there.
    fn count_anew(&mut self, place: (NodeId, DocumentNumber), copy: &Copy, excused: bool) {
        let Self { held, disks, excused: forgiven, doubles, .. } = self;
        let document = place.1;
        let held = held.entry(place).or_default();
        let bodies = |items: &[Item]| items.iter().map(|item| item.body.0).collect::<BTreeSet<_>>();
        let (log, aside) = (bodies(&copy.items), bodies(&copy.aside));
        let before: BTreeSet<_> = held.log.union(&held.aside).copied().collect();
        let after: BTreeSet<_> = log.union(&aside).copied().collect();
        *doubles |= excused && held.salvages;
        for body in after.difference(&before) {
            *disks.entry((document, *body)).or_default() += 1;
        }
        for body in before.difference(&after) {
            let count = disks.entry((document, *body)).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 && excused {
                forgiven.insert((document, *body));
            }
        }
        *held = Held { epoch: copy.epoch, salvages: held.salvages, log, aside };
    }
}

impl<A: App> Law<ReplicaNode<A>> for Bodies {
    fn name(&self) -> &'static str {
        "bodies"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        match happening {
            Happening::Told { node, event: Told::Took(Input::Append { bodies, .. }) } => {
                self.pending.entry(*node).or_default().extend(bodies.iter().map(|body| BodyHash::of(body).0));
            }
            Happening::Told { node, event: Told::Event(Event::Recovered { lost, .. }) } => {
                let pending = self.pending.entry(*node).or_default();
                lost.iter().for_each(|body| _ = pending.remove(&BodyHash::of(body).0));
            }
            Happening::Told { event: Told::Event(Event::Orphaned { document, ops }), .. } => {
                let document = scene.ledger.document(document).ok_or("a document that nobody holds has orphans")?;
                self.excused.extend(ops.iter().map(|op| (document, op.body.hash().0)));
            }
            Happening::Down { node, .. } => _ = self.pending.remove(node),
            Happening::Replaced { .. } => self.doubles = true,
            _ => {}
        }
        if let Happening::Down { node, lost: 1.., .. }
        | Happening::TailLost { node, lost: 1.. }
        | Happening::Replaced { node } = happening
        {
            for document in 0..scene.ledger.documents() {
                if let Some(copy) = scene.ledger.copy(*node, document) {
                    self.count_anew((*node, document), copy, true);
                }
            }
        }
        let Some((copy, change)) = change(scene) else { return Ok(()) };
        let place = (change.node, change.document);
        let known = self.held.entry(place).or_default();
        let known_aside = !known.aside.is_empty();
        if known.epoch != copy.epoch || known.aside.is_empty() != copy.aside.is_empty() {
            self.count_anew(place, copy, false);
        }
        let held = self.held.entry(place).or_default();
        held.salvages |= known_aside && !copy.items[change.from..].is_empty();
        let mut pending = self.pending.get_mut(&change.node);
        for body in copy.items[change.from..].iter().map(|item| item.body.0) {
            if held.log.insert(body) && !held.aside.contains(&body) {
                *self.disks.entry((change.document, body)).or_default() += 1;
            }
            pending.iter_mut().for_each(|pending| _ = pending.remove(&body));
        }
        // Where an author has two histories, the ops of one of them are written again under another id.
        let forked = scene.ledger.history(change.document).is_forked();
        if held.log.len() != copy.items.len() && !forked && self.stands_twice(change.document, &copy.items) {
            return Err(format!("{} holds what an app wrote once more than once", change.node));
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &View<'_, A>) -> Result<(), String> {
        if let Some((node, pending)) = self.pending.iter().find(|(_, pending)| !pending.is_empty()) {
            return Err(format!("{} bodies that the app of {node} appended never became durable", pending.len()));
        }
        for document in 0..scene.ledger.documents() {
            let copies: Vec<_> = scene.ledger.copies(document).collect();
            let excused = self.doubles && scene.ledger.history(document).is_forked();
            let agree = !excused && copies.windows(2).all(|pair| pair[0].1.digest == pair[1].1.digest);
            let held = |node| self.held.get(&(node, document)).map_or(0, |held| held.log.len());
            let twice = |(node, copy): &&(NodeId, &Copy)| {
                agree && held(*node) != copy.items.len() && self.stands_twice(document, &copy.items)
            };
            if let Some((node, _)) = copies.iter().find(twice) {
                return Err(format!("{node} and all others hold what an app wrote once more than once"));
            }
        }
        let lost = self.disks.iter().filter(|(body, disks)| **disks == 0 && !self.excused.contains(body));
        match lost.count() {
            0 => Ok(()),
            lost => {
                Err(format!("{lost} bodies are lost that were durable, in {:?} nodes", scene.world.nodes().count()))
            }
        }
    }
}
