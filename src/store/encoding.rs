//! How a part of a store is written: an op's body is what a transaction touched, a snapshot is everything.
//!
//! The [module](super) tells the form.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::row::{Entry, Name, Row, Table};
use super::stamp::{ClientId, Stamp};
use super::state::State;
use super::value::Value;
use crate::wire::varint::put_varint;

/// The version of the form, in the upper bits of the first byte.
pub(super) const VERSION: u8 = 1;
/// How many bits below the version are flags: there are other than exactly one stamp, all tables are deleted, all values
/// are, there are values, and there are tables.
pub(super) const FLAG_BITS: u32 = 5;
pub(super) const MANY: u8 = 1;
pub(super) const TABLES_DELETED: u8 = 2;
pub(super) const VALUES_DELETED: u8 = 4;
pub(super) const VALUES: u8 = 8;
pub(super) const TABLES: u8 = 16;

/// Bytes of the time and the client of the only stamp.
pub(super) const ONLY_STAMP_BYTES: usize = 9;

/// What an entry holds.
pub(super) mod tag {
    pub(in super::super) const DELETED: u8 = 0;
    pub(in super::super) const NULL: u8 = 1;
    pub(in super::super) const FALSE: u8 = 2;
    pub(in super::super) const TRUE: u8 = 3;
    pub(in super::super) const INT: u8 = 4;
    pub(in super::super) const FLOAT: u8 = 5;
    pub(in super::super) const STRING: u8 = 6;
    pub(in super::super) const BYTES: u8 = 7;
    pub(in super::super) const JSON: u8 = 8;
    /// From here on the tag is a small number itself.
    pub(in super::super) const SMALL: u8 = 0x40;
}

/// The number that [`tag::SMALL`] stands for.
const SMALL_MIN: i64 = -32;

/// The tag that stands for a number itself.
pub(super) fn small(int: i64) -> Option<u8> {
    let above = u8::try_from(int.checked_sub(SMALL_MIN)?).ok()?;
    above.checked_add(tag::SMALL)
}

/// The number that a tag from [`tag::SMALL`] on stands for.
pub(super) fn from_small(tag: u8) -> i64 {
    i64::from(tag - tag::SMALL) + SMALL_MIN
}

/// Numbers near zero in few bits.
pub(super) fn zigzag(int: i64) -> u64 {
    (int << 1 ^ int >> 63) as u64
}

pub(super) fn from_zigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

/// A part of a state: deletions ([`Stamp::ZERO`] where there is none to tell) and entries.
#[derive(Debug, Default)]
pub(super) struct Fragment<'a> {
    pub(super) deleted: Stamp,
    pub(super) values_deleted: Stamp,
    pub(super) values: Vec<&'a Entry>,
    tables: Vec<TablePart<'a>>,
}

#[derive(Debug)]
pub(super) struct TablePart<'a> {
    name: &'a Name,
    pub(super) deleted: Stamp,
    pub(super) rows: Vec<RowPart<'a>>,
}

#[derive(Debug)]
pub(super) struct RowPart<'a> {
    pub(super) row: &'a Row,
    pub(super) deleted: Stamp,
    pub(super) entries: Vec<&'a Entry>,
}

impl<'a> TablePart<'a> {
    pub(super) fn new(name: &'a Name) -> Self {
        Self { name, deleted: Stamp::ZERO, rows: Vec::new() }
    }

    /// Takes in the deletion of a row of `table` (no `cell`), or a cell, if it is there. Parts of a row come one after the
    /// other.
    pub(super) fn take(&mut self, table: &'a Table, row: &str, cell: Option<&str>) {
        if self.rows.last().is_none_or(|part| *part.row.name != *row) {
            let Some(row) = table.rows.get(row) else { return };
            self.rows.push(RowPart { row, deleted: Stamp::ZERO, entries: Vec::new() });
        }
        let Some(part) = self.rows.last_mut() else { return };
        match cell {
            None => part.deleted = part.row.deleted,
            Some(cell) => part.entries.extend(part.row.get(cell)),
        }
    }
}

impl<'a> Fragment<'a> {
    /// All there is.
    pub(super) fn all(state: &'a State) -> Self {
        let values = state.values();
        let table = |table: &'a Table| {
            let row = |row: &'a Row| RowPart { row, deleted: row.deleted, entries: row.entries().iter().collect() };
            TablePart { name: &table.name, deleted: table.deleted, rows: table.rows.values().map(row).collect() }
        };
        Self {
            deleted: state.deleted,
            values_deleted: values.map_or(Stamp::ZERO, |row| row.deleted),
            values: values.iter().flat_map(|row| row.entries()).collect(),
            tables: state.tables.values().map(table).collect(),
        }
    }

    /// Whether it tells nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self { deleted, values_deleted, values, tables } = self;
        *deleted == Stamp::ZERO && *values_deleted == Stamp::ZERO && values.is_empty() && tables.is_empty()
    }

    /// One more table, after those before in order, if there is something to tell of it.
    pub(super) fn push(&mut self, mut table: TablePart<'a>) {
        table.rows.retain(|row| row.deleted != Stamp::ZERO || !row.entries.is_empty());
        if table.deleted != Stamp::ZERO || !table.rows.is_empty() {
            self.tables.push(table);
        }
    }

    /// All stamps in it, each once, in order.
    fn stamps(&self) -> Vec<Stamp> {
        let mut stamps: Vec<_> =
            [self.deleted, self.values_deleted].into_iter().filter(|s| *s != Stamp::ZERO).collect();
        let mut add = |stamp| {
            if stamp != Stamp::ZERO && stamps.last() != Some(&stamp) {
                stamps.push(stamp);
            }
        };
        self.values.iter().for_each(|entry| add(entry.stamp));
        for table in &self.tables {
            add(table.deleted);
            for row in &table.rows {
                add(row.deleted);
                row.entries.iter().for_each(|entry| add(entry.stamp));
            }
        }
        stamps.sort_unstable();
        stamps.dedup();
        stamps
    }

    /// The bytes of it.
    pub(super) fn encode(&self) -> Bytes {
        let stamps = self.stamps();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let first = VERSION << FLAG_BITS
            | flag(stamps.len() != 1, MANY)
            | flag(self.deleted != Stamp::ZERO, TABLES_DELETED)
            | flag(self.values_deleted != Stamp::ZERO, VALUES_DELETED)
            | flag(!self.values.is_empty(), VALUES)
            | flag(!self.tables.is_empty(), TABLES);
        let mut out = Writer { out: Vec::with_capacity(64), names: BTreeMap::new(), stamps, at: 0 };
        out.out.push(first);
        out.stamps();
        out.deletion(self.deleted);
        out.deletion(self.values_deleted);
        if !self.values.is_empty() {
            put_varint(&mut out.out, self.values.len() as u64);
            self.values.iter().for_each(|entry| out.entry(entry));
        }
        for (index, table) in self.tables.iter().enumerate() {
            let goes_on = index + 1 < self.tables.len();
            out.head(table.name, (table.rows.len() as u64) << 1 | u64::from(goes_on), table.deleted);
            for row in &table.rows {
                out.head(&row.row.name, row.entries.len() as u64, row.deleted);
                row.entries.iter().for_each(|entry| out.entry(entry));
            }
        }
        out.out.into()
    }
}

struct Writer<'a> {
    out: Vec<u8>,
    /// The numbers of the names that were written.
    names: BTreeMap<&'a str, u32>,
    stamps: Vec<Stamp>,
    /// The number of the stamp written last.
    at: usize,
}

impl<'a> Writer<'a> {
    fn stamps(&mut self) {
        if let [stamp] = self.stamps[..] {
            let bits = u128::from(stamp.time()) << 30 | u128::from(stamp.client().get());
            self.out.extend_from_slice(&bits.to_be_bytes()[16 - ONLY_STAMP_BYTES..]);
            put_varint(&mut self.out, stamp.counter().into());
            return;
        }
        let mut clients: Vec<ClientId> = self.stamps.iter().map(|stamp| stamp.client()).collect();
        clients.sort_unstable();
        clients.dedup();
        put_varint(&mut self.out, clients.len() as u64);
        clients.iter().for_each(|client| put_varint(&mut self.out, client.get().into()));
        put_varint(&mut self.out, self.stamps.len() as u64);
        let mut time = 0;
        for stamp in &self.stamps {
            let client = clients.partition_point(|client| *client < stamp.client());
            put_varint(&mut self.out, stamp.time() - time);
            put_varint(&mut self.out, stamp.counter().into());
            put_varint(&mut self.out, client as u64);
            time = stamp.time();
        }
    }

    fn name(&mut self, name: &'a str) {
        if let Some(number) = self.names.get(name) {
            put_varint(&mut self.out, u64::from(*number) << 1 | 1);
            return;
        }
        put_varint(&mut self.out, (name.len() as u64) << 1);
        self.out.extend_from_slice(name.as_bytes());
        self.names.insert(name, self.names.len() as u32);
    }

    fn stamp(&mut self, stamp: Stamp) {
        if self.stamps.len() == 1 {
            return;
        }
        let number = if self.stamps.get(self.at) == Some(&stamp) {
            self.at // cells side by side were often written together
        } else {
            self.stamps.partition_point(|other| *other < stamp)
        };
        put_varint(&mut self.out, zigzag(number as i64 - self.at as i64));
        self.at = number;
    }

    fn deletion(&mut self, stamp: Stamp) {
        if stamp != Stamp::ZERO {
            self.stamp(stamp);
        }
    }

    /// What a table or a row begins with: what follows, and its deletion.
    fn head(&mut self, name: &'a str, follows: u64, deleted: Stamp) {
        self.name(name);
        put_varint(&mut self.out, follows << 1 | u64::from(deleted != Stamp::ZERO));
        self.deletion(deleted);
    }

    fn entry(&mut self, entry: &'a Entry) {
        self.name(&entry.name);
        self.stamp(entry.stamp);
        let (tag, bytes): (u8, &[u8]) = match &entry.content {
            None => return self.out.push(tag::DELETED),
            Some(Value::Null) => return self.out.push(tag::NULL),
            Some(Value::Bool(false)) => return self.out.push(tag::FALSE),
            Some(Value::Bool(true)) => return self.out.push(tag::TRUE),
            Some(Value::Int(int)) => {
                let small = small(*int);
                self.out.push(small.unwrap_or(tag::INT));
                if small.is_none() {
                    put_varint(&mut self.out, zigzag(*int));
                }
                return;
            }
            Some(Value::Float(float)) => {
                self.out.push(tag::FLOAT);
                return self.out.extend_from_slice(&float.to_bits().to_le_bytes());
            }
            Some(Value::String(text)) => (tag::STRING, text.as_bytes()),
            Some(Value::Bytes(bytes)) => (tag::BYTES, bytes),
            Some(Value::Json(json)) => (tag::JSON, json.as_str().as_bytes()),
        };
        self.out.push(tag);
        put_varint(&mut self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }
}
