//! A store of tables and values that merges without conflicts: for who does not bring a CRDT.
//!
//! A [`Store`] has *tables* of *rows* of *cells*, and *values*, all by name. It is a plain value, without IO, clock or
//! randomness: a [`Transaction`] changes it and becomes the body of one op, to be appended to a document; each op that
//! comes from a peer, or out of the log, is [applied](Store::apply). Stores that have applied the same ops, in whichever
//! order and however often, hold the same, and have the same [hash](Store::content_hash).
//!
//! ```
//! use antiphon::store::{ClientId, Store, Value};
//!
//! let (mut mine, mut yours) = (Store::new(ClientId::new(1)), Store::new(ClientId::new(2)));
//! let wall = 1_700_000_000_000; // in earnest: the time, in milliseconds since 1970
//!
//! let mut transaction = mine.begin(wall)?;
//! transaction.set_cell("pets", "fido", "species", "dog")?;
//! transaction.set_value("open", true)?;
//! let committed = transaction.commit()?;
//! let body = committed.body.expect("something changed"); // append it to the document
//!
//! let applied = yours.apply(&body, wall)?; // where it comes out of the document
//! assert_eq!(applied.changes, committed.changes);
//! assert_eq!(yours.cell("pets", "fido", "species"), Some(&Value::from("dog")));
//! assert_eq!(yours.content_hash(), mine.content_hash());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Merging
//!
//! Each cell and value has a [`Stamp`]; of two contents, or a content and a deletion, the later one holds, and of two with
//! the same stamp (clones write those) the greater one, in an order that means nothing. The deletion of a row, a table, or
//! all tables or values is one stamp: what is older below it is gone, what is as old or newer stays.
//!
//! A transaction has one stamp, of a hybrid logical clock: later than the wall clock shows, and than all that was seen.
//! *Clocks that are wrong:* the clock does not follow stamps that are more than [`drift_max_ms`](Config::drift_max_ms) ahead
//! of the wall clock, so that it does not run away with them. What they were written with is kept, and [`Applied::ahead_ms`]
//! tells it. A change of what has such a stamp gets the next stamp after that one, and only this change does: so whoever
//! writes over something wins over it, always, and the rest of the store keeps the right time.
//!
//! Deletions are remembered, for something older may still come; all that a deletion covers, other deletions too, is
//! forgotten. [`Store::sweep`] forgets old ones by a deletion above them.
//!
//! # The form of bodies and snapshots
//!
//! Both are the same: a part of a store, with its stamps, of which a snapshot is all. Applying a snapshot to a store that
//! holds something merges it. Integers are varints as on the wire (PROTOCOL.md), of which only the shortest form is
//! accepted; signed ones are zigzag: 0, -1, 1, -2 are 0, 1, 2, 3. What is not there takes no byte.
//!
//! | field | bytes |
//! | --- | --- |
//! | first | 0x20 (version 1), plus 1: *many* stamps, 2: all tables are deleted, 4: all values are deleted, 8: there are values, 16: there are tables |
//! | stamp, unless many | 9 bytes, most significant first: 42 bits of milliseconds and 30 of client; counter |
//! | stamps, if many (any number but one) | how many clients, each, ascending; how many stamps, and of each, ascending: milliseconds since the one before, counter, number of the client from 0 |
//! | deletions | if flagged, the *stamp number* of the deletion of all tables, then of all values |
//! | values | if flagged, how many, more than 0; of each an *entry* |
//! | tables | if flagged, of each: *name*; a number, plus 1 if the table is deleted, 2 if another table follows, 4 for each row; the *stamp number* of its deletion; rows |
//! | row | *name*; a number, plus 1 if the row is deleted, 2 for each cell; the *stamp number* of its deletion; of each cell an *entry* |
//! | entry | *name*, *stamp number*, content |
//! | name | twice its length, and that many bytes of UTF-8; or twice the number plus one of a name that is there already, counted from 0 |
//! | stamp number | if many: the difference to the number before (at first: to 0), signed. Else nothing |
//! | content | 0: deleted, 1: null, 2: false, 3: true, 4: an integer (signed), 5: a float (8 bytes, little endian), 6: a string, 7: bytes, 8: JSON (of these three a length, and that many bytes), 0x40 to 0xff: an integer from -32 to 159. Integers in that range have no other form |
//!
//! Tables, rows, cells and values are in ascending order of their names' bytes, and each says something. Whatever has
//! another form is [refused whole](Malformed). The smallest example: `t1`, `r1`, `c1` is 1, written at
//! 2023-11-14T22:13:20Z by client 1, in 23 bytes.
//!
//! ```text
//! 30                          version 1, one stamp, tables
//! 62f3f95a0000000001 00       1700000000000 ms, client 1; counter 0
//! 04 7431 04                  "t1", one row
//! 04 7231 02                  "r1", one cell
//! 04 6331 61                  "c1" is 1
//! ```

mod changes;
mod decoding;
mod difference;
mod encoding;
mod journal;
mod json;
mod mirror;
mod row;
mod schema;
mod stamp;
mod state;
mod sweep;
mod transaction;
mod value;
mod view;

use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value as Tree};

pub use self::changes::{CellChange, Changes, ListenerId, Listeners, Pattern, ValueChange};
pub use self::decoding::Malformed;
pub use self::json::Json;
pub use self::mirror::{Direction, Mirror, UNSEEN_BYTES_MAX};
pub use self::schema::{BadSchema, Cells, Kind, Schema, Spec, Unknown, Why};
pub use self::stamp::{BadStamp, COUNTER_MAX, ClientId, Exhausted, STAMP_CHARS, Stamp, TIME_MAX};
pub use self::transaction::{BODY_BYTES_MAX, Committed, Transaction, WriteError};
pub use self::value::{BadValue, JSON_DEPTH_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX, Value};
pub use self::view::{RowView, TableView};

use self::encoding::Fragment;
use self::journal::Journal;
use self::stamp::Clock;
use self::state::State;
use crate::op::Op;
use crate::snapshot::Compactor;

/// How a store behaves. What it takes from peers does not depend on it, so that stores with other configurations converge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// By how many milliseconds a stamp may be ahead of the wall clock for the store's clock to follow it.
    pub drift_max_ms: u64,
}

impl Default for Config {
    /// Five minutes.
    fn default() -> Self {
        Self { drift_max_ms: 300_000 }
    }
}

/// Tables and values. See the [module](self).
#[derive(Clone, Debug)]
pub struct Store {
    config: Config,
    client: ClientId,
    clock: Clock,
    schema: Option<Arc<Schema>>,
    state: State,
}

/// What came of an op of a peer, or of the log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Applied {
    /// What changed.
    pub changes: Changes,
    /// How many milliseconds the latest stamp in it is ahead of the wall clock. A few are what clocks and networks bring;
    /// above [`Config::drift_max_ms`] somebody's clock is wrong, this one or the writer's. 0: not at all.
    pub ahead_ms: u64,
    /// The latest stamp in it: when it was written, by the writer's clock.
    pub latest: Stamp,
    /// How many of its contents and deletions were not taken because something newer was here.
    pub superseded: usize,
}

impl Store {
    /// An empty store that writes as `client`: [`ClientId::of`] the replica's id.
    pub fn new(client: ClientId) -> Self {
        Self::with(Config::default(), client)
    }

    /// The same, with a configuration.
    pub fn with(config: Config, client: ClientId) -> Self {
        Self { config, client, clock: Clock::default(), schema: None, state: State::default() }
    }

    /// The store of a snapshot, read at `wall`, in milliseconds since 1970.
    ///
    /// # Errors
    /// If it is no snapshot.
    pub fn load(client: ClientId, snapshot: &[u8], wall: u64) -> Result<Self, Malformed> {
        let mut store = Self::new(client);
        let _ = store.join(snapshot, wall)?;
        Ok(store)
    }

    /// Who writes here.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// From now on somebody else writes here: the replica has renewed its id.
    pub fn set_client(&mut self, client: ClientId) {
        self.client = client;
    }

    /// From now on this schema binds what is written here, and is what is seen through; `None`: no schema.
    ///
    /// # Errors
    /// If the schema contradicts itself. The one before stays.
    pub fn set_schema(&mut self, schema: Option<Schema>) -> Result<(), BadSchema> {
        schema.as_ref().map_or(Ok(()), Schema::check)?;
        self.schema = schema.map(Arc::new);
        Ok(())
    }

    /// Begins a transaction at `wall`, in milliseconds since 1970.
    ///
    /// # Errors
    /// If there are no stamps left.
    pub fn begin(&mut self, wall: u64) -> Result<Transaction<'_>, Exhausted> {
        Transaction::new(self, wall)
    }

    /// Begins a transaction of what is to be there until somebody writes something else: it is older than all that is
    /// written at any time. Meant for stores in which nothing was ever written.
    ///
    /// # Errors
    /// None, for such a store.
    pub fn begin_initial(&mut self) -> Result<Transaction<'_>, Exhausted> {
        let stamp = Stamp::new(0, 1, self.client).ok_or(Exhausted)?;
        Ok(Transaction::at(self, 0, stamp))
    }

    /// Merges the body of an op, or a snapshot, at `wall`, in milliseconds since 1970. Doing so again changes nothing.
    ///
    /// # Errors
    /// If it is neither. Nothing has changed.
    pub fn apply(&mut self, body: &[u8], wall: u64) -> Result<Applied, Malformed> {
        let (journal, applied) = self.join(body, wall)?;
        Ok(Applied { changes: journal.into_changes(&self.state), ..applied })
    }

    /// The same for those who don't want to know what changed, but for how that is found out.
    fn join(&mut self, body: &[u8], wall: u64) -> Result<(Journal, Applied), Malformed> {
        let mut journal = Journal::new(self.state.hash);
        match decoding::merge(&mut self.state, &mut journal, body) {
            Ok(merged) => {
                let latest = merged.stamps.iter().max().copied().unwrap_or_default();
                let stamps = merged.stamps.iter();
                let ahead = stamps.map(|stamp| self.clock.seen(*stamp, wall, self.config.drift_max_ms)).max();
                let (changes, superseded) = (Changes::default(), merged.superseded);
                Ok((journal, Applied { changes, ahead_ms: ahead.unwrap_or(0), latest, superseded }))
            }
            Err(error) => {
                self.state.roll_back(journal);
                Err(error)
            }
        }
    }

    /// All there is, with stamps. Stores that have applied the same ops have the same snapshot, byte for byte.
    pub fn snapshot(&self) -> Bytes {
        Fragment::all(&self.state).encode()
    }

    /// One hash over all cells and values that are there, as they are stored: equal for stores with equal content, whenever
    /// and by whom it was written. It is kept as the content changes. That of an empty store is 0.
    ///
    /// The wrapping sum, over cells and values, of XXH3-128 over: a byte, 1 for cells and 0 for values; table, row and
    /// cell, or value, each after its length in four bytes, little endian; the content's kind (0 null, 1 boolean, 2
    /// integer, 3 float, 4 string, 5 bytes, 6 JSON); and a byte, or 8 little endian, or the bytes.
    pub fn content_hash(&self) -> u128 {
        self.state.hash
    }

    /// Whether no cell and no value is there.
    pub fn is_empty(&self) -> bool {
        self.state.tables.values().all(|table| table.live == 0) && self.state.values().is_none_or(|row| !row.is_live())
    }

    /// All that is seen, as `{"tables":{table:{row:{cell:value}}},"values":{name:value}}`.
    pub fn to_json(&self) -> Tree {
        let tables = self.tables().map(|table| (String::from(table.name()), table.to_json())).collect::<Map<_, _>>();
        let values = self.values().map(|(name, value)| (String::from(name), Tree::from(value))).collect::<Map<_, _>>();
        Tree::Object(
            [("tables", tables), ("values", values)]
                .map(|(name, part)| (name.into(), part.into()))
                .into_iter()
                .collect(),
        )
    }
}

/// Folds a document of stores. An op that is no transaction is an error, lest a document of another kind is lost; void ops
/// are left out.
impl Compactor for Store {
    type Error = Malformed;

    fn load(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.join(body, 0).map(|_| ())
    }

    fn fold(&mut self, op: &Op) -> Result<(), Malformed> {
        op.body.bytes().map_or(Ok(()), |body| self.join(body, 0).map(|_| ()))
    }

    fn finish(&mut self) -> Bytes {
        self.snapshot()
    }
}

impl TableView<'_> {
    /// All that is seen, as `{row:{cell:value}}`.
    pub fn to_json(self) -> Tree {
        Tree::Object(self.rows().map(|row| (row.name().into(), row.to_json())).collect())
    }
}

impl RowView<'_> {
    /// All that is seen, as `{cell:value}`.
    pub fn to_json(self) -> Tree {
        Tree::Object(self.cells().map(|(name, value)| (name.into(), Tree::from(value))).collect())
    }
}
