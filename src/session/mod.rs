//! Session: one link between two replicas, with many documents on it.
//!
//! A session holds no ops and no queue of work. For each document it keeps five observations (`sent`, `received` and
//! `acked` of my log; `taken` and `held` of the peer's) and derives from them what to send, what to ask and what to
//! acknowledge. Losing a frame, a slow disk and a reconnect are all the same to it: a number that did not move.
//!
//! The host (usually a [`Replica`](crate::Replica)) answers four questions: whether the peer may come in
//! ([`Output::Authenticate`]), whether to open what the peer opened ([`Event::PeerOpened`]), what stands in the log
//! ([`Output::Load`]), and what the peer's heads say about it ([`Output::Compare`]).

mod document;
mod flow;
mod handshake;
mod link;
mod outstanding;
mod receiving;
mod sending;
mod timer;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::codes::Code;
use crate::digest::state_digest;
use crate::heads::{Head, Heads};
use crate::log::{Chunk, Comparison, Log};
use crate::machine::Machine;
use crate::op::{Cursor, DocumentId, Op, ReplicaId, Timeline};
use crate::time::Instant;
use crate::timeline::History;
use crate::wire::control::Schema;
use crate::wire::{Access, Durability, Limits, Message, Packed, Ping, Point, Tag};

use document::Document;
use handshake::{Peer, Phase};
use link::Link;
use timer::{RoundTrip, Timer, Timers};

/// What carries the frames.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// Frames arrive whole, once and in order, or the link is gone: WebSockets, memory.
    Reliable,
    /// Frames may be lost, doubled, late or damaged. The largest has `mtu` bytes, at least 576.
    Datagram {
        /// Bytes of the largest frame.
        mtu: u16,
    },
}

/// How a session behaves. The defaults suit WebSockets between a server and its clients.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Config {
    /// What carries the frames.
    pub transport: Transport,
    /// What is taken from the peer at most. Stated in Hello; frames sent keep to `limits.frame` too.
    pub limits: Limits,
    /// What acknowledgements promise. Stated in Welcome.
    pub durability: Durability,
    /// How long an acknowledgement may wait for company. Default 25 ms.
    pub ack_delay: Duration,
    /// How long nothing may be heard before a Ping. Default 10 s.
    pub ping_after: Duration,
    /// How long nothing may be heard before the session ends. Default 25 s.
    pub silence_max: Duration,
    /// How long the handshake may take. Default 10 s.
    pub handshake_max: Duration,
}

/// Bytes that a peer may send before it is welcome.
pub const BYTES_BEFORE_WELCOME: u64 = 16 * 1024;

/// The smallest frame limit, of a peer or an MTU: control messages must fit.
pub const FRAME_BYTES_MIN: u32 = 576;

impl Default for Config {
    fn default() -> Self {
        Self {
            transport: Transport::Reliable,
            limits: Limits::default(),
            durability: Durability::default(),
            ack_delay: Duration::from_millis(25),
            ping_after: Duration::from_secs(10),
            silence_max: Duration::from_secs(25),
            handshake_max: Duration::from_secs(10),
        }
    }
}

impl Default for Limits {
    /// Frames of 64 KiB, ops of 32 MiB, 256 KiB outstanding a document and 1 MiB a link, 16,384 documents, 65,536
    /// authors a document.
    fn default() -> Self {
        Self { frame: 64 << 10, op: 32 << 20, window: 256 << 10, credit: 1 << 20, documents: 16_384, authors: 65_536 }
    }
}

/// Who this end is, as it says in Hello.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Local {
    /// The replica.
    pub replica: ReplicaId,
    /// The timeline of this open of the replica.
    pub timeline: Timeline,
    /// The timeline of the open before.
    pub previous: Option<Timeline>,
    /// 64 random bits, drawn for this session and no other.
    pub nonce: u64,
    /// Proof of who it is.
    pub token: Option<Bytes>,
}

/// A document that the host opens on the session: what it holds of it, durably, at this moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Opening {
    /// The host's number of the document in its current timeline: never reused, the same on all sessions.
    pub number: u32,
    /// The document.
    pub document: DocumentId,
    /// What to do with it. An end that opens for [`Access::Read`] sends no ops.
    pub access: Access,
    /// What the peer may do.
    pub grant: Access,
    /// Leave nothing out: what was known of the peer has proved wrong.
    pub thorough: bool,
    /// The schema of the bodies, if the app has one.
    pub schema: Option<Schema>,
    /// The document's timelines.
    pub history: History,
    /// The first position that is not only in a snapshot.
    pub horizon: u64,
    /// The position after the last entry.
    pub tail: u64,
    /// The heads at `tail`.
    pub heads: Arc<Heads>,
    /// How far the peer's log is held.
    pub cursor: Option<Cursor>,
}

impl Opening {
    /// Opens a document for both ends to write, with all that a log tells of it. How far the peer's log is held is not
    /// known, so that heads are exchanged; fill in [`cursor`](Self::cursor) if it was stored.
    pub fn of(log: &Log, document: DocumentId, number: u32) -> Self {
        Self {
            number,
            document,
            access: Access::Write,
            grant: Access::Write,
            thorough: false,
            schema: None,
            history: log.history().clone(),
            horizon: log.horizon(),
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: None,
        }
    }
}

/// What happens to a session.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Input {
    /// A frame came from the peer, whole.
    Received(Bytes),
    /// The transport takes this many more bytes. Before the first of these it takes any number.
    Writable {
        /// How many. Frames up to the smaller frame limit of both ends must fit in the long run.
        bytes: u64,
    },
    /// [`Machine::deadline`] has come.
    Timer,
    /// The host's answer to [`Output::Authenticate`]: come in, or a code and a reason.
    Authenticated(Result<(), (Code, String)>),
    /// The host opens a document, by itself or because the peer did.
    Open(Box<Opening>),
    /// The host does not open what the peer opened. If the peer has withdrawn meanwhile, nothing happens.
    Deny {
        /// The document.
        document: DocumentId,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// The host no longer has the document open on this session.
    Close {
        /// Its number.
        number: u32,
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
    },
    /// More is durable: of the document's log, of what was taken from the peer, or of both.
    Advance {
        /// The document.
        number: u32,
        /// The position after the last durable entry.
        tail: u64,
        /// The digest of the heads there.
        digest: u64,
        /// Everything of the peer's log below this position is durable here.
        held: u64,
        /// The entries between the tail before and this one; or nothing.
        live: Option<Live>,
    },
    /// The answer to [`Output::Load`]: at least one entry.
    Loaded {
        /// The document.
        number: u32,
        /// The entries.
        chunk: Chunk,
    },
    /// The answer to [`Output::Compare`].
    Compared {
        /// The document.
        number: u32,
        /// What the heads said.
        comparison: Comparison,
    },
    /// The host ends the session.
    Goodbye {
        /// Why.
        code: Code,
        /// Why, for people.
        reason: String,
        /// When the peer should come back, in milliseconds.
        retry_after: Option<u32>,
    },
}

/// Entries that have just become durable, as all sessions get them that have the document open.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Live {
    /// Packed once for all.
    Packed(Arc<[Packed]>),
    /// All from one position to before another came by this timeline of a peer's, who needs to hear nothing of them.
    Brought {
        /// The peer's timeline.
        by: Timeline,
        /// The first position.
        from: u64,
        /// The position after the last.
        to: u64,
    },
}

/// What a session wants done.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Output {
    /// Send this frame to the peer.
    Transmit(Bytes),
    /// Decide whether the peer may come in, and answer with [`Input::Authenticated`].
    Authenticate {
        /// Who it says it is.
        replica: ReplicaId,
        /// The timeline of its current open.
        timeline: Timeline,
        /// Its proof.
        token: Option<Bytes>,
    },
    /// Ops of the peer, in the order of its log. When they, and so its log below `to`, are durable, say so with
    /// [`Input::Advance`]. Those that are held already are to be left out, one that has a gap before it must not be
    /// applied: close the document with [`Code::AUTHOR_GAP`].
    Take {
        /// The document.
        number: u32,
        /// The peer's timeline that they come by.
        origin: Timeline,
        /// The peer's log below this was taken before.
        from: u64,
        /// The peer's log below this has been taken with these ops.
        to: u64,
        /// The ops.
        ops: Vec<Op>,
    },
    /// Read entries of the log from position `from` on, and answer with [`Input::Loaded`].
    Load {
        /// The document.
        number: u32,
        /// The first position.
        from: u64,
        /// What they may cost together, if they are more than one. At least one is needed.
        max_cost: u64,
    },
    /// Compare the log with the peer's heads, and answer with [`Input::Compared`].
    Compare {
        /// The document.
        number: u32,
        /// What the peer holds.
        heads: Arc<Heads>,
    },
    /// Something that the host will want to know.
    Event(Event),
}

impl Output {
    /// The document that it is about, if it is about one that the host has opened.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Take { number, .. } | Self::Load { number, .. } | Self::Compare { number, .. } => Some(*number),
            Self::Event(event) => event.number(),
            Self::Transmit(_) | Self::Authenticate { .. } => None,
        }
    }
}

impl Event {
    /// The document that it is about, if it is about one that the host has opened.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Opened { number, .. }
            | Self::Acknowledged { number, .. }
            | Self::InStep { number }
            | Self::Forked { number, .. }
            | Self::DocumentClosed { number, .. } => Some(*number),
            Self::Connected { .. } | Self::PeerOpened { .. } | Self::Released { .. } | Self::Closed(_) => None,
        }
    }
}

/// What a session tells its host.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// Both ends are welcome.
    Connected {
        /// The peer.
        replica: ReplicaId,
        /// What its acknowledgements promise.
        durability: Durability,
    },
    /// The peer opened a document that is not open here: answer with [`Input::Open`] or [`Input::Deny`].
    PeerOpened {
        /// The document.
        document: DocumentId,
        /// What the peer wants to do.
        access: Access,
        /// The schema of its bodies.
        schema: Option<Schema>,
    },
    /// The document is open at both ends.
    Opened {
        /// The document.
        number: u32,
        /// What the peer holds of the ops that this replica authored. If this replica does not know of some, it was set
        /// back or copied: it needs a new id, and the document is to be closed with [`Code::SET_BACK`] and opened again,
        /// thorough, before anything is sent.
        own: Head,
    },
    /// The peer has moved on in this log, or turned out to be ahead of 0 when the document was opened.
    Acknowledged {
        /// The document.
        number: u32,
        /// Everything below is durable at the peer.
        acked: u64,
    },
    /// Both ends hold the same: their heads have the same digest.
    InStep {
        /// The document.
        number: u32,
    },
    /// Authors have different histories at both ends.
    Forked {
        /// The document.
        number: u32,
        /// The authors.
        authors: Vec<ReplicaId>,
    },
    /// The document is no longer open on the session, and not because the host closed it.
    DocumentClosed {
        /// Its number.
        number: u32,
        /// Why; [`Code::retry`] says whether to open it again.
        code: Code,
        /// Why, for people.
        reason: String,
        /// Who closed it.
        by: By,
    },
    /// The peer knows that we closed this document: it can be opened again.
    Released {
        /// The document.
        document: DocumentId,
    },
    /// The session is over. Nothing follows.
    Closed(Ending),
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum By {
    /// This one.
    Us,
    /// The other one.
    Peer,
}

/// How a session ended.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Ending {
    /// Why.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
    /// When to come back, in milliseconds, if the peer said.
    pub retry_after: Option<u32>,
    /// Who ended it.
    pub by: By,
}

/// What the caller did wrong.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Misuse {
    /// No document with this number is open on the session.
    NotOpen(u32),
    /// The document, or another with this number, is open on the session, or its closing is not yet
    /// [`Event::Released`].
    AlreadyOpen(u32),
    /// The name of the schema has more than 64 bytes.
    SchemaTooLong,
    /// Nothing was asked that this would answer.
    NotAsked,
    /// A position is lower than one stated before, or beyond what was taken.
    Regressed,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen(number) => write!(f, "document {number} is not open on this session: open it first"),
            Self::AlreadyOpen(number) => write!(f, "document {number} is open on this session: close it first"),
            Self::SchemaTooLong => f.write_str("the name of a schema has at most 64 bytes: shorten it"),
            Self::NotAsked => f.write_str("nothing was asked that this answers: wait for the question"),
            Self::Regressed => f.write_str("a position goes back, or beyond what was taken: state what is durable"),
        }
    }
}

impl core::error::Error for Misuse {}

/// What went over a session, counted.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Stats {
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames among them that were sent before.
    pub frames_repeated: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames among them that were damaged, or of another session, or came when they meant nothing.
    pub frames_dropped: u64,
}

/// One link between two replicas. See the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Session {
    config: Config,
    local: Local,
    now: Instant,
    phase: Phase,
    /// The frame of our Hello.
    hello: Bytes,
    peer: Option<Box<Peer>>,
    /// A datagram's Hello with another nonce: a new session of the peer's, or an old one's late frame.
    candidate: Option<(u64, Tag)>,
    bytes_before_welcome: u64,
    link: Link,
    timers: Timers,
    round_trip: RoundTrip,
    ping: Option<(u64, Instant)>,
    pings: u64,
    /// How often what may be lost was repeated in vain.
    repeats: u32,
    last_heard: Instant,

    documents: BTreeMap<u32, Box<Document>>,
    /// How far the peer's logs were held when the session ended.
    held_at_end: BTreeMap<u32, Cursor>,
    numbers: BTreeMap<DocumentId, u32>,
    by_peer: BTreeMap<u32, u32>,
    /// Documents that the peer has open and we have not.
    waiting: BTreeMap<DocumentId, Box<crate::wire::Open>>,
    /// Documents that may have something to send, in turn.
    ready: BTreeSet<u32>,
    /// Who had a turn last.
    turn: u32,
    /// Documents whose heads the peer waits for.
    heads_out: BTreeSet<u32>,
    /// Documents that wait for credit or for room.
    blocked: BTreeSet<u32>,
    /// Documents whose acknowledgement is due.
    acks_due: BTreeSet<u32>,
    /// The peer waits for credit: with the next acknowledgement all windows are stated.
    restate: bool,
    /// A place whose acknowledgement measures the round trip, and when it was sent.
    timed: Option<(u32, (Point, Instant))>,
    /// Counts our Acks, Rewinds and Credits.
    acks: u64,
    /// The newest statement of the peer's credit, and its number.
    credit: (u64, u64),
    /// Cost outstanding in all documents.
    outstanding: u64,
    /// Cost taken and not durable in all documents.
    undurable: u64,
    /// The document and position of the op that goes in parts.
    parts_out: Option<(u32, u64)>,
    /// A document whose next op needs the link for itself. Meanwhile the others send nothing new.
    claim: Option<u32>,
    /// Bytes sent again since a moment: no more than a window a round trip, whatever the peer says is missing.
    repaired: (Instant, u64),
    /// The document of the op that comes in parts.
    parts_in: Option<u32>,
}

impl Session {
    /// A session on a link that has just come up. Its Hello is ready to be polled.
    pub fn new(now: Instant, config: Config, local: Local) -> Self {
        let mut config = config;
        config.limits.frame = config.limits.frame.max(FRAME_BYTES_MIN);
        if let Transport::Datagram { mtu } = &mut config.transport {
            *mtu = (*mtu).max(FRAME_BYTES_MIN as u16);
        }
        let hello = handshake::hello(&config, &local);
        let mut session = Self {
            link: Link::new(config.transport),
            config,
            local,
            now,
            phase: Phase::Greeting,
            hello,
            peer: None,
            candidate: None,
            bytes_before_welcome: 0,
            timers: Timers::new(),
            round_trip: RoundTrip::new(),
            ping: None,
            pings: 0,
            repeats: 0,
            last_heard: now,
            documents: BTreeMap::new(),
            held_at_end: BTreeMap::new(),
            numbers: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeSet::new(),
            turn: 0,
            heads_out: BTreeSet::new(),
            blocked: BTreeSet::new(),
            acks_due: BTreeSet::new(),
            restate: false,
            timed: None,
            acks: 0,
            credit: (0, 0),
            outstanding: 0,
            undurable: 0,
            parts_out: None,
            claim: None,
            repaired: (now, 0),
            parts_in: None,
        };
        session.greet();
        session
    }

    /// Who this end said it is.
    pub fn replica(&self) -> ReplicaId {
        self.local.replica
    }

    /// The peer, once its Hello is here.
    pub fn peer(&self) -> Option<ReplicaId> {
        self.peer.as_ref().map(|peer| peer.hello.replica)
    }

    /// The timeline of the peer's current open, once its Hello is here.
    pub fn peer_timeline(&self) -> Option<Timeline> {
        self.peer.as_ref().map(|peer| peer.hello.timeline)
    }

    /// What the peer gave as proof of who it is.
    pub(crate) fn peer_token(&self) -> Option<Bytes> {
        self.peer.as_ref().and_then(|peer| peer.hello.token.clone())
    }

    /// Whether the document was closed here and the peer has not answered.
    pub(crate) fn is_closing(&self, document: &DocumentId) -> bool {
        let number = self.numbers.get(document);
        number.and_then(|number| self.documents.get(number)).is_some_and(|document| document.is_closing())
    }

    /// Whether the peer has the document open and the host has not answered.
    pub(crate) fn is_waiting(&self, document: &DocumentId) -> bool {
        self.waiting.contains_key(document)
    }

    /// Whether both ends are welcome and the session is not over.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// How the session ended, if it has.
    pub fn ending(&self) -> Option<&Ending> {
        match &self.phase {
            Phase::Closed(ending) => Some(ending),
            _ => None,
        }
    }

    /// What went over the session so far.
    pub fn stats(&self) -> Stats {
        self.link.stats
    }

    /// The peer's timeline of a document that both ends have open, and how far it is taken: durable or on its way.
    pub fn taken(&self, number: u32) -> Option<Cursor> {
        let document = self.documents.get(&number)?;
        let (timeline, taken) = (document.peer_timeline()?, document.receiving.taken?);
        Some(Cursor { timeline, position: taken.position })
    }

    /// The peer's timeline of a document that both ends have open, and how far it is durable here. It can still be asked
    /// when the session is over.
    pub fn held(&self, number: u32) -> Option<Cursor> {
        match self.documents.get(&number) {
            Some(document) => document.held(),
            None => self.held_at_end.get(&number).copied(),
        }
    }

    /// Cost of what was sent and not yet received, and of what was taken and is not yet durable.
    pub fn under_way(&self) -> (u64, u64) {
        (self.outstanding, self.undurable)
    }

    /// Asks for a sign of life now, whenever something was last heard.
    pub(crate) fn probe(&mut self) {
        self.send_ping(false);
    }

    /// The canonical digest of the whole state: equal for sessions that will behave alike.
    pub fn state_digest(&self) -> u128 {
        state_digest(self)
    }

    fn send_ping(&mut self, blocked: bool) {
        self.pings += 1;
        self.ping = Some((self.pings, self.now));
        self.link.send(&Message::Ping(Ping { token: self.pings, blocked }));
    }

    fn event(&mut self, event: Event) {
        self.link.outputs.push_back(Output::Event(event));
    }

    fn on_timers(&mut self) {
        let now = self.now;
        if self.timers.fired(Timer::Handshake, now) && !self.is_live() {
            return self.end(Code::HANDSHAKE_TIMEOUT, "the handshake took too long");
        }
        if self.timers.fired(Timer::Silence, now) {
            if now.since(self.last_heard) >= self.config.silence_max {
                return self.end(Code::SILENT, "nothing was heard from the peer");
            }
            self.timers.set(Timer::Silence, self.last_heard + self.config.silence_max);
        }
        if self.timers.fired(Timer::Ping, now) {
            let due = self.last_heard + self.config.ping_after;
            if due <= now {
                self.link.rest();
                self.send_ping(false);
                self.timers.set(Timer::Ping, now + self.config.ping_after);
            } else {
                self.timers.set(Timer::Ping, due);
            }
        }
        self.on_repeat_timer();
        self.on_document_timers();
    }
}

impl Machine for Session {
    type Input = Input;
    type Output = Output;
    type Misuse = Misuse;

    fn handle(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        self.now = self.now.max(now);
        if matches!(self.phase, Phase::Closed(_)) {
            return Ok(());
        }
        match input {
            Input::Received(frame) => self.on_frame(frame),
            Input::Writable { bytes } => {
                self.link.room = bytes;
                self.wake_blocked();
            }
            Input::Timer => self.on_timers(),
            Input::Authenticated(answer) => self.on_authenticated(answer)?,
            Input::Open(opening) => self.open(*opening)?,
            Input::Deny { document, code, reason } => self.deny(document, code, reason),
            Input::Close { number, code, reason } => self.close(number, code, reason)?,
            Input::Advance { number, tail, digest, held, live } => self.advance(number, tail, digest, held, live)?,
            Input::Loaded { number, chunk } => self.loaded(number, chunk)?,
            Input::Compared { number, comparison } => self.compared(number, comparison)?,
            Input::Goodbye { code, reason, retry_after } => {
                self.finish(Ending { code, reason, retry_after, by: By::Us });
            }
        }
        self.pump();
        self.arm_repeat();
        Ok(())
    }

    fn poll(&mut self) -> Option<Output> {
        self.link.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Closed(_)) { None } else { self.timers.next() }
    }
}
