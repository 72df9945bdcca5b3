//! Events are bounded, a slow subscriber is told what it missed, and can read it.

mod common;

use antiphon::op::Body;
use antiphon::replica::Event;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Followed, Node, Notice};
use common::*;

const OPS: u64 = 500;

/// A node with `events_max`, and another that sends it ops.
fn reader(config: Config) -> (Running<MemoryStorage>, Running<MemoryStorage>) {
    let (reader, writer) = (Running::start(MemoryStorage::new(), config), memory());
    open(&reader.node);
    open(&writer.node);
    (reader, writer)
}

/// Appends one by one, so that there are many events.
fn write(writer: &Node, count: u64) {
    for _ in 0..count {
        append(writer, "0123456789");
        wait(writer.written(&document())).expect("a storage in memory writes");
    }
}

#[test]
fn a_slow_subscriber_is_told_how_many_events_it_missed() {
    let (reader, writer) = reader(Config { events_max: 10, ..Config::default() });
    let mut prompt = reader.node.subscribe();
    write(&writer.node, 3);
    let link = connect(&writer.node, &reader.node);
    wait(link.in_step(&document())).expect("they come in step");
    let mut received = 0;
    while let Some(notice) = prompt.try_next() {
        match notice {
            Notice::Event(Event::Received { batch }) => received += batch.entries.len(),
            Notice::Event(_) => {}
            Notice::Lagged(_) => panic!("who keeps up misses nothing"),
        }
    }
    assert_eq!(received, 3);

    let mut slow = reader.node.subscribe();
    write(&writer.node, OPS);
    wait(link.acknowledged(&document())).expect("they come in step");
    let Some(Notice::Lagged(missed)) = slow.try_next() else { panic!("it is told first") };
    let mut kept = Vec::new();
    while let Some(Notice::Event(event)) = slow.try_next() {
        kept.push(event);
    }
    assert_eq!(kept.len(), 10);
    assert!(missed > 0);
    let newest = kept.iter().filter_map(|event| match event {
        Event::Received { batch } => Some(batch.tail()),
        _ => None,
    });
    assert_eq!(newest.max(), Some(3 + OPS), "the newest are kept");
}

#[test]
fn what_waits_for_a_subscriber_is_bounded_in_bytes() {
    let (reader, writer) = reader(Config { events_bytes_max: 1000, ..Config::default() });
    let mut slow = reader.node.subscribe();
    let link = connect(&writer.node, &reader.node);
    for _ in 0..50 {
        append(&writer.node, "0123456789");
        wait(link.acknowledged(&document())).expect("they come in step");
    }
    assert!(matches!(slow.try_next(), Some(Notice::Lagged(1..))));
    let mut bytes = 0;
    while let Some(Notice::Event(event)) = slow.try_next() {
        if let Event::Received { batch } = event {
            bytes += batch.entries.iter().map(|entry| entry.op.cost()).sum::<u64>();
        }
    }
    assert!((1..=1000).contains(&bytes), "{bytes} bytes were kept");
}

#[test]
fn who_follows_a_document_reads_each_entry_once_however_slow_it_is() {
    let (reader, writer) = reader(Config { events_max: 1, ..Config::default() });
    let mut follow = reader.node.follow(&document(), 0);
    write(&writer.node, 5);
    let link = connect(&writer.node, &reader.node);
    let mut read = 0;
    while read < OPS {
        if read < 5 {
            wait(link.acknowledged(&document())).expect("they come in step");
            write(&writer.node, OPS - 5);
        }
        let Followed::Entries { position, entries } = wait(follow.next()).expect("it can be read") else {
            panic!("the log did not begin anew")
        };
        assert_eq!(position, read);
        assert!(entries.iter().all(|entry| entry.op.body == Body::Bytes("0123456789".into())));
        read += entries.len() as u64;
    }
    assert_eq!((read, follow.position()), (OPS, OPS));
}

#[test]
fn subscriptions_end_with_the_node() {
    let running = memory();
    let mut events = running.node.subscribe();
    let node = running.node.clone();
    running.stop();
    while wait(events.next()).is_some() {}
    assert_eq!(wait(node.subscribe().next()), None);
}

#[test]
fn a_subscriber_hears_only_of_what_it_wants() {
    let (reader, writer) = reader(Config::default());
    let mut sessions = reader.node.subscribe_to(|event| matches!(event, Event::Connected { .. }));
    write(&writer.node, 3);
    let link = connect(&writer.node, &reader.node);
    wait(link.in_step(&document())).expect("they come in step");
    assert!(matches!(wait(sessions.next()), Some(Notice::Event(Event::Connected { .. }))));
    assert_eq!(sessions.try_next(), None);
    stop([reader, writer]);
}
