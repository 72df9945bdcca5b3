//! What is appended is printed, brought and shown as it was: any bytes, any document, through files or memory.

mod common;

use common::{Process, Scratch, Server, run};
use serde_json::{Value, json};

/// Lines with everything that a line can have.
const LINES: &[u8] = b"one\n\n\xff\xfe\0x\r\nlast, without an end";

#[test]
fn any_bytes_come_out_as_they_went_in() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let data = scratch.name("writer");
    let appended = run(&["append", "notes", "--data", &data, "--connect", &server.url, "--json"], LINES).object();
    assert_eq!(appended, json!({ "document": "notes", "appended": 4, "durable": 4 }));

    let printed = run(&["tail", "notes", "--connect", &server.url], "");
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, [LINES, b"\n"].concat());

    let told = run(&["tail", "notes", "--connect", &server.url, "--json"], "").good();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let author = &told[0]["author"];
    assert_eq!(author.as_str().expect("text").len(), 32);
    let line = |position: u64, body: (&str, &str)| json!({ "document": "notes", "position": position, "author": author, "seq": position + 1, body.0: body.1 });
    let bodies = [("body", "one"), ("body", ""), ("body_base64", "//4AeA0="), ("body", "last, without an end")];
    assert_eq!(told, (0..).zip(bodies).map(|(position, body)| line(position, body)).collect::<Vec<_>>());
}

#[test]
fn a_large_op_and_many_small_ones_arrive() {
    let (scratch, server) = (Scratch::new(), Server::on(&Scratch::new().path("server")));
    let large = "täglich ".repeat(1 << 18);
    let many: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let input = format!("{large}\n{many}");
    let data = scratch.name("writer");
    let told = run(&["append", "notes", "--data", &data, "--connect", &server.url], &input).good();
    assert_eq!(told, "notes: 20001 ops appended, 20001 durable at the server\n");
    let printed = run(&["tail", "notes", "--connect", &server.url], "").good();
    assert!(printed == input, "{} bytes instead of {}", printed.len(), input.len());
}

#[test]
fn documents_are_told_apart_by_name_branch_and_scope() {
    let server = Server::memory();
    let names = ["notes", "notes@draft", "notes@draft/mine", "a b/c ☂"];
    for name in names {
        let appended = run(&["append", name, "--connect", &server.url, "--json"], format!("in {name}\n")).object();
        assert_eq!(appended["document"], name);
    }
    for name in names {
        let printed = run(&["tail", name, "--connect", &server.url], "").good();
        assert_eq!(printed, format!("in {name}\n"));
    }
}

#[test]
fn tail_begins_where_it_is_told_and_fetches_only_what_it_lacks() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    run(&["append", "notes", "--connect", &server.url], "a\nb\nc\n").good();
    let data = scratch.name("reader");
    let tail = ["tail", "notes", "--connect", &server.url, "--data", &data, "--from", "1"];
    assert_eq!(run(&tail, "").good(), "b\nc\n");
    run(&["append", "notes", "--connect", &server.url], "d\n").good();
    assert_eq!(run(&tail, "").good(), "b\nc\nd\n");
    let synced = run(&["sync", "notes", "--connect", &server.url, "--data", &data, "--json"], "").object();
    assert_eq!(synced["documents"][0]["received"], 0, "it was all here");
}

#[test]
fn tail_follows_as_ops_become_durable() {
    let server = Server::memory();
    let reader = Process::start(&["tail", "notes", "--connect", &server.url, "--follow"]);
    let mut writer = Process::start(&["append", "notes", "--connect", &server.url]);
    let stdin = writer.stdin.as_mut().expect("piped");
    for line in ["one", "two", "three"] {
        std::io::Write::write_all(stdin, format!("{line}\n").as_bytes()).expect("it reads");
        assert_eq!(reader.line(), line, "before stdin has ended");
    }
    assert_eq!(writer.end().code, Some(0));
}

#[test]
fn sync_brings_both_ways_and_says_how_much() {
    let (scratch, server) = (Scratch::new(), Server::on(&Scratch::new().path("server")));
    let [a, b] = ["a", "b"].map(|name| scratch.name(name));
    let sync = |data: &str, documents: &[&str]| -> Vec<Value> {
        let arguments = [&["sync", "--connect", &server.url, "--data", data, "--json"], documents].concat();
        let Value::Array(documents) = run(&arguments, "").object()["documents"].take() else { panic!("no list") };
        documents
    };
    let counts = |synced: &Value| {
        assert_eq!(synced["in_step"], true, "{synced}");
        (synced["sent"].as_u64().expect("a number"), synced["received"].as_u64().expect("a number"))
    };
    let append = |data: &str, document: &str, lines: &str| run(&["append", document, "--data", data], lines).good();

    append(&a, "notes", "1\n2\n3\n");
    append(&a, "todo", "x\n");
    let synced = sync(&a, &["todo", "notes", "todo", "empty"]);
    let names: Vec<_> = synced.iter().map(|one| one["document"].as_str().expect("a name")).collect();
    assert_eq!(names, ["empty", "notes", "todo"]);
    assert_eq!(synced.iter().map(counts).collect::<Vec<_>>(), [(0, 0), (3, 0), (1, 0)]);

    assert_eq!(counts(&sync(&b, &["notes"])[0]), (0, 3));
    append(&a, "notes", "4\n");
    append(&b, "notes", "5\n6\n");
    assert_eq!(counts(&sync(&a, &["notes"])[0]), (1, 0));
    assert_eq!(counts(&sync(&b, &["notes"])[0]), (2, 1));
    let [at_a, at_b] = [&a, &b].map(|data| sync(data, &["notes"]).remove(0));
    assert_eq!((counts(&at_a), counts(&at_b)), ((0, 2), (0, 0)));
    assert_eq!(at_a["heads"], at_b["heads"]);
    assert_eq!(counts(&sync(&a, &["notes"])[0]), (0, 0));

    let table = run(&["sync", "notes", "--connect", &server.url, "--data", &a], "").good();
    let heads = at_a["heads"].as_str().expect("text");
    assert_eq!(
        table,
        format!("document  sent  received  in step  heads\nnotes        0         0  yes      {heads}\n")
    );
}

#[test]
fn log_shows_what_is_held_and_touches_nothing() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let server = Server::on(&home.path("server"));
    let data = scratch.name("a");
    run(&["append", "notes", "--data", &data, "--connect", &server.url], "1\n2\n").good();
    run(&["append", "notes", "--data", &data], "3\n").good();
    let files = || {
        let files = std::fs::read_dir(scratch.path("a")).expect("a directory").map(|file| {
            let path = file.expect("a file").path();
            (path.clone(), std::fs::read(path).expect("it can be read"))
        });
        files.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = files();
    let log = run(&["log", "notes", "--data", &data, "--json"], "").object();
    assert_eq!((&log["document"], &log["ops"]), (&json!("notes"), &json!(3)));
    assert_eq!(log["authors"][0]["seq"], 3);
    assert_eq!(log["authors"][0]["author"], log["replica"]);
    let ends: Vec<_> = log["timelines"].as_array().expect("a list").iter().map(|one| &one["ends"]).collect();
    assert_eq!(ends, [2, 3]);
    assert_eq!((&log["peers"][0]["position"], &log["peers"][0]["lag"]), (&json!(2), &json!(1)));
    let table = run(&["log", "notes", "--data", &data], "").good();
    assert!(table.starts_with(&format!("notes: 3 ops, heads {}", log["heads"].as_str().expect("text"))), "{table}");
    assert!(before == files(), "log has changed the directory");

    let server_log = run(&["log", "notes", "--data", &home.name("server"), "--json"], "").object();
    assert_eq!(server_log["ops"], 2, "the server's directory is looked at while it is in use");
    assert_eq!(server_log["peers"][0]["peer"], log["replica"]);
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn clients_that_keep_nothing_leave_no_trace_but_what_they_wrote() {
    let (scratch, home) = (Scratch::new(), Scratch::new());
    let server = Server::on(&home.path("server"));
    for number in 0..4 {
        run(&["append", "notes", "--connect", &server.url], format!("{number}\n")).good();
        run(&["tail", "notes", "--connect", &server.url], "").good();
        run(&["sync", "notes", "--connect", &server.url], "").good();
    }
    let data = scratch.name("keeper");
    run(&["sync", "notes", "--connect", &server.url, "--data", &data], "").good();
    let log = |data: &str| run(&["log", "notes", "--data", data, "--json"], "").object();
    let (there, here) = (log(&home.name("server")), log(&data));
    let peers: Vec<_> = there["peers"].as_array().expect("a list").iter().map(|one| &one["peer"]).collect();
    assert_eq!(peers, [&here["replica"]], "who keeps it may come back");
    assert_eq!(there["authors"].as_array().expect("a list").len(), 4);
    assert_eq!(here["peers"][0]["peer"], there["replica"]);
}
