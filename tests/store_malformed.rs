//! Whatever a hostile replica writes: it is taken, or refused with nothing changed; and neither takes more than its length
//! allows.

mod stores;

use antiphon::store::{ClientId, JSON_DEPTH_MAX, Malformed, NAME_BYTES_MAX, Store, VALUE_BYTES_MAX};
use quickcheck::{Gen, QuickCheck, quickcheck};
use stores::{Group, Step, WALL, Write, commit, store};

/// Either it is taken, and then what the store holds can be written and read, or nothing has changed.
fn is_taken_or_refused(store: &mut Store, body: &[u8]) -> bool {
    let before = (store.snapshot(), store.content_hash());
    match store.apply(body, WALL) {
        Ok(_) => {
            let snapshot = store.snapshot();
            let loaded = Store::load(ClientId::new(1), &snapshot, WALL).unwrap();
            loaded.snapshot() == snapshot && loaded.content_hash() == store.content_hash()
        }
        Err(_) => before == (store.snapshot(), store.content_hash()),
    }
}

fn filled() -> Store {
    let mut store = store(7);
    let cell = |row, value: i64| Write::Cell("a", row, "b", Some(value.into()));
    commit(&mut store, WALL, &[cell("a", 1), cell("b", 2), Write::Value("a", Some(true.into()))]);
    store
}

quickcheck! {
    fn random_bytes(bytes: Vec<u8>) -> bool {
        let with_version = |flags: u8| [&[0x20 | flags][..], &bytes].concat();
        is_taken_or_refused(&mut filled(), &bytes)
            && (0..32).all(|flags| is_taken_or_refused(&mut filled(), &with_version(flags)))
    }
}

/// Bodies and snapshots in which some bytes are others.
fn mutated(steps: Vec<Step>, places: Vec<(usize, u8)>) -> bool {
    let group = Group::run(false, &steps);
    let snapshots = group.stores.iter().map(Store::snapshot);
    group.all().into_iter().chain(snapshots).all(|body| {
        let mut store = filled();
        let mut all = body.to_vec();
        for (place, byte) in &places {
            let place = place % all.len();
            all[place] = *byte;
            let mut one = body.to_vec();
            one[place] ^= 1 << (byte % 8);
            if !is_taken_or_refused(&mut store, &one) {
                return false;
            }
        }
        is_taken_or_refused(&mut store, &all)
    })
}

#[test]
fn mutated_bodies() {
    QuickCheck::new().rng(Gen::new(12)).tests(300).quickcheck(mutated as fn(Vec<Step>, Vec<(usize, u8)>) -> bool);
}

#[test]
fn prefixes_and_trailing_bytes_are_refused() {
    let writes = [
        Write::Value("v", Some("text".into())),
        Write::Cell("t", "r", "c", Some(1.5.into())),
        Write::Cell("t", "s", "c", Some((1i64 << 40).into())),
    ];
    let body = commit(&mut store(1), WALL, &writes).unwrap();
    for len in 0..body.len() {
        assert!(filled().apply(&body[..len], WALL).is_err(), "{len} of {}", body.len());
    }
    for byte in 0..=255 {
        assert_eq!(filled().apply(&[&body[..], &[byte]].concat(), WALL), Err(Malformed::Trailing), "{byte}");
    }
}

/// The first eleven bytes of a body with one stamp.
const HEAD: [u8; 11] = [0x30, 0x62, 0xf3, 0xf9, 0x5a, 0, 0, 0, 0, 1, 0];

fn refused(error: Malformed, first: u8, rest: &[u8]) {
    let mut body = HEAD.to_vec();
    body[0] = first;
    body.extend(rest);
    let mut store = filled();
    let before = store.snapshot();
    assert_eq!(store.apply(&body, WALL), Err(error), "{rest:02x?}");
    assert_eq!(store.snapshot(), before);
}

/// TB-H: a first part that is right is not taken either.
#[test]
fn tb_h_malformed_shapes_are_refused_whole() {
    let row = |rest: &[u8]| [&[2, b't', 4, 2, b'r'][..], rest].concat();
    let cell = |rest: &[u8]| row(&[&[2, 2, b'c'][..], rest].concat());
    assert!(filled().apply(&[&HEAD[..], &cell(&[1])].concat(), WALL).is_ok());
    refused(Malformed::Empty, 0x20, &[]);
    refused(Malformed::Empty, 0x30, &[2, b't', 0]);
    refused(Malformed::Empty, 0x30, &row(&[0]));
    refused(Malformed::Empty, 0x28, &[0]);
    refused(Malformed::Truncated, 0x30, &cell(&[]));
    refused(Malformed::Truncated, 0x30, &row(&[4, 2, b'c', 1]));
    refused(Malformed::Truncated, 0x30, &row(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 2, b'c', 1]));
    refused(Malformed::Truncated, 0x30, &cell(&[6, 5, b'x']));
    refused(Malformed::Truncated, 0x30, &cell(&[5, 0]));
    refused(Malformed::Truncated, 0x30, &[&[2, b't', 6][..], &cell(&[1])[3..]].concat());
    refused(Malformed::Trailing, 0x20, &cell(&[1]));
    refused(Malformed::Varint, 0x30, &[0x82, 0, b't']);
    refused(Malformed::Name, 0x30, &[3]);
    refused(Malformed::Name, 0x30, &[2, 0xff, 2]);
    refused(Malformed::Name, 0x30, &[&[0x82, 0x10][..], &[b'n'; NAME_BYTES_MAX + 1]].concat());
    refused(Malformed::Order, 0x30, &[&[2, b't', 6][..], &cell(&[1])[3..], &cell(&[1])].concat());
    refused(Malformed::Order, 0x30, &row(&[4, 2, b'd', 1, 2, b'c', 1]));
    refused(Malformed::Order, 0x30, &row(&[4, 2, b'c', 1, 5, 1]));
    refused(Malformed::Value, 0x30, &cell(&[9]));
    refused(Malformed::Value, 0x30, &cell(&[0x3f]));
    refused(Malformed::Value, 0x30, &cell(&[4, 2])); // 1 is small
    refused(Malformed::Value, 0x30, &cell(&[6, 1, 0xff]));
    refused(Malformed::Value, 0x30, &cell(&[&[5][..], &f64::NAN.to_bits().to_le_bytes()].concat()));
    refused(Malformed::Value, 0x30, &cell(&[&[5][..], &(-0.0f64).to_bits().to_le_bytes()].concat()));
    refused(Malformed::Value, 0x30, &cell(&[6, 0x81, 0x80, 0x40])); // a byte over VALUE_BYTES_MAX
    for text in
        ["[ ]", "{\"b\":1,\"a\":1}", "[1e2]", "[-0]", "1", "\"x\"", "[1", "{\"$bytes\":\"00\"}", "[\"\\u0041\"]"]
    {
        refused(Malformed::Value, 0x30, &cell(&[&[8, text.len() as u8][..], text.as_bytes()].concat()));
    }
    let deep = "[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1);
    refused(Malformed::Value, 0x30, &cell(&[&[8, 0x82, 1][..], deep.as_bytes()].concat()));
    for version in [0, 2, 7] {
        assert_eq!(store(1).apply(&[version << 5], WALL), Err(Malformed::Version));
    }
    assert_eq!(store(1).apply(&[0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], WALL), Err(Malformed::Stamp), "the zero stamp");
    let many = |stamps: &[u8]| store(1).apply(&[&[0x31], stamps, &cell(&[0, 1])].concat(), WALL).unwrap_err();
    assert_eq!(many(&[1, 5, 1, 9, 0, 0]), Malformed::Order, "one stamp has a form of its own");
    assert_eq!(many(&[2, 5, 5, 2, 9, 0, 0, 1, 0, 1]), Malformed::Order);
    assert_eq!(many(&[1, 5, 2, 9, 0, 0, 0, 0, 0]), Malformed::Order);
    assert_eq!(many(&[1, 5, 2, 9, 0, 0, 1, 0, 1]), Malformed::Stamp, "a client that is not listed");
    assert_eq!(many(&[1, 5, 2, 9, 0, 0, 1, 0x80, 0x80, 0x80, 8, 0]), Malformed::Stamp, "a counter over its bits");
    assert_eq!(many(&[0, 0]), Malformed::Stamp, "a stamp that is not listed");
    assert_eq!(many(&[0, 100]), Malformed::Truncated);
    const { assert!(VALUE_BYTES_MAX == 1 << 20) };
}

#[test]
fn hostile_bytes_allocate_in_proportion() {
    let mut bodies: Vec<Vec<u8>> = vec![
        // Counts of what is not there.
        [&HEAD[..], &[2, b't', 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
        [&[0x31][..], &[0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
        [&[0x31][..], &[0, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
        // As many tables, rows and cells as there can be, then nonsense.
        [
            &HEAD[..],
            &(0..2000u32).flat_map(|n| table(&[n >> 14, n >> 7, n].map(|byte| byte as u8 & 0x7f))).collect::<Vec<_>>(),
        ]
        .concat(),
        [&HEAD[..], &[2, b't', 4, 2, b'r', 2, 2, b'c', 8, 0x80, 0x20], &[b'['; 4096]].concat(),
    ];
    bodies[3].push(0xff);
    let flat = format!("[{}0]", "0,".repeat(1000));
    bodies.push([&HEAD[..], &[2, b't', 4, 2, b'r', 2, 2, b'c', 8, 0xd3, 0x0f], flat.as_bytes(), &[0xff]].concat());
    for body in bodies {
        let mut store = store(1);
        let info = allocation_counter::measure(|| assert!(store.apply(&body, WALL).is_err()));
        let bound = 128 * body.len() as u64 + 4096;
        assert!(info.bytes_max <= bound, "{} bytes for {} of a body", info.bytes_max, body.len());
        assert!(store.is_empty());
    }
}

fn table(name: &[u8; 3]) -> Vec<u8> {
    [&[6][..], name, &[6, 2, b'r', 2, 2, b'c', 1]].concat()
}
