//! What a datagram adds: four bytes that tell damaged frames, and frames of another session, from ours.

use alloc::vec::Vec;

use bytes::Bytes;
use crc::{CRC_32_ISCSI, Crc, Table};
use xxhash_rust::xxh3::xxh3_64;

/// CRC32C (Castagnoli, RFC 3720), as iSCSI and QUIC's predecessors use it.
const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Bytes that a datagram's trailer takes.
pub const TRAILER_BYTES: usize = 4;

/// What marks the frames of one session in one direction: a hash of the sender's nonce and the receiver's.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Tag(u32);

impl Tag {
    /// The tag of Hello, which tells the nonce. Everything after it, Refuse included, bears both nonces.
    pub const NONE: Self = Self(0);

    /// The tag of frames from the end with the nonce `sender` to the end with the nonce `receiver`.
    pub fn new(sender: u64, receiver: u64) -> Self {
        let mut nonces = [0; 16];
        nonces[..8].copy_from_slice(&sender.to_le_bytes());
        nonces[8..].copy_from_slice(&receiver.to_le_bytes());
        Self(xxh3_64(&nonces) as u32 | 1)
    }

    /// The tag of changes that are sent after so many turns; see [`turn_of`](Self::turn_of). Turns repeat after
    /// [`TURNS`](Self::TURNS).
    #[must_use]
    pub const fn turned(self, turn: u32) -> Self {
        Self(self.0 ^ (turn % Self::TURNS).wrapping_mul(0x9e37_79b1) << 1)
    }

    /// How many turns there are.
    pub const TURNS: u32 = 8;

    /// The turn of a frame, if it is whole and bears this tag or another [`turned`](Self::turned) one. A sender takes the
    /// next turn with the first Open after a Close: so changes of an earlier opening, which may leave out what was held then,
    /// are told from those of a later one.
    pub fn turn_of(self, datagram: &Bytes) -> Option<u32> {
        let len = datagram.len().checked_sub(TRAILER_BYTES)?;
        let (frame, trailer) = datagram.split_at(len);
        let tag = u32::from_le_bytes(*trailer.first_chunk()?) ^ CRC.checksum(frame);
        (0..Self::TURNS).find(|turn| self.turned(*turn).0 == tag)
    }

    /// The frame with its trailer.
    pub fn seal(self, frame: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(frame.len() + TRAILER_BYTES);
        out.extend_from_slice(frame);
        out.extend_from_slice(&(CRC.checksum(frame) ^ self.0).to_le_bytes());
        out.into()
    }

    /// The frame without its trailer, if it is whole and bears this tag.
    pub fn unseal(self, datagram: &Bytes) -> Option<Bytes> {
        let len = datagram.len().checked_sub(TRAILER_BYTES)?;
        let (frame, trailer) = datagram.split_at(len);
        (trailer == (CRC.checksum(frame) ^ self.0).to_le_bytes()).then(|| datagram.slice(..len))
    }
}
