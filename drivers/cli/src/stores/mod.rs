//! What the commands on stores share: a document as a store that is kept in step, in a directory, with a server, or both.

mod part;
mod text;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use antiphon::op::DocumentId;
use antiphon::store::{Store, Transaction, WriteError};
use antiphon_node::{Link, Node};
use antiphon_synchronizer::{Error, Options, SharedStore, Statistics, Synchronizer};
use futures_lite::future::or;
use tracing::warn;

use crate::arguments::{Access, Record, Seconds, Url};
use crate::commands::unknown_document;
use crate::error::{Failure, too_late};
use crate::host::{self, Place, Purpose};
use crate::output::Output;
use crate::progress;

pub(crate) use part::{Part, PartArguments};
pub(crate) use text::{parse, shown, shown_name, text};

/// How long a disk may take for what was written, when the time is over otherwise.
const SAVE_DEADLINE: Duration = Duration::from_secs(5);

/// Where a store is.
#[derive(clap::Args, Debug)]
pub(crate) struct Reach {
    /// Works on this directory, and keeps there what the server does not have yet
    #[arg(long, value_name = "DIR", required_unless_present = "connect")]
    pub(crate) data: Option<PathBuf>,
    /// Gets in step with this server first; what is written is to be durable there
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<Url>,
    #[command(flatten)]
    pub(crate) access: Access,
    /// How long it may take to be in step, and then until what was written is durable
    #[arg(long, value_name = "SECONDS", default_value = "30", allow_negative_numbers = true)]
    pub(crate) timeout: Seconds,
    #[command(flatten)]
    pub(crate) record: Record,
}

/// A store that is kept in step while a command works with it.
pub(crate) struct Opened<'a> {
    pub(crate) store: SharedStore,
    synchronizer: Synchronizer,
    node: &'a Node,
    link: Option<Link>,
    document: &'a DocumentId,
    reach: &'a Reach,
    output_is_json: bool,
    /// It was in step, in time.
    was_in_step: Cell<bool>,
    /// Ops of another kind that were told of.
    foreign: Cell<u64>,
}

/// Opens the store of a document, lets `work` use it, and ends in order.
pub(crate) fn run<T>(
    document: &DocumentId,
    reach: &Reach,
    output: &mut Output,
    work: impl AsyncFnOnce(&Opened<'_>, &mut Output) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Reach { data, connect, access, record, .. } = reach;
    // Before anything is made: a wrong flag leaves nothing behind.
    connect.as_ref().map(|url| host::client(url, access)).transpose()?;
    let place = Place::of(data.as_deref());
    host::run(place, Purpose::Command, record, async |node| {
        let store = SharedStore::default();
        let synchronizer = Synchronizer::new(&store, node, document, Options::default());
        drop(synchronizer.start()); // it has begun; what is waited for is said below
        let link = connect.as_ref().map(|url| host::connect(node, url, access)).transpose()?;
        let opened = Opened {
            store,
            synchronizer,
            node,
            link,
            document,
            reach,
            output_is_json: output.is_json(),
            was_in_step: Cell::default(),
            foreign: Cell::default(),
        };
        let broken = async {
            let error = match &opened.link {
                None => node.failure(document).await,
                Some(link) => or(node.failure(document), link.failure(document)).await,
            };
            Err(Failure::from(error))
        };
        or(work(&opened, output), broken).await
    })
}

/// For commands that make nothing: fails if a directory by itself does not hold the document.
pub(crate) fn demand(document: &DocumentId, reach: &Reach) -> Result<(), Failure> {
    let (Some(data), None) = (&reach.data, &reach.connect) else { return Ok(()) };
    let looked = antiphon_sqlite::look(data, antiphon_sqlite::View::documents);
    let documents = looked.map_err(|error| Failure::data(data, &error))?;
    if documents.contains(document) { Ok(()) } else { Err(unknown_document(document, data, &documents)) }
}

/// A copy of the store as the directory, or the server, has it.
pub(crate) fn fetch(document: &DocumentId, reach: &Reach, output: &mut Output) -> Result<Store, Failure> {
    demand(document, reach)?;
    run(document, reach, output, async |opened, _| {
        opened.ready_to_read().await?;
        Ok(opened.store.read(Store::clone))
    })
}

impl Opened<'_> {
    /// Waits until the store holds what there is.
    pub(crate) async fn ready_to_read(&self) -> Result<(), Failure> {
        if self.reached().await? {
            return Ok(());
        }
        Err(match &self.link {
            None => self.disk_too_late(),
            Some(link) => {
                let remedy = match &self.reach.data {
                    Some(_) => "see whether the server runs, or leave out --connect to see what the directory holds",
                    None => "see whether the server runs, and call again, with a longer --timeout",
                };
                too_late(
                    self.document,
                    "was in step with the server",
                    host::trouble(link, self.document).as_deref(),
                    remedy,
                )
            }
        })
    }

    /// The same; but if the server can't be reached in time, a directory is enough.
    pub(crate) async fn ready_to_write(&self) -> Result<(), Failure> {
        if self.reached().await? {
            return Ok(());
        }
        match (&self.link, &self.reach.data) {
            (None, _) => Err(self.disk_too_late()),
            (Some(link), None) => {
                let remedy = "nothing was written: call again, and give --data DIR to keep it meanwhile";
                let trouble = host::trouble(link, self.document);
                Err(too_late(self.document, "was in step with the server", trouble.as_deref(), remedy))
            }
            (Some(_), Some(_)) => match host::within(Seconds(Duration::ZERO), self.synchronizer.saved()).await {
                Some(loaded) => loaded.map_err(Failure::from).and_then(|()| self.check()),
                None => Err(self.disk_too_late()),
            },
        }
    }

    /// Whether the store is in step with the server, or else with the directory, in time.
    async fn reached(&self) -> Result<bool, Failure> {
        let reached = async {
            match &self.link {
                None => self.synchronizer.saved().await,
                Some(_) => self.synchronizer.in_step().await,
            }
        };
        let in_time = self.show(host::within(self.reach.timeout, reached)).await.transpose()?.is_some();
        self.was_in_step.set(in_time);
        if in_time {
            self.check()?;
        }
        Ok(in_time)
    }

    /// Tells of ops that are none of a store, when more of them have come; if there are no others it is another document.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let foreign = self.synchronizer.statistics().malformed;
        if foreign > self.foreign.replace(foreign) { judge(self.document, &self.synchronizer) } else { Ok(()) }
    }

    /// Does a transaction, as soon as the disk is not behind.
    pub(crate) async fn write<T>(
        &self,
        write: impl Fn(&mut Transaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, Failure> {
        loop {
            match self.store.write(&write) {
                Ok(done) => return Ok(done),
                Err(WriteError::Full) => self.synchronizer.saved().await?,
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    /// Waits until what was written is durable: here, and at the server if there is one. If that is not so in time, returns
    /// what is to be told when the result is.
    pub(crate) async fn keep(&self) -> Result<Option<Failure>, Failure> {
        let here = Seconds(self.reach.timeout.0.max(SAVE_DEADLINE));
        match self.show(host::within(here, self.synchronizer.saved())).await {
            Some(saved) => saved?,
            None => return Ok(Some(self.disk_too_late())),
        }
        let Some(link) = &self.link else { return Ok(None) };
        let limit = if self.was_in_step.get() { self.reach.timeout } else { Seconds(Duration::ZERO) };
        if let Some(acknowledged) = self.show(host::within(limit, link.acknowledged(self.document))).await {
            acknowledged?;
            return Ok(None);
        }
        let remedy = match &self.reach.data {
            Some(_) => "call again, with a longer --timeout: what is not there yet is kept in the data directory",
            None => "call again, and give --data DIR to keep what is written meanwhile",
        };
        let trouble = host::trouble(link, self.document);
        Ok(Some(too_late(self.document, "was durable at the server", trouble.as_deref(), remedy)))
    }

    fn disk_too_late(&self) -> Failure {
        too_late(self.document, "was durable here", None, "see what holds the disk up, and call again")
    }

    /// Shows how far the document is, while something is waited for.
    async fn show<T>(&self, waiting: impl Future<Output = T>) -> T {
        let documents = std::slice::from_ref(self.document);
        or(waiting, progress::show(self.output_is_json, self.node, self.link.as_ref(), documents)).await
    }
}

/// Tells of ops that are none of a store; if there are no others it is another document.
pub(crate) fn judge(document: &DocumentId, synchronizer: &Synchronizer) -> Result<(), Failure> {
    let Statistics { malformed: foreign, loads, .. } = synchronizer.statistics();
    match (foreign, loads) {
        (0, _) => {}
        (_, 0) => {
            let ops = if foreign == 1 { "op" } else { "ops" };
            let what = format!("{document} is no store: it has {foreign} {ops} of another kind, and no other");
            let remedy = "read it with `antiphon tail`, or give the name of a store, which `antiphon set` makes";
            return Err(Failure::new("not_a_store", what, remedy));
        }
        _ => warn!(%document, "{foreign} of its ops are none of a store, and are left out"),
    }
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Node(error) => error.into(),
            _ => antiphon_node::Error::Stopped.into(),
        }
    }
}

/// What a store has against being written to.
fn refused(error: &WriteError) -> Failure {
    let remedy = match error {
        WriteError::NameTooLong => "give it a shorter name",
        WriteError::Value(_) => "divide it, or give what a cell can hold",
        WriteError::TooLarge => "divide it among several rows",
        _ => "see whether a clock is wrong, here or at a peer",
    };
    Failure::new("store_refused", error.to_string(), remedy)
}

/// Where what was written is, in the words of a result.
pub(crate) fn whereabouts(reach: &Reach, late: bool) -> &'static str {
    match (&reach.connect, late) {
        (None, false) => "durable here",
        (None, true) => "not known to be durable here",
        (Some(_), false) => "durable at the server",
        (Some(_), true) => "not known to be durable at the server",
    }
}
