//! The replay: everybody at work, what is done to them meanwhile, and what has come of it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use antiphon::heads::Heads;
use antiphon::op::DocumentId;
use antiphon::rng::Rng;
use antiphon::storage::{Storage, StoredDocument};
use antiphon_node::Error;
use antiphon_sqlite::{Options, SqliteStorage};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use smol::Timer;
use smol::future::or;

use crate::Failure;
use crate::network::Line;
use crate::participant::{Overlap, Participant};
use crate::server::Serving;
use crate::text::Text;
use crate::trace::Trace;
use crate::writer::{Outcome, Report, Session};

/// The server's data directory.
const SERVER: &str = "server";
/// What is read of a log at once.
const READ_COST: u64 = 1 << 20;
/// How often a connection is cut.
const CUTS: u64 = 24;
/// How many sessions at least must have come back.
const RECONNECTS_MIN: u64 = 20;
/// How long nothing may happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has come of it.
#[derive(Serialize)]
pub(crate) struct Summary {
    trace: String,
    txns: u64,
    writers: usize,
    converged: bool,
    matches_end_content: bool,
    ops: u64,
    body_bytes: u64,
    wire_bytes: u64,
    reconnects: u64,
    server_restarts: u64,
    waits: u64,
    seconds: f64,
}

/// What is done to them, when so many transactions are written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Deed {
    ReaderJoins,
    KillServer,
    /// Cuts the connection of one of those who are there: this number, modulo how many they are.
    Cut(u64),
}

/// Replays a trace, and returns what has come of it; and what of it should not have.
pub(crate) fn replay(name: String, trace: Trace, seed: u64) -> Result<(Summary, Vec<&'static str>), Failure> {
    if trace.parts.len() < 2 {
        return Err(format!("{name} can't be replayed: it takes two to write at the same time").into());
    }
    let started = Instant::now();
    let directory = tempfile::tempdir()?;
    let server = Serving::start(&directory.path().join(SERVER))?;
    let mut replay = Replay::new(trace, server, directory.path())?;
    replay.run(seed)?;
    replay.judge(name, started)
}

struct Replay<'a> {
    session: Arc<Session>,
    document: DocumentId,
    directory: &'a Path,
    server: Serving,
    server_restarts: u64,
    reader: Option<Arc<Participant>>,
    progress: ProgressBar,
    reports: (Sender<Report>, Receiver<Report>),
    written: u64,
    outcomes: Vec<Outcome>,
}

impl<'a> Replay<'a> {
    fn new(trace: Trace, server: Serving, directory: &'a Path) -> Result<Self, Failure> {
        let document: DocumentId = "shared text".parse()?;
        let Trace { end_content, transactions, wide, parts } = trace;
        let names = parts.iter().map(|part| format!("writer-{}", part.agent));
        let writers = names.map(|name| Ok(Arc::new(join(&directory.join(name), &document, &server)?)));
        let writers = writers.collect::<Result<Vec<_>, Failure>>()?;
        let authors = writers.iter().enumerate().map(|(number, writer)| (writer.replica(), number)).collect();
        let overlap = Overlap::new(writers.len());
        let session = Session { parts, end_content, transactions, wide, writers, authors, overlap };
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} transactions, {msg}")?;
        Ok(Self {
            session: Arc::new(session),
            document,
            directory,
            server,
            server_restarts: 0,
            reader: None,
            progress: ProgressBar::new(transactions).with_style(style),
            reports: channel(),
            written: 0,
            outcomes: Vec::new(),
        })
    }

    fn run(&mut self, seed: u64) -> Result<(), Failure> {
        for writer in &self.session.writers {
            in_time("for a first session", writer.link.live())?;
        }
        let mut rng = Rng::new(seed);
        for me in 0..self.session.writers.len() {
            let session = self.session.clone();
            self.spawn(move |reports| smol::block_on(session.write(me, reports)));
        }
        for (when, deed) in plan(&mut rng, self.session.transactions) {
            while self.written < when {
                self.hear()?;
            }
            self.carry_out(deed)?;
        }
        while self.outcomes.len() < self.participants().count() {
            self.hear()?;
        }
        self.progress.finish();
        Ok(())
    }

    fn participants(&self) -> impl Iterator<Item = &Arc<Participant>> {
        self.session.writers.iter().chain(&self.reader)
    }

    fn spawn(&self, work: impl FnOnce(&Sender<Report>) -> Result<Outcome, Failure> + Send + 'static) {
        let reports = self.reports.0.clone();
        thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&reports)));
            let outcome = outcome.unwrap_or_else(|_| Err("a participant's thread panicked".into()));
            let _ = reports.send(Report::Done(outcome)); // if nobody listens, the run is over
        });
    }

    fn hear(&mut self) -> Result<(), Failure> {
        match self.reports.1.recv_timeout(PATIENCE) {
            Ok(Report::Written) => {
                self.written += 1;
                self.progress.inc(1);
            }
            Ok(Report::Integrated) => {}
            Ok(Report::Done(outcome)) => self.outcomes.push(outcome?),
            Err(_) => return Err(format!("nothing has happened for {} s", PATIENCE.as_secs()).into()),
        }
        Ok(())
    }

    fn carry_out(&mut self, deed: Deed) -> Result<(), Failure> {
        match deed {
            Deed::ReaderJoins => {
                let reader = Arc::new(join(&self.directory.join("reader"), &self.document, &self.server)?);
                self.reader = Some(reader.clone());
                let session = self.session.clone();
                let agent = session.parts.iter().map(|part| part.agent).max().map_or(0, |agent| agent + 1);
                self.spawn(move |reports| smol::block_on(session.read(&reader, agent, reports)));
            }
            Deed::KillServer => {
                self.server.kill_and_restart()?;
                self.server_restarts += 1;
            }
            Deed::Cut(number) => {
                let everybody: Vec<_> = self.participants().collect();
                let who = everybody[(number % everybody.len() as u64) as usize];
                in_time("for a session to cut", who.cut())?;
            }
        }
        self.progress.set_message(format!(
            "{} reconnects, {} server restarts",
            self.reconnects(),
            self.server_restarts
        ));
        Ok(())
    }

    /// Sessions that were live after one that was before.
    fn reconnects(&self) -> u64 {
        self.participants().map(|participant| participant.ledger().sessions.saturating_sub(1)).sum()
    }

    /// Looks at what everybody has, and at last at what the server's data directory has.
    fn judge(self, name: String, started: Instant) -> Result<(Summary, Vec<&'static str>), Failure> {
        let reconnects = self.reconnects();
        let wire_bytes = self.participants().map(|participant| participant.wire_bytes()).sum();
        let seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let Self { session, document, server, server_restarts, outcomes, directory, .. } = self;
        server.stop()?;
        let served = Stored::read(&directory.join(SERVER), &document)?;

        let same = |outcome: &Outcome| outcome.content == served.content && outcome.heads == served.heads;
        let converged = outcomes.iter().all(same);
        let matches = outcomes.iter().all(|outcome| outcome.content == session.end_content);
        let matches_end_content = matches && served.content == session.end_content;
        let failures = [
            (!converged, "the replicas differ"),
            (!matches_end_content, "a replica's text is not that at the end of the trace"),
            (served.ops != session.transactions, "the server does not hold one op for each transaction"),
            (!session.overlap.is_complete(), "a writer never had ops under way while another wrote"),
            (reconnects < RECONNECTS_MIN, "too few sessions were cut and came back"),
        ];
        let summary = Summary {
            trace: name,
            txns: session.transactions,
            writers: session.writers.len(),
            converged,
            matches_end_content,
            ops: served.ops,
            body_bytes: served.body_bytes,
            wire_bytes,
            reconnects,
            server_restarts,
            waits: outcomes.iter().map(|outcome| outcome.waits).sum(),
            seconds,
        };
        Ok((summary, failures.into_iter().filter_map(|(failed, what)| failed.then_some(what)).collect()))
    }
}

/// What is done to them, and when.
fn plan(rng: &mut Rng, transactions: u64) -> Vec<(u64, Deed)> {
    let mut between = |from: u64, to: u64| transactions * (from + rng.below(to - from)) / 100;
    let mut plan = vec![(between(35, 65), Deed::KillServer), (between(50, 80), Deed::ReaderJoins)];
    plan.extend((0..CUTS).map(|_| (rng.below(transactions), Deed::Cut(rng.next_u64()))));
    plan.sort_unstable();
    plan
}

fn join(directory: &Path, document: &DocumentId, server: &Serving) -> Result<Participant, Failure> {
    let line = smol::block_on(Line::to(server.address()))?;
    Participant::start(directory, document, line)
}

fn in_time<T>(what: &str, future: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(format!("waited {what} for {} s in vain", PATIENCE.as_secs()).into())
    };
    smol::block_on(or(async { Ok(future.await?) }, late))
}

/// What a data directory holds, read when nobody has it open.
struct Stored {
    heads: Arc<Heads>,
    ops: u64,
    body_bytes: u64,
    content: String,
}

impl Stored {
    fn read(directory: &Path, document: &DocumentId) -> Result<Self, Failure> {
        let mut storage = SqliteStorage::open_directory(directory, &Options::default())?;
        let StoredDocument { heads, tail, .. } = storage.document(document)?;
        let (mut text, mut position, mut body_bytes) = (Text::of(0, false), 0, 0);
        while position < tail {
            let entries = storage.read(document, position, READ_COST)?;
            let bodies = entries.iter().map(|entry| entry.op.body.bytes().ok_or("an op has no body"));
            let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
            text.integrate(bodies.iter().map(|body| &body[..]))?;
            body_bytes += bodies.iter().map(|body| body.len() as u64).sum::<u64>();
            position += entries.len() as u64;
        }
        Ok(Self { heads: heads.into(), ops: tail, body_bytes, content: text.content() })
    }
}
