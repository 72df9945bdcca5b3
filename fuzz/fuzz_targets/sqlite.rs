//! Any bytes as a database, as the log or the lock beside it, or as changes to a database that was whole: it opens, or is
//! an error; what is read is what was written, or an error; and what is not ours stays as it is.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use antiphon::digest::BodyHash;
use antiphon::heads::Head;
use antiphon::op::{Body, Cursor, DocumentId, Entry, Op, OpId, ReplicaId, Timeline};
use antiphon::rng::Rng;
use antiphon::storage::{Batch, Storage, StoredDocument, Transaction};
use antiphon::timeline::TimelineRecord;
use antiphon_sqlite::{DATABASE_NAME, Error, LOCK_NAME, Options, SqliteStorage, look};

use antiphon_fuzz::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| directory(data));

const AUTHOR: ReplicaId = ReplicaId([7; 16]);

/// A database that is whole, and what it holds.
struct Whole {
    bytes: Vec<u8>,
    lock: Vec<u8>,
    documents: BTreeMap<DocumentId, (StoredDocument, Vec<Entry>)>,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("there is room");
        let (mut storage, _) = open(directory.path()).expect("it is new");
        let mut documents = BTreeMap::new();
        for (name, sizes) in [("one", &[10, 200, 0, 3][..]), ("two", &[5_000, 1])] {
            let document: DocumentId = name.parse().expect("the name is valid");
            storage.write(&Transaction::Append(batch(&document, sizes).into())).expect("there is room");
            let stored = storage.document(&document).expect("it was written");
            documents.insert(document.clone(), (stored, storage.read(&document, 0, u64::MAX).expect("it was written")));
        }
        storage.close().expect("there is room");
        let read = |name| fs::read(directory.path().join(name)).expect("it was written");
        Whole { bytes: read(DATABASE_NAME), lock: read(LOCK_NAME), documents }
    })
}

fn batch(document: &DocumentId, sizes: &[usize]) -> Batch {
    let mut head = Head::NONE;
    let mut entries = Vec::new();
    for size in sizes {
        let body = vec![*size as u8; *size];
        head = head.then(BodyHash::of(&body));
        let op = Op { id: OpId { author: AUTHOR, seq: head.seq }, body: Body::Bytes(body.into()) };
        entries.push(Entry { op, chain: head.chain, origin: None });
    }
    let timeline = Timeline::new(5);
    let cursors = vec![(AUTHOR, Cursor { timeline, position: sizes.len() as u64 })];
    let timeline = Some(TimelineRecord { open: 1, timeline, begins: 0 });
    Batch { document: document.clone(), position: 0, entries, cursors, timeline, salvaged: None }
}

fn open(directory: &Path) -> Result<(SqliteStorage, antiphon::storage::Identity), Error> {
    SqliteStorage::open_replica(directory, &Options::default(), &mut Rng::new(1))
}

/// Makes such a directory of the input, looks at it, opens it, reads it and writes to it.
fn directory(data: &[u8]) {
    let whole = whole();
    let mut input = Reader(data);
    let directory = tempfile::tempdir().expect("there is room");
    let put = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).expect("there is room");
    let kind = input.below(4);
    match kind {
        0 => put(DATABASE_NAME, input.0),
        1 => {
            put(DATABASE_NAME, &changed(&mut input));
            put(LOCK_NAME, &whole.lock);
        }
        2 => {
            put(DATABASE_NAME, &whole.bytes);
            put(LOCK_NAME, input.0);
        }
        _ => {
            put(DATABASE_NAME, &whole.bytes);
            put(&format!("{DATABASE_NAME}-wal"), input.0);
        }
    }
    let before = fs::read(directory.path().join(DATABASE_NAME)).expect("it was written");

    let _ = look(directory.path(), |view| {
        let documents = view.documents()?;
        documents.iter().try_for_each(|document| view.document(document).map(drop))
    });
    let now = || fs::read(directory.path().join(DATABASE_NAME)).expect("nobody deletes it");
    assert!(now() == before, "a look has changed the database");

    match open(directory.path()) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if matches!(error, Error::Foreign { .. } | Error::Newer { .. }) {
                assert!(now() == before, "{error}, and it was written to");
            }
        }
        Ok((mut storage, _)) => {
            read(&mut storage, kind != 0);
            let document: DocumentId = "three".parse().expect("the name is valid");
            let _ = storage.write(&Transaction::Append(batch(&document, &[3]).into()));
            let _ = storage.close();
        }
    }
}

/// The database that was whole, with some of its bytes changed.
fn changed(input: &mut Reader<'_>) -> Vec<u8> {
    let mut bytes = whole().bytes.clone();
    if input.byte() == 0 {
        bytes.truncate(input.u64() as usize % bytes.len());
    }
    while !input.is_empty() && !bytes.is_empty() {
        let at = u32::from_le_bytes(std::array::from_fn(|_| input.byte())) as usize % bytes.len();
        bytes[at] ^= input.byte();
    }
    bytes
}

/// Reads everything. What of the database that was `known` is no error is what was written.
fn read(storage: &mut SqliteStorage, known: bool) {
    let Ok(documents) = storage.documents() else { return };
    for document in documents {
        let stored = storage.document(&document);
        let entries = storage.read(&document, 0, 1 << 20);
        let _ = storage.cursor(&document, AUTHOR);
        let _ = storage.chain(&document, OpId { author: AUTHOR, seq: 1 });
        let _ = storage.compare(&document, &antiphon::heads::Heads::new());
        let _ = storage.read_aside(&document, 0, 1 << 20);
        if !known {
            continue;
        }
        let written = whole().documents.get(&document);
        let Some((was, entries_were)) = written else { panic!("{document} comes from nowhere") };
        if let Ok(stored) = stored {
            assert_eq!((stored.tail, &stored.heads), (was.tail, &was.heads), "{document}");
        }
        if let Ok(entries) = entries {
            assert!(entries_were.starts_with(&entries), "{document}: {entries:?}");
        }
    }
}
