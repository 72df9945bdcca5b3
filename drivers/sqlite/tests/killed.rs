//! A process that is killed in the middle of its writes: nothing that it was told is written is missing, and what is
//! there is whole.

mod common;

use std::path::Path;

use antiphon::rng::Rng;
use antiphon::storage::{Storage, Transaction};
use antiphon_sqlite::{Durability, Options, SqliteStorage};
use common::{Script, Told, bytes_of, child_command, child_directory, read_snapshot, snapshot, staging};
use tempfile::TempDir;

/// What the writer writes, by turns: small ops, middling ones, and some whose bodies stand apart.
fn scripts() -> [Script; 3] {
    [Script::new("small", 20), Script::new("middling", 700), Script::new("large", 300_000)]
}

/// Small logs, so that kills also fall on their being moved into the database.
fn options(durability: Durability) -> Options {
    Options { durability, log_max: 256 << 10, ..Options::default() }
}

#[test]
fn nothing_acknowledged_is_missing_with_commit() {
    kill_again_and_again("writes_with_commit", Durability::Commit, 30);
}

#[test]
fn nothing_acknowledged_is_missing_with_fsync() {
    kill_again_and_again("writes_with_fsync", Durability::Fsync, 10);
}

fn kill_again_and_again(writer: &str, durability: Durability, rounds: u64) {
    let directory = TempDir::new().unwrap();
    let mut rng = Rng::new(rounds);
    for round in 0..rounds {
        let mut child = Told::spawn(child_command(writer, directory.path()));
        let mut acknowledged = String::new();
        for _ in 0..=rng.below(60) {
            acknowledged = child.hear("acknowledged").expect("the child writes on");
        }
        acknowledged = child.kill("acknowledged").unwrap_or(acknowledged);
        let tails: Vec<u64> = acknowledged.split(' ').map(|tail| tail.parse().unwrap()).collect();

        let mut storage = SqliteStorage::open_directory(directory.path(), &options(durability)).unwrap();
        for (script, acknowledged) in scripts().iter_mut().zip(tails) {
            let tail = script.resume(&mut storage);
            let document = &script.document;
            assert!(tail >= acknowledged, "round {round}, {document}: {acknowledged} acknowledged, {tail} there");
            assert!(tail <= acknowledged + OPS_MAX, "round {round}, {document}: {tail} there");
        }
    }
}

/// What a group writes of a document at most.
const OPS_MAX: u64 = 100;

#[test]
fn writes_with_commit() {
    child_directory().into_iter().for_each(|directory| write_on(directory.as_ref(), Durability::Commit));
}

#[test]
fn writes_with_fsync() {
    child_directory().into_iter().for_each(|directory| write_on(directory.as_ref(), Durability::Fsync));
}

fn write_on(directory: &Path, durability: Durability) {
    let mut storage = SqliteStorage::open_directory(directory, &options(durability)).unwrap();
    let mut scripts = scripts();
    let mut tails = [0; 3];
    for (script, tail) in scripts.iter_mut().zip(&mut tails) {
        *tail = script.resume(&mut storage);
    }
    loop {
        let counts = [1 + tails[0] % OPS_MAX, tails[1] % 3, u64::from(tails[0] % 5 == 0)];
        let group: Vec<_> = scripts.iter_mut().zip(counts).map(|(script, count)| script.request(count)).collect();
        assert!(storage.execute_all(&group).iter().all(Result::is_ok));
        tails.iter_mut().zip(counts).for_each(|(tail, count)| *tail += count);
        eprintln!("acknowledged {} {} {}", tails[0], tails[1], tails[2]);
    }
}

/// A log that is appended to and compacted, and a document that takes one snapshot after the other, step by step.
struct Snapshots {
    log: Script,
    /// How many steps are done.
    steps: u64,
}

/// The steps of a round: appends, a compaction, pieces of a snapshot, an install.
const APPENDS: u64 = 4;
const PIECES: u64 = 4;
const ROUND: u64 = APPENDS + 1 + PIECES + 1;

/// What an append, and a piece, has.
const OPS: u64 = 60;
const PIECE_BYTES: usize = 50_000;

impl Snapshots {
    fn body(horizon: u64) -> Vec<u8> {
        vec![horizon as u8; 90_000]
    }

    fn next(&mut self) -> Transaction {
        let (round, step) = (self.steps / ROUND, self.steps % ROUND);
        let taken = "taken".parse().unwrap();
        self.steps += 1;
        if step < APPENDS {
            self.log.write(OPS)
        } else if step == APPENDS {
            let horizon = (round + 1) * APPENDS * OPS - OPS / 2;
            let body = Self::body(horizon).into();
            Transaction::Compact { document: self.log.document.clone(), horizon, body }
        } else if step < ROUND - 1 {
            let pieces = staging(&taken, &snapshot(round + 1, PIECE_BYTES * PIECES as usize - 1000), PIECE_BYTES);
            pieces[(step - APPENDS - 1) as usize].clone()
        } else {
            common::install(&taken, round + 1)
        }
    }

    /// Demands that a storage holds what some of the steps have made, and tells which is the next.
    fn resume(storage: &mut SqliteStorage) -> Self {
        let mut log = Script::new("log", 40);
        let tail = log.resume(storage);
        let (state, taken) = (storage.document(&log.document).unwrap(), "taken".parse().unwrap());
        let coming = storage.document(&taken).unwrap();
        let rounds = coming.forgotten;
        let compacted = (state.horizon + OPS / 2) / (APPENDS * OPS);
        assert_eq!(coming.snapshot, (rounds > 0).then(|| snapshot(rounds, PIECE_BYTES * PIECES as usize - 1000).id()));
        if compacted > 0 {
            assert!(read_snapshot(storage, &log.document).unwrap().ends_with(&Self::body(state.horizon)));
        }
        if rounds > 0 {
            let expected = bytes_of(&snapshot(rounds, PIECE_BYTES * PIECES as usize - 1000));
            assert!(read_snapshot(storage, &taken).unwrap() == expected, "the snapshot of round {rounds}");
        }
        let appends = tail / OPS - rounds * APPENDS;
        let pieces = coming.staged.map_or(0, |staged| staged.bytes.div_ceil(PIECE_BYTES as u64));
        assert!(
            tail.is_multiple_of(OPS) && appends <= APPENDS && (compacted == rounds || appends == APPENDS),
            "{state:?}"
        );
        assert!(compacted == rounds || compacted == rounds + 1, "{compacted} compactions after {rounds} rounds");
        assert!(pieces == 0 || compacted == rounds + 1, "{pieces} pieces before the compaction");
        Self { log, steps: rounds * ROUND + appends + (compacted - rounds) + pieces }
    }
}

#[test]
fn snapshots_are_whole_whenever_it_is_killed() {
    let directory = TempDir::new().unwrap();
    let mut rng = Rng::new(3);
    for round in 0..30 {
        let mut child = Told::spawn(child_command("makes_and_takes_snapshots", directory.path()));
        let mut acknowledged = String::new();
        for _ in 0..=rng.below(40) {
            acknowledged = child.hear("acknowledged").expect("the child writes on");
        }
        acknowledged = child.kill("acknowledged").unwrap_or(acknowledged);
        let acknowledged: u64 = acknowledged.parse().unwrap();
        let mut storage = SqliteStorage::open_directory(directory.path(), &options(Durability::Commit)).unwrap();
        let steps = Snapshots::resume(&mut storage).steps;
        assert!((acknowledged..=acknowledged + 1).contains(&steps), "round {round}: {steps} instead of {acknowledged}");
    }
}

#[test]
fn makes_and_takes_snapshots() {
    let Some(directory) = child_directory() else { return };
    let mut storage = SqliteStorage::open_directory(directory, &options(Durability::Commit)).unwrap();
    let mut snapshots = Snapshots::resume(&mut storage);
    loop {
        storage.write(&snapshots.next()).unwrap();
        eprintln!("acknowledged {}", snapshots.steps);
    }
}
