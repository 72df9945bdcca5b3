//! A server that keeps what clients write: TinyBase's cases of persistence (TB-R), where a path is a document.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use antiphon::op::DocumentId;
use antiphon::store::WriteError;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, LinkOptions, Node, RedialPolicy};
use antiphon_sqlite::{Options as SqliteOptions, SqliteStorage, look};
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use antiphon_websocket::{Client, Server, ServerConfig};
use common::*;
use futures_lite::future::block_on;
use thread::JoinHandle;

/// A server on a directory, which takes part in no store: it keeps what comes.
struct Keeper {
    node: Node,
    address: SocketAddr,
    driver: JoinHandle<()>,
}

impl Keeper {
    fn open(directory: &Path) -> Self {
        let storage = SqliteStorage::open_directory(directory, &SqliteOptions::default()).unwrap();
        let continuity = storage.continuity();
        let (node, driver) = wait(Node::open(storage, continuity, Config::default())).unwrap();
        let driver = thread::spawn(move || block_on(driver).unwrap().close().unwrap());
        let listener = Server::new(ServerConfig::default()).listen(([127, 0, 0, 1], 0)).unwrap();
        let (address, serving) = (listener.local_addr(), node.clone());
        thread::spawn(move || block_on(listener.serve(serving)));
        Self { node, address, driver }
    }

    fn client(&self, path: &str) -> Visitor {
        let node = node_on(MemoryStorage::new(), antiphon::storage::Continuity::Proven);
        let client = Client::new(&format!("ws://{}/", self.address)).unwrap();
        let upstream = LinkOptions { upstream: true, ..LinkOptions::default() };
        node.connect(client, upstream, RedialPolicy::default()).unwrap();
        let store = SharedStore::default();
        let document: DocumentId = path.parse().unwrap();
        let synchronizer = Synchronizer::new(&store, &node, &document, Options::default());
        Visitor { node, store, synchronizer }
    }

    fn close(self) {
        wait(self.node.shutdown(None)).unwrap();
        self.driver.join().unwrap();
    }
}

/// A client, in memory: what it holds is gone with it.
struct Visitor {
    node: Node,
    store: SharedStore,
    synchronizer: Synchronizer,
}

impl Visitor {
    fn started(self) -> Self {
        wait(self.synchronizer.start()).unwrap();
        self
    }

    fn set(&self, name: &str, value: i64) {
        self.store.write::<_, WriteError>(|transaction| transaction.set_value(name, value)).unwrap();
    }

    /// Leaves when everything is at the server.
    fn leave(self) -> String {
        wait(self.synchronizer.in_step()).unwrap();
        wait(self.node.shutdown(None)).unwrap();
        content(&self.store)
    }
}

fn values(json: &str) -> String {
    format!(r#"{{"tables":{{}},"values":{json}}}"#)
}

#[test]
fn tb_r_single_client_and_existing_path() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let visitor = keeper.client("p1").started();
    visitor.set("v", 1);
    visitor.leave();
    keeper.close();
    // The server starts again, with nobody connected meanwhile: the path is there.
    let keeper = Keeper::open(directory.path());
    let visitor = keeper.client("p1").started();
    assert_eq!(content(&visitor.store), values(r#"{"v":1}"#));
    keeper.close();
}

#[test]
fn tb_r_premature_alteration() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let first = keeper.client("p1").started();
    first.set("before", 1);
    first.leave();
    // It writes before it has heard what there is.
    let second = keeper.client("p1");
    second.set("early", 2);
    drop(second.synchronizer.start());
    second.set("early too", 3);
    assert_eq!(second.leave(), values(r#"{"before":1,"early":2,"early too":3}"#));
    keeper.close();
}

#[test]
fn tb_r_multi_client_one_path() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let (first, second) = (keeper.client("p1").started(), keeper.client("p1").started());
    first.set("a", 1);
    second.set("b", 2);
    let both = values(r#"{"a":1,"b":2}"#);
    for visitor in [&first, &second] {
        wait(visitor.synchronizer.reaches(|_| content(&visitor.store) == both)).unwrap();
    }
    assert_eq!([first.leave(), second.leave()], [both.clone(), both]);
    keeper.close();
}

#[test]
fn tb_r_multi_path_and_ids_do_not_select_paths() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let paths = ["p1", "p1/p2", "p1%2Fp2", "..", "constructor"];
    let good = paths.map(|path| path.parse::<DocumentId>().is_ok());
    for (value, path) in (0..).zip(paths).filter(|(value, _)| good[*value as usize]) {
        let visitor = keeper.client(path).started();
        visitor.set("v", value);
        visitor.leave();
    }
    for (value, path) in (0..).zip(paths).filter(|(value, _)| good[*value as usize]) {
        let visitor = keeper.client(path).started();
        assert_eq!(visitor.leave(), values(&format!(r#"{{"v":{value}}}"#)), "{path}");
    }
    keeper.close();
    let documents = look(directory.path(), antiphon_sqlite::View::documents).unwrap();
    assert_eq!(documents.len(), good.iter().filter(|good| **good).count(), "{documents:?}");
}

#[test]
fn tb_r_two_clients_in_turn() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let mut expected = Vec::new();
    for turn in 0..6 {
        let visitor = keeper.client("p1").started();
        visitor.set(&format!("v{turn}"), turn);
        expected.push(format!(r#""v{turn}":{turn}"#));
        assert_eq!(visitor.leave(), values(&format!("{{{}}}", expected.join(","))));
    }
    keeper.close();
}

/// Issue #205 there: who has the most is sent only what it lacks.
#[test]
fn tb_r_only_missing_data_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let first = keeper.client("p1").started();
    let long = "x".repeat(100_000);
    first.store.write::<_, WriteError>(|transaction| transaction.set_value("long", &*long)).unwrap();
    wait(first.synchronizer.in_step()).unwrap();
    first.synchronizer.stop();
    let second = keeper.client("p1").started();
    second.set("short", 1);
    second.leave();
    let received = |visitor: &Visitor| {
        visitor.node.inspect(|replica| {
            let links = (0..16).map(antiphon::replica::LinkId);
            links.filter_map(|link| replica.session(link)).map(|session| session.stats().bytes_received).sum::<u64>()
        })
    };
    let before = received(&first);
    let first = first.started();
    assert_eq!(content(&first.store), values(&format!(r#"{{"long":"{long}","short":1}}"#)));
    let bytes = received(&first) - before;
    assert!(bytes < 1000, "{bytes} bytes for what it lacked");
    keeper.close();
}

/// What is longer than a frame goes in parts, and comes whole.
#[test]
fn tb_r_large_payloads() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(directory.path());
    let first = keeper.client("p1").started();
    let long = "long 🐕 ".repeat(80_000);
    first.store.write::<_, WriteError>(|transaction| transaction.set_value("long", &*long)).unwrap();
    first.leave();
    let second = keeper.client("p1").started();
    assert_eq!(second.store.read(|store| store.value("long").cloned()), Some((&*long).into()));
    keeper.close();
}
