//! Runs a replica for a command: on a data directory or in memory, and in order to the end.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::{self, Authority};
use antiphon::storage::{Continuity, Storage};
use antiphon::wire;
use antiphon_memory::{Disk, Held};
use antiphon_node::{Config, Link, LinkOptions, LinkState, Node, RedialPolicy, Ring};
use antiphon_sqlite::{Durability, Options, SqliteStorage};
use antiphon_websocket::{Client, Roots, http};
use async_io::{Timer, block_on};
use futures_lite::future::or;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::error::Failure;
use crate::logging::Logs;

/// How long the end of a session may take: its goodbye, and what is still on its way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the end of a command waits for a storage that does not answer.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// What a replica keeps its documents in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// Gone at the end.
    Memory,
    Directory(&'a Path, Durability),
}

impl<'a> Place<'a> {
    /// A command's, which promises nothing to peers but that it survives the process.
    pub(crate) fn of(data: Option<&'a Path>) -> Self {
        data.map_or(Self::Memory, |directory| Self::Directory(directory, Durability::Commit))
    }

    pub(crate) fn promise(self) -> wire::Durability {
        match self {
            Self::Memory => wire::Durability::Memory,
            Self::Directory(_, durability) => durability.into(),
        }
    }
}

/// Bytes of ops that wait for the storage before no more of stdin is read.
const WAITING_MAX: u64 = 4 << 20;

/// What a replica is run for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// A command that comes to an end soon, and tells itself what failed.
    Command,
    /// Whoever connects, for as long as may be.
    Server,
}

impl Purpose {
    fn config(self) -> Config {
        match self {
            Self::Command => {
                let mut config = Config::default();
                (config.close_deadline, config.drain_deadline) = (CLOSE_DEADLINE, DRAIN_DEADLINE);
                config.replica.waiting_max = WAITING_MAX;
                config
            }
            Self::Server => Config::default(),
        }
    }
}

/// A replica at work on threads of its own, so that a command may wait for stdout while its sessions go on.
#[derive(Debug)]
pub(crate) struct Host {
    node: Node,
    driver: JoinHandle<Result<(), Failure>>,
    logging: JoinHandle<()>,
}

impl Host {
    /// Opens a replica, and records it where that is wanted.
    pub(crate) fn open(place: Place<'_>, purpose: Purpose, record: Option<Ring>) -> Result<Self, Failure> {
        let mut config = Config { record, ..purpose.config() };
        config.replica.session.durability = place.promise();
        let logs = Logs { failures: purpose == Purpose::Server };
        match place {
            Place::Memory => {
                // Synced at once, as far as this disk knows: so it does not keep how to take back what is not.
                let storage = Disk::with_promise(wire::Durability::Fsync).open();
                let held = |held: Held| Failure::new("storage", held.to_string(), "report this as a fault of antiphon");
                Self::start(storage.map_err(held)?, Continuity::Proven, config, logs, |_| Ok(()))
            }
            Place::Directory(directory, durability) => {
                let of_directory = {
                    let directory = directory.to_owned();
                    move |error| Failure::data(&directory, &error)
                };
                let options = Options { durability, ..Options::default() };
                let storage = SqliteStorage::open_directory(directory, &options).map_err(&of_directory)?;
                let continuity = storage.continuity();
                Self::start(storage, continuity, config, logs, move |storage| storage.close().map_err(of_directory))
            }
        }
    }

    fn start<S: Storage + Send + 'static>(
        storage: S,
        continuity: Continuity,
        config: Config,
        logs: Logs,
        close: impl FnOnce(S) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (node, driver) = block_on(Node::open(storage, continuity, config))?;
        let driver = thread::spawn(move || close(block_on(driver)?));
        let logging = thread::spawn({
            let node = node.clone();
            move || block_on(logs.follow(node))
        });
        Ok(Self { node, driver, logging })
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Ends in order: everything is written, and the data directory is closed.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let drained = block_on(self.node.shutdown(None));
        let closed = self.driver.join();
        let _ = self.logging.join(); // it has nothing to say
        drained?;
        closed.unwrap_or_else(|_| Err(antiphon_node::Error::Stopped.into()))
    }
}

/// Runs a replica, lets `work` use it, and ends it in order, also if the work failed.
pub(crate) fn run<T>(
    place: Place<'_>,
    purpose: Purpose,
    record: &Record,
    work: impl AsyncFnOnce(&Node) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let host = Host::open(place, purpose, record.ring())?;
    let done = block_on(work(host.node()));
    let closed = host.close();
    let done = done?;
    closed?;
    Ok(done)
}

/// Connects to a server, again and again. What it has wins where histories differ.
pub(crate) fn connect(node: &Node, url: &Url, access: &Access) -> Result<Link, Failure> {
    let client = client(url, access)?;
    let token = access.token.as_ref().map(|token| token.0.clone().into());
    let policy =
        RedialPolicy { base: Duration::from_millis(50), cap: Duration::from_secs(2), ..RedialPolicy::default() };
    Ok(node.connect(client, LinkOptions { token, upstream: true, principal: None }, policy)?)
}

/// How documents are opened: the server decides in a fork, and own ops are kept.
pub(crate) fn follower() -> replica::Options {
    replica::Options { authority: Authority::Upstream, ..replica::Options::default() }
}

/// Checks what the command line says of a server, and makes a client of it.
pub(crate) fn client(url: &Url, access: &Access) -> Result<Client, Failure> {
    let refused = |error: antiphon_websocket::BadAddress| Failure::usage(error.to_string(), "change it");
    let mut client = Client::new(url.as_str()).map_err(refused)?;
    if let Some(file) = &access.ca {
        let pem = std::fs::read(file).map_err(|error| {
            let error = format!("{} can't be read: {error}", file.display());
            Failure::new("ca", error, "give --ca a file with a certificate in PEM form")
        })?;
        let roots = Roots::pem(&pem).map_err(|error| {
            let error = format!("{}: {error}", file.display());
            Failure::new("ca", error, "give --ca a file with a certificate in PEM form")
        })?;
        client = client.roots(&roots);
    }
    if let Some(token) = &access.token {
        if !is_private(url) {
            let error = format!("the token would go in clear to {}", url.as_str());
            return Err(Failure::usage(error, "use wss://, or leave out --token"));
        }
        client = client.header("authorization", &format!("Bearer {}", token.0)).map_err(refused)?;
    }
    Ok(client)
}

/// Whether nobody on the way can read what is sent: it is encrypted, or does not leave the machine.
fn is_private(url: &Url) -> bool {
    let Ok(uri) = url.as_str().parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = host.parse().map_or_else(|_| host == "localhost", |address: std::net::IpAddr| address.is_loopback());
    uri.scheme_str() == Some("wss") || loopback
}

/// What `future` comes to, if that is in time.
pub(crate) async fn within<T>(Seconds(limit): Seconds, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        Timer::after(limit).await;
        None
    })
    .await
}

/// What keeps a document from getting on, on a link, if that is known.
pub(crate) fn trouble(link: &Link, document: &DocumentId) -> Option<String> {
    match link.state() {
        LinkState::Connecting { reason, .. } => reason,
        LinkState::Live { .. } => {
            link.closed(document).map(|(code, reason)| format!("it is closed for now: {reason} ({code})"))
        }
        LinkState::Ended(_) => None,
    }
}
