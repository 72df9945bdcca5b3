//! What belongs together happens together or not at all, and what changes nothing is nothing.

mod stores;

use antiphon::store::{
    BODY_BYTES_MAX, BadValue, Committed, JSON_DEPTH_MAX, Json, NAME_BYTES_MAX, VALUE_BYTES_MAX, Value, WriteError,
};
use quickcheck::quickcheck;
use stores::{WALL, Write, apply, commit, content, set, store};

quickcheck! {
    /// TB-H: with the stamps, so that what is written next is written as if nothing had been tried.
    fn tb_h_rolled_back_as_if_it_had_not_been(before: Vec<Write>, tried: Vec<Write>, after: Vec<Write>) -> bool {
        let mut left = store(1);
        commit(&mut left, WALL, &before);
        let mut right = left.clone();
        let mut transaction = left.begin(WALL + 10).unwrap();
        tried.iter().for_each(|write| write.on(&mut transaction).unwrap());
        drop(transaction);
        left.snapshot() == right.snapshot()
            && left.content_hash() == right.content_hash()
            && commit(&mut left, WALL, &after) == commit(&mut right, WALL, &after)
            && left.snapshot() == right.snapshot()
    }

    /// The content after it is told, from the content before.
    fn changes_are_the_difference(before: Vec<Write>, writes: Vec<Write>) -> bool {
        let mut store = store(1);
        commit(&mut store, WALL, &before);
        let old = store.clone();
        let mut transaction = store.begin(WALL).unwrap();
        writes.iter().for_each(|write| write.on(&mut transaction).unwrap());
        let changes = transaction.commit().unwrap().changes;
        let cells = changes.cells.iter().all(|change| {
            let (table, row, cell) = change.path();
            change.old != change.new
                && old.cell(table, row, cell) == change.old.as_ref()
                && store.cell(table, row, cell) == change.new.as_ref()
        });
        let values = changes.values.iter().all(|change| {
            change.old != change.new
                && old.value(&change.value) == change.old.as_ref()
                && store.value(&change.value) == change.new.as_ref()
        });
        // Nothing else changed: what was changed, changed back, is what was.
        let mut back = store.clone();
        let mut transaction = back.begin(WALL).unwrap();
        for change in &changes.cells {
            let (table, row, cell) = change.path();
            Write::on(&Write::Cell(leak(table), leak(row), leak(cell), change.old.clone()), &mut transaction).unwrap();
        }
        for change in &changes.values {
            Write::on(&Write::Value(leak(&change.value), change.old.clone()), &mut transaction).unwrap();
        }
        let _ = transaction.commit().unwrap();
        cells && values && back.content_hash() == old.content_hash() && content(&back) == content(&old)
    }
}

fn leak(name: &str) -> &'static str {
    ["a", "b", "long enough"].into_iter().find(|known| *known == name).unwrap()
}

#[test]
fn what_changes_nothing_is_nothing() {
    let mut store = store(1);
    set(&mut store, WALL, "t", "r", "c", 1);
    let snapshot = store.snapshot();
    let nothings: [&[Write]; 6] = [
        &[],
        &[Write::Cell("t", "r", "c", Some(1.into()))],
        &[Write::Cell("t", "r", "c", Some(2.into())), Write::Cell("t", "r", "c", Some(1.into()))],
        &[Write::Cell("t", "r", "d", None), Write::Row("t", "q"), Write::Table("s"), Write::Values],
        &[Write::Cell("t", "r", "d", Some(1.into())), Write::Cell("t", "r", "d", None)],
        &[Write::Tables, Write::Cell("t", "r", "c", Some(1.into()))],
    ];
    for writes in nothings {
        assert_eq!(commit(&mut store, WALL, writes), None, "{writes:?}");
        assert_eq!(store.snapshot(), snapshot, "{writes:?}");
    }
}

#[test]
fn a_transaction_is_read_as_it_goes() {
    let mut store = store(1);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("t", "r", "c", 1).unwrap();
    transaction.set_cell("t", "r", "c", transaction.cell("t", "r", "c").cloned().map_or(0, |_| 2)).unwrap();
    assert_eq!(transaction.cell("t", "r", "c"), Some(&Value::Int(2)));
    let Committed { body, changes } = transaction.commit().unwrap();
    assert_eq!(body.unwrap().len(), 20, "what it wrote over is not told");
    assert_eq!((changes.cells.len(), &changes.cells[0].old, &changes.cells[0].new), (1, &None, &Some(Value::Int(2))));
}

#[test]
fn a_row_is_set_as_a_whole() {
    let (mut store, mut reader) = (store(1), stores::store(2));
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_row("t", "r", [("a", 1), ("b", 2)]).unwrap();
    transaction.set_row("t", "r", [("b", 2), ("c", 3)]).unwrap();
    let body = transaction.commit().unwrap().body.unwrap();
    apply(&mut reader, [&body]);
    assert_eq!(content(&reader), r#"{"tables":{"t":{"r":{"b":2,"c":3}}},"values":{}}"#);
}

#[test]
fn a_write_that_fails_leaves_the_others() {
    let mut store = store(1);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("t", "r", "c", 1).unwrap();
    assert_eq!(transaction.set_cell("t", "r", "d", f64::NAN), Err(WriteError::Value(BadValue::NotFinite)));
    assert!(transaction.commit().unwrap().body.is_some());
    assert_eq!(content(&store), r#"{"tables":{"t":{"r":{"c":1}}},"values":{}}"#);
}

#[test]
fn an_error_that_leaves_the_function_takes_everything_back() {
    fn two(store: &mut antiphon::store::Store) -> Result<Committed, WriteError> {
        let mut transaction = store.begin(WALL)?;
        transaction.set_cell("t", "r", "c", 1)?;
        transaction.set_cell("t", "r", "d", f64::INFINITY)?;
        transaction.commit()
    }
    let mut store = store(1);
    assert_eq!(two(&mut store), Err(WriteError::Value(BadValue::NotFinite)));
    assert!(store.is_empty());
    assert_eq!(store.content_hash(), 0);
}

#[test]
fn limits_are_held_and_just_below_them_all_is_well() {
    let (mut store, mut reader) = (store(1), stores::store(2));
    let name = "n".repeat(NAME_BYTES_MAX);
    let long = "s".repeat(VALUE_BYTES_MAX);
    let (too_long_name, too_long) = (name.clone() + "n", long.clone() + "s");
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell(&name, &name, &name, &*long).unwrap();
    transaction.set_cell("t", "r", "bytes", vec![7; VALUE_BYTES_MAX]).unwrap();
    transaction.set_value(&name, 1).unwrap();
    for (table, row, cell) in [(&*too_long_name, "r", "c"), ("t", &too_long_name, "c"), ("t", "r", &too_long_name)] {
        assert_eq!(transaction.set_cell(table, row, cell, 1), Err(WriteError::NameTooLong));
    }
    assert_eq!(transaction.set_value(&too_long_name, 1), Err(WriteError::NameTooLong));
    assert_eq!(transaction.set_value("v", &*too_long), Err(WriteError::Value(BadValue::TooLong)));
    assert_eq!(transaction.set_value("v", vec![7; VALUE_BYTES_MAX + 1]), Err(WriteError::Value(BadValue::TooLong)));
    let nested = |depth: usize| Json::parse(&("[".repeat(depth) + &"]".repeat(depth)));
    transaction.set_value("nested", nested(JSON_DEPTH_MAX).unwrap()).unwrap();
    assert_eq!(nested(JSON_DEPTH_MAX + 1), Err(BadValue::TooDeep));
    assert_eq!(Json::parse(&format!("[\"{long}\"]")), Err(BadValue::TooLong));
    let body = transaction.commit().unwrap().body.unwrap();
    apply(&mut reader, [&body]);
    assert_eq!(reader.content_hash(), store.content_hash());
}

#[test]
fn a_transaction_that_makes_too_long_a_body_is_taken_back() {
    let mut store = store(1);
    let mut transaction = store.begin(WALL).unwrap();
    let string = "s".repeat(VALUE_BYTES_MAX);
    for row in 0..=BODY_BYTES_MAX / VALUE_BYTES_MAX {
        transaction.set_cell("t", &row.to_string(), "c", &*string).unwrap();
    }
    assert_eq!(transaction.commit(), Err(WriteError::TooLarge));
    assert!(store.is_empty());
}

#[test]
fn floats_have_one_zero_and_are_numbers() {
    let mut store = store(1);
    set(&mut store, WALL, "t", "r", "c", -0.0);
    let Some(Value::Float(zero)) = store.cell("t", "r", "c") else { panic!("a float") };
    assert!(zero.is_sign_positive());
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut transaction = store.begin(WALL).unwrap();
        assert_eq!(transaction.set_value("v", float), Err(WriteError::Value(BadValue::NotFinite)));
    }
}
