//! The two hands that touch raw bytes: unsigned LEB128 varints and slices, read without copying.

use alloc::vec::Vec;

use bytes::{Buf, Bytes};

use super::Malformed;

/// The longest varint: 64 bits in groups of seven.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] takes for `value`.
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes a varint from the front of bytes that lie in one piece; refuses what is cut off, overlong or above 64 bits.
pub fn take_varint(bytes: &mut impl Buf) -> Result<u64, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.chunk().iter().take(VARINT_BYTES_MAX).enumerate() {
        let group = u64::from(byte & 0x7f);
        if index == VARINT_BYTES_MAX - 1 && group > 1 {
            return Err(Malformed::Varint);
        }
        value |= group << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Malformed::Varint);
            }
            bytes.advance(index + 1);
            return Ok(value);
        }
    }
    Err(if bytes.remaining() < VARINT_BYTES_MAX { Malformed::Truncated } else { Malformed::Varint })
}

/// Takes a varint that fits 32 bits.
pub fn take_u32(bytes: &mut Bytes) -> Result<u32, Malformed> {
    u32::try_from(take_varint(bytes)?).map_err(|_| Malformed::Varint)
}

/// Takes `len` bytes from the front, as a slice of the same buffer.
pub fn take_bytes(bytes: &mut Bytes, len: u64) -> Result<Bytes, Malformed> {
    match usize::try_from(len) {
        Ok(len) if len <= bytes.len() => Ok(bytes.split_to(len)),
        _ => Err(Malformed::Truncated),
    }
}

/// Takes eight bytes from the front, little endian.
pub fn take_u64_le(bytes: &mut Bytes) -> Result<u64, Malformed> {
    bytes.try_get_u64_le().map_err(|_| Malformed::Truncated)
}
