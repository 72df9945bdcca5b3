//! Looking at a directory without holding it: nothing is written, and a holder goes on undisturbed.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon::op::{Cursor, DocumentId, Entry, ReplicaId};
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Identity, StoredDocument};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Fault};
use crate::storage::{DATABASE_NAME, LOCK_NAME};
use crate::{reading, schema, snapshot};

/// How often a look is taken again, if a holder came or went meanwhile.
const LOOKS_MAX: u32 = 16;
/// How long SQLite waits for locks that a holder has for moments.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// What a directory holds at one moment. See [`look`].
#[derive(Debug)]
pub struct View {
    connection: Connection,
    file: PathBuf,
}

/// Looks at what a directory holds, whether somebody has it open or not: all that `look` reads is of one moment. It may
/// be called again, with another view, if a holder came or went meanwhile.
///
/// Nothing is written to the database, its log, or the lock file, and the replica keeps its identity.
///
/// # Errors
/// Those of `look`, and if there is no sound database of this format, or it can't be read.
pub fn look<T>(directory: impl AsRef<Path>, mut look: impl FnMut(&View) -> Result<T, Error>) -> Result<T, Error> {
    let directory = directory.as_ref();
    let inaccessible = |path: &Path, source| Error::Inaccessible { path: path.into(), source };
    let file = fs::canonicalize(directory).map_err(|source| inaccessible(directory, source))?.join(DATABASE_NAME);
    let log = beside(&file, "-wal");
    for _ in 0..LOOKS_MAX {
        if let Err(source) = fs::metadata(&file) {
            let was_used = file.with_file_name(LOCK_NAME).exists();
            return Err(if was_used { Error::Missing { file } } else { inaccessible(&file, source) });
        }
        if !schema::inspect(&file)? {
            return Err(Error::Missing { file });
        }
        // Without a log the file is all there is, and can be read without a lock, for which SQLite would make files.
        // With one, SQLite sees to it that reader and writer don't meet.
        let alone = (!log.exists()).then(|| stamp(&file));
        let outcome = View::open(&file, alone.is_some()).and_then(|view| look(&view));
        if alone.is_none_or(|before| !log.exists() && stamp(&file) == before) {
            return outcome;
        }
    }
    Err(Error::InUse { directory: directory.into(), pid: None })
}

impl View {
    fn open(file: &Path, alone: bool) -> Result<Self, Error> {
        let connection = connect(file, alone).map_err(|fault| fault.of(file))?;
        Ok(Self { connection, file: file.into() })
    }

    fn read_with<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        read(&self.connection).map_err(|fault| fault.of(&self.file))
    }

    /// Who the replica is, if it was ever opened.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        self.read_with(reading::identity)
    }

    /// All documents, in order.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn documents(&self) -> Result<Vec<DocumentId>, Error> {
        self.read_with(reading::documents)
    }

    /// The state of a document; an unknown one is empty.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn document(&self, document: &DocumentId) -> Result<StoredDocument, Error> {
        self.read_with(|connection| reading::document(connection, document))
    }

    /// How far the logs of all peers are held in a document.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn cursors(&self, document: &DocumentId) -> Result<Vec<(ReplicaId, Cursor)>, Error> {
        self.read_with(|connection| reading::cursors(connection, document))
    }

    /// Entries from position `from` on, of at most `cost_max` together but at least one; none beyond the tail, or
    /// below the horizon.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn read(&self, document: &DocumentId, from: u64, cost_max: u64) -> Result<Vec<Entry>, Error> {
        self.read_with(|connection| reading::entries(connection, document, from, cost_max))
    }

    /// Bytes of a document's snapshot from `offset` on: at least one and at most `max`; none beyond the end, or if it has
    /// another one.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn snapshot(&self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Error> {
        self.read_with(|connection| snapshot::read(connection, document, id, offset, max))
    }
}

fn connect(file: &Path, alone: bool) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(address(file, alone), flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What is read first fixes the moment.
    connection.execute_batch("BEGIN")?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > schema::FORMAT_VERSION {
        return Err(Fault::Newer(version));
    }
    if version < schema::FORMAT_VERSION {
        return Err(Fault::Older(version));
    }
    Ok(connection)
}

/// The file's name as SQLite wants it where something is said about the file.
fn address(file: &Path, alone: bool) -> String {
    let mut address = String::from("file:");
    for byte in file.as_os_str().as_encoded_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        let _ = if plain { address.write_char((*byte).into()) } else { write!(address, "%{byte:02x}") }; // can't fail
    }
    address + if alone { "?immutable=1" } else { "" }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(suffix);
    name.into()
}

/// What changes when somebody writes to a file or puts another in its place.
fn stamp(file: &Path) -> Option<(u64, std::time::SystemTime, Option<std::time::SystemTime>)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok()?, metadata.created().ok()))
}
