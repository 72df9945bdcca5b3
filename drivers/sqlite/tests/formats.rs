//! Databases of earlier formats are brought to the present one when they are opened, whole or not at all.

mod common;

use std::fs;
use std::path::Path;

use antiphon::op::DocumentId;
use antiphon::storage::{Storage, Transaction};
use antiphon_sqlite::{DATABASE_NAME, Error, FORMAT_VERSION, look};
use bytes::Bytes;
use common::{Script, open, refusal};
use rusqlite::Connection;
use tempfile::TempDir;

/// A database as the version before snapshots left it: 240 small ops, 2 whose bodies stand apart, and 30 that a reset put
/// aside, with 10 after it.
const FORMAT_1: &[u8] = include_bytes!("format-1.db");

fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(DATABASE_NAME), FORMAT_1).unwrap();
    directory
}

fn version(directory: &Path) -> i32 {
    let raw = Connection::open(directory.join(DATABASE_NAME)).unwrap();
    raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn all_that_is_in_format_1_is_there_afterwards_and_goes_on() {
    let directory = directory();
    assert_eq!(version(directory.path()), 1);
    let mut scripts = [Script::new("small", 20), Script::new("large", 5000), Script::new("gone", 25)];
    for _ in 0..2 {
        let mut storage = open(directory.path());
        assert!(storage.identity().unwrap().is_some());
        assert_eq!(storage.documents().unwrap().len(), 3);
        assert_eq!(scripts.each_mut().map(|script| script.resume(&mut storage)), [240, 2, 10]);
        let gone = &scripts[2].document;
        let state = storage.document(gone).unwrap();
        assert_eq!((state.aside, state.horizon, state.snapshot, state.staged), (Some((0, 30)), 0, None, None));
        let aside = storage.read_aside(gone, 0, u64::MAX).unwrap();
        assert_eq!(aside, Script::new("gone", 40).entries(30));
        storage.close().unwrap();
        assert_eq!(version(directory.path()), FORMAT_VERSION);
    }

    let mut storage = open(directory.path());
    for script in &mut scripts {
        storage.write(&script.write(5)).unwrap();
        let (document, body) = (script.document.clone(), Bytes::from_static(b"all before"));
        storage.write(&Transaction::Compact { document, horizon: 4, body }).unwrap();
    }
    drop(storage);
    let mut storage = open(directory.path());
    assert_eq!(scripts.map(|mut script| script.resume(&mut storage)), [245, 7, 15]);
}

#[test]
fn an_older_format_is_not_looked_at() {
    let directory = directory();
    let error = look(directory.path(), |view| view.documents()).unwrap_err();
    assert!(matches!(error, Error::Older { version: 1, .. }), "{error}");
    assert!(error.to_string().contains("open it once"), "{error}");
    assert!(fs::read(directory.path().join(DATABASE_NAME)).unwrap() == FORMAT_1, "it was touched");
}

#[test]
fn damage_is_noticed_and_leaves_the_older_format() {
    for what in ["replica = x''", "replica > x''"] {
        let directory = directory();
        let raw = Connection::open(directory.path().join(DATABASE_NAME)).unwrap();
        let changed =
            raw.execute(&format!("UPDATE state SET value = CAST(value || x'00' AS BLOB) WHERE {what}"), []).unwrap();
        assert!(changed > 0);
        drop(raw);
        let error = refusal(directory.path());
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert_eq!(version(directory.path()), 1);
        let raw = Connection::open(directory.path().join(DATABASE_NAME)).unwrap();
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'snapshot'";
        assert_eq!(raw.query_row(tables, [], |row| row.get(0)), Ok(0));
    }
}

#[test]
fn a_document_of_format_1_installs_a_snapshot() {
    let directory = directory();
    let mut storage = open(directory.path());
    let document: DocumentId = "gone".parse().unwrap();
    let (before, snapshot) = (storage.document(&document).unwrap(), common::snapshot(1, 200_000));
    for write in common::staging(&document, &snapshot, 60_000) {
        storage.write(&write).unwrap();
    }
    storage.write(&common::install(&document, 5)).unwrap();
    let state = storage.document(&document).unwrap();
    assert_eq!((before.aside, state.aside), (Some((0, 30)), Some((0, 40))), "what is aside");
    let aside = storage.read_aside(&document, 0, u64::MAX).unwrap();
    assert_eq!(aside[..10], Script::new("gone", 25).entries(10));
    assert_eq!(aside[10..], Script::new("gone", 40).entries(30));
    assert_eq!((&state.heads, state.snapshot), (snapshot.heads(), Some(snapshot.id())));
}
