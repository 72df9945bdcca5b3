//! Any bytes as a frame: decoding never panics, allocates in proportion to the frame, and what it accepts it writes
//! the same way.

#![no_main]

use antiphon::heads::Heads;
use antiphon::wire::control::unpack_heads;
use antiphon::wire::{Message, Tag};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// The bound of tests/allocation.rs.
const PER_BYTE: u64 = 64;
const CONSTANT: u64 = 512;

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    drop(frame.clone()); // sharing a buffer for the first time allocates its reference count, once
    let mut decoded = None;
    let info = allocation_counter::measure(|| decoded = Some(Message::decode(&frame)));
    let bound = PER_BYTE * frame.len() as u64 + CONSTANT;
    assert!(info.bytes_total <= bound, "{} bytes allocated for a frame of {}", info.bytes_total, frame.len());

    if let Some(Ok(message)) = decoded {
        assert_eq!(message.encode(), frame, "{message:?}");
        if let Message::Heads(part) = message {
            let mut heads = Heads::new();
            let read = unpack_heads(part.heads.clone(), &mut heads, &mut None);
            assert!(read.is_err() || heads.len() * 25 <= part.heads.len(), "heads from nowhere");
        }
    }

    let tag = Tag::new(1, 2);
    assert_eq!(tag.unseal(&tag.seal(&frame)), Some(frame.clone()));
    assert_eq!(Tag::new(2, 1).unseal(&tag.seal(&frame)), None);
    let _ = tag.unseal(&frame);
});
