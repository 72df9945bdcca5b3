//! Files that are not what was written: refused, or noticed when they are read; never believed, never overwritten.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use antiphon::digest::BodyHash;
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::storage::{Identity, Storage, StoredDocument, Transaction};
use antiphon::timeline::TimelineRecord;
use antiphon_sqlite::{APPLICATION_ID, DATABASE_NAME, Error, FORMAT_VERSION, Options, SqliteStorage};
use common::{Script, open, open_replica, refusal};
use rusqlite::Connection;
use tempfile::TempDir;

/// A directory with all that can be stored: many authors, bodies that stand apart, blanks, cursors, what was put aside, and
/// snapshots that were made, taken, and are coming.
fn full() -> TempDir {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open_replica(directory.path(), 1);
    for (name, size, count) in [("small", 20, 400), ("large", 9000, 5), ("gone", 40, 150)] {
        let mut script = Script::new(name, size);
        (0..5).for_each(|_| storage.write(&script.write(count / 5)).unwrap());
    }
    let timeline = TimelineRecord { open: 1, timeline: Timeline::new(9), begins: 0 };
    storage.write(&Transaction::Reset { document: "gone".parse().unwrap(), timeline }).unwrap();
    storage.write(&Script::new("gone", 25).write(60)).unwrap();
    let mut many = Script::new("many", 0).batch(0);
    let mut heads = Heads::new();
    for number in 0..300_u64 {
        let author = ReplicaId([number as u8 % 50; 16]);
        let bytes = format!("op {number}").into_bytes();
        let hash = BodyHash::of(&bytes);
        let body = if number % 7 == 0 { Body::Blank(hash) } else { Body::Bytes(bytes.into()) };
        let head = heads.get(author).then(hash);
        heads.set(author, head);
        let op = Op { id: OpId { author, seq: head.seq }, body };
        many.entries.push(Entry { op, chain: head.chain, origin: None });
    }
    storage.write(&Transaction::Append(many.into())).unwrap();
    let mut short = Script::new("short", 6000);
    storage.write(&short.write(20)).unwrap();
    let (document, body) = (short.document.clone(), vec![3; 5000].into());
    storage.write(&Transaction::Compact { document, horizon: 12, body }).unwrap();
    storage.write(&short.write(5)).unwrap();
    for (name, number) in [("taken", 1), ("coming", 2)] {
        let document = name.parse().unwrap();
        let writes = common::staging(&document, &common::snapshot(number, 70_000), 30_000);
        writes.iter().for_each(|write| storage.write(write).unwrap());
    }
    storage.write(&common::install(&"taken".parse().unwrap(), 1)).unwrap();
    storage.close().unwrap();
    directory
}

/// All that a storage tells of a document.
#[derive(Debug, PartialEq)]
struct Content {
    state: StoredDocument,
    entries: Vec<Entry>,
    aside: Vec<Entry>,
    cursors: Vec<(ReplicaId, Cursor)>,
    comparisons: Vec<Comparison>,
    snapshot: Vec<u8>,
}

fn content(storage: &mut SqliteStorage, document: &DocumentId) -> Result<Content, Error> {
    let state = storage.document(document)?;
    let (mut entries, mut aside) = (Vec::new(), Vec::new());
    while state.horizon + (entries.len() as u64) < state.tail {
        entries.extend(storage.read(document, state.horizon + entries.len() as u64, 2000)?);
    }
    if let Some((from, to)) = state.aside {
        while from + (aside.len() as u64) < to {
            aside.extend(storage.read_aside(document, from + aside.len() as u64, 2000)?);
        }
    }
    let half: Heads = state.heads.iter().map(|(author, head)| (author, Head { seq: head.seq / 2, ..head })).collect();
    let comparisons = vec![storage.compare(document, &Heads::new())?, storage.compare(document, &half)?];
    let (cursors, snapshot) = (storage.cursors(document)?, common::read_snapshot(storage, document)?);
    Ok(Content { state, entries, aside, cursors, comparisons, snapshot })
}

type Contents = (Option<Identity>, BTreeMap<DocumentId, Content>);

fn contents(directory: &Path) -> Contents {
    let mut storage = open(directory);
    let documents = storage.documents().unwrap();
    let each = documents.into_iter().map(|id| (id.clone(), content(&mut storage, &id).unwrap()));
    let documents = each.collect();
    (storage.identity().unwrap(), documents)
}

/// What damage did, and whether it was noticed.
#[derive(Debug, Default)]
struct Noticed {
    when_opened: u32,
    when_read: u32,
    harmless: u32,
}

/// Opens a damaged database and demands that whatever it tells is what was written.
fn examine(bytes: &[u8], expected: &Contents, noticed: &mut Noticed, what: &str) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(DATABASE_NAME), bytes).unwrap();
    let mut storage = match SqliteStorage::open_directory(directory.path(), &Options::default()) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(error.to_string().contains(DATABASE_NAME), "{what}: {error}");
            noticed.when_opened += 1;
            return;
        }
    };
    let mut sound = true;
    let mut check = |told: Result<bool, Error>, of: &str| match told {
        Ok(same) => assert!(same, "{what}: {of} is not what was written"),
        Err(Error::Damaged { .. }) => sound = false,
        Err(other) => panic!("{what}: {other}"),
    };
    check(storage.identity().map(|identity| identity == expected.0), "the identity");
    check(storage.documents().map(|documents| documents.iter().eq(expected.1.keys())), "the list of documents");
    for (document, written) in &expected.1 {
        check(content(&mut storage, document).map(|content| content == *written), document.as_str());
    }
    let coming = "coming".parse().unwrap();
    let installed =
        storage.write(&common::install(&coming, 1)).and_then(|()| common::read_snapshot(&mut storage, &coming));
    check(installed.map(|bytes| bytes == common::bytes_of(&common::snapshot(2, 70_000))), "what was staged");
    *(if sound { &mut noticed.harmless } else { &mut noticed.when_read }) += 1;
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let directory = full();
    let expected = contents(directory.path());
    let written = fs::read(directory.path().join(DATABASE_NAME)).unwrap();
    let (mut rng, mut noticed) = (Rng::new(6), Noticed::default());
    for round in 0..400 {
        // Every other one in the first page or the headers of the others, where SQLite keeps its own structures.
        let byte = match round % 4 {
            0 => rng.below(4096),
            1 => rng.below(written.len() as u64 / 4096) * 4096 + rng.below(64),
            _ => rng.below(written.len() as u64),
        };
        let bit = rng.below(8);
        let mut bytes = written.clone();
        bytes[byte as usize] ^= 1 << bit;
        examine(&bytes, &expected, &mut noticed, &format!("bit {bit} of byte {byte} flipped"));
    }
    println!("{noticed:?}");
    assert!(noticed.when_opened > 20 && noticed.when_read > 100, "{noticed:?}");
}

/// A document that is gone from the list looks like one that never was, and a replica without its identity like a new
/// one: that is noticed before anything is read.
#[test]
fn a_row_that_is_gone_from_a_list_is_missed() {
    let directory = full();
    let file = directory.path().join(DATABASE_NAME);
    let written = fs::read(&file).unwrap();
    for table in ["document", "sqlite_autoindex_document_1", "replica"] {
        let raw = Connection::open(&file).unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: i64 = raw.query_row(root, [table], |row| row.get(0)).unwrap();
        drop(raw);
        let mut bytes = written.clone();
        let count = (page as usize - 1) * 4096 + 4; // of the rows in the page; all of it, as there are few
        assert!(bytes[count] > 0, "{table}");
        bytes[count] -= 1;
        fs::write(&file, bytes).unwrap();
        let error = refusal(directory.path());
        assert!(matches!(error, Error::Damaged { .. }), "{table}: {error}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_noticed() {
    let directory = full();
    let expected = contents(directory.path());
    let written = fs::read(directory.path().join(DATABASE_NAME)).unwrap();
    let mut noticed = Noticed::default();
    let pages = written.len() / 4096;
    let lengths =
        (1..100).step_by(7).chain((1..pages).map(|page| page * 4096)).chain((1..pages).map(|page| page * 4099));
    for length in lengths {
        examine(&written[..length], &expected, &mut noticed, &format!("cut off at {length} of {}", written.len()));
    }
    assert_eq!(noticed.harmless, 0, "{noticed:?}");
}

/// SQLite forgets what stands in its log from the first damage on. What was synced is not there any more.
#[test]
fn a_log_that_is_cut_off_leaves_a_beginning() {
    let directory = TempDir::new().unwrap();
    let (mut storage, mut script) = (open(directory.path()), Script::new("doc", 50));
    for _ in 0..20 {
        storage.write(&script.write(10)).unwrap();
    }
    let [database, log] = [DATABASE_NAME, "antiphon.db-wal"].map(|name| fs::read(directory.path().join(name)).unwrap());
    let mut tails = Vec::new();
    for length in (0..=log.len()).step_by(4777).chain([log.len()]) {
        let copy = TempDir::new().unwrap();
        fs::write(copy.path().join(DATABASE_NAME), &database).unwrap();
        fs::write(copy.path().join("antiphon.db-wal"), &log[..length]).unwrap();
        tails.push(Script::new("doc", 50).resume(&mut open(copy.path())));
    }
    assert!(tails.is_sorted() && tails.first() == Some(&0) && tails.last() == Some(&200), "{tails:?}");
}

/// The error, and a proof that the directory is as it was.
fn left_alone(directory: &Path) -> Error {
    let files = || {
        let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        files.map(|file| (file.clone(), fs::read(file).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = files();
    let error = refusal(directory);
    assert!(files() == before, "{error}: {:?} was {:?}", files().keys(), before.keys());
    assert!(error.to_string().contains(directory.join(DATABASE_NAME).to_str().unwrap()), "{error}");
    error
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let directory = full();
    let file = directory.path().join(DATABASE_NAME);
    let raw = Connection::open(&file).unwrap();
    raw.pragma_update(None, "user_version", FORMAT_VERSION + 1).unwrap();
    drop(raw);
    let told = left_alone(directory.path()).to_string();
    assert!(told.ends_with("has format 3, and this version knows 2 at most; use a newer version"), "{told}");

    // It was killed before its version had come from the log into the file.
    let raw = Connection::open(&file).unwrap();
    raw.pragma_update(None, "user_version", FORMAT_VERSION).unwrap();
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    raw.pragma_update(None, "user_version", FORMAT_VERSION + 7).unwrap();
    let copy = TempDir::new().unwrap();
    common::copy_files(directory.path(), copy.path());
    let error = refusal(copy.path());
    assert!(matches!(error, Error::Newer { version, .. } if version == FORMAT_VERSION + 7), "{error}");
}

#[test]
fn something_else_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(DATABASE_NAME);
    let page = [b'x'; 4096];
    for bytes in [&b"x"[..], b"SQLite format 2\0", b"# notes\n", &[0; 100], &page] {
        fs::write(&file, bytes).unwrap();
        assert!(matches!(left_alone(directory.path()), Error::Foreign { .. }));
    }
    for application in [0, APPLICATION_ID ^ 1] {
        fs::remove_file(&file).unwrap();
        let other = Connection::open(&file).unwrap();
        other.execute_batch("CREATE TABLE document (name TEXT)").unwrap();
        other.pragma_update(None, "application_id", application).unwrap();
        drop(other);
        assert!(matches!(left_alone(directory.path()), Error::Foreign { .. }));
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(refusal(directory.path()), Error::Inaccessible { .. }));
}

#[test]
fn a_database_that_is_gone_is_missed() {
    for empty in [false, true] {
        let directory = full();
        let file = directory.path().join(DATABASE_NAME);
        if empty {
            fs::write(&file, []).unwrap()
        } else {
            fs::remove_file(&file).unwrap()
        };
        let error = refusal(directory.path());
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}

#[test]
fn damage_while_it_is_in_use_is_noticed() {
    let directory = full();
    let mut storage = open(directory.path());
    let document = "small".parse().unwrap();
    let bytes = fs::read(directory.path().join(DATABASE_NAME)).unwrap();
    let body = Script::new("small", 20).entries(400)[333].op.body.bytes().unwrap().clone();
    let at = bytes.windows(body.len()).position(|window| window == body).unwrap();
    use std::io::{Seek, SeekFrom, Write};
    let mut file = fs::File::options().write(true).open(directory.path().join(DATABASE_NAME)).unwrap();
    file.seek(SeekFrom::Start(at as u64 + 3)).unwrap();
    file.write_all(&[!body[3]]).unwrap();
    let told = storage.read(&document, 0, u64::MAX).unwrap_err().to_string();
    assert!(told.contains("is damaged") && told.contains("restore a backup"), "{told}");
    assert_eq!(storage.read(&document, 0, 2000).unwrap().len(), 38, "what stands elsewhere");
}
