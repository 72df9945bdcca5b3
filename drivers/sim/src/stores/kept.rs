//! A store that is kept equal to a document, and what an app makes of what it is told.

use std::collections::{BTreeMap, VecDeque};

use antiphon::op::Entry;
use antiphon::store::{Changes, Direction, Mirror, Store, Transaction, Value, WriteError};
use bytes::Bytes;

/// Cells and values, by table, row and name; of values the first two are empty.
pub type Shown = BTreeMap<[String; 3], Value>;

/// A store of a document.
#[derive(Clone, Debug)]
pub struct Kept {
    pub(super) mirror: Mirror,
    direction: Direction,
    attached: bool,
    /// What was appended and is not durable yet, whether the store is attached or not, the oldest first.
    underway: VecDeque<Bytes>,
    /// How much of the document the store was given.
    position: u64,
    /// What an app shows that was told of changes only.
    shown: Shown,
    /// A change that it was told of, and that does not fit what it showed.
    misfit: Option<String>,
    /// How often something has happened to it.
    moves: u64,
}

impl Kept {
    pub(super) fn new(mirror: Mirror) -> Self {
        Self {
            mirror,
            direction: Direction::Both,
            attached: false,
            underway: VecDeque::new(),
            position: 0,
            shown: Shown::new(),
            misfit: None,
            moves: 0,
        }
    }

    /// The store and its document.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// How much of the document the store was given: all below this position.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What an app shows that was told of changes only, and the first change, if any, that did not fit what it showed.
    pub fn shown(&self) -> (&Shown, Option<&str>) {
        (&self.shown, self.misfit.as_deref())
    }

    /// Whether it is kept equal to its document: that is open, and what is written here goes there.
    pub fn is_joined(&self) -> bool {
        self.attached && self.direction == Direction::Both
    }

    /// How often something has happened to it.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// What was written here and the document has not shown yet.
    pub(super) fn unseen(&self) -> Vec<Bytes> {
        let mut mirror = self.mirror.clone();
        mirror.returned(usize::MAX);
        mirror.outgoing(usize::MAX)
    }

    pub(super) fn attach(&mut self, direction: Direction) {
        self.mirror.attach(direction);
        (self.attached, self.direction) = (true, direction);
        (self.position, self.moves) = (0, self.moves + 1);
    }

    /// The document is opened. If it was open, that means nothing.
    pub(super) fn attach_again(&mut self) {
        if !self.attached {
            self.attach(self.direction);
        }
    }

    pub(super) fn detach(&mut self) {
        self.mirror.detach();
        self.attached = false;
        self.moves += 1;
    }

    pub(super) fn restart(&mut self) {
        self.mirror.restart();
        (self.position, self.moves) = (0, self.moves + 1);
    }

    /// The next bodies to be appended.
    pub(super) fn outgoing(&mut self, bytes_max: usize) -> Vec<Bytes> {
        let bodies = self.mirror.outgoing(bytes_max);
        self.underway.extend(bodies.iter().cloned());
        bodies
    }

    /// These did not get into the document, the last ones that were appended.
    pub(super) fn returned(&mut self, bodies: &[Bytes]) {
        self.underway.truncate(self.underway.len().saturating_sub(bodies.len()));
        self.mirror.returned(bodies.len());
    }

    /// The document was read to its end. While something is on its way there that it was detached with, it is not at its
    /// end: that would be appended again.
    pub(super) fn finish(&mut self, wall: u64) {
        if !self.underway.is_empty() {
            return;
        }
        let changes = self.mirror.finish(wall);
        self.tell(&changes);
    }

    pub(super) fn write(
        &mut self,
        wall: u64,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let ((), changes) = self.mirror.write(wall, write)?;
        self.tell(&changes);
        Ok(())
    }

    pub(super) fn sweep(&mut self, before: u64) -> Result<(), WriteError> {
        self.moves += 1;
        self.mirror.sweep(before)
    }

    pub(super) fn snapshot(&mut self, horizon: u64, body: &[u8], wall: u64) {
        self.position = horizon;
        let applied = self.mirror.apply(body, false, wall).expect("a store made the snapshot");
        self.tell(&applied.changes);
    }

    pub(super) fn entry(&mut self, entry: &Entry, wall: u64) {
        self.position += 1;
        let Some(body) = entry.op.body.bytes() else { return };
        if entry.origin.is_none()
            && let Some(at) = self.underway.iter().position(|underway| underway == body)
        {
            self.underway.drain(..=at);
        }
        let applied = self.mirror.apply(body, entry.origin.is_none(), wall).expect("a store wrote the body");
        self.tell(&applied.changes);
    }

    fn tell(&mut self, changes: &Changes) {
        self.moves += 1;
        let cells = changes.cells.iter().map(|it| ([&*it.table, &*it.row, &*it.cell], &it.old, &it.new));
        let values = changes.values.iter().map(|it| (["", "", &*it.value], &it.old, &it.new));
        for (path, old, new) in cells.chain(values) {
            let path = path.map(str::to_owned);
            let shows = self.shown.get(&path);
            if (shows != old.as_ref() || old == new) && self.misfit.is_none() {
                self.misfit = Some(format!("{path:?} shows {shows:?}, and is told to change from {old:?} to {new:?}"));
            }
            match new {
                Some(new) => self.shown.insert(path, new.clone()),
                None => self.shown.remove(&path),
            };
        }
    }
}

/// All cells and values of a store.
pub(super) fn held(store: &Store) -> Shown {
    let values = store.values().map(|(name, value)| (["", "", name], value));
    let rows = store.tables().flat_map(|table| table.rows().map(move |row| (table, row)));
    let cells =
        rows.flat_map(|(table, row)| row.cells().map(move |(cell, value)| ([table.name(), row.name(), cell], value)));
    values.chain(cells).map(|(path, value)| (path.map(str::to_owned), value.clone())).collect()
}
