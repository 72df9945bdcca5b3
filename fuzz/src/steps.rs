//! The steps: frames are delivered, lost, doubled, damaged and invented, timers fire at odd times, and the host answers
//! what was asked and what was not.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon::codes::Code;
use antiphon::log::{Chunk, Comparison};
use antiphon::op::ReplicaId;
use antiphon::session::Input;
use antiphon::wire::Tag;
use bytes::Bytes;

use crate::host::NAMES;
use crate::laws::Cause;
use crate::run::Run;

const STEPS_MAX: usize = 200;

impl Run<'_> {
    /// Plays the whole input: a handshake most of the time, and then one step after the other.
    pub fn steps(&mut self) {
        self.drain(true, Cause::Host);
        self.drain(false, Cause::Host);
        let beginning = self.input.byte();
        if beginning % 8 != 7 {
            for subject in [true, false] {
                let defers = std::mem::replace(&mut self.end(subject).defers, false);
                for index in 0..2 {
                    if beginning >> (3 + index) & 1 == 0 {
                        let end = self.end(subject);
                        let Some(opening) = end.opening(end.first() + index, beginning & 0x40 != 0) else { continue };
                        self.feed(subject, opening, Cause::Host);
                    }
                }
                self.exchange();
                self.end(subject).defers = defers;
            }
        }
        for _ in 0..STEPS_MAX {
            if self.input.is_empty() || self.subject.closed {
                return;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        match self.input.byte() % 20 {
            0 | 1 => drop(self.deliver(true)),
            2 | 3 => drop(self.deliver(false)),
            4 => self.exchange(),
            5 => self.write(true),
            6 => self.write(false),
            7 => self.replay(),
            8 => self.damage(),
            9 => {
                let frame = self.input.bytes();
                self.invent(frame);
            }
            10..=12 => {
                let message = self.message();
                self.invent(message.encode());
            }
            13 => self.lose(),
            14 | 15 => {
                let wait = u64::from(self.input.byte()).pow(2) * 500;
                self.now = self.now + Duration::from_micros(wait);
                let subject = self.input.byte() % 4 != 3;
                self.feed(subject, Input::Timer, Cause::Timer);
            }
            16 => self.answer_later(),
            17 => {
                let bytes = if self.input.flag() { u64::MAX } else { self.input.number().saturating_mul(100) };
                self.feed(true, Input::Writable { bytes }, Cause::Host);
            }
            18 => self.use_legally(),
            _ => self.misuse(),
        }
    }

    /// The host writes an op.
    fn write(&mut self, subject: bool) {
        let index = u32::from(self.input.below(NAMES.len() as u8));
        let len = match self.input.byte() {
            byte @ 0..0xe0 => usize::from(byte % 24),
            byte => usize::from(byte) * 10,
        };
        let live = self.input.flag();
        let end = self.end(subject);
        if let Some(input) = end.write(end.first() + index, len, live) {
            self.feed(subject, input, Cause::Host);
        }
    }

    /// A frame of before once more: that is no fault on a datagram link.
    fn replay(&mut self) {
        let index = usize::from(self.input.byte());
        let to_subject = self.datagram && self.input.flag() || !self.datagram;
        let history = &self.end(!to_subject).history;
        if history.is_empty() {
            return;
        }
        let frame = history[index % history.len()].clone();
        self.dishonest |= !self.datagram;
        self.feed(to_subject, Input::Received(frame), Cause::Peer);
    }

    /// The next frame with some of its bytes changed, on its way or before it was sealed.
    fn damage(&mut self) {
        let Some(frame) = self.peer.outbox.pop_front() else { return };
        let resealed = self.input.flag();
        let tag = Tag::new(self.nonces.1, self.nonces.0);
        let inner = if self.datagram && resealed { tag.unseal(&frame) } else { None };
        let mut bytes = inner.clone().unwrap_or(frame).to_vec();
        for _ in 0..=self.input.below(3) {
            let at = usize::from(self.input.byte()) % bytes.len().max(1);
            let byte = self.input.byte();
            match self.input.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                _ if at < bytes.len() => bytes[at] ^= byte,
                _ => {}
            }
        }
        match inner {
            Some(_) => self.invent(bytes.into()),
            None => {
                self.dishonest |= !self.datagram;
                self.feed(true, Input::Received(bytes.into()), Cause::Peer);
            }
        }
    }

    /// A frame that the peer never sent, with the right seal.
    fn invent(&mut self, frame: Bytes) {
        self.dishonest = true;
        let frame = if self.datagram { Tag::new(self.nonces.1, self.nonces.0).seal(&frame) } else { frame };
        self.feed(true, Input::Received(frame), Cause::Peer);
    }

    fn lose(&mut self) {
        if self.datagram {
            let from_peer = self.input.flag();
            self.end(!from_peer).outbox.pop_front();
        }
    }

    fn answer_later(&mut self) {
        let subject = self.input.flag();
        let end = self.end(subject);
        end.defers = !end.defers;
        if let Some(question) = end.questions.pop_front() {
            self.answer(subject, question);
        }
    }

    /// What a host may do at any time.
    fn use_legally(&mut self) {
        let index = u32::from(self.input.below(NAMES.len() as u8));
        let subject = self.input.flag();
        let kind = self.input.below(4);
        let end = self.end(subject);
        let number = end.first() + index;
        let input = match kind {
            0 => Some(Input::Close { number, code: Code::DONE, reason: String::new() }),
            1 => end.opening(number, false),
            2 => Some(Input::ImmediateAck { number }),
            _ => end.opening(number, true),
        };
        if let Some(input) = input {
            self.feed(subject, input, Cause::Host);
        }
    }

    /// What no host should do: an error at the call at most, never the end of the session.
    fn misuse(&mut self) {
        self.dishonest = true;
        let number = self.input.number() as u32;
        let reason = String::from("a reason");
        let mut cause = Cause::Host;
        let input = match self.input.below(8) {
            0 => Input::Authenticated(Ok(())),
            1 => {
                cause = Cause::HostEnds;
                Input::Authenticated(Err((Code::UNAUTHENTICATED, reason)))
            }
            2 => Input::Deny { document: self.document(), code: Code::FORBIDDEN, reason },
            3 => {
                let (tail, digest, held) = (self.input.number(), self.input.number(), self.input.number());
                let number = number % 3;
                // A tail that was never written is a lie that nobody can notice: the log is the host's.
                let tail = tail.min(self.subject.documents[&number].0.tail());
                Input::Advance { number, tail, digest, held, live: None }
            }
            4 => {
                let from = self.input.number() % 8;
                let end = &mut self.subject;
                let Some((log, _)) = end.documents.get_mut(&(number % 3)) else { return };
                let chunk = log.read(from, u64::from(self.input.byte()) * 8);
                let empty = Chunk { from, entries: Vec::new(), authors: BTreeMap::new() };
                Input::Loaded { number: number % 3, chunk: chunk.unwrap_or(empty) }
            }
            5 => {
                let forks = (0..self.input.below(80)).map(|id| ReplicaId([id; 16])).collect();
                let mut comparison = Comparison::new(self.input.number() % 32);
                comparison.forks = forks;
                Input::Compared { number: number % 3, comparison }
            }
            6 => Input::Close { number, code: Code(self.input.number() as u16), reason },
            _ => {
                if self.input.below(4) != 0 {
                    return;
                }
                cause = Cause::HostEnds;
                Input::Goodbye { code: Code::SHUTDOWN, reason, retry_after: None }
            }
        };
        self.feed(true, input, cause);
    }
}
