//! TinyBase's cases of merging, by its names: P (what is there before two meet), B (two), M (ten), H (stores by themselves).
//! Where two "meet", each hears of all that the other did.

mod stores;

use antiphon::store::{Json, Store, Value};
use bytes::Bytes;
use stores::{WALL, Write, apply, commit, content, shuffled, store};

/// A store and what it wrote.
struct Peer {
    store: Store,
    bodies: Vec<Bytes>,
}

impl Peer {
    fn new(client: u32) -> Self {
        Self { store: store(client), bodies: Vec::new() }
    }

    fn write(&mut self, wall: u64, writes: &[Write]) {
        self.bodies.extend(commit(&mut self.store, wall, writes));
    }
}

fn cell(table: &'static str, row: &'static str, cell: &'static str, value: impl Into<Value>) -> Write {
    Write::Cell(table, row, cell, Some(value.into()))
}

fn value(name: &'static str, content: impl Into<Value>) -> Write {
    Write::Value(name, Some(content.into()))
}

/// All hear of everything, each in another order, and hold the same.
fn meet(peers: &mut [Peer]) {
    let all: Vec<_> = peers.iter().flat_map(|peer| peer.bodies.clone()).collect();
    for (index, peer) in peers.iter_mut().enumerate() {
        apply(&mut peer.store, &shuffled(&all, index as u64));
    }
    let (first, others) = peers.split_first().unwrap();
    for other in others {
        assert_eq!(content(&other.store), content(&first.store));
        assert_eq!(other.store.content_hash(), first.store.content_hash());
        assert_eq!(other.store.snapshot(), first.store.snapshot());
    }
}

/// Two that each write before they meet; what both then hold.
fn two(first: &[Write], second: &[Write]) -> String {
    two_at((WALL, first), (WALL, second))
}

fn two_at(first: (u64, &[Write]), second: (u64, &[Write])) -> String {
    let mut peers = [Peer::new(1), Peer::new(2)];
    peers[0].write(first.0, first.1);
    peers[1].write(second.0, second.1);
    meet(&mut peers);
    content(&peers[0].store)
}

/// Two that have met with these in common; the first one then deletes.
fn deleted(common: &[Write], deletion: Write) -> String {
    let mut peers = [Peer::new(1), Peer::new(2)];
    peers[0].write(WALL, common);
    meet(&mut peers);
    peers[0].write(WALL + 1, &[deletion]);
    meet(&mut peers);
    content(&peers[1].store)
}

fn tables(json: &str) -> String {
    format!(r#"{{"tables":{json},"values":{{}}}}"#)
}

fn values(json: &str) -> String {
    format!(r#"{{"tables":{{}},"values":{json}}}"#)
}

macro_rules! cases {
    ($($name:ident: $got:expr => $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!($got, $expected);
        })*
    };
}

fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

cases! {
    tb_p_conflict_at_the_same_instant: two(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 2)])
        => tables(r#"{"t":{"r":{"c":2}}}"#);
    tb_p_conflict_later: two_at((WALL + 1, &[cell("t", "r", "c", 1)]), (WALL, &[cell("t", "r", "c", 2)]))
        => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_p_different_cell: two(&[cell("t", "r", "c", 1)], &[cell("t", "r", "d", 2)])
        => tables(r#"{"t":{"r":{"c":1,"d":2}}}"#);
    tb_p_different_row: two(&[cell("t", "r", "c", 1)], &[cell("t", "s", "c", 2)])
        => tables(r#"{"t":{"r":{"c":1},"s":{"c":2}}}"#);
    tb_p_different_table: two(&[cell("t", "r", "c", 1)], &[cell("u", "r", "c", 2)])
        => tables(r#"{"t":{"r":{"c":1}},"u":{"r":{"c":2}}}"#);
    tb_p_object_and_array_cells: two(&[cell("t", "r", "c", json("{\"a\":[1]}"))], &[cell("t", "r", "d", json("[{}]"))])
        => tables(r#"{"t":{"r":{"c":{"a":[1]},"d":[{}]}}}"#);
    tb_p_reserved_ids: two(&[cell("__proto__", "constructor", "toString", 1)], &[value("__proto__", 2)])
        => r#"{"tables":{"__proto__":{"constructor":{"toString":1}}},"values":{"__proto__":2}}"#;

    tb_b_both_empty: two(&[], &[]) => tables("{}");
    tb_b_both_match: two(&[cell("t", "r", "c", 1), value("v", 1)], &[cell("t", "r", "c", 1), value("v", 1)])
        => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
    tb_b_both_match_at_different_times: two_at((WALL, &[cell("t", "r", "c", 1)]), (WALL + 9, &[cell("t", "r", "c", 1)]))
        => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_b_first_empty: two(&[], &[cell("t", "r", "c", 1)]) => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_b_second_empty: two(&[cell("t", "r", "c", 1)], &[]) => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_b_missing_tables_on_first: two(&[value("v", 1)], &[cell("t", "r", "c", 1), value("v", 1)])
        => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
    tb_b_missing_tables_on_second: two(&[cell("t", "r", "c", 1), value("v", 1)], &[value("v", 1)])
        => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
    tb_b_missing_table: two(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 1), cell("u", "r", "c", 1)])
        => tables(r#"{"t":{"r":{"c":1}},"u":{"r":{"c":1}}}"#);
    tb_b_missing_row: two(&[cell("t", "r", "c", 1), cell("t", "s", "c", 1)], &[cell("t", "r", "c", 1)])
        => tables(r#"{"t":{"r":{"c":1},"s":{"c":1}}}"#);
    tb_b_missing_cell: two(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 1), cell("t", "r", "d", 1)])
        => tables(r#"{"t":{"r":{"c":1,"d":1}}}"#);
    tb_b_missing_values: two(&[cell("t", "r", "c", 1), value("v", 1)], &[cell("t", "r", "c", 1)])
        => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
    tb_b_missing_value: two(&[value("v", 1)], &[value("v", 1), value("w", 2)]) => values(r#"{"v":1,"w":2}"#);
    tb_b_different_values: two(&[value("v", 1)], &[value("w", 2)]) => values(r#"{"v":1,"w":2}"#);
    tb_b_different_value: two(&[value("v", 1)], &[value("v", 2)]) => values(r#"{"v":2}"#);
    tb_b_deleted_cell: deleted(&[cell("t", "r", "c", 1), cell("t", "r", "d", 1)], Write::Cell("t", "r", "c", None))
        => tables(r#"{"t":{"r":{"d":1}}}"#);
    tb_b_deleted_row: deleted(&[cell("t", "r", "c", 1), cell("t", "s", "c", 1)], Write::Row("t", "r"))
        => tables(r#"{"t":{"s":{"c":1}}}"#);
    tb_b_deleted_table: deleted(&[cell("t", "r", "c", 1), cell("u", "r", "c", 1)], Write::Table("t"))
        => tables(r#"{"u":{"r":{"c":1}}}"#);
    tb_b_deleted_tables: deleted(&[cell("t", "r", "c", 1), value("v", 1)], Write::Tables) => values(r#"{"v":1}"#);
    tb_b_deleted_value: deleted(&[value("v", 1), value("w", 1)], Write::Value("v", None)) => values(r#"{"w":1}"#);
    tb_b_deleted_values: deleted(&[cell("t", "r", "c", 1), value("v", 1)], Write::Values)
        => tables(r#"{"t":{"r":{"c":1}}}"#);
}

/// Somebody in the middle corrects what arrives, and the correction goes back.
#[test]
fn tb_b_mutator_mutation() {
    let mut peers = [Peer::new(1), Peer::new(2)];
    peers[0].write(WALL, &[cell("t", "r", "c", -5)]);
    meet(&mut peers);
    peers[1].write(WALL, &[cell("t", "r", "c", 0)]);
    meet(&mut peers);
    assert_eq!(content(&peers[0].store), tables(r#"{"t":{"r":{"c":0}}}"#));
}

#[test]
fn tb_b_mutator_deletion() {
    for deletion in [Write::Cell("t", "r", "c", None), Write::Row("t", "r"), Write::Table("t"), Write::Tables] {
        let mut peers = [Peer::new(1), Peer::new(2)];
        peers[0].write(WALL, &[cell("t", "r", "c", -5)]);
        meet(&mut peers);
        peers[1].write(WALL, &[deletion]);
        meet(&mut peers);
        assert!(peers[0].store.is_empty());
    }
}

const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Ten that write what they write, and meet.
fn ten(writes: impl Fn(usize) -> Vec<Write>) -> String {
    let mut peers: Vec<_> = (0..10).map(Peer::new).collect();
    peers.iter_mut().enumerate().for_each(|(index, peer)| peer.write(WALL, &writes(index)));
    meet(&mut peers);
    content(&peers[0].store)
}

fn each(form: impl Fn(&str) -> String) -> String {
    format!("{{{}}}", NAMES.map(form).join(","))
}

cases! {
    tb_m_all_empty: ten(|_| vec![]) => tables("{}");
    tb_m_all_match: ten(|_| vec![cell("t", "r", "c", 1)]) => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_m_all_but_first_empty: ten(|n| if n == 0 { vec![cell("t", "r", "c", 1)] } else { vec![] })
        => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_m_all_but_last_empty: ten(|n| if n == 9 { vec![cell("t", "r", "c", 1)] } else { vec![] })
        => tables(r#"{"t":{"r":{"c":1}}}"#);
    tb_m_half_tables_half_values: ten(|n| vec![if n < 5 { cell("t", "r", NAMES[n], 1) } else { value(NAMES[n], 1) }])
        => r#"{"tables":{"t":{"r":{"0":1,"1":1,"2":1,"3":1,"4":1}}},"values":{"5":1,"6":1,"7":1,"8":1,"9":1}}"#;
    tb_m_different_tables: ten(|n| vec![cell(NAMES[n], "r", "c", 1)])
        => tables(&each(|name| format!(r#""{name}":{{"r":{{"c":1}}}}"#)));
    tb_m_different_rows: ten(|n| vec![cell("t", NAMES[n], "c", 1)])
        => tables(&format!(r#"{{"t":{}}}"#, each(|name| format!(r#""{name}":{{"c":1}}"#))));
    tb_m_different_cells: ten(|n| vec![cell("t", "r", NAMES[n], 1)])
        => tables(&format!(r#"{{"t":{{"r":{}}}}}"#, each(|name| format!(r#""{name}":1"#))));
    tb_m_different_values: ten(|n| vec![value(NAMES[n], 1)]) => values(&each(|name| format!(r#""{name}":1"#)));
    tb_m_conflicting_cells: ten(|n| vec![cell("t", "r", "c", n as i64)]) => tables(r#"{"t":{"r":{"c":9}}}"#);
    tb_m_conflicting_values: ten(|n| vec![value("v", n as i64)]) => values(r#"{"v":9}"#);
}

/// What ten do one after the other, sets and deletions, each after it heard of the one before.
fn ten_changes() -> Vec<Bytes> {
    let mut store = store(1);
    let changes = [
        cell("t", "r", "c", 1),
        cell("t", "r", "c", 2),
        cell("t", "r", "d", 3),
        cell("t", "s", "c", 4),
        value("v", 5),
        Write::Cell("t", "r", "c", None),
        cell("t", "r", "c", 6),
        Write::Row("t", "r"),
        value("v", 7),
        Write::Value("v", None),
    ];
    let bodies: Vec<_> =
        changes.iter().filter_map(|change| commit(&mut store, WALL, std::slice::from_ref(change))).collect();
    assert_eq!(bodies.len(), changes.len());
    bodies
}

fn permutations(bodies: &[Bytes]) -> Vec<Vec<Bytes>> {
    if bodies.is_empty() {
        return vec![Vec::new()];
    }
    let with = |index: usize| {
        let mut rest = bodies.to_vec();
        let first = rest.remove(index);
        permutations(&rest).into_iter().map(move |rest| [vec![first.clone()], rest].concat())
    };
    (0..bodies.len()).flat_map(with).collect()
}

/// All orders of some of them come to the same.
fn in_all_orders(bodies: &[Bytes]) {
    let mut expected = None;
    for order in permutations(bodies) {
        let mut reader = store(2);
        apply(&mut reader, &order);
        let got = (reader.snapshot(), reader.content_hash(), content(&reader));
        assert_eq!(*expected.get_or_insert_with(|| got.clone()), got);
    }
}

#[test]
fn tb_h_commutativity_all_orders_of_five_and_four() {
    let bodies = ten_changes();
    (0..=5).for_each(|first| in_all_orders(&bodies[first..first + 5]));
    (0..=6).for_each(|first| in_all_orders(&bodies[first..first + 4]));
}

#[test]
fn tb_h_idempotence_duplicates_and_reverse() {
    let bodies = ten_changes();
    let mut forward = store(2);
    apply(&mut forward, &bodies);
    let reverse: Vec<_> = bodies.iter().rev().cloned().collect();
    for order in [reverse.clone(), [&bodies[..], &bodies].concat(), [reverse.clone(), bodies.clone(), reverse].concat()]
    {
        let mut reader = store(3);
        apply(&mut reader, &order);
        assert_eq!(reader.snapshot(), forward.snapshot());
    }
    assert_eq!(content(&forward), tables(r#"{"t":{"s":{"c":4}}}"#));
}

/// TB-H: two that write in turn, and hear of each other in between, now and then.
#[test]
fn tb_h_interleaving() {
    let mut peers = [Peer::new(1), Peer::new(2)];
    for round in 0..20i64 {
        peers[0].write(WALL, &[cell("t", "r", "c", round)]);
        peers[1].write(WALL, &[cell("t", "r", "d", round), cell("t", "r", "c", -round - 1)]);
        if round % 3 == 0 {
            meet(&mut peers);
        }
    }
    meet(&mut peers);
    assert_eq!(peers[0].store.cell("t", "r", "d"), Some(&Value::Int(19)));
}

/// TB-N4: a cloned device writes with the same stamps.
#[test]
fn tb_n4_cloned_id_converges() {
    let mut peers = [Peer::new(1), Peer::new(1), Peer::new(1)];
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.write(WALL, &[cell("t", "r", "c", index as i64), value("v", index as i64)]);
        peer.write(WALL, &[cell("t", "r", NAMES[index], 1), Write::Value("v", None)]);
    }
    meet(&mut peers);
}

/// TB-U: nothing of a default is in what a store without data tells.
#[test]
fn tb_u_a_default_is_told_to_nobody() {
    use antiphon::store::{Cells, Kind, Schema, Spec};
    let mut first = Peer::new(1);
    first.store.set_schema(Some(Schema::new().values(Cells::new().cell("v", Spec::new(Kind::Int).or(1))))).unwrap();
    assert_eq!(first.store.value("v"), Some(&Value::Int(1)));
    assert_eq!(first.store.snapshot(), store(2).snapshot());
    first.write(WALL, &[cell("t", "r", "c", 1)]);
    let mut peers = [first, Peer::new(2)];
    peers[1].write(WALL, &[value("w", 2)]);
    let all: Vec<_> = peers.iter().flat_map(|peer| peer.bodies.clone()).collect();
    peers.iter_mut().for_each(|peer| apply(&mut peer.store, &all));
    assert_eq!(content(&peers[1].store), r#"{"tables":{"t":{"r":{"c":1}}},"values":{"w":2}}"#);
    assert_eq!(content(&peers[0].store), r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1,"w":2}}"#);
    assert_eq!(peers[0].store.content_hash(), peers[1].store.content_hash());
}
