//! Who listens is told once a transaction, of what it wants to know and nothing else.

mod stores;

use antiphon::store::{Changes, Listeners, Pattern, Value};
use quickcheck::quickcheck;
use stores::{WALL, Write, commit, set, store};

/// What each listener was told, in the order in which they were.
fn told(listeners: &mut Listeners<&'static str>, changes: &Changes) -> Vec<(&'static str, Changes)> {
    let mut told = Vec::new();
    listeners.tell(changes, |listener, changes| told.push((*listener, changes)));
    told
}

fn names(listeners: &mut Listeners<&'static str>, changes: &Changes) -> Vec<&'static str> {
    told(listeners, changes).into_iter().map(|(name, _)| name).collect()
}

fn all() -> Listeners<&'static str> {
    let mut all = Listeners::new();
    all.add(Pattern::Everything, "everything");
    all.add(Pattern::cells(None, None, None), "cells");
    all.add(Pattern::cells(Some("t"), None, None), "t");
    all.add(Pattern::cells(Some("t"), Some("r"), None), "t/r");
    all.add(Pattern::cells(Some("t"), Some("r"), Some("c")), "t/r/c");
    all.add(Pattern::cells(None, None, Some("c")), "*/*/c");
    all.add(Pattern::cells(None, Some("r"), None), "*/r");
    all.add(Pattern::values(None), "values");
    all.add(Pattern::values(Some("v")), "v");
    all
}

#[test]
fn patterns_go_from_everything_down_to_one_cell() {
    let changed = |writes: &[Write]| {
        let mut store = store(1);
        let mut transaction = store.begin(WALL).unwrap();
        writes.iter().for_each(|write| write.on(&mut transaction).unwrap());
        let changes = transaction.commit().unwrap().changes;
        names(&mut all(), &changes)
    };
    let cell = |table, row, cell| Write::Cell(table, row, cell, Some(1.into()));
    let everything = ["everything", "cells", "t", "t/r", "t/r/c", "*/*/c", "*/r"];
    assert_eq!(changed(&[cell("t", "r", "c")]), everything);
    assert_eq!(changed(&[cell("t", "q", "d")]), ["everything", "cells", "t"]);
    assert_eq!(changed(&[cell("s", "r", "d")]), ["everything", "cells", "*/r"]);
    assert_eq!(changed(&[Write::Value("v", Some(1.into()))]), ["everything", "values", "v"]);
    assert_eq!(changed(&[Write::Value("w", Some(1.into()))]), ["everything", "values"]);
    assert_eq!(changed(&[]), [""; 0]);
}

#[test]
fn each_is_told_once_a_transaction_with_old_and_new() {
    let (mut writer, mut reader) = (store(1), store(2));
    let first = set(&mut writer, WALL, "t", "r", "c", 1);
    let _ = reader.apply(&first, WALL).unwrap();
    let mut transaction = writer.begin(WALL).unwrap();
    for value in 2..5 {
        transaction.set_cell("t", "r", "c", value).unwrap();
        transaction.set_cell("t", "r", "d", value).unwrap();
        transaction.set_value("v", value).unwrap();
    }
    let committed = transaction.commit().unwrap();
    let applied = reader.apply(&committed.body.unwrap(), WALL).unwrap();
    for changes in [committed.changes, applied.changes] {
        let told = told(&mut all(), &changes);
        let of = |name| told.iter().filter(|(told, _)| *told == name).map(|(_, changes)| changes).collect::<Vec<_>>();
        assert_eq!(of("everything"), [&changes]);
        let [one] = of("t/r/c")[..] else { panic!("once") };
        assert_eq!((one.cells.len(), one.values.len()), (1, 0));
        assert_eq!((&one.cells[0].old, &one.cells[0].new), (&Some(Value::Int(1)), &Some(Value::Int(4))));
        let [one] = of("v")[..] else { panic!("once") };
        assert_eq!((&one.values[0].old, &one.values[0].new), (&None, &Some(Value::Int(4))));
    }
}

#[test]
fn what_a_deletion_takes_is_told_cell_by_cell() {
    for deletion in [Write::Row("t", "r"), Write::Table("t"), Write::Tables] {
        let (mut writer, mut reader) = (store(1), store(2));
        for cell in ["a", "b"] {
            let _ = reader.apply(&set(&mut writer, WALL, "t", "r", cell, 1), WALL).unwrap();
        }
        let body = commit(&mut writer, WALL, &[deletion]).unwrap();
        let changes = reader.apply(&body, WALL).unwrap().changes;
        let gone: Vec<_> =
            changes.cells.iter().map(|change| (&*change.cell, change.old.is_some(), &change.new)).collect();
        assert_eq!(gone, [("a", true, &None), ("b", true, &None)]);
    }
}

#[test]
fn who_is_removed_is_told_nothing() {
    let mut listeners = Listeners::new();
    let first = listeners.add(Pattern::Everything, "first");
    let second = listeners.add(Pattern::Everything, "second");
    assert_eq!(listeners.remove(first), Some("first"));
    assert_eq!(listeners.remove(first), None);
    let third = listeners.add(Pattern::Everything, "third");
    assert!(third > second, "an id is not given twice");
    let mut store = store(1);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_value("v", 1).unwrap();
    let changes = transaction.commit().unwrap().changes;
    assert_eq!(names(&mut listeners, &changes), ["second", "third"]);
}

/// A closure that writes on: the store is free while listeners are told.
#[test]
fn listeners_may_write_to_the_store() {
    let mut store = store(1);
    let mut listeners: Listeners<fn(&mut antiphon::store::Store, &Changes)> = Listeners::new();
    listeners.add(Pattern::cells(None, None, Some("legs")), |store, changes| {
        let (table, row, _) = changes.cells[0].path();
        set(store, WALL, table, row, "checked", true);
    });
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("pets", "fido", "legs", 4).unwrap();
    let changes = transaction.commit().unwrap().changes;
    listeners.tell(&changes, |listener, changes| listener(&mut store, &changes));
    assert_eq!(store.cell("pets", "fido", "checked"), Some(&Value::Bool(true)));
}

quickcheck! {
    /// All that is told to one who wants all of a table, and to one who wants all else, is all.
    fn nothing_is_left_out(before: Vec<Write>, writes: Vec<Write>) -> bool {
        let mut store = store(1);
        commit(&mut store, WALL, &before);
        let mut transaction = store.begin(WALL).unwrap();
        writes.iter().for_each(|write| write.on(&mut transaction).unwrap());
        let changes = transaction.commit().unwrap().changes;
        let mut listeners = Listeners::new();
        for table in ["a", "b", "long enough"] {
            listeners.add(Pattern::cells(Some(table), None, None), "cells");
        }
        listeners.add(Pattern::values(None), "values");
        let mut sum = Changes::default();
        for (_, part) in told(&mut listeners, &changes) {
            sum.cells.extend(part.cells);
            sum.values.extend(part.values);
        }
        sum == changes
    }
}
