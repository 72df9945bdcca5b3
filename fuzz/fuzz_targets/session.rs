//! One session against a peer of which half the frames are honest: whatever comes, in whatever order, the laws hold.
//!
//! The bytes are a list of steps. Most runs begin with a handshake that two sessions complete by themselves; then
//! frames are delivered, lost, doubled, damaged and invented, timers fire at odd times, and the host answers what was
//! asked and what was not. Bytes that have run out read as zero, so that every input is a run.

#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use antiphon::codes::{Code, Fault, Retry};
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Heads, Judgement};
use antiphon::log::{Chunk, Comparison, Log};
use antiphon::op::{Body, Cursor, DocumentId, OP_OVERHEAD, Op, OpId, ReplicaId, Timeline};
use antiphon::session::{By, Config, Event, Input, Live, Local, Opening, Output, Session, Transport};
use antiphon::timeline::Opens;
use antiphon::wire::changes::pack;
use antiphon::wire::control::pack_heads;
use antiphon::wire::{
    Access, Ack, Announce, Changes, Confirm, Content, Credit, Farewell, Fork, HeadsPart, Level, Limits, Message, Open,
    OwnTimelines, Ping, Point, Pong, Resume, Rewind, Skip, SnapshotPart, Tag,
};
use antiphon::wire::{End as Ended, Run as OpRun};
use antiphon::{Instant, Machine};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Documents of both ends; the subject's numbers are 0 to 2, the peer's 10 to 12.
const NAMES: [&str; 3] = ["one", "two", "three"];
const STEPS_MAX: usize = 200;
const REOPENINGS_MAX: u32 = 20;
/// Loads without a frame between them, if each brings the session forward: no log here has so many entries.
const LOADS_MAX: u32 = 500;

/// Codes with which a session may close a document though bytes of the peer led to it and the fault stands as its own:
/// that a cursor lies beyond the log's tail is what a log that has lost its tail looks like, and a peer that lies.
const UNDECIDABLE: &[Code] = &[Code::TAIL_LOST];

static RUNS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

fuzz_target!(|data: &[u8]| {
    let mut run = Run::new(Reader(data));
    run.steps();
    let live = LIVE.fetch_add(u64::from(run.was_live), Relaxed) + u64::from(run.was_live);
    let runs = RUNS.fetch_add(1, Relaxed) + 1;
    if runs.is_power_of_two() && runs >= 1 << 12 {
        eprintln!("{live} of {runs} runs had a live session");
    }
});

/// The input, read as numbers.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Mostly small, so that it means something; sometimes at an edge.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=0xdf => u64::from(small % 32),
            0xe0..=0xe7 => u64::from(u32::MAX),
            0xe8..=0xef => (u64::MAX >> 2) - u64::from(self.byte() % 2),
            0xf0..=0xf7 => u64::MAX,
            _ => self.u64(),
        }
    }

    fn bytes(&mut self) -> Bytes {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }
}

/// What led to an output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    Peer,
    Timer,
    /// The host, which does nothing that ends a session.
    Host,
    /// The host, which ends the session or refuses the peer.
    HostEnds,
}

/// A session with a host that answers at once, or later.
struct End {
    name: &'static str,
    session: Session,
    heard_at: Instant,
    replica: ReplicaId,
    timeline: Timeline,
    documents: BTreeMap<u32, (Log, Option<Cursor>)>,
    credit: u64,
    op: u64,
    outbox: VecDeque<Bytes>,
    /// Frames sent before, for replays.
    history: VecDeque<Bytes>,
    /// Questions that the host has not answered.
    questions: VecDeque<Output>,
    defers: bool,
    reopenings: u32,
    loads: u32,
    closed: bool,
}

struct Run<'a> {
    input: Reader<'a>,
    now: Instant,
    subject: End,
    peer: End,
    datagram: bool,
    nonces: (u64, u64),
    /// Somebody broke the protocol: accusations may be right.
    dishonest: bool,
    was_live: bool,
    traced: bool,
}

impl End {
    fn new(name: &'static str, config: Config, nonce: u64, input: &mut Reader<'_>) -> Self {
        let id = nonce as u8;
        let replica = ReplicaId([id; 16]);
        let mut opens = Opens::first(Timeline::new(u64::from(id) << 8 | 1));
        opens.reopen(Timeline::new(u64::from(id) << 8 | 2));
        let (timeline, previous) = (opens.current(), opens.previous());
        let local = Local { replica, timeline, previous, nonce, token: None };
        let opens = Arc::new(opens);
        let first = if id == 1 { 0 } else { 10 };
        let documents = (first..).take(NAMES.len()).map(|number| (number, (Log::new(opens.clone()), None))).collect();
        let (credit, op) = (u64::from(config.limits.credit), u64::from(config.limits.op));
        let defers = input.below(4) == 3;
        let session = Session::new(Instant::ZERO, config, local);
        Self {
            name,
            session,
            heard_at: Instant::ZERO,
            replica,
            timeline,
            documents,
            credit,
            op,
            outbox: VecDeque::new(),
            history: VecDeque::new(),
            questions: VecDeque::new(),
            defers,
            reopenings: 0,
            loads: 0,
            closed: false,
        }
    }

    fn first(&self) -> u32 {
        self.documents.keys().next().copied().unwrap_or(0)
    }

    fn opening(&self, number: u32, thorough: bool) -> Option<Input> {
        let (log, cursor) = self.documents.get(&number)?;
        let name = NAMES[(number - self.first()) as usize];
        Some(Input::Open(Box::new(Opening {
            number,
            document: DocumentId::new(name, "main", "global").ok()?,
            access: Access::Write,
            grant: Access::Write,
            thorough,
            schema: None,
            history: log.history().clone(),
            horizon: 0,
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: *cursor,
        })))
    }

    fn number_of(&self, document: &DocumentId) -> Option<u32> {
        let index = NAMES.iter().position(|name| *name == document.name())?;
        Some(self.first() + index as u32)
    }
}

impl<'a> Run<'a> {
    fn new(mut input: Reader<'a>) -> Self {
        let shape = input.byte();
        let datagram = shape & 1 == 1;
        let transport = if datagram {
            Transport::Datagram { mtu: if shape & 2 == 2 { 576 } else { 1200 } }
        } else {
            Transport::Reliable
        };
        let limits = match input.below(4) {
            0 => Limits::default(),
            1 => Limits { frame: 600, op: 4000, window: 1000, credit: 2000, ..Limits::default() },
            2 => Limits { frame: 576, op: 100, window: 150, credit: 150, documents: 2, authors: 2 },
            _ => Limits { op: 64 << 10, window: 8000, credit: 5000, ..Limits::default() },
        };
        let config = Config { transport, limits, ..Config::default() };
        let subject = End::new("subject", config.clone(), 1, &mut input);
        let peer = End::new("peer", config, 2, &mut input);
        let mut run = Self {
            input,
            now: Instant::ZERO,
            subject,
            peer,
            datagram,
            nonces: (1, 2),
            dishonest: false,
            was_live: false,
            traced: std::env::var_os("TRACE").is_some(),
        };
        run.shared_past();
        run
    }

    /// Ops that both ends hold from before, with cursors or without.
    fn shared_past(&mut self) {
        for index in 0..NAMES.len() as u32 {
            let kind = self.input.byte();
            let count = u64::from(kind % 8);
            let (Some(one), Some(two)) =
                (self.subject.documents.get_mut(&index), self.peer.documents.get_mut(&(10 + index)))
            else {
                continue;
            };
            for seq in 1..=count {
                // Nobody sends ops over the limit that both ends have.
                let len = if kind & 0x40 != 0 && seq == 3 { 700.min(self.subject.op as usize) } else { seq as usize };
                let body = Body::Bytes(vec![seq as u8; len].into());
                let id = OpId { author: self.peer.replica, seq };
                two.0.take(Op { id, body: body.clone() }, None);
                if seq <= u64::from(kind >> 3 & 7) {
                    one.0.take(Op { id, body }, Some(self.peer.timeline));
                    one.1 = Some(Cursor { timeline: self.peer.timeline, position: seq });
                }
            }
            if kind & 0x80 != 0 {
                one.0.append(self.subject.replica, Body::Bytes(Bytes::from_static(b"mine")));
            }
        }
    }

    fn end(&mut self, subject: bool) -> &mut End {
        if subject { &mut self.subject } else { &mut self.peer }
    }

    /// Hands an input to one end and looks at all that comes of it.
    fn feed(&mut self, subject: bool, input: Input, cause: Cause) {
        let now = self.now;
        self.trace(subject, || match &input {
            Input::Received(frame) => format!("<- {}", self.told(frame)),
            other => format!("   {other:?}"),
        });
        let end = self.end(subject);
        let before = (end.session.state_digest(), std::mem::replace(&mut end.heard_at, now));
        if end.session.handle(now, input).is_err() {
            assert_ne!(cause, Cause::Peer, "the peer's bytes are no misuse of the host's");
            // But for the time, which a misuse tells as well as any other call.
            assert!(end.session.state_digest() == before.0 || before.1 != now, "misuse changed the session");
        }
        self.drain(subject, cause);
    }

    /// Prints what happens, to those who look into one input with `TRACE=1`.
    fn trace(&self, subject: bool, line: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{} {} {}", self.now, if subject { "subject" } else { "peer   " }, line());
        }
    }

    fn told(&self, frame: &Bytes) -> String {
        let (one, two) = self.nonces;
        let unseal = |tag: Tag| tag.unseal(frame).filter(|_| self.datagram);
        let inner = unseal(Tag::new(one, two)).or_else(|| unseal(Tag::new(two, one))).or_else(|| unseal(Tag::NONE));
        let frame = inner.as_ref().unwrap_or(frame);
        match Message::decode(frame) {
            Ok(Message::Reliable(number, inner)) => format!("{number}: {:?}", Message::decode(&inner)),
            Ok(message) => format!("{message:?}"),
            Err(malformed) => format!("{malformed}: {frame:02x?}"),
        }
    }

    fn drain(&mut self, subject: bool, cause: Cause) {
        while let Some(output) = self.end(subject).session.poll() {
            self.trace(subject, || match &output {
                Output::Transmit(frame) => format!("-> {}", self.told(frame)),
                other => format!("=> {other:?}"),
            });
            let end = self.end(subject);
            assert!(!end.closed, "{} says {output:?} after it was closed", end.name);
            match output {
                Output::Transmit(frame) => {
                    end.loads = 0;
                    if end.history.len() == 16 {
                        end.history.pop_front();
                    }
                    end.history.push_back(frame.clone());
                    end.outbox.push_back(frame);
                }
                Output::Event(event) => self.event(subject, event, cause),
                question => {
                    end.loads += u32::from(matches!(question, Output::Load { .. }));
                    assert!(end.loads < LOADS_MAX, "the host is asked for entries again and again");
                    end.questions.push_back(question);
                }
            }
        }
        self.check(subject);
        while !self.end(subject).defers {
            let Some(question) = self.end(subject).questions.pop_front() else { break };
            self.answer(subject, question);
        }
    }

    fn event(&mut self, subject: bool, event: Event, cause: Cause) {
        let (dishonest, end) = (self.dishonest, self.end(subject));
        let judge = |code: Code| {
            let fault = code.fault();
            let own = cause == Cause::HostEnds || UNDECIDABLE.contains(&code);
            assert!(own || fault != Fault::Sender, "{code}, by {cause:?}, is said to be our own fault");
            assert!(own || dishonest || fault != Fault::Peer, "{code}, by {cause:?}, accuses an honest peer");
        };
        match event {
            Event::Closed(ending) => {
                end.closed = true;
                if ending.by == By::Us {
                    judge(ending.code);
                }
            }
            Event::DocumentClosed { number, code, by, .. } => {
                if by == By::Us {
                    judge(code);
                }
                // What was closed here can be opened again once the peer knows.
                if by == By::Peer && code.retry() == Retry::Now && end.reopenings < REOPENINGS_MAX {
                    end.reopenings += 1;
                    if let Some(opening) = end.opening(number, code != Code::DONE) {
                        self.feed(subject, opening, Cause::Host);
                    }
                }
            }
            Event::PeerOpened { document, .. } => {
                let number = end.number_of(&document);
                let input = number.and_then(|number| end.opening(number, false));
                let (code, reason) = (Code::UNKNOWN_DOCUMENT, String::new());
                self.feed(subject, input.unwrap_or(Input::Deny { document, code, reason }), Cause::Host);
            }
            Event::Released { document } => {
                let reopen = end.number_of(&document).filter(|_| end.reopenings < REOPENINGS_MAX);
                end.reopenings += 1;
                if let Some(opening) = reopen.and_then(|number| end.opening(number, true)) {
                    self.feed(subject, opening, Cause::Host);
                }
            }
            Event::Connected { .. } => self.was_live |= subject,
            _ => {}
        }
    }

    /// What holds after every input.
    fn check(&mut self, subject: bool) {
        let end = self.end(subject);
        let (outstanding, undurable) = end.session.under_way();
        // A lone op may be over the window, and one more may have been arriving in parts when it came.
        assert!(undurable <= end.credit + 2 * (end.op + OP_OVERHEAD), "{undurable} taken and not durable");
        let logs: u64 = end.documents.values().map(|(log, _)| log.cost()).sum();
        assert!(outstanding <= logs, "{outstanding} outstanding of {logs} in all logs");
        for number in end.documents.keys() {
            if let (Some(taken), Some(held)) = (end.session.taken(*number), end.session.held(*number)) {
                assert!(held.position <= taken.position, "held {held:?}, taken {taken:?}");
            }
        }
    }

    /// The host's answer to one question.
    fn answer(&mut self, subject: bool, question: Output) {
        let end = self.end(subject);
        let input = match question {
            Output::Authenticate { .. } => Input::Authenticated(Ok(())),
            Output::Load { number, from, max_cost } => {
                let chunk = end.documents.get_mut(&number).and_then(|(log, _)| log.read(from, max_cost.min(2000)));
                let Some(chunk) = chunk else { return };
                Input::Loaded { number, chunk }
            }
            Output::Compare { number, heads } => {
                let Some((log, _)) = end.documents.get(&number) else { return };
                let Some(comparison) = log.compare(&heads) else { return };
                Input::Compared { number, comparison }
            }
            Output::Take { number, origin, to, ops, .. } => {
                let Some((log, cursor)) = end.documents.get_mut(&number) else { return };
                let mut gap = false;
                for op in ops {
                    gap |= log.take(op, Some(origin)) == Judgement::Gap;
                    if gap {
                        break;
                    }
                }
                if gap {
                    let (code, reason) = (Code::AUTHOR_GAP, String::new());
                    self.feed(subject, Input::Close { number, code, reason }, Cause::Host);
                    return;
                }
                *cursor = Some(Cursor { timeline: origin, position: to });
                self.advance(subject, number, to);
                return;
            }
            _ => return,
        };
        self.feed(subject, input, Cause::Host);
    }

    fn advance(&mut self, subject: bool, number: u32, held: u64) {
        let end = self.end(subject);
        let Some((log, _)) = end.documents.get(&number) else { return };
        let input = Input::Advance { number, tail: log.tail(), digest: log.heads().digest(), held, live: None };
        self.feed(subject, input, Cause::Host);
    }

    /// The host writes an op.
    fn write(&mut self, subject: bool) {
        let index = u32::from(self.input.below(NAMES.len() as u8));
        let len = match self.input.byte() {
            byte @ 0..0xe0 => usize::from(byte % 24),
            byte => usize::from(byte) * 10,
        };
        let live = self.input.flag();
        let end = self.end(subject);
        let len = len.min(end.op as usize);
        let number = end.first() + index;
        let (replica, held) = (end.replica, end.session.held(number).map_or(0, |held| held.position));
        let Some((log, _)) = end.documents.get_mut(&number) else { return };
        let (from, begins) = (log.tail(), log.history().current().begins);
        log.append(replica, Body::Bytes(vec![len as u8; len].into()));
        let (tail, digest) = (log.tail(), log.heads().digest());
        let packed = log.read(from, u64::MAX).filter(|_| live).and_then(|chunk| {
            let ops = chunk.entries.iter().map(|entry| &entry.op);
            pack(number, begins, from, ops, |id| chunk.authors[&id], 60_000, |_| tail)
        });
        let live = packed.map(|(packed, _)| Live::Packed([packed].into()));
        self.feed(subject, Input::Advance { number, tail, digest, held, live }, Cause::Host);
    }

    /// Delivers the oldest frame on its way to one end.
    fn deliver(&mut self, to_subject: bool) -> bool {
        let Some(frame) = self.end(!to_subject).outbox.pop_front() else { return false };
        self.feed(to_subject, Input::Received(frame), Cause::Peer);
        true
    }

    fn exchange(&mut self) {
        for _ in 0..40 {
            let (there, back) = (self.deliver(true), self.deliver(false));
            if !there && !back {
                return;
            }
        }
    }

    fn steps(&mut self) {
        self.drain(true, Cause::Host);
        self.drain(false, Cause::Host);
        let beginning = self.input.byte();
        if beginning % 8 != 7 {
            for subject in [true, false] {
                let defers = std::mem::replace(&mut self.end(subject).defers, false);
                for index in 0..2 {
                    if beginning >> (3 + index) & 1 == 0 {
                        let end = self.end(subject);
                        let Some(opening) = end.opening(end.first() + index, beginning & 0x40 != 0) else { continue };
                        self.feed(subject, opening, Cause::Host);
                    }
                }
                self.exchange();
                self.end(subject).defers = defers;
            }
        }
        for _ in 0..STEPS_MAX {
            if self.input.0.is_empty() || self.subject.closed {
                return;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        match self.input.byte() % 20 {
            0 | 1 => drop(self.deliver(true)),
            2 | 3 => drop(self.deliver(false)),
            4 => self.exchange(),
            5 => self.write(true),
            6 => self.write(false),
            7 => self.replay(),
            8 => self.damage(),
            9 => {
                let frame = self.input.bytes();
                self.invent(frame);
            }
            10..=12 => {
                let message = self.message();
                self.invent(message.encode());
            }
            13 => self.lose(),
            14 | 15 => {
                let wait = u64::from(self.input.byte()).pow(2) * 500;
                self.now = self.now + Duration::from_micros(wait);
                let subject = self.input.byte() % 4 != 3;
                self.feed(subject, Input::Timer, Cause::Timer);
            }
            16 => self.answer_later(),
            17 => {
                let bytes = if self.input.flag() { u64::MAX } else { self.input.number().saturating_mul(100) };
                self.feed(true, Input::Writable { bytes }, Cause::Host);
            }
            18 => self.use_legally(),
            _ => self.misuse(),
        }
    }

    /// A frame of before once more: that is no fault on a datagram link.
    fn replay(&mut self) {
        let index = usize::from(self.input.byte());
        let to_subject = self.datagram && self.input.flag() || !self.datagram;
        let history = &self.end(!to_subject).history;
        if history.is_empty() {
            return;
        }
        let frame = history[index % history.len()].clone();
        self.dishonest |= !self.datagram;
        self.feed(to_subject, Input::Received(frame), Cause::Peer);
    }

    /// The next frame with some of its bytes changed, on its way or before it was sealed.
    fn damage(&mut self) {
        let Some(frame) = self.peer.outbox.pop_front() else { return };
        let resealed = self.input.flag();
        let tag = Tag::new(self.nonces.1, self.nonces.0);
        let inner = if self.datagram && resealed { tag.unseal(&frame) } else { None };
        let mut bytes = inner.clone().unwrap_or(frame).to_vec();
        for _ in 0..=self.input.below(3) {
            let at = usize::from(self.input.byte()) % bytes.len().max(1);
            let byte = self.input.byte();
            match self.input.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ if at < bytes.len() => bytes[at] ^= byte,
                _ => {}
            }
        }
        match inner {
            Some(_) => self.invent(bytes.into()),
            None => {
                self.dishonest |= !self.datagram;
                self.feed(true, Input::Received(bytes.into()), Cause::Peer);
            }
        }
    }

    /// A frame that the peer never sent, with the right seal.
    fn invent(&mut self, frame: Bytes) {
        self.dishonest = true;
        let frame = if self.datagram { Tag::new(self.nonces.1, self.nonces.0).seal(&frame) } else { frame };
        self.feed(true, Input::Received(frame), Cause::Peer);
    }

    fn lose(&mut self) {
        if self.datagram {
            let from_peer = self.input.flag();
            self.end(!from_peer).outbox.pop_front();
        }
    }

    fn answer_later(&mut self) {
        let subject = self.input.flag();
        let end = self.end(subject);
        end.defers = !end.defers;
        if let Some(question) = end.questions.pop_front() {
            self.answer(subject, question);
        }
    }

    /// What a host may do at any time.
    fn use_legally(&mut self) {
        let index = u32::from(self.input.below(NAMES.len() as u8));
        let subject = self.input.flag();
        let kind = self.input.below(3);
        let end = self.end(subject);
        let number = end.first() + index;
        let input = match kind {
            0 => Some(Input::Close { number, code: Code::DONE, reason: String::new() }),
            1 => end.opening(number, false),
            _ => end.opening(number, true),
        };
        if let Some(input) = input {
            self.feed(subject, input, Cause::Host);
        }
    }

    /// What no host should do: an error at the call at most, never the end of the session.
    fn misuse(&mut self) {
        self.dishonest = true;
        let number = self.input.number() as u32;
        let reason = String::from("a reason");
        let mut cause = Cause::Host;
        let input = match self.input.below(8) {
            0 => Input::Authenticated(Ok(())),
            1 => {
                cause = Cause::HostEnds;
                Input::Authenticated(Err((Code::UNAUTHENTICATED, reason)))
            }
            2 => Input::Deny { document: self.document(), code: Code::FORBIDDEN, reason },
            3 => {
                let (tail, digest, held) = (self.input.number(), self.input.number(), self.input.number());
                let number = number % 3;
                // A tail that was never written is a lie that nobody can notice: the log is the host's.
                let tail = tail.min(self.subject.documents[&number].0.tail());
                Input::Advance { number, tail, digest, held, live: None }
            }
            4 => {
                let from = self.input.number() % 8;
                let end = &mut self.subject;
                let Some((log, _)) = end.documents.get_mut(&(number % 3)) else { return };
                let chunk = log.read(from, u64::from(self.input.byte()) * 8);
                let empty = Chunk { from, entries: Vec::new(), authors: BTreeMap::new() };
                Input::Loaded { number: number % 3, chunk: chunk.unwrap_or(empty) }
            }
            5 => {
                let forks = (0..self.input.below(80)).map(|id| ReplicaId([id; 16])).collect();
                let mut comparison = Comparison::new(self.input.number() % 32);
                comparison.forks = forks;
                Input::Compared { number: number % 3, comparison }
            }
            6 => Input::Close { number, code: Code(self.input.number() as u16), reason },
            _ => {
                if self.input.below(4) != 0 {
                    return;
                }
                cause = Cause::HostEnds;
                Input::Goodbye { code: Code::SHUTDOWN, reason, retry_after: None }
            }
        };
        self.feed(true, input, cause);
    }

    fn document(&mut self) -> DocumentId {
        let names = ["one", "two", "three", "four"];
        let name = names[usize::from(self.input.below(4))];
        DocumentId::new(name, "main", "global").unwrap()
    }

    /// A number of one of the documents, the subject's or the peer's.
    fn document_number(&mut self) -> u32 {
        match self.input.below(16) {
            byte @ 0..6 => u32::from(byte % 3),
            byte @ 6..15 => 10 + u32::from(byte % 3),
            _ => self.input.number() as u32,
        }
    }

    fn point(&mut self) -> Point {
        let position = self.input.number();
        let offset = if self.input.byte() % 4 == 3 { self.input.number() as u32 } else { 0 };
        Point { position, offset }
    }

    /// A message that might well come at some time, but not now.
    fn message(&mut self) -> Message {
        let document = self.document_number();
        let number = self.input.number();
        let input = &mut self.input;
        match input.below(22) {
            0 | 1 => {
                let received = self.point();
                let input = &mut self.input;
                let skip = input.flag().then(|| Skip {
                    document: 10 + number as u32 % 3,
                    from: input.number(),
                    to: input.number(),
                });
                let level = input.flag().then(|| Level { tail: input.number(), digest: input.number() });
                let (held, window, credit) =
                    (input.number(), input.number().saturating_mul(50), input.number().saturating_mul(50));
                Message::Ack(Ack { document, number, received, held, window, credit, skip, level })
            }
            2 | 3 => {
                let (received, from) = (self.point(), self.point());
                let to = self.input.flag().then(|| self.point());
                Message::Rewind(Rewind { document, number, received, from, to })
            }
            4 => Message::Credit(Credit { number, total: input.number().saturating_mul(100) }),
            5 => Message::Ping(Ping { token: number, blocked: input.flag() }),
            6 => Message::Pong(Pong { token: number }),
            7 => {
                let author = ReplicaId([input.below(6); 16]);
                Message::Author(Announce { document, number: input.number() as u32, author, base: number })
            }
            8 => {
                let heads: Heads = (1..=input.below(4))
                    .map(|id| (ReplicaId([id; 16]), Head { seq: 1 + number % 8, chain: Chain(number) }))
                    .collect();
                let offset = input.number() as u32 % 4;
                Message::Heads(HeadsPart {
                    document,
                    offset,
                    last: input.flag(),
                    heads: pack_heads(heads.iter(), 500).0,
                })
            }
            9 => Message::Resume(Resume { document, from: input.flag().then_some(number) }),
            10 => {
                let authors = (0..input.below(4)).flat_map(|id| [id; 16]).collect::<Vec<_>>();
                Message::Fork(Fork { document, authors: authors.into() })
            }
            11 => self.open(document, number),
            12 => Message::Close(Ended { document: self.document(), code: Code(number as u16), reason: String::new() }),
            13 => {
                Message::Denied(Ended { document: self.document(), code: Code(number as u16), reason: String::new() })
            }
            14 if self.datagram => {
                let inner = self.message().encode();
                Message::Reliable(number, inner)
            }
            14 => Message::Confirm(Confirm { next: number }),
            15 => Message::Snapshot(SnapshotPart { document, offset: number, total: number, bytes: input.bytes() }),
            16 if number == 31 => {
                Message::Goodbye(Farewell { code: Code(input.byte().into()), reason: String::new(), retry_after: None })
            }
            17 => Message::Confirm(Confirm { next: number }),
            _ => self.changes(document, number),
        }
    }

    fn open(&mut self, number: u32, begins: u64) -> Message {
        let document = self.document();
        let input = &mut self.input;
        let timeline =
            |byte: u8| Timeline::new(if byte < 16 { u64::from(byte) << 6 } else { 0x100 | u64::from(byte % 4) });
        let cursor = input.flag().then(|| Cursor { timeline: timeline(input.byte()), position: input.number() });
        let timelines = input.flag().then(|| OwnTimelines {
            current: timeline(input.byte()),
            previous: input.flag().then(|| timeline(input.byte())),
        });
        Message::Open(Open {
            number,
            document,
            access: if input.flag() { Access::Write } else { Access::Read },
            thorough: input.below(4) == 3,
            schema: None,
            timelines,
            begins: begins % 8,
            horizon: if input.below(4) == 3 { input.number() } else { 0 },
            tail: input.number(),
            digest: input.number() % 2,
            cursor: cursor.map(Into::into),
            own: Head { seq: input.number(), chain: Chain(0) }.into(),
            acks: if input.flag() { input.number() } else { 0 },
        })
    }

    fn changes(&mut self, document: u32, seq: u64) -> Message {
        let input = &mut self.input;
        let (absolute, from, author) = (input.flag(), input.number(), input.number() as u32 % 8);
        let content = match input.below(4) {
            0 | 1 => Content::Live {
                author,
                seq,
                body: if input.flag() { Body::Bytes(input.bytes()) } else { Body::Blank(BodyHash(seq)) },
            },
            2 => {
                let count = u64::from(1 + input.below(4));
                let run = OpRun { author, seq: seq.min(u64::MAX - count), count, blank: input.flag() };
                let body = if run.blank { Body::Blank(BodyHash(seq)) } else { Body::Bytes(input.bytes()) };
                let bodies = vec![body; count as usize];
                Content::Bulk { span: count.saturating_add(input.number()), runs: vec![run], bodies }
            }
            _ => {
                let piece = vec![7; usize::from(input.byte()) + 1];
                let offset = (input.number() as u32).min(u32::MAX - 2000);
                let total = offset + piece.len() as u32 + if input.flag() { input.number() as u32 % 1000 } else { 0 };
                Content::Part { author, seq, offset, total, piece: piece.into() }
            }
        };
        Message::Changes(Changes { document, absolute, from, content })
    }
}
