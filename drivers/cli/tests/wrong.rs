//! Whatever is wrong with a command line or its surroundings: one line that names the remedy, and the right exit code.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use common::demand::{demand, line};
use common::{Scratch, Server, bodies, run};

#[test]
fn command_lines_that_cant_be_meant() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let somewhere = ["--connect", "ws://localhost"];
    // Every command with a flag that it does not have.
    for command in [
        "serve",
        "append",
        "tail",
        "sync",
        "log",
        "set",
        "get",
        "del",
        "watch",
        "import",
        "export",
        "demo",
        "completions",
    ] {
        demand(&[command, "--speed"], 2, "usage", &["--speed", &format!("antiphon {command} --help")]);
    }
    // Every command that takes a document, with names that none can have.
    for (name, word) in [("", "name"), ("line\nbreak", "name"), ("a@b@c", "branch"), ("a@b/c d", "scope")] {
        for rest in [&["--data", &data][..], &somewhere] {
            demand(&[&["append", name], rest].concat(), 2, "usage", &[word, "; "]);
        }
        demand(&[&["tail", name], &somewhere[..]].concat(), 2, "usage", &[word, "; "]);
        demand(&[&["sync", "notes", name], &somewhere[..]].concat(), 2, "usage", &[word, "; "]);
        demand(&["log", name, "--data", &data], 2, "usage", &[word, "; "]);
    }
    // Every command that connects, with addresses that can't be meant.
    for (url, word) in [
        ("http://localhost:1", "ws://"),
        ("localhost:8048", "ws://"),
        ("", "ws://"),
        ("ws://", "ws://"),
        ("ws://localhost:99999", "ws://HOST:PORT"),
        ("ws://localhost:0", "port"),
        ("ws://me@localhost", "user"),
    ] {
        for command in ["append", "tail", "sync", "get", "del", "watch", "export"] {
            demand(&[command, "notes", "--data", &data, "--connect", url], 2, "usage", &[word, "; "]);
        }
    }
    for command in ["append", "tail", "sync", "get", "del", "watch", "export"] {
        let with = |rest: &[&'static str]| [&[command, "notes"], &somewhere[..], rest].concat();
        demand(&with(&["--timeout", "soon"]), 2, "usage", &["seconds"]);
        demand(&with(&["--timeout", "-1"]), 2, "usage", &["--timeout"]);
        demand(&with(&["--token", "a b"]), 2, "usage", &["token"]);
        demand(&with(&["--ca"]), 2, "usage", &["--ca"]);
    }
    let cases: &[(&[&str], &str)] = &[
        (&["serv"], "serve"),
        (&["append", "notes"], "--data"),
        (&["append", "--data", &data], "<DOC>"),
        (&["tail", "notes"], "--connect"),
        (&["tail", "notes", "--connect", "ws://localhost", "--from", "x"], "--from"),
        (&["tail", "notes", "more", "--connect", "ws://localhost"], "more"),
        (&["sync", "--connect", "ws://localhost"], "<DOC>"),
        (&["sync", "notes"], "--connect"),
        (&["sync", "notes", "--connect", "ws://example.com", "--token", "secret"], "wss://"),
        (&["sync", "notes", "--connect", "ws://localhost.example.com", "--token", "secret"], "wss://"),
        (&["sync", "notes", "--connect", "ws://10.0.0.1", "--token", "secret"], "wss://"),
        (&["log", "notes"], "--data"),
        (&["log", "--data", &data], "<DOC>"),
        (&["serve", "--listen", "localhost"], "HOST:PORT"),
        (&["serve", "--listen", "localhost:x"], "port"),
        (&["serve", "--listen", ":8048"], "0.0.0.0:8048"),
        (&["serve", "--data", &data, "--durability", "never"], "fsync"),
        (&["serve", "--durability", "fsync"], "--data"),
        (&["serve", "--log", "what=ever=?"], "--log"),
        (&["serve", "--token", ""], "token"),
        (&["demo", "--seed", "x"], "--seed"),
        (&["completions", "sh"], "bash"),
    ];
    for (arguments, word) in cases {
        demand(arguments, 2, "usage", &[word, "; "]);
    }
    assert!(!scratch.path("data").exists(), "a wrong command line leaves nothing behind");
    for (arguments, says) in [(&["--help"][..], "Usage"), (&["--version"], "antiphon "), (&["tail", "-h"], "Usage")] {
        assert!(run(arguments, "").good().contains(says), "{arguments:?}");
    }
    let nothing = run(&[], "");
    assert!(nothing.code == Some(2) && nothing.stdout.is_empty() && nothing.stderr.contains("Usage"), "{nothing:?}");
    let secret = run(&["sync", "notes", "--connect", "ws://example.com", "--token", "secret"], "");
    assert!(!secret.stderr.contains("secret"), "{}", secret.stderr);
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(["append", "--json", "--data", "nowhere"]).arg(std::ffi::OsStr::from_bytes(b"a\xff"));
    let output = command.stdin(std::process::Stdio::null()).output().expect("the command is there");
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one object");
    assert_eq!((output.status.code(), error["code"].as_str()), (Some(2), Some("usage")), "{error}");
}

#[test]
fn a_port_in_use_or_not_to_be_had() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let data = scratch.name("data");
    demand(
        &["serve", "--listen", server.address(), "--data", &data],
        1,
        "port_in_use",
        &[server.address(), "--listen"],
    );
    assert!(!scratch.path("data").exists(), "who can't listen makes no directory");
    demand(&["serve", "--listen", "192.0.2.1:0"], 1, "listen", &["192.0.2.1", "--listen"]);
    demand(&["serve", "--listen", "nobody.invalid:0"], 1, "listen", &["nobody.invalid", "--listen"]);
}

#[test]
fn servers_that_are_not_what_they_should_be() {
    let server = Server::memory();
    let path = format!("{}/elsewhere", server.url);
    let tls = server.url.replace("ws://", "wss://");
    let no_websocket = says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n");
    let no_http = says("220 mail.example.com ESMTP\r\n");
    let cases: &[(&str, &[&str])] = &[
        (&path, &["404", "/elsewhere", "--connect"]),
        (&tls, &["ws://", "--connect"]),
        (&no_websocket, &["200", "--connect"]),
        (&no_http, &["no WebSocket server", "--connect"]),
    ];
    for (url, words) in cases {
        for command in ["append", "tail", "sync", "get", "del", "watch", "export"] {
            demand(&[command, "notes", "--connect", url], 1, "connect", words);
        }
    }
    demand(&["tail", "notes", "--connect", &tls, "--ca", "/nowhere.pem"], 1, "ca", &["/nowhere.pem", "--ca"]);
    let scratch = Scratch::new();
    std::fs::write(scratch.path("empty.pem"), "").expect("it can be written");
    demand(&["tail", "notes", "--connect", &tls, "--ca", &scratch.name("empty.pem")], 1, "ca", &["empty.pem", "--ca"]);
}

/// An address where something answers whatever is said to it with these words.
fn says(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            // What becomes of it is the client's to tell.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(words.as_bytes());
        }
    });
    format!("ws://{address}")
}

#[test]
fn a_token_that_is_missing_or_wrong() {
    let server = Server::with(&["--token", "sesame"]);
    let words = ["401", "--token"];
    demand(&["tail", "notes", "--connect", &server.url], 1, "connect", &words);
    demand(&["append", "notes", "--connect", &server.url, "--token", "sesam"], 1, "connect", &words);
    let append = ["append", "notes", "--connect", &server.url, "--token", "sesame"];
    assert_eq!(run(&append, "1\n").good(), "notes: 1 op appended, 1 durable at the server\n");
}

#[test]
fn a_host_that_there_is_not_is_tried_until_the_time_is_over() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let append = ["append", "notes", "--data", &data, "--connect", "ws://nobody.invalid", "--timeout", "0.3"];
    line(&run(&append, "kept\n"), 3, &["durable at the server", "kept in the data directory"]);
    assert_eq!(bodies(&scratch.path("data"), "notes"), ["kept"]);
}
