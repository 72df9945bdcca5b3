//! Nodes on loopback, for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::storage::{Continuity, Storage};
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Error, Link, LinkOptions, Node, RedialPolicy};
use antiphon_websocket::{Client, Listener, Server, ServerConfig};
use async_executor::Executor;
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::{block_on, or};

/// Longer than anything here takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a node takes that nothing else was said to.
pub const FRAME_MAX: u32 = 64 << 10;

/// Waits, but not for ever.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    async_io::block_on(or(future, async {
        Timer::after(PATIENCE).await;
        panic!("this takes too long")
    }))
}

/// A node whose driver has a thread of its own.
pub struct Running<S> {
    pub node: Node,
    driver: JoinHandle<Result<S, Error>>,
}

impl<S: Storage + Send + 'static> Running<S> {
    pub fn start(storage: S, config: Config) -> Self {
        let (node, driver) = block_on(Node::open(storage, Continuity::Proven, config)).expect("the storage opens");
        Self { node, driver: std::thread::spawn(move || async_io::block_on(driver)) }
    }

    /// Shuts down in order, and returns the storage.
    pub fn stop(self, retry_after: Option<Duration>) -> S {
        wait(self.node.shutdown(retry_after)).expect("a shutdown in order");
        self.driver.join().expect("the driver does not panic").expect("the storage comes back")
    }
}

pub fn memory() -> Running<MemoryStorage> {
    Running::start(MemoryStorage::new(), Config::default())
}

/// A server with a node, on a port of its own.
pub struct Serving {
    pub running: Running<MemoryStorage>,
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

pub fn serve(server: &Server) -> Serving {
    serve_with(server, memory(), (Ipv4Addr::LOCALHOST, 0).into())
}

pub fn serve_with(server: &Server, running: Running<MemoryStorage>, address: SocketAddr) -> Serving {
    let listener = server.listen(address).expect("the address is free");
    serve_on(listener, running)
}

pub fn serve_on(listener: Listener, running: Running<MemoryStorage>) -> Serving {
    let (address, node) = (listener.local_addr(), running.node.clone());
    let accepting = std::thread::spawn(move || async_io::block_on(listener.serve(node)));
    Serving { running, address, accepting }
}

impl Serving {
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub fn stop(self, retry_after: Option<Duration>) -> MemoryStorage {
        let storage = self.running.stop(retry_after);
        self.accepting.join().expect("the listener does not panic");
        storage
    }
}

pub fn plain() -> Serving {
    serve(&Server::new(ServerConfig::default()))
}

/// Tries again soon: tests have no time.
pub fn eager() -> RedialPolicy {
    RedialPolicy { base: Duration::from_millis(5), cap: Duration::from_millis(100), ..RedialPolicy::default() }
}

pub fn connect(node: &Node, url: &str) -> Link {
    connect_with(node, Client::new(url).expect("a good address"))
}

pub fn connect_with(node: &Node, client: Client) -> Link {
    node.connect(client, LinkOptions::default(), eager()).expect("the node runs")
}

pub fn document() -> DocumentId {
    "notes".parse().expect("a good name")
}

pub fn open(node: &Node) -> DocumentId {
    node.open_document(&document(), Options::default()).expect("the node runs");
    document()
}

pub fn append(node: &Node, bodies: impl IntoIterator<Item = &'static str>) {
    let bodies = bodies.into_iter().map(Bytes::from).collect();
    node.try_append(&document(), bodies).expect("the document is open");
}

/// An executor that other threads work on, until it is dropped.
pub fn executor(threads: usize) -> Arc<Executor<'static>> {
    let executor = Arc::new(Executor::new());
    for _ in 0..threads {
        let executor = Arc::downgrade(&executor);
        std::thread::spawn(move || {
            while let Some(executor) = executor.upgrade() {
                async_io::block_on(async { executor.tick().await });
            }
        });
    }
    executor
}
