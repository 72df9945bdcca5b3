//! A redacted trace has no body in it, nor what would tell one that can be guessed; it can be told, and says that it
//! can't be replayed.

mod common;

use antiphon::digest::BodyHash;
use antiphon::op::DocumentId;
use antiphon::replica::{Input, LinkId};
use antiphon::session::Transport;
use antiphon::snapshot::SnapshotId;
use antiphon::storage::Reply;
use antiphon::wire::{Message, SnapshotPart};
use antiphon::{Instant, Machine as _, Replica};
use antiphon_recorder::{Memory, NotReplayable, Outcome, Trace, Transcript};
use bytes::Bytes;
use common::*;

/// What two replicas wrote down of the usual script, and the first with a token.
fn recorded(transport: Transport, redacted: bool, token: Option<&str>) -> [Memory; 2] {
    let memories = [Memory::new(1 << 20), Memory::new(1 << 20)];
    let ends = [1, 2].map(|number| End::new(number, memories[number as usize - 1].clone(), redacted));
    script(&mut Two::new(ends, transport), [token, None]);
    memories
}

#[test]
fn no_body_is_in_it() {
    for transport in [Transport::Reliable, DATAGRAM] {
        let memories = recorded(transport, true, Some("a secret"));
        for memory in memories {
            let bytes = memory.segments().concat();
            let absent = |part: &[u8]| assert!(!bytes.windows(part.len()).any(|window| window == part), "{part:?}");
            let parts = [&b"of the first"[..], b"of the second", b"short", b"xxxx", b"yyyy", b"a secret"];
            parts.into_iter().for_each(absent);
            absent(&BodyHash::of(b"of the second").0.to_le_bytes());

            let trace = Trace::read(memory.segments()).expect("it was just written");
            let run = run_of(&trace);
            assert!(run.header().redacted);
            assert_eq!(run.replay::<Replica>().err(), Some(NotReplayable::Redacted));
            assert!(run.events::<Replica>().all(|event| event.outcome == Outcome::Digest(0)));
            let left_out: u64 = run.events::<Replica>().map(|event| event.left_out).sum();
            assert!(left_out > 6000, "{left_out}: how much it was is known");
        }
    }
}

#[test]
fn no_snapshot_is_in_it() {
    let memory = Memory::new(1 << 20);
    let mut end = End::new(1, memory.clone(), true);
    let document: DocumentId = "notes".parse().expect("a good name");
    let body = Bytes::from_static(b"what the snapshot says");
    let ticket = postcard::from_bytes(&[9]).expect("a ticket is a number");
    let id =
        SnapshotId { bytes: 100, head_bytes: 1, hash: *b"its hash of bytes"[..16].first_chunk().expect("16 bytes") };
    let part = Message::Snapshot(SnapshotPart { document: 1, id, offset: 1, bytes: body.clone() }).encode();
    let link = LinkId(1);
    for input in [
        Input::Connected { link, transport: Transport::Reliable, token: None, upstream: true },
        Input::Compact { document, position: 1, body: body.clone() },
        Input::Storage { ticket, reply: Ok(Reply::Snapshot(body)) },
        Input::Received { link, frame: part },
    ] {
        let _ = end.replica.handle(Instant::ZERO, input);
    }
    end.replica.finish();
    let bytes = memory.segments().concat();
    for part in [&b"what the snapshot says"[..], b"its hash of byte"] {
        assert!(!bytes.windows(part.len()).any(|window| window == part), "{part:?}");
    }
    let trace = Trace::read(memory.segments()).expect("it was just written");
    assert_eq!(run_of(&trace).events::<Replica>().map(|event| event.left_out).sum::<u64>(), 66);
}

#[test]
fn it_is_told_as_if_its_bodies_were_empty() {
    for transport in [Transport::Reliable, DATAGRAM] {
        let told = |redacted| {
            let memories = recorded(transport, redacted, None);
            let trace = Trace::read(memories[1].segments()).expect("it was just written");
            let mut transcript = Transcript::new();
            let events = run_of(&trace).events::<Replica>().map(|event| (event.at, event.input));
            events.map(|(at, input)| (at, transcript.input(&input), input)).collect::<Vec<_>>()
        };
        let (whole, redacted) = (told(false), told(true));
        assert_eq!(whole.len(), redacted.len());
        let mut changes = 0;
        for ((at, line, input), (redacted_at, redacted_line, _)) in whole.iter().zip(&redacted) {
            assert_eq!(
                (at, line.kind, line.link, &line.document),
                (redacted_at, redacted_line.kind, redacted_line.link, &redacted_line.document)
            );
            if matches!(line.kind, "Live" | "Bulk" | "Part") {
                changes += 1;
                assert!(matches!(input, Input::Received { .. }));
            }
        }
        assert!(changes > 10);
    }
}

/// So that it can be drawn: what was sent can't be computed again.
#[test]
fn frames_sent_are_kept() {
    for transport in [Transport::Reliable, DATAGRAM] {
        let memories = recorded(transport, true, Some("a secret"));
        let frames = memories.map(|memory| {
            let trace = Trace::read(memory.segments()).expect("it was just written");
            let mut transcript = Transcript::new();
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for event in run_of(&trace).events::<Replica>() {
                let line = transcript.input(&event.input);
                if line.arrow == "<-" {
                    received.push((line.kind, line.document));
                }
                for output in event.kept {
                    let line = transcript.output(&output.into());
                    sent.push((line.kind, line.document));
                }
            }
            sent.sort();
            received.sort();
            (sent, received)
        });
        let [(first_sent, first_received), (second_sent, second_received)] = frames;
        assert!(first_sent.len() > 30);
        assert_eq!((first_sent, second_sent), (second_received, first_received), "what one sends, the other receives");
    }
}
