//! Replica: many documents over many sessions, with a storage behind.
//!
//! Whatever wants to be in a log (an append of the app, ops that a peer sent, ops salvaged in a reset) goes through one
//! pipeline per document: judged by its author's next seq, gathered into a batch, written, and only then shown: to the
//! app, and to every session, packed once. One write a document is under way at a time; the next batch is whatever has
//! gathered meanwhile.

mod documents;
mod fan_out;
mod identity;
mod links;
mod reset;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::codes::Code;
use crate::digest::state_digest;
use crate::heads::Heads;
use crate::machine::Machine;
use crate::op::{DocumentId, Op, OpId, ReplicaId};
use crate::retry::Backoff;
use crate::rng::Rng;
use crate::session::{self, Ending, Transport};
use crate::storage::{Batch, Identity, Reply, Request};
use crate::time::Instant;
use crate::wire::control::Schema;
use crate::wire::{Access, Durability};

use documents::Document;
use links::Link;

/// Stands for a link for as long as the driver has it. The driver chooses the numbers and never uses one twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// Stands for a question of the replica's: to its storage or to its host. Never repeats.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(u64);

/// How a replica behaves.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Config {
    /// How its sessions behave; each link says what transport it is.
    pub session: session::Config,
    /// Who may connect. Default: everyone.
    pub peers: Admission,
    /// Which documents peers may open, and which peers have a part in those that the app opens. Default: any, and all.
    pub documents: Admission,
    /// Cost of the entries of a document that are kept in memory. Default 256 KiB.
    pub tail_max: u64,
    /// Cost of what is read from storage at once for one session. Default 128 KiB.
    pub read_max: u64,
    /// Reads under way at a time. Default 16.
    pub reads_max: usize,
    /// Cost of appends that wait until their document is loaded. Default 64 MiB.
    pub waiting_max: u64,
    /// How long a write may take. Default 30 s.
    pub write_deadline: Duration,
    /// The first and the longest wait before a failed storage is tried again. Default 100 ms and 30 s.
    pub retry: (Duration, Duration),
    /// How long a document may be idle, with nobody having it open, before its memory is given back; or open, and not
    /// grow, before its entries in memory are. Default 60 s.
    pub idle_max: Duration,
    /// Documents in memory. While there are more, those that are idle are given back at once. Default 16,384.
    pub documents_max: usize,
    /// Sessions at a time. Default 16,384.
    pub sessions_max: usize,
    /// How long an older session may take to show that it is alive, when a newer one has the same replica id. Default 5 s.
    pub contest_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session: session::Config::default(),
            peers: Admission::Open,
            documents: Admission::Open,
            tail_max: 256 << 10,
            read_max: 128 << 10,
            reads_max: 16,
            waiting_max: 64 << 20,
            write_deadline: Duration::from_secs(30),
            retry: (Duration::from_millis(100), Duration::from_secs(30)),
            idle_max: Duration::from_secs(60),
            documents_max: 16_384,
            sessions_max: 16_384,
            contest_max: Duration::from_secs(5),
        }
    }
}

/// How it is decided whether something may come in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Admission {
    /// It may.
    Open,
    /// The host is asked each time.
    Ask,
    /// It may not: only what the app itself opens, with every peer that is in.
    Closed,
}

/// Who decides what a document is, when histories differ.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Authority {
    /// Nobody: forks are reported, and the app decides.
    #[default]
    Nobody,
    /// This replica: the others mend theirs.
    Us,
    /// The peer of a link that was connected as upstream: on a fork the document is rebuilt from it.
    Upstream,
}

/// What to do with own ops that are caught in a fork, when a document is rebuilt from its authority.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Salvage {
    /// Append them again, under the new replica id.
    #[default]
    Append,
    /// Hand them to the app, in [`Event::Orphaned`].
    HandOver,
}

/// How the app opens a document.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Options {
    /// Whether ops are sent, or only received. Default: both.
    pub access: Access,
    /// The schema of the bodies.
    pub schema: Option<Schema>,
    /// Who decides in a fork. Default: nobody.
    pub authority: Authority,
    /// What happens to own ops then. Default: they are appended again.
    pub salvage: Salvage,
}

/// What happens to a replica.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Input {
    /// A link came up.
    Connected {
        /// Its number.
        link: LinkId,
        /// What it is.
        transport: Transport,
        /// Proof of who we are, for the peer.
        token: Option<Bytes>,
        /// The peer is the authority of the documents opened with [`Authority::Upstream`].
        upstream: bool,
    },
    /// A link is gone.
    Disconnected {
        /// Its number.
        link: LinkId,
    },
    /// A frame came, whole.
    Received {
        /// From where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// The transport takes this many more bytes; see [`session::Input::Writable`].
    Writable {
        /// Which.
        link: LinkId,
        /// How many.
        bytes: u64,
    },
    /// [`Machine::deadline`] has come.
    Timer,
    /// The app opens a document: on all links, now and later, until it closes it.
    Open {
        /// Which.
        document: DocumentId,
        /// How.
        options: Options,
    },
    /// The app closes a document. What is under way is still written.
    Close {
        /// Which.
        document: DocumentId,
    },
    /// The app appends ops to a document that it has open.
    Append {
        /// Which.
        document: DocumentId,
        /// The bodies, in order.
        bodies: Vec<Bytes>,
    },
    /// The answer to [`Output::Storage`].
    Storage {
        /// The question's.
        ticket: Ticket,
        /// The reply, or what went wrong.
        reply: Result<Reply, String>,
    },
    /// The answer to [`Output::Ask`].
    Answer {
        /// The question's.
        ticket: Ticket,
        /// What is granted, or why it is not. For [`Question::Peer`] the access means nothing.
        answer: Result<Access, (Code, String)>,
    },
    /// The app gives up this replica's history of a document where it differs from that of the peer of `link`, and
    /// rebuilds the document from there. (With [`Authority::Upstream`] this happens by itself.)
    Reset {
        /// Which.
        document: DocumentId,
        /// From where.
        link: LinkId,
    },
    /// The host ends a session.
    Disconnect {
        /// Its link.
        link: LinkId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// When the peer should come back, in milliseconds.
        retry_after: Option<u32>,
    },
}

/// What a replica wants done.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Output {
    /// Send this frame.
    Transmit {
        /// Where.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// The session is over: close the link when everything has been sent.
    Disconnect {
        /// Which.
        link: LinkId,
        /// How it ended.
        ending: Ending,
    },
    /// Let the storage carry this out, in the order of the outputs, and answer with [`Input::Storage`].
    Storage {
        /// For the answer.
        ticket: Ticket,
        /// What to do.
        request: Request,
    },
    /// Decide, and answer with [`Input::Answer`].
    Ask {
        /// For the answer.
        ticket: Ticket,
        /// What about.
        question: Question,
    },
    /// Something that the app will want to know.
    Event(Event),
}

/// What a replica asks its host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Question {
    /// May this peer connect?
    Peer {
        /// On which link.
        link: LinkId,
        /// Who it says it is.
        replica: ReplicaId,
        /// Its proof.
        token: Option<Bytes>,
    },
    /// May this peer have the document, and only to read, or also to write? Asked when the peer opens it, and when the
    /// app has it open and could open it with the peer: before the answer, the peer hears nothing of it.
    Document {
        /// On which link.
        link: LinkId,
        /// Who it is.
        replica: ReplicaId,
        /// The document.
        document: DocumentId,
        /// What it wants to do, or, where it has not said so yet, the most it could.
        access: Access,
        /// The schema of the bodies, as the peer has it, or, where it has not said so yet, the app.
        schema: Option<Schema>,
    },
}

/// What a replica tells its app.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// A session is live.
    Connected {
        /// Its link.
        link: LinkId,
        /// The peer.
        replica: ReplicaId,
        /// What its acknowledgements promise.
        durability: Durability,
    },
    /// A session is over, or its link is gone.
    Disconnected {
        /// Its link.
        link: LinkId,
        /// How it ended; `None` if the link went away under it.
        ending: Option<Ending>,
    },
    /// A document is loaded: appends are taken at once from now on.
    Opened {
        /// Which.
        document: DocumentId,
        /// What is held.
        heads: Arc<Heads>,
        /// The position after the last entry.
        tail: u64,
    },
    /// Own ops are durable here: all that this replica appended up to and with this one.
    Applied {
        /// The document.
        document: DocumentId,
        /// The op. Its author is a former id of this replica's, if the batch was being written when that was renewed.
        id: OpId,
        /// The position after it.
        position: u64,
    },
    /// Ops of others are durable here.
    Received {
        /// What was written: all of it, own ops among it in their place.
        batch: Arc<Batch>,
    },
    /// A peer has moved on in a document, or turned out to be ahead of 0 when it was opened with it: an
    /// acknowledgement that was lost with an earlier session is made up for.
    Acknowledged {
        /// Its link.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Everything below this position of our log is durable there.
        position: u64,
    },
    /// Both ends hold the same of a document.
    InStep {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// The digest of the heads at both ends.
        digest: u64,
    },
    /// Authors have different histories at both ends of a link.
    Forked {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Who.
        authors: Vec<ReplicaId>,
    },
    /// The replica was copied or set back, or is caught in a fork, and has a new id. Its sessions go on under the id that
    /// they began with.
    Renewed {
        /// The new id.
        replica: ReplicaId,
        /// The old one.
        before: ReplicaId,
    },
    /// A reset found ops that have no place in the document's new history, and does not append them.
    Orphaned {
        /// The document.
        document: DocumentId,
        /// The ops.
        ops: Vec<Op>,
    },
    /// A reset is done: everything that was put aside has its place again, or was handed over.
    Mended {
        /// The document.
        document: DocumentId,
    },
    /// The storage failed. The document is closed on all sessions and tried again; what was appended and not applied
    /// is in doubt until [`Event::Recovered`].
    Failed {
        /// The document.
        document: DocumentId,
        /// What the storage said.
        reason: String,
    },
    /// The storage works again.
    Recovered {
        /// The document.
        document: DocumentId,
        /// All own ops up to and with this seq are durable.
        seq: u64,
        /// The bodies of own ops that are not, and must be appended again if they are still wanted.
        lost: Vec<Bytes>,
    },
    /// The document is not open with this peer, and will not be until one of the two opens it again.
    Closed {
        /// With whom.
        link: LinkId,
        /// The document.
        document: DocumentId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// Who said so.
        by: session::By,
    },
}

/// What the caller did wrong.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Misuse {
    /// The link's number is in use.
    LinkInUse(LinkId),
    /// There is no such link, or its session is over.
    UnknownLink(LinkId),
    /// The app has not opened the document.
    NotOpen(DocumentId),
    /// So much waits for the document's storage that no more is taken. Wait for [`Event::Applied`] or
    /// [`Event::Recovered`].
    Full(DocumentId),
    /// The document was opened for reading only.
    ReadOnly(DocumentId),
    /// A body is larger than the limit of bytes.
    TooLarge(u32),
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkInUse(LinkId(link)) => write!(f, "link {link} is in use: give each connection a new number"),
            Self::UnknownLink(LinkId(link)) => write!(f, "there is no link {link}: connect it first"),
            Self::NotOpen(document) => write!(f, "document {document} is not open: open it first"),
            Self::Full(document) => write!(f, "too much waits for the storage of {document}: wait until it is applied"),
            Self::ReadOnly(document) => write!(f, "document {document} was opened for reading only"),
            Self::TooLarge(max) => write!(f, "an op has at most {max} bytes: split it, or raise the limit everywhere"),
        }
    }
}

impl core::error::Error for Misuse {}

/// What a replica did, counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Stats {
    /// Frames that were packed for all sessions at once.
    pub packed: u64,
    /// Batches written.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Ops that came and were held already.
    pub duplicates: u64,
    /// Times that entries were read from storage.
    pub reads: u64,
}

/// See the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Replica {
    config: Config,
    identity: Identity,
    /// When the identity is written again that could not be.
    identity_retry: Backoff,
    opens: Arc<crate::timeline::Opens>,
    rng: Rng,
    now: Instant,
    outputs: VecDeque<Output>,
    stats: Stats,
    next_number: u32,

    documents: BTreeMap<DocumentId, Box<Document>>,
    /// The documents by their current numbers.
    numbers: BTreeMap<u32, DocumentId>,
    links: BTreeMap<LinkId, Box<Link>>,
    /// When sessions and documents want to be woken.
    alarms: BTreeSet<(Instant, Alarm)>,
    /// Sessions whose replica id a newer session claims too, and that one.
    contests: BTreeMap<LinkId, LinkId>,

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

/// A place in a log, as long as the document has this number.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Reading {
    document: DocumentId,
    number: u32,
    from: u64,
}

/// What a ticket stands for.
#[derive(Clone, Debug, Hash)]
enum Asked {
    Identity,
    Load(DocumentId),
    Cursor(DocumentId, LinkId),
    /// The sessions that wait for these entries.
    Read(Reading, Vec<LinkId>),
    Compare(DocumentId, LinkId),
    /// Whether a peer's head of our ops is in our history.
    Own(DocumentId, LinkId, crate::heads::Head),
    Write(DocumentId),
    Reset(DocumentId),
    /// What was put aside from a place on, and then the chains in the log at the same ops.
    Aside(DocumentId, u64),
    AsideChains(DocumentId, u64, Vec<crate::op::Entry>),
    Peer(LinkId),
    Document(LinkId, DocumentId),
}

impl Replica {
    /// A replica with this identity, which its storage holds already (see
    /// [`Storage::open`](crate::storage::Storage::open)). `entropy` must come from the system: ids are drawn from it
    /// that no other replica, and no copy of this one, may draw.
    pub fn new(config: Config, identity: Identity, entropy: [u8; 32]) -> Self {
        let (base, cap) = config.retry;
        Self {
            config,
            identity_retry: Backoff::new(base, cap),
            opens: Arc::new(identity.opens.clone()),
            identity,
            rng: Rng::from_entropy(entropy),
            now: Instant::ZERO,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            next_number: 0,
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

    /// Whether appends of the app are on their way into the document's log: they are not yet durable, the storage failed
    /// and it is not known which of them are, or a reset put them aside and has not dealt with them.
    pub fn is_appending(&self, document: &DocumentId) -> bool {
        self.documents.get(document).is_some_and(|document| document.is_appending())
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
        if matches!(asked, Asked::Read(..) | Asked::Compare(..)) {
            self.reads -= 1;
            self.start_reads();
        }
        match (asked, reply) {
            (Asked::Identity, Ok(_)) => self.identity_retry.reset(),
            (Asked::Identity, Err(_)) => {
                let wait = self.identity_retry.fail(&mut self.rng);
                self.alarms.insert((self.now + wait, Alarm::Identity));
            }
            (Asked::Load(document), Ok(Reply::Document(stored))) => self.loaded(&document, stored),
            (Asked::Cursor(document, link), Ok(Reply::Cursor(cursor))) => self.attach_with(&document, link, cursor),
            (Asked::Read(reading, links), Ok(Reply::Entries(entries))) => self.read_done(&reading, links, entries),
            (Asked::Compare(document, link), Ok(Reply::Compared(comparison))) => {
                self.session_input_for(&document, link, |number| session::Input::Compared { number, comparison });
            }
            (Asked::Own(document, link, head), Ok(Reply::Chains(chains))) => {
                self.own_checked(&document, link, head, &chains);
            }
            (Asked::Write(document), Ok(_)) => self.written(document),
            (Asked::Reset(document), Ok(_)) => self.reset_done(&document),
            (Asked::Aside(document, from), Ok(Reply::Entries(entries))) => self.aside_read(&document, from, entries),
            (Asked::AsideChains(document, from, entries), Ok(Reply::Chains(chains))) => {
                self.salvage(&document, from, entries, &chains);
            }
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
            Some(Asked::Document(link, document)) => match answer {
                Ok(grant) => self.grant(link, &document, grant),
                Err((code, reason)) => self.deny(link, &document, code, reason),
            },
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
                Alarm::Contest(link) => self.contest_over(link),
                Alarm::Identity => self.write_identity(),
                Alarm::Document(document) => self.on_document_alarm(&document),
            }
            self.settle();
        }
    }
}

/// What is asked and not answered, in the order of the tickets. Most answers come in that order too.
#[derive(Clone, Debug, Default, Hash)]
struct Tickets {
    asked: VecDeque<(Ticket, Option<Asked>)>,
    answered: usize,
    issued: u64,
}

impl Tickets {
    fn issue(&mut self, asked: Asked) -> Ticket {
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.asked.push_back((ticket, Some(asked)));
        ticket
    }

    fn index(&self, ticket: Ticket) -> Option<usize> {
        if self.asked.front()?.0 == ticket {
            return Some(0);
        }
        self.asked.binary_search_by_key(&ticket, |(other, _)| *other).ok()
    }

    fn get(&self, ticket: Ticket) -> Option<&Asked> {
        self.asked.get(self.index(ticket)?)?.1.as_ref()
    }

    fn take(&mut self, ticket: Ticket) -> Option<Asked> {
        let index = self.index(ticket)?;
        if index > 0 {
            let asked = self.asked[index].1.take()?;
            self.answered += 1;
            self.forget_answered();
            return Some(asked);
        }
        let (_, asked) = self.asked.pop_front()?;
        while let Some((_, None)) = self.asked.front() {
            self.asked.pop_front();
            self.answered -= 1;
        }
        asked
    }

    /// A question that is never answered must not keep the places of all that follow.
    fn forget_answered(&mut self) {
        if self.answered > self.asked.len() / 2 {
            self.asked.retain(|(_, asked)| asked.is_some());
            self.answered = 0;
        }
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.asked.iter_mut().filter_map(|(_, asked)| asked.as_mut())
    }
}

impl Asked {
    fn document(self) -> Option<DocumentId> {
        match self {
            Self::Load(document)
            | Self::Cursor(document, _)
            | Self::Read(Reading { document, .. }, _)
            | Self::Compare(document, _)
            | Self::Own(document, ..)
            | Self::Write(document)
            | Self::Reset(document)
            | Self::Aside(document, _)
            | Self::AsideChains(document, ..) => Some(document),
            Self::Identity | Self::Peer(_) | Self::Document(..) => None,
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
            Input::Storage { ticket, reply } => self.on_storage(ticket, reply),
            Input::Answer { ticket, answer } => self.on_answer(ticket, answer),
            Input::Reset { document, link } => self.reset_by_app(&document, link)?,
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
