//! A store that is kept equal to a document.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use super::changes::Changes;
use super::decoding::Malformed;
use super::schema::{BadSchema, Schema};
use super::stamp::ClientId;
use super::transaction::{Committed, Transaction, WriteError};
use super::{Applied, Store};

/// Which way things go between a store and its document.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Into the store only: what is written to it stays there.
    Load,
    /// Into the document only: what others write is not seen.
    Save,
}

/// Bytes of bodies that wait for the document, and a body more, before nothing more can be written: 16 MiB.
pub const UNSEEN_BYTES_MAX: usize = 16 << 20;

/// A store that is kept equal to a document: what is written to it goes into the document, what is in the document is
/// joined to it.
///
/// The host moves bodies: it appends what [`outgoing`](Self::outgoing) gives, and hands over with [`apply`](Self::apply)
/// what the document has, in its order, whoever wrote it. It says when the document is read from its beginning
/// ([`attach`](Self::attach), [`restart`](Self::restart)) and when that has come to its end ([`finish`](Self::finish)); in
/// between the store stays as it is, so that a document that began anew (a fork was mended, a disk lost its end) takes back
/// what it no longer has at once, with all that is told of it.
#[derive(Clone, Debug)]
pub struct Mirror {
    store: Store,
    /// Joined: what was written here and is not in the document, nor on its way there. `None`: all that the store holds.
    own: Option<Box<Store>>,
    attached: Option<Attached>,
}

#[derive(Clone, Debug)]
struct Attached {
    direction: Direction,
    /// The document so far, while it is read from its beginning.
    reading: Option<Box<Store>>,
    /// Bodies that were written here and that the document has not shown yet, the oldest first.
    unseen: VecDeque<Bytes>,
    unseen_bytes: usize,
    /// How many of them the host has.
    handed: usize,
}

impl Mirror {
    /// A store by itself. What it holds goes into the document that it is attached to.
    pub fn new(store: Store) -> Self {
        Self { store, own: None, attached: None }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on somebody else writes here: the replica has renewed its id.
    pub fn set_client(&mut self, client: ClientId) {
        self.both().for_each(|store| store.set_client(client));
    }

    /// From now on this schema binds what is written here: see [`Store::set_schema`].
    ///
    /// # Errors
    /// If the schema contradicts itself. The one before stays.
    pub fn set_schema(&mut self, schema: Option<Schema>) -> Result<(), BadSchema> {
        self.store.set_schema(schema)?;
        let schema = self.store.schema.clone();
        self.both().for_each(|store| store.schema.clone_from(&schema));
        Ok(())
    }

    /// The store, and the one that is to take its place.
    fn both(&mut self) -> impl Iterator<Item = &mut Store> {
        let reading = self.attached.as_mut().and_then(|attached| attached.reading.as_deref_mut());
        [&mut self.store].into_iter().chain(reading)
    }

    /// Does a transaction, of what `write` writes, at `wall`, in milliseconds since 1970. What was committed is on its way
    /// into the document, or will be when it is attached.
    ///
    /// # Errors
    /// Those of `write`, and of the [commit](Transaction::commit): nothing was written. [`WriteError::Full`], if
    /// [`UNSEEN_BYTES_MAX`] wait for the document already.
    pub fn write<T, E: From<WriteError>>(
        &mut self,
        wall: u64,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Changes), E> {
        if self.attached.as_ref().is_some_and(|attached| attached.unseen_bytes > UNSEEN_BYTES_MAX) {
            return Err(WriteError::Full.into());
        }
        let mut transaction = self.store.begin(wall).map_err(WriteError::from)?;
        let result = write(&mut transaction)?;
        let committed = transaction.commit()?;
        Ok((result, self.take(committed, wall)))
    }

    /// The same for a document in which nothing was ever written: whatever is written later, anywhere and whatever the
    /// clock shows there, takes the place of this.
    ///
    /// # Errors
    /// As above.
    pub fn write_initial<T, E: From<WriteError>>(
        &mut self,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Changes), E> {
        let mut transaction = self.store.begin_initial().map_err(WriteError::from)?;
        let result = write(&mut transaction)?;
        let committed = transaction.commit()?;
        Ok((result, self.take(committed, 0)))
    }

    /// Forgets old deletions: see [`Store::sweep`].
    ///
    /// # Errors
    /// As there.
    pub fn sweep(&mut self, before: u64) -> Result<(), WriteError> {
        let committed = self.store.sweep(before)?;
        self.take(committed, before);
        Ok(())
    }

    fn take(&mut self, committed: Committed, wall: u64) -> Changes {
        if let Some(body) = committed.body {
            match (&mut self.own, &mut self.attached) {
                (None, _) => {} // the store has it
                (Some(_), Some(attached)) if attached.direction != Direction::Load => {
                    attached.unseen_bytes += body.len();
                    attached.unseen.push_back(body);
                }
                (Some(own), _) => join(own, &body, wall),
            }
        }
        committed.changes
    }

    /// From now on it is kept equal to a document, which the host reads from its beginning.
    pub fn attach(&mut self, direction: Direction) {
        self.detach();
        let reading = Some(Box::new(self.blank()));
        self.attached = Some(Attached { direction, reading, unseen: VecDeque::new(), unseen_bytes: 0, handed: 0 });
    }

    /// From now on it is a store by itself. What the document has not shown is kept for the next time.
    pub fn detach(&mut self) {
        let Some(attached) = self.attached.take() else { return };
        if let Some(own) = &mut self.own {
            attached.unseen.iter().for_each(|body| join(own, body, 0));
        }
    }

    /// The document is read from its beginning again: it is another than it was.
    pub fn restart(&mut self) {
        let blank = self.blank();
        if let Some(attached) = &mut self.attached {
            attached.reading = Some(Box::new(blank));
        }
    }

    fn blank(&self) -> Store {
        let mut blank = Store::with(self.store.config, self.store.client);
        blank.schema.clone_from(&self.store.schema);
        blank
    }

    /// Whether the document is being read from its beginning.
    pub fn is_reading(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.reading.is_some())
    }

    /// Whether the store holds what the document holds that was read so far, and nothing else: then its
    /// [snapshot](Store::snapshot) may stand for that part of the document.
    pub fn is_equal(&self) -> bool {
        let Some(attached) = &self.attached else { return false };
        attached.direction == Direction::Both && attached.reading.is_none() && attached.unseen.is_empty()
    }

    /// How many bodies that were written here the document has not shown yet.
    pub fn unseen(&self) -> usize {
        self.attached.as_ref().map_or(0, |attached| attached.unseen.len())
    }

    /// Joins the next op of the document, or what stands in the place of its first ops, at `wall`, in milliseconds since
    /// 1970. `is_own`: this replica wrote it.
    ///
    /// What changed is told once: of a document that is read from its beginning by [`finish`](Self::finish).
    ///
    /// # Errors
    /// If that is no op of a store. Nothing has changed, here or in any other store that is handed the same.
    pub fn apply(&mut self, body: &[u8], is_own: bool, wall: u64) -> Result<Applied, Malformed> {
        let Some(attached) = &mut self.attached else { return Ok(Applied::default()) };
        if is_own {
            let handed = attached.unseen.iter().take(attached.handed);
            if let Some(at) = handed.into_iter().position(|unseen| *unseen == body) {
                // Those before it came before it.
                attached.unseen_bytes -= attached.unseen.drain(..=at).map(|body| body.len()).sum::<usize>();
                attached.handed -= at + 1;
            }
        }
        match &mut attached.reading {
            Some(reading) => Ok(reading.join(body, wall)?.1),
            None if attached.direction == Direction::Save => Ok(Applied::default()),
            None => self.store.apply(body, wall),
        }
    }

    /// The document was read to its end. What the store holds beyond it goes there, and what changes for those who see the
    /// store is returned.
    pub fn finish(&mut self, wall: u64) -> Changes {
        let Some(attached) = &mut self.attached else { return Changes::default() };
        let Some(mut read) = attached.reading.take() else { return Changes::default() };
        let own = self.own.as_deref().unwrap_or(&self.store).lacking(&read);
        let is_sent = attached.direction != Direction::Load;
        if is_sent {
            // What is on its way already was not `own`: this was written before.
            own.iter().rev().for_each(|body| attached.unseen.insert(attached.handed, body.clone()));
            attached.unseen_bytes += own.iter().map(Bytes::len).sum::<usize>();
        }
        if is_sent || self.own.is_none() {
            let mut blank = Store::new(self.store.client);
            if !is_sent {
                own.iter().for_each(|body| join(&mut blank, body, wall));
            }
            self.own = Some(Box::new(blank));
        }
        if attached.direction == Direction::Save {
            return Changes::default();
        }
        for body in own.iter().chain(&attached.unseen) {
            join(&mut read, body, wall);
        }
        read.clock.join(self.store.clock);
        let before = core::mem::replace(&mut self.store, *read);
        before.changes_to(&self.store)
    }

    /// The next bodies to be appended to the document, in this order, of `bytes_max` together but at least one; none if
    /// there are none. They are not given again.
    pub fn outgoing(&mut self, bytes_max: usize) -> Vec<Bytes> {
        let Some(attached) = self.attached.as_mut().filter(|attached| attached.reading.is_none()) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let waiting = attached.unseen.iter().skip(attached.handed);
        let fits = |body: &&Bytes| {
            bytes += body.len();
            bytes <= bytes_max || bytes == body.len()
        };
        let bodies: Vec<_> = waiting.take_while(fits).cloned().collect();
        attached.handed += bodies.len();
        bodies
    }

    /// So many bodies, the last that were handed out, did not get into the document: they are handed out again.
    pub fn returned(&mut self, bodies: usize) {
        if let Some(attached) = &mut self.attached {
            attached.handed = attached.handed.saturating_sub(bodies);
        }
    }
}

/// Joins what a store wrote.
fn join(store: &mut Store, body: &[u8], wall: u64) {
    let joined = store.join(body, wall);
    debug_assert!(joined.is_ok(), "what a store wrote is well formed");
}
