//! Acknowledged ops: ten writers, each with a document of its own, and a server on SQLite.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use antiphon::op::DocumentId;
use antiphon::replica::Event;
use antiphon_node::{Link, Node, Notice};
use bytes::{Buf, Bytes};
use futures_util::future::join_all;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use smol::channel::{Sender, unbounded};
use smol::future::or;
use tempfile::TempDir;

use crate::child::{Child, Parent};
use crate::raw::{self, INSERT_ROW, Socket, open_rows};
use crate::replica::{document, join};
use crate::report::{Bound, Row, Table, Unit, quantile};
use crate::{Plan, Role};

const WRITERS: u64 = 10;
const OP_BYTES: usize = 20;

/// How ops are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Manner {
    /// Ops appended at once.
    batch: u64,
    /// Ops of a writer that are not acknowledged, at most.
    depth: u64,
}

/// Who writes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    server: SocketAddr,
    raw: bool,
    manner: Manner,
    /// Before it is measured, and while it is.
    phases: [Duration; 2],
}

/// What came of it.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Outcome {
    ops_a_second: f64,
    /// Milliseconds from append to acknowledgement.
    p50: f64,
    p99: f64,
}

pub(crate) fn measure(plan: &Plan) -> Table {
    let manners = [
        ("batches of 100", Manner { batch: 100, depth: 2_000 }, 300_000.0),
        ("pipelined one by one", Manner { batch: 1, depth: 1_000 }, 100_000.0),
        ("each waits for its own", Manner { batch: 1, depth: 1 }, 15_000.0),
    ];
    let phases = [plan.pick(300, 50), plan.pick(1_500, 100)].map(Duration::from_millis);
    let mut rows = Vec::new();
    for (name, manner, least) in manners {
        let mut rate = Row::new(name, Unit::PerSecond).bound(Bound::AtLeast(least));
        let [mut p50, mut p99] = ["p50", "p99"].map(|part| Row::new(format!("  latency, {part}"), Unit::Milliseconds));
        for run in 1..=plan.runs() {
            for raw in [true, false] {
                let what = if raw { "raw" } else { "antiphon" };
                plan.step(format!("acknowledged, {name}, run {run}: {what}"));
                let outcome = once(raw, manner, phases);
                for (row, value) in
                    [(&mut rate, outcome.ops_a_second), (&mut p50, outcome.p50), (&mut p99, outcome.p99)]
                {
                    if raw { row.raw.push(value) } else { row.antiphon.push(value) }
                }
            }
        }
        rows.extend([rate, p50, p99]);
    }
    let title = format!(
        "acknowledged: {WRITERS} writers, each with a document of its own, SQLite at the server, ops of {OP_BYTES} bytes"
    );
    let depth = |index: usize| manners[index].1.depth;
    let notes = vec![
        String::from("raw: the server inserts each op as a row, commits what has gathered, and answers with a count."),
        format!("A writer has {}, {} and 1 ops under way at most.", depth(0), depth(1)),
    ];
    Table { title, notes, rows }
}

fn once(raw: bool, manner: Manner, phases: [Duration; 2]) -> Outcome {
    let directory = TempDir::new().expect("there is room for a directory");
    let data = directory.path().to_str().expect("it has a plain name").to_owned();
    let role = if raw { Role::AcknowledgedRaw(data) } else { Role::Server(Some(data)) };
    let (_server, address) = Child::start(&role);
    let (mut load, ()) = Child::start(&Role::AcknowledgedLoad(Load { server: address, raw, manner, phases }));
    load.ask()
}

impl Load {
    /// Connects all, and when it is asked, writes for a while.
    pub(crate) fn run(self, parent: &Parent) {
        smol::block_on(async {
            if self.raw {
                let sockets = join_all((0..WRITERS).map(|_| Socket::connect(self.server))).await;
                parent.tell(&());
                parent.wait();
                let [start, end] = self.measured();
                let writers = sockets.into_iter().map(|socket| smol::spawn(write_raw(socket, self.manner, end)));
                parent.tell(&Timing::outcome(join_all(writers).await, start, end));
            } else {
                let names: Vec<_> = (0..WRITERS).map(|writer| document(&format!("of writer {writer}"))).collect();
                let clients = join_all(names.iter().map(|name| join(self.server, name))).await;
                parent.tell(&());
                parent.wait();
                let [start, end] = self.measured();
                let writers = clients.into_iter().zip(names).map(|((node, link), document)| {
                    let writer = Writer { node, link, document, manner: self.manner };
                    smol::spawn(writer.write(end))
                });
                parent.tell(&Timing::outcome(join_all(writers).await, start, end));
            }
            parent.wait();
        });
    }

    fn measured(&self) -> [Instant; 2] {
        let start = Instant::now() + self.phases[0];
        [start, start + self.phases[1]]
    }
}

/// Ops on their way, and how long those took that arrived.
#[derive(Debug, Default)]
struct Timing {
    appended: u64,
    acknowledged: u64,
    under_way: VecDeque<(u64, Instant)>,
    done: Vec<Done>,
}

/// When ops were acknowledged, how many, and how long that took them.
#[derive(Clone, Copy, Debug)]
struct Done {
    at: Instant,
    ops: u64,
    took: Duration,
}

impl Timing {
    /// Whether another batch may be appended.
    fn has_room(&self, manner: Manner) -> bool {
        self.appended + manner.batch <= self.acknowledged + manner.depth
    }

    fn append(&mut self, ops: u64) {
        self.appended += ops;
        self.under_way.push_back((self.appended, Instant::now()));
    }

    /// Everything below this position is durable at the server.
    fn acknowledge(&mut self, position: u64) {
        let at = Instant::now();
        while let Some((end, appended)) = self.under_way.front().copied().filter(|(end, _)| *end <= position) {
            self.under_way.pop_front();
            self.done.push(Done { at, ops: end - self.acknowledged, took: at - appended });
            self.acknowledged = end;
        }
    }

    fn outcome(writers: Vec<Self>, start: Instant, end: Instant) -> Outcome {
        let done = writers.into_iter().flat_map(|timing| timing.done);
        let done: Vec<_> = done.filter(|done| (start..end).contains(&done.at)).collect();
        let ops: u64 = done.iter().map(|done| done.ops).sum();
        // Batches are of one size.
        let latencies: Vec<_> = done.iter().map(|done| done.took.as_secs_f64() * 1e3).collect();
        let latency = |part| quantile(&latencies, part).unwrap_or_default();
        Outcome { ops_a_second: ops as f64 / (end - start).as_secs_f64(), p50: latency(0.5), p99: latency(0.99) }
    }
}

/// A writer of antiphon's.
struct Writer {
    node: Node,
    link: Link,
    document: DocumentId,
    manner: Manner,
}

impl Writer {
    async fn write(self, end: Instant) -> Timing {
        let Self { node, link, document, manner } = self;
        let mut acknowledgements = node.subscribe_to(|event| matches!(event, Event::Acknowledged { .. }));
        let mut timing = Timing::default();
        while Instant::now() < end {
            while timing.has_room(manner) {
                let bodies = vec![Bytes::from_static(&[7; OP_BYTES]); manner.batch as usize];
                timing.append(manner.batch);
                node.append(&document, bodies).await.expect("it is open");
            }
            if manner.depth == manner.batch {
                link.acknowledged(&document).await.expect("the server writes it");
                timing.acknowledge(timing.appended);
            } else if let Some(Notice::Event(Event::Acknowledged { position, .. })) = acknowledgements.next().await {
                timing.acknowledge(position);
            }
        }
        timing
    }
}

/// The same with a socket alone. A batch is a message.
async fn write_raw(mut socket: Socket, manner: Manner, end: Instant) -> Timing {
    let message = Bytes::from(vec![7; OP_BYTES * manner.batch as usize]);
    let mut timing = Timing::default();
    while Instant::now() < end {
        while timing.has_room(manner) {
            timing.append(manner.batch);
            socket.feed(message.clone()).await;
        }
        socket.flush().await;
        let more = socket.receive().await.expect("the server goes on").get_u64();
        timing.acknowledge(timing.acknowledged + more);
    }
    timing
}

/// Ops that a connection brought, and who is to hear that they are committed.
struct Brought {
    connection: u64,
    message: Bytes,
    committed: Sender<u64>,
}

/// Is a server that inserts what comes, and answers how many ops were committed.
pub(crate) fn serve_raw(parent: &Parent, data: &str) {
    let (to_storage, brought) = mpsc::channel();
    let connection = open_rows(Path::new(data));
    thread::spawn(move || insert(&connection, &brought));
    let connections = AtomicU64::new(0);
    let address = raw::listen(move |socket| {
        serve_writer(socket, connections.fetch_add(1, Ordering::Relaxed), to_storage.clone())
    });
    parent.tell(&address);
    parent.tell_usage()
}

async fn serve_writer(mut socket: Socket, connection: u64, to_storage: mpsc::Sender<Brought>) {
    let (committed, acknowledgements) = unbounded();
    loop {
        let message = async { socket.receive().await.map(Ok) };
        let acknowledgement = async { acknowledgements.recv().await.ok().map(Err) };
        match or(message, acknowledgement).await {
            None => return,
            Some(Ok(message)) => {
                let brought = Brought { connection, message, committed: committed.clone() };
                to_storage.send(brought).expect("the thread goes on");
            }
            Some(Err(ops)) => {
                let more: u64 = iter::from_fn(|| acknowledgements.try_recv().ok()).sum();
                socket.send(Bytes::from_owner((ops + more).to_be_bytes())).await;
            }
        }
    }
}

/// Commits together what has gathered.
fn insert(database: &Connection, brought: &mpsc::Receiver<Brought>) {
    let mut positions = [0_i64; WRITERS as usize];
    while let Ok(first) = brought.recv() {
        let mut committed: BTreeMap<u64, (Sender<u64>, u64)> = BTreeMap::new();
        let transaction = database.unchecked_transaction().expect("nobody else is at it");
        let mut statement = database.prepare_cached(INSERT_ROW).expect("the table is there");
        for Brought { connection, message, committed: to_tell } in iter::once(first).chain(brought.try_iter()) {
            let position = &mut positions[connection as usize];
            let ops = message.chunks(OP_BYTES);
            committed.entry(connection).or_insert((to_tell, 0)).1 += ops.len() as u64;
            for op in ops {
                statement.execute((connection as i64, *position, [1_u8; 16], *position, op)).expect("there is room");
                *position += 1;
            }
        }
        transaction.commit().expect("there is room");
        for (to_tell, ops) in committed.into_values() {
            let _ = to_tell.try_send(ops); // who is gone does not mind
        }
    }
}
