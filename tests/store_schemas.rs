//! Schemas bind what is written here and are a lens on what is there; they change nothing that is stored.

mod stores;

use antiphon::store::{BadSchema, Cells, Json, Kind, Schema, Spec, Store, Unknown, Value, Why, WriteError};
use quickcheck::{Arbitrary, Gen, quickcheck};
use stores::{Group, Step, WALL, apply, commit, content, set, store};

fn pets() -> Schema {
    Schema::new()
        .table(
            "pets",
            Cells::new()
                .cell("species", Spec::new(Kind::String).required())
                .cell("legs", Spec::new(Kind::Int).or(4).one_of([2, 4]))
                .cell("weight", Spec::new(Kind::Number).nullable())
                .unknown(Unknown::Refuse),
        )
        .values(Cells::new().cell("open", Spec::new(Kind::Bool).or(false)))
}

fn with(schema: Schema) -> Store {
    let mut store = store(1);
    store.set_schema(Some(schema)).unwrap();
    store
}

fn why(error: Result<(), WriteError>) -> Why {
    match error {
        Err(WriteError::Schema { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut store = with(pets());
    let mut transaction = store.begin(WALL).unwrap();
    assert_eq!(why(transaction.set_cell("pets", "fido", "species", 1)), Why::Kind);
    assert_eq!(why(transaction.set_cell("pets", "fido", "species", Value::Null)), Why::Kind);
    assert_eq!(why(transaction.set_cell("pets", "fido", "legs", 3)), Why::NotAllowed);
    assert_eq!(why(transaction.set_cell("pets", "fido", "name", "fido")), Why::Unknown);
    assert_eq!(why(transaction.set_value("open", 1)), Why::Kind);
    transaction.set_cell("pets", "fido", "species", "dog").unwrap();
    transaction.set_cell("pets", "fido", "weight", 7.5).unwrap();
    transaction.set_cell("pets", "fido", "weight", Value::Null).unwrap();
    transaction.set_cell("other", "table", "is", "free").unwrap();
    transaction.set_value("other", 1).unwrap();
    assert!(transaction.commit().unwrap().body.is_some());
    store.set_schema(Some(pets().unknown_tables(Unknown::Refuse))).unwrap();
    let mut transaction = store.begin(WALL).unwrap();
    assert_eq!(why(transaction.set_cell("other", "table", "is", "refused")), Why::Unknown);
}

#[test]
fn every_kind_takes_its_own() {
    let json = |text| Value::Json(Json::parse(text).unwrap());
    let values = [Value::Bool(true), 1.into(), 1.5.into(), "x".into(), vec![1u8].into(), json("[]"), json("{}")];
    let kinds = [Kind::Bool, Kind::Int, Kind::Float, Kind::String, Kind::Bytes, Kind::Array, Kind::Object];
    for (index, kind) in kinds.into_iter().enumerate() {
        let mut store = with(Schema::new().values(Cells::new().cell("v", Spec::new(kind))));
        let mut transaction = store.begin(WALL).unwrap();
        for (other, value) in values.iter().enumerate() {
            assert_eq!(transaction.set_value("v", value.clone()).is_ok(), index == other, "{kind:?} {value:?}");
        }
    }
}

#[test]
fn a_required_cell_is_there_or_nothing_is() {
    let mut store = with(pets());
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("pets", "fido", "legs", 4).unwrap();
    assert_eq!(why(transaction.commit().map(drop)), Why::Missing);
    assert!(store.is_empty());
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("pets", "fido", "legs", 4).unwrap();
    transaction.set_cell("pets", "fido", "species", "dog").unwrap();
    let _ = transaction.commit().unwrap();
    let mut transaction = store.begin(WALL).unwrap();
    transaction.delete_cell("pets", "fido", "species").unwrap();
    assert_eq!(why(transaction.commit().map(drop)), Why::Missing);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.delete_row("pets", "fido").unwrap();
    assert!(transaction.commit().unwrap().body.is_some(), "a row may go as a whole");
}

/// What a peer without the schema writes is kept, and not seen until a schema takes it.
#[test]
fn what_comes_from_peers_and_does_not_fit_is_kept_and_not_seen() {
    let (mut free, mut bound) = (store(2), with(pets().unknown_tables(Unknown::Refuse)));
    let bodies = [
        set(&mut free, WALL, "pets", "fido", "legs", "four"),
        set(&mut free, WALL, "pets", "fido", "name", "fido"),
        set(&mut free, WALL, "pets", "fido", "weight", 3),
        set(&mut free, WALL, "strays", "x", "y", 1),
    ];
    apply(&mut bound, &bodies);
    assert_eq!(bound.content_hash(), free.content_hash());
    assert_eq!(bound.snapshot(), free.snapshot());
    assert_eq!(content(&bound), r#"{"tables":{"pets":{"fido":{"legs":4,"weight":3}}},"values":{"open":false}}"#);
    assert!(bound.table("strays").is_none());
    bound.set_schema(None).unwrap();
    assert_eq!(content(&bound), content(&free));
}

#[test]
fn tb_p_default_must_not_overwrite_set_cell() {
    let (mut writer, mut reader) = (store(2), with(pets()));
    assert_eq!(reader.cell("pets", "fido", "legs"), None, "there is no such row");
    apply(&mut reader, [&set(&mut writer, WALL, "pets", "fido", "species", "bird")]);
    assert_eq!(reader.cell("pets", "fido", "legs"), Some(&Value::Int(4)));
    apply(&mut reader, [&set(&mut writer, WALL, "pets", "fido", "legs", 2)]);
    assert_eq!(reader.cell("pets", "fido", "legs"), Some(&Value::Int(2)));
}

#[test]
fn tb_p_default_must_not_overwrite_set_value() {
    let (mut writer, mut reader) = (store(2), with(pets()));
    assert_eq!(reader.value("open"), Some(&Value::Bool(false)));
    let mut transaction = writer.begin(1).unwrap(); // however early
    transaction.set_value("open", true).unwrap();
    apply(&mut reader, [&transaction.commit().unwrap().body.unwrap()]);
    assert_eq!(reader.value("open"), Some(&Value::Bool(true)));
    assert_eq!(content(&reader), r#"{"tables":{},"values":{"open":true}}"#);
}

#[derive(Clone, Debug)]
struct AnySchema(Schema);

impl Arbitrary for AnySchema {
    fn arbitrary(g: &mut Gen) -> Self {
        let cells = |g: &mut Gen| {
            ["a", "b"].into_iter().fold(Cells::new(), |cells, name| {
                let kind = *g.choose(&[Kind::Any, Kind::Int, Kind::Number, Kind::Bool, Kind::Array]).unwrap();
                let spec = Spec::new(kind);
                let spec = if kind == Kind::Int { spec.or(i64::arbitrary(g)).required() } else { spec };
                cells.cell(name, if bool::arbitrary(g) { spec.nullable() } else { spec })
            })
        };
        let unknown = *g.choose(&[Unknown::Keep, Unknown::Refuse]).unwrap();
        let schema = Schema::new().table("a", cells(g).unknown(unknown)).values(cells(g));
        Self(schema.unknown_tables(*g.choose(&[Unknown::Keep, Unknown::Refuse]).unwrap()))
    }
}

quickcheck! {
    /// TB-N3: with other schemas and defaults all hold and hash the same.
    fn tb_n3_differing_defaults_converge(steps: Vec<Step>, schemas: (AnySchema, AnySchema)) -> bool {
        let bodies = Group::run(false, &steps).all();
        let mut stores = [store(5), with(schemas.0.0), with(schemas.1.0)];
        stores.iter_mut().for_each(|store| apply(store, &bodies));
        stores.iter().all(|store| {
            store.snapshot() == stores[0].snapshot() && store.content_hash() == stores[0].content_hash()
        })
    }

    /// Single reads and lists show the same.
    fn cells_one_by_one_are_as_in_the_list(steps: Vec<Step>, schema: AnySchema) -> bool {
        let mut store = with(schema.0);
        apply(&mut store, &Group::run(false, &steps).all());
        let rows: Vec<_> = store.tables().flat_map(|table| table.rows().map(move |row| (table.name(), row))).collect();
        rows.into_iter().all(|(table, row)| {
            let listed: Vec<_> = row.cells().collect();
            let names = ["a", "b", "long enough"];
            let single = names.iter().filter_map(|cell| Some((*cell, store.cell(table, row.name(), cell)?)));
            listed.is_sorted() && listed == single.collect::<Vec<_>>()
        })
    }
}

#[test]
fn a_schema_that_contradicts_itself_is_refused() {
    let bad = |spec: Spec| Schema::new().table("t", Cells::new().cell("c", spec));
    let mut store = with(pets());
    for spec in [
        Spec::new(Kind::Int).or("x"),
        Spec::new(Kind::Int).or(3).one_of([1, 2]),
        Spec::new(Kind::Int).one_of([Value::from("x")]),
        Spec::new(Kind::Float).or(f64::NAN),
    ] {
        assert_eq!(store.set_schema(Some(bad(spec))), Err(BadSchema { name: "c".into() }));
    }
    assert_eq!(store.value("open"), Some(&Value::Bool(false)), "the one before stays");
}

#[test]
fn defaults_are_not_written() {
    let mut bound = with(pets());
    let body = set(&mut bound, WALL, "pets", "fido", "species", "dog");
    let mut free = store(2);
    apply(&mut free, [&body]);
    assert_eq!(content(&free), r#"{"tables":{"pets":{"fido":{"species":"dog"}}},"values":{}}"#);
    assert_eq!(free.content_hash(), bound.content_hash());
    assert_eq!(commit(&mut bound, WALL, &[]), None);
}
