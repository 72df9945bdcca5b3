//! What can be said on the command line, where several commands have it in common.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use antiphon_recorder::{BYTES_DEFAULT, Ring};
use antiphon_websocket::{BadAddress, Client};
use clap::{Args, Parser};
use tracing_subscriber::EnvFilter;

use crate::commands::Command;

/// Keeps replicas of documents in step.
///
/// Results go to stdout; logs, progress and errors to stderr. Exit code 0: done; 1: failed; 2: the command line is wrong;
/// 3: the time was over.
#[derive(Debug, Parser)]
#[command(name = "antiphon", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Prints results as JSON, one object or one a line, and errors as one object: error, code, remedy
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// What is logged to stderr: error, warn, info, debug, trace or off [default: warn]
    #[arg(long, global = true, display_order = 901, value_name = "FILTER", env = "ANTIPHON_LOG")]
    pub(crate) log: Option<EnvFilterText>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A filter that can be parsed.
#[derive(Clone, Debug)]
pub(crate) struct EnvFilterText(pub(crate) String);

impl FromStr for EnvFilterText {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map(|_| Self(text.into()))
    }
}

/// How a server is reached.
#[derive(Args, Debug)]
pub(crate) struct Access {
    /// Trusts only the certificates in this PEM file, say a private root, when a wss:// server shows its own
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Proof of who we are: sent as `authorization: Bearer TOKEN`, and in the protocol's Hello; in clear over loopback only
    #[arg(long, value_name = "TOKEN", env = "ANTIPHON_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Token>,
}

/// Whether the replica is recorded.
#[derive(Args, Debug)]
pub(crate) struct Record {
    /// Records all that happens to the replica in this directory, for `antiphon replay`; tokens are left out
    #[arg(long, value_name = "DIR", help_heading = "Flight recorder")]
    record: Option<PathBuf>,
    /// How much the directory holds; what is oldest goes
    #[arg(long, value_name = "MIB", default_value_t = BYTES_DEFAULT >> 20, requires = "record",
        help_heading = "Flight recorder", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    record_max: u64,
    /// Leaves out what the ops say as well: the recording can be read then, but not run again
    #[arg(long, requires = "record", help_heading = "Flight recorder")]
    record_redacted: bool,
}

impl Record {
    pub(crate) fn ring(&self) -> Option<Ring> {
        let directory = self.record.clone()?;
        Some(Ring { directory, bytes: self.record_max << 20, redacted: self.record_redacted })
    }
}

/// A secret that no log and no error shows.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable { Ok(Self(text.into())) } else { Err("a token has letters, digits and signs of ASCII, no spaces") }
    }
}

/// A server's address that can be connected to.
#[derive(Clone, Debug)]
pub(crate) struct Url(String);

impl FromStr for Url {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        Client::new(text).map(|_| Self(text.into()))
    }
}

impl Url {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A time in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.map(Self).ok_or("it must be a number of seconds, like 30 or 0.5")
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}
