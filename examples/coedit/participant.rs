//! One who takes part: a replica on disk, with a link to the server that is connected again whenever it ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use antiphon::op::{DocumentId, ReplicaId};
use antiphon::replica::{self, Event};
use antiphon_node::{Config, Error, Link, LinkOptions, Node, Notice, RedialPolicy, Subscription};
use antiphon_sqlite::{Options, SqliteStorage};
use antiphon_websocket::Client;
use smol::Timer;

use crate::Failure;
use crate::network::Line;

pub(crate) struct Participant {
    pub(crate) node: Node,
    pub(crate) link: Link,
    pub(crate) document: DocumentId,
    line: Line,
    ledger: Mutex<Ledger>,
}

impl Participant {
    pub(crate) fn start(directory: &Path, document: &DocumentId, line: Line) -> Result<Self, Failure> {
        let storage = SqliteStorage::open_directory(directory, &Options::default())?;
        let continuity = storage.continuity();
        // Nothing that happens may be left out: the ledger counts.
        let config = Config { events_max: usize::MAX, events_bytes_max: u64::MAX, ..Config::default() };
        let (node, driver) = smol::block_on(Node::open(storage, continuity, config))?;
        thread::spawn(move || smol::block_on(driver));
        let ledger = Mutex::new(Ledger::new(node.subscribe()));
        node.open_document(document, replica::Options::default())?;
        let client = Client::new(&format!("ws://{}/", line.address()))?;
        let policy = RedialPolicy {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(200),
            healthy_after: Duration::from_millis(200),
        };
        let link = node.connect(client, LinkOptions::default(), policy)?;
        Ok(Self { node, link, document: document.clone(), line, ledger })
    }

    /// Who it is, as an author of ops.
    pub(crate) fn replica(&self) -> ReplicaId {
        self.node.inspect(|replica| replica.id())
    }

    /// Cuts the connection of a live session.
    pub(crate) async fn cut(&self) -> Result<(), Error> {
        loop {
            self.link.live().await?;
            if self.line.cut() {
                return Ok(());
            }
            // The line has noticed that the connection is gone, and the link has not.
            Timer::after(Duration::from_millis(1)).await;
        }
    }

    /// Appends one op, and waits for nothing but room.
    pub(crate) async fn append(&self, body: Vec<u8>) -> Result<(), Error> {
        self.node.append(&self.document, vec![body.into()]).await?;
        self.ledger().appended += 1;
        Ok(())
    }

    /// The ledger, up to date.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in here panics half-way through a change.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.update();
        ledger
    }

    /// Bytes on the way to the server and back.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.line.bytes()
    }
}

/// What has happened to a participant.
pub(crate) struct Ledger {
    events: Subscription,
    /// Sessions that were live.
    pub(crate) sessions: u64,
    /// Own ops.
    appended: u64,
    /// Own ops that the server has acknowledged.
    acknowledged: u64,
    /// For the ends of own batches in the log that are not acknowledged: own ops up to there, by position.
    durable: BTreeMap<u64, u64>,
}

impl Ledger {
    fn new(events: Subscription) -> Self {
        Self { events, sessions: 0, appended: 0, acknowledged: 0, durable: BTreeMap::new() }
    }

    fn update(&mut self) {
        while let Some(notice) = self.events.try_next() {
            match notice {
                Notice::Event(Event::Connected { .. }) => self.sessions += 1,
                Notice::Event(Event::Applied { id, position, .. }) => _ = self.durable.insert(position, id.seq),
                Notice::Event(Event::Acknowledged { position, .. }) => {
                    let above = self.durable.split_off(&(position + 1));
                    let below = std::mem::replace(&mut self.durable, above);
                    let acknowledged = below.last_key_value().map_or(0, |(_, seq)| *seq);
                    self.acknowledged = self.acknowledged.max(acknowledged);
                }
                _ => {}
            }
        }
    }

    /// Whether there are own ops that the server has not acknowledged.
    pub(crate) fn is_under_way(&self) -> bool {
        self.appended > self.acknowledged
    }
}

/// Who was seen to have ops under way while another wrote.
pub(crate) struct Overlap(Vec<AtomicBool>);

impl Overlap {
    pub(crate) fn new(writers: usize) -> Self {
        Self((0..writers).map(|_| AtomicBool::new(false)).collect())
    }

    /// Somebody has written just now: looks at the others.
    pub(crate) fn look(&self, me: usize, writers: &[Arc<Participant>]) {
        let others = self.0.iter().zip(writers).enumerate().filter(|(other, _)| *other != me);
        for (_, (seen, writer)) in others {
            if !seen.load(Ordering::Relaxed) && writer.ledger().is_under_way() {
                seen.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether it was seen of everybody.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.iter().all(|seen| seen.load(Ordering::Relaxed))
    }
}
