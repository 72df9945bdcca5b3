//! `antiphon completions`: a script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;

use crate::error::Failure;
use crate::output::Output;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The shell that will read it, say by `source <(antiphon completions bash)`
    #[arg(value_enum)]
    shell: Shell,
}

/// The result.
#[derive(Debug, Serialize)]
struct Completions<'a> {
    shell: String,
    script: &'a str,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let mut command = crate::Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "antiphon", &mut script);
    let script = String::from_utf8_lossy(&script);
    if output.is_json() {
        return output.object(&Completions { shell: arguments.shell.to_string(), script: &script });
    }
    output.line(script.trim_end())
}
