//! Documents: what is appended, and what is refused.

use std::num::NonZeroU64;

use antiphon::digest::BodyHash;
use antiphon::heads::{Head, Heads};
use antiphon::op::{Body, Cursor, DocumentId, Entry, OpId, Origin};
use antiphon::storage::{Batch, Storage, StoredDocument, Transaction};
use antiphon::timeline::{TIMELINES_MAX, TimelineRecord};

use crate::model::{Model, body, document, replica, timeline};
use crate::{Harness, done};

/// An unknown document is empty in all respects, and is not made by looking at it.
pub fn unknown_documents_are_empty<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let other = model.batch(&document("other"), [(replica(1), body("x"))]);
    model.append(&mut storage, other);
    let id = document("unknown");
    let head = Head::NONE.then(BodyHash::of(b"x"));
    let heads: Heads = [(replica(1), head)].into_iter().collect();
    assert_eq!(done(storage.document(&id)), StoredDocument::default(), "the state");
    assert_eq!(done(storage.cursor(&id, replica(100))), None, "a cursor");
    assert_eq!(done(storage.read(&id, 0, 1000)), [], "the entries");
    assert_eq!(done(storage.read_aside(&id, 0, 1000)), [], "the entries put aside");
    assert_eq!(done(storage.chain(&id, OpId { author: replica(1), seq: 1 })), None, "a chain");
    let comparison = done(storage.compare(&id, &heads));
    assert_eq!((comparison.from, comparison.forks), (0, vec![]), "the comparison");
    assert_eq!(done(storage.documents()), [document("other")], "the documents after looking for an unknown one");
}

/// Documents are listed once, in the order of [`DocumentId`], whatever order they were made in.
pub fn documents_are_listed_in_order<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let name = "n".repeat(255);
    let names = ["zebra", "b/a", "b", "b@side", "b@side/here", "B", "é", "a b", "-", "b@main/here", name.as_str()];
    let mut ids: Vec<_> = names.into_iter().map(document).collect();
    for id in ids.iter().chain(&ids) {
        let batch = model.batch(id, [(replica(1), body("x"))]);
        model.append(&mut storage, batch);
    }
    ids.sort();
    assert_eq!(done(storage.documents()), ids, "the documents");
    let mut storage = harness.reopen(storage);
    assert_eq!(done(storage.documents()), ids, "the documents after reopening");
}

/// Entries come back as they were written, at once and after reopening: bytes, empty and large bodies, blanks, chains,
/// and where they came from.
pub fn entries_come_back<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let id = document("entries");
    let large: Vec<u8> = (0..1u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies = [
        body("first"),
        Body::Bytes(large.into()),
        body(""),
        Body::Blank(BodyHash::of(b"voided")),
        Body::Blank(BodyHash(u64::MAX)),
        Body::Blank(BodyHash(0)),
        Body::Bytes(every_byte.into()),
    ];
    let mut batch = model.batch(&id, bodies.iter().cloned().map(|body| (replica(1), body)));
    for (index, entry) in batch.entries.iter_mut().enumerate() {
        entry.origin = [None, Some(Origin(NonZeroU64::MAX)), Some(Origin(NonZeroU64::MIN))][index % 3];
    }
    model.append(&mut storage, batch);
    // The same bodies once more, in batches of one and by two authors in turn.
    for (index, body) in bodies.iter().enumerate() {
        let batch = model.batch(&id, [(replica(index as u8 % 2), body.clone())]);
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
    model.check(&mut harness.reopen(storage));
}

/// A read from anywhere gives what stands there: no more than asked for, at least one entry, and none from the tail on.
pub fn reads_keep_to_their_limit<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let id = document("reads");
    for index in 0..30usize {
        let batch = model.batch(&id, [(replica(index as u8 % 3), body(&"x".repeat(index * 7 % 100)))]);
        model.append(&mut storage, batch);
    }
    let entries = model.held(&id).entries;
    for from in 0..entries.len() {
        for max_cost in [0, 1, 32, 50, 100, 131, 132, 1000, 1 << 20, u64::MAX] {
            let read = done(storage.read(&id, from as u64, max_cost));
            let cost: u64 = read.iter().map(|entry| entry.op.cost()).sum();
            assert!(!read.is_empty(), "reading {max_cost} from {from} gave nothing");
            assert!(cost <= max_cost || read.len() == 1, "reading {max_cost} from {from} gave {cost}");
            assert!(entries[from..].starts_with(&read), "reading {max_cost} from {from} gave other entries");
        }
    }
    let tail = entries.len() as u64;
    for from in [tail, tail + 1, tail + 1_000_000] {
        assert_eq!(done(storage.read(&id, from, 1000)), [], "reading at {from} where the tail is {tail}");
    }
}

/// Heads, tail, timelines and cursors are there at once, and after reopening.
pub fn state_is_kept<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let id = document("state");
    for number in 0..2 * TIMELINES_MAX as u64 {
        let authors = [replica(number as u8 % 4), replica(9)];
        let mut batch = model.batch(&id, authors.map(|author| (author, body("x"))));
        batch.timeline = Some(TimelineRecord { open: number + 1, timeline: timeline(number), begins: batch.position });
        let cursor = Cursor { timeline: timeline(number + 500), position: number << 40 };
        batch.cursors = vec![(replica(100 + number as u8 % 2), cursor), (replica(102), cursor)];
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    // Said once without the model.
    let state = done(storage.document(&id));
    assert_eq!((state.tail, state.horizon, state.forgotten, state.aside), (256, 0, 0, None), "the state");
    assert_eq!(state.heads.get(replica(9)).seq, 128, "a head");
    assert_eq!(state.timelines.last().map(|record| record.begins), Some(254), "where the newest timeline begins");
    let cursor = Some(Cursor { timeline: timeline(627), position: 127 << 40 });
    assert_eq!(done(storage.cursor(&id, replica(101))), cursor, "a cursor");
}

/// A batch may bring cursors and no entries. A cursor may go back, and to another timeline.
pub fn cursors_are_kept_without_entries<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let id = document("cursors");
    let first = model.batch(&id, [(replica(1), body("x"))]);
    model.append(&mut storage, first);
    for (peer, number, position) in [(100, 1, 10), (101, 1, u64::MAX >> 1), (100, 1, 5), (101, 2, 0)] {
        let mut batch = model.batch(&id, []);
        batch.cursors = vec![(replica(peer), Cursor { timeline: timeline(number), position })];
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
    model.check(&mut harness.reopen(storage));
}

/// A batch that is refused leaves nothing behind, not even the cursors, the timeline or the salvage that came with it.
pub fn cursors_come_with_their_entries<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    model.reset(&mut storage, &id, TimelineRecord { open: 1, timeline: timeline(1), begins: 0 });
    let mut batch = model.batch(&id, [(replica(1), body("good")), (replica(1), body("bad"))]);
    batch.entries[1].op.id.seq += 1;
    batch.cursors = vec![(replica(100), Cursor { timeline: timeline(7), position: 2 })];
    batch.timeline = Some(TimelineRecord { open: 2, timeline: timeline(2), begins: 0 });
    batch.salvaged = Some(1);
    refused(&mut storage, &model, &batch, "a gap within the batch");
    batch.entries[1].op.id.seq -= 1;
    model.append(&mut storage, batch);
    model.check(&mut storage);
}

/// A batch goes to the tail or is refused, and then nothing has changed.
pub fn the_wrong_position_is_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let tail = model.held(&id).state.tail;
    for position in [0, tail - 1, tail + 1, tail + 1000] {
        let batch = Batch { position, ..model.batch(&id, [(replica(1), body("lost"))]) };
        refused(&mut storage, &model, &batch, &format!("position {position} where the tail is {tail}"));
    }
    let new = Batch { position: 1, ..model.batch(&document("new"), [(replica(1), body("lost"))]) };
    refused(&mut storage, &model, &new, "position 1 of a new document");
    let batch = model.batch(&id, [(replica(1), body("kept"))]);
    model.append(&mut storage, batch);
    model.check(&mut harness.reopen(storage));
}

/// A batch of another timeline than the newest is refused, unless that begins with it: what gave the batch its position is
/// no longer there.
pub fn the_wrong_timeline_is_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let tail = model.held(&id).state.tail;
    let record = |number, begins| Some(TimelineRecord { open: number, timeline: timeline(number), begins });
    let in_timeline = |model: &Model, timeline| Batch { timeline, ..model.batch(&id, [(replica(1), body("more"))]) };
    for (number, begins) in [(1, tail), (1, tail), (2, tail + 2)] {
        let batch = in_timeline(&model, record(number, begins));
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
    let others = [record(1, tail), record(2, tail), record(3, 0), record(3, tail + 2), record(2, tail + 4)];
    for (index, timeline) in others.into_iter().enumerate() {
        refused(&mut storage, &model, &in_timeline(&model, timeline), &format!("timeline {index}"));
    }
    let batch = in_timeline(&model, record(2, tail + 2));
    model.append(&mut storage, batch);
    model.check(&mut harness.reopen(storage));
}

/// An entry must be its author's next, counted within the batch too; else the whole batch is refused.
pub fn entries_that_are_not_next_are_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let ops = || [(replica(1), body("one")), (replica(2), body("two")), (replica(1), body("three"))];
    let broken = |break_it: &dyn Fn(&mut Vec<Entry>)| {
        let mut batch = model.batch(&id, ops());
        break_it(&mut batch.entries);
        batch
    };
    refused(&mut storage, &model, &broken(&|entries| entries[0].op.id.seq += 1), "a gap");
    refused(&mut storage, &model, &broken(&|entries| entries[0].op.id.seq -= 1), "a duplicate");
    refused(&mut storage, &model, &broken(&|entries| entries[1].op.id.author = replica(50)), "a new author at 5");
    refused(&mut storage, &model, &broken(&|entries| entries[2] = entries[0].clone()), "a duplicate in the batch");
    refused(&mut storage, &model, &broken(&|entries| entries[2].op.id.seq += 1), "a gap in the batch");
    refused(&mut storage, &model, &broken(&|entries| drop(entries.remove(0))), "a gap before the batch");
    refused(&mut storage, &model, &broken(&|entries| entries[0].op.id.seq = 0), "seq 0");
    let batch = model.batch(&id, ops());
    model.append(&mut storage, batch);
    model.check(&mut harness.reopen(storage));
}

/// A document with a few ops by authors 1 and 2.
pub(crate) fn some_log(storage: &mut impl Storage) -> (Model, DocumentId) {
    let mut model = Model::default();
    let id = document("log");
    for index in 0..8 {
        let batch = model.batch(&id, [(replica(1 + index % 2), body(&format!("op {index}")))]);
        model.append(storage, batch);
    }
    (model, id)
}

#[track_caller]
fn refused(storage: &mut impl Storage, model: &Model, batch: &Batch, what: &str) {
    let written = storage.write(&Transaction::Append(batch.clone().into()));
    assert!(written.is_err(), "{what} was not refused");
    if let Err(difference) = model.compare(storage) {
        panic!("{what} was refused, but not without a trace: {difference}");
    }
}
