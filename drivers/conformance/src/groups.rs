//! Requests that are carried out together.

use antiphon::rng::{Ratio, Rng};
use antiphon::storage::{Batch, Reply, Request, Storage, Transaction};

use crate::logs::some_log;
use crate::model::{Model, body, document, random_write, replica};
use crate::{Harness, done};

/// A write that is refused does not take the others of its group with it, whatever document they are of.
pub fn a_refused_write_leaves_its_group<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let next = |model: &mut Model, id| {
        let write = Transaction::Append(model.batch(id, [(replica(1), body("good"))]).into());
        model.note(&write);
        Request::Write(write)
    };
    let misplaced = Batch { position: 1, ..model.batch(&id, [(replica(1), body("bad"))]) };
    let mut forked = model.batch(&id, [(replica(1), body("fine")), (replica(1), body("bad"))]);
    forked.entries[1].op.id.seq += 1;
    let refused = |batch: Batch| Request::Write(Transaction::Append(batch.into()));
    let other = document("other");
    let group = [
        next(&mut model, &id),
        refused(misplaced),
        next(&mut model, &other),
        refused(forked),
        next(&mut model, &id),
        Request::Open(id.clone()),
        next(&mut model, &other),
    ];
    let outcomes = storage.execute_all(&group);
    let errors: Vec<_> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(errors, [false, true, false, true, false, false, false], "which of the group were refused");
    let opened = outcomes.into_iter().nth(5).map(done);
    assert_eq!(opened, Some(Reply::Document(model.held(&id).state)), "a document amid its group");
    model.check(&mut storage);
    model.check(&mut harness.reopen(storage));
}

/// Requests carried out together answer and leave what they would one after the other: each sees the writes before it.
pub fn groups_agree_with_single_requests<H: Harness>(harness: &mut H) {
    let mut rng = Rng::new(8);
    let mut storage = harness.fresh();
    let mut model = Model::default();
    for _ in 0..40 {
        let (mut group, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..rng.below(8) {
            let write = random_write(&model, &mut rng);
            model.note(&write);
            group.push(Request::Write(write));
            expected.push(Reply::Written);
            if rng.chance(Ratio::one_in(3)) {
                let documents: Vec<_> = model.documents.keys().cloned().collect();
                for id in documents {
                    expected.push(Reply::Document(model.held(&id).state));
                    group.push(Request::Open(id));
                }
            }
        }
        for (request, (outcome, expected)) in group.iter().zip(storage.execute_all(&group).into_iter().zip(expected)) {
            assert_eq!(done(outcome), expected, "the outcome of {request:?} in a group");
        }
        model.check(&mut storage);
        if rng.chance(Ratio::one_in(8)) {
            storage = harness.reopen(storage);
            model.check(&mut storage);
        }
    }
}
