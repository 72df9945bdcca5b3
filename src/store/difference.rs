//! Two stores side by side: what one holds that the other lacks, and how their contents differ.

use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::Store;
use super::changes::Changes;
use super::encoding::{Fragment, RowPart, TablePart};
use super::row::{Entry, Name, Row};
use super::stamp::Stamp;
use super::state::{OwnedPlace, State, borrowed};
use super::value::Value;

/// About how many bytes one of the bodies of [`Store::lacking`] has at most.
const PIECE_BYTES: usize = 256 << 10;
/// What the length of a name, a stamp, a tag and the length of a value take at most, and numbers.
const HEAD_BYTES: usize = 32;

impl Store {
    /// The bodies that bring `other` what this store holds and it does not, deletions too: none, if there is nothing. They
    /// are of a quarter of a mebibyte, or hold one longer value.
    pub fn lacking(&self, other: &Self) -> Vec<Bytes> {
        let mut pieces = Pieces::default();
        pieces.fill(&self.state, &other.state);
        pieces.done.push(pieces.piece);
        pieces.done.iter().filter(|piece| !piece.is_empty()).map(Fragment::encode).collect()
    }

    /// What is to be told to those who saw this store and now see `other` in its place.
    pub(super) fn changes_to(&self, other: &Self) -> Changes {
        let mut changes = Changes::default();
        for (place, name, value) in contents(&self.state) {
            if content(&other.state, &place, name) != Some(value) {
                changes.touch(place, name.clone(), Some(value.clone()));
            }
        }
        for (place, name, _) in contents(&other.state) {
            if content(&self.state, &place, name).is_none() {
                changes.touch(place, name.clone(), None);
            }
        }
        changes.settle(&other.state);
        changes
    }
}

/// All that is there.
fn contents(state: &State) -> impl Iterator<Item = (OwnedPlace, &Name, &Value)> {
    let values = state.values().into_iter().flat_map(Row::cells).map(|(name, value)| (None, name, value));
    let rows = state.tables.values().flat_map(|table| table.rows.values().map(move |row| (table, row)));
    let cells = rows.flat_map(|(table, row)| {
        row.cells().map(move |(name, value)| (Some((table.name.clone(), row.name.clone())), name, value))
    });
    values.chain(cells)
}

fn content<'a>(state: &'a State, place: &OwnedPlace, name: &str) -> Option<&'a Value> {
    state.row(borrowed(place))?.get(name)?.content.as_ref()
}

/// Fragments, none of them too long.
#[derive(Default)]
struct Pieces<'a> {
    done: Vec<Fragment<'a>>,
    piece: Fragment<'a>,
    bytes: usize,
}

impl<'a> Pieces<'a> {
    /// Takes what `mine` has that joined to `theirs` would change it.
    fn fill(&mut self, mine: &'a State, theirs: &State) {
        self.piece.deleted = newer(mine.deleted, theirs.deleted);
        if let Some(row) = mine.values() {
            let (their_row, above) = (theirs.values(), theirs.values().map_or(Stamp::ZERO, |row| row.deleted));
            self.piece.values_deleted = newer(row.deleted, above);
            for entry in lacking(row, their_row, above) {
                self.room(entry);
                self.piece.values.push(entry);
            }
        }
        for table in mine.tables.values() {
            let their_table = theirs.tables.get(&table.name);
            let above = theirs.deleted.max(their_table.map_or(Stamp::ZERO, |table| table.deleted));
            let mut part = TablePart::new(&table.name);
            part.deleted = newer(table.deleted, above);
            for row in table.rows.values() {
                let their_row = their_table.and_then(|table| table.rows.get(&row.name));
                let above = above.max(their_row.map_or(Stamp::ZERO, |row| row.deleted));
                let mut row_part = RowPart { row, deleted: newer(row.deleted, above), entries: Vec::new() };
                for entry in lacking(row, their_row, above) {
                    if self.is_full() {
                        let rest = RowPart { row, deleted: Stamp::ZERO, entries: Vec::new() };
                        part.rows.push(mem::replace(&mut row_part, rest));
                        self.piece.push(mem::replace(&mut part, TablePart::new(&table.name)));
                    }
                    self.room(entry);
                    row_part.entries.push(entry);
                }
                self.bytes += row.name.len() + HEAD_BYTES;
                part.rows.push(row_part);
            }
            self.bytes += table.name.len() + HEAD_BYTES;
            self.piece.push(part);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= PIECE_BYTES
    }

    /// Makes room for an entry.
    fn room(&mut self, entry: &Entry) {
        if self.is_full() {
            self.done.push(mem::take(&mut self.piece));
            self.bytes = 0;
        }
        let content = match &entry.content {
            Some(Value::String(text)) => text.len(),
            Some(Value::Bytes(bytes)) => bytes.len(),
            Some(Value::Json(json)) => json.as_str().len(),
            _ => 0,
        };
        self.bytes += entry.name.len() + content + HEAD_BYTES;
    }
}

/// A deletion, if it is later than what is there.
fn newer(deleted: Stamp, there: Stamp) -> Stamp {
    if deleted > there { deleted } else { Stamp::ZERO }
}

/// The entries of a row that another, below a deletion, does not have.
fn lacking<'a>(mine: &'a Row, theirs: Option<&Row>, above: Stamp) -> impl Iterator<Item = &'a Entry> {
    mine.entries().iter().filter(move |entry| {
        let there = theirs.and_then(|row| row.get(&entry.name));
        let is_newer = there.is_none_or(|there| (there.stamp, &there.content) < (entry.stamp, &entry.content));
        entry.stamp >= above && is_newer
    })
}
