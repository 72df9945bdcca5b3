//! SIGKILL at random moments under load: nothing acknowledged is missing afterwards, and nothing is there twice.
//!
//! `ANTIPHON_KILLS=50` kills more often.

mod common;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use antiphon::rng::Rng;
use common::{PATIENCE, Process, Replica, Scratch, Server, bodies, run};

/// How often.
fn kills() -> u32 {
    std::env::var("ANTIPHON_KILLS").map_or(12, |kills| kills.parse().expect("ANTIPHON_KILLS is a number"))
}

/// A moment within the next 80 ms, which is a random one for whoever is killed then.
fn a_while(dice: &mut Rng) {
    thread::sleep(Duration::from_micros(dice.below(80_000)));
}

/// How often each body is there.
fn counted(data: &Path) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for body in bodies(data, "notes") {
        *counts.entry(body).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_server() {
    let scratch = Scratch::new();
    let home = scratch.path("server");
    let mut server = Server::on(&home);
    let mut dice = Rng::new(1);
    let writers: Vec<_> = (0..3).map(|_| Replica::connect(&server.url, "notes")).collect();
    let (acknowledged, more, enough) = (Mutex::new(Vec::new()), Condvar::new(), AtomicBool::new(false));
    let server = thread::scope(|scope| {
        for (index, writer) in writers.iter().enumerate() {
            let (acknowledged, more, enough) = (&acknowledged, &more, &enough);
            scope.spawn(move || {
                for number in 0.. {
                    // One waits for each op, the others for more and more of them at once.
                    let bodies: Vec<_> = (0..=index * 20).map(|part| format!("{index} {number} {part}")).collect();
                    assert!(writer.write_all(&bodies), "writer {index} has given up");
                    acknowledged.lock().expect("no writer has panicked").extend(bodies);
                    more.notify_one();
                    if enough.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        for kill in 0..kills() {
            // Each time at least something is acknowledged first.
            let known = acknowledged.lock().expect("no panic");
            let enough_for_now = known.len() + 3;
            let (known, waited) =
                more.wait_timeout_while(known, PATIENCE, |known| known.len() < enough_for_now).expect("no panic");
            assert!(!waited.timed_out(), "kill {kill}: nothing is acknowledged any more");
            drop(known);
            a_while(&mut dice);
            let address = server.address().to_owned();
            let due = acknowledged.lock().expect("no panic").clone();
            server.process.kill();
            let held = counted(&home);
            for body in &due {
                assert_eq!(held.get(body), Some(&1), "kill {kill}: {body:?} was acknowledged");
            }
            assert!(held.values().all(|count| *count == 1), "kill {kill}: something is there twice");
            server = Server::listening(&address, &["--data", common::text(&home)]);
        }
        enough.store(true, Ordering::SeqCst);
        server
    });
    let due = acknowledged.into_inner().expect("no panic");
    assert_eq!(server.terminate().code, Some(0));
    let held = counted(&home);
    assert!(due.iter().all(|body| held.get(body) == Some(&1)), "acknowledged ops are missing");
    assert_eq!(held.len(), due.len(), "all that was written was acknowledged in the end, and no more is there");
    assert!(held.values().all(|count| *count == 1), "something is there twice");
}

#[test]
fn a_writer() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let (server, data) = (Server::on(&home.path("server")), scratch.name("writer"));
    let mut dice = Rng::new(2);
    let append = ["append", "notes", "--data", &data, "--connect", &server.url];
    let mut kept = 0;
    for kill in 0..kills() {
        let mut writer = Process::start(&append);
        let mut stdin = writer.stdin.take().expect("piped");
        let begin = kept;
        let writing = thread::spawn(move || {
            // Until it is killed.
            (begin..).take_while(|number| writeln!(stdin, "{number}").is_ok()).count()
        });
        a_while(&mut dice);
        writer.kill();
        writing.join().expect("writing does not panic");
        let held = looked(&data);
        assert!(held.len() >= kept, "kill {kill}: {} ops are left of {kept}", held.len());
        kept = held.len();
        let expected: Vec<_> = (0..kept).map(|number| number.to_string()).collect();
        assert!(held == expected, "kill {kill}: what is kept is not what was written first");
    }
    assert!(kept > 0, "no kill came late enough to show anything");
    run(&append, "the end\n").good();
    let held = bodies(&home.path("server"), "notes");
    let expected: Vec<_> = (0..kept).map(|number| number.to_string()).chain(["the end".into()]).collect();
    assert!(held == expected, "the server has {} ops, the writer kept {kept} and one more", held.len());
}

/// The bodies in a directory whose first holder may have been killed before there was a database.
fn looked(data: &str) -> Vec<String> {
    match antiphon_sqlite::look(data, |view| view.documents()) {
        Ok(_) => bodies(Path::new(data), "notes"),
        Err(_) => Vec::new(),
    }
}
