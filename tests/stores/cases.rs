//! TinyBase's cases of merging, by its names: P (what is there before two meet), B (two), M (ten), H (in turn), U (one way),
//! N (what its synchronizers can't). They are a table: who brings a [`Meeting`] runs it over whatever that is.
//!
//! Tests of drivers take this file by its path: it needs nothing but the store.

#![allow(dead_code, unreachable_pub, unused_imports, unused_macros)] // each who takes it uses some of it

use antiphon::store::{Cells, Direction, Json, Kind, Schema, Spec, Store, Transaction, Value, WriteError};

/// When tests happen, in milliseconds since 1970.
pub const WALL: u64 = 1_700_000_000_000;

/// All that a store tells of its content.
pub fn content(store: &Store) -> String {
    store.to_json().to_string()
}

/// One write.
#[derive(Clone, Debug)]
pub enum Write {
    Cell(&'static str, &'static str, &'static str, Option<Value>),
    Row(&'static str, &'static str),
    Table(&'static str),
    Tables,
    Value(&'static str, Option<Value>),
    Values,
}

impl Write {
    pub fn on(&self, transaction: &mut Transaction<'_>) -> Result<(), WriteError> {
        match self {
            Self::Cell(table, row, cell, Some(value)) => transaction.set_cell(table, row, cell, value.clone()),
            Self::Cell(table, row, cell, None) => transaction.delete_cell(table, row, cell),
            Self::Row(table, row) => transaction.delete_row(table, row),
            Self::Table(table) => transaction.delete_table(table),
            Self::Tables => transaction.delete_tables(),
            Self::Value(value, Some(content)) => transaction.set_value(value, content.clone()),
            Self::Value(value, None) => transaction.delete_value(value),
            Self::Values => transaction.delete_values(),
        }
    }
}

pub fn cell(table: &'static str, row: &'static str, cell: &'static str, value: impl Into<Value>) -> Write {
    Write::Cell(table, row, cell, Some(value.into()))
}

pub fn value(name: &'static str, content: impl Into<Value>) -> Write {
    Write::Value(name, Some(content.into()))
}

pub fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

// ------------------------------------------------------------------------------------------------ who meets

/// Stores, and a way from each to each.
pub trait Meeting {
    /// So many stores that hold nothing. Of what two write at the same instant, that of the later one of them holds.
    fn of(stores: usize) -> Self;

    /// One does a transaction at `wall`.
    fn write(&mut self, store: usize, wall: u64, writes: &[Write]);

    /// Everyone hears of all that the others did.
    fn meet(&mut self);

    fn look<T>(&self, store: usize, look: impl FnOnce(&Store) -> T) -> T;

    fn len(&self) -> usize;

    fn content(&self, store: usize) -> String {
        self.look(store, content)
    }

    /// They have met, and hold the same to the last byte.
    fn agree(&mut self) {
        self.meet();
        let all = |store| self.look(store, |store| (content(store), store.content_hash(), store.snapshot()));
        let first = all(0);
        (1..self.len()).for_each(|store| assert_eq!(all(store), first, "store {store}, and the first one"));
    }
}

/// The same with documents between the stores, and links that can be gone.
pub trait Linked: Meeting {
    /// From now on things go this way only between a store and its document.
    fn attach(&mut self, store: usize, direction: Direction);

    fn set_schema(&mut self, store: usize, schema: Schema);

    /// All links are gone.
    fn part(&mut self);

    /// They are there again.
    fn join(&mut self);
}

/// Two that each write before they meet; what both then hold.
pub fn two<M: Meeting>(first: &[Write], second: &[Write]) -> String {
    two_at::<M>((WALL, first), (WALL, second))
}

pub fn two_at<M: Meeting>(first: (u64, &[Write]), second: (u64, &[Write])) -> String {
    let mut both = M::of(2);
    both.write(0, first.0, first.1);
    both.write(1, second.0, second.1);
    both.agree();
    both.content(0)
}

/// Two that have met with these in common; the first one then deletes.
pub fn deleted<M: Meeting>(common: &[Write], deletion: Write) -> String {
    let mut both = M::of(2);
    both.write(0, WALL, common);
    both.agree();
    both.write(0, WALL + 1, &[deletion]);
    both.agree();
    both.content(1)
}

/// Somebody corrects what arrives, and the correction goes back.
pub fn corrected<M: Meeting>(correction: Write) -> String {
    let mut both = M::of(2);
    both.write(0, WALL, &[cell("t", "r", "c", -5)]);
    both.agree();
    both.write(1, WALL, &[correction]);
    both.agree();
    both.content(0)
}

pub const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Ten that write what they write, and meet.
pub fn ten<M: Meeting>(writes: impl Fn(usize) -> Vec<Write>) -> String {
    let mut all = M::of(10);
    (0..10).for_each(|store| all.write(store, WALL, &writes(store)));
    all.agree();
    all.content(0)
}

/// Two that write in turn, and hear of each other in between, now and then.
pub fn in_turn<M: Meeting>() -> String {
    let mut both = M::of(2);
    for round in 0..20i64 {
        both.write(0, WALL, &[cell("t", "r", "c", round)]);
        both.write(1, WALL, &[cell("t", "r", "d", round), cell("t", "r", "c", -round - 1)]);
        if round % 3 == 0 {
            both.agree();
        }
    }
    both.agree();
    both.look(0, |store| store.cell("t", "r", "d").cloned()).map(|value| format!("{value:?}")).unwrap_or_default()
}

/// One that goes one way and one that goes both: what each holds when they have met, and when both go both ways.
pub fn one_way<L: Linked>(direction: Direction) -> [String; 3] {
    let mut both = L::of(2);
    both.attach(0, direction);
    both.write(0, WALL, &[value("mine", 1)]);
    both.write(1, WALL + 1, &[value("theirs", 2)]);
    both.meet();
    let apart = [0, 1].map(|store| both.content(store));
    both.attach(0, Direction::Both);
    both.agree();
    let [mine, theirs] = apart;
    [mine, theirs, both.content(0)]
}

/// One that has a default, and loads from one that saves nothing; what it shows before that has written, and after.
pub fn load_with_default<L: Linked>() -> [String; 3] {
    let mut both = L::of(2);
    both.set_schema(0, Schema::new().values(Cells::new().cell("v", Spec::new(Kind::Int).or(1))));
    both.attach(0, Direction::Load);
    both.attach(1, Direction::Load);
    both.write(1, WALL, &[value("v", 2)]);
    both.meet();
    let before = both.content(0);
    both.attach(1, Direction::Both);
    both.meet();
    [before, both.content(0), both.content(1)]
}

/// Two that have met part, one writes, and both are joined again.
pub fn apart<L: Linked>(writer: usize) -> [String; 2] {
    let mut both = L::of(2);
    both.write(0, WALL, &[cell("t", "r", "c", 1)]);
    both.agree();
    both.part();
    both.write(writer, WALL + 1, &[cell("t", "r", "c", 2), value("v", 3)]);
    let other = both.content(1 - writer);
    both.join();
    both.agree();
    [other, both.content(1 - writer)]
}

pub fn tables(json: &str) -> String {
    format!(r#"{{"tables":{json},"values":{{}}}}"#)
}

pub fn values(json: &str) -> String {
    format!(r#"{{"tables":{{}},"values":{json}}}"#)
}

pub fn each(form: impl Fn(&str) -> String) -> String {
    format!("{{{}}}", NAMES.map(form).join(","))
}

// ------------------------------------------------------------------------------------------------ the table

macro_rules! cases {
    ($($name:ident: $got:expr => $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!($got, $expected);
        })*
    };
}
pub(crate) use cases;

/// The cases over a [`Meeting`].
macro_rules! tinybase_cases {
    ($meeting:ty) => {
        type Meets = $meeting;

        cases! {
            tb_p_conflict_at_the_same_instant: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 2)])
                => tables(r#"{"t":{"r":{"c":2}}}"#);
            tb_p_conflict_later: two_at::<Meets>((WALL + 1, &[cell("t", "r", "c", 1)]), (WALL, &[cell("t", "r", "c", 2)]))
                => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_p_different_cell: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("t", "r", "d", 2)])
                => tables(r#"{"t":{"r":{"c":1,"d":2}}}"#);
            tb_p_different_row: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("t", "s", "c", 2)])
                => tables(r#"{"t":{"r":{"c":1},"s":{"c":2}}}"#);
            tb_p_different_table: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("u", "r", "c", 2)])
                => tables(r#"{"t":{"r":{"c":1}},"u":{"r":{"c":2}}}"#);
            tb_p_object_and_array_cells: two::<Meets>(&[cell("t", "r", "c", json("{\"a\":[1]}"))], &[cell("t", "r", "d", json("[{}]"))])
                => tables(r#"{"t":{"r":{"c":{"a":[1]},"d":[{}]}}}"#);
            tb_p_reserved_ids: two::<Meets>(&[cell("__proto__", "constructor", "toString", 1)], &[value("__proto__", 2)])
                => r#"{"tables":{"__proto__":{"constructor":{"toString":1}}},"values":{"__proto__":2}}"#;

            tb_b_both_empty: two::<Meets>(&[], &[]) => tables("{}");
            tb_b_both_match: two::<Meets>(&[cell("t", "r", "c", 1), value("v", 1)], &[cell("t", "r", "c", 1), value("v", 1)])
                => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
            tb_b_both_match_at_different_times: two_at::<Meets>((WALL, &[cell("t", "r", "c", 1)]), (WALL + 9, &[cell("t", "r", "c", 1)]))
                => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_b_first_empty: two::<Meets>(&[], &[cell("t", "r", "c", 1)]) => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_b_second_empty: two::<Meets>(&[cell("t", "r", "c", 1)], &[]) => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_b_missing_tables_on_first: two::<Meets>(&[value("v", 1)], &[cell("t", "r", "c", 1), value("v", 1)])
                => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
            tb_b_missing_tables_on_second: two::<Meets>(&[cell("t", "r", "c", 1), value("v", 1)], &[value("v", 1)])
                => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
            tb_b_missing_table: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 1), cell("u", "r", "c", 1)])
                => tables(r#"{"t":{"r":{"c":1}},"u":{"r":{"c":1}}}"#);
            tb_b_missing_row: two::<Meets>(&[cell("t", "r", "c", 1), cell("t", "s", "c", 1)], &[cell("t", "r", "c", 1)])
                => tables(r#"{"t":{"r":{"c":1},"s":{"c":1}}}"#);
            tb_b_missing_cell: two::<Meets>(&[cell("t", "r", "c", 1)], &[cell("t", "r", "c", 1), cell("t", "r", "d", 1)])
                => tables(r#"{"t":{"r":{"c":1,"d":1}}}"#);
            tb_b_missing_values: two::<Meets>(&[cell("t", "r", "c", 1), value("v", 1)], &[cell("t", "r", "c", 1)])
                => r#"{"tables":{"t":{"r":{"c":1}}},"values":{"v":1}}"#;
            tb_b_missing_value: two::<Meets>(&[value("v", 1)], &[value("v", 1), value("w", 2)]) => values(r#"{"v":1,"w":2}"#);
            tb_b_different_values: two::<Meets>(&[value("v", 1)], &[value("w", 2)]) => values(r#"{"v":1,"w":2}"#);
            tb_b_different_value: two::<Meets>(&[value("v", 1)], &[value("v", 2)]) => values(r#"{"v":2}"#);
            tb_b_deleted_cell: deleted::<Meets>(&[cell("t", "r", "c", 1), cell("t", "r", "d", 1)], Write::Cell("t", "r", "c", None))
                => tables(r#"{"t":{"r":{"d":1}}}"#);
            tb_b_deleted_row: deleted::<Meets>(&[cell("t", "r", "c", 1), cell("t", "s", "c", 1)], Write::Row("t", "r"))
                => tables(r#"{"t":{"s":{"c":1}}}"#);
            tb_b_deleted_table: deleted::<Meets>(&[cell("t", "r", "c", 1), cell("u", "r", "c", 1)], Write::Table("t"))
                => tables(r#"{"u":{"r":{"c":1}}}"#);
            tb_b_deleted_tables: deleted::<Meets>(&[cell("t", "r", "c", 1), value("v", 1)], Write::Tables) => values(r#"{"v":1}"#);
            tb_b_deleted_value: deleted::<Meets>(&[value("v", 1), value("w", 1)], Write::Value("v", None)) => values(r#"{"w":1}"#);
            tb_b_deleted_values: deleted::<Meets>(&[cell("t", "r", "c", 1), value("v", 1)], Write::Values)
                => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_b_mutator_mutation: corrected::<Meets>(cell("t", "r", "c", 0)) => tables(r#"{"t":{"r":{"c":0}}}"#);
            tb_b_mutator_deletion: [Write::Cell("t", "r", "c", None), Write::Row("t", "r"), Write::Table("t"), Write::Tables]
                .map(corrected::<Meets>) => [(); 4].map(|()| tables("{}"));

            tb_m_all_empty: ten::<Meets>(|_| vec![]) => tables("{}");
            tb_m_all_match: ten::<Meets>(|_| vec![cell("t", "r", "c", 1)]) => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_m_all_but_first_empty: ten::<Meets>(|n| if n == 0 { vec![cell("t", "r", "c", 1)] } else { vec![] })
                => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_m_all_but_last_empty: ten::<Meets>(|n| if n == 9 { vec![cell("t", "r", "c", 1)] } else { vec![] })
                => tables(r#"{"t":{"r":{"c":1}}}"#);
            tb_m_half_tables_half_values: ten::<Meets>(|n| vec![if n < 5 { cell("t", "r", NAMES[n], 1) } else { value(NAMES[n], 1) }])
                => r#"{"tables":{"t":{"r":{"0":1,"1":1,"2":1,"3":1,"4":1}}},"values":{"5":1,"6":1,"7":1,"8":1,"9":1}}"#;
            tb_m_different_tables: ten::<Meets>(|n| vec![cell(NAMES[n], "r", "c", 1)])
                => tables(&each(|name| format!(r#""{name}":{{"r":{{"c":1}}}}"#)));
            tb_m_different_rows: ten::<Meets>(|n| vec![cell("t", NAMES[n], "c", 1)])
                => tables(&format!(r#"{{"t":{}}}"#, each(|name| format!(r#""{name}":{{"c":1}}"#))));
            tb_m_different_cells: ten::<Meets>(|n| vec![cell("t", "r", NAMES[n], 1)])
                => tables(&format!(r#"{{"t":{{"r":{}}}}}"#, each(|name| format!(r#""{name}":1"#))));
            tb_m_different_values: ten::<Meets>(|n| vec![value(NAMES[n], 1)]) => values(&each(|name| format!(r#""{name}":1"#)));
            tb_m_conflicting_cells: ten::<Meets>(|n| vec![cell("t", "r", "c", n as i64)]) => tables(r#"{"t":{"r":{"c":9}}}"#);
            tb_m_conflicting_values: ten::<Meets>(|n| vec![value("v", n as i64)]) => values(r#"{"v":9}"#);
            tb_h_interleaving: in_turn::<Meets>() => "Int(19)";
        }
    };
}
pub(crate) use tinybase_cases;

/// The cases over [`Linked`] stores.
macro_rules! tinybase_cases_of_links {
    ($linked:ty) => {
        cases! {
            tb_u1_save_without_load: one_way::<$linked>(Direction::Save) => [
                values(r#"{"mine":1}"#), values(r#"{"mine":1,"theirs":2}"#), values(r#"{"mine":1,"theirs":2}"#)];
            tb_u2_load_without_save: one_way::<$linked>(Direction::Load) => [
                values(r#"{"mine":1,"theirs":2}"#), values(r#"{"theirs":2}"#), values(r#"{"mine":1,"theirs":2}"#)];
            tb_u3_load_with_defaults_from_one_that_saves_nothing: load_with_default::<$linked>() => [
                values(r#"{"v":1}"#), values(r#"{"v":2}"#), values(r#"{"v":2}"#)];
            tb_n2_reconnect_with_remote_only_changes: [0, 1].map(apart::<$linked>) => [(); 2].map(|()| [
                tables(r#"{"t":{"r":{"c":1}}}"#), r#"{"tables":{"t":{"r":{"c":2}}},"values":{"v":3}}"#.to_owned()]);
        }
    };
}
pub(crate) use tinybase_cases_of_links;
