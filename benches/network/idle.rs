//! What is idle: connections of a server, and documents in its directory.

use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use antiphon::op::DocumentId;
use antiphon::replica::{Event, Options};
use antiphon_node::Node;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use smol::block_on;
use tempfile::TempDir;

use crate::child::{Child, Parent, Usage};
use crate::raw::{self, Socket};
use crate::replica::{client, connect, document, join, listen, open_directory};
use crate::report::{Bound, Row, Table, Unit};
use crate::{Plan, Role};

/// Connections that come before it is measured, so that what is there once is there.
const FIRST: usize = 50;
/// How long what is under way may take to be over.
const SETTLING: Duration = Duration::from_millis(500);

/// Who connects.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    server: SocketAddr,
    connections: usize,
    with: With,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum With {
    Nothing,
    Document,
    Raw,
}

pub(crate) fn measure(plan: &Plan) -> Table {
    let connections = plan.pick(1_000, 50);
    let documents = plan.pick(100_000, 200);
    let row = |case| Row::new(case, Unit::Bytes);
    let mut nothing = row("a connection").bound(Bound::More(4096.0));
    let mut document = row("a connection with a document open").bound(Bound::More(4096.0));
    let mut stored = row("a stored document").bound(Bound::AtMost(1024.0));
    let mut open = row("a document that is open").bound(Bound::AtMost(1024.0));
    let mut start = Row::new("from starting to serving", Unit::Milliseconds).bound(Bound::AtMost(1000.0));

    let [full, empty] = [(); 2].map(|()| TempDir::new().expect("there is room for a directory"));
    let [full, empty] = [&full, &empty].map(|made| made.path().to_str().expect("it has a plain name").to_owned());
    plan.step(format!("idle: writing {documents} documents"));
    write(&full, documents);
    for run in 1..=plan.runs() {
        for (row, role, with) in [
            (&mut nothing.raw, Role::IdleRaw, With::Raw),
            (&mut nothing.antiphon, Role::Server(None), With::Nothing),
            (&mut document.antiphon, Role::Server(None), With::Document),
        ] {
            plan.step(format!("idle, run {run}: connections, {with:?}"));
            row.push(connection(&role, connections, with));
        }
        plan.step(format!("idle, run {run}: documents"));
        let (_, nothing, _) = directory(&empty, 0);
        let (milliseconds, resident, more) = directory(&full, documents);
        start.antiphon.push(milliseconds);
        stored.antiphon.push((resident - nothing) / documents as f64);
        open.antiphon.push(more);
    }
    document.raw.clone_from(&nothing.raw);
    let title = format!(
        "idle: resident memory of a server, of {connections} connections, and of {documents} documents in its directory"
    );
    let notes = vec![
        String::from("raw: a task that reads, after a message of 200 bytes each way."),
        String::from(
            "A stored document: above an empty directory. One that is open: what each takes of the second half.",
        ),
    ];
    Table { title, notes, rows: vec![nothing, document, stored, open, start] }
}

/// Bytes that a connection takes in a server.
fn connection(server: &Role, connections: usize, with: With) -> f64 {
    let (mut server, address) = Child::start(server);
    let (mut load, ()) = Child::start(&Role::IdleLoad(Load { server: address, connections, with }));
    thread::sleep(SETTLING);
    let before: Usage = server.ask();
    let () = load.ask();
    thread::sleep(SETTLING);
    let after: Usage = server.ask();
    (after.resident - before.resident) / connections as f64
}

/// Milliseconds from a server's start until it serves, the bytes that it takes then, and the bytes that an open document
/// more takes, when many are open.
fn directory(data: &str, documents: usize) -> (f64, f64, f64) {
    let start = Instant::now();
    let (mut server, _): (_, SocketAddr) = Child::start(&Role::IdleDocuments(data.to_owned(), documents));
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let [started, half, whole] = [(); 3].map(|()| server.ask::<Usage>().resident);
    (milliseconds, started, (whole - half) / (documents - documents / 2) as f64)
}

fn name(number: usize) -> DocumentId {
    document(&format!("document {number}"))
}

/// Writes documents of one op.
fn write(data: &str, documents: usize) {
    const AT_ONCE: usize = 1_000;
    let (node, driver) = open_directory(data);
    let driver = thread::spawn(|| block_on(driver));
    block_on(async {
        for first in (0..documents).step_by(AT_ONCE) {
            let names: Vec<_> = (first..documents.min(first + AT_ONCE)).map(name).collect();
            for name in &names {
                node.open_document(name, Options::default()).expect("the node runs");
                node.append(name, vec![Bytes::from_static(&[7; 20])]).await.expect("it is open");
            }
            for name in &names {
                node.written(name).await.expect("there is room");
                node.close_document(name).expect("it is open");
            }
        }
        node.shutdown(None).await.expect("everything is written");
    });
    let storage = driver.join().expect("it does not panic").expect("it ends in order");
    storage.close().expect("everything is synced");
}

/// Is a server with a directory, and tells what it uses: as it is, with half of its documents open (by then the storage
/// keeps as much of the database in memory as it may), and with all.
pub(crate) fn serve_documents(parent: &Parent, data: &str, documents: usize) {
    let (node, address) = listen(open_directory(data));
    parent.tell(&address);
    for opened in [0..0, 0..documents / 2, documents / 2..documents] {
        parent.wait();
        block_on(open(&node, opened));
        thread::sleep(SETTLING);
        parent.tell(&Usage::now());
    }
    parent.wait();
}

async fn open(node: &Node, documents: Range<usize>) {
    const AT_ONCE: usize = 500; // no more events than are kept
    for first in documents.clone().step_by(AT_ONCE) {
        let mut events = node.subscribe_to(|event| matches!(event, Event::Opened { .. }));
        let names = (first..documents.end.min(first + AT_ONCE)).map(name);
        let opened = names.map(|name| node.open_document(&name, Options::default()).expect("the node runs")).count();
        for _ in 0..opened {
            events.next().await.expect("the node runs");
        }
    }
}

impl Load {
    /// Connects some, and when it is asked, the others.
    pub(crate) fn run(self, parent: &Parent) {
        let Self { server, connections, with } = self;
        block_on(async {
            match with {
                With::Raw => stay(parent, connections, || raw_client(server)).await,
                With::Document => {
                    let document = document("notes");
                    stay(parent, connections, || join(server, &document)).await;
                }
                With::Nothing => {
                    let live = || async {
                        let node = client();
                        let link = connect(&node, server);
                        link.live().await.expect("the server is there");
                        (node, link)
                    };
                    stay(parent, connections, live).await;
                }
            }
        });
    }
}

async fn stay<T, F: Future<Output = T>>(parent: &Parent, connections: usize, connect: impl Fn() -> F) {
    let first = join_all((0..FIRST).map(|_| connect())).await;
    parent.tell(&());
    parent.wait();
    let mut others = Vec::new();
    for _ in 0..connections {
        others.push(connect().await);
    }
    parent.tell(&());
    parent.wait();
    drop((first, others));
}

async fn raw_client(server: SocketAddr) -> Socket {
    let mut socket = Socket::connect(server).await;
    socket.send(Bytes::from_static(&[7; 200])).await;
    socket.receive().await.expect("it answers");
    socket
}

/// Is a server that answers what it hears.
pub(crate) fn serve_raw(parent: &Parent) {
    let address = raw::listen(|mut socket| async move {
        while let Some(message) = socket.receive().await {
            socket.send(message).await;
        }
    });
    parent.tell(&address);
    parent.tell_usage()
}
