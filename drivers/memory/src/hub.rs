//! A hub: any number of replicas in one process that hear each other, as if each pair of them had a socket.
//!
//! ```
//! use std::time::Duration;
//!
//! use antiphon::replica::{Config, Event, Options};
//! use antiphon::storage::Continuity;
//! use antiphon_memory::{Hub, MemoryStorage};
//!
//! let hub = Hub::named("notes");
//! let [first, second] = [(); 2].map(|()| {
//!     let storage = MemoryStorage::new();
//!     hub.join(storage, Continuity::Proven, Config::default()).expect("a storage in memory opens")
//! });
//!
//! let document: antiphon::op::DocumentId = "groceries".parse()?;
//! second.open(&document, Options::default());
//! let reader = std::thread::spawn(move || {
//!     let mut bodies = Vec::new();
//!     while second.wait(Duration::from_secs(5)) {
//!         for event in second.events() {
//!             match event {
//!                 Event::Received { batch } => bodies.extend(batch.entries.clone()),
//!                 Event::Disconnected { .. } => return bodies,
//!                 _ => {}
//!             }
//!         }
//!     }
//!     panic!("nothing came for five seconds");
//! });
//!
//! first.open(&document, Options::default());
//! first.append(&document, vec!["milk".into(), "eggs".into()]).expect("the document is open");
//! let on_the_other_disk = |event: &Event| matches!(event, Event::Acknowledged { position: 2, .. });
//! while first.wait(Duration::from_secs(5)) && !first.events().iter().any(on_the_other_disk) {}
//! first.leave().expect("a storage in memory syncs");
//!
//! let received = reader.join().expect("the reader does not panic");
//! assert_eq!(received.len(), 2);
//! # Ok::<(), antiphon::op::BadDocumentId>(())
//! ```
//!
//! Nothing runs in the background: a participant does something when one of its methods is called, and
//! [`Participant::wait`] is what a thread calls that has nothing else to do. One that is not driven for long is taken
//! for dead by the others, and connected again when it is; what waits for it meanwhile keeps to the credit that its
//! sessions gave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use antiphon::replica::{Config, LinkId};
use antiphon::storage::{Continuity, Storage};
use bytes::Bytes;

use crate::participant::Participant;

/// The hubs that somebody has a handle on.
static HUBS: Mutex<BTreeMap<String, Weak<Room>>> = Mutex::new(BTreeMap::new());

/// A name in this process by which replicas find each other. Clones, and what else was made of the name, are the same
/// hub; it vanishes with the last handle and the last participant.
#[derive(Clone, Debug)]
pub struct Hub(pub(crate) Arc<Room>);

#[derive(Debug)]
pub(crate) struct Room {
    /// `None`: nobody can find it by a name.
    name: Option<String>,
    members: Mutex<Members>,
}

/// Who is there, and how they are connected. Held for a moment only, and never while a replica is at work.
#[derive(Debug, Default)]
struct Members {
    next: u64,
    mailboxes: BTreeMap<MemberId, Arc<Mailbox>>,
    next_link: u64,
    /// By the pair, the smaller first.
    links: BTreeMap<(MemberId, MemberId), LinkId>,
}

/// One stay of a participant in a hub.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct MemberId(u64);

/// Nothing that is done under these locks stops half-way, so that what a panicking thread leaves behind is whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pair(one: MemberId, other: MemberId) -> (MemberId, MemberId) {
    (one.min(other), one.max(other))
}

impl Hub {
    /// The hub of this name in this process.
    pub fn named(name: &str) -> Self {
        let mut hubs = locked(&HUBS);
        if let Some(room) = hubs.get(name).and_then(Weak::upgrade) {
            return Self(room);
        }
        let room = Arc::new(Room { name: Some(name.to_owned()), members: Mutex::default() });
        hubs.insert(name.to_owned(), Arc::downgrade(&room));
        Self(room)
    }

    /// A hub that only those find who are handed it.
    pub fn unnamed() -> Self {
        Self(Arc::new(Room { name: None, members: Mutex::default() }))
    }

    /// How many participants there are.
    pub fn participants(&self) -> usize {
        locked(&self.0.members).mailboxes.len()
    }

    /// A replica on this storage joins: it gets a link with each participant.
    ///
    /// # Errors
    /// If the storage can't be opened.
    pub fn join<S: Storage>(
        &self,
        storage: S,
        continuity: Continuity,
        config: Config,
    ) -> Result<Participant<S>, S::Error> {
        Participant::new(self, storage, continuity, config)
    }

    /// Lets one more in, and connects it with all others.
    pub(crate) fn enter(&self) -> Membership {
        let mailbox = Arc::new(Mailbox::default());
        let mut members = locked(&self.0.members);
        let id = MemberId(members.next);
        members.next += 1;
        members.mailboxes.insert(id, mailbox.clone());
        let others: Vec<_> = members.mailboxes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            members.connect(id, other);
        }
        drop(members);
        Membership { hub: self.clone(), id, mailbox }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let mut hubs = locked(&HUBS);
        // Somebody may have made the name anew since the last handle went.
        if hubs.get(name).is_some_and(|room| room.strong_count() == 0) {
            hubs.remove(name);
        }
    }
}

impl Members {
    /// Gives two participants a link, if both are there; says whether they are.
    fn connect(&mut self, one: MemberId, other: MemberId) -> bool {
        let (Some(first), Some(second)) = (self.mailboxes.get(&one), self.mailboxes.get(&other)) else { return false };
        if self.links.contains_key(&pair(one, other)) {
            return true;
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        // Both are told before either can send, so that no frame comes before its link.
        first.post(Mail::Connected { link, peer: Peer { id: other, mailbox: Arc::downgrade(second) } });
        second.post(Mail::Connected { link, peer: Peer { id: one, mailbox: Arc::downgrade(first) } });
        self.links.insert(pair(one, other), link);
        true
    }

    /// Takes a link away, and tells its other end.
    fn disconnect(&mut self, one: MemberId, other: MemberId, link: LinkId) {
        if self.links.get(&pair(one, other)) == Some(&link) {
            self.links.remove(&pair(one, other));
            if let Some(mailbox) = self.mailboxes.get(&other) {
                mailbox.post(Mail::Disconnected { link });
            }
        }
    }
}

/// A place in a hub, held by one participant. Whoever drops it leaves.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) hub: Hub,
    pub(crate) id: MemberId,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Membership {
    /// Connects again; says whether the other is still there.
    pub(crate) fn connect(&self, other: MemberId) -> bool {
        locked(&self.hub.0.members).connect(self.id, other)
    }

    pub(crate) fn disconnect(&self, other: MemberId, link: LinkId) {
        locked(&self.hub.0.members).disconnect(self.id, other, link);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = locked(&self.hub.0.members);
        members.mailboxes.remove(&self.id);
        let mine = members.links.iter().filter_map(|((one, other), link)| match self.id {
            id if id == *one => Some((*other, *link)),
            id if id == *other => Some((*one, *link)),
            _ => None,
        });
        for (other, link) in mine.collect::<Vec<_>>() {
            members.disconnect(self.id, other, link);
        }
    }
}

/// The other end of a link.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) mailbox: Weak<Mailbox>,
}

/// What comes to a participant from elsewhere.
#[derive(Debug)]
pub(crate) enum Mail {
    Connected { link: LinkId, peer: Peer },
    Disconnected { link: LinkId },
    Frame { link: LinkId, frame: Bytes },
}

/// Where mail waits until a participant takes it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    mail: VecDeque<Mail>,
    /// Counts what happened: mail, and what other threads did with the participant.
    happened: u64,
    /// Who waits for mail without a thread.
    waker: Option<Waker>,
}

impl Mailbox {
    pub(crate) fn post(&self, mail: Mail) {
        let mut inbox = locked(&self.inbox);
        inbox.mail.push_back(mail);
        inbox.happened += 1;
        let waker = inbox.waker.take();
        drop(inbox);
        self.news.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Wakes who waits: there may be something to do although no mail came.
    pub(crate) fn stir(&self) {
        locked(&self.inbox).happened += 1;
        self.news.notify_all();
    }

    /// All mail that waits.
    pub(crate) fn collect(&self) -> VecDeque<Mail> {
        std::mem::take(&mut locked(&self.inbox).mail)
    }

    /// All mail that waits. If there is none, whoever asks is woken when there is.
    pub(crate) fn poll_collect(&self, context: &Context<'_>) -> VecDeque<Mail> {
        let mut inbox = locked(&self.inbox);
        if inbox.mail.is_empty() {
            inbox.waker = Some(context.waker().clone());
        }
        std::mem::take(&mut inbox.mail)
    }

    /// How much has happened so far, to wait for more.
    pub(crate) fn happened(&self) -> u64 {
        locked(&self.inbox).happened
    }

    /// Blocks until more has happened than `before`, or it is `until`.
    pub(crate) fn wait(&self, before: u64, until: Instant) {
        let mut inbox = locked(&self.inbox);
        while inbox.happened == before {
            let rest = until.saturating_duration_since(Instant::now());
            if rest == Duration::ZERO {
                return;
            }
            inbox = self.news.wait_timeout(inbox, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
