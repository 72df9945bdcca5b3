//! A directory is looked at without a trace: closed, open, left behind by a holder that was killed, or not one at all.

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use antiphon::storage::Storage;
use antiphon_sqlite::{DATABASE_NAME, Error, LOCK_NAME, look};
use common::{Script, copy_files, open, open_replica};
use tempfile::TempDir;

/// All files, but for the memory that SQLite's processes share.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    files.filter(|(name, _)| !name.ends_with("-shm")).collect()
}

/// Demands that a look shows this much of a script's log, and changes nothing.
fn shows(directory: &Path, script: &Script, ops: u64) {
    let before = files(directory);
    let document = &script.document;
    let (state, cursors, entries, documents) = look(directory, |view| {
        Ok((view.document(document)?, view.cursors(document)?, view.read(document, 0, 1 << 30)?, view.documents()?))
    })
    .unwrap();
    assert_eq!((state.tail, entries.len() as u64), (ops, ops));
    let mut anew = Script::new(document.name(), script.size);
    assert!(entries == anew.entries(ops), "other entries");
    assert_eq!(cursors.iter().map(|(_, cursor)| cursor.position).collect::<Vec<_>>(), [ops]);
    assert_eq!(documents, std::slice::from_ref(document));
    assert!(before == files(directory), "the look left traces");
}

#[test]
fn nothing_is_changed_whatever_state_the_directory_is_in() {
    // Characters that mean something in a URL.
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("50% of a?b#c");
    let mut script = Script::new("notes", 300);
    let (mut storage, identity) = open_replica(&directory, 1);
    storage.write(&script.write(40)).unwrap();
    shows(&directory, &script, 40);
    storage.write(&script.write(40)).unwrap();
    shows(&directory, &script, 80);

    let killed = parent.path().join("killed");
    copy_files(&directory, &killed);
    shows(&killed, &script, 80);

    storage.close().unwrap();
    shows(&directory, &script, 80);
    assert_eq!(look(&directory, |view| view.identity()).unwrap(), Some(identity.clone()));
    let (storage, again) = open_replica(&directory, 2);
    assert_eq!(again.replica, identity.replica, "the replica did not notice that somebody looked");
    drop(storage);
}

#[test]
fn a_holder_goes_on_while_somebody_looks() {
    let directory = TempDir::new().unwrap();
    let mut storage = open(directory.path());
    let mut script = Script::new("notes", 300);
    storage.write(&script.write(10)).unwrap();
    look(directory.path(), |view| {
        let before = view.document(&script.document)?;
        storage.write(&script.write(10))?;
        assert_eq!(view.document(&script.document)?, before, "a view is of one moment");
        Ok(())
    })
    .unwrap();
    shows(directory.path(), &script, 20);
}

#[test]
fn what_changes_under_the_look_is_looked_at_again() {
    let directory = TempDir::new().unwrap();
    let mut script = Script::new("notes", 300);
    let mut storage = open(directory.path());
    storage.write(&script.write(10)).unwrap();
    storage.close().unwrap();
    let mut looks = 0;
    let tail = look(directory.path(), |view| {
        looks += 1;
        if looks == 1 {
            let mut storage = open(directory.path());
            storage.write(&script.write(10))?;
            storage.close()?;
        }
        Ok(view.document(&script.document)?.tail)
    });
    assert_eq!((tail.unwrap(), looks), (20, 2));
}

#[test]
fn what_is_no_directory_of_this_format_is_refused() {
    let parent = TempDir::new().unwrap();
    let nothing = |directory: &Path| look(directory, |_| Ok(())).unwrap_err();
    let missing = nothing(&parent.path().join("missing"));
    assert!(
        matches!(&missing, Error::Inaccessible { source, .. } if source.kind() == ErrorKind::NotFound),
        "{missing}"
    );
    let empty = nothing(parent.path());
    assert!(matches!(&empty, Error::Inaccessible { source, .. } if source.kind() == ErrorKind::NotFound), "{empty}");
    std::fs::write(parent.path().join(DATABASE_NAME), "this is a shopping list, and no database at all").unwrap();
    let foreign = nothing(parent.path());
    assert!(matches!(foreign, Error::Foreign { .. }), "{foreign}");
    assert!(!parent.path().join(LOCK_NAME).exists());
}
