//! A replica with its storage in a hub, for threads to share.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use antiphon::codes::{Code, Retry};
use antiphon::heads::Heads;
use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{Config, Event, Input, LinkId, Misuse, Options, Output, Question, Replica, Ticket};
use antiphon::retry::Backoff;
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::Access;
use antiphon::{Instant as Moment, Machine};
use bytes::Bytes;

use crate::hub::{Hub, Mail, MemberId, Membership, Peer, locked};

/// A replica, its storage, and its place in a [`Hub`].
///
/// All methods may be called from any thread. Those that do something do it on the calling thread, the storage's work
/// included, and return when nothing is left to do at the moment; only [`wait`](Self::wait) blocks. Dropping a
/// participant takes its links down; [`leave`](Self::leave) does so in order.
#[derive(Debug)]
pub struct Participant<S: Storage> {
    engine: Mutex<Engine<S>>,
    membership: Membership,
}

/// As long as anybody waits; clocks can add it without running over.
const FOREVER: Duration = Duration::from_secs(1 << 31);

/// What is done by one thread at a time.
#[derive(Debug)]
struct Engine<S> {
    replica: Replica,
    storage: S,
    epoch: Instant,
    rng: Rng,
    links: BTreeMap<LinkId, Peer>,
    /// Participants that are to be connected again, and how it went with them before.
    redials: BTreeMap<MemberId, Redial>,
    events: Vec<Event>,
    questions: VecDeque<(Ticket, Question)>,
}

#[derive(Debug)]
struct Redial {
    backoff: Backoff,
    /// `None`: it is connected.
    at: Option<Moment>,
}

impl<S: Storage> Participant<S> {
    pub(crate) fn new(hub: &Hub, mut storage: S, continuity: Continuity, config: Config) -> Result<Self, S::Error> {
        let mut rng = Rng::from_entropy(entropy());
        let identity = storage.open(continuity, &mut rng)?;
        let replica = Replica::new(config, identity, entropy());
        let (links, redials, questions) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let (epoch, events) = (Instant::now(), Vec::new());
        let engine = Mutex::new(Engine { replica, storage, epoch, rng, links, redials, events, questions });
        let participant = Self { engine, membership: hub.enter() };
        participant.drive();
        Ok(participant)
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.membership.hub
    }

    /// Who it is now.
    pub fn id(&self) -> ReplicaId {
        locked(&self.engine).replica.id()
    }

    /// Opens a document: it is kept in step with all participants that have it open, until it is closed.
    pub fn open(&self, document: &DocumentId, options: Options) {
        let opened = self.input(Input::Open { document: document.clone(), options });
        debug_assert_eq!(opened, Ok(()), "a document can always be opened");
    }

    /// Closes a document. What was appended is written.
    ///
    /// # Errors
    /// If it is not open.
    pub fn close(&self, document: &DocumentId) -> Result<(), Misuse> {
        self.input(Input::Close { document: document.clone() })
    }

    /// Appends ops to a document.
    ///
    /// # Errors
    /// If the document is not open for writing, its storage is behind, or a body is too large.
    pub fn append(&self, document: &DocumentId, bodies: Vec<Bytes>) -> Result<(), Misuse> {
        self.input(Input::Append { document: document.clone(), bodies })
    }

    /// What is durable of a document that is in memory: the heads, and the position after the last entry.
    pub fn document(&self, document: &DocumentId) -> Option<(Arc<Heads>, u64)> {
        locked(&self.engine).replica.document(document).map(|(heads, tail)| (heads.clone(), tail))
    }

    /// What has happened since this was last asked, oldest first.
    pub fn events(&self) -> Vec<Event> {
        mem::take(&mut locked(&self.engine).events)
    }

    /// What is to be decided since this was last asked, where the configuration says that the host is asked.
    pub fn questions(&self) -> Vec<(Ticket, Question)> {
        mem::take(&mut locked(&self.engine).questions).into()
    }

    /// Decides.
    pub fn answer(&self, ticket: Ticket, answer: Result<Access, (Code, String)>) {
        let answered = self.input(Input::Answer { ticket, answer });
        debug_assert_eq!(answered, Ok(()), "late answers are ignored");
    }

    /// Does what is to be done now: takes what came from the others, and what timers ask for.
    pub fn drive(&self) {
        self.settle(&mut locked(&self.engine));
    }

    /// Does what is to be done, and blocks until there are [`events`](Self::events) or [`questions`](Self::questions),
    /// at most for `timeout`. Says whether there are.
    pub fn wait(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout.min(FOREVER);
        loop {
            // Asked first: what happens from here on, as the thread is on its way into the wait, wakes it.
            let before = self.membership.mailbox.happened();
            let mut engine = locked(&self.engine);
            self.settle(&mut engine);
            if !engine.events.is_empty() || !engine.questions.is_empty() {
                return true;
            }
            let due =
                engine.deadline().and_then(|due| engine.epoch.checked_add(Duration::from_micros(due.as_micros())));
            drop(engine);
            if Instant::now() >= end {
                return false;
            }
            self.membership.mailbox.wait(before, due.map_or(end, |due| due.min(end)));
        }
    }

    /// Says goodbye to all, syncs the storage and hands it back.
    ///
    /// # Errors
    /// If the storage can't be synced. It is dropped then.
    pub fn leave(self) -> Result<S, S::Error> {
        let Self { engine, membership } = self;
        let mut engine = engine.into_inner().unwrap_or_else(PoisonError::into_inner);
        let links: Vec<_> = engine.links.keys().copied().collect();
        for link in links {
            let (code, reason) = (Code::SHUTDOWN, String::from("leaving the hub"));
            let ended = engine.input(Input::Disconnect { link, code, reason, retry_after: None });
            debug_assert_eq!(ended, Ok(()), "a session can always be ended");
        }
        engine.pump(&membership);
        engine.storage.sync()?;
        Ok(engine.storage)
    }

    fn input(&self, input: Input) -> Result<(), Misuse> {
        let mut engine = locked(&self.engine);
        let done = engine.input(input);
        self.settle(&mut engine);
        drop(engine);
        // Another thread may wait: for an event that there is now, or for a timer that is now due earlier.
        self.membership.mailbox.stir();
        done
    }

    fn settle(&self, engine: &mut Engine<S>) {
        engine.pump(&self.membership);
        for mail in self.membership.mailbox.collect() {
            engine.take(mail, &self.membership);
            // After each: what one frame brings is on its way to the others before the next is looked at.
            engine.pump(&self.membership);
        }
        engine.timers(&self.membership);
        engine.pump(&self.membership);
    }
}

impl<S: Storage> Engine<S> {
    fn now(&self) -> Moment {
        Moment::from_micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: Input) -> Result<(), Misuse> {
        self.replica.handle(self.now(), input)
    }

    /// An input that the replica takes at any time.
    fn tell(&mut self, input: Input) {
        let taken = self.input(input);
        debug_assert_eq!(taken, Ok(()), "the driver keeps to the replica's rules");
    }

    fn take(&mut self, mail: Mail, membership: &Membership) {
        match mail {
            Mail::Connected { link, peer } => {
                self.links.insert(link, peer);
                self.tell(Input::Connected { link, transport: Transport::Reliable, token: None, upstream: false });
            }
            Mail::Disconnected { link } => {
                // Not for a link that this end has given up itself.
                if let Some(peer) = self.links.remove(&link) {
                    self.tell(Input::Disconnected { link });
                    self.redial_later(peer.id, Retry::Later, None, membership);
                }
            }
            Mail::Frame { link, frame } if self.links.contains_key(&link) => {
                self.tell(Input::Received { link, frame });
            }
            Mail::Frame { .. } => {} // sent before the other end knew that the link is gone
        }
    }

    fn pump(&mut self, membership: &Membership) {
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { link, frame } => {
                    // Who is gone for good does not miss it: its links are about to be taken down.
                    if let Some(mailbox) = self.links.get(&link).and_then(|peer| peer.mailbox.upgrade()) {
                        mailbox.post(Mail::Frame { link, frame });
                    }
                }
                Output::Disconnect { link, ending } => {
                    if let Some(peer) = self.links.remove(&link) {
                        membership.disconnect(peer.id, link);
                        self.redial_later(peer.id, ending.code.retry(), ending.retry_after, membership);
                    }
                }
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.tell(Input::Storage { ticket, reply });
                }
                Output::Ask { ticket, question } => self.questions.push_back((ticket, question)),
                Output::Event(event) => {
                    if let Event::Connected { link, .. } = &event
                        && let Some(peer) = self.links.get(link)
                    {
                        self.redials.remove(&peer.id);
                    }
                    self.events.push(event);
                }
            }
        }
    }

    /// A link ended under a pair that is still there. One of the two connects it again: the one that came first.
    fn redial_later(&mut self, peer: MemberId, retry: Retry, hint_ms: Option<u32>, membership: &Membership) {
        if membership.id > peer || retry == Retry::Never {
            return;
        }
        let now = self.now();
        let fresh = || Redial { backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)), at: None };
        let redial = self.redials.entry(peer).or_insert_with(fresh);
        let wait = redial.backoff.fail(&mut self.rng);
        let wait = if retry == Retry::Now && redial.backoff.failures() <= 1 { Duration::ZERO } else { wait };
        redial.at = Some(now + wait.max(Duration::from_millis(hint_ms.unwrap_or(0).into())));
    }

    fn timers(&mut self, membership: &Membership) {
        let now = self.now();
        // Who has left is not waited for any longer.
        self.redials.retain(|peer, redial| redial.at.take_if(|at| *at <= now).is_none() || membership.connect(*peer));
        if self.replica.deadline().is_some_and(|due| due <= now) {
            self.tell(Input::Timer);
        }
    }

    fn deadline(&self) -> Option<Moment> {
        self.redials.values().filter_map(|redial| redial.at).chain(self.replica.deadline()).min()
    }
}

/// 256 bits that nobody else has.
fn entropy() -> [u8; 32] {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).expect("the system has entropy");
    entropy
}
