//! `antiphon serve`: a server, until a signal ends it.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::replica::Authority;
use antiphon_node::{LinkOptions, Node};
use antiphon_sqlite::Durability;
use antiphon_synchronizer::{Options, SharedStore, Synchronizer};
use antiphon_websocket::{Listener, Refusal, Server, ServerConfig};
use async_signal::{Signal, Signals};
use clap::ValueEnum;
use futures_lite::StreamExt as _;
use futures_lite::future::or;
use serde::Serialize;
use tracing::info;

use crate::arguments::{Record, Token};
use crate::error::Failure;
use crate::host::{self, Place, Purpose};
use crate::output::Output;
use crate::stores;

/// When clients are told to come back, when the server ends.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8048")]
    listen: Listen,
    /// Keeps the documents in this directory; without it they are in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What a write survives once it is acknowledged: the end of the process, or a loss of power as well
    #[arg(long, value_enum, default_value = "commit", requires = "data")]
    durability: Promise,
    /// Lets in only those who show this token
    #[arg(long, value_name = "TOKEN", env = "ANTIPHON_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// Holds this document's store, and compacts it by itself when its ops take much more room than what they come to; may
    /// be given several times
    #[arg(long = "store", value_name = "DOC")]
    stores: Vec<DocumentId>,
    #[command(flatten)]
    record: Record,
}

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Promise {
    Commit,
    Fsync,
}

/// A host and a port.
#[derive(Clone, Debug)]
struct Listen(String);

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT, like 127.0.0.1:8048")?;
        port.parse::<u16>().map_err(|_| "the port must be a number up to 65535")?;
        if host.is_empty() { Err("write a host before the port, like 0.0.0.0:8048") } else { Ok(Self(text.into())) }
    }
}

/// The first line.
#[derive(Debug, Serialize)]
struct Listening<'a> {
    listening: String,
    data: Option<&'a Path>,
    durability: Option<Promise>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { listen, data, durability, token, stores, record } = arguments;
    let signals = Signals::new([Signal::Term, Signal::Int]);
    let mut signals = signals.map_err(|error| {
        Failure::new("signals", format!("signals can't be waited for: {error}"), "start it as an ordinary process")
    })?;
    let config = ServerConfig::default();
    raise_descriptors(config.connections_max);
    let server = Server::new(config);
    let server = match token.clone() {
        None => server,
        Some(token) => server.authenticate(move |request| {
            let known = request.bearer_token().is_some_and(|shown| same(shown, &token.0));
            let refusal = Refusal::unauthorized("the token is missing or wrong");
            std::future::ready(if known { Ok(LinkOptions::default()) } else { Err(refusal) })
        }),
    };
    // Before the data is touched: who can't listen changes nothing.
    let listener = bind(&server, listen)?;
    let address = listener.local_addr();
    let place = match (data, durability) {
        (None, _) => Place::Memory,
        (Some(directory), Promise::Commit) => Place::Directory(directory, Durability::Commit),
        (Some(directory), Promise::Fsync) => Place::Directory(directory, Durability::Fsync),
    };
    host::run(place, Purpose::Server, record, async |node| {
        for document in stores {
            let options = Options { authority: Authority::Us, ..Options::default() };
            let synchronizer = Synchronizer::new(&SharedStore::default(), node, document, options);
            synchronizer.start().await?;
            stores::judge(document, &synchronizer)?;
        }
        if output.is_json() {
            let (data, durability) = (data.as_deref(), data.as_ref().map(|_| *durability));
            output.object(&Listening { listening: format!("ws://{address}"), data, durability })?;
        } else {
            output.line(format!("listening ws://{address}"))?;
            if data.is_none() {
                let notice = "antiphon: documents are in memory only, and gone when this ends; --data DIR keeps them";
                let _ = writeln!(io::stderr(), "{notice}"); // if nobody listens, nobody needs to know
            }
        }
        output.flush()?;
        serve(listener, node, &mut signals).await
    })
}

async fn serve(listener: Listener, node: &Node, signals: &mut Signals) -> Result<(), Failure> {
    let mut signalled = pin!(signals.next());
    let closed = async {
        listener.serve(node.clone()).await;
        Err(antiphon_node::Error::Stopped)
    };
    let asked_to_end = async {
        signalled.as_mut().await;
        Ok(())
    };
    or(asked_to_end, closed).await?;
    info!("draining; a second signal ends it at once");
    let drained = async { Ok(node.shutdown(Some(RETRY_AFTER)).await?) };
    or(drained, async {
        signals.next().await;
        let failure = Failure::new(
            "ended_at_once",
            "a second signal came before everything was drained",
            "wait after the first one; what was acknowledged is kept where there is a --data directory",
        );
        failure.tell(false);
        std::process::exit(1)
    })
    .await
}

/// Takes as many file descriptors as the connections need, where the system lets it: what it gives without being asked
/// is often a thousand. Where it gives fewer, those beyond wait to be accepted.
#[cfg(unix)]
fn raise_descriptors(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For everything that is not a connection.
    const OTHERS: u64 = 256;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + OTHERS;
    let wanted = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if current.is_some_and(|current| current < wanted) {
        // If it may not, it goes on with what it has.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

#[cfg(not(unix))]
fn raise_descriptors(_: usize) {}

fn bind(server: &Server, Listen(listen): &Listen) -> Result<Listener, Failure> {
    let unknown = |why: String| {
        Failure::new("listen", format!("{listen} is no address of this machine: {why}"), "give --listen another one")
    };
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(|error| unknown(error.to_string()))?.collect();
    let mut failure = unknown(String::from("the name has no address"));
    for address in addresses {
        failure = match server.listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Failure::new(
                "port_in_use",
                format!("something else listens on {address}"),
                "end it, or give --listen another port; port 0 is any that is free",
            ),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Failure::new(
                "listen",
                format!("this user may not listen on {address}: {error}"),
                "give --listen a port above 1023",
            ),
            Err(error) => unknown(error.to_string()),
        };
    }
    Err(failure)
}

/// Compares secrets in a time that does not tell where they differ.
fn same(shown: &str, secret: &str) -> bool {
    let differences = shown.bytes().zip(secret.bytes()).fold(0, |seen, (one, other)| seen | (one ^ other));
    differences == 0 && shown.len() == secret.len()
}
