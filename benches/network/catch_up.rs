//! Catch-up: a client with nothing connects to a server with a long document, SQLite at both ends.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Instant;

use antiphon::replica::Options;
use antiphon_node::{Link, LinkState, Node};
use antiphon_sqlite::DATABASE_NAME;
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use smol::block_on;
use tempfile::TempDir;

use crate::child::{Child, Parent, Usage};
use crate::raw::{self, INSERT_ROW, ROWS_NAME, Socket, open_rows};
use crate::replica::{connect, document, open_directory};
use crate::report::{Bound, Row, Table, Unit};
use crate::{Plan, Role};

const OP_BYTES: usize = 20;
const DOCUMENT: &str = "long";

/// What a raw server reads, and sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Served {
    directory: String,
    rows: Rows,
    /// Bytes of a message; the last may have fewer.
    message: usize,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Rows {
    /// One for each op, made by hand.
    Ops,
    /// Those that antiphon has, as they are: some two hundred ops each.
    Chunks,
}

/// Who catches up.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    server: SocketAddr,
    /// Where what comes is to be stored.
    directory: String,
    with: With,
}

#[derive(Debug, Deserialize, Serialize)]
enum With {
    Antiphon { ops: u64 },
    Raw(Rows),
}

/// What came of it.
#[derive(Debug, Deserialize, Serialize)]
struct Outcome {
    milliseconds: f64,
    /// Bytes of a message, on average.
    message: f64,
}

pub(crate) fn measure(plan: &Plan) -> Table {
    let ops = plan.pick(100_000, 2_000);
    let directory = TempDir::new().expect("there is room for a directory");
    let data = directory.path().to_str().expect("it has a plain name").to_owned();
    plan.step(String::from("catch-up: writing what is to be read"));
    write(&data, ops);
    let mut whole = Row::new("from connecting to being in step", Unit::Milliseconds).bound(Bound::AtMost(300.0));
    let mut served = Row::new("server's CPU time; raw: an op a row", Unit::Milliseconds).bound(Bound::Times(3.0));
    let mut chunks = Row::new("server's CPU time; raw: the same rows, copied", Unit::Milliseconds);
    for run in 1..=plan.runs() {
        let step = |what| plan.step(format!("catch-up, run {run}: {what}"));
        step("antiphon");
        let (cpu, outcome) = once(&Role::Server(Some(data.clone())), With::Antiphon { ops });
        served.antiphon.push(cpu);
        whole.antiphon.push(outcome.milliseconds);
        let raw = |rows| {
            let served = Served { directory: data.clone(), rows, message: outcome.message as usize };
            once(&Role::CatchUpRaw(served), With::Raw(rows))
        };
        step("raw, an op a row");
        let (cpu, outcome) = raw(Rows::Ops);
        served.raw.push(cpu);
        whole.raw.push(outcome.milliseconds);
        step("raw, the same rows");
        chunks.raw.push(raw(Rows::Chunks).0);
    }
    chunks.antiphon.clone_from(&served.antiphon);
    let title = format!("catch-up: {ops} ops of {OP_BYTES} bytes, from SQLite at the server to SQLite at the client");
    let notes = vec![
        String::from(
            "raw: rows are read in order, packed into messages as large as antiphon's, and inserted as they come.",
        ),
        String::from(
            "The same rows, copied: nobody looks at what is in them, neither to check it nor to skip what is known.",
        ),
    ];
    Table { title, notes, rows: vec![whole, served, chunks] }
}

/// Milliseconds of the server's CPU time, and what the client saw.
fn once(server: &Role, with: With) -> (f64, Outcome) {
    let directory = TempDir::new().expect("there is room for a directory");
    let directory = directory.path().to_str().expect("it has a plain name").to_owned();
    let (mut server, address) = Child::start(server);
    let (mut load, ()) = Child::start(&Role::CatchUpLoad(Load { server: address, directory, with }));
    let before: Usage = server.ask();
    let outcome = load.ask();
    let after: Usage = server.ask();
    ((after.cpu - before.cpu) * 1e3, outcome)
}

/// Writes a document as a replica does, and the same ops as rows.
fn write(directory: &str, ops: u64) {
    const BATCH: u64 = 1_000;
    let document = document(DOCUMENT);
    let (node, driver) = open_directory(directory);
    let driver = thread::spawn(|| block_on(driver));
    let rows = open_rows(Path::new(directory));
    block_on(async {
        node.open_document(&document, Options::default()).expect("the node runs");
        for first in (0..ops).step_by(BATCH as usize) {
            let bodies: Vec<_> = (first..ops.min(first + BATCH)).map(body).collect();
            let transaction = rows.unchecked_transaction().expect("nobody else is at it");
            insert(&rows, first, bodies.iter().map(Bytes::as_ref));
            transaction.commit().expect("there is room");
            node.append(&document, bodies).await.expect("it is open");
        }
        node.shutdown(None).await.expect("everything is written");
    });
    let storage = driver.join().expect("it does not panic").expect("it ends in order");
    storage.close().expect("everything is synced");
}

/// Bytes that can't be packed.
fn body(number: u64) -> Bytes {
    let mut rng = antiphon::rng::Rng::new(number);
    (0..OP_BYTES).map(|_| rng.next_u64() as u8).collect()
}

fn insert<'a>(rows: &Connection, first: u64, bodies: impl Iterator<Item = &'a [u8]>) {
    let mut statement = rows.prepare_cached(INSERT_ROW).expect("the table is there");
    for (position, body) in (first as i64..).zip(bodies) {
        statement.execute((0, position, [1_u8; 16], position, body)).expect("there is room");
    }
}

impl Load {
    /// Opens its directory, and when it is asked, catches up.
    pub(crate) fn run(self, parent: &Parent) {
        match self.with {
            With::Antiphon { ops } => self.antiphon(parent, ops),
            With::Raw(rows) => self.raw(parent, rows),
        }
        parent.wait();
    }

    fn antiphon(&self, parent: &Parent, ops: u64) {
        let document = document(DOCUMENT);
        let (node, driver) = open_directory(&self.directory);
        smol::spawn(driver).detach();
        node.open_document(&document, Options::default()).expect("the node runs");
        parent.tell(&());
        parent.wait();
        let start = Instant::now();
        let link = connect(&node, self.server);
        let (_, tail) = block_on(link.in_step(&document)).expect("the server has it");
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(tail, ops, "everything has come");
        parent.tell(&Outcome { milliseconds, message: mean_frame(&node, &link) });
    }

    fn raw(&self, parent: &Parent, rows: Rows) {
        let database = open_rows(Path::new(&self.directory));
        parent.tell(&());
        parent.wait();
        let start = Instant::now();
        let (mut tail, mut bytes, mut messages) = (0, 0, 0);
        block_on(async {
            let mut socket = Socket::connect(self.server).await;
            while let Some(message) = socket.receive().await {
                (bytes, messages) = (bytes + message.len(), messages + 1);
                if let Rows::Ops = rows {
                    let bodies = message.chunks(1 + OP_BYTES).map(|op| &op[1..]);
                    let count = bodies.len() as u64;
                    let transaction = database.unchecked_transaction().expect("nobody else is at it");
                    insert(&database, tail, bodies);
                    transaction.commit().expect("there is room");
                    tail += count;
                }
            }
        });
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        parent.tell(&Outcome { milliseconds, message: bytes as f64 / f64::from(messages) });
    }
}

/// Bytes of a frame, on average.
fn mean_frame(node: &Node, link: &Link) -> f64 {
    let LinkState::Live { link, .. } = link.state() else { return 0.0 };
    let stats = node.inspect(|replica| replica.session(link).map(antiphon::Session::stats)).unwrap_or_default();
    stats.bytes_received as f64 / stats.frames_received as f64
}

/// Is a server that sends rows to whoever connects.
pub(crate) fn serve_raw(parent: &Parent, served: Served) {
    let address = raw::listen(move |socket| send(socket, served.clone()));
    parent.tell(&address);
    parent.tell_usage()
}

async fn send(mut socket: Socket, served: Served) {
    let Served { directory, rows, message } = served;
    let (file, select) = match rows {
        Rows::Ops => {
            (ROWS_NAME, "SELECT position, body FROM op WHERE document = 0 AND position >= ?1 ORDER BY position")
        }
        Rows::Chunks => (DATABASE_NAME, "SELECT key, entries FROM chunk WHERE key >= ?1 ORDER BY key"),
    };
    let file = Path::new(&directory).join(file);
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it was written");
    let mut from = Some(0);
    while let Some(first) = from {
        let (packed, next) = pack(&database, select, first, message);
        socket.send(packed).await;
        from = next;
    }
}

/// A message of this size, with rows from this key on, and the key of the next.
fn pack(database: &Connection, select: &str, from: i64, size: usize) -> (Bytes, Option<i64>) {
    let mut message = Vec::with_capacity(size);
    let mut statement = database.prepare_cached(select).expect("the table is there");
    let mut rows = statement.query([from]).expect("it can be read");
    while let Some(row) = rows.next().expect("it can be read") {
        let bytes = row.get_ref(1).and_then(|value| Ok(value.as_blob()?)).expect("it is a blob");
        if message.len() + 1 + bytes.len() > size && !message.is_empty() {
            return (message.into(), row.get(0).ok());
        }
        message.push(bytes.len() as u8); // of an op; what it says of a chunk nobody reads
        message.extend_from_slice(bytes);
    }
    (message.into(), None)
}
