//! Frames as text: the one place where they become words, for terminals and pictures.

use std::fmt::Write as _;

use antiphon::op::{Body, DocumentId};
use antiphon::wire::{Access, Changes, Content, Farewell, Message, TRAILER_BYTES};
use bytes::Bytes;

/// A document, as a frame names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Named {
    /// By its name.
    Document(DocumentId),
    /// By the number that the sender of the frame has for it.
    OfSender(u32),
    /// By the number that the receiver of the frame has for it.
    OfReceiver(u32),
}

/// A frame in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrameText {
    /// The kind of the message: `Live`, `Ack`.
    pub kind: &'static str,
    /// What it is about, if it is about a document.
    pub document: Option<Named>,
    /// The number that the sender gives the document with this frame.
    pub number: Option<u32>,
    /// What it says beside that.
    pub text: String,
}

/// Puts a frame into words. On a datagram link, frames end with a trailer; a frame that can't be decoded has the kind
/// `?`.
pub fn frame_text(frame: &Bytes, datagram: bool) -> FrameText {
    let bare = match datagram {
        true => frame.slice(..frame.len().saturating_sub(TRAILER_BYTES)),
        false => frame.clone(),
    };
    match Message::decode(&bare) {
        Ok(message) => message_text(message),
        Err(malformed) => {
            let text = format!("{} bytes that are no message: {malformed}", frame.len());
            FrameText { kind: "?", document: None, number: None, text }
        }
    }
}

fn message_text(message: Message) -> FrameText {
    use Named::{Document, OfReceiver, OfSender};
    let mut kind = message.name();
    let mut number = None;
    let (document, text) = match message {
        Message::Hello(hello) => {
            let shows = if hello.token.is_some() { ", shows a token" } else { "" };
            let versions = format!("versions {} to {}", hello.version_min, hello.version_max);
            (None, format!("{}, {versions}, timeline {:?}{shows}", hello.replica, hello.timeline))
        }
        Message::Welcome(welcome) => {
            (None, format!("version {}, acknowledges what is durable as {:?}", welcome.version, welcome.durability))
        }
        Message::Refuse(farewell) | Message::Goodbye(farewell) => (None, farewell_text(&farewell)),
        Message::Open(open) => {
            number = Some(open.number);
            let mut text = format!("to {}, tail {}, heads {:016x}", access(open.access), open.tail, open.digest);
            if let Some(cursor) = open.cursor.map(antiphon::op::Cursor::from) {
                let _ = write!(text, ", holds {} of {:?}", cursor.position, cursor.timeline);
            }
            text.push_str(if open.thorough { ", thorough" } else { "" });
            (Some(Document(open.document)), text)
        }
        Message::Denied(end) | Message::Close(end) => {
            let text = because(&format!("{}", end.code), &end.reason);
            (Some(Document(end.document)), text)
        }
        Message::Resume(resume) => {
            let text = resume.from.map_or_else(|| String::from("wants heads"), |from| format!("from {from}"));
            (Some(OfSender(resume.document)), text)
        }
        Message::Heads(part) => {
            let more = if part.last { "the last" } else { "more follow" };
            (Some(OfSender(part.document)), format!("{} bytes, after {} heads, {more}", part.heads.len(), part.offset))
        }
        Message::Snapshot(part) => {
            (Some(OfSender(part.document)), format!("{} bytes at {} of {}", part.bytes.len(), part.offset, part.total))
        }
        Message::Author(announce) => {
            let text = format!("{} is {}, from seq {}", announce.number, announce.author, announce.base);
            (Some(OfSender(announce.document)), text)
        }
        Message::Ack(ack) => {
            let mut text = format!("{}: received {}", ack.number, ack.received.position);
            if ack.received.offset > 0 {
                let _ = write!(text, "+{}", ack.received.offset);
            }
            let _ = write!(text, ", durable {}, window {}, credit {}", ack.held, ack.window, ack.credit);
            if let Some(skip) = ack.skip {
                let _ = write!(text, ", skip {} to {}", skip.from, skip.to);
            }
            if let Some(level) = ack.level {
                let _ = write!(text, ", level at {}", level.tail);
            }
            (Some(OfReceiver(ack.document)), text)
        }
        Message::Rewind(rewind) => {
            let to = rewind.to.map_or_else(String::new, |to| format!(" to {}+{}", to.position, to.offset));
            let from = rewind.from;
            (
                Some(OfReceiver(rewind.document)),
                format!("{}: from {}+{}{to}", rewind.number, from.position, from.offset),
            )
        }
        Message::Ping(ping) => {
            (None, if ping.blocked { format!("{}, waits for credit", ping.token) } else { ping.token.to_string() })
        }
        Message::Pong(pong) => (None, pong.token.to_string()),
        Message::Credit(credit) => (None, format!("{}: {} on the link", credit.number, credit.total)),
        Message::Fork(fork) => (Some(OfSender(fork.document)), format!("{} authors differ", fork.authors.len() / 16)),
        Message::Confirm(confirm) => (None, format!("everything below {}", confirm.next)),
        Message::ImmediateAck(ask) => (Some(OfSender(ask.document)), format!("somebody waits for {}", ask.to)),
        Message::Presence(presence) => (Some(OfSender(presence.document)), format!("{} bytes", presence.body.len())),
        Message::Changes(changes) => {
            kind = match changes.content {
                Content::Live { .. } => "Live",
                Content::Bulk { .. } => "Bulk",
                Content::Part { .. } => "Part",
            };
            (Some(OfSender(changes.document)), changes_text(&changes))
        }
        // Reliable in Reliable is no message that anybody sends; it is not followed.
        Message::Reliable(reliable, inner) if inner.first() != Some(&RELIABLE) => {
            let inner = frame_text(&inner, false);
            let text = format!("{} ({reliable} of its kind)", inner.text);
            return FrameText { text, ..inner };
        }
        Message::Reliable(reliable, inner) => (None, format!("{reliable}: {} bytes", inner.len())),
        Message::Unknown(unknown, body) => (None, format!("kind {unknown:#04x}, {} bytes", body.len())),
    };
    FrameText { kind, document, number, text }
}

const RELIABLE: u8 = 0x13;

fn changes_text(changes: &Changes) -> String {
    let counts = if changes.absolute { "" } else { "+" };
    let from = changes.from;
    match &changes.content {
        Content::Live { author, seq, body } => {
            format!("at {counts}{from}: author {author} seq {counts}{seq}, {}", body_text(body))
        }
        Content::Bulk { span, runs, bodies } => {
            let bytes: usize = bodies.iter().map(Body::wire_len).sum();
            let to = from.saturating_add(*span);
            format!("at {counts}{from} to {counts}{to}: {} ops of {} runs, {bytes} bytes", bodies.len(), runs.len())
        }
        Content::Part { author, seq, offset, total, piece } => {
            let len = piece.len();
            format!("at {counts}{from}: author {author} seq {counts}{seq}, {len} bytes at {offset} of {total}")
        }
    }
}

fn body_text(body: &Body) -> String {
    match body {
        Body::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Body::Blank(hash) => format!("a blank of {:016x}", hash.0),
    }
}

fn farewell_text(farewell: &Farewell) -> String {
    let mut text = because(&farewell.code.to_string(), &farewell.reason);
    if let Some(wait) = farewell.retry_after {
        let _ = write!(text, ", come back in {wait} ms");
    }
    text
}

/// A code, and the reason that came with it.
pub(crate) fn because(code: &str, reason: &str) -> String {
    if reason.is_empty() { code.to_owned() } else { format!("{code}: {reason}") }
}

pub(crate) fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}
