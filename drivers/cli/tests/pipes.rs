//! Whoever reads the results may stop: that is no failure, and nobody is told.

mod common;

use std::io::{BufRead as _, BufReader};

use common::{Process, Server, antiphon, run};

/// Reads one line of stdout, and closes it.
fn after_a_line(arguments: &[&str]) -> common::Ended {
    let mut command = antiphon(arguments);
    command.stdin(std::process::Stdio::null());
    let mut child = command.spawn().expect("the binary runs");
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let ended = child.wait_with_output().expect("it ends");
    common::Ended {
        code: ended.status.code(),
        stdout: line.into(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

#[test]
fn tail_ends_quietly() {
    let server = Server::memory();
    let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    run(&["append", "notes", "--connect", &server.url], &lines).good();
    for follow in [&[][..], &["--follow"], &["--json"]] {
        let ended = after_a_line(&[&["tail", "notes", "--connect", &server.url], follow].concat());
        assert!(ended.good().contains("line 0"), "{follow:?}");
    }
}

#[test]
fn a_demo_that_nobody_watches_still_comes_to_its_end() {
    let ended = after_a_line(&["demo"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_server_whose_first_line_nobody_reads_serves() {
    let mut command = antiphon(["serve", "--listen", "127.0.0.1:0", "--log", "off"]);
    command.stdout(std::process::Stdio::piped());
    let mut process = Process::spawn(command);
    let line = process.line();
    process.child.stdout.take();
    let url = line.strip_prefix("listening ").expect("the first line");
    run(&["append", "notes", "--connect", url], "1\n").good();
    assert_eq!(run(&["tail", "notes", "--connect", url], "").good(), "1\n");
}
