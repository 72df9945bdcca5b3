//! The server: a process of its own, so that killing it is killing it.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use antiphon_node::{Config, Node};
use antiphon_sqlite::{Options, SqliteStorage};
use antiphon_websocket::{Server, ServerConfig};
use smol::future::zip;

use crate::Failure;

/// What this program is called with when it is to be the server.
pub(crate) const SERVE: &str = "--serve";

/// Is the server, until the other end of its stdin is closed.
pub(crate) fn serve(directory: &Path, port: u16) -> Result<(), Failure> {
    let storage = SqliteStorage::open_directory(directory, &Options::default())?;
    let continuity = storage.continuity();
    smol::block_on(async {
        let (node, driver) = Node::open(storage, continuity, Config::default()).await?;
        let listener = Server::new(ServerConfig::default()).listen((Ipv4Addr::LOCALHOST, port))?;
        println!("{}", listener.local_addr());
        let stop = {
            let node = node.clone();
            async move {
                // Whoever started it says that it is over, or is gone.
                let _ = smol::unblock(|| io::stdin().read_to_end(&mut Vec::new())).await;
                node.shutdown(None).await
            }
        };
        let (driven, (stopped, ())) = zip(driver, zip(stop, listener.serve(node))).await;
        stopped?;
        driven?.close()?;
        Ok(())
    })
}

/// The server, seen from who started it. Dropping it kills it.
pub(crate) struct Serving {
    child: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Serving {
    /// Starts it, on a free port.
    pub(crate) fn start(directory: &Path) -> Result<Self, Failure> {
        let (child, address) = spawn(directory, 0)?;
        Ok(Self { child, directory: directory.into(), address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL, and then another one on the same port and data directory.
    pub(crate) fn kill_and_restart(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.address) = spawn(&self.directory, self.address.port())?;
        Ok(())
    }

    /// Lets it end in order.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server did not end in order: {status}").into()) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, port: u16) -> Result<(Child, SocketAddr), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(SERVE)
        .args([directory, Path::new(&port.to_string())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the server has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match line.trim().parse() {
        Ok(address) => Ok((child, address)),
        Err(_) => Err(format!("the server did not start: {}", child.wait()?).into()),
    }
}
