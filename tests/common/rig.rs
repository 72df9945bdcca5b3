//! Replicas joined directly, where a topic needs a hand on every frame and every answer of a disk: what a slow reader
//! lets through, whose storage stalls, which frames are lost. Time is virtual, and moves from deadline to deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::op::{Cursor, DocumentId, Entry, Op, ReplicaId};
use antiphon::replica::{Config, Event, Input, LinkId, Misuse, Options, Output, Question, Replica, Ticket};
use antiphon::rng::Rng;
use antiphon::session::{Session, Transport};
use antiphon::storage::{Continuity, Identity, Reply, Request, Storage};
use antiphon::wire::Access;
use antiphon::{Instant, Machine};
use antiphon_memory::{Disk, MemoryStorage};
use bytes::Bytes;

/// What answers a request in place of the storage.
pub type Answers = Box<dyn FnMut(&Request) -> Option<Reply>>;

/// What the host answers to a question.
pub type Decides = Box<dyn FnMut(&Question) -> Result<Access, (Code, String)>>;

/// Says of a frame, and of the side that sent it, whether it is lost.
pub type Loses = Box<dyn FnMut(usize, &Bytes) -> bool>;

/// Replicas and the wires between them.
pub struct Rig {
    pub now: Instant,
    pub ends: Vec<End>,
    pub wires: Vec<Wire>,
    entropy: Rng,
}

/// One replica with its disk.
pub struct End {
    pub replica: Replica,
    pub disk: Disk,
    pub events: Vec<Event>,
    /// Documents whose requests are not answered.
    pub stalled: BTreeSet<DocumentId>,
    pub answers: Option<Answers>,
    /// What the host answers when it is asked.
    pub decides: Decides,
    /// Questions that are left to the test instead, if it wants them.
    pub questions: Option<Vec<(Ticket, Question)>>,
    /// Cost of the entries of the largest read that was answered.
    pub read_cost_max: u64,
    storage: MemoryStorage,
    requests: VecDeque<(Ticket, Request)>,
}

/// A path between two replicas, the same link number at both ends. Frames keep their order.
pub struct Wire {
    pub ends: [usize; 2],
    /// Frames under way from each side.
    pub queues: [VecDeque<Bytes>; 2],
    /// Whether what a side sends stays in the queue.
    pub paused: [bool; 2],
    /// Bytes that the transport of each side takes; frames in the queue take theirs. `None`: any number.
    pub capacity: [Option<u64>; 2],
    /// What happens on it, if it is kept.
    pub trace: Option<Vec<Traced>>,
    pub loses: Option<Loses>,
    pub up: bool,
}

impl Wire {
    fn between(ends: [usize; 2]) -> Self {
        let (queues, paused, capacity) = (Default::default(), [false; 2], [None; 2]);
        Self { ends, queues, paused, capacity, trace: None, loses: None, up: true }
    }
}

/// A frame that a side has sent, or that has come from it to the other side.
#[derive(Clone, Debug)]
pub enum Traced {
    Sent(usize, Bytes),
    Delivered(usize, Bytes),
}

impl Rig {
    pub fn new(seed: u64) -> Self {
        Self { now: Instant::from_millis(1), ends: Vec::new(), wires: Vec::new(), entropy: Rng::new(seed) }
    }

    pub fn add(&mut self, config: Config) -> usize {
        self.add_on(Disk::new(), config)
    }

    pub fn add_on(&mut self, disk: Disk, config: Config) -> usize {
        let mut storage = disk.open().expect("the disk has no holder");
        let identity = storage.open(Continuity::Broken, &mut self.entropy).expect("the disk works");
        let seed: [u8; 32] = std::array::from_fn(|_| self.entropy.next_u64() as u8);
        self.ends.push(End {
            replica: Replica::new(config, identity, seed),
            disk,
            events: Vec::new(),
            stalled: BTreeSet::new(),
            answers: None,
            decides: Box::new(|_| Ok(Access::Write)),
            questions: None,
            read_cost_max: 0,
            storage,
            requests: VecDeque::new(),
        });
        self.ends.len() - 1
    }

    /// Joins two replicas; neither has heard of the other until something moves.
    pub fn join(&mut self, first: usize, second: usize, transport: Transport) -> usize {
        self.wires.push(Wire::between([first, second]));
        let link = LinkId(self.wires.len() as u64 - 1);
        for end in [first, second] {
            self.input(end, Input::Connected { link, transport, token: None, upstream: false });
        }
        self.wires.len() - 1
    }

    /// A wire whose far end is the test itself: what the replica sends waits in the queue, and [`feed`](Self::feed)
    /// is what comes back.
    pub fn stranger(&mut self, end: usize, transport: Transport) -> usize {
        self.wires.push(Wire { paused: [true; 2], ..Wire::between([end, usize::MAX]) });
        let link = LinkId(self.wires.len() as u64 - 1);
        self.input(end, Input::Connected { link, transport, token: None, upstream: false });
        self.wires.len() - 1
    }

    /// A frame of a stranger's.
    pub fn feed(&mut self, wire: usize, frame: Bytes) {
        self.input(self.wires[wire].ends[0], Input::Received { link: LinkId(wire as u64), frame });
        self.settle();
    }

    pub fn session(&self, wire: usize, side: usize) -> &Session {
        let end = self.wires[wire].ends[side];
        self.ends[end].replica.session(LinkId(wire as u64)).expect("the session is not over")
    }

    #[track_caller]
    pub fn input(&mut self, end: usize, input: Input) {
        self.try_input(end, input).expect("the replica is used as it should be");
    }

    pub fn try_input(&mut self, end: usize, input: Input) -> Result<(), Misuse> {
        let done = self.ends[end].replica.handle(self.now, input);
        self.drain(end);
        done
    }

    pub fn open(&mut self, end: usize, document: &DocumentId) {
        self.open_with(end, document, Options::default());
    }

    pub fn open_with(&mut self, end: usize, document: &DocumentId, options: Options) {
        self.input(end, Input::Open { document: document.clone(), options });
    }

    #[track_caller]
    pub fn append(&mut self, end: usize, document: &DocumentId, bodies: impl IntoIterator<Item = Bytes>) {
        let (document, bodies) = (document.clone(), bodies.into_iter().collect());
        self.input(end, Input::Append { document, bodies });
    }

    fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].replica.poll() {
            match output {
                Output::Transmit { link, frame } => {
                    let wire = &mut self.wires[link.0 as usize];
                    let side = usize::from(wire.ends[1] == end);
                    if let Some(trace) = &mut wire.trace {
                        trace.push(Traced::Sent(side, frame.clone()));
                    }
                    let lost = !wire.up || wire.loses.as_mut().is_some_and(|loses| loses(side, &frame));
                    if !lost {
                        wire.queues[side].push_back(frame);
                    }
                }
                Output::Disconnect { link, .. } => self.wires[link.0 as usize].up = false,
                Output::Storage { ticket, request } => self.ends[end].requests.push_back((ticket, request)),
                Output::Ask { ticket, question } => {
                    let state = &mut self.ends[end];
                    if let Some(questions) = &mut state.questions {
                        questions.push((ticket, question));
                    } else {
                        let answer = (state.decides)(&question);
                        state.replica.handle(self.now, Input::Answer { ticket, answer }).expect("it was asked");
                    }
                }
                Output::Event(event) => self.ends[end].events.push(event),
            }
        }
    }

    /// Tells a side of a throttled wire what its transport takes now.
    pub fn tell_room(&mut self, wire: usize, side: usize) {
        let state = &self.wires[wire];
        let Some(capacity) = state.capacity[side] else { return };
        let queued: u64 = state.queues[side].iter().map(|frame| frame.len() as u64).sum();
        let (end, link) = (state.ends[side], LinkId(wire as u64));
        self.input(end, Input::Writable { link, bytes: capacity.saturating_sub(queued) });
    }

    /// Delivers the oldest frame of a side, whether it is paused or not.
    pub fn deliver(&mut self, wire: usize, side: usize) -> bool {
        let state = &mut self.wires[wire];
        let Some(frame) = state.queues[side].pop_front() else { return false };
        if let Some(trace) = &mut state.trace {
            trace.push(Traced::Delivered(side, frame.clone()));
        }
        let end = state.ends[1 - side];
        self.input(end, Input::Received { link: LinkId(wire as u64), frame });
        self.tell_room(wire, side);
        true
    }

    fn answer(&mut self, end: usize) -> bool {
        let state = &mut self.ends[end];
        let next = state
            .requests
            .iter()
            .position(|(_, request)| document_of(request).is_none_or(|document| !state.stalled.contains(document)));
        let Some((ticket, request)) = next.and_then(|index| state.requests.remove(index)) else { return false };
        let given = state.answers.as_mut().and_then(|answers| answers(&request));
        let reply = match given {
            Some(reply) => Ok(reply),
            None => state.storage.execute(&request).map_err(|error| error.to_string()),
        };
        if let Ok(Reply::Entries(entries)) = &reply {
            let cost = if entries.len() > 1 { cost_of(entries) } else { 0 };
            state.read_cost_max = state.read_cost_max.max(cost);
        }
        self.input(end, Input::Storage { ticket, reply });
        true
    }

    /// Lets everything happen that is due now; `look` sees the rig after each single thing.
    pub fn settle_with(&mut self, look: &mut dyn FnMut(&mut Self)) {
        let mut busy = true;
        while busy {
            busy = false;
            for end in 0..self.ends.len() {
                while self.answer(end) {
                    busy = true;
                    look(self);
                }
            }
            for wire in 0..self.wires.len() {
                for side in [0, 1] {
                    while !self.wires[wire].paused[side] && self.deliver(wire, side) {
                        busy = true;
                        look(self);
                    }
                }
            }
        }
    }

    pub fn settle(&mut self) {
        self.settle_with(&mut |_| {});
    }

    /// Goes on until `done`, at most for `duration`; says whether it was.
    pub fn run_until(
        &mut self,
        duration: Duration,
        look: &mut dyn FnMut(&mut Self),
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now + duration;
        loop {
            self.settle_with(look);
            if done(self) {
                return true;
            }
            let Some(at) = self.ends.iter().filter_map(|end| end.replica.deadline()).min().filter(|at| *at <= end)
            else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(at);
            for index in 0..self.ends.len() {
                if self.ends[index].replica.deadline().is_some_and(|at| at <= self.now) {
                    self.input(index, Input::Timer);
                    look(self);
                }
            }
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, &mut |_| {}, |_| false);
    }

    /// Who an end is, as its disk has it.
    pub fn identity(&self, end: usize) -> Identity {
        let mut storage = self.ends[end].storage.clone();
        storage.identity().expect("the disk works").expect("it was opened")
    }

    /// How far an end holds the log of a peer, as its disk has it.
    pub fn cursor(&self, end: usize, document: &DocumentId, peer: ReplicaId) -> Option<Cursor> {
        let mut storage = self.ends[end].storage.clone();
        storage.cursor(document, peer).expect("the disk works")
    }

    /// Makes what an end has written survive a loss of power, so that its disk need not remember how to take it back.
    pub fn sync(&mut self, end: usize) {
        self.ends[end].storage.sync().expect("the disk works");
    }

    /// The position after the last entry of a document, as a disk holds it.
    pub fn tail(&self, end: usize, document: &DocumentId) -> u64 {
        let mut storage = self.ends[end].storage.clone();
        storage.document(document).expect("the disk works").tail
    }

    /// Whether both ends of a wire hold the same of a document.
    pub fn same(&self, first: usize, second: usize, document: &DocumentId) -> bool {
        let [first, second] = [first, second].map(|end| {
            let mut storage = self.ends[end].storage.clone();
            storage.document(document).expect("the disk works").heads.digest()
        });
        first == second
    }

    /// All ops of a document, as a disk holds them.
    pub fn ops(&self, end: usize, document: &DocumentId) -> Vec<Op> {
        let mut storage = self.ends[end].storage.clone();
        let entries = storage.read(document, 0, u64::MAX).expect("the disk works");
        entries.into_iter().map(|entry| entry.op).collect()
    }

    /// Sessions that ended, with their codes.
    pub fn endings(&self, end: usize) -> Vec<Code> {
        let endings = self.ends[end].events.iter().filter_map(|event| match event {
            Event::Disconnected { ending, .. } => ending.as_ref().map(|ending| ending.code),
            _ => None,
        });
        endings.collect()
    }
}

/// What entries cost.
pub fn cost_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.op.cost()).sum()
}

fn document_of(request: &Request) -> Option<&DocumentId> {
    match request {
        Request::Open(document)
        | Request::Cursor { document, .. }
        | Request::Read { document, .. }
        | Request::ReadAside { document, .. }
        | Request::Compare { document, .. }
        | Request::Chains { document, .. }
        | Request::Snapshot { document, .. } => Some(document),
        Request::Write(transaction) => transaction.document(),
    }
}

/// Bodies of `len` bytes that differ in their first eight, if they have so many.
pub fn numbered(range: std::ops::Range<u64>, len: usize) -> impl Iterator<Item = Bytes> {
    range.map(move |number| {
        let mut body = vec![0x5a; len];
        let digits = number.to_le_bytes();
        let kept = len.min(digits.len());
        body[..kept].copy_from_slice(&digits[..kept]);
        Bytes::from(body)
    })
}

/// The model of credit: what one side of a wire may have outstanding, from the frames alone.
#[derive(Debug, Default)]
pub struct CreditModel {
    /// Per document of the sender: the positions and costs of ops that were sent and not received, in order.
    outstanding: BTreeMap<u32, VecDeque<(u64, u64)>>,
    windows: BTreeMap<u32, u64>,
    begins: BTreeMap<u32, u64>,
    credit: u64,
    window_at_first: u64,
    /// The most that was outstanding of one document, and of all.
    pub most: (u64, u64),
    seen: usize,
}

impl CreditModel {
    /// For a sender whose peer has these limits.
    pub fn new(limits: antiphon::wire::Limits) -> Self {
        let (credit, window_at_first) = (u64::from(limits.credit), u64::from(limits.window));
        Self { credit, window_at_first, ..Self::default() }
    }

    /// Checks what is new in a trace, for what `side` sends. On datagrams, frames still have their trailers.
    #[track_caller]
    pub fn check(&mut self, trace: &[Traced], side: usize) {
        use antiphon::wire::{Content, Message};
        for traced in &trace[self.seen..] {
            match traced {
                Traced::Sent(from, frame) if *from == side => match Message::decode(frame) {
                    Ok(Message::Open(open)) => {
                        self.begins.insert(open.number, open.begins);
                        self.windows.insert(open.number, self.window_at_first);
                        self.outstanding.remove(&open.number);
                    }
                    Ok(Message::Changes(changes)) => {
                        let begins = self.begins.get(&changes.document).copied().unwrap_or(0);
                        let from = if changes.absolute { changes.from } else { changes.from + begins };
                        let (to, cost) = match &changes.content {
                            Content::Live { body, .. } => (from + 1, body.wire_len() as u64 + 32),
                            Content::Bulk { span, bodies, .. } => {
                                (from + span, bodies.iter().map(|body| body.wire_len() as u64 + 32).sum())
                            }
                            Content::Part { offset, total, piece, .. } if *offset + piece.len() as u32 == *total => {
                                (from + 1, u64::from(*total) + 32)
                            }
                            Content::Part { .. } => continue, // until it is whole, the peer counts nothing
                        };
                        let ops = if let Content::Bulk { bodies, .. } = &changes.content { bodies.len() } else { 1 };
                        self.sent(changes.document, to, cost, ops);
                    }
                    _ => {}
                },
                Traced::Delivered(from, frame) if *from != side => {
                    if let Ok(Message::Ack(ack)) = Message::decode(frame) {
                        self.credit = ack.credit;
                        self.windows.insert(ack.document, ack.window);
                        let outstanding = self.outstanding.entry(ack.document).or_default();
                        while outstanding.front().is_some_and(|(to, _)| *to <= ack.received.position) {
                            outstanding.pop_front();
                        }
                    }
                }
                _ => {}
            }
        }
        self.seen = trace.len();
    }

    #[track_caller]
    fn sent(&mut self, document: u32, to: u64, cost: u64, ops: usize) {
        let alone = self.outstanding.values().all(VecDeque::is_empty);
        self.outstanding.entry(document).or_default().push_back((to, cost));
        let of = |ops: &VecDeque<(u64, u64)>| ops.iter().map(|(_, cost)| *cost).sum::<u64>();
        let one = of(&self.outstanding[&document]);
        let all = self.outstanding.values().map(of).sum();
        self.most = (self.most.0.max(one), self.most.1.max(all));
        let (window, credit) = (self.windows[&document], self.credit);
        let lone = alone && ops == 1 && credit > 0;
        assert!(one <= window || lone, "{one} outstanding of document {document}, whose window is {window}");
        assert!(all <= credit || lone, "{all} outstanding on a link whose credit is {credit}");
    }
}
