//! Backups that are restored, of a server under its clients or of a client: what was acknowledged since comes back from
//! whoever has it, and nothing is taken for something else.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use antiphon_sqlite::DATABASE_NAME;
use async_io::block_on;
use common::{PATIENCE, Replica, Scratch, Server, bodies, run, text};
use serde_json::Value;

/// A backup of a database that may be in use.
fn back_up(directory: &Path, to: &Path) {
    let database = rusqlite::Connection::open(directory.join(DATABASE_NAME)).expect("it is there");
    database.busy_timeout(PATIENCE).expect("a timeout");
    database.execute("VACUUM INTO ?1", [text(to)]).expect("it is written");
}

/// Copies all files of a directory into another, which is made.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("it can be made");
    for file in fs::read_dir(from).expect("a directory") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("it can be copied");
    }
}

/// How a backup is brought back.
#[derive(Clone, Copy, Debug)]
enum Restored {
    /// Into an empty directory, as one should.
    IntoNothing,
    /// Over the file that is there, beside the other files of the server that was killed.
    OverTheFile,
}

#[test]
fn a_server_set_back_under_its_clients_is_refilled_by_them() {
    for how in [Restored::IntoNothing, Restored::OverTheFile] {
        let scratch = Scratch::new();
        let (home, backup) = (scratch.path("server"), scratch.path("backup.db"));
        let server = Server::on(&home);
        let address = server.address().to_owned();
        let writers: Vec<_> = (0..3).map(|_| Replica::connect(&server.url, "notes")).collect();
        let (acknowledged, enough) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let count = || acknowledged.lock().expect("no panic").len();
        let server = thread::scope(|scope| {
            for (index, writer) in writers.iter().enumerate() {
                let (acknowledged, enough) = (&acknowledged, &enough);
                scope.spawn(move || {
                    for body in (0..).map(|number| format!("{index} {number}")) {
                        assert!(writer.write(body.clone()), "writer {index} has given up");
                        acknowledged.lock().expect("no panic").push(body);
                        if enough.load(Ordering::SeqCst) {
                            return;
                        }
                    }
                });
            }
            let more_than = |due: usize| while count() <= due {};
            more_than(100);
            back_up(&home, &backup);
            // So much is acknowledged that the backup does not have.
            more_than(count() + 200);
            server.process.kill();
            let held = bodies(&home, "notes").len();
            if matches!(how, Restored::IntoNothing) {
                fs::remove_dir_all(&home).expect("it is ours");
                fs::create_dir(&home).expect("it can be made");
            } else {
                for beside in ["antiphon.db-wal", "antiphon.db-shm"] {
                    fs::remove_file(home.join(beside)).expect("a killed server leaves it");
                }
            }
            fs::copy(&backup, home.join(DATABASE_NAME)).expect("it can be copied");
            let restored = bodies(&home, "notes").len();
            assert!(restored + 200 <= held, "{restored} of {held}");
            let server = Server::listening(&address, &["--data", text(&home)]);
            more_than(count() + 100);
            enough.store(true, Ordering::SeqCst);
            server
        });
        let all = |writer: &Replica| block_on(writer.link.in_step(&writer.document)).expect("they come in step");
        let stands: Vec<_> = writers.iter().map(all).collect();
        let mut printed: Vec<_> =
            run(&["tail", "notes", "--connect", &server.url], "").good().lines().map(String::from).collect();
        let mut due = acknowledged.into_inner().expect("no panic");
        due.sort();
        printed.sort();
        assert!(printed == due, "{how:?}: {} are there of {} acknowledged", printed.len(), due.len());
        assert!(stands.iter().all(|(heads, tail)| heads == &stands[0].0 && *tail == due.len() as u64), "{how:?}");
        let ended = server.terminate();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let mut held = bodies(&home, "notes");
        held.sort();
        assert!(held == due, "{how:?}: what is on its disk");
    }
}

#[test]
fn a_client_set_back_appends_under_another_id_and_loses_nothing() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let server = Server::on(&home.path("server"));
    let (data, path, backup) = (scratch.name("data"), scratch.path("data"), scratch.path("backup"));
    let append = |lines: &str| run(&["append", "notes", "--data", &data, "--connect", &server.url], lines).good();
    let replica = || run(&["log", "notes", "--data", &data, "--json"], "").object()["replica"].clone();
    append("1\n2\n");
    let before = replica();
    copy(&path, &backup);
    append("3\n4\n");
    assert_eq!(replica(), before);

    fs::remove_dir_all(&path).expect("it is ours");
    copy(&backup, &path);
    // Offline it can't know that there were others in the place of this one.
    run(&["append", "notes", "--data", &data], "5\n").good();
    assert_ne!(replica(), before, "it is not what its last holder left");
    assert_eq!(append("6\n"), "notes: 1 op appended, 1 durable at the server\n");
    assert_eq!(bodies(&home.path("server"), "notes"), ["1", "2", "3", "4", "5", "6"]);
    let synced = run(&["sync", "notes", "--data", &data, "--connect", &server.url, "--json"], "").object();
    assert_eq!(synced["documents"][0]["in_step"], Value::Bool(true), "{synced}");
    let mut held = bodies(&path, "notes");
    held.sort();
    assert_eq!(held, ["1", "2", "3", "4", "5", "6"]);
}
