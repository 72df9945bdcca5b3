//! The storage: a directory with a database, opened by one holder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon::digest::Chain;
use antiphon::heads::Heads;
use antiphon::log::Comparison;
use antiphon::op::{Cursor, DocumentId, Entry, OpId, ReplicaId};
use antiphon::rng::Rng;
use antiphon::snapshot::SnapshotId;
use antiphon::storage::{Continuity, Identity, Reply, Request, Storage, StoredDocument, Transaction};
use antiphon::wire;
use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::error::{Error, Fault};
use crate::hold::Hold;
use crate::reading::{self, Collected, Found};
use crate::{compaction, finding, schema, snapshot, writing};

/// The name of the database in its directory. SQLite keeps two more files beside it while it is open.
pub const DATABASE_NAME: &str = "antiphon.db";

/// The name of the file that is locked, and that tells who has the directory.
pub const LOCK_NAME: &str = "antiphon.lock";

/// What a write survives once it is acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Durability {
    /// The end of the process, by whatever signal. A loss of power, or a crash of the system, may take the last writes
    /// back, in their order, down to the last [`sync`](Storage::sync); what is left is whole. SQLite's
    /// `synchronous=NORMAL`.
    #[default]
    Commit,
    /// A loss of power as well, as far as disk and file system keep what they say. Each group of writes costs a sync.
    /// SQLite's `synchronous=FULL`.
    Fsync,
}

impl From<Durability> for wire::Durability {
    /// What a session may tell its peer.
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Commit => Self::Commit,
            Durability::Fsync => Self::Fsync,
        }
    }
}

/// How a directory is opened.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Options {
    /// What a write survives. Default: [`Durability::Commit`].
    pub durability: Durability,
    /// Bytes of the database that are kept in memory. Default 16 MiB.
    pub cache_max: usize,
    /// Bytes that are written before the write-ahead log is moved into the database. Default 16 MiB. The log gets longer
    /// only by single groups of writes that are.
    pub log_max: usize,
    /// Pages, of [`PAGE_BYTES`](crate::PAGE_BYTES), that the database may have; writes that need more fail. Default:
    /// 2^32 - 2, SQLite's own limit.
    pub pages_max: u32,
    /// How long to wait for another program that has the database locked, say to make a backup. Default 5 s.
    pub busy_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Commit,
            cache_max: 16 << 20,
            log_max: 16 << 20,
            pages_max: u32::MAX - 1,
            busy_max: Duration::from_secs(5),
        }
    }
}

/// Statements that are kept prepared: all there are.
const STATEMENTS_MAX: usize = 64;

/// A data directory in use. Dropping it closes it in order; [`close`](Self::close) also tells how that went.
#[derive(Debug)]
pub struct SqliteStorage {
    // Before the lock: it is dropped first.
    connection: Connection,
    hold: Hold,
    file: PathBuf,
    durability: Durability,
    continuity: Continuity,
    closed: bool,
}

impl SqliteStorage {
    /// Takes a directory into use, and makes what is missing of it.
    ///
    /// # Errors
    /// If somebody has it, if it can't be made, read or written, or if what is there is not a sound database of this
    /// format; that is left as it is.
    pub fn open_directory(directory: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let directory = directory.as_ref();
        let file = directory.join(DATABASE_NAME);
        let inaccessible = |source| Error::Inaccessible { path: directory.into(), source };
        // Before anything is made: where something else is, that stays alone. Again when nobody can change it any more.
        schema::inspect(&file)?;
        fs::create_dir_all(directory).map_err(inaccessible)?;
        let mut hold = Hold::take(directory, directory.join(LOCK_NAME), file.clone())?;
        if !schema::inspect(&file)? && hold.was_used() {
            return Err(Error::Missing { file });
        }
        let fits = hold.fits();
        let connection = connect(&file, options).map_err(|fault| fault.of(&file))?;
        let timeline = reading::identity(&connection).map_err(|fault| fault.of(&file))?;
        let timeline = timeline.map(|identity| identity.opens.current());
        let continuity = fits(timeline);
        hold.begin(options.durability.into(), timeline.filter(|_| continuity == Continuity::Proven))?;
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(inaccessible)?;
        Ok(Self { connection, hold, file, durability: options.durability, continuity, closed: false })
    }

    /// Takes a directory into use for a replica: the storage, and the replica's next identity, which is a new one
    /// unless [`continuity`](Self::continuity) is proven. `entropy` must come from the system.
    ///
    /// # Errors
    /// Those of [`open_directory`](Self::open_directory), and if the identity can't be written.
    pub fn open_replica(
        directory: impl AsRef<Path>,
        options: &Options,
        entropy: &mut Rng,
    ) -> Result<(Self, Identity), Error> {
        let mut storage = Self::open_directory(directory, options)?;
        let identity = storage.open(storage.continuity, entropy)?;
        Ok((storage, identity))
    }

    /// Whether the directory was, when it was opened, surely what its last holder left: the same file, not touched
    /// since, on the same machine; and closed in order, or not rebooted since, or each write synced.
    pub fn continuity(&self) -> Continuity {
        self.continuity
    }

    /// What a write survives.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The database's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How far the logs of all peers are held in a document.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn cursors(&mut self, document: &DocumentId) -> Result<Vec<(ReplicaId, Cursor)>, Error> {
        self.look(|connection| reading::cursors(connection, document))
    }

    /// Closes in order: all is synced, and the next holder can tell.
    ///
    /// # Errors
    /// If that is not sure. What was written is still as durable as it was promised to be.
    pub fn close(mut self) -> Result<(), Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.closed = true;
        // Nothing is left for SQLite to write when it closes, so that the file stays what the lock file says.
        checkpoint(&self.connection, "TRUNCATE").map_err(|fault| fault.of(&self.file))?;
        self.hold.close()
    }

    fn look<T>(&self, look: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        look(&self.connection).map_err(|fault| fault.of(&self.file))
    }

    /// Runs `act` in a transaction of SQLite's, which is undone if it fails.
    fn transact<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.look(|connection| run(connection, "BEGIN IMMEDIATE"))?;
        let done = act(self).and_then(|done| {
            self.look(|connection| run(connection, "COMMIT"))?;
            Ok(done)
        });
        if done.is_err() && !self.connection.is_autocommit() {
            // Fails only if SQLite has rolled back by itself.
            let _ = run(&self.connection, "ROLLBACK");
        }
        self.hold.written();
        done
    }

    /// Writes within a transaction. The outer error is that of the transaction, the inner one of this write alone.
    fn put(&mut self, write: &Transaction) -> Result<Result<(), Error>, Error> {
        let plan = match self.look(|connection| writing::plan(connection, write)) {
            Ok(plan) => plan,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Transaction::Identity(identity) = write {
            // Before it is sure. If it does not come to be, the traces don't fit, and that is the safe side.
            self.hold.identified(identity.opens.current())?;
        }
        self.look(|connection| Ok(plan.carry_out(connection)?))?;
        Ok(Ok(()))
    }
}

impl SqliteStorage {
    /// What is to be done after a write was committed: what takes something away that exists nowhere else is synced,
    /// whatever is promised, and its room is given back.
    fn conclude(&mut self, write: &Transaction) -> Result<(), Error> {
        if !matches!(write, Transaction::Compact { .. } | Transaction::Install { .. }) {
            return Ok(());
        }
        if matches!(write, Transaction::Compact { .. }) {
            self.sync()?;
        }
        // If it fails, say because the disk is full, the pages are used again later.
        let _ = give_back(&self.connection);
        self.hold.written();
        Ok(())
    }
}

impl Drop for SqliteStorage {
    fn drop(&mut self) {
        if !self.closed {
            // Nobody is left who could be told. What was written is as durable as it was promised to be, and the next
            // holder sees that this one did not close in order.
            let _ = self.finish();
        }
    }
}

impl Storage for SqliteStorage {
    type Error = Error;

    fn identity(&mut self) -> Result<Option<Identity>, Error> {
        self.look(reading::identity)
    }

    fn documents(&mut self) -> Result<Vec<DocumentId>, Error> {
        self.look(reading::documents)
    }

    fn document(&mut self, document: &DocumentId) -> Result<StoredDocument, Error> {
        self.look(|connection| reading::document(connection, document))
    }

    fn cursor(&mut self, document: &DocumentId, peer: ReplicaId) -> Result<Option<Cursor>, Error> {
        self.look(|connection| match reading::find(connection, document)? {
            None => Ok(None),
            Some(Found { log, .. }) => Ok(reading::standing(connection, log, peer)?.cursor),
        })
    }

    fn read(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Error> {
        self.look(|connection| reading::entries(connection, document, from, max_cost))
    }

    fn read_aside(&mut self, document: &DocumentId, from: u64, max_cost: u64) -> Result<Vec<Entry>, Error> {
        self.look(|connection| {
            let mut collected = Collected::new(max_cost);
            if let Some(Found { record, .. }) = reading::find(connection, document)? {
                reading::read_aside(connection, &record.shelves, from, &mut collected)?;
            }
            Ok(collected.entries)
        })
    }

    fn chain(&mut self, document: &DocumentId, id: OpId) -> Result<Option<Chain>, Error> {
        self.look(|connection| match reading::find(connection, document)? {
            None => Ok(None),
            Some(Found { log, .. }) => finding::chain(connection, log, id),
        })
    }

    fn snapshot(&mut self, document: &DocumentId, id: SnapshotId, offset: u64, max: u64) -> Result<Bytes, Error> {
        self.look(|connection| snapshot::read(connection, document, id, offset, max))
    }

    fn heads_at(&mut self, document: &DocumentId, position: u64) -> Result<Heads, Error> {
        self.look(|connection| match reading::find(connection, document)? {
            None => Ok(Heads::new()),
            Some(found) => compaction::heads_at(connection, &found, position),
        })
    }

    fn compare(&mut self, document: &DocumentId, heads: &Heads) -> Result<Comparison, Error> {
        self.look(|connection| match reading::find(connection, document)? {
            None => Ok(Comparison::default()),
            Some(found) => finding::compare(connection, &found, heads),
        })
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.transact(|storage| storage.put(transaction))??;
        self.conclude(transaction)
    }

    /// The writes share a transaction of SQLite's, and with [`Durability::Fsync`] its sync. A write that is refused is
    /// left out of it. If the transaction fails, for instance because the disk has no room for all, each request is
    /// carried out by itself.
    fn execute_all(&mut self, requests: &[Request]) -> Vec<Result<Reply, Error>> {
        let writes = requests.iter().filter(|request| matches!(request, Request::Write(_))).count();
        let grouped = (writes > 1).then(|| {
            self.transact(|storage| {
                let outcomes = requests.iter().map(|request| match request {
                    Request::Write(write) => Ok(storage.put(write)?.map(|()| Reply::Written)),
                    _ => Ok(storage.execute(request)),
                });
                outcomes.collect::<Result<Vec<_>, _>>()
            })
        });
        match grouped {
            Some(Ok(mut outcomes)) => {
                for (request, outcome) in requests.iter().zip(&mut outcomes) {
                    if let (Ok(Reply::Written), Request::Write(write)) = (&outcome, request) {
                        *outcome = self.conclude(write).map(|()| Reply::Written);
                    }
                }
                outcomes
            }
            _ => requests.iter().map(|request| self.execute(request)).collect(),
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        match self.durability {
            Durability::Fsync => Ok(()), // so is each write
            Durability::Commit => {
                let synced = self.look(|connection| checkpoint(connection, "FULL"));
                self.hold.written();
                synced
            }
        }
    }
}

/// Pages that are kept for what comes next, where the file has many that are free: as many as are in use, but at least
/// these.
const FREE_PAGES_MIN: i64 = 256;

/// Gives pages that are free back to the file system, once most of them are. A database that was made without that
/// keeps them, and uses them again.
fn give_back(connection: &Connection) -> Result<(), Fault> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (pages, free) = (number("page_count")?, number("freelist_count")?);
    let spare = free - (pages - free).max(FREE_PAGES_MIN);
    if spare > 0 {
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({spare})"))?;
        let mut freed = statement.query([])?;
        while freed.next()?.is_some() {} // each is a page
    }
    Ok(())
}

/// Opens the database, or makes it.
fn connect(file: &Path, options: &Options) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(options.busy_max)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Else some statements are prepared again for each value that they are given.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let set =
        |connection: &Connection, name, value: i64| connection.pragma_update_and_check(None, name, value, |_| Ok(()));
    connection.pragma_update(None, "page_size", schema::PAGE_BYTES as i64)?; // of a new database
    connection.pragma_update(None, "cache_size", -((options.cache_max >> 10) as i64))?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    set(&connection, "mmap_size", 0)?;
    if connection.is_readonly("main")? {
        return Err(Fault::Sqlite(failure(ffi::SQLITE_READONLY)));
    }
    schema::migrate(&mut connection)?;
    schema::check_lists(&connection)?;
    // A new database has its format and its mark in the file itself by now, not in the write-ahead log alone.
    set(&connection, "max_page_count", options.pages_max.into())?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Fault::damaged(format_args!("it can't have a write-ahead log, only a journal of mode {mode}"));
    }
    set(&connection, "wal_autocheckpoint", (options.log_max / schema::PAGE_BYTES).max(1) as i64)?;
    set(&connection, "journal_size_limit", options.log_max as i64)?;
    let synchronous = match options.durability {
        Durability::Commit => "NORMAL",
        Durability::Fsync => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    Ok(connection)
}

fn run(connection: &Connection, statement: &str) -> Result<(), Fault> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// Syncs the write-ahead log, moves all of it into the database, and syncs that.
fn checkpoint(connection: &Connection, mode: &str) -> Result<(), Fault> {
    let busy: bool = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))?;
    if busy {
        return Err(Fault::Sqlite(failure(ffi::SQLITE_BUSY)));
    }
    Ok(())
}

/// What SQLite would have answered.
fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}
