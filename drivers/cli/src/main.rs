//! The `antiphon` command.

mod arguments;
mod commands;
mod error;
mod host;
mod logging;
mod output;
mod progress;
mod stores;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;
use output::Output;

fn main() -> ExitCode {
    let Arguments { json, log, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return error::usage(&usage),
    };
    logging::start(log.as_ref(), json);
    let mut output = Output::new(json);
    match command.run(&mut output).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(json),
    }
}
