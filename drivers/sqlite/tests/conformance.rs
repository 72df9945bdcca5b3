//! The storage passes the conformance suite, in each durability.

use antiphon_conformance::Harness;
use antiphon_sqlite::{Durability, Error, Options, SqliteStorage};
use tempfile::TempDir;

#[test]
fn conforms_with_commit() {
    antiphon_conformance::all(&mut Sqlite::new(Durability::Commit));
}

#[test]
fn conforms_with_fsync() {
    antiphon_conformance::all(&mut Sqlite::new(Durability::Fsync));
}

struct Sqlite {
    options: Options,
    directories: Vec<TempDir>,
}

impl Sqlite {
    fn new(durability: Durability) -> Self {
        Self { options: Options { durability, ..Options::default() }, directories: Vec::new() }
    }

    fn open(&self) -> SqliteStorage {
        let directory = self.directories.last().unwrap();
        SqliteStorage::open_directory(directory.path(), &self.options).unwrap()
    }
}

impl Harness for Sqlite {
    type Storage = SqliteStorage;

    fn fresh(&mut self) -> SqliteStorage {
        self.directories.push(TempDir::new().unwrap());
        self.open()
    }

    fn reopen(&mut self, storage: SqliteStorage) -> SqliteStorage {
        storage.close().unwrap();
        self.open()
    }

    /// What a killed process leaves: copies of its files while it still has them open.
    fn crash(&mut self, storage: SqliteStorage) -> Option<SqliteStorage> {
        let copy = TempDir::new().unwrap();
        for entry in std::fs::read_dir(self.directories.last()?).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        drop(storage);
        self.directories.push(copy);
        Some(self.open())
    }

    fn second_is_refused(&mut self, _: &mut SqliteStorage) -> Option<bool> {
        let second = SqliteStorage::open_directory(self.directories.last()?.path(), &self.options);
        Some(matches!(second, Err(Error::InUse { pid, .. }) if pid == Some(std::process::id())))
    }
}
