//! The commands, one a file.

mod append;
mod serve;
mod tail;

use clap::Subcommand;

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
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Serve(arguments) => serve::run(&arguments, output),
            Self::Append(arguments) => append::run(&arguments, output),
            Self::Tail(arguments) => tail::run(&arguments, output),
        }
    }
}
