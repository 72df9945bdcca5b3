//! `antiphon compact`: what a store holds stays, its history goes, and documents that are no stores are left alone.

mod common;

use std::path::Path;

use antiphon::op::{Body, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::storage::{Batch, Storage, Transaction};
use antiphon::store::{ClientId, Store};
use antiphon::timeline::TimelineRecord;
use antiphon_sqlite::{Options, SqliteStorage};
use bytes::Bytes;
use common::demand::line;
use common::{Scratch, Server, bodies, run, text};
use serde_json::json;

fn doc() -> DocumentId {
    "pets".parse().expect("a good name")
}

/// Appends ops of one author to a document in a directory.
fn write(directory: &Path, ops: impl IntoIterator<Item = Bytes>) {
    let mut storage = SqliteStorage::open_directory(directory, &Options::default()).expect("it can be opened");
    let stored = storage.document(&doc()).expect("it can be read");
    let (author, mut heads) = (ReplicaId([7; 16]), stored.heads);
    let entries = ops.into_iter().map(|body| {
        let head = heads.get(author).then(Body::Bytes(body.clone()).hash());
        heads.set(author, head);
        Entry {
            op: Op { id: OpId { author, seq: head.seq }, body: Body::Bytes(body) },
            chain: head.chain,
            origin: None,
        }
    });
    let batch = Batch {
        document: doc(),
        position: stored.tail,
        entries: entries.collect(),
        cursors: Vec::new(),
        timeline: Some(TimelineRecord { open: 1, timeline: Timeline::new(1), begins: stored.tail }),
        salvaged: None,
    };
    storage.write(&Transaction::Append(batch.into())).expect("there is room");
    storage.close().expect("nothing is in the way");
}

/// So many transactions over ten cells.
fn transactions(store: &mut Store, count: u64) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    for number in 0..count {
        let mut transaction = store.begin(1_700_000_000_000 + number).expect("there are stamps");
        transaction.set_cell("pets", "fido", &format!("cell {}", number % 10), number as i64).expect("it fits");
        bodies.extend(transaction.commit().expect("it fits").body);
    }
    bodies
}

/// The store that a directory holds, of its snapshot and what follows.
fn store(directory: &Path) -> Store {
    let looked = antiphon_sqlite::look(directory, |view| {
        let stored = view.document(&doc())?;
        let mut store = Store::new(ClientId::default());
        if let Some(id) = stored.snapshot {
            let bytes = view.snapshot(&doc(), id, 0, id.bytes)?;
            assert_eq!(bytes.len() as u64, id.bytes, "it is small");
            let _ = store.apply(&bytes[id.head_bytes as usize..], 0).expect("it is a snapshot of a store");
        }
        for entry in view.read(&doc(), stored.horizon, u64::MAX)? {
            let _ = store.apply(entry.op.body.bytes().expect("no blank"), 0).expect("it is a transaction");
        }
        Ok(store)
    });
    looked.expect("it can be read")
}

#[test]
fn what_a_store_holds_stays() {
    let scratch = Scratch::new();
    let (data, path) = (scratch.name("data"), scratch.path("data"));
    let mut writer = Store::new(ClientId::default());
    write(&path, transactions(&mut writer, 1000));
    let compact = ["compact", "pets", "--data", &data, "--json"];
    let told = run(&[&compact[..], &["--below", "900"]].concat(), "").object();
    let bytes = told["snapshot_bytes"].as_u64().expect("a number");
    assert!(bytes < 600, "{told}: it is that of ten cells");
    let expected = json!({
        "document": "pets", "folded": 900, "foreign": 0, "horizon": 900, "left": 100, "snapshot_bytes": bytes
    });
    assert_eq!(told, expected);
    assert_eq!(store(&path).content_hash(), writer.content_hash());
    write(&path, transactions(&mut writer, 50));
    let again = run(&compact, "").object();
    assert_eq!((&again["folded"], &again["left"], &again["horizon"]), (&json!(150), &json!(0), &json!(1050)));
    assert_eq!(run(&compact, "").object()["folded"], 0, "there is nothing left to do");
    assert_eq!(store(&path).content_hash(), writer.content_hash());
    let log = run(&["log", "pets", "--data", &data, "--json"], "").object();
    assert_eq!((&log["ops"], &log["horizon"]), (&json!(1050), &json!(1050)));
    let shown = run(&["log", "pets", "--data", &data], "").good();
    assert!(shown.contains("stands for what is below position 1050"), "{shown}");
}

#[test]
fn who_comes_late_takes_the_snapshot_from_the_server() {
    let scratch = Scratch::new();
    let (data, path, late) = (scratch.name("data"), scratch.path("data"), scratch.path("late"));
    let mut writer = Store::new(ClientId::default());
    write(&path, transactions(&mut writer, 300));
    run(&["compact", "pets", "--data", &data], "").good();
    write(&path, transactions(&mut writer, 3));
    let server = Server::on(&path);
    let synced = run(&["sync", "pets", "--data", text(&late), "--connect", &server.url, "--json"], "").object();
    assert_eq!((&synced["documents"][0]["sent"], &synced["documents"][0]["received"]), (&json!(0), &json!(303)));
    assert_eq!(store(&late).content_hash(), writer.content_hash());
    let left = antiphon_sqlite::look(&late, |view| {
        let stored = view.document(&doc())?;
        Ok(stored.tail - stored.horizon)
    });
    assert_eq!(left.expect("it can be read"), 3, "the others exist only in the snapshot");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let scratch = Scratch::new();
    let (data, path) = (scratch.name("data"), scratch.path("data"));
    run(&["append", "notes", "--data", &data], "one\ntwo\n").good();
    line(&run(&["compact", "notes", "--data", &data], ""), 1, &["notes", "no store", "--skip-foreign"]);
    assert_eq!(bodies(&path, "notes").len(), 2);
    line(&run(&["compact", "nothing", "--data", &data], ""), 1, &["nothing", "notes"]);
    line(&run(&["compact", "notes", "--data", &data, "--below", "9"], ""), 2, &["0 to 2", "--below"]);
    let mut writer = Store::new(ClientId::default());
    let mut ops = transactions(&mut writer, 2);
    ops.insert(1, Bytes::from_static(b"hostile"));
    write(&path, ops);
    let told = run(&["compact", "pets", "--data", &data, "--skip-foreign", "--json"], "").object();
    assert_eq!((&told["folded"], &told["foreign"]), (&json!(3), &json!(1)));
    assert_eq!(store(&path).content_hash(), writer.content_hash());
}
