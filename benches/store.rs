//! The store by itself: cells written here, merged from a peer, and one by one; snapshots; and what it has in memory.
//!
//! `cargo bench --bench store`. The table has 100,000 rows of 10 integers.

use std::hint::black_box;
use std::time::Duration;

use antiphon::store::{ClientId, Store};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

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

fn all(c: &mut Criterion) {
    memory();
    writes(c);
    snapshots(c);
}

criterion_group!(benches, all);
criterion_main!(benches);
