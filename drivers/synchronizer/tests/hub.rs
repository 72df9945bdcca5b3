//! Stores in one process that find each other by a name.

mod common;

use std::time::Duration;

use antiphon::replica::{self, Event};
use antiphon::storage::Continuity;
use antiphon::store::WriteError;
use antiphon_memory::{Hub, MemoryStorage};
use antiphon_synchronizer::{Options, join};
use common::*;

#[test]
fn ten_stores_of_a_name_are_in_step() {
    let members: Vec<_> = (0..10)
        .map(|_| {
            let node = node();
            let member = join(&node, &Hub::named("ten stores")).unwrap();
            (synchronized(&node, Options::default()), member, node)
        })
        .collect();
    assert_eq!(Hub::named("ten stores").participants(), 10);
    for (index, ((store, _), ..)) in members.iter().enumerate() {
        set(store, &format!("pet {index}"), "legs", index as i64);
        set(store, "shared", "legs", index as i64);
    }
    let started: Vec<_> = members.iter().map(|((_, synchronizer), ..)| synchronizer.start()).collect();
    started.into_iter().for_each(|started| wait(started).unwrap());
    // Whoever was in step early may be told of more, until all have told theirs.
    let all = |((_, synchronizer), ..): &((_, antiphon_synchronizer::Synchronizer), _, _)| {
        wait(synchronizer.reaches(|status| status.peers == 9 && status.phase == antiphon_synchronizer::Phase::InStep))
            .unwrap();
    };
    members.iter().for_each(all);
    members.iter().for_each(all);
    let hash = |((store, _), ..): &((antiphon_synchronizer::SharedStore, _), _, _)| {
        store.read(|store| (store.table("pets").map_or(0, |pets| pets.row_count()), store.content_hash()))
    };
    let hashes: Vec<_> = members.iter().map(hash).collect();
    assert_eq!(hashes[0].0, 11);
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn who_leaves_is_no_longer_there_and_who_comes_back_gets_in_step() {
    let hub = Hub::unnamed();
    let (here, there) = (node(), node());
    let ((fido, first), (felix, second)) =
        (synchronized(&here, Options::default()), synchronized(&there, Options::default()));
    let _member = join(&here, &hub).unwrap();
    let member = join(&there, &hub).unwrap();
    let started = [first.start(), second.start()];
    started.into_iter().for_each(|started| wait(started).unwrap());
    drop(member);
    wait(first.reaches(|status| status.peers == 0)).unwrap();
    set(&fido, "fido", "legs", 4);
    set(&felix, "felix", "legs", 4);
    let _member = join(&there, &hub).unwrap();
    wait(first.reaches(|status| status.peers == 1)).unwrap();
    wait(first.in_step()).unwrap();
    wait(second.in_step()).unwrap();
    assert_eq!(content(&fido), r#"{"tables":{"pets":{"felix":{"legs":4},"fido":{"legs":4}}},"values":{}}"#);
    assert_eq!(content(&felix), content(&fido));
}

#[test]
fn a_session_that_ends_is_made_anew() {
    let hub = Hub::unnamed();
    let (here, there) = (node(), node());
    let ((fido, first), (felix, second)) =
        (synchronized(&here, Options::default()), synchronized(&there, Options::default()));
    let _members = [&here, &there].map(|node| join(node, &hub).unwrap());
    let started = [first.start(), second.start()];
    started.into_iter().for_each(|started| wait(started).unwrap());
    let mut events = there.subscribe_to(|event| matches!(event, Event::Connected { .. }));
    let link = here.inspect(|replica: &replica::Replica| replica.peers(&doc()).next().unwrap().0);
    here.disconnect(link, antiphon::codes::Code::UNEXPECTED, "a test", Some(Duration::from_millis(1))).unwrap();
    wait(events.next());
    set(&fido, "fido", "legs", 4);
    wait(second.reaches(|_| content(&felix) == content(&fido))).unwrap();
}

/// A participant of the hub that its own thread drives, and a node: they are in step all the same.
#[test]
fn nodes_and_participants_meet() {
    let hub = Hub::unnamed();
    let here = node();
    let _member = join(&here, &hub).unwrap();
    let (store, synchronizer) = synchronized(&here, Options::default());
    let other = hub.join(MemoryStorage::new(), Continuity::Proven, replica::Config::default()).unwrap();
    other.open(&doc(), replica::Options::default());
    let started = synchronizer.start();
    let reader = std::thread::spawn(move || {
        while other.document(&doc()).is_none_or(|(_, tail)| tail < 1) {
            assert!(other.wait(PATIENCE), "something comes");
            other.events();
        }
        other.leave().unwrap();
    });
    wait(started).unwrap();
    store.write::<_, WriteError>(|transaction| transaction.set_value("hello", "there")).unwrap();
    reader.join().unwrap();
}
