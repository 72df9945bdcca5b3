//! The commands, one a file.

mod append;
mod compact;
mod completions;
mod del;
mod demo;
mod export;
mod get;
mod import;
mod log;
mod replay;
mod serve;
mod set;
mod sim;
mod sync;
mod tail;
mod watch;

use std::path::Path;

use antiphon_report::Picture;
use clap::Subcommand;

pub(crate) use log::unknown as unknown_document;

use crate::error::Failure;
use crate::output::Output;

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a server: documents for whoever connects
    Serve(serve::Arguments),
    /// Appends each line of stdin to a document as an op, here and at a server
    Append(append::Arguments),
    /// Prints the ops of a document as they become durable here
    Tail(tail::Arguments),
    /// Brings documents in step with a server, both ways
    Sync(sync::Arguments),
    /// Shows what a data directory holds of a document
    Log(log::Arguments),
    /// Sets a cell, or a value, of a store
    Set(set::Arguments),
    /// Shows what a store holds: all of it, a table, a row, a cell, or values
    Get(get::Arguments),
    /// Deletes a cell, a row, a table, values, or all that a store holds
    Del(del::Arguments),
    /// Prints what changes in a store, as it does
    ///
    /// One line a change: when it was written, by the clock of whoever wrote it; which replica that was; and what it is now.
    /// It tells what comes from when it is in step on, after a first line that says so; `antiphon get` shows what there is.
    /// It goes on until it is interrupted, and connects again when the connection is lost.
    Watch(watch::Arguments),
    /// Sets in a store what is in a file of JSON or CSV
    ///
    /// What the store holds besides stays. The file is read twice: if it is no good, nothing is written. It is written in
    /// transactions of whole rows: of an import that is interrupted some are there, and it can be done again.
    Import(import::Arguments),
    /// Writes what a store holds, as JSON or CSV
    Export(export::Arguments),
    /// Lets a snapshot take the place of a document's old ops, in the data directory of its authority
    Compact(compact::Arguments),
    /// Runs replicas in a simulated world, on networks, disks and clocks that fail, and checks the laws that must hold
    Sim(sim::Arguments),
    /// Runs a recording again, compares what comes of it, and tells what happened
    Replay(replay::Arguments),
    /// Lets two writers, a late reader and two stores work with a server that is killed meanwhile, and compares what is on disk
    Demo(demo::Arguments),
    /// Prints a script that completes the command line in a shell
    Completions(completions::Arguments),
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Serve(arguments) => serve::run(&arguments, output),
            Self::Append(arguments) => append::run(&arguments, output),
            Self::Tail(arguments) => tail::run(&arguments, output),
            Self::Sync(arguments) => sync::run(&arguments, output),
            Self::Log(arguments) => log::run(&arguments, output),
            Self::Set(arguments) => set::run(&arguments, output),
            Self::Get(arguments) => get::run(&arguments, output),
            Self::Del(arguments) => del::run(&arguments, output),
            Self::Watch(arguments) => watch::run(arguments, output),
            Self::Import(arguments) => import::run(&arguments, output),
            Self::Export(arguments) => export::run(&arguments, output),
            Self::Compact(arguments) => compact::run(&arguments, output),
            Self::Sim(arguments) => sim::run_command(&arguments, output),
            Self::Replay(arguments) => replay::run(&arguments, output),
            Self::Demo(arguments) => demo::run(&arguments, output),
            Self::Completions(arguments) => completions::run(&arguments, output),
        }
    }
}

/// Writes a picture where a flag says.
fn write_page(flag: &str, file: &Path, picture: &Picture) -> Result<(), Failure> {
    std::fs::write(file, picture.page()).map_err(|error| {
        let what = format!("the page {} can't be written: {error}", file.display());
        Failure::new("report", what, format!("give {flag} a file that can be written"))
    })
}
