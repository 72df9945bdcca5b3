//! Compaction: a document that grows for ever and is compacted again and again takes no more room than it did at first.

mod common;

use antiphon::heads::Heads;
use antiphon::op::{Body, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::snapshot::Snapshot;
use antiphon::storage::{Batch, Reply, Request, Storage, Transaction};
use antiphon::timeline::TimelineRecord;
use antiphon_sqlite::{DATABASE_NAME, Error, Options, Refusal, SqliteStorage, look};
use bytes::Bytes;
use common::{Script, bytes_of, open, read_snapshot, snapshot, staging};
use rusqlite::Connection;
use tempfile::TempDir;

const OPS: u64 = 300_000;

fn compact(script: &Script, horizon: u64, body: impl Into<Bytes>) -> Transaction {
    Transaction::Compact { document: script.document.clone(), horizon, body: body.into() }
}

#[test]
fn a_document_that_is_compacted_takes_no_more_room() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(DATABASE_NAME);
    let mut script = Script::new("doc", 20);
    let mut sizes = Vec::new();
    for round in 1..=3 {
        let mut storage = open(directory.path());
        for _ in 0..OPS / 1000 {
            storage.write(&script.write(1000)).unwrap();
        }
        storage.write(&compact(&script, round * OPS - 1500, vec![round as u8; 100_000])).unwrap();
        storage.close().unwrap();
        sizes.push(std::fs::metadata(&file).unwrap().len());

        let mut storage = open(directory.path());
        assert_eq!(Script::new("doc", 20).resume(&mut storage), round * OPS);
        assert!(read_snapshot(&mut storage, &script.document).unwrap().ends_with(&[round as u8; 100_000]));
    }
    // Of a little more than 300,000 ops of 20 bytes, once.
    assert!(sizes[0] < OPS * 40, "{sizes:?}");
    assert!(sizes[2] < sizes[0] * 11 / 10, "{sizes:?}");
    let raw = Connection::open(&file).unwrap();
    let rows = |table: &str| -> u64 {
        raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    assert!(rows("chunk") < 20 && rows("run") < 20, "{} chunks and {} runs are left", rows("chunk"), rows("run"));
    assert_eq!(rows("snapshot"), 3, "the heads, and the body in two rows");
}

/// Over many rows and authors, some of whom are seldom seen: what is found after compactions is what going through all
/// entries finds.
#[test]
fn what_is_found_agrees_with_the_entries() {
    let directory = TempDir::new().unwrap();
    let document: DocumentId = "doc".parse().unwrap();
    let (mut rng, mut all, mut heads, mut horizon) = (Rng::new(1), Vec::new(), Heads::new(), 0);
    for _ in 0..6 {
        let mut storage = open(directory.path());
        for _ in 0..5 {
            let position = all.len() as u64;
            for _ in 0..100 {
                let most = 1 + rng.below(20);
                let author = ReplicaId([rng.below(most) as u8; 16]);
                let body = Body::Bytes(vec![1; rng.below(300) as usize].into());
                let head = heads.get(author).then(body.hash());
                heads.set(author, head);
                let op = Op { id: OpId { author, seq: head.seq }, body };
                all.push(Entry { op, chain: head.chain, origin: None });
            }
            let (document, entries) = (document.clone(), all[position as usize..].to_vec());
            let batch = Batch { document, position, entries, cursors: Vec::new(), timeline: None, salvaged: None };
            storage.write(&Transaction::Append(batch.into())).unwrap();
        }
        let at = |position: u64| {
            let mut heads = Heads::new();
            heads.extend(&all[..position as usize]);
            heads
        };
        horizon += 1 + rng.below(all.len() as u64 - horizon);
        let body = Bytes::from_static(b"body");
        storage.write(&Transaction::Compact { document: document.clone(), horizon, body: body.clone() }).unwrap();
        assert_eq!(storage.document(&document).unwrap().snapshot, Some(Snapshot::new(at(horizon), body).id()));
        for (position, entry) in (0..).zip(&all) {
            let known = position >= horizon || at(horizon).get(entry.op.id.author).seq == entry.op.id.seq;
            let chain = storage.chain(&document, entry.op.id).unwrap();
            assert_eq!(chain, known.then_some(entry.chain), "the chain at {position}, with horizon {horizon}");
        }
        for _ in 0..40 {
            let position = rng.below(all.len() as u64 + 1);
            let found = storage.compare(&document, &at(position)).unwrap();
            assert_eq!(found.from, if position < horizon { 0 } else { position }, "with horizon {horizon}");
            let position = position.max(horizon);
            assert_eq!(storage.heads_at(&document, position).unwrap(), at(position), "{position} from {horizon} on");
            assert_eq!(storage.read(&document, position, u64::MAX).unwrap(), all[position as usize..]);
        }
    }
}

/// Bodies that stand apart go with their entries, also where the others of a chunk stay.
#[test]
fn bodies_that_stand_apart_go() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let mut script = Script::new("doc", 10_000);
    storage.write(&script.write(20)).unwrap();
    let raw = Connection::open(directory.path().join(DATABASE_NAME)).unwrap();
    let apart = || raw.query_row("SELECT count(DISTINCT key) FROM piece", [], |row| row.get::<_, i64>(0)).unwrap();
    for (horizon, left) in [(7, 13), (19, 1), (20, 0)] {
        storage.write(&compact(&script, horizon, "body")).unwrap();
        assert_eq!(apart(), left, "with horizon {horizon}");
    }
    assert_eq!(raw.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)), Ok(0));
    storage.write(&script.write(3)).unwrap();
    assert_eq!(script.resume(&mut storage), 23);
}

/// What is staged is not written a second time when it is installed.
#[test]
fn an_install_copies_nothing() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let log = directory.path().join("antiphon.db-wal");
    let (document, taken) = ("doc".parse().unwrap(), snapshot(1, 4 << 20));
    staging(&document, &taken, 1 << 20).iter().for_each(|write| storage.write(write).unwrap());
    let before = std::fs::metadata(&log).unwrap().len();
    storage.write(&common::install(&document, 1)).unwrap();
    let written = std::fs::metadata(&log).unwrap().len() - before;
    assert!(written < 200_000, "{written} bytes were written");
    assert!(read_snapshot(&mut storage, &document).unwrap() == bytes_of(&taken));
    let shown = look(directory.path(), |view| view.snapshot(&document, taken.id(), 100_000, 50_000)).unwrap();
    assert_eq!(shown, bytes_of(&taken).slice(100_000..150_000));
    // Another one takes its place, and its room.
    let raw = Connection::open(directory.path().join(DATABASE_NAME)).unwrap();
    let rows = || raw.query_row("SELECT count(*) FROM snapshot", [], |row| row.get::<_, i64>(0)).unwrap();
    let one = rows();
    let next = staging(&document, &snapshot(2, 4 << 20), 1 << 20);
    next.iter().chain(&next).for_each(|write| storage.write(write).unwrap());
    assert_eq!(rows(), 2 * one, "one that is installed, and one that was staged twice");
    storage.write(&common::install(&document, 2)).unwrap();
    assert_eq!(rows(), one);
    // A reset leaves neither.
    storage.write(&next[0]).unwrap();
    let timeline = TimelineRecord { open: 3, timeline: Timeline::new(3), begins: 0 };
    storage.write(&Transaction::Reset { document, timeline }).unwrap();
    assert_eq!(rows(), 0);
}

/// Compactions, pieces and installs share a transaction with other writes, and each has its own fate.
#[test]
fn snapshots_are_written_in_groups() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let mut script = Script::new("log", 30);
    let (document, taken) = ("taken".parse().unwrap(), snapshot(1, 5000));
    let mut pieces = staging(&document, &taken, 3000);
    let second = pieces.pop().unwrap();
    let group = [
        script.write(50),
        second.clone(),
        compact(&script, 40, "body"),
        pieces.pop().unwrap(),
        common::install(&document, 1),
        second,
        compact(&script, 40, "another"),
        common::install(&document, 1),
        script.write(5),
    ];
    let outcomes = storage.execute_all(&group.map(Request::Write));
    let refused = [1, 4, 6].map(|index| outcomes[index].as_ref().unwrap_err());
    assert!(
        matches!(refused[0], Error::Refused(Refusal::WrongOffset { offset: 3000, staged: 0, .. })),
        "{}",
        refused[0]
    );
    assert!(matches!(refused[1], Error::Refused(Refusal::BadSnapshot { .. })), "{}", refused[1]);
    let horizon = |refusal: &Error| {
        matches!(refusal, Error::Refused(Refusal::WrongHorizon { horizon: 40, before: 40, tail: 50, .. }))
    };
    assert!(horizon(refused[2]), "{}", refused[2]);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(Reply::Written))).count(), 6, "{outcomes:?}");
    drop(storage);
    let mut storage = open(directory.path());
    assert_eq!(Script::new("log", 30).resume(&mut storage), 55);
    assert!(read_snapshot(&mut storage, &document).unwrap() == bytes_of(&taken));
}

/// What was synced is in the database itself, and does not need the log beside it, of which a loss of power may take any
/// part.
#[test]
fn a_compaction_is_synced() {
    for in_group in [false, true] {
        let directory = TempDir::new().unwrap();
        let mut storage = open(directory.path());
        let (mut script, mut other) = (Script::new("log", 100), Script::new("other", 100));
        storage.write(&script.write(50)).unwrap();
        let write = compact(&script, 40, "body");
        if in_group {
            let group = [other.request(1), Request::Write(write), other.request(1)];
            assert!(storage.execute_all(&group).iter().all(Result::is_ok));
        } else {
            storage.write(&write).unwrap();
        }
        let copy = TempDir::new().unwrap();
        std::fs::copy(directory.path().join(DATABASE_NAME), copy.path().join(DATABASE_NAME)).unwrap();
        let state = open(copy.path()).document(&script.document).unwrap();
        assert_eq!((state.horizon, state.tail), (40, 50));
    }
}

/// A compaction that finds no room fails, and leaves the document as it was. One whose snapshot takes less than what it
/// stands for needs none.
#[test]
fn a_compaction_makes_its_own_room() {
    let directory = TempDir::new().unwrap();
    let options = Options { pages_max: 200, ..Options::default() };
    let mut storage = SqliteStorage::open_directory(directory.path(), &options).unwrap();
    let (mut script, mut tail) = (Script::new("log", 100), 0);
    while storage.write(&script.write(50)).is_ok() {
        tail += 50;
    }
    let before = storage.document(&script.document).unwrap();
    let error = storage.write(&compact(&script, tail, vec![1; 1 << 20])).unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(storage.document(&script.document).unwrap(), before);
    assert_eq!(script.resume(&mut storage), tail);
    storage.write(&compact(&script, tail - 100, vec![1; 500_000])).unwrap();
    storage.write(&script.write(50)).unwrap();
    assert_eq!(script.resume(&mut storage), tail + 50);
}

/// Most of what a compaction frees goes back to the file system, when the log is moved into the database at the latest.
#[test]
fn what_a_compaction_frees_is_given_back() {
    let directory = TempDir::new().unwrap();
    let mut storage = SqliteStorage::open_directory(directory.path(), &Options::default()).unwrap();
    let mut script = Script::new("log", 1000);
    for _ in 0..100 {
        storage.write(&script.write(100)).unwrap();
    }
    storage.sync().unwrap();
    let bytes = || {
        let files = std::fs::read_dir(directory.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    storage.write(&compact(&script, 10_000, vec![1; 1000])).unwrap();
    storage.close().unwrap();
    assert!(bytes() < 2 << 20, "{} bytes are left of ten million", bytes());
}
