//! Any bytes as ops and snapshots of stores, and as what is written to them: what is refused changes nothing, nothing takes
//! more memory than its length allows, and all that have heard the same hold the same.

#![no_main]

use antiphon::store::{ClientId, Json, Store, Transaction, Value};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const WALL: u64 = 1_700_000_000_000;
/// What a byte of a body may take in memory while it is merged, and what may be taken besides.
const PER_BYTE: u64 = 256;
const CONSTANT: u64 = 8192;

const NAMES: [&str; 4] = ["a", "b", "c", "longer"];

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        0..128 => taken_or_refused(rest),
        _ => written(rest),
    }
});

/// The bytes as a body, by themselves and with a first byte that is right, to an empty store and to one that is not.
fn taken_or_refused(body: &[u8]) {
    let mut stores = [Store::new(ClientId::new(1)), Store::new(ClientId::new(1))];
    write(&mut stores[1], &[0, 0, 0, 0, 1, 7, 1, 2, 3, 0, 4, 1, 0, 0, 2, 3, 9, 5]);
    for store in &mut stores {
        let before = (store.snapshot(), store.content_hash());
        let mut applied = None;
        let info = allocation_counter::measure(|| applied = Some(store.apply(body, WALL)));
        let bound = PER_BYTE * (body.len() + before.0.len()) as u64 + CONSTANT;
        assert!(info.bytes_max <= bound, "{} bytes for a body of {}", info.bytes_max, body.len());
        match applied.expect("it was applied") {
            Err(_) => assert!(before == (store.snapshot(), store.content_hash()), "what is refused changes nothing"),
            Ok(_) => {
                let again = store.apply(body, WALL).expect("it was taken");
                assert!(again.changes.is_empty(), "twice is once");
                round_trip(store);
            }
        }
    }
}

fn round_trip(store: &Store) {
    let snapshot = store.snapshot();
    let loaded = Store::load(ClientId::new(2), &snapshot, WALL).expect("it was written here");
    assert!(loaded.snapshot() == snapshot && loaded.content_hash() == store.content_hash());
    let mut imported = Store::new(ClientId::new(3));
    let mut transaction = imported.begin(WALL).expect("the time is right");
    transaction.import(&store.to_json()).expect("it was told here");
    let _ = transaction.commit().expect("it fits");
    assert_eq!(imported.content_hash(), store.content_hash());
}

/// Three stores, of which two are clones, that write, hear, fold and sweep as the bytes say.
fn written(bytes: &[u8]) {
    let mut stores = [1, 1, 2].map(|client| Store::new(ClientId::new(client)));
    let mut bodies: Vec<Bytes> = Vec::new();
    for step in bytes.chunks(12) {
        let store = &mut stores[usize::from(step[0] % 3)];
        match step[0] / 3 % 8 {
            0 => bodies.iter().for_each(|body| drop(store.apply(body, WALL).expect("it was written here"))),
            1 => bodies.extend(store.sweep(WALL + u64::from(step[0])).expect("the time is right").body),
            2 => {
                let mut folded = store.clone();
                bodies.iter().for_each(|body| drop(folded.apply(body, WALL).expect("it was written here")));
                bodies.push(folded.snapshot());
            }
            _ => bodies.extend(write(store, &step[1..])),
        }
        round_trip(store);
    }
    for (index, store) in stores.iter_mut().enumerate() {
        let turn = index * bodies.len() / 3;
        let order = bodies[turn..].iter().chain(&bodies[..turn]);
        order.for_each(|body| drop(store.apply(body, WALL).expect("it was written here")));
    }
    assert!(stores.iter().all(|store| store.snapshot() == stores[0].snapshot()), "they have heard the same");
    assert!(stores.iter().all(|store| store.content_hash() == stores[0].content_hash()));
}

/// One transaction: of the first byte the time, and whether it is dropped; then five bytes a change.
fn write(store: &mut Store, bytes: &[u8]) -> Option<Bytes> {
    let (first, changes) = bytes.split_first()?;
    let before = (store.snapshot(), store.content_hash());
    let wall = if first & 2 == 0 { WALL } else { WALL + 100_000_000 } + u64::from(first >> 4);
    let mut transaction = store.begin(wall).expect("the time is right");
    changes.chunks_exact(5).for_each(|change| self::change(&mut transaction, change));
    if first & 1 == 1 {
        drop(transaction);
        assert!(before == (store.snapshot(), store.content_hash()), "it was taken back");
        return None;
    }
    transaction.commit().expect("it fits").body
}

fn change(transaction: &mut Transaction<'_>, bytes: &[u8]) {
    let name = |index: usize| NAMES[usize::from(bytes[index] % 4)];
    let (table, row, cell) = (name(1), name(2), name(3));
    let value = match bytes[4] % 8 {
        0 => Value::Null,
        1 => Value::Bool(bytes[4] > 99),
        2 => Value::Float(f64::from(bytes[4]) / 7.0),
        3 => Value::from(NAMES[usize::from(bytes[4] / 8 % 4)]),
        4 => Value::from(bytes),
        5 => Value::Json(Json::parse(&format!("[{}]", bytes[4])).expect("it is an array")),
        _ => Value::Int(i64::from(bytes[4]) - 60),
    };
    let done = match bytes[0] % 12 {
        0..5 => transaction.set_cell(table, row, cell, value),
        5 => transaction.delete_cell(table, row, cell),
        6 => transaction.set_value(cell, value),
        7 => transaction.delete_value(cell),
        8 => transaction.delete_row(table, row),
        9 => transaction.delete_table(table),
        10 => transaction.delete_tables(),
        _ => transaction.delete_values(),
    };
    done.expect("it fits");
}
