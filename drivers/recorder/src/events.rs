//! The events of a recording, one after the other, and how they end.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use antiphon::Instant;
use bytes::Bytes;

use crate::format::{Bad, Decoder, Outcome, Record};
use crate::recorder::Recordable;
use crate::trace::{Run, Segment, header};

/// An input that was recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event<I, K> {
    /// Which of the recording, from 0.
    pub number: u64,
    /// When, by the machine's time.
    pub at: Instant,
    /// What: without secrets, and in a redacted trace with empty bodies.
    pub input: I,
    /// Bytes of bodies that were left out.
    pub left_out: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// In a redacted trace, what is kept of its outputs.
    pub kept: Vec<K>,
}

/// How what is there of a recording ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// In order.
    Finished,
    /// The machine panicked.
    Panicked,
    /// It breaks off: the process was killed, or still writes it.
    Torn {
        /// The segment.
        segment: String,
        /// Bytes of it that are whole.
        whole: u64,
    },
    /// Bytes are not those that were written.
    Damaged {
        /// The segment.
        segment: String,
        /// Bytes of it that are whole.
        whole: u64,
    },
    /// It goes on in a segment that is not there, nor are any after it.
    Continued {
        /// Its number.
        segment: u64,
    },
    /// A segment between others is missing.
    Missing {
        /// Its number.
        segment: u64,
    },
    /// A segment's file can't be read.
    Unreadable {
        /// The segment.
        segment: String,
        /// Why.
        reason: String,
    },
}

impl End {
    /// Whether it is what it was when it was written: a recording in order, or one whose process was killed, or goes on.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Finished | Self::Panicked | Self::Torn { .. } | Self::Continued { .. })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("it ends in order"),
            Self::Panicked => f.write_str("it ends with a panic"),
            Self::Torn { segment, whole } => write!(f, "it breaks off in {segment}, of which {whole} bytes are whole"),
            Self::Damaged { segment, whole } => {
                write!(f, "{segment} is damaged: {whole} bytes of it are whole, and what follows is not read")
            }
            Self::Continued { segment } => write!(f, "it goes on in segment {segment}, which is not here"),
            Self::Missing { segment } => write!(f, "segment {segment} is missing, and what follows is not read"),
            Self::Unreadable { segment, reason } => write!(f, "{segment} can't be read: {reason}"),
        }
    }
}

impl Run {
    /// Its events, from the first that is there, in order.
    pub fn events<M: Recordable>(&self) -> Events<'_, M> {
        Events {
            segments: self.segments().iter(),
            current: None,
            number: self.header().first,
            at: Instant::from_micros(self.header().at),
            segment: self.header().segment,
            end: None,
            machine: PhantomData,
        }
    }
}

/// The events of a recording. After the last, [`end`](Self::end) says how it ends.
#[derive(Debug)]
pub struct Events<'a, M> {
    segments: std::slice::Iter<'a, Segment>,
    current: Option<Reading<'a>>,
    number: u64,
    at: Instant,
    /// The number of the segment that is read next.
    segment: u64,
    end: Option<End>,
    machine: PhantomData<M>,
}

#[derive(Debug)]
struct Reading<'a> {
    name: &'a str,
    bytes: Bytes,
    len: u64,
    decoder: Decoder,
}

impl<M: Recordable> Events<'_, M> {
    /// How it ends; `None` while there are events.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next segment, or the end.
    fn next_segment(&mut self) -> Result<(), End> {
        let Some(segment) = self.segments.next() else { return Err(End::Continued { segment: self.segment }) };
        if segment.header.segment != self.segment || segment.header.first != self.number {
            return Err(End::Missing { segment: self.segment });
        }
        let unreadable = |reason: String| End::Unreadable { segment: segment.name.clone(), reason };
        let mut bytes = segment.bytes().map_err(|error| unreadable(error.to_string()))?;
        let len = bytes.len() as u64;
        header(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
        self.segment += 1;
        self.at = self.at.max(Instant::from_micros(segment.header.at));
        self.current = Some(Reading { name: &segment.name, bytes, len, decoder: Decoder::default() });
        Ok(())
    }

    fn advance(&mut self) -> Result<Event<M::Input, M::Kept>, End> {
        loop {
            let Some(reading) = &mut self.current else {
                self.next_segment()?;
                continue;
            };
            let (segment, whole) = (reading.name.to_owned(), reading.len - reading.bytes.len() as u64);
            match reading.decoder.take::<M::Written, M::Kept>(&mut reading.bytes, self.number) {
                Ok(Record::Event { outcome, since, left_out, bodies, input, kept }) => {
                    let Some(input) = M::read(input, bodies) else { return Err(End::Damaged { segment, whole }) };
                    let number = self.number;
                    self.number = number.checked_add(1).ok_or(End::Damaged { segment, whole })?;
                    self.at = self.at + Duration::from_micros(since);
                    return Ok(Event { number, at: self.at, input, left_out, outcome, kept });
                }
                Ok(Record::Continued) => self.next_segment()?,
                Ok(Record::Finished) => return Err(End::Finished),
                Err(Bad::Damaged) => return Err(End::Damaged { segment, whole }),
                // A recording that went on was not torn by a kill.
                Err(Bad::Torn) if self.segments.len() > 0 => return Err(End::Damaged { segment, whole }),
                Err(Bad::Torn) => return Err(End::Torn { segment, whole }),
            }
        }
    }
}

impl<M: Recordable> Iterator for Events<'_, M> {
    type Item = Event<M::Input, M::Kept>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some() {
            return None;
        }
        match self.advance() {
            Ok(event) => {
                if event.outcome == Outcome::Panicked {
                    self.end = Some(End::Panicked);
                }
                Some(event)
            }
            Err(end) => {
                self.end = Some(end);
                None
            }
        }
    }
}
