//! Where a recording goes.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// A place for the segments of one recording. It never holds up whoever writes into it.
pub trait Sink: fmt::Debug + Send {
    /// Which recording of the place this is, from 1.
    fn run(&self) -> u64;

    /// After how many bytes another segment is begun. One record may go beyond, whatever its size.
    fn segment_bytes(&self) -> u64;

    /// Begins a segment with its header.
    fn begin(&mut self, header: Vec<u8>);

    /// Adds a record to the segment: its parts, one after the other.
    fn append(&mut self, record: [&[u8]; 3]);

    /// Waits until everything so far is where it belongs, as far as it can be.
    fn flush(&mut self);

    /// Why nothing more is kept, if so.
    fn failure(&self) -> Option<String>;
}

/// A recording in memory, for tests and simulations: clones are the same one.
#[derive(Clone, Debug)]
pub struct Memory {
    segments: Arc<Mutex<Vec<Vec<u8>>>>,
    segment_bytes: u64,
}

impl Memory {
    /// Nothing yet. `segment_bytes` as in [`Sink::segment_bytes`].
    pub fn new(segment_bytes: u64) -> Self {
        Self { segments: Arc::default(), segment_bytes }
    }

    /// What was recorded so far, segment by segment.
    pub fn segments(&self) -> Vec<Bytes> {
        self.lock(|segments| segments.iter().map(|segment| Bytes::copy_from_slice(segment)).collect())
    }

    fn lock<T>(&self, act: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        act(&mut self.segments.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Memory {
    fn run(&self) -> u64 {
        1
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn begin(&mut self, header: Vec<u8>) {
        self.lock(|segments| segments.push(header));
    }

    fn append(&mut self, record: [&[u8]; 3]) {
        self.lock(|segments| segments.last_mut().into_iter().for_each(|segment| extend(segment, record)));
    }

    fn flush(&mut self) {}

    fn failure(&self) -> Option<String> {
        None
    }
}

fn extend(records: &mut Vec<u8>, record: [&[u8]; 3]) {
    record.into_iter().for_each(|part| records.extend_from_slice(part));
}

/// Memory that is kept for what is yet to come.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// What waits to be written: bytes of the segment at hand, and beginnings of new ones.
#[derive(Debug)]
pub(crate) enum Piece {
    Segment(Vec<u8>),
    Records(Vec<u8>),
}

/// The pieces in their order.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: Vec<Piece>,
    pub(crate) bytes: usize,
    /// What was written, to be filled again: new memory costs more than what is put into it.
    spare: Vec<u8>,
}

impl Pieces {
    pub(crate) fn segment(&mut self, header: Vec<u8>) {
        self.bytes += header.len();
        self.pieces.push(Piece::Segment(header));
    }

    pub(crate) fn record(&mut self, record: [&[u8]; 3]) {
        self.bytes += record.iter().map(|part| part.len()).sum::<usize>();
        match self.pieces.last_mut() {
            Some(Piece::Records(records)) => extend(records, record),
            _ => {
                let mut records = mem::take(&mut self.spare);
                extend(&mut records, record);
                self.pieces.push(Piece::Records(records));
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes back what has been written.
    pub(crate) fn reuse(&mut self, mut records: Vec<u8>) {
        records.clear();
        if records.capacity() > self.spare.capacity() && records.capacity() <= SPARE_BYTES_MAX {
            self.spare = records;
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Piece> {
        self.bytes = 0;
        mem::take(&mut self.pieces)
    }
}
