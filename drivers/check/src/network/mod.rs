//! Small networks of nodes, in which everything that may happen happens in every order.

pub(crate) mod laws;
mod node;
mod scope;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use antiphon::Instant;
use antiphon::digest::state_digest;
use antiphon::session::Transport;
use bytes::Bytes;

use crate::model::{Broken, Fair, Model};

pub(crate) use node::entropy;
pub use node::{Crash, Effect, Node, Outcome, Stimulus, document};
pub use scope::{MishapKinds, NODES_MAX, Scope};

use laws::Told;
use scope::Left;
use wire::{Frame, Wire};

/// Nodes and the links between them.
#[derive(Debug)]
pub struct Network<N> {
    nodes: Vec<N>,
    links: Vec<[usize; 2]>,
    scope: Scope,
    /// Whether it begins with all in step.
    settled: bool,
    /// What became of a node at each stimulus so far: other nodes make no difference to that, and so the same is asked
    /// over and over.
    handled: RefCell<BTreeMap<(u128, u128), Handled<N>>>,
}

type Handled<N> = (Arc<Seat<N>>, Arc<[Effect]>);

/// How many answers are kept.
const HANDLED_MAX: usize = 1 << 20;

/// How many actions it may take until all are in step at first.
const SETTLING_MAX: usize = 10_000;

/// A node as it is now, with its digest.
#[derive(Debug)]
struct Seat<N> {
    node: N,
    digest: u128,
}

impl<N> Hash for Seat<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl<N: Node> Seat<N> {
    fn new(node: N) -> Arc<Self> {
        let digest = state_digest(&node);
        Arc::new(Self { node, digest })
    }
}

/// A network as it is at one moment.
#[derive(Debug, Hash)]
pub struct State<N> {
    seats: Vec<Arc<Seat<N>>>,
    wires: Vec<Wire>,
    left: Left,
    told: Arc<Told>,
}

impl<N> Clone for State<N> {
    fn clone(&self) -> Self {
        Self { seats: self.seats.clone(), wires: self.wires.clone(), left: self.left, told: self.told.clone() }
    }
}

impl<N> State<N> {
    /// The nodes as they are, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &N> {
        self.seats.iter().map(|seat| &seat.node)
    }
}

/// Something that happens. Nodes and links are numbered from 0; a side of a link is 0 or 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// A node starts.
    Start(usize),
    /// A node's process ends.
    Crash(usize, Crash),
    /// A node's app appends the next op.
    Append(usize),
    /// A node's disk is done with a write.
    Written(usize, Outcome),
    /// A node's clock goes on to its deadline.
    Timer(usize),
    /// Both sides of a reliable link, or this side of a datagram link, begin a session.
    Connect(usize, usize),
    /// This side of a link notices that it is gone.
    Notice(usize, usize),
    /// A link is cut.
    Cut(usize),
    /// A link goes dead without a word.
    Hang(usize),
    /// What happens to a frame on its way over a link to a side.
    Frame(usize, usize, Fate),
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The next one arrives.
    Arrives,
    /// One that is so many places behind the next one arrives before it.
    Overtakes(u8),
    /// The next one arrives, and will again.
    Doubled,
    /// The next one arrives with a bit flipped.
    Damaged,
    /// The next one is lost.
    Lost,
    /// A reliable transport leaves the next one out.
    Skipped,
}

impl<N: Node> Network<N> {
    /// Nodes, at most [`NODES_MAX`], that are not started yet; and links between two of them each, of which the second
    /// is the authority for the first.
    ///
    /// # Panics
    /// If there are too many nodes, or a link has an end that is none of them.
    pub fn new(nodes: Vec<N>, links: Vec<[usize; 2]>, scope: Scope) -> Self {
        assert!(nodes.len() <= NODES_MAX, "a network has at most {NODES_MAX} nodes");
        assert!(links.iter().flatten().all(|end| *end < nodes.len()), "a link ends at a node");
        Self { nodes, links, scope, settled: false, handled: RefCell::default() }
    }

    /// The same network, but with all nodes started, connected and in step before anything else happens.
    #[must_use]
    pub fn settled(self) -> Self {
        Self { settled: true, ..self }
    }

    fn is_reliable(&self) -> bool {
        self.scope.transport == Transport::Reliable
    }

    /// The links of a node, each with the side that the node is.
    fn sides(&self, node: usize) -> impl Iterator<Item = (usize, usize)> {
        let sides = self.links.iter().enumerate();
        sides.filter_map(move |(link, ends)| Some((link, ends.iter().position(|end| *end == node)?)))
    }

    /// Something happens to a node; what it does about it shows in the links.
    fn stir(&self, state: &mut State<N>, node: usize, stimulus: Stimulus) -> Result<(), Broken> {
        let key = (state.seats[node].digest, state_digest(&stimulus));
        let known = self.handled.borrow().get(&key).cloned();
        let (seat, effects) = known.unwrap_or_else(|| {
            let (mut after, mut effects) = (state.seats[node].node.clone(), Vec::new());
            after.handle(stimulus, &mut effects);
            let frames = effects.iter().filter_map(|effect| match effect {
                Effect::Transmit { frame, .. } => laws::overheard(frame, self.scope.transport),
                _ => None,
            });
            let overheard: Vec<_> = frames.collect();
            effects.extend(overheard);
            let handled = (Seat::new(after), Arc::from(effects));
            let mut all = self.handled.borrow_mut();
            if all.len() >= HANDLED_MAX {
                all.clear();
            }
            all.insert(key, handled.clone());
            handled
        });
        state.seats[node] = seat;
        for effect in effects.iter() {
            self.witness(state, node, effect)?;
            match effect {
                Effect::Transmit { link, frame } => self.transmit(state, node, *link, frame),
                Effect::Ended { link, .. } => {
                    let side = usize::from(self.links[*link][1] == node);
                    state.wires[*link].open[side] = false;
                }
                _ => {}
            }
        }
        self.keeps_promises(state, node)
    }

    fn transmit(&self, state: &mut State<N>, node: usize, link: usize, frame: &Bytes) {
        let wire = &mut state.wires[link];
        let to = usize::from(self.links[link][0] == node);
        let arrives = if self.is_reliable() {
            wire.open[to] && !wire.broken && !wire.hung
        } else {
            wire.frames[to].len() < self.scope.under_way
        };
        if arrives {
            wire.frames[to].push_back(Frame::new(frame.clone()));
        }
    }

    fn arrive(&self, state: &mut State<N>, link: usize, side: usize, frame: Bytes) -> Result<(), Broken> {
        self.stir(state, self.links[link][side], Stimulus::Receive { link, frame })
    }

    fn frame_action(&self, state: &mut State<N>, link: usize, side: usize, fate: Fate) -> Result<(), Broken> {
        let frames = &mut state.wires[link].frames[side];
        let index = if let Fate::Overtakes(places) = fate { usize::from(places) } else { 0 };
        let taken = if fate == Fate::Doubled { frames.front().cloned() } else { frames.remove(index) };
        let Some(frame) = taken else { return Ok(()) };
        match fate {
            Fate::Arrives => {}
            Fate::Skipped => state.left.skips -= 1,
            Fate::Overtakes(_) | Fate::Doubled | Fate::Damaged | Fate::Lost => state.left.mishaps -= 1,
        }
        match fate {
            Fate::Arrives | Fate::Overtakes(_) | Fate::Doubled => self.arrive(state, link, side, frame.bytes().clone()),
            Fate::Damaged => self.arrive(state, link, side, frame.damaged()),
            Fate::Lost | Fate::Skipped => Ok(()),
        }
    }

    fn connect(&self, state: &mut State<N>, link: usize, side: usize) -> Result<(), Broken> {
        let ends = self.links[link];
        let sides = if self.is_reliable() {
            state.wires[link] = Wire { open: [true; 2], ..Wire::default() };
            0..2
        } else {
            let wire = &mut state.wires[link];
            (wire.open[side], wire.hung) = (true, false);
            side..side + 1
        };
        for side in sides {
            self.stir(state, ends[side], Stimulus::Connect { link, upstream: side == 0 })?;
        }
        Ok(())
    }

    fn crash(&self, state: &mut State<N>, node: usize, crash: Crash) -> Result<(), Broken> {
        let power_lost = matches!(crash, Crash::PowerLoss(_));
        let left = if power_lost { &mut state.left.power_losses } else { &mut state.left.crashes };
        *left -= 1;
        self.forget_promises(state, node, power_lost);
        for (link, side) in self.sides(node) {
            let wire = &mut state.wires[link];
            wire.open[side] = false;
            if self.is_reliable() {
                wire.broken = true;
                wire.lose_all();
            }
        }
        self.stir(state, node, Stimulus::Crash(crash))
    }

    /// What can happen on links.
    fn link_actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
        let left = &state.left;
        for (link, wire) in state.wires.iter().enumerate() {
            for side in 0..2 {
                if self.can_notice(wire, side) {
                    actions.push(Action::Notice(link, side));
                }
                if self.can_connect(state, link, side) {
                    actions.push(Action::Connect(link, side));
                }
                let waiting = wire.frames[side].len();
                if waiting > 0 {
                    actions.push(Action::Frame(link, side, Fate::Arrives));
                    if left.skips > 0 && wire.can_skip(side, self.scope.transport) {
                        actions.push(Action::Frame(link, side, Fate::Skipped));
                    }
                    if left.mishaps > 0 {
                        let kinds = self.scope.mishap_kinds;
                        let plain = [
                            (kinds.drop, Fate::Lost),
                            (kinds.duplicate, Fate::Doubled),
                            (kinds.corrupt, Fate::Damaged),
                        ];
                        let plain = plain.into_iter().filter(|(happens, _)| *happens).map(|(_, fate)| fate);
                        let behind = (1..=kinds.reorder).filter(|places| usize::from(*places) < waiting);
                        let fates = plain.chain(behind.map(Fate::Overtakes));
                        actions.extend(fates.map(|fate| Action::Frame(link, side, fate)));
                    }
                }
            }
            let whole = wire.open == [true; 2] && !wire.broken && !wire.hung;
            if whole && left.cuts > 0 {
                actions.push(Action::Cut(link));
            }
            if whole && left.hangs > 0 {
                actions.push(Action::Hang(link));
            }
        }
    }

    fn can_notice(&self, wire: &Wire, side: usize) -> bool {
        let gone = wire.broken || !wire.open[1 - side];
        self.is_reliable() && wire.open[side] && gone && !wire.hung && wire.frames[side].is_empty()
    }

    fn can_connect(&self, state: &State<N>, link: usize, side: usize) -> bool {
        let is_up = |side: usize| state.seats[self.links[link][side]].node.is_up();
        let open = state.wires[link].open;
        if self.is_reliable() {
            side == 0 && open == [false; 2] && is_up(0) && is_up(1)
        } else {
            !open[side] && is_up(side)
        }
    }

    /// What can happen to nodes.
    fn node_actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
        let left = &state.left;
        for (number, seat) in state.seats.iter().enumerate() {
            let node = &seat.node;
            if !node.is_up() {
                actions.push(Action::Start(number));
                continue;
            }
            if left.appends[number] > 0 {
                actions.push(Action::Append(number));
            }
            if node.writes() {
                actions.push(Action::Written(number, Outcome::Done));
                if left.failures > 0 {
                    let failures = [Outcome::Failed, Outcome::Doubtful];
                    actions.extend(failures.map(|outcome| Action::Written(number, outcome)));
                }
            }
            let patience = Instant::ZERO + self.scope.patience;
            if left.timers > 0 && node.deadline().is_some_and(|deadline| deadline <= patience) {
                actions.push(Action::Timer(number));
            }
            if left.crashes > 0 {
                actions.push(Action::Crash(number, Crash::Kill));
                if node.writes() {
                    actions.push(Action::Crash(number, Crash::KillAfterWrite));
                }
            }
            if left.power_losses > 0 {
                let kept = 0..node.disk().writes_unsynced().max(1);
                actions.extend(kept.map(|keep| Action::Crash(number, Crash::PowerLoss(keep))));
            }
        }
    }

    /// Whether all hold the same and know it.
    fn is_settled(&self, state: &State<N>) -> bool {
        let pairs = || self.links.iter().enumerate().map(|(link, ends)| (link, ends.map(|end| &state.seats[end].node)));
        let in_step = |(link, ends): (usize, [&N; 2])| {
            let digests = ends.map(|node| node.disk().heads(&document()).digest());
            let known = ends.map(|node| node.in_step(link));
            digests[0] == digests[1] && known == digests.map(Some)
        };
        let forked = |(link, ends): (usize, [&N; 2])| self.scope.forks && ends.iter().all(|node| node.is_forked(link));
        !state.nodes().any(Node::is_busy) && pairs().all(|pair| in_step(pair) || forked(pair))
    }
}

impl<N: Node> Model for Network<N> {
    type State = State<N>;
    type Action = Action;

    fn initial(&self) -> State<N> {
        let seats: Vec<_> = self.nodes.iter().cloned().map(Seat::new).collect();
        let told = Arc::new(Told::of(self.nodes.iter().map(Node::disk)));
        let (wires, left) = (vec![Wire::default(); self.links.len()], Left::of(&self.scope));
        let mut state = State { seats, wires, left, told };
        for _ in 0..if self.settled { SETTLING_MAX } else { 0 } {
            let Fair::Next(action) = self.fair(&state) else { break };
            let Ok(next) = self.step(&state, &action) else { break };
            state = State { left, ..next };
        }
        state // if something went wrong, the search will find that from here
    }

    fn digest(&self, state: &State<N>) -> u128 {
        state_digest(state)
    }

    fn actions(&self, state: &State<N>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.node_actions(state, &mut actions);
        self.link_actions(state, &mut actions);
        actions
    }

    fn step(&self, state: &State<N>, action: &Action) -> Result<State<N>, Broken> {
        let mut next = state.clone();
        match *action {
            Action::Start(node) => self.stir(&mut next, node, Stimulus::Start)?,
            Action::Crash(node, crash) => self.crash(&mut next, node, crash)?,
            Action::Append(node) => {
                let bodies = &self.scope.appends[node];
                let body = bodies[bodies.len() - usize::from(next.left.appends[node])].clone();
                next.left.appends[node] -= 1;
                self.stir(&mut next, node, Stimulus::Append(body.into()))?;
            }
            Action::Written(node, outcome) => {
                next.left.failures -= u8::from(outcome != Outcome::Done);
                self.stir(&mut next, node, Stimulus::Written(outcome))?;
            }
            Action::Timer(node) => {
                next.left.timers = next.left.timers.saturating_sub(1);
                self.stir(&mut next, node, Stimulus::Timer)?;
            }
            Action::Connect(link, side) => self.connect(&mut next, link, side)?,
            Action::Notice(link, side) => {
                next.wires[link].open[side] = false;
                let node = self.links[link][side];
                self.session_ends(&mut next, node, link);
                self.stir(&mut next, node, Stimulus::Disconnect { link })?;
            }
            Action::Cut(link) => {
                next.left.cuts -= 1;
                next.wires[link].broken = true;
                next.wires[link].lose_all();
            }
            Action::Hang(link) => {
                next.left.hangs -= 1;
                next.wires[link].hung = true;
                next.wires[link].lose_all();
            }
            Action::Frame(link, side, fate) => self.frame_action(&mut next, link, side, fate)?,
        }
        Ok(next)
    }

    fn describe(&self, state: &State<N>, action: &Action) -> String {
        let name = |node: usize| char::from(b'A' + node as u8);
        let end = |link: usize, side: usize| name(self.links[link][side]);
        match *action {
            Action::Start(node) => format!("{} starts", name(node)),
            Action::Crash(node, Crash::Kill) => format!("{} is killed", name(node)),
            Action::Crash(node, Crash::KillAfterWrite) => {
                format!("{} is killed after its disk has carried out a write, and before it hears of that", name(node))
            }
            Action::Crash(node, Crash::PowerLoss(keep)) => {
                format!("{} loses its power, and all but {keep} of the writes that are not synced", name(node))
            }
            Action::Append(node) => format!("{} appends an op", name(node)),
            Action::Written(node, Outcome::Done) => format!("{}'s disk carries out a write", name(node)),
            Action::Written(node, Outcome::Failed) => format!("{}'s disk fails, and carries out nothing", name(node)),
            Action::Written(node, Outcome::Doubtful) => {
                format!("{}'s disk carries out a write, and says that it failed", name(node))
            }
            Action::Timer(node) => {
                let deadline = state.seats[node].node.deadline().unwrap_or_default();
                format!("{}'s clock goes on to {deadline}", name(node))
            }
            Action::Connect(link, _) if self.is_reliable() => {
                format!("{} and {} are connected", end(link, 0), end(link, 1))
            }
            Action::Connect(link, side) => format!("{} begins a session with {}", end(link, side), end(link, 1 - side)),
            Action::Notice(link, side) => {
                format!("{} notices that the link with {} is gone", end(link, side), end(link, 1 - side))
            }
            Action::Cut(link) => format!("the link of {} and {} is cut", end(link, 0), end(link, 1)),
            Action::Hang(link) => format!("the link of {} and {} goes dead", end(link, 0), end(link, 1)),
            Action::Frame(link, side, fate) => {
                let index = if let Fate::Overtakes(places) = fate { usize::from(places) } else { 0 };
                let frame = state.wires[link].frames[side].get(index);
                let what = frame.map(|frame| frame.describe(self.scope.transport)).unwrap_or_default();
                let (to, from) = (end(link, side), end(link, 1 - side));
                let how = match fate {
                    Fate::Arrives => String::from("comes"),
                    Fate::Overtakes(places) => format!("comes, {places} ahead of its turn"),
                    Fate::Doubled => String::from("comes, and will once more"),
                    Fate::Damaged => String::from("comes with a bit flipped"),
                    Fate::Lost => String::from("is lost"),
                    Fate::Skipped => String::from("is skipped"),
                };
                format!("{from} to {to}, {how}: {what}")
            }
        }
    }

    fn check(&self, state: &State<N>) -> Result<(), Broken> {
        self.same_heads_same_content(state)?;
        self.knows_its_own(state)
    }

    /// Everyone starts, notices, connects; frames arrive in order; disks write; and when nothing else is left to do,
    /// whose deadline is earliest is woken.
    fn fair(&self, state: &State<N>) -> Fair<Action> {
        if let Some(down) = state.nodes().position(|node| !node.is_up()) {
            return Fair::Next(Action::Start(down));
        }
        for (link, wire) in state.wires.iter().enumerate() {
            for side in 0..2 {
                if self.can_notice(wire, side) {
                    return Fair::Next(Action::Notice(link, side));
                }
                if self.can_connect(state, link, side) {
                    return Fair::Next(Action::Connect(link, side));
                }
                if !wire.frames[side].is_empty() {
                    return Fair::Next(Action::Frame(link, side, Fate::Arrives));
                }
            }
        }
        if let Some(node) = state.nodes().position(Node::writes) {
            return Fair::Next(Action::Written(node, Outcome::Done));
        }
        if self.is_settled(state) {
            return Fair::Reached;
        }
        let deadlines = state.nodes().enumerate().filter_map(|(number, node)| Some((node.deadline()?, number)));
        match deadlines.min() {
            Some((_, node)) => Fair::Next(Action::Timer(node)),
            None => Fair::Stuck(String::from("nobody waits for anything, and not all are in step")),
        }
    }
}
