//! What starts is in step, what is stopped stays as it is, and what was written meanwhile goes out with the next start.

mod common;

use antiphon::store::{Direction, Pattern, WriteError};
use antiphon_synchronizer::{By, Error, Options, Phase, SharedStore, Synchronizer};
use common::*;
use std::sync::mpsc;

#[test]
fn two_stores_are_in_step() {
    let (here, there) = (node(), node());
    link(&here, &there);
    let ((fido, first), (felix, second)) = (synchronized(&here, Options::default()), synchronized(&there, authority()));
    set(&fido, "fido", "legs", 4);
    set(&felix, "felix", "legs", 4);
    let started = [first.start(), second.start()];
    started.into_iter().for_each(|started| wait(started).unwrap());
    wait(first.in_step()).unwrap();
    wait(second.in_step()).unwrap();
    assert_eq!(content(&fido), r#"{"tables":{"pets":{"felix":{"legs":4},"fido":{"legs":4}}},"values":{}}"#);
    assert_eq!(content(&felix), content(&fido));
    assert_eq!(fido.read(|store| store.content_hash()), felix.read(|store| store.content_hash()));
    // And what comes later.
    let (told, heard) = mpsc::channel();
    felix.listen(Pattern::cells(None, Some("fido"), None), move |it| told.send(it.clone()).unwrap());
    set(&fido, "fido", "legs", 3);
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(heard.changes.cells.len(), 1);
    assert_eq!(heard.by, By::Replica(here.inspect(antiphon::replica::Replica::id)));
    wait(first.in_step()).unwrap();
    assert_eq!(first.status().phase, Phase::InStep);
    assert_eq!(first.status().peers, 1);
}

#[test]
fn what_is_written_while_stopped_goes_out_with_the_next_start() {
    let (here, there) = (node(), node());
    link(&here, &there);
    let ((fido, first), (felix, second)) = (synchronized(&here, Options::default()), synchronized(&there, authority()));
    wait(second.start()).unwrap();
    wait(first.start()).unwrap();
    first.stop();
    assert_eq!(first.status().phase, Phase::Idle);
    assert_eq!(wait(first.in_step()), Err(Error::Stopped));
    set(&fido, "fido", "legs", 1);
    set(&fido, "fido", "legs", 2);
    set(&felix, "felix", "legs", 3);
    assert_eq!(content(&fido), r#"{"tables":{"pets":{"fido":{"legs":2}}},"values":{}}"#);
    wait(first.start()).unwrap();
    wait(second.in_step()).unwrap();
    assert_eq!(content(&felix), r#"{"tables":{"pets":{"felix":{"legs":3},"fido":{"legs":2}}},"values":{}}"#);
    assert_eq!(content(&fido), content(&felix));
    // It may be started again while it runs.
    wait(first.start()).unwrap();
}

#[test]
fn one_way_only() {
    let (here, there) = (node(), node());
    link(&here, &there);
    for (direction, mine, theirs) in [
        (Direction::Load, r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        (Direction::Save, r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"b":2,"c":3,"d":4}"#),
    ] {
        let (fido, first) = synchronized(&here, one_way(direction));
        let (felix, second) = synchronized(&there, authority());
        let value = |store: &SharedStore, name: &str, value: i64| {
            store.write::<_, WriteError>(|transaction| transaction.set_value(name, value)).unwrap();
        };
        wait(second.start()).unwrap();
        match direction {
            Direction::Load => {
                value(&fido, "a", 1);
                value(&felix, "b", 2);
            }
            _ => {
                value(&fido, "a", 1);
                value(&fido, "b", 2);
                value(&fido, "c", 3);
                value(&felix, "d", 4);
            }
        }
        wait(first.start()).unwrap();
        wait(second.in_step()).unwrap();
        let values = |json: &str| format!(r#"{{"tables":{{}},"values":{json}}}"#);
        assert_eq!(content(&fido), values(mine), "{direction:?}");
        assert_eq!(content(&felix), values(theirs), "{direction:?}");
        first.stop();
        second.stop();
    }
}

#[test]
fn initial_content_is_for_documents_in_which_nothing_was_ever_written() {
    let (here, there) = (node(), node());
    let ((fido, first), (felix, second)) = (synchronized(&here, Options::default()), synchronized(&there, authority()));
    let started = first.start_with(|transaction| transaction.set_value("open", true));
    assert_eq!(content(&fido), r#"{"tables":{},"values":{}}"#, "nobody has said yet that there is nothing");
    wait(second.start()).unwrap();
    link(&here, &there);
    wait(started).unwrap();
    wait(first.in_step()).unwrap();
    wait(second.in_step()).unwrap();
    assert_eq!(content(&fido), r#"{"tables":{},"values":{"open":true}}"#);
    assert_eq!(content(&felix), content(&fido));
    // A third finds something, if only that it was deleted.
    felix.write::<_, WriteError>(|transaction| transaction.delete_values()).unwrap();
    let late = node();
    link(&late, &there);
    let (third, synchronizer) = synchronized(&late, Options::default());
    wait(synchronizer.start_with(|transaction| transaction.set_value("open", false))).unwrap();
    wait(synchronizer.in_step()).unwrap();
    assert_eq!(content(&third), r#"{"tables":{},"values":{}}"#);
}

#[test]
fn an_authority_needs_nobody_to_begin() {
    let (store, synchronizer) = synchronized(&node(), authority());
    wait(synchronizer.start_with(|transaction| transaction.set_value("open", true))).unwrap();
    assert_eq!(content(&store), r#"{"tables":{},"values":{"open":true}}"#);
    wait(synchronizer.saved()).unwrap();
}

#[test]
fn a_store_has_one_synchronizer() {
    let here = node();
    let (store, first) = synchronized(&here, authority());
    wait(first.start()).unwrap();
    let second = Synchronizer::new(&store, &here, &"other".parse().unwrap(), authority());
    assert_eq!(wait(second.start()), Err(Error::Busy));
    first.stop();
    wait(second.start()).unwrap();
}

#[test]
fn a_node_that_stops_is_told() {
    let here = node();
    let (_, synchronizer) = synchronized(&here, Options::default());
    let started = synchronizer.start();
    wait(here.shutdown(None)).unwrap();
    assert_eq!(wait(started), Err(Error::Node(antiphon_node::Error::Stopped)));
    assert_eq!(wait(synchronizer.start()), Err(Error::Node(antiphon_node::Error::Stopped)));
}

#[test]
fn whoever_starts_is_told_that_the_initial_content_was_refused() {
    let (store, synchronizer) = synchronized(&node(), authority());
    let name = "x".repeat(1 << 20);
    let started = wait(synchronizer.start_with(move |transaction| {
        transaction.set_value("half", true)?;
        transaction.set_value(&name, true)
    }));
    assert_eq!(started, Err(Error::Initial(WriteError::NameTooLong)));
    assert!(store.read(|store| store.is_empty()), "nothing is written in part");
    set(&store, "fido", "legs", 4);
    wait(synchronizer.saved()).unwrap();
}
