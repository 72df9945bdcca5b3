//! Documents whose content follows from their names, and child processes that write or read them.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use antiphon::digest::{BodyHash, Chain};
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, Origin, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::snapshot::Snapshot;
use antiphon::storage::{Batch, Identity, Request, Storage, Transaction};
use antiphon::timeline::TimelineRecord;
use antiphon_sqlite::{Error, Options, SqliteStorage};
use bytes::Bytes;

/// The log of one author in one document: any part of it can be made again.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) document: DocumentId,
    pub(crate) author: ReplicaId,
    /// Bytes of a body.
    pub(crate) size: usize,
    head: Head,
}

impl Script {
    pub(crate) fn new(name: &str, size: usize) -> Self {
        let author = ReplicaId([name.bytes().map(u64::from).sum::<u64>() as u8; 16]);
        Self { document: name.parse().unwrap(), author, size, head: Head::NONE }
    }

    fn body(&self, seq: u64) -> Bytes {
        let mut rng = Rng::new(seq ^ u64::from(self.author.0[0]) << 32);
        let mut bytes: Vec<u8> = (0..self.size.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        bytes.truncate(self.size);
        bytes.into()
    }

    /// The next entries of the log.
    pub(crate) fn entries(&mut self, count: u64) -> Vec<Entry> {
        let mut next = || {
            let body = self.body(self.head.seq + 1);
            self.head = self.head.then(BodyHash::of(&body));
            let id = OpId { author: self.author, seq: self.head.seq };
            Entry {
                op: Op { id, body: Body::Bytes(body) },
                chain: self.head.chain,
                origin: Some(Origin::of(self.author, Timeline::new(5))),
            }
        };
        (0..count).map(|_| next()).collect()
    }

    /// The next entries, with the cursor on their author's log that goes with them.
    pub(crate) fn batch(&mut self, count: u64) -> Batch {
        let position = self.head.seq;
        let entries = self.entries(count);
        let cursor = Cursor { timeline: Timeline::new(5), position: position + count };
        let (document, cursors) = (self.document.clone(), vec![(self.author, cursor)]);
        Batch { document, position, entries, cursors, timeline: None, salvaged: None }
    }

    pub(crate) fn write(&mut self, count: u64) -> Transaction {
        Transaction::Append(self.batch(count).into())
    }

    pub(crate) fn request(&mut self, count: u64) -> Request {
        Request::Write(self.write(count))
    }

    /// Demands that a storage holds the beginning of this log, with its head and cursor, and tells how much of it.
    /// This script then goes on from there.
    pub(crate) fn resume(&mut self, storage: &mut SqliteStorage) -> u64 {
        let state = storage.document(&self.document).unwrap();
        self.head = Head::NONE;
        for _ in 0..state.horizon {
            self.head = self.head.then(BodyHash::of(&self.body(self.head.seq + 1)));
        }
        while self.head.seq < state.tail {
            let entries = storage.read(&self.document, self.head.seq, 1 << 20).unwrap();
            assert!(!entries.is_empty(), "{}: entries from {} on are missing", self.document, self.head.seq);
            assert!(entries == self.entries(entries.len() as u64), "{}: other entries", self.document);
        }
        assert_eq!(state.heads.get(self.author), self.head, "{}: the head", self.document);
        let cursor = storage.cursor(&self.document, self.author).unwrap().map(|cursor| cursor.position);
        assert_eq!(cursor.unwrap_or(0), state.tail, "{}: the cursor", self.document);
        state.tail
    }
}

/// A snapshot with so large a body, made of its number, that covers those of lower numbers.
pub(crate) fn snapshot(number: u64, size: usize) -> Snapshot {
    let heads =
        (1..=3).map(|author| (ReplicaId([author; 16]), Head { seq: 10 * number, chain: Chain(number) })).collect();
    let mut rng = Rng::new(number);
    let body: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    Snapshot::new(heads, Bytes::from(body).slice(..size))
}

/// All bytes of a snapshot.
pub(crate) fn bytes_of(snapshot: &Snapshot) -> Bytes {
    [snapshot.read(0, snapshot.id().head_bytes.into()), snapshot.body().clone()].concat().into()
}

/// What stages a snapshot in a document, in pieces of so many bytes.
pub(crate) fn staging(document: &DocumentId, snapshot: &Snapshot, size: usize) -> Vec<Transaction> {
    let (document, id, all) = (document.clone(), snapshot.id(), bytes_of(snapshot));
    let piece = |offset: usize| {
        let bytes = all.slice(offset..all.len().min(offset + size));
        Transaction::Stage { document: document.clone(), id, offset: offset as u64, bytes }
    };
    (0..all.len()).step_by(size).map(piece).collect()
}

pub(crate) fn install(document: &DocumentId, open: u64) -> Transaction {
    let timeline = TimelineRecord { open, timeline: Timeline::new(100 + open), begins: 0 };
    Transaction::Install { document: document.clone(), timeline }
}

/// All bytes of a document's snapshot, from the storage.
pub(crate) fn read_snapshot(storage: &mut SqliteStorage, document: &DocumentId) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let Some(id) = storage.document(document)?.snapshot else { return Ok(bytes) };
    loop {
        let piece = storage.snapshot(document, id, bytes.len() as u64, 100_000)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}

pub(crate) fn open(directory: &Path) -> SqliteStorage {
    SqliteStorage::open_directory(directory, &Options::default()).unwrap()
}

pub(crate) fn open_replica(directory: &Path, seed: u64) -> (SqliteStorage, Identity) {
    SqliteStorage::open_replica(directory, &Options::default(), &mut Rng::new(seed)).unwrap()
}

/// Why a directory can't be opened.
pub(crate) fn refusal(directory: &Path) -> Error {
    match SqliteStorage::open_directory(directory, &Options::default()) {
        Ok(_) => panic!("{} was opened", directory.display()),
        Err(error) => error,
    }
}

/// Copies the files of a directory over those of another.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

const DIRECTORY: &str = "ANTIPHON_TEST_DIRECTORY";

/// In a child process: the directory that it is to work on. A test that is run by itself is no child.
pub(crate) fn child_directory() -> Option<String> {
    std::env::var(DIRECTORY).ok()
}

/// This test binary once more, in a process of its own, to run the test `name` on a directory. It tells how it goes by
/// lines on stderr.
pub(crate) fn child_command(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_child(&mut command, name, directory);
    command
}

/// The same, started by a shell that runs `before` in the child's process.
pub(crate) fn child_under_shell(before: &str, name: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    as_child(&mut command, name, directory);
    command
}

fn as_child(command: &mut Command, name: &str, directory: &Path) {
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
}

/// A child process that tells how it goes.
pub(crate) struct Told {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Told {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The rest of the next line that begins with `word`.
    pub(crate) fn hear(&mut self, word: &str) -> Option<String> {
        self.lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()))
    }

    /// Kills the process, and hears the last line that begins with `word`.
    pub(crate) fn kill(mut self, word: &str) -> Option<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut last = None;
        while let Some(heard) = self.hear(word) {
            last = Some(heard);
        }
        last
    }
}
