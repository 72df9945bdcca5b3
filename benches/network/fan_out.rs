//! Live fan-out: one writes, fifty read, and the server's CPU time is divided by the deliveries.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use smol::Timer;
use smol::future::poll_once;
use tempfile::TempDir;

use crate::child::{Child, Parent, Usage};
use crate::raw::{self, Socket};
use crate::reader::Reader;
use crate::replica::{document, join};
use crate::report::{Bound, Row, Table, Unit};
use crate::{Plan, Role};

const READERS: u64 = 50;
const OP_BYTES: usize = 100;
const PACE: u32 = 500;
/// How long a recording may take to reach its files.
const RECORDING_DEADLINE: Duration = Duration::from_secs(10);

/// Who writes, and who reads.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Load {
    server: SocketAddr,
    ops: u64,
    /// Ops a second; as fast as it goes if there is none.
    pace: Option<u32>,
    with: With,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum With {
    Antiphon,
    /// So many ops to a message.
    Raw(u64),
}

/// Frames that came to all readers together.
type Frames = u64;

pub(crate) fn measure(plan: &Plan) -> Table {
    let kinds = [(Some(PACE), plan.pick(1_000, 20)), (None, plan.pick(20_000, 100))];
    let mut rows = Vec::new();
    for (pace, ops) in kinds {
        let how = if pace.is_some() { format!("{PACE} ops/s") } else { String::from("a burst") };
        let row = |storage: &str| Row::new(format!("{how}, {storage}"), Unit::Microseconds);
        let mut memory = row("in memory").bound(Bound::Times(1.5));
        let mut sqlite = row("SQLite at the server").bound(Bound::Times(2.5));
        // A tenth of the throughput.
        let mut recorded = row("in memory, recorded").bound(Bound::Times(1.11));
        let mut packed = row("in memory; raw packs as many");
        let mut count = Row::new(format!("{how}, ops a frame"), Unit::Count);
        for run in 1..=plan.runs() {
            let step = |what| plan.step(format!("fan-out, {how}, run {run}: {what}"));
            let load = |server, with| Load { server, ops, pace, with };
            step("raw");
            let (raw, ..) = once(&Role::FanOutRaw, |server| load(server, With::Raw(1)));
            step("in memory");
            let (cpu, frames, _) = once(&Role::Server(None), |server| load(server, With::Antiphon));
            memory.antiphon.push(cpu);
            step("recorded");
            let directory = TempDir::new().expect("there is room for a directory");
            let name = |directory: &TempDir| directory.path().to_str().expect("it has a plain name").to_owned();
            let recording = Role::RecordedServer(name(&directory));
            let (cpu, _, _recorder) = once(&recording, |server| load(server, With::Antiphon));
            recorded.antiphon.push(cpu);
            await_recording(&directory, ops * OP_BYTES as u64);
            step("SQLite");
            let directory = TempDir::new().expect("there is room for a directory");
            let data = name(&directory);
            let (cpu, ..) = once(&Role::Server(Some(data)), |server| load(server, With::Antiphon));
            sqlite.antiphon.push(cpu);
            memory.raw.push(raw);
            sqlite.raw.push(raw);
            if pace.is_none() {
                step("raw, packed");
                let ops_a_frame = (READERS * ops) as f64 / frames as f64;
                count.antiphon.push(ops_a_frame);
                let with = With::Raw(ops_a_frame.round().max(1.0) as u64);
                packed.raw.push(once(&Role::FanOutRaw, |server| load(server, with)).0);
            }
        }
        packed.antiphon.clone_from(&memory.antiphon);
        recorded.raw.clone_from(&memory.antiphon);
        rows.extend([memory, recorded, sqlite]);
        if pace.is_none() {
            rows.extend([packed, count]);
        }
    }
    let title =
        format!("fan-out: server's CPU time per delivery; 1 writer, {READERS} readers, single ops of {OP_BYTES} bytes");
    let notes = vec![
        String::from("raw: each message is sent on to each reader, one op a message; flushed when no more has come."),
        String::from(
            "recorded: all that happens to the server goes into a trace; beside it, not raw, but the server without.",
        ),
        String::from(
            "In a burst antiphon packs what gathers while it writes; a raw broadcast does not, unless it says so.",
        ),
    ];
    Table { title, notes, rows }
}

/// A recording gathers before it writes, and a server that is killed does not end it: waits until it holds so many bytes.
fn await_recording(directory: &TempDir, bytes: u64) {
    let recorded = || -> u64 {
        let files = fs::read_dir(directory.path()).expect("it is there").flatten();
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    };
    let began = Instant::now();
    while recorded() < bytes {
        assert!(began.elapsed() < RECORDING_DEADLINE, "only {} of {bytes} bytes are recorded", recorded());
        thread::sleep(Duration::from_millis(1));
    }
}

/// Microseconds of the server's CPU time per delivery, how many frames that were, and the server, which still runs.
fn once(server: &Role, load: impl FnOnce(SocketAddr) -> Load) -> (f64, Frames, Child) {
    let (mut server, address) = Child::start(server);
    let load = load(address);
    let deliveries = load.ops * READERS;
    let (mut load, ()) = Child::start(&Role::FanOutLoad(load));
    let before: Usage = server.ask();
    let frames = load.ask();
    let after: Usage = server.ask();
    ((after.cpu - before.cpu) * 1e6 / deliveries as f64, frames, server)
}

impl Load {
    /// Connects all, and when it is asked, writes until everybody has everything.
    pub(crate) fn run(self, parent: &Parent) {
        smol::block_on(async {
            match self.with {
                With::Antiphon => self.antiphon(parent).await,
                With::Raw(ops_a_message) => self.raw(parent, ops_a_message).await,
            }
        });
    }

    async fn antiphon(self, parent: &Parent) {
        let document = document("notes");
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(Reader::join(self.server, &document).await);
        }
        let (writer, link) = join(self.server, &document).await;
        let received = |readers: &[Reader]| -> Frames { readers.iter().map(Reader::frames_received).sum() };
        let before = received(&readers);
        let reading = readers.into_iter().map(|mut reader| {
            smol::spawn(async move {
                reader.read_to(self.ops).await;
                reader
            })
        });
        let reading: Vec<_> = reading.collect();
        parent.tell(&());
        parent.wait();
        let start = Instant::now();
        for number in 0..self.ops {
            self.wait_for_turn(start, number).await;
            let mut body = [7; OP_BYTES];
            body[..8].copy_from_slice(&number.to_le_bytes()); // no two alike: a trace would name the first
            writer.append(&document, vec![Bytes::copy_from_slice(&body)]).await.expect("it is open");
        }
        link.acknowledged(&document).await.expect("the server writes it");
        let readers = join_all(reading).await;
        parent.tell(&(received(&readers) - before));
        parent.wait();
    }

    async fn raw(self, parent: &Parent, ops_a_message: u64) {
        let messages = self.ops.div_ceil(ops_a_message);
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut socket = Socket::connect(self.server).await;
            socket.send(READER).await;
            socket.receive().await.expect("the server knows it");
            readers.push(smol::spawn(async move {
                for _ in 0..messages {
                    socket.receive().await.expect("the server goes on");
                }
                socket
            }));
        }
        let mut writer = Socket::connect(self.server).await;
        writer.send(WRITER).await;
        writer.receive().await.expect("the server knows it");
        parent.tell(&());
        parent.wait();
        let start = Instant::now();
        let message = Bytes::from(vec![7; OP_BYTES * ops_a_message as usize]);
        for number in 0..messages {
            self.wait_for_turn(start, number).await;
            writer.feed(message.clone()).await;
            if self.pace.is_some() {
                writer.flush().await;
            }
        }
        writer.flush().await;
        let _sockets = join_all(readers).await;
        parent.tell(&(READERS * messages));
        parent.wait();
    }

    async fn wait_for_turn(&self, start: Instant, number: u64) {
        if let Some(pace) = self.pace {
            Timer::at(start + Duration::from_secs(number) / pace).await;
        }
    }
}

/// What a client says first, and the server after it.
const READER: Bytes = Bytes::from_static(b"reader");
const WRITER: Bytes = Bytes::from_static(b"writer");

/// Is a raw broadcast: what the writer sends goes to all readers.
pub(crate) fn serve_raw(parent: &Parent) {
    let readers: Arc<Mutex<Vec<Socket>>> = Arc::default();
    let address = raw::listen(move |mut socket| {
        let readers = readers.clone();
        async move {
            let who = socket.receive().await.expect("a client says who it is");
            socket.send(who.clone()).await;
            if who == READER {
                return readers.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
            }
            let mut readers = std::mem::take(&mut *readers.lock().unwrap_or_else(PoisonError::into_inner));
            while let Some(message) = socket.receive().await {
                let mut next = Some(message);
                while let Some(message) = next {
                    for reader in &mut readers {
                        reader.feed(message.clone()).await;
                    }
                    next = poll_once(socket.receive()).await.flatten();
                }
                for reader in &mut readers {
                    reader.flush().await;
                }
            }
        }
    });
    parent.tell(&address);
    parent.tell_usage()
}
