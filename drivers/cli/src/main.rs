//! The `antiphon` command.

mod demo;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps replicas of documents in step.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lets three replicas write over lossy links, offline and across crashes, in virtual time, and compares their disks.
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let mut out = io::stdout().lock();
    let done = match command {
        Command::Demo(arguments) => demo::run(&arguments, &mut out),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes the pipe has read enough: `antiphon demo | head` is no failure to be told of.
        Err(demo::Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(failure) => {
            // If nobody listens there either, the exit code still tells.
            let _ = writeln!(io::stderr(), "antiphon: {failure}");
            ExitCode::FAILURE
        }
    }
}
