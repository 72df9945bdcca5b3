//! Stores on the command line: every level, offline and through a server, and what is said when something is not there.

mod common;

use common::demand::demand;
use common::{Scratch, Server, run, text};
use serde_json::{Value, json};

#[test]
fn every_level_offline() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let at = |rest: &[&str]| run(&[rest, &["--data", &data, "--json"]].concat(), "").object();
    let set = |place: &[&str], changed: u64| {
        let expected = json!({ "document": "pets", "changed": changed, "durable": true });
        assert_eq!(at(&[&["set", "pets"], place].concat()), expected);
    };
    set(&["pets", "fido", "species", "dog"], 1);
    set(&["pets", "fido", "species", "dog"], 0);
    set(&["pets", "fido", "legs", "4"], 1);
    set(&["pets", "-1", "legs", "-4"], 1);
    set(&["other", "", "__proto__", "{\"b\":[1,2.5],\"a\":null}"], 1);
    set(&["--value", "open", "true"], 1);
    set(&["--value", "number", "\"4\""], 1);
    let pets = json!({ "-1": { "legs": -4 }, "fido": { "species": "dog", "legs": 4 } });
    let tables = json!({ "pets": pets, "other": { "": { "__proto__": { "a": null, "b": [1, 2.5] } } } });
    let values = json!({ "open": true, "number": "4" });
    let parts: &[(&[&str], Value)] = &[
        (&[], json!({ "tables": tables, "values": values })),
        (&["--tables"], tables.clone()),
        (&["--values"], values),
        (&["--value", "number"], json!("4")),
        (&["pets"], pets),
        (&["pets", "fido"], json!({ "species": "dog", "legs": 4 })),
        (&["pets", "fido", "legs"], json!(4)),
        (&["other", "", "__proto__"], json!({ "a": null, "b": [1, 2.5] })),
    ];
    for (part, expected) in parts {
        assert_eq!(&at(&[&["get", "pets"], *part].concat()), expected, "{part:?}");
    }
    let deleted = |place: &[&str], deleted: u64, left: Value| {
        let expected = json!({ "document": "pets", "deleted": deleted, "durable": true });
        assert_eq!(at(&[&["del", "pets"], place].concat()), expected, "{place:?}");
        assert_eq!(at(&["get", "pets"]), left, "{place:?}");
    };
    let values = json!({ "open": true, "number": "4" });
    deleted(&["pets", "fido", "legs"], 1, {
        let pets = json!({ "-1": { "legs": -4 }, "fido": { "species": "dog" } });
        json!({ "tables": { "pets": pets, "other": tables["other"] }, "values": values })
    });
    let pets = json!({ "fido": { "species": "dog" } });
    deleted(&["pets", "-1"], 1, json!({ "tables": { "pets": pets, "other": tables["other"] }, "values": values }));
    deleted(&["other"], 1, json!({ "tables": { "pets": pets }, "values": values }));
    deleted(&["--value", "number"], 1, json!({ "tables": { "pets": pets }, "values": { "open": true } }));
    deleted(&["--tables"], 1, json!({ "tables": {}, "values": { "open": true } }));
    deleted(&["--values"], 1, json!({ "tables": {}, "values": {} }));
    set(&["pets", "fido", "species", "dog"], 1);
    set(&["--value", "open", "true"], 1);
    deleted(&[], 2, json!({ "tables": {}, "values": {} }));
}

#[test]
fn people_see_tables_and_scripts_see_what_a_cell_holds() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let at = |rest: &[&str]| run(&[rest, &["--data", &data]].concat(), "").good();
    assert_eq!(at(&["set", "pets", "pets", "fido", "legs", "4"]), "pets: set, durable here\n");
    at(&["set", "pets", "pets", "felix", "sound", "a\u{1b}[2J\nb"]);
    at(&["set", "pets", "--value", "number", "\"4\""]);
    let expected = "pets: 2 rows\nrow    legs  sound\nfelix        \"a\\u001b[2J\\nb\"\nfido      4\n\n\
                    value   content\nnumber  \"4\"\n";
    assert_eq!(at(&["get", "pets"]), expected);
    assert_eq!(at(&["get", "pets", "--value", "number"]), "4\n");
    assert_eq!(at(&["get", "pets", "pets", "felix", "sound"]), "a\u{1b}[2J\nb\n");
    assert_eq!(at(&["get", "pets", "pets", "fido"]), "cell  content\nlegs  4\n");
}

#[test]
fn two_directories_through_a_server() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let [fido, felix] = ["fido", "felix"].map(|name| scratch.name(name));
    let cell = |name, legs| ["set", "pets", "pets", name, "legs", legs];
    run(&[&cell("fido", "4")[..], &["--data", &fido]].concat(), "").good();
    let connect = ["--connect", &server.url];
    let told = run(&[&cell("felix", "4")[..], &["--data", &felix], &connect].concat(), "").good();
    assert_eq!(told, "pets: set, durable at the server\n");
    // The next call from the first brings what it kept, and sees the other.
    run(&[&["get", "pets", "--data", &fido, "--json"][..], &connect].concat(), "").object();
    run(&[&cell("rex", "3")[..], &["--data", &fido], &connect].concat(), "").good();
    let all = json!({ "tables": { "pets": { "fido": { "legs": 4 }, "felix": { "legs": 4 }, "rex": { "legs": 3 } } },
        "values": {} });
    assert_eq!(run(&[&["get", "pets", "--json"], &connect[..]].concat(), "").object(), all);
    run(&[&["del", "pets", "pets", "fido"], &connect[..]].concat(), "").good();
    run(&["sync", "pets", "--data", &fido, "--connect", &server.url], "").good();
    let left = run(&["get", "pets", "pets", "--data", &fido, "--json"], "").object();
    assert_eq!(left, json!({ "felix": { "legs": 4 }, "rex": { "legs": 3 } }));
}

#[test]
fn what_does_not_reach_the_server_is_kept_for_the_next_call() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let url = format!("ws://{free}");
    let set = ["set", "pets", "pets", "fido", "legs", "4", "--connect", &url, "--timeout", "0.2", "--json"];
    let without = run(&set, "");
    assert_eq!((without.code, without.stdout.as_slice()), (Some(3), &b""[..]), "{}", without.stderr);
    let late = run(&[&set[..], &["--data", &data]].concat(), "");
    assert_eq!(late.code, Some(3), "{}", late.stderr);
    let told: Value = serde_json::from_slice(&late.stdout).expect("one object");
    assert_eq!(told, json!({ "document": "pets", "changed": 1, "durable": false }));
    let reading = run(&["get", "pets", "--data", &data, "--connect", &url, "--timeout", "0.2"], "");
    assert_eq!(reading.code, Some(3), "{}", reading.stderr);
    let server = Server::listening(&free.to_string(), &[]);
    run(&["set", "pets", "pets", "felix", "legs", "4", "--data", &data, "--connect", &server.url], "").good();
    let all = run(&["get", "pets", "pets", "--connect", &server.url, "--json"], "").object();
    assert_eq!(all, json!({ "fido": { "legs": 4 }, "felix": { "legs": 4 } }));
}

#[test]
fn what_is_not_there_and_what_cant_be_meant() {
    let scratch = Scratch::new();
    let (data, nowhere) = (scratch.name("data"), scratch.name("nowhere"));
    run(&["set", "pets", "pets", "fido", "legs", "4", "--data", &data], "").good();
    for command in ["get", "del"] {
        let at = |rest: &[&'static str]| [&[command], rest, &["--data", &data]].concat();
        demand(&at(&["pets", "birds"]), 1, "unknown_table", &["birds", "name one that is there: pets"]);
        demand(&at(&["pets", "pets", "rex"]), 1, "unknown_row", &["rex", "fido"]);
        demand(&at(&["pets", "pets", "fido", "arms"]), 1, "unknown_cell", &["arms", "legs"]);
        demand(&at(&["pets", "--value", "open"]), 1, "unknown_value", &["open", "antiphon set"]);
        demand(&at(&["birds"]), 1, "unknown_document", &["birds", "pets"]);
        demand(&at(&["pets", "pets", "--values"]), 2, "usage", &["--values"]);
        demand(&[command, "pets", "--data", &nowhere], 1, "data_inaccessible", &["nowhere"]);
        demand(&[command, "pets"], 2, "usage", &["--data"]);
    }
    let long = "x".repeat(1025);
    let set = |rest: &[&str]| demand(&[&["set", "pets"], rest, &["--data", &data]].concat(), 2, "usage", &[]);
    set(&["pets", "fido", "legs"]);
    set(&["--value", "open"]);
    set(&["pets", "fido", "legs", &format!("{}1{}", "[".repeat(100), "]".repeat(100))]);
    demand(&["set", "pets", "t", "r", &long, "1", "--data", &data], 1, "store_refused", &["1024"]);
    assert!(!scratch.path("nowhere").exists(), "who only reads makes no directory");
}

#[test]
fn a_document_of_another_kind_is_none() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let data = scratch.name("data");
    run(&["append", "notes", "--data", &data, "--connect", &server.url], "one\ntwo\n").good();
    for place in [["--data", data.as_str()], ["--connect", server.url.as_str()]] {
        for command in
            [&["get", "notes"][..], &["set", "notes", "t", "r", "c", "1"], &["del", "notes"], &["export", "notes"]]
        {
            demand(&[command, &place].concat(), 1, "not_a_store", &["notes", "2 ops", "antiphon tail"]);
        }
    }
    // Among others they are left out, and told of.
    run(&["set", "pets", "t", "r", "c", "1", "--data", &data], "").good();
    run(&["append", "pets", "--data", &data], "one\n").good();
    let mixed = run(&["get", "pets", "t", "r", "c", "--data", &data], "");
    assert_eq!((mixed.code, mixed.stdout.as_slice()), (Some(0), &b"1\n"[..]));
    assert!(mixed.stderr.contains("1 of its ops are none of a store"), "{}", mixed.stderr);
}

/// The same thousand cells are imported again and again, and what the server holds stays of their size.
#[test]
fn a_server_that_holds_a_store_compacts_it() {
    let scratch = Scratch::new();
    let (data, mine, file) = (scratch.name("srv"), scratch.name("mine"), scratch.path("table.csv"));
    let server = Server::with(&["--data", &data, "--store", "numbers"]);
    for round in 0..12 {
        let rows: Vec<_> = (0..1000).map(|row| format!("row{row},{}\n", 1_000_000 + row + 1000 * round)).collect();
        std::fs::write(&file, format!("name,number\n{}", rows.concat())).expect("there is room");
        let import = ["import", "numbers", text(&file), "--key", "name", "--data", &mine, "--connect", &server.url];
        run(&import, "").good();
    }
    server.terminate();
    let log = run(&["log", "numbers", "--data", &data, "--json"], "").object();
    assert!(log["horizon"].as_u64() > Some(0), "it was compacted: {log}");
    let all = run(&["get", "numbers", "--data", &data, "--json"], "").object();
    assert_eq!(all["tables"]["table"]["row7"]["number"], json!(1_011_007));
}

#[test]
fn a_server_does_not_take_a_document_of_lines_for_a_store() {
    let scratch = Scratch::new();
    let data = scratch.name("srv");
    run(&["append", "notes", "--data", &data], "one\ntwo\n").good();
    let refused = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data, "--store", "notes"], "");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("notes is no store: it has 2 ops of another kind"), "{}", refused.stderr);
}
