//! Servers and their clients over WebSockets on loopback, in processes of their own, each beside a raw baseline.
//!
//! ```text
//! cargo bench --bench network                 # all figures: a few minutes
//! cargo bench --bench network -- fan-out      # one of them: fan-out, catch-up, acknowledged, idle
//! cargo bench --bench network -- --json       # each row as an object, one a line
//! cargo bench --bench network -- --test       # whether it works: some seconds, and figures that mean nothing
//! ```
//!
//! A raw baseline sends binary messages with the same payload through the same WebSocket library, with the same buffers,
//! and flushes as seldom; it keeps nothing in step, and nobody who was away gets what was missed. Runs of antiphon and of
//! its baselines alternate, so that a noisy moment is nobody's alone. What is printed are medians: of all runs, and for
//! the ratio of those side by side.
//!
//! CPU time is that of the whole server process, the system's part included.

// A bench is a driver: here clocks are read.
#![expect(clippy::disallowed_methods, reason = "the core is handed the time, and this is where it comes from")]

mod acknowledged;
mod catch_up;
mod child;
mod fan_out;
mod idle;
mod raw;
mod reader;
mod replica;
mod report;

use std::env;
use std::process::ExitCode;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::child::Parent;
use crate::report::Table;

/// What this program is started as, beside being the bench itself.
#[derive(Debug, Deserialize, Serialize)]
enum Role {
    /// A server of antiphon's: on this directory, or in memory.
    Server(Option<String>),
    /// The same in memory, and recorded in this directory.
    RecordedServer(String),
    FanOutRaw,
    FanOutLoad(fan_out::Load),
    CatchUpRaw(catch_up::Served),
    CatchUpLoad(catch_up::Load),
    AcknowledgedRaw(String),
    AcknowledgedLoad(acknowledged::Load),
    IdleRaw,
    IdleLoad(idle::Load),
    /// A server on this directory that opens so many documents.
    IdleDocuments(String, usize),
}

impl Role {
    fn play(self, parent: &Parent) {
        match self {
            Self::Server(data) => replica::serve(parent, data.as_deref()),
            Self::RecordedServer(directory) => replica::serve_recorded(parent, &directory),
            Self::FanOutRaw => fan_out::serve_raw(parent),
            Self::FanOutLoad(load) => load.run(parent),
            Self::CatchUpRaw(served) => catch_up::serve_raw(parent, served),
            Self::CatchUpLoad(load) => load.run(parent),
            Self::AcknowledgedRaw(data) => acknowledged::serve_raw(parent, &data),
            Self::AcknowledgedLoad(load) => load.run(parent),
            Self::IdleRaw => idle::serve_raw(parent),
            Self::IdleLoad(load) => load.run(parent),
            Self::IdleDocuments(data, documents) => idle::serve_documents(parent, &data, documents),
        }
    }
}

/// A name to choose it by, and what measures it.
type Figure = (&'static str, fn(&Plan) -> Table);

const FIGURES: [Figure; 4] = [
    ("fan-out", fan_out::measure),
    ("catch-up", catch_up::measure),
    ("acknowledged", acknowledged::measure),
    ("idle", idle::measure),
];

/// How much is measured.
struct Plan {
    test: bool,
    progress: ProgressBar,
}

impl Plan {
    /// How often each thing is measured.
    fn runs(&self) -> usize {
        self.pick(7, 1)
    }

    /// How much of something: in earnest, or to see whether it works.
    fn pick<T>(&self, earnest: T, test: T) -> T {
        if self.test { test } else { earnest }
    }

    /// Tells what is being done.
    fn step(&self, what: String) {
        self.progress.set_message(what);
        self.progress.tick();
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if(|first| first == child::ROLE).is_some() {
        let role = arguments.next().expect("a role has a name");
        let role: Role = serde_json::from_str(&role).expect("it was written by this program");
        role.play(&Parent::new());
        return ExitCode::SUCCESS;
    }
    let (mut json, mut test, mut names) = (false, false, Vec::new());
    for argument in arguments {
        match argument.as_str() {
            "--bench" => {} // cargo says so
            "--json" => json = true,
            "--test" => test = true,
            option if option.starts_with('-') => {
                eprintln!("network: there is no option {option}: use --json, --test, or the name of a figure");
                return ExitCode::from(2);
            }
            _ => names.push(argument),
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let plan = Plan { test, progress: ProgressBar::new_spinner() };
    let mut any = false;
    for (name, measure) in FIGURES.into_iter().filter(|(name, _)| wanted(name)) {
        let table = measure(&plan);
        plan.progress.suspend(|| if json { table.print_json(name) } else { table.print() });
        any = true;
    }
    plan.progress.finish_and_clear();
    if !any {
        let known: Vec<_> = FIGURES.iter().map(|(name, _)| *name).collect();
        eprintln!("network: no figure is called so; there are {}", known.join(", "));
    }
    ExitCode::SUCCESS
}
