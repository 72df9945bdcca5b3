//! Replicas as nodes of a world, with whatever app stands on them.

mod by_hand;
mod disk;
pub mod laws;
pub mod logs;
mod reached;
mod reader;
mod setup;
mod workload;
mod writer;

use std::collections::VecDeque;

use antiphon::codes::Code;
use antiphon::op::{DocumentId, Entry, ReplicaId};
use antiphon::replica::{Admission, Config, Event, Input, LinkId, Misuse, Output, Replica, Ticket};
use antiphon::rng::Rng;
use antiphon::storage::Storage;
use antiphon::wire::Access;
use antiphon::{Instant, Machine};
use antiphon_words::{EventWords, event_words, input_words};

pub use disk::ReplicaDisk;
pub use logs::{Change, Copy, Logs};
pub use setup::{BadSetup, Setup};
pub use workload::{AppWorkload, draw_setup};
pub use writer::{BODY_BYTES_MIN, BadWrite, Write, Writer, WriterNode};

use reader::Reader;

use crate::laws::Law;
use crate::node::{self, Action, Disk, Never, Node, Start};

/// What stands on a replica: it hears what the replica tells, and what its user does.
///
/// It loses everything when its process ends, and is given the log anew when that starts again.
pub trait App: Sized {
    /// What its user does.
    type Action: Action;

    /// Whether [`entry`](Self::entry) is called. Reading the log at each start takes its time.
    const READS_THE_LOG: bool = false;

    /// A process starts.
    fn start(setup: &Setup) -> Self;

    /// Where it is, before each input that comes to its node.
    fn here(&mut self, here: Here) {
        let _ = here;
    }

    /// Its user does something: what the replica is to do then.
    fn act(&mut self, action: Self::Action, at: When) -> Vec<Input>;

    /// The replica tells it something: what the replica is to do then.
    fn told(&mut self, event: &Event) -> Vec<Input> {
        let _ = event;
        Vec::new()
    }

    /// The replica did not take what it was to do.
    fn declined(&mut self, input: &Input, misuse: &Misuse) {
        let _ = (input, misuse);
    }

    /// A snapshot stands in the place of all entries of a document's log below the horizon: its body, as the authority's app
    /// has made it.
    fn snapshot(&mut self, document: &DocumentId, horizon: u64, body: &[u8]) {
        let _ = (document, horizon, body);
    }

    /// An entry of a document's log is durable. Each comes once, in the order of the log, own ones among the others; after
    /// a start, and where the app opens a document again, all of them from the first on.
    fn entry(&mut self, document: &DocumentId, entry: &Entry) {
        let _ = (document, entry);
    }

    /// The log of a document begins anew, for it was put aside, or its disk has lost some of it: nothing holds that was made
    /// of its entries.
    fn reset(&mut self, document: &DocumentId) {
        let _ = document;
    }

    /// What always holds of such an app, beyond what holds of all replicas.
    fn laws() -> Vec<Box<dyn Law<ReplicaNode<Self>>>> {
        Vec::new()
    }
}

/// Where an app is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Here {
    /// Who its replica is.
    pub replica: ReplicaId,
    /// What the wall clock shows: microseconds since 1970. That it has jumped is seen when the user does something.
    pub wall: i64,
}

/// When a user does something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct When {
    /// The number of the step in its plan.
    pub step: u64,
    /// What the wall clock shows: microseconds since 1970. It may be wrong, and may go back.
    pub wall: i64,
}

/// A replica with its app, in a world.
#[derive(Debug)]
pub struct ReplicaNode<A> {
    replica: Replica,
    app: A,
    setup: Setup,
    outputs: VecDeque<NodeOutput>,
    links: Vec<LinkId>,
    /// Questions that the host has not answered, and when it does.
    asked: VecDeque<(Instant, Ticket)>,
    log: Reader,
    /// How far the wall clock was ahead of the monotonic one when it was read last: microseconds.
    wall_ahead: i64,
}

type NodeOutput = node::Output<<ReplicaDisk as Disk>::Request, Told>;

/// What a replica's node tells those who watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    /// Its replica told its app.
    Event(Event),
    /// The app wanted this of it, and it was done.
    Took(Input),
    /// The app wanted something of it that was not to be.
    Declined(Misuse),
}

impl<A: App> ReplicaNode<A> {
    /// The replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The app.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// How the replica behaves.
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// Which documents peers may open.
    pub(crate) fn admits(&self) -> Admission {
        self.setup.config.documents
    }

    /// The links that are up.
    pub fn links(&self) -> &[LinkId] {
        &self.links
    }

    /// Hands the app to somebody who does something with it, and the replica what comes of that.
    pub(crate) fn with_app<T>(&mut self, now: Instant, act: impl FnOnce(&mut A) -> (T, Vec<Input>)) -> T {
        self.tell_where(now);
        let (done, wanted) = act(&mut self.app);
        self.app_inputs(now, wanted);
        self.collect(now);
        done
    }

    /// Hands the replica an input of the app's, and deals with what comes of it.
    pub(super) fn app_input(&mut self, now: Instant, input: Input) {
        self.app_inputs(now, vec![input]);
        self.collect(now);
    }

    fn app_inputs(&mut self, now: Instant, inputs: Vec<Input>) {
        for input in inputs {
            let told = match self.replica.handle(now, input.clone()) {
                Ok(()) => {
                    if let Input::Open { document, .. } = &input {
                        self.log.begin_anew(document);
                    }
                    Told::Took(input)
                }
                Err(misuse) => {
                    self.app.declined(&input, &misuse);
                    Told::Declined(misuse)
                }
            };
            self.outputs.push_back(node::Output::Event(told));
        }
    }

    /// Passes on what the replica wants done; what concerns the app or the host is dealt with here.
    fn collect(&mut self, now: Instant) {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { link, frame } => self.outputs.push_back(node::Output::Transmit { link, frame }),
                Output::Disconnect { link, ending } => {
                    self.links.retain(|open| *open != link);
                    self.outputs.push_back(node::Output::Disconnect { link, retry: ending.code.retry() });
                }
                Output::Storage { ticket, request } => {
                    if A::READS_THE_LOG {
                        self.log.asked(ticket, &request);
                    }
                    self.outputs.push_back(node::Output::Disk((ticket, request)));
                }
                Output::Ask { ticket, .. } => self.asked.push_back((now + self.setup.answer_after, ticket)),
                Output::Event(event) => self.event(now, event),
            }
            if self.asked.front().is_some_and(|(at, _)| *at <= now) {
                self.answer(now);
            }
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        if let Event::Connected { link, .. } = &event {
            self.outputs.push_back(node::Output::Established { link: *link });
        }
        if A::READS_THE_LOG
            && let Event::Opened { document, .. } | Event::Recovered { document, .. } = &event
            && let Some((_, tail)) = self.replica.document(document)
        {
            self.log.catch_up(&mut self.app, document, tail);
        }
        let wanted = self.app.told(&event);
        self.outputs.push_back(node::Output::Event(Told::Event(event)));
        self.app_inputs(now, wanted);
    }

    fn tell_where(&mut self, now: Instant) {
        let monotonic = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let wall = monotonic.saturating_add(self.wall_ahead);
        self.app.here(Here { replica: self.replica.id(), wall });
    }

    /// The host lets everyone in, sooner or later.
    fn answer(&mut self, now: Instant) {
        while self.asked.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, ticket)) = self.asked.pop_front() else { return };
            let answered = self.replica.handle(now, Input::Answer { ticket, answer: Ok(Access::Write) });
            debug_assert_eq!(answered, Ok(()), "answers are never misuse");
        }
    }
}

/// How far a wall clock is ahead of a monotonic one.
fn ahead(wall: i64, now: Instant) -> i64 {
    wall.saturating_sub(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl<A: App> Machine for ReplicaNode<A> {
    type Input = node::Input<A::Action, <ReplicaDisk as Disk>::Reply>;
    type Output = NodeOutput;
    type Misuse = Misuse;

    fn handle(&mut self, now: Instant, input: Self::Input) -> Result<(), Misuse> {
        if let node::Input::Act { wall, .. } = &input {
            self.wall_ahead = ahead(*wall, now);
        }
        self.tell_where(now);
        match input {
            node::Input::Connected { link, transport, upstream } => {
                self.links.push(link);
                self.replica.handle(now, Input::Connected { link, transport, token: None, upstream })?;
            }
            node::Input::Disconnected { link } => {
                self.links.retain(|open| *open != link);
                self.replica.handle(now, Input::Disconnected { link })?;
            }
            node::Input::Received { link, frame } => self.replica.handle(now, Input::Received { link, frame })?,
            node::Input::Timer => {
                self.answer(now);
                self.replica.handle(now, Input::Timer)?;
            }
            node::Input::Disk((ticket, reply)) => {
                if A::READS_THE_LOG {
                    self.log.answered(&mut self.app, ticket, reply.is_ok());
                }
                self.replica.handle(now, Input::Storage { ticket, reply })?;
            }
            node::Input::Act { action, step, wall } => {
                let wanted = self.app.act(action, When { step, wall });
                self.app_inputs(now, wanted);
            }
            node::Input::Stop => {
                for link in std::mem::take(&mut self.links) {
                    let (code, reason) = (Code::SHUTDOWN, String::from("shutting down"));
                    self.replica.handle(now, Input::Disconnect { link, code, reason, retry_after: None })?;
                }
            }
        }
        self.collect(now);
        Ok(())
    }

    fn poll(&mut self) -> Option<NodeOutput> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        let answer = self.asked.front().map(|(at, _)| *at);
        self.replica.deadline().into_iter().chain(answer).min()
    }
}

impl<A: App> Node for ReplicaNode<A> {
    type Disk = ReplicaDisk;
    type Setup = Setup;
    type Action = A::Action;
    type Event = Told;
    type Ledger = Logs;

    fn disk(setup: &Setup) -> ReplicaDisk {
        ReplicaDisk::on(antiphon_memory::Disk::with_promise(setup.promise()))
    }

    fn start(disk: &mut ReplicaDisk, setup: &Setup, start: Start) -> Result<Self, String> {
        let mut rng = Rng::from_entropy(start.entropy);
        let mut storage = disk.medium.open().map_err(|held| held.to_string())?;
        let identity = storage.open(start.continuity, &mut rng).map_err(|error| error.to_string())?;
        let log = Reader::new(storage.clone());
        (disk.storage, disk.sync_every) = (Some(storage), setup.sync_every);
        let entropy = std::array::from_fn(|_| rng.next_u64() as u8);
        let replica = Replica::new(setup.config.clone(), identity, entropy);
        let (outputs, links, asked) = (VecDeque::new(), Vec::new(), VecDeque::new());
        let now = start.now.instant;
        let (app, setup, wall_ahead) = (A::start(setup), setup.clone(), ahead(start.now.wall, now));
        let mut node = Self { replica, app, setup, outputs, links, asked, log, wall_ahead };
        node.tell_where(now);
        let documents = node.setup.documents.iter();
        let opens = documents
            .map(|(document, options)| Input::Open { document: document.clone(), options: options.clone() })
            .collect();
        node.app_inputs(now, opens);
        node.collect(now);
        Ok(node)
    }

    fn words(event: &Told) -> Option<EventWords> {
        match event {
            Told::Event(event) => Some(event_words(event)),
            Told::Took(input) => input_words(input),
            Told::Declined(misuse) => Some(EventWords::declined(misuse)),
        }
    }

    fn laws() -> Vec<Box<dyn Law<Self>>> {
        laws::all().into_iter().chain(A::laws()).collect()
    }
}

/// An app that does nothing by itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Idle;

impl App for Idle {
    type Action = Never;

    fn start(_: &Setup) -> Self {
        Self
    }

    fn act(&mut self, action: Never, _: When) -> Vec<Input> {
        match action {}
    }
}
