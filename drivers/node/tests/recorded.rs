//! A node that is recorded does what it does, and its recording is the whole of it.

use std::thread;

use antiphon::Replica;
use antiphon::replica::Options;
use antiphon::storage::Continuity;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Error, Node, Ring};
use antiphon_recorder::{End, Trace};
use futures_lite::future::block_on;
use tempfile::TempDir;

fn open(ring: Ring) -> Result<Node, Error> {
    let config = Config { record: Some(ring), ..Config::default() };
    let (node, driver) = block_on(Node::open(MemoryStorage::new(), Continuity::Proven, config))?;
    thread::spawn(move || block_on(driver));
    Ok(node)
}

#[test]
fn everything_is_in_its_recording() {
    let directory = TempDir::new().expect("there is room");
    let node = open(Ring::new(directory.path())).expect("the directory can be written");
    let document = "notes".parse().expect("a good name");
    node.open_document(&document, Options::default()).expect("it runs");
    for number in 0..100 {
        block_on(node.append(&document, vec![format!("op {number}").into()])).expect("it runs");
    }
    block_on(node.written(&document)).expect("it is written");
    block_on(node.shutdown(None)).expect("all is written");
    assert_eq!(node.recording_failure(), None);

    let trace = Trace::open(directory.path()).expect("the recording is there");
    let mut replay = trace.runs[0].replay::<Replica>().expect("it has its beginning");
    assert!(replay.by_ref().all(|step| !step.differs()));
    let events = replay.into_events();
    assert_eq!(events.end(), Some(&End::Finished), "it ended with the node");
}

#[test]
fn where_nothing_can_be_recorded_nothing_is_opened() {
    let directory = TempDir::new().expect("there is room");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("it can be written");
    let error = open(Ring::new(&file)).expect_err("it is no directory");
    assert!(matches!(&error, Error::Recording(reason) if reason.contains("file")), "{error}");
}
