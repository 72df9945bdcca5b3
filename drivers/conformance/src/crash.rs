//! Many random writes: in order, mixed with reopening, and cut short.

use antiphon::op::OpId;
use antiphon::rng::{Ratio, Rng};
use antiphon::storage::Storage;
use antiphon::timeline::TimelineRecord;

use crate::model::{Model, body, document, random_write, replica, timeline};
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
                if rng.chance(Ratio::one_in(6)) {
                    done(storage.sync());
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
