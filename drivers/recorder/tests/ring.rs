//! A ring keeps to its bounds, whatever is recorded, and its directory is read as what it was.

mod common;

use std::fs;
use std::path::Path;

use antiphon::replica::{Input, LinkId};
use antiphon::{Instant, Machine, Replica};
use antiphon_recorder::{BYTES_MIN, NotReplayable, Ring, Sink as _, Trace};
use common::*;
use tempfile::TempDir;

fn sizes(directory: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be read"));
    let mut sizes: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().expect("a plain name"), entry.metadata().expect("a file").len()))
        .collect();
    sizes.sort();
    sizes
}

fn ring(directory: &Path) -> Ring {
    Ring { bytes: BYTES_MIN, ..Ring::new(directory) }
}

/// Records so many events that take a kilobyte each.
fn record(directory: &Path, events: u64) {
    let mut end = End::new(1, ring(directory).open().expect("the directory can be written"), false);
    let document: antiphon::op::DocumentId = "notes".parse().expect("a good name");
    for number in 0..events {
        let body = number.to_le_bytes().repeat(128).into();
        let input = Input::Append { document: document.clone(), bodies: vec![body] };
        // It is not open: an input that is misuse is recorded like any other.
        end.replica.handle(Instant::from_millis(number), input).expect_err("it is not open");
        if number % 100 == 0 {
            let link = LinkId(number);
            end.replica.handle(Instant::from_millis(number), Input::Disconnected { link }).expect("it may be gone");
        }
    }
    assert_eq!(end.replica.failure(), None);
    end.replica.finish();
    assert_eq!(end.replica.failure(), None);
}

#[test]
fn the_oldest_segments_are_dropped() {
    let directory = TempDir::new().expect("there is room");
    record(directory.path(), 300);
    let trace = Trace::open(directory.path()).expect("it was just written");
    assert!(run_of(&trace).replay::<Replica>().expect("it has its beginning").all(|step| !step.differs()));
    record(directory.path(), 5000);
    let files = sizes(directory.path());
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    assert!(total <= BYTES_MIN + 2048, "{total} bytes");
    assert!(total >= BYTES_MIN / 2, "{total} bytes: what there is room for is kept");
    assert!(files.iter().all(|(name, _)| name.starts_with("00000002-")), "the first recording went first: {files:?}");
    let trace = Trace::open(directory.path()).expect("it was just written");
    let run = run_of(&trace);
    assert!(matches!(run.replay::<Replica>(), Err(NotReplayable::NoBeginning(gone)) if gone > 0));
    let last = run.events::<Replica>().last().expect("the newest are there");
    assert_eq!((last.number, last.at), (5049, Instant::from_millis(4999)));
}

#[test]
fn recordings_follow_each_other() {
    let directory = TempDir::new().expect("there is room");
    (0..3).for_each(|_| record(directory.path(), 5));
    fs::write(directory.path().join("notes.txt"), "not ours").expect("it can be written");
    fs::write(directory.path().join("00000009-00000000.trace"), "antiph").expect("it can be written");
    let trace = Trace::open(directory.path()).expect("it was just written");
    assert_eq!(trace.runs.iter().map(|run| run.header().run).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(trace.skipped.len(), 1, "what was never begun is told");
    for run in &trace.runs {
        assert!(run.replay::<Replica>().expect("it has its beginning").all(|step| !step.differs()));
    }
    // One of its files alone.
    let trace = Trace::open(&directory.path().join("00000002-00000000.trace")).expect("it is there");
    assert_eq!(run_of(&trace).events::<Replica>().count(), 6);
}

/// Nobody but its owner reads what may have bodies.
#[cfg(unix)]
#[test]
fn its_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = TempDir::new().expect("there is room");
    record(directory.path(), 1);
    let file = directory.path().join("00000001-00000000.trace");
    assert_eq!(fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_disk_that_fails_ends_the_recording_and_not_the_machine() {
    let directory = TempDir::new().expect("there is room");
    let inner = directory.path().join("ring");
    let mut end = End::new(1, ring(&inner).open().expect("it is made"), false);
    fs::remove_dir_all(&inner).expect("it is there");
    let mut append = |number: u64| {
        let bodies = vec![number.to_le_bytes().repeat(1024).into()];
        let input = Input::Append { document: "notes".parse().expect("a good name"), bodies };
        end.replica.handle(Instant::from_millis(number), input).expect_err("it is not open");
    };
    // More than a segment: the next one has no directory to be in.
    (0..20).for_each(&mut append);
    end.replica.finish(); // waits until everything is written, or can't be
    let failure = end.replica.failure().expect("it is said");
    assert!(failure.contains("can't be written"), "{failure}");
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    let directory = TempDir::new().expect("there is room");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("it can be written");
    assert!(ring(&file).open().is_err());
    let files = ring(&directory.path().join("a/b")).open().expect("it is made");
    assert_eq!(files.run(), 1);
}
