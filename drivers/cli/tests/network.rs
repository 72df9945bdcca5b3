//! Networks that break and servers that are away: the commands come through, and nothing is lost or doubled.

mod common;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use antiphon_node::LinkState;
use async_io::block_on;
use common::demand::demand;
use common::proxy::{self, Authority};
use common::{PATIENCE, Process, Replica, Scratch, Server, bodies, run};

fn address(server: &Server) -> SocketAddr {
    server.address().parse().expect("an address")
}

#[test]
fn a_proxy_that_cuts_after_some_bytes_keeps_nothing_from_getting_through() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let server = Server::on(&home.path("server"));
    // In the HTTP request, in its answer, in Hello, and in the middle of the ops.
    let cuts = [1, 150, 400, 600, 20_000, 90_000];
    let lines: String = (0..3_000).map(|number| format!("a line that is somewhat longer: {number}\n")).collect();
    let through = format!("ws://{}", proxy::cutting(address(&server), cuts));
    let append = ["append", "notes", "--data", &scratch.name("writer"), "--connect", &through];
    assert_eq!(run(&append, &lines).good(), "notes: 3000 ops appended, 3000 durable at the server\n");
    let held = bodies(&home.path("server"), "notes");
    assert!(lines.lines().eq(&held), "{} lines are there", held.len());

    let through = format!("ws://{}", proxy::cutting(address(&server), cuts));
    let printed = run(&["tail", "notes", "--connect", &through], "").good();
    assert!(printed == lines, "{} bytes instead of {}", printed.len(), lines.len());
    let through = format!("ws://{}", proxy::cutting(address(&server), cuts));
    run(&["append", "notes", "--connect", &through], "the last\n").good();
    assert_eq!(bodies(&home.path("server"), "notes").len(), 3_001);
}

#[test]
fn a_server_that_is_gone_for_long_is_found_again() {
    let home = Scratch::new();
    let server = Server::on(&home.path("server"));
    let (address, url) = (server.address().to_owned(), server.url.clone());
    let writers: Vec<_> = (0..3).map(|_| Replica::connect(&url, "notes")).collect();
    let reader = Process::start(&["tail", "notes", "--connect", &url, "--follow"]);
    assert!(writers[0].write("before".into()));
    assert_eq!(reader.line(), "before");
    server.process.kill();
    let begun = Instant::now();
    for (index, writer) in writers.iter().enumerate() {
        let offline = (0..200).map(|number| format!("{index} {number}").into()).collect();
        writer.node.try_append(&writer.document, offline).expect("it is open");
        // So often that the wait between has long been the longest that it can be.
        while !matches!(writer.link.state(), LinkState::Connecting { failures: 30.., .. }) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", writer.link.state());
            thread::sleep(Duration::from_millis(1));
        }
    }
    let server = Server::listening(&address, &["--data", common::text(&home.path("server"))]);
    for writer in &writers {
        block_on(writer.link.acknowledged(&writer.document)).expect("it is found again");
    }
    let mut printed: Vec<_> = (0..600).map(|_| reader.line()).collect();
    let mut held = bodies(&home.path("server"), "notes");
    assert_eq!(held.remove(0), "before");
    held.sort();
    printed.sort();
    assert!(printed == held && held.windows(2).all(|pair| pair[0] != pair[1]), "each is there once, and was printed");
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn a_private_root_makes_a_round_trip_secret() {
    let (scratch, authority) = (Scratch::new(), Authority::new("ours"));
    let server = Server::with(&["--data", &scratch.name("server"), "--token", "sesame"]);
    let front = proxy::tls(address(&server), authority.acceptor("localhost"));
    let (url, ca) = (format!("wss://localhost:{}/", front.port()), scratch.name("root.pem"));
    std::fs::write(&ca, authority.pem()).expect("it can be written");
    let access = ["--connect", &url, "--ca", &ca, "--token", "sesame"];
    let data = scratch.name("writer");
    let lines: String = (0..2_000).map(|number| format!("{number}\n")).collect();
    let appended = run(&[&["append", "notes", "--data", &data], &access[..]].concat(), &lines).good();
    assert_eq!(appended, "notes: 2000 ops appended, 2000 durable at the server\n");
    assert_eq!(run(&[&["tail", "notes"], &access[..]].concat(), "").good(), lines);
    let synced = run(&[&["sync", "notes", "--data", &data, "--json"], &access[..]].concat(), "").object();
    assert_eq!(synced["documents"][0]["in_step"], true, "{synced}");
}

#[test]
fn certificates_that_are_not_accepted() {
    let (scratch, ours, theirs) = (Scratch::new(), Authority::new("ours"), Authority::new("theirs"));
    let server = Server::memory();
    let ca = scratch.name("root.pem");
    std::fs::write(&ca, ours.pem()).expect("it can be written");
    let front = |authority: &Authority, name| proxy::tls(address(&server), authority.acceptor(name)).port();
    let unknown = format!("wss://localhost:{}/", front(&theirs, "localhost"));
    let other = format!("wss://localhost:{}/", front(&ours, "example.com"));
    let plain = format!("ws://localhost:{}/", front(&ours, "localhost"));
    let data = scratch.name("data");
    for command in ["append", "tail", "sync"] {
        let said = |url: &str, words: &[&str]| {
            let arguments = [command, "notes", "--data", &data, "--connect", url, "--ca", &ca];
            demand(&arguments, 1, "connect", words);
        };
        said(&unknown, &["certificate", "UnknownIssuer", "--ca"]);
        said(&other, &["certificate", "check the host's name"]);
        said(&server.url.replace("ws://", "wss://"), &["does not speak TLS", "ws://"]);
        // Without --ca only whom the system trusts is believed, if it trusts anybody.
        let arguments = [command, "notes", "--connect", &unknown];
        demand(&arguments, 1, "connect", &["certificate"]);
        demand(&[command, "notes", "--connect", &plain], 1, "connect", &["no WebSocket server", "--connect"]);
    }
}
