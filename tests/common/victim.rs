//! A victim: a bare session, or a replica with its disk, whose peer is the test and keeps to no rule.

mod host;

use std::time::Duration;

use antiphon::codes::{Code, Fault};
use antiphon::digest::BodyHash;
use antiphon::op::{DocumentId, ReplicaId, Timeline};
use antiphon::replica::{self, Event};
use antiphon::rng::Rng;
use antiphon::session::{self, By, Ending, Input, Local, Transport};
use antiphon::wire::*;
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;

use self::host::Host;
use super::crafted::{NONCE, OURS, THEIRS, author, hello, open, stranger};
use super::rig::Rig;
use super::{SECOND, doc, document};

/// Small limits: what they must keep out is soon larger.
pub const fn limits() -> Limits {
    Limits { frame: 8 << 10, op: 64 << 10, window: 16 << 10, credit: 32 << 10, documents: 8, authors: 32 }
}

fn config(setup: Setup) -> session::Config {
    let limits = Limits { documents: setup.documents, ..limits() };
    session::Config { transport: setup.transport, limits, ..session::Config::default() }
}

#[derive(Clone, Copy, Debug)]
pub enum Target {
    Session,
    Replica,
}

pub const TARGETS: [Target; 2] = [Target::Session, Target::Replica];

/// How the victim is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub transport: Transport,
    pub grant: Access,
    /// How many documents a session may have open.
    pub documents: u32,
}

pub const RELIABLE: Setup =
    Setup { transport: Transport::Reliable, grant: Access::Write, documents: limits().documents };
pub const DATAGRAM: Setup = Setup { transport: Transport::Datagram { mtu: 1200 }, ..RELIABLE };

pub struct Victim {
    setup: Setup,
    kind: Kind,
    /// The victim's Hello and ours, as frames.
    hellos: [Bytes; 2],
    tags: Option<[Tag; 2]>,
    /// Everything that it sent, as messages.
    pub sent: Vec<Message>,
    /// Whether what it sends is only counted.
    pub quiet: bool,
    /// Bytes that it was fed, and bytes that it sent.
    pub fed: usize,
    pub bytes_sent: usize,
}

enum Kind {
    Session(Box<Session>, Box<Host>),
    Replica(Box<Rig>, usize),
}

/// How many ops the victim has made itself, of 20 bytes each.
pub const OWN_OPS: u64 = 3;
/// Cost of what a replica keeps of a document in memory.
pub const TAIL: u64 = 4 << 10;

/// How far the honest part goes.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
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

impl Victim {
    pub fn new(target: Target, setup: Setup) -> Self {
        let kind = match target {
            Target::Session => {
                let (timeline, nonce) = (Timeline::new(10), Rng::new(5).next_u64());
                let local = Local { replica: ReplicaId([1; 16]), timeline, previous: None, nonce, token: None };
                let session = Session::new(Instant::ZERO, config(setup), local);
                Kind::Session(Box::new(session), Box::new(Host::new(setup.grant)))
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
            victim.tags = Some([Tag::new(theirs.nonce, NONCE), Tag::new(NONCE, theirs.nonce)]);
        }
        victim
    }

    /// In the state in which the documents of the script are open.
    pub fn at(target: Target, setup: Setup, stage: Stage) -> Self {
        let mut victim = Self::new(target, setup);
        let frames = victim.script(stage);
        frames.into_iter().for_each(|frame| victim.feed(frame));
        assert_eq!(victim.ending(), None, "{stage:?}");
        victim
    }

    pub fn is_datagram(&self) -> bool {
        self.setup.transport != Transport::Reliable
    }

    /// What an honest peer sends to get so far.
    pub fn script(&self, stage: Stage) -> Vec<Bytes> {
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

    pub fn feed(&mut self, frame: Bytes) {
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
            Kind::Session(session, host) => host.settle(session, &mut frames),
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
    pub fn wait(&mut self, duration: Duration) {
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

    pub fn now(&self) -> Instant {
        match &self.kind {
            Kind::Session(_, host) => host.now,
            Kind::Replica(rig, _) => rig.now,
        }
    }

    pub fn ending(&self) -> Option<Ending> {
        match &self.kind {
            Kind::Session(_, host) => host.ending.clone(),
            Kind::Replica(rig, wire) => rig.ends[0].events.iter().find_map(|event| match event {
                Event::Disconnected { link, ending } if link.0 == *wire as u64 => ending.clone(),
                _ => None,
            }),
        }
    }

    /// The codes with which it closed or refused documents.
    pub fn closes(&self) -> Vec<Code> {
        let ends = self.sent.iter().filter_map(|message| match message {
            Message::Close(end) | Message::Denied(end) => Some(end.code),
            _ => None,
        });
        ends.collect()
    }

    /// Whoever ended it, it was not for a fault of the victim's.
    #[track_caller]
    pub fn assert_peers_fault(&self, name: &str) {
        if let Some(ending) = self.ending() {
            let known = [Code::VERSION_MISMATCH, Code::SAME_REPLICA];
            let peers = ending.by == By::Peer || ending.code.fault() == Fault::Peer || known.contains(&ending.code);
            assert!(peers, "{name}: the peer is not at fault in {ending:?}");
        }
    }

    /// What it holds of the document.
    pub fn digest(&mut self) -> u64 {
        match &mut self.kind {
            Kind::Session(_, host) => host.log(THEIRS).heads().digest(),
            Kind::Replica(rig, _) => rig.ends[0].replica.document(&doc()).expect("it is loaded").0.digest(),
        }
    }

    /// From now on its storage writes nothing.
    pub fn stall(&mut self, document: &DocumentId) {
        match &mut self.kind {
            Kind::Session(_, host) => host.stalled = true,
            Kind::Replica(rig, _) => _ = rig.ends[0].stalled.insert(document.clone()),
        }
    }

    /// From now on its transport takes nothing.
    pub fn choke(&mut self) {
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
    pub fn tidy(&mut self) {
        if let Kind::Replica(rig, _) = &mut self.kind {
            rig.sync(0);
            rig.ends[0].events.retain(|event| matches!(event, Event::Disconnected { .. }));
        }
    }

    /// What it holds of what peers sent, as it says itself.
    pub fn holds(&self) -> u64 {
        match &self.kind {
            Kind::Session(session, _) => session.under_way().1,
            Kind::Replica(rig, _) => rig.ends[0].replica.memory_cost(),
        }
    }

    /// A frame as it goes on the wire.
    pub fn sealed(&self, frame: Bytes) -> Bytes {
        match self.tags {
            Some(tags) => tags[1].seal(&frame),
            None => frame,
        }
    }

    /// A frame of ours as it was before it was [`sealed`](Self::sealed).
    pub fn unsealed(&self, frame: &Bytes) -> Bytes {
        match self.tags {
            Some(tags) => tags[1].unseal(frame).unwrap_or_default(),
            None => frame.clone(),
        }
    }

    /// The rig of a victim that is a replica, end 0 of it.
    pub fn rig(&self) -> &Rig {
        match &self.kind {
            Kind::Replica(rig, _) => rig,
            Kind::Session(..) => panic!("it is a bare session"),
        }
    }

    /// A replica goes on: another peer connects, and gets in step.
    pub fn still_serves(&mut self) {
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
