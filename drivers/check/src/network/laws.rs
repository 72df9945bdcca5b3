//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use antiphon::codes::Code;
use antiphon::digest::{BodyHash, Chain};
use antiphon::op::{Cursor, Entry, OpId, Origin, ReplicaId};
use antiphon::session::{Ending, Transport};
use antiphon::storage::Batch;
use antiphon::wire::{Ack, Message, Point};
use bytes::Bytes;

use super::wire::{Acknowledging, message_in};
use super::{Effect, Network, Node, State, document};
use crate::disk::Disk;
use crate::model::Broken;

pub(crate) const GAP: &str = "a gap is never taken";
pub(crate) const ORDER: &str = "each op is applied once, in its author's order";
pub(crate) const FRONTIERS: &str = "what is durable was taken, and what was taken was sent";
pub(crate) const USE: &str = "a host uses its session as it should";
pub(crate) const UNASKED: &str = "where the app is asked, a peer hears nothing of a document before the answer";
const DURABLE: &str = "an acknowledgement means that it is durable";
const KEPT: &str = "what was told to be durable is kept";
const CURSOR: &str = "a cursor is stored with the ops that it stands for, and never leads";
const STORED: &str = "what a session held is stored when it has ended";
const OWN: &str = "a replica that was set back takes a new id before it authors anything more";
const CONTENT: &str = "an op is what its author wrote, after what its author wrote before";
const SAME: &str = "equal heads are equal logs";
const IN_STEP: &str = "in step means that the peer holds what is held here";
const AWAITED: &str = "an acknowledgement that is waited for goes as soon as it is true";
const NEWS: &str = "who asks for an acknowledgement is told nothing that is not new";
const ECHO: &str = "an op does not go back to its author";
const SESSIONS: &str = "a session ends only if something was broken";
const DOCUMENTS: &str = "a document is closed only if something was broken";
const RENEWED: &str = "a replica takes a new id only if it was set back or copied, and once";

/// What was said and done so far, as far as laws ask for it and it can't be told from how things are.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Told {
    /// The bodies that each node's disk must hold, since somebody was told that it does.
    durable: Vec<BTreeSet<BodyHash>>,
    /// Every op that was ever written by its author, with the chain there.
    authored: BTreeSet<(OpId, Chain)>,
    /// How far each node held the logs of peers when its sessions with them ended: its disk is to say so.
    owed: Vec<BTreeMap<ReplicaId, Cursor>>,
}

impl Told {
    /// What disks hold at first counts as written by its authors.
    pub(super) fn of<'a>(disks: impl Iterator<Item = &'a Disk>) -> Self {
        let mut told = Self::default();
        for disk in disks {
            told.durable.push(BTreeSet::new());
            told.owed.push(BTreeMap::new());
            told.authored.extend(disk.entries(&document()).iter().map(|entry| (entry.op.id, entry.chain)));
        }
        told
    }
}

impl<N: Node> Network<N> {
    /// Looks at what a node did.
    pub(super) fn witness(&self, state: &mut State<N>, node: usize, effect: &Effect) -> Result<(), Broken> {
        match effect {
            Effect::Transmit { .. } => Ok(()),
            Effect::Broken(broken) => Err(broken.clone()),
            Effect::Wrote(batch) => self.wrote(state, node, batch),
            Effect::Applied(id) => {
                let entries = state.seats[node].node.disk().entries(&document());
                let entry = entries.iter().find(|entry| entry.op.id == *id);
                let entry = entry.ok_or_else(|| Broken::new(DURABLE, format!("{id:?} is not on the disk")))?;
                let body = entry.op.body.hash();
                promise(state, node, [body]);
                Ok(())
            }
            Effect::Acknowledges { link, received, held, plain } => {
                self.acknowledges(state, node, *link, (*received, *held), *plain)
            }
            Effect::Acknowledged { link, position } => self.acknowledged(state, node, *link, *position),
            Effect::InStep { link } => {
                let [here, there] = [node, self.peer(node, *link)].map(|end| state.seats[end].node.disk());
                if self.lost_power(state) {
                    return Ok(());
                }
                here.entries(&document()).iter().try_for_each(|entry| holds(IN_STEP, there, entry))
            }
            Effect::Ended { ending, .. } => self.ended(state, ending),
            Effect::Closed(code) => self.closed(state, *code),
            // What came from its timeline before is taken for another's.
            Effect::Echo(_) if self.crashed(state) => Ok(()),
            Effect::Echo(id) => Err(Broken::new(ECHO, format!("{id:?} came back"))),
            Effect::Renewed => {
                let left = state.left.renewals.checked_sub(1);
                state.left.renewals = left.ok_or_else(|| Broken::new(RENEWED, "it took another one"))?;
                Ok(())
            }
        }
    }

    fn peer(&self, node: usize, link: usize) -> usize {
        let ends = self.links[link];
        ends[usize::from(ends[0] == node)]
    }

    fn lost_power(&self, state: &State<N>) -> bool {
        state.left.power_losses < self.scope.power_losses
    }

    fn crashed(&self, state: &State<N>) -> bool {
        state.left.crashes < self.scope.crashes || self.lost_power(state)
    }

    fn wrote(&self, state: &mut State<N>, node: usize, batch: &Batch) -> Result<(), Broken> {
        for entry in &batch.entries {
            let known = (entry.op.id, entry.chain);
            let Some(origin) = entry.origin else {
                if !state.told.authored.contains(&known) {
                    Arc::make_mut(&mut state.told).authored.insert(known);
                }
                continue;
            };
            if !state.told.authored.contains(&known) {
                return Err(Broken::new(
                    CONTENT,
                    format!("{:?} was never written so: {:?}", entry.op.id, entry.op.body),
                ));
            }
            let with_cursor = batch.cursors.iter().any(|(peer, cursor)| Origin::of(*peer, cursor.timeline) == origin);
            if !with_cursor && !self.scope.unfit {
                return Err(Broken::new(CURSOR, format!("{:?} is written without a cursor", entry.op.id)));
            }
        }
        if self.lost_power(state) || self.scope.unfit {
            return Ok(());
        }
        let here = state.seats[node].node.disk();
        for (peer, cursor) in &batch.cursors {
            let there =
                state.nodes().map(Node::disk).find(|disk| disk.owner().is_some_and(|owner| owner.is_own(*peer)));
            let behind = there.into_iter().flat_map(|disk| disk.entries(&document())).take(cursor.position as usize);
            behind.into_iter().try_for_each(|entry| holds(CURSOR, here, entry))?;
        }
        Ok(())
    }

    /// Whether it is looked at when acknowledgements go: where apps wait for them, and what is asked arrives.
    pub(super) fn looks_at_waits(&self) -> bool {
        self.scope.waits > 0 && self.is_reliable()
    }

    fn acknowledges(
        &self,
        state: &mut State<N>,
        node: usize,
        link: usize,
        said: (Point, u64),
        plain: bool,
    ) -> Result<(), Broken> {
        if self.looks_at_waits() {
            let side = usize::from(self.links[link][1] == node);
            let here = &mut state.wires[link].acknowledging[side];
            here.told = said.1;
            if here.asked && here.answered.replace(said) == Some(said) && plain {
                return Err(Broken::new(NEWS, format!("{said:?} is said again")));
            }
        }
        Ok(())
    }

    /// What a node's app waits for, its peers tell as soon as it is true.
    pub(super) fn tells_what_is_awaited(&self, state: &State<N>) -> Result<(), Broken> {
        if !self.looks_at_waits() {
            return Ok(());
        }
        for (link, wire) in state.wires.iter().enumerate() {
            for (side, Acknowledging { awaited, told, .. }) in wire.acknowledging.iter().enumerate() {
                let held = state.seats[self.links[link][side]].node.held(link).map_or(0, |(_, cursor)| cursor.position);
                if wire.open[side] && held >= *awaited && told < awaited {
                    return Err(Broken::new(AWAITED, format!("{awaited} is awaited, {held} durable, and {told} told")));
                }
            }
        }
        Ok(())
    }

    fn acknowledged(&self, state: &mut State<N>, node: usize, link: usize, position: u64) -> Result<(), Broken> {
        if self.lost_power(state) || self.scope.unfit {
            return Ok(());
        }
        let peer = self.peer(node, link);
        let [here, there] = [node, peer].map(|end| state.seats[end].node.disk());
        let entries = here.entries(&document());
        let below = entries.get(..position as usize).ok_or_else(|| {
            Broken::new(FRONTIERS, format!("position {position} is acknowledged, and the tail is {}", entries.len()))
        })?;
        below.iter().try_for_each(|entry| holds(DURABLE, there, entry))?;
        let promised: Vec<_> = below.iter().map(|entry| entry.op.body.hash()).collect();
        promise(state, peer, promised);
        Ok(())
    }

    fn ended(&self, state: &State<N>, ending: &Ending) -> Result<(), Broken> {
        let restarted = !self.is_reliable() && self.crashed(state);
        let silent = state.left.hangs < self.scope.hangs || restarted;
        let excused = match ending.code {
            Code::RESTARTED => restarted,
            Code::SILENT | Code::HANDSHAKE_TIMEOUT => silent,
            _ => false,
        };
        if excused { Ok(()) } else { Err(Broken::new(SESSIONS, format!("{}: {}", ending.code, ending.reason))) }
    }

    fn closed(&self, state: &State<N>, code: Code) -> Result<(), Broken> {
        let failed = code == Code::STORAGE_FAILED && state.left.failures < self.scope.failures;
        let excused = failed || self.scope.closings.contains(&code);
        if excused { Ok(()) } else { Err(Broken::new(DOCUMENTS, code.to_string())) }
    }

    /// A node crashes. If it loses its power, nobody promised that its disk holds more than it does then.
    pub(super) fn forget_promises(&self, state: &mut State<N>, node: usize, power_lost: bool) {
        let told = Arc::make_mut(&mut state.told);
        told.owed[node].clear();
        if power_lost {
            told.durable[node].clear();
        }
    }

    /// A node is about to hear that a link is gone.
    pub(super) fn session_ends(&self, state: &mut State<N>, node: usize, link: usize) {
        if let Some((peer, cursor)) = state.seats[node].node.held(link) {
            Arc::make_mut(&mut state.told).owed[node].insert(peer, cursor);
        }
    }

    /// What a node's disk is said to hold, it holds.
    pub(super) fn keeps_promises(&self, state: &mut State<N>, node: usize) -> Result<(), Broken> {
        let seat = &state.seats[node];
        let disk = seat.node.disk();
        let lost = state.told.durable[node].iter().find(|body| !disk.holds(&document(), **body));
        if let Some(body) = lost {
            return Err(Broken::new(KEPT, format!("the body with the hash {:x} is gone", body.0)));
        }
        let settled = seat.node.is_up() && !seat.node.is_busy() && !state.told.owed[node].is_empty();
        if !settled {
            return Ok(());
        }
        for (peer, owed) in &state.told.owed[node] {
            let stored = disk.cursor_on(&document(), *peer);
            let lags = |stored: Cursor| stored.timeline == owed.timeline && stored.position < owed.position;
            let untroubled = state.left.failures == self.scope.failures;
            if stored.is_none_or(lags) && untroubled {
                return Err(Broken::new(STORED, format!("{stored:?} is stored, {owed:?} was held")));
            }
        }
        Arc::make_mut(&mut state.told).owed[node].clear();
        Ok(())
    }

    /// Nobody holds more of a log than there is, where both have the document open with each other.
    pub(super) fn holds_what_there_is(&self, state: &State<N>) -> Result<(), Broken> {
        let wires = state.wires.iter().zip(&self.links).enumerate();
        for (link, (_, ends)) in wires.filter(|(_, (wire, _))| self.is_reliable() && wire.is_whole()) {
            let nodes = ends.map(|end| &state.seats[end].node);
            let [Some(first), Some(second)] = nodes.map(|node| node.held(link)) else { continue };
            for ((_, held), log) in [(first, nodes[1]), (second, nodes[0])] {
                let tail = log.disk().entries(&document()).len() as u64;
                if held.position > tail {
                    return Err(Broken::new(FRONTIERS, format!("{held:?} is held of a log that ends at {tail}")));
                }
            }
        }
        Ok(())
    }

    /// Who has the document open with a peer does not author under an id of which the peer holds more.
    pub(super) fn knows_its_own(&self, state: &State<N>) -> Result<(), Broken> {
        if self.scope.copies {
            return Ok(());
        }
        for (node, seat) in state.seats.iter().enumerate() {
            let Some(author) = seat.node.author() else { continue };
            let here = seat.node.disk().heads(&document()).get(author).seq;
            for (link, _) in self.sides(node).filter(|(link, _)| seat.node.held(*link).is_some()) {
                let there = state.seats[self.peer(node, link)].node.disk().heads(&document()).get(author).seq;
                if there > here {
                    return Err(Broken::new(OWN, format!("the peer holds {there} of its ops, and it {here}")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn same_heads_same_content(&self, state: &State<N>) -> Result<(), Broken> {
        let mut contents: BTreeMap<u64, BTreeSet<(OpId, u64)>> = BTreeMap::new();
        for disk in state.nodes().map(Node::disk) {
            let entries = disk.entries(&document()).iter();
            let content: BTreeSet<_> = entries.map(|entry| (entry.op.id, entry.op.body.hash().0)).collect();
            if content.len() != disk.entries(&document()).len() {
                return Err(Broken::new(ORDER, "an op stands in a log twice"));
            }
            let known = contents.entry(disk.heads(&document()).digest()).or_insert_with(|| content.clone());
            if *known != content {
                return Err(Broken::new(SAME, format!("{known:?} and {content:?}")));
            }
        }
        Ok(())
    }
}

/// What a frame on a link says about the node that sends it.
pub(super) fn overheard(link: usize, frame: &Bytes, transport: Transport) -> Option<Effect> {
    match message_in(frame, transport)? {
        Message::Close(end) => Some(Effect::Closed(end.code)),
        Message::Ack(ack) if ack.held > ack.received.position => {
            Some(Effect::Broken(Broken::new(FRONTIERS, format!("{ack:?}"))))
        }
        Message::Ack(Ack { received, held, skip, level, .. }) => {
            Some(Effect::Acknowledges { link, received, held, plain: skip.is_none() && level.is_none() })
        }
        _ => None,
    }
}

fn holds(law: &'static str, disk: &Disk, entry: &Entry) -> Result<(), Broken> {
    if disk.chain_at(&document(), entry.op.id) == Some(entry.chain) {
        return Ok(());
    }
    Err(Broken::new(law, format!("{:?} is not on the disk", entry.op.id)))
}

/// Somebody was told that a node's disk holds these.
fn promise<N>(state: &mut State<N>, node: usize, bodies: impl IntoIterator<Item = BodyHash>) {
    for body in bodies {
        if !state.told.durable[node].contains(&body) {
            Arc::make_mut(&mut state.told).durable[node].insert(body);
        }
    }
}
