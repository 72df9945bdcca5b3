//! The verdict: what data directories hold, computed anew from nothing but their ops.

use std::path::Path;

use antiphon::heads::{Head, Heads, Judgement};
use antiphon::op::DocumentId;
use antiphon_sqlite::View;

use crate::error::Failure;

/// What is read at once.
const READ_COST: u64 = 1 << 20;

/// What a directory holds of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Held {
    pub(super) ops: u64,
    digest: u64,
}

impl Held {
    pub(super) fn hex(self) -> String {
        format!("{:016x}", self.digest)
    }
}

/// What all directories hold, if all hold the same `written` ops.
pub(super) fn judge<'a>(
    directories: impl IntoIterator<Item = (&'a str, &'a Path)>,
    document: &DocumentId,
    written: u64,
) -> Result<Held, Failure> {
    let apart = |how| Failure::new("not_in_step", format!("not in step: {how}"), "report this as a fault of antiphon");
    let mut all = Vec::new();
    for (name, directory) in directories {
        let looked = antiphon_sqlite::look(directory, |view| read(view, document));
        let held = looked.map_err(|error| Failure::data(directory, &error))?;
        all.push((name, held.map_err(|how| apart(format!("{name}: {how}")))?));
    }
    let each: Vec<_> = all.iter().map(|(name, held)| format!("{name} has {} ops {}", held.ops, held.hex())).collect();
    let each = each.join(", ");
    let [(_, first), others @ ..] = &all[..] else { return Err(apart(String::from("there is nothing to compare"))) };
    if others.iter().any(|(_, other)| other != first) {
        return Err(apart(each));
    }
    if first.ops == written { Ok(*first) } else { Err(apart(format!("{written} ops were written, {each}"))) }
}

/// Reads a document, and computes its heads. What is wrong with it stands inside.
fn read(view: &View, document: &DocumentId) -> Result<Result<Held, String>, antiphon_sqlite::Error> {
    let mut heads = Heads::new();
    let mut ops = 0;
    loop {
        let entries = view.read(document, ops, READ_COST)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let id = entry.op.id;
            let head = heads.get(id.author);
            let next: Head = head.then(entry.op.body.hash());
            if head.judge(id.seq) != Judgement::Next || next.chain != entry.chain {
                return Ok(Err(format!("op {} of {} does not follow those before it", id.seq, id.author)));
            }
            heads.set(id.author, next);
            ops += 1;
        }
    }
    let stored = view.document(document)?;
    if stored.heads != heads || stored.tail != ops {
        return Ok(Err(String::from("its heads are not those of its ops")));
    }
    Ok(Ok(Held { ops, digest: heads.digest() }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use antiphon::log::Log;
    use antiphon::op::{Body, ReplicaId, Timeline};
    use antiphon::storage::{Batch, Storage as _, Transaction};
    use antiphon::timeline::Opens;
    use antiphon_sqlite::{Options, SqliteStorage};
    use tempfile::TempDir;

    use super::*;

    fn document() -> DocumentId {
        "demo".parse().unwrap()
    }

    /// A directory with these ops of one author.
    fn directory(bodies: &[&'static str]) -> TempDir {
        let directory = TempDir::new().unwrap();
        let mut log = Log::new(Arc::new(Opens::first(Timeline::new(1))));
        for body in bodies {
            log.append(ReplicaId([1; 16]), Body::Bytes((*body).into()));
        }
        let entries = log.entries().cloned().collect();
        let (document, cursors) = (document(), Vec::new());
        let batch = Batch { document, position: 0, entries, cursors, timeline: None, salvaged: None };
        let mut storage = SqliteStorage::open_directory(directory.path(), &Options::default()).unwrap();
        storage.write(&Transaction::Append(Arc::new(batch))).unwrap();
        directory
    }

    fn verdict(directories: &[TempDir], written: u64) -> Result<Held, String> {
        let directories = ["a", "b", "c"].into_iter().zip(directories.iter().map(TempDir::path));
        judge(directories, &document(), written).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn directories_that_hold_the_same_are_in_step() {
        let held = verdict(&[directory(&["x", "y"]), directory(&["x", "y"])], 2).unwrap();
        assert_eq!(held.ops, 2);
        assert_ne!(held.digest, 0);
    }

    #[test]
    fn directories_that_differ_are_not() {
        let other_body = verdict(&[directory(&["x", "y"]), directory(&["x", "z"])], 2).unwrap_err();
        assert!(other_body.contains("not in step: a has 2 ops "), "{other_body}");
        let fewer = verdict(&[directory(&["x", "y"]), directory(&["x"])], 2).unwrap_err();
        assert!(fewer.contains("b has 1 ops "), "{fewer}");
    }

    #[test]
    fn what_all_have_lost_is_missed() {
        let lost = verdict(&[directory(&["x"]), directory(&["x"])], 2).unwrap_err();
        assert!(lost.contains("not in step: 2 ops were written, a has 1 ops "), "{lost}");
    }

    #[test]
    fn a_missing_directory_is_no_evidence() {
        let gone = TempDir::new().unwrap();
        let refused = verdict(&[directory(&["x"]), gone], 1).unwrap_err();
        assert!(refused.contains("data_inaccessible"), "{refused}");
    }
}
