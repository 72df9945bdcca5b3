//! What peers, and the log, say: read and joined as it is read, and taken back if it turns out not to be well formed.

use alloc::vec::Vec;
use core::fmt;

use bytes::Buf;

use super::encoding::{
    FLAG_BITS, MANY, ONLY_STAMP_BYTES, TABLES, TABLES_DELETED, VALUES, VALUES_DELETED, VERSION, from_small,
    from_zigzag, small, tag,
};
use super::journal::Journal;
use super::json::Json;
use super::stamp::{ClientId, Stamp};
use super::state::{Outcome, Place, Reach, State};
use super::value::{NAME_BYTES_MAX, VALUE_BYTES_MAX, Value};
use crate::wire::varint::take_varint;

/// Why bytes are no op and no snapshot of a store. Whoever wrote them has another version, or was no store at all; the
/// store is as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends too early, or a length or a count says more than there is.
    Truncated,
    /// It goes on after its end.
    Trailing,
    /// The first byte names a version that is not known.
    Version,
    /// A varint is longer than needed or above its range.
    Varint,
    /// A stamp that there can't be, or the number of one that was not listed.
    Stamp,
    /// A name that is too long, no UTF-8, or the number of one that was not told.
    Name,
    /// Names or stamps are not in order, or one is there twice.
    Order,
    /// A content that is not in its one form, or over the limits.
    Value,
    /// A table, a row or a whole that says nothing.
    Empty,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the op of a store ends too early",
            Self::Trailing => "the op of a store goes on after its end",
            Self::Version => "the op of a store has a version that is not known here",
            Self::Varint => "the op of a store has a number that is overlong or out of range",
            Self::Stamp => "the op of a store has a stamp that there can't be",
            Self::Name => "the op of a store has a name that is too long or no text",
            Self::Order => "the op of a store is not in order",
            Self::Value => "the op of a store has a value that is malformed or over the limits",
            Self::Empty => "the op of a store has a table or a row that says nothing",
        })
    }
}

impl core::error::Error for Malformed {}

/// What was merged.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The stamps, in order.
    pub(super) stamps: Vec<Stamp>,
    /// How many deletions and contents were older than what is here.
    pub(super) superseded: usize,
}

/// Joins what `bytes` say to a state. After an error the journal tells what to take back.
pub(super) fn merge(state: &mut State, journal: &mut Journal, bytes: &[u8]) -> Result<Merged, Malformed> {
    let mut reader =
        Reader { bytes, stamps: Vec::new(), at: 0, many: false, names: Vec::new(), merged: 0, superseded: 0 };
    let first = reader.byte()?;
    if first >> FLAG_BITS != VERSION {
        return Err(Malformed::Version);
    }
    let has = |flag: u8| first & flag != 0;
    reader.many = has(MANY);
    reader.stamps()?;
    if has(TABLES_DELETED) {
        let stamp = reader.stamp()?;
        reader.count(state.delete(None, stamp, journal));
    }
    if has(VALUES_DELETED) {
        let stamp = reader.stamp()?;
        let outcome = state.reach(None, journal, |reach| reach.delete(stamp));
        reader.count(outcome);
    }
    if has(VALUES) {
        let len = reader.varint()?;
        if len == 0 {
            return Err(Malformed::Empty);
        }
        reader.entries(state, journal, None, len)?;
    }
    let (mut before, mut goes_on) = (None, has(TABLES));
    while goes_on {
        goes_on = reader.table(state, journal, &mut before)?;
    }
    if !reader.bytes.is_empty() {
        return Err(Malformed::Trailing);
    }
    if reader.merged == 0 && !reader.stamps.is_empty() {
        return Err(Malformed::Empty);
    }
    Ok(Merged { stamps: reader.stamps, superseded: reader.superseded })
}

struct Reader<'a> {
    bytes: &'a [u8],
    stamps: Vec<Stamp>,
    many: bool,
    /// The number of the stamp read last.
    at: i64,
    names: Vec<&'a str>,
    merged: usize,
    superseded: usize,
}

impl<'a> Reader<'a> {
    fn count(&mut self, outcome: Outcome) {
        self.merged += 1;
        self.superseded += usize::from(outcome == Outcome::Superseded);
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.bytes.try_get_u8().map_err(|_| Malformed::Truncated)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        take_varint(&mut self.bytes).map_err(|error| match error {
            crate::wire::Malformed::Truncated => Malformed::Truncated,
            _ => Malformed::Varint,
        })
    }

    fn slice(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
        self.bytes.split_off(..len).ok_or(Malformed::Truncated)
    }

    /// How many things follow, of which each takes at least `each` bytes.
    fn len(&mut self, each: usize) -> Result<usize, Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
        if len > self.bytes.len() / each { Err(Malformed::Truncated) } else { Ok(len) }
    }

    fn stamps(&mut self) -> Result<(), Malformed> {
        if !self.many {
            let mut bits = [0; 16];
            bits[16 - ONLY_STAMP_BYTES..].copy_from_slice(self.slice(ONLY_STAMP_BYTES as u64)?);
            let bits = u128::from_be_bytes(bits);
            let counter = self.varint()?;
            return self.list((bits >> 30) as u64, counter, ClientId::new(bits as u32));
        }
        let clients: Vec<_> = (0..self.len(1)?).map(|_| self.client()).collect::<Result<_, _>>()?;
        let len = self.len(3)?;
        if !clients.is_sorted_by(|a, b| a < b) || len == 1 {
            return Err(Malformed::Order);
        }
        self.stamps.reserve_exact(len);
        let mut time = 0u64;
        for _ in 0..len {
            time = time.checked_add(self.varint()?).ok_or(Malformed::Stamp)?;
            let (counter, client) = (self.varint()?, self.varint()?);
            let client = usize::try_from(client).ok().and_then(|client| clients.get(client)).ok_or(Malformed::Stamp)?;
            self.list(time, counter, *client)?;
        }
        Ok(())
    }

    fn client(&mut self) -> Result<ClientId, Malformed> {
        let bits = u32::try_from(self.varint()?).map_err(|_| Malformed::Stamp)?;
        if bits > ClientId::MAX.get() { Err(Malformed::Stamp) } else { Ok(ClientId::new(bits)) }
    }

    fn list(&mut self, time: u64, counter: u64, client: ClientId) -> Result<(), Malformed> {
        let counter = u32::try_from(counter).map_err(|_| Malformed::Stamp)?;
        let stamp = Stamp::new(time, counter, client).filter(|stamp| *stamp != Stamp::ZERO).ok_or(Malformed::Stamp)?;
        if self.stamps.last().is_some_and(|last| *last >= stamp) {
            return Err(Malformed::Order);
        }
        self.stamps.push(stamp);
        Ok(())
    }

    fn stamp(&mut self) -> Result<Stamp, Malformed> {
        if self.many {
            self.at = self.at.checked_add(from_zigzag(self.varint()?)).ok_or(Malformed::Stamp)?;
        }
        usize::try_from(self.at).ok().and_then(|at| self.stamps.get(at)).copied().ok_or(Malformed::Stamp)
    }

    /// A name that comes after `before`.
    fn name(&mut self, before: &mut Option<&'a str>) -> Result<&'a str, Malformed> {
        let head = self.varint()?;
        let name = if head & 1 == 1 {
            let number = usize::try_from(head >> 1).map_err(|_| Malformed::Name)?;
            *self.names.get(number).ok_or(Malformed::Name)?
        } else {
            if head >> 1 > NAME_BYTES_MAX as u64 {
                return Err(Malformed::Name);
            }
            let name = str::from_utf8(self.slice(head >> 1)?).map_err(|_| Malformed::Name)?;
            self.names.push(name);
            name
        };
        match before.replace(name) {
            Some(before) if before >= name => Err(Malformed::Order),
            _ => Ok(name),
        }
    }

    /// Whether another table follows.
    fn table(
        &mut self,
        state: &mut State,
        journal: &mut Journal,
        before: &mut Option<&'a str>,
    ) -> Result<bool, Malformed> {
        let table = self.name(before)?;
        let (follows, deleted) = self.head()?;
        let (rows, goes_on) = (follows >> 1, follows & 1 == 1);
        match deleted {
            Some(stamp) => self.count(state.delete(Some(table), stamp, journal)),
            None if rows == 0 => return Err(Malformed::Empty),
            None => {}
        }
        let mut before = None;
        for _ in 0..rows {
            let row = self.name(&mut before)?;
            let (cells, deleted) = self.head()?;
            let place = Some((table, row));
            if let Some(stamp) = deleted {
                let outcome = state.reach(place, journal, |reach| reach.delete(stamp));
                self.count(outcome);
            }
            match (cells, deleted) {
                (0, None) => return Err(Malformed::Empty),
                (0, Some(_)) => {}
                _ => self.entries(state, journal, place, cells)?,
            }
        }
        Ok(goes_on)
    }

    /// What follows in a table or a row, and its deletion.
    fn head(&mut self) -> Result<(u64, Option<Stamp>), Malformed> {
        let head = self.varint()?;
        let deleted = if head & 1 == 1 { Some(self.stamp()?) } else { None };
        Ok((head >> 1, deleted))
    }

    fn entries(&mut self, state: &mut State, journal: &mut Journal, at: Place<'_>, len: u64) -> Result<(), Malformed> {
        state.reach(at, journal, |reach| {
            let mut before = None;
            (0..len).try_for_each(|_| self.entry(reach, &mut before))
        })
    }

    fn entry(&mut self, reach: &mut Reach<'_>, before: &mut Option<&'a str>) -> Result<(), Malformed> {
        let name = self.name(before)?;
        let stamp = self.stamp()?;
        let content = match self.byte()? {
            tag::DELETED => None,
            tag => Some(self.value(tag)?),
        };
        self.count(reach.join(name, stamp, content));
        Ok(())
    }

    fn value(&mut self, tag: u8) -> Result<Value, Malformed> {
        match tag {
            tag::NULL => Ok(Value::Null),
            tag::FALSE => Ok(Value::Bool(false)),
            tag::TRUE => Ok(Value::Bool(true)),
            tag::SMALL.. => Ok(Value::Int(from_small(tag))),
            tag::INT => {
                let int = from_zigzag(self.varint()?);
                if small(int).is_some() { Err(Malformed::Value) } else { Ok(Value::Int(int)) }
            }
            tag::FLOAT => {
                let bits = self.bytes.try_get_u64_le().map_err(|_| Malformed::Truncated)?;
                let float = f64::from_bits(bits);
                let is_kept = float.is_finite() && (float + 0.0).to_bits() == bits;
                if is_kept { Ok(Value::Float(float)) } else { Err(Malformed::Value) }
            }
            tag::STRING => self.text().map(|text| Value::String(text.into())),
            tag::BYTES => self.content().map(|bytes| Value::Bytes(bytes.into())),
            tag::JSON => Json::canonical(self.text()?).map(Value::Json).ok_or(Malformed::Value),
            _ => Err(Malformed::Value),
        }
    }

    fn content(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        if len > VALUE_BYTES_MAX as u64 { Err(Malformed::Value) } else { self.slice(len) }
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.content()?).map_err(|_| Malformed::Value)
    }
}
