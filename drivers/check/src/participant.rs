//! A whole [`Replica`] on its disk. Writes take a step each; reads too, or no time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use antiphon::op::{Cursor, ReplicaId};
use antiphon::replica::{Admission, Config, Event, Input, LinkId, Options, Output, Question, Replica, Ticket};
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Reply, Request, Storage, Transaction};
use antiphon::wire::{Access, Message};
use antiphon::{Instant, Machine};
use bytes::Bytes;

use crate::disk::{Disk, Refused};
use crate::model::Broken;
use crate::network::laws::{FRONTIERS, ORDER, UNASKED, USE};
use crate::network::{Crash, Effect, Node, Outcome, Stimulus, document, entropy, message_in};

/// A replica at any number of links, with the document open.
#[derive(Clone, Debug)]
pub struct Participant {
    settings: Arc<Settings>,
    number: usize,
    disk: Disk,
    clock: Instant,
    starts: u64,
    links: u64,
    /// Whether the disk is what the last process left there, for all that is known.
    continuity: Continuity,
    up: Option<Up>,
}

#[derive(Debug)]
struct Settings {
    config: Config,
    options: Options,
    transport: Transport,
    /// Whether reads take a step each too.
    slow: bool,
}

impl Hash for Participant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The settings are the same in all states.
        (self.number, &self.disk, self.clock, self.starts, self.links, self.continuity, &self.up).hash(state);
    }
}

/// What is gone with the process.
#[derive(Clone, Debug, Hash)]
struct Up {
    replica: Replica,
    requests: VecDeque<(Ticket, Request)>,
    /// The replica's numbers of the links of the network.
    links: BTreeMap<usize, LinkId>,
    /// What the app was asked about which link, if it is asked at all; and the links on which the peer may hear of the
    /// document.
    questions: VecDeque<(Ticket, LinkId)>,
    granted: BTreeSet<LinkId>,
    in_step: BTreeMap<usize, u64>,
    forked: BTreeMap<usize, bool>,
}

impl Participant {
    /// The `number`th node of a network, on this disk, not started yet. All its links are of this transport.
    pub fn new(number: usize, config: Config, options: Options, transport: Transport, disk: Disk) -> Self {
        let settings = Arc::new(Settings { config, options, transport, slow: false });
        let (clock, starts, links) = (Instant::ZERO, 0, 0);
        Self { settings, number, disk, clock, starts, links, continuity: Continuity::Proven, up: None }
    }

    /// The same, on a disk that takes a step for each read too, so that other things happen before it is answered.
    #[must_use]
    pub fn slow(self) -> Self {
        let Settings { config, options, transport, slow: _ } = &*self.settings;
        let (config, options, transport) = (config.clone(), options.clone(), *transport);
        Self { settings: Arc::new(Settings { config, options, transport, slow: true }), ..self }
    }

    fn start(&mut self) -> Result<(), Refused> {
        self.starts += 1;
        let mut entropy = entropy(self.number, self.starts);
        let identity = self.disk.open(self.continuity, &mut entropy)?;
        self.continuity = Continuity::Proven;
        let seed = std::array::from_fn(|_| entropy.next_u64() as u8);
        let replica = Replica::new(self.settings.config.clone(), identity, seed);
        self.up = Some(Up {
            replica,
            requests: VecDeque::new(),
            links: BTreeMap::new(),
            questions: VecDeque::new(),
            granted: BTreeSet::new(),
            in_step: BTreeMap::new(),
            forked: BTreeMap::new(),
        });
        Ok(())
    }

    fn crash(&mut self, crash: Crash, effects: &mut Vec<Effect>) {
        if let Some((_, request)) = self.up.take().and_then(|up| up.requests.into_iter().next())
            && crash == Crash::KillAfterWrite
        {
            let _ = self.execute(&request, effects);
        }
        if let Crash::PowerLoss(keep) = crash {
            self.disk.lose_power(keep);
            self.continuity = Continuity::Broken;
        }
    }

    /// The input for the replica, if that is what a stimulus comes to.
    fn input(&mut self, stimulus: Stimulus, effects: &mut Vec<Effect>) -> Option<Input> {
        match stimulus {
            Stimulus::Start => {
                if let Err(refused) = self.start() {
                    effects.push(Effect::Broken(Broken::new(ORDER, refused.to_string())));
                }
                Some(Input::Open { document: document(), options: self.settings.options.clone() })
            }
            Stimulus::Crash(crash) => {
                self.crash(crash, effects);
                None
            }
            Stimulus::Connect { link, upstream } => {
                self.links += 1;
                let id = LinkId(self.links);
                self.up.as_mut()?.links.insert(link, id);
                Some(Input::Connected { link: id, transport: self.settings.transport, token: None, upstream })
            }
            Stimulus::Disconnect { link } => {
                let link = self.up.as_mut()?.forget(link)?;
                Some(Input::Disconnected { link })
            }
            Stimulus::Receive { link, frame } => {
                let link = *self.up.as_ref()?.links.get(&link)?;
                Some(Input::Received { link, frame })
            }
            Stimulus::Timer => {
                self.clock = self.deadline().map_or(self.clock, |deadline| deadline.max(self.clock));
                Some(Input::Timer)
            }
            Stimulus::Answer => {
                let up = self.up.as_mut()?;
                let (ticket, link) = up.questions.pop_front()?;
                up.granted.insert(link);
                Some(Input::Answer { ticket, answer: Ok(Access::Write) })
            }
            Stimulus::Wait => None, // one for each link
            Stimulus::Append(body) => Some(Input::Append { document: document(), bodies: vec![body] }),
            Stimulus::Written(outcome) => {
                let (ticket, request) = self.up.as_mut()?.requests.pop_front()?;
                let failed = || Err(String::from("the disk failed"));
                let done = if outcome == Outcome::Failed { failed() } else { self.execute(&request, effects) };
                let reply = if outcome == Outcome::Done { done } else { failed() };
                Some(Input::Storage { ticket, reply })
            }
        }
    }

    /// The disk carries out a request. What it refuses should never have been asked.
    fn execute(&mut self, request: &Request, effects: &mut Vec<Effect>) -> Result<Reply, String> {
        let reply = self.disk.execute(request);
        match (&reply, request) {
            (Ok(_), Request::Write(Transaction::Append(batch))) => effects.push(Effect::Wrote(batch.clone())),
            (Ok(_), _) => {}
            (Err(refused), _) => effects.push(Effect::Broken(Broken::new(ORDER, refused.to_string()))),
        }
        reply.map_err(|refused| refused.to_string())
    }

    fn handle_input(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let Some(up) = &mut self.up else { return };
        if let Err(misuse) = up.replica.handle(self.clock, input) {
            effects.push(Effect::Broken(Broken::new(USE, misuse.to_string())));
        }
        while let Some(output) = self.up.as_mut().and_then(|up| up.replica.poll()) {
            let input = self.carry_out(output, effects);
            if let (Some(input), Some(up)) = (input, &mut self.up) {
                let done = up.replica.handle(self.clock, input);
                effects.extend(done.err().map(|misuse| Effect::Broken(Broken::new(USE, misuse.to_string()))));
            }
        }
    }

    fn carry_out(&mut self, output: Output, effects: &mut Vec<Effect>) -> Option<Input> {
        let up = self.up.as_mut()?;
        match output {
            Output::Transmit { link, frame } => {
                let asks = self.settings.config.documents == Admission::Ask;
                if asks && !up.granted.contains(&link) && opens(&frame, self.settings.transport) {
                    effects.push(Effect::Broken(Broken::new(UNASKED, "a document is opened before the app answers")));
                }
                let link = up.network_link(link)?;
                effects.push(Effect::Transmit { link, frame });
            }
            Output::Disconnect { link, ending } => {
                let link = up.network_link(link)?;
                up.forget(link);
                effects.push(Effect::Ended { link, ending });
            }
            Output::Storage { ticket, request } => {
                let waits = self.settings.slow || matches!(request, Request::Write(_));
                if waits || !up.requests.is_empty() {
                    up.requests.push_back((ticket, request));
                } else {
                    let reply = self.execute(&request, effects);
                    return Some(Input::Storage { ticket, reply });
                }
            }
            Output::Ask { ticket, question: Question::Document { link, .. } } => up.questions.push_back((ticket, link)),
            Output::Ask { ticket, .. } => return Some(Input::Answer { ticket, answer: Ok(Access::Write) }),
            Output::Event(event) => return up.on_event(event, effects),
        }
        None
    }

    /// Reads that stood behind a write that is done now.
    fn next_read(&mut self, effects: &mut Vec<Effect>) -> Option<Input> {
        let up = self.up.as_mut()?;
        if self.settings.slow || matches!(up.requests.front()?.1, Request::Write(_)) {
            return None;
        }
        let (ticket, request) = up.requests.pop_front()?;
        let reply = self.execute(&request, effects);
        Some(Input::Storage { ticket, reply })
    }

    /// What is durable was taken, on each link.
    fn check_frontiers(&self, effects: &mut Vec<Effect>) {
        let sessions = self.up.iter().flat_map(|up| up.links.values().filter_map(|link| up.replica.session(*link)));
        for session in sessions {
            let both = numbers().filter_map(|number| Some((session.taken(number)?, session.held(number)?)));
            for (taken, held) in both.filter(|(taken, held)| taken.position < held.position) {
                effects.push(Effect::Broken(Broken::new(FRONTIERS, format!("taken {taken:?}, held {held:?}"))));
            }
        }
    }
}

impl Up {
    fn network_link(&self, id: LinkId) -> Option<usize> {
        self.links.iter().find(|(_, other)| **other == id).map(|(link, _)| *link)
    }

    fn forget(&mut self, link: usize) -> Option<LinkId> {
        self.in_step.remove(&link);
        self.links.remove(&link)
    }

    fn on_event(&mut self, event: Event, effects: &mut Vec<Effect>) -> Option<Input> {
        match event {
            Event::Acknowledged { link, position, .. } => {
                let link = self.network_link(link)?;
                effects.push(Effect::Acknowledged { link, position });
            }
            Event::InStep { link, digest, .. } => {
                let link = self.network_link(link)?;
                self.in_step.insert(link, digest);
                effects.push(Effect::InStep { link });
            }
            Event::Forked { link, .. } => _ = self.forked.insert(self.network_link(link)?, true),
            Event::Applied { id, .. } => effects.push(Effect::Applied(id)),
            Event::Renewed { .. } => effects.push(Effect::Renewed),
            Event::Recovered { lost, .. } if !lost.is_empty() => {
                return Some(Input::Append { document: document(), bodies: lost });
            }
            _ => {}
        }
        None
    }
}

impl Node for Participant {
    fn handle(&mut self, stimulus: Stimulus, effects: &mut Vec<Effect>) {
        if let (Stimulus::Wait, Some(up)) = (&stimulus, &self.up) {
            let links: Vec<_> = up.links.values().copied().collect();
            for link in links {
                self.handle_input(Input::ImmediateAck { document: document(), link }, effects);
            }
        }
        let mut next = self.input(stimulus, effects);
        while let Some(input) = next {
            self.handle_input(input, effects);
            next = self.next_read(effects);
        }
        self.check_frontiers(effects);
    }

    fn is_up(&self) -> bool {
        self.up.is_some()
    }

    fn deadline(&self) -> Option<Instant> {
        self.up.as_ref()?.replica.deadline()
    }

    fn writes(&self) -> bool {
        self.up.as_ref().is_some_and(|up| !up.requests.is_empty())
    }

    fn is_asked(&self) -> bool {
        self.up.as_ref().is_some_and(|up| !up.questions.is_empty())
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn author(&self) -> Option<ReplicaId> {
        self.up.as_ref().map(|up| up.replica.id())
    }

    fn held(&self, link: usize) -> Option<(ReplicaId, Cursor)> {
        let up = self.up.as_ref()?;
        let session = up.replica.session(*up.links.get(&link)?)?;
        Some((session.peer()?, numbers().find_map(|number| session.held(number))?))
    }

    fn in_step(&self, link: usize) -> Option<u64> {
        self.up.as_ref()?.in_step.get(&link).copied()
    }

    fn is_forked(&self, link: usize) -> bool {
        self.up.as_ref().is_some_and(|up| up.forked.contains_key(&link))
    }

    fn is_busy(&self) -> bool {
        self.writes() || self.up.as_ref().is_some_and(|up| !up.replica.appending(&document()).is_done())
    }
}

fn opens(frame: &Bytes, transport: Transport) -> bool {
    matches!(message_in(frame, transport), Some(Message::Open(_)))
}

/// The numbers that the document may have on sessions, the newest first: it has another with each load.
fn numbers() -> impl Iterator<Item = u32> {
    (1..16).rev()
}
