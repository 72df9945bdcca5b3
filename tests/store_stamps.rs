//! Stamps are those of TinyBase; clocks go on, follow others, and are not dragged away.

mod stores;

use antiphon::op::ReplicaId;
use antiphon::store::{
    BadStamp, COUNTER_MAX, ClientId, Config, Exhausted, STAMP_CHARS, Stamp, Store, TIME_MAX, Value, WriteError,
};
use quickcheck::{Arbitrary, Gen, quickcheck};
use stores::{WALL, apply, commit, content, set, store};

#[derive(Clone, Debug)]
struct Any(Stamp);

impl Arbitrary for Any {
    fn arbitrary(g: &mut Gen) -> Self {
        let (time, counter) = (u64::arbitrary(g) % TIME_MAX, u32::arbitrary(g) % COUNTER_MAX);
        let time = *g.choose(&[0, 1, WALL, WALL + 1, TIME_MAX, time]).unwrap();
        let counter = *g.choose(&[0, 1, COUNTER_MAX, counter]).unwrap();
        Self(Stamp::new(time, counter, ClientId::new(u32::arbitrary(g))).unwrap())
    }
}

quickcheck! {
    fn text_is_lossless(stamp: Any) -> bool {
        let text = stamp.0.to_string();
        text.len() == STAMP_CHARS && text.parse() == Ok(stamp.0)
    }

    fn texts_sort_as_stamps_do(a: Any, b: Any) -> bool {
        a.0.cmp(&b.0) == a.0.to_string().cmp(&b.0.to_string())
    }

    fn stamps_sort_by_time_counter_and_client(a: Any, b: Any) -> bool {
        let parts = |stamp: Stamp| (stamp.time(), stamp.counter(), stamp.client());
        a.0.cmp(&b.0) == parts(a.0).cmp(&parts(b.0))
            && Stamp::new(a.0.time(), a.0.counter(), a.0.client()) == Some(a.0)
    }

    fn the_stamp_after_is_after(stamp: Any, client: u32) -> bool {
        match stamp.0.after(ClientId::new(client)) {
            Ok(after) => after > stamp.0 && after.client() == ClientId::new(client),
            Err(Exhausted) => (stamp.0.time(), stamp.0.counter()) == (TIME_MAX, COUNTER_MAX),
        }
    }

    fn other_texts_are_no_stamps(text: String) -> bool {
        let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        text.parse::<Stamp>().is_ok() == (text.len() == STAMP_CHARS && text.chars().all(letters))
    }
}

/// The low 30 bits of the FNV-1a hash, as TinyBase makes them of a store's id.
fn tinybase_client(id: &str) -> ClientId {
    ClientId::new(id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
}

#[test]
fn tb_h_hlc_vectors() {
    let vectors = [
        (1_704_067_200_000, None, "s1", "Nn1JUF-----7JQY8"),
        (1_704_067_200_000, Some("Nn1JUF-----7JQY8"), "s1", "Nn1JUF----07JQY8"),
        (1_704_067_201_000, Some("Nn1JUUc---04JQFF"), "s2", "Nn1JUUc---14JQFF"),
    ];
    for (time, before, id, text) in vectors {
        let client = tinybase_client(id);
        let stamp: Stamp = text.parse().unwrap();
        assert_eq!(stamp.to_string(), text);
        assert_eq!((stamp.time(), stamp.client()), (time, client));
        match before {
            None => assert_eq!(Stamp::new(time, 0, client), Some(stamp)),
            Some(before) => assert_eq!(before.parse::<Stamp>().unwrap().after(client), Ok(stamp)),
        }
    }
    assert_eq!(Stamp::MAX.to_string(), "z".repeat(16));
    assert_eq!(Stamp::ZERO.to_string(), "-".repeat(16));
    assert_eq!("Nn1JUF-----7JQY".parse::<Stamp>(), Err(BadStamp));
    assert_eq!("Nn1JUF-----7JQY+".parse::<Stamp>(), Err(BadStamp));
}

#[test]
fn tb_h_counter_carries_into_the_next_millisecond() {
    let client = ClientId::new(5);
    let last = Stamp::new(WALL, COUNTER_MAX, client).unwrap();
    assert_eq!(last.after(client), Ok(Stamp::new(WALL + 1, 0, client).unwrap()));
    assert_eq!(Stamp::new(WALL, COUNTER_MAX + 1, client), None);
    assert_eq!(Stamp::new(TIME_MAX + 1, 0, client), None);
}

#[test]
fn tb_h_exhaustion_is_an_error() {
    assert_eq!(Stamp::MAX.after(ClientId::new(1)), Err(Exhausted));
    assert!(store(1).begin(TIME_MAX + 1).is_err());
    let mut late = store(1);
    let body = set(&mut late, TIME_MAX, "t", "r", "c", 1);
    // The one stamp of that body, with the last counter: nothing comes after it.
    let counter = 10;
    assert_eq!(body[counter], 0);
    let mut last = body[..counter].to_vec();
    last.extend([0xff, 0xff, 0xff, 0x07]);
    last.extend(&body[counter + 1..]);
    let mut store = store(2);
    let applied = store.apply(&last, WALL).unwrap();
    assert_eq!(applied.ahead_ms, TIME_MAX - WALL);
    let hash = store.content_hash();
    let mut transaction = store.begin(WALL).unwrap();
    assert_eq!(transaction.set_cell("t", "r", "c", 2), Err(WriteError::Exhausted(Exhausted)));
    assert_eq!(transaction.delete_row("t", "r"), Err(WriteError::Exhausted(Exhausted)));
    assert_eq!(transaction.delete_table("t"), Err(WriteError::Exhausted(Exhausted)));
    transaction.set_cell("t", "r", "other", 2).unwrap();
    assert!(transaction.commit().unwrap().body.is_some());
    assert_ne!(store.content_hash(), hash);
}

#[test]
fn a_client_is_of_its_replica() {
    let client = |byte| ClientId::of(ReplicaId([byte; 16]));
    assert_eq!(client(1), client(1));
    assert_ne!(client(1), client(2));
    assert!(client(3) <= ClientId::MAX);
    // It stays the same: what is on disks depends on it.
    assert_eq!(client(0).get(), 122_849_640);
}

/// The stamp of a body with one.
fn stamp(body: &[u8]) -> Stamp {
    assert_eq!(body[0], 0x30);
    let bits = body[1..10].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    assert!(body[10] < 0x80);
    Stamp::new((bits >> 30) as u64, body[10].into(), ClientId::new(bits as u32)).unwrap()
}

#[test]
fn a_clock_goes_on_when_the_wall_clock_stands_or_goes_back() {
    let mut store = store(1);
    let stamps: Vec<_> = [WALL, WALL, WALL - 5000, WALL + 1, WALL]
        .into_iter()
        .enumerate()
        .map(|(value, wall)| stamp(&set(&mut store, wall, "t", "r", "c", value as i64)))
        .collect();
    let parts: Vec<_> = stamps.iter().map(|stamp| (stamp.time() - WALL, stamp.counter())).collect();
    assert_eq!(parts, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
}

#[test]
fn tb_h_causality_a_clock_is_after_what_it_heard() {
    let (mut ahead, mut behind) = (store(1), store(2));
    let heard = set(&mut ahead, WALL + 200_000, "t", "r", "c", 1);
    let applied = behind.apply(&heard, WALL).unwrap();
    assert_eq!(applied.ahead_ms, 200_000);
    let answer = set(&mut behind, WALL, "t", "r", "other", 2);
    assert!(stamp(&answer) > stamp(&heard));
}

/// Deleting what was written in the same transaction takes a second stamp.
#[test]
fn tb_h_causality_a_clock_is_after_what_was_written_here() {
    let mut store = store(1);
    set(&mut store, WALL - 1, "t", "r", "c", 0);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_cell("t", "r", "c", 1).unwrap();
    transaction.delete_row("t", "r").unwrap();
    let deleted = transaction.commit().unwrap().body.unwrap();
    let after = set(&mut store, WALL, "t", "other", "c", 2);
    // A store that hears both follows the later.
    let mut reader = stores::store(2);
    apply(&mut reader, [&deleted]);
    let heard = set(&mut reader, WALL, "t", "r", "c", 3);
    assert_eq!([stamp(&heard).counter(), stamp(&after).counter()], [2, 2]);
}

/// TB-N6: it is told, what was written is kept, and only what is written over gets such a stamp.
#[test]
fn tb_n6_a_skewed_clock_is_reported_and_not_followed() {
    const DAY: u64 = 86_400_000;
    let (mut skewed, mut right) = (store(9), store(1));
    let body = set(&mut skewed, WALL + DAY, "t", "r", "c", "future");
    let applied = right.apply(&body, WALL).unwrap();
    assert_eq!(applied.ahead_ms, DAY);
    assert_eq!(right.cell("t", "r", "c"), Some(&Value::from("future")), "it is kept");
    let elsewhere = set(&mut right, WALL, "t", "r", "other", 1);
    assert_eq!(stamp(&elsewhere).time(), WALL, "the clock did not run away");
    let mut transaction = right.begin(WALL).unwrap();
    transaction.set_cell("t", "r", "c", "now").unwrap();
    transaction.set_cell("t", "r", "third", 3).unwrap();
    let over = transaction.commit().unwrap().body.unwrap();
    assert_eq!(right.cell("t", "r", "c"), Some(&Value::from("now")), "who writes over it wins");
    apply(&mut skewed, [&elsewhere, &over]);
    assert_eq!(content(&skewed), content(&right), "and everywhere");
    let after = set(&mut right, WALL + 1, "t", "r", "fourth", 4);
    assert_eq!(stamp(&after).time(), WALL + 1);
    // Only what was written over has the late stamp: a third replica's later write of the other cell wins.
    let mut third = store(3);
    apply(&mut third, [&over]);
    apply(&mut right, [&set(&mut third, WALL + 10, "t", "r", "third", 30)]);
    assert_eq!(right.cell("t", "r", "third"), Some(&Value::Int(30)));
}

#[test]
fn deletions_win_over_late_stamps_too() {
    use stores::Write::{Cell, Row, Table, Tables, Value as One, Values};
    for deletion in [Cell("t", "r", "c", None), Row("t", "r"), Table("t"), Tables, One("v", None), Values] {
        let (mut skewed, mut right) = (store(9), store(1));
        let mut transaction = skewed.begin(WALL + 86_400_000).unwrap();
        transaction.set_cell("t", "r", "c", 1).unwrap();
        transaction.set_value("v", 1).unwrap();
        let body = transaction.commit().unwrap().body.unwrap();
        apply(&mut right, [&body]);
        let hash = right.content_hash();
        let deleted = commit(&mut right, WALL, std::slice::from_ref(&deletion)).unwrap();
        assert_ne!(right.content_hash(), hash, "{deletion:?}");
        apply(&mut skewed, [&deleted]);
        assert_eq!(skewed.snapshot(), right.snapshot(), "{deletion:?}");
        // And what was deleted can be written again.
        let again = commit(&mut right, WALL, &[Cell("t", "r", "c", Some(2.into())), One("v", Some(2.into()))]).unwrap();
        apply(&mut skewed, [&again]);
        assert_eq!(content(&right), r#"{"tables":{"t":{"r":{"c":2}}},"values":{"v":2}}"#, "{deletion:?}");
        assert_eq!(skewed.snapshot(), right.snapshot(), "{deletion:?}");
    }
}

#[test]
fn how_far_a_clock_follows_is_configured() {
    let body = set(&mut store(9), WALL + 1000, "t", "r", "c", 1);
    for (drift_max_ms, time) in [(999, WALL), (1000, WALL + 1000)] {
        let mut store = Store::with(Config { drift_max_ms }, ClientId::new(1));
        assert_eq!(store.apply(&body, WALL).unwrap().ahead_ms, 1000);
        assert_eq!(stamp(&set(&mut store, WALL, "t", "r", "d", 1)).time(), time);
    }
    assert_eq!(Config::default().drift_max_ms, 300_000);
}

#[test]
fn a_replica_that_renews_writes_as_another_client() {
    let mut store = store(1);
    set(&mut store, WALL, "t", "r", "c", 1);
    store.set_client(ClientId::new(2));
    assert_eq!(stamp(&set(&mut store, WALL, "t", "r", "c", 2)).client(), ClientId::new(2));
    assert_eq!(store.client(), ClientId::new(2));
}
