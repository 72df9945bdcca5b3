//! Laws of sessions: what they observe is in order, honest peers find no fault with each other, in step means equal.

use std::collections::BTreeMap;

use antiphon::codes::{Code, Fault};
use antiphon::replica::{Event, LinkId};
use antiphon::session::{self, By};
use antiphon::wire::Point;

use super::View;
use crate::laws::Law;
use crate::replica::{App, Copy, ReplicaNode, Told};
use crate::world::{Happening, NodeId};

/// On each session `sent >= received >= acked` and `taken >= held`, and while a document is open, `acked`, `taken` and
/// `held` only grow.
#[derive(Default)]
pub struct Frontiers {
    /// By link: each document's number, and how far it was.
    seen: BTreeMap<LinkId, Vec<(u32, session::Frontiers)>>,
    /// The link on which something came; `None`: all may have moved.
    arrived: Option<LinkId>,
}

impl Frontiers {
    fn check_link<A: App>(&mut self, node: NodeId, process: &ReplicaNode<A>, link: LinkId) -> Result<(), String> {
        let Some(session) = process.replica().session(link) else { return Ok(()) };
        let before = self.seen.entry(link).or_default();
        let mut kept = 0;
        for (number, document) in session.documents() {
            let Some(now) = session.frontiers(number) else { continue };
            if now.sent < now.received || now.received < Point::at(now.acked) || now.taken < Point::at(now.held) {
                return Err(format!("{node}, {document}: what was observed contradicts itself, {now:?}"));
            }
            // Both are in the order of their numbers.
            while before.get(kept).is_some_and(|(other, _)| *other < number) {
                before.remove(kept);
            }
            match before.get_mut(kept).filter(|(other, _)| *other == number) {
                None => before.insert(kept, (number, now)),
                Some((_, before)) => {
                    if now.acked < before.acked || now.taken < before.taken || now.held < before.held {
                        return Err(format!("{node}, {document}: {before:?} went back to {now:?}"));
                    }
                    *before = now;
                }
            }
            kept += 1;
        }
        before.truncate(kept);
        Ok(())
    }
}

impl<A: App> Law<ReplicaNode<A>> for Frontiers {
    fn name(&self) -> &'static str {
        "frontiers"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        match happening {
            Happening::Arrived { link, .. } => self.arrived = Some(*link),
            Happening::Disconnected { link, .. } => _ = self.seen.remove(link),
            Happening::Settled { node, .. } => {
                let Some(process) = scene.world.process(*node) else { return Ok(()) };
                match self.arrived.take() {
                    Some(link) => self.check_link(*node, process, link)?,
                    None => process.links().iter().try_for_each(|link| self.check_link(*node, process, *link))?,
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// All replicas here keep to the protocol, and checksums tell what the network has damaged: so none is ever shown out for
/// what it did.
pub struct Honest;

/// Codes that blame the peer for what the world did, or for how it is set up.
const EXCUSED: [Code; 5] =
    [Code::CLONE, Code::UNAUTHENTICATED, Code::FORBIDDEN, Code::TOO_MANY_DOCUMENTS, Code::READ_ONLY];

impl<A: App> Law<ReplicaNode<A>> for Honest {
    fn name(&self) -> &'static str {
        "honest"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Happening::Told { node, event: Told::Event(event) } = happening else { return Ok(()) };
        let (code, reason, by) = match event {
            Event::Disconnected { ending: Some(ending), .. } => (ending.code, &ending.reason, ending.by),
            Event::Closed { code, reason, by, .. } => (*code, reason, *by),
            _ => return Ok(()),
        };
        // A disk that has lost something under a process makes its log differ from what that says of it.
        let damaged = code == Code::DAMAGED && !scene.ledger.was_deceived();
        let fault = code.fault() == Fault::Peer || damaged;
        if !fault || EXCUSED.contains(&code) {
            return Ok(());
        }
        let who = if by == By::Us { "finds fault with its peer" } else { "is blamed by its peer" };
        Err(format!("{node} {who}: {code}, {reason}"))
    }
}

/// In step means: both ends hold the same ops, with the same bodies. Who only reads may hold more.
pub struct InStep;

impl<A: App> Law<ReplicaNode<A>> for InStep {
    fn name(&self) -> &'static str {
        "in step"
    }

    fn check(&mut self, scene: &View<'_, A>, happening: &Happening<ReplicaNode<A>>) -> Result<(), String> {
        let Happening::Told { node, event: Told::Event(Event::InStep { link, document, digest }) } = happening else {
            return Ok(());
        };
        let logs = scene.ledger;
        let Some((_, peer)) = scene.world.peer_of(*link) else { return Ok(()) };
        let number = logs.document(document);
        let copy = |node| number.and_then(|number| logs.copy(node, number));
        let (mine, theirs) = (copy(*node), copy(peer));
        // Both may have gone on meanwhile: the peer since it said so, and the disk here, whose answer has not come.
        let had = |copy: Option<&Copy>| copy.map_or(*digest == 0, |copy| copy.had_digest(*digest));
        if !had(mine) {
            return Err(format!(
                "{node} says that it is in step with {document} at {digest:016x}, and holds other ops"
            ));
        }
        let readers = [*node, peer].into_iter().any(|node| logs.standing().reads(node, document));
        if !had(theirs) && !readers {
            return Err(format!("{node} says that {peer} is in step with {document}, which never held those ops"));
        }
        let content = number.and_then(|number| logs.history(number).content_of(*digest));
        match mine.zip(content) {
            Some((mine, content)) if mine.digest == *digest && mine.content != content => Err(format!(
                "{node} is in step with {document} at {digest:016x}, which stands for other bodies elsewhere"
            )),
            _ => Ok(()),
        }
    }
}
