//! What goes wrong, told in one line: what happened, and what to do.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use antiphon::op::DocumentId;
use antiphon::replica::Misuse;
use antiphon_node::LinkEnd;
use clap::error::ErrorKind;
use serde::Serialize;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not.
    Told(Box<Told>),
    /// Whoever read the results has closed the pipe: they have read enough, and there is nobody to be told.
    Unread,
}

/// What is told.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    #[serde(skip)]
    exit: u8,
    error: String,
    code: &'static str,
    remedy: String,
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const DEADLINE: u8 = 3;

impl Failure {
    fn with(exit: u8, code: &'static str, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Told(Box::new(Told { exit, code, error: error.into(), remedy: remedy.into() }))
    }

    /// It failed. `code` is for programs, and never changes.
    pub(crate) fn new(code: &'static str, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(FAILED, code, error, remedy)
    }

    /// What was asked for can't be meant.
    pub(crate) fn usage(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(USAGE, "usage", error, remedy)
    }

    /// The time was over.
    pub(crate) fn deadline(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::with(DEADLINE, "deadline", error, remedy)
    }

    /// Results can't be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::new("output", format!("stdout can't be written: {error}"), "see what it is redirected to"),
        }
    }

    /// What a data directory has against being used.
    pub(crate) fn data(directory: &Path, error: &antiphon_sqlite::Error) -> Self {
        use antiphon_sqlite::Error;
        let shown = directory.display();
        match error {
            Error::InUse { pid: Some(pid), .. } => Self::new(
                "data_in_use",
                format!("{shown} is in use by process {pid}"),
                "end that process, or give another --data directory",
            ),
            Error::InUse { pid: None, .. } => Self::new(
                "data_in_use",
                format!("{shown} is in use by another process"),
                "end it, or give another --data directory",
            ),
            Error::Inaccessible { path, source } if source.kind() == io::ErrorKind::NotFound => Self::new(
                "data_inaccessible",
                format!("{} can't be used: {source}", path.display()),
                "give --data a directory of antiphon's, or one that can be made",
            ),
            Error::Inaccessible { path, source } => Self::new(
                "data_inaccessible",
                format!("{} can't be used: {source}", path.display()),
                "give --data a directory that this user may read and write",
            ),
            Error::Foreign { file } => Self::new(
                "data_foreign",
                format!("{} is not a database of antiphon", file.display()),
                "give --data another directory, or move the file away",
            ),
            Error::Newer { file, version } => Self::new(
                "data_newer",
                format!("{} has format {version}, of a later version of antiphon", file.display()),
                "use that version, or give another --data directory",
            ),
            Error::Older { file, version } => Self::new(
                "data_older",
                format!("{} has format {version}, of an earlier version of antiphon", file.display()),
                "open it once to bring it to the present one: `antiphon serve` does",
            ),
            Error::Missing { file } => Self::new(
                "data_missing",
                format!("{} is missing or empty, though the directory was in use", file.display()),
                "restore a backup there, or start anew in an empty --data directory",
            ),
            Error::Damaged { file, what } => Self::new(
                "data_damaged",
                format!("{} is damaged: {what}", file.display()),
                "restore a backup, or refill an empty --data directory from the server",
            ),
            Error::Failed { .. } | Error::Refused(_) => Self::storage(&error.to_string()),
        }
    }

    /// The storage does not work. What a storage says ends with a remedy where it knows one.
    fn storage(reason: &str) -> Self {
        const UNKNOWN: &str = "see whether the disk is full or broken, and call again: what was acknowledged is kept";
        let (what, remedy) = reason.rsplit_once("; ").unwrap_or((reason, UNKNOWN));
        Self::new("storage", format!("the storage failed: {what}"), remedy)
    }
}

impl From<antiphon_node::Error> for Failure {
    fn from(error: antiphon_node::Error) -> Self {
        use antiphon_node::Error;
        match error {
            Error::Link(end) => end.into(),
            Error::Storage { reason, .. } => Self::storage(&reason),
            Error::Lost { document, appends } => Self::new(
                "lost",
                format!("the storage failed, and did not keep {appends} ops appended to {document}"),
                "append them again",
            ),
            Error::Closed { document, code, reason, .. } => Self::new(
                "document_closed",
                format!("the server does not share {document}: {reason} ({code})"),
                "check the name, or ask for the right to it",
            ),
            Error::Forked { document } => Self::new(
                "forked",
                format!("{document} has different histories here and at the server"),
                "start anew in an empty --data directory, and append again what is missing",
            ),
            Error::Misuse(Misuse::TooLarge(max)) => {
                Self::new("op_too_large", format!("a line has more than {max} bytes"), "split it")
            }
            Error::Misuse(misuse) => Self::new("misuse", misuse.to_string(), "report this as a fault of antiphon"),
            Error::Recording(reason) => {
                Self::new("record", reason, "give --record a directory that this user may write")
            }
            Error::Stopped => Self::new("stopped", "the replica has stopped by itself", "call again"),
        }
    }
}

impl From<LinkEnd> for Failure {
    fn from(end: LinkEnd) -> Self {
        match end {
            LinkEnd::Connect(error) => {
                Self::new("connect", error.reason(), "check --connect, and --token and --ca where they are needed")
            }
            LinkEnd::Session(ending) => Self::new(
                "session",
                format!("the server ended the session for good: {} ({})", ending.reason, ending.code),
                "check --connect and --token, and whether both ends are of like versions",
            ),
            LinkEnd::Disconnected | LinkEnd::Stopped => antiphon_node::Error::Stopped.into(),
        }
    }
}

impl Failure {
    /// Tells it on stderr. If nobody listens there either, the exit code still tells.
    pub(crate) fn tell(&self, json: bool) -> ExitCode {
        let Self::Told(told) = self else { return ExitCode::SUCCESS };
        let Told { exit, error, remedy, .. } = &**told;
        let line = match serde_json::to_string(told) {
            Ok(object) if json => object,
            _ => one_line(&format!("antiphon: {error}; {remedy}")),
        };
        let _ = writeln!(io::stderr(), "{line}");
        ExitCode::from(*exit)
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What clap found wrong with the command line, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // If nobody reads it, they have read enough.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            return ExitCode::from(USAGE);
        }
        _ => {}
    }
    let text = error.to_string();
    let paragraphs = text.split("\n\n").filter(|part| !part.starts_with("Usage") && !part.starts_with("For more"));
    let paragraphs = paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let words = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => String::from("no command was given"),
        _ => paragraphs.collect::<Vec<_>>().join("; "),
    };
    let words = words.trim_start_matches("error: ");
    Failure::usage(words, format!("see {} --help", asked_command())).tell(json)
}

/// The command whose help says more.
fn asked_command() -> String {
    let known = <crate::Arguments as clap::CommandFactory>::command();
    let names: Vec<_> = known.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let mut arguments = std::env::args_os().skip(1).filter_map(|argument| argument.into_string().ok());
    let asked = arguments.find(|argument| names.contains(argument));
    asked.map_or_else(|| String::from("antiphon"), |name| format!("antiphon {name}"))
}

/// What to do where a document was not as far as it should be in time; `trouble` is what kept it, if that is known.
pub(crate) fn too_late(document: &DocumentId, what: &str, trouble: Option<&str>, remedy: &str) -> Failure {
    let trouble = trouble.map_or_else(String::new, |trouble| format!(" ({trouble})"));
    Failure::deadline(format!("the time was over before {document} {what}{trouble}"), remedy)
}
