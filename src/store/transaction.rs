//! Writing: what belongs together happens together, or not at all.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bytes::Bytes;
use serde_json::Value as Tree;

use super::Store;
use super::changes::Changes;
use super::journal::Journal;
use super::schema::Why;
use super::stamp::{Clock, Exhausted, Stamp};
use super::state::{Place, Reach, State};
use super::value::{BadValue, NAME_BYTES_MAX, Value};

/// The longest body of a transaction, in bytes. Divide a larger one.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Changes to a store that become one op. They are in the store at once, and read through the transaction; unless it is
/// [committed](Self::commit), it takes them back when it is dropped. (A transaction that is leaked leaves them there,
/// where no peer hears of them.)
///
/// A write that changes nothing is none: setting a cell to what it holds, deleting what is not there. One that fails
/// changes nothing, and the transaction may go on.
#[derive(Debug)]
pub struct Transaction<'a> {
    store: &'a mut Store,
    wall: u64,
    /// That of all changes, but for those of what is newer.
    stamp: Stamp,
    /// Whether whatever has this stamp was written here.
    is_fresh: bool,
    /// The store's, when this is done.
    clock: Clock,
    journal: Journal,
}

/// What came of a transaction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Committed {
    /// The body of the op to append to the document. `None`: nothing changed. If it can't be appended, the store holds what
    /// nobody else will: make it anew from the document.
    pub body: Option<Bytes>,
    /// What changed.
    pub changes: Changes,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(store: &'a mut Store, wall: u64) -> Result<Self, Exhausted> {
        let mut clock = store.clock;
        let stamp = clock.next(wall, store.client)?;
        let mut transaction = Self::at(store, wall, stamp);
        transaction.clock = clock;
        Ok(transaction)
    }

    /// A transaction whose changes have this stamp.
    pub(super) fn at(store: &'a mut Store, wall: u64, stamp: Stamp) -> Self {
        let is_fresh = store.clock.is_fresh(stamp);
        let journal = Journal::new(store.state.hash);
        Self { clock: store.clock, store, wall, stamp, is_fresh, journal }
    }

    /// Sets a cell; its row and table are there from then on.
    ///
    /// # Errors
    /// If a name or the value is over the limits, the schema refuses it, or what is there has the last stamp.
    pub fn set_cell(&mut self, table: &str, row: &str, cell: &str, value: impl Into<Value>) -> Result<(), WriteError> {
        self.set(Some((table, row)), cell, value.into())
    }

    /// Sets the cells of a row, and deletes its others.
    ///
    /// # Errors
    /// Those of [`set_cell`](Self::set_cell). Cells before the one that failed are set.
    pub fn set_row<'n, V: Into<Value>>(
        &mut self,
        table: &str,
        row: &str,
        cells: impl IntoIterator<Item = (&'n str, V)>,
    ) -> Result<(), WriteError> {
        let mut names = Vec::new();
        for (cell, value) in cells {
            self.set_cell(table, row, cell, value)?;
            names.push(cell);
        }
        let place = Some((table, row));
        let all = self.store.state.row(place).map(|row| row.cells().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        let others = all.into_iter().flatten().filter(|name| !names.contains(&&**name));
        others.into_iter().try_for_each(|name| self.write(place, &name, None))
    }

    /// Sets a value.
    ///
    /// # Errors
    /// Those of [`set_cell`](Self::set_cell).
    pub fn set_value(&mut self, value: &str, content: impl Into<Value>) -> Result<(), WriteError> {
        self.set(None, value, content.into())
    }

    /// Sets all that `{"tables":{…},"values":{…}}` has; other cells and values stay as they are.
    ///
    /// # Errors
    /// If it has another form, and those of [`set_cell`](Self::set_cell). What came before is set.
    pub fn import(&mut self, json: &Tree) -> Result<(), WriteError> {
        let object = |tree: &'_ Tree| tree.as_object().cloned().ok_or(WriteError::Import);
        for (part, content) in object(json)? {
            match &*part {
                "tables" => {
                    for (table, rows) in object(&content)? {
                        for (row, cells) in object(&rows)? {
                            for (cell, value) in object(&cells)? {
                                self.set_cell(&table, &row, &cell, Value::try_from(&value)?)?;
                            }
                        }
                    }
                }
                "values" => {
                    for (value, content) in object(&content)? {
                        self.set_value(&value, Value::try_from(&content)?)?;
                    }
                }
                _ => return Err(WriteError::Import),
            }
        }
        Ok(())
    }

    /// Deletes a cell.
    ///
    /// # Errors
    /// If what is there has the last stamp.
    pub fn delete_cell(&mut self, table: &str, row: &str, cell: &str) -> Result<(), WriteError> {
        self.write(Some((table, row)), cell, None)
    }

    /// Deletes a value.
    ///
    /// # Errors
    /// If what is there has the last stamp.
    pub fn delete_value(&mut self, value: &str) -> Result<(), WriteError> {
        self.write(None, value, None)
    }

    /// Deletes a row: one change, however many cells it has. What others write to it later is there.
    ///
    /// # Errors
    /// If something there has the last stamp.
    pub fn delete_row(&mut self, table: &str, row: &str) -> Result<(), WriteError> {
        self.delete(Some((table, row)))
    }

    /// Deletes a table: one change, however many rows it has. What others write to it later is there.
    ///
    /// # Errors
    /// If something there has the last stamp.
    pub fn delete_table(&mut self, table: &str) -> Result<(), WriteError> {
        self.delete_tables_in(Some(table))
    }

    /// Deletes all tables: one change.
    ///
    /// # Errors
    /// If something there has the last stamp.
    pub fn delete_tables(&mut self) -> Result<(), WriteError> {
        self.delete_tables_in(None)
    }

    /// Deletes all values: one change.
    ///
    /// # Errors
    /// If something there has the last stamp.
    pub fn delete_values(&mut self) -> Result<(), WriteError> {
        self.delete(None)
    }

    /// Puts the changes together to one op. The store keeps them, and its clock goes on.
    ///
    /// # Errors
    /// If a row lacks a cell that the schema requires, or the body would be longer than [`BODY_BYTES_MAX`]. The changes are
    /// taken back.
    pub fn commit(self) -> Result<Committed, WriteError> {
        if self.store.state.hash == self.journal.hash() {
            return Ok(Committed::default()); // what was changed was changed back
        }
        self.check_required()?;
        self.conclude()
    }

    /// The same, whatever the schema says, and for changes that leave the content as it was.
    pub(super) fn conclude(mut self) -> Result<Committed, WriteError> {
        if self.journal.is_empty() {
            return Ok(Committed::default());
        }
        let body = self.journal.fragment(&self.store.state).encode();
        if body.len() > BODY_BYTES_MAX {
            return Err(WriteError::TooLarge);
        }
        self.store.clock = self.clock;
        let changes = core::mem::take(&mut self.journal).into_changes(&self.store.state);
        Ok(Committed { body: Some(body), changes })
    }

    /// What is changed, and what tells it.
    pub(super) fn parts(&mut self) -> (&mut State, &mut Journal) {
        (&mut self.store.state, &mut self.journal)
    }

    fn set(&mut self, at: Place<'_>, name: &str, value: Value) -> Result<(), WriteError> {
        if at.iter().flat_map(|(table, row)| [*table, *row]).chain([name]).any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(WriteError::NameTooLong);
        }
        let value = value.checked()?;
        if let Some(schema) = &self.store.schema {
            schema.judge(at.map(|(table, _)| table), name, &value).map_err(|why| violation(at, name, why))?;
        }
        self.write(at, name, Some(value))
    }

    fn write(&mut self, at: Place<'_>, name: &str, content: Option<Value>) -> Result<(), WriteError> {
        let (base, is_fresh, client) = (self.stamp, self.is_fresh, self.store.client);
        let stamp = self.store.state.reach(at, &mut self.journal, |reach: &mut Reach<'_>| {
            let (newest, old) = reach.newest(name);
            if old == content.as_ref() {
                return Ok(Stamp::ZERO);
            }
            // What this transaction wrote itself it may write again.
            let stamp = if newest < base || newest == base && is_fresh { base } else { newest.after(client)? };
            reach.put(name, stamp, content);
            Ok(stamp)
        });
        self.used(stamp)
    }

    fn delete(&mut self, at: Place<'_>) -> Result<(), WriteError> {
        if self.store.state.row(at).is_none_or(|row| !row.is_live()) {
            return Ok(());
        }
        let (base, client) = (self.stamp, self.store.client);
        let stamp = self.store.state.reach(at, &mut self.journal, |reach: &mut Reach<'_>| {
            let newest = reach.newest_of_all();
            let stamp = if newest < base { base } else { newest.after(client)? };
            reach.delete(stamp);
            Ok(stamp)
        });
        self.used(stamp)
    }

    fn delete_tables_in(&mut self, table: Option<&str>) -> Result<(), WriteError> {
        let state = &mut self.store.state;
        let is_live = match table {
            Some(table) => state.tables.get(table).is_some_and(|table| table.live > 0),
            None => state.tables.values().any(|table| table.live > 0),
        };
        if !is_live {
            return Ok(());
        }
        let newest = state.newest(table);
        let stamp = if newest < self.stamp { self.stamp } else { newest.after(self.store.client)? };
        state.delete(table, stamp, &mut self.journal);
        self.used(Ok(stamp))
    }

    /// Something was written with a stamp.
    fn used(&mut self, stamp: Result<Stamp, Exhausted>) -> Result<(), WriteError> {
        self.clock.seen(stamp?, self.wall, self.store.config.drift_max_ms);
        Ok(())
    }

    fn check_required(&self) -> Result<(), WriteError> {
        let Some(schema) = &self.store.schema else { return Ok(()) };
        for at in self.journal.places() {
            let Some(row) = self.store.state.row(at).filter(|row| row.is_live()) else { continue };
            let cells = schema.cells(at.map(|(table, _)| table)).ok().flatten();
            if let Some(missing) = cells.and_then(|cells| cells.missing(row)) {
                return Err(violation(at, missing, Why::Missing));
            }
        }
        Ok(())
    }
}

impl Deref for Transaction<'_> {
    type Target = Store;

    /// The store as the transaction has left it so far.
    fn deref(&self) -> &Store {
        self.store
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.journal.is_empty() {
            self.store.state.roll_back(core::mem::take(&mut self.journal));
        }
    }
}

fn violation(at: Place<'_>, name: &str, why: Why) -> WriteError {
    WriteError::Schema { row: at.map(|(table, row)| (table.into(), row.into())), name: name.into(), why }
}

/// Why something was not written. It is the caller's fault, but for [`Exhausted`](Self::Exhausted).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WriteError {
    /// A name is longer than [`NAME_BYTES_MAX`].
    NameTooLong,
    /// Cells can't hold this.
    Value(BadValue),
    /// The schema does not take it.
    Schema {
        /// The table and the row. `None`: it is a value.
        row: Option<(Arc<str>, Arc<str>)>,
        /// The cell, or the value.
        name: Arc<str>,
        /// What is wrong with it.
        why: Why,
    },
    /// There is no stamp for it.
    Exhausted(Exhausted),
    /// The transaction's body is longer than [`BODY_BYTES_MAX`].
    TooLarge,
    /// So much waits for the document's storage that no more is taken: wait until it is behind that.
    Full,
    /// What is to be imported is not `{"tables":{table:{row:{cell:value}}},"values":{name:value}}`.
    Import,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTooLong => write!(f, "names have at most {NAME_BYTES_MAX} bytes"),
            Self::Value(error) => error.fmt(f),
            Self::Schema { row: Some((table, row)), name, why } => {
                write!(f, "cell {name:?} in {table:?}, {row:?}: {why}")
            }
            Self::Schema { row: None, name, why } => write!(f, "value {name:?}: {why}"),
            Self::Exhausted(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the transaction is over {BODY_BYTES_MAX} bytes: divide it"),
            Self::Full => f.write_str("the document's storage is behind with what was written: wait for it"),
            Self::Import => f.write_str(
                "what is imported has the form {\"tables\":{table:{row:{cell:value}}},\"values\":{name:value}}",
            ),
        }
    }
}

impl core::error::Error for WriteError {}

impl From<BadValue> for WriteError {
    fn from(error: BadValue) -> Self {
        Self::Value(error)
    }
}

impl From<Exhausted> for WriteError {
    fn from(error: Exhausted) -> Self {
        Self::Exhausted(error)
    }
}
