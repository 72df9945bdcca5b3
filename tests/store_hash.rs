//! One hash over the content: equal if and only if that is, whenever and by whom it was written.

mod stores;

use antiphon::store::{ClientId, Store, Value};
use quickcheck::{Gen, QuickCheck, quickcheck};
use stores::{Group, Step, WALL, Write, apply, commit, content, set, store};
use xxhash_rust::xxh3::xxh3_128;

/// The hash as its documentation tells it, from what is read.
fn naive(store: &Store) -> u128 {
    let weight = |kind: u8, path: &[&str], value: &Value| {
        let mut bytes = vec![kind];
        for name in path {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        let (kind, content): (u8, Vec<u8>) = match value {
            Value::Null => (0, vec![]),
            Value::Bool(bit) => (1, vec![u8::from(*bit)]),
            Value::Int(int) => (2, int.to_le_bytes().into()),
            Value::Float(float) => (3, float.to_le_bytes().into()),
            Value::String(text) => (4, text.as_bytes().into()),
            Value::Bytes(bytes) => (5, bytes.to_vec()),
            Value::Json(json) => (6, json.as_str().into()),
        };
        xxh3_128(&[bytes, vec![kind], content].concat())
    };
    let mut hash = 0u128;
    for table in store.tables() {
        for row in table.rows() {
            for (cell, value) in row.cells() {
                hash = hash.wrapping_add(weight(1, &[table.name(), row.name(), cell], value));
            }
        }
    }
    store.values().fold(hash, |hash, (name, value)| hash.wrapping_add(weight(0, &[name], value)))
}

fn is_kept(clones: bool, steps: Vec<Step>) -> bool {
    let mut group = Group::new(clones);
    steps.iter().all(|step| {
        group.step(step);
        group.stores.iter().all(|store| store.content_hash() == naive(store))
    })
}

#[test]
fn the_hash_is_kept_as_the_content_changes() {
    QuickCheck::new().rng(Gen::new(40)).tests(300).quickcheck(is_kept as fn(bool, Vec<Step>) -> bool);
}

quickcheck! {
    /// Both ways, over all states that random histories come by.
    fn equal_content_has_equal_hashes_and_other_content_others(steps: Vec<Step>) -> bool {
        let mut group = Group::new(false);
        let mut seen: Vec<(String, u128)> = Vec::new();
        for step in &steps {
            group.step(step);
            seen.extend(group.stores.iter().map(|store| (content(store), store.content_hash())));
        }
        seen.iter().all(|(content, hash)| seen.iter().all(|(other, digest)| (content == other) == (hash == digest)))
    }

    /// The same content, written by somebody else, later and in one go.
    fn stamps_are_not_in_it(steps: Vec<Step>) -> bool {
        let mut first = store(9);
        apply(&mut first, &Group::run(false, &steps).all());
        let mut second = store(8);
        let mut transaction = second.begin(WALL * 2).unwrap();
        transaction.import(&first.to_json()).unwrap();
        let _ = transaction.commit().unwrap();
        second.content_hash() == first.content_hash()
    }
}

/// It stays the same: stores of other versions are compared by it.
#[test]
fn a_hash_that_was_seen_is_seen_again() {
    let mut store = store(1);
    assert_eq!(store.content_hash(), 0);
    set(&mut store, WALL, "t1", "r1", "c1", 1);
    assert_eq!(store.content_hash(), 24_642_750_280_375_146_818_386_851_788_671_025_773);
    commit(&mut store, WALL, &[Write::Tables]);
    assert_eq!(store.content_hash(), 0);
}

/// TB-N5: TinyBase's hash goes round with these. Here they are refused, and change nothing.
#[test]
fn tb_n5_an_empty_branch_leaves_the_hash() {
    let mut store = store(1);
    set(&mut store, WALL, "t1", "r1", "c1", 1);
    let (hash, snapshot) = (store.content_hash(), store.snapshot());
    let stamp = [0x62, 0xf3, 0xf9, 0x5a, 0, 0, 0, 0, 2, 0];
    for empty in [&[4, b't', b'1', 0][..], &[4, b't', b'1', 4, 4, b'r', b'1', 0]] {
        for _ in 0..3 {
            assert!(store.apply(&[&[0x30][..], &stamp, empty].concat(), WALL).is_err());
            assert_eq!((store.content_hash(), store.snapshot()), (hash, snapshot.clone()));
        }
    }
}

/// A deletion of what is not there is kept, and changes no hash.
#[test]
fn deletions_are_not_in_it() {
    let mut writer = store(1);
    let mut bodies = vec![set(&mut writer, WALL, "t", "r", "c", 1), set(&mut writer, WALL, "t", "q", "c", 1)];
    bodies.extend(commit(&mut writer, WALL, &[Write::Row("t", "r"), Write::Cell("t", "q", "c", None)]));
    let mut reader = Store::new(ClientId::new(2));
    apply(&mut reader, bodies.iter().rev());
    assert_eq!((reader.content_hash(), reader.is_empty()), (0, true));
    assert_eq!(reader.tables().count(), 0);
    assert_eq!(reader.snapshot(), writer.snapshot());
}
