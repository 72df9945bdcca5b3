//! Two recorded replicas that write to each other, deterministically.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;

use antiphon::replica::{Admission, Config, Input, LinkId, Options, Output, Question};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::Access;
use antiphon::wire::varint::{put_varint, take_varint};
use antiphon::{Instant, Machine, Replica};
use antiphon_memory::MemoryStorage;
use antiphon_recorder::{Memory, Options as Recording, Recorder, Run, Setup, Sink, Trace};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) const LINK: LinkId = LinkId(7);
pub(crate) const DATAGRAM: Transport = Transport::Datagram { mtu: 1200 };

/// A recorded replica on a storage in memory.
pub(crate) struct End {
    pub(crate) replica: Recorder<Replica>,
    storage: MemoryStorage,
    inbox: VecDeque<Bytes>,
    /// Questions about peers, with the tokens that were shown.
    pub(crate) shown: Vec<Option<Bytes>>,
}

pub(crate) struct Two {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    pub(crate) transport: Transport,
    /// Frames that came, counted; every so many are damaged, if that is not 0.
    frames: u64,
    pub(crate) damage_every: u64,
}

impl End {
    pub(crate) fn new(seed: u64, sink: impl Sink + 'static, redacted: bool) -> Self {
        let mut storage = MemoryStorage::new();
        let identity = storage.open(Continuity::Proven, &mut Rng::new(seed)).expect("it is new");
        let config = Config { peers: Admission::Ask, tail_max: 4096, ..Config::default() };
        let setup = Setup { config, identity, entropy: [seed as u8; 32] };
        let options = Recording { redacted, began: 1_700_000_000_000 };
        let replica = Recorder::new(setup, sink, options);
        Self { replica, storage, inbox: VecDeque::new(), shown: Vec::new() }
    }

    /// Does what the replica wants done; returns the frames that it sends.
    pub(crate) fn carry_out(&mut self, now: Instant) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while let Some(output) = self.replica.poll() {
            let input = match output {
                Output::Transmit { frame, .. } => {
                    frames.push(frame);
                    continue;
                }
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    Input::Storage { ticket, reply }
                }
                Output::Ask { ticket, question } => {
                    if let Question::Peer { token, .. } = question {
                        self.shown.push(token);
                    }
                    Input::Answer { ticket, answer: Ok(Access::Write) }
                }
                Output::Disconnect { .. } | Output::Event(_) => continue,
            };
            self.replica.handle(now, input).expect("it was asked");
        }
        frames
    }
}

impl Two {
    pub(crate) fn new(ends: [End; 2], transport: Transport) -> Self {
        Self { now: Instant::ZERO, ends, transport, frames: 0, damage_every: 0 }
    }

    /// Both recorded into memory.
    pub(crate) fn in_memory(transport: Transport) -> (Self, [Memory; 2]) {
        let memories = [Memory::new(1 << 20), Memory::new(1 << 20)];
        let ends = [End::new(1, memories[0].clone(), false), End::new(2, memories[1].clone(), false)];
        (Self::new(ends, transport), memories)
    }

    pub(crate) fn input(&mut self, end: usize, input: Input) {
        self.ends[end].replica.handle(self.now, input).expect("it is no misuse");
    }

    pub(crate) fn connect(&mut self, tokens: [Option<&str>; 2]) {
        for (end, token) in tokens.into_iter().enumerate() {
            let token = token.map(|token| Bytes::copy_from_slice(token.as_bytes()));
            self.input(end, Input::Connected { link: LINK, transport: self.transport, token, upstream: false });
        }
    }

    pub(crate) fn disconnect(&mut self) {
        for end in 0..2 {
            self.ends[end].inbox.clear();
            self.input(end, Input::Disconnected { link: LINK });
        }
    }

    pub(crate) fn open(&mut self, end: usize, document: &str) {
        let document = document.parse().expect("a good name");
        self.input(end, Input::Open { document, options: Options::default() });
    }

    pub(crate) fn append(&mut self, end: usize, document: &str, bodies: &[&[u8]]) {
        let document = document.parse().expect("a good name");
        let bodies = bodies.iter().map(|body| Bytes::copy_from_slice(body)).collect();
        self.input(end, Input::Append { document, bodies });
    }

    pub(crate) fn tail(&self, end: usize, document: &str) -> u64 {
        self.ends[end].replica.document(&document.parse().expect("a good name")).map_or(0, |(_, tail)| tail)
    }

    /// Runs for so many milliseconds.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.settle();
            self.now = Instant::from_micros(self.now.as_micros() + 1000);
            for end in 0..2 {
                if self.ends[end].replica.deadline().is_some_and(|due| due <= self.now) {
                    self.input(end, Input::Timer);
                }
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for end in 0..2 {
                let frames = self.ends[end].carry_out(self.now);
                quiet &= frames.is_empty();
                for mut frame in frames {
                    self.frames += 1;
                    if self.damage_every > 0 && self.frames.is_multiple_of(self.damage_every) {
                        let mut bytes = frame.to_vec();
                        let place = self.frames as usize % bytes.len();
                        bytes[place] ^= 1;
                        frame = bytes.into();
                    }
                    self.ends[1 - end].inbox.push_back(frame);
                }
                while let Some(frame) = self.ends[end].inbox.pop_front() {
                    quiet = false;
                    self.input(end, Input::Received { link: LINK, frame });
                    let answers = self.ends[end].carry_out(self.now);
                    self.ends[1 - end].inbox.extend(answers);
                }
            }
            if quiet {
                return;
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        self.ends.iter_mut().for_each(|end| end.replica.finish());
    }
}

/// Two that meet, write, part, write alone and meet again.
pub(crate) fn script(two: &mut Two, tokens: [Option<&str>; 2]) {
    (0..2).for_each(|end| two.open(end, "notes"));
    two.connect(tokens);
    two.run(50);
    for number in 0..20 {
        let body = format!("{number} of the first, which is long enough to be named again").into_bytes();
        two.append(0, "notes", &[&body, b"short"]);
        two.append(1, "notes", &[b"of the second"]);
        two.run(30);
    }
    two.disconnect();
    two.append(0, "notes", &[&vec![b'x'; 3000], &vec![b'y'; 3000]]);
    two.run(100);
    two.connect(tokens);
    two.run(1000);
    let tails = [0, 1].map(|end| two.tail(end, "notes"));
    assert_eq!(tails, [62, 62], "they are in step");
    two.finish();
}

pub(crate) fn run_of(trace: &Trace) -> &Run {
    assert_eq!(trace.runs.len(), 1);
    &trace.runs[0]
}

/// Where the records of a segment are: from the length to after the checksum.
pub(crate) fn records(segment: &Bytes) -> Vec<std::ops::Range<usize>> {
    let mut rest = segment.slice(10..);
    let skip = |rest: &mut Bytes| {
        let len = take_varint(rest).expect("a length") as usize;
        *rest = rest.slice(len + 4..);
    };
    skip(&mut rest);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let from = segment.len() - rest.len();
        skip(&mut rest);
        records.push(from..segment.len() - rest.len());
    }
    records
}

/// The segment, the first of its recording, with another payload in an event's record, and the checksum that fits.
pub(crate) fn with_payload(segment: &Bytes, number: u64, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let record = records(segment)[number as usize].clone();
    let mut rest = segment.slice(record.clone());
    let len = take_varint(&mut rest).expect("a length") as usize;
    let mut payload = rest[..len].to_vec();
    change(&mut payload);
    let checksum = xxh3_64_with_seed(&payload, number) as u32;
    let mut out = segment[..record.start].to_vec();
    put_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(&payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&segment[record.end..]);
    out.into()
}
