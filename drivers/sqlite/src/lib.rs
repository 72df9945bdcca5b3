//! Storage for [antiphon] on disk: one SQLite database in a directory, with one holder at a time.
//!
//! ```
//! use antiphon::rng::Rng;
//! use antiphon::storage::Storage;
//! use antiphon_sqlite::{Options, SqliteStorage};
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path().join("data");
//! let mut entropy = Rng::new(1); // in earnest: from the system
//! let (mut storage, identity) = SqliteStorage::open_replica(&directory, &Options::default(), &mut entropy)?;
//! assert_eq!(storage.documents()?, []);
//! storage.close()?;
//!
//! let (_, again) = SqliteStorage::open_replica(&directory, &Options::default(), &mut entropy)?;
//! assert_eq!(again.replica, identity.replica);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! - **A write is whole or not at all**, with its entries, heads, cursors and timeline, and never without those before
//!   it. [`execute_all`] makes the writes of many documents durable together; one that is refused does not take the
//!   others with it.
//! - **What was acknowledged stays.** With [`Durability::Commit`] it survives the end of the process, also by SIGKILL;
//!   a loss of power may take back what was not yet [synced](antiphon::storage::Storage::sync). With
//!   [`Durability::Fsync`] it survives a loss of power too. [`wire::Durability`] of either is what sessions tell peers.
//! - **One holder.** A directory that is open is refused, in the same process and in others, with the holder's process
//!   id. The lock ends with its process, however that ends.
//! - **What is read is what was written.** Every value has a checksum over itself and its key, every body is hashed,
//!   and what is missing is missed: damage is an [`Error`], not data.
//! - **What is not its own is left alone**: other files, and databases of later versions.
//! - **A replica keeps its id only if [continuity](SqliteStorage::continuity) is proven.** In a directory that was
//!   copied, or restored from a backup in whatever way, it is another one. Only a rollback of the whole file system or
//!   machine can't be seen.
//! - **It can be looked at** with [`look`], by whoever may read it, also while it is open; that changes nothing.
//! - **Memory is bounded**: by [`Options::cache_max`], and by what one read asks for. A body is in memory only when it
//!   is read, and a snapshot that comes from a peer never as a whole: it is staged, checked and read row by row, and
//!   installed where it stands.
//! - **A compaction makes room.** What the entries, and the snapshot before, took is used for whatever is written next, also
//!   by the compaction itself. The file does not shrink; it stays as large as it ever had to be. Of the ops below the
//!   horizon up to some two hundred small ones, those of one row, may still stand in the file until the next compaction, and
//!   others until their room is used; they can't be read any more.
//!
//! Backups can be made while the directory is open, by whatever speaks SQLite (`sqlite3 antiphon.db ".backup FILE"`). A
//! backup is restored into an empty directory, under the name [`DATABASE_NAME`].
//!
//! [`execute_all`]: antiphon::storage::Storage::execute_all
//! [`wire::Durability`]: antiphon::wire::Durability

mod chunk;
mod compaction;
mod error;
mod finding;
mod former;
mod hold;
mod reading;
mod schema;
mod seal;
mod snapshot;
mod storage;
mod view;
mod writing;

pub use error::{Error, Refusal};
pub use schema::{APPLICATION_ID, FORMAT_VERSION, PAGE_BYTES};
pub use storage::{DATABASE_NAME, Durability, LOCK_NAME, Options, SqliteStorage};
pub use view::{View, look};
