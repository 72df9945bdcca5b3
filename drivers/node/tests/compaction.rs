//! A node whose app is the authority compacts as it goes on, and who follows the document elsewhere begins with the
//! snapshot.

mod common;

use antiphon::replica::{Authority, Event, Misuse, Options};
use antiphon::snapshot::SnapshotId;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Error, Followed, LinkOptions, Node, Notice};
use common::*;

fn running(authority: Authority) -> Running<MemoryStorage> {
    let running = Running::start(MemoryStorage::new(), Config::default());
    running.node.open_document(&document(), Options { authority, ..Options::default() }).expect("it runs");
    running
}

fn write(node: &Node, bodies: &[&'static str]) {
    bodies.iter().for_each(|body| append(node, body));
    wait(node.written(&document())).expect("a storage in memory writes");
}

/// Lets a snapshot take the place of what is below a position, and waits until it has.
fn compact(node: &Node, position: u64, body: &'static str) {
    let mut events = node.subscribe_to(|event| matches!(event, Event::Compacted { .. }));
    node.compact(&document(), position, body.into()).expect("it is the authority, and that is durable");
    let Some(Notice::Event(Event::Compacted { horizon, .. })) = wait(events.next()) else { panic!("it was wanted") };
    assert_eq!(horizon, position);
}

/// The app's part of a snapshot.
fn body(node: &Node, id: SnapshotId) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < id.bytes {
        let piece = wait(node.snapshot(&document(), id, bytes.len() as u64, 10)).expect("it can be read");
        assert!(!piece.is_empty() && piece.len() <= 10);
        bytes.extend_from_slice(&piece);
    }
    bytes.split_off(id.head_bytes as usize)
}

#[test]
fn who_follows_begins_with_the_snapshot() {
    let (server, client) = (running(Authority::Us), running(Authority::Upstream));
    write(&server.node, &["one", "two", "three"]);
    compact(&server.node, 2, "one and two");
    let mut follow = client.node.follow(&document(), 0);
    let upstream = LinkOptions { upstream: true, ..LinkOptions::default() };
    let link = client.node.connect(To(server.node.clone()), upstream, eager()).expect("it runs");
    let mut read = Vec::new();
    let (mut id, mut began) = (None, 0);
    while read.last().is_none_or(|(_, body)| *body != "three") {
        match wait(follow.next()).expect("it can be read") {
            Followed::Snapshot { id: snapshot, position } => (id, began) = (Some(snapshot), position),
            Followed::Entries { position, entries } => {
                let bodies = entries.iter().map(|entry| entry.op.body.bytes().expect("no blank").clone());
                read.extend((position..).zip(bodies));
            }
            Followed::Restarted => read.clear(),
        }
    }
    assert_eq!(body(&client.node, id.expect("it comes first")), b"one and two");
    assert_eq!((began, read), (1, vec![(1, "three".into())]));
    wait(link.in_step(&document())).expect("nothing is lacking");
    stop([server, client]);
}

#[test]
fn only_the_authority_compacts() {
    let client = running(Authority::Upstream);
    write(&client.node, &["one"]);
    let refused = client.node.compact(&document(), 1, "one".into()).expect_err("it is not the authority");
    assert!(matches!(refused, Error::Misuse(Misuse::NotAuthority(_))), "{refused}");
    stop([client]);
}
