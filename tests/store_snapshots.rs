//! Snapshots hold all, folds lose nothing and bring nothing back, and sweeping forgets what was deleted, everywhere alike.

mod stores;

use antiphon::digest::BodyHash;
use antiphon::op::{Body, Op, OpId, ReplicaId};
use antiphon::snapshot::Compactor;
use antiphon::store::{ClientId, Malformed, Store};
use bytes::Bytes;
use quickcheck::{Gen, QuickCheck};
use stores::{Group, Step, WALL, Write, apply, commit, content, set, shuffled, store};

fn load(snapshot: &[u8]) -> Store {
    Store::load(ClientId::new(50), snapshot, WALL).unwrap()
}

/// What the document's authority makes of a snapshot, if there is one, and the ops after it.
fn fold(snapshot: Option<&[u8]>, bodies: &[Bytes]) -> Result<Bytes, Malformed> {
    let mut folding = Store::new(ClientId::default());
    snapshot.map_or(Ok(()), |snapshot| Compactor::load(&mut folding, snapshot))?;
    for (seq, body) in (1..).zip(bodies) {
        let id = OpId { author: ReplicaId([1; 16]), seq };
        Compactor::fold(&mut folding, &Op { id, body: Body::Bytes(body.clone()) })?;
    }
    Ok(folding.finish())
}

/// A part of the ops is folded; the others come after it, late and in any order, some of them twice.
fn fold_is_exact(clones: bool, dice: u64, steps: Vec<Step>) -> bool {
    let bodies = shuffled(&Group::run(clones, &steps).all(), dice);
    let mut full = store(49);
    apply(&mut full, &bodies);
    let (folded, late) = bodies.split_at(bodies.len() / 2);
    let mut snapshot = fold(None, folded).unwrap();
    let mut reader = load(&snapshot);
    apply(&mut reader, late);
    apply(&mut reader, folded.iter().rev().take(2));
    for part in late.chunks(3) {
        snapshot = fold(Some(&snapshot), part).unwrap();
    }
    reader.snapshot() == full.snapshot()
        && snapshot == full.snapshot()
        && reader.content_hash() == full.content_hash()
        && content(&load(&snapshot)) == content(&full)
}

#[test]
fn a_fold_loses_nothing_and_brings_nothing_back() {
    QuickCheck::new().rng(Gen::new(40)).tests(500).quickcheck(fold_is_exact as fn(bool, u64, Vec<Step>) -> bool);
}

/// The authority sweeps at some time and folds; replicas that were away come back with what they wrote before and after.
fn sweep_is_exact(dice: u64, early: Vec<Step>, late: Vec<Step>, now: Vec<Step>) -> bool {
    let mut group = Group::new(false);
    early.iter().for_each(|step| group.step(step));
    // All have what is older than the time at which is swept. What they do then they do not tell.
    let early = group.all();
    group.stores.iter_mut().for_each(|store| apply(store, &early));
    let mut authority = store(48);
    apply(&mut authority, &early);
    let before = WALL + 2_000_000_000; // whatever is early is earlier, a clock that is a day ahead included
    let mut later = Group::new(false);
    later.stores = group.stores;
    late.iter().for_each(|step| later.step_at(before - WALL + 1, step));
    let unseen = later.all();
    let plain = authority.clone();
    let swept = authority.sweep(before).unwrap();
    assert!(swept.changes.is_empty());
    assert_eq!(content(&authority), content(&plain));
    assert_eq!(authority.content_hash(), plain.content_hash());
    // Who has the log and hears of it, in whichever order, and who has the snapshot.
    let mut log: Vec<_> = [early, unseen.clone(), swept.body.into_iter().collect()].concat();
    log = shuffled(&log, dice);
    let (mut full, mut late_joiner) = (store(47), load(&authority.snapshot()));
    apply(&mut full, &log);
    apply(&mut late_joiner, &shuffled(&unseen, dice));
    let mut unswept = plain;
    apply(&mut unswept, &unseen);
    let is_exact = content(&late_joiner) == content(&unswept) && late_joiner.content_hash() == unswept.content_hash();
    let converges = late_joiner.snapshot() == full.snapshot();
    // And it goes on.
    let mut next = Group::new(false);
    next.stores = vec![full, late_joiner, authority];
    now.iter().for_each(|step| next.step_at(before - WALL + 1, step));
    let all = [unseen, next.all()].concat();
    next.stores.iter_mut().for_each(|store| apply(store, &all));
    is_exact && converges && next.stores.iter().all(|store| store.snapshot() == next.stores[0].snapshot())
}

#[test]
fn a_sweep_loses_nothing_that_is_newer_and_converges() {
    let property = sweep_is_exact as fn(u64, Vec<Step>, Vec<Step>, Vec<Step>) -> bool;
    QuickCheck::new().rng(Gen::new(30)).tests(400).quickcheck(property);
}

/// TinyBase keeps 106 KB for these rows.
#[test]
fn a_sweep_forgets_old_deletions() {
    let mut store = store(1);
    set(&mut store, WALL, "queue", "kept", "c", 1);
    for row in 0..1000 {
        set(&mut store, WALL + row, "queue", &format!("r{row}"), "c", 1);
        commit(&mut store, WALL + row, &[]);
        let mut transaction = store.begin(WALL + row).unwrap();
        transaction.delete_row("queue", &format!("r{row}")).unwrap();
        let _ = transaction.commit().unwrap();
    }
    let before = store.snapshot().len();
    assert!(before < 12_000, "{before}");
    let hash = store.content_hash();
    let half = store.sweep(WALL + 500).unwrap();
    assert!(half.body.unwrap().len() < 40, "what is deleted and what is left is told once");
    assert_eq!(store.content_hash(), hash);
    let after = store.snapshot().len();
    assert!(after < before * 6 / 10, "{after}");
    let _ = store.sweep(WALL + 10_000).unwrap();
    assert!(store.snapshot().len() < 60);
    assert_eq!(content(&store), r#"{"tables":{"queue":{"kept":{"c":1}}},"values":{}}"#);
    assert_eq!(store.sweep(WALL + 10_000).unwrap().body, None, "there is nothing more to forget");
}

#[test]
fn a_sweep_forgets_tables_and_values_too() {
    let mut store = store(1);
    for name in 0..100 {
        let mut transaction = store.begin(WALL).unwrap();
        transaction.set_cell(&format!("t{name}"), "r", "c", 1).unwrap();
        transaction.set_value(&format!("v{name}"), 1).unwrap();
        let _ = transaction.commit().unwrap();
    }
    set(&mut store, WALL, "kept", "r", "c", 1);
    let mut transaction = store.begin(WALL).unwrap();
    for name in 0..100 {
        transaction.delete_table(&format!("t{name}")).unwrap();
        transaction.delete_value(&format!("v{name}")).unwrap();
    }
    let _ = transaction.commit().unwrap();
    let _ = store.sweep(WALL + 1).unwrap();
    assert!(store.snapshot().len() < 60, "{:?}", store.snapshot());
    assert_eq!(content(&store), r#"{"tables":{"kept":{"r":{"c":1}}},"values":{}}"#);
}

/// Where cells outnumber deletions, writing them again would take more than it saves.
#[test]
fn a_sweep_leaves_tables_that_are_mostly_cells() {
    let mut store = store(1);
    let cells = ["a", "b", "c"];
    cells.iter().for_each(|cell| drop(set(&mut store, WALL, "t", "r", cell, 1)));
    commit(&mut store, WALL, &[Write::Cell("t", "r", "a", None)]);
    assert_eq!(store.sweep(WALL + 1).unwrap().body, None);
}

/// What was written before the time at which was swept, and comes after: it does not bring back what was deleted, its
/// author sees that it came too late, and all hold the same.
#[test]
fn what_comes_too_late_brings_nothing_back_and_is_told() {
    let (mut authority, mut away) = (store(1), store(2));
    let first = set(&mut authority, WALL, "t", "r", "c", 1);
    apply(&mut away, [&first]);
    let mine = set(&mut away, WALL + 5, "t", "r", "d", 2);
    let mut log = vec![first];
    log.extend(commit(&mut authority, WALL + 10, &[Write::Row("t", "r")]));
    let swept = authority.sweep(WALL + 1000).unwrap().body.unwrap();
    let applied = authority.apply(&mine, WALL + 2000).unwrap();
    assert_eq!((applied.superseded, applied.changes.is_empty()), (1, true));
    let mut returned = load(&authority.snapshot());
    assert_eq!(returned.apply(&mine, WALL + 2000).unwrap().superseded, 1);
    log.extend([mine, swept]);
    for order in 0..20 {
        let mut reader = store(3);
        apply(&mut reader, &shuffled(&log, order));
        assert_eq!(reader.snapshot(), authority.snapshot());
    }
}

/// A million writes over a thousand cells end as a thousand cells.
#[test]
fn a_fold_is_as_large_as_what_is_left() {
    let mut writer = store(1);
    let write = |writer: &mut Store, round: u64, cell: u64| {
        set(writer, WALL + round, "t", &format!("r{}", cell / 10), &format!("c{}", cell % 10), (round % 100) as i64)
    };
    let once: Vec<_> = (0..1000).map(|cell| write(&mut writer, 1, cell)).collect();
    let small = fold(None, &once).unwrap();
    let mut snapshot = small.clone();
    for round in 2..=1000 {
        let bodies: Vec<_> = (0..1000).map(|cell| write(&mut writer, round, cell)).collect();
        snapshot = fold(Some(&snapshot), &bodies).unwrap();
    }
    assert!(snapshot.len() < small.len() + 100, "{} after {}", snapshot.len(), small.len());
    assert!(snapshot.len() < 10_000, "{}", snapshot.len());
    assert_eq!(content(&load(&snapshot)), content(&writer));
}

#[test]
fn a_fold_refuses_what_no_store_takes() {
    let body = set(&mut store(1), WALL, "t", "r", "c", 1);
    for foreign in [&b"nonsense"[..], b""] {
        assert!(fold(None, &[body.clone(), Bytes::from_static(foreign)]).is_err());
        assert!(fold(Some(foreign), &[]).is_err());
    }
    let blank = Op { id: OpId { author: ReplicaId([1; 16]), seq: 1 }, body: Body::Blank(BodyHash::of(&body)) };
    let mut folding = Store::new(ClientId::default());
    Compactor::fold(&mut folding, &blank).unwrap();
    assert_eq!(folding.finish(), fold(None, &[]).unwrap(), "a void op is none");
    assert_eq!(content(&load(&fold(None, &[]).unwrap())), r#"{"tables":{},"values":{}}"#);
}

/// What is written after loading is written over what was loaded.
#[test]
fn a_loaded_store_goes_on_where_it_was() {
    let mut before = store(50);
    set(&mut before, WALL, "t", "r", "c", 1);
    let mut after = load(&before.snapshot());
    let body = set(&mut after, WALL - 1000, "t", "r", "c", 2);
    apply(&mut before, [&body]);
    assert_eq!(content(&before), r#"{"tables":{"t":{"r":{"c":2}}},"values":{}}"#);
    assert_eq!(before.snapshot(), after.snapshot());
}
