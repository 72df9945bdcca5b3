//! An input, read as numbers. Bytes that have run out read as zero, so that every input is a run.

use bytes::Bytes;

/// What is left of an input.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Mostly small, so that it means something; sometimes at an edge.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=0xdf => u64::from(small % 32),
            0xe0..=0xe7 => u64::from(u32::MAX),
            0xe8..=0xef => (u64::MAX >> 2) - u64::from(self.byte() % 2),
            0xf0..=0xf7 => u64::MAX,
            _ => self.u64(),
        }
    }

    /// Up to 255 bytes.
    pub fn bytes(&mut self) -> Bytes {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }
}
