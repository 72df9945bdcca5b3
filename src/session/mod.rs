//! Session: one link between two replicas, with many documents on it.
//!
//! A session holds no ops and no queue of work. For each document it keeps five observations (`sent`, `received` and
//! `acked` of my log; `taken` and `held` of the peer's) and derives from them what to send, what to ask and what to
//! acknowledge. Losing a frame, a slow disk and a reconnect are all the same to it: a number that did not move.
//!
//! The host (usually a [`Replica`](crate::Replica)) answers four questions: whether the peer may come in
//! ([`Output::Authenticate`]), whether to open what the peer opened ([`Event::PeerOpened`]), what stands in the log
//! ([`Output::Load`]), and what the peer's heads say about it ([`Output::Compare`]).

mod config;
mod document;
mod flow;
mod handshake;
mod heads;
mod interface;
mod link;
mod outstanding;
mod receiving;
mod sending;
mod snapshots;
mod start;
mod taking;
mod timer;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::codes::Code;
use crate::digest::state_digest;
use crate::machine::Machine;
use crate::op::{Cursor, DocumentId, Origin, ReplicaId, Timeline};
use crate::small::SmallMap;
use crate::time::Instant;
use crate::wire::{Access, Durability, Message, Ping, Point, Tag};

pub use config::{BYTES_BEFORE_WELCOME, Config, FRAME_BYTES_MIN, Local, Transport};
pub use interface::{By, Ending, Event, Frontiers, Input, Live, Misuse, Opening, Output, Stage, Standing, Stats};

use document::Document;
use handshake::{Peer, Phase};
use link::Link;
use timer::{RoundTrip, Timer, Timers};

/// One link between two replicas. See the [module](self).
#[derive(Clone, Debug, Hash)]
pub struct Session {
    config: Config,
    local: Local,
    now: Instant,
    phase: Phase,
    peer: Option<Box<Peer>>,
    /// A datagram's Hello with another nonce: a new session of the peer's, or an old one's late frame.
    candidate: Option<(u64, Tag)>,
    /// The nonces of Hellos that were answered before another took their place.
    left: Vec<u64>,
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
    by_peer: SmallMap<u32, u32>,
    /// Documents that the peer has open and we have not.
    waiting: BTreeMap<DocumentId, Box<crate::wire::Open>>,
    /// Documents that may have something to send, in turn.
    ready: BTreeSet<u32>,
    /// Who had a turn last.
    turn: u32,
    /// Documents whose heads the peer waits for.
    heads_out: BTreeSet<u32>,
    /// Documents of whose snapshot the peer waits for bytes that are here.
    snapshots_out: BTreeSet<u32>,
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
    /// The turn of the peer's changes, as its control messages tell, and whether a Close came since it began.
    peer_turn: (u32, bool),
}

impl Session {
    /// A session on a link that has just come up. Its Hello is ready to be polled.
    pub fn new(now: Instant, config: Config, local: Local) -> Self {
        let mut config = config;
        config.limits.frame = config.limits.frame.max(FRAME_BYTES_MIN);
        if let Transport::Datagram { mtu } = &mut config.transport {
            *mtu = (*mtu).max(FRAME_BYTES_MIN as u16);
        }
        let mut session = Self {
            link: Link::new(config.transport),
            config,
            local,
            now,
            phase: Phase::Greeting,
            peer: None,
            candidate: None,
            left: Vec::new(),
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
            by_peer: SmallMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeSet::new(),
            turn: 0,
            heads_out: BTreeSet::new(),
            snapshots_out: BTreeSet::new(),
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
            peer_turn: (0, false),
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

    /// The timeline of the peer's open before, as it says.
    pub(crate) fn peer_previous(&self) -> Option<Timeline> {
        self.peer.as_ref().and_then(|peer| peer.hello.previous)
    }

    /// What the peer's acknowledgements promise, once its Welcome is here.
    pub fn peer_durability(&self) -> Option<Durability> {
        self.peer.as_ref().and_then(|peer| peer.durability())
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

    /// Where it is on its way from its first frame to its last.
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Greeting => Stage::Greeting,
            Phase::Asking => Stage::Asking,
            Phase::Welcoming => Stage::Welcoming,
            Phase::Live => Stage::Live,
            Phase::Closed(_) => Stage::Closed,
        }
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

    /// Whether the document is open at both ends, and the peer only reads it.
    pub(crate) fn peer_only_reads(&self, number: u32) -> bool {
        self.documents.get(&number).is_some_and(|document| document.is_open() && document.peer_access == Access::Read)
    }

    /// The peer's timeline of a document that both ends have open, and how far it is taken: durable or on its way.
    pub fn taken(&self, number: u32) -> Option<Cursor> {
        let document = self.documents.get(&number)?;
        let (timeline, taken) = (document.peer_timeline()?, document.receiving.taken?);
        Some(Cursor { timeline, position: taken.position })
    }

    /// Where what the peer sends of a document comes from, while both ends have it open.
    pub(crate) fn origin(&self, number: u32) -> Option<Origin> {
        Some(self.documents.get(&number)?.theirs.as_ref()?.origin)
    }

    /// The peer's timeline of a document that both ends have open, and how far it is durable here: nothing if the peer only
    /// reads. It can still be asked when the session is over.
    pub fn held(&self, number: u32) -> Option<Cursor> {
        match self.documents.get(&number) {
            Some(document) => document.held(),
            None => self.held_at_end.get(&number).copied(),
        }
    }

    /// The documents that both ends have open, by the host's numbers.
    pub fn documents(&self) -> impl Iterator<Item = (u32, &DocumentId)> {
        let open = self.documents.iter().filter(|(_, document)| document.is_open());
        open.map(|(number, document)| (*number, &document.id))
    }

    /// How far a document is, once both ends know where they start.
    pub fn frontiers(&self, number: u32) -> Option<Frontiers> {
        let Document { sending, receiving, .. } = &**self.documents.get(&number)?;
        let taken = receiving.taken.filter(|_| sending.started.is_some())?;
        let (sent, received, acked) = (sending.sent, sending.received, sending.acked);
        Some(Frontiers { sent, received, acked, taken, held: receiving.held })
    }

    /// How a document stands, if both ends have it open.
    pub fn standing(&self, number: u32) -> Option<Standing> {
        let document = self.documents.get(&number).filter(|document| document.is_open())?;
        let (sending, receiving) = (&document.sending, &document.receiving);
        let level = (receiving.held, sending.tail, document.digest);
        let told = document.peer_level.map_or(0, |(_, tail, _)| tail);
        let known = receiving.taken.map_or(0, |taken| taken.position).max(told);
        Some(Standing {
            in_step: document.in_step == Some(level),
            unacknowledged: sending.tail.saturating_sub(sending.acked),
            unheld: known.saturating_sub(receiving.held),
        })
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
            Input::SnapshotRead { number, bytes } => self.snapshot_read(number, bytes)?,
            Input::WantSnapshot { number, offset, bytes } => self.want_snapshot(number, offset, bytes)?,
            Input::ImmediateAck { number } => self.want_ack(number)?,
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
