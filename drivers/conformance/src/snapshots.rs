//! Documents whose beginning exists only as a snapshot: made here, or taken from a peer.

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::op::{Cursor, DocumentId, OpId};
use antiphon::snapshot::{Snapshot, SnapshotId};
use antiphon::storage::{Staged, Storage, StoredDocument, Transaction};
use antiphon::timeline::TimelineRecord;
use bytes::Bytes;

use crate::logs::some_log;
use crate::model::{Model, body, bytes_of, document, read_snapshot, replica, timeline};
use crate::{Harness, done};

/// A compaction leaves the entries from the horizon on, the heads and the cursors; those below are gone, and the snapshot
/// is there. The document grows on.
pub fn a_compaction_drops_what_is_below<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let mut batch = model.batch(&id, ["x", "y"].map(|text| (replica(3), body(&text.repeat(20_000)))));
    batch.cursors = vec![(replica(100), Cursor { timeline: timeline(1), position: 1 })];
    model.append(&mut storage, batch);
    let written = model.held(&id).entries;
    // In the midst, at the tail, and at the tail again when there is more.
    for (horizon, more) in [(3, 0), (5, 0), (9, 1), (11, 2), (13, 40), (33, 0)] {
        let before = done(storage.document(&id));
        model.write(&mut storage, &compact(&id, horizon, &format!("up to {horizon}")));
        model.check(&mut storage);
        let after = done(storage.document(&id));
        assert_eq!(
            (after.horizon, after.tail, after.heads),
            (horizon, before.tail, before.heads),
            "after a compaction"
        );
        for below in 0..horizon {
            assert_eq!(done(storage.read(&id, below, u64::MAX)), [], "the entries at {below}, below {horizon}");
        }
        if horizon < 10 {
            let above = done(storage.read(&id, horizon, u64::MAX));
            assert_eq!(above[0], written[horizon as usize], "the first entry above {horizon}");
        }
        storage = harness.reopen(storage);
        model.check(&mut storage);
        let batch = model.batch(&id, (0..more).map(|index| (replica(1 + index % 2), body("more"))));
        model.append(&mut storage, batch);
        model.check(&mut storage);
    }
}

/// The snapshot is given in pieces of any size, from anywhere: its heads, then its body. Asked for another one, the storage
/// gives nothing.
pub fn snapshots_are_read_in_pieces<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let other = peers_snapshot("another").id();
    assert_eq!(done(storage.snapshot(&id, other, 0, 100)), Bytes::new(), "a snapshot where there is none");
    model.write(&mut storage, &compact(&id, 2, "the first"));
    let first = model.held(&id).state.snapshot.unwrap_or(other);
    let bytes: Vec<u8> = (0..300_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    model.write(&mut storage, &Transaction::Compact { document: id.clone(), horizon: 4, body: bytes.into() });
    let snapshot = model.held(&id).snapshot.unwrap_or_else(|| panic!("it was compacted"));
    let (expected, its) = (bytes_of(&snapshot), snapshot.id());
    for _ in 0..2 {
        for max in [7_000, 65_536, 100_000, u64::MAX] {
            let read = read_snapshot(&mut storage, &id, its, max).unwrap_or_else(|error| panic!("{error}"));
            assert!(read == expected, "the snapshot, in pieces of {max}");
        }
        let len = expected.len();
        for (offset, max) in [(0, 1), (10, 1000), (65_535, 3), (200_001, 70_000), (len - 1, 5)] {
            let read = done(storage.snapshot(&id, its, offset as u64, max));
            assert!(
                !read.is_empty() && read.len() as u64 <= max,
                "{} bytes instead of {max} from {offset}",
                read.len()
            );
            assert!(expected[offset..].starts_with(&read), "the snapshot from {offset}");
        }
        for beyond in [len as u64, len as u64 + 1, u64::MAX] {
            assert_eq!(done(storage.snapshot(&id, its, beyond, 100)), Bytes::new(), "the snapshot from {beyond}");
        }
        let like_it = SnapshotId { head_bytes: its.head_bytes + 1, ..its };
        for other in [first, other, like_it] {
            assert_eq!(done(storage.snapshot(&id, other, 0, 100)), Bytes::new(), "a snapshot that is not there");
        }
        storage = harness.reopen(storage);
    }
    model.write(&mut storage, &stage(&id, &peers_snapshot("another"), 0, 1000));
    assert_eq!(done(storage.snapshot(&id, other, 0, 100)), Bytes::new(), "a snapshot that is only staged");
}

/// The chain at each author's last op below the horizon is known, also if there are others above; that at any before is
/// not.
pub fn chains_at_the_horizon_are_found<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let batch = model.batch(&id, [(replica(3), body("only")), (replica(1), body("last"))]);
    model.append(&mut storage, batch);
    let entries = model.held(&id).entries;
    // Author 1 has positions 0, 2, 4, 6, 9; author 2 has 1, 3, 5, 7; author 3 has 8.
    for (horizon, last) in [(3, [2, 1, 0]), (6, [3, 3, 0]), (7, [4, 3, 0]), (10, [5, 4, 1])] {
        model.write(&mut storage, &compact(&id, horizon, "body"));
        for _ in 0..2 {
            for (position, entry) in (0..).zip(&entries) {
                let author = (1..=3).find(|number| replica(*number) == entry.op.id.author).map_or(0, usize::from);
                let is_last = entry.op.id.seq == last[author - 1];
                let expected = (position >= horizon || is_last).then_some(entry.chain);
                let found = done(storage.chain(&id, entry.op.id));
                assert_eq!(found, expected, "the chain at {:?}, with horizon {horizon}", entry.op.id);
            }
            for (author, seq) in [(1, 0), (1, 6), (3, 0), (3, 2), (9, 1)] {
                let missing = OpId { author: replica(author), seq };
                assert_eq!(done(storage.chain(&id, missing)), None, "the chain at {missing:?}");
            }
            storage = harness.reopen(storage);
        }
    }
}

/// The heads at positions from the horizon on, and what is found when they, or others, are compared with the log.
pub fn heads_at_the_horizon_are_compared<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let entries = model.held(&id).entries;
    let heads_at = |position: usize| {
        let mut heads = Heads::new();
        heads.extend(&entries[..position]);
        heads
    };
    for horizon in [3, 6, 8] {
        model.write(&mut storage, &compact(&id, horizon as u64, "body"));
        storage = harness.reopen(storage);
        let mut found = |heads: &Heads| {
            let comparison = done(storage.compare(&id, heads));
            (comparison.from, comparison.forks)
        };
        assert_eq!(found(&Heads::new()), (0, vec![]), "a peer that has nothing");
        assert_eq!(found(&heads_at(horizon - 1)), (0, vec![]), "a peer that lacks one op below the horizon");
        for held in horizon..=8 {
            assert_eq!(found(&heads_at(held)), (held as u64, vec![]), "a peer that holds what is below {held}");
        }
        let (author, base) = (replica(2), heads_at(horizon).get(replica(2)));
        let mut forked = heads_at(horizon);
        forked.set(author, Head { chain: Chain(!base.chain.0), ..base });
        assert_eq!(found(&forked), (horizon as u64, vec![author]), "a peer that forks at the horizon");
        // Of what is below nobody knows.
        forked.set(author, Head { seq: 1, chain: Chain(5) });
        let expected = if base.seq == 1 { (horizon as u64, vec![author]) } else { (0, vec![]) };
        assert_eq!(found(&forked), expected, "a peer with another op below the horizon");
        for position in horizon..=8 {
            let at = done(storage.heads_at(&id, position as u64));
            assert_eq!(at, heads_at(position), "the heads at {position}, with horizon {horizon}");
        }
    }
}

/// A horizon must be above the one before, and not beyond the tail.
pub fn wrong_horizons_are_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    for horizon in [0, 9, u64::MAX] {
        refused(
            &mut storage,
            &model,
            &compact(&id, horizon, "body"),
            &format!("horizon {horizon}, without one before"),
        );
    }
    refused(&mut storage, &model, &compact(&document("new"), 1, "body"), "a horizon of an unknown document");
    model.write(&mut storage, &compact(&id, 5, "body"));
    for horizon in [0, 4, 5, 9] {
        refused(&mut storage, &model, &compact(&id, horizon, "another"), &format!("horizon {horizon} after 5"));
    }
    model.write(&mut storage, &compact(&id, 6, "another"));
    model.check(&mut harness.reopen(storage));
}

/// A snapshot comes piece by piece, also over a reopen. A piece that leaves a gap, is there already, goes beyond the end, or
/// is of another snapshot is refused; but a first one takes the place of what is there.
pub fn staging_goes_on<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let (first, second) = (peers_snapshot("first"), peers_snapshot(&"second".repeat(40_000)));
    refused(&mut storage, &model, &stage(&id, &first, 1, 5), "a piece without the first one");
    model.write(&mut storage, &stage(&id, &first, 0, 10));
    for offset in [1, 9, 11, u64::MAX] {
        refused(&mut storage, &model, &stage(&id, &first, offset, 5), &format!("a piece at {offset} instead of 10"));
    }
    refused(&mut storage, &model, &stage(&id, &second, 10, 5), "a piece of another snapshot");
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    model.write(&mut storage, &stage(&id, &first, 10, 5));
    let SnapshotId { bytes, .. } = first.id();
    let beyond = vec![0; bytes as usize - 14].into();
    let beyond = Transaction::Stage { document: id.clone(), id: first.id(), offset: 15, bytes: beyond };
    refused(&mut storage, &model, &beyond, "a piece that goes beyond the end");
    // The document goes on meanwhile.
    let batch = model.batch(&id, [(replica(1), body("meanwhile"))]);
    model.append(&mut storage, batch);
    model.write(&mut storage, &compact(&id, 2, "meanwhile"));
    model.write(&mut storage, &stage(&id, &first, 15, 3));
    model.check(&mut storage);

    let other = document("other");
    model.write(&mut storage, &stage(&other, &first, 0, 20));
    for (offset, len) in [(0, 100), (100, 1), (101, 200_000), (0, 50_000), (50_000, 70_000), (120_000, 1 << 20)] {
        model.write(&mut storage, &stage(&id, &second, offset, len));
        assert_eq!(done(storage.document(&id)).staged.map(|staged| staged.id), Some(second.id()), "which is staged");
        storage = harness.reopen(storage);
        model.check(&mut storage);
    }
    model.write(&mut storage, &install(&id, 2));
    let expected = bytes_of(&second);
    let found = read_snapshot(&mut storage, &id, second.id(), 1 << 20).unwrap_or_else(|error| panic!("{error}"));
    assert!(found == expected, "what was staged is not what was installed");
    let staged = Some(Staged { id: first.id(), bytes: 20 });
    assert_eq!(done(storage.document(&other)).staged, staged, "what is staged of another document");
    model.write(&mut storage, &stage(&other, &first, 20, 1 << 20));
    model.write(&mut storage, &install(&other, 2));
    model.check(&mut harness.reopen(storage));
}

/// What is staged is not installed unless it is whole, is what was announced, begins with heads, and covers what the
/// document's own snapshot stands for.
pub fn spoiled_snapshots_are_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    refused(&mut storage, &model, &install(&id, 2), "an install of nothing");
    refused(&mut storage, &model, &install(&document("new"), 2), "an install in an unknown document");
    let snapshot = peers_snapshot("body");
    model.write(&mut storage, &stage(&id, &snapshot, 0, snapshot.id().bytes - 1));
    refused(&mut storage, &model, &install(&id, 2), "an install of a part");
    let bytes = bytes_of(&snapshot);
    for flipped in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[flipped] ^= 1;
        let document = id.clone();
        let spoiled = Transaction::Stage { document, id: snapshot.id(), offset: 0, bytes: bytes.into() };
        model.write(&mut storage, &spoiled);
        refused(&mut storage, &model, &install(&id, 2), &format!("an install with a flipped bit in byte {flipped}"));
    }
    let headless = Snapshot::new(Heads::new(), Bytes::from_static(b"these are no heads"));
    let headless = SnapshotId { head_bytes: 9, ..headless.id() };
    let bytes = Bytes::from_static(b"these are no heads");
    model.write(&mut storage, &Transaction::Stage { document: id.clone(), id: headless, offset: 0, bytes });
    refused(&mut storage, &model, &install(&id, 2), "an install without heads");

    // The log itself need not be covered, for it is put aside; the snapshot can't be.
    let heads = |seqs: [u64; 2]| {
        let heads =
            [1, 2].into_iter().zip(seqs).map(|(author, seq)| (replica(author), Head { seq, chain: Chain(seq) }));
        Snapshot::new(heads.collect(), Bytes::from_static(b"body"))
    };
    model.write(&mut storage, &compact(&id, 5, "own"));
    for seqs in [[2, 9], [9, 1]] {
        model.write(&mut storage, &stage(&id, &heads(seqs), 0, 1000));
        refused(&mut storage, &model, &install(&id, 2), &format!("an install up to {seqs:?} over one up to [3, 2]"));
    }
    model.write(&mut storage, &stage(&id, &heads([3, 2]), 0, 1000));
    model.write(&mut storage, &install(&id, 2));
    model.check(&mut harness.reopen(storage));
}

/// After an install the document is the snapshot alone, at position 0, on its new timeline and without cursors. The entries
/// are put aside; what the snapshot before it stood for is gone.
pub fn an_install_starts_anew<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let mut batch = model.batch(&id, []);
    batch.cursors = vec![(replica(100), Cursor { timeline: timeline(1), position: 1 })];
    model.append(&mut storage, batch);
    model.write(&mut storage, &compact(&id, 3, "own"));
    let entries = model.held(&id).entries;
    let snapshot = peers_snapshot("theirs");
    model.write(&mut storage, &stage(&id, &snapshot, 0, 1000));
    model.write(&mut storage, &install(&id, 3));
    for _ in 0..2 {
        let after = StoredDocument {
            heads: snapshot.heads().clone(),
            timelines: vec![TimelineRecord { open: 3, timeline: timeline(1003), begins: 0 }],
            forgotten: 3,
            horizon: 1,
            tail: 1,
            aside: Some((0, 5)),
            snapshot: Some(snapshot.id()),
            staged: None,
        };
        assert_eq!(done(storage.document(&id)), after, "the state after an install");
        assert_eq!(done(storage.cursor(&id, replica(100))), None, "a cursor after an install");
        assert_eq!(done(storage.read_aside(&id, 0, u64::MAX)), entries, "the entries that were put aside");
        assert_eq!(done(storage.read_aside(&id, 2, 0)), entries[2..3], "one of them");
        for (author, head) in snapshot.heads().iter() {
            let chain = |seq| OpId { author, seq };
            assert_eq!(done(storage.chain(&id, chain(head.seq))), Some(head.chain), "a chain after an install");
            assert_eq!(done(storage.chain(&id, chain(head.seq - 1))), None, "a chain before it");
        }
        let all = done(storage.compare(&id, snapshot.heads()));
        assert_eq!((all.from, all.forks), (1, vec![]), "a comparison with the snapshot's heads");
        let none = done(storage.compare(&id, &Heads::new()));
        assert_eq!((none.from, none.forks), (0, vec![]), "a comparison with no heads");
        model.check(&mut storage);
        storage = harness.reopen(storage);
    }
    // It grows on, also by the ops that were put aside, is compacted, and reset.
    let mut batch = model.batch(&id, (0..30).map(|index| (replica(index % 3), body("after"))));
    batch.salvaged = Some(3);
    model.append(&mut storage, batch);
    model.check(&mut storage);
    model.write(&mut storage, &compact(&id, 11, "own again"));
    model.check(&mut storage);
    model.write(&mut storage, &reset(&id, 4));
    model.check(&mut storage);
    assert_eq!(done(storage.document(&id)).aside, Some((3, 25)), "what is aside after an install and a reset");
    let mut batch = model.batch(&id, [(replica(1), body("anew"))]);
    batch.salvaged = Some(25);
    model.append(&mut storage, batch);
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    // And again over a log of which nothing is above the horizon.
    model.write(&mut storage, &compact(&id, 1, "own"));
    model.write(&mut storage, &stage(&id, &snapshot, 0, 1000));
    model.write(&mut storage, &install(&id, 5));
    assert_eq!(done(storage.document(&id)).aside, None, "what is aside of a log that was compacted");
    model.check(&mut harness.reopen(storage));
}

/// A reset drops the snapshot and what is staged, and puts aside what is above the horizon.
pub fn a_reset_drops_snapshots<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, id) = some_log(&mut storage);
    let snapshot = peers_snapshot("theirs");
    model.write(&mut storage, &compact(&id, 6, "own"));
    let own = model.held(&id).state.snapshot.unwrap_or(snapshot.id());
    model.write(&mut storage, &stage(&id, &snapshot, 0, 10));
    model.write(&mut storage, &reset(&id, 2));
    let mut storage = harness.reopen(storage);
    model.check(&mut storage);
    let state = done(storage.document(&id));
    assert_eq!((state.horizon, state.tail, state.aside), (0, 0, Some((0, 2))), "the state after a reset");
    assert_eq!((state.snapshot, state.staged), (None, None), "the snapshots after a reset");
    assert_eq!(done(storage.snapshot(&id, own, 0, 1000)), Bytes::new(), "the snapshot after a reset");
    refused(&mut storage, &model, &stage(&id, &snapshot, 10, 1000), "a piece of what was staged before a reset");
    refused(&mut storage, &model, &install(&id, 3), "an install of what was staged before a reset");
    let first = OpId { author: replica(1), seq: 3 };
    assert_eq!(done(storage.chain(&id, first)), None, "a chain at the horizon that was");
    let batch = model.batch(&id, [(replica(1), body("anew"))]);
    model.append(&mut storage, batch);
    model.check(&mut harness.reopen(storage));
}

pub(crate) fn compact(document: &DocumentId, horizon: u64, body: &str) -> Transaction {
    Transaction::Compact { document: document.clone(), horizon, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// At most `len` bytes from `offset` on.
pub(crate) fn stage(document: &DocumentId, snapshot: &Snapshot, offset: u64, len: u64) -> Transaction {
    let all = bytes_of(snapshot);
    let bytes = usize::try_from(offset).ok().and_then(|offset| all.get(offset..)).unwrap_or_default();
    let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(len as usize)]);
    Transaction::Stage { document: document.clone(), id: snapshot.id(), offset, bytes }
}

fn record(open: u64) -> TimelineRecord {
    TimelineRecord { open, timeline: timeline(1000 + open), begins: 0 }
}

pub(crate) fn install(document: &DocumentId, open: u64) -> Transaction {
    Transaction::Install { document: document.clone(), timeline: record(open) }
}

pub(crate) fn reset(document: &DocumentId, open: u64) -> Transaction {
    Transaction::Reset { document: document.clone(), timeline: record(open) }
}

/// A snapshot that a peer may have, further on than `some_log`.
pub(crate) fn peers_snapshot(body: &str) -> Snapshot {
    let heads =
        [1, 2, 7].map(|author| (replica(author), Head { seq: 100 + u64::from(author), chain: Chain(u64::MAX) }));
    Snapshot::new(heads.into_iter().collect(), Bytes::copy_from_slice(body.as_bytes()))
}

#[track_caller]
fn refused(storage: &mut impl Storage, model: &Model, write: &Transaction, what: &str) {
    assert!(storage.write(write).is_err(), "{what} was not refused");
    if let Err(difference) = model.compare(storage) {
        panic!("{what} was refused, but not without a trace: {difference}");
    }
}
