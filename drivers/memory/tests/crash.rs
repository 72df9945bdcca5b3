//! The simulated disk: what is left after kills, losses of power, failures and restored backups.

use antiphon::digest::Chain;
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::storage::{Batch, Continuity, Identity, Storage, StoredDocument, Transaction};
use antiphon::timeline::TimelineRecord;
use antiphon::wire::Durability;
use antiphon_memory::{CrashPoint, Disk, Held, MemoryStorage, StorageError};
use bytes::Bytes;

const AUTHOR: ReplicaId = ReplicaId([1; 16]);
const PEER: ReplicaId = ReplicaId([9; 16]);

#[test]
fn one_holder_at_a_time() {
    let disk = Disk::new();
    let first = open(&disk);
    assert_eq!(disk.open().unwrap_err(), Held);
    let same = first.clone();
    drop(first);
    assert_eq!(disk.open().unwrap_err(), Held, "a clone holds it still");
    drop(same);
    open(&disk);
}

#[test]
fn a_kill_keeps_what_was_written() {
    let disk = Disk::new();
    let mut storage = open(&disk);
    append(&mut storage, 3).unwrap();
    disk.kill();
    assert_gone(&mut storage);
    let mut next = open(&disk);
    assert_eq!((tail(&mut next), disk.unsynced()), (3, 3), "written, and not synced by being killed");
    assert_gone(&mut storage);
    drop(storage);
    assert_eq!(disk.open().unwrap_err(), Held, "a handle that is gone must not free the disk of another");
}

#[test]
fn a_loss_of_power_keeps_a_prefix() {
    for keep in 0..=6 {
        let disk = Disk::new();
        let mut storage = open(&disk);
        append(&mut storage, 2).unwrap();
        storage.sync().unwrap();
        append(&mut storage, 5).unwrap();
        assert_eq!(disk.unsynced(), 5);
        disk.lose_power(keep);
        assert_gone(&mut storage);
        let mut left = open(&disk);
        assert_eq!(tail(&mut left), 2 + keep.min(5) as u64);
        assert_eq!(disk.unsynced(), 0, "what is left is durable");
        disk.lose_power(0);
        assert_eq!(tail(&mut open(&disk)), 2 + keep.min(5) as u64);
    }
}

#[test]
fn closing_in_order_syncs() {
    let disk = Disk::with_promise(Durability::Memory);
    append(&mut open(&disk), 3).unwrap();
    disk.lose_power(0);
    assert_eq!(tail(&mut open(&disk)), 3);

    let mut storage = open(&disk);
    append(&mut storage, 1).unwrap();
    disk.fail_next(1);
    drop(storage);
    assert_eq!(disk.unsynced(), 1, "the sync of closing failed");
}

#[test]
fn the_promise_says_what_survives() {
    let left = |promise, crash: fn(&Disk)| {
        let disk = Disk::with_promise(promise);
        assert_eq!(disk.promise(), promise);
        let mut storage = open(&disk);
        append(&mut storage, 1).unwrap();
        storage.sync().unwrap();
        append(&mut storage, 2).unwrap();
        crash(&disk);
        tail(&mut open(&disk))
    };
    assert_eq!(left(Durability::Memory, Disk::kill), 1);
    assert_eq!(left(Durability::Commit, Disk::kill), 3);
    assert_eq!(left(Durability::Fsync, Disk::kill), 3);
    assert_eq!(left(Durability::Memory, |disk| disk.lose_power(0)), 1);
    assert_eq!(left(Durability::Commit, |disk| disk.lose_power(0)), 1);
    assert_eq!(left(Durability::Fsync, |disk| disk.lose_power(0)), 3);
}

#[test]
fn every_kind_of_write_is_taken_back() {
    let disk = Disk::new();
    let mut storage = open(&disk);
    storage.open(Continuity::Proven, &mut Rng::new(1)).unwrap();
    append(&mut storage, 3).unwrap();
    reset(&mut storage, "doc", 1);
    append(&mut storage, 2).unwrap();
    storage.sync().unwrap();

    let mut prefixes = vec![everything(&mut storage)];
    let copies: Vec<_> = std::iter::repeat_with(|| disk.backup()).take(WRITES + 1).collect();
    for step in 0..WRITES {
        write_something(&mut storage, step);
        let now = everything(&mut storage);
        assert!(!prefixes.contains(&now), "write {step} changes something");
        prefixes.push(now);
    }
    for (keep, (copy, prefix)) in copies.iter().zip(&prefixes).enumerate() {
        let mut storage = open(copy);
        (0..WRITES).for_each(|step| write_something(&mut storage, step));
        assert_eq!(everything(&mut storage), prefixes[WRITES]);
        copy.lose_power(keep);
        let mut storage = open(copy);
        assert_eq!(everything(&mut storage), *prefix, "the first {keep} writes were kept");
        // What is left can be written on: the index fits the entries.
        (keep..WRITES).for_each(|step| write_something(&mut storage, step));
        assert_eq!(everything(&mut storage), prefixes[WRITES]);
    }
}

const WRITES: usize = 9;

/// Every kind of write, in an order in which each depends on those before.
fn write_something(storage: &mut MemoryStorage, step: usize) {
    let cursor = |position| (PEER, Cursor { timeline: Timeline::new(1), position });
    match step {
        0 | 1 => {
            // Three are aside: the second of these deals with the last of them, and so drops all.
            let mut batch = next(storage, "doc");
            batch.cursors = vec![cursor(step as u64), cursor(step as u64 + 5)];
            batch.timeline = Some(TimelineRecord { begins: batch.position, ..record(2 + step as u64) });
            batch.salvaged = Some(1 + 2 * step as u64);
            storage.write(&Transaction::Append(batch.into())).unwrap();
        }
        2 | 4 => reset(storage, "doc", 5 + step as u64),
        3 | 5 => append(storage, 1).unwrap(),
        6 => {
            let batch = next(storage, "new");
            storage.write(&Transaction::Append(batch.into())).unwrap();
        }
        7 => reset(storage, "other", 9),
        _ => {
            let identity = Identity::reopen(None, Continuity::Broken, &mut Rng::new(2));
            storage.write(&Transaction::Identity(identity)).unwrap();
        }
    }
}

#[test]
fn a_backup_is_another_disk() {
    let disk = Disk::new();
    let mut storage = open(&disk);
    append(&mut storage, 2).unwrap();
    let backup = disk.backup();
    append(&mut storage, 1).unwrap();
    let mut restored = open(&backup);
    assert_eq!((tail(&mut restored), tail(&mut storage), backup.unsynced()), (2, 3, 0));
    append(&mut restored, 4).unwrap();
    assert_eq!((tail(&mut restored), tail(&mut storage)), (6, 3));
}

#[test]
fn failures_have_no_effect() {
    let disk = Disk::new();
    let mut storage = open(&disk);
    append(&mut storage, 1).unwrap();
    disk.fail_next(2);
    assert_eq!(append(&mut storage, 1), Err(StorageError::Failed));
    assert_eq!(storage.sync(), Err(StorageError::Failed));
    assert_eq!((tail(&mut storage), disk.unsynced()), (1, 1));
    append(&mut storage, 1).unwrap();

    disk.fail_at_step(3);
    append(&mut storage, 1).unwrap();
    append(&mut storage, 1).unwrap();
    assert_eq!(append(&mut storage, 1), Err(StorageError::Failed));
    append(&mut storage, 1).unwrap();
    assert_eq!(tail(&mut storage), 5);

    disk.fail_always(true);
    for _ in 0..3 {
        assert_eq!(append(&mut storage, 1), Err(StorageError::Failed));
    }
    disk.fail_always(false);
    append(&mut storage, 1).unwrap();
    assert_eq!(tail(&mut storage), 6);
}

#[test]
fn a_crash_falls_on_one_side_of_a_step() {
    for (point, promise, left) in [
        (CrashPoint::Before, Durability::Commit, 3),
        (CrashPoint::After, Durability::Commit, 4),
        (CrashPoint::After, Durability::Fsync, 4),
        (CrashPoint::After, Durability::Memory, 1),
    ] {
        let disk = Disk::with_promise(promise);
        let mut storage = open(&disk);
        append(&mut storage, 1).unwrap();
        storage.sync().unwrap();
        disk.crash_at_step(3, point);
        append(&mut storage, 2).unwrap();
        assert_eq!(append(&mut storage, 1), Err(StorageError::Gone));
        assert_gone(&mut storage);
        let mut next = open(&disk);
        assert_eq!(tail(&mut next), left, "{point:?} with {promise:?}");
        append(&mut next, 5).unwrap();
    }
}

#[test]
fn a_crash_may_fall_on_a_sync() {
    for (point, left) in [(CrashPoint::Before, 0), (CrashPoint::After, 2)] {
        let disk = Disk::new();
        let mut storage = open(&disk);
        disk.crash_at_step(3, point);
        append(&mut storage, 2).unwrap();
        assert_eq!(storage.sync(), Err(StorageError::Gone));
        disk.lose_power(0);
        assert_eq!(tail(&mut open(&disk)), left, "{point:?}");
    }
}

#[test]
fn what_is_refused_is_explained() {
    let mut storage = MemoryStorage::new();
    append(&mut storage, 2).unwrap();
    let refusal = |storage: &mut MemoryStorage, distort: fn(&mut Batch)| {
        let mut batch = next(storage, "doc");
        distort(&mut batch);
        storage.write(&Transaction::Append(batch.into())).unwrap_err().to_string()
    };
    let author = AUTHOR;
    assert_eq!(
        refusal(&mut storage, |batch| batch.position = 7),
        "doc: a batch for position 7 was refused, for the tail is 2"
    );
    assert_eq!(
        refusal(&mut storage, |batch| batch.entries[0].op.id.seq = 5),
        format!("doc: op 5 of {author} was refused, for its next is 3")
    );
    assert_eq!(
        refusal(&mut storage, |batch| batch.entries[0].chain = Chain(1)),
        format!("doc: op 3 of {author} was refused, for its chain does not fit those before it")
    );
    assert_eq!(tail(&mut storage), 2);
}

fn open(disk: &Disk) -> MemoryStorage {
    disk.open().unwrap()
}

fn id(name: &str) -> DocumentId {
    name.parse().unwrap()
}

fn record(open: u64) -> TimelineRecord {
    TimelineRecord { open, timeline: Timeline::new(open), begins: 0 }
}

fn next(storage: &mut MemoryStorage, name: &str) -> Batch {
    let state = storage.document(&id(name)).unwrap();
    let body = Body::Bytes(Bytes::from(format!("{name} {}", state.tail)));
    let Head { seq, chain } = state.heads.get(AUTHOR).then(body.hash());
    let entry = Entry { op: Op { id: OpId { author: AUTHOR, seq }, body }, chain, origin: None };
    let (document, position, entries) = (id(name), state.tail, vec![entry]);
    Batch { document, position, entries, cursors: Vec::new(), timeline: None, salvaged: None }
}

/// Appends that many batches of one op.
fn append(storage: &mut MemoryStorage, count: usize) -> Result<(), StorageError> {
    for _ in 0..count {
        let batch = next(storage, "doc");
        storage.write(&Transaction::Append(batch.into()))?;
    }
    Ok(())
}

fn reset(storage: &mut MemoryStorage, name: &str, open: u64) {
    storage.write(&Transaction::Reset { document: id(name), timeline: record(open) }).unwrap();
}

fn tail(storage: &mut MemoryStorage) -> u64 {
    storage.document(&id("doc")).unwrap().tail
}

type Everything = Vec<(DocumentId, StoredDocument, Option<Cursor>, Vec<Entry>, Vec<Entry>, Option<Chain>)>;

fn everything(storage: &mut MemoryStorage) -> (Option<ReplicaId>, Everything) {
    let mut all = Vec::new();
    for document in storage.documents().unwrap() {
        let cursor = storage.cursor(&document, PEER).unwrap();
        let entries = storage.read(&document, 0, u64::MAX).unwrap();
        let aside = storage.read_aside(&document, 0, u64::MAX).unwrap();
        let state = storage.document(&document).unwrap();
        let last = OpId { author: AUTHOR, seq: state.heads.get(AUTHOR).seq };
        let chain = storage.chain(&document, last).unwrap();
        all.push((document, state, cursor, entries, aside, chain));
    }
    (storage.identity().unwrap().map(|identity| identity.replica), all)
}

#[track_caller]
fn assert_gone(storage: &mut MemoryStorage) {
    assert_eq!(storage.identity(), Err(StorageError::Gone));
    assert_eq!(storage.documents(), Err(StorageError::Gone));
    assert_eq!(storage.document(&id("doc")), Err(StorageError::Gone));
    assert_eq!(storage.read(&id("doc"), 0, 0), Err(StorageError::Gone));
    assert_eq!(storage.sync(), Err(StorageError::Gone));
    let identity = Identity::reopen(None, Continuity::Broken, &mut Rng::new(2));
    assert_eq!(storage.write(&Transaction::Identity(identity)), Err(StorageError::Gone));
}
