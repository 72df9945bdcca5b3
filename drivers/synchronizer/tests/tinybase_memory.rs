//! TinyBase's cases, over a hub in memory.

#[path = "../../../tests/stores/cases.rs"]
mod cases;
mod common;
#[path = "common/met.rs"]
mod met;

use antiphon::store::Direction;
use antiphon_memory::Hub;
use antiphon_node::Node;
use antiphon_synchronizer::{Member, join};
use cases::*;
use met::{Met, Network};

struct InHub(Hub, Vec<Member>);

impl Network for InHub {
    fn new() -> Self {
        Self(Hub::unnamed(), Vec::new())
    }

    fn join(&mut self, nodes: &[&Node]) -> (usize, usize) {
        self.1 = nodes.iter().map(|node| join(node, &self.0).unwrap()).collect();
        (nodes.len() - 1, nodes.len() - 1)
    }

    fn part(&mut self) {
        self.1.clear();
    }
}

type InMemory = Met<InHub>;

tinybase_cases!(InMemory);
tinybase_cases_of_links!(InMemory);
