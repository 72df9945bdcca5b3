//! One holder at a time: within a process, between processes, and after a holder was killed.

mod common;

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use antiphon_sqlite::{Error, LOCK_NAME};
use common::{Told, child_command, child_directory, open, refusal};
use tempfile::TempDir;

#[test]
fn a_second_holder_in_the_process_is_told_the_pid() {
    let directory = TempDir::new().unwrap();
    let storage = open(directory.path());
    thread::scope(|scope| {
        let told = scope.spawn(|| refusal(directory.path()).to_string()).join().unwrap();
        let path = directory.path().display();
        let pid = std::process::id();
        assert_eq!(told, format!("{path} is in use by process {pid}; end it, or use another directory"));
    });
    drop(storage);
    open(directory.path());
}

#[test]
fn a_second_process_is_told_the_pid_until_the_first_is_killed() {
    let directory = TempDir::new().unwrap();
    let mut holder = Told::spawn(child_command("holds_until_it_is_killed", directory.path()));
    assert!(holder.hear("open").is_some());
    let id = holder.child.id();
    match refusal(directory.path()) {
        Error::InUse { pid, directory: named } => {
            assert_eq!((pid, named.as_path()), (Some(id), directory.path()));
        }
        other => panic!("{other}"),
    }
    holder.kill("");
    let left = std::fs::read_to_string(directory.path().join(LOCK_NAME)).unwrap();
    assert!(left.contains(&format!("pid {id}\n")), "the killed process has not taken its id away");
    let storage = open(directory.path());
    let Error::InUse { pid, .. } = refusal(directory.path()) else { panic!("opened twice") };
    assert_eq!(pid, Some(std::process::id()), "the id of the holder before");
    drop(storage);
}

/// What is forked to start another program has all open files for a moment, and with them the lock.
#[test]
fn closing_gives_the_directory_free_while_other_programs_are_started() {
    let directory = TempDir::new().unwrap();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !enough.load(Ordering::SeqCst) {
                    assert!(child_command("holds_until_it_is_killed", directory.path()).arg("--list").output().is_ok());
                }
            });
        }
        let opened = panic::catch_unwind(|| (0..100).for_each(|_| drop(open(directory.path()))));
        enough.store(true, Ordering::SeqCst);
        opened.unwrap();
    });
}

#[test]
fn holds_until_it_is_killed() {
    let Some(directory) = child_directory() else { return };
    let _storage = open(directory.as_ref());
    eprintln!("open");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
