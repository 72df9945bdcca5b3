//! What decoding allocates: in proportion to the frame, whatever its counts and lengths claim.
//!
//! A binary of its own, since it counts what the whole program allocates.

#[allow(dead_code)] // each test uses some of it
mod messages;

use antiphon::wire::varint::put_varint;
use antiphon::wire::{Content, Message, Tag};
use bytes::Bytes;
use messages::Any;
use quickcheck::QuickCheck;

/// Bytes allocated for one byte of a frame: an op of no bytes is one byte of Bulk, and a length and a body in memory.
const PER_BYTE: u64 = 64;
/// Bytes allocated for any frame.
const CONSTANT: u64 = 512;

/// Decodes and drops what came out; the most that was allocated at a time and in all must be within the bound.
fn decode_is_frugal(frame: Vec<u8>) -> bool {
    let frame = Bytes::from(frame);
    // Sharing a buffer for the first time allocates its reference count, once.
    drop(frame.clone());
    let info = allocation_counter::measure(|| drop(Message::decode(&frame)));
    let bound = PER_BYTE * frame.len() as u64 + CONSTANT;
    assert!(info.bytes_total <= bound, "{} bytes for {:02x?}, a frame of {}", info.bytes_total, frame, frame.len());
    info.bytes_current <= 0
}

#[test]
fn valid_frames() {
    fn frugal(any: Any) -> bool {
        decode_is_frugal(any.0.encode().to_vec())
    }
    QuickCheck::new().tests(2000).quickcheck(frugal as fn(_) -> _);
}

#[test]
fn arbitrary_bytes_behind_each_kind() {
    fn frugal(body: Vec<u8>) -> bool {
        (0..=u8::MAX).all(|kind| decode_is_frugal([&[kind][..], &body].concat()))
    }
    QuickCheck::new().tests(200).quickcheck(frugal as fn(_) -> _);
}

/// Every place of every kind of message in turn replaced by a number that promises more than there is.
#[test]
fn hostile_numbers_in_every_place() {
    fn frugal(any: Any, claim: u64, cut: bool) -> bool {
        let frame = any.0.encode();
        (0..frame.len().min(64)).all(|at| {
            let claims = [claim, 0x7f, 1 << 14, 1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX >> 1, u64::MAX];
            claims.iter().all(|claim| {
                let mut hostile = frame[..at].to_vec();
                put_varint(&mut hostile, *claim);
                hostile.extend_from_slice(if cut { &[] } else { &frame[at + 1..] });
                decode_is_frugal(hostile)
            })
        })
    }
    QuickCheck::new().tests(200).quickcheck(frugal as fn(_, _, _) -> _);
}

/// The frames that cost most: as many runs, ops and empty bodies as there are bytes.
#[test]
fn the_densest_bulk_is_within_the_bound() {
    for ops in [0_u64, 1, 100, 100_000] {
        let mut frame = vec![0x11, 0, 0];
        put_varint(&mut frame, ops);
        put_varint(&mut frame, 1);
        frame.extend_from_slice(&[0, 1]);
        put_varint(&mut frame, ops << 1);
        frame.resize(frame.len() + ops as usize, 0);
        assert_eq!(Message::decode(&frame.clone().into()).is_ok(), ops > 0);
        assert!(decode_is_frugal(frame));

        let mut frame = vec![0x31, 0, 0];
        put_varint(&mut frame, ops);
        put_varint(&mut frame, ops);
        (0..ops).for_each(|_| frame.extend_from_slice(&[0, 1, 2]));
        frame.resize(frame.len() + ops as usize, 0);
        assert!(Message::decode(&frame.clone().into()).is_ok());
        assert!(decode_is_frugal(frame));
    }
}

/// Bodies are slices of the frame that came, however large they are.
#[test]
fn bodies_are_not_copied() {
    let body = [9; 50_000];
    let live = Bytes::from([&[0x10, 0, 0, 0, 0][..], &body].concat());
    drop(live.clone());
    let info = allocation_counter::measure(|| {
        let Ok(Message::Changes(changes)) = Message::decode(&live) else { panic!("a live frame") };
        let Content::Live { body, .. } = &changes.content else { panic!("a live frame") };
        assert_eq!(body.wire_len(), 50_000);
    });
    assert_eq!(info.bytes_total, 0);

    let bulk = Bytes::from([&[0x11, 0, 0, 1, 1, 0, 0, 2][..], &[0xd0, 0x86, 0x03], &body].concat());
    drop(bulk.clone());
    let info = allocation_counter::measure(|| assert!(Message::decode(&bulk).is_ok()));
    assert!(info.bytes_total < 500, "{} bytes", info.bytes_total);

    let datagram = Tag::NONE.seal(&live);
    drop(datagram.clone());
    let info = allocation_counter::measure(|| assert!(Tag::NONE.unseal(&datagram).is_some()));
    assert_eq!(info.bytes_total, 0);
}
