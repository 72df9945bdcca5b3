//! Who watches a store is told what others set: when, who, and what.

mod common;

use std::io::{BufRead as _, BufReader};

use common::{Process, Scratch, Server, run};
use serde_json::{Value, json};

#[test]
fn what_another_process_sets() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let (data, connect) = (scratch.name("data"), ["--connect", &server.url]);
    let set = |rest: &[&str]| run(&[rest, &["--data", &data], &connect].concat(), "").good();
    set(&["set", "pets", "pets", "fido", "legs", "4"]);
    let plain = Process::start(&[&["watch", "pets"], &connect[..]].concat());
    let objects = Process::start(&[&["watch", "pets", "--json"], &connect[..]].concat());
    let cells = Process::start(&[&["watch", "pets", "pets", "fido"], &connect[..]].concat());
    assert_eq!(plain.line(), "watching pets");
    assert_eq!(objects.line(), r#"{"watching":"pets"}"#);
    assert_eq!(cells.line(), "watching pets");
    set(&["set", "pets", "--value", "open", "null"]);
    set(&["set", "pets", "pets", "fido", "legs", "3"]);
    set(&["del", "pets", "--value", "open"]);

    let [opened, legs, closed] = [(); 3].map(|()| plain.line());
    let replica = run(&["log", "pets", "--data", &data, "--json"], "").object()["replica"].clone();
    let who = replica.as_str().expect("text");
    let [time, by, rest] = *opened.splitn(3, "  ").collect::<Vec<_>>() else { panic!("{opened}") };
    assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!((by, rest), (who, "--value open = null"));
    assert!(legs.ends_with("  pets fido legs = 3 (was 4)"), "{legs}");
    assert!(closed.ends_with("  --value open deleted (was null)"), "{closed}");
    assert_eq!(cells.line(), legs);

    let objects = [(); 3].map(|()| serde_json::from_str::<Value>(&objects.line()).expect("one object"));
    let expected = [
        json!({ "value": "open", "new": null }),
        json!({ "table": "pets", "row": "fido", "cell": "legs", "old": 4, "new": 3 }),
        json!({ "value": "open", "old": null }),
    ];
    for (object, expected) in objects.iter().zip(expected) {
        let mut object = object.as_object().expect("an object").clone();
        assert_eq!(object.remove("by").as_ref(), Some(&replica));
        assert!(
            object.remove("at").is_some_and(|at| at.is_u64()) && object.remove("time").is_some_and(|at| at.is_string())
        );
        assert_eq!(Value::Object(object), expected);
    }
}

#[test]
fn when_nobody_reads_any_more_it_ends() {
    let server = Server::memory();
    let mut watch = common::antiphon(["watch", "pets", "--connect", &server.url]).spawn().expect("the binary runs");
    let mut stdout = BufReader::new(watch.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "watching pets\n");
    drop(stdout);
    run(&["set", "pets", "--value", "open", "true", "--connect", &server.url], "").good();
    let ended = watch.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}
