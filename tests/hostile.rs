//! Peers that keep to no rule: each is closed with the right code, in bounded memory, and with work that grows no
//! faster than what it sends. The same bytes go to a bare session and to a replica.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon::codes::{Code, Fault};
use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::{Head, Judgement};
use antiphon::log::Log;
use antiphon::op::{Body, Cursor, DocumentId, ReplicaId, Timeline};
use antiphon::replica::{self, Event as ReplicaEvent};
use antiphon::rng::Rng;
use antiphon::session::{self, By, Ending, Event, Input, Local, Opening, Output, Transport};
use antiphon::timeline::Opens;
use antiphon::wire::changes::{ABSOLUTE, BULK, LIVE, PART};
use antiphon::wire::control::Schema;
use antiphon::wire::varint::put_varint;
use antiphon::wire::*;
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;
use common::rig::Rig;
use common::*;

// -------------------------------------------------------------------------------------------- who is attacked

/// Small limits: what they must keep out is soon larger.
const fn limits() -> Limits {
    Limits { frame: 8 << 10, op: 64 << 10, window: 16 << 10, credit: 32 << 10, documents: 8, authors: 32 }
}

fn config(setup: Setup) -> session::Config {
    let limits = Limits { documents: setup.documents, ..limits() };
    session::Config { transport: setup.transport, limits, ..session::Config::default() }
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Session,
    Replica,
}

const TARGETS: [Target; 2] = [Target::Session, Target::Replica];

/// How the victim is set up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    transport: Transport,
    /// Its storage never writes what peers send.
    stalled: bool,
    grant: Access,
    documents: u32,
}

const RELIABLE: Setup =
    Setup { transport: Transport::Reliable, stalled: false, grant: Access::Write, documents: limits().documents };
const DATAGRAM: Setup = Setup { transport: Transport::Datagram { mtu: 1200 }, ..RELIABLE };

struct Victim {
    setup: Setup,
    kind: Kind,
    /// The victim's Hello and ours, as frames.
    hellos: [Bytes; 2],
    tags: Option<[Tag; 2]>,
    /// Everything that it sent, as messages.
    sent: Vec<Message>,
    /// Whether what it sends is only counted.
    quiet: bool,
    fed: usize,
    bytes_sent: usize,
}

enum Kind {
    Session(Box<Session>, Box<Host>),
    Replica(Box<Rig>, usize),
}

/// The least that a session needs: documents in memory.
struct Host {
    setup: Setup,
    documents: BTreeMap<u32, Log>,
    next_number: u32,
    ending: Option<Ending>,
    now: Instant,
}

const NONCES: [u64; 2] = [21, 22];
const OWN_OPS: u64 = 3;
/// The victim's number of the first document that is opened, and ours.
const THEIRS: u32 = 1;
const OURS: u32 = 7;
/// Cost of what a replica keeps of a document in memory.
const TAIL: u64 = 4 << 10;

fn stranger() -> ReplicaId {
    ReplicaId([0xee; 16])
}

impl Victim {
    fn new(target: Target, setup: Setup) -> Self {
        let mut entropy = Rng::new(5);
        let kind = match target {
            Target::Session => {
                let (timeline, nonce) = (Timeline::new(10), entropy.next_u64());
                let local = Local { replica: ReplicaId([1; 16]), timeline, previous: None, nonce, token: None };
                let session = Session::new(Instant::ZERO, config(setup), local);
                let (documents, now) = (BTreeMap::new(), Instant::from_millis(1));
                Kind::Session(Box::new(session), Box::new(Host { setup, documents, next_number: 0, ending: None, now }))
            }
            Target::Replica => {
                let mut rig = Rig::new(5);
                let config = replica::Config {
                    session: config(setup),
                    documents: replica::Admission::Ask,
                    write_deadline: SECOND * 36_000,
                    tail_max: TAIL,
                    documents_max: 16,
                    ..replica::Config::default()
                };
                let end = rig.add(config);
                rig.open(end, &doc());
                rig.append(end, &doc(), (0..OWN_OPS as u8).map(|number| Bytes::from(vec![number; 20])));
                rig.settle();
                rig.ends[end].decides = Box::new(move |_| Ok(setup.grant));
                let wire = rig.stranger(end, setup.transport);
                rig.settle();
                Kind::Replica(Box::new(rig), wire)
            }
        };
        let mut victim = Self {
            setup,
            kind,
            hellos: [Bytes::new(), hello(limits())],
            tags: None,
            sent: Vec::new(),
            quiet: false,
            fed: 0,
            bytes_sent: 0,
        };
        let frames = victim.take_frames();
        let hello = frames.into_iter().next().expect("it says Hello at once");
        victim.hellos[0] = if victim.is_datagram() { Tag::NONE.unseal(&hello).expect("whole") } else { hello };
        if victim.is_datagram() {
            let Ok(Message::Hello(theirs)) = Message::decode(&victim.hellos[0]) else { panic!("it says Hello") };
            victim.tags = Some([Tag::new(theirs.nonce, NONCES[1]), Tag::new(NONCES[1], theirs.nonce)]);
        }
        victim
    }

    /// In the state in which the documents of the script are open.
    fn at(target: Target, setup: Setup, stage: Stage) -> Self {
        let mut victim = Self::new(target, setup);
        let frames = victim.script(stage);
        frames.into_iter().for_each(|frame| victim.feed(frame));
        assert_eq!(victim.ending(), None, "{stage:?}");
        victim
    }

    fn is_datagram(&self) -> bool {
        self.setup.transport != Transport::Reliable
    }

    /// What an honest peer sends to get so far.
    fn script(&self, stage: Stage) -> Vec<Bytes> {
        let hash = |frame: &Bytes| BodyHash::of(frame).0;
        let hellos = hash(&self.hellos[0]).wrapping_add(hash(&self.hellos[1]));
        let welcome = Message::Welcome(Welcome { version: VERSION, hellos, durability: Durability::Commit }).encode();
        let mut frames = vec![self.hellos[1].clone(), welcome];
        if let Some(tags) = self.tags {
            frames = vec![Tag::NONE.seal(&frames[0]), tags[1].seal(&frames[1])];
        }
        let first = frames.len();
        match stage {
            Stage::Fresh => frames.clear(),
            Stage::Greeted => frames.truncate(1),
            Stage::Live => {}
            Stage::Opened => {
                frames.push(open(OURS, &doc(), |_| {}));
                frames.push(author(OURS, 0, stranger(), 0)); // with nothing held, both know where it starts
            }
            Stage::Other => {
                frames.push(open(OURS, &document("other"), |_| {}));
                frames.push(author(OURS, 0, stranger(), 0));
            }
            Stage::Heads => frames.push(open(OURS, &doc(), |open| (open.digest, open.tail) = (99, 1))),
        }
        if self.is_datagram() {
            for (number, frame) in frames.iter_mut().skip(first).enumerate() {
                *frame = self.sealed(Message::Reliable(number as u64, frame.clone()).encode());
            }
        }
        frames
    }

    fn feed(&mut self, frame: Bytes) {
        self.fed += frame.len();
        let ended = self.ending();
        match &mut self.kind {
            Kind::Session(session, host) => {
                session.handle(host.now, Input::Received(frame)).expect("frames are never misuse");
            }
            Kind::Replica(rig, wire) => rig.feed(*wire, frame),
        }
        let frames = self.take_frames();
        assert!(ended.is_none() || frames.is_empty(), "nothing is sent after the end");
    }

    fn take_frames(&mut self) -> Vec<Bytes> {
        let tag = self.tags.map(|tags| tags[0]);
        let mut frames = Vec::new();
        match &mut self.kind {
            Kind::Session(session, host) => host.settle_frames(session, &mut frames),
            Kind::Replica(rig, wire) => frames.extend(rig.wires[*wire].queues[0].drain(..)),
        }
        self.bytes_sent += frames.iter().map(Bytes::len).sum::<usize>();
        for frame in frames.iter().filter(|_| !self.quiet) {
            let plain = tag.map_or(Some(frame.clone()), |tag| tag.unseal(frame));
            self.sent.extend(plain.and_then(|frame| Message::decode(&frame).ok()));
        }
        frames
    }

    /// Lets time go by.
    fn wait(&mut self, duration: std::time::Duration) {
        let end = self.now() + duration;
        if let Kind::Replica(rig, _) = &mut self.kind {
            rig.run_for(duration);
        }
        while let Kind::Session(session, host) = &mut self.kind {
            let Some(due) = session.deadline().filter(|due| *due <= end) else {
                host.now = end;
                break;
            };
            host.now = host.now.max(due);
            session.handle(host.now, Input::Timer).expect("timers are never misuse");
            self.take_frames();
        }
        self.take_frames();
    }

    fn now(&self) -> Instant {
        match &self.kind {
            Kind::Session(_, host) => host.now,
            Kind::Replica(rig, _) => rig.now,
        }
    }

    fn ending(&self) -> Option<Ending> {
        match &self.kind {
            Kind::Session(_, host) => host.ending.clone(),
            Kind::Replica(rig, wire) => rig.ends[0].events.iter().find_map(|event| match event {
                ReplicaEvent::Disconnected { link, ending } if link.0 == *wire as u64 => ending.clone(),
                _ => None,
            }),
        }
    }

    /// The codes with which it closed or refused documents.
    fn closes(&self) -> Vec<Code> {
        let ends = self.sent.iter().filter_map(|message| match message {
            Message::Close(end) | Message::Denied(end) => Some(end.code),
            _ => None,
        });
        ends.collect()
    }

    /// From now on its storage writes nothing.
    fn stall(&mut self, document: &DocumentId) {
        match &mut self.kind {
            Kind::Session(_, host) => host.setup.stalled = true,
            Kind::Replica(rig, _) => _ = rig.ends[0].stalled.insert(document.clone()),
        }
    }

    /// From now on its transport takes nothing.
    fn choke(&mut self) {
        match &mut self.kind {
            Kind::Session(session, host) => {
                session.handle(host.now, Input::Writable { bytes: 0 }).expect("it is no misuse");
            }
            Kind::Replica(rig, wire) => {
                rig.wires[*wire].capacity[0] = Some(0);
                rig.tell_room(*wire, 0);
            }
        }
    }

    /// What only the test keeps is not to be counted.
    fn tidy(&mut self) {
        if let Kind::Replica(rig, _) = &mut self.kind {
            rig.sync(0);
            rig.ends[0].events.retain(|event| matches!(event, ReplicaEvent::Disconnected { .. }));
        }
    }

    /// What it holds of what peers sent, as it says itself.
    fn holds(&self) -> u64 {
        match &self.kind {
            Kind::Session(session, _) => session.under_way().1,
            Kind::Replica(rig, _) => rig.ends[0].replica.memory_cost(),
        }
    }

    /// A frame as it goes on the wire.
    fn sealed(&self, frame: Bytes) -> Bytes {
        match self.tags {
            Some(tags) => tags[1].seal(&frame),
            None => frame,
        }
    }

    /// A replica goes on: another peer connects, and gets in step.
    fn still_serves(&mut self) {
        if let Kind::Replica(rig, _) = &mut self.kind {
            let honest = rig.add(replica::Config::default());
            rig.open(honest, &doc());
            rig.join(0, honest, Transport::Reliable);
            rig.append(honest, &doc(), [Bytes::from_static(b"honest")]);
            let done = rig.run_until(SECOND * 5, &mut |_| {}, |rig| rig.same(0, honest, &doc()));
            assert!(done, "an honest peer is served");
        }
    }
}

impl Host {
    fn settle_frames(&mut self, session: &mut Session, frames: &mut Vec<Bytes>) {
        while let Some(output) = session.poll() {
            assert!(self.ending.is_none(), "nothing follows the end: {output:?}");
            if let Some(input) = self.answer(output, frames) {
                // The peer may have closed the document while the host was at it.
                let done = session.handle(self.now, input);
                assert!(matches!(done, Ok(()) | Err(session::Misuse::NotOpen(_))), "{done:?}");
            }
        }
    }

    fn log(&mut self, number: u32) -> &mut Log {
        self.documents.get_mut(&number).expect("it is open")
    }

    fn answer(&mut self, output: Output, frames: &mut Vec<Bytes>) -> Option<Input> {
        Some(match output {
            Output::Transmit(frame) => {
                frames.push(frame);
                return None;
            }
            Output::Authenticate { .. } => Input::Authenticated(Ok(())),
            Output::Event(Event::PeerOpened { document, .. }) => self.open(document),
            Output::Event(Event::Closed(ending)) => {
                self.ending = Some(ending);
                return None;
            }
            Output::Event(Event::DocumentClosed { number, .. }) => {
                self.documents.remove(&number);
                return None;
            }
            Output::Event(_) => return None,
            Output::Load { number, from, max_cost } => {
                let chunk = self.log(number).read(from, max_cost).expect("it is asked for what there is");
                Input::Loaded { number, chunk }
            }
            Output::Compare { number, heads } => {
                let comparison = self.log(number).compare(&heads).expect("it is all in memory");
                Input::Compared { number, comparison }
            }
            Output::Take { number, origin, to, ops, .. } => {
                if self.setup.stalled {
                    return None;
                }
                let log = self.log(number);
                for op in ops {
                    if log.take(op, Some(origin)) == Judgement::Gap {
                        let reason = String::from("an op came before its author's earlier ones");
                        self.documents.remove(&number);
                        return Some(Input::Close { number, code: Code::AUTHOR_GAP, reason });
                    }
                }
                let (tail, digest) = (log.tail(), log.heads().digest());
                Input::Advance { number, tail, digest, held: to, live: None }
            }
        })
    }

    fn open(&mut self, document: DocumentId) -> Input {
        self.next_number += 1;
        let mut log = Log::new(Arc::new(Opens::first(Timeline::new(10))));
        for number in (0..OWN_OPS as u8).filter(|_| document == doc()) {
            log.append(ReplicaId([1; 16]), Body::Bytes(Bytes::from(vec![number; 20])));
        }
        let opening = Opening {
            number: self.next_number,
            document,
            access: Access::Write,
            grant: self.setup.grant,
            thorough: false,
            schema: None,
            history: log.history().clone(),
            horizon: 0,
            tail: log.tail(),
            heads: log.heads().clone(),
            cursor: None,
        };
        self.documents.insert(self.next_number, log);
        Input::Open(Box::new(opening))
    }
}

// -------------------------------------------------------------------------------------------- what is sent

fn hello(limits: Limits) -> Bytes {
    hello_with(|hello| hello.limits = limits)
}

fn hello_with(change: impl FnOnce(&mut Hello)) -> Bytes {
    let mut hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        replica: stranger(),
        timeline: Timeline::new(77),
        previous: None,
        nonce: NONCES[1],
        limits: limits(),
        features: 0,
        token: None,
        extensions: Bytes::new(),
    };
    change(&mut hello);
    Message::Hello(hello).encode()
}

fn open(number: u32, document: &DocumentId, change: impl FnOnce(&mut Open)) -> Bytes {
    let mut open = Open {
        number,
        document: document.clone(),
        access: Access::Write,
        thorough: false,
        schema: None,
        timelines: None,
        begins: 0,
        horizon: 0,
        tail: 0,
        digest: 0,
        cursor: None,
        own: Head::NONE.into(),
        acks: 0,
    };
    change(&mut open);
    Message::Open(open).encode()
}

fn resume(document: u32, from: Option<u64>) -> Bytes {
    Message::Resume(Resume { document, from }).encode()
}

fn author(document: u32, number: u32, author: ReplicaId, base: u64) -> Bytes {
    Message::Author(Announce { document, number, author, base }).encode()
}

fn end(document: &DocumentId) -> End {
    End { document: document.clone(), code: Code::DONE, reason: String::new() }
}

fn changes(document: u32, from: u64, content: Content) -> Bytes {
    Message::Changes(Changes { document, absolute: true, from, content }).encode()
}

fn live(from: u64, seq: u64, body: &[u8]) -> Bytes {
    changes(OURS, from, Content::Live { author: 0, seq, body: Body::Bytes(Bytes::copy_from_slice(body)) })
}

fn nothing(from: u64, span: u64) -> Bytes {
    changes(OURS, from, Content::Bulk { span, runs: Vec::new(), bodies: Vec::new() })
}

/// `count` ops of `len` bytes.
fn bulk(from: u64, seq: u64, count: u64, len: usize) -> Bytes {
    let bodies = (0..count).map(|_| Body::Bytes(Bytes::from(vec![9; len]))).collect();
    let runs = vec![Run { author: 0, seq, count, blank: false }];
    changes(OURS, from, Content::Bulk { span: count, runs, bodies })
}

fn part(document: u32, from: u64, offset: u32, total: u32, len: usize) -> Bytes {
    let piece = Bytes::from(vec![8; len]);
    changes(document, from, Content::Part { author: 0, seq: 1, offset, total, piece })
}

fn ack(number: u64, received: u64, held: u64) -> Bytes {
    ack_with(number, received, held, |_| {})
}

fn ack_with(number: u64, received: u64, held: u64, change: impl FnOnce(&mut Ack)) -> Bytes {
    let mut ack = Ack {
        document: THEIRS,
        number,
        received: Point::at(received),
        held,
        window: 1 << 14,
        credit: 1 << 15,
        skip: None,
        level: None,
    };
    change(&mut ack);
    Message::Ack(ack).encode()
}

fn rewind(number: u64, received: u64, from: Point, to: Option<Point>) -> Bytes {
    Message::Rewind(Rewind { document: THEIRS, number, received: Point::at(received), from, to }).encode()
}

fn heads(offset: u32, last: bool, authors: &[(ReplicaId, u64)]) -> Bytes {
    let all = authors.iter().map(|(author, seq)| (*author, Head { seq: *seq, chain: Chain(5) }));
    let (heads, ..) = pack_heads(all, usize::MAX);
    Message::Heads(HeadsPart { document: OURS, offset, last, heads }).encode()
}

fn replica_number(number: u64) -> ReplicaId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    ReplicaId(id)
}

/// Varints as they stand, with kind and flags before: what no honest code would write.
fn raw(kind: u8, numbers: &[u64], rest: &[u8]) -> Bytes {
    let mut out = vec![kind];
    numbers.iter().for_each(|number| put_varint(&mut out, *number));
    out.extend_from_slice(rest);
    out.into()
}

// -------------------------------------------------------------------------------------------- the table

/// How far the honest part goes.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing was sent.
    Fresh,
    /// Hello.
    Greeted,
    /// Hello and Welcome.
    Live,
    /// A document is open, both know where they start, and author 0 is announced.
    Opened,
    /// Another document is open, of which the victim holds nothing and its app knows nothing.
    Other,
    /// A document is open, and the victim waits for our heads.
    Heads,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The session ends.
    Ends(Code),
    /// The document is closed or refused, and the session goes on.
    Closes(Code),
    /// It does no harm.
    Lives,
}

use Fate::{Closes, Ends, Lives};

type Attack = (&'static str, Stage, Vec<Bytes>, Fate);

fn attacks() -> Vec<Attack> {
    const MAX: u64 = u64::MAX;
    let malformed = Ends(Code::MALFORMED);
    let unexpected = Ends(Code::UNEXPECTED);
    let oversized = Ends(Code::OVERSIZED);
    let overrun = Ends(Code::OVERRUN);
    let ping = || Message::Ping(Ping { token: 1, blocked: true }).encode();
    let farewell = || Farewell { code: Code::SHUTDOWN, reason: String::new(), retry_after: None };
    let other = document("other");
    let absolute = |kind: u8| kind | ABSOLUTE;
    let welcome = || Message::Welcome(Welcome { version: VERSION, hellos: 1, durability: Durability::Commit }).encode();
    let credit = |number, total| Message::Credit(Credit { number, total }).encode();
    let fork = |len: usize| Message::Fork(Fork { document: OURS, authors: vec![3; len].into() }).encode();
    let mut long_hello = hello(limits()).to_vec();
    long_hello.push(0);
    let short_hello = hello(limits()).slice(..20);
    let mut all = vec![
        // Before anything.
        ("nothing at all", Stage::Fresh, vec![Bytes::new()], malformed),
        ("garbage first", Stage::Fresh, vec![Bytes::from_static(&[0xff; 40])], malformed),
        ("HTTP", Stage::Fresh, vec![Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")], Ends(Code::UNEXPECTED)), // 'G' is optional, but no way to begin
        ("a Hello that is cut off", Stage::Fresh, vec![short_hello], malformed),
        ("a Hello that goes on", Stage::Fresh, vec![long_hello.into()], malformed),
        ("a Ping before Hello", Stage::Fresh, vec![ping()], unexpected),
        ("an Open before Hello", Stage::Fresh, vec![open(OURS, &doc(), |_| {})], unexpected),
        ("changes before Hello", Stage::Fresh, vec![live(0, 1, b"x")], unexpected),
        ("Welcome before Hello", Stage::Fresh, vec![welcome()], unexpected),
        (
            "a Hello too large",
            Stage::Fresh,
            vec![hello_with(|hello| hello.token = Some(vec![0; 9 << 10].into()))],
            oversized,
        ),
        ("frames that nothing fits in", Stage::Fresh, vec![hello(Limits { frame: 100, ..limits() })], oversized),
        ("what may be ignored, before Hello", Stage::Fresh, vec![Bytes::from(vec![0x41; 6 << 10]); 3], unexpected),
        // Hello said.
        ("Hello twice", Stage::Greeted, vec![hello(limits())], unexpected),
        ("a Welcome of others", Stage::Greeted, vec![welcome()], unexpected),
        ("changes before Welcome", Stage::Greeted, vec![live(0, 1, b"x")], unexpected),
        ("an Ack before Welcome", Stage::Greeted, vec![ack(1, 0, 0)], unexpected),
        ("a Rewind before Welcome", Stage::Greeted, vec![rewind(1, 0, Point::at(0), None)], unexpected),
        ("Credit before Welcome", Stage::Greeted, vec![credit(1, 1)], unexpected),
        ("Opens before Welcome", Stage::Greeted, vec![open(OURS, &doc(), |_| {})], Lives),
        // Live.
        ("Hello again", Stage::Live, vec![hello(limits())], unexpected),
        ("Welcome again", Stage::Live, vec![welcome()], unexpected),
        ("a frame over the limit", Stage::Live, vec![Bytes::from(vec![0x41; 9 << 10])], oversized),
        ("what only datagrams need", Stage::Live, vec![Message::Reliable(0, ping()).encode()], unexpected),
        ("a confirmation", Stage::Live, vec![Message::Confirm(Confirm { next: 0 }).encode()], unexpected),
        ("a Pong that was not asked for", Stage::Live, vec![Message::Pong(Pong { token: 9 }).encode()], Lives),
        ("Goodbye", Stage::Live, vec![Message::Goodbye(farewell()).encode()], Ends(Code::SHUTDOWN)),
        ("Refuse when all is well", Stage::Live, vec![Message::Refuse(farewell()).encode()], Ends(Code::SHUTDOWN)),
        (
            "presence",
            Stage::Live,
            vec![Message::Presence(Presence { document: 3, body: Bytes::new() }).encode()],
            Lives,
        ),
        ("Close of what is not open", Stage::Live, vec![Message::Close(end(&other)).encode()], Lives),
        ("Denied of what is not asked", Stage::Live, vec![Message::Denied(end(&other)).encode()], Lives),
        ("changes of what is not open", Stage::Live, vec![live(0, 1, b"x")], Lives),
        ("an author of what is not open", Stage::Live, vec![author(OURS, 0, stranger(), MAX)], Lives),
        (
            "an Ack of what is not open",
            Stage::Live,
            vec![ack_with(MAX, MAX, MAX, |ack| ack.document = u32::MAX)],
            Lives,
        ),
        ("absurd credit", Stage::Live, vec![credit(MAX, MAX), credit(1, 0)], Lives),
        // Lengths and counts that nothing stands behind.
        ("a string of 2^63 bytes", Stage::Live, vec![raw(0x04, &[7, 1 << 63], b"doc")], malformed),
        ("a name of 256 bytes", Stage::Live, vec![raw(0x06, &[256], &[b'a'; 300])], malformed),
        ("a list of 2^40 heads", Stage::Live, vec![raw(0x07, &[7, 0, 1, 1 << 40], &[1; 40])], malformed),
        ("2^60 runs", Stage::Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1 << 60], &[1; 40])], malformed),
        (
            "a run of 2^60 ops",
            Stage::Opened,
            vec![raw(absolute(BULK), &[7, 0, MAX, 1, 0, 1, 1 << 61], &[1; 40])],
            malformed,
        ),
        (
            "runs of 2^63 ops in sum",
            Stage::Opened,
            vec![raw(absolute(BULK), &[7, 0, MAX, 2, 0, 1, MAX - 1, 0, 1, MAX - 1], &[1; 40])],
            malformed,
        ),
        (
            "a body of 2^63 bytes",
            Stage::Opened,
            vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 2, 1 << 63], b"x")],
            malformed,
        ),
        (
            "more ops than positions",
            Stage::Opened,
            vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 4, 0, 0], b"")],
            malformed,
        ),
        ("a run of no ops", Stage::Opened, vec![raw(absolute(BULK), &[7, 0, 1, 1, 0, 1, 0], b"")], malformed),
        ("an overlong varint", Stage::Opened, vec![Bytes::from_static(&[LIVE, 0x87, 0x00, 0, 0, 0])], malformed),
        (
            "a varint of 11 bytes",
            Stage::Opened,
            vec![Bytes::from_static(&[LIVE, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])],
            malformed,
        ),
        ("a document beyond 32 bits", Stage::Opened, vec![raw(LIVE, &[1 << 32, 0, 0, 0], b"")], malformed),
        ("a blank without a hash", Stage::Opened, vec![raw(absolute(LIVE) | 0x80, &[7, 0, 0, 1], b"123")], malformed),
        // Opening.
        ("one document twice", Stage::Opened, vec![open(9, &doc(), |_| {})], unexpected),
        ("one number for two documents", Stage::Opened, vec![open(OURS, &other, |_| {})], unexpected),
        ("a log that begins after its tail", Stage::Live, vec![open(OURS, &doc(), |open| open.begins = 1)], unexpected),
        ("a horizon beyond the tail", Stage::Live, vec![open(OURS, &doc(), |open| open.horizon = 1)], unexpected),
        ("a log without end", Stage::Live, vec![open(OURS, &doc(), |open| open.tail = MAX)], unexpected),
        (
            "a schema's name without end",
            Stage::Live,
            vec![open(OURS, &doc(), |open| open.schema = Some(Schema { name: "x".repeat(300), version: 1 }))],
            oversized,
        ),
        (
            "a cursor beyond everything",
            Stage::Live,
            vec![open(OURS, &doc(), |open| {
                open.cursor = Some(Cursor { timeline: Timeline::new(3), position: MAX }.into())
            })],
            Lives,
        ),
        (
            "acknowledgements from the end of numbers",
            Stage::Live,
            vec![open(OURS, &doc(), |open| open.acks = MAX), ack(1, 9, 9)],
            Lives,
        ),
        ("a start that is known", Stage::Opened, vec![resume(OURS, Some(0))], unexpected),
        ("a start of another", Stage::Opened, vec![resume(1000, Some(0))], Lives),
        (
            "a start beyond everything",
            Stage::Live,
            vec![open(OURS, &doc(), |_| {}), resume(OURS, Some(MAX))],
            unexpected,
        ),
        (
            "a snapshot",
            Stage::Opened,
            vec![
                Message::Snapshot(SnapshotPart { document: OURS, offset: MAX, total: MAX, bytes: Bytes::new() })
                    .encode(),
            ],
            Closes(Code::BELOW_HORIZON),
        ),
        // Heads.
        ("heads that nobody asked for", Stage::Opened, vec![heads(0, true, &[(stranger(), 1)])], unexpected),
        (
            "heads out of order",
            Stage::Heads,
            vec![heads(0, false, &[(replica_number(2), 1), (replica_number(1), 1)])],
            malformed,
        ),
        (
            "heads out of order across parts",
            Stage::Heads,
            vec![heads(0, false, &[(replica_number(2), 1)]), heads(1, true, &[(replica_number(1), 1)])],
            malformed,
        ),
        (
            "one author twice",
            Stage::Heads,
            vec![heads(0, false, &[(replica_number(2), 1), (replica_number(2), 2)])],
            malformed,
        ),
        ("a head of nothing", Stage::Heads, vec![heads(0, true, &[(replica_number(2), 0)])], malformed),
        ("heads that leave out", Stage::Heads, vec![heads(5, true, &[(replica_number(2), 1)])], malformed),
        (
            "heads cut off",
            Stage::Heads,
            vec![
                Message::Heads(HeadsPart { document: OURS, offset: 0, last: true, heads: vec![1; 20].into() }).encode(),
            ],
            malformed,
        ),
        (
            "heads after the last",
            Stage::Heads,
            vec![heads(0, true, &[(stranger(), 1)]), heads(1, true, &[(stranger(), 1)])],
            unexpected,
        ),
        (
            "more than the authors that we take",
            Stage::Heads,
            vec![heads(0, true, &(0..33).map(|number| (replica_number(number), 1)).collect::<Vec<_>>())],
            oversized,
        ),
        (
            "heads far beyond what there is",
            Stage::Heads,
            vec![heads(0, true, &[(ReplicaId([1; 16]), MAX), (stranger(), MAX)])],
            Lives,
        ),
        ("forks in ragged bytes", Stage::Opened, vec![fork(17)], malformed),
        ("a fork of nobody", Stage::Opened, vec![fork(0)], malformed),
        ("a fork of strangers", Stage::Opened, vec![fork(32)], Lives),
        // Authors.
        ("two authors under one number", Stage::Opened, vec![author(OURS, 0, replica_number(5), 0)], oversized),
        ("an author told twice in the same way", Stage::Opened, vec![author(OURS, 0, stranger(), 0)], Lives),
        ("a base beyond everything", Stage::Opened, vec![author(OURS, 1, replica_number(5), MAX)], oversized),
        (
            "too many authors",
            Stage::Opened,
            (0..40).map(|number| author(OURS, number + 1, replica_number(number.into()), 0)).collect(),
            oversized,
        ),
        // Changes.
        ("an author that was never told", Stage::Opened, vec![raw(absolute(LIVE), &[7, 0, 3, 1], b"x")], malformed),
        ("seq 0", Stage::Opened, vec![live(0, 0, b"x")], malformed),
        ("seq 2^64-1", Stage::Opened, vec![live(0, MAX, b"x")], malformed),
        ("seq 2^63", Stage::Opened, vec![live(0, 1 << 63, b"x")], malformed),
        (
            "a run past the last seq",
            Stage::Opened,
            vec![raw(absolute(BULK), &[7, 0, 2, 1, 0, MAX, 4, 0, 0], b"")],
            malformed,
        ),
        (
            "a relative seq past the last",
            Stage::Opened,
            vec![author(OURS, 1, replica_number(5), 1 << 61), raw(LIVE, &[7, 0, 1, MAX], b"x")],
            malformed,
        ),
        ("position 2^64-1", Stage::Opened, vec![live(MAX, 1, b"x")], malformed),
        ("a span of 2^64-1", Stage::Opened, vec![nothing(1, MAX)], malformed),
        ("a span of 2^61", Stage::Opened, vec![nothing(0, 1 << 61)], Lives),
        ("a gap", Stage::Opened, vec![live(5, 1, b"x"), live(1 << 60, 2, b"x")], Lives),
        (
            "a duplicate",
            Stage::Opened,
            vec![live(0, 1, b"x"), live(0, 1, b"x"), live(0, 1, b"y"), nothing(0, 1)],
            Lives,
        ),
        ("an author's gap", Stage::Opened, vec![live(0, 5, b"x")], Closes(Code::AUTHOR_GAP)),
        (
            "an op in the name of another",
            Stage::Opened,
            vec![author(OURS, 1, replica_number(5), 0), raw(absolute(LIVE), &[7, 0, 1, 1], b"x")],
            Lives,
        ),
        ("an op over the limit", Stage::Opened, vec![part(OURS, 0, 0, (64 << 10) + 1, 100)], overrun),
        ("an op of 4 GiB", Stage::Opened, vec![part(OURS, 0, 0, u32::MAX, 100)], overrun),
        // Parts.
        ("a part beyond its op", Stage::Opened, vec![raw(absolute(PART), &[7, 0, 0, 1, 50, 60], &[1; 20])], malformed),
        ("an empty part", Stage::Opened, vec![raw(absolute(PART), &[7, 0, 0, 1, 0, 60], b"")], malformed),
        ("a part that leaves out", Stage::Opened, vec![part(OURS, 0, 10, 100, 10)], Lives),
        (
            "parts of two documents at once",
            Stage::Opened,
            vec![
                open(8, &other, |_| {}),
                author(8, 0, stranger(), 0),
                part(OURS, 0, 0, 100, 10),
                part(8, 0, 0, 100, 10),
            ],
            overrun,
        ),
        (
            "an op that grows on its way",
            Stage::Opened,
            vec![part(OURS, 0, 0, 100, 10), part(OURS, 0, 10, 60 << 10, 10)],
            malformed,
        ),
        (
            "an op that shrinks on its way",
            Stage::Opened,
            vec![part(OURS, 0, 0, 100, 10), part(OURS, 0, 10, 20, 10)],
            malformed,
        ),
        (
            "a part past another op",
            Stage::Opened,
            vec![part(OURS, 0, 0, 100, 10), live(0, 1, b"x"), part(OURS, 0, 10, 100, 90)],
            Lives,
        ),
        (
            "a part with a skip in between",
            Stage::Opened,
            vec![part(OURS, 0, 0, 100, 10), nothing(0, 5), part(OURS, 0, 10, 100, 90), live(5, 1, b"x")],
            Lives,
        ),
        // Acknowledgements.
        ("an Ack of what was never sent", Stage::Opened, vec![ack(1, OWN_OPS + 1, 0)], unexpected),
        ("an Ack from the end of positions", Stage::Opened, vec![ack(1, MAX, MAX)], unexpected),
        (
            "an Ack of half an op that went whole",
            Stage::Opened,
            vec![ack_with(1, 0, 0, |ack| ack.received.offset = u32::MAX)],
            Ends(Code::UNEXPECTED),
        ),
        ("durable before it was taken", Stage::Opened, vec![ack(1, 1, 2)], unexpected),
        ("acknowledgements that are old", Stage::Opened, vec![ack(2, 3, 3), ack(1, 9, 9), ack(2, 9, 9)], Lives),
        (
            "windows beyond everything",
            Stage::Opened,
            vec![ack_with(1, 3, 3, |ack| (ack.window, ack.credit) = (MAX, MAX))],
            Lives,
        ),
        (
            "a skip that goes back",
            Stage::Opened,
            vec![ack_with(1, 3, 3, |ack| ack.skip = Some(Skip { document: OURS, from: 0, to: 0 }))],
            Lives,
        ),
        (
            "a skip beyond everything",
            Stage::Opened,
            vec![ack_with(1, 3, 3, |ack| ack.skip = Some(Skip { document: OURS, from: 0, to: MAX }))],
            Lives,
        ),
        (
            "a level that is none",
            Stage::Opened,
            vec![ack_with(1, 3, 3, |ack| ack.level = Some(Level { tail: MAX, digest: 3 }))],
            Lives,
        ),
        (
            "a level that differs",
            Stage::Opened,
            vec![ack_with(1, 3, 3, |ack| ack.level = Some(Level { tail: 0, digest: 3 }))],
            Closes(Code::MISMATCH),
        ),
        // Rewinds.
        ("a Rewind beyond what was sent", Stage::Opened, vec![rewind(1, 9, Point::at(9), None)], unexpected),
        (
            "a Rewind to the end of positions",
            Stage::Opened,
            vec![rewind(1, 0, Point { position: MAX, offset: u32::MAX }, None)],
            unexpected,
        ),
        ("a Rewind of an empty range", Stage::Opened, vec![rewind(1, 0, Point::at(2), Some(Point::at(1)))], Lives),
        ("a Rewind past what was sent", Stage::Opened, vec![rewind(1, 0, Point::at(0), Some(Point::at(MAX)))], Lives),
        (
            "a Rewind into the middle of an op",
            Stage::Opened,
            vec![rewind(1, 0, Point { position: 1, offset: 10 }, None)],
            Ends(Code::UNEXPECTED),
        ),
        (
            "a Rewind past the end of an op",
            Stage::Opened,
            vec![rewind(1, 0, Point { position: 1, offset: 1000 }, None)],
            Ends(Code::UNEXPECTED),
        ),
        ("Rewinds of what is durable", Stage::Opened, vec![ack(1, 3, 3), rewind(2, 3, Point::at(0), None)], Lives),
    ];
    // Kinds that this version does not know, with and without something behind.
    for kind in (0x00..=0xffu8).filter(|kind| Message::decode(&Bytes::from(vec![*kind])) == Err(Malformed::Kind)) {
        all.push(("an unknown kind that must be known", Stage::Live, vec![raw(kind, &[1, 2, 3], b"more")], malformed));
    }
    for kind in 0x41..0x80u8 {
        all.push(("an unknown kind that may be", Stage::Live, vec![raw(kind, &[1, 2, 3], b"more")], Lives));
    }
    all
}

/// Bytes that a bare session may allocate for each byte that it is sent, and once.
const MEMORY: (u64, u64) = (100, 64 << 10);

fn assert_peers_fault(victim: &Victim, name: &str) {
    if let Some(ending) = victim.ending() {
        let known = [Code::VERSION_MISMATCH, Code::SAME_REPLICA];
        let peers = ending.by == By::Peer || ending.code.fault() == Fault::Peer || known.contains(&ending.code);
        assert!(peers, "{name}: the peer is not at fault in {ending:?}");
    }
}

#[test]
fn each_attack_meets_its_code() {
    let mut wrong = Vec::new();
    for (name, stage, frames, fate) in attacks() {
        for target in TARGETS {
            let mut victim = Victim::at(target, RELIABLE, stage);
            victim.sent.clear();
            let before = victim.fed;
            let used = allocation_counter::measure(|| {
                for frame in &frames {
                    victim.feed(frame.clone());
                }
            });
            let bytes = (victim.fed - before) as u64;
            if let Target::Session = target {
                assert!(used.bytes_total <= MEMORY.0 * bytes + MEMORY.1, "{name}: {used:?} for {bytes} bytes");
            }
            assert_peers_fault(&victim, name);
            let (ending, closes) = (victim.ending(), victim.closes());
            let met = match fate {
                Ends(code) => ending.as_ref().is_some_and(|ending| ending.code == code),
                Closes(code) => ending.is_none() && closes.first() == Some(&code),
                Lives => ending.is_none() && closes.is_empty(),
            };
            if !met {
                wrong.push(format!("{target:?}: {name}: {fate:?} was expected, not {ending:?}, {closes:?}"));
            }
            // What is left of it goes on, or stays quiet.
            victim.wait(SECOND);
            assert_peers_fault(&victim, name);
            if ending.is_some() {
                victim.feed(live(0, 1, b"x"));
                victim.feed(hello(limits()));
            }
            victim.still_serves();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_peer_that_may_only_read_changes_nothing() {
    for target in TARGETS {
        let mut victim = Victim::at(target, Setup { grant: Access::Read, ..RELIABLE }, Stage::Other);
        victim.feed(live(0, 1, b"x"));
        victim.wait(SECOND);
        assert_eq!((victim.ending(), victim.closes()), (None, vec![Code::READ_ONLY]), "{target:?}");
    }
}

#[test]
fn the_right_welcome_twice_is_refused() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Live);
        let welcome = victim.script(Stage::Live).remove(1);
        victim.feed(welcome);
        assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::UNEXPECTED), "{target:?}");
    }
}

#[test]
fn more_documents_than_allowed_are_denied() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Live);
        for number in 0..20 {
            victim.feed(open(number + 100, &document(&format!("number-{number}")), |_| {}));
        }
        let denied = victim.closes();
        assert!((12..=13).contains(&denied.len()), "{target:?}: {denied:?}"); // the app may have one open itself
        assert!(denied.iter().all(|code| *code == Code::TOO_MANY_DOCUMENTS));
        assert_eq!(victim.ending(), None);
    }
}

/// What a peer holds of our own ops is the one thing that nobody else can know. A lie about it costs the victim its
/// name, and no op.
#[test]
fn a_lie_about_our_own_ops_costs_a_name_and_no_op() {
    let mut victim = Victim::at(Target::Replica, RELIABLE, Stage::Live);
    let id = |victim: &Victim| match &victim.kind {
        Kind::Replica(rig, _) => rig.ends[0].replica.id(),
        Kind::Session(..) => unreachable!("it is a replica"),
    };
    let before = id(&victim);
    let head = Head { seq: u64::MAX, chain: Chain(u64::MAX) };
    victim.feed(open(OURS, &doc(), |open| open.own = head.into()));
    assert_eq!((victim.ending(), victim.closes()), (None, vec![Code::SET_BACK]), "it is asked for the proof");
    assert_ne!(id(&victim), before);
    victim.still_serves();
    let Kind::Replica(rig, _) = &victim.kind else { unreachable!("it is a replica") };
    assert_eq!(rig.tail(0, &doc()), OWN_OPS + 1);
}

// -------------------------------------------------------------------------------------------- floods

#[test]
fn more_than_the_credit_is_refused_and_never_held() {
    let frames_of = |len: usize| move |number: u64| bulk(number * 10, number * 10 + 1, 10, len);
    for target in TARGETS {
        for len in [0, 20, 500] {
            let mut victim = Victim::at(target, RELIABLE, Stage::Opened);
            victim.stall(&doc());
            victim.quiet = true;
            let frame = frames_of(len);
            for number in 0..1000 {
                victim.feed(frame(number));
                assert!(victim.holds() <= u64::from(limits().window) + TAIL, "{target:?} holds {}", victim.holds());
            }
            assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::OVERRUN), "{target:?}, {len} bytes");
        }
    }
}

#[test]
fn a_second_op_beside_a_lone_one_is_refused() {
    for target in TARGETS {
        let mut victim = Victim::at(target, RELIABLE, Stage::Opened);
        victim.stall(&doc());
        let total = limits().op;
        for offset in (0..total).step_by(4096) {
            victim.feed(part(OURS, 0, offset, total, 4096));
        }
        assert_eq!(victim.ending(), None, "{target:?}: one op may be larger than the window");
        victim.feed(live(1, 2, b"x"));
        assert_eq!(victim.ending().map(|ending| ending.code), Some(Code::OVERRUN), "{target:?}");
    }
}

/// The `n`th frame of a flood.
type Frames = fn(u64) -> Bytes;

/// A family of floods: what the honest part is, and the `n`th frame.
struct Flood {
    name: &'static str,
    setup: Setup,
    stage: Stage,
    frame: Frames,
    /// Whether the victim's transport takes nothing.
    choked: bool,
    /// Bytes that eight times as many frames may leave in memory beyond what the few do.
    may_hold: u64,
}

fn floods() -> Vec<Flood> {
    fn flood(name: &'static str, stage: Stage, frame: Frames) -> Flood {
        Flood { name, setup: RELIABLE, stage, frame, choked: false, may_hold: 8 << 10 }
    }
    fn every_other(number: u64, frames: [Frames; 2]) -> Bytes {
        frames[number as usize % 2](number / 2)
    }
    vec![
        flood("pings that ask for everything", Stage::Opened, |token| {
            Message::Ping(Ping { token, blocked: true }).encode()
        }),
        flood("pongs", Stage::Opened, |token| Message::Pong(Pong { token }).encode()),
        flood("what may be ignored", Stage::Opened, |_| raw(0x41, &[1], b"")),
        flood("presence", Stage::Opened, |_| raw(0x40, &[1, 0], b"")),
        flood("duplicates", Stage::Opened, |_| live(0, 1, b"x")),
        flood("one gap again and again", Stage::Opened, |_| live(5, 1, b"x")),
        flood("a new gap after each skip", Stage::Opened, |number| {
            every_other(number, [|number| nothing(number, 1), |number| live(number + 5, 1, b"x")])
        }),
        flood("skips in acknowledgements, and gaps", Stage::Opened, |number| {
            every_other(
                number,
                [
                    |number| {
                        let skip = Some(Skip { document: OURS, from: number, to: number + 1 });
                        ack_with(number + 1, 0, 0, |ack| ack.skip = skip)
                    },
                    |number| live(number + 5, 1, b"x"),
                ],
            )
        }),
        flood("bytes of one op, and gaps", Stage::Opened, |number| {
            every_other(number, [|number| part(OURS, 0, number as u32, 60_000, 1), |_| live(5, 1, b"x")])
        }),
        Flood {
            may_hold: 2 * 60_000, // it is allowed that much, once
            ..flood("an op that never ends", Stage::Opened, |number| part(OURS, 0, number as u32, 60_000, 1))
        },
        flood("the first part for ever", Stage::Opened, |_| part(OURS, 0, 0, 60_000, 100)),
        flood("an op that is begun and skipped", Stage::Opened, |number| {
            every_other(number, [|number| part(OURS, number, 0, 60_000, 100), |number| nothing(number, 1)])
        }),
        flood("acknowledgements of nothing", Stage::Opened, |number| ack(number + 1, 0, 0)),
        flood("acknowledgements up and down", Stage::Opened, |number| ack(number + 1, number % 4, 0)),
        flood("acknowledgements of what is not open", Stage::Live, |number| ack(number + 1, 0, 0)),
        flood("credit up and down", Stage::Opened, |number| {
            Message::Credit(Credit { number: number + 1, total: number % 2 * 1000 }).encode()
        }),
        flood("rewinds of empty ranges", Stage::Opened, |number| {
            rewind(number + 1, 0, Point::at(2), Some(Point::at(1)))
        }),
        flood("rewinds into nowhere", Stage::Opened, |number| {
            rewind(number + 1, 0, Point { position: 0, offset: 100 + number as u32 }, Some(Point::at(2)))
        }),
        Flood {
            choked: true,
            ..flood("rewinds that nobody can answer", Stage::Opened, |number| {
                rewind(number + 1, 0, Point { position: 0, offset: number as u32 }, Some(Point::at(2)))
            })
        },
        flood("rewinds of one op", Stage::Opened, |number| rewind(number + 1, 0, Point::at(2), None)),
        flood("authors told again", Stage::Opened, |_| author(OURS, 0, stranger(), 0)),
        flood("heads that never end", Stage::Heads, |_| heads(0, false, &[])),
        flood("starts of others", Stage::Opened, |_| resume(99, None)),
        flood("Close of what is not open", Stage::Opened, |_| Message::Close(end(&document("other"))).encode()),
        flood("open, and close again", Stage::Live, |number| {
            every_other(
                number,
                [|_| open(OURS, &document("other"), |_| {}), |_| Message::Close(end(&document("other"))).encode()],
            )
        }),
        flood("another document each time", Stage::Live, |number| {
            every_other(
                number,
                [
                    |number| open(OURS, &document(&format!("{number:06}")), |_| {}),
                    |number| Message::Close(end(&document(&format!("{number:06}")))).encode(),
                ],
            )
        }),
        flood("too many documents", Stage::Live, |number| {
            open(number as u32 + 100, &document(&format!("{number:06}")), |_| {})
        }),
        flood("an author's gap", Stage::Opened, |number| {
            every_other(number, [|_| live(0, 5, b"x"), |_| open(OURS, &doc(), |_| {})])
        }),
    ]
}

/// What is allocated in all, and held at most, while `count` frames of a flood come.
fn suffer(target: Target, flood: &Flood, count: u64) -> (allocation_counter::AllocationInfo, u64, Victim) {
    let mut victim = Victim::at(target, flood.setup, flood.stage);
    victim.quiet = true;
    if flood.choked {
        victim.choke();
    }
    let frames: Vec<_> = (0..count).map(|number| victim.sealed((flood.frame)(number))).collect();
    let _kept = frames.clone();
    let before = victim.fed;
    let used = allocation_counter::measure(|| {
        for (number, frame) in frames.iter().enumerate() {
            victim.feed(frame.clone());
            if number % 100 == 99 {
                victim.wait(MILLISECOND);
                victim.tidy();
            }
        }
    });
    let fed = (victim.fed - before) as u64;
    (used, fed, victim)
}

#[test]
fn floods_cost_no_more_than_their_bytes_and_leave_nothing_behind() {
    let mut wrong = Vec::new();
    for flood in floods() {
        for target in TARGETS {
            let (few, _, _) = suffer(target, &flood, 1000);
            let (many, fed, victim) = suffer(target, &flood, 8000);
            assert_peers_fault(&victim, flood.name);
            let name = flood.name;
            let linear = many.bytes_total <= 9 * few.bytes_total + 4096 && many.count_total <= 9 * few.count_total + 64;
            let held = many.bytes_max <= few.bytes_max * 5 / 4 + flood.may_hold;
            // Who asks for an op again gets it: that is the most that a byte can ask for.
            let answered = victim.bytes_sent as u64 <= 5 * fed + 4096;
            if !(linear && held && answered) {
                wrong.push(format!(
                    "{target:?} {name}: {fed} bytes, {} sent\n   {few:?}\n   {many:?}",
                    victim.bytes_sent
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// However many documents are open, a small frame costs little.
#[test]
fn a_frame_costs_the_same_with_many_documents_open() {
    let cost = |target: Target, documents: u32, frame: Frames| {
        let mut victim = Victim::at(target, Setup { documents: 10_000, ..RELIABLE }, Stage::Opened);
        victim.quiet = true;
        for number in 0..documents {
            victim.feed(open(100 + number, &document(&format!("{number:05}")), |_| {}));
        }
        let frames: Vec<_> = (0..1000).map(frame).collect();
        let used = allocation_counter::measure(|| frames.into_iter().for_each(|frame| victim.feed(frame)));
        assert_eq!(victim.ending(), None);
        used.bytes_total
    };
    for target in TARGETS {
        let pings = |token| Message::Ping(Ping { token, blocked: true }).encode();
        let frames: [Frames; 3] = [pings, |number| ack(number + 1, 0, 0), |_| live(5, 1, b"x")];
        for frame in frames {
            let (few, many) = (cost(target, 1, frame), cost(target, 1000, frame));
            assert!(many <= few * 2 + 4096, "{target:?}: {few} bytes with one document, {many} with a thousand");
        }
    }
}

/// On datagrams, what comes too early is kept, and no more than the window of it.
#[test]
fn what_comes_early_is_kept_within_the_window() {
    let floods: [(&str, Frames); 4] = [
        ("ops beyond a gap", |number| live(number + 1, number + 2, &[7; 100])),
        ("nothing beyond a gap", |number| nothing(2 * number + 1, 1)),
        ("tiny ops beyond a gap", |number| bulk(10 * number + 1, 10 * number + 2, 10, 0)),
        ("control messages beyond a gap", |number| Message::Reliable(number + 10, resume(99, None)).encode()),
    ];
    for (name, frame) in floods {
        for target in TARGETS {
            let mut victim = Victim::at(target, DATAGRAM, Stage::Opened);
            victim.quiet = true;
            let frames: Vec<_> = (0..20_000).map(|number| victim.sealed(frame(number))).collect();
            let used = allocation_counter::measure(|| {
                for (number, datagram) in frames.iter().enumerate() {
                    victim.feed(Bytes::copy_from_slice(datagram));
                    if number % 1000 == 999 {
                        victim.wait(MILLISECOND);
                    }
                }
            });
            assert_eq!(victim.ending(), None, "{target:?}: {name}");
            let bound = 8 * u64::from(limits().window);
            assert!(used.bytes_max <= bound, "{target:?}: {name}: {used:?}");
        }
    }
}

// -------------------------------------------------------------------------------------------- replays and damage

/// What an honest peer sends, from the first frame on: ops alone, in bulk and in parts, and acknowledgements.
fn honest(victim: &Victim) -> Vec<Bytes> {
    let mut frames = victim.script(Stage::Opened);
    let mut number = (frames.len() - 2) as u64;
    let mut later =
        vec![live(0, 1, b"one"), bulk(1, 2, 20, 30), ack(1, 1, 0), nothing(21, 3), live(24, 22, b"after nothing")];
    for offset in [0, 700, 1400] {
        let piece = Bytes::from(vec![4; 700]);
        later.push(changes(OURS, 25, Content::Part { author: 0, seq: 23, offset, total: 2100, piece }));
    }
    later.extend([
        ack_with(2, OWN_OPS, OWN_OPS, |ack| ack.skip = Some(Skip { document: OURS, from: 26, to: 27 })),
        Message::Ping(Ping { token: 3, blocked: true }).encode(),
        author(OURS, 1, replica_number(9), 0),
        changes(OURS, 27, Content::Live { author: 1, seq: 1, body: Body::Blank(BodyHash(4)) }),
        Message::Credit(Credit { number: 3, total: 1 << 15 }).encode(),
        rewind(4, OWN_OPS, Point::at(OWN_OPS), None),
        open(8, &document("other"), |_| {}),
        Message::Close(end(&document("other"))).encode(),
    ]);
    for frame in later {
        let control = matches!(
            Message::decode(&frame),
            Ok(Message::Author(_) | Message::Open(_) | Message::Close(_) | Message::Resume(_))
        );
        let frame = if control && victim.is_datagram() {
            number += 1;
            Message::Reliable(number - 1, frame).encode()
        } else {
            frame
        };
        frames.push(victim.sealed(frame));
    }
    frames
}

/// What the victim holds of the document in the end.
fn digest(victim: &mut Victim) -> u64 {
    match &mut victim.kind {
        Kind::Session(_, host) => host.log(THEIRS).heads().digest(),
        Kind::Replica(rig, _) => rig.ends[0].replica.document(&doc()).expect("it is loaded").0.digest(),
    }
}

#[test]
fn replays_on_datagrams_change_nothing() {
    for target in TARGETS {
        let mut straight = Victim::new(target, DATAGRAM);
        honest(&straight).into_iter().for_each(|frame| straight.feed(frame));
        let mut victim = Victim::new(target, DATAGRAM);
        let frames = honest(&victim);
        for index in 0..frames.len() {
            victim.feed(frames[index].clone());
            frames[..=index].iter().for_each(|frame| victim.feed(frame.clone()));
            assert_eq!(victim.ending(), None, "{target:?}: after frame {index}");
        }
        victim.wait(SECOND);
        straight.wait(SECOND);
        assert_eq!(digest(&mut victim), digest(&mut straight), "{target:?}: every op was applied once");
    }
}

#[test]
fn replays_on_reliable_links_are_harmless_or_refused() {
    for target in TARGETS {
        let count = honest(&Victim::new(target, RELIABLE)).len();
        for (first, second) in (0..count).flat_map(|first| (first..count).map(move |second| (first, second))) {
            let mut victim = Victim::new(target, RELIABLE);
            let frames = honest(&victim);
            for (index, frame) in frames.iter().enumerate() {
                victim.feed(frame.clone());
                if index == second {
                    victim.feed(frames[first].clone());
                }
            }
            victim.wait(SECOND);
            assert_peers_fault(&victim, "a replay");
            if victim.ending().is_none() {
                let mut straight = Victim::new(target, RELIABLE);
                frames.into_iter().for_each(|frame| straight.feed(frame));
                straight.wait(SECOND);
                assert_eq!(digest(&mut victim), digest(&mut straight), "{target:?}: {first} after {second}");
            }
        }
    }
}

/// Frames of an honest peer that were damaged, doubled, dropped, swapped or grown.
#[test]
fn damaged_frames_never_panic_and_are_the_peers_fault() {
    for seed in 0..3000 {
        let mut dice = Rng::new(seed);
        let target = TARGETS[dice.below(2) as usize];
        let setup = if dice.below(3) == 0 { DATAGRAM } else { RELIABLE };
        let mut victim = Victim::new(target, setup);
        let mut frames = honest(&victim);
        // Most of the time the handshake is left alone: there is more to break behind it.
        let first = if dice.below(10) == 0 { 0 } else { 2 };
        for _ in 0..1 + dice.below(6) {
            let index = first + dice.below((frames.len() - first) as u64) as usize;
            match dice.below(8) {
                0 => frames.insert(index, frames[dice.below(frames.len() as u64) as usize].clone()),
                1 => _ = frames.remove(index),
                2 => frames.swap(index, first),
                _ => {
                    // The trailer is made anew, so that the damage gets past it.
                    let frame = victim.tags.map_or(Some(frames[index].clone()), |tags| tags[1].unseal(&frames[index]));
                    let mut bytes = frame.unwrap_or_default().to_vec();
                    damage(&mut bytes, &mut dice);
                    frames[index] = victim.sealed(bytes.into());
                }
            }
        }
        let used = allocation_counter::measure(|| {
            for frame in frames {
                victim.feed(frame);
                if dice.below(4) == 0 {
                    victim.wait(MILLISECOND * dice.below(100) as u32);
                }
            }
            victim.wait(SECOND);
        });
        assert_peers_fault(&victim, &format!("seed {seed}"));
        assert!(used.bytes_max <= 512 << 10, "seed {seed}: {used:?}");
    }
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Rng) {
    let index = dice.below(bytes.len() as u64) as usize;
    match dice.below(6) {
        _ if bytes.is_empty() => bytes.push(dice.next_u64() as u8),
        0 => bytes[index] ^= 1 << dice.below(8),
        1 => bytes[index] = dice.next_u64() as u8,
        2 => bytes.truncate(index),
        3 => bytes.insert(index, dice.next_u64() as u8),
        4 => {
            // A number as large as numbers get.
            let mut number = Vec::new();
            put_varint(&mut number, u64::MAX >> dice.below(64));
            bytes.splice(index..=index, number);
        }
        _ => _ = bytes.remove(index),
    }
}
