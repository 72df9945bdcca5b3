//! Small networks of nodes, in which everything that may happen happens in every order.

mod actions;
pub(crate) mod laws;
mod node;
mod scope;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use antiphon::digest::state_digest;
use antiphon::session::Transport;
use bytes::Bytes;

use crate::model::{Broken, Fair, Model};

pub use actions::{Action, Fate};
pub(crate) use node::entropy;
pub use node::{Crash, Effect, Node, Outcome, Stimulus, document};
pub use scope::{MishapKinds, NODES_MAX, Scope};
pub(crate) use wire::message_in;

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
                Effect::Transmit { link, frame } => laws::overheard(*link, frame, self.scope.transport),
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
        let bytes = match fate {
            Fate::Arrives | Fate::Overtakes(_) | Fate::Doubled => frame.bytes().clone(),
            Fate::Damaged => frame.damaged(),
            Fate::Lost | Fate::Skipped => return Ok(()),
        };
        let asks = || frame.asks(self.scope.transport);
        if let Some(to) = self.looks_at_waits().then(asks).flatten() {
            let here = &mut state.wires[link].acknowledging[side];
            (here.awaited, here.asked) = (here.awaited.max(to), true);
        }
        self.stir(state, self.links[link][side], Stimulus::Receive { link, frame: bytes })?;
        state.wires[link].acknowledging[side].asked = false;
        Ok(())
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
            Action::Answer(node) => self.stir(&mut next, node, Stimulus::Answer)?,
            Action::Wait(node) => {
                next.left.waits -= 1;
                self.stir(&mut next, node, Stimulus::Wait)?;
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
        self.tell(state, *action)
    }

    fn check(&self, state: &State<N>) -> Result<(), Broken> {
        self.same_heads_same_content(state)?;
        self.knows_its_own(state)?;
        self.holds_what_there_is(state)?;
        self.tells_what_is_awaited(state)
    }

    /// Everyone starts, notices, connects; frames arrive in order; disks write; apps answer; and when nothing else is left to do,
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
        if let Some(node) = state.nodes().position(Node::is_asked) {
            return Fair::Next(Action::Answer(node));
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
