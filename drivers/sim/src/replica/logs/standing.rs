//! What apps have open, what replicas said of it, and what is still to come before all are in step.

use std::collections::{BTreeMap, BTreeSet};

use antiphon::codes::Code;
use antiphon::op::DocumentId;
use antiphon::replica::{Admission, Event, Input, LinkId};
use antiphon::session::By;
use antiphon::storage::{Request, Transaction};
use antiphon::wire::Access;

use super::{Copy, Logs};
use crate::replica::{App, ReplicaNode, Told};
use crate::world::{Happening, NodeId, PathId, World};

/// What apps have open, and what replicas have told them of it.
#[derive(Debug, Default)]
pub struct Standing {
    open: BTreeMap<(NodeId, DocumentId), Access>,
    /// The digest with which a link was in step last.
    in_step: BTreeMap<(LinkId, DocumentId), u64>,
    /// Where a fork was told of, and to whom, until that is mended.
    forked: BTreeMap<(LinkId, DocumentId), NodeId>,
    /// What apps have closed, and not opened again: peers don't open it with them.
    closed: BTreeSet<(NodeId, DocumentId)>,
    /// What apps had open last, and only to read: what such a node said may still be under way.
    readers: BTreeSet<(NodeId, DocumentId)>,
    /// What apps were told can't be rebuilt from where they wanted it, as that only reads.
    forsaken: BTreeSet<(NodeId, DocumentId)>,
}

impl Standing {
    /// How the app of a node has a document open, if it has.
    pub fn open(&self, node: NodeId, document: &DocumentId) -> Option<Access> {
        self.open.get(&(node, document.clone())).copied()
    }

    /// Whether the app of a node has a document open only to read, or had when it was open last.
    pub fn reads(&self, node: NodeId, document: &DocumentId) -> bool {
        self.readers.contains(&(node, document.clone()))
    }

    /// Whether a fork was told of on a link.
    pub fn fork_told(&self, link: LinkId, document: &DocumentId) -> bool {
        self.forked.contains_key(&(link, document.clone()))
    }

    pub(super) fn note<A: App>(&mut self, happening: &Happening<ReplicaNode<A>>) {
        match happening {
            Happening::Told { node, event: Told::Took(Input::Open { document, options }) } => {
                self.closed.remove(&(*node, document.clone()));
                self.open.insert((*node, document.clone()), options.access);
                match options.access {
                    Access::Read => self.readers.insert((*node, document.clone())),
                    Access::Write => self.readers.remove(&(*node, document.clone())),
                };
            }
            Happening::Told { node, event: Told::Took(Input::Close { document }) } => {
                self.open.remove(&(*node, document.clone()));
                self.closed.insert((*node, document.clone()));
            }
            Happening::Told { event: Told::Event(Event::InStep { link, document, digest }), .. } => {
                self.in_step.insert((*link, document.clone()), *digest);
                self.forked.remove(&(*link, document.clone())); // the other end has mended it
            }
            Happening::Told { node, event: Told::Event(Event::Forked { link, document, .. }) } => {
                self.forked.insert((*link, document.clone()), *node);
            }
            Happening::Told { node, event: Told::Event(Event::Closed { document, code, by: By::Us, .. }) }
                if *code == Code::FORBIDDEN || *code == Code::BELOW_HORIZON =>
            {
                self.forsaken.insert((*node, document.clone()));
            }
            Happening::Told { node, event: Told::Event(Event::Mended { document }) } => {
                self.forsaken.remove(&(*node, document.clone()));
            }
            Happening::Done { node, request: (_, Request::Write(Transaction::Reset { document, .. })), .. } => {
                self.forked.retain(|(_, forked), of| forked != document || of != node);
            }
            Happening::Disconnected { link, .. } => {
                self.in_step.retain(|(of, _), _| of != link);
                self.forked.retain(|(of, _), _| of != link);
            }
            Happening::Down { node, .. } => {
                self.open.retain(|(of, _), _| of != node);
                self.closed.retain(|(of, _)| of != node);
            }
            _ => {}
        }
    }

    pub(super) fn rest<A: App>(&self, logs: &Logs, world: &World<ReplicaNode<A>>) -> Result<(), String> {
        for (node, document) in self.open.keys() {
            let process = world.process(*node).ok_or_else(|| format!("{node} is down"))?;
            let forsaken = self.forsaken.contains(&(*node, document.clone()));
            if forsaken || process.links().iter().any(|link| self.fork_told(*link, document)) {
                continue; // the app was told, and decides what becomes of what does not fit
            }
            if !process.replica().appending(document).is_done() {
                return Err(format!("{node} has appends to {document} that are not durable"));
            }
            let number = logs.document(document);
            if number.and_then(|number| logs.copy(*node, number)).is_some_and(|copy| !copy.aside.is_empty()) {
                return Err(format!("{node} has not dealt with what a reset of {document} put aside"));
            }
        }
        world.paths().try_for_each(|path| self.path_rests(path, logs, world))
    }

    /// Whether both ends of a path are in step, and know it, in all that either has open.
    fn path_rests<A: App>(&self, path: PathId, logs: &Logs, world: &World<ReplicaNode<A>>) -> Result<(), String> {
        let ends = world.ends(path);
        if !ends.into_iter().all(|end| world.is_up(end)) {
            return Ok(());
        }
        let links = ends.map(|end| world.link(path, end));
        let [Some(first), Some(second)] = links else { return Err(format!("{path} is not connected")) };
        let open = self.open.keys().filter(|(node, _)| ends.contains(node));
        for (_, document) in open {
            let shared = ends.into_iter().all(|end| {
                let admits = world.process(end).is_some_and(|node| node.admits() != Admission::Closed);
                self.open(end, document).is_some() || admits && !self.closed.contains(&(end, document.clone()))
            });
            if ends.into_iter().any(|end| self.forsaken.contains(&(end, document.clone()))) {
                continue; // it is not open there any more
            }
            let readers = ends.into_iter().any(|end| self.open(end, document) == Some(Access::Read));
            let Some(number) = logs.document(document).filter(|_| shared) else { continue };
            let copies = ends.map(|end| logs.copy(end, number));
            let digests = copies.map(|copy| copy.map_or(0, |copy| copy.digest));
            if [first, second].into_iter().all(|link| self.fork_told(link, document)) {
                // Who only reads may hold more than the other.
                if !readers && !logs.agree_but_for_forks(number, copies) {
                    return Err(format!("{} and {} hold other ops of {document}, forks left out", ends[0], ends[1]));
                }
                let sends = |(end, link)| {
                    self.open(end, document) == Some(Access::Write) && !has_sent_all(world, end, link, document)
                };
                if let Some((end, _)) = ends.into_iter().zip([first, second]).find(|side| sends(*side)) {
                    return Err(format!("{end} has sent ops of {document} on {path} that are not acknowledged"));
                }
                continue;
            }
            if ends.into_iter().all(|end| self.open(end, document) == Some(Access::Read)) {
                continue; // neither says anything
            }
            if readers {
                // Who only reads may hold more than the other.
                let lacking = ends.into_iter().zip(copies).find(|(end, copy)| {
                    let other = copies[usize::from(*end == ends[0])];
                    self.open(*end, document) == Some(Access::Read) && !holds_all(*copy, other)
                });
                if let Some((reader, _)) = lacking {
                    return Err(format!("{reader} reads {document}, and lacks what its peer holds"));
                }
            } else if digests[0] != digests[1] {
                return Err(format!("{} and {} hold other ops of {document}", ends[0], ends[1]));
            }
            for ((end, link), digest) in ends.into_iter().zip([first, second]).zip(digests) {
                if self.in_step.get(&(link, document.clone())) != Some(&digest) {
                    return Err(format!("{end} was not told that it is in step on {path} with {document}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether a node has a document open on a link, and its peer there has acknowledged the whole of it.
fn has_sent_all<A: App>(world: &World<ReplicaNode<A>>, node: NodeId, link: LinkId, document: &DocumentId) -> bool {
    let Some(replica) = world.process(node).map(ReplicaNode::replica) else { return true };
    let Some((session, (_, tail))) = replica.session(link).zip(replica.document(document)) else { return true };
    let number = session.documents().find(|(_, open)| *open == document).map(|(number, _)| number);
    number.and_then(|number| session.frontiers(number)).is_some_and(|frontiers| frontiers.acked >= tail)
}

/// Whether a copy holds everything that another does.
fn holds_all(copy: Option<&Copy>, other: Option<&Copy>) -> bool {
    let authors = other.map_or(0, |other| other.positions.len());
    let held = |copy: Option<&Copy>, author| copy.map_or(0, |copy| copy.held(author));
    (0..authors).all(|author| held(copy, author) >= held(other, author))
}
