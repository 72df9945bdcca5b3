//! Rows and tables: what was last written to each cell, when, and what is deleted.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::stamp::Stamp;
use super::value::Value;

pub(super) type Name = Arc<str>;

/// A cell, or a value: what was last written there, `None` if that was its deletion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) content: Option<Value>,
    pub(super) stamp: Stamp,
}

/// What was written somewhere, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Written {
    pub(super) content: Option<Value>,
    pub(super) stamp: Stamp,
}

impl Entry {
    fn put(&mut self, written: Written) -> Written {
        let content = core::mem::replace(&mut self.content, written.content);
        Written { content, stamp: core::mem::replace(&mut self.stamp, written.stamp) }
    }
}

/// The cells of a row, or all values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) name: Name,
    /// All older than this is gone. [`Stamp::ZERO`]: it was never deleted, or something above it was, later.
    pub(super) deleted: Stamp,
    live: u32,
    entries: Vec<Entry>, // by name
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Table {
    pub(super) name: Name,
    /// As in [`Row`].
    pub(super) deleted: Stamp,
    /// How many rows have a cell.
    pub(super) live: usize,
    pub(super) rows: BTreeMap<Name, Row>,
}

impl Row {
    pub(super) fn new(name: Name) -> Self {
        Self { name, deleted: Stamp::ZERO, live: 0, entries: Vec::new() }
    }

    /// Whether it says nothing.
    pub(super) fn is_blank(&self) -> bool {
        self.entries.is_empty() && self.deleted == Stamp::ZERO
    }

    pub(super) fn is_live(&self) -> bool {
        self.live > 0
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The cells that are there.
    pub(super) fn cells(&self) -> impl Iterator<Item = (&Name, &Value)> + Clone {
        self.entries.iter().filter_map(|entry| Some((&entry.name, entry.content.as_ref()?)))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.name).cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.find(name).ok().map(|index| &self.entries[index])
    }

    /// Puts a content in the place of whatever is there, and returns that.
    pub(super) fn put(&mut self, name: &Name, written: Written) -> Option<Written> {
        let is_live = written.content.is_some();
        let before = match self.find(name) {
            Ok(index) => Some(self.entries[index].put(written)),
            Err(index) => {
                self.insert(index, Entry { name: name.clone(), content: written.content, stamp: written.stamp });
                None
            }
        };
        let was_live = before.as_ref().is_some_and(|before| before.content.is_some());
        self.live = self.live + u32::from(is_live) - u32::from(was_live);
        before
    }

    fn insert(&mut self, index: usize, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len() / 2 + 2); // doubling would cost more than it saves
        }
        self.entries.insert(index, entry);
    }

    /// Makes that nothing was ever written there.
    pub(super) fn forget(&mut self, name: &str) {
        if let Ok(index) = self.find(name) {
            let entry = self.entries.remove(index);
            self.live -= u32::from(entry.content.is_some());
        }
    }

    /// Takes what is older than `stamp` out, its own deletion included. `None`: there is nothing.
    pub(super) fn split(&mut self, stamp: Stamp) -> Option<Self> {
        let older = |entry: &mut Entry| entry.stamp < stamp;
        let mut gone = Self::new(self.name.clone());
        if self.deleted <= stamp {
            gone.deleted = core::mem::take(&mut self.deleted);
        }
        gone.entries = if self.entries.iter_mut().all(older) {
            core::mem::take(&mut self.entries)
        } else {
            self.entries.extract_if(.., older).collect()
        };
        gone.live = gone.cells().count() as u32;
        self.live -= gone.live;
        (!gone.is_blank()).then_some(gone)
    }

    /// Puts back what [`split`](Self::split) took.
    pub(super) fn graft(&mut self, part: Self) {
        self.deleted = self.deleted.max(part.deleted);
        for Entry { name, content, stamp } in part.entries {
            self.put(&name, Written { content, stamp });
        }
    }
}

impl Table {
    pub(super) fn new(name: Name) -> Self {
        Self { name, deleted: Stamp::ZERO, live: 0, rows: BTreeMap::new() }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.rows.is_empty() && self.deleted == Stamp::ZERO
    }

    pub(super) fn split(&mut self, stamp: Stamp) -> Option<Self> {
        let mut gone = Self::new(self.name.clone());
        if self.deleted <= stamp {
            gone.deleted = core::mem::take(&mut self.deleted);
        }
        let mut kept = Vec::new();
        let mut taken = Vec::new();
        for (name, mut row) in core::mem::take(&mut self.rows) {
            taken.extend(row.split(stamp).map(|part| (name.clone(), part)));
            if !row.is_blank() {
                kept.push((name, row));
            }
        }
        let live = |rows: &[(Name, Row)]| rows.iter().filter(|(_, row)| row.is_live()).count();
        (gone.live, self.live) = (live(&taken), live(&kept));
        (gone.rows, self.rows) = (taken.into_iter().collect(), kept.into_iter().collect());
        (!gone.is_blank()).then_some(gone)
    }
}
