//! Many random writes: in order, mixed with reopening, and cut short.

use antiphon::op::OpId;
use antiphon::rng::{Ratio, Rng};
use antiphon::storage::{Request, Storage, Transaction};
use antiphon::timeline::TimelineRecord;

use crate::logs::some_log;
use crate::model::{Model, body, document, random_write, replica, timeline};
use crate::snapshots::{compact, install, peers_snapshot, reset, stage};
use crate::{Harness, done};

/// What happens to one document does not touch another, however alike their names.
pub fn documents_are_independent<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut model = Model::default();
    let ids = ["doc", "doc@side", "doc@main/side", "DOC", "doc/main", "do"].map(document);
    for round in 0..3 {
        for (number, id) in ids.iter().enumerate() {
            let batch = model.batch(id, (0..=number).map(|_| (replica(1), body(&format!("{id} {round}")))));
            model.append(&mut storage, batch);
        }
    }
    model.check(&mut storage);
    model.reset(&mut storage, &ids[1], TimelineRecord { open: 1, timeline: timeline(1), begins: 0 });
    model.check(&mut storage);
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    let last = OpId { author: replica(1), seq: 18 };
    assert!(done(storage.chain(&ids[5], last)).is_some(), "the chain at the last op of a document");
    assert_eq!(done(storage.chain(&ids[4], last)), None, "the chain at that op in another document");
}

/// Random writes make what they should, whenever the storage is reopened or synced.
pub fn random_writes_add_up<H: Harness>(harness: &mut H) {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut storage = harness.fresh();
        let mut model = Model::default();
        for _ in 0..100 {
            let write = random_write(&model, &mut rng);
            model.write(&mut storage, &write);
            if rng.chance(Ratio::one_in(20)) {
                storage = harness.reopen(storage);
            }
            if rng.chance(Ratio::one_in(20)) {
                done(storage.sync());
            }
            model.check(&mut storage);
        }
    }
}

/// After a crash there is what some prefix of the writes made, with all that was synced; and it can be gone on from.
/// Skipped if the harness can't crash.
pub fn a_crash_leaves_a_prefix<H: Harness>(harness: &mut H) {
    for seed in 0..16 {
        let mut rng = Rng::new(100 + seed);
        let mut storage = harness.fresh();
        let mut model = Model::default();
        for _ in 0..4 {
            // What every prefix makes; those from the last sync on may be found.
            let mut prefixes = vec![model];
            for _ in 0..rng.below(12) {
                let mut next = prefixes[prefixes.len() - 1].clone();
                let write = random_write(&next, &mut rng);
                next.write(&mut storage, &write);
                prefixes.push(next);
                let sync = rng.chance(Ratio::one_in(6));
                if sync {
                    done(storage.sync());
                }
                if sync || matches!(write, Transaction::Compact { .. }) {
                    prefixes.drain(..prefixes.len() - 1);
                }
            }
            let Some(left) = harness.crash(storage) else { return };
            storage = left;
            let differences: Vec<_> = prefixes.iter().map(|prefix| prefix.compare(&mut storage)).collect();
            let Some(found) = differences.iter().position(Result::is_ok) else {
                panic!("what a crash left is no prefix of what was written since the last sync: {differences:?}");
            };
            model = prefixes.swap_remove(found);
            // Another crash must not take what was found.
            done(storage.sync());
        }
    }
}

/// Whatever step of a compaction, a staging or an install a crash comes after: what is there is what some of the steps made,
/// with all that were synced. Skipped if the harness can't crash.
pub fn a_crash_amid_snapshots_leaves_a_prefix<H: Harness>(harness: &mut H) {
    let id = document("log");
    let snapshot = peers_snapshot(&"theirs".repeat(30));
    let steps = [
        compact(&id, 3, "own"),
        stage(&id, &snapshot, 0, 20),
        stage(&id, &snapshot, 20, 150),
        compact(&id, 5, "own again"),
        stage(&id, &snapshot, 170, 1000),
        install(&id, 2),
        stage(&id, &snapshot, 0, 20),
        reset(&id, 3),
    ];
    for synced in (0..steps.len()).step_by(3) {
        for written in synced + 1..=steps.len() {
            let mut storage = harness.fresh();
            let (mut model, _) = some_log(&mut storage);
            // What is there after the first so many steps; those from the last sync on may be found.
            let mut prefixes = Vec::new();
            for (index, step) in steps[..written].iter().enumerate() {
                if index == synced {
                    done(storage.sync());
                    prefixes = vec![(index, model.clone())];
                }
                model.write(&mut storage, step);
                if matches!(step, Transaction::Compact { .. }) {
                    prefixes.clear();
                }
                prefixes.push((index + 1, model.clone()));
            }
            let Some(mut storage) = harness.crash(storage) else { return };
            let differences: Vec<_> = prefixes.iter().map(|(_, prefix)| prefix.compare(&mut storage)).collect();
            let Some(found) = differences.iter().position(Result::is_ok) else {
                panic!("what a crash left of {written} steps, after {synced} of which it was synced: {differences:?}");
            };
            // It goes on from there.
            let (made, mut model) = prefixes.swap_remove(found);
            for step in &steps[made..] {
                model.write(&mut storage, step);
            }
            model.check(&mut storage);
        }
    }
}

/// A compaction, and all that was written before it, survives a crash: what the snapshot stands for exists nowhere else.
/// Skipped if the harness can't crash.
pub fn a_compaction_is_synced<H: Harness>(harness: &mut H) {
    for before in 0..4 {
        let mut storage = harness.fresh();
        let (mut model, id) = some_log(&mut storage);
        let other = document("other");
        for index in 0..before {
            let batch = model.batch(&other, [(replica(1), body(&format!("op {index}")))]);
            model.append(&mut storage, batch);
        }
        model.write(&mut storage, &compact(&id, 5, "body"));
        let Some(mut left) = harness.crash(storage) else { return };
        model.check(&mut left);
        // In a group as well.
        let batch = model.batch(&id, [(replica(2), body("more"))]);
        let group = [Transaction::Append(batch.into()), compact(&id, 9, "body")];
        group.iter().for_each(|write| model.note(write));
        left.execute_all(&group.map(Request::Write)).into_iter().for_each(|outcome| drop(done(outcome)));
        let Some(mut left) = harness.crash(left) else { return };
        model.check(&mut left);
    }
}
