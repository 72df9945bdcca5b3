//! Stores over WebSockets: servers that go and come back, and directories that keep what was written.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use antiphon_node::{Config, LinkOptions, Node, RedialPolicy};
use antiphon_sqlite::SqliteStorage;
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use antiphon_websocket::{Client, Server, ServerConfig};
use common::*;
use futures_lite::future::block_on;

/// A node on a directory, which can be closed.
struct OnDisk {
    node: Node,
    driver: JoinHandle<()>,
}

impl OnDisk {
    fn open(directory: &Path) -> Self {
        let storage = SqliteStorage::open_directory(directory, &antiphon_sqlite::Options::default()).unwrap();
        let continuity = storage.continuity();
        let (node, driver) = wait(Node::open(storage, continuity, Config::default())).unwrap();
        Self { node, driver: thread::spawn(move || block_on(driver).unwrap().close().unwrap()) }
    }

    fn connect(&self, address: SocketAddr) {
        let client = Client::new(&format!("ws://{address}/")).unwrap();
        let upstream = LinkOptions { upstream: true, ..LinkOptions::default() };
        let eager =
            RedialPolicy { base: Duration::from_millis(5), cap: Duration::from_millis(100), ..RedialPolicy::default() };
        self.node.connect(client, upstream, eager).unwrap();
    }

    /// Listens, on a port of its own for a start.
    fn listen(&self, address: Option<SocketAddr>) -> SocketAddr {
        let address = address.unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = Server::new(ServerConfig::default()).listen(address).unwrap();
        let (address, node) = (listener.local_addr(), self.node.clone());
        thread::spawn(move || block_on(listener.serve(node)));
        address
    }

    fn close(self) {
        wait(self.node.shutdown(Some(Duration::from_millis(1)))).unwrap();
        self.driver.join().unwrap();
    }
}

fn started(node: &Node, options: Options) -> (SharedStore, Synchronizer) {
    let (store, synchronizer) = synchronized(node, options);
    wait(synchronizer.start()).unwrap();
    (store, synchronizer)
}

fn legs(pets: &[(&str, i64)]) -> String {
    let rows: Vec<_> = pets.iter().map(|(pet, legs)| format!(r#""{pet}":{{"legs":{legs}}}"#)).collect();
    format!(r#"{{"tables":{{"pets":{{{}}}}},"values":{{}}}}"#, rows.join(","))
}

#[test]
fn tb_n2_reconnect_with_remote_only_changes() {
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut server = OnDisk::open(directories[0].path());
    let address = server.listen(None);
    drop(started(&server.node, authority()));
    let clients = [1, 2].map(|index| {
        let client = OnDisk::open(directories[index].path());
        client.connect(address);
        let (store, synchronizer) = started(&client.node, Options::default());
        (client, store, synchronizer)
    });
    let [(_, fido, first), (_, felix, second)] = &clients;
    set(fido, "fido", "legs", 4);
    wait(second.reaches(|_| content(felix) == legs(&[("fido", 4)]))).unwrap();
    for round in 0..3_i64 {
        server.close();
        wait(first.reaches(|status| status.peers == 0)).unwrap();
        wait(second.reaches(|status| status.peers == 0)).unwrap();
        // One writes offline in the first round; in the others it only hears what the other one, or the server, wrote.
        match round {
            0 => set(fido, "fido", "legs", 10),
            1 => set(felix, "felix", "legs", 11),
            _ => {}
        }
        server = OnDisk::open(directories[0].path());
        let (served, synchronizer) = started(&server.node, authority());
        if round == 2 {
            set(&served, "server", "legs", 12);
            wait(synchronizer.saved()).unwrap();
        }
        server.listen(Some(address));
        let all = [("felix", 11), ("fido", 10), ("server", 12)];
        let all = legs([&all[1..2], &all[..2], &all][round as usize]);
        for (store, synchronizer) in [(fido, first), (felix, second), (&served, &synchronizer)] {
            wait(synchronizer.reaches(|_| content(store) == all)).unwrap();
        }
    }
}

#[test]
fn tb_r_what_was_written_is_there_after_a_restart_without_a_network() {
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let client = OnDisk::open(directory.path());
        let (store, synchronizer) = synchronized(&client.node, Options::default());
        // Nobody is there to be in step with.
        drop(synchronizer.start());
        if round == 1 {
            set(&store, "premature", "legs", 0);
        }
        wait(synchronizer.reaches(|status| status.to_load == 0)).unwrap();
        let rows = store.read(|store| store.table("pets").map_or(0, |pets| pets.row_count()));
        assert_eq!(rows, round, "what earlier rounds wrote, and the first one too early");
        set(&store, &format!("pet {round}"), "legs", 4);
        wait(synchronizer.saved()).unwrap();
        client.close();
    }
}

#[test]
fn an_op_that_no_store_can_have_written_is_left_out_by_all() {
    let directory = tempfile::tempdir().unwrap();
    let server = OnDisk::open(directory.path());
    let address = server.listen(None);
    let (served, serving) = started(&server.node, authority());
    let hostile = node();
    let client = Client::new(&format!("ws://{address}/")).unwrap();
    hostile.connect(client, LinkOptions::default(), RedialPolicy::default()).unwrap();
    hostile.open_document(&doc(), antiphon::replica::Options::default()).unwrap();
    let bodies = [&b"hello"[..], b"", b"\x30\xff\xff", &[0x20; 100]].map(bytes::Bytes::from_static);
    hostile.try_append(&doc(), bodies.to_vec()).unwrap();
    let friend = OnDisk::open(&directory.path().join("friend"));
    friend.connect(address);
    let (store, synchronizer) = started(&friend.node, Options::default());
    set(&store, "fido", "legs", 4);
    let is_there = |malformed: u64, content: String| malformed == 4 && content == legs(&[("fido", 4)]);
    wait(serving.reaches(|_| is_there(serving.statistics().malformed, content(&served)))).unwrap();
    wait(synchronizer.reaches(|_| is_there(synchronizer.statistics().malformed, content(&store)))).unwrap();
}
