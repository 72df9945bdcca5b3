//! A trace is little more than what came in: a body that comes again is named, and an input costs some bytes.

mod common;

use antiphon::Replica;
use antiphon::replica::Input;
use antiphon::session::Transport;
use antiphon::storage::Reply;
use antiphon_recorder::{Memory, Trace};
use bytes::Bytes;
use common::*;

/// Bytes of bodies in the inputs of a run, counted each time that they come.
fn bodies(input: &Input) -> usize {
    match input {
        Input::Append { bodies, .. } => bodies.iter().map(Bytes::len).sum(),
        Input::Storage { reply: Ok(Reply::Entries(entries)), .. } => {
            entries.iter().map(|entry| entry.op.body.wire_len()).sum()
        }
        Input::Received { frame, .. } => frame.len(),
        _ => 0,
    }
}

#[test]
fn a_body_is_written_once() {
    const OPS: usize = 100;
    const BYTES: usize = 1000;
    let (mut two, memories) = Two::in_memory(Transport::Reliable);
    two.open(0, "notes");
    for number in 0..OPS {
        two.append(0, "notes", &[&[number as u8; BYTES]]);
        two.run(1);
    }
    // Of these entries few are in memory: they are read from storage for each reader.
    for reader in 0..3 {
        two.open(1, "notes");
        two.connect([None, None]);
        two.run(200);
        assert_eq!(two.tail(1, "notes"), OPS as u64);
        two.disconnect();
        two.ends[1] = End::new(10 + reader, Memory::new(1 << 20), false);
    }
    two.finish();
    let segments = memories[0].segments();
    let trace = Trace::read(segments.clone()).expect("it was just written");
    let came: usize = run_of(&trace).events::<Replica>().map(|event| bodies(&event.input)).sum();
    assert!(came > 3 * OPS * BYTES, "{came}: it was appended, and read for each reader");
    let written: usize = segments.iter().map(Bytes::len).sum();
    assert!(written < OPS * BYTES * 5 / 4, "{written} bytes for {} of bodies", OPS * BYTES);
    assert!(run_of(&trace).replay::<Replica>().expect("it has its beginning").all(|step| !step.differs()));
}

#[test]
fn an_acknowledgement_costs_some_bytes() {
    let (mut two, memories) = Two::in_memory(Transport::Reliable);
    script(&mut two, [None, None]);
    let segment = memories[0].segments().remove(0);
    let trace = Trace::read([segment.clone()]).expect("it was just written");
    let events = run_of(&trace).events::<Replica>();
    let sizes = events.zip(records(&segment)).filter_map(|(event, record)| match event.input {
        Input::Received { frame, .. } if frame.first() == Some(&0x0a) => Some((record.len(), frame.len())),
        _ => None,
    });
    let sizes: Vec<_> = sizes.collect();
    assert!(sizes.len() > 5);
    for (record, frame) in sizes {
        assert!(record <= frame + 25, "{record} bytes for an Ack of {frame}");
    }
}
