//! Forgetting what was deleted.
//!
//! A deletion has to be remembered as long as something older may still come: from a replica that was away, with ops that
//! nobody has seen. A snapshot therefore has all deletions but those that a deletion above them covers. To forget old ones
//! a deletion above them is written: of the whole table, at a time in the past, and what is left in the table is written
//! again with that time. That is an op like any other, so that all replicas forget the same and converge whatever they have
//! seen, in whichever order.

use alloc::vec::Vec;

use super::Store;
use super::journal::Journal;
use super::row::{Name, Row, Table};
use super::stamp::{Exhausted, Stamp};
use super::state::{OwnedPlace, State, borrowed};
use super::transaction::{Committed, Transaction, WriteError};
use super::value::Value;

/// What is in a table, or among the values, that is older than a stamp.
#[derive(Default)]
struct Old {
    deletions: usize,
    cells: Vec<(OwnedPlace, Name, Value)>,
}

impl Old {
    fn row(&mut self, table: Option<&Name>, row: &Row, before: Stamp) {
        self.deletions += usize::from(row.deleted != Stamp::ZERO && row.deleted <= before);
        for entry in row.entries().iter().filter(|entry| entry.stamp < before) {
            match &entry.content {
                None => self.deletions += 1,
                Some(value) => {
                    let place = table.map(|table| (table.clone(), row.name.clone()));
                    self.cells.push((place, entry.name.clone(), value.clone()));
                }
            }
        }
    }

    fn of(table: &Table, before: Stamp) -> Self {
        let mut old = Self::default();
        table.rows.values().for_each(|row| old.row(Some(&table.name), row, before));
        old
    }

    /// Whether it takes less to write the rest again than to keep the deletions.
    fn is_worth_it(&self) -> bool {
        self.deletions > self.cells.len()
    }

    fn write(self, state: &mut State, stamp: Stamp, journal: &mut Journal) {
        for (place, name, value) in self.cells {
            state.reach(borrowed(&place), journal, |reach| reach.put(&name, stamp, Some(value)));
        }
    }
}

impl Store {
    /// Forgets deletions from before `before` (milliseconds of wall time, in the past) in those tables where they outnumber
    /// the cells, so that what is left takes less to write again. Meant for the document's authority, before it folds.
    ///
    /// The content stays as it is, here and elsewhere. What was written after `before` is merged as ever. What was written
    /// earlier, and is not merged here yet, is lost where a table was swept: so `before` is how long a replica may be away
    /// and still bring what it wrote meanwhile. Nothing that was deleted comes back, however long it was away. A replica
    /// sees from [`Applied::superseded`](super::Applied::superseded) that what it brought came too late.
    ///
    /// # Errors
    /// If `before` is later than stamps can hold, or the body would be over
    /// [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX): then nothing is forgotten.
    pub fn sweep(&mut self, before: u64) -> Result<Committed, WriteError> {
        let stamp = Stamp::new(before, 0, self.client).ok_or(Exhausted)?;
        let state = &self.state;
        let tables: Vec<_> = state.tables.values().map(|table| (table, Old::of(table, stamp))).collect();
        let cells: usize = tables.iter().map(|(_, old)| old.cells.len()).sum();
        let dead = |table: &Table| table.live == 0 && table.deleted <= stamp;
        let all = tables.iter().filter(|(table, _)| dead(table)).count() > cells && state.deleted < stamp;
        let is_swept = |table: &Table, old: &Old| all || old.is_worth_it() && table.deleted.max(state.deleted) < stamp;
        let tables: Vec<_> = tables.into_iter().filter(|(table, old)| is_swept(table, old)).collect();
        let tables: Vec<_> = tables.into_iter().map(|(table, old)| (table.name.clone(), old)).collect();
        let mut values = Old::default();
        if let Some(row) = state.values().filter(|row| row.deleted < stamp) {
            values.row(None, row, stamp);
        }
        let mut transaction = Transaction::at(self, before, stamp);
        let (state, journal) = transaction.parts();
        if all {
            state.delete(None, stamp, journal);
        }
        for (name, old) in tables {
            if !all {
                state.delete(Some(&name), stamp, journal);
            }
            old.write(state, stamp, journal);
        }
        if values.is_worth_it() {
            state.reach(None, journal, |reach| reach.delete(stamp));
            values.write(state, stamp, journal);
        }
        transaction.conclude()
    }
}
