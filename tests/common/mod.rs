//! What the topics share: short words for worlds of replicas.

#![allow(dead_code, unreachable_pub)] // each topic is a crate of its own and uses some of it

pub mod crafted;
pub mod restored;
pub mod rig;
pub mod sessions;
pub mod victim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::heads::{Heads, Judgement};
use antiphon::log::Log;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::replica::{Config, Event, Options};
use antiphon::session::{self, By, Opening, Transport};
use antiphon::storage::{Batch, Storage, Transaction};
use antiphon::timeline::Opens;
use antiphon::wire::{Access, Content, Message, TRAILER_BYTES};
use antiphon::{Instant, Session};
use antiphon_memory::{Disk, Pair};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::world::{Medium, NodeId, PathId};
use bytes::Bytes;

/// The document that most tests use.
pub fn doc() -> DocumentId {
    document("doc")
}

pub fn document(name: &str) -> DocumentId {
    name.parse().expect("the name is valid")
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLISECOND: Duration = Duration::from_millis(1);

/// A path that only takes its time.
pub const FAULTLESS: Faults = Faults { latency: Duration::from_millis(20), ..Faults::NONE };

/// A world of `count` replicas that have the document open.
pub fn world(seed: u64, count: usize) -> (World, Vec<NodeId>) {
    let mut world = World::new(seed);
    let nodes: Vec<_> = (0..count).map(|_| world.add(Config::default())).collect();
    for node in &nodes {
        world.open(*node, &doc(), Options::default());
    }
    (world, nodes)
}

/// The bodies of a document in the order of its log, as a disk holds them.
pub fn bodies_on(disk: &Disk, document: &DocumentId) -> Vec<Vec<u8>> {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    let mut bodies = Vec::new();
    loop {
        let entries = storage.read(document, bodies.len() as u64, u64::MAX).expect("the disk works");
        if entries.is_empty() {
            return bodies;
        }
        bodies.extend(entries.iter().map(|entry| entry.op.body.bytes().map(|body| body.to_vec()).unwrap_or_default()));
    }
}

/// The set of bodies on a disk; bodies must differ.
pub fn set_on(disk: &Disk, document: &DocumentId) -> BTreeSet<Vec<u8>> {
    let bodies = bodies_on(disk, document);
    let set: BTreeSet<_> = bodies.iter().cloned().collect();
    assert_eq!(set.len(), bodies.len(), "no op is in a log twice");
    set
}

/// The digest of the heads on a disk.
pub fn digest_on(disk: &Disk, document: &DocumentId) -> u64 {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    storage.document(document).expect("the disk works").heads.digest()
}

/// Whether all disks hold the same of a document.
pub fn same_on_disks(world: &World, nodes: &[NodeId], document: &DocumentId) -> bool {
    let mut digests = nodes.iter().map(|node| digest_on(world.disk(*node), document));
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

/// Runs until all disks hold the same, and checks that the ops are the same too.
#[track_caller]
pub fn converge(world: &mut World, nodes: &[NodeId], document: &DocumentId, limit: Duration) {
    let done = world.run_until(limit, |world| same_on_disks(world, nodes, document));
    assert!(done, "not in step after {limit:?}");
    let sets: Vec<_> = nodes.iter().map(|node| set_on(world.disk(*node), document)).collect();
    assert!(sets.windows(2).all(|pair| pair[0] == pair[1]), "equal heads, different ops");
}

/// How often an event of a kind was told.
pub fn count(world: &World, node: NodeId, kind: impl Fn(&Event) -> bool) -> usize {
    world.events(node).filter(|event| kind(event)).count()
}

pub fn in_steps(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::InStep { .. }))
}

pub fn forks(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Forked { .. }))
}

/// The least that a bare session needs of a host: it lets everyone in and holds one document in memory.
pub struct Host {
    pub replica: ReplicaId,
    pub log: Log,
    /// How far the peer's log is held, if that is to be told.
    pub cursor: Option<Cursor>,
    pub events: Vec<session::Event>,
}

impl Host {
    /// With `ops` ops of its own, of 20 bytes each, in an open that drew `timeline`.
    pub fn new(replica: ReplicaId, timeline: Timeline, ops: u8) -> Self {
        let mut log = Log::new(Arc::new(Opens::first(timeline)));
        for number in 0..ops {
            log.append(replica, Body::Bytes(Bytes::from(vec![number; 20])));
        }
        Self { replica, log, cursor: None, events: Vec::new() }
    }

    pub fn opening(&self) -> session::Input {
        self.opening_of(doc(), 0)
    }

    /// The log under another name and number.
    pub fn opening_of(&self, document: DocumentId, number: u32) -> session::Input {
        session::Input::Open(Box::new(Opening {
            number,
            document,
            access: Access::Write,
            grant: Access::Write,
            thorough: false,
            schema: None,
            history: self.log.history().clone(),
            horizon: 0,
            snapshot: None,
            tail: self.log.tail(),
            heads: self.log.heads().clone(),
            cursor: self.cursor,
        }))
    }

    pub fn answer(&mut self, output: session::Output) -> Vec<session::Input> {
        use session::{Event, Input, Output};
        let answer = match output {
            Output::Authenticate { .. } => Input::Authenticated(Ok(())),
            Output::Event(event) => {
                let asks = matches!(&event, Event::PeerOpened { document, .. } if *document == doc());
                self.events.push(event);
                return if asks { vec![self.opening()] } else { Vec::new() };
            }
            Output::Load { number, from, max_cost } => {
                let chunk = self.log.read(from, max_cost).expect("all is in memory");
                Input::Loaded { number, chunk }
            }
            Output::Compare { number, heads } => {
                let comparison = self.log.compare(&heads).expect("all is in memory");
                Input::Compared { number, comparison }
            }
            Output::Take { number, origin, to, ops, .. } => {
                for op in ops {
                    assert_ne!(self.log.take(op, Some(origin)), Judgement::Gap, "sessions leave no gaps");
                }
                let (tail, digest) = (self.log.tail(), self.log.heads().digest());
                Input::Advance { number, tail, digest, held: to, live: None }
            }
            Output::ReadSnapshot { .. } | Output::TakeSnapshot { .. } => unreachable!("nobody compacts here"),
            Output::Transmit(_) => unreachable!("frames are the caller's"),
        };
        vec![answer]
    }

    pub fn is_in_step(&self) -> bool {
        self.events.iter().any(|event| matches!(event, session::Event::InStep { .. }))
    }

    pub fn ending(&self) -> Option<(Code, By)> {
        self.events.iter().find_map(|event| match event {
            session::Event::Closed(ending) => Some((ending.code, ending.by)),
            _ => None,
        })
    }
}

/// Delivers everything between two sessions, and lets time go by until `end`.
pub fn run_pair(pair: &mut Pair<Session>, hosts: &mut [Host; 2], now: Instant, end: Instant) {
    let mut now = now;
    loop {
        pair.settle(now, |side, output| hosts[side].answer(output)).expect("hosts answer what they are asked");
        let Some(due) = pair.deadline().filter(|due| *due <= end) else { return };
        now = now.max(due);
        for side in 0..2 {
            pair.handle(now, side, session::Input::Timer).expect("timers are never misuse");
        }
    }
}

/// The entries of a document in the order of its log, as a disk holds them.
pub fn entries_on(disk: &Disk, document: &DocumentId) -> Vec<Entry> {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    let tail = storage.document(document).expect("the disk works").tail;
    let entries = storage.read(document, 0, u64::MAX).expect("the disk works");
    assert_eq!(entries.len() as u64, tail, "everything is read at once");
    entries
}

/// How far the log of a peer is held, as a disk has it.
pub fn cursor_on(disk: &Disk, document: &DocumentId, peer: ReplicaId) -> Option<Cursor> {
    let mut storage = disk.backup().open().expect("a copy has no holder");
    storage.cursor(document, peer).expect("the disk works")
}

/// Holds the promise against the disks: whatever is told to an app as applied, received or acknowledged is on the disk
/// that the word is about, at the moment at which it is told. For worlds in which no log is reset.
#[derive(Default)]
pub struct Promises {
    seen: BTreeMap<NodeId, usize>,
    pub acknowledgements: usize,
}

impl Promises {
    /// Checks what was told since the last check.
    #[track_caller]
    pub fn check(&mut self, world: &World, nodes: &[NodeId]) {
        for node in nodes {
            let seen = self.seen.entry(*node).or_default();
            let events: Vec<_> = world.events(*node).skip(*seen).collect();
            *seen += events.len();
            for event in events {
                match event {
                    Event::Applied { document, position, .. } => {
                        let tail = entries_on(world.disk(*node), document).len() as u64;
                        assert!(*position <= tail, "{node:?} told of {position} as applied and holds {tail}");
                    }
                    Event::Received { batch } => {
                        let tail = entries_on(world.disk(*node), &batch.document).len() as u64;
                        assert!(batch.tail() <= tail, "{node:?} told of what is not on its disk");
                    }
                    Event::Acknowledged { link, document, position } => {
                        self.acknowledgements += 1;
                        let (_, peer) = world.peer_of(*link).expect("the link was up");
                        let mine = entries_on(world.disk(*node), document);
                        let theirs: BTreeSet<OpId> =
                            entries_on(world.disk(peer), document).iter().map(|entry| entry.op.id).collect();
                        for entry in &mine[..*position as usize] {
                            assert!(theirs.contains(&entry.op.id), "{peer:?} acknowledged {:?}", entry.op.id);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Runs for `duration` and checks after every event.
    #[track_caller]
    pub fn run_for(&mut self, world: &mut World, nodes: &[NodeId], duration: Duration) {
        world.run_until(duration, |world| {
            self.check(world, nodes);
            false
        });
    }
}

/// A datagram's frame without its trailer, or any other frame as it is; and what Reliable wraps.
pub fn unwrapped(frame: &Bytes, transport: Transport) -> Message {
    let trailer = if transport == Transport::Reliable { 0 } else { TRAILER_BYTES };
    match Message::decode(&frame.slice(..frame.len() - trailer)).expect("replicas send what can be decoded") {
        Message::Reliable(_, inner) => Message::decode(&inner).expect("replicas send what can be decoded"),
        message => message,
    }
}

/// How many ops a message carries; the last part of an op counts for it.
pub fn ops_in(message: &Message) -> usize {
    match message {
        Message::Changes(changes) => match &changes.content {
            Content::Live { .. } => 1,
            Content::Bulk { bodies, .. } => bodies.len(),
            Content::Part { offset, total, piece, .. } => {
                usize::from(*offset as usize + piece.len() == *total as usize)
            }
        },
        _ => 0,
    }
}

/// What a replica sent on one path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    pub frames: usize,
    pub bytes: usize,
    pub ops: usize,
    pub messages: Vec<Message>,
}

impl Traffic {
    pub fn count(&self, name: &str) -> usize {
        self.messages.iter().filter(|message| message.name() == name).count()
    }

    pub fn opens(&self) -> impl Iterator<Item = &antiphon::wire::Open> {
        self.messages.iter().filter_map(|message| match message {
            Message::Open(open) => Some(open),
            _ => None,
        })
    }
}

/// What a replica sent on a path since the transcript had `since` frames.
pub fn traffic(world: &World, since: usize, node: NodeId, path: PathId, medium: Medium) -> Traffic {
    let mut traffic = Traffic::default();
    for sent in world.transcript()[since..].iter().filter(|sent| (sent.from, sent.path) == (node, path)) {
        let message = unwrapped(&sent.frame, medium.transport);
        traffic.frames += 1;
        traffic.bytes += sent.frame.len();
        traffic.ops += ops_in(&message);
        traffic.messages.push(message);
    }
    traffic
}

/// The sessions that ended at a replica.
pub fn disconnects(world: &World, node: NodeId) -> usize {
    count(world, node, |event| matches!(event, Event::Disconnected { .. }))
}

/// A disk with a document of `authors` authors, who take turns until each has made `each` ops of `bytes` bytes. More
/// ops of the same author begin with the same ones.
pub fn disk_with(document: &DocumentId, authors: u64, each: impl Fn(u64) -> u64, bytes: usize) -> Disk {
    let disk = Disk::new();
    let mut heads = Heads::new();
    let mut entries = Vec::new();
    for seq in 1..=(0..authors).map(&each).max().unwrap_or(0) {
        for author in (0..authors).filter(|author| seq <= each(*author)) {
            let id = OpId { author: author_id(author), seq };
            let mut body = format!("{author}/{seq}/").into_bytes();
            body.resize(body.len().max(bytes), b'.');
            let body = Body::Bytes(body.into());
            let head = heads.get(id.author).then(body.hash());
            heads.set(id.author, head);
            entries.push(Entry { op: Op { id, body }, chain: head.chain, origin: None });
        }
    }
    let (position, cursors) = (0, Vec::new());
    let batch = Batch { document: document.clone(), position, entries, cursors, timeline: None, salvaged: None };
    let mut storage = disk.open().expect("nobody has it");
    storage.write(&Transaction::Append(Arc::new(batch))).expect("the disk works");
    drop(storage);
    disk
}

/// An author that [`disk_with`] makes up.
pub fn author_id(author: u64) -> ReplicaId {
    let mut id = [0xaa; 16];
    id[..8].copy_from_slice(&antiphon::rng::Rng::new(author).next_u64().to_le_bytes());
    ReplicaId(id)
}
