//! Files of JSON and CSV: in and out again the same, refused whole if they are no good, and kept in whole transactions.

mod common;

use std::fs;

use common::demand::demand;
use common::{Process, Scratch, Server, run};
use serde_json::{Value, json};

#[test]
fn a_hundred_thousand_rows_in_and_out_again() {
    const ROWS: usize = 100_000;
    let scratch = Scratch::new();
    let (data, file, out) = (scratch.name("data"), scratch.name("numbers.csv"), scratch.name("out.csv"));
    let mut lines: Vec<_> = (0..ROWS).map(|row| format!("{row},{},\"line\n{row}, \"\"quoted\"\"\"", row * 7)).collect();
    fs::write(&file, format!("id,count,text\n{}\n", lines.join("\n"))).expect("it can be written");
    let told = run(&["import", "figures", &file, "--key", "id", "--data", &data, "--json"], "").object();
    let rows = json!({ "document": "figures", "rows": ROWS, "cells": 2 * ROWS, "values": 0, "durable": true });
    assert_eq!(told, rows);
    run(&["export", "figures", &out, "--csv", "numbers", "--key", "id", "--data", &data], "").good();
    // Rows come in the order of their names.
    lines.sort_by_key(|line| line.split(',').next().map(str::to_owned));
    let exported = fs::read_to_string(&out).expect("it is there");
    assert!(exported == format!("id,count,text\n{}\n", lines.join("\n")), "{}", &exported[..200]);
    // Many transactions, but far fewer than rows.
    let ops = run(&["log", "figures", "--data", &data, "--json"], "").object()["ops"].as_u64().expect("a number");
    assert!((10..1000).contains(&ops), "{ops}");
}

#[test]
fn json_in_and_out_through_a_server() {
    let (scratch, server) = (Scratch::new(), Server::memory());
    let (file, out) = (scratch.name("all.json"), scratch.name("out.json"));
    let tables = json!({ "pets": { "fido": { "legs": 4, "name": "Fi\ndo" }, "__proto__": { "": [1, { "a": 2.5 }] } },
        "b": { "r": { "raw": { "$bytes": "00ff" }, "nothing": null } } });
    let all = json!({ "tables": tables, "values": { "open": true, "text": "4" } });
    fs::write(&file, all.to_string()).expect("it can be written");
    let connect = ["--connect", &server.url];
    let told = run(&[&["import", "pets", &file], &connect[..]].concat(), "").good();
    assert_eq!(told, "pets: 3 rows of 5 cells and 2 values imported, durable at the server\n");
    let stdout = run(&[&["export", "pets"], &connect[..]].concat(), "").object();
    assert_eq!(stdout, all);
    run(&[&["export", "pets", &out], &connect[..]].concat(), "").good();
    let written: Value = serde_json::from_slice(&fs::read(&out).expect("it is there")).expect("JSON");
    assert_eq!(written, all);
}

#[test]
fn fields_are_what_set_would_take() {
    let scratch = Scratch::new();
    let (data, file) = (scratch.name("data"), scratch.name("pets.csv"));
    let csv = "\u{feff}name,legs,tags,code\r\nfido,4,\"[\"\"good\"\"]\",007\r\nfelix,,null,\"\"\"4\"\"\"\r\n";
    fs::write(&file, csv).expect("it can be written");
    run(&["import", "pets", &file, "--data", &data], "").good();
    let pets = run(&["get", "pets", "pets", "--data", &data, "--json"], "").object();
    let fido = json!({ "name": "fido", "legs": 4, "tags": ["good"], "code": "007" });
    assert_eq!(pets, json!({ "2": fido, "3": { "name": "felix", "tags": null, "code": "4" } }));
    run(&["import", "pets", &file, "--key", "name", "--table", "named", "--data", &data], "").good();
    let cell = run(&["get", "pets", "named", "fido", "code", "--data", &data], "").good();
    assert_eq!(cell, "007\n");
    demand(&["export", "pets", "--csv", "named", "--key", "code", "--data", &data], 2, "usage", &["code", "--key"]);
    demand(&["export", "pets", "--csv", "birds", "--data", &data], 1, "unknown_table", &["birds", "named"]);
}

#[test]
fn a_file_that_is_no_good_is_refused_whole() {
    let scratch = Scratch::new();
    let data = scratch.name("data");
    let cases: &[(&str, &str, &[&str])] = &[
        ("ragged.csv", "a,b\n1,2\n1,2,3\n", &["line 3", "3 fields", "2"]),
        ("twice.csv", "a,a\n1,2\n", &["two columns", "a"]),
        ("nameless.csv", "a,\n1,2\n", &["column 2 has no name"]),
        ("empty.csv", "", &["empty"]),
        ("half.json", "{\"tables\":{\"t\":{\"r\":{\"c\":1}}", &["EOF", "line 1"]),
        ("form.json", "{\"t\":{\"r\":{\"c\":1}}}", &["t is neither", "tables"]),
        ("flat.json", "{\"tables\":{\"t\":{\"r\":1}}}", &["an object of cells for t r"]),
        ("bytes.json", "{\"values\":{\"v\":{\"$bytes\":\"xx\"}}}", &["v", "hexadecimal"]),
        ("more.json", "{} {}", &["trailing"]),
        ("list.json", "[]", &["\"tables\""]),
    ];
    for (name, content, words) in cases {
        fs::write(scratch.path(name), content).expect("it can be written");
        demand(&["import", "pets", &scratch.name(name), "--data", &data], 1, "input", &[&[*name], *words].concat());
    }
    let good = scratch.name("ragged.csv");
    fs::write(&good, b"a,b\n1,\xff\n").expect("it can be written");
    demand(&["import", "pets", &good, "--data", &data], 1, "input", &["line 2", "field 2", "UTF-8"]);
    fs::write(&good, "a,b\n,2\n").expect("it can be written");
    demand(&["import", "pets", &good, "--key", "a", "--data", &data], 1, "input", &["line 2", "nothing in column a"]);
    demand(&["import", "pets", &good, "--key", "c", "--data", &data], 1, "input", &["no column c", "a, b"]);
    demand(&["import", "pets", &scratch.name("none.csv"), "--data", &data], 1, "input", &["none.csv"]);
    demand(&["import", "pets", &scratch.name("pets.txt"), "--data", &data], 2, "usage", &["pets.txt", ".csv"]);
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo").arg(scratch.path("pipe.csv")).status();
        assert!(made.expect("mkfifo is there").success());
        demand(&["import", "pets", &scratch.name("pipe.csv"), "--data", &data], 1, "input", &["is no file"]);
    }
    let json = scratch.name("half.json");
    demand(&["import", "pets", &json, "--key", "c", "--data", &data], 2, "usage", &["--key"]);
    assert!(!scratch.path("data").exists(), "what is no good leaves nothing behind");
}

#[test]
fn kill_9_in_the_middle_keeps_whole_transactions() {
    const ROWS: usize = 100_000;
    let scratch = Scratch::new();
    let (data, file) = (scratch.name("data"), scratch.name("numbers.csv"));
    let lines: String = (0..ROWS).map(|row| format!("{row},{row},{row}\n")).collect();
    fs::write(&file, format!("id,a,b\n{lines}")).expect("it can be written");
    let import = ["import", "figures", &file, "--key", "id", "--data", &data];
    let process = Process::start(&import);
    // As soon as a few of its ops are there.
    let document = "figures".parse().expect("a good name");
    while !antiphon_sqlite::look(&data, |view| view.document(&document)).is_ok_and(|stored| stored.tail > 2) {
        std::thread::yield_now();
    }
    process.kill();
    let kept = run(&["get", "figures", "numbers", "--data", &data, "--json"], "").object();
    let kept = kept.as_object().expect("rows");
    assert!((1..ROWS).contains(&kept.len()), "{} rows", kept.len());
    let whole = |(row, cells): (&String, &Value)| {
        let number: usize = row.parse().expect("a number");
        assert!(number < kept.len(), "{number}: what is kept is what was written first");
        assert_eq!(cells, &json!({ "a": number, "b": number }));
    };
    kept.iter().for_each(whole);
    // Done again it is whole.
    run(&import, "").good();
    let all = run(&["get", "figures", "numbers", "--data", &data, "--json"], "").object();
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(ROWS));
}
