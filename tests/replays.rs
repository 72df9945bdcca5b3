//! What was sent before, once more, and what was damaged on its way: on datagrams no op is applied twice, and no frame
//! makes a session panic or take the blame.

mod common;

use antiphon::digest::BodyHash;
use antiphon::op::Body;
use antiphon::rng::Rng;
use antiphon::wire::varint::put_varint;
use antiphon::wire::*;
use bytes::Bytes;
use common::crafted::*;
use common::victim::*;
use common::*;

/// What an honest peer sends, from the first frame on: ops alone, in bulk and in parts, and acknowledgements.
fn honest(victim: &Victim) -> Vec<Bytes> {
    let mut frames = victim.script(Stage::Opened);
    let mut number = (frames.len() - 2) as u64;
    let mut later =
        vec![live(0, 1, b"one"), bulk(1, 2, 20, 30), ack(1, 1, 0), nothing(21, 3), live(24, 22, b"after nothing")];
    for offset in [0, 700, 1400] {
        let piece = Bytes::from(vec![4; 700]);
        later.push(changes(OURS, 25, Content::Part { author: 0, seq: 23, offset, total: 2100, piece }));
    }
    later.extend([
        ack_with(2, OWN_OPS, OWN_OPS, |ack| ack.skip = Some(Skip { document: OURS, from: 26, to: 27 })),
        ping(3),
        author(OURS, 1, replica_number(9), 0),
        changes(OURS, 27, Content::Live { author: 1, seq: 1, body: Body::Blank(BodyHash(4)) }),
        credit(3, 1 << 15),
        rewind(4, OWN_OPS, Point::at(OWN_OPS), None),
        open(8, &document("other"), |_| {}),
        close(&document("other")),
    ]);
    for frame in later {
        let control = matches!(
            Message::decode(&frame),
            Ok(Message::Author(_) | Message::Open(_) | Message::Close(_) | Message::Resume(_))
        );
        let frame = if control && victim.is_datagram() {
            number += 1;
            Message::Reliable(number - 1, frame).encode()
        } else {
            frame
        };
        frames.push(victim.sealed(frame));
    }
    frames
}

#[test]
fn replays_on_datagrams_change_nothing() {
    for target in TARGETS {
        let mut straight = Victim::new(target, DATAGRAM);
        honest(&straight).into_iter().for_each(|frame| straight.feed(frame));
        let mut victim = Victim::new(target, DATAGRAM);
        let frames = honest(&victim);
        for index in 0..frames.len() {
            victim.feed(frames[index].clone());
            frames[..=index].iter().for_each(|frame| victim.feed(frame.clone()));
            assert_eq!(victim.ending(), None, "{target:?}: after frame {index}");
        }
        victim.wait(SECOND);
        straight.wait(SECOND);
        assert_eq!(victim.digest(), straight.digest(), "{target:?}: every op was applied once");
    }
}

#[test]
fn replays_on_reliable_links_are_harmless_or_refused() {
    for target in TARGETS {
        let count = honest(&Victim::new(target, RELIABLE)).len();
        for (first, second) in (0..count).flat_map(|first| (first..count).map(move |second| (first, second))) {
            let mut victim = Victim::new(target, RELIABLE);
            let frames = honest(&victim);
            for (index, frame) in frames.iter().enumerate() {
                victim.feed(frame.clone());
                if index == second {
                    victim.feed(frames[first].clone());
                }
            }
            victim.wait(SECOND);
            victim.assert_peers_fault("a replay");
            if victim.ending().is_none() {
                let mut straight = Victim::new(target, RELIABLE);
                frames.into_iter().for_each(|frame| straight.feed(frame));
                straight.wait(SECOND);
                assert_eq!(victim.digest(), straight.digest(), "{target:?}: {first} after {second}");
            }
        }
    }
}

/// Frames of an honest peer that were damaged, doubled, dropped, swapped or grown.
#[test]
fn damaged_frames_never_panic_and_are_the_peers_fault() {
    for seed in 0..3000 {
        let mut dice = Rng::new(seed);
        let target = TARGETS[dice.below(2) as usize];
        let setup = if dice.below(3) == 0 { DATAGRAM } else { RELIABLE };
        let mut victim = Victim::new(target, setup);
        let mut frames = honest(&victim);
        // Most of the time the handshake is left alone: there is more to break behind it.
        let first = if dice.below(10) == 0 { 0 } else { 2 };
        for _ in 0..1 + dice.below(6) {
            let index = first + dice.below((frames.len() - first) as u64) as usize;
            match dice.below(8) {
                0 => frames.insert(index, frames[dice.below(frames.len() as u64) as usize].clone()),
                1 => _ = frames.remove(index),
                2 => frames.swap(index, first),
                _ => {
                    // The trailer is made anew, so that the damage gets past it.
                    let mut bytes = victim.unsealed(&frames[index]).to_vec();
                    damage(&mut bytes, &mut dice);
                    frames[index] = victim.sealed(bytes.into());
                }
            }
        }
        let used = allocation_counter::measure(|| {
            for frame in frames {
                victim.feed(frame);
                if dice.below(4) == 0 {
                    victim.wait(MILLISECOND * dice.below(100) as u32);
                }
            }
            victim.wait(SECOND);
        });
        victim.assert_peers_fault(&format!("seed {seed}"));
        assert!(used.bytes_max <= 512 << 10, "seed {seed}: {used:?}");
    }
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Rng) {
    let index = dice.below(bytes.len() as u64) as usize;
    match dice.below(6) {
        _ if bytes.is_empty() => bytes.push(dice.next_u64() as u8),
        0 => bytes[index] ^= 1 << dice.below(8),
        1 => bytes[index] = dice.next_u64() as u8,
        2 => bytes.truncate(index),
        3 => bytes.insert(index, dice.next_u64() as u8),
        4 => {
            // A number as large as numbers get.
            let mut number = Vec::new();
            put_varint(&mut number, u64::MAX >> dice.below(64));
            bytes.splice(index..=index, number);
        }
        _ => _ = bytes.remove(index),
    }
}
