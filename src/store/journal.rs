//! What a transaction, or a peer's op, does to a store: to take it back, to tell it, and to pass it on.

use alloc::vec::Vec;

use super::changes::{CellChange, Changes, ValueChange};
use super::encoding::{Fragment, TablePart};
use super::row::{Name, Row, Table, Written};
use super::stamp::Stamp;
use super::state::{OwnedPlace, Place, State, borrowed};
use super::value::Value;

/// One step, and what was there before it.
#[derive(Debug)]
pub(super) enum Undo {
    /// A cell, or a value (no place), was written.
    Cell { place: OwnedPlace, name: Name, before: Option<Written> },
    /// A row, or all values (no place), were deleted.
    Row { place: OwnedPlace, before: Stamp, gone: Option<Row> },
    /// A table, or all tables (no name), were deleted.
    Tables { table: Option<Name>, before: Stamp, gone: Vec<Table> },
}

/// The steps in their order, since the store had the content with this hash.
#[derive(Debug, Default)]
pub(super) struct Journal {
    hash: u128,
    steps: Vec<Undo>,
}

impl Journal {
    pub(super) fn new(hash: u128) -> Self {
        Self { hash, steps: Vec::new() }
    }

    pub(super) fn hash(&self) -> u128 {
        self.hash
    }

    pub(super) fn push(&mut self, step: Undo) {
        self.steps.push(step);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, the last one first.
    pub(super) fn into_undone(self) -> impl Iterator<Item = Undo> {
        self.steps.into_iter().rev()
    }

    /// Where something was written, row by row.
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.steps.iter().filter_map(|step| match step {
            Undo::Cell { place, .. } | Undo::Row { place, .. } => Some(borrowed(place)),
            Undo::Tables { .. } => None,
        })
    }

    /// What is in `state` of that which was touched. What was touched and is gone since is told by a deletion above it.
    pub(super) fn fragment<'a>(&'a self, state: &'a State) -> Fragment<'a> {
        let mut fragment = Fragment::default();
        // A deletion, which has no name, comes before what is below it.
        let mut values = Vec::new();
        let mut tables = Vec::new();
        for step in &self.steps {
            match step {
                Undo::Cell { place: Some((table, row)), name, .. } => tables.push((table, Some((row, Some(name))))),
                Undo::Row { place: Some((table, row)), .. } => tables.push((table, Some((row, None)))),
                Undo::Tables { table: Some(table), .. } => tables.push((table, None)),
                Undo::Tables { table: None, .. } => fragment.deleted = state.deleted,
                Undo::Cell { place: None, name, .. } => values.push(Some(name)),
                Undo::Row { place: None, .. } => values.push(None),
            }
        }
        values.sort_unstable();
        values.dedup();
        for name in values {
            let Some(row) = state.values() else { break };
            match name {
                None => fragment.values_deleted = row.deleted,
                Some(name) => fragment.values.extend(row.get(name)),
            }
        }
        tables.sort(); // mostly, they are
        tables.dedup();
        let mut rest = &tables[..];
        while let Some(&(name, _)) = rest.first() {
            let (group, others) = rest.split_at(same(rest, |(other, _)| *other == name));
            rest = others;
            let Some(table) = state.tables.get(name) else { continue };
            let mut part = TablePart::new(&table.name);
            for (_, row) in group {
                match row {
                    None => part.deleted = table.deleted,
                    Some((row, cell)) => part.take(table, row, cell.map(|cell| &**cell)),
                }
            }
            fragment.push(part);
        }
        fragment
    }

    /// What has another content in `state` than before all steps.
    pub(super) fn into_changes(self, state: &State) -> Changes {
        let mut changes = Changes::default();
        for step in self.steps {
            match step {
                Undo::Cell { place, name, before } => {
                    changes.touch(place, name, before.and_then(|before| before.content));
                }
                Undo::Row { place, gone, .. } => gone.into_iter().for_each(|row| changes.gone(&place, row)),
                Undo::Tables { gone, .. } => {
                    for table in gone {
                        for (name, row) in table.rows {
                            changes.gone(&Some((table.name.clone(), name)), row);
                        }
                    }
                }
            }
        }
        changes.settle(state);
        changes
    }
}

impl Changes {
    pub(super) fn touch(&mut self, place: OwnedPlace, name: Name, old: Option<Value>) {
        match place {
            Some((table, row)) => self.cells.push(CellChange { table, row, cell: name, old, new: None }),
            None => self.values.push(ValueChange { value: name, old, new: None }),
        }
    }

    fn gone(&mut self, place: &OwnedPlace, row: Row) {
        for (name, value) in row.cells() {
            self.touch(place.clone(), name.clone(), Some(value.clone()));
        }
    }

    /// Leaves one change a place, from its first content to that in `state`, where they differ.
    pub(super) fn settle(&mut self, state: &State) {
        let content = |row: Option<&Row>, name: &str| row.and_then(|row| row.get(name)?.content.clone());
        self.cells.sort_by(|a, b| a.path().cmp(&b.path())); // stable: the first content comes first
        self.cells.dedup_by(|later, first| later.path() == first.path());
        let mut rest = &mut self.cells[..];
        while let Some(first) = rest.first() {
            let (table, row) = (first.table.clone(), first.row.clone());
            let len = same(rest, |change| change.row == row && change.table == table);
            let (group, others) = rest.split_at_mut(len);
            rest = others;
            let row = state.row(Some((&table, &row)));
            group.iter_mut().for_each(|change| change.new = content(row, &change.cell));
        }
        self.cells.retain(|change| change.old != change.new);
        self.values.sort_by(|a, b| a.value.cmp(&b.value));
        self.values.dedup_by(|later, first| later.value == first.value);
        self.values.iter_mut().for_each(|change| change.new = content(state.values(), &change.value));
        self.values.retain(|change| change.old != change.new);
    }
}

/// How many at the beginning of `list` belong together.
fn same<T>(list: &[T], together: impl Fn(&T) -> bool) -> usize {
    list.iter().take_while(|item| together(item)).count()
}
