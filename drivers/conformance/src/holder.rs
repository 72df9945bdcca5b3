//! Who uses the storage, and when.

use antiphon::rng::Rng;
use antiphon::storage::{Continuity, Identity, Storage, Transaction};
use antiphon::timeline::{Opens, TIMELINES_MAX};

use crate::model::{replica, timeline};
use crate::{Harness, done};

/// A storage that was never used has no identity and no documents.
pub fn identity_is_empty_at_first<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    assert_eq!(done(storage.identity()), None, "the identity of a fresh storage");
    assert_eq!(done(storage.documents()), [], "the documents of a fresh storage");
    let mut storage = harness.reopen(storage);
    assert_eq!(done(storage.identity()), None, "the identity of a storage that was opened and closed");
}

/// An identity can be read as soon as it is written, and after reopening; a later one takes its place.
pub fn identity_is_kept<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    let mut identity = Identity { replica: replica(255), former: Vec::new(), opens: Opens::first(timeline(1)) };
    for number in 2..2 * TIMELINES_MAX as u64 {
        done(storage.write(&Transaction::Identity(identity.clone())));
        assert_eq!(done(storage.identity()), Some(identity.clone()), "the identity just written");
        identity.opens.reopen(timeline(number));
    }
    identity.replica = replica(1);
    done(storage.write(&Transaction::Identity(identity.clone())));
    let mut storage = harness.reopen(storage);
    assert_eq!(done(storage.identity()), Some(identity), "the identity after reopening");
}

/// Each open is counted, draws a new timeline, and stores the identity that it returns.
pub fn opens_are_counted<H: Harness>(harness: &mut H) {
    let mut entropy = Rng::new(1);
    let mut storage = harness.fresh();
    let first = done(storage.open(Continuity::Proven, &mut entropy));
    assert_eq!((first.opens.count(), first.opens.previous()), (1, None), "the first open");
    assert_eq!(done(storage.identity()), Some(first.clone()), "the identity of the first open");
    let mut before = first;
    for count in 2..5 {
        storage = harness.reopen(storage);
        let identity = done(storage.open(Continuity::Proven, &mut entropy));
        assert_eq!(identity.replica, before.replica, "the replica where continuity is proven");
        assert_eq!(identity.opens.count(), count, "the number of opens");
        assert_ne!(identity.opens.current(), before.opens.current(), "the timeline of a new open");
        assert_eq!(identity.opens.previous(), Some(before.opens.current()), "the timeline of the open before");
        assert_eq!(done(storage.identity()), Some(identity.clone()), "the identity of open {count}");
        before = identity;
    }
}

/// Where continuity is broken, the replica is another one, and the opens go on.
pub fn a_broken_continuity_renews<H: Harness>(harness: &mut H) {
    let mut entropy = Rng::new(2);
    let mut storage = harness.fresh();
    let first = done(storage.open(Continuity::Proven, &mut entropy));
    let mut storage = harness.reopen(storage);
    let second = done(storage.open(Continuity::Broken, &mut entropy));
    assert_ne!(second.replica, first.replica, "the replica where continuity is broken");
    assert_eq!(second.opens.count(), 2, "the number of opens");
    let mut storage = harness.reopen(storage);
    assert_eq!(done(storage.identity()), Some(second), "the renewed identity");
}

/// Nobody else gets in while the storage is open, and the holder does not suffer from the attempt. Skipped if the
/// harness can't try.
pub fn a_second_holder_is_refused<H: Harness>(harness: &mut H) {
    let mut storage = harness.fresh();
    if let Some(refused) = harness.second_is_refused(&mut storage) {
        assert!(refused, "the storage was opened while it was open");
        let identity = Identity { replica: replica(3), former: Vec::new(), opens: Opens::first(timeline(3)) };
        done(storage.write(&Transaction::Identity(identity)));
        storage = harness.reopen(storage);
        let refused_again = harness.second_is_refused(&mut storage);
        assert_eq!(refused_again, Some(true), "the storage was opened while it was open after it had been closed");
    }
}
