//! Replicas on threads of one process that find each other by a name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use antiphon::op::DocumentId;
use antiphon::replica::{Admission, Config, Event, Options, Question};
use antiphon::storage::{Continuity, Storage};
use antiphon::wire::Access;
use antiphon_memory::{Disk, Hub, MemoryStorage, Participant};
use bytes::Bytes;

/// Longer than anything here takes on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

fn document() -> DocumentId {
    "doc".parse().unwrap()
}

fn join(hub: &Hub) -> Participant<MemoryStorage> {
    join_with(hub, MemoryStorage::new())
}

fn join_with(hub: &Hub, storage: MemoryStorage) -> Participant<MemoryStorage> {
    let participant = hub.join(storage, Continuity::Proven, Config::default()).unwrap();
    participant.open(&document(), Options::default());
    participant
}

fn append(participant: &Participant<MemoryStorage>, body: impl Into<Bytes>) {
    participant.append(&document(), vec![body.into()]).unwrap();
}

fn ops(participant: &Participant<MemoryStorage>) -> u64 {
    participant.document(&document()).map_or(0, |(_, tail)| tail)
}

fn digest(participant: &Participant<MemoryStorage>) -> u64 {
    participant.document(&document()).map_or(0, |(heads, _)| heads.digest())
}

/// Waits, and drains events, until `done`.
#[track_caller]
fn wait_until(participant: &Participant<MemoryStorage>, mut done: impl FnMut(&[Event]) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        participant.wait(end.saturating_duration_since(Instant::now()));
        if done(&participant.events()) {
            return;
        }
        assert!(Instant::now() < end, "nothing of the kind happened within {LIMIT:?}");
    }
}

/// Drives all on this thread until `done`.
#[track_caller]
fn drive_until(participants: &[&Participant<MemoryStorage>], mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        for participant in participants {
            participant.wait(Duration::from_millis(1));
            participant.events();
        }
        assert!(Instant::now() < end, "it did not come to that within {LIMIT:?}");
    }
}

#[test]
fn five_on_threads_get_in_step() {
    const OPS: u64 = 20;
    let hub = Hub::named("five");
    let done = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..5)
        .map(|number| {
            let (participant, done) = (join(&hub), done.clone());
            thread::spawn(move || {
                for op in 0..OPS {
                    append(&participant, format!("{number} wrote {op}"));
                    participant.drive();
                }
                // Everybody goes on until all others hold everything of theirs.
                let mut acknowledged = BTreeSet::new();
                wait_until(&participant, |events| {
                    for event in events {
                        match event {
                            Event::Acknowledged { link, position, .. } if *position >= 5 * OPS => {
                                acknowledged.insert(*link);
                            }
                            Event::Closed { .. } | Event::Forked { .. } | Event::Failed { .. } => panic!("{event:?}"),
                            _ => {}
                        }
                    }
                    acknowledged.len() == 4 && ops(&participant) == 5 * OPS
                });
                // What one has said last may still be to be taken by another.
                done.fetch_add(1, Ordering::SeqCst);
                drive_until(&[&participant], || done.load(Ordering::SeqCst) == 5);
                let storage = participant.leave().unwrap();
                let disk = storage.disk().clone();
                drop(storage);
                disk.open().unwrap().document(&document()).unwrap().heads
            })
        })
        .collect();
    let heads: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(heads.iter().all(|other| *other == heads[0]));
    assert_eq!(heads[0].len(), 5);
    assert!(heads[0].iter().all(|(_, head)| head.seq == OPS));
    assert_eq!(hub.participants(), 0);
}

#[test]
fn who_comes_late_catches_up() {
    let hub = Hub::unnamed();
    let [first, second] = [(); 2].map(|()| join(&hub));
    (0..50).for_each(|op| append(&first, format!("op {op}")));
    drive_until(&[&first, &second], || ops(&second) == 50);
    let late = join(&hub);
    assert_eq!(ops(&late), 0);
    drive_until(&[&first, &second, &late], || digest(&late) == digest(&first));
    append(&late, "and mine");
    drive_until(&[&first, &second, &late], || ops(&first) == 51 && ops(&second) == 51);
}

#[test]
fn who_leaves_is_missed_and_comes_back_where_it_was() {
    let hub = Hub::unnamed();
    let [stays, leaves] = [(); 2].map(|()| join(&hub));
    append(&leaves, "before");
    drive_until(&[&stays, &leaves], || ops(&stays) == 1);
    let storage = leaves.leave().unwrap();
    assert_eq!(hub.participants(), 1);
    assert_eq!(storage.disk().unsynced(), 0, "who leaves in order leaves nothing unsynced");
    wait_until(&stays, |events| {
        events.iter().any(|event| matches!(event, Event::Disconnected { ending: Some(_), .. }))
    });
    append(&stays, "while it was away");
    let back = join_with(&hub, storage);
    append(&back, "after");
    drive_until(&[&stays, &back], || ops(&stays) == 3 && digest(&back) == digest(&stays));
    assert_eq!(stays.document(&document()).unwrap().0.len(), 2, "it is still the same replica");
}

#[test]
fn who_is_dropped_is_missed_too() {
    let hub = Hub::unnamed();
    let [stays, goes] = [(); 2].map(|()| join(&hub));
    drive_until(&[&stays, &goes], || goes.document(&document()).is_some());
    drop(goes);
    wait_until(&stays, |events| events.iter().any(|event| matches!(event, Event::Disconnected { ending: None, .. })));
}

#[test]
fn two_names_do_not_mix() {
    let [here, also_here] = [(); 2].map(|()| join(&Hub::named("here")));
    let there = join(&Hub::named("there"));
    assert_eq!((here.hub().participants(), there.hub().participants()), (2, 1));
    append(&here, "for here");
    append(&there, "for there");
    drive_until(&[&here, &also_here, &there], || ops(&also_here) == 1);
    assert_eq!([&here, &also_here, &there].map(ops), [1, 1, 1]);
    assert_eq!(digest(&here), digest(&also_here));
    assert_ne!(digest(&here), digest(&there));
}

#[test]
fn a_name_is_free_again_when_its_last_participant_goes() {
    let participant = join(&Hub::named("ephemeral"));
    assert_eq!(Hub::named("ephemeral").participants(), 1, "the participant keeps its hub");
    drop(participant);
    assert_eq!(Hub::named("ephemeral").participants(), 0);
}

#[test]
fn a_frame_is_never_copied() {
    let hub = Hub::unnamed();
    let all = [(); 4].map(|()| join(&hub));
    let [writer, readers @ ..] = &all;
    drive_until(&all.each_ref(), || {
        let links = writer.document(&document()).is_some();
        links && readers.iter().all(|reader| reader.document(&document()).is_some())
    });
    // Long since connected and in step: what is appended now goes out live.
    let until = Instant::now() + Duration::from_millis(200);
    drive_until(&all.each_ref(), || Instant::now() >= until);
    append(writer, "a body that all readers should find at one and the same place in memory");
    let mut places = Vec::new();
    for reader in readers {
        wait_until(reader, |events| {
            for event in events {
                if let Event::Received { batch } = event {
                    let body = batch.entries[0].op.body.bytes().expect("it is not blank").clone();
                    // Kept alive, so that no other body can come to lie at its place.
                    places.push(body);
                    return true;
                }
            }
            false
        });
    }
    let first = places[0].as_ptr();
    assert!(places.iter().all(|body| body.as_ptr() == first), "each reader has the bytes of the one frame");
}

#[test]
fn another_thread_wakes_who_waits() {
    let hub = Hub::unnamed();
    let participant = Arc::new(join(&hub));
    participant.events();
    let waiting = thread::spawn({
        let participant = participant.clone();
        move || {
            wait_until(&participant, |events| events.iter().any(|event| matches!(event, Event::Applied { .. })));
        }
    });
    append(&participant, "from the other thread");
    waiting.join().unwrap();
}

#[test]
fn waiting_ends_at_its_timeout() {
    let participant = join(&Hub::unnamed());
    participant.wait(Duration::ZERO);
    participant.events();
    let start = Instant::now();
    assert!(!participant.wait(Duration::from_millis(20)));
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_copy_of_a_storage_is_renewed_and_connected_again() {
    let hub = Hub::unnamed();
    let disk = Disk::new();
    let first = join_with(&hub, disk.open().unwrap());
    append(&first, "by the original");
    drive_until(&[&first], || ops(&first) == 1);
    let copy = join_with(&hub, disk.backup().open().unwrap());
    append(&copy, "by the copy");
    drive_until(&[&first, &copy], || ops(&first) == 2 && digest(&first) == digest(&copy));
    assert_ne!(first.id(), copy.id(), "they have met, and so they do not share an id any longer");
}

#[test]
fn the_host_is_asked_where_the_configuration_says_so() {
    let hub = Hub::unnamed();
    let config = Config { documents: Admission::Ask, ..Config::default() };
    let careful = hub.join(MemoryStorage::new(), Continuity::Proven, config).unwrap();
    let other = join(&hub);
    append(&other, "may I?");
    let end = Instant::now() + LIMIT;
    while ops(&careful) == 0 {
        for (ticket, question) in careful.questions() {
            assert!(matches!(&question, Question::Document { replica, .. } if *replica == other.id()), "{question:?}");
            careful.answer(ticket, Ok(Access::Write));
        }
        other.wait(Duration::from_millis(1));
        other.events();
        careful.wait(Duration::from_millis(1));
        careful.events();
        assert!(Instant::now() < end, "it was asked, but not served");
    }
}
