//! What replicas say is durable, is.

use std::collections::BTreeMap;

use antiphon::op::{ReplicaId, Timeline};
use antiphon::replica::Event;
use antiphon::storage::{Request, Transaction};

use super::{View, change};
use crate::laws::Law;
use crate::replica::logs::{DocumentNumber, Item};
use crate::replica::{App, ReplicaNode, Told};
use crate::world::{Happening, NodeId};

/// What an app is told of as durable here, and as held when a document is opened, is on the disk at that moment.
pub struct Durable;

impl<A: App> Law<ReplicaNode<A>> for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Happening::Told { node, event: Told::Event(event) } = happening else { return Ok(()) };
        let document = match event {
            Event::Applied { document, .. } | Event::Opened { document, .. } => document,
            Event::Received { batch } => &batch.document,
            _ => return Ok(()),
        };
        if scene.ledger.document(document).is_some_and(|number| scene.ledger.is_deceived(*node, number)) {
            return Ok(());
        }
        let copy = |document| scene.ledger.document(document).and_then(|number| scene.ledger.copy(*node, number));
        match event {
            Event::Applied { document, id, position } => {
                let item = copy(document).and_then(|copy| copy.items.get(copy.index(position.checked_sub(1)?)));
                let there =
                    item.is_some_and(|item| (scene.ledger.author(id.author), id.seq) == (Some(item.author), item.seq));
                if !there {
                    return Err(format!("{node} said that op {} of {document} is durable, and it is not", id.seq));
                }
            }
            Event::Received { batch } => {
                let items = copy(&batch.document)
                    .and_then(|copy| copy.items.get(copy.index(batch.position)..copy.index(batch.tail())));
                let same = items.is_some_and(|items| {
                    items.iter().zip(&batch.entries).all(|(item, entry)| item.chain == entry.chain)
                });
                if !same {
                    return Err(format!("{node} showed ops of {} that are not on its disk", batch.document));
                }
            }
            Event::Opened { document, heads, tail, .. } => {
                // The disk may have done more, and its answer not be here.
                let held = copy(document).map_or(heads.digest() == 0 && *tail == 0, |copy| {
                    copy.had_digest(heads.digest()) && *tail <= copy.tail()
                });
                if !held {
                    return Err(format!("{node} opened {document} at {tail}, and its disk does not hold that"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a peer acknowledges is, or was, on its disk.
#[derive(Default)]
pub struct Acknowledged {
    /// Up to where acknowledgements were found true: by node, document and peer, while the node's log goes on.
    checked: BTreeMap<(NodeId, DocumentNumber, NodeId), (u32, u64)>,
}

impl<A: App> Law<ReplicaNode<A>> for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Happening::Told { node, event: Told::Event(Event::Acknowledged { link, document, position }) } = happening
        else {
            return Ok(());
        };
        let logs = scene.ledger;
        let Some((_, peer)) = scene.world.peer_of(*link) else { return Ok(()) };
        let mine = logs.document(document).and_then(|number| Some((number, logs.copy(*node, number)?)));
        let Some((number, mine)) = mine else {
            return Err(format!("{peer} acknowledged {position} of {document} to {node}, which holds nothing"));
        };
        if logs.is_deceived(*node, number) {
            return Ok(());
        }
        if *position > mine.tail() {
            let tail = mine.tail();
            return Err(format!("{peer} acknowledged {position} of {document} to {node}, whose log ends at {tail}"));
        }
        let (epoch, checked) = self.checked.entry((*node, number, peer)).or_default();
        if *epoch != mine.epoch {
            (*epoch, *checked) = (mine.epoch, 0);
        }
        let forked = &logs.history(number).forked;
        for item in &mine.items[mine.index(*checked)..mine.index((*position).max(*checked))] {
            // Of two histories of one author, a peer takes the other's ops for those that it has.
            if !forked.contains(&item.author)
                && logs.copy(peer, number).is_none_or(|copy| copy.ever(item.author) < item.seq)
            {
                let seq = item.seq;
                return Err(format!("{peer} acknowledged op {seq} of {document} to {node}, and never held it"));
            }
        }
        *checked = (*checked).max(*position);
        Ok(())
    }
}

/// A cursor never leads: what it says is held of a peer's log is on the disk with it.
#[derive(Default)]
pub struct Cursors {
    /// Up to where a peer's log was found to be held: by node, document and timeline, while both logs go on.
    checked: BTreeMap<(NodeId, DocumentNumber, Timeline), Checked>,
}

#[derive(Default)]
struct Checked {
    /// Which logs they were.
    epochs: (u32, u32),
    to: u64,
}

impl Cursors {
    fn check_one<A: App>(
        &mut self,
        scene: &View<'_, A>,
        (node, document): (NodeId, DocumentNumber),
        (timeline, position): (Timeline, u64),
    ) -> Result<(), String> {
        let logs = scene.ledger;
        let Some(mine) = logs.copy(node, document) else { return Ok(()) };
        // A copied disk has its original's timelines; a cursor was on the log of one of the two.
        let forked = &logs.history(document).forked;
        let theirs = logs.copies(document).filter_map(|(peer, copy)| Some((peer, copy, copy.end_of(timeline)?)));
        let mut lacking = None;
        for (peer, theirs, end) in theirs {
            if [peer, node].into_iter().any(|node| logs.is_deceived(node, document)) {
                return Ok(()); // its positions are not what it said they were: what stood there once is left out now
            }
            let epochs = (mine.epoch, theirs.epoch);
            let checked = self.checked.entry((node, document, timeline)).or_default();
            if checked.epochs != epochs {
                *checked = Checked { epochs, to: 0 };
            }
            // What a peer has lost since, nobody can look at.
            let to = position.min(end);
            let mut items = theirs.items[theirs.index(checked.to.min(to))..theirs.index(to)].iter();
            let lacks = |item: &&Item| mine.held(item.author) < item.seq && !forked.contains(&item.author);
            lacking = items.find(lacks).map(|item| item.seq);
            if lacking.is_none() {
                checked.to = checked.to.max(to);
                return Ok(());
            }
        }
        match lacking {
            None => Ok(()),
            Some(seq) => {
                Err(format!("{node} has a cursor at {position} of a log, and lacks op {seq} that stands below"))
            }
        }
    }
}

impl<A: App> Law<ReplicaNode<A>> for Cursors {
    fn name(&self) -> &'static str {
        "cursors"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Happening::Done { request: (_, Request::Write(Transaction::Append(batch))), .. } = happening else {
            return Ok(());
        };
        let Some((_, change)) = change(scene) else { return Ok(()) };
        let cursors: &Vec<(ReplicaId, _)> = &batch.cursors;
        cursors.iter().try_for_each(|(_, cursor)| {
            self.check_one(scene, (change.node, change.document), (cursor.timeline, cursor.position))
        })
    }
}
