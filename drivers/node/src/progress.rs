//! How far documents and links are, for those who wait for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use antiphon::codes::Code;
use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{Authority, Event, LinkId, Misuse, Options, Replica};
use antiphon::session::By;
use antiphon::snapshot::SnapshotId;
use antiphon::wire::Durability;
use bytes::Bytes;

use crate::error::{Error, LinkEnd};

/// The documents that the app has open.
#[derive(Debug, Default)]
pub(crate) struct Documents(BTreeMap<DocumentId, DocumentState>);

/// What is to be known of one.
#[derive(Debug, Default)]
pub(crate) struct DocumentState {
    authority: Authority,
    /// Mostly there is none, and idle documents are many.
    trouble: Option<Box<Trouble>>,
    /// How many bodies were appended.
    appended: u64,
    /// The position after the last durable entry.
    pub(crate) tail: u64,
    /// How often the log began anew, or lost its end.
    pub(crate) restarts: u64,
    /// What it began with when it was opened last.
    snapshot: Option<Option<SnapshotId>>,
}

/// What is wrong with a document's storage, or was.
#[derive(Debug, Default)]
struct Trouble {
    /// It failed, and is tried again.
    failure: Option<String>,
    /// What was appended and lost with that, until the app takes it back.
    lost: Vec<Bytes>,
}

impl DocumentState {
    fn works_again(&mut self) {
        self.trouble.take_if(|trouble| trouble.lost.is_empty());
        self.trouble.iter_mut().for_each(|trouble| trouble.failure = None);
    }
}

impl Documents {
    pub(crate) fn names(&self) -> impl Iterator<Item = &DocumentId> {
        self.0.keys()
    }

    pub(crate) fn get(&self, document: &DocumentId) -> Option<&DocumentState> {
        self.0.get(document)
    }

    pub(crate) fn open(&mut self, document: &DocumentId, options: &Options, replica: &Replica) {
        let state = self.0.entry(document.clone()).or_default();
        state.authority = options.authority;
        // It may have been closed while something was still on its way.
        state.appended = state.appended.max(replica.appending(document).bodies as u64);
        state.tail = state.tail.max(replica.document(document).map_or(0, |(_, tail)| tail));
    }

    pub(crate) fn close(&mut self, document: &DocumentId) {
        self.0.remove(document);
    }

    /// Takes note of so many bodies more that were appended.
    pub(crate) fn appended(&mut self, document: &DocumentId, bodies: usize) {
        self.0.get_mut(document).into_iter().for_each(|state| state.appended += bodies as u64);
    }

    /// How many bodies were appended, those on their way included.
    pub(crate) fn count(&self, document: &DocumentId) -> u64 {
        self.get(document).map_or(0, |state| state.appended)
    }

    /// What is wrong with a document, if anything is.
    pub(crate) fn check(&self, document: &DocumentId) -> Result<(), Error> {
        let state = self.get(document).ok_or_else(|| Misuse::NotOpen(document.clone()))?;
        if let Some(reason) = state.trouble.as_ref().and_then(|trouble| trouble.failure.as_ref()) {
            return Err(Error::Storage { document: Some(document.clone()), reason: reason.clone() });
        }
        self.check_lost(document)
    }

    /// Whether something of it was lost that the app has not taken back.
    pub(crate) fn check_lost(&self, document: &DocumentId) -> Result<(), Error> {
        match self.get(document).and_then(|state| state.trouble.as_ref()).map_or(0, |trouble| trouble.lost.len()) {
            0 => Ok(()),
            appends => Err(Error::Lost { document: document.clone(), appends: appends as u64 }),
        }
    }

    /// What was lost of a document, which then is as if it had never been appended.
    pub(crate) fn take_lost(&mut self, document: &DocumentId) -> Result<Vec<Bytes>, Misuse> {
        let state = self.0.get_mut(document).ok_or_else(|| Misuse::NotOpen(document.clone()))?;
        let lost = state.trouble.as_mut().map(|trouble| std::mem::take(&mut trouble.lost));
        Ok(lost.unwrap_or_default())
    }

    /// Whether a fork in this document is mended by itself, when it is found on a link of this kind.
    pub(crate) fn mends(&self, document: &DocumentId, upstream: bool) -> bool {
        upstream && self.0.get(document).is_some_and(|state| state.authority == Authority::Upstream)
    }

    /// Takes note of what happened; says whether somebody may have waited for it.
    pub(crate) fn note(&mut self, event: &Event, replica: &Replica) -> bool {
        let (document, tail) = match event {
            Event::Opened { document, tail, .. } => (document, *tail),
            Event::Applied { document, position, .. } => (document, *position),
            Event::Received { batch } => (&batch.document, batch.tail()),
            Event::Recovered { document, .. } => (document, replica.document(document).map_or(0, |(_, tail)| tail)),
            Event::Failed { document, .. } | Event::Mended { document } | Event::Orphaned { document, .. } => {
                (document, self.0.get(document).map_or(0, |state| state.tail))
            }
            Event::Renewed { .. } => return true,
            _ => return false,
        };
        let Some(state) = self.0.get_mut(document) else { return false };
        let began = match event {
            Event::Opened { snapshot, .. } => state.snapshot.replace(*snapshot).is_some_and(|known| known != *snapshot),
            _ => false,
        };
        if began || tail < state.tail && !matches!(event, Event::Applied { .. }) {
            state.restarts += 1;
            state.tail = tail;
        }
        state.tail = state.tail.max(tail);
        match event {
            Event::Opened { .. } => state.works_again(),
            Event::Recovered { lost, .. } => {
                state.works_again();
                if !lost.is_empty() {
                    state.trouble.get_or_insert_default().lost.extend_from_slice(lost);
                }
            }
            Event::Failed { reason, .. } => state.trouble.get_or_insert_default().failure = Some(reason.clone()),
            _ => {}
        }
        true
    }
}

/// What a [`Link`](crate::Link) is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkState {
    /// There is no session: it is being connected, or waits until that is tried again.
    Connecting {
        /// How often it failed since it last worked.
        failures: u32,
        /// Why, the last time.
        reason: Option<String>,
    },
    /// There is a session.
    Live {
        /// The link's number, in this session.
        link: LinkId,
        /// The peer.
        replica: ReplicaId,
        /// What its acknowledgements promise.
        durability: Durability,
    },
    /// It is over, and won't be connected again.
    Ended(LinkEnd),
}

/// How far a link is that this end connects.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) upstream: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: LinkState,
    /// The app wants it to end.
    unwanted: bool,
    documents: BTreeMap<DocumentId, OnLink>,
}

/// A document in a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnLink {
    /// Everything below this position is durable at the peer.
    pub(crate) acknowledged: u64,
    /// The digest of the heads when both were last in step.
    pub(crate) in_step: Option<u64>,
    pub(crate) forked: bool,
    /// Why it was closed, if it was and has not been heard of since.
    pub(crate) closed: Option<(Code, String, By)>,
}

impl Progress {
    pub(crate) fn new(upstream: bool) -> Self {
        let state = LinkState::Connecting { failures: 0, reason: None };
        Self { upstream, inner: Mutex::new(Inner { state, unwanted: false, documents: BTreeMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> LinkState {
        self.lock().state.clone()
    }

    pub(crate) fn set_state(&self, state: LinkState) {
        self.lock().state = state;
    }

    pub(crate) fn is_unwanted(&self) -> bool {
        self.lock().unwanted
    }

    pub(crate) fn unwant(&self) {
        self.lock().unwanted = true;
    }

    pub(crate) fn document(&self, document: &DocumentId) -> OnLink {
        self.lock().documents.get(document).cloned().unwrap_or_default()
    }

    /// Takes note of what happened while this was link `us`; says whether somebody may have waited for it.
    pub(crate) fn note(&self, us: LinkId, event: &Event) -> bool {
        let mut inner = self.lock();
        match event {
            Event::Connected { link, replica, durability } if *link == us => {
                let (link, replica, durability) = (*link, *replica, *durability);
                inner.state = LinkState::Live { link, replica, durability };
                inner.documents.clear();
            }
            Event::Disconnected { link, .. } if *link == us => inner.documents.clear(),
            Event::Acknowledged { link, document, position } if *link == us => {
                let on_link = inner.documents.entry(document.clone()).or_default();
                (on_link.acknowledged, on_link.closed) = (*position, None);
            }
            Event::InStep { link, document, digest } if *link == us => {
                let on_link = inner.documents.entry(document.clone()).or_default();
                (on_link.in_step, on_link.closed) = (Some(*digest), None);
            }
            Event::Forked { link, document, .. } if *link == us => {
                inner.documents.entry(document.clone()).or_default().forked = true;
            }
            Event::Closed { link, document, code, reason, by } if *link == us => {
                let closed = Some((*code, reason.clone(), *by));
                inner.documents.insert(document.clone(), OnLink { closed, ..OnLink::default() });
            }
            // The document was loaded anew: positions may mean something else than before.
            Event::Opened { document, .. } => return inner.documents.remove(document).is_some(),
            _ => return false,
        }
        true
    }
}
