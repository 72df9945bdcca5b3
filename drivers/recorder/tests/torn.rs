//! A recording that breaks off, or is damaged, is read as far as it is whole, and says how it ends.

mod common;

use antiphon::Replica;
use antiphon::replica::Input;
use antiphon::session::Transport;
use antiphon_recorder::{End as Ending, Error, Event, FORMAT, NotReplayable, Sent, Trace};
use bytes::Bytes;
use common::*;

fn recorded(segment_bytes: u64) -> Vec<Bytes> {
    let memories = [1, 2].map(|_| antiphon_recorder::Memory::new(segment_bytes));
    let ends = [End::new(1, memories[0].clone(), false), End::new(2, memories[1].clone(), false)];
    let mut two = Two::new(ends, Transport::Reliable);
    script(&mut two, [None, None]);
    memories[0].segments()
}

fn read(segments: impl IntoIterator<Item = Bytes>) -> (Vec<Event<Input, Sent>>, Ending) {
    let trace = Trace::read(segments).expect("the headers are whole");
    let mut events = run_of(&trace).events::<Replica>();
    let read = events.by_ref().collect();
    (read, events.end().expect("there are no more").clone())
}

#[test]
fn a_torn_end_is_read_up_to_the_last_whole_record() {
    let segment = recorded(1 << 20).remove(0);
    let (all, end) = read([segment.clone()]);
    assert_eq!(end, Ending::Finished);
    let records = records(&segment);
    for len in records[0].start..segment.len() {
        let whole = records.iter().filter(|record| record.end <= len).count();
        let (events, end) = read([segment.slice(..len)]);
        assert_eq!(events, all[..whole], "{len} bytes");
        let bytes = records[..whole].last().map_or(records[0].start, |record| record.end) as u64;
        assert_eq!(end, Ending::Torn { segment: String::from("segment 0"), whole: bytes });
        assert!(end.is_whole(), "a kill is no damage");
    }
    // What is there can be replayed.
    let trace = Trace::read([segment.slice(..segment.len() / 2)]).expect("the header is whole");
    assert!(run_of(&trace).replay::<Replica>().expect("it has its beginning").all(|step| !step.differs()));
}

#[test]
fn any_flipped_bit_is_noticed() {
    let segment = recorded(1 << 20).remove(0);
    let (all, _) = read([segment.clone()]);
    for place in 0..segment.len() {
        let mut bytes = segment.to_vec();
        bytes[place] ^= 1 << (place % 8);
        let Ok(trace) = Trace::read([Bytes::from(bytes)]) else { continue };
        let mut events = run_of(&trace).events::<Replica>();
        let read: Vec<_> = events.by_ref().collect();
        assert_eq!(read, all[..read.len()], "byte {place}");
        assert!(matches!(events.end(), Some(Ending::Damaged { .. } | Ending::Torn { .. })), "byte {place}");
    }
}

#[test]
fn records_that_change_places_are_noticed() {
    let segment = recorded(1 << 20).remove(0);
    let records = records(&segment);
    let (all, _) = read([segment.clone()]);
    let gone = [&segment[..records[9].start], &segment[records[10].start..]].concat();
    let (events, end) = read([Bytes::from(gone)]);
    assert_eq!(events, all[..9]);
    assert!(matches!(end, Ending::Damaged { .. }), "{end:?}");
}

#[test]
fn without_its_beginning_it_is_told_but_not_replayed() {
    let segments = recorded(2048);
    let (all, _) = read(segments.clone());
    let (events, end) = read(segments[2..].iter().cloned());
    assert_eq!((events.last(), end), (all.last(), Ending::Finished));
    assert_eq!(events, all[all.len() - events.len()..], "numbers and times are those that they had");
    let trace = Trace::read(segments[2..].iter().cloned()).expect("the headers are whole");
    assert_eq!(run_of(&trace).replay::<Replica>().err(), Some(NotReplayable::NoBeginning(2)));
}

#[test]
fn a_gap_and_a_missing_end_are_told() {
    let segments = recorded(2048);
    let (events, end) = read([segments[0].clone(), segments[2].clone()]);
    let (first, alone) = read([segments[0].clone()]);
    assert_eq!((events, end), (first, Ending::Missing { segment: 1 }));
    assert_eq!(alone, Ending::Continued { segment: 1 });
    // One in the middle that breaks off was not killed: the recording went on.
    let torn = segments[1].slice(..segments[1].len() - 1);
    let (_, end) = read([segments[0].clone(), torn, segments[2].clone()]);
    assert!(matches!(end, Ending::Damaged { .. }) && !end.is_whole(), "{end:?}");
}

#[test]
fn what_is_no_trace_is_refused() {
    let segment = recorded(1 << 20).remove(0);
    for bytes in [0, 6, 8, 10, 40].map(|len| segment.slice(..len)) {
        assert!(matches!(Trace::read([bytes.clone()]), Err(Error::Header)), "{bytes:?}");
    }
    assert!(matches!(Trace::read([Bytes::from_static(b"SQLite format 3")]), Err(Error::Foreign)));
    let mut newer = segment.to_vec();
    newer[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let error = Trace::read([Bytes::from(newer)]).expect_err("it may be anything");
    assert!(matches!(error, Error::Format(format) if format == FORMAT + 1));
    assert_eq!(error.to_string(), "it is a trace of format 3; this version reads format 2");
}
