//! `antiphon demo`: two writers, a late reader, and a server that is killed; two stores that are in step by themselves; and
//! what is on disk in the end.

mod pets;
mod server;
mod verdict;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use antiphon::op::DocumentId;
use antiphon::rng::Rng;
use antiphon_node::{Link, Node};
use antiphon_sqlite::Durability;
use async_io::{Timer, block_on};
use futures_lite::future::zip;
use serde::Serialize;
use tempfile::TempDir;

use crate::arguments::{Access, Seconds, Url};
use crate::error::Failure;
use crate::host::{self, Host, Place, Purpose};
use crate::output::Output;

use pets::Pets;
use server::Server;

/// How long they may take to agree.
const PATIENCE: Seconds = Seconds(Duration::from_secs(30));
/// The longest time between two edits of a writer.
const PAUSE_MAX_US: u64 = 4_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fixes who writes how much, and when the server is killed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// What has happened so far, when an act is over.
#[derive(Debug, Serialize)]
struct Act {
    at_ms: u128,
    act: String,
    ops: Ops,
    #[serde(skip_serializing_if = "Option::is_none")]
    pets: Option<Pets>,
}

/// Durable at each.
#[derive(Debug, Serialize)]
struct Ops {
    server: u64,
    a: u64,
    b: u64,
    c: u64,
}

/// How it ended.
#[derive(Debug, Serialize)]
struct Outcome {
    in_step: bool,
    replicas: usize,
    ops: u64,
    heads: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let directory = TempDir::with_prefix("antiphon-demo-").map_err(|error| {
        let error = format!("there is no temporary directory: {error}");
        Failure::new("demo_directory", error, "set TMPDIR to one that this user may write")
    })?;
    let names = ["server", "a", "b", "c"];
    let places = names.map(|name| directory.path().join(name));
    let mut demo = Demo::open(arguments.seed, output, places.clone())?;
    demo.play()?;
    let (document, written) = demo.close()?;
    // Everybody has left: what is compared are directories in their own right, not what somebody has in memory.
    let judged = verdict::judge(names.into_iter().zip(places.iter().map(PathBuf::as_path)), &document, written);
    let replicas = names.len();
    if output.is_json() {
        output.object(&match &judged {
            Ok(held) => Outcome { in_step: true, replicas, ops: held.ops, heads: Some(held.hex()) },
            Err(_) => Outcome { in_step: false, replicas, ops: written, heads: None },
        })?;
    } else if let Ok(held) = &judged {
        output.line(format!("in step: {replicas} replicas, {} ops, heads {}", held.ops, held.hex()))?;
    }
    judged.map(|_| ())
}

/// A replica in this process, with a directory of its own.
struct Client {
    host: Host,
    link: Option<Link>,
    name: &'static str,
    written: u64,
}

impl Client {
    fn open(name: &'static str, directory: &std::path::Path, document: &DocumentId) -> Result<Self, Failure> {
        let host = Host::open(Place::Directory(directory, Durability::Commit), Purpose::Command, None)?;
        host.node().open_document(document, host::follower())?;
        Ok(Self { host, link: None, name, written: 0 })
    }

    fn node(&self) -> &Node {
        self.host.node()
    }

    fn connect(&mut self, url: &Url) -> Result<(), Failure> {
        let nobody = Access { ca: None, token: None };
        self.link = Some(host::connect(self.node(), url, &nobody)?);
        Ok(())
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            link.disconnect();
        }
    }

    /// Writes ops, with a little time after each.
    async fn write(&mut self, document: &DocumentId, ops: u64, mut dice: Rng) -> Result<(), Failure> {
        for _ in 0..ops {
            self.written += 1;
            let body = format!("{} wrote {}", self.name, self.written);
            self.node().append(document, vec![body.into()]).await?;
            Timer::after(Duration::from_micros(dice.below(PAUSE_MAX_US))).await;
        }
        Ok(())
    }

    /// Waits until this many ops are durable here, and the server has all that is.
    async fn agrees(&self, document: &DocumentId, ops: u64) -> Result<(), Failure> {
        let Some(link) = &self.link else { return Ok(()) };
        let holds = async {
            let mut entries = self.node().follow(document, 0);
            while entries.position() < ops {
                entries.next().await?;
            }
            link.in_step(document).await
        };
        match host::within(PATIENCE, holds).await {
            Some(reached) => Ok(reached.map(|_| ())?),
            None => Err(Failure::deadline(
                format!("{} is not in step after {PATIENCE} s", self.name),
                "try again on a machine that is less busy",
            )),
        }
    }
}

// -------------------------------------------------------------------------------------------- the acts

struct Demo<'a> {
    output: &'a mut Output,
    begun: Instant,
    document: DocumentId,
    dice: Rng,
    places: [PathBuf; 4],
    server: Option<Server>,
    url: Url,
    a: Client,
    b: Client,
    c: Option<Client>,
}

impl<'a> Demo<'a> {
    fn open(seed: u64, output: &'a mut Output, places: [PathBuf; 4]) -> Result<Self, Failure> {
        let begun = Instant::now();
        let document: DocumentId = "demo".parse().expect("a valid name");
        let server = Server::start(&places[0], "127.0.0.1:0")?;
        let url = format!("ws://{}/", server.address).parse().expect("the server's own address");
        let a = Client::open("a", &places[1], &document)?;
        let b = Client::open("b", &places[2], &document)?;
        let dice = Rng::new(seed);
        Ok(Self { output, begun, document, dice, places, server: Some(server), url, a, b, c: None })
    }

    fn play(&mut self) -> Result<(), Failure> {
        self.headline()?;
        let pid = self.server.as_ref().map_or(0, Server::pid);
        self.tell(format!("a server runs as process {pid}, on SQLite, at {}", self.url.as_str()))?;

        self.a.connect(&self.url)?;
        self.b.connect(&self.url)?;
        self.write(60)?;
        self.tell("a and b write at the same time".into())?;
        self.agree("they are in step")?;

        self.b.disconnect();
        self.write(60)?;
        self.tell("b has gone offline, and both write on".into())?;
        self.b.connect(&self.url)?;
        self.agree("b is back, and has what a wrote, and a what b wrote")?;

        self.write_across_a_kill()?;
        let address = self.url.as_str().trim_start_matches("ws://").trim_end_matches('/').to_owned();
        self.server = Some(Server::start(&self.places[0], &address)?);
        self.tell("the server runs again, on what its directory holds".into())?;
        self.agree("a and b have connected again by themselves, and brought what it lacked")?;

        let mut c = Client::open("c", &self.places[3], &self.document)?;
        c.connect(&self.url)?;
        self.c = Some(c);
        self.write(20)?;
        self.tell("c comes late, while a and b write on".into())?;
        self.agree("c has read all of it")?;

        let pets = block_on(pets::meet([self.a.node(), self.b.node()]))?;
        self.tell_of("stores fido, at a, and felix, at b, have set a pet each, and hold both".into(), Some(pets))
    }

    /// Both write at the same time, each about as many ops.
    fn write(&mut self, ops: u64) -> Result<(), Failure> {
        let [more, other] = [(); 2].map(|()| self.dice.below(ops / 2));
        let dice = [(); 2].map(|()| Rng::new(self.dice.next_u64()));
        let [for_a, for_b] = dice;
        let (a, b) = (&mut self.a, &mut self.b);
        let written = zip(a.write(&self.document, ops + more, for_a), b.write(&self.document, ops + other, for_b));
        let (a, b) = block_on(written);
        a.and(b)
    }

    fn write_across_a_kill(&mut self) -> Result<(), Failure> {
        let (server, after) = (self.server.take(), Duration::from_millis(20 + self.dice.below(60)));
        let kill = std::thread::spawn(move || {
            std::thread::sleep(after);
            server.map(|server| (server.pid(), server.kill()).0)
        });
        self.write(60)?;
        let killed = kill.join().ok().flatten().unwrap_or_default();
        self.tell(format!("process {killed}, the server, is killed as they write: SIGKILL; both write on"))
    }

    /// Lets them come in step.
    fn agree(&mut self, act: &str) -> Result<(), Failure> {
        let written = self.a.written + self.b.written;
        for client in [&self.a, &self.b].into_iter().chain(&self.c) {
            block_on(client.agrees(&self.document, written))?;
        }
        self.tell(act.into())
    }

    /// Everybody ends in order. Returns how many ops were written.
    fn close(self) -> Result<(DocumentId, u64), Failure> {
        let Self { document, server, a, b, c, .. } = self;
        let written = a.written + b.written;
        for client in [a, b].into_iter().chain(c) {
            client.host.close()?;
        }
        server.map_or(Ok(()), Server::end)?;
        Ok((document, written))
    }

    // ---------------------------------------------------------------------------------------- telling

    fn held(&self) -> Ops {
        let of = |client: &Client| client.node().document(&self.document).map_or(0, |(_, tail)| tail);
        // While it is being written it can be looked at all the same.
        let server = antiphon_sqlite::look(&self.places[0], |view| Ok(view.document(&self.document)?.tail));
        Ops { server: server.unwrap_or(0), a: of(&self.a), b: of(&self.b), c: self.c.as_ref().map_or(0, of) }
    }

    fn headline(&mut self) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        let told = self.output.line(format!(
            "{:>8}  {:^22}\n{:>8}  {:>6} {:>4} {:>4} {:>4}  act",
            "", "ops held by", "time", "server", "a", "b", "c"
        ));
        self.shown(told)
    }

    fn tell(&mut self, act: String) -> Result<(), Failure> {
        self.tell_of(act, None)
    }

    fn tell_of(&mut self, act: String, pets: Option<Pets>) -> Result<(), Failure> {
        let act = Act { at_ms: self.begun.elapsed().as_millis(), act, ops: self.held(), pets };
        let told = if self.output.is_json() {
            self.output.object(&act)
        } else {
            let Act { at_ms, act, ops: Ops { server, a, b, c }, pets } = act;
            let at = format!("{}.{:03} s", at_ms / 1000, at_ms % 1000);
            let told = self.output.line(format!("{at:>8}  {server:>6} {a:>4} {b:>4} {c:>4}  {act}"));
            told.and_then(|()| pets.map_or(Ok(()), |pets| pets.tell(self.output)))
        };
        self.shown(told)
    }

    /// Who has stopped reading does not stop the demo: its exit code still tells.
    fn shown(&mut self, told: Result<(), Failure>) -> Result<(), Failure> {
        match told.and_then(|()| self.output.flush()) {
            Err(Failure::Unread) => Ok(()),
            shown => shown,
        }
    }
}
