//! TinyBase's cases, over WebSockets to the first of the stores.

#[path = "../../../tests/stores/cases.rs"]
mod cases;
mod common;
#[path = "common/met.rs"]
mod met;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use antiphon::store::Direction;
use antiphon_node::{Link, LinkOptions, Node, RedialPolicy};
use antiphon_websocket::{Client, Server, ServerConfig};
use cases::*;
use futures_lite::future::block_on;
use met::{Met, Network};

struct Star {
    address: Option<SocketAddr>,
    links: Vec<Link>,
}

impl Network for Star {
    fn new() -> Self {
        Self { address: None, links: Vec::new() }
    }

    fn join(&mut self, nodes: &[&Node]) -> (usize, usize) {
        let address = *self.address.get_or_insert_with(|| {
            let listener = Server::new(ServerConfig::default()).listen(([127, 0, 0, 1], 0)).unwrap();
            let (address, node) = (listener.local_addr(), nodes[0].clone());
            thread::spawn(move || block_on(listener.serve(node)));
            address
        });
        let eager = RedialPolicy { base: Duration::from_millis(5), ..RedialPolicy::default() };
        let connect = |node: &&Node| {
            let client = Client::new(&format!("ws://{address}/")).unwrap();
            node.connect(client, LinkOptions::default(), eager.clone()).unwrap()
        };
        self.links = nodes[1..].iter().map(connect).collect();
        (nodes.len() - 1, 1)
    }

    fn part(&mut self) {
        self.links.drain(..).for_each(|link| link.disconnect());
    }
}

type OverWebSockets = Met<Star>;

tinybase_cases!(OverWebSockets);
tinybase_cases_of_links!(OverWebSockets);
