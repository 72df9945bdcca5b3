//! A document that is larger than the memory that its server takes, served whole to a reader that has nothing of it.
//!
//! `ANTIPHON_DOCUMENT_MB=500` makes it larger.
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::thread;
use std::time::Instant;

use common::measure::resident;
use common::{Process, Scratch, Server, antiphon};

/// Bytes of a body: some fit a row of the database, some are stored apart, and some go in parts.
const BODIES: [usize; 4] = [100, 2_000, 20_000, 1_000_000];
/// What the server may have had resident at most, however large the document is: its caches, and what is on its way.
const RESIDENT_MAX: u64 = 64 << 20;

/// Bytes of the document.
fn size() -> usize {
    let megabytes = std::env::var("ANTIPHON_DOCUMENT_MB");
    megabytes.map_or(150, |megabytes| megabytes.parse().expect("ANTIPHON_DOCUMENT_MB is a number")) * 1_000_000
}

/// The lines of the document, by their numbers.
fn line(number: usize) -> Vec<u8> {
    let mut line = format!("{number} ").into_bytes();
    line.resize(BODIES[number % BODIES.len()], b'a' + (number % 26) as u8);
    line
}

#[test]
fn a_large_document_is_served_by_a_small_server() {
    let (scratch, size) = (Scratch::new(), size());
    let data = scratch.name("server");
    let begun = Instant::now();
    let mut appending = Process::start(&["append", "notes", "--data", &data, "--timeout", "60"]);
    let mut stdin = BufWriter::new(appending.stdin.take().expect("piped"));
    let writing = thread::spawn(move || {
        let (mut written, mut lines) = (0, 0);
        while written < size {
            let line = line(lines);
            stdin.write_all(&line).and_then(|()| stdin.write_all(b"\n")).expect("it reads on");
            (written, lines) = (written + line.len(), lines + 1);
        }
        lines
    });
    let lines = writing.join().expect("no panic");
    let appended = appending.end().good();
    assert_eq!(appended, format!("notes: {lines} ops appended, {lines} durable here\n"));
    let written = begun.elapsed();

    let server = Server::on(&scratch.path("server"));
    let pid = server.process.child.id();
    let (idle, _) = resident(pid);
    let begun = Instant::now();
    let mut reader = antiphon(["tail", "notes", "--connect", &server.url, "--timeout", "300"]);
    let mut reader = reader.spawn().expect("the binary runs");
    let mut stdout = BufReader::new(reader.stdout.take().expect("piped"));
    for number in 0..lines {
        let mut got = Vec::new();
        stdout.read_until(b'\n', &mut got).expect("it can be read");
        assert_eq!(got.pop(), Some(b'\n'), "line {number} of {lines}");
        assert!(got == line(number), "line {number} is another one");
    }
    assert!(reader.wait().expect("it ends").success());
    let (now, most) = resident(pid);
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{} MB in {lines} ops, written in {written:?}, served in {:?}; the server: {} MiB before, {} MiB after, {} MiB at most",
        size / 1_000_000,
        begun.elapsed(),
        mib(idle),
        mib(now),
        mib(most),
    );
    assert!(most < RESIDENT_MAX, "{} MiB of the server were resident", mib(most));
    assert!(most < size as u64 / 2, "the document is too small to show anything");
    assert_eq!(server.terminate().code, Some(0));
}
