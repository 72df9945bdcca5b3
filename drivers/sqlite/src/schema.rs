//! What the database looks like, how it is told apart from others, and how older ones become this one.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Fault};
use crate::former;

/// Marks a database as one of antiphon's: "anti" in ASCII.
pub const APPLICATION_ID: i32 = 0x616e_7469;

/// The newest format that is understood, and the one that is written.
pub const FORMAT_VERSION: i32 = STEPS.len() as i32;

/// The page size of a new database, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// What leads from one format to the next; the first makes the schema. All that is missing runs in one transaction.
const STEPS: [Step; 2] = [
    |connection| Ok(connection.execute_batch(LOGS)?),
    |connection| {
        connection.execute_batch(SNAPSHOTS)?;
        former::rewrite(connection)
    },
];

type Step = fn(&Connection) -> Result<(), Fault>;

const LOGS: &str = "
    -- Who the replica is.
    CREATE TABLE replica (id INTEGER PRIMARY KEY CHECK (id = 1), identity BLOB NOT NULL) STRICT;
    -- A document has a log; after a reset it is another one.
    CREATE TABLE document (log INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    -- A document's record, under an empty replica, and the standing of each author and peer: all that changes with each
    -- append, side by side.
    CREATE TABLE state (
        log INTEGER NOT NULL, replica BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (log, replica)
    ) STRICT, WITHOUT ROWID;
    -- The key is the log, shifted left, and the position of the first entry.
    CREATE TABLE chunk (key INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT;
    -- An author's ops from seq on, as far as the next row tells, are in this chunk.
    CREATE TABLE run (
        log INTEGER NOT NULL, author BLOB NOT NULL, seq INTEGER NOT NULL, chunk INTEGER NOT NULL,
        PRIMARY KEY (log, author, seq)
    ) STRICT, WITHOUT ROWID;
    -- Bodies too large for a chunk. The key is that of a chunk that would begin with the entry.
    CREATE TABLE piece (
        key INTEGER NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (key, number)
    ) STRICT, WITHOUT ROWID;
";

const SNAPSHOTS: &str = "
    -- Bytes of a snapshot, from one of them on. A document's record has the number of its own, and of one that is coming.
    CREATE TABLE snapshot (
        number INTEGER NOT NULL, start INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (number, start)
    ) STRICT, WITHOUT ROWID;
";

/// Whether there is a database in `file`. What is not antiphon's, or not yet known, is refused before SQLite, which
/// might write, has touched it.
pub(crate) fn inspect(file: &Path) -> Result<bool, Error> {
    let mut header = Vec::new();
    match File::open(file).and_then(|opened| opened.take(HEADER_BYTES).read_to_end(&mut header)) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(false),
        Err(source) => return Err(Error::Inaccessible { path: file.into(), source }),
    }
    let number = |at: usize| header.get(at..at + 4)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
    let magic = &header[..header.len().min(SQLITE_MAGIC.len())];
    if !SQLITE_MAGIC.starts_with(magic) {
        return Err(Error::Foreign { file: file.into() });
    }
    match (number(68), number(60)) {
        (None, _) | (_, None) => Err(Error::Damaged { file: file.into(), what: "it is cut off".into() }),
        (Some(APPLICATION_ID), Some(version)) if version > FORMAT_VERSION => {
            Err(Error::Newer { file: file.into(), version })
        }
        (Some(APPLICATION_ID), _) => Ok(true),
        (Some(_), _) => Err(Error::Foreign { file: file.into() }),
    }
}

const HEADER_BYTES: u64 = 100;
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// Brings a database, perhaps an empty one, to the newest format.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > FORMAT_VERSION {
        return Err(Fault::Newer(version)); // `inspect` sees the file alone, and this may still be in the log beside it
    }
    let done = usize::try_from(version).unwrap_or(0);
    let missing = STEPS.get(done..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if done == 0 {
        // Else free pages can't be given back. It writes, so not before the rest is written too.
        transaction.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    for step in missing {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    check(&transaction, "PRAGMA integrity_check")?;
    Ok(transaction.commit()?)
}

/// Checks what would be missed by nobody if it were gone: the identity and the list of documents. All else is checked
/// when it is read.
pub(crate) fn check_lists(connection: &Connection) -> Result<(), Fault> {
    for table in ["replica", "document"] {
        check(connection, &format!("PRAGMA integrity_check({table})"))?;
    }
    Ok(())
}

fn check(connection: &Connection, pragma: &str) -> Result<(), Fault> {
    let verdict: String = connection.query_row(pragma, [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
}
