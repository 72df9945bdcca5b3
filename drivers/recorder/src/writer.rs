//! Segments as they are written: events to records, and a new segment when one is full.

use antiphon::Instant;
use antiphon::wire::varint::put_varint;
use serde::Serialize;

use crate::format::{Encoder, Header, Outcome, Payload, checksum, last, put, settle};
use crate::recorder::Options;
use crate::sink::Sink;

/// Writes a recording. When it is dropped, the recording ends in order.
pub(crate) struct Writer {
    sink: Box<dyn Sink>,
    header: Header,
    encoder: Encoder,
    /// Of the event that is being written.
    payload: Vec<u8>,
    length: Vec<u8>,
    /// Bytes of the segment so far.
    written: u64,
    /// The last record is written.
    over: bool,
}

impl Writer {
    pub(crate) fn new(machine: &str, setup: &impl Serialize, sink: Box<dyn Sink>, options: Options) -> Self {
        let mut content = Vec::new();
        put(&mut content, setup);
        let header = Header {
            machine: machine.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: sink.run(),
            began: options.began,
            segment: 0,
            first: 0,
            at: 0,
            redacted: options.redacted,
            setup: content.into(),
        };
        let (encoder, payload, length) = Default::default();
        let mut writer = Self { sink, header, encoder, payload, length, written: 0, over: false };
        writer.begin_segment();
        writer
    }

    fn begin_segment(&mut self) {
        let header = self.header.encode();
        self.written = header.len() as u64;
        self.encoder.clear();
        self.sink.begin(header);
    }

    /// An input is about to be handled.
    pub(crate) fn begin<I: Serialize>(&mut self, now: Instant, written: &Payload<'_, I>) {
        if self.written >= self.sink.segment_bytes() {
            last(&mut self.payload, true);
            self.append();
            self.header.segment += 1;
            self.begin_segment();
        }
        let now = now.as_micros().max(self.header.at);
        let since = now - self.header.at;
        self.header.at = now;
        self.encoder.event(&mut self.payload, since, written);
    }

    /// What is kept of its outputs, in a redacted trace.
    pub(crate) fn keep<K: Serialize>(&mut self, kept: &[K]) {
        if !kept.is_empty() {
            put(&mut self.payload, &kept);
        }
    }

    /// It has been.
    pub(crate) fn end_event(&mut self, outcome: Outcome) {
        settle(&mut self.payload, outcome);
        self.append();
        self.header.first += 1;
        if outcome == Outcome::Panicked {
            // Nothing comes after it, and perhaps the process ends now.
            self.over = true;
            self.sink.flush();
        }
    }

    fn append(&mut self) {
        self.length.clear();
        put_varint(&mut self.length, self.payload.len() as u64);
        let checksum = checksum(&self.payload, self.header.first).to_le_bytes();
        self.written += (self.length.len() + self.payload.len() + checksum.len()) as u64;
        self.sink.append([&self.length, &self.payload, &checksum]);
    }

    /// Ends the recording in order, and says what went wrong with it, if something did.
    pub(crate) fn finish(mut self) -> Option<String> {
        self.end();
        self.failure()
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            last(&mut self.payload, false);
            self.append();
            self.sink.flush();
        }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.sink.failure()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}
