//! The form of bodies and snapshots is the one that the documentation tells, and stays as small as it was.

mod stores;

use antiphon::store::{ClientId, Json, Store, Value};
use bytes::Bytes;
use stores::{WALL, Write, apply, commit, content, set, store};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace()).collect();
    let digits = digits.concat();
    (0..digits.len() / 2).map(|index| u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap()).collect()
}

/// The hexadecimal lines of the example in the module's documentation.
fn documented() -> Vec<u8> {
    let source = include_str!("../src/store/mod.rs");
    let example = source.split("//! ```text\n").last().unwrap().split("//! ```").next().unwrap();
    // Two spaces end the bytes of a line.
    let lines = example.lines().map(|line| line.trim_start_matches("//! ").split("  ").next().unwrap());
    bytes(&lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_smallest_example_is_what_is_documented() {
    let body = set(&mut store(1), WALL, "t1", "r1", "c1", 1);
    assert_eq!(body, documented());
    assert_eq!(body.len(), 23);
    let mut reader = store(2);
    apply(&mut reader, [&body]);
    assert_eq!(content(&reader), r#"{"tables":{"t1":{"r1":{"c1":1}}},"values":{}}"#);
}

/// Everything that there is in one snapshot, written by two.
#[test]
fn a_snapshot_with_everything() {
    let (mut a, mut b) = (store(1), store(300));
    let mut bodies = Vec::new();
    let json = Value::Json(Json::parse("[1]").unwrap());
    bodies.extend(commit(
        &mut a,
        WALL,
        &[Write::Cell("t", "gone", "x", Some(1.into())), Write::Value("x", Some(1.into()))],
    ));
    bodies.extend(commit(&mut a, WALL + 1, &[Write::Tables, Write::Values]));
    apply(&mut b, &bodies);
    let cells = [("a", Value::Null), ("b", true.into()), ("c", 160.into()), ("d", 1.5.into()), ("e", "é".into())];
    let mut writes: Vec<_> = cells.into_iter().map(|(cell, value)| Write::Cell("t", "r", cell, Some(value))).collect();
    writes.push(Write::Value("v", Some(vec![1u8, 2].into())));
    writes.push(Write::Cell("u", "r", "a", Some(json)));
    bodies.extend(commit(&mut b, WALL + 2, &writes));
    bodies.extend(commit(&mut b, WALL + 2, &[Write::Cell("t", "r", "a", None), Write::Row("u", "r")]));
    let mut reader = store(3);
    apply(&mut reader, &bodies);
    let expected = "
        3f                          # version 1, many stamps, all tables and values deleted, values, tables
        02 01 ac02                  # two clients, 1 and 300
        03                          # three stamps
        81d095ffbc31 00 00          # 1700000000001 ms, counter 0, the first client
        01 00 01                    # a millisecond later, counter 0, the second client
        00 01 01                    # the same, counter 1
        00                          # all tables: stamp 0
        00                          # all values: stamp 0
        01 0276 02 07 02 0102       # one value: 'v', stamp 0 + 1, two bytes
        0274 06 0272 0a             # table 't', one row, another table follows; row 'r', five cells
        0261 02 00                  # 'a', stamp 1 + 1, deleted
        0262 01 03                  # 'b', stamp 2 - 1, true
        0263 00 04 c002             # 'c', stamp 1, 160
        0264 00 05 000000000000f83f # 'd', 1.5
        0265 00 06 02 c3a9          # 'e', a string
        0275 04                     # table 'u', one row
        05 01 02                    # row 'r', the third name; no cells, deleted; stamp 1 + 1
    ";
    assert_eq!(reader.snapshot(), bytes(expected), "{:02x?}", &reader.snapshot()[..]);
    let loaded = Store::load(ClientId::new(4), &bytes(expected), WALL).unwrap();
    assert_eq!(content(&loaded), content(&reader));
}

#[test]
fn an_empty_store_is_three_bytes() {
    assert_eq!(store(1).snapshot(), bytes("21 00 00"));
    assert!(Store::load(ClientId::new(1), &bytes("21 00 00"), WALL).unwrap().is_empty());
}

/// A small cell takes 24 bytes at most, whoever writes it; TinyBase takes 87.
#[test]
fn one_small_cell_is_small() {
    for client in [0, 1, ClientId::MAX.get()] {
        let mut store = store(client);
        for value in [0, 1, 159, -32] {
            let body = set(&mut store, WALL, "t1", "r1", "c1", value);
            assert!(body.len() <= 24, "{}", body.len());
        }
        for value in [Value::Null, true.into()] {
            assert!(set(&mut store, WALL, "t1", "r1", "c1", value).len() <= 24);
        }
    }
}

fn size(writes: impl IntoIterator<Item = (String, String, String)>) -> usize {
    let mut store = store(1);
    let mut transaction = store.begin(WALL).unwrap();
    for (table, row, cell) in writes {
        transaction.set_cell(&table, &row, &cell, 1).unwrap();
    }
    transaction.commit().unwrap().body.unwrap().len()
}

#[test]
fn a_name_that_comes_again_costs_one_byte() {
    let name = |letter: &str, number: usize| format!("a long name of a {letter} {number}");
    let cells = |tables: usize, rows: usize, cells: usize| {
        let path =
            move |n: usize| (name("table", n / cells / rows), name("row", n / cells % rows), name("cell", n % cells));
        size((0..tables * rows * cells).map(path))
    };
    // A cell more in each row: its name once, and then a number and a content.
    let (two, three) = (cells(1, 50, 2), cells(1, 50, 3));
    assert_eq!(three - two, name("cell", 2).len() + 50 * 2);
    // The same rows in another table: for each row a number and a head, for each cell a number and a content.
    let (one, both) = (cells(1, 10, 3), cells(2, 10, 3));
    assert_eq!(both - one, name("table", 1).len() + 2 + 10 * (2 + 3 * 2));
}

/// 100,000 rows of ten integers.
#[test]
fn a_large_table_is_small_and_comes_back() {
    const ROWS: i64 = 100_000;
    const CELLS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let write = |store: &mut Store, rows: std::ops::Range<i64>| {
        let mut transaction = store.begin(WALL).unwrap();
        for row in rows {
            let name = format!("row{row}");
            CELLS.iter().enumerate().for_each(|(index, cell)| {
                transaction.set_cell("table", &name, cell, row * 10 + index as i64).unwrap();
            });
        }
        transaction.commit().unwrap().body.unwrap()
    };
    let (mut bodies, mut kept) = (Vec::<Bytes>::new(), None);
    let info = allocation_counter::measure(|| {
        let mut store = store(1);
        (0..ROWS / 10).for_each(|n| drop(write(&mut store, n * 10..n * 10 + 10)));
        kept = Some(store);
    });
    let store = kept.unwrap();
    let per_cell = info.bytes_current as f64 / (ROWS * 10) as f64;
    assert!(per_cell <= 110.0, "{per_cell} bytes a cell");
    assert_eq!(store.table("table").unwrap().row_count(), ROWS as usize);
    let snapshot = store.snapshot();
    assert!(snapshot.len() < 9_000_000, "{}", snapshot.len());
    let loaded = Store::load(ClientId::new(2), &snapshot, WALL).unwrap();
    assert_eq!(loaded.content_hash(), store.content_hash());
    assert_eq!(loaded.cell("table", "row77777", "j"), Some(&Value::Int(777_779)));
    // One cell of it, changed by somebody else, and everything deleted: both are small.
    let mut other = loaded;
    bodies.push(set(&mut other, WALL + 1, "table", "row5", "e", 0));
    bodies.extend(commit(&mut other, WALL + 2, &[Write::Table("table")]));
    assert!(bodies.iter().all(|body| body.len() < 40), "{bodies:?}");
    let mut store = store;
    assert_eq!(store.apply(&bodies[0], WALL).unwrap().changes.cells.len(), 1);
    assert_eq!(store.apply(&bodies[1], WALL).unwrap().changes.cells.len(), (ROWS * 10) as usize);
    assert!(store.is_empty());
    assert_eq!(store.content_hash(), 0);
}
