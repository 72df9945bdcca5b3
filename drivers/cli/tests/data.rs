//! Data directories that can't be used, or not any more: every command that takes one says so in one line with the
//! remedy, and leaves it as it is.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use antiphon::rng::Rng;
use antiphon_sqlite::{DATABASE_NAME, FORMAT_VERSION, LOCK_NAME};
use common::demand::{demand, line};
use common::{Process, Scratch, Server, bodies, run, text};
use rustix::process::Signal;

/// All commands that open a data directory, and one that only looks.
fn commands(data: &str) -> [Vec<&str>; 5] {
    const NOWHERE: &str = "ws://127.0.0.1:9";
    [
        vec!["serve", "--listen", "127.0.0.1:0", "--data", data],
        vec!["append", "notes", "--data", data],
        vec!["tail", "notes", "--data", data, "--connect", NOWHERE],
        vec!["sync", "notes", "--data", data, "--connect", NOWHERE],
        vec!["log", "notes", "--data", data],
    ]
}

/// The files of a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    files.map(|file| (file.clone(), fs::read(file).expect("it can be read"))).collect()
}

/// Demands that every command refuses a directory, and that none changes it.
fn refused_by_all(directory: &Path, kind: &str, words: &[&str]) {
    let before = files(directory);
    for arguments in commands(text(directory)) {
        demand(&arguments, 1, kind, words);
        assert!(files(directory) == before, "{arguments:?} left traces");
    }
}

/// A directory that was used, and closed.
fn used(scratch: &Scratch, name: &str) -> PathBuf {
    let lines: String = LINES.map(|number| format!("line {number}\n")).collect();
    run(&["append", "notes", "--data", &scratch.name(name)], lines).good();
    scratch.path(name)
}

const LINES: std::ops::Range<usize> = 0..500;

/// Changes the database's file.
fn spoil(directory: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let file = directory.join(DATABASE_NAME);
    let mut bytes = fs::read(&file).expect("it can be read");
    how(&mut bytes);
    fs::write(file, bytes).expect("it can be written");
}

#[test]
fn what_is_no_directory() {
    let scratch = Scratch::new();
    let file = scratch.name("file");
    fs::write(&file, "a file").expect("it can be written");
    for data in [&file, &format!("{file}/below")] {
        for arguments in commands(data) {
            demand(&arguments, 1, "data_inaccessible", &[data, "--data"]);
        }
    }
    demand(&["log", "notes", "--data", &scratch.name("none")], 1, "data_inaccessible", &["none", "--data"]);
    assert!(!scratch.path("none").exists(), "to look at a directory does not make it");
}

#[test]
fn what_is_something_else() {
    let scratch = Scratch::new();
    for (name, content) in [("list", "a shopping list, and no database"), ("empty", "SQLite format 2\0")] {
        let directory = scratch.path(name);
        fs::create_dir(&directory).expect("it can be made");
        fs::write(directory.join(DATABASE_NAME), content).expect("it can be written");
        refused_by_all(&directory, "data_foreign", &["not a database of antiphon", "--data"]);
    }
    let other = scratch.path("other");
    fs::create_dir(&other).expect("it can be made");
    let database = rusqlite::Connection::open(other.join(DATABASE_NAME)).expect("a database");
    database.execute_batch("CREATE TABLE songs (title TEXT)").expect("it can be written");
    drop(database);
    refused_by_all(&other, "data_foreign", &["not a database of antiphon", "--data"]);
}

#[test]
fn what_a_later_version_has_written() {
    let scratch = Scratch::new();
    let directory = used(&scratch, "data");
    let version = |version: i32| {
        let database = rusqlite::Connection::open(directory.join(DATABASE_NAME)).expect("a database");
        database.pragma_update(None, "user_version", version).expect("it can be written");
    };
    version(FORMAT_VERSION + 1);
    refused_by_all(&directory, "data_newer", &["later version", "--data"]);
    version(FORMAT_VERSION);
    assert_eq!(bodies(&directory, "notes").len(), LINES.len());
    demand(&["log", "other", "--data", text(&directory)], 1, "unknown_document", &["other", "notes"]);
}

#[test]
fn what_is_gone_or_cut_off() {
    let scratch = Scratch::new();
    for length in [50, 99, 4096, 8192, 20_000] {
        let directory = used(&scratch, &format!("cut {length}"));
        spoil(&directory, |bytes| bytes.truncate(length));
        refused_by_all(&directory, "data_damaged", &[DATABASE_NAME, "is damaged", "restore a backup"]);
    }
    for gone in [true, false] {
        let directory = used(&scratch, &format!("gone {gone}"));
        let file = directory.join(DATABASE_NAME);
        if gone {
            fs::remove_file(file).expect("it is there")
        } else {
            spoil(&directory, Vec::clear)
        }
        refused_by_all(&directory, "data_missing", &[DATABASE_NAME, "restore a backup", "--data"]);
    }
}

#[test]
fn flipped_bits_are_told_or_harmless() {
    let scratch = Scratch::new();
    let sound = used(&scratch, "sound");
    let lines: Vec<_> = LINES.map(|number| format!("line {number}")).collect();
    let (mut dice, mut told) = (Rng::new(11), 0);
    for round in 0..60 {
        let directory = scratch.path(&round.to_string());
        fs::create_dir(&directory).expect("it can be made");
        for name in [DATABASE_NAME, LOCK_NAME] {
            fs::copy(sound.join(name), directory.join(name)).expect("it can be copied");
        }
        spoil(&directory, |bytes| {
            // Every other one where SQLite keeps what it needs to find anything.
            let byte = dice.below(if round % 2 == 0 { 4096 } else { bytes.len() as u64 });
            bytes[byte as usize] ^= 1 << dice.below(8);
        });
        let appended = run(&["append", "notes", "--data", text(&directory)], "one more\n");
        let mut expected = lines.clone();
        match appended.code {
            Some(0) => expected.push("one more".into()),
            _ => {
                line(&appended, 1, &[DATABASE_NAME]);
                // A bit of the marks at its beginning makes something else of it.
                let said = ["is damaged", "not a database of antiphon", "later version"];
                assert!(said.iter().any(|said| appended.stderr.contains(said)), "{}", appended.stderr);
            }
        }
        let held = antiphon_sqlite::look(&directory, |view| view.read(&"notes".parse().expect("a name"), 0, 1 << 30));
        match held {
            Err(_) => told += 1,
            Ok(entries) => {
                let held = entries.iter().map(|entry| entry.op.body.bytes().expect("no blank"));
                assert!(held.eq(&expected), "round {round}: other lines than were written");
            }
        }
    }
    assert!(told > 5, "only {told} of 60 flips were noticed");
}

#[test]
fn damage_under_a_server_is_told_to_those_who_ask_and_to_the_log() {
    let scratch = Scratch::new();
    let directory = used(&scratch, "data");
    spoil(&directory, |bytes| {
        let body = b"line 123";
        // Also where it stood before its page was written anew.
        let found: Vec<_> = (0..bytes.len() - body.len()).filter(|at| bytes[*at..].starts_with(body)).collect();
        found.into_iter().for_each(|at| bytes[at] ^= 1);
    });
    let server = Server::on(&directory);
    let tail = ["tail", "notes", "--connect", &server.url, "--timeout", "1"];
    line(&run(&tail, ""), 3, &["STORAGE_FAILED", "call again"]);
    // Others than this one are served.
    run(&["append", "other", "--connect", &server.url], "1\n").good();
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("is damaged") && ended.stderr.contains("restore a backup"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_directory_in_use_names_its_holder() {
    let scratch = Scratch::new();
    let server = Server::on(&scratch.path("data"));
    let (pid, data) = (server.process.child.id().to_string(), scratch.name("data"));
    for arguments in commands(&data).iter().filter(|arguments| arguments[0] != "log") {
        demand(arguments, 1, "data_in_use", &[&pid, "--data"]);
    }
    // So does a command, as long as its stdin is open; it then goes on undisturbed.
    let mut appending = Process::start(&["append", "notes", "--data", &scratch.name("mine")]);
    std::io::Write::write_all(appending.stdin.as_mut().expect("piped"), b"1\n").expect("it reads");
    let pid = appending.child.id().to_string();
    while run(&["log", "notes", "--data", &scratch.name("mine")], "").code != Some(0) {}
    demand(&["append", "notes", "--data", &scratch.name("mine")], 1, "data_in_use", &[&pid, "--data"]);
    assert_eq!(appending.end().good(), "notes: 1 op appended, 1 durable here\n");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().code, Some(0));
}
