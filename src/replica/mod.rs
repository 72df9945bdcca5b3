//! Replica: many documents over many sessions, with a storage behind.
//!
//! Whatever wants to be in a log (an append of the app, ops that a peer sent, ops salvaged in a reset) goes through one
//! pipeline per document: judged by its author's next seq, gathered into a batch, written, and only then shown: to the
//! app, and to every session, packed once. One write a document is under way at a time; the next batch is whatever has
//! gathered meanwhile.

mod attaching;
mod config;
mod documents;
mod fan_out;
mod identity;
mod interface;
mod links;
mod pipeline;
mod reset;
mod snapshots;
mod tickets;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;

use crate::codes::Code;
use crate::digest::state_digest;
use crate::heads::Heads;
use crate::machine::Machine;
use crate::op::{DocumentId, ReplicaId};
use crate::retry::Backoff;
use crate::rng::Rng;
use crate::session;
use crate::storage::{Identity, Reply, Request};
use crate::time::Instant;
use crate::wire::Access;

pub use config::{Admission, Authority, Config, Options, Salvage};
pub use interface::{Appending, Event, Input, LinkId, Misuse, Output, Question, Stats};
pub use tickets::Ticket;

use documents::Document;
use links::{Contest, Link};
use tickets::{Asked, Opened, Reading, Tickets};

/// See the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Replica {
    config: Config,
    identity: Identity,
    /// The write of the identity that is under way, or that failed and is tried again, and until when it should be done.
    identity_write: Option<(Ticket, Instant)>,
    /// When the identity is written again that could not be.
    identity_retry: Backoff,
    opens: Arc<crate::timeline::Opens>,
    rng: Rng,
    now: Instant,
    outputs: VecDeque<Output>,
    stats: Stats,
    next_number: u32,
    /// How often a document was opened on a session.
    openings: u64,

    documents: BTreeMap<DocumentId, Box<Document>>,
    /// The documents by their current numbers.
    numbers: BTreeMap<u32, DocumentId>,
    links: BTreeMap<LinkId, Box<Link>>,
    /// When sessions and documents want to be woken.
    alarms: BTreeSet<(Instant, Alarm)>,
    /// Sessions whose replica id a newer session claims too, and that one.
    contests: BTreeMap<LinkId, Contest>,

    /// What the storage and the host were asked.
    asked: Tickets,
    /// Reads that wait until fewer are under way.
    reads_waiting: VecDeque<(Ticket, Request)>,
    reads: usize,
    /// Sessions with outputs to be dealt with.
    busy: VecDeque<LinkId>,
}

/// Who wants to be woken.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Alarm {
    Session(LinkId),
    Contest(LinkId),
    Identity,
    Document(DocumentId),
}

impl Replica {
    /// A replica with this identity, which its storage holds already (see
    /// [`Storage::open`](crate::storage::Storage::open)). `entropy` must come from the system: ids are drawn from it
    /// that no other replica, and no copy of this one, may draw.
    pub fn new(config: Config, identity: Identity, entropy: [u8; 32]) -> Self {
        let (base, cap) = config.retry;
        Self {
            config,
            identity_write: None,
            identity_retry: Backoff::new(base, cap),
            opens: Arc::new(identity.opens.clone()),
            identity,
            rng: Rng::from_entropy(entropy),
            now: Instant::ZERO,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            next_number: 0,
            openings: 0,
            documents: BTreeMap::new(),
            numbers: BTreeMap::new(),
            links: BTreeMap::new(),
            alarms: BTreeSet::new(),
            contests: BTreeMap::new(),
            asked: Tickets::default(),
            reads_waiting: VecDeque::new(),
            reads: 0,
            busy: VecDeque::new(),
        }
    }

    /// Who it is now.
    pub fn id(&self) -> ReplicaId {
        self.identity.replica
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The session on a link, to look at.
    pub fn session(&self, link: LinkId) -> Option<&session::Session> {
        self.links.get(&link).map(|link| &link.session)
    }

    /// What is durable of a document that is loaded: the heads, and the position after the last entry.
    pub fn document(&self, document: &DocumentId) -> Option<(&Arc<Heads>, u64)> {
        self.documents.get(document)?.log().map(|log| (log.heads(), log.tail()))
    }

    /// How a document stands with each peer that has it open too, by the link.
    pub fn peers(&self, document: &DocumentId) -> impl Iterator<Item = (LinkId, session::Standing)> {
        let state = self.documents.get(document);
        let links = state.into_iter().flat_map(|state| state.links.after(None).map(|(link, _)| (*link, state.number)));
        links.filter_map(|(link, number)| Some((link, self.session(link)?.standing(number)?)))
    }

    /// What of the app's appends is on its way into the document's log.
    pub fn appending(&self, document: &DocumentId) -> Appending {
        self.documents.get(document).map(|document| document.appending()).unwrap_or_default()
    }

    /// Cost of the entries in memory, of what waits to be written, and of what is being written, of all documents.
    pub fn memory_cost(&self) -> u64 {
        self.documents.values().map(|document| document.memory_cost()).sum()
    }

    /// How many documents are in memory.
    pub fn documents_loaded(&self) -> usize {
        self.documents.len()
    }

    /// The canonical digest of the whole state: equal for replicas that will behave alike.
    pub fn state_digest(&self) -> u128 {
        state_digest(self)
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn request(&mut self, asked: Asked, request: Request) -> Ticket {
        let ticket = self.asked.issue(asked);
        self.outputs.push_back(Output::Storage { ticket, request });
        ticket
    }

    /// A read of entries or heads, of which only so many are under way.
    fn request_read(&mut self, asked: Asked, request: Request) {
        self.stats.reads += 1;
        let ticket = self.asked.issue(asked);
        self.reads_waiting.push_back((ticket, request));
        self.start_reads();
    }

    fn start_reads(&mut self) {
        while self.reads < self.config.reads_max {
            let Some((ticket, request)) = self.reads_waiting.pop_front() else { return };
            self.reads += 1;
            self.outputs.push_back(Output::Storage { ticket, request });
        }
    }

    fn ask(&mut self, asked: Asked, question: Question) {
        let ticket = self.asked.issue(asked);
        self.outputs.push_back(Output::Ask { ticket, question });
    }

    fn on_storage(&mut self, ticket: Ticket, reply: Result<Reply, String>) {
        // Late answers, to questions that were given up, are ignored.
        let Some(asked) = self.asked.take(ticket) else { return };
        if matches!(asked, Asked::Read(..) | Asked::Compare(..) | Asked::Snapshot(..)) {
            self.reads -= 1;
            self.start_reads();
        }
        match (asked, reply) {
            (Asked::Identity, Ok(_)) => self.identity_written(ticket),
            (Asked::Identity, Err(_)) => {
                let wait = self.identity_retry.fail(&mut self.rng);
                self.alarms.insert((self.now + wait, Alarm::Identity));
            }
            (Asked::Load(document), _) if !self.is_loading(&document, ticket) => {}
            (Asked::Load(document), Ok(Reply::Document(stored))) => self.loaded(&document, stored),
            (Asked::Cursor(document, link), Ok(Reply::Cursor(cursor))) => self.attach_with(&document, link, cursor),
            (Asked::Read(reading, openings), Ok(Reply::Entries(entries))) => {
                self.read_done(&reading, openings, entries)
            }
            (Asked::Compare(document, opened), Ok(Reply::Compared(comparison))) => {
                self.session_input_for(&document, opened, |number| session::Input::Compared { number, comparison });
            }
            (Asked::Own(document, opened, head), Ok(Reply::Chains(chains))) => {
                self.own_checked(&document, opened, head, &chains);
            }
            (Asked::Write(document), Ok(_)) => self.written(document),
            (Asked::Reset(document), Ok(_)) => self.reset_done(&document),
            (Asked::Aside(document, from), Ok(Reply::Entries(entries))) => self.aside_read(&document, from, entries),
            (Asked::AsideChains(document, from, entries, held), Ok(Reply::Chains(chains))) => {
                self.salvage(&document, from, entries, &held, &chains);
            }
            (Asked::Compact(document, number), Ok(_)) => self.compact_done(document, number, ticket),
            (Asked::Horizon(document, number), Ok(Reply::Document(stored))) => {
                self.horizon_moved(&document, number, ticket, &stored);
            }
            (Asked::Snapshot(document, opened), Ok(Reply::Snapshot(bytes))) => {
                self.snapshot_read(&document, opened, bytes);
            }
            (Asked::Stage(document, staged), Ok(_)) => self.stage_done(&document, staged, ticket),
            (asked, reply) => {
                let reason =
                    reply.err().unwrap_or_else(|| String::from("the storage's reply does not fit the request"));
                if let Some(document) = asked.document() {
                    self.fail(&document, reason);
                }
            }
        }
    }

    fn on_answer(&mut self, ticket: Ticket, answer: Result<Access, (Code, String)>) {
        if !matches!(self.asked.get(ticket), Some(Asked::Peer(_) | Asked::Document(..))) {
            return; // late, or a storage's ticket, whose answer is still to come
        }
        match self.asked.take(ticket) {
            Some(Asked::Peer(link)) => self.admit(link, answer.map(|_| ())),
            Some(Asked::Document(link, document)) => self.decided(link, &document, answer),
            _ => {}
        }
    }

    fn on_timer(&mut self) {
        while let Some((_, alarm)) = self.alarms.first().filter(|(at, _)| *at <= self.now).cloned() {
            let at = self.alarms.pop_first().map(|(at, _)| at);
            match alarm {
                Alarm::Session(link) => {
                    if let Some(state) = self.links.get_mut(&link) {
                        state.alarm.take_if(|alarm| Some(*alarm) == at);
                    }
                    self.session_input(link, session::Input::Timer);
                }
                Alarm::Contest(link) => self.on_contest_alarm(link),
                Alarm::Identity => self.write_identity(),
                Alarm::Document(document) => self.on_document_alarm(&document),
            }
            self.settle();
        }
    }
}

impl Machine for Replica {
    type Input = Input;
    type Output = Output;
    type Misuse = Misuse;

    fn handle(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        self.now = self.now.max(now);
        match input {
            Input::Connected { link, transport, token, upstream } => {
                self.connected(link, transport, token, upstream)?
            }
            Input::Disconnected { link } => self.disconnected(link),
            Input::Received { link, frame } => self.received(link, frame),
            Input::Writable { link, bytes } => self.session_input(link, session::Input::Writable { bytes }),
            Input::Timer => self.on_timer(),
            Input::Open { document, options } => self.open(document, options),
            Input::Close { document } => self.close(&document)?,
            Input::Append { document, bodies } => self.append(&document, bodies)?,
            Input::ImmediateAck { document, link } => self.want_ack(&document, link),
            Input::Storage { ticket, reply } => self.on_storage(ticket, reply),
            Input::Answer { ticket, answer } => self.on_answer(ticket, answer),
            Input::Reset { document, link } => self.reset_by_app(&document, link)?,
            Input::Compact { document, position, body } => self.compact(&document, position, body)?,
            Input::Disconnect { link, code, reason, retry_after } => {
                self.session_input(link, session::Input::Goodbye { code, reason, retry_after });
            }
        }
        self.settle();
        Ok(())
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }
}
