//! The codec: one encoding a message, one message a frame, and nothing else is accepted.

mod messages;

use std::collections::BTreeMap;

use antiphon::digest::BodyHash;
use antiphon::heads::{Head, Heads};
use antiphon::log::Author;
use antiphon::op::{Body, Op, OpId, ReplicaId};
use antiphon::wire::changes::{pack, pack_part, resolve};
use antiphon::wire::control::{pack_heads, unpack_heads};
use antiphon::wire::varint::{VARINT_BYTES_MAX, put_varint, take_varint, varint_len};
use antiphon::wire::{Changes, Content, Malformed, Message, Tag};
use bytes::Bytes;
use messages::{Any, AnyChanges, KINDS, message};
use quickcheck::{Gen, QuickCheck, TestResult, quickcheck};

/// Frames whose last field runs to their end: cutting or adding bytes gives another message.
fn is_open_ended(message: &Message) -> bool {
    match message {
        Message::Reliable(..) | Message::Unknown(..) => true,
        Message::Changes(changes) => match &changes.content {
            Content::Live { body, .. } => body.bytes().is_some(),
            Content::Part { .. } => true,
            Content::Bulk { .. } => false,
        },
        _ => false,
    }
}

/// What is drawn covers every message there is.
#[test]
fn all_kinds_are_drawn() {
    let mut g = Gen::new(10);
    let mut kinds: Vec<u8> = (0..KINDS).map(|kind| message(&mut g, kind).encode()[0]).collect();
    for _ in 0..200 {
        kinds.push(message(&mut g, KINDS - 1).encode()[0]);
    }
    for kind in (0x01..=0x17).chain([0x30, 0x31, 0x32, 0x40, 0x90, 0xb0]) {
        assert!(kinds.contains(&kind), "kind {kind:#04x} is not drawn");
    }
}

quickcheck! {
    fn decode_inverts_encode(any: Any) -> bool {
        Message::decode(&any.0.encode()) == Ok(any.0)
    }

    fn what_decodes_encodes_to_the_same_bytes(bytes: Vec<u8>) -> bool {
        is_canonical(bytes)
    }

    fn prefixes_are_refused(any: Any) -> bool {
        let frame = any.0.encode();
        (0..frame.len()).all(|len| {
            let prefix = frame.slice(..len);
            match Message::decode(&prefix) {
                Ok(message) => is_open_ended(&any.0) && message != any.0 && message.encode() == prefix,
                Err(_) => true,
            }
        })
    }

    fn trailing_bytes_are_refused(any: Any, extra: u8) -> bool {
        let frame: Bytes = [&any.0.encode()[..], &[extra]].concat().into();
        match Message::decode(&frame) {
            Ok(message) => is_open_ended(&any.0) && message.encode() == frame,
            Err(error) => !is_open_ended(&any.0) && error == Malformed::Trailing || is_full_part(&any.0),
        }
    }

    fn optional_kinds_are_skipped_and_others_refused(kind: u8, body: Vec<u8>) -> TestResult {
        let known = [0x01..=0x18, 0x30..=0x32, 0x40..=0x40, 0x90..=0x90, 0xb0..=0xb0];
        if known.iter().any(|range| range.contains(&kind)) {
            return TestResult::discard();
        }
        let decoded = Message::decode(&[&[kind][..], &body].concat().into());
        TestResult::from_bool(match kind {
            0x41..=0x7f => decoded == Ok(Message::Unknown(kind, body.into())),
            _ => decoded.is_err(),
        })
    }

    fn varints_have_one_encoding(value: u64, extra: Vec<u8>) -> bool {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        let len = out.len();
        let mut bytes = Bytes::from([out, extra.clone()].concat());
        len == varint_len(value) && take_varint(&mut bytes) == Ok(value) && bytes == extra
    }

    fn packed_ops_come_out_as_they_went_in(ops: Vec<(u8, bool, Vec<u8>)>, begins: u16, ahead: u16, base: u8) -> bool {
        packs(&ops, u64::from(begins), u64::from(ahead), u64::from(base))
    }

    fn parts_make_up_the_body(body: Vec<u8>, max_bytes: u8, begins: u16, from: u16, base: u8) -> TestResult {
        if body.is_empty() {
            return TestResult::discard();
        }
        let (begins, from, base) = (begins.into(), from.into(), base.into());
        TestResult::from_bool(packs_parts(&body.into(), usize::from(max_bytes), begins, from, base))
    }

    fn heads_in_parts_are_the_same_heads(seqs: Vec<u64>, max_bytes: u8) -> bool {
        let id = |index: usize| ReplicaId((index as u128 + 1).to_be_bytes());
        let heads: Heads = seqs.iter().enumerate().map(|(index, seq)| {
            (id(index), Head { seq: (*seq).max(1), chain: antiphon::digest::Chain(seq.rotate_left(7)) })
        }).collect();
        let (mut copy, mut last, mut after, mut count) = (Heads::new(), None, None, 0);
        loop {
            let (part, more, stopped) = pack_heads(heads.after(after), usize::from(max_bytes) + 34);
            assert!(part.len() <= usize::from(max_bytes) + 34);
            unpack_heads(part, &mut copy, &mut last).unwrap();
            count += more;
            assert_eq!(count as usize, copy.len());
            if stopped.is_none() {
                return copy == heads && copy.digest() == heads.digest();
            }
            after = stopped;
        }
    }

    fn a_damaged_datagram_is_dropped(any: Any, sender: u64, receiver: u64, bit: usize, len: usize) -> bool {
        let tag = Tag::new(sender, receiver);
        let frame = any.0.encode();
        let datagram = tag.seal(&frame);
        let mut flipped = datagram.to_vec();
        let bit = bit % (8 * flipped.len());
        flipped[bit / 8] ^= 1 << (bit % 8);
        tag.unseal(&datagram) == Some(frame)
            && tag.unseal(&flipped.into()).is_none()
            && tag.unseal(&datagram.slice(..len % datagram.len())).is_none()
    }

    fn a_datagram_of_another_session_is_dropped(any: Any, sender: u64, receiver: u64, other: u64) -> TestResult {
        if other == sender || other == receiver || sender == receiver {
            return TestResult::discard();
        }
        let datagram = Tag::new(sender, receiver).seal(&any.0.encode());
        let tags = [Tag::new(receiver, sender), Tag::new(sender, other), Tag::new(other, receiver), Tag::NONE];
        TestResult::from_bool(tags.iter().all(|tag| tag.unseal(&datagram).is_none()))
    }
}

/// A part that ends its op: a byte more is a byte over the op's length.
fn is_full_part(message: &Message) -> bool {
    let Message::Changes(Changes { content: Content::Part { offset, total, piece, .. }, .. }) = message else {
        return false;
    };
    u64::from(*offset) + piece.len() as u64 == u64::from(*total)
}

/// Random bytes are seldom a message: every kind byte is tried in front of them, and valid frames are damaged.
#[test]
fn near_misses_decode_to_themselves_or_not_at_all() {
    fn each_kind(body: Vec<u8>) -> bool {
        (0..=u8::MAX).all(|kind| is_canonical([&[kind][..], &body].concat()))
    }
    fn one_byte_off(any: Any, at: usize, byte: u8) -> bool {
        let mut frame = any.0.encode().to_vec();
        let at = at % frame.len();
        frame[at] = byte;
        is_canonical(frame)
    }
    fn one_byte_out(any: Any, at: usize) -> bool {
        let mut frame = any.0.encode().to_vec();
        frame.remove(at % frame.len());
        is_canonical(frame)
    }
    QuickCheck::new().tests(300).quickcheck(each_kind as fn(_) -> _);
    QuickCheck::new().tests(5000).quickcheck(one_byte_off as fn(_, _, _) -> _);
    QuickCheck::new().tests(5000).quickcheck(one_byte_out as fn(_, _) -> _);
}

/// Each varint of each frame made one byte longer, the value unchanged: refused, wherever it stands.
#[test]
fn overlong_varints_are_refused() {
    for (len, ending) in [(2, 0x00), (3, 0x00), (10, 0x00), (10, 0x02), (10, 0x7f), (11, 0x00)] {
        let mut bytes = vec![0x80; len - 1];
        bytes.push(ending);
        let error = take_varint(&mut Bytes::from(bytes));
        assert_eq!(error, Err(Malformed::Varint), "{len} bytes, the last {ending:#04x}");
    }
    assert_eq!(take_varint(&mut &[0x80; VARINT_BYTES_MAX - 1][..]), Err(Malformed::Truncated));

    // Ping, with its token as it should be, and one byte longer than it need be.
    assert!(Message::decode(&[0x0c, 0x05, 0x00].to_vec().into()).is_ok());
    assert_eq!(Message::decode(&[0x0c, 0x85, 0x00, 0x00].to_vec().into()), Err(Malformed::Control));
    // The same of each number of a live frame, and of Reliable.
    assert!(Message::decode(&[0x10, 0x01, 0x02, 0x03, 0x04].to_vec().into()).is_ok());
    for at in 1..5 {
        let mut frame = vec![0x10, 0x01, 0x02, 0x03, 0x04];
        frame[at] |= 0x80;
        frame.insert(at + 1, 0x00);
        assert_eq!(Message::decode(&frame.into()), Err(Malformed::Varint), "field {at}");
    }
    assert_eq!(Message::decode(&[0x13, 0x80, 0x00].to_vec().into()), Err(Malformed::Varint));
}

/// Any bytes of any frame made `b | 0x80, 0x00`: if they were a varint's last byte, the frame is refused.
#[test]
fn no_frame_can_be_made_longer() {
    fn stretched(any: Any) -> bool {
        let frame = any.0.encode();
        (0..frame.len()).all(|at| {
            let mut longer = frame.to_vec();
            longer[at] |= 0x80;
            longer.insert(at + 1, 0x00);
            Message::decode(&longer.into()).map_or(true, |message| message != any.0)
        })
    }
    quickcheck(stretched as fn(Any) -> bool);
}

#[test]
fn nothing_is_no_message() {
    assert_eq!(Message::decode(&Bytes::new()), Err(Malformed::Truncated));
}

#[test]
fn counts_that_no_frame_can_hold_are_refused() {
    let bulk = |span: u64, runs: u64, rest: &[u8]| {
        let mut frame = vec![0x11, 0x00, 0x00];
        put_varint(&mut frame, span);
        put_varint(&mut frame, runs);
        frame.extend_from_slice(rest);
        Message::decode(&frame.into())
    };
    assert!(bulk(0, 0, &[]).is_ok());
    assert!(bulk(u64::MAX, 0, &[]).is_ok(), "a span costs nothing: the session judges it");
    assert_eq!(bulk(9, u64::MAX, &[0; 9]), Err(Malformed::Truncated));
    assert_eq!(bulk(9, 4, &[0, 1, 2, 0, 1, 2, 0, 1, 2]), Err(Malformed::Truncated));
    assert_eq!(bulk(9, 1, &[0, 1, 0]), Err(Malformed::Order), "a run of no ops");
    assert_eq!(bulk(9, 1, &[0, 1, 0x7e, 0]), Err(Malformed::Truncated), "a run of 63 ops in one byte");
    assert_eq!(bulk(0, 1, &[0, 1, 2, 0]), Err(Malformed::Order), "an op beyond the span");
    assert!(bulk(1, 1, &[0, 1, 2, 0]).is_ok());
    let endless = [&[0][..], &[0xff; 9], &[0x01, 0x02, 0x00]].concat();
    assert_eq!(bulk(1, 1, &endless), Err(Malformed::Order), "seqs beyond 64 bits");
}

fn op(author: ReplicaId, seq: u64, blank: bool, body: &[u8]) -> Op {
    let body = Bytes::copy_from_slice(body);
    let body = if blank { Body::Blank(BodyHash::of(&body)) } else { Body::Bytes(body) };
    Op { id: OpId { author, seq }, body }
}

fn id_of(number: u32) -> ReplicaId {
    ReplicaId(u128::from(number + 1).to_be_bytes())
}

/// Packs ops of up to 4 authors, frame after frame, and reads them back.
fn packs(drawn: &[(u8, bool, Vec<u8>)], begins: u64, ahead: u64, base: u64) -> bool {
    let mut seqs = [1; 4];
    let (mut ops, mut authors) = (Vec::new(), BTreeMap::new());
    for (author, blank, body) in drawn {
        let number = u32::from(author % 4);
        let seq = &mut seqs[number as usize];
        // Author 0 is one whose number was given out later than its first ops here.
        let base = if number == 0 { base } else { 0 };
        authors.insert(id_of(number), Author { number, id: id_of(number), base });
        ops.push(op(id_of(number), *seq, *blank, body));
        *seq += 1;
    }
    let author = |id| authors[&id];
    let (mut at, mut out) = (0, Vec::new());
    let first = ahead;
    while at < ops.len() {
        let from = first + at as u64;
        let left = ops[at..].iter();
        const MAX: usize = 200;
        let Some((packed, count)) = pack(3, begins, from, left.clone(), author, MAX, |count| from + count as u64)
        else {
            return ops[at].body.wire_len() + 60 > MAX; // too large for a frame: would go in parts
        };
        assert!(packed.frame.len() <= MAX);
        assert_eq!(packed.cost, left.take(count).map(Op::cost).sum::<u64>());
        let Ok(Message::Changes(changes)) = Message::decode(&packed.frame) else { return false };
        assert_eq!(Message::Changes(changes.clone()).encode(), packed.frame);
        let begins = if changes.absolute { 0 } else { begins };
        assert_eq!((changes.document, changes.from + begins), (3, from));
        let absolute = changes.absolute;
        let known = |number: u32| {
            let author = packed.authors.iter().find(|author| author.number == number)?;
            Some((author.id, author.base))
        };
        out.extend(resolve(changes.content, absolute, known).unwrap().unwrap());
        at += count;
    }
    out == ops
}

fn packs_parts(body: &Bytes, max_bytes: usize, begins: u64, from: u64, base: u64) -> bool {
    let op = op(id_of(0), 5, false, body);
    let author = Author { number: 0, id: id_of(0), base };
    let (mut offset, mut whole) = (0, Vec::new());
    while let Some((packed, place)) = pack_part(1, begins, from, &op, author, offset, max_bytes) {
        let Ok(Message::Changes(Changes { content: Content::Part { offset: at, total, piece, .. }, .. })) =
            Message::decode(&packed.frame)
        else {
            return false;
        };
        assert_eq!((at, total as usize), (offset, body.len()));
        whole.extend_from_slice(&piece);
        if place.offset == 0 {
            return place.position == from + 1 && whole == *body;
        }
        offset = place.offset;
    }
    false
}

#[test]
fn heads_out_of_order_are_refused() {
    let heads: Heads = (0..3).map(|n| (id_of(n), Head { seq: 9, ..Head::NONE })).collect();
    let (whole, count, _) = pack_heads(heads.iter(), usize::MAX);
    let len = whole.len() / count as usize;
    let mut swapped = whole.to_vec();
    swapped.rotate_left(len);
    let read = |bytes: Vec<u8>| unpack_heads(bytes.into(), &mut Heads::new(), &mut None);
    assert_eq!(read(whole.to_vec()), Ok(()));
    assert_eq!(read(swapped), Err(Malformed::Order));
    assert_eq!(read([&whole[..len], &whole[..len]].concat()), Err(Malformed::Order), "an author twice");
    assert_eq!(read(whole[..len - 1].to_vec()), Err(Malformed::Truncated));
    let mut none = whole[..len].to_vec();
    none[16] = 0;
    assert_eq!(read(none), Err(Malformed::Order), "a head of nothing");
}

#[test]
fn any_changes_survive_a_round_trip_with_their_kind() {
    fn same(any: AnyChanges) -> bool {
        let frame = Message::Changes(any.0.clone()).encode();
        Message::decode(&frame) == Ok(Message::Changes(any.0))
    }
    QuickCheck::new().tests(2000).quickcheck(same as fn(_) -> _);
}

fn is_canonical(bytes: Vec<u8>) -> bool {
    let frame = Bytes::from(bytes);
    Message::decode(&frame).map_or(true, |message| message.encode() == frame)
}
