//! Disks that are full, that may not be written to, or that stall: one line with the remedy, and nothing lost.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::demand::line;
use common::{Ended, PATIENCE, Process, Replica, Scratch, Server, Stalled, antiphon, bodies, run, text, under_shell};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// No file may get larger than this: on a disk that is full, the next write fails in the same way.
const ROOM_KILOBYTES: u64 = 300;

/// The same, started where there is little room.
fn without_room(arguments: &[&str]) -> std::process::Command {
    // In the shell's units, of 512 bytes. What is only told by a signal would end the process.
    under_shell(&format!("trap '' XFSZ; ulimit -S -f {}", ROOM_KILOBYTES * 2), arguments)
}

fn lines(count: u32) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[test]
fn append_says_how_much_a_full_disk_took_and_keeps_it() {
    let scratch = Scratch::new();
    let (data, path) = (scratch.name("data"), scratch.path("data"));
    let append = ["append", "notes", "--data", &data, "--json"];
    let mut process = Process::spawn(without_room(&append));
    let mut stdin = process.stdin.take().expect("piped");
    thread::spawn(move || std::io::Write::write_all(&mut stdin, lines(1_000_000).as_bytes())); // until it gives up
    let full = process.end();
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    let error: Value = serde_json::from_str(&full.stderr).expect("one object");
    assert_eq!(error["code"], "storage");
    let [what, remedy] = ["error", "remedy"].map(|part| error[part].as_str().expect("text").to_owned());
    assert!(what.contains("antiphon.db") && (remedy.contains("room") || remedy.contains("full")), "{error}");

    let told: Value = serde_json::from_slice(&full.stdout).expect("one object");
    let kept = told["appended"].as_u64().expect("a number");
    assert!(kept > 100, "{told}");
    assert_eq!(told, json!({ "document": "notes", "appended": kept, "durable": kept }));
    let stored = bodies(&path, "notes");
    assert!(stored == numbers(kept as usize), "it said that it kept {kept}, and {} are there", stored.len());
    // With room it goes on.
    let more: String = (kept..kept + 10).map(|number| format!("{number}\n")).collect();
    run(&append, more).object();
    assert!(bodies(&path, "notes") == numbers(kept as usize + 10), "and nothing twice");
}

#[test]
fn a_directory_that_finds_no_room_at_all_is_refused() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    for arguments in [&["append", "notes", "--data", &data][..], &["serve", "--listen", "127.0.0.1:0", "--data", &data]]
    {
        let ended = Process::spawn(under_shell("trap '' XFSZ; ulimit -S -f 8", arguments)).end();
        line(&ended, 1, &["antiphon.db", "full"]);
    }
    run(&["append", "notes", "--data", &data], "1\n").good();
}

#[test]
fn a_server_whose_disk_is_full_claims_nothing_and_goes_on_when_there_is_room() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let path = home.path("server");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", text(&path)];
    let server = Server::spawn(without_room(&serve));
    let data = scratch.name("data");
    run(&["append", "notes", "--data", &data], lines(50_000)).good();
    let append = ["append", "notes", "--data", &data, "--connect", &server.url, "--timeout"];
    let late = run(&[&append[..], &["2"]].concat(), "");
    line(&late, 3, &["STORAGE_FAILED", "kept in the data directory"]);
    let there = bodies(&path, "notes");
    assert!(there.len() < 50_000 && there == numbers(there.len()), "a beginning of them");

    let pid = Pid::from_child(&server.process.child);
    let room = Rlimit { current: None, maximum: None };
    prlimit(Some(pid), Resource::Fsize, room).expect("its own limit may be raised");
    run(&[&append[..], &["60"]].concat(), "the last\n").good();
    let there = bodies(&path, "notes");
    assert_eq!((there.len(), there.last().map(String::as_str)), (50_001, Some("the last")));
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("the storage failed") && ended.stderr.contains("works again"), "{}", ended.stderr);
}

/// The same by somebody who may not write where only this user may.
fn by_a_stranger(arguments: &[&str]) -> Ended {
    let mut command = antiphon(arguments);
    if fs::metadata("/proc/self").expect("it is there").uid() == 0 {
        command.uid(65_534); // root may write everywhere
    }
    Process::spawn(command).end()
}

#[test]
fn what_may_only_be_read_is_refused_and_can_be_looked_at() {
    let scratch = Scratch::new();
    let (data, path) = (scratch.name("data"), scratch.path("data"));
    run(&["append", "notes", "--data", &data], "1\n2\n").good();
    let permit = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    permit(path.parent().expect("it has one"), 0o755);
    let nowhere = ["--connect", "ws://127.0.0.1:9"];
    for (directory, files) in [(0o555, 0o444), (0o755, 0o644), (0o777, 0o444)] {
        fs::read_dir(&path).expect("a directory").for_each(|file| permit(&file.expect("a file").path(), files));
        permit(&path, directory);
        for arguments in [
            &["serve", "--listen", "127.0.0.1:0", "--data", &data][..],
            &["append", "notes", "--data", &data],
            &[&["tail", "notes", "--data", &data], &nowhere[..]].concat(),
            &[&["sync", "notes", "--data", &data], &nowhere[..]].concat(),
        ] {
            line(&by_a_stranger(arguments), 1, &["data/antiphon.", "read and write"]);
        }
        let looked = by_a_stranger(&["log", "notes", "--data", &data]).good();
        assert!(looked.starts_with("notes: 2 ops"), "{looked}");
    }
    permit(&path, 0o755);
    assert_eq!(bodies(&path, "notes"), ["1", "2"]);
}

#[test]
fn while_the_disk_here_stalls_append_does_not_return() {
    let scratch = Scratch::new();
    let (data, path) = (scratch.name("data"), scratch.path("data"));
    run(&["append", "notes", "--data", &data], "before\n").good();
    let mut appending = Process::start(&["append", "notes", "--data", &data]);
    let stdin = appending.stdin.as_mut().expect("piped");
    std::io::Write::write_all(stdin, b"first\n").expect("it reads");
    while bodies(&path, "notes").len() < 2 {}
    let stalled = Stalled::new(&path);
    let stdin = appending.stdin.as_mut().expect("piped");
    std::io::Write::write_all(stdin, b"while it stalls\n").expect("it reads");
    drop(appending.stdin.take());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(appending.child.try_wait().expect("it can be asked"), None, "nothing of it is durable");
    }
    assert_eq!(bodies(&path, "notes"), ["before", "first"]);
    stalled.go_on();
    assert_eq!(appending.end().good(), "notes: 2 ops appended, 2 durable here\n");
    assert_eq!(bodies(&path, "notes"), ["before", "first", "while it stalls"]);
}

#[test]
fn while_the_servers_disk_stalls_its_other_clients_are_not_told_of_what_waits() {
    let scratch = Scratch::new();
    let server = Server::on(&scratch.path("server"));
    let (writer, reader) = (Replica::connect(&server.url, "notes"), Replica::connect(&server.url, "notes"));
    assert!(writer.write("before".into()));
    let tail = |replica: &Replica| replica.node.document(&replica.document).map_or(0, |(_, tail)| tail);
    let begun = Instant::now();
    while tail(&reader) < 1 {
        assert!(begun.elapsed() < PATIENCE);
        thread::yield_now();
    }
    let stalled = Stalled::new(&scratch.path("server"));
    writer.node.try_append(&writer.document, vec!["while it stalls".into()]).expect("it is open");
    // A round trip of another connection: whatever the server had to tell of it would have been told by then.
    let probe = ["tail", "notes", "--connect", &server.url];
    assert_eq!(run(&probe, "").good(), "before\n");
    assert_eq!((tail(&reader), writer.link.position_acknowledged(&writer.document)), (1, 1));
    stalled.go_on();
    assert!(writer.write("after".into()));
    while tail(&reader) < 3 {
        assert!(begun.elapsed() < PATIENCE);
        thread::yield_now();
    }
}
