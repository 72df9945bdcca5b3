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
use super::row::{Name, Row, Table, Written};
use super::stamp::Stamp;
use super::value::Value;

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
        let entries = self.row.entries().iter().map(|entry| entry.stamp);
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
        let in_row = |row: &Row| row.entries().iter().map(|entry| entry.stamp).fold(row.deleted, Stamp::max);
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
