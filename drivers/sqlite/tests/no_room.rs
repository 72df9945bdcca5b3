//! Disks that are full, and directories that can't be written: one clear error, and nothing that was written is lost.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

use antiphon::storage::Storage;
use antiphon_sqlite::{DATABASE_NAME, Error, Options, PAGE_BYTES, SqliteStorage};
use common::{Script, Told, child_command, child_directory, child_under_shell, open};
use tempfile::TempDir;

#[test]
fn a_full_disk_fails_writes_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let options = Options { pages_max: 200, ..Options::default() };
    let mut storage = SqliteStorage::open_directory(directory.path(), &options).unwrap();
    let mut scripts = [Script::new("small", 100), Script::new("large", 10_000)];
    let mut tails = [0, 0];
    for (script, tail) in scripts.iter_mut().zip(&mut tails) {
        let error = loop {
            match storage.write(&script.write(7)) {
                Ok(()) => *tail += 7,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("make room"), "{error}");
        assert!(error.to_string().contains(DATABASE_NAME), "{error}");
        assert_eq!(script.resume(&mut storage), *tail, "what is there after it failed");
    }
    assert!(tails[0] > 1000, "{tails:?}");
    storage.close().unwrap();
    assert!(fs::metadata(directory.path().join(DATABASE_NAME)).unwrap().len() <= 200 * PAGE_BYTES as u64);
    // With more room it goes on.
    let mut storage = open(directory.path());
    for (script, tail) in scripts.iter_mut().zip(tails) {
        assert_eq!(script.resume(&mut storage), tail);
        storage.write(&script.write(7)).unwrap();
        assert_eq!(script.resume(&mut storage), tail + 7);
    }
}

/// The limit falls on the log, on the database when the log is moved into it, or on both.
#[test]
fn a_limit_on_files_fails_writes_and_loses_nothing() {
    for kilobytes in [100, 300, 1000] {
        let directory = TempDir::new().unwrap();
        let before = format!("trap '' XFSZ; ulimit -f {}", kilobytes * 2);
        let mut child = Told::spawn(child_under_shell(&before, "writes_until_it_fails", directory.path()));
        let tail: u64 = child.hear("written").unwrap().parse().unwrap();
        let told = child.hear("failed").unwrap();
        assert!(child.child.wait().unwrap().success());
        assert!(told.contains(DATABASE_NAME), "{told}");
        assert!(told.contains("make room") || told.contains("whether it is full"), "{told}");
        let mut script = Script::new("doc", 100);
        let mut storage = open(directory.path());
        assert_eq!(script.resume(&mut storage), tail);
        storage.write(&script.write(1000)).unwrap();
    }
}

#[test]
fn writes_until_it_fails() {
    let Some(directory) = child_directory() else { return };
    let options = Options { log_max: 64 << 10, ..Options::default() };
    let mut storage = SqliteStorage::open_directory(directory, &options).unwrap();
    let mut script = Script::new("doc", 100);
    let mut tail = 0;
    let error = loop {
        match storage.write(&script.write(10)) {
            Ok(()) => tail += 10,
            Err(error) => break error,
        }
    };
    assert_eq!(script.resume(&mut storage), tail);
    eprintln!("written {tail}\nfailed {error}");
}

/// What is opened by somebody who may not write there.
fn as_a_stranger(directory: &Path) -> String {
    let mut command = child_command("tells_why_it_does_not_open", directory);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534); // root may write everywhere
    }
    Told::spawn(command).hear("refused").expect("it was opened")
}

#[test]
fn tells_why_it_does_not_open() {
    let Some(directory) = child_directory() else { return };
    match SqliteStorage::open_directory(directory, &Options::default()) {
        Ok(_) => eprintln!("opened"),
        Err(error) => eprintln!("refused {error}"),
    }
}

#[test]
fn a_directory_that_is_read_only_is_refused() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("data");
    let permit = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    drop(open(&directory));
    let database = directory.join(DATABASE_NAME);
    permit(place.path(), 0o755);
    let files = || fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    files().for_each(|file| permit(&file, 0o444));
    permit(&directory, 0o555);
    let before = fs::read(&database).unwrap();
    let told = as_a_stranger(&directory);
    assert!(told.contains("must be readable and writable by this user"), "{told}");

    // Only the database is read-only.
    permit(&directory, 0o777);
    files().filter(|file| *file != database).for_each(|file| permit(&file, 0o666));
    let told = as_a_stranger(&directory);
    assert!(told.contains(DATABASE_NAME) && told.contains("must be writable by this user"), "{told}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

#[test]
fn a_directory_that_can_not_be_made_is_refused() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("file"), "x").unwrap();
    let directory = place.path().join("file/data");
    let error = common::refusal(&directory);
    assert!(matches!(&error, Error::Inaccessible { path, .. } if *path == directory), "{error}");
}
