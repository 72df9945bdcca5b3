//! Documents that start anew, and what becomes of their entries.

use antiphon::heads::Heads;
use antiphon::op::{Cursor, DocumentId, Entry, OpId};
use antiphon::storage::{Storage, StoredDocument};
use antiphon::timeline::TimelineRecord;

use crate::logs::some_log;
use crate::model::{Model, body, read_all, replica, timeline};
use crate::{Harness, done};

fn record(open: u64) -> TimelineRecord {
    TimelineRecord { open, timeline: timeline(1000 + open), begins: 0 }
}

/// After a reset the document is empty, on its new timeline and without cursors; its entries are put aside. It grows
/// from position 0 and from seq 1 of each author again.
pub fn a_reset_puts_aside<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let mut batch = model.batch(&id, []);
    batch.cursors = vec![(replica(100), Cursor { timeline: timeline(1), position: 1 })];
    batch.timeline = Some(TimelineRecord { open: 1, timeline: timeline(1), begins: 8 });
    model.append(&mut storage, batch);
    let entries = model.held(&id).entries;
    model.reset(&mut storage, &id, record(3));
    for _ in 0..2 {
        let (timelines, aside) = (vec![record(3)], Some((0, 8)));
        let after = StoredDocument { timelines, forgotten: 3, aside, ..StoredDocument::default() };
        assert_eq!(done(storage.document(&id)), after, "the state after a reset");
        assert_eq!(done(storage.read(&id, 0, 1000)), [], "the entries after a reset");
        assert_eq!(done(storage.cursor(&id, replica(100))), None, "a cursor after a reset");
        assert_eq!(done(storage.chain(&id, OpId { author: replica(1), seq: 1 })), None, "a chain after a reset");
        let comparison = done(storage.compare(&id, &Heads::new()));
        assert_eq!((comparison.from, comparison.forks), (0, vec![]), "a comparison after a reset");
        assert_eq!(aside_from(&mut storage, &id, 0), entries, "the entries that were put aside");
        assert_eq!(done(storage.documents()), std::slice::from_ref(&id), "the documents after a reset");
        storage = harness.reopen(storage);
    }
    let batch = model.batch(&id, [(replica(2), body("anew")), (replica(1), body("anew"))]);
    model.append(&mut storage, batch);
    model.check(&mut storage);
    let state = done(storage.document(&id));
    assert_eq!((state.tail, state.heads.get(replica(1)).seq), (2, 1), "the tail and a head of the new log");
    assert_eq!(aside_from(&mut storage, &id, 0), entries, "the entries put aside, after new ones");
    let first = model.held(&id).entries[0].chain;
    assert_eq!(done(storage.chain(&id, OpId { author: replica(2), seq: 1 })), Some(first), "a chain of the new log");
    model.check(&mut harness.reopen(storage));
}

/// A second reset puts its entries before those of the first, which may follow on them.
pub fn resets_keep_the_order<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let mut aside = model.held(&id).entries;
    for open in 2..5 {
        model.reset(&mut storage, &id, record(open));
        assert_eq!(aside_from(&mut storage, &id, 0), aside, "the entries put aside by open {open}");
        let batch = model.batch(&id, (0..open).map(|_| (replica(1), body(&format!("of open {open}")))));
        aside.splice(0..0, batch.entries.iter().cloned());
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
    // Nothing new to put aside, and the timeline is another one all the same.
    model.reset(&mut storage, &id, record(8));
    model.reset(&mut storage, &id, record(9));
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    assert_eq!(aside_from(&mut storage, &id, 0), aside, "the entries put aside in all");
    assert_eq!(aside_from(&mut storage, &id, 7), aside[7..], "the entries put aside, from the middle");
    let limited = done(storage.read_aside(&id, 3, 0));
    assert_eq!(limited, aside[3..4], "one entry that was put aside");
}

/// Entries put aside are dealt with in batches, and dropped with the last of them. Those of a later reset then have
/// places from 0 again.
pub fn salvage_ends_in_a_drop<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    model.reset(&mut storage, &id, record(1));
    let deal = |storage: &mut H::Storage, model: &mut Model, place| {
        let mut batch = model.batch(&id, [(replica(7), body("salvaged"))]);
        batch.salvaged = Some(place);
        model.append(storage, batch);
        model.check(storage);
        done(storage.document(&id)).aside
    };
    assert_eq!(deal(&mut storage, &mut model, 3), Some((3, 8)), "what is aside when three are dealt with");
    assert_eq!(deal(&mut storage, &mut model, 3), Some((3, 8)), "what is aside when no more are");
    assert_eq!(deal(&mut storage, &mut model, 2), Some((3, 8)), "what is aside when dealing goes back");
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    // A reset meanwhile: its entries go before those that are left.
    model.reset(&mut storage, &id, record(2));
    model.check(&mut storage);
    assert_eq!(done(storage.document(&id)).aside, Some((3, 11)), "what is aside after another reset");
    assert_eq!(deal(&mut storage, &mut model, 10), Some((10, 11)), "what is aside when all but one are dealt with");
    assert_eq!(deal(&mut storage, &mut model, 11), None, "what is aside when all are dealt with");
    assert_eq!(done(storage.read_aside(&id, 0, 1000)), [], "the entries put aside when all are dealt with");
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    model.reset(&mut storage, &id, record(3));
    model.check(&mut storage);
    assert_eq!(done(storage.document(&id)).aside, Some((0, 2)), "what the last reset put aside");
    assert_eq!(deal(&mut storage, &mut model, 2), None, "what is aside in the end");
}

fn aside_from(storage: &mut impl Storage, id: &DocumentId, from: u64) -> Vec<Entry> {
    read_all(from, |from| done(storage.read_aside(id, from, 1000))).unwrap_or_else(|error| panic!("{error}"))
}
