//! Frames in words.

use antiphon::op::{Body, Cursor, DocumentId};
use antiphon::wire::{Access, Changes, Content, FORKS_MAX, Farewell, Hello, Message, Open, Point, TRAILER_BYTES};
use bytes::Bytes;

use crate::event::snapshot_words;

/// Something that is said of a frame or an event: what it is called, and what it is.
pub type Field = (&'static str, String);

/// A frame in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrameWords {
    /// The kind of the message: `Live`, `Ack`. A frame that can't be decoded has the kind `?`.
    pub kind: &'static str,
    /// What such messages are for.
    pub family: Family,
    /// The document that it is about, if it is about one.
    pub document: Option<Named>,
    /// The number that the sender gives the document with this frame.
    pub number: Option<u32>,
    /// What it says beside that.
    pub fields: Vec<Field>,
}

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

/// What messages are for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// They carry ops.
    Changes,
    /// They say how far ops have come, and how many more may.
    Flow,
    /// They open and close documents, and find where each end starts.
    Documents,
    /// They begin and end sessions.
    Session,
    /// They keep the link itself in order.
    Link,
    /// They can't be decoded, or are of a later version.
    Unknown,
}

impl FrameWords {
    fn of(kind: &'static str, family: Family, document: Option<Named>, fields: Vec<Field>) -> Self {
        Self { kind, family, document, number: None, fields }
    }
}

/// Puts a frame into words. On a datagram link frames end with a trailer.
pub fn frame_words(frame: &Bytes, datagram: bool) -> FrameWords {
    let bare = match datagram {
        true => frame.slice(..frame.len().saturating_sub(TRAILER_BYTES)),
        false => frame.clone(),
    };
    let mut words = match Message::decode(&bare) {
        Ok(message) => message_words(message),
        Err(malformed) => {
            let fields = vec![("malformed", malformed.to_string()), ("bytes", bytes_preview(frame))];
            FrameWords::of("?", Family::Unknown, None, fields)
        }
    };
    words.fields.push(("frame", format!("{} bytes", frame.len())));
    words
}

fn message_words(message: Message) -> FrameWords {
    use Family::{Documents, Flow, Link, Session};
    use Named::{Document, OfReceiver, OfSender};
    let kind = message.name();
    let (family, document, fields) = match message {
        Message::Hello(hello) => (Session, None, hello_fields(&hello)),
        Message::Welcome(welcome) => {
            let promise = format!("{:?}", welcome.durability).to_lowercase();
            (Session, None, vec![("version", welcome.version.to_string()), ("acknowledges", promise)])
        }
        Message::Refuse(farewell) | Message::Goodbye(farewell) => (Session, None, farewell_fields(farewell)),
        Message::Open(open) => {
            let fields = open_fields(&open);
            let words = FrameWords::of(kind, Documents, Some(Document(open.document)), fields);
            return FrameWords { number: Some(open.number), ..words };
        }
        Message::Denied(end) | Message::Close(end) => {
            (Documents, Some(Document(end.document)), with_reason(vec![("code", end.code.to_string())], end.reason))
        }
        Message::Resume(resume) => {
            let from = resume.from.map_or_else(|| "heads are wanted first".to_owned(), |from| from.to_string());
            (Documents, Some(OfSender(resume.document)), vec![("starts at", from)])
        }
        Message::Heads(part) => {
            let more = if part.last { "the last part" } else { "more follow" };
            let fields = vec![
                ("heads", format!("{} bytes", part.heads.len())),
                ("before", format!("{} heads", part.offset)),
                ("part", more.to_owned()),
            ];
            (Documents, Some(OfSender(part.document)), fields)
        }
        Message::Snapshot(part) => {
            let place = format!("{} bytes at {}", part.bytes.len(), part.offset);
            (Documents, Some(OfSender(part.document)), vec![("snapshot", snapshot_words(&part.id)), ("part", place)])
        }
        Message::SnapshotWanted(wanted) => {
            let place = format!("{} bytes from {}", wanted.bytes, wanted.offset);
            (Documents, Some(OfSender(wanted.document)), vec![("wants", place)])
        }
        Message::Author(author) => {
            let fields = vec![
                ("author", author.number.to_string()),
                ("is", author.author.to_string()),
                ("seqs count from", author.base.to_string()),
            ];
            (Documents, Some(OfSender(author.document)), fields)
        }
        Message::Fork(fork) => {
            let authors = fork.authors.chunks(16).take(FORKS_MAX).map(hex).collect::<Vec<_>>().join(", ");
            (Documents, Some(OfSender(fork.document)), vec![("authors", authors)])
        }
        Message::Ack(ack) => {
            let mut fields = vec![
                ("number", ack.number.to_string()),
                ("received", format!("below {}", point(ack.received))),
                ("durable", format!("below {}", ack.held)),
                ("window", ack.window.to_string()),
                ("credit", ack.credit.to_string()),
            ];
            fields.extend(ack.skip.map(|skip| ("nothing for you", format!("in {} to {}", skip.from, skip.to))));
            fields
                .extend(ack.level.map(|level| ("in step at", format!("{}, heads {:016x}", level.tail, level.digest))));
            (Flow, Some(OfReceiver(ack.document)), fields)
        }
        Message::Rewind(rewind) => {
            let to = rewind.to.map_or_else(|| "the end".to_owned(), point);
            let missing = format!("{} to {to}", point(rewind.from));
            let fields = vec![("number", rewind.number.to_string()), ("missing", missing)];
            (Flow, Some(OfReceiver(rewind.document)), fields)
        }
        Message::Credit(credit) => {
            (Flow, None, vec![("number", credit.number.to_string()), ("credit", credit.total.to_string())])
        }
        Message::ImmediateAck(ask) => (Flow, Some(OfSender(ask.document)), vec![("waits for", ask.to.to_string())]),
        Message::Ping(ping) => {
            let mut fields = vec![("token", ping.token.to_string())];
            fields.extend(ping.blocked.then(|| ("blocked", "waits for credit".to_owned())));
            (Link, None, fields)
        }
        Message::Pong(pong) => (Link, None, vec![("token", pong.token.to_string())]),
        Message::Confirm(confirm) => (Link, None, vec![("has", format!("everything below {}", confirm.next))]),
        Message::Presence(presence) => {
            (Link, Some(OfSender(presence.document)), vec![("body", bytes_preview(&presence.body))])
        }
        Message::Changes(changes) => return changes_words(&changes),
        // Reliable in Reliable is no message that anybody sends; it is not followed.
        Message::Reliable(number, inner) if inner.first() != Some(&RELIABLE) => {
            let mut words = frame_words(&inner, false);
            words.fields.pop(); // the size of the frame that was sent is what counts
            words.fields.push(("control message", number.to_string()));
            return words;
        }
        Message::Reliable(number, inner) => {
            (Family::Unknown, None, vec![("control message", number.to_string()), ("inside", bytes_preview(&inner))])
        }
        Message::Unknown(unknown, body) => {
            (Family::Unknown, None, vec![("kind", format!("{unknown:#04x}")), ("body", bytes_preview(&body))])
        }
    };
    FrameWords::of(kind, family, document, fields)
}

const RELIABLE: u8 = 0x13;

fn hello_fields(hello: &Hello) -> Vec<Field> {
    let limits = &hello.limits;
    let mut fields = vec![
        ("replica", hello.replica.to_string()),
        ("versions", format!("{} to {}", hello.version_min, hello.version_max)),
        ("timeline", format!("{:016x}", hello.timeline.0)),
    ];
    fields.extend(hello.previous.map(|previous| ("before", format!("{:016x}", previous.0))));
    fields.extend([
        ("nonce", format!("{:016x}", hello.nonce)),
        ("takes", format!("frames of {}, ops of {} bytes", limits.frame, limits.op)),
        ("window", limits.window.to_string()),
        ("credit", limits.credit.to_string()),
        ("at most", format!("{} documents, {} authors", limits.documents, limits.authors)),
    ]);
    fields.extend((hello.features != 0).then(|| ("features", format!("{:#x}", hello.features))));
    // What it is stays between the two ends.
    fields.extend(hello.token.as_ref().map(|token| ("token", format!("{} bytes", token.len()))));
    fields
}

fn open_fields(open: &Open) -> Vec<Field> {
    let mut fields = vec![("number", open.number.to_string()), ("to", access(open.access).to_owned())];
    fields.extend(open.thorough.then(|| ("thorough", "heads are exchanged".to_owned())));
    fields.extend(open.schema.as_ref().map(|schema| ("schema", format!("{} {}", schema.name, schema.version))));
    if let Some(timelines) = &open.timelines {
        fields.push(("timeline", format!("{:016x}", timelines.current.0)));
        fields.extend(timelines.previous.map(|previous| ("before", format!("{:016x}", previous.0))));
    }
    fields.push(("begins", open.begins.to_string()));
    fields.extend((open.horizon > 0).then(|| ("horizon", open.horizon.to_string())));
    fields.extend([("tail", open.tail.to_string()), ("heads", format!("{:016x}", open.digest))]);
    let cursor = open.cursor.map(Cursor::from);
    let cursor = cursor.map(|cursor| format!("below {} of your timeline {:016x}", cursor.position, cursor.timeline.0));
    fields.push(("holds", cursor.unwrap_or_else(|| "no cursor on your log".to_owned())));
    let own = antiphon::heads::Head::from(open.own);
    fields.extend([("of your ops", format!("up to seq {}", own.seq)), ("acks", open.acks.to_string())]);
    fields
}

fn changes_words(changes: &Changes) -> FrameWords {
    // Where they are not absolute, positions count from what Open has said, and seqs from what Author has.
    let (begins, base) = if changes.absolute { ("", "") } else { ("begins + ", "base + ") };
    let from = changes.from;
    let position = ("position", format!("{begins}{from}"));
    let author = |author: &u32, seq: &u64| [("author", author.to_string()), ("seq", format!("{base}{seq}"))];
    let (kind, fields) = match &changes.content {
        Content::Live { author: number, seq, body } => {
            let mut fields = vec![position];
            fields.extend(author(number, seq));
            fields.push(("body", body_words(body)));
            ("Live", fields)
        }
        Content::Bulk { span, runs, bodies } => {
            let bytes: usize = bodies.iter().map(Body::wire_len).sum();
            let to = from.saturating_add(*span);
            let mut fields = vec![
                ("positions", format!("{begins}{from} to {begins}{to}")),
                ("ops", format!("{}, {bytes} bytes", bodies.len())),
            ];
            fields.extend(runs.iter().take(RUNS_MAX).map(|run| {
                let blanks = if run.blank { " blanks" } else { " ops" };
                ("run", format!("author {}, from seq {base}{}, {}{blanks}", run.author, run.seq, run.count))
            }));
            fields.extend(runs.len().checked_sub(RUNS_MAX + 1).map(|left| ("and", format!("{} more runs", left + 1))));
            fields.extend(bodies.first().map(|body| ("first body", body_words(body))));
            ("Bulk", fields)
        }
        Content::Part { author: number, seq, offset, total, piece } => {
            let mut fields = vec![position];
            fields.extend(author(number, seq));
            fields.extend([("offset", format!("{offset} of {total}")), ("piece", bytes_preview(piece))]);
            ("Part", fields)
        }
    };
    FrameWords::of(kind, Family::Changes, Some(Named::OfSender(changes.document)), fields)
}

/// How many runs of a Bulk are told one by one.
const RUNS_MAX: usize = 6;

/// A body: its size, and how it begins.
pub fn body_words(body: &Body) -> String {
    match body {
        Body::Bytes(bytes) => bytes_preview(bytes),
        Body::Blank(hash) => format!("a blank of {:016x}", hash.0),
    }
}

/// Bytes of a body that are shown.
const PREVIEW_BYTES: usize = 40;

/// How many bytes, and the first of them: as text if they are one.
pub fn bytes_preview(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(PREVIEW_BYTES)];
    let more = if shown.len() < bytes.len() { " …" } else { "" };
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // A character that the preview cuts in two is left out.
        Err(error) if error.error_len().is_none() && !more.is_empty() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text.filter(|text| !text.chars().any(char::is_control)) {
        Some("") => format!("{} bytes", bytes.len()),
        Some(text) => format!("{} bytes: “{text}{more}”", bytes.len()),
        None => format!("{} bytes: {}{more}", bytes.len(), hex(shown)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn point(point: Point) -> String {
    match point.offset {
        0 => point.position.to_string(),
        offset => format!("{} and {offset} bytes", point.position),
    }
}

fn farewell_fields(farewell: Farewell) -> Vec<Field> {
    let mut fields = with_reason(vec![("code", farewell.code.to_string())], farewell.reason);
    fields.extend(farewell.retry_after.map(|wait| ("come back", format!("in {wait} ms"))));
    fields
}

/// The reason that came with a code, if one did.
pub fn with_reason(mut fields: Vec<Field>, reason: String) -> Vec<Field> {
    fields.extend((!reason.is_empty()).then_some(("reason", reason)));
    fields
}

/// What an end does with a document, in a word.
pub fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}
