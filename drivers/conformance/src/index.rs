//! What a storage finds in its logs.

use antiphon::digest::Chain;
use antiphon::heads::{Head, Heads};
use antiphon::log::Comparison;
use antiphon::op::OpId;
use antiphon::rng::Rng;
use antiphon::storage::{Reply, Request, Storage, Transaction};
use bytes::Bytes;

use crate::logs::some_log;
use crate::model::{Held, Model, authors, body, document, random_write, replica};
use crate::{Harness, done};

/// The chain of every op is found, and none of those that are not held.
pub fn chains_are_found<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (model, id) = some_log(&mut storage);
    let mut storage = harness.reopen(storage);
    for entry in &model.held(&id).entries {
        assert_eq!(done(storage.chain(&id, entry.op.id)), Some(entry.chain), "the chain at {:?}", entry.op.id);
    }
    for (author, seq) in [(1, 0), (1, 5), (2, 5), (2, u64::MAX), (3, 1), (3, 0)] {
        let missing = OpId { author: replica(author), seq };
        assert_eq!(done(storage.chain(&id, missing)), None, "the chain at {missing:?}");
    }
    let elsewhere = OpId { author: replica(1), seq: 1 };
    assert_eq!(done(storage.chain(&document("other"), elsewhere)), None, "the chain in another document");
}

/// Comparing with heads finds what going through the log entry by entry finds.
pub fn comparing_agrees_with_a_scan<H: Harness>(harness: &mut H) {
    let mut rng = Rng::new(3);
    let mut storage = harness.fresh();
    let mut model = Model::default();
    for round in 0..100 {
        let write = random_write(&model, &mut rng);
        model.write(&mut storage, &write);
        if round == 40 {
            storage = harness.reopen(storage);
        }
        for (id, held) in &model.documents {
            for _ in 0..4 {
                let heads = random_heads(held, &mut rng);
                let mut scan = Comparison::new(held.state.horizon);
                scan.scan_snapshot(&held.base(), &heads);
                scan.scan(held.state.horizon, held.entries.iter(), &heads);
                let mut found = done(storage.compare(id, &heads));
                scan.forks.sort();
                found.forks.sort();
                assert_eq!(found.from, scan.from, "the first position that {heads:?} lack in {:?}", held.entries);
                assert_eq!(found.forks, scan.forks, "the authors of whom {heads:?} have another history");
            }
        }
    }
}

/// Heads that know nothing, something, all or more of each author, or something else.
fn random_heads(held: &Held, rng: &mut Rng) -> Heads {
    let mut heads = Heads::new();
    for author in authors().into_iter().chain([replica(60)]) {
        let above = held.entries.iter().filter(|entry| entry.op.id.author == author);
        let above = above.map(|entry| Head { seq: entry.op.id.seq, chain: entry.chain });
        let base = Some(held.base().get(author)).filter(|base| base.seq > 0);
        let ours: Vec<_> = base.into_iter().chain(above).collect();
        let index = match rng.below(4) {
            0 => continue,
            1 => rng.below(ours.len() as u64) as usize,
            _ => ours.len().saturating_sub(1),
        };
        let mut head = ours.get(index).copied().unwrap_or(Head { seq: 1, chain: Chain(1) });
        match rng.below(7) {
            0 => head.seq += 1 + rng.below(3),
            1 => head.chain.0 ^= 1 << 63,
            2 => head.seq = 1 + rng.below(head.seq),
            _ => {}
        }
        heads.set(author, head);
    }
    heads
}

/// [`Storage::execute`] does what the method of a request does.
pub fn requests_agree_with_methods<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let (mut model, document) = some_log(&mut storage);
    let held = model.held(&document);
    let batch = model.batch(&document, [(replica(1), body("next"))]);
    let write = Transaction::Append(batch.into());
    let heads: Heads = [(replica(1), held.state.heads.get(replica(1)))].into_iter().collect();
    let id = |seq| OpId { author: replica(1), seq };
    let chains = vec![Some(held.entries[2].chain), None, Some(held.entries[0].chain)];
    let mut execute = |request| done(storage.execute(&request));

    assert_eq!(execute(Request::Open(document.clone())), Reply::Document(held.state), "Open");
    let peer = replica(100);
    assert_eq!(execute(Request::Cursor { document: document.clone(), peer }), Reply::Cursor(None), "Cursor");
    let read = Request::Read { document: document.clone(), from: 3, max_cost: 0 };
    assert_eq!(execute(read), Reply::Entries(held.entries[3..4].to_vec()), "Read");
    let read = Request::ReadAside { document: document.clone(), from: 3, max_cost: 0 };
    assert_eq!(execute(read), Reply::Entries(Vec::new()), "ReadAside");
    let ids = vec![id(2), id(9), id(1)];
    assert_eq!(execute(Request::Chains { document: document.clone(), ids }), Reply::Chains(chains), "Chains");
    let compare = Request::Compare { document: document.clone(), heads: heads.into() };
    assert!(matches!(execute(compare), Reply::Compared(Comparison { from: 1, .. })), "Compare");
    assert_eq!(execute(Request::Write(write.clone())), Reply::Written, "Write");
    model.note(&write);
    let compact = Transaction::Compact { document: document.clone(), horizon: 2, body: Bytes::from_static(b"body") };
    assert_eq!(execute(Request::Write(compact.clone())), Reply::Written, "Write");
    model.note(&compact);
    let id = model.held(&document).state.snapshot.unwrap_or_else(|| panic!("it was compacted"));
    let snapshot = Request::Snapshot { document, id, offset: id.bytes - 3, max: 2 };
    assert_eq!(execute(snapshot), Reply::Snapshot(Bytes::from_static(b"od")), "Snapshot");
    model.check(&mut storage);
}
