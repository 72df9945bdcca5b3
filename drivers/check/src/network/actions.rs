//! What can happen, and how it is told.

use antiphon::Instant;

use super::wire::Wire;
use super::{Crash, Network, Node, Outcome, State};

/// Something that happens. Nodes and links are numbered from 0; a side of a link is 0 or 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// A node starts.
    Start(usize),
    /// A node's process ends.
    Crash(usize, Crash),
    /// A node's app appends the next op.
    Append(usize),
    /// A node's app answers a question.
    Answer(usize),
    /// A node's app waits for its acknowledgements.
    Wait(usize),
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
    /// What can happen on links.
    pub(super) fn link_actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
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
            if wire.is_whole() && left.cuts > 0 {
                actions.push(Action::Cut(link));
            }
            if wire.is_whole() && left.hangs > 0 {
                actions.push(Action::Hang(link));
            }
        }
    }

    pub(super) fn can_notice(&self, wire: &Wire, side: usize) -> bool {
        let gone = wire.broken || !wire.open[1 - side];
        self.is_reliable() && wire.open[side] && gone && !wire.hung && wire.frames[side].is_empty()
    }

    pub(super) fn can_connect(&self, state: &State<N>, link: usize, side: usize) -> bool {
        let is_up = |side: usize| state.seats[self.links[link][side]].node.is_up();
        let open = state.wires[link].open;
        if self.is_reliable() {
            side == 0 && open == [false; 2] && is_up(0) && is_up(1)
        } else {
            !open[side] && is_up(side)
        }
    }

    /// What can happen to nodes.
    pub(super) fn node_actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
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
            if node.is_asked() {
                actions.push(Action::Answer(number));
            }
            if left.waits > 0 {
                actions.push(Action::Wait(number));
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

    /// What a person reads of it.
    pub(super) fn tell(&self, state: &State<N>, action: Action) -> String {
        let name = |node: usize| char::from(b'A' + node as u8);
        let end = |link: usize, side: usize| name(self.links[link][side]);
        match action {
            Action::Start(node) => format!("{} starts", name(node)),
            Action::Crash(node, Crash::Kill) => format!("{} is killed", name(node)),
            Action::Crash(node, Crash::KillAfterWrite) => {
                format!("{} is killed after its disk has carried out a write, and before it hears of that", name(node))
            }
            Action::Crash(node, Crash::PowerLoss(keep)) => {
                format!("{} loses its power, and all but {keep} of the writes that are not synced", name(node))
            }
            Action::Append(node) => format!("{} appends an op", name(node)),
            Action::Answer(node) => format!("{}'s app lets its peer have the document", name(node)),
            Action::Wait(node) => format!("{}'s app waits for its acknowledgements", name(node)),
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
}
