//! Nodes on threads, a transport in memory whose other end the test can play, and a storage that the test holds up.

#![allow(dead_code, unreachable_pub)] // each topic is a crate of its own and uses some of it

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use antiphon::digest::Chain;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::replica::Options;
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Continuity, Identity, Reply, Request, Storage, StoredDocument, Transaction};
use antiphon_memory::MemoryStorage;
use antiphon_node::{
    Config, ConnectError, Connector, Error, FrameReceiver, FrameSender, Link, LinkOptions, Node, RedialPolicy,
};
use async_channel::{Receiver, Sender, bounded};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::{block_on, or};

/// Longer than anything here takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
    pub fn stop(self) -> S {
        wait(self.node.shutdown(None)).expect("a shutdown in order");
        self.driver().expect("the storage comes back")
    }

    /// What the driver comes to.
    pub fn driver(self) -> Result<S, Error> {
        self.driver.join().expect("the driver does not panic")
    }
}

pub fn memory() -> Running<MemoryStorage> {
    Running::start(MemoryStorage::new(), Config::default())
}

/// Shuts all of them down in order.
pub fn stop<S: Storage + Send + 'static>(running: impl IntoIterator<Item = Running<S>>) {
    running.into_iter().for_each(|running| _ = running.stop());
}

pub fn document() -> DocumentId {
    "notes".parse().expect("a good name")
}

pub fn open(node: &Node) -> DocumentId {
    node.open_document(&document(), Options::default()).expect("the node runs");
    document()
}

pub fn append(node: &Node, body: &'static str) {
    node.try_append(&document(), vec![body.into()]).expect("the document is open");
}

// -------------------------------------------------------------------------------------------- a transport

pub struct Out(pub Sender<Bytes>);
pub struct In(pub Receiver<Bytes>);

/// A connection in memory: its two ends.
pub fn pair() -> ((Out, In), (Out, In)) {
    let ((to_one, from_other), (to_other, from_one)) = (bounded(16), bounded(16));
    ((Out(to_other), In(from_other)), (Out(to_one), In(from_one)))
}

impl FrameSender for Out {
    async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        self.0.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.close();
        Ok(())
    }
}

impl FrameReceiver for In {
    async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.0.recv().await.ok())
    }
}

/// Connects to a node in this process.
pub struct To(pub Node);

impl Connector for To {
    type Transport = (Out, In);

    async fn connect(&mut self, _: u32) -> Result<(Out, In), ConnectError> {
        let (ours, theirs) = pair();
        self.0.accept(theirs, LinkOptions::default()).map_err(|error| ConnectError::later(error.to_string()))?;
        Ok(ours)
    }
}

/// Tries again soon: tests have no time.
pub fn eager() -> RedialPolicy {
    RedialPolicy { base: Duration::from_millis(5), cap: Duration::from_millis(50), ..RedialPolicy::default() }
}

pub fn connect(here: &Node, there: &Node) -> Link {
    here.connect(To(there.clone()), LinkOptions::default(), eager()).expect("the node runs")
}

// -------------------------------------------------------------------------------------------- a storage

/// A storage that can be held up.
pub struct Gated {
    pub inner: MemoryStorage,
    gate: Gate,
}

/// Whether a [`Gated`] storage writes.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// How many writes may pass.
    room: Mutex<usize>,
    moved: Condvar,
    /// A write waits to be let through.
    held_up: AtomicBool,
    /// The most requests that were carried out together.
    largest: AtomicUsize,
}

impl Gate {
    pub fn close(&self) {
        self.set(0);
    }

    pub fn open(&self) {
        self.set(usize::MAX);
    }

    /// Lets one write pass, and no other.
    pub fn let_one_pass(&self) {
        self.set(1);
    }

    fn set(&self, room: usize) {
        *self.0.room.lock().expect("nobody panicked") = room;
        self.0.moved.notify_all();
    }

    /// The most requests that were carried out together.
    pub fn largest(&self) -> usize {
        self.0.largest.load(Ordering::SeqCst)
    }

    /// Waits until a write waits to be let through.
    pub fn holds(&self) {
        while !self.0.held_up.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    fn pass(&self) {
        let room = self.0.room.lock().expect("nobody panicked");
        self.0.held_up.store(*room == 0, Ordering::SeqCst);
        let mut room = self.0.moved.wait_while(room, |room| *room == 0).expect("nobody panicked");
        if *room < usize::MAX {
            *room -= 1;
        }
    }
}

impl Gated {
    pub fn new() -> (Self, Gate) {
        let (held_up, largest) = Default::default();
        let inner = Inner { room: Mutex::new(usize::MAX), moved: Condvar::new(), held_up, largest };
        let gate = Gate(Arc::new(inner));
        (Self { inner: MemoryStorage::new(), gate: gate.clone() }, gate)
    }
}

impl Storage for Gated {
    type Error = <MemoryStorage as Storage>::Error;

    fn identity(&mut self) -> Result<Option<Identity>, Self::Error> {
        self.inner.identity()
    }

    fn documents(&mut self) -> Result<Vec<DocumentId>, Self::Error> {
        self.inner.documents()
    }

    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, Self::Error> {
        self.inner.document(document)
    }

    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, Self::Error> {
        self.inner.cursor(document, peer)
    }

    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Self::Error> {
        self.inner.read(document, from, max_cost)
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Self::Error> {
        self.inner.read_aside(document, from, max_cost)
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, Self::Error> {
        self.inner.chain(document, id)
    }

    fn snapshot(&mut self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Self::Error> {
        self.inner.snapshot(document, id, offset, max)
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), Self::Error> {
        self.gate.pass();
        self.inner.write(transaction)
    }

    fn sync(&mut self) -> Result<(), Self::Error> {
        self.inner.sync()
    }

    fn execute_all(&mut self, requests: &[Request]) -> Vec<Result<Reply, Self::Error>> {
        self.gate.0.largest.fetch_max(requests.len(), Ordering::SeqCst);
        requests.iter().map(|request| self.execute(request)).collect()
    }
}
