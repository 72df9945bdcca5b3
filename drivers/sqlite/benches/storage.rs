//! What a storage on disk costs, beside rows written and read by hand.
//!
//! `cargo bench -p antiphon-sqlite`. The raw baseline has the same settings of SQLite and keeps what an op has (document,
//! position, author, seq, body) as one row, with no index, no heads, no checks.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use antiphon::digest::BodyHash;
use antiphon::heads::Head;
use antiphon::op::{Body, DocumentId, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::storage::{Batch, Request, Storage, Transaction};
use antiphon_sqlite::{Options, SqliteStorage};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rusqlite::{Connection, params};
use tempfile::TempDir;

const BODY_BYTES: usize = 20;
const CATCH_UP_OPS: u64 = 100_000;
/// What a replica reads at once for a session.
const PIECE: u64 = 128 << 10;

/// One author's ops in one document, as a peer would send them.
struct Source {
    document: DocumentId,
    author: ReplicaId,
    head: Head,
    rng: Rng,
}

impl Source {
    fn new(number: u64) -> Self {
        let mut rng = Rng::new(number);
        let document = format!("document {number}").parse().expect("a name");
        Self { document, author: ReplicaId(rng.bytes16()), head: Head::NONE, rng }
    }

    fn batch(&mut self, count: usize) -> Batch {
        let position = self.head.seq;
        let origin = Some(Origin::of(self.author, Timeline::new(7)));
        let entries = (0..count).map(|_| {
            let bytes: Bytes = (0..BODY_BYTES).map(|_| self.rng.next_u64() as u8).collect();
            self.head = self.head.then(BodyHash::of(&bytes));
            let id = OpId { author: self.author, seq: self.head.seq };
            Entry { op: Op { id, body: Body::Bytes(bytes) }, chain: self.head.chain, origin }
        });
        let entries = entries.collect();
        let document = self.document.clone();
        Batch { document, position, entries, cursors: Vec::new(), timeline: None, salvaged: None }
    }

    fn write(&mut self, count: usize) -> Request {
        Request::Write(Transaction::Append(self.batch(count).into()))
    }
}

fn open(directory: &Path) -> SqliteStorage {
    SqliteStorage::open_directory(directory, &Options::default()).expect("a directory")
}

/// Rows by hand.
struct Raw(Connection);

impl Raw {
    fn new(directory: &Path) -> Self {
        let connection = Connection::open(directory.join("raw.db")).expect("a database");
        let schema = "
            PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;
            PRAGMA wal_autocheckpoint = 4096;
            CREATE TABLE op (document INTEGER, position INTEGER, author BLOB, seq INTEGER, body BLOB,
                PRIMARY KEY (document, position)) WITHOUT ROWID;";
        connection.execute_batch(schema).expect("a schema");
        Self(connection)
    }

    fn write<'a>(&mut self, batches: impl IntoIterator<Item = (usize, &'a Batch)>) {
        let transaction = self.0.transaction().expect("a transaction");
        let mut insert = transaction.prepare_cached("INSERT INTO op VALUES (?1, ?2, ?3, ?4, ?5)").expect("a statement");
        for (document, batch) in batches {
            for (position, entry) in (batch.position..).zip(&batch.entries) {
                let body = entry.op.body.bytes().map(Bytes::as_ref);
                let id = entry.op.id;
                insert
                    .execute(params![document as i64, position as i64, id.author.0, id.seq as i64, body])
                    .expect("a row");
            }
        }
        drop(insert);
        transaction.commit().expect("a commit");
    }

    fn read(&self) -> Vec<(u64, [u8; 16], u64, Bytes)> {
        let mut select = self
            .0
            .prepare_cached("SELECT position, author, seq, body FROM op WHERE document = 0 ORDER BY position")
            .expect("a statement");
        let rows = select.query_map([], |row| {
            let body = Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?);
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, row.get::<_, i64>(2)? as u64, body))
        });
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    }
}

fn append(criterion: &mut Criterion) {
    for (name, documents, count) in [
        ("append, batches of 100 in one document", 1_u64, 100_usize),
        ("append, groups of 10 documents, 100 ops each", 10, 100),
        ("append, groups of 10 documents, 10 ops each", 10, 10),
        ("append, groups of 10 documents, 1 op each", 10, 1),
        ("append, 1 op at a time", 1, 1),
    ] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(documents * count as u64));
        let sources = || RefCell::new((0..documents).map(Source::new).collect::<Vec<_>>());
        let directory = TempDir::new().expect("a directory");

        let (sources_, mut storage) = (sources(), open(directory.path()));
        group.bench_function("antiphon", |bencher| {
            let make = || sources_.borrow_mut().iter_mut().map(|source| source.write(count)).collect::<Vec<_>>();
            bencher.iter_batched(
                make,
                |requests| {
                    assert!(storage.execute_all(&requests).iter().all(Result::is_ok));
                    requests
                },
                BatchSize::PerIteration,
            );
        });

        let (sources_, mut raw) = (sources(), Raw::new(directory.path()));
        group.bench_function("raw", |bencher| {
            let make = || sources_.borrow_mut().iter_mut().map(|source| source.batch(count)).collect::<Vec<_>>();
            bencher.iter_batched(
                make,
                |batches| {
                    raw.write(batches.iter().enumerate());
                    batches
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

fn catch_up(criterion: &mut Criterion) {
    for (name, count) in [("written in batches of 100", 100), ("written one by one", 1)] {
        let mut group = criterion.benchmark_group(format!("catch-up, 100,000 ops {name}"));
        group.throughput(Throughput::Elements(CATCH_UP_OPS));
        let directory = TempDir::new().expect("a directory");
        let (mut storage, mut raw) = (open(directory.path()), Raw::new(directory.path()));
        let mut source = Source::new(0);
        for _ in 0..CATCH_UP_OPS as usize / count {
            let batch = source.batch(count);
            raw.write([(0, &batch)]);
            storage.write(&Transaction::Append(batch.into())).expect("a write");
        }
        group.bench_function("antiphon", |bencher| {
            bencher.iter(|| {
                let mut from = 0;
                while from < CATCH_UP_OPS {
                    let entries = storage.read(&source.document, from, PIECE).expect("entries");
                    from += entries.len() as u64;
                    black_box(entries);
                }
            });
        });
        group.bench_function("raw", |bencher| {
            bencher.iter(|| assert_eq!(black_box(raw.read()).len() as u64, CATCH_UP_OPS));
        });
        group.finish();
        storage.sync().expect("a sync");
        raw.0.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
        let size = |name| std::fs::metadata(directory.path().join(name)).expect("a file").len();
        println!("on disk: antiphon {} bytes, raw {} bytes\n", size("antiphon.db"), size("raw.db"));
    }
}

fn open_many(criterion: &mut Criterion) {
    const DOCUMENTS: u64 = 100_000;
    let mut group = criterion.benchmark_group("a directory of 100,000 documents");
    let directory = TempDir::new().expect("a directory");
    let mut storage = open(directory.path());
    for first in (0..DOCUMENTS).step_by(1000) {
        let requests: Vec<_> = (first..first + 1000).map(|number| Source::new(number).write(1)).collect();
        assert!(storage.execute_all(&requests).iter().all(Result::is_ok));
    }
    drop(storage);
    group.bench_function("open and close", |bencher| bencher.iter(|| drop(open(directory.path()))));
    let mut storage = open(directory.path());
    group.bench_function("list", |bencher| {
        bencher.iter(|| assert_eq!(storage.documents().expect("names").len() as u64, DOCUMENTS));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = append, catch_up, open_many
}
criterion_main!(benches);
