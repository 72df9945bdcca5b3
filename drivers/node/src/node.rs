//! The handle on a node: what the app does with its replica.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use antiphon::codes::Code;
use antiphon::heads::Heads;
use antiphon::op::{DocumentId, Entry};
use antiphon::replica::{Event, Input, LinkId, Misuse, Options, Question, Replica, Ticket};
use antiphon::rng::Rng;
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Continuity, Reply, Request, Storage, StoredDocument};
use antiphon::wire::Access;
use antiphon_recorder::{Recordable as _, Recorder, Ring, Setup};
use async_executor::Executor;
use bytes::Bytes;

use crate::config::{Config, LinkOptions, RedialPolicy};
use crate::dial::{Link, dial};
use crate::disk::{self, Answer, Job, Outcome, Replies};
use crate::driver::Driver;
use crate::engine::{Phase, Shared};
use crate::error::Error;
use crate::events::Subscription;
use crate::follow::Follow;
use crate::links::carry;
use crate::progress::Progress;
use crate::transport::{Connector, Transport};

/// A replica at work, for many to share: clones are the same node.
///
/// Methods that are not `async` do what they say before they return, and never wait for a disk or a network; they may be
/// called from any thread. The futures of the others may be dropped at any time.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Shared>);

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("replica", &self.0.lock().replica.id()).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens a storage on a thread of its own, and makes a node of it. Nothing happens until the [`Driver`] runs.
    ///
    /// `continuity` says whether the storage surely is what its last user left there.
    ///
    /// # Errors
    /// If the storage can't be opened, or the replica is to be recorded where that can't be.
    pub async fn open<S: Storage + Send + 'static>(
        storage: S,
        continuity: Continuity,
        config: Config,
    ) -> Result<(Self, Driver<S>), Error> {
        let failed = |reason| Error::Storage { document: None, reason };
        let [identity, ids, chance] = entropy().map_err(failed)?;
        let replies = Arc::new(Replies::default());
        let opened = disk::start(storage, continuity, Rng::from_entropy(identity), replies.clone()).await;
        let (identity, disk) = opened.map_err(failed)?;
        let setup = Setup { config: config.replica.clone(), identity, entropy: ids };
        let replica = match &config.record {
            None => Recorder::idle(Replica::make(setup)),
            Some(ring) => record(setup, ring).map_err(|error| {
                Error::Recording(format!("{} can't be recorded in: {error}", ring.directory.display()))
            })?,
        };
        let executor = Arc::new(Executor::new());
        let shared = Shared::new(config, replica, Rng::from_entropy(chance), disk.jobs, replies, &executor);
        let shared = Arc::new(shared);
        Ok((Self(shared.clone()), Driver::new(shared, executor, disk.end)))
    }

    /// Looks at the replica: its id, its documents in memory, its sessions, its counters.
    pub fn inspect<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.0.lock().replica)
    }

    /// Why the replica is no longer recorded, though the configuration says so: its disk is full, or does not keep up. The
    /// node goes on without.
    pub fn recording_failure(&self) -> Option<String> {
        self.0.lock().replica.failure()
    }

    /// What has happened from now on. Who does not keep up is told how much was left out.
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_to(|_| true)
    }

    /// The same, of those events only that are `wanted`; what is not costs nothing.
    pub fn subscribe_to(&self, wanted: fn(&Event) -> bool) -> Subscription {
        self.0.lock().subscribers.subscribe(wanted)
    }

    // ---------------------------------------------------------------------------------------- documents

    /// Opens a document: on all links, now and later, until it is closed.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn open_document(&self, document: &DocumentId, options: Options) -> Result<(), Error> {
        self.0.turn(|engine| {
            engine.running()?;
            engine.documents.open(document, &options, &engine.replica);
            engine.tell(Input::Open { document: document.clone(), options });
            Ok(())
        })
    }

    /// Closes a document. What was appended is still written.
    ///
    /// # Errors
    /// If it is not open, or the node has stopped.
    pub fn close_document(&self, document: &DocumentId) -> Result<(), Error> {
        self.0.input(Input::Close { document: document.clone() })?;
        self.0.turn(|engine| {
            engine.documents.close(document);
            engine.stir();
        });
        Ok(())
    }

    /// Appends ops to a document that is open, at once. They are durable here when [`written`](Self::written) says so,
    /// and at a peer when [`Link::acknowledged`] does.
    ///
    /// # Errors
    /// If the document is not open for writing, a body is too large, so much waits for the storage that no more is taken
    /// ([`Misuse::Full`]), something was [lost](Error::Lost) and not taken back, or the node has stopped. Then none of
    /// them was appended.
    pub fn try_append(&self, document: &DocumentId, bodies: Vec<Bytes>) -> Result<(), Error> {
        self.0.turn(|engine| {
            engine.running()?;
            engine.documents.check_lost(document)?;
            let appended = bodies.len();
            engine.input(Input::Append { document: document.clone(), bodies })?;
            engine.documents.appended(document, appended);
            Ok(())
        })
    }

    /// The same, and waits where so much waits for the storage that no more is taken.
    ///
    /// # Errors
    /// If the document is not open for writing, a body is too large, something was [lost](Error::Lost) and not taken
    /// back, or the node has stopped. Then none of them was appended.
    pub async fn append(&self, document: &DocumentId, bodies: Vec<Bytes>) -> Result<(), Error> {
        loop {
            let changed = self.0.changed.listen();
            match self.try_append(document, bodies.clone()) {
                Err(Error::Misuse(Misuse::Full(_))) => changed.await,
                outcome => return outcome,
            }
        }
    }

    /// Waits until everything that was appended to a document so far is durable here, whatever is appended meanwhile.
    ///
    /// # Errors
    /// If the storage failed meanwhile or before: as [`Error::Storage`] while it is tried again, and then, if something
    /// was not kept, as [`Error::Lost`] until the app [takes it back](Self::take_lost). Or if the document is not open,
    /// or the node has stopped.
    pub async fn written(&self, document: &DocumentId) -> Result<(), Error> {
        let mut goal = None;
        loop {
            let changed = self.0.changed.listen();
            {
                let engine = self.0.lock();
                engine.serving()?;
                engine.documents.check(document)?;
                let (appended, appending) = (engine.documents.count(document), engine.replica.appending(document));
                let goal = *goal.get_or_insert(appended);
                if appended - appending.bodies as u64 >= goal && !appending.aside {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Takes back what was appended to a document and lost when its storage failed, in its order: to be appended again,
    /// if it is still wanted. Until then everybody who waits for the document, or appends to it, is told that something
    /// was [lost](Error::Lost): nobody takes it for durable, or goes on without it. Closing the document gives it up.
    ///
    /// # Errors
    /// If the document is not open.
    pub fn take_lost(&self, document: &DocumentId) -> Result<Vec<Bytes>, Error> {
        Ok(self.0.lock().documents.take_lost(document)?)
    }

    /// Waits until something is wrong with a document: its storage fails, it is not open, or the node has stopped. For
    /// those who do something with it meanwhile that would only wait.
    pub async fn failure(&self, document: &DocumentId) -> Error {
        loop {
            let changed = self.0.changed.listen();
            if let Err(error) = self.check(document) {
                return error;
            }
            changed.await;
        }
    }

    /// Looks whether something is wrong with a document now.
    ///
    /// # Errors
    /// What [`failure`](Self::failure) waits for.
    pub fn check(&self, document: &DocumentId) -> Result<(), Error> {
        let engine = self.0.lock();
        engine.serving().and_then(|()| engine.documents.check(document))
    }

    /// What is durable of a document that is in memory: the heads, and the position after the last entry.
    pub fn document(&self, document: &DocumentId) -> Option<(Arc<Heads>, u64)> {
        self.inspect(|replica| replica.document(document).map(|(heads, tail)| (heads.clone(), tail)))
    }

    /// Gives up this replica's history of a document where it differs from that of a peer, and rebuilds it from there.
    ///
    /// # Errors
    /// If the document is not open, there is no such link, or the node has stopped.
    pub fn reset(&self, document: &DocumentId, link: LinkId) -> Result<(), Error> {
        self.0.input(Input::Reset { document: document.clone(), link })
    }

    // ---------------------------------------------------------------------------------------- what is stored

    /// Entries of a document from position `from` on, of at most `cost_max` together but at least one; none beyond the
    /// tail. This is how an app reads what it missed, or is too much for events.
    ///
    /// # Errors
    /// If the storage can't be read, or the node has stopped.
    pub async fn read(&self, document: &DocumentId, from: u64, cost_max: u64) -> Result<Vec<Entry>, Error> {
        let request = Request::Read { document: document.clone(), from, max_cost: cost_max };
        match self.request(Some(document), request).await? {
            Reply::Entries(entries) => Ok(entries),
            _ => Err(misfit(Some(document))),
        }
    }

    /// Bytes of a document's snapshot from `offset` on: at least one and at most `max`; none beyond the end, or if it has
    /// another snapshot by now. The first [`head_bytes`](SnapshotId::head_bytes) of all are not the app's.
    ///
    /// # Errors
    /// If the storage can't be read, or the node has stopped.
    pub async fn snapshot(&self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Error> {
        let request = Request::Snapshot { document: document.clone(), id, offset, max };
        match self.request(Some(document), request).await? {
            Reply::Snapshot(bytes) => Ok(bytes),
            _ => Err(misfit(Some(document))),
        }
    }

    /// Lets a snapshot take the place of all entries of a document below a position, which is durable.
    /// [`Event::Compacted`] says when it has.
    ///
    /// # Errors
    /// If the document is not open as its [authority](antiphon::replica::Authority::Us), can't be compacted to that
    /// position now, or the node has stopped.
    pub fn compact(&self, document: &DocumentId, position: u64, body: Bytes) -> Result<(), Error> {
        self.0.input(Input::Compact { document: document.clone(), position, body })
    }

    /// How a document stands in the storage, whether it is open or not; one that was never held is empty.
    ///
    /// # Errors
    /// If the storage can't be read, or the node has stopped.
    pub async fn stored(&self, document: &DocumentId) -> Result<StoredDocument, Error> {
        match self.request(Some(document), Request::Open(document.clone())).await? {
            Reply::Document(stored) => Ok(stored),
            _ => Err(misfit(Some(document))),
        }
    }

    /// All documents that are stored, in order.
    ///
    /// # Errors
    /// If the storage can't be read, or the node has stopped.
    pub async fn documents(&self) -> Result<Vec<DocumentId>, Error> {
        self.question(None, disk::Question::Documents).await
    }

    /// Entries of a document that is open, from position `from` on, and then those to come, each once and in order.
    pub fn follow(&self, document: &DocumentId, from: u64) -> Follow {
        Follow::new(self.clone(), document.clone(), from)
    }

    async fn request(&self, document: Option<&DocumentId>, request: Request) -> Result<Reply, Error> {
        self.question(document, |answer| disk::Question::Request(request, answer)).await
    }

    async fn question<T>(
        &self,
        document: Option<&DocumentId>,
        question: impl FnOnce(Answer<T>) -> disk::Question,
    ) -> Result<T, Error> {
        let (answer, outcome) = async_channel::bounded(1);
        {
            let engine = self.0.lock();
            let jobs = engine.jobs.as_ref().ok_or(Error::Stopped)?;
            // If its thread is gone, so is the question, and with it the answer.
            let _ = jobs.send(Job::App(question(answer)));
        }
        let outcome: Outcome<T> = outcome.recv().await.unwrap_or_else(|_| Err(String::from(disk::GONE)));
        outcome.map_err(|reason| Error::Storage { document: document.cloned(), reason })
    }

    // ---------------------------------------------------------------------------------------- links

    /// Connects to a peer, and connects again whenever that ends, until the app disconnects the link, the node stops, or
    /// a code or the connector says that trying again won't help.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn connect(
        &self,
        connector: impl Connector,
        options: LinkOptions,
        policy: RedialPolicy,
    ) -> Result<Link, Error> {
        self.0.lock().running()?;
        let executor = self.0.executor.upgrade().ok_or(Error::Stopped)?;
        let progress = Arc::new(Progress::new(options.upstream));
        executor.spawn(dial(self.0.clone(), connector, options, policy, progress.clone())).detach();
        Ok(Link::new(self.clone(), progress))
    }

    /// Bytes of the largest frame that peers send to this node: [`Limits::frame`](antiphon::wire::Limits) of its
    /// configuration, for whoever makes the transport of a link.
    pub fn frame_max(&self) -> u32 {
        self.0.config.replica.session.limits.frame
    }

    /// Takes a connection that a peer has made. The link lasts as long as that does.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn accept(&self, transport: impl Transport, options: LinkOptions) -> Result<LinkId, Error> {
        let executor = self.0.executor.upgrade().ok_or(Error::Stopped)?;
        let link = self.0.connected(transport.kind(), &options, None)?;
        let (shared, halves) = (self.0.clone(), transport.split());
        executor.spawn(async move { _ = carry(&shared, link, halves).await }).detach();
        Ok(link)
    }

    /// Ends the session on a link. One that this end connected is connected again if the code allows it; see
    /// [`Link::disconnect`].
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn disconnect(
        &self,
        link: LinkId,
        code: Code,
        reason: &str,
        retry_after: Option<Duration>,
    ) -> Result<(), Error> {
        self.0.input(goodbye(link, code, reason, retry_after))
    }

    /// Who is at the other end of a link, if whoever made the connection has said so.
    pub fn principal(&self, link: LinkId) -> Option<Arc<str>> {
        self.0.lock().principal(link)
    }

    // ---------------------------------------------------------------------------------------- questions

    /// The next question that the replica asks its host, where its configuration says so
    /// ([`Admission::Ask`](antiphon::replica::Admission::Ask)); `None` when the node has stopped. Each is told once:
    /// one task should be at this.
    pub async fn next_question(&self) -> Option<(Ticket, Question)> {
        self.0.questions.recv().await.ok()
    }

    /// Answers a question. Late answers mean nothing.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn answer(&self, ticket: Ticket, answer: Result<Access, (Code, String)>) -> Result<(), Error> {
        self.0.input(Input::Answer { ticket, answer })
    }

    // ---------------------------------------------------------------------------------------- the end

    /// Waits until the node no longer takes links: it is shutting down, or has stopped.
    pub async fn closing(&self) {
        loop {
            let changed = self.0.changed.listen();
            if self.0.lock().running().is_err() {
                return;
            }
            changed.await;
        }
    }

    /// Runs a future with the [`Driver`], until it is ready or the node has stopped.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        self.0.executor.upgrade().ok_or(Error::Stopped)?.spawn(future).detach();
        Ok(())
    }

    /// Ends in order, and waits until that is done: nothing is connected or appended any more; what was appended is
    /// written; the peers are told, and when to come back; what is on its way to them is flushed; the storage is synced.
    /// The [`Driver`] then has the storage.
    ///
    /// # Errors
    /// If the storage did not write everything, or did not sync; or if the driver was dropped.
    pub async fn shutdown(&self, retry_after: Option<Duration>) -> Result<(), Error> {
        self.0.turn(|engine| {
            if engine.running().is_err() {
                return; // somebody else was first
            }
            engine.phase = Phase::Draining;
            for link in engine.links.keys().copied().collect::<Vec<_>>() {
                engine.tell(goodbye(link, Code::SHUTDOWN, "this end is shutting down", retry_after));
            }
            engine.stir();
        });
        loop {
            let changed = self.0.changed.listen();
            if let Phase::Stopped(outcome) = &self.0.lock().phase {
                return outcome.clone();
            }
            changed.await;
        }
    }
}

pub(crate) fn goodbye(link: LinkId, code: Code, reason: &str, retry_after: Option<Duration>) -> Input {
    let retry_after = retry_after.map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
    Input::Disconnect { link, code, reason: reason.into(), retry_after }
}

fn misfit(document: Option<&DocumentId>) -> Error {
    let reason = String::from("the storage's reply does not fit the request");
    Error::Storage { document: document.cloned(), reason }
}

/// A replica that is recorded.
fn record(setup: Setup, ring: &Ring) -> std::io::Result<Recorder<Replica>> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let began = u64::try_from(began).unwrap_or(u64::MAX);
    Ok(Recorder::new(setup, ring.open()?, antiphon_recorder::Options { redacted: ring.redacted, began }))
}

/// Three times 256 bits that nobody else has.
fn entropy() -> Result<[[u8; 32]; 3], String> {
    let mut entropy = [[0; 32]; 3];
    for bits in &mut entropy {
        getrandom::fill(bits).map_err(|error| format!("the system has no entropy: {error}"))?;
    }
    Ok(entropy)
}
