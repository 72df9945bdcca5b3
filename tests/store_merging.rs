//! Merging is commutative, associative and idempotent, whatever was written, by whomever, with whichever clocks.

mod stores;

use antiphon::store::{ClientId, Store, Value};
use bytes::Bytes;
use quickcheck::{Gen, QuickCheck, quickcheck};
use stores::{Group, Step, WALL, Write, apply, commit, content, set, shuffled, store};

fn merged(bodies: &[Bytes]) -> Store {
    let mut all = store(99);
    apply(&mut all, bodies);
    all
}

fn same(a: &Store, b: &Store) -> bool {
    a.snapshot() == b.snapshot() && a.content_hash() == b.content_hash() && content(a) == content(b)
}

fn commutes(clones: bool, dice: u64, steps: Vec<Step>) -> bool {
    let bodies = Group::run(clones, &steps).all();
    same(&merged(&bodies), &merged(&shuffled(&bodies, dice)))
}

/// Parts merged by themselves, then as snapshots with each other, in any grouping.
fn associates(clones: bool, dice: u64, steps: Vec<Step>) -> bool {
    let bodies = shuffled(&Group::run(clones, &steps).all(), dice);
    let (left, rest) = bodies.split_at(bodies.len() / 3);
    let (middle, right) = rest.split_at(rest.len() / 2);
    let snapshots = [left, middle, right].map(|part| merged(part).snapshot());
    let mut leftward = Store::load(ClientId::new(1), &snapshots[0], WALL).unwrap();
    apply(&mut leftward, &snapshots[1..]);
    let rightward = merged(&[snapshots[0].clone(), merged(&snapshots[1..]).snapshot()]);
    same(&leftward, &merged(&bodies)) && same(&rightward, &leftward)
}

fn is_idempotent(clones: bool, dice: u64, steps: Vec<Step>) -> bool {
    let bodies = Group::run(clones, &steps).all();
    let once = merged(&bodies);
    let mut twice = once.clone();
    for body in shuffled(&bodies, dice) {
        let applied = twice.apply(&body, WALL).unwrap();
        assert!(applied.changes.is_empty());
    }
    twice.apply(&once.snapshot(), WALL).unwrap().changes.is_empty() && same(&once, &twice)
}

/// Who wrote has what who heard has: the body says all that the transaction did.
fn writers_have_what_readers_have(clones: bool, steps: Vec<Step>) -> bool {
    let mut group = Group::run(clones, &steps);
    let bodies = group.all();
    let reader = merged(&bodies);
    group.stores.iter_mut().all(|store| {
        apply(store, &bodies);
        same(store, &reader)
    })
}

#[test]
fn the_order_does_not_matter() {
    QuickCheck::new().rng(Gen::new(40)).tests(600).quickcheck(commutes as fn(bool, u64, Vec<Step>) -> bool);
}

#[test]
fn the_grouping_does_not_matter() {
    QuickCheck::new().rng(Gen::new(40)).tests(400).quickcheck(associates as fn(bool, u64, Vec<Step>) -> bool);
}

#[test]
fn twice_is_once() {
    QuickCheck::new().rng(Gen::new(40)).tests(400).quickcheck(is_idempotent as fn(bool, u64, Vec<Step>) -> bool);
}

#[test]
fn a_body_says_all_that_its_transaction_did() {
    QuickCheck::new()
        .rng(Gen::new(40))
        .tests(600)
        .quickcheck(writers_have_what_readers_have as fn(bool, Vec<Step>) -> bool);
}

quickcheck! {
    /// What a transaction says that it changed is what its readers see change.
    fn changes_are_told_alike(before: Vec<Write>, writes: Vec<Write>) -> bool {
        let (mut writer, mut reader) = (store(1), store(2));
        apply(&mut reader, commit(&mut writer, WALL, &before).iter());
        let mut transaction = writer.begin(WALL).unwrap();
        writes.iter().for_each(|write| write.on(&mut transaction).unwrap());
        let committed = transaction.commit().unwrap();
        match committed.body {
            Some(body) => reader.apply(&body, WALL).unwrap().changes == committed.changes,
            None => committed.changes.is_empty(),
        }
    }
}

#[test]
fn clones_that_write_with_one_stamp_converge() {
    let pairs: [(Value, Value); 4] =
        [(1.into(), 2.into()), ("x".into(), 7.into()), (Value::Null, true.into()), (0.5.into(), Value::Int(0))];
    for (first, second) in pairs {
        let (mut a, mut b) = (store(1), store(1));
        let mine = set(&mut a, WALL, "t", "r", "c", first);
        let yours = set(&mut b, WALL, "t", "r", "c", second);
        apply(&mut a, [&yours]);
        apply(&mut b, [&mine]);
        assert!(same(&a, &b));
    }
}

/// A deletion and a write with one stamp, below and above each other: the write stays, everywhere.
#[test]
fn clones_that_delete_and_write_with_one_stamp_converge() {
    for deletion in [Write::Row("t", "r"), Write::Table("t"), Write::Tables] {
        let (mut a, mut b) = (store(1), store(1));
        let first = set(&mut a, WALL, "t", "r", "c", 1);
        apply(&mut b, [&first]);
        let deleted = commit(&mut a, WALL + 5, &[deletion]).unwrap();
        let written = set(&mut b, WALL + 5, "t", "r", "c", 2);
        apply(&mut a, [&written]);
        apply(&mut b, [&deleted]);
        assert!(same(&a, &b));
        assert_eq!(a.cell("t", "r", "c"), Some(&Value::Int(2)));
    }
}

#[test]
fn what_is_written_after_a_deletion_survives_it() {
    for deletion in [Write::Row("t", "r"), Write::Table("t"), Write::Tables] {
        let (mut a, mut b) = (store(1), store(2));
        let bodies = [set(&mut a, WALL, "t", "r", "old", 1), set(&mut a, WALL, "t", "r", "older", 1)];
        apply(&mut b, &bodies);
        let deleted = commit(&mut a, WALL + 5, &[deletion]).unwrap();
        let written = set(&mut b, WALL + 6, "t", "r", "new", 2);
        apply(&mut a, [&written]);
        apply(&mut b, [&deleted]);
        assert!(same(&a, &b));
        assert_eq!(content(&a), r#"{"tables":{"t":{"r":{"new":2}}},"values":{}}"#);
    }
}

/// One change, however much goes.
#[test]
fn deletions_are_of_one_size() {
    let mut sizes = Vec::new();
    for rows in [1, 1000] {
        let mut store = store(1);
        let mut transaction = store.begin(WALL).unwrap();
        for row in 0..rows {
            transaction.set_cell("t", &format!("r{row}"), "c", row).unwrap();
            transaction.set_cell("t", "r0", &format!("c{row}"), row).unwrap();
            transaction.set_value(&format!("v{row}"), row).unwrap();
        }
        let body = transaction.commit().unwrap().body.unwrap();
        for deletion in [Write::Row("t", "r0"), Write::Table("t"), Write::Tables, Write::Values] {
            let mut copy = stores::store(2);
            apply(&mut copy, [&body]);
            sizes.push(commit(&mut copy, WALL + 1, &[deletion]).unwrap().len());
        }
    }
    assert_eq!(sizes[..4], sizes[4..]);
    assert!(sizes.iter().all(|size| *size <= 20), "{sizes:?}");
}
