//! TinyBase's [cases](stores::cases) of merging, with bodies that go from store to store; and those of stores by themselves.

mod stores;

use antiphon::store::{Store, Value};
use bytes::Bytes;
use stores::cases::*;
use stores::{apply, commit, shuffled, store};

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

/// All hear of everything, each in another order.
struct Direct(Vec<Peer>);

impl Meeting for Direct {
    fn of(stores: usize) -> Self {
        Self((1..=stores as u32).map(Peer::new).collect())
    }

    fn write(&mut self, store: usize, wall: u64, writes: &[Write]) {
        self.0[store].write(wall, writes);
    }

    fn meet(&mut self) {
        let all: Vec<_> = self.0.iter().flat_map(|peer| peer.bodies.clone()).collect();
        for (index, peer) in self.0.iter_mut().enumerate() {
            apply(&mut peer.store, &shuffled(&all, index as u64));
        }
    }

    fn look<T>(&self, store: usize, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.0[store].store)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

tinybase_cases!(Direct);

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

/// TB-N4: a cloned device writes with the same stamps.
#[test]
fn tb_n4_cloned_id_converges() {
    let mut clones = Direct((0..3).map(|_| Peer::new(1)).collect());
    for (index, peer) in clones.0.iter_mut().enumerate() {
        peer.write(WALL, &[cell("t", "r", "c", index as i64), value("v", index as i64)]);
        peer.write(WALL, &[cell("t", "r", NAMES[index], 1), Write::Value("v", None)]);
    }
    clones.agree();
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
