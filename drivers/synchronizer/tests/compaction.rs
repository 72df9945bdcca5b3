//! A document does not grow with the number of writes: its authority compacts it by itself.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use antiphon::replica::Event;
use antiphon::store::{ClientId, Store, WriteError};
use antiphon_node::{Config, Node};
use antiphon_sqlite::{Options as SqliteOptions, SqliteStorage};
use antiphon_synchronizer::{Compaction, Options, SharedStore, Synchronizer};
use common::*;
use futures_lite::future::block_on;

/// What a late joiner receives on its link, in bytes.
fn received(node: &Node) -> u64 {
    node.inspect(|replica| {
        let link = replica.peers(&doc()).next().unwrap().0;
        replica.session(link).unwrap().stats().bytes_received
    })
}

#[test]
fn a_million_writes_to_a_thousand_cells_end_as_a_thousand_cells() {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open_directory(directory.path(), &SqliteOptions::default()).unwrap();
    let continuity = storage.continuity();
    let (server, driver) = wait(Node::open(storage, continuity, Config::default())).unwrap();
    let driver = thread::spawn(move || block_on(driver).unwrap().close().unwrap());
    let (store, synchronizer) = synchronized(&server, authority());
    let mut compacted = server.subscribe_to(|event| matches!(event, Event::Compacted { .. }));
    wait(synchronizer.start()).unwrap();
    let row = |index: i64| format!("row {}", index % 100);
    for write in 0..1_000_000_i64 {
        let cell = format!("cell {}", write / 100 % 10);
        let written = || store.write(|transaction| transaction.set_cell("table", &row(write), &cell, write));
        // The disk is behind with what was written: the app waits for it.
        while let Err(error) = written() {
            assert_eq!(error, WriteError::Full);
            wait(synchronizer.saved()).unwrap();
        }
    }
    wait(synchronizer.saved()).unwrap();
    let snapshot = store.read(|store| store.snapshot().len() as u64);
    let Compaction { bytes_min, factor, .. } = Compaction::default();
    assert!(snapshot < 20_000, "a thousand cells take {snapshot} bytes");
    // On the disk. The last time may just be under way.
    let stored = loop {
        let stored = wait(server.stored(&doc())).unwrap();
        let least = 20 * (stored.tail - stored.horizon); // bytes of the ops that are left
        if least < bytes_min.max(factor * snapshot) {
            break stored;
        }
        wait(compacted.next());
    };
    assert_eq!(stored.heads.ops(), 1_000_000);
    assert!(synchronizer.statistics().compactions > 0);
    // On the wire.
    let late = node();
    link(&late, &server);
    let (copy, joiner) = synchronized(&late, Options::default());
    wait(joiner.start()).unwrap();
    assert_eq!(copy.read(|store| store.content_hash()), store.read(|store| store.content_hash()));
    let bytes = received(&late);
    assert!(bytes < 3 * (bytes_min + snapshot), "{bytes} bytes for {snapshot} of content");
    // And the files, of which what is free is used again: far from the 24 MB that the bodies took.
    wait(server.shutdown(None)).unwrap();
    driver.join().unwrap();
    let files = std::fs::read_dir(directory.path()).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 4 << 20, "the directory has {bytes} bytes");
}

/// T6: a thousand rows that came and went leave nothing, where the app says how long anybody may be away.
#[test]
fn deletions_are_forgotten_when_the_app_says_how_old_they_must_be() {
    let server = node();
    let compaction = Compaction { bytes_min: 1000, factor: 1, forget_after: Some(Duration::ZERO) };
    let options = Options { compaction: Some(compaction), ..authority() };
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let store = SharedStore::with_clock(Store::new(ClientId::new(1)), {
        let clock = clock.clone();
        move || clock.fetch_add(1, Ordering::SeqCst)
    });
    let synchronizer = Synchronizer::new(&store, &server, &doc(), options);
    wait(synchronizer.start()).unwrap();
    set(&store, "fido", "legs", 4);
    for row in 0..1000 {
        set(&store, &format!("row {row}"), "legs", row);
        store.write::<_, WriteError>(|transaction| transaction.delete_row("pets", &format!("row {row}"))).unwrap();
    }
    let is_small = || store.read(|store| store.snapshot().len()) < 1000;
    // It is looked at when ops come; the last ones may be too few to be worth it.
    while !is_small() {
        set(&store, "row", "legs", clock.load(Ordering::SeqCst) as i64);
        store.write::<_, WriteError>(|transaction| transaction.delete_row("pets", "row")).unwrap();
        wait(synchronizer.saved()).unwrap();
    }
    assert_eq!(content(&store), r#"{"tables":{"pets":{"fido":{"legs":4}}},"values":{}}"#);
}

/// Somebody took a document of lines for a store's: it is told, and not one of them is lost.
#[test]
fn a_document_of_another_kind_is_not_compacted() {
    let server = node();
    server.open_document(&doc(), antiphon::replica::Options::default()).unwrap();
    server.try_append(&doc(), vec!["a line, and another".into(); 10]).unwrap();
    wait(server.written(&doc())).unwrap();
    server.close_document(&doc()).unwrap();
    let compaction = Compaction { bytes_min: 1, factor: 1, forget_after: None };
    let options = Options { compaction: Some(compaction), ..authority() };
    let (store, synchronizer) = synchronized(&server, options);
    wait(synchronizer.start()).unwrap();
    set(&store, "fido", "legs", 4);
    wait(synchronizer.saved()).unwrap();
    assert_eq!((synchronizer.statistics().malformed, synchronizer.statistics().compactions), (10, 0));
    assert_eq!(wait(server.read(&doc(), 0, u64::MAX)).unwrap().len(), 11);
}
