//! antiphon's end: the server, and the clients that load it.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::Durability;
use antiphon_memory::{Disk, MemoryStorage};
use antiphon_node::{Config, Driver, Link, LinkOptions, Node, RedialPolicy, Ring};
use antiphon_sqlite::SqliteStorage;
use antiphon_websocket::{Client, Server, ServerConfig};
use smol::block_on;
use smol::future::zip;

use crate::child::Parent;

/// In memory, as the command's server has it: nothing is kept to take it back.
pub(crate) fn in_memory() -> MemoryStorage {
    Disk::with_promise(Durability::Fsync).open().expect("nobody else has it")
}

/// Is a server with the defaults of everything, and tells its address, and then what it uses.
pub(crate) fn serve(parent: &Parent, data: Option<&str>) {
    let (_node, address) = match data {
        None => listen(open(in_memory(), Continuity::Proven)),
        Some(directory) => listen(open_directory(directory)),
    };
    parent.tell(&address);
    parent.tell_usage()
}

/// Is the same in memory, with all that happens to it recorded.
pub(crate) fn serve_recorded(parent: &Parent, directory: &str) {
    let config = Config { record: Some(Ring::new(directory)), ..Config::default() };
    let opened = block_on(Node::open(in_memory(), Continuity::Proven, config));
    let (_node, address) = listen(opened.expect("the directory is sound"));
    parent.tell(&address);
    parent.tell_usage()
}

/// Serves on a thread of its own.
pub(crate) fn listen<S: Send + 'static>((node, driver): (Node, Driver<S>)) -> (Node, SocketAddr) {
    let listener = Server::new(ServerConfig::default()).listen((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let address = listener.local_addr();
    let serving = listener.serve(node.clone());
    thread::spawn(move || block_on(zip(driver, serving)));
    (node, address)
}

fn open<S: Storage + Send + 'static>(storage: S, continuity: Continuity) -> (Node, Driver<S>) {
    block_on(Node::open(storage, continuity, Config::default())).expect("the storage is sound")
}

pub(crate) fn open_directory(directory: &str) -> (Node, Driver<SqliteStorage>) {
    let storage = SqliteStorage::open_directory(directory, &antiphon_sqlite::Options::default());
    let storage = storage.expect("the directory is sound");
    let continuity = storage.continuity();
    open(storage, continuity)
}

/// A client in memory. All clients of a process are driven by one thread, and have one more each for their storage.
pub(crate) fn client() -> Node {
    let (node, driver) = open(in_memory(), Continuity::Proven);
    smol::spawn(driver).detach();
    node
}

pub(crate) fn connect(node: &Node, server: SocketAddr) -> Link {
    let client = Client::new(&format!("ws://{server}/")).expect("a good address");
    node.connect(client, LinkOptions::default(), RedialPolicy::default()).expect("the node runs")
}

/// A client that has a document open with the server, in step.
pub(crate) async fn join(server: SocketAddr, document: &DocumentId) -> (Node, Link) {
    let node = client();
    node.open_document(document, Options::default()).expect("the node runs");
    let link = connect(&node, server);
    link.in_step(document).await.expect("the server has it open");
    (node, link)
}

pub(crate) fn document(name: &str) -> DocumentId {
    name.parse().expect("a good name")
}
