//! A replica between two others, whose paths, storage and host do what the input says.

use std::collections::VecDeque;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::op::{DocumentId, OP_OVERHEAD};
use antiphon::replica::{
    Admission, Authority, Config, Event, Input, LinkId, Options, Output, Replica, Salvage, Ticket,
};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Reply, Request, Storage};
use antiphon::wire::{Access, Limits};
use antiphon::{Instant, Machine};
use antiphon_memory::MemoryStorage;
use bytes::Bytes;

use crate::input::Reader;

/// Outputs of one input beyond which it does not come to an end.
const OUTPUTS_MAX: u32 = 10_000;
/// Frames that wait on a path; more are lost.
const FRAMES_MAX: usize = 64;

/// What the subject's peers may have under way, and how much it may keep: small, so that limits are reached.
fn config(asks: bool) -> Config {
    let mut config = Config::default();
    config.session.limits = Limits { frame: 600, op: 4_000, window: 1_000, credit: 3_000, ..Limits::default() };
    (config.tail_max, config.read_max, config.waiting_max) = (500, 500, 4_000);
    (config.documents_max, config.idle_max) = (4, Duration::from_secs(2));
    if asks {
        (config.peers, config.documents) = (Admission::Ask, Admission::Ask);
    }
    config
}

/// A replica, and what it has asked for.
struct End {
    replica: Replica,
    storage: MemoryStorage,
    requests: VecDeque<(Ticket, Request)>,
    questions: VecDeque<Ticket>,
}

impl End {
    fn new(config: Config, id: u8) -> Self {
        let mut storage = MemoryStorage::new();
        let identity = storage.open(Continuity::Proven, &mut Rng::new(id.into())).expect("it is new");
        let replica = Replica::new(config, identity, [id; 32]);
        Self { replica, storage, requests: VecDeque::new(), questions: VecDeque::new() }
    }
}

/// A path from the subject to a peer.
#[derive(Default)]
struct Path {
    /// Its number at either end, while it is connected.
    link: Option<LinkId>,
    to_subject: VecDeque<Bytes>,
    to_peer: VecDeque<Bytes>,
}

/// A run.
pub struct Play<'a> {
    input: Reader<'a>,
    now: Instant,
    transport: Transport,
    subject: End,
    peers: [End; 2],
    paths: [Path; 2],
    links: u64,
    /// Tickets that were answered.
    answered: Vec<Ticket>,
    /// Cost of all that the subject's app has appended, of the largest op of all, and of what links that are gone may have
    /// left to be written.
    appended: u64,
    largest: u64,
    left: u64,
    /// Whether a peer was let in.
    pub was_live: bool,
}

impl<'a> Play<'a> {
    /// A run that begins with both peers connected and a document open everywhere, if the input does not say otherwise.
    pub fn new(data: &'a [u8]) -> Self {
        let mut input = Reader(data);
        let transport = if input.flag() { Transport::Datagram { mtu: 600 } } else { Transport::Reliable };
        let asks = input.below(4) == 3;
        let (subject, peers) = (End::new(config(asks), 1), [2, 3].map(|id| End::new(config(false), id)));
        let mut play = Self {
            input,
            now: Instant::ZERO,
            transport,
            subject,
            peers,
            paths: Default::default(),
            links: 0,
            answered: Vec::new(),
            appended: 0,
            largest: 0,
            left: 0,
            was_live: false,
        };
        [0, 1].into_iter().for_each(|index| play.connect(index));
        for peer in &mut play.peers {
            let opened =
                peer.replica.handle(play.now, Input::Open { document: document(0), options: Options::default() });
            opened.expect("it may");
        }
        play.tell(Input::Open { document: document(0), options: Options::default() });
        play.settle();
        for _ in 0..[30, 30, 60, 0][usize::from(play.input.below(4))] {
            play.calm();
        }
        play
    }

    /// Does what the input says, to its end.
    pub fn steps(&mut self) {
        while !self.input.is_empty() {
            self.step();
            self.settle();
            self.check();
        }
    }

    fn step(&mut self) {
        let path = usize::from(self.input.below(2));
        match self.input.below(26) {
            0..=4 => self.calm(),
            5 | 6 => self.deliver(path, false),
            7 => _ = self.paths[path].to_subject.pop_front(),
            8 => _ = self.paths[path].to_peer.pop_front(),
            9 => self.deliver(path, true),
            10 => self.damage(path),
            11 => {
                let frame = self.input.bytes();
                self.receive(path, frame);
            }
            12 | 13 => self.serve(),
            14 => self.fail(),
            15 => _ = self.subject.requests.pop_front(), // no answer, ever
            16 => self.answer_falsely(),
            17 => self.append(),
            18 => {
                let (body, document) = (self.input.bytes(), self.document());
                let bodies = vec![body];
                let _ = self.peers[path].replica.handle(self.now, Input::Append { document, bodies });
            }
            19 => self.open_or_close(),
            20 => self.reset(path),
            21 => self.wait(),
            22 => {
                if self.paths[path].link.is_some() {
                    self.disconnect(path)
                } else {
                    self.connect(path)
                }
            }
            23 => self.decide(),
            24 => self.talk_of_links(path),
            _ => {
                let bytes = self.input.number();
                let link = self.some_link(path);
                self.tell(Input::Writable { link, bytes });
            }
        }
    }

    // ---------------------------------------------------------------------------------------- what goes well

    /// A frame each way arrives, the storage does what is next, and the host lets everyone in.
    fn calm(&mut self) {
        [0, 1].into_iter().for_each(|path| self.deliver(path, false));
        self.serve();
        if let Some(ticket) = self.subject.questions.pop_front() {
            self.tell(Input::Answer { ticket, answer: Ok(Access::Write) });
        }
        self.settle();
    }

    /// The next frame of each direction arrives; once, or twice.
    fn deliver(&mut self, path: usize, twice: bool) {
        if let Some(frame) = self.paths[path].to_subject.pop_front() {
            if twice {
                self.paths[path].to_subject.push_front(frame.clone());
            }
            self.receive(path, frame);
        }
        if let (Some(frame), Some(link)) = (self.paths[path].to_peer.pop_front(), self.paths[path].link) {
            let received = self.peers[path].replica.handle(self.now, Input::Received { link, frame });
            received.expect("the peer is used as it should be");
        }
    }

    fn receive(&mut self, path: usize, frame: Bytes) {
        if let Some(link) = self.paths[path].link {
            self.tell(Input::Received { link, frame });
        }
    }

    fn serve(&mut self) {
        let Some((ticket, request)) = self.subject.requests.pop_front() else { return };
        let reply = self.subject.storage.execute(&request).map_err(|error| error.to_string());
        self.answered.push(ticket);
        self.tell(Input::Storage { ticket, reply });
    }

    fn connect(&mut self, path: usize) {
        if self.paths[path].link.is_some() {
            return;
        }
        self.links += 1;
        let (link, transport) = (LinkId(self.links), self.transport);
        self.paths[path] = Path { link: Some(link), ..Path::default() };
        self.tell(Input::Connected { link, transport, token: None, upstream: path == 0 });
        let connected = Input::Connected { link, transport, token: None, upstream: false };
        self.peers[path].replica.handle(self.now, connected).expect("the link is new");
    }

    fn disconnect(&mut self, path: usize) {
        let Some(link) = std::mem::take(&mut self.paths[path]).link else { return };
        self.left += u64::from(config(false).session.limits.credit) + self.largest;
        self.tell(Input::Disconnected { link });
        let _ = self.peers[path].replica.handle(self.now, Input::Disconnected { link });
    }

    // ---------------------------------------------------------------------------------------- what does not

    /// A byte of the next frame is another, or the frame ends early.
    fn damage(&mut self, path: usize) {
        let Some(frame) = self.paths[path].to_subject.pop_front() else { return };
        let mut bytes = frame.to_vec();
        let at = usize::from(self.input.byte()) % bytes.len().max(1);
        match self.input.byte() {
            0 => bytes.truncate(at),
            byte => bytes.iter_mut().skip(at).take(1).for_each(|old| *old ^= byte),
        }
        self.receive(path, bytes.into());
    }

    /// The storage says that it failed, and has done it or not.
    fn fail(&mut self) {
        let done = self.input.flag();
        let Some((ticket, request)) = self.subject.requests.pop_front() else { return };
        if done {
            let _ = self.subject.storage.execute(&request);
        }
        self.tell(Input::Storage { ticket, reply: Err("it failed".into()) });
    }

    /// An answer that was given already, or that answers another question.
    fn answer_falsely(&mut self) {
        let reply = match self.input.below(4) {
            0 => Reply::Written,
            1 => Reply::Cursor(None),
            2 => Reply::Entries(Vec::new()),
            _ => Reply::Chains(Vec::new()),
        };
        let index = usize::from(self.input.byte());
        let ticket = match self.subject.requests.front() {
            Some((ticket, _)) if self.input.flag() => Some(*ticket),
            _ => self.answered.get(index % self.answered.len().max(1)).copied(),
        };
        if let Some(ticket) = ticket {
            self.tell(Input::Storage { ticket, reply: Ok(reply) });
        }
    }

    // ---------------------------------------------------------------------------------------- the app and the host

    fn document(&mut self) -> DocumentId {
        document(self.input.below(8) / 3)
    }

    fn append(&mut self) {
        let document = self.document();
        let (count, len) = (1 + self.input.below(3), usize::from(self.input.byte()) * 17);
        let bodies: Vec<Bytes> = (0..count).map(|number| vec![number; len].into()).collect();
        let cost = len as u64 + OP_OVERHEAD;
        if self.subject.replica.handle(self.now, Input::Append { document, bodies }).is_ok() {
            self.appended += u64::from(count) * cost;
            self.largest = self.largest.max(cost);
        }
    }

    fn open_or_close(&mut self) {
        let document = self.document();
        let options = Options {
            access: if self.input.below(4) == 0 { Access::Read } else { Access::Write },
            authority: [Authority::Nobody, Authority::Upstream, Authority::Us][usize::from(self.input.below(3))],
            salvage: if self.input.flag() { Salvage::HandOver } else { Salvage::Append },
            ..Options::default()
        };
        match self.input.below(3) {
            0 => self.tell(Input::Close { document }),
            1 => self.tell(Input::Open { document, options }),
            _ => {
                let opened = self.peers[1].replica.handle(self.now, Input::Open { document, options });
                opened.expect("it may");
            }
        }
    }

    fn some_link(&mut self, path: usize) -> LinkId {
        let other = LinkId(self.input.number());
        self.paths[path].link.filter(|_| self.input.flag()).unwrap_or(other)
    }

    fn reset(&mut self, path: usize) {
        let (document, link) = (self.document(), self.some_link(path));
        self.tell(Input::Reset { document, link });
    }

    fn decide(&mut self) {
        let answer = if self.input.below(4) == 0 { Err((Code::FORBIDDEN, "no".into())) } else { Ok(Access::Write) };
        if let Some(ticket) = self.subject.questions.pop_front() {
            self.tell(Input::Answer { ticket, answer });
        }
    }

    fn talk_of_links(&mut self, path: usize) {
        let (link, document) = (self.some_link(path), self.document());
        match self.input.below(4) {
            0 => self.tell(Input::ImmediateAck { document, link }),
            1 => {
                let code = Code(self.input.number() as u16);
                self.tell(Input::Disconnect { link, code, reason: "because".into(), retry_after: None });
            }
            2 => self.tell(Input::Received { link, frame: Bytes::new() }),
            _ => self.tell(Input::Connected { link, transport: self.transport, token: None, upstream: false }),
        }
    }

    /// Time goes by: until the subject's deadline, or less.
    fn wait(&mut self) {
        let millis = u64::from(self.input.byte()).pow(2);
        let ends = [&self.subject, &self.peers[0], &self.peers[1]];
        let next = ends.iter().filter_map(|end| end.replica.deadline()).min();
        let until = self.now + Duration::from_millis(millis);
        self.now = next.filter(|next| *next > self.now && millis % 2 == 0).map_or(until, |next| next.min(until));
        self.tell(Input::Timer);
        for peer in &mut self.peers {
            peer.replica.handle(self.now, Input::Timer).expect("a timer is no misuse");
        }
    }

    // ---------------------------------------------------------------------------------------- what is wanted

    /// Any input: what is misuse is an error, and no more.
    fn tell(&mut self, input: Input) {
        let _ = self.subject.replica.handle(self.now, input);
    }

    /// Takes what all want done, and does what peers want.
    fn settle(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.subject.replica.poll() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "the replica wants more and more");
            match output {
                Output::Transmit { link, frame } => self.transmit(link, frame, true),
                Output::Disconnect { link, .. } => self.hang_up(link),
                Output::Storage { ticket, request } => self.subject.requests.push_back((ticket, request)),
                Output::Ask { ticket, .. } => self.subject.questions.push_back(ticket),
                Output::Event(event) => self.was_live |= matches!(event, Event::Connected { .. }),
            }
        }
        for index in 0..self.peers.len() {
            while let Some(output) = self.peers[index].replica.poll() {
                match output {
                    Output::Transmit { link, frame } => self.transmit(link, frame, false),
                    Output::Disconnect { link, .. } => self.hang_up(link),
                    Output::Storage { ticket, request } => {
                        let peer = &mut self.peers[index];
                        let reply = peer.storage.execute(&request).map_err(|error| error.to_string());
                        peer.replica.handle(self.now, Input::Storage { ticket, reply }).expect("it has asked");
                    }
                    Output::Ask { .. } | Output::Event(_) => {}
                }
            }
        }
    }

    fn transmit(&mut self, link: LinkId, frame: Bytes, from_subject: bool) {
        let Some(path) = self.paths.iter_mut().find(|path| path.link == Some(link)) else { return };
        let frames = if from_subject { &mut path.to_peer } else { &mut path.to_subject };
        let reliable = self.transport == Transport::Reliable;
        if reliable || frames.len() < FRAMES_MAX {
            frames.push_back(frame);
        }
    }

    /// One end has closed a link: the other hears of it, after what is under way to it.
    fn hang_up(&mut self, link: LinkId) {
        let Some(index) = self.paths.iter().position(|path| path.link == Some(link)) else { return };
        while !self.paths[index].to_subject.is_empty() || !self.paths[index].to_peer.is_empty() {
            let Path { to_subject, to_peer, .. } = &mut self.paths[index];
            let (frames, peer) = (to_subject.pop_front(), to_peer.pop_front());
            if let Some(frame) = frames {
                self.tell(Input::Received { link, frame });
            }
            if let Some(frame) = peer {
                let _ = self.peers[index].replica.handle(self.now, Input::Received { link, frame });
            }
        }
        self.disconnect(index);
    }

    // ---------------------------------------------------------------------------------------- limits

    fn check(&mut self) {
        let config = config(false);
        let credit = u64::from(config.session.limits.credit);
        let largest = self.largest.max(u64::from(config.session.limits.op) + OP_OVERHEAD);
        if self.subject.requests.is_empty() {
            self.left = 0;
        }
        let links = self.paths.iter().filter_map(|path| path.link);
        for session in links.filter_map(|link| self.subject.replica.session(link)) {
            let (_, undurable) = session.under_way();
            assert!(undurable <= credit + largest, "{undurable} were taken on a link that was granted {credit}");
        }
        let tails = self.subject.replica.documents_loaded() as u64 * (config.tail_max + largest);
        let bound = tails + 2 * (credit + largest) + self.left + self.appended;
        let cost = self.subject.replica.memory_cost();
        assert!(cost <= bound, "{cost} are kept in memory, more than {bound}");
    }
}

fn document(number: u8) -> DocumentId {
    let names = ["one", "two", "three"];
    names[usize::from(number)].parse().expect("the name is valid")
}
