//! The first signal drains a server, the second ends it at once.

mod common;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use antiphon::codes::Code;
use antiphon::replica::Event;
use antiphon_node::Notice;
use common::{PATIENCE, Process, Replica, Scratch, Server, Stalled, bodies};
use rustix::process::Signal;

#[test]
fn what_was_acknowledged_is_there_and_clients_are_told_when_to_come_back() {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new();
        let server = Server::on(&scratch.path("data"));
        let writers: Vec<_> = (0..3).map(|_| Replica::connect(&server.url, "notes")).collect();
        let (sender, acknowledged) = channel();
        let mut events = writers[0].node.subscribe_to(|event| matches!(event, Event::Disconnected { .. }));
        let mut due = Vec::new();
        let ended = thread::scope(|scope| {
            for (index, writer) in writers.iter().enumerate() {
                let sender = sender.clone();
                scope.spawn(move || {
                    for body in (0..).map(|number| format!("{index} {number}")) {
                        if !writer.write(body.clone()) || sender.send(body).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            due.extend(acknowledged.iter().take(30));
            server.process.signal(signal);
            let ended = server.process.end();
            writers.iter().for_each(|writer| async_io::block_on(writer.node.shutdown(None)).expect("in order"));
            ended
        });
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        due.extend(acknowledged);
        let held = bodies(&scratch.path("data"), "notes");
        for body in &due {
            assert_eq!(held.iter().filter(|held| *held == body).count(), 1, "{body} was acknowledged");
        }
        match async_io::block_on(events.next()) {
            Some(Notice::Event(Event::Disconnected { ending: Some(ending), .. })) => {
                assert_eq!((ending.code, ending.retry_after), (Code::SHUTDOWN, Some(1000)));
            }
            other => panic!("no goodbye: {other:?}"),
        }
    }
}

#[test]
fn a_second_signal_does_not_wait_for_a_storage_that_stalls() {
    let scratch = Scratch::new();
    let server = Server::with(&["--data", &scratch.name("data"), "--log", "info"]);
    let writer = Replica::connect(&server.url, "notes");
    assert!(writer.write("1".into()));
    let _stalled = Stalled::new(&scratch.path("data"));
    let mut events = writer.node.subscribe_to(|event| matches!(event, Event::Disconnected { .. }));
    writer.node.try_append(&writer.document, vec!["2".into()]).expect("it is open");
    server.process.signal(Signal::TERM);
    // It says goodbye at once, and would wait for its storage.
    async_io::block_on(events.next()).expect("the node runs");
    let begun = Instant::now();
    server.process.signal(Signal::TERM);
    let ended = server.process.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("a second signal") && begun.elapsed() < PATIENCE / 3, "{}", ended.stderr);
}

#[test]
fn the_first_line_says_where_it_listens_and_memory_is_no_secret() {
    let server = Server::memory();
    let ended = server.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("memory") && ended.stderr.contains("--data"), "{}", ended.stderr);
    let scratch = Scratch::new();
    let json = Process::start(&["serve", "--listen", "127.0.0.1:0", "--data", &scratch.name("data"), "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json.line()).expect("an object");
    assert!(line["listening"].as_str().expect("text").starts_with("ws://127.0.0.1:"), "{line}");
    assert_eq!((&line["data"], &line["durability"]), (&scratch.name("data").into(), &"commit".into()));
    json.signal(Signal::TERM);
    let ended = json.end();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
