//! A run: two ends that an input shapes, and what goes from one to the other, looked at as it goes.

use antiphon::codes::{Code, Retry};
use antiphon::op::{Body, Cursor, Op, OpId, Origin};
use antiphon::session::{By, Config, Event, Input, Output, Transport};
use antiphon::wire::{Limits, Message, Tag};
use antiphon::{Instant, Machine};
use bytes::Bytes;

use crate::host::{End, NAMES};
use crate::input::Reader;
use crate::laws::{self, Cause};

const REOPENINGS_MAX: u32 = 20;
/// Loads without a frame between them, if each brings the session forward: no log here has so many entries.
const LOADS_MAX: u32 = 500;

/// One run: the subject, the peer that half the frames are honest of, and what is under way between them.
pub struct Run<'a> {
    pub(crate) input: Reader<'a>,
    pub(crate) now: Instant,
    pub(crate) subject: End,
    pub(crate) peer: End,
    pub(crate) datagram: bool,
    pub(crate) nonces: (u64, u64),
    /// Somebody broke the protocol: accusations may be right.
    pub(crate) dishonest: bool,
    /// Whether the subject was ever live.
    pub was_live: bool,
    traced: bool,
}

impl<'a> Run<'a> {
    /// What an input stands for.
    pub fn new(input: &'a [u8]) -> Self {
        let mut input = Reader(input);
        let shape = input.byte();
        let datagram = shape & 1 == 1;
        let transport = if datagram {
            Transport::Datagram { mtu: if shape & 2 == 2 { 576 } else { 1200 } }
        } else {
            Transport::Reliable
        };
        let limits = match input.below(4) {
            0 => Limits::default(),
            1 => Limits { frame: 600, op: 4000, window: 1000, credit: 2000, ..Limits::default() },
            2 => Limits { frame: 576, op: 100, window: 150, credit: 150, documents: 2, authors: 2 },
            _ => Limits { op: 64 << 10, window: 8000, credit: 5000, ..Limits::default() },
        };
        let config = Config { transport, limits, ..Config::default() };
        let subject = End::new("subject", config.clone(), 1, &mut input);
        let peer = End::new("peer", config, 2, &mut input);
        let mut run = Self {
            input,
            now: Instant::ZERO,
            subject,
            peer,
            datagram,
            nonces: (1, 2),
            dishonest: false,
            was_live: false,
            traced: std::env::var_os("TRACE").is_some(),
        };
        run.shared_past();
        run
    }

    /// Ops that both ends hold from before, with cursors or without.
    pub(crate) fn shared_past(&mut self) {
        for index in 0..NAMES.len() as u32 {
            let kind = self.input.byte();
            let count = u64::from(kind % 8);
            let (Some(one), Some(two)) =
                (self.subject.documents.get_mut(&index), self.peer.documents.get_mut(&(10 + index)))
            else {
                continue;
            };
            for seq in 1..=count {
                // Nobody sends ops over the limit that both ends have.
                let len = if kind & 0x40 != 0 && seq == 3 { 700.min(self.subject.op as usize) } else { seq as usize };
                let body = Body::Bytes(vec![seq as u8; len].into());
                let id = OpId { author: self.peer.replica, seq };
                two.0.take(Op { id, body: body.clone() }, None);
                if seq <= u64::from(kind >> 3 & 7) {
                    one.0.take(Op { id, body }, Some(Origin::of(self.peer.replica, self.peer.timeline)));
                    one.1 = Some(Cursor { timeline: self.peer.timeline, position: seq });
                }
            }
            if kind & 0x80 != 0 {
                one.0.append(self.subject.replica, Body::Bytes(Bytes::from_static(b"mine")));
            }
        }
    }

    pub(crate) fn end(&mut self, subject: bool) -> &mut End {
        if subject { &mut self.subject } else { &mut self.peer }
    }

    /// Hands an input to one end and looks at all that comes of it.
    pub(crate) fn feed(&mut self, subject: bool, input: Input, cause: Cause) {
        let now = self.now;
        self.trace(subject, || match &input {
            Input::Received(frame) => format!("<- {}", self.told(frame)),
            other => format!("   {other:?}"),
        });
        let end = self.end(subject);
        let before = (end.session.state_digest(), std::mem::replace(&mut end.heard_at, now));
        if end.session.handle(now, input).is_err() {
            assert_ne!(cause, Cause::Peer, "the peer's bytes are no misuse of the host's");
            // But for the time, which a misuse tells as well as any other call.
            assert!(end.session.state_digest() == before.0 || before.1 != now, "misuse changed the session");
        }
        self.drain(subject, cause);
    }

    /// Prints what happens, to those who look into one input with `TRACE=1`.
    pub(crate) fn trace(&self, subject: bool, line: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{} {} {}", self.now, if subject { "subject" } else { "peer   " }, line());
        }
    }

    pub(crate) fn told(&self, frame: &Bytes) -> String {
        let (one, two) = self.nonces;
        let unseal = |tag: Tag| tag.turned(tag.turn_of(frame)?).unseal(frame).filter(|_| self.datagram);
        let inner = unseal(Tag::new(one, two)).or_else(|| unseal(Tag::new(two, one))).or_else(|| unseal(Tag::NONE));
        let frame = inner.as_ref().unwrap_or(frame);
        match Message::decode(frame) {
            Ok(Message::Reliable(number, inner)) => format!("{number}: {:?}", Message::decode(&inner)),
            Ok(message) => format!("{message:?}"),
            Err(malformed) => format!("{malformed}: {frame:02x?}"),
        }
    }

    pub(crate) fn drain(&mut self, subject: bool, cause: Cause) {
        while let Some(output) = self.end(subject).session.poll() {
            self.trace(subject, || match &output {
                Output::Transmit(frame) => format!("-> {}", self.told(frame)),
                other => format!("=> {other:?}"),
            });
            let end = self.end(subject);
            assert!(!end.closed, "{} says {output:?} after it was closed", end.name);
            match output {
                Output::Transmit(frame) => {
                    end.loads = 0;
                    if end.history.len() == 16 {
                        end.history.pop_front();
                    }
                    end.history.push_back(frame.clone());
                    end.outbox.push_back(frame);
                }
                Output::Event(event) => self.event(subject, event, cause),
                question => {
                    end.loads += u32::from(matches!(question, Output::Load { .. }));
                    assert!(end.loads < LOADS_MAX, "the host is asked for entries again and again");
                    end.questions.push_back(question);
                }
            }
        }
        laws::check(self.end(subject));
        while !self.end(subject).defers {
            let Some(question) = self.end(subject).questions.pop_front() else { break };
            self.answer(subject, question);
        }
    }

    pub(crate) fn event(&mut self, subject: bool, event: Event, cause: Cause) {
        let (dishonest, end) = (self.dishonest, self.end(subject));
        let judge = |code| laws::judge(code, cause, dishonest);
        match event {
            Event::Closed(ending) => {
                end.closed = true;
                if ending.by == By::Us {
                    judge(ending.code);
                }
            }
            Event::DocumentClosed { number, code, by, .. } => {
                if by == By::Us {
                    judge(code);
                }
                // What was closed here can be opened again once the peer knows.
                if by == By::Peer && code.retry() == Retry::Now && end.reopenings < REOPENINGS_MAX {
                    end.reopenings += 1;
                    if let Some(opening) = end.opening(number, code != Code::DONE) {
                        self.feed(subject, opening, Cause::Host);
                    }
                }
            }
            Event::PeerOpened { document, .. } => {
                let number = end.number_of(&document);
                let input = number.and_then(|number| end.opening(number, false));
                let (code, reason) = (Code::UNKNOWN_DOCUMENT, String::new());
                self.feed(subject, input.unwrap_or(Input::Deny { document, code, reason }), Cause::Host);
            }
            Event::Released { document } => {
                let reopen = end.number_of(&document).filter(|_| end.reopenings < REOPENINGS_MAX);
                end.reopenings += 1;
                if let Some(opening) = reopen.and_then(|number| end.opening(number, true)) {
                    self.feed(subject, opening, Cause::Host);
                }
            }
            Event::SnapshotOffered { number, snapshot } if snapshot.bytes > 0 => {
                self.feed(
                    subject,
                    Input::WantSnapshot { number, offset: 0, bytes: 1 + snapshot.head_bytes % 1000 },
                    Cause::Host,
                );
            }
            Event::Connected { .. } => self.was_live |= subject,
            _ => {}
        }
    }

    /// The host's answer to one question.
    pub(crate) fn answer(&mut self, subject: bool, question: Output) {
        if let Some(input) = self.end(subject).answer(question) {
            self.feed(subject, input, Cause::Host);
        }
    }

    /// Delivers the oldest frame on its way to one end.
    pub(crate) fn deliver(&mut self, to_subject: bool) -> bool {
        let Some(frame) = self.end(!to_subject).outbox.pop_front() else { return false };
        self.feed(to_subject, Input::Received(frame), Cause::Peer);
        true
    }

    pub(crate) fn exchange(&mut self) {
        for _ in 0..40 {
            let (there, back) = (self.deliver(true), self.deliver(false));
            if !there && !back {
                return;
            }
        }
    }
}
