//! The values of earlier formats, and how they become those of the next.

use antiphon::heads::Head;
use antiphon::op::{Cursor, ReplicaId};
use antiphon::timeline::TimelineRecord;
use rusqlite::Connection;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;
use crate::reading;
use crate::seal::{Key, pack, unpack};

/// A document's record in format 1, which had no snapshots.
#[derive(Debug, Deserialize)]
struct Record {
    tail: u64,
    last: u64,
    digest: u64,
    forgotten: u64,
    timelines: Vec<TimelineRecord>,
    aside: Option<(u64, u64)>,
    shelves: Vec<Shelf>,
}

#[derive(Debug, Deserialize)]
struct Shelf {
    log: u64,
    place: u64,
    len: u64,
}

/// A standing in format 1.
#[derive(Debug, Deserialize)]
struct Standing {
    head: Head,
    chunk: u64,
    cursor: Option<Cursor>,
}

impl From<Record> for reading::Record {
    fn from(former: Record) -> Self {
        let Record { tail, last, digest, forgotten, timelines, aside, shelves } = former;
        let shelves = shelves.into_iter().map(|Shelf { log, place, len }| reading::Shelf { log, place, len, first: 0 });
        Self {
            tail,
            last,
            digest,
            forgotten,
            timelines,
            aside,
            shelves: shelves.collect(),
            horizon: 0,
            snapshot: None,
            staged: None,
        }
    }
}

impl From<Standing> for reading::Standing {
    fn from(Standing { head, chunk, cursor }: Standing) -> Self {
        Self { head, chunk, cursor, base: Head::NONE }
    }
}

/// Writes all records and standings of format 1 as those of format 2.
pub(crate) fn rewrite(connection: &Connection) -> Result<(), Fault> {
    let mut documents = connection.prepare("SELECT log, name FROM document")?;
    let mut rows = documents.query([])?;
    while let Some(row) = rows.next()? {
        let (log, name) = (row.get::<_, i64>(0)? as u64, row.get::<_, String>(1)?);
        // Those of one document at a time are in memory, for what is read must not change under the reader.
        let mut state = connection.prepare_cached("SELECT replica, value FROM state WHERE log = ?1")?;
        let state = state.query_map([log as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (replica, value) in state.collect::<Result<Vec<(Vec<u8>, Vec<u8>)>, _>>()? {
            let value = match replica.first_chunk() {
                None => {
                    let key = Key::Record(log, &name);
                    pack(key, &reading::Record::from(taken::<Record>(key, &value)?))
                }
                Some(id) => {
                    let key = Key::Standing(log, ReplicaId(*id));
                    pack(key, &reading::Standing::from(taken::<Standing>(key, &value)?))
                }
            };
            let mut update =
                connection.prepare_cached("UPDATE state SET value = ?3 WHERE log = ?1 AND replica = ?2")?;
            update.execute((log as i64, replica, value))?;
        }
    }
    Ok(())
}

fn taken<T: DeserializeOwned>(key: Key<'_>, value: &[u8]) -> Result<T, Fault> {
    unpack(key, value).map_or_else(|| Fault::damaged(format_args!("the seal of {key:?} is broken")), Ok)
}
