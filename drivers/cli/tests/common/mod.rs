//! Child processes that are waited for, but not for ever; and replicas in this process that write to them.
#![allow(dead_code, reason = "each test uses what it needs")]

pub(crate) mod demand;
pub(crate) mod light;
pub(crate) mod measure;
pub(crate) mod proxy;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::Options;
use antiphon::storage::Continuity;
use antiphon_memory::MemoryStorage;
use antiphon_node::{Config, Link, LinkOptions, Node, RedialPolicy};
use antiphon_websocket::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything here takes, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, with nothing of this environment that it would obey.
pub(crate) fn antiphon<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(arguments);
    without_surroundings(&mut command);
    command
}

/// The same, started by a shell that says `before` of limits and signals, which the binary inherits.
pub(crate) fn under_shell(before: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_antiphon")).args(arguments);
    without_surroundings(&mut command);
    command
}

fn without_surroundings(command: &mut Command) {
    command.env_remove("ANTIPHON_TOKEN").env_remove("ANTIPHON_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it said on stdout, if it did what it should.
    pub(crate) fn good(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{:?}", String::from_utf8_lossy(&self.stdout));
        String::from_utf8(self.stdout).expect("text")
    }

    /// The only object on stdout.
    pub(crate) fn object(self) -> Value {
        serde_json::from_str(&self.good()).expect("one object")
    }
}

/// Runs a command with this on its stdin.
pub(crate) fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
    let mut process = Process::start(arguments);
    let mut stdin = process.stdin.take().expect("piped");
    let input = input.as_ref().to_owned();
    // It may end before it has read everything.
    let writing = thread::spawn(move || _ = stdin.write_all(&input));
    let ended = process.end();
    writing.join().expect("writing does not panic");
    ended
}

/// A process at work. It is killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    stderr: Option<JoinHandle<String>>,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::spawn(antiphon(arguments))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                loop {
                    let mut line = Vec::new();
                    let read = stdout.read_until(b'\n', &mut line).expect("stdout can be read");
                    if read == 0 || sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let stderr = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut text = String::new();
                stderr.read_to_string(&mut text).expect("stderr is text");
                text
            })
        });
        Self { stdin: child.stdin.take(), child, lines, stderr }
    }

    /// The next line on stdout.
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("one more line in time");
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until it ends.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let mut stdout = Vec::new();
        // Stdout ends with the process.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            stdout.extend(line);
        }
        let status = self.wait();
        let stderr = self.stderr.take().expect("piped").join().expect("reading does not panic");
        Ended { code: status.code(), stdout, stderr }
    }

    fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.child.try_wait().expect("it can be waited for") {
            return status;
        }
        // The lines have ended, or it took too long: in the first case it is about to end.
        let (done, waiting) = channel::<()>();
        let pid = Pid::from_child(&self.child);
        thread::spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let status = self.child.wait().expect("it can be waited for");
        drop(done);
        status
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended
        let _ = self.child.wait();
    }
}

/// A server process.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Server {
    /// On any port, in memory.
    pub(crate) fn memory() -> Self {
        Self::with(&[])
    }

    /// On any port, in a directory.
    pub(crate) fn on(data: &Path) -> Self {
        Self::with(&["--data", text(data)])
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::listening("127.0.0.1:0", arguments)
    }

    pub(crate) fn listening(address: &str, arguments: &[&str]) -> Self {
        Self::spawn(antiphon([&["serve", "--listen", address], arguments].concat()))
    }

    /// What is given a command that serves.
    pub(crate) fn spawn(command: Command) -> Self {
        let process = Process::spawn(command);
        let line = process.line();
        let url = line.strip_prefix("listening ").unwrap_or_else(|| panic!("{line}")).to_owned();
        let _: SocketAddr = url.strip_prefix("ws://").expect("ws").parse().expect("an address");
        Self { process, url }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("ws://")
    }

    /// SIGKILL, and the same again on the same port and directory.
    pub(crate) fn killed_and_restarted(self, data: &Path) -> Self {
        let address = self.address().to_owned();
        self.process.kill();
        Self::listening(&address, &["--data", text(data)])
    }

    pub(crate) fn terminate(self) -> Ended {
        self.process.signal(Signal::TERM);
        self.process.end()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// A directory that goes with the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::TempDir::new().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        text(&self.path(name)).to_owned()
    }
}

/// All bodies that a directory holds of a document, in order.
pub(crate) fn bodies(data: &Path, document: &str) -> Vec<String> {
    let document: DocumentId = document.parse().expect("a good name");
    let looked = antiphon_sqlite::look(data, |view| {
        let (mut entries, tail) = (Vec::new(), view.document(&document)?.tail);
        while (entries.len() as u64) < tail {
            entries.extend(view.read(&document, entries.len() as u64, 1 << 20)?);
        }
        Ok(entries)
    });
    let entries = looked.expect("the directory can be looked at");
    let body = |entry: &antiphon::op::Entry| {
        String::from_utf8(entry.op.body.bytes().expect("no blank").to_vec()).expect("text")
    };
    entries.iter().map(body).collect()
}

/// Keeps a directory's database from being written to, as a stalled disk would.
pub(crate) struct Stalled(rusqlite::Connection);

impl Stalled {
    pub(crate) fn new(data: &Path) -> Self {
        let database = rusqlite::Connection::open(data.join(antiphon_sqlite::DATABASE_NAME)).expect("it is there");
        database.busy_timeout(PATIENCE).expect("a timeout");
        database.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        Self(database)
    }

    pub(crate) fn go_on(self) {
        self.0.execute_batch("ROLLBACK").expect("the lock is given back");
    }
}

// -------------------------------------------------------------------------------------------- in this process

/// A replica in memory with a link to a server.
pub(crate) struct Replica {
    pub(crate) node: Node,
    pub(crate) link: Link,
    pub(crate) document: DocumentId,
}

impl Replica {
    pub(crate) fn connect(url: &str, document: &str) -> Self {
        let opened = async_io::block_on(Node::open(MemoryStorage::new(), Continuity::Proven, Config::default()));
        let (node, driver) = opened.expect("memory opens");
        thread::spawn(move || async_io::block_on(driver));
        let document: DocumentId = document.parse().expect("a good name");
        node.open_document(&document, Options::default()).expect("it runs");
        let policy = RedialPolicy {
            base: Duration::from_millis(2),
            cap: Duration::from_millis(20),
            healthy_after: Duration::from_secs(10),
        };
        let client = Client::new(url).expect("a good address");
        let link = node.connect(client, LinkOptions::default(), policy).expect("it runs");
        Self { node, link, document }
    }

    /// Appends an op, and waits until it is durable at the server. False when the node was shut down meanwhile.
    pub(crate) fn write(&self, body: String) -> bool {
        self.write_all(&[body])
    }

    /// The same of many ops, one after the other, waiting only for the last.
    pub(crate) fn write_all(&self, bodies: &[String]) -> bool {
        async_io::block_on(async {
            for body in bodies {
                self.node.append(&self.document, vec![body.clone().into()]).await?;
            }
            self.link.acknowledged(&self.document).await
        })
        .is_ok()
    }
}
