//! Two replicas in memory, everything included: append, write, pack, frame, unpack, judge, write, acknowledge.
//!
//! `cargo bench --bench replication`. Each group has a raw baseline: the same bodies through a queue of frames, copied
//! once into a frame and hashed once at each end, which is the least that any such system does.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use antiphon::digest::BodyHash;
use antiphon::op::DocumentId;
use antiphon::replica::{Config, Event, Input, LinkId, Options, Output, Replica};
use antiphon::rng::Rng;
use antiphon::session::Transport;
use antiphon::storage::{Continuity, Storage};
use antiphon::{Instant, Machine};
use antiphon_memory::MemoryStorage;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// A replica and its storage, and what it wants sent.
struct Node {
    replica: Replica,
    storage: MemoryStorage,
    frames: VecDeque<(LinkId, Bytes)>,
    received: u64,
    acknowledged: u64,
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut entropy = Rng::new(seed);
        let mut storage = MemoryStorage::new();
        let identity = storage.open(Continuity::Proven, &mut entropy).expect("a new disk");
        let replica = Replica::new(Config::default(), identity, [seed as u8; 32]);
        Self { replica, storage, frames: VecDeque::new(), received: 0, acknowledged: 0 }
    }

    fn input(&mut self, now: Instant, input: Input) {
        self.replica.handle(now, input).expect("the bench uses replicas as it should");
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Transmit { link, frame } => self.frames.push_back((link, frame)),
                Output::Storage { ticket, request } => {
                    let reply = self.storage.execute(&request).map_err(|error| error.to_string());
                    self.replica.handle(now, Input::Storage { ticket, reply }).expect("an answer");
                }
                Output::Event(Event::Received { batch }) => self.received += batch.entries.len() as u64,
                Output::Event(Event::Acknowledged { position, .. }) => self.acknowledged = position,
                Output::Event(_) | Output::Ask { .. } | Output::Disconnect { .. } => {}
            }
        }
    }

    fn append(&mut self, now: Instant, document: &DocumentId, bodies: Vec<Bytes>) {
        self.input(now, Input::Append { document: document.clone(), bodies });
    }
}

/// One writer and its readers, joined by reliable links without delay; link `n` goes to reader `n`.
struct Star {
    now: Instant,
    writer: Node,
    readers: Vec<Node>,
    document: DocumentId,
}

impl Star {
    fn new(readers: usize) -> Self {
        let document: DocumentId = "doc".parse().expect("a name");
        let writer = Node::new(1);
        let readers = (0..readers).map(|reader| Node::new(2 + reader as u64)).collect();
        let mut star = Self { now: Instant::from_millis(1), writer, readers, document };
        for index in 0..star.readers.len() {
            let connected =
                |link| Input::Connected { link, transport: Transport::Reliable, token: None, upstream: false };
            star.writer.input(star.now, connected(LinkId(index as u64)));
            star.readers[index].input(star.now, connected(LinkId(0)));
        }
        for node in core::iter::once(&mut star.writer).chain(&mut star.readers) {
            node.input(star.now, Input::Open { document: star.document.clone(), options: Options::default() });
        }
        star.settle();
        star
    }

    /// Delivers until all queues are empty.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            while let Some((LinkId(reader), frame)) = self.writer.frames.pop_front() {
                self.readers[reader as usize].input(self.now, Input::Received { link: LinkId(0), frame });
                busy = true;
            }
            for (index, reader) in self.readers.iter_mut().enumerate() {
                while let Some((_, frame)) = reader.frames.pop_front() {
                    self.writer.input(self.now, Input::Received { link: LinkId(index as u64), frame });
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// Lets acknowledgements become due.
    fn wait(&mut self) {
        self.now = self.now + Duration::from_millis(50);
        for node in core::iter::once(&mut self.writer).chain(&mut self.readers) {
            node.input(self.now, Input::Timer);
        }
        self.settle();
    }

    fn run(&mut self, ops: u64, batch: u64) {
        let start = self.readers[0].received;
        for _ in 0..ops / batch {
            let bodies = (0..batch).map(|_| Bytes::from_static(b"twenty bytes of body")).collect();
            self.writer.append(self.now, &self.document, bodies);
            self.settle();
        }
        self.wait();
        assert_eq!(self.readers[0].received - start, ops, "everything arrived");
        assert!(self.writer.acknowledged >= start + ops, "and was acknowledged");
    }
}

/// The least that such a system does.
fn raw(ops: u64, batch: u64) -> u64 {
    let mut frames: VecDeque<Bytes> = VecDeque::new();
    let (mut log, mut copy) = (Vec::<Bytes>::new(), Vec::<Bytes>::new());
    let mut sum = 0u64;
    for _ in 0..ops / batch {
        let mut frame = Vec::with_capacity(8 + 20 * batch as usize);
        for _ in 0..batch {
            let body = Bytes::from_static(b"twenty bytes of body");
            sum = sum.wrapping_add(BodyHash::of(&body).0);
            frame.extend_from_slice(&body);
            log.push(body);
        }
        frames.push_back(frame.into());
        while let Some(mut frame) = frames.pop_front() {
            for _ in 0..batch {
                let body = frame.split_to(20);
                sum = sum.wrapping_add(BodyHash::of(&body).0);
                copy.push(body);
            }
        }
    }
    sum
}

fn replication(criterion: &mut Criterion) {
    const OPS: u64 = 10_000;
    for (name, batch) in [("single-op frames", 1), ("batches of 100", 100)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(OPS)).sample_size(20);
        group.bench_function("two replicas", |bencher| {
            bencher.iter_batched_ref(|| Star::new(1), |star| star.run(OPS, batch), BatchSize::PerIteration);
        });
        group.bench_function("raw", |bencher| bencher.iter(|| black_box(raw(OPS, batch))));
        group.finish();
    }
}

fn fan_out(criterion: &mut Criterion) {
    const READERS: usize = 100;
    const OPS: u64 = 100;
    let mut group = criterion.benchmark_group("fan-out to 100 readers, deliveries");
    group.throughput(Throughput::Elements(OPS * READERS as u64)).sample_size(20);
    group.bench_function("single-op frames", |bencher| {
        bencher.iter_batched_ref(|| Star::new(READERS), |star| star.run(OPS, 1), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, replication, fan_out);
criterion_main!(benches);
