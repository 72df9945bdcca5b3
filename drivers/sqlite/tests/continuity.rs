//! Who keeps its replica id: who comes back to the directory that it left. Who finds a copy, or a backup, does not.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::Path;

use antiphon::op::ReplicaId;
use antiphon::rng::Rng;
use antiphon::storage::{Continuity, Storage};
use antiphon_sqlite::{DATABASE_NAME, Durability, LOCK_NAME, Options, SqliteStorage};
use common::{Script, Told, child_command, child_directory, copy_files, open, open_replica};
use tempfile::TempDir;

/// The id of the replica that opens the directory now, and closes it again.
fn id(directory: &Path) -> ReplicaId {
    let (storage, identity) = open_replica(directory, fresh_seed());
    storage.close().unwrap();
    identity.replica
}

/// Entropy, as far as the tests go: never the same twice.
fn fresh_seed() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEED: AtomicU64 = AtomicU64::new(1);
    SEED.fetch_add(1, Ordering::Relaxed)
}

/// A directory that was used, and closed.
fn used() -> (TempDir, ReplicaId) {
    let directory = TempDir::new().unwrap();
    let (mut storage, identity) = open_replica(directory.path(), fresh_seed());
    storage.write(&Script::new("doc", 100).write(200)).unwrap();
    storage.close().unwrap();
    (directory, identity.replica)
}

/// As if the machine had been started anew since the directory was last used.
fn reboot(directory: &Path) {
    replace_line(directory, "boot", "00000000-0000-0000-0000-000000000000");
}

fn replace_line(directory: &Path, name: &str, value: &str) {
    let path = directory.join(LOCK_NAME);
    let text = fs::read_to_string(&path).unwrap();
    let prefix = format!("{name} ");
    assert!(text.lines().any(|line| line.starts_with(&prefix)), "no {name} in {text}");
    let replaced =
        |line: &str| if line.starts_with(&prefix) { format!("{prefix}{value}\n") } else { format!("{line}\n") };
    fs::write(path, text.lines().map(replaced).collect::<String>()).unwrap();
}

#[test]
fn closing_in_order_keeps_the_id_also_over_a_reboot() {
    let (directory, before) = used();
    assert_eq!(id(directory.path()), before);
    reboot(directory.path());
    assert_eq!(id(directory.path()), before);
    // Dropping closes too.
    let (storage, identity) = open_replica(directory.path(), fresh_seed());
    drop(storage);
    reboot(directory.path());
    assert_eq!((identity.replica, id(directory.path())), (before, before));
}

#[test]
fn moving_the_directory_keeps_the_id() {
    let place = TempDir::new().unwrap();
    let (here, there) = (place.path().join("here"), place.path().join("there"));
    let before = id(&here);
    fs::rename(&here, &there).unwrap();
    assert_eq!(id(&there), before);
}

#[test]
fn being_killed_keeps_the_id_unless_the_machine_is_restarted() {
    let (directory, before) = used();
    for rebooted in [false, true] {
        let mut child = Told::spawn(child_command("uses_it_until_it_is_killed", directory.path()));
        assert_eq!(child.hear("id"), Some(before.to_string()));
        child.kill("");
        if rebooted {
            reboot(directory.path());
            assert_ne!(id(directory.path()), before, "what was not synced may be lost");
        } else {
            assert_eq!(id(directory.path()), before);
        }
    }
}

#[test]
fn with_fsync_a_restart_of_the_machine_keeps_the_id() {
    let (directory, before) = used();
    let mut child = Told::spawn(child_command("uses_it_with_fsync_until_it_is_killed", directory.path()));
    assert_eq!(child.hear("id"), Some(before.to_string()));
    child.kill("");
    reboot(directory.path());
    assert_eq!(id(directory.path()), before);
}

#[test]
fn uses_it_until_it_is_killed() {
    child_directory().into_iter().for_each(|directory| use_it(directory.as_ref(), Durability::Commit));
}

#[test]
fn uses_it_with_fsync_until_it_is_killed() {
    child_directory().into_iter().for_each(|directory| use_it(directory.as_ref(), Durability::Fsync));
}

fn use_it(directory: &Path, durability: Durability) {
    // A small log: it is moved into the database again and again, which changes the file.
    let options = Options { durability, log_max: 64 << 10, ..Options::default() };
    let mut entropy = Rng::new(u64::from(std::process::id()));
    let (mut storage, identity) = SqliteStorage::open_replica(directory, &options, &mut entropy).unwrap();
    let mut script = Script::new("doc", 100);
    script.resume(&mut storage);
    for _ in 0..100 {
        storage.write(&script.write(10)).unwrap();
    }
    eprintln!("id {}", identity.replica);
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn another_machine_is_another_replica() {
    let (directory, before) = used();
    let text = fs::read_to_string(directory.path().join(LOCK_NAME)).unwrap();
    if text.contains("\nmachine ") {
        replace_line(directory.path(), "machine", "0123456789abcdef0123456789abcdef");
    } else {
        // This machine has no id of its own: nor had the other.
        fs::write(directory.path().join(LOCK_NAME), text.replace("end\n", "machine 0123456789abcdef\nend\n")).unwrap();
    }
    assert_ne!(id(directory.path()), before);
}

#[test]
fn a_copy_of_the_directory_is_another_replica() {
    let (directory, before) = used();
    let copy = TempDir::new().unwrap();
    copy_files(directory.path(), copy.path());
    assert_ne!(id(copy.path()), before);
    assert_eq!(id(directory.path()), before, "the original");
}

#[test]
fn a_copy_made_while_it_is_in_use_is_another_replica() {
    let (directory, before) = used();
    let (mut storage, _) = open_replica(directory.path(), fresh_seed());
    let mut script = Script::new("doc", 100);
    script.resume(&mut storage);
    storage.write(&script.write(10)).unwrap();
    let copy = TempDir::new().unwrap();
    for name in [DATABASE_NAME, "antiphon.db-wal", LOCK_NAME] {
        fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    assert_eq!(open(copy.path()).document(&script.document).unwrap().tail, 210);
    assert_ne!(id(copy.path()), before);
}

/// However it is brought back: the database alone or all files; over the files that are there, or in place of them;
/// after closing in order or not.
#[test]
fn a_restored_backup_is_another_replica() {
    for (everything, in_place, closed) in (0..8).map(|number: u32| (number & 1 == 0, number & 2 == 0, number & 4 == 0))
    {
        let (directory, before) = used();
        let path = directory.path();
        let backup = TempDir::new().unwrap();
        copy_files(path, backup.path());
        if closed {
            let (mut storage, _) = open_replica(path, fresh_seed());
            let mut script = Script::new("doc", 100);
            script.resume(&mut storage);
            storage.write(&script.write(50)).unwrap();
            storage.close().unwrap();
        } else {
            let mut child = Told::spawn(child_command("uses_it_until_it_is_killed", path));
            assert_eq!(child.hear("id"), Some(before.to_string()));
            child.kill("");
        }
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap().path();
            let beside = entry.ends_with("antiphon.db-wal") || entry.ends_with("antiphon.db-shm");
            if beside || (!in_place && (everything || entry.ends_with(DATABASE_NAME))) {
                fs::remove_file(entry).unwrap();
            }
        }
        let names: &[_] = if everything { &[DATABASE_NAME, LOCK_NAME] } else { &[DATABASE_NAME] };
        for name in names {
            fs::copy(backup.path().join(name), path.join(name)).unwrap();
        }

        let case = format!("all files: {everything}, in place: {in_place}, closed: {closed}");
        let (mut storage, identity) = open_replica(path, fresh_seed());
        assert_ne!(identity.replica, before, "{case}");
        assert_eq!(identity.former, [before], "{case}");
        assert_eq!(Script::new("doc", 100).resume(&mut storage), 200, "{case}");
    }
}

#[test]
fn a_broken_continuity_stays_broken_until_there_is_a_new_identity() {
    let (directory, before) = used();
    let copy = TempDir::new().unwrap();
    copy_files(directory.path(), copy.path());
    for _ in 0..2 {
        let storage = open(copy.path());
        assert_eq!(storage.continuity(), Continuity::Broken);
        storage.close().unwrap();
    }
    let renewed = id(copy.path());
    assert_ne!(renewed, before);
    assert_eq!(id(copy.path()), renewed);
}

#[test]
fn a_lock_file_that_says_nothing_proves_nothing() {
    for text in ["", "end\n", "closed yes\nend\n", "\u{0}\u{0}\u{0}"] {
        let (directory, before) = used();
        fs::write(directory.path().join(LOCK_NAME), text).unwrap();
        assert_ne!(id(directory.path()), before, "{text:?}");
    }
}
