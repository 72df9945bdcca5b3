//! Group commit: many writes in one transaction, of which each has its own fate.

mod common;

use antiphon::storage::{Reply, Request, Storage};
use antiphon_sqlite::{DATABASE_NAME, Error, Options, Refusal, SqliteStorage};
use common::{Script, open};
use rusqlite::Connection;
use tempfile::TempDir;

#[test]
fn a_refused_write_does_not_take_the_others_with_it() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let mut scripts = ["first", "second", "third"].map(|name| Script::new(name, 30));
    let mut group = scripts.each_mut().map(|script| script.request(5));
    group[1] = scripts[1].request(5); // those after the first five
    let outcomes = storage.execute_all(&group);
    assert!(matches!(outcomes[0], Ok(Reply::Written)));
    let refused = outcomes[1].as_ref().unwrap_err();
    assert!(matches!(refused, Error::Refused(Refusal::WrongPosition { position: 5, tail: 0, .. })), "{refused}");
    assert!(matches!(outcomes[2], Ok(Reply::Written)));
    drop(storage);
    let mut storage = open(directory.path());
    assert_eq!(scripts.each_mut().map(|script| script.resume(&mut storage)), [5, 0, 5]);
}

/// A write that finds no room fails by itself, although it shares its transaction with others that do.
#[test]
fn a_write_that_finds_no_room_does_not_take_the_others_with_it() {
    let directory = TempDir::new().unwrap();
    let options = Options { pages_max: 1024, ..Options::default() };
    let mut storage = SqliteStorage::open_directory(directory.path(), &options).unwrap();
    let mut scripts = [Script::new("small", 30), Script::new("large", 8 << 20), Script::new("last", 30)];
    let group = scripts.each_mut().map(|script| script.request(1));
    let outcomes = storage.execute_all(&group);
    assert!(matches!(outcomes[0], Ok(Reply::Written)));
    let told = outcomes[1].as_ref().unwrap_err().to_string();
    assert!(told.contains("make room, nothing that was written before is lost"), "{told}");
    assert!(matches!(outcomes[2], Ok(Reply::Written)));
    drop(storage);
    let mut storage = open(directory.path());
    assert_eq!(scripts.each_mut().map(|script| script.resume(&mut storage)), [1, 0, 1]);
}

/// SQLite undoes some failures by itself, but not one of a row that is there already.
#[test]
fn a_write_that_fails_half_way_leaves_nothing_and_does_not_keep_the_next_from_its_place() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let mut scripts = ["first", "second"].map(|name| Script::new(name, 30));
    storage.write(&scripts[0].write(5)).unwrap();
    let raw = Connection::open(directory.path().join(DATABASE_NAME)).unwrap();
    let author = scripts[1].author.0;
    raw.execute("INSERT INTO run (log, author, seq, chunk) VALUES (2, ?1, 1, 0)", [author]).unwrap();
    let before = storage.documents().unwrap();
    let failed = storage.write(&scripts[1].write(3)).unwrap_err();
    assert!(matches!(failed, Error::Failed { .. }), "{failed}");
    assert_eq!(storage.documents().unwrap(), before);

    raw.execute("DELETE FROM run WHERE log = 2 AND author = ?1", [author]).unwrap();
    assert_eq!(scripts.each_mut().map(|script| script.resume(&mut storage)), [5, 0]);
    let group = scripts.each_mut().map(|script| script.request(3));
    assert!(storage.execute_all(&group).iter().all(Result::is_ok));
    drop(storage);
    let mut storage = open(directory.path());
    assert_eq!(scripts.each_mut().map(|script| script.resume(&mut storage)), [8, 3]);
}

/// One transaction of SQLite's is one stretch of its log: ten writes together take less of it than one by one.
#[test]
fn a_group_is_one_transaction() {
    let log_of = |write: fn(&mut SqliteStorage, &[Request])| {
        let directory = TempDir::new().unwrap();
        let mut storage = open(directory.path());
        let scripts = (0..10).map(|number| Script::new(&format!("doc {number}"), 30));
        write(&mut storage, &scripts.map(|mut script| script.request(1)).collect::<Vec<_>>());
        std::fs::metadata(directory.path().join("antiphon.db-wal")).unwrap().len()
    };
    let together = log_of(|storage, requests| assert!(storage.execute_all(requests).iter().all(Result::is_ok)));
    let single = log_of(|storage, requests| {
        requests.iter().for_each(|request| assert_eq!(storage.execute(request).unwrap(), Reply::Written));
    });
    assert!(together * 4 < single, "{together} bytes together, {single} one by one");
}
