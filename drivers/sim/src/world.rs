//! A small world in virtual time: replicas on simulated disks, joined by paths of two lossy links.
//!
//! Nothing here reads a clock or the system's randomness: a world made of the same seed and driven by the same calls
//! does the same, to the last byte.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use antiphon::codes::{Code, Retry};
use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{Config, Event, Input, LinkId, Options, Output, Replica, Ticket};
use antiphon::retry::Backoff;
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Request, Storage};
use antiphon::{Instant, Machine};
use antiphon_memory::{Disk, MemoryStorage};
use bytes::Bytes;

use crate::link::{self, Counters, Faults, Link};

/// A replica of a world, whether it is up or not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(usize);

/// A path between two replicas of a world.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PathId(usize);

/// What a path is.
#[derive(Clone, Copy, Debug)]
pub struct Medium {
    /// What its frames suffer, in both directions.
    pub faults: Faults,
    /// What its sessions are told that it is. Faults other than latency need a datagram.
    pub transport: Transport,
    /// The second replica of the path is the authority of documents opened so by the first.
    pub upstream: bool,
}

impl Medium {
    /// A path that loses nothing and keeps the order, with this latency in each direction.
    pub fn reliable(latency: Duration) -> Self {
        let faults = Faults { latency, ..Faults::RELIABLE };
        Self { faults, transport: Transport::Reliable, upstream: false }
    }

    /// A path of datagrams of up to 1,200 bytes.
    pub fn datagram(faults: Faults) -> Self {
        Self { faults, transport: Transport::Datagram { mtu: 1200 }, upstream: false }
    }

    /// The same path, with the second replica as the authority for the first.
    #[must_use]
    pub fn upstream(self) -> Self {
        Self { upstream: true, ..self }
    }
}

/// What is done to one frame, whatever the path's faults do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tamper {
    /// It never arrives.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// The next frame from the same end goes before it. If there is none, it never arrives.
    Swap,
    /// This bit of it, counted from the first and over again, is another.
    Flip(u64),
}

/// How a replica goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// The process ends; everything that was written stays.
    Kill,
    /// The machine goes dark; of what was not synced only so many writes stay.
    PowerLoss {
        /// How many.
        keep: usize,
    },
}

/// Replicas, disks and paths, and the time.
#[derive(Debug)]
pub struct World {
    now: Instant,
    rng: Rng,
    nodes: Vec<Node>,
    paths: Vec<Path>,
    next_link: u64,
    transcript: Option<Vec<Sent>>,
}

/// A frame that a replica sent, in a transcript.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// Who.
    pub from: NodeId,
    /// On which path.
    pub path: PathId,
    /// What, as it went: with the trailer of a datagram.
    pub frame: Bytes,
}

#[derive(Debug)]
struct Node {
    disk: Disk,
    config: Config,
    opened: BTreeMap<DocumentId, Options>,
    up: Option<Up>,
    events: Vec<(Instant, Event)>,
    /// How long each request to the storage takes, and whether none is answered at all.
    storage_delay: Duration,
    storage_stalled: bool,
}

/// What a running replica has and loses when it goes down.
#[derive(Debug)]
struct Up {
    replica: Replica,
    storage: MemoryStorage,
    requests: VecDeque<(Instant, Ticket, Request)>,
    links: BTreeMap<LinkId, (PathId, Side)>,
}

/// The end of a path: 0 is the replica that was named first.
type Side = usize;

#[derive(Debug)]
struct Path {
    medium: Medium,
    ends: [NodeId; 2],
    /// The links by which the frames of each side travel to the other, and the number that it has at each end. `None`:
    /// not connected.
    wire: Option<Wire>,
    up: bool,
    backoff: Backoff,
    /// When it is tried again.
    retry_at: Option<Instant>,
    counters: [Counters; 2],
    /// How many frames were sent on it, and what is to be done to some of them.
    sent: u64,
    tampers: BTreeMap<u64, Tamper>,
    /// Frames of each side that wait for the next one to go first.
    swapped: [Option<Bytes>; 2],
}

impl Path {
    /// The next frame of a side becomes these, on a path that tampers with some.
    fn tampered(&mut self, side: Side, frame: Bytes) -> Vec<Bytes> {
        let index = self.sent;
        self.sent += 1;
        let mut frames = match self.tampers.remove(&index) {
            None => vec![frame],
            Some(Tamper::Drop) => Vec::new(),
            Some(Tamper::Duplicate) => vec![frame.clone(), frame],
            Some(Tamper::Swap) => {
                self.swapped[side] = Some(frame);
                return Vec::new();
            }
            Some(Tamper::Flip(bit)) => {
                let bit = bit % (8 * frame.len() as u64);
                vec![link::flip(&frame, bit)]
            }
        };
        frames.extend(self.swapped[side].take());
        frames
    }
}

#[derive(Debug)]
struct Wire {
    links: [Link; 2],
    ids: [LinkId; 2],
}

impl World {
    /// An empty world, whose randomness all comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            paths: Vec::new(),
            next_link: 0,
            transcript: None,
        }
    }

    /// Keeps every frame that is sent from now on.
    pub fn record(&mut self) {
        self.transcript.get_or_insert_default();
    }

    /// The frames that were kept.
    pub fn transcript(&self) -> &[Sent] {
        self.transcript.as_deref().unwrap_or_default()
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    // ---------------------------------------------------------------------------------------- replicas

    /// A new replica on a disk of its own, which is started.
    pub fn add(&mut self, config: Config) -> NodeId {
        self.add_on(Disk::new(), config, Continuity::Proven)
    }

    /// A replica on this disk, which may hold something, as a restored backup does; it is started.
    pub fn add_on(&mut self, disk: Disk, config: Config, continuity: Continuity) -> NodeId {
        let node = NodeId(self.nodes.len());
        self.nodes.push(Node {
            disk,
            config,
            opened: BTreeMap::new(),
            up: None,
            events: Vec::new(),
            storage_delay: Duration::ZERO,
            storage_stalled: false,
        });
        self.start(node, continuity);
        node
    }

    /// Starts a replica that is down, with the documents that it had open. False if its disk fails; it stays down then.
    pub fn start(&mut self, node: NodeId, continuity: Continuity) -> bool {
        let mut entropy = self.rng.fork();
        let seed: [u8; 32] = std::array::from_fn(|_| entropy.next_u64() as u8);
        let state = &mut self.nodes[node.0];
        if state.up.is_some() {
            return true;
        }
        let Ok(mut storage) = state.disk.open() else { return false };
        let Ok(identity) = storage.open(continuity, &mut entropy) else { return false };
        let replica = Replica::new(state.config.clone(), identity, seed);
        state.up = Some(Up { replica, storage, requests: VecDeque::new(), links: BTreeMap::new() });
        let opened = state.opened.clone();
        for (document, options) in opened {
            self.input(node, Input::Open { document, options });
        }
        let mine = (0..self.paths.len()).filter(|path| self.paths[*path].ends.contains(&node));
        mine.collect::<Vec<_>>().into_iter().for_each(|path| self.connect_now(PathId(path)));
        self.settle();
        true
    }

    /// Takes a replica down without warning.
    pub fn crash(&mut self, node: NodeId, how: Crash) {
        let state = &mut self.nodes[node.0];
        let Some(up) = state.up.take() else { return };
        match how {
            Crash::Kill => state.disk.kill(),
            Crash::PowerLoss { keep } => state.disk.lose_power(keep),
        }
        drop(up); // only now: a storage that is dropped while it holds the disk closes it in order, which syncs it
        self.drop_paths_of(node);
        self.settle();
    }

    /// Takes a replica down in order: sessions say goodbye, and what was written is synced.
    pub fn stop(&mut self, node: NodeId) {
        let links: Vec<_> = self.nodes[node.0].up.iter().flat_map(|up| up.links.keys()).copied().collect();
        for link in links {
            let (code, reason) = (Code::SHUTDOWN, String::from("shutting down"));
            self.input(node, Input::Disconnect { link, code, reason, retry_after: None });
        }
        self.settle();
        if let Some(mut up) = self.nodes[node.0].up.take() {
            while let Some((_, _, request)) = up.requests.pop_front() {
                let _ = up.storage.execute(&request);
            }
            let _ = up.storage.sync();
        }
        self.nodes[node.0].disk.kill();
        self.drop_paths_of(node);
        self.settle();
    }

    /// Puts another disk into a replica that is down.
    ///
    /// # Panics
    /// If it is up.
    pub fn replace_disk(&mut self, node: NodeId, disk: Disk) {
        assert!(self.nodes[node.0].up.is_none(), "disks are replaced while a replica is down");
        self.nodes[node.0].disk = disk;
    }

    /// A replica's disk.
    pub fn disk(&self, node: NodeId) -> &Disk {
        &self.nodes[node.0].disk
    }

    /// Whether a replica is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[node.0].up.is_some()
    }

    /// A replica, if it is up.
    pub fn replica(&self, node: NodeId) -> Option<&Replica> {
        self.nodes[node.0].up.as_ref().map(|up| &up.replica)
    }

    /// Who a replica is.
    ///
    /// # Panics
    /// If it is down.
    pub fn id(&self, node: NodeId) -> ReplicaId {
        self.replica(node).expect("the replica is up").id()
    }

    /// How long each request to the storage of a replica takes from now on.
    pub fn set_storage_delay(&mut self, node: NodeId, delay: Duration) {
        self.nodes[node.0].storage_delay = delay;
    }

    /// Whether a replica's storage answers at all.
    pub fn stall_storage(&mut self, node: NodeId, stalled: bool) {
        self.nodes[node.0].storage_stalled = stalled;
        self.settle();
    }

    /// Makes everything that a replica has written so far survive a loss of power.
    pub fn sync(&mut self, node: NodeId) {
        if let Some(up) = &mut self.nodes[node.0].up {
            let _ = up.storage.sync();
        }
    }

    /// What a replica told its app, since its first start.
    pub fn events(&self, node: NodeId) -> impl Iterator<Item = &Event> {
        self.nodes[node.0].events.iter().map(|(_, event)| event)
    }

    /// The same, with the times.
    pub fn timed_events(&self, node: NodeId) -> &[(Instant, Event)] {
        &self.nodes[node.0].events
    }

    /// The app of a replica opens a document, now and after each restart.
    pub fn open(&mut self, node: NodeId, document: &DocumentId, options: Options) {
        self.nodes[node.0].opened.insert(document.clone(), options.clone());
        self.input(node, Input::Open { document: document.clone(), options });
        self.settle();
    }

    /// The app of a replica appends one op.
    pub fn append(&mut self, node: NodeId, document: &DocumentId, body: impl Into<Bytes>) {
        let (document, bodies) = (document.clone(), vec![body.into()]);
        self.input(node, Input::Append { document, bodies });
        self.settle();
    }

    /// Any input for a replica; nothing if it is down.
    ///
    /// # Panics
    /// If the replica calls it misuse.
    pub fn input(&mut self, node: NodeId, input: Input) {
        if let Some(up) = &mut self.nodes[node.0].up {
            up.replica.handle(self.now, input).expect("the world uses replicas as it should");
        }
    }

    // ---------------------------------------------------------------------------------------- paths

    /// Joins two replicas by a path, which is connected whenever both are up, and again after each end.
    pub fn join(&mut self, first: NodeId, second: NodeId, medium: Medium) -> PathId {
        let path = PathId(self.paths.len());
        self.paths.push(Path {
            medium,
            ends: [first, second],
            wire: None,
            up: true,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            retry_at: None,
            counters: [Counters::default(); 2],
            sent: 0,
            tampers: BTreeMap::new(),
            swapped: [None, None],
        });
        self.connect_now(path);
        self.settle();
        path
    }

    /// Takes a path down: what is in flight is lost, both ends learn of it if `noticed`, and nothing connects.
    pub fn cut(&mut self, path: PathId, noticed: bool) {
        self.paths[path.0].up = false;
        if noticed {
            self.disconnect(path);
        } else {
            self.apply(path, Faults { cut: true, ..self.paths[path.0].medium.faults });
        }
        self.settle();
    }

    /// Brings a path up again.
    pub fn mend(&mut self, path: PathId) {
        self.paths[path.0].up = true;
        let faults = self.paths[path.0].medium.faults;
        if self.paths[path.0].wire.is_some() && !faults.ordered {
            self.apply(path, faults);
        } else {
            self.disconnect(path); // no reliable transport survives a hole
            self.connect_now(path);
        }
        self.settle();
    }

    /// Does this to a frame that is yet to be sent on a path; 0 is the next one, whichever end sends it.
    pub fn tamper(&mut self, path: PathId, index: u64, tamper: Tamper) {
        let path = &mut self.paths[path.0];
        path.tampers.insert(path.sent + index, tamper);
    }

    /// Gives a path other faults.
    pub fn set_faults(&mut self, path: PathId, faults: Faults) {
        self.paths[path.0].medium.faults = faults;
        self.apply(path, faults);
    }

    fn apply(&mut self, path: PathId, faults: Faults) {
        let links = self.paths[path.0].wire.iter_mut().flat_map(|wire| &mut wire.links);
        for link in links {
            let Ok(()) = link.handle(self.now, link::Input::Faults(faults));
        }
    }

    /// What a path did so far with the frames of each side.
    pub fn counters(&self, path: PathId) -> [Counters; 2] {
        let mut total = self.paths[path.0].counters;
        if let Some(wire) = &self.paths[path.0].wire {
            total.iter_mut().zip(&wire.links).for_each(|(total, link)| total.add(link.counters()));
        }
        total
    }

    /// The number that a path has at the end of `node`, while it is connected.
    pub fn link(&self, path: PathId, node: NodeId) -> Option<LinkId> {
        let path = &self.paths[path.0];
        let side = path.ends.iter().position(|end| *end == node)?;
        path.wire.as_ref().map(|wire| wire.ids[side])
    }

    fn connect_now(&mut self, path: PathId) {
        let Path { medium, ends, wire, up, .. } = &mut self.paths[path.0];
        let (medium, ends) = (*medium, *ends);
        if wire.is_some() || !*up || ends.iter().any(|end| self.nodes[end.0].up.is_none()) {
            return;
        }
        let ids = [LinkId(self.next_link), LinkId(self.next_link + 1)];
        self.next_link += 2;
        let links = std::array::from_fn(|_| Link::new(medium.faults, self.rng.fork()));
        *wire = Some(Wire { links, ids });
        self.paths[path.0].retry_at = None;
        for side in [0, 1] {
            if let Some(up) = &mut self.nodes[ends[side].0].up {
                up.links.insert(ids[side], (path, side));
            }
            let (link, transport, upstream) = (ids[side], medium.transport, medium.upstream && side == 0);
            self.input(ends[side], Input::Connected { link, transport, token: None, upstream });
        }
    }

    /// Both ends that are up learn that the path is gone.
    fn disconnect(&mut self, path: PathId) {
        let state = &mut self.paths[path.0];
        let Some(wire) = state.wire.take() else { return };
        state.counters.iter_mut().zip(&wire.links).for_each(|(total, link)| total.add(link.counters()));
        for (end, link) in state.ends.into_iter().zip(wire.ids) {
            if let Some(up) = &mut self.nodes[end.0].up {
                up.links.remove(&link);
            }
            self.input(end, Input::Disconnected { link });
        }
        let wait = self.paths[path.0].backoff.fail(&mut self.rng);
        self.paths[path.0].retry_at = Some(self.now + wait);
    }

    fn drop_paths_of(&mut self, node: NodeId) {
        for path in 0..self.paths.len() {
            if self.paths[path].ends.contains(&node) {
                self.disconnect(PathId(path));
            }
        }
    }

    // ---------------------------------------------------------------------------------------- time

    /// Lets `duration` go by.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `duration`; says whether it was.
    pub fn run_until(&mut self, duration: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + duration;
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
        true
    }

    /// Goes to the next moment at which something is due, if that is not after `end`, and does it.
    fn step(&mut self, end: Instant) -> bool {
        let nodes = self.nodes.iter().filter_map(|node| {
            let up = node.up.as_ref()?;
            let reply = up.requests.front().map(|(at, ..)| *at).filter(|_| !node.storage_stalled);
            up.replica.deadline().into_iter().chain(reply).min()
        });
        let paths = self.paths.iter().flat_map(|path| {
            let frames = path.wire.iter().flat_map(|wire| wire.links.iter().filter_map(Link::deadline));
            frames.chain(path.retry_at.filter(|_| path.up))
        });
        let Some(at) = nodes.chain(paths).min().filter(|at| *at <= end) else { return false };
        self.now = self.now.max(at);
        for path in 0..self.paths.len() {
            if let Some(wire) = &mut self.paths[path].wire {
                for link in &mut wire.links {
                    if link.deadline().is_some_and(|at| at <= self.now) {
                        let Ok(()) = link.handle(self.now, link::Input::Timer);
                    }
                }
            }
            if self.paths[path].up && self.paths[path].retry_at.is_some_and(|at| at <= self.now) {
                self.paths[path].retry_at = None;
                self.connect_now(PathId(path));
            }
        }
        for node in 0..self.nodes.len() {
            let due =
                self.nodes[node].up.as_ref().and_then(|up| up.replica.deadline()).is_some_and(|at| at <= self.now);
            if due {
                self.input(NodeId(node), Input::Timer);
            }
        }
        self.settle();
        true
    }

    /// Carries out everything that is due now, until nothing is.
    pub fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for node in 0..self.nodes.len() {
                busy |= self.drain(NodeId(node));
                busy |= self.reply(NodeId(node));
            }
            for path in 0..self.paths.len() {
                busy |= self.deliver(PathId(path));
            }
        }
    }

    fn drain(&mut self, node: NodeId) -> bool {
        let mut busy = false;
        while let Some(output) = self.nodes[node.0].up.as_mut().and_then(|up| up.replica.poll()) {
            busy = true;
            match output {
                Output::Transmit { link, frame } => {
                    let at = self.nodes[node.0].up.as_ref().and_then(|up| up.links.get(&link)).copied();
                    let Some((path, side)) = at else { continue };
                    if let Some(transcript) = &mut self.transcript {
                        transcript.push(Sent { at: self.now, from: node, path, frame: frame.clone() });
                    }
                    for frame in self.paths[path.0].tampered(side, frame) {
                        if let Some(wire) = &mut self.paths[path.0].wire {
                            let Ok(()) = wire.links[side].handle(self.now, link::Input::Frame(frame));
                        }
                    }
                }
                Output::Disconnect { link, ending } => {
                    let at = self.nodes[node.0].up.as_mut().and_then(|up| up.links.remove(&link));
                    if let Some((path, side)) = at {
                        self.close_path(path, side, ending.code.retry());
                    }
                }
                Output::Storage { ticket, request } => {
                    let at = self.now + self.nodes[node.0].storage_delay;
                    if let Some(up) = &mut self.nodes[node.0].up {
                        up.requests.push_back((at, ticket, request));
                    }
                }
                Output::Ask { ticket, .. } => {
                    self.input(node, Input::Answer { ticket, answer: Ok(antiphon::wire::Access::Write) });
                }
                Output::Event(event) => {
                    if matches!(event, Event::Connected { .. }) {
                        let links = self.nodes[node.0].up.iter().flat_map(|up| up.links.values());
                        links.for_each(|(path, _)| self.paths[path.0].backoff.reset());
                    }
                    let at = self.now;
                    self.nodes[node.0].events.push((at, event));
                }
            }
        }
        busy
    }

    /// One end has ended its session: the other hears what was still in flight, and the path connects again.
    fn close_path(&mut self, path: PathId, side: Side, retry: Retry) {
        let state = &mut self.paths[path.0];
        let Some(mut wire) = state.wire.take() else { return };
        // A socket delivers what was written before it was closed, if the network does at all.
        let other = state.ends[1 - side];
        let flush = self.now + Duration::from_secs(3600);
        let Ok(()) = wire.links[side].handle(flush, link::Input::Timer);
        state.counters.iter_mut().zip(&wire.links).for_each(|(total, link)| total.add(link.counters()));
        while let Some(frame) = wire.links[side].poll() {
            self.input(other, Input::Received { link: wire.ids[1 - side], frame });
        }
        self.input(other, Input::Disconnected { link: wire.ids[1 - side] });
        if let Some(up) = &mut self.nodes[other.0].up {
            up.links.remove(&wire.ids[1 - side]);
        }
        let wait = match retry {
            Retry::Now => Duration::from_millis(1),
            Retry::Later | Retry::Never => self.paths[path.0].backoff.fail(&mut self.rng),
        };
        self.paths[path.0].retry_at = Some(self.now + wait);
    }

    fn reply(&mut self, node: NodeId) -> bool {
        let mut busy = false;
        loop {
            let state = &mut self.nodes[node.0];
            let Some(up) = state.up.as_mut().filter(|_| !state.storage_stalled) else { return busy };
            if up.requests.front().is_none_or(|(at, ..)| *at > self.now) {
                return busy;
            }
            let Some((_, ticket, request)) = up.requests.pop_front() else { return busy };
            busy = true;
            let reply = up.storage.execute(&request).map_err(|error| error.to_string());
            if !state.disk.is_held() {
                self.crash(node, Crash::Kill); // the disk was told to take its holder down at this step
                return busy;
            }
            self.input(node, Input::Storage { ticket, reply });
        }
    }

    fn deliver(&mut self, path: PathId) -> bool {
        let mut busy = false;
        for side in [0, 1] {
            while let Some((frame, id)) =
                self.paths[path.0].wire.as_mut().and_then(|wire| Some((wire.links[side].poll()?, wire.ids[1 - side])))
            {
                busy = true;
                let end = self.paths[path.0].ends[1 - side];
                self.input(end, Input::Received { link: id, frame });
            }
        }
        busy
    }
}
