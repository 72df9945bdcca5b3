//! What is written offline is kept and brought later; and no call says that it is there before it is.

mod common;

use std::time::{Duration, Instant};

use common::{Scratch, Server, Stalled, bodies, run};
use serde_json::{Value, json};

fn told(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An address where nothing listens.
fn nowhere() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("ws://{}", free.local_addr().expect("an address"))
}

#[test]
fn what_earlier_calls_left_is_brought_by_the_next() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let data = scratch.name("data");
    let offline = run(&["append", "notes", "--data", &data, "--json"], "1\n2\n").object();
    assert_eq!(offline, json!({ "document": "notes", "appended": 2, "durable": 2 }));
    run(&["append", "notes", "--data", &data], "3\n").good();
    run(&["append", "notes", "--data", &data, "--connect", &server.url], "").good();
    assert_eq!(run(&["tail", "notes", "--connect", &server.url], "").good(), "1\n2\n3\n");
}

#[test]
fn without_a_server_the_time_runs_out_and_nothing_is_lost() {
    let scratch = Scratch::new();
    let (data, nowhere) = (scratch.name("data"), nowhere());
    let append = ["append", "notes", "--data", &data, "--connect", &nowhere, "--timeout", "0.2", "--json"];
    let late = run(&append, "1\n2\n");
    assert_eq!(late.code, Some(3));
    assert_eq!(
        told(&String::from_utf8_lossy(&late.stdout)),
        json!({ "document": "notes", "appended": 2, "durable": 0 })
    );
    let error = told(&late.stderr);
    assert_eq!(error["code"], "deadline");
    assert!(error["error"].as_str().expect("text").contains("nothing listens at"), "{error}");
    assert!(error["remedy"].as_str().expect("text").contains("kept"), "{error}");
    for reading in [&["tail", "notes"][..], &["sync", "notes"]] {
        let late = run(&[reading, &["--connect", &nowhere, "--timeout", "0.2"]].concat(), "");
        assert_eq!(late.code, Some(3), "{reading:?}: {}", late.stderr);
    }
    // The server comes up at last, at that very address.
    let _server = Server::listening(nowhere.trim_start_matches("ws://"), &[]);
    run(&["append", "notes", "--data", &data, "--connect", &nowhere], "3\n").good();
    assert_eq!(run(&["tail", "notes", "--connect", &nowhere], "").good(), "1\n2\n3\n");
}

#[test]
fn append_waits_for_a_server_that_comes_later() {
    let (scratch, nowhere) = (Scratch::new(), nowhere());
    let waiting = {
        let arguments = ["append", "notes", "--data", &scratch.name("data"), "--connect", &nowhere].map(str::to_owned);
        std::thread::spawn(move || run(&arguments.each_ref().map(String::as_str), "1\n").good())
    };
    let _server = Server::listening(nowhere.trim_start_matches("ws://"), &[]);
    assert_eq!(waiting.join().expect("it ends"), "notes: 1 op appended, 1 durable at the server\n");
}

#[test]
fn while_the_servers_storage_stalls_nothing_is_called_durable() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let server = Server::on(&home.path("server"));
    let data = scratch.name("data");
    let append = |timeout: &str, lines: &str| {
        let arguments = ["append", "notes", "--data", &data, "--connect", &server.url, "--timeout", timeout, "--json"];
        run(&arguments, lines)
    };
    append("30", "1\n").object();
    let stalled = Stalled::new(&home.path("server"));
    let begun = Instant::now();
    let late = append("1", "2\n3\n");
    assert!(begun.elapsed() >= Duration::from_secs(1), "it returned after {:?}", begun.elapsed());
    assert_eq!(late.code, Some(3), "{}", late.stderr);
    assert_eq!(
        told(&String::from_utf8_lossy(&late.stdout)),
        json!({ "document": "notes", "appended": 2, "durable": 0 })
    );
    assert_eq!(bodies(&home.path("server"), "notes"), ["1"]);
    stalled.go_on();
    append("30", "4\n").object();
    assert_eq!(bodies(&home.path("server"), "notes"), ["1", "2", "3", "4"]);
}

#[test]
fn without_a_directory_ops_must_reach_the_server() {
    let late = run(&["append", "notes", "--connect", &nowhere(), "--timeout", "0.2"], "1\n");
    assert_eq!(late.code, Some(3));
    assert!(late.stderr.contains("--data"), "{}", late.stderr);
}
