//! Replays a recorded session of several people who wrote one text together, through a hostile day:
//!
//! ```text
//! cargo run --release --example coedit -- TRACE.json.gz [--seed N]
//! ```
//!
//! Each writer has a `yrs` document, a replica on disk, and a link over a real WebSocket to a server that is a process of
//! its own. Each transaction of the trace is made on exactly what its author had seen, and is one op; nobody waits for
//! anything else, so that all write at the same time. Meanwhile connections are cut, the server is killed and started
//! again, and a reader joins late. At the end every replica's text must be that of the trace.
//!
//! Traces are those of the kind "concurrent" of josephg's editing-traces
//! (<https://github.com/josephg/editing-traces>), whose recordings are published under CC BY 4.0. Without one, a small
//! synthetic session of the same format is drawn from the seed.
//!
//! On stdout is one line of JSON; the exit code is 0 only if everything was as it should be.

// An example is a driver: here clocks are read.
#![expect(clippy::disallowed_methods, reason = "the core is handed the time, and this is where it comes from")]

mod network;
mod participant;
mod replay;
mod server;
mod synthetic;
mod text;
mod trace;
mod writer;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use trace::{Recording, Trace};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: coedit [TRACE.json.gz] [--seed N]";

/// What is wanted.
enum Command {
    Replay { trace: Option<PathBuf>, seed: u64 },
    Serve { directory: PathBuf, port: u16 },
    Help,
}

fn main() -> ExitCode {
    let Some(command) = parse(std::env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match command {
        Command::Replay { trace, seed } => replay(trace, seed),
        Command::Serve { directory, port } => server::serve(&directory, port),
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("coedit: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Command> {
    let (mut trace, mut seed) = (None, 1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Some(Command::Help),
            Some("--seed") => seed = arguments.next()?.to_str()?.parse().ok()?,
            Some(server::SERVE) => {
                let directory = arguments.next()?.into();
                return Some(Command::Serve { directory, port: arguments.next()?.to_str()?.parse().ok()? });
            }
            Some("--") => {} // cargo's, where it was given twice
            Some(flag) if flag.starts_with('-') => return None,
            _ if trace.is_none() => trace = Some(PathBuf::from(argument)),
            _ => return None,
        }
    }
    Some(Command::Replay { trace, seed })
}

fn replay(path: Option<PathBuf>, seed: u64) -> Result<(), Failure> {
    let (name, recording) = match path {
        Some(path) => (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), Recording::read(&path)?),
        None => (String::from("synthetic"), synthetic::recording(seed)?),
    };
    let trace = Trace::try_from(recording).map_err(|error| format!("{name} can't be replayed: {error}"))?;
    let (summary, failures) = replay::replay(name, trace, seed)?;
    println!("{}", serde_json::to_string(&summary)?);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}
