//! A process that is killed in the middle of its writes: nothing that it was told is written is missing, and what is
//! there is whole.

mod common;

use std::path::Path;

use antiphon::rng::Rng;
use antiphon::storage::Storage;
use antiphon_sqlite::{Durability, Options, SqliteStorage};
use common::{Script, Told, child_command, child_directory};
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
