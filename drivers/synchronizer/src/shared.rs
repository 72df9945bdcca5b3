//! A store that many parts of a program share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use antiphon::op::ReplicaId;
use antiphon::store::{
    BadSchema, Changes, ClientId, ListenerId, Listeners, Malformed, Mirror, Pattern, Schema, Stamp, Store, Transaction,
    WriteError,
};
use event_listener::Event;

/// A store behind a lock, for many to share: clones are the same store. It may be read, written and listened to at any
/// time, whether a [`Synchronizer`](crate::Synchronizer) runs or not; what is written while none does goes out when one is
/// started.
///
/// Nothing here waits for a disk or a network.
#[derive(Clone)]
pub struct SharedStore(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// There may be something to be sent.
    pub(crate) written: Event,
}

type Listener = Arc<Mutex<dyn FnMut(&Told) + Send>>;
type Corrector = Arc<dyn Fn(&Changes, &mut Transaction<'_>) -> Result<(), WriteError> + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) mirror: Mirror,
    /// A synchronizer has it.
    pub(crate) is_bound: bool,
    /// How often something came in.
    pub(crate) loads: u64,
    listeners: Listeners<Listener>,
    next_corrector: u64,
    correctors: Vec<(CorrectorId, Corrector)>,
    /// What happened and was not told yet, the oldest first.
    untold: VecDeque<Told>,
    /// Somebody is telling it.
    is_telling: bool,
}

/// Who changed a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// This program, or one of its correctors.
    Us,
    /// A replica, which may be this one in an earlier run.
    Replica(ReplicaId),
    /// Many: the document was read from its beginning.
    Document,
}

/// What a listener is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What changed, of that which the listener wants to know.
    pub changes: Changes,
    /// Who did it.
    pub by: By,
    /// When it was written, by the writer's clock: milliseconds since 1970. Of a document that was read: when it was read.
    pub at: u64,
    /// How many milliseconds the writer's clock is ahead of ours. Above
    /// [`drift_max_ms`](antiphon::store::Config::drift_max_ms) one of the two is wrong.
    pub ahead_ms: u64,
}

/// Which corrector of a store. Never given twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CorrectorId(u64);

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore").field("mirror", &self.lock().mirror).finish_non_exhaustive()
    }
}

impl Default for SharedStore {
    /// An empty store.
    fn default() -> Self {
        // Until a synchronizer says which replica writes here: two that are equal would only make ties.
        let client = getrandom::u32().unwrap_or_default();
        Self::new(Store::new(ClientId::new(client)))
    }
}

impl SharedStore {
    /// Shares a store. What it holds goes into the document of the first synchronizer.
    pub fn new(store: Store) -> Self {
        Self::with_clock(store, || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// The same, with another clock than the system's: it returns milliseconds since 1970.
    pub fn with_clock(store: Store, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let inner = Inner {
            mirror: Mirror::new(store),
            is_bound: false,
            loads: 0,
            listeners: Listeners::new(),
            next_corrector: 0,
            correctors: Vec::new(),
            untold: VecDeque::new(),
            is_telling: false,
        };
        Self(Arc::new(Shared { inner: Mutex::new(inner), clock: Box::new(clock), written: Event::new() }))
    }

    /// Looks at the store. Others wait meanwhile; `look` must not come back here.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(self.lock().mirror.store())
    }

    /// Does a transaction: all that `write` writes, or, if it fails, nothing. Listeners have been told when it returns,
    /// unless somebody else is about to. `write` must not come back here.
    ///
    /// # Errors
    /// Those of `write`; or the transaction is too large, or the disk is behind ([`WriteError::Full`]).
    pub fn write<T, E: From<WriteError>>(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let at = self.now();
        self.change(|inner| {
            let (result, changes) = inner.mirror.write(at, write)?;
            inner.tell(Told { changes, by: By::Us, at, ahead_ms: 0 });
            Ok(result)
        })
    }

    /// Writes what is to be there unless something else was ever written.
    pub(crate) fn write_initial(
        &self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let at = self.now();
        self.change(|inner| {
            let ((), changes) = inner.mirror.write_initial(write)?;
            inner.tell(Told { changes, by: By::Us, at, ahead_ms: 0 });
            Ok(())
        })
    }

    /// From now on this schema binds what is written here: see [`Store::set_schema`].
    ///
    /// # Errors
    /// If the schema contradicts itself. The one before stays.
    pub fn set_schema(&self, schema: Option<Schema>) -> Result<(), BadSchema> {
        self.lock().mirror.set_schema(schema)
    }

    /// Tells `listener` of all changes that fit, whoever makes them, once a transaction and in their order. It may come
    /// back here, and write: what that changes is told after it has returned.
    pub fn listen(&self, pattern: Pattern, listener: impl FnMut(&Told) + Send + 'static) -> ListenerId {
        self.lock().listeners.add(pattern, Arc::new(Mutex::new(listener)))
    }

    /// Tells a listener nothing more. It may be in the middle of being told.
    pub fn unlisten(&self, listener: ListenerId) {
        self.lock().listeners.remove(listener);
    }

    /// Lets `correct` look at what comes from elsewhere, once it is there, and write: what it writes goes back to
    /// everybody, as if it had come right after. It is not asked about what is written here, and if it fails, what it has
    /// written is not.
    ///
    /// It should leave alone what is right: two that disagree would correct each other for ever.
    pub fn correct(
        &self,
        correct: impl Fn(&Changes, &mut Transaction<'_>) -> Result<(), WriteError> + Send + Sync + 'static,
    ) -> CorrectorId {
        let mut inner = self.lock();
        let id = CorrectorId(inner.next_corrector);
        inner.next_corrector += 1;
        inner.correctors.push((id, Arc::new(correct)));
        id
    }

    /// Asks a corrector no more.
    pub fn uncorrect(&self, corrector: CorrectorId) {
        self.lock().correctors.retain(|(id, _)| *id != corrector);
    }

    pub(crate) fn now(&self) -> u64 {
        (self.0.clock)()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A transaction that panics is rolled back as it is dropped.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store, and tells those who listen.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.written.notify(usize::MAX);
        self.tell();
        result
    }

    /// Tells what was not told yet, each thing to all before the next, with nobody waiting for the store meanwhile.
    fn tell(&self) {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.is_telling, true) {
            return; // whoever is at it goes on
        }
        let over = Telling(self);
        while let Some(told) = inner.untold.pop_front() {
            let Told { changes, by, at, ahead_ms } = told;
            let mut calls: Vec<(Listener, Told)> = Vec::new();
            inner.listeners.tell(&changes, |listener, changes| {
                calls.push((listener.clone(), Told { changes, by, at, ahead_ms }));
            });
            drop(inner);
            for (listener, told) in calls {
                listener.lock().unwrap_or_else(PoisonError::into_inner)(&told);
            }
            inner = self.lock();
        }
        inner.is_telling = false;
        std::mem::forget(over);
    }
}

/// Lets others tell, if a listener panics.
struct Telling<'a>(&'a SharedStore);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.lock().is_telling = false;
    }
}

impl Inner {
    fn tell(&mut self, told: Told) {
        if !told.changes.is_empty() {
            self.untold.push_back(told);
        }
    }

    /// Joins the next op of the document.
    pub(crate) fn apply(&mut self, body: &[u8], by: Option<(ReplicaId, bool)>, now: u64) -> Result<(), Malformed> {
        let is_own = by.is_some_and(|(_, is_own)| is_own);
        let applied = self.mirror.apply(body, is_own, now)?;
        self.loads += 1;
        let stamp: Stamp = applied.latest;
        let by = by.map_or(By::Document, |(author, _)| By::Replica(author));
        self.arrived(Told { changes: applied.changes, by, at: stamp.time(), ahead_ms: applied.ahead_ms }, now);
        Ok(())
    }

    /// The document was read to its end.
    pub(crate) fn finish(&mut self, now: u64) {
        let changes = self.mirror.finish(now);
        self.arrived(Told { changes, by: By::Document, at: now, ahead_ms: 0 }, now);
    }

    fn arrived(&mut self, told: Told, now: u64) {
        if told.changes.is_empty() {
            return;
        }
        let arrived = told.changes.clone();
        self.tell(told);
        for (_, correct) in self.correctors.clone() {
            // What fails has written nothing; whoever wrote the corrector sees its own errors.
            if let Ok(((), changes)) = self.mirror.write(now, |transaction| correct(&arrived, transaction)) {
                self.tell(Told { changes, by: By::Us, at: now, ahead_ms: 0 });
            }
        }
    }
}
