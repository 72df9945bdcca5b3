//! A synchronizer, as its users see it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon::op::DocumentId;
use antiphon::replica::{self, Authority, Salvage};
use antiphon::store::{ClientId, Direction, Transaction, WriteError};
use antiphon::wire::Access;
use antiphon_node::Node;
use event_listener::Event;

use crate::compaction::Compaction;
use crate::shared::SharedStore;
use crate::status::{Phase, Statistics, Status};
use crate::work;

/// How a store and a document are kept in step.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which way things go. Default: both.
    pub direction: Direction,
    /// Who decides when histories differ, after a backup was restored, say. [`Authority::Us`] is for the one replica that
    /// all others connect to: it also compacts the document, and its store is ready without anybody else. Default:
    /// [`Authority::Upstream`], the peer of a link that was connected as
    /// [upstream](antiphon_node::LinkOptions::upstream).
    pub authority: Authority,
    /// When the authority lets a snapshot take the place of the document's ops. `None`: never. Default: when they are of
    /// four times the size of the last snapshot.
    pub compaction: Option<Compaction>,
}

impl Default for Options {
    fn default() -> Self {
        Self { direction: Direction::Both, authority: Authority::Upstream, compaction: Some(Compaction::default()) }
    }
}

/// Keeps a store in step with a document of a node, from [`start`](Self::start) to [`stop`](Self::stop). Clones are the
/// same synchronizer; it goes on when all of them are dropped.
///
/// Links are the node's: whenever one is connected, the store gets in step with its peer, and again after each
/// interruption, without a call from the app. While it runs, the document is open in the node; nobody else should open or
/// close it, or append what is no op of a store.
#[derive(Clone)]
pub struct Synchronizer(pub(crate) Arc<Bound>);

pub(crate) type Initial = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<(), WriteError> + Send>;
type StatusListener = Arc<dyn Fn(&Status) + Send + Sync>;

/// A store, a document, and how far the two are.
pub(crate) struct Bound {
    pub(crate) store: SharedStore,
    pub(crate) node: Node,
    pub(crate) document: DocumentId,
    pub(crate) options: Options,
    /// Something has moved that the status depends on.
    pub(crate) stirred: Event,
    /// The status was looked at since, or the state is another: for those who wait.
    pub(crate) changed: Event,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    run: Run,
    /// Counts the starts, so that whoever waits for one does not take another for it.
    starts: u64,
    pub(crate) initial: Option<Initial>,
    /// It was in step since it was started.
    pub(crate) was_in_step: bool,
    /// What the store had against the content to begin with, until whoever started it is told.
    pub(crate) refused: Option<WriteError>,
    /// The document was read to here.
    pub(crate) position: u64,
    /// Why the document is closed on a link.
    pub(crate) closed: Option<String>,
    /// As the listeners were told.
    status: Status,
    pub(crate) statistics: Statistics,
    listeners: Vec<StatusListener>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum Run {
    #[default]
    Stopped,
    Running,
    Failed(antiphon_node::Error),
}

/// Why a synchronizer does not go on.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The store is in step with another document, or by another synchronizer: one store, one document. Stop that one, or
    /// share another store.
    Busy,
    /// It was stopped, by the app.
    Stopped,
    /// The content to begin with was not written, for it can't be. The synchronizer goes on without.
    Initial(WriteError),
    /// The node can't go on.
    Node(antiphon_node::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the store has a synchronizer already: stop that one, or share another store"),
            Self::Stopped => f.write_str("the synchronizer was stopped: start it again"),
            Self::Initial(error) => write!(f, "the content to begin with was not written: {error}"),
            Self::Node(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<antiphon_node::Error> for Error {
    fn from(error: antiphon_node::Error) -> Self {
        Self::Node(error)
    }
}

impl fmt::Debug for Synchronizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        f.debug_struct("Synchronizer").field("document", &self.0.document).field("status", &status).finish()
    }
}

impl Synchronizer {
    /// One for this store and this document. It does nothing until it is started.
    pub fn new(store: &SharedStore, node: &Node, document: &DocumentId, options: Options) -> Self {
        Self(Arc::new(Bound {
            store: store.clone(),
            node: node.clone(),
            document: document.clone(),
            options,
            stirred: Event::new(),
            changed: Event::new(),
            state: Mutex::default(),
        }))
    }

    /// Starts, at once. The future is ready when the store is first in step with all peers that are there then, at least
    /// one; or, at the document's [authority](Options::authority), when it holds what the document holds. It may be
    /// dropped: whoever serves others need not wait for them.
    ///
    /// # Errors
    /// Those of [`in_step`](Self::in_step), or the store has another synchronizer.
    pub fn start(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.begin(None)
    }

    /// The same, with what is to be in the store if nothing was ever written to the document, here or at any peer that is
    /// there. Whatever is written elsewhere, at whatever time, takes the place of what `initial` writes.
    ///
    /// # Errors
    /// As above, or what `initial` writes is [refused](Error::Initial).
    pub fn start_with<F>(&self, initial: F) -> impl Future<Output = Result<(), Error>> + Send + use<F>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<(), WriteError> + Send + 'static,
    {
        self.begin(Some(Box::new(initial)))
    }

    fn begin(&self, initial: Option<Initial>) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let started = self.try_begin(initial);
        let this = self.clone();
        async move {
            let start = started?;
            this.until(start, |state| state.was_in_step, || Some(())).await?;
            this.0.state().refused.take().map_or(Ok(()), |error| Err(Error::Initial(error)))
        }
    }

    fn try_begin(&self, initial: Option<Initial>) -> Result<u64, Error> {
        let start = match self.0.begin(initial)? {
            Begun::Anew(start) => start,
            Begun::Before(start) => return Ok(start),
        };
        // Nothing is locked here: if the node has stopped, the work is dropped, and says so.
        self.0.node.spawn(work::work(self.0.clone(), start))?;
        Ok(start)
    }

    /// Stops, at once: the document is closed in the node, the store is as it is. What was given to the document is still
    /// written, and the rest goes out with the next start; [`saved`](Self::saved) waits for it.
    pub fn stop(&self) {
        self.0.end(None, Run::Stopped);
    }

    /// Waits until the store, the document, and all peers that are there hold the same, and at least one is there.
    ///
    /// # Errors
    /// If it is stopped, or the node.
    pub async fn in_step(&self) -> Result<(), Error> {
        self.reaches(|status| status.phase == Phase::InStep).await.map(drop)
    }

    /// Waits until everything that was written to the store is durable here.
    ///
    /// # Errors
    /// If it is stopped, or the node, or what it writes can't be kept.
    pub async fn saved(&self) -> Result<(), Error> {
        let start = self.0.state().starts;
        let is_saved = || {
            let mirror = &self.0.store.lock().mirror;
            (!mirror.is_reading() && mirror.unseen() == 0).then_some(())
        };
        self.until(start, |_| true, is_saved).await
    }

    /// How far it is now.
    pub fn status(&self) -> Status {
        let start = self.0.state().starts;
        let looked = self.0.runs(start).then(|| work::look(&self.0).ok());
        looked.flatten().unwrap_or_default()
    }

    /// What it did so far.
    pub fn statistics(&self) -> Statistics {
        let loads = self.0.store.lock().loads;
        Statistics { loads, ..self.0.state().statistics }
    }

    /// Tells `listener` each time that the [status](Status) is another, in order; it may come back here.
    pub fn on_status(&self, listener: impl Fn(&Status) + Send + Sync + 'static) {
        self.0.state().listeners.push(Arc::new(listener));
    }

    /// Waits until a status fits. One that has passed by meanwhile may be missed.
    ///
    /// # Errors
    /// If it is stopped, or the node.
    pub async fn reaches(&self, fits: impl Fn(&Status) -> bool) -> Result<Status, Error> {
        let start = self.0.state().starts;
        let look = || work::look(&self.0).ok().filter(&fits);
        self.until(start, |_| true, look).await
    }

    /// Waits until there is something, first in the state and then otherwise.
    async fn until<T>(
        &self,
        start: u64,
        first: impl Fn(&State) -> bool,
        then: impl Fn() -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            let changed = self.0.changed.listen();
            let is_there = {
                let state = self.0.state();
                match &state.run {
                    Run::Failed(error) if state.starts == start => return Err(Error::Node(error.clone())),
                    Run::Running if state.starts == start => first(&state),
                    _ => return Err(Error::Stopped),
                }
            };
            if is_there && let Some(found) = then() {
                return Ok(found);
            }
            changed.await;
        }
    }
}

/// Which start it is that runs.
enum Begun {
    Anew(u64),
    /// It was started and not stopped.
    Before(u64),
}

impl Bound {
    /// Binds the store to the document, unless it is.
    fn begin(&self, initial: Option<Initial>) -> Result<Begun, Error> {
        let mut state = self.state();
        if state.run == Run::Running {
            return Ok(Begun::Before(state.starts));
        }
        let Options { direction, authority, .. } = self.options;
        let options = replica::Options {
            access: if direction == Direction::Load { Access::Read } else { Access::Write },
            authority,
            salvage: Salvage::Append,
            ..replica::Options::default()
        };
        let mut inner = self.store.lock();
        if inner.is_bound {
            return Err(Error::Busy);
        }
        self.node.open_document(&self.document, options)?;
        inner.mirror.set_client(ClientId::of(self.node.inspect(replica::Replica::id)));
        inner.mirror.attach(direction);
        inner.is_bound = true;
        (state.run, state.initial, state.was_in_step) = (Run::Running, initial, false);
        (state.position, state.closed, state.refused) = (0, None, None);
        state.starts += 1;
        Ok(Begun::Anew(state.starts))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this start is the one that runs.
    pub(crate) fn runs(&self, start: u64) -> bool {
        let state = self.state();
        state.starts == start && state.run == Run::Running
    }

    /// The work of a start has come to an end by itself.
    pub(crate) fn fail(&self, start: u64, error: antiphon_node::Error) {
        self.end(Some(start), Run::Failed(error));
    }

    fn end(&self, start: Option<u64>, run: Run) {
        {
            let mut state = self.state();
            if state.run != Run::Running || start.is_some_and(|start| start != state.starts) {
                return;
            }
            (state.run, state.initial) = (run, None);
            let mut inner = self.store.lock();
            inner.mirror.detach();
            inner.is_bound = false;
            // It may be closed already, or the node may have stopped: then there is nothing to close.
            let _ = self.node.close_document(&self.document);
        }
        self.tell(Status::default());
        self.changed.notify(usize::MAX);
    }

    /// The status is this one now.
    pub(crate) fn tell(&self, status: Status) {
        let listeners = {
            let mut state = self.state();
            let is_same = state.status == status;
            state.status = status.clone();
            if is_same { Vec::new() } else { state.listeners.clone() }
        };
        self.changed.notify(usize::MAX);
        listeners.iter().for_each(|listener| listener(&status));
    }
}
