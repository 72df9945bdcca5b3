//! What a synchronizer does while it runs: bodies go to the document, ops come from it, and people are told how far it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use antiphon::op::{Body, Entry, ReplicaId};
use antiphon::replica::{Authority, Event, Replica};
use antiphon::snapshot::SnapshotId;
use antiphon::store::ClientId;
use antiphon_node::{Error, Follow, Followed, Notice};
use async_io::Timer;
use futures_lite::future::or;

use crate::compaction;
use crate::status::{Phase, Status};
use crate::synchronizer::Bound;

/// Bytes of bodies that are appended at once.
const APPEND_BYTES: usize = 1 << 20;
/// Bytes of a snapshot that are read at once.
const SNAPSHOT_BYTES: u64 = 1 << 20;

/// The wait before what the storage could not read is read again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// Works until it is stopped or can't go on.
pub(crate) fn work(bound: Arc<Bound>, start: u64) -> impl Future<Output = ()> + Send {
    // From here on, for the node may stop before it has begun.
    let unfinished = Unfinished { bound, start };
    async move {
        let bound = &*unfinished.bound;
        let stopped = async {
            loop {
                let changed = bound.changed.listen();
                if !bound.runs(start) {
                    return Err(Error::Stopped);
                }
                changed.await;
            }
        };
        let done: Result<(), Error> = or(stopped, or(save(bound), or(load(bound), watch(bound)))).await;
        if let Err(error) = done {
            bound.fail(start, error);
        }
    }
}

/// Tells everybody if the node does not go on with the work.
struct Unfinished {
    bound: Arc<Bound>,
    start: u64,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.bound.fail(self.start, Error::Stopped);
    }
}

/// Gives the document what is written to the store.
async fn save(bound: &Bound) -> Result<(), Error> {
    loop {
        let written = bound.store.0.written.listen();
        // What was lost with a disk's failure goes out again, in its order, before anything else.
        let lost = bound.node.take_lost(&bound.document)?;
        let bodies = {
            let mirror = &mut bound.store.lock().mirror;
            mirror.returned(lost.len());
            mirror.outgoing(APPEND_BYTES)
        };
        if bodies.is_empty() {
            written.await;
            continue;
        }
        let saves = bodies.len();
        match bound.node.append(&bound.document, bodies).await {
            Ok(()) => bound.state().statistics.saves += saves as u64,
            Err(error) => {
                bound.store.lock().mirror.returned(saves);
                if !matches!(error, Error::Lost { .. }) {
                    return Err(error);
                }
            }
        }
    }
}

/// Brings the store what is in the document.
async fn load(bound: &Bound) -> Result<(), Error> {
    // After each of these there may be something to be done though no entry came.
    let mut news = bound.node.subscribe_to(|event| {
        use Event::{Compacted, Mended, Opened, Recovered, Renewed};
        matches!(event, Opened { .. } | Recovered { .. } | Mended { .. } | Renewed { .. } | Compacted { .. })
    });
    let mut follow = bound.node.follow(&bound.document, 0);
    let mut reader = Reader { bound, ids: BTreeSet::new(), since: compaction::Since::default() };
    loop {
        reader.settle(&follow)?;
        let followed = or(async { follow.next().await.map(Some) }, async {
            news.next().await;
            Ok(None)
        });
        match followed.await {
            Ok(Some(Followed::Entries { entries, .. })) => reader.take(&entries),
            Ok(Some(Followed::Snapshot { id, .. })) => {
                let is_whole = match reader.take_snapshot(id).await {
                    Err(Error::Storage { .. }) => {
                        Timer::after(READ_RETRY).await;
                        false
                    }
                    taken => taken?,
                };
                if !is_whole {
                    // It has another by now, or can't be read to its end: all is read again.
                    reader.restart();
                    follow = bound.node.follow(&bound.document, 0);
                }
            }
            Ok(Some(Followed::Restarted)) => reader.restart(),
            Ok(None) => {}
            Err(Error::Storage { .. }) => drop(Timer::after(READ_RETRY).await),
            Err(error) => return Err(error),
        }
        bound.stirred.notify(usize::MAX);
    }
}

struct Reader<'a> {
    bound: &'a Bound,
    /// Who this replica is, and was.
    ids: BTreeSet<ReplicaId>,
    /// Bytes of bodies since the document was compacted, and of the snapshot then.
    since: compaction::Since,
}

impl Reader<'_> {
    fn know_oneself(&mut self) {
        let id = self.bound.node.inspect(Replica::id);
        if self.ids.insert(id) {
            self.bound.store.lock().mirror.set_client(ClientId::of(id));
        }
    }

    fn take(&mut self, entries: &[Entry]) {
        self.know_oneself();
        for entry in entries {
            let Body::Bytes(body) = &entry.op.body else { continue };
            let author = entry.op.id.author;
            let by = Some((author, self.ids.contains(&author)));
            let now = self.bound.store.now();
            self.since.bytes += body.len() as u64;
            if self.bound.store.change(|inner| inner.apply(body, by, now)).is_err() {
                self.foreign();
            }
        }
    }

    /// Reads what stands in the place of the document's first ops; says whether it was there to its end.
    async fn take_snapshot(&mut self, id: SnapshotId) -> Result<bool, Error> {
        let Bound { node, document, store, .. } = self.bound;
        let mut bytes = Vec::new();
        let mut offset = u64::from(id.head_bytes);
        while offset < id.bytes {
            let part = node.snapshot(document, id, offset, SNAPSHOT_BYTES).await?;
            if part.is_empty() {
                return Ok(false);
            }
            offset += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        self.since = compaction::Since::snapshot(id.bytes);
        let now = store.now();
        if store.change(|inner| inner.apply(&bytes, None, now)).is_err() {
            self.foreign();
        }
        Ok(true)
    }

    /// Something was read that is none of a store's.
    fn foreign(&mut self) {
        self.since.is_foreign = true;
        self.bound.state().statistics.malformed += 1;
    }

    /// The document is read from its beginning.
    fn restart(&mut self) {
        self.since = compaction::Since::default();
        self.bound.store.change(|inner| inner.mirror.restart());
    }

    /// Looks whether the document was read to its end, and what is to be done then.
    fn settle(&mut self, follow: &Follow) -> Result<(), Error> {
        let Bound { node, document, store, options, .. } = self.bound;
        let is_aside = node.inspect(|replica| replica.appending(document).aside);
        self.bound.state().position = follow.position();
        let Some((_, tail)) = node.document(document).filter(|_| !is_aside) else { return Ok(()) };
        if tail != follow.position() {
            return Ok(());
        }
        self.know_oneself();
        if store.lock().mirror.is_reading() {
            let now = store.now();
            store.change(|inner| inner.finish(now));
        }
        if let (Authority::Us, Some(when)) = (options.authority, options.compaction) {
            compaction::compact(self.bound, when, &mut self.since, tail)?;
        }
        Ok(())
    }
}

/// Tells how far it is, and does what is to be done when it is first in step.
async fn watch(bound: &Bound) -> Result<(), Error> {
    let matters = |event: &Event| !matches!(event, Event::Applied { .. } | Event::Orphaned { .. });
    let mut news = bound.node.subscribe_to(matters);
    loop {
        let (stirred, written) = (bound.stirred.listen(), bound.store.0.written.listen());
        let status = look(bound)?;
        let is_ready = status.phase == Phase::InStep || bound.options.authority == Authority::Us && status.to_load == 0;
        if is_ready {
            begin(bound);
        }
        bound.tell(status);
        let moved = async {
            or(stirred, written).await;
            Some(None)
        };
        let event = match or(async { news.next().await.map(Some) }, moved).await {
            Some(Some(Notice::Event(event))) => event,
            Some(_) => continue,
            None => return Err(Error::Stopped),
        };
        match event {
            Event::Closed { document, code, reason, .. } if document == bound.document => {
                bound.state().closed = Some(format!("it is closed on a link: {reason} ({code})"));
            }
            Event::InStep { document, .. } if document == bound.document => bound.state().closed = None,
            Event::Recovered { document, lost, .. } if document == bound.document && !lost.is_empty() => {
                bound.store.0.written.notify(usize::MAX);
            }
            _ => {}
        }
    }
}

/// It is in step for the first time since it was started.
fn begin(bound: &Bound) {
    let initial = {
        let mut state = bound.state();
        if state.was_in_step {
            return;
        }
        state.initial.take()
    };
    let is_empty = bound.node.document(&bound.document).is_some_and(|(_, tail)| tail == 0);
    let initial = initial.filter(|_| is_empty && bound.store.lock().mirror.unseen() == 0);
    let written = initial.map_or(Ok(()), |initial| bound.store.write_initial(initial));
    let mut state = bound.state();
    (state.was_in_step, state.refused) = (true, written.err());
}

/// How far it is now.
pub(crate) fn look(bound: &Bound) -> Result<Status, Error> {
    let Bound { node, document, store, .. } = bound;
    let closed = bound.state().closed.clone();
    let trouble = match node.check(document) {
        Ok(()) | Err(Error::Lost { .. }) => closed,
        Err(Error::Storage { reason, .. }) => Some(reason),
        Err(error) => return Err(error),
    };
    let (is_reading, unseen) = {
        let mirror = &store.lock().mirror;
        (mirror.is_reading(), mirror.unseen() as u64)
    };
    let position = bound.state().position;
    let (peers, appending, tail) = node.inspect(|replica| {
        let peers: Vec<_> = replica.peers(document).map(|(_, standing)| standing).collect();
        (peers, replica.appending(document), replica.document(document).map(|(_, tail)| tail))
    });
    let unread = tail.map_or(1, |tail| tail.abs_diff(position));
    let furthest = |count: fn(&antiphon::session::Standing) -> u64| peers.iter().map(count).max().unwrap_or(0);
    let to_load = furthest(|standing| standing.unheld) + unread.max(is_reading.into());
    let to_save = furthest(|standing| standing.unacknowledged).max(unseen);
    let is_quiet = !is_reading && unread == 0 && unseen == 0 && appending.is_done();
    let phase = if is_quiet && !peers.is_empty() && peers.iter().all(|standing| standing.in_step) {
        Phase::InStep
    } else if unread > 0 || is_reading {
        Phase::Loading
    } else if !is_quiet || to_save > 0 && !peers.is_empty() {
        Phase::Saving
    } else if peers.is_empty() {
        Phase::Idle
    } else {
        Phase::Loading
    };
    Ok(Status { phase, peers: peers.len(), to_load, to_save, trouble })
}
