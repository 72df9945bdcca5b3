//! Memory: a large document, or snapshot, is read, compared and written without ever being in memory as a whole.
#![cfg(target_os = "linux")]

mod common;

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::op::{DocumentId, OpId};
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Storage, Transaction};
use antiphon_sqlite::DATABASE_NAME;
use bytes::Bytes;
use common::{Script, Told, child_command, child_directory, open};
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

const OPS: u64 = 256;
const BODY_BYTES: usize = 1 << 20;
const RSS_MAX: u64 = 64 << 20;

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_large_document_fits_little_memory() {
    let directory = TempDir::new().unwrap();
    for (name, what) in [
        ("writes_a_large_document", "writing"),
        ("reads_a_large_document", "reading"),
        ("compacts_a_large_document", "compacting"),
        ("takes_a_large_snapshot", "taking a snapshot of"),
    ] {
        let mut child = Told::spawn(child_command(name, directory.path()));
        let peak: u64 = child.hear("peak").expect(what).parse().unwrap();
        assert!(child.child.wait().unwrap().success(), "{what}");
        assert!(peak < RSS_MAX, "{what} {} MiB took {} MiB", OPS, peak >> 20);
    }
    assert!(std::fs::metadata(directory.path().join(DATABASE_NAME)).unwrap().len() > OPS * BODY_BYTES as u64);
}

#[test]
fn writes_a_large_document() {
    let Some(directory) = child_directory() else { return };
    let mut storage = open(directory.as_ref());
    let mut script = Script::new("large", BODY_BYTES);
    for _ in 0..OPS / 4 {
        storage.write(&script.write(4)).unwrap();
    }
    eprintln!("peak {}", peak());
}

#[test]
fn reads_a_large_document() {
    let Some(directory) = child_directory() else { return };
    let mut storage = open(directory.as_ref());
    let script = Script::new("large", BODY_BYTES);
    let mut from = 0;
    while from < OPS {
        let entries = storage.read(&script.document, from, 4 << 20).unwrap();
        assert!((1..4).contains(&entries.len()));
        from += entries.len() as u64;
    }
    // Neither of these has to do with bodies.
    let head = Head { seq: OPS / 2, chain: Chain::EMPTY };
    let heads: Heads = [(script.author, head)].into_iter().collect();
    let comparison = storage.compare(&script.document, &heads).unwrap();
    assert_eq!((comparison.from, comparison.forks), (OPS / 2, vec![script.author]));
    assert!(storage.chain(&script.document, OpId { author: script.author, seq: 3 }).unwrap().is_some());
    eprintln!("peak {}", peak());
}

#[test]
fn compacts_a_large_document() {
    let Some(directory) = child_directory() else { return };
    let mut storage = open(directory.as_ref());
    let (document, body) = (Script::new("large", BODY_BYTES).document, Bytes::from_static(b"all of it"));
    for horizon in [OPS / 2, OPS] {
        storage.write(&Transaction::Compact { document: document.clone(), horizon, body: body.clone() }).unwrap();
    }
    eprintln!("peak {}", peak());
}

/// A snapshot without heads: the piece at any of its megabytes.
fn megabyte(number: u64) -> Bytes {
    vec![number as u8; BODY_BYTES].into()
}

#[test]
fn takes_a_large_snapshot() {
    let Some(directory) = child_directory() else { return };
    let mut storage = open(directory.as_ref());
    let mut hasher = Xxh3::new();
    (0..OPS).for_each(|number| hasher.update(&megabyte(number)));
    let hash = hasher.digest128().to_le_bytes();
    let id = SnapshotId { bytes: OPS * BODY_BYTES as u64, head_bytes: 0, hash };
    let document: DocumentId = "taken".parse().unwrap();
    for number in 0..OPS {
        let (offset, bytes) = (number * BODY_BYTES as u64, megabyte(number));
        storage.write(&Transaction::Stage { document: document.clone(), id, offset, bytes }).unwrap();
    }
    storage.write(&common::install(&document, 1)).unwrap();
    for number in 0..OPS {
        let read = storage.snapshot(&document, id, number * BODY_BYTES as u64, BODY_BYTES as u64).unwrap();
        assert!(read == megabyte(number), "megabyte {number}");
    }
    eprintln!("peak {}", peak());
}
