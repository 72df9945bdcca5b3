//! The demo's server: this binary once more, as a process that can be killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::Failure;

/// A server at work. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// HOST:PORT.
    pub(super) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start(data: &Path, listen: &str) -> Result<Self, Failure> {
        let failed = |error: String| {
            let error = format!("the server can't be started: {error}");
            Failure::new("demo_server", error, "see what it says on stderr, and whether processes can be started here")
        };
        let binary = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", listen, "--data"]).arg(data);
        // What is set for others is not meant for this one.
        command.env_remove("ANTIPHON_TOKEN").env_remove("ANTIPHON_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut server = Self { child, address: String::new() };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        }
        let address = line.trim_end().strip_prefix("listening ws://");
        server.address = address.ok_or_else(|| failed(format!("it said {line:?}")))?.to_owned();
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once: SIGKILL, where there are signals.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// Asks it to end, and waits until it has drained.
    #[cfg(unix)]
    pub(super) fn end(mut self) -> Result<(), Failure> {
        use rustix::process::{Pid, Signal, kill_process};
        let failed = |error: String| {
            Failure::new(
                "demo_server",
                format!("the server did not end in order: {error}"),
                "see what it says on stderr",
            )
        };
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(|error| failed(error.to_string()))?;
        let status = self.child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
    }

    /// Without signals there is no asking: what it has acknowledged survives this too.
    #[cfg(not(unix))]
    pub(super) fn end(self) -> Result<(), Failure> {
        drop(self);
        Ok(())
    }
}
