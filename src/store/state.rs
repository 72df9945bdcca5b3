//! What a store holds, with stamps, and how changes are joined to it.
//!
//! A change is kept if it is newer than what it meets: a cell's content than the content there, and not older than any
//! deletion above it. A deletion of a row, a table or all tables is one stamp, below which everything under it is gone; so
//! what it covers is forgotten, deletions too. All of this is a maximum, so that the order in which changes come, and how
//! often, can't matter.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_128;

use super::journal::{Journal, Undo};
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
    fn is_blank(&self) -> bool {
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
    fn put(&mut self, name: &Name, written: Written) -> Option<Written> {
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
    fn forget(&mut self, name: &str) {
        if let Ok(index) = self.find(name) {
            let entry = self.entries.remove(index);
            self.live -= u32::from(entry.content.is_some());
        }
    }

    /// Takes what is older than `stamp` out, its own deletion included. `None`: there is nothing.
    fn split(&mut self, stamp: Stamp) -> Option<Self> {
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
    fn graft(&mut self, part: Self) {
        self.deleted = self.deleted.max(part.deleted);
        for Entry { name, content, stamp } in part.entries {
            self.put(&name, Written { content, stamp });
        }
    }
}

impl Table {
    fn new(name: Name) -> Self {
        Self { name, deleted: Stamp::ZERO, live: 0, rows: BTreeMap::new() }
    }

    fn is_blank(&self) -> bool {
        self.rows.is_empty() && self.deleted == Stamp::ZERO
    }

    fn split(&mut self, stamp: Stamp) -> Option<Self> {
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

/// Everything that is merged: equal for stores that have seen the same changes.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// All tables older than this are gone.
    pub(super) deleted: Stamp,
    pub(super) tables: BTreeMap<Name, Table>,
    values: Option<Row>,
    /// The wrapping sum of the hashes of all live cells and values.
    pub(super) hash: u128,
    scale: Scale,
    names: Names,
}

/// The names of cells, each kept once.
#[derive(Clone, Debug, Default)]
struct Names {
    all: BTreeSet<Name>,
    /// With as many as this, those that no cell has any longer are forgotten.
    enough: usize,
}

impl Names {
    fn get(&mut self, name: &str) -> Name {
        if let Some(known) = self.all.get(name) {
            return known.clone();
        }
        if self.all.len() >= self.enough {
            self.all.retain(|name| Arc::strong_count(name) > 1);
            self.enough = 2 * self.all.len() + 64;
        }
        let name = Name::from(name);
        self.all.insert(name.clone());
        name
    }
}

/// Where cells are: in a row of a table, or, for values, nowhere in particular.
pub(super) type Place<'a> = Option<(&'a str, &'a str)>;

/// The same, to keep.
pub(super) type OwnedPlace = Option<(Name, Name)>;

/// One row within reach of changes.
pub(super) struct Reach<'a> {
    place: OwnedPlace,
    /// The deletion of the table, or of all tables, whichever is newer.
    above: Stamp,
    row: &'a mut Row,
    hash: &'a mut u128,
    scale: &'a mut Scale,
    names: &'a mut Names,
    journal: &'a mut Journal,
}

impl Reach<'_> {
    /// The newest stamp that a change of the cell has to be above, and what is in the cell.
    pub(super) fn newest(&self, name: &str) -> (Stamp, Option<&Value>) {
        let entry = self.row.get(name);
        let stamp = entry.map_or(Stamp::ZERO, |entry| entry.stamp);
        (stamp.max(self.row.deleted).max(self.above), entry.and_then(|entry| entry.content.as_ref()))
    }

    /// The newest stamp in the row, and above it.
    pub(super) fn newest_of_all(&self) -> Stamp {
        let entries = self.row.entries.iter().map(|entry| entry.stamp);
        entries.fold(self.row.deleted.max(self.above), Stamp::max)
    }

    /// Joins the content of a cell.
    pub(super) fn join(&mut self, name: &str, stamp: Stamp, content: Option<Value>) -> Outcome {
        let before = self.row.get(name);
        if stamp < self.row.deleted.max(self.above) {
            return Outcome::Superseded;
        }
        match before.map(|entry| (entry.stamp, &entry.content).cmp(&(stamp, &content))) {
            Some(core::cmp::Ordering::Greater) => return Outcome::Superseded,
            Some(core::cmp::Ordering::Equal) => return Outcome::Known,
            Some(core::cmp::Ordering::Less) | None => {}
        }
        self.put(name, stamp, content);
        Outcome::Changed
    }

    /// Writes the content of a cell, whatever is there.
    pub(super) fn put(&mut self, name: &str, stamp: Stamp, content: Option<Value>) {
        let name = self.row.get(name).map(|entry| entry.name.clone()).unwrap_or_else(|| self.names.get(name));
        self.scale.path(borrowed(&self.place), &name);
        let new = self.scale.weigh(content.as_ref());
        let before = self.row.put(&name, Written { content, stamp });
        let old = self.scale.weigh(before.as_ref().and_then(|before| before.content.as_ref()));
        *self.hash = self.hash.wrapping_sub(old).wrapping_add(new);
        self.journal.push(Undo::Cell { place: self.place.clone(), name, before });
    }

    /// Deletes what is older than `stamp` in the row.
    pub(super) fn delete(&mut self, stamp: Stamp) -> Outcome {
        match stamp.cmp(&self.row.deleted.max(self.above)) {
            core::cmp::Ordering::Less => return Outcome::Superseded,
            core::cmp::Ordering::Equal => return Outcome::Known,
            core::cmp::Ordering::Greater => {}
        }
        let before = self.row.deleted;
        let gone = self.row.split(stamp);
        self.row.deleted = stamp;
        for (name, value) in gone.iter().flat_map(Row::cells) {
            self.scale.path(borrowed(&self.place), name);
            *self.hash = self.hash.wrapping_sub(self.scale.weigh(Some(value)));
        }
        self.journal.push(Undo::Row { place: self.place.clone(), before, gone });
        Outcome::Changed
    }
}

/// What came of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Changed,
    /// It was here.
    Known,
    /// Something newer was here.
    Superseded,
}

/// Gets what a map has at `$name`, and first makes it if it is not there.
macro_rules! made {
    ($map:expr, $name:expr, $type:ty) => {{
        match $map.get_mut($name) {
            Some(there) => there,
            None => {
                let name = Name::from($name);
                $map.entry(name.clone()).or_insert_with(|| <$type>::new(name))
            }
        }
    }};
}

impl State {
    pub(super) fn values(&self) -> Option<&Row> {
        self.values.as_ref()
    }

    pub(super) fn row(&self, place: Place<'_>) -> Option<&Row> {
        match place {
            Some((table, row)) => self.tables.get(table)?.rows.get(row),
            None => self.values(),
        }
    }

    /// The newest stamp in one table, or in all (`None`), and above.
    pub(super) fn newest(&self, table: Option<&str>) -> Stamp {
        let in_row = |row: &Row| row.entries.iter().map(|entry| entry.stamp).fold(row.deleted, Stamp::max);
        let in_table = |table: &Table| table.rows.values().map(in_row).fold(table.deleted, Stamp::max);
        let below = match table {
            Some(name) => self.tables.get(name).map(in_table),
            None => self.tables.values().map(in_table).max(),
        };
        below.unwrap_or_default().max(self.deleted)
    }

    /// Changes one row; if it says nothing afterwards, it is as if it had never been looked at.
    pub(super) fn reach<R>(&mut self, at: Place<'_>, journal: &mut Journal, change: impl FnOnce(&mut Reach) -> R) -> R {
        let (hash, scale, names) = (&mut self.hash, &mut self.scale, &mut self.names);
        let Some((table_name, row_name)) = at else {
            let row = self.values.get_or_insert_with(|| Row::new(Name::from("")));
            let result = change(&mut Reach { place: None, above: Stamp::ZERO, row, hash, scale, names, journal });
            self.values.take_if(|row| row.is_blank());
            return result;
        };
        let table = made!(self.tables, table_name, Table);
        let row = made!(table.rows, row_name, Row);
        let was_live = row.is_live();
        let place = Some((table.name.clone(), row.name.clone()));
        let above = self.deleted.max(table.deleted);
        let result = change(&mut Reach { place, above, row, hash, scale, names, journal });
        table.live = table.live + usize::from(row.is_live()) - usize::from(was_live);
        if row.is_blank() {
            table.rows.remove(row_name);
            if table.is_blank() {
                self.tables.remove(table_name);
            }
        }
        result
    }

    /// Deletes what is older than `stamp` in one table, or in all (`None`).
    pub(super) fn delete(&mut self, table: Option<&str>, stamp: Stamp, journal: &mut Journal) -> Outcome {
        let own = table.map_or(Stamp::ZERO, |name| self.tables.get(name).map_or(Stamp::ZERO, |table| table.deleted));
        match stamp.cmp(&own.max(self.deleted)) {
            core::cmp::Ordering::Less => return Outcome::Superseded,
            core::cmp::Ordering::Equal => return Outcome::Known,
            core::cmp::Ordering::Greater => {}
        }
        let mut gone = Vec::new();
        let before = match table {
            Some(name) => {
                let table = made!(self.tables, name, Table);
                gone.extend(table.split(stamp));
                table.deleted = stamp;
                own
            }
            None => {
                let mut kept = Vec::new();
                for (name, mut table) in core::mem::take(&mut self.tables) {
                    gone.extend(table.split(stamp));
                    if !table.is_blank() {
                        kept.push((name, table));
                    }
                }
                self.tables = kept.into_iter().collect();
                core::mem::replace(&mut self.deleted, stamp)
            }
        };
        for table in &gone {
            for row in table.rows.values() {
                for (name, value) in row.cells() {
                    self.scale.path(Some((&table.name, &row.name)), name);
                    self.hash = self.hash.wrapping_sub(self.scale.weigh(Some(value)));
                }
            }
        }
        journal.push(Undo::Tables { table: table.map(Name::from), before, gone });
        Outcome::Changed
    }

    /// Makes everything in the journal not have happened.
    pub(super) fn roll_back(&mut self, journal: Journal) {
        self.hash = journal.hash();
        let mut scratch = Journal::new(0); // nothing below writes to it
        for undo in journal.into_undone() {
            match undo {
                Undo::Cell { place, name, before } => {
                    self.reach(borrowed(&place), &mut scratch, |reach| match before {
                        Some(before) => drop(reach.row.put(&name, before)),
                        None => reach.row.forget(&name),
                    });
                }
                Undo::Row { place, before, gone } => {
                    self.reach(borrowed(&place), &mut scratch, |reach| {
                        reach.row.deleted = before;
                        gone.into_iter().for_each(|part| reach.row.graft(part));
                    });
                }
                Undo::Tables { table, before, gone } => {
                    match &table {
                        Some(name) => made!(self.tables, &**name, Table).deleted = before,
                        None => self.deleted = before,
                    }
                    self.graft(gone, &mut scratch);
                    if let Some(name) = &table
                        && self.tables.get(name).is_some_and(Table::is_blank)
                    {
                        self.tables.remove(name);
                    }
                }
            }
        }
    }

    fn graft(&mut self, tables: Vec<Table>, scratch: &mut Journal) {
        for part in tables {
            let table = made!(self.tables, &*part.name, Table);
            table.deleted = table.deleted.max(part.deleted);
            for (name, row) in part.rows {
                self.reach(Some((&part.name, &name)), scratch, |reach| reach.row.graft(row));
            }
        }
    }
}

pub(super) fn borrowed(place: &OwnedPlace) -> Place<'_> {
    place.as_ref().map(|(table, row)| (&**table, &**row))
}

/// What computes how much a live cell or value adds to the hash of the content, in a buffer that stays.
#[derive(Clone, Debug, Default)]
struct Scale {
    bytes: Vec<u8>,
    path: usize,
}

impl Scale {
    /// What is weighed next is here.
    fn path(&mut self, place: Place<'_>, name: &str) {
        self.bytes.clear();
        self.bytes.push(u8::from(place.is_some())); // how many names follow
        let mut add = |name: &str| {
            self.bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(name.as_bytes());
        };
        if let Some((table, row)) = place {
            add(table);
            add(row);
        }
        add(name);
        self.path = self.bytes.len();
    }

    fn weigh(&mut self, content: Option<&Value>) -> u128 {
        let Some(value) = content else { return 0 };
        self.bytes.truncate(self.path);
        value.weigh(&mut self.bytes);
        xxh3_128(&self.bytes)
    }
}
