//! Random transactions of random replicas, for the tests of stores.

#![allow(dead_code, unreachable_pub, unused_imports)] // each topic is a crate of its own and uses some of it

pub mod cases;

use antiphon::store::{ClientId, Json, Store, Value};
use bytes::Bytes;
pub use cases::{WALL, Write, content};
use quickcheck::{Arbitrary, Gen};

/// How many replicas write.
pub const REPLICAS: usize = 3;

const NAMES: [&str; 3] = ["a", "b", "long enough"];

pub fn store(client: u32) -> Store {
    Store::new(ClientId::new(client))
}

/// Does one transaction, and returns its body.
pub fn commit(store: &mut Store, wall: u64, writes: &[Write]) -> Option<Bytes> {
    let mut transaction = store.begin(wall).unwrap();
    writes.iter().for_each(|write| write.on(&mut transaction).unwrap());
    transaction.commit().unwrap().body
}

/// Sets one cell, and returns the body.
pub fn set(store: &mut Store, wall: u64, table: &str, row: &str, cell: &str, value: impl Into<Value>) -> Bytes {
    let mut transaction = store.begin(wall).unwrap();
    transaction.set_cell(table, row, cell, value).unwrap();
    transaction.commit().unwrap().body.expect("something changed")
}

/// Applies bodies, all of which are well formed.
pub fn apply<'a>(store: &mut Store, bodies: impl IntoIterator<Item = &'a Bytes>) {
    bodies.into_iter().for_each(|body| drop(store.apply(body, WALL).unwrap()));
}

pub fn value(g: &mut Gen) -> Value {
    match u8::arbitrary(g) % 12 {
        0 => Value::Null,
        1 => Value::Bool(bool::arbitrary(g)),
        2 => Value::Int(i64::arbitrary(g)),
        3 => Value::Float(*g.choose(&[0.5, -1.0e300, 1.0e-7, 3.0, f64::MAX]).unwrap()),
        4 => Value::from(&*String::arbitrary(g)),
        5 => Value::Bytes(Vec::<u8>::arbitrary(g).into()),
        6 => Value::Json(Json::parse(g.choose(&["[]", "[1,[2.5]]", r#"{"b":null,"a":"x"}"#]).unwrap()).unwrap()),
        small => Value::Int(i64::from(small) % 4),
    }
}

/// Names and contents are few, so that they meet.
impl Arbitrary for Write {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut name = || *g.choose(&NAMES).unwrap();
        let (table, row, cell) = (name(), name(), name());
        let value = (u8::arbitrary(g) % 4 > 0).then(|| value(g));
        match u8::arbitrary(g) % 32 {
            0..20 => Self::Cell(table, row, cell, value),
            20..26 => Self::Value(cell, value),
            26..29 => Self::Row(table, row),
            29 => Self::Table(table),
            30 => Self::Tables,
            _ => Self::Values,
        }
    }
}

/// One thing that happens to a group of replicas.
#[derive(Clone, Debug)]
pub enum Step {
    /// A replica does a transaction, so many milliseconds after the last.
    Commit { replica: usize, wait: u64, writes: Vec<Write> },
    /// A replica hears of all that was committed by another.
    Hear { replica: usize, of: usize },
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let replica = usize::arbitrary(g) % REPLICAS;
        if u8::arbitrary(g) % 4 == 0 {
            return Self::Hear { replica, of: usize::arbitrary(g) % REPLICAS };
        }
        let writes = (0..=usize::arbitrary(g) % 4).map(|_| Write::arbitrary(g)).collect();
        Self::Commit { replica, wait: u64::arbitrary(g) % 3, writes }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match self.clone() {
            Self::Commit { replica, wait, writes } => {
                Box::new(writes.shrink().map(move |writes| Self::Commit { replica, wait, writes }))
            }
            Self::Hear { .. } => quickcheck::empty_shrinker(),
        }
    }
}

/// A few replicas, of which the clocks are apart, and what each of them wrote.
pub struct Group {
    pub stores: Vec<Store>,
    pub bodies: Vec<Vec<Bytes>>,
    heard: [[usize; REPLICAS]; REPLICAS],
    walls: [u64; REPLICAS],
}

impl Group {
    /// With the first two being `clones`, they write with the same stamps. The last one's clock is a day ahead, too far for
    /// the others to follow.
    pub fn new(clones: bool) -> Self {
        let client = |replica| if clones { u32::max(replica, 1) } else { replica };
        let stores = (0..REPLICAS).map(|replica| store(client(replica as u32))).collect();
        let walls = [WALL, WALL, WALL + 86_400_000];
        Self { stores, bodies: vec![Vec::new(); REPLICAS], heard: Default::default(), walls }
    }

    pub fn wall(&self, replica: usize) -> u64 {
        self.walls[replica]
    }

    pub fn step(&mut self, step: &Step) {
        self.step_at(0, step);
    }

    /// The same, `later` by so many milliseconds.
    pub fn step_at(&mut self, later: u64, step: &Step) {
        match step {
            Step::Commit { replica, wait, writes } => {
                self.walls[*replica] += wait;
                let body = commit(&mut self.stores[*replica], self.walls[*replica] + later, writes);
                self.bodies[*replica].extend(body);
            }
            Step::Hear { replica, of } => {
                let from = std::mem::replace(&mut self.heard[*replica][*of], self.bodies[*of].len());
                let wall = self.walls[*replica] + later;
                for body in &self.bodies[*of][from..] {
                    let _ = self.stores[*replica].apply(body, wall).unwrap();
                }
            }
        }
    }

    pub fn run(clones: bool, steps: &[Step]) -> Self {
        let mut group = Self::new(clones);
        steps.iter().for_each(|step| group.step(step));
        group
    }

    /// All that was committed.
    pub fn all(&self) -> Vec<Bytes> {
        self.bodies.concat()
    }
}

/// Brings a list in another order, by dice.
pub fn shuffled<T: Clone>(list: &[T], dice: u64) -> Vec<T> {
    let mut rng = antiphon::rng::Rng::new(dice);
    let mut list = list.to_vec();
    for index in (1..list.len()).rev() {
        list.swap(index, (rng.next_u64() % (index as u64 + 1)) as usize);
    }
    list
}
