//! Replicas with stores on them: each document is a [`Mirror`], its user does transactions, and what stores hold and tell
//! is judged by [laws] of its own.
//!
//! The network, the disks and all that happens to them are those of other [replicas](crate::replica), and so are the laws
//! of their logs.

mod action;
mod by_hand;
mod kept;
pub mod laws;
mod workload;

use std::collections::BTreeMap;

use antiphon::op::{DocumentId, Entry};
use antiphon::replica::{Event, Input, Misuse};
use antiphon::store::{ClientId, Direction, Mirror, Store};
use antiphon::wire::Access;
use bytes::Bytes;

pub use action::{BadDeed, Content, Deed, Edit};
pub use kept::{Kept, Shown};

use crate::laws::Law;
use crate::replica::laws::Bodies;
use crate::replica::{App, Here, ReplicaNode, Setup, When, Write, Writer};

/// A replica with stores.
pub type StoreNode = ReplicaNode<Stores>;

/// So many bytes of transactions are appended at once.
const APPEND_BYTES_MAX: usize = 64 << 10;

/// The app: a store for each document that it has open.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// Opens, closes and resets documents.
    hands: Writer,
    here: Here,
    kept: BTreeMap<DocumentId, Kept>,
}

impl Stores {
    /// The store of a document, and what is known of it.
    pub fn kept(&self, document: &DocumentId) -> Option<&Kept> {
        self.kept.get(document)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&DocumentId, &Kept)> {
        self.kept.iter()
    }

    fn wall(&self) -> u64 {
        milliseconds(self.here.wall)
    }

    /// Appends what stores have written.
    fn outgoing(&mut self) -> Vec<Input> {
        let mut appends = Vec::new();
        for (document, kept) in &mut self.kept {
            let bodies = kept.outgoing(APPEND_BYTES_MAX);
            if !bodies.is_empty() {
                appends.push(Input::Append { document: document.clone(), bodies });
            }
        }
        appends
    }

    /// What does not get into a document as it was appended.
    fn lost(&mut self, document: &DocumentId, lost: &[Bytes]) {
        if let Some(kept) = self.kept.get_mut(document) {
            kept.returned(lost);
        }
    }
}

/// What the clock of a store shows when a wall clock shows so many microseconds.
fn milliseconds(wall: i64) -> u64 {
    u64::try_from(wall / 1_000).unwrap_or(0)
}

impl App for Stores {
    type Action = Deed;

    const READS_THE_LOG: bool = true;

    fn start(setup: &Setup) -> Self {
        let kept = setup.documents.iter().map(|(document, options)| {
            let direction = if options.access == Access::Read { Direction::Load } else { Direction::Both };
            let mut kept = Kept::new(Mirror::new(Store::new(ClientId::default())));
            kept.attach(direction);
            (document.clone(), kept)
        });
        Self { hands: Writer::start(setup), here: Here::default(), kept: kept.collect() }
    }

    fn here(&mut self, here: Here) {
        if std::mem::replace(&mut self.here, here).replica != here.replica {
            let client = ClientId::of(here.replica);
            self.kept.values_mut().for_each(|kept| kept.mirror.set_client(client));
        }
    }

    fn act(&mut self, deed: Deed, at: When) -> Vec<Input> {
        let wall = self.wall();
        match deed {
            Deed::Write { document, edits } => {
                if let Some(kept) = self.kept.get_mut(&document) {
                    kept.write(wall, |transaction| edits.iter().try_for_each(|edit| edit.on(transaction)))
                        .expect("there are stamps, and transactions are small");
                }
            }
            Deed::Sweep { document, age } => {
                if let Some(kept) = self.kept.get_mut(&document) {
                    let before = wall.saturating_sub(age.as_millis() as u64);
                    kept.sweep(before).expect("there are stamps, and stores are small");
                }
            }
            Deed::Document(Write::Compact(document)) => {
                let kept = self.kept.get(&document).filter(|kept| kept.mirror.is_equal());
                let compact = kept.map(|kept| (kept.position(), kept.mirror.store().snapshot()));
                return compact
                    .map(|(position, body)| Input::Compact { document, position, body })
                    .into_iter()
                    .collect();
            }
            Deed::Document(write) => {
                match &write {
                    Write::Close(document) => self.kept.get_mut(document).into_iter().for_each(Kept::detach),
                    Write::Open(document) => self.kept.get_mut(document).into_iter().for_each(Kept::attach_again),
                    _ => {}
                }
                return self.hands.act(write, at);
            }
        }
        self.outgoing()
    }

    fn told(&mut self, event: &Event) -> Vec<Input> {
        let mut wanted = match event {
            Event::Recovered { document, lost, .. } => {
                self.lost(document, lost);
                Vec::new()
            }
            _ => self.hands.told(event),
        };
        let document = match event {
            Event::Opened { document, .. } | Event::Recovered { document, .. } | Event::Applied { document, .. } => {
                Some(document)
            }
            Event::Received { batch } => Some(&batch.document),
            _ => None,
        };
        let wall = self.wall();
        let kept = document.and_then(|document| self.kept.get_mut(document));
        kept.into_iter().for_each(|kept| kept.finish(wall));
        if let Event::Orphaned { document, ops } = event {
            let bodies: Vec<_> = ops.iter().filter_map(|op| op.body.bytes().cloned()).collect();
            wanted.push(Input::Append { document: document.clone(), bodies });
        }
        wanted.extend(self.outgoing());
        wanted
    }

    fn declined(&mut self, input: &Input, _: &Misuse) {
        if let Input::Append { document, bodies } = input {
            self.lost(document, bodies);
        }
    }

    fn snapshot(&mut self, document: &DocumentId, horizon: u64, body: &[u8]) {
        let wall = self.wall();
        if let Some(kept) = self.kept.get_mut(document) {
            kept.snapshot(horizon, body, wall);
        }
    }

    fn entry(&mut self, document: &DocumentId, entry: &Entry) {
        let wall = self.wall();
        if let Some(kept) = self.kept.get_mut(document) {
            kept.entry(entry, wall);
        }
    }

    fn reset(&mut self, document: &DocumentId) {
        self.kept.get_mut(document).into_iter().for_each(Kept::restart);
    }

    fn laws() -> Vec<Box<dyn Law<StoreNode>>> {
        vec![
            Box::new(Bodies::default()),
            Box::new(laws::Fold::default()),
            Box::new(laws::Shows::default()),
            Box::new(laws::SameContent),
        ]
    }
}
