//! The store: cells written here, merged from a peer, and one by one; snapshots; what it has in memory; and how long it
//! takes until it is there from SQLite.
//!
//! `cargo bench --bench store`. The table has 100,000 rows of 10 integers.

#![expect(clippy::disallowed_methods, reason = "how long loading takes is what is told")]

use std::hint::black_box;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use antiphon::replica::{Authority, Event};
use antiphon::store::{ClientId, Store, WriteError};
use antiphon_node::{Config, Node};
use antiphon_sqlite::SqliteStorage;
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use smol::block_on;

const WALL: u64 = 1_700_000_000_000;
const ROWS: u64 = 100_000;
const CELLS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
/// Cells of a transaction.
const TRANSACTION: u64 = 100;
/// Transactions of a round.
const ROUND: u64 = 1000;

fn store(client: u32) -> Store {
    Store::new(ClientId::new(client))
}

/// Writes ten rows, from the one of this number on.
fn rows(store: &mut Store, first: u64, value: u64) -> Bytes {
    let mut transaction = store.begin(WALL).expect("the time is right");
    for row in first..first + TRANSACTION / CELLS.len() as u64 {
        let row = format!("row{}", row % ROWS);
        for cell in CELLS {
            transaction.set_cell("table", &row, cell, (value + 1000) as i64).expect("it fits");
        }
    }
    transaction.commit().expect("it fits").body.expect("each round writes other values")
}

/// Writes one cell.
fn cell(store: &mut Store, number: u64, value: u64) -> Bytes {
    let mut transaction = store.begin(WALL).expect("the time is right");
    let row = format!("row{}", number % ROWS);
    let cell = CELLS[(number % CELLS.len() as u64) as usize];
    transaction.set_cell("table", &row, cell, value as i64).expect("it fits");
    transaction.commit().expect("it fits").body.expect("each round writes other values")
}

fn full(store: &mut Store) {
    for first in (0..ROWS).step_by(10) {
        black_box(rows(store, first, 0));
    }
}

fn memory() {
    let info = allocation_counter::measure(|| {
        let mut store = store(1);
        full(&mut store);
        std::mem::forget(store); // so that what is left is what it has
    });
    let cells = ROWS * CELLS.len() as u64;
    println!("store/memory: {} bytes a cell, {} in all", info.bytes_current / cells as i64, info.bytes_current);
    let mut store = store(1);
    let body = cell(&mut store, 0, 1);
    full(&mut store);
    println!("store/body: {} bytes for one cell", body.len());
    println!("store/snapshot: {} bytes", store.snapshot().len());
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    group
        .throughput(Throughput::Elements(ROUND * TRANSACTION))
        .measurement_time(Duration::from_secs(5))
        .sample_size(20);
    let mut filled = store(1);
    full(&mut filled);
    let mut round = 0;
    group.bench_function("new cells, 100 a transaction", |b| {
        let write = |mut store: Store| {
            (0..ROUND).for_each(|n| drop(black_box(rows(&mut store, n * 10, 0))));
            store
        };
        b.iter_batched(|| store(1), write, BatchSize::PerIteration);
    });
    group.bench_function("cells written over, 100 a transaction", |b| {
        b.iter(|| {
            round += 1;
            (0..ROUND).for_each(|n| drop(black_box(rows(&mut filled, n * 10, round))));
        });
    });
    // A peer that hears of each round once; bodies are made beside the clock.
    let mut reader = Store::load(ClientId::new(2), &filled.snapshot(), WALL).expect("a snapshot");
    group.bench_function("cells merged, 100 a transaction", |b| {
        let bodies = || {
            round += 1;
            (0..ROUND).map(|n| rows(&mut filled, n * 10, round)).collect::<Vec<_>>()
        };
        let merge = |bodies: Vec<Bytes>| bodies.iter().for_each(|body| drop(black_box(reader.apply(body, WALL))));
        b.iter_batched(bodies, merge, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("cells written one by one", |b| {
        b.iter(|| {
            round += 1;
            (0..100_000).for_each(|n| drop(black_box(cell(&mut filled, n, round))));
        });
    });
    group.bench_function("cells merged one by one", |b| {
        let bodies = || {
            round += 1;
            (0..100_000).map(|n| cell(&mut filled, n, round)).collect::<Vec<_>>()
        };
        let merge = |bodies: Vec<Bytes>| bodies.iter().for_each(|body| drop(black_box(reader.apply(body, WALL))));
        b.iter_batched(bodies, merge, BatchSize::PerIteration);
    });
    group.finish();
}

fn snapshots(c: &mut Criterion) {
    let mut group = c.benchmark_group("store, 1,000,000 cells");
    group.throughput(Throughput::Elements(ROWS * CELLS.len() as u64));
    group.measurement_time(Duration::from_secs(5)).sample_size(10);
    let mut filled = store(1);
    full(&mut filled);
    let snapshot = filled.snapshot();
    group.bench_function("snapshot", |b| b.iter(|| black_box(filled.snapshot())));
    group.bench_function("load", |b| {
        b.iter_with_large_drop(|| Store::load(ClientId::new(2), &snapshot, WALL).expect("a snapshot"));
    });
    group.finish();
}

/// A directory that is open, and the store of what is in it.
struct Loaded {
    node: Node,
    driver: JoinHandle<()>,
    store: SharedStore,
    synchronizer: Synchronizer,
}

impl Loaded {
    fn close(self) {
        block_on(self.synchronizer.saved()).expect("it is written");
        block_on(self.node.shutdown(None)).expect("it closes");
        self.driver.join().expect("it does not panic");
    }
}

/// Opens a directory, and returns when a store holds what is in it.
fn load(directory: &Path) -> Loaded {
    let storage = SqliteStorage::open_directory(directory, &antiphon_sqlite::Options::default()).expect("it is ours");
    let continuity = storage.continuity();
    let (node, driver) = block_on(Node::open(storage, continuity, Config::default())).expect("it opens");
    let driver = std::thread::spawn(move || drop(block_on(driver)));
    let options = Options { authority: Authority::Us, compaction: None, ..Options::default() };
    let store = SharedStore::default();
    let synchronizer = Synchronizer::new(&store, &node, &"table".parse().expect("a name"), options);
    block_on(synchronizer.start()).expect("it is there");
    Loaded { node, driver, store, synchronizer }
}

/// From a closed directory to a store that can be read, with the table in ops of 100 cells, and as a snapshot.
fn from_sqlite(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("there is room");
    let empty = load(directory.path());
    for first in (0..ROWS).step_by(10) {
        let write = || {
            empty.store.write(|transaction| {
                (first..first + 10).try_for_each(|row| {
                    let name = format!("row{row}");
                    CELLS.iter().try_for_each(|cell| transaction.set_cell("table", &name, cell, 1000))
                })
            })
        };
        while let Err(error) = write() {
            assert_eq!(error, WriteError::Full, "it fits");
            std::thread::yield_now();
        }
    }
    empty.close();
    let mut group = c.benchmark_group("store, 1,000,000 cells in SQLite");
    group.throughput(Throughput::Elements(ROWS * CELLS.len() as u64));
    group.measurement_time(Duration::from_secs(5)).sample_size(10);
    let opening = |rounds| {
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            let loaded = load(directory.path());
            spent += began.elapsed();
            let rows = loaded.store.read(|store| store.table("table").map(|table| table.row_count()));
            assert_eq!(rows, Some(ROWS as usize));
            loaded.close();
        }
        spent
    };
    group.bench_function("load, 10,000 ops", |b| b.iter_custom(opening));
    let loaded = load(directory.path());
    let table = "table".parse().expect("a name");
    let (_, tail) = loaded.node.document(&table).expect("it is open");
    let mut compacted = loaded.node.subscribe_to(|event| matches!(event, Event::Compacted { .. }));
    loaded.node.compact(&table, tail, loaded.store.read(Store::snapshot)).expect("it is ours");
    block_on(compacted.next()).expect("it goes on");
    loaded.close();
    group.bench_function("load, a snapshot", |b| b.iter_custom(opening));
    group.finish();
}

fn all(c: &mut Criterion) {
    memory();
    writes(c);
    snapshots(c);
    from_sqlite(c);
}

criterion_group!(benches, all);
criterion_main!(benches);
