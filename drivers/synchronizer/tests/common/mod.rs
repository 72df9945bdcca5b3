//! What the topics share: nodes on threads, and links between them.

#![allow(dead_code, unreachable_pub)] // each topic is a crate of its own and uses some of it

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::Authority;
use antiphon::storage::{Continuity, Storage};
use antiphon::store::{Direction, WriteError};
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Functions, LinkOptions, Node};
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::{block_on, or};

/// Longer than anything takes; what does not come by then does not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn doc() -> DocumentId {
    "pets".parse().unwrap()
}

/// Waits, but not for ever.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    block_on(or(future, async {
        Timer::after(PATIENCE).await;
        panic!("it did not come");
    }))
}

pub fn node() -> Node {
    node_on(MemoryStorage::new(), Continuity::Proven)
}

pub fn node_on<S: Storage + Send + 'static>(storage: S, continuity: Continuity) -> Node {
    let (node, driver) = wait(Node::open(storage, continuity, Config::default())).unwrap();
    thread::spawn(move || block_on(driver).map(drop));
    node
}

/// A store and a synchronizer of it.
pub fn synchronized(node: &Node, options: Options) -> (SharedStore, Synchronizer) {
    let store = SharedStore::default();
    let synchronizer = Synchronizer::new(&store, node, &doc(), options);
    (store, synchronizer)
}

pub fn authority() -> Options {
    Options { authority: Authority::Us, ..Options::default() }
}

pub fn one_way(direction: Direction) -> Options {
    Options { direction, ..Options::default() }
}

/// Connects two nodes with a pair of queues; the first takes the second for its upstream.
pub fn link(here: &Node, there: &Node) {
    let ((to_there, from_here), (to_here, from_there)) = (mpsc::channel(), mpsc::channel());
    let upstream = LinkOptions { upstream: true, ..LinkOptions::default() };
    here.accept(functions(to_there, from_there), upstream).unwrap();
    there.accept(functions(to_here, from_here), LinkOptions::default()).unwrap();
}

fn functions(sender: mpsc::Sender<Bytes>, receiver: mpsc::Receiver<Bytes>) -> Functions {
    let send = move |frame| sender.send(frame).map_err(|_| io::ErrorKind::BrokenPipe.into());
    Functions::new(send, move || Ok(receiver.recv().ok()))
}

pub fn set(store: &SharedStore, row: &str, cell: &str, value: i64) {
    store.write::<_, WriteError>(|transaction| transaction.set_cell("pets", row, cell, value)).unwrap();
}

pub fn content(store: &SharedStore) -> String {
    store.read(|store| store.to_json().to_string())
}
