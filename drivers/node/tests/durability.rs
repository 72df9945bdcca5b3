//! Nothing is acknowledged that is not durable, and what fails is told.

mod common;

use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{self, Event, Misuse};
use antiphon::storage::{Continuity, Storage};
use antiphon_memory::{Disk, MemoryStorage};
use antiphon_node::{Config, Error, Node, Notice};
use common::*;
use futures_lite::future::{block_on, or, poll_once};

#[test]
fn while_the_storage_stalls_nothing_is_acknowledged() {
    let (storage, gate) = Gated::new();
    let (server, writer) = (Running::start(storage, Config::default()), memory());
    let document = open(&writer.node);
    let link = connect(&writer.node, &server.node);
    append(&writer.node, "before");
    wait(link.acknowledged(&document)).expect("the server writes it");

    gate.close();
    append(&writer.node, "while it stalls");
    wait(writer.node.written(&document)).expect("it is durable here");
    // The server has it, and goes on with everything else: a document that need not be written is opened.
    let other = "other".parse().expect("a good name");
    let taken = || server.node.inspect(|replica| replica.memory_cost());
    while taken() < 2 * 32 {
        std::thread::yield_now();
    }
    server.node.open_document(&other, replica::Options::default()).expect("the node runs");
    let mut acknowledged = Box::pin(link.acknowledged(&document));
    assert_eq!(block_on(poll_once(&mut acknowledged)), None);
    assert_eq!(server.node.document(&document).map(|(_, tail)| tail), Some(1));

    gate.open();
    wait(acknowledged).expect("now it is durable");
    assert_eq!(server.stop().inner.document(&document).expect("it can be read").tail, 2);
}

#[test]
fn who_waits_for_an_acknowledgement_does_not_wait_for_its_delay() {
    let mut config = Config::default();
    config.replica.session.ack_delay = Duration::from_secs(3600);
    let (server, writer) = (Running::start(MemoryStorage::new(), config), memory());
    let document = open(&writer.node);
    let link = connect(&writer.node, &server.node);
    for body in ["first", "second", "third"] {
        append(&writer.node, body);
        wait(link.acknowledged(&document)).expect("the server says so at once");
    }
    stop([server, writer]);
}

#[test]
fn nobody_waits_for_what_is_appended_after_it() {
    let (storage, gate) = Gated::new();
    let (writer, reader) = (Running::start(storage, Config::default()), memory());
    let document = open(&writer.node);
    let link = connect(&writer.node, &reader.node);
    wait(link.in_step(&document)).expect("both have nothing");

    gate.close();
    append(&writer.node, "first");
    gate.holds(); // it is being written, alone
    let (mut written, mut acknowledged) =
        (Box::pin(writer.node.written(&document)), Box::pin(link.acknowledged(&document)));
    assert_eq!(block_on(poll_once(&mut written)), None);
    assert_eq!(block_on(poll_once(&mut acknowledged)), None);
    append(&writer.node, "second");
    gate.let_one_pass();
    wait(written).expect("the first is written, and nothing else was waited for");
    wait(acknowledged).expect("and the reader has it");
    assert_eq!(writer.node.document(&document).map(|(_, tail)| tail), Some(1));

    gate.open();
    wait(link.acknowledged(&document)).expect("the second too");
    assert_eq!(reader.node.document(&document).map(|(_, tail)| tail), Some(2));
    stop([reader]);
    writer.stop();
}

#[test]
fn requests_that_gather_are_carried_out_together() {
    let (storage, gate) = Gated::new();
    let running = Running::start(storage, Config::default());
    let documents: Vec<_> = (0..20).map(|number| format!("document {number}").parse().expect("a good name")).collect();
    for document in &documents {
        running.node.open_document(document, replica::Options::default()).expect("the node runs");
        wait(running.node.append(document, vec!["first".into()])).expect("it is open");
        wait(running.node.written(document)).expect("it is written");
    }
    gate.close();
    for document in &documents {
        wait(running.node.append(document, vec!["second".into()])).expect("it is open");
        gate.holds(); // the first is on its way, alone
    }
    gate.open();
    documents.iter().for_each(|document| wait(running.node.written(document)).expect("it is written"));
    assert!(gate.largest() >= 19, "one write began, and the others were carried out together");
    running.stop();
}

#[test]
fn appends_wait_where_the_storage_is_behind() {
    let (storage, gate) = Gated::new();
    let limits = replica::Config { waiting_max: 1000, ..replica::Config::default() };
    let running = Running::start(storage, Config { replica: limits, ..Config::default() });
    let document = open(&running.node);
    append(&running.node, "first");
    wait(running.node.written(&document)).expect("it is written");
    gate.close();
    let full = (0..1000).find_map(|_| running.node.try_append(&document, vec![vec![0; 100].into()]).err());
    assert_eq!(full, Some(Error::Misuse(Misuse::Full(document.clone()))));
    let mut patient = Box::pin(running.node.append(&document, vec!["last".into()]));
    assert_eq!(block_on(poll_once(&mut patient)), None);
    gate.open();
    wait(patient).expect("there is room again");
    wait(running.node.written(&document)).expect("it is written");
    running.stop();
}

/// A node with one op that its disk has kept, on a disk that fails from then on.
fn on_a_failing_disk() -> (Disk, Running<MemoryStorage>, DocumentId) {
    let disk = Disk::new();
    let storage = disk.open().expect("nobody else uses it");
    let soon = replica::Config { retry: (Duration::from_millis(5), PATIENCE), ..replica::Config::default() };
    let running = Running::start(storage, Config { replica: soon, ..Config::default() });
    let document = open(&running.node);
    append(&running.node, "kept");
    wait(running.node.written(&document)).expect("it is written");
    disk.fail_always(true);
    (disk, running, document)
}

#[test]
fn a_storage_that_fails_is_told_and_what_it_did_not_keep() {
    let (disk, running, document) = on_a_failing_disk();
    let mut events = running.node.subscribe();
    append(&running.node, "lost");
    let failed = wait(running.node.written(&document)).expect_err("the disk fails");
    let lost = match failed {
        // It was read again already; reading does not fail on this disk.
        Error::Lost { .. } => failed,
        Error::Storage { .. } => loop {
            match wait(running.node.written(&document)) {
                Err(Error::Storage { .. }) => {
                    while !matches!(wait(events.next()), Some(Notice::Event(Event::Recovered { .. }))) {}
                }
                outcome => break outcome.expect_err("something was lost"),
            }
        },
        other => panic!("{other}"),
    };
    assert_eq!(lost, Error::Lost { document: document.clone(), appends: 1 });
    disk.fail_always(false);
    for body in running.node.take_lost(&document).expect("it is open") {
        assert_eq!(body, "lost");
        running.node.try_append(&document, vec![body]).expect("nothing is lost any more");
    }
    wait(running.node.written(&document)).expect("the disk works again");
    assert_eq!(running.stop().document(&document).expect("it can be read").tail, 2);
}

#[test]
fn everybody_who_waits_learns_of_a_loss_until_it_is_taken_back() {
    let (disk, running, document) = on_a_failing_disk();
    let there = memory();
    open(&there.node);
    let link = connect(&running.node, &there.node);
    wait(link.live()).expect("it connects");
    running.node.try_append(&document, vec!["one".into(), "two".into()]).expect("it is open");
    let lost = Error::Lost { document: document.clone(), appends: 2 };
    // Whoever asks, and however often: at first they may hear that it is tried again.
    let learns = |wait_once: &dyn Fn() -> Error| while wait_once() != lost {};
    for _ in 0..2 {
        learns(&|| wait(running.node.written(&document)).expect_err("it was lost"));
        learns(&|| wait(running.node.failure(&document)));
        learns(&|| wait(link.acknowledged(&document)).expect_err("it was lost"));
        learns(&|| wait(link.in_step(&document)).expect_err("it was lost"));
        learns(&|| wait(link.failure(&document)));
        learns(&|| wait(running.node.append(&document, vec!["three".into()])).expect_err("it would stand before"));
    }
    disk.fail_always(false);
    assert_eq!(running.node.take_lost(&document), Ok(vec!["one".into(), "two".into()]));
    assert_eq!(running.node.take_lost(&document), Ok(vec![]));
    append(&running.node, "all in one");
    wait(link.acknowledged(&document)).expect("nothing is lost any more");
    assert_eq!(wait(link.in_step(&document)).map(|(_, tail)| tail), Ok(2));
    stop([running, there]);
}

#[test]
fn who_waits_is_told_when_the_driver_is_dropped() {
    let (storage, gate) = Gated::new();
    let disk = storage.inner.disk().clone();
    let opened = block_on(Node::open(storage, Continuity::Proven, Config::default()));
    let (node, mut driver) = opened.expect("the storage opens");
    let document = open(&node);
    gate.close();
    append(&node, "on its way");
    assert!(block_on(poll_once(&mut driver)).is_none());
    let mut written = Box::pin(node.written(&document));
    assert_eq!(block_on(poll_once(&mut written)), None);
    drop(driver);
    assert_eq!(wait(written), Err(Error::Stopped));
    assert_eq!(node.try_append(&document, vec!["late".into()]), Err(Error::Stopped));
    assert_eq!(wait(node.shutdown(None)), Err(Error::Stopped));
    gate.open();
    while disk.is_held() {
        std::thread::yield_now(); // its thread closes it
    }
}

#[test]
fn who_waits_for_a_failure_is_told_of_it() {
    let disk = Disk::new();
    let storage = disk.open().expect("nobody else has it");
    let (here, there) = (Running::start(storage, Config::default()), memory());
    let document = open(&here.node);
    open(&there.node);
    let link = connect(&here.node, &there.node);
    append(&here.node, "one");
    wait(link.acknowledged(&document)).expect("both storages work");
    assert_eq!(link.position_acknowledged(&document), 1);

    let (mut failure, mut on_link) = (Box::pin(here.node.failure(&document)), Box::pin(link.failure(&document)));
    assert_eq!((block_on(poll_once(&mut failure)), block_on(poll_once(&mut on_link))), (None, None));
    disk.fail_always(true);
    append(&here.node, "two");
    let error = wait(or(failure, on_link));
    assert!(matches!(&error, Error::Storage { .. } | Error::Lost { .. }), "{error}");
    disk.fail_always(false);
    link.disconnect();
    while !matches!(wait(link.failure(&document)), Error::Link(_)) {}
    stop([there]);
    stop([here]);
}
