//! A session's inputs and outputs as text, with the names that numbers stand for.

use antiphon::session::{Input, Live, Opening, Output, Transport};
use antiphon_words::{Sign, access, session_event_words};
use bytes::Bytes;

use crate::line::{Line, Numbers, entries_text, frame_line};

/// Puts a session's inputs and outputs into words, and remembers what numbers stand for. It must be shown all of them, in
/// order.
#[derive(Clone, Debug)]
pub struct Transcript {
    datagram: bool,
    /// The documents by this end's numbers, and by the peer's.
    own: Numbers,
    peer: Numbers,
}

impl Transcript {
    /// Nothing is known yet of the session but what carries its frames.
    pub fn new(transport: Transport) -> Self {
        let datagram = matches!(transport, Transport::Datagram { .. });
        Self { datagram, own: Numbers::new(), peer: Numbers::new() }
    }

    /// Something that happened to the session.
    pub fn input(&mut self, input: &Input) -> Line {
        let of = |kind, sign| Line::of("", kind, sign);
        let user = |kind| of(kind, Some(Sign::User));
        match input {
            Input::Received(frame) => self.frame("<-", frame),
            Input::Writable { bytes } => of("Writable", None).say("bytes", bytes),
            Input::Timer => of("Timer", Some(Sign::Timer)),
            Input::Authenticated(Ok(())) => of("Answer", None).say("the peer", "may connect"),
            Input::Authenticated(Err((code, reason))) => of("Answer", Some(Sign::Trouble)).because(*code, reason),
            Input::Open(opening) => {
                let Opening { number, document, access: to, tail, heads, .. } = &**opening;
                self.own.insert(*number, document.clone());
                let line = user("Open").say("to", access(*to)).say("tail", tail).say("authors", heads.len());
                Line { document: Some(document.clone()), ..line }
            }
            Input::Deny { document, code, reason } => {
                Line { document: Some(document.clone()), ..user("Deny").because(*code, reason) }
            }
            Input::Close { number, code, reason } => self.about(*number, user("Close").because(*code, reason)),
            Input::Advance { number, tail, held, live, .. } => {
                let mut line =
                    of("Durable", None).say("tail", tail).say("held of the peer's log", format!("below {held}"));
                line.fields.extend(live.as_ref().map(|live| ("new", live_text(live))));
                self.about(*number, line)
            }
            Input::Loaded { number, chunk } => {
                let line = of("Loaded", None).say("read", entries_text(&chunk.entries)).say("from", chunk.from);
                self.about(*number, line)
            }
            Input::Compared { number, comparison } => {
                let line = of("Compared", None).say("from", comparison.from).say("forks", comparison.forks.len());
                self.about(*number, line)
            }
            Input::SnapshotRead { number, bytes } => self.about(*number, of("Read", None).say("bytes", bytes.len())),
            Input::WantSnapshot { number, offset, bytes } => {
                self.about(*number, of("Want", None).say("bytes", bytes).say("from", offset))
            }
            Input::ImmediateAck { number } => self.about(*number, user("Wait")),
            Input::Goodbye { code, reason, .. } => user("Goodbye").because(*code, reason),
        }
    }

    /// Something that the session wants done.
    pub fn output(&mut self, output: &Output) -> Line {
        let of = |kind| Line::of("=>", kind, None);
        match output {
            Output::Transmit(frame) => self.frame("->", frame),
            Output::Authenticate { replica, token, .. } => of("Ask").whether_may_connect(replica, token.as_ref()),
            Output::Take { number, from, to, ops, .. } => {
                let line = of("Take").say("ops", ops.len()).say("of the peer's log", format!("{from} to {to}"));
                self.about(*number, line)
            }
            Output::Load { number, from, max_cost } => {
                self.about(*number, of("Load").say("from", from).say("cost", max_cost))
            }
            Output::Compare { number, heads } => {
                self.about(*number, of("Compare").say("with", format!("{} heads", heads.len())))
            }
            Output::ReadSnapshot { number, offset, max, .. } => {
                self.about(*number, of("Read snapshot").say("from", offset).say("bytes", max))
            }
            Output::TakeSnapshot { number, offset, bytes } => {
                self.about(*number, of("Take snapshot").say("from", offset).say("bytes", bytes.len()))
            }
            Output::Event(event) => {
                let line = Line::words("=>", session_event_words(event));
                event.number().map_or(line.clone(), |number| self.about(number, line))
            }
        }
    }

    fn frame(&mut self, arrow: &'static str, frame: &Bytes) -> Line {
        frame_line(arrow, frame, self.datagram, &mut self.own, &mut self.peer)
    }

    /// The line about the document that this end's number stands for.
    fn about(&self, number: u32, mut line: Line) -> Line {
        line.document = self.own.get(&number).cloned();
        if line.document.is_none() {
            line.fields.insert(0, ("document", format!("number {number}")));
        }
        line
    }
}

fn live_text(live: &Live) -> String {
    match live {
        Live::Packed(packed) => format!("in {} frames", packed.len()),
        Live::Brought { from, to, .. } => format!("{from} to {to}, of a peer"),
    }
}
