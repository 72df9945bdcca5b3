//! Stores over links that lose, double, reorder and damage what they carry: TinyBase's [cases](stores::cases), and what its
//! synchronizers do not survive, the loss of any one message.

mod stores;

use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::rng::Ratio;
use antiphon::store::{ClientId, Direction, Schema, Store};
use antiphon_sim::World;
use antiphon_sim::link::Faults;
use antiphon_sim::stores::StoreNode;
use antiphon_sim::world::{Medium, NodeId, PathId, Tamper};
use stores::cases::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(120);

fn pets() -> DocumentId {
    "pets".parse().expect("the name is valid")
}

/// Whether everything that was written is in the document, and everyone has the same of that.
fn has_met(world: &World<StoreNode>, nodes: &[NodeId]) -> bool {
    let digest = |node: &NodeId| world.replica(*node)?.document(&pets()).map(|(heads, _)| heads.digest());
    let first = digest(&nodes[0]);
    nodes.iter().all(|node| {
        let mirror = world.mirror(*node, &pets()).expect("it is up");
        digest(node) == first && !mirror.is_reading() && mirror.unseen() == 0
    })
}

fn transact(world: &mut World<StoreNode>, node: NodeId, wall: u64, writes: &[Write]) {
    let done =
        world.transact(node, &pets(), wall, |transaction| writes.iter().try_for_each(|write| write.on(transaction)));
    done.unwrap();
}

/// Stores in a star of lossy links.
struct Lossy {
    world: World<StoreNode>,
    /// In the order of their clients.
    nodes: Vec<NodeId>,
    paths: Vec<PathId>,
}

impl Meeting for Lossy {
    fn of(stores: usize) -> Self {
        let mut world = World::of_stores(54);
        let mut nodes: Vec<_> = (0..stores).map(|_| world.add_store(&pets(), Options::default())).collect();
        let faults = Faults {
            latency: 20 * MILLISECOND,
            jitter: 10 * MILLISECOND,
            loss: Ratio::one_in(4),
            duplicate: Ratio::one_in(10),
            reorder: Ratio::one_in(5),
            reorder_delay: 30 * MILLISECOND,
            corrupt: Ratio::one_in(50),
            ..Faults::NONE
        };
        let paths = nodes[1..].iter().map(|node| world.join(*node, nodes[0], Medium::datagram(faults))).collect();
        nodes.sort_by_key(|node| ClientId::of(world.id(*node)));
        Self { world, nodes, paths }
    }

    fn write(&mut self, store: usize, wall: u64, writes: &[Write]) {
        transact(&mut self.world, self.nodes[store], wall, writes);
    }

    fn meet(&mut self) {
        let Self { world, nodes, .. } = self;
        assert!(world.run_until(SOON, |world| has_met(world, nodes)), "not in step after {SOON:?}");
    }

    fn look<T>(&self, store: usize, look: impl FnOnce(&Store) -> T) -> T {
        look(self.world.mirror(self.nodes[store], &pets()).expect("it is up").store())
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl Linked for Lossy {
    fn attach(&mut self, store: usize, direction: Direction) {
        self.world.attach(self.nodes[store], &pets(), direction);
    }

    fn set_schema(&mut self, store: usize, schema: Schema) {
        self.world.set_schema(self.nodes[store], &pets(), schema).unwrap();
    }

    fn part(&mut self) {
        self.paths.iter().for_each(|path| self.world.cut(*path, false));
        self.world.run_for(SOON); // until both have noticed
    }

    fn join(&mut self) {
        self.paths.iter().for_each(|path| self.world.mend(*path));
    }
}

tinybase_cases!(Lossy);
tinybase_cases_of_links!(Lossy);

/// Two that write before they meet, while they are in step, and one after the other. Of the frames on the way, this one is
/// lost. Returns how many there were.
fn two_that_lose(lost: Option<u64>) -> u64 {
    let mut world = World::of_stores(1);
    let nodes = [0, 1].map(|_| world.add_store(&pets(), Options::default()));
    nodes.iter().for_each(|node| world.stop(*node));
    let faults = Faults { latency: 20 * MILLISECOND, ..Faults::NONE };
    let path = world.join(nodes[0], nodes[1], Medium::datagram(faults));
    lost.into_iter().for_each(|index| world.tamper(path, index, Tamper::Drop));
    for node in nodes {
        world.start(node, antiphon::storage::Continuity::Proven);
    }
    let write = |world: &mut World<StoreNode>, node: usize, writes: &[Write]| {
        let wall = WALL + world.now().as_micros() / 1_000;
        transact(world, nodes[node], wall, writes);
    };
    write(&mut world, 0, &[cell("t", "r", "c", 1), value("v", 1)]);
    write(&mut world, 1, &[cell("t", "r", "c", 2), cell("t", "r", "d", "x".repeat(5_000))]);
    world.run_for(MILLISECOND * 200);
    write(&mut world, 0, &[Write::Row("t", "r"), cell("t", "s", "c", 3)]);
    world.run_for(MILLISECOND * 10);
    write(&mut world, 1, &[value("v", 4)]);
    world.run_for(MILLISECOND * 500);
    write(&mut world, 1, &[cell("t", "s", "c", 5)]);
    // From here on nobody does anything, and both have everything.
    assert!(world.run_until(SOON, |world| has_met(world, &nodes)), "frame {lost:?} is lost, and so is what it said");
    let [first, second] = nodes.map(|node| world.mirror(node, &pets()).expect("it is up").store());
    assert_eq!(content(first), r#"{"tables":{"t":{"s":{"c":5}}},"values":{"v":4}}"#);
    assert_eq!(first.content_hash(), second.content_hash());
    assert_eq!(first.snapshot(), second.snapshot());
    world.counters(path).iter().map(|counters| counters.sent).sum()
}

#[test]
fn tb_n1_any_one_message_lost() {
    let frames = two_that_lose(None);
    assert!(frames > 20, "{frames}");
    for lost in 0..frames {
        two_that_lose(Some(lost));
    }
}
